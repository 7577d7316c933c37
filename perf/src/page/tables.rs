//! The tables of the page.

use super::sections::{goal_words, standing, times};
use super::story::{Story, short, unit};
use super::unit::Unit;
use crate::results::{Chart, Goal, Measure, Part, Ratio, Verdict};
use crate::statistics::Median;
use maud::{Markup, html};
use std::time::Duration;

/// Goals and comparisons, the lost ones first.
pub fn lost_first(story: &Story<'_>) -> Markup {
    let fair = |ratio: &&Ratio| Chart::of([story.row(ratio.ours), story.row(ratio.theirs)]).is_ok();
    let mut behind: Vec<&Ratio> =
        story.ratios().filter(fair).filter(|ratio| standing(ratio).1 != "won").collect();
    behind.sort_by(|a, b| a.times_better.median.total_cmp(&b.times_better.median));
    html! {
        (goals(&story.results.goals))
        @if story.ratios().next().is_some() {
            @if behind.is_empty() {
                p { "No comparison was lost or left undecided." }
            } @else {
                h3 { "Lost and undecided comparisons, the worst first" }
                (losses(story, &behind))
            }
            h3 { "How many times better ours is, rows with losses first" }
            (matrix(story))
        }
    }
}

fn verdict(goal: &Goal) -> (&'static str, &'static str, u8) {
    match goal.verdict() {
        Verdict::Missed => ("bad", "missed", 0),
        Verdict::Unknown => ("plain", "not measured", 1),
        Verdict::Reached => ("good", "reached", 2),
        Verdict::Aimed => ("good", "aim reached", 3),
    }
}

fn ranged(text: String, found: Median, words: impl Fn(f64) -> String) -> Markup {
    html! {
        (text)
        @if words(found.low) != words(found.high) { span.range { (words(found.low)) " – " (words(found.high)) } }
    }
}

fn goals(goals: &[Goal]) -> Markup {
    let mut sorted: Vec<&Goal> = goals.iter().collect();
    sorted.sort_by_key(|goal| verdict(goal).2);
    html! {
        @if !goals.is_empty() {
            div.scroll {
                table {
                    thead {
                        tr { th { "Goal" } th { "Found" } th { "Must reach" } th { "Aim" } th { "Verdict" } th.words { "To know" } }
                    }
                    tbody {
                        @for goal in sorted {
                            @let (class, word, _) = verdict(goal);
                            tr {
                                td.words { (goal.name) }
                                td {
                                    @match goal.found {
                                        Some(found) => (ranged(goal_words(goal, found.median), found, |value| goal_words(goal, value))),
                                        None => "–",
                                    }
                                }
                                td { (goal_words(goal, goal.reach)) }
                                td { (goal_words(goal, goal.aim)) }
                                td { span class=(format!("verdict {class}")) { (word) } }
                                td.words { (goal.note) }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn losses(story: &Story<'_>, ratios: &[&Ratio]) -> Markup {
    let side = |row: usize, measure: Measure| {
        html! {
            @match story.figure(row, measure) {
                Some(found) => (ranged(unit(measure).text(found.median), found, |value| unit(measure).text(value))),
                None => "–",
            }
        }
    };
    html! {
        div.scroll {
            table {
                thead {
                    tr {
                        th { "Row" } th.words { "Figure" } th { "Ours" } th { "Theirs" } th { "Times better" } th { "Verdict" }
                        th.words { "Where our processor time goes, per operation" }
                    }
                }
                tbody {
                    @for ratio in ratios {
                        @let (class, word) = standing(ratio);
                        tr {
                            td.words { (ratio.id) " " (story.row(ratio.ours).name()) }
                            td.words { (short(ratio.measure)) ", " (story.row(ratio.ours).system) " / " (story.row(ratio.theirs).system) }
                            td { (side(ratio.ours, ratio.measure)) }
                            td { (side(ratio.theirs, ratio.measure)) }
                            td { (ranged(times(ratio.times_better.median), ratio.times_better, times)) }
                            td { span class=(format!("verdict {class}")) { (word) } }
                            td.words.wide { (profile(story, ratio.ours, 4)) }
                        }
                    }
                }
            }
        }
    }
}

fn profile(story: &Story<'_>, row: usize, most: usize) -> String {
    let threads = story.threads(row, most);
    if threads.is_empty() {
        return "–".into();
    }
    let text = |(name, micros): &(String, f64)| format!("{name} {}", Unit::Micros.text(*micros));
    threads.iter().map(text).collect::<Vec<_>>().join(", ")
}

/// A line for each pair of rows, a column for each measure.
fn matrix(story: &Story<'_>) -> Markup {
    let mut pairs: Vec<(usize, usize)> = Vec::new();
    for ratio in story.ratios() {
        let pair = (ratio.ours, ratio.theirs);
        if !pairs.contains(&pair) {
            pairs.push(pair);
        }
    }
    let of = |pair: (usize, usize), measure: Measure| {
        story
            .results
            .ratios
            .iter()
            .find(|ratio| (ratio.ours, ratio.theirs) == pair && ratio.measure == measure)
    };
    let lost = |pair: (usize, usize)| {
        Measure::ALL.into_iter().filter_map(|measure| of(pair, measure)).filter(|ratio| ratio.lost()).count()
    };
    pairs.sort_by_key(|pair| std::cmp::Reverse(lost(*pair)));
    let used = Measure::ALL.into_iter().filter(|measure| story.ratios().any(|r| r.measure == *measure));
    let used: Vec<Measure> = used.collect();
    html! {
        div.scroll {
            table {
                thead { tr { th { "Row" } th.words { "Ours / theirs" } @for measure in &used { th { (short(*measure)) } } } }
                tbody {
                    @for pair in &pairs {
                        @let (ours, theirs) = (story.row(pair.0), story.row(pair.1));
                        tr {
                            td.words { (ours.id) " " (ours.name()) }
                            td.words { (ours.system) " / " (theirs.system) }
                            @match Chart::of([ours, theirs]) {
                                Err(unfair) => { td.words.bad colspan=(used.len()) { "Refused: " (unfair) } }
                                Ok(_) => {
                                    @for measure in &used {
                                        @match of(*pair, *measure) {
                                            Some(ratio) => {
                                                td class=(standing(ratio).0) {
                                                    (ranged(times(ratio.times_better.median), ratio.times_better, times))
                                                }
                                            }
                                            None => { td.soft { "–" } }
                                        }
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Every figure of every row, as measured.
pub fn every_row(story: &Story<'_>) -> Markup {
    const HEADINGS: [&str; 15] = [
        "Row",
        "System",
        "Per second",
        "p50",
        "p99",
        "p99.9",
        "CPU",
        "Flushes per node",
        "Log bytes per node",
        "Device bytes per node",
        "Allocations (leader)",
        "Context switches",
        "Steal",
        "Slices (left out)",
        "Failed, never sent",
    ];
    html! {
        p.soft { "All costs are per operation. A dash: the system does not tell, or there is no such thing." }
        div.scroll {
            table {
                thead { tr { @for heading in HEADINGS { th { (heading) } } } }
                tbody {
                    @for position in 0..story.results.rows.len() { (row(story, position)) }
                }
            }
        }
        @let failed: Vec<usize> = (0..story.results.rows.len()).filter(|row| !story.results.errors_of(*row).is_empty()).collect();
        @if !failed.is_empty() {
            h3 { "Calls that failed" }
            ul {
                @for row in failed {
                    @for (message, count) in story.results.errors_of(row) {
                        li { (story.row(row).system) ", " (story.row(row).name()) ": " (Unit::Count.text(count as f64)) " × " (message) }
                    }
                }
            }
        }
    }
}

fn row(story: &Story<'_>, position: usize) -> Markup {
    let row = story.row(position);
    let figure = |measure: Measure| {
        html! {
            @match story.figure(position, measure) {
                Some(found) => (ranged(unit(measure).text(found.median), found, |value| unit(measure).text(value))),
                None => "–",
            }
        }
    };
    let text = |unit: Unit, value: Option<f64>| value.map_or_else(|| "–".into(), |value| unit.text(value));
    let allocations = story.middle(position, |slice| {
        let leader = slice.processes.iter().find(|spent| spent.part == Part::Leader)?;
        slice.per_operation(leader.allocations?.count as f64)
    });
    let switches = story.middle(position, |slice| {
        slice.per_operation(slice.processes.iter().map(|spent| spent.usage.switches as f64).sum())
    });
    let steal = story.middle(position, |slice| Some(slice.machine?.steal));
    let failed: u64 = story.results.errors_of(position).values().sum();
    let missed: u64 = story.results.slices_of(position).map(|slice| slice.missed).sum();
    html! {
        tr {
            td.words { (row.id) " " (row.name()) }
            td.name { (row.system) }
            @for measure in [Measure::Rate, Measure::P50, Measure::P99, Measure::P999, Measure::Cpu, Measure::Flushes] {
                td { (figure(measure)) }
            }
            td { (text(Unit::Bytes, story.middle(position, |slice| slice.log_bytes()))) }
            td { (figure(Measure::DeviceBytes)) }
            td { (text(Unit::Count, allocations)) }
            td { (text(Unit::Count, switches)) }
            td { (text(Unit::Share, steal)) }
            td { (story.results.slices_of(position).count()) " (" (story.dropped(position)) ")" }
            td class=(if failed + missed > 0 { "bad" } else { "" }) { (Unit::Count.text(failed as f64)) ", " (Unit::Count.text(missed as f64)) }
        }
    }
}

/// The threads that took the processor's time.
pub fn threads(story: &Story<'_>) -> Markup {
    let rows: Vec<usize> =
        (0..story.results.rows.len()).filter(|row| !story.threads(*row, 1).is_empty()).collect();
    html! {
        @if !rows.is_empty() {
            h3 { "Where the processor time goes" }
            div.scroll {
                table {
                    thead { tr { th { "Row" } th { "System" } th { "User space" } th { "All" } th.words { "By thread, per operation" } } }
                    tbody {
                        @for &row in &rows {
                            @let parts = story.processor(row);
                            @let user: f64 = parts.values().map(|part| part.0).sum();
                            @let all: f64 = parts.values().map(|part| part.0 + part.1).sum();
                            tr {
                                td.words { (story.row(row).id) " " (story.row(row).name()) }
                                td.name { (story.row(row).system) }
                                td { (Unit::Share.text(user / all.max(1e-12))) }
                                td { (Unit::Micros.text(all)) }
                                td.words.wide { (profile(story, row, 8)) }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Whether there is a restart or a store to tell of.
pub fn has_sizes(story: &Story<'_>) -> bool {
    !story.results.recovery.is_empty() || !story.results.memory.is_empty()
}

/// Restarts and memory.
pub fn sizes(story: &Story<'_>) -> Markup {
    let span = |span: Duration| Unit::Micros.text(span.as_secs_f64() * 1e6);
    let bytes = |bytes: u64| Unit::Bytes.text(bytes as f64);
    let results = story.results;
    html! {
        @if !results.recovery.is_empty() {
            h3 { "A node starts again with a log to read, times from the start of its process" }
            div.scroll {
                table {
                    thead {
                        tr {
                            th { "System" } th.words { "Node" } th { "Log" } th { "Keys" } th { "Log read" } th { "Log read, a second" }
                            th { "First read served" } th { "First write acknowledged" } th { "Processor time" } th { "Most memory" }
                        }
                    }
                    tbody {
                        @for found in &results.recovery {
                            tr {
                                td.name { (found.system) }
                                td.words { (found.what) }
                                td { (bytes(found.log_bytes)) }
                                td { (Unit::Count.text(found.keys as f64)) }
                                td { (span(found.opened)) }
                                td { (Unit::Bytes.text(found.log_bytes as f64 / found.opened.as_secs_f64().max(1e-9))) }
                                td { (span(found.served)) }
                                td { (found.wrote.map_or_else(|| "–".into(), span)) }
                                td { (span(found.cpu)) }
                                td { (found.peak_bytes.map_or_else(|| "–".into(), bytes)) }
                            }
                        }
                    }
                }
            }
        }
        @if !results.memory.is_empty() {
            h3 { "Resident memory of a key" }
            div.scroll {
                table {
                    thead { tr { th { "System" } th.words { "What" } th { "Keys" } th { "A key" } th { "Its own key and value" } } }
                    tbody {
                        @for found in &results.memory {
                            tr {
                                td.name { (found.system) }
                                td.words { (found.what) }
                                td { (Unit::Count.text(found.keys as f64)) }
                                td { (Unit::Bytes.text(found.bytes_per_key)) }
                                td { (Unit::Bytes.text(found.payload_bytes as f64)) }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Parts of the matrix without a figure.
pub fn not_run(story: &Story<'_>) -> Markup {
    html! {
        div.scroll {
            table {
                thead { tr { th { "Part" } th.words { "What" } th.words { "Why" } } }
                tbody {
                    @for one in &story.results.not_run {
                        tr { td { (one.id) } td.words { (one.what) } td.words.wide { (one.why) } }
                    }
                }
            }
        }
    }
}
