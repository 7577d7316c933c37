//! Where processor time goes, and memory.

use super::Section;
use super::quotients::upper;
use crate::page::bars::{Bar, Bars, Piece};
use crate::page::drawing::{Drawing, Hue, Key, Swatch, slug};
use crate::page::lines::Axis;
use crate::page::scale::Kind;
use crate::page::story::{Story, depth, listed};
use crate::page::unit::Unit;
use crate::results::{Chart, Measure, Part, Row};
use crate::workload::Workload;

/// Processor time and memory.
pub fn section(story: &Story<'_>) -> Section {
    let mut section = Section::new("processor", "What an operation costs");
    for (_, rows) in story.groups(group) {
        section.draw_fairly(story, &rows, |chart, rows| stacked(story, chart, rows, Scope::All));
        let systems = story.by_system(&rows);
        // Beside one that takes forty times as much nothing is seen of the one that takes less.
        for (_, rows) in systems.iter().filter(|(system, _)| systems.len() > 1 && story.ours(system)) {
            section.draw_fairly(story, rows, |chart, rows| stacked(story, chart, rows, Scope::Ours));
        }
    }
    section.drawings.extend(memory(story));
    section
}

/// What one call costs at all depths, for every call of the usual size.
fn group(row: &Row) -> Option<String> {
    let usual = Workload { pace: row.workload.pace, ..Workload::closed(row.workload.call, 1) };
    let told = matches!(row.id.as_str(), "W1" | "W2" | "W6" | "W7");
    (told && row.condition.is_none() && Workload { keys: row.workload.keys, ..usual } == row.workload)
        .then(|| row.workload.call.to_string())
}

/// Colours of the parts: no system's, since a bar here is one system's already.
fn class(part: Part) -> &'static str {
    match part {
        Part::Leader => Hue(0).class(),
        Part::Follower => Hue(2).class(),
        Part::Generator => Hue(4).class(),
    }
}

/// Whose bars a drawing has.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Scope {
    All,
    Ours,
}

fn stacked(story: &Story<'_>, chart: &Chart, rows: &[usize], scope: Scope) -> Option<Drawing> {
    let mut rows = rows.to_vec();
    rows.sort_by_key(|row| (depth(&story.row(*row).workload), story.hue(&story.row(*row).system).0));
    let mut bars = Vec::new();
    let mut own_generator = false;
    for &row in &rows {
        let parts = story.processor(row);
        own_generator |= parts.contains_key(&Part::Generator);
        let sum: f64 = parts.values().map(|(user, system)| user + system).sum();
        let Some(total) = story.value(row, Measure::Cpu).filter(|_| sum > 0.0) else { continue };
        let mut pieces = Vec::new();
        let mut at = 0.0;
        for (part, (user, system)) in &parts {
            for (micros, light, space) in [(user, false, "user space"), (system, true, "kernel")] {
                // The lengths add up to the median of the blocks; their shares are those of all slices together.
                let long = micros * total / sum;
                pieces.push(Piece {
                    class: class(*part),
                    light,
                    from: at,
                    to: at + long,
                    words: format!("{part}, {space}: {} per operation", Unit::Micros.text(long)),
                });
                at += long;
            }
        }
        let (row, of) = (story.row(row), story.figure(row, Measure::Cpu)?);
        let name = row.name();
        bars.push(Bar {
            label: format!("{}: {name}", row.system),
            value: Unit::Micros.text(of.median),
            pieces,
            interval: None,
            strokes: Vec::new(),
            dots: Vec::new(),
        });
    }
    let least = story.by_system(&rows).into_iter().filter_map(|(system, rows)| {
        let micros = rows.iter().filter_map(|row| story.value(*row, Measure::Cpu)).min_by(f64::total_cmp)?;
        Some(format!("{} ({system})", Unit::Micros.text(micros)))
    });
    let least: Vec<String> = least.collect();
    let call = story.row(*rows.first()?).workload.call.to_string();
    let mut legend = vec![
        Key::classed(
            class(Part::Leader),
            Swatch::Box,
            if own_generator { "leader (embedded: with generator)" } else { "leader, with generator" },
        ),
        Key::classed(class(Part::Follower), Swatch::Box, "followers"),
    ];
    if own_generator {
        legend.push(Key::classed(class(Part::Generator), Swatch::Box, "generator"));
    }
    legend.push(Key::classed("plain", Swatch::Light, "pale: in the kernel"));
    Bars {
        slug: slug(&format!("cpu {call}{}", if scope == Scope::Ours { " ours" } else { "" })),
        title: format!(
            "{}{}: at best {} of processor time for one",
            upper(&call),
            if scope == Scope::Ours { ", ours alone" } else { "" },
            listed(&least)
        ),
        note: format!(
            "Processor time of all processes per operation, {}, by the kernel’s accounts; median over blocks.",
            chart.promise()
        ),
        axis: Axis::new("processor time per operation", Unit::Micros, Kind::Linear),
        base: 0.0,
        bars,
        legend,
    }
    .draw()
}

fn memory(story: &Story<'_>) -> Option<Drawing> {
    let all = &story.results.memory;
    let bars = all.iter().map(|memory| {
        let payload = memory.payload_bytes as f64;
        let piece = |from: f64, to: f64, light, words: &str| Piece {
            class: story.hue(&memory.system).class(),
            light,
            from,
            to,
            words: format!("{} {words}", Unit::Bytes.text(to - from)),
        };
        Bar {
            label: format!(
                "{}, {}, {} keys",
                memory.system,
                memory.what,
                Unit::Count.tick(memory.keys as f64)
            ),
            value: Unit::Bytes.text(memory.bytes_per_key),
            pieces: vec![
                piece(0.0, payload.min(memory.bytes_per_key), false, "key and value"),
                piece(payload.min(memory.bytes_per_key), memory.bytes_per_key, true, "beside key and value"),
            ],
            interval: None,
            strokes: Vec::new(),
            dots: Vec::new(),
        }
    });
    let bars: Vec<Bar> = bars.collect();
    let found: Vec<String> = all
        .iter()
        .max_by_key(|memory| memory.keys)
        .map(|memory| {
            format!(
                "{} at {} keys ({})",
                Unit::Bytes.text(memory.bytes_per_key),
                Unit::Count.tick(memory.keys as f64),
                memory.system
            )
        })
        .into_iter()
        .collect();
    Bars {
        slug: "memory".into(),
        title: format!("A key takes {}", listed(&found)),
        note: "Resident memory for each key, the key and the value themselves included.".into(),
        axis: Axis::new("resident bytes of a key", Unit::Bytes, Kind::Linear),
        base: 0.0,
        bars,
        legend: vec![
            Key::classed("plain", Swatch::Box, "key and value"),
            Key::classed("plain", Swatch::Light, "all else"),
        ],
    }
    .draw()
}
