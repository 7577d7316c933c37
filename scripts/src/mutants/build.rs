//! Builds the copy once with all mutants in it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::Mutant;
use super::source::{self, Source};
use crate::workspace;

/// A program that may kill a mutant.
#[derive(Debug, Clone)]
pub struct Judge {
    /// What it is called in the report.
    pub name: String,
    /// Where it is.
    pub program: PathBuf,
    /// Where it expects to be started.
    pub directory: PathBuf,
}

/// What came of building.
#[derive(Debug)]
pub struct Built {
    /// What they are built from.
    pub source: Source,
    /// The simulator and the tests.
    pub judges: Vec<Judge>,
}

impl Judge {
    /// It is no program of tests.
    pub fn is_simulator(&self) -> bool {
        self.name == SIMULATOR
    }
}

const SIMULATOR: &str = "simulator";
/// The crate that knows nothing of the others, and is built in a tenth of the time.
const ALONE: &str = "wal";

/// Not every mutant has the right types. Those that the compiler refuses are left out and the rest is built again; it shows
/// at most all errors of one crate and one phase at a time.
const ATTEMPTS: usize = 12;
/// Integration tests that need no disk.
const TESTS: &[&str] = &["thesis", "course", "cluster"];
/// As `cargo test` judges: with the assertions of every step and without silent overflows.
const PROFILE: &[&str] = &[
    "profile.mutants.inherits='release'",
    "profile.mutants.lto='off'",
    "profile.mutants.codegen-units=16",
    "profile.mutants.opt-level=2",
    "profile.mutants.debug=false",
    "profile.mutants.debug-assertions=true",
    "profile.mutants.overflow-checks=true",
];

/// What the compiler refused the last time, which saves the attempts to find it again.
const REFUSED: &str = "refused.txt";

fn refused(home: &Path) -> BTreeSet<String> {
    fs::read_to_string(home.join(REFUSED)).unwrap_or_default().lines().map(str::to_owned).collect()
}

/// Copies and rewrites below `home`.
pub fn rewrite(home: &Path) -> Result<Source, String> {
    source::write(&home.join("source"), &refused(home))
}

/// Copies, rewrites and builds below `home`: all judges, or those that are named.
pub fn build(home: &Path, by: &[String]) -> Result<Built, String> {
    let (copy, list) = (home.join("source"), home.join(REFUSED));
    let mut refused = refused(home);
    for _ in 0..ATTEMPTS {
        let source = source::write(&copy, &refused)?;
        let output = cargo(home, &copy, &["check", "--lib"], by)?;
        if output.succeeded {
            eprintln!("mutants: {} have wrong types and are left out", refused.len());
            return built(source, home, &copy, by);
        }
        let blamed = blamed(&copy, &output.text);
        let is_blamed = |mutant: &&Mutant| blamed.contains(&mutant.number);
        let names: Vec<_> = source.mutants.iter().filter(is_blamed).map(Mutant::name).collect();
        if names.is_empty() {
            return Err(format!("the mutants cannot be built:\n{}", output.text));
        }
        eprintln!("mutants: {} more have wrong types", names.len());
        refused.extend(names);
        fs::write(&list, refused.iter().map(|name| format!("{name}\n")).collect::<String>())
            .map_err(|error| format!("{}: {error}", list.display()))?;
    }
    Err("the mutants cannot be built: too many attempts".into())
}

struct Output {
    succeeded: bool,
    text: String,
}

fn cargo(home: &Path, copy: &Path, what: &[&str], by: &[String]) -> Result<Output, String> {
    let mut command = Command::new(workspace::cargo());
    command.args(what).args(["--locked", "--message-format", "short", "--profile", "mutants"]);
    if by == [ALONE] {
        command.args(["-p", "wal"]);
    } else {
        command.args(["-p", "wal", "-p", "d-engine", "--no-default-features", "--features", "d-engine/sim"]);
    }
    for setting in PROFILE {
        command.args(["--config", setting]);
    }
    let output = command
        .env("CARGO_TARGET_DIR", home.join("build"))
        .env_remove("CARGO_BUILD_BUILD_DIR")
        .env("RUSTFLAGS", "--cfg zoo --cap-lints allow")
        .current_dir(copy)
        .output()
        .map_err(|error| format!("cargo could not be started: {error}"))?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    Ok(Output { succeeded: output.status.success(), text })
}

fn is_there(copy: &Path, test: &str) -> bool {
    copy.join("tests").join(test).join("main.rs").is_file()
        || copy.join("tests").join(format!("{test}.rs")).is_file()
}

/// The mutants at the places of the compiler's errors: those on the line, else the nearest one above.
fn blamed(copy: &Path, text: &str) -> BTreeSet<u32> {
    let mut blamed = BTreeSet::new();
    for line in text.lines().filter(|line| line.contains(": error")) {
        let mut parts = line.split(':');
        let (Some(file), Some(Ok(number))) = (parts.next(), parts.next().map(str::parse::<usize>)) else {
            continue;
        };
        let Ok(source) = fs::read_to_string(copy.join(file)) else { continue };
        let lines: Vec<_> = source.lines().take(number).collect();
        if let Some(found) = lines.iter().rev().map(|line| switches(line)).find(|found| !found.is_empty()) {
            blamed.extend(found);
        }
    }
    blamed
}

fn switches(line: &str) -> Vec<u32> {
    let after = line.split("mutant::at(").skip(1);
    after.filter_map(|rest| rest.split(')').next()?.parse().ok()).collect()
}

/// Builds the programs and finds them in what cargo says: `Executable tests/course/main.rs (path)`.
fn built(source: Source, home: &Path, copy: &Path, by: &[String]) -> Result<Built, String> {
    let is_asked = |name: &str| by.is_empty() || by.iter().any(|asked| asked == name);
    let mut what = vec!["test", "--no-run", "--lib"];
    for test in TESTS.iter().filter(|test| is_asked(test) && is_there(copy, test)) {
        what.extend(["--test", test]);
    }
    let Output { succeeded, text } = cargo(home, copy, &what, by)?;
    if !succeeded {
        return Err(format!("the tests cannot be built:\n{text}"));
    }
    let paths: Vec<PathBuf> = text
        .lines()
        .filter(|line| line.trim_start().starts_with("Executable "))
        .filter_map(|line| Some(line.rsplit_once('(')?.1.strip_suffix(')')?.into()))
        .map(|path: PathBuf| if path.is_absolute() { path } else { copy.join(path) })
        .collect();
    let mut judges = Vec::new();
    if is_asked(SIMULATOR) {
        let program = home.join("build/mutants/d-engine-sim");
        if !program.is_file() {
            return Err(format!("cargo built no {}", program.display()));
        }
        judges.push(Judge { name: SIMULATOR.into(), program, directory: copy.to_path_buf() });
    }
    let names =
        [ALONE, "d_engine"].into_iter().chain(TESTS.iter().copied().filter(|test| is_there(copy, test)));
    for name in names.filter(|name| is_asked(name)) {
        let is_it = |path: &&PathBuf| {
            let file = path.file_name().unwrap_or_default().to_string_lossy();
            file.rsplit_once('-').is_some_and(|(stem, _)| stem == name)
        };
        let program =
            paths.iter().find(is_it).ok_or_else(|| format!("cargo built no test {name}:\n{text}"))?;
        let directory = if name == ALONE { copy.join(ALONE) } else { copy.to_path_buf() };
        judges.push(Judge { name: name.into(), program: program.clone(), directory });
    }
    Ok(Built { source, judges })
}

#[cfg(test)]
mod tests {
    use super::switches;

    #[test]
    fn the_switches_of_a_line_are_found() {
        assert_eq!(switches("if crate::mutant::at(17) { wal::mutant::at(3) }"), [17, 3]);
        assert!(switches("if a < b {").is_empty());
    }
}
