//! What the coordinator and the processes of this program that it starts say to each other: one JSON value a line, orders
//! on standard input, reports on standard output.

use crate::allocations::Allocations;
use crate::outage::{Task, Told};
use crate::slice::histogram;
use crate::usage::ProcessUsage;
use crate::workload::Workload;
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// From the coordinator to a node or a client. The end of the input means `Stop`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Order {
    /// Say what was used so far.
    Snapshot,
    /// Talk to this server from now on, over this many connections; for a client of a server only.
    Aim {
        /// Its address.
        endpoint: String,
        /// How many connections.
        connections: usize,
    },
    /// Make all that a load needs: what costs time before the clock starts.
    Prepare(Workload),
    /// Be a client for a while, as prepared.
    Load {
        /// No call begins after this time.
        slice: Duration,
    },
    /// Write every key of a workload once, so that reads find what they ask for.
    Fill(Workload),
    /// Make another node the leader.
    Transfer {
        /// Its number.
        to: u64,
    },
    /// Be a client that writes through a failure.
    Client(Task),
    /// Stop the engine and exit.
    Stop,
}

/// From a node or a client to the coordinator; one for each order, and `Ready` first.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Report {
    /// The engine runs and knows a leader; or the client runs.
    Ready {
        /// Which runtime it chose.
        runtime: String,
    },
    /// As ordered.
    Snapshot(Box<Snapshot>),
    /// As ordered.
    Loaded(Box<Loaded>),
    /// As ordered.
    Client(Box<Told>),
    /// As ordered, with nothing to say.
    Done,
    /// It could not be done.
    Failed {
        /// Why.
        reason: String,
    },
}

/// What a load came to, seen by the client.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Loaded {
    /// Calls answered with success.
    pub operations: u64,
    /// Calls that failed, by message.
    pub errors: Vec<(String, u64)>,
    /// Calls of an open loop that were due and found no room until the end.
    pub missed: u64,
    /// From the first call to the last answer.
    pub elapsed: Duration,
    /// Latencies of successful calls: nanoseconds, and how many.
    pub latencies: Vec<(u64, u64)>,
}

impl Loaded {
    /// The latencies; nanoseconds.
    pub fn histogram(&self) -> Histogram<u64> {
        histogram(&self.latencies)
    }
}

/// What a node has used since it started.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Snapshot {
    /// Whether it leads.
    pub leads: bool,
    /// The newest term it has seen.
    pub term: u64,
    /// The kernel's accounts.
    pub usage: ProcessUsage,
    /// Of the whole process: engine and, on the leader, generator.
    pub allocations: Allocations,
    /// The engine's counters.
    pub counters: Counters,
}

/// The engine's counters that the report needs.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Counters {
    /// Flushes of the log.
    pub flushes: u64,
    /// Bytes written to the log's files, padding included.
    pub disk_bytes: u64,
    /// Entries written to the log: batches.
    pub batches: u64,
    /// Turns of the loop.
    pub turns: u64,
    /// Times the loop slept.
    pub sleeps: u64,
    /// Times a caller's thread was woken.
    pub wakes: u64,
}
