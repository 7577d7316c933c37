//! The segmented write-ahead log of d-engine.

pub mod frame;
pub mod id;
pub mod write;

pub use frame::{Frame, FrameBuilder, FrameError, FrameHead, Kind};
pub use id::{ChainHash, ClusterId, EntryId, GroupId, HardState, LogIndex, NodeId, Term};
pub use write::{Flushed, WriteId, WritePlan};
