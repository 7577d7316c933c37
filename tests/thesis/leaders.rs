//! Figure 3.1, "Rules for Servers": leaders; with sections 3.5 and 3.6.2.

use crate::server::*;
use d_engine::raft::message::Body;
use d_engine::raft::{ProposeRefused, RoleName};
use wal::{FrameBuilder, LogIndex};

#[test]
fn figure_3_1_leaders_send_append_entries_to_each_server_upon_election() {
    let mut server = start(&[0, 1]).run();
    server.elect();
    let sent = server.take();
    for peer in [2, 3] {
        let appends = sent.iter().filter(|(to, m)| *to == peer && matches!(m.body, Body::Append(_)));
        assert_eq!(appends.count(), 1, "not empty: it carries the no-op (6.4)");
    }
}

#[test]
fn figure_3_1_leaders_repeat_heartbeats_while_idle() {
    let mut server = start(&[0, 1]).run();
    server.lead();
    server.run_for(HEARTBEAT / 10);
    server.take();
    let mut beats = 0;
    for _ in 0..4 {
        server.run_for(HEARTBEAT);
        beats += server.take_to(2).iter().filter(|m| matches!(m.body, Body::Heartbeat(_))).count();
    }
    assert_eq!(beats, 4, "often enough that no follower times out");
}

#[test]
fn figure_3_1_leaders_append_commands_to_their_log_and_send_them() {
    let mut server = start(&[0, 1]).run();
    server.lead();
    assert_eq!(server.propose(b"x"), 4);
    assert_eq!(server.appends_to(3), [(3, vec![4])]);
    server.flush();
    assert_eq!(server.disk.frames.last().map(|f| f.commands().next() == Some(b"x")), Some(true));
}

#[test]
fn figure_3_1_only_leaders_append_commands() {
    let mut server = start(&[0, 1]).run();
    let mut batch = FrameBuilder::with_capacity(8);
    batch.push_command(b"x");
    assert_eq!(server.raft.propose(server.now, batch), Err(ProposeRefused::NotLeader));
    assert_eq!(server.last(), (2, 1));
}

#[test]
fn figure_3_1_leaders_send_entries_from_next_index_on() {
    let mut server = start(&[0, 1, 1, 1]).run();
    server.elect();
    let term = server.term();
    server.take();
    server.hear(2, term, rejected(4, 2, 1));
    assert_eq!(server.appends_to(2), [(2, vec![3, 4, 5])]);
}

#[test]
fn figure_3_1_leaders_update_next_and_match_index_on_success() {
    let mut server = start(&[0, 1]).run();
    server.elect();
    server.flush();
    server.take();
    server.hear(2, 2, accepted(3));
    assert_eq!(server.commit(), 3, "matchIndex");
    assert_eq!(server.take_to(2), [], "nothing is sent twice");
    server.propose(b"x");
    assert_eq!(server.appends_to(2), [(3, vec![4])], "nextIndex");
}

#[test]
fn figure_3_1_leaders_go_back_and_retry_on_an_inconsistency_until_the_logs_meet() {
    let mut server = start(&[0, 1, 2, 3, 4, 5]).run();
    server.elect();
    let term = server.term();
    let mut at = 6;
    assert_eq!(server.appends_to(2), [(at, vec![7])]);
    while at > 1 {
        server.hear(2, term, rejected(at, at - 1, at - 2));
        at -= 1;
        let indices: Vec<_> = (at + 1..=7).collect();
        assert_eq!(server.appends_to(2), [(at, indices)]);
    }
    server.hear(2, term, accepted(7));
    server.flush();
    assert_eq!(server.commit(), 7);
}

#[test]
fn section_3_5_one_rejection_a_term_is_enough() {
    // The follower's log is [0, 1, 4, 4, 4, 4, 4, 4]; the leader's has no entry of term 4.
    let mut server = start(&[0, 1, 2, 2, 2, 5, 5, 5]).run();
    server.elect();
    let term = server.term();
    assert_eq!(server.appends_to(2), [(8, vec![9])]);
    server.hear(2, term, rejected(8, 7, 4));
    assert_eq!(server.appends_to(2), [(5, vec![6, 7, 8, 9])], "past all entries later than term 4");
    server.hear(2, term, rejected(5, 2, 1));
    assert_eq!(server.appends_to(2), [(2, vec![3, 4, 5, 6, 7, 8, 9])]);
    assert_eq!(server.raft.counters().rejections, 2);
}

#[test]
fn section_3_5_a_rejection_that_comes_late_changes_nothing() {
    let mut server = start(&[0, 1, 1, 1]).run();
    server.elect();
    let term = server.term();
    server.hear(2, term, rejected(4, 2, 1));
    server.hear(2, term, accepted(5));
    server.take();
    server.hear(2, term, rejected(4, 1, 0));
    assert_eq!(server.take(), [], "it is older than what the follower has acknowledged since");
}

#[test]
fn section_3_5_append_entries_are_retried_until_the_follower_has_everything() {
    let mut server = start(&[0, 1]).run();
    server.lead();
    let index = server.propose(b"x");
    server.flush();
    server.take();
    let mut retries = 0;
    for _ in 0..60 {
        // Node 3 answers signs of life and keeps the leader in office; every append to node 2 is lost.
        server.run_for(HEARTBEAT);
        let sent = server.take();
        retries += sent.iter().filter(|(to, m)| *to == 2 && matches!(m.body, Body::Append(_))).count();
        for (to, message) in sent {
            if let (3, Body::Heartbeat(beat)) = (to, message.body) {
                server.hear(3, 2, alive(beat.probe));
            }
        }
    }
    assert_eq!(server.role(), RoleName::Leader);
    assert!(retries > 2, "{retries}");
    server.take();
    server.hear(2, 2, accepted(index));
    assert_eq!(server.commit(), index);
}

#[test]
fn section_3_5_an_entry_is_committed_once_a_majority_has_replicated_it() {
    let mut server = start(&[0]).founders(voters(5)).run();
    server.elect();
    server.flush();
    server.hear(2, 1, accepted(2));
    assert_eq!(server.commit(), 1, "two of five");
    server.hear(3, 1, accepted(2));
    assert_eq!(server.commit(), 2, "three of five");
}

#[test]
fn section_3_5_all_preceding_entries_are_committed_with_it() {
    let mut server = start(&[0, 1, 2, 3]).run();
    server.elect();
    server.flush();
    server.hear(2, 4, accepted(5));
    assert_eq!(server.commit(), 5);
}

#[test]
fn section_3_5_followers_learn_of_a_commitment_in_the_next_messages() {
    let mut server = start(&[0, 1]).run();
    server.elect();
    server.flush();
    server.take();
    server.hear(2, 2, accepted(3));
    server.run_for(HEARTBEAT);
    let sent = server.take();
    for peer in [2, 3] {
        let told = sent.iter().filter(|(to, _)| *to == peer).filter_map(|(_, message)| match &message.body {
            Body::Heartbeat(beat) => Some(beat.commit.0),
            Body::Append(append) => Some(append.commit.0),
            _ => None,
        });
        assert_eq!(told.max(), Some(3), "node {peer}");
    }
}

#[test]
fn section_3_6_2_only_entries_of_the_current_term_are_committed_by_counting() {
    // Figure 3.7, (c): entry 2, of term 1, is on two of three servers, and may still be replaced as in (d).
    let mut server = start(&[0, 1]).term(3).run();
    server.elect();
    server.flush();
    server.hear(2, 4, accepted(2));
    assert_eq!(server.commit(), 1);
    // (e): an entry of term 4 is on a majority as well, and with it everything before.
    server.hear(2, 4, accepted(3));
    assert_eq!(server.commit(), 3);
}

#[test]
fn figure_3_1_leaders_do_not_believe_an_acknowledgement_of_what_they_do_not_have() {
    let mut server = start(&[0, 1]).run();
    server.elect();
    server.flush();
    server.hear(2, 2, accepted(99));
    assert_eq!((server.commit(), server.raft.counters().malformed), (1, 1));
}

#[test]
fn section_6_3_an_entry_bears_the_leaders_time_at_which_it_was_made() {
    let mut server = start(&[0, 1]).run();
    server.lead();
    // Nothing happens between the last input and the request.
    server.wait(HEARTBEAT);
    let time = server.raft.timestamp(server.now).expect("it leads");
    let index = server.propose(b"x");
    let entry = server.raft.log().frame(LogIndex(index)).expect("in memory");
    assert_eq!((entry.timestamp_ms(), server.raft.log().last_timestamp()), (time, time));
    let later = time + 20;
    let mut then = server.now;
    then.mono = server.raft.when_timestamp(later).expect("it leads");
    assert_eq!(server.raft.timestamp(then), Some(later));
    assert_eq!(then.mono.since(server.now.mono).as_millis(), 20);
}
