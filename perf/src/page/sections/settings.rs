//! Settings that were swept: what each costs, what was best, what the engine chose.

use super::Section;
use super::quotients::upper;
use crate::page::drawing::{Drawing, Hue, slug};
use crate::page::heat::{Cell, Heat};
use crate::page::lines::{Axis as LineAxis, Dot, Line, Lines, Stroke};
use crate::page::scale::Kind;
use crate::page::story::{Story, listed, short, unit};
use crate::page::unit::Unit;
use crate::results::{Axis, Measure, Point, Sweep};

/// Sweeps.
pub fn section(story: &Story<'_>) -> Section {
    let mut section = Section::new("settings", "Batch settings, swept");
    for group in groups(&story.results.sweep) {
        for measure in [Measure::Rate, Measure::P99, Measure::Cpu] {
            section.drawings.extend(match group.as_slice() {
                [] => Vec::new(),
                [one] => match one.axes.as_slice() {
                    [] => Vec::new(),
                    [_] => along(story, one, measure).into_iter().collect(),
                    [across, down, others @ ..] => fields(story, one, measure, (across, down, others)),
                },
                several => together(story, several, measure).into_iter().collect(),
            });
        }
    }
    section
}

/// Sweeps of one setting on one system under several loads belong into one drawing.
fn groups(sweeps: &[Sweep]) -> Vec<Vec<&Sweep>> {
    let mut groups: Vec<Vec<&Sweep>> = Vec::new();
    for sweep in sweeps {
        let alike = |group: &&mut Vec<&Sweep>| {
            group.iter().all(|other| {
                matches!((sweep.axes.as_slice(), other.axes.as_slice()), ([one], [another]) if one.name == another.name)
                    && sweep.system == other.system
            })
        };
        match groups.iter_mut().find(alike) {
            Some(group) => group.push(sweep),
            None => groups.push(vec![sweep]),
        }
    }
    groups
}

/// One setting under several loads: a line for each. How they are shaped is what counts, and they are far apart.
fn together(story: &Story<'_>, sweeps: &[&Sweep], measure: Measure) -> Option<Drawing> {
    let first = sweeps.first()?;
    let axis = first.axes.first()?;
    let lines = sweeps.iter().enumerate().map(|(number, sweep)| Line {
        name: sweep.workload.to_string(),
        hue: Hue(number),
        stroke: Stroke::Solid,
        dots: dots(sweep, measure),
    });
    let lines: Vec<Line> = lines.filter(|line| !line.dots.is_empty()).collect();
    let bests = sweeps.iter().filter_map(|sweep| {
        let best = best(sweep.points.iter(), measure)?;
        Some(format!("{} ({})", setting(axis, *best.at.first()?), sweep.workload))
    });
    let (unit_across, kind) = across(axis, lines.iter().flat_map(|line| &line.dots))?;
    let promise =
        story.subject(&first.system).map_or_else(String::new, |subject| format!(", {}", subject.promise));
    Lines {
        slug: slug(&format!("sweep {} {}", axis.name, short(measure))),
        title: format!(
            "{} by {}: best with {}",
            upper(short(measure)),
            axis.name,
            listed(&bests.collect::<Vec<_>>())
        ),
        note: format!("{}{promise}; {measure}, medians over blocks with their intervals.", first.system),
        x: LineAxis::new(axis.name.clone(), unit_across, kind),
        y: LineAxis::new(measure.to_string(), unit(measure), Kind::Log),
        lines,
    }
    .draw()
}

/// What the axis across is in, and how far apart its values are.
fn across<'a>(axis: &Axis, dots: impl Iterator<Item = &'a Dot>) -> Option<(Unit, Kind)> {
    let values: Vec<f64> = dots.map(|dot| dot.x).collect();
    let (least, most) = (values.iter().copied().reduce(f64::min)?, values.iter().copied().reduce(f64::max)?);
    let unit = match axis.unit.as_str() {
        "B" | "bytes" => Unit::Bytes,
        "µs" => Unit::Micros,
        _ => Unit::Count,
    };
    let kind = match unit {
        _ if least <= 0.0 || most / least.max(1e-12) <= 8.0 => Kind::Linear,
        Unit::Bytes => Kind::Binary,
        _ => Kind::Log,
    };
    Some((unit, kind))
}

/// The points of a sweep of one setting, from the least value to the most.
fn dots(sweep: &Sweep, measure: Measure) -> Vec<Dot> {
    let mut dots: Vec<Dot> = sweep
        .points
        .iter()
        .filter_map(|point| {
            let (x, found) = (*point.at.first()?, point.figures.get(&measure)?);
            let chosen = sweep.chosen.as_ref().is_some_and(|chosen| same(&point.at, chosen));
            Some(Dot {
                x,
                y: found.median,
                interval: Some((found.low, found.high)),
                words: format!(
                    "{} with {}{}",
                    unit(measure).text(found.median),
                    place(sweep, &point.at),
                    if chosen { ", which the engine chose" } else { "" }
                ),
                hollow: chosen,
            })
        })
        .collect();
    dots.sort_by(|a, b| a.x.total_cmp(&b.x));
    dots
}

/// A value of a setting in words.
fn setting(axis: &Axis, value: f64) -> String {
    match axis.unit.as_str() {
        "B" | "bytes" => Unit::Bytes.tick(value),
        "µs" => Unit::Micros.tick(value),
        "" => Unit::Count.tick(value),
        unit => format!("{}\u{a0}{unit}", Unit::Count.tick(value)),
    }
}

fn place(sweep: &Sweep, at: &[f64]) -> String {
    let names =
        sweep.axes.iter().zip(at).map(|(axis, value)| format!("{} {}", axis.name, setting(axis, *value)));
    names.collect::<Vec<_>>().join(", ")
}

fn value(point: &Point, measure: Measure) -> Option<f64> {
    point.figures.get(&measure).map(|found| found.median)
}

fn same(a: &[f64], b: &[f64]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() <= 1e-9 * a.abs().max(1.0))
}

/// The best by this measure among some points.
fn best<'a>(points: impl Iterator<Item = &'a Point>, measure: Measure) -> Option<&'a Point> {
    let known = points.filter_map(|point| Some((point, value(point, measure)?)));
    let key = |found: f64| if measure.more_is_better() { found } else { -found };
    known.max_by(|a, b| key(a.1).total_cmp(&key(b.1))).map(|(point, _)| point)
}

fn title(sweep: &Sweep, measure: Measure) -> Option<String> {
    let best = best(sweep.points.iter(), measure)?;
    let words = unit(measure).text(value(best, measure)?);
    let mut title = format!("{}: best {words}, with {}", upper(short(measure)), place(sweep, &best.at));
    if let Some(chosen) = &sweep.chosen {
        let near = sweep.points.iter().find(|point| same(&point.at, chosen));
        match near.and_then(|point| value(point, measure)) {
            Some(found) => {
                title.push_str(&format!("; the engine’s choice gives {}", unit(measure).text(found)))
            }
            None => title.push_str(&format!("; the engine chose {}", place(sweep, chosen))),
        }
    }
    Some(title)
}

fn note(story: &Story<'_>, sweep: &Sweep, measure: Measure) -> String {
    let promise =
        story.subject(&sweep.system).map_or_else(String::new, |subject| format!("{} ", subject.promise));
    let rule = match &sweep.best {
        Some((at, rule)) => format!(" Best over all: {} ({rule}).", place(sweep, at)),
        None => String::new(),
    };
    let shade = if sweep.axes.len() > 1 { " The darker the better." } else { "" };
    format!("{}, {promise}{}; {measure}, medians over blocks.{shade}{rule}", sweep.system, sweep.workload)
}

/// One setting: a line.
fn along(story: &Story<'_>, sweep: &Sweep, measure: Measure) -> Option<Drawing> {
    let axis = sweep.axes.first()?;
    let dots = dots(sweep, measure);
    let (x_unit, kind) = across(axis, dots.iter())?;
    let mut note = note(story, sweep, measure);
    if sweep.chosen.is_some() {
        note.push_str(" The ring is the engine’s own choice.");
    }
    Lines {
        slug: slug(&format!("sweep {} {} {}", axis.name, short(measure), sweep.workload)),
        title: title(sweep, measure)?,
        note,
        x: LineAxis::new(axis.name.clone(), x_unit, kind),
        y: LineAxis::new(measure.to_string(), unit(measure), Kind::Linear),
        lines: vec![Line {
            name: format!("{}, {}", sweep.system, sweep.workload),
            hue: story.hue(&sweep.system),
            stroke: Stroke::Solid,
            dots,
        }],
    }
    .draw()
}

/// Two settings: a field; more of them: a field for each of their combinations.
fn fields(
    story: &Story<'_>,
    sweep: &Sweep,
    measure: Measure,
    (across, down, others): (&Axis, &Axis, &[Axis]),
) -> Vec<Drawing> {
    let mut combinations: Vec<&[f64]> = Vec::new();
    for point in &sweep.points {
        let rest = &point.at[2..];
        if !combinations.iter().any(|known| same(known, rest)) {
            combinations.push(rest);
        }
    }
    let column = |axis: &Axis, value: f64| axis.values.iter().position(|known| same(&[*known], &[value]));
    let overall = best(sweep.points.iter(), measure).map(|point| point.at.clone());
    let field = |rest: &&[f64]| -> Option<Drawing> {
        let points = || sweep.points.iter().filter(|point| same(&point.at[2..], rest));
        let local = best(points(), measure)?;
        let cells = points().filter_map(|point| {
            let found = point.figures.get(&measure)?;
            Some(Cell {
                column: column(across, point.at[0])?,
                row: column(down, point.at[1])?,
                value: found.median,
                words: format!(
                    "{}: {} [{} – {}]",
                    place(sweep, &point.at),
                    unit(measure).text(found.median),
                    unit(measure).text(found.low),
                    unit(measure).text(found.high)
                ),
                best: overall.as_ref().is_some_and(|best| same(best, &point.at)),
                chosen: sweep.chosen.as_ref().is_some_and(|chosen| same(chosen, &point.at)),
            })
        });
        let fixed = others
            .iter()
            .zip(rest.iter())
            .map(|(axis, value)| format!("{} {}", axis.name, setting(axis, *value)));
        let fixed = fixed.collect::<Vec<_>>().join(", ");
        let title = if fixed.is_empty() {
            title(sweep, measure)?
        } else {
            format!("{}, {fixed}: best {}", upper(short(measure)), unit(measure).text(value(local, measure)?))
        };
        let names = |axis: &Axis| axis.values.iter().map(|value| setting(axis, *value)).collect();
        Heat {
            slug: slug(&format!("sweep {} {} {} {fixed}", across.name, down.name, short(measure))),
            title,
            note: note(story, sweep, measure),
            across: (across.name.clone(), names(across)),
            down: (down.name.clone(), names(down)),
            unit: unit(measure),
            more_is_better: measure.more_is_better(),
            cells: cells.collect(),
        }
        .draw()
    };
    combinations.iter().filter_map(field).collect()
}
