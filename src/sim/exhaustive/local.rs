//! One node with its disk, and what can happen to it: every step runs the real core.

use crate::raft::message::{Body, Decision, Election, Message, Standing, Vote};
use crate::raft::timer::Timer;
use crate::raft::{Config, Durability, Membership, Mono, Now, Output, Raft, Restored, RoleName, Write};
use std::collections::VecDeque;
use std::hash::Hasher;
use std::time::Duration;
use wal::{ClusterId, EntryId, Flushed, Frame, FrameBuilder, GroupId, HardState, LogIndex, NodeId, Term};
use xxhash_rust::xxh3::Xxh3;

/// How many nodes there are.
pub(super) const NODES: usize = 3;
/// Every way to name the nodes.
pub(super) const NAMINGS: [[u8; NODES]; 6] =
    [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];

/// Time stands; only what looks for lost appends or a lost quorum is told that it is late.
const NOW: Now = Now { mono: Mono(1), wall_ms: 0 };
const LATE: Now = Now { mono: Mono(1 << 60), wall_ms: 0 };

/// A node's identity from its place in the world.
pub(super) fn id_of(place: usize) -> NodeId {
    NodeId(place as u64 + 1)
}

/// A node's place in the world.
pub(super) fn place_of(id: NodeId) -> usize {
    usize::try_from(id.0 - 1).expect("three nodes")
}

/// The name of `id` under a naming.
pub(super) fn renamed(naming: &[u8; NODES], id: NodeId) -> NodeId {
    id_of(usize::from(naming[place_of(id)]))
}

/// What happens to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// The election timer fires, and the pre-vote is lost or unanswered.
    Waits,
    /// The election timer fires (a leader has stepped down before, for want of a quorum), and a peer grants the pre-vote.
    Campaigns,
    /// A client proposes a command at a leader.
    Proposes,
    /// A leader takes everything it has on the way for lost, and sends it again.
    SendsAgain,
    /// A peer's refusal says that there is a later term.
    HearsOf(Term),
    /// The oldest write is flushed.
    Flushes,
    /// The power is cut; the node restarts from its disk.
    Crashes,
    /// No crash is left in the scope: what only a restart reads is forgotten.
    IsSpared,
}

/// Whether the disk stops flushing, from the first write of this step on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hang {
    No,
    Now,
}

/// What flushes do in a scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flush {
    /// At once, until the disk hangs before the crash.
    UntilItHangs,
    /// At any time, one by one.
    AnyTime,
}

/// What a node keeps on disk.
#[derive(Clone, Debug, Default)]
pub(super) struct Disk {
    pub hard: HardState,
    frames: Vec<Frame>,
    commit: LogIndex,
}

impl Disk {
    fn write(&mut self, write: &Write) {
        let plan = write.plan();
        self.hard = plan.hard_state.unwrap_or(self.hard);
        self.commit = self.commit.max(plan.commit);
        for frame in plan.frames {
            let keep = usize::try_from(frame.index().previous().0).expect("short logs");
            assert!(keep <= self.frames.len(), "a write continues the log on disk");
            self.frames.truncate(keep);
            self.frames.push(frame);
        }
    }

    pub fn entries(&self) -> Vec<EntryId> {
        self.frames.iter().map(Frame::id).collect()
    }

    /// Whether the entry is there, with everything before it.
    pub fn holds(&self, entry: EntryId) -> bool {
        let at = usize::try_from(entry.index.0).expect("short logs");
        at > 0 && self.frames.get(at - 1).is_some_and(|frame| frame.id() == entry)
    }
}

/// One node and its disk.
#[derive(Clone, Debug)]
pub(super) struct Local {
    pub raft: Raft,
    pub disk: Disk,
    /// Nothing is flushed any more before the crash.
    pub hangs: bool,
    /// Writes that a crash would lose.
    pub unflushed: bool,
    /// Writes that are not flushed yet, oldest first ([`Flush::AnyTime`]).
    pending: VecDeque<Write>,
    /// A crash may still come.
    fears: bool,
    terms: Terms,
    /// The entries of the log in memory, to compare.
    pub log: Vec<EntryId>,
}

/// What a step did.
#[derive(Debug)]
pub(super) struct Step {
    pub local: Local,
    pub sends: Vec<(NodeId, Message)>,
}

/// What does not change during a search, as far as a node is concerned.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    pub flush: Flush,
    pub one_entry_per_append: bool,
    pub crashes: bool,
    pub heartbeats: bool,
}

impl Local {
    /// The node at `place`, newly founded, its first entry on disk.
    pub fn founded(place: usize, terms: Terms) -> Result<Self, String> {
        let config = Config {
            id: id_of(place),
            cluster: ClusterId(1),
            group: GroupId::FIRST,
            seed: 1,
            heartbeat: Duration::from_millis(50),
            election_timeout: Duration::from_millis(250),
            promise: Duration::ZERO,
            drift_bound_ppm: 0,
            append_bytes: if terms.one_entry_per_append { 1 } else { usize::MAX },
            in_flight_bytes: usize::MAX,
            durability: Durability::DiskFirst,
            unflushed_entries: 1,
        };
        let disk = Disk::default();
        let mut local = Self {
            raft: Self::restart(config, &disk)?,
            disk,
            hangs: false,
            unflushed: false,
            pending: VecDeque::new(),
            fears: terms.crashes,
            terms: Terms { flush: Flush::UntilItHangs, ..terms },
            log: Vec::new(),
        };
        let sends = local.end_turn()?;
        assert!(sends.is_empty(), "a founder has nothing to say");
        local.terms = terms;
        if !local.fears {
            local.disk.commit = LogIndex::ZERO;
        }
        Ok(local)
    }

    fn restart(config: Config, disk: &Disk) -> Result<Raft, String> {
        let restored =
            Restored { hard_state: disk.hard, commit: disk.commit, standing: Standing::Whole, held: None };
        let mut raft = Raft::new(config, restored);
        for frame in &disk.frames {
            raft.restore(frame.clone(), disk.commit).map_err(|halt| halt.to_string())?;
        }
        let founders = Membership::of_voters((0..NODES).map(id_of)).expect("three voters");
        raft.begin(NOW, &founders);
        Ok(raft)
    }

    /// Whether the event can happen.
    pub fn can(&self, event: Event) -> bool {
        let role = self.raft.role();
        match event {
            Event::Waits => matches!(role, RoleName::Follower | RoleName::Candidate),
            Event::Campaigns => true,
            Event::Proposes | Event::SendsAgain => role == RoleName::Leader,
            Event::HearsOf(term) => term > self.raft.term(),
            Event::Flushes => !self.pending.is_empty(),
            Event::Crashes | Event::IsSpared => self.fears,
        }
    }

    /// What happens if it does; with a disk that hangs from now on, if `hang` says so.
    ///
    /// # Errors
    /// The core stopped itself, and says why.
    pub fn after(&self, event: Event, hang: Hang) -> Result<Step, String> {
        let mut next = self.clone();
        next.hangs |= hang == Hang::Now;
        let peer = id_of(usize::from(self.raft.config().id == id_of(0)));
        match event {
            Event::Waits => next.raft.fire(NOW, Timer::Election),
            Event::Campaigns => {
                let term = next.raft.term().next();
                next.lose_quorum();
                next.raft.fire(NOW, Timer::Election);
                next.raft.handle_message(NOW, peer, word(term, Election::PreVote, Decision::Granted));
            }
            Event::Proposes => {
                let mut batch = FrameBuilder::with_capacity(8);
                batch.push_command(b"c");
                next.raft.propose(NOW, batch).map_err(|refused| refused.to_string())?;
            }
            Event::SendsAgain => next.raft.fire(LATE, Timer::Heartbeat),
            Event::HearsOf(term) => {
                next.raft.handle_message(NOW, peer, word(term, Election::Vote, Decision::Refused));
            }
            Event::Flushes => {
                let write = next.pending.pop_front().expect("asked before");
                next.flushed(write);
            }
            Event::Crashes => {
                next.raft = Self::restart(self.raft.config().clone(), &self.disk)?;
                next.pending.clear();
                (next.hangs, next.unflushed) = (false, false);
                next.fears = false;
                next.disk.commit = LogIndex::ZERO;
            }
            Event::IsSpared => {
                next.fears = false;
                next.disk.commit = LogIndex::ZERO;
            }
        }
        next.finish()
    }

    /// What a message leads to.
    ///
    /// # Errors
    /// The core stopped itself, and says why.
    pub fn hearing(&self, from: NodeId, message: Message, hang: Hang) -> Result<Step, String> {
        let mut next = self.clone();
        next.hangs |= hang == Hang::Now;
        if matches!(message.body, Body::Candidacy(_)) && message.term > self.raft.term() {
            next.lose_quorum();
        }
        next.raft.handle_message(NOW, from, message);
        next.finish()
    }

    /// A leader listens to candidates only after it has stepped down. There is nothing else that it could do between the
    /// two that it could not do before: so they are one step.
    fn lose_quorum(&mut self) {
        if self.raft.role() == RoleName::Leader {
            self.raft.fire(LATE, Timer::QuorumContact);
        }
    }

    fn finish(mut self) -> Result<Step, String> {
        let sends = self.end_turn()?;
        Ok(Step { local: self, sends })
    }

    fn flushed(&mut self, write: Write) {
        self.disk.write(&write);
        if !self.fears {
            self.disk.commit = LogIndex::ZERO;
        }
        let proof = Flushed::simulated(write.id());
        self.raft.handle_written(NOW, write.flushed(proof));
    }

    /// Ends the turn, and those that flushes lead to; then a leader tells what is decided.
    fn end_turn(&mut self) -> Result<Vec<(NodeId, Message)>, String> {
        let mut sends = Vec::new();
        self.run(&mut sends)?;
        if self.terms.heartbeats && self.raft.term_start().is_some_and(|start| self.raft.commit() >= start) {
            self.raft.fire(NOW, Timer::CommitNotice);
            self.run(&mut sends)?;
        }
        self.raft.forget_time();
        self.raft.check();
        let cached = self.raft.log().cached();
        self.log = cached.map(Frame::id).collect();
        sends.retain(|(_, message)| counts(message));
        for (_, message) in &mut sends {
            forget_probe(message);
        }
        Ok(sends)
    }

    fn run(&mut self, sends: &mut Vec<(NodeId, Message)>) -> Result<(), String> {
        loop {
            self.raft.finish(NOW);
            let mut flushing = Vec::new();
            while let Some(output) = self.raft.poll_output() {
                match output {
                    Output::Send { to, message } => sends.push((to, message)),
                    Output::Write(_) if self.hangs => self.unflushed = true,
                    Output::Write(write) if self.terms.flush == Flush::AnyTime => {
                        self.pending.push_back(write)
                    }
                    Output::Write(write) => flushing.push(write),
                    Output::Knock(_) => {}
                    Output::Fetch(fetch) => return Err(format!("entries are in memory, yet {fetch:?}")),
                    Output::Halt(halt) => return Err(format!("the core stopped itself: {halt}")),
                }
            }
            if flushing.is_empty() {
                return Ok(());
            }
            for write in flushing {
                self.flushed(write);
            }
        }
    }

    /// One hash for each naming of the nodes.
    pub fn fingerprints(&self) -> [u128; NAMINGS.len()] {
        NAMINGS.map(|naming| {
            let rename = |id| renamed(&naming, id);
            let mut hasher = Xxh3::new();
            self.raft.fingerprint(&rename, &mut hasher);
            crate::raft::untimed::hash_hard_state(&self.disk.hard, &rename, &mut hasher);
            let last = self.disk.frames.last().map_or(EntryId::default(), Frame::id);
            crate::raft::untimed::hash_entry(last, &mut hasher);
            hasher.write_u64(self.disk.commit.0);
            hasher.write_u8(u8::from(self.hangs) | u8::from(self.fears) << 1);
            hasher.write_usize(self.pending.len());
            // Proofs count from some write on: how many of those on the way is what matters.
            hasher.write_usize(self.raft.proving(self.pending.iter().map(Write::id)));
            for write in &self.pending {
                write.fingerprint(&rename, &mut hasher);
            }
            hasher.digest128()
        })
    }
}

fn word(term: Term, election: Election, decision: Decision) -> Message {
    Message { term, body: Body::Vote(Vote { election, decision, standing: Standing::Whole }) }
}

/// Whether the network carries it: pre-votes and refusals are made up where they may come
/// ([`Event::Campaigns`], [`Event::HearsOf`]), and signs of life say nothing in a search without time.
fn counts(message: &Message) -> bool {
    match &message.body {
        Body::Candidacy(candidacy) => candidacy.election != Election::PreVote,
        Body::Vote(vote) => vote.decision == Decision::Granted && vote.election != Election::PreVote,
        Body::Append(_) | Body::Appended(_) | Body::Heartbeat(_) | Body::TimeoutNow => true,
        Body::Alive(_) => false,
    }
}

fn forget_probe(message: &mut Message) {
    match &mut message.body {
        Body::Append(append) => append.probe = 0,
        Body::Appended(appended) => appended.probe = 0,
        Body::Heartbeat(heartbeat) => heartbeat.probe = 0,
        Body::Candidacy(_) | Body::Vote(_) | Body::Alive(_) | Body::TimeoutNow => {}
    }
}

/// A message's content as a hash; who sends it to whom is the caller's to add.
pub(super) fn fingerprint(message: &Message, into: &mut dyn Hasher) {
    into.write_u64(message.term.0);
    // Messages hold no identity of a node, so their text is a faithful and canonical form.
    into.write(format!("{:?}", message.body).as_bytes());
    if let Body::Append(append) = &message.body {
        for frame in &append.frames {
            crate::raft::untimed::hash_entry(frame.id(), into);
        }
    }
}
