//! The clocks a driver reads for the node: one that never falls and counts the time a machine was suspended, and the
//! wall clock.
//!
//! A lease must not outlive a suspended machine's sleep, so on Linux the monotonic time is `CLOCK_BOOTTIME`. On macOS
//! `CLOCK_MONOTONIC` counts the sleep; on other systems the system's monotonic clock is taken as it is.

use crate::raft::time::{Mono, Now};
use std::time::{SystemTime, UNIX_EPOCH};

/// Time since an arbitrary origin that is the same for all threads of the process.
pub(crate) fn mono() -> Mono {
    #[cfg(target_os = "linux")]
    const CLOCK: rustix::time::ClockId = rustix::time::ClockId::Boottime;
    #[cfg(not(target_os = "linux"))]
    const CLOCK: rustix::time::ClockId = rustix::time::ClockId::Monotonic;
    let time = rustix::time::clock_gettime(CLOCK);
    let seconds = u64::try_from(time.tv_sec).expect("time since boot is positive");
    let nanos = u64::try_from(time.tv_nsec).expect("a part of a second is positive");
    Mono(seconds * 1_000_000_000 + nanos)
}

/// Both clocks.
pub(crate) fn now() -> Now {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Now { mono: mono(), wall_ms: u64::try_from(wall.as_millis()).unwrap_or(u64::MAX) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn monotonic_time_never_falls() {
        let mut last = mono();
        for _ in 0..10_000 {
            let next = mono();
            assert!(next.0 >= last.0);
            last = next;
        }
    }
}
