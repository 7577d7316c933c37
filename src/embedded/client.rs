//! [`EmbeddedClient`]: calls into the engine of this process.

use super::{Pipeline, Session};
use crate::api::{
    AdminError, Answer, ClientApi, Durability, Leadership, Member, ReadError, ReadLevel, SessionOptions,
    Status, StopReason, Swap, Uncertainty, WriteError,
};
use crate::kv::{self, CommandError, Expected, KeyValue, Page, Presence, Reply, Store};
use crate::raft::Mono;
use crate::runtime::mailbox::{Address, Handle};
use crate::runtime::shared::{Failure, Outcome, Shared, Submission};
use bytes::{Bytes, BytesMut};
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use wal::NodeId;

/// A handle for calls into the engine of this process. Cheap to clone; give every thread or task its own clone, since
/// clones do not share the lock under which their answers arrive.
///
/// The calls are those of [`ClientApi`]. For many operations in flight from one thread see
/// [`pipeline`](Self::pipeline).
pub struct EmbeddedClient {
    shared: Arc<Shared>,
    /// Opened by the first call that enters the loop: lease and eventual reads do without.
    mailbox: OnceLock<Handle<Outcome>>,
    default_level: ReadLevel,
}

impl Clone for EmbeddedClient {
    fn clone(&self) -> Self {
        Self::new(Arc::clone(&self.shared), self.default_level)
    }
}

impl std::fmt::Debug for EmbeddedClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EmbeddedClient").field("default_level", &self.default_level).finish_non_exhaustive()
    }
}

impl EmbeddedClient {
    pub(crate) fn new(shared: Arc<Shared>, default_level: ReadLevel) -> Self {
        Self { shared, mailbox: OnceLock::new(), default_level }
    }

    /// A way to keep many operations in flight from one thread or task.
    #[must_use]
    pub fn pipeline(&self) -> Pipeline {
        Pipeline::new(Arc::clone(&self.shared))
    }

    /// What is stored under `key`, read at `level`.
    ///
    /// # Errors
    /// [`ReadError`] says what to do.
    pub async fn get_at(
        &self,
        level: ReadLevel,
        key: impl AsRef<[u8]> + Send,
    ) -> Result<Answer<Option<KeyValue>>, ReadError> {
        check_key(&self.shared, key.as_ref())?;
        self.read(level, |store| store.get(key.as_ref())).await
    }

    /// The first `limit` keys that start with `prefix` and come after `after`: the page that follows one that ended
    /// there. Read at the configured level.
    ///
    /// # Errors
    /// [`ReadError`] says what to do.
    pub async fn scan_prefix_after(
        &self,
        prefix: impl AsRef<[u8]> + Send,
        after: impl AsRef<[u8]> + Send,
        limit: usize,
    ) -> Result<Answer<Page>, ReadError> {
        let look = |store: &Store| store.scan_prefix_after(prefix.as_ref(), after.as_ref(), limit);
        self.read(self.default_level, look).await
    }

    fn mailbox(&self) -> &Handle<Outcome> {
        self.mailbox.get_or_init(|| self.shared.mailboxes.open())
    }

    fn call<A: FnOnce(Address) -> Submission + Unpin>(&self, ask: A) -> Call<'_, A> {
        Call { shared: &self.shared, mailbox: self.mailbox(), state: CallState::New(Some(ask)), alarm: None }
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.shared
    }

    async fn write(&self, command: Result<Bytes, CommandError>) -> Result<Answer<Reply>, WriteError> {
        let (reply, durability) = self.propose(command?).await?;
        written(reply, durability)
    }

    /// Sends a command once.
    pub(super) async fn propose(&self, command: Bytes) -> Result<(Reply, Durability), WriteError> {
        match self.call(move |address| Submission::Propose { address, command }).await {
            Outcome::Applied { reply, durability } => Ok((reply, durability)),
            Outcome::Failed(failure) => Err(write_error(failure)),
            other => unreachable!("a command is answered with its reply, not {other:?}"),
        }
    }

    /// Reads the store at `level`. `look` may be called twice.
    async fn read<T>(&self, level: ReadLevel, look: impl Fn(&Store) -> T) -> Result<Answer<T>, ReadError> {
        let at_once = match level {
            ReadLevel::Linearizable => None,
            ReadLevel::Lease => self.look_by_lease(&look),
            ReadLevel::Eventual => Some(look_now(&self.shared, &look)),
        };
        if let Some(answer) = at_once {
            return Ok(answer);
        }
        self.leave_to_read().await?;
        Ok(look_now(&self.shared, &look))
    }

    /// Returns when the store shows everything that was acknowledged before the call.
    pub(super) async fn leave_to_read(&self) -> Result<(), ReadError> {
        match self.call(|address| Submission::Read { address }).await {
            Outcome::Readable => Ok(()),
            Outcome::Failed(failure) => Err(read_error(failure)),
            other => unreachable!("a read is answered with leave to read, not {other:?}"),
        }
    }

    /// Reads between two looks at the lease. What is seen then holds every write that was acknowledged before this
    /// call, even if leadership came and went between the looks: the state never goes back.
    fn look_by_lease<T>(&self, look: impl Fn(&Store) -> T) -> Option<Answer<T>> {
        let reads = &self.shared.reads;
        if self.shared.lease_holds() {
            let answer = look_now(&self.shared, look);
            if self.shared.lease_holds() {
                reads.lease.fetch_add(1, Ordering::Relaxed);
                return Some(answer);
            }
        }
        reads.lease_missed.fetch_add(1, Ordering::Relaxed);
        None
    }

    /// Returns at `at`.
    pub(super) async fn alarm(&self, at: Mono) -> Result<(), StopReason> {
        loop {
            let mut call = self.call(move |address| Submission::Alarm { address, at });
            call.alarm = Some(at);
            match call.await {
                Outcome::Alarm => return Ok(()),
                Outcome::Failed(Failure::Interrupted(reason) | Failure::Stopped(reason)) => {
                    return Err(reason);
                }
                // The queue is full of calls that the loop is taking at this moment.
                Outcome::Failed(_) => std::thread::yield_now(),
                other => unreachable!("an alarm is not answered with {other:?}"),
            }
        }
    }
}

/// Reads the store as it is, on this thread.
pub(super) fn look_now<T>(shared: &Shared, look: impl Fn(&Store) -> T) -> Answer<T> {
    let store = shared.store.read();
    Answer { value: look(&store), revision: store.revision(), durability: shared.durability }
}

/// Refuses keys that cannot be in the store.
pub(super) fn check_key(shared: &Shared, key: &[u8]) -> Result<(), CommandError> {
    let limit = shared.limits.key_bytes;
    match key.len() {
        0 => Err(CommandError::EmptyKey),
        found if found > limit => Err(CommandError::KeyTooLong { limit, found }),
        _ => Ok(()),
    }
}

/// Encodes a command into memory of exactly `length` bytes and checks it against the configured limits.
fn encode(
    shared: &Shared,
    length: usize,
    write: impl FnOnce(&mut BytesMut) -> Result<(), CommandError>,
) -> Result<Bytes, CommandError> {
    // What is beyond every limit is refused by the encoder before it is copied: no memory is taken for it.
    let mut command = BytesMut::with_capacity(length.min(kv::Limits::MAX.command_bytes()));
    write(&mut command)?;
    shared.limits.check(&command)?;
    Ok(command.freeze())
}

/// Format and tag.
const HEAD: usize = 2;
/// The length before a key or value.
const PREFIX: usize = 4;

pub(super) fn encode_put(shared: &Shared, key: &[u8], value: &[u8]) -> Result<Bytes, CommandError> {
    let length = HEAD + 2 * PREFIX + key.len() + value.len();
    encode(shared, length, |out| kv::encode_put(key, value, out))
}

pub(super) fn encode_delete(shared: &Shared, key: &[u8]) -> Result<Bytes, CommandError> {
    encode(shared, HEAD + PREFIX + key.len(), |out| kv::encode_delete(key, out))
}

pub(super) fn encode_swap(
    shared: &Shared,
    key: &[u8],
    expected: &Expected,
    new: &[u8],
) -> Result<Bytes, CommandError> {
    let expectation = match expected {
        Expected::Absent => 1,
        Expected::Value(value) => 1 + PREFIX + value.len(),
        Expected::Revision(_) => 1 + 8,
    };
    let length = HEAD + 2 * PREFIX + key.len() + expectation + new.len();
    encode(shared, length, |out| kv::encode_compare_and_swap(key, expected.as_ref(), new, out))
}

/// A reply as an answer.
pub(super) fn written(reply: Reply, durability: Durability) -> Result<Answer<Reply>, WriteError> {
    match (reply.revision(), reply) {
        (_, Reply::Refused(error)) => Err(WriteError::Refused(error)),
        (_, Reply::SessionRefused(error)) => Err(WriteError::Session(error)),
        (None, reply) => unreachable!("{reply:?} names a revision"),
        (Some(revision), value) => Ok(Answer { value, revision, durability }),
    }
}

pub(super) fn write_error(failure: Failure) -> WriteError {
    match failure {
        Failure::Refused(error) => WriteError::Refused(error),
        Failure::NotAllowed(reason) => WriteError::NotAllowed(reason),
        Failure::Busy => WriteError::Busy,
        Failure::NoLeader | Failure::NotLeader => WriteError::NoLeader,
        Failure::Unknown | Failure::Timeout => WriteError::OutcomeUnknown(Uncertainty::NoAnswer),
        Failure::Interrupted(reason) => WriteError::OutcomeUnknown(Uncertainty::Stopped(reason)),
        Failure::Stopped(reason) => WriteError::Stopped(reason),
    }
}

pub(super) fn read_error(failure: Failure) -> ReadError {
    match failure {
        Failure::Refused(error) => ReadError::Refused(error),
        Failure::Busy => ReadError::Busy,
        Failure::NoLeader
        | Failure::NotLeader
        | Failure::NotAllowed(_)
        | Failure::Unknown
        | Failure::Timeout => ReadError::NoLeader,
        Failure::Interrupted(reason) | Failure::Stopped(reason) => ReadError::Stopped(reason),
    }
}

fn admin_error(failure: Failure, leadership: Leadership) -> AdminError {
    match failure {
        Failure::Refused(error) => AdminError::Refused(error.to_string()),
        Failure::NotAllowed(reason) => AdminError::Refused(reason),
        Failure::Busy => AdminError::Busy,
        Failure::NoLeader | Failure::NotLeader => AdminError::NotLeader { leader: leadership.leader },
        Failure::Unknown | Failure::Timeout => AdminError::Timeout,
        Failure::Interrupted(reason) | Failure::Stopped(reason) => AdminError::Stopped(reason),
    }
}

impl ClientApi for EmbeddedClient {
    type Session = Session;

    fn put(
        &self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
    ) -> impl Future<Output = Result<Answer<()>, WriteError>> + Send {
        let command = encode_put(&self.shared, key.as_ref(), value.as_ref());
        async move { Ok(self.write(command).await?.map(|_| ())) }
    }

    fn delete(&self, key: impl AsRef<[u8]>) -> impl Future<Output = Result<Answer<bool>, WriteError>> + Send {
        let command = encode_delete(&self.shared, key.as_ref());
        async move { Ok(self.write(command).await?.map(|reply| was_there(&reply))) }
    }

    fn compare_and_swap(
        &self,
        key: impl AsRef<[u8]>,
        expected: Expected,
        new: impl AsRef<[u8]>,
    ) -> impl Future<Output = Result<Answer<Swap>, WriteError>> + Send {
        let command = encode_swap(&self.shared, key.as_ref(), &expected, new.as_ref());
        async move { Ok(self.write(command).await?.map(swap_of)) }
    }

    async fn open_session(&self, options: SessionOptions) -> Result<Session, WriteError> {
        Session::open(self.clone(), options).await
    }

    fn get(
        &self,
        key: impl AsRef<[u8]>,
    ) -> impl Future<Output = Result<Answer<Option<KeyValue>>, ReadError>> + Send {
        self.get_at(self.default_level, Bytes::copy_from_slice(key.as_ref()))
    }

    fn get_linearizable(
        &self,
        key: impl AsRef<[u8]>,
    ) -> impl Future<Output = Result<Answer<Option<KeyValue>>, ReadError>> + Send {
        self.get_at(ReadLevel::Linearizable, Bytes::copy_from_slice(key.as_ref()))
    }

    fn get_lease(
        &self,
        key: impl AsRef<[u8]>,
    ) -> impl Future<Output = Result<Answer<Option<KeyValue>>, ReadError>> + Send {
        self.get_at(ReadLevel::Lease, Bytes::copy_from_slice(key.as_ref()))
    }

    fn get_eventual(
        &self,
        key: impl AsRef<[u8]>,
    ) -> impl Future<Output = Result<Answer<Option<KeyValue>>, ReadError>> + Send {
        self.get_at(ReadLevel::Eventual, Bytes::copy_from_slice(key.as_ref()))
    }

    async fn get_multi(
        &self,
        keys: &[impl AsRef<[u8]> + Sync],
    ) -> Result<Answer<Vec<Option<KeyValue>>>, ReadError> {
        for key in keys {
            check_key(&self.shared, key.as_ref())?;
        }
        self.read(self.default_level, |store| store.get_multi(keys)).await
    }

    fn scan_prefix(
        &self,
        prefix: impl AsRef<[u8]>,
        limit: usize,
    ) -> impl Future<Output = Result<Answer<Page>, ReadError>> + Send {
        let prefix = Bytes::copy_from_slice(prefix.as_ref());
        async move { self.read(self.default_level, |store| store.scan_prefix(&prefix, limit)).await }
    }

    async fn transfer_leadership(&self, to: NodeId) -> Result<(), AdminError> {
        match self.call(move |address| Submission::Transfer { address, to }).await {
            Outcome::Transferred => Ok(()),
            Outcome::Failed(failure) => Err(admin_error(failure, self.shared.leadership())),
            other => unreachable!("a transfer is not answered with {other:?}"),
        }
    }

    async fn members(&self) -> Result<Vec<Member>, AdminError> {
        Ok(self.status().await?.members)
    }

    async fn status(&self) -> Result<Status, AdminError> {
        match self.call(|address| Submission::Status { address }).await {
            Outcome::Status(status) => Ok(*status),
            Outcome::Failed(failure) => Err(admin_error(failure, self.shared.leadership())),
            other => unreachable!("a question for the status is not answered with {other:?}"),
        }
    }
}

pub(super) fn was_there(reply: &Reply) -> bool {
    matches!(reply, Reply::Deleted { before: Presence::Present, .. })
}

pub(super) fn swap_of(reply: Reply) -> Swap {
    match reply {
        Reply::NotSwapped { current, .. } => Swap::Refused { current },
        _ => Swap::Done,
    }
}

/// One call in flight. Hands itself over when it is first polled.
struct Call<'a, A> {
    shared: &'a Shared,
    mailbox: &'a Handle<Outcome>,
    state: CallState<A>,
    /// An alarm is taken back when its future is dropped: it may be due in an hour.
    alarm: Option<Mono>,
}

enum CallState<A> {
    New(Option<A>),
    Waiting(Address),
    Over,
}

impl<A: FnOnce(Address) -> Submission + Unpin> Future for Call<'_, A> {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome> {
        let this = &mut *self;
        if let CallState::New(ask) = &mut this.state {
            let ask = ask.take().expect("a call is handed over once");
            let address = this.mailbox.reserve();
            if let Err(failure) = this.shared.submit(ask(address)) {
                this.state = CallState::Over;
                this.mailbox.release(address);
                return Poll::Ready(Outcome::Failed(failure));
            }
            this.state = CallState::Waiting(address);
        }
        let CallState::Waiting(address) = this.state else { panic!("polled after it was ready") };
        let outcome = this.mailbox.poll(address, cx);
        if outcome.is_ready() {
            this.state = CallState::Over;
        }
        outcome
    }
}

impl<A> Drop for Call<'_, A> {
    fn drop(&mut self) {
        if let CallState::Waiting(address) = self.state {
            self.mailbox.abandon(address);
            if let Some(at) = self.alarm {
                // Where the queue is full it stays, and ends when it is due.
                let _ = self.shared.submit(Submission::Disarm { address, at });
            }
        }
    }
}
