//! The log as the core sees it: the newest frames in memory, and for all older ones which term they have.
//!
//! Frames leave memory only when they are applied and on disk; a peer that needs one from before is served by a read
//! from the disk (`Output::Fetch`). Terms of the whole log cost one row per leader change.

use std::collections::VecDeque;
use wal::{EntryId, Frame, LogIndex, Term};

/// The log of one node.
#[derive(Clone, Debug)]
pub struct Log {
    /// The entry before the first frame in memory.
    base: EntryId,
    /// The greatest timestamp up to there.
    base_timestamp: u64,
    frames: VecDeque<Frame>,
    bytes: usize,
    /// Bytes of the frames after `commit`.
    undecided_bytes: usize,
    /// Where each term of the log starts, ascending in both.
    // Invariant: covers every index from 1 to `last`.
    terms: Vec<(LogIndex, Term)>,
    /// Everything up to here is on this node's disk.
    durable: LogIndex,
    /// Everything up to here is decided for ever.
    commit: LogIndex,
}

/// How an entry named by a peer compares with the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// The log has it.
    Same,
    /// The log ends before it.
    Beyond,
    /// The log has an entry of another term there.
    OtherTerm(Term),
    /// Same index and term, other bytes: one of the two logs is not what it was.
    Diverged(EntryId),
}

impl Log {
    /// An empty log after `origin`.
    #[must_use]
    pub fn after(origin: EntryId) -> Self {
        Self {
            base: origin,
            base_timestamp: 0,
            frames: VecDeque::new(),
            bytes: 0,
            undecided_bytes: 0,
            terms: Vec::new(),
            durable: LogIndex::ZERO,
            commit: LogIndex::ZERO,
        }
    }

    /// The last entry.
    #[must_use]
    pub fn last(&self) -> EntryId {
        self.frames.back().map_or(self.base, Frame::id)
    }

    /// The greatest timestamp in the log, in milliseconds since 1970: the last entry's, as they never fall along a log. What
    /// was truncated does not count.
    #[must_use]
    pub fn last_timestamp(&self) -> u64 {
        self.frames.back().map_or(0, Frame::timestamp_ms).max(self.base_timestamp)
    }

    /// Everything up to here is decided.
    #[must_use]
    pub fn commit(&self) -> LogIndex {
        self.commit
    }

    /// Everything up to here is on this node's disk.
    #[must_use]
    pub fn durable(&self) -> LogIndex {
        self.durable
    }

    /// The first index whose frame is in memory (one past the last if none is).
    #[must_use]
    pub fn first_cached(&self) -> LogIndex {
        self.base.index.next()
    }

    /// Bytes of frames in memory.
    #[must_use]
    pub fn cached_bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes of frames that are not decided; they cannot leave memory.
    #[must_use]
    pub fn undecided_bytes(&self) -> usize {
        self.undecided_bytes
    }

    /// Index, term and hash at `index`, if it is known without the disk.
    #[must_use]
    pub fn id_at(&self, index: LogIndex) -> Option<EntryId> {
        if index == self.base.index {
            return Some(self.base);
        }
        self.frame(index).map(Frame::id)
    }

    /// The frame at `index`, if it is in memory.
    #[must_use]
    pub fn frame(&self, index: LogIndex) -> Option<&Frame> {
        let offset = index.0.checked_sub(self.base.index.0 + 1)?;
        self.frames.get(usize::try_from(offset).ok()?)
    }

    /// The term at `index`: zero at zero, nothing beyond the end.
    #[must_use]
    pub fn term_at(&self, index: LogIndex) -> Option<Term> {
        if index == LogIndex::ZERO {
            return Some(Term::ZERO);
        }
        if index > self.last().index {
            return None;
        }
        let row = self.terms.partition_point(|&(first, _)| first <= index);
        Some(self.terms[row.checked_sub(1).expect("rows start at index 1")].1)
    }

    /// The last index at or before `index` whose term is at most `term`: where two logs can agree at the latest.
    #[must_use]
    pub fn last_at_most(&self, index: LogIndex, term: Term) -> LogIndex {
        let row = self.terms.partition_point(|&(_, row_term)| row_term <= term);
        let end = self.terms.get(row).map_or(self.last().index, |&(first, _)| first.previous());
        end.min(index)
    }

    /// Compares an entry a peer names.
    #[must_use]
    pub fn compare(&self, theirs: EntryId) -> Comparison {
        let Some(term) = self.term_at(theirs.index) else {
            return Comparison::Beyond;
        };
        match self.id_at(theirs.index) {
            _ if term != theirs.term => Comparison::OtherTerm(term),
            Some(ours) if ours.hash != theirs.hash && !wal::mutant!("prev_by_term_only") => {
                Comparison::Diverged(ours)
            }
            // Out of memory means applied, and applied means decided: same term at a decided index is the same entry
            // (State Machine Safety, thesis 3.6.3).
            _ => Comparison::Same,
        }
    }

    /// Frames from `from` on, at least one if it is in memory, at most about `max_bytes`.
    #[must_use]
    pub fn frames_from(&self, from: LogIndex, max_bytes: usize) -> Vec<Frame> {
        let Some(start) = from.0.checked_sub(self.base.index.0 + 1) else {
            return Vec::new();
        };
        let start = usize::try_from(start).unwrap_or(usize::MAX).min(self.frames.len());
        let mut bytes = 0;
        self.frames
            .range(start..)
            .take_while(|frame| {
                let first = bytes == 0;
                bytes += frame.bytes().len();
                first || bytes <= max_bytes
            })
            .cloned()
            .collect()
    }

    /// Appends the next entry.
    ///
    /// # Panics
    /// If it does not follow the last one; the caller has compared.
    pub fn append(&mut self, frame: Frame) {
        let last = self.last();
        assert!(frame.follows(last), "entry {:?} does not follow {last:?}", frame.id());
        if self.terms.last().is_none_or(|&(_, term)| term < frame.term()) {
            self.terms.push((frame.index(), frame.term()));
        }
        assert!(frame.term() >= last.term, "terms ascend along a log");
        self.bytes += frame.bytes().len();
        self.undecided_bytes += frame.bytes().len();
        self.frames.push_back(frame);
    }

    /// Drops the entries from `from` on, which a leader's entries contradict.
    ///
    /// # Panics
    /// If that would undo a decision: then safety is already lost, and stopping is all that is left.
    pub fn truncate(&mut self, from: LogIndex) {
        assert!(from > self.commit, "entries up to {} are decided, {from} cannot be dropped", self.commit);
        assert!(from > self.base.index, "undecided entries are in memory");
        while self.frames.back().is_some_and(|frame| frame.index() >= from) {
            let dropped = self.frames.pop_back().expect("just seen").bytes().len();
            self.bytes -= dropped;
            self.undecided_bytes -= dropped;
        }
        while self.terms.last().is_some_and(|&(first, _)| first >= from) {
            self.terms.pop();
        }
        assert_eq!(self.last().index, from.previous(), "the log ends before what was dropped");
        self.durable = self.durable.min(from.previous());
        assert!(self.commit <= self.last().index, "what is decided is still there");
    }

    /// Notes that the disk holds the log up to `entry`. An entry that has been replaced since is no evidence for what
    /// replaced it (pitfall: ABA of asynchronous writes).
    pub fn note_durable(&mut self, entry: EntryId) {
        if entry.index > self.durable && self.compare(entry) == Comparison::Same {
            self.durable = entry.index;
            assert!(self.durable <= self.last().index, "only what is in the log is durable");
        }
    }

    /// Decides everything up to `index`.
    ///
    /// # Panics
    /// If the log does not hold it.
    pub fn commit_to(&mut self, index: LogIndex) {
        assert!(index <= self.last().index, "cannot decide {index}, the log ends at {}", self.last().index);
        while self.commit < index {
            self.commit = self.commit.next();
            let frame = self.frame(self.commit).expect("undecided entries are in memory");
            assert!(self.undecided_bytes >= frame.bytes().len(), "its bytes were counted");
            self.undecided_bytes -= frame.bytes().len();
        }
    }

    /// Drops frames from memory, oldest first, until at most `keep_bytes` are left, but none past `applied` or not
    /// yet on disk.
    pub fn evict(&mut self, keep_bytes: usize, applied: LogIndex) {
        let limit = applied.min(self.durable);
        assert!(applied <= self.commit, "only decided entries are applied");
        while self.bytes > keep_bytes && self.frames.front().is_some_and(|frame| frame.index() <= limit) {
            let frame = self.frames.pop_front().expect("just seen");
            self.bytes -= frame.bytes().len();
            self.base = frame.id();
            self.base_timestamp = self.base_timestamp.max(frame.timestamp_ms());
        }
        assert!(self.base.index <= self.commit, "what leaves memory is decided");
        assert!(self.base.index <= self.durable, "and can be read from the disk");
    }

    /// Rows of the term table, for the invariants.
    #[must_use]
    pub fn terms(&self) -> &[(LogIndex, Term)] {
        &self.terms
    }

    /// Frames in memory, for the invariants.
    pub fn cached(&self) -> impl Iterator<Item = &Frame> {
        self.frames.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wal::frame::origin;
    use wal::{ClusterId, FrameBuilder, FrameHead, GroupId};

    fn log_with_terms(terms: &[u64]) -> Log {
        let mut log = Log::after(origin(ClusterId(1), GroupId::FIRST));
        for &term in terms {
            let head =
                FrameHead { group: GroupId::FIRST, term: Term(term), previous: log.last(), timestamp_ms: 0 };
            log.append(FrameBuilder::noop(head));
        }
        log
    }

    #[test]
    fn terms_are_known_for_the_whole_log() {
        let log = log_with_terms(&[1, 1, 2, 5, 5]);
        let terms: Vec<_> = (0..=6).map(|index| log.term_at(LogIndex(index)).map(|term| term.0)).collect();
        assert_eq!(terms, [Some(0), Some(1), Some(1), Some(2), Some(5), Some(5), None]);
    }

    #[test]
    fn back_tracking_finds_the_last_index_of_a_term() {
        let log = log_with_terms(&[1, 1, 2, 5, 5]);
        assert_eq!(log.last_at_most(LogIndex(5), Term(4)), LogIndex(3));
        assert_eq!(log.last_at_most(LogIndex(2), Term(4)), LogIndex(2));
        assert_eq!(log.last_at_most(LogIndex(9), Term(9)), LogIndex(5));
        assert_eq!(log.last_at_most(LogIndex(9), Term(0)), LogIndex(0));
    }

    #[test]
    fn truncation_takes_durability_back_and_an_old_completion_does_not_restore_it() {
        let mut log = log_with_terms(&[1, 1, 2]);
        let replaced = log.last();
        log.note_durable(replaced);
        assert_eq!(log.durable(), LogIndex(3));
        log.truncate(LogIndex(3));
        assert_eq!(log.durable(), LogIndex(2));
        let head = FrameHead { group: GroupId::FIRST, term: Term(7), previous: log.last(), timestamp_ms: 0 };
        log.append(FrameBuilder::noop(head));
        log.note_durable(replaced);
        assert_eq!(log.durable(), LogIndex(2));
    }

    #[test]
    #[should_panic(expected = "are decided")]
    fn what_is_decided_cannot_be_truncated() {
        let mut log = log_with_terms(&[1, 1]);
        log.commit_to(LogIndex(2));
        log.truncate(LogIndex(2));
    }

    #[test]
    fn eviction_keeps_what_is_not_applied_or_not_on_disk() {
        let mut log = log_with_terms(&[1, 1, 1, 1]);
        log.commit_to(LogIndex(4));
        log.note_durable(log.id_at(LogIndex(2)).expect("in memory"));
        log.evict(0, LogIndex(4));
        assert_eq!(log.first_cached(), LogIndex(3));
        assert_eq!(log.term_at(LogIndex(1)), Some(Term(1)));
        assert!(log.frames_from(LogIndex(1), 1000).is_empty());
        assert_eq!(log.frames_from(LogIndex(3), 1).len(), 1);
    }

    #[test]
    fn eviction_stops_at_what_may_stay() {
        let mut log = log_with_terms(&[1, 1, 1, 1]);
        log.commit_to(LogIndex(4));
        log.note_durable(log.last());
        let one = log.frame(LogIndex(1)).expect("in memory").bytes().len();
        log.evict(4 * one, LogIndex(4));
        assert_eq!(log.first_cached(), LogIndex(1), "all of it may stay");
        log.evict(2 * one, LogIndex(4));
        assert_eq!(log.first_cached(), LogIndex(3), "and now the newer half");
    }

    #[test]
    fn frames_are_taken_up_to_the_limit_and_never_none() {
        let log = log_with_terms(&[1, 1, 1]);
        let one = log.frame(LogIndex(1)).expect("in memory").bytes().len();
        for (limit, count) in [(0, 1), (one, 1), (2 * one - 1, 1), (2 * one, 2), (3 * one, 3), (9 * one, 3)] {
            assert_eq!(log.frames_from(LogIndex(1), limit).len(), count, "{limit} bytes");
        }
    }

    #[test]
    fn bytes_are_those_of_the_frames_in_memory_and_of_the_undecided_ones() {
        let one = log_with_terms(&[1]).cached_bytes();
        let mut log = log_with_terms(&[1, 1, 1, 1, 2]);
        let bytes = |log: &Log| (log.cached_bytes() / one, log.undecided_bytes() / one);
        assert_eq!(bytes(&log), (5, 5));
        log.truncate(LogIndex(4));
        assert_eq!(bytes(&log), (3, 3));
        log.commit_to(LogIndex(2));
        assert_eq!(bytes(&log), (3, 1));
        log.note_durable(log.last());
        log.evict(0, LogIndex(1));
        assert_eq!(bytes(&log), (2, 1));
    }

    #[test]
    fn the_last_timestamp_outlives_its_frame_in_memory() {
        let mut log = log_with_terms(&[]);
        assert_eq!(log.last_timestamp(), 0);
        for timestamp_ms in [70, 90] {
            let head = FrameHead { group: GroupId::FIRST, term: Term(1), previous: log.last(), timestamp_ms };
            log.append(FrameBuilder::noop(head));
            log.commit_to(log.last().index);
            log.note_durable(log.last());
            log.evict(0, log.commit());
            assert_eq!((log.cached_bytes(), log.last_timestamp()), (0, timestamp_ms));
        }
    }
}
