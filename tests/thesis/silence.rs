//! Section 3.4 lets a follower wait at random; section 4.2.3 says for how long it must. What lies between is waited only where
//! nothing is known of the leader.

use crate::server::{HEARTBEAT, Server, TIMEOUT, candidacy, granted, heartbeat, refused, said, start};
use d_engine::raft::RoleName;
use d_engine::raft::message::Election;
use std::time::Duration;

/// Three heartbeats, as the engine has it.
const PROMISE: Duration = Duration::from_millis(150);
/// What keeps those apart that learn of it at the same time, and a little more than what chance adds.
const PLACE: Duration = Duration::from_millis(25);
const CHANCE: Duration = Duration::from_millis(7);

/// Node `id` of three, which has just heard its leader.
fn follower(id: u64, leader: u64) -> Server {
    let mut start = start(&[0, 1]).id(id);
    start.config.promise = PROMISE;
    let mut server = start.run();
    server.hear(leader, 1, heartbeat(1, 0));
    server.take();
    server
}

/// When it asked for pre-votes, from now on and for this long.
fn asks(server: &mut Server, span: Duration) -> Vec<Duration> {
    let (began, mut asked) = (server.now.mono, Vec::new());
    let end = began.after(span);
    while server.raft.poll_timeout().is_some_and(|due| due <= end) {
        server.now.mono = server.now.mono.max(server.raft.poll_timeout().expect("just seen"));
        server.fire();
        if !server.take().is_empty() {
            asked.push(server.now.mono.since(began));
        }
    }
    server.now.mono = end;
    asked
}

#[test]
fn a_silent_leader_is_looked_after_until_its_follower_stands() {
    let mut server = follower(1, 2);
    server.run_for(HEARTBEAT);
    assert!(server.knocks.is_empty(), "it is not late yet");
    server.run_for(HEARTBEAT * 2);
    assert_eq!(server.knocks, [2, 2, 2, 2], "after one and a half heartbeats, and every half from then on");
    server.hear(2, 1, heartbeat(2, 0));
    server.run_for(HEARTBEAT);
    assert_eq!(server.knocks.len(), 4, "it is there");
    server.run_for(TIMEOUT * 4);
    let knocks = server.knocks.len();
    server.run_for(TIMEOUT * 4);
    assert_eq!(server.knocks.len(), knocks, "whoever has stood has no leader to look after");
}

#[test]
fn whose_leader_is_gone_stands_once_its_promise_is_over() {
    let mut server = follower(1, 2);
    server.wait(HEARTBEAT);
    server.miss(2);
    let asked = asks(&mut server, TIMEOUT - HEARTBEAT);
    let first = asked.first().copied().expect("it asked");
    assert!((PROMISE..PROMISE + CHANCE).contains(&(first + HEARTBEAT)), "{first:?}");
    assert_eq!(server.role(), RoleName::PreCandidate);
    let mut other = follower(1, 2);
    assert!(asks(&mut other, TIMEOUT).is_empty(), "who knows nothing waits for the whole election timeout");
}

#[test]
fn survivors_stand_one_after_the_other() {
    let first = |id, leader| {
        let mut server = follower(id, leader);
        server.miss(leader);
        asks(&mut server, TIMEOUT).first().copied().expect("it asked")
    };
    for (id, leader, place) in [(1, 3, 0), (2, 3, 1), (2, 1, 0), (3, 1, 1), (3, 2, 1)] {
        let (at, due) = (first(id, leader), PROMISE + PLACE * place);
        assert!((due..due + CHANCE).contains(&at), "node {id} of leader {leader}: {at:?}");
    }
}

#[test]
fn a_hint_moves_nobodys_vote() {
    let mut server = follower(1, 2);
    server.miss(2);
    server.wait(PROMISE - HEARTBEAT / 50);
    server.hear(3, 2, candidacy(Election::PreVote, 2, 1));
    assert_eq!(server.answer(), (3, said(1, refused(Election::PreVote))));
    server.hear(3, 2, candidacy(Election::Vote, 2, 1));
    assert_eq!((server.term(), server.take()), (1, vec![]));
    server.wait(HEARTBEAT / 50);
    server.hear(3, 2, candidacy(Election::PreVote, 2, 1));
    assert_eq!(server.answer(), (3, said(2, granted(Election::PreVote))));
}

#[test]
fn the_leaders_next_word_takes_a_false_hint_back() {
    let mut server = follower(1, 2);
    server.miss(2);
    assert!(server.raft.is_leader_gone());
    server.wait(HEARTBEAT);
    server.hear(2, 1, heartbeat(2, 0));
    server.take();
    assert!(!server.raft.is_leader_gone());
    assert!(asks(&mut server, TIMEOUT).is_empty());
}

#[test]
fn who_is_not_the_leader_is_not_missed() {
    let mut server = follower(1, 2);
    server.miss(3);
    assert!(!server.raft.is_leader_gone());
    server.hear(2, 1, heartbeat(2, 0));
    server.take();
    assert!(asks(&mut server, TIMEOUT).is_empty());
    let mut leader = start(&[0, 1]).run();
    leader.lead();
    leader.miss(2);
    assert!(!leader.raft.is_leader_gone());
}

#[test]
fn who_finds_no_majority_soon_asks_at_the_usual_times_again() {
    let mut server = follower(1, 2);
    server.miss(2);
    let soon = asks(&mut server, PROMISE + TIMEOUT);
    assert!((3..=5).contains(&soon.len()), "about once a heartbeat: {soon:?}");
    let later = asks(&mut server, TIMEOUT * 8);
    assert!((4..=8).contains(&later.len()), "once or less in an election timeout: {later:?}");
}
