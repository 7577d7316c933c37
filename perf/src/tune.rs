//! `perf tune`: the engine's tuner under a load, what it decides and why, and how far its choice is from the best of a
//! small sweep (W15).
//!
//! First the tuner runs by itself until it rests, or its time is over. Then its choice, the pace it began with and a grid
//! around both take turns in short slices on nodes without a tuner; the best of them is the one with the highest rate
//! among those that keep the target, or the lowest 99th percentile where none does. `--freeze` writes the choice as a
//! configuration that an engine loads.

use crate::bed::{Bed, Choices, Failure, Taken, say, text};
use crate::results::{Axis, Point, Sweep};
use crate::slice::Probes;
use crate::sweep::{self, HEADS, Tried};
use crate::workload::{Call, Workload};
use d_engine::api::{Knob, Pace, TunerStatus};
use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// What may be chosen.
#[derive(clap::Args, Debug)]
pub struct Options {
    /// What the 99th percentile of commit latency is to stay under.
    #[arg(long, value_parser = humantime::parse_duration)]
    target_p99: Duration,
    #[command(flatten)]
    choices: Choices,
    /// Puts in flight.
    #[arg(long, default_value_t = 1000)]
    in_flight: usize,
    /// How long the tuner may look for a pace; it is cut short when it rests.
    #[arg(long, default_value = "60s", value_parser = humantime::parse_duration)]
    settle: Duration,
    /// Each pace that the choice is compared with gets one slice in each block; 0 compares with none.
    #[arg(long, default_value_t = 3)]
    blocks: usize,
    /// Length of a slice of the comparison.
    #[arg(long, default_value = "400ms", value_parser = humantime::parse_duration)]
    slice: Duration,
    /// Write the choice as a configuration file.
    #[arg(long)]
    freeze: Option<PathBuf>,
    /// Where to write the results as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
}

/// Between two looks at the tuner.
const LOOK: Duration = Duration::from_secs(1);

/// Measures and prints.
pub fn run(options: &Options) -> Result<(), Failure> {
    let began = Instant::now();
    let Options { choices, target_p99: target, in_flight, .. } = options;
    let in_flight = (*in_flight).max(1);
    say(format!(
        "{}, puts of 16 B and {} B, {in_flight} in flight, p99 under {target:?}, {}",
        choices.durability.promise(),
        choices.value_bytes,
        sweep::SYSTEM,
    ));
    say(sweep::note());
    let mut results = sweep::begin("tune", choices, options.blocks, options.slice);
    let (first, chosen) = settle(options, in_flight)?;
    say(format!("the choice after {:.0} s: {}", began.elapsed().as_secs_f64(), words(chosen)));
    if let Some(path) = &options.freeze {
        let text = frozen(chosen, *target, in_flight);
        std::fs::write(path, text).map_err(|error| format!("writing {}: {error}", path.display()))?;
        say(format!("written to {}", path.display()));
    }
    if options.blocks == 0 {
        return Ok(());
    }

    let mut points = grid(first, chosen, in_flight);
    let mut bed = Bed::start(choices, None)?;
    bed.slice(in_flight, LOOK)?;
    let probes = Probes::take(&choices.directory).map_err(text)?;
    let dropped = sweep::measure(&mut bed, &mut points, options.blocks, options.slice, choices.seed)?;
    let probes = probes.between(Probes::take(&choices.directory).map_err(text)?);
    bed.stop()?;
    say(format!("\n{:>34} {HEADS}", "batch / batches / in flight"));
    let best = best(&points, *target);
    for (at, point) in points.iter().enumerate() {
        let marks =
            [(point.pace == first, "begin"), (point.pace == chosen, "choice"), (Some(at) == best, "best")];
        let marks: Vec<_> = marks.iter().filter(|(is, _)| *is).map(|(_, mark)| *mark).collect();
        say(format!("{:>34} {}  {}", words(point.pace), point.line(), marks.join(", ")));
    }
    let rate = |point: &Tried| point.median(Taken::rate).map_or(0.0, |rate| rate.median);
    let choice = points.iter().find(|point| point.pace == chosen);
    let share = choice.zip(best).map(|(choice, best)| rate(choice) / rate(&points[best]));
    let rule = "the highest median rate with its p99 within the target, else the lowest p99";
    if let (Some(share), Some(best)) = (share, best) {
        let best = words(points[best].pace);
        say(format!("\nthe choice has {share:.2} of the rate of the best ({best}); best: {rule}"));
    }
    if let Some(path) = &options.json {
        let at = |pace: Pace| Knob::ALL.iter().map(|knob| knob.of(&pace) as f64).collect::<Vec<_>>();
        let swept = Sweep {
            system: sweep::SYSTEM.into(),
            workload: Workload::closed(Call::Put, in_flight).with_values_of(choices.value_bytes),
            axes: Knob::ALL.iter().map(|&knob| axis(knob, &points)).collect(),
            points: points
                .iter()
                .map(|point| Point { at: at(point.pace), figures: point.figures() })
                .collect(),
            chosen: Some(at(chosen)),
            best: best.map(|best| (at(points[best].pace), rule.into())),
        };
        results.notes.push(format!("target: p99 under {target:?}"));
        if dropped > 0 {
            results.notes.push(sweep::left_out(dropped));
        }
        (results.probes, results.took, results.sweep) = (probes, began.elapsed(), vec![swept]);
        sweep::write(&results, path)?;
    }
    Ok(())
}

/// Lets the tuner look for a pace, and says what it decides: the pace it began with, and the one it rests at.
fn settle(options: &Options, in_flight: usize) -> Result<(Pace, Pace), Failure> {
    let mut bed = Bed::start(&options.choices, Some(options.target_p99))?;
    let first = bed.status()?.pace;
    say(format!("it begins at {}", words(first)));
    let began = Instant::now();
    let (mut pace, mut told) = (first, Duration::ZERO);
    while began.elapsed() < options.settle {
        bed.slice(in_flight, LOOK)?;
        let status = bed.status()?;
        let tuner = status.tuner.ok_or("the leader has no tuner")?;
        told = tell(&tuner, began.elapsed(), told);
        pace = status.pace;
        if tuner.at_rest {
            say(format!("{:>7.1} s  it rests{}", began.elapsed().as_secs_f64(), last(&tuner)));
            bed.stop()?;
            return Ok((first, pace));
        }
        if bed.is_worn_out()? {
            // Fresh nodes would begin from the start; what it has found so far counts.
            say("its nodes have written as much as they may");
            break;
        }
    }
    say("it has not come to rest: the choice is what was in force in the end");
    bed.stop()?;
    Ok((first, pace))
}

/// Says the decisions made since `told`, by the time from the start; returns up to where all are told now.
fn tell(tuner: &TunerStatus, now: Duration, told: Duration) -> Duration {
    let mut newest = told;
    for (ago, decision) in &tuner.decisions {
        let at = now.saturating_sub(*ago);
        // The same decision comes out at the same time but for what the question took.
        if at > told + Duration::from_millis(20) {
            say(format!("{:>7.1} s  {decision}", at.as_secs_f64()));
            newest = newest.max(at);
        }
    }
    newest
}

fn last(tuner: &TunerStatus) -> String {
    tuner.last.map_or_else(String::new, |last| format!(", with {last}"))
}

/// A pace in the units of the configuration.
fn words(pace: Pace) -> String {
    let values: Vec<_> = Knob::ALL.iter().map(|knob| sweep::value(*knob, knob.of(&pace))).collect();
    values.join(" / ")
}

/// The paces to compare: where it began, what it chose, one step from that in each knob, and corners.
fn grid(first: Pace, chosen: Pace, in_flight: usize) -> Vec<Tried> {
    let mut paces = vec![chosen, first];
    for knob in Knob::ALL {
        for value in [knob.of(&chosen) / 4, knob.of(&chosen) / 2, knob.of(&chosen) * 2, knob.of(&chosen) * 4]
        {
            let mut pace = chosen;
            knob.set(&mut pace, value);
            // A batch cannot grow beyond its limit, which is where it begins.
            pace.batch_bytes = pace.batch_bytes.min(first.batch_bytes.max(chosen.batch_bytes));
            paces.push(pace);
        }
    }
    for (batch_bytes, batches_in_flight) in [(64 << 10, 1), (64 << 10, 4), (256 << 10, 2), (1 << 20, 4)] {
        paces.push(Pace { batch_bytes, batches_in_flight, ..first });
    }
    let mut points: Vec<Tried> = Vec::new();
    for pace in paces {
        let sane = pace.is_possible() && pace.batch_bytes >= 4 << 10 && pace.batches_in_flight <= 64;
        if sane && !points.iter().any(|point| point.pace == pace) {
            points.push(Tried::new(pace, in_flight));
        }
    }
    points
}

/// The position of the best: the highest rate within the target, else the lowest percentile.
fn best(points: &[Tried], target: Duration) -> Option<usize> {
    let p99 =
        |point: &Tried| point.median(|taken| taken.micros(0.99)).map_or(f64::INFINITY, |p99| p99.median);
    let rate = |point: &Tried| point.median(Taken::rate).map_or(0.0, |rate| rate.median);
    let all = || points.iter().enumerate();
    let within = all().filter(|(_, point)| p99(point) <= target.as_secs_f64() * 1e6);
    let best = within.max_by(|one, other| rate(one.1).total_cmp(&rate(other.1)));
    best.or_else(|| all().min_by(|one, other| p99(one.1).total_cmp(&p99(other.1)))).map(|(at, _)| at)
}

fn axis(knob: Knob, points: &[Tried]) -> Axis {
    let mut values: Vec<u64> = points.iter().map(|point| knob.of(&point.pace)).collect();
    values.sort_unstable();
    values.dedup();
    let unit = if knob == Knob::BatchesInFlight { "" } else { "B" };
    let values = values.into_iter().map(|value| value as f64).collect();
    Axis { name: format!("limits.{knob}"), unit: unit.into(), values }
}

/// A configuration file that says nothing but this pace.
fn frozen(pace: Pace, target: Duration, in_flight: usize) -> String {
    let mut file = format!(
        "# Found by `perf tune --target-p99 {}`, with {in_flight} puts in flight. It fits the machine and the load it was found \
         on.\n[limits]\n",
        humantime::format_duration(target)
    );
    for knob in Knob::ALL {
        let value = sweep::value(knob, knob.of(&pace));
        let quote = if knob == Knob::BatchesInFlight { "" } else { "\"" };
        let _ = writeln!(file, "{knob} = {quote}{value}{quote}");
    }
    file
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wait::wait_for;
    use d_engine::config::Draft;
    use d_engine::prelude::EmbeddedEngine;

    #[test]
    fn what_is_frozen_is_a_configuration_with_that_pace() {
        for pace in [
            Pace { batch_bytes: 64 << 10, batches_in_flight: 4, in_flight_bytes: 16 << 20 },
            Pace { batch_bytes: 262_145, batches_in_flight: 1, in_flight_bytes: 300_000 << 3 },
        ] {
            let directory = tempfile::tempdir().expect("a temporary directory");
            let path = directory.path().join("frozen.toml");
            std::fs::write(&path, frozen(pace, Duration::from_millis(5), 1000)).expect("written");
            let draft = Draft::read(Some(&path), []).expect("it is read");
            let loaded = draft.finish().expect("it is accepted");
            assert_eq!(loaded.configuration.pace(), pace);
            assert_eq!(loaded.warnings, []);
        }
    }

    #[test]
    fn a_node_starts_with_what_was_frozen_and_goes_by_it() {
        let pace = Pace { batch_bytes: 96 << 10, batches_in_flight: 3, in_flight_bytes: 5 << 20 };
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("frozen.toml");
        std::fs::write(&path, frozen(pace, Duration::from_millis(5), 1000)).expect("written");
        let engine = wait_for(
            EmbeddedEngine::builder().config_file(&path).data_dir(directory.path().join("data")).start(),
        )
        .expect("the configuration is one that a node starts with");
        wait_for(engine.wait_ready(Duration::from_secs(20))).expect("it leads itself");
        assert_eq!(wait_for(engine.status()).expect("a status").pace, pace);
        wait_for(engine.stop()).expect("it stops in order");
    }

    #[test]
    fn the_best_keeps_the_target_before_it_is_fast() {
        let tried = |batches_in_flight, operations: u64, micros: u64| {
            let pace = Pace { batch_bytes: 1 << 20, batches_in_flight, in_flight_bytes: 4 << 20 };
            let mut tried = Tried::new(pace, 1);
            let mut latencies = crate::slice::latencies();
            latencies.record_n(micros * 1000, operations).expect("within bounds");
            tried.slices.push(Taken {
                operations,
                elapsed: Duration::from_secs(1),
                latencies,
                cpu: Duration::ZERO,
                flushes: 0,
                batches: 1,
            });
            tried
        };
        let points = [tried(1, 100, 4_000), tried(2, 300, 9_000), tried(4, 200, 4_500)];
        assert_eq!(best(&points, Duration::from_millis(5)), Some(2));
        assert_eq!(best(&points, Duration::from_millis(50)), Some(1));
        assert_eq!(best(&points, Duration::from_millis(1)), Some(0), "the lowest where none keeps it");
    }
}
