//! The changes that are kept, so that what was can be read and what happened can be told.
//!
//! A record says what a change *replaced*; what it made is found in the next record of the same key, or in the store. A put
//! then moves the old entry here instead of freeing it, and touches no other memory than the record itself and the one
//! before it of the same key: no second search, no copy, nothing shared and counted. The price is paid by readers of the
//! past, who follow a key's records back from the newest. A change costs 128 bytes beside its key and the value that it
//! replaced.
//!
//! Promises: every record of a revision from [`History::oldest`] on is kept, so that every state from there on can be read
//! and every change from there on be told. Nothing is kept without end: [`Retention`] bounds number, bytes and age, and
//! whoever compacts lets go of the rest by name.
//!
//! Deliberately not here: the newest state, which is the store's.

use super::entry::{Entry, Revision, Spare};
use super::event::RevisionError;
use super::key::Key;
use super::time::LogTime;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// How much history a node keeps. It is local: replicas may keep more or less of one history, and no command's answer
/// depends on it. The newest revision is always kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Changes: one for each key of a revision.
    pub changes: usize,
    /// Bytes that only the history holds: replaced and deleted values, the keys, and what it costs to note a change.
    pub bytes: u64,
    /// By log time, to about a sixty-fourth of it. `None` keeps changes however old they are.
    pub age: Option<Duration>,
}

impl Retention {
    /// 100,000 changes and 64 MiB, of any age.
    pub const DEFAULT: Self = Self { changes: 100_000, bytes: 64 << 20, age: None };
}

impl Default for Retention {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// Records that one entry of the log may let go of, beside twice as many as it makes: a compaction of all that there is then
/// does not hold up the loop.
const DROPPED_PER_ENTRY: usize = 1 << 10;

/// Marks of log time kept for an age.
const MARKS: u32 = 64;

/// Numbers the changes of a store from 1, on this node, in their order. 0 is no change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Position(u64);

impl Position {
    pub const NONE: Self = Self(0);
}

/// What a key was before a change.
#[derive(Clone, Debug)]
pub(super) enum Before {
    Present(Entry),
    /// With the change that had deleted it.
    Absent(Position),
}

impl Before {
    fn entry(&self) -> Option<&Entry> {
        match self {
            Self::Present(entry) => Some(entry),
            Self::Absent(_) => None,
        }
    }

    /// The lease that the key was attached to, 0 for none.
    pub fn lease(&self) -> u64 {
        self.entry().map_or(0, |entry| entry.lease)
    }

    /// The key's change before the one that replaced this.
    fn change(&self) -> Position {
        match self {
            Self::Present(entry) => entry.change,
            Self::Absent(change) => *change,
        }
    }
}

/// What a change left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Left {
    Value,
    Nothing,
}

/// A change of one key.
#[derive(Clone, Debug)]
pub(super) struct Record {
    pub revision: Revision,
    pub key: Key,
    before: Before,
    pub left: Left,
    /// The key's next change.
    next: Position,
}

impl Record {
    pub fn before(&self) -> Option<&Entry> {
        self.before.entry()
    }

    fn bytes(&self) -> u64 {
        let value = self.before().map_or(0, Entry::value_bytes);
        (size_of::<Self>() + self.key.as_slice().len() + value) as u64
    }
}

/// The records, and where those of each key begin.
#[derive(Clone, Debug)]
pub(super) struct History {
    /// Invariant: revisions do not fall; those of one revision are in the order of keys once its edit is finished.
    records: VecDeque<Record>,
    /// The position of the first of them.
    first: Position,
    /// Invariant: the sum over `records`.
    bytes: u64,
    /// The newest change of each key that is absent and has a record. Invariant: that change is a deletion.
    gone: BTreeMap<Key, Position>,
    oldest: Revision,
    /// The last compaction that was asked for by a command.
    compacted: Revision,
    retention: Retention,
    /// Log times with the revision that the store had come to by then.
    marks: VecDeque<(LogTime, Revision)>,
    spare: Spare,
}

impl History {
    pub fn new(retention: Retention) -> Self {
        Self {
            records: VecDeque::new(),
            first: Position(1),
            bytes: 0,
            gone: BTreeMap::new(),
            oldest: Revision::EMPTY,
            compacted: Revision::EMPTY,
            retention,
            marks: VecDeque::new(),
            spare: Spare::default(),
        }
    }

    /// Entries for what is put next.
    pub fn spare(&mut self) -> &mut Spare {
        &mut self.spare
    }

    pub fn set_retention(&mut self, retention: Retention) {
        self.retention = retention;
    }

    /// The oldest revision that can be read, and told from.
    pub fn oldest(&self) -> Revision {
        self.oldest
    }

    /// Number of changes that can be told, or are about to be let go of.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Where the next record will be.
    pub fn end(&self) -> Position {
        Position(self.first.0 + self.records.len() as u64)
    }

    fn index(&self, position: Position) -> Option<usize> {
        position.0.checked_sub(self.first.0).and_then(|index| usize::try_from(index).ok())
    }

    fn get(&self, position: Position) -> Option<&Record> {
        self.records.get(self.index(position)?)
    }

    /// Notes a change. `key` is in `gone` no longer if it was, see [`revive`](Self::revive).
    pub fn push(&mut self, revision: Revision, key: Key, before: Before, left: Left) {
        let end = self.end();
        self.link(before.change(), revision, end);
        if left == Left::Nothing {
            let former = self.gone.insert(key.clone(), end);
            assert!(former.is_none(), "a key that is absent is not deleted");
        }
        let record = Record { revision, key, before, left, next: Position::NONE };
        self.bytes += record.bytes();
        self.records.push_back(record);
    }

    /// The change at `position` is followed by one of the same key.
    fn link(&mut self, position: Position, revision: Revision, next: Position) {
        if let Some(former) = self.index(position).and_then(|index| self.records.get_mut(index)) {
            assert!(former.revision < revision, "a revision changes a key once");
            former.next = next;
        }
    }

    /// The key is about to be created: the change that had deleted it, if its record is kept.
    pub fn revive(&mut self, key: &[u8]) -> Position {
        if self.gone.is_empty() {
            return Position::NONE;
        }
        self.gone.remove(key).unwrap_or(Position::NONE)
    }

    /// Brings the records from `from` on, all of one revision, into the order of keys; `moved` learns where the changes of
    /// keys that are present have come to be.
    pub fn sort(&mut self, from: Position, mut moved: impl FnMut(&Key, Position)) {
        let index = self.index(from).expect("an edit's records are not let go of while it goes on");
        if self.records.range(index..).is_sorted_by(|a, b| a.key < b.key) {
            return;
        }
        let mut tail = Vec::from(self.records.split_off(index));
        tail.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        for record in tail {
            let end = self.end();
            self.link(record.before.change(), record.revision, end);
            match record.left {
                Left::Value => moved(&record.key, end),
                Left::Nothing => *self.gone.get_mut(&record.key).expect("it was just deleted") = end,
            }
            self.records.push_back(record);
        }
    }

    /// The last record.
    pub fn last(&self) -> Option<&Record> {
        self.records.back()
    }

    /// Lets go of everything below `revision`, because a command asked for it; `current` is the store's. What comes of it
    /// depends on the commands alone.
    pub fn compact(&mut self, revision: Revision, current: Revision) -> Result<Revision, RevisionError> {
        if revision > current {
            return Err(RevisionError::Future { requested: revision, current });
        }
        let compacted = if wal::mutant!("compaction_answer_is_local") { self.oldest } else { self.compacted };
        if revision <= compacted {
            return Err(RevisionError::Compacted { requested: revision, oldest: compacted });
        }
        self.compacted = revision;
        self.oldest = self.oldest.max(revision);
        Ok(revision)
    }

    /// An entry made at `now` begins, with the store at `current`.
    pub fn advance(&mut self, now: LogTime, current: Revision) {
        if let Some(age) = self.retention.age {
            let due = self.marks.back().is_none_or(|&(last, _)| last.after(age / MARKS) <= now);
            if due {
                self.marks.push_back((now, current));
            }
            while let Some(&(mark, revision)) = self.marks.front()
                && mark.after(age) <= now
            {
                self.oldest = self.oldest.max(revision.next().min(current));
                self.marks.pop_front();
            }
        }
        self.trim(DROPPED_PER_ENTRY, current);
    }

    /// An edit that made `changes` is finished, with the store at `current`. Twice as many may go: what is kept then falls
    /// back to its bounds however fast it has grown.
    pub fn settle(&mut self, changes: usize, current: Revision) {
        self.trim(2 * changes, current);
    }

    fn trim(&mut self, limit: usize, current: Revision) {
        let mut dropped = false;
        for _ in 0..limit {
            let Some(front) = self.records.front() else { break };
            let over = front.revision < self.oldest
                || self.records.len() > self.retention.changes
                || self.bytes > self.retention.bytes;
            // The newest revision can be told even by a history that may keep nothing: `oldest` never passes it.
            if !over || front.revision >= current {
                break;
            }
            self.drop_first();
            dropped = true;
        }
        // A large deletion is let go of after a while; so is the room that it took.
        if dropped && self.records.capacity() > 8 * self.records.len().max(1 << 10) {
            self.records.shrink_to(2 * self.records.len());
        }
    }

    fn drop_first(&mut self) {
        let record = self.records.pop_front().expect("asked for while there is one");
        self.bytes -= record.bytes();
        let oldest = if wal::mutant!("dropped_at_oldest") { record.revision } else { record.revision.next() };
        self.oldest = self.oldest.max(oldest);
        if record.left == Left::Nothing && record.next == Position::NONE {
            let position = self.gone.remove(&record.key);
            assert_eq!(position, Some(self.first), "a key that is gone is known by its deletion");
        }
        self.first.0 += 1;
        if let Before::Present(entry) = record.before {
            self.spare.give(entry);
        }
    }

    /// What was there at `at`, given what is there now. Goes back along the key's records.
    pub fn entry_at<'a>(&'a self, now: &'a Entry, at: Revision) -> Option<&'a Entry> {
        if now.modify_revision <= at { Some(now) } else { self.back(Some(now), now.change, at) }
    }

    /// The keys that are absent now and may have been present once, with their newest changes.
    pub fn gone(&self) -> &BTreeMap<Key, Position> {
        &self.gone
    }

    /// What was there at `at` of a key that is gone by the change at `deletion`.
    pub fn gone_at(&self, deletion: Position, at: Revision) -> Option<&Entry> {
        self.back(None, deletion, at)
    }

    /// The state of a key before its earliest change above `at`.
    fn back<'a>(&'a self, now: Option<&'a Entry>, newest: Position, at: Revision) -> Option<&'a Entry> {
        let (mut state, mut position) = (now, newest);
        while let Some(record) = self.get(position)
            && (record.revision > at || wal::mutant!("past_one_too_early") && record.revision == at)
        {
            (state, position) = (record.before.entry(), record.before.change());
        }
        state
    }

    /// The earliest change from `from` on among those that lead to the change at `newest`.
    pub fn earliest(&self, newest: Position, from: Revision) -> Option<&Record> {
        let mut found = None;
        let mut position = newest;
        while let Some(record) = self.get(position)
            && record.revision >= from
        {
            found = Some(record);
            position = record.before.change();
        }
        found
    }

    /// The same key's next change.
    pub fn next(&self, record: &Record) -> Option<&Record> {
        self.get(record.next)
    }

    /// What the change left; `newest` finds what is there now.
    pub fn after<'a>(
        &'a self,
        record: &'a Record,
        newest: impl FnOnce(&Key) -> Option<&'a Entry>,
    ) -> Option<&'a Entry> {
        match (record.left, self.next(record)) {
            (Left::Nothing, _) => None,
            (Left::Value, Some(next)) => next.before(),
            (Left::Value, None) => newest(&record.key),
        }
    }

    /// The records from `from` on.
    pub fn records_from(&self, from: Revision) -> impl Iterator<Item = &Record> {
        let index = self.records.partition_point(|record| record.revision < from);
        self.records.range(index..)
    }

    /// Checks what is true between two commands, with the keys that are there `now`.
    #[cfg(test)]
    pub fn check(&self, store: &super::Store) {
        assert_eq!(self.bytes, self.records.iter().map(Record::bytes).sum::<u64>());
        assert!(self.oldest >= self.compacted && self.oldest <= store.revision());
        let ordered = |a: &Record, b: &Record| (a.revision, &a.key) < (b.revision, &b.key);
        assert!(self.records.iter().is_sorted_by(|a, b| ordered(a, b)));
        let mut newest = BTreeMap::new();
        for (index, record) in self.records.iter().enumerate() {
            let position = Position(self.first.0 + index as u64);
            let former = newest.insert(record.key.clone(), (position, record.left));
            if let Some((former, left)) = former {
                assert_eq!(record.before.change(), former, "a record leads to the one before it");
                assert_eq!(self.get(former).expect("kept").next, position, "and that to it");
                assert_eq!(record.before.entry().is_some(), left == Left::Value);
            } else {
                assert!(record.before.change() < self.first);
            }
        }
        let absent = newest.iter().filter(|(_, (_, left))| *left == Left::Nothing);
        let gone: BTreeMap<_, _> = absent.map(|(key, &(position, _))| (key.clone(), position)).collect();
        assert_eq!(self.gone, gone);
        for (key, entry) in store.entries.iter() {
            match newest.get(key) {
                Some(&known) => assert_eq!(known, (entry.change, Left::Value)),
                None => assert!(entry.change < self.first),
            }
        }
    }
}
