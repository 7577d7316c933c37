//! The table, and a list of everything that survived.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};
use std::fs;
use std::path::Path;

use super::ledger::Ledger;
use super::source::Source;
use super::verdicts::{Verdict, Verdicts};
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
    equivalent: usize,
    harmless: usize,
    survived: usize,
    unreached: usize,
    unknown: usize,
}

impl Count {
    /// What was killed was no survivor, whatever was said of it.
    fn add(&mut self, fate: Option<&Fate>, verdict: Option<Verdict>) {
        match fate {
            Some(Fate::Killed { by, .. }) if by == "simulator" => self.simulator += 1,
            Some(Fate::Killed { .. }) => self.tests += 1,
            Some(Fate::Hung { .. }) => self.hung += 1,
            _ if verdict == Some(Verdict::Equivalent) => self.equivalent += 1,
            _ if verdict == Some(Verdict::Harmless) => self.harmless += 1,
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
            equivalent: self.equivalent + other.equivalent,
            harmless: self.harmless + other.harmless,
            survived: self.survived + other.survived,
            unreached: self.unreached + other.unreached,
            unknown: self.unknown + other.unknown,
        }
    }

    fn row(self, name: &str) -> String {
        let Self { refused, simulator, tests, hung, equivalent, harmless, survived, unreached, unknown } =
            self;
        let killed = simulator + tests + hung;
        let judged = equivalent + harmless;
        // One that does the same cannot be seen.
        let hunted = killed + harmless + survived + unreached;
        let score = if hunted == 0 { 100.0 } else { killed as f64 * 100.0 / hunted as f64 };
        format!(
            "| `{name}` | {} | {refused} | {tests} | {simulator} | {hung} | {equivalent} | {harmless} | {} | {unknown} | {score:.1} % |",
            killed + judged + survived + unreached + unknown + refused,
            survived + unreached,
        )
    }
}

const HEAD: &str =
    "| file | made | wrong types | tests | simulator | hangs | equivalent | harmless | not judged | not hunted | killed |
|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|
";

/// Prints the table; writes it, and each survivor, to `report.txt` and everything to `report.json`.
#[allow(clippy::print_stdout, reason = "it is what the job is for")]
pub fn write(
    home: &Path,
    source: &Source,
    chosen: &[Mutant],
    ledger: &Ledger,
    verdicts: &Verdicts,
) -> Result<(), String> {
    let ended: Vec<_> =
        chosen.iter().map(|mutant| (mutant, ledger.fate(mutant, source), verdicts.of(mutant))).collect();
    let mut table = table(&ended, &source.refused);
    println!("{table}");
    table.push_str("\nsurvivors that nobody has judged, and verdicts to be looked at again:\n");
    for (mutant, fate, verdict) in &ended {
        match (fate, verdict) {
            (Some(fate @ (Fate::Survived | Fate::Unreached)), None) => {
                writeln!(table, "{mutant}: {fate}").expect("a string");
            }
            (Some(fate @ (Fate::Killed { .. } | Fate::Hung { .. })), Some(_)) => {
                writeln!(table, "{mutant}: {fate}, and was judged").expect("a string");
            }
            _ => {}
        }
    }
    for name in verdicts.gone(&source.mutants) {
        writeln!(table, "{name}: judged, and there is none of that name").expect("a string");
    }
    for (name, text) in [("report.txt", table), ("report.json", json(&ended))] {
        let path = home.join(name);
        fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))?;
        eprintln!("mutants: {}", path.display());
    }
    Ok(())
}

/// A mutant, what became of it, and what was said of it.
type Ended<'a> = (&'a Mutant, Option<&'a Fate>, Option<Verdict>);

fn table(ended: &[Ended<'_>], refused: &BTreeSet<String>) -> String {
    let mut files = BTreeMap::<&str, Count>::new();
    for (mutant, fate, verdict) in ended {
        files.entry(mutant.file.as_str()).or_default().add(*fate, *verdict);
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

fn json(ended: &[Ended<'_>]) -> String {
    let rows: Vec<_> = ended
        .iter()
        .map(|(mutant, fate, _)| {
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
    use super::{Verdict, quoted, table};
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
                (&a, Some(&Fate::Survived), None),
                (&a, Some(&Fate::Survived), Some(Verdict::Equivalent)),
                (&a, Some(&simulator), Some(Verdict::Harmless)),
                (&b, Some(&tests), None),
                (&b, Some(&hung), None),
                (&b, Some(&Fate::Unreached), None),
                (&b, None, Some(Verdict::Harmless)),
                (&b, None, None),
            ],
            &["b f: 1 -> 2 #0".to_owned(), "c f: 1 -> 2 #0".to_owned()].into(),
        );
        assert!(table.contains("| `a` | 3 | 0 | 0 | 1 | 0 | 1 | 0 | 1 | 0 | 50.0 % |"), "{table}");
        assert!(table.ends_with("| `all` | 9 | 1 | 1 | 1 | 1 | 1 | 1 | 2 | 1 | 50.0 % |\n"), "{table}");
    }

    #[test]
    fn a_quoted_text_has_no_control_characters() {
        assert_eq!(quoted("a \"b\"\\\n"), r#""a \"b\"\\\u000a""#);
    }
}
