//! The measuring harness of d-engine: `cargo run --release -p perf -- quick`.
//!
//! See the README's "Numbers, and how they are made" for the rules it keeps.

mod allocations;
mod bed;
mod bench;
mod child;
mod cluster;
mod compare;
mod failover;
mod first_light;
mod generator;
mod machine;
mod matrix;
mod node;
mod outage;
mod page;
mod part;
mod peer;
mod probe;
mod protocol;
mod recovery;
mod report;
mod results;
mod slice;
mod slow_follower;
mod statistics;
mod store;
mod summary;
mod sweep;
mod system;
mod tune;
mod usage;
mod wait;
mod workload;

use clap::{Parser, Subcommand};
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: allocations::Counting = allocations::Counting;

#[derive(Parser)]
#[command(name = "perf", about = "The measuring harness of d-engine")]
struct Arguments {
    #[command(subcommand)]
    job: Job,
    /// Ask the kernel to let no core sleep during the run, whichever system has its turn (Linux, root). On a virtual machine
    /// waking a core is a visit to the host; the report says that this was asked for.
    #[arg(long, global = true)]
    awake: bool,
}

#[derive(Subcommand)]
enum Job {
    /// The figures that matter, against etcd if it is there: about three minutes.
    Quick(Box<compare::Options>),
    /// The whole matrix, against etcd if it is there: about twenty-five minutes.
    Full(Box<compare::Options>),
    /// The figures that matter against one other system, which must be there.
    Compare(Box<compare::PeerOptions>),
    /// Puts and reads on three embedded nodes, with what they cost.
    FirstLight(Box<first_light::Options>),
    /// The leader is killed, again and again: how long nothing is acknowledged, and whether anything is lost.
    Failover(Box<failover::Options>),
    /// What each of the knobs of batching costs, at several depths.
    Sweep(Box<sweep::Options>),
    /// Lets the engine's tuner look for a pace, and compares what it found with the best of a small sweep.
    Tune(Box<tune::Options>),
    /// A node is started with a large log to read.
    Recovery(Box<recovery::Options>),
    /// Puts while one follower stands still most of the time.
    SlowFollower(Box<slow_follower::Options>),
    /// What watchers, leases, ranges and memory cost, on one embedded node.
    Store(Box<store::Options>),
    /// What a key takes in memory, in a store of its own.
    Memory(Box<store::MemoryOptions>),
    /// What the machine can do by itself: flush, round trips, arithmetic.
    Probes {
        /// On the file system of this directory.
        #[arg(long, default_value = ".")]
        directory: PathBuf,
    },
    /// Draws a page and single drawings from the results of an earlier run.
    Report(page::Options),
    /// One node, under orders of the coordinator.
    #[command(hide = true)]
    Node(Box<node::Arguments>),
    /// The generator for etcd, under orders of the coordinator.
    #[command(hide = true)]
    EtcdClient,
}

fn main() -> ExitCode {
    let Arguments { job, awake } = Arguments::parse();
    let _awake = match awake.then(machine::keep_awake).transpose() {
        Ok(awake) => awake,
        Err(error) => {
            eprintln!("perf: keeping the cores awake: {error}");
            return ExitCode::FAILURE;
        }
    };
    let outcome = match job {
        Job::FirstLight(options) => first_light::run(&options).map_err(|error| error.to_string()),
        Job::Failover(options) => failover::run(&options),
        Job::Recovery(options) => recovery::run(&options).map_err(|error| error.to_string()),
        Job::SlowFollower(options) => slow_follower::run(&options),
        Job::Store(options) => store::run(&options),
        Job::Memory(options) => store::memory_alone(&options),
        Job::Sweep(options) => sweep::run(&options),
        Job::Tune(options) => tune::run(&options),
        Job::Report(options) => page::run(&options).map_err(|error| error.to_string()),
        Job::Probes { directory } => probes(&directory).map_err(|error| error.to_string()),
        Job::Quick(options) => compare::quick(&options).map_err(|error| error.to_string()),
        Job::Full(options) => compare::full(&options).map_err(|error| error.to_string()),
        Job::Compare(options) => compare::compare(&options).map_err(|error| error.to_string()),
        Job::Node(arguments) => node::run(&arguments),
        Job::EtcdClient => system::etcd::client::run(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("perf: {message}");
            ExitCode::FAILURE
        }
    }
}

fn probes(directory: &std::path::Path) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for (name, mut times) in [
        ("write 4 KiB and flush", probe::flushes(directory, 1000)?),
        ("second of three at once", probe::majority_flushes(directory, 1000)?),
        ("QUIC round trip", probe::quic_round_trips(2000)?),
        ("UDP round trip", probe::udp_round_trips(2000)?),
        ("fixed arithmetic", probe::spins(20)),
    ] {
        let mut at = |share| probe::quantile(&mut times, share).as_secs_f64() * 1e6;
        writeln!(out, "{name:<24} p50 {:>9.1} µs   p99 {:>9.1} µs", at(0.5), at(0.99))?;
    }
    Ok(())
}
