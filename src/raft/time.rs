//! Time as an argument. The core never asks what time it is; whoever drives it says so with every input.

use std::fmt;
use std::time::Duration;

/// A point on the driver's monotonic clock, in nanoseconds since an origin of its choice. The clock counts suspended
/// time too (`CLOCK_BOOTTIME` on Linux): a lease that slept must be over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mono(pub u64);

impl Mono {
    /// This point plus `span`; saturates, which a deadline may.
    #[must_use]
    pub fn after(self, span: Duration) -> Self {
        Self(self.0.saturating_add(nanos(span)))
    }

    /// Time since `earlier`, or zero if that lies ahead.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl fmt::Display for Mono {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3}ms", Duration::from_nanos(self.0).as_secs_f64() * 1e3)
    }
}

/// A span in nanoseconds; spans beyond 584 years are all alike.
#[must_use]
pub fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

/// The two clocks, read together by the driver.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// For timeouts and leases. Never falls.
    pub mono: Mono,
    /// Milliseconds since 1970, for the timestamps of entries only. May be wrong or jump; nothing about consensus
    /// depends on it.
    pub wall_ms: u64,
}
