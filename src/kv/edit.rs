//! Changing keys: one edit is one revision, whatever it does to however many keys.

use super::entry::{Entry, KeyValue, Revision};
use super::history::{Before, Left, Position};
use super::key::Key;
use super::lease::{Attach, LeaseError, LeaseId};
use super::past::PageLimits;
use super::range::{KeyRange, RangePage, RangeQuery};
use super::store::Store;
use super::table::{Place, Room};
use bytes::BufMut;
use std::collections::BTreeMap;
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

    /// Whether each of these keys, no two of them the same, can be put with its attachment by one edit. Room that the edit
    /// itself would make is not counted on.
    pub(super) fn check_attach<'k>(
        &self,
        puts: impl IntoIterator<Item = (&'k [u8], Attach)>,
    ) -> Result<(), LeaseError> {
        let mut made = 0;
        let mut attached = BTreeMap::<LeaseId, usize>::new();
        for (key, attach) in puts {
            match attach {
                Attach::Nothing | Attach::Keep => {}
                Attach::Ttl(_) => {
                    made += 1;
                    self.leases.check_more(made)?;
                }
                Attach::Lease(lease) => {
                    let has_it =
                        self.entries.find(key).is_some_and(|(_, entry)| entry.lease() == Some(lease));
                    let more = attached.entry(lease).or_default();
                    *more += usize::from(!has_it);
                    self.leases.check_room(lease, *more)?;
                }
            }
        }
        Ok(())
    }
}

impl Edit<'_> {
    /// Sets `key` to `value`; from now on it lives as `attach` says, and as nothing else does. Whether it can was
    /// [asked](Store::check_attach) before. The lease that it is attached to.
    pub fn put(&mut self, key: &[u8], value: &[u8], attach: Attach) -> Option<LeaseId> {
        let store = &mut *self.store;
        let named = match attach {
            Attach::Nothing | Attach::Keep => 0,
            Attach::Lease(lease) => lease.0,
            Attach::Ttl(ttl) => {
                let lease = store.leases.own(ttl, store.sessions.now(), &mut store.digest);
                lease.expect("asked whether there may be one more").0
            }
        };
        let (revision, change) = (self.revision, store.history.end());
        store.bytes += value.len() as u64;
        let (stored_key, before, lease) = match store.entries.place(key) {
            Place::Taken(room) => {
                let lease = if attach == Attach::Keep { room.entry.lease } else { named };
                let before = &room.entry;
                let created = (before.create_revision, before.version + 1);
                store.bytes -= before.value_bytes() as u64;
                let bytes = store.history.spare().buffer(key, value);
                let now = Entry::new((bytes, key.len()), created, revision, lease, change);
                let before = std::mem::replace(&mut room.entry, now);
                (room.key().clone(), Before::Present(before), lease)
            }
            Place::Vacant(place) => {
                let stored_key = Key::from(key);
                store.bytes += key.len() as u64;
                let bytes = store.history.spare().buffer(key, value);
                let now = Entry::new((bytes, key.len()), (revision, 1), revision, named, change);
                place.fill(stored_key.clone(), now);
                (stored_key, Before::Absent(store.history.revive(key)), named)
            }
        };
        self.take(Effect::Set { key, value, lease });
        self.reattach(&stored_key, before.lease(), lease);
        self.store.history.push(revision, stored_key, before, Left::Value);
        (lease != 0).then_some(LeaseId(lease))
    }

    /// A key that was attached to the first lease is attached to the second; 0 is none.
    fn reattach(&mut self, key: &Key, former: u64, lease: u64) {
        if former == lease {
            return;
        }
        let store = &mut *self.store;
        if former != 0 && !(wal::mutant!("overwritten_key_stays_attached") && lease == 0) {
            store.leases.detach(LeaseId(former), key, &mut store.digest);
        }
        if lease != 0 {
            store.leases.attach(LeaseId(lease), key);
        }
    }

    /// Removes `key`; whether it was there.
    pub fn delete(&mut self, key: &[u8]) -> bool {
        let Some(room) = self.store.entries.take(key) else { return false };
        self.reattach(room.key(), room.entry.lease, 0);
        self.removed(room);
        true
    }

    /// Removes the keys of a lease that has ended and knows them no longer.
    pub fn delete_attached(&mut self, keys: Vec<Key>) {
        for key in keys {
            let removed = self.store.entries.take(key.as_slice());
            self.removed(removed.expect("a lease's keys are there"));
        }
    }

    fn removed(&mut self, room: Room) {
        let (key, before) = room.into_parts();
        self.take(Effect::Remove { key: key.as_slice() });
        self.store.bytes -= (key.as_slice().len() + before.value_bytes()) as u64;
        self.store.history.push(self.revision, key, Before::Present(before), Left::Nothing);
    }

    /// Removes the keys of `range`; how many there were.
    pub fn delete_range(&mut self, range: &KeyRange) -> u64 {
        if let Some(key) = range.single() {
            return self.delete(key).into();
        }
        let mut keys: Vec<Key> =
            self.store.entries.range(range.bounds()).map(|(key, _)| key.clone()).collect();
        if wal::mutant!("delete_range_off_by_one") && keys.len() > 1 {
            keys.pop();
        }
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
    #[cfg(test)]
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
                entries.get_mut(key.as_slice()).expect("it was just put").change = change;
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
