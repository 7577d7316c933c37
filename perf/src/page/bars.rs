//! Bars, each under its own name, so that long names and narrow pages go together: quotients with their intervals,
//! times put on top of each other, goals.

use super::drawing::{Drawing, Key, LETTERS, Px, WIDTH};
use super::lines::{Axis, Tick, ticks_across};
use super::scale::{Scale, Span};
use super::unit::{clipped, width};
use maud::{Markup, html};

/// A piece of a bar.
#[derive(Clone, Debug)]
pub struct Piece {
    /// Its colour.
    pub class: &'static str,
    /// In half the colour.
    pub light: bool,
    /// Where it begins.
    pub from: f64,
    /// Where it ends, on either side.
    pub to: f64,
    /// What it is, in words.
    pub words: String,
}

/// One bar.
#[derive(Clone, Debug)]
pub struct Bar {
    /// What it belongs to.
    pub label: String,
    /// Its value in words, at the end of the line.
    pub value: String,
    /// What it is made of.
    pub pieces: Vec<Piece>,
    /// A 95 % interval.
    pub interval: Option<(f64, f64)>,
    /// Where a stroke goes across.
    pub strokes: Vec<f64>,
    /// Single measurements.
    pub dots: Vec<(f64, String)>,
}

/// Bars over one axis, and what to say of them.
#[derive(Clone, Debug)]
pub struct Bars {
    /// Name of the drawing's file.
    pub slug: String,
    /// What is seen.
    pub title: String,
    /// How to read it.
    pub note: String,
    /// The axis.
    pub axis: Axis,
    /// Where all bars begin.
    pub base: f64,
    /// From the top.
    pub bars: Vec<Bar>,
    /// What colours mean.
    pub legend: Vec<Key>,
}

const EACH: f64 = 37.0;
const THICK: f64 = 12.0;
const LEFT: f64 = 2.0;
const RIGHT: f64 = WIDTH - 8.0;
const TOP: f64 = 4.0;

impl Bars {
    /// Draws; `None` if there is no bar with a place on the axis.
    pub fn draw(&self) -> Option<Drawing> {
        let values = self.bars.iter().flat_map(|bar| {
            let pieces = bar.pieces.iter().flat_map(|piece| [piece.from, piece.to]);
            let ends = bar.interval.into_iter().flat_map(|(low, high)| [low, high]);
            pieces.chain(ends).chain(bar.strokes.iter().copied()).chain(bar.dots.iter().map(|dot| dot.0))
        });
        let mut values = values.peekable();
        values.peek()?;
        let scale = Scale::over(self.axis.kind, values.chain([self.base]), Span { from: LEFT, to: RIGHT })?;
        let bottom = TOP + EACH * self.bars.len() as f64 + 2.0;
        let body = html! {
            (self.axis_at(&scale, bottom))
            @for (number, bar) in self.bars.iter().enumerate() {
                (self.bar(&scale, bar, TOP + EACH * number as f64))
            }
        };
        Some(Drawing {
            slug: self.slug.clone(),
            title: self.title.clone(),
            note: self.note.clone(),
            legend: self.legend.clone(),
            height: bottom + 40.0,
            body,
        })
    }

    fn axis_at(&self, scale: &Scale, bottom: f64) -> Markup {
        let ticks = ticks_across(scale, |tick| self.axis.unit.tick(tick));
        html! {
            @for Tick { at, name } in &ticks {
                path.grid d=(self.bands(*at)) {}
                @if let Some((middle, text)) = name {
                    text.soft x=(Px(*middle)) y=(Px(bottom + 15.0)) text-anchor="middle" { (text) }
                }
            }
            @if let Some(base) = scale.at(self.base) {
                path.axis d=(self.bands(base)) {}
            }
            text.soft x=(Px(RIGHT)) y=(Px(bottom + 33.0)) text-anchor="end" { (self.axis.label) }
        }
    }

    /// A line down through the bars that leaves the names between them alone.
    fn bands(&self, x: f64) -> String {
        let tops = (0..self.bars.len()).map(|number| TOP + EACH * number as f64 + 15.0);
        tops.map(|top| format!("M{} {}v{}", Px(x), Px(top), Px(THICK + 6.0))).collect()
    }

    fn bar(&self, scale: &Scale, bar: &Bar, top: f64) -> Markup {
        let room = WIDTH - width(&bar.value, LETTERS) - 14.0;
        let (upper, middle) = (top + 18.0, top + 18.0 + THICK / 2.0);
        html! {
            g {
                text.halo x="0" y=(Px(top + 12.0)) { (clipped(&bar.label, LETTERS, room)) }
                text.halo.strong x=(Px(WIDTH)) y=(Px(top + 12.0)) text-anchor="end" { (bar.value) }
                @for piece in &bar.pieces {
                    @if let Some((from, to)) = scale.at(piece.from).and_then(|from| Some((from, scale.at(piece.to)?))) {
                        g class=(piece.class) {
                            title { (bar.label) ": " (piece.words) }
                            rect class=(if piece.light { "bar light" } else { "bar" })
                                x=(Px(from.min(to))) y=(Px(upper)) width=(Px((to - from).abs().max(1.0))) height=(Px(THICK)) {}
                        }
                    }
                }
                @if let Some((low, high)) = bar.interval.and_then(|(low, high)| Some((scale.at(low)?, scale.at(high)?))) {
                    path.over d=(format!("M{0} {2}H{1}M{0} {3}v8M{1} {3}v8", Px(low), Px(high), Px(middle), Px(middle - 4.0))) {}
                }
                @for (value, words) in &bar.dots {
                    @if let Some(at) = scale.at(*value) {
                        g class=(bar.pieces.first().map_or("plain", |piece| piece.class)) {
                            title { (bar.label) ": " (words) }
                            circle.hollow cx=(Px(at)) cy=(Px(middle)) r="3.5" {}
                        }
                    }
                }
                @for stroke in &bar.strokes {
                    @if let Some(at) = scale.at(*stroke) {
                        path.goal d=(format!("M{} {}v{}", Px(at), Px(upper - 3.0), Px(THICK + 6.0))) {}
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::drawing::{Hue, Swatch};
    use super::super::scale::Kind;
    use super::super::unit::Unit;
    use super::*;

    fn bars(kind: Kind, values: &[f64]) -> Bars {
        let piece = |to| Piece { class: Hue(0).class(), light: false, from: 1.0, to, words: "<ours>".into() };
        let bar = |&value: &f64| {
            Bar {
            label: "fsync-quorum put, 1000 in flight, with a name that is much too long for the width & room of one line".into(),
            value: Unit::Times.text(value),
            pieces: vec![piece(value)],
            interval: Some((value * 0.9, value * 1.2)),
            strokes: vec![25.0],
            dots: vec![(value, "round 1".into())],
        }
        };
        Bars {
            slug: "ratios".into(),
            title: "A test".into(),
            note: String::new(),
            axis: Axis::new("times", Unit::Times, kind),
            base: 1.0,
            bars: values.iter().map(bar).collect(),
            legend: vec![Key::classed("good", Swatch::Box, "better")],
        }
    }

    #[test]
    fn bars_go_to_both_sides_of_their_beginning() {
        let drawing = bars(Kind::Log, &[0.5, 4.0]).draw().expect("a drawing");
        let text = drawing.standalone();
        let tree = roxmltree::Document::parse(&text).expect("well-formed");
        let number = |node: &roxmltree::Node<'_, '_>, name| -> f64 {
            node.attribute(name).and_then(|text| text.parse().ok()).expect("a number")
        };
        let pieces: Vec<_> = tree
            .descendants()
            .filter(|node| {
                node.has_tag_name("rect")
                    && node.attribute("class") == Some("bar")
                    && node.attribute("rx").is_none()
            })
            .collect();
        assert_eq!(pieces.len(), 2);
        let end_of_loss = number(&pieces[0], "x") + number(&pieces[0], "width");
        assert!((end_of_loss - number(&pieces[1], "x")).abs() < 0.2, "both begin at one");
        assert!(
            number(&pieces[1], "width") > 1.9 * number(&pieces[0], "width"),
            "four is twice as far from one as a half"
        );
    }

    #[test]
    fn extreme_values_are_drawn_and_nothing_is_not() {
        assert!(bars(Kind::Log, &[]).draw().is_none());
        for values in [&[1.0][..], &[0.0, 1e9], &[1e-9, 1e9], &[f64::NAN, f64::INFINITY, 2.0]] {
            for kind in [Kind::Linear, Kind::Log] {
                let drawing = bars(kind, values).draw().expect("a drawing");
                roxmltree::Document::parse(&drawing.standalone()).expect("well-formed");
            }
        }
    }
}
