//! Handing leadership over (thesis 3.10): bring the successor up to date, then tell it to stand at once.

use super::message::{Body, Election};
use super::timer::Timer;
use super::{Mono, Now, Raft, Role};
use thiserror::Error;
use wal::NodeId;

/// A transfer under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Transfer {
    to: NodeId,
    asked: bool,
}

/// Why leadership is not handed over. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TransferRefused {
    /// Only a leader can.
    #[error("this node does not lead; ask the leader")]
    NotLeader,
    /// The successor has no vote, or is not a member.
    #[error("node {0} is not a voter of this cluster; choose one that is")]
    NotVoter(NodeId),
    /// One at a time.
    #[error("leadership is already being handed over; wait for that to end")]
    UnderWay,
}

impl Raft {
    /// Starts handing leadership to `to`. No entries are taken meanwhile. It has succeeded when another node leads; it
    /// is given up after an election timeout.
    ///
    /// # Errors
    /// [`TransferRefused`]; nothing has changed then.
    pub fn transfer_leadership(&mut self, now: Now, to: NodeId) -> Result<(), TransferRefused> {
        if !self.membership().is_voter(to) {
            return Err(TransferRefused::NotVoter(to));
        }
        let Role::Leader(leading) = &mut self.role else { return Err(TransferRefused::NotLeader) };
        if to == self.config.id {
            return Ok(());
        }
        if leading.transfer.is_some() {
            return Err(TransferRefused::UnderWay);
        }
        leading.transfer = Some(Transfer { to, asked: false });
        self.timers.set(Timer::Transfer, now.mono.after(self.config.election_timeout));
        self.continue_transfer(to);
        Ok(())
    }

    /// Who can take over soonest: of the voters that this leader has heard lately, the one that has most of its log.
    #[must_use]
    pub fn successor(&self, now: Now) -> Option<NodeId> {
        let Role::Leader(leading) = &self.role else { return None };
        let heard = leading.progress.iter().filter(|(peer, progress)| {
            let lately = progress.recognised_at.after(self.config.election_timeout) > now.mono;
            lately && progress.recognised_at != Mono(0) && self.membership().is_voter(**peer)
        });
        heard.max_by_key(|(_, progress)| (progress.matched, progress.recognised_at)).map(|(&peer, _)| peer)
    }

    /// Whether a transfer is under way.
    #[must_use]
    pub fn is_transferring(&self) -> bool {
        matches!(&self.role, Role::Leader(leading) if leading.transfer.is_some())
    }

    /// Tells the successor to stand once it has everything.
    pub(super) fn continue_transfer(&mut self, peer: NodeId) {
        let last = self.log.last().index;
        let Role::Leader(leading) = &mut self.role else { return };
        let Some(transfer) = &mut leading.transfer else { return };
        if transfer.to != peer || transfer.asked {
            return;
        }
        if leading.progress.get(&peer).is_some_and(|progress| progress.matched == last) {
            assert_ne!(peer, self.config.id, "a leader does not succeed itself");
            transfer.asked = true;
            // Before the word leaves: its receiver may win an election that the lease would have kept off.
            leading.lease_revoked = !wal::mutant!("transfer_keeps_lease");
            self.send(peer, Body::TimeoutNow);
        }
    }

    pub(super) fn abandon_transfer(&mut self) {
        if let Role::Leader(leading) = &mut self.role {
            leading.transfer = None;
            leading.lease_revoked &= !wal::mutant!("lease_back_after_transfer");
        }
    }

    pub(super) fn handle_timeout_now(&mut self, now: Now, from: NodeId) {
        let may = matches!(self.role, Role::Follower)
            && self.leader == Some(from)
            && self.membership().is_voter(self.config.id)
            && (!self.is_damaged() || wal::mutant!("suspect_stands"));
        if may {
            self.campaign(now, Election::Transfer);
        }
    }
}
