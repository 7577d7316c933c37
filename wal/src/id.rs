//! The words of the log: identities and positions, each its own type.
//!
//! `index + 1` on a bare `u64` is how off-by-one errors travel between a term, an index and a revision; these types
//! convert only by name.

use std::fmt;
use std::time::Duration;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u64);

        impl $name {
            /// The value before the first one.
            pub const ZERO: Self = Self(0);

            /// The one that follows.
            ///
            /// # Panics
            /// At `u64::MAX`, which no running system reaches: one a nanosecond lasts 584 years.
            #[must_use]
            pub fn next(self) -> Self {
                Self(self.0.checked_add(1).expect("a 64-bit counter does not end"))
            }

            /// The one before, or zero at zero.
            #[must_use]
            pub const fn previous(self) -> Self {
                Self(self.0.saturating_sub(1))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number! {
    /// A Raft term. Zero is before any election.
    Term
}
number! {
    /// The position of an entry in the log. The first entry has index 1; zero is "before the log".
    LogIndex
}
number! {
    /// A member of a cluster. Zero is not a valid identity. An identity belongs to one data directory for ever: a node
    /// that lost its disk comes back under a new one.
    NodeId
}

/// Which cluster a directory, a certificate or a message belongs to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterId(pub u128);

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// Which Raft group of a node a frame belongs to. Today every node has one group, [`GroupId::FIRST`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupId(pub u32);

impl GroupId {
    /// The only group there is today.
    pub const FIRST: Self = Self(0);
}

/// A 128-bit hash. In a frame it covers the frame and, through the previous frame's hash, all the log before it.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChainHash(pub u128);

impl fmt::Debug for ChainHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Display for ChainHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// An entry named so that two logs which agree on it agree on everything before it (Log Matching, thesis 3.5,
/// with the hash as the evidence that bytes, not only terms, agree).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct EntryId {
    /// Position in the log.
    pub index: LogIndex,
    /// Term of the leader that made the entry.
    pub term: Term,
    /// Chained hash of the entry's frame.
    pub hash: ChainHash,
}

/// What Raft must find again after a crash beside the log (thesis figure 3.1: `currentTerm`, `votedFor`; and, of what 4.2.3
/// has a server keep, for how long: when it began is lost with the clock it was counted by).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct HardState {
    /// The newest term this node has seen.
    pub term: Term,
    /// Whom it voted for in that term.
    pub vote: Option<NodeId>,
    /// For how long this node keeps to the leader that it heard last, from whenever it hears it; zero
    /// before the first.
    pub promise: Duration,
}
