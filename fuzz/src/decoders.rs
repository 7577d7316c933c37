//! Targets for the decoders of the core: log, store, messages, membership.
//!
//! Each says whether the bytes were taken; the error is the decoder's own words.

use crate::allocation::bounded;
use bytes::{Bytes, BytesMut};
use d_engine::kv::{Command, Reply};
use d_engine::node::wire;
use d_engine::raft::Membership;
use std::fmt::Display;
use std::sync::LazyLock;
use wal::frame::{ALIGNMENT, HEADER_BYTES};
use wal::pure::{
    self, BLOCK, Change, Damage, Opening, Rules, SECTOR, SegmentFile, SegmentHeader, StateRecord,
};
use wal::{ClusterId, Frame, FrameBuilder, FrameHead, GroupId, Identity, Kind, MAX_SEGMENT_BYTES, NodeId};
use xxhash_rust::xxh3::xxh3_128;

/// Bytes were taken, or why not.
pub type Verdict = Result<(), String>;

/// Whose the files under test are.
pub const IDENTITY: Identity = Identity { cluster: ClusterId(7), node: NodeId(1), group: GroupId::FIRST };

/// Length of the segment under test.
pub const SEGMENT_BYTES: usize = 4 * BLOCK;

fn refused(error: impl Display) -> Verdict {
    let words = error.to_string();
    assert!(words.len() > 10, "an error says what is wrong: {words:?}");
    Err(words)
}

/// A frame: `Frame::parse`, and the builder as its inverse.
pub fn frame(input: &[u8]) -> Verdict {
    let mut bytes = Bytes::copy_from_slice(input);
    let frame = match bounded(input, 0, || Frame::parse(&mut bytes)) {
        Ok(frame) => frame,
        Err(error) => {
            assert_eq!(bytes, input, "refused bytes are left as they were");
            return refused(error);
        }
    };
    assert_eq!([frame.bytes(), &bytes[..]].concat(), input, "taken from the front");
    let peek = Frame::peek(input).expect("the header is whole");
    assert_eq!((peek.id, peek.bytes), (frame.id(), frame.bytes().len()));
    assert!(frame.commands().count() == frame.command_count() as usize);
    let head = FrameHead {
        group: frame.group(),
        term: frame.term(),
        previous: frame.previous(),
        timestamp_ms: frame.timestamp_ms(),
    };
    let again = match frame.kind() {
        Kind::Noop => FrameBuilder::noop(head),
        Kind::Membership => FrameBuilder::membership(head, &frame.body()),
        Kind::Commands => {
            let mut builder = FrameBuilder::with_capacity(frame.body().len());
            frame.commands().for_each(|command| builder.push_command(command));
            builder.commands(head)
        }
    };
    assert_eq!(again, frame, "only what a builder makes is a frame");
    Ok(())
}

/// A command of the store. A nested transaction of seven bytes becomes some two hundred in memory, borrowed and then
/// owned: hence the factor.
pub fn command(input: &[u8]) -> Verdict {
    let bytes = Bytes::copy_from_slice(input);
    match bounded(input, 64, || Command::decode(&bytes)) {
        Ok(command) => {
            let mut again = BytesMut::new();
            command.encode_into(&mut again).expect("what was taken can be encoded");
            assert_eq!(again, input, "a command has one form");
            Ok(())
        }
        Err(error) => refused(error),
    }
}

/// A reply of the store. What an inner transaction came to, in four bytes, becomes some two hundred in memory: hence the
/// factor.
pub fn reply(input: &[u8]) -> Verdict {
    let bytes = Bytes::copy_from_slice(input);
    match bounded(input, 64, || Reply::decode(&bytes)) {
        Ok(reply) => {
            let mut again = BytesMut::new();
            reply.encode_into(&mut again);
            assert_eq!(Reply::decode(&again.freeze()), Ok(reply), "its canonical form says the same");
            Ok(())
        }
        Err(error) => refused(error),
    }
}

/// A message between nodes. An outcome of two bytes becomes some seventy in memory, and its list grows by doubling:
/// hence the factor.
pub fn message(input: &[u8]) -> Verdict {
    let bytes = Bytes::copy_from_slice(input);
    match bounded(input, 256, || wire::decode(bytes)) {
        Ok(message) => {
            let mut parts = Vec::new();
            wire::encode(&message, &mut parts);
            let again = Bytes::from(parts.concat());
            assert_eq!(wire::decode(again).as_ref(), Ok(&message), "its canonical form says the same");
            Ok(())
        }
        Err(error) => refused(error),
    }
}

/// The body of a membership entry.
pub fn membership(input: &[u8]) -> Verdict {
    match bounded(input, 32, || Membership::decode(input)) {
        Ok(membership) => {
            assert_eq!(membership.encode(), input, "a membership has one form");
            Ok(())
        }
        Err(error) => refused(error),
    }
}

/// The header of a segment.
pub fn header(input: &[u8]) -> Verdict {
    match bounded(input, 0, || SegmentHeader::parse(input, &IDENTITY)) {
        Ok(header) => {
            let mut block = vec![0; BLOCK];
            header.fill(&mut block);
            assert_eq!(SegmentHeader::parse(&block, &IDENTITY), Ok(header));
            Ok(())
        }
        Err(error) => refused(format!("segment header: {error:?}")),
    }
}

/// The file of the hard state.
pub fn state(input: &[u8]) -> Verdict {
    match bounded(input, 0, || pure::read_state(input, &IDENTITY)) {
        Ok(record) => {
            assert!(record.identity == IDENTITY);
            let mut file = input.to_vec();
            let at = usize::try_from(record.offset()).expect("two blocks");
            record.fill(&mut file[at..at + BLOCK]);
            let read = pure::read_state(&file, &IDENTITY).expect("the same slots, the newer one mended");
            assert_eq!(read, record);
            Ok(())
        }
        Err(error) => refused(format!("{error:?}")),
    }
}

/// A state record of a log that was opened and had made its first segment; nothing is marked as durable.
static OPENED: LazyLock<StateRecord> = LazyLock::new(|| {
    let rules = Rules { segment_bytes: SEGMENT_BYTES as u64, damage: Damage::Refuse };
    let none: [SegmentFile<&[u8]>; 0] = [];
    let (new, _) = pure::initial_file(IDENTITY);
    let mut opening = Opening::decide(new, &none, rules).expect("a new directory");
    loop {
        match opening.poll_change() {
            Some(Change::Make(next)) => opening.handle_made(next.header(IDENTITY, 1)),
            Some(Change::State(record)) => return record,
            Some(_) => {}
            None => unreachable!("an opening says so in the state"),
        }
    }
});

/// The only segment of a log, walked, opened and read: envelopes and what is in them. Refused or not, a change that
/// the opening asks for lies within the file, and what it then reads is a chain.
pub fn segment(input: &[u8]) -> Verdict {
    let state = *OPENED;
    let mut verdict = Ok(());
    for damage in [Damage::Refuse, Damage::Repairable] {
        let rules = Rules { segment_bytes: SEGMENT_BYTES as u64, damage };
        let mut bytes = input.to_vec();
        let files = [SegmentFile { number: 1, blocks: input }];
        let mut opening = match Opening::decide(state, &files, rules) {
            Ok(opening) => opening,
            Err(error) => {
                verdict = refused(format!("{error:?}"));
                continue;
            }
        };
        let mut nonce = 1;
        while let Some(change) = opening.poll_change() {
            match change {
                Change::Zero { from, until, length, .. } => {
                    assert!(from <= until && until <= length, "zeros lie within the file: {change:?}");
                    assert!(length <= MAX_SEGMENT_BYTES, "which has a bound: {change:?}");
                    if length > SEGMENT_BYTES as u64 {
                        return Err("a header of a longer segment, whose file was cut".to_owned());
                    }
                    let [from, until, length] =
                        [from, until, length].map(|at| usize::try_from(at).expect("just compared"));
                    bytes.resize(length, 0);
                    bytes[from..until].fill(0);
                }
                Change::Make(next) => {
                    nonce += 1;
                    opening.handle_made(next.header(IDENTITY, nonce));
                }
                Change::State(_) | Change::SetAside { .. } | Change::Copy { .. } | Change::Remove { .. } => {}
            }
        }
        let tail = opening.finish();
        let mut previous = IDENTITY.origin();
        for entry in pure::entries(&tail, |_| bytes.as_slice()) {
            let entry = entry.expect("it was just walked");
            assert!(entry.follows(previous), "a chain");
            previous = entry.id();
        }
        assert_eq!(previous, tail.last(), "up to the end");
    }
    verdict
}

/// Makes damaged frames whole again as far as hashes go, so that what lies behind the hashes is reached.
pub fn mend_frames(mut bytes: &mut [u8]) {
    while bytes.len() >= HEADER_BYTES {
        let length = u32::from_le_bytes(bytes[12..16].try_into().expect("four bytes")) as usize;
        let end = HEADER_BYTES.saturating_add(length);
        if let Some(body) = bytes.get(HEADER_BYTES..end) {
            let hash = xxh3_128(body);
            bytes[80..96].copy_from_slice(&hash.to_le_bytes());
        }
        let hash = xxh3_128(&bytes[..96]);
        bytes[96..HEADER_BYTES].copy_from_slice(&hash.to_le_bytes());
        let next = end.next_multiple_of(ALIGNMENT).min(bytes.len());
        bytes = &mut bytes[next..];
    }
}

/// The same for the frames of a message.
pub fn mend_message(bytes: &mut [u8]) {
    let Some(prefix) = bytes.first_chunk::<4>() else { return };
    let frames = u32::from_le_bytes(*prefix) as usize + 4;
    if let Some(frames) = bytes.get_mut(frames..) {
        mend_frames(frames);
    }
}

/// The same for records that fill a sector.
pub fn mend_sectors(bytes: &mut [u8]) {
    for sector in bytes.chunks_exact_mut(SECTOR) {
        let hash = xxh3_128(&sector[..SECTOR - 16]);
        sector[SECTOR - 16..].copy_from_slice(&hash.to_le_bytes());
    }
}

/// The same for a segment: its header, and the headers of its envelopes.
pub fn mend_segment(bytes: &mut [u8]) {
    const HEADER: usize = 256;
    const HASH_AT: usize = 240;
    let (first, rest) = bytes.split_at_mut(bytes.len().min(BLOCK));
    mend_sectors(first);
    for block in rest.chunks_exact_mut(BLOCK).filter(|block| block.starts_with(b"dEv1")) {
        let owner = [IDENTITY.cluster.0.to_le_bytes().as_slice(), &IDENTITY.node.0.to_le_bytes()].concat();
        let hash = xxh3_128(&[&owner, &block[..HASH_AT]].concat());
        block[HASH_AT..HEADER].copy_from_slice(&hash.to_le_bytes());
    }
}

/// Nothing to mend.
pub fn mend_nothing(_: &mut [u8]) {}
