//! Lines over two axes: throughput against latency, percentiles, depth, sizes.

use super::drawing::{Drawing, Hue, Key, LETTERS, Px, Swatch, WIDTH, marker};
use super::scale::{Kind, Scale, Span};
use super::unit::{Unit, width};
use maud::{Markup, html};

/// One of the two axes.
#[derive(Clone, Debug)]
pub struct Axis {
    /// What it measures.
    pub label: String,
    /// In what.
    pub unit: Unit,
    /// How far apart values are.
    pub kind: Kind,
}

impl Axis {
    /// An axis.
    pub fn new(label: impl Into<String>, unit: Unit, kind: Kind) -> Self {
        Self { label: label.into(), unit, kind }
    }

    fn tick(&self, value: f64) -> String {
        match self.kind {
            Kind::Percentile => percentile_name(value),
            Kind::Linear | Kind::Log | Kind::Binary => self.unit.tick(value),
        }
    }
}

/// As people write it: `99.9 %`.
pub fn percentile_name(share: f64) -> String {
    let text = format!("{:.6}", share * 100.0);
    format!("{}\u{a0}%", text.trim_end_matches('0').trim_end_matches('.'))
}

/// A measurement on a line.
#[derive(Clone, Debug)]
pub struct Dot {
    /// Across.
    pub x: f64,
    /// Up.
    pub y: f64,
    /// Ends of the 95 % interval of `y`.
    pub interval: Option<(f64, f64)>,
    /// What it is, in words.
    pub words: String,
    /// Drawn as a ring: something about it is to be read in its words.
    pub hollow: bool,
}

/// What kind of line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stroke {
    /// With markers and intervals.
    Solid,
    /// The lesser of two of one colour.
    Dashed,
    /// A computed bound and no measurement.
    Bound,
}

/// One line.
#[derive(Clone, Debug)]
pub struct Line {
    /// What it shows.
    pub name: String,
    /// Its colour.
    pub hue: Hue,
    /// What kind.
    pub stroke: Stroke,
    /// In the order in which they are joined.
    pub dots: Vec<Dot>,
}

/// Lines and what to say of them.
#[derive(Clone, Debug)]
pub struct Lines {
    /// Name of the drawing's file.
    pub slug: String,
    /// What is seen.
    pub title: String,
    /// How to read it.
    pub note: String,
    /// Across.
    pub x: Axis,
    /// Up.
    pub y: Axis,
    /// The lines.
    pub lines: Vec<Line>,
}

const TOP: f64 = 24.0;
const TALL: f64 = 236.0;
const RIGHT: f64 = WIDTH - 12.0;

/// The two scales and the pixels they lie in.
struct Frame<'a> {
    x: Scale,
    y: Scale,
    left: f64,
    lines: &'a Lines,
}

impl Lines {
    /// Draws; `None` if no line has anything with a place on both axes.
    pub fn draw(&self) -> Option<Drawing> {
        let measured = || self.lines.iter().filter(|line| line.stroke != Stroke::Bound);
        let ups = measured().flat_map(|line| &line.dots).flat_map(|dot| {
            let (low, high) = dot.interval.unwrap_or((dot.y, dot.y));
            [dot.y, low, high]
        });
        // A bound that is far off must not press the measurements together.
        let highest = ups.clone().fold(0.0, f64::max);
        let bounds = self.lines.iter().filter(|line| line.stroke == Stroke::Bound);
        let near = bounds.flat_map(|line| &line.dots).map(|dot| dot.y).filter(|y| *y <= highest * 4.0);
        let y = Scale::over(self.y.kind, ups.chain(near), Span { from: TOP + TALL, to: TOP })?;
        let widest = y.ticks().iter().map(|tick| width(&self.y.tick(*tick), LETTERS)).fold(0.0, f64::max);
        let left = widest + 10.0;
        let across = measured().flat_map(|line| line.dots.iter().map(|dot| dot.x));
        let x = Scale::over(self.x.kind, across, Span { from: left, to: RIGHT })?;
        let frame = Frame { x, y, left, lines: self };
        if !measured().flat_map(|line| &line.dots).any(|dot| frame.place(dot.x, dot.y).is_some()) {
            return None;
        }
        let body = html! {
            (frame.axes())
            // The first line is ours and must not be hidden.
            @for line in self.lines.iter().rev() { (frame.line(line)) }
        };
        let legend = self.lines.iter().map(|line| {
            let swatch = match line.stroke {
                Stroke::Solid => Swatch::Line,
                Stroke::Dashed => Swatch::Dashed,
                Stroke::Bound => Swatch::Bound,
            };
            Key::of(line.hue, swatch, &line.name)
        });
        Some(Drawing {
            slug: self.slug.clone(),
            title: self.title.clone(),
            note: self.note.clone(),
            legend: legend.collect(),
            height: TOP + TALL + 44.0,
            body,
        })
    }
}

/// A line of an axis that runs across, with its name and where that goes.
pub struct Tick {
    /// Where the line is.
    pub at: f64,
    /// The name's middle and its letters, where there is room for it.
    pub name: Option<(f64, String)>,
}

/// Names that would run into each other are left out, from the left on.
pub fn ticks_across(scale: &Scale, named: impl Fn(f64) -> String) -> Vec<Tick> {
    let mut free = f64::NEG_INFINITY;
    let mut ticks = Vec::new();
    for &tick in scale.ticks() {
        let Some(at) = scale.at(tick) else { continue };
        let text = named(tick);
        let half = width(&text, LETTERS) / 2.0;
        let middle = at.min(WIDTH - half).max(half);
        let name = (middle - half > free).then_some((middle, text));
        if name.is_some() {
            free = middle + half + 6.0;
        }
        ticks.push(Tick { at, name });
    }
    ticks
}

impl Frame<'_> {
    fn place(&self, x: f64, y: f64) -> Option<(f64, f64)> {
        Some((self.x.at(x)?, self.y.at(y)?))
    }

    fn axes(&self) -> Markup {
        let bottom = TOP + TALL;
        let (left, lines) = (self.left, self.lines);
        let ticks = ticks_across(&self.x, |tick| lines.x.tick(tick));
        html! {
            text.soft x="0" y="11" { (lines.y.label) }
            @for &tick in self.y.ticks() {
                @if let Some(at) = self.y.at(tick) {
                    path.grid d=(format!("M{} {}H{}", Px(left), Px(at), Px(RIGHT))) {}
                    text.soft x=(Px(left - 7.0)) y=(Px(at + 4.0)) text-anchor="end" { (lines.y.tick(tick)) }
                }
            }
            @for Tick { at, name } in &ticks {
                path.grid d=(format!("M{} {}V{}", Px(*at), Px(TOP), Px(bottom + 4.0))) {}
                @if let Some((middle, text)) = name {
                    text.soft x=(Px(*middle)) y=(Px(bottom + 18.0)) text-anchor="middle" { (text) }
                }
            }
            path.axis d=(format!("M{} {}H{}", Px(left), Px(bottom), Px(RIGHT))) {}
            text.soft x=(Px(RIGHT)) y=(Px(bottom + 36.0)) text-anchor="end" { (lines.x.label) }
        }
    }

    fn line(&self, line: &Line) -> Markup {
        let placed: Vec<(f64, f64, &Dot)> =
            line.dots.iter().filter_map(|dot| self.place(dot.x, dot.y).map(|(x, y)| (x, y, dot))).collect();
        let mut path = String::new();
        let mut pen_down = false;
        for &(x, y, dot) in &placed {
            // A bound leaves the frame where it exceeds it.
            let inside = line.stroke != Stroke::Bound || (self.y.contains(dot.y) && self.x.contains(dot.x));
            if inside {
                path.push_str(&format!("{}{} {}", if pen_down { "L" } else { "M" }, Px(x), Px(y)));
            }
            pen_down = inside;
        }
        let class = match line.stroke {
            Stroke::Solid => "line",
            Stroke::Dashed => "line dashed",
            Stroke::Bound => "bound",
        };
        html! {
            g class=(line.hue.class()) {
                path class=(class) d=(if path.is_empty() { "M0 0" } else { &path }) {}
                @if line.stroke != Stroke::Bound {
                    @for &(x, y, dot) in &placed {
                        g {
                            title { (line.name) ": " (dot.words) }
                            @if let Some((low, high)) = dot.interval.and_then(|(low, high)| Some((self.y.at(low)?, self.y.at(high)?))) {
                                @if (low - high).abs() > 9.0 {
                                    path.whisker d=(format!("M{0} {1}V{2}M{3} {1}h6M{3} {2}h6", Px(x), Px(low), Px(high), Px(x - 3.0))) {}
                                }
                            }
                            @if dot.hollow {
                                (marker(line.hue, x, y, "hollow"))
                            } @else if line.stroke == Stroke::Solid {
                                (marker(line.hue, x, y, "mark"))
                            } @else {
                                circle.mark cx=(Px(x)) cy=(Px(y)) r="2.5" {}
                            }
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

    fn lines(kind: Kind, points: &[(f64, f64)]) -> Lines {
        let dot = |&(x, y): &(f64, f64)| Dot {
            x,
            y,
            interval: Some((y * 0.9, y * 1.1)),
            words: "<&>".into(),
            hollow: false,
        };
        Lines {
            slug: "test".into(),
            title: "A test".into(),
            note: String::new(),
            x: Axis::new("x", Unit::PerSecond, kind),
            y: Axis::new("y", Unit::Micros, Kind::Log),
            lines: vec![Line {
                name: "a & b".into(),
                hue: Hue(0),
                stroke: Stroke::Solid,
                dots: points.iter().map(dot).collect(),
            }],
        }
    }

    #[test]
    fn nothing_is_drawn_of_nothing() {
        assert!(lines(Kind::Log, &[]).draw().is_none());
        assert!(
            lines(Kind::Log, &[(0.0, 5.0), (f64::NAN, 1.0), (3.0, f64::INFINITY), (1.0, 0.0)])
                .draw()
                .is_none()
        );
    }

    #[test]
    fn one_point_and_extreme_points_are_drawn_inside_the_frame() {
        for points in [
            &[(5.0, 5.0)][..],
            &[(1e-6, 1e9), (1e9, 1e-6)],
            &[(1e9, 1e9)],
            &[(0.5, 3.0), (0.0, 1.0), (7.0, f64::NAN)],
        ] {
            for kind in [Kind::Linear, Kind::Log] {
                let drawing = lines(kind, points).draw().expect("something to draw");
                let text = drawing.standalone();
                let tree = roxmltree::Document::parse(&text).expect("well-formed");
                for circle in tree.descendants().filter(|node| node.has_tag_name("circle")) {
                    let at = |name| {
                        circle.attribute(name).and_then(|text| text.parse::<f64>().ok()).expect("a number")
                    };
                    assert!((0.0..=WIDTH).contains(&at("cx")) && (0.0..=drawing.height).contains(&at("cy")));
                }
            }
        }
    }

    #[test]
    fn names_on_an_axis_do_not_run_into_each_other() {
        let drawing = lines(Kind::Log, &[(1.0, 1.0), (1e9, 1e3)]).draw().expect("a drawing");
        let text = drawing.inline().into_string();
        let tree = roxmltree::Document::parse(&text).expect("well-formed");
        let mut ends: Vec<(f64, f64)> = tree
            .descendants()
            .filter(|node| node.attribute("text-anchor") == Some("middle"))
            .map(|node| {
                let x: f64 = node.attribute("x").and_then(|x| x.parse().ok()).expect("a number");
                let half = width(node.text().unwrap_or(""), LETTERS) / 2.0;
                (x - half, x + half)
            })
            .collect();
        ends.sort_by(|a, b| a.0.total_cmp(&b.0));
        assert!(ends.len() > 3 && ends.windows(2).all(|pair| pair[0].1 <= pair[1].0), "{ends:?}");
    }
}
