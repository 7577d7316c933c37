//! Throughput against latency, percentiles, depth, and how both follow the size of values and the number of watchers.

use super::Section;
use super::quotients::upper;
use crate::page::drawing::{Drawing, Hue, slug};
use crate::page::lines::{Axis, Dot, Line, Lines, Stroke, percentile_name};
use crate::page::scale::Kind;
use crate::page::story::{Story, depth, listed};
use crate::page::unit::Unit;
use crate::results::{Chart, Measure, Row};
use crate::workload::{Call, Pace, Workload};

/// Everything about time.
pub fn section(story: &Story<'_>) -> Section {
    let mut section = Section::new("latency", "Throughput and latency");
    for (_, rows) in story.groups(open) {
        section.draw_fairly(story, &rows, |chart, rows| curve(story, chart, rows));
    }
    for (_, rows) in story.groups(closed) {
        section.draw_fairly(story, &rows, |chart, rows| by_depth(story, chart, rows));
        if !story.results.rows.iter().any(|row| open(row).is_some()) {
            section.draw_fairly(story, &rows, |chart, rows| curve(story, chart, rows));
        }
    }
    for (_, rows) in story.groups(sized) {
        section.draw_fairly(story, &rows, |chart, rows| by_size(story, chart, rows));
    }
    for (_, rows) in story.groups(watched) {
        section.draw_fairly(story, &rows, |chart, rows| by_watchers(story, chart, rows));
    }
    for (_, rows) in story.groups(percentile_group) {
        section.draw_fairly(story, &rows, |chart, rows| percentiles(story, chart, rows));
    }
    section
}

/// All but the pace.
type Work = (Call, usize, usize, String);

fn work(row: &Row) -> Work {
    let Workload { call, key_bytes, value_bytes, keys, .. } = row.workload;
    (call, key_bytes, value_bytes, format!("{keys}{}", row.condition.as_deref().unwrap_or("")))
}

fn open(row: &Row) -> Option<Work> {
    matches!(row.workload.pace, Pace::Open { .. }).then(|| work(row))
}

fn closed(row: &Row) -> Option<Work> {
    let pipelined = !matches!(row.workload.call, Call::Watch { .. });
    (pipelined && depth(&row.workload).is_some()).then(|| work(row))
}

fn sized(row: &Row) -> Option<(Call, usize, String)> {
    let (call, _, _, keys) = work(row);
    (row.condition.is_none()).then_some(())?;
    Some((call, depth(&row.workload)?, keys))
}

fn watched(row: &Row) -> Option<bool> {
    matches!(row.workload.call, Call::Watch { .. }).then_some(true)
}

/// One drawing for each thing that was asked; parts of the matrix that only vary one number have drawings of their own.
fn percentile_group(row: &Row) -> Option<(Workload, Option<String>)> {
    let swept = matches!(row.id.as_str(), "W3" | "W4" | "W5" | "W9" | "W15");
    (!swept).then(|| (row.workload, row.condition.clone()))
}

/// The words of a row without its promise and pace.
fn asked(row: &Row) -> String {
    let mut words = row.workload.call.to_string();
    let workload = &row.workload;
    if workload.value_bytes != crate::workload::VALUE_BYTES
        || workload.key_bytes != crate::workload::KEY_BYTES
    {
        words.push_str(&format!(", {} B keys, {} B values", workload.key_bytes, workload.value_bytes));
    }
    if workload.keys != crate::workload::Distribution::Uniform {
        words.push_str(&format!(", {}", workload.keys));
    }
    if let Some(condition) = &row.condition {
        words.push_str(&format!(", {condition}"));
    }
    words
}

fn interval(story: &Story<'_>, row: usize, measure: Measure) -> Option<(f64, f64)> {
    story.figure(row, measure).map(|found| (found.low, found.high))
}

/// p99 and p50 over what was really done.
fn curve(story: &Story<'_>, chart: &Chart, rows: &[usize]) -> Option<Drawing> {
    const SOON: f64 = 10_000.0;
    let mut lines = Vec::new();
    let mut findings = Vec::new();
    for (system, rows) in story.by_system(rows) {
        if rows.len() < 2 {
            continue;
        }
        let mut rows = rows;
        rows.sort_by(|a, b| pace_of(story.row(*a)).total_cmp(&pace_of(story.row(*b))));
        for (measure, stroke) in [(Measure::P99, Stroke::Solid), (Measure::P50, Stroke::Dashed)] {
            let dots = rows.iter().filter_map(|&row| {
                let (x, y) = (story.value(row, Measure::Rate)?, story.value(row, measure)?);
                let missed: u64 = story.results.slices_of(row).map(|slice| slice.missed).sum();
                let note =
                    if missed > 0 { format!("; {missed} calls were never sent") } else { String::new() };
                Some(Dot {
                    x,
                    y,
                    interval: interval(story, row, measure).filter(|_| stroke == Stroke::Solid),
                    words: format!(
                        "{} at {} ({}){note}",
                        Unit::Micros.text(y),
                        Unit::PerSecond.text(x),
                        story.row(row).workload.pace
                    ),
                    hollow: missed > 0,
                })
            });
            let name = format!("{system}, {}", if measure == Measure::P99 { "p99" } else { "p50" });
            lines.push(Line { name, hue: story.hue(system), stroke, dots: dots.collect() });
        }
        let soon = rows.iter().filter(|row| story.value(**row, Measure::P99).is_some_and(|p99| p99 <= SOON));
        let best = soon.filter_map(|row| story.value(*row, Measure::Rate)).fold(0.0, f64::max);
        findings.push(if best > 0.0 {
            format!("{} ({system})", Unit::PerSecond.text(best))
        } else {
            format!("nothing ({system})")
        });
    }
    let first = story.row(*rows.first()?);
    let open_loop = open(first).is_some();
    let how = if open_loop {
        "Open loop: latency counts from the moment a call was due, so waiting for a slow system is part of it; a ring is a load \
         that the system did not keep up with"
    } else {
        "Closed loop: each point keeps a number of calls in flight"
    };
    Lines {
        slug: slug(&format!("throughput-latency {}{}", asked(first), if open_loop { "" } else { " closed" })),
        title: format!("{}: within 10 ms at p99 up to {}", upper(&asked(first)), listed(&findings)),
        note: format!("{how}. {}; medians over blocks, whiskers are 95 % intervals of p99.", chart.promise()),
        x: Axis::new("operations done per second", Unit::PerSecond, Kind::Log),
        y: Axis::new("latency", Unit::Micros, Kind::Log),
        lines,
    }
    .draw()
}

fn pace_of(row: &Row) -> f64 {
    match row.workload.pace {
        Pace::Closed { in_flight } => in_flight as f64,
        Pace::Open { per_second, .. } => per_second,
    }
}

/// One line for each system over a number that varies.
fn over(
    story: &Story<'_>,
    rows: &[usize],
    x_of: impl Fn(&Row) -> f64,
    x_unit: Unit,
    what: &str,
) -> Vec<Line> {
    let mut lines = Vec::new();
    for (system, rows) in story.by_system(rows) {
        let mut dots: Vec<Dot> = rows
            .iter()
            .filter_map(|&row| {
                let (x, y) = (x_of(story.row(row)), story.value(row, Measure::Rate)?);
                Some(Dot {
                    x,
                    y,
                    interval: interval(story, row, Measure::Rate),
                    words: format!(
                        "{} with {} {what}; p50 {}, p99 {}",
                        Unit::PerSecond.text(y),
                        x_unit.tick(x),
                        story.words(row, Measure::P50),
                        story.words(row, Measure::P99)
                    ),
                    hollow: false,
                })
            })
            .collect();
        dots.sort_by(|a, b| a.x.total_cmp(&b.x));
        // One value may have been measured in two parts of the matrix.
        dots.dedup_by(|a, b| a.x == b.x);
        lines.push(Line { name: system.to_owned(), hue: story.hue(system), stroke: Stroke::Solid, dots });
    }
    lines
}

/// From the first point of every line to its highest, in words.
fn rises(lines: &[Line], x_unit: Unit, what: &str) -> String {
    let rises: Vec<String> = lines
        .iter()
        .filter_map(|line| {
            let (first, best) = (line.dots.first()?, line.dots.iter().max_by(|a, b| a.y.total_cmp(&b.y))?);
            Some(format!(
                "{} from {} to {} at {} {what}",
                line.name,
                Unit::PerSecond.text(first.y),
                Unit::PerSecond.text(best.y),
                x_unit.tick(best.x)
            ))
        })
        .collect();
    listed(&rises)
}

fn by_depth(story: &Story<'_>, chart: &Chart, rows: &[usize]) -> Option<Drawing> {
    let first = story.row(*rows.first()?);
    let x_of = |row: &Row| depth(&row.workload).unwrap_or(0) as f64;
    let mut lines = over(story, rows, x_of, Unit::Count, "in flight");
    lines.retain(|line| line.dots.len() >= 3);
    let title = format!("{}: {}", upper(&asked(first)), rises(&lines, Unit::Count, "in flight"));
    let probes = &story.results.probes;
    let (flush, trip) = (probes.flush, probes.quic);
    let mut note =
        format!("{}, closed loop; medians over blocks, whiskers are 95 % intervals.", chart.promise());
    if first.workload.call == Call::Put && flush > 0.0 {
        let step = 1.5 * flush + trip;
        let depths: Vec<f64> = lines.iter().flat_map(|line| line.dots.iter().map(|dot| dot.x)).collect();
        let bound =
            |x: f64| Dot { x, y: x * 1e6 / step, interval: None, words: String::new(), hollow: false };
        let (least, most) = (
            depths.iter().copied().fold(f64::INFINITY, f64::min),
            depths.iter().copied().fold(0.0, f64::max),
        );
        if least <= most {
            // Close enough together that the line ends at the edge and not in the middle.
            let dots = (0..=60).map(|step| bound(least * (most / least).powf(f64::from(step) / 60.0)));
            lines.push(Line {
                name: "n / (1.5 flush + round trip): one flush at a time".into(),
                hue: Hue(5),
                stroke: Stroke::Bound,
                dots: dots.collect(),
            });
            note.push_str(&format!(
                " The bound takes the measured flush ({}) and QUIC round trip ({}); batches in parallel may pass it.",
                Unit::Micros.text(flush),
                Unit::Micros.text(trip)
            ));
        }
    }
    if lines.iter().all(|line| line.stroke == Stroke::Bound) {
        return None;
    }
    Lines {
        slug: slug(&format!("depth {}", asked(first))),
        title,
        note,
        x: Axis::new("calls in flight", Unit::Count, Kind::Log),
        y: Axis::new("operations per second", Unit::PerSecond, Kind::Log),
        lines,
    }
    .draw()
}

fn by_size(story: &Story<'_>, chart: &Chart, rows: &[usize]) -> Option<Drawing> {
    let first = story.row(*rows.first()?);
    let mut lines = over(story, rows, |row| row.workload.value_bytes as f64, Unit::Bytes, "values");
    lines.retain(|line| line.dots.len() >= 3);
    let falls: Vec<String> = lines
        .iter()
        .filter_map(|line| {
            let (first, last) = (line.dots.first()?, line.dots.last()?);
            let sizes = [first, last].map(|dot| Unit::Bytes.tick(dot.x));
            Some(format!(
                "{} goes from {} with {} to {} with {}",
                line.name,
                Unit::PerSecond.text(first.y),
                sizes[0],
                Unit::PerSecond.text(last.y),
                sizes[1]
            ))
        })
        .collect();
    Lines {
        slug: slug(&format!("value-size {} {}", first.workload.call, first.workload.pace)),
        title: format!("{} by size of values: {}", upper(&first.workload.call.to_string()), listed(&falls)),
        note: format!(
            "{}, {}; medians over blocks, whiskers are 95 % intervals.",
            chart.promise(),
            first.workload.pace
        ),
        x: Axis::new("bytes of a value", Unit::Bytes, Kind::Binary),
        y: Axis::new("operations per second", Unit::PerSecond, Kind::Log),
        lines,
    }
    .draw()
}

fn by_watchers(story: &Story<'_>, chart: &Chart, rows: &[usize]) -> Option<Drawing> {
    let watchers = |row: &Row| match row.workload.call {
        Call::Watch { watchers } => f64::from(watchers),
        _ => 0.0,
    };
    let mut lines = over(story, rows, watchers, Unit::Count, "watchers");
    lines.retain(|line| line.dots.len() >= 2);
    Lines {
        slug: "watchers".into(),
        title: format!("Deliveries to watchers: {}", rises(&lines, Unit::Count, "watchers")),
        note: format!(
            "{}, one writer, every watcher sees every write; medians over blocks.",
            chart.promise()
        ),
        x: Axis::new("watchers", Unit::Count, Kind::Log),
        y: Axis::new("deliveries per second", Unit::PerSecond, Kind::Log),
        lines,
    }
    .draw()
}

fn percentiles(story: &Story<'_>, chart: &Chart, rows: &[usize]) -> Option<Drawing> {
    const SHARES: [f64; 12] = [0.5, 0.75, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9995, 0.9998, 0.9999];
    /// A percentile is worth a point where this many calls were slower.
    const BEYOND: f64 = 5.0;
    let mut lines = Vec::new();
    let mut findings = Vec::new();
    for &row in rows {
        let histogram = story.results.latencies_of(row);
        if histogram.is_empty() {
            continue;
        }
        let system = &story.row(row).system;
        let calls = histogram.len() as f64;
        let shares = SHARES.into_iter().filter(|share| *share == 0.5 || calls * (1.0 - share) >= BEYOND);
        let dots = shares.map(|share| {
            let micros = histogram.value_at_quantile(share) as f64 / 1e3;
            Dot {
                x: share,
                y: micros,
                interval: None,
                words: format!(
                    "{} of {calls:.0} calls within {}",
                    percentile_name(share),
                    Unit::Micros.text(micros)
                ),
                hollow: false,
            }
        });
        let dots: Vec<Dot> = dots.collect();
        if let Some(p99) = story.value(row, Measure::P99) {
            findings.push(format!("{} ({system})", Unit::Micros.text(p99)));
        }
        lines.push(Line { name: system.clone(), hue: story.hue(system), stroke: Stroke::Solid, dots });
    }
    let row = story.row(*rows.first()?);
    let what = row.name();
    let what = what.strip_prefix(&format!("{} ", row.promise)).unwrap_or(&what);
    Lines {
        slug: slug(&format!("percentiles {what}")),
        title: format!("{}: 99 of 100 calls within {}", upper(what), listed(&findings)),
        note: format!(
            "{}; all slices in one distribution, and the title’s p99 is the median over blocks. Only percentiles that at least \
             five calls were slower than.",
            chart.promise()
        ),
        x: Axis::new("share of calls", Unit::Share, Kind::Percentile),
        y: Axis::new("latency within", Unit::Micros, Kind::Log),
        lines,
    }
    .draw()
}
