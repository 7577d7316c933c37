//! What brings the faults about: each kind that a run has comes back after a random time, until the healing phase.

use super::disk::{Clean, Interrupted, ReadFails};
use super::fault::Fault;
use super::member::Process;
use super::observation::{Ask, End, Instant, Violation};
use super::world::{Event, Phase, World, draw_rate};
use crate::node::Pace;
use wal::NodeId;

const MS: u64 = Instant::MILLISECOND;

impl World {
    /// The first of each kind.
    pub(super) fn schedule_faults(&mut self) {
        let kinds: Vec<_> = self.plan.faults.iter().map(|(&fault, &mean)| (fault, mean)).collect();
        for (fault, mean) in kinds {
            if mean != u64::MAX {
                let at = Instant(self.now.0 + self.nemesis.wait(mean));
                self.schedule.add(at, Event::Fault(fault));
            }
        }
    }

    pub(super) fn fault_due(&mut self, fault: Fault) -> Result<(), Violation> {
        if self.phase == Phase::Healing {
            return Ok(());
        }
        let mean = self.plan.faults[&fault];
        let next = Instant(self.now.0 + 1 + self.nemesis.wait(mean));
        self.schedule.add(next, Event::Fault(fault));
        self.actions += 1;
        let action = self.actions;
        // The dice are thrown whether or not the action is left out.
        let target = NodeId(self.nemesis.between(1, self.plan.members));
        let at_the_leader = self.nemesis.below(5) < 2;
        let length = self.nemesis.wait(400 * MS);
        if self.orders.skip.contains(&action) {
            return Ok(());
        }
        let target = self.leader().filter(|_| at_the_leader).unwrap_or(target);
        if self.act(fault, target, length)? {
            self.injected.count(fault);
            self.story.note(fault as u64);
            self.story.tell(self.now, || {
                let ms = length / MS;
                format!("fault #{action}: {fault} (node {target}, {ms} ms)")
            });
        }
        Ok(())
    }

    /// Brings a fault about; false if there was nothing to bring it about on.
    fn act(&mut self, fault: Fault, target: NodeId, length: u64) -> Result<bool, Violation> {
        match fault {
            Fault::Loss
            | Fault::Duplicate
            | Fault::Replay
            | Fault::Reorder
            | Fault::Drift
            | Fault::MixedHeartbeats
            | Fault::FalseHint => Ok(false),
            Fault::SlowLine => {
                let other = self.other(target);
                self.network.slow_down((target, other), self.nemesis.clone().between(20, 800) * MS);
                self.schedule.add(Instant(self.now.0 + 2 * length), Event::Quicken);
                Ok(other != target)
            }
            Fault::Reset => {
                let other = self.other(target);
                self.reset(target, other, length);
                Ok(other != target)
            }
            Fault::OneWay if self.nemesis.coin() => Ok(self.deafen(length)),
            Fault::Partition | Fault::Isolate | Fault::OneWay | Fault::Ring | Fault::Bridge => {
                Ok(self.cut_lines(fault, target, length))
            }
            Fault::IsolateLeader => Ok(self.isolate_the_leader(length)),
            Fault::Kill
            | Fault::PowerCut
            | Fault::Flicker
            | Fault::KillAtEffect
            | Fault::CrashLoop
            | Fault::PowerCutAll
            | Fault::Close => self.end_lives(fault, target, length),
            Fault::StrikeNewLeader => {
                self.strikes += 1;
                Ok(true)
            }
            Fault::Pause => Ok(self.pause(target, length)),
            Fault::LeaseEdge => Ok(self.pause_at_the_lease_edge()),
            Fault::WallJump => {
                let off =
                    i64::try_from(self.nemesis.below(400_000_000_000)).expect("small") - 200_000_000_000;
                let off = if self.nemesis.coin() { off / 10_000_000 } else { off };
                self.member(target).clock.set_wall(off);
                Ok(true)
            }
            Fault::ClockLeap | Fault::ClockFreeze => Ok(self.break_clock(fault, target, length)),
            Fault::WriteError | Fault::FlushError | Fault::ReadError => {
                if fault != Fault::ReadError && !self.may_forget(target) {
                    return Ok(false);
                }
                let up = self.members[&target].is_up();
                self.member(target).disk.arm(fault);
                Ok(up)
            }
            Fault::SlowFlush => {
                self.member(target).slow_by = self.nemesis.clone().between(5, 300) * MS;
                self.schedule.add(Instant(self.now.0 + 2 * length), Event::QuickDisk(target));
                Ok(true)
            }
            Fault::HungFlush => {
                self.member(target).hung_until = Instant(self.now.0 + 4 * length);
                Ok(true)
            }
            Fault::Flip | Fault::Zero | Fault::Stale | Fault::Misdirect => Ok(self.damage(fault, target)),
            Fault::Transfer => self.hand_over(target),
            Fault::Contradict => Ok(self.contradict(target)),
            Fault::Retune => Ok(self.retune(target)),
        }
    }

    /// A node goes at a pace that has nothing to do with the one before. Limits stay: nothing is refused for it.
    fn retune(&mut self, id: NodeId) -> bool {
        let pace = Pace {
            batch_bytes: self.nemesis.pick(&[1, 64, 256, 1 << 10, 8 << 10]),
            batches_in_flight: self.nemesis.pick(&[1, 2, 8, 64]),
            in_flight_bytes: self.nemesis.pick(&[1, 512, 4 << 10, 1 << 20]),
        };
        let member = self.member(id);
        let Some(node) = member.node.as_mut().filter(|_| member.process == Process::Running) else {
            return false;
        };
        node.set_pace(pace);
        self.story.tell(self.now, || format!("node {id} goes on at {pace:?}"));
        self.wake(id, Instant(self.now.0 + 1));
        true
    }

    fn leader(&self) -> Option<NodeId> {
        self.members.iter().find(|(_, member)| member.leads()).map(|(&id, _)| id)
    }

    /// A node was elected: if a strike is due, it comes a few messages later.
    pub(super) fn note_elected(&mut self, id: NodeId) {
        if self.phase == Phase::Healing || self.strikes == 0 {
            return;
        }
        self.strikes -= 1;
        let life = self.members[&id].life;
        let after = self.nemesis.below(6 * (self.plan.lines.delay.1 + self.plan.flush.1));
        self.schedule.add(Instant(self.now.0 + after), Event::Strike { id, life });
    }

    pub(super) fn strike(&mut self, id: NodeId, life: u64) -> Result<(), Violation> {
        if self.members[&id].life != life || self.phase == Phase::Healing {
            return Ok(());
        }
        let length = self.nemesis.wait(600 * MS);
        let hit = match self.nemesis.below(4) {
            0 => self.pause(id, length),
            1 => self.cut_lines(Fault::Isolate, id, length),
            n => {
                let fault = if n == 2 { Fault::Kill } else { Fault::PowerCut };
                self.end_lives(fault, id, length)?
            }
        };
        if hit {
            self.story.tell(self.now, || format!("the new leader {id} is struck"));
        }
        Ok(())
    }

    pub(super) fn other(&mut self, id: NodeId) -> NodeId {
        let count = self.plan.members;
        if count == 1 {
            return id;
        }
        let step = self.nemesis.between(1, count - 1);
        NodeId((id.0 - 1 + step) % count + 1)
    }

    fn reset(&mut self, one: NodeId, other: NodeId, length: u64) {
        if one == other {
            return;
        }
        self.drop_connection(one, other);
        let at = Instant(self.now.0 + if self.nemesis.coin() { 1_000 } else { length });
        self.schedule.add(at, Event::Connect(one, other));
    }

    fn cut_lines(&mut self, fault: Fault, target: NodeId, length: u64) -> bool {
        let ids = self.ids();
        if ids.len() < 2 {
            return false;
        }
        let mut side: Vec<_> = ids.iter().map(|_| self.nemesis.coin()).collect();
        let count = ids.len();
        if fault == Fault::Partition && self.nemesis.coin() {
            // As many as can be without being a majority, the target among them.
            let mut left = (count - 1) / 2;
            for (side, &id) in side.iter_mut().zip(&ids) {
                *side = id == target || (left > 1 && self.nemesis.coin());
                left -= usize::from(*side && id != target).min(left);
            }
        }
        let hears = |one: usize, other: usize| match fault {
            Fault::Isolate => ids[one] != target && ids[other] != target,
            Fault::OneWay => ids[one] != target || !side[other],
            Fault::Ring => (one + 1) % count == other || (other + 1) % count == one,
            Fault::Bridge => ids[one] == target || ids[other] == target || side[one] == side[other],
            _ => side[one] == side[other],
        };
        let mut cut = false;
        for one in 0..count {
            for other in 0..count {
                if one != other && !hears(one, other) {
                    self.network.block((ids[one], ids[other]));
                    cut = true;
                }
            }
        }
        let longer = if self.nemesis.below(5) == 0 { 8 } else { 2 };
        self.schedule.add(Instant(self.now.0 + longer * length), Event::Unblock);
        cut
    }

    /// The old leader goes on with its clients for as long as it may, while the others look for another.
    fn isolate_the_leader(&mut self, length: u64) -> bool {
        let Some(leader) = self.leader() else { return false };
        let election = u64::try_from(self.plan.knobs.election_timeout.as_nanos()).expect("short");
        let now = self.now;
        if self.plan.faults.contains_key(&Fault::ClockLeap) {
            for id in self.ids().into_iter().filter(|&id| id != leader) {
                self.member(id).clock.leap(now, 2 * election);
                if self.members[&id].is_up() {
                    self.wake(id, Instant(now.0 + 1));
                }
            }
        }
        if self.plan.faults.contains_key(&Fault::Drift) {
            // Within the bound, and as bad as it can be: the old leader's time passes slowly, the others' fast.
            for id in self.ids() {
                let drift = self.plan.drift;
                let rate = if id == leader { 1_000_000 - drift } else { 1_000_000 + drift };
                self.member(id).clock.set_rate(now, rate);
                if self.members[&id].is_up() {
                    self.wake(id, Instant(now.0 + 1));
                }
            }
        }
        self.cut_lines(Fault::Isolate, leader, election + length)
    }

    /// One follower does not hear the leader any more, and is heard itself. Where nodes flicker, the others do so when it
    /// asks for their votes: what they promised the leader must outlast that.
    fn deafen(&mut self, length: u64) -> bool {
        let Some(leader) = self.leader() else { return false };
        let deaf = self.other(leader);
        if deaf == leader {
            return false;
        }
        let election = u64::try_from(self.plan.knobs.election_timeout.as_nanos()).expect("short");
        self.network.block((leader, deaf));
        self.schedule.add(Instant(self.now.0 + 3 * election + length), Event::Unblock);
        if self.plan.faults.contains_key(&Fault::Flicker) {
            for id in self.ids().into_iter().filter(|&id| id != leader && id != deaf) {
                let at = Instant(self.now.0 + self.nemesis.between(election, 2 * election));
                let life = self.members[&id].life;
                self.schedule.add(at, Event::Die { id, life });
            }
        }
        true
    }

    fn end_lives(&mut self, fault: Fault, target: NodeId, length: u64) -> Result<bool, Violation> {
        let up = self.members[&target].is_up();
        match fault {
            Fault::PowerCutAll => {
                for id in self.ids() {
                    self.end_life(id, &End::PowerCut)?;
                    let soon = self.nemesis.below(300 * MS);
                    self.start_later(id, soon);
                }
                return Ok(true);
            }
            Fault::Close => {
                let member = self.member(target);
                let running = member.process == Process::Running;
                let orderly = member.remembers() && running && !member.disk.is_armed_for_write();
                if !orderly {
                    return Ok(false);
                }
                self.close(target)?;
                self.start_later(target, length);
                return Ok(true);
            }
            _ => {}
        }
        if !up || !self.may_forget(target) {
            return Ok(false);
        }
        // Some come back before anybody has missed them.
        let length = if self.nemesis.below(3) == 0 { self.nemesis.below(5 * MS) } else { length };
        match fault {
            Fault::Flicker => {
                if self.members[&target].leads() {
                    return Ok(false);
                }
                self.end_life(target, &End::Killed)?;
                self.start_later(target, MS / 2);
            }
            Fault::KillAtEffect => {
                let after = u32::try_from(self.nemesis.below(8)).expect("small");
                self.member(target).dies_after = Some(after);
            }
            Fault::CrashLoop => {
                self.member(target).dies_again = u32::try_from(self.nemesis.between(2, 6)).expect("small");
                self.end_life(target, &End::Killed)?;
                self.start_later(target, 10 * MS);
            }
            Fault::PowerCut => {
                self.end_life(target, &End::PowerCut)?;
                self.start_later(target, length);
            }
            _ => {
                self.end_life(target, &End::Killed)?;
                self.start_later(target, length);
            }
        }
        Ok(true)
    }

    /// An orderly end: callers are answered, the log is made whole and marked so.
    fn close(&mut self, id: NodeId) -> Result<(), Violation> {
        let member = self.member(id);
        let Some(node) = &mut member.node else { return Ok(()) };
        node.stop();
        let mut answers = Vec::new();
        while let Some(output) = node.poll_output() {
            if let crate::node::Output::Answers(some) = output {
                answers.extend(some);
            }
        }
        let clean = if node.may_stop_cleanly() { Clean::Yes } else { Clean::No };
        member.disk.close(clean);
        for answer in answers {
            self.answer(id, answer)?;
        }
        self.end_life(id, &End::Closed)
    }

    pub(super) fn start_later(&mut self, id: NodeId, after: u64) {
        let member = self.members.get_mut(&id).expect("a member of the run");
        if !member.starting && !member.refused {
            member.starting = true;
            self.schedule.add(Instant(self.now.0 + 1 + after), Event::Start(id));
        }
    }

    /// In a crash loop, a start is soon followed by another end.
    pub(super) fn die_again(&mut self, id: NodeId) {
        if self.phase == Phase::Healing || self.members[&id].dies_again == 0 || !self.may_forget(id) {
            return;
        }
        let after = self.nemesis.below(60 * MS);
        let member = self.member(id);
        member.dies_again -= 1;
        let life = member.life;
        self.schedule.add(Instant(self.now.0 + after), Event::Die { id, life });
    }

    /// A death that was ordered; the process is there again soon.
    pub(super) fn die(&mut self, id: NodeId, life: u64) -> Result<(), Violation> {
        let dies = self.phase == Phase::Safety && self.members[&id].life == life && self.may_forget(id);
        if dies {
            self.end_life(id, &End::Killed)?;
            let soon = self.nemesis.below(2 * MS);
            self.start_later(id, soon);
        }
        Ok(())
    }

    fn pause(&mut self, id: NodeId, length: u64) -> bool {
        let member = self.members.get_mut(&id).expect("a member of the run");
        if member.process != Process::Running {
            return false;
        }
        member.process = Process::Paused;
        let life = member.life;
        self.schedule.add(Instant(self.now.0 + 1 + length), Event::Resume { id, life });
        true
    }

    /// The leader stands still and wakes when its lease is about to end, or just has.
    fn pause_at_the_lease_edge(&mut self) -> bool {
        let Some((&id, member)) =
            self.members.iter().find(|(_, member)| member.leads() && member.lease.is_some())
        else {
            return false;
        };
        let until = member.lease.expect("just seen");
        let Some(edge) = member.clock.when(until, self.now) else { return false };
        let wide = u64::try_from(self.plan.knobs.election_timeout.as_nanos()).expect("short") / 4;
        let shift = self.nemesis.below(wide);
        let at = if self.nemesis.coin() { edge.0 + shift } else { edge.0.saturating_sub(shift / 8) };
        self.pause(id, at.saturating_sub(self.now.0).min(20_000 * MS))
    }

    pub(super) fn resume(&mut self, id: NodeId, life: u64) {
        let member = self.member(id);
        if member.life == life && member.process == Process::Paused {
            member.process = Process::Running;
            self.wake(id, Instant(self.now.0 + 1));
        }
    }

    fn break_clock(&mut self, fault: Fault, id: NodeId, length: u64) -> bool {
        let now = self.now;
        let member = self.member(id);
        if fault == Fault::ClockLeap {
            member.clock.leap(now, 4 * length);
            if member.is_up() {
                self.wake(id, Instant(now.0 + 1));
            }
        } else {
            member.clock.set_rate(now, 0);
            self.schedule.add(Instant(now.0 + 1 + 2 * length), Event::Thaw(id));
        }
        true
    }

    pub(super) fn thaw(&mut self, id: NodeId) {
        let now = self.now;
        let rate = draw_rate(&mut self.dice, self.plan.drift);
        let member = self.member(id);
        member.clock.set_rate(now, rate);
        if member.is_up() {
            self.wake(id, Instant(now.0 + 1));
        }
    }

    fn damage(&mut self, fault: Fault, target: NodeId) -> bool {
        if !self.plan.victims.contains(&target.0) {
            return false;
        }
        let member = self.members.get_mut(&target).expect("a member of the run");
        let Some(done) = member.disk.damage(fault, &mut self.nemesis) else { return false };
        self.story.tell(self.now, || format!("node {target}'s disk: {done}"));
        true
    }

    /// Some client that has nothing else to do asks the leader to hand over.
    fn hand_over(&mut self, to: NodeId) -> Result<bool, Violation> {
        let leader = self.leader();
        let idle = self.clients.iter().position(|client| client.is_idle());
        let (Some(leader), Some(client)) = (leader, idle) else { return Ok(false) };
        self.clients[client].at = leader;
        self.ask(client, Ask::Transfer { to })?;
        Ok(true)
    }

    pub(super) fn wants_write_error(&mut self, id: NodeId) -> bool {
        self.members[&id].disk.is_armed_for_write() && self.may_forget(id)
    }

    pub(super) fn read_fails(&mut self, id: NodeId) -> ReadFails {
        match self.phase {
            Phase::Safety => self.member(id).disk.take_read_error(),
            Phase::Healing => ReadFails::No,
        }
    }

    /// Whether a process dies while it opens its log.
    pub(super) fn interrupts_opening(&mut self, id: NodeId) -> Interrupted {
        let loops = self.plan.faults.contains_key(&Fault::CrashLoop);
        let may = self.phase == Phase::Safety && loops && self.may_forget(id);
        if may && self.nemesis.below(4) == 0 { Interrupted::OnTheWay } else { Interrupted::Never }
    }

    /// Everything that is wrong with a machine is put right.
    pub(super) fn mend(&mut self, id: NodeId) {
        let now = self.now;
        let wild = self.plan.has_wild_clocks();
        let member = self.members.get_mut(&id).expect("a member of the run");
        member.hung_until = Instant(0);
        member.slow_by = 0;
        member.dies_after = None;
        member.dies_again = 0;
        member.disk.disarm();
        let hanging = member.disk_busy;
        if hanging {
            // What hung returns.
            member.disk_job += 1;
            let job = member.disk_job;
            self.schedule.add(Instant(now.0 + 1_000), Event::Disk { id, job });
        }
        let member = self.members.get_mut(&id).expect("a member of the run");
        if member.process == Process::Paused {
            member.process = Process::Running;
            self.wake(id, Instant(now.0 + 1));
        }
        if wild {
            self.thaw(id);
        }
    }
}
