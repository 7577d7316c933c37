//! A node that may have forgotten: what it may still say, and when it knows everything again.
//!
//! An acknowledgement stands for more than the bytes it was given for: whoever gave it will vote for no candidate that
//! lacks them (thesis 3.6.1). A node whose log lost its end cannot compare any more, so it compares with what it held.
//!
//! - **Damage** ([`Held`](wal::Held)): the disk lost entries that were durable. The node does not stand for election. It votes only
//!   for a log that is at least what it *held*. So every vote it gives is one it would have given before the damage, and
//!   the proof of Leader Completeness (thesis 3.6.3) goes through unchanged. It follows, acknowledges and counts like
//!   everyone else. Where the damage hides how far the log went, any index of that term is held.
//! - **Forgetting** (`MemFirst` after an unclean end): what was acknowledged and not yet flushed may be gone, and nobody
//!   knows how far it reached. The node abstains; unless a quorum has forgotten, the one case in which `MemFirst`
//!   promises nothing. Damage is no such case: somebody's disk still has what was acknowledged, or the group waits.
//!
//! When a node is whole again:
//!
//! - **after damage**, once the last entry *on its disk* is at least what it held. Either it has the log of the held term's
//!   leader up to there again; or that of a later leader, which was elected without this node's having said anything it
//!   would not have said before, and so had everything this node's acknowledgements ever decided. Late messages of its
//!   former life, in either direction, change nothing: what they promise is kept. If any index of the term is held, only a
//!   later leader's entry will do. Then the node enters a new term when it starts, which may cost one election, and does
//!   not wait for the next one in a state in which one more failure stops the group.
//! - **after forgetting**, once it has everything up to the commit index of a leader, if that is an entry of the leader's
//!   own term: what was decided in earlier terms lies before it. What was acknowledged to *this very* leader and is not
//!   decided yet might lie behind it: there `MemFirst` relies on the end of the connection, see
//!   [`Input::Connected`](crate::node::Input::Connected). A node that counts on disks again enters a new term instead.
//!
//! Being whole is not believed again after a restart until the log's state record says so: it rides on the next write.

use super::message::{Candidacy, Standing};
use super::quorum::{Ballot, Tally};
use super::{Durability, Raft, Restored};
use wal::{HardState, Held, LogIndex, NodeId, Term};

/// What a node does not know about its own past.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Doubt {
    /// Everything acknowledged is in the log.
    None,
    /// Acknowledged from memory, perhaps never flushed.
    Forgot,
    /// Acknowledged, flushed, and damaged since.
    Damaged(Held),
}

/// What decides whether a node that starts may have forgotten what it acknowledged.
#[derive(Clone, Copy, Debug)]
pub struct Past {
    /// It will acknowledge from memory.
    pub in_memory: bool,
    /// It has done so since its last clean end, whatever it is to do now.
    pub was_in_memory: bool,
    /// Its log was closed in order.
    pub was_clean: bool,
    /// The term on its disk.
    pub term: Term,
    /// The last entry there.
    pub last: LogIndex,
    /// What the disk lost, if it did.
    pub held: Option<Held>,
}

impl Past {
    /// How the directory was run last decides, not how it is run now. Nothing is acknowledged from memory before a term
    /// and the first entry are on disk: whoever has none of the one or of the other has nothing to forget.
    #[must_use]
    pub fn standing(self) -> Standing {
        let fresh = (self.term == Term::ZERO || self.last == LogIndex::ZERO) && self.held.is_none();
        let forgetful = (self.in_memory || self.was_in_memory) && !self.was_clean && !fresh;
        if forgetful { Standing::Suspect } else { Standing::Whole }
    }

    /// Whether the next start has to ask the same question.
    #[must_use]
    pub fn is_marked(self) -> bool {
        self.in_memory || self.standing() == Standing::Suspect
    }
}

impl Doubt {
    pub(super) fn of(restored: &Restored) -> Self {
        let reached = restored.hard_state.term;
        let anything = |held: Held| Held { term: held.term.max(reached), index: Held::ANY_INDEX };
        match (restored.held, restored.standing) {
            (None, Standing::Whole) => Self::None,
            (None, Standing::Suspect) => Self::Forgot,
            // What was held says what was on the disk. What was only in memory may have reached further, however the
            // node is run now.
            (Some(held), Standing::Suspect) => Self::Damaged(anything(held)),
            (Some(held), _) => Self::Damaged(held),
            (None, Standing::Damaged) => Self::Damaged(anything(Held::default())),
        }
    }

    pub(super) fn standing(self) -> Standing {
        match self {
            Self::None => Standing::Whole,
            Self::Forgot => Standing::Suspect,
            Self::Damaged(_) => Standing::Damaged,
        }
    }
}

impl Raft {
    /// Whether everything this node ever acknowledged is in its log.
    #[must_use]
    pub fn standing(&self) -> Standing {
        self.doubt.standing()
    }

    /// How far this node's log reached before it was damaged, until it has been repaired.
    #[must_use]
    pub fn held(&self) -> Option<Held> {
        match self.doubt {
            Doubt::Damaged(held) => Some(held),
            Doubt::None | Doubt::Forgot => None,
        }
    }

    /// Enters a new term if only that keeps what this node said before it started apart from what it says now.
    pub(super) fn leave_doubtful_term(&mut self) {
        let leave = match self.doubt {
            Doubt::None => false,
            Doubt::Forgot => !self.acknowledges_from_memory(),
            Doubt::Damaged(held) => held.index == Held::ANY_INDEX && held.term == self.hard.term,
        };
        if leave && !wal::mutant!("doubtful_term_kept") {
            self.hard = HardState { term: self.hard.term.next(), vote: None, ..self.hard };
        }
    }

    /// Whether this node's own ballot may count for itself.
    pub(super) fn may_stand(&self) -> bool {
        match self.doubt {
            Doubt::None => true,
            Doubt::Forgot => self.forgot_together(),
            Doubt::Damaged(_) => wal::mutant!("suspect_stands"),
        }
    }

    /// Whether this node may vote for a candidate whose log is at least as up to date as its own.
    pub(super) fn may_vote_for(&self, candidacy: &Candidacy) -> bool {
        match self.doubt {
            Doubt::None => true,
            Doubt::Forgot => self.forgot_together() || wal::mutant!("forgetful_votes"),
            Doubt::Damaged(_) if wal::mutant!("suspect_votes_freely") => true,
            Doubt::Damaged(held) => (candidacy.last_term, candidacy.last_index) >= (held.term, held.index),
        }
    }

    pub(super) fn is_damaged(&self) -> bool {
        matches!(self.doubt, Doubt::Damaged(_))
    }

    /// Whether a quorum, this node among it, has forgotten.
    fn forgot_together(&self) -> bool {
        let lost = self.membership().tally(|id| {
            if id == self.config.id || self.suspects.contains(&id) {
                Ballot::Granted
            } else {
                Ballot::Unknown
            }
        });
        lost == Tally::Won
    }

    /// What another node says of its memory. A damaged one is no reason to go on without what was acknowledged.
    pub(super) fn note_standing(&mut self, peer: NodeId, standing: Standing) {
        match standing {
            Standing::Whole | Standing::Damaged => self.suspects.remove(&peer),
            Standing::Suspect => self.suspects.insert(peer),
        };
    }

    /// This node's log has everything up to `commit`, which the leader of this term decided in this term.
    pub(super) fn note_decided_in_term(&mut self, commit: LogIndex) {
        assert!(commit <= self.log.commit(), "what is decided is known here");
        assert_eq!(self.log.term_at(commit), Some(self.hard.term), "in the leader's own term");
        if self.doubt == Doubt::Forgot {
            self.whole_at.get_or_insert(commit);
            self.note_whole();
        }
    }

    /// Compares what is on the disk with what is missing. To be asked whenever either has moved.
    pub(super) fn note_whole(&mut self) {
        let durable = self.log.durable();
        let whole = match self.doubt {
            Doubt::None => return,
            Doubt::Forgot => {
                let there = if self.acknowledges_from_memory() { self.log.last().index } else { durable };
                self.whole_at.is_some_and(|at| at <= there)
            }
            Doubt::Damaged(held) => {
                let term = self.log.term_at(durable).expect("what is durable is in the log");
                (term, durable) >= (held.term, held.index)
                    || (term >= held.term && wal::mutant!("whole_too_early"))
            }
        };
        if whole {
            self.become_whole();
        }
    }

    /// A node that forgot need not wait for its disk where acknowledgements do not: if it ends before the disk has
    /// everything, it has forgotten again.
    fn acknowledges_from_memory(&self) -> bool {
        self.doubt == Doubt::Forgot && self.config.durability == Durability::MemFirst
    }

    pub(super) fn become_whole(&mut self) {
        assert!(self.doubt != Doubt::None, "only a doubt ends");
        self.doubt = Doubt::None;
        self.whole_at = None;
        self.became_whole = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::{Membership, Now};
    use std::time::Duration;

    #[test]
    fn whoever_acknowledged_from_memory_and_did_not_end_in_order_is_a_suspect_however_it_runs_now() {
        use Standing::{Suspect, Whole};
        for (in_memory, was_in_memory, was_clean, standing, marked) in [
            (false, false, false, Whole, false),
            (false, false, true, Whole, false),
            (false, true, false, Suspect, true),
            (false, true, true, Whole, false),
            (true, false, false, Suspect, true),
            (true, false, true, Whole, true),
            (true, true, false, Suspect, true),
            (true, true, true, Whole, true),
        ] {
            let past =
                Past { in_memory, was_in_memory, was_clean, term: Term(1), last: LogIndex(1), held: None };
            assert_eq!((past.standing(), past.is_marked()), (standing, marked), "{past:?}");
            let fresh = Past { last: LogIndex::ZERO, ..past };
            for fresh in [fresh, Past { term: Term::ZERO, ..past }] {
                assert_eq!(fresh.standing(), Whole, "nothing was acknowledged yet");
            }
            let held = Some(Held { term: Term(2), index: LogIndex(5) });
            assert_eq!(
                Past { held, ..fresh }.standing(),
                standing,
                "it lost all it had, it never had nothing"
            );
        }
    }

    #[test]
    fn what_memory_held_beyond_a_damaged_disk_may_be_any_entry_of_the_newest_term() {
        let held = |term, index| Held { term: Term(term), index };
        let five = LogIndex(5);
        for (lost, standing, doubt) in [
            (None, Standing::Whole, Doubt::None),
            (None, Standing::Suspect, Doubt::Forgot),
            (None, Standing::Damaged, Doubt::Damaged(held(3, Held::ANY_INDEX))),
            (Some(held(2, five)), Standing::Whole, Doubt::Damaged(held(2, five))),
            (Some(held(2, five)), Standing::Damaged, Doubt::Damaged(held(2, five))),
            (Some(held(2, five)), Standing::Suspect, Doubt::Damaged(held(3, Held::ANY_INDEX))),
            (Some(held(4, five)), Standing::Suspect, Doubt::Damaged(held(4, Held::ANY_INDEX))),
        ] {
            let hard_state = HardState { term: Term(3), vote: None, ..HardState::default() };
            let restored = Restored { hard_state, commit: LogIndex::ZERO, standing, held: lost };
            assert_eq!(Doubt::of(&restored), doubt, "{lost:?} {standing:?}");
        }
    }

    #[test]
    fn what_was_held_proves_its_term_and_leaves_the_vote_of_that_term() {
        let vote = Some(NodeId(2));
        for (reached, expected) in [
            (1, HardState { term: Term(3), vote: None, ..HardState::default() }),
            (3, HardState { term: Term(3), vote, ..HardState::default() }),
            (5, HardState { term: Term(5), vote, ..HardState::default() }),
        ] {
            let config = crate::raft::Config {
                id: NodeId(1),
                cluster: wal::ClusterId(1),
                group: wal::GroupId::FIRST,
                seed: 1,
                heartbeat: Duration::from_millis(50),
                election_timeout: Duration::from_millis(250),
                promise: Duration::from_millis(150),
                drift_bound_ppm: 0,
                append_bytes: 1 << 20,
                in_flight_bytes: 1 << 20,
                durability: Durability::DiskFirst,
                unflushed_entries: 32,
            };
            let restored = Restored {
                hard_state: HardState { term: Term(reached), vote, ..HardState::default() },
                commit: LogIndex::ZERO,
                standing: Standing::Whole,
                held: Some(Held { term: Term(3), index: LogIndex(7) }),
            };
            let mut raft = Raft::new(config, restored);
            let founders = Membership::of_voters([1, 2, 3].map(NodeId)).expect("valid");
            raft.begin(Now::default(), &founders);
            assert_eq!((raft.hard, raft.standing()), (expected, Standing::Damaged), "term {reached} on disk");
        }
    }
}
