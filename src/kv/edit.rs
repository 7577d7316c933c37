//! Changing keys: one edit is one revision, whatever it does to however many keys.

use super::entry::{Entry, KeyValue, Revision};
use super::history::{Before, Left, Position};
use super::key::Key;
use super::lease::LeaseId;
use super::past::PageLimits;
use super::range::{KeyRange, RangePage, RangeQuery};
use super::store::Store;
use bytes::{BufMut, Bytes};
use std::collections::btree_map;
use xxhash_rust::xxh3::xxh3_128;

/// The changes of one command. They take effect one by one, are read by the next ones, and share the revision that the
/// first of them takes; without one there is none. No key is changed twice by one edit: events are told once per key and
/// revision.
///
/// An edit cannot be taken back. What can fail is looked at before its first change, and what can be refused, before the
/// edit.
#[must_use]
pub(super) struct Edit<'a> {
    store: &'a mut Store,
    revision: Revision,
    /// Where the records of the edit begin.
    first: Position,
    changes: usize,
}

impl Store {
    pub(super) fn edit(&mut self) -> Edit<'_> {
        let (revision, first) = (self.revision.next(), self.history.end());
        Edit { store: self, revision, first, changes: 0 }
    }
}

impl Edit<'_> {
    /// Sets `key` to `value`, attached to `lease` from now on, and to nothing else.
    pub fn put(&mut self, key: &[u8], value: &[u8], lease: Option<LeaseId>) {
        let lease = lease.map_or(0, |lease| lease.0);
        self.take(Effect::Set { key, value, lease });
        let store = &mut *self.store;
        let (revision, change) = (self.revision, store.history.end());
        // The bytes are copied: a part of the frame they came in would keep all of the frame alive.
        let value = Bytes::copy_from_slice(value);
        store.bytes += value.len() as u64;
        let entry =
            Entry { value, create_revision: revision, modify_revision: revision, version: 1, lease, change };
        let (key, before) = match store.entries.entry(Key::from(key)) {
            btree_map::Entry::Occupied(mut slot) => {
                let former = slot.get();
                let (create_revision, version) = (former.create_revision, former.version + 1);
                let before = slot.insert(Entry { create_revision, version, ..entry });
                store.bytes -= before.value.len() as u64;
                (slot.key().clone(), Before::Present(before))
            }
            btree_map::Entry::Vacant(slot) => {
                let key = slot.key().clone();
                store.bytes += key.as_slice().len() as u64;
                slot.insert(entry);
                let deletion = store.history.revive(key.as_slice());
                (key, Before::Absent(deletion))
            }
        };
        store.history.push(revision, key, before, Left::Value);
    }

    /// Removes `key`; whether it was there.
    pub fn delete(&mut self, key: &[u8]) -> bool {
        let Some((key, before)) = self.store.entries.remove_entry(key) else { return false };
        self.take(Effect::Remove { key: key.as_slice() });
        self.store.bytes -= (key.as_slice().len() + before.value.len()) as u64;
        self.store.history.push(self.revision, key, Before::Present(before), Left::Nothing);
        true
    }

    /// Removes the keys of `range`; how many there were.
    pub fn delete_range(&mut self, range: &KeyRange) -> u64 {
        if let Some(key) = range.single() {
            return self.delete(key).into();
        }
        let keys: Vec<Key> =
            self.store.entries.range::<[u8], _>(range.bounds()).map(|(key, _)| key.clone()).collect();
        for key in &keys {
            let found = self.delete(key.as_slice());
            assert!(found, "it was just seen");
        }
        keys.len() as u64
    }

    /// What the last put or delete replaced.
    pub fn replaced(&self) -> Option<KeyValue> {
        let last = self.store.history.last().filter(|_| self.changes > 0)?;
        last.before().map(|entry| entry.with_key(&last.key))
    }

    /// What stands under `key`, as changed so far.
    pub fn get(&self, key: &[u8]) -> Option<KeyValue> {
        self.store.get(key)
    }

    /// Reads a range as changed so far; the query's revision is not looked at. The page's revision is the edit's if that has
    /// changed something, and the next page reads what it left when it was finished.
    pub fn read(&self, query: &RangeQuery, limits: PageLimits) -> RangePage {
        self.store.page(query, self.store.revision, limits)
    }

    /// The store as changed so far.
    pub fn store(&self) -> &Store {
        self.store
    }

    /// Ends it; the store's revision, which is the edit's if it changed something.
    pub fn finish(self) -> Revision {
        let Self { store, first, changes, .. } = self;
        if changes > 1 {
            let entries = &mut store.entries;
            store.history.sort(first, |key, change| {
                entries.get_mut(key).expect("it was just put").change = change;
            });
        }
        store.history.settle(changes, store.revision);
        store.revision
    }

    /// Takes the revision for `effect` and chains it into the digest.
    fn take(&mut self, effect: Effect<'_>) {
        self.changes += 1;
        self.store.revision = self.revision;
        self.store.digest = effect.chain(self.store.digest, self.revision);
    }
}

/// What a command did to a key, without the way it was asked for: a put and a successful compare-and-swap to the same value
/// have one effect.
#[derive(Clone, Copy)]
pub(super) enum Effect<'a> {
    Set { key: &'a [u8], value: &'a [u8], lease: u64 },
    Remove { key: &'a [u8] },
}

impl Effect<'_> {
    /// Key and value are hashed apart, so that no byte can move from one to the other unseen, and nothing is copied.
    pub fn chain(self, previous: u128, revision: Revision) -> u128 {
        let (kind, key, value, lease) = match self {
            Self::Set { key, value, lease } => (1, key, value, lease),
            Self::Remove { key } => (2, key, &[][..], 0),
        };
        // A link of one length is never taken for one of another: XXH3 hashes the length too.
        let mut link = [0_u8; 72];
        let mut out = &mut link[..];
        out.put_u128_le(previous);
        out.put_u64_le(revision.0);
        out.put_u64_le(kind);
        out.put_u128_le(xxh3_128(key));
        out.put_u128_le(xxh3_128(value));
        out.put_u64_le(lease);
        let length = if lease == 0 { 64 } else { 72 };
        xxh3_128(&link[..length])
    }
}
