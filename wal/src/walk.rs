//! Reading segments forward, through a window, from anything that has blocks.
//!
//! One envelope is in memory at a time, and what is read ahead with it. Frames handed out share the window's
//! bytes.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use crate::envelope::{BodyProblem, Header, NotAnEnvelope, check_body};
use crate::frame::Frame;
use crate::sector::{BLOCK, BLOCK_U64};
use crate::segment::SegmentHeader;
use bytes::Bytes;
use std::io;

/// Bytes at offsets: a file, or a simulator's disk.
pub trait Blocks {
    /// How many bytes there are.
    ///
    /// # Errors
    /// As the medium fails.
    fn length(&self) -> io::Result<u64>;

    /// `length` bytes at `offset`, all of them.
    ///
    /// # Errors
    /// As the medium fails; `UnexpectedEof` beyond the end.
    fn read(&self, offset: u64, length: usize) -> io::Result<Bytes>;
}

impl<B: Blocks + ?Sized> Blocks for &B {
    fn length(&self) -> io::Result<u64> {
        (**self).length()
    }

    fn read(&self, offset: u64, length: usize) -> io::Result<Bytes> {
        (**self).read(offset, length)
    }
}

impl Blocks for [u8] {
    fn length(&self) -> io::Result<u64> {
        Ok(self.len() as u64)
    }

    fn read(&self, offset: u64, length: usize) -> io::Result<Bytes> {
        let start = usize::try_from(offset).map_err(|_| io::ErrorKind::UnexpectedEof)?;
        let end = start.checked_add(length).filter(|&end| end <= self.len());
        end.map(|end| Bytes::copy_from_slice(&self[start..end]))
            .ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }
}

impl Blocks for Bytes {
    fn length(&self) -> io::Result<u64> {
        Ok(self.len() as u64)
    }

    fn read(&self, offset: u64, length: usize) -> io::Result<Bytes> {
        let start = usize::try_from(offset).map_err(|_| io::ErrorKind::UnexpectedEof)?;
        let end = start.checked_add(length).filter(|&end| end <= self.len());
        end.map(|end| self.slice(start..end)).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }
}

/// Whether an error of the medium means that the bytes are lost, and not that the system refuses for another reason.
pub(crate) fn is_damage(error: &io::Error) -> bool {
    const EIO: i32 = 5;
    matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData)
        || error.raw_os_error() == Some(EIO)
}

/// How much is read at once when more follows.
const AHEAD: usize = 1 << 20;

/// A medium with its last read kept.
pub(crate) struct Window<B> {
    source: B,
    end: u64,
    start: u64,
    bytes: Bytes,
}

impl<B: Blocks> Window<B> {
    /// Reads up to `end`, never beyond.
    pub(crate) fn new(source: B, end: u64) -> Self {
        assert!(end.is_multiple_of(BLOCK_U64), "a window ends at a block");
        Self { source, end, start: 0, bytes: Bytes::new() }
    }

    /// `length` bytes at `offset`; the caller stays below the end.
    pub(crate) fn get(&mut self, offset: u64, length: usize) -> io::Result<Bytes> {
        assert!(offset + length as u64 <= self.end, "{offset}+{length} is within {}", self.end);
        let inside = offset.checked_sub(self.start).and_then(|skip| usize::try_from(skip).ok());
        if let Some(skip) = inside.filter(|skip| skip + length <= self.bytes.len()) {
            return Ok(self.bytes.slice(skip..skip + length));
        }
        let left = usize::try_from(self.end - offset).unwrap_or(usize::MAX);
        let ahead = length.max(AHEAD).min(left);
        // What is read ahead may be unreadable, or beyond the end of a file that was shortened: only what was asked for
        // counts.
        let bytes = match self.source.read(offset, ahead) {
            Err(error) if ahead > length && is_damage(&error) => self.source.read(offset, length)?,
            other => other?,
        };
        assert!(bytes.len() >= length, "a medium reads all that was asked for or fails");
        self.bytes = bytes;
        self.start = offset;
        Ok(self.bytes.slice(..length))
    }
}

/// What stands at one place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    Whole(Header),
    Not(Defect),
}

/// Why the expected envelope does not stand there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Defect {
    Header(NotAnEnvelope),
    Sequence { expected: u64, found: u64 },
    Body { header: Header, problem: BodyProblem },
    Unreadable(String),
}

impl std::fmt::Display for Defect {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Header(NotAnEnvelope::Blank) => {
                write!(f, "an envelope should stand here, and there are zeros")
            }
            Self::Header(NotAnEnvelope::Garbage) => write!(f, "no envelope of this segment stands here"),
            Self::Header(NotAnEnvelope::Impossible(what)) => write!(f, "the envelope is impossible: {what}"),
            Self::Header(NotAnEnvelope::Version(version)) => {
                write!(f, "the envelope has format version {version}")
            }
            Self::Sequence { expected, found } => {
                write!(f, "envelope {expected} should stand here, and envelope {found} does")
            }
            Self::Unreadable(error) => write!(f, "it cannot be read: {error}"),
            Self::Body { header, problem } => {
                let (first, last) = (header.first_index(), header.last.index);
                write!(f, "the envelope of entries {first} to {last} is not whole: {problem}")
            }
        }
    }
}

/// Looks at `offset` for the envelope with `sequence`; frames of a body go to `take` as they are checked, so
/// they count only if the answer is [`Found::Whole`].
pub(crate) fn envelope_at<B: Blocks>(
    window: &mut Window<B>,
    segment: &SegmentHeader,
    offset: u64,
    sequence: Option<u64>,
    take: impl FnMut(Frame),
) -> io::Result<Found> {
    assert!(offset + BLOCK_U64 <= segment.bytes, "the caller stops at the end of the segment");
    let unreadable = |error: io::Error| {
        if is_damage(&error) { Ok(Found::Not(Defect::Unreadable(error.to_string()))) } else { Err(error) }
    };
    let block = match window.get(offset, BLOCK) {
        Ok(block) => block,
        Err(error) => return unreadable(error),
    };
    let header = match Header::parse(&block, segment, offset) {
        Ok(header) => header,
        Err(defect) => return Ok(Found::Not(Defect::Header(defect))),
    };
    if let Some(expected) = sequence.filter(|&expected| expected != header.sequence) {
        return Ok(Found::Not(Defect::Sequence { expected, found: header.sequence }));
    }
    let bytes = usize::try_from(header.disk_bytes()).map_err(|_| io::ErrorKind::InvalidData)?;
    let envelope = match window.get(offset, bytes) {
        Ok(envelope) => envelope,
        Err(error) => return unreadable(error),
    };
    Ok(match check_body(&header, &segment.identity, &envelope, take) {
        Ok(()) => Found::Whole(header),
        Err(problem) => Found::Not(Defect::Body { header, problem }),
    })
}
