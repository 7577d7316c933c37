//! Leases by the log's time.

use crate::kv::{LeaseError, LeaseId, LeaseLimits};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};

/// A lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Lease {
    pub(in super::super) ttl: u64,
    /// The log's time from which on an entry may end it.
    pub(in super::super) ends: u64,
    pub(in super::super) keys: BTreeSet<Bytes>,
    /// It is the time to live of one key.
    own: bool,
}

#[derive(Debug)]
pub(super) struct Leases {
    pub(super) limits: LeaseLimits,
    pub(super) all: BTreeMap<u64, Lease>,
    /// The last id that was chosen here.
    chosen: u64,
}

impl Default for Leases {
    fn default() -> Self {
        Self { limits: LeaseLimits::MAX, all: BTreeMap::new(), chosen: 0 }
    }
}

impl Leases {
    fn choose(&mut self) -> u64 {
        self.chosen += 1;
        while self.all.contains_key(&self.chosen) {
            self.chosen += 1;
        }
        self.chosen
    }

    /// Grants one, under `id` unless that is 0.
    pub(super) fn grant(&mut self, id: u64, (ttl, now): (u64, u64)) -> Result<u64, LeaseError> {
        self.admits_more(1)?;
        if id != 0 && self.all.contains_key(&id) {
            return Err(LeaseError::Exists { lease: LeaseId(id) });
        }
        let id = if id == 0 { self.choose() } else { id };
        self.all.insert(id, Lease { ttl, ends: now + ttl, keys: BTreeSet::new(), own: false });
        Ok(id)
    }

    /// Makes the lease of one put.
    pub(super) fn own(&mut self, ttl: u64, now: u64) -> u64 {
        let id = self.choose();
        self.all.insert(id, Lease { ttl, ends: now + ttl, keys: BTreeSet::new(), own: true });
        id
    }

    /// The time it has again.
    pub(super) fn keep(&mut self, id: u64, now: u64) -> Result<u64, LeaseError> {
        let lease = self.all.get_mut(&id).ok_or(LeaseError::NotFound { lease: LeaseId(id) })?;
        lease.ends = now + lease.ttl;
        Ok(lease.ttl)
    }

    /// Whether there may be so many more.
    pub(super) fn admits_more(&self, more: usize) -> Result<(), LeaseError> {
        let limit = self.limits.leases;
        if self.all.len() + more > limit {
            return Err(LeaseError::TooManyLeases { limit: limit as u64 });
        }
        Ok(())
    }

    /// Whether it is there and may have so many more keys. One of a key's own has no other.
    pub(super) fn admits_keys(&self, id: u64, more: usize) -> Result<(), LeaseError> {
        let lease = self.all.get(&id).ok_or(LeaseError::NotFound { lease: LeaseId(id) })?;
        let limit = if lease.own { 1 } else { self.limits.keys };
        if lease.keys.len() + more > limit {
            return Err(LeaseError::TooManyKeys { lease: LeaseId(id), limit: limit as u64 });
        }
        Ok(())
    }

    pub(super) fn attach(&mut self, id: u64, key: &Bytes) {
        self.all.get_mut(&id).expect("it admits the key").keys.insert(key.clone());
    }

    pub(super) fn detach(&mut self, id: u64, key: &Bytes) {
        let lease = self.all.get_mut(&id).expect("it has the key");
        assert!(lease.keys.remove(key), "it has the key");
        if lease.own {
            self.all.remove(&id);
        }
    }

    /// The one to end next, if its time is over.
    pub(super) fn due(&self, now: u64) -> Option<u64> {
        let (&id, _) = self.all.iter().min_by_key(|(id, lease)| (lease.ends, **id))?;
        (self.all[&id].ends <= now).then_some(id)
    }
}
