//! The way of a command: queued, cut into a batch or passed to the leader, decided, applied, answered.
//!
//! A command is in exactly one place at a time, and its caller's ticket with it:
//! `queue` → `in_log` (this node leads) or `forwarded` (another does) → answered.

use super::message::{Forward, ForwardOutcome, Forwarded, Message};
use super::{Mono, Node, Output, Reply, RequestError, StateMachine, Ticket};
use crate::raft::{Durability, RoleName};
use bytes::{Bytes, BytesMut};
use std::collections::{BTreeMap, VecDeque};
use wal::{EntryId, Frame, FrameBuilder, FrameHead, Kind, LogIndex, NodeId, Term};

/// Bytes a command costs in a batch beside its own.
const COMMAND_OVERHEAD: usize = 4;

/// Who asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    /// A caller of this node.
    Local(Ticket),
    /// A caller of another node.
    Peer { node: NodeId, incarnation: u64, number: u64 },
}

#[derive(Debug)]
struct Queued {
    origin: Origin,
    command: Bytes,
    deadline: Mono,
    /// Or later; for the meter.
    handed_over: Mono,
}

/// A batch in this node's log whose callers wait.
#[derive(Debug)]
struct InLog {
    entry: EntryId,
    deadline: Mono,
    /// In the order of the commands; empty once they were told that the outcome is unknown.
    origins: Vec<Origin>,
}

/// A command passed to the leader.
#[derive(Debug)]
struct PassedOn {
    ticket: Ticket,
    command: Bytes,
    deadline: Mono,
}

/// Commands and their callers.
#[derive(Debug, Default)]
pub(super) struct Writes {
    queue: VecDeque<Queued>,
    queue_bytes: usize,
    /// By index and term: a batch whose entry was truncated may still be decided by another leader, and so stays here
    /// beside the one that took its index.
    in_log: BTreeMap<(LogIndex, Term), InLog>,
    in_log_calls: usize,
    forwarded: BTreeMap<u64, PassedOn>,
    next_number: u64,
    /// After a leader refused to be one: nothing is passed on before this time.
    pub(super) hold_until: Mono,
    /// The highest number taken from each life of a peer in the term below.
    taken: BTreeMap<(NodeId, u64), u64>,
    taken_in: Term,
    /// The term this node started in: what a former life of it took, up to then, is not known.
    pub(super) started_in: Term,
}

impl Writes {
    pub(super) fn pending(&self) -> usize {
        self.queue.len() + self.in_log_calls + self.forwarded.len()
    }

    /// Checks what is true between two inputs.
    pub(super) fn check(&self, applied: LogIndex, term: Term) {
        let bytes: usize = self.queue.iter().map(|queued| queued.command.len()).sum();
        assert_eq!(self.queue_bytes, bytes, "queued bytes are those of the queue");
        let calls: usize = self.in_log.values().map(|batch| batch.origins.len()).sum();
        assert_eq!(self.in_log_calls, calls, "every caller of a batch is counted");
        for (&(index, at), batch) in &self.in_log {
            assert_eq!((batch.entry.index, batch.entry.term), (index, at), "a batch is found by its entry");
            assert!(index > applied, "the callers of an applied entry are answered");
            assert!(at <= term, "no batch is of a later term");
        }
        assert!(
            self.forwarded.keys().all(|&number| number < self.next_number),
            "only numbers given out are passed on"
        );
        assert!(self.taken_in <= term, "commands are taken in terms that were reached");
        assert!(self.started_in <= term, "terms never fall");
    }

    pub(super) fn has_forwarded(&self) -> bool {
        !self.forwarded.is_empty()
    }

    fn pop_queued(&mut self) -> Option<Queued> {
        let queued = self.queue.pop_front()?;
        assert!(self.queue_bytes >= queued.command.len(), "it was counted when it came");
        self.queue_bytes -= queued.command.len();
        Some(queued)
    }
}

impl<M: StateMachine> Node<M> {
    pub(super) fn handle_propose(&mut self, ticket: Ticket, command: Bytes) {
        match self.admit_command(&command) {
            Ok(()) => self.queue(Origin::Local(ticket), command),
            Err(error) => self.answer(ticket, Err(error)),
        }
    }

    /// Whether a command may be queued: everything that can be known before it is proposed.
    fn admit_command(&self, command: &[u8]) -> Result<(), RequestError<M::Refusal>> {
        let (bytes, limit) = (command.len(), self.limits.batch_bytes - COMMAND_OVERHEAD);
        if bytes > limit {
            return Err(RequestError::TooLarge { bytes, limit });
        }
        self.machine.check(command).map_err(RequestError::Refused)?;
        self.check_room()?;
        if self.writes.queue_bytes + bytes > self.limits.pending_bytes {
            return Err(RequestError::Busy { pending: self.pending(), limit: self.limits.pending_requests });
        }
        Ok(())
    }

    fn queue(&mut self, origin: Origin, command: Bytes) {
        let deadline = self.now.mono.after(self.limits.request_timeout);
        assert!(command.len() + COMMAND_OVERHEAD <= self.limits.batch_bytes, "it was admitted");
        let handed_over = self.meter.as_ref().map_or(self.now.mono, |meter| meter.handed_over());
        self.writes.queue_bytes += command.len();
        self.writes.queue.push_back(Queued { origin, command, deadline, handed_over });
        self.start_sweeping();
    }

    /// Cuts what is queued into entries, as many as the disk may have on the way.
    pub(super) fn cut_batches(&mut self) {
        while (!self.writes.queue.is_empty() || self.machine.upkeep_at().is_some()) && self.may_cut() {
            let upkeep = self.due_upkeep();
            if self.writes.queue.is_empty() && upkeep.is_none() {
                break;
            }
            let expected = self.writes.queue_bytes + self.writes.queue.len() * COMMAND_OVERHEAD;
            let mut batch = FrameBuilder::with_capacity(expected.min(self.pace.batch_bytes));
            let index = self.raft.log().last().index.next();
            let half = self.half();
            let most = (self.pace.batch_bytes / COMMAND_OVERHEAD).min(half);
            let mut origins = Vec::with_capacity(self.writes.queue.len().min(most));
            // A command that leaves no room for the machine's own waits for the next entry.
            let reserved = upkeep.as_ref().map_or(0, |upkeep| upkeep.len() + COMMAND_OVERHEAD);
            let (room, pace) = (self.limits.batch_bytes, self.pace.batch_bytes);
            let (room, pace) = (room.saturating_sub(reserved), pace.saturating_sub(reserved));
            while let Some(next) = self.writes.queue.front()
                && origins.len() < half
                && let bytes = batch.body_bytes() + next.command.len() + COMMAND_OVERHEAD
                // A command that is larger than the pace goes alone.
                && (bytes <= pace || bytes <= room && origins.is_empty())
            {
                let queued = self.writes.pop_queued().expect("just seen");
                if let Some(meter) = &mut self.meter {
                    meter.note_command(index, queued.handed_over);
                }
                batch.push_command(&queued.command);
                origins.push(queued.origin);
            }
            assert!(!origins.is_empty() || upkeep.is_some(), "a command that is queued fits into a batch");
            if let Some(upkeep) = &upkeep {
                batch.push_command(upkeep);
            }
            if let Some(meter) = &mut self.meter {
                meter.note_batch(batch.body_bytes(), !self.writes.queue.is_empty());
            }
            let entry = self.raft.propose(self.now, batch).expect("asked before");
            assert_eq!(entry.index, index, "an entry comes after the last one");
            if upkeep.is_some() {
                self.note_upkeep(entry);
            }
            if origins.is_empty() {
                continue;
            }
            let deadline = self.now.mono.after(self.limits.request_timeout);
            self.writes.in_log_calls += origins.len();
            assert_eq!(entry.term, self.raft.term(), "a leader proposes in its own term");
            assert!(entry.index > self.applied, "an entry is new when it is proposed");
            let former =
                self.writes.in_log.insert((entry.index, entry.term), InLog { entry, deadline, origins });
            assert!(former.is_none(), "a leader makes one entry per index and term");
        }
        if let Some(meter) = &mut self.meter
            && !self.writes.queue.is_empty()
            && self.raft.may_propose().is_ok()
        {
            meter.note_held_by_disk();
        }
    }

    /// How many commands a batch takes at most: where many calls are open, half of them, so that some are answered while
    /// others are on their way. Callers who ask again at once would else keep to the company that chance gave them: one alone in
    /// a batch, then all others together, and nothing done in parallel.
    fn half(&self) -> usize {
        const MANY: usize = 256;
        (self.writes.queue.len() + self.writes.in_log_calls).div_ceil(2).max(MANY)
    }

    pub(super) fn may_cut(&self) -> bool {
        let log = self.raft.log();
        let unflushed = log.last().index.0 - log.durable().0;
        // What a majority has on its disks is no longer waited for: it does not hold back what comes after it.
        let awaited = log.last().index.0 - log.durable().max(self.raft.commit()).0;
        let (most, on_the_way) = (self.raft.config().unflushed_entries, self.pace.batches_in_flight);
        let room = match self.durability() {
            Durability::DiskFirst => awaited < on_the_way && unflushed < most.max(on_the_way),
            Durability::MemFirst => unflushed < most,
        };
        // While a quorum's disks hang, entries stay undecided and in memory, whether or not their callers still wait.
        let fits = log.undecided_bytes() < self.limits.pending_bytes;
        room && fits && self.raft.may_propose().is_ok()
    }

    /// Passes what is queued to the leader, if that is another node.
    pub(super) fn forward_queue(&mut self) {
        let Some(leader) = self.raft.leader() else { return };
        if leader == self.raft.config().id || self.now.mono < self.writes.hold_until {
            return;
        }
        if self.raft.is_leader_gone() {
            return; // Where nobody listens, nobody could say what became of them.
        }
        while !self.writes.queue.is_empty() {
            let first = self.writes.next_number;
            let mut bytes = 0;
            let mut commands = Vec::new();
            while let Some(next) = self.writes.queue.front() {
                bytes += next.command.len() + COMMAND_OVERHEAD;
                if bytes > self.limits.batch_bytes && !commands.is_empty() {
                    break;
                }
                let Queued { origin, command, deadline, .. } = self.writes.pop_queued().expect("just seen");
                match origin {
                    Origin::Local(ticket) => {
                        commands.push(command.clone());
                        let number = self.writes.next_number;
                        self.writes.forwarded.insert(number, PassedOn { ticket, command, deadline });
                        self.writes.next_number += 1;
                    }
                    // It was taken while this node led; its own node knows better where to go now.
                    Origin::Peer { .. } => self.answer_origin(origin, ForwardOutcome::NotLeader),
                }
            }
            if !commands.is_empty() {
                let term = self.raft.term();
                let forward = Forward { term, incarnation: self.incarnation, first, commands };
                self.outputs.push_back(Output::Send { to: leader, message: Message::Forward(forward) });
            }
        }
    }

    /// Takes a follower's commands: only while leading in the term it means, and each number once, so that a repeated
    /// or late message never repeats a command.
    pub(super) fn handle_forward(&mut self, from: NodeId, forward: Forward) {
        let Forward { term, incarnation, first, commands } = forward;
        let meant = term == self.raft.term() || wal::mutant!("forward_of_any_term");
        if !meant || self.raft.role() != RoleName::Leader {
            for number in (first..).take(commands.len()) {
                self.deny_forward(from, incarnation, number, term);
            }
            return;
        }
        if self.writes.taken_in != term {
            self.writes.taken_in = term;
            self.writes.taken.clear();
        }
        for (command, number) in commands.into_iter().zip(first..) {
            if self.has_taken(from, incarnation, number) {
                continue; // Seen before: whatever became of it was or will be said once.
            }
            self.writes.taken.insert((from, incarnation), number);
            match self.admit_command(&command) {
                Ok(()) => self.queue(Origin::Peer { node: from, incarnation, number }, command),
                Err(RequestError::Busy { .. }) => {
                    self.answer_peer(from, incarnation, number, ForwardOutcome::Busy);
                }
                Err(error) => {
                    self.answer_peer(from, incarnation, number, ForwardOutcome::Refused(error.to_string()));
                }
            }
        }
    }

    fn has_taken(&self, from: NodeId, incarnation: u64, number: u64) -> bool {
        self.writes.taken.get(&(from, incarnation)).is_some_and(|&taken| taken >= number)
            && !wal::mutant!("forward_twice")
    }

    /// A command for a leader that this node is not (any more). "It was not taken" is said only where that is known: a
    /// copy of the message may have come while this node led, and what was taken then may still happen.
    fn deny_forward(&mut self, from: NodeId, incarnation: u64, number: u64, term: Term) {
        let Writes { taken_in, started_in, .. } = self.writes;
        if term <= started_in || term < taken_in {
            self.answer_peer(from, incarnation, number, ForwardOutcome::Unknown);
        } else if term > taken_in || !self.has_taken(from, incarnation, number) {
            self.answer_peer(from, incarnation, number, ForwardOutcome::NotLeader);
        }
    }

    /// The leader says what became of commands passed to it.
    pub(super) fn handle_forwarded(&mut self, _from: NodeId, forwarded: Forwarded) {
        if forwarded.incarnation != self.incarnation {
            return;
        }
        for (number, outcome) in forwarded.outcomes {
            let Some(PassedOn { ticket, command, deadline }) = self.writes.forwarded.remove(&number) else {
                continue;
            };
            let outcome = match outcome {
                ForwardOutcome::Applied(bytes) => {
                    // A reply that cannot be read is still a command that happened.
                    M::decode_reply(&bytes).map(Reply::Applied).ok_or(RequestError::OutcomeUnknown)
                }
                ForwardOutcome::NotLeader => {
                    self.queue_again(PassedOn { ticket, command, deadline });
                    continue;
                }
                ForwardOutcome::Busy => {
                    let limit = self.limits.pending_requests;
                    Err(RequestError::Busy { pending: limit, limit })
                }
                ForwardOutcome::Refused(reason) => Err(RequestError::RefusedByLeader(reason)),
                ForwardOutcome::Superseded => Err(RequestError::Superseded),
                ForwardOutcome::Unknown => Err(RequestError::OutcomeUnknown),
            };
            self.answer(ticket, outcome);
        }
    }

    /// It did not happen, so it may be passed on again, to whoever leads then.
    fn queue_again(&mut self, passed: PassedOn) {
        let PassedOn { ticket, command, deadline } = passed;
        self.writes.queue_bytes += command.len();
        let (origin, handed_over) = (Origin::Local(ticket), self.now.mono);
        self.writes.queue.push_back(Queued { origin, command, deadline, handed_over });
        self.hold_forwarding();
    }

    /// Commands that never left this node.
    pub(super) fn take_back(&mut self, forward: &Forward) {
        for (_, number) in forward.commands.iter().zip(forward.first..) {
            if let Some(passed) = self.writes.forwarded.remove(&number) {
                self.queue_again(passed);
            }
        }
    }

    pub(super) fn hold_forwarding(&mut self) {
        let until = self.now.mono.after(self.raft.config().heartbeat);
        self.writes.hold_until = until;
        self.sweep_at = Some(self.sweep_at.map_or(until, |at| at.min(until)));
    }

    /// The leader that commands were passed to is gone, or may not have got them: nobody can say what became of them.
    pub(super) fn note_lost_leader(&mut self) {
        for passed in std::mem::take(&mut self.writes.forwarded).into_values() {
            if wal::mutant!("unknown_is_repeated") && !self.stopped {
                self.queue_again(passed);
                continue;
            }
            self.answer(passed.ticket, Err(RequestError::OutcomeUnknown));
        }
    }

    /// Applies what is decided and answers whoever waits for it.
    pub(super) fn apply_decided(&mut self) {
        while self.applied < self.raft.commit() {
            let index = self.applied.next();
            let frame = self.raft.log().frame(index).expect("what is not applied is in memory").clone();
            assert_eq!(frame.index(), index, "entries are applied in order, each once");
            assert!(self.replies.is_empty(), "replies are used up");
            if frame.kind() == Kind::Commands {
                if wal::mutant!("expiry_by_own_clock") {
                    self.apply_upkeep_by_own_clock(&frame);
                }
                self.machine.apply(&frame, &mut self.replies);
                assert_eq!(self.replies.len(), frame.command_count() as usize, "one reply per command");
            }
            self.applied = index;
            self.answer_entry(&frame);
        }
    }

    /// What no replica may do: its own clock decides.
    fn apply_upkeep_by_own_clock(&mut self, next: &Frame) {
        let at = self.raft.timestamp(self.now).unwrap_or(next.timestamp_ms()).saturating_add(200);
        if self.machine.upkeep_at().is_some_and(|due| due.0 <= at) {
            let mut command = BytesMut::new();
            self.machine.upkeep(&mut command);
            let mut batch = FrameBuilder::with_capacity(command.len());
            batch.push_command(&command);
            let previous = next.previous();
            let head = FrameHead { group: next.group(), term: next.term(), previous, timestamp_ms: at };
            self.machine.apply(&batch.commands(head), &mut Vec::new());
        }
    }

    fn answer_entry(&mut self, frame: &Frame) {
        if let Some(meter) = &mut self.meter {
            meter.note_applied(frame.index());
        }
        let mut replies = std::mem::take(&mut self.replies);
        let here = (frame.index(), Term::ZERO)..=(frame.index(), Term(u64::MAX));
        while let Some((&key, _)) = self.writes.in_log.range(here.clone()).next() {
            let batch = self.writes.in_log.remove(&key).expect("just seen");
            self.writes.in_log_calls -= batch.origins.len();
            if batch.entry != frame.id() && !wal::mutant!("superseded_is_answered") {
                // Another leader's entry stands in its place, for ever.
                for origin in batch.origins {
                    self.fail_origin(origin, RequestError::Superseded);
                }
                continue;
            }
            self.answers.reserve(batch.origins.len());
            for (origin, reply) in batch.origins.into_iter().zip(replies.drain(..)) {
                match origin {
                    Origin::Local(ticket) => self.answer(ticket, Ok(Reply::Applied(reply))),
                    Origin::Peer { .. } => {
                        let mut bytes = BytesMut::new();
                        M::encode_reply(&reply, &mut bytes);
                        self.answer_origin(origin, ForwardOutcome::Applied(bytes.freeze()));
                    }
                }
            }
        }
        replies.clear();
        self.replies = replies;
    }

    fn fail_origin(&mut self, origin: Origin, error: RequestError<M::Refusal>) {
        match origin {
            Origin::Local(ticket) => self.answer(ticket, Err(error)),
            Origin::Peer { .. } => {
                let outcome = match error {
                    RequestError::Superseded => ForwardOutcome::Superseded,
                    RequestError::NoLeader | RequestError::Stopped => ForwardOutcome::NotLeader,
                    _ => ForwardOutcome::Unknown,
                };
                self.answer_origin(origin, outcome);
            }
        }
    }

    fn answer_origin(&mut self, origin: Origin, outcome: ForwardOutcome) {
        if let Origin::Peer { node, incarnation, number } = origin {
            self.answer_peer(node, incarnation, number, outcome);
        }
    }

    fn answer_peer(&mut self, node: NodeId, incarnation: u64, number: u64, outcome: ForwardOutcome) {
        let forwarded =
            self.outcomes.entry(node).or_insert_with(|| Forwarded { incarnation, outcomes: Vec::new() });
        if forwarded.incarnation != incarnation {
            // A former life of that node does not wait any more.
            *forwarded = Forwarded { incarnation, outcomes: Vec::new() };
        }
        forwarded.outcomes.push((number, outcome));
    }

    /// Answers those who have waited too long, saying whether their command may have happened.
    pub(super) fn expire_writes(&mut self) {
        let now = self.now.mono;
        let (late, waiting): (Vec<_>, VecDeque<_>) =
            partition(std::mem::take(&mut self.writes.queue), |queued| queued.deadline <= now);
        self.writes.queue = waiting;
        for queued in late {
            self.writes.queue_bytes -= queued.command.len();
            self.fail_origin(queued.origin, RequestError::NoLeader);
        }
        let overdue: Vec<_> = self
            .writes
            .in_log
            .values_mut()
            .filter(|batch| batch.deadline <= now)
            .flat_map(|batch| std::mem::take(&mut batch.origins))
            .collect();
        self.writes.in_log_calls -= overdue.len();
        for origin in overdue {
            if wal::mutant!("late_is_denied") {
                self.fail_origin(origin, RequestError::NoLeader);
                continue;
            }
            self.fail_origin(origin, RequestError::OutcomeUnknown);
        }
        let overdue: Vec<u64> = self
            .writes
            .forwarded
            .iter()
            .filter(|(_, p)| p.deadline <= now)
            .map(|(&number, _)| number)
            .collect();
        for number in overdue {
            let passed = self.writes.forwarded.remove(&number).expect("just listed");
            self.answer(passed.ticket, Err(RequestError::OutcomeUnknown));
        }
    }

    pub(super) fn fail_all_writes(&mut self) {
        while let Some(queued) = self.writes.pop_queued() {
            self.fail_origin(queued.origin, RequestError::Stopped);
        }
        for batch in std::mem::take(&mut self.writes.in_log).into_values() {
            for origin in batch.origins {
                self.fail_origin(origin, RequestError::OutcomeUnknown);
            }
        }
        self.writes.in_log_calls = 0;
        self.note_lost_leader();
    }
}

/// Splits a queue by a test, keeping the order of both parts.
fn partition<T>(queue: VecDeque<T>, test: impl Fn(&T) -> bool) -> (Vec<T>, VecDeque<T>) {
    let mut yes = Vec::new();
    let mut no = VecDeque::with_capacity(queue.len());
    for item in queue {
        if test(&item) { yes.push(item) } else { no.push_back(item) }
    }
    (yes, no)
}
