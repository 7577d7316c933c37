//! The frame: one Raft entry as one contiguous run of bytes, the same in memory, on the network and on every disk.
//!
//! A leader encodes a batch once, with [`FrameBuilder`]; from then on the bytes are only shared. A [`Frame`] is proof
//! that its bytes were checked: the only ways to one are the builder and [`Frame::parse`]. The previous entry's index,
//! term and hash stand in the header, so a run of frames carries everything the consistency check of AppendEntries
//! needs (thesis 3.5), and the hash of a frame vouches for the whole log before it.
//!
//! ```text
//! offset size  field                                   all integers little endian
//!      0    4  magic "dFr1"
//!      4    2  version (1)
//!      6    2  kind: 1 no-op, 2 commands, 3 membership
//!      8    4  group
//!     12    4  body length in bytes, padding not counted
//!     16    8  term
//!     24    8  index
//!     32    8  term of the previous entry
//!     40    8  timestamp: the leader's time in ms, never falling along a log
//!     48    4  number of commands in the body
//!     52    4  flags (0; unknown bits are refused)
//!     56    8  reserved (0)
//!     64   16  hash of the previous entry's frame
//!     80   16  hash of the body
//!     96   16  hash of bytes 0..96: the frame's own, chained hash
//!    112    …  body, then zeros to a multiple of 8
//! ```
//!
//! Not here: what the commands mean (`kv`), and how frames are wrapped for the disk (`envelope`).

use crate::id::{ChainHash, ClusterId, EntryId, GroupId, LogIndex, Term};
use bytes::{BufMut, Bytes, BytesMut};
use thiserror::Error;
use xxhash_rust::xxh3::xxh3_128;

/// Bytes before the body.
pub const HEADER_BYTES: usize = 112;
/// Frames start at multiples of this many bytes.
pub const ALIGNMENT: usize = 8;
/// The largest body a frame may have: 16 MiB. Configured batches are smaller; nothing larger is ever allocated for.
pub const MAX_BODY_BYTES: usize = 16 << 20;

const MAGIC: [u8; 4] = *b"dFr1";
const VERSION: u16 = 1;
const HASHED: usize = 96;
const LENGTH_PREFIX: usize = 4;

/// What an entry holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Nothing: the entry a new leader commits to learn what is committed (thesis 6.4).
    Noop,
    /// Commands for the state machine.
    Commands,
    /// The membership from this entry on.
    Membership,
}

impl Kind {
    const fn code(self) -> u16 {
        match self {
            Self::Noop => 1,
            Self::Commands => 2,
            Self::Membership => 3,
        }
    }

    const fn from_code(code: u16) -> Option<Self> {
        match code {
            1 => Some(Self::Noop),
            2 => Some(Self::Commands),
            3 => Some(Self::Membership),
            _ => None,
        }
    }
}

/// Why bytes are not a frame.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum FrameError {
    /// Fewer bytes than the header or the stated body needs.
    #[error("frame ends early: {need} bytes needed, {have} there")]
    Short {
        /// Bytes that the frame needs.
        need: usize,
        /// Bytes that are there.
        have: usize,
    },
    /// Not the first bytes of a frame.
    #[error("not a frame: it starts with {0:02x?}")]
    Magic([u8; 4]),
    /// Made by another version of this software.
    #[error("frame has format version {0}, this program reads version 1")]
    Version(u16),
    /// The header does not match its own hash.
    #[error("frame header is damaged: its hash does not match")]
    HeaderHash,
    /// The body does not match the hash in the header.
    #[error("body of the frame at index {index} is damaged: its hash does not match")]
    BodyHash {
        /// The index the (intact) header states.
        index: LogIndex,
    },
    /// A value that no version 1 writer produces.
    #[error("frame field {field} has the impossible value {value}")]
    Field {
        /// Name of the field.
        field: &'static str,
        /// What stood there.
        value: u64,
    },
    /// The commands in the body do not fill it exactly.
    #[error("frame at index {index} states {count} commands, but its body does not hold them")]
    Commands {
        /// Index of the frame.
        index: LogIndex,
        /// Number of commands stated.
        count: u32,
    },
}

/// The hash that precedes the first entry of a group's log: it makes logs of different clusters differ from index 1.
#[must_use]
pub fn genesis(cluster: ClusterId, group: GroupId) -> ChainHash {
    let mut seed = [0_u8; 28];
    seed[..8].copy_from_slice(b"d-engine");
    seed[8..24].copy_from_slice(&cluster.0.to_le_bytes());
    seed[24..].copy_from_slice(&group.0.to_le_bytes());
    ChainHash(xxh3_128(&seed))
}

/// The entry before the first one of a log.
#[must_use]
pub fn origin(cluster: ClusterId, group: GroupId) -> EntryId {
    EntryId { index: LogIndex::ZERO, term: Term::ZERO, hash: genesis(cluster, group) }
}

/// One entry, checked. Cloning shares the bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct Frame {
    bytes: Bytes,
    header: Header,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Header {
    kind: Kind,
    group: GroupId,
    body: u32,
    term: Term,
    index: LogIndex,
    previous_term: Term,
    timestamp: u64,
    count: u32,
    previous_hash: ChainHash,
    body_hash: u128,
    hash: ChainHash,
}

pub(crate) fn u16_at(b: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(b[at..at + 2].try_into().expect("two bytes"))
}
pub(crate) fn u32_at(b: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(b[at..at + 4].try_into().expect("four bytes"))
}
pub(crate) fn u64_at(b: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(b[at..at + 8].try_into().expect("eight bytes"))
}
pub(crate) fn u128_at(b: &[u8], at: usize) -> u128 {
    u128::from_le_bytes(b[at..at + 16].try_into().expect("sixteen bytes"))
}

/// `body` bytes and the header, rounded up to the alignment of frames.
const fn padded(body: usize) -> usize {
    (HEADER_BYTES + body).next_multiple_of(ALIGNMENT)
}

impl Header {
    /// Checks everything that can be checked without the body. Nothing is read beyond `HEADER_BYTES`.
    fn parse(b: &[u8]) -> Result<Self, FrameError> {
        if b.len() < HEADER_BYTES {
            return Err(FrameError::Short { need: HEADER_BYTES, have: b.len() });
        }
        let magic: [u8; 4] = b[..4].try_into().expect("four bytes");
        if magic != MAGIC {
            return Err(FrameError::Magic(magic));
        }
        // The version decides what the rest means, so it is read before the hash: a newer format is named, not
        // called damaged.
        let version = u16_at(b, 4);
        let hash = u128_at(b, 96);
        if xxh3_128(&b[..HASHED]) != hash {
            return Err(if version == VERSION {
                FrameError::HeaderHash
            } else {
                FrameError::Version(version)
            });
        }
        if version != VERSION {
            return Err(FrameError::Version(version));
        }
        let field = |field, value| Err(FrameError::Field { field, value });
        let Some(kind) = Kind::from_code(u16_at(b, 6)) else {
            return field("kind", u64::from(u16_at(b, 6)));
        };
        let body = u32_at(b, 12);
        if body as usize > MAX_BODY_BYTES {
            return field("body length", u64::from(body));
        }
        if u64_at(b, 24) == 0 {
            return field("index", 0);
        }
        if u64_at(b, 32) > u64_at(b, 16) {
            return field("previous term", u64_at(b, 32));
        }
        if u32_at(b, 52) != 0 {
            return field("flags", u64::from(u32_at(b, 52)));
        }
        if u64_at(b, 56) != 0 {
            return field("reserved", u64_at(b, 56));
        }
        Ok(Self {
            kind,
            group: GroupId(u32_at(b, 8)),
            body,
            term: Term(u64_at(b, 16)),
            index: LogIndex(u64_at(b, 24)),
            previous_term: Term(u64_at(b, 32)),
            timestamp: u64_at(b, 40),
            count: u32_at(b, 48),
            previous_hash: ChainHash(u128_at(b, 64)),
            body_hash: u128_at(b, 80),
            hash: ChainHash(hash),
        })
    }
}

impl Frame {
    /// Checks the frame at the front of `bytes` and splits it off; what follows stays in `bytes`.
    ///
    /// # Errors
    /// [`FrameError`] says what is wrong; `bytes` is then left as it was.
    pub fn parse(bytes: &mut Bytes) -> Result<Self, FrameError> {
        let header = Header::parse(bytes)?;
        let body = header.body as usize;
        let length = padded(body);
        if bytes.len() < length {
            return Err(FrameError::Short { need: length, have: bytes.len() });
        }
        if xxh3_128(&bytes[HEADER_BYTES..HEADER_BYTES + body]) != header.body_hash {
            return Err(FrameError::BodyHash { index: header.index });
        }
        if let Some(&byte) = bytes[HEADER_BYTES + body..length].iter().find(|&&byte| byte != 0) {
            return Err(FrameError::Field { field: "padding", value: u64::from(byte) });
        }
        check_commands(&header, &bytes[HEADER_BYTES..HEADER_BYTES + body])?;
        Ok(Self { bytes: bytes.split_to(length), header })
    }

    /// How many bytes the frame at the front of `bytes` takes, from a header that matches its hash; the body is not
    /// looked at. For a reader that must know how much to fetch, and for naming what a damaged body held.
    ///
    /// # Errors
    /// [`FrameError`] when the header is not whole.
    pub fn peek(bytes: &[u8]) -> Result<Peek, FrameError> {
        let header = Header::parse(bytes)?;
        Ok(Peek {
            bytes: padded(header.body as usize),
            id: EntryId { index: header.index, term: header.term, hash: header.hash },
        })
    }

    /// Index, term and chained hash.
    #[must_use]
    pub fn id(&self) -> EntryId {
        EntryId { index: self.header.index, term: self.header.term, hash: self.header.hash }
    }

    /// The entry before this one, as this one's leader had it.
    #[must_use]
    pub fn previous(&self) -> EntryId {
        EntryId {
            index: self.header.index.previous(),
            term: self.header.previous_term,
            hash: self.header.previous_hash,
        }
    }

    /// Position in the log.
    #[must_use]
    pub fn index(&self) -> LogIndex {
        self.header.index
    }

    /// Term of the leader that made it.
    #[must_use]
    pub fn term(&self) -> Term {
        self.header.term
    }

    /// Whether this frame follows `previous` in its log.
    #[must_use]
    pub fn follows(&self, previous: EntryId) -> bool {
        self.previous() == previous && self.term() >= previous.term
    }

    /// The group it belongs to.
    #[must_use]
    pub fn group(&self) -> GroupId {
        self.header.group
    }

    /// What it holds.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.header.kind
    }

    /// The leader's time when it made the entry, in milliseconds; never falls along a log. What time that is, whoever
    /// proposes entries says.
    #[must_use]
    pub fn timestamp_ms(&self) -> u64 {
        self.header.timestamp
    }

    /// The whole frame as it lies in memory, on the network and on disk.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// What the header describes: commands, or a membership.
    #[must_use]
    pub fn body(&self) -> Bytes {
        self.bytes.slice(HEADER_BYTES..HEADER_BYTES + self.header.body as usize)
    }

    fn body_slice(&self) -> &[u8] {
        &self.bytes[HEADER_BYTES..HEADER_BYTES + self.header.body as usize]
    }

    /// Number of commands.
    #[must_use]
    pub fn command_count(&self) -> u32 {
        self.header.count
    }

    /// The commands in order; empty for other kinds.
    pub fn commands(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = if self.header.kind == Kind::Commands { self.body_slice() } else { &[] };
        std::iter::from_fn(move || {
            // Parsing checked that lengths fill the body exactly.
            let (length, tail) = rest.split_first_chunk::<LENGTH_PREFIX>()?;
            let (command, tail) = tail.split_at(u32::from_le_bytes(*length) as usize);
            rest = tail;
            Some(command)
        })
    }
}

/// Whether the body is what the header says: commands that fill it exactly, nothing in a no-op.
fn check_commands(header: &Header, body: &[u8]) -> Result<(), FrameError> {
    let Header { kind, index, count, .. } = *header;
    let wrong = FrameError::Commands { index, count };
    match kind {
        Kind::Noop if !body.is_empty() => {
            return Err(FrameError::Field { field: "body length of a no-op", value: body.len() as u64 });
        }
        Kind::Noop | Kind::Membership => return if count == 0 { Ok(()) } else { Err(wrong) },
        Kind::Commands => {}
    }
    let mut rest = body;
    let mut seen = 0_u32;
    while !rest.is_empty() {
        if rest.len() < LENGTH_PREFIX {
            return Err(wrong);
        }
        let length = u32_at(rest, 0) as usize;
        rest = rest[LENGTH_PREFIX..].get(length..).ok_or_else(|| wrong.clone())?;
        seen += 1;
    }
    if seen == count { Ok(()) } else { Err(wrong) }
}

impl std::fmt::Debug for Frame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Header { kind, term, index, count, .. } = self.header;
        write!(f, "Frame({index}/{term} {kind:?} x{count}, {} B)", self.bytes.len())
    }
}

/// What [`Frame::peek`] reads from a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peek {
    /// Length of the frame with its padding.
    pub bytes: usize,
    /// Which entry the header names.
    pub id: EntryId,
}

/// What a leader knows before it encodes an entry.
#[derive(Clone, Copy, Debug)]
pub struct FrameHead {
    /// The group.
    pub group: GroupId,
    /// The leader's term.
    pub term: Term,
    /// The last entry of the leader's log.
    pub previous: EntryId,
    /// The leader's time in ms; the caller keeps it from falling.
    pub timestamp_ms: u64,
}

/// Encodes one entry, once.
pub struct FrameBuilder {
    buffer: BytesMut,
    count: u32,
}

impl FrameBuilder {
    /// A builder with room for `body` bytes of commands (each costs its length plus 4 bytes).
    #[must_use]
    pub fn with_capacity(body: usize) -> Self {
        let mut buffer = BytesMut::with_capacity(padded(body));
        buffer.put_bytes(0, HEADER_BYTES);
        Self { buffer, count: 0 }
    }

    /// Appends a command.
    ///
    /// # Panics
    /// If the body would pass [`MAX_BODY_BYTES`]; callers admit commands by size before they batch them.
    pub fn push_command(&mut self, command: &[u8]) {
        let length = u32::try_from(command.len()).expect("a command is admitted by size");
        self.buffer.put_u32_le(length);
        self.buffer.put_slice(command);
        self.count += 1;
        assert!(self.body_bytes() <= MAX_BODY_BYTES, "a batch is bounded before it is encoded");
    }

    /// Bytes of body so far.
    #[must_use]
    pub fn body_bytes(&self) -> usize {
        self.buffer.len() - HEADER_BYTES
    }

    /// Closes the frame over the commands pushed.
    #[must_use]
    pub fn commands(self, head: FrameHead) -> Frame {
        self.seal(Kind::Commands, head)
    }

    /// The empty entry of a new leader.
    #[must_use]
    pub fn noop(head: FrameHead) -> Frame {
        Self::with_capacity(0).seal(Kind::Noop, head)
    }

    /// An entry that holds a membership, encoded by the caller.
    #[must_use]
    pub fn membership(head: FrameHead, body: &[u8]) -> Frame {
        let mut builder = Self::with_capacity(body.len());
        builder.buffer.put_slice(body);
        assert!(builder.body_bytes() <= MAX_BODY_BYTES, "a membership is small");
        builder.seal(Kind::Membership, head)
    }

    fn seal(mut self, kind: Kind, head: FrameHead) -> Frame {
        assert!(head.term >= head.previous.term, "terms never fall along a log (thesis 3.5)");
        let body = self.body_bytes();
        let body_hash = xxh3_128(&self.buffer[HEADER_BYTES..]);
        self.buffer.put_bytes(0, padded(body) - HEADER_BYTES - body);
        let index = head.previous.index.next();
        let length = u32::try_from(body).expect("bounded by MAX_BODY_BYTES");

        let mut header = &mut self.buffer[..HEADER_BYTES];
        header.put_slice(&MAGIC);
        header.put_u16_le(VERSION);
        header.put_u16_le(kind.code());
        header.put_u32_le(head.group.0);
        header.put_u32_le(length);
        header.put_u64_le(head.term.0);
        header.put_u64_le(index.0);
        header.put_u64_le(head.previous.term.0);
        header.put_u64_le(head.timestamp_ms);
        header.put_u32_le(self.count);
        header.put_u32_le(0);
        header.put_u64_le(0);
        header.put_u128_le(head.previous.hash.0);
        header.put_u128_le(body_hash);
        let hash = ChainHash(xxh3_128(&self.buffer[..HASHED]));
        self.buffer[HASHED..HEADER_BYTES].copy_from_slice(&hash.0.to_le_bytes());

        Frame {
            bytes: self.buffer.freeze(),
            header: Header {
                kind,
                group: head.group,
                body: length,
                term: head.term,
                index,
                previous_term: head.previous.term,
                timestamp: head.timestamp_ms,
                count: self.count,
                previous_hash: head.previous.hash,
                body_hash,
                hash,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head() -> FrameHead {
        FrameHead {
            group: GroupId::FIRST,
            term: Term(3),
            previous: EntryId { index: LogIndex(6), term: Term(2), hash: ChainHash(9) },
            timestamp_ms: 1_000,
        }
    }

    fn two_commands() -> Frame {
        let mut builder = FrameBuilder::with_capacity(64);
        builder.push_command(b"first");
        builder.push_command(b"");
        builder.commands(head())
    }

    #[test]
    fn what_the_builder_makes_parses_to_the_same_frame() {
        for frame in [two_commands(), FrameBuilder::noop(head()), FrameBuilder::membership(head(), b"abc")] {
            let mut bytes = frame.bytes().clone();
            assert_eq!(Frame::parse(&mut bytes).expect("whole"), frame);
            assert!(bytes.is_empty());
            assert!(frame.follows(head().previous));
        }
    }

    #[test]
    fn commands_come_back_in_order() {
        let frame = two_commands();
        let commands: Vec<_> = frame.commands().collect();
        assert_eq!(commands, [b"first".as_slice(), b""]);
    }

    #[test]
    fn every_flipped_bit_is_seen() {
        let frame = two_commands();
        for bit in 0..frame.bytes().len() * 8 {
            let mut damaged = frame.bytes().to_vec();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(Frame::parse(&mut Bytes::from(damaged)).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_body_that_no_builder_makes_is_refused_and_the_bytes_are_left() {
        let mut noop = FrameBuilder::with_capacity(8);
        noop.buffer.put_slice(b"body");
        let mut miscounted = FrameBuilder::with_capacity(8);
        miscounted.push_command(b"one");
        miscounted.count = 2;
        for frame in [noop.seal(Kind::Noop, head()), miscounted.seal(Kind::Commands, head())] {
            let mut bytes = frame.bytes().clone();
            assert!(Frame::parse(&mut bytes).is_err(), "{frame:?}");
            assert_eq!(&bytes, frame.bytes());
        }
    }

    #[test]
    fn every_truncation_is_seen() {
        let frame = two_commands();
        for length in 0..frame.bytes().len() {
            assert!(Frame::parse(&mut frame.bytes().slice(..length)).is_err(), "length {length}");
        }
    }

    /// The same frame with other bytes at a place of its header, and the hash over them.
    fn with(at: usize, bytes: &[u8]) -> Result<Frame, FrameError> {
        let mut frame = two_commands().bytes().to_vec();
        frame[at..at + bytes.len()].copy_from_slice(bytes);
        let hash = xxh3_128(&frame[..HASHED]);
        frame[HASHED..HEADER_BYTES].copy_from_slice(&hash.to_le_bytes());
        Frame::parse(&mut frame.into())
    }

    #[test]
    fn a_whole_header_that_no_builder_makes_is_refused_for_the_field_that_is_wrong() {
        let refused = |field, value| Err(FrameError::Field { field, value });
        assert_eq!(with(4, &0x0203_u16.to_le_bytes()), Err(FrameError::Version(0x0203)));
        assert_eq!(with(6, &0x0203_u16.to_le_bytes()), refused("kind", 0x0203));
        let most = u32::try_from(MAX_BODY_BYTES).expect("32 bits");
        assert_eq!(with(12, &(most + 1).to_le_bytes()), refused("body length", u64::from(most) + 1));
        assert!(matches!(with(12, &most.to_le_bytes()), Err(FrameError::Short { .. })), "that may be");
        assert_eq!(with(24, &0_u64.to_le_bytes()), refused("index", 0));
        assert!(with(24, &1_u64.to_le_bytes()).is_ok());
        assert_eq!(with(32, &0x0102_0304_u64.to_le_bytes()), refused("previous term", 0x0102_0304));
        assert!(with(32, &3_u64.to_le_bytes()).is_ok(), "a term goes on");
        assert_eq!(with(52, &0x0102_0304_u32.to_le_bytes()), refused("flags", 0x0102_0304));
        assert_eq!(with(56, &0x0102_0304_u64.to_le_bytes()), refused("reserved", 0x0102_0304));
    }
}
