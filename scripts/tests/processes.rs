//! Short forms of the long jobs, on real processes, sockets and disks: what `cargo run -p scripts -- chaos` and its siblings
//! do by the hundred, done a few times. Each prints what it injected and saw.
//!
//! One at a time: three nodes and their clients are all that two cores can do without waiting for each other.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::io::Write;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use scripts::cluster::Runtimes;
use scripts::load::Shape;
use scripts::report::Report;
use scripts::{chaos, coordination, hostile, partition, power_cut};

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// The gate of a release is 1 s on an idle machine; this only tells a slow takeover from none.
const GATE: Duration = Duration::from_secs(10);

fn program() -> PathBuf {
    env!("CARGO_BIN_EXE_scripts").into()
}

fn below() -> PathBuf {
    env!("CARGO_TARGET_TMPDIR").into()
}

/// Light, for a debug build on a shared machine.
fn load() -> Shape {
    Shape { groups: 2, clients: 4, rate: 600, think: Duration::from_millis(5), ..Shape::default() }
}

/// Run a job alone, print its report, and insist that no promise was broken.
fn kept(job: impl FnOnce() -> Report) {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let report = job();
    // Past the test runner, which keeps what passing tests print to itself.
    std::io::stderr().lock().write_all(format!("{report}\n").as_bytes()).unwrap();
    assert_eq!(report.violations(), [""; 0], "broken promises");
}

fn leader_kills(runtimes: Runtimes) -> Report {
    chaos::run(&chaos::Plan {
        program: program(),
        below: below(),
        runtimes,
        kills: 3,
        follower_kills: 1,
        pauses: 1,
        minority_restarts: 1,
        blackouts: 1,
        gate: GATE,
        seed: 1,
        load: load(),
    })
}

#[test]
fn killed_and_stopped_nodes_lose_nothing_on_glommio() {
    kept(|| leader_kills(Runtimes::Glommio));
}

#[test]
fn killed_and_stopped_nodes_lose_nothing_on_tokio() {
    kept(|| leader_kills(Runtimes::Tokio));
}

#[test]
fn killed_and_stopped_nodes_lose_nothing_in_a_mixed_cluster() {
    kept(|| leader_kills(Runtimes::Mixed));
}

#[test]
fn watches_locks_and_times_to_live_outlive_leaders() {
    kept(|| {
        coordination::run(&coordination::Plan {
            program: program(),
            below: below(),
            runtimes: Runtimes::Mixed,
            events: 20_000,
            kills: 2,
            ttl: Duration::from_secs(2),
            // As [`GATE`]: on an idle machine it is a second.
            late: GATE,
            seed: 1,
        })
    });
}

fn partitions(means: partition::Means) -> Report {
    let (program, below) = (program(), below());
    let plan = partition::Plan {
        program,
        below,
        runtimes: Runtimes::Mixed,
        rounds: 1,
        means,
        seed: 1,
        load: load(),
    };
    partition::run(&plan)
}

#[test]
fn partitions_heal_and_a_minority_acknowledges_nothing() {
    kept(|| partitions(partition::Means::Proxy));
}

#[test]
fn links_go_down_and_come_back() {
    kept(|| partitions(partition::Means::Links));
}

#[test]
fn bad_input_is_refused_and_counted_and_the_nodes_go_on() {
    kept(|| {
        hostile::run(&hostile::Plan {
            program: program(),
            below: below(),
            runtimes: Runtimes::Mixed,
            datagrams: 2000,
            messages: 300,
            seed: 1,
            load: load(),
        })
    });
}

fn power_cuts(runtimes: Runtimes) -> Report {
    power_cut::run(&power_cut::Plan {
        program: program(),
        below: below(),
        runtimes,
        filesystem: power_cut::Kind::Ext4,
        cycles: 6,
        seed: 1,
        load: load(),
    })
}

#[test]
fn power_cuts_lose_nothing_acknowledged_on_glommio() {
    kept(|| power_cuts(Runtimes::Glommio));
}

#[test]
fn power_cuts_lose_nothing_acknowledged_on_tokio() {
    kept(|| power_cuts(Runtimes::Tokio));
}
