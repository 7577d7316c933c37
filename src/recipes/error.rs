//! [`RecipeError`]: why a recipe did not do what was asked.

use crate::api::{ReadError, Uncertainty, WriteError};
use crate::kv::WatchError;
use thiserror::Error;

/// Why a recipe did not do what was asked. What it had begun is taken back in the background, or expires.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RecipeError {
    /// A write was refused or not answered.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// A read was refused or not answered.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A watch ended, or did not begin.
    #[error(transparent)]
    Watch(#[from] WatchError),
    /// The lease has ended, or may have: nothing that depends on it is held any more.
    #[error(
        "the lease has ended or could not be kept alive in time: what depended on it is lost; ask for it again"
    )]
    Lost,
    /// A part of a name is empty, or holds the separator.
    #[error("{name:?} cannot be a part of a key here: it must not be empty nor hold a '/'")]
    Name {
        /// The name, as far as it is text.
        name: String,
    },
    /// The system refused a thread for keeping leases alive.
    #[error("the system gives the keeper of leases no thread: {0}")]
    NoThread(String),
}

/// Whether trying the same again after a while may help.
pub(super) trait Transient {
    fn is_transient(&self) -> bool;
}

impl Transient for WriteError {
    /// Also where the outcome is unknown: for writes that are the same whether they happen once or twice.
    fn is_transient(&self) -> bool {
        matches!(self, Self::Busy | Self::NoLeader | Self::OutcomeUnknown(Uncertainty::NoAnswer))
    }
}

impl Transient for ReadError {
    fn is_transient(&self) -> bool {
        matches!(self, Self::Busy | Self::NoLeader)
    }
}
