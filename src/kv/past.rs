//! Reading: keys and ranges at any revision that is kept, and what has happened since one.
//!
//! Every answer is bounded by [`PAGE_KEYS`] and [`PAGE_BYTES`], and names its revision. No query panics.

use super::entry::{Entry, KeyValue, Revision};
use super::event::{Event, RevisionError};
use super::history::{Left, Position, Record};
use super::key::Key;
use super::range::{COUNT_KEYS, Order, PAGE_BYTES, PAGE_KEYS, RangePage, RangeQuery, Select};
use super::store::{Page, Store};
use super::table::RoomNumber;
use bytes::Bytes;
use std::collections::btree_map;
use std::ops::Bound;

/// A change of one key, where it is kept.
#[derive(Clone, Copy)]
pub(crate) struct Change<'a> {
    store: &'a Store,
    record: &'a Record,
}

impl<'a> Change<'a> {
    /// The revision that it belongs to.
    pub fn revision(&self) -> Revision {
        self.record.revision
    }

    /// The key that it changed.
    pub fn key(&self) -> &'a [u8] {
        self.record.key.as_slice()
    }

    /// Whether it removed the key.
    pub fn is_delete(&self) -> bool {
        self.record.left == Left::Nothing
    }

    /// The change as it is told; with what was there before, if `previous`.
    pub fn event(&self, previous: bool) -> Event {
        let key = &self.record.key;
        let mut before = self.record.before().filter(|_| previous);
        if wal::mutant!("previous_is_after") && previous {
            before = self.after();
        }
        let previous = before.map(|entry| entry.with_key(key));
        match self.after() {
            Some(after) => Event::Put { new: after.with_key(key), previous },
            None => Event::Delete { key: Bytes::copy_from_slice(key.as_slice()), previous },
        }
    }

    fn after(&self) -> Option<&'a Entry> {
        let entries = &self.store.entries;
        self.store.history.after(self.record, |key| entries.find(key.as_slice()).map(|(_, entry)| entry))
    }

    /// Bytes of its event with everything in it.
    fn bytes(&self) -> usize {
        let value = |entry: Option<&Entry>| entry.map_or(0, |entry| entry.value_bytes());
        self.key().len() + value(self.record.before()) + value(self.after())
    }
}

/// How much one page may hold.
#[derive(Clone, Copy, Debug)]
pub(super) struct PageLimits {
    pub keys: usize,
    /// If only their number is asked for.
    pub counted: usize,
    pub bytes: usize,
}

impl PageLimits {
    pub const READ: Self = Self { keys: PAGE_KEYS, counted: COUNT_KEYS, bytes: PAGE_BYTES };
}

impl Store {
    /// What is stored under `key`.
    #[must_use]
    pub fn get(&self, key: &[u8]) -> Option<KeyValue> {
        self.entries.find(key).map(|(key, entry)| entry.with_key(key))
    }

    /// What is stored under each of `keys`, in their order, all at the store's one revision.
    #[must_use]
    pub fn get_multi(&self, keys: &[impl AsRef<[u8]>]) -> Vec<Option<KeyValue>> {
        keys.iter().map(|key| self.get(key.as_ref())).collect()
    }

    /// What was stored under `key` at `revision`. Takes time in proportion to the changes of the key since then.
    ///
    /// # Errors
    /// When that revision is not kept any more, or not there yet.
    ///
    /// ```
    /// # use bytes::BytesMut;
    /// # use d_engine::kv::{Revision, RevisionError, Store, encode_delete, encode_put};
    /// let mut store = Store::new();
    /// for value in ["blue", "green"] {
    ///     let mut command = BytesMut::new();
    ///     encode_put(b"color", value.as_bytes(), &mut command)?;
    ///     store.apply(&command);
    /// }
    /// let mut command = BytesMut::new();
    /// encode_delete(b"color", &mut command)?;
    /// store.apply(&command);
    ///
    /// assert_eq!(store.get_at(b"color", Revision(1))?, None);
    /// assert_eq!(&store.get_at(b"color", Revision(2))?.expect("put at 2").value[..], b"blue");
    /// assert_eq!(&store.get_at(b"color", Revision(3))?.expect("put at 3").value[..], b"green");
    /// assert_eq!(store.get_at(b"color", Revision(4))?, None);
    /// let (requested, current) = (Revision(5), Revision(4));
    /// assert_eq!(store.get_at(b"color", Revision(5)), Err(RevisionError::Future { requested, current }));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn get_at(&self, key: &[u8], revision: Revision) -> Result<Option<KeyValue>, RevisionError> {
        let at = self.readable(revision)?;
        let (key, found) = if let Some((key, now)) = self.entries.find(key) {
            (key, self.history.entry_at(now, at))
        } else if let Some((key, &deletion)) = self.history.gone().get_key_value(key) {
            (key, self.history.gone_at(deletion, at))
        } else {
            return Ok(None);
        };
        Ok(found.map(|entry| entry.with_key(key)))
    }

    /// A page of the keys that `query` asks for, all of it at one revision. A page that ends early says how to go on. A limit
    /// of 0 is taken for 1.
    ///
    /// # Errors
    /// When the revision that is asked for is not kept any more, or not there yet.
    ///
    /// ```
    /// # use bytes::BytesMut;
    /// # use d_engine::kv::{KeyRange, RangeQuery, Store, encode_put};
    /// let mut store = Store::new();
    /// for key in ["lock/a", "lock/b", "lock/c", "other"] {
    ///     let mut command = BytesMut::new();
    ///     encode_put(key.as_bytes(), b"", &mut command)?;
    ///     store.apply(&command);
    /// }
    /// let locks = RangeQuery::new(KeyRange::prefix("lock/")).descending().limit(2);
    /// let first = store.range(&locks)?;
    /// assert_eq!(first.items.iter().map(|item| &item.key[..]).collect::<Vec<_>>(), [b"lock/c", b"lock/b"]);
    ///
    /// let rest = store.range(&first.next.expect("there is another"))?;
    /// assert_eq!(&rest.items[0].key[..], b"lock/a");
    /// assert_eq!(rest.next, None);
    ///
    /// let number = store.range(&RangeQuery::new(KeyRange::all()).count_only())?;
    /// assert_eq!((number.count, number.items.len()), (4, 0));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn range(&self, query: &RangeQuery) -> Result<RangePage, RevisionError> {
        let at = query.revision.map_or(Ok(self.revision), |revision| self.readable(revision))?;
        Ok(self.page(query, at, PageLimits::READ))
    }

    /// The page at `at`, whatever the query says of it. Holds a key if there is one and `limits` have a byte left.
    pub(super) fn page(&self, query: &RangeQuery, at: Revision, limits: PageLimits) -> RangePage {
        let mut page = RangePage { items: Vec::new(), count: 0, next: None, revision: at };
        let most = if query.select == Select::CountOnly { limits.counted } else { limits.keys }.max(1);
        let limit = query.limit.clamp(1, most) as u64;
        let mut bytes = 0;
        let mut last: Option<&Key> = None;
        for (key, entry) in self.walk(query, at) {
            if page.count == limit || bytes >= limits.bytes {
                let mut next = RangeQuery { revision: Some(at), ..query.clone() };
                if let Some(last) = last {
                    next.after = Some(Bytes::copy_from_slice(last.as_slice()));
                }
                page.next = Some(next);
                break;
            }
            page.count += 1;
            last = Some(key);
            match query.select {
                Select::Whole => {
                    bytes += key.as_slice().len() + entry.value_bytes();
                    page.items.push(entry.with_key(key));
                }
                Select::KeysOnly => {
                    bytes += key.as_slice().len();
                    page.items.push(entry.without_value(key));
                }
                Select::CountOnly => {}
            }
        }
        page
    }

    /// The keys of a query that were there at `at`, on its way.
    fn walk<'a>(&'a self, query: &'a RangeQuery, at: Revision) -> Walk<'a> {
        let bounds = query.bounds();
        let past = at < self.revision;
        let present = bounds.map(|bounds| self.entries.range(bounds));
        let gone = bounds.filter(|_| past).map(|bounds| self.history.gone().range::<[u8], _>(bounds));
        let mut walk = Walk {
            store: self,
            at,
            order: query.order,
            present: Way { rest: present, head: None },
            gone: Way { rest: gone, head: None },
        };
        walk.present.step(query.order);
        walk.gone.step(query.order);
        walk
    }

    /// The first `limit` keys that start with `prefix`; at most [`PAGE_KEYS`] keys and about [`PAGE_BYTES`] bytes whatever is
    /// asked. An empty prefix is every key's.
    ///
    /// ```
    /// # use bytes::BytesMut;
    /// # use d_engine::kv::{Store, encode_put};
    /// let mut store = Store::new();
    /// for key in ["lock/a", "lock/b", "lock/c", "other"] {
    ///     let mut command = BytesMut::new();
    ///     encode_put(key.as_bytes(), b"", &mut command)?;
    ///     store.apply(&command);
    /// }
    /// let first = store.scan_prefix(b"lock/", 2);
    /// assert_eq!(first.items.iter().map(|item| &item.key[..]).collect::<Vec<_>>(), [b"lock/a", b"lock/b"]);
    /// assert!(first.more);
    ///
    /// let rest = store.scan_prefix_after(b"lock/", &first.items[1].key, 2);
    /// assert_eq!(&rest.items[0].key[..], b"lock/c");
    /// assert!(!rest.more);
    /// # Ok::<(), d_engine::kv::CommandError>(())
    /// ```
    #[must_use]
    pub fn scan_prefix(&self, prefix: &[u8], limit: usize) -> Page {
        self.scan(Bound::Included(prefix), prefix, limit)
    }

    /// The first `limit` keys that start with `prefix` and come after `after`: the page that follows one that ended
    /// there. `after` need not exist any more.
    #[must_use]
    pub fn scan_prefix_after(&self, prefix: &[u8], after: &[u8], limit: usize) -> Page {
        // All keys that sort before `prefix` and are after `after` do not start with it.
        let from = if after < prefix { Bound::Included(prefix) } else { Bound::Excluded(after) };
        self.scan(from, prefix, limit)
    }

    fn scan(&self, from: Bound<&[u8]>, prefix: &[u8], limit: usize) -> Page {
        // Keys that share a prefix are neighbours in bytewise order: the first one without it ends the scan.
        let found = self
            .entries
            .range((from, Bound::Unbounded))
            .take_while(|(key, _)| key.as_slice().starts_with(prefix))
            .map(|(key, &room)| (key, self.entries.entry(room)));
        let limit = limit.min(PAGE_KEYS);
        let (mut items, mut bytes) = (Vec::new(), 0);
        for (key, entry) in found {
            if items.len() == limit || bytes >= PAGE_BYTES {
                return Page { items, more: true };
            }
            bytes += key.as_slice().len() + entry.value_bytes();
            items.push(entry.with_key(key));
        }
        Page { items, more: false }
    }

    /// The changes of `key` from `from` on, each with what it replaced, in their order: the first `limit` of them, at most
    /// [`PAGE_KEYS`] and about [`PAGE_BYTES`] bytes whatever is asked. The next page begins behind the last revision of this
    /// one; an empty page is the end. Takes time in proportion to the changes of the key since `from`. A limit of 0 is taken for 1.
    ///
    /// # Errors
    /// When changes from `from` on are not kept any more, or `from` is above the revision that follows the store's.
    ///
    /// ```
    /// # use bytes::BytesMut;
    /// # use d_engine::kv::{Event, Revision, Store, encode_delete, encode_put};
    /// let mut store = Store::new();
    /// let mut command = BytesMut::new();
    /// encode_put(b"color", b"blue", &mut command)?;
    /// store.apply(&command);
    /// command.clear();
    /// encode_delete(b"color", &mut command)?;
    /// store.apply(&command);
    ///
    /// let history = store.history(b"color", store.oldest(), 10)?;
    /// assert!(matches!(&history[0], (Revision(2), put) if put.is_create()));
    /// let (Revision(3), Event::Delete { previous: Some(was), .. }) = &history[1] else { panic!("{history:?}") };
    /// assert_eq!(&was.value[..], b"blue");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn history(
        &self,
        key: &[u8],
        from: Revision,
        limit: usize,
    ) -> Result<Vec<(Revision, Event)>, RevisionError> {
        self.tellable(from)?;
        let newest = match self.entries.find(key) {
            Some((_, now)) => now.change,
            None => self.history.gone().get(key).copied().unwrap_or(Position::NONE),
        };
        let limit = limit.clamp(1, PAGE_KEYS);
        let (mut events, mut bytes) = (Vec::new(), 0);
        let mut record = self.history.earliest(newest, from);
        while let Some(found) = record
            && events.len() < limit
            && bytes < PAGE_BYTES
        {
            let change = Change { store: self, record: found };
            bytes += change.bytes();
            events.push((change.revision(), change.event(true)));
            record = self.history.next(found);
        }
        Ok(events)
    }

    /// All changes from `from` on, by revision, those of one revision by key.
    ///
    /// # Errors
    /// When some of them are not kept any more, or `from` is above the revision that follows the store's.
    pub(crate) fn changes_from(
        &self,
        from: Revision,
    ) -> Result<impl Iterator<Item = Change<'_>>, RevisionError> {
        self.tellable(from)?;
        Ok(self.history.records_from(from).map(|record| Change { store: self, record }))
    }

    /// The oldest revision that can be read, and whose change can be told.
    #[must_use]
    pub fn oldest(&self) -> Revision {
        self.history.oldest()
    }

    /// Number of changes that are kept.
    #[must_use]
    pub fn history_len(&self) -> usize {
        self.history.len()
    }

    /// Bytes that only the history holds: keys, replaced and deleted values, and what it costs to note a change.
    #[must_use]
    pub fn history_bytes(&self) -> u64 {
        self.history.bytes()
    }

    fn readable(&self, requested: Revision) -> Result<Revision, RevisionError> {
        let (oldest, current) = (self.history.oldest(), self.revision);
        assert!(oldest <= current, "the newest state can be read");
        if requested < oldest {
            return Err(RevisionError::Compacted { requested, oldest });
        }
        if requested > current {
            return Err(RevisionError::Future { requested, current });
        }
        Ok(requested)
    }

    /// Changes can be told from the next revision on, too: there are none yet.
    fn tellable(&self, from: Revision) -> Result<(), RevisionError> {
        if from == self.revision.next() { Ok(()) } else { self.readable(from).map(drop) }
    }
}

/// One of the two trees that have the keys of a past state, from one of its ends.
struct Way<'a, V> {
    rest: Option<btree_map::Range<'a, Key, V>>,
    head: Option<(&'a Key, &'a V)>,
}

impl<'a, V> Way<'a, V> {
    /// Gives the head away and goes on.
    fn step(&mut self, order: Order) -> Option<(&'a Key, &'a V)> {
        let next = self.rest.as_mut().and_then(|rest| match order {
            Order::Ascending => rest.next(),
            Order::Descending => rest.next_back(),
        });
        std::mem::replace(&mut self.head, next)
    }
}

/// The keys that were there at a revision: those that are present and those that are gone, merged, without the ones that
/// were not there then.
struct Walk<'a> {
    store: &'a Store,
    at: Revision,
    order: Order,
    present: Way<'a, RoomNumber>,
    gone: Way<'a, Position>,
}

impl<'a> Iterator for Walk<'a> {
    type Item = (&'a Key, &'a Entry);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let present_first = match (self.present.head, self.gone.head) {
                (Some(_), None) => true,
                (None, Some(_)) => false,
                (None, None) => return None,
                (Some((present, _)), Some((gone, _))) => match self.order {
                    Order::Ascending => present < gone,
                    Order::Descending => present > gone,
                },
            };
            let (key, found) = if present_first {
                let (key, &room) = self.present.step(self.order)?;
                (key, self.store.history.entry_at(self.store.entries.entry(room), self.at))
            } else {
                let (key, &deletion) = self.gone.step(self.order)?;
                (key, self.store.history.gone_at(deletion, self.at))
            };
            if let Some(entry) = found {
                return Some((key, entry));
            }
        }
    }
}
