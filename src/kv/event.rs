//! What has changed, as it is told: one event per key and revision.

use super::store::{KeyValue, Revision};
use bytes::Bytes;
use std::sync::Arc;
use thiserror::Error;

/// A change of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The key has a new value.
    Put {
        /// What is there since.
        new: KeyValue,
        /// What was there before; `None` when the key was absent, or when that was not asked for.
        previous: Option<KeyValue>,
    },
    /// The key is gone: deleted, or its lease has ended.
    Delete {
        /// The key.
        key: Bytes,
        /// What was there before; `None` when that was not asked for.
        previous: Option<KeyValue>,
    },
}

impl Event {
    /// The key.
    #[must_use]
    pub fn key(&self) -> &Bytes {
        match self {
            Self::Put { new, .. } => &new.key,
            Self::Delete { key, .. } => key,
        }
    }

    /// Whether the key was absent before.
    #[must_use]
    pub fn is_create(&self) -> bool {
        if wal::mutant!("create_without_previous") {
            return matches!(self, Self::Put { previous: None, .. });
        }
        matches!(self, Self::Put { new, .. } if new.version == 1)
    }
}

/// All that one revision changed among the keys that are watched, in the order of keys. Never a part of it. Cloning shares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Events {
    /// The revision. Along one watch it rises with every batch.
    pub revision: Revision,
    /// At least one; one for each key.
    pub events: Arc<[Event]>,
}

/// Why the state at a revision, or the changes since it, cannot be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RevisionError {
    /// It is no longer kept.
    #[error(
        "revision {requested} has been compacted, the oldest that is kept is {oldest}: read the newest state and go on from \
         its revision"
    )]
    Compacted {
        /// What was asked for.
        requested: Revision,
        /// The oldest that can be asked for.
        oldest: Revision,
    },
    /// It is not there yet, on this node.
    #[error(
        "revision {requested} is in the future, this node's store is at {current}: ask again when it has got there"
    )]
    Future {
        /// What was asked for.
        requested: Revision,
        /// Where the store is.
        current: Revision,
    },
}
