//! Consensus as a value: Raft (Ongaro 2014, "the thesis") with inputs, outputs and time as arguments.
//!
//! There is no I/O, clock, thread or OS randomness here. `handle_*` takes input, [`Raft::finish`] ends a turn of many
//! inputs, [`Raft::poll_output`] gives what is to be done. What a file holds:
//!
//! | file | message family |
//! |---|---|
//! | `election` | pre-vote, vote, candidates, becoming leader or follower |
//! | `gone` | a leader that is silent, or known to be gone |
//! | `doubt` | what a node that lost a part of its log may still say |
//! | `replication` | append, its answers, commitment |
//! | `read` | probes, read rounds, the lease, the contact with a quorum |
//! | `transfer` | handing leadership over |
//! | `membership`, `quorum` | who takes part, and what a majority of them is |
//! | `log`, `progress` | this node's log, and what a leader knows of the others' |
//! | `invariants` | what is true after every step |
//! | `untimed` | feature `sim`: the core without its clock, for exhaustive search |
//!
//! **Promises ride on the write.** A message that says something is durable, or is spoken in a term that is not on disk
//! yet, is put into the [`Write`] it depends on. It comes out again only through [`Write::flushed`], which asks for the
//! log's proof. There is no other way to it.
//!
//! Deliberately absent: changing the membership, snapshots, the state machine and its clients (`node`).

mod doubt;
mod election;
mod gone;
pub mod invariants;
pub mod log;
pub mod membership;
pub mod message;
pub mod progress;
pub mod quorum;
mod random;
mod read;
mod replication;
pub mod time;
pub mod timer;
mod transfer;
#[cfg(feature = "sim")]
pub mod untimed;

pub use doubt::Past;
pub use membership::{Membership, MembershipError};
pub use message::{MAX_PROMISE, Message};
pub use random::Random;
pub use read::ReadRound;
pub use replication::ProposeRefused;
pub use time::{Mono, Now};
pub use transfer::TransferRefused;
pub use wal::Held;

use doubt::Doubt;
use gone::Gone;
use log::Log;
use message::{AppendOutcome, Body, Standing};
use read::Probes;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;
use thiserror::Error;
use time::Count;
use timer::{Timer, Timers};
use wal::{
    ClusterId, EntryId, Flushed, Frame, FrameHead, GroupId, HardState, Kind, LogIndex, NodeId, Term, WriteId,
    WritePlan,
};

/// A term further ahead than this is not believed: no cluster elects a million times between two messages.
pub const MAX_TERM_JUMP: u64 = 1 << 20;

/// The entry that holds the founding members. Every founder starts with it, so it is decided from the beginning: nodes
/// that were founded differently find each other diverged instead of overwriting one another.
const FOUNDING: LogIndex = LogIndex(1);

/// What an acknowledgement of a write promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Durability {
    /// A majority's disks hold it.
    DiskFirst,
    /// A majority's memory holds it; the disks follow. What the last flushes missed is lost if a majority loses power
    /// together.
    MemFirst,
}

/// What does not change while a node runs, but for what has a way to be set.
#[derive(Clone, Debug)]
pub struct Config {
    /// This node.
    pub id: NodeId,
    /// Its cluster.
    pub cluster: ClusterId,
    /// Its group.
    pub group: GroupId,
    /// Seeds the election timeouts. Nodes that share a seed also share their timeouts: give each its own.
    pub seed: u64,
    /// A leader's sign of life.
    pub heartbeat: Duration,
    /// A follower that hears nothing for this long, up to twice it, stands for election; a leader that hears from no
    /// quorum for as long steps down.
    pub election_timeout: Duration,
    /// A node that has heard a leader votes for nobody else this long: the thesis's *minimum* election timeout (4.2.3). A
    /// leader states it, its lease relies on it, and whoever hears it gives that or its own, whichever is longer: members may
    /// differ. At most the election timeout, and [`MAX_PROMISE`]. Whoever knows that its leader is gone stands when this is
    /// over and does not wait for the rest.
    pub promise: Duration,
    /// The lease is shorter than the promise by this many parts in a million: the most by which the rates of two nodes'
    /// monotonic clocks may differ.
    pub drift_bound_ppm: u32,
    /// The most bytes of frames in one append (a larger single frame goes alone).
    pub append_bytes: usize,
    /// The most bytes of frames on the way to one peer.
    pub in_flight_bytes: usize,
    /// What an acknowledgement promises.
    pub durability: Durability,
    /// By how many entries this node's disk may lag behind. `MemFirst`: so many may be acknowledged and not be on it; beyond
    /// that an acknowledgement waits for the disk, so this is what a loss of power can cost. `DiskFirst`: so many of a
    /// leader may be decided by the disks of others; beyond that it proposes no more.
    pub unflushed_entries: u64,
}

/// What the disk remembers when a node starts.
#[derive(Clone, Copy, Debug)]
pub struct Restored {
    /// Term and vote.
    pub hard_state: HardState,
    /// Everything up to here is known to be decided.
    pub commit: LogIndex,
    /// Whether the tail of the log may be missing (see [`Standing`]).
    pub standing: Standing,
    /// How far the log reached, if its end was damaged and is to be repaired by the peers.
    pub held: Option<Held>,
}

/// What a node is in its group.
#[derive(Clone, Debug)]
enum Role {
    Follower,
    PreCandidate(Votes),
    Candidate(Votes),
    Leader(Box<Leading>),
}

/// The words of the others in an election; the candidate's own counts once it is on disk.
type Votes = BTreeMap<NodeId, message::Decision>;

/// What only a leader knows.
#[derive(Clone, Debug)]
struct Leading {
    progress: BTreeMap<NodeId, progress::Progress>,
    /// The no-op this leader began its term with (thesis 6.4).
    term_start: LogIndex,
    since: Mono,
    /// What the entries of this leader are stamped with.
    clock: Count,
    probes: Probes,
    transfer: Option<transfer::Transfer>,
    /// TimeoutNow has been sent: the receiver may win without waiting for the lease, so there is none in this term.
    // Invariant: never reset within a term (pitfall: a stale TimeoutNow can arrive much later).
    lease_revoked: bool,
}

/// The role, as seen from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RoleName {
    /// Follows, or waits for a leader.
    Follower,
    /// Asks whether an election could be won.
    PreCandidate,
    /// Stands for election.
    Candidate,
    /// Leads.
    Leader,
    /// Receives the log without a vote.
    Learner,
}

/// What is to be done.
#[cfg_attr(feature = "sim", derive(Clone))]
#[derive(Debug)]
pub enum Output {
    /// Make this durable, in the order of the outputs.
    Write(Write),
    /// Send this; it may be lost.
    Send {
        /// To whom.
        to: NodeId,
        /// What.
        message: Message,
    },
    /// Read entries from this node's disk for a peer that is far behind.
    Fetch(Fetch),
    /// The leader is silent: look whether its process is still there, and say so with [`Raft::handle_gone`] if it is known
    /// not to be. Nothing relies on an answer, or on its being true.
    Knock(NodeId),
    /// Stop: going on would be wrong.
    Halt(Halt),
}

/// A read of old entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fetch {
    /// For whom.
    pub peer: NodeId,
    /// The first entry wanted.
    pub from: LogIndex,
    /// About how many bytes (at least one entry).
    pub max_bytes: usize,
}

/// Why a node must stop.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Halt {
    /// Two logs have different bytes at the same index and term.
    #[error(
        "the log diverged from node {peer}'s at entry {}: term {}, hash {} here, term {}, hash {} there; restore \
         this node from a healthy one before starting it again",
        ours.index, ours.term, ours.hash, theirs.term, theirs.hash
    )]
    Diverged {
        /// Who sent the other entry.
        peer: NodeId,
        /// The entry here.
        ours: EntryId,
        /// The entry there.
        theirs: EntryId,
    },
    /// A membership entry cannot be read.
    #[error("the membership in entry {index} cannot be read: {error}; a newer version may have written it")]
    Membership {
        /// The entry.
        index: LogIndex,
        /// What is wrong.
        error: MembershipError,
    },
    /// Entries on the disk are damaged. A restart sets them aside, and the peers send them again.
    #[error(
        "the log on this node's disk is damaged: {0}; start the node again, and if it has peers they repair it"
    )]
    Damaged(String),
    /// What the disk lost was on no other.
    #[error(
        "the log was damaged, and this node is its group's only voter: nobody can give back what is missing; restore the \
         data directory from a copy"
    )]
    Irreparable,
    /// The disk refused a write; nothing may be acknowledged any more.
    #[error("the log failed and nothing more is acknowledged: {0}")]
    Log(String),
}

/// One write, with the messages that may leave once it is durable.
#[cfg_attr(feature = "sim", derive(Clone))]
#[derive(Debug)]
pub struct Write {
    id: WriteId,
    hard_state: Option<HardState>,
    frames: Vec<Frame>,
    commit: LogIndex,
    notes: Notes,
    then: Vec<(NodeId, Message)>,
}

/// What the log's state record is to remember beside term and vote.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Notes {
    /// What was damaged or forgotten is repaired: earlier writes, all durable, hold it.
    whole: bool,
}

impl Write {
    /// Its place in the order of writes.
    #[must_use]
    pub fn id(&self) -> WriteId {
        self.id
    }

    /// Whether the log is to forget with this that it was damaged: the node is whole again.
    #[must_use]
    pub fn says_whole(&self) -> bool {
        self.notes.whole
    }

    /// What the log is to make durable. Frames are shared, not copied.
    #[must_use]
    pub fn plan(&self) -> WritePlan {
        WritePlan {
            id: self.id,
            hard_state: self.hard_state,
            frames: self.frames.clone(),
            commit: self.commit,
            whole: self.notes.whole,
        }
    }

    /// Exchanges the log's proof for what the node may now be told.
    ///
    /// # Panics
    /// If the proof is for an earlier write.
    #[must_use]
    pub fn flushed(self, proof: Flushed) -> Written {
        assert!(proof.id() >= self.id, "the proof for write {:?} does not cover {:?}", proof.id(), self.id);
        Written(self)
    }
}

/// A write that is durable.
#[derive(Debug)]
pub struct Written(Write);

/// Things counted since the start, for status and alarms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Elections stood for.
    pub elections: u64,
    /// Elections won.
    pub leaderships: u64,
    /// Messages dropped because their term is implausible.
    pub quarantined_terms: u64,
    /// Messages dropped because they contradict themselves.
    pub malformed: u64,
    /// Appends that were rejected by peers (back-tracking).
    pub rejections: u64,
    /// Peers seen without entries they had acknowledged.
    pub regressions: u64,
    /// Times that a peer lacked entries and had as many bytes on the way as it may.
    pub windows_full: u64,
}

/// A term that no cluster can have reached since this node last heard of one.
fn is_beyond_belief(known: Term, claimed: Term) -> bool {
    claimed.0 > known.0.saturating_add(MAX_TERM_JUMP) && !wal::mutant!("term_jump_believed")
}

/// What has gathered for the next write.
#[cfg_attr(feature = "sim", derive(Clone))]
#[derive(Debug, Default)]
struct Draft {
    frames: Vec<Frame>,
    then: Vec<(NodeId, Message)>,
}

/// One node's consensus.
#[cfg_attr(feature = "sim", derive(Clone))]
#[derive(Debug)]
pub struct Raft {
    config: Config,
    /// Term and vote as decided.
    hard: HardState,
    /// Term and vote as handed to the disk.
    submitted: HardState,
    /// Term and vote as on the disk.
    saved: HardState,
    role: Role,
    leader: Option<NodeId>,
    log: Log,
    /// Memberships in the log with their index, ascending; the last is in force (thesis 4.1).
    memberships: Vec<(LogIndex, Membership)>,
    peers: Vec<NodeId>,
    /// The log is that of the term's leader up to here.
    agreed: LogIndex,
    /// No vote before this time, for others or itself, except for a transfer: the other side of the leader's lease (thesis
    /// 6.4.1). Each word of a leader sets it anew, perhaps to less: whoever was elected in a later term has outwaited what an
    /// earlier leader was promised, or was asked to succeed it.
    promised_until: Option<Mono>,
    /// This term's leader is said to be gone.
    gone: Option<Gone>,
    doubt: Doubt,
    /// A node that forgot is whole once it has everything up to here.
    whole_at: Option<LogIndex>,
    /// The next write is to say so.
    became_whole: bool,
    suspects: BTreeSet<NodeId>,
    timers: Timers,
    random: Random,
    draft: Draft,
    next_write: WriteId,
    /// Writes before this one may hold entries that were superseded since: they prove nothing about the log.
    proving_from: WriteId,
    outputs: VecDeque<Output>,
    halted: bool,
    counters: Counters,
}

impl Raft {
    /// A node before its log is restored: call [`restore`](Self::restore) for each entry of the disk in order, then
    /// [`begin`](Self::begin).
    #[must_use]
    pub fn new(config: Config, restored: Restored) -> Self {
        let origin = wal::frame::origin(config.cluster, config.group);
        assert!(config.promise <= MAX_PROMISE, "nobody would give a promise of {:?}", config.promise);
        Self {
            hard: restored.hard_state,
            submitted: restored.hard_state,
            saved: restored.hard_state,
            role: Role::Follower,
            leader: None,
            log: Log::after(origin),
            memberships: Vec::new(),
            peers: Vec::new(),
            agreed: LogIndex::ZERO,
            promised_until: None,
            gone: None,
            doubt: Doubt::of(&restored),
            whole_at: None,
            became_whole: false,
            suspects: BTreeSet::new(),
            timers: Timers::default(),
            random: Random::from_seed(config.seed),
            draft: Draft::default(),
            next_write: WriteId(1),
            proving_from: WriteId(1),
            outputs: VecDeque::new(),
            halted: false,
            counters: Counters::default(),
            config,
        }
    }

    /// Takes over an entry that is on the disk.
    ///
    /// # Errors
    /// [`Halt`] if it is a membership that cannot be read.
    ///
    /// # Panics
    /// If it does not follow the one before; the log's recovery has checked the chain.
    pub fn restore(&mut self, frame: Frame, decided: LogIndex) -> Result<(), Halt> {
        let id = frame.id();
        self.note_membership(&frame)?;
        self.append(frame);
        self.log.note_durable(id);
        let decided = if wal::mutant!("restored_is_decided") { id.index } else { decided.max(FOUNDING) };
        self.log.commit_to(id.index.min(decided));
        // The vote may have been lost with its slot, the entry is proof of the term.
        if self.hard.term < id.term && !wal::mutant!("restored_term_ignored") {
            self.hard = HardState { term: id.term, vote: None, ..self.hard };
        }
        Ok(())
    }

    /// Ends the restoration. An empty log begins with the `founders` as its first entry, the same bytes everywhere.
    pub fn begin(&mut self, now: Now, founders: &Membership) {
        if self.log.last().index == LogIndex::ZERO {
            let head = FrameHead {
                group: self.config.group,
                term: Term::ZERO,
                previous: self.log.last(),
                timestamp_ms: 0,
            };
            self.append_own(wal::FrameBuilder::membership(head, &founders.encode()));
            self.log.commit_to(FOUNDING);
        }
        if let Some(held) = self.held()
            && self.hard.term < held.term
        {
            // An entry of a term was held, so the term was reached, like that of an entry that is there.
            self.hard = HardState { term: held.term, vote: None, ..self.hard };
        }
        if self.is_damaged() && self.membership().is_sole_voter(self.config.id) {
            return self.halt(Halt::Irreparable);
        }
        self.leave_doubtful_term();
        self.note_whole();
        if self.hard.term > Term::ZERO && !wal::mutant!("promise_lost_at_restart") {
            // A restart forgets when a leader was heard, not what it was promised: that is renewed for its full length. What is
            // configured may be less than it was.
            self.promised_until = Some(now.mono.after(self.remembered_promise()));
        }
        self.restart_election_timer(now);
        if self.membership().is_sole_voter(self.config.id) {
            self.timers.set(Timer::Election, now.mono);
        }
        self.check();
    }

    /// Takes a message from a peer.
    pub fn handle_message(&mut self, now: Now, from: NodeId, message: Message) {
        if self.halted {
            return;
        }
        if from == self.config.id || is_beyond_belief(self.hard.term, message.term) {
            self.counters.quarantined_terms += 1;
            return;
        }
        if message.promise().is_some_and(|promise| promise > MAX_PROMISE) {
            // Not kept to, and not answered: its sender would count on all of it.
            self.counters.malformed += 1;
            return;
        }
        self.count_time(now);
        let before = self.summary();
        if self.admit(now, from, &message) {
            let Message { term, body } = message;
            match body {
                Body::Candidacy(candidacy) => self.handle_candidacy(now, from, term, candidacy),
                Body::Vote(vote) => self.handle_vote(now, from, vote),
                Body::Append(append) => self.handle_append(now, from, append),
                Body::Appended(appended) => self.handle_appended(now, from, appended),
                Body::Heartbeat(heartbeat) => self.handle_heartbeat(now, from, heartbeat),
                Body::Alive(alive) => self.handle_alive(now, from, alive),
                Body::TimeoutNow => self.handle_timeout_now(now, from),
            }
        }
        self.check_step(&before);
    }

    /// Fires the timers that are due.
    pub fn handle_timeout(&mut self, now: Now) {
        if self.halted {
            return;
        }
        self.count_time(now);
        let before = self.summary();
        while let Some(timer) = self.timers.take_due(now.mono) {
            match timer {
                Timer::Election => self.election_timed_out(now),
                Timer::Heartbeat => self.heartbeat_due(now),
                Timer::QuorumContact => self.check_quorum_contact(now),
                Timer::Transfer => self.abandon_transfer(),
                Timer::CommitNotice => self.tell_commit(),
                Timer::Silence => self.knock(now),
            }
        }
        self.check_step(&before);
    }

    /// A write is durable: its promises may leave, and this node counts itself.
    pub fn handle_written(&mut self, now: Now, written: Written) {
        if self.halted && !wal::mutant!("halt_still_answers") {
            return;
        }
        self.count_time(now);
        let before = self.summary();
        let Write { id, hard_state, frames, then, .. } = written.0;
        assert!(id < self.next_write, "only what was written is durable");
        if let Some(saved) = hard_state {
            assert!(saved.term >= self.saved.term, "hard states become durable in order");
            self.saved = saved;
        }
        if let Some(last) = frames.last()
            && (id >= self.proving_from || wal::mutant!("stale_write_proves"))
        {
            self.log.note_durable(last.id());
        }
        self.note_whole();
        for (to, mut message) in then {
            assert!(message.term <= self.saved.term, "a term is on disk before it is heard of");
            if wal::mutant!("ack_without_term") {
                message.term = self.hard.term;
            }
            self.outputs.push_back(Output::Send { to, message });
        }
        match self.role {
            Role::Candidate(_) => self.count_votes(now),
            Role::Leader(_) => self.advance_commit(now),
            Role::Follower | Role::PreCandidate(_) => {}
        }
        self.check_step(&before);
    }

    /// Entries on this node's disk are not what was written. It stops before anybody counts on it for them again: the
    /// next start finds out what is left.
    pub fn handle_damage(&mut self, what: String) {
        self.halt(Halt::Damaged(what));
    }

    /// The disk failed. Nothing is acknowledged after this.
    pub fn handle_log_failure(&mut self, reason: String) {
        self.halt(Halt::Log(reason));
    }

    /// Changes how much may be on the way to one peer. What is on its way stays there.
    pub fn set_in_flight_bytes(&mut self, bytes: usize) {
        assert!(bytes > 0, "something must be on its way to move a peer");
        self.config.in_flight_bytes = bytes;
    }

    /// Ends a turn: everything gathered since the last one goes out, each peer and the disk once.
    pub fn finish(&mut self, now: Now) {
        if self.halted {
            return;
        }
        self.count_time(now);
        self.replicate_to_all(now);
        self.send_wanted_probe(now);
        let hard_state = (self.hard != self.submitted).then_some(self.hard);
        let notes = Notes { whole: self.became_whole };
        if hard_state.is_none()
            && self.draft.frames.is_empty()
            && self.draft.then.is_empty()
            && notes == Notes::default()
        {
            return;
        }
        let Draft { frames, then } = std::mem::take(&mut self.draft);
        assert!(self.submitted.term <= self.hard.term, "terms reach the disk in order");
        assert!(
            frames.last().is_none_or(|last| last.id() == self.log.last()),
            "the log on disk ends as in memory"
        );
        self.submitted = self.hard;
        self.became_whole = false;
        // The log's repair relies on it: a term that no state record names has no entries (`wal`, `damage.rs`).
        assert!(
            frames.iter().all(|frame| frame.term() <= self.submitted.term),
            "no entry is written before a hard state of its term"
        );
        let write = Write { id: self.next_write, hard_state, frames, commit: self.log.commit(), notes, then };
        self.next_write = WriteId(self.next_write.0 + 1);
        self.outputs.push_back(Output::Write(write));
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When to call [`handle_timeout`](Self::handle_timeout) next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Mono> {
        if self.halted { None } else { self.timers.next() }
    }

    /// When this node stands for election, unless it hears of a leader before; `None` while it leads.
    #[must_use]
    pub fn stands_at(&self) -> Option<Mono> {
        self.timers.deadline(Timer::Election)
    }

    /// This node's term.
    #[must_use]
    pub fn term(&self) -> Term {
        self.hard.term
    }

    /// Whom this node takes for the leader of its term.
    #[must_use]
    pub fn leader(&self) -> Option<NodeId> {
        self.leader
    }

    /// What this node is.
    #[must_use]
    pub fn role(&self) -> RoleName {
        match self.role {
            Role::Leader(_) => RoleName::Leader,
            Role::Candidate(_) => RoleName::Candidate,
            Role::PreCandidate(_) => RoleName::PreCandidate,
            Role::Follower if self.membership().is_voter(self.config.id) => RoleName::Follower,
            Role::Follower => RoleName::Learner,
        }
    }

    /// The log.
    #[must_use]
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// Everything up to here is decided.
    #[must_use]
    pub fn commit(&self) -> LogIndex {
        self.log.commit()
    }

    /// The membership in force.
    #[must_use]
    pub fn membership(&self) -> &Membership {
        &self.memberships.last().expect("the log starts with a membership").1
    }

    /// Things counted since the start.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// What does not change.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Drops decided frames from memory until at most `keep_bytes` are left, none past `applied`.
    pub fn evict(&mut self, keep_bytes: usize, applied: LogIndex) {
        self.log.evict(keep_bytes, applied);
    }

    /// Sends in this node's term. A term that is not on disk yet must not be heard of, nor that a leader was heard before the
    /// disk knows what it was promised: the message then rides on the write that saves it.
    fn send(&mut self, to: NodeId, body: Body) {
        let message = Message { term: self.hard.term, body };
        assert_ne!(to, self.config.id, "a node does not talk to itself");
        let mut saved = self.saved;
        if wal::mutant!("promise_before_durable") {
            saved.promise = self.hard.promise;
        }
        if saved == self.hard || wal::mutant!("vote_before_durable") {
            self.outputs.push_back(Output::Send { to, message });
        } else {
            self.draft.then.push((to, message));
        }
    }

    /// Sends once everything gathered so far is durable. Acknowledgements of one flush to one leader become one: the
    /// highest speaks for all.
    fn send_after_write(&mut self, to: NodeId, body: Body) {
        let message = Message { term: self.hard.term, body };
        if let Some((last_to, last)) = self.draft.then.last_mut()
            && (*last_to, last.term) == (to, message.term)
            && let Some((earlier, one)) = last.acceptance()
            && let Some((later, other)) = message.acceptance()
        {
            // Appends may have been reordered.
            let outcome = AppendOutcome::Accepted { matched: earlier.max(later) };
            last.body = Body::Appended(message::Appended { outcome, probe: one.max(other) });
            return;
        }
        self.draft.then.push((to, message));
    }

    fn append_own(&mut self, frame: Frame) {
        self.note_membership(&frame).expect("this node encoded it");
        self.draft.frames.push(frame.clone());
        self.append(frame);
    }

    fn append(&mut self, frame: Frame) {
        self.log.append(frame);
    }

    /// A membership is in force from when it is appended until it is truncated (thesis 4.1).
    fn note_membership(&mut self, frame: &Frame) -> Result<(), Halt> {
        if frame.kind() != Kind::Membership {
            return Ok(());
        }
        let membership = Membership::decode(&frame.body())
            .map_err(|error| Halt::Membership { index: frame.index(), error })?;
        assert!(
            self.memberships.last().is_none_or(|&(index, _)| index < frame.index()),
            "memberships follow each other"
        );
        self.memberships.push((frame.index(), membership));
        self.list_peers();
        Ok(())
    }

    fn truncate(&mut self, from: LogIndex) {
        assert!(self.agreed < from, "what is agreed with the term's leader stands");
        self.log.truncate(from);
        // An entry may be truncated and appended again while its first write is on the way (pitfall: ABA of writes).
        assert!(self.proving_from <= self.next_write, "writes are numbered in order");
        self.proving_from = self.next_write;
        // What was to be written from there on will not be; a later frame supersedes what already was.
        self.draft.frames.retain(|frame| frame.index() < from);
        // Nor is what would have been said of it: it would leave with a write that does not hold what it promises.
        self.draft.then.retain(|(_, message)| message.acceptance().is_none_or(|(matched, _)| matched < from));
        while self.memberships.last().is_some_and(|&(index, _)| index >= from) {
            self.memberships.pop();
        }
        self.list_peers();
    }

    fn list_peers(&mut self) {
        let id = self.config.id;
        self.peers = self.membership().members().into_iter().filter(|&member| member != id).collect();
    }

    fn halt(&mut self, why: Halt) {
        if !self.halted {
            self.halted = true;
            // Nothing that waits for the disk will ever leave.
            self.draft = Draft::default();
            self.role = Role::Follower;
            self.leader = None;
            self.outputs.push_back(Output::Halt(why));
        }
    }
}
