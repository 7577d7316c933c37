//! What the loop and the threads around it both hold: the way in (a bounded queue), the way out (mailboxes), and what
//! the loop makes known without being asked (lease, leadership, its end).

use super::bell::Bell;
use super::clock;
use super::mailbox::{Address, Mailboxes, Wakes};
use super::watch::Watches;
use crate::api::{Durability, Leadership, Status, StopReason};
use crate::kv::{CommandError, Limits, Reply, Retention, Store, WatchLimits};
use crate::node::Pace;
use crate::raft::Mono;
use bytes::Bytes;
use crossbeam::queue::ArrayQueue;
use parking_lot::{Mutex, RwLock};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use wal::NodeId;

/// What a caller's thread hands to the loop.
#[derive(Debug)]
pub(crate) enum Submission {
    /// A command for the log.
    Propose { address: Address, command: Bytes },
    /// Leave to read the store linearizably.
    Read { address: Address },
    /// The same, for all reads that begin before it is taken.
    Reads { address: Address, question: Arc<Question> },
    /// Leadership to somebody else.
    Transfer { address: Address, to: NodeId },
    /// A word when it is that late.
    Alarm { address: Address, at: Mono },
    /// Not that word any more. Has no answer of its own.
    Disarm { address: Address, at: Mono },
    /// Go at another pace from now on; answered like `Status`.
    Pace { address: Address, pace: Pace },
    /// What the node is doing.
    Status { address: Address },
}

impl Submission {
    /// Where its answer goes.
    pub(crate) fn address(&self) -> Address {
        match *self {
            Self::Propose { address, .. }
            | Self::Read { address }
            | Self::Reads { address, .. }
            | Self::Transfer { address, .. }
            | Self::Alarm { address, .. }
            | Self::Disarm { address, .. }
            | Self::Pace { address, .. }
            | Self::Status { address } => address,
        }
    }
}

/// Whether more reads may join a question that waits to be taken.
#[derive(Debug, Default)]
pub(crate) struct Question(AtomicBool);

impl Question {
    /// Before it is handed over.
    pub(crate) fn open(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// If so, a read that begins now is covered by the answer.
    pub(crate) fn is_open(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }

    /// From here on nobody joins. An exchange, not a store: it is seen everywhere before what follows it is done.
    pub(crate) fn close(&self) {
        self.0.swap(false, Ordering::SeqCst);
    }
}

/// What comes back.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// A command was committed and applied.
    Applied { reply: Reply, durability: Durability },
    /// The store may be read now.
    Readable,
    /// Leadership was handed over.
    Transferred,
    /// It is that late.
    Alarm,
    /// What the node is doing.
    Status(Box<Status>),
    /// It was not done.
    Failed(Failure),
}

/// Why something was not done, before it is put into the words of the call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// Not a command, or beyond a limit. No effect.
    Refused(CommandError),
    /// A queue is full. No effect.
    Busy,
    /// No leader in time. No effect.
    NoLeader,
    /// Only the leader can.
    NotLeader,
    /// The group, or the leader's limits, do not allow it. No effect.
    NotAllowed(String),
    /// Nobody knows whether it happened.
    Unknown,
    /// It did not happen in time, and still may.
    Timeout,
    /// It was under way when the engine stopped.
    Interrupted(StopReason),
    /// The engine stopped before it was taken. No effect.
    Stopped(StopReason),
}

/// Shared by the loop and everybody else.
pub(crate) struct Shared {
    pub(crate) bell: Arc<Bell>,
    pub(crate) mailboxes: Arc<Mailboxes<Outcome>>,
    pub(crate) store: Arc<RwLock<Store>>,
    pub(crate) watches: Arc<Watches>,
    /// What callers' commands are checked against before they are handed over.
    pub(crate) limits: Limits,
    /// What acknowledgements of this node's group promise.
    pub(crate) durability: Durability,
    pub(crate) reads: ReadCounters,
    submissions: ArrayQueue<Submission>,
    /// Lease reads are right while the clock shows less; 0 is never.
    lease_until: AtomicU64,
    /// How often the lease was let go of.
    lease_losses: AtomicU64,
    stopping: AtomicBool,
    /// The loop has heard that it is to end, and takes no more calls.
    leaving: AtomicBool,
    closed: AtomicBool,
    board: Mutex<Board>,
}

/// Reads that never enter the loop count themselves.
#[derive(Default)]
pub(crate) struct ReadCounters {
    pub(crate) lease: AtomicU64,
    pub(crate) lease_missed: AtomicU64,
    pub(crate) busy: AtomicU64,
}

struct Board {
    leadership: Leadership,
    /// Moves with every change.
    version: u64,
    /// Why the loop ends, known from the beginning of its end.
    reason: Option<StopReason>,
    /// It has let go of everything.
    ended: bool,
    watchers: Vec<Waker>,
}

/// What shared state is made for.
pub(crate) struct Sizes {
    /// Calls that may wait to be taken by the loop.
    pub(crate) queue: usize,
    pub(crate) limits: Limits,
    pub(crate) watches: WatchLimits,
    pub(crate) retention: Retention,
    pub(crate) durability: Durability,
}

impl Shared {
    pub(crate) fn new(sizes: &Sizes) -> Arc<Self> {
        let board = Board {
            leadership: Leadership::default(),
            version: 0,
            reason: None,
            ended: false,
            watchers: Vec::new(),
        };
        let store = Arc::new(RwLock::new(Store::with_limits(sizes.limits).with_retention(sizes.retention)));
        Arc::new(Self {
            bell: Arc::new(Bell::new()),
            mailboxes: Mailboxes::new(),
            watches: Watches::new(Arc::clone(&store), sizes.watches),
            store,
            limits: sizes.limits,
            durability: sizes.durability,
            reads: ReadCounters::default(),
            submissions: ArrayQueue::new(sizes.queue),
            lease_until: AtomicU64::new(0),
            lease_losses: AtomicU64::new(0),
            stopping: AtomicBool::new(false),
            leaving: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            board: Mutex::new(board),
        })
    }

    // ---- callers' side

    /// Hands a call over whose slot is reserved. After an error the slot is still the caller's.
    pub(crate) fn submit(&self, submission: Submission) -> Result<(), Failure> {
        if self.closed.load(Ordering::Acquire) {
            return Err(Failure::Stopped(self.stop_reason()));
        }
        if self.submissions.push(submission).is_err() {
            self.reads.busy.fetch_add(1, Ordering::Relaxed);
            return Err(Failure::Busy);
        }
        self.bell.ring();
        // A loop that closed after the look above answers every slot that was reserved by then, and this one was: a call
        // that is pushed too late to be taken is not left behind.
        Ok(())
    }

    /// Makes a lease read; `None` if it is not right now. The clock is asked once, after it: a lease that holds then and was
    /// not let go of since the read began has been extended in one leadership, in which nobody else was elected (thesis
    /// 6.4.1). A read by a lease that came during it would say nothing: the state it saw may be of before the election.
    pub(crate) fn read_by_lease<T>(&self, read: impl FnOnce() -> T) -> Option<T> {
        let losses = self.lease_losses.load(Ordering::SeqCst);
        if self.lease_until.load(Ordering::SeqCst) == 0 {
            return None;
        }
        let found = read();
        let until = self.lease_until.load(Ordering::SeqCst);
        let kept = self.lease_losses.load(Ordering::SeqCst) == losses;
        (kept && clock::mono().0 < until).then_some(found)
    }

    /// Asks the loop to end in order.
    pub(crate) fn request_stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        self.bell.strike();
    }

    /// Who leads, as far as this node knows.
    pub(crate) fn leadership(&self) -> Leadership {
        self.board.lock().leadership
    }

    /// The number of changes so far.
    pub(crate) fn leadership_version(&self) -> u64 {
        self.board.lock().version
    }

    /// Leadership and the number of changes so far, once it differs from `seen`; `None` after the engine's end.
    pub(crate) fn poll_leadership(&self, seen: u64, cx: &mut Context<'_>) -> Poll<Option<(Leadership, u64)>> {
        let mut board = self.board.lock();
        if board.version != seen {
            return Poll::Ready(Some((board.leadership, board.version)));
        }
        if board.ended {
            return Poll::Ready(None);
        }
        board.watch(cx.waker());
        Poll::Pending
    }

    /// Completes when the loop has ended and let go of everything it held.
    pub(crate) fn poll_ended(&self, cx: &mut Context<'_>) -> Poll<StopReason> {
        let mut board = self.board.lock();
        if let Some(reason) = board.end() {
            return Poll::Ready(reason);
        }
        board.watch(cx.waker());
        Poll::Pending
    }

    /// Why the loop ended, if it has.
    pub(crate) fn ended(&self) -> Option<StopReason> {
        self.board.lock().end()
    }

    fn stop_reason(&self) -> StopReason {
        self.board.lock().reason.clone().unwrap_or(StopReason::Requested)
    }

    // ---- the loop's side

    /// The next call to take.
    pub(crate) fn next_submission(&self) -> Option<Submission> {
        let submission = self.submissions.pop()?;
        if let Submission::Reads { question, .. } = &submission {
            question.close();
        }
        Some(submission)
    }

    /// Whether calls wait to be taken, or the loop is asked to end.
    pub(crate) fn has_work(&self) -> bool {
        (!self.submissions.is_empty() || self.is_stopping()) && !self.leaving.load(Ordering::Relaxed)
    }

    /// The loop will end by itself: calls and the wish to stop keep it awake no longer.
    pub(crate) fn begin_to_leave(&self) {
        self.leaving.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// Makes known until when lease reads are right.
    pub(crate) fn publish_lease(&self, until: Option<Mono>) {
        match until {
            Some(until) => self.lease_until.store(until.0, Ordering::SeqCst),
            // Counted between: who sees the next lease sees that this one was lost.
            None if self.lease_until.swap(0, Ordering::SeqCst) != 0 => {
                self.lease_losses.fetch_add(1, Ordering::SeqCst);
            }
            None => {}
        }
    }

    /// Makes known who leads.
    pub(crate) fn publish_leadership(&self, leadership: Leadership) {
        self.update(|board| {
            let changed = board.leadership != leadership;
            board.leadership = leadership;
            changed
        });
    }

    /// No further call is taken, and those that were not taken are turned away. Whatever still waits for an answer is
    /// told that it was interrupted. First step of the loop's end.
    pub(crate) fn close(&self, reason: &StopReason) {
        self.publish_lease(None);
        self.board.lock().reason.get_or_insert_with(|| reason.clone());
        self.closed.store(true, Ordering::SeqCst);
        self.watches.end(reason);
        self.turn_away_leftovers();
        self.mailboxes.deliver_all(|| Outcome::Failed(Failure::Interrupted(reason.clone())));
    }

    /// The loop has let go of everything. Last step of its end.
    pub(crate) fn publish_end(&self) {
        self.update(|board| {
            assert!(board.reason.is_some(), "a loop closes before it ends");
            board.ended = true;
            board.leadership.leader = None;
            true
        });
    }

    fn turn_away_leftovers(&self) {
        let reason = self.stop_reason();
        let leftovers = std::iter::from_fn(|| self.submissions.pop())
            .map(|left| (left.address(), Outcome::Failed(Failure::Stopped(reason.clone()))));
        self.mailboxes.deliver(leftovers, &mut Wakes::default());
    }

    /// Changes the board and wakes its watchers if there is something new.
    fn update(&self, change: impl FnOnce(&mut Board) -> bool) {
        let mut board = self.board.lock();
        if !change(&mut board) {
            return;
        }
        board.version += 1;
        let watchers = std::mem::take(&mut board.watchers);
        drop(board);
        watchers.into_iter().for_each(Waker::wake);
    }
}

impl Board {
    fn end(&self) -> Option<StopReason> {
        if self.ended { self.reason.clone() } else { None }
    }

    fn watch(&mut self, waker: &Waker) {
        if !self.watchers.iter().any(|other| other.will_wake(waker)) {
            self.watchers.push(waker.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shared(queue: usize) -> Arc<Shared> {
        let durability = Durability::DiskFirst;
        let (limits, watches) = (Limits::DEFAULT, WatchLimits::DEFAULT);
        Shared::new(&Sizes { queue, limits, watches, retention: Retention::DEFAULT, durability })
    }

    #[test]
    fn a_full_queue_refuses_and_keeps_what_it_has() {
        let shared = shared(2);
        let handle = shared.mailboxes.open();
        let submit = || shared.submit(Submission::Read { address: handle.reserve() });
        assert_eq!((submit(), submit(), submit()), (Ok(()), Ok(()), Err(Failure::Busy)));
        assert!(shared.next_submission().is_some());
        assert_eq!(submit(), Ok(()));
    }

    #[test]
    fn closing_answers_what_waits_and_turns_away_what_comes() {
        let shared = shared(8);
        let handle = shared.mailboxes.open();
        let (taken, queued) = (handle.reserve(), handle.reserve());
        shared.submit(Submission::Read { address: taken }).expect("room");
        let _ = shared.next_submission().expect("submitted");
        shared.submit(Submission::Read { address: queued }).expect("room");
        let reason = StopReason::Failed("the disk broke".into());
        shared.close(&reason);
        shared.publish_end();
        let mut cx = Context::from_waker(Waker::noop());
        let mut failure = |address| match handle.poll(address, &mut cx) {
            Poll::Ready(Outcome::Failed(failure)) => failure,
            other => panic!("not answered: {other:?}"),
        };
        assert_eq!(failure(taken), Failure::Interrupted(reason.clone()));
        assert!(matches!(failure(queued), Failure::Stopped(_)));
        let late = handle.reserve();
        assert_eq!(shared.submit(Submission::Read { address: late }), Err(Failure::Stopped(reason.clone())));
        handle.release(late);
        assert_eq!(shared.mailboxes.outstanding(), 0);
        assert_eq!(shared.poll_ended(&mut Context::from_waker(Waker::noop())), Poll::Ready(reason));
    }

    /// Calls race with the end of the loop; each is answered, by whoever sees it last.
    #[test]
    fn no_call_is_left_behind_by_a_closing_loop() {
        for round in 0..60 {
            let shared = shared(64);
            let caller = std::thread::spawn({
                let shared = Arc::clone(&shared);
                move || {
                    let handle = shared.mailboxes.open();
                    let mut calls = Vec::new();
                    loop {
                        let address = handle.reserve();
                        match shared.submit(Submission::Read { address }) {
                            Ok(()) => calls.push(address),
                            Err(failure) => {
                                handle.release(address);
                                if matches!(failure, Failure::Stopped(_)) {
                                    break;
                                }
                            }
                        }
                    }
                    while shared.ended().is_none() {
                        std::hint::spin_loop();
                    }
                    let mut cx = Context::from_waker(Waker::noop());
                    calls.into_iter().all(|address| handle.poll(address, &mut cx).is_ready())
                }
            });
            // A loop that keeps up, so that its queue is empty when it closes: that is when a call can slip through.
            let mut taken = 0;
            while taken < 20 + round % 50 {
                taken += usize::from(shared.next_submission().is_some());
            }
            shared.close(&StopReason::Requested);
            shared.publish_end();
            assert!(caller.join().expect("caller"), "a call was never answered");
        }
    }

    #[test]
    fn a_lease_read_is_right_only_by_one_lease_that_lasts() {
        let shared = shared(2);
        let later = || Some(clock::mono().after(std::time::Duration::from_secs(60)));
        let read = |during: &dyn Fn()| shared.read_by_lease(during).is_some();
        assert!(!read(&|| unreachable!("there is none to read by")));
        shared.publish_lease(later());
        assert!(read(&|| ()));
        assert!(read(&|| shared.publish_lease(later())), "it was extended");
        assert!(!read(&|| shared.publish_lease(Some(clock::mono()))), "it ran out");
        shared.publish_lease(later());
        let lost_and_found = || {
            shared.publish_lease(None);
            shared.publish_lease(later());
        };
        assert!(!read(&lost_and_found), "somebody else may have led between");
        assert!(!read(&|| shared.publish_lease(None)));
    }

    #[test]
    fn leadership_is_told_once_per_change() {
        let shared = shared(2);
        let mut cx = Context::from_waker(Waker::noop());
        assert_eq!(shared.poll_leadership(0, &mut cx), Poll::Pending);
        let leadership = Leadership { term: 3, leader: Some(NodeId(1)) };
        shared.publish_leadership(leadership);
        shared.publish_leadership(leadership);
        assert_eq!(shared.poll_leadership(0, &mut cx), Poll::Ready(Some((leadership, 1))));
        assert_eq!(shared.poll_leadership(1, &mut cx), Poll::Pending);
    }
}
