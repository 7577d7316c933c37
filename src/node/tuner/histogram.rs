//! Latencies, counted in buckets whose width grows with what they hold: sixteen to every doubling, from a microsecond to a
//! minute. To count one costs a few shifts and an addition; the whole has a fixed size.

use std::time::Duration;

/// Buckets to a doubling, as a power of two: what is read back is at most a sixteenth too high.
const FINE: u32 = 4;
/// Below this many nanoseconds (two to this power) everything is alike.
const LEAST: u32 = 10;
/// From this many nanoseconds on, too.
const MOST: u32 = 36;
const BUCKETS: usize = ((MOST - LEAST) << FINE) as usize;

/// Latencies of an interval.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram {
    buckets: Box<[u64; BUCKETS]>,
    count: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: Box::new([0; BUCKETS]), count: 0 }
    }
}

impl Histogram {
    /// Counts a latency `times` times.
    pub fn record(&mut self, latency: Duration, times: u64) {
        self.buckets[bucket(latency)] += times;
        self.count += times;
    }

    /// Latencies counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.buckets.fill(0);
        self.count = 0;
    }

    /// What so many of a thousand latencies did not exceed; `None` when there are none.
    #[must_use]
    pub fn quantile(&self, per_mille: u64) -> Option<Duration> {
        assert!(per_mille <= 1000, "a part of a thousand");
        let rank = (self.count * per_mille).div_ceil(1000).max(1);
        let mut seen = 0;
        let at = self.buckets.iter().position(|&count| {
            seen += count;
            seen >= rank
        })?;
        Some(upper_end(at))
    }
}

fn bucket(latency: Duration) -> usize {
    let nanos = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX).clamp(1 << LEAST, (1 << MOST) - 1);
    let doubling = nanos.ilog2();
    // The bits after the highest one.
    let fraction = (nanos >> (doubling - FINE)) & ((1 << FINE) - 1);
    usize::try_from(u64::from((doubling - LEAST) << FINE) + fraction).expect("fewer than a thousand")
}

fn upper_end(bucket: usize) -> Duration {
    let next = bucket as u64 + 1;
    let (doubling, fraction) = (next >> FINE, next & ((1 << FINE) - 1));
    let shift = u32::try_from(doubling).expect("below a hundred") + LEAST - FINE;
    Duration::from_nanos(((1 << FINE) + fraction) << shift)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn nothing_has_no_quantile_and_extremes_are_kept_in_the_last_buckets() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.quantile(990), None);
        histogram.record(Duration::ZERO, 1);
        histogram.record(Duration::MAX, 1);
        assert_eq!(histogram.quantile(0), Some(Duration::from_nanos(1088)));
        assert_eq!(histogram.quantile(1000), Some(Duration::from_nanos(1 << MOST)));
        histogram.clear();
        assert_eq!(histogram, Histogram::default());
    }

    #[test]
    fn one_in_a_hundred_is_beyond_the_99th_percentile() {
        let mut histogram = Histogram::default();
        histogram.record(Duration::from_micros(100), 99);
        histogram.record(Duration::from_millis(5), 1);
        assert!(histogram.quantile(990) < Some(Duration::from_micros(110)));
        assert!(histogram.quantile(991) > Some(Duration::from_millis(4)));
    }

    proptest! {
        #[test]
        fn what_is_read_back_is_never_too_low_and_at_most_a_sixteenth_too_high(nanos in 1_024..60_000_000_000_u64) {
            let mut histogram = Histogram::default();
            histogram.record(Duration::from_nanos(nanos), 3);
            let back = histogram.quantile(990).expect("three").as_nanos();
            prop_assert!(back > u128::from(nanos));
            prop_assert!(back <= u128::from(nanos) + u128::from(nanos) / 16 + 1);
        }
    }
}
