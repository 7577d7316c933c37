//! Commands whose parts are borrowed from their bytes: what is admitted and applied. Nothing is copied.

use super::super::codec::{Reader, put_bytes};
use super::super::lease::{Attach, LeaseId};
use super::super::session::{SessionId, Stamp};
use super::super::store::Revision;
use super::errors::CommandError;
use super::form::*;
use super::limits::Limits;
use super::range::RangeRef;
use super::txn::TxnRef;
use super::{Command, Expected, ExpectedRef, attach};
use bytes::{BufMut, Bytes, BytesMut};
use std::time::Duration;

/// A checked command whose parts are borrowed from its bytes: what `apply` works on.
#[derive(Debug)]
pub(in crate::kv) enum CommandRef<'a> {
    Change(ChangeRef<'a>),
    OpenSession { timeout: Duration },
    CloseSession { session: SessionId },
    InSession { stamp: Stamp, change: ChangeRef<'a>, bytes: &'a [u8] },
    Compact { revision: Revision },
    Expire,
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
            COMPACT => Self::Compact { revision: Revision(reader.u64()?) },
            EXPIRE => Self::Expire,
            tag => Self::Change(ChangeRef::read(tag, &mut reader, limits)?),
        };
        match reader.left() {
            0 => Ok(command),
            left => Err(CommandError::Trailing(left)),
        }
    }
}

/// Key and value of a put within the limits, which most commands are: taken apart in a few steps that do not say what is
/// wrong. `None` for everything else, and for what is to be refused.
#[inline]
pub(in crate::kv) fn put_parts(bytes: &[u8], limits: Limits) -> Option<(&[u8], &[u8])> {
    let rest = bytes.strip_prefix(&[FORMAT, PUT])?;
    let (length, rest) = rest.split_first_chunk()?;
    let (key, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    let (length, value) = rest.split_first_chunk()?;
    let fits = !key.is_empty() && key.len() <= limits.key_bytes && value.len() <= limits.value_bytes;
    (fits && u32::from_le_bytes(*length) as usize == value.len()).then_some((key, value))
}

fn read_tag(reader: &mut Reader<'_>) -> Result<u8, CommandError> {
    let format = reader.u8()?;
    if format != FORMAT {
        return Err(CommandError::Format(format));
    }
    Ok(reader.u8()?)
}

/// A command that changes keys or leases.
#[derive(Debug)]
pub(in crate::kv) enum ChangeRef<'a> {
    Put {
        key: &'a [u8],
        value: &'a [u8],
    },
    Delete {
        key: &'a [u8],
    },
    CompareAndSwap {
        key: &'a [u8],
        expected: ExpectedRef<'a>,
        value: &'a [u8],
    },
    PutAttached {
        key: &'a [u8],
        value: &'a [u8],
        attach: Attach,
    },
    SwapAttached {
        key: &'a [u8],
        expected: ExpectedRef<'a>,
        value: &'a [u8],
        attach: Attach,
    },
    DeleteRange {
        range: RangeRef<'a>,
    },
    /// Boxed: it is the largest by far, and most commands are puts.
    Txn(Box<TxnRef<'a>>),
    Grant {
        lease: Option<LeaseId>,
        ttl: Duration,
    },
    KeepAlive {
        lease: LeaseId,
    },
    Revoke {
        lease: LeaseId,
    },
}

impl<'a> ChangeRef<'a> {
    /// The command inside a session's command, and nothing behind it.
    pub(super) fn parse(bytes: &'a [u8], limits: Limits) -> Result<Self, CommandError> {
        let mut reader = Reader::new(bytes);
        let change = match read_tag(&mut reader)? {
            tag @ (OPEN_SESSION | CLOSE_SESSION | IN_SESSION | COMPACT | EXPIRE) => {
                return Err(CommandError::NotInSession(tag));
            }
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
                expected: read_expected(reader)?,
                value: reader.bytes()?,
            },
            PUT_ATTACHED => Self::PutAttached {
                key: reader.bytes()?,
                value: reader.bytes()?,
                attach: attach::read(reader)?,
            },
            SWAP_ATTACHED => Self::SwapAttached {
                key: reader.bytes()?,
                expected: read_expected(reader)?,
                value: reader.bytes()?,
                attach: attach::read(reader)?,
            },
            DELETE_RANGE => Self::DeleteRange { range: RangeRef::read(reader)? },
            TXN => {
                check_txn_bytes(reader.left(), limits)?;
                Self::Txn(Box::new(TxnRef::read(reader)?))
            }
            GRANT => {
                let lease = reader.u64()?;
                let lease = (lease != 0).then_some(LeaseId(lease));
                Self::Grant { lease, ttl: Duration::from_millis(reader.u64()?) }
            }
            KEEP_ALIVE => Self::KeepAlive { lease: LeaseId(reader.u64()?) },
            REVOKE => Self::Revoke { lease: LeaseId(reader.u64()?) },
            unknown => return Err(CommandError::Tag(unknown)),
        };
        change.check(limits).map(|()| change)
    }

    /// The same, sharing `bytes`, which it was read from.
    pub(super) fn share(&self, bytes: &Bytes) -> Command {
        let share = |part: &[u8]| bytes.slice_ref(part);
        match *self {
            Self::Put { key, value } => Command::Put { key: share(key), value: share(value) },
            Self::Delete { key } => Command::Delete { key: share(key) },
            Self::CompareAndSwap { key, expected, value } => Command::CompareAndSwap {
                key: share(key),
                expected: share_expected(expected, bytes),
                value: share(value),
            },
            Self::PutAttached { key, value, attach } => {
                Command::PutAttached { key: share(key), value: share(value), attach }
            }
            Self::SwapAttached { key, expected, value, attach } => Command::SwapAttached {
                key: share(key),
                expected: share_expected(expected, bytes),
                value: share(value),
                attach,
            },
            Self::DeleteRange { range } => Command::DeleteRange { range: range.share(bytes) },
            Self::Txn(ref txn) => Command::Txn(txn.share(bytes)),
            Self::Grant { lease, ttl } => Command::Grant { lease, ttl },
            Self::KeepAlive { lease } => Command::KeepAlive { lease },
            Self::Revoke { lease } => Command::Revoke { lease },
        }
    }

    fn check(&self, limits: Limits) -> Result<(), CommandError> {
        match *self {
            Self::Put { key, value } => limits.check_key(key).and_then(|()| limits.check_value(value)),
            Self::Delete { key } => limits.check_key(key),
            Self::CompareAndSwap { key, expected, value } => check_swap(key, expected, value, limits),
            Self::PutAttached { key, value, attach } => {
                limits.check_key(key)?;
                limits.check_value(value)?;
                attach::check(attach)
            }
            Self::SwapAttached { key, expected, value, attach } => {
                check_swap(key, expected, value, limits)?;
                attach::check(attach)
            }
            Self::DeleteRange { range } => range.check(limits),
            Self::Txn(ref txn) => txn.check(limits),
            Self::Grant { lease, ttl } => {
                lease.map_or(Ok(()), check_lease)?;
                check_ttl(ttl)
            }
            Self::KeepAlive { lease } | Self::Revoke { lease } => check_lease(lease),
        }
    }

    fn encoded_bytes(&self) -> usize {
        const NUMBER: usize = size_of::<u64>();
        HEAD + match self {
            Self::Put { key, value } => 2 * PREFIX + key.len() + value.len(),
            Self::Delete { key } => PREFIX + key.len(),
            Self::CompareAndSwap { key, expected, value } => swap_bytes(key, expected, value),
            Self::PutAttached { key, value, attach } => {
                2 * PREFIX + key.len() + value.len() + attach::encoded_bytes(*attach)
            }
            Self::SwapAttached { key, expected, value, attach } => {
                swap_bytes(key, expected, value) + attach::encoded_bytes(*attach)
            }
            Self::DeleteRange { range } => range.encoded_bytes(),
            Self::Txn(txn) => txn.encoded_bytes(),
            Self::Grant { .. } => 2 * NUMBER,
            Self::KeepAlive { .. } | Self::Revoke { .. } => NUMBER,
        }
    }

    pub(super) fn encode_into(&self, out: &mut BytesMut) -> Result<(), CommandError> {
        let bytes = self.encoded_bytes();
        if let Self::Txn(_) = self {
            check_txn_bytes(bytes - HEAD, Limits::MAX)?;
        }
        self.check(Limits::MAX)?;
        out.reserve(bytes);
        out.put_u8(FORMAT);
        out.put_u8(self.tag());
        self.write(out);
        Ok(())
    }

    fn tag(&self) -> u8 {
        match self {
            Self::Put { .. } => PUT,
            Self::Delete { .. } => DELETE,
            Self::CompareAndSwap { .. } => COMPARE_AND_SWAP,
            Self::PutAttached { .. } => PUT_ATTACHED,
            Self::SwapAttached { .. } => SWAP_ATTACHED,
            Self::DeleteRange { .. } => DELETE_RANGE,
            Self::Txn(_) => TXN,
            Self::Grant { .. } => GRANT,
            Self::KeepAlive { .. } => KEEP_ALIVE,
            Self::Revoke { .. } => REVOKE,
        }
    }

    fn write(&self, out: &mut BytesMut) {
        match self {
            Self::Put { key, value } => {
                put_bytes(out, key);
                put_bytes(out, value);
            }
            Self::Delete { key } => put_bytes(out, key),
            Self::CompareAndSwap { key, expected, value } => write_swap(key, *expected, value, out),
            Self::PutAttached { key, value, attach } => {
                put_bytes(out, key);
                put_bytes(out, value);
                attach::write(*attach, out);
            }
            Self::SwapAttached { key, expected, value, attach } => {
                write_swap(key, *expected, value, out);
                attach::write(*attach, out);
            }
            Self::DeleteRange { range } => range.write(out),
            Self::Txn(txn) => txn.write(out),
            Self::Grant { lease, ttl } => {
                out.put_u64_le(lease.map_or(0, |lease| lease.0));
                out.put_u64_le(millis(*ttl));
            }
            Self::KeepAlive { lease } | Self::Revoke { lease } => out.put_u64_le(lease.0),
        }
    }
}

/// A transaction is no longer than the longest of the other commands, for which there is room everywhere.
fn check_txn_bytes(found: usize, limits: Limits) -> Result<(), CommandError> {
    let limit = limits.change_bytes() - HEAD;
    if found > limit { Err(CommandError::TxnTooLong { limit, found }) } else { Ok(()) }
}

fn check_swap(
    key: &[u8],
    expected: ExpectedRef<'_>,
    value: &[u8],
    limits: Limits,
) -> Result<(), CommandError> {
    limits.check_key(key)?;
    if let ExpectedRef::Value(expected) = expected {
        limits.check_value(expected)?;
    }
    limits.check_value(value)
}

fn swap_bytes(key: &[u8], expected: &ExpectedRef<'_>, value: &[u8]) -> usize {
    let expected = match expected {
        ExpectedRef::Absent => 0,
        ExpectedRef::Value(value) => PREFIX + value.len(),
        ExpectedRef::Revision(_) => size_of::<u64>(),
    };
    2 * PREFIX + key.len() + 1 + expected + value.len()
}

fn write_swap(key: &[u8], expected: ExpectedRef<'_>, value: &[u8], out: &mut BytesMut) {
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

fn read_expected<'a>(reader: &mut Reader<'a>) -> Result<ExpectedRef<'a>, CommandError> {
    Ok(match reader.u8()? {
        EXPECT_ABSENT => ExpectedRef::Absent,
        EXPECT_VALUE => ExpectedRef::Value(reader.bytes()?),
        EXPECT_REVISION => ExpectedRef::Revision(Revision(reader.u64()?)),
        unknown => return Err(CommandError::Expectation(unknown)),
    })
}

fn share_expected(expected: ExpectedRef<'_>, bytes: &Bytes) -> Expected {
    match expected {
        ExpectedRef::Absent => Expected::Absent,
        ExpectedRef::Value(value) => Expected::Value(bytes.slice_ref(value)),
        ExpectedRef::Revision(revision) => Expected::Revision(revision),
    }
}
