//! O13, liveness once faults have ended (thesis 3.4, 9.3): within ten election timeouts a node of the core leads in the
//! newest term of the core; at the end every call is answered, nobody waits, and the core's nodes follow one leader and
//! are equal.
//!
//! Ten timeouts are counted on the world's clock, with a fifth more for clocks that are slow. It cannot see progress that
//! is slower than it should be, and judges nothing if faults never end.

use super::{Outcome, violated};
use crate::sim::observation::{CallId, Instant};
use wal::{LogIndex, NodeId, Term};

pub(super) const NAME: &str = "liveness";

/// A node of the core at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Final {
    pub(super) id: NodeId,
    pub(super) term: Term,
    pub(super) leader: Option<NodeId>,
    pub(super) last: LogIndex,
    pub(super) applied: LogIndex,
    pub(super) digest: u128,
    pub(super) pending: usize,
}

/// What is owed since faults ended.
#[derive(Debug, Default)]
pub(super) struct Liveness {
    core: Vec<NodeId>,
    healed: Option<Instant>,
    /// A leader is owed by then.
    deadline: Option<Instant>,
    led: Option<Instant>,
}

impl Liveness {
    /// Faults have ended.
    pub(super) fn heal(&mut self, at: Instant, core: &[NodeId], election_timeout: std::time::Duration) {
        self.core = core.to_vec();
        let patience = u64::try_from(election_timeout.as_nanos()).unwrap_or(u64::MAX).saturating_mul(12);
        self.healed = Some(at);
        self.deadline = Some(Instant(at.0.saturating_add(patience)));
        self.led = None;
    }

    /// Whether a leader is still waited for, and `id` would do.
    pub(super) fn waits_for(&self, id: NodeId) -> bool {
        self.deadline.is_some() && self.core.contains(&id)
    }

    /// The core has a leader.
    pub(super) fn lead(&mut self, at: Instant) {
        self.deadline = None;
        self.led.get_or_insert(at);
    }

    /// Time passes.
    pub(super) fn pass(&self, at: Instant) -> Outcome {
        violated!(
            self.deadline.is_some_and(|deadline| at > deadline),
            NAME,
            "no leader among {:?} within ten election timeouts after {}",
            self.core,
            self.healed.unwrap_or_default()
        );
        Ok(())
    }

    /// From the end of the faults to a leader.
    pub(super) fn took(&self) -> Option<u64> {
        Some(self.led?.0 - self.healed?.0)
    }

    /// The run is over.
    pub(super) fn finish(&self, core: &[Final], open: Option<CallId>) -> Outcome {
        if self.healed.is_none() {
            return Ok(());
        }
        violated!(open.is_some(), NAME, "call {open:?} was never answered");
        violated!(
            self.led.is_none(),
            NAME,
            "the core never had a leader after {}",
            self.healed.unwrap_or_default()
        );
        let Some(first) = core.first() else { return Ok(()) };
        for node in core {
            violated!(node.pending > 0, NAME, "node {} leaves {} calls waiting", node.id, node.pending);
            violated!(
                node.leader.is_none() || !core.iter().any(|other| Some(other.id) == node.leader),
                NAME,
                "node {} follows {:?}, who is not of the core",
                node.id,
                node.leader
            );
            violated!(node.last != node.applied, NAME, "node {} is behind its own log: {node:?}", node.id);
            violated!(
                Final { id: first.id, ..*node } != *first,
                NAME,
                "the core did not converge: {first:?}, {node:?}"
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn healed() -> Liveness {
        let mut judge = Liveness::default();
        judge.heal(Instant(1_000), &[NodeId(1), NodeId(2)], Duration::from_nanos(100));
        judge
    }

    fn node(id: u64) -> Final {
        let (last, applied) = (LogIndex(9), LogIndex(9));
        Final { id: NodeId(id), term: Term(2), leader: Some(NodeId(1)), last, applied, digest: 5, pending: 0 }
    }

    #[test]
    fn a_leader_is_owed_in_time() {
        let mut judge = healed();
        assert!(judge.waits_for(NodeId(1)) && !judge.waits_for(NodeId(3)));
        judge.pass(Instant(2_000)).expect("there is time");
        assert!(judge.pass(Instant(2_201)).is_err());
        judge.lead(Instant(1_500));
        judge.pass(Instant(9_999)).expect("there was one");
        assert_eq!(judge.took(), Some(500));
    }

    #[test]
    fn the_core_ends_equal_and_owes_nothing() {
        let mut judge = healed();
        assert!(judge.finish(&[node(1), node(2)], None).is_err(), "no leader");
        judge.lead(Instant(1_500));
        judge.finish(&[node(1), node(2)], None).expect("equal");
        assert!(judge.finish(&[node(1), node(2)], Some(CallId(4))).is_err());
        for odd in [
            Final { digest: 6, ..node(2) },
            Final { pending: 1, ..node(2) },
            Final { leader: None, ..node(2) },
            Final { leader: Some(NodeId(7)), ..node(2) },
            Final { applied: LogIndex(8), ..node(2) },
        ] {
            assert!(judge.finish(&[node(1), odd], None).is_err(), "{odd:?}");
        }
    }
}
