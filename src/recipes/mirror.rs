//! A local copy of some keys that follows the store.
//!
//! Read once, page by page at one revision, and watched from the revision after it: nothing is missed and nothing comes
//! twice. Where the watch cannot go on because what comes next was compacted, the keys are read again, and what differs from
//! the copy is what has changed.

use super::RecipeError;
use crate::api::{ClientApi, ReadLevel};
use crate::kv::{Event, KeyRange, KeyValue, RangeQuery, Revision, WatchError, WatchItem, WatchQuery};
use bytes::Bytes;
use futures_core::Stream;
use std::collections::{BTreeMap, VecDeque};
use std::pin::Pin;

/// The copy.
pub(super) struct Mirror<C: ClientApi> {
    client: C,
    range: KeyRange,
    keys: BTreeMap<Bytes, KeyValue>,
    /// What the keys are as of; `None` before they were read.
    revision: Option<Revision>,
    watch: Option<C::Watch>,
    /// Changes of one revision, or of one reading, that were not told yet.
    changes: VecDeque<Change>,
}

/// How a key differs from before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// There is a key that was not there.
    New(KeyValue),
    /// A key has another value.
    Set(KeyValue),
    /// A key is gone; this was there.
    Gone(KeyValue),
}

impl<C: ClientApi> std::fmt::Debug for Mirror<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mirror")
            .field("range", &self.range)
            .field("revision", &self.revision)
            .finish_non_exhaustive()
    }
}

impl<C: ClientApi> Mirror<C> {
    pub(super) fn new(client: &C, range: KeyRange) -> Self {
        let client = client.reading(ReadLevel::Linearizable);
        let (keys, changes) = (BTreeMap::new(), VecDeque::new());
        Self { client, range, keys, revision: None, watch: None, changes }
    }

    /// The next change. All that are known are told before anything new is asked for. After an error, and when the future
    /// was dropped, nothing is lost: ask again.
    pub(super) async fn next(&mut self) -> Result<Change, RecipeError> {
        loop {
            if let Some(change) = self.changes.pop_front() {
                return Ok(change);
            }
            self.advance().await?;
        }
    }

    /// Whether the keys have been read, and the watch goes on from there.
    pub(super) fn is_read(&self) -> bool {
        self.revision.is_some()
    }

    /// A change that is known already.
    pub(super) fn known(&mut self) -> Option<Change> {
        self.changes.pop_front()
    }

    /// Learns more: what the keys are, or what one revision changed. Maybe nothing.
    pub(super) async fn advance(&mut self) -> Result<(), RecipeError> {
        let Some(revision) = self.revision else { return self.read().await };
        match self.item(revision).await {
            Some(Ok(item)) => {
                item.events().iter().for_each(|event| self.note(event));
                self.revision = Some(item.revision());
            }
            Some(Err(WatchError::Compacted { .. })) => {
                (self.watch, self.revision) = (None, None);
            }
            Some(Err(error)) => {
                self.watch = None;
                return Err(error.into());
            }
            None => self.watch = None,
        }
        Ok(())
    }

    /// What comes after `revision`.
    async fn item(&mut self, revision: Revision) -> Option<Result<WatchItem, WatchError>> {
        if self.watch.is_none() {
            let query = WatchQuery::new(self.range.clone()).from(revision.next());
            match self.client.watch_with(query).await {
                Ok(watch) => self.watch = Some(watch),
                Err(error) => return Some(Err(error)),
            }
        }
        let watch = self.watch.as_mut().expect("just opened");
        std::future::poll_fn(|cx| Pin::new(&mut *watch).poll_next(cx)).await
    }

    fn note(&mut self, event: &Event) {
        match event {
            Event::Put { new, .. } => self.set(new.clone()),
            Event::Delete { key, .. } => {
                self.changes.extend(self.keys.remove(key).map(Change::Gone));
            }
        }
    }

    fn set(&mut self, new: KeyValue) {
        let former = self.keys.insert(new.key.clone(), new.clone());
        match former {
            Some(former) if former == new => {}
            // Gone and there again, unseen: two changes.
            Some(former) if former.create_revision != new.create_revision => {
                self.changes.extend([Change::Gone(former), Change::New(new)]);
            }
            Some(_) => self.changes.push_back(Change::Set(new)),
            None => self.changes.push_back(Change::New(new)),
        }
    }

    async fn read(&mut self) -> Result<(), RecipeError> {
        let mut found = BTreeMap::new();
        let (mut pages, mut revision) =
            (self.client.pages(RangeQuery::new(self.range.clone())), Revision::EMPTY);
        while let Some(page) = pages.next().await? {
            revision = page.value.revision;
            found.extend(page.value.items.into_iter().map(|item| (item.key.clone(), item)));
        }
        // From here on nothing waits: a future that is dropped before has changed nothing.
        let missing: Vec<_> = self.keys.keys().filter(|key| !found.contains_key(*key)).cloned().collect();
        for key in missing {
            self.changes.extend(self.keys.remove(&key).map(Change::Gone));
        }
        found.into_values().for_each(|item| self.set(item));
        self.revision = Some(revision);
        Ok(())
    }
}
