//! What is true of a node after every step ([`Raft::check`]), and of every step (`check_step`).
//!
//! Only what one node can see of itself; what must hold between nodes is judged by tests that see the whole cluster.
//! Both run after each input in builds with debug assertions (every test, the simulator), not in release builds.

use super::doubt::Doubt;
use super::message::Standing;
use super::timer::Timer;
use super::{Raft, Role};
use wal::{EntryId, HardState, LogIndex, Term, WriteId};

/// What a step must respect.
#[derive(Clone, Copy, Debug)]
pub(super) struct Summary {
    hard: HardState,
    saved: HardState,
    commit: LogIndex,
    commit_term: Option<Term>,
    durable: LogIndex,
    next_write: WriteId,
    last: EntryId,
    standing: Standing,
    leads: bool,
}

impl Raft {
    pub(super) fn summary(&self) -> Summary {
        Summary {
            hard: self.hard,
            saved: self.saved,
            commit: self.log.commit(),
            commit_term: self.log.term_at(self.log.commit()),
            durable: self.log.durable(),
            next_write: self.next_write,
            last: self.log.last(),
            standing: self.standing(),
            leads: matches!(self.role, Role::Leader(_)),
        }
    }

    /// Checks the state.
    ///
    /// # Panics
    /// If an invariant does not hold: a stopped node is safe, a wrong one is not.
    pub fn check(&self) {
        if !cfg!(any(debug_assertions, feature = "sim")) || self.halted {
            return;
        }
        let log = &self.log;
        assert!(log.commit() <= log.last().index, "what is decided is in the log");
        assert!(log.durable() <= log.last().index, "what is durable is in the log");
        assert!(log.first_cached().previous() <= log.commit(), "only decided entries leave memory");
        assert!(log.first_cached().previous() <= log.durable(), "only durable entries leave memory");
        assert!(self.agreed <= log.last().index, "what is agreed is in the log");
        assert!(
            self.saved.term <= self.submitted.term && self.submitted.term <= self.hard.term,
            "saved after decided"
        );
        assert!(log.last().term <= self.hard.term, "no entry is of a later term than this node");
        assert!(
            log.terms().windows(2).all(|w| w[0].0 < w[1].0 && w[0].1 < w[1].1),
            "terms ascend along the log"
        );
        assert!(self.memberships.windows(2).all(|w| w[0].0 < w[1].0), "memberships ascend along the log");
        assert!(
            self.memberships.last().is_some_and(|&(index, _)| index <= log.last().index),
            "the membership in force is in the log"
        );
        assert!(!self.peers.contains(&self.config.id), "a node is not its own peer");
        assert!(!self.suspects.contains(&self.config.id), "what a node lacks itself is its doubt");
        assert!(self.proving_from <= self.next_write, "what proves something was written");
        assert!(
            log.last().index == LogIndex::ZERO || log.terms().first().is_some_and(|row| row.0.0 == 1),
            "terms are known from the first entry on"
        );
        assert!(
            self.whole_at.is_none() || self.doubt == Doubt::Forgot,
            "only one who forgot waits for a commit"
        );
        assert!(
            matches!(self.role, Role::Leader(_)) || self.timers.deadline(Timer::Election).is_some(),
            "whoever does not lead waits for a leader"
        );
        assert!(
            !self.is_damaged() || matches!(self.role, Role::Follower) || wal::mutant!("suspect_stands"),
            "a damaged node does not stand for election"
        );
        assert!(
            self.gone.is_none() || matches!(self.role, Role::Follower | Role::PreCandidate(_)),
            "whoever leads or stands in a term of its own misses nobody"
        );
        assert!(
            self.config.promise <= self.config.election_timeout,
            "nobody is promised more than it waits for"
        );
        match &self.role {
            Role::Leader(leading) => {
                assert_eq!(self.leader, Some(self.config.id), "a leader knows it leads");
                assert_eq!(self.hard, self.saved, "a leader's vote for itself is on disk");
                assert_eq!(self.hard.vote, Some(self.config.id), "a leader voted for itself");
                assert_eq!(log.last().term, self.hard.term, "a leader's log ends in its own term");
                assert_eq!(
                    log.term_at(leading.term_start),
                    Some(self.hard.term),
                    "its term starts with its no-op"
                );
                assert!(
                    log.last_timestamp() <= leading.clock.timestamp()
                        || wal::mutant!("wall_clock_is_log_time"),
                    "a leader's next entry is not earlier than its last"
                );
                assert!(self.timers.deadline(Timer::Heartbeat).is_some(), "a leader shows that it lives");
                assert!(self.timers.deadline(Timer::Election).is_none(), "a leader waits for no election");
                assert!(leading.progress.keys().eq(&self.peers), "a leader knows something of every peer");
                for (peer, progress) in &leading.progress {
                    assert!(progress.matched < progress.next, "node {peer}: what it holds is not sent again");
                    assert!(
                        progress.matched <= log.last().index,
                        "node {peer}: it cannot hold more than the leader"
                    );
                    assert!(
                        progress.echoed <= leading.probes.newest(),
                        "node {peer}: it answers what was asked"
                    );
                    assert!(progress.told_commit <= log.commit(), "node {peer}: it is told what is decided");
                }
            }
            Role::Candidate(_) => {
                assert_eq!(self.hard.vote, Some(self.config.id), "a candidate votes for itself");
                assert_eq!(self.leader, None, "a candidate has no leader");
            }
            Role::PreCandidate(_) => assert_eq!(self.leader, None, "a pre-candidate has no leader"),
            Role::Follower => {
                assert_ne!(self.leader, Some(self.config.id), "a follower does not follow itself")
            }
        }
    }

    /// Checks a step, and the state after it.
    ///
    /// # Panics
    /// If the step broke a rule of figure 3.2 of the thesis that one node can see.
    pub(super) fn check_step(&self, before: &Summary) {
        if !cfg!(any(debug_assertions, feature = "sim")) || self.halted {
            return;
        }
        assert!(self.hard.term >= before.hard.term, "terms never fall");
        if self.hard.term == before.hard.term && before.hard.vote.is_some() {
            assert_eq!(self.hard.vote, before.hard.vote, "a vote is given once a term");
        }
        assert!(self.saved.term >= before.saved.term, "the disk's term never falls");
        assert!(self.log.commit() >= before.commit, "what is decided stays decided");
        assert_eq!(self.log.term_at(before.commit), before.commit_term, "and stays what it is");
        assert!(self.next_write >= before.next_write, "writes are numbered in order");
        assert!(
            before.durable <= self.log.durable()
                || self.log.durable() == self.log.last().index
                || self.proving_from == self.next_write,
            "only a truncation takes back what is durable"
        );
        assert!(
            self.standing() == before.standing || self.standing() == Standing::Whole,
            "a memory is not lost while running"
        );
        if before.leads && matches!(self.role, Role::Leader(_)) && before.hard.term == self.hard.term {
            let kept = self.log.id_at(before.last.index).is_none_or(|id| id == before.last);
            assert!(
                self.log.last().index >= before.last.index && kept,
                "a leader only appends (thesis figure 3.2)"
            );
        }
        self.check();
    }
}
