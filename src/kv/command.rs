//! What can be asked of the store, its limits, and its binary form.
//!
//! ```text
//! command   = 1 (format), tag, body                              integers little endian
//! put       = tag 1: key, value
//! delete    = tag 2: key
//! compare   = tag 3: key, expected, value
//! expected  = 0 (absent) | 1 value | 2 revision (u64)
//! key/value = length (u32), bytes
//! ```
//!
//! Nothing may follow the last field. The encoders refuse what the decoder would refuse, so a command that was encoded
//! is one that every replica applies.

use super::codec::{Reader, Short, put_bytes};
use super::store::Revision;
use bytes::{BufMut, Bytes, BytesMut};
use thiserror::Error;

const FORMAT: u8 = 1;
const PUT: u8 = 1;
const DELETE: u8 = 2;
const COMPARE_AND_SWAP: u8 = 3;
const EXPECT_ABSENT: u8 = 0;
const EXPECT_VALUE: u8 = 1;
const EXPECT_REVISION: u8 = 2;
const PREFIX: usize = 4;

/// How long keys and values may be, in bytes. A key has at least one byte; a value may be empty.
///
/// Two limits of this type are in use. The configured one is asked when a command is admitted, on the node that takes
/// it. [`Limits::MAX`] belongs to the format and is asked when a command is applied: were that one configurable, two
/// replicas configured differently would apply the same log to different states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Longest key.
    pub key_bytes: usize,
    /// Longest value.
    pub value_bytes: usize,
}

impl Limits {
    /// What a node admits unless configured otherwise: keys to 4 KiB, values to 256 KiB.
    pub const DEFAULT: Self = Self { key_bytes: 4 << 10, value_bytes: 256 << 10 };

    /// What the format allows and every replica applies: keys to 64 KiB, values to 4 MiB.
    pub const MAX: Self = Self { key_bytes: 64 << 10, value_bytes: 4 << 20 };

    /// Length of the longest command within these limits: a compare-and-swap of one value for another.
    #[must_use]
    pub const fn command_bytes(&self) -> usize {
        2 + PREFIX + self.key_bytes + 1 + 2 * (PREFIX + self.value_bytes)
    }

    /// Whether `command` is well formed and within these limits.
    ///
    /// # Errors
    /// [`CommandError`] says what is wrong with it.
    pub fn check(&self, command: &[u8]) -> Result<(), CommandError> {
        CommandRef::parse(command, *self).map(drop)
    }

    fn check_key(&self, key: &[u8]) -> Result<(), CommandError> {
        match key.len() {
            0 => Err(CommandError::EmptyKey),
            found if found > self.key_bytes => Err(CommandError::KeyTooLong { limit: self.key_bytes, found }),
            _ => Ok(()),
        }
    }

    fn check_value(&self, value: &[u8]) -> Result<(), CommandError> {
        let found = value.len();
        if found > self.value_bytes {
            return Err(CommandError::ValueTooLong { limit: self.value_bytes, found });
        }
        Ok(())
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

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
}

impl From<Short> for CommandError {
    fn from(Short { need, have }: Short) -> Self {
        Self::Short { need, have }
    }
}

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

/// Appends the binary form of [`Command::Put`].
///
/// # Errors
/// When key or value is outside [`Limits::MAX`]; `out` is then unchanged.
pub fn encode_put(key: &[u8], value: &[u8], out: &mut BytesMut) -> Result<(), CommandError> {
    CommandRef::Put { key, value }.encode_into(out)
}

/// Appends the binary form of [`Command::Delete`].
///
/// # Errors
/// When the key is outside [`Limits::MAX`]; `out` is then unchanged.
pub fn encode_delete(key: &[u8], out: &mut BytesMut) -> Result<(), CommandError> {
    CommandRef::Delete { key }.encode_into(out)
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
    CommandRef::CompareAndSwap { key, expected, value }.encode_into(out)
}

impl Command {
    /// Appends the binary form.
    ///
    /// # Errors
    /// When the key or a value is outside [`Limits::MAX`]; `out` is then unchanged.
    pub fn encode_into(&self, out: &mut BytesMut) -> Result<(), CommandError> {
        match self {
            Self::Put { key, value } => encode_put(key, value, out),
            Self::Delete { key } => encode_delete(key, out),
            Self::CompareAndSwap { key, expected, value } => {
                encode_compare_and_swap(key, expected.as_ref(), value, out)
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
        let share = |part: &[u8]| bytes.slice_ref(part);
        Ok(match CommandRef::parse(bytes, Limits::MAX)? {
            CommandRef::Put { key, value } => Self::Put { key: share(key), value: share(value) },
            CommandRef::Delete { key } => Self::Delete { key: share(key) },
            CommandRef::CompareAndSwap { key, expected, value } => {
                let expected = match expected {
                    ExpectedRef::Absent => Expected::Absent,
                    ExpectedRef::Value(value) => Expected::Value(share(value)),
                    ExpectedRef::Revision(revision) => Expected::Revision(revision),
                };
                Self::CompareAndSwap { key: share(key), expected, value: share(value) }
            }
        })
    }
}

/// A checked command whose parts are borrowed from its bytes: what `apply` works on.
#[derive(Clone, Copy, Debug)]
pub(super) enum CommandRef<'a> {
    Put { key: &'a [u8], value: &'a [u8] },
    Delete { key: &'a [u8] },
    CompareAndSwap { key: &'a [u8], expected: ExpectedRef<'a>, value: &'a [u8] },
}

impl<'a> CommandRef<'a> {
    pub fn parse(bytes: &'a [u8], limits: Limits) -> Result<Self, CommandError> {
        let mut reader = Reader::new(bytes);
        let format = reader.u8()?;
        if format != FORMAT {
            return Err(CommandError::Format(format));
        }
        let command = match reader.u8()? {
            PUT => Self::Put { key: reader.bytes()?, value: reader.bytes()? },
            DELETE => Self::Delete { key: reader.bytes()? },
            COMPARE_AND_SWAP => Self::CompareAndSwap {
                key: reader.bytes()?,
                expected: match reader.u8()? {
                    EXPECT_ABSENT => ExpectedRef::Absent,
                    EXPECT_VALUE => ExpectedRef::Value(reader.bytes()?),
                    EXPECT_REVISION => ExpectedRef::Revision(Revision(reader.u64()?)),
                    unknown => return Err(CommandError::Expectation(unknown)),
                },
                value: reader.bytes()?,
            },
            unknown => return Err(CommandError::Tag(unknown)),
        };
        match reader.left() {
            0 => command.check(limits).map(|()| command),
            left => Err(CommandError::Trailing(left)),
        }
    }

    fn check(&self, limits: Limits) -> Result<(), CommandError> {
        match *self {
            Self::Put { key, value } => limits.check_key(key).and_then(|()| limits.check_value(value)),
            Self::Delete { key } => limits.check_key(key),
            Self::CompareAndSwap { key, expected, value } => {
                limits.check_key(key)?;
                if let ExpectedRef::Value(expected) = expected {
                    limits.check_value(expected)?;
                }
                limits.check_value(value)
            }
        }
    }

    fn encoded_bytes(&self) -> usize {
        2 + match self {
            Self::Put { key, value } => 2 * PREFIX + key.len() + value.len(),
            Self::Delete { key } => PREFIX + key.len(),
            Self::CompareAndSwap { key, expected, value } => {
                let expected = match expected {
                    ExpectedRef::Absent => 1,
                    ExpectedRef::Value(value) => 1 + PREFIX + value.len(),
                    ExpectedRef::Revision(_) => 1 + size_of::<u64>(),
                };
                2 * PREFIX + key.len() + expected + value.len()
            }
        }
    }

    fn encode_into(self, out: &mut BytesMut) -> Result<(), CommandError> {
        self.check(Limits::MAX)?;
        out.reserve(self.encoded_bytes());
        out.put_u8(FORMAT);
        match self {
            Self::Put { key, value } => {
                out.put_u8(PUT);
                put_bytes(out, key);
                put_bytes(out, value);
            }
            Self::Delete { key } => {
                out.put_u8(DELETE);
                put_bytes(out, key);
            }
            Self::CompareAndSwap { key, expected, value } => {
                out.put_u8(COMPARE_AND_SWAP);
                put_bytes(out, key);
                match expected {
                    ExpectedRef::Absent => out.put_u8(EXPECT_ABSENT),
                    ExpectedRef::Value(value) => {
                        out.put_u8(EXPECT_VALUE);
                        put_bytes(out, value);
                    }
                    ExpectedRef::Revision(revision) => {
                        out.put_u8(EXPECT_REVISION);
                        out.put_u64_le(revision.0);
                    }
                }
                put_bytes(out, value);
            }
        }
        Ok(())
    }
}
