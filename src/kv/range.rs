//! Neighbouring keys: which are meant, how they are asked for, and what comes back.
//!
//! Keys are ordered bytewise. A range is half open: its start belongs to it, its end does not.

use super::command::CommandError;
use super::store::{KeyValue, Revision};
use bytes::Bytes;
use std::ops::Bound;

/// The keys from a start up to an end, or up to the last one. Never empty by construction: some key could be in it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyRange {
    start: Bytes,
    /// Invariant: greater than `start`.
    end: Option<Bytes>,
}

impl KeyRange {
    /// Every key.
    #[must_use]
    pub fn all() -> Self {
        Self { start: Bytes::new(), end: None }
    }

    /// One key alone.
    #[must_use]
    pub fn key(key: impl AsRef<[u8]>) -> Self {
        let key = key.as_ref();
        // Nothing sorts between a key and the same key with a zero behind it.
        let end = [key, &[0]].concat().into();
        Self { start: Bytes::copy_from_slice(key), end: Some(end) }
    }

    /// Every key that starts with `prefix`. An empty prefix is every key's.
    ///
    /// ```
    /// use d_engine::kv::KeyRange;
    ///
    /// assert_eq!(KeyRange::prefix("lock/"), KeyRange::between("lock/", "lock0")?);
    /// assert_eq!(KeyRange::prefix([0xff, 0xff]), KeyRange::starting_at([0xff, 0xff]));
    /// # Ok::<(), d_engine::kv::CommandError>(())
    /// ```
    #[must_use]
    pub fn prefix(prefix: impl AsRef<[u8]>) -> Self {
        let prefix = prefix.as_ref();
        let mut end = prefix.to_vec();
        while end.last() == Some(&0xff) {
            end.pop();
        }
        let end = end.last_mut().map(|last| *last += 1).map(|()| end);
        Self { start: Bytes::copy_from_slice(prefix), end: end.map(Bytes::from) }
    }

    /// The keys from `start` on that are less than `end`.
    ///
    /// # Errors
    /// [`CommandError::Range`] when no key can be in it: the end is not behind the start.
    pub fn between(start: impl AsRef<[u8]>, end: impl AsRef<[u8]>) -> Result<Self, CommandError> {
        Self::from_parts(Bytes::copy_from_slice(start.as_ref()), Some(Bytes::copy_from_slice(end.as_ref())))
    }

    /// The keys from `start` on.
    #[must_use]
    pub fn starting_at(start: impl AsRef<[u8]>) -> Self {
        Self { start: Bytes::copy_from_slice(start.as_ref()), end: None }
    }

    pub(super) fn from_parts(start: Bytes, end: Option<Bytes>) -> Result<Self, CommandError> {
        if end.as_ref().is_some_and(|end| *end <= start) {
            return Err(CommandError::Range);
        }
        Ok(Self { start, end })
    }

    /// The least key that can be in it.
    #[must_use]
    pub fn start(&self) -> &[u8] {
        &self.start
    }

    /// The first key behind it; `None` when it goes on to the last key.
    #[must_use]
    pub fn end(&self) -> Option<&[u8]> {
        self.end.as_deref()
    }

    pub(super) fn bounds(&self) -> Bounds<'_> {
        (Bound::Included(self.start()), self.end().map_or(Bound::Unbounded, Bound::Excluded))
    }

    /// Whether `key` is in it.
    #[must_use]
    pub fn contains(&self, key: &[u8]) -> bool {
        key >= &self.start[..] && self.end().is_none_or(|end| key < end)
    }

    /// Whether a key can be in both.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        let starts_before = |a: &Self, b: &Self| b.end().is_none_or(|end| a.start() < end);
        starts_before(self, other) && starts_before(other, self)
    }

    /// The key, when no other can be in it.
    #[must_use]
    pub fn single(&self) -> Option<&[u8]> {
        let end = self.end()?;
        (end.len() == self.start.len() + 1 && end.starts_with(&self.start) && end.last() == Some(&0))
            .then_some(&self.start[..])
    }
}

/// Both ends of a range, as the store's map takes them.
pub(super) type Bounds<'a> = (Bound<&'a [u8]>, Bound<&'a [u8]>);

/// The way through a range.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Order {
    /// From its start.
    #[default]
    Ascending,
    /// From its end.
    Descending,
}

/// How much of each key is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Select {
    /// All of it.
    #[default]
    Whole,
    /// Everything but the value, which comes back empty.
    KeysOnly,
    /// Only how many there are.
    CountOnly,
}

/// A question for the keys of a range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeQuery {
    /// Which keys.
    pub range: KeyRange,
    /// The most keys wanted in one page, at least 1. A page holds at most [`PAGE_KEYS`] keys and about [`PAGE_BYTES`] bytes,
    /// or counts at most [`COUNT_KEYS`], whatever is asked.
    pub limit: usize,
    /// From which end.
    pub order: Order,
    /// What of each.
    pub select: Select,
    /// The state to read; `None` is the newest.
    pub revision: Option<Revision>,
    /// The key behind which, on the way, the page begins.
    pub after: Option<Bytes>,
}

/// Keys in one page, at most.
pub const PAGE_KEYS: usize = 10_000;

/// Keys that a page which only counts stands for, at most: nothing is applied while they are counted.
pub const COUNT_KEYS: usize = 10 * PAGE_KEYS;

/// Keys that one command may delete by ranges, at most: nothing else is applied meanwhile, on no replica. Belongs to the
/// format, since replicas that disagreed would diverge.
pub const DELETE_KEYS: usize = 10_000;

/// Bytes of keys and values in one page: it ends with the first key that reaches them.
pub const PAGE_BYTES: usize = 4 << 20;

impl RangeQuery {
    /// The newest state of `range`, in ascending order, whole, in the largest pages there are.
    #[must_use]
    pub fn new(range: KeyRange) -> Self {
        let (order, select) = (Order::Ascending, Select::Whole);
        Self { range, limit: usize::MAX, order, select, revision: None, after: None }
    }

    /// From where to where in the order of keys; `None` when `after` leaves nothing.
    pub(super) fn bounds(&self) -> Option<Bounds<'_>> {
        let (start, end) = self.range.bounds();
        let Some(after) = self.after.as_deref() else { return Some((start, end)) };
        let behind_start = after >= self.range.start();
        let before_end = self.range.end().is_none_or(|end| after < end);
        match self.order {
            Order::Ascending if !behind_start => Some((start, end)),
            Order::Ascending => before_end.then_some((Bound::Excluded(after), end)),
            Order::Descending if !before_end => Some((start, end)),
            // Nothing is before the start.
            Order::Descending => {
                (behind_start && after != self.range.start()).then_some((start, Bound::Excluded(after)))
            }
        }
    }

    /// At most `limit` keys a page.
    #[must_use]
    pub fn limit(self, limit: usize) -> Self {
        Self { limit, ..self }
    }

    /// From the greatest key down.
    #[must_use]
    pub fn descending(self) -> Self {
        Self { order: Order::Descending, ..self }
    }

    /// Without values.
    #[must_use]
    pub fn keys_only(self) -> Self {
        Self { select: Select::KeysOnly, ..self }
    }

    /// Only their number.
    #[must_use]
    pub fn count_only(self) -> Self {
        Self { select: Select::CountOnly, ..self }
    }

    /// As it was at `revision`.
    #[must_use]
    pub fn at(self, revision: Revision) -> Self {
        Self { revision: Some(revision), ..self }
    }

    /// Behind `key`, on the way.
    #[must_use]
    pub fn after(self, key: impl AsRef<[u8]>) -> Self {
        Self { after: Some(Bytes::copy_from_slice(key.as_ref())), ..self }
    }
}

/// A part of a range, all of it at one revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangePage {
    /// The keys, in the order asked for; none when only their number was.
    pub items: Vec<KeyValue>,
    /// How many keys the page stands for: those in `items`, or those counted.
    pub count: u64,
    /// Where to go on, if there is more: the question for the next page, which reads the same revision.
    pub next: Option<RangeQuery>,
    /// The state that was read.
    pub revision: Revision,
}
