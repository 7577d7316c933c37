//! The table, and a list of everything that survived.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::fs;
use std::path::Path;

use super::{Fate, Mutant};

impl fmt::Display for Mutant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { number, file, line, function, original, mutated, .. } = self;
        write!(f, "{number} {file}:{line} {function}: {} -> {}", short(original), short(mutated))
    }
}

fn short(text: &str) -> String {
    let mut short: String = text.chars().take(90).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

#[derive(Clone, Copy, Default)]
struct Count {
    all: usize,
    simulator: usize,
    tests: usize,
}

impl Count {
    fn add(&mut self, fate: &Fate) {
        self.all += 1;
        match fate {
            Fate::Simulator(_) => self.simulator += 1,
            Fate::Tests(_) => self.tests += 1,
            Fate::Survived => {}
        }
    }

    fn row(self, name: &str) -> String {
        let Self { all, simulator, tests } = self;
        let killed = simulator + tests;
        let score = if all == 0 { 100.0 } else { killed as f64 * 100.0 / all as f64 };
        format!("| {name} | {all} | {simulator} | {tests} | {} | {score:.1} % |", all - killed)
    }
}

/// Prints the table; writes it, and each survivor, to `report.txt` and everything to `report.json`.
#[allow(clippy::print_stdout, reason = "it is what the job is for")]
pub fn write(home: &Path, ended: &[(Mutant, Fate)]) -> Result<(), String> {
    let mut table = table(ended);
    println!("{table}");
    table.push_str("\nsurvivors:\n");
    for (mutant, _) in ended.iter().filter(|(_, fate)| *fate == Fate::Survived) {
        writeln!(table, "{mutant}").expect("a string");
    }
    for (name, text) in [("report.txt", table), ("report.json", json(ended))] {
        let path = home.join(name);
        fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))?;
        eprintln!("mutants: {}", path.display());
    }
    Ok(())
}

fn table(ended: &[(Mutant, Fate)]) -> String {
    let (mut files, mut sum) = (BTreeMap::<_, Count>::new(), Count::default());
    for (mutant, fate) in ended {
        files.entry(mutant.file.as_str()).or_default().add(fate);
        sum.add(fate);
    }
    let mut table = String::from("| file | mutants | by the simulator | by tests | survivors | killed |\n");
    table.push_str("|---|--:|--:|--:|--:|--:|\n");
    for (file, count) in files {
        writeln!(table, "{}", count.row(file)).expect("a string");
    }
    writeln!(table, "{}", sum.row("all")).expect("a string");
    table
}

fn json(ended: &[(Mutant, Fate)]) -> String {
    let rows: Vec<_> = ended
        .iter()
        .map(|(mutant, fate)| {
            let (killer, how) = match fate {
                Fate::Simulator(how) => ("simulator", how.as_str()),
                Fate::Tests(how) => ("tests", how.as_str()),
                Fate::Survived => ("", ""),
            };
            let Mutant { number, file, line, function, original, mutated, .. } = mutant;
            format!(
                "{{\"number\":{number},\"file\":{},\"line\":{line},\"function\":{},\"original\":{},\"mutated\":{},\
                 \"killer\":{},\"how\":{}}}",
                quoted(file),
                quoted(function),
                quoted(original),
                quoted(mutated),
                quoted(killer),
                quoted(how)
            )
        })
        .collect();
    format!("[\n{}\n]\n", rows.join(",\n"))
}

fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for letter in text.chars() {
        match letter {
            '"' | '\\' => quoted.extend(['\\', letter]),
            control if control.is_control() => {
                write!(quoted, "\\u{:04x}", u32::from(control)).expect("a string");
            }
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}

/// Prints what could be hunted.
#[allow(clippy::print_stdout, reason = "it is what the job is for")]
pub fn list(mutants: &[Mutant]) {
    for mutant in mutants {
        println!("{mutant}");
    }
}

#[cfg(test)]
mod tests {
    use super::{quoted, table};
    use crate::mutants::{Fate, Mutant};

    #[test]
    fn the_table_sums_what_was_killed() {
        let mutant = |file: &str| Mutant {
            number: 1,
            file: file.into(),
            line: 1,
            function: String::new(),
            original: String::new(),
            mutated: String::new(),
            twin: 0,
        };
        let table = table(&[
            (mutant("a"), Fate::Survived),
            (mutant("a"), Fate::Simulator(String::new())),
            (mutant("b"), Fate::Tests(String::new())),
            (mutant("b"), Fate::Tests(String::new())),
        ]);
        assert!(table.contains("| a | 2 | 1 | 0 | 1 | 50.0 % |"), "{table}");
        assert!(table.ends_with("| all | 4 | 1 | 2 | 1 | 75.0 % |\n"), "{table}");
    }

    #[test]
    fn a_quoted_text_has_no_control_characters() {
        assert_eq!(quoted("a \"b\"\\\n"), r#""a \"b\"\\\u000a""#);
    }
}
