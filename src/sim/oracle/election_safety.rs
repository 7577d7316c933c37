//! O1, Election Safety (thesis 3.2, figure 3.2): at most one leader in a term, over the whole run and all lives.
//!
//! Fed with every node seen leading and with every message that only a leader sends. It cannot see a leader that did
//! nothing between two observations.

use super::{Outcome, violated};
use std::collections::BTreeMap;
use wal::{NodeId, Term};

pub(super) const NAME: &str = "election_safety";

/// Who led when.
#[derive(Debug, Default)]
pub(super) struct ElectionSafety {
    leaders: BTreeMap<Term, NodeId>,
    /// The last claim: nearly every claim repeats it.
    newest: Option<(Term, NodeId)>,
}

impl ElectionSafety {
    /// `id` acts as the leader of `term`.
    pub(super) fn claim(&mut self, term: Term, id: NodeId) -> Outcome {
        if self.newest == Some((term, id)) {
            return Ok(());
        }
        self.newest = Some((term, id));
        let first = *self.leaders.entry(term).or_insert(id);
        violated!(first != id, NAME, "nodes {first} and {id} both lead in term {term}");
        Ok(())
    }

    /// Terms that had a leader.
    pub(super) fn elected(&self) -> u64 {
        self.leaders.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaders_follow_each_other_and_may_come_back() {
        let mut judge = ElectionSafety::default();
        for (term, id) in [(1, 1), (2, 3), (1, 1), (5, 1)] {
            judge.claim(Term(term), NodeId(id)).expect("each term has one");
        }
        assert_eq!(judge.elected(), 3);
    }

    #[test]
    fn a_second_leader_of_an_old_term_is_one_too_many() {
        let mut judge = ElectionSafety::default();
        judge.claim(Term(1), NodeId(1)).expect("the first");
        judge.claim(Term(2), NodeId(2)).expect("another term");
        let violation = judge.claim(Term(1), NodeId(2)).expect_err("term 1 is node 1's");
        assert_eq!(violation.oracle, NAME);
    }
}
