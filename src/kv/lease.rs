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
//! 7. At a limit of [`LeaseLimits`] new leases and attachments are refused.
//!

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;
use thiserror::Error;

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
