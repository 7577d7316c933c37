//! What the commands about ranges, leases and the store itself do. Each is one edit, and so one revision at most; only an
//! expiry is one for each lease.

use super::command::{CommandError, ExpectedRef, RangeRef};
use super::lease::{Attach, LeaseError, LeaseId};
use super::range::DELETE_KEYS;
use super::reply::Reply;
use super::store::{Revision, Store};
use super::upkeep::Expiry;
use std::time::Duration;

impl Store {
    pub(super) fn put_attached(&mut self, key: &[u8], value: &[u8], attach: Attach) -> Reply {
        match self.put_checked(key, value, attach) {
            Ok((revision, lease)) => Reply::PutAttached { revision, lease },
            Err(error) => Reply::LeaseRefused(error),
        }
    }

    pub(super) fn swap_attached(
        &mut self,
        key: &[u8],
        expected: ExpectedRef<'_>,
        value: &[u8],
        attach: Attach,
    ) -> Reply {
        if !self.is_as_expected(key, expected) {
            return self.not_swapped(key);
        }
        match self.put_checked(key, value, attach) {
            Ok((revision, lease)) => Reply::SwappedAttached { revision, lease },
            Err(error) => Reply::LeaseRefused(error),
        }
    }

    fn put_checked(
        &mut self,
        key: &[u8],
        value: &[u8],
        attach: Attach,
    ) -> Result<(Revision, Option<LeaseId>), LeaseError> {
        self.check_attach([(key, attach)])?;
        if wal::mutant!("put_keeps_lease_alive")
            && let Attach::Lease(lease) = attach
        {
            self.keep_alive(lease)?;
        }
        let mut edit = self.edit();
        let lease = edit.put(key, value, attach);
        Ok((edit.finish(), lease))
    }

    pub(super) fn delete_keys(&mut self, range: RangeRef<'_>) -> Reply {
        if self.count_up_to(range, DELETE_KEYS + 1) > DELETE_KEYS {
            return Reply::Refused(CommandError::DeleteTooWide);
        }
        let mut edit = self.edit();
        let deleted = edit.delete_all(range);
        Reply::RangeDeleted { revision: edit.finish(), deleted }
    }

    /// How many keys are in a range, counted no further than `most`.
    pub(super) fn count_up_to(&self, range: RangeRef<'_>, most: usize) -> usize {
        match range.single() {
            Some(key) => usize::from(self.entries.find(key).is_some()),
            None => self.entries.range(range.bounds()).take(most).count(),
        }
    }

    pub(super) fn grant_lease(&mut self, lease: Option<LeaseId>, ttl: Duration) -> Reply {
        match self.grant(lease, ttl) {
            Ok(lease) => Reply::LeaseGranted { revision: self.revision, lease, ttl },
            Err(error) => Reply::LeaseRefused(error),
        }
    }

    pub(super) fn keep_lease(&mut self, lease: LeaseId) -> Reply {
        match self.keep_alive(lease) {
            Ok(ttl) => Reply::LeaseKept { revision: self.revision, lease, ttl },
            Err(error) => Reply::LeaseRefused(error),
        }
    }

    pub(super) fn revoke_lease(&mut self, lease: LeaseId) -> Reply {
        match self.end_lease(lease) {
            Ok(keys) => Reply::LeaseRevoked { revision: self.revision, keys },
            Err(error) => Reply::LeaseRefused(error),
        }
    }

    pub(super) fn expire_leases(&mut self) -> Reply {
        let Expiry { leases, keys } = self.expire();
        Reply::Expired { revision: self.revision, leases, keys }
    }

    pub(super) fn compact_history(&mut self, revision: Revision) -> Reply {
        match self.compact(revision) {
            Ok(oldest) => Reply::Compacted { revision: self.revision, oldest },
            Err(error) => Reply::RevisionRefused(error),
        }
    }
}
