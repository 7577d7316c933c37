//! What is watched, what is told of it, and how that ends.

use crate::kv::Revision;
use crate::kv::command::CommandError;
use crate::kv::event::{Event, Events};
use crate::kv::past::Change;
use crate::kv::range::KeyRange;
use std::sync::Arc;
use thiserror::Error;

/// The changes that are told, when not all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Filter {
    /// Only those that set a key.
    Puts,
    /// Only those that removed one.
    Deletes,
}

/// A wish to be told of changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchQuery {
    pub(super) range: KeyRange,
    pub(super) from: Option<Revision>,
    pub(super) form: Form,
    pub(super) progress: bool,
}

/// The form in which changes are told. Watches of one range in one form share what is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Form {
    pub filter: Option<Filter>,
    pub previous: bool,
}

impl Form {
    /// Whether `change` is told.
    pub fn admits(self, change: &Change<'_>) -> bool {
        match self.filter {
            None => true,
            Some(Filter::Puts) => !change.is_delete(),
            Some(Filter::Deletes) => change.is_delete(),
        }
    }
}

impl WatchQuery {
    /// Every change in `range` from now on: that the node, which may be behind the leader, has not yet applied.
    #[must_use]
    pub fn new(range: KeyRange) -> Self {
        Self { range, from: None, form: Form::default(), progress: false }
    }

    /// Every change at `revision` and after it. If that is in the future the watch waits for it.
    ///
    /// After a read at revision `r`, a watch from `r.next()` tells all that the read did not show, and nothing that it did.
    #[must_use]
    pub fn from(self, revision: Revision) -> Self {
        Self { from: Some(revision), ..self }
    }

    /// With what was there before each change.
    #[must_use]
    pub fn with_previous(self) -> Self {
        let form = Form { previous: true, ..self.form };
        Self { form, ..self }
    }

    /// Only changes of one kind.
    #[must_use]
    pub fn only(self, filter: Filter) -> Self {
        let form = Form { filter: Some(filter), ..self.form };
        Self { form, ..self }
    }

    /// With progress marks, for who keeps the revision to resume from: they tell it where there is nothing else to tell.
    #[must_use]
    pub fn with_progress(self) -> Self {
        Self { progress: true, ..self }
    }

    /// The keys that are watched.
    #[must_use]
    pub fn range(&self) -> &KeyRange {
        &self.range
    }
}

/// What a watch tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchItem {
    /// What one revision changed.
    Events(Events),
    /// Everything up to this revision has been told. Rises along a watch, and never passes an event.
    Progress(Revision),
}

impl WatchItem {
    /// Everything up to here has been told: a watch from the revision after it continues without gap or repeat, on this
    /// node and on any other.
    #[must_use]
    pub fn revision(&self) -> Revision {
        match self {
            Self::Events(events) => events.revision,
            Self::Progress(revision) => *revision,
        }
    }

    /// The changes; none in a progress mark.
    #[must_use]
    pub fn events(&self) -> &[Event] {
        match self {
            Self::Events(events) => &events.events,
            Self::Progress(_) => &[],
        }
    }
}

/// Why a watch ended, or did not begin. Nothing was left out before `next`.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum WatchError {
    /// What comes next is no longer kept: the watch was too slow, or resumed too late.
    #[error(
        "revision {next} comes next and has been compacted, the oldest that is kept is {oldest}: read the newest state and \
         watch from the revision after it"
    )]
    Compacted {
        /// The first revision that was not told.
        next: Revision,
        /// The oldest that can be watched from.
        oldest: Revision,
    },
    /// The engine has stopped, and everything it had applied was told.
    #[error(
        "the engine has stopped ({}): watch from revision {next} when it is started again, or on another node",
        failure.as_deref().unwrap_or("it was stopped")
    )]
    Stopped {
        /// The first revision that was not told.
        next: Revision,
        /// Why, if it stopped itself.
        failure: Option<Arc<str>>,
    },
    /// The node has as many watches as it may.
    #[error(
        "{limit} watches are open, as many as this node may have: end one, raise limits.watchers, or ask another node"
    )]
    TooMany {
        /// `limits.watchers`.
        limit: usize,
    },
    /// No key can be in the range.
    #[error("{0}")]
    Refused(#[from] CommandError),
    /// The system refused what watches cannot do without.
    #[error("the system gives the watches no thread: {0}")]
    NoThread(Arc<str>),
}
