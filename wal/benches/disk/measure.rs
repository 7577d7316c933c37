//! Contestants take turns in short slices, in random order within a block; each is compared with the first of its block,
//! so that what the machine did meanwhile meets all of them.

use crate::process::Used;
use std::time::{Duration, Instant};

/// Something that makes batches of one size durable.
pub trait Contestant {
    fn name(&self) -> &str;
    /// Outside the timing: gets ready for a slice.
    fn prepare(&mut self) {}
    /// Makes at least one more batch durable; `false` when the slice has to end. Some are still in flight then, if the
    /// contestant works on several.
    fn step(&mut self) -> bool;
    /// Within the timing: what is in flight ends.
    fn finish(&mut self) {}
    /// Batches durable so far.
    fn durable(&self) -> u64;
    /// What it has to say of itself at the end.
    fn remark(&self) -> Option<String> {
        None
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub blocks: usize,
    pub slice: Duration,
    /// A slice ends after this much, too.
    pub bytes: u64,
}

/// One contestant's slices.
#[derive(Default)]
pub struct Record {
    rates: Vec<f64>,
    latencies: Vec<Duration>,
    used: Used,
    batches: u64,
}

const LATENCIES: usize = 1 << 20;

/// xorshift64: the order of turns, and the resampling.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % bound as u64).expect("below a usize")
    }
}

fn slice(contestant: &mut dyn Contestant, batch: usize, plan: Plan, record: &mut Record) {
    contestant.prepare();
    let (before, durable) = (Used::now(), contestant.durable());
    let start = Instant::now();
    let mut last = start;
    let most = durable + plan.bytes / batch as u64;
    loop {
        let goes_on = contestant.step();
        let now = Instant::now();
        if record.latencies.len() < LATENCIES {
            record.latencies.push(now - last);
        }
        last = now;
        if !goes_on || now - start >= plan.slice || contestant.durable() >= most {
            break;
        }
    }
    contestant.finish();
    let elapsed = start.elapsed();
    let batches = contestant.durable() - durable;
    let used = Used::now().since(before);
    record.rates.push(batches as f64 / elapsed.as_secs_f64());
    record.batches += batches;
    record.used.cpu += used.cpu;
    record.used.switches += used.switches;
    record.used.device_flushes += used.device_flushes;
    record.used.device_bytes += used.device_bytes;
}

/// Runs all blocks and prints a row for each contestant. The first is what the others are compared with.
pub fn compare(batch: usize, plan: Plan, contestants: &mut [Box<dyn Contestant>]) {
    let mut random = Random(0x9e37_79b9_7f4a_7c15 ^ batch as u64);
    let mut records: Vec<Record> = contestants.iter().map(|_| Record::default()).collect();
    for record in &mut records {
        record.latencies.reserve(LATENCIES);
    }
    let mut order: Vec<usize> = (0..contestants.len()).collect();
    for _ in 0..plan.blocks {
        for last in (1..order.len()).rev() {
            order.swap(last, random.below(last + 1));
        }
        for &which in &order {
            slice(contestants[which].as_mut(), batch, plan, &mut records[which]);
        }
    }
    for (which, contestant) in contestants.iter().enumerate() {
        let (lone, first) = (&records[which], &records[0]);
        let ratios: Vec<f64> = lone.rates.iter().zip(&first.rates).map(|(rate, bare)| rate / bare).collect();
        let (low, high) = interval(&ratios, &mut random);
        let rate = median(&lone.rates);
        let batches = lone.batches.max(1) as f64;
        println!(
            "| {:>4} KiB | {:<38} | {:>8.0} | {:>7.1} | {:>6.1} / {:>7.1} | {:>6.1} | {:>5.1} | {:>5.2} | {:>5.2} | {:>5.2} [{:.2}-{:.2}] |",
            batch >> 10,
            contestant.name(),
            rate,
            rate * batch as f64 / 1e6,
            micros(percentile(&lone.latencies, 50)),
            micros(percentile(&lone.latencies, 99)),
            lone.used.cpu.as_secs_f64() * 1e6 / batches,
            lone.used.switches as f64 / batches,
            lone.used.device_flushes as f64 / batches,
            lone.used.device_bytes as f64 / batches / batch as f64,
            median(&ratios),
            low,
            high,
        );
    }
    for contestant in contestants.iter() {
        if let Some(remark) = contestant.remark() {
            println!("  {} KiB {}: {remark}", batch >> 10, contestant.name());
        }
    }
}

/// The head of [`compare`]'s rows.
pub fn head(title: &str) {
    println!("\n{title}");
    println!(
        "| batch | what | flushes/s | MB/s | p50 / p99 µs | CPU µs | switches | device flushes | device bytes per byte | of the first, same block [95 %] |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
}

fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

fn percentile(latencies: &[Duration], percent: usize) -> Duration {
    let mut sorted = latencies.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len() * percent / 100).or(sorted.last()).copied().unwrap_or_default()
}

pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[n / 2],
        n => f64::midpoint(sorted[n / 2 - 1], sorted[n / 2]),
    }
}

/// Bootstrap over the blocks.
fn interval(values: &[f64], random: &mut Random) -> (f64, f64) {
    const RESAMPLES: usize = 1000;
    let mut medians: Vec<f64> = (0..RESAMPLES)
        .map(|_| {
            let resampled: Vec<f64> = values.iter().map(|_| values[random.below(values.len())]).collect();
            median(&resampled)
        })
        .collect();
    medians.sort_unstable_by(f64::total_cmp);
    (medians[RESAMPLES / 40], medians[RESAMPLES - 1 - RESAMPLES / 40])
}
