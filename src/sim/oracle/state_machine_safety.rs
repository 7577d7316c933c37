//! O3, State Machine Safety and Leader Completeness (thesis 3.6.2, 3.6.3): what one node decides at an index is decided
//! there for ever and everywhere, and every later leader has it.
//!
//! The ledger is the one true log: the first node to decide an index writes it, everybody else is compared with it. A
//! leader elected in a term must hold what was decided in earlier terms; an election of an old term may be won, by votes
//! that were late, after a later leader has decided more.
//!
//! It cannot see that an entry was decided too early unless that has a consequence here; `durable_acknowledgements`
//! looks at the disks behind a decision.

use super::{Outcome, violated};
use wal::{EntryId, LogIndex, NodeId, Term};

pub(super) const NAME: &str = "state_machine_safety";

/// What the group has decided.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    entries: Vec<EntryId>,
    /// In which leader's term each was decided, never falling.
    decided_in: Vec<Term>,
}

/// The node that decides.
#[derive(Clone, Copy, Debug)]
pub(super) struct Decider<'a> {
    pub(super) id: NodeId,
    pub(super) term: Term,
    pub(super) log: &'a [EntryId],
}

pub(super) fn position(index: LogIndex) -> Option<usize> {
    usize::try_from(index.0.checked_sub(1)?).ok()
}

impl Ledger {
    /// Entries decided.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn entries(&self) -> &[EntryId] {
        &self.entries
    }

    /// A node takes everything up to `commit` for decided. What of it is new, as positions in its log.
    pub(super) fn decide(&mut self, node: Decider<'_>, commit: LogIndex) -> Outcome<std::ops::Range<usize>> {
        let Decider { id, term, log } = node;
        let until = usize::try_from(commit.0).unwrap_or(usize::MAX);
        violated!(until > log.len(), NAME, "node {id} decides {commit}, its log ends at {}", log.len());
        let known = self.entries.len();
        // Chained hashes: equal at one index, equal before it.
        if let Some(last) = until.min(known).checked_sub(1) {
            let (ours, theirs) = (self.entries[last], log[last]);
            violated!(ours != theirs, NAME, "node {id} decides {theirs:?}, where {ours:?} was decided");
        }
        if until <= known {
            return Ok(until..until);
        }
        self.entries.extend_from_slice(&log[known..until]);
        let floor = self.decided_in.last().copied().unwrap_or_default();
        self.decided_in.resize(until, term.max(floor));
        Ok(known..until)
    }

    /// A node begins to lead: it holds what was decided before its term.
    pub(super) fn lead(&self, node: Decider<'_>) -> Outcome {
        let Decider { id, term, log } = node;
        let owed = self.decided_in.partition_point(|&decided| decided < term);
        let Some(last) = owed.checked_sub(1) else { return Ok(()) };
        let decided = self.entries[last];
        violated!(
            log.get(last) != Some(&decided),
            NAME,
            "node {id} leads term {term} without {decided:?}, decided in term {}: it has {:?}",
            self.decided_in[last],
            log.get(last)
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::story::log;
    use super::*;

    fn node(id: u64, term: u64, log: &[EntryId]) -> Decider<'_> {
        Decider { id: NodeId(id), term: Term(term), log }
    }

    #[test]
    fn nodes_decide_the_same_in_their_own_time() {
        let mut ledger = Ledger::default();
        let entries = log(&[1, 1, 2]);
        assert_eq!(ledger.decide(node(1, 2, &entries), LogIndex(2)), Ok(0..2));
        assert_eq!(ledger.decide(node(2, 2, &entries), LogIndex(3)), Ok(2..3));
        assert_eq!(ledger.decide(node(1, 2, &entries), LogIndex(3)), Ok(3..3));
        ledger.lead(node(2, 3, &entries)).expect("it has everything");
        ledger.lead(node(3, 2, &entries[..1])).expect("nothing was decided before term 2");
    }

    #[test]
    fn another_entry_at_a_decided_index_is_a_violation() {
        let mut ledger = Ledger::default();
        ledger.decide(node(1, 1, &log(&[1, 1])), LogIndex(2)).expect("the first");
        let other = log(&[1, 2, 2]);
        assert_eq!(ledger.decide(node(2, 2, &other), LogIndex(3)).expect_err("2 differs").oracle, NAME);
        assert!(ledger.decide(node(2, 2, &other), LogIndex(4)).is_err(), "more than it has");
    }

    #[test]
    fn a_leader_without_what_was_decided_is_a_violation() {
        let mut ledger = Ledger::default();
        ledger.decide(node(1, 1, &log(&[1, 1])), LogIndex(2)).expect("the first");
        assert!(ledger.lead(node(2, 2, &log(&[1]))).is_err(), "too short");
        assert!(ledger.lead(node(2, 2, &log(&[1, 0]))).is_err(), "another entry");
    }
}
