//! Chance, from a seed. Each part of the world has dice of its own, so that a part that is switched off does not move the
//! others' numbers.

use crate::raft::Random;

/// Seeded chance.
#[derive(Clone, Debug)]
pub(super) struct Dice(Random);

impl Dice {
    /// Dice for one part of a run; `part` is any word.
    pub(super) fn new(seed: u64, part: &str) -> Self {
        let mut random = Random::from_seed(seed);
        let salt = part.bytes().fold(random.bits(), |salt, byte| salt.rotate_left(9) ^ u64::from(byte));
        let mut random = Random::from_seed(salt);
        random.bits();
        Self(random)
    }

    pub(super) fn bits(&mut self) -> u64 {
        self.0.bits()
    }

    /// A number below `limit`; zero if there is none.
    pub(super) fn below(&mut self, limit: u64) -> u64 {
        // The product's upper half: no division, and even enough for limits far below 2^64.
        u64::try_from((u128::from(self.bits()) * u128::from(limit)) >> 64).expect("below the limit")
    }

    /// A number from `least` to `most`, both included.
    pub(super) fn between(&mut self, least: u64, most: u64) -> u64 {
        least + self.below(most.saturating_sub(least) + 1)
    }

    /// A place in something of this length.
    pub(super) fn index(&mut self, length: usize) -> usize {
        usize::try_from(self.below(length as u64)).expect("below a length")
    }

    pub(super) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.index(from.len())]
    }

    /// A place among these weights, each as likely as its share of their sum.
    pub(super) fn weighted(&mut self, weights: &[u64]) -> usize {
        let mut at = self.below(weights.iter().sum());
        let mut place = 0;
        while at >= weights[place] {
            at -= weights[place];
            place += 1;
        }
        place
    }

    /// True in so many of a million cases.
    pub(super) fn chance(&mut self, ppm: u64) -> bool {
        ppm > 0 && self.below(1_000_000) < ppm
    }

    pub(super) fn coin(&mut self) -> bool {
        self.bits() & 1 == 1
    }

    /// A waiting time with this mean: short ones are common, four times the mean is the longest.
    pub(super) fn wait(&mut self, mean: u64) -> u64 {
        // Two uniform factors: a cheap stand-in for an exponential, in whole numbers on every machine.
        let first = self.between(0, 2_000);
        let second = self.between(0, 2_000);
        (u128::from(mean) * u128::from(first) * u128::from(second) / 1_000_000).try_into().unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_has_its_own_numbers_and_keeps_its_limits() {
        let mut one = Dice::new(7, "network");
        let mut again = Dice::new(7, "network");
        let mut other = Dice::new(7, "disk");
        let draw = |dice: &mut Dice| (0..50).map(|_| dice.between(10, 13)).collect::<Vec<_>>();
        let drawn = draw(&mut one);
        assert_eq!(drawn, draw(&mut again));
        assert_ne!(drawn, draw(&mut other));
        assert!(drawn.iter().all(|n| (10..=13).contains(n)) && drawn.contains(&10) && drawn.contains(&13));
        let mean = (0..10_000).map(|_| one.wait(1_000)).sum::<u64>() / 10_000;
        assert!((900..1_100).contains(&mean), "{mean}");
        assert!((0..1_000).all(|_| !one.chance(0)) && (0..1_000).all(|_| one.chance(1_000_000)));
    }
}
