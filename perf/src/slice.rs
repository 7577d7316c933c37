//! One slice of one row, and every figure that is made from it.

use crate::allocations::Allocations;
use crate::probe;
use crate::protocol::{Call, Counters, Load, Loaded, Snapshot};
use crate::usage::{MachineShares, ProcessUsage};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::Path;
use std::time::Duration;

/// Bytes of every key.
pub const KEY_BYTES: usize = 16;
/// Bytes of every value.
pub const VALUE_BYTES: usize = 256;
const PAYLOAD_BYTES: f64 = (KEY_BYTES + VALUE_BYTES) as f64;

/// What is measured: one line of the report.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Its name, which begins with its promise.
    pub name: String,
    /// What is done.
    pub load: Load,
}

/// What the machine could do just then; medians in microseconds.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Probes {
    /// One 4 KiB write and its flush.
    pub flush: f64,
    /// One message there and back over QUIC.
    pub quic: f64,
    /// One datagram there and back.
    pub udp: f64,
    /// A fixed piece of arithmetic.
    pub spin: f64,
}

impl Probes {
    /// Measures now, with files in `directory`; takes some tens of milliseconds.
    pub fn take(directory: &Path) -> io::Result<Self> {
        let mid = |mut times: Vec<Duration>| probe::quantile(&mut times, 0.5).as_secs_f64() * 1e6;
        Ok(Self {
            flush: mid(probe::flushes(directory, 60)?),
            quic: mid(probe::quic_round_trips(200)?),
            udp: mid(probe::udp_round_trips(200)?),
            spin: mid(probe::spins(3)),
        })
    }

    /// Halfway between two measurements.
    pub fn between(self, other: Self) -> Self {
        Self {
            flush: f64::midpoint(self.flush, other.flush),
            quic: f64::midpoint(self.quic, other.quic),
            udp: f64::midpoint(self.udp, other.udp),
            spin: f64::midpoint(self.spin, other.spin),
        }
    }
}

/// What one node spent on a slice.
#[derive(Clone, Debug, Serialize)]
pub struct Spent {
    /// The kernel's accounts.
    pub usage: ProcessUsage,
    /// Allocations of the process.
    pub allocations: Allocations,
    /// The engine's counters.
    pub counters: Counters,
}

impl Spent {
    /// Between two snapshots of one node.
    pub fn between(before: &Snapshot, after: &Snapshot) -> Self {
        Self {
            usage: after.usage.since(&before.usage),
            allocations: Allocations {
                count: after.allocations.count - before.allocations.count,
                bytes: after.allocations.bytes - before.allocations.bytes,
            },
            counters: after.counters.since(&before.counters),
        }
    }
}

/// One slice.
#[derive(Clone, Debug, Serialize)]
pub struct Slice {
    /// Position of its row.
    pub row: usize,
    /// Which block it belongs to.
    pub block: usize,
    /// What was done.
    pub load: Load,
    /// What the client saw.
    pub loaded: Loaded,
    /// What each node spent.
    pub nodes: Vec<Spent>,
    /// Position of the leader.
    pub leader: usize,
    /// Probes before and after, halfway.
    pub probes: Probes,
    /// What the machine's processors did.
    pub machine: Option<MachineShares>,
    /// Processors of the machine.
    pub cores: usize,
}

/// A number made from a slice: its key in the JSON, what it means, and how it is made. `None` where it means nothing.
pub struct Figure {
    /// Its key in the JSON.
    pub key: &'static str,
    /// What it means, with the unit.
    pub meaning: &'static str,
    /// How it is made.
    pub of: fn(&Slice) -> Option<f64>,
}

/// Every figure of a report.
pub const FIGURES: &[Figure] = &[
    Figure { key: "rate", meaning: "operations per second", of: |s| Some(s.operations() / s.seconds()) },
    Figure { key: "p50_us", meaning: "median latency, µs", of: |s| s.latency(0.5) },
    Figure { key: "p99_us", meaning: "99th percentile of latency, µs", of: |s| s.latency(0.99) },
    Figure { key: "p999_us", meaning: "99.9th percentile of latency, µs", of: |s| s.latency(0.999) },
    Figure {
        key: "cpu_us_per_op",
        meaning: "processor time of all nodes and the generator per operation, µs",
        of: |s| s.per_operation(s.nodes.iter().map(|node| micros(node.usage.cpu)).sum()),
    },
    Figure {
        key: "cpu_us_per_op_leader",
        meaning: "processor time of the leader's process (with the generator) per operation, µs",
        of: |s| s.per_operation(micros(s.nodes[s.leader].usage.cpu)),
    },
    Figure {
        key: "user_share",
        meaning: "share of that time in user space",
        of: |s| {
            let user: f64 = s.nodes.iter().map(|node| micros(node.usage.user)).sum();
            let all: f64 = s.nodes.iter().map(|node| micros(node.usage.cpu)).sum();
            (all > 0.0).then(|| (user / all).min(1.0))
        },
    },
    Figure {
        key: "flushes_per_op_per_node",
        meaning: "flushes of the log per put and node",
        of: |s| s.put(s.counted(|counters| counters.flushes) / s.nodes.len() as f64),
    },
    Figure {
        key: "ops_per_batch",
        meaning: "puts in one Raft entry",
        of: |s| {
            let batches = s.nodes[s.leader].counters.batches;
            (s.load.call == Call::Put && batches > 0).then(|| s.operations() / batches as f64)
        },
    },
    Figure {
        key: "disk_bytes_per_payload_byte",
        meaning: "bytes written to the log per byte of key and value, one node",
        of: |s| s.put(s.counted(|counters| counters.disk_bytes) / s.nodes.len() as f64 / PAYLOAD_BYTES),
    },
    Figure {
        key: "device_bytes_per_payload_byte",
        meaning: "bytes the kernel sent to the device per byte of key and value, one node",
        of: |s| {
            let written: Option<u64> = s.nodes.iter().map(|node| node.usage.written_bytes).sum();
            s.put(written? as f64 / s.nodes.len() as f64 / PAYLOAD_BYTES)
        },
    },
    Figure {
        key: "allocations_per_op",
        meaning: "allocations in the leader's process per operation",
        of: |s| s.per_operation(s.nodes[s.leader].allocations.count as f64),
    },
    Figure {
        key: "allocated_bytes_per_op",
        meaning: "bytes allocated in the leader's process per operation",
        of: |s| s.per_operation(s.nodes[s.leader].allocations.bytes as f64),
    },
    Figure {
        key: "switches_per_op",
        meaning: "context switches in all nodes per operation",
        of: |s| s.per_operation(s.nodes.iter().map(|node| node.usage.switches as f64).sum()),
    },
    Figure {
        key: "wakes_per_op",
        meaning: "wake-ups of waiting callers per operation",
        of: |s| s.per_operation(s.nodes[s.leader].counters.wakes as f64),
    },
    Figure {
        key: "times_limit",
        meaning: "median latency as a multiple of flush + round trip (1 in flight)",
        of: |s| {
            let limit = s.probes.flush + s.probes.quic;
            let alone = s.load.call == Call::Put && s.load.in_flight == 1 && limit > 0.0;
            if alone { Some(s.latency(0.5)? / limit) } else { None }
        },
    },
    Figure {
        key: "others_share",
        meaning: "share of the machine that other programs took",
        of: |s| {
            let cpu: f64 = s.nodes.iter().map(|node| node.usage.cpu.as_secs_f64()).sum();
            Some((s.machine?.busy - cpu / (s.seconds() * s.cores as f64)).max(0.0))
        },
    },
    Figure {
        key: "steal_share",
        meaning: "share of the machine that its host took",
        of: |s| Some(s.machine?.steal),
    },
];

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

impl Slice {
    fn operations(&self) -> f64 {
        self.loaded.operations as f64
    }

    fn seconds(&self) -> f64 {
        self.loaded.elapsed.as_secs_f64().max(1e-9)
    }

    fn per_operation(&self, total: f64) -> Option<f64> {
        (self.loaded.operations > 0).then(|| total / self.operations())
    }

    /// Per put; nothing for a read.
    fn put(&self, total: f64) -> Option<f64> {
        if self.load.call == Call::Put { self.per_operation(total) } else { None }
    }

    fn counted(&self, counter: impl Fn(&Counters) -> u64) -> f64 {
        self.nodes.iter().map(|node| counter(&node.counters) as f64).sum()
    }

    /// A percentile of the latency, in microseconds.
    fn latency(&self, share: f64) -> Option<f64> {
        let mut histogram = latencies();
        for &(value, count) in &self.loaded.latencies {
            histogram.saturating_record_n(value, count);
        }
        (!histogram.is_empty()).then(|| histogram.value_at_quantile(share) as f64 / 1e3)
    }
}

/// An empty histogram of nanoseconds up to a minute, exact to a thousandth.
pub fn latencies() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("bounds and precision are within what it allows")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slice(call: Call, in_flight: usize) -> Slice {
        let spent = |cpu_ms, flushes| Spent {
            usage: ProcessUsage { cpu: Duration::from_millis(cpu_ms), ..ProcessUsage::default() },
            allocations: Allocations { count: 2_000, bytes: 64_000 },
            counters: Counters { flushes, disk_bytes: 4_096 * flushes, batches: 100, ..Counters::default() },
        };
        Slice {
            row: 0,
            block: 0,
            load: Load { call, in_flight, slice: Duration::from_secs(1) },
            loaded: Loaded {
                operations: 1_000,
                errors: Vec::new(),
                elapsed: Duration::from_secs(1),
                latencies: vec![(300_000, 990), (900_000, 10)],
            },
            nodes: vec![spent(4, 100), spent(3, 100), spent(3, 100)],
            leader: 0,
            probes: Probes { flush: 80.0, quic: 70.0, udp: 50.0, spin: 1.0 },
            machine: Some(MachineShares { busy: 0.5, steal: 0.0 }),
            cores: 2,
        }
    }

    fn figure(key: &str, slice: &Slice) -> Option<f64> {
        let figure = FIGURES.iter().find(|figure| figure.key == key).expect("a known key");
        (figure.of)(slice)
    }

    #[track_caller]
    fn close(found: Option<f64>, expected: f64) {
        let found = found.expect("a figure");
        assert!((found - expected).abs() <= expected.abs() * 0.002, "{found} is not {expected}");
    }

    #[test]
    fn figures_of_a_put_slice() {
        let slice = slice(Call::Put, 1);
        close(figure("rate", &slice), 1_000.0);
        close(figure("cpu_us_per_op", &slice), 10.0);
        close(figure("flushes_per_op_per_node", &slice), 0.1);
        close(figure("ops_per_batch", &slice), 10.0);
        close(figure("disk_bytes_per_payload_byte", &slice), 4_096.0 * 0.1 / 272.0);
        close(figure("allocations_per_op", &slice), 2.0);
        close(figure("times_limit", &slice), 2.0);
        close(figure("p999_us", &slice), 900.0);
        close(figure("others_share", &slice), 0.5 - 0.010 / 2.0);
    }

    #[test]
    fn a_read_has_no_figures_of_the_disk() {
        let slice = slice(Call::GetLease, 1);
        assert_eq!(figure("flushes_per_op_per_node", &slice), None);
        assert_eq!(figure("times_limit", &slice), None);
        close(figure("p50_us", &slice), 300.0);
    }
}
