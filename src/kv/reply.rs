//! What the store answers, and its binary form, in which a leader sends it to the node that forwarded the command.
//!
//! ```text
//! reply       = 1 (format), tag, revision (u64), body            integers little endian
//! put         = tag 1:
//! deleted     = tag 2: presence (1 present, 0 absent)
//! swapped     = tag 3:
//! not swapped = tag 4: 0 | 1 key, value, create revision (u64), modify revision (u64), version (u64)
//! refused     = tag 5, without the revision: code, two numbers (u64)
//! key/value   = length (u32), bytes
//! ```

use super::codec::{Reader, Short, put_bytes};
use super::command::CommandError;
use super::store::{KeyValue, Revision};
use bytes::{BufMut, Bytes, BytesMut};
use thiserror::Error;

const FORMAT: u8 = 1;
const PUT: u8 = 1;
const DELETED: u8 = 2;
const SWAPPED: u8 = 3;
const NOT_SWAPPED: u8 = 4;
const REFUSED: u8 = 5;

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
            | Self::NotSwapped { revision, .. } => Some(revision),
            Self::Refused(_) => None,
        }
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
            Self::Refused(error) => {
                let (code, first, second) = refusal(*error);
                out.put_u8(REFUSED);
                out.put_u8(code);
                out.put_u64_le(first as u64);
                out.put_u64_le(second as u64);
            }
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
                    }),
                    value => return Err(ReplyError::Field { field: "presence", value }),
                },
            },
            REFUSED => Self::Refused(read_refusal(&mut reader)?),
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

/// An error as a code and two numbers.
fn refusal(error: CommandError) -> (u8, usize, usize) {
    match error {
        CommandError::EmptyKey => (1, 0, 0),
        CommandError::KeyTooLong { limit, found } => (2, limit, found),
        CommandError::ValueTooLong { limit, found } => (3, limit, found),
        CommandError::Short { need, have } => (4, need, have),
        CommandError::Trailing(bytes) => (5, bytes, 0),
        CommandError::Format(value) => (6, value.into(), 0),
        CommandError::Tag(value) => (7, value.into(), 0),
        CommandError::Expectation(value) => (8, value.into(), 0),
    }
}

fn read_refusal(reader: &mut Reader<'_>) -> Result<CommandError, ReplyError> {
    let code = reader.u8()?;
    let number = |wide: u64| usize::try_from(wide).unwrap_or(usize::MAX);
    let (first, second) = (number(reader.u64()?), number(reader.u64()?));
    let byte = u8::try_from(first).unwrap_or(u8::MAX);
    Ok(match code {
        1 => CommandError::EmptyKey,
        2 => CommandError::KeyTooLong { limit: first, found: second },
        3 => CommandError::ValueTooLong { limit: first, found: second },
        4 => CommandError::Short { need: first, have: second },
        5 => CommandError::Trailing(first),
        6 => CommandError::Format(byte),
        7 => CommandError::Tag(byte),
        8 => CommandError::Expectation(byte),
        value => return Err(ReplyError::Field { field: "refusal", value }),
    })
}
