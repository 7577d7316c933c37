//! Why bytes are not a command, or not one that may be applied.

use super::super::codec::Short;
use super::super::range::DELETE_KEYS;
use super::super::txn::{TXN_COMPARED_KEYS, TXN_DEPTH, TXN_OPERATIONS};
use std::fmt;
use std::time::Duration;
use thiserror::Error;

/// Why bytes are not a command, or not one that may be applied. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CommandError {
    /// A key has no bytes.
    #[error("the key is empty: give it at least one byte")]
    EmptyKey,
    /// A key is longer than the limit.
    #[error("the key has {found} bytes, the limit is {limit}: shorten it or raise limits.key_bytes")]
    KeyTooLong {
        /// Longest key allowed.
        limit: usize,
        /// Length of this one.
        found: usize,
    },
    /// A value, or the value expected by a compare-and-swap, is longer than the limit.
    #[error("the value has {found} bytes, the limit is {limit}: split it or raise limits.value_bytes")]
    ValueTooLong {
        /// Longest value allowed.
        limit: usize,
        /// Length of this one.
        found: usize,
    },
    /// The bytes end in the middle of a field.
    #[error("the command ends early: a field needs {need} bytes and {have} are left; it was cut or damaged")]
    Short {
        /// Bytes that the field needs.
        need: usize,
        /// Bytes that are there.
        have: usize,
    },
    /// Bytes follow the last field.
    #[error("{0} bytes follow the end of the command; encode one command at a time")]
    Trailing(usize),
    /// Another version of the encoding.
    #[error("the command has format {0}, this version reads format 1: upgrade this node")]
    Format(u8),
    /// A command this version does not know.
    #[error("the command has the unknown tag {0}: upgrade this node")]
    Tag(u8),
    /// A compare this version does not know.
    #[error("the compare-and-swap has the unknown expectation {0}: upgrade this node")]
    Expectation(u8),
    /// A session's timeout is outside [`SESSION_TIMEOUT`](crate::kv::SESSION_TIMEOUT).
    #[error("a session's timeout of {found:?} is outside 10ms to 24h: choose one within")]
    SessionTimeout {
        /// The timeout asked for.
        found: Duration,
    },
    /// A session's command whose numbers contradict each other.
    #[error(
        "command {sequence} of a session says that it acknowledges everything below {first_unanswered}: numbers begin at 1, and \
         no command acknowledges itself"
    )]
    SessionNumbers {
        /// The command's number.
        sequence: u64,
        /// The lowest number it does not acknowledge.
        first_unanswered: u64,
    },
    /// A range whose end is not behind its start.
    #[error(
        "the range's end is not behind its start, no key can be in it: name an end that is greater, or none"
    )]
    Range,
    /// A transaction with more compares and operations, those of nested ones included, than [`TXN_OPERATIONS`].
    #[error(
        "the transaction has {found} compares and operations or more, the limit is {TXN_OPERATIONS}: split it"
    )]
    TxnTooLarge {
        /// How many were found when the limit was passed.
        found: usize,
    },
    /// A transaction that is longer than the longest other command may be.
    #[error(
        "the transaction has {found} bytes, the limit is {limit}: split it or raise limits.value_bytes, twice which and \
         limits.key_bytes it may have"
    )]
    TxnTooLong {
        /// Most bytes allowed.
        limit: usize,
        /// Bytes of this one.
        found: usize,
    },
    /// Transactions nested deeper than [`TXN_DEPTH`].
    #[error("transactions are nested deeper than {TXN_DEPTH}, which is the limit: make the inner ones flat")]
    TxnTooDeep,
    /// A transaction that would change one key twice.
    #[error("the transaction puts a key that it also puts or deletes on the same way: name each key once")]
    DuplicateKey,
    /// Compares of ranges that hold too many keys.
    #[error(
        "the transaction's compares look at more than {TXN_COMPARED_KEYS} keys, which is the limit: compare smaller ranges"
    )]
    TxnTooWide,
    /// A deletion that reaches more keys than one command may remove.
    #[error(
        "more than {DELETE_KEYS} keys would be deleted at once, which is the limit: delete the range in parts, page by page"
    )]
    DeleteTooWide,
    /// A transaction that reads a past revision.
    #[error("a read in a transaction sees the state there, not revision {0}: read the past on its own")]
    PastInTxn(u64),
    /// A query for no keys.
    #[error("the range's limit is 0: ask for at least one key a page, or only for their number")]
    RangeLimit,
    /// A time to live outside [`LEASE_TTL`](crate::kv::LEASE_TTL).
    #[error("a time to live of {found:?} is outside 100ms to 366 days: choose one within")]
    LeaseTtl {
        /// The time to live asked for.
        found: Duration,
    },
    /// A lease with the id 0.
    #[error("a lease's id is never 0: name one that was granted, or let the store choose")]
    LeaseId,
    /// A field with a value that this version does not know.
    #[error("the command's {field} has the unknown value {value}: upgrade this node")]
    Field {
        /// Which.
        field: Field,
        /// What stood there.
        value: u8,
    },
    /// A command that only a leader makes, proposed by somebody else.
    #[error("the command with tag {0} is made by the leader itself: nobody needs to ask for it")]
    LeaderOnly(u8),
    /// A command about sessions or the store itself inside a session's command.
    #[error(
        "a session's command holds the tag {0}: only commands that change keys or leases can be in a session"
    )]
    NotInSession(u8),
}

impl From<Short> for CommandError {
    fn from(Short { need, have }: Short) -> Self {
        Self::Short { need, have }
    }
}

/// A field of a command that holds one of a few values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Field {
    /// What a put attaches its key to.
    Attachment,
    /// How a compare relates.
    Relation,
    /// What of a key is compared.
    Target,
    /// What kind of operation it is.
    Operation,
    /// Whether a range has an end.
    End,
    /// From which end a range is read.
    Order,
    /// What of each key is read.
    Select,
    /// Whether a query goes on behind a key.
    After,
}

impl Field {
    pub(in crate::kv) const ALL: [Self; 8] = [
        Self::Attachment,
        Self::Relation,
        Self::Target,
        Self::Operation,
        Self::End,
        Self::Order,
        Self::Select,
        Self::After,
    ];
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Attachment => "attachment",
            Self::Relation => "relation",
            Self::Target => "target of a compare",
            Self::Operation => "operation",
            Self::End => "end of a range",
            Self::Order => "order",
            Self::Select => "selection",
            Self::After => "place to go on",
        })
    }
}
