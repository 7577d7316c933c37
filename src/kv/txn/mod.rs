//! Transactions: if what is compared holds, do these, else do those; all of it or nothing, at one revision.
//!
//! # Rules
//!
//! 1. Every compare, of nested transactions too, looks at the state before the transaction: which way is taken is known
//!    before anything is changed.
//! 2. The operations on the way that is taken are done in order; a read sees what stands before it.
//! 3. A key is changed at most once on any way: two puts of one key, or a put and a delete that reaches it, are refused when
//!    the transaction is read, by every replica alike.
//! 4. All changes share one revision, the next one; a transaction that changes nothing takes none.
//! 5. What can fail (a lease that is not there, or is full) is looked at before the first change.
//! 6. A compare over a range holds if it holds for each of its keys. An absent key, or a range without keys, is compared as a
//!    key with version, revisions and lease 0; its value equals nothing, and differs from everything.

mod evaluate;
#[cfg(test)]
mod tests;

use super::lease::{Attach, LeaseId};
use super::range::{KeyRange, RangePage, RangeQuery, Select};
use super::store::{KeyValue, Revision};
use bytes::Bytes;
use std::cmp::Ordering;

/// Compares and operations of one transaction, those of the nested ones and these themselves included.
pub const TXN_OPERATIONS: usize = 512;

/// How deep transactions may be nested: 1 is one without a nested one.
pub const TXN_DEPTH: usize = 4;

/// Keys that the compares of one transaction may look at, in all; a compare that fails ends the looking. A transaction is
/// carried out in one step of the loop: one that would look at more is refused.
pub const TXN_COMPARED_KEYS: usize = 100_000;

/// Bytes of the answers of one transaction, about: what was there before a put is told without its value once they are
/// reached, and a page ends. They travel in one message when another node asks, so they are fewer than those of a read.
pub const TXN_REPLY_BYTES: usize = 1 << 20;

/// Keys that the reads of one transaction may look at, in all: with them its pages end.
pub const TXN_READ_KEYS: usize = 100_000;

/// A transaction. See the [module](self) for its rules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Txn {
    /// What must hold, all of it. Nothing always holds.
    pub compares: Vec<Compare>,
    /// What is done if it holds.
    pub then: Vec<Op>,
    /// What is done if not.
    pub otherwise: Vec<Op>,
}

/// A condition on the state before the transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compare {
    /// The keys it is about, each of which must meet it.
    pub range: KeyRange,
    /// How what is there must stand to what is named.
    pub relation: Relation,
    /// What is looked at, and what it is compared with.
    pub target: Target,
}

/// How the left side, what is in the store, stands to the right side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// They are the same.
    Equal,
    /// They are not.
    NotEqual,
    /// The store's is greater.
    Greater,
    /// The store's is less.
    Less,
}

impl Relation {
    /// Whether it holds, given how the store's side compares.
    #[must_use]
    pub fn holds(self, order: Ordering) -> bool {
        match self {
            Self::Equal => order.is_eq(),
            Self::NotEqual => order.is_ne(),
            Self::Greater => order.is_gt(),
            Self::Less => order.is_lt(),
        }
    }
}

/// What of a key is compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Its value, bytewise.
    Value(Bytes),
    /// How many changes it has had since it was created; 0 when absent.
    Version(u64),
    /// The revision that created it; 0 when absent.
    Created(Revision),
    /// The revision that last changed it; 0 when absent.
    Modified(Revision),
    /// Its lease; 0 when it has none.
    Lease(u64),
}

impl Compare {
    /// A condition on one key.
    #[must_use]
    pub fn key(key: impl AsRef<[u8]>, relation: Relation, target: Target) -> Self {
        Self { range: KeyRange::key(key), relation, target }
    }

    /// The key exists.
    #[must_use]
    pub fn exists(key: impl AsRef<[u8]>) -> Self {
        Self::key(key, Relation::Greater, Target::Version(0))
    }

    /// The key does not exist.
    #[must_use]
    pub fn absent(key: impl AsRef<[u8]>) -> Self {
        Self::key(key, Relation::Equal, Target::Version(0))
    }

    /// The key has this value.
    #[must_use]
    pub fn value(key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Self {
        Self::key(key, Relation::Equal, Target::Value(Bytes::copy_from_slice(value.as_ref())))
    }

    /// The key was last changed at `revision`.
    #[must_use]
    pub fn unchanged_since(key: impl AsRef<[u8]>, revision: Revision) -> Self {
        Self::key(key, Relation::Equal, Target::Modified(revision))
    }
}

/// One operation of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Sets a key.
    Put {
        /// The key.
        key: Bytes,
        /// Its new value.
        value: Bytes,
        /// What the key's life depends on from now on.
        attach: Attach,
    },
    /// Removes all keys of a range.
    Delete {
        /// Which.
        range: KeyRange,
    },
    /// Reads a range, as it is at this point of the transaction. A query for a past revision is refused.
    Range(RangeQuery),
    /// Another transaction.
    Txn(Txn),
}

impl Op {
    /// Sets `key` to `value`.
    #[must_use]
    pub fn put(key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Self {
        Self::put_attached(key, value, Attach::Nothing)
    }

    /// Sets `key` to `value` and attaches it.
    #[must_use]
    pub fn put_attached(key: impl AsRef<[u8]>, value: impl AsRef<[u8]>, attach: Attach) -> Self {
        let (key, value) = (Bytes::copy_from_slice(key.as_ref()), Bytes::copy_from_slice(value.as_ref()));
        Self::Put { key, value, attach }
    }

    /// Removes `key`.
    #[must_use]
    pub fn delete(key: impl AsRef<[u8]>) -> Self {
        Self::Delete { range: KeyRange::key(key) }
    }

    /// Reads `key`.
    #[must_use]
    pub fn get(key: impl AsRef<[u8]>) -> Self {
        Self::Range(RangeQuery::new(KeyRange::key(key)))
    }
}

impl Txn {
    /// A transaction that compares and does nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a condition.
    #[must_use]
    pub fn when(mut self, compare: Compare) -> Self {
        self.compares.push(compare);
        self
    }

    /// Adds what is done if all conditions hold.
    #[must_use]
    pub fn then(mut self, op: Op) -> Self {
        self.then.push(op);
        self
    }

    /// Adds what is done if one does not.
    #[must_use]
    pub fn otherwise(mut self, op: Op) -> Self {
        self.otherwise.push(op);
        self
    }
}

/// What a transaction came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TxnReply {
    /// Whether all conditions held.
    pub succeeded: bool,
    /// The answers to the operations on the way taken, in their order.
    pub results: Vec<OpReply>,
}

/// The answer to one operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpReply {
    /// The key has the value.
    Put {
        /// What was there before.
        previous: Option<KeyValue>,
        /// How much of it is told: all, or everything but the value where the answers had reached [`TXN_REPLY_BYTES`].
        told: Select,
        /// The lease the key is attached to: for a time to live, the one made for it.
        lease: Option<LeaseId>,
    },
    /// So many keys were removed.
    Deleted(u64),
    /// What was read.
    Range(RangePage),
    /// What the inner transaction came to.
    Txn(TxnReply),
}
