//! Figure 3.1, "Rules for Servers": all servers, followers, candidates. Leaders have a file of their own.

use crate::server::*;
use d_engine::raft::message::{Body, Election};
use d_engine::raft::{Message, RoleName};
use wal::{HardState, NodeId, Term};

#[test]
fn figure_3_1_all_servers_a_later_term_in_any_message_makes_a_follower_of_that_term() {
    let history = log(&[0, 1]);
    for body in [
        append(&history, 2, 0),
        heartbeat(1, 0),
        candidacy(Election::Transfer, 2, 1),
        refused(Election::Vote),
        granted(Election::Vote),
        refused(Election::PreVote),
        accepted(2),
        rejected(2, 1, 0),
        alive(1),
        Body::TimeoutNow,
    ] {
        for role in [RoleName::Follower, RoleName::PreCandidate, RoleName::Candidate, RoleName::Leader] {
            let mut server = start(&[0, 1]).run();
            match role {
                RoleName::Leader => server.lead(),
                RoleName::Candidate => server.stand(),
                RoleName::PreCandidate => server.time_out(),
                _ => {}
            }
            assert_eq!(server.role(), role);
            server.hear(2, 8, body.clone());
            assert_eq!((server.role(), server.term()), (RoleName::Follower, 8), "{role:?} heard {body:?}");
            server.flush();
            assert_eq!(server.disk.hard.term, Term(8));
        }
    }
}

#[test]
fn figure_3_1_followers_respond_to_candidates_and_leaders() {
    let mut server = start(&[0, 1]).run();
    for (body, answer) in [
        (heartbeat(3, 0), alive(3)),
        (append(&log(&[0, 1]), 2, 0), accepted(2)),
        (candidacy(Election::Vote, 2, 1), refused(Election::Vote)),
    ] {
        server.hear(2, 1, body);
        server.flush();
        assert_eq!(server.answer(), (2, said(1, answer)));
    }
}

#[test]
fn figure_3_1_followers_stand_when_an_election_timeout_passes_in_silence() {
    let mut server = start(&[0, 1]).run();
    server.run_for(TIMEOUT * 2);
    assert_eq!(server.role(), RoleName::PreCandidate, "it asks first (9.6)");
    assert!(server.take_to(2).contains(&said(2, candidacy(Election::PreVote, 2, 1))));
}

#[test]
fn figure_3_1_followers_do_not_stand_while_their_leader_is_heard() {
    let mut server = start(&[0, 1]).run();
    for probe in 1..40 {
        let body = if probe % 2 == 0 { heartbeat(probe, 0) } else { append(&log(&[0, 1]), 2, 0) };
        server.hear(2, 1, body);
        server.run_for(TIMEOUT - HEARTBEAT);
    }
    assert_eq!((server.role(), server.term()), (RoleName::Follower, 1));
}

#[test]
fn figure_3_1_followers_wait_again_after_granting_a_vote() {
    let mut server = start(&[0, 1]).term(2).run();
    assert!(server.next_timeout().since(server.now.mono) < TIMEOUT, "it has waited for a while");
    server.hear(2, 2, candidacy(Election::Vote, 2, 1));
    let due = server.next_timeout().since(server.now.mono);
    assert!((TIMEOUT..TIMEOUT * 2).contains(&due), "{due:?}");
}

#[test]
fn figure_3_1_followers_do_not_wait_longer_for_a_leader_of_the_past() {
    let mut server = start(&[0, 1]).term(3).run();
    let before = server.next_timeout();
    server.hear(2, 2, append(&log(&[0, 1, 2]), 2, 0));
    server.hear(2, 2, heartbeat(1, 0));
    assert_eq!(server.next_timeout(), before, "only the current leader counts");
}

#[test]
fn figure_3_1_followers_do_not_wait_longer_for_a_vote_they_refuse() {
    let mut server = start(&[0, 1, 2]).run();
    server.hear(2, 2, candidacy(Election::Vote, 9, 1));
    server.hear(2, 9, candidacy(Election::PreVote, 9, 2));
    let after = server.next_timeout();
    server.wait(HEARTBEAT / 10);
    server.hear(3, 2, candidacy(Election::Vote, 1, 0));
    server.hear(3, 9, candidacy(Election::PreVote, 1, 0));
    assert_eq!(server.next_timeout(), after);
}

#[test]
fn figure_3_1_candidates_raise_the_term_vote_for_themselves_reset_the_timer_and_ask_all_others() {
    let mut server = start(&[0, 1]).founders(voters(5)).run();
    server.stand();
    let due = server.next_timeout().since(server.now.mono);
    assert!((TIMEOUT..TIMEOUT * 2).contains(&due), "{due:?}");
    assert!(server.take().iter().all(|(_, message)| message.body == candidacy(Election::PreVote, 2, 1)));
    server.flush();
    assert_eq!(server.disk.hard, HardState { term: Term(2), vote: Some(NodeId(1)), promise: TIMEOUT });
    let ask: Message = said(2, candidacy(Election::Vote, 2, 1));
    assert_eq!(server.take(), [2, 3, 4, 5].map(|peer| (peer, ask.clone())));
}

#[test]
fn figure_3_1_candidates_lead_with_the_votes_of_a_majority_and_not_before() {
    let mut server = start(&[0, 1]).founders(voters(5)).run();
    server.stand();
    server.flush();
    server.hear(2, 2, granted(Election::Vote));
    server.hear(3, 2, refused(Election::Vote));
    assert_eq!(server.role(), RoleName::Candidate, "two of five");
    server.hear(4, 2, granted(Election::Vote));
    assert_eq!(server.role(), RoleName::Leader);
}

#[test]
fn figure_3_1_candidates_count_a_voter_once() {
    let mut server = start(&[0, 1]).founders(voters(5)).run();
    server.stand();
    server.flush();
    for _ in 0..3 {
        server.hear(2, 2, granted(Election::Vote));
    }
    assert_eq!(server.role(), RoleName::Candidate);
}

#[test]
fn figure_3_1_candidates_do_not_count_votes_of_an_earlier_term_or_of_a_pre_vote() {
    let mut server = start(&[0, 1]).run();
    server.stand();
    server.flush();
    server.hear(2, 1, granted(Election::Vote));
    server.hear(2, 2, granted(Election::PreVote));
    assert_eq!(server.role(), RoleName::Candidate);
}

#[test]
fn figure_3_1_candidates_count_their_own_vote_once_it_is_on_stable_storage() {
    let mut server = start(&[0, 1]).run();
    server.stand();
    server.hear(2, 2, granted(Election::Vote));
    assert_eq!(server.role(), RoleName::Candidate);
    server.flush();
    assert_eq!(server.role(), RoleName::Leader);
}

#[test]
fn figure_3_1_candidates_follow_a_leader_of_their_term() {
    for body in [append(&log(&[0, 1]), 2, 0), heartbeat(1, 0)] {
        let mut server = start(&[0, 1]).run();
        server.stand();
        server.hear(3, 2, body);
        assert_eq!((server.role(), server.raft.leader()), (RoleName::Follower, Some(NodeId(3))));
        server.flush();
        server.hear(2, 2, granted(Election::Vote));
        assert_eq!(server.role(), RoleName::Follower, "the election is over");
    }
}

#[test]
fn section_3_4_candidates_do_not_follow_a_leader_of_an_earlier_term() {
    let mut server = start(&[0, 1]).run();
    server.stand();
    server.hear(3, 1, append(&log(&[0, 1]), 2, 0));
    assert_eq!((server.role(), server.term()), (RoleName::Candidate, 2));
}

#[test]
fn figure_3_1_candidates_start_a_new_election_when_theirs_times_out() {
    let mut server = start(&[0, 1]).run();
    server.stand();
    server.flush();
    server.take();
    server.time_out();
    assert_eq!((server.role(), server.term()), (RoleName::PreCandidate, 2), "it asks first, again (9.6)");
    server.hear(2, 3, granted(Election::PreVote));
    assert_eq!((server.role(), server.term()), (RoleName::Candidate, 3));
}
