//! What is stored under a key, inside the store and as readers see it.

use super::history::Position;
use super::key::Key;
use super::lease::LeaseId;
use bytes::Bytes;
use std::fmt;

/// The number of a change. Dense, unique and rising in the order of application; an empty store is at 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

impl Revision {
    /// Where a store that nothing was put into stands.
    pub const EMPTY: Self = Self(1);

    /// The one that follows.
    ///
    /// # Panics
    /// At `u64::MAX`, which no running system reaches: one a nanosecond lasts 584 years.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.checked_add(1).expect("a 64-bit counter does not end"))
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A key with what is stored under it. Cloning shares the bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyValue {
    /// The key.
    pub key: Bytes,
    /// Its value.
    pub value: Bytes,
    /// The change that created the key, since it was last absent.
    pub create_revision: Revision,
    /// The newest change of the key.
    pub modify_revision: Revision,
    /// How many changes it has had since it was created, that one included: 1 for a new key.
    pub version: u64,
    /// The lease that it lives as long as.
    pub lease: Option<LeaseId>,
}

/// What the store has under a key, now or before a change.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub value: Bytes,
    pub create_revision: Revision,
    pub modify_revision: Revision,
    pub version: u64,
    /// 0 for none, as no lease has that id: half the bytes of an `Option`.
    pub lease: u64,
    /// The change that made it; its record may have been let go of.
    pub change: Position,
}

impl Entry {
    pub fn lease(&self) -> Option<LeaseId> {
        (self.lease != 0).then_some(LeaseId(self.lease))
    }

    pub fn with_key(&self, key: &Key) -> KeyValue {
        KeyValue { value: self.value.clone(), ..self.without_value(key) }
    }

    /// The same with an empty value.
    pub fn without_value(&self, key: &Key) -> KeyValue {
        KeyValue {
            key: Bytes::copy_from_slice(key.as_slice()),
            value: Bytes::new(),
            create_revision: self.create_revision,
            modify_revision: self.modify_revision,
            version: self.version,
            lease: self.lease(),
        }
    }
}
