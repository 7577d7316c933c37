//! O4, equal replicas (thesis 3.2, State Machine Safety as the state machine sees it): at every index at which two nodes,
//! in any of their lives, have stopped applying, their digests and revisions are equal; and revision, number of keys and of
//! leases are those that an independent replay of the ledger comes to.
//!
//! It cannot see an index that no node was looked at with: a node applies many entries in one step.

use super::model::Stand;
use super::state_machine_safety::position;
use super::{Outcome, violated};
use wal::{LogIndex, NodeId};

pub(super) const NAME: &str = "equal_digests";

/// A state machine at a glance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct State {
    pub(super) digest: u128,
    pub(super) revision: u64,
    pub(super) keys: u64,
    pub(super) leases: u64,
}

/// The states seen, by index.
#[derive(Debug, Default)]
pub(super) struct EqualDigests {
    states: Vec<Option<State>>,
    compared: u64,
}

impl EqualDigests {
    /// `id` has applied everything up to `applied`; the replay came to `replayed` there, if it got that far.
    pub(super) fn see(
        &mut self,
        id: NodeId,
        applied: LogIndex,
        state: State,
        replayed: Option<Stand>,
    ) -> Outcome {
        let Some(at) = position(applied) else { return Ok(()) };
        if self.states.len() <= at {
            self.states.resize(at + 1, None);
        }
        let first = *self.states[at].get_or_insert(state);
        self.compared += 1;
        violated!(first != state, NAME, "node {id} is {state:?} after {applied}, others were {first:?}");
        if let Some(Stand { revision, keys, leases, .. }) = replayed {
            violated!(
                (revision, keys, leases) != (state.revision, state.keys, state.leases),
                NAME,
                "node {id} is {state:?} after {applied}, the ledger replayed is at revision {revision} with {keys} keys and \
                 {leases} leases"
            );
        }
        Ok(())
    }

    /// How often a state was compared.
    pub(super) fn compared(&self) -> u64 {
        self.compared
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replicas_agree_at_every_index_or_not_at_all() {
        let mut judge = EqualDigests::default();
        let state = State { digest: 7, revision: 3, keys: 2, leases: 1 };
        let stand = Stand { revision: 3, keys: 2, leases: 1, compacted: 1, time: 0 };
        judge.see(NodeId(1), LogIndex(4), state, Some(stand)).expect("the first");
        judge.see(NodeId(2), LogIndex(4), state, Some(stand)).expect("the same");
        judge.see(NodeId(2), LogIndex(5), State { digest: 8, ..state }, None).expect("another index");
        assert!(judge.see(NodeId(3), LogIndex(4), State { digest: 8, ..state }, Some(stand)).is_err());
        for odd in [Stand { revision: 4, ..stand }, Stand { keys: 3, ..stand }, Stand { leases: 0, ..stand }]
        {
            assert!(judge.see(NodeId(3), LogIndex(4), state, Some(odd)).is_err(), "not what the ledger says");
        }
    }
}
