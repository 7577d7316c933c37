//! O11, nothing goes back (thesis figure 3.1, 3.8): terms, votes, decisions and what is applied, within a life; term,
//! vote and the decided part of the log on disk, over all lives. What is applied is decided, what is decided is in the
//! log, and neither is ever truncated.
//!
//! A new life learns again what is decided: the mark on disk may be old. A damaged disk is `recovery`'s to judge.

use super::seat::Summary;
use super::{Outcome, violated};
use std::ops::Range;
use wal::{EntryId, HardState, LogIndex, NodeId};

pub(super) const NAME: &str = "monotony";

/// One life goes on.
pub(super) fn lives(id: NodeId, before: &Summary, now: &Summary) -> Outcome {
    violated!(now.term < before.term, NAME, "node {id} falls from term {} to {}", before.term, now.term);
    violated!(
        now.commit < before.commit,
        NAME,
        "node {id} undoes decisions: {} after {}",
        now.commit,
        before.commit
    );
    violated!(
        now.applied < before.applied,
        NAME,
        "node {id} has applied {} after {}",
        now.applied,
        before.applied
    );
    coheres(id, now)
}

/// One state by itself.
pub(super) fn coheres(id: NodeId, now: &Summary) -> Outcome {
    violated!(now.applied > now.commit, NAME, "node {id} applies {}, decided is {}", now.applied, now.commit);
    violated!(
        now.commit > now.last.index,
        NAME,
        "node {id} decides {} of a log up to {}",
        now.commit,
        now.last.index
    );
    violated!(
        now.last.term > now.term,
        NAME,
        "node {id} is in term {} with {:?} in its log",
        now.term,
        now.last
    );
    Ok(())
}

/// A log loses entries after `kept`.
pub(super) fn truncates(id: NodeId, commit: LogIndex, kept: usize) -> Outcome {
    violated!((kept as u64) < commit.0, NAME, "node {id} keeps {kept} entries of {commit} decided ones");
    Ok(())
}

/// A disk's hard state changes.
pub(super) fn votes(id: NodeId, before: HardState, now: HardState) -> Outcome {
    violated!(
        now.term < before.term,
        NAME,
        "the disk of node {id} falls from term {} to {}",
        before.term,
        now.term
    );
    let changed = now.term == before.term && before.vote.is_some() && now.vote != before.vote;
    violated!(
        changed,
        NAME,
        "node {id} votes twice in term {}: {:?}, then {:?}",
        now.term,
        before.vote,
        now.vote
    );
    Ok(())
}

/// An undamaged disk that says everything up to `commit` is decided gives up the entries at these positions.
pub(super) fn drops(id: NodeId, commit: LogIndex, dropped: Range<usize>) -> Outcome {
    violated!(
        !dropped.is_empty() && (dropped.start as u64) < commit.0,
        NAME,
        "the disk of node {id} drops entries {} to {}, and said that all up to {commit} is decided",
        dropped.start + 1,
        dropped.end
    );
    Ok(())
}

/// A life begins with what its disk held.
pub(super) fn begins(id: NodeId, disk: HardState, last: Option<&EntryId>, now: &Summary) -> Outcome {
    violated!(
        now.term < disk.term,
        NAME,
        "node {id} begins in term {}, its disk is at {}",
        now.term,
        disk.term
    );
    let of_last = last.map_or(disk.term, |last| last.term);
    violated!(now.term < of_last, NAME, "node {id} begins in term {} below its log's {of_last}", now.term);
    coheres(id, now)
}

#[cfg(test)]
mod tests {
    use super::super::story::{entry, log};
    use super::*;
    use wal::Term;

    const NODE: NodeId = NodeId(1);

    fn summary(term: u64, applied: u64, commit: u64, last: u64) -> Summary {
        let last = entry(last, term);
        Summary {
            term: Term(term),
            applied: LogIndex(applied),
            commit: LogIndex(commit),
            last,
            ..Summary::default()
        }
    }

    #[test]
    fn a_life_goes_forward() {
        let (before, now) = (summary(2, 3, 4, 5), summary(2, 4, 5, 5));
        lives(NODE, &before, &now).expect("forward");
        for back in [summary(1, 4, 5, 5), summary(2, 3, 3, 5), summary(2, 2, 5, 5)] {
            assert!(lives(NODE, &before, &back).is_err(), "{back:?}");
        }
        for wrong in [summary(2, 6, 5, 9), summary(2, 3, 9, 8)] {
            assert!(lives(NODE, &before, &wrong).is_err(), "{wrong:?}");
        }
        let early = Summary { term: Term(1), ..summary(2, 1, 1, 1) };
        assert!(coheres(NODE, &early).is_err(), "an entry of a later term");
        assert!(truncates(NODE, LogIndex(3), 2).is_err());
        truncates(NODE, LogIndex(3), 3).expect("after the decided ones");
    }

    #[test]
    fn a_vote_is_given_once() {
        let at = |term, vote: Option<u64>| HardState {
            term: Term(term),
            vote: vote.map(NodeId),
            ..HardState::default()
        };
        votes(NODE, at(1, None), at(1, Some(2))).expect("the first");
        votes(NODE, at(1, Some(2)), at(2, None)).expect("a new term");
        assert!(votes(NODE, at(1, Some(2)), at(1, Some(3))).is_err());
        assert!(votes(NODE, at(1, Some(2)), at(1, None)).is_err());
        assert!(votes(NODE, at(2, None), at(1, None)).is_err());
    }

    #[test]
    fn a_disk_keeps_what_it_knows_is_decided_and_a_life_begins_there() {
        drops(NODE, LogIndex(2), 2..3).expect("the third was open");
        drops(NODE, LogIndex(2), 1..1).expect("nothing");
        assert!(drops(NODE, LogIndex(2), 1..3).is_err());
        let disk = log(&[1, 1, 2]);
        let hard_state = HardState { term: Term(3), vote: None, ..HardState::default() };
        begins(NODE, hard_state, disk.last(), &summary(3, 0, 0, 3)).expect("as the disk says");
        assert!(begins(NODE, hard_state, None, &summary(2, 0, 0, 3)).is_err());
        assert!(begins(NODE, HardState::default(), disk.last(), &summary(1, 0, 0, 3)).is_err());
    }
}
