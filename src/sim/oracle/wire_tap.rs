//! O10, the wire-tap (thesis 3.8, 10.2.1): what a message promises is on its sender's disk when it leaves.
//!
//! | message | on disk |
//! |---|---|
//! | any, in term t | a term of t or later; a pre-vote's question and its yes speak of a term nobody is in |
//! | a vote for n in t | the vote for n, or a later term |
//! | standing for election in t | the vote for itself, or a later term |
//! | an answer to a leader in t | what that leader was promised, or a later term |
//! | an acknowledged append (`DiskFirst`) | the entry that the sender's log has there, or a later term |
//!
//! A later term on the disk excuses the rest: the promise was durable, and has been overruled since by something that is
//! durable, too. An acknowledgement whose sender has since followed a leader of a later term in memory is as one that was
//! long on its way: what it speaks of is on the disk, and cannot be decided any more, since whoever elected that leader
//! lacked it. `MemFirst` acknowledges from memory: there the entry is in the log, or the sender has followed a later leader in
//! the same turn.
//!
//! `TimeoutNow` promises that its sender's lease is over. It cannot see what a message leaves unsaid.

use super::state_machine_safety::position;
use super::{Outcome, violated};
use crate::raft::Durability;
use crate::raft::message::{AppendOutcome, Appended, Body, Candidacy, Decision, Election, Message, Vote};
use wal::{EntryId, HardState, NodeId};

pub(super) const NAME: &str = "wire_tap";

/// A message as it leaves.
#[derive(Clone, Copy, Debug)]
pub(super) struct Leaving<'a> {
    pub(super) from: NodeId,
    pub(super) to: NodeId,
    pub(super) message: &'a Message,
    /// Flushed term and vote.
    pub(super) disk: HardState,
    /// Flushed entries.
    pub(super) flushed: &'a [EntryId],
    /// The sender's log.
    pub(super) log: &'a [EntryId],
    pub(super) leased: bool,
    /// What the sender has reached in memory.
    pub(super) reached: HardState,
    pub(super) durability: Durability,
}

pub(super) fn tap(leaving: Leaving<'_>) -> Outcome {
    let Leaving { from, to, message, disk, .. } = leaving;
    let term = message.term;
    let hypothetical = matches!(
        message.body,
        Body::Candidacy(Candidacy { election: Election::PreVote, .. })
            | Body::Vote(Vote { election: Election::PreVote, decision: Decision::Granted, .. })
    );
    if hypothetical {
        return Ok(());
    }
    violated!(
        disk.term < term,
        NAME,
        "node {from} speaks to {to} in term {term}, its disk is at {}: {:?}",
        disk.term,
        message.body
    );
    if disk.term > term {
        return Ok(());
    }
    let reached = leaving.reached;
    violated!(
        matches!(message.body, Body::Alive(_) | Body::Appended(_))
            && reached.term == term
            && disk.promise < reached.promise,
        NAME,
        "node {from} keeps to {to} for {:?}, its disk says {:?}",
        reached.promise,
        disk.promise
    );
    match message.body {
        Body::Vote(Vote { decision: Decision::Granted, .. }) => {
            violated!(
                disk.vote != Some(to),
                NAME,
                "node {from} votes for {to} in {term}, its disk says {:?}",
                disk.vote
            );
        }
        Body::Candidacy(_) => {
            violated!(
                disk.vote != Some(from),
                NAME,
                "node {from} stands in {term}, its disk says {:?}",
                disk.vote
            );
        }
        Body::Appended(Appended { outcome: AppendOutcome::Accepted { matched }, .. }) => {
            let Some(at) = position(matched) else { return Ok(()) };
            let overruled = leaving.reached.term > term;
            let (promised, held) = match leaving.durability {
                Durability::MemFirst if overruled => return Ok(()),
                Durability::DiskFirst if overruled => {
                    let held = leaving.flushed.get(at);
                    (held.filter(|held| held.term <= term), held)
                }
                Durability::DiskFirst => (leaving.log.get(at), leaving.flushed.get(at)),
                Durability::MemFirst => (leaving.log.get(at), leaving.log.get(at)),
            };
            violated!(
                promised.is_none() || promised != held,
                NAME,
                "node {from} acknowledges {matched} in term {term}: its log has {promised:?}, its disk {held:?}"
            );
        }
        Body::TimeoutNow => {
            violated!(leaving.leased, NAME, "node {from} hands over to {to} and keeps its lease");
        }
        Body::Vote(_) | Body::Append(_) | Body::Appended(_) | Body::Heartbeat(_) | Body::Alive(_) => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::story::log;
    use super::*;
    use crate::raft::message::Standing;
    use wal::{LogIndex, Term};

    const VOTED: HardState =
        HardState { term: Term(4), vote: Some(NodeId(2)), promise: std::time::Duration::ZERO };

    fn tapped(message: &Message, disk: HardState, flushed: &[EntryId], durability: Durability) -> Outcome {
        let log = log(&[1, 1, 4]);
        let (from, to) = (NodeId(1), NodeId(2));
        tap(Leaving {
            from,
            to,
            message,
            disk,
            flushed,
            log: &log,
            leased: false,
            reached: VOTED,
            durability,
        })
    }

    fn vote(term: u64, election: Election, decision: Decision) -> Message {
        let body = Body::Vote(Vote { election, decision, standing: Standing::Whole });
        Message { term: Term(term), body }
    }

    fn accepted(matched: u64) -> Message {
        let outcome = AppendOutcome::Accepted { matched: LogIndex(matched) };
        Message { term: Term(4), body: Body::Appended(Appended { outcome, probe: 0 }) }
    }

    #[test]
    fn a_vote_needs_its_slot_and_a_pre_vote_nothing() {
        let say = |message: Message, disk| tapped(&message, disk, &[], Durability::DiskFirst);
        say(vote(4, Election::Vote, Decision::Granted), VOTED).expect("it is there");
        say(vote(9, Election::PreVote, Decision::Granted), VOTED).expect("no promise");
        say(vote(3, Election::Vote, Decision::Granted), VOTED).expect("overruled");
        let other = HardState { vote: Some(NodeId(3)), ..VOTED };
        assert!(say(vote(4, Election::Vote, Decision::Granted), other).is_err(), "voted for another");
        assert!(say(vote(5, Election::Vote, Decision::Refused), VOTED).is_err(), "in a term not on disk");
        assert!(say(vote(5, Election::PreVote, Decision::Refused), VOTED).is_err(), "in a term not on disk");
    }

    #[test]
    fn a_leader_hears_of_a_promise_that_is_on_disk() {
        let body = Body::Alive(crate::raft::message::Alive { probe: 1 });
        let message = &Message { term: Term(4), body };
        let reached = HardState { promise: std::time::Duration::from_millis(300), ..VOTED };
        let (from, to, durability) = (NodeId(1), NodeId(2), Durability::DiskFirst);
        let leaving = Leaving {
            from,
            to,
            message,
            disk: VOTED,
            flushed: &[],
            log: &[],
            leased: false,
            reached,
            durability,
        };
        assert!(tap(leaving).is_err(), "a restart would not know of it");
        tap(Leaving { disk: reached, ..leaving }).expect("a restart outwaits it");
        let later = HardState { term: Term(5), vote: None, ..reached };
        tap(Leaving { reached: later, ..leaving }).expect("what another leader was promised");
    }

    #[test]
    fn an_acknowledged_entry_is_the_one_on_disk() {
        let whole = log(&[1, 1, 4]);
        let say =
            |matched, flushed: &[EntryId], durability| tapped(&accepted(matched), VOTED, flushed, durability);
        say(3, &whole, Durability::DiskFirst).expect("flushed");
        say(3, &[], Durability::MemFirst).expect("in memory");
        assert!(say(3, &whole[..2], Durability::DiskFirst).is_err(), "not flushed");
        assert!(say(3, &log(&[1, 1, 2]), Durability::DiskFirst).is_err(), "what it replaced is flushed");
        assert!(say(4, &whole, Durability::MemFirst).is_err(), "not even in memory");
    }

    #[test]
    fn a_candidate_has_voted_for_itself_and_a_lease_ends_with_the_word() {
        let standing = Standing::Whole;
        let candidacy =
            Candidacy { election: Election::Vote, last_term: Term(4), last_index: LogIndex(3), standing };
        let stand = Message { term: Term(4), body: Body::Candidacy(candidacy) };
        assert!(tapped(&stand, VOTED, &[], Durability::DiskFirst).is_err());
        let own = HardState { vote: Some(NodeId(1)), ..VOTED };
        tapped(&stand, own, &[], Durability::DiskFirst).expect("its own vote");
        let message = &Message { term: Term(4), body: Body::TimeoutNow };
        let leaving = Leaving {
            from: NodeId(1),
            to: NodeId(2),
            message,
            disk: own,
            flushed: &[],
            log: &[],
            leased: true,
            reached: VOTED,
            durability: Durability::MemFirst,
        };
        assert!(tap(leaving).is_err());
        tap(Leaving { leased: false, ..leaving }).expect("the lease is over");
    }

    #[test]
    fn an_acknowledgement_may_outlive_its_entry_in_memory_but_not_on_disk() {
        let say = |flushed: &[EntryId], durability| {
            let later = log(&[1, 1, 5]);
            let (from, to, message) = (NodeId(1), NodeId(2), accepted(3));
            let (leased, reached) = (false, HardState { term: Term(5), ..VOTED });
            let log = &later[..];
            tap(Leaving {
                from,
                to,
                message: &message,
                disk: VOTED,
                flushed,
                log,
                leased,
                reached,
                durability,
            })
        };
        say(&log(&[1, 1, 4]), Durability::DiskFirst).expect("the disk has what was promised in term 4");
        assert!(say(&log(&[1, 1]), Durability::DiskFirst).is_err(), "nothing is there");
        assert!(say(&log(&[1, 1, 5]), Durability::DiskFirst).is_err(), "another is there");
        say(&[], Durability::MemFirst).expect("it was true in memory when it was said");
    }
}
