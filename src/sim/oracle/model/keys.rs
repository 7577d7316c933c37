//! Every version of every key.

use super::read::Query;
use super::told::{Item, Page};
use bytes::Bytes;
use std::collections::BTreeMap;

/// A key's content since a revision; no value since it was removed.
#[derive(Clone, Debug)]
struct Version {
    revision: u64,
    value: Option<Bytes>,
    created: u64,
    count: u64,
    lease: u64,
}

#[derive(Debug, Default)]
pub(super) struct Keys {
    versions: BTreeMap<Bytes, Vec<Version>>,
    /// At r - 2 the keys that revision r changed, in the order they were changed.
    changed: Vec<Vec<Bytes>>,
    /// Changes up to each of these revisions.
    total: Vec<u64>,
    present: u64,
}

fn item(key: &Bytes, version: &Version) -> Option<Item> {
    Some(Item {
        key: key.clone(),
        value: version.value.clone()?,
        created: version.created,
        modified: version.revision,
        count: version.count,
        lease: version.lease,
    })
}

fn place(revision: u64) -> Option<usize> {
    usize::try_from(revision.checked_sub(2)?).ok()
}

impl Keys {
    /// What a key holds, changes that are not finished included.
    pub(super) fn now(&self, key: &[u8]) -> Option<Item> {
        let (key, versions) = self.versions.get_key_value(key)?;
        item(key, versions.last()?)
    }

    /// What it held at `revision`.
    pub(super) fn at(&self, key: &[u8], revision: u64) -> Option<Item> {
        let (key, versions) = self.versions.get_key_value(key)?;
        let after = versions.partition_point(|version| version.revision <= revision);
        item(key, &versions[after.checked_sub(1)?])
    }

    /// How many keys there are.
    pub(super) fn present(&self) -> u64 {
        self.present
    }

    /// Sets a key at a revision that is being made.
    pub(super) fn set(&mut self, key: &Bytes, value: Bytes, (revision, lease): (u64, u64)) {
        let versions = self.versions.entry(key.clone()).or_default();
        let before = versions.last().filter(|version| version.value.is_some());
        self.present += u64::from(before.is_none());
        let (created, count) = before.map_or((revision, 1), |before| (before.created, before.count + 1));
        versions.push(Version { revision, value: Some(value), created, count, lease });
        self.note(key, revision);
    }

    /// Removes a key at a revision that is being made.
    pub(super) fn remove(&mut self, key: &Bytes, revision: u64) {
        let versions = self.versions.get_mut(key).expect("it is there");
        versions.push(Version { revision, value: None, created: 0, count: 0, lease: 0 });
        self.present -= 1;
        self.note(key, revision);
    }

    fn note(&mut self, key: &Bytes, revision: u64) {
        let place = place(revision).expect("changes begin at 2");
        if self.changed.len() == place {
            self.changed.push(Vec::new());
            self.total.push(self.total.last().copied().unwrap_or(0));
        }
        assert_eq!(place + 1, self.changed.len(), "revisions are made one by one");
        self.changed[place].push(key.clone());
        self.total[place] += 1;
    }

    /// The keys that `revision` changed, in their order.
    pub(super) fn changed(&self, revision: u64) -> Vec<Bytes> {
        let mut keys = place(revision).and_then(|place| self.changed.get(place)).cloned().unwrap_or_default();
        keys.sort_unstable();
        keys
    }

    /// The newest revision with a change.
    pub(super) fn newest(&self) -> u64 {
        self.changed.len() as u64 + 1
    }

    /// How many changes the revisions `from` to `until` made, both included.
    pub(super) fn changes(&self, from: u64, until: u64) -> u64 {
        let up_to = |revision: u64| {
            place(revision).map_or(0, |place| self.total[place.min(self.total.len().saturating_sub(1))])
        };
        if self.total.is_empty() { 0 } else { up_to(until) - up_to(from.saturating_sub(1)).min(up_to(until)) }
    }

    /// The keys in a span, now or at a revision.
    pub(super) fn items(&self, query: &Query, at: Option<u64>) -> Vec<Item> {
        let from = self.versions.range(query.span.start.clone()..);
        let among = from.take_while(|(key, _)| query.span.has(key)).filter_map(|(key, versions)| match at {
            None => item(key, versions.last()?),
            Some(revision) => self.at(key, revision),
        });
        among.collect()
    }

    /// A page, as of now or of a revision; `pinned` is what a next page would read.
    pub(super) fn page(
        &self,
        query: &Query,
        at: Option<u64>,
        (revision, pinned): (u64, Option<u64>),
    ) -> Page {
        let mut items = self.items(query, at);
        if query.descending {
            items.reverse();
        }
        if let Some(after) = &query.after {
            items.retain(|item| if query.descending { item.key < *after } else { item.key > *after });
        }
        let limit = usize::try_from(query.limit).unwrap_or(usize::MAX);
        let next = (items.len() > limit).then(|| {
            let after = Some(items[limit - 1].key.clone());
            (Query { after, ..query.clone() }, pinned)
        });
        items.truncate(limit);
        let count = items.len() as u64;
        match query.select {
            0 => {}
            1 => items.iter_mut().for_each(|item| item.value = Bytes::new()),
            _ => items.clear(),
        }
        Page { items, count, next, revision }
    }
}
