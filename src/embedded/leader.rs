//! [`LeaderWatch`]: who leads, as it changes.

use crate::api::Leadership;
use crate::runtime::shared::Shared;
use std::sync::Arc;
use std::task::{Context, Poll};

/// Tells of changes of leadership. Changes that follow each other quickly may be told as one: what is told is always the
/// newest.
pub struct LeaderWatch {
    shared: Arc<Shared>,
    seen: u64,
}

impl std::fmt::Debug for LeaderWatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("LeaderWatch").field(&self.current()).finish()
    }
}

impl LeaderWatch {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let seen = shared.leadership_version();
        Self { shared, seen }
    }

    /// Who leads now.
    #[must_use]
    pub fn current(&self) -> Leadership {
        self.shared.leadership()
    }

    /// Completes at the next change; with `None` when the engine has stopped.
    pub async fn changed(&mut self) -> Option<Leadership> {
        std::future::poll_fn(|cx| self.poll_changed(cx)).await
    }

    /// [`changed`](Self::changed) as a poll.
    pub fn poll_changed(&mut self, cx: &mut Context<'_>) -> Poll<Option<Leadership>> {
        self.shared.poll_leadership(self.seen, cx).map(|change| {
            let (leadership, version) = change?;
            self.seen = version;
            Some(leadership)
        })
    }

    /// Completes when somebody leads, at once if somebody does; with `None` when the engine has stopped.
    pub async fn leader(&mut self) -> Option<wal::NodeId> {
        let mut leadership = self.current();
        loop {
            if leadership.leader.is_some() {
                return leadership.leader;
            }
            leadership = self.changed().await?;
        }
    }
}
