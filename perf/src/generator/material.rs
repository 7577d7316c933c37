//! What is written and read: keys, values, and in which order, all made before the clock starts.

use crate::statistics::SplitMix;
use crate::workload::{Call, Distribution, Workload};
use bytes::Bytes;

/// Keys in use: more than a processor's first caches hold, and few enough to be filled in an instant.
const KEYS: usize = 16_384;
/// Fewer where values are large, so that they do not become a test of how much memory there is.
const MOST_BYTES: usize = 32 << 20;
const VALUES: usize = 64;
/// Length of the walk through the keys; it is repeated.
const STEPS: usize = 1 << 16;
/// YCSB's constant.
const ZIPF_EXPONENT: f64 = 0.99;

/// One call to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask<'a> {
    /// Write.
    Put {
        /// Where.
        key: &'a Bytes,
        /// What.
        value: &'a Bytes,
    },
    /// Read.
    Get {
        /// What.
        key: &'a Bytes,
        /// How new the answer must be.
        level: Level,
    },
}

/// How new the answer of a read must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// As new as every write acknowledged before.
    Linearizable,
    /// The same, by the leader's clock.
    Lease,
    /// As one node has it.
    Eventual,
}

/// Keys, values and the walk through them.
pub struct Material {
    /// In random order of their bytes, so that walking through them touches the store everywhere.
    keys: Vec<Bytes>,
    values: Vec<Bytes>,
    walk: Vec<Step>,
    at: usize,
}

#[derive(Clone, Copy)]
struct Step {
    key: u32,
    reads: bool,
}

impl Material {
    /// The same in every process and run. Workloads of different sizes use different keys, so that none reads what
    /// another one wrote.
    pub fn of(workload: &Workload) -> Self {
        let mut numbers = SplitMix(7 + ((workload.value_bytes as u64) << 20) + workload.key_bytes as u64);
        let mut fill = |length: usize| -> Bytes {
            let mut bytes = vec![0; length];
            for chunk in bytes.chunks_mut(8) {
                chunk.copy_from_slice(&numbers.next().to_le_bytes()[..chunk.len()]);
            }
            bytes.into()
        };
        let count = KEYS.min(MOST_BYTES / workload.value_bytes.max(1)).max(VALUES);
        let keys: Vec<Bytes> = (0..count).map(|_| fill(workload.key_bytes)).collect();
        let values = (0..VALUES).map(|_| fill(workload.value_bytes)).collect();
        Self { walk: walk(workload, count), keys, values, at: 0 }
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// The key and value at `position` of those to be filled.
    pub fn pair(&self, position: usize) -> Ask<'_> {
        Ask::Put { key: &self.keys[position], value: &self.values[position % VALUES] }
    }

    /// The next call of a workload.
    pub fn next(&mut self, call: Call) -> Ask<'_> {
        self.at += 1;
        let step = self.walk[self.at % self.walk.len()];
        let key = &self.keys[step.key as usize];
        let get = |level| Ask::Get { key, level };
        match call {
            Call::GetLinearizable => get(Level::Linearizable),
            Call::GetLease => get(Level::Lease),
            Call::GetEventual => get(Level::Eventual),
            Call::Mixed { .. } if step.reads => get(Level::Linearizable),
            Call::Put | Call::Mixed { .. } | Call::Watch { .. } => {
                Ask::Put { key, value: &self.values[self.at % VALUES] }
            }
        }
    }
}

fn walk(workload: &Workload, keys: usize) -> Vec<Step> {
    let mut numbers = SplitMix(11);
    let percent = match workload.call {
        Call::Mixed { reads } => usize::from(reads),
        _ => 0,
    };
    let cumulated = match workload.keys {
        Distribution::Zipf => zipf(keys),
        Distribution::Uniform | Distribution::Hot(_) => Vec::new(),
    };
    let length = STEPS.max(keys);
    (0..length)
        .map(|position| {
            let key = match workload.keys {
                Distribution::Uniform => position % keys,
                Distribution::Hot(hot) => numbers.below((hot as usize).clamp(1, keys)),
                Distribution::Zipf => {
                    let share = numbers.below(1 << 30) as f64 / f64::from(1 << 30);
                    cumulated.partition_point(|&sum| sum <= share).min(keys - 1)
                }
            };
            Step { key: u32::try_from(key).expect("few keys"), reads: numbers.below(100) < percent }
        })
        .collect()
}

/// For each key the share of uses that fall on it or on one before it.
fn zipf(keys: usize) -> Vec<f64> {
    let mut sum = 0.0;
    let mut sums: Vec<f64> = (1..=keys)
        .map(|rank| {
            sum += (rank as f64).powf(-ZIPF_EXPONENT);
            sum
        })
        .collect();
    sums.iter_mut().for_each(|at| *at /= sum);
    sums
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn uses(workload: Workload, steps: usize) -> (BTreeMap<Bytes, usize>, usize) {
        let mut material = Material::of(&workload);
        let (mut keys, mut reads) = (BTreeMap::new(), 0);
        for _ in 0..steps {
            let key = match material.next(workload.call) {
                Ask::Put { key, .. } => key,
                Ask::Get { key, .. } => {
                    reads += 1;
                    key
                }
            };
            *keys.entry(key.clone()).or_insert(0) += 1;
        }
        (keys, reads)
    }

    #[test]
    fn uniform_uses_every_key_alike_and_sizes_have_keys_of_their_own() {
        let workload = Workload::closed(Call::Put, 1);
        let (keys, reads) = uses(workload, KEYS);
        assert_eq!((keys.len(), reads), (KEYS, 0));
        let (others, _) = uses(workload.with_values_of(16), KEYS);
        assert!(others.keys().all(|key| !keys.contains_key(key)));
    }

    #[test]
    fn ten_hot_keys_are_ten_and_nine_of_ten_calls_are_reads() {
        let (keys, reads) =
            uses(Workload::closed(Call::Mixed { reads: 90 }, 1).on(Distribution::Hot(10)), STEPS);
        assert_eq!(keys.len(), 10);
        let share = reads as f64 / STEPS as f64;
        assert!((share - 0.9).abs() < 0.01, "{share}");
    }

    #[test]
    fn zipf_prefers_the_first_by_as_much_as_it_says() {
        let (keys, _) = uses(Workload::closed(Call::Put, 1).on(Distribution::Zipf), STEPS);
        let mut counts: Vec<usize> = keys.into_values().collect();
        counts.sort_unstable_by(|a, b| b.cmp(a));
        let quotient = counts[0] as f64 / counts[1] as f64;
        assert!((quotient - 2_f64.powf(ZIPF_EXPONENT)).abs() < 0.25, "{quotient}");
    }

    #[test]
    fn large_values_do_not_fill_the_memory() {
        let material = Material::of(&Workload::closed(Call::Put, 1).with_values_of(128 << 10));
        assert_eq!(material.len(), 256);
    }
}
