//! Sections 3.7 and 3.8: crashes, and what the disk must remember.

use crate::server::*;
use d_engine::raft::RoleName;
use d_engine::raft::message::Election;
use wal::NodeId;

#[test]
fn section_3_7_append_entries_is_idempotent() {
    let mut server = start(&[0, 1]).run();
    for _ in 0..3 {
        server.hear(2, 1, append(&log(&[0, 1, 1]), 2, 3));
        server.flush();
        assert_eq!(server.answer(), (2, said(1, accepted(3))));
    }
    assert_eq!((server.disk.frames.len(), server.commit()), (3, 3));
}

#[test]
fn section_3_8_term_and_vote_survive_a_restart() {
    let mut server = start(&[0, 1]).run();
    server.hear(2, 2, candidacy(Election::Vote, 2, 1));
    server.flush();
    server.restart();
    assert_eq!(server.term(), 2);
    server.wait(TIMEOUT);
    server.hear(3, 2, candidacy(Election::Vote, 9, 1));
    assert_eq!(server.answer(), (3, said(2, refused(Election::Vote))), "no second vote in term 2");
    server.hear(2, 2, candidacy(Election::Vote, 2, 1));
    assert_eq!(server.answer(), (2, said(2, granted(Election::Vote))), "the first one stands");
}

#[test]
fn section_3_8_a_vote_survives_beside_the_entries_of_its_own_term() {
    let mut server = start(&[0, 1]).run();
    server.hear(2, 2, candidacy(Election::Vote, 2, 1));
    server.flush();
    server.hear(2, 2, append(&log(&[0, 1, 2]), 2, 0));
    server.flush();
    server.restart();
    assert_eq!((server.terms(), server.term()), (vec![0, 1, 2], 2));
    server.wait(TIMEOUT);
    server.take();
    server.hear(3, 2, candidacy(Election::Vote, 9, 2));
    assert_eq!(server.answer(), (3, said(2, refused(Election::Vote))));
}

#[test]
fn section_3_8_a_vote_that_never_reached_the_disk_was_never_given() {
    let mut server = start(&[0, 1]).run();
    server.hear(2, 2, candidacy(Election::Vote, 2, 1));
    assert_eq!(server.sent, []);
    server.restart();
    server.wait(TIMEOUT);
    server.hear(3, 2, candidacy(Election::Vote, 2, 1));
    server.flush();
    assert_eq!(server.disk.hard.vote, Some(NodeId(3)));
}

#[test]
fn section_3_8_entries_survive_a_restart_and_count_as_before() {
    let mut server = start(&[0, 1]).run();
    server.hear(2, 1, append(&log(&[0, 1, 1, 1]), 2, 0));
    server.flush();
    server.restart();
    assert_eq!(server.terms(), [0, 1, 1, 1]);
    server.hear(2, 1, append(&log(&[0, 1, 1, 1]), 4, 0));
    assert_eq!(server.take(), [(2, said(1, accepted(4)))], "they are on the disk: nothing to wait for");
}

#[test]
fn section_3_8_the_commit_index_may_be_lost_and_is_learned_again() {
    let mut server = start(&[0, 1]).run();
    server.hear(2, 1, append(&log(&[0, 1, 1]), 2, 3));
    server.flush();
    assert_eq!(server.commit(), 3);
    server.restart();
    assert_eq!(server.commit(), 1);
    server.hear(2, 1, append(&log(&[0, 1, 1]), 3, 3));
    assert_eq!(server.commit(), 3);
}

#[test]
fn section_3_8_a_leader_restarts_as_a_follower() {
    let mut server = start(&[0, 1]).run();
    server.lead();
    server.restart();
    assert_eq!((server.role(), server.raft.leader()), (RoleName::Follower, None));
}

#[test]
fn section_3_8_an_entry_of_a_later_term_proves_that_term() {
    // The slot of the hard state that named term 4 is gone, an entry of term 4 is not.
    let server = start(&[0, 1, 4]).term(3).run();
    assert_eq!(server.term(), 4);
}

#[test]
fn section_3_8_the_flush_of_an_entry_that_was_replaced_says_nothing_of_the_one_in_its_place() {
    let mut server = start(&[0, 1]).run();
    server.hear(2, 2, append(&log(&[0, 1, 2]), 2, 0));
    server.hear(3, 3, append(&log(&[0, 1, 3]), 2, 0));
    server.hear(2, 4, append(&log(&[0, 1, 2]), 2, 0));
    for replaced in [2, 3] {
        server.flush_one();
        assert_eq!(server.raft.log().durable().0, 2, "entry 3 of term {replaced} is not the one in the log");
        server.hear(2, 4, append(&log(&[0, 1, 2]), 3, 0));
        let early = server.take().contains(&(2, said(4, accepted(3))));
        assert!(!early, "entry 3 as of term {replaced} was on the disk, and has been overwritten since");
    }
    server.flush();
    assert!(server.take().contains(&(2, said(4, accepted(3)))));
    assert_eq!(server.raft.log().durable().0, 3, "the first write after the change is about the new one");
}
