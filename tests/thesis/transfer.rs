//! Section 3.10: leadership is handed over.

use crate::server::*;
use d_engine::raft::message::{Body, Election};
use d_engine::raft::{ProposeRefused, RoleName, TransferRefused};
use wal::NodeId;

fn leader() -> Server {
    let mut server = start(&[0, 1]).run();
    server.lead();
    server
}

fn was_told_to_stand(server: &mut Server, peer: u64) -> bool {
    server.take_to(peer).iter().any(|message| message.body == Body::TimeoutNow)
}

#[test]
fn section_3_10_step_1_the_leader_takes_no_more_requests() {
    let mut server = leader();
    server.raft.transfer_leadership(server.now, NodeId(2)).expect("a voter");
    assert_eq!(server.raft.may_propose(), Err(ProposeRefused::Transferring));
}

#[test]
fn section_3_10_step_2_the_successor_is_brought_up_to_date_first() {
    let mut server = leader();
    let index = server.propose(b"x");
    server.raft.transfer_leadership(server.now, NodeId(2)).expect("a voter");
    server.turn();
    assert!(!was_told_to_stand(&mut server, 2));
    server.hear(3, 2, accepted(index));
    assert!(!was_told_to_stand(&mut server, 2), "another's progress does not matter");
    server.hear(2, 2, accepted(index));
    assert!(was_told_to_stand(&mut server, 2));
}

#[test]
fn section_3_10_step_3_the_successor_stands_at_once() {
    let mut server = start(&[0, 1]).run();
    server.hear(2, 1, heartbeat(1, 0));
    server.take();
    server.hear(2, 1, Body::TimeoutNow);
    assert_eq!((server.role(), server.term()), (RoleName::Candidate, 2), "without a timeout or a pre-vote");
    server.flush();
    let ask = said(2, candidacy(Election::Transfer, 2, 1));
    assert_eq!(server.take(), [(2, ask.clone()), (3, ask)]);
}

#[test]
fn section_3_10_the_successors_election_is_not_a_disruption() {
    let mut server = start(&[0, 1]).run();
    server.hear(2, 1, heartbeat(1, 0));
    server.take();
    server.hear(3, 2, candidacy(Election::Transfer, 2, 1));
    server.flush();
    assert_eq!(
        server.answer(),
        (3, said(2, granted(Election::Transfer))),
        "though its leader was just heard (4.2.3)"
    );
}

#[test]
fn section_3_10_the_old_leader_steps_down_for_the_new_one() {
    let mut server = leader();
    server.raft.transfer_leadership(server.now, NodeId(2)).expect("a voter");
    server.turn();
    assert!(was_told_to_stand(&mut server, 2), "it had everything");
    server.hear(2, 3, candidacy(Election::Transfer, 3, 2));
    assert_eq!((server.role(), server.term()), (RoleName::Follower, 3));
}

#[test]
fn section_3_10_a_transfer_that_takes_an_election_timeout_is_given_up() {
    let mut server = leader();
    server.propose(b"x");
    server.raft.transfer_leadership(server.now, NodeId(2)).expect("a voter");
    server.turn();
    assert!(server.raft.is_transferring());
    for _ in 0..6 {
        server.run_for(HEARTBEAT);
        for message in server.take_to(3) {
            if let Body::Heartbeat(beat) = message.body {
                server.hear(3, 2, alive(beat.probe));
            }
        }
    }
    assert_eq!((server.role(), server.raft.may_propose()), (RoleName::Leader, Ok(())));
    assert!(!server.raft.is_transferring());
}

#[test]
fn section_3_10_only_ones_own_leader_may_say_so() {
    let mut server = start(&[0, 1]).run();
    server.hear(2, 1, Body::TimeoutNow);
    assert_eq!(server.role(), RoleName::Follower, "it has no leader");
    server.hear(3, 1, heartbeat(1, 0));
    server.hear(2, 1, Body::TimeoutNow);
    assert_eq!(server.role(), RoleName::Follower, "it has another");
}

#[test]
fn section_3_10_only_a_voter_can_take_over() {
    let mut server = leader();
    assert_eq!(
        server.raft.transfer_leadership(server.now, NodeId(9)),
        Err(TransferRefused::NotVoter(NodeId(9)))
    );
    assert_eq!(server.raft.may_propose(), Ok(()));
}
