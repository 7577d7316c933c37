//! What the store answers, and its binary form, in which a leader sends it to the node that forwarded the command.
//!
//! ```text
//! reply           = 1 (format), tag, revision (u64), body            integers little endian
//! put             = tag 1:
//! deleted         = tag 2: presence (1 present, 0 absent)
//! swapped         = tag 3:
//! not swapped     = tag 4: 0 | 1 key, value, create revision (u64), modify revision (u64), version (u64)
//! refused         = tag 5, without the revision: code, two numbers (u64)
//! session opened  = tag 6: session (u64)
//! session closed  = tag 7:
//! session refused = tag 8, without the revision: code, two numbers (u64)
//! key/value       = length (u32), bytes
//! ```
//!
//! A tag or code that this version does not know is a [`ReplyError`]: what was asked may have happened, and a newer node
//! can tell.

use super::codec::{Reader, Short, put_bytes};
use super::command::CommandError;
use super::session::{SessionError, SessionId};
use super::store::{KeyValue, Revision};
use bytes::{BufMut, Bytes, BytesMut};
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
        /// What was there, `None` when the key is absent.
        current: Option<KeyValue>,
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
            | Self::SessionClosed { revision } => Some(revision),
            Self::Refused(_) | Self::SessionRefused(_) => None,
        }
    }

    /// Bytes that it keeps alive beside itself.
    pub(super) fn held_bytes(&self) -> usize {
        match self {
            Self::NotSwapped { current: Some(current), .. } => current.key.len() + current.value.len(),
            _ => 0,
        }
    }

    /// A hash of all that it says. A key and value in it are hashed where they are.
    pub(super) fn fingerprint(&self) -> u128 {
        let mut head = BytesMut::with_capacity(80);
        match self {
            Self::NotSwapped { revision, current: Some(current) } => {
                put_head(&mut head, NOT_SWAPPED, *revision);
                for number in [current.create_revision.0, current.modify_revision.0, current.version] {
                    head.put_u64_le(number);
                }
                head.put_u128_le(xxh3_128(&current.key));
                head.put_u128_le(xxh3_128(&current.value));
            }
            reply => reply.encode_into(&mut head),
        }
        xxh3_128(&head)
    }

    /// Appends the binary form.
    pub fn encode_into(&self, out: &mut BytesMut) {
        out.put_u8(FORMAT);
        match self {
            Self::Put { revision } => put_head(out, PUT, *revision),
            Self::Deleted { revision, before } => {
                put_head(out, DELETED, *revision);
                out.put_u8(match before {
                    Presence::Absent => 0,
                    Presence::Present => 1,
                });
            }
            Self::Swapped { revision } => put_head(out, SWAPPED, *revision),
            Self::NotSwapped { revision, current: None } => {
                put_head(out, NOT_SWAPPED, *revision);
                out.put_u8(0);
            }
            Self::NotSwapped { revision, current: Some(current) } => {
                out.reserve(50 + current.key.len() + current.value.len());
                put_head(out, NOT_SWAPPED, *revision);
                out.put_u8(1);
                put_bytes(out, &current.key);
                put_bytes(out, &current.value);
                out.put_u64_le(current.create_revision.0);
                out.put_u64_le(current.modify_revision.0);
                out.put_u64_le(current.version);
            }
            Self::Refused(error) => put_refusal(out, REFUSED, refusal(*error)),
            Self::SessionOpened { revision, session } => {
                put_head(out, SESSION_OPENED, *revision);
                out.put_u64_le(session.0);
            }
            Self::SessionClosed { revision } => put_head(out, SESSION_CLOSED, *revision),
            Self::SessionRefused(error) => put_refusal(out, SESSION_REFUSED, session_refusal(*error)),
        }
    }

    /// Reads a reply; a key and value in it share `bytes`.
    ///
    /// # Errors
    /// When `bytes` is not exactly one reply.
    pub fn decode(bytes: &Bytes) -> Result<Self, ReplyError> {
        let mut reader = Reader::new(bytes);
        let format = reader.u8()?;
        if format != FORMAT {
            return Err(ReplyError::Field { field: "format", value: format });
        }
        let reply = match reader.u8()? {
            PUT => Self::Put { revision: revision(&mut reader)? },
            DELETED => Self::Deleted {
                revision: revision(&mut reader)?,
                before: match reader.u8()? {
                    0 => Presence::Absent,
                    1 => Presence::Present,
                    value => return Err(ReplyError::Field { field: "presence", value }),
                },
            },
            SWAPPED => Self::Swapped { revision: revision(&mut reader)? },
            NOT_SWAPPED => Self::NotSwapped {
                revision: revision(&mut reader)?,
                current: match reader.u8()? {
                    0 => None,
                    1 => Some(KeyValue {
                        key: bytes.slice_ref(reader.bytes()?),
                        value: bytes.slice_ref(reader.bytes()?),
                        create_revision: revision(&mut reader)?,
                        modify_revision: revision(&mut reader)?,
                        version: reader.u64()?,
                        lease: None,
                    }),
                    value => return Err(ReplyError::Field { field: "presence", value }),
                },
            },
            REFUSED => Self::Refused(read_refusal(&mut reader)?),
            SESSION_OPENED => {
                Self::SessionOpened { revision: revision(&mut reader)?, session: SessionId(reader.u64()?) }
            }
            SESSION_CLOSED => Self::SessionClosed { revision: revision(&mut reader)? },
            SESSION_REFUSED => Self::SessionRefused(read_session_refusal(&mut reader)?),
            value => return Err(ReplyError::Field { field: "tag", value }),
        };
        match reader.left() {
            0 => Ok(reply),
            left => Err(ReplyError::Trailing(left)),
        }
    }
}

fn put_head(out: &mut BytesMut, tag: u8, revision: Revision) {
    out.put_u8(tag);
    out.put_u64_le(revision.0);
}

fn revision(reader: &mut Reader<'_>) -> Result<Revision, Short> {
    reader.u64().map(Revision)
}

fn put_refusal(out: &mut BytesMut, tag: u8, (code, first, second): (u8, u64, u64)) {
    out.put_u8(tag);
    out.put_u8(code);
    out.put_u64_le(first);
    out.put_u64_le(second);
}

/// An error as a code and two numbers.
fn refusal(error: CommandError) -> (u8, u64, u64) {
    match error {
        CommandError::EmptyKey => (1, 0, 0),
        CommandError::KeyTooLong { limit, found } => (2, limit as u64, found as u64),
        CommandError::ValueTooLong { limit, found } => (3, limit as u64, found as u64),
        CommandError::Short { need, have } => (4, need as u64, have as u64),
        CommandError::Trailing(bytes) => (5, bytes as u64, 0),
        CommandError::Format(value) => (6, value.into(), 0),
        CommandError::Tag(value) => (7, value.into(), 0),
        CommandError::Expectation(value) => (8, value.into(), 0),
        CommandError::SessionTimeout { found } => (9, found.as_secs(), found.subsec_nanos().into()),
        CommandError::SessionNumbers { sequence, first_unanswered } => (10, sequence, first_unanswered),
        CommandError::NotInSession(tag) => (11, tag.into(), 0),
        CommandError::Range => (12, 0, 0),
    }
}

fn read_refusal(reader: &mut Reader<'_>) -> Result<CommandError, ReplyError> {
    let (code, one, two) = (reader.u8()?, reader.u64()?, reader.u64()?);
    let length = |wide: u64| usize::try_from(wide).unwrap_or(usize::MAX);
    let (first, second) = (length(one), length(two));
    let byte = u8::try_from(one).unwrap_or(u8::MAX);
    Ok(match code {
        1 => CommandError::EmptyKey,
        2 => CommandError::KeyTooLong { limit: first, found: second },
        3 => CommandError::ValueTooLong { limit: first, found: second },
        4 => CommandError::Short { need: first, have: second },
        5 => CommandError::Trailing(first),
        6 => CommandError::Format(byte),
        7 => CommandError::Tag(byte),
        8 => CommandError::Expectation(byte),
        9 => {
            // A part of a second never carries over: `Duration::new` would panic where it overflows.
            let nanos = u32::try_from(two).unwrap_or(u32::MAX).min(999_999_999);
            CommandError::SessionTimeout { found: Duration::new(one, nanos) }
        }
        10 => CommandError::SessionNumbers { sequence: one, first_unanswered: two },
        11 => CommandError::NotInSession(byte),
        12 => CommandError::Range,
        value => return Err(ReplyError::Field { field: "refusal", value }),
    })
}

fn session_refusal(error: SessionError) -> (u8, u64, u64) {
    match error {
        SessionError::Unknown { session } => (1, session.0, 0),
        SessionError::Gone { session } => (2, session.0, 0),
        SessionError::Acknowledged { sequence, first_unanswered } => (3, sequence, first_unanswered),
        SessionError::Reused { sequence } => (4, sequence, 0),
        SessionError::TooManyAnswers { answers, bytes } => (5, answers, bytes),
        SessionError::AnswersFull { bytes } => (6, bytes, 0),
        SessionError::TooManySessions { limit } => (7, limit, 0),
    }
}

fn read_session_refusal(reader: &mut Reader<'_>) -> Result<SessionError, ReplyError> {
    let (code, first, second) = (reader.u8()?, reader.u64()?, reader.u64()?);
    Ok(match code {
        1 => SessionError::Unknown { session: SessionId(first) },
        2 => SessionError::Gone { session: SessionId(first) },
        3 => SessionError::Acknowledged { sequence: first, first_unanswered: second },
        4 => SessionError::Reused { sequence: first },
        5 => SessionError::TooManyAnswers { answers: first, bytes: second },
        6 => SessionError::AnswersFull { bytes: first },
        7 => SessionError::TooManySessions { limit: first },
        value => return Err(ReplyError::Field { field: "session refusal", value }),
    })
}
