//! Figure 3.2: the properties Raft keeps at all times, as far as one or two servers show them, and figure 3.6.

use crate::server::*;
use d_engine::raft::message::{Body, Decision, Election};
use d_engine::raft::{Halt, RoleName};
use std::time::Duration;
use wal::{LogIndex, NodeId};

/// Passes messages between two servers until both are silent. What is for others is lost.
fn converse(one: &mut Server, other: &mut Server) {
    for _ in 0..200 {
        one.flush();
        other.flush();
        let (from_one, from_other) = (one.take(), other.take());
        if from_one.is_empty() && from_other.is_empty() {
            // A probe that was lost is repeated with a sign of life.
            return;
        }
        let (a, b) = (one.raft.config().id, other.raft.config().id);
        for (_, message) in from_one.into_iter().filter(|(to, _)| *to == b.0) {
            other.raft.handle_message(other.now, a, message);
            other.turn();
        }
        for (_, message) in from_other.into_iter().filter(|(to, _)| *to == a.0) {
            one.raft.handle_message(one.now, b, message);
            one.turn();
        }
    }
    panic!("they do not stop talking");
}

#[test]
fn figure_3_2_election_safety_a_voter_grants_one_candidate_a_term() {
    let mut server = start(&[0, 1]).founders(voters(5)).run();
    let mut granted_to = Vec::new();
    for (from, election) in [
        (2, Election::Vote),
        (3, Election::Vote),
        (4, Election::Transfer),
        (5, Election::Vote),
        (2, Election::Vote),
    ] {
        server.hear(from, 2, candidacy(election, 9, 1));
        server.flush();
        server.restart();
        server.hear(from, 2, candidacy(election, 9, 1));
        server.flush();
        let (to, message) = server.answer();
        if matches!(message.body, Body::Vote(vote) if vote.decision == Decision::Granted) {
            granted_to.push(to);
        }
    }
    assert!(granted_to.iter().all(|&to| to == 2) && !granted_to.is_empty(), "{granted_to:?}");
}

#[test]
fn figure_3_2_election_safety_a_second_leader_of_a_term_is_not_followed() {
    let mut server = start(&[0, 1]).run();
    server.hear(2, 1, heartbeat(1, 0));
    server.take();
    server.hear(3, 1, append(&log(&[0, 1, 1]), 2, 0));
    assert_eq!((server.last(), server.raft.leader(), server.take()), ((2, 1), Some(NodeId(2)), vec![]));
}

#[test]
fn figure_3_2_leader_append_only_a_leader_takes_nobodys_entries_in_its_term() {
    let mut server = start(&[0, 1]).run();
    server.elect();
    let before = server.terms();
    server.hear(2, 2, append(&log(&[0, 1, 1, 1]), 2, 0));
    server.hear(2, 2, append(&log(&[0]), 1, 0));
    assert_eq!((server.role(), server.terms()), (RoleName::Leader, before));
}

#[test]
fn figure_3_2_log_matching_the_same_index_and_term_is_the_same_entry_with_the_same_past() {
    let mut follower = start(&[0, 1, 1, 1, 2]).term(5).id(2).run();
    let mut leader = start(&[0, 1, 1, 3, 3, 4]).term(5).run();
    leader.elect();
    converse(&mut leader, &mut follower);
    for index in 1..=leader.last().0 {
        let at = LogIndex(index);
        let (ours, theirs) = (leader.raft.log().id_at(at), follower.raft.log().id_at(at));
        assert_eq!(ours, theirs, "the hash of an entry covers all before it");
    }
}

#[test]
fn section_3_5_figure_3_6_each_follower_is_brought_to_the_leaders_log() {
    let leaders = [0, 1, 1, 1, 4, 4, 5, 5, 6, 6, 6];
    for (name, followers) in [
        ("a", vec![0, 1, 1, 1, 4, 4, 5, 5, 6, 6]),
        ("b", vec![0, 1, 1, 1, 4]),
        ("c", vec![0, 1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6]),
        ("d", vec![0, 1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7]),
        ("e", vec![0, 1, 1, 1, 4, 4, 4, 4]),
        ("f", vec![0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3]),
    ] {
        let mut leader = start(&leaders).term(7).run();
        let mut follower = start(&followers).term(7).id(2).run();
        leader.elect();
        converse(&mut leader, &mut follower);
        let expected: Vec<_> = leaders.iter().copied().chain([8]).collect();
        assert_eq!(leader.terms(), expected, "({name}) a leader only appends");
        assert_eq!(follower.terms(), expected, "({name})");
        assert!(leader.raft.counters().rejections <= 3, "({name}) a term at a time");
        assert_eq!(leader.commit(), 12, "({name}) two of three have everything");
        leader.run_for(HEARTBEAT);
        converse(&mut leader, &mut follower);
        assert_eq!(follower.commit(), 12, "({name})");
    }
}

#[test]
fn figure_3_2_leader_completeness_who_lacks_a_committed_entry_does_not_lead() {
    // Servers 1 and 2 have decided entry 3; server 3 lacks it and stands in a far later term.
    for holder in [1, 2] {
        let mut server = start(&[0, 1, 2]).id(holder).run();
        server.hear(3, 30, candidacy(Election::Vote, 2, 1));
        server.flush();
        assert_eq!(server.answer(), (3, said(30, refused(Election::Vote))));
    }
    let mut third = start(&[0, 1]).id(3).term(29).run();
    third.stand();
    third.flush();
    third.hear(1, 30, refused(Election::Vote));
    third.hear(2, 30, refused(Election::Vote));
    assert_eq!(third.role(), RoleName::Follower);
}

#[test]
fn figure_3_2_state_machine_safety_what_is_decided_is_never_replaced() {
    let mut server = start(&[0, 1]).run();
    server.hear(2, 1, append(&log(&[0, 1, 1]), 2, 3));
    assert_eq!(server.commit(), 3);
    server.hear(3, 2, append(&log(&[0, 1, 2]), 2, 0));
    assert!(matches!(server.halted, Some(Halt::Diverged { peer: NodeId(3), .. })), "a stopped node is safe");
    assert_eq!((server.terms(), server.sent), (vec![0, 1, 1], vec![]));
}

#[test]
fn section_3_9_a_stopped_server_says_nothing_more() {
    let mut server = start(&[0, 1]).run();
    server.hear(2, 2, candidacy(Election::Vote, 2, 1));
    server.raft.handle_log_failure("the disk is gone".to_owned());
    server.turn();
    assert!(matches!(server.halted, Some(Halt::Log(_))));
    server.flush();
    server.wait(Duration::from_secs(60));
    server.fire();
    server.hear(3, 3, heartbeat(1, 0));
    server.hear(3, 9, candidacy(Election::PreVote, 9, 9));
    assert_eq!((server.take(), server.raft.poll_timeout()), (vec![], None));
    assert_eq!((server.term(), server.raft.counters().quarantined_terms), (2, 0), "nor does it listen");
}

#[test]
fn section_3_9_a_server_that_stops_in_the_middle_of_a_turn_writes_nothing_more() {
    let mut server = start(&[0, 1]).run();
    let request = said(2, candidacy(Election::Vote, 2, 1));
    server.raft.handle_message(server.now, NodeId(2), request);
    server.raft.handle_log_failure("the disk is gone".to_owned());
    server.turn();
    assert!(matches!(server.halted, Some(Halt::Log(_))));
    assert!(server.disk.waiting.is_empty(), "not the vote either");
}
