//! [`Fence`]: what stands before something that a lock protects.

use crate::kv::Revision;
use std::sync::atomic::{AtomicU64, Ordering};
use thiserror::Error;

/// Remembers the newest fencing token it has seen and turns older ones away. It belongs beside what is protected, where it
/// lives as long: a token that is checked where it was made proves nothing.
///
/// ```
/// use d_engine::kv::Revision;
/// use d_engine::recipes::Fence;
///
/// let printer = Fence::new();
/// printer.admit(Revision(5))?;
/// printer.admit(Revision(9))?; // the next holder
/// assert!(printer.admit(Revision(5)).is_err(), "the old one was paused and does not know");
/// # Ok::<(), d_engine::recipes::Stale>(())
/// ```
#[derive(Debug, Default)]
pub struct Fence {
    newest: AtomicU64,
}

/// A holder that somebody has followed since.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("token {token} is stale, {newest} has been here: whoever shows it holds the lock no longer")]
pub struct Stale {
    /// What was shown.
    pub token: Revision,
    /// The newest that has been seen.
    pub newest: Revision,
}

impl Fence {
    /// A fence that has seen nobody.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets a holder pass, as often as it comes, until a later one has passed.
    ///
    /// # Errors
    /// [`Stale`] for the token of a former holder.
    pub fn admit(&self, token: Revision) -> Result<(), Stale> {
        let newest = Revision(self.newest.fetch_max(token.0, Ordering::SeqCst));
        if token < newest { Err(Stale { token, newest }) } else { Ok(()) }
    }
}
