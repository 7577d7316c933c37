//! Appends, their answers, and what becomes decided by them (thesis 3.5, 3.6.2, 10.2).

use super::log::Comparison;
use super::message::{Append, AppendOutcome, Appended, Body, Message};
use super::progress::Mode;
use super::timer::Timer;
use super::{Durability, FOUNDING, Fetch, Halt, Now, Output, Raft, Role};
use thiserror::Error;
use wal::{EntryId, Frame, FrameBuilder, LogIndex, NodeId, Term};

/// Why an entry was not proposed. Nothing has happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ProposeRefused {
    /// Only a leader appends.
    #[error("this node does not lead")]
    NotLeader,
    /// Leadership is being handed over.
    #[error("leadership is being handed over")]
    Transferring,
}

impl Raft {
    /// Whether [`propose`](Self::propose) would append.
    ///
    /// # Errors
    /// Says why it would not.
    pub fn may_propose(&self) -> Result<(), ProposeRefused> {
        match &self.role {
            Role::Leader(leading) if leading.transfer.is_some() => Err(ProposeRefused::Transferring),
            Role::Leader(_) if !self.halted => Ok(()),
            _ => Err(ProposeRefused::NotLeader),
        }
    }

    /// Appends one batch as one entry. It is on its way once the turn is finished.
    ///
    /// # Errors
    /// As [`may_propose`](Self::may_propose) says.
    pub fn propose(&mut self, now: Now, batch: FrameBuilder) -> Result<EntryId, ProposeRefused> {
        self.may_propose()?;
        let frame = batch.commands(self.head(now));
        let id = frame.id();
        assert_eq!(id.term, self.hard.term, "a leader proposes in its own term");
        self.append_own(frame);
        Ok(id)
    }

    /// Sends every peer what it lacks and may have on the way.
    pub(super) fn replicate_to_all(&mut self, now: Now) {
        if !matches!(self.role, Role::Leader(_)) {
            return;
        }
        for peer in 0..self.peers.len() {
            self.replicate(now, self.peers[peer]);
        }
        if matches!(self.role, Role::Leader(_)) && self.peers.is_empty() {
            self.advance_commit(now);
        }
    }

    fn replicate(&mut self, now: Now, to: NodeId) {
        loop {
            let Role::Leader(leading) = &mut self.role else { return };
            let Some(progress) = leading.progress.get_mut(&to) else { return };
            let lacks = progress.next <= self.log.last().index;
            match progress.mode {
                Mode::Fetch | Mode::Probe(Some(_)) => return,
                Mode::Probe(None) => {}
                Mode::Stream if !lacks => return,
                Mode::Stream if progress.in_flight_bytes() >= self.config.in_flight_bytes => {
                    self.counters.windows_full += 1;
                    return;
                }
                Mode::Stream => {}
            }
            if progress.next < self.log.first_cached() && lacks {
                progress.mode = Mode::Fetch;
                let fetch = Fetch { peer: to, from: progress.next, max_bytes: self.config.append_bytes };
                self.outputs.push_back(Output::Fetch(fetch));
                return;
            }
            let previous =
                self.log.id_at(progress.next.previous()).expect("it is in memory, or the base of memory");
            let frames = self.log.frames_from(progress.next, self.config.append_bytes);
            assert!(!lacks || !frames.is_empty(), "what the peer lacks is in memory");
            self.send_append(now, to, previous, frames);
        }
    }

    fn send_append(&mut self, now: Now, to: NodeId, previous: EntryId, frames: Vec<Frame>) {
        let (commit, promise) = (self.log.commit(), self.config.promise);
        let Role::Leader(leading) = &mut self.role else { return };
        let Some(progress) = leading.progress.get_mut(&to) else { return };
        assert_eq!(previous.index, progress.next.previous(), "an append continues what was sent");
        assert!(frames.first().is_none_or(|first| first.follows(previous)), "and its entries follow it");
        if let Some(last) = frames.last() {
            let bytes = frames.iter().map(|frame| frame.bytes().len()).sum();
            progress.sent(last.index(), bytes, now.mono);
        }
        if !matches!(progress.mode, Mode::Stream) {
            progress.mode = Mode::Probe(Some((now.mono, previous.index)));
        }
        progress.told_commit = commit;
        let probe = leading.probes.newest();
        self.send(to, Body::Append(Append { previous, frames, commit, probe, promise }));
    }

    /// Entries a peer lacks have come from the disk.
    pub fn handle_fetched(&mut self, now: Now, peer: NodeId, frames: Vec<Frame>) {
        let before = self.summary();
        let Role::Leader(leading) = &mut self.role else { return };
        let Some(progress) = leading.progress.get_mut(&peer) else { return };
        if progress.mode != Mode::Fetch {
            return;
        }
        // Read for a position the peer has left since, or not readable: asked again once this counts as lost.
        progress.mode = Mode::Probe(Some((now.mono, progress.next.previous())));
        let cached = self.log.first_cached();
        let frames: Vec<_> = frames.into_iter().take_while(|frame| frame.index() < cached).collect();
        if let Some(first) = frames.first()
            && first.index() == progress.next
        {
            let previous = first.previous();
            self.send_append(now, peer, previous, frames);
        }
        self.check_step(&before);
    }

    /// A connection to `peer` was made or lost: what was on the way may be gone.
    pub fn handle_reconnect(&mut self, peer: NodeId) {
        if let Role::Leader(leading) = &mut self.role
            && let Some(progress) = leading.progress.get_mut(&peer)
        {
            progress.reconnected();
        }
    }

    /// An append could not be sent. It is repeated when a probe would be: soon, not at once.
    pub fn handle_not_sent(&mut self, now: Now, to: NodeId, message: &Message) {
        if let Role::Leader(leading) = &mut self.role
            && matches!(message.body, Body::Append(_))
            && let Some(progress) = leading.progress.get_mut(&to)
        {
            progress.start_over();
            progress.mode = Mode::Probe(Some((now.mono, progress.next.previous())));
        }
    }

    pub(super) fn handle_append(&mut self, now: Now, from: NodeId, append: Append) {
        let Append { previous, frames, commit, probe, promise } = append;
        self.note_leader_contact(now, promise);
        if !self.is_consistent(previous, &frames) {
            self.counters.malformed += 1;
            return;
        }
        match self.log.compare(previous) {
            Comparison::Same => {}
            // What is decided here cannot be otherwise there (State Machine Safety, thesis 3.6.3).
            Comparison::OtherTerm(term) if previous.index <= self.log.commit() => {
                return self.halt(self.diverged(from, term, previous));
            }
            Comparison::Diverged(ours) => {
                return self.halt(Halt::Diverged { peer: from, ours, theirs: previous });
            }
            Comparison::Beyond | Comparison::OtherTerm(_) => return self.reject(from, previous, probe),
        }
        let matched = frames.last().map_or(previous.index, Frame::index);
        for frame in frames {
            if let Err(halt) = self.take_frame(from, frame) {
                return self.halt(halt);
            }
        }
        if wal::mutant!("truncate_on_short_match") && matched < self.log.last().index {
            self.truncate(matched.next());
        }
        let matched = if wal::mutant!("ack_whole_log") { self.log.last().index } else { matched };
        self.agreed = self.agreed.max(matched);
        self.learn_commit(commit);
        assert!(matched <= self.log.last().index, "what is accepted is in the log");
        assert!(self.log.commit() <= self.log.last().index, "what is decided is in the log");
        let accepted = Body::Appended(Appended { outcome: AppendOutcome::Accepted { matched }, probe });
        let unflushed = self.log.last().index.0 - self.log.durable().0;
        if (self.acknowledges_unflushed() && unflushed <= self.config.unflushed_entries)
            || matched <= self.log.durable()
            || wal::mutant!("ack_before_durable")
        {
            self.send(from, accepted);
        } else {
            self.send_after_write(from, accepted);
        }
    }

    /// Whether what is in memory counts. Not before the founding entry is on disk: after a crash an empty log is one that
    /// has acknowledged nothing ([`Past`](super::Past)).
    fn acknowledges_unflushed(&self) -> bool {
        self.config.durability == Durability::MemFirst && self.log.durable() >= FOUNDING
    }

    /// Whether the frames follow each other from `previous`, in terms that exist.
    fn is_consistent(&self, previous: EntryId, frames: &[Frame]) -> bool {
        let mut last = previous;
        for frame in frames {
            if !frame.follows(last) || frame.group() != self.config.group {
                return false;
            }
            last = frame.id();
        }
        last.term <= self.hard.term && last.index.0 < u64::MAX
    }

    /// Takes one entry of a leader whose previous entry is in the log. The suffix is dropped only where an entry
    /// really contradicts it (pitfall: a reordered, shorter append must not shorten the log).
    fn take_frame(&mut self, from: NodeId, frame: Frame) -> Result<(), Halt> {
        let theirs = frame.id();
        match self.log.compare(theirs) {
            Comparison::Same => return Ok(()),
            Comparison::Diverged(ours) => return Err(Halt::Diverged { peer: from, ours, theirs }),
            Comparison::OtherTerm(term) => {
                // Decided, or said before by this very leader: the one who says otherwise now is wrong.
                if theirs.index <= self.log.commit().max(self.agreed) && !wal::mutant!("truncate_agreed") {
                    return Err(self.diverged(from, term, theirs));
                }
                self.truncate(theirs.index);
            }
            Comparison::Beyond => {}
        }
        self.note_membership(&frame)?;
        self.draft.frames.push(frame.clone());
        self.append(frame);
        Ok(())
    }

    /// Why to stop when a peer contradicts an entry that stands. Of one out of memory only the term is known.
    fn diverged(&self, peer: NodeId, term: Term, theirs: EntryId) -> Halt {
        let known = EntryId { index: theirs.index, term, ..EntryId::default() };
        Halt::Diverged { peer, ours: self.log.id_at(theirs.index).unwrap_or(known), theirs }
    }

    fn reject(&mut self, to: NodeId, previous: EntryId, probe: u64) {
        let hint = self.log.last_at_most(previous.index.previous(), previous.term).max(self.log.commit());
        assert!(hint >= self.log.commit(), "logs agree on what is decided");
        let hint_term = self.log.term_at(hint).expect("the hint is in the log");
        let outcome = AppendOutcome::Rejected { previous: previous.index, hint, hint_term };
        self.send(to, Body::Appended(Appended { outcome, probe }));
    }

    /// The leader says that everything up to `commit` is decided; this node knows it of what it has in common with it.
    pub(super) fn learn_commit(&mut self, commit: LogIndex) {
        let known = commit.min(if wal::mutant!("commit_beyond_agreed") {
            self.log.last().index
        } else {
            self.agreed
        });
        if known > self.log.commit() {
            self.log.commit_to(known);
        }
        // Up to the leader's commit index, not up to what this node has of it so far: that may end before what it once
        // acknowledged.
        if known == commit && self.log.term_at(commit) == Some(self.hard.term) {
            self.note_decided_in_term(commit);
        }
    }

    pub(super) fn handle_appended(&mut self, now: Now, from: NodeId, appended: Appended) {
        self.note_echo(now, from, appended.probe);
        let last = self.log.last().index;
        let Role::Leader(leading) = &mut self.role else { return };
        let Some(progress) = leading.progress.get_mut(&from) else { return };
        match appended.outcome {
            AppendOutcome::Accepted { matched } if matched > last => self.counters.malformed += 1,
            AppendOutcome::Accepted { matched } => {
                progress.accepted(matched);
                self.advance_commit(now);
                self.continue_transfer(from);
            }
            AppendOutcome::Rejected { previous, hint, hint_term } => {
                let current = match progress.mode {
                    Mode::Probe(Some((_, probed))) => probed == previous,
                    Mode::Stream => previous > progress.matched,
                    Mode::Probe(None) | Mode::Fetch => false,
                };
                if !current {
                    return;
                }
                self.counters.rejections += 1;
                if previous <= progress.matched {
                    // It acknowledged more than it has: its disk has lost something, or was swapped for an old one.
                    self.counters.regressions += 1;
                    progress.matched = LogIndex::ZERO;
                }
                if wal::mutant!("rejection_resets_nothing") {
                    return;
                }
                let meet = self.log.last_at_most(hint.min(previous.previous()), hint_term);
                progress.probe_from(meet.max(progress.matched).next());
            }
        }
    }

    /// Decides what a quorum holds. Only an entry of the leader's own term is decided by counting; those before it are
    /// decided with it (thesis 3.6.2, figure 3.7).
    pub(super) fn advance_commit(&mut self, now: Now) {
        let Role::Leader(leading) = &self.role else { return };
        // The leader counts itself for what is on its own disk, like everyone else.
        let own = if self.acknowledges_unflushed() || wal::mutant!("leader_counts_itself_early") {
            self.log.last().index
        } else {
            self.log.durable()
        };
        let reached = self.membership().reached_by_quorum(|id| {
            if id == self.config.id { own.0 } else { leading.progress.get(&id).map_or(0, |p| p.matched.0) }
        });
        let reached = LogIndex(reached);
        if reached <= self.log.commit() {
            return;
        }
        if self.log.term_at(reached) != Some(self.hard.term) && !wal::mutant!("commit_older_terms_by_count") {
            return;
        }
        assert!(reached <= self.log.last().index, "a quorum cannot hold more than its leader");
        self.log.commit_to(reached);
        // Under load the next append tells; when there is none, a notice does, soon.
        self.timers.set(Timer::CommitNotice, now.mono.after(self.config.heartbeat / 25));
    }

    /// Tells peers of a commit index that no append has told them.
    pub(super) fn tell_commit(&mut self) {
        let (commit, promise) = (self.log.commit(), self.config.promise);
        for peer in 0..self.peers.len() {
            let to = self.peers[peer];
            let Role::Leader(leading) = &mut self.role else { return };
            let Some(progress) = leading.progress.get_mut(&to) else { continue };
            if progress.told_commit < commit {
                progress.told_commit = commit;
                let probe = leading.probes.newest();
                self.send(to, Body::Heartbeat(super::message::Heartbeat { probe, commit, promise }));
            }
        }
    }

    /// Appends that have been on the way for an election timeout, and probes unanswered for two heartbeats, are taken
    /// for lost (pitfall: a window that never frees).
    pub(super) fn recover_lost_appends(&mut self, now: Now) {
        let patience = self.config.election_timeout * 4;
        let probe_patience = self.config.heartbeat * 2;
        let Role::Leader(leading) = &mut self.role else { return };
        for progress in leading.progress.values_mut() {
            let lost = match progress.mode {
                Mode::Probe(Some((at, _))) => now.mono.since(at) >= probe_patience,
                Mode::Probe(None) | Mode::Fetch => false,
                Mode::Stream => progress.oldest_in_flight().is_some_and(|at| now.mono.since(at) >= patience),
            };
            if lost && !wal::mutant!("lost_append_never_repeated") {
                progress.start_over();
            }
        }
    }
}
