//! What the judges know of one node: how it was when last looked at, its whole log, and what its disk holds.
//!
//! Looking is cheap where nothing has changed. A log is compared from its end: the chained hash says that what is equal
//! at one index is equal before it.

use crate::kv::Store;
use crate::node::Node;
use crate::raft::log::Log;
use crate::raft::message::{Candidacy, Standing};
use crate::raft::{Raft, RoleName};
use crate::sim::observation::{Instant, Truth};
use wal::{EntryId, HardState, LogIndex, NodeId, Term};

/// A node at a glance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Summary {
    pub(super) term: Term,
    pub(super) leader: Option<NodeId>,
    pub(super) role: RoleName,
    pub(super) commit: LogIndex,
    pub(super) applied: LogIndex,
    pub(super) last: EntryId,
    pub(super) standing: Standing,
    pub(super) regressions: u64,
    pub(super) transferring: bool,
}

impl Default for Summary {
    fn default() -> Self {
        Self {
            term: Term::ZERO,
            leader: None,
            role: RoleName::Follower,
            commit: LogIndex::ZERO,
            applied: LogIndex::ZERO,
            last: EntryId::default(),
            standing: Standing::Whole,
            regressions: 0,
            transferring: false,
        }
    }
}

impl Summary {
    pub(super) fn of(node: &Node<Store>) -> Self {
        let raft: &Raft = node.raft();
        Self {
            term: raft.term(),
            leader: raft.leader(),
            role: raft.role(),
            commit: raft.commit(),
            applied: node.applied(),
            last: raft.log().last(),
            standing: raft.standing(),
            regressions: raft.counters().regressions,
            transferring: raft.is_transferring(),
        }
    }

    pub(super) fn leads(&self) -> bool {
        self.role == RoleName::Leader
    }
}

/// A copy of a disk's truth, kept by its differences.
#[derive(Clone, Debug, Default)]
pub(super) struct Flushed {
    pub(super) hard_state: HardState,
    pub(super) log: Vec<EntryId>,
    pub(super) commit: LogIndex,
}

/// One member.
#[derive(Debug)]
pub(super) struct Seat {
    pub(super) id: NodeId,
    pub(super) life: u64,
    /// When this life began.
    pub(super) began: Instant,
    pub(super) up: bool,
    pub(super) seen: Summary,
    pub(super) log: Vec<EntryId>,
    /// What the last look found gone from the log.
    pub(super) dropped: Vec<EntryId>,
    pub(super) flushed: Flushed,
    /// Its memory may lack what it acknowledged (`MemFirst`).
    pub(super) suspect: bool,
    /// The newest entry its disk had before damage took some, until it is whole again.
    pub(super) held: Option<EntryId>,
    /// Copies that damage took from the disk: they count for what was decided by them.
    pub(super) lost: Vec<EntryId>,
    /// The newest question this node asked for votes.
    pub(super) candidacy: Option<(Term, Candidacy)>,
}

impl Seat {
    pub(super) fn new(id: NodeId) -> Self {
        Self {
            id,
            life: 0,
            began: Instant::default(),
            up: false,
            seen: Summary::default(),
            log: Vec::new(),
            dropped: Vec::new(),
            flushed: Flushed::default(),
            suspect: false,
            held: None,
            lost: Vec::new(),
            candidacy: None,
        }
    }

    /// Follows the log; how many entries of the known one stand. The rest of it is in `dropped`, what is new behind.
    pub(super) fn follow(&mut self, log: &Log) -> usize {
        let last = log.last().index;
        let kept = kept(&self.log, usize::try_from(last.0).unwrap_or(usize::MAX), |at| {
            let index = LogIndex(at as u64);
            let term = log.term_at(index).unwrap_or_default();
            // Out of memory means decided: there the term tells.
            log.id_at(index)
                .map_or_else(|| self.log.get(at - 1).filter(|known| known.term == term).copied(), Some)
        });
        self.dropped.clear();
        self.dropped.extend(self.log.drain(kept..));
        for at in kept as u64 + 1..=last.0 {
            let index = LogIndex(at);
            let unseen =
                EntryId { index, term: log.term_at(index).unwrap_or_default(), ..EntryId::default() };
            self.log.push(log.id_at(index).unwrap_or(unseen));
        }
        kept
    }

    /// Follows the disk; how many entries of the known one stand. `None` if nothing changed.
    pub(super) fn flush(&mut self, disk: &Truth) -> Option<usize> {
        let flushed = &mut self.flushed;
        flushed.hard_state = disk.hard_state;
        flushed.commit = flushed.commit.max(disk.commit);
        if flushed.log.len() == disk.log.len() && flushed.log.last() == disk.log.last() {
            return None;
        }
        let kept = kept(&flushed.log, disk.log.len(), |at| disk.log.get(at - 1).copied());
        flushed.log.truncate(kept);
        flushed.log.extend_from_slice(&disk.log[kept..]);
        Some(kept)
    }
}

/// How many entries of `known` are also in a log of `length`, which has `entry(n)` at index n.
pub(super) fn kept(known: &[EntryId], length: usize, entry: impl Fn(usize) -> Option<EntryId>) -> usize {
    let mut kept = known.len().min(length);
    while kept > 0 && entry(kept) != Some(known[kept - 1]) {
        kept -= 1;
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::super::story::log;
    use super::*;

    #[test]
    fn a_disk_is_followed_by_its_end() {
        let mut seat = Seat::new(NodeId(1));
        let mut disk = Truth { log: log(&[1, 1, 2]), ..Truth::default() };
        assert_eq!(seat.flush(&disk), Some(0));
        assert_eq!(seat.flush(&disk), None);
        disk.log = log(&[1, 1, 3, 3]);
        assert_eq!(seat.flush(&disk), Some(2));
        assert_eq!(seat.flushed.log, disk.log);
    }
}
