//! What is stored under a key, inside the store and as readers see it.

use super::history::Position;
use super::key::Key;
use super::lease::LeaseId;
use super::prefetch;
use bytes::{Bytes, BytesMut};
use std::collections::VecDeque;
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

/// A key with what is stored under it. Cloning shares the bytes. Key and value may share a buffer of the store, which is
/// kept as long as one of them is.
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

/// Buffers of entries that were let go of, for the next ones: a store that keeps its size allocates nothing for a put.
///
/// They come from the far end of the history, where nothing has been for long, and are written over a few puts later: in the
/// meantime they are brought near.
#[derive(Clone, Debug, Default)]
pub(super) struct Spare(VecDeque<Bytes>);

impl Spare {
    /// More are not kept, nor larger ones: what it saves is the same for any size.
    const KEPT: usize = 8;
    const LARGEST: usize = 4 << 10;
    /// As many wait before the first is used again.
    const WAITING: usize = 4;

    /// Takes an entry's buffer back.
    pub fn give(&mut self, entry: Entry) {
        if self.0.len() < Self::KEPT && entry.bytes.len() <= Self::LARGEST {
            prefetch::slice(&entry.bytes);
            self.0.push_back(entry.bytes);
        }
    }

    /// A buffer with a key and behind it its value.
    #[inline]
    pub fn buffer(&mut self, key: &[u8], value: &[u8]) -> Bytes {
        let former = if self.0.len() < Self::WAITING { None } else { self.0.pop_front() };
        stored(former.unwrap_or_default(), key, value)
    }
}

/// Key and value behind each other, in `former` if it fits and nobody reads it. A copy: a part of the frame that they came in
/// would keep all of the frame alive.
#[inline]
fn stored(former: Bytes, key: &[u8], value: &[u8]) -> Bytes {
    let length = key.len() + value.len();
    // Only a full buffer becomes `Bytes` without an allocation.
    let mut buffer = match former.try_into_mut() {
        Ok(mut buffer) if buffer.capacity() == length => {
            buffer.clear();
            buffer
        }
        Ok(_) | Err(_) => BytesMut::with_capacity(length),
    };
    buffer.extend_from_slice(key);
    buffer.extend_from_slice(value);
    buffer.freeze()
}

/// What the store has under a key, now or before a change.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// The key and behind it the value: whoever reads both gets parts of one buffer, and nothing is allocated for that.
    bytes: Bytes,
    key_length: u32,
    pub create_revision: Revision,
    pub modify_revision: Revision,
    pub version: u64,
    /// 0 for none, as no lease has that id: half the bytes of an `Option`.
    pub lease: u64,
    /// The change that made it; its record may have been let go of.
    pub change: Position,
}

impl Entry {
    /// What is put at a revision. The buffer has the key, of that length, and behind it the value.
    #[inline]
    pub fn new(
        (bytes, key_length): (Bytes, usize),
        (create_revision, version): (Revision, u64),
        modify_revision: Revision,
        lease: u64,
        change: Position,
    ) -> Self {
        let key_length = u32::try_from(key_length).expect("the store's limits are below 4 GiB");
        Self { bytes, key_length, create_revision, modify_revision, version, lease, change }
    }

    pub fn value(&self) -> &[u8] {
        &self.bytes[self.key_length as usize..]
    }

    pub fn value_bytes(&self) -> usize {
        self.bytes.len() - self.key_length as usize
    }

    pub fn lease(&self) -> Option<LeaseId> {
        (self.lease != 0).then_some(LeaseId(self.lease))
    }

    pub fn with_key(&self, key: &Key) -> KeyValue {
        let length = self.key_length as usize;
        assert_eq!(key.as_slice().len(), length, "an entry is of its key");
        self.told(self.bytes.slice(..length), self.bytes.slice(length..))
    }

    /// The same with an empty value.
    pub fn without_value(&self, key: &Key) -> KeyValue {
        // A copy: the key alone shall not keep the value.
        self.told(Bytes::copy_from_slice(key.as_slice()), Bytes::new())
    }

    fn told(&self, key: Bytes, value: Bytes) -> KeyValue {
        KeyValue {
            key,
            value,
            create_revision: self.create_revision,
            modify_revision: self.modify_revision,
            version: self.version,
            lease: self.lease(),
        }
    }
}
