//! The core without its clock, for the search that visits every state (`sim::exhaustive`; feature `sim` only).
//!
//! An exhaustive search cannot try every instant, and need not: what the protocol promises holds whenever its timers
//! fire. So the search fires them by name ([`Raft::fire`]), and between steps all that only says *when* is forgotten
//! ([`Raft::forget_time`]): deadlines, send times, numbers of probes, promises to a leader (which only ever forbid
//! votes), counters, the state of the random numbers. What is left is what [`Raft::fingerprint`] takes in: two cores with
//! equal fingerprints answer every further input alike, up to those.

use super::doubt::Doubt;
use super::log::Log;
use super::progress::{Mode, Progress};
use super::read::Probes;
use super::{Counters, Leading, Mono, Now, Raft, Random, Role, Timer, Votes, message};
use std::hash::Hasher;
use wal::{EntryId, HardState, LogIndex, NodeId};

/// Another name for each node: fingerprints under every renaming tell states that differ only by who is who.
pub type Rename<'a> = &'a dyn Fn(NodeId) -> NodeId;

impl Raft {
    /// Fires one timer, whether or not it is due.
    pub fn fire(&mut self, now: Now, timer: Timer) {
        self.timers.stand_still();
        self.timers.set(timer, now.mono);
        self.handle_timeout(now);
    }

    /// Forgets everything that only says when, or how often, something happened. Between turns only.
    ///
    /// # Panics
    /// If outputs wait to be polled, or input to be finished.
    pub fn forget_time(&mut self) {
        assert!(
            self.outputs.is_empty() && self.draft.frames.is_empty() && self.draft.then.is_empty(),
            "the turn is over"
        );
        self.timers.stand_still();
        self.random = Random::from_seed(self.config.seed);
        self.counters = Counters::default();
        self.promised_until = None;
        self.gone = None;
        if let Role::Leader(leading) = &mut self.role {
            leading.since = Mono(0);
            leading.clock.stand_still();
            leading.probes = Probes::default();
            leading.progress.values_mut().for_each(Progress::forget_time);
        }
    }

    /// Takes in everything that decides what this core will do, after [`forget_time`](Self::forget_time).
    ///
    /// Every field is named: whoever adds one decides here whether it tells states apart. Names of writes are left to
    /// the caller, who knows which are on the way.
    pub fn fingerprint(&self, rename: Rename<'_>, into: &mut dyn Hasher) {
        let Self {
            config,
            hard,
            submitted,
            saved,
            role,
            leader,
            log,
            memberships: _, // They are in the log.
            peers: _,
            agreed,
            promised_until,
            gone,
            doubt,
            whole_at,
            became_whole,
            suspects,
            timers: _, // Which are set follows from the role.
            random: _,
            draft: _,
            next_write: _,
            proving_from: _,
            outputs: _,
            halted,
            counters: _,
        } = self;
        assert!(promised_until.is_none() && gone.is_none(), "time is forgotten");
        let whole = *doubt == Doubt::None && whole_at.is_none() && !became_whole;
        assert!(suspects.is_empty() && whole, "every memory is whole");
        into.write_u64(rename(config.id).0);
        for state in [hard, submitted, saved] {
            hash_hard_state(state, rename, into);
        }
        into.write_u64(leader.map_or(0, |id| rename(id).0));
        hash_log(log, into);
        into.write_u64(agreed.0);
        into.write_u8(u8::from(*halted));
        match role {
            Role::Follower => into.write_u8(0),
            Role::PreCandidate(votes) => hash_votes(1, votes, rename, into),
            Role::Candidate(votes) => hash_votes(2, votes, rename, into),
            Role::Leader(leading) => hash_leading(leading, rename, into),
        }
    }

    /// How many of the writes with these names still prove something about the log.
    pub fn proving(&self, writes: impl Iterator<Item = wal::WriteId>) -> usize {
        writes.filter(|&id| id >= self.proving_from).count()
    }

    /// The first entry of a leader's term.
    #[must_use]
    pub fn term_start(&self) -> Option<LogIndex> {
        self.lease_index()
    }

    /// Term, vote and promise as they are, and as the disk has them.
    #[must_use]
    pub fn hard_states(&self) -> (HardState, HardState) {
        (self.hard, self.saved)
    }
}

impl super::Write {
    /// Takes in what the write holds and what may leave once it is flushed; not its name.
    pub fn fingerprint(&self, rename: Rename<'_>, into: &mut dyn Hasher) {
        let Self { id: _, hard_state, frames, commit, notes, then } = self;
        assert!(!notes.whole, "every memory is whole");
        into.write_u8(u8::from(hard_state.is_some()));
        hash_hard_state(&hard_state.unwrap_or_default(), rename, into);
        into.write_usize(frames.len());
        for frame in frames {
            hash_entry(frame.id(), into);
        }
        into.write_u64(commit.0);
        for (to, message) in then {
            into.write_u64(rename(*to).0);
            into.write_u64(message.term.0);
            // No message holds a node's identity: its text is a faithful and canonical form.
            into.write(format!("{:?}", message.body).as_bytes());
        }
    }
}

/// Takes in term and vote.
pub fn hash_hard_state(state: &HardState, rename: Rename<'_>, into: &mut dyn Hasher) {
    let HardState { term, vote, promise } = *state;
    assert!(promise.is_zero(), "promises are not kept in the search");
    into.write_u64(term.0);
    into.write_u64(vote.map_or(0, |id| rename(id).0));
}

/// Takes in an entry, and with its chained hash all before it.
pub fn hash_entry(id: EntryId, into: &mut dyn Hasher) {
    into.write_u64(id.index.0);
    into.write_u64(id.term.0);
    into.write_u128(id.hash.0);
}

/// The chained hash of the last entry stands for all of them.
fn hash_log(log: &Log, into: &mut dyn Hasher) {
    hash_entry(log.last(), into);
    into.write_u64(log.first_cached().0);
    into.write_u64(log.durable().0);
    into.write_u64(log.commit().0);
}

fn hash_votes(role: u8, votes: &Votes, rename: Rename<'_>, into: &mut dyn Hasher) {
    into.write_u8(role);
    let mut renamed: Vec<_> = votes
        .iter()
        .map(|(&id, &word)| (rename(id).0, u8::from(word == message::Decision::Granted)))
        .collect();
    renamed.sort_unstable();
    for (id, word) in renamed {
        into.write_u64(id);
        into.write_u8(word);
    }
}

fn hash_leading(leading: &Leading, rename: Rename<'_>, into: &mut dyn Hasher) {
    let Leading { progress, term_start, since: _, clock: _, probes: _, transfer, lease_revoked } = leading;
    assert!(transfer.is_none() && !lease_revoked, "leadership is not handed over in the search");
    into.write_u8(3);
    into.write_u64(term_start.0);
    let mut renamed: Vec<_> = progress.iter().map(|(&id, progress)| (rename(id).0, progress)).collect();
    renamed.sort_unstable_by_key(|&(id, _)| id);
    for (id, progress) in renamed {
        into.write_u64(id);
        into.write_u64(progress.matched.0);
        into.write_u64(progress.next.0);
        into.write_u64(match progress.mode {
            Mode::Probe(None) => 0,
            Mode::Stream => 1,
            Mode::Fetch => 2,
            Mode::Probe(Some((_, previous))) => 3 + previous.0,
        });
        into.write_u8(u8::from(progress.oldest_in_flight().is_some()));
    }
}
