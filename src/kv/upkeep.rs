//! What the store does about leases, and about its history when a command asks for it.

use super::entry::Revision;
use super::event::RevisionError;
use super::lease::{LeaseError, LeaseId, LeaseStatus};
use super::range::PAGE_KEYS;
use super::store::Store;
use super::time::LogTime;
use bytes::{BufMut, Bytes};
use std::time::Duration;
use xxhash_rust::xxh3::xxh3_128;

/// What an expiry has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Expiry {
    pub leases: u64,
    pub keys: u64,
}

impl Store {
    pub(super) fn grant(&mut self, lease: Option<LeaseId>, ttl: Duration) -> Result<LeaseId, LeaseError> {
        self.leases.grant(lease, ttl, self.sessions.now(), &mut self.digest)
    }

    /// The time that is left again.
    pub(super) fn keep_alive(&mut self, lease: LeaseId) -> Result<Duration, LeaseError> {
        self.leases.keep_alive(lease, self.sessions.now(), &mut self.digest)
    }

    /// Ends a lease, and with it its keys, at one revision if it has any; how many there were.
    pub(super) fn end_lease(&mut self, lease: LeaseId) -> Result<u64, LeaseError> {
        let mut keys = self.leases.end(lease, &mut self.digest)?;
        if wal::mutant!("lease_key_left_behind") && keys.len() > 1 {
            keys.pop();
        }
        if wal::mutant!("lease_ends_key_by_key") {
            while keys.len() > 1 {
                let mut edit = self.edit();
                edit.delete_attached(keys.split_off(keys.len() - 1));
                edit.finish();
            }
        }
        let count = keys.len() as u64;
        let mut edit = self.edit();
        edit.delete_attached(keys);
        edit.finish();
        Ok(count)
    }

    /// Ends the leases that are due by the entry's timestamp, each at a revision of its own, until that is enough for one
    /// entry.
    pub(super) fn expire(&mut self) -> Expiry {
        let mut expiry = Expiry { leases: 0, keys: 0 };
        let mut ended = 0;
        while let Some(lease) = self.leases.due(self.sessions.now(), ended) {
            let keys = self.end_lease(lease).expect("a lease that is due is there");
            expiry.leases += 1;
            expiry.keys += keys;
            // A lease without keys is work, too.
            ended += usize::try_from(keys).expect("keys in memory").max(1);
        }
        expiry
    }

    /// Lets go of what happened before `revision`, by and by; at once it cannot be asked for any more. The oldest revision
    /// that commands have left.
    pub(super) fn compact(&mut self, revision: Revision) -> Result<Revision, RevisionError> {
        let oldest = self.history.compact(revision, self.revision)?;
        // The next compaction is answered by it, so it is state. No other link has this length.
        let mut link = [0_u8; 32];
        let mut out = &mut link[..];
        out.put_u128_le(self.digest);
        out.put_u64_le(COMPACTED);
        out.put_u64_le(revision.0);
        self.digest = xxh3_128(&link);
        Ok(oldest)
    }

    /// When the store wants an entry of its own with an expiry in it, at the latest, by log time: when a lease ends, and some
    /// times before that, since log time moves only with entries and starts from the last one when leaders change. `None`
    /// without leases.
    #[must_use]
    pub fn upkeep_at(&self) -> Option<LogTime> {
        self.leases.upkeep_at(self.sessions.now())
    }

    /// The lease, as of the last entry applied.
    #[must_use]
    pub fn lease(&self, lease: LeaseId) -> Option<LeaseStatus> {
        self.leases.status(lease, self.sessions.now())
    }

    /// The first `limit` keys of a lease that come after `after`, in their order, at most [`PAGE_KEYS`]; `None` if there is no
    /// such lease.
    #[must_use]
    pub fn lease_keys(&self, lease: LeaseId, after: Option<&[u8]>, limit: usize) -> Option<Vec<Bytes>> {
        self.leases.keys(lease, after, limit.min(PAGE_KEYS))
    }

    /// Number of leases.
    #[must_use]
    pub fn leases(&self) -> usize {
        self.leases.len()
    }
}

const COMPACTED: u64 = 1;
