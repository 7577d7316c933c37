//! The clients: each asks one thing at a time, of the node it sits at, gives up waiting, tries elsewhere, and remembers
//! what it may and may not conclude.

use super::dice::Dice;
use super::observation::{Ask, CallId, ClientId, Instant, Keys, Level, Range};
use super::plan::Load;
use super::wishes;
use crate::kv::{self, CommandError, KeyRange, LeaseId, RangeQuery, Reply, Revision, SessionId, Stamp, Txn};
use bytes::{Bytes, BytesMut};
use std::time::Duration;
use wal::NodeId;

/// A session as its client knows it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Session {
    pub id: u64,
    /// The number of the next command.
    pub next: u64,
}

/// Whether a client's commands are in a session.
#[derive(Clone, Copy, Debug)]
pub(super) enum Mode {
    /// They are not: a call whose outcome is unknown is not repeated.
    Plain,
    /// They are to be, and none is open yet (any more).
    Opening,
    /// They are.
    Open(Session),
}

/// A call that has not ended.
#[derive(Clone, Debug)]
pub(super) struct Open {
    pub call: CallId,
    pub ask: Ask,
    /// Its session and its number in there.
    pub session: Option<(u64, u64)>,
    pub ticket: u64,
    pub at: NodeId,
    pub tries: u32,
    /// A try may have happened.
    pub uncertain: bool,
    /// The bytes that are tried again are the same bytes.
    pub command: Bytes,
}

#[derive(Debug)]
pub(super) struct Client {
    pub id: ClientId,
    pub at: NodeId,
    pub mode: Mode,
    pub open: Option<Open>,
    /// The ticket of a session being opened.
    pub opening: Option<u64>,
    /// Its timer; older ones are stale.
    pub timer: u64,
    /// Leases that were granted to it, and that it has not heard the end of.
    pub leases: Vec<u64>,
    /// The newest revision it was told.
    pub revision: u64,
    /// The page that follows the one it read.
    pub next_page: Option<Range>,
}

impl Client {
    /// Whether it waits for nothing.
    pub(super) fn is_idle(&self) -> bool {
        self.open.is_none() && self.opening.is_none()
    }
}

/// What a client knows that it asks about.
pub(super) struct Known<'a> {
    pub leases: &'a [u64],
    /// Leases of anybody.
    pub others: &'a [u64],
    pub revision: u64,
    pub next_page: Option<Range>,
}

/// What a client does next, drawn from the mix of the load, and the transaction, if it is one.
pub(super) fn draw(
    dice: &mut Dice,
    load: &Load,
    known: &Known<'_>,
    next_value: &mut u64,
    lease_reads: LeaseReads,
) -> (Ask, Option<Txn>) {
    if load.rich > 0 && dice.below(100) < load.rich {
        return wishes::draw(dice, load, known, next_value, lease_reads);
    }
    (draw_plain(dice, load, next_value, lease_reads), None)
}

fn draw_plain(dice: &mut Dice, load: &Load, next_value: &mut u64, lease_reads: LeaseReads) -> Ask {
    let kind = dice.weighted(&load.mix);
    let key = dice.below(load.keys);
    let mut value = || {
        *next_value += 1;
        *next_value
    };
    match kind {
        0 => Ask::Put { key, value: value() },
        1 => {
            let value = value();
            let expected = (dice.below(4) != 0).then(|| value.saturating_sub(dice.between(1, 6)));
            Ask::Swap { key, expected, value }
        }
        2 => Ask::Delete { key },
        3 => Ask::Get { key, level: Level::Linearizable },
        4 if lease_reads == LeaseReads::Allowed => Ask::Get { key, level: Level::Lease },
        4 => Ask::Get { key, level: Level::Linearizable },
        _ => Ask::Get { key, level: Level::Eventual },
    }
}

/// Whether leases can be relied on in this run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LeaseReads {
    Allowed,
    Forbidden,
}

/// The bytes of a key: three share a first byte, and their order is that of the numbers.
#[must_use]
pub fn key_bytes(key: u64) -> [u8; 2] {
    let [group, ..] = (key / 3).to_le_bytes();
    let [member, ..] = (key % 3).to_le_bytes();
    [b'a' + group % 26, b'0' + member]
}

/// The number of a key.
fn key_number(key: &[u8]) -> Option<u64> {
    let &[group, member] = key else { return None };
    Some(3 * u64::from(group.checked_sub(b'a')?) + u64::from(member.checked_sub(b'0')?))
}

/// The keys between two numbers.
pub(super) fn key_range(keys: Keys) -> KeyRange {
    let from = key_bytes(keys.from);
    match keys.until {
        Some(until) => KeyRange::between(from, key_bytes(until)).expect("a range has room for keys"),
        None => KeyRange::starting_at(from),
    }
}

/// The store's question for a range.
pub(super) fn query(range: &Range) -> RangeQuery {
    let Range { keys, limit, order, select, at, after } = *range;
    let after = after.map(|key| Bytes::copy_from_slice(&key_bytes(key)));
    RangeQuery { range: key_range(keys), limit, order, select, revision: at, after }
}

/// The page that follows, as its reader would ask for it.
pub(super) fn next_page(range: &Range, next: &RangeQuery) -> Option<Range> {
    let after = key_number(next.after.as_ref()?)?;
    Some(Range { at: next.revision, after: Some(after), ..*range })
}

/// The number of a value: its first eight bytes, whatever pads it.
#[must_use]
pub fn value_number(value: &[u8]) -> Option<u64> {
    value.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
}

/// A value's bytes, padded by a length that follows from its number: the same value always has the same bytes.
pub(super) fn value_bytes(value: u64, padding: u64) -> Vec<u8> {
    let pad = if padding == 0 { 0 } else { value.wrapping_mul(0x9E37_79B9) % (padding + 1) };
    let mut bytes = value.to_le_bytes().to_vec();
    bytes.resize(8 + usize::try_from(pad).expect("small"), 0xA5);
    bytes
}

/// The store's command for a call that writes.
pub(super) fn command(ask: Ask, padding: u64) -> Result<Bytes, CommandError> {
    let mut out = BytesMut::new();
    match ask {
        Ask::Put { key, value } => {
            kv::encode_put(&key_bytes(key), &value_bytes(value, padding), &mut out)?;
        }
        Ask::Swap { key, expected, value } => {
            let expected_bytes = expected.map(|expected| value_bytes(expected, padding));
            let expected = match &expected_bytes {
                Some(bytes) => kv::ExpectedRef::Value(bytes),
                None => kv::ExpectedRef::Absent,
            };
            kv::encode_compare_and_swap(&key_bytes(key), expected, &value_bytes(value, padding), &mut out)?;
        }
        Ask::Delete { key } => kv::encode_delete(&key_bytes(key), &mut out)?,
        Ask::PutAttached { key, value, attach } => {
            kv::encode_put_attached(&key_bytes(key), &value_bytes(value, padding), attach, &mut out)?;
        }
        Ask::SwapAttached { key, expected, value, attach } => {
            let expected_bytes = expected.map(|expected| value_bytes(expected, padding));
            let expected = match &expected_bytes {
                Some(bytes) => kv::ExpectedRef::Value(bytes),
                None => kv::ExpectedRef::Absent,
            };
            let value = value_bytes(value, padding);
            kv::encode_swap_attached(&key_bytes(key), expected, &value, attach, &mut out)?;
        }
        Ask::DeleteRange { keys } => kv::encode_delete_range(&key_range(keys), &mut out)?,
        Ask::Grant { lease, ttl } => {
            let lease = (lease != 0).then_some(LeaseId(lease));
            kv::encode_grant(lease, Duration::from_millis(ttl), &mut out)?;
        }
        Ask::KeepAlive { lease } => kv::encode_keep_alive(LeaseId(lease), &mut out)?,
        Ask::Revoke { lease } => kv::encode_revoke(LeaseId(lease), &mut out)?,
        Ask::Compact { revision } => kv::encode_compact(Revision(revision), &mut out),
        Ask::Txn { .. }
        | Ask::Get { .. }
        | Ask::Range { .. }
        | Ask::History { .. }
        | Ask::Transfer { .. } => {
            unreachable!("not a command of the store, or one with bytes of its own")
        }
    }
    Ok(out.freeze())
}

/// A transaction's command.
pub(super) fn txn_command(txn: &Txn) -> Result<Bytes, CommandError> {
    let mut out = BytesMut::new();
    kv::encode_txn(txn, &mut out)?;
    Ok(out.freeze())
}

/// A point in time from which a client may look for another node.
pub(super) fn patience(at: Instant, load: &Load) -> Instant {
    Instant(at.0 + load.patience)
}

/// The command that opens a session.
pub(super) fn open_session(timeout: Duration) -> Bytes {
    let mut out = BytesMut::new();
    kv::encode_open_session(timeout, &mut out).expect("a timeout within its limits");
    out.freeze()
}

/// The command that closes one.
pub(super) fn close_session(session: u64) -> Bytes {
    let mut out = BytesMut::new();
    kv::encode_close_session(SessionId(session), &mut out);
    out.freeze()
}

/// A command in a session. Its client asks one thing at a time, and says late that it has seen the answers.
pub(super) fn in_session((session, sequence): (u64, u64), unacknowledged: u64, command: &Bytes) -> Bytes {
    let first_unanswered = sequence.saturating_sub(unacknowledged).max(1);
    let stamp = Stamp { session: SessionId(session), sequence, first_unanswered };
    let mut out = BytesMut::new();
    kv::encode_in_session(stamp, command, &mut out).expect("a command that changes keys");
    out.freeze()
}

/// The session that was opened.
pub(super) fn opened(reply: &Reply) -> Option<u64> {
    match reply {
        Reply::SessionOpened { session, .. } => Some(session.0),
        _ => None,
    }
}

/// Whether the command was refused because of its session: it was not applied, and the session is of no use.
pub(super) fn is_session_lost(reply: &Reply) -> bool {
    matches!(reply, Reply::SessionRefused(_))
}
