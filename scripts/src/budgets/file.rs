//! The budget file.

use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

/// What the counts are apart in two runs is far less; this leaves room for another C library.
const TOLERANCE: f64 = 2.0;

const HEAD: &str = "\
# Instructions per operation, as callgrind counts them in the release profile; how far off they may be, in percent.
#
#   cargo run --release -p scripts -- budgets             # compares; over a budget is a failure
#   cargo run --release -p scripts -- budgets --update    # writes what it counts, tolerances stay
#
# A change that raises a number says why in its message. What each is: benches/budgets/cases.rs.

";

/// What one operation may cost.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Budget {
    /// Instructions.
    pub instructions: u64,
    /// How far off in either direction, in percent.
    pub tolerance: f64,
}

/// All of them.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Budgets {
    /// Whose instructions they are.
    pub compiler: String,
    budgets: BTreeMap<String, Budget>,
}

impl Budgets {
    /// None yet.
    #[must_use]
    pub fn of_compiler(compiler: &str) -> Self {
        Self { compiler: compiler.to_owned(), budgets: BTreeMap::new() }
    }

    /// Reads the file; one that is not there has no budgets.
    ///
    /// # Errors
    /// It cannot be read, or is not what it should be.
    pub fn read(path: &Path) -> Result<Self, String> {
        match std::fs::read_to_string(path) {
            Ok(text) => toml::from_str(&text).map_err(|error| format!("{}: {error}", path.display())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(format!("{}: {error}", path.display())),
        }
    }

    /// Writes the file.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), String> {
        std::fs::write(path, self.text()).map_err(|error| format!("{}: {error}", path.display()))
    }

    fn text(&self) -> String {
        let mut text = format!("{HEAD}compiler = \"{}\"\n\n[budgets]\n", self.compiler);
        for (name, Budget { instructions, tolerance }) in &self.budgets {
            let _ =
                writeln!(text, "\"{name}\" = {{ instructions = {instructions}, tolerance = {tolerance:?} }}");
        }
        text
    }

    /// The budget of that name.
    #[must_use]
    pub fn of(&self, name: &str) -> Option<&Budget> {
        self.budgets.get(name)
    }

    /// Everything that has one.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.budgets.keys().map(String::as_str)
    }

    /// Sets a budget to what was counted; its tolerance stays.
    pub fn set(&mut self, name: &str, counted: f64) {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count of instructions")]
        let instructions = counted.ceil() as u64;
        let tolerance = self.of(name).map_or(TOLERANCE, |budget| budget.tolerance);
        self.budgets.insert(name.to_owned(), Budget { instructions, tolerance });
    }

    /// Forgets all others.
    pub fn keep(&mut self, names: &[String]) {
        self.budgets.retain(|name, _| names.contains(name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again_and_tolerances_stay() {
        let mut budgets = Budgets { compiler: "rustc 1.95.0".into(), ..Budgets::default() };
        budgets.set("put, batch of 1", 1234.2);
        budgets.budgets.get_mut("put, batch of 1").unwrap().tolerance = 3.5;
        budgets.set("put, batch of 1", 1200.0);
        budgets.set("gone", 1.0);
        budgets.keep(&["put, batch of 1".into()]);
        let read: Budgets = toml::from_str(&budgets.text()).unwrap();
        assert_eq!(read, budgets);
        assert_eq!(read.of("put, batch of 1"), Some(&Budget { instructions: 1200, tolerance: 3.5 }));
    }
}
