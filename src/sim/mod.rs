//! The simulator: whole clusters of real nodes in one thread, from one seed, under faults that no test bench can order.
//!
//! It is the third driver of [`node::Node`](crate::node::Node), beside glommio's and tokio's, and of the pure half of the
//! log. Disk, network, clocks and clients are values; one heap orders what happens; one seed decides everything, so that
//! a failure is a number. The same seed gives the same run in every build and on every machine (integers only, no hash
//! order, no time of day).
//!
//! A run has two phases. In the first anything may fail that the run's plan has, and the judges in [`oracle`] look for a
//! promise broken. Then faults end, and a healthy cluster owes its answers: that is judged, too.
//!
//! | file | what it is |
//! |---|---|
//! | `world`, `turn`, `member`, `schedule` | the driver: events in order, a node's loop |
//! | `plan`, `fault`, `nemesis` | what a run meets, drawn from its seed, and when |
//! | `contradiction` | a member that says what cannot be |
//! | `network`, `disk`, `clock`, `dice` | the machines' parts |
//! | `client`, `wishes`, `calls` | who asks for what, and what may be concluded from an answer |
//! | `watchers` | who is told of changes |
//! | `observation`, `oracle` | what the judges are told, and the judges |
//! | `exhaustive` | the other way: every interleaving of a small cluster |
//! | `story`, `shrink`, `campaign` | what is told of one run, of a failing one, of many |
//!
//! ```
//! use d_engine::sim::{Orders, Telling, run};
//!
//! let report = run(42, &Orders::default(), Telling::Hash);
//! assert!(report.failure.is_none());
//! assert_eq!(report.hash, run(42, &Orders::default(), Telling::Whole).hash);
//! ```
//!
//! Not here: threads and real time (a campaign of the program `d-engine-sim` uses both), sockets, the transport's own
//! protocol, the embedded API.

mod calls;
pub mod campaign;
mod client;
mod clock;
mod contradiction;
mod dice;
mod disk;
pub mod exhaustive;
mod fault;
mod member;
mod nemesis;
mod network;
pub mod observation;
pub mod oracle;
mod plan;
mod schedule;
pub mod shrink;
mod story;
mod turn;
mod watchers;
mod wishes;
mod world;

pub use client::{key_bytes, value_number};
pub use fault::{Fault, Injected};
pub use network::Traffic;
pub use oracle::{Mark, Verdicts};
pub use plan::Orders;
pub use story::Telling;

use observation::{Instant, Violation};
use oracle::NO_PANIC;
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;
use world::World;

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Report {
    /// Its seed.
    pub seed: u64,
    /// A hash over everything that happened.
    pub hash: u64,
    /// Events of the heap.
    pub events: u64,
    /// The time that passed in it.
    pub simulated: Duration,
    /// Operations of clients.
    pub calls: u64,
    /// Faults, by kind.
    pub injected: Injected,
    /// What the lines did.
    pub traffic: Traffic,
    /// What the judges looked at.
    pub verdicts: Verdicts,
    /// The lines worth reading, if they were asked for.
    pub story: Vec<String>,
    /// The promise that was broken, if one was.
    pub failure: Option<Failure>,
}

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Which.
    pub violation: Violation,
    /// When, in the run's time.
    pub at: Instant,
}

/// Runs one seed.
#[must_use]
pub fn run(seed: u64, orders: &Orders, telling: Telling) -> Report {
    let mut world = World::new(seed, orders, telling);
    let ended = catch_unwind(AssertUnwindSafe(|| world.run()));
    let outcome = ended.unwrap_or_else(|panic| Err(Violation { oracle: NO_PANIC, what: words(&*panic) }));
    let at = world.now;
    if let Err(violation) = &outcome {
        world.story.tell(at, || format!("VIOLATION {violation}"));
    }
    let (verdicts, failure) = match outcome {
        Ok(verdicts) => (verdicts, None),
        Err(violation) => (world.judges.verdicts(), Some(Failure { violation, at })),
    };
    let World { story, events, calls, injected, network, .. } = world;
    let (hash, story) = story.end();
    Report {
        seed,
        hash,
        events,
        simulated: Duration::from_nanos(at.0),
        calls,
        injected,
        traffic: network.traffic,
        verdicts,
        story,
        failure,
    }
}

fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without words".to_owned())
}
