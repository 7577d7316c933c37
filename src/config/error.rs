//! What can be wrong with a configuration, said so that it can be put right without reading code.

use std::fmt;
use std::io;
use std::path::PathBuf;
use thiserror::Error;

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Origin {
    /// The table of fields.
    Default,
    /// The configuration file.
    File {
        /// Its path.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// An environment variable.
    Environment {
        /// Its name.
        variable: String,
    },
    /// The program.
    Code,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Environment { variable } => f.write_str(variable),
            Self::Code => f.write_str("code"),
        }
    }
}

/// Why there is no configuration.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be used at all.
    #[error("configuration file {path}: {problem}", path = path.display())]
    File {
        /// Its path.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        problem: FileProblem,
    },
    /// The file is not TOML, or has a key twice.
    #[error("{path}:{line}:{column}: {message}", path = path.display())]
    Syntax {
        /// Its path.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The byte in the line, from 1.
        column: usize,
        /// What the parser says.
        message: String,
    },
    /// A key of the file that is no field.
    #[error("unknown key {name} ({origin}){}", suggestion(nearest.as_deref()))]
    UnknownKey {
        /// The name found.
        name: String,
        /// The known name most like it.
        nearest: Option<String>,
        /// Where it stands.
        origin: Origin,
    },
    /// A variable that is no field.
    #[error("unknown environment variable {name}{}", suggestion(nearest.as_deref()))]
    UnknownVariable {
        /// The name found.
        name: String,
        /// The known name most like it.
        nearest: Option<String>,
    },
    /// A value that its field does not take.
    #[error("{field} = {found} ({origin}): {problem}")]
    Value {
        /// The field's name.
        field: &'static str,
        /// The value found.
        found: String,
        /// Where it came from.
        origin: Origin,
        /// What is wrong with it.
        #[source]
        problem: ValueProblem,
    },
    /// Values that are each possible and together are not.
    #[error("{reason}")]
    Combination {
        /// The fields that do not go together.
        fields: &'static [&'static str],
        /// Their values, where these came from, and why they cannot work.
        reason: String,
    },
}

fn suggestion(nearest: Option<&str>) -> String {
    nearest.map_or(String::new(), |name| format!(": did you mean {name}?"))
}

/// Why a file cannot be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum FileProblem {
    /// Nothing there.
    #[error("it does not exist; create it, or unset CONFIG_PATH to run on defaults")]
    Missing,
    /// A directory.
    #[error("it is a directory; name the file inside it")]
    Directory,
    /// A device, a pipe, a socket.
    #[error("it is not a regular file")]
    NotAFile,
    /// No bytes.
    #[error("it is empty (0 bytes); was it cut while being written?")]
    Empty,
    /// Far more than a configuration has.
    #[error("it is longer than {limit} bytes; is it a configuration?")]
    TooLong {
        /// The most that is read.
        limit: u64,
    },
    /// A byte order mark in front.
    #[error("it starts with a byte order mark; save it as UTF-8 without one")]
    ByteOrderMark,
    /// Not UTF-8.
    #[error("it is not UTF-8: line {line} holds an invalid byte (offset {offset})")]
    NotUtf8 {
        /// The line of the first invalid byte, from 1.
        line: usize,
        /// Its offset in the file.
        offset: usize,
    },
    /// The system refused.
    #[error("it cannot be read: {0}")]
    Unreadable(#[source] io::Error),
}

/// Why a field does not take a value.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ValueProblem {
    /// A value of another kind.
    #[error("expected {expected}, found {found}")]
    Type {
        /// What the field takes.
        expected: &'static str,
        /// What stood there.
        found: &'static str,
    },
    /// Below or above what makes sense.
    #[error("must be from {low} to {high}")]
    Range {
        /// The lowest value taken.
        low: String,
        /// The highest value taken.
        high: String,
    },
    /// Text that does not say what it should.
    #[error("expected {expected}: {why}")]
    Text {
        /// What the field takes, with an example.
        expected: &'static str,
        /// What is wrong with the text.
        why: String,
    },
    /// A word that is none of those known.
    #[error("expected {accepts}{}", suggestion(*nearest))]
    Word {
        /// The words known.
        accepts: String,
        /// The one most like it.
        nearest: Option<&'static str>,
    },
    /// An environment variable that is set to nothing.
    #[error("it is set but empty; unset it to use the default")]
    Empty,
    /// An environment variable whose bytes are not Unicode.
    #[error("it is not Unicode")]
    NotUnicode,
}

/// The one of `known` that `name` was probably meant to be: few letters off, or the right key in the wrong section.
pub(super) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<String> {
    let key = |name: &str| name.rsplit_once('.').map(|(_, key)| key.to_owned());
    let moved = key(name);
    let off = |candidate: &str| {
        let whole = strsim::damerau_levenshtein(name, candidate);
        if moved.is_some() && moved == key(candidate) { whole.min(1) } else { whole }
    };
    let tolerated = (name.len() / 4).max(2);
    known
        .map(|candidate| (off(candidate), candidate))
        .min()
        .filter(|(off, _)| *off <= tolerated)
        .map(|(_, candidate)| candidate.to_owned())
}
