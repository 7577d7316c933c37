//! Time as the log tells it: the only time there is for the store.
//!
//! # Rules
//!
//! 1. An entry carries the moment at which its leader made it, and along one log these never fall. All replicas read the same
//!    moments in the same order: what depends on them (the end of a lease or a session) is the same on all of them, whatever
//!    their own clocks show and whenever they apply.
//! 2. It is *time under a leader*. A leader goes on from the last moment of the log it was elected with, and counts from there
//!    by its monotonic clock. Only the first leader of all, whose log has no moment, begins with its wall clock; nobody reads
//!    one after that, so log time drifts from the time of day, by outages most of all. It measures spans, not dates.
//! 3. Between two inputs a leader counts two heartbeats at most. It has an input at least every heartbeat; so what is longer is a
//!    pause, of the process or of the whole machine.
//!
//! # Why
//!
//! A lease is to end when its holder had all its time to keep it alive and did not. While there is no leader, or the leader
//! is paused, nobody can be kept alive; a wall clock that is set, or two leaders whose clocks differ, says nothing about
//! holders at all. With such time in it, log time would end everything at once after an outage, by mistake.
//!
//! # What to expect
//!
//! - Never early by log time, hence never early by more than a leader's clock runs fast: the group assumes at most the drift
//!   bound of its leases for reads.
//! - Late by what was no time: outages and pauses, and what the last leader counted after its last entry. A store with leases
//!   asks for entries, so that this is at most a sixteenth of what a lease has left, or 100 ms where that is more.
//! - A leader that is cut off counts until it steps down, in entries that are never decided. They are no moments of the log.

use std::fmt;
use std::time::Duration;

/// A moment by the log, in milliseconds. Near the time of day as milliseconds since 1970 when the group is young; only
/// differences mean anything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogTime(pub u64);

impl LogTime {
    /// The moment `by` later, in whole milliseconds; the last moment there is when it would be beyond.
    #[must_use]
    pub fn after(self, by: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(by.as_millis()).unwrap_or(u64::MAX)))
    }

    /// The time from `earlier` to this moment; zero if that is not earlier.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl fmt::Display for LogTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}ms", self.0)
    }
}
