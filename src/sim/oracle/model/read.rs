//! Commands, read by their documented format.

use super::number;
use bytes::Bytes;

/// A command of the log.
#[derive(Debug)]
pub(super) enum Command<'a> {
    Change(Change),
    Open { timeout: u64 },
    Close { session: u64 },
    Once { stamp: [u64; 3], bytes: &'a [u8] },
    Compact { revision: u64 },
    Expire,
}

/// One that changes keys or leases.
#[derive(Debug)]
pub(super) enum Change {
    Put { key: Bytes, value: Bytes, attach: Option<Attach> },
    Delete { key: Bytes },
    Swap { key: Bytes, expected: Expected, value: Bytes, attach: Option<Attach> },
    DeleteRange { span: Span },
    Txn(Txn),
    Grant { lease: u64, ttl: u64 },
    KeepAlive { lease: u64 },
    Revoke { lease: u64 },
}

#[derive(Debug)]
pub(super) enum Expected {
    Absent,
    Value(Bytes),
    Revision(u64),
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Attach {
    Nothing,
    Keep,
    Lease(u64),
    Ttl(u64),
}

/// Neighbouring keys: the end is the first behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Span {
    pub(in super::super) start: Bytes,
    pub(in super::super) end: Option<Bytes>,
}

impl Span {
    pub(in super::super) fn has(&self, key: &[u8]) -> bool {
        key >= &self.start[..] && self.end.as_ref().is_none_or(|end| key < &end[..])
    }
}

/// A question for keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Query {
    pub(in super::super) span: Span,
    pub(in super::super) limit: u64,
    pub(in super::super) descending: bool,
    /// 0 all of them, 1 without values, 2 only how many.
    pub(in super::super) select: u8,
    pub(in super::super) after: Option<Bytes>,
}

#[derive(Debug)]
pub(super) struct Txn {
    pub(super) compares: Vec<Compare>,
    pub(super) then: Vec<Op>,
    pub(super) otherwise: Vec<Op>,
}

#[derive(Debug)]
pub(super) struct Compare {
    pub(super) span: Span,
    pub(super) relation: u8,
    pub(super) target: Target,
}

#[derive(Debug)]
pub(super) enum Target {
    Value(Bytes),
    Version(u64),
    Created(u64),
    Modified(u64),
    Lease(u64),
}

#[derive(Debug)]
pub(super) enum Op {
    Put { key: Bytes, value: Bytes, attach: Attach },
    Delete(Span),
    Read(Query),
    Txn(Txn),
}

impl Txn {
    /// The newest value in it: its name, as no other command has a newer one.
    fn name(&self) -> Option<u64> {
        let compared = self.compares.iter().filter_map(|compare| match &compare.target {
            Target::Value(value) => Some(number(value)),
            _ => None,
        });
        let ops = self.then.iter().chain(&self.otherwise).filter_map(|op| match op {
            Op::Put { value, .. } => Some(number(value)),
            Op::Txn(inner) => inner.name(),
            Op::Delete(_) | Op::Read(_) => None,
        });
        compared.chain(ops).max()
    }
}

impl Change {
    /// The value that only this command writes, or names.
    pub(super) fn name(&self) -> Option<u64> {
        match self {
            Self::Put { value, .. } | Self::Swap { value, .. } => Some(number(value)),
            Self::Txn(txn) => txn.name(),
            _ => None,
        }
    }
}

/// What is left of a command.
struct Rest<'a>(&'a [u8]);

pub(super) fn command(bytes: &[u8]) -> Option<Command<'_>> {
    let mut rest = Rest(bytes);
    let command = match rest.tag()? {
        4 => Command::Open { timeout: rest.u64()? },
        5 => Command::Close { session: rest.u64()? },
        6 => {
            let stamp = [rest.u64()?, rest.u64()?, rest.u64()?];
            return Some(Command::Once { stamp, bytes: rest.0 });
        }
        14 => Command::Compact { revision: rest.u64()? },
        15 => Command::Expire,
        tag => Command::Change(rest.change(tag)?),
    };
    rest.0.is_empty().then_some(command)
}

/// The command in a session's command.
pub(super) fn change(bytes: &[u8]) -> Option<Change> {
    let mut rest = Rest(bytes);
    let tag = rest.tag()?;
    let change = rest.change(tag)?;
    rest.0.is_empty().then_some(change)
}

impl Rest<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*first)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take().map(u8::from_le_bytes)
    }

    fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    fn bytes(&mut self) -> Option<Bytes> {
        let length = u32::from_le_bytes(self.take()?) as usize;
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(Bytes::copy_from_slice(bytes))
    }

    /// The format and the tag.
    fn tag(&mut self) -> Option<u8> {
        (self.u8()? == 1).then(|| self.u8())?
    }

    fn optional(&mut self) -> Option<Option<Bytes>> {
        match self.u8()? {
            0 => Some(None),
            1 => self.bytes().map(Some),
            _ => None,
        }
    }

    fn expected(&mut self) -> Option<Expected> {
        match self.u8()? {
            0 => Some(Expected::Absent),
            1 => self.bytes().map(Expected::Value),
            2 => self.u64().map(Expected::Revision),
            _ => None,
        }
    }

    fn attach(&mut self) -> Option<Attach> {
        match self.u8()? {
            0 => Some(Attach::Nothing),
            1 => Some(Attach::Keep),
            2 => self.u64().map(Attach::Lease),
            3 => self.u64().map(Attach::Ttl),
            _ => None,
        }
    }

    fn span(&mut self) -> Option<Span> {
        Some(Span { start: self.bytes()?, end: self.optional()? })
    }

    fn change(&mut self, tag: u8) -> Option<Change> {
        Some(match tag {
            1 => Change::Put { key: self.bytes()?, value: self.bytes()?, attach: None },
            2 => Change::Delete { key: self.bytes()? },
            3 => Change::Swap {
                key: self.bytes()?,
                expected: self.expected()?,
                value: self.bytes()?,
                attach: None,
            },
            7 => Change::Put { key: self.bytes()?, value: self.bytes()?, attach: Some(self.attach()?) },
            8 => Change::Swap {
                key: self.bytes()?,
                expected: self.expected()?,
                value: self.bytes()?,
                attach: Some(self.attach()?),
            },
            9 => Change::DeleteRange { span: self.span()? },
            10 => Change::Txn(self.txn()?),
            11 => Change::Grant { lease: self.u64()?, ttl: self.u64()? },
            12 => Change::KeepAlive { lease: self.u64()? },
            13 => Change::Revoke { lease: self.u64()? },
            _ => return None,
        })
    }

    fn list<T>(&mut self, read: impl Fn(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let count = self.u16()?;
        (0..count).map(|_| read(self)).collect()
    }

    fn txn(&mut self) -> Option<Txn> {
        Some(Txn {
            compares: self.list(Self::compare)?,
            then: self.list(Self::op)?,
            otherwise: self.list(Self::op)?,
        })
    }

    fn compare(&mut self) -> Option<Compare> {
        let (span, relation) = (self.span()?, self.u8()?);
        let target = match self.u8()? {
            0 => Target::Value(self.bytes()?),
            1 => Target::Version(self.u64()?),
            2 => Target::Created(self.u64()?),
            3 => Target::Modified(self.u64()?),
            4 => Target::Lease(self.u64()?),
            _ => return None,
        };
        Some(Compare { span, relation, target })
    }

    fn op(&mut self) -> Option<Op> {
        Some(match self.u8()? {
            1 => Op::Put { key: self.bytes()?, value: self.bytes()?, attach: self.attach()? },
            2 => Op::Delete(self.span()?),
            3 => {
                let span = self.span()?;
                let (limit, order, select) = (self.u64()?, self.u8()?, self.u8()?);
                let after = self.optional()?;
                Op::Read(Query { span, limit, descending: order == 1, select, after })
            }
            4 => Op::Txn(self.txn()?),
            _ => return None,
        })
    }
}
