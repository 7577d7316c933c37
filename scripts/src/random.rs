//! A small seeded generator (SplitMix64, Steele et al. 2014): what a job injects can be injected again.

use std::ops::Range;
use std::time::Duration;

/// Numbers that depend on nothing but the seed.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// The sequence of `seed`.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// An independent sequence, for a thread of its own.
    pub fn fork(&mut self) -> Self {
        Self(self.bits())
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number of the range; its start if it is empty.
    pub fn within(&mut self, range: Range<u64>) -> u64 {
        let width = range.end.saturating_sub(range.start).max(1);
        range.start + self.bits() % width
    }

    /// An index below `length`, which must not be 0.
    pub fn index(&mut self, length: usize) -> usize {
        assert!(length > 0, "an index into nothing");
        usize::try_from(self.bits() % length as u64).expect("below a usize")
    }

    /// True this many times in a million.
    pub fn per_million(&mut self, rate: u32) -> bool {
        rate > 0 && self.bits() % 1_000_000 < u64::from(rate)
    }

    /// A duration of the range, in whole microseconds.
    pub fn duration(&mut self, range: Range<Duration>) -> Duration {
        let micros = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(self.within(micros(range.start)..micros(range.end)))
    }

    /// `length` random bytes.
    pub fn bytes(&mut self, length: usize) -> Vec<u8> {
        std::iter::repeat_with(|| self.bits().to_le_bytes()).flatten().take(length).collect()
    }
}
