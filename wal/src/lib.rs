//! The segmented write-ahead log of d-engine.
//!
//! Pure half, without I/O, clock or thread: the words ([`id`]), the entry as bytes ([`frame`]), plans and
//! proofs ([`plan`]), envelopes, write planning, the map from index to place, and recovery as a table. Other
//! half: [`open`], and two writers of the same bytes: [`PortableLog`] everywhere, `UringLog` on Linux.
//!
//! The rest of this page is the format.
#![doc = include_str!("../FORMAT.md")]

mod damage;
mod directory;
mod entries;
mod envelope;
pub mod error;
#[doc(hidden)]
pub mod every_bit;
pub mod frame;
pub mod id;
pub mod inspect;
mod journal;
#[cfg(target_os = "linux")]
pub mod linux;
#[doc(hidden)]
pub mod mutant;
mod open;
mod opening;
pub mod plan;
mod portable;
mod positions;
pub mod pure;
mod reading;
mod recovered;
mod scan;
mod sector;
mod segment;
mod segments;
mod state;
mod verdict;
mod walk;

#[cfg(test)]
mod crash_tests;
#[cfg(test)]
mod damage_tests;
#[cfg(test)]
mod drop_tests;
#[cfg(test)]
mod format_tests;
#[cfg(test)]
mod latch_tests;
#[cfg(test)]
mod memory;
#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod recovery_tests;
#[cfg(test)]
mod repair_tests;

pub use damage::{Damage, Damaged, Place};
pub use directory::MEMORY_MARK;
pub use error::{LogError, OpenError};
pub use frame::{Frame, FrameBuilder, FrameError, FrameHead, Kind};
pub use id::{ChainHash, ClusterId, EntryId, GroupId, HardState, LogIndex, NodeId, Term};
pub use journal::ENVELOPE_BYTES;
pub use open::{DEFAULT_SEGMENT_BYTES, Directory, MAX_SEGMENT_BYTES, Opened, Options, open};
pub use plan::{Fetch, FetchError, Flushed, LogEvent, LogStats, WriteId, WritePlan};
pub use portable::PortableLog;
pub use positions::Position;
pub use recovered::{Recovered, RecoveryReport};
pub use scan::Cut;
pub use sector::{BLOCK, FORMAT_VERSION};
pub use segment::{Identity, segment_name};
pub use state::Held;
