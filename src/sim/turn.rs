//! A node's loop, as a driver: inputs in, outputs carried out, in the order of `runtime/turn.rs`.

use super::disk::Finished;
use super::fault::Fault;
use super::member::Process;
use super::observation::{End, Instant, Observation, Violation};
use super::oracle::Mark;
use super::world::{Event, Phase, World};
use crate::node::{Input, Message, Output};
use crate::raft::RoleName;
use wal::{LogEvent, NodeId};

/// What is taken in one turn, at most.
const INPUTS: usize = 64;

/// How the carrying out of a node's outputs ended.
enum Carried {
    /// All of them are out.
    All,
    /// The loop is busy applying entries; the rest follows.
    Applying,
    /// The node is no more.
    Ended,
}

impl World {
    pub(super) fn turn(&mut self, id: NodeId) -> Result<(), Violation> {
        let member = self.members.get_mut(&id).expect("a member of the run");
        if member.turn_at != Some(self.now) {
            // An earlier turn took its place: nothing happens.
            self.events -= 1;
            return Ok(());
        }
        member.turn_at = None;
        if member.process != Process::Running {
            return Ok(());
        }
        let now = member.clock.now(self.now);
        let Some(node) = &mut member.node else { return Ok(()) };
        for _ in 0..INPUTS {
            let Some(input) = member.inbox.pop_front() else { break };
            node.handle(now, input);
        }
        if node.poll_timeout().is_some_and(|due| due <= now.mono) {
            node.handle(now, Input::Timeout);
        }
        self.mark_if_idle(id);
        self.carry_out_and_rest(id)
    }

    /// A log that has been idle for a while marks its end.
    fn mark_if_idle(&mut self, id: NodeId) {
        let (now, idle) = (self.now, self.plan.idle);
        let member = self.members.get_mut(&id).expect("a member of the run");
        if member.mark_at.take_if(|at| *at <= now).is_none() {
            return;
        }
        if !member.writes.is_empty() {
            member.mark_at = Some(Instant(now.0 + idle));
        } else if member.disk.mark() {
            self.judges.mark(Mark::IdleMarked);
        }
    }

    /// Entries are applied: what follows from them comes out.
    pub(super) fn applied(&mut self, id: NodeId, life: u64) -> Result<(), Violation> {
        let member = self.member(id);
        if member.life != life || member.process != Process::Applying {
            return Ok(());
        }
        member.process = Process::Running;
        self.carry_out_and_rest(id)
    }

    fn carry_out_and_rest(&mut self, id: NodeId) -> Result<(), Violation> {
        match self.carry_out(id)? {
            Carried::Ended | Carried::Applying => return Ok(()),
            Carried::All => {}
        }
        self.submit(id);
        let member = self.members.get_mut(&id).expect("a member of the run");
        let node = member.node.as_ref().expect("it has just taken a turn");
        let raft = node.raft();
        for number in [id.0, raft.term().0, raft.commit().0, raft.log().last().index.0, node.applied().0] {
            self.story.note(number);
        }
        self.judges.observe(self.now, &Observation::Stepped { node, disk: member.disk.truth() })?;
        let more = !member.inbox.is_empty();
        let due = node.poll_timeout();
        let at = if more {
            Some(Instant(self.now.0 + self.dice.between(self.plan.turn.0, self.plan.turn.1)))
        } else {
            let due = due.and_then(|due| member.clock.when(due, Instant(self.now.0 + 1)));
            let mark = member.mark_at.map(|at| at.max(Instant(self.now.0 + 1)));
            [due, mark].into_iter().flatten().min()
        };
        if let Some(at) = at {
            self.wake(id, at);
        }
        Ok(())
    }

    fn carry_out(&mut self, id: NodeId) -> Result<Carried, Violation> {
        loop {
            let member = self.members.get_mut(&id).expect("a member of the run");
            let Some(output) = member.node.as_mut().and_then(crate::node::Node::poll_output) else {
                return Ok(Carried::All);
            };
            if self.dies_now(id) {
                self.end_life(id, &End::Killed)?;
                self.start_later(id, 300_000_000);
                return Ok(Carried::Ended);
            }
            let member = self.members.get_mut(&id).expect("a member of the run");
            match output {
                Output::Write(write) => {
                    member.disk.submit(write.plan());
                    member.writes.push_back(write);
                    member.mark_at = Some(Instant(self.now.0 + self.plan.idle));
                }
                Output::Send { to, message } => self.send(id, to, message)?,
                Output::Knock(leader) => self.knock(id, leader),
                Output::Fetch(fetch) => {
                    let wanted =
                        wal::Fetch { token: fetch.peer.0, from: fetch.from, max_bytes: fetch.max_bytes };
                    let life = member.life;
                    member.disk.fetch(wanted);
                    self.story.tell(self.now, || {
                        format!("node {id} reads entry {} for node {}", fetch.from, fetch.peer)
                    });
                    let at = Instant(self.now.0 + self.dice.between(50_000, 2_000_000));
                    self.schedule.add(at, Event::Read { id, life });
                }
                Output::Submit => {
                    self.submit(id);
                    if self.starts_applying(id) {
                        return Ok(Carried::Applying);
                    }
                }
                Output::Answers(answers) => {
                    for answer in answers {
                        self.answer(id, answer)?;
                    }
                }
                Output::Leadership(leadership) => {
                    if leadership.role == RoleName::Leader {
                        self.note_elected(id);
                    }
                    if leadership.role != RoleName::Follower {
                        self.story.tell(self.now, || {
                            format!("node {id} is {:?} of term {}", leadership.role, leadership.term)
                        });
                    }
                }
                Output::Halt(why) => {
                    self.end_life(id, &End::Halted(why.to_string()))?;
                    self.start_later(id, 500_000_000);
                    return Ok(Carried::Ended);
                }
            }
        }
    }

    /// A kernel answers for a process that is gone, unless the answer is lost; now and then it says so of one that is there,
    /// as a firewall would.
    fn knock(&mut self, id: NodeId, leader: NodeId) {
        let there = self.members[&leader].is_up();
        let heard = self.network.carries(id, leader) && self.network.carries(leader, id);
        let lies = self.phase != Phase::Healing && self.dice.chance(self.plan.false_hints);
        if (!there && heard) || lies {
            self.judges.mark(if there { Mark::FalselyGone } else { Mark::TrulyGone });
            if there {
                self.injected.count(Fault::FalseHint);
            }
            self.story
                .tell(self.now, || format!("node {id} hears that nobody listens where node {leader} was"));
            self.feed(id, Input::Gone(leader));
        }
    }

    /// Whether a death that was ordered comes before this effect.
    fn dies_now(&mut self, id: NodeId) -> bool {
        let Some(left) = self.members[&id].dies_after else { return false };
        let dies = left == 0 && self.may_forget(id);
        self.member(id).dies_after = left.checked_sub(1);
        dies
    }

    /// The lease is published, and the disk begins what it was given.
    fn submit(&mut self, id: NodeId) {
        let member = self.members.get_mut(&id).expect("a member of the run");
        if let Some(node) = &member.node {
            member.lease = node.lease();
        }
        self.kick(id);
    }

    fn starts_applying(&mut self, id: NodeId) -> bool {
        let (least, most) = self.plan.apply;
        if most <= 100_000 || !self.dice.chance(200_000) {
            return false;
        }
        let at = Instant(self.now.0 + self.dice.between(least, most));
        let member = self.members.get_mut(&id).expect("a member of the run");
        member.process = Process::Applying;
        let life = member.life;
        self.schedule.add(at, Event::Applied { id, life });
        true
    }

    fn send(&mut self, id: NodeId, to: NodeId, message: Message) -> Result<(), Violation> {
        let member = &self.members[&id];
        let node = member.node.as_ref().expect("it sends");
        let sent = Observation::Sent { node, to, message: &message, disk: member.disk.truth() };
        self.judges.observe(self.now, &sent)?;
        // As the transport does it: nothing goes out on a connection that the node has not heard of.
        let heard_of =
            !member.inbox.iter().any(|input| matches!(input, Input::Connected(peer) if *peer == to));
        let schedule = &mut self.schedule;
        let refused = if heard_of {
            self.network.send(self.now, (id, to), message, |at, parcel| {
                schedule.add(at, Event::Deliver(Box::new(parcel)));
            })
        } else {
            Err(message)
        };
        if let Err(message) = refused {
            let member = self.members.get_mut(&id).expect("a member of the run");
            let now = member.clock.now(self.now);
            member.node.as_mut().expect("it sends").handle(now, Input::NotSent { to, message });
        }
        Ok(())
    }

    /// Starts the disk's next write, if none is on its way.
    pub(super) fn kick(&mut self, id: NodeId) {
        let hasty = self.phase == Phase::Healing;
        let fails = !hasty && self.wants_write_error(id);
        let member = self.members.get_mut(&id).expect("a member of the run");
        if member.disk_busy {
            return;
        }
        if !member.disk.start() {
            // What needed no write is done all the same.
            return self.take_log_events(id);
        }
        member.disk_busy = true;
        member.disk_job += 1;
        if fails {
            member.disk.fail_next();
        }
        let (least, most) = self.plan.flush;
        let took = self.dice.between(least, most) + if hasty { 0 } else { member.slow_by };
        let at = Instant((self.now.0 + took).max(if hasty { 0 } else { member.hung_until.0 }));
        self.schedule.add(at, Event::Disk { id, job: member.disk_job });
    }

    pub(super) fn disk_done(&mut self, id: NodeId, job: u64) -> Result<(), Violation> {
        let member = self.members.get_mut(&id).expect("a member of the run");
        if member.disk_job != job {
            return Ok(());
        }
        member.disk_busy = false;
        let rotated = member.disk.finish() == Finished::Rotation;
        if rotated {
            self.judges.mark(Mark::Rotated);
        }
        self.take_log_events(id);
        self.kick(id);
        Ok(())
    }

    pub(super) fn read_done(&mut self, id: NodeId, life: u64) {
        if self.members[&id].life != life || !self.members[&id].is_up() {
            return;
        }
        let fails = self.read_fails(id);
        self.member(id).disk.serve(fails);
        self.take_log_events(id);
    }

    fn take_log_events(&mut self, id: NodeId) {
        while let Some(event) = self.member(id).disk.poll_event() {
            match event {
                LogEvent::Flushed(proof) => {
                    while self.members[&id].writes.front().is_some_and(|write| write.id() <= proof.id()) {
                        let write = self.member(id).writes.pop_front().expect("just seen");
                        self.feed(id, Input::Written(write.flushed(proof)));
                    }
                }
                LogEvent::Fetched { token, frames } => {
                    self.feed(id, Input::Fetched { peer: NodeId(token), frames });
                }
                LogEvent::FetchFailed { error: error @ wal::FetchError::Damaged { .. }, .. } => {
                    self.story.tell(self.now, || format!("node {id} meets damage: {error}"));
                    self.feed(id, Input::Damaged(error.to_string()));
                }
                LogEvent::FetchFailed { token, error } => {
                    self.story.tell(self.now, || format!("node {id} cannot read old entries: {error}"));
                    self.feed(id, Input::Fetched { peer: NodeId(token), frames: Vec::new() });
                }
                LogEvent::Failed(error) => {
                    self.story.tell(self.now, || format!("the log of node {id} fails: {error}"));
                    self.feed(id, Input::LogFailed(error.to_string()));
                }
                other => unreachable!("the log of this version does not say {other:?}"),
            }
        }
    }
}
