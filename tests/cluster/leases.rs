//! Leases end by the time that a leader counts, by an entry of its, and never by mistake.

use super::world::{Faults, Pause, World};
use super::{calm, others};
use bytes::{Bytes, BytesMut};
use d_engine::kv::{
    self, Attach, Command, LeaseId, LogTime, Reply, Store, encode_expire, encode_grant, encode_keep_alive,
    encode_put_attached,
};
use d_engine::node::{Input, Limits, Node, Output, RequestError, Ticket};
use d_engine::raft::message::Standing;
use d_engine::raft::{Config, Durability, Membership, Mono, Now, Restored, RoleName, Write};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};
use wal::{ClusterId, Flushed, Frame, GroupId, HardState, Kind, LogIndex, NodeId};

const HELD: &[u8] = b"held";

fn command(encode: impl FnOnce(&mut BytesMut) -> Result<(), kv::CommandError>) -> Bytes {
    let mut command = BytesMut::new();
    encode(&mut command).expect("within limits");
    command.freeze()
}

fn keep_alive(lease: LeaseId) -> Bytes {
    command(|out| encode_keep_alive(lease, out))
}

fn ask(world: &mut World, at: NodeId, command: Bytes) -> Reply {
    let ticket = world.command(at, command);
    world.run_until("an answer", 5_000, |world| world.is_answered(ticket));
    world.replies.remove(&ticket).expect("applied")
}

/// A lease with a key, and every replica knows of it.
fn hold(world: &mut World, ttl_ms: u64) -> LeaseId {
    let leader = world.leader().expect("there is one");
    let put = command(|out| {
        encode_put_attached(HELD, b"by a lease", Attach::Ttl(Duration::from_millis(ttl_ms)), out)
    });
    let Reply::PutAttached { lease: Some(lease), .. } = ask(world, leader, put) else {
        panic!("put with a time to live")
    };
    world.run_until("replicas", 1_000, |world| world.ids().into_iter().all(|id| is_held(world, id)));
    lease
}

fn is_held(world: &World, id: NodeId) -> bool {
    world.node(id).machine().get(HELD).is_some()
}

fn left(world: &World, id: NodeId, lease: LeaseId) -> Duration {
    world.node(id).machine().lease(lease).expect("it is there").left
}

/// What is true along every log: timestamps do not fall, and what expires is over. Returns how many leases expired.
fn judge_log(frames: &[Frame]) -> usize {
    let mut store = Store::new();
    let mut ends: BTreeMap<LeaseId, LogTime> = BTreeMap::new();
    let (mut last, mut expired) = (0, 0);
    for frame in frames.iter().filter(|frame| frame.kind() == Kind::Commands) {
        let now = LogTime(frame.timestamp_ms());
        assert!(now.0 >= last, "timestamps never fall along a log");
        last = now.0;
        store.advance_to(now);
        for command in frame.commands() {
            let reply = store.apply(command);
            let over = matches!(reply, Reply::Expired { .. });
            ends.retain(|&lease, &mut end| {
                let there = store.lease(lease).is_some();
                // A lease of one key also ends with the next put of the key.
                let put = matches!(reply, Reply::PutAttached { .. });
                assert!(
                    there || (over && end <= now) || put,
                    "{lease} ends at {now}, and is good until {end}"
                );
                expired += usize::from(!there && over);
                there
            });
            if let Reply::PutAttached { lease: Some(lease), .. }
            | Reply::LeaseGranted { lease, .. }
            | Reply::LeaseKept { lease, .. } = reply
            {
                let status = store.lease(lease).expect("it is there");
                ends.insert(lease, now.after(status.left));
            }
        }
    }
    expired
}

/// The timestamps of the entries in a node's log that would end leases and are not decided.
fn expiries(world: &World, id: NodeId) -> impl Iterator<Item = u64> {
    let raft = world.node(id).raft();
    let mut expire = BytesMut::new();
    encode_expire(&mut expire);
    let undecided = raft.log().cached().filter(|frame| frame.index() > raft.commit());
    undecided
        .filter(move |frame| {
            frame.kind() == Kind::Commands && frame.commands().any(|bytes| bytes == &expire[..])
        })
        .map(Frame::timestamp_ms)
}

#[test]
fn a_lease_ends_on_every_replica_when_its_time_is_over_and_not_before() {
    let mut world = calm(3);
    let before = world.milliseconds();
    let lease = hold(&mut world, 1_000);
    world.run_until("the end", 1_200, |world| !is_held(world, world.leader().expect("calm")));
    assert!(world.milliseconds() >= before + 1_000, "not before");
    world.run_until("everywhere", 200, |world| world.ids().into_iter().all(|id| !is_held(world, id)));
    assert!(world.milliseconds() <= before + 1_200);
    world.settle();
    let revision = world.node(NodeId(1)).machine().revision();
    assert!(world.ids().into_iter().all(|id| world.node(id).machine().revision() == revision));
    for id in world.ids() {
        assert_eq!(world.node(id).machine().lease(lease), None);
        assert_eq!(judge_log(&world.disk(id).frames), 1);
    }
}

#[test]
fn an_idle_cluster_without_leases_makes_no_entries_for_them() {
    let mut world = calm(3);
    world.run_for(60_000);
    assert!(world.ids().into_iter().all(|id| world.node(id).applied() <= LogIndex(3)));
    // With one for an hour it makes few: at the end of this minute the sixteenth part of what is left is minutes away.
    hold(&mut world, 3_600_000);
    world.run_for(60_000);
    assert!(world.ids().into_iter().all(|id| world.node(id).applied() <= LogIndex(5)));
}

/// A host that was suspended, with all processes in it: the minute was nobody's.
#[test]
fn a_cluster_that_was_paused_for_a_minute_ends_nothing_by_mistake() {
    let mut world = calm(3);
    let lease = hold(&mut world, 1_000);
    world.run_for(300);
    for id in world.ids() {
        world.set_paused(id, Pause::Stopped);
    }
    world.run_for(60_000);
    for id in world.ids() {
        world.set_paused(id, Pause::Running);
    }
    world.run_until("a leader", 5_000, |world| world.leader().is_some());
    world.run_for(100);
    assert!(world.ids().into_iter().all(|id| is_held(&world, id)), "half of its time is left");
    world.run_until("a leader", 5_000, |world| world.leader().is_some());
    let leader = world.leader().expect("just seen");
    assert!(matches!(ask(&mut world, leader, keep_alive(lease)), Reply::LeaseKept { .. }));
    world.run_for(500);
    assert!(world.ids().into_iter().all(|id| is_held(&world, id)), "and it can be kept alive");
    world.settle();
}

/// Nobody deposes it, so it has to know by itself that the minute was none.
#[test]
fn a_lone_leader_that_was_paused_for_a_minute_ends_nothing_by_mistake() {
    let mut world = calm(1);
    let one = NodeId(1);
    let lease = hold(&mut world, 1_000);
    world.run_for(300);
    world.set_paused(one, Pause::Stopped);
    world.run_for(60_000);
    world.set_paused(one, Pause::Running);
    world.run_for(400);
    assert!(is_held(&world, one), "two heartbeats of the minute count");
    assert!(matches!(ask(&mut world, one, keep_alive(lease)), Reply::LeaseKept { .. }));
    world.run_for(900);
    assert!(is_held(&world, one));
    world.run_for(150);
    assert!(!is_held(&world, one), "it ends when nobody keeps it");
    world.settle();
}

/// The client goes on with the leader of the others; the paused one wakes and is none any more.
#[test]
fn a_leader_that_was_paused_for_a_minute_ends_nothing_that_its_successor_keeps() {
    let mut world = calm(3);
    let lease = hold(&mut world, 1_500);
    let old = world.leader().expect("calm");
    world.set_paused(old, Pause::Stopped);
    let successor = |world: &World| world.leader().filter(|&id| id != old);
    world.run_until("a successor", 5_000, |world| {
        others(world, old).into_iter().any(|id| world.node(id).leadership().role == RoleName::Leader)
    });
    for _ in 0..60 {
        let leader = successor(&world).expect("it leads");
        assert!(matches!(ask(&mut world, leader, keep_alive(lease)), Reply::LeaseKept { .. }));
        world.run_for(1_000);
    }
    world.set_paused(old, Pause::Running);
    world.run_for(400);
    assert!(world.ids().into_iter().all(|id| is_held(&world, id)));
    let leader = world.leader().expect("one of them");
    assert!(matches!(ask(&mut world, leader, keep_alive(lease)), Reply::LeaseKept { .. }));
    world.settle();
    assert!(world.ids().into_iter().all(|id| judge_log(&world.disk(id).frames) == 0));
}

/// A keep-alive a second, and each leader lives for half of that: time goes on from one to the next.
#[test]
fn remaining_time_is_carried_over_leader_changes() {
    let mut world = calm(3);
    let lease = hold(&mut world, 8_000);
    let began = world.milliseconds();
    let mut led = 0;
    for round in 1..=4 {
        world.run_for(1_700);
        led += 1_700;
        let old = world.leader().expect("it led");
        world.crash(old);
        world.run_for(300);
        world.run_until("a successor", 10_000, |world| world.leader().is_some());
        world.start(old);
        let leader = world.leader().expect("just seen");
        world.run_until("its own entry", 1_000, |world| {
            world.node(leader).applied() >= world.node(leader).raft().lease_index().expect("it leads")
        });
        let left = left(&world, leader, lease);
        let passed = Duration::from_millis(8_000) - left;
        // A tick is a sixteenth of what was left at most: what was lost with each leader.
        assert!(passed <= Duration::from_millis(led + 60 * round), "round {round}: {passed:?} of {led} ms");
        let lost = Duration::from_millis(8_000 - led) / 15
            + Duration::from_millis(200)
            + Duration::from_millis(round * 500);
        assert!(passed + lost >= Duration::from_millis(led), "round {round}: {passed:?} of {led} ms");
    }
    world.run_until("the end", 5_000, |world| world.leader().is_some_and(|id| !is_held(world, id)));
    assert!(world.milliseconds() - began >= 8_000, "not before its time");
    world.settle();
    assert!(world.ids().into_iter().all(|id| judge_log(&world.disk(id).frames) == 1));
}

#[test]
fn a_restart_of_all_carries_the_remaining_time_and_the_outage_is_not_in_it() {
    let mut world = calm(3);
    let lease = hold(&mut world, 2_000);
    world.run_for(1_500);
    for id in world.ids() {
        world.crash(id);
    }
    world.run_for(30_000);
    for id in world.ids() {
        world.start(id);
    }
    world.run_until("a leader that knows", 5_000, |world| {
        world.leader().is_some_and(|id| {
            world.node(id).raft().lease_index().is_some_and(|start| world.node(id).applied() >= start)
        })
    });
    let leader = world.leader().expect("just seen");
    let before = left(&world, leader, lease);
    assert!(
        before >= Duration::from_millis(450),
        "half a minute without a leader took none of it: {before:?}"
    );
    assert!(
        before <= Duration::from_millis(700),
        "and what had passed has passed, but for a tick: {before:?}"
    );
    let since = world.milliseconds();
    world.run_until("the end", 800, |world| !is_held(world, leader));
    assert!(world.milliseconds() - since >= 400);
    world.settle();
}

#[test]
fn what_a_deposed_leader_would_end_is_kept_by_its_successor() {
    let mut world = calm(3);
    let lease = hold(&mut world, 1_000);
    let old = world.leader().expect("calm");
    world.run_for(950);
    let rest = others(&world, old);
    world.partition(&[old], &rest);
    world.run_for(150);
    assert_eq!(world.node(old).leadership().role, RoleName::Leader, "it does not know yet");
    let over = world.node(old).machine().log_time().after(left(&world, old, lease));
    assert!(expiries(&world, old).any(|timestamp| timestamp >= over.0), "by its count the lease is over");
    assert!(is_held(&world, old), "but that is not decided");
    let leads =
        |world: &World| rest.iter().copied().find(|&id| world.node(id).leadership().role == RoleName::Leader);
    world.run_until("a successor", 5_000, |world| leads(world).is_some());
    let leader = leads(&world).expect("just seen");
    assert!(matches!(ask(&mut world, leader, keep_alive(lease)), Reply::LeaseKept { .. }));
    world.heal();
    world.run_for(700);
    assert!(world.ids().into_iter().all(|id| is_held(&world, id)));
    world.settle();
    for id in world.ids() {
        let frames = &world.disk(id).frames;
        let end = usize::try_from(world.node(id).applied().0).expect("short");
        judge_log(&frames[..end.min(frames.len())]);
    }
}

/// It may not have applied what its predecessor had decided: a keep-alive, for one.
#[test]
fn a_new_leader_proposes_no_end_before_its_first_entry_is_decided() {
    let mut world = calm(3);
    let lease = hold(&mut world, 600);
    let old = world.leader().expect("calm");
    world.run_for(480);
    world.crash(old);
    let rest = others(&world, old);
    let leads =
        |world: &World| rest.iter().copied().find(|&id| world.node(id).leadership().role == RoleName::Leader);
    world.run_until("a successor", 5_000, |world| leads(world).is_some());
    let leader = leads(&world).expect("just seen");
    let follower = rest.iter().copied().find(|&id| id != leader).expect("another");
    world.set_stalled(follower, true);
    world.run_for(2_000);
    assert_eq!(world.node(leader).leadership().role, RoleName::Leader, "the follower hears and answers");
    assert_eq!(expiries(&world, leader).count(), 0, "the lease is over, but what is decided is not known");
    assert!(is_held(&world, leader) && world.node(leader).machine().lease(lease).is_some());
    world.set_stalled(follower, false);
    world.run_until("the end", 200, |world| !is_held(world, leader));
    world.settle();
}

/// The disk is busy: when it takes the next entry, the lease is over and a keep-alive waits for the same entry.
#[test]
fn a_keep_alive_of_the_same_entry_is_applied_before_the_end() {
    let mut world = calm(1);
    let one = NodeId(1);
    let lease = hold(&mut world, 500);
    world.set_stalled(one, true);
    let put = world.put(one);
    world.run_for(1_000);
    let kept = world.command(one, keep_alive(lease));
    world.set_stalled(one, false);
    world.run_until("the answers", 100, |world| world.is_answered(put) && world.is_answered(kept));
    assert!(matches!(world.replies[&kept], Reply::LeaseKept { .. }));
    world.run_for(400);
    assert!(is_held(&world, one));
    let last = world.disk(one).frames.iter().rfind(|frame| {
        frame.commands().any(|bytes| {
            matches!(Command::decode(&Bytes::copy_from_slice(bytes)), Ok(Command::KeepAlive { .. }))
        })
    });
    assert_eq!(last.expect("it was decided").command_count(), 2, "the two are in one entry");
    world.settle();
}

/// Callers are refused what only a leader's own count may ask for.
#[test]
fn nobody_else_may_propose_an_end() {
    let mut world = calm(3);
    let leader = world.leader().expect("calm");
    let mut expire = BytesMut::new();
    encode_expire(&mut expire);
    let before = world.tally.refused;
    let at_leader = world.command(leader, expire.clone().freeze());
    let elsewhere = others(&world, leader)[0];
    let at_follower = world.command(elsewhere, expire.freeze());
    world.run_until("answers", 3_000, |world| world.is_answered(at_leader) && world.is_answered(at_follower));
    assert_eq!(world.tally.refused - before, 2);
    assert!(world.replies.is_empty());
}

#[test]
fn leases_survive_a_rough_life_by_the_rules() {
    let mut expired = 0;
    let mut kept = 0;
    for seed in 0..12 {
        for durability in [Durability::DiskFirst, Durability::MemFirst] {
            let mut world = World::new(seed, 3, Faults::ROUGH, durability);
            let mut leases = BTreeSet::new();
            for round in 0..150_u64 {
                let id = NodeId(1 + world.random.bits() % 3);
                let dice = world.random.bits() % 100;
                let ttl = Duration::from_millis(100 + world.random.bits() % 1_500);
                if !world.is_up(id) {
                    world.start(id);
                }
                match dice {
                    0..=39 => {
                        let put = command(|out| {
                            let name = format!("rough-{}", round % 17);
                            encode_put_attached(name.as_bytes(), b"x", Attach::Ttl(ttl), out)
                        });
                        world.command(id, put);
                    }
                    40..=54 => drop(world.command(id, command(|out| encode_grant(None, ttl, out)))),
                    55..=84 => {
                        if let Some(&lease) = leases.iter().next_back() {
                            world.command(id, keep_alive(lease));
                        }
                    }
                    85..=89 if durability == Durability::DiskFirst => world.crash(id),
                    90..=93 => {
                        let rest = others(&world, id);
                        world.partition(&[id], &rest);
                    }
                    94..=96 => {
                        world.set_paused(id, Pause::Stopped);
                        world.run_for(800);
                        world.set_paused(id, Pause::Running);
                    }
                    _ => world.heal(),
                }
                let wait = 1 + world.random.bits() % 120;
                world.run_for(wait);
                leases.extend(world.replies.values().filter_map(|reply| match reply {
                    Reply::LeaseGranted { lease, .. } => Some(*lease),
                    Reply::PutAttached { lease, .. } => *lease,
                    _ => None,
                }));
            }
            world.settle();
            kept += world.replies.values().filter(|reply| matches!(reply, Reply::LeaseKept { .. })).count();
            for id in world.ids() {
                // A settled replica's log is decided to its end.
                expired += judge_log(&world.disk(id).frames);
            }
        }
    }
    assert!(expired > 1_000 && kept > 100, "{expired} expired, {kept} kept: something of each was seen");
}

/// One node with the limits of a real one, whose disk takes a millisecond.
struct Alone {
    node: Node<Store>,
    now: Now,
    writes: Vec<Write>,
    answered: usize,
    /// Keys before and after each entry, and how long applying took here.
    steps: Vec<(usize, Duration)>,
}

impl Alone {
    fn new() -> Self {
        let config = Config {
            id: NodeId(1),
            cluster: ClusterId(7),
            group: GroupId::FIRST,
            seed: 1,
            heartbeat: Duration::from_millis(50),
            election_timeout: Duration::from_millis(250),
            promise: Duration::from_millis(250),
            drift_bound_ppm: 100_000,
            append_bytes: 1 << 20,
            in_flight_bytes: 4 << 20,
            durability: Durability::DiskFirst,
            unflushed_entries: 32,
        };
        let limits = Limits { pending_requests: 1 << 20, ..Limits::default() };
        let empty = Restored {
            hard_state: HardState::default(),
            commit: LogIndex(0),
            standing: Standing::Whole,
            held: None,
        };
        let now = Now { mono: Mono(1), wall_ms: 1_700_000_000_000 };
        let founders = Membership::of_voters([NodeId(1)]).expect("one");
        let node = Node::restoring(config, limits, 1, Store::new(), empty).begin(now, &founders);
        Self { node, now, writes: Vec::new(), answered: 0, steps: Vec::new() }
    }

    fn drain(&mut self) {
        let (keys, began) = (self.node.machine().len(), Instant::now());
        while let Some(output) = self.node.poll_output() {
            match output {
                Output::Write(write) => self.writes.push(write),
                Output::Answers(answers) => {
                    for answer in answers {
                        let _: Result<_, RequestError<_>> = answer.outcome;
                        self.answered += 1;
                    }
                }
                _ => {}
            }
        }
        let ended = keys.saturating_sub(self.node.machine().len());
        if ended > 0 {
            self.steps.push((ended, began.elapsed()));
        }
    }

    /// What happens next: a flush a millisecond after its write, or a timeout.
    fn step(&mut self) {
        self.drain();
        if self.writes.is_empty() {
            let at = self.node.poll_timeout().expect("a leader shows that it lives");
            self.now.mono = self.now.mono.max(at);
            self.node.handle(self.now, Input::Timeout);
        } else {
            self.now.mono = self.now.mono.after(Duration::from_millis(1));
            for write in std::mem::take(&mut self.writes) {
                let proof = Flushed::simulated(write.id());
                self.node.handle(self.now, Input::Written(write.flushed(proof)));
            }
        }
        self.drain();
    }
}

/// 100,000 keys whose time is over at one moment: they are gone within a second, in entries of 1,024 at most.
#[test]
fn a_hundred_thousand_leases_that_end_at_once_end_in_bounded_steps() {
    const LEASES: usize = 100_000;
    let mut alone = Alone::new();
    while alone.node.leadership().role != RoleName::Leader {
        alone.step();
    }
    for number in 0..LEASES {
        let put = command(|out| {
            let ttl = Attach::Ttl(Duration::from_secs(10));
            encode_put_attached(format!("key-{number:06}").as_bytes(), b"value", ttl, out)
        });
        let ticket = Ticket(number as u64 + 1);
        alone.node.handle(alone.now, Input::Propose { ticket, command: put });
    }
    while alone.answered < LEASES {
        alone.step();
    }
    let began = alone.now.mono;
    assert_eq!((alone.node.machine().len(), alone.node.machine().leases()), (LEASES, LEASES));
    while alone.node.machine().len() == LEASES {
        alone.step();
    }
    let first = alone.now.mono.since(began);
    assert!(first <= Duration::from_millis(10_050) && first >= Duration::from_millis(9_800), "{first:?}");
    while alone.node.machine().leases() > 0 {
        alone.step();
    }
    let took = alone.now.mono.since(began) - first;
    assert!(took <= Duration::from_secs(1), "all are gone within a second: {took:?}");
    assert!(alone.steps.iter().all(|&(keys, _)| keys <= 1_024), "no entry ends more");
    let mut turns: Vec<Duration> = alone.steps.iter().map(|&(_, took)| took).collect();
    turns.sort_unstable();
    let (entries, median) = (turns.len(), turns[turns.len() / 2]);
    println!(
        "{entries} entries in {took:?} of simulated time; a turn: {median:?}, the longest {:?}",
        turns[entries - 1]
    );
    assert_eq!(
        alone.node.poll_timeout().map(|at| at > alone.now.mono),
        Some(true),
        "and there is nothing more to do"
    );
}
