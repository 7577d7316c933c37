//! A node's clocks: monotonic time that drifts and may be made to jump or stand, and wall time that may be anything.

use super::observation::Instant;
use crate::raft::{Mono, Now};

const MILLION: u128 = 1_000_000;

/// The clocks of one machine. They go on while its node is down.
#[derive(Clone, Debug)]
pub(super) struct Clock {
    /// Where the current rate began, on both clocks.
    since: (Instant, u64),
    /// Local nanoseconds per million of the world's; zero while it stands still.
    rate: u64,
    /// What the wall clock is off by, in milliseconds.
    wall_off: i64,
}

impl Clock {
    /// A clock that shows `origin` when the run begins.
    pub(super) fn new(origin: u64, rate: u64, wall_off: i64) -> Self {
        Self { since: (Instant(0), origin), rate, wall_off }
    }

    fn mono(&self, at: Instant) -> u64 {
        let (world, local) = self.since;
        let passed = u128::from(at.0 - world.0) * u128::from(self.rate) / MILLION;
        local + u64::try_from(passed).expect("a run is short")
    }

    pub(super) fn now(&self, at: Instant) -> Now {
        let mono = self.mono(at);
        let wall = 1_700_000_000_000_i64 + i64::try_from(mono / 1_000_000).unwrap_or(0) + self.wall_off;
        Now { mono: Mono(mono), wall_ms: u64::try_from(wall).unwrap_or(0) }
    }

    /// The first moment at which this clock shows `local`, if it ever will.
    pub(super) fn when(&self, local: Mono, now: Instant) -> Option<Instant> {
        let (world, began) = self.since;
        let ahead = u128::from(local.0.saturating_sub(began)) * MILLION;
        let passed = u64::try_from(ahead.div_ceil(u128::from(self.rate.max(1)))).ok()?;
        (self.rate > 0 && passed < 1 << 60).then(|| Instant(world.0 + passed).max(now))
    }

    pub(super) fn set_rate(&mut self, at: Instant, rate: u64) {
        self.since = (at, self.mono(at));
        self.rate = rate;
    }

    /// Monotonic time leaps ahead, as no correct clock does.
    pub(super) fn leap(&mut self, at: Instant, nanoseconds: u64) {
        self.since = (at, self.mono(at) + nanoseconds);
    }

    pub(super) fn set_wall(&mut self, off_ms: i64) {
        self.wall_off = off_ms;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_met_at_the_first_moment_the_clock_shows_it() {
        for rate in [900_000, 999_999, 1_000_000, 1_000_001, 1_100_000] {
            let mut clock = Clock::new(12_345, rate, 0);
            clock.set_rate(Instant(777), rate);
            let target = Mono(5_000_000_123);
            let when = clock.when(target, Instant(777)).expect("it runs");
            assert!(clock.now(when).mono >= target, "{rate}");
            assert!(clock.now(Instant(when.0 - 2)).mono < target, "{rate}");
        }
    }

    #[test]
    fn a_clock_that_stands_still_meets_no_deadline_and_never_falls() {
        let mut clock = Clock::new(0, 1_000_000, -5);
        clock.set_rate(Instant(100), 0);
        assert_eq!(clock.when(Mono(101), Instant(100)), None);
        assert_eq!(clock.now(Instant(10_000)).mono, Mono(100));
        clock.set_rate(Instant(10_000), 1_000_000);
        clock.leap(Instant(10_000), 50);
        assert_eq!(clock.now(Instant(10_001)).mono, Mono(151));
    }
}
