//! When the calls of an open loop are due.

use std::time::{Duration, Instant};

/// Calls at equal distances, the first at the beginning.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    began: Instant,
    per_second: f64,
    length: Duration,
}

impl Schedule {
    /// `per_second` calls in each second of `length`. A rate that is not above zero is one call an hour.
    pub fn new(began: Instant, per_second: f64, length: Duration) -> Self {
        let per_second = if per_second > 1.0 / 3600.0 { per_second } else { 1.0 / 3600.0 };
        Self { began, per_second, length }
    }

    /// The beginning.
    pub fn began(&self) -> Instant {
        self.began
    }

    /// No call is due from here on.
    pub fn end(&self) -> Instant {
        self.began + self.length
    }

    /// When the call with this number is due, counted from zero. Computed anew for each, so that nothing adds up.
    pub fn due(&self, number: u64) -> Instant {
        self.began + Duration::from_secs_f64(number as f64 / self.per_second)
    }

    /// How many calls are due at `now` or were before; never more than until the end.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate times minutes")]
    pub fn due_by(&self, now: Instant) -> u64 {
        let until = now.saturating_duration_since(self.began);
        if until >= self.length {
            return (self.length.as_secs_f64() * self.per_second).ceil() as u64;
        }
        let mut count = (until.as_secs_f64() * self.per_second) as u64;
        // The division is inexact by less than one call: what `due` says decides.
        while self.due(count) <= now {
            count += 1;
        }
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_due_at_equal_distances_until_the_end() {
        let began = Instant::now();
        let schedule = Schedule::new(began, 3000.0, Duration::from_millis(100));
        assert_eq!(schedule.due_by(began), 1);
        assert_eq!(schedule.due_by(schedule.due(17)), 18);
        assert_eq!(schedule.due_by(schedule.due(17) - Duration::from_nanos(1)), 17);
        assert_eq!(schedule.due_by(schedule.end()), 300);
        assert_eq!(schedule.due_by(schedule.end() + Duration::from_secs(9)), 300);
    }

    #[test]
    fn a_rate_of_nothing_is_not_a_division_by_zero() {
        let began = Instant::now();
        assert_eq!(Schedule::new(began, 0.0, Duration::from_secs(1)).due_by(began), 1);
    }
}
