//! What a run found, as text: what was lost first, then the goals, then every row.

use crate::recovery;
use crate::results::{Axis, Failover, Measure, Promise, Ratio, Results, Verdict};
use crate::statistics::{Median, median};
use crate::workload::Pace;
use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};

/// To be printed.
pub struct Summary<'a>(pub &'a Results);

impl Display for Summary<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.head(f)?;
        self.lost(f)?;
        self.goals(f)?;
        self.rows(f)?;
        self.failures(f)?;
        self.restarts(f)?;
        self.sweeps(f)?;
        self.rest(f)?;
        self.not_run(f)
    }
}

impl Summary<'_> {
    fn head(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let results = self.0;
        let machine = &results.machine;
        writeln!(
            f,
            "{}, {} cores, {}, {}; commit {}; all scheduled {}",
            machine.processor,
            machine.cores,
            machine.kernel,
            machine.file_system,
            machine.commit,
            machine.scheduling
        )?;
        for system in &results.systems {
            let settings: Vec<String> =
                system.settings.iter().map(|(name, value)| format!("{name}: {value}")).collect();
            writeln!(
                f,
                "{} {}, {} nodes on the loopback, {} ({})",
                system.name,
                system.version,
                system.nodes,
                system.promise,
                settings.join("; ")
            )?;
        }
        let probes = &results.probes;
        writeln!(
            f,
            "the machine by itself: write and flush 4 KiB {:.0} µs, the second of three at once {:.0} µs, QUIC round trip \
             {:.0} µs, UDP round trip {:.0} µs",
            probes.flush, probes.majority, probes.quic, probes.udp
        )?;
        writeln!(
            f,
            "{} blocks of {:?} slices ({:?} for points of curves), shuffled; medians of what single blocks gave [bootstrap \
             95 %]; took {:.0} s",
            results.rules.blocks,
            results.rules.slice,
            results.rules.short_slice,
            results.took.as_secs_f64()
        )?;
        writeln!(f, "{} slices dropped: {}", results.dropped.len(), results.rules.dropping())
    }

    fn lost(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let lost: Vec<&Ratio> = self.0.ratios.iter().filter(|ratio| ratio.lost()).collect();
        if self.0.ratios.is_empty() {
            return writeln!(f, "\nnothing to compare with");
        }
        writeln!(f, "\nlost ({} of {} comparisons):", lost.len(), self.0.ratios.len())?;
        for ratio in lost {
            let (ours, theirs) = (&self.0.rows[ratio.ours], &self.0.rows[ratio.theirs]);
            let figures = |row| self.0.figure(row, ratio.measure).map(|found| found.median);
            writeln!(
                f,
                "  {} {}, {}: {} against {}'s {}, {} x as good",
                ratio.id,
                ours.name(),
                ratio.measure,
                number(figures(ratio.ours)),
                theirs.system,
                number(figures(ratio.theirs)),
                interval(&ratio.times_better)
            )?;
        }
        Ok(())
    }

    fn goals(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "\nmust show:")?;
        let lines = self.0.goals.iter().map(|goal| {
            let verdict = match goal.verdict() {
                Verdict::Aimed => "as aimed",
                Verdict::Reached => "reached",
                Verdict::Missed => "MISSED",
                Verdict::Unknown => "-",
            };
            let found = goal.found.as_ref().map_or_else(|| goal.note.clone(), interval);
            [
                goal.name.clone(),
                format!("{} {}", goal.reach, goal.unit),
                format!("{} {}", goal.aim, goal.unit),
                found,
                verdict.into(),
            ]
        });
        table(f, ["row", "reach", "aim", "found", ""], lines)?;
        match crate::matrix::times_shared_limit(self.0) {
            None => Ok(()),
            Some(times) => writeln!(
                f,
                "the nodes share a disk: 1 in flight is {} x (the second of three flushes at once + round trip, around each \
                 slice)",
                interval(&times)
            ),
        }
    }

    fn rows(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for promise in [Promise::FsyncQuorum, Promise::MemoryQuorum] {
            let lines = self.0.rows.iter().enumerate().filter(|(_, row)| row.promise == promise).map(
                |(position, row)| {
                    let figure = |measure| number(self.0.figure(position, measure).map(|found| found.median));
                    let times = self
                        .0
                        .ratios
                        .iter()
                        .find(|ratio| ratio.ours == position && ratio.measure == Measure::Rate)
                        // At an offered rate both serve what is offered: its quotient says nothing.
                        .filter(|_| matches!(row.workload.pace, Pace::Closed { .. }))
                        .map_or_else(String::new, |ratio| interval(&ratio.times_better));
                    [
                        row.id.clone(),
                        row.condition.as_ref().map_or_else(
                            || row.workload.to_string(),
                            |condition| format!("{}, {condition}", row.workload),
                        ),
                        row.system.clone(),
                        figure(Measure::Rate),
                        times,
                        figure(Measure::P50),
                        figure(Measure::P99),
                        figure(Measure::Cpu),
                        if row.workload.call.writes() { figure(Measure::Flushes) } else { "-".into() },
                        if row.workload.call.writes() { figure(Measure::DeviceBytes) } else { "-".into() },
                    ]
                },
            );
            let lines: Vec<_> = lines.collect();
            if !lines.is_empty() {
                writeln!(f, "\n{promise}:")?;
                let headings = [
                    "",
                    "row",
                    "system",
                    "per second",
                    "times theirs",
                    "p50 µs",
                    "p99 µs",
                    "CPU µs/op",
                    "flush/op/node",
                    "device B/op",
                ];
                table(f, headings, lines)?;
            }
        }
        Ok(())
    }

    fn failures(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mut kinds: Vec<(&str, &str)> = Vec::new();
        for one in &self.0.failures {
            if !kinds.contains(&(one.system.as_str(), one.what.as_str())) {
                kinds.push((&one.system, &one.what));
            }
        }
        if kinds.is_empty() {
            return Ok(());
        }
        writeln!(f, "\nW11, ms from the act to the first acknowledgement of a write issued after it:")?;
        let lines = kinds.into_iter().map(|(system, what)| {
            let of: Vec<&Failover> = self
                .0
                .failures
                .iter()
                .filter(|one| (one.system.as_str(), one.what.as_str()) == (system, what))
                .collect();
            let outages = || of.iter().map(|one| one.to_first_acknowledgement.as_secs_f64() * 1e3);
            let sum = |figure: fn(&Failover) -> u64| of.iter().map(|one| figure(one)).sum::<u64>();
            [
                system.to_owned(),
                what.to_owned(),
                of.len().to_string(),
                median(outages()).as_ref().map_or_else(String::new, interval),
                number(outages().reduce(f64::max)),
                sum(|one| one.acknowledged).to_string(),
                sum(|one| one.lost).to_string(),
            ]
        });
        table(f, ["system", "what", "times", "median", "most", "acknowledged", "LOST"], lines)
    }

    fn restarts(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.0.recovery.is_empty() {
            return Ok(());
        }
        writeln!(f, "\nW12, from the start of the process:\n  {}", recovery::heading())?;
        self.0.recovery.iter().try_for_each(|found| writeln!(f, "  {}", recovery::line(found)))
    }

    fn sweeps(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Some(first) = self.0.sweep.first() else { return Ok(()) };
        writeln!(f, "\nW15, puts per second by what was set ({}):", first.system)?;
        for sweep in &self.0.sweep {
            let points = sweep.points.iter().map(|point| {
                let rate = point.figures.get(&Measure::Rate).map(|found| found.median);
                let at = sweep.axes.iter().zip(&point.at).map(|(axis, value)| setting(axis, *value));
                let best = sweep.best.as_ref().is_some_and(|best| best.0 == point.at);
                format!(
                    "{} {}{}",
                    at.collect::<Vec<_>>().join("/"),
                    number(rate),
                    if best { " (best)" } else { "" }
                )
            });
            let names: Vec<&str> = sweep.axes.iter().map(|axis| axis.name.as_str()).collect();
            let points: Vec<String> = points.collect();
            writeln!(f, "  {}, {}: {}", names.join("/"), sweep.workload, points.join(", "))?;
        }
        Ok(())
    }

    fn not_run(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if !self.0.not_run.is_empty() {
            writeln!(f, "\nnot run:")?;
        }
        self.0.not_run.iter().try_for_each(|one| writeln!(f, "  {} {}: {}", one.id, one.what, one.why))
    }

    fn rest(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for memory in &self.0.memory {
            writeln!(
                f,
                "\nW14 {}, {}: {} keys at {:.0} B each, {} B of them key and value",
                memory.system,
                memory.what,
                number(Some(memory.keys as f64)),
                memory.bytes_per_key,
                memory.payload_bytes
            )?;
        }
        for (position, row) in self.0.rows.iter().enumerate() {
            for (message, count) in self.0.errors_of(position) {
                writeln!(f, "errors in {} of {}: {count} x {message}", row.name(), row.system)?;
            }
            let missed: u64 = self.0.slices_of(position).map(|slice| slice.missed).sum();
            if missed > 0 {
                writeln!(f, "{} of {}: {missed} calls were due and found no room", row.name(), row.system)?;
            }
        }
        let mut reasons: BTreeMap<(usize, &str), usize> = BTreeMap::new();
        for dropped in &self.0.dropped {
            *reasons.entry((dropped.row, &dropped.reason)).or_insert(0) += 1;
        }
        for ((row, reason), count) in reasons {
            let row = &self.0.rows[row];
            writeln!(f, "dropped: {count} x {} of {}: {reason}", row.name(), row.system)?;
        }
        self.0.notes.iter().try_for_each(|note| writeln!(f, "note: {note}"))
    }
}

fn interval(found: &Median) -> String {
    let [median, low, high] = [found.median, found.low, found.high].map(|value| number(Some(value)));
    format!("{median} [{low} - {high}]")
}

/// A value of a knob.
fn setting(axis: &Axis, value: f64) -> String {
    let (mib, kib) = (f64::from(1 << 20), f64::from(1 << 10));
    match axis.unit.as_str() {
        "B" if value >= mib => format!("{} MiB", value / mib),
        "B" if value >= kib => format!("{} KiB", value / kib),
        unit => format!("{value} {unit}").trim_end().to_owned(),
    }
}

/// A number with as many digits as it deserves.
fn number(value: Option<f64>) -> String {
    crate::report::number(value)
}

fn table<const COLUMNS: usize>(
    f: &mut Formatter<'_>,
    headings: [&str; COLUMNS],
    lines: impl IntoIterator<Item = [String; COLUMNS]>,
) -> fmt::Result {
    let lines: Vec<[String; COLUMNS]> = std::iter::once(headings.map(str::to_owned)).chain(lines).collect();
    let widths: Vec<usize> = (0..COLUMNS)
        .map(|column| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0))
        .collect();
    for line in &lines {
        let mut text = String::from(" ");
        for (cell, width) in line.iter().zip(&widths) {
            // Numbers stand under each other by their ends, words by their beginnings.
            let digits = cell.chars().next().is_some_and(|letter| letter.is_ascii_digit() || letter == '-');
            text += &if digits { format!(" {cell:>width$} ") } else { format!(" {cell:<width$} ") };
        }
        writeln!(f, "{}", text.trim_end())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matrix;
    use crate::results::tests::{results, row, slice};

    #[test]
    fn what_was_lost_comes_before_what_was_won() {
        let rows = vec![
            row("ours", Promise::FsyncQuorum, 1),
            row("etcd", Promise::FsyncQuorum, 1),
            row("ours", Promise::FsyncQuorum, 1000),
            row("etcd", Promise::FsyncQuorum, 1000),
        ];
        let mut found =
            results(rows, vec![slice(0, 0, 50), slice(1, 0, 100), slice(2, 0, 900), slice(3, 0, 30)]);
        found.ratios = matrix::ratios(&found);
        found.goals = matrix::goals(&found);
        let text = Summary(&found).to_string();
        let at = |words: &str| text.find(words).unwrap_or_else(|| panic!("{words:?} is not in\n{text}"));
        assert!(at("0.50 [0.50 - 0.50] x as good") < at("must show:"), "{text}");
        assert!(at("must show:") < at("30.0 [30.0 - 30.0]"), "{text}");
        assert!(text.contains("reached"), "{text}");
    }
}
