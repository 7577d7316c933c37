//! One typed configuration, from four places; each overrides the ones before it:
//!
//! 1. the defaults in the table below,
//! 2. a TOML file: the path the program gives, or the one in the environment variable `CONFIG_PATH`,
//! 3. environment variables `D_ENGINE__SECTION__KEY`, as `D_ENGINE__RAFT__HEARTBEAT=20ms`,
//! 4. code.
//!
//! Promises: a name nobody knows, a value outside its range and a combination that cannot work are refused, with the
//! place they came from and what would be right. Sizes and durations carry their unit ("64KiB", "250ms"). Where a
//! value came from is remembered: [`Configuration::origin`].
//!
//! Deliberately not here: resolving host names, looking at directories and certificates, and logging (warnings are
//! returned).
//!
//! Every field is declared once, in `fields.rs`; [`FIELDS`] is that table with names, defaults, ranges and texts.
//!
//! ```
//! use d_engine::config::{Draft, Origin};
//! use std::time::Duration;
//!
//! let variables = [("D_ENGINE__RAFT__HEARTBEAT".into(), "20ms".into())];
//! let loaded = Draft::read(None, variables)?
//!     .change(|configuration| configuration.node.data_dir = Some("/var/lib/d-engine".into()))
//!     .finish()?;
//!
//! let configuration = loaded.configuration;
//! assert_eq!(configuration.raft.heartbeat, Duration::from_millis(20));
//! assert_eq!(configuration.origin("node.data_dir"), Some(&Origin::Code));
//! assert_eq!(configuration.origin("raft.election_timeout"), Some(&Origin::Default));
//!
//! let typo = [("D_ENGINE__RAFT__HEARTBEET".into(), "20ms".into())];
//! assert_eq!(
//!     Draft::read(None, typo).unwrap_err().to_string(),
//!     "unknown environment variable D_ENGINE__RAFT__HEARTBEET: did you mean D_ENGINE__RAFT__HEARTBEAT?",
//! );
//! # Ok::<(), d_engine::config::ConfigError>(())
//! ```

mod check;
mod error;
mod fields;
mod file;
#[cfg(test)]
mod tests;
mod value;

pub use check::Warning;
pub use error::{ConfigError, FileProblem, Origin, ValueProblem};
pub use fields::{Configuration, FIELDS, Field, History, Limits, Log, Node, Raft, Runtime, Tls, Tuner};
pub use value::{
    Address, ByteCount, ClusterName, Durability, LatencyTarget, PartsPerMillion, Peer, ReadLevel,
    RuntimeKind, Spin, TlsMode, WakeLatency,
};

use error::nearest;
use std::ffi::OsString;
use std::path::Path;
use value::Raw;

/// The variable that names the configuration file when the program does not.
pub const PATH_VARIABLE: &str = "CONFIG_PATH";
/// Every variable that starts with this is a field, or is refused.
pub const VARIABLE_PREFIX: &str = "D_ENGINE__";

/// A configuration in the making: [`read`](Self::read), [`change`](Self::change), [`finish`](Self::finish).
#[derive(Clone, Debug, Default)]
pub struct Draft {
    configuration: Configuration,
}

/// A configuration that can work, and what its owner should know about it.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// Every value within its range, and no combination impossible.
    pub configuration: Configuration,
    /// What works but is probably not meant; for the program to log.
    pub warnings: Vec<Warning>,
}

impl Draft {
    /// The defaults, then `file` (or the one named by `CONFIG_PATH` in `environment`, if any), then the variables.
    ///
    /// # Errors
    /// The first thing wrong with file or variables. Combinations are judged by [`finish`](Self::finish).
    pub fn read(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, ConfigError> {
        let mut draft = Self::default();
        let mut named = None;
        let mut variables = Vec::new();
        for (name, value) in environment {
            if name == PATH_VARIABLE {
                named = Some(value);
            } else if name.as_encoded_bytes().starts_with(VARIABLE_PREFIX.as_bytes()) {
                variables.push((name, value));
            }
        }
        if let Some(path) = file.or(named.as_deref().map(Path::new)) {
            file::read(path, &mut draft.configuration)?;
        }
        // The environment has no order; with one, the same mistakes give the same message.
        variables.sort();
        for (name, value) in variables {
            draft.set_from_variable(&name.to_string_lossy(), value)?;
        }
        Ok(draft)
    }

    /// [`read`](Self::read) with this process's environment.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn from_process(file: Option<&Path>) -> Result<Self, ConfigError> {
        Self::read(file, std::env::vars_os())
    }

    fn set_from_variable(&mut self, name: &str, value: OsString) -> Result<(), ConfigError> {
        let Some(position) = FIELDS.iter().position(|field| field.variable() == name) else {
            let known: Vec<_> = FIELDS.iter().map(Field::variable).collect();
            let nearest = nearest(name, known.iter().map(String::as_str));
            return Err(ConfigError::UnknownVariable { name: name.to_owned(), nearest });
        };
        let origin = Origin::Environment { variable: name.to_owned() };
        let raw = match value.into_string() {
            Ok(text) if text.is_empty() => Raw::Empty,
            Ok(text) => Raw::Word(text),
            Err(_) => Raw::NotUnicode,
        };
        self.configuration.set(position, &raw, origin)
    }

    /// What there is so far; not judged yet.
    #[must_use]
    pub fn configuration(&self) -> &Configuration {
        &self.configuration
    }

    /// Sets fields from code. Those that differ afterwards are remembered as coming from there.
    #[must_use]
    pub fn change(mut self, change: impl FnOnce(&mut Configuration)) -> Self {
        let before: Vec<_> = FIELDS.iter().map(|field| (field.show)(&self.configuration)).collect();
        change(&mut self.configuration);
        for (position, before) in before.iter().enumerate() {
            if (FIELDS[position].show)(&self.configuration) != *before {
                self.configuration.origins[position] = Origin::Code;
            }
        }
        self
    }

    /// Judges the whole.
    ///
    /// # Errors
    /// A value that code set outside its range, or a combination that cannot work, with the reason.
    pub fn finish(self) -> Result<Loaded, ConfigError> {
        let Self { mut configuration } = self;
        for (position, field) in FIELDS.iter().enumerate() {
            if configuration.origins[position] == Origin::Code {
                let shown = Raw::Word((field.show)(&configuration));
                configuration.clone().set(position, &shown, Origin::Code)?;
            }
        }
        let warnings = check::check(&mut configuration)?;
        Ok(Loaded { configuration, warnings })
    }
}
