//! What has to be green before a change lands. `.ci/run` installs what these steps need and calls them.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::workspace;

/// One command of the list.
#[derive(Debug, Clone)]
pub struct Step {
    /// What it shows.
    pub name: &'static str,
    arguments: &'static [&'static str],
    environment: &'static [(&'static str, &'static str)],
}

/// The simulator is judged, linted and documented with everything else.
const SIM: &str = "d-engine/sim";

/// The steps, cheapest first; the tests come last so that their summary ends the log.
pub const STEPS: &[Step] = &[
    Step { name: "format", arguments: &["fmt", "--all", "--", "--check"], environment: &[] },
    Step {
        name: "clippy",
        arguments: &[
            "clippy",
            "--workspace",
            "--features",
            SIM,
            "--all-targets",
            "--locked",
            "--",
            "-D",
            "warnings",
        ],
        environment: &[],
    },
    Step {
        name: "documentation",
        arguments: &["doc", "--workspace", "--features", SIM, "--no-deps", "--locked"],
        environment: &[("RUSTDOCFLAGS", "-D warnings")],
    },
    // Each once, without measuring: what is not run rots.
    Step {
        name: "benchmarks",
        arguments: &["test", "--locked", "--features", SIM, "-p", "d-engine", "-p", "wal", "--bench", "*"],
        environment: &[],
    },
    // The short forms of the long jobs (kills, partitions, power cuts, bad input) are tests of this crate.
    Step {
        name: "tests",
        arguments: &["test", "--workspace", "--features", SIM, "--locked", "--no-fail-fast"],
        environment: &[],
    },
];

/// Run the steps in order up to the first that fails; its name then.
pub fn run(only: Option<&str>) -> Result<Vec<(&'static str, Duration)>, String> {
    let mut times = Vec::new();
    let chosen: Vec<&Step> = STEPS.iter().filter(|step| only.is_none_or(|name| name == step.name)).collect();
    if chosen.is_empty() {
        let names: Vec<_> = STEPS.iter().map(|step| step.name).collect();
        return Err(format!("no step of that name; there are: {}", names.join(", ")));
    }
    for step in chosen {
        eprintln!("== ci: {} (cargo {})", step.name, step.arguments.join(" "));
        let start = Instant::now();
        let status = Command::new(workspace::cargo())
            .args(step.arguments)
            .envs(step.environment.iter().copied())
            .current_dir(workspace::root())
            .status()
            .map_err(|error| format!("cargo could not be started: {error}"))?;
        if !status.success() {
            return Err(format!("step '{}' failed ({status})", step.name));
        }
        times.push((step.name, start.elapsed()));
    }
    Ok(times)
}
