//! Section 10.2: the leader's disk in parallel with its followers', and appends that do not wait for each other.

use crate::server::*;
use d_engine::raft::message::{Append, AppendOutcome, Appended, Body};
use wal::{LogIndex, NodeId};

#[test]
fn section_10_2_1_the_leader_sends_before_its_own_disk_is_done() {
    let mut server = start(&[0, 1]).run();
    server.lead();
    let index = server.propose(b"x");
    assert_eq!(server.disk.waiting.len(), 1);
    let sent = server.take();
    for peer in [2, 3] {
        assert!(
            sent.iter()
                .any(|(to, m)| *to == peer && matches!(&m.body, Body::Append(a) if !a.frames.is_empty()))
        );
    }
    server.hear(2, 2, accepted(index));
    assert_eq!(server.commit(), index - 1, "one disk of three; the leader's own counts when it is done");
    server.flush();
    assert_eq!(server.commit(), index);
}

#[test]
fn section_10_2_1_an_entry_may_be_committed_before_it_is_on_the_leaders_own_disk() {
    let mut server = start(&[0, 1]).run();
    server.lead();
    let index = server.propose(b"x");
    server.hear(2, 2, accepted(index));
    server.hear(3, 2, accepted(index));
    assert_eq!((server.commit(), server.disk.waiting.len()), (index, 1), "a majority holds it");
}

#[test]
fn section_10_2_2_appends_follow_each_other_without_waiting() {
    let mut server = start(&[0, 1]).run();
    server.lead();
    for command in [b"x", b"y", b"z"] {
        server.propose(command);
    }
    assert_eq!(server.appends_to(2), [(3, vec![4]), (4, vec![5]), (5, vec![6])]);
}

#[test]
fn section_10_2_2_until_the_logs_meet_one_append_is_out_at_a_time() {
    let mut server = start(&[0, 1]).run();
    server.elect();
    server.take();
    server.propose(b"x");
    assert_eq!(server.appends_to(2), []);
    server.hear(2, 2, accepted(3));
    assert_eq!(server.appends_to(2), [(3, vec![4])]);
}

#[test]
fn section_10_2_2_what_is_on_the_way_is_bounded() {
    let mut start = start(&[0, 1]);
    start.config.in_flight_bytes = 300;
    let mut server = start.run();
    server.lead();
    for _ in 0..20 {
        server.propose(b"x");
    }
    let sent = server.appends_to(2).len();
    assert!((2..5).contains(&sent), "{sent} appends of 120 bytes");
    server.hear(2, 2, accepted(4));
    assert!(!server.appends_to(2).is_empty(), "an answer makes room");
}

#[test]
fn section_10_2_2_as_many_bytes_are_on_the_way_as_the_bound_allows() {
    let appends = |bound: usize| {
        let mut start = start(&[0, 1]);
        start.config.in_flight_bytes = bound;
        let mut server = start.run();
        server.lead();
        for _ in 0..9 {
            server.propose(b"x");
        }
        let one = server.raft.log().frame(server.raft.log().last().index).expect("in memory").bytes().len();
        (server.appends_to(2).len(), one)
    };
    let (_, one) = appends(1);
    for (bound, sent) in [(2 * one - 1, 2), (2 * one, 2), (2 * one + 1, 3)] {
        assert_eq!(appends(bound).0, sent, "{bound} bytes, {one} each");
    }
}

#[test]
fn section_10_2_1_what_one_flush_holds_is_acknowledged_at_once() {
    let mut server = start(&[0, 1]).run();
    let word = |until: &[u64], previous, probe| match append(&log(until), previous, 0) {
        Body::Append(append) => said(1, Body::Append(Append { probe, ..append })),
        other => unreachable!("{other:?}"),
    };
    // The network changed their order; both come before the disk is asked.
    for message in [word(&[0, 1, 1, 1], 2, 7), word(&[0, 1, 1], 2, 9)] {
        server.raft.handle_message(server.now, NodeId(2), message);
    }
    server.turn();
    server.flush();
    let outcome = AppendOutcome::Accepted { matched: LogIndex(4) };
    assert_eq!(server.take(), [(2, said(1, Body::Appended(Appended { outcome, probe: 9 })))]);
}

#[test]
fn section_10_2_1_what_one_flush_holds_is_acknowledged_to_each_leader_for_itself() {
    let mut server = start(&[0, 1]).run();
    for (leader, term) in [(2, 1), (3, 2)] {
        let message = said(term, append(&log(&[0, 1, 1]), 2, 0));
        server.raft.handle_message(server.now, NodeId(leader), message);
    }
    server.turn();
    server.flush();
    assert_eq!(server.take(), [(2, said(1, accepted(3))), (3, said(2, accepted(3)))]);
}

#[test]
fn section_10_2_1_what_was_replaced_before_the_disk_was_asked_is_not_written() {
    let mut server = start(&[0, 1]).run();
    for (leader, term) in [(2, 1), (3, 2)] {
        let message = said(term, append(&log(&[0, 1, term, term]), 2, 0));
        server.raft.handle_message(server.now, NodeId(leader), message);
    }
    server.turn();
    let written = server.disk.waiting.iter().flat_map(|write| write.plan().frames);
    assert_eq!(written.map(|frame| (frame.index().0, frame.term().0)).collect::<Vec<_>>(), [(3, 2), (4, 2)]);
}

#[test]
fn section_10_2_2_an_append_that_was_lost_is_sent_again_in_order() {
    let mut server = start(&[0, 1]).run();
    server.lead();
    for command in [b"x", b"y", b"z"] {
        server.propose(command);
    }
    server.take();
    // The append with entry 4 was lost: the ones behind it do not fit.
    server.hear(2, 2, rejected(4, 3, 2));
    assert_eq!(server.appends_to(2), [(3, vec![4, 5, 6])]);
    server.hear(2, 2, rejected(5, 3, 2));
    assert_eq!(server.appends_to(2), [], "the same loss, noticed twice");
}

#[test]
fn section_10_2_2_a_new_connection_starts_over() {
    let mut server = start(&[0, 1]).run();
    server.lead();
    server.propose(b"x");
    server.take();
    server.raft.handle_reconnect(NodeId(2));
    server.turn();
    let appends = server.appends_to(2);
    assert_eq!(appends.len(), 1, "a probe, as at the beginning: {appends:?}");
}
