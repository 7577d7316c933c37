//! Watches on one thread: the parts put together without locks and wakers, for simulations and measurements.

use super::cursor::{Cursor, Look};
use super::matcher::{GroupId, Matcher, Pass, Step};
use super::query::{WatchError, WatchItem, WatchQuery};
use super::ring::Ring;
use crate::kv::{Revision, Store};
use std::collections::BTreeMap;

#[cfg(test)]
mod tests;

/// What watches may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WatchLimits {
    /// Watches open at one time.
    pub watchers: usize,
    /// Bytes of what was told lately and is kept for those who have not yet taken it, about. Who is further behind reads the
    /// store's history.
    pub recent_bytes: usize,
}

impl WatchLimits {
    /// 65,536 watches, 16 MiB.
    pub const DEFAULT: Self = Self { watchers: 65_536, recent_bytes: 16 << 20 };
}

/// Names a watch of a [`Hub`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WatchId(u64);

/// The watches of one store.
///
/// ```
/// use bytes::BytesMut;
/// use d_engine::kv::{Hub, KeyRange, Revision, Store, WatchItem, WatchLimits, WatchQuery, encode_put};
///
/// let (mut store, mut hub) = (Store::new(), Hub::new(WatchLimits::DEFAULT));
/// let watch = hub.open(&WatchQuery::new(KeyRange::prefix("lock/")), &store)?;
///
/// let mut command = BytesMut::new();
/// encode_put(b"lock/a", b"me", &mut command)?;
/// store.apply(&command);
///
/// while hub.pass(&store) {}
/// let Some(Ok(WatchItem::Events(events))) = hub.next(watch, &store) else { panic!("a key was put") };
/// assert_eq!(events.revision, Revision(2));
/// assert_eq!(events.events[0].key(), "lock/a");
/// assert!(events.events[0].is_create());
/// assert_eq!(hub.next(watch, &store), None);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Hub {
    matcher: Matcher,
    rings: BTreeMap<GroupId, Ring>,
    watches: BTreeMap<WatchId, (Cursor, GroupId)>,
    opened: u64,
    most: usize,
    steps: Vec<Step>,
}

impl Hub {
    /// Without watches.
    #[must_use]
    pub fn new(limits: WatchLimits) -> Self {
        Self {
            matcher: Matcher::new(limits.recent_bytes),
            rings: BTreeMap::new(),
            watches: BTreeMap::new(),
            opened: 0,
            most: limits.watchers,
            steps: Vec::new(),
        }
    }

    /// Opens a watch.
    ///
    /// # Errors
    /// [`WatchError::Compacted`] and [`WatchError::TooMany`].
    pub fn open(&mut self, query: &WatchQuery, store: &Store) -> Result<WatchId, WatchError> {
        if self.watches.len() >= self.most {
            return Err(WatchError::TooMany { limit: self.most });
        }
        let cursor = Cursor::new(query, store)?;
        let (group, ring) = self.matcher.join(query, store.revision());
        if let Some(ring) = ring {
            self.rings.insert(group, ring);
        }
        let id = WatchId(self.opened);
        self.opened += 1;
        self.watches.insert(id, (cursor, group));
        Ok(id)
    }

    /// Ends a watch.
    pub fn close(&mut self, id: WatchId) {
        let Some((_, group)) = self.watches.remove(&id) else { return };
        if self.matcher.leave(group) {
            self.rings.remove(&group);
        }
    }

    /// Looks at what has changed, for all watches: a bounded part of it. `true` if there is more.
    pub fn pass(&mut self, store: &Store) -> bool {
        let pass = self.matcher.pass(store, &mut self.steps);
        for step in self.steps.drain(..) {
            match step {
                Step::Tell(group, events) => {
                    self.rings.get_mut(&group).expect("a group that is told exists").push(events);
                }
                Step::Forget(group, revision) => {
                    if let Some(ring) = self.rings.get_mut(&group) {
                        ring.forget(revision);
                    }
                }
                Step::Restart(group, from) => _ = self.rings.insert(group, Ring::new(from)),
            }
        }
        pass == Pass::Part
    }

    /// The next item of a watch; `None` if there is nothing to tell yet. An error is the last item: the watch is closed.
    ///
    /// # Panics
    /// If there is no such watch.
    pub fn next(&mut self, id: WatchId, store: &Store) -> Option<Result<WatchItem, WatchError>> {
        let (cursor, group) = self.watches.get_mut(&id).expect("an open watch");
        loop {
            if let Some(item) = cursor.pop() {
                return Some(Ok(item));
            }
            match cursor.look(&self.rings[group], self.matcher.told()) {
                Look::Ready => {}
                Look::Current => return cursor.mark().map(Ok),
                Look::Behind => {
                    if let Err(error) = cursor.read(store) {
                        self.close(id);
                        return Some(Err(error));
                    }
                }
            }
        }
    }

    /// Everything up to here was told to this watch, or did not concern it; `None` if there is no such watch.
    #[must_use]
    pub fn revision(&self, id: WatchId) -> Option<Revision> {
        self.watches.get(&id).map(|(cursor, _)| cursor.revision())
    }

    /// Watches that are open.
    #[must_use]
    pub fn len(&self) -> usize {
        self.watches.len()
    }

    /// Whether none is open.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.watches.is_empty()
    }
}
