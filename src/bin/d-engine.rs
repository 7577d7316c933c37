//! The program `d-engine`: see `d-engine --help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    d_engine::cli::run()
}
