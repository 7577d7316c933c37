//! Figure 3.1, "AppendEntries RPC", with section 3.5.

use crate::server::*;
use d_engine::raft::message::{Append, Body, Election};
use d_engine::raft::{Halt, RoleName};
use std::time::Duration;
use wal::{LogIndex, NodeId};

/// What it answers once its disk is done.
fn answered(server: &mut Server) -> (u64, d_engine::raft::Message) {
    server.flush();
    server.answer()
}

#[test]
fn figure_3_1_append_entries_rule_1_an_older_term_is_refused_with_the_current_one() {
    let mut server = start(&[0, 1]).term(4).run();
    server.hear(2, 3, append(&log(&[0, 1, 3]), 2, 3));
    // Differs in form: any message of a later term tells a leader that it is none; this one is a vote not given.
    assert_eq!(answered(&mut server), (2, said(4, refused(Election::Vote))));
    assert_eq!((server.last(), server.commit()), ((2, 1), 1));
}

#[test]
fn figure_3_1_append_entries_rule_2_no_entry_at_the_previous_index() {
    let mut server = start(&[0, 1]).run();
    server.hear(2, 1, append(&log(&[0, 1, 1, 1]), 3, 0));
    assert_eq!(answered(&mut server), (2, said(1, rejected(3, 2, 1))));
    assert_eq!(server.last(), (2, 1));
}

#[test]
fn figure_3_1_append_entries_rule_2_an_entry_of_another_term_at_the_previous_index() {
    let mut server = start(&[0, 1, 1]).term(2).run();
    server.hear(2, 2, append(&log(&[0, 1, 2, 2]), 3, 0));
    let (_, message) = answered(&mut server);
    assert!(matches!(message.body, Body::Appended(a) if matches!(a.outcome,
        d_engine::raft::message::AppendOutcome::Rejected { previous: LogIndex(3), .. })));
    assert_eq!(server.terms(), [0, 1, 1], "it is not deleted yet: the leader goes back first");
}

#[test]
fn figure_3_1_append_entries_rule_3_a_conflicting_entry_is_deleted_with_all_that_follow() {
    let mut server = start(&[0, 1, 1, 1, 1]).term(2).run();
    server.hear(2, 2, append(&log(&[0, 1, 2]), 2, 0));
    assert_eq!(answered(&mut server), (2, said(2, accepted(3))));
    assert_eq!(server.terms(), [0, 1, 2]);
    server.restart();
    assert_eq!(server.terms(), [0, 1, 2], "on the disk too");
}

#[test]
fn figure_3_1_append_entries_rule_3_without_a_conflict_nothing_is_deleted() {
    let mut server = start(&[0, 1]).run();
    server.hear(2, 1, append(&log(&[0, 1, 1, 1]), 2, 0));
    // An earlier, shorter append of the same leader was overtaken.
    server.hear(2, 1, append(&log(&[0, 1, 1]), 2, 0));
    server.hear(2, 1, append(&log(&[0, 1]), 2, 0));
    assert_eq!(server.terms(), [0, 1, 1, 1]);
}

#[test]
fn figure_3_1_append_entries_rule_4_only_entries_not_yet_in_the_log_are_appended() {
    let mut server = start(&[0, 1, 1]).run();
    server.hear(2, 1, append(&log(&[0, 1, 1, 1, 1]), 1, 0));
    let plan = server.disk.waiting.back().expect("a write").plan();
    let written: Vec<_> = plan.frames.iter().map(|frame| frame.index().0).collect();
    assert_eq!(written, [4, 5]);
    assert_eq!(answered(&mut server), (2, said(1, accepted(5))));
}

#[test]
fn figure_3_1_append_entries_rule_5_commit_index_is_the_lesser_of_the_leaders_and_the_last_new_entry() {
    // Entries 4 and 5 are an old leader's; nobody has said yet that they are this leader's too.
    let mut server = start(&[0, 1, 1, 1, 1]).term(2).run();
    server.hear(2, 2, append(&log(&[0, 1, 1]), 2, 9));
    assert_eq!(server.commit(), 3);
    server.hear(2, 2, heartbeat(1, 9));
    assert_eq!(server.commit(), 3, "a sign of life names no entry, and agrees to none");
    server.hear(2, 2, append(&log(&[0, 1, 1, 2, 2]), 3, 4));
    assert_eq!(server.commit(), 4);
}

#[test]
fn figure_3_1_append_entries_rule_5_holds_for_a_follower_that_lost_its_leader_for_a_while() {
    let mut server = start(&[0, 1]).run();
    server.hear(2, 1, append(&log(&[0, 1, 1, 1]), 2, 2));
    server.time_out();
    assert_eq!((server.role(), server.commit()), (RoleName::PreCandidate, 2));
    // The leader has its acceptance, and nothing more to send.
    server.hear(2, 1, heartbeat(1, 4));
    assert_eq!((server.role(), server.commit()), (RoleName::Follower, 4));
}

#[test]
fn figure_3_1_append_entries_without_entries_is_a_heartbeat() {
    let mut server = start(&[0, 1]).run();
    let before = server.next_timeout();
    server.hear(2, 1, append(&log(&[0, 1]), 2, 0));
    assert_eq!(answered(&mut server), (2, said(1, accepted(2))));
    assert!(server.next_timeout() > before);
}

#[test]
fn figure_3_1_append_entries_leader_id_is_whom_clients_are_sent_to() {
    let mut server = start(&[0, 1]).run();
    assert_eq!(server.raft.leader(), None);
    server.hear(3, 1, append(&log(&[0, 1]), 2, 0));
    assert_eq!(server.raft.leader(), Some(NodeId(3)));
}

#[test]
fn figure_3_1_append_entries_says_what_the_follower_checks() {
    let mut server = start(&[0, 1]).run();
    server.lead();
    let index = server.propose(b"x");
    let (last, commit) = (server.raft.log().last(), server.commit());
    let frames = vec![server.raft.log().frame(LogIndex(index)).expect("in memory").clone()];
    let (previous, probe) = (frames[0].previous(), 0);
    let expected =
        Body::Append(Append { previous, frames, commit: LogIndex(commit), probe, promise: TIMEOUT });
    assert_eq!(server.take_to(2), [said(2, expected)]);
    assert_eq!((last.index.0, last.term.0), (index, 2));
}

#[test]
fn section_3_5_entries_that_do_not_follow_each_other_are_not_looked_at() {
    let leader = log(&[0, 1, 1, 1, 1]);
    let mut server = start(&[0, 1]).run();
    let frames = vec![leader[2].clone(), leader[4].clone()];
    let previous = leader[1].id();
    server.hear(
        2,
        1,
        Body::Append(Append { previous, frames, commit: LogIndex(0), probe: 0, promise: Duration::ZERO }),
    );
    server.hear(2, 1, append(&log(&[0, 1, 2]), 2, 0));
    assert_eq!(server.raft.counters().malformed, 2, "a gap, and a term later than its leader's");
    assert_eq!((server.last(), server.sent), ((2, 1), vec![]));
}

#[test]
fn section_3_5_same_index_and_term_but_other_bytes_stop_the_server() {
    let ours = with_command(log(&[0, 1]), 1, b"ours");
    let mut server = start(&[0, 1]).run();
    server.hear(2, 1, append(&ours, 2, 0));
    server.hear(2, 1, append(&with_command(log(&[0, 1]), 1, b"theirs"), 2, 0));
    assert!(matches!(server.halted, Some(Halt::Diverged { peer: NodeId(2), .. })), "{:?}", server.halted);
}

#[test]
fn section_3_5_a_leader_that_contradicts_itself_stops_the_server() {
    let mut server = start(&[0, 1]).term(3).run();
    server.hear(2, 3, append(&log(&[0, 1, 3]), 2, 0));
    server.hear(2, 3, append(&log(&[0, 1, 2]), 2, 0));
    assert!(matches!(server.halted, Some(Halt::Diverged { .. })), "it said before that entry 3 has term 3");
}

#[test]
fn section_3_5_an_acceptance_does_not_leave_after_its_entry_was_replaced() {
    let mut server = start(&[0, 1]).run();
    // Two leaders are heard in one turn: the first one's entry never reaches the disk.
    for (leader, term) in [(2, 1), (3, 2)] {
        let message = said(term, append(&log(&[0, 1, term]), 2, 0));
        server.raft.handle_message(server.now, NodeId(leader), message);
    }
    server.turn();
    server.flush();
    assert_eq!(server.take(), [(3, said(2, accepted(3)))]);
}

#[test]
fn section_3_5_a_rejection_names_where_the_logs_can_agree_at_the_latest() {
    // The thesis' optimisation: the leader goes back a term at a time, not an entry at a time.
    let mut server = start(&[0, 1, 1, 2, 2, 2]).term(4).run();
    server.hear(3, 4, append(&log(&[0, 1, 1, 3, 3, 3, 4]), 6, 0));
    assert_eq!(answered(&mut server), (3, said(4, rejected(6, 5, 2))));
    assert_eq!(server.role(), RoleName::Follower);
}
