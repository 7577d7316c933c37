//! Section 10.2: the leader's disk in parallel with its followers', and appends that do not wait for each other.

use crate::server::*;
use d_engine::raft::message::Body;
use wal::NodeId;

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
