//! The page as HTML: where it was made, what was lost, what was found, how it was measured.

use super::drawing::{Drawing, STYLE};
use super::sections::{self, Section};
use super::story::{Story, listed};
use super::tables;
use super::unit::Unit;
use crate::results::{Results, Verdict};
use crate::statistics::median;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

const PAGE_STYLE: &str = include_str!("page.css");

/// The whole page.
pub fn page(story: &Story<'_>) -> String {
    let sections = sections::all(story);
    let title = title(story.results);
    let tables = tables::lost_first(story);
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) }
                style { (PreEscaped(STYLE)) (PreEscaped(PAGE_STYLE)) }
            }
            body {
                header {
                    h1 { (title) }
                    p.lede { (lede(story)) }
                    (facts(story.results))
                    nav {
                        a href="#summary" { "Lost first" }
                        @for section in &sections { a href=(format!("#{}", section.id)) { (section.heading) } }
                        @if tables::has_sizes(story) { a href="#sizes" { "Restarts and memory" } }
                        a href="#rows" { "Every row" }
                        @if !story.results.not_run.is_empty() { a href="#not-run" { "Not run" } }
                        a href="#method" { "How it was measured" }
                    }
                }
                section id="summary" {
                    h2 { "What was lost, and all that was set as a goal" }
                    (tables)
                }
                @for section in &sections { (self::section(section)) }
                @if tables::has_sizes(story) {
                    section id="sizes" {
                        h2 { "Restarts and memory, in figures" }
                        (tables::sizes(story))
                    }
                }
                section id="rows" {
                    h2 { "Every row" }
                    (tables::every_row(story))
                    (tables::threads(story))
                }
                @if !story.results.not_run.is_empty() {
                    section id="not-run" {
                        h2 { "What was not run, and why" }
                        (tables::not_run(story))
                    }
                }
                (method(story))
                footer {
                    "Drawn by the harness " (story.results.version) " from format " (story.results.format)
                    "; nothing on this page is loaded from elsewhere."
                }
            }
        }
    };
    page.into_string()
}

fn title(results: &Results) -> String {
    let names = |ours: bool| -> Vec<String> {
        // Those of the rows, if there are any: what a single part was measured on is named there.
        let of_rows =
            |name: &str| results.rows.is_empty() || results.rows.iter().any(|row| row.system == name);
        let some = results.systems.iter().filter(|system| system.ours == ours && of_rows(&system.name));
        some.map(|system| format!("{} {}", system.name, system.version)).collect()
    };
    match (names(true), names(false)) {
        (ours, others) if others.is_empty() => format!("{}, measured", listed(&ours)),
        (ours, others) if ours.is_empty() => format!("{}, measured", listed(&others)),
        (ours, others) => format!("{} against {}", listed(&ours), listed(&others)),
    }
}

fn lede(story: &Story<'_>) -> String {
    let goals = &story.results.goals;
    let count = |verdict: Verdict| goals.iter().filter(|goal| goal.verdict() == verdict).count();
    let (missed, unknown) = (count(Verdict::Missed), count(Verdict::Unknown));
    let measured = goals.len() - unknown;
    let (all, lost) = (story.ratios().count(), story.ratios().filter(|ratio| ratio.lost()).count());
    let mut sentences = Vec::new();
    if measured > 0 {
        let rest = if unknown > 0 { format!(" ({unknown} not measured in this run)") } else { String::new() };
        sentences.push(format!(
            "{} of {measured} measured goals are reached, {missed} missed{rest}.",
            measured - missed
        ));
    }
    if all > 0 {
        sentences.push(format!("{lost} of {all} comparisons are lost."));
    }
    let errors: u64 =
        story.results.slices.iter().flat_map(|slice| &slice.errors).map(|(_, count)| count).sum();
    if errors > 0 {
        sentences.push(format!("{} calls failed: see every row.", Unit::Count.text(errors as f64)));
    }
    let gone: u64 = story.results.failures.iter().map(|failure| failure.lost).sum();
    if gone > 0 {
        sentences.push(format!("{gone} acknowledged writes were LOST."));
    }
    sentences.join(" ")
}

fn seconds(time: Duration) -> String {
    // Whole seconds: nobody plans a run to the millisecond.
    humantime::format_duration(Duration::from_secs(time.as_secs())).to_string()
}

fn facts(results: &Results) -> Markup {
    let machine = &results.machine;
    let started = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(results.started));
    // Beyond the year 9999 the formatter fails, and a page must not.
    let started = started
        .filter(|_| results.started < 253_402_300_800)
        .map_or_else(|| "unknown".into(), |time| humantime::format_rfc3339_seconds(time).to_string());
    let facts: Vec<(&str, String)> = vec![
        ("Processor", format!("{}, {} cores for all", machine.processor, machine.cores)),
        ("Kernel", machine.kernel.clone()),
        ("File system of the data", machine.file_system.clone()),
        ("Commit", machine.commit.clone()),
        ("Scheduling of all processes", machine.scheduling.clone()),
        ("Job", format!("{}, {started}, took {}", results.job, seconds(results.took))),
        (
            "Blocks",
            format!(
                "{} of slices of {}",
                results.rules.blocks,
                humantime::format_duration(results.rules.slice)
            ),
        ),
        (
            "Slices left out",
            format!("{} of {}", results.dropped.len(), results.dropped.len() + results.slices.len()),
        ),
    ];
    html! {
        dl.facts {
            @for (name, value) in &facts {
                div { dt { (name) } dd { (value) } }
            }
            @for system in &results.systems {
                div {
                    dt { (system.name) }
                    dd {
                        (system.version) ", " strong { (system.promise) } ", " (system.nodes) " nodes"
                        @for (name, value) in &system.settings { "; " (name) " " (value) }
                    }
                }
            }
        }
    }
}

fn section(section: &Section) -> Markup {
    html! {
        section id=(section.id) {
            h2 { (section.heading) }
            @for unfair in &section.refused {
                p.refused { strong { "Refused: " } (unfair) "." }
            }
            div.figures { @for drawing in &section.drawings { (figure(drawing)) } }
        }
    }
}

fn figure(drawing: &Drawing) -> Markup {
    html! {
        figure id=(drawing.slug) {
            figcaption { h3 { (drawing.title) } p { (drawing.note) } }
            (drawing.inline())
        }
    }
}

/// A command as a shell takes it.
fn command_line(words: &[String]) -> String {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "-_./=:,+@%".contains(letter);
    let quoted = words.iter().map(|word| {
        if !word.is_empty() && word.chars().all(plain) {
            word.clone()
        } else {
            format!("'{}'", word.replace('\'', "'\\''"))
        }
    });
    quoted.collect::<Vec<_>>().join(" ")
}

/// The value of an option in a command line.
fn option<'a>(words: &'a [String], name: &str) -> Option<&'a str> {
    let position = words.iter().position(|word| word.split('=').next() == Some(name))?;
    words[position]
        .split_once('=')
        .map(|(_, value)| value)
        .or_else(|| words.get(position + 1).map(String::as_str))
}

fn method(story: &Story<'_>) -> Markup {
    let results = story.results;
    let rules = &results.rules;
    let mut reasons: BTreeMap<(&str, String), usize> = BTreeMap::new();
    for dropped in &results.dropped {
        let row = story.row(dropped.row);
        *reasons.entry((&dropped.reason, format!("{}: {}", row.system, row.name()))).or_default() += 1;
    }
    html! {
        section id="method" {
            h2 { "How it was measured" }
            ul {
                li {
                    "Systems take turns in slices of " (humantime::format_duration(rules.slice)) ", in an order that is drawn anew in each of "
                    (rules.blocks) " blocks (seed " (rules.seed) "); one unmeasured slice of " (humantime::format_duration(rules.warm_up))
                    " of each row comes first. A slow minute of the machine falls on all of them."
                }
                li {
                    "A figure is the median over blocks; a quotient is the median of the quotients inside blocks. Brackets and whiskers are "
                    "bootstrap 95 % intervals. Absolute figures of one machine are context; quotients and processor time per operation "
                    "are the claims."
                }
                li {
                    "One load generator for all systems. In a closed loop the number in flight is part of the row’s name; in an open loop "
                    "latency counts from the moment a call was due. Calls that failed or were never sent are counted and shown."
                }
                li { "Rows that promise different things are never drawn in one chart; durability is part of every row’s name." }
                li { "The rule, fixed beforehand: " (rules.dropping()) "." }
            }
            @if reasons.is_empty() {
                p { "No slice was left out." }
            } @else {
                p { "Slices left out: " (results.dropped.len()) "." }
                ul { @for ((reason, row), count) in &reasons { li { (count) " × " (row) ": " (reason) } } }
            }
            @if !results.notes.is_empty() {
                h3 { "What a reader must know" }
                ul { @for note in &results.notes { li { (note) } } }
            }
            (probes(story))
            h3 { "The command" }
            pre { (command_line(&results.command)) }
            p {
                @match option(&results.command, "--json") {
                    Some(path) => { "The raw data of every slice: " code { (path) } ". " }
                    None => { "The raw data was not kept: add " code { "--json results.json" } ". " }
                }
                "This page again from it: " code {
                    "perf report " (option(&results.command, "--json").unwrap_or("results.json")) " --html page.html"
                }
            }
        }
    }
}

fn probes(story: &Story<'_>) -> Markup {
    type Kind = fn(&crate::slice::Probes) -> f64;
    let slices = &story.results.slices;
    let flush = |p: &crate::slice::Probes| p.flush;
    let quic = |p: &crate::slice::Probes| p.quic;
    let udp = |p: &crate::slice::Probes| p.udp;
    let spin = |p: &crate::slice::Probes| p.spin;
    let kinds: [(&str, Kind); 4] = [
        ("Write of 4 KiB and its flush", flush),
        ("QUIC round trip", quic),
        ("UDP round trip", udp),
        ("Fixed arithmetic (spin)", spin),
    ];
    let lines: Vec<[String; 4]> = kinds
        .into_iter()
        .filter_map(|(name, of)| {
            let values = || slices.iter().map(|slice| of(&slice.probes)).filter(|value| *value > 0.0);
            let found = median(values())?;
            let text = |value: f64| Unit::Micros.text(value);
            let (least, most) = (values().fold(f64::INFINITY, f64::min), values().fold(0.0, f64::max));
            Some([name.to_owned(), text(found.median), text(least), text(most)])
        })
        .collect();
    let steal = story.steal();
    html! {
        @if !lines.is_empty() || steal.is_some() {
            h3 { "What the machine could do meanwhile" }
            div.scroll {
                table {
                    thead { tr { th { "Probe around every slice" } th { "median" } th { "least" } th { "most" } } }
                    tbody {
                        @for [name, middle, least, most] in &lines {
                            tr { td { (name) } td { (middle) } td { (least) } td { (most) } }
                        }
                        @if let Some((found, most)) = steal {
                            tr { td { "Taken by the host (steal)" } td { (Unit::Share.text(found.median)) } td { "" } td { (Unit::Share.text(most)) } }
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_can_be_pasted_into_a_shell() {
        let words = ["perf", "compare", "etcd", "--json", "my results.json", "it's"].map(String::from);
        assert_eq!(command_line(&words), "perf compare etcd --json 'my results.json' 'it'\\''s'");
        assert_eq!(option(&words, "--json"), Some("my results.json"));
        assert_eq!(option(&["--json=a.json".to_owned()], "--json"), Some("a.json"));
        assert_eq!(option(&words, "--html"), None);
    }
}
