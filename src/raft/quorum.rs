//! The arithmetic of majorities, for plain and joint configurations (thesis 3.4, 4.3).
//!
//! A joint configuration decides only what both halves decide, so every function here takes the lesser of the two.

use super::membership::{MAX_VOTERS, Membership};
use std::collections::BTreeSet;
use wal::NodeId;

/// How an election stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tally {
    /// Neither won nor lost.
    Open,
    /// A quorum granted its vote.
    Won,
    /// A quorum can no longer grant its vote.
    Lost,
}

/// One voter's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ballot {
    /// Nothing heard yet.
    Unknown,
    /// Voted for the candidate.
    Granted,
    /// Did not.
    Refused,
}

impl Membership {
    /// Counts an election.
    #[must_use]
    pub fn tally(&self, ballot: impl Fn(NodeId) -> Ballot) -> Tally {
        let new = tally_half(self.voters(), &ballot);
        if self.outgoing().is_empty() {
            return new;
        }
        match (new, tally_half(self.outgoing(), &ballot)) {
            (Tally::Lost, _) | (_, Tally::Lost) => Tally::Lost,
            (Tally::Won, Tally::Won) => Tally::Won,
            _ => Tally::Open,
        }
    }

    /// The greatest value that a quorum has reached, where `reached` says how far each voter is: the commit rule with
    /// indices, leadership confirmation with round numbers or times.
    #[must_use]
    pub fn reached_by_quorum(&self, reached: impl Fn(NodeId) -> u64) -> u64 {
        let new = reached_by_half(self.voters(), &reached);
        if self.outgoing().is_empty() { new } else { new.min(reached_by_half(self.outgoing(), &reached)) }
    }
}

fn majority(voters: usize) -> usize {
    if wal::mutant!("half_is_a_majority") { voters.div_ceil(2) } else { voters / 2 + 1 }
}

fn tally_half(voters: &BTreeSet<NodeId>, ballot: &impl Fn(NodeId) -> Ballot) -> Tally {
    assert!(!voters.is_empty(), "nobody wins an election without voters");
    let count = |wanted| voters.iter().filter(|&&id| ballot(id) == wanted).count();
    if count(Ballot::Granted) >= majority(voters.len()) {
        Tally::Won
    } else if count(Ballot::Refused) > voters.len() - majority(voters.len()) {
        Tally::Lost
    } else {
        Tally::Open
    }
}

fn reached_by_half(voters: &BTreeSet<NodeId>, reached: &impl Fn(NodeId) -> u64) -> u64 {
    assert!(!voters.is_empty() && voters.len() <= MAX_VOTERS, "the constructor of Membership bounds it");
    let mut values = [0_u64; MAX_VOTERS];
    let values = &mut values[..voters.len()];
    for (value, &id) in values.iter_mut().zip(voters) {
        *value = reached(id);
    }
    values.sort_unstable();
    assert!(majority(voters.len()) <= voters.len(), "a majority is a part of the voters");
    // `majority` voters are at or beyond this one.
    values[voters.len() - majority(voters.len())]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn set(ids: &[u64]) -> BTreeSet<NodeId> {
        ids.iter().copied().map(NodeId).collect()
    }

    #[test]
    fn majorities() {
        for (voters, needed) in [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3), (6, 4), (7, 4)] {
            assert_eq!(majority(voters), needed, "{voters} voters");
        }
    }

    /// A voter's set agrees on `value` if more than half of it has reached it.
    fn slow_reached(half: &BTreeSet<NodeId>, at: &BTreeMap<NodeId, u64>) -> u64 {
        let reached = |value: u64| half.iter().filter(|id| at[id] >= value).count() * 2 > half.len();
        at.values().copied().chain([0]).filter(|&value| reached(value)).max().unwrap_or(0)
    }

    proptest! {
        #[test]
        fn agrees_with_a_slow_obvious_version(
            new in proptest::collection::btree_set(1_u64..9, 1..6),
            old in proptest::collection::btree_set(1_u64..9, 0..6),
            at in proptest::collection::vec(0_u64..6, 9),
            votes in proptest::collection::vec(0_u8..3, 9),
        ) {
            let new: BTreeSet<_> = new.into_iter().map(NodeId).collect();
            let old: BTreeSet<_> = old.into_iter().map(NodeId).collect();
            let membership = Membership::new(new.clone(), old.clone(), BTreeSet::new()).expect("valid");
            let at: BTreeMap<_, _> = (1..9).map(|id| (NodeId(id), at[usize::try_from(id).expect("small")])).collect();
            let mut slow = slow_reached(&new, &at);
            if !old.is_empty() {
                slow = slow.min(slow_reached(&old, &at));
            }
            prop_assert_eq!(membership.reached_by_quorum(|id| at[&id]), slow);

            let ballot = |id: NodeId| match votes[usize::try_from(id.0).expect("small")] {
                0 => Ballot::Unknown,
                1 => Ballot::Granted,
                _ => Ballot::Refused,
            };
            let halves: Vec<_> = [&new, &old].into_iter().filter(|half| !half.is_empty()).collect();
            let granted = |half: &BTreeSet<NodeId>| half.iter().filter(|&&id| ballot(id) == Ballot::Granted).count();
            let possible = |half: &BTreeSet<NodeId>| half.iter().filter(|&&id| ballot(id) != Ballot::Refused).count();
            let expected = if halves.iter().all(|half| granted(half) * 2 > half.len()) {
                Tally::Won
            } else if halves.iter().all(|half| possible(half) * 2 > half.len()) {
                Tally::Open
            } else {
                Tally::Lost
            };
            prop_assert_eq!(membership.tally(ballot), expected);
        }
    }

    #[test]
    fn a_joint_configuration_needs_both_halves() {
        let membership = Membership::new(set(&[1, 2, 3]), set(&[4, 5, 6]), set(&[])).expect("valid");
        let new_only = |id: NodeId| if id.0 <= 3 { Ballot::Granted } else { Ballot::Unknown };
        assert_eq!(membership.tally(new_only), Tally::Open);
        assert_eq!(membership.reached_by_quorum(|id| if id.0 <= 3 { 9 } else { 0 }), 0);
    }
}
