//! What can be asked of the store, its limits, and its binary form.
//!
//! ```text
//! command    = 1 (format), tag, body                              integers little endian
//! put        = tag 1: key, value
//! delete     = tag 2: key
//! compare    = tag 3: key, expected, value
//! expected   = 0 (absent) | 1 value | 2 revision (u64)
//! open       = tag 4: timeout in milliseconds (u64)
//! close      = tag 5: session (u64)
//! in session = tag 6: session (u64), sequence (u64), first unanswered (u64), command that changes keys
//! key/value  = length (u32), bytes
//! ```
//!
//! Nothing may follow the last field. The encoders refuse what the decoder would refuse, so a command that was encoded
//! is one that every replica applies.

use super::codec::{Reader, Short, put_bytes};
use super::session::{SESSION_TIMEOUT, SessionId, Stamp};
use super::store::Revision;
use bytes::{BufMut, Bytes, BytesMut};
use std::time::Duration;
use thiserror::Error;

const FORMAT: u8 = 1;
const PUT: u8 = 1;
const DELETE: u8 = 2;
const COMPARE_AND_SWAP: u8 = 3;
const OPEN_SESSION: u8 = 4;
const CLOSE_SESSION: u8 = 5;
const IN_SESSION: u8 = 6;
const EXPECT_ABSENT: u8 = 0;
const EXPECT_VALUE: u8 = 1;
const EXPECT_REVISION: u8 = 2;
const PREFIX: usize = 4;
const HEAD: usize = 2;
const STAMP: usize = 3 * size_of::<u64>();

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

    /// Length of the longest command within these limits: a compare-and-swap of one value for another, in a session.
    #[must_use]
    pub const fn command_bytes(&self) -> usize {
        HEAD + STAMP + HEAD + PREFIX + self.key_bytes + 1 + 2 * (PREFIX + self.value_bytes)
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
    /// A session's timeout is outside [`SESSION_TIMEOUT`].
    #[error("a session's timeout of {found:?} is outside 10ms to 24h: choose one within")]
    SessionTimeout {
        /// The timeout asked for.
        found: Duration,
    },
    /// A session's command whose numbers contradict each other.
    #[error(
        "command {sequence} of a session says that it acknowledges everything below {first_unanswered}: numbers begin at 1, and \
         no command acknowledges itself"
    )]
    SessionNumbers {
        /// The command's number.
        sequence: u64,
        /// The lowest number it does not acknowledge.
        first_unanswered: u64,
    },
    /// A range whose end is not behind its start.
    #[error(
        "the range's end is not behind its start, no key can be in it: name an end that is greater, or none"
    )]
    Range,
    /// A command about sessions inside a session's command.
    #[error("a session's command holds the tag {0}: only commands that change keys can be in a session")]
    NotInSession(u8),
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
        /// A command that changes keys.
        command: Box<Command>,
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
    ChangeRef::Put { key, value }.encode_into(out)
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
    out.put_u64_le(u64::try_from(timeout.as_millis()).expect("a timeout within its limits"));
    Ok(())
}

/// Appends the binary form of [`Command::CloseSession`].
pub fn encode_close_session(session: SessionId, out: &mut BytesMut) {
    out.put_u8(FORMAT);
    out.put_u8(CLOSE_SESSION);
    out.put_u64_le(session.0);
}

/// Appends the binary form of [`Command::InSession`], given the binary form of the command inside.
///
/// # Errors
/// When `command` is not one that changes keys, is outside [`Limits::MAX`], or the stamp's numbers contradict each other;
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

fn check_timeout(timeout: Duration) -> Result<(), CommandError> {
    if SESSION_TIMEOUT.contains(&timeout) {
        return Ok(());
    }
    Err(CommandError::SessionTimeout { found: timeout })
}

fn check_stamp(Stamp { sequence, first_unanswered, .. }: Stamp) -> Result<(), CommandError> {
    if (1..=sequence).contains(&first_unanswered) {
        return Ok(());
    }
    Err(CommandError::SessionNumbers { sequence, first_unanswered })
}

impl Command {
    /// Appends the binary form.
    ///
    /// # Errors
    /// When a part is outside its limits, or a command about sessions is inside one; `out` is then unchanged.
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
            CommandRef::Change(change) => change.to_command(bytes),
            CommandRef::OpenSession { timeout } => Self::OpenSession { timeout },
            CommandRef::CloseSession { session } => Self::CloseSession { session },
            CommandRef::InSession { stamp, change, .. } => {
                Self::InSession { stamp, command: Box::new(change.to_command(bytes)) }
            }
        })
    }
}

/// A checked command whose parts are borrowed from its bytes: what `apply` works on.
#[derive(Clone, Copy, Debug)]
pub(super) enum CommandRef<'a> {
    Change(ChangeRef<'a>),
    OpenSession { timeout: Duration },
    CloseSession { session: SessionId },
    InSession { stamp: Stamp, change: ChangeRef<'a>, bytes: &'a [u8] },
}

impl<'a> CommandRef<'a> {
    pub fn parse(bytes: &'a [u8], limits: Limits) -> Result<Self, CommandError> {
        let mut reader = Reader::new(bytes);
        let command = match read_tag(&mut reader)? {
            OPEN_SESSION => {
                let timeout = Duration::from_millis(reader.u64()?);
                check_timeout(timeout)?;
                Self::OpenSession { timeout }
            }
            CLOSE_SESSION => Self::CloseSession { session: SessionId(reader.u64()?) },
            IN_SESSION => {
                let stamp = Stamp {
                    session: SessionId(reader.u64()?),
                    sequence: reader.u64()?,
                    first_unanswered: reader.u64()?,
                };
                check_stamp(stamp)?;
                let bytes = reader.rest();
                Self::InSession { stamp, change: ChangeRef::parse(bytes, limits)?, bytes }
            }
            tag => Self::Change(ChangeRef::read(tag, &mut reader, limits)?),
        };
        match reader.left() {
            0 => Ok(command),
            left => Err(CommandError::Trailing(left)),
        }
    }
}

fn read_tag(reader: &mut Reader<'_>) -> Result<u8, CommandError> {
    let format = reader.u8()?;
    if format != FORMAT {
        return Err(CommandError::Format(format));
    }
    Ok(reader.u8()?)
}

/// A command that changes keys.
#[derive(Clone, Copy, Debug)]
pub(super) enum ChangeRef<'a> {
    Put { key: &'a [u8], value: &'a [u8] },
    Delete { key: &'a [u8] },
    CompareAndSwap { key: &'a [u8], expected: ExpectedRef<'a>, value: &'a [u8] },
}

impl<'a> ChangeRef<'a> {
    /// The command inside a session's command, and nothing behind it.
    fn parse(bytes: &'a [u8], limits: Limits) -> Result<Self, CommandError> {
        let mut reader = Reader::new(bytes);
        let change = match read_tag(&mut reader)? {
            tag @ (OPEN_SESSION | CLOSE_SESSION | IN_SESSION) => return Err(CommandError::NotInSession(tag)),
            tag => Self::read(tag, &mut reader, limits)?,
        };
        match reader.left() {
            0 => Ok(change),
            left => Err(CommandError::Trailing(left)),
        }
    }

    fn read(tag: u8, reader: &mut Reader<'a>, limits: Limits) -> Result<Self, CommandError> {
        let change = match tag {
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
        change.check(limits).map(|()| change)
    }

    /// The same, sharing `bytes`, which it was read from.
    fn to_command(self, bytes: &Bytes) -> Command {
        let share = |part: &[u8]| bytes.slice_ref(part);
        match self {
            Self::Put { key, value } => Command::Put { key: share(key), value: share(value) },
            Self::Delete { key } => Command::Delete { key: share(key) },
            Self::CompareAndSwap { key, expected, value } => {
                let expected = match expected {
                    ExpectedRef::Absent => Expected::Absent,
                    ExpectedRef::Value(value) => Expected::Value(share(value)),
                    ExpectedRef::Revision(revision) => Expected::Revision(revision),
                };
                Command::CompareAndSwap { key: share(key), expected, value: share(value) }
            }
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
        HEAD + match self {
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
