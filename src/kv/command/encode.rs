//! Commands into bytes. What the decoder would refuse is refused here, before anything is written.

use super::super::codec::put_bytes;
use super::super::lease::{Attach, LeaseId};
use super::super::range::KeyRange;
use super::super::session::{SessionId, Stamp};
use super::super::store::Revision;
use super::super::txn::Txn;
use super::ExpectedRef;
use super::errors::CommandError;
use super::form::*;
use super::limits::Limits;
use super::parse::ChangeRef;
use super::txn::TxnRef;
use bytes::{BufMut, BytesMut};
use std::time::Duration;

#[cfg(doc)]
use super::super::session::SESSION_TIMEOUT;
#[cfg(doc)]
use super::Command;

/// Appends the binary form of [`Command::Put`].
///
/// # Errors
/// When key or value is outside [`Limits::MAX`]; `out` is then unchanged.
pub fn encode_put(key: &[u8], value: &[u8], out: &mut BytesMut) -> Result<(), CommandError> {
    Limits::MAX.check_key(key)?;
    Limits::MAX.check_value(value)?;
    out.reserve(HEAD + 2 * PREFIX + key.len() + value.len());
    out.put_slice(&[FORMAT, PUT]);
    put_bytes(out, key);
    put_bytes(out, value);
    Ok(())
}

/// Appends the binary form of [`Command::Delete`].
///
/// # Errors
/// When the key is outside [`Limits::MAX`]; `out` is then unchanged.
pub fn encode_delete(key: &[u8], out: &mut BytesMut) -> Result<(), CommandError> {
    ChangeRef::Delete { key }.encode_into(out)
}

/// Appends the binary form of [`Command::CompareAndSwap`].
///
/// # Errors
/// When the key or one of the values is outside [`Limits::MAX`]; `out` is then unchanged.
pub fn encode_compare_and_swap(
    key: &[u8],
    expected: ExpectedRef<'_>,
    value: &[u8],
    out: &mut BytesMut,
) -> Result<(), CommandError> {
    ChangeRef::CompareAndSwap { key, expected, value }.encode_into(out)
}

/// Appends the binary form of [`Command::OpenSession`].
///
/// # Errors
/// When the timeout is outside [`SESSION_TIMEOUT`]; `out` is then unchanged.
pub fn encode_open_session(timeout: Duration, out: &mut BytesMut) -> Result<(), CommandError> {
    check_timeout(timeout)?;
    out.put_u8(FORMAT);
    out.put_u8(OPEN_SESSION);
    out.put_u64_le(millis(timeout));
    Ok(())
}

/// Appends the binary form of [`Command::CloseSession`].
pub fn encode_close_session(session: SessionId, out: &mut BytesMut) {
    out.put_u8(FORMAT);
    out.put_u8(CLOSE_SESSION);
    out.put_u64_le(session.0);
}

/// Appends the binary form of [`Command::PutAttached`].
///
/// # Errors
/// When key or value is outside [`Limits::MAX`], or what it is attached to cannot be; `out` is then unchanged.
pub fn encode_put_attached(
    key: &[u8],
    value: &[u8],
    attach: Attach,
    out: &mut BytesMut,
) -> Result<(), CommandError> {
    ChangeRef::PutAttached { key, value, attach }.encode_into(out)
}

/// Appends the binary form of [`Command::SwapAttached`].
///
/// # Errors
/// When the key or one of the values is outside [`Limits::MAX`], or what it is attached to cannot be; `out` is then
/// unchanged.
pub fn encode_swap_attached(
    key: &[u8],
    expected: ExpectedRef<'_>,
    value: &[u8],
    attach: Attach,
    out: &mut BytesMut,
) -> Result<(), CommandError> {
    ChangeRef::SwapAttached { key, expected, value, attach }.encode_into(out)
}

/// Appends the binary form of [`Command::DeleteRange`].
///
/// # Errors
/// When an end of the range is outside [`Limits::MAX`], or the range is of the empty key; `out` is then unchanged.
pub fn encode_delete_range(range: &KeyRange, out: &mut BytesMut) -> Result<(), CommandError> {
    ChangeRef::DeleteRange { range: range.into() }.encode_into(out)
}

/// Appends the binary form of [`Command::Txn`].
///
/// # Errors
/// When it is too large, too long or too deep, one of its parts cannot be a command's, or it changes a key twice on one way; `out`
/// is then unchanged.
///
/// ```
/// use bytes::BytesMut;
/// use d_engine::kv::{Compare, CommandError, Op, Txn, encode_txn};
///
/// let lock = Txn::new().when(Compare::absent("lock")).then(Op::put("lock", "me")).otherwise(Op::get("lock"));
/// let mut out = BytesMut::new();
/// encode_txn(&lock, &mut out)?;
///
/// let twice = Txn::new().then(Op::put("a", "1")).then(Op::delete("a"));
/// assert_eq!(encode_txn(&twice, &mut out), Err(CommandError::DuplicateKey));
/// # Ok::<(), CommandError>(())
/// ```
pub fn encode_txn(txn: &Txn, out: &mut BytesMut) -> Result<(), CommandError> {
    ChangeRef::Txn(Box::new(TxnRef::new(txn)?)).encode_into(out)
}

/// Appends the binary form of [`Command::Grant`].
///
/// # Errors
/// When the time to live is outside [`LEASE_TTL`](super::super::lease::LEASE_TTL) or the id is 0; `out` is then unchanged.
pub fn encode_grant(lease: Option<LeaseId>, ttl: Duration, out: &mut BytesMut) -> Result<(), CommandError> {
    ChangeRef::Grant { lease, ttl }.encode_into(out)
}

/// Appends the binary form of [`Command::KeepAlive`].
///
/// # Errors
/// When the id is 0; `out` is then unchanged.
pub fn encode_keep_alive(lease: LeaseId, out: &mut BytesMut) -> Result<(), CommandError> {
    ChangeRef::KeepAlive { lease }.encode_into(out)
}

/// Appends the binary form of [`Command::Revoke`].
///
/// # Errors
/// When the id is 0; `out` is then unchanged.
pub fn encode_revoke(lease: LeaseId, out: &mut BytesMut) -> Result<(), CommandError> {
    ChangeRef::Revoke { lease }.encode_into(out)
}

/// Appends the binary form of [`Command::Compact`].
pub fn encode_compact(revision: Revision, out: &mut BytesMut) {
    out.put_u8(FORMAT);
    out.put_u8(COMPACT);
    out.put_u64_le(revision.0);
}

/// Appends the binary form of [`Command::Expire`], which only a leader proposes.
pub fn encode_expire(out: &mut BytesMut) {
    out.put_u8(FORMAT);
    out.put_u8(EXPIRE);
}

/// Appends the binary form of [`Command::InSession`], given the binary form of the command inside.
///
/// # Errors
/// When `command` is not one that changes keys or leases, is outside [`Limits::MAX`], or the stamp's numbers contradict each other;
/// `out` is then unchanged.
///
/// ```
/// use bytes::BytesMut;
/// use d_engine::kv::{
///     Numbering, Reply, Revision, SessionId, Store, encode_in_session, encode_open_session, encode_put,
/// };
/// use std::time::Duration;
///
/// let mut store = Store::new();
/// let mut open = BytesMut::new();
/// encode_open_session(Duration::from_secs(60), &mut open)?;
/// assert_eq!(store.apply(&open), Reply::SessionOpened { revision: Revision(1), session: SessionId(1) });
///
/// let mut numbers = Numbering::new(SessionId(1));
/// let (mut put, mut once) = (BytesMut::new(), BytesMut::new());
/// encode_put(b"color", b"blue", &mut put)?;
/// encode_in_session(numbers.take(), &put, &mut once)?;
/// assert_eq!(store.apply(&once), Reply::Put { revision: Revision(2) });
/// assert_eq!(store.apply(&once), Reply::Put { revision: Revision(2) }, "the first answer, and nothing is done");
/// assert_eq!(store.revision(), Revision(2));
/// # Ok::<(), d_engine::kv::CommandError>(())
/// ```
pub fn encode_in_session(stamp: Stamp, command: &[u8], out: &mut BytesMut) -> Result<(), CommandError> {
    check_stamp(stamp)?;
    ChangeRef::parse(command, Limits::MAX)?;
    out.reserve(HEAD + STAMP + command.len());
    out.put_u8(FORMAT);
    out.put_u8(IN_SESSION);
    out.put_u64_le(stamp.session.0);
    out.put_u64_le(stamp.sequence);
    out.put_u64_le(stamp.first_unanswered);
    out.put_slice(command);
    Ok(())
}
