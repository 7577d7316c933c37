//! The load generator: a closed loop from one thread of the process that embeds the engine.
//!
//! Keys and values are made before the clock starts; inside the timed path there is no random source, no lock and no
//! allocation of the generator's own. Latency counts from the moment at which the call was due, which in a closed loop
//! is when the answer came that made room for it: time spent handing over other calls of the same turn is part of it.

use crate::protocol::{Call, Load, Loaded};
use crate::slice::{KEY_BYTES, VALUE_BYTES, latencies};
use crate::statistics::SplitMix;
use crate::wait::wait_for;
use d_engine::prelude::*;
use hdrhistogram::Histogram;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Keys in use: more than a processor's first caches hold, and few enough to be filled in an instant.
const KEYS: usize = 16_384;
const VALUES: usize = 64;
/// In flight while the store is filled.
const FILL_IN_FLIGHT: usize = 256;

/// What is written and read, and where in it the generator stands.
pub struct Material {
    /// In random order of their bytes, so that walking through them touches the store everywhere.
    keys: Vec<[u8; KEY_BYTES]>,
    values: Vec<[u8; VALUE_BYTES]>,
    at: usize,
}

impl Material {
    /// The same in every process and run.
    pub fn new() -> Self {
        let mut numbers = SplitMix(7);
        let mut filled = |bytes: &mut [u8]| {
            for chunk in bytes.chunks_mut(8) {
                chunk.copy_from_slice(&numbers.next().to_le_bytes()[..chunk.len()]);
            }
        };
        let mut keys = vec![[0; KEY_BYTES]; KEYS];
        let mut values = vec![[0; VALUE_BYTES]; VALUES];
        keys.iter_mut().for_each(|key| filled(key));
        values.iter_mut().for_each(|value| filled(value));
        Self { keys, values, at: 0 }
    }

    fn next(&mut self) -> (&[u8], &[u8]) {
        self.at += 1;
        (&self.keys[self.at % KEYS], &self.values[self.at % VALUES])
    }
}

/// Writes every key once.
pub fn fill(client: &EmbeddedClient, material: &mut Material) -> Result<(), String> {
    let mut pipeline = client.pipeline();
    let mut done = Vec::with_capacity(FILL_IN_FLIGHT);
    let mut sent = 0;
    while sent < KEYS || pipeline.in_flight() > 0 {
        while sent < KEYS && pipeline.in_flight() < FILL_IN_FLIGHT {
            let (key, value) = material.next();
            pipeline.put(key, value).map_err(|error| error.to_string())?;
            sent += 1;
        }
        pipeline.wait(&mut done);
        for completion in done.drain(..) {
            completion.result.map_err(|error| error.to_string())?;
        }
    }
    Ok(())
}

/// Runs one load to its end; every call it made has been answered when it returns.
pub fn run(client: &EmbeddedClient, load: Load, material: &mut Material) -> Loaded {
    match load.call {
        Call::Put => pipelined(client, load, |pipeline| {
            let (key, value) = material.next();
            pipeline.put(key, value).map_err(|error| error.to_string())
        }),
        Call::GetLinearizable => pipelined(client, load, |pipeline| {
            pipeline.get(material.next().0).map_err(|error| error.to_string())
        }),
        Call::GetLease => immediate(load.slice, || wait_for(client.get_lease(material.next().0))),
        Call::GetEventual => immediate(load.slice, || wait_for(client.get_eventual(material.next().0))),
    }
}

fn pipelined(
    client: &EmbeddedClient,
    load: Load,
    mut send: impl FnMut(&mut Pipeline) -> Result<u64, String>,
) -> Loaded {
    let mut pipeline = client.pipeline();
    let mut tally = Tally::new();
    let mut due = Due::new(load.in_flight);
    let mut done = Vec::with_capacity(load.in_flight);
    let began = Instant::now();
    let end = began + load.slice;
    let mut now = began;
    loop {
        while now < end && pipeline.in_flight() < load.in_flight {
            match send(&mut pipeline) {
                Ok(number) => due.set(number, now),
                Err(message) => {
                    tally.fail(message);
                    break;
                }
            }
        }
        if pipeline.in_flight() == 0 {
            break;
        }
        pipeline.wait(&mut done);
        now = Instant::now();
        for completion in done.drain(..) {
            match (completion.result, due.take(completion.number)) {
                (Ok(_), Some(due)) => tally.succeed(now - due),
                (Ok(_), None) => tally.fail("answered, but so late that its latency was forgotten".into()),
                (Err(error), _) => tally.fail(error.to_string()),
            }
        }
    }
    tally.loaded(began.elapsed())
}

/// A loop of calls that are answered on this thread. The clock is read at every sixteenth: it costs as much as such
/// a call does.
fn immediate(
    slice: Duration,
    mut call: impl FnMut() -> Result<Answer<Option<KeyValue>>, ReadError>,
) -> Loaded {
    const BETWEEN_CLOCKS: u64 = 15;
    let mut tally = Tally::new();
    let began = Instant::now();
    let mut before = began;
    while before < began + slice {
        match call() {
            Ok(answer) if answer.value.is_some() => tally.succeed(before.elapsed()),
            Ok(_) => tally.fail("a key that was filled is not there".into()),
            Err(error) => tally.fail(error.to_string()),
        }
        for _ in 0..BETWEEN_CLOCKS {
            match call() {
                Ok(_) => tally.operations += 1,
                Err(error) => tally.fail(error.to_string()),
            }
        }
        before = Instant::now();
    }
    tally.loaded(began.elapsed())
}

/// When each call in flight was due, by number. A ring: far larger than the number in flight, and an entry that was
/// overwritten is known by its number.
struct Due {
    entries: Vec<(u64, Instant)>,
    mask: u64,
}

impl Due {
    fn new(in_flight: usize) -> Self {
        let length = (in_flight * 8).next_power_of_two().max(1024);
        Self { entries: vec![(u64::MAX, Instant::now()); length], mask: length as u64 - 1 }
    }

    fn slot(&mut self, number: u64) -> &mut (u64, Instant) {
        let index = usize::try_from(number & self.mask).expect("the mask is an index");
        &mut self.entries[index]
    }

    fn set(&mut self, number: u64, due: Instant) {
        *self.slot(number) = (number, due);
    }

    fn take(&mut self, number: u64) -> Option<Instant> {
        let &mut (kept, due) = self.slot(number);
        (kept == number).then_some(due)
    }
}

struct Tally {
    operations: u64,
    errors: BTreeMap<String, u64>,
    histogram: Histogram<u64>,
}

impl Tally {
    fn new() -> Self {
        Self { operations: 0, errors: BTreeMap::new(), histogram: latencies() }
    }

    fn succeed(&mut self, latency: Duration) {
        self.operations += 1;
        self.histogram.saturating_record(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX));
    }

    fn fail(&mut self, message: String) {
        *self.errors.entry(message).or_insert(0) += 1;
    }

    fn loaded(self, elapsed: Duration) -> Loaded {
        Loaded {
            operations: self.operations,
            errors: self.errors.into_iter().collect(),
            elapsed,
            latencies: self
                .histogram
                .iter_recorded()
                .map(|value| (value.value_iterated_to(), value.count_at_value()))
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forgotten_due_time_is_known_to_be_forgotten() {
        let mut due = Due::new(1);
        let now = Instant::now();
        due.set(3, now);
        assert_eq!(due.take(3), Some(now));
        due.set(3 + due.entries.len() as u64, now);
        assert_eq!(due.take(3), None);
    }

    #[test]
    fn keys_differ() {
        let material = Material::new();
        let distinct: std::collections::BTreeSet<_> = material.keys.iter().collect();
        assert_eq!(distinct.len(), KEYS);
    }
}
