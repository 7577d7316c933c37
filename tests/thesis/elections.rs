//! Section 3.4: what makes elections end.

use crate::server::*;
use d_engine::raft::RoleName;
use d_engine::raft::message::Election;
use std::collections::BTreeSet;
use std::time::Duration;

#[test]
fn section_3_4_election_timeouts_are_drawn_anew_each_time_from_a_fixed_interval() {
    let mut server = start(&[0, 1]).run();
    let mut spans = BTreeSet::new();
    for probe in 1..=200 {
        server.hear(2, 1, heartbeat(probe, 0));
        spans.insert(server.next_timeout().since(server.now.mono));
    }
    assert!(spans.iter().all(|span| (TIMEOUT..TIMEOUT * 2).contains(span)));
    assert!(spans.len() > 190, "they hardly ever repeat");
    let (first, last) = (spans.first().expect("200 of them"), spans.last().expect("200 of them"));
    assert!(
        *first < TIMEOUT * 11 / 10 && *last > TIMEOUT * 19 / 10,
        "the interval is used: {first:?} {last:?}"
    );
}

#[test]
fn section_3_4_servers_draw_different_election_timeouts() {
    let spans: BTreeSet<_> = (0..50)
        .map(|seed| {
            let mut start = start(&[0, 1]);
            start.config.seed = seed;
            start.run().next_timeout()
        })
        .collect();
    assert_eq!(spans.len(), 50);
}

#[test]
fn section_3_4_a_split_vote_is_followed_by_another_election_after_another_timeout() {
    let mut server = start(&[0, 1]).founders(voters(4)).run();
    server.stand();
    server.flush();
    server.hear(2, 2, granted(Election::Vote));
    server.hear(3, 2, refused(Election::Vote));
    assert_eq!(server.role(), RoleName::Candidate, "two of four are no majority");
    server.hear(4, 2, refused(Election::Vote));
    assert_eq!(server.role(), RoleName::Follower, "lost: it waits like everybody else");
    let span = server.next_timeout().since(server.now.mono);
    assert!(span < TIMEOUT * 2, "and not for ever: {span:?}");
    server.elect();
    assert_eq!(server.term(), 3);
}

#[test]
fn section_3_4_a_candidate_gives_the_votes_a_whole_election_timeout() {
    let mut server = start(&[0, 1]).run();
    server.time_out();
    // Consent comes in the last nanosecond of the timeout in which it was asked for.
    let left = server.next_timeout().since(server.now.mono);
    server.wait(left - Duration::from_nanos(1));
    server.hear(2, 2, granted(Election::PreVote));
    assert_eq!(server.role(), RoleName::Candidate);
    assert!(server.next_timeout() >= server.now.mono.after(TIMEOUT));
}

#[test]
fn section_3_4_elections_are_counted_when_one_stands_and_when_one_wins() {
    let mut server = start(&[0, 1]).run();
    let counted = |server: &Server| {
        let counters = server.raft.counters();
        (counters.elections, counters.leaderships)
    };
    server.stand();
    assert_eq!(counted(&server), (1, 0));
    server.hear(2, 2, refused(Election::Vote));
    server.hear(3, 2, refused(Election::Vote));
    server.elect();
    assert_eq!(counted(&server), (2, 1));
}

#[test]
fn section_3_4_a_server_that_has_seen_no_term_has_promised_nothing() {
    let mut server = start(&[]).boot();
    server.hear(2, 1, candidacy(Election::PreVote, 1, 0));
    assert_eq!(server.answer(), (2, said(1, granted(Election::PreVote))), "the first election need not wait");
}

#[test]
fn section_3_4_a_lone_server_elects_itself_at_once() {
    let mut server = start(&[]).founders(voters(1)).boot();
    server.fire();
    server.flush();
    assert_eq!((server.role(), server.term()), (RoleName::Leader, 1));
    assert_eq!(server.take(), []);
}

#[test]
fn section_3_3_a_follower_of_the_current_term_answers_nothing_to_stale_answers() {
    let mut server = start(&[0, 1]).term(5).run();
    for body in
        [granted(Election::Vote), refused(Election::PreVote), accepted(2), rejected(2, 1, 0), alive(1)]
    {
        server.hear(2, 4, body);
    }
    assert_eq!((server.take(), server.term(), server.disk.waiting.len()), (vec![], 5, 0));
}

#[test]
fn section_3_3_a_server_that_is_behind_learns_the_term_from_a_refusal() {
    let mut server = start(&[0, 1]).run();
    server.elect();
    server.hear(2, 6, refused(Election::Vote));
    assert_eq!((server.role(), server.term()), (RoleName::Follower, 6));
}
