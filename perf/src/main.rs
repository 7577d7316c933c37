//! The measuring harness of d-engine: `cargo run --release -p perf -- probes`.
//!
//! See the README's "Numbers, and how they are made" for the rules it keeps.

mod probe;

use clap::{Parser, Subcommand};
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Parser)]
#[command(name = "perf", about = "The measuring harness of d-engine")]
struct Arguments {
    #[command(subcommand)]
    job: Job,
}

#[derive(Subcommand)]
enum Job {
    /// What the machine can do by itself: flush, round trips, arithmetic.
    Probes {
        /// On the file system of this directory.
        #[arg(long, default_value = ".")]
        directory: PathBuf,
    },
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().job {
        Job::Probes { directory } => probes(&directory).map_err(|error| error.to_string()),
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
        ("QUIC round trip", probe::quic_round_trips(2000)?),
        ("UDP round trip", probe::udp_round_trips(2000)?),
        ("fixed arithmetic", probe::spins(20)),
    ] {
        let mut at = |share| probe::quantile(&mut times, share).as_secs_f64() * 1e6;
        writeln!(out, "{name:<24} p50 {:>9.1} µs   p99 {:>9.1} µs", at(0.5), at(0.99))?;
    }
    Ok(())
}
