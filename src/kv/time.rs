//! Time as the log tells it: the only time there is for the store.

use std::fmt;
use std::time::Duration;

/// A moment by the log: milliseconds since 1970, as the clock of whoever led then showed it.
///
/// An entry carries the moment at which its leader made it, and along one log these never fall. All replicas read the
/// same moments in the same order, so what depends on them (a session's end) is the same on all of them, whatever their
/// own clocks show and whenever they apply. A leader whose clock is ahead makes log time jump, and from there on it
/// stands still until the clocks have caught up: things may then end too early or too late by that jump, but nowhere
/// differently.
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
