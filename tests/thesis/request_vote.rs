//! Figure 3.1, "RequestVote RPC", with sections 3.3, 3.4 and 3.6.1.

use crate::server::*;
use d_engine::raft::message::{Body, Decision, Election, Vote};
use wal::{NodeId, Term};

fn asked(server: &mut Server, from: u64, term: u64, last: (u64, u64)) -> Decision {
    server.hear(from, term, candidacy(Election::Vote, last.0, last.1));
    server.flush();
    let (to, message) = server.answer();
    assert_eq!((to, message.term), (from, Term(server.term())), "in the voter's term, to the candidate");
    match message.body {
        Body::Vote(Vote { election: Election::Vote, decision, .. }) => decision,
        other => panic!("not a vote: {other:?}"),
    }
}

#[test]
fn figure_3_1_request_vote_rule_1_an_older_term_is_refused_with_the_current_one() {
    let mut server = start(&[0, 1]).term(3).run();
    assert_eq!(asked(&mut server, 2, 2, (9, 2)), Decision::Refused);
    assert_eq!((server.term(), server.disk.hard.vote), (3, None));
}

#[test]
fn figure_3_1_request_vote_rule_2_voted_for_is_null_and_the_log_is_as_up_to_date() {
    let mut server = start(&[0, 1]).run();
    assert_eq!(asked(&mut server, 2, 2, (2, 1)), Decision::Granted);
}

#[test]
fn figure_3_1_request_vote_rule_2_voted_for_is_the_candidate() {
    let mut server = start(&[0, 1]).run();
    for _ in 0..2 {
        assert_eq!(asked(&mut server, 2, 2, (2, 1)), Decision::Granted, "its answer may have been lost");
    }
}

#[test]
fn figure_3_1_request_vote_rule_2_voted_for_is_another() {
    let mut server = start(&[0, 1]).run();
    assert_eq!(asked(&mut server, 2, 2, (2, 1)), Decision::Granted);
    assert_eq!(asked(&mut server, 3, 2, (9, 1)), Decision::Refused);
    assert_eq!(server.disk.hard.vote, Some(NodeId(2)));
}

#[test]
fn section_3_4_first_come_first_served_and_anew_in_each_term() {
    let mut server = start(&[0, 1]).run();
    assert_eq!(asked(&mut server, 3, 2, (2, 1)), Decision::Granted);
    assert_eq!(asked(&mut server, 2, 2, (2, 1)), Decision::Refused);
    assert_eq!(asked(&mut server, 2, 3, (2, 1)), Decision::Granted);
}

#[test]
fn section_3_6_1_the_later_last_term_is_more_up_to_date_then_the_longer_log() {
    for (candidate, decision) in [
        ((4, 2), Decision::Granted),
        ((5, 2), Decision::Granted),
        ((3, 2), Decision::Refused),
        ((9, 1), Decision::Refused),
        ((2, 3), Decision::Granted),
    ] {
        let mut server = start(&[0, 1, 1, 2]).term(3).run();
        assert_eq!(
            asked(&mut server, 2, 4, candidate),
            decision,
            "the candidate's log ends with {candidate:?}"
        );
    }
}

#[test]
fn section_3_3_a_refusal_takes_over_the_later_term_all_the_same() {
    let mut server = start(&[0, 1]).run();
    assert_eq!(asked(&mut server, 2, 4, (1, 0)), Decision::Refused);
    assert_eq!((server.term(), server.disk.hard.term, server.disk.hard.vote), (4, Term(4), None));
}

#[test]
fn section_3_4_who_follows_a_leader_of_the_term_has_no_vote_left_in_it() {
    let mut server = start(&[0, 1]).term(2).run();
    server.hear(2, 2, heartbeat(1, 0));
    server.take();
    server.wait(TIMEOUT * 4);
    assert_eq!(asked(&mut server, 3, 2, (9, 2)), Decision::Refused, "the election of term 2 is over");
}

#[test]
fn section_3_6_1_a_candidate_asks_with_the_end_of_its_own_log() {
    let mut server = start(&[0, 1, 1, 2]).term(6).run();
    server.stand();
    server.take();
    server.flush();
    let expected = said(7, candidacy(Election::Vote, 4, 2));
    assert_eq!(server.take(), [(2, expected.clone()), (3, expected)]);
}
