//! Section 4.3: joint configurations decide what both halves decide. Changing to one is not in the engine yet; its
//! arithmetic is, and applies as soon as such an entry is in the log.

use crate::server::*;
use d_engine::raft::message::Election;
use d_engine::raft::{Membership, RoleName};
use wal::Frame;

/// From {1, 2, 3} to {1, 4, 5}.
fn joint() -> Membership {
    membership(&[1, 4, 5], &[1, 2, 3], &[])
}

fn with_joint() -> Vec<Frame> {
    with_membership(log(&[0, 1]), 1, &joint())
}

/// Node 1, with the joint configuration in its log and not committed.
fn joined() -> Server {
    let mut server = start(&[0, 1]).run();
    server.hear(2, 1, append(&with_joint(), 2, 0));
    server.flush();
    server.take();
    server
}

#[test]
fn section_4_3_entries_are_replicated_to_all_servers_in_both_configurations() {
    let mut server = joined();
    server.elect();
    let told: Vec<_> = server.take().into_iter().map(|(to, _)| to).collect();
    for peer in [2, 3, 4, 5] {
        assert!(told.contains(&peer), "node {peer}");
    }
}

#[test]
fn section_4_3_any_server_from_either_configuration_may_lead() {
    for id in [2, 4] {
        let mut server = start(&[0, 1]).id(id).run();
        let leader = if id == 2 { 3 } else { 2 };
        server.hear(leader, 1, append(&with_joint(), 2, 0));
        server.flush();
        server.elect();
        assert_eq!((server.role(), server.term()), (RoleName::Leader, 2), "node {id}");
    }
}

#[test]
fn section_4_3_elections_need_majorities_of_both_configurations() {
    for (voters, role) in [
        (vec![2, 3], RoleName::Candidate),
        (vec![4, 5], RoleName::Candidate),
        (vec![2, 4], RoleName::Leader),
        (vec![3, 5], RoleName::Leader),
    ] {
        let mut server = joined();
        server.stand();
        server.flush();
        for &voter in &voters {
            server.hear(voter, 2, granted(Election::Vote));
        }
        assert_eq!(server.role(), role, "votes of {voters:?} and its own");
    }
}

#[test]
fn section_4_3_an_election_is_lost_once_one_configuration_refuses() {
    let mut server = joined();
    server.stand();
    server.flush();
    server.hear(2, 2, granted(Election::Vote));
    server.hear(4, 2, refused(Election::Vote));
    assert_eq!(server.role(), RoleName::Candidate);
    server.hear(5, 2, refused(Election::Vote));
    assert_eq!(server.role(), RoleName::Follower);
}

#[test]
fn section_4_3_commitment_needs_majorities_of_both_configurations() {
    let mut server = joined();
    server.elect();
    server.flush();
    let last = server.last().0;
    server.hear(2, 2, accepted(last));
    server.hear(3, 2, accepted(last));
    assert_eq!(server.commit(), 1, "all of C_old, one of three of C_new");
    server.hear(5, 2, accepted(last));
    assert_eq!(server.commit(), last);
}

#[test]
fn section_4_3_a_leader_is_confirmed_by_majorities_of_both_configurations() {
    let mut server = joined();
    server.elect();
    server.flush();
    let round = server.raft.join_read_round().expect("it leads");
    server.turn();
    server.hear(2, 2, alive(round.probe));
    assert!(!server.raft.is_confirmed(round));
    assert_eq!(server.raft.lease(), None);
    server.hear(4, 2, alive(round.probe));
    assert!(server.raft.is_confirmed(round));
    assert!(server.raft.lease().is_some());
}

#[test]
fn section_4_3_a_joint_entry_that_is_deleted_takes_its_majorities_with_it() {
    let mut server = joined();
    server.hear(3, 2, append(&log(&[0, 1, 2]), 2, 0));
    server.flush();
    server.wait(TIMEOUT);
    server.stand();
    server.flush();
    server.hear(4, 3, granted(Election::Vote));
    assert_eq!(server.role(), RoleName::Candidate, "node 4 is nobody again");
    server.hear(2, 3, granted(Election::Vote));
    assert_eq!(server.role(), RoleName::Leader);
}
