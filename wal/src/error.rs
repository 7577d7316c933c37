//! Everything that can go wrong with a directory or a write, each with what to do about it.

use crate::segment::Identity;
use std::io;
use std::path::PathBuf;
use thiserror::Error;

/// Why a directory was not opened. Nothing in it was changed, but for removed temporary files.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OpenError {
    /// It is not there.
    #[error("there is no data directory at {path}: create the node first, or correct the path")]
    Missing {
        /// The directory.
        path: PathBuf,
    },
    /// Something else is there.
    #[error("{path} is not a directory: name a directory for the data")]
    NotADirectory {
        /// What was named.
        path: PathBuf,
    },
    /// A link, whose target can change under a running node.
    #[error("{path} is a symbolic link: name the directory it points to")]
    Symlink {
        /// What was named.
        path: PathBuf,
    },
    /// It may not be used, or others may write to it.
    #[error("{path} has the wrong permissions: {what}")]
    Permissions {
        /// The directory or file.
        path: PathBuf,
        /// What is wrong, and the command that puts it right.
        what: String,
    },
    /// Its filesystem is mounted read-only.
    #[error("{path} is on a read-only filesystem: mount it writable")]
    ReadOnly {
        /// The directory.
        path: PathBuf,
    },
    /// Another process has it open.
    #[error("{path} is in use by {}: stop it first", .pid.map_or("another process".into(), |pid| format!("process {pid}")))]
    Locked {
        /// The directory.
        path: PathBuf,
        /// Who holds it, as far as its lock file says.
        pid: Option<u32>,
    },
    /// It belongs to another cluster, node or group.
    #[error("{path} belongs to {what} {found}, not {expected}: use this node's own directory")]
    Foreign {
        /// The directory or file.
        path: PathBuf,
        /// `cluster`, `node` or `group`.
        what: &'static str,
        /// What it names.
        found: String,
        /// What was asked for.
        expected: String,
    },
    /// A newer program wrote it.
    #[error(
        "{path} has format version {found}, this program supports {supported}: use the program that wrote it"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The newest version this program reads.
        supported: u32,
    },
    /// Something that was durable is damaged or gone. Never cut, never served.
    #[error("{file} is damaged at byte {offset}: {what}. Nothing was changed. {hint}", hint = REPAIR_HINT)]
    Corrupt {
        /// The file.
        file: PathBuf,
        /// Where in it.
        offset: u64,
        /// What is wrong there.
        what: String,
    },
    /// Data would not survive a restart of the machine.
    #[error(
        "{path} is on {filesystem}, which forgets everything at a restart: use a disk, or allow it by name (development)"
    )]
    VolatileFilesystem {
        /// The directory.
        path: PathBuf,
        /// The filesystem's name.
        filesystem: &'static str,
    },
    /// No room for the log's next segment.
    #[error("no space left for {path} ({bytes} bytes): free some and start again")]
    NoSpace {
        /// The file to be made.
        path: PathBuf,
        /// What it needs.
        bytes: u64,
    },
    /// The options contradict each other.
    #[error("option {what} cannot be {value}: {rule}")]
    Option {
        /// The option.
        what: &'static str,
        /// Its value.
        value: u64,
        /// What it must be.
        rule: &'static str,
    },
    /// The system refused something else.
    #[error("{what} {path} failed: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's words.
        source: io::Error,
    },
}

const REPAIR_HINT: &str = "If this node has peers, give it a new identity and an empty directory and let it catch up; \
                           if it is alone, restore the directory from a backup. Keep a copy of the damaged files";

impl OpenError {
    /// Sorts a system error by what an operator has to do.
    pub(crate) fn io(what: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        let path = path.into();
        match source.kind() {
            io::ErrorKind::PermissionDenied => Self::Permissions {
                what: format!("{what} was refused; it must belong to this user with mode 0700"),
                path,
            },
            io::ErrorKind::ReadOnlyFilesystem => Self::ReadOnly { path },
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::NoSpace { path, bytes: 0 },
            _ => Self::Io { what, path, source },
        }
    }

    pub(crate) fn foreign(path: impl Into<PathBuf>, found: &Identity, expected: &Identity) -> Self {
        let (what, found, expected) = if found.cluster != expected.cluster {
            ("cluster", found.cluster.to_string(), expected.cluster.to_string())
        } else if found.node != expected.node {
            ("node", found.node.to_string(), expected.node.to_string())
        } else {
            ("group", found.group.0.to_string(), expected.group.0.to_string())
        };
        Self::Foreign { path: path.into(), what, found, expected }
    }
}

/// Why the log stopped. Terminal: the process must not acknowledge anything more, and may only stop.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum LogError {
    /// A write, a flush or a rename failed. Whether earlier bytes of the same file are safe is unknown until
    /// it is read again.
    #[error("{what} {file} failed: {source_text}; stop this process, see to the disk, start again")]
    Io {
        /// What was tried.
        what: &'static str,
        /// The file.
        file: String,
        /// The system's words.
        source_text: String,
    },
    /// The next segment could not be made. Nothing was acknowledged that is not on disk.
    #[error("no space left for {file} ({bytes} bytes): free some and start again")]
    NoSpace {
        /// The file.
        file: String,
        /// What it needs.
        bytes: u64,
    },
    /// The writer's thread is gone.
    #[error("the log's thread ended: {0}")]
    Thread(&'static str),
}

impl LogError {
    pub(crate) fn io(what: &'static str, file: impl Into<String>, source: &io::Error) -> Self {
        Self::Io { what, file: file.into(), source_text: source.to_string() }
    }
}
