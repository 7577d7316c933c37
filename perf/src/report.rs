//! The report: medians over blocks as a table for people and as JSON for programs, raw slices included.

use crate::machine::Machine;
use crate::results::{Part, Promise, Row, Slice};
use crate::slice::FIGURES;
use crate::statistics::{Median, median};
use crate::workload::{KEY_BYTES, VALUE_BYTES};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::time::Duration;

/// Everything a run found.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Where.
    pub machine: Machine,
    /// Seconds since 1970 at the start.
    pub started: u64,
    /// Number of nodes.
    pub nodes: u64,
    /// Which runtime the nodes ran on.
    pub runtime: String,
    /// What the puts promise; the reads show writes of the same promise.
    pub promise: Promise,
    /// Blocks asked for.
    pub blocks: usize,
    /// Slices left out by the rule.
    pub dropped: usize,
    /// Every figure of every row.
    pub rows: Vec<Summary>,
    /// What the figures mean.
    pub meanings: BTreeMap<&'static str, &'static str>,
    /// What they were made from.
    pub slices: Vec<Slice>,
}

/// One row's medians over the blocks.
#[derive(Debug, Serialize)]
pub struct Summary {
    /// Name of the row.
    pub name: String,
    /// Calls that failed in all blocks, by message.
    pub errors: BTreeMap<String, u64>,
    /// Figures by key.
    pub figures: BTreeMap<&'static str, Median>,
    /// Probes around the slices.
    pub probes: BTreeMap<&'static str, Median>,
    /// Processor µs per operation by node role and thread, largest first.
    pub threads: Vec<(String, f64)>,
}

impl Report {
    /// Sums up.
    pub fn new(about: About, rows: &[Row], slices: Vec<Slice>) -> Self {
        Self {
            rows: rows.iter().enumerate().map(|(number, row)| Summary::new(row, number, &slices)).collect(),
            meanings: FIGURES.iter().map(|figure| (figure.key, figure.meaning)).collect(),
            machine: about.machine,
            started: about.started,
            nodes: about.nodes,
            runtime: about.runtime,
            promise: about.promise,
            blocks: about.blocks,
            dropped: about.dropped,
            slices,
        }
    }
}

/// What a report says besides its figures.
pub struct About {
    /// Where.
    pub machine: Machine,
    /// Seconds since 1970 at the start.
    pub started: u64,
    /// Number of nodes.
    pub nodes: u64,
    /// Which runtime.
    pub runtime: String,
    /// What the puts promise.
    pub promise: Promise,
    /// Blocks asked for.
    pub blocks: usize,
    /// Slices left out.
    pub dropped: usize,
}

impl Summary {
    fn new(row: &Row, number: usize, all: &[Slice]) -> Self {
        let slices: Vec<&Slice> = all.iter().filter(|slice| slice.row == number).collect();
        let mut errors = BTreeMap::new();
        for (message, count) in slices.iter().flat_map(|slice| &slice.errors) {
            *errors.entry(message.clone()).or_insert(0) += count;
        }
        let figures = FIGURES
            .iter()
            .filter_map(|figure| {
                Some((figure.key, median(slices.iter().filter_map(|s| (figure.of)(row, s)))?))
            })
            .collect();
        let probe = |of: fn(&Slice) -> f64| median(slices.iter().map(|slice| of(slice)));
        let probes = [
            ("flush_us", probe(|s| s.probes.flush)),
            ("quic_us", probe(|s| s.probes.quic)),
            ("udp_us", probe(|s| s.probes.udp)),
            ("spin_us", probe(|s| s.probes.spin)),
        ];
        Self {
            name: row.name(),
            errors,
            figures,
            probes: probes.into_iter().filter_map(|(key, found)| Some((key, found?))).collect(),
            threads: threads(&slices),
        }
    }

    fn figure(&self, key: &str) -> Option<f64> {
        self.figures.get(key).map(|found| found.median)
    }
}

/// Processor time by role and thread over all slices of a row, per operation.
fn threads(slices: &[&Slice]) -> Vec<(String, f64)> {
    let mut sums: BTreeMap<String, Duration> = BTreeMap::new();
    for slice in slices {
        for node in &slice.processes {
            let role = match node.part {
                Part::Leader => "leader",
                Part::Follower => "followers",
                Part::Generator => "generator",
            };
            for (name, cpu) in &node.usage.threads {
                // Names end in the number of a node or of a process: the same thread of all of them.
                let name =
                    name.trim_end_matches(|letter: char| letter.is_ascii_digit()).trim_end_matches('-');
                *sums.entry(format!("{role}/{name}")).or_default() += *cpu;
            }
        }
    }
    let operations: u64 = slices.iter().map(|slice| slice.operations).sum();
    let mut threads: Vec<(String, f64)> = sums
        .into_iter()
        .map(|(name, cpu)| (name, cpu.as_secs_f64() * 1e6 / operations.max(1) as f64))
        .filter(|(_, micros)| *micros >= 0.005)
        .collect();
    threads.sort_by(|a, b| b.1.total_cmp(&a.1));
    threads
}

/// A number with as many digits as it deserves.
pub fn number(value: Option<f64>) -> String {
    match value {
        None => "-".into(),
        Some(value) if value >= 1_000.0 => grouped(value),
        Some(value) if value >= 100.0 => format!("{value:.0}"),
        Some(value) if value >= 10.0 => format!("{value:.1}"),
        Some(value) if value >= 0.1 || value == 0.0 => format!("{value:.2}"),
        Some(value) => format!("{value:.4}"),
    }
}

fn grouped(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut out = String::new();
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

fn percent(value: Option<f64>) -> String {
    value.map_or_else(|| "-".into(), |share| format!("{:.0}%", share * 100.0))
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Machine { processor, cores, kernel, file_system, commit, .. } = &self.machine;
        writeln!(f, "{processor}, {cores} cores, {kernel}, {file_system}; commit {commit}")?;
        writeln!(
            f,
            "{} nodes as processes on the loopback, {KEY_BYTES} B keys, {VALUE_BYTES} B values, runtime {}, puts \
             promise {}; medians over {} blocks [bootstrap 95 %], {} slices dropped; all scheduled {}",
            self.nodes, self.runtime, self.promise, self.blocks, self.dropped, self.machine.scheduling
        )?;
        table(f, &self.rows)?;
        if let Some(alone) = self.rows.iter().find(|row| row.figures.contains_key("times_limit")) {
            let probe = |key| alone.probes.get(key).map(|found| found.median);
            writeln!(
                f,
                "\n1 in flight: p50 is {} x (flush {} µs + QUIC round trip {} µs); UDP round trip {} µs",
                number(alone.figure("times_limit")),
                number(probe("flush_us")),
                number(probe("quic_us")),
                number(probe("udp_us")),
            )?;
        }
        writeln!(f, "\nwhere the processor time goes, µs per operation (user space / all, then by thread):")?;
        for row in &self.rows {
            let mut line = format!(
                "  {:<34} {} of {}",
                row.name,
                percent(row.figure("user_share")),
                number(row.figure("cpu_us_per_op"))
            );
            for (name, micros) in row.threads.iter().take(6) {
                write!(line, "  {name} {}", number(Some(*micros)))?;
            }
            writeln!(f, "{line}")?;
        }
        for row in self.rows.iter().filter(|row| !row.errors.is_empty()) {
            for (message, count) in &row.errors {
                writeln!(f, "errors in {}: {count} x {message}", row.name)?;
            }
        }
        Ok(())
    }
}

fn table(f: &mut fmt::Formatter<'_>, rows: &[Summary]) -> fmt::Result {
    const HEADINGS: [&str; 14] = [
        "row",
        "per second",
        "[95 %]",
        "p50 µs",
        "p99 µs",
        "CPU µs/op",
        "flush/op/node",
        "ops/batch",
        "disk B/B",
        "device B/B",
        "alloc/op",
        "switch/op",
        "steal",
        "others",
    ];
    let mut lines: Vec<Vec<String>> = vec![HEADINGS.map(String::from).to_vec()];
    for row in rows {
        let figure = |key| number(row.figure(key));
        let interval = row
            .figures
            .get("rate")
            .map_or_else(String::new, |rate| format!("[{} - {}]", grouped(rate.low), grouped(rate.high)));
        lines.push(vec![
            row.name.clone(),
            figure("rate"),
            interval,
            figure("p50_us"),
            figure("p99_us"),
            figure("cpu_us_per_op"),
            figure("flushes_per_op_per_node"),
            figure("ops_per_batch"),
            figure("disk_bytes_per_payload_byte"),
            figure("device_bytes_per_payload_byte"),
            figure("allocations_per_op"),
            figure("switches_per_op"),
            percent(row.figure("steal_share")),
            percent(row.figure("others_share")),
        ]);
    }
    let widths: Vec<usize> = (0..HEADINGS.len())
        .map(|column| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0))
        .collect();
    for line in &lines {
        for (column, (cell, width)) in line.iter().zip(&widths).enumerate() {
            if column == 0 {
                write!(f, "\n{cell:<width$}")?;
            } else {
                write!(f, "  {cell:>width$}")?;
            }
        }
    }
    writeln!(f)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        let texts = [1_234_567.4, 284.4, 12.34, 1.5, 0.0123].map(|value| number(Some(value)));
        assert_eq!(texts, ["1,234,567", "284", "12.3", "1.50", "0.0123"]);
        assert_eq!(number(None), "-");
    }
}
