//! What became of each mutant, line by line: a hunt that was interrupted goes on where it was.
//!
//! A mutant that was killed stays so while its file is the same. A survivor is asked again when anything has changed, for
//! what has changed may be the test that it waited for.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::Write as _;
use std::path::Path;

use super::source::Source;
use super::{Fate, Mutant};

/// The file.
#[derive(Debug)]
pub struct Ledger {
    file: File,
    fates: HashMap<String, Fate>,
}

/// A text's fingerprint, the same in every run.
pub fn fingerprint(text: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

impl Ledger {
    /// Opens it and forgets what no longer holds.
    pub fn open(path: &Path, source: &Source) -> Result<Self, String> {
        let failed = |error| format!("{}: {error}", path.display());
        let text = fs::read_to_string(path).unwrap_or_default();
        let fates = source.mutants.iter().filter_map(|mutant| {
            let key = key(mutant, source);
            text.lines().rev().find_map(|line| fate(line, &key, source.whole)).map(|fate| (key, fate))
        });
        let fates = fates.collect();
        let file = OpenOptions::new().append(true).create(true).open(path).map_err(failed)?;
        Ok(Self { file, fates })
    }

    /// What is known of a mutant.
    pub fn fate(&self, mutant: &Mutant, source: &Source) -> Option<&Fate> {
        self.fates.get(&key(mutant, source))
    }

    /// Keeps what became of one.
    pub fn note(&mut self, mutant: &Mutant, source: &Source, fate: Fate) -> Result<(), String> {
        let key = key(mutant, source);
        let line = line(&key, source.whole, &fate);
        self.fates.insert(key, fate);
        self.file.write_all(line.as_bytes()).map_err(|error| format!("the ledger: {error}"))
    }
}

fn key(mutant: &Mutant, source: &Source) -> String {
    let file = source.files.get(&mutant.file).copied().unwrap_or_default();
    format!("{file:016x} {}", mutant.name())
}

fn line(key: &str, whole: u64, fate: &Fate) -> String {
    let (what, by, how) = match fate {
        Fate::Killed { by, how } => ("killed", by.as_str(), how.as_str()),
        Fate::Hung { by } => ("hung", by.as_str(), ""),
        Fate::Survived => ("survived", "", ""),
        Fate::Unreached => ("unreached", "", ""),
    };
    format!("{key}\t{whole:016x}\t{what}\t{by}\t{}\n", how.replace(['\t', '\n'], " "))
}

fn fate(line: &str, key: &str, whole: u64) -> Option<Fate> {
    let mut parts = line.strip_prefix(key)?.strip_prefix('\t')?.split('\t');
    let (under, what, by, how) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    match what {
        "killed" => Some(Fate::Killed { by: by.into(), how: how.into() }),
        "hung" => Some(Fate::Hung { by: by.into() }),
        _ if under != format!("{whole:016x}") => None,
        "survived" => Some(Fate::Survived),
        "unreached" => Some(Fate::Unreached),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::{fate, line};
    use crate::mutants::Fate;

    #[test]
    fn what_was_killed_stays_and_what_survived_is_asked_again_after_a_change() {
        let killed = Fate::Killed { by: "wal".into(), how: "a\ttest".into() };
        let kept = Fate::Killed { by: "wal".into(), how: "a test".into() };
        for (what, now, later) in [
            (killed, Some(kept.clone()), Some(kept)),
            (
                Fate::Hung { by: "wal".into() },
                Some(Fate::Hung { by: "wal".into() }),
                Some(Fate::Hung { by: "wal".into() }),
            ),
            (Fate::Survived, Some(Fate::Survived), None),
            (Fate::Unreached, Some(Fate::Unreached), None),
        ] {
            let line = line("1 a: b -> c #0", 7, &what);
            let read = |whole| fate(line.trim_end_matches('\n'), "1 a: b -> c #0", whole);
            assert_eq!((read(7), read(8)), (now, later), "{what:?}");
        }
    }

    #[test]
    fn a_line_that_was_cut_or_is_anothers_says_nothing() {
        let line = line("1 a: b -> c #10", 7, &Fate::Survived);
        assert_eq!(fate(&line, "1 a: b -> c #1", 7), None);
        assert_eq!(fate("1 a: b -> c #10\t0000000000000007\tkil", "1 a: b -> c #10", 7), None);
    }
}
