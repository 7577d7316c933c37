//! Transactions, borrowed from a command's bytes.
//!
//! ```text
//! transaction = compares, operations (then), operations (otherwise)
//! compares    = count (u16), each: range, relation (0 equal, 1 not equal, 2 greater, 3 less), target
//! target      = 0 value | 1 version (u64) | 2 created (u64) | 3 modified (u64) | 4 lease (u64, 0 none)
//! operations  = count (u16), each: 1 key, value, attachment | 2 range (delete) | 3 query | 4 transaction
//! ```
//!
//! Depth and number are looked at before anything is read: nothing descends further, or allocates more, than the limits and the bytes
//! that are there allow.

use super::super::codec::{Reader, put_bytes};
use super::super::lease::Attach;
use super::super::store::Revision;
use super::super::txn::{Compare, Op, Relation, TXN_DEPTH, TXN_OPERATIONS, Target, Txn};
use super::attach;
use super::errors::{CommandError, Field};
use super::form::PREFIX;
use super::limits::Limits;
use super::range::{QueryRef, RangeRef};
use super::ways;
use bytes::{BufMut, Bytes, BytesMut};

const VALUE: u8 = 0;
const VERSION: u8 = 1;
const CREATED: u8 = 2;
const MODIFIED: u8 = 3;
const LEASE: u8 = 4;

const PUT: u8 = 1;
const DELETE: u8 = 2;
const RANGE: u8 = 3;
const NESTED: u8 = 4;

/// Bytes of a count.
const COUNT: usize = size_of::<u16>();
/// The shortest compare: of a range's values with nothing.
const COMPARE_BYTES: usize = RangeRef::LEAST_BYTES + 1 + 1 + PREFIX;
/// The shortest operation: a delete.
const OP_BYTES: usize = 1 + RangeRef::LEAST_BYTES;

const _: () = {
    assert!(OP_BYTES <= 1 + 3 * COUNT, "no nested transaction is shorter");
    assert!(TXN_OPERATIONS <= u16::MAX as usize, "counts hold what is allowed");
};

/// [`Txn`], borrowed. Within the limits of number and depth by construction.
#[derive(Clone, Debug)]
pub(in crate::kv) struct TxnRef<'a> {
    pub compares: Vec<CompareRef<'a>>,
    pub then: Vec<OpRef<'a>>,
    pub otherwise: Vec<OpRef<'a>>,
}

/// [`Compare`], borrowed.
#[derive(Clone, Copy, Debug)]
pub(in crate::kv) struct CompareRef<'a> {
    pub range: RangeRef<'a>,
    pub relation: Relation,
    pub target: TargetRef<'a>,
}

/// [`Target`], borrowed.
#[derive(Clone, Copy, Debug)]
pub(in crate::kv) enum TargetRef<'a> {
    Value(&'a [u8]),
    Version(u64),
    Created(Revision),
    Modified(Revision),
    Lease(u64),
}

/// [`Op`], borrowed.
#[derive(Clone, Debug)]
pub(in crate::kv) enum OpRef<'a> {
    Put { key: &'a [u8], value: &'a [u8], attach: Attach },
    Delete { range: RangeRef<'a> },
    Range(QueryRef<'a>),
    Txn(TxnRef<'a>),
}

/// What a transaction may still hold, over all of its lists.
struct Allowance {
    operations: usize,
}

impl Allowance {
    fn take(&mut self, count: usize) -> Result<(), CommandError> {
        let found = TXN_OPERATIONS - self.operations + count;
        self.operations = self.operations.checked_sub(count).ok_or(CommandError::TxnTooLarge { found })?;
        Ok(())
    }
}

impl<'a> TxnRef<'a> {
    pub(super) fn new(txn: &'a Txn) -> Result<Self, CommandError> {
        Self::borrow(txn, 1, &mut Allowance { operations: TXN_OPERATIONS })
    }

    fn borrow(txn: &'a Txn, depth: usize, left: &mut Allowance) -> Result<Self, CommandError> {
        check_depth(depth)?;
        left.take(txn.compares.len())?;
        Ok(Self {
            compares: txn.compares.iter().map(CompareRef::new).collect(),
            then: OpRef::borrow_all(&txn.then, depth, left)?,
            otherwise: OpRef::borrow_all(&txn.otherwise, depth, left)?,
        })
    }

    pub(super) fn read(reader: &mut Reader<'a>) -> Result<Self, CommandError> {
        Self::read_at(reader, 1, &mut Allowance { operations: TXN_OPERATIONS })
    }

    fn read_at(reader: &mut Reader<'a>, depth: usize, left: &mut Allowance) -> Result<Self, CommandError> {
        check_depth(depth)?;
        Ok(Self {
            compares: read_list(reader, COMPARE_BYTES, left, |reader, _| CompareRef::read(reader))?,
            then: read_list(reader, OP_BYTES, left, |reader, left| OpRef::read(reader, depth, left))?,
            otherwise: read_list(reader, OP_BYTES, left, |reader, left| OpRef::read(reader, depth, left))?,
        })
    }

    pub(super) fn check(&self, limits: Limits) -> Result<(), CommandError> {
        self.check_parts(limits)?;
        ways::check(self)
    }

    fn check_parts(&self, limits: Limits) -> Result<(), CommandError> {
        for compare in &self.compares {
            compare.range.check(limits)?;
            if let TargetRef::Value(value) = compare.target {
                limits.check_value(value)?;
            }
        }
        for op in self.then.iter().chain(&self.otherwise) {
            match op {
                OpRef::Put { key, value, attach } => {
                    limits.check_key(key)?;
                    limits.check_value(value)?;
                    attach::check(*attach)?;
                }
                OpRef::Delete { range } => range.check(limits)?,
                OpRef::Range(query) => query.check(limits)?,
                OpRef::Txn(inner) => inner.check_parts(limits)?,
            }
        }
        Ok(())
    }

    pub(super) fn encoded_bytes(&self) -> usize {
        let compares: usize = self.compares.iter().map(CompareRef::encoded_bytes).sum();
        let ops: usize = self.then.iter().chain(&self.otherwise).map(OpRef::encoded_bytes).sum();
        3 * COUNT + compares + ops
    }

    pub(super) fn write(&self, out: &mut BytesMut) {
        put_count(out, self.compares.len());
        self.compares.iter().for_each(|compare| compare.write(out));
        for ops in [&self.then, &self.otherwise] {
            put_count(out, ops.len());
            ops.iter().for_each(|op| op.write(out));
        }
    }

    /// The same, sharing `bytes`, which it was read from.
    pub(super) fn share(&self, bytes: &Bytes) -> Txn {
        let ops = |ops: &[OpRef<'_>]| ops.iter().map(|op| op.share(bytes)).collect();
        Txn {
            compares: self.compares.iter().map(|compare| compare.share(bytes)).collect(),
            then: ops(&self.then),
            otherwise: ops(&self.otherwise),
        }
    }
}

impl<'a> CompareRef<'a> {
    fn new(compare: &'a Compare) -> Self {
        let target = match &compare.target {
            Target::Value(value) => TargetRef::Value(value),
            Target::Version(version) => TargetRef::Version(*version),
            Target::Created(revision) => TargetRef::Created(*revision),
            Target::Modified(revision) => TargetRef::Modified(*revision),
            Target::Lease(lease) => TargetRef::Lease(*lease),
        };
        Self { range: (&compare.range).into(), relation: compare.relation, target }
    }

    fn read(reader: &mut Reader<'a>) -> Result<Self, CommandError> {
        Ok(Self {
            range: RangeRef::read(reader)?,
            relation: match reader.u8()? {
                0 => Relation::Equal,
                1 => Relation::NotEqual,
                2 => Relation::Greater,
                3 => Relation::Less,
                value => return Err(CommandError::Field { field: Field::Relation, value }),
            },
            target: match reader.u8()? {
                VALUE => TargetRef::Value(reader.bytes()?),
                VERSION => TargetRef::Version(reader.u64()?),
                CREATED => TargetRef::Created(Revision(reader.u64()?)),
                MODIFIED => TargetRef::Modified(Revision(reader.u64()?)),
                LEASE => TargetRef::Lease(reader.u64()?),
                value => return Err(CommandError::Field { field: Field::Target, value }),
            },
        })
    }

    fn encoded_bytes(&self) -> usize {
        let target = match self.target {
            TargetRef::Value(value) => PREFIX + value.len(),
            _ => size_of::<u64>(),
        };
        self.range.encoded_bytes() + 2 + target
    }

    fn write(&self, out: &mut BytesMut) {
        self.range.write(out);
        out.put_u8(match self.relation {
            Relation::Equal => 0,
            Relation::NotEqual => 1,
            Relation::Greater => 2,
            Relation::Less => 3,
        });
        let (tag, number) = match self.target {
            TargetRef::Value(value) => {
                out.put_u8(VALUE);
                return put_bytes(out, value);
            }
            TargetRef::Version(version) => (VERSION, version),
            TargetRef::Created(revision) => (CREATED, revision.0),
            TargetRef::Modified(revision) => (MODIFIED, revision.0),
            TargetRef::Lease(lease) => (LEASE, lease),
        };
        out.put_u8(tag);
        out.put_u64_le(number);
    }

    fn share(&self, bytes: &Bytes) -> Compare {
        let target = match self.target {
            TargetRef::Value(value) => Target::Value(bytes.slice_ref(value)),
            TargetRef::Version(version) => Target::Version(version),
            TargetRef::Created(revision) => Target::Created(revision),
            TargetRef::Modified(revision) => Target::Modified(revision),
            TargetRef::Lease(lease) => Target::Lease(lease),
        };
        Compare { range: self.range.share(bytes), relation: self.relation, target }
    }
}

impl<'a> OpRef<'a> {
    fn borrow_all(ops: &'a [Op], depth: usize, left: &mut Allowance) -> Result<Vec<Self>, CommandError> {
        left.take(ops.len())?;
        ops.iter()
            .map(|op| {
                Ok(match op {
                    Op::Put { key, value, attach } => Self::Put { key, value, attach: *attach },
                    Op::Delete { range } => Self::Delete { range: range.into() },
                    Op::Range(query) => Self::Range(QueryRef::new(query)?),
                    Op::Txn(inner) => Self::Txn(TxnRef::borrow(inner, depth + 1, left)?),
                })
            })
            .collect()
    }

    fn read(reader: &mut Reader<'a>, depth: usize, left: &mut Allowance) -> Result<Self, CommandError> {
        Ok(match reader.u8()? {
            PUT => Self::Put { key: reader.bytes()?, value: reader.bytes()?, attach: attach::read(reader)? },
            DELETE => Self::Delete { range: RangeRef::read(reader)? },
            RANGE => Self::Range(QueryRef::read(reader)?),
            NESTED => Self::Txn(TxnRef::read_at(reader, depth + 1, left)?),
            value => return Err(CommandError::Field { field: Field::Operation, value }),
        })
    }

    fn encoded_bytes(&self) -> usize {
        1 + match self {
            Self::Put { key, value, attach } => {
                2 * PREFIX + key.len() + value.len() + attach::encoded_bytes(*attach)
            }
            Self::Delete { range } => range.encoded_bytes(),
            Self::Range(query) => query.encoded_bytes(),
            Self::Txn(inner) => inner.encoded_bytes(),
        }
    }

    fn write(&self, out: &mut BytesMut) {
        match self {
            Self::Put { key, value, attach } => {
                out.put_u8(PUT);
                put_bytes(out, key);
                put_bytes(out, value);
                attach::write(*attach, out);
            }
            Self::Delete { range } => {
                out.put_u8(DELETE);
                range.write(out);
            }
            Self::Range(query) => {
                out.put_u8(RANGE);
                query.write(out);
            }
            Self::Txn(inner) => {
                out.put_u8(NESTED);
                inner.write(out);
            }
        }
    }

    fn share(&self, bytes: &Bytes) -> Op {
        match self {
            Self::Put { key, value, attach } => {
                Op::Put { key: bytes.slice_ref(key), value: bytes.slice_ref(value), attach: *attach }
            }
            Self::Delete { range } => Op::Delete { range: range.share(bytes) },
            Self::Range(query) => Op::Range(query.share(bytes)),
            Self::Txn(inner) => Op::Txn(inner.share(bytes)),
        }
    }
}

fn check_depth(depth: usize) -> Result<(), CommandError> {
    if depth > TXN_DEPTH { Err(CommandError::TxnTooDeep) } else { Ok(()) }
}

/// As many as are announced. Memory is taken only when as many can be in the bytes that are there.
fn read_list<'a, T>(
    reader: &mut Reader<'a>,
    least_bytes: usize,
    left: &mut Allowance,
    mut read: impl FnMut(&mut Reader<'a>, &mut Allowance) -> Result<T, CommandError>,
) -> Result<Vec<T>, CommandError> {
    let count = usize::from(reader.u16()?);
    left.take(count)?;
    let (need, have) = (count * least_bytes, reader.left());
    if need > have {
        return Err(CommandError::Short { need, have });
    }
    let mut list = Vec::with_capacity(count);
    for _ in 0..count {
        list.push(read(reader, left)?);
    }
    Ok(list)
}

fn put_count(out: &mut BytesMut, count: usize) {
    out.put_u16_le(u16::try_from(count).expect("no list is longer than the limit"));
}
