//! Leadership confirmed without the disk: read rounds, the lease, and the contact with a quorum (thesis 6.2, 6.4).
//!
//! A leader numbers its signs of life ("probes") and remembers when each left. An answer to probe `n` says: at some
//! time after `n` left, its sender recognised this leader. From that follow, by the same count of a quorum,
//!
//! - **a read round**: reads that arrived before probe `n` left may be served once a quorum has answered `n`;
//! - **the lease**: for the length of the promise after the probe a quorum has answered *left*, less the drift bound, no other
//!   leader can be elected, because that quorum refuses its votes that long. The promise is this leader's own, whatever is
//!   configured elsewhere: it states it with every probe, and whoever answers gives at least that, through a restart, too;
//! - **the contact**: a leader no quorum has answered for an election timeout steps down.

use super::message::{Alive, Body, Heartbeat};
use super::time::nanos;
use super::timer::Timer;
use super::{Mono, Now, Raft, Role};
use std::collections::VecDeque;
use std::time::Duration;
use wal::{LogIndex, NodeId, Term};

/// How many probes are remembered.
const REMEMBERED_PROBES: usize = 256;
/// Probes that leave within this part of an election timeout are remembered as the first of them, which left before the
/// others: what is remembered covers four election timeouts, however many rounds a second are asked for.
const REMEMBERED_PER_TIMEOUT: u32 = 64;

/// The probes of one leadership.
#[derive(Clone, Debug, Default)]
pub(super) struct Probes {
    newest: u64,
    wanted: bool,
    // Invariant: numbers and times ascend. A number between two of them left after the lower one's time.
    sent_at: VecDeque<(u64, Mono)>,
}

impl Probes {
    /// Number of the newest probe; zero before the first.
    pub(super) fn newest(&self) -> u64 {
        self.newest
    }

    fn send(&mut self, now: Mono, election_timeout: Duration) -> u64 {
        assert!(self.sent_at.back().is_none_or(|&(_, last)| last <= now), "time does not fall");
        self.wanted = false;
        self.newest += 1;
        let grain = election_timeout / REMEMBERED_PER_TIMEOUT;
        if self.sent_at.back().is_none_or(|&(_, last)| now.since(last) >= grain) {
            if self.sent_at.len() == REMEMBERED_PROBES {
                self.sent_at.pop_front();
            }
            self.sent_at.push_back((self.newest, now));
        }
        self.newest
    }

    /// A time before which `probe` did not leave.
    fn sent_after(&self, probe: u64) -> Option<Mono> {
        let next = self.sent_at.partition_point(|&(number, _)| number <= probe);
        Some(self.sent_at[next.checked_sub(1)?].1)
    }
}

/// A place in a read round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadRound {
    /// The leader's term.
    pub term: Term,
    /// Confirmed when a quorum has answered this probe.
    pub probe: u64,
    /// The state to read must include this entry.
    pub index: LogIndex,
}

impl Raft {
    /// Joins the read round of this turn; `None` if this node does not lead.
    pub fn join_read_round(&mut self) -> Option<ReadRound> {
        let term = self.hard.term;
        let commit = self.log.commit();
        let Role::Leader(leading) = &mut self.role else { return None };
        leading.probes.wanted = true;
        // Until its own no-op is decided a leader does not know what is (thesis 6.4, step 1): reads wait for it.
        let index =
            if wal::mutant!("read_before_own_commit") { commit } else { commit.max(leading.term_start) };
        // Answers to a probe that has left already may be older than the read.
        let later = u64::from(!wal::mutant!("read_joins_sent_probe"));
        Some(ReadRound { term, probe: leading.probes.newest + later, index })
    }

    /// Whether a quorum recognised this leader after the round's reads arrived.
    #[must_use]
    pub fn is_confirmed(&self, round: ReadRound) -> bool {
        let Role::Leader(leading) = &self.role else { return false };
        if wal::mutant!("read_without_quorum") {
            return true;
        }
        (round.term == self.hard.term || wal::mutant!("read_survives_leader_change"))
            && round.probe
                <= self.membership().reached_by_quorum(|id| {
                    if id == self.config.id {
                        leading.probes.newest
                    } else {
                        leading.progress.get(&id).map_or(0, |p| p.echoed)
                    }
                })
    }

    /// Until when this leader may serve reads from its own state, if it may: the state must include
    /// [`lease_index`](Self::lease_index), and the time must be checked again after the read.
    #[must_use]
    pub fn lease(&self) -> Option<Mono> {
        let Role::Leader(leading) = &self.role else { return None };
        if leading.lease_revoked || self.halted {
            return None;
        }
        if self.membership().is_sole_voter(self.config.id) {
            return Some(Mono(u64::MAX));
        }
        let since = self.quorum_recognised_at()?;
        assert!(since >= Mono(1), "a quorum has answered");
        Some(since.after(self.lease_span()))
    }

    /// The no-op of this leader's term: a state without it may lack what earlier leaders decided.
    #[must_use]
    pub fn lease_index(&self) -> Option<LogIndex> {
        match &self.role {
            Role::Leader(leading) => Some(leading.term_start),
            _ => None,
        }
    }

    fn lease_span(&self) -> Duration {
        if wal::mutant!("lease_of_election_timeout") {
            return self.config.election_timeout;
        }
        // What this leader states, which `Raft::new` bounds: members keep to it even if they would promise less by themselves.
        let full = nanos(self.config.promise);
        if wal::mutant!("lease_ignores_drift") {
            return Duration::from_nanos(full * 2);
        }
        let drift = u128::from(full) * u128::from(self.config.drift_bound_ppm) / 1_000_000;
        let span = Duration::from_nanos(full.saturating_sub(u64::try_from(drift).unwrap_or(full)));
        assert!(span <= self.config.promise, "a lease is shorter than what its followers promise");
        span
    }

    /// The latest time at or after which a quorum recognised this leader.
    fn quorum_recognised_at(&self) -> Option<Mono> {
        let Role::Leader(leading) = &self.role else { return None };
        let at = self.membership().reached_by_quorum(|id| {
            if id == self.config.id {
                u64::MAX
            } else {
                leading.progress.get(&id).map_or(0, |p| p.recognised_at.0)
            }
        });
        (at != 0).then_some(Mono(at))
    }

    pub(super) fn heartbeat_due(&mut self, now: Now) {
        if !matches!(self.role, Role::Leader(_)) {
            return;
        }
        self.timers.set(Timer::Heartbeat, now.mono.after(self.config.heartbeat));
        self.recover_lost_appends(now);
        self.broadcast_probe(now);
    }

    /// Sends the probe that reads of this turn wait for.
    pub(super) fn send_wanted_probe(&mut self, now: Now) {
        if matches!(&self.role, Role::Leader(leading) if leading.probes.wanted) {
            self.broadcast_probe(now);
        }
    }

    fn broadcast_probe(&mut self, now: Now) {
        let (commit, promise) = (self.log.commit(), self.config.promise);
        let Role::Leader(leading) = &mut self.role else { return };
        let probe = leading.probes.send(now.mono, self.config.election_timeout);
        for progress in leading.progress.values_mut() {
            progress.told_commit = commit;
        }
        for peer in 0..self.peers.len() {
            self.send(self.peers[peer], Body::Heartbeat(Heartbeat { probe, commit, promise }));
        }
    }

    pub(super) fn handle_heartbeat(&mut self, now: Now, from: NodeId, heartbeat: Heartbeat) {
        self.note_leader_contact(now, heartbeat.promise);
        self.learn_commit(heartbeat.commit);
        self.send(from, Body::Alive(Alive { probe: heartbeat.probe }));
    }

    pub(super) fn handle_alive(&mut self, now: Now, from: NodeId, alive: Alive) {
        self.note_echo(now, from, alive.probe);
    }

    /// A peer has answered a probe. A number never sent is not an answer.
    pub(super) fn note_echo(&mut self, now: Now, from: NodeId, probe: u64) {
        let Role::Leader(leading) = &mut self.role else { return };
        let Some(progress) = leading.progress.get_mut(&from) else { return };
        if probe > leading.probes.newest {
            self.counters.malformed += 1;
            return;
        }
        let probe =
            if wal::mutant!("answer_counts_for_newest_probe") { leading.probes.newest } else { probe };
        progress.echoed = progress.echoed.max(probe);
        if let Some(at) = leading.probes.sent_after(probe) {
            let at = if wal::mutant!("lease_from_receive_time") { now.mono } else { at };
            assert!(at <= now.mono, "a probe is answered after it left");
            progress.recognised_at = progress.recognised_at.max(at);
        }
    }

    /// A leader without a quorum is none (thesis 6.2).
    pub(super) fn check_quorum_contact(&mut self, now: Now) {
        let Role::Leader(leading) = &self.role else { return };
        if self.membership().is_sole_voter(self.config.id) {
            return;
        }
        let heard = self.quorum_recognised_at().unwrap_or_default().max(leading.since);
        let deadline = heard.after(self.config.election_timeout);
        if now.mono < deadline {
            self.timers.set(Timer::QuorumContact, deadline);
        } else if !wal::mutant!("no_check_quorum") {
            self.become_follower(now, self.hard.term, None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bounded_number_of_probes_is_remembered_the_newest_of_them() {
        let timeout = Duration::from_nanos(64 * 10);
        let mut probes = Probes::default();
        for number in 1..=1_000 {
            assert_eq!(probes.send(Mono(number * 10), timeout), number);
        }
        assert_eq!(probes.sent_at.len(), REMEMBERED_PROBES, "one grain apart is far enough");
        assert_eq!(probes.sent_after(1_000), Some(Mono(10_000)));
        let first = 1_000 - 255;
        assert_eq!(probes.sent_after(first), Some(Mono(first * 10)));
        assert_eq!(probes.sent_after(first - 1), None, "when that was is not known any more");
        assert_eq!(probes.send(Mono(10_009), timeout), 1_001);
        assert_eq!(
            probes.sent_after(1_001),
            Some(Mono(10_000)),
            "less than a grain: as if it were the one before"
        );
    }
}
