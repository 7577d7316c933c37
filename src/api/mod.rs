//! What a program sees of the engine whichever way it reaches it: calls, answers, errors.
//!
//! Every answer names the revision it reflects and the promise it carries. Every error of a write says whether the write
//! may have happened, by its variant and by [`WriteError::may_have_happened`]. No answer is unbounded: what is long comes
//! in pages, all of them of one revision.
//!
//! No type of an async runtime, of QUIC or of protobuf appears here. The futures are `Send`, are woken by plain wakers,
//! and work on any executor.
//!
//! Deliberately not here: what is made of these calls. Locks, elections and registries are in
//! [`recipes`](crate::recipes).

mod client;
mod error;
mod pages;
mod session;
mod status;

pub use crate::config::{Durability, ReadLevel};
pub use client::ClientApi;
pub use error::{AdminError, ReadError, ReadyError, StartError, StopError, Uncertainty, WriteError};
pub use pages::Pages;
pub use session::{SessionApi, SessionOptions};
pub use status::{
    Counters, Decision, Knob, Leadership, Measured, Member, Pace, Reason, Role, Status, StopReason,
    TunerStatus,
};

use crate::kv::{KeyValue, LeaseId, Revision};

/// An answer and what it stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer<T> {
    /// What was asked for.
    pub value: T,
    /// The revision that the answer reflects: of the write itself, or of the store that was read. A write that changed
    /// nothing carries the store's.
    pub revision: Revision,
    /// What the acknowledgement promises. For a read: what its group promises for the writes that the read shows.
    pub durability: Durability,
}

impl<T> Answer<T> {
    /// The same answer with another value.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Answer<U> {
        Answer { value: change(self.value), revision: self.revision, durability: self.durability }
    }
}

/// What a compare-and-swap came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Swap {
    /// The key was as expected and has the new value.
    Done,
    /// The key was not as expected; nothing changed.
    Refused {
        /// What was there, `None` when the key is absent.
        current: Option<KeyValue>,
    },
}

impl Swap {
    /// Whether the new value is in place.
    #[must_use]
    pub fn is_done(&self) -> bool {
        matches!(self, Self::Done)
    }
}

/// What a compare-and-swap that says what its key depends on came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AttachedSwap {
    /// The key was as expected and has the new value.
    Done {
        /// The lease it is attached to: for a time to live, the one made for it.
        lease: Option<LeaseId>,
    },
    /// The key was not as expected; nothing changed, and no lease was made.
    Refused {
        /// What was there, `None` when the key is absent.
        current: Option<KeyValue>,
    },
}

impl AttachedSwap {
    /// Whether the new value is in place.
    #[must_use]
    pub fn is_done(&self) -> bool {
        matches!(self, Self::Done { .. })
    }
}
