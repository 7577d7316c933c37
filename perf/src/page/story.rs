//! Results as the sections need them: every figure made once, a colour for every system, rows in groups.

use super::drawing::Hue;
use super::unit::Unit;
use crate::results::{Measure, Part, Promise, Ratio, Results, Row, Slice, Subject};
use crate::statistics::{Median, median};
use crate::workload::{Pace, Workload};
use std::collections::BTreeMap;
use std::time::Duration;

/// Results and what was made of them.
pub struct Story<'a> {
    /// What was found.
    pub results: &'a Results,
    figures: Vec<BTreeMap<Measure, Median>>,
}

/// The unit of a measure.
pub fn unit(measure: Measure) -> Unit {
    match measure {
        Measure::Rate => Unit::PerSecond,
        Measure::P50 | Measure::P99 | Measure::P999 | Measure::Cpu => Unit::Micros,
        Measure::Flushes => Unit::Count,
        Measure::DeviceBytes => Unit::Bytes,
    }
}

/// The name of a measure where its unit is said elsewhere.
pub fn short(measure: Measure) -> &'static str {
    match measure {
        Measure::Rate => "throughput",
        Measure::P50 => "p50",
        Measure::P99 => "p99",
        Measure::P999 => "p99.9",
        Measure::Cpu => "CPU per operation",
        Measure::Flushes => "flushes per operation and node",
        Measure::DeviceBytes => "device bytes per operation and node",
    }
}

/// Texts joined as a list in a sentence.
pub fn listed(texts: &[String]) -> String {
    match texts {
        [] => String::new(),
        [one] => one.clone(),
        [firsts @ .., last] => format!("{} and {last}", firsts.join(", ")),
    }
}

impl<'a> Story<'a> {
    /// Makes all figures.
    pub fn new(results: &'a Results) -> Self {
        let figures_of = |row: usize| {
            let slices: Vec<&Slice> = results.slices_of(row).collect();
            let of = |measure: Measure| median(slices.iter().filter_map(|slice| measure.of(slice)));
            Measure::ALL.into_iter().filter_map(|measure| Some((measure, of(measure)?))).collect()
        };
        Self { results, figures: (0..results.rows.len()).map(figures_of).collect() }
    }

    /// The median of a figure over a row's blocks.
    pub fn figure(&self, row: usize, measure: Measure) -> Option<Median> {
        self.figures.get(row)?.get(&measure).copied()
    }

    /// The same without its interval.
    pub fn value(&self, row: usize, measure: Measure) -> Option<f64> {
        self.figure(row, measure).map(|found| found.median)
    }

    /// A figure of a row in words.
    pub fn words(&self, row: usize, measure: Measure) -> String {
        self.value(row, measure).map_or_else(|| "–".into(), |value| unit(measure).text(value))
    }

    /// A system by its name.
    pub fn subject(&self, name: &str) -> Option<&'a Subject> {
        self.results.systems.iter().find(|subject| subject.name == name)
    }

    /// A system's colour: ours come first, so they have the same ones on every page.
    pub fn hue(&self, system: &str) -> Hue {
        let (ours, others): (Vec<&Subject>, Vec<&Subject>) =
            self.results.systems.iter().partition(|subject| subject.ours);
        let mut all = ours.into_iter().chain(others);
        Hue(all.position(|subject| subject.name == system).unwrap_or(5))
    }

    /// Whether a system is ours.
    pub fn ours(&self, system: &str) -> bool {
        self.subject(system).is_some_and(|subject| subject.ours)
    }

    /// Rows with slices, by a key, in the order in which keys first appear; ours first inside a group.
    pub fn groups<K: PartialEq>(&self, key: impl Fn(&'a Row) -> Option<K>) -> Vec<(K, Vec<usize>)> {
        let mut groups: Vec<(K, Vec<usize>)> = Vec::new();
        for (position, row) in self.results.rows.iter().enumerate() {
            if self.value(position, Measure::Rate).is_none() {
                continue;
            }
            let Some(key) = key(row) else { continue };
            match groups.iter_mut().find(|group| group.0 == key) {
                Some(group) => group.1.push(position),
                None => groups.push((key, vec![position])),
            }
        }
        for group in &mut groups {
            group.1.sort_by_key(|row| self.hue(&self.results.rows[*row].system).0);
        }
        groups
    }

    /// A row.
    pub fn row(&self, position: usize) -> &'a Row {
        &self.results.rows[position]
    }

    /// Rows by their systems, in the order given.
    pub fn by_system(&self, rows: &[usize]) -> Vec<(&'a str, Vec<usize>)> {
        let mut systems: Vec<(&str, Vec<usize>)> = Vec::new();
        for &row in rows {
            let name = self.row(row).system.as_str();
            match systems.iter_mut().find(|system| system.0 == name) {
                Some(system) => system.1.push(row),
                None => systems.push((name, vec![row])),
            }
        }
        systems
    }

    /// Rows by what they promise.
    pub fn by_promise(&self, rows: &[usize]) -> Vec<Vec<usize>> {
        let of =
            |promise: Promise| rows.iter().copied().filter(|row| self.row(*row).promise == promise).collect();
        let both: [Vec<usize>; 2] = [of(Promise::FsyncQuorum), of(Promise::MemoryQuorum)];
        both.into_iter().filter(|rows| !rows.is_empty()).collect()
    }

    /// Quotients that say something: in an open loop both do what is offered, and how much is no merit.
    pub fn ratios(&self) -> impl Iterator<Item = &'a Ratio> {
        let offered = |ratio: &&Ratio| {
            ratio.measure == Measure::Rate && depth(&self.row(ratio.ours).workload).is_none()
        };
        self.results.ratios.iter().filter(move |ratio| !offered(ratio))
    }

    /// Slices of a row that were left out.
    pub fn dropped(&self, row: usize) -> usize {
        self.results.dropped.iter().filter(|dropped| dropped.row == row).count()
    }

    /// The share of the machine that its host took, in all slices that say so.
    pub fn steal(&self) -> Option<(Median, f64)> {
        let shares = || self.results.slices.iter().filter_map(|slice| Some(slice.machine?.steal));
        Some((median(shares())?, shares().fold(0.0, f64::max)))
    }

    /// Processor time of a row by what processes are, in user space and in the kernel; µs per operation over all slices.
    pub fn processor(&self, row: usize) -> BTreeMap<Part, (f64, f64)> {
        let mut sums: BTreeMap<Part, (Duration, Duration)> = BTreeMap::new();
        for spent in self.results.slices_of(row).flat_map(|slice| &slice.processes) {
            let sum = sums.entry(spent.part).or_default();
            // The kernel's two accounts have different steps: together they are never more than the exact one.
            let user = spent.usage.user.min(spent.usage.cpu);
            sum.0 += user;
            sum.1 += spent.usage.cpu - user;
        }
        let operations = self.operations(row);
        let micros = |time: Duration| time.as_secs_f64() * 1e6 / operations;
        sums.into_iter().map(|(part, (user, system))| (part, (micros(user), micros(system)))).collect()
    }

    /// The threads that took most of a row's processor time; µs per operation.
    pub fn threads(&self, row: usize, most: usize) -> Vec<(String, f64)> {
        let mut sums: BTreeMap<String, Duration> = BTreeMap::new();
        for spent in self.results.slices_of(row).flat_map(|slice| &slice.processes) {
            for (name, cpu) in &spent.usage.threads {
                // Names end in the number of a node or of a thread: the same thread of all of them.
                let name =
                    name.trim_end_matches(|letter: char| letter.is_ascii_digit()).trim_end_matches('-');
                *sums.entry(format!("{}/{name}", spent.part)).or_default() += *cpu;
            }
        }
        let operations = self.operations(row);
        let mut threads: Vec<(String, f64)> = sums
            .into_iter()
            .map(|(name, cpu)| (name, cpu.as_secs_f64() * 1e6 / operations))
            .filter(|(_, micros)| *micros > 0.0)
            .collect();
        threads.sort_by(|a, b| b.1.total_cmp(&a.1));
        threads.truncate(most);
        threads
    }

    /// Calls of a row answered with success; at least one, for it divides.
    fn operations(&self, row: usize) -> f64 {
        self.results.slices_of(row).map(|slice| slice.operations as f64).sum::<f64>().max(1.0)
    }

    /// A figure of every slice of a row that has it: its median.
    pub fn middle(&self, row: usize, of: impl Fn(&Slice) -> Option<f64>) -> Option<f64> {
        median(self.results.slices_of(row).filter_map(of)).map(|found| found.median)
    }
}

/// How many calls are in flight in a closed loop.
pub fn depth(workload: &Workload) -> Option<usize> {
    match workload.pace {
        Pace::Closed { in_flight } => Some(in_flight),
        Pace::Open { .. } => None,
    }
}
