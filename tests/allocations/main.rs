//! How often an operation asks the allocator for memory, in the steady state. A number that no noise touches.
//!
//! Each bound is what was measured when it was set, with little room: who lowers the number lowers the bound with it, and
//! who must raise it says why. Where allocations come from, by call site:
//!
//! ```text
//! cargo test --release --test allocations -- --ignored --nocapture --test-threads 1
//! ```
#![allow(clippy::print_stdout, reason = "a test tells what it counted")]
#![allow(clippy::unwrap_used)]

#[path = "../../benches/cluster/mod.rs"]
mod cluster;
mod counting;
mod sites;
#[path = "../support/mod.rs"]
mod support;

use cluster::Cluster;
use counting::Counting;
use d_engine::embedded::Builder;
use d_engine::prelude::*;
use std::sync::{Mutex, MutexGuard};
use support::{Group, RUNTIMES, alone, block_on, leader_of, on_both, started};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Keys in use: they are there before anything is counted.
const KEYS: usize = 4096;

/// Most allocations of a batch of puts over three nodes of the deterministic cluster, by its size: none is a put's own. The
/// cluster's own among them are one for each message; now and then a piece of a store grows, on each node. A thousand
/// calls go as two batches.
const DETERMINISTIC_PUTS: [(usize, f64); 3] = [(1, 28.2), (100, 28.2), (1000, 56.5)];
/// Of a batch of linearizable reads.
const DETERMINISTIC_READS: [(usize, f64); 3] = [(1, 15.0), (100, 20.0), (1000, 23.0)];

/// What real engines may allocate. How many operations share a turn of the loop is the machine's affair, and so is
/// their sum: what one operation costs and what one turn costs are ours.
struct Bound {
    /// Per operation, on the caller's thread.
    caller: f64,
    /// Per operation, on all other threads.
    engine: f64,
    /// Beside that, per turn of a loop.
    turn: f64,
}

/// A lone node with 1000 in flight.
const PUT: Bound = Bound { caller: 0.02, engine: 0.0, turn: 8.0 };
/// The same.
const GET_LINEARIZABLE: Bound = Bound { caller: 0.03, engine: 0.0, turn: 6.0 };
/// Three nodes in this process with 1000 in flight: the threads of all of them, and the turns.
const PUT_OF_THREE: Bound = Bound { caller: 0.02, engine: 0.0, turn: 16.0 };
/// A read by the lease never leaves the caller's thread.
const GET_LEASE: f64 = 0.0;

const OPERATIONS: usize = 30_000;
const DEPTH: usize = 1000;

/// Counts are over all threads, so one test counts at a time.
fn alone_in_the_process() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// A closed loop of one thread with that many operations in flight.
struct Generator {
    pipeline: Pipeline,
    done: Vec<d_engine::embedded::Completion>,
    keys: Vec<[u8; 16]>,
    next: usize,
}

#[derive(Clone, Copy)]
enum Operation {
    Put,
    Get,
}

impl Generator {
    fn new(client: &EmbeddedClient) -> Self {
        let keys = (0..KEYS).map(cluster::key).collect();
        Self { pipeline: client.pipeline(), done: Vec::with_capacity(KEYS), keys, next: 0 }
    }

    fn run(&mut self, operation: Operation, operations: usize, in_flight: usize) {
        let mut sent = 0;
        while sent < operations || self.pipeline.in_flight() > 0 {
            while sent < operations && self.pipeline.in_flight() < in_flight {
                let key = &self.keys[self.next % KEYS];
                match operation {
                    Operation::Put => self.pipeline.put(key, [0x5a; 256]).unwrap(),
                    Operation::Get => self.pipeline.get(key).unwrap(),
                };
                self.next += 1;
                sent += 1;
            }
            self.pipeline.wait(&mut self.done);
            self.done.drain(..).for_each(|completion| drop(completion.result.unwrap()));
        }
    }

    /// Counts and judges. An election, or a follower that has to catch up, is not the steady state and only ever adds: a
    /// busy machine has three attempts.
    async fn judge(&mut self, what: &str, operation: Operation, engines: &[EmbeddedEngine], bound: &Bound) {
        self.run(operation, OPERATIONS, DEPTH);
        let mut counted = self.count(operation, engines, bound).await;
        for _ in 1..3 {
            if !counted.exceeds(bound) {
                break;
            }
            println!("{what}: once more after {counted:?}");
            counted = self.count(operation, engines, bound).await;
        }
        println!("{what}: {counted:.3?}");
        judge(&format!("{what}, the caller, per operation"), counted.caller, bound.caller);
        judge(&format!("{what}, per turn beside {} per operation", bound.engine), counted.turn, bound.turn);
    }

    /// Counts the operations' allocations, and the turns that these engines' loops take meanwhile.
    async fn count(&mut self, operation: Operation, engines: &[EmbeddedEngine], bound: &Bound) -> Counted {
        let turns = turns(engines).await;
        let (own, all) = (counting::of_this_thread(), counting::of_all_threads());
        self.run(operation, OPERATIONS, DEPTH);
        let (own, all) = (counting::of_this_thread() - own, counting::of_all_threads() - all);
        let turns = (self::turns(engines).await - turns) as f64;
        let operations = OPERATIONS as f64;
        let beside = (all - own) as f64 - bound.engine * operations;
        Counted {
            all: all as f64 / operations,
            caller: own as f64 / operations,
            turn: beside.max(0.0) / turns,
            operations_per_turn: operations / turns,
        }
    }
}

/// What was counted, as `Bound` has it.
#[derive(Debug)]
struct Counted {
    /// Per operation, turns included.
    #[allow(dead_code, reason = "printed")]
    all: f64,
    caller: f64,
    turn: f64,
    #[allow(dead_code, reason = "printed")]
    operations_per_turn: f64,
}

impl Counted {
    fn exceeds(&self, bound: &Bound) -> bool {
        self.caller > bound.caller || self.turn > bound.turn
    }
}

/// Its history is full before anything is counted.
fn short_history(builder: Builder) -> Builder {
    builder.configure(|c| c.history.changes = cluster::HISTORY.changes)
}

async fn three(group: &Group) -> Vec<EmbeddedEngine> {
    let mut engines = Vec::new();
    for id in 1..=3 {
        engines.push(short_history(group.builder(id)).start().await.unwrap());
    }
    for engine in &engines {
        engine.wait_ready(support::PATIENCE).await.unwrap();
    }
    engines
}

/// Of the engines' loops, so far.
async fn turns(engines: &[EmbeddedEngine]) -> u64 {
    let mut turns = 0;
    for engine in engines {
        turns += engine.status().await.unwrap().counters.turns;
    }
    turns
}

/// Fails if there were more than allowed.
fn judge(what: &str, counted: f64, most: f64) {
    println!("{what}: {counted:.3} allocations, {most} are allowed");
    assert!(
        counted <= most,
        "{what}: {counted:.3} allocations, {most} are allowed. `cargo test --release --test allocations -- \
         --ignored --nocapture --test-threads 1` says where they come from; if they must be, raise the bound in this file \
         and say why"
    );
}

/// Counted on this thread alone: the same number in every run.
fn judge_deterministic(what: &str, bounds: &[(usize, f64)], operate: impl Fn(&mut Cluster, usize)) {
    let mut cluster = Cluster::new();
    for &(calls, most) in bounds {
        (0..20).for_each(|_| operate(&mut cluster, calls));
        let before = counting::of_this_thread();
        (0..20).for_each(|_| operate(&mut cluster, calls));
        let counted = (counting::of_this_thread() - before) as f64 / 20.0;
        judge(&format!("a batch of {calls} {what} over three nodes"), counted, most);
    }
}

#[test]
fn deterministic_puts_allocate_no_more_than_allowed() {
    let _turn = alone_in_the_process();
    judge_deterministic("puts", &DETERMINISTIC_PUTS, Cluster::put);
}

#[test]
fn deterministic_reads_allocate_no_more_than_allowed() {
    let _turn = alone_in_the_process();
    judge_deterministic("linearizable reads", &DETERMINISTIC_READS, Cluster::read);
}

#[test]
fn a_lone_engine_allocates_no_more_than_allowed() {
    let _turn = alone_in_the_process();
    on_both(async |dir, runtime| {
        let engines = [started(short_history(alone(&dir, runtime))).await];
        let [engine] = &engines;
        let client = engine.client();
        let mut generator = Generator::new(&client);
        generator.judge(&format!("{runtime:?}: put"), Operation::Put, &engines, &PUT).await;
        let what = format!("{runtime:?}: linearizable get");
        generator.judge(&what, Operation::Get, &engines, &GET_LINEARIZABLE).await;
        let missed = engine.status().await.unwrap().counters.lease_misses;
        let before = counting::of_this_thread();
        for key in generator.keys.iter().cycle().take(OPERATIONS) {
            assert!(client.get_lease(key).await.unwrap().value.is_some());
        }
        let counted = (counting::of_this_thread() - before) as f64 / OPERATIONS as f64;
        // A machine that stood still for so long that the lease ran out made calls of another kind.
        let missed = engine.status().await.unwrap().counters.lease_misses - missed;
        if missed == 0 {
            judge(&format!("{runtime:?}: lease get"), counted, GET_LEASE);
        } else {
            println!("SKIPPED: {missed} reads found no lease");
        }
        let [engine] = engines;
        engine.stop().await.unwrap();
    });
}

#[test]
fn three_engines_allocate_no_more_than_allowed() {
    let _turn = alone_in_the_process();
    for runtime in RUNTIMES {
        block_on(async {
            let group = Group::new([runtime; 3]);
            let engines = three(&group).await;
            let leader = leader_of(&engines).await;
            let mut generator = Generator::new(&engines[leader].client());
            let what = format!("{runtime:?}: put of three nodes, all in this process");
            generator.judge(&what, Operation::Put, &engines, &PUT_OF_THREE).await;
        });
    }
}

// ---- where they come from

fn sites(what: &str, every: u64, operations: usize, work: impl FnOnce()) {
    let before = counting::of_all_threads();
    let (samples, after) = counting::sampled(every, work);
    let rate = (after - before) as f64 / operations as f64;
    println!("\n== {what}: {rate:.3} per operation\n{}", sites::table(&samples, every, operations));
}

#[test]
#[ignore = "says where allocations come from"]
fn sites_of_the_deterministic_put() {
    let _turn = alone_in_the_process();
    let mut cluster = Cluster::new();
    for calls in [1, 100, 1000] {
        let rounds = OPERATIONS / calls;
        (0..rounds).for_each(|_| cluster.put(calls));
        let what = format!("deterministic put of three nodes, {calls} in a batch");
        sites(&what, 7, rounds * calls, || (0..rounds).for_each(|_| cluster.put(calls)));
    }
}

#[test]
#[ignore = "says where allocations come from"]
fn sites_of_engines() {
    let _turn = alone_in_the_process();
    on_both(async |dir, runtime| {
        let engine = started(short_history(alone(&dir, runtime))).await;
        let mut generator = Generator::new(&engine.client());
        for (operation, name) in [(Operation::Put, "put"), (Operation::Get, "linearizable get")] {
            generator.run(operation, OPERATIONS, DEPTH);
            let what = format!("{runtime:?}: {name}, a lone node, {DEPTH} in flight");
            sites(&what, 7, OPERATIONS, || generator.run(operation, OPERATIONS, DEPTH));
        }
        engine.stop().await.unwrap();
    });
}

#[test]
#[ignore = "says where allocations come from"]
fn sites_of_three_engines() {
    let _turn = alone_in_the_process();
    for runtime in RUNTIMES {
        block_on(async {
            let group = Group::new([runtime; 3]);
            let engines = three(&group).await;
            let leader = leader_of(&engines).await;
            let mut generator = Generator::new(&engines[leader].client());
            for in_flight in [100, DEPTH] {
                generator.run(Operation::Put, OPERATIONS, in_flight);
                let leader = engines[leader].id();
                let what =
                    format!("{runtime:?}: put, three nodes, node {leader} leads, {in_flight} in flight");
                sites(&what, 23, OPERATIONS, || generator.run(Operation::Put, OPERATIONS, in_flight));
            }
        });
    }
}
