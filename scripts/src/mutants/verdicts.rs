//! What people have said of survivors: a change that nobody can see, or one that breaks no promise.
//!
//! `judged.txt` has groups: a line with a verdict and its reason, then the mutants' names, each behind two spaces. A name is the
//! file, the function and what was changed, so a verdict goes when its place does.

use std::collections::BTreeMap;

use super::Mutant;

/// What a survivor was found to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The program does the same.
    Equivalent,
    /// It does something else, and no promise is about it.
    Harmless,
}

/// The verdicts by name.
#[derive(Debug)]
pub struct Verdicts {
    by_name: BTreeMap<String, Verdict>,
}

impl Verdicts {
    /// Those of the sources that this program was built from.
    pub fn read() -> Result<Self, String> {
        Self::parse(include_str!("judged.txt"))
    }

    fn parse(text: &str) -> Result<Self, String> {
        let mut by_name = BTreeMap::new();
        let mut verdict = None;
        for (at, line) in text.lines().enumerate() {
            let wrong = |what: &str| format!("judged.txt, line {}: {what}", at + 1);
            if let Some(name) = line.strip_prefix("  ") {
                let verdict = verdict.ok_or_else(|| wrong("a name without a verdict"))?;
                if by_name.insert(name.to_owned(), verdict).is_some() {
                    return Err(wrong("it was judged before"));
                }
            } else if !line.is_empty() {
                verdict = match line.split_once(": ") {
                    Some(("equivalent", _)) => Some(Verdict::Equivalent),
                    Some(("harmless", _)) => Some(Verdict::Harmless),
                    _ => return Err(wrong("neither a name nor a verdict with its reason")),
                };
            }
        }
        Ok(Self { by_name })
    }

    /// The verdict on this one.
    pub fn of(&self, mutant: &Mutant) -> Option<Verdict> {
        self.by_name.get(&mutant.name()).copied()
    }

    /// Names that none of these has: their places have changed.
    pub fn gone(&self, mutants: &[Mutant]) -> Vec<&str> {
        let mut names = self.by_name.clone();
        for mutant in mutants {
            names.remove(&mutant.name());
        }
        self.by_name.keys().filter(|name| names.contains_key(*name)).map(String::as_str).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::{Verdict, Verdicts};
    use crate::mutants::Mutant;

    fn mutant(mutated: &str) -> Mutant {
        Mutant {
            number: 1,
            file: "a.rs".into(),
            line: 1,
            function: "f".into(),
            original: "1".into(),
            mutated: mutated.into(),
            twin: 0,
        }
    }

    #[test]
    fn a_verdict_is_of_the_names_below_it() {
        let verdicts = Verdicts::parse(
            "equivalent: it is the same\n  a.rs f: 1 -> 0 #0\n\nharmless: a text\n  a.rs f: 1 -> 2 #0\n  a.rs f: 1 -> 3 #0\n",
        )
        .expect("groups");
        assert_eq!(verdicts.of(&mutant("0")), Some(Verdict::Equivalent));
        assert_eq!(verdicts.of(&mutant("2")), Some(Verdict::Harmless));
        assert_eq!(verdicts.of(&mutant("4")), None);
        assert_eq!(verdicts.gone(&[mutant("0"), mutant("2")]), ["a.rs f: 1 -> 3 #0"]);
    }

    #[test]
    fn what_is_neither_or_twice_is_refused() {
        for text in ["  a.rs f: 1 -> 0 #0\n", "fine: so\n", "equivalent\n", "harmless: x\n  a\n  a\n"] {
            assert!(Verdicts::parse(text).is_err(), "{text}");
        }
        assert!(Verdicts::read().is_ok(), "the file of these sources");
    }
}
