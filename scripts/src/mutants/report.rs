//! The table, and a list of everything that survived.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};
use std::fs;
use std::path::Path;

use super::ledger::Ledger;
use super::source::Source;
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

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Killed { by, how } => write!(f, "{by}: {how}"),
            Self::Hung { by } => write!(f, "{by} hangs"),
            Self::Survived => write!(f, "SURVIVED"),
            Self::Unreached => write!(f, "SURVIVED, and nobody comes to its place"),
        }
    }
}

#[derive(Clone, Copy, Default)]
struct Count {
    refused: usize,
    simulator: usize,
    tests: usize,
    hung: usize,
    survived: usize,
    unreached: usize,
    unknown: usize,
}

impl Count {
    fn add(&mut self, fate: Option<&Fate>) {
        match fate {
            Some(Fate::Killed { by, .. }) if by == "simulator" => self.simulator += 1,
            Some(Fate::Killed { .. }) => self.tests += 1,
            Some(Fate::Hung { .. }) => self.hung += 1,
            Some(Fate::Survived) => self.survived += 1,
            Some(Fate::Unreached) => self.unreached += 1,
            None => self.unknown += 1,
        }
    }

    fn and(self, other: Self) -> Self {
        Self {
            refused: self.refused + other.refused,
            simulator: self.simulator + other.simulator,
            tests: self.tests + other.tests,
            hung: self.hung + other.hung,
            survived: self.survived + other.survived,
            unreached: self.unreached + other.unreached,
            unknown: self.unknown + other.unknown,
        }
    }

    fn row(self, name: &str) -> String {
        let Self { refused, simulator, tests, hung, survived, unreached, unknown } = self;
        let killed = simulator + tests + hung;
        let hunted = killed + survived + unreached;
        let score = if hunted == 0 { 100.0 } else { killed as f64 * 100.0 / hunted as f64 };
        format!(
            "| {name} | {} | {refused} | {unknown} | {tests} | {simulator} | {hung} | {survived} | {unreached} | {score:.1} % |",
            hunted + unknown + refused
        )
    }
}

const HEAD: &str =
    "| file | made | wrong types | not hunted | tests | simulator | hangs | survived | unreached | killed |
|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|
";

/// Prints the table; writes it, and each survivor, to `report.txt` and everything to `report.json`.
#[allow(clippy::print_stdout, reason = "it is what the job is for")]
pub fn write(home: &Path, source: &Source, chosen: &[Mutant], ledger: &Ledger) -> Result<(), String> {
    let ended: Vec<_> = chosen.iter().map(|mutant| (mutant, ledger.fate(mutant, source))).collect();
    let mut table = table(&ended, &source.refused);
    println!("{table}");
    table.push_str("\nsurvivors:\n");
    for (mutant, fate) in &ended {
        if let Some(fate @ (Fate::Survived | Fate::Unreached)) = fate {
            writeln!(table, "{mutant}: {fate}").expect("a string");
        }
    }
    for (name, text) in [("report.txt", table), ("report.json", json(&ended))] {
        let path = home.join(name);
        fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))?;
        eprintln!("mutants: {}", path.display());
    }
    Ok(())
}

fn table(ended: &[(&Mutant, Option<&Fate>)], refused: &BTreeSet<String>) -> String {
    let mut files = BTreeMap::<&str, Count>::new();
    for (mutant, fate) in ended {
        files.entry(mutant.file.as_str()).or_default().add(*fate);
    }
    for name in refused {
        if let Some(count) = name.split(' ').next().and_then(|file| files.get_mut(file)) {
            count.refused += 1;
        }
    }
    let mut table = String::from(HEAD);
    let mut sum = Count::default();
    for (file, count) in files {
        writeln!(table, "{}", count.row(file)).expect("a string");
        sum = sum.and(count);
    }
    writeln!(table, "{}", sum.row("all")).expect("a string");
    table
}

fn json(ended: &[(&Mutant, Option<&Fate>)]) -> String {
    let rows: Vec<_> = ended
        .iter()
        .map(|(mutant, fate)| {
            let (fate, killer, how) = match fate {
                Some(Fate::Killed { by, how }) => ("killed", by.as_str(), how.as_str()),
                Some(Fate::Hung { by }) => ("hung", by.as_str(), ""),
                Some(Fate::Survived) => ("survived", "", ""),
                Some(Fate::Unreached) => ("unreached", "", ""),
                None => ("not hunted", "", ""),
            };
            let Mutant { number, file, line, function, original, mutated, .. } = mutant;
            format!(
                "{{\"number\":{number},\"file\":{},\"line\":{line},\"function\":{},\"original\":{},\"mutated\":{},\
                 \"fate\":{},\"killer\":{},\"how\":{}}}",
                quoted(file),
                quoted(function),
                quoted(original),
                quoted(mutated),
                quoted(fate),
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
        let (a, b) = (mutant("a"), mutant("b"));
        let killed = |by: &str| Fate::Killed { by: by.into(), how: String::new() };
        let (simulator, tests, hung) = (killed("simulator"), killed("wal"), Fate::Hung { by: "wal".into() });
        let table = table(
            &[
                (&a, Some(&Fate::Survived)),
                (&a, Some(&simulator)),
                (&b, Some(&tests)),
                (&b, Some(&hung)),
                (&b, Some(&Fate::Unreached)),
                (&b, None),
            ],
            &["b f: 1 -> 2 #0".to_owned(), "c f: 1 -> 2 #0".to_owned()].into(),
        );
        assert!(table.contains("| a | 2 | 0 | 0 | 0 | 1 | 0 | 1 | 0 | 50.0 % |"), "{table}");
        assert!(table.ends_with("| all | 7 | 1 | 1 | 1 | 1 | 1 | 1 | 1 | 60.0 % |\n"), "{table}");
    }

    #[test]
    fn a_quoted_text_has_no_control_characters() {
        assert_eq!(quoted("a \"b\"\\\n"), r#""a \"b\"\\\u000a""#);
    }
}
