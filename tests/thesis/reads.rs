//! Section 6.4: reads that bypass the log, step by step, and 6.4.1: the lease. Steps 4 and 5 are in `applied.rs`.

use crate::server::*;
use d_engine::raft::{Mono, ReadRound, RoleName};
use std::time::Duration;
use wal::NodeId;

fn leader() -> Server {
    let mut server = start(&[0, 1]).run();
    server.lead();
    server
}

/// A read arrives and its round's probes leave.
fn read(server: &mut Server) -> ReadRound {
    let round = server.raft.join_read_round().expect("it leads");
    server.turn();
    round
}

#[test]
fn section_6_4_step_1_a_leader_knows_what_is_committed_once_its_own_no_op_is() {
    let mut server = start(&[0, 1, 1]).run();
    server.elect();
    assert_eq!(read(&mut server).index.0, 4, "its no-op, though entry 1 is all it knows to be committed");
    assert_eq!(server.raft.lease_index().map(|index| index.0), Some(4));
}

#[test]
fn section_6_4_step_2_the_read_index_is_the_commit_index_when_the_read_arrives() {
    let mut server = leader();
    let index = server.propose(b"x");
    let before = read(&mut server);
    server.flush();
    server.hear(2, 2, accepted(index));
    let after = read(&mut server);
    assert_eq!((before.index.0, after.index.0), (index - 1, index));
}

#[test]
fn section_6_4_step_3_a_majority_must_answer_a_round_of_heartbeats() {
    let mut server = start(&[0, 1]).founders(voters(5)).run();
    server.lead();
    let round = read(&mut server);
    server.hear(2, 2, alive(round.probe));
    assert!(!server.raft.is_confirmed(round), "two of five");
    server.hear(5, 2, alive(round.probe));
    assert!(server.raft.is_confirmed(round));
}

#[test]
fn section_6_4_step_3_the_round_is_a_new_one() {
    let mut server = leader();
    let earlier = read(&mut server);
    server.take();
    let round = read(&mut server);
    assert!(round.probe > earlier.probe);
    server.hear(2, 2, alive(earlier.probe));
    assert!(server.raft.is_confirmed(earlier));
    assert!(!server.raft.is_confirmed(round), "that was asked before the read arrived");
}

#[test]
fn section_6_4_step_3_an_answer_to_a_later_round_answers_the_earlier_ones() {
    let mut server = leader();
    let earlier = read(&mut server);
    let later = read(&mut server);
    server.hear(3, 2, alive(later.probe));
    assert!(server.raft.is_confirmed(earlier) && server.raft.is_confirmed(later));
}

#[test]
fn section_6_4_reads_that_have_gathered_share_one_round() {
    let mut server = leader();
    let one = server.raft.join_read_round().expect("it leads");
    let other = server.raft.join_read_round().expect("it leads");
    assert_eq!(one, other);
    server.turn();
    assert_eq!(server.take_to(2).len(), 1);
}

#[test]
fn section_6_4_a_round_ends_with_its_leadership() {
    let mut server = leader();
    let round = read(&mut server);
    server.hear(2, 5, heartbeat(1, 0));
    assert_eq!((server.raft.join_read_round(), server.raft.is_confirmed(round)), (None, false));
    server.flush();
    server.wait(TIMEOUT);
    server.lead();
    let again = read(&mut server);
    server.hear(2, server.term(), alive(again.probe));
    assert!(server.raft.is_confirmed(again));
    assert!(!server.raft.is_confirmed(round), "another leadership's answers say nothing of what lay between");
}

#[test]
fn section_6_4_an_answer_to_a_probe_that_was_never_sent_is_none() {
    let mut server = leader();
    let round = read(&mut server);
    server.hear(2, 2, alive(round.probe + 1));
    assert!(!server.raft.is_confirmed(round));
    assert_eq!(server.raft.counters().malformed, 1);
}

#[test]
fn section_6_4_1_the_lease_begins_when_the_heartbeats_left_and_is_shorter_by_the_clocks_drift() {
    let mut server = leader();
    let sent = server.now.mono;
    let round = read(&mut server);
    server.wait(HEARTBEAT);
    server.hear(2, 2, alive(round.probe));
    // Of 250 ms a tenth is taken off: the bound of 100,000 parts in a million.
    assert_eq!(server.raft.lease(), Some(sent.after(Duration::from_millis(225))));
}

#[test]
fn section_6_4_1_there_is_no_lease_before_a_majority_has_answered() {
    let mut server = start(&[0, 1]).founders(voters(5)).run();
    server.lead();
    let round = read(&mut server);
    server.hear(2, 2, alive(round.probe));
    assert_eq!(server.raft.lease(), None);
    server.hear(3, 2, alive(round.probe));
    assert!(server.raft.lease().is_some());
}

#[test]
fn section_6_4_1_the_lease_lasts_as_long_as_the_slowest_of_the_fastest_majority() {
    let mut server = start(&[0, 1]).founders(voters(5)).run();
    server.lead();
    let first = read(&mut server);
    for peer in [2, 3, 4, 5] {
        server.hear(peer, 2, alive(first.probe));
    }
    let lease = server.raft.lease();
    server.wait(HEARTBEAT);
    let second = read(&mut server);
    server.hear(2, 2, alive(second.probe));
    assert_eq!(server.raft.lease(), lease, "two of five");
    server.hear(3, 2, alive(second.probe));
    assert_eq!(server.raft.lease(), lease.map(|until| until.after(HEARTBEAT)));
}

#[test]
fn section_6_4_1_no_follower_of_a_lease_votes_before_it_is_over_at_any_drift_within_the_bound() {
    let mut server = leader();
    let (sent, round) = (server.now.mono, read(&mut server));
    let mut follower = start(&[0, 1]).id(2).term(2).run();
    let arrived = follower.now.mono;
    follower.hear(1, 2, heartbeat(round.probe, 0));
    server.hear(2, 2, alive(round.probe));
    let lease = server.raft.lease().expect("a majority answered").since(sent);
    // The follower's clock runs fast: by the bound, while the leader's clock counts the lease.
    follower.take();
    follower.now.mono = arrived.after(lease * 1_000_000 / (1_000_000 - DRIFT_PPM));
    follower.now.mono = Mono(follower.now.mono.0 - 1);
    follower.hear(3, 9, candidacy_with_everything());
    assert_eq!((follower.term(), follower.take()), (2, vec![]));
}

fn candidacy_with_everything() -> d_engine::raft::message::Body {
    candidacy(d_engine::raft::message::Election::Vote, 99, 8)
}

#[test]
fn section_6_4_1_the_lease_ends_before_leadership_is_handed_over() {
    let mut server = leader();
    let round = read(&mut server);
    server.hear(2, 2, alive(round.probe));
    assert!(server.raft.lease().is_some());
    server.raft.transfer_leadership(server.now, NodeId(2)).expect("a voter");
    assert_eq!(server.raft.lease(), None, "the successor's voters do not wait for it");
    server.turn();
    server.wait(HEARTBEAT);
    let round = read(&mut server);
    server.hear(2, 2, alive(round.probe));
    assert_eq!(server.raft.lease(), None, "the word may arrive much later: none in this term");
}

#[test]
fn section_6_4_1_the_lease_ends_with_the_leadership() {
    let mut server = leader();
    let round = read(&mut server);
    server.hear(2, 2, alive(round.probe));
    server.hear(3, 4, heartbeat(1, 0));
    assert_eq!((server.role(), server.raft.lease()), (RoleName::Follower, None));
    assert_eq!(server.raft.lease_index(), None);
}
