//! Sections 3.5, 3.10 and 10.2 where messages are lost, late, or say what cannot be: when a leader tries again, and what it
//! believes of an answer.

use crate::server::*;
use d_engine::raft::message::{Append, AppendOutcome, Appended, Body};
use d_engine::raft::{Durability, Message, RoleName};
use std::time::Duration;
use wal::{EntryId, LogIndex, NodeId};

const MOMENT: Duration = Duration::from_nanos(1);

fn leader() -> Server {
    let mut server = start(&[0, 1]).run();
    server.lead();
    server
}

/// Fires each timer for so long, answering every probe of one peer with nothing but that it was heard; what was sent to the other
/// one since, as time and index before.
fn appends_while_silent(server: &mut Server, span: Duration) -> Vec<(Duration, u64)> {
    let begun = server.now.mono;
    let mut appends = Vec::new();
    while server.now.mono.since(begun) < span {
        let due = server.raft.poll_timeout().expect("a timer is set").min(begun.after(span));
        server.now.mono = server.now.mono.max(due);
        server.fire();
        for (to, message) in server.take() {
            match message.body {
                Body::Append(append) if to == 2 => {
                    appends.push((server.now.mono.since(begun), append.previous.index.0));
                }
                Body::Heartbeat(beat) if to == 3 => server.hear(3, 2, alive(beat.probe)),
                _ => {}
            }
        }
    }
    appends
}

/// Brings it to the moment of a heartbeat, so that what is sent then is as old as whole heartbeats at each next one.
fn to_a_heartbeat(server: &mut Server) {
    let begun = server.now.mono;
    appends_while_silent(server, HEARTBEAT);
    let due = server.raft.poll_timeout().expect("a heartbeat is due");
    assert!(due.since(begun) <= HEARTBEAT * 2, "soon");
    server.now.mono = due;
    server.fire();
    server.take();
}

#[test]
fn section_10_2_2_an_append_unanswered_for_four_election_timeouts_is_repeated_and_a_probe_after_two_heartbeats()
 {
    let mut server = leader();
    to_a_heartbeat(&mut server);
    let index = server.propose(b"x");
    assert_eq!(server.appends_to(2), [(index - 1, vec![index])]);
    server.hear(3, 2, accepted(index));
    server.take();
    let appends = appends_while_silent(&mut server, TIMEOUT * 4 + HEARTBEAT * 5);
    // From what it held on: first the stream, then the probe in its place, again and again.
    let at = |heartbeats: u32| TIMEOUT * 4 + HEARTBEAT * heartbeats;
    assert_eq!(appends, [(at(0), index - 1), (at(2), index - 1), (at(4), index - 1)]);
}

#[test]
fn section_10_2_2_an_append_that_could_not_be_sent_is_repeated_soon_and_not_at_once() {
    let mut server = leader();
    to_a_heartbeat(&mut server);
    let index = server.propose(b"x");
    let sent = server.take();
    let (_, lost) = sent.iter().find(|(to, _)| *to == 2).expect("an append");
    let lost: Message = lost.clone();
    assert!(matches!(lost.body, Body::Append(_)), "{lost:?}");
    server.hear(3, 2, accepted(index));
    server.raft.handle_not_sent(server.now, NodeId(2), &said(2, heartbeat(1, 0)));
    server.turn();
    assert!(server.appends_to(2).is_empty(), "a heartbeat that was lost is not repeated");
    server.raft.handle_not_sent(server.now, NodeId(2), &lost);
    server.turn();
    assert!(server.appends_to(2).is_empty(), "not at once");
    let next = server.propose(b"y");
    assert!(server.appends_to(2).is_empty(), "and nothing behind it");
    server.hear(3, 2, accepted(next));
    server.take();
    let appends = appends_while_silent(&mut server, HEARTBEAT * 3);
    assert_eq!(appends, [(HEARTBEAT * 2, index - 1)]);
}

/// A peer acknowledged what it does not have any more: its disk was swapped for an old one.
#[test]
fn section_3_5_a_follower_that_lost_what_it_acknowledged_is_served_again_from_where_the_logs_meet() {
    let mut server = leader();
    to_a_heartbeat(&mut server);
    let index = server.propose(b"x");
    server.hear(3, 2, accepted(index));
    server.take();
    server.hear(2, 2, rejected(index - 1, 1, 0));
    assert!(server.appends_to(2).is_empty(), "a stream's answer of an earlier time");
    assert_eq!(server.raft.counters().regressions, 0);
    appends_while_silent(&mut server, TIMEOUT * 4);
    server.hear(2, 2, rejected(index - 1, 1, 0));
    let counters = server.raft.counters();
    assert_eq!((counters.regressions, counters.rejections), (1, 1));
    assert_eq!(server.appends_to(2), [(1, (2..=index).collect())]);
    // What it had counts for nothing until it says so again.
    let next = server.propose(b"y");
    server.flush();
    assert_eq!(server.commit(), index);
    server.hear(2, 2, accepted(index));
    assert_eq!(server.commit(), index);
    server.hear(2, 2, accepted(next));
    assert_eq!(server.commit(), next);
}

/// A hint beyond the place that was asked about is no way forward.
#[test]
fn section_3_5_a_rejections_hint_never_leads_forward() {
    let mut server = start(&[0, 1, 1, 1, 1]).run();
    server.elect();
    let term = server.term();
    assert_eq!(server.appends_to(2), [(5, vec![6])]);
    server.hear(2, term, rejected(5, 60, 1));
    assert_eq!(server.appends_to(2), [(4, vec![5, 6])]);
    server.hear(2, term, rejected(4, 2, 1));
    assert_eq!(server.appends_to(2), [(2, vec![3, 4, 5, 6])]);
}

/// A leader that has just replaced entries of its former life reads the old ones from its disk: what is in memory is right.
#[test]
fn section_3_5_what_the_disk_still_has_of_a_replaced_entry_is_not_sent() {
    let mut server = start(&[0, 1, 1, 1]).run();
    server.hear(2, 2, append(&log(&[0, 1, 1, 2]), 3, 3));
    server.hear(3, 2, accepted(0));
    server.flush();
    server.raft.evict(0, LogIndex(3));
    let cached = server.raft.log().first_cached().0;
    assert_eq!(cached, 4, "what is not applied stays in memory");
    server.elect();
    let term = server.term();
    server.take();
    server.hear(3, term, rejected(4, 1, 0));
    let fetch = *server.fetches.last().expect("from the disk");
    assert_eq!((fetch.peer, fetch.from), (NodeId(3), LogIndex(2)));
    server.take();
    // Nothing can be read: it is asked again when a probe would be.
    let fetches = server.fetches.len();
    server.raft.handle_fetched(server.now, NodeId(3), Vec::new());
    server.turn();
    assert_eq!(server.fetches.len(), fetches, "not at once");
    for _ in 0..3 {
        server.run_for(HEARTBEAT);
        for message in server.take_to(2) {
            if let Body::Heartbeat(beat) = message.body {
                server.hear(2, term, alive(beat.probe));
            }
        }
    }
    assert_eq!(server.fetches.len(), fetches + 1, "and soon");
    server.take();
    // The disk has the entry that was replaced.
    let old = log(&[0, 1, 1, 1]);
    server.raft.handle_fetched(server.now, NodeId(3), old[1..].to_vec());
    server.turn();
    let appends: Vec<_> = server
        .take_to(3)
        .into_iter()
        .filter_map(|message| match message.body {
            Body::Append(append) => Some(append.frames),
            _ => None,
        })
        .collect();
    assert_eq!(appends.first().map(|frames| &frames[..]), Some(&old[1..3]));
}

#[test]
fn section_3_6_3_what_contradicts_a_decided_entry_stops_the_server() {
    for (at, decided, stops) in [(2, 3, true), (3, 3, true), (4, 3, false)] {
        let mut server = start(&[0, 1, 1, 1, 1]).run();
        server.hear(2, 2, append(&log(&[0, 1, 1, 1, 1]), 5, decided));
        server.flush();
        assert_eq!(server.commit(), decided);
        server.take();
        let mut other = vec![0, 1, 1, 1, 1];
        other[at - 1..].fill(2);
        let previous = log(&other)[at - 1].id();
        server.hear(
            2,
            2,
            Body::Append(Append {
                previous,
                frames: vec![],
                commit: LogIndex(0),
                probe: 0,
                promise: std::time::Duration::ZERO,
            }),
        );
        assert_eq!(server.halted.is_some(), stops, "entry {at}, {decided} decided");
        assert_eq!(server.take().is_empty(), stops, "it is rejected, or the server says nothing more");
    }
}

#[test]
fn section_3_5_an_append_behind_the_last_index_there_is_is_not_looked_at() {
    let mut server = start(&[0, 1]).run();
    let previous = EntryId { index: LogIndex(u64::MAX), ..log(&[0, 1])[1].id() };
    server.hear(
        2,
        1,
        Body::Append(Append {
            previous,
            frames: vec![],
            commit: LogIndex(0),
            probe: 0,
            promise: std::time::Duration::ZERO,
        }),
    );
    assert_eq!(server.raft.counters().malformed, 1);
    assert_eq!(server.take(), []);
    let previous = EntryId { index: LogIndex(u64::MAX - 1), ..previous };
    server.hear(
        2,
        1,
        Body::Append(Append {
            previous,
            frames: vec![],
            commit: LogIndex(0),
            probe: 0,
            promise: std::time::Duration::ZERO,
        }),
    );
    assert_eq!(server.take().len(), 1, "that could be");
}

#[test]
fn figure_3_1_followers_that_are_sent_entries_do_not_stand() {
    let mut server = start(&[0, 1]).run();
    let whole = log(&[0, 1, 1, 1, 1, 1, 1, 1, 1, 1]);
    for until in 3..=10 {
        server.hear(2, 1, append(&whole[..until], until - 1, 1));
        server.flush();
        server.run_for(TIMEOUT - MOMENT);
        assert_eq!(server.role(), RoleName::Follower, "{until}");
    }
}

/// What is on the disk is acknowledged at once, whatever else is on its way there.
#[test]
fn section_10_2_1_what_is_on_the_disk_does_not_wait_for_what_is_not() {
    let mut server = start(&[0, 1, 1]).run();
    let whole = log(&[0, 1, 1, 1]);
    server.hear(2, 1, append(&whole, 3, 1));
    assert_eq!(server.take(), [], "its own entry is on the way");
    for matched in [2, 3] {
        server.hear(2, 1, append(&whole[..matched], matched, 1));
        assert_eq!(server.take(), [(2, said(1, accepted(matched as u64)))]);
    }
    server.flush();
    assert_eq!(server.take(), [(2, said(1, accepted(4)))]);
}

/// In memory, up to a bound; and only when the founding entry is on the disk.
#[test]
fn differs_in_mem_first_entries_are_acknowledged_from_memory_up_to_the_bound() {
    let mut start = start(&[0]);
    start.config.durability = Durability::MemFirst;
    start.config.unflushed_entries = 2;
    let mut server = start.run();
    server.hear(2, 1, heartbeat(1, 0));
    server.flush();
    server.take();
    let whole = log(&[0, 1, 1, 1, 1]);
    for (until, at_once) in [(2, true), (3, true), (4, false)] {
        server.hear(2, 1, append(&whole[..until], until - 1, 1));
        assert_eq!(!server.take().is_empty(), at_once, "{until}");
    }
    server.flush();
    assert_eq!(server.take(), [(2, said(1, accepted(4)))]);
    server.hear(2, 1, append(&whole, 4, 1));
    assert_eq!(server.take(), [(2, said(1, accepted(5)))], "one is not flushed, of five");
}

/// An answer to an append is an answer to the probe that came with it.
#[test]
fn section_6_4_step_3_an_answered_append_recognises_the_leader() {
    let mut server = leader();
    let round = server.raft.join_read_round().expect("it leads");
    server.turn();
    let outcome = AppendOutcome::Accepted { matched: LogIndex(server.last().0) };
    server.hear(2, 2, Body::Appended(Appended { outcome, probe: round.probe }));
    assert!(server.raft.is_confirmed(round));
}

/// Who was told with an append is not told once more, and who was not is told soon.
#[test]
fn section_3_5_a_commit_index_is_told_once() {
    let notices = |server: &mut Server| {
        let sent =
            server.take().into_iter().filter(|(_, message)| matches!(message.body, Body::Heartbeat(_)));
        sent.map(|(to, _)| to).collect::<Vec<_>>()
    };
    let mut server = leader();
    to_a_heartbeat(&mut server);
    let index = server.propose(b"x");
    server.flush();
    server.take();
    server.hear(2, 2, accepted(index));
    assert_eq!(server.commit(), index);
    server.propose(b"y");
    server.take();
    server.run_for(HEARTBEAT / 20);
    assert_eq!(notices(&mut server), [0_u64; 0], "both have it from the append");
    server.hear(2, 2, accepted(index + 1));
    server.flush();
    assert_eq!(server.commit(), index + 1);
    assert_eq!(notices(&mut server), [0_u64; 0], "soon, and not at once");
    server.run_for(HEARTBEAT / 20);
    assert_eq!(notices(&mut server), [2, 3]);
    server.run_for(HEARTBEAT / 20);
    assert_eq!(notices(&mut server), [0_u64; 0]);
    server.hear(2, 2, accepted(index + 1));
    server.run_for(HEARTBEAT / 20);
    assert_eq!(notices(&mut server), [0_u64; 0], "nothing is new");
}

#[test]
fn section_3_10_the_successor_is_told_once_and_nobody_else_is() {
    let told = |server: &mut Server| {
        let sent = server.take().into_iter().filter(|(_, message)| message.body == Body::TimeoutNow);
        sent.map(|(to, _)| to).collect::<Vec<_>>()
    };
    let mut server = leader();
    let index = server.propose(b"x");
    server.flush();
    server.raft.transfer_leadership(server.now, NodeId(2)).expect("a voter");
    server.turn();
    server.hear(3, 2, accepted(index));
    assert_eq!(told(&mut server), [0_u64; 0]);
    server.hear(2, 2, accepted(index));
    assert_eq!(told(&mut server), [2]);
    for peer in [2, 3, 2] {
        server.hear(peer, 2, accepted(index));
        assert_eq!(told(&mut server), [0_u64; 0]);
    }
}

/// The word may arrive long after the transfer was given up: there is no lease in this term any more. Where it was never said,
/// the lease goes on.
#[test]
fn section_6_4_1_a_transfer_that_was_given_up_ends_the_lease_only_if_the_successor_was_told() {
    for told in [true, false] {
        let mut server = leader();
        if !told {
            server.propose(b"the successor does not have it");
        }
        server.raft.transfer_leadership(server.now, NodeId(2)).expect("a voter");
        server.turn();
        for _ in 0..7 {
            server.run_for(HEARTBEAT);
            for message in server.take_to(3) {
                if let Body::Heartbeat(beat) = message.body {
                    server.hear(3, 2, alive(beat.probe));
                }
            }
        }
        assert!(!server.raft.is_transferring());
        assert_eq!(server.raft.lease().is_some(), !told);
    }
}

/// Followers that came back empty count for nothing, and what was decided stays decided.
#[test]
fn section_3_6_2_what_is_decided_stays_so_when_those_who_held_it_come_back_empty() {
    let mut server = leader();
    let first = server.propose(b"x");
    let second = server.propose(b"y");
    server.flush();
    server.hear(2, 2, accepted(second));
    assert_eq!(server.commit(), second);
    for peer in [2, 3] {
        server.raft.handle_reconnect(NodeId(peer));
    }
    server.turn();
    for matched in [first - 1, first] {
        server.hear(2, 2, accepted(matched));
        assert_eq!(server.commit(), second);
    }
}

/// The bound on what is on the way may change at any moment, and each time that it holds something back is counted.
#[test]
fn section_10_2_2_the_bound_on_what_is_on_the_way_may_change() {
    let mut server = leader();
    server.raft.set_in_flight_bytes(1);
    let before = server.raft.counters().windows_full;
    for _ in 0..4 {
        server.propose(b"x");
    }
    assert_eq!(server.appends_to(2).len(), 1, "one is always on its way");
    assert_eq!(server.raft.counters().windows_full, before + 6, "three entries, two peers");
    server.raft.set_in_flight_bytes(1 << 20);
    server.propose(b"y");
    assert_eq!(server.appends_to(2).len(), 1, "all that was held back");
    assert_eq!(server.raft.counters().windows_full, before + 6);
}

/// Who was heard lately and has most; nobody who was not heard, and no learner.
#[test]
fn section_3_10_the_successor_is_a_voter_that_was_heard_and_has_most() {
    let mut server = start(&[0, 1]).founders(membership(&[1, 2, 3], &[], &[4])).run();
    server.lead();
    let successor = |server: &Server| server.raft.successor(server.now).map(|peer| peer.0);
    assert_eq!(successor(&server), None, "nobody answered a probe");
    let index = server.propose(b"x");
    let round = server.raft.join_read_round().expect("it leads");
    server.turn();
    for peer in [2, 3, 4] {
        server.hear(peer, 2, alive(round.probe));
    }
    let more = server.propose(b"y");
    for (peer, matched, best) in [(4, more, None), (3, index, Some(3)), (2, more, Some(2))] {
        server.hear(peer, 2, accepted(matched));
        let now = successor(&server).expect("two voters were heard");
        assert!(now != 4 && best.is_none_or(|best| now == best), "{peer} has {matched}: {now}");
    }
    server.wait(TIMEOUT - MOMENT);
    assert!(successor(&server).is_some());
    server.wait(MOMENT);
    assert_eq!(successor(&server), None, "that is long ago");
    assert_eq!(start(&[0, 1]).run().raft.successor(server.now), None, "it does not lead");
}

/// Only the first leader of all looks at a clock on the wall; each later one goes on from the log.
#[test]
fn section_6_3_the_time_goes_on_from_the_log() {
    for (terms, from_the_wall) in [(&[0][..], true), (&[0, 1], false)] {
        let mut server = start(terms).run();
        server.now.wall_ms = 1_000_000;
        server.elect();
        let last = server.raft.log().last().index;
        let stamp = server.raft.log().frame(last).expect("its no-op").timestamp_ms();
        assert_eq!(stamp >= 1_000_000, from_the_wall, "{stamp} after {terms:?}");
    }
}
