//! Named jobs: `cargo run -p scripts -- <job>`.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use scripts::{ci, proto, workspace};

#[derive(Parser)]
#[command(name = "scripts", about = "Named jobs of the d-engine repository")]
struct Arguments {
    #[command(subcommand)]
    job: Job,
}

#[derive(Subcommand)]
enum Job {
    /// Format, lints, documentation, tests: what `.ci/run` calls.
    Ci {
        /// Only the step of this name.
        #[arg(long)]
        step: Option<String>,
    },
    /// Regenerate the code of the `proto` crate from its `.proto` files.
    Proto {
        /// Change nothing; fail if the checked-in code is not what the sources say.
        #[arg(long)]
        check: bool,
    },
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().job {
        Job::Ci { step } => run_ci(step.as_deref()),
        Job::Proto { check } => run_proto(check),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::FAILURE
        }
    }
}

fn run_ci(step: Option<&str>) -> Result<(), String> {
    for (name, took) in ci::run(step)? {
        eprintln!("ci: {name:14} {:6.1} s", took.as_secs_f64());
    }
    Ok(())
}

fn run_proto(check_only: bool) -> Result<(), String> {
    let directory = workspace::root().join("proto");
    if check_only {
        return proto::check(&directory).map_err(|error| error.to_string());
    }
    for name in proto::write(&directory).map_err(|error| error.to_string())? {
        eprintln!("proto: {name}");
    }
    Ok(())
}
