//! A group of nodes, driven one input at a time. Nothing happens here that a script did not ask for.

use crate::member::{Member, Pace, Settings, shown};
use crate::words;
use bytes::Bytes;
use d_engine::node::{Input, Message, Node, Output, Ticket, wire};
use d_engine::raft::message::{Body, Candidacy, Election};
use d_engine::raft::{Durability, RoleName};
use std::collections::{BTreeMap, BTreeSet};
use wal::{EntryId, Flushed, LogIndex, NodeId, Term};

pub type Outcome = Result<(), String>;

/// How much of what happens is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Telling {
    Everything,
    /// Who leads, what is answered, who halts.
    Quietly,
}

/// A message on its way.
#[derive(Clone, Debug)]
pub struct Letter {
    pub from: NodeId,
    pub to: NodeId,
    pub message: Message,
}

pub struct Cluster {
    pub settings: Settings,
    pub members: BTreeMap<NodeId, Member>,
    /// In the order in which they were sent.
    pub network: Vec<Letter>,
    pub cut: BTreeSet<(NodeId, NodeId)>,
    /// Routes on which messages are slow: only `deliver` takes them.
    pub held: BTreeSet<(NodeId, NodeId)>,
    /// Nanoseconds since the beginning, by everybody's time.
    pub now: u64,
    pub telling: Telling,
    /// Inputs are gathered into one turn per node.
    pub gathering: bool,
    gathered: BTreeSet<NodeId>,
    said: Vec<String>,
    /// Said before the next line, if there is one.
    heading: Option<String>,
    next_ticket: u64,
    leaders: BTreeMap<Term, NodeId>,
    decided: BTreeMap<LogIndex, EntryId>,
}

impl Cluster {
    pub fn new() -> Self {
        Self {
            settings: Settings::default(),
            members: BTreeMap::new(),
            network: Vec::new(),
            cut: BTreeSet::new(),
            held: BTreeSet::new(),
            now: 0,
            telling: Telling::Everything,
            gathering: false,
            gathered: BTreeSet::new(),
            said: Vec::new(),
            heading: None,
            next_ticket: 1,
            leaders: BTreeMap::new(),
            decided: BTreeMap::new(),
        }
    }

    pub fn say(&mut self, line: String) {
        self.said.extend(self.heading.take());
        self.said.push(line);
    }

    /// Says what only a full account has.
    pub fn detail(&mut self, line: String) {
        if self.telling == Telling::Everything {
            self.say(line);
        }
    }

    pub fn take_said(&mut self) -> Vec<String> {
        self.heading = None;
        std::mem::take(&mut self.said)
    }

    pub fn member(&mut self, id: NodeId) -> Result<&mut Member, String> {
        self.members.get_mut(&id).ok_or_else(|| format!("there is no node {id}"))
    }

    pub fn node(&mut self, id: NodeId) -> Result<&mut Node<d_engine::kv::Store>, String> {
        self.member(id)?.node.as_mut().ok_or_else(|| format!("node {id} does not run"))
    }

    pub fn found(&mut self, size: u64) -> Outcome {
        for id in (1..=size).map(NodeId) {
            self.members.insert(id, Member::new(id));
        }
        // The founding entry is on every disk before the lesson begins.
        self.telling = Telling::Quietly;
        (1..=size).map(NodeId).try_for_each(|id| self.start(id))?;
        (1..=size).map(NodeId).try_for_each(|id| self.flush(id, usize::MAX))
    }

    /// Starts a node from its disk; the others notice that their connections to it are new.
    pub fn start(&mut self, id: NodeId) -> Outcome {
        let (now, voters) = (self.now, self.members.len() as u64);
        let settings = self.settings.clone();
        let member = self.member(id)?;
        if member.node.is_some() && !member.halted {
            return Err(format!("node {id} runs already"));
        }
        member.start(now, voters, &settings)?;
        self.drain(id)?;
        for peer in (1..=voters).map(NodeId).filter(|&peer| peer != id) {
            if self.members[&peer].is_awake() {
                self.connect(peer, id)?;
            }
        }
        Ok(())
    }

    /// One side notices that the old connection is gone and a new one is there, the other knows only the new one.
    fn connect(&mut self, one: NodeId, other: NodeId) -> Outcome {
        self.gathering = true;
        self.feed(one, Input::Disconnected(other))?;
        self.feed(one, Input::Connected(other))?;
        self.feed(other, Input::Connected(one))?;
        self.end_turn()
    }

    /// A majority lost its memory, in the one mode in which that may undo decisions.
    pub fn void_promises(&mut self) -> Outcome {
        if self.settings.durability == Durability::DiskFirst {
            return Err("what a majority's disks hold is never void".into());
        }
        self.decided.clear();
        Ok(())
    }

    /// A connection breaks and is made again; what was on the way in it is gone.
    pub fn reconnect(&mut self, one: NodeId, other: NodeId) -> Outcome {
        self.network.retain(|letter| (letter.from, letter.to) != (one, other));
        self.network.retain(|letter| (letter.from, letter.to) != (other, one));
        self.connect(one, other)?;
        self.feed(other, Input::Disconnected(one))
    }

    /// Memory is gone; the first `surviving` of the writes under way reach the disk.
    pub fn crash(&mut self, id: NodeId, surviving: usize) -> Outcome {
        let durability = self.settings.durability;
        let member = self.member(id)?;
        if member.node.is_none() {
            return Err(format!("node {id} does not run"));
        }
        for write in member.writing.iter().take(surviving) {
            member.disk.write(write)?;
        }
        member.forget();
        // What a former life said is not heard later: this the memory-first mode relies on.
        if durability == Durability::MemFirst {
            self.network.retain(|letter| letter.from != id && letter.to != id);
        }
        Ok(())
    }

    pub fn call(&mut self, id: NodeId, what: &str) -> Ticket {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        self.detail(format!("{id} is asked: {what} (call {})", ticket.0));
        ticket
    }

    pub fn feed(&mut self, id: NodeId, input: Input) -> Outcome {
        let global = self.now;
        let member = self.member(id)?;
        let now = member.clock.read(global);
        let node = member.node.as_mut().ok_or_else(|| format!("node {id} does not run"))?;
        node.handle(now, input);
        if self.gathering {
            self.gathered.insert(id);
            return Ok(());
        }
        self.drain(id)
    }

    /// Ends the turn of everybody who was handed something.
    pub fn end_turn(&mut self) -> Outcome {
        self.gathering = false;
        std::mem::take(&mut self.gathered).into_iter().try_for_each(|id| self.drain(id))
    }

    fn drain(&mut self, id: NodeId) -> Outcome {
        while let Some(output) = self.node(id)?.poll_output() {
            self.take_output(id, output)?;
        }
        self.judge(id)
    }

    fn take_output(&mut self, id: NodeId, output: Output<d_engine::kv::Store>) -> Outcome {
        match output {
            Output::Write(write) => self.hand_to_disk(id, write)?,
            Output::Send { to, message } => {
                if matches!(message, Message::Forwarded(_)) {
                    self.judge(id)?;
                }
                self.send(id, to, message)?;
            }
            Output::Knock(_) => {}
            Output::Fetch(fetch) => {
                self.detail(format!("{id} reads its disk from {} for {}", fetch.from, fetch.peer));
                self.member(id)?.fetching.push_back(fetch);
            }
            Output::Answers(answers) => {
                self.judge(id)?;
                for answer in answers {
                    let seen = self.node(id)?.machine().revision().0;
                    let at = if matches!(answer.outcome, Ok(d_engine::node::Reply::Readable)) {
                        format!(" at revision {seen}")
                    } else {
                        String::new()
                    };
                    let outcome = words::answer(&answer.outcome);
                    self.say(format!("{id} answers call {}: {outcome}{at}", answer.ticket.0));
                }
            }
            Output::Leadership(leadership) => {
                self.say(format!("{id} {}", words::leadership(leadership)));
                if leadership.role == RoleName::Leader {
                    let first = *self.leaders.entry(leadership.term).or_insert(id);
                    if first != id {
                        return Err(format!("two leaders in term {}: {first} and {id}", leadership.term));
                    }
                }
            }
            Output::Submit => {}
            Output::Halt(why) => {
                self.member(id)?.halted = true;
                self.say(format!("{id} halts: {}", words::halt(&why)));
            }
        }
        Ok(())
    }

    fn hand_to_disk(&mut self, id: NodeId, write: d_engine::raft::Write) -> Outcome {
        let plan = write.plan();
        let member = self.member(id)?;
        let mut parts: Vec<String> = plan.hard_state.map(words::hard_state).into_iter().collect();
        if let Some(state) = plan.hard_state
            && state.promise != member.disk.hard_state.promise
        {
            parts.push(format!("keeps to a leader for {}", words::span(state.promise)));
        }
        if let (Some(first), Some(last)) = (plan.frames.first(), plan.frames.last()) {
            let entries = words::entries(&plan.frames);
            let replaced = member.seen_last >= first.index();
            parts.push(if replaced { format!("{entries} in place of what was there") } else { entries });
            member.seen_last = last.index();
        }
        if parts.is_empty() {
            parts.push("nothing new, promises wait for the writes before".into());
        }
        member.writing.push_back(write);
        self.detail(format!("{id} writes {}", parts.join("; ")));
        Ok(())
    }

    fn send(&mut self, from: NodeId, to: NodeId, message: Message) -> Outcome {
        if let Message::Raft(raft) = &message
            && let Body::Candidacy(Candidacy { election: Election::PreVote, .. }) = raft.body
        {
            self.member(from)?.candidacies += 1;
        }
        let lost = self.cut.contains(&(from, to));
        let mark = if lost { " (lost)" } else { "" };
        self.detail(format!("{from}->{to} {}{mark}", words::message(&message)));
        if !lost {
            self.network.push(Letter { from, to, message });
        }
        Ok(())
    }

    /// Hands a message to its receiver, through the wire's encoding.
    pub fn deliver(&mut self, position: usize) -> Outcome {
        let Letter { from, to, message } = self.network.remove(position);
        if self.cut.contains(&(from, to)) || !self.members[&to].is_awake() {
            self.detail(format!("{from}->{to} lost: {}", words::message(&message)));
            return Ok(());
        }
        let mut parts = Vec::new();
        wire::encode(&message, &mut parts);
        let bytes: Bytes = parts.concat().into();
        let message = wire::decode(bytes).map_err(|error| format!("a message cannot be read: {error}"))?;
        self.feed(to, Input::Message { from, message })
    }

    /// Flushes the oldest writes of a node.
    pub fn flush(&mut self, id: NodeId, count: usize) -> Outcome {
        let count = count.min(self.member(id)?.writing.len());
        for _ in 0..count {
            let member = self.member(id)?;
            let write = member.writing.pop_front().expect("counted, and a flush takes none away");
            member.disk.write(&write)?;
            let (last, hard) = (member.disk.last(), words::hard_state(member.disk.hard_state));
            self.detail(format!("{id} flushed: {hard}; log to {last}"));
            let proof = Flushed::simulated(write.id());
            self.feed(id, Input::Written(write.flushed(proof)))?;
        }
        Ok(())
    }

    /// Answers the oldest read of old entries.
    pub fn fetched(&mut self, id: NodeId) -> Outcome {
        let member = self.member(id)?;
        let fetch = member.fetching.pop_front().ok_or_else(|| format!("node {id} reads nothing"))?;
        let frames = member.disk.from(fetch.from, fetch.max_bytes);
        self.feed(id, Input::Fetched { peer: fetch.peer, frames })
    }

    /// Delivers, flushes and reads until nothing is left to do. Messages go first, oldest first.
    pub fn settle(&mut self) -> Outcome {
        for _ in 0..20_000 {
            let waits = |letter: &Letter| {
                self.held.contains(&(letter.from, letter.to)) || self.members[&letter.to].pace == Pace::Paused
            };
            if let Some(next) = self.network.iter().position(|letter| !waits(letter)) {
                self.deliver(next)?;
                continue;
            }
            let mut awake = self.members.values().filter(|member| member.is_awake());
            if let Some(id) = awake.clone().find(|member| !member.writing.is_empty()).map(|m| m.id) {
                self.flush(id, 1)?;
            } else if let Some(id) = awake.find(|member| !member.fetching.is_empty()).map(|m| m.id) {
                self.fetched(id)?;
            } else {
                return Ok(());
            }
        }
        Err("it never becomes quiet".into())
    }

    /// Lets time pass. Timers fire when they are due; between them everything settles, if it may.
    pub fn pass(&mut self, span: u64, between: fn(&mut Self) -> Outcome) -> Outcome {
        let until = self.now + span;
        between(self)?;
        for _ in 0..20_000 {
            let awake = self.members.values().filter(|member| member.is_awake());
            let next =
                awake.filter_map(|member| Some((whole_millis(member.due()?).max(self.now), member.id))).min();
            let Some((at, id)) = next.filter(|&(at, _)| at <= until) else {
                self.now = until;
                self.heading = None;
                return Ok(());
            };
            self.now = at;
            let clock = self.members[&id].clock.read(at).mono;
            self.heading = (self.telling == Telling::Everything).then(|| format!("at {}", shown(clock)));
            self.feed(id, Input::Timeout)?;
            between(self)?;
        }
        Err("timers fire without end".into())
    }

    /// What no schedule may break: what one node decides, all decide (State Machine Safety).
    fn judge(&mut self, id: NodeId) -> Outcome {
        let member = self.member(id)?;
        let seen = member.seen_commit;
        let Some(node) = &member.node else { return Ok(()) };
        let commit = node.raft().commit();
        let log = node.raft().log();
        let ids: Vec<_> = (seen.0 + 1..=commit.0).filter_map(|index| log.id_at(LogIndex(index))).collect();
        member.seen_commit = commit;
        if commit > seen {
            let applied = member.node.as_ref().map_or(commit, |node| node.status().applied);
            let behind = if applied == commit { "" } else { ", not yet applied" };
            self.detail(format!("{id} commits {commit}{behind}"));
        }
        for entry in ids {
            let first = *self.decided.entry(entry.index).or_insert(entry);
            if first != entry {
                return Err(format!("node {id} decides {entry:?}, another decided {first:?}"));
            }
        }
        Ok(())
    }
}

/// Timers fire on the next whole millisecond: a little late, as everywhere, and easy to read.
pub fn whole_millis(nanos: u64) -> u64 {
    nanos.next_multiple_of(1_000_000)
}
