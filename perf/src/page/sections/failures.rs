//! Leaders killed, and nodes started again.

use super::Section;
use super::quotients::upper;
use crate::page::bars::{Bar, Bars, Piece};
use crate::page::drawing::{Drawing, Key, Swatch, slug};
use crate::page::lines::Axis;
use crate::page::scale::Kind;
use crate::page::story::{Story, listed};
use crate::page::strips::{Bucket, Strip, Strips};
use crate::page::unit::{Unit, significant};
use crate::results::{Failover, Promise, Recovery, Unfair};
use crate::statistics::{Median, median};
use std::time::Duration;

/// All failures of one kind on one system.
struct Failures<'a> {
    system: &'a str,
    what: &'a str,
    rounds: Vec<&'a Failover>,
    outage: Median,
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// Failures.
pub fn section(story: &Story<'_>) -> Section {
    let mut section = Section::new("failures", "When the leader goes");
    let kinds = kinds(story);
    match fair(story, kinds.iter().map(|kind| kind.system)) {
        Ok(()) => section.drawings.extend(outages(story, &kinds)),
        Err(unfair) => {
            section.refuse(unfair);
            for promise in [Promise::FsyncQuorum, Promise::MemoryQuorum] {
                let of =
                    |kind: &&Failures<'_>| story.subject(kind.system).is_some_and(|s| s.promise == promise);
                let kinds: Vec<&Failures<'_>> = kinds.iter().filter(of).collect();
                section.drawings.extend(outages(story, kinds));
            }
        }
    }
    section.drawings.extend(kinds.iter().filter_map(|kind| time_line(story, kind)));
    section
}

/// What [`crate::results::Chart`] says of rows, said of systems.
fn fair<'a>(story: &Story<'_>, systems: impl IntoIterator<Item = &'a str>) -> Result<(), Unfair> {
    let mut subjects = systems.into_iter().filter_map(|name| story.subject(name));
    let Some(first) = subjects.next() else { return Ok(()) };
    match subjects.find(|subject| subject.promise != first.promise) {
        Some(other) => Err(Unfair::Promises {
            first: first.name.clone(),
            promise: first.promise,
            second: other.name.clone(),
            other: other.promise,
        }),
        None => Ok(()),
    }
}

fn kinds<'a>(story: &Story<'a>) -> Vec<Failures<'a>> {
    let mut kinds: Vec<(&str, &str, Vec<&Failover>)> = Vec::new();
    for failure in &story.results.failures {
        match kinds
            .iter_mut()
            .find(|kind| (kind.0, kind.1) == (failure.system.as_str(), failure.what.as_str()))
        {
            Some(kind) => kind.2.push(failure),
            None => kinds.push((&failure.system, &failure.what, vec![failure])),
        }
    }
    let mut kinds: Vec<Failures<'_>> = kinds
        .into_iter()
        .filter_map(|(system, what, rounds)| {
            let outage = median(rounds.iter().map(|round| micros(round.to_first_acknowledgement)))?;
            Some(Failures { system, what, rounds, outage })
        })
        .collect();
    kinds.sort_by_key(|kind| story.hue(kind.system).0);
    kinds
}

/// What became of acknowledged writes, in words.
fn losses(rounds: &[&Failover]) -> String {
    let lost: u64 = rounds.iter().map(|round| round.lost).sum();
    let all: u64 = rounds.iter().map(|round| round.acknowledged).sum();
    match lost {
        0 => format!("none of {} acknowledged writes lost", significant(all as f64)),
        lost => {
            format!("{} of {} acknowledged writes LOST", significant(lost as f64), significant(all as f64))
        }
    }
}

/// What was done, if it was the same for all of them: the words before the first comma, and that comma.
fn common(kinds: &[&Failures<'_>]) -> String {
    let act = |kind: &&Failures<'_>| kind.what.split_once(", ").map(|(act, _)| act.to_owned());
    let first = kinds.first().and_then(act);
    match first {
        Some(first) if kinds.iter().all(|kind| act(kind).as_ref() == Some(&first)) => format!("{first}, "),
        _ => String::new(),
    }
}

/// One bar for each kind, a ring for each time.
fn outages<'a, 'b: 'a>(
    story: &Story<'_>,
    kinds: impl IntoIterator<Item = &'a Failures<'b>>,
) -> Option<Drawing> {
    let kinds: Vec<&Failures<'_>> = kinds.into_iter().collect();
    let common = common(&kinds);
    let bars = kinds.iter().map(|kind| Bar {
        // What all have in common is in the title.
        label: format!("{}, {}, ×{}", kind.system, kind.what.trim_start_matches(&common), kind.rounds.len()),
        value: Unit::Micros.text(kind.outage.median),
        pieces: vec![Piece {
            class: story.hue(kind.system).class(),
            light: true,
            from: 0.0,
            to: kind.outage.median,
            words: format!(
                "median {} [{} – {}]; {}",
                Unit::Micros.text(kind.outage.median),
                Unit::Micros.text(kind.outage.low),
                Unit::Micros.text(kind.outage.high),
                losses(&kind.rounds)
            ),
        }],
        interval: None,
        strokes: vec![kind.outage.median],
        dots: kind
            .rounds
            .iter()
            .map(|round| {
                let value = micros(round.to_first_acknowledgement);
                (value, format!("no. {}: {}", round.round + 1, Unit::Micros.text(value)))
            })
            .collect(),
    });
    let bars: Vec<Bar> = bars.collect();
    let found: Vec<String> = kinds
        .iter()
        .map(|kind| {
            let what = kind.what.trim_start_matches(&common);
            format!("{} ({}, {what})", Unit::Micros.text(kind.outage.median), kind.system)
        })
        .collect();
    let promise = kinds.first().and_then(|kind| story.subject(kind.system)).map(|subject| subject.promise);
    let promise = promise.map_or_else(String::new, |promise| format!("{promise}: "));
    Bars {
        slug: slug(&format!("outages {}", promise.trim_end_matches(": "))),
        title: match common.trim_end_matches(", ") {
            "" => format!("Writes go on after {}", listed(&found)),
            act => format!("{}: writes go on after {}", upper(act), listed(&found)),
        },
        note: format!(
            "{promise}from the failure to the first acknowledged write after it; the stroke is the median, a ring is one time."
        ),
        axis: Axis::new("time without an acknowledged write", Unit::Micros, Kind::Linear),
        base: 0.0,
        bars,
        legend: Vec::new(),
    }
    .draw()
}

fn time_line(story: &Story<'_>, kind: &Failures<'_>) -> Option<Drawing> {
    let mut rounds = kind.rounds.clone();
    rounds.sort_by_key(|round| round.to_first_acknowledgement);
    let strips = rounds.iter().map(|round| Strip {
        label: format!("no. {}", round.round + 1),
        outage: round.to_first_acknowledgement.as_secs_f64(),
        alarm: (round.lost > 0).then(|| format!("{} LOST", round.lost)),
        buckets: round
            .line
            .iter()
            .map(|moment| Bucket { at: moment.at, length: moment.length, count: moment.operations })
            .collect(),
        events: round.events.clone(),
    });
    let strips: Vec<Strip> = strips.collect();
    let worst = rounds.last().map_or(0.0, |round| micros(round.to_first_acknowledgement));
    let promise =
        story.subject(kind.system).map_or_else(String::new, |subject| format!("{}, ", subject.promise));
    let piece = rounds.iter().flat_map(|round| &round.line).map(|moment| moment.length * 1e6).next();
    Strips {
        slug: slug(&format!("time-line {} {}", kind.system, kind.what)),
        title: format!(
            "{}, {} {} times: writes go on after {} (median), {} at worst; {}",
            kind.system,
            kind.what,
            rounds.len(),
            Unit::Micros.text(kind.outage.median),
            Unit::Micros.text(worst),
            losses(&rounds)
        ),
        note: format!(
            "{promise}acknowledged writes in each {}, all times aligned at the failure, the shortest outage first.",
            piece.map_or_else(|| "moment".into(), |length| Unit::Micros.tick(length))
        ),
        hue: story.hue(kind.system),
        strips,
    }
    .draw()
}

/// Restarts.
pub fn recovery(story: &Story<'_>) -> Section {
    let mut section = Section::new("restarts", "When a node starts again");
    let mut all: Vec<&Recovery> = story.results.recovery.iter().collect();
    all.sort_by_key(|found| (found.log_bytes, story.hue(&found.system).0));
    let bars = all.iter().map(|found| {
        let class = story.hue(&found.system).class();
        let (opened, served) = (micros(found.opened), micros(found.served));
        let speed = found.log_bytes as f64 / found.opened.as_secs_f64().max(1e-9);
        Bar {
            label: format!(
                "{}{}{}, {} of log, {} keys",
                found.system,
                if found.what.is_empty() { "" } else { ", " },
                found.what,
                Unit::Bytes.text(found.log_bytes as f64),
                Unit::Count.tick(found.keys as f64)
            ),
            value: Unit::Micros.text(served.max(opened)),
            pieces: vec![
                Piece {
                    class,
                    light: false,
                    from: 0.0,
                    to: opened,
                    words: format!(
                        "log read after {}, {} a second; {} of processor time in all",
                        Unit::Micros.text(opened),
                        Unit::Bytes.text(speed),
                        Unit::Micros.text(micros(found.cpu))
                    ),
                },
                Piece {
                    class,
                    light: true,
                    from: opened,
                    to: served.max(opened),
                    words: format!("serves after {}", Unit::Micros.text(served)),
                },
            ],
            interval: None,
            strokes: Vec::new(),
            dots: Vec::new(),
        }
    });
    let bars: Vec<Bar> = bars.collect();
    let largest = all.last().map(|found| {
        format!(
            "{} serves {} after its start with {} of log",
            found.system,
            Unit::Micros.text(micros(found.served)),
            Unit::Bytes.text(found.log_bytes as f64)
        )
    });
    section.drawings.extend(
        Bars {
            slug: "recovery".into(),
            title: largest.unwrap_or_default(),
            note: "From the start of the process; the file system’s cache is as the run left it.".into(),
            axis: Axis::new("time from the start of the process", Unit::Micros, Kind::Linear),
            base: 0.0,
            bars,
            legend: vec![
                Key::classed("plain", Swatch::Box, "until the log is read"),
                Key::classed("plain", Swatch::Light, "until it serves"),
            ],
        }
        .draw(),
    );
    section
}
