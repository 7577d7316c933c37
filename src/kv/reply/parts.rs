//! What replies are made of: keys with their values, pages of them, and what transactions came to.
//!
//! ```text
//! key value  = key, value, create revision (u64), modify revision (u64), version (u64), lease (u64, 0 none)
//! query      = start, optional end, limit (u64), order (0 | 1), select (0 to 2), 0 | 1 revision (u64), optional after
//! page       = count of items (u32), each: key value; count (u64), 0 | 1 query (next), revision (u64)
//! came to    = succeeded (0 | 1), count of results (u16), each: result
//! result     = 1 (put) told (0 whole | 1 without value), 0 | 1 key value, lease (u64, 0 none)
//!            | 2 (deleted) keys (u64) | 3 page | 4 came to
//! optional x = 0 | 1 x
//! ```

use super::ReplyError;
use crate::kv::codec::{Reader, put_bytes};
use crate::kv::range::{KeyRange, Order, RangePage, RangeQuery, Select};
use crate::kv::txn::{OpReply, TXN_DEPTH, TxnReply};
use crate::kv::{KeyValue, LeaseId, Revision};
use bytes::{BufMut, Bytes, BytesMut};
use std::time::Duration;
use xxhash_rust::xxh3::xxh3_128;

const PUT: u8 = 1;
const DELETED: u8 = 2;
const RANGE: u8 = 3;
const TXN: u8 = 4;

/// The shortest key value, and the shortest result.
const KEY_VALUE_BYTES: usize = 2 * 4 + 4 * 8;
const RESULT_BYTES: usize = 1 + 1 + 2;

/// Where a reply is written to, and whether keys and values are written themselves or only their hashes.
pub(super) struct Writer<'a> {
    pub out: &'a mut BytesMut,
    pub put_bytes: fn(&mut BytesMut, &[u8]),
}

impl<'a> Writer<'a> {
    pub fn whole(out: &'a mut BytesMut) -> Self {
        Self { out, put_bytes }
    }

    /// For a fingerprint: keys and values are hashed where they are.
    pub fn hashed(out: &'a mut BytesMut) -> Self {
        Self { out, put_bytes: |out, bytes| out.put_u128_le(xxh3_128(bytes)) }
    }

    pub fn head(&mut self, tag: u8, revision: Revision) {
        self.u8(tag);
        self.u64(revision.0);
    }

    pub fn refusal(&mut self, tag: u8, (code, first, second): (u8, u64, u64)) {
        self.u8(tag);
        self.u8(code);
        self.u64(first);
        self.u64(second);
    }

    pub fn millis(&mut self, duration: Duration) {
        self.u64(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX));
    }

    pub fn u8(&mut self, value: u8) {
        self.out.put_u8(value);
    }

    pub fn u64(&mut self, value: u64) {
        self.out.put_u64_le(value);
    }

    pub fn bytes(&mut self, bytes: &[u8]) {
        (self.put_bytes)(self.out, bytes);
    }

    pub fn lease(&mut self, lease: Option<LeaseId>) {
        self.u64(lease.map_or(0, |lease| lease.0));
    }

    pub fn optional<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Self, T)) {
        self.u8(value.is_some().into());
        if let Some(value) = value {
            write(self, value);
        }
    }

    pub fn key_value(&mut self, kv: &KeyValue) {
        self.bytes(&kv.key);
        self.bytes(&kv.value);
        self.u64(kv.create_revision.0);
        self.u64(kv.modify_revision.0);
        self.u64(kv.version);
        self.lease(kv.lease);
    }

    fn query(&mut self, query: &RangeQuery) {
        let RangeQuery { range, limit, order, select, revision, after } = query;
        self.bytes(range.start());
        self.optional(range.end(), Self::bytes);
        self.u64(*limit as u64);
        self.u8(match order {
            Order::Ascending => 0,
            Order::Descending => 1,
        });
        self.u8(match select {
            Select::Whole => 0,
            Select::KeysOnly => 1,
            Select::CountOnly => 2,
        });
        self.optional(*revision, |writer, revision| writer.u64(revision.0));
        self.optional(after.as_deref(), Self::bytes);
    }

    fn page(&mut self, page: &RangePage) {
        self.out.put_u32_le(u32::try_from(page.items.len()).expect("a page is bounded"));
        page.items.iter().for_each(|kv| self.key_value(kv));
        self.u64(page.count);
        self.optional(page.next.as_ref(), Self::query);
        self.u64(page.revision.0);
    }

    pub fn txn(&mut self, reply: &TxnReply) {
        self.u8(reply.succeeded.into());
        self.out.put_u16_le(u16::try_from(reply.results.len()).expect("a transaction is bounded"));
        for result in &reply.results {
            match result {
                OpReply::Put { previous, told, lease } => {
                    self.u8(PUT);
                    self.u8((*told != Select::Whole).into());
                    self.optional(previous.as_ref(), Self::key_value);
                    self.lease(*lease);
                }
                OpReply::Deleted(keys) => {
                    self.u8(DELETED);
                    self.u64(*keys);
                }
                OpReply::Range(page) => {
                    self.u8(RANGE);
                    self.page(page);
                }
                OpReply::Txn(inner) => {
                    self.u8(TXN);
                    self.txn(inner);
                }
            }
        }
    }
}

/// What a reply is read from: keys and values share `bytes`.
pub(super) struct Source<'a> {
    pub bytes: &'a Bytes,
    pub reader: Reader<'a>,
}

impl Source<'_> {
    pub fn u8(&mut self) -> Result<u8, ReplyError> {
        Ok(self.reader.u8()?)
    }

    pub fn u64(&mut self) -> Result<u64, ReplyError> {
        Ok(self.reader.u64()?)
    }

    pub fn revision(&mut self) -> Result<Revision, ReplyError> {
        self.u64().map(Revision)
    }

    pub fn lease(&mut self) -> Result<Option<LeaseId>, ReplyError> {
        Ok(Some(LeaseId(self.u64()?)).filter(|lease| lease.0 != 0))
    }

    pub fn millis(&mut self) -> Result<Duration, ReplyError> {
        self.u64().map(Duration::from_millis)
    }

    fn share(&mut self) -> Result<Bytes, ReplyError> {
        Ok(self.bytes.slice_ref(self.reader.bytes()?))
    }

    /// A byte that is one of a few values.
    pub fn choice<T: Copy>(&mut self, field: &'static str, values: &[T]) -> Result<T, ReplyError> {
        let value = self.u8()?;
        values.get(usize::from(value)).copied().ok_or(ReplyError::Field { field, value })
    }

    pub fn optional<T>(
        &mut self,
        field: &'static str,
        read: impl FnOnce(&mut Self) -> Result<T, ReplyError>,
    ) -> Result<Option<T>, ReplyError> {
        if self.choice(field, &[false, true])? { read(self).map(Some) } else { Ok(None) }
    }

    pub fn key_value(&mut self) -> Result<KeyValue, ReplyError> {
        Ok(KeyValue {
            key: self.share()?,
            value: self.share()?,
            create_revision: self.revision()?,
            modify_revision: self.revision()?,
            version: self.u64()?,
            lease: self.lease()?,
        })
    }

    /// As many as are announced. Memory is taken only when as many can be in the bytes that are there.
    fn list<T>(
        &mut self,
        count: usize,
        least_bytes: usize,
        mut read: impl FnMut(&mut Self) -> Result<T, ReplyError>,
    ) -> Result<Vec<T>, ReplyError> {
        let (need, have) = (count.saturating_mul(least_bytes), self.reader.left());
        if need > have {
            return Err(ReplyError::Short { need, have });
        }
        let mut list = Vec::with_capacity(count);
        for _ in 0..count {
            list.push(read(self)?);
        }
        Ok(list)
    }

    fn query(&mut self) -> Result<RangeQuery, ReplyError> {
        let (start, end) = (self.share()?, self.optional("range end", Self::share)?);
        Ok(RangeQuery {
            range: KeyRange::from_parts(start, end).map_err(|_| ReplyError::Range)?,
            limit: usize::try_from(self.u64()?).unwrap_or(usize::MAX),
            order: self.choice("order", &[Order::Ascending, Order::Descending])?,
            select: self.choice("select", &[Select::Whole, Select::KeysOnly, Select::CountOnly])?,
            revision: self.optional("revision", Self::revision)?,
            after: self.optional("after", Self::share)?,
        })
    }

    fn page(&mut self) -> Result<RangePage, ReplyError> {
        let items = self.reader.u32()? as usize;
        Ok(RangePage {
            items: self.list(items, KEY_VALUE_BYTES, Self::key_value)?,
            count: self.u64()?,
            next: self.optional("next", Self::query)?,
            revision: self.revision()?,
        })
    }

    /// What a transaction at `depth`, from 1, came to. Looks at the depth before it descends.
    pub fn txn(&mut self, depth: usize) -> Result<TxnReply, ReplyError> {
        if depth > TXN_DEPTH {
            return Err(ReplyError::TooDeep);
        }
        let succeeded = self.choice("success", &[false, true])?;
        let count = usize::from(self.reader.u16()?);
        let results = self.list(count, RESULT_BYTES, |source| {
            Ok(match source.u8()? {
                PUT => OpReply::Put {
                    told: source.choice("previous value", &[Select::Whole, Select::KeysOnly])?,
                    previous: source.optional("previous", Self::key_value)?,
                    lease: source.lease()?,
                },
                DELETED => OpReply::Deleted(source.u64()?),
                RANGE => OpReply::Range(source.page()?),
                TXN => OpReply::Txn(source.txn(depth + 1)?),
                value => return Err(ReplyError::Field { field: "result", value }),
            })
        })?;
        Ok(TxnReply { succeeded, results })
    }
}

/// Bytes that a transaction's answer keeps alive beside itself.
pub(super) fn held_bytes(reply: &TxnReply) -> usize {
    let results = reply.results.iter().map(|result| match result {
        OpReply::Put { previous, .. } => previous.as_ref().map_or(0, key_value_bytes),
        OpReply::Deleted(_) => 0,
        OpReply::Range(page) => {
            let items: usize = page.items.iter().map(|kv| size_of::<KeyValue>() + key_value_bytes(kv)).sum();
            items + page.next.as_ref().map_or(0, query_bytes)
        }
        OpReply::Txn(inner) => held_bytes(inner),
    });
    results.map(|bytes| size_of::<OpReply>() + bytes).sum()
}

pub(super) fn key_value_bytes(kv: &KeyValue) -> usize {
    kv.key.len() + kv.value.len()
}

fn query_bytes(query: &RangeQuery) -> usize {
    let after = query.after.as_ref().map_or(0, Bytes::len);
    query.range.start().len() + query.range.end().map_or(0, <[u8]>::len) + after
}
