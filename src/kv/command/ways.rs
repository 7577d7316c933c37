//! A key is changed at most once on any way through a transaction (rule 3).
//!
//! Every put and delete has a place: the branches that lead to it. Two of them are never on one way exactly when, where
//! their places part, they part into the two branches of one transaction.

use super::errors::CommandError;
use super::range::RangeRef;
use super::txn::{OpRef, TxnRef};
use crate::kv::txn::{TXN_DEPTH, TXN_OPERATIONS};

const LEVEL_BITS: u32 = 16;

const _: () = {
    assert!(TXN_DEPTH * LEVEL_BITS as usize <= 64, "a place has room for every level");
    assert!(
        TXN_OPERATIONS < 1 << (LEVEL_BITS - 1),
        "a level has room for every transaction's number and a branch"
    );
};

/// The branches taken from the outermost transaction on, the first in the highest bits: at each level the
/// transaction's number, from 1, and which of its branches; 0 below.
#[derive(Clone, Copy)]
struct Place(u64);

impl Place {
    fn inner(self, number: u64, branch: u64, depth: u32) -> Self {
        Self(self.0 | (number << 1 | branch) << (64 - LEVEL_BITS * depth))
    }

    fn exclude_each_other(self, other: Self) -> bool {
        let differ = self.0 ^ other.0;
        let level = (63_u32.saturating_sub(differ.leading_zeros())) / LEVEL_BITS;
        differ >> (level * LEVEL_BITS) == 1
    }
}

#[derive(Default)]
struct Writes<'a> {
    transactions: u64,
    puts: Vec<(&'a [u8], Place)>,
    deletes: Vec<(RangeRef<'a>, Place)>,
}

impl<'a> Writes<'a> {
    fn collect(&mut self, txn: &TxnRef<'a>, place: Place, depth: u32) {
        self.transactions += 1;
        let number = self.transactions;
        for (branch, ops) in [(0, &txn.then), (1, &txn.otherwise)] {
            let here = place.inner(number, branch, depth);
            for op in ops {
                match op {
                    OpRef::Put { key, .. } => self.puts.push((key, here)),
                    OpRef::Delete { range } => self.deletes.push((*range, here)),
                    OpRef::Range(_) => {}
                    OpRef::Txn(inner) => self.collect(inner, here, depth + 1),
                }
            }
        }
    }
}

/// Refuses a transaction that would put a key twice, or put and delete it. Deletes may overlap: the second finds nothing.
pub(super) fn check(txn: &TxnRef<'_>) -> Result<(), CommandError> {
    let mut writes = Writes::default();
    writes.collect(txn, Place(0), 1);
    let Writes { mut puts, deletes, .. } = writes;
    puts.sort_unstable_by_key(|(key, _)| *key);
    for (at, (key, place)) in puts.iter().enumerate() {
        let same = puts[at + 1..].iter().take_while(|(other, _)| other == key);
        refuse_one_way(*place, same)?;
    }
    for (range, place) in deletes {
        let from = puts.partition_point(|(key, _)| *key < range.start);
        let until = range.end.map_or(puts.len(), |end| puts.partition_point(|(key, _)| *key < end));
        refuse_one_way(place, puts[from..until].iter())?;
    }
    Ok(())
}

fn refuse_one_way<'w>(
    place: Place,
    mut others: impl Iterator<Item = &'w (&'w [u8], Place)>,
) -> Result<(), CommandError> {
    if others.all(|(_, other)| place.exclude_each_other(*other)) {
        return Ok(());
    }
    Err(CommandError::DuplicateKey)
}
