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

/// Where a caller makes commands, and the limits they are checked against.
pub(super) struct Maker<'a> {
    shared: &'a Shared,
    /// Of a caller that makes many.
    sheet: Option<&'a mut Sheet>,
}

impl<'a> Maker<'a> {
    /// For one command.
    pub fn once(shared: &'a Shared) -> Self {
        Self { shared, sheet: None }
    }

    /// For one of many.
    pub fn many(shared: &'a Shared, sheet: &'a mut Sheet) -> Self {
        Self { shared, sheet: Some(sheet) }
    }
}

/// Memory that the commands of one caller share, many to an allocation. A command is let go of when it has become part of
/// a batch, so that few sheets are in use at a time.
#[derive(Default)]
pub(super) struct Sheet(BytesMut);

impl Sheet {
    const BYTES: usize = 32 << 10;
    /// A larger command has memory of its own: the rest of a sheet would be lost to it.
    const LARGEST: usize = Self::BYTES / 8;

    fn with_room(&mut self, length: usize) -> &mut BytesMut {
        let sheet = &mut self.0;
        assert!(sheet.is_empty(), "every command is taken from it");
        if sheet.capacity() < length && !sheet.try_reclaim(length) {
            *sheet = BytesMut::with_capacity(Self::BYTES);
        }
        sheet
    }
}

/// Encodes a command of about `length` bytes and checks it against the configured limits.
fn encode<T>(
    maker: Maker<'_>,
    length: usize,
    write: impl FnOnce(&mut BytesMut) -> Result<(), CommandError>,
    read: Read<T>,
) -> Change<T> {
    let mut own;
    let memory = match maker.sheet {
        Some(sheet) if (1..=Sheet::LARGEST).contains(&length) => sheet.with_room(length),
        _ => {
            // What is beyond every limit is refused by the encoder before it is copied: no memory is taken for it.
            own = BytesMut::with_capacity(length.min(Limits::MAX.command_bytes()));
            &mut own
        }
    };
    let encoded = write(memory).and_then(|()| maker.shared.limits.check(memory));
    let command = memory.split();
    Change { command: encoded.map(|()| command.freeze()), read }
}

/// Format and tag.
const HEAD: usize = 2;
/// The length before a key or value.
const PREFIX: usize = 4;
/// What a key is attached to, or a lease and its time to live.
const ATTACH: usize = 17;

pub(super) fn put(maker: Maker<'_>, key: &[u8], value: &[u8]) -> Change<()> {
    let length = HEAD + 2 * PREFIX + key.len() + value.len();
    let write = |out: &mut BytesMut| kv::encode_put(key, value, out);
    encode(maker, length, write, |reply| matches!(reply, Reply::Put { .. }).then_some(()))
}

pub(super) fn put_attached(
    maker: Maker<'_>,
    key: &[u8],
    value: &[u8],
    attach: Attach,
) -> Change<Option<LeaseId>> {
    let length = HEAD + 2 * PREFIX + key.len() + value.len() + ATTACH;
    let write = |out: &mut BytesMut| kv::encode_put_attached(key, value, attach, out);
    encode(maker, length, write, |reply| match reply {
        Reply::PutAttached { lease, .. } => Some(lease),
        _ => None,
    })
}

pub(super) fn delete(maker: Maker<'_>, key: &[u8]) -> Change<bool> {
    let write = |out: &mut BytesMut| kv::encode_delete(key, out);
    encode(maker, HEAD + PREFIX + key.len(), write, |reply| match reply {
        Reply::Deleted { before, .. } => Some(before == Presence::Present),
        _ => None,
    })
}

pub(super) fn delete_range(maker: Maker<'_>, range: &KeyRange) -> Change<u64> {
    let length = HEAD + 2 * PREFIX + range.start().len() + range.end().map_or(0, <[u8]>::len);
    let write = |out: &mut BytesMut| kv::encode_delete_range(range, out);
    encode(maker, length, write, |reply| match reply {
        Reply::RangeDeleted { deleted, .. } => Some(deleted),
        _ => None,
    })
}

pub(super) fn swap(maker: Maker<'_>, key: &[u8], expected: &Expected, new: &[u8]) -> Change<Swap> {
    let length = HEAD + 2 * PREFIX + key.len() + expected_bytes(expected) + new.len();
    let write = |out: &mut BytesMut| kv::encode_compare_and_swap(key, expected.as_ref(), new, out);
    encode(maker, length, write, |reply| match reply {
        Reply::Swapped { .. } => Some(Swap::Done),
        Reply::NotSwapped { current, .. } => Some(Swap::Refused { current: current.map(|current| *current) }),
        _ => None,
    })
}

pub(super) fn swap_attached(
    maker: Maker<'_>,
    key: &[u8],
    expected: &Expected,
    new: &[u8],
    attach: Attach,
) -> Change<AttachedSwap> {
    let length = HEAD + 2 * PREFIX + key.len() + expected_bytes(expected) + new.len() + ATTACH;
    let write = |out: &mut BytesMut| kv::encode_swap_attached(key, expected.as_ref(), new, attach, out);
    encode(maker, length, write, |reply| match reply {
        Reply::SwappedAttached { lease, .. } => Some(AttachedSwap::Done { lease }),
        Reply::NotSwapped { current, .. } => {
            Some(AttachedSwap::Refused { current: current.map(|current| *current) })
        }
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

pub(super) fn txn(maker: Maker<'_>, txn: &Txn) -> Change<TxnReply> {
    encode(
        maker,
        0,
        |out| kv::encode_txn(txn, out),
        |reply| match reply {
            Reply::Txn { reply, .. } => Some(reply),
            _ => None,
        },
    )
}

pub(super) fn grant(maker: Maker<'_>, lease: Option<LeaseId>, ttl: Duration) -> Change<LeaseId> {
    encode(
        maker,
        HEAD + ATTACH,
        |out| kv::encode_grant(lease, ttl, out),
        |reply| match reply {
            Reply::LeaseGranted { lease, .. } => Some(lease),
            _ => None,
        },
    )
}

pub(super) fn keep_alive(maker: Maker<'_>, lease: LeaseId) -> Change<Duration> {
    encode(
        maker,
        HEAD + ATTACH,
        |out| kv::encode_keep_alive(lease, out),
        |reply| match reply {
            Reply::LeaseKept { ttl, .. } => Some(ttl),
            _ => None,
        },
    )
}

pub(super) fn revoke(maker: Maker<'_>, lease: LeaseId) -> Change<u64> {
    encode(
        maker,
        HEAD + ATTACH,
        |out| kv::encode_revoke(lease, out),
        |reply| match reply {
            Reply::LeaseRevoked { keys, .. } => Some(keys),
            _ => None,
        },
    )
}

pub(super) fn compact(maker: Maker<'_>, revision: Revision) -> Change<Revision> {
    encode(
        maker,
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
