//! One server under test. Its disk, its clock and the other servers are played by the test.

use d_engine::raft::message::{
    Alive, Append, AppendOutcome, Appended, Body, Candidacy, Decision, Election, Heartbeat, Standing, Vote,
};
use d_engine::raft::{
    Config, Durability, Fetch, Halt, Membership, Message, Mono, Now, Output, Raft, Restored, RoleName, Write,
};
use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;
use wal::frame::origin;
use wal::{
    ClusterId, EntryId, Flushed, Frame, FrameBuilder, FrameHead, GroupId, HardState, LogIndex, NodeId, Term,
};

/// A leader's sign of life is due this often.
pub const HEARTBEAT: Duration = Duration::from_millis(50);
/// The least election timeout.
pub const TIMEOUT: Duration = Duration::from_millis(250);
/// What the lease is shorter by: a tenth.
pub const DRIFT_PPM: u32 = 100_000;

/// What a server starts from.
#[derive(Clone)]
pub struct Start {
    pub founders: Membership,
    /// Terms of the entries on its disk. The first is the founding membership, in term 0; empty is a first boot.
    pub terms: Vec<u64>,
    pub term: u64,
    pub vote: Option<u64>,
    pub config: Config,
}

/// Node 1 of three, with entries of these terms and nothing decided beyond the first.
pub fn start(terms: &[u64]) -> Start {
    let config = Config {
        id: NodeId(1),
        cluster: ClusterId(1),
        group: GroupId::FIRST,
        seed: 1,
        heartbeat: HEARTBEAT,
        election_timeout: TIMEOUT,
        promise: TIMEOUT,
        drift_bound_ppm: DRIFT_PPM,
        append_bytes: 1 << 20,
        in_flight_bytes: 1 << 20,
        durability: Durability::DiskFirst,
        unflushed_entries: 32,
    };
    let term = terms.last().copied().unwrap_or(0);
    Start { founders: voters(3), terms: terms.to_vec(), term, vote: None, config }
}

impl Start {
    pub fn id(mut self, id: u64) -> Self {
        self.config.id = NodeId(id);
        self
    }

    pub fn founders(mut self, founders: Membership) -> Self {
        self.founders = founders;
        self
    }

    pub fn term(mut self, term: u64) -> Self {
        self.term = term;
        self
    }

    /// A server that runs, and whose promises from a former life have run out.
    pub fn run(self) -> Server {
        let mut server = self.boot();
        server.wait(TIMEOUT);
        server
    }

    /// A server that has just been started.
    pub fn boot(self) -> Server {
        let frames = log_of(&self.founders, &self.terms);
        // Whoever has been in a term has kept to its leader for as long as it does now.
        let promise = if self.term > 0 { self.config.promise } else { Duration::ZERO };
        let hard = HardState { term: Term(self.term), vote: self.vote.map(NodeId), promise };
        let raft = restored(&self, hard, &frames, Mono(1));
        let now = Now { mono: Mono(1), wall_ms: 0 };
        let mut server = Server {
            raft,
            now,
            disk: Disk { start: self, hard, frames, waiting: VecDeque::new() },
            sent: Vec::new(),
            fetches: Vec::new(),
            knocks: Vec::new(),
            halted: None,
        };
        server.turn();
        server
    }
}

fn restored(start: &Start, hard_state: HardState, frames: &[Frame], mono: Mono) -> Raft {
    let restored = Restored { hard_state, commit: LogIndex(0), standing: Standing::Whole, held: None };
    let mut raft = Raft::new(start.config.clone(), restored);
    for frame in frames {
        raft.restore(frame.clone(), LogIndex(0)).expect("the disk is whole");
    }
    raft.begin(Now { mono, wall_ms: 0 }, &start.founders);
    raft
}

/// The test's disk: what is on it, and what is on the way to it.
pub struct Disk {
    start: Start,
    pub hard: HardState,
    pub frames: Vec<Frame>,
    pub waiting: VecDeque<Write>,
}

impl Disk {
    /// The next start finds another configuration.
    pub fn configure(&mut self, change: impl FnOnce(&mut Config)) {
        change(&mut self.start.config);
    }
}

/// The server.
pub struct Server {
    pub raft: Raft,
    pub now: Now,
    pub disk: Disk,
    /// What it said and nobody has taken yet.
    pub sent: Vec<(u64, Message)>,
    pub fetches: Vec<Fetch>,
    pub knocks: Vec<u64>,
    pub halted: Option<Halt>,
}

impl Server {
    /// Ends a turn: whatever it wants done is gathered here.
    pub fn turn(&mut self) {
        self.raft.finish(self.now);
        while let Some(output) = self.raft.poll_output() {
            match output {
                Output::Write(write) => self.disk.waiting.push_back(write),
                Output::Send { to, message } => self.sent.push((to.0, message)),
                Output::Fetch(fetch) => self.fetches.push(fetch),
                Output::Knock(leader) => self.knocks.push(leader.0),
                Output::Halt(why) => self.halted = Some(why),
            }
        }
    }

    pub fn hear(&mut self, from: u64, term: u64, body: Body) {
        self.raft.handle_message(self.now, NodeId(from), Message { term: Term(term), body });
        self.turn();
    }

    /// Lets time pass; timers do not fire.
    pub fn wait(&mut self, span: Duration) {
        self.now.mono = self.now.mono.after(span);
    }

    /// Fires what is due now.
    pub fn fire(&mut self) {
        self.raft.handle_timeout(self.now);
        self.turn();
    }

    /// Lets time pass to the next timer and fires it. That of silence alone changes nothing: it is passed over.
    pub fn time_out(&mut self) {
        loop {
            let knocks = self.knocks.len();
            let due = self.raft.poll_timeout().expect("a timer is set");
            self.now.mono = self.now.mono.max(due);
            self.fire();
            if self.knocks.len() == knocks {
                return;
            }
        }
    }

    /// Hears that the process of another is gone.
    pub fn miss(&mut self, peer: u64) {
        self.raft.handle_gone(self.now, NodeId(peer));
        self.turn();
    }

    /// Lets time pass and fires each timer on its way.
    pub fn run_for(&mut self, span: Duration) {
        let end = self.now.mono.after(span);
        while let Some(due) = self.raft.poll_timeout().filter(|&due| due <= end) {
            self.now.mono = self.now.mono.max(due);
            self.fire();
        }
        self.now.mono = end;
    }

    /// Makes the oldest write durable.
    pub fn flush_one(&mut self) {
        let write = self.disk.waiting.pop_front().expect("a write is on the way");
        let plan = write.plan();
        self.disk.hard = plan.hard_state.unwrap_or(self.disk.hard);
        if let Some(first) = plan.frames.first() {
            let keep = self.disk.frames.iter().take_while(|frame| frame.index() < first.index()).count();
            self.disk.frames.truncate(keep);
        }
        self.disk.frames.extend(plan.frames);
        let proof = Flushed::simulated(write.id());
        self.raft.handle_written(self.now, write.flushed(proof));
        self.turn();
    }

    /// Makes everything durable.
    pub fn flush(&mut self) {
        while !self.disk.waiting.is_empty() {
            self.flush_one();
        }
    }

    /// Loses everything but the disk.
    pub fn restart(&mut self) {
        self.disk.waiting.clear();
        self.sent.clear();
        self.raft = restored(&self.disk.start, self.disk.hard, &self.disk.frames, self.now.mono);
        self.turn();
    }

    /// Makes it a candidate of the next term; its own vote is on the way to the disk.
    pub fn stand(&mut self) {
        self.time_out();
        let next = self.term() + 1;
        for peer in self.peers() {
            if self.role() == RoleName::PreCandidate {
                self.hear(peer, next, granted(Election::PreVote));
            }
        }
        assert_eq!((self.role(), self.term()), (RoleName::Candidate, next));
    }

    /// Makes it the leader of the next term; its no-op is on the way to the disk.
    pub fn elect(&mut self) {
        self.stand();
        self.flush();
        for peer in self.peers() {
            if self.role() == RoleName::Candidate {
                self.hear(peer, self.term(), granted(Election::Vote));
            }
        }
        assert_eq!(self.role(), RoleName::Leader);
    }

    /// Makes it a leader whose no-op is on its disk and decided, and whose followers have everything.
    pub fn lead(&mut self) {
        self.elect();
        self.flush();
        let (term, last) = (self.term(), self.last().0);
        for peer in self.peers() {
            self.hear(peer, term, accepted(last));
        }
        assert_eq!(self.commit(), last);
        self.take();
    }

    /// Appends a command, as a leader.
    pub fn propose(&mut self, command: &[u8]) -> u64 {
        let mut batch = FrameBuilder::with_capacity(64);
        batch.push_command(command);
        let entry = self.raft.propose(self.now, batch).expect("it leads");
        self.turn();
        entry.index.0
    }

    /// What it said since the last time.
    pub fn take(&mut self) -> Vec<(u64, Message)> {
        std::mem::take(&mut self.sent)
    }

    /// What it said to one since the last time; the rest is dropped.
    pub fn take_to(&mut self, peer: u64) -> Vec<Message> {
        self.take().into_iter().filter(|(to, _)| *to == peer).map(|(_, message)| message).collect()
    }

    /// The one thing it said.
    pub fn answer(&mut self) -> (u64, Message) {
        let mut sent = self.take();
        assert_eq!(sent.len(), 1, "one answer: {sent:?}");
        sent.remove(0)
    }

    /// The appends it sent to one peer: index before, indices of the entries.
    pub fn appends_to(&mut self, peer: u64) -> Vec<(u64, Vec<u64>)> {
        let appends = self.take_to(peer).into_iter().filter_map(|message| match message.body {
            Body::Append(append) => {
                let frames = append.frames.iter().map(|frame| frame.index().0).collect();
                Some((append.previous.index.0, frames))
            }
            _ => None,
        });
        appends.collect()
    }

    fn peers(&self) -> Vec<u64> {
        let id = self.raft.config().id;
        self.raft.membership().members().into_iter().filter(|&peer| peer != id).map(|peer| peer.0).collect()
    }

    pub fn role(&self) -> RoleName {
        self.raft.role()
    }

    pub fn term(&self) -> u64 {
        self.raft.term().0
    }

    pub fn commit(&self) -> u64 {
        self.raft.commit().0
    }

    /// Index and term of the last entry.
    pub fn last(&self) -> (u64, u64) {
        let EntryId { index, term, .. } = self.raft.log().last();
        (index.0, term.0)
    }

    /// The terms of its log.
    pub fn terms(&self) -> Vec<u64> {
        (1..=self.last().0).map(|i| self.raft.log().term_at(LogIndex(i)).expect("in the log").0).collect()
    }

    pub fn next_timeout(&self) -> Mono {
        self.raft.stands_at().or(self.raft.poll_timeout()).expect("a timer is set")
    }
}

/// A membership of nodes 1 to `count`, all voters.
pub fn voters(count: u64) -> Membership {
    Membership::of_voters((1..=count).map(NodeId)).expect("valid")
}

/// Any membership.
pub fn membership(voters: &[u64], outgoing: &[u64], learners: &[u64]) -> Membership {
    let set = |ids: &[u64]| ids.iter().copied().map(NodeId).collect::<BTreeSet<_>>();
    Membership::new(set(voters), set(outgoing), set(learners)).expect("valid")
}

fn head(previous: EntryId, term: u64) -> FrameHead {
    FrameHead { group: GroupId::FIRST, term: Term(term), previous, timestamp_ms: 0 }
}

fn log_of(founders: &Membership, terms: &[u64]) -> Vec<Frame> {
    let mut frames: Vec<Frame> = Vec::new();
    for &term in terms {
        frames.push(match frames.last() {
            None => {
                FrameBuilder::membership(head(origin(ClusterId(1), GroupId::FIRST), term), &founders.encode())
            }
            Some(previous) => FrameBuilder::noop(head(previous.id(), term)),
        });
    }
    frames
}

/// Somebody's log: the founding entry of three voters, and entries of these terms. Equal terms are equal logs.
pub fn log(terms: &[u64]) -> Vec<Frame> {
    log_of(&voters(3), terms)
}

/// A log with a membership entry at its end.
pub fn with_membership(mut log: Vec<Frame>, term: u64, membership: &Membership) -> Vec<Frame> {
    let previous = log.last().expect("the founding entry").id();
    log.push(FrameBuilder::membership(head(previous, term), &membership.encode()));
    log
}

/// A log with a command at its end.
pub fn with_command(mut log: Vec<Frame>, term: u64, command: &[u8]) -> Vec<Frame> {
    let previous = log.last().expect("the founding entry").id();
    let mut batch = FrameBuilder::with_capacity(64);
    batch.push_command(command);
    log.push(batch.commands(head(previous, term)));
    log
}

/// AppendEntries out of a leader's `log`: everything after entry `previous`.
pub fn append(log: &[Frame], previous: usize, commit: u64) -> Body {
    Body::Append(Append {
        previous: log[previous - 1].id(),
        frames: log[previous..].to_vec(),
        commit: LogIndex(commit),
        probe: 0,
        promise: Duration::ZERO,
    })
}

/// RequestVote of a candidate whose log ends so.
pub fn candidacy(election: Election, last_index: u64, last_term: u64) -> Body {
    let (last_term, last_index) = (Term(last_term), LogIndex(last_index));
    Body::Candidacy(Candidacy { election, last_term, last_index, standing: Standing::Whole })
}

pub fn granted(election: Election) -> Body {
    Body::Vote(Vote { election, decision: Decision::Granted, standing: Standing::Whole })
}

pub fn refused(election: Election) -> Body {
    Body::Vote(Vote { election, decision: Decision::Refused, standing: Standing::Whole })
}

/// A successful answer to AppendEntries.
pub fn accepted(matched: u64) -> Body {
    Body::Appended(Appended { outcome: AppendOutcome::Accepted { matched: LogIndex(matched) }, probe: 0 })
}

/// An unsuccessful one.
pub fn rejected(previous: u64, hint: u64, hint_term: u64) -> Body {
    let (previous, hint, hint_term) = (LogIndex(previous), LogIndex(hint), Term(hint_term));
    Body::Appended(Appended { outcome: AppendOutcome::Rejected { previous, hint, hint_term }, probe: 0 })
}

pub fn heartbeat(probe: u64, commit: u64) -> Body {
    Body::Heartbeat(Heartbeat { probe, commit: LogIndex(commit), promise: Duration::ZERO })
}

pub fn alive(probe: u64) -> Body {
    Body::Alive(Alive { probe })
}

/// A message as its receiver sees it.
pub fn said(term: u64, body: Body) -> Message {
    Message { term: Term(term), body }
}
