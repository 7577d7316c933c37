//! Many runs: what they injected, checked and reached, as sums and as a table.

use super::{Fault, Injected, Mark, Orders, Report, Traffic, Verdicts};
use std::fmt::Write as _;
use std::time::Duration;

/// The sums of many runs.
#[derive(Clone, Debug, Default)]
pub struct Sums {
    /// Runs.
    pub runs: u64,
    /// Those in which a promise was broken.
    pub failed: u64,
    /// Events.
    pub events: u64,
    /// Time that passed in them.
    pub simulated: Duration,
    /// Operations of clients.
    pub calls: u64,
    /// Faults, by kind.
    pub injected: Injected,
    /// What the lines did.
    pub traffic: Traffic,
    /// What the judges looked at.
    pub verdicts: Verdicts,
    /// The hashes of all runs, in no order.
    pub hash: u64,
}

impl Sums {
    /// Adds a run.
    pub fn add(&mut self, report: &Report) {
        self.merge(&Self {
            runs: 1,
            failed: u64::from(report.failure.is_some()),
            events: report.events,
            simulated: report.simulated,
            calls: report.calls,
            injected: report.injected.clone(),
            traffic: report.traffic,
            verdicts: report.verdicts,
            hash: report.hash.rotate_left(u32::try_from(report.seed % 64).expect("below 64")),
        });
    }

    /// Adds the sums of other runs.
    pub fn merge(&mut self, other: &Self) {
        self.runs += other.runs;
        self.failed += other.failed;
        self.events += other.events;
        self.simulated += other.simulated;
        self.calls += other.calls;
        self.injected.add(&other.injected);
        self.hash ^= other.hash;
        self.traffic.add(&other.traffic);
        self.verdicts.merge(&other.verdicts);
    }

    /// Faults injected by kind, operations checked, rare branches reached.
    #[must_use]
    pub fn table(&self) -> String {
        let mut out = String::new();
        let traffic = self.traffic;
        let by_lines = |fault| match fault {
            Fault::Loss => Some(traffic.lost),
            Fault::Duplicate => Some(traffic.duplicated),
            Fault::Replay => Some(traffic.replayed),
            Fault::Reorder => Some(traffic.reordered),
            _ => None,
        };
        out.push_str("faults injected\n");
        let mut column = 0;
        for &fault in Fault::ALL {
            let count = by_lines(fault).unwrap_or_else(|| self.injected.of(fault));
            // The drift of clocks is a state, not an event.
            if fault == Fault::Drift {
                continue;
            }
            let _ = write!(out, "  {:<16}{:>12}", fault.name(), count);
            column += 1;
            if column % 3 == 0 {
                out.push('\n');
            }
        }
        if column % 3 != 0 {
            out.push('\n');
        }
        let _ = writeln!(
            out,
            "messages\n  sent            {:>12}  delivered       {:>12}",
            traffic.sent, traffic.delivered
        );
        out.push_str("judged\n");
        for (name, count) in self.verdicts.rows() {
            let _ = writeln!(out, "  {:<40}{count:>14}", name.replace('_', " "));
        }
        if let Some(longest) = self.verdicts.leader_after {
            let longest = Duration::from_nanos(longest);
            let _ = writeln!(out, "  {:<40}{longest:>14.1?}", "longest wait for a leader after healing");
        }
        out.push_str("rare branches reached\n");
        for &mark in Mark::ALL {
            let _ = writeln!(out, "  {:<48}{:>12}", mark.label(), self.verdicts.marks.count(mark));
        }
        out
    }
}

/// The command that repeats a run.
#[must_use]
pub fn replay(seed: u64, orders: &Orders) -> String {
    let mut command = format!("cargo run --release --features sim --bin d-engine-sim -- --seed {seed}");
    for (option, faults) in [("--only", &orders.only), ("--without", &orders.without)] {
        if !faults.is_empty() {
            let names: Vec<_> = faults.iter().map(|fault| fault.name()).collect();
            let _ = write!(command, " {option} {}", names.join(","));
        }
    }
    if !orders.skip.is_empty() {
        let numbers: Vec<_> = orders.skip.iter().map(ToString::to_string).collect();
        let _ = write!(command, " --skip {}", numbers.join(","));
    }
    if let Some(until) = orders.until {
        let _ = write!(command, " --until-ns {}", until.as_nanos());
    }
    if let Some(clients) = orders.clients {
        let _ = write!(command, " --clients {clients}");
    }
    command
}
