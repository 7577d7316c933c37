//! Builds with a bug put back in: a harness that cannot see the bug shows nothing.
//!
//! A mutant is a `cfg(mutant = "name")` in the engine's source. It is built into a target directory of its own, so that it
//! never meets an honest artifact.

use std::path::PathBuf;
use std::process::Command;

use crate::workspace;

/// Build this program with the mutant `name` in the engine; the path of the program.
pub fn build(name: &str) -> Result<PathBuf, String> {
    if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
        return Err(format!("{name:?} is no name of a mutant"));
    }
    let target = target_directory().join(format!("mutant-{name}"));
    let status = Command::new(workspace::cargo())
        .args(["build", "--package", "scripts", "--bin", "scripts", "--locked", "--release"])
        .env("RUSTFLAGS", format!("--cfg mutant=\"{name}\""))
        .env("CARGO_TARGET_DIR", &target)
        // Thin links are a matter of speed, and a mutant is not measured.
        .env("CARGO_PROFILE_RELEASE_LTO", "off")
        .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16")
        .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1")
        .current_dir(workspace::root())
        .status()
        .map_err(|error| format!("cargo could not be started: {error}"))?;
    if !status.success() {
        return Err(format!("the mutant {name} could not be built"));
    }
    Ok(target.join("release/scripts"))
}

fn target_directory() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace::root().join("target"), PathBuf::from)
}
