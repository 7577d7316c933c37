//! Medians over blocks, how sure they are, and a generator of numbers for shuffling and filling outside the timed path.

use serde::{Deserialize, Serialize};

/// SplitMix64 (Steele, Lea, Flood 2014): small, seeded, good enough for orders and fill bytes.
#[derive(Clone)]
pub struct SplitMix(pub u64);

impl SplitMix {
    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        // The bias is below 2^-32 for the bounds in use.
        usize::try_from(self.next() % bound.max(1) as u64).expect("below a usize")
    }

    /// Puts `items` in an order that depends on nothing but the seed.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let other = self.below(last + 1);
            items.swap(last, other);
        }
    }
}

/// The middle one of some samples, and how far it may be off.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Median {
    /// The median.
    pub median: f64,
    /// Lower end of the bootstrap 95 % interval of the median.
    pub low: f64,
    /// Upper end of it.
    pub high: f64,
    /// How many samples.
    pub samples: usize,
}

fn middle(sorted: &[f64]) -> f64 {
    let half = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[half] } else { f64::midpoint(sorted[half - 1], sorted[half]) }
}

/// The median of `samples`; `None` if there are none that are finite.
pub fn median(samples: impl IntoIterator<Item = f64>) -> Option<Median> {
    const RESAMPLES: usize = 2000;
    let mut sorted: Vec<f64> = samples.into_iter().filter(|sample| sample.is_finite()).collect();
    if sorted.is_empty() {
        return None;
    }
    sorted.sort_by(f64::total_cmp);
    // A fixed seed: the same samples always give the same interval.
    let mut numbers = SplitMix(0x5eed);
    let mut medians: Vec<f64> = (0..RESAMPLES)
        .map(|_| {
            let mut resample: Vec<f64> =
                (0..sorted.len()).map(|_| sorted[numbers.below(sorted.len())]).collect();
            resample.sort_by(f64::total_cmp);
            middle(&resample)
        })
        .collect();
    medians.sort_by(f64::total_cmp);
    Some(Median {
        median: middle(&sorted),
        low: medians[RESAMPLES / 40],
        high: medians[RESAMPLES - 1 - RESAMPLES / 40],
        samples: sorted.len(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_lies_inside_its_interval_and_outliers_do_not_move_it() {
        let with_outlier = median([10.0, 11.0, 9.0, 10.5, 1_000.0]).expect("five samples");
        assert_eq!(with_outlier.median, 10.5);
        assert!(with_outlier.low >= 9.0 && with_outlier.low <= 10.5 && with_outlier.high >= 10.5);
        assert_eq!(median([4.0, 2.0]).map(|m| m.median), Some(3.0));
        assert_eq!(median([f64::NAN]), None);
    }

    #[test]
    fn about_nineteen_of_twenty_intervals_hold_the_true_median() {
        let mut numbers = SplitMix(23);
        let mut uniform = || numbers.below(1_000_001) as f64 / 1e6;
        let runs = 150;
        let held = (0..runs)
            .filter(|_| {
                let found = median((0..12).map(|_| uniform())).expect("twelve samples");
                found.low <= 0.5 && 0.5 <= found.high
            })
            .count();
        let share = held as f64 / f64::from(runs);
        assert!((0.90..=0.99).contains(&share), "{share}");
    }

    #[test]
    fn a_shuffle_keeps_every_item_and_moves_some() {
        let mut items: Vec<u32> = (0..100).collect();
        SplitMix(1).shuffle(&mut items);
        assert_ne!(items, (0..100).collect::<Vec<_>>());
        items.sort_unstable();
        assert_eq!(items, (0..100).collect::<Vec<_>>());
    }
}
