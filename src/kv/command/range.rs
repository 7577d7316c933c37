//! Ranges and the questions for them, borrowed from a command's bytes.
//!
//! ```text
//! range   = start (key, may be empty), 0 (to the last key) | 1 end (key)
//! query   = range, limit (u64), order (0 ascending, 1 descending), select (0 whole, 1 keys, 2 count),
//!           0 (from the beginning) | 1 after (key)
//! ```

use super::super::codec::{Reader, put_bytes};
use super::super::range::{KeyRange, Order, RangeQuery, Select};
use super::errors::{CommandError, Field};
use super::form::PREFIX;
use super::limits::Limits;
use bytes::{BufMut, Bytes, BytesMut};
use std::ops::Bound;

/// [`KeyRange`], borrowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::kv) struct RangeRef<'a> {
    pub start: &'a [u8],
    /// Greater than the start, once checked.
    pub end: Option<&'a [u8]>,
}

impl<'a> From<&'a KeyRange> for RangeRef<'a> {
    fn from(range: &'a KeyRange) -> Self {
        Self { start: range.start(), end: range.end() }
    }
}

impl<'a> RangeRef<'a> {
    /// Start, flag.
    pub(super) const LEAST_BYTES: usize = PREFIX + 1;

    pub fn bounds(&self) -> (Bound<&'a [u8]>, Bound<&'a [u8]>) {
        (Bound::Included(self.start), self.end.map_or(Bound::Unbounded, Bound::Excluded))
    }

    /// The same, owning its bytes.
    pub fn to_range(self) -> KeyRange {
        let copy = Bytes::copy_from_slice;
        KeyRange::from_parts(copy(self.start), self.end.map(copy)).expect("the end was checked")
    }

    /// The key, when no other can be in it.
    pub fn single(&self) -> Option<&'a [u8]> {
        let (last, key) = self.end?.split_last()?;
        (*last == 0 && key == self.start).then_some(key)
    }

    pub(super) fn check(&self, limits: Limits) -> Result<(), CommandError> {
        if let Some(key) = self.single() {
            return limits.check_key(key);
        }
        if self.end.is_some_and(|end| end <= self.start) {
            return Err(CommandError::Range);
        }
        limits.check_bound(self.start)?;
        self.end.map_or(Ok(()), |end| limits.check_bound(end))
    }

    pub(super) fn read(reader: &mut Reader<'a>) -> Result<Self, CommandError> {
        Ok(Self { start: reader.bytes()?, end: read_optional(reader, Field::End)? })
    }

    pub(super) fn encoded_bytes(&self) -> usize {
        PREFIX + self.start.len() + optional_bytes(self.end)
    }

    pub(super) fn write(&self, out: &mut BytesMut) {
        put_bytes(out, self.start);
        put_optional(out, self.end);
    }

    /// The same, sharing `bytes`, which it was read from.
    pub(super) fn share(&self, bytes: &Bytes) -> KeyRange {
        KeyRange::from_parts(bytes.slice_ref(self.start), self.end.map(|end| bytes.slice_ref(end)))
            .expect("the end was checked")
    }
}

/// A query in a transaction: [`RangeQuery`] without a revision, borrowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::kv) struct QueryRef<'a> {
    pub range: RangeRef<'a>,
    pub limit: usize,
    pub order: Order,
    pub select: Select,
    pub after: Option<&'a [u8]>,
}

impl<'a> QueryRef<'a> {
    pub(super) fn new(query: &'a RangeQuery) -> Result<Self, CommandError> {
        let RangeQuery { range, limit, order, select, revision, after } = query;
        if let Some(revision) = revision {
            return Err(CommandError::PastInTxn(revision.0));
        }
        let (range, after) = (range.into(), after.as_deref());
        Ok(Self { range, limit: *limit, order: *order, select: *select, after })
    }

    pub(super) fn check(&self, limits: Limits) -> Result<(), CommandError> {
        if self.limit == 0 {
            return Err(CommandError::RangeLimit);
        }
        self.range.check(limits)?;
        self.after.map_or(Ok(()), |after| limits.check_bound(after))
    }

    pub(super) fn read(reader: &mut Reader<'a>) -> Result<Self, CommandError> {
        Ok(Self {
            range: RangeRef::read(reader)?,
            limit: usize::try_from(reader.u64()?).unwrap_or(usize::MAX),
            order: match reader.u8()? {
                0 => Order::Ascending,
                1 => Order::Descending,
                value => return Err(CommandError::Field { field: Field::Order, value }),
            },
            select: match reader.u8()? {
                0 => Select::Whole,
                1 => Select::KeysOnly,
                2 => Select::CountOnly,
                value => return Err(CommandError::Field { field: Field::Select, value }),
            },
            after: read_optional(reader, Field::After)?,
        })
    }

    pub(super) fn encoded_bytes(&self) -> usize {
        self.range.encoded_bytes() + size_of::<u64>() + 2 + optional_bytes(self.after)
    }

    pub(super) fn write(&self, out: &mut BytesMut) {
        self.range.write(out);
        out.put_u64_le(self.limit as u64);
        out.put_u8(match self.order {
            Order::Ascending => 0,
            Order::Descending => 1,
        });
        out.put_u8(match self.select {
            Select::Whole => 0,
            Select::KeysOnly => 1,
            Select::CountOnly => 2,
        });
        put_optional(out, self.after);
    }

    /// The same as a query of its own: of the newest state, owning its bytes.
    pub fn to_query(self) -> RangeQuery {
        self.query(self.range.to_range(), self.after.map(Bytes::copy_from_slice))
    }

    /// The same, sharing `bytes`, which it was read from.
    pub(super) fn share(&self, bytes: &Bytes) -> RangeQuery {
        self.query(self.range.share(bytes), self.after.map(|after| bytes.slice_ref(after)))
    }

    fn query(&self, range: KeyRange, after: Option<Bytes>) -> RangeQuery {
        let Self { limit, order, select, .. } = *self;
        RangeQuery { range, limit, order, select, revision: None, after }
    }
}

fn read_optional<'a>(reader: &mut Reader<'a>, field: Field) -> Result<Option<&'a [u8]>, CommandError> {
    match reader.u8()? {
        0 => Ok(None),
        1 => Ok(Some(reader.bytes()?)),
        value => Err(CommandError::Field { field, value }),
    }
}

fn optional_bytes(bytes: Option<&[u8]>) -> usize {
    1 + bytes.map_or(0, |bytes| PREFIX + bytes.len())
}

fn put_optional(out: &mut BytesMut, bytes: Option<&[u8]>) {
    match bytes {
        None => out.put_u8(0),
        Some(bytes) => {
            out.put_u8(1);
            put_bytes(out, bytes);
        }
    }
}
