//! Goals, and our rows over those of others.

use super::Section;
use crate::page::bars::{Bar, Bars, Piece};
use crate::page::drawing::{Drawing, Key, Swatch, slug};
use crate::page::lines::Axis;
use crate::page::scale::Kind;
use crate::page::story::{Story, listed, short};
use crate::page::unit::{Unit, significant};
use crate::results::{Chart, Goal, Measure, Ratio, Unfair, Verdict};

/// Goals and quotients.
pub fn section(story: &Story<'_>) -> Section {
    let mut section = Section::new("comparison", "What was reached, and by how much");
    section.drawings.extend(goals(&story.results.goals));
    for measure in Measure::ALL {
        for (theirs, ratios) in by_opponent(story, measure) {
            quotients(story, &mut section, measure, &theirs, &ratios);
        }
    }
    section
}

/// How far beyond what must be reached: over 1 is good. Zero where less is better is as good as it gets.
fn beyond(goal: &Goal, value: f64) -> f64 {
    let times = if goal.more_is_better { value / goal.reach } else { goal.reach / value };
    if times.is_nan() { 1.0 } else { times }
}

fn class_of(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Aimed | Verdict::Reached => "good",
        Verdict::Missed => "bad",
        Verdict::Unknown => "plain",
    }
}

/// A number with the unit that a goal gives it.
pub fn goal_words(goal: &Goal, value: f64) -> String {
    let unit = if goal.unit == "x" { "×" } else { &goal.unit };
    format!("{}\u{a0}{unit}", significant(value)).trim_end().to_owned()
}

fn goals(goals: &[Goal]) -> Option<Drawing> {
    let measured: Vec<(&Goal, f64)> =
        goals.iter().filter_map(|goal| Some((goal, goal.found?.median))).collect();
    if measured.is_empty() {
        return None;
    }
    let finite = measured.iter().flat_map(|(goal, value)| [beyond(goal, *value), beyond(goal, goal.aim)]);
    let most = finite.filter(|times| times.is_finite() && *times > 0.0).fold(2.0, f64::max);
    let cap = |times: f64| if times.is_finite() { times.max(1e-3) } else { most * 2.0 };
    let mut measured = measured;
    measured.sort_by(|a, b| beyond(a.0, a.1).total_cmp(&beyond(b.0, b.1)));
    let bars = measured.iter().map(|(goal, value)| {
        let found = goal.found.map(|found| (cap(beyond(goal, found.low)), cap(beyond(goal, found.high))));
        let times = cap(beyond(goal, *value));
        Bar {
            label: goal.name.clone(),
            value: goal_words(goal, *value),
            pieces: vec![Piece {
                class: class_of(goal.verdict()),
                light: false,
                from: 1.0,
                to: times,
                words: format!(
                    "{}; must reach {}, aims at {}",
                    goal_words(goal, *value),
                    goal_words(goal, goal.reach),
                    goal_words(goal, goal.aim)
                ),
            }],
            interval: found.filter(|(low, high)| low != high),
            strokes: vec![cap(beyond(goal, goal.aim))],
            dots: Vec::new(),
        }
    });
    let bars: Vec<Bar> = bars.collect();
    let reached = measured.iter().filter(|(goal, _)| goal.verdict() != Verdict::Missed).count();
    let aimed = measured.iter().filter(|(goal, _)| goal.verdict() == Verdict::Aimed).count();
    Bars {
        slug: "goals".into(),
        title: format!("{reached} of {} measured goals are reached, {aimed} with what was aimed at", measured.len()),
        note: "How many times better than what must be reached, set before it was measured; what was found is at the end of \
               each line, with its bootstrap 95 % interval."
            .into(),
        axis: Axis::new("times better than must be reached", Unit::Times, Kind::Log),
        base: 1.0,
        bars,
        legend: vec![
            Key::classed("good", Swatch::Box, "reached"),
            Key::classed("bad", Swatch::Box, "missed"),
            Key::classed("plain", Swatch::Stroke, "aim"),
        ],
    }
    .draw()
}

fn by_opponent<'a>(story: &Story<'a>, measure: Measure) -> Vec<(String, Vec<&'a Ratio>)> {
    let mut opponents: Vec<(String, Vec<&Ratio>)> = Vec::new();
    for ratio in story.ratios().filter(|ratio| ratio.measure == measure) {
        let name = format!("{} over {}", story.row(ratio.ours).system, story.row(ratio.theirs).system);
        match opponents.iter_mut().find(|opponent| opponent.0 == name) {
            Some(opponent) => opponent.1.push(ratio),
            None => opponents.push((name, vec![ratio])),
        }
    }
    opponents
}

/// How sure it is: an interval that holds 1 decides nothing.
pub fn standing(ratio: &Ratio) -> (&'static str, &'static str) {
    let found = ratio.times_better;
    match () {
        () if found.high < 1.0 => ("bad", "lost"),
        () if found.low > 1.0 => ("good", "won"),
        () if ratio.lost() => ("bad", "lost, within the noise"),
        () => ("unsure", "undecided"),
    }
}

/// A quotient as people read it.
pub fn times(value: f64) -> String {
    Unit::Times.text(value)
}

fn quotients(story: &Story<'_>, section: &mut Section, measure: Measure, pair: &str, ratios: &[&Ratio]) {
    // A file may hold what this program would not have made.
    let (mut fair, mut refused): (Vec<&Ratio>, Vec<Unfair>) = (Vec::new(), Vec::new());
    for ratio in ratios {
        match Chart::of([story.row(ratio.ours), story.row(ratio.theirs)]) {
            Ok(_) => fair.push(ratio),
            Err(unfair) => refused.push(unfair),
        }
    }
    refused.into_iter().for_each(|unfair| section.refuse(unfair));
    fair.sort_by(|a, b| a.times_better.median.total_cmp(&b.times_better.median));
    let rows: Vec<usize> = fair.iter().map(|ratio| ratio.ours).collect();
    section.draw_fairly(story, &rows, |chart, rows| {
        let fair: Vec<&Ratio> = fair.iter().copied().filter(|ratio| rows.contains(&ratio.ours)).collect();
        let lost = fair.iter().filter(|ratio| ratio.lost()).count();
        let (least, most) = (fair.first()?.times_better.median, fair.last()?.times_better.median);
        let (ours, theirs) = pair.split_once(" over ").unwrap_or((pair, ""));
        let range = if fair.len() == 1 { times(least) } else { format!("{} to {}", times(least), times(most)) };
        let what = match measure {
            Measure::Rate => format!("{ours} does {range} {theirs}’s operations"),
            other => format!("{} of {ours} is {range} better than {theirs}’s", upper(short(other))),
        };
        let loss = if lost == 0 { String::new() } else { format!("; it loses {lost} of {} rows", fair.len()) };
        Bars {
            slug: slug(&format!("ratio {} {theirs}", short(measure))),
            title: format!("{what}{loss}"),
            note: format!(
                "{}, {}: times better, median of quotients inside blocks with the bootstrap 95 % interval; right of 1 is \
                 better for {ours}.",
                upper(&measure.to_string()),
                chart.promise()
            ),
            axis: Axis::new("times better", Unit::Times, Kind::Log),
            base: 1.0,
            bars: fair.iter().map(|ratio| bar(story, ratio)).collect(),
            legend: vec![
                Key::classed("good", Swatch::Box, "won"),
                Key::classed("unsure", Swatch::Box, "undecided"),
                Key::classed("bad", Swatch::Box, "lost"),
            ],
        }
        .draw()
    });
}

fn bar(story: &Story<'_>, ratio: &Ratio) -> Bar {
    let found = ratio.times_better;
    let words = |row| format!("{} {}", story.row(row).system, story.words(row, ratio.measure));
    Bar {
        label: story.row(ratio.ours).name(),
        value: times(found.median),
        pieces: vec![Piece {
            class: standing(ratio).0,
            light: false,
            from: 1.0,
            to: found.median,
            words: format!(
                "{} [{} – {}] over {} blocks; {}",
                times(found.median),
                times(found.low),
                times(found.high),
                ratio.blocks.len(),
                listed(&[words(ratio.ours), words(ratio.theirs)])
            ),
        }],
        interval: Some((found.low, found.high)),
        strokes: Vec::new(),
        dots: Vec::new(),
    }
}

/// With a capital letter.
pub fn upper(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}
