//! Builds with a bug put back in: a harness that cannot see the bug shows nothing.
//!
//! A mutant is a `cfg(mutant = "name")` in the engine's source. It is built under a profile of its own, so that its program
//! never takes the place of an honest one, and the flag reaches only the crates of this workspace, so that the dependencies
//! are built once for all mutants.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{fs, io};

use crate::workspace;

/// Build this program with the mutant `name` in the engine; the path of the program.
pub fn build(name: &str) -> Result<PathBuf, String> {
    if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
        return Err(format!("{name:?} is no name of a mutant"));
    }
    let target = target_directory();
    let directory = target.join("mutant");
    let wrapper = wrapper(&directory, name).map_err(|error| format!("{}: {error}", directory.display()))?;
    let status = Command::new(workspace::cargo())
        .args(["build", "--package", "scripts", "--bin", "scripts", "--locked", "--profile", "mutant"])
        .args(["--config", "profile.mutant.inherits='test'"])
        .env("RUSTC_WORKSPACE_WRAPPER", wrapper)
        .env("CARGO_TARGET_DIR", &target)
        .current_dir(workspace::root())
        .status()
        .map_err(|error| format!("cargo could not be started: {error}"))?;
    if !status.success() {
        return Err(format!("the mutant {name} could not be built"));
    }
    // The next mutant will have the same path.
    let (built, kept) = (directory.join("scripts"), directory.join(name));
    fs::copy(&built, &kept).map_err(|error| format!("{}: {error}", built.display()))?;
    Ok(kept)
}

/// A compiler that believes in one more flag. Cargo keeps the artifacts of different wrappers apart.
fn wrapper(directory: &Path, name: &str) -> io::Result<PathBuf> {
    use std::os::unix::fs::PermissionsExt;
    fs::create_dir_all(directory)?;
    let path = directory.join(format!("rustc-{name}"));
    let text = format!("#!/bin/sh\nrustc=$1\nshift\nexec \"$rustc\" \"$@\" --cfg 'mutant=\"{name}\"'\n");
    fs::write(&path, text)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(path)
}

/// Where cargo builds.
pub(crate) fn target_directory() -> PathBuf {
    let given = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    workspace::root().join(given.unwrap_or_else(|| "target".into()))
}
