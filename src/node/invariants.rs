//! What is true of a node between two inputs: every call is in one place, every count is of something.
//!
//! Looked at whenever the outputs have been drained, in builds with debug assertions and in the simulator. What consensus
//! may look like is checked in `raft`.

use super::{Node, Phase, StateMachine};
use crate::raft::RoleName;

impl<M: StateMachine> Node<M> {
    /// Checks the state.
    ///
    /// # Panics
    /// If an invariant does not hold: a stopped node is safe, a wrong one is not.
    pub(super) fn check(&self) {
        if !cfg!(any(debug_assertions, feature = "sim")) {
            return;
        }
        assert_eq!(self.phase, Phase::Idle, "a turn has ended");
        assert!(self.outputs.is_empty() && self.answers.is_empty(), "what there was to say is said");
        assert!(self.outcomes.is_empty(), "and what peers wait for is sent");
        assert!(self.replies.is_empty(), "a reply goes to a caller or nowhere");
        if self.stopped {
            assert_eq!(self.pending(), 0, "a node that stopped has answered everybody");
            return;
        }
        let log = self.raft.log();
        assert!(self.applied <= log.commit(), "only what is decided is applied");
        assert_eq!(self.applied, log.commit(), "and all of it, by the end of a turn");
        assert!(log.first_cached().previous() <= self.applied, "what is not applied stays in memory");
        assert_eq!(self.leadership.term, self.raft.term(), "leadership is told as it is");
        assert_eq!(self.leadership.leader, self.raft.leader(), "leadership is told as it is");
        assert_eq!(self.leadership.role, self.raft.role(), "leadership is told as it is");
        assert!(self.pending() == 0 || self.sweep_at.is_some(), "no call waits without a deadline");
        if let Some(until) = self.lease() {
            assert_eq!(self.raft.role(), RoleName::Leader, "only a leader has a lease");
            assert!(until.0 > 0, "a lease ends some time");
        }
        self.writes.check(self.applied, self.raft.term());
        self.reads.check(self.applied);
        self.check_upkeep();
        let led_by_another = self.raft.leader().is_some_and(|leader| leader != self.raft.config().id);
        assert!(!self.writes.has_forwarded() || led_by_another, "commands are passed to a leader");
        assert!(!self.reads.has_asked() || led_by_another, "a leader is asked for an index");
        assert!(
            !self.reads.has_rounds() || self.raft.role() == RoleName::Leader,
            "rounds are confirmed by the peers of a leader"
        );
    }
}
