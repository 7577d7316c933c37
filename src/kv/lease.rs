//! Leases: keys that live as long as somebody keeps them alive.
//!
//! # Rules
//!
//! 1. A lease is granted for a time to live, by a command. Its id is chosen by the store, or by who grants it; one that is
//!    in use is refused.
//! 2. A key is attached by the put (or swap) that names the lease; the next put that does not name it detaches it. A key has
//!    at most one lease.
//! 3. Keeping alive sets the time left to the time to live again.
//! 4. A lease ends by revocation, or by an entry that its leader makes for the purpose (`Command::Expire`), and then only
//!    if by that entry's timestamp its time is over: never early by log time, and not without an entry. What is kept alive by
//!    an earlier entry is not ended by a later one that was made in ignorance of it.
//! 5. With a lease all its keys go, in the order of keys, at one revision.
//! 6. A time to live on a put is a lease of one key that the store makes; it is gone with the key, or when the key is put
//!    without it.
//! 7. At a limit of [`LeaseLimits`] new leases and attachments are refused. A lease of its own (rule 6) takes no second key.
//!
//! Until an entry ends it, a lease is there, and may be kept alive, even when its time is over: a client whose word was
//! ordered before the end is not told that it came too late.
//!
//! # Ids
//!
//! The store counts from 1 and chooses none twice. Who names leases itself does well to draw 64 random bits: an id may be
//! granted again after its lease has ended, and an old client's keep-alive would then be one for the new lease.
//!
//! Whatever changes here is chained into the store's digest. Deliberately not here: a clock (see
//! [`LogTime`]), who owns a lease (an id is no secret), the keys themselves.

use super::key::Key;
use super::time::LogTime;
use bytes::{BufMut, Bytes};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::{Bound, RangeInclusive};
use std::time::Duration;
use thiserror::Error;
use xxhash_rust::xxh3::xxh3_128_with_seed;

/// Names a lease in its store. Never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(pub u64);

impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How long a lease may be granted for: whole milliseconds from 100 ms to 366 days. A fraction of one is dropped.
pub const LEASE_TTL: RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_secs(366 * 24 * 60 * 60);

/// Entries of the store's own that only let log time pass are this far apart at least.
const TICK: Duration = Duration::from_millis(100);
/// An entry that ends leases waits this long after the one before, so that those that end together go together.
const GATHER: Duration = Duration::from_millis(20);
const _: () = assert!(GATHER.as_millis() < TICK.as_millis());

/// What the life of a key depends on from a put on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Attach {
    /// Nothing: it stays until it is deleted.
    #[default]
    Nothing,
    /// What it depended on before.
    Keep,
    /// A lease that was granted.
    Lease(LeaseId),
    /// A lease of its own, of this time to live, within [`LEASE_TTL`].
    Ttl(Duration),
}

/// How much there may be of leases. Belongs to the format: replicas that disagreed would diverge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseLimits {
    /// Leases at the same time.
    pub leases: usize,
    /// Keys of one lease: they end together, in one step of the loop.
    pub keys: usize,
    /// Keys that one entry may end by expiry; a lease that begins below it ends whole.
    pub expired_keys_per_entry: usize,
}

impl LeaseLimits {
    /// What every replica applies: 1,048,576 leases, 4,096 keys of each; an entry ends 1,024 keys or one lease.
    pub const MAX: Self = Self { leases: 1 << 20, keys: 1 << 12, expired_keys_per_entry: 1 << 10 };
}

/// Why a command about leases, or one that names a lease, was refused. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum LeaseError {
    /// There is no such lease: never granted, revoked or expired.
    #[error(
        "lease {lease} does not exist: it was revoked, has expired or was never granted; grant a new one"
    )]
    NotFound {
        /// The lease that was named.
        lease: LeaseId,
    },
    /// The id that was asked for is in use.
    #[error("lease {lease} exists already: choose another id, or let the store choose")]
    Exists {
        /// The id.
        lease: LeaseId,
    },
    /// As many leases as may be.
    #[error("{limit} leases are granted, which is the limit: revoke those that are done with")]
    TooManyLeases {
        /// The limit.
        limit: u64,
    },
    /// A lease with as many keys as may be.
    #[error("lease {lease} has {limit} keys, which is the limit: attach the key to another lease")]
    TooManyKeys {
        /// The lease.
        lease: LeaseId,
        /// The limit.
        limit: u64,
    },
}

/// A lease, to look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseStatus {
    /// Its id.
    pub lease: LeaseId,
    /// What it was granted for.
    pub ttl: Duration,
    /// What is left, as of the last entry applied; zero when it is to be ended by the next chance.
    pub left: Duration,
    /// How many keys it has.
    pub keys: usize,
}

/// A lease that is there.
#[derive(Clone, Debug)]
struct Lease {
    ttl: Duration,
    /// Log time from which on it may be ended.
    ends: LogTime,
    keys: Keys,
}

/// The keys of a lease.
#[derive(Clone, Debug)]
enum Keys {
    /// Of one that a command granted. It stays without any, too.
    Granted(BTreeSet<Key>),
    /// Of one that is the time to live of a put: this key, with which it ends; none between making it and attaching.
    Own(Option<Key>),
}

impl Keys {
    fn len(&self) -> usize {
        match self {
            Self::Granted(keys) => keys.len(),
            Self::Own(key) => usize::from(key.is_some()),
        }
    }

    fn most(&self, limits: &LeaseLimits) -> usize {
        match self {
            Self::Granted(_) => limits.keys,
            Self::Own(_) => 1,
        }
    }
}

/// The leases of a store.
///
/// Granting, keeping alive and ending are chained into the digest here. Attaching is not: the change of the key, which the
/// store chains, names the lease.
#[derive(Clone, Debug)]
pub(super) struct Leases {
    // Invariant: a key is in one of them at most.
    granted: BTreeMap<LeaseId, Lease>,
    /// Invariant: one for each of `granted`, with the moment it ends at.
    by_end: BTreeSet<(LogTime, LeaseId)>,
    /// Where to look for the next free id. Never falls, so that the store chooses no id twice.
    next: LeaseId,
    limits: LeaseLimits,
}

impl Leases {
    pub fn new(limits: LeaseLimits) -> Self {
        assert!(limits.leases > 0 && limits.keys > 0, "a lease that may be granted and may have a key");
        assert!(limits.expired_keys_per_entry > 0, "an expiry ends something");
        Self { granted: BTreeMap::new(), by_end: BTreeSet::new(), next: LeaseId(1), limits }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.granted.len()
    }

    /// Grants a lease, under `id` or one that is free.
    pub fn grant(
        &mut self,
        id: Option<LeaseId>,
        ttl: Duration,
        now: LogTime,
        digest: &mut u128,
    ) -> Result<LeaseId, LeaseError> {
        self.check_more(1)?;
        if let Some(lease) = id
            && self.granted.contains_key(&lease)
        {
            return Err(LeaseError::Exists { lease });
        }
        let lease = id.unwrap_or_else(|| self.choose());
        self.begin(lease, Lease { ttl, ends: now.after(ttl), keys: Keys::Granted(BTreeSet::new()) }, digest);
        Ok(lease)
    }

    /// Makes the lease of one put. Its key is to be attached next.
    pub fn own(&mut self, ttl: Duration, now: LogTime, digest: &mut u128) -> Result<LeaseId, LeaseError> {
        self.check_more(1)?;
        let lease = self.choose();
        self.begin(lease, Lease { ttl, ends: now.after(ttl), keys: Keys::Own(None) }, digest);
        Ok(lease)
    }

    /// Sets the time left to the time to live again, and says how much that is. A lease whose time is over and that no
    /// entry has ended yet is kept alive like any other.
    pub fn keep_alive(
        &mut self,
        lease: LeaseId,
        now: LogTime,
        digest: &mut u128,
    ) -> Result<Duration, LeaseError> {
        let kept = self.granted.get_mut(&lease).ok_or(LeaseError::NotFound { lease })?;
        let ends = now.after(kept.ttl);
        assert!(ends >= kept.ends, "log time does not fall");
        if ends != kept.ends && !wal::mutant!("lease_keep_alive_ignored") {
            let former = self.by_end.remove(&(kept.ends, lease));
            assert!(former, "every lease ends once");
            kept.ends = ends;
            self.by_end.insert((ends, lease));
        }
        chain(digest, KEPT, lease, kept);
        Ok(kept.ttl)
    }

    /// Whether `more` leases could be made.
    pub fn check_more(&self, more: usize) -> Result<(), LeaseError> {
        let limit = self.limits.leases;
        if more > limit - self.granted.len() {
            return Err(LeaseError::TooManyLeases { limit: limit as u64 });
        }
        Ok(())
    }

    /// Whether the lease is there and `more` keys that it does not have could be attached to it. A lease made for one key
    /// takes no other.
    pub fn check_room(&self, lease: LeaseId, more: usize) -> Result<(), LeaseError> {
        let state = self.granted.get(&lease).ok_or(LeaseError::NotFound { lease })?;
        let limit = state.keys.most(&self.limits);
        if more > limit - state.keys.len() {
            return Err(LeaseError::TooManyKeys { lease, limit: limit as u64 });
        }
        Ok(())
    }

    /// Attaches a key that has no lease. Whether it may was [asked](Self::check_room) before.
    pub fn attach(&mut self, lease: LeaseId, key: &Key) {
        let state = self.granted.get_mut(&lease).expect("asked for a lease that is there");
        let new = match &mut state.keys {
            Keys::Granted(keys) => keys.insert(key.clone()),
            Keys::Own(own) => own.replace(key.clone()).is_none(),
        };
        assert!(new, "a key is attached once, and to a lease of its own no other");
        assert!(state.keys.len() <= self.limits.keys, "asked whether there is room");
    }

    /// Detaches a key that has this lease: it was deleted, or put without the lease. A lease of its own ends with that.
    pub fn detach(&mut self, lease: LeaseId, key: &Key, digest: &mut u128) {
        let state = self.granted.get_mut(&lease).expect("a lease that has a key is there");
        let former = match &mut state.keys {
            Keys::Granted(keys) => keys.remove(key),
            Keys::Own(own) => own.take().is_some_and(|own| own == *key),
        };
        assert!(former, "an attached key's lease has it");
        if matches!(state.keys, Keys::Own(_)) {
            self.end(lease, digest).expect("just seen");
        }
    }

    /// Ends a lease. The keys it had, in order, are for the caller to delete; they are attached to nothing any more.
    pub fn end(&mut self, lease: LeaseId, digest: &mut u128) -> Result<Vec<Key>, LeaseError> {
        let ended = self.granted.remove(&lease).ok_or(LeaseError::NotFound { lease })?;
        let former = self.by_end.remove(&(ended.ends, lease));
        assert!(former, "every lease ends once");
        chain(digest, ENDED, lease, &ended);
        Ok(match ended.keys {
            Keys::Granted(keys) => keys.into_iter().collect(),
            Keys::Own(key) => key.into_iter().collect(),
        })
    }

    /// The lease to end next by an expiry at `now` that has `ended` so much already (keys; a lease without counts as one),
    /// if there is one that is due and the entry may end more.
    pub fn due(&self, now: LogTime, ended: usize) -> Option<LeaseId> {
        if ended >= self.limits.expired_keys_per_entry {
            return None;
        }
        let &(ends, lease) = self.by_end.first()?;
        (ends <= now || wal::mutant!("expiry_before_its_time")).then_some(lease)
    }

    /// When the first of them is due.
    pub fn next_end(&self) -> Option<LogTime> {
        self.by_end.first().map(|&(ends, _)| ends)
    }

    /// When the store wants an entry at the latest, if `now` is the newest one's moment: when a lease ends, and *ticks*
    /// before that. Log time moves with entries, and a leader starts from the last one; so what has passed since is lost
    /// when leaders change. The ticks keep that below a sixteenth of what any lease has left (but they are not closer
    /// together than [`TICK`]).
    pub fn upkeep_at(&self, now: LogTime) -> Option<LogTime> {
        let first = self.next_end()?;
        if first <= now {
            return Some(first); // Time is over for more than one entry may end.
        }
        let ends = first.max(now.after(GATHER));
        if wal::mutant!("lease_without_ticks") {
            return Some(ends);
        }
        let left = first.since(now);
        Some(ends.min(now.after((left / 16).max(TICK))))
    }

    /// The lease, to look at.
    pub fn status(&self, lease: LeaseId, now: LogTime) -> Option<LeaseStatus> {
        let state = self.granted.get(&lease)?;
        Some(LeaseStatus { lease, ttl: state.ttl, left: state.ends.since(now), keys: state.keys.len() })
    }

    /// The first `limit` keys of the lease, in order, that come after `after`.
    pub fn keys(&self, lease: LeaseId, after: Option<&[u8]>, limit: usize) -> Option<Vec<Bytes>> {
        let keys: Vec<&Key> = match &self.granted.get(&lease)?.keys {
            Keys::Granted(keys) => {
                let from = after.map_or(Bound::Unbounded, Bound::Excluded);
                keys.range::<[u8], _>((from, Bound::Unbounded)).take(limit).collect()
            }
            Keys::Own(key) => key
                .iter()
                .filter(|key| after.is_none_or(|after| key.as_slice() > after))
                .take(limit)
                .collect(),
        };
        Some(keys.into_iter().map(|key| Bytes::copy_from_slice(key.as_slice())).collect())
    }

    /// An id that is free, and that the store has not chosen before. Those in use were named by who granted them; each is
    /// stepped over once in all time.
    fn choose(&mut self) -> LeaseId {
        for &taken in self.granted.range(self.next..).map(|(lease, _)| lease) {
            if taken != self.next {
                break;
            }
            self.next = LeaseId(self.next.0.checked_add(1).expect("a 64-bit counter does not end"));
        }
        let chosen = self.next;
        self.next = LeaseId(chosen.0.checked_add(1).expect("a 64-bit counter does not end"));
        chosen
    }

    fn begin(&mut self, lease: LeaseId, begun: Lease, digest: &mut u128) {
        assert!(LEASE_TTL.contains(&begun.ttl) && lease.0 != 0, "a command says nothing else");
        chain(digest, GRANTED, lease, &begun);
        let new = self.by_end.insert((begun.ends, lease));
        assert!(new, "every lease ends once");
        let former = self.granted.insert(lease, begun);
        assert!(former.is_none(), "an id is in use once");
    }

    /// Checks what is true between two commands.
    #[cfg(test)]
    pub fn check(&self) {
        assert!(self.granted.len() <= self.limits.leases);
        let ends: BTreeSet<_> = self.granted.iter().map(|(&lease, state)| (state.ends, lease)).collect();
        assert_eq!(ends, self.by_end, "every lease ends once");
        let mut seen = BTreeSet::new();
        for state in self.granted.values() {
            assert!(state.keys.len() <= state.keys.most(&self.limits), "no lease has more keys than it may");
            match &state.keys {
                Keys::Granted(keys) => {
                    keys.iter().for_each(|key| assert!(seen.insert(key), "one lease a key"))
                }
                Keys::Own(key) => assert!(seen.insert(key.as_ref().expect("attached")), "one lease a key"),
            }
        }
    }
}

const GRANTED: u64 = 1;
const KEPT: u64 = 2;
const ENDED: u64 = 3;

/// Sets the links of leases apart from those of keys and sessions.
const LINK_SEED: u64 = u64::from_le_bytes(*b"a lease.");

/// Chains what happened to a lease into the digest: the lease after it, or as it was when it ended.
fn chain(digest: &mut u128, kind: u64, lease: LeaseId, state: &Lease) {
    let mut link = [0_u8; 64];
    let mut out = &mut link[..];
    out.put_u128_le(*digest);
    out.put_u128_le(state.ttl.as_millis());
    for number in [kind, lease.0, state.ends.0, state.keys.len() as u64] {
        out.put_u64_le(number);
    }
    assert!(out.is_empty(), "the link is as long as what is in it");
    *digest = xxh3_128_with_seed(&link, LINK_SEED);
}
