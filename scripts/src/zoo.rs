//! The bug zoo: every pitfall put back in, one at a time, and hunted by the simulator. A judge that lets one live has a
//! hole.
//!
//! One build serves all: under `--cfg zoo` a bug is chosen while running. The build keeps its own target directory, and
//! no other program is ever built with it.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::workspace;

/// A bug that is put in on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mutant {
    /// Its name in the source: `mutant!("name")`.
    pub name: &'static str,
    /// What it does wrong.
    pub what: &'static str,
    /// Who must see it.
    pub judge: Judge,
}

/// Who must see a mutant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judge {
    /// The simulator, from its seeds alone.
    Simulator,
    /// A unit test, a script or a job, because the simulator cannot show it: which, and why.
    Other(&'static str),
}

/// What a hunt came to.
#[derive(Clone, Debug)]
pub struct Hunt {
    /// Whom it was for.
    pub mutant: Mutant,
    /// The seed and the judge's words, if it was seen.
    pub seen: Option<Sighting>,
    /// How long it took.
    pub took: Duration,
}

/// A mutant that was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sighting {
    /// The seed in which it shows.
    pub seed: u64,
    /// The judge.
    pub oracle: String,
}

/// What to hunt.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Only these; all if empty.
    pub only: Vec<String>,
    /// How long each is hunted at most.
    pub patience: Duration,
    /// Hunts at the same time.
    pub jobs: usize,
}

/// The hunts, in the order of the table.
#[derive(Clone, Debug, Default)]
pub struct Zoo(pub Vec<Hunt>);

impl Zoo {
    /// The mutants that went unseen.
    pub fn survivors(&self) -> Vec<&'static str> {
        self.0.iter().filter(|hunt| hunt.seen.is_none()).map(|hunt| hunt.mutant.name).collect()
    }
}

impl fmt::Display for Zoo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<34} {:>7}  {:<26} {:>7}  what it does wrong", "mutant", "seed", "oracle", "seconds")?;
        for Hunt { mutant, seen, took } in &self.0 {
            let (seed, oracle) = seen
                .as_ref()
                .map_or(("-".to_owned(), "NOT SEEN"), |seen| (seen.seed.to_string(), seen.oracle.as_str()));
            let seconds = took.as_secs_f64();
            writeln!(f, "{:<34} {seed:>7}  {oracle:<26} {seconds:>7.1}  {}", mutant.name, mutant.what)?;
        }
        let killed = self.0.len() - self.survivors().len();
        write!(f, "{killed} of {} mutants killed", self.0.len())
    }
}

/// Build the zoo and hunt.
pub fn run(plan: &Plan) -> Result<Zoo, String> {
    let chosen: Vec<Mutant> = MUTANTS
        .iter()
        .copied()
        .filter(|mutant| mutant.judge == Judge::Simulator)
        .filter(|mutant| plan.only.is_empty() || plan.only.iter().any(|name| name == mutant.name))
        .collect();
    if chosen.is_empty() {
        return Err("no mutant of this name is hunted by the simulator".to_owned());
    }
    let program = build()?;
    let (next, hunts) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..plan.jobs.max(1) {
            scope.spawn(|| {
                while let Some(mutant) = chosen.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let hunt = hunt(&program, *mutant, plan.patience);
                    let mut hunts = hunts.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                    if let Ok(hunt) = &hunt {
                        let end = hunt.seen.as_ref().map_or("NOT SEEN", |seen| &seen.oracle);
                        eprintln!("zoo: {} {end} after {:.1} s", mutant.name, hunt.took.as_secs_f64());
                    }
                    hunts.push(hunt);
                }
            });
        }
    });
    let hunts = hunts.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut hunts = hunts.into_iter().collect::<Result<Vec<_>, _>>()?;
    hunts.sort_by_key(|hunt| MUTANTS.iter().position(|mutant| *mutant == hunt.mutant));
    Ok(Zoo(hunts))
}

fn build() -> Result<PathBuf, String> {
    let target = workspace::root().join("target/zoo");
    // The flag reaches every crate of this build, and cargo keeps them apart from all others by the directory.
    let status = Command::new(workspace::cargo())
        .args(["build", "--release", "--locked", "--no-default-features", "--features", "sim"])
        .args(["--bin", "d-engine-sim", "--package", "d-engine"])
        .env("CARGO_TARGET_DIR", &target)
        .env("RUSTFLAGS", "--cfg zoo")
        .current_dir(workspace::root())
        .status()
        .map_err(|error| format!("cargo could not be started: {error}"))?;
    if !status.success() {
        return Err("the zoo could not be built".to_owned());
    }
    Ok(target.join("release/d-engine-sim"))
}

fn hunt(program: &Path, mutant: Mutant, patience: Duration) -> Result<Hunt, String> {
    let begun = Instant::now();
    let output = Command::new(program)
        .args(["--mutant", mutant.name, "--seeds", "18446744073709551615", "--quiet"])
        .args(["--seconds", &patience.as_secs().to_string()])
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{}: {error}", program.display()))?;
    let said = String::from_utf8_lossy(&output.stdout);
    let seen = said.lines().find_map(sighting);
    Ok(Hunt { mutant, seen, took: begun.elapsed() })
}

/// Reads `seed 7 breaks oracle: what`.
fn sighting(line: &str) -> Option<Sighting> {
    let (seed, rest) = line.strip_prefix("seed ")?.split_once(" breaks ")?;
    let (oracle, _) = rest.split_once(": ")?;
    Some(Sighting { seed: seed.parse().ok()?, oracle: oracle.to_owned() })
}

/// The names of all mutants in the engine's source.
pub fn in_source() -> Result<BTreeSet<String>, String> {
    let mut found = BTreeSet::new();
    let mut directories = vec![workspace::root().join("src"), workspace::root().join("wal/src")];
    while let Some(directory) = directories.pop() {
        let entries = fs::read_dir(&directory).map_err(|error| format!("{}: {error}", directory.display()))?;
        for entry in entries {
            let path = entry.map_err(|error| error.to_string())?.path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
                for line in text.lines().filter(|line| !line.trim_start().starts_with("//")) {
                    for piece in line.split("mutant!(\"").skip(1) {
                        found.extend(piece.split_once('"').map(|(name, _)| name.to_owned()));
                    }
                }
            }
        }
    }
    Ok(found)
}

const fn hunted(name: &'static str, what: &'static str) -> Mutant {
    Mutant { name, what, judge: Judge::Simulator }
}

const fn seen_by(name: &'static str, what: &'static str, where_: &'static str) -> Mutant {
    Mutant { name, what, judge: Judge::Other(where_) }
}

MUTANT_TABLE

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mutant_of_the_source_is_in_the_zoo_once_and_none_is_invented() {
        let listed: Vec<_> = MUTANTS.iter().map(|mutant| mutant.name.to_owned()).collect();
        let unique: BTreeSet<_> = listed.iter().cloned().collect();
        assert_eq!(listed.len(), unique.len(), "a mutant is listed once");
        assert_eq!(unique, in_source().unwrap());
    }

    #[test]
    fn the_simulators_words_are_understood() {
        let line = "seed 12 breaks monotony: node 3 went back: to term 4 at 1.000000";
        assert_eq!(sighting(line), Some(Sighting { seed: 12, oracle: "monotony".to_owned() }));
        assert_eq!(sighting("3 runs, 4 events"), None);
    }
}
