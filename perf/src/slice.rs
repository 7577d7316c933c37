//! What surrounds a slice, and every figure that a table of one system shows of it.

use crate::probe;
use crate::results::{Part, Row, Slice};
use crate::workload::{Call, Pace};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::Path;
use std::time::Duration;

/// What the machine could do just then; medians in microseconds.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Probes {
    /// One 4 KiB write and its flush.
    pub flush: f64,
    /// The second to be done of three such writes to three files that begin at once; 0 in results from before it was measured.
    #[serde(default)]
    pub majority: f64,
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
            majority: mid(probe::majority_flushes(directory, 60)?),
            quic: mid(probe::quic_round_trips(200)?),
            udp: mid(probe::udp_round_trips(200)?),
            spin: mid(probe::spins(3)),
        })
    }

    /// Halfway between two measurements.
    pub fn between(self, other: Self) -> Self {
        Self {
            flush: f64::midpoint(self.flush, other.flush),
            majority: f64::midpoint(self.majority, other.majority),
            quic: f64::midpoint(self.quic, other.quic),
            udp: f64::midpoint(self.udp, other.udp),
            spin: f64::midpoint(self.spin, other.spin),
        }
    }
}

/// A number made from a slice: its key in the JSON, what it means, and how it is made. `None` where it means nothing.
pub struct Figure {
    /// Its key in the JSON.
    pub key: &'static str,
    /// What it means, with the unit.
    pub meaning: &'static str,
    /// How it is made.
    pub of: fn(&Row, &Slice) -> Option<f64>,
}

/// Every figure of a report.
pub const FIGURES: &[Figure] = &[
    Figure { key: "rate", meaning: "operations per second", of: |_, s| Some(s.rate()) },
    Figure { key: "p50_us", meaning: "median latency, µs", of: |_, s| s.latency_micros(0.5) },
    Figure { key: "p99_us", meaning: "99th percentile of latency, µs", of: |_, s| s.latency_micros(0.99) },
    Figure {
        key: "p999_us",
        meaning: "99.9th percentile of latency, µs",
        of: |_, s| s.latency_micros(0.999),
    },
    Figure {
        key: "cpu_us_per_op",
        meaning: "processor time of all nodes and the generator per operation, µs",
        of: |_, s| s.cpu_micros(),
    },
    Figure {
        key: "cpu_us_per_op_leader",
        meaning: "processor time of the leader's process per operation (of an embedded engine with the generator), µs",
        of: |_, s| s.cpu_micros_of(Part::Leader),
    },
    Figure {
        key: "user_share",
        meaning: "share of that time in user space",
        of: |_, s| {
            let user: f64 = s.processes.iter().map(|spent| micros(spent.usage.user)).sum();
            let all: f64 = s.processes.iter().map(|spent| micros(spent.usage.cpu)).sum();
            (all > 0.0).then(|| (user / all).min(1.0))
        },
    },
    Figure {
        key: "flushes_per_op_per_node",
        meaning: "flushes of the log per put and node",
        of: |row, s| if_writing(row, s.flushes()),
    },
    Figure {
        key: "ops_per_batch",
        meaning: "puts in one Raft entry",
        of: |row, s| {
            let batches = s.leader().and_then(|spent| spent.counters.get("batches").copied()).unwrap_or(0);
            (row.workload.call == Call::Put && batches > 0).then(|| s.operations as f64 / batches as f64)
        },
    },
    Figure {
        key: "disk_bytes_per_payload_byte",
        meaning: "bytes written to the log per byte of key and value, one node",
        of: |row, s| if_writing(row, s.log_bytes()).map(|bytes| bytes / payload(row)),
    },
    Figure {
        key: "device_bytes_per_payload_byte",
        meaning: "bytes the kernel sent to the device per byte of key and value, one node",
        of: |row, s| if_writing(row, s.device_bytes()).map(|bytes| bytes / payload(row)),
    },
    Figure {
        key: "allocations_per_op",
        meaning: "allocations in the leader's process per operation",
        of: |_, s| s.per_operation(s.leader()?.allocations?.count as f64),
    },
    Figure {
        key: "allocated_bytes_per_op",
        meaning: "bytes allocated in the leader's process per operation",
        of: |_, s| s.per_operation(s.leader()?.allocations?.bytes as f64),
    },
    Figure {
        key: "switches_per_op",
        meaning: "context switches in all processes per operation",
        of: |_, s| s.per_operation(s.processes.iter().map(|spent| spent.usage.switches as f64).sum()),
    },
    Figure {
        key: "wakes_per_op",
        meaning: "wake-ups of waiting callers per operation",
        of: |_, s| s.per_operation(*s.leader()?.counters.get("wakes")? as f64),
    },
    Figure {
        key: "times_limit",
        meaning: "median latency as a multiple of flush + round trip (1 in flight)",
        of: |row, s| times_limit(row, s),
    },
    Figure {
        key: "others_share",
        meaning: "share of the machine that other programs took",
        of: |_, s| {
            let cpu: f64 = s.processes.iter().map(|spent| spent.usage.cpu.as_secs_f64()).sum();
            Some((s.machine?.busy - cpu / (s.elapsed.as_secs_f64().max(1e-9) * s.cores as f64)).max(0.0))
        },
    },
    Figure {
        key: "steal_share",
        meaning: "share of the machine that its host took",
        of: |_, s| Some(s.machine?.steal),
    },
];

/// Median latency of a put that is alone, as a multiple of what the machine needs for one flush and one round trip.
pub fn times_limit(row: &Row, slice: &Slice) -> Option<f64> {
    let limit = slice.probes.flush + slice.probes.quic;
    let alone = row.workload.call == Call::Put && row.workload.pace == Pace::Closed { in_flight: 1 };
    if alone && limit > 0.0 { Some(slice.latency_micros(0.5)? / limit) } else { None }
}

fn if_writing(row: &Row, found: Option<f64>) -> Option<f64> {
    found.filter(|_| row.workload.call.writes())
}

fn payload(row: &Row) -> f64 {
    row.workload.payload_bytes() as f64
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// A histogram from values and how many there are of each.
pub fn histogram<'a>(counts: impl IntoIterator<Item = &'a (u64, u64)>) -> Histogram<u64> {
    let mut histogram = latencies();
    for &(value, count) in counts {
        histogram.saturating_record_n(value, count);
    }
    histogram
}

/// An empty histogram of nanoseconds up to a minute, exact to a thousandth.
pub fn latencies() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("bounds and precision are within what it allows")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::allocations::Allocations;
    use crate::results::{Promise, Spent};
    use crate::usage::{MachineShares, ProcessUsage};
    use crate::workload::Workload;

    fn row(call: Call) -> Row {
        Row {
            id: "W1".into(),
            system: "ours".into(),
            promise: Promise::FsyncQuorum,
            workload: Workload::closed(call, 1),
            condition: None,
        }
    }

    fn slice() -> Slice {
        let spent = |part, cpu_ms, flushes| Spent {
            part,
            name: String::new(),
            usage: ProcessUsage { cpu: Duration::from_millis(cpu_ms), ..ProcessUsage::default() },
            allocations: Some(Allocations { count: 2_000, bytes: 64_000 }),
            flushes: Some(flushes),
            log_bytes: Some(4_096 * flushes),
            counters: [("batches".to_owned(), 100)].into(),
        };
        Slice {
            elapsed: Duration::from_secs(1),
            latencies: vec![(300_000, 990), (900_000, 10)],
            processes: vec![
                spent(Part::Leader, 4, 100),
                spent(Part::Follower, 3, 100),
                spent(Part::Follower, 3, 100),
            ],
            probes: Probes { flush: 80.0, majority: 150.0, quic: 70.0, udp: 50.0, spin: 1.0 },
            machine: Some(MachineShares { busy: 0.5, steal: 0.0 }),
            ..crate::results::tests::slice(0, 0, 1_000)
        }
    }

    fn figure(key: &str, call: Call) -> Option<f64> {
        let figure = FIGURES.iter().find(|figure| figure.key == key).expect("a known key");
        (figure.of)(&row(call), &slice())
    }

    #[track_caller]
    fn close(found: Option<f64>, expected: f64) {
        let found = found.expect("a figure");
        assert!((found - expected).abs() <= expected.abs() * 0.002, "{found} is not {expected}");
    }

    #[test]
    fn figures_of_a_put_slice() {
        let figure = |key| figure(key, Call::Put);
        close(figure("rate"), 1_000.0);
        close(figure("cpu_us_per_op"), 10.0);
        close(figure("flushes_per_op_per_node"), 0.1);
        close(figure("ops_per_batch"), 10.0);
        close(figure("disk_bytes_per_payload_byte"), 4_096.0 * 0.1 / 272.0);
        close(figure("allocations_per_op"), 2.0);
        close(figure("times_limit"), 2.0);
        close(figure("p999_us"), 900.0);
        close(figure("others_share"), 0.5 - 0.010 / 2.0);
    }

    #[test]
    fn a_read_has_no_figures_of_the_disk() {
        assert_eq!(figure("flushes_per_op_per_node", Call::GetLease), None);
        assert_eq!(figure("times_limit", Call::GetLease), None);
        close(figure("p50_us", Call::GetLease), 300.0);
    }
}
