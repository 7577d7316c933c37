//! What goes into the log and what comes out of it: plans, proofs, events.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use crate::error::LogError;
use crate::frame::Frame;
use crate::id::{HardState, LogIndex};
use thiserror::Error;

/// Names a plan; the caller chooses, ascending.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WriteId(pub u64);

/// One write to make durable.
///
/// The frames chain among themselves. The first may have an index at or below the log's last entry:
/// everything from there on is then superseded; never at or below a commit index that an earlier plan named.
/// A plan with neither frames nor hard state is a barrier: done when all before it are done.
#[derive(Clone, Debug)]
pub struct WritePlan {
    /// Its name.
    pub id: WriteId,
    /// Term and vote, if they changed.
    pub hard_state: Option<HardState>,
    /// Entries to append.
    pub frames: Vec<Frame>,
    /// The newest commit index known. A hint for the next start, flushed with the next write.
    pub commit: LogIndex,
    /// This log has again, durably, everything it may ever have held: the doubt that a repair left
    /// ([`Recovered::held`](crate::Recovered::held)) ends with this plan. Only said of what earlier plans' proofs cover.
    pub whole: bool,
}

impl WritePlan {
    /// A plan that only waits for those before it.
    #[must_use]
    pub fn barrier(id: WriteId) -> Self {
        Self { id, hard_state: None, frames: Vec::new(), commit: LogIndex::ZERO, whole: false }
    }

    /// Bytes of frames.
    #[must_use]
    pub fn frame_bytes(&self) -> usize {
        self.frames.iter().map(|frame| frame.bytes().len()).sum()
    }
}

/// Proof that a plan and all before it are on disk. Only the log's writers make one, and simulators by name.
/// It stays true, so one proof may be copied for every write that it covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "promises wait for it"]
pub struct Flushed {
    id: WriteId,
}

impl Flushed {
    pub(crate) fn new(id: WriteId) -> Self {
        Self { id }
    }

    /// For a disk that is a value in a simulator or a test, never beside a real one.
    pub fn simulated(id: WriteId) -> Self {
        Self { id }
    }

    /// The newest plan that it covers.
    #[must_use]
    pub fn id(&self) -> WriteId {
        self.id
    }
}

/// A request for entries that are on disk and no longer in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fetch {
    /// Comes back with the answer.
    pub token: u64,
    /// The first entry wanted.
    pub from: LogIndex,
    /// How many bytes of frames; one frame at least is returned, whatever its size.
    pub max_bytes: usize,
}

/// Why entries could not be fetched. The log goes on: reading does not latch.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum FetchError {
    /// The entry is not on disk (any more, or yet).
    #[error("entry {from} is not on disk: the log holds {first} to {last}")]
    Missing {
        /// What was asked for.
        from: LogIndex,
        /// The first entry on disk.
        first: LogIndex,
        /// The last entry on disk.
        last: LogIndex,
    },
    /// What was read is not what was written.
    #[error("{file} is damaged at byte {offset}: {what}; fetch the entry from a peer")]
    Damaged {
        /// The segment.
        file: String,
        /// Where.
        offset: u64,
        /// What is wrong there.
        what: String,
    },
    /// The file could not be read.
    #[error("{file} could not be read: {what}")]
    Io {
        /// The segment.
        file: String,
        /// The system's words.
        what: String,
    },
}

/// What a writer reports.
#[derive(Debug)]
#[non_exhaustive]
pub enum LogEvent {
    /// A plan and all before it are on disk.
    Flushed(Flushed),
    /// Old entries, checked, ascending without gaps.
    Fetched {
        /// The request's.
        token: u64,
        /// At least one.
        frames: Vec<Frame>,
    },
    /// Old entries could not be had.
    FetchFailed {
        /// The request's.
        token: u64,
        /// Why.
        error: FetchError,
    },
    /// The latch: a write or flush failed. Reported once; nothing is acknowledged after it.
    Failed(LogError),
}

/// Counters since the writer started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogStats {
    /// Flushes completed, of the log or of the hard state.
    pub flushes: u64,
    /// Writes completed: envelopes and hard-state slots.
    pub writes: u64,
    /// Bytes written to envelopes and slots, padding included.
    pub disk_bytes: u64,
    /// Bytes of frames written.
    pub frame_bytes: u64,
    /// Frames written.
    pub frames: u64,
    /// Segments begun.
    pub segments: u64,
    /// Bytes of frames in plans that are not yet on disk.
    pub queued_bytes: usize,
}
