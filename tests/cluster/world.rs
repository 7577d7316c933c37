//! A whole cluster as a value: nodes, network, disks and clocks, driven by one seed.
//!
//! The nodes are the engine's own; messages go through the wire's encoding both ways. Judged at every step:
//!
//! - one leader per term, over all history (Election Safety);
//! - what one node decides at an index, every node decides (State Machine Safety), with equal digests after it;
//! - no acknowledgement or vote leaves before the disk holds what it promises (the wire tap);
//! - a granted linearizable read, and any read under a lease, sees every write acknowledged before it was asked for;
//! - every ticket is answered exactly once.

use bytes::{Bytes, BytesMut};
use d_engine::kv::{self, encode_put};
use d_engine::node::{Input, Limits, Message, Node, Output, Reply, RequestError, Ticket, wire};
use d_engine::raft::message::{AppendOutcome, Body, Decision, Election, Standing};
use d_engine::raft::{Config, Durability, Held, Membership, Mono, Now, Random, Restored, RoleName, Write};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;
use wal::{ClusterId, EntryId, Flushed, Frame, GroupId, HardState, LogIndex, NodeId, Term};

const MILLISECOND: u64 = 1_000_000;

/// What one run does to the cluster.
#[derive(Clone, Copy, Debug)]
pub struct Faults {
    /// Messages lost, in percent.
    pub loss: u64,
    /// Messages delivered twice, in percent.
    pub duplication: u64,
    /// The longest delay of a message, in milliseconds. Different delays reorder.
    pub delay_ms: u64,
    /// The longest flush, in milliseconds.
    pub flush_ms: u64,
    /// Clocks run up to this much fast or slow, in parts per million.
    pub drift_ppm: u64,
}

impl Faults {
    pub const NONE: Self = Self { loss: 0, duplication: 0, delay_ms: 1, flush_ms: 1, drift_ppm: 0 };
    pub const ROUGH: Self = Self { loss: 10, duplication: 10, delay_ms: 40, flush_ms: 30, drift_ppm: 40_000 };
}

/// What is known of the end of a log that was damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// Its last entry.
    Known,
    /// Nothing but the term.
    Unknown,
}

/// A disk: what is durable, and nothing else survives.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    pub hard_state: HardState,
    pub frames: Vec<Frame>,
    pub commit: LogIndex,
    clean: bool,
    /// What it may have had before it was damaged, until the node says that it is whole.
    pub held: Option<Held>,
}

impl Disk {
    fn write(&mut self, write: &Write) {
        let plan = write.plan();
        if let Some(hard_state) = plan.hard_state {
            assert!(hard_state.term >= self.hard_state.term, "hard states reach the disk in order");
            self.hard_state = hard_state;
        }
        if let Some(first) = plan.frames.first() {
            self.frames.retain(|frame| frame.index() < first.index());
            assert_eq!(self.frames.len() as u64 + 1, first.index().0, "the log on disk has no gap");
            self.frames.extend(plan.frames);
        }
        self.commit = self.commit.max(plan.commit);
        if write.says_whole() {
            self.held = None;
        }
    }

    /// Of a write that was cut off: the entries without the hard state, if they only append.
    fn write_entries(&mut self, write: &Write) -> bool {
        let frames = write.plan().frames;
        let appends = frames.first().is_none_or(|first| first.index().0 == self.frames.len() as u64 + 1);
        if appends {
            self.frames.extend(frames);
        }
        appends
    }

    /// Loses the entries from `from` on, as the log's recovery would find it.
    fn damage(&mut self, from: LogIndex, extent: Extent) {
        let last = self.frames.last().map_or(LogIndex::ZERO, Frame::index);
        if from > last {
            return;
        }
        let known = self.frames.iter().map(|frame| Held { term: frame.term(), index: frame.index() }).max();
        let held = match extent {
            Extent::Known => known,
            Extent::Unknown => Some(Held { term: self.hard_state.term, index: Held::ANY_INDEX }),
        };
        self.held = self.held.max(held);
        self.frames.retain(|frame| frame.index() < from);
        self.commit = self.commit.min(from.previous());
    }

    fn holds(&self, index: LogIndex) -> bool {
        self.frames.len() as u64 >= index.0
    }
}

struct Member {
    node: Option<Node<kv::Store>>,
    disk: Disk,
    writing: VecDeque<Write>,
    flush_at: Option<u64>,
    life: u64,
    /// Parts per million by which its clock is fast, plus a million.
    rate: u64,
    paused: bool,
    /// Until when it is busy applying; what comes in meanwhile waits.
    applying: Option<u64>,
    inbox: VecDeque<Input>,
    /// The lease as published to readers on other threads.
    lease: Option<Mono>,
    /// Its disk takes writes and finishes none.
    stalled: bool,
}

#[derive(Debug)]
struct InFlight {
    from: NodeId,
    /// Which life of the receiver the connection was made to: a new life makes new connections.
    lives: (u64, u64),
    to: NodeId,
    bytes: Bytes,
}

/// A message as it left its sender.
#[derive(Clone, Debug)]
pub struct Spoken {
    pub from: NodeId,
    pub message: Message,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    Put {
        at: usize,
    },
    /// Any command; its reply is kept.
    Command,
    Read {
        at: NodeId,
        floor: u64,
    },
    Transfer,
}

/// What became of the calls of a run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    pub acknowledged: u64,
    pub unknown: u64,
    pub refused: u64,
    pub reads: u64,
    pub lease_checks: u64,
    pub elections: u64,
    pub crashes: u64,
}

pub struct World {
    pub seed: u64,
    pub random: Random,
    pub faults: Faults,
    pub durability: Durability,
    /// What every message takes at least, in milliseconds.
    pub line_ms: u64,
    /// For nodes that start from now on.
    pub pending_requests: usize,
    now: u64,
    members: BTreeMap<NodeId, Member>,
    network: BTreeMap<(u64, u64), InFlight>,
    next_message: u64,
    blocked: BTreeSet<(NodeId, NodeId)>,
    calls: BTreeMap<Ticket, Call>,
    next_ticket: u64,
    leaders: BTreeMap<Term, NodeId>,
    ledger: BTreeMap<LogIndex, (EntryId, u128)>,
    /// The newest revision anybody was told of.
    acknowledged_revision: u64,
    acknowledged: Vec<usize>,
    /// Writes whose callers were told that they did not happen.
    denied: Vec<usize>,
    /// Everything said so far, if it is kept.
    pub tape: Option<Vec<Spoken>>,
    /// To commands that are not puts of the world's own.
    pub replies: BTreeMap<Ticket, kv::Reply>,
    next_value: usize,
    pub tally: Tally,
}

fn key_of(value: usize) -> String {
    format!("key-{value:06}")
}

impl World {
    pub fn new(seed: u64, size: u64, faults: Faults, durability: Durability) -> Self {
        let mut world = Self {
            seed,
            random: Random::from_seed(seed),
            faults,
            durability,
            line_ms: 0,
            pending_requests: 64,
            now: MILLISECOND,
            members: BTreeMap::new(),
            network: BTreeMap::new(),
            next_message: 0,
            blocked: BTreeSet::new(),
            calls: BTreeMap::new(),
            next_ticket: 1,
            leaders: BTreeMap::new(),
            ledger: BTreeMap::new(),
            acknowledged_revision: 0,
            acknowledged: Vec::new(),
            denied: Vec::new(),
            tape: None,
            replies: BTreeMap::new(),
            next_value: 0,
            tally: Tally::default(),
        };
        for id in (1..=size).map(NodeId) {
            let drift = world.below(2 * faults.drift_ppm + 1);
            let rate = 1_000_000 + drift - faults.drift_ppm;
            let disk = Disk { clean: true, ..Disk::default() };
            let member = Member {
                node: None,
                disk,
                writing: VecDeque::new(),
                flush_at: None,
                life: 0,
                rate,
                paused: false,
                applying: None,
                inbox: VecDeque::new(),
                lease: None,
                stalled: false,
            };
            world.members.insert(id, member);
        }
        for id in (1..=size).map(NodeId) {
            world.start(id);
        }
        world
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.random.bits() % limit.max(1)
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    pub fn ids(&self) -> Vec<NodeId> {
        self.members.keys().copied().collect()
    }

    fn clock(&self, id: NodeId) -> Now {
        let local = u128::from(self.now) * u128::from(self.members[&id].rate) / 1_000_000;
        let local = u64::try_from(local).expect("a run is short");
        // The wall clock of each node is off by seconds, and jumps.
        let wall_ms = 1_700_000_000_000 + id.0 * 7_919 + (local / MILLISECOND) % 997;
        Now { mono: Mono(local), wall_ms }
    }

    pub fn node(&self, id: NodeId) -> &Node<kv::Store> {
        self.members[&id].node.as_ref().expect("it runs")
    }

    /// Whether a node runs and knows everything it acknowledged.
    pub fn remembers(&self, id: NodeId) -> bool {
        self.is_up(id) && self.node(id).may_stop_cleanly()
    }

    pub fn is_up(&self, id: NodeId) -> bool {
        self.members[&id].node.is_some()
    }

    /// Starts a node from its disk.
    pub fn start(&mut self, id: NodeId) {
        let now = self.clock(id);
        let seed = self.random.bits();
        let voters: Vec<_> = self.ids();
        let config = Config {
            id,
            cluster: ClusterId(7),
            group: GroupId::FIRST,
            seed,
            heartbeat: Duration::from_millis(50),
            election_timeout: Duration::from_millis(250),
            promise: Duration::from_millis(250),
            drift_bound_ppm: 100_000,
            append_bytes: 512,
            in_flight_bytes: 2_048,
            durability: self.durability,
            unflushed_entries: 32,
        };
        let limits = Limits {
            batch_bytes: 256,
            cache_bytes: 1_024,
            pending_requests: self.pending_requests,
            pending_bytes: 8_192,
            request_timeout: Duration::from_secs(2),
            ..Limits::default()
        };
        let member = self.members.get_mut(&id).expect("a member");
        assert!(member.node.is_none(), "it does not run yet");
        member.life += 1;
        let whole = self.durability == Durability::DiskFirst || member.disk.clean;
        let standing = if whole { Standing::Whole } else { Standing::Suspect };
        member.disk.clean = false;
        let disk = Restored {
            hard_state: member.disk.hard_state,
            commit: member.disk.commit,
            standing,
            held: member.disk.held,
        };
        let mut restoring = Node::restoring(config, limits, member.life, kv::Store::new(), disk);
        for frame in &member.disk.frames {
            restoring.push(frame.clone()).expect("the disk is whole");
        }
        let founders = Membership::of_voters(voters.clone()).expect("valid");
        member.node = Some(restoring.begin(now, &founders));
        self.drain(id);
        for peer in voters {
            if peer != id && self.is_up(peer) {
                self.feed(peer, Input::Disconnected(id));
                self.feed(peer, Input::Connected(id));
                self.feed(id, Input::Connected(peer));
            }
        }
    }

    /// Pulls the plug: memory is gone, and of the writes under way some prefix has reached the disk.
    pub fn crash(&mut self, id: NodeId) {
        self.tally.crashes += 1;
        let survives = self.random.bits();
        let member = self.members.get_mut(&id).expect("a member");
        if let Some(node) = member.node.take() {
            self.tally.elections += node.status().counters.elections;
        }
        let writing = std::mem::take(&mut member.writing);
        let survive = usize::try_from(survives >> 8).unwrap_or(usize::MAX) % (writing.len() + 1);
        for write in writing.iter().take(survive) {
            member.disk.write(write);
        }
        // The log flushes entries before the hard state that shares their write: the last ones may be there alone.
        if survives & 3 == 0 {
            for write in writing.iter().skip(survive).take(1 + usize::from(survives & 4 == 0)) {
                if !member.disk.write_entries(write) {
                    break;
                }
            }
        }
        member.flush_at = None;
        member.paused = false;
        member.applying = None;
        member.inbox.clear();
        member.lease = None;
        // The callers of a node die with it, or wait for a process that is gone.
        let dead: Vec<_> = self.calls.iter().filter(|(t, _)| t.0 >> 32 == id.0).map(|(&t, _)| t).collect();
        for ticket in dead {
            self.calls.remove(&ticket);
        }
    }

    /// Pulls the plug, and the disk loses its entries from `from` on, flushed as they were.
    pub fn crash_damaged(&mut self, id: NodeId, from: LogIndex, extent: Extent) {
        self.crash_forgetting(id);
        self.members.get_mut(&id).expect("a member").disk.damage(from, extent);
    }

    /// Whether a node, running or not, may lack what it acknowledged.
    pub fn is_doubtful(&self, id: NodeId) -> bool {
        let member = &self.members[&id];
        let forgetful = self.durability == Durability::MemFirst && !self.remembers(id);
        forgetful || member.disk.held.is_some() || (self.is_up(id) && !self.remembers(id))
    }

    /// What is durable at a node.
    pub fn disk(&self, id: NodeId) -> &Disk {
        &self.members[&id].disk
    }

    /// Pulls the plug, and nothing of the writes under way reaches the disk.
    pub fn crash_forgetting(&mut self, id: NodeId) {
        self.members.get_mut(&id).expect("a member").writing.clear();
        self.crash(id);
    }

    /// Bytes of the largest log in memory.
    pub fn cached_bytes(&self, id: NodeId) -> usize {
        self.node(id).raft().log().cached_bytes()
    }

    pub fn set_stalled(&mut self, id: NodeId, stalled: bool) {
        self.members.get_mut(&id).expect("a member").stalled = stalled;
    }

    pub fn set_paused(&mut self, id: NodeId, paused: Pause) {
        self.members.get_mut(&id).expect("a member").paused = paused == Pause::Stopped;
    }

    /// Cuts the network between the two groups, in both directions.
    pub fn partition(&mut self, one: &[NodeId], other: &[NodeId]) {
        for &a in one {
            for &b in other {
                self.blocked.insert((a, b));
                self.blocked.insert((b, a));
            }
        }
    }

    /// Cuts one direction.
    pub fn block(&mut self, from: NodeId, to: NodeId) {
        self.blocked.insert((from, to));
    }

    pub fn heal(&mut self) {
        self.blocked.clear();
    }

    pub fn leader(&self) -> Option<NodeId> {
        let leads = |id: &NodeId| {
            self.members[id].node.as_ref().is_some_and(|node| node.leadership().role == RoleName::Leader)
        };
        self.members.keys().copied().filter(leads).max_by_key(|&id| self.node(id).leadership().term)
    }

    fn ticket(&mut self, id: NodeId) -> Ticket {
        self.next_ticket += 1;
        Ticket((id.0 << 32) | self.next_ticket)
    }

    /// Puts the next unique key at a node.
    pub fn put(&mut self, id: NodeId) -> Ticket {
        let value = self.next_value;
        self.next_value += 1;
        let mut command = BytesMut::new();
        encode_put(key_of(value).as_bytes(), &value.to_le_bytes(), &mut command).expect("small");
        let ticket = self.ticket(id);
        self.calls.insert(ticket, Call::Put { at: value });
        self.feed(id, Input::Propose { ticket, command: command.freeze() });
        ticket
    }

    /// Proposes any command at a node.
    pub fn command(&mut self, id: NodeId, command: Bytes) -> Ticket {
        let ticket = self.ticket(id);
        self.calls.insert(ticket, Call::Command);
        self.feed(id, Input::Propose { ticket, command });
        ticket
    }

    /// The world's time, in milliseconds.
    pub fn milliseconds(&self) -> u64 {
        self.now / MILLISECOND
    }

    /// Asks for a linearizable read at a node.
    pub fn read(&mut self, id: NodeId) -> Ticket {
        let ticket = self.ticket(id);
        self.calls.insert(ticket, Call::Read { at: id, floor: self.acknowledged_revision });
        self.feed(id, Input::Read { ticket });
        ticket
    }

    pub fn transfer(&mut self, id: NodeId, to: NodeId) -> Ticket {
        let ticket = self.ticket(id);
        self.calls.insert(ticket, Call::Transfer);
        self.feed(id, Input::TransferLeadership { ticket, to });
        ticket
    }

    pub fn is_answered(&self, ticket: Ticket) -> bool {
        !self.calls.contains_key(&ticket)
    }

    pub fn waiting(&self) -> usize {
        self.calls.len()
    }

    pub fn feed(&mut self, id: NodeId, input: Input) {
        let now = self.clock(id);
        let member = self.members.get_mut(&id).expect("a member");
        if member.applying.is_some() {
            return member.inbox.push_back(input);
        }
        let Some(node) = self.members.get_mut(&id).and_then(|member| member.node.as_mut()) else { return };
        node.handle(now, input);
        self.drain(id);
    }

    fn drain(&mut self, id: NodeId) {
        loop {
            let member = self.members.get_mut(&id).expect("a member");
            let Some(output) = member.node.as_mut().and_then(Node::poll_output) else { break };
            match output {
                Output::Write(write) => {
                    member.writing.push_back(write);
                    if member.flush_at.is_none() {
                        let flush = 1 + self.below(self.faults.flush_ms * MILLISECOND);
                        self.members.get_mut(&id).expect("a member").flush_at = Some(self.now + flush);
                    }
                }
                Output::Send { to, message } => self.send(id, to, message),
                Output::Knock(leader) => {
                    if self.members[&leader].node.is_none() {
                        self.feed(id, Input::Gone(leader));
                    }
                }
                Output::Fetch(fetch) => {
                    let disk = &member.disk;
                    let from = usize::try_from(fetch.from.0).expect("small") - 1;
                    let frames: Vec<_> = disk.frames.iter().skip(from).take(3).cloned().collect();
                    self.feed(id, Input::Fetched { peer: fetch.peer, frames });
                }
                Output::Answers(answers) => {
                    for answer in answers {
                        self.answered(answer.ticket, answer.outcome);
                    }
                }
                Output::Leadership(leadership) => {
                    if leadership.role == RoleName::Leader {
                        let first = *self.leaders.entry(leadership.term).or_insert(id);
                        assert_eq!(first, id, "seed {}: two leaders in term {}", self.seed, leadership.term);
                    }
                }
                // What came so far is out, and applying takes its time: others hear, and readers read, meanwhile.
                Output::Submit => {
                    self.publish_lease(id);
                    if self.chance(20) {
                        let until = self.now + 1 + self.below(20 * MILLISECOND);
                        self.members.get_mut(&id).expect("a member").applying = Some(until);
                        return;
                    }
                }
                Output::Halt(why) => panic!("seed {}: node {id} halted: {why}", self.seed),
            }
        }
        self.publish_lease(id);
        self.judge(id);
    }

    fn publish_lease(&mut self, id: NodeId) {
        let member = self.members.get_mut(&id).expect("a member");
        member.lease = member.node.as_ref().and_then(Node::lease);
    }

    fn send(&mut self, from: NodeId, to: NodeId, message: Message) {
        // A transport that knows its peer is gone, or whose queue is full, gives the message back.
        let given_back = if self.blocked.contains(&(from, to)) { 50 } else { self.faults.loss / 5 };
        if self.chance(given_back) {
            let now = self.clock(from);
            let node = self.members.get_mut(&from).and_then(|member| member.node.as_mut());
            return node.expect("it just spoke").handle(now, Input::NotSent { to, message });
        }
        self.tap(from, to, &message);
        if let Some(tape) = &mut self.tape {
            tape.push(Spoken { from, message: message.clone() });
        }
        if self.chance(self.faults.loss) || self.blocked.contains(&(from, to)) {
            return;
        }
        let mut parts = Vec::new();
        wire::encode(&message, &mut parts);
        let bytes: Bytes = parts.concat().into();
        let copies = if self.chance(self.faults.duplication) { 2 } else { 1 };
        for _ in 0..copies {
            let delay = 1 + self.line_ms * MILLISECOND + self.below(self.faults.delay_ms * MILLISECOND);
            self.next_message += 1;
            let lives = (self.members[&from].life, self.members[&to].life);
            let in_flight = InFlight { from, to, lives, bytes: bytes.clone() };
            self.network.insert((self.now + delay, self.next_message), in_flight);
        }
    }

    /// The wire tap: what a message promises is on the disk when it leaves.
    fn tap(&self, from: NodeId, to: NodeId, message: &Message) {
        let Message::Raft(message) = message else { return };
        let disk = &self.members[&from].disk;
        let seed = self.seed;
        match &message.body {
            Body::Appended(appended) => {
                if let AppendOutcome::Accepted { matched } = appended.outcome
                    && self.durability == Durability::DiskFirst
                    && message.term == disk.hard_state.term
                {
                    assert!(
                        disk.holds(matched),
                        "seed {seed}: {from} acknowledges {matched}, its disk ends before"
                    );
                }
                assert!(
                    disk.hard_state.term >= message.term,
                    "seed {seed}: {from} speaks in a term not on disk"
                );
            }
            Body::Vote(vote) if vote.decision == Decision::Granted && vote.election != Election::PreVote => {
                let saved = disk.hard_state.term > message.term
                    || (disk.hard_state.term == message.term && disk.hard_state.vote == Some(to));
                assert!(saved, "seed {seed}: {from}'s vote for {to} in term {} is not on disk", message.term);
            }
            Body::Candidacy(candidacy) if candidacy.election != Election::PreVote => {
                assert!(
                    disk.hard_state.term >= message.term,
                    "seed {seed}: {from} stands in a term not on disk"
                );
            }
            _ => {}
        }
    }

    fn answered(
        &mut self,
        ticket: Ticket,
        outcome: Result<Reply<kv::Reply>, RequestError<kv::CommandError>>,
    ) {
        let seed = self.seed;
        let call = self.calls.remove(&ticket);
        let call =
            call.unwrap_or_else(|| panic!("seed {seed}: {ticket:?} is answered twice or was never asked"));
        match (call, outcome) {
            (Call::Put { at }, Ok(Reply::Applied(reply))) => {
                let revision = reply.revision().expect("a put takes a revision");
                self.acknowledged_revision = self.acknowledged_revision.max(revision.0);
                self.acknowledged.push(at);
                self.tally.acknowledged += 1;
            }
            (Call::Command, Ok(Reply::Applied(reply))) => drop(self.replies.insert(ticket, reply)),
            (Call::Read { at, floor }, Ok(Reply::Readable)) => {
                let sees = self.node(at).machine().revision().0;
                assert!(
                    sees >= floor,
                    "seed {seed}: stale read at {at}: sees {sees}, {floor} was acknowledged before"
                );
                // What one reader has seen, no later one may miss.
                self.acknowledged_revision = self.acknowledged_revision.max(sees);
                self.tally.reads += 1;
            }
            (Call::Transfer, Ok(Reply::Transferred)) => {}
            (_, Ok(reply)) => panic!("seed {seed}: {reply:?} does not answer {call:?}"),
            (_, Err(RequestError::OutcomeUnknown)) => self.tally.unknown += 1,
            (Call::Put { at }, Err(_)) => {
                self.denied.push(at);
                self.tally.refused += 1;
            }
            (_, Err(_)) => self.tally.refused += 1,
        }
    }

    /// Compares what a node has decided and applied with everybody's.
    fn judge(&mut self, id: NodeId) {
        let seed = self.seed;
        for id in self.ids() {
            self.judge_lease(id);
        }
        let Some(node) = &self.members[&id].node else { return };
        let status = node.status();
        if let Some(entry) = node.raft().log().id_at(status.applied)
            && status.applied > LogIndex::ZERO
        {
            let ours = (entry, status.digest);
            let first = *self.ledger.entry(status.applied).or_insert(ours);
            assert_eq!(first, ours, "seed {seed}: node {id} applied something else at {}", status.applied);
        }
    }

    /// A reader of the leader's own state comes at any moment, also between two outputs of a turn.
    fn judge_lease(&mut self, id: NodeId) {
        let seed = self.seed;
        let now = self.clock(id).mono;
        let member = &self.members[&id];
        let Some(node) = &member.node else { return };
        if member.lease.is_some_and(|until| now < until) {
            let sees = node.machine().revision().0;
            let floor = self.acknowledged_revision;
            assert!(sees >= floor, "seed {seed}: stale lease read at {id}: sees {sees} of {floor}");
            self.tally.lease_checks += 1;
        }
    }

    /// Lets the next thing happen; false if nothing would before `until`.
    fn step(&mut self, until: u64) -> bool {
        #[derive(Clone, Copy)]
        enum Next {
            Message((u64, u64)),
            Flush(NodeId),
            Timeout(NodeId),
            Applied(NodeId),
        }
        let mut next: Option<(u64, Next)> = None;
        let mut consider = |at: u64, what: Next| {
            if next.is_none_or(|(earliest, _)| at < earliest) {
                next = Some((at, what));
            }
        };
        // A paused receiver's messages wait in its socket.
        let awake = |id: &NodeId| !self.members[id].paused;
        if let Some((&key, _)) = self.network.iter().find(|(_, message)| awake(&message.to)) {
            consider(key.0, Next::Message(key));
        }
        for (&id, member) in &self.members {
            if member.paused {
                continue;
            }
            if let Some(at) = member.flush_at
                && !member.stalled
            {
                consider(at, Next::Flush(id));
            }
            if let Some(at) = member.applying {
                consider(at, Next::Applied(id));
            } else if let Some(local) = member.node.as_ref().and_then(Node::poll_timeout) {
                let at = u128::from(local.0) * 1_000_000 / u128::from(member.rate) + 1;
                consider(u64::try_from(at).unwrap_or(u64::MAX), Next::Timeout(id));
            }
        }
        let Some((at, what)) = next.filter(|&(at, _)| at <= until) else {
            self.now = until;
            return false;
        };
        self.now = self.now.max(at);
        match what {
            Next::Message(key) => {
                let InFlight { from, to, lives, bytes } = self.network.remove(&key).expect("just seen");
                let same_lives = lives == (self.members[&from].life, self.members[&to].life);
                // Messages of a former life arrive too, except where the group relies on connections dying with it.
                let delivered = same_lives || self.durability == Durability::DiskFirst;
                if delivered && !self.blocked.contains(&(from, to)) {
                    let message = wire::decode(bytes).expect("what was encoded");
                    self.feed(to, Input::Message { from, message });
                }
            }
            Next::Flush(id) => {
                let member = self.members.get_mut(&id).expect("a member");
                member.flush_at = None;
                let written: Vec<_> = member.writing.drain(..).collect();
                for write in &written {
                    member.disk.write(write);
                }
                // A completion may come late: what it promises stands all the same.
                for write in written {
                    let proof = Flushed::simulated(write.id());
                    self.feed(id, Input::Written(write.flushed(proof)));
                }
            }
            Next::Timeout(id) => self.feed(id, Input::Timeout),
            Next::Applied(id) => {
                let member = self.members.get_mut(&id).expect("a member");
                member.applying = None;
                let inbox = std::mem::take(&mut member.inbox);
                self.drain(id);
                for input in inbox {
                    self.feed(id, input);
                }
            }
        }
        true
    }

    pub fn run_for(&mut self, milliseconds: u64) {
        let until = self.now + milliseconds * MILLISECOND;
        while self.step(until) {}
        for id in self.ids() {
            self.judge(id);
        }
    }

    /// Runs until the condition holds.
    ///
    /// # Panics
    /// If it does not within the time.
    pub fn run_until(&mut self, what: &str, milliseconds: u64, mut done: impl FnMut(&Self) -> bool) {
        let until = self.now + milliseconds * MILLISECOND;
        while !done(self) {
            assert!(self.step(until), "seed {}: not within {milliseconds} ms: {what}", self.seed);
        }
    }

    /// Heals everything and demands what a healthy cluster owes: a leader, an answer to everybody, equal replicas that
    /// hold every acknowledged write.
    pub fn settle(&mut self) {
        let seed = self.seed;
        self.heal();
        self.faults = Faults { drift_ppm: self.faults.drift_ppm, ..Faults::NONE };
        for id in self.ids() {
            self.set_paused(id, Pause::Running);
            if !self.is_up(id) {
                self.start(id);
            }
        }
        self.run_until("a leader", 10_000, |world| world.leader().is_some());
        self.run_until("answers for everybody", 10_000, |world| world.waiting() == 0);
        // A candidate of the last moment may still take over: then the write is tried again.
        let before = self.tally.acknowledged;
        while self.tally.acknowledged == before {
            let last = self.put(NodeId(1));
            self.run_until("one more write", 10_000, |world| world.is_answered(last));
        }
        self.run_until("equal replicas", 10_000, |world| {
            let state = |id: &NodeId| {
                let status = world.node(*id).status();
                (status.applied, status.digest, status.last == status.applied)
            };
            let first = state(&NodeId(1));
            first.2 && world.members.keys().all(|id| state(id) == first)
        });
        for id in self.ids() {
            for &value in &self.acknowledged {
                let found = self.node(id).machine().get(key_of(value).as_bytes());
                assert!(found.is_some(), "seed {seed}: node {id} lost acknowledged write {value}");
            }
            for value in 0..self.next_value {
                let found = self.node(id).machine().get(key_of(value).as_bytes());
                let times = found.map_or(0, |found| found.version);
                assert!(times <= 1, "seed {seed}: node {id} applied write {value} {times} times");
            }
            for &value in &self.denied {
                let found = self.node(id).machine().get(key_of(value).as_bytes());
                assert!(found.is_none(), "seed {seed}: write {value} was said not to have happened, and did");
            }
        }
    }
}

/// Whether a process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pause {
    Running,
    Stopped,
}
