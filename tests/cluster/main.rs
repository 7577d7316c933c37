//! Elections, partitions, crashes and restarts of the engine's own nodes in a deterministic cluster.
//!
//! `D_ENGINE_SEEDS=10000 cargo test --test cluster` looks further; `D_ENGINE_SEED=77` runs one seed.

#![allow(clippy::print_stdout)] // What a run did is part of its report.

mod damage;
mod hostile;
mod leases;
mod rules;
mod sequences;
mod world;

use d_engine::node::{Input, RequestError};
use d_engine::raft::message::{Append, Body, Heartbeat};
use d_engine::raft::{Durability, Message as RaftMessage, RoleName};
use std::time::Duration;
use wal::{ChainHash, EntryId, LogIndex, NodeId, Term};
use world::{Faults, Pause, Tally, World};

fn calm(size: u64) -> World {
    let mut world = World::new(1, size, Faults::NONE, Durability::DiskFirst);
    world.run_until("a first leader", 5_000, |world| world.leader().is_some());
    world
}

fn others(world: &World, not: NodeId) -> Vec<NodeId> {
    world.ids().into_iter().filter(|&id| id != not).collect()
}

/// Numbers of questions begin anew with each life of a node: an answer says which life it is for.
#[test]
fn an_answer_to_a_former_life_of_a_node_grants_no_read() {
    use d_engine::node::message::Index;
    let mut world = calm(3);
    // Until the reader knows whom to ask.
    world.run_for(300);
    let leader = world.leader().expect("calm");
    let reader = others(&world, leader)[0];
    world.set_paused(leader, Pause::Stopped);
    let read = world.read(reader);
    for (incarnation, number) in [99, 98].into_iter().flat_map(|life| (0..8).map(move |n| (life, n))) {
        let index = Index { incarnation, number, index: Some(LogIndex(1)) };
        world.feed(reader, Input::Message { from: leader, message: d_engine::node::Message::Index(index) });
    }
    assert!(!world.is_answered(read), "nobody has confirmed anything to this life");
    world.set_paused(leader, Pause::Running);
    world.run_until("the read", 2_000, |world| world.is_answered(read));
    world.settle();
}

#[test]
fn a_single_node_leads_at_once_and_answers_after_its_flush() {
    let mut world = calm(1);
    let put = world.put(NodeId(1));
    world.run_until("the put", 100, |world| world.is_answered(put));
    world.settle();
}

#[test]
fn three_nodes_elect_one_leader_and_replicate() {
    let mut world = calm(3);
    for _ in 0..20 {
        let leader = world.leader().expect("calm");
        world.put(leader);
    }
    world.settle();
    assert_eq!(world.tally.acknowledged, 21);
}

#[test]
fn a_followers_calls_reach_the_leader_and_come_back() {
    let mut world = calm(3);
    let leader = world.leader().expect("calm");
    for follower in others(&world, leader) {
        world.run_for(200);
        let put = world.put(follower);
        let read = world.read(follower);
        world.run_until("both", 500, |world| world.is_answered(put) && world.is_answered(read));
    }
    assert_eq!((world.tally.acknowledged, world.tally.reads), (2, 2));
    world.settle();
}

#[test]
fn when_the_leader_dies_the_others_go_on_with_everything_acknowledged() {
    let mut world = calm(3);
    let first = world.leader().expect("calm");
    for _ in 0..10 {
        world.put(first);
    }
    world.run_until("answers", 1_000, |world| world.waiting() == 0);
    world.crash(first);
    world.run_until("another leader", 2_000, |world| world.leader().is_some());
    assert_ne!(world.leader(), Some(first));
    world.settle();
    assert_eq!(world.tally.acknowledged, 11);
}

#[test]
fn a_minority_leader_acknowledges_nothing_and_steps_down() {
    let mut world = calm(3);
    let old = world.leader().expect("calm");
    let rest = others(&world, old);
    world.partition(&[old], &rest);
    let put = world.put(old);
    let read = world.read(old);
    world.run_for(1_000);
    assert_ne!(world.node(old).leadership().role, RoleName::Leader, "no quorum, no leader (thesis 6.2)");
    assert_eq!((world.tally.acknowledged, world.tally.reads), (0, 0));
    let new = world.leader().expect("the majority elects another");
    assert!(rest.contains(&new));
    let there = world.put(new);
    world.run_until("the majority's write", 1_000, |world| world.is_answered(there));
    world.settle();
    assert!(world.is_answered(put) && world.is_answered(read));
}

#[test]
fn a_node_that_was_cut_off_does_not_disturb_when_it_returns() {
    let mut world = calm(3);
    let leader = world.leader().expect("calm");
    let cut = others(&world, leader)[0];
    let rest = others(&world, cut);
    let term = world.node(leader).leadership().term;
    world.partition(&[cut], &rest);
    world.run_for(5_000);
    world.heal();
    world.run_for(2_000);
    assert_eq!(world.leader(), Some(leader));
    assert_eq!(world.node(leader).leadership().term, term, "pre-vote keeps the term (thesis 9.6)");
}

#[test]
fn leadership_moves_on_request_and_the_lease_does_not_move_with_it() {
    let mut world = calm(3);
    world.run_for(200);
    let old = world.leader().expect("calm");
    assert!(world.node(old).lease().is_some());
    let to = others(&world, old)[0];
    let transfer = world.transfer(old, to);
    assert!(world.node(old).lease().is_none(), "revoked before the successor is told");
    world.run_until("the transfer", 1_000, |world| world.is_answered(transfer));
    assert_eq!(world.leader(), Some(to));
    world.settle();
}

#[test]
fn a_paused_leader_wakes_up_without_a_lease() {
    let mut world = calm(3);
    world.run_for(200);
    let old = world.leader().expect("calm");
    world.set_paused(old, Pause::Stopped);
    world.run_for(2_000);
    let new = world.leader().expect("another leads meanwhile");
    assert_ne!(new, old);
    let put = world.put(new);
    world.run_until("a write the old leader has not seen", 1_000, |world| world.is_answered(put));
    world.set_paused(old, Pause::Running);
    world.read(old);
    // The checks of lease and read in `World` judge what the old leader says from its first moment on.
    world.run_for(2_000);
    world.settle();
}

#[test]
fn a_node_far_behind_is_fed_from_the_disk() {
    let mut world = calm(3);
    let leader = world.leader().expect("calm");
    let behind = others(&world, leader)[0];
    world.crash(behind);
    for _ in 0..200 {
        let put = world.put(leader);
        world.run_until("a put", 1_000, |world| world.is_answered(put));
    }
    let cached = world.node(leader).raft().log().first_cached();
    assert!(cached > LogIndex(100), "older entries left memory, {cached} is the first there");
    world.settle();
}

#[test]
fn restart_of_one_node_while_another_is_down_brings_the_cluster_up() {
    let mut world = calm(3);
    let leader = world.leader().expect("calm");
    let put = world.put(leader);
    world.run_until("a put", 1_000, |world| world.is_answered(put));
    for id in world.ids() {
        world.crash(id);
    }
    let up = others(&world, leader);
    world.start(up[0]);
    world.start(up[1]);
    world.run_until("a leader of two", 5_000, |world| world.leader().is_some());
    let put = world.put(up[0]);
    world.run_until("a put of two", 2_000, |world| world.is_answered(put));
    world.settle();
    assert_eq!(world.tally.acknowledged, 3);
}

#[test]
fn too_many_calls_are_refused_and_none_is_forgotten() {
    let mut world = calm(3);
    let leader = world.leader().expect("calm");
    let rest = others(&world, leader);
    world.partition(&[leader], &rest);
    for _ in 0..200 {
        world.put(leader);
    }
    assert!(world.waiting() <= 64, "the limit is 64, {} wait", world.waiting());
    assert!(world.tally.refused >= 136);
    world.settle();
}

#[test]
fn messages_that_contradict_themselves_are_dropped_and_counted() {
    let mut world = calm(3);
    world.run_for(200);
    let leader = world.leader().expect("calm");
    let follower = others(&world, leader)[0];
    let stranger = others(&world, leader)[1];
    let term = world.node(leader).leadership().term;
    let raft = |term, body| Input::Message {
        from: stranger,
        message: d_engine::node::Message::Raft(RaftMessage { term, body }),
    };
    let nowhere = EntryId { index: LogIndex(u64::MAX), term: Term(u64::MAX), hash: ChainHash(1) };
    let heartbeat =
        Body::Heartbeat(Heartbeat { probe: u64::MAX, commit: LogIndex(u64::MAX), promise: Duration::ZERO });
    let before = world.node(follower).status();
    // A term nobody can have reached.
    world.feed(follower, raft(Term(u64::MAX), heartbeat.clone()));
    // A second leader of the term.
    world.feed(follower, raft(term, heartbeat.clone()));
    world.feed(leader, raft(term, heartbeat));
    // Entries after the end of all indices.
    let append = |previous| {
        Body::Append(Append {
            previous,
            frames: Vec::new(),
            commit: LogIndex(u64::MAX),
            probe: u64::MAX,
            promise: Duration::ZERO,
        })
    };
    world.feed(
        follower,
        Input::Message {
            from: leader,
            message: d_engine::node::Message::Raft(RaftMessage { term, body: append(nowhere) }),
        },
    );
    let after = world.node(follower).status();
    assert!(after.counters.quarantined_terms > before.counters.quarantined_terms);
    assert!(after.counters.malformed >= before.counters.malformed + 2);
    assert_eq!(after.leadership.term, before.leadership.term);
    world.settle();
}

#[test]
fn a_stopped_node_answers_everybody_and_takes_no_more() {
    use d_engine::kv::{Store, encode_put};
    use d_engine::node::{Limits, Node, Output, Ticket};
    use d_engine::raft::{Config, Membership, Mono, Now, Restored, message::Standing};
    use std::time::Duration;
    let config = Config {
        id: NodeId(1),
        cluster: wal::ClusterId(1),
        group: wal::GroupId::FIRST,
        seed: 1,
        heartbeat: Duration::from_millis(50),
        election_timeout: Duration::from_millis(250),
        promise: Duration::from_millis(250),
        drift_bound_ppm: 0,
        append_bytes: 1024,
        in_flight_bytes: 4096,
        durability: Durability::DiskFirst,
        unflushed_entries: 32,
    };
    let disk = Restored {
        hard_state: wal::HardState::default(),
        commit: LogIndex(0),
        standing: Standing::Whole,
        held: None,
    };
    let founders = Membership::of_voters([1, 2, 3].map(NodeId)).expect("valid");
    let now = Now { mono: Mono(1), wall_ms: 0 };
    let mut node = Node::restoring(config, Limits::default(), 1, Store::new(), disk).begin(now, &founders);
    let mut command = bytes::BytesMut::new();
    encode_put(b"k", b"v", &mut command).expect("small");
    let command = command.freeze();
    node.handle(now, Input::Propose { ticket: Ticket(1), command: command.clone() });
    node.handle(now, Input::Read { ticket: Ticket(2) });
    node.stop();
    node.handle(now, Input::Propose { ticket: Ticket(3), command });
    let mut answered = Vec::new();
    while let Some(output) = node.poll_output() {
        if let Output::Answers(answers) = output {
            for answer in answers {
                assert!(matches!(answer.outcome, Err(RequestError::Stopped)), "{answer:?}");
                answered.push(answer.ticket.0);
            }
        }
    }
    answered.sort_unstable();
    assert_eq!(answered, [1, 2, 3]);
}

/// One run: random faults for a while, then what a healthy cluster owes.
fn storm(seed: u64, durability: Durability) -> Tally {
    let mut random = d_engine::raft::Random::from_seed(seed ^ 0x5EED);
    let size = [1, 3, 3, 3, 5][usize::try_from(random.bits() % 5).expect("small")];
    let faults = if random.bits().is_multiple_of(4) { Faults::NONE } else { Faults::ROUGH };
    let mut world = World::new(seed, size, faults, durability);
    for _ in 0..120 {
        let ids = world.ids();
        let pick = |random: &mut d_engine::raft::Random| {
            ids[usize::try_from(random.bits() % ids.len() as u64).expect("small")]
        };
        let id = pick(&mut random);
        match random.bits() % 40 {
            0..=15 if world.is_up(id) => {
                world.put(id);
            }
            16..=21 if world.is_up(id) => {
                world.read(id);
            }
            22 if world.is_up(id) => {
                let to = pick(&mut random);
                world.transfer(id, to);
            }
            // `MemFirst` promises nothing once a majority has forgotten.
            23..=25 => {
                let forgot = ids.iter().filter(|&&other| other == id || !world.remembers(other)).count();
                if world.is_up(id) && (durability == Durability::DiskFirst || forgot * 2 < ids.len()) {
                    world.crash(id);
                }
            }
            26..=29 if !world.is_up(id) => world.start(id),
            30 => {
                let rest = others(&world, id);
                world.partition(&[id], &rest);
            }
            31 => {
                let to = pick(&mut random);
                world.block(id, to);
            }
            32..=33 => world.heal(),
            34 => world.set_paused(id, Pause::Stopped),
            35..=36 => ids.iter().for_each(|&id| world.set_paused(id, Pause::Running)),
            _ => {}
        }
        world.run_for(random.bits() % 120);
    }
    world.settle();
    for id in world.ids() {
        world.tally.elections += world.node(id).status().counters.elections;
    }
    world.tally
}

/// Clocks as far apart as the bound allows, messages that take longer than an election, disks that hang, long pauses.
fn hurricane(seed: u64, durability: Durability) -> Tally {
    let mut random = d_engine::raft::Random::from_seed(seed ^ 0xBAD);
    let mut below = move |limit: u64| random.bits() % limit;
    let size = [3, 4, 5, 5][usize::try_from(below(4)).expect("small")];
    let faults = Faults {
        loss: [0, 5, 30][usize::try_from(below(3)).expect("small")],
        duplication: [0, 10, 50][usize::try_from(below(3)).expect("small")],
        delay_ms: [1, 20, 60, 400][usize::try_from(below(4)).expect("small")],
        flush_ms: [1, 30, 200][usize::try_from(below(3)).expect("small")],
        drift_ppm: 50_000,
    };
    let mut world = World::new(seed, size, faults, durability);
    for _ in 0..200 {
        let ids = world.ids();
        let pick =
            |below: &mut dyn FnMut(u64) -> u64| ids[usize::try_from(below(ids.len() as u64)).expect("small")];
        let id = pick(&mut below);
        match below(48) {
            0..=11 if world.is_up(id) => {
                for _ in 0..1 + below(6) {
                    world.put(id);
                }
            }
            12..=17 if world.is_up(id) => {
                world.read(id);
            }
            18..=19 if world.is_up(id) => {
                let to = pick(&mut below);
                world.transfer(id, to);
            }
            20..=22 => {
                let forgot = ids.iter().filter(|&&other| other == id || !world.remembers(other)).count();
                if world.is_up(id) && (durability == Durability::DiskFirst || forgot * 2 < ids.len()) {
                    if below(2) == 0 { world.crash(id) } else { world.crash_forgetting(id) }
                }
            }
            23..=27 if !world.is_up(id) => world.start(id),
            // A crash and a start with nothing between.
            28 if world.is_up(id) && durability == Durability::DiskFirst => {
                world.crash(id);
                world.start(id);
            }
            29..=30 => {
                let half: Vec<_> = ids.iter().copied().filter(|_| below(2) == 0).collect();
                let rest: Vec<_> = ids.iter().copied().filter(|id| !half.contains(id)).collect();
                world.partition(&half, &rest);
            }
            31..=33 => {
                let to = pick(&mut below);
                world.block(id, to);
            }
            34..=36 => world.heal(),
            37..=38 => world.set_paused(id, Pause::Stopped),
            39..=41 => ids.iter().for_each(|&id| world.set_paused(id, Pause::Running)),
            42 => world.set_stalled(id, true),
            43..=44 => ids.iter().for_each(|&id| world.set_stalled(id, false)),
            45 if world.is_up(id) => {
                let peer = pick(&mut below);
                if peer != id {
                    world.feed(id, Input::Disconnected(peer));
                    world.feed(id, Input::Connected(peer));
                }
            }
            _ => {}
        }
        let wait = if below(12) == 0 { 1_500 } else { 90 };
        world.run_for(below(wait));
    }
    for id in world.ids() {
        world.set_stalled(id, false);
    }
    world.settle();
    for id in world.ids() {
        world.tally.elections += world.node(id).status().counters.elections;
    }
    world.tally
}

#[test]
fn hurricanes_break_no_promise_on_disk() {
    weather(Durability::DiskFirst, hurricane);
}

#[test]
fn hurricanes_break_no_promise_in_memory() {
    weather(Durability::MemFirst, hurricane);
}

fn storms(durability: Durability) {
    weather(durability, storm);
}

fn weather(durability: Durability, run: impl Fn(u64, Durability) -> Tally) {
    let from_environment = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    if let Some(seed) = from_environment("D_ENGINE_SEED") {
        println!("seed {seed}: {:?}", run(seed, durability));
        return;
    }
    let seeds = from_environment("D_ENGINE_SEEDS").unwrap_or(300);
    let mut sum = Tally::default();
    for seed in 0..seeds {
        let tally = run(seed, durability);
        sum.acknowledged += tally.acknowledged;
        sum.unknown += tally.unknown;
        sum.refused += tally.refused;
        sum.reads += tally.reads;
        sum.lease_checks += tally.lease_checks;
        sum.elections += tally.elections;
        sum.crashes += tally.crashes;
    }
    println!("{seeds} seeds: {sum:?}");
    assert!(
        sum.acknowledged > seeds && sum.reads > seeds && sum.lease_checks > seeds,
        "the runs do something"
    );
    assert!(sum.elections > seeds, "leaders change");
    assert!(sum.crashes > seeds / 2, "nodes crash");
}

#[test]
fn storms_of_faults_break_no_promise_on_disk() {
    storms(Durability::DiskFirst);
}

#[test]
fn storms_of_faults_break_no_promise_in_memory() {
    storms(Durability::MemFirst);
}

#[test]
fn the_same_seed_is_the_same_run() {
    let run = |seed| format!("{:?}", storm(seed, Durability::DiskFirst));
    assert_eq!(run(7), run(7));
    assert_ne!(run(7), run(8));
}
