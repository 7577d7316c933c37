//! The bytes themselves: what one build writes, every later one of this format version reads, and refuses what no build writes.
//!
//! Every field of these samples has a value of its own, so that a field that moves is seen on the side that moved.

use crate::MAX_SEGMENT_BYTES;
use crate::envelope::{self, BodyProblem, Header, NotAnEnvelope, Sighting, check_body};
use crate::frame::{self, Frame, FrameBuilder, FrameError, FrameHead, genesis};
use crate::id::{ChainHash, ClusterId, EntryId, GroupId, LogIndex, NodeId, Term};
use crate::sector::{BLOCK, SECTOR};
use crate::segment::{FIRST_OFFSET, HeaderProblem, Identity, MIN_SEGMENT_BYTES, Predecessor, SegmentHeader};
use crate::state::Held;
use bytes::Bytes;
use std::fmt::Write as _;
use xxhash_rust::xxh3::xxh3_128;

const IDENTITY: Identity = Identity {
    cluster: ClusterId(0x1112_1314_1516_1718_191a_1b1c_1d1e_1f10),
    node: NodeId(0x2122_2324_2526_2728),
    group: GroupId(0x3132_3334),
};

fn previous() -> EntryId {
    EntryId {
        index: LogIndex(0x4142_4344_4546_4748),
        term: Term(0x5152_5354_5556_5758),
        hash: ChainHash(0x6162_6364_6566_6768_696a_6b6c_6d6e_6f60),
    }
}

fn head() -> FrameHead {
    FrameHead {
        group: IDENTITY.group,
        term: Term(0x5252_5354_5556_5758),
        previous: previous(),
        timestamp_ms: 0x7172_7374_7576_7778,
    }
}

fn frame() -> Frame {
    let mut builder = FrameBuilder::with_capacity(64);
    builder.push_command(b"first");
    builder.push_command(b"2");
    builder.commands(head())
}

/// Lines of sixteen bytes; the same line again is left out.
fn hex(bytes: &[u8]) -> String {
    let (mut text, mut before) = (String::new(), None);
    for (at, line) in bytes.chunks(16).enumerate() {
        if before != Some(line) {
            let bytes: String = line.iter().fold(String::new(), |mut all, byte| {
                write!(all, "{byte:02x}").expect("a string");
                all
            });
            writeln!(text, "{:03x} {bytes}", at * 16).expect("a string");
        }
        before = Some(line);
    }
    text
}

#[test]
fn a_log_begins_with_its_cluster_and_group() {
    assert_eq!(genesis(IDENTITY.cluster, IDENTITY.group), ChainHash(GENESIS));
    let others = [
        genesis(ClusterId(IDENTITY.cluster.0 ^ 1 << 127), IDENTITY.group),
        genesis(ClusterId(IDENTITY.cluster.0 ^ 1), IDENTITY.group),
        genesis(IDENTITY.cluster, GroupId(IDENTITY.group.0 ^ 1 << 31)),
        genesis(IDENTITY.cluster, GroupId(IDENTITY.group.0 ^ 1)),
    ];
    assert!(others.iter().all(|&other| other != ChainHash(GENESIS)), "{others:?}");
}

#[test]
fn the_bytes_of_a_frame() {
    let frame = frame();
    assert_eq!(hex(frame.bytes()), FRAME);
    let parsed = Frame::parse(&mut frame.bytes().clone()).expect("whole");
    assert_eq!(parsed, frame);
    assert_eq!((parsed.index(), parsed.term()), (previous().index.next(), head().term));
    assert_eq!((parsed.previous(), parsed.group()), (previous(), IDENTITY.group));
    assert_eq!((parsed.timestamp_ms(), parsed.command_count()), (head().timestamp_ms, 2));
}

/// The frame with other bytes at a place of its header, and the hash over them.
fn frame_with(fields: &[(usize, &[u8])]) -> Result<Frame, FrameError> {
    let mut bytes = frame().bytes().to_vec();
    for &(at, field) in fields {
        bytes[at..at + field.len()].copy_from_slice(field);
    }
    let hash = xxh3_128(&bytes[..96]);
    bytes[96..112].copy_from_slice(&hash.to_le_bytes());
    Frame::parse(&mut bytes.into())
}

#[test]
fn every_byte_of_a_field_counts() {
    for byte in 0..4 {
        let value = 1_u32 << (8 * byte);
        let refused = |field| Err(FrameError::Field { field, value: u64::from(value) });
        assert_eq!(frame_with(&[(52, &value.to_le_bytes())]), refused("flags"), "byte {byte}");
    }
    for byte in 0..8 {
        let value = 1_u64 << (8 * byte);
        let with = |at| frame_with(&[(at, &value.to_le_bytes())]);
        assert_eq!(with(56), Err(FrameError::Field { field: "reserved", value }), "byte {byte}");
        let term = 9_u64.to_le_bytes();
        let at_index = frame_with(&[(16, &term), (24, &value.to_le_bytes()), (32, &term)]).expect("an index");
        assert_eq!(at_index.index(), LogIndex(value));
        // A term is at least the one before it, by any of its bytes.
        let of_terms =
            |term: u64, before: u64| frame_with(&[(16, &term.to_le_bytes()), (32, &before.to_le_bytes())]);
        assert!(of_terms(value, value).is_ok() && of_terms(value, value - 1).is_ok(), "byte {byte}");
        let refused = Err(FrameError::Field { field: "previous term", value });
        assert_eq!(of_terms(value - 1, value), refused, "byte {byte}");
    }
}

/// A newer format is named although its hash may lie elsewhere; this one's is damaged then.
#[test]
fn a_header_that_does_not_match_its_hash_is_damaged_or_another_versions() {
    let mut bytes = frame().bytes().to_vec();
    bytes[40] ^= 1;
    assert_eq!(Frame::parse(&mut bytes.clone().into()), Err(FrameError::HeaderHash));
    bytes[5] = 7;
    assert_eq!(Frame::parse(&mut bytes.into()), Err(FrameError::Version(0x0701)));
}

#[test]
fn a_body_is_refused_for_what_is_wrong_with_it() {
    let frame = frame();
    let mut padding = frame.bytes().to_vec();
    *padding.last_mut().expect("a byte") = 9;
    let refused = FrameError::Field { field: "padding", value: 9 };
    assert_eq!(Frame::parse(&mut padding.into()), Err(refused));
    let miscounted = FrameError::Commands { index: frame.index(), count: 3 };
    assert_eq!(frame_with(&[(48, &[3])]), Err(miscounted));
    let noop = FrameError::Field { field: "body length of a no-op", value: 14 };
    assert_eq!(frame_with(&[(6, &[1, 0]), (48, &[0])]), Err(noop));
}

fn segment() -> SegmentHeader {
    SegmentHeader {
        identity: IDENTITY,
        number: 0x8182_8384_8586_8788,
        bytes: 16 * BLOCK as u64,
        nonce: 0x9192_9394_9596_9798_999a_9b9c_9d9e_9f90,
        predecessor: Predecessor {
            sequence: 0xa1a2_a3a4_a5a6_a7a8,
            last: previous(),
            peak: Held { term: Term(0xb1b2_b3b4_b5b6_b7b8), index: LogIndex(0xb2b3_b4b5_b6b7_b8b9) },
        },
    }
}

fn block_of(segment: &SegmentHeader) -> Vec<u8> {
    let mut block = vec![0; BLOCK];
    segment.fill(&mut block);
    block
}

#[test]
fn the_bytes_of_a_segments_header() {
    let block = block_of(&segment());
    assert_eq!(hex(&block[..SECTOR]), SEGMENT);
    assert!(block.chunks(SECTOR).all(|copy| copy == &block[..SECTOR]), "eight copies");
    assert_eq!(SegmentHeader::parse(&block, &IDENTITY), Ok(segment()));
}

/// The block with another number at a place of the header, and the hashes over it.
fn segment_with(at: usize, value: u64) -> Result<SegmentHeader, HeaderProblem> {
    let mut block = block_of(&segment());
    for copy in block.chunks_exact_mut(SECTOR) {
        copy[at..at + 8].copy_from_slice(&value.to_le_bytes());
        let hash = xxh3_128(&copy[..SECTOR - 16]);
        copy[SECTOR - 16..].copy_from_slice(&hash.to_le_bytes());
    }
    SegmentHeader::parse(&block, &IDENTITY)
}

#[test]
fn a_segments_size_has_limits_and_is_whole_blocks() {
    let block = BLOCK as u64;
    let size = "its size is no whole number of blocks";
    let beyond = "its size is beyond the largest there is";
    for (bytes, wrong) in [
        (0, Some(size)),
        (block, Some(size)),
        (MIN_SEGMENT_BYTES, None),
        (MIN_SEGMENT_BYTES + 1, Some(size)),
        (MIN_SEGMENT_BYTES + block, None),
        (MAX_SEGMENT_BYTES - 1, Some(size)),
        (MAX_SEGMENT_BYTES, None),
        (MAX_SEGMENT_BYTES + block, Some(beyond)),
        (u64::MAX, Some(beyond)),
    ] {
        let parsed = segment_with(48, bytes);
        assert_eq!(parsed.err(), wrong.map(HeaderProblem::Impossible), "{bytes}");
    }
    assert_eq!(segment_with(40, 0), Err(HeaderProblem::Impossible("its number is zero")));
    let furthest = "the last entry before it is beyond the log's furthest";
    assert_eq!(segment_with(112, previous().term.0 - 1), Err(HeaderProblem::Impossible(furthest)));
    let foreign = Identity { node: NodeId(5), ..IDENTITY };
    assert_eq!(segment_with(32, 5), Err(HeaderProblem::Foreign(foreign)));
}

/// One write of the frame and a no-op after it.
fn written() -> (Header, Vec<u8>, [Frame; 2]) {
    let first = frame();
    let term = Term(0xb0b2_b3b4_b5b6_b7b8);
    let second = FrameBuilder::noop(FrameHead { term, previous: first.id(), ..head() });
    let payload = first.bytes().len() + second.bytes().len();
    let header = Header {
        frames: 2,
        sequence: 0xa1a2_a3a4_a5a6_a7a9,
        payload: payload as u64,
        previous: previous(),
        first_term: first.term(),
        last: second.id(),
        commit: LogIndex(0x4042_4344_4546_4748),
        log_mark: 0xa0a2_a3a4_a5a6_a7a8,
        state_mark: 0xc1c2_c3c4_c5c6_c7c8,
        peak: segment().predecessor.peak,
    };
    let mut bytes = vec![0; envelope::disk_bytes(payload)];
    header.fill(&segment(), &mut bytes);
    let mut at = envelope::HEADER_BYTES;
    for frame in [&first, &second] {
        bytes[at..at + frame.bytes().len()].copy_from_slice(frame.bytes());
        at += frame.bytes().len();
    }
    (header, bytes, [first, second])
}

#[test]
fn the_bytes_of_an_envelope() {
    let (header, bytes, frames) = written();
    assert_eq!(hex(&bytes[..envelope::HEADER_BYTES]), ENVELOPE);
    assert_eq!(Header::parse(&bytes, &segment(), FIRST_OFFSET), Ok(header));
    let sighting = Sighting {
        sequence: header.sequence,
        log_mark: header.log_mark,
        state_mark: header.state_mark,
        peak: header.peak,
    };
    assert_eq!(Header::sight(&bytes, &segment()), Some(sighting));
    let mut taken = Vec::new();
    let bytes = Bytes::from(bytes);
    assert_eq!(check_body(&header, &IDENTITY, &bytes, |frame| taken.push(frame)), Ok(()));
    assert_eq!(taken, frames);
    // What it brings may be further than all before it.
    let far = Header { peak: Held::from(header.previous), ..header };
    let mut bytes = bytes.to_vec();
    far.fill(&segment(), &mut bytes);
    let peak = Header::sight(&bytes, &segment()).expect("whole").peak;
    assert_eq!(peak, Held::from(header.last));
}

#[test]
fn zeros_are_no_garbage() {
    let mut block = vec![0; BLOCK];
    assert_eq!(Header::parse(&block, &segment(), FIRST_OFFSET), Err(NotAnEnvelope::Blank));
    for at in [0, 200, BLOCK - 1] {
        block.fill(0);
        block[at] = 1;
        assert_eq!(Header::parse(&block, &segment(), FIRST_OFFSET), Err(NotAnEnvelope::Garbage), "{at}");
    }
    block.fill(1);
    assert_eq!(Header::parse(&block, &segment(), FIRST_OFFSET), Err(NotAnEnvelope::Garbage));
}

#[test]
fn a_body_is_all_that_its_header_says_and_nothing_else() {
    let (header, bytes, [first, second]) = written();
    let check =
        |header: &Header, bytes: &[u8]| check_body(header, &IDENTITY, &Bytes::copy_from_slice(bytes), |_| ());
    let chain = |index| Err(BodyProblem::Chain { index });
    let other = |last: EntryId| EntryId { hash: ChainHash(last.hash.0 ^ 1), ..last };
    assert_eq!(check(&Header { last: other(header.last), ..header }, &bytes), chain(second.index()));
    assert_eq!(check(&Header { previous: other(header.previous), ..header }, &bytes), chain(first.index()));
    // More frames than are counted, and zeros that are counted as frames.
    assert_eq!(check(&Header { frames: 1, last: first.id(), ..header }, &bytes), chain(first.index()));
    let more = Header { payload: header.payload + 8, ..header };
    assert_eq!(check(&more, &bytes), chain(second.index()));
    let foreign = Identity { group: GroupId(1), ..IDENTITY };
    let body = Bytes::copy_from_slice(&bytes);
    assert_eq!(check_body(&header, &foreign, &body, |_| ()), chain(first.index()));
    // Where the damage is, from the envelope's beginning.
    let second_at = envelope::HEADER_BYTES + first.bytes().len();
    for (at, offset) in [(envelope::HEADER_BYTES, envelope::HEADER_BYTES), (second_at, second_at)] {
        let mut damaged = bytes.clone();
        damaged[at + 17] ^= 1;
        assert_eq!(
            check(&header, &damaged),
            Err(BodyProblem::Frame { offset, error: FrameError::HeaderHash })
        );
    }
    let end = second_at + second.bytes().len();
    for offset in [end, BLOCK - 1] {
        let mut damaged = bytes.clone();
        damaged[offset] = 1;
        assert_eq!(check(&header, &damaged), Err(BodyProblem::Padding { offset }));
    }
    assert_eq!(frame::HEADER_BYTES + envelope::HEADER_BYTES, 368, "where a body begins");
}

const GENESIS: u128 = 0xaa8c_757c_c3cf_8aef_0827_762b_9c3e_3ecb;

const FRAME: &str = "\
000 6446723101000200343332310e000000
010 58575655545352524947464544434241
020 58575655545352517877767574737271
030 02000000000000000000000000000000
040 606f6e6d6c6b6a696867666564636261
050 912c6a6893fb298399de549cf6a191c0
060 bbe6367aaf9ce11b1e1fd919c041d79a
070 05000000666972737401000000320000
";

const SEGMENT: &str = "\
000 642d7365676d74000200000034333231
010 101f1e1d1c1b1a191817161514131211
020 28272625242322218887868584838281
030 0000010000000000909f9e9d9c9b9a99
040 9897969594939291a8a7a6a5a4a3a2a1
050 48474645444342415857565554535251
060 606f6e6d6c6b6a696867666564636261
070 b8b7b6b5b4b3b2b1b9b8b7b6b5b4b3b2
080 00000000000000000000000000000000
1f0 81de3f7c20cccbb8207a18cdd82133ba
";

const ENVELOPE: &str = "\
000 64457631020000003433323102000000
010 a9a7a6a5a4a3a2a1f000000000000000
020 49474645444342414a47464544434241
030 5857565554535252b8b7b6b5b4b3b2b0
040 5857565554535251606f6e6d6c6b6a69
050 686766656463626184d78a900bf6a42c
060 ae323d3a4119e5734847464544434240
070 a8a7a6a5a4a3a2a0c8c7c6c5c4c3c2c1
080 909f9e9d9c9b9a999897969594939291
090 b8b7b6b5b4b3b2b1b9b8b7b6b5b4b3b2
0a0 00000000000000000000000000000000
0f0 79bab446c31cd5f7dfc833ae7668fc82
";
