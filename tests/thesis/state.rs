//! Figure 3.1, "State".

use crate::server::*;
use d_engine::raft::message::{Body, Election};
use d_engine::raft::{Durability, MAX_TERM_JUMP, RoleName};
use wal::{HardState, NodeId, Term};

#[test]
fn figure_3_1_current_term_is_zero_on_first_boot_and_never_falls() {
    let mut server = start(&[]).run();
    assert_eq!(server.term(), 0);
    server.hear(2, 5, heartbeat(1, 0));
    assert_eq!(server.term(), 5);
    server.hear(3, 3, heartbeat(1, 0));
    assert_eq!(server.term(), 5);
}

#[test]
fn figure_3_1_current_term_does_not_follow_a_term_that_no_cluster_reaches() {
    let mut server = start(&[0, 1]).run();
    server.hear(2, 2 + MAX_TERM_JUMP, heartbeat(1, 0));
    assert_eq!((server.term(), server.raft.counters().quarantined_terms), (1, 1));
    server.hear(2, 1 + MAX_TERM_JUMP, heartbeat(1, 0));
    assert_eq!(server.term(), 1 + MAX_TERM_JUMP, "a jump that is far, and not too far");
}

#[test]
fn figure_3_1_voted_for_is_null_in_each_new_term_until_a_vote_is_given() {
    let mut server = start(&[0, 1]).run();
    server.hear(2, 2, candidacy(Election::Vote, 2, 1));
    server.flush();
    assert_eq!(server.disk.hard, HardState { term: Term(2), vote: Some(NodeId(2)), promise: TIMEOUT });
    server.hear(3, 3, heartbeat(1, 0));
    server.flush();
    assert_eq!(server.disk.hard, HardState { term: Term(3), vote: None, promise: TIMEOUT });
}

#[test]
fn figure_3_1_the_first_index_of_the_log_is_1_and_each_entry_has_the_term_it_was_received_in() {
    let mut server = start(&[]).run();
    server.elect();
    server.propose(b"x");
    server.flush();
    let entries: Vec<_> = server.disk.frames.iter().map(|frame| (frame.index().0, frame.term().0)).collect();
    assert_eq!(entries, [(1, 0), (2, 1), (3, 1)], "founding entry, no-op, command");
}

#[test]
fn figure_3_1_a_vote_is_on_stable_storage_before_it_is_given() {
    let mut server = start(&[0, 1]).run();
    server.hear(2, 2, candidacy(Election::Vote, 2, 1));
    assert_eq!(server.sent, []);
    server.flush();
    assert_eq!(server.answer(), (2, said(2, granted(Election::Vote))));
}

#[test]
fn figure_3_1_a_new_term_is_on_stable_storage_before_it_is_spoken_in() {
    let mut server = start(&[0, 1]).run();
    server.hear(2, 2, heartbeat(7, 0));
    assert_eq!(server.sent, []);
    server.flush();
    assert_eq!(server.answer(), (2, said(2, alive(7))));
}

#[test]
fn figure_3_1_entries_are_on_stable_storage_before_they_are_acknowledged() {
    let mut server = start(&[0, 1]).run();
    server.hear(2, 1, append(&log(&[0, 1, 1]), 2, 0));
    assert_eq!(server.sent, []);
    server.flush();
    assert_eq!(server.answer(), (2, said(1, accepted(3))));
}

#[test]
fn figure_3_1_differs_in_mem_first_entries_are_acknowledged_from_memory_up_to_a_bound() {
    let mut start = start(&[0, 1]);
    start.config.durability = Durability::MemFirst;
    start.config.unflushed_entries = 2;
    let mut server = start.run();
    server.hear(2, 1, append(&log(&[0, 1, 1, 1]), 2, 0));
    assert_eq!(server.answer(), (2, said(1, accepted(4))));
    server.hear(2, 1, append(&log(&[0, 1, 1, 1, 1]), 4, 0));
    assert_eq!(server.sent, [], "three are not on the disk");
    server.flush();
    assert_eq!(server.answer(), (2, said(1, accepted(5))));
    server.hear(2, 2, candidacy(Election::Vote, 5, 1));
    assert_eq!(server.sent, [], "a vote waits for the disk all the same");
}

#[test]
fn figure_3_1_differs_in_mem_first_a_lone_server_decides_before_its_disk_has_it() {
    for (durability, decided) in [(Durability::DiskFirst, 3), (Durability::MemFirst, 4)] {
        let mut start = start(&[0, 1]).founders(voters(1));
        start.config.durability = durability;
        let mut server = start.run();
        server.fire();
        server.flush();
        assert_eq!((server.role(), server.commit()), (RoleName::Leader, 3));
        server.propose(b"x");
        assert_eq!(server.commit(), decided, "{durability:?}");
        server.flush();
        assert_eq!(server.commit(), 4);
    }
}

#[test]
fn figure_3_1_commit_index_starts_at_the_founding_entry_and_only_rises() {
    let mut server = start(&[0, 1, 1]).run();
    assert_eq!(server.commit(), 1, "the thesis has no founding entry and starts at 0");
    server.hear(2, 1, append(&log(&[0, 1, 1]), 3, 3));
    assert_eq!(server.commit(), 3);
    server.hear(2, 1, append(&log(&[0, 1, 1]), 3, 2));
    server.hear(2, 1, heartbeat(1, 1));
    assert_eq!(server.commit(), 3);
}

#[test]
fn figure_3_1_next_index_starts_right_after_the_leaders_last_entry() {
    let mut server = start(&[0, 1, 1]).run();
    server.elect();
    for peer in [2, 3] {
        let mut probe = start(&[0, 1, 1]).run();
        probe.elect();
        assert_eq!(probe.appends_to(peer), [(3, vec![4])], "from entry 4 on, its no-op");
    }
}

#[test]
fn figure_3_1_match_index_starts_at_zero_with_each_leadership() {
    let mut server = start(&[0, 1]).run();
    server.lead();
    let decided = server.commit();
    server.hear(2, 5, heartbeat(1, 0));
    assert_eq!(server.role(), RoleName::Follower);
    server.flush();
    server.wait(TIMEOUT);
    server.elect();
    server.flush();
    assert_eq!(server.commit(), decided, "what followers said to the leader it was counts no more");
    server.hear(2, 2, accepted(server.last().0));
    assert_eq!(server.commit(), decided, "nor does an answer of that time which comes late");
    server.hear(2, server.term(), accepted(server.last().0));
    assert_eq!(server.commit(), server.last().0);
}

#[test]
fn figure_3_1_match_index_only_rises() {
    let mut server = start(&[0]).founders(voters(5)).run();
    server.elect();
    server.flush();
    server.propose(b"x");
    server.flush();
    let term = server.term();
    server.hear(2, term, accepted(3));
    server.hear(2, term, accepted(2));
    assert_eq!(server.commit(), 1);
    server.hear(3, term, accepted(3));
    assert_eq!(server.commit(), 3, "an answer that was overtaken takes nothing back");
}

#[test]
fn figure_3_1_a_message_of_ones_own_is_none() {
    let mut server = start(&[0, 1]).run();
    server.hear(1, 9, Body::TimeoutNow);
    assert_eq!(server.term(), 1);
}
