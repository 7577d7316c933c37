//! The first figures: puts at a few depths and reads at the three levels, on three embedded nodes.
//!
//! Rows take turns in short slices; the order is shuffled anew in every block, so that a slow minute of the machine
//! falls on all of them. One unmeasured slice of each row comes first. Nothing is dropped but slices during which
//! leadership moved; such a slice is repeated, at most twice, and the number dropped is printed.

use crate::cluster::{Cluster, ClusterError, Plan};
use crate::machine::Machine;
use crate::protocol::{Call, Load};
use crate::report::{About, Report};
use crate::slice::{Probes, Row, Slice, Spent};
use crate::statistics::SplitMix;
use crate::usage::MachineUsage;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use thiserror::Error;

const NODES: u64 = 3;
/// How often a slice is tried in all.
const ATTEMPTS: usize = 3;
/// Long enough to fill caches, segments and connections.
const WARM_UP: Duration = Duration::from_millis(300);

/// What may be chosen.
#[derive(clap::Args, Debug)]
pub struct Options {
    /// Puts in flight, one row for each.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 100, 1000])]
    in_flight: Vec<usize>,
    /// Linearizable reads in flight.
    #[arg(long, default_value_t = 100)]
    reads_in_flight: usize,
    /// Leave the reads out.
    #[arg(long)]
    puts_only: bool,
    /// Each row gets one slice in each block.
    #[arg(long, default_value_t = 5)]
    blocks: usize,
    /// Length of a slice.
    #[arg(long, default_value = "2s", value_parser = humantime::parse_duration)]
    slice: Duration,
    /// Which runtime the nodes use.
    #[arg(long, value_enum, default_value_t = crate::node::RuntimeChoice::Auto)]
    runtime: crate::node::RuntimeChoice,
    /// What an acknowledgement promises.
    #[arg(long, value_enum, default_value_t = crate::node::DurabilityChoice::DiskFirst)]
    durability: crate::node::DurabilityChoice,
    /// Core of each node's loop, for example 0,1,1; the first node leads. Without it the engine chooses.
    #[arg(long, value_delimiter = ',')]
    cores: Vec<usize>,
    /// Where data goes, on the file system to be measured. A fresh directory is made in it and removed at the end.
    #[arg(long, default_value = "target/perf")]
    directory: PathBuf,
    /// Where to write the report as JSON, raw slices included.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Nice value of the harness, its probes and all nodes alike; below 0 needs the privilege. For a machine on which
    /// others work too.
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    nice: i32,
    /// Seed of the order of rows.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Why there are no figures.
#[derive(Debug, Error)]
pub enum Error {
    /// A node failed.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// The operating system refused.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// Its reason.
        source: io::Error,
    },
    /// Every slice of a row failed.
    #[error("row {0}: no operation succeeded")]
    Nothing(String),
}

fn io_error(what: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
    let what = what.into();
    move |source| Error::Io { what, source }
}

/// Measures and prints.
pub fn run(options: &Options) -> Result<(), Error> {
    if options.nice != 0 {
        // Processes and threads started from here on inherit it.
        rustix::process::setpriority_process(None, options.nice)
            .map_err(|error| io_error(format!("taking nice value {}", options.nice))(error.into()))?;
    }
    let parent = &options.directory;
    fs::create_dir_all(parent).map_err(io_error(format!("making {}", parent.display())))?;
    let directory = tempfile::Builder::new()
        .prefix("first-light-")
        .tempdir_in(parent)
        .map_err(io_error(format!("making a directory in {}", parent.display())))?;
    let rows = options.rows();
    let started = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let mut cluster = Cluster::start(&Plan {
        directory: directory.path().to_owned(),
        nodes: NODES,
        arguments: vec![
            format!("--runtime={}", options.runtime),
            format!("--durability={}", options.durability),
        ],
        cores: options.cores.clone(),
    })?;
    if !options.cores.is_empty() {
        cluster.lead_from_first()?;
    }
    let mut bench =
        Bench { cluster, directory: directory.path(), rows: &rows, slices: Vec::new(), dropped: 0 };
    bench.measure(options)?;
    let Bench { cluster, slices, dropped, .. } = bench;
    let runtime = cluster.runtime.clone();
    cluster.stop()?;

    if let Some(row) =
        (0..rows.len()).find(|row| !slices.iter().any(|s| s.row == *row && s.loaded.operations > 0))
    {
        return Err(Error::Nothing(rows[row].name.clone()));
    }
    let about = About {
        machine: Machine::here(parent),
        started,
        nodes: NODES,
        runtime,
        promise: options.durability.promise().into(),
        blocks: options.blocks,
        dropped,
    };
    let report = Report::new(about, &rows, slices);
    writeln!(io::stdout(), "{report}").map_err(io_error("printing the report"))?;
    if let Some(path) = &options.json {
        let text = serde_json::to_string_pretty(&report).expect("a report is plain data");
        fs::write(path, text).map_err(io_error(format!("writing {}", path.display())))?;
    }
    Ok(())
}

impl Options {
    fn rows(&self) -> Vec<Row> {
        let slice = self.slice;
        let promise = self.durability.promise();
        let mut rows: Vec<Row> = self
            .in_flight
            .iter()
            .map(|&in_flight| Row {
                name: format!("{promise} put, {in_flight} in flight"),
                load: Load { call: Call::Put, in_flight: in_flight.max(1), slice },
            })
            .collect();
        if !self.puts_only {
            let in_flight = self.reads_in_flight.max(1);
            rows.push(Row {
                name: format!("linearizable get, {in_flight} in flight"),
                load: Load { call: Call::GetLinearizable, in_flight, slice },
            });
            // These are answered on the caller's thread before the call returns: nothing can be in flight.
            for (name, call) in [("lease get", Call::GetLease), ("eventual get", Call::GetEventual)] {
                rows.push(Row {
                    name: format!("{name}, one thread"),
                    load: Load { call, in_flight: 1, slice },
                });
            }
        }
        rows
    }
}

struct Bench<'a> {
    cluster: Cluster,
    directory: &'a Path,
    rows: &'a [Row],
    slices: Vec<Slice>,
    dropped: usize,
}

impl Bench<'_> {
    fn measure(&mut self, options: &Options) -> Result<(), Error> {
        let leader = self.cluster.leader()?;
        self.cluster.fill(leader)?;
        for row in self.rows {
            self.cluster.load(leader, Load { slice: WARM_UP.min(options.slice), ..row.load })?;
        }
        let mut order: Vec<usize> = (0..self.rows.len()).collect();
        let mut numbers = SplitMix(options.seed);
        let mut probes = self.probe()?;
        for block in 0..options.blocks {
            numbers.shuffle(&mut order);
            for &row in &order {
                for _ in 0..ATTEMPTS {
                    let slice = self.slice(block, row)?;
                    let before = std::mem::replace(&mut probes, self.probe()?);
                    let Some(slice) = slice else {
                        self.dropped += 1;
                        continue;
                    };
                    self.slices.push(Slice { probes: before.between(probes), ..slice });
                    break;
                }
            }
            // Progress is for people: it must not mix with the report.
            eprintln!("block {} of {} done", block + 1, options.blocks);
        }
        Ok(())
    }

    fn probe(&self) -> Result<Probes, Error> {
        Probes::take(self.directory).map_err(io_error("probing the machine"))
    }

    /// One slice; `None` if leadership moved meanwhile.
    fn slice(&mut self, block: usize, row: usize) -> Result<Option<Slice>, Error> {
        let leader = self.cluster.leader()?;
        let before = self.cluster.snapshots()?;
        let machine = MachineUsage::now();
        let load = self.rows[row].load;
        let loaded = self.cluster.load(leader, load)?;
        let machine = MachineUsage::now().zip(machine).map(|(now, then)| now.since(then));
        let after = self.cluster.snapshots()?;
        if !after[leader].leads || after[leader].term != before[leader].term {
            return Ok(None);
        }
        Ok(Some(Slice {
            row,
            block,
            load,
            loaded,
            nodes: before.iter().zip(&after).map(|(before, after)| Spent::between(before, after)).collect(),
            leader,
            probes: Probes::default(),
            machine,
            cores: std::thread::available_parallelism().map_or(1, usize::from),
        }))
    }
}
