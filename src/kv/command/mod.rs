//! What can be asked of the store, its limits, and its binary form.
//!
//! ```text
//! command      = 1 (format), tag, body                              integers little endian
//! put          = tag 1: key, value
//! delete       = tag 2: key
//! compare      = tag 3: key, expected, value
//! expected     = 0 (absent) | 1 value | 2 revision (u64)
//! open         = tag 4: timeout in milliseconds (u64)
//! close        = tag 5: session (u64)
//! in session   = tag 6: session (u64), sequence (u64), first unanswered (u64), command 1 to 3 or 7 to 13
//! put attached = tag 7: key, value, attachment
//! compare att. = tag 8: key, expected, value, attachment
//! attachment   = 0 (nothing) | 1 (as before) | 2 lease (u64) | 3 time to live in milliseconds (u64)
//! delete range = tag 9: range
//! transaction  = tag 10: compares, operations, operations
//! grant        = tag 11: lease (u64, 0 the store chooses), time to live in milliseconds (u64)
//! keep alive   = tag 12: lease (u64)
//! revoke       = tag 13: lease (u64)
//! compact      = tag 14: revision (u64)
//! expire       = tag 15:
//! key/value    = length (u32), bytes
//! ```
//!
//! [Ranges](range) and [transactions](txn) say how they look where they are read. Nothing may follow the last field. The encoders
//! refuse what the decoder would refuse, so a command that was encoded is one that every replica applies. A command has
//! one form.

mod attach;
mod encode;
mod errors;
mod form;
mod limits;
mod parse;
mod range;
#[cfg(test)]
pub(super) mod tests;
mod txn;
mod ways;

pub use encode::{
    encode_close_session, encode_compact, encode_compare_and_swap, encode_delete, encode_delete_range,
    encode_expire, encode_grant, encode_in_session, encode_keep_alive, encode_open_session, encode_put,
    encode_put_attached, encode_revoke, encode_swap_attached, encode_txn,
};
pub use errors::{CommandError, Field};
pub use limits::Limits;
pub(super) use parse::{ChangeRef, CommandRef, put_parts};
pub(super) use range::RangeRef;
pub(super) use txn::{CompareRef, OpRef, TargetRef, TxnRef};

use super::lease::{Attach, LeaseId};
use super::range::KeyRange;
use super::session::{SessionId, Stamp};
use super::store::Revision;
use super::txn::Txn;
use bytes::{Bytes, BytesMut};
use form::IN_SESSION;
use std::time::Duration;

#[cfg(doc)]
use super::session::SESSION_TIMEOUT;

/// A change asked of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Sets a key's value, whatever it was.
    Put {
        /// The key.
        key: Bytes,
        /// Its new value.
        value: Bytes,
    },
    /// Removes a key.
    Delete {
        /// The key.
        key: Bytes,
    },
    /// Sets a key's value if the key is as expected.
    CompareAndSwap {
        /// The key.
        key: Bytes,
        /// What must be there.
        expected: Expected,
        /// The new value.
        value: Bytes,
    },
    /// Opens a session that ends when it was not used for `timeout` of log time.
    OpenSession {
        /// Within [`SESSION_TIMEOUT`]; whole milliseconds count.
        timeout: Duration,
    },
    /// Ends a session. What it answered is forgotten.
    CloseSession {
        /// Which one.
        session: SessionId,
    },
    /// A command that happens once however often it is sent.
    InSession {
        /// The session and the command's number in it.
        stamp: Stamp,
        /// A command that changes keys or leases.
        command: Box<Command>,
    },
    /// Sets a key's value, and what its life depends on.
    PutAttached {
        /// The key.
        key: Bytes,
        /// Its new value.
        value: Bytes,
        /// What its life depends on from now on.
        attach: Attach,
    },
    /// Sets a key's value, and what its life depends on, if the key is as expected.
    SwapAttached {
        /// The key.
        key: Bytes,
        /// What must be there.
        expected: Expected,
        /// The new value.
        value: Bytes,
        /// What its life depends on from now on.
        attach: Attach,
    },
    /// Removes all keys of a range, at one revision.
    DeleteRange {
        /// Which.
        range: KeyRange,
    },
    /// A transaction.
    Txn(Txn),
    /// Grants a lease.
    Grant {
        /// Its id; the store chooses one when none is given.
        lease: Option<LeaseId>,
        /// Within [`LEASE_TTL`](super::LEASE_TTL); whole milliseconds count.
        ttl: Duration,
    },
    /// Sets the time left of a lease to its time to live again.
    KeepAlive {
        /// Which one.
        lease: LeaseId,
    },
    /// Ends a lease and removes its keys.
    Revoke {
        /// Which one.
        lease: LeaseId,
    },
    /// Lets go of the changes before a revision.
    Compact {
        /// The oldest that can be read and watched from then on.
        revision: Revision,
    },
    /// Ends the leases whose time is over by the entry's timestamp. Made by leaders alone.
    Expire,
}

/// What a compare-and-swap expects of its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    /// The key does not exist.
    Absent,
    /// The key has this value.
    Value(Bytes),
    /// The key was last changed at this revision. One that the store has not reached matches nothing.
    Revision(Revision),
}

/// [`Expected`] with the value borrowed, for the encoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpectedRef<'a> {
    /// The key does not exist.
    Absent,
    /// The key has this value.
    Value(&'a [u8]),
    /// The key was last changed at this revision.
    Revision(Revision),
}

impl Expected {
    /// The same, borrowed.
    #[must_use]
    pub fn as_ref(&self) -> ExpectedRef<'_> {
        match self {
            Self::Absent => ExpectedRef::Absent,
            Self::Value(value) => ExpectedRef::Value(value),
            Self::Revision(revision) => ExpectedRef::Revision(*revision),
        }
    }
}

impl Command {
    /// Appends the binary form.
    ///
    /// # Errors
    /// When a part is outside its limits, or a command about sessions or the store is inside a session; `out` is then
    /// unchanged.
    pub fn encode_into(&self, out: &mut BytesMut) -> Result<(), CommandError> {
        match self {
            Self::Put { key, value } => encode_put(key, value, out),
            Self::Delete { key } => encode_delete(key, out),
            Self::CompareAndSwap { key, expected, value } => {
                encode_compare_and_swap(key, expected.as_ref(), value, out)
            }
            Self::OpenSession { timeout } => encode_open_session(*timeout, out),
            Self::CloseSession { session } => {
                encode_close_session(*session, out);
                Ok(())
            }
            Self::PutAttached { key, value, attach } => encode_put_attached(key, value, *attach, out),
            Self::SwapAttached { key, expected, value, attach } => {
                encode_swap_attached(key, expected.as_ref(), value, *attach, out)
            }
            Self::DeleteRange { range } => encode_delete_range(range, out),
            Self::Txn(txn) => encode_txn(txn, out),
            Self::Grant { lease, ttl } => encode_grant(*lease, *ttl, out),
            Self::KeepAlive { lease } => encode_keep_alive(*lease, out),
            Self::Revoke { lease } => encode_revoke(*lease, out),
            Self::Compact { revision } => {
                encode_compact(*revision, out);
                Ok(())
            }
            Self::Expire => {
                encode_expire(out);
                Ok(())
            }
            Self::InSession { command, .. } if matches!(**command, Self::InSession { .. }) => {
                Err(CommandError::NotInSession(IN_SESSION))
            }
            Self::InSession { stamp, command } => {
                let mut inner = BytesMut::new();
                command.encode_into(&mut inner)?;
                encode_in_session(*stamp, &inner, out)
            }
        }
    }

    /// Reads a command; its keys and values share `bytes`.
    ///
    /// # Errors
    /// When `bytes` is not exactly one command within [`Limits::MAX`].
    ///
    /// ```
    /// use bytes::{Bytes, BytesMut};
    /// use d_engine::kv::{Command, CommandError};
    ///
    /// let delete = Command::Delete { key: Bytes::from_static(b"old") };
    /// let mut encoded = BytesMut::new();
    /// delete.encode_into(&mut encoded)?;
    /// let encoded = encoded.freeze();
    ///
    /// assert_eq!(Command::decode(&encoded)?, delete);
    /// assert_eq!(Command::decode(&encoded.slice(..4)), Err(CommandError::Short { need: 4, have: 2 }));
    /// # Ok::<(), CommandError>(())
    /// ```
    pub fn decode(bytes: &Bytes) -> Result<Self, CommandError> {
        Ok(match CommandRef::parse(bytes, Limits::MAX)? {
            CommandRef::Change(change) => change.share(bytes),
            CommandRef::OpenSession { timeout } => Self::OpenSession { timeout },
            CommandRef::CloseSession { session } => Self::CloseSession { session },
            CommandRef::Compact { revision } => Self::Compact { revision },
            CommandRef::Expire => Self::Expire,
            CommandRef::InSession { stamp, change, .. } => {
                Self::InSession { stamp, command: Box::new(change.share(bytes)) }
            }
        })
    }
}
