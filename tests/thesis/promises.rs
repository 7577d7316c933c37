//! Sections 4.2.3 and 6.4.1 where members are configured with different times: a leader states how long it relies on being the
//! one, and whoever hears it keeps to that, or to what it would keep to by itself if that is longer.

use crate::server::*;
use d_engine::raft::message::{Append, Body, Election, Heartbeat};
use d_engine::raft::{MAX_PROMISE, RoleName};
use std::time::Duration;
use wal::LogIndex;

/// What this server would promise by itself.
const OWN: Duration = Duration::from_millis(60);
/// What its leader states, and what is less than it by nearly nothing.
const STATED: Duration = Duration::from_millis(700);
const MOMENT: Duration = Duration::from_millis(1);

fn stating(promise: Duration) -> Body {
    Body::Heartbeat(Heartbeat { probe: 1, commit: LogIndex(0), promise })
}

fn briefly() -> Start {
    let mut start = start(&[0, 1]);
    start.config.promise = OWN;
    start
}

/// Node 1 of three, which has just heard node 2 state this, in term 1.
fn follower(promise: Duration) -> Server {
    let mut server = briefly().run();
    server.hear(2, 1, stating(promise));
    server.flush();
    assert_eq!(server.answer(), (2, said(1, alive(1))));
    server
}

/// It keeps to its leader for so long from now, and no longer.
fn keeps_to_its_leader_for(server: &mut Server, span: Duration) {
    server.wait(span - MOMENT);
    server.hear(3, 2, candidacy(Election::PreVote, 2, 1));
    assert_eq!(server.answer(), (3, said(1, refused(Election::PreVote))));
    server.hear(3, 2, candidacy(Election::Vote, 2, 1));
    assert_eq!((server.term(), server.take()), (1, vec![]));
    server.wait(MOMENT);
    server.hear(3, 2, candidacy(Election::PreVote, 2, 1));
    assert_eq!(server.answer(), (3, said(2, granted(Election::PreVote))));
    server.hear(3, 2, candidacy(Election::Vote, 2, 1));
    server.flush();
    assert_eq!(server.answer(), (3, said(2, granted(Election::Vote))));
}

#[test]
fn section_6_4_1_a_follower_keeps_to_its_leader_for_as_long_as_the_leader_states() {
    keeps_to_its_leader_for(&mut follower(STATED), STATED);
}

#[test]
fn section_6_4_1_an_append_states_it_too_since_its_answer_counts() {
    let mut server = briefly().run();
    let Body::Append(append) = append(&log(&[0, 1]), 2, 0) else { unreachable!() };
    server.hear(2, 1, Body::Append(Append { promise: STATED, ..append }));
    server.flush();
    assert_eq!(server.answer(), (2, said(1, accepted(2))));
    keeps_to_its_leader_for(&mut server, STATED);
}

#[test]
fn section_6_4_1_what_a_leader_states_shortens_nothing_and_may_be_left_out() {
    for stated in [Duration::ZERO, OWN - MOMENT, OWN] {
        keeps_to_its_leader_for(&mut follower(stated), OWN);
    }
}

#[test]
fn section_6_4_1_nobody_stands_against_what_its_leader_stated() {
    let mut server = follower(STATED);
    server.run_for(STATED - MOMENT);
    assert_eq!((server.role(), server.take()), (RoleName::Follower, vec![]));
    server.run_for(TIMEOUT + MOMENT);
    assert_eq!(server.role(), RoleName::PreCandidate);
    assert_eq!(server.take().len(), 2, "then it asks");
}

#[test]
fn section_6_4_1_not_even_if_the_leader_is_said_to_be_gone() {
    let mut server = follower(STATED);
    server.wait(HEARTBEAT);
    server.miss(2);
    server.run_for(STATED - HEARTBEAT - MOMENT);
    assert_eq!((server.role(), server.take()), (RoleName::Follower, vec![]));
    server.run_for(HEARTBEAT);
    assert_eq!(server.role(), RoleName::PreCandidate, "it stands once that is over");
}

#[test]
fn section_6_4_1_a_leader_hears_of_a_promise_once_its_length_is_on_disk() {
    let mut server = briefly().run();
    server.hear(2, 1, stating(STATED));
    server.hear(2, 1, stating(STATED));
    assert_eq!(server.take(), vec![], "a restart would not know of it");
    server.flush_one();
    assert_eq!(server.disk.hard.promise, STATED);
    server.flush();
    assert_eq!(server.take().len(), 2);
    server.hear(2, 1, stating(STATED));
    assert_eq!(server.answer(), (2, said(1, alive(1))), "once is enough");
    assert!(server.disk.waiting.is_empty());
}

#[test]
fn section_4_2_3_a_restarted_server_outwaits_what_its_leader_stated() {
    let mut server = follower(STATED);
    server.wait(STATED);
    server.restart();
    keeps_to_its_leader_for(&mut server, STATED);
    // What nobody was told of binds nobody.
    let mut server = briefly().run();
    server.hear(2, 1, stating(STATED));
    server.restart();
    keeps_to_its_leader_for(&mut server, OWN);
}

#[test]
fn section_4_2_3_a_server_that_is_restarted_to_promise_less_outwaits_what_it_promised() {
    let mut start = start(&[0, 1]);
    start.config.promise = TIMEOUT;
    let mut server = start.run();
    server.hear(2, 1, stating(Duration::ZERO));
    server.flush();
    server.take();
    server.disk.configure(|config| config.promise = OWN);
    server.restart();
    keeps_to_its_leader_for(&mut server, TIMEOUT);
}

#[test]
fn section_6_4_1_a_later_leader_has_outwaited_what_an_earlier_one_was_promised() {
    for restart in [false, true] {
        let mut server = follower(STATED);
        if restart {
            server.restart();
        }
        server.hear(3, 2, stating(OWN));
        server.flush();
        server.take();
        assert_eq!(server.disk.hard.promise, OWN);
        server.wait(OWN);
        server.hear(2, 3, candidacy(Election::Vote, 2, 1));
        server.flush();
        assert_eq!(server.answer(), (2, said(3, granted(Election::Vote))));
    }
}

#[test]
fn section_4_2_3_whoever_has_outwaited_its_leader_to_stand_does_not_outwait_it_again() {
    let mut server = follower(STATED);
    server.stand();
    server.flush();
    assert_eq!(server.disk.hard.promise, OWN);
}

#[test]
fn section_6_4_1_a_promise_that_nobody_gives_is_neither_kept_nor_answered() {
    let mut server = briefly().run();
    let malformed = server.raft.counters().malformed;
    server.hear(2, 3, stating(MAX_PROMISE + Duration::from_nanos(1)));
    server.hear(2, 3, stating(Duration::MAX));
    server.flush();
    assert_eq!((server.term(), server.take(), server.raft.leader()), (1, vec![], None));
    assert_eq!(server.raft.counters().malformed, malformed + 2);
    let mut longest = follower(MAX_PROMISE);
    keeps_to_its_leader_for(&mut longest, MAX_PROMISE);
}

#[test]
fn section_3_10_a_transfer_is_with_the_consent_of_whom_it_was_stated_by() {
    let mut server = follower(STATED);
    server.hear(3, 2, candidacy(Election::Transfer, 2, 1));
    server.flush();
    assert_eq!(server.answer(), (3, said(2, granted(Election::Transfer))));
    let mut server = follower(STATED);
    server.hear(2, 1, Body::TimeoutNow);
    assert_eq!(
        (server.role(), server.term()),
        (RoleName::Candidate, 2),
        "the successor itself does not wait"
    );
}

#[test]
fn section_6_4_1_a_leader_states_what_its_lease_relies_on() {
    let mut start = start(&[0, 1]);
    start.config.promise = OWN;
    let mut server = start.run();
    server.elect();
    let stated = |server: &mut Server| -> Vec<Duration> {
        let sent = server.take().into_iter().filter_map(|(_, message)| match message.body {
            Body::Append(append) => Some(append.promise),
            Body::Heartbeat(heartbeat) => Some(heartbeat.promise),
            _ => None,
        });
        sent.collect()
    };
    assert_eq!(stated(&mut server), [OWN; 2], "its first appends");
    let sent = server.raft.poll_timeout().expect("a heartbeat is due");
    server.time_out();
    assert_eq!(stated(&mut server), [OWN; 2], "its signs of life");
    server.hear(2, 2, alive(1));
    assert_eq!(server.raft.lease(), Some(sent.after(OWN * 9 / 10)), "less the drift");
}
