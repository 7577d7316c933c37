//! The node is a value: consensus, state machine and everybody who waits for an answer, in one struct.
//!
//! Input goes in with [`Node::handle`], what is to be done comes out of [`Node::poll_output`]; time comes in with the
//! input. There is no I/O, clock, thread, async or OS randomness inside, so a driver is short, and a simulator is one more
//! driver. Whatever came in since the outputs were last drained makes one turn: its commands become one entry, its reads
//! one round, its acknowledgements one write.
//!
//! Promises: every ticket is answered exactly once, in bounded time ([`Limits::request_timeout`]); what exceeds a limit
//! is refused before anything changes; an answer says whether the command may have happened.
//!
//! # A driver
//!
//! ```
//! use bytes::BytesMut;
//! use d_engine::kv::{self, encode_put};
//! use d_engine::node::{Input, Limits, Node, Output, Reply, Ticket};
//! use d_engine::raft::{Config, Durability, Mono, Now, Restored, message::Standing};
//! use std::time::Duration;
//! use wal::{ClusterId, Flushed, GroupId, HardState, LogIndex, NodeId};
//!
//! let config = Config {
//!     id: NodeId(1),
//!     cluster: ClusterId(7),
//!     group: GroupId::FIRST,
//!     seed: 42,
//!     heartbeat: Duration::from_millis(50),
//!     election_timeout: Duration::from_millis(250),
//!     promise: Duration::from_millis(150),
//!     drift_bound_ppm: 100_000,
//!     append_bytes: 1 << 20,
//!     in_flight_bytes: 4 << 20,
//!     durability: Durability::DiskFirst,
//!     unflushed_entries: 32,
//! };
//! let empty_disk = Restored { hard_state: HardState::default(), commit: LogIndex(0), standing: Standing::Whole, held: None };
//! let founders = d_engine::raft::Membership::of_voters([NodeId(1)])?;
//! let mut now = Now { mono: Mono(1), wall_ms: 1_700_000_000_000 };
//! let mut node = Node::restoring(config, Limits::default(), 1, kv::Store::new(), empty_disk).begin(now, &founders);
//!
//! let mut command = BytesMut::new();
//! encode_put(b"key", b"value", &mut command)?;
//! node.handle(now, Input::Propose { ticket: Ticket(1), command: command.freeze() });
//!
//! // Drain outputs, execute them, feed back what they led to, sleep until the next timeout. That is a driver.
//! let answer = loop {
//!     let mut durable = Vec::new();
//!     let mut answers = Vec::new();
//!     while let Some(output) = node.poll_output() {
//!         match output {
//!             Output::Write(write) => durable.push(write), // A real log writes and flushes `write.plan()` here.
//!             Output::Answers(some) => answers.extend(some),
//!             Output::Send { .. } | Output::Knock(_) | Output::Fetch(_) | Output::Submit | Output::Leadership(_) => {}
//!             Output::Halt(why) => panic!("{why}"),
//!         }
//!     }
//!     if let Some(answer) = answers.pop() {
//!         break answer;
//!     }
//!     for write in durable {
//!         let proof = Flushed::simulated(write.id());
//!         node.handle(now, Input::Written(write.flushed(proof)));
//!     }
//!     now.mono = node.poll_timeout().map_or(now.mono, |at| at.max(now.mono));
//!     node.handle(now, Input::Timeout);
//! };
//! assert_eq!(answer.ticket, Ticket(1));
//! assert!(matches!(answer.outcome, Ok(Reply::Applied(kv::Reply::Put { .. }))));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Deliberately absent: the state machine's reads. A linearizable read is *granted* here ([`Reply::Readable`]) and made
//! by the caller, on its own thread, from a state that includes what the grant promised.

mod invariants;
mod machine;
pub mod message;
pub mod pace;
mod reads;
pub mod tuner;
mod upkeep;
pub mod wire;
mod writes;

pub use machine::StateMachine;
pub use message::Message;
pub use pace::Pace;

use crate::raft::{
    self, Config, Durability, Fetch, Halt, Membership, Mono, Now, Raft, Restored, RoleName, TransferRefused,
    Write, Written, message::Standing,
};
use bytes::Bytes;
use reads::Reads;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;
use thiserror::Error;
use upkeep::Upkeep;
use wal::{Frame, LogIndex, NodeId, Term};
use writes::Writes;

/// What a node takes on, at most.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes of commands in one entry. A command that does not fit in one is refused.
    pub batch_bytes: usize,
    /// Entries of a `DiskFirst` leader that may wait for being decided, or for its own disk where that comes first, until a
    /// [`Pace`] says otherwise. One is enough to keep a disk busy: the next batch gathers meanwhile.
    pub batches_in_flight: u64,
    /// Bytes of decided entries kept in memory for peers that are a little behind.
    pub cache_bytes: usize,
    /// Calls waiting for an answer.
    pub pending_requests: usize,
    /// Bytes of commands waiting to be proposed.
    pub pending_bytes: usize,
    /// How long a call waits for its answer.
    pub request_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            batch_bytes: 1 << 20,
            batches_in_flight: 1,
            cache_bytes: 64 << 20,
            pending_requests: 65_536,
            pending_bytes: 64 << 20,
            request_timeout: Duration::from_secs(5),
        }
    }
}

/// A caller's number for a call, unique among those not answered yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// What comes in.
#[derive(Debug)]
pub enum Input {
    /// A caller wants a command applied.
    Propose {
        /// Names the call.
        ticket: Ticket,
        /// The state machine's command.
        command: Bytes,
    },
    /// A caller wants to read linearizably.
    Read {
        /// Names the call.
        ticket: Ticket,
    },
    /// An operator wants another leader.
    TransferLeadership {
        /// Names the call.
        ticket: Ticket,
        /// The successor.
        to: NodeId,
    },
    /// A peer says something. `now` must have been read after the message was received: what this node promises its leader
    /// counts from then.
    Message {
        /// Which one, as the transport has proved.
        from: NodeId,
        /// What.
        message: Message,
    },
    /// A connection to a peer was made. It comes before every message of that connection, and no message of an earlier
    /// one follows it: `MemFirst` relies on what a former life of a peer said not being heard after it.
    Connected(NodeId),
    /// A message could not be handed to the transport: its queue is full, or the peer is not connected.
    NotSent {
        /// To whom it was.
        to: NodeId,
        /// The message.
        message: Message,
    },
    /// A connection to a peer was lost, with what was on the way.
    Disconnected(NodeId),
    /// A peer's process is said to have ended: nobody listens at its address, or it said goodbye. A hint that makes a follower
    /// of it ask for votes sooner; nothing relies on its being true.
    Gone(NodeId),
    /// A write is durable.
    Written(Written),
    /// The log has failed; nothing is acknowledged any more.
    LogFailed(String),
    /// Old entries have been read.
    Fetched {
        /// For whom.
        peer: NodeId,
        /// The entries; none if they could not be read.
        frames: Vec<Frame>,
    },
    /// Old entries have been read and are not what was written; where, and what is wrong with them. The node stops.
    Damaged(String),
    /// Time has passed.
    Timeout,
}

/// What is to be done.
#[derive(Debug)]
pub enum Output<M: StateMachine> {
    /// Make this durable, in the order of these outputs, and answer [`Input::Written`].
    Write(Write),
    /// Send this; it may be lost.
    Send {
        /// To whom.
        to: NodeId,
        /// What.
        message: Message,
    },
    /// Read old entries and answer [`Input::Fetched`].
    Fetch(Fetch),
    /// The leader is silent: look whether its process is still there, and answer [`Input::Gone`] if it is known not to be.
    Knock(NodeId),
    /// Nothing to do, but worth knowing: writes and messages of this turn are out, what follows takes time (entries are
    /// applied). A driver that submits now works in parallel with the disk and the network.
    Submit,
    /// Calls that are answered.
    Answers(Vec<Answer<M>>),
    /// Who leads has changed.
    Leadership(Leadership),
    /// Stop this node; its calls have been answered.
    Halt(Halt),
}

/// The answer to a call.
#[derive(Debug)]
pub struct Answer<M: StateMachine> {
    /// Which call.
    pub ticket: Ticket,
    /// The answer.
    pub outcome: Result<Reply<M::Reply>, RequestError<M::Refusal>>,
}

/// A good answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply<R> {
    /// The command is decided, as durably as the group promises, and applied.
    Applied(R),
    /// The state this node has now includes every write that was acknowledged, anywhere, before the read was asked for.
    Readable,
    /// Another node leads.
    Transferred,
}

/// Why a call has no good answer.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RequestError<E> {
    /// Refused by the state machine's limits; nothing happened.
    #[error("{0}")]
    Refused(E),
    /// Refused by the leader's limits; nothing happened.
    #[error("the leader refused the command: {0}")]
    RefusedByLeader(String),
    /// Larger than a batch; nothing happened.
    #[error(
        "command of {bytes} bytes does not fit into a batch of {limit}; make it smaller or raise batch_bytes"
    )]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// Too much is pending; nothing happened.
    #[error("{pending} calls are waiting, the limit is {limit}; try again later")]
    Busy {
        /// Calls waiting.
        pending: usize,
        /// How many may.
        limit: usize,
    },
    /// No leader was found in time; nothing happened.
    #[error(
        "no leader within the request timeout; nothing was proposed; a majority of the members must be reachable"
    )]
    NoLeader,
    /// The command was proposed and it is not known what became of it.
    #[error("the command was proposed, and whether it happened is not known; read before you repeat it")]
    OutcomeUnknown,
    /// The command was proposed and another took its place: it did not and will not happen.
    #[error("a new leader's entry took the command's place; it did not happen and may be repeated")]
    Superseded,
    /// A read could not be confirmed in time.
    #[error("the read could not be confirmed within the request timeout")]
    ReadTimeout,
    /// The node was stopped; nothing happened.
    #[error("the node was stopped; nothing was proposed")]
    Stopped,
    /// Leadership was not handed over.
    #[error("leadership was not handed over: {0}")]
    Transfer(TransferRefused),
    /// The successor did not take over in time; the old leader goes on.
    #[error("node {0} did not take over in time; leadership is unchanged or open")]
    TransferTimeout(NodeId),
}

/// Who leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Leadership {
    /// In which term.
    pub term: Term,
    /// The leader, if one is known.
    pub leader: Option<NodeId>,
    /// What this node is.
    pub role: RoleName,
}

/// A node's state, for status.
#[derive(Clone, Debug)]
pub struct Status {
    /// Who leads.
    pub leadership: Leadership,
    /// Decided up to here.
    pub commit: LogIndex,
    /// Applied up to here.
    pub applied: LogIndex,
    /// The log's end.
    pub last: LogIndex,
    /// On this node's disk up to here.
    pub durable: LogIndex,
    /// The state machine's last change.
    pub revision: u64,
    /// Digest of everything applied.
    pub digest: u128,
    /// Whether everything this node acknowledged is in its log, and if not, why.
    pub standing: Standing,
    /// Members in force.
    pub membership: Membership,
    /// Calls waiting for an answer.
    pub pending: usize,
    /// Things counted.
    pub counters: raft::Counters,
}

/// A transfer somebody waits for.
#[derive(Clone, Copy, Debug)]
struct WaitingTransfer {
    ticket: Ticket,
    to: NodeId,
    deadline: Mono,
}

/// A node whose log is being read.
pub struct Restoring<M: StateMachine> {
    node: Node<M>,
    decided: LogIndex,
}

/// One member of a group.
pub struct Node<M: StateMachine> {
    raft: Raft,
    limits: Limits,
    pace: Pace,
    meter: Option<Box<pace::Meter>>,
    incarnation: u64,
    machine: M,
    applied: LogIndex,
    writes: Writes,
    reads: Reads,
    upkeep: Upkeep,
    transfer: Option<WaitingTransfer>,
    leadership: Leadership,
    now: Now,
    phase: Phase,
    /// The next look at the deadlines of calls, while there are any.
    sweep_at: Option<Mono>,
    answers: Vec<Answer<M>>,
    outcomes: BTreeMap<NodeId, message::Forwarded>,
    replies: Vec<M::Reply>,
    outputs: VecDeque<Output<M>>,
    stopped: bool,
}

/// How far the turn has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Idle,
    /// Input has come since the last turn.
    Gather,
    /// Writes and messages are out; entries may be applied.
    Apply,
}

impl<M: StateMachine> Node<M> {
    /// A node before its log is read. `incarnation` is a number no earlier life of this node had (random will do).
    pub fn restoring(
        config: Config,
        limits: Limits,
        incarnation: u64,
        machine: M,
        disk: Restored,
    ) -> Restoring<M> {
        assert!(
            limits.batches_in_flight > 0 && config.unflushed_entries > 0,
            "a leader must be able to write"
        );
        assert!(limits.batch_bytes > 4 && limits.pending_requests > 0, "a command must fit somewhere");
        let pace = limits.pace(config.in_flight_bytes);
        assert!(config.promise > config.heartbeat, "a leader is heard before it is given up");
        assert!(config.election_timeout >= config.promise, "nobody stands against its own promise");
        let raft = Raft::new(config, disk);
        let leadership = Leadership { term: disk.hard_state.term, leader: None, role: RoleName::Follower };
        let node = Self {
            raft,
            limits,
            pace,
            meter: None,
            incarnation,
            machine,
            applied: LogIndex::ZERO,
            writes: Writes::default(),
            reads: Reads::default(),
            upkeep: Upkeep::default(),
            transfer: None,
            leadership,
            now: Now::default(),
            phase: Phase::Gather,
            sweep_at: None,
            answers: Vec::new(),
            outcomes: BTreeMap::new(),
            replies: Vec::new(),
            outputs: VecDeque::new(),
            stopped: false,
        };
        Restoring { node, decided: disk.commit }
    }

    /// Takes input. What it leads to is in the outputs, once they are drained.
    pub fn handle(&mut self, now: Now, input: Input) {
        assert!(now.mono >= self.now.mono, "the driver's monotonic clock does not fall");
        self.now = now;
        if self.stopped {
            return self.refuse_when_stopped(input);
        }
        self.phase = Phase::Gather;
        match input {
            // These change nothing about leadership.
            Input::Propose { ticket, command } => return self.handle_propose(ticket, command),
            Input::Read { ticket } => return self.handle_read(ticket),
            Input::TransferLeadership { ticket, to } => self.handle_transfer(ticket, to),
            Input::Message { from, message } => self.handle_message(from, message),
            Input::Connected(peer) | Input::Disconnected(peer) => {
                self.raft.handle_reconnect(peer);
                self.note_lost_connection(peer);
            }
            Input::Gone(peer) => self.raft.handle_gone(now, peer),
            Input::NotSent { to, message } => self.handle_not_sent(to, message),
            Input::Written(written) => self.raft.handle_written(now, written),
            Input::LogFailed(reason) => self.raft.handle_log_failure(reason),
            Input::Damaged(what) => self.raft.handle_damage(what),
            Input::Fetched { peer, frames } => self.raft.handle_fetched(now, peer, frames),
            Input::Timeout => {
                self.raft.handle_timeout(now);
                self.sweep_if_due();
            }
        }
        self.note_leadership();
    }

    /// The next thing to do. Drain it after each turn of inputs: outputs come as writes and messages first, then what
    /// applying led to.
    pub fn poll_output(&mut self) -> Option<Output<M>> {
        loop {
            if let Some(output) = self.outputs.pop_front() {
                return Some(output);
            }
            match self.phase {
                Phase::Idle => {
                    self.check();
                    return None;
                }
                Phase::Gather => {
                    self.phase = Phase::Apply;
                    self.cut_batches();
                    self.forward_queue();
                    self.place_reads();
                    self.raft.finish(self.now);
                    self.take_raft_outputs();
                    if !self.outputs.is_empty() && self.raft.commit() > self.applied {
                        self.outputs.push_back(Output::Submit);
                    }
                }
                Phase::Apply => {
                    self.phase = Phase::Idle;
                    self.apply_decided();
                    self.grant_reads();
                    self.flush_answers();
                    self.raft.evict(self.limits.cache_bytes, self.applied);
                }
            }
        }
    }

    /// When to hand in [`Input::Timeout`] next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Mono> {
        if self.stopped {
            return None;
        }
        [self.raft.poll_timeout(), self.sweep_at, self.upkeep_timeout()].into_iter().flatten().min()
    }

    /// A leader that is about to go hands over to whoever can take over soonest. False if there is nobody, or nothing to
    /// hand over: then nothing is gained by waiting. Outputs follow.
    pub fn hand_over(&mut self, now: Now) -> bool {
        assert!(now.mono >= self.now.mono, "the driver's monotonic clock does not fall");
        self.now = now;
        if self.raft.role() != RoleName::Leader || self.stopped {
            return false;
        }
        if !self.raft.is_transferring() {
            let Some(successor) = self.raft.successor(now) else { return false };
            if self.raft.transfer_leadership(now, successor).is_err() {
                return false;
            }
        }
        self.phase = Phase::Gather;
        true
    }

    /// Whether what [`hand_over`](Self::hand_over) began is still under way: until another leads and whoever waited here is
    /// answered, or the transfer was given up.
    #[must_use]
    pub fn is_handing_over(&self) -> bool {
        match self.raft.role() {
            RoleName::Leader => self.raft.is_transferring(),
            _ => self.raft.leader().is_none() || self.pending() > 0,
        }
    }

    /// Answers everybody who waits and takes no more. What the log still owes is not affected.
    pub fn stop(&mut self) {
        if self.stopped {
            return;
        }
        self.stopped = true;
        self.fail_all_writes();
        self.fail_all_reads();
        if let Some(transfer) = self.transfer.take() {
            self.answer(transfer.ticket, Err(RequestError::Stopped));
        }
        self.flush_answers();
        self.phase = Phase::Idle;
        assert_eq!(self.pending(), 0, "whoever waited has been answered");
    }

    /// The state machine.
    pub fn machine(&self) -> &M {
        &self.machine
    }

    /// Until when reads of this node's own state are linearizable, if they are now: check the time again after the
    /// read.
    #[must_use]
    pub fn lease(&self) -> Option<Mono> {
        let until = self.raft.lease()?;
        // Followers learn of a commit while it is applied here, and may show it to somebody before this node can.
        let mut included = self.raft.lease_index()?;
        if !wal::mutant!("lease_behind_commit") {
            included = included.max(self.raft.commit());
        }
        (self.applied >= included && !self.stopped).then_some(until)
    }

    /// Who leads, as last reported.
    #[must_use]
    pub fn leadership(&self) -> Leadership {
        self.leadership
    }

    /// Whether a stop now may be recorded as clean: nothing acknowledged is missing from this node's log.
    #[must_use]
    pub fn may_stop_cleanly(&self) -> bool {
        self.raft.standing() == Standing::Whole
    }

    /// What acknowledgements promise.
    #[must_use]
    pub fn durability(&self) -> Durability {
        self.raft.config().durability
    }

    /// Everything up to here is in the state machine.
    #[must_use]
    pub fn applied(&self) -> LogIndex {
        self.applied
    }

    /// What this node takes on, at most.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Calls waiting for an answer.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.writes.pending() + self.reads.pending() + usize::from(self.transfer.is_some())
    }

    /// The node's state.
    #[must_use]
    pub fn status(&self) -> Status {
        Status {
            leadership: self.leadership,
            commit: self.raft.commit(),
            applied: self.applied,
            last: self.raft.log().last().index,
            durable: self.raft.log().durable(),
            revision: self.machine.revision(),
            digest: self.machine.digest(),
            standing: self.raft.standing(),
            membership: self.raft.membership().clone(),
            pending: self.pending(),
            counters: self.raft.counters(),
        }
    }

    /// Consensus, to look at.
    #[must_use]
    pub fn raft(&self) -> &Raft {
        &self.raft
    }

    fn handle_message(&mut self, from: NodeId, message: Message) {
        match message {
            Message::Raft(message) => self.raft.handle_message(self.now, from, message),
            Message::Forward(forward) => self.handle_forward(from, forward),
            Message::Forwarded(forwarded) => self.handle_forwarded(from, forwarded),
            Message::AskIndex(ask) => self.handle_ask_index(from, ask),
            Message::Index(index) => self.handle_index(from, index),
        }
    }

    /// A call that did not leave this node did not happen: it waits and tries again. Of Raft's messages only appends are
    /// counted on; the others repeat themselves.
    fn handle_not_sent(&mut self, to: NodeId, message: Message) {
        match message {
            Message::Raft(message) => self.raft.handle_not_sent(self.now, to, &message),
            Message::Forward(forward) => self.take_back(&forward),
            Message::AskIndex(ask) => {
                self.handle_index(
                    to,
                    message::Index { incarnation: ask.incarnation, number: ask.number, index: None },
                );
            }
            Message::Forwarded(_) | Message::Index(_) => {}
        }
    }

    fn handle_transfer(&mut self, ticket: Ticket, to: NodeId) {
        if self.transfer.is_some() {
            return self.answer(ticket, Err(RequestError::Transfer(TransferRefused::UnderWay)));
        }
        match self.raft.transfer_leadership(self.now, to) {
            Err(refused) => self.answer(ticket, Err(RequestError::Transfer(refused))),
            Ok(()) if self.raft.leader() == Some(to) => self.answer(ticket, Ok(Reply::Transferred)),
            Ok(()) => {
                let deadline = self.now.mono.after(self.limits.request_timeout);
                assert_ne!(to, self.raft.config().id, "a leader that names itself is answered at once");
                self.transfer = Some(WaitingTransfer { ticket, to, deadline });
                self.start_sweeping();
            }
        }
    }

    /// Compares who leads with what was last reported, and lets everybody know who waits for the old leader.
    fn note_leadership(&mut self) {
        let leadership =
            Leadership { term: self.raft.term(), leader: self.raft.leader(), role: self.raft.role() };
        let before = std::mem::replace(&mut self.leadership, leadership);
        if before == leadership {
            return;
        }
        assert!(leadership.term >= before.term, "terms never fall");
        assert!(
            leadership.term > before.term
                || before.leader.is_none()
                || leadership.leader.is_none_or(|l| Some(l) == before.leader),
            "one leader per term (thesis figure 3.2)"
        );
        self.outputs.push_back(Output::Leadership(leadership));
        let same_leader = (before.term, before.leader) == (leadership.term, leadership.leader);
        if !same_leader {
            self.note_lost_leader();
            self.retry_reads();
        }
        if let Some(WaitingTransfer { ticket, to, .. }) = self.transfer
            && leadership.leader == Some(to)
        {
            self.transfer = None;
            self.answer(ticket, Ok(Reply::Transferred));
        }
    }

    fn note_lost_connection(&mut self, peer: NodeId) {
        if self.leadership.leader == Some(peer) {
            self.note_lost_leader();
            self.retry_reads();
        }
    }

    fn take_raft_outputs(&mut self) {
        while let Some(output) = self.raft.poll_output() {
            match output {
                raft::Output::Write(write) => self.outputs.push_back(Output::Write(write)),
                raft::Output::Send { to, message } => {
                    self.outputs.push_back(Output::Send { to, message: Message::Raft(message) });
                }
                raft::Output::Fetch(fetch) => self.outputs.push_back(Output::Fetch(fetch)),
                raft::Output::Knock(peer) => self.outputs.push_back(Output::Knock(peer)),
                raft::Output::Halt(why) => {
                    self.stop();
                    self.outputs.push_back(Output::Halt(why));
                }
            }
        }
    }

    fn answer(&mut self, ticket: Ticket, outcome: Result<Reply<M::Reply>, RequestError<M::Refusal>>) {
        self.answers.push(Answer { ticket, outcome });
    }

    fn flush_answers(&mut self) {
        for (to, forwarded) in std::mem::take(&mut self.outcomes) {
            // What fits into a batch fits into a message; the answers to a batch may be longer than it was.
            for part in forwarded.split(self.limits.batch_bytes) {
                self.outputs.push_back(Output::Send { to, message: Message::Forwarded(part) });
            }
        }
        if !self.answers.is_empty() {
            // The next turn may well have as many.
            let next = Vec::with_capacity(self.answers.len());
            self.outputs.push_back(Output::Answers(std::mem::replace(&mut self.answers, next)));
        }
    }

    fn refuse_when_stopped(&mut self, input: Input) {
        if let Input::Propose { ticket, .. }
        | Input::Read { ticket }
        | Input::TransferLeadership { ticket, .. } = input
        {
            self.answer(ticket, Err(RequestError::Stopped));
            self.flush_answers();
        }
    }

    /// One more call would be too many.
    fn check_room(&self) -> Result<(), RequestError<M::Refusal>> {
        let (pending, limit) = (self.pending(), self.limits.pending_requests);
        if pending >= limit { Err(RequestError::Busy { pending, limit }) } else { Ok(()) }
    }

    /// Deadlines of calls are looked at a few times per timeout, and only while there are calls.
    fn start_sweeping(&mut self) {
        let interval = self.limits.request_timeout / 8;
        self.sweep_at.get_or_insert(self.now.mono.after(interval));
    }

    fn sweep_if_due(&mut self) {
        if self.sweep_at.is_none_or(|at| at > self.now.mono) {
            return;
        }
        self.sweep_at = None;
        self.expire_writes();
        self.expire_reads();
        let given_up = self.raft.role() == RoleName::Leader && !self.raft.is_transferring();
        let now = self.now.mono;
        if let Some(late) = self.transfer.take_if(|transfer| given_up || transfer.deadline <= now) {
            self.answer(late.ticket, Err(RequestError::TransferTimeout(late.to)));
        }
        if self.pending() > 0 {
            self.start_sweeping();
        }
    }
}

impl<M: StateMachine> Restoring<M> {
    /// Takes the next entry of the disk.
    ///
    /// # Errors
    /// [`Halt`] if the node cannot run with it.
    pub fn push(&mut self, frame: Frame) -> Result<(), Halt> {
        let node = &mut self.node;
        assert_eq!(node.phase, Phase::Gather, "nothing is said before the log is read");
        node.raft.restore(frame, self.decided)?;
        node.apply_decided();
        node.raft.evict(node.limits.cache_bytes, node.applied);
        Ok(())
    }

    /// Ends the restoration; an empty log starts with the founders.
    pub fn begin(mut self, now: Now, founders: &Membership) -> Node<M> {
        self.node.now = now;
        self.node.raft.begin(now, founders);
        self.node.writes.started_in = self.node.raft.term();
        self.node.note_leadership();
        self.node
    }
}
