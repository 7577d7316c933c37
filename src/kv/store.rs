//! The store: an ordered map in memory, one revision, one digest, and what each command does to them.
//!
//! A stored key or value owns its bytes. It could share the frame it came in, but then one small value would keep a
//! frame of a megabyte alive for as long as the key exists. Reading is in `past`, changing in `edit`.

use super::command::{ChangeRef, CommandError, CommandRef, ExpectedRef, Limits, put_parts};
use super::edit::Effect;
pub use super::entry::{KeyValue, Revision};
use super::history::{History, Retention};
use super::lease::{Attach, LeaseLimits, Leases};
use super::reply::{Presence, Reply};
use super::session::{SessionLimits, Sessions, Stamp, Verdict};
use super::table::Table;
use super::time::LogTime;
use xxhash_rust::xxh3::xxh3_64;

/// A part of what a scan found, in the order of keys (bytewise).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The keys found, at most as many as asked for.
    pub items: Vec<KeyValue>,
    /// Whether there are more behind the last one.
    pub more: bool,
}

/// The state that the log builds.
#[derive(Clone, Debug)]
pub struct Store {
    pub(super) entries: Table,
    /// Invariant: the modify revision of no entry is above it.
    pub(super) revision: Revision,
    pub(super) digest: u128,
    /// Invariant: the sum of the lengths of all keys and values.
    pub(super) bytes: u64,
    pub(super) history: History,
    pub(super) leases: Leases,
    pub(super) sessions: Sessions,
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
            entries: Table::new(),
            revision: Revision::EMPTY,
            digest: 0,
            bytes: 0,
            history: History::new(Retention::DEFAULT),
            leases: Leases::new(LeaseLimits::MAX),
            sessions: Sessions::new(SessionLimits::MAX),
            admitted,
        }
    }

    /// An empty store whose sessions are limited otherwise, so that tests reach the limits.
    #[cfg(test)]
    pub(super) fn with_session_limits(limits: SessionLimits) -> Self {
        Self { sessions: Sessions::new(limits), ..Self::new() }
    }

    /// The same store, which keeps as much of its history as `retention` says.
    #[must_use]
    pub fn with_retention(mut self, retention: Retention) -> Self {
        self.history.set_retention(retention);
        self
    }

    /// An empty store whose leases are limited otherwise, so that tests and simulated clusters reach the limits.
    #[cfg(any(test, feature = "sim"))]
    pub(crate) fn with_lease_limits(limits: LeaseLimits) -> Self {
        Self { leases: Leases::new(limits), ..Self::new() }
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
        self.history.advance(self.sessions.now(), self.revision);
    }

    /// Applies one encoded command. Bytes that are no command within [`Limits::MAX`] are answered
    /// [`Reply::Refused`] and change nothing.
    pub fn apply(&mut self, command: &[u8]) -> Reply {
        if let Some((key, value)) = put_parts(command, Limits::MAX) {
            return Reply::Put { revision: self.set(key, value) };
        }
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
            Ok(CommandRef::Compact { revision }) => self.compact_history(revision),
            Ok(CommandRef::Expire) => self.expire_leases(),
            Err(error) => Reply::Refused(error),
        }
    }

    fn change(&mut self, change: ChangeRef<'_>) -> Reply {
        match change {
            ChangeRef::Put { key, value } => Reply::Put { revision: self.set(key, value) },
            ChangeRef::Delete { key } => self.delete(key),
            ChangeRef::CompareAndSwap { key, expected, value } => self.compare_and_swap(key, expected, value),
            ChangeRef::PutAttached { key, value, attach } => self.put_attached(key, value, attach),
            ChangeRef::SwapAttached { key, expected, value, attach } => {
                self.swap_attached(key, expected, value, attach)
            }
            ChangeRef::DeleteRange { range } => self.delete_keys(range),
            ChangeRef::Txn(txn) => self.txn(&txn),
            ChangeRef::Grant { lease, ttl } => self.grant_lease(lease, ttl),
            ChangeRef::KeepAlive { lease } => self.keep_lease(lease),
            ChangeRef::Revoke { lease } => self.revoke_lease(lease),
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
        let mut edit = self.edit();
        edit.put(key, value, Attach::Nothing);
        edit.finish()
    }

    fn delete(&mut self, key: &[u8]) -> Reply {
        let mut edit = self.edit();
        let before = if edit.delete(key) { Presence::Present } else { Presence::Absent };
        edit.finish();
        if wal::mutant!("delete_absent_takes_revision") && before == Presence::Absent {
            self.skip_revision(key);
        }
        Reply::Deleted { revision: self.revision, before }
    }

    fn compare_and_swap(&mut self, key: &[u8], expected: ExpectedRef<'_>, value: &[u8]) -> Reply {
        if self.is_as_expected(key, expected) {
            return Reply::Swapped { revision: self.set(key, value) };
        }
        self.not_swapped(key)
    }

    pub(super) fn is_as_expected(&self, key: &[u8], expected: ExpectedRef<'_>) -> bool {
        match (expected, self.entries.find(key).map(|(_, entry)| entry)) {
            (ExpectedRef::Absent, None) => true,
            (ExpectedRef::Value(value), Some(entry)) => entry.value() == value,
            (ExpectedRef::Revision(revision), Some(entry)) => entry.modify_revision == revision,
            (ExpectedRef::Absent, Some(_)) | (ExpectedRef::Value(_) | ExpectedRef::Revision(_), None) => {
                false
            }
        }
    }

    pub(super) fn not_swapped(&mut self, key: &[u8]) -> Reply {
        let mut current = self.get(key);
        if wal::mutant!("swap_answers_without_value") {
            current = None;
        }
        if wal::mutant!("noop_takes_revision") {
            self.skip_revision(key);
        }
        Reply::NotSwapped { revision: self.revision, current: current.map(Box::new) }
    }

    /// Takes a revision that no change has: a bug that some mutants have.
    fn skip_revision(&mut self, key: &[u8]) {
        self.revision = self.revision.next();
        self.digest = Effect::Remove { key }.chain(self.digest, self.revision);
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

    /// Bytes of all keys and values, without what it costs to hold them (about 180 bytes a key, measured with a million
    /// keys of 16 bytes).
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}
