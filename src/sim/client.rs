//! The clients: each asks one thing at a time, of the node it sits at, gives up waiting, tries elsewhere, and remembers
//! what it may and may not conclude.

use super::dice::Dice;
use super::observation::{Ask, CallId, ClientId, Instant, Level};
use super::plan::Load;
use crate::kv::{self, CommandError, Reply, SessionId, Stamp};
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
}

impl Client {
    /// Whether it waits for nothing.
    pub(super) fn is_idle(&self) -> bool {
        self.open.is_none() && self.opening.is_none()
    }
}

/// What a client does next, drawn from the mix of the load.
pub(super) fn draw(dice: &mut Dice, load: &Load, next_value: &mut u64, lease_reads: LeaseReads) -> Ask {
    let total: u64 = load.mix.iter().sum();
    let mut at = dice.below(total);
    let mut kind = 0;
    while at >= load.mix[kind] {
        at -= load.mix[kind];
        kind += 1;
    }
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

/// The bytes of a key.
pub fn key_bytes(key: u64) -> [u8; 8] {
    key.to_le_bytes()
}

/// The number of a value: its first eight bytes, whatever pads it.
#[must_use]
pub fn value_number(value: &[u8]) -> Option<u64> {
    value.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
}

/// A value's bytes, padded by a length that follows from its number: the same value always has the same bytes.
fn value_bytes(value: u64, padding: u64) -> Vec<u8> {
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
        Ask::Get { .. } | Ask::Transfer { .. } => unreachable!("not a command of the store"),
    }
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
