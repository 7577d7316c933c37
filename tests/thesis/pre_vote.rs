//! Section 9.6: a candidate asks first whether it could win.

use crate::server::*;
use d_engine::raft::RoleName;
use d_engine::raft::message::Election;

#[test]
fn section_9_6_a_server_that_cannot_reach_a_majority_does_not_raise_its_term() {
    let mut server = start(&[0, 1]).run();
    server.run_for(TIMEOUT * 100);
    assert_eq!((server.role(), server.term()), (RoleName::PreCandidate, 1));
    assert_eq!((server.disk.waiting.len(), server.raft.counters().elections), (0, 0), "and writes nothing");
}

#[test]
fn section_9_6_the_term_is_raised_with_the_consent_of_a_majority() {
    let mut server = start(&[0, 1]).founders(voters(5)).run();
    server.time_out();
    server.hear(2, 2, granted(Election::PreVote));
    server.hear(2, 2, granted(Election::PreVote));
    assert_eq!((server.role(), server.term()), (RoleName::PreCandidate, 1));
    server.hear(3, 2, granted(Election::PreVote));
    assert_eq!((server.role(), server.term()), (RoleName::Candidate, 2));
}

#[test]
fn section_9_6_to_be_asked_changes_nothing() {
    let mut server = start(&[0, 1]).run();
    let before = server.next_timeout();
    for from in [2, 3, 2] {
        server.hear(from, 7, candidacy(Election::PreVote, 2, 1));
        assert_eq!(
            server.answer(),
            (from, said(7, granted(Election::PreVote))),
            "to all who ask: it is no vote"
        );
    }
    assert_eq!((server.term(), server.disk.waiting.len(), server.next_timeout()), (1, 0, before));
}

#[test]
fn section_9_6_consent_needs_an_up_to_date_log() {
    let mut server = start(&[0, 1, 2]).run();
    for (last, answer) in [
        ((2, 1), refused(Election::PreVote)),
        ((9, 1), refused(Election::PreVote)),
        ((2, 2), refused(Election::PreVote)),
    ] {
        server.hear(2, 7, candidacy(Election::PreVote, last.0, last.1));
        assert_eq!(server.answer(), (2, said(2, answer)), "{last:?}");
    }
}

#[test]
fn section_9_6_no_consent_while_a_leader_is_heard() {
    let mut server = start(&[0, 1]).run();
    server.hear(2, 1, heartbeat(1, 0));
    server.take();
    server.wait(TIMEOUT - HEARTBEAT);
    server.hear(3, 2, candidacy(Election::PreVote, 2, 1));
    assert_eq!(server.answer(), (3, said(1, refused(Election::PreVote))));
    server.wait(HEARTBEAT);
    server.hear(3, 2, candidacy(Election::PreVote, 2, 1));
    assert_eq!(server.answer(), (3, said(2, granted(Election::PreVote))));
}

#[test]
fn section_9_6_no_consent_to_a_term_that_is_not_new() {
    let mut server = start(&[0, 1]).term(4).run();
    server.hear(3, 4, candidacy(Election::PreVote, 9, 4));
    assert_eq!(server.answer(), (3, said(4, refused(Election::PreVote))));
}

#[test]
fn section_9_6_a_server_that_comes_back_does_not_disturb_the_leader() {
    let mut server = start(&[0, 1]).run();
    server.lead();
    server.hear(3, 3, candidacy(Election::PreVote, 9, 2));
    assert_eq!(server.answer(), (3, said(2, refused(Election::PreVote))));
    assert_eq!((server.role(), server.term()), (RoleName::Leader, 2));
}

#[test]
fn section_9_6_a_refused_pre_candidate_follows_again_and_finds_its_leader() {
    let mut server = start(&[0, 1]).run();
    server.time_out();
    server.hear(2, 1, refused(Election::PreVote));
    server.hear(3, 1, refused(Election::PreVote));
    assert_eq!(server.role(), RoleName::Follower);
    server.time_out();
    assert_eq!(server.role(), RoleName::PreCandidate);
    server.hear(3, 1, heartbeat(1, 0));
    assert_eq!((server.role(), server.term()), (RoleName::Follower, 1));
}

#[test]
fn section_9_6_a_leader_of_the_past_is_told_the_term_of_who_pre_votes_above_it() {
    // Pitfall: pre-vote and the leader's own check lock each other out; the one at the higher term hears nobody.
    let mut server = start(&[0, 1]).term(6).run();
    server.time_out();
    server.take();
    server.hear(2, 4, heartbeat(1, 0));
    assert_eq!(server.answer(), (2, said(6, refused(Election::Vote))));
}
