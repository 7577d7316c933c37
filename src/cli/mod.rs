//! The program `d-engine`.
//!
//! Results go to stdout, everything else to stderr. Exit codes: 0 done and well, 1 done and something is wrong with what
//! was asked about, 2 not done (usage, or the system refused).

mod wal;

use clap::{Parser, Subcommand};
use std::io;
use std::process::ExitCode;

#[derive(Debug, Parser)]
#[command(name = "d-engine", version, about = "A Raft engine: acknowledged means on disk on a majority")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Look at the write-ahead log in a data directory. Changes nothing.
    #[command(subcommand)]
    Wal(wal::Command),
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Well,
    /// Something is wrong with what was asked about.
    Wrong,
}

/// Why a command was not carried out.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Open(#[from] ::wal::OpenError),
    #[error("writing the answer failed: {0}")]
    Output(#[from] io::Error),
}

/// Runs the program on this process's arguments.
#[must_use]
pub fn run() -> ExitCode {
    let Arguments { command } = Arguments::parse();
    let done = match command {
        Command::Wal(command) => wal::run(&command, &mut io::stdout().lock()),
    };
    match done {
        Ok(Ending::Well) => ExitCode::SUCCESS,
        Ok(Ending::Wrong) => ExitCode::FAILURE,
        // Whoever read the answer has seen enough.
        Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {failure}");
            ExitCode::from(2)
        }
    }
}
