//! A run that never was, with figures of the size that real ones have: what the page is looked at and tested with.

use crate::allocations::Allocations;
use crate::machine::Machine;
use crate::results::{
    Axis, Dropped, FORMAT, Failover, Goal, Measure, Memory, Moment, NotRun, Part, Point, Promise, Ratio,
    Recovery, Results, Row, Rules, Slice, Spent, Subject, Sweep,
};
use crate::slice::Probes;
use crate::statistics::{Median, SplitMix, median};
use crate::usage::{MachineShares, ProcessUsage};
use crate::workload::{Call, Distribution, Pace, Workload};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

/// Our name in the fixture.
pub const OURS: &str = "d-engine embedded";
/// The other's.
pub const ETCD: &str = "etcd";

/// How a system answers: the size of real figures, from a formula.
#[derive(Clone, Copy)]
struct Nature {
    /// Operations per second with one in flight.
    alone: f64,
    /// The most it does.
    most: f64,
    /// Processor µs per operation at its most.
    cpu: f64,
}

fn nature(system: &str, call: Call) -> Nature {
    let ours = system == OURS;
    match call {
        Call::GetLease | Call::GetEventual if ours => Nature { alone: 3.9e6, most: 3.9e6, cpu: 0.26 },
        Call::GetLinearizable if ours => Nature { alone: 9_800.0, most: 1.62e6, cpu: 1.1 },
        Call::GetEventual | Call::GetLease => Nature { alone: 5_400.0, most: 36_000.0, cpu: 52.0 },
        Call::GetLinearizable => Nature { alone: 2_760.0, most: 29_900.0, cpu: 61.0 },
        Call::Watch { .. } if ours => Nature { alone: 2_100.0, most: 2.2e6, cpu: 0.8 },
        Call::Watch { .. } => Nature { alone: 2_400.0, most: 240_000.0, cpu: 7.0 },
        _ if ours => Nature { alone: 3_150.0, most: 512_000.0, cpu: 3.4 },
        _ => Nature { alone: 1_232.0, most: 12_400.0, cpu: 120.0 },
    }
}

fn calls_in_flight(workload: &Workload) -> usize {
    match workload.pace {
        Pace::Closed { in_flight } => in_flight,
        Pace::Open { backlog, .. } => backlog,
    }
}

/// Without the part behind the point.
#[allow(clippy::cast_possible_truncation)] // Figures here are far below 2^53.
fn whole(value: f64) -> u64 {
    value.max(0.0) as u64
}

struct Maker {
    numbers: SplitMix,
}

impl Maker {
    /// Between `1 - by` and `1 + by`.
    fn about(&mut self, by: f64) -> f64 {
        1.0 + by * (self.numbers.below(2_001) as f64 / 1_000.0 - 1.0)
    }

    fn slice(&mut self, position: usize, row: &Row, block: usize) -> Slice {
        let nature = nature(&row.system, row.workload.call);
        let depth = match row.workload.call {
            Call::Watch { watchers } => f64::from(watchers),
            _ => calls_in_flight(&row.workload) as f64,
        };
        let size = (row.workload.value_bytes as f64 / 256.0).max(0.5).powf(0.7);
        let most = nature.most / size;
        let seconds = 4.0;
        // Queueing: linear at first, and never beyond the most.
        let closed = 1.0 / (1.0 / (nature.alone * depth).max(1.0) + 1.0 / most);
        let (rate, middle, missed) = match row.workload.pace {
            Pace::Closed { .. } => (closed, 1e9 * depth / closed, 0.0),
            Pace::Open { per_second, .. } => {
                let busy = per_second / most;
                let served = per_second.min(most * 0.98);
                let queue = if busy < 0.98 { 1.0 / (1.0 - busy) } else { 260.0 };
                (served, 1e9 / nature.alone * queue, (per_second - served) * seconds)
            }
        };
        let slow_minute = if block == 3 { 0.8 } else { 1.0 };
        let rate = rate * self.about(0.06) * slow_minute;
        let operations = whole((rate * seconds).max(1.0));
        let latencies = (0..120_u32)
            .map(|step| {
                let share = (f64::from(step) + 0.5) / 120.0;
                let value =
                    middle / slow_minute * (0.75 + 0.5 * share + 0.06 / (1.0 - share)) * self.about(0.01);
                (whole(value), operations / 120 + 1)
            })
            .chain([
                (whole(middle) * 14, operations / 1_200 + 1),
                (whole(middle) * 30, operations / 40_000 + 1),
            ])
            .collect();
        let batch = (depth / 2.0).clamp(1.0, 600.0);
        let cpu = operations as f64 * nature.cpu * size * (1.0 + 18.0 / batch.max(1.0)).min(12.0) * 1e-6;
        let writes = row.workload.call.writes();
        let mut spent = |part: Part, name: &str, share: f64| {
            let cpu = cpu * share * self.about(0.03);
            Spent {
                part,
                name: name.into(),
                usage: ProcessUsage {
                    cpu: Duration::from_secs_f64(cpu),
                    user: Duration::from_secs_f64(cpu * 0.62),
                    switches: operations / 40 + 100,
                    written_bytes: writes.then_some(operations * 330),
                    resident_bytes: Some(90 << 20),
                    threads: vec![
                        ("node-loop-1".into(), Duration::from_secs_f64(cpu * 0.7)),
                        (
                            if part == Part::Leader { "perf".into() } else { "udp-1".into() },
                            Duration::from_secs_f64(cpu * 0.25),
                        ),
                    ],
                },
                allocations: (row.system == OURS)
                    .then_some(Allocations { count: operations / 9, bytes: operations * 20 }),
                flushes: writes.then(|| whole(operations as f64 / batch) + 1),
                log_bytes: (writes && row.system == OURS).then_some(operations * 310),
                counters: BTreeMap::new(),
            }
        };
        let mut processes = vec![
            spent(Part::Leader, "node 1", 0.5),
            spent(Part::Follower, "node 2", 0.2),
            spent(Part::Follower, "node 3", 0.2),
        ];
        if row.system == ETCD {
            processes.push(spent(Part::Generator, "generator", 0.1));
        }
        Slice {
            row: position,
            block,
            order: position,
            began: Duration::from_secs(5 * block as u64),
            operations,
            errors: if row.system == ETCD && block == 2 && depth >= 8_000.0 {
                vec![("etcdserver: too many requests".into(), 37)]
            } else {
                Vec::new()
            },
            missed: whole(missed),
            elapsed: Duration::from_secs_f64(seconds),
            latencies,
            processes,
            probes: Probes {
                flush: 78.0 * self.about(0.2),
                majority: 150.0 * self.about(0.2),
                quic: 74.0 * self.about(0.1),
                udp: 51.0,
                spin: 5_100.0 * self.about(0.02),
            },
            machine: Some(MachineShares { busy: 0.93, steal: 0.004 * self.about(0.9) }),
            cores: 2,
            idle_cpu: Duration::from_millis(9),
        }
    }
}

fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    let mut add = |id: &str, workload: Workload, systems: &[&str], condition: Option<&str>| {
        for system in systems {
            rows.push(Row {
                id: id.into(),
                system: (*system).into(),
                promise: Promise::FsyncQuorum,
                workload,
                condition: condition.map(String::from),
            });
        }
    };
    let both = [OURS, ETCD];
    add("W1", Workload::closed(Call::Put, 1), &both, None);
    for depth in [100, 1_000, 8_000] {
        add("W2", Workload::closed(Call::Put, depth), &both, None);
    }
    for offered in [1e3, 3e3, 6e3, 9e3, 1.2e4, 1.4e4] {
        add("W3", Workload::open(Call::Put, offered, 20_000), &both, None);
    }
    for offered in [3e4, 1e5, 2e5, 4e5, 5e5, 6e5] {
        add("W3", Workload::open(Call::Put, offered, 20_000), &[OURS], None);
    }
    for depth in [4, 16, 64, 256, 2_048, 8_192] {
        add("W4", Workload::closed(Call::Put, depth), &both, None);
    }
    for size in [16, 1_024, 8_192, 131_072] {
        add("W5", Workload::closed(Call::Put, 100).with_values_of(size), &both, None);
    }
    for call in [Call::GetLinearizable, Call::GetEventual] {
        add("W6", Workload::closed(call, 100), &both, None);
    }
    add("W6", Workload::closed(Call::GetLease, 1), &[OURS], None);
    add("W7", Workload::closed(Call::Mixed { reads: 90 }, 100).on(Distribution::Zipf), &both, None);
    for watchers in [1, 100, 10_000] {
        add("W9", Workload::closed(Call::Watch { watchers }, 1), &both, None);
    }
    add("W10", Workload::closed(Call::Put, 1_000), &both, Some("one follower behind 50 ms"));
    rows
}

fn near(value: f64, by: f64) -> Median {
    Median { median: value, low: value * (1.0 - by), high: value * (1.0 + by), samples: 12 }
}

fn goals() -> Vec<Goal> {
    let goal =
        |name: &str, unit: &str, reach: f64, aim: f64, more: bool, found: Option<Median>, note: &str| Goal {
            name: name.into(),
            unit: unit.into(),
            reach,
            aim,
            more_is_better: more,
            found,
            note: note.into(),
        };
    vec![
        goal(
            "embedded put, 1000 in flight, against etcd's gRPC put",
            "x",
            25.0,
            60.0,
            true,
            Some(near(31.4, 0.05)),
            "",
        ),
        goal(
            "embedded put, 1 in flight, as a multiple of (flush + round trip)",
            "x",
            1.4,
            1.15,
            false,
            Some(near(1.52, 0.04)),
            "the follower's wake-up costs 30 µs; the profile of the row shows it",
        ),
        goal(
            "CPU per embedded put over three nodes, generator included",
            "µs",
            5.0,
            3.0,
            false,
            Some(near(3.4, 0.03)),
            "",
        ),
        goal("allocations per put in the steady state", "", 1.0, 0.0, false, Some(near(0.0, 0.0)), ""),
        goal(
            "flushes per node and put at n in flight, times n",
            "",
            3.0,
            2.2,
            false,
            Some(near(2.1, 0.02)),
            "",
        ),
        goal("embedded lease reads per core", "M/s", 4.0, 8.0, true, Some(near(3.9, 0.02)), ""),
        goal(
            "leader killed: median time to the next acknowledged write",
            "ms",
            500.0,
            100.0,
            false,
            None,
            "not in this job",
        ),
    ]
}

fn failures(maker: &mut Maker) -> Vec<Failover> {
    let mut all = Vec::new();
    for (system, what, rounds, middle, rate) in [
        (OURS, "leader killed, heartbeat 25ms, election 250ms (defaults)", 20, 0.14, 380_000.0),
        (OURS, "leader stopped in order", 5, 0.012, 380_000.0),
        (ETCD, "leader killed, heartbeat 100ms, election 1s (defaults)", 10, 1.35, 11_000.0),
    ] {
        for round in 0..rounds {
            let outage = middle * maker.about(0.5) * if round == 6 { 1.9 } else { 1.0 };
            let length = 0.01;
            let line = (-50_i32..400)
                .map(|step| f64::from(step) * length)
                .map(|at| Moment {
                    at,
                    length,
                    operations: if at + length <= 0.0 || at >= outage {
                        let back = if at < 0.0 { 1.0 } else { ((at - outage) / 0.08).clamp(0.2, 1.0) };
                        whole(rate * length * back * maker.about(0.1))
                    } else {
                        0
                    },
                    worst_micros: Some(2_400.0),
                })
                .collect();
            all.push(Failover {
                system: system.into(),
                what: what.into(),
                round,
                to_first_acknowledgement: Duration::from_secs_f64(outage),
                acknowledged: whole(rate * 3.0),
                lost: 0,
                errors: Vec::new(),
                line,
                events: vec![(outage * 0.6, "node 2 leads".into())],
            });
        }
    }
    all
}

fn sweeps(maker: &mut Maker) -> Vec<Sweep> {
    let axis = |name: &str, unit: &str, values: &[f64]| Axis {
        name: name.into(),
        unit: unit.into(),
        values: values.to_vec(),
    };
    let bytes: Vec<f64> = (0..6).map(|step| 16_384.0 * 4f64.powi(step)).collect();
    let batches = [1.0_f64, 2.0, 4.0, 8.0];
    let mut points = Vec::new();
    for &size in &bytes {
        for &many in &batches {
            let distance = (size / 262_144.0).log2().abs() * 0.09 + (many / 2.0).log2().abs() * 0.06;
            let rate = 520_000.0 * (1.0 - distance) * maker.about(0.02);
            let figures = BTreeMap::from([
                (Measure::Rate, near(rate, 0.02)),
                (Measure::P99, near(1_900.0 * (1.0 + distance * 4.0), 0.05)),
            ]);
            points.push(Point { at: vec![size, many], figures });
        }
    }
    let mut line = |most: f64| -> Vec<Point> {
        let point = |step| {
            let window = 65_536.0 * 2f64.powi(step);
            let rate = most * (1.0 - 0.5 / 2f64.powi(step)) * maker.about(0.02);
            Point { at: vec![window], figures: BTreeMap::from([(Measure::Rate, near(rate, 0.03))]) }
        };
        (0..7).map(point).collect()
    };
    let one = |in_flight: usize, points: Vec<Point>| Sweep {
        system: OURS.into(),
        workload: Workload::closed(Call::Put, in_flight),
        axes: vec![axis("peer_window", "B", &[])],
        points,
        chosen: Some(vec![1_048_576.0]),
        best: None,
    };
    let lines = [one(1_000, line(500_000.0)), one(100, line(90_000.0)), one(1, line(3_000.0))];
    let workload = Workload::closed(Call::Put, 1_000);
    let fields = vec![Sweep {
        system: OURS.into(),
        workload,
        axes: vec![axis("batch_bytes", "B", &bytes), axis("batches_in_flight", "", &batches)],
        points,
        chosen: Some(vec![1_048_576.0, 2.0]),
        best: Some((vec![262_144.0, 2.0], "most throughput with p99 below 2 ms".into())),
    }];
    fields.into_iter().chain(lines).collect()
}

/// A run of everything.
pub fn results() -> Results {
    const BLOCKS: usize = 6;
    let mut maker = Maker { numbers: SplitMix(7) };
    let rows = rows();
    let mut slices = Vec::new();
    for block in 0..BLOCKS {
        for (position, row) in rows.iter().enumerate() {
            slices.push(maker.slice(position, row, block));
        }
    }
    let mut ratios = Vec::new();
    for (position, row) in
        rows.iter().enumerate().filter(|(_, row)| row.system == OURS && row.id != "W3" && row.id != "W4")
    {
        let theirs = rows.iter().position(|other| {
            other.system == ETCD
                && (&other.id, &other.workload, &other.condition) == (&row.id, &row.workload, &row.condition)
        });
        for measure in [Measure::Rate, Measure::P99, Measure::Cpu] {
            let ratio = theirs
                .and_then(|theirs| Ratio::of(&rows, &slices, (position, theirs), measure).ok().flatten());
            ratios.extend(ratio);
        }
    }
    let subject = |name: &str, version: &str, ours: bool, settings: &[(&str, &str)]| Subject {
        name: name.into(),
        version: version.into(),
        promise: Promise::FsyncQuorum,
        nodes: 3,
        ours,
        settings: settings.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
    };
    let command =
        "perf full --against etcd --directory /data/perf --nice -5 --json full.json --html full.html";
    Results {
        format: FORMAT,
        version: "0.1.0".into(),
        job: "full".into(),
        command: command.split(' ').map(String::from).collect(),
        started: 1_763_800_000,
        took: Duration::from_secs(1_503),
        machine: Machine {
            processor: "Example(R) Processor 8373C @ 2.60GHz".into(),
            cores: 2,
            kernel: "Linux 6.18.0".into(),
            file_system: "ext4 on /dev/vda".into(),
            scheduling: "normally at nice -5".into(),
            commit: "0123456789ab+".into(),
        },
        probes: Probes { flush: 78.0, majority: 150.0, quic: 74.0, udp: 51.0, spin: 5_100.0 },
        rules: Rules {
            blocks: BLOCKS,
            slice: Duration::from_secs(4),
            short_slice: Duration::from_secs(2),
            warm_up: Duration::from_millis(500),
            most_steal: 0.05,
            attempts: 3,
            seed: 1,
        },
        notes: vec!["etcd 3.5.30 is the newest release that Debian offers".into()],
        systems: vec![
            subject(
                OURS,
                "0.1.0",
                true,
                &[("runtime", "io_uring"), ("generator", "in the leader's process")],
            ),
            subject(ETCD, "3.5.30", false, &[("connections", "4"), ("generator", "a process of its own")]),
        ],
        rows,
        slices,
        dropped: vec![Dropped { row: 3, block: 2, reason: "the host took 7.1 % of the machine".into() }],
        ratios,
        goals: goals(),
        memory: vec![
            Memory {
                system: OURS.into(),
                what: "store alone".into(),
                keys: 1_000_000,
                bytes_per_key: 371.0,
                payload_bytes: 272,
            },
            Memory {
                system: OURS.into(),
                what: "store alone".into(),
                keys: 10_000_000,
                bytes_per_key: 362.0,
                payload_bytes: 272,
            },
        ],
        failures: failures(&mut maker),
        recovery: [(OURS, 0.1, 0.21), (ETCD, 0.1, 0.9), (OURS, 1.0, 1.4), (ETCD, 1.0, 6.2), (OURS, 5.0, 6.6)]
            .map(|(system, gigabytes, seconds)| Recovery {
                system: system.into(),
                what: "alone".into(),
                log_bytes: whole(gigabytes * 1e9),
                keys: whole(gigabytes * 3.2e6),
                opened: Duration::from_secs_f64(seconds),
                served: Duration::from_secs_f64(seconds + 0.18),
                wrote: Some(Duration::from_secs_f64(seconds + 0.19)),
                peak_bytes: Some(265_000_000),
                cpu: Duration::from_secs_f64(seconds * 0.8),
            })
            .to_vec(),
        sweep: sweeps(&mut maker),
        not_run: vec![NotRun {
            id: "W8".into(),
            what: "gRPC unary and pipelined".into(),
            why: "it waits for the server".into(),
        }],
    }
}

/// A run that measured nothing at all.
pub fn nothing() -> Results {
    let Results { systems, rules, machine, .. } = results();
    Results { systems, machine, ..Results::begin("full", Path::new("."), rules) }
}

/// The middle of one number.
pub fn exactly(value: f64) -> Option<Median> {
    median([value])
}
