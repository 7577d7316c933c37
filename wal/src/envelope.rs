//! The envelope: one write of the log. A header, then frames as they are, then zeros up to a whole block.
//!
//! The append path hashes 264 bytes here and nothing of the body: the frames' chained hashes vouch for it,
//! and the header names both ends of the chain. [`Header::parse`] is the gateway for the header,
//! [`check_body`] for the rest; together they leave no bit of an envelope free to change. Layout:
//! `FORMAT.md`.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use crate::frame::{Frame, FrameError, u16_at, u32_at, u64_at, u128_at};
use crate::id::{ChainHash, EntryId, LogIndex, Term};
use crate::sector::{BLOCK, BLOCK_U64};
use crate::segment::{Identity, SegmentHeader};
use crate::state::Held;
use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_128;

/// Bytes before the first frame.
pub const HEADER_BYTES: usize = 256;

const MAGIC: [u8; 4] = *b"dEv1";
const VERSION: u16 = 2;
const RESERVED_AT: usize = 160;
const HASH_AT: usize = 240;
const OWNER_BYTES: usize = 24;

const _: () = assert!(HASH_AT + 16 == HEADER_BYTES, "the hash closes the header");
const _: () = assert!(HEADER_BYTES.is_multiple_of(crate::frame::ALIGNMENT), "frames keep their alignment");

/// What a write says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub frames: u32,
    pub sequence: u64,
    /// Bytes of frames.
    pub payload: u64,
    /// The entry before the first frame.
    pub previous: EntryId,
    pub first_term: Term,
    pub last: EntryId,
    pub commit: LogIndex,
    /// Newest envelope known flushed when this one was written.
    pub log_mark: u64,
    /// Newest state record known flushed when this one was written.
    pub state_mark: u64,
    /// The greatest last entry that the log ever had before this one was written: what a repair needs to know when
    /// the envelopes before it are gone.
    pub peak: Held,
}

/// A whole header somewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sighting {
    pub sequence: u64,
    pub log_mark: u64,
    pub state_mark: u64,
    /// The greatest last entry that the log had with it and before it.
    pub peak: Held,
}

/// Why bytes at a block are not an envelope of this segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotAnEnvelope {
    /// The first block is zeros, as a segment is made.
    Blank,
    /// Anything else.
    Garbage,
    /// The hash holds, but the fields contradict each other: no writer of this version makes that.
    Impossible(&'static str),
    /// The hash holds for another format version.
    Version(u16),
}

fn hash(segment: &SegmentHeader, header: &[u8]) -> u128 {
    let mut covered = [0_u8; OWNER_BYTES + HASH_AT];
    covered[..16].copy_from_slice(&segment.identity.cluster.0.to_le_bytes());
    covered[16..OWNER_BYTES].copy_from_slice(&segment.identity.node.0.to_le_bytes());
    covered[OWNER_BYTES..].copy_from_slice(&header[..HASH_AT]);
    xxh3_128(&covered)
}

/// Bytes on disk of an envelope with `payload` bytes of frames.
pub(crate) const fn disk_bytes(payload: usize) -> usize {
    (HEADER_BYTES + payload).next_multiple_of(BLOCK)
}

fn peak_at(b: &[u8]) -> Held {
    Held { term: Term(u64_at(b, 144)), index: LogIndex(u64_at(b, 152)) }
}

impl Header {
    pub(crate) fn first_index(&self) -> LogIndex {
        self.previous.index.next()
    }

    /// Bytes on disk, padding included. Bounded by the segment, which [`Header::parse`] checked.
    pub(crate) fn disk_bytes(&self) -> u64 {
        (HEADER_BYTES as u64 + self.payload).next_multiple_of(BLOCK_U64)
    }

    /// Writes the header into the first [`HEADER_BYTES`] of `out`.
    pub(crate) fn fill(&self, segment: &SegmentHeader, out: &mut [u8]) {
        assert!(self.frames > 0 && self.sequence > self.log_mark, "{self:?}");
        assert!(self.last.index > self.previous.index && self.commit <= self.last.index, "{self:?}");
        assert!(self.peak >= Held::from(self.previous), "what it continues was in the log: {self:?}");
        let out = &mut out[..HEADER_BYTES];
        out.fill(0);
        out[..4].copy_from_slice(&MAGIC);
        out[4..6].copy_from_slice(&VERSION.to_le_bytes());
        out[8..12].copy_from_slice(&segment.identity.group.0.to_le_bytes());
        out[12..16].copy_from_slice(&self.frames.to_le_bytes());
        for (at, value) in [
            (16, self.sequence),
            (24, self.payload),
            (32, self.first_index().0),
            (40, self.last.index.0),
            (48, self.first_term.0),
            (56, self.last.term.0),
            (64, self.previous.term.0),
            (104, self.commit.0),
            (112, self.log_mark),
            (120, self.state_mark),
            (144, self.peak.term.0),
            (152, self.peak.index.0),
        ] {
            out[at..at + 8].copy_from_slice(&value.to_le_bytes());
        }
        out[72..88].copy_from_slice(&self.previous.hash.0.to_le_bytes());
        out[88..104].copy_from_slice(&self.last.hash.0.to_le_bytes());
        out[128..144].copy_from_slice(&segment.nonce.to_le_bytes());
        let hash = hash(segment, out);
        out[HASH_AT..].copy_from_slice(&hash.to_le_bytes());
    }

    /// Sequence and log mark of a header of this segment, wherever the bytes were found: what it says of the
    /// past is true even if it does not belong where it is.
    pub(crate) fn sight(bytes: &[u8], segment: &SegmentHeader) -> Option<Sighting> {
        let b = bytes.get(..HEADER_BYTES)?;
        let nonce = u128_at(b, 128) == segment.nonce || crate::mutant!("no_nonce_check");
        let ours = b[..4] == MAGIC && nonce && u128_at(b, HASH_AT) == hash(segment, b);
        let last = Held { term: Term(u64_at(b, 56)), index: LogIndex(u64_at(b, 40)) };
        ours.then(|| Sighting {
            sequence: u64_at(b, 16),
            log_mark: u64_at(b, 112),
            state_mark: u64_at(b, 120),
            peak: peak_at(b).max(last),
        })
    }

    /// Checks the header of an envelope that would start at `offset` of `segment`. `block` holds at least one
    /// block.
    pub(crate) fn parse(block: &[u8], segment: &SegmentHeader, offset: u64) -> Result<Self, NotAnEnvelope> {
        assert!(block.len() >= BLOCK && offset.is_multiple_of(BLOCK_U64), "read in blocks");
        let b = &block[..HEADER_BYTES];
        if Self::sight(b, segment).is_none() {
            let blank = block[..BLOCK].iter().all(|&byte| byte == 0);
            return Err(if blank { NotAnEnvelope::Blank } else { NotAnEnvelope::Garbage });
        }
        if u16_at(b, 4) != VERSION {
            return Err(NotAnEnvelope::Version(u16_at(b, 4)));
        }
        let (first, last) = (u64_at(b, 32), u64_at(b, 40));
        let header = Self {
            frames: u32_at(b, 12),
            sequence: u64_at(b, 16),
            payload: u64_at(b, 24),
            previous: EntryId {
                index: LogIndex(first).previous(),
                term: Term(u64_at(b, 64)),
                hash: ChainHash(u128_at(b, 72)),
            },
            first_term: Term(u64_at(b, 48)),
            last: EntryId {
                index: LogIndex(last),
                term: Term(u64_at(b, 56)),
                hash: ChainHash(u128_at(b, 88)),
            },
            commit: LogIndex(u64_at(b, 104)),
            log_mark: u64_at(b, 112),
            state_mark: u64_at(b, 120),
            peak: peak_at(b),
        };
        // The length is bounded before anything is read or allocated for it.
        let room = segment.bytes.saturating_sub(offset);
        if header.payload > room || header.disk_bytes() > room {
            return Err(NotAnEnvelope::Impossible("it reaches over the end of its segment"));
        }
        let span = last.checked_sub(first).map(|more| more.saturating_add(1));
        if first == 0 || span != Some(u64::from(header.frames)) {
            return Err(NotAnEnvelope::Impossible("its indices do not fit its number of frames"));
        }
        if header.previous.term > header.first_term || header.first_term > header.last.term {
            return Err(NotAnEnvelope::Impossible("its terms fall"));
        }
        if header.peak < Held::from(header.previous) {
            return Err(NotAnEnvelope::Impossible("it continues an entry that was never in the log"));
        }
        if header.commit > header.last.index {
            return Err(NotAnEnvelope::Impossible("its commit mark lies beyond it"));
        }
        if header.log_mark >= header.sequence {
            return Err(NotAnEnvelope::Impossible("it says that it was flushed before it was written"));
        }
        if u16_at(b, 6) != 0
            || u32_at(b, 8) != segment.identity.group.0
            || b[RESERVED_AT..HASH_AT].iter().any(|&b| b != 0)
        {
            return Err(NotAnEnvelope::Impossible("a reserved field or the group is not as written"));
        }
        Ok(header)
    }
}

/// What is wrong with a body whose header is whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum BodyProblem {
    Frame { offset: usize, error: FrameError },
    Chain { index: LogIndex },
    Padding { offset: usize },
}

impl std::fmt::Display for BodyProblem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Frame { offset, error } => write!(f, "{error} (byte {offset} of the envelope)"),
            Self::Chain { index } => {
                write!(f, "the frame at index {index} does not continue the one before it")
            }
            Self::Padding { offset } => write!(f, "byte {offset} of the padding is not zero"),
        }
    }
}

/// Checks everything after the header: `envelope` is the whole of it, header and padding included.
pub(crate) fn check_body(
    header: &Header,
    identity: &Identity,
    envelope: &Bytes,
    mut take: impl FnMut(Frame),
) -> Result<(), BodyProblem> {
    assert_eq!(envelope.len() as u64, header.disk_bytes(), "the caller reads what the header states");
    let end = HEADER_BYTES + usize::try_from(header.payload).expect("parse bounded it by the segment");
    let mut rest = envelope.slice(HEADER_BYTES..end);
    let mut previous = header.previous;
    for _ in 0..header.frames {
        let offset = end - rest.len();
        let frame = Frame::parse(&mut rest).map_err(|error| BodyProblem::Frame { offset, error })?;
        if !frame.follows(previous) || frame.group() != identity.group {
            return Err(BodyProblem::Chain { index: frame.index() });
        }
        previous = frame.id();
        take(frame);
    }
    if previous != header.last || !rest.is_empty() {
        return Err(BodyProblem::Chain { index: previous.index });
    }
    padding_defect(envelope, end).map_or(Ok(()), Err)
}

/// The first byte behind the frames, which end at `end`, that is not zero.
pub(crate) fn padding_defect(envelope: &[u8], end: usize) -> Option<BodyProblem> {
    let at = envelope[end..].iter().position(|&byte| byte != 0)?;
    Some(BodyProblem::Padding { offset: end + at })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{FrameBuilder, FrameHead};
    use crate::id::{ClusterId, GroupId, NodeId};
    use crate::segment::Predecessor;

    fn segment() -> SegmentHeader {
        let identity = Identity { cluster: ClusterId(5), node: NodeId(2), group: GroupId::FIRST };
        let predecessor = Predecessor::of_new_log(&identity);
        SegmentHeader { identity, number: 1, bytes: 16 * BLOCK_U64, nonce: 77, predecessor }
    }

    fn envelope() -> (Header, Bytes) {
        let segment = segment();
        let head = FrameHead {
            group: GroupId::FIRST,
            term: Term(1),
            previous: segment.predecessor.last,
            timestamp_ms: 1,
        };
        let mut builder = FrameBuilder::with_capacity(64);
        builder.push_command(b"one");
        let first = builder.commands(head);
        let second = FrameBuilder::noop(FrameHead { previous: first.id(), term: Term(2), ..head });
        let payload = first.bytes().len() + second.bytes().len();
        let header = Header {
            frames: 2,
            sequence: 1,
            payload: payload as u64,
            previous: head.previous,
            first_term: Term(1),
            last: second.id(),
            commit: LogIndex(1),
            log_mark: 0,
            state_mark: 3,
            peak: Held::default(),
        };
        let mut bytes = vec![0; disk_bytes(payload)];
        header.fill(&segment, &mut bytes);
        bytes[HEADER_BYTES..][..first.bytes().len()].copy_from_slice(first.bytes());
        bytes[HEADER_BYTES + first.bytes().len()..][..second.bytes().len()].copy_from_slice(second.bytes());
        (header, bytes.into())
    }

    fn is_whole(bytes: &[u8]) -> bool {
        let bytes = Bytes::copy_from_slice(bytes);
        Header::parse(&bytes, &segment(), FIRST)
            .is_ok_and(|header| check_body(&header, &segment().identity, &bytes, |_| ()).is_ok())
    }

    const FIRST: u64 = crate::segment::FIRST_OFFSET;

    #[test]
    fn an_envelope_comes_back() {
        let (header, bytes) = envelope();
        assert_eq!(Header::parse(&bytes, &segment(), FIRST), Ok(header));
        let mut indices = Vec::new();
        check_body(&header, &segment().identity, &bytes, |frame| indices.push(frame.index().0))
            .expect("whole");
        assert_eq!(indices, [1, 2]);
    }

    #[test]
    fn every_flipped_bit_is_seen() {
        let (_, bytes) = envelope();
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.to_vec();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(!is_whole(&damaged), "bit {bit}");
        }
    }

    #[test]
    fn another_nonce_node_or_cluster_is_garbage() {
        let (_, bytes) = envelope();
        let mut others = [segment(); 3];
        others[0].nonce += 1;
        others[1].identity.node = NodeId(3);
        others[2].identity.cluster = ClusterId(6);
        for other in others {
            assert_eq!(Header::parse(&bytes, &other, FIRST), Err(NotAnEnvelope::Garbage));
        }
    }

    #[test]
    fn a_length_beyond_the_segment_is_refused_before_it_is_read() {
        let (mut header, bytes) = envelope();
        let mut bytes = bytes.to_vec();
        for payload in [16 * BLOCK_U64, u64::MAX] {
            header.payload = payload;
            header.fill(&segment(), &mut bytes);
            assert!(matches!(Header::parse(&bytes, &segment(), FIRST), Err(NotAnEnvelope::Impossible(_))));
        }
    }

    /// The header with these fields otherwise, and the hash over them.
    fn with(fields: &[(usize, u64)]) -> Result<Header, NotAnEnvelope> {
        let mut bytes = envelope().1.to_vec();
        for &(at, value) in fields {
            bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
        }
        let hash = hash(&segment(), &bytes[..HEADER_BYTES]);
        bytes[HASH_AT..HEADER_BYTES].copy_from_slice(&hash.to_le_bytes());
        Header::parse(&bytes, &segment(), FIRST)
    }

    #[test]
    fn a_whole_header_that_no_writer_makes_is_refused_for_what_is_wrong_with_it() {
        let start = u64_at(&envelope().1, 0);
        let (room, header) = (15 * BLOCK_U64, HEADER_BYTES as u64);
        assert_eq!(
            with(&[(0, (start & 0xffff_ffff) | (0x0304 << 32))]),
            Err(NotAnEnvelope::Version(0x0304)),
            "the version comes before all that it gives a meaning to"
        );
        let reserved = "a reserved field or the group is not as written";
        let over = "it reaches over the end of its segment";
        let indices = "its indices do not fit its number of frames";
        // Where the fields of this one stand: group and frames at 8, first and last index at 32 and 40, the terms of the
        // first, the last and the previous entry at 48, 56 and 64.
        for (fields, wrong) in [
            (&[(24, room - header)][..], None),
            (&[(24, room - header + 1)], Some(over)),
            (&[(24, room + 1)], Some(over)),
            (&[(8, 3 << 32)], Some(indices)),
            (&[(8, 3 << 32), (32, 0)], Some(indices)),
            (&[(32, 3)], Some(indices)),
            (&[(48, 3)], Some("its terms fall")),
            (&[(64, 2), (144, 2)], Some("its terms fall")),
            (&[(64, 1), (144, 1)], None),
            (&[(64, 1)], Some("it continues an entry that was never in the log")),
            (&[(104, 2)], None),
            (&[(104, 3)], Some("its commit mark lies beyond it")),
            (&[(112, 1)], Some("it says that it was flushed before it was written")),
            (&[(16, 2), (112, 1)], None),
            (&[(0, start | (1 << 48))], Some(reserved)),
            (&[(0, start | (1 << 56))], Some(reserved)),
            (&[(8, (2 << 32) | 1)], Some(reserved)),
            (&[(8, (2 << 32) | (1 << 24))], Some(reserved)),
            (&[(RESERVED_AT, 1)], Some(reserved)),
            (&[(HASH_AT - 8, 1 << 56)], Some(reserved)),
        ] {
            let parsed = with(fields);
            assert_eq!(parsed.err(), wrong.map(NotAnEnvelope::Impossible), "{fields:?}");
        }
    }
}
