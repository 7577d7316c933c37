//! `quick`, `full` and `compare`: the same matrix asked of our engine and of others, on the same machine in the same run.
//!
//! Nothing is installed and nothing is downloaded. A system that is not there is left out and named, or, if it was asked
//! for by name, an error that says what to install.

use crate::bench::{self, Asked, Bench, BenchError, Plan, io_error};
use crate::machine::Machine;
use crate::matrix;
use crate::node::{DurabilityChoice, RuntimeChoice};
use crate::results::{Chart, FORMAT, Memory, Promise, Results, Row, Rules, Unfair};
use crate::store;
use crate::summary::Summary;
use crate::system::System;
use crate::system::embedded::{self, Choices, Embedded};
use crate::system::etcd::{self, Binary, Etcd, Missing};
use crate::workload::{Call, KEY_BYTES, VALUE_BYTES, Workload};
use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};
use thiserror::Error;

const ATTEMPTS: usize = 3;
const WARM_UP: Duration = Duration::from_millis(300);
/// More than this of the machine taken by its host, and a slice does not count.
const MOST_STEAL: f64 = 0.05;

/// What may be chosen.
#[derive(clap::Args, Debug)]
pub struct Options {
    /// Each row gets one slice in each block.
    #[arg(long)]
    blocks: Option<usize>,
    /// Length of a slice of a row that is quoted; points of curves get half of it at most, and at most a second.
    #[arg(long, value_parser = humantime::parse_duration)]
    slice: Option<Duration>,
    /// Only these rows, by id (W2) or by a word of their name (lease).
    #[arg(long, value_delimiter = ',')]
    rows: Vec<String>,
    /// Which runtime our nodes use.
    #[arg(long, value_enum, default_value_t = RuntimeChoice::Auto)]
    runtime: RuntimeChoice,
    /// What our acknowledgements promise. Only what promises the same is compared: others flush first.
    #[arg(long, value_enum, default_value_t = DurabilityChoice::DiskFirst)]
    durability: DurabilityChoice,
    /// The program etcd, if it is not on the PATH.
    #[arg(long)]
    etcd_bin: Option<PathBuf>,
    /// Our engine alone.
    #[arg(long)]
    alone: bool,
    /// Where data goes, on the file system to be measured. A fresh directory is made in it and removed at the end.
    #[arg(long, default_value = "target/perf")]
    directory: PathBuf,
    /// Where to write everything that was found, raw slices included, as JSON; in the directory if not given.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Where to write the page; in the directory if not given.
    #[arg(long)]
    html: Option<PathBuf>,
    /// Nice value of the harness, its probes and the processes of all systems alike; below 0 needs the privilege.
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    nice: i32,
    /// Gigabytes that a cluster may write before a fresh one takes its place, all nodes together.
    #[arg(long, default_value_t = 12)]
    renew_after: u64,
    /// Seed of the order of rows.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// The other system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Peer {
    /// <https://etcd.io>
    Etcd,
}

/// What may be chosen, and against whom.
#[derive(clap::Args, Debug)]
pub struct PeerOptions {
    /// Against whom.
    #[arg(value_enum)]
    peer: Peer,
    #[command(flatten)]
    options: Options,
}

/// Why there is no report.
#[derive(Debug, Error)]
pub enum Error {
    /// Measuring failed.
    #[error(transparent)]
    Bench(#[from] BenchError),
    /// The other system is not there.
    #[error(transparent)]
    Missing(#[from] Missing),
    /// The other system promises something else.
    #[error(transparent)]
    Unfair(#[from] Unfair),
    /// The page was not written.
    #[error(transparent)]
    Page(#[from] crate::page::Error),
    /// No row has such a name.
    #[error("no row is called {0}; ids are W1 to W9, words are those of the report's rows")]
    NoRows(String),
}

struct Tier {
    job: &'static str,
    asked: Vec<Asked>,
    blocks: usize,
    slice: Duration,
    keys_in_memory: &'static [u64],
}

/// About three minutes.
pub fn quick(options: &Options) -> Result<(), Error> {
    let tier = Tier {
        job: "quick",
        asked: matrix::quick(),
        blocks: 5,
        slice: Duration::from_secs(2),
        keys_in_memory: &[1_000_000],
    };
    run(&tier, options, None)
}

/// About twenty-five minutes.
pub fn full(options: &Options) -> Result<(), Error> {
    let tier = Tier {
        job: "full",
        asked: matrix::full(),
        blocks: 12,
        slice: Duration::from_secs(4),
        keys_in_memory: &[1_000_000, 10_000_000],
    };
    run(&tier, options, None)
}

/// The headlines at their full length, about eleven minutes; the other system must be there.
pub fn compare(options: &PeerOptions) -> Result<(), Error> {
    let tier = Tier {
        job: "compare",
        asked: matrix::headlines(),
        blocks: 12,
        slice: Duration::from_secs(4),
        keys_in_memory: &[],
    };
    run(&tier, &options.options, Some(options.peer))
}

fn run(tier: &Tier, options: &Options, wanted: Option<Peer>) -> Result<(), Error> {
    let began = Instant::now();
    let started = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let asked = matrix::only(tier.asked.clone(), &options.rows);
    if asked.is_empty() {
        return Err(Error::NoRows(options.rows.join(", ")));
    }
    let mut notes = Vec::new();
    let systems = systems(options, wanted, &mut notes)?;
    bench::be_nice(options.nice)?;
    let memory = memory(tier, options)?;
    let directory = bench::scratch(&options.directory, "compare-")?;
    let slice = options.slice.unwrap_or(tier.slice);
    let plan = Plan {
        rules: Rules {
            blocks: options.blocks.unwrap_or(tier.blocks).max(1),
            slice,
            short_slice: (slice / 2).min(Duration::from_secs(1)),
            warm_up: WARM_UP,
            most_steal: MOST_STEAL,
            attempts: ATTEMPTS,
            seed: options.seed,
        },
        renew_after: options.renew_after << 30,
    };
    let found = Bench::start(&plan, directory.path(), systems, &asked)?.run()?;
    notes.extend(found.notes);
    let mut results = Results {
        format: FORMAT,
        version: env!("CARGO_PKG_VERSION").into(),
        job: tier.job.into(),
        command: std::env::args().collect(),
        started,
        took: Duration::ZERO,
        machine: Machine::here(&options.directory),
        probes: found.probes,
        rules: plan.rules.clone(),
        notes,
        systems: found.systems,
        rows: found.rows,
        slices: found.slices,
        dropped: found.dropped,
        ratios: Vec::new(),
        goals: Vec::new(),
        memory,
        failures: Vec::new(),
        recovery: Vec::new(),
        sweep: Vec::new(),
    };
    results.ratios = matrix::ratios(&results);
    results.goals = matrix::goals(&results);
    results.took = began.elapsed();
    tell(&results, options)
}

fn tell(results: &Results, options: &Options) -> Result<(), Error> {
    let place = |named: &Option<PathBuf>, ending: &str| {
        named.clone().unwrap_or_else(|| options.directory.join(format!("{}.{ending}", results.job)))
    };
    let json = place(&options.json, "json");
    let text = serde_json::to_string(results).expect("results are plain data");
    fs::write(&json, text).map_err(io_error(format!("writing {}", json.display())))?;
    let html = place(&options.html, "html");
    crate::page::write(results, &html)?;
    let (data, page) = (json.display(), html.display());
    let said = writeln!(io::stdout(), "{}\neverything, as data: {data}; as a page: {page}", Summary(results));
    Ok(said.map_err(io_error("printing the summary"))?)
}

/// Ours, and the others as far as they are there. Whoever was asked for by name must be.
fn systems(
    options: &Options,
    wanted: Option<Peer>,
    notes: &mut Vec<String>,
) -> Result<Vec<Box<dyn System>>, Error> {
    let ours = Embedded::new(Choices {
        runtime: options.runtime,
        durability: options.durability,
        cores: Vec::new(),
    });
    let mut systems: Vec<Box<dyn System>> = vec![Box::new(ours)];
    if options.alone && wanted.is_none() {
        notes.push("our engine alone, as asked".into());
        return Ok(systems);
    }
    let fair = same_promise(options.durability.promise());
    let found = Binary::find(options.etcd_bin.as_deref(), std::env::var_os("PATH").as_deref());
    match (fair, found) {
        (Ok(()), Ok(binary)) => systems.push(Box::new(Etcd::new(binary))),
        (Err(unfair), _) if wanted.is_some() => return Err(unfair.into()),
        // What was named on the command line is wanted as well.
        (_, Err(missing)) if wanted.is_some() || options.etcd_bin.is_some() => return Err(missing.into()),
        (Err(unfair), _) => leave_out(notes, format!("etcd is left out: {unfair}")),
        (_, Err(missing)) => leave_out(notes, format!("etcd is left out: {missing}")),
    }
    Ok(systems)
}

fn leave_out(notes: &mut Vec<String>, why: String) {
    eprintln!("perf: {why}");
    notes.push(why);
}

fn same_promise(promise: Promise) -> Result<(), Unfair> {
    let row = |system: &str, promise| Row {
        id: "W2".into(),
        system: system.into(),
        promise,
        workload: Workload::closed(Call::Put, 1),
        condition: None,
    };
    Chart::of(&[row(embedded::NAME, promise), row(etcd::NAME, Promise::FsyncQuorum)]).map(drop)
}

fn memory(tier: &Tier, options: &Options) -> Result<Vec<Memory>, Error> {
    let wanted = options.rows.is_empty() || options.rows.iter().any(|row| row.eq_ignore_ascii_case("W14"));
    let keys = if wanted { tier.keys_in_memory } else { &[] };
    keys.iter()
        .map(|&keys| {
            let measured = store::bytes_per_key(keys)
                .map_err(|error| io_error("filling a store")(io::Error::other(error)))?;
            Ok(Memory {
                system: embedded::NAME.into(),
                what: "the store of one node, alone in its process".into(),
                keys,
                bytes_per_key: measured,
                payload_bytes: KEY_BYTES + VALUE_BYTES,
            })
        })
        .collect()
}
