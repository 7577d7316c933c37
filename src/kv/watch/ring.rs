//! What a group of watches was told lately, kept once for all of them.

use crate::kv::Revision;
use crate::kv::event::Events;
use std::collections::VecDeque;

/// The last batches of one group.
#[derive(Debug)]
pub(crate) struct Ring {
    /// Invariant: revisions rise, and none is before `from`.
    batches: VecDeque<Events>,
    /// Invariant: everything the group has been told from this revision on is here.
    from: Revision,
}

impl Ring {
    /// For a group that is told everything from `from` on.
    pub fn new(from: Revision) -> Self {
        Self { batches: VecDeque::new(), from }
    }

    /// The first revision from which nothing is missing.
    pub fn from(&self) -> Revision {
        self.from
    }

    pub fn push(&mut self, events: Events) {
        let newest = self.batches.back().map(|newest| newest.revision);
        assert!(newest < Some(events.revision) && events.revision >= self.from, "revisions rise");
        self.batches.push_back(events);
    }

    /// Lets go of everything up to `revision`.
    pub fn forget(&mut self, revision: Revision) {
        while self.batches.front().is_some_and(|oldest| oldest.revision <= revision) {
            self.batches.pop_front();
        }
        self.from = self.from.max(revision.next());
    }

    /// The batches from `revision` on.
    pub fn after(&self, revision: Revision) -> impl Iterator<Item = &Events> {
        // Who asks is mostly up to date: what it wants is at the end.
        let behind = self.batches.iter().rev().take_while(|batch| batch.revision >= revision).count();
        self.batches.range(self.batches.len() - behind..)
    }
}
