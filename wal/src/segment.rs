//! The header of a segment file, and the names of files.
//!
//! A header says whose segment it is and where the log stood when it began; by existing it proves that
//! everything before it was flushed. Its nonce keeps any other bytes from being taken for this segment's
//! envelopes.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use crate::frame::{u32_at, u64_at, u128_at};
use crate::id::{ChainHash, ClusterId, EntryId, GroupId, LogIndex, NodeId, Term};
use crate::open::MAX_SEGMENT_BYTES;
use crate::sector::{self, BLOCK_U64, Record, Unreadable};
use crate::state::Held;

const MAGIC: [u8; 8] = *b"d-segmt\0";
const NUMBER_AT: usize = 40;
/// Where the first envelope of a segment stands.
pub const FIRST_OFFSET: u64 = BLOCK_U64;
/// The smallest segment: a header and one block.
pub const MIN_SEGMENT_BYTES: u64 = 2 * BLOCK_U64;
/// The name of a file that is still being made. Never read.
pub const SPARE_NAME: &str = "spare.tmp";

/// Whose log it is. Everything on disk carries it, and nothing of another identity is ever read as this
/// one's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// The cluster.
    pub cluster: ClusterId,
    /// The member whose directory it is.
    pub node: NodeId,
    /// The Raft group.
    pub group: GroupId,
}

impl Identity {
    /// The entry before the first one of this log.
    #[must_use]
    pub fn origin(&self) -> EntryId {
        crate::frame::origin(self.cluster, self.group)
    }
}

/// What stands before a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Predecessor {
    /// Sequence of the last envelope before it; zero before the first.
    pub sequence: u64,
    /// The last entry before it.
    pub last: EntryId,
    /// The greatest last entry that the log ever had before it.
    pub peak: Held,
}

impl Predecessor {
    /// What stands before the first segment.
    #[must_use]
    pub fn of_new_log(identity: &Identity) -> Self {
        Self { sequence: 0, last: identity.origin(), peak: Held::default() }
    }
}

/// The header of a segment, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// Whose it is.
    pub identity: Identity,
    /// Position among the segments, from 1, dense.
    pub number: u64,
    /// Bytes of the whole file.
    pub bytes: u64,
    /// Chosen at random for this segment.
    pub nonce: u128,
    /// Where the log stood.
    pub predecessor: Predecessor,
}

/// Why a block is not the expected header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeaderProblem {
    /// No copy is whole.
    Damaged,
    /// Another program wrote it.
    Version(u32),
    /// It belongs to another log.
    Foreign(Identity),
    /// Whole, and no writer makes it.
    Impossible(&'static str),
}

impl From<Unreadable> for HeaderProblem {
    fn from(unreadable: Unreadable) -> Self {
        match unreadable {
            Unreadable::Damaged => Self::Damaged,
            Unreadable::Version(version) => Self::Version(version),
        }
    }
}

pub(crate) fn identity_into(record: &mut Record, identity: &Identity) {
    record[12..16].copy_from_slice(&identity.group.0.to_le_bytes());
    record[16..32].copy_from_slice(&identity.cluster.0.to_le_bytes());
    record[32..40].copy_from_slice(&identity.node.0.to_le_bytes());
}

pub(crate) fn identity_from(record: &Record) -> Identity {
    Identity {
        cluster: ClusterId(u128_at(record, 16)),
        node: NodeId(u64_at(record, 32)),
        group: GroupId(u32_at(record, 12)),
    }
}

impl SegmentHeader {
    /// Writes the block at the front of the file.
    pub fn fill(&self, block: &mut [u8]) {
        assert!(self.number > 0, "segments count from 1");
        assert!(self.bytes >= MIN_SEGMENT_BYTES && self.bytes.is_multiple_of(BLOCK_U64), "whole blocks");
        let mut record = sector::blank(MAGIC);
        identity_into(&mut record, &self.identity);
        let Predecessor { sequence, last, peak } = self.predecessor;
        assert!(peak >= Held::from(last), "the last entry was the log's last");
        for (at, value) in [
            (NUMBER_AT, self.number),
            (48, self.bytes),
            (72, sequence),
            (80, last.index.0),
            (88, last.term.0),
            (112, peak.term.0),
            (120, peak.index.0),
        ] {
            record[at..at + 8].copy_from_slice(&value.to_le_bytes());
        }
        record[56..72].copy_from_slice(&self.nonce.to_le_bytes());
        record[96..112].copy_from_slice(&last.hash.0.to_le_bytes());
        sector::seal(&mut record);
        sector::fill(&record, block);
    }

    /// Reads the block at the front of a file that should be `identity`'s.
    ///
    /// # Errors
    /// [`HeaderProblem`].
    pub fn parse(block: &[u8], identity: &Identity) -> Result<Self, HeaderProblem> {
        let record = sector::newest(block, MAGIC, NUMBER_AT)?;
        let header = Self {
            identity: identity_from(&record),
            number: u64_at(&record, NUMBER_AT),
            bytes: u64_at(&record, 48),
            nonce: u128_at(&record, 56),
            predecessor: Predecessor {
                sequence: u64_at(&record, 72),
                last: EntryId {
                    index: LogIndex(u64_at(&record, 80)),
                    term: Term(u64_at(&record, 88)),
                    hash: ChainHash(u128_at(&record, 96)),
                },
                peak: Held { term: Term(u64_at(&record, 112)), index: LogIndex(u64_at(&record, 120)) },
            },
        };
        if header.identity != *identity {
            return Err(HeaderProblem::Foreign(header.identity));
        }
        if header.number == 0 {
            return Err(HeaderProblem::Impossible("its number is zero"));
        }
        if header.bytes > MAX_SEGMENT_BYTES {
            return Err(HeaderProblem::Impossible("its size is beyond the largest there is"));
        }
        if header.predecessor.peak < Held::from(header.predecessor.last) {
            return Err(HeaderProblem::Impossible("the last entry before it is beyond the log's furthest"));
        }
        if header.bytes < MIN_SEGMENT_BYTES || !header.bytes.is_multiple_of(BLOCK_U64) {
            return Err(HeaderProblem::Impossible("its size is no whole number of blocks"));
        }
        Ok(header)
    }
}

/// The name of segment `number`.
#[must_use]
pub fn segment_name(number: u64) -> String {
    format!("log-{number:016x}.seg")
}

/// Where a damaged segment is kept for people. Never read.
pub(crate) fn damaged_name(number: u64) -> String {
    format!("{}.damaged", segment_name(number))
}

/// The number in a segment's name; `None` for any other name, also one that [`segment_name`] would not make.
#[must_use]
pub fn segment_number(name: &str) -> Option<u64> {
    let digits = name.strip_prefix("log-")?.strip_suffix(".seg")?;
    let number = u64::from_str_radix(digits, 16).ok()?;
    (segment_name(number) == name).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_one_to_one() {
        for number in [1, 0xab, u64::MAX] {
            assert_eq!(segment_number(&segment_name(number)), Some(number));
        }
        for name in
            ["log-1.seg", "log-00000000000000AB.seg", "log-+000000000000001.seg", "spare.tmp", "log-.seg"]
        {
            assert_eq!(segment_number(name), None, "{name}");
        }
    }

    #[test]
    fn a_header_comes_back_and_only_for_its_owner() {
        let identity = Identity { cluster: ClusterId(7), node: NodeId(1), group: GroupId::FIRST };
        let header = SegmentHeader {
            identity,
            number: 3,
            bytes: 3 * BLOCK_U64,
            nonce: 99,
            predecessor: Predecessor { sequence: 12, ..Predecessor::of_new_log(&identity) },
        };
        let mut block = vec![0; sector::BLOCK];
        header.fill(&mut block);
        assert_eq!(SegmentHeader::parse(&block, &identity), Ok(header));
        let other = Identity { node: NodeId(2), ..identity };
        assert_eq!(SegmentHeader::parse(&block, &other), Err(HeaderProblem::Foreign(identity)));
    }
}
