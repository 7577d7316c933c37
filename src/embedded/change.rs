//! A write on its way: the bytes that ask for it, and what the store's reply to them means to the caller.

use crate::api::{Answer, AttachedSwap, Swap, Uncertainty, WriteError};
use crate::config::Durability;
use crate::kv::{
    self, Attach, CommandError, Expected, KeyRange, LeaseId, Limits, Presence, Reply, Revision, Txn, TxnReply,
};
use crate::runtime::shared::Shared;
use bytes::{Bytes, BytesMut};
use std::time::Duration;

/// What a reply says; `None` for one to another command.
pub(super) type Read<T> = fn(Reply) -> Option<T>;

/// Something asked of the store, checked against every limit that the caller's node knows.
pub(super) struct Change<T> {
    command: Result<Bytes, CommandError>,
    read: Read<T>,
}

impl<T> Change<T> {
    /// What to send, and how to read what comes back.
    pub(super) fn ready(self) -> Result<(Bytes, Read<T>), WriteError> {
        Ok((self.command?, self.read))
    }
}

/// A reply as an answer.
pub(super) fn written<T>(
    reply: Reply,
    durability: Durability,
    read: Read<T>,
) -> Result<Answer<T>, WriteError> {
    let revision = match (reply.revision(), &reply) {
        (_, Reply::Refused(error)) => return Err(WriteError::Refused(*error)),
        (_, Reply::SessionRefused(error)) => return Err(WriteError::Session(*error)),
        (_, Reply::LeaseRefused(error)) => return Err(WriteError::Lease(*error)),
        (_, Reply::RevisionRefused(error)) => return Err(WriteError::Revision(*error)),
        (revision, _) => revision,
    };
    // Another command's reply, which no leader of this version sends: it was answered, and nobody can say how.
    let unreadable = WriteError::OutcomeUnknown(Uncertainty::NoAnswer);
    match (revision, read(reply)) {
        (Some(revision), Some(value)) => Ok(Answer { value, revision, durability }),
        _ => Err(unreadable),
    }
}

/// Encodes a command into memory of about `length` bytes and checks it against the configured limits.
fn encode<T>(
    shared: &Shared,
    length: usize,
    write: impl FnOnce(&mut BytesMut) -> Result<(), CommandError>,
    read: Read<T>,
) -> Change<T> {
    // What is beyond every limit is refused by the encoder before it is copied: no memory is taken for it.
    let mut command = BytesMut::with_capacity(length.min(Limits::MAX.command_bytes()));
    let encoded = write(&mut command).and_then(|()| shared.limits.check(&command));
    Change { command: encoded.map(|()| command.freeze()), read }
}

/// Format and tag.
const HEAD: usize = 2;
/// The length before a key or value.
const PREFIX: usize = 4;
/// What a key is attached to, or a lease and its time to live.
const ATTACH: usize = 17;

pub(super) fn put(shared: &Shared, key: &[u8], value: &[u8]) -> Change<()> {
    let length = HEAD + 2 * PREFIX + key.len() + value.len();
    let write = |out: &mut BytesMut| kv::encode_put(key, value, out);
    encode(shared, length, write, |reply| matches!(reply, Reply::Put { .. }).then_some(()))
}

pub(super) fn put_attached(
    shared: &Shared,
    key: &[u8],
    value: &[u8],
    attach: Attach,
) -> Change<Option<LeaseId>> {
    let length = HEAD + 2 * PREFIX + key.len() + value.len() + ATTACH;
    let write = |out: &mut BytesMut| kv::encode_put_attached(key, value, attach, out);
    encode(shared, length, write, |reply| match reply {
        Reply::PutAttached { lease, .. } => Some(lease),
        _ => None,
    })
}

pub(super) fn delete(shared: &Shared, key: &[u8]) -> Change<bool> {
    let write = |out: &mut BytesMut| kv::encode_delete(key, out);
    encode(shared, HEAD + PREFIX + key.len(), write, |reply| match reply {
        Reply::Deleted { before, .. } => Some(before == Presence::Present),
        _ => None,
    })
}

pub(super) fn delete_range(shared: &Shared, range: &KeyRange) -> Change<u64> {
    let length = HEAD + 2 * PREFIX + range.start().len() + range.end().map_or(0, <[u8]>::len);
    let write = |out: &mut BytesMut| kv::encode_delete_range(range, out);
    encode(shared, length, write, |reply| match reply {
        Reply::RangeDeleted { deleted, .. } => Some(deleted),
        _ => None,
    })
}

pub(super) fn swap(shared: &Shared, key: &[u8], expected: &Expected, new: &[u8]) -> Change<Swap> {
    let length = HEAD + 2 * PREFIX + key.len() + expected_bytes(expected) + new.len();
    let write = |out: &mut BytesMut| kv::encode_compare_and_swap(key, expected.as_ref(), new, out);
    encode(shared, length, write, |reply| match reply {
        Reply::Swapped { .. } => Some(Swap::Done),
        Reply::NotSwapped { current, .. } => Some(Swap::Refused { current }),
        _ => None,
    })
}

pub(super) fn swap_attached(
    shared: &Shared,
    key: &[u8],
    expected: &Expected,
    new: &[u8],
    attach: Attach,
) -> Change<AttachedSwap> {
    let length = HEAD + 2 * PREFIX + key.len() + expected_bytes(expected) + new.len() + ATTACH;
    let write = |out: &mut BytesMut| kv::encode_swap_attached(key, expected.as_ref(), new, attach, out);
    encode(shared, length, write, |reply| match reply {
        Reply::SwappedAttached { lease, .. } => Some(AttachedSwap::Done { lease }),
        Reply::NotSwapped { current, .. } => Some(AttachedSwap::Refused { current }),
        _ => None,
    })
}

fn expected_bytes(expected: &Expected) -> usize {
    match expected {
        Expected::Absent => 1,
        Expected::Value(value) => 1 + PREFIX + value.len(),
        Expected::Revision(_) => 1 + 8,
    }
}

pub(super) fn txn(shared: &Shared, txn: &Txn) -> Change<TxnReply> {
    encode(
        shared,
        0,
        |out| kv::encode_txn(txn, out),
        |reply| match reply {
            Reply::Txn { reply, .. } => Some(reply),
            _ => None,
        },
    )
}

pub(super) fn grant(shared: &Shared, lease: Option<LeaseId>, ttl: Duration) -> Change<LeaseId> {
    encode(
        shared,
        HEAD + ATTACH,
        |out| kv::encode_grant(lease, ttl, out),
        |reply| match reply {
            Reply::LeaseGranted { lease, .. } => Some(lease),
            _ => None,
        },
    )
}

pub(super) fn keep_alive(shared: &Shared, lease: LeaseId) -> Change<Duration> {
    encode(
        shared,
        HEAD + ATTACH,
        |out| kv::encode_keep_alive(lease, out),
        |reply| match reply {
            Reply::LeaseKept { ttl, .. } => Some(ttl),
            _ => None,
        },
    )
}

pub(super) fn revoke(shared: &Shared, lease: LeaseId) -> Change<u64> {
    encode(
        shared,
        HEAD + ATTACH,
        |out| kv::encode_revoke(lease, out),
        |reply| match reply {
            Reply::LeaseRevoked { keys, .. } => Some(keys),
            _ => None,
        },
    )
}

pub(super) fn compact(shared: &Shared, revision: Revision) -> Change<Revision> {
    encode(
        shared,
        HEAD + ATTACH,
        |out| {
            kv::encode_compact(revision, out);
            Ok(())
        },
        |reply| match reply {
            Reply::Compacted { oldest, .. } => Some(oldest),
            _ => None,
        },
    )
}
