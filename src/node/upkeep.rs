//! The state machine's own command: what has to happen because time has passed, and is asked for by nobody.
//!
//! A state machine may do nothing of itself: replicas that ended a lease by their own clocks would diverge, and one that was
//! deposed without knowing would end what its successor keeps alive (pitfall: etcd #15247). So the machine says from which
//! log time on it wants an entry ([`StateMachine::upkeep_at`]), and the leader proposes one, like any command: it is decided
//! or not, and what it ends is judged where it stands in the log, by its timestamp, after everything that came before.
//!
//! - Only a node that leads proposes it, once its term's first entry is decided: before that, its state lacks what a
//!   predecessor may have had decided.
//! - It comes after the callers' commands of the same entry: a lease that one of them keeps alive is kept.
//! - One is on its way at a time, and it costs no entry of its own while there are commands. Nobody waits for its reply.

use super::{Mono, Node, StateMachine};
use bytes::BytesMut;
use wal::EntryId;

/// The command on its way.
#[derive(Debug, Default)]
pub(super) struct Upkeep {
    /// The entry that the newest one is in.
    proposed: Option<EntryId>,
}

impl<M: StateMachine> Node<M> {
    /// The machine's command, if the entry that is cut now is to have it.
    pub(super) fn due_upkeep(&self) -> Option<BytesMut> {
        let at = self.upkeep_at()?;
        let now = self.raft.timestamp(self.now)?;
        (now >= at).then(|| {
            let mut command = BytesMut::new();
            self.machine.upkeep(&mut command);
            command
        })
    }

    /// It is in this entry.
    pub(super) fn note_upkeep(&mut self, entry: EntryId) {
        let start = self.raft.lease_index().expect("only a leader proposes");
        assert!(
            start <= self.applied || wal::mutant!("upkeep_before_own_commit"),
            "a leader that knows what is decided"
        );
        assert!(start < entry.index, "it follows the first entry of the term");
        self.upkeep.proposed = Some(entry);
    }

    /// When the next turn is to cut an entry for it, as far as is known now.
    pub(super) fn upkeep_timeout(&self) -> Option<Mono> {
        if self.machine.upkeep_at().is_none() || !self.may_cut() {
            return None; // The flush that is waited for, or the next leader, comes as an input.
        }
        self.raft.when_timestamp(self.upkeep_at()?)
    }

    /// The log time from which on this node is to propose it, if it leads and none is on its way.
    fn upkeep_at(&self) -> Option<u64> {
        let at = self.machine.upkeep_at()?;
        let knows = self.raft.lease_index()? <= self.applied || wal::mutant!("upkeep_before_own_commit");
        // One that was proposed in an earlier term may be decided yet; it does no harm, and is not waited for.
        let term = self.raft.term();
        let under_way = self.upkeep.proposed.is_some_and(|it| it.term == term && it.index > self.applied);
        (knows && !under_way).then_some(at.0)
    }

    /// Checks what is true between two inputs.
    pub(super) fn check_upkeep(&self) {
        let Some(entry) = self.upkeep.proposed else { return };
        assert!(entry.term <= self.raft.term(), "what was proposed is of a term that was reached");
        if let Some(start) = self.raft.lease_index()
            && entry.term == self.raft.term()
        {
            assert!(entry.index <= self.raft.log().last().index, "a leader only appends");
            assert!(self.raft.log().term_at(entry.index) == Some(entry.term), "and keeps its own entries");
            assert!(start <= self.applied, "it knew what is decided when it proposed, and knows it still");
        }
    }
}
