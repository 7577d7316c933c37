//! The first figures: puts at a few depths and reads at the three levels, on three embedded nodes.
//!
//! One system, so that its own figures stand alone: where the processor time goes, allocations, batches. The blocks and
//! the rule for leaving a slice out are those of every job, but for steal: on a shared machine it is shown, not judged.

use crate::bench::{self, Asked, Bench, BenchError, Measured, Plan, io_error};
use crate::report::{About, Report};
use crate::results::{Results, Rules};
use crate::system::System;
use crate::system::embedded::{Choices, Embedded};
use crate::workload::{Call, Workload};
use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

const NODES: u64 = 3;
/// How often a slice is tried in all.
const ATTEMPTS: usize = 3;
/// Long enough to fill caches, segments and connections.
const WARM_UP: Duration = Duration::from_millis(300);
/// A run of an hour writes more than this; a usual one less.
const RENEW_AFTER: u64 = 60 << 30;

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

/// Measures and prints.
pub fn run(options: &Options) -> Result<(), BenchError> {
    bench::be_nice(options.nice)?;
    let directory = bench::scratch(&options.directory, "first-light-")?;
    let system: Box<dyn System> = Box::new(Embedded::new(Choices {
        runtime: options.runtime,
        durability: options.durability,
        cores: options.cores.clone(),
    }));
    let plan = Plan {
        rules: Rules {
            blocks: options.blocks,
            slice: options.slice,
            short_slice: options.slice,
            warm_up: WARM_UP,
            most_steal: 1.0,
            attempts: ATTEMPTS,
            seed: options.seed,
        },
        renew_after: RENEW_AFTER,
        json: None,
    };
    let begun = Results::begin("first-light", &options.directory, plan.rules.clone());
    let found = Bench::start(&plan, directory.path(), vec![system], &options.asked(), begun)?.run();
    let Measured { results: found, broken } = found;
    let runtime = found.systems.first().and_then(|subject| subject.settings.get("runtime").cloned());
    let about = About {
        machine: found.machine,
        started: found.started,
        nodes: NODES,
        runtime: runtime.unwrap_or_default(),
        promise: options.durability.promise(),
        blocks: options.blocks,
        dropped: found.dropped.len(),
    };
    let report = Report::new(about, &found.rows, found.slices);
    writeln!(io::stdout(), "{report}").map_err(io_error("printing the report"))?;
    if let Some(path) = &options.json {
        let text = serde_json::to_string_pretty(&report).expect("a report is plain data");
        fs::write(path, text).map_err(io_error(format!("writing {}", path.display())))?;
    }
    if broken > 0 {
        let why: Vec<String> = found.not_run.iter().map(|one| format!("{}: {}", one.what, one.why)).collect();
        return Err(BenchError::Broken(why.join("; ")));
    }
    Ok(())
}

impl Options {
    fn asked(&self) -> Vec<Asked> {
        let asked = |id: &str, call, in_flight: usize| Asked {
            id: id.into(),
            workload: Workload::closed(call, in_flight.max(1)),
            point: false,
            condition: None,
        };
        let mut rows: Vec<Asked> =
            self.in_flight.iter().map(|&in_flight| asked("W2", Call::Put, in_flight)).collect();
        if !self.puts_only {
            rows.push(asked("W6", Call::GetLinearizable, self.reads_in_flight));
            // These are answered on the caller's thread before the call returns: nothing can be in flight.
            rows.extend([asked("W6", Call::GetLease, 1), asked("W6", Call::GetEventual, 1)]);
        }
        rows
    }
}
