//! A leader that is silent, and one that is known to be gone.
//!
//! Silence alone says little: a busy machine, a lost datagram. So a follower waits an election timeout before it stands, at
//! random up to two. But most leaders that fall silent have died as processes, on machines that go on, and that can be known:
//! their port is closed, and the kernel answers for it. A follower that misses its leader has the driver knock there
//! ([`Output::Knock`]), and who is said to be gone is not waited for.
//!
//! **It is a hint, and only a hint.** It moves this node's own next pre-vote, and never before what was promised to the leader
//! is over ([`Config::promise`](super::Config::promise), or what the leader stated if that is longer); nobody votes earlier
//! because of it, and nothing else changes. So a false one is harmless: the next word of the leader takes it back, and if
//! there is none for a whole promise, others still decide by what they heard themselves. A lease relies on the promise alone.
//!
//! Several followers learn of it at the same time. They stand one after the other, by their place among the voters, since
//! ballots that cross elect nobody.

use super::time::{Mono, Now};
use super::timer::Timer;
use super::{Output, Raft, Role};
use std::time::Duration;
use wal::NodeId;

/// What a follower was told of its leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Gone {
    /// When.
    since: Mono,
    /// Voters that stand before this one.
    before: u32,
}

impl Raft {
    /// A peer's process is said to have ended.
    pub fn handle_gone(&mut self, now: Now, peer: NodeId) {
        if self.halted
            || self.leader != Some(peer)
            || !matches!(self.role, Role::Follower)
            || self.gone.is_some()
        {
            return;
        }
        assert_ne!(peer, self.config.id, "a follower does not follow itself");
        let before = self.summary();
        if wal::mutant!("gone_breaks_promise") {
            self.promised_until = None;
        }
        let id = self.config.id;
        let earlier = self.membership().members().into_iter().filter(|&member| member < id && member != peer);
        let voters = earlier.filter(|&member| self.membership().is_voter(member)).count();
        self.gone = Some(Gone { since: now.mono, before: u32::try_from(voters).unwrap_or(u32::MAX) });
        let free = self.promised_until.map_or(now.mono, |until| until.max(now.mono));
        self.stand_soon(free);
        self.check_step(&before);
    }

    /// Whether this node's leader is said to be gone, and nothing was heard of it since.
    #[must_use]
    pub fn is_leader_gone(&self) -> bool {
        self.gone.is_some()
    }

    /// Sets the election timer for a node whose leader is gone, if it was said so lately. A group that cannot elect anybody
    /// goes back to asking at the usual times.
    pub(super) fn stand_again_soon(&mut self, now: Now) {
        let Some(gone) = self.gone else { return };
        if now.mono.since(gone.since) < self.config.election_timeout {
            self.stand_soon(now.mono.after(self.config.heartbeat));
        } else {
            self.gone = None;
        }
    }

    /// Puts the next pre-vote to shortly after `free`, unless it comes earlier anyhow.
    fn stand_soon(&mut self, free: Mono) {
        let Some(Gone { before, .. }) = self.gone else { return };
        let step = self.config.heartbeat / 2;
        let wait = step.saturating_mul(before) + self.random.below(step / 4);
        let at = free.after(wait.min(self.config.election_timeout));
        if self.timers.deadline(Timer::Election).is_none_or(|usual| at < usual) {
            self.timers.set(Timer::Election, at);
        }
    }

    /// The leader was heard: it is there.
    pub(super) fn note_leader_is_there(&mut self, now: Now) {
        self.gone = None;
        // Whoever asks for a longer promise than this node would is heard less often.
        let rarer = self.hard.promise.saturating_sub(self.config.promise) / 2;
        let silence: Duration = self.config.heartbeat * 3 / 2 + rarer;
        self.timers.set(Timer::Silence, now.mono.after(silence));
    }

    /// The leader is silent. Asked again and again until somebody leads or this node stands.
    pub(super) fn knock(&mut self, now: Now) {
        if let (Role::Follower, Some(leader)) = (&self.role, self.leader) {
            assert_ne!(leader, self.config.id, "a follower does not follow itself");
            self.outputs.push_back(Output::Knock(leader));
            self.timers.set(Timer::Silence, now.mono.after(self.config.heartbeat / 2));
        }
    }
}
