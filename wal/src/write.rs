//! One write to make durable, and the proof that it is. Pure: whoever can write bytes and flush them can serve it.

use crate::frame::Frame;
use crate::id::{HardState, LogIndex};

/// The place of a write in the order of writes of one process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WriteId(pub u64);

/// What one write makes durable. A plan with neither hard state nor frames is a barrier: it is done when everything
/// before it is.
#[derive(Clone, Debug)]
pub struct WritePlan {
    /// Its place; ascending.
    pub id: WriteId,
    /// Term and vote, if they changed.
    pub hard_state: Option<HardState>,
    /// Entries that follow each other. The first may have an index the log already holds: everything from there on is
    /// superseded.
    pub frames: Vec<Frame>,
    /// Everything up to here is decided; recorded as evidence, never superseded.
    pub commit: LogIndex,
}

/// Proof that a write, and every write before it, is on disk. Only a log makes one.
#[derive(Debug)]
pub struct Flushed {
    id: WriteId,
}

impl Flushed {
    /// The newest write that is on disk.
    #[must_use]
    pub fn id(&self) -> WriteId {
        self.id
    }

    /// For the logs of this crate, once a flush has returned.
    #[allow(dead_code)]
    pub(crate) fn by_log(id: WriteId) -> Self {
        Self { id }
    }

    /// For simulated disks: their flush is the proof.
    #[must_use]
    pub fn simulated(id: WriteId) -> Self {
        Self { id }
    }
}
