//! What clients ask for beside single keys: ranges, past states, leases, transactions.

use super::client::{Known, LeaseReads, key_bytes, key_range, value_bytes};
use super::dice::Dice;
use super::observation::{Ask, Keys, Level, Range};
use super::plan::Load;
use crate::kv::{
    Attach, Compare, KeyRange, LeaseId, Op, Order, RangeQuery, Relation, Revision, Select, Target, Txn,
};
use bytes::Bytes;
use std::time::Duration;

pub(super) fn draw(
    dice: &mut Dice,
    load: &Load,
    known: &Known<'_>,
    next_value: &mut u64,
    lease_reads: LeaseReads,
) -> (Ask, Option<Txn>) {
    if let Some(range) = known.next_page.filter(|_| dice.below(3) != 0) {
        return (Ask::Range { range, level: level(dice, lease_reads) }, None);
    }
    let kind = dice.weighted(&load.rich_mix);
    let key = dice.below(load.keys);
    let mut value = || {
        *next_value += 1;
        *next_value
    };
    let ask = match kind {
        0 => Ask::PutAttached { key, value: value(), attach: attach(dice, load, known) },
        1 => {
            let value = value();
            let expected = (dice.below(3) != 0).then(|| value.saturating_sub(dice.between(1, 6)));
            Ask::SwapAttached { key, expected, value, attach: attach(dice, load, known) }
        }
        2 => Ask::DeleteRange { keys: keys(dice, load) },
        3 => {
            let value = value();
            let mut writer = Writer { dice, load, known, value, named: false };
            let mut txn = writer.txn(0..load.keys, 1);
            if !writer.named {
                // Nobody has written its value yet: this holds, and names it.
                let value = Bytes::from(value_bytes(value, load.padding));
                txn = txn.when(Compare::key(key_bytes(key), Relation::NotEqual, Target::Value(value)));
            }
            return (Ask::Txn { value }, Some(txn));
        }
        4 => {
            let lease = if dice.below(4) == 0 { 1_000 + dice.below(5) } else { 0 };
            Ask::Grant { lease, ttl: dice.between(load.ttl.0, load.ttl.1) }
        }
        5 => Ask::KeepAlive { lease: lease(dice, known) },
        6 => Ask::Revoke { lease: lease(dice, known) },
        7 => Ask::Compact { revision: (known.revision + 1).saturating_sub(dice.below(20)) },
        8 => Ask::Range { range: range(dice, load, known), level: level(dice, lease_reads) },
        _ => Ask::History {
            key,
            from: (known.revision + 3).saturating_sub(dice.below(40)),
            limit: dice.index(6) + 1,
        },
    };
    (ask, None)
}

fn level(dice: &mut Dice, lease_reads: LeaseReads) -> Level {
    match dice.below(3) {
        0 => Level::Eventual,
        1 if lease_reads == LeaseReads::Allowed => Level::Lease,
        _ => Level::Linearizable,
    }
}

/// Mostly one of its own.
fn lease(dice: &mut Dice, known: &Known<'_>) -> u64 {
    let among = if dice.below(5) == 0 { known.others } else { known.leases };
    if among.is_empty() { dice.between(1, 9) } else { dice.pick(among) }
}

fn attach(dice: &mut Dice, load: &Load, known: &Known<'_>) -> Attach {
    match dice.below(6) {
        0 => Attach::Nothing,
        1 => Attach::Keep,
        2 => Attach::Ttl(Duration::from_millis(dice.between(load.ttl.0, load.ttl.1))),
        _ => Attach::Lease(LeaseId(lease(dice, known))),
    }
}

/// Some neighbours.
pub(super) fn keys(dice: &mut Dice, load: &Load) -> Keys {
    let from = dice.below(load.keys);
    let until = match dice.below(4) {
        0 => None,
        1 => Some(from + 1),
        _ => Some(dice.between(from + 1, load.keys)),
    };
    Keys { from, until }
}

fn range(dice: &mut Dice, load: &Load, known: &Known<'_>) -> Range {
    let back = dice.pick(&[0, 1, 3, 30]);
    let past = (known.revision + 2).saturating_sub(dice.between(0, back + 3));
    Range {
        keys: keys(dice, load),
        limit: dice.pick(&[1, 2, 3, 100]),
        order: if dice.coin() { Order::Ascending } else { Order::Descending },
        select: dice.pick(&[Select::Whole, Select::Whole, Select::KeysOnly, Select::CountOnly]),
        at: dice.coin().then_some(Revision(past)),
        after: None,
    }
}

/// Writes transactions. On any way a key is changed once: puts take keys from the front of what is left, and what follows
/// (a deletion, an inner transaction) gets the rest.
struct Writer<'a> {
    dice: &'a mut Dice,
    load: &'a Load,
    known: &'a Known<'a>,
    value: u64,
    /// Its value is somewhere in it.
    named: bool,
}

impl Writer<'_> {
    fn txn(&mut self, keys: std::ops::Range<u64>, depth: u32) -> Txn {
        let mut txn = Txn::new();
        for _ in 0..self.dice.below(3) {
            txn = txn.when(self.compare());
        }
        txn.then = self.ops(keys.clone(), depth);
        if self.dice.below(3) != 0 {
            txn.otherwise = self.ops(keys, depth);
        }
        txn
    }

    fn old_value(&mut self) -> Bytes {
        let back = self.dice.between(1, 8);
        Bytes::from(value_bytes(self.value.saturating_sub(back), self.load.padding))
    }

    fn compare(&mut self) -> Compare {
        let near = self.known.revision.saturating_sub(self.dice.below(6));
        let target = match self.dice.below(6) {
            0 => Target::Value(self.old_value()),
            1 => Target::Version(self.dice.below(4)),
            2 => Target::Created(Revision(near)),
            3 => Target::Modified(Revision(near)),
            4 => Target::Lease(if self.dice.coin() { 0 } else { lease(self.dice, self.known) }),
            _ => Target::Version(0),
        };
        let relation =
            self.dice.pick(&[Relation::Equal, Relation::NotEqual, Relation::Greater, Relation::Less]);
        let range = if self.dice.below(3) == 0 {
            key_range(keys(self.dice, self.load))
        } else {
            KeyRange::key(key_bytes(self.dice.below(self.load.keys)))
        };
        Compare { range, relation, target }
    }

    fn ops(&mut self, keys: std::ops::Range<u64>, depth: u32) -> Vec<Op> {
        let pivot = self.dice.between(keys.start, keys.end.min(keys.start + 4));
        let mut ops = Vec::new();
        for key in keys.start..pivot {
            match self.dice.below(4) {
                0 => {}
                1 => ops.push(Op::delete(key_bytes(key))),
                _ => {
                    self.named = true;
                    let value = value_bytes(self.value, self.load.padding);
                    let attach = attach(self.dice, self.load, self.known);
                    ops.push(Op::put_attached(key_bytes(key), value, attach));
                }
            }
        }
        if pivot < keys.end {
            match self.dice.below(4) {
                0 => {
                    let from = self.dice.between(pivot, keys.end - 1);
                    let until = Some(self.dice.between(from + 1, keys.end));
                    ops.push(Op::Delete { range: key_range(Keys { from, until }) });
                }
                1 | 2 if depth < 3 => ops.push(Op::Txn(self.txn(pivot..keys.end, depth + 1))),
                _ => {}
            }
        }
        if self.dice.coin() {
            let range = RangeQuery::new(key_range(self::keys(self.dice, self.load)));
            let query = range.limit(self.dice.pick(&[1, 2, 100]));
            let query = if self.dice.coin() { query.descending() } else { query };
            let at = self.dice.index(ops.len() + 1);
            ops.insert(at, Op::Range(query));
        }
        ops
    }
}

#[cfg(test)]
mod tests {
    use super::super::client::txn_command;
    use super::super::plan::{Orders, Plan};
    use super::*;

    /// A run that only asks for what is refused proves nothing.
    #[test]
    fn every_transaction_is_one_that_a_store_takes() {
        let mut written = 0;
        for seed in 0..60 {
            let load = Plan::draw(seed, &Orders::default()).load;
            if load.rich == 0 {
                continue;
            }
            let known = Known { leases: &[3, 4], others: &[1], revision: 9, next_page: None };
            let mut dice = Dice::new(seed, "txn");
            for value in 0..50 {
                let mut next = value;
                let (_, txn) = draw(&mut dice, &load, &known, &mut next, LeaseReads::Allowed);
                if let Some(txn) = txn {
                    txn_command(&txn).expect("well formed");
                    written += 1;
                }
            }
        }
        assert!(written > 100, "{written}");
    }
}
