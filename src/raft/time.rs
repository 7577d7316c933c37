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
    /// Milliseconds since 1970. May be wrong or jump: the first leader of a group starts its timestamps from it, and
    /// nobody asks it again.
    pub wall_ms: u64,
}

/// Time under a leader, which is what entries are stamped with.
///
/// It goes on from the greatest timestamp of the log that the leader was elected with, and counts by the monotonic clock
/// from there. An outage without a leader is not in it, nor what a wall clock does. Of the time between two inputs it counts
/// two heartbeats at most: a running leader has an input at each, so what is longer was a pause (of the process, of the
/// machine, of its whole host), in which nobody could be heard. A leader that did not pause loses nothing.
///
/// Timestamps never fall along a log: a leader does not go below where it began, and it began at the end of a log that
/// holds all that is decided (Leader Completeness, thesis 3.6.3). What a truncated entry said is forgotten with it, and what
/// a majority's memory lost in `MemFirst` with that: time is a function of the log, wherever it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Count {
    /// Milliseconds since 1970, by the log.
    began: u64,
    /// Nanoseconds since then.
    counted: u64,
    /// Up to where.
    last: Mono,
    /// What one step counts at most.
    stride: Duration,
}

impl Count {
    pub fn starting(began: u64, now: Mono, heartbeat: Duration) -> Self {
        Self { began, counted: 0, last: now, stride: heartbeat * 2 }
    }

    /// There was an input.
    pub fn note(&mut self, now: Mono) {
        *self = self.at(now);
    }

    /// The count, if there was an input then.
    #[must_use]
    pub fn at(self, now: Mono) -> Self {
        let mut step = now.since(self.last);
        if !wal::mutant!("pause_is_time") {
            step = step.min(self.stride);
        }
        Self { counted: self.counted.saturating_add(nanos(step)), last: self.last.max(now), ..self }
    }

    /// Milliseconds since 1970, by the log.
    pub fn timestamp(&self) -> u64 {
        self.began.saturating_add(self.counted / NANOS_PER_MILLI)
    }

    /// When the count will have come to `timestamp`, if there is no pause.
    pub fn when(&self, timestamp: u64) -> Mono {
        let target = timestamp.saturating_sub(self.began).saturating_mul(NANOS_PER_MILLI);
        self.last.after(Duration::from_nanos(target.saturating_sub(self.counted)))
    }

    /// Counts nothing any more.
    #[cfg(feature = "sim")]
    pub fn stand_still(&mut self) {
        self.last = Mono(u64::MAX);
    }
}

const NANOS_PER_MILLI: u64 = 1_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    const MILLI: u64 = NANOS_PER_MILLI;

    #[test]
    fn steps_add_up_and_a_pause_counts_two_heartbeats() {
        let mut count = Count::starting(1_000, Mono(7), Duration::from_millis(50));
        for step in 1..=30_u64 {
            count.note(Mono(7 + step * 33_333_333));
        }
        assert_eq!(count.timestamp(), 1_999, "fractions are not lost");
        count.note(count.last.after(Duration::from_millis(100)));
        assert_eq!(count.timestamp(), 2_099);
        count.note(count.last.after(Duration::from_secs(60)));
        assert_eq!(count.timestamp(), 2_199, "a minute's pause");
        count.note(Mono(0));
        assert_eq!(count.timestamp(), 2_199);
    }

    #[test]
    fn a_moment_to_come_is_met_to_the_nanosecond() {
        let mut count = Count::starting(1_000, Mono(7), Duration::from_millis(50));
        count.note(Mono(7 + MILLI / 2));
        let when = count.when(1_020);
        assert_eq!(when, Mono(7 + 20 * MILLI));
        assert_eq!(count.at(when).timestamp(), 1_020);
        assert_eq!(count.at(Mono(when.0 - 1)).timestamp(), 1_019);
        assert_eq!(count.when(3), count.last, "long since");
        assert_eq!(Count::starting(0, Mono(0), Duration::ZERO).when(u64::MAX), Mono(u64::MAX));
    }
}
