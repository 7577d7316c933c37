//! Where things lie in the repository.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The repository's root.
pub fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().expect("the crate lies one level below the root").to_path_buf()
}

/// The cargo that started us, so that a chosen toolchain stays chosen.
pub fn cargo() -> PathBuf {
    std::env::var_os("CARGO").map_or_else(|| PathBuf::from("cargo"), PathBuf::from)
}

/// Build and run a program of the simulator with its output as ours.
pub fn run_simulator(program: &str, scope: &str, more: &[String]) -> Result<(), String> {
    let status = Command::new(cargo())
        .args([
            "run",
            "--release",
            "--locked",
            "--no-default-features",
            "--features",
            "sim",
            "--bin",
            program,
        ])
        .args(["--", "--scope", scope])
        .args(more)
        .current_dir(root())
        .status()
        .map_err(|error| format!("cargo could not be started: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("{program} failed ({status})")) }
}
