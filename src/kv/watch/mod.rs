//! Watches: every change of some keys, in order, once.
//!
//! # Promises
//!
//! 1. *Ordered*: revisions rise along a watch.
//! 2. *Unique*: no change is told twice.
//! 3. *Atomic*: all that one revision changed among the watched keys is told together, in the order of keys.
//! 4. *Reliable*: no change between two that are told is left out.
//! 5. *Resumable*: a watch from the revision after the last one told continues, on any node and after any restart.
//! 6. *Bookmarkable*: a progress mark at a revision says that everything up to it has been told.
//! 7. *Previous value*: if asked for, an event carries what its key held before, as of the revision before.
//! 8. *Creation*: a put says whether the key was absent before ([`Event::is_create`](super::Event::is_create)).
//! 9. *Filtered*: what the filter leaves out is not told, and all else is.
//!
//! Where this cannot be kept the watch ends with an error that names the first revision that was not told. Nothing is
//! dropped in silence.

mod batch;
mod cursor;
mod hub;
mod index;
mod matcher;
mod query;
mod ring;

// The engine puts the parts together with locks and wakers.
#[cfg(feature = "server")]
pub(crate) use cursor::{Cursor, Look};
pub use hub::{Hub, WatchId, WatchLimits};
#[cfg(feature = "server")]
pub(crate) use matcher::{GroupId, Matcher, Pass, Step};
pub use query::{Filter, WatchError, WatchItem, WatchQuery};
#[cfg(feature = "server")]
pub(crate) use ring::Ring;
