//! Everything a run found, as data: what `--json` writes, and what pages and summaries are drawn from.
//!
//! Raw slices are kept whole, so that every figure can be made again by somebody who does not trust how it was made
//! here. Rows that promise different things cannot get into one chart: [`Chart::of`] and [`Ratio::of`] are the only ways
//! to put rows side by side, and they refuse.

use crate::allocations::Allocations;
use crate::machine::Machine;
use crate::slice::{Probes, histogram};
use crate::statistics::{Median, median};
use crate::usage::{MachineShares, ProcessUsage};
use crate::workload::{Call, Pace, Workload};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};
use thiserror::Error;

/// Changes when a reader of the JSON would have to.
pub const FORMAT: u32 = 1;

/// What an acknowledgement promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Promise {
    /// A majority flushed it.
    #[serde(rename = "fsync-quorum")]
    FsyncQuorum,
    /// A majority has it in memory.
    #[serde(rename = "memory-quorum")]
    MemoryQuorum,
}

impl fmt::Display for Promise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::FsyncQuorum => "fsync-quorum",
            Self::MemoryQuorum => "memory-quorum",
        })
    }
}

/// Everything a run found.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Results {
    /// [`FORMAT`] of the program that wrote it.
    pub format: u32,
    /// Version of the harness and the engine.
    pub version: String,
    /// Which job: `quick`, `full`, `compare`, …
    pub job: String,
    /// The command line as given.
    pub command: Vec<String>,
    /// Seconds since 1970 at the start.
    pub started: u64,
    /// How long it all took.
    pub took: Duration,
    /// Where.
    pub machine: Machine,
    /// The machine's own limits over the run: medians of the probes around all slices.
    pub probes: Probes,
    /// How it was measured, fixed before the first slice.
    pub rules: Rules,
    /// What a reader must know: systems left out and why, settings that are not usual.
    pub notes: Vec<String>,
    /// What was compared.
    pub systems: Vec<Subject>,
    /// What was asked of each.
    pub rows: Vec<Row>,
    /// What came of it.
    pub slices: Vec<Slice>,
    /// Slices that were left out, each by the rule.
    pub dropped: Vec<Dropped>,
    /// Our rows over those of others.
    pub ratios: Vec<Ratio>,
    /// Figures that were set as goals, with what was found.
    pub goals: Vec<Goal>,
    /// Memory of a key.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub memory: Vec<Memory>,
    /// What happened when leaders were killed or asked to go.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failures: Vec<Failover>,
    /// Restarts with a log to read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub recovery: Vec<Recovery>,
    /// Settings that were swept.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sweep: Vec<Sweep>,
    /// What of the matrix this run has nothing of, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_run: Vec<NotRun>,
}

/// A part of the matrix of which a run has nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotRun {
    /// Which part: `W8`.
    pub id: String,
    /// What it is, or which piece of it.
    pub what: String,
    /// Why there is nothing.
    pub why: String,
}

impl Results {
    /// Of a run that begins now and has found nothing yet; its data is under `directory`.
    pub fn begin(job: &str, directory: &Path, rules: Rules) -> Self {
        let started = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        Self {
            format: FORMAT,
            version: env!("CARGO_PKG_VERSION").into(),
            job: job.into(),
            command: std::env::args().collect(),
            started: started.map_or(0, |since| since.as_secs()),
            took: Duration::ZERO,
            machine: Machine::here(directory),
            probes: Probes::default(),
            rules,
            notes: Vec::new(),
            systems: Vec::new(),
            rows: Vec::new(),
            slices: Vec::new(),
            dropped: Vec::new(),
            ratios: Vec::new(),
            goals: Vec::new(),
            memory: Vec::new(),
            failures: Vec::new(),
            recovery: Vec::new(),
            sweep: Vec::new(),
            not_run: Vec::new(),
        }
    }

    /// Takes in what another job found beside the rows: its sections, and the systems they name.
    pub fn take_in(&mut self, other: Self) {
        for subject in other.systems {
            if !self.systems.iter().any(|known| known.name == subject.name) {
                self.systems.push(subject);
            }
        }
        let new = other.notes.into_iter().filter(|note| !self.notes.contains(note)).collect::<Vec<_>>();
        self.notes.extend(new);
        self.memory.extend(other.memory);
        self.failures.extend(other.failures);
        self.recovery.extend(other.recovery);
        self.sweep.extend(other.sweep);
        self.not_run.extend(other.not_run);
    }

    /// Writes all of it as JSON: whole, or the file stays as it was.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let text = serde_json::to_string(self).map_err(io::Error::other)?;
        let mut beside = path.as_os_str().to_owned();
        beside.push(".new");
        fs::write(&beside, text)?;
        fs::rename(&beside, path)
    }

    /// Reads what [`write`](Self::write) wrote, for a program of the same build; see `perf report` for the others.
    pub fn read(path: &Path) -> io::Result<Self> {
        serde_json::from_str(&fs::read_to_string(path)?).map_err(io::Error::other)
    }
}

/// How a run measures.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rules {
    /// Blocks; each row gets one slice in each.
    pub blocks: usize,
    /// Length of a slice.
    pub slice: Duration,
    /// Length of a slice of a row that is a point of a curve and not a figure by itself.
    pub short_slice: Duration,
    /// Length of the unmeasured slice of each row that comes first.
    pub warm_up: Duration,
    /// A slice is left out when leadership moved during it, or when more than this share of the machine was taken by its
    /// host.
    pub most_steal: f64,
    /// How often a slice is tried in all.
    pub attempts: usize,
    /// Seed of the order inside blocks.
    pub seed: u64,
}

impl Rules {
    /// Of a job without rows: repetitions of one length, none of which is left out.
    pub fn plain(blocks: usize, slice: Duration, seed: u64) -> Self {
        Self {
            blocks,
            slice,
            short_slice: slice,
            warm_up: Duration::ZERO,
            most_steal: 1.0,
            attempts: 1,
            seed,
        }
    }

    /// The rule in words.
    pub fn dropping(&self) -> String {
        format!(
            "a slice is left out, and tried again up to {} times in all, when leadership moved during it or the host took \
             more than {:.0} % of the machine",
            self.attempts,
            self.most_steal * 100.0
        )
    }
}

/// A system under test.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Subject {
    /// Its name, by which rows refer to it: `d-engine embedded`, `etcd`.
    pub name: String,
    /// Its version.
    pub version: String,
    /// What its acknowledgements promise.
    pub promise: Promise,
    /// Nodes in its cluster.
    pub nodes: usize,
    /// Whether it is ours: ratios are ours over theirs.
    pub ours: bool,
    /// Settings worth knowing, by name: runtime, connections, where the generator runs.
    pub settings: BTreeMap<String, String>,
}

/// One line of the matrix for one system.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Which part of the matrix: `W2`.
    pub id: String,
    /// Name of the [`Subject`].
    pub system: String,
    /// What that system promises.
    pub promise: Promise,
    /// What was asked.
    pub workload: Workload,
    /// What was done to the cluster meanwhile, if anything: one follower slowed down, a snapshot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub condition: Option<String>,
}

impl Row {
    /// Its name without the system's: the promise comes first.
    pub fn name(&self) -> String {
        let condition = self.condition.as_ref().map_or_else(String::new, |text| format!(", {text}"));
        format!("{} {}{condition}", self.promise, self.workload)
    }
}

/// What a process is in a slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// The node that leads. Of an embedded system it is the generator too.
    Leader,
    /// Another node.
    Follower,
    /// The program that makes the calls, where it is one of its own.
    Generator,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Leader => "leader",
            Self::Follower => "follower",
            Self::Generator => "generator",
        })
    }
}

/// What one process spent: since it began, or on a slice.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Spent {
    /// What it is.
    pub part: Part,
    /// Which of its kind: `node 1`.
    pub name: String,
    /// The kernel's accounts.
    pub usage: ProcessUsage,
    /// Allocations, where the process counts them.
    pub allocations: Option<Allocations>,
    /// Flushes of its log by its own counter; none for a generator.
    pub flushes: Option<u64>,
    /// Bytes it wrote to its log by its own counter; else see `usage.written_bytes`.
    pub log_bytes: Option<u64>,
    /// Other counters of the system, by name: `batches`, `turns`, `sleeps`, `wakes`.
    pub counters: BTreeMap<String, u64>,
}

impl Spent {
    /// What was spent between `earlier` and `self`.
    pub fn since(&self, earlier: &Self) -> Self {
        let difference =
            |now: Option<u64>, then: Option<u64>| now.zip(then).map(|(now, then)| now.saturating_sub(then));
        let counters = self.counters.iter().map(|(name, now)| {
            (name.clone(), now.saturating_sub(earlier.counters.get(name).copied().unwrap_or(0)))
        });
        Self {
            part: self.part,
            name: self.name.clone(),
            usage: self.usage.since(&earlier.usage),
            allocations: self.allocations.zip(earlier.allocations).map(|(now, then)| now.since(then)),
            flushes: difference(self.flushes, earlier.flushes),
            log_bytes: difference(self.log_bytes, earlier.log_bytes),
            counters: counters.collect(),
        }
    }
}

/// One slice of one row.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Slice {
    /// Position of its row in [`Results::rows`].
    pub row: usize,
    /// Which block it belongs to.
    pub block: usize,
    /// Its place in the order of the block.
    pub order: usize,
    /// When it began, from the start of the run.
    pub began: Duration,
    /// Calls answered with success; of a watch, deliveries.
    pub operations: u64,
    /// Calls that failed, by message.
    pub errors: Vec<(String, u64)>,
    /// Calls of an open loop that were due and never sent, since the backlog was full to the end.
    pub missed: u64,
    /// From the first call to the last answer.
    pub elapsed: Duration,
    /// Latencies of successful calls: nanoseconds, and how many.
    pub latencies: Vec<(u64, u64)>,
    /// What each process spent: all nodes, and the generator where it is one of its own.
    pub processes: Vec<Spent>,
    /// Processor time that the systems which waited for their turn took meanwhile.
    pub idle_cpu: Duration,
    /// Probes before and after, halfway.
    pub probes: Probes,
    /// What the machine's processors did.
    pub machine: Option<MachineShares>,
    /// Processors of the machine.
    pub cores: usize,
}

/// A slice that does not count.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Dropped {
    /// Position of its row.
    pub row: usize,
    /// Its block.
    pub block: usize,
    /// By which half of the rule.
    pub reason: String,
}

// ---- figures of a slice

impl Slice {
    /// Operations in a second.
    pub fn rate(&self) -> f64 {
        self.operations as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }

    /// `total` shared out over the operations; `None` without any.
    pub fn per_operation(&self, total: f64) -> Option<f64> {
        (self.operations > 0).then(|| total / self.operations as f64)
    }

    /// The latencies; nanoseconds.
    pub fn histogram(&self) -> Histogram<u64> {
        histogram(&self.latencies)
    }

    /// The latency that `share` (0 to 1) of the calls stayed within, in microseconds.
    pub fn latency_micros(&self, share: f64) -> Option<f64> {
        let histogram = self.histogram();
        (!histogram.is_empty()).then(|| histogram.value_at_quantile(share) as f64 / 1e3)
    }

    /// The nodes, without a generator of its own.
    pub fn nodes(&self) -> impl Iterator<Item = &Spent> {
        self.processes.iter().filter(|spent| spent.part != Part::Generator)
    }

    /// What the leader spent.
    pub fn leader(&self) -> Option<&Spent> {
        self.processes.iter().find(|spent| spent.part == Part::Leader)
    }

    /// Processor time of all processes per operation, in microseconds.
    pub fn cpu_micros(&self) -> Option<f64> {
        self.per_operation(self.processes.iter().map(|spent| spent.usage.cpu.as_secs_f64() * 1e6).sum())
    }

    /// The share of that which processes of one kind took.
    pub fn cpu_micros_of(&self, part: Part) -> Option<f64> {
        let of_part = self.processes.iter().filter(|spent| spent.part == part);
        self.per_operation(of_part.map(|spent| spent.usage.cpu.as_secs_f64() * 1e6).sum())
    }

    /// Flushes per operation, averaged over the nodes; `None` if a node does not tell.
    pub fn flushes(&self) -> Option<f64> {
        let all: Option<u64> = self.nodes().map(|spent| spent.flushes).sum();
        self.per_operation(all? as f64 / self.nodes().count().max(1) as f64)
    }

    /// Bytes that the kernel sent to the device per operation, averaged over the nodes.
    pub fn device_bytes(&self) -> Option<f64> {
        let all: Option<u64> = self.nodes().map(|spent| spent.usage.written_bytes).sum();
        self.per_operation(all? as f64 / self.nodes().count().max(1) as f64)
    }

    /// Bytes written to the log by the system's own counter per operation, averaged over the nodes.
    pub fn log_bytes(&self) -> Option<f64> {
        let all: Option<u64> = self.nodes().map(|spent| spent.log_bytes).sum();
        self.per_operation(all? as f64 / self.nodes().count().max(1) as f64)
    }
}

/// A figure by which rows are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// Operations in a second.
    Rate,
    /// Median latency, µs.
    P50,
    /// 99th percentile of the latency, µs.
    P99,
    /// 99.9th percentile of the latency, µs.
    P999,
    /// Processor time of all nodes and the generator per operation, µs.
    Cpu,
    /// Flushes per operation and node.
    Flushes,
    /// Bytes sent to the device per operation and node.
    DeviceBytes,
}

impl Measure {
    /// All of them, in the order of reports.
    pub const ALL: [Self; 7] =
        [Self::Rate, Self::P50, Self::P99, Self::P999, Self::Cpu, Self::Flushes, Self::DeviceBytes];

    /// What a slice has of it.
    pub fn of(self, slice: &Slice) -> Option<f64> {
        match self {
            Self::Rate => Some(slice.rate()),
            Self::P50 => slice.latency_micros(0.5),
            Self::P99 => slice.latency_micros(0.99),
            Self::P999 => slice.latency_micros(0.999),
            Self::Cpu => slice.cpu_micros(),
            Self::Flushes => slice.flushes(),
            Self::DeviceBytes => slice.device_bytes(),
        }
    }

    /// Whether more of it is better.
    pub fn more_is_better(self) -> bool {
        self == Self::Rate
    }
}

impl fmt::Display for Measure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rate => "operations per second",
            Self::P50 => "median latency, µs",
            Self::P99 => "p99 latency, µs",
            Self::P999 => "p99.9 latency, µs",
            Self::Cpu => "CPU per operation, µs",
            Self::Flushes => "flushes per operation and node",
            Self::DeviceBytes => "device bytes per operation and node",
        })
    }
}

// ---- rows side by side

/// Why rows do not belong into one chart.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum Unfair {
    /// They promise different things.
    #[error(
        "{first} promises {promise} and {second} promises {other}: they are not the same work and are not drawn in one chart"
    )]
    Promises {
        /// A system.
        first: String,
        /// Its promise.
        promise: Promise,
        /// Another.
        second: String,
        /// Its promise.
        other: Promise,
    },
    /// They were asked different things.
    #[error("{first:?} and {second:?} are different work, and their quotient says nothing")]
    Work {
        /// What one was asked.
        first: String,
        /// What the other was asked.
        second: String,
    },
    /// There is nothing to draw.
    #[error("a chart without rows")]
    Empty,
}

/// Leave for rows to stand side by side.
#[derive(Clone, Debug)]
pub struct Chart {
    promise: Promise,
}

impl Chart {
    /// # Errors
    /// [`Unfair`] unless all rows promise the same.
    pub fn of<'a>(rows: impl IntoIterator<Item = &'a Row>) -> Result<Self, Unfair> {
        let mut rows = rows.into_iter();
        let first = rows.next().ok_or(Unfair::Empty)?;
        let promise = first.promise;
        match rows.find(|row| row.promise != promise) {
            Some(other) => Err(Unfair::Promises {
                first: first.system.clone(),
                promise,
                second: other.system.clone(),
                other: other.promise,
            }),
            None => Ok(Self { promise }),
        }
    }

    /// What all of them promise: part of the chart's title.
    pub fn promise(&self) -> Promise {
        self.promise
    }
}

/// One row over another, block by block.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ratio {
    /// Which part of the matrix.
    pub id: String,
    /// By which figure.
    pub measure: Measure,
    /// Position of our row.
    pub ours: usize,
    /// Position of the other's.
    pub theirs: usize,
    /// How many times better ours was in each block: ours over theirs where more is better, else theirs over ours. Below
    /// 1 we lost.
    pub blocks: Vec<f64>,
    /// Median of these with its bootstrap 95 % interval.
    pub times_better: Median,
}

impl Ratio {
    /// Of the rows at two positions; `None` if no block has both.
    ///
    /// # Errors
    /// [`Unfair`] unless both rows promise the same and were asked the same.
    pub fn of(
        rows: &[Row],
        slices: &[Slice],
        (ours, theirs): (usize, usize),
        measure: Measure,
    ) -> Result<Option<Self>, Unfair> {
        Chart::of([&rows[ours], &rows[theirs]])?;
        let (first, second) = (&rows[ours], &rows[theirs]);
        if first.workload != second.workload || first.condition != second.condition {
            return Err(Unfair::Work { first: first.name(), second: second.name() });
        }
        let figures = |row: usize| -> BTreeMap<usize, f64> {
            let of_row = slices.iter().filter(|slice| slice.row == row);
            of_row.filter_map(|slice| Some((slice.block, measure.of(slice)?))).collect()
        };
        let (ours_by_block, theirs_by_block) = (figures(ours), figures(theirs));
        let blocks: Vec<f64> = ours_by_block
            .iter()
            .filter_map(|(block, mine)| {
                let other = theirs_by_block.get(block)?;
                let times = if measure.more_is_better() { mine / other } else { other / mine };
                times.is_finite().then_some(times)
            })
            .collect();
        let id = first.id.clone();
        Ok(median(blocks.iter().copied()).map(|times_better| Self {
            id,
            measure,
            ours,
            theirs,
            blocks,
            times_better,
        }))
    }

    /// Whether ours was the worse one.
    pub fn lost(&self) -> bool {
        self.times_better.median < 1.0
    }
}

impl Results {
    /// The slices of a row.
    pub fn slices_of(&self, row: usize) -> impl Iterator<Item = &Slice> {
        self.slices.iter().filter(move |slice| slice.row == row)
    }

    /// The median of a figure over a row's blocks.
    pub fn figure(&self, row: usize, measure: Measure) -> Option<Median> {
        median(self.slices_of(row).filter_map(|slice| measure.of(slice)))
    }

    /// The latencies of a row, all slices in one; nanoseconds.
    pub fn latencies_of(&self, row: usize) -> Histogram<u64> {
        histogram(self.slices_of(row).flat_map(|slice| &slice.latencies))
    }

    /// Calls of a row that failed, by message.
    pub fn errors_of(&self, row: usize) -> BTreeMap<&str, u64> {
        let mut errors = BTreeMap::new();
        for (message, count) in self.slices_of(row).flat_map(|slice| &slice.errors) {
            *errors.entry(message.as_str()).or_insert(0) += count;
        }
        errors
    }

    /// Positions of the rows that were asked one call at one depth, for any part of the matrix.
    pub fn rows_asked(&self, call: Call, in_flight: usize) -> impl Iterator<Item = usize> {
        let pace = Pace::Closed { in_flight };
        let asked = move |row: &Row| row.workload == Workload { pace, ..Workload::closed(call, in_flight) };
        self.rows.iter().enumerate().filter(move |(_, row)| asked(row)).map(|(position, _)| position)
    }
}

// ---- goals and the sections that single jobs fill

/// A figure that was set as a goal before it was measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Goal {
    /// What is measured.
    pub name: String,
    /// Its unit, behind every number: `x`, `µs`, `M/s`.
    pub unit: String,
    /// What must be reached.
    pub reach: f64,
    /// What is aimed at.
    pub aim: f64,
    /// Whether more is better.
    pub more_is_better: bool,
    /// What was found; `None` if this run did not measure it.
    pub found: Option<Median>,
    /// Why there is nothing, or what a reader must know.
    pub note: String,
}

/// What became of a goal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// As good as the aim.
    Aimed,
    /// Good enough.
    Reached,
    /// Not good enough.
    Missed,
    /// Not measured in this run.
    Unknown,
}

impl Goal {
    /// What became of it.
    pub fn verdict(&self) -> Verdict {
        let Some(found) = self.found else { return Verdict::Unknown };
        let good = |limit| if self.more_is_better { found.median >= limit } else { found.median <= limit };
        match (good(self.aim), good(self.reach)) {
            (true, _) => Verdict::Aimed,
            (false, true) => Verdict::Reached,
            (false, false) => Verdict::Missed,
        }
    }
}

/// Memory of a key (W14).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Memory {
    /// Name of the [`Subject`].
    pub system: String,
    /// What is counted: a store alone, a node of a cluster.
    pub what: String,
    /// Keys in it.
    pub keys: u64,
    /// Resident bytes for each, key and value included.
    pub bytes_per_key: f64,
    /// The part that is the key and the value.
    pub payload_bytes: usize,
}

/// One node was taken away from a cluster under load (W11).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Failover {
    /// Name of the [`Subject`].
    pub system: String,
    /// What was done, and how the nodes know that their leader is gone: `leader killed, heartbeat 25ms, election 250ms`.
    pub what: String,
    /// Which repetition.
    pub round: usize,
    /// From the act to the first write acknowledged after it.
    pub to_first_acknowledgement: Duration,
    /// Writes acknowledged in the whole round.
    pub acknowledged: u64,
    /// Of these, those that are not there at the end: any is a defect.
    pub lost: u64,
    /// Calls that failed, by message.
    pub errors: Vec<(String, u64)>,
    /// How the load went on.
    pub line: Vec<Moment>,
    /// What happened when, in seconds from the act: `node 2 leads`.
    pub events: Vec<(f64, String)>,
}

/// A short piece of a time line.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Moment {
    /// Its beginning in seconds from the act; below zero before it.
    pub at: f64,
    /// Its length in seconds.
    pub length: f64,
    /// Writes acknowledged in it.
    pub operations: u64,
    /// The longest latency among them, µs.
    pub worst_micros: Option<f64>,
}

/// A node was started with a log to read (W12).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Recovery {
    /// Name of the [`Subject`].
    pub system: String,
    /// What the node is: `alone`, `a follower of three`.
    #[serde(default)]
    pub what: String,
    /// Bytes of its log.
    pub log_bytes: u64,
    /// Keys in its store afterwards.
    pub keys: u64,
    /// From the start of the process until it knows what it had.
    pub opened: Duration,
    /// From the start of the process until it serves.
    pub served: Duration,
    /// From the start of the process until a write was acknowledged.
    #[serde(default)]
    pub wrote: Option<Duration>,
    /// Processor time it took for that.
    pub cpu: Duration,
    /// The most memory that was resident until then.
    #[serde(default)]
    pub peak_bytes: Option<u64>,
}

/// A setting or several that were swept under one load (W15).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sweep {
    /// Name of the [`Subject`].
    pub system: String,
    /// The load.
    pub workload: Workload,
    /// What was varied; a point has one value for each.
    pub axes: Vec<Axis>,
    /// What was found.
    pub points: Vec<Point>,
    /// Where the engine's own choice lies, if it chose.
    pub chosen: Option<Vec<f64>>,
    /// The best point, and by which rule it is the best.
    pub best: Option<(Vec<f64>, String)>,
}

/// A setting.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Axis {
    /// Its name as in the configuration.
    pub name: String,
    /// Its unit.
    pub unit: String,
    /// Values tried, in order.
    pub values: Vec<f64>,
}

/// One combination of settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// A value for each axis.
    pub at: Vec<f64>,
    /// What it gave.
    pub figures: BTreeMap<Measure, Median>,
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A row for tests.
    pub fn row(system: &str, promise: Promise, in_flight: usize) -> Row {
        let workload = Workload::closed(Call::Put, in_flight);
        Row { id: "W2".into(), system: system.into(), promise, workload, condition: None }
    }

    /// A slice of a second for tests: three nodes, a latency for all calls.
    pub fn slice(row: usize, block: usize, operations: u64) -> Slice {
        let spent = |part, name: &str| Spent {
            part,
            name: name.into(),
            usage: ProcessUsage { cpu: Duration::from_millis(10), ..ProcessUsage::default() },
            allocations: None,
            flushes: Some(operations / 10),
            log_bytes: None,
            counters: BTreeMap::new(),
        };
        Slice {
            row,
            block,
            order: 0,
            began: Duration::ZERO,
            operations,
            errors: Vec::new(),
            missed: 0,
            elapsed: Duration::from_secs(1),
            latencies: vec![(300_000, operations)],
            processes: vec![
                spent(Part::Leader, "node 1"),
                spent(Part::Follower, "node 2"),
                spent(Part::Follower, "node 3"),
            ],
            idle_cpu: Duration::ZERO,
            probes: Probes::default(),
            machine: None,
            cores: 2,
        }
    }

    /// Everything around rows and slices for tests; the system `ours` is ours.
    pub fn results(rows: Vec<Row>, slices: Vec<Slice>) -> Results {
        let mut systems: Vec<Subject> = Vec::new();
        for row in &rows {
            if !systems.iter().any(|known| known.name == row.system) {
                systems.push(Subject {
                    name: row.system.clone(),
                    version: "1".into(),
                    promise: row.promise,
                    nodes: 3,
                    ours: row.system == "ours",
                    settings: BTreeMap::new(),
                });
            }
        }
        let rules = Rules { most_steal: 0.05, attempts: 3, ..Rules::plain(1, Duration::from_secs(1), 1) };
        Results { systems, rows, slices, ..Results::begin("quick", Path::new("."), rules) }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let found = results(vec![row("ours", Promise::FsyncQuorum, 1)], vec![slice(0, 0, 10)]);
        let text = serde_json::to_string(&found).expect("plain data");
        let read: Results = serde_json::from_str(&text).expect("the same data");
        assert_eq!((read.rows, read.slices[0].operations), (found.rows, 10));
        assert!(text.contains("\"fsync-quorum\""), "{text}");
    }

    #[test]
    fn rows_of_different_promises_are_refused() {
        let rows = [row("ours", Promise::MemoryQuorum, 1), row("etcd", Promise::FsyncQuorum, 1)];
        let refused = Chart::of(&rows).expect_err("unfair");
        assert_eq!(
            refused,
            Unfair::Promises {
                first: "ours".into(),
                promise: Promise::MemoryQuorum,
                second: "etcd".into(),
                other: Promise::FsyncQuorum
            }
        );
        assert_eq!(Ratio::of(&rows, &[], (0, 1), Measure::Rate), Err(refused));
    }

    #[test]
    fn different_work_has_no_quotient_and_may_share_a_chart() {
        let rows = [row("ours", Promise::FsyncQuorum, 1), row("etcd", Promise::FsyncQuorum, 100)];
        assert_eq!(Chart::of(&rows).map(|chart| chart.promise()), Ok(Promise::FsyncQuorum));
        assert!(matches!(Ratio::of(&rows, &[], (0, 1), Measure::Rate), Err(Unfair::Work { .. })));
    }

    #[test]
    fn quotients_are_made_inside_blocks_and_say_how_many_times_better_ours_is() {
        let rows = [row("ours", Promise::FsyncQuorum, 1), row("etcd", Promise::FsyncQuorum, 1)];
        // The machine is ten times slower in the second block: that must not show. The third has no counterpart.
        let slices =
            [slice(0, 0, 3_000), slice(1, 0, 1_000), slice(0, 1, 300), slice(1, 1, 100), slice(0, 2, 9)];
        let of = |measure| Ratio::of(&rows, &slices, (0, 1), measure).expect("fair").expect("two blocks");
        let rate = of(Measure::Rate);
        assert_eq!(rate.blocks, [3.0, 3.0]);
        assert!((rate.times_better.median - 3.0).abs() < 1e-9 && !rate.lost());
        // The same processor time for a third of the work.
        assert!((of(Measure::Cpu).times_better.median - 3.0).abs() < 1e-9);
    }

    #[test]
    fn a_goal_is_judged_by_its_direction() {
        let goal = |found: f64, more_is_better| Goal {
            name: "latency".into(),
            unit: "x".into(),
            reach: if more_is_better { 25.0 } else { 1.4 },
            aim: if more_is_better { 60.0 } else { 1.15 },
            more_is_better,
            found: median([found]),
            note: String::new(),
        };
        assert_eq!(goal(30.0, true).verdict(), Verdict::Reached);
        assert_eq!(goal(1.3, false).verdict(), Verdict::Reached);
        assert_eq!(goal(1.1, false).verdict(), Verdict::Aimed);
        assert_eq!(goal(1.5, false).verdict(), Verdict::Missed);
        assert_eq!(goal(f64::NAN, false).verdict(), Verdict::Unknown);
    }
}
