//! What the store answers, and its binary form, in which a leader sends it to the node that forwarded the command.
//!
//! ```text
//! reply            = 1 (format), tag, revision (u64), body            integers little endian
//! put              = tag 1:
//! deleted          = tag 2: presence (1 present, 0 absent)
//! swapped          = tag 3:
//! not swapped      = tag 4: 0 | 1 key value
//! refused          = tag 5, without the revision: code, two numbers (u64)
//! session opened   = tag 6: session (u64)
//! session closed   = tag 7:
//! session refused  = tag 8, without the revision: code, two numbers (u64)
//! put attached     = tag 9: lease (u64, 0 none)
//! swapped attached = tag 10: lease (u64, 0 none)
//! range deleted    = tag 11: keys (u64)
//! transaction      = tag 12: came to
//! lease granted    = tag 13: lease (u64), time to live in milliseconds (u64)
//! lease kept       = tag 14: lease (u64), time to live in milliseconds (u64)
//! lease revoked    = tag 15: keys (u64)
//! lease refused    = tag 16, without the revision: code, two numbers (u64)
//! compacted        = tag 17: oldest (u64)
//! revision refused = tag 18, without the revision: code, two numbers (u64)
//! expired          = tag 19: leases (u64), keys (u64)
//! ```
//!
//! What the [parts] are is said where they are read. A tag or code that this version does not know is a [`ReplyError`]: what
//! was asked may have happened, and a newer node can tell.

mod parts;
mod refusal;
#[cfg(test)]
mod tests;

use super::codec::{Reader, Short};
use super::command::CommandError;
use super::event::RevisionError;
use super::lease::{LeaseError, LeaseId};
use super::session::{SessionError, SessionId};
use super::store::{KeyValue, Revision};
use super::txn::TxnReply;
use bytes::{Bytes, BytesMut};
use parts::{Source, Writer};
use std::time::Duration;
use thiserror::Error;
use xxhash_rust::xxh3::xxh3_128;

const FORMAT: u8 = 1;
const PUT: u8 = 1;
const DELETED: u8 = 2;
const SWAPPED: u8 = 3;
const NOT_SWAPPED: u8 = 4;
const REFUSED: u8 = 5;
const SESSION_OPENED: u8 = 6;
const SESSION_CLOSED: u8 = 7;
const SESSION_REFUSED: u8 = 8;
const PUT_ATTACHED: u8 = 9;
const SWAPPED_ATTACHED: u8 = 10;
const RANGE_DELETED: u8 = 11;
const TXN: u8 = 12;
const LEASE_GRANTED: u8 = 13;
const LEASE_KEPT: u8 = 14;
const LEASE_REVOKED: u8 = 15;
const LEASE_REFUSED: u8 = 16;
const COMPACTED: u8 = 17;
const REVISION_REFUSED: u8 = 18;
const EXPIRED: u8 = 19;

/// The answer to one command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The key has the value.
    Put {
        /// The change's own revision.
        revision: Revision,
    },
    /// The key is not there, now.
    Deleted {
        /// The change's own revision, or the store's when nothing was there.
        revision: Revision,
        /// Whether the key was there before.
        before: Presence,
    },
    /// The key was as expected and has the new value.
    Swapped {
        /// The change's own revision.
        revision: Revision,
    },
    /// The key was not as expected; nothing changed.
    NotSwapped {
        /// The store's revision: what was seen was seen at this one.
        revision: Revision,
        /// What was there, `None` when the key is absent. Boxed: it is the largest by far, and every answer to a put would be
        /// as large.
        current: Option<Box<KeyValue>>,
    },
    /// Not a command that can be applied. Nothing changed, on no replica.
    Refused(CommandError),
    /// A session is open.
    SessionOpened {
        /// The store's revision: opening a session takes none.
        revision: Revision,
        /// Its id.
        session: SessionId,
    },
    /// The session is not there any more.
    SessionClosed {
        /// The store's revision: closing a session takes none.
        revision: Revision,
    },
    /// Refused by the rules of sessions. No key was changed.
    SessionRefused(SessionError),
    /// The key has the value, and is attached as asked.
    PutAttached {
        /// The change's own revision.
        revision: Revision,
        /// The lease the key is attached to: for a time to live, the one made for it.
        lease: Option<LeaseId>,
    },
    /// The key was as expected, has the new value and is attached as asked. One that was not is [`Self::NotSwapped`].
    SwappedAttached {
        /// The change's own revision.
        revision: Revision,
        /// The lease the key is attached to: for a time to live, the one made for it.
        lease: Option<LeaseId>,
    },
    /// No key of the range is there, now.
    RangeDeleted {
        /// The change's own revision, or the store's when there was none.
        revision: Revision,
        /// How many there were.
        deleted: u64,
    },
    /// A transaction was carried out.
    Txn {
        /// The revision of its changes, or the store's when there were none.
        revision: Revision,
        /// What it came to.
        reply: TxnReply,
    },
    /// A lease is granted.
    LeaseGranted {
        /// The store's revision: granting takes none.
        revision: Revision,
        /// Its id.
        lease: LeaseId,
        /// What it is granted for.
        ttl: Duration,
    },
    /// A lease has all its time again.
    LeaseKept {
        /// The store's revision: keeping alive takes none.
        revision: Revision,
        /// Which one.
        lease: LeaseId,
        /// How much time.
        ttl: Duration,
    },
    /// A lease has ended, and its keys are gone.
    LeaseRevoked {
        /// The revision at which the keys went, or the store's when there were none.
        revision: Revision,
        /// How many there were.
        keys: u64,
    },
    /// Refused because of a lease. No key was changed.
    LeaseRefused(LeaseError),
    /// Changes before a revision are let go of.
    Compacted {
        /// The store's revision: compacting takes none.
        revision: Revision,
        /// The revision that was asked for, from which on changes can still be had.
        oldest: Revision,
    },
    /// Refused because of the revision that was named. Nothing changed.
    RevisionRefused(RevisionError),
    /// Leases whose time was over have ended.
    Expired {
        /// The store's revision after the last of them.
        revision: Revision,
        /// How many.
        leases: u64,
        /// How many keys went with them.
        keys: u64,
    },
}

/// Whether a key was there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// It was.
    Present,
    /// It was not.
    Absent,
}

/// Why bytes are not a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ReplyError {
    /// The bytes end in the middle of a field.
    #[error("the reply ends early: a field needs {need} bytes and {have} are left")]
    Short {
        /// Bytes that the field needs.
        need: usize,
        /// Bytes that are there.
        have: usize,
    },
    /// Transactions nested deeper than any that is applied.
    #[error("the reply tells of transactions deeper than can be: it was damaged")]
    TooDeep,
    /// A range whose end is not behind its start.
    #[error("the reply names a range whose end is not behind its start: it was damaged")]
    Range,
    /// Bytes follow the last field.
    #[error("{0} bytes follow the end of the reply")]
    Trailing(usize),
    /// A value that this version does not know.
    #[error("field {field} of the reply has the unknown value {value}: upgrade this node")]
    Field {
        /// Name of the field.
        field: &'static str,
        /// What stood there.
        value: u8,
    },
}

impl From<Short> for ReplyError {
    fn from(Short { need, have }: Short) -> Self {
        Self::Short { need, have }
    }
}

impl Reply {
    /// The revision of the change or, where nothing changed, of the store; `None` for a refused command.
    #[must_use]
    pub fn revision(&self) -> Option<Revision> {
        match *self {
            Self::Put { revision }
            | Self::Deleted { revision, .. }
            | Self::Swapped { revision }
            | Self::NotSwapped { revision, .. }
            | Self::SessionOpened { revision, .. }
            | Self::SessionClosed { revision }
            | Self::PutAttached { revision, .. }
            | Self::SwappedAttached { revision, .. }
            | Self::RangeDeleted { revision, .. }
            | Self::Txn { revision, .. }
            | Self::LeaseGranted { revision, .. }
            | Self::LeaseKept { revision, .. }
            | Self::LeaseRevoked { revision, .. }
            | Self::Compacted { revision, .. }
            | Self::Expired { revision, .. } => Some(revision),
            Self::Refused(_) | Self::SessionRefused(_) | Self::LeaseRefused(_) | Self::RevisionRefused(_) => {
                None
            }
        }
    }

    /// Bytes that it keeps alive beside itself.
    pub(super) fn held_bytes(&self) -> usize {
        match self {
            Self::NotSwapped { current: Some(current), .. } => parts::key_value_bytes(current),
            Self::Txn { reply, .. } => parts::held_bytes(reply),
            _ => 0,
        }
    }

    /// A hash of all that it says. Keys and values in it are hashed where they are.
    pub(super) fn fingerprint(&self) -> u128 {
        let mut hashed = BytesMut::with_capacity(96);
        self.write(&mut Writer::hashed(&mut hashed));
        xxh3_128(&hashed)
    }

    /// Appends the binary form.
    pub fn encode_into(&self, out: &mut BytesMut) {
        out.reserve(96 + self.held_bytes());
        self.write(&mut Writer::whole(out));
    }

    fn write(&self, to: &mut Writer<'_>) {
        to.u8(FORMAT);
        match self {
            Self::Put { revision } => to.head(PUT, *revision),
            Self::Deleted { revision, before } => {
                to.head(DELETED, *revision);
                to.u8((*before == Presence::Present).into());
            }
            Self::Swapped { revision } => to.head(SWAPPED, *revision),
            Self::NotSwapped { revision, current } => {
                to.head(NOT_SWAPPED, *revision);
                to.optional(current.as_deref(), Writer::key_value);
            }
            Self::Refused(error) => to.refusal(REFUSED, refusal::command(*error)),
            Self::SessionOpened { revision, session } => {
                to.head(SESSION_OPENED, *revision);
                to.u64(session.0);
            }
            Self::SessionClosed { revision } => to.head(SESSION_CLOSED, *revision),
            Self::SessionRefused(error) => to.refusal(SESSION_REFUSED, refusal::session(*error)),
            Self::PutAttached { revision, lease } => {
                to.head(PUT_ATTACHED, *revision);
                to.lease(*lease);
            }
            Self::SwappedAttached { revision, lease } => {
                to.head(SWAPPED_ATTACHED, *revision);
                to.lease(*lease);
            }
            Self::RangeDeleted { revision, deleted } => {
                to.head(RANGE_DELETED, *revision);
                to.u64(*deleted);
            }
            Self::Txn { revision, reply } => {
                to.head(TXN, *revision);
                to.txn(reply);
            }
            Self::LeaseGranted { revision, lease, ttl } => {
                to.head(LEASE_GRANTED, *revision);
                to.u64(lease.0);
                to.millis(*ttl);
            }
            Self::LeaseKept { revision, lease, ttl } => {
                to.head(LEASE_KEPT, *revision);
                to.u64(lease.0);
                to.millis(*ttl);
            }
            Self::LeaseRevoked { revision, keys } => {
                to.head(LEASE_REVOKED, *revision);
                to.u64(*keys);
            }
            Self::LeaseRefused(error) => to.refusal(LEASE_REFUSED, refusal::lease(*error)),
            Self::Compacted { revision, oldest } => {
                to.head(COMPACTED, *revision);
                to.u64(oldest.0);
            }
            Self::RevisionRefused(error) => to.refusal(REVISION_REFUSED, refusal::revision(*error)),
            Self::Expired { revision, leases, keys } => {
                to.head(EXPIRED, *revision);
                to.u64(*leases);
                to.u64(*keys);
            }
        }
    }

    /// Reads a reply; keys and values in it share `bytes`.
    ///
    /// # Errors
    /// When `bytes` is not exactly one reply.
    pub fn decode(bytes: &Bytes) -> Result<Self, ReplyError> {
        let mut from = Source { bytes, reader: Reader::new(bytes) };
        let format = from.u8()?;
        if format != FORMAT {
            return Err(ReplyError::Field { field: "format", value: format });
        }
        let reply = Self::read(&mut from)?;
        match from.reader.left() {
            0 => Ok(reply),
            left => Err(ReplyError::Trailing(left)),
        }
    }

    fn read(from: &mut Source<'_>) -> Result<Self, ReplyError> {
        let tag = from.u8()?;
        let refused = match tag {
            REFUSED => Some(Self::Refused(refusal::read_command(&mut from.reader)?)),
            SESSION_REFUSED => Some(Self::SessionRefused(refusal::read_session(&mut from.reader)?)),
            LEASE_REFUSED => Some(Self::LeaseRefused(refusal::read_lease(&mut from.reader)?)),
            REVISION_REFUSED => Some(Self::RevisionRefused(refusal::read_revision(&mut from.reader)?)),
            unknown if unknown == 0 || unknown > EXPIRED => {
                return Err(ReplyError::Field { field: "tag", value: unknown });
            }
            _ => None,
        };
        if let Some(refused) = refused {
            return Ok(refused);
        }
        let revision = from.revision()?;
        Ok(match tag {
            PUT => Self::Put { revision },
            DELETED => Self::Deleted {
                revision,
                before: from.choice("presence", &[Presence::Absent, Presence::Present])?,
            },
            SWAPPED => Self::Swapped { revision },
            NOT_SWAPPED => Self::NotSwapped {
                revision,
                current: from.optional("presence", Source::key_value)?.map(Box::new),
            },
            SESSION_OPENED => Self::SessionOpened { revision, session: SessionId(from.u64()?) },
            SESSION_CLOSED => Self::SessionClosed { revision },
            PUT_ATTACHED => Self::PutAttached { revision, lease: from.lease()? },
            SWAPPED_ATTACHED => Self::SwappedAttached { revision, lease: from.lease()? },
            RANGE_DELETED => Self::RangeDeleted { revision, deleted: from.u64()? },
            TXN => Self::Txn { revision, reply: from.txn(1)? },
            LEASE_GRANTED => {
                Self::LeaseGranted { revision, lease: LeaseId(from.u64()?), ttl: from.millis()? }
            }
            LEASE_KEPT => Self::LeaseKept { revision, lease: LeaseId(from.u64()?), ttl: from.millis()? },
            LEASE_REVOKED => Self::LeaseRevoked { revision, keys: from.u64()? },
            COMPACTED => Self::Compacted { revision, oldest: from.revision()? },
            EXPIRED => Self::Expired { revision, leases: from.u64()?, keys: from.u64()? },
            value => return Err(ReplyError::Field { field: "tag", value }),
        })
    }
}
