//! What each knob costs: `perf sweep` (W15).
//!
//! One knob at a time, the others as the engine has them by default, at a few depths. Every point gets one short slice in
//! each block, in an order drawn anew, so that a slow moment of the machine falls on all of them alike. What is printed
//! and written is the median over the blocks.

use crate::bed::{Bed, Choices, Failure, Taken, say, text};
use crate::results::{Axis, Measure, Point, Results, Rules, Subject, Sweep};
use crate::slice::Probes;
use crate::statistics::{Median, SplitMix, median};
use crate::workload::{Call, Workload};
use d_engine::api::{Knob, Pace};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How its subject is called in results.
pub const SYSTEM: &str = "d-engine embedded, three nodes in one process";
/// How often a slice is tried in all.
const ATTEMPTS: usize = 3;
const WARM_UP: Duration = Duration::from_millis(500);

/// What may be chosen.
#[derive(clap::Args, Debug)]
pub struct Options {
    #[command(flatten)]
    choices: Choices,
    /// Puts in flight.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 100, 1000, 8000])]
    in_flight: Vec<usize>,
    /// Bytes from which a batch takes no more.
    #[arg(long, value_delimiter = ',', default_values_t = [16 << 10, 64 << 10, 256 << 10, 1 << 20])]
    batch_soft_bytes: Vec<u64>,
    /// Batches on the way to the disk.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 2, 4, 8])]
    batches_in_flight: Vec<u64>,
    /// Bytes on the way to one peer.
    #[arg(long, value_delimiter = ',', default_values_t = [256 << 10, 1 << 20, 4 << 20, 16 << 20])]
    inflight_bytes: Vec<u64>,
    /// Each point gets one slice in each block.
    #[arg(long, default_value_t = 3)]
    blocks: usize,
    /// Length of a slice.
    #[arg(long, default_value = "300ms", value_parser = humantime::parse_duration)]
    slice: Duration,
    /// Where to write the results as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
}

/// A number made from a slice.
type Figure = fn(&Taken) -> f64;

/// A pace under a depth, and its slices.
pub struct Tried {
    /// What was set.
    pub pace: Pace,
    /// Puts in flight.
    pub in_flight: usize,
    /// One for each block that had one.
    pub slices: Vec<Taken>,
}

impl Tried {
    /// Not measured yet.
    pub fn new(pace: Pace, in_flight: usize) -> Self {
        Self { pace, in_flight, slices: Vec::new() }
    }

    /// The median of a figure over the blocks.
    pub fn median(&self, of: impl Fn(&Taken) -> f64) -> Option<Median> {
        median(self.slices.iter().map(of))
    }

    /// Its figures for the results.
    pub fn figures(&self) -> BTreeMap<Measure, Median> {
        let all: [(Measure, Figure); 6] = [
            (Measure::Rate, Taken::rate),
            (Measure::P50, |taken| taken.micros(0.5)),
            (Measure::P99, |taken| taken.micros(0.99)),
            (Measure::P999, |taken| taken.micros(0.999)),
            (Measure::Cpu, Taken::cpu_micros),
            (Measure::Flushes, Taken::flushes_per_put),
        ];
        all.into_iter().filter_map(|(measure, of)| Some((measure, self.median(of)?))).collect()
    }

    /// Its line of a table, behind what names it.
    pub fn line(&self) -> String {
        let of = |of: Figure| self.median(of).map_or(f64::NAN, |median| median.median);
        format!(
            "{:>10.0} {:>9.3} {:>9.3} {:>8.2} {:>9.5} {:>9.1}",
            of(Taken::rate),
            of(|taken| taken.micros(0.5) / 1e3),
            of(|taken| taken.micros(0.99) / 1e3),
            of(Taken::cpu_micros),
            of(Taken::flushes_per_put),
            of(|taken| taken.operations as f64 / taken.batches.max(1) as f64),
        )
    }
}

/// The heads of the columns of [`Tried::line`].
pub const HEADS: &str = "     puts/s    p50 ms    p99 ms  CPU µs/op  flushes/op  puts/batch";

/// Measures all points, block by block; returns how many slices were left out because leadership moved.
pub fn measure(
    bed: &mut Bed,
    points: &mut [Tried],
    blocks: usize,
    slice: Duration,
    seed: u64,
) -> Result<usize, Failure> {
    let mut order: Vec<usize> = (0..points.len()).collect();
    let mut numbers = SplitMix(seed);
    let mut dropped = 0;
    for block in 0..blocks {
        numbers.shuffle(&mut order);
        for &at in &order {
            if bed.is_worn_out()? {
                bed.renew()?;
                bed.slice(256, WARM_UP)?;
            }
            let point = &mut points[at];
            bed.set_pace(point.pace)?;
            let taken = (0..ATTEMPTS).find_map(|_| match bed.slice(point.in_flight, slice) {
                Ok(taken) => Some(taken),
                Err(why) => {
                    // Progress is for people: it must not mix with the report.
                    eprintln!("a slice is left out: {why}");
                    dropped += 1;
                    None
                }
            });
            point.slices.extend(taken);
        }
        eprintln!("block {} of {blocks} done", block + 1);
    }
    Ok(dropped)
}

/// A knob's name and unit, as in the configuration.
fn axis(knob: Knob, values: &[u64]) -> Axis {
    let unit = if knob == Knob::BatchesInFlight { "" } else { "B" };
    let values = values.iter().map(|&value| value as f64).collect();
    Axis { name: format!("limits.{knob}"), unit: unit.into(), values }
}

/// Bytes as people write them.
pub fn value(knob: Knob, value: u64) -> String {
    match knob {
        Knob::BatchesInFlight => value.to_string(),
        _ if value >= 1 << 20 && value.is_multiple_of(1 << 20) => format!("{}MiB", value >> 20),
        _ if value >= 1 << 10 && value.is_multiple_of(1 << 10) => format!("{}KiB", value >> 10),
        _ => format!("{value}B"),
    }
}

/// Measures and prints.
pub fn run(options: &Options) -> Result<(), Failure> {
    let began = Instant::now();
    let Options { choices, in_flight, blocks, slice, .. } = options;
    let mut results = begin("sweep", choices, *blocks, *slice);
    let mut bed = Bed::start(choices, None)?;
    let usual = bed.status()?.pace;
    let knobs = [
        (Knob::BatchBytes, &options.batch_soft_bytes),
        (Knob::BatchesInFlight, &options.batches_in_flight),
        (Knob::InFlightBytes, &options.inflight_bytes),
    ];
    let mut points: Vec<Tried> = Vec::new();
    for (knob, values) in knobs {
        for &value in values {
            let mut pace = usual;
            knob.set(&mut pace, value);
            for &depth in in_flight {
                if !points.iter().any(|point| (point.pace, point.in_flight) == (pace, depth)) {
                    points.push(Tried::new(pace, depth.max(1)));
                }
            }
        }
    }
    let expected = slice.mul_f64((points.len() * blocks) as f64);
    eprintln!(
        "{} points in {blocks} blocks: {:.0} s and a little more",
        points.len(),
        expected.as_secs_f64()
    );
    bed.slice(256, WARM_UP)?;
    let probes = Probes::take(&choices.directory).map_err(text)?;
    let dropped = measure(&mut bed, &mut points, *blocks, *slice, choices.seed)?;
    let probes = probes.between(Probes::take(&choices.directory).map_err(text)?);
    bed.stop()?;

    say(format!(
        "{}, puts of 16 B and {} B, {SYSTEM}; medians of {blocks} slices of {slice:?}, {dropped} left out; flush {:.0} µs, \
         round trip {:.0} µs\n{}",
        choices.durability.promise(),
        choices.value_bytes,
        probes.flush,
        probes.quic,
        note(),
    ));
    results.probes = probes;
    if dropped > 0 {
        results.notes.push(left_out(dropped));
    }
    for (knob, values) in knobs {
        for &depth in in_flight {
            say(format!("\nlimits.{knob}, {depth} in flight\n{:>12} {HEADS}", "value"));
            let mut sweep = Sweep {
                system: SYSTEM.into(),
                workload: Workload::closed(Call::Put, depth.max(1)).with_values_of(choices.value_bytes),
                axes: vec![axis(knob, values)],
                points: Vec::new(),
                chosen: None,
                best: None,
            };
            for &set in values {
                let mut pace = usual;
                knob.set(&mut pace, set);
                let point = points.iter().find(|point| (point.pace, point.in_flight) == (pace, depth.max(1)));
                let Some(point) = point else { continue };
                say(format!("{:>12} {}", value(knob, set), point.line()));
                sweep.points.push(Point { at: vec![set as f64], figures: point.figures() });
            }
            let rate = |point: &Point| point.figures.get(&Measure::Rate).map_or(0.0, |rate| rate.median);
            let best = sweep.points.iter().max_by(|one, other| rate(one).total_cmp(&rate(other)));
            sweep.best = best.map(|point| (point.at.clone(), "the highest median rate".into()));
            results.sweep.push(sweep);
        }
    }
    if let Some(path) = &options.json {
        results.took = began.elapsed();
        write(&results, path)?;
    }
    Ok(())
}

/// What a reader must know of every run on a [`Bed`].
pub fn note() -> String {
    "W15: three nodes and the generator are one process: CPU per operation is that of all of them together, and figures \
     stand beside each other, not beside those of clusters of processes"
        .into()
}

/// That slices do not count.
pub fn left_out(dropped: usize) -> String {
    format!("W15: {dropped} slices were left out because leadership moved or a put failed")
}

/// Of a run on a [`Bed`] that begins now.
pub fn begin(job: &str, choices: &Choices, blocks: usize, slice: Duration) -> Results {
    let rules = Rules { warm_up: WARM_UP, attempts: ATTEMPTS, ..Rules::plain(blocks, slice, choices.seed) };
    let subject = Subject {
        name: SYSTEM.into(),
        version: env!("CARGO_PKG_VERSION").into(),
        promise: choices.durability.promise(),
        nodes: 3,
        ours: true,
        settings: BTreeMap::from([("durability".into(), choices.durability.to_string())]),
    };
    Results { systems: vec![subject], notes: vec![note()], ..Results::begin(job, &choices.directory, rules) }
}

/// Writes results where they were asked for.
pub fn write(results: &Results, path: &Path) -> Result<(), Failure> {
    results.write(path).map_err(|error| format!("writing {}: {error}", path.display()))
}
