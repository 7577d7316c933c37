//! Where an index lies on disk, sparsely: one mark every 128 KiB of log instead of one for every entry.
//!
//! A mark covers the indices from its own to the next mark's. Whoever looks for an index reads forward from
//! the mark that covers it. Invariant: marks ascend in index and in place, and within the indices that a mark
//! covers no envelope supersedes another, because superseding sets a mark; so the first match found is the
//! live one.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use crate::id::LogIndex;

/// A place in the log's files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Number of the segment.
    pub segment: u64,
    /// Byte in its file; a multiple of the block.
    pub offset: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark {
    first: LogIndex,
    at: Position,
    sequence: u64,
}

/// Where to start reading for an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Located {
    /// An envelope at or before the one that holds the index.
    pub at: Position,
    /// Indices from here on are found from another mark.
    pub until: LogIndex,
    /// The sequence of the envelope that stands there; those after it count on from it.
    pub sequence: u64,
}

/// The map.
#[derive(Clone, Debug)]
pub struct Positions {
    marks: Vec<Mark>,
    spacing: u64,
    since_mark: u64,
    /// The entry before the first one on disk.
    base: LogIndex,
    last: LogIndex,
}

/// An envelope as the map sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Placed {
    pub first: LogIndex,
    pub last: LogIndex,
    pub at: Position,
    pub bytes: u64,
    pub sequence: u64,
}

impl Positions {
    /// The distance between marks in production.
    pub(crate) const SPACING: u64 = 128 << 10;

    pub(crate) fn new(base: LogIndex, spacing: u64) -> Self {
        Self { marks: Vec::new(), spacing, since_mark: 0, base, last: base }
    }

    /// The first index on disk (if the log is not empty).
    pub(crate) fn first(&self) -> LogIndex {
        self.base.next()
    }

    /// The entry before the first one on disk.
    pub(crate) fn base(&self) -> LogIndex {
        self.base
    }

    /// Everything up to `base` is gone, and with it all segments before `segment`.
    pub(crate) fn begin_after(&mut self, base: LogIndex, segment: u64) {
        assert!(base >= self.base && base <= self.last, "a log gets shorter at its front: {base}");
        self.base = base;
        self.marks.drain(..self.marks.partition_point(|mark| mark.at.segment < segment));
        assert!(
            self.marks.first().map_or(self.last == base, |mark| mark.first == base.next()),
            "what is left begins with a mark"
        );
    }

    /// The last index on disk.
    pub(crate) fn last(&self) -> LogIndex {
        self.last
    }

    /// Takes note of an envelope that is on disk; it supersedes everything from its first index on.
    pub(crate) fn push(&mut self, placed: Placed) {
        let Placed { first, last, at, bytes, sequence } = placed;
        assert!(
            first > self.base && first <= self.last.next(),
            "{placed:?} leaves a gap after {}",
            self.last
        );
        assert!(last >= first && self.marks.last().is_none_or(|mark| mark.at < at), "{placed:?}");
        let supersedes = first <= self.last;
        if supersedes {
            let keep = self.marks.partition_point(|mark| mark.first < first);
            self.marks.truncate(keep);
        }
        let new_segment = self.marks.last().is_none_or(|mark| mark.at.segment != at.segment);
        if supersedes || new_segment || self.since_mark >= self.spacing {
            self.marks.push(Mark { first, at, sequence });
            self.since_mark = 0;
        }
        self.since_mark += bytes;
        self.last = last;
    }

    pub(crate) fn locate(&self, index: LogIndex) -> Option<Located> {
        if index <= self.base || index > self.last {
            return None;
        }
        let after = self.marks.partition_point(|mark| mark.first <= index);
        let mark = self.marks[after.checked_sub(1).expect("the first mark covers the first index")];
        let until = self.marks.get(after).map_or(self.last.next(), |next| next.first);
        assert!(mark.first <= index && index < until, "a mark covers what it is found for");
        Some(Located { at: mark.at, until, sequence: mark.sequence })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placed(first: u64, last: u64, segment: u64, offset: u64) -> Placed {
        let (first, last, at) = (LogIndex(first), LogIndex(last), Position { segment, offset });
        Placed { first, last, at, bytes: 4096, sequence: offset / 4096 }
    }

    #[test]
    fn an_index_is_found_from_the_mark_before_it_and_superseded_ones_are_not() {
        let mut map = Positions::new(LogIndex::ZERO, 8192);
        for (n, at) in (1..=6).zip((4096..).step_by(4096)) {
            map.push(placed(n, n, 1, at));
        }
        // Marks stand at 1, 3, 5.
        let found = |map: &Positions, n| map.locate(LogIndex(n)).map(|l| (l.at.offset, l.until.0));
        assert_eq!(found(&map, 4), Some((3 * 4096, 5)));
        map.push(placed(4, 4, 1, 7 * 4096));
        assert_eq!(found(&map, 3), Some((3 * 4096, 4)));
        assert_eq!(found(&map, 4), Some((7 * 4096, 5)));
        assert_eq!(found(&map, 5), None);
        map.push(placed(5, 9, 2, 4096));
        assert_eq!(found(&map, 9), Some((4096, 10)));
        assert_eq!((map.first(), map.last()), (LogIndex(1), LogIndex(9)));
    }
}
