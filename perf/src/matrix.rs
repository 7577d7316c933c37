//! What is asked: the rows of the matrix in each tier, and the figures that were set as goals.

use crate::bench::{Asked, Condition};
use crate::failover;
use crate::results::{Goal, Measure, Ratio, Results, Row, Slice};
use crate::slice::Probes;
use crate::statistics::{Median, median};
use crate::system::Act;
use crate::workload::{Call, Distribution, Workload};

/// Calls of an open loop that may be outstanding.
const BACKLOG: usize = 10_000;
/// Offered rates of the curve; a system stays out of those above the first that it cannot follow.
const RATES: [f64; 11] = [1e3, 2e3, 4e3, 8e3, 12e3, 16e3, 32e3, 64e3, 125e3, 250e3, 500e3];
/// Depths of the sweep beside those of W1 and W2.
const DEPTHS: [usize; 6] = [4, 16, 64, 256, 2048, 8192];
/// Bytes of values beside the usual ones.
const SIZES: [usize; 5] = [16, 1 << 10, 4 << 10, 16 << 10, 128 << 10];
const DEPTH: usize = 100;
/// Where the software shows and not the round trip.
const DEEP: usize = 1000;

/// The whole matrix: every part has a figure in a run's report, or a reason why it has none.
pub const PARTS: [(&str, &str); 15] = [
    ("W1", "put, 1 in flight"),
    ("W2", "put, 100, 1000 and 8000 in flight"),
    ("W3", "throughput and latency of puts, open loop"),
    ("W4", "puts by depth, 1 to 8192 in flight"),
    ("W5", "puts by size of value, 16 B to 128 KiB"),
    ("W6", "reads: linearizable, lease, eventual"),
    ("W7", "90/10 mix, zipf and 10 hot keys"),
    ("W8", "gRPC, unary and pipelined"),
    ("W9", "watch 1→1, 1→100, 1→10,000"),
    ("W10", "puts with one slow follower"),
    ("W11", "the leader killed"),
    ("W12", "restart with a log to read"),
    ("W13", "snapshot under load"),
    ("W14", "memory of a key"),
    ("W15", "batch limits swept"),
];

fn row(id: &str, workload: Workload) -> Asked {
    Asked { id: id.into(), workload, point: false, condition: None }
}

fn point(id: &str, workload: Workload) -> Asked {
    Asked { point: true, ..row(id, workload) }
}

/// The rows whose figures are quoted.
pub fn headlines() -> Vec<Asked> {
    let mut rows = vec![row("W1", Workload::closed(Call::Put, 1))];
    rows.extend([100, 1000, 8000].map(|depth| row("W2", Workload::closed(Call::Put, depth))));
    rows.extend(
        [Call::GetLinearizable, Call::GetLease, Call::GetEventual]
            .map(|call| row("W6", Workload::closed(call, DEPTH))),
    );
    rows.push(row("W6", Workload::closed(Call::GetLinearizable, DEEP)));
    rows
}

/// The headlines, and a mixed load.
pub fn quick() -> Vec<Asked> {
    let mut rows = headlines();
    rows.push(point("W7", mixed().on(Distribution::Zipf)));
    rows
}

/// Everything that the engine has so far.
pub fn full() -> Vec<Asked> {
    let mut rows = headlines();
    rows.extend(RATES.map(|rate| point("W3", Workload::open(Call::Put, rate, BACKLOG))));
    rows.extend(DEPTHS.map(|depth| point("W4", Workload::closed(Call::Put, depth))));
    rows.extend(SIZES.map(|size| point("W5", Workload::closed(Call::Put, DEPTH).with_values_of(size))));
    rows.push(point("W7", mixed().on(Distribution::Zipf)));
    rows.push(point("W7", mixed().on(Distribution::Hot(10))));
    rows.extend([1, 100, 10_000].map(|watchers| point("W9", Workload::closed(Call::Watch { watchers }, 1))));
    let slow = point("W10", Workload::closed(Call::Put, DEPTH));
    rows.push(Asked { condition: Some(Condition::SlowFollower), ..slow });
    rows
}

fn mixed() -> Workload {
    Workload::closed(Call::Mixed { reads: 90 }, DEPTH)
}

/// What is wanted of the matrix: parts by id (`W2`), rows by a word of their name (`lease`).
#[derive(clap::Args, Clone, Debug, Default)]
pub struct Selection {
    /// Only these rows, by id (W2) or by a word of their name (lease).
    #[arg(long, value_delimiter = ',')]
    pub rows: Vec<String>,
    /// Leave these out, named in the same way.
    #[arg(long, value_delimiter = ',')]
    pub skip: Vec<String>,
}

fn is_called(word: &str, id: &str, name: &str) -> bool {
    id.eq_ignore_ascii_case(word) || name.contains(word)
}

impl Selection {
    /// Whether a row or a part of the matrix is wanted.
    pub fn takes(&self, id: &str, name: &str) -> bool {
        let named = |words: &[String]| words.iter().any(|word| is_called(word, id, name));
        (self.rows.is_empty() || named(&self.rows)) && !named(&self.skip)
    }

    /// A word that nothing is called by.
    pub fn unknown<'a>(&'a self, names: &[(String, String)]) -> Option<&'a str> {
        let parts = || PARTS.iter().map(|(id, what)| (*id, *what));
        let known = |word: &&String| {
            names.iter().any(|(id, name)| is_called(word, id, name))
                || parts().any(|(id, what)| is_called(word, id, what))
        };
        self.rows.iter().chain(&self.skip).find(|word| !known(word)).map(String::as_str)
    }

    /// The rows that are wanted.
    pub fn of(&self, rows: Vec<Asked>) -> Vec<Asked> {
        rows.into_iter().filter(|asked| self.takes(&asked.id, &asked.name())).collect()
    }
}

/// Every pair of rows, ours and another's, that was asked the same, by every measure.
pub fn ratios(results: &Results) -> Vec<Ratio> {
    let ours = |row: &Row| results.systems.iter().any(|system| system.ours && system.name == row.system);
    let mut ratios = Vec::new();
    for (mine, row) in results.rows.iter().enumerate().filter(|(_, row)| ours(row)) {
        // What a read has of the disk's figures is other calls' leftovers.
        let says = |measure: &Measure| {
            row.workload.call.writes() || !matches!(measure, Measure::Flushes | Measure::DeviceBytes)
        };
        for (other, _) in results.rows.iter().enumerate().filter(|(_, row)| !ours(row)) {
            for measure in Measure::ALL.into_iter().filter(says) {
                // What may not be compared is not.
                if let Ok(Some(ratio)) = Ratio::of(&results.rows, &results.slices, (mine, other), measure) {
                    ratios.push(ratio);
                }
            }
        }
    }
    ratios
}

/// The goals, with what this run found.
pub fn goals(results: &Results) -> Vec<Goal> {
    let against = |depth: usize| {
        let rows: Vec<usize> = results.rows_asked(Call::Put, depth).collect();
        let ratio =
            results.ratios.iter().find(|ratio| ratio.measure == Measure::Rate && rows.contains(&ratio.ours));
        ratio.map(|ratio| ratio.times_better)
    };
    let per_core = |call: Call, depth: usize| {
        ours(results, call, depth, |_, slice| slice.cpu_micros().map(|micros| 1.0 / micros))
    };
    let mut goals = vec![
        more("embedded put, 1000 in flight, against etcd's gRPC put", "x", (25.0, 60.0), against(1000)),
        less(
            "embedded put, 1 in flight, as multiple of the run's best (flush + round trip)",
            "x",
            (1.4, 1.15),
            ours(results, Call::Put, 1, |_, slice| Some(slice.latency_micros(0.5)? / best_limit(results)?)),
        ),
        less(
            "CPU per embedded put over three nodes, generator included (1000 in flight)",
            "µs",
            (5.0, 3.0),
            ours(results, Call::Put, 1000, |_, slice| slice.cpu_micros()),
        ),
        less(
            "allocations per put in the leader's process, generator included (1000 in flight)",
            "",
            (1.0, 0.0),
            ours(results, Call::Put, 1000, |_, slice| {
                slice.per_operation(slice.leader()?.allocations?.count as f64)
            }),
        ),
    ];
    for depth in [100, 1000] {
        goals.push(less(
            &format!("flushes per node and put at {depth} in flight, times {depth}"),
            "",
            (3.0, 2.2),
            ours(results, Call::Put, depth, |_, slice| Some(slice.flushes()? * depth as f64)),
        ));
    }
    goals.push(more(
        "embedded linearizable reads per second and core (1000 in flight)",
        "M/s",
        (1.5, 3.0),
        per_core(Call::GetLinearizable, DEEP),
    ));
    goals.push(more(
        "embedded lease reads per second and core",
        "M/s",
        (4.0, 8.0),
        per_core(Call::GetLease, DEPTH),
    ));
    goals.push(failover::goal(results, Act::Kill));
    for goal in goals.iter_mut().filter(|goal| goal.found.is_none()) {
        goal.note = "not in this run".into();
    }
    if let Some(last) = goals.last_mut().filter(|goal| goal.found.is_none()) {
        last.note = "`perf failover` measures it".into();
    }
    goals
}

/// The quickest flush and the quickest round trip that the probes of the run saw, in microseconds: a probe that others were
/// in the way of makes no goal easier.
fn best_limit(results: &Results) -> Option<f64> {
    let least = |of: fn(&Probes) -> f64| {
        results.slices.iter().map(|slice| of(&slice.probes)).filter(|micros| *micros > 0.0).reduce(f64::min)
    };
    Some(least(|probes| probes.flush)? + least(|probes| probes.quic)?)
}

/// A put that is alone, as a multiple of what three nodes need that share a disk: no commit is sooner than the second of
/// their flushes.
pub fn times_shared_limit(results: &Results) -> Option<Median> {
    ours(results, Call::Put, 1, |_, slice| {
        let Probes { majority, quic, .. } = slice.probes;
        (majority > 0.0).then(|| slice.latency_micros(0.5).map(|micros| micros / (majority + quic)))?
    })
}

fn ours(
    results: &Results,
    call: Call,
    depth: usize,
    figure: impl Fn(&Row, &Slice) -> Option<f64>,
) -> Option<Median> {
    let mine = |position: &usize| {
        let row = &results.rows[*position];
        results.systems.iter().any(|system| system.ours && system.name == row.system)
    };
    let position = results.rows_asked(call, depth).find(mine)?;
    median(results.slices_of(position).filter_map(|slice| figure(&results.rows[position], slice)))
}

fn more(name: &str, unit: &str, (reach, aim): (f64, f64), found: Option<Median>) -> Goal {
    Goal {
        name: name.into(),
        unit: unit.into(),
        reach,
        aim,
        more_is_better: true,
        found,
        note: String::new(),
    }
}

fn less(name: &str, unit: &str, limits: (f64, f64), found: Option<Median>) -> Goal {
    Goal { more_is_better: false, ..more(name, unit, limits, found) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn no_row_is_asked_twice() {
        let rows = full();
        let names: BTreeSet<String> = rows.iter().map(Asked::name).collect();
        assert_eq!(names.len(), rows.len());
    }

    fn selection(rows: &[&str], skip: &[&str]) -> Selection {
        let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        Selection { rows: owned(rows), skip: owned(skip) }
    }

    #[test]
    fn rows_are_chosen_and_skipped_by_id_and_by_word() {
        assert_eq!(selection(&["w3"], &[]).of(full()).len(), RATES.len());
        let lease = selection(&["lease"], &[]).of(full());
        assert!(!lease.is_empty() && lease.iter().all(|asked| asked.workload.call == Call::GetLease));
        assert_eq!(selection(&[], &[]).of(quick()).len(), quick().len());
        assert_eq!(selection(&[], &["W3"]).of(full()).len(), full().len() - RATES.len());
        assert!(selection(&["w3"], &["W3"]).of(full()).is_empty());
        let slow = selection(&["W10"], &[]).of(full());
        assert!(slow.len() == 1 && slow[0].condition == Some(Condition::SlowFollower));
        assert!(!selection(&[], &["w12"]).takes("W12", "restart"));
    }

    #[test]
    fn a_word_that_nothing_is_called_by_is_found() {
        let names: Vec<(String, String)> =
            full().iter().map(|asked| (asked.id.clone(), asked.name())).collect();
        assert_eq!(selection(&["w3", "lease"], &["W12", "swept"]).unknown(&names), None);
        assert_eq!(selection(&["w3"], &["W16"]).unknown(&names), Some("W16"));
    }

    #[test]
    fn every_row_is_of_a_part_and_parts_have_one_number_each() {
        let ids: BTreeSet<&str> = PARTS.iter().map(|(id, _)| *id).collect();
        assert_eq!(ids.len(), PARTS.len());
        assert!(full().iter().all(|asked| ids.contains(asked.id.as_str())));
    }
}
