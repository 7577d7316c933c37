//! A member that proved who it is and then says what no member can say. Its hearer has to go on, and to believe none of it:
//! the judges of panics and of everything else look on.

use super::world::World;
use crate::node::message::{ForwardOutcome, Forwarded, Index};
use crate::node::{Input, Message};
use crate::raft::message::{
    Alive, Append, AppendOutcome, Appended, Body, Candidacy, Decision, Election, Heartbeat, Standing, Vote,
};
use crate::raft::{self, MAX_PROMISE, MAX_TERM_JUMP};
use std::time::Duration;
use wal::{ChainHash, EntryId, LogIndex, NodeId, Term};

impl World {
    /// A member is told by another what cannot be: whatever it makes of it, it goes on and believes none of it.
    pub(super) fn contradict(&mut self, target: NodeId) -> bool {
        let from = self.other(target);
        let (kind, far) = (self.nemesis.below(10), self.nemesis.below(1 << 40));
        let Some(node) = &self.members[&target].node else { return false };
        if from == target {
            return false;
        }
        let term = node.raft().term();
        let message = contradiction(kind, term, far);
        self.story.tell(self.now, || format!("node {from} contradicts itself to node {target}: {message:?}"));
        self.feed(target, Input::Message { from, message });
        true
    }
}

/// Messages that a member of this version never sends, and that no member may act on. None of them lies about what its
/// sender has: a member that does is outside of what Raft can bear.
fn contradiction(kind: u64, term: Term, far: u64) -> Message {
    let nowhere = LogIndex(u64::MAX - far);
    let unreached = Term(term.0 + MAX_TERM_JUMP + 1 + far);
    let vote = Vote { election: Election::Vote, decision: Decision::Granted, standing: Standing::Whole };
    let entry = EntryId { index: LogIndex(u64::MAX), term, hash: ChainHash(u128::from(far)) };
    let promise = MAX_PROMISE + Duration::from_nanos(1 + far);
    let (term, body) = match kind {
        0 => (unreached, Body::Heartbeat(Heartbeat { probe: far, commit: nowhere, promise })),
        1 => (unreached, Body::Vote(vote)),
        2 => {
            let frames = Vec::new();
            (
                unreached,
                Body::Append(Append { previous: entry, frames, commit: nowhere, probe: far, promise }),
            )
        }
        3 => {
            let (last_term, last_index) = (unreached, nowhere);
            let (election, standing) = (Election::Transfer, Standing::Whole);
            (unreached, Body::Candidacy(Candidacy { election, last_term, last_index, standing }))
        }
        4 => {
            let outcome = AppendOutcome::Accepted { matched: nowhere };
            (term, Body::Appended(Appended { outcome, probe: u64::MAX - far }))
        }
        5 => {
            let outcome = AppendOutcome::Rejected { previous: nowhere, hint: nowhere, hint_term: unreached };
            (term, Body::Appended(Appended { outcome, probe: u64::MAX - far }))
        }
        6 => (term, Body::Alive(Alive { probe: u64::MAX - far })),
        7 => {
            let outcomes = vec![(far, ForwardOutcome::Superseded), (u64::MAX, ForwardOutcome::NotLeader)];
            return Message::Forwarded(Forwarded { incarnation: u64::MAX - far, outcomes });
        }
        // Of a term that its hearer would follow.
        8 => (term.next(), Body::Heartbeat(Heartbeat { probe: far, commit: LogIndex::ZERO, promise })),
        _ => return Message::Index(Index { incarnation: u64::MAX - far, number: far, index: Some(nowhere) }),
    };
    Message::Raft(raft::Message { term, body })
}
