//! Section 6.2: a leader that cannot reach a majority must not keep its clients waiting. (6.3 is the store's: its tests
//! are in `src/kv`.)

use crate::server::*;
use d_engine::raft::message::Body;
use d_engine::raft::{ProposeRefused, RoleName};

/// Signs of life sent to one peer, by number.
fn probes(server: &mut Server, peer: u64) -> Vec<u64> {
    let beats = server.take_to(peer).into_iter().filter_map(|message| match message.body {
        Body::Heartbeat(beat) => Some(beat.probe),
        _ => None,
    });
    beats.collect()
}

#[test]
fn section_6_2_a_leader_steps_down_after_an_election_timeout_without_a_majority() {
    let mut server = start(&[0, 1]).run();
    server.lead();
    server.run_for(TIMEOUT);
    assert_eq!((server.role(), server.raft.leader(), server.term()), (RoleName::Follower, None, 2));
    assert_eq!(server.raft.may_propose(), Err(ProposeRefused::NotLeader));
}

#[test]
fn section_6_2_a_leader_that_a_majority_answers_stays() {
    let mut server = start(&[0, 1]).run();
    server.lead();
    for _ in 0..40 {
        server.run_for(HEARTBEAT);
        for probe in probes(&mut server, 3) {
            server.hear(3, 2, alive(probe));
        }
    }
    assert_eq!(server.role(), RoleName::Leader);
}

#[test]
fn section_6_2_an_answer_counts_from_when_the_question_was_asked() {
    let mut server = start(&[0, 1]).run();
    server.lead();
    server.run_for(HEARTBEAT);
    let asked = probes(&mut server, 2);
    server.run_for(TIMEOUT - HEARTBEAT * 2);
    let late = asked.into_iter().max().expect("a probe");
    server.hear(2, 2, alive(late));
    server.run_for(HEARTBEAT * 2);
    assert_eq!(server.role(), RoleName::Follower, "it was on the way for almost an election timeout");
}

#[test]
fn section_6_2_a_minority_does_not_keep_a_leader_in_office() {
    let mut server = start(&[0, 1]).founders(voters(5)).run();
    server.lead();
    for _ in 0..5 {
        server.run_for(HEARTBEAT);
        for probe in probes(&mut server, 4) {
            server.hear(4, 2, alive(probe));
        }
    }
    assert_eq!(server.role(), RoleName::Follower);
}

#[test]
fn section_6_2_a_lone_server_is_its_own_majority() {
    let mut server = start(&[]).founders(voters(1)).boot();
    server.fire();
    server.flush();
    server.run_for(TIMEOUT * 10);
    assert_eq!((server.role(), server.commit()), (RoleName::Leader, 2));
}
