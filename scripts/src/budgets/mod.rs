//! Instructions per operation, counted under callgrind and held against `benches/budgets.toml`.
//!
//! A count of instructions does not see the machine's other work, so that a change which costs a few in a hundred is seen
//! on the day it is made. What is counted are the cases of `benches/budgets`, in the release profile as `Cargo.toml` has it.
//!
//! Valgrind is driven directly. A framework on top of it (`gungraun`) wants a runner of its own installed in the very
//! version of its library, keeps its limits in the source, and cannot tell a leader's share from a follower's within one
//! run: here one run of callgrind gives both, from the inclusive costs of two functions.

mod callgrind;
mod file;

use crate::workspace;
pub use file::{Budget, Budgets};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Where the budgets stand, from the root.
pub const FILE: &str = "benches/budgets.toml";
const HOW_TO_RAISE: &str = "cargo run --release -p scripts -- budgets --update";

/// What there is to count.
struct Figure {
    name: String,
    case: String,
    operations: u64,
    functions: Vec<String>,
}

/// A figure and what became of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Judged {
    /// What was counted.
    pub name: String,
    /// Instructions per operation.
    pub instructions: f64,
    /// What it may be.
    pub budget: Option<Budget>,
    /// What that means.
    pub verdict: Verdict,
}

/// Where a count stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Near its budget.
    Within,
    /// So far below it that a later loss would hide there.
    Below,
    /// More than allowed.
    Over,
    /// There is no budget for it.
    New,
}

impl Verdict {
    /// A budget is left on both sides by its tolerance.
    #[must_use]
    pub fn of(instructions: f64, budget: Option<&Budget>) -> Self {
        let Some(budget) = budget else { return Self::New };
        let (part, allowed) = (budget.tolerance / 100.0, budget.instructions as f64);
        match instructions {
            counted if counted > allowed * (1.0 + part) => Self::Over,
            counted if counted < allowed * (1.0 - part) => Self::Below,
            _ => Self::Within,
        }
    }
}

/// What the job is asked to do.
pub struct Plan {
    /// Write what is counted as the new budgets.
    pub update: bool,
    /// Only figures whose names have this in them.
    pub only: Option<String>,
}

/// Counts, prints a table, and compares.
///
/// # Errors
/// What is over its budget, and how it is raised on purpose; or why nothing could be counted.
pub fn run(plan: &Plan) -> Result<(), String> {
    if cfg!(not(target_os = "linux")) {
        return Err("callgrind counts on Linux".into());
    }
    let overridden = overridden_profile();
    if plan.update && !overridden.is_empty() {
        return Err(format!(
            "budgets are of the release profile as it stands; unset {}",
            overridden.join(", ")
        ));
    }
    let path = workspace::root().join(FILE);
    let mut budgets = Budgets::read(&path)?;
    let program = build()?;
    let mut figures = figures(&program)?;
    let known: Vec<String> = figures.iter().map(|figure| figure.name.clone()).collect();
    figures.retain(|figure| plan.only.as_ref().is_none_or(|part| figure.name.contains(part)));
    let judged = count(&program, &figures, &budgets)?;
    let compiler = compiler()?;
    eprintln!("{}", table(&judged));
    if plan.update {
        for one in &judged {
            budgets.set(&one.name, one.instructions);
        }
        budgets.keep(&known);
        budgets.compiler = compiler;
        return budgets.write(&path);
    }
    if !overridden.is_empty() {
        eprintln!("budgets: not judged, since {} makes another profile", overridden.join(", "));
        return Ok(());
    }
    conclude(&judged, &budgets, &known, &compiler)
}

/// What stands in the environment that makes another program than `Cargo.toml` says.
fn overridden_profile() -> Vec<String> {
    let changes = |name: &str| name.starts_with("CARGO_PROFILE_RELEASE_") || name.ends_with("RUSTFLAGS");
    std::env::vars_os().filter_map(|(name, _)| name.into_string().ok()).filter(|name| changes(name)).collect()
}

fn conclude(judged: &[Judged], budgets: &Budgets, known: &[String], compiler: &str) -> Result<(), String> {
    let mut wrong: Vec<String> = judged.iter().filter_map(complaint).collect();
    for name in budgets.names().filter(|name| !known.iter().any(|known| known == name)) {
        wrong.push(format!("'{name}' has a budget and is not counted any more"));
    }
    if wrong.is_empty() {
        return Ok(());
    }
    wrong.push(format!("if that is meant: `{HOW_TO_RAISE}`, commit {FILE}, and say why in the message"));
    if compiler != budgets.compiler {
        wrong.push(format!("note: counted with {compiler}, the budgets are of {}", budgets.compiler));
    }
    Err(wrong.join("\n  "))
}

fn complaint(one: &Judged) -> Option<String> {
    let Judged { name, instructions, budget, verdict } = one;
    match (verdict, budget) {
        (Verdict::Over, Some(budget)) => Some(format!(
            "'{name}' takes {instructions:.0} instructions, {} are budgeted ({:+.1} %, {} % is allowed)",
            budget.instructions,
            difference(*instructions, budget),
            budget.tolerance
        )),
        (Verdict::New, _) => Some(format!("'{name}' takes {instructions:.0} instructions and has no budget")),
        _ => None,
    }
}

fn difference(instructions: f64, budget: &Budget) -> f64 {
    (instructions / budget.instructions as f64 - 1.0) * 100.0
}

fn table(judged: &[Judged]) -> String {
    let mut lines =
        vec![format!("{:<36} {:>12} {:>10} {:>8}", "instructions per operation", "counted", "budget", "")];
    for Judged { name, instructions, budget, verdict } in judged {
        let (budgeted, apart) = budget.as_ref().map_or((String::new(), String::new()), |budget| {
            (budget.instructions.to_string(), format!("{:+.1} %", difference(*instructions, budget)))
        });
        let word = match verdict {
            Verdict::Within => "",
            Verdict::Below => "  below: lower the budget",
            Verdict::Over => "  OVER",
            Verdict::New => "  no budget",
        };
        lines.push(format!("{name:<36} {instructions:>12.1} {budgeted:>10} {apart:>8}{word}"));
    }
    if judged.iter().any(|one| one.verdict == Verdict::Below) {
        lines.push(format!("lower budgets that are far above what is counted, with `{HOW_TO_RAISE}`"));
    }
    lines.join("\n")
}

/// Builds the program of the cases and says where it is.
fn build() -> Result<PathBuf, String> {
    let output = Command::new(workspace::cargo())
        .args(["build", "--release", "--locked", "-p", "d-engine", "--bench", "budgets"])
        .args(["--message-format", "json-render-diagnostics"])
        .current_dir(workspace::root())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| format!("cargo could not be started: {error}"))?;
    if !output.status.success() {
        return Err(format!("the cases could not be built ({})", output.status));
    }
    let messages = String::from_utf8_lossy(&output.stdout);
    let mut executables = messages.lines().filter_map(|line| line.split_once("\"executable\":\""));
    let path = executables.next_back().and_then(|(_, rest)| rest.split('"').next());
    path.map(PathBuf::from).ok_or_else(|| "cargo names no program".into())
}

fn compiler() -> Result<String, String> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc).arg("--version").output().map_err(|error| format!("rustc: {error}"))?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn figures(program: &Path) -> Result<Vec<Figure>, String> {
    let output =
        Command::new(program).arg("--list").output().map_err(|error| format!("the cases: {error}"))?;
    let list = String::from_utf8_lossy(&output.stdout);
    let figures = list.lines().map(|line| {
        let mut parts = line.split('\t').map(str::to_owned);
        let (name, case) = (parts.next()?, parts.next()?);
        let operations = parts.next()?.parse().ok()?;
        Some(Figure { name, case, operations, functions: parts.collect() })
    });
    figures.collect::<Option<_>>().ok_or_else(|| format!("not a list of figures:\n{list}"))
}

/// One run of callgrind for each case that a figure needs.
fn count(program: &Path, figures: &[Figure], budgets: &Budgets) -> Result<Vec<Judged>, String> {
    let mut profiles = BTreeMap::new();
    let mut judged = Vec::new();
    for Figure { name, case, operations, functions } in figures {
        let profile = match profiles.entry(case) {
            std::collections::btree_map::Entry::Occupied(known) => known.into_mut(),
            std::collections::btree_map::Entry::Vacant(new) => new.insert(callgrind::run(program, case)?),
        };
        let mut sum = 0;
        for function in functions {
            sum += callgrind::inclusive(profile, function)
                .ok_or_else(|| format!("'{name}': callgrind has not seen {function}"))?;
        }
        let (instructions, budget) = (sum as f64 / *operations as f64, budgets.of(name).cloned());
        let verdict = Verdict::of(instructions, budget.as_ref());
        judged.push(Judged { name: name.clone(), instructions, budget, verdict });
    }
    Ok(judged)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(instructions: u64) -> Budget {
        Budget { instructions, tolerance: 2.0 }
    }

    fn judged(name: &str, instructions: f64, budget: Option<Budget>) -> Judged {
        let verdict = Verdict::of(instructions, budget.as_ref());
        Judged { name: name.into(), instructions, budget, verdict }
    }

    #[test]
    fn a_count_is_judged_by_its_tolerance() {
        let verdict = |counted| Verdict::of(counted, Some(&budget(1000)));
        assert_eq!(verdict(1020.0), Verdict::Within);
        assert_eq!(verdict(1020.1), Verdict::Over);
        assert_eq!(verdict(980.0), Verdict::Within);
        assert_eq!(verdict(979.9), Verdict::Below);
        assert_eq!(Verdict::of(1.0, None), Verdict::New);
    }

    #[test]
    fn what_is_over_its_budget_fails_and_says_what_to_do() {
        let mut budgets = Budgets::of_compiler("rustc 1");
        budgets.set("apply a put", 1000.0);
        let known = ["apply a put".to_owned()];
        let counted = |instructions| [judged("apply a put", instructions, Some(budget(1000)))];
        assert_eq!(conclude(&counted(1010.0), &budgets, &known, "rustc 1"), Ok(()));
        assert_eq!(
            conclude(&counted(500.0), &budgets, &known, "rustc 1"),
            Ok(()),
            "it is said, and no failure"
        );
        let message = conclude(&counted(1100.0), &budgets, &known, "rustc 2").unwrap_err();
        for part in ["'apply a put' takes 1100", "1000 are budgeted (+10.0 %", HOW_TO_RAISE, "rustc 2"] {
            assert!(message.contains(part), "{message}");
        }
        assert!(table(&counted(500.0)).contains("lower the budget"));
    }

    #[test]
    fn what_has_no_budget_or_no_count_fails() {
        let mut budgets = Budgets::default();
        let fresh = [judged("new", 5.0, None)];
        assert!(conclude(&fresh, &budgets, &["new".into()], "").unwrap_err().contains("no budget"));
        budgets.set("gone", 5.0);
        assert!(conclude(&[], &budgets, &[], "").unwrap_err().contains("'gone'"));
    }

    #[test]
    fn the_file_of_this_repository_is_read() {
        let budgets = Budgets::read(&workspace::root().join(FILE)).unwrap();
        assert!(budgets.names().count() > 10);
    }
}
