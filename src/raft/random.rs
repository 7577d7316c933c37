//! The core's only randomness: a seeded generator, so that an election can be replayed.

use super::time::nanos;
use std::time::Duration;

/// `SplitMix64` (Steele, Lea, Flood 2014): small, seedable with any value, good enough to spread election timeouts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Random(u64);

impl Random {
    /// A generator that always gives the same numbers for the same seed.
    #[must_use]
    pub const fn from_seed(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A span from `least` up to, not including, twice that (thesis 3.4: randomised election timeouts).
    pub fn between_once_and_twice(&mut self, least: Duration) -> Duration {
        let span = nanos(least).max(1);
        least + Duration::from_nanos(self.bits() % span)
    }

    /// A span below `most`; zero if that is zero.
    pub fn below(&mut self, most: Duration) -> Duration {
        Duration::from_nanos(self.bits().checked_rem(nanos(most)).unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_spans_within_bounds() {
        let least = Duration::from_millis(250);
        let spans = |seed| {
            let mut random = Random::from_seed(seed);
            (0..100).map(|_| random.between_once_and_twice(least)).collect::<Vec<_>>()
        };
        assert_eq!(spans(7), spans(7));
        assert_ne!(spans(7), spans(8));
        assert!(spans(7).iter().all(|span| (least..least * 2).contains(span)));
    }

    #[test]
    fn it_is_the_generator_that_it_says() {
        // The first numbers of SplitMix64 from this seed, as its authors' program prints them.
        let mut random = Random::from_seed(1_234_567);
        let expected = [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423];
        assert_eq!(expected.map(|_| random.bits()), expected);
    }

    #[test]
    fn a_span_of_nothing_or_of_a_nanosecond_leaves_no_choice() {
        for least in [Duration::ZERO, Duration::from_nanos(1)] {
            let mut random = Random::from_seed(7);
            assert!((0..64).all(|_| random.between_once_and_twice(least) == least));
        }
    }
}
