//! The store: an ordered map in memory, one revision, one digest.
//!
//! A stored key or value owns its bytes. It could share the frame it came in, but then one small value would keep a
//! frame of a megabyte alive for as long as the key exists.

use super::command::{ChangeRef, CommandError, CommandRef, ExpectedRef, Limits};
use super::key::Key;
use super::lease::LeaseId;
use super::reply::{Presence, Reply};
use super::session::{SessionLimits, Sessions, Stamp, Verdict};
use super::time::LogTime;
use bytes::{BufMut, Bytes};
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Bound;
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

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

/// A part of what a scan found, in the order of keys (bytewise).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The keys found, at most as many as asked for.
    pub items: Vec<KeyValue>,
    /// Whether there are more behind the last one.
    pub more: bool,
}

#[derive(Clone, Debug)]
struct Entry {
    value: Bytes,
    create_revision: Revision,
    modify_revision: Revision,
    version: u64,
}

impl Entry {
    fn with_key(&self, key: &Key) -> KeyValue {
        KeyValue {
            key: Bytes::copy_from_slice(key.as_slice()),
            value: self.value.clone(),
            create_revision: self.create_revision,
            modify_revision: self.modify_revision,
            version: self.version,
            lease: None,
        }
    }
}

/// The state that the log builds.
#[derive(Clone, Debug)]
pub struct Store {
    entries: BTreeMap<Key, Entry>,
    /// Invariant: the modify revision of no entry is above it.
    revision: Revision,
    digest: u128,
    /// Invariant: the sum of the lengths of all keys and values.
    bytes: u64,
    sessions: Sessions,
    /// Asked by `check` only, never by `apply`.
    admitted: Limits,
}

impl Default for Store {
    fn default() -> Self {
        Self::new()
    }
}

impl Store {
    /// An empty store that admits commands within [`Limits::DEFAULT`].
    #[must_use]
    pub fn new() -> Self {
        Self::with_limits(Limits::DEFAULT)
    }

    /// An empty store that admits commands within `admitted`. What is applied does not depend on it.
    ///
    /// # Panics
    /// If `admitted` exceeds [`Limits::MAX`], or allows no key at all; a configuration checks both.
    #[must_use]
    pub fn with_limits(admitted: Limits) -> Self {
        assert!(admitted.key_bytes >= 1, "a store has keys");
        assert!(admitted.key_bytes <= Limits::MAX.key_bytes, "admitted keys can be applied");
        assert!(admitted.value_bytes <= Limits::MAX.value_bytes, "admitted values can be applied");
        Self {
            entries: BTreeMap::new(),
            revision: Revision::EMPTY,
            digest: 0,
            bytes: 0,
            sessions: Sessions::new(SessionLimits::MAX),
            admitted,
        }
    }

    /// An empty store whose sessions are limited otherwise, so that tests reach the limits.
    #[cfg(test)]
    pub(super) fn with_session_limits(limits: SessionLimits) -> Self {
        Self { sessions: Sessions::new(limits), ..Self::new() }
    }

    /// Whether `command` may be proposed: well formed, and within the limits that this store was made with.
    ///
    /// # Errors
    /// [`CommandError`] says what is wrong with it.
    pub fn check(&self, command: &[u8]) -> Result<(), CommandError> {
        self.admitted.check(command)
    }

    /// The entry whose commands are applied next was made at `to`: log time moves there, and sessions that were left
    /// unused for too long by then end. Log time never falls; an earlier `to` changes nothing.
    pub fn advance_to(&mut self, to: LogTime) {
        self.sessions.advance(to, &mut self.digest);
    }

    /// Applies one encoded command. Bytes that are no command within [`Limits::MAX`] are answered
    /// [`Reply::Refused`] and change nothing.
    pub fn apply(&mut self, command: &[u8]) -> Reply {
        match CommandRef::parse(command, Limits::MAX) {
            Ok(CommandRef::Change(change)) => self.change(change),
            Ok(CommandRef::InSession { stamp, change, bytes }) => self.change_once(stamp, change, bytes),
            Ok(CommandRef::OpenSession { timeout }) => match self.sessions.open(timeout, &mut self.digest) {
                Ok(session) => Reply::SessionOpened { revision: self.revision, session },
                Err(error) => Reply::SessionRefused(error),
            },
            Ok(CommandRef::CloseSession { session }) => {
                match self.sessions.close(session, &mut self.digest) {
                    Ok(()) => Reply::SessionClosed { revision: self.revision },
                    Err(error) => Reply::SessionRefused(error),
                }
            }
            Err(error) => Reply::Refused(error),
        }
    }

    fn change(&mut self, change: ChangeRef<'_>) -> Reply {
        match change {
            ChangeRef::Put { key, value } => Reply::Put { revision: self.set(key, value) },
            ChangeRef::Delete { key } => self.delete(key),
            ChangeRef::CompareAndSwap { key, expected, value } => self.compare_and_swap(key, expected, value),
        }
    }

    /// Makes a change unless it was made before, and answers as it was answered then.
    fn change_once(&mut self, stamp: Stamp, change: ChangeRef<'_>, bytes: &[u8]) -> Reply {
        let command = xxh3_64(bytes);
        match self.sessions.judge(stamp, command, &mut self.digest) {
            Verdict::New => {
                let reply = self.change(change);
                self.sessions.keep(stamp, command, &reply, &mut self.digest);
                reply
            }
            Verdict::Again(reply) => reply,
            Verdict::Refused(error) => Reply::SessionRefused(error),
        }
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> Revision {
        let revision = self.advance(Effect::Set { key, value });
        let value = Bytes::copy_from_slice(value);
        self.bytes += value.len() as u64;
        if let Some(entry) = self.entries.get_mut(key) {
            self.bytes -= entry.value.len() as u64;
            entry.value = value;
            entry.modify_revision = revision;
            entry.version += 1;
        } else {
            self.bytes += key.len() as u64;
            let entry = Entry { value, create_revision: revision, modify_revision: revision, version: 1 };
            self.entries.insert(Key::from(key), entry);
        }
        revision
    }

    fn delete(&mut self, key: &[u8]) -> Reply {
        let Some(entry) = self.entries.remove(key) else {
            if wal::mutant!("delete_absent_takes_revision") {
                self.advance(Effect::Remove { key });
            }
            return Reply::Deleted { revision: self.revision, before: Presence::Absent };
        };
        self.bytes -= (key.len() + entry.value.len()) as u64;
        Reply::Deleted { revision: self.advance(Effect::Remove { key }), before: Presence::Present }
    }

    fn compare_and_swap(&mut self, key: &[u8], expected: ExpectedRef<'_>, value: &[u8]) -> Reply {
        let current = self.entries.get_key_value(key);
        let holds = match (expected, current) {
            (ExpectedRef::Absent, None) => true,
            (ExpectedRef::Value(value), Some((_, entry))) => entry.value == value,
            (ExpectedRef::Revision(revision), Some((_, entry))) => entry.modify_revision == revision,
            (ExpectedRef::Absent, Some(_)) | (ExpectedRef::Value(_) | ExpectedRef::Revision(_), None) => {
                false
            }
        };
        if holds {
            return Reply::Swapped { revision: self.set(key, value) };
        }
        let mut current = current.map(|(key, entry)| entry.with_key(key));
        if wal::mutant!("swap_answers_without_value") {
            current = None;
        }
        if wal::mutant!("noop_takes_revision") {
            self.advance(Effect::Remove { key });
        }
        Reply::NotSwapped { revision: self.revision, current }
    }

    /// Takes the next revision for `effect` and chains it into the digest.
    fn advance(&mut self, effect: Effect<'_>) -> Revision {
        self.revision = self.revision.next();
        self.digest = effect.chain(self.digest, self.revision);
        self.revision
    }

    /// What is stored under `key`.
    #[must_use]
    pub fn get(&self, key: &[u8]) -> Option<KeyValue> {
        self.entries.get_key_value(key).map(|(key, entry)| entry.with_key(key))
    }

    /// What is stored under each of `keys`, in their order, all at the store's one revision.
    #[must_use]
    pub fn get_multi(&self, keys: &[impl AsRef<[u8]>]) -> Vec<Option<KeyValue>> {
        keys.iter().map(|key| self.get(key.as_ref())).collect()
    }

    /// The first `limit` keys that start with `prefix`. An empty prefix is every key's.
    ///
    /// ```
    /// # use bytes::BytesMut;
    /// # use d_engine::kv::{Store, encode_put};
    /// let mut store = Store::new();
    /// for key in ["lock/a", "lock/b", "lock/c", "other"] {
    ///     let mut command = BytesMut::new();
    ///     encode_put(key.as_bytes(), b"", &mut command)?;
    ///     store.apply(&command);
    /// }
    /// let first = store.scan_prefix(b"lock/", 2);
    /// assert_eq!(first.items.iter().map(|item| &item.key[..]).collect::<Vec<_>>(), [b"lock/a", b"lock/b"]);
    /// assert!(first.more);
    ///
    /// let rest = store.scan_prefix_after(b"lock/", &first.items[1].key, 2);
    /// assert_eq!(&rest.items[0].key[..], b"lock/c");
    /// assert!(!rest.more);
    /// # Ok::<(), d_engine::kv::CommandError>(())
    /// ```
    #[must_use]
    pub fn scan_prefix(&self, prefix: &[u8], limit: usize) -> Page {
        self.page(Bound::Included(prefix), prefix, limit)
    }

    /// The first `limit` keys that start with `prefix` and come after `after`: the page that follows one that ended
    /// there. `after` need not exist any more.
    #[must_use]
    pub fn scan_prefix_after(&self, prefix: &[u8], after: &[u8], limit: usize) -> Page {
        // All keys that sort before `prefix` and are after `after` do not start with it.
        let from = if after < prefix { Bound::Included(prefix) } else { Bound::Excluded(after) };
        self.page(from, prefix, limit)
    }

    fn page(&self, from: Bound<&[u8]>, prefix: &[u8], limit: usize) -> Page {
        // Keys that share a prefix are neighbours in bytewise order: the first one without it ends the scan.
        let mut found = self
            .entries
            .range::<[u8], _>((from, Bound::Unbounded))
            .take_while(|(key, _)| key.as_slice().starts_with(prefix));
        let items = found.by_ref().take(limit).map(|(key, entry)| entry.with_key(key)).collect();
        Page { items, more: found.next().is_some() }
    }

    /// The revision of the newest change.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// A hash over every change since the store was empty, in order: of keys, and of sessions with their answers and their
    /// expiry. Two replicas that applied the log up to one index have equal digests exactly when they got there by the
    /// same changes (as far as 128 bits of XXH3 tell: it is a check against error, not against an adversary). Without
    /// sessions the same holds of two replicas at one revision.
    #[must_use]
    pub fn digest(&self) -> u128 {
        self.digest
    }

    /// The greatest timestamp among the entries applied.
    #[must_use]
    pub fn log_time(&self) -> LogTime {
        self.sessions.now()
    }

    /// Number of sessions that are open, or have expired and were not yet cleared away.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.sessions.len()
    }

    /// Bytes of the answers that sessions keep for retries.
    #[must_use]
    pub fn session_bytes(&self) -> u64 {
        self.sessions.held_bytes()
    }

    /// Number of keys.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are no keys. The revision tells whether there ever were.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes of all keys and values, without what it costs to hold them (about 130 bytes a key).
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// What a command did, without the way it was asked for: a put and a successful compare-and-swap to the same value have
/// one effect.
#[derive(Clone, Copy)]
enum Effect<'a> {
    Set { key: &'a [u8], value: &'a [u8] },
    Remove { key: &'a [u8] },
}

impl Effect<'_> {
    /// Key and value are hashed apart, so that no byte can move from one to the other unseen, and nothing is copied.
    fn chain(self, previous: u128, revision: Revision) -> u128 {
        let (kind, key, value) = match self {
            Self::Set { key, value } => (1, key, value),
            Self::Remove { key } => (2, key, &[][..]),
        };
        let mut link = [0_u8; 64];
        let mut out = &mut link[..];
        out.put_u128_le(previous);
        out.put_u64_le(revision.0);
        out.put_u64_le(kind);
        out.put_u128_le(xxh3_128(key));
        out.put_u128_le(xxh3_128(value));
        xxh3_128(&link)
    }
}
