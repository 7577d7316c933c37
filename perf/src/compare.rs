//! `quick`, `full` and `compare`: the same matrix asked of our engine and of others, on the same machine in the same run.
//!
//! Rows take turns on clusters that are all up; parts that are no rows follow, each a process of its own. One report has all
//! of it, and says of everything in the matrix that it has no figure of why it has none.
//!
//! Nothing is installed and nothing is downloaded. A system that is not there is left out and named, or, if it was asked
//! for by name, an error that says what to install.

use crate::bench::{self, Asked, Bench, BenchError, Measured, Plan, io_error};
use crate::matrix::{self, PARTS, Selection};
use crate::node::{DurabilityChoice, RuntimeChoice};
use crate::part::{Part, Setting};
use crate::peer::{Absent, Others};
use crate::results::{NotRun, Results, Rules};
use crate::summary::Summary;
use crate::system::System;
use crate::system::embedded::{Choices, Embedded};
use crate::system::etcd::Etcd;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
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
    /// Length of a slice of a row that is quoted; points of curves get a share of it.
    #[arg(long, value_parser = humantime::parse_duration)]
    slice: Option<Duration>,
    #[command(flatten)]
    selection: Selection,
    /// Which runtime our nodes use.
    #[arg(long, value_enum, default_value_t = RuntimeChoice::Auto)]
    runtime: RuntimeChoice,
    /// What our acknowledgements promise. Only what promises the same is compared: others flush first.
    #[arg(long, value_enum, default_value_t = DurabilityChoice::DiskFirst)]
    durability: DurabilityChoice,
    /// Core of each of our nodes' loops, for example 0,1,1; the first node leads. Without it the engine chooses.
    #[arg(long, value_delimiter = ',')]
    cores: Vec<usize>,
    #[command(flatten)]
    others: Others,
    /// Where data goes, on the file system to be measured. A fresh directory is made in it and removed at the end.
    #[arg(long, default_value = "target/perf")]
    directory: PathBuf,
    /// Where to write everything that was found, raw slices included, as JSON; in the directory if not given. It is there
    /// from the first block on.
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

/// Why there is no report, or less in it than was asked.
#[derive(Debug, Error)]
pub enum Error {
    /// Measuring failed.
    #[error(transparent)]
    Bench(#[from] BenchError),
    /// The other system does not take part.
    #[error(transparent)]
    Absent(#[from] Absent),
    /// The page was not written.
    #[error(transparent)]
    Page(#[from] crate::page::Error),
    /// Nothing has such a name.
    #[error("nothing is called {0}; ids are W1 to W15, words are those of the report's rows")]
    Unknown(String),
    /// What is left is nothing.
    #[error("`{job}` has no {rows}; `full` has the whole matrix")]
    NoRows {
        /// The job.
        job: &'static str,
        /// What was asked for.
        rows: String,
    },
    /// The report is there, with gaps.
    #[error("{0} of what was asked could not be run: the report says what and why")]
    Gaps(usize),
}

/// What a job has of the matrix.
struct Tier {
    job: &'static str,
    asked: Vec<Asked>,
    blocks: usize,
    slice: Duration,
    /// A point of a curve gets a slice this much shorter.
    points: u32,
    parts: fn(&Setting<'_>, &Rules) -> Vec<Part>,
}

/// About three minutes.
pub fn quick(options: &Options) -> Result<(), Error> {
    let tier = Tier {
        job: "quick",
        asked: matrix::quick(),
        blocks: 5,
        slice: Duration::from_millis(1600),
        points: 2,
        parts: |setting, _| vec![Part::kills(setting, 5, 2), Part::memory(1_000_000)],
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
        points: 8,
        parts: whole,
    };
    run(&tier, options, None)
}

/// Everything that is no row. A run that was asked for fewer blocks, to see that it runs, gets fewer of these, too.
fn whole(setting: &Setting<'_>, rules: &Rules) -> Vec<Part> {
    let short = rules.blocks < 6;
    let kills = if short { 2 } else { 20 };
    let mut parts = vec![Part::kills(setting, kills, kills), Part::memory(1_000_000)];
    if !short {
        parts.push(Part::memory(10_000_000));
    }
    let blocks = if short { 1 } else { 3 };
    parts.push(Part::sweep(setting, blocks, rules.short_slice.min(Duration::from_millis(300))));
    // Last, since it may fill the disk's cache, and the disk.
    parts.push(Part::restarts(setting, if short { &[0.1] } else { &[0.1, 1.0, 5.0] }));
    parts
}

/// The headlines at their full length, about eleven minutes; the other system must be there.
pub fn compare(options: &PeerOptions) -> Result<(), Error> {
    let tier = Tier {
        job: "compare",
        asked: matrix::headlines(),
        blocks: 12,
        slice: Duration::from_secs(4),
        points: 4,
        parts: |_, _| Vec::new(),
    };
    run(&tier, &options.options, Some(options.peer))
}

fn run(tier: &Tier, options: &Options, wanted: Option<Peer>) -> Result<(), Error> {
    let began = Instant::now();
    let slice = options.slice.unwrap_or(tier.slice);
    let rules = Rules {
        blocks: options.blocks.unwrap_or(tier.blocks).max(1),
        slice,
        short_slice: slice / tier.points,
        warm_up: WARM_UP,
        most_steal: MOST_STEAL,
        attempts: ATTEMPTS,
        seed: options.seed,
    };
    let mut notes = Vec::new();
    let systems = systems(options, wanted, &mut notes)?;
    let setting = Setting {
        runtime: options.runtime,
        durability: options.durability,
        others: &options.others,
        with_etcd: systems.len() > 1,
    };
    let mut parts = (tier.parts)(&setting, &rules);
    let selection = &options.selection;
    let names: Vec<(String, String)> =
        matrix::full().iter().map(|asked| (asked.id.clone(), asked.name())).collect();
    if let Some(word) = selection.unknown(&names) {
        return Err(Error::Unknown(word.into()));
    }
    let asked = selection.of(tier.asked.clone());
    parts.retain(|part| selection.takes(part.id, part.what()));
    if asked.is_empty() && parts.is_empty() {
        return Err(Error::NoRows { job: tier.job, rows: selection.rows.join(", ") });
    }
    bench::be_nice(options.nice)?;
    let directory = bench::scratch(&options.directory, "compare-")?;
    let json = options.place(options.json.as_ref(), tier.job, "json");
    let plan = Plan { rules, renew_after: options.renew_after << 30, json: Some(json.clone()) };
    let rows = if asked.is_empty() { Duration::ZERO } else { plan.length(&systems, &asked) };
    announce(tier.job, rows, &parts);

    let mut results = Results::begin(tier.job, &options.directory, plan.rules.clone());
    results.notes = notes;
    let mut broken = 0;
    if !asked.is_empty() {
        let measured = bench_rows(&plan, directory.path(), systems, &asked, results);
        (results, broken) = (measured.results, measured.broken);
    }
    for (number, part) in parts.iter().enumerate() {
        let place = directory.path().join(format!("part-{number}"));
        broken += usize::from(!take_part(part, &place, &mut results));
        // Of a copy: what is still to come is no gap in the end. That it cannot be written now loses nothing yet.
        let mut so_far = results.clone();
        conclude(&mut so_far, tier.job, selection, began);
        if let Err(error) = so_far.write(&json) {
            eprintln!("perf: writing {}: {error}", json.display());
        }
    }
    conclude(&mut results, tier.job, selection, began);
    let told = tell(&results, &json, &options.place(options.html.as_ref(), tier.job, "html"));
    match (told, broken) {
        (Ok(()), 0) => Ok(()),
        (Ok(()), gaps) => Err(Error::Gaps(gaps)),
        (Err(error), _) => Err(error),
    }
}

/// The rows; if no system runs at all, that is said of all of them.
fn bench_rows(
    plan: &Plan,
    directory: &Path,
    systems: Vec<Box<dyn System>>,
    asked: &[Asked],
    results: Results,
) -> Measured {
    let begun = results.clone();
    match Bench::start(plan, directory, systems, asked, results) {
        Ok(bench) => bench.run(),
        Err(error) => {
            eprintln!("perf: {error}");
            let mut results = begun;
            let mut ids: Vec<String> = asked.iter().map(|asked| asked.id.clone()).collect();
            ids.dedup();
            results.not_run.extend(ids.into_iter().map(|id| NotRun {
                what: words_of(&id).into(),
                id,
                why: error.to_string(),
            }));
            Measured { results, broken: asked.len() }
        }
    }
}

/// Whether it went well.
fn take_part(part: &Part, directory: &Path, results: &mut Results) -> bool {
    eprintln!("perf: {}, {}: about {:.0} s", part.id, part.what(), part.length.as_secs_f64());
    let (found, not_run) = part.run(directory);
    // What it measured was removed by itself, but for a part that was ended.
    let _ = std::fs::remove_dir_all(directory);
    if let Some(found) = found {
        results.take_in(found);
    }
    let whole = not_run.is_none();
    if let Some(not_run) = not_run {
        eprintln!("perf: {}, {}: {}", not_run.id, not_run.what, not_run.why);
        results.not_run.push(not_run);
    }
    whole
}

/// What follows from all that was found so far.
fn conclude(results: &mut Results, job: &str, selection: &Selection, began: Instant) {
    results.ratios = matrix::ratios(results);
    results.goals = matrix::goals(results);
    results.took = began.elapsed();
    for (id, what) in PARTS {
        if !has(results, id) && !results.not_run.iter().any(|one| one.id.split(' ').any(|known| known == id))
        {
            let why = match id {
                "W8" => "it waits for the server".into(),
                "W13" => "it waits for snapshots of the state".into(),
                _ if !selection.takes(id, what) => "left out, as asked".into(),
                _ => format!("not a part of `{job}`; `full` has it"),
            };
            results.not_run.push(NotRun { id: id.into(), what: what.into(), why });
        }
    }
}

/// Whether there is a figure of a part of the matrix.
fn has(results: &Results, id: &str) -> bool {
    results.rows.iter().any(|row| row.id == id)
        || match id {
            "W11" => !results.failures.is_empty(),
            "W12" => !results.recovery.is_empty(),
            "W14" => !results.memory.is_empty(),
            "W15" => !results.sweep.is_empty(),
            _ => false,
        }
}

fn words_of(id: &str) -> &'static str {
    PARTS.iter().find(|part| part.0 == id).map_or("", |(_, what)| *what)
}

/// How long it will take, before it begins.
fn announce(job: &str, rows: Duration, parts: &[Part]) {
    let minutes = |length: Duration| format!("{:.1}", length.as_secs_f64() / 60.0);
    let all = rows + parts.iter().map(|part| part.length).sum::<Duration>();
    let mut pieces = vec![format!("rows {}", minutes(rows))];
    pieces.extend(parts.iter().map(|part| format!("{} {}", part.id, minutes(part.length))));
    eprintln!("perf: {job} takes about {} minutes ({})", minutes(all), pieces.join(", "));
}

impl Options {
    fn place(&self, named: Option<&PathBuf>, job: &str, ending: &str) -> PathBuf {
        named.cloned().unwrap_or_else(|| self.directory.join(format!("{job}.{ending}")))
    }
}

fn tell(results: &Results, json: &Path, html: &Path) -> Result<(), Error> {
    results.write(json).map_err(io_error(format!("writing {}", json.display())))?;
    let said = writeln!(
        io::stdout(),
        "{}\neverything, as data: {}; as a page: {}",
        Summary(results),
        json.display(),
        html.display()
    );
    crate::page::write(results, html)?;
    Ok(said.map_err(io_error("printing the summary"))?)
}

/// Ours, and the others as far as they are there. Whoever was asked for by name must be.
fn systems(
    options: &Options,
    wanted: Option<Peer>,
    notes: &mut Vec<String>,
) -> Result<Vec<Box<dyn System>>, Error> {
    let ours =
        Choices { runtime: options.runtime, durability: options.durability, cores: options.cores.clone() };
    let mut systems: Vec<Box<dyn System>> = vec![Box::new(Embedded::new(ours))];
    match options.others.etcd(options.durability, wanted.is_some())? {
        Ok(binary) => systems.push(Box::new(Etcd::new(binary))),
        Err(why) => {
            eprintln!("perf: {why}");
            notes.push(why);
        }
    }
    Ok(systems)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::Promise;
    use crate::results::tests::{results, row, slice};

    fn why<'a>(results: &'a Results, id: &str) -> Vec<&'a str> {
        results.not_run.iter().filter(|one| one.id == id).map(|one| one.why.as_str()).collect()
    }

    #[test]
    fn everything_in_the_matrix_has_a_figure_or_a_reason() {
        let mut found = results(vec![row("ours", Promise::FsyncQuorum, 1000)], vec![slice(0, 0, 100)]);
        let broke = NotRun { id: "W12".into(), what: "restart".into(), why: "the disk is full".into() };
        found.not_run.push(broke);
        let selection = Selection { rows: Vec::new(), skip: vec!["W3".into()] };
        conclude(&mut found, "quick", &selection, Instant::now());
        for (id, _) in PARTS {
            assert_eq!(why(&found, id).len(), usize::from(id != "W2"), "{id}: {:?}", found.not_run);
        }
        assert_eq!(why(&found, "W12"), ["the disk is full"]);
        assert_eq!(why(&found, "W3"), ["left out, as asked"]);
        assert!(why(&found, "W15")[0].contains("not a part of `quick`"));
        assert!(why(&found, "W8")[0].contains("server"));
    }
}
