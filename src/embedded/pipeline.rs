//! [`Pipeline`]: many operations in flight from one thread.

use super::call::{read_error, write_error};
use super::change::{self, Change, Maker, Sheet, written};
use super::client::check_key;
use super::park::Parking;
use super::reads::{Group, Place, Reads};
use crate::api::{Answer, ReadError, Swap, Uncertainty, WriteError};
use crate::kv::{Attach, Expected, Key, KeyRange, KeyValue, LeaseId, Presence, Reply, Txn, TxnReply};
use crate::runtime::mailbox::{Address, Handle};
use crate::runtime::shared::{Failure, Outcome, Shared, Submission};
use std::sync::Arc;
use std::task::{Context, Poll};

/// Keeps many operations in flight from one thread or task.
///
/// Every operation gets a number and returns at once. Answers come in batches, in the order in which they became known;
/// a batch costs one wake-up however many answers it holds. Operations in flight at the same time take effect in any
/// order, as those of different clients do; wait for an answer before sending what depends on it.
///
/// Dropping a pipeline takes back nothing: operations in flight may still happen.
///
/// ```
/// use d_engine::prelude::*;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let engine = EmbeddedEngine::ephemeral().await?;
/// engine.wait_ready(std::time::Duration::from_secs(10)).await?;
///
/// let mut pipeline = engine.client().pipeline();
/// for n in 0..100 {
///     pipeline.put(format!("key-{n}"), "value")?;
/// }
/// let mut done = Vec::new();
/// while pipeline.in_flight() > 0 {
///     // One wake-up, many answers. Without an executor: `pipeline.wait(&mut done)`.
///     pipeline.next_batch(&mut done).await;
/// }
/// assert_eq!(done.len(), 100);
/// assert!(done.iter().all(|done| done.result.is_ok()));
/// # engine.stop().await?;
/// # Ok(()) }
/// ```
pub struct Pipeline {
    shared: Arc<Shared>,
    mailbox: Handle<Outcome>,
    next: u64,
    in_flight: usize,
    reads: Reads,
    sheet: Sheet,
    batch: Vec<(u64, Outcome)>,
    parking: Parking,
}

/// The answer to one operation of a [`Pipeline`].
#[derive(Debug)]
pub struct Completion {
    /// The number the operation got.
    pub number: u64,
    /// What became of it.
    pub result: Result<Completed, PipelineError>,
}

/// What an operation of a [`Pipeline`] gave.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Completed {
    /// A put was acknowledged.
    Put(Answer<()>),
    /// A delete was acknowledged; the value says whether the key was there.
    Delete(Answer<bool>),
    /// A put that says what its key depends on was acknowledged; the value is the lease it has.
    PutAttached(Answer<Option<LeaseId>>),
    /// A range was removed; the value says how many keys it had.
    DeleteRange(Answer<u64>),
    /// A compare-and-swap was decided.
    Swap(Answer<Swap>),
    /// A transaction was carried out.
    Txn(Answer<TxnReply>),
    /// A read was answered.
    Get(Answer<Option<KeyValue>>),
}

/// Why an operation of a [`Pipeline`] failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PipelineError {
    /// A write, and whether it may have happened.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// A read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

impl std::fmt::Debug for Pipeline {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pipeline").field("in_flight", &self.in_flight).finish_non_exhaustive()
    }
}

impl Pipeline {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let mailbox = shared.mailboxes.open();
        Self {
            shared,
            mailbox,
            next: 0,
            in_flight: 0,
            reads: Reads::default(),
            sheet: Sheet::default(),
            batch: Vec::new(),
            parking: Parking::default(),
        }
    }

    /// Sends a put; returns its number.
    ///
    /// # Errors
    /// [`WriteError`], and then nothing was sent: `Busy` when the engine's queue is full.
    pub fn put(&mut self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<u64, WriteError> {
        self.propose(|maker| change::put(maker, key.as_ref(), value.as_ref()))
    }

    /// Sends a put that says what its key depends on, as
    /// [`ClientApi::put_attached`](crate::api::ClientApi::put_attached) does; returns its number.
    ///
    /// # Errors
    /// [`WriteError`], and then nothing was sent: `Busy` when the engine's queue is full.
    pub fn put_attached(
        &mut self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        attach: Attach,
    ) -> Result<u64, WriteError> {
        self.propose(|maker| change::put_attached(maker, key.as_ref(), value.as_ref(), attach))
    }

    /// Sends a delete; returns its number.
    ///
    /// # Errors
    /// [`WriteError`], and then nothing was sent: `Busy` when the engine's queue is full.
    pub fn delete(&mut self, key: impl AsRef<[u8]>) -> Result<u64, WriteError> {
        self.propose(|maker| change::delete(maker, key.as_ref()))
    }

    /// Sends the removal of all keys of a range; returns its number.
    ///
    /// # Errors
    /// [`WriteError`], and then nothing was sent: `Busy` when the engine's queue is full.
    pub fn delete_range(&mut self, range: &KeyRange) -> Result<u64, WriteError> {
        self.propose(|maker| change::delete_range(maker, range))
    }

    /// Sends a compare-and-swap; returns its number.
    ///
    /// # Errors
    /// [`WriteError`], and then nothing was sent: `Busy` when the engine's queue is full.
    pub fn compare_and_swap(
        &mut self,
        key: impl AsRef<[u8]>,
        expected: &Expected,
        new: impl AsRef<[u8]>,
    ) -> Result<u64, WriteError> {
        self.propose(|maker| change::swap(maker, key.as_ref(), expected, new.as_ref()))
    }

    /// Sends a transaction; returns its number.
    ///
    /// # Errors
    /// [`WriteError`], and then nothing was sent: `Busy` when the engine's queue is full.
    pub fn txn(&mut self, txn: &Txn) -> Result<u64, WriteError> {
        self.propose(|maker| change::txn(maker, txn))
    }

    /// Sends a linearizable read; returns its number.
    ///
    /// # Errors
    /// [`ReadError`], and then nothing was sent: `Busy` when the engine's queue is full.
    pub fn get(&mut self, key: impl AsRef<[u8]>) -> Result<u64, ReadError> {
        let key = key.as_ref();
        check_key(&self.shared, key)?;
        match self.reads.place(self.next, Key::from(key)) {
            Place::Joined => Ok(self.sent()),
            Place::Ask { token, question } => {
                let sent = self.send(token, |address| Submission::Reads { address, question });
                if sent.is_err() {
                    self.take_back(token);
                }
                sent.map_err(read_error)
            }
        }
    }

    /// A question that was not asked had one read.
    fn take_back(&mut self, token: u64) {
        let group = self.reads.take(token).expect("it was just placed");
        self.reads.give_back(token, group);
    }

    /// Operations whose answers have not been taken.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Sleeps until there are answers and appends them to `into`. Returns at once when nothing is in flight.
    pub fn wait(&mut self, into: &mut Vec<Completion>) {
        let mut parking = std::mem::take(&mut self.parking);
        parking.wait(|cx| self.poll_batch(into, cx));
        self.parking = parking;
    }

    /// Completes when there are answers, and appends them to `into`; at once when nothing is in flight.
    pub async fn next_batch(&mut self, into: &mut Vec<Completion>) {
        std::future::poll_fn(|cx| self.poll_batch(into, cx)).await;
    }

    /// [`next_batch`](Self::next_batch) as a poll.
    pub fn poll_batch(&mut self, into: &mut Vec<Completion>, cx: &mut Context<'_>) -> Poll<()> {
        if self.in_flight == 0 {
            return Poll::Ready(());
        }
        if self.mailbox.poll_collected(&mut self.batch, cx).is_pending() {
            return Poll::Pending;
        }
        let before = into.len();
        for (token, outcome) in self.batch.drain(..) {
            match self.reads.take(token) {
                Some(group) => {
                    finish_reads(&self.shared, &group, outcome, into);
                    self.reads.give_back(token, group);
                }
                None => into.push(Completion { number: token, result: finish_write(outcome) }),
            }
        }
        self.in_flight -= into.len() - before;
        Poll::Ready(())
    }

    fn propose<T>(&mut self, change: impl FnOnce(Maker<'_>) -> Change<T>) -> Result<u64, WriteError> {
        // A reply says by itself what it answers.
        let (command, _) = change(Maker::many(&self.shared, &mut self.sheet)).ready()?;
        self.send(self.next, |address| Submission::Propose { address, command }).map_err(write_error)
    }

    /// `token` comes back with the answer: a write's number, or where a read is noted.
    fn send(&mut self, token: u64, ask: impl FnOnce(Address) -> Submission) -> Result<u64, Failure> {
        assert!(self.next < Reads::TOKEN, "63 bits of operations do not run out");
        let address = self.mailbox.reserve_collected(token);
        if let Err(failure) = self.shared.submit(ask(address)) {
            self.mailbox.release(address);
            return Err(failure);
        }
        Ok(self.sent())
    }

    /// The number of an operation that is on its way.
    fn sent(&mut self) -> u64 {
        let number = self.next;
        self.next += 1;
        self.in_flight += 1;
        number
    }
}

fn finish_write(outcome: Outcome) -> Result<Completed, PipelineError> {
    let Answer { value: reply, revision, durability } = match outcome {
        Outcome::Applied { reply, durability } => written(reply, durability, Some)?,
        Outcome::Failed(failure) => return Err(write_error(failure).into()),
        other => unreachable!("a command is answered with its reply, not {other:?}"),
    };
    let answer = Answer { value: (), revision, durability };
    Ok(match reply {
        Reply::Put { .. } => Completed::Put(answer),
        Reply::PutAttached { lease, .. } => Completed::PutAttached(answer.map(|()| lease)),
        Reply::Deleted { before, .. } => Completed::Delete(answer.map(|()| before == Presence::Present)),
        Reply::RangeDeleted { deleted, .. } => Completed::DeleteRange(answer.map(|()| deleted)),
        Reply::Swapped { .. } => Completed::Swap(answer.map(|()| Swap::Done)),
        Reply::NotSwapped { current, .. } => {
            let current = current.map(|current| *current);
            Completed::Swap(answer.map(|()| Swap::Refused { current }))
        }
        Reply::Txn { reply, .. } => Completed::Txn(answer.map(|()| reply)),
        _ => return Err(WriteError::OutcomeUnknown(Uncertainty::NoAnswer).into()),
    })
}

/// Reads made under one lock: so few that the loop never waits long for it.
const LOOKS: usize = 64;

fn finish_reads(shared: &Shared, group: &Group, outcome: Outcome, into: &mut Vec<Completion>) {
    match outcome {
        Outcome::Readable => {
            for part in group.chunks(LOOKS) {
                let store = shared.store.read();
                let (revision, durability) = (store.revision(), shared.durability);
                into.extend(part.iter().map(|(number, key)| {
                    let value = store.get(key.as_slice());
                    let answer = Answer { value, revision, durability };
                    Completion { number: *number, result: Ok(Completed::Get(answer)) }
                }));
            }
        }
        Outcome::Failed(failure) => into.extend(
            group
                .iter()
                .map(|&(number, _)| Completion { number, result: Err(read_error(failure.clone()).into()) }),
        ),
        other => unreachable!("a read is answered with leave to read, not {other:?}"),
    }
}
