//! Whether the loop looks for work a little longer before it sleeps.
//!
//! Waking a sleeping core costs 14 µs and 22 µs of processor time (measured); a loop that expects its next completion
//! within that time does better to wait awake. On a machine without an idle core the same spin takes the time from the
//! very threads it waits for. So the spin judges itself: it goes on while it keeps finding work, stops for a while when
//! it does not, and stops at once when the scheduler took the processor away during it.

use crate::raft::time::Mono;
use std::time::Duration;

/// Spins in vain before the spin pauses.
const PATIENCE: u32 = 4;
/// Sleeps that are taken without a spin after that, doubled each time up to `PAUSE_MAX`.
const PAUSE_MIN: u32 = 16;
const PAUSE_MAX: u32 = 4096;
/// A gap in a spin by which another thread must have run on this core.
const DESCHEDULED: Duration = Duration::from_micros(100);

/// The adaptive spin of one loop.
pub(crate) struct Spin {
    limit: Duration,
    vain: u32,
    pause: u32,
    skip: u32,
}

impl Spin {
    /// Spins for at most `limit` before each sleep; zero never spins.
    pub(crate) fn new(limit: Duration) -> Self {
        Self { limit, vain: 0, pause: PAUSE_MIN, skip: 0 }
    }

    /// Looks for work until `limit` has passed. `true` when `found` says there is some.
    pub(crate) fn look(&mut self, clock: impl Fn() -> Mono, mut found: impl FnMut() -> bool) -> bool {
        if self.limit.is_zero() {
            return false;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return false;
        }
        let start = clock();
        let mut last = start;
        loop {
            if found() {
                self.vain = 0;
                self.pause = PAUSE_MIN;
                return true;
            }
            std::hint::spin_loop();
            let now = clock();
            if now.since(last) >= DESCHEDULED {
                // The machine is full: whoever ran instead of us may be the one we wait for.
                self.skip = PAUSE_MAX;
                return false;
            }
            if now.since(start) >= self.limit {
                break;
            }
            last = now;
        }
        self.vain += 1;
        if self.vain >= PATIENCE {
            self.vain = 0;
            self.skip = self.pause;
            self.pause = (self.pause * 2).min(PAUSE_MAX);
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    const LIMIT: Duration = Duration::from_micros(20);

    /// A clock that moves by `step` nanoseconds whenever it is read.
    fn ticking(step: u64) -> impl Fn() -> Mono {
        let now = Cell::new(0);
        move || {
            now.set(now.get() + step);
            Mono(now.get())
        }
    }

    fn looks(spin: &mut Spin, clock: &impl Fn() -> Mono) -> u32 {
        let mut looked = 0;
        spin.look(clock, || {
            looked += 1;
            false
        });
        looked
    }

    #[test]
    fn a_spin_is_bounded() {
        assert_eq!(looks(&mut Spin::new(LIMIT), &ticking(1_000)), 20);
        assert_eq!(looks(&mut Spin::new(Duration::ZERO), &ticking(1_000)), 0);
    }

    #[test]
    fn a_spin_in_vain_pauses_longer_each_time() {
        let (mut spin, clock) = (Spin::new(LIMIT), ticking(1_000));
        let mut pauses = Vec::new();
        for _ in 0..3 {
            for _ in 0..PATIENCE {
                assert!(looks(&mut spin, &clock) > 0);
            }
            let mut pause = 0;
            while looks(&mut spin, &clock) == 0 {
                pause += 1;
            }
            // The look that ended the pause was the first of the next round.
            spin.vain = 0;
            pauses.push(pause);
        }
        assert_eq!(pauses, [16, 32, 64]);
    }

    #[test]
    fn success_keeps_it_spinning() {
        let (mut spin, clock) = (Spin::new(LIMIT), ticking(1_000));
        for _ in 0..1_000 {
            assert!(spin.look(&clock, || true));
        }
    }

    #[test]
    fn a_full_machine_ends_it_at_once() {
        let (mut spin, clock) = (Spin::new(Duration::from_millis(1)), ticking(150_000));
        assert_eq!(looks(&mut spin, &clock), 1);
        assert_eq!(looks(&mut spin, &clock), 0);
    }
}
