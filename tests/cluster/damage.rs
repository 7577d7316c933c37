//! A disk that lost what was durable. What the damaged replica acknowledged stays decided; what it still says about it is
//! what it would have said before; and its peers give back what is gone.

use super::rules::Single;
use super::world::{Extent, Faults, Pause, Tally, World};
use super::{calm, others, weather};
use d_engine::node::{Input, RequestError};
use d_engine::raft::message::{Append, Body, Candidacy, Decision, Election, Heartbeat, Standing, Vote};
use d_engine::raft::{Durability, Held, RoleName};
use std::time::Duration;
use wal::{FrameBuilder, FrameHead, GroupId, LogIndex, NodeId, Term};

/// Three calm nodes: the leader, a follower that is about to be damaged, and one that is cut off and has not seen the
/// last write, which was acknowledged at `LogIndex`.
fn a_write_on_two_of_three() -> (World, [NodeId; 3], LogIndex) {
    let mut world = calm(3);
    world.run_for(300);
    let leader = world.leader().expect("calm");
    let (damaged, without) = (others(&world, leader)[0], others(&world, leader)[1]);
    world.partition(&[without], &[leader, damaged]);
    let put = world.put(leader);
    world.run_until("a write on two of three", 1_000, |world| world.is_answered(put));
    let at = world.node(leader).raft().commit();
    world.run_until("it is on the follower's disk", 1_000, |world| {
        world.disk(damaged).frames.len() as u64 >= at.0
    });
    (world, [leader, damaged, without], at)
}

#[test]
fn a_damaged_voter_refuses_a_candidate_that_lacks_what_it_held() {
    let (mut world, [leader, damaged, without], at) = a_write_on_two_of_three();
    world.crash(leader);
    world.crash_damaged(damaged, at, Extent::Known);
    world.heal();
    world.start(damaged);
    world.run_for(5_000);
    assert_eq!(world.leader(), None, "the only whole copy is on the node that is down");
    assert_eq!(world.node(damaged).status().standing, Standing::Damaged);
    assert_eq!(world.node(without).status().standing, Standing::Whole);
    world.settle();
    assert!(world.remembers(damaged));
    assert_eq!(world.disk(damaged).held, None, "and its disk says so");
}

#[test]
fn a_damaged_voter_elects_a_candidate_that_has_what_it_held_and_is_repaired() {
    let mut world = calm(3);
    world.run_for(300);
    let leader = world.leader().expect("calm");
    let damaged = others(&world, leader)[0];
    for _ in 0..10 {
        let put = world.put(leader);
        world.run_until("a put", 1_000, |world| world.is_answered(put));
    }
    world.run_for(300);
    world.crash(leader);
    // From the middle: what lies after the damage is gone as well.
    world.crash_damaged(damaged, LogIndex(4), Extent::Known);
    world.start(damaged);
    world.run_until("a leader of two", 5_000, |world| world.leader().is_some());
    assert_ne!(world.leader(), Some(damaged));
    world.run_until("it is whole", 1_000, |world| {
        world.remembers(damaged) && world.disk(damaged).held.is_none()
    });
    world.settle();
}

#[test]
fn a_voter_that_does_not_know_what_it_held_waits_for_a_later_leader() {
    let mut world = calm(3);
    world.run_for(300);
    let leader = world.leader().expect("calm");
    let damaged = others(&world, leader)[0];
    world.crash(leader);
    world.crash_damaged(damaged, LogIndex(2), Extent::Unknown);
    world.start(damaged);
    world.run_for(5_000);
    assert_eq!(world.leader(), None, "nobody knows whether the one whole node has everything");
    world.settle();
    assert!(world.remembers(damaged));
}

#[test]
fn a_voter_that_does_not_know_what_it_held_is_repaired_without_waiting_for_a_failure() {
    let mut world = calm(3);
    world.run_for(300);
    let leader = world.leader().expect("calm");
    let damaged = others(&world, leader)[0];
    world.crash_damaged(damaged, LogIndex(2), Extent::Unknown);
    world.start(damaged);
    world.run_until("it is whole", 3_000, |world| world.remembers(damaged));
    let leader = world.leader().expect("an election later");
    world.crash(leader);
    world.run_until("one more failure does not stop the group", 5_000, |world| world.leader().is_some());
    world.settle();
}

#[test]
fn damage_is_remembered_over_restarts() {
    let (mut world, [leader, damaged, _], at) = a_write_on_two_of_three();
    world.crash(leader);
    world.crash_damaged(damaged, at, Extent::Known);
    world.heal();
    for _ in 0..3 {
        world.start(damaged);
        world.run_for(2_000);
        assert_eq!(world.leader(), None);
        assert!(!world.remembers(damaged));
        world.crash(damaged);
    }
    world.settle();
}

#[test]
fn two_damaged_replicas_of_three_stop_the_group_and_lose_nothing() {
    let (mut world, [leader, damaged, _], at) = a_write_on_two_of_three();
    world.crash_damaged(leader, at, Extent::Known);
    world.crash_damaged(damaged, at, Extent::Known);
    world.heal();
    world.start(leader);
    world.start(damaged);
    world.run_for(5_000);
    assert_eq!(world.leader(), None, "no disk has the acknowledged write; an election would bury it");
}

#[test]
fn a_damaged_leader_comes_back_as_a_follower() {
    let mut world = calm(3);
    world.run_for(300);
    let leader = world.leader().expect("calm");
    let rest = others(&world, leader);
    world.partition(&[leader], &rest);
    world.put(leader);
    world.run_for(30);
    let last = world.node(leader).raft().log().last().index;
    world.crash_damaged(leader, last, Extent::Known);
    world.heal();
    world.start(leader);
    // What it alone had was never decided, and nobody waits for it.
    world.run_until("another leader", 3_000, |world| world.leader().is_some());
    assert_ne!(world.leader(), Some(leader));
    world.settle();
    assert!(world.remembers(leader));
}

/// The leader counts an acknowledgement that was given by a disk which does not hold it any more.
fn an_acknowledgement_outlives_its_entry(extent: Extent) {
    let mut world = calm(3);
    world.run_for(300);
    let leader = world.leader().expect("calm");
    let (damaged, without) = (others(&world, leader)[0], others(&world, leader)[1]);
    world.partition(&[without], &[leader, damaged]);
    world.line_ms = 60;
    world.run_for(150);
    let put = world.put(leader);
    let at = world.node(leader).raft().log().last().index;
    world.run_until("it is on the follower's disk", 500, |world| {
        world.disk(damaged).frames.len() as u64 >= at.0
    });
    assert!(!world.is_answered(put), "the acknowledgement is on its way");
    world.crash_damaged(damaged, at, extent);
    world.start(damaged);
    // Messages of the former life arrive. Whether the leader goes on or an election is held: nothing is forgotten.
    world.run_for(70);
    let acknowledged = world.tally.acknowledged;
    world.crash(leader);
    world.line_ms = 0;
    world.heal();
    world.run_for(5_000);
    if acknowledged > 0 && world.node(damaged).status().standing == Standing::Damaged {
        assert_eq!(world.leader(), None);
    }
    world.settle();
}

#[test]
fn an_acknowledgement_that_outlives_its_entry_is_kept() {
    an_acknowledgement_outlives_its_entry(Extent::Known);
}

#[test]
fn an_acknowledgement_that_outlives_its_entry_is_kept_by_one_that_does_not_know_what_it_held() {
    an_acknowledgement_outlives_its_entry(Extent::Unknown);
}

#[test]
fn a_cut_of_power_to_all_disks_without_damage_leaves_everybody_whole() {
    let mut world = calm(3);
    let leader = world.leader().expect("calm");
    let put = world.put(leader);
    world.run_until("a put", 1_000, |world| world.is_answered(put));
    for id in world.ids() {
        world.crash_forgetting(id);
    }
    for id in world.ids() {
        world.start(id);
        assert!(world.remembers(id));
    }
    world.run_until("a leader", 5_000, |world| world.leader().is_some());
    world.settle();
}

#[test]
fn a_damaged_node_among_forgetful_ones_lets_them_go_on() {
    let mut world = World::new(1, 3, Faults::NONE, Durability::MemFirst);
    world.run_until("a first leader", 5_000, |world| world.leader().is_some());
    world.run_for(300);
    let leader = world.leader().expect("calm");
    let damaged = others(&world, leader)[0];
    for id in others(&world, damaged) {
        world.crash_forgetting(id);
    }
    world.crash_damaged(damaged, LogIndex(2), Extent::Known);
    world.settle();
    assert!(world.remembers(damaged));
}

#[test]
fn one_that_forgot_and_one_that_is_damaged_are_not_a_majority_that_forgot() {
    let mut world = World::new(1, 3, Faults::NONE, Durability::MemFirst);
    world.run_until("a first leader", 5_000, |world| world.leader().is_some());
    world.run_for(300);
    let leader = world.leader().expect("calm");
    let (damaged, forgetful) = (others(&world, leader)[0], others(&world, leader)[1]);
    world.crash_damaged(damaged, LogIndex(2), Extent::Known);
    world.crash_forgetting(forgetful);
    world.crash(leader);
    world.start(damaged);
    world.start(forgetful);
    world.run_for(5_000);
    assert_eq!(
        world.leader(),
        None,
        "the damaged disk is no proof that nobody else has what was acknowledged"
    );
}

#[test]
#[should_panic(expected = "the log on this node's disk is damaged: log-1 at byte 4096")]
fn a_node_that_meets_damage_stops() {
    let mut world = calm(3);
    let leader = world.leader().expect("calm");
    world.feed(leader, Input::Damaged("log-1 at byte 4096".into()));
}

const HELD: Held = Held { term: Term(3), index: LogIndex(7) };

/// Node 1 of three whose log has two entries, the last of term 1, and once reached to entry 7 of term 3.
fn damaged() -> Single {
    Single::restored(3, Standing::Whole, Some(HELD), Durability::DiskFirst)
}

fn ask(node: &mut Single, election: Election, last: Held) -> Decision {
    // Long enough for every promise to have run out.
    node.now.mono.0 += 300_000_000;
    let candidacy =
        Candidacy { election, last_term: last.term, last_index: last.index, standing: Standing::Whole };
    let term = node.raft.term().0 + 1;
    node.hear(2, term, Body::Candidacy(candidacy));
    node.flush();
    let votes = std::mem::take(&mut node.said).into_iter().filter_map(|(_, message)| match message.body {
        Body::Vote(Vote { decision, standing, .. }) => Some((decision, standing)),
        _ => None,
    });
    let (decision, standing) = votes.last().expect("an answer");
    assert_eq!(standing, node.raft.standing());
    decision
}

#[test]
fn thesis_3_6_1_a_damaged_voter_compares_with_what_it_held() {
    use Decision::{Granted, Refused};
    for election in [Election::PreVote, Election::Vote, Election::Transfer] {
        for (term, index, expected) in [
            (1, 2, Refused),
            (2, 99, Refused),
            (3, 6, Refused),
            (3, 7, Granted),
            (3, 8, Granted),
            (4, 3, Granted),
        ] {
            let last = Held { term: Term(term), index: LogIndex(index) };
            assert_eq!(ask(&mut damaged(), election, last), expected, "{election:?} {last:?}");
        }
        let any = Held { term: Term(3), index: Held::ANY_INDEX };
        let unknown = || Single::restored(3, Standing::Whole, Some(any), Durability::DiskFirst);
        let last = |term| Held { term: Term(term), index: LogIndex(1_000) };
        assert_eq!(ask(&mut unknown(), election, last(3)), Refused);
        assert_eq!(ask(&mut unknown(), election, last(4)), Granted);
    }
}

#[test]
fn a_damaged_node_does_not_stand_for_election_even_when_asked_to() {
    let mut node = damaged();
    node.hear(2, 4, Body::Heartbeat(Heartbeat { probe: 1, commit: LogIndex(0), promise: Duration::ZERO }));
    node.flush();
    node.hear(2, 4, Body::TimeoutNow);
    assert_eq!((node.raft.role(), node.raft.term()), (RoleName::Follower, Term(4)));
    node.said.clear();
    while node.raft.leader().is_some() {
        node.now.mono = node.raft.poll_timeout().expect("an election timeout");
        node.raft.handle_timeout(node.now);
        node.turn();
    }
    assert!(node.said.is_empty(), "it asks nobody for anything: {:?}", node.said);
    assert_eq!(node.raft.role(), RoleName::Follower);
    assert_eq!(node.raft.leader(), None, "and waits for no one in particular");
}

/// What is gone from its memory may have been counted on: its own ballot is as good as that of one who was never there.
#[test]
fn a_forgetful_node_does_not_elect_itself_unless_a_majority_has_forgotten() {
    for (other, enough) in [(Standing::Whole, false), (Standing::Damaged, false), (Standing::Suspect, true)] {
        let mut node = Single::restored(1, Standing::Suspect, None, Durability::MemFirst);
        node.now.mono = node.raft.poll_timeout().expect("an election timeout");
        node.raft.handle_timeout(node.now);
        node.turn();
        for (election, asks, won) in [
            (Election::PreVote, RoleName::PreCandidate, RoleName::Candidate),
            (Election::Vote, RoleName::Candidate, RoleName::Leader),
        ] {
            let granted = |standing| Body::Vote(Vote { election, decision: Decision::Granted, standing });
            assert_eq!(node.raft.role(), asks);
            node.hear(2, 2, granted(other));
            assert_eq!(node.raft.role() == won, enough, "one other, {other:?}, and itself: {election:?}");
            node.hear(3, 2, granted(Standing::Whole));
            assert_eq!(node.raft.role(), won, "two others");
            node.flush();
        }
    }
}

#[test]
fn a_damaged_node_is_whole_once_its_disk_has_what_it_held() {
    let mut node = damaged();
    let mut previous = node.raft.log().last();
    for term in [2, 3, 3, 3, 3] {
        let head = FrameHead { group: GroupId::FIRST, term: Term(term), previous, timestamp_ms: 0 };
        let frame = FrameBuilder::noop(head);
        // The leader of term 3 sends what it has: decided or not is not the question.
        let append = Append {
            previous,
            frames: vec![frame.clone()],
            commit: LogIndex(2),
            probe: 0,
            promise: Duration::ZERO,
        };
        previous = frame.id();
        node.hear(2, 3, Body::Append(append));
        assert_eq!(node.raft.standing(), Standing::Damaged, "{previous:?} is not on its disk");
        assert!(node.writes.iter().all(|write| !write.says_whole()));
        let reached = (previous.term, previous.index) >= (HELD.term, HELD.index);
        for write in std::mem::take(&mut node.writes) {
            let proof = wal::Flushed::simulated(write.id());
            node.raft.handle_written(node.now, write.flushed(proof));
        }
        assert_eq!(node.raft.standing() == Standing::Whole, reached, "{previous:?}");
        node.turn();
        assert_eq!(node.writes.iter().any(|write| write.says_whole()), reached, "the state record is told");
        node.flush();
    }
    assert_eq!(node.raft.standing(), Standing::Whole);
    assert_eq!(node.raft.held(), None);
}

#[test]
fn a_node_whose_disk_has_again_what_it_held_is_whole_at_the_start_and_says_so_once() {
    let held = Held { term: Term(1), index: LogIndex(2) };
    let mut node = Single::restored(3, Standing::Whole, Some(held), Durability::DiskFirst);
    assert_eq!((node.raft.standing(), node.raft.held()), (Standing::Whole, None));
    node.turn();
    assert!(node.writes.iter().any(|write| write.says_whole()), "the state record is told");
    node.flush();
    node.hear(2, 4, Body::Heartbeat(Heartbeat { probe: 1, commit: LogIndex(0), promise: Duration::ZERO }));
    assert!(!node.writes.is_empty() && node.writes.iter().all(|write| !write.says_whole()), "and only once");
}

#[test]
fn one_that_ran_in_memory_and_counts_on_disks_now_waits_for_its_disk_and_a_new_term() {
    let mut node = Single::restored(3, Standing::Suspect, None, Durability::DiskFirst);
    node.turn();
    assert_eq!(node.raft.term(), Term(4), "the leader of term 3 may have counted on more than is here");
    node.flush();
    let previous = node.raft.log().last();
    let frame =
        FrameBuilder::noop(FrameHead { group: GroupId::FIRST, term: Term(4), previous, timestamp_ms: 0 });
    let commit = frame.index();
    node.hear(
        2,
        4,
        Body::Append(Append { previous, frames: vec![frame], commit, probe: 0, promise: Duration::ZERO }),
    );
    assert_eq!(node.raft.standing(), Standing::Suspect);
    node.flush();
    assert_eq!(node.raft.standing(), Standing::Whole);
}

#[test]
fn damaged_in_memory_first_nothing_bounds_what_was_acknowledged() {
    // Run from the disk now, it has acknowledged from memory before.
    for durability in [Durability::MemFirst, Durability::DiskFirst] {
        let node = Single::restored(3, Standing::Suspect, Some(HELD), durability);
        let anything = Held { term: Term(3), index: Held::ANY_INDEX };
        assert_eq!(node.raft.held(), Some(anything), "{durability:?}");
        assert_eq!(node.raft.term(), Term(4), "{durability:?}: only a later leader's entry ends the doubt");
    }
}

/// After a crash an empty log is taken for one that never acknowledged anything.
#[test]
fn nothing_is_acknowledged_from_memory_before_the_first_entry_is_on_disk() {
    let mut node = Single::first_started(Durability::MemFirst);
    let accepts = |node: &mut Single| {
        let said = std::mem::take(&mut node.said);
        said.iter().any(|(_, message)| matches!(message.body, Body::Appended(_)))
    };
    let mut previous = node.raft.log().last();
    let mut append = |node: &mut Single| {
        let head = FrameHead { group: GroupId::FIRST, term: Term(1), previous, timestamp_ms: 0 };
        let frame = FrameBuilder::noop(head);
        let append = Append {
            previous,
            frames: vec![frame.clone()],
            commit: LogIndex(1),
            probe: 0,
            promise: Duration::ZERO,
        };
        previous = frame.id();
        node.hear(2, 1, Body::Append(append));
    };
    for _ in 0..3 {
        append(&mut node);
        assert!(!accepts(&mut node), "neither its term nor its first entry is on disk");
    }
    node.flush();
    assert!(accepts(&mut node));
    append(&mut node);
    assert!(accepts(&mut node), "from now on memory counts");
    assert!(!node.writes.is_empty(), "and the disk follows");
}

/// Crashes, partitions and damage; at no time does a majority lack what it acknowledged.
fn blight(seed: u64, durability: Durability) -> Tally {
    let mut random = d_engine::raft::Random::from_seed(seed ^ 0xB116);
    let mut below = move |limit: u64| random.bits() % limit;
    let size = [3, 3, 5][usize::try_from(below(3)).expect("small")];
    let faults = if below(3) == 0 { Faults::NONE } else { Faults::ROUGH };
    let mut world = World::new(seed, size, faults, durability);
    world.line_ms = [0, 0, 30][usize::try_from(below(3)).expect("small")];
    for _ in 0..150 {
        let ids = world.ids();
        let id = ids[usize::try_from(below(ids.len() as u64)).expect("small")];
        match below(40) {
            0..=12 if world.is_up(id) => {
                world.put(id);
            }
            13..=15 if world.is_up(id) => {
                world.read(id);
            }
            16 if world.is_up(id) => {
                let to = ids[usize::try_from(below(ids.len() as u64)).expect("small")];
                world.transfer(id, to);
            }
            17..=20 => {
                let doubtful = ids.iter().filter(|&&other| other == id || world.is_doubtful(other)).count();
                let bearable = doubtful * 2 < ids.len();
                if world.is_up(id) && bearable {
                    let last = world.disk(id).frames.len() as u64;
                    let from = LogIndex((last + 1).saturating_sub(below(6)).max(1 + below(2)));
                    let extent = if below(3) == 0 { Extent::Unknown } else { Extent::Known };
                    world.crash_damaged(id, from, extent);
                    if below(2) == 0 {
                        world.start(id);
                    }
                } else if world.is_up(id) && durability == Durability::DiskFirst {
                    world.crash(id);
                }
            }
            21..=26 if !world.is_up(id) => world.start(id),
            27..=28 => {
                let rest = others(&world, id);
                world.partition(&[id], &rest);
            }
            29..=33 => world.heal(),
            34 => world.set_paused(id, Pause::Stopped),
            35..=36 => ids.iter().for_each(|&id| world.set_paused(id, Pause::Running)),
            _ => {}
        }
        world.run_for(below(90));
    }
    world.line_ms = 0;
    world.settle();
    for id in world.ids() {
        world.tally.elections += world.node(id).status().counters.elections;
    }
    world.tally
}

#[test]
fn damage_on_a_minority_of_disks_loses_nothing() {
    weather(Durability::DiskFirst, blight);
}

#[test]
fn damage_on_a_minority_of_disks_loses_nothing_in_memory() {
    weather(Durability::MemFirst, blight);
}

#[test]
fn a_refused_call_says_that_nothing_happened() {
    let (mut world, [leader, damaged, _], at) = a_write_on_two_of_three();
    world.crash(leader);
    world.crash_damaged(damaged, at, Extent::Known);
    world.heal();
    world.start(damaged);
    let put = world.put(damaged);
    world.run_for(3_000);
    assert!(world.is_answered(put), "{}", RequestError::<std::convert::Infallible>::NoLeader);
    world.settle();
}
