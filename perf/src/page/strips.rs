//! What a failure looks like: one strip of acknowledged writes for every time it happened, all aligned at the moment it
//! did, the outage marked.

use super::drawing::{Drawing, Hue, Key, LETTERS, Px, Swatch, WIDTH};
use super::scale::{Scale, Span};
use super::unit::{Unit, clipped, significant, width};
use maud::{Markup, html};

/// Acknowledged writes of a short time.
#[derive(Clone, Copy, Debug)]
pub struct Bucket {
    /// Its beginning in seconds from the failure.
    pub at: f64,
    /// Its length in seconds.
    pub length: f64,
    /// Writes acknowledged in it.
    pub count: u64,
}

/// One failure.
#[derive(Clone, Debug)]
pub struct Strip {
    /// Which one.
    pub label: String,
    /// Until the first acknowledged write, in seconds.
    pub outage: f64,
    /// What must be seen at once, such as lost writes.
    pub alarm: Option<String>,
    /// The time line.
    pub buckets: Vec<Bucket>,
    /// What happened when, in seconds.
    pub events: Vec<(f64, String)>,
}

/// All failures of one kind.
#[derive(Clone, Debug)]
pub struct Strips {
    /// Name of the drawing's file.
    pub slug: String,
    /// What is seen.
    pub title: String,
    /// How to read it.
    pub note: String,
    /// Colour of the system.
    pub hue: Hue,
    /// From the top.
    pub strips: Vec<Strip>,
}

const EACH: f64 = 30.0;
const TALL: f64 = 25.0;
const TOP: f64 = 4.0;

impl Strips {
    /// Draws; `None` without a strip that has a time line.
    pub fn draw(&self) -> Option<Drawing> {
        let buckets = || {
            self.strips.iter().flat_map(|strip| &strip.buckets).filter(|b| b.at.is_finite() && b.length > 0.0)
        };
        let outages = self.strips.iter().map(|strip| strip.outage).filter(|outage| outage.is_finite());
        let longest = outages.fold(0.0, f64::max);
        let ends = buckets().map(|bucket| bucket.at + bucket.length).fold(f64::NEG_INFINITY, f64::max);
        let begins = buckets().map(|bucket| bucket.at).fold(f64::INFINITY, f64::min);
        if ends <= begins {
            return None;
        }
        // Around the failure, and not all the load before and after.
        let (from, to) =
            (begins.max(-0.6 * longest - 0.05), ends.min(2.2 * longest + 0.1).max(begins + 1e-3));
        let label =
            self.strips.iter().map(|strip| width(&strip.label, LETTERS)).fold(0.0, f64::max).min(90.0);
        let value = self.strips.iter().map(|strip| width(&strip.value(), LETTERS) * 1.08).fold(0.0, f64::max);
        let (left, right) = (label + 8.0, WIDTH - value.min(200.0) - 8.0);
        let x = Scale::between(from * 1e6, to * 1e6, Span { from: left, to: right })?;
        let seen = |bucket: &&Bucket| bucket.at + bucket.length > from && bucket.at < to;
        let highest = buckets().filter(seen).map(Bucket::rate).fold(0.0, f64::max);
        let bottom = TOP + EACH * self.strips.len() as f64;
        let field = Field { x, left, right, from, to, highest, class: self.hue.class() };
        let body = html! {
            @for &tick in field.x.ticks() {
                @if let Some(at) = field.x.at(tick) {
                    path.grid d=(format!("M{} {}V{}", Px(at), Px(TOP), Px(bottom))) {}
                    text.soft x=(Px(at)) y=(Px(bottom + 15.0)) text-anchor="middle" { (Unit::Micros.tick(tick).replace('-', "−")) }
                }
            }
            @for (number, each) in self.strips.iter().enumerate() { (field.strip(each, TOP + EACH * number as f64)) }
            @if let Some(zero) = field.place(0.0) {
                path.goal d=(format!("M{} {}V{}", Px(zero), Px(TOP), Px(bottom))) {}
            }
            text.soft x=(Px(WIDTH)) y=(Px(bottom + 33.0)) text-anchor="end" {
                "time from the failure; height of a strip " (significant(highest)) " acknowledged writes/s"
            }
        };
        Some(Drawing {
            slug: self.slug.clone(),
            title: self.title.clone(),
            note: self.note.clone(),
            legend: vec![
                Key::of(self.hue, Swatch::Box, "acknowledged writes"),
                Key::classed("bad", Swatch::Light, "outage"),
                Key::classed("plain", Swatch::Stroke, "the failure"),
            ],
            height: bottom + 40.0,
            body,
        })
    }
}

impl Bucket {
    fn rate(&self) -> f64 {
        self.count as f64 / self.length
    }
}

impl Strip {
    /// What stands at its end.
    fn value(&self) -> String {
        let outage = Unit::Micros.text(self.outage * 1e6);
        self.alarm.as_ref().map_or_else(|| outage.clone(), |alarm| format!("{outage}, {alarm}"))
    }
}

/// Where strips lie.
struct Field {
    x: Scale,
    left: f64,
    right: f64,
    from: f64,
    to: f64,
    highest: f64,
    class: &'static str,
}

impl Field {
    fn place(&self, seconds: f64) -> Option<f64> {
        self.x.at(seconds * 1e6)
    }

    /// The outline of what was acknowledged: one path, for there may be hundreds of buckets.
    fn outline(&self, strip: &Strip, base: f64) -> String {
        let seen = strip.buckets.iter().filter(|bucket| {
            bucket.length > 0.0
                && bucket.count > 0
                && bucket.at + bucket.length > self.from
                && bucket.at < self.to
        });
        let mut path = String::new();
        for bucket in seen {
            let ends = (self.place(bucket.at), self.place(bucket.at + bucket.length));
            let (Some(from), Some(to)) = ends else { continue };
            let tall = (TALL * bucket.rate() / self.highest.max(1e-9)).max(1.0);
            // A gap between buckets where there is room for one.
            let wide = if to - from > 3.0 { to - from - 0.6 } else { to - from };
            path.push_str(&format!("M{} {}v-{2}h{3}v{2}z", Px(from), Px(base), Px(tall), Px(wide)));
        }
        path
    }

    fn strip(&self, strip: &Strip, top: f64) -> Markup {
        let base = top + TALL;
        let outage = if strip.outage.is_finite() {
            self.place(0.0).and_then(|begin| Some((begin, self.place(strip.outage)?)))
        } else {
            None
        };
        let outline = self.outline(strip, base);
        html! {
            text x="0" y=(Px(base - 7.0)) { (clipped(&strip.label, LETTERS, 90.0)) }
            path.grid d=(format!("M{} {}H{}", Px(self.left), Px(base), Px(self.right))) {}
            @if let Some((begin, end)) = outage {
                g.bad {
                    title { (strip.label) ": no acknowledged write for " (Unit::Micros.text(strip.outage * 1e6)) }
                    rect.bar.faint x=(Px(begin)) y=(Px(top)) width=(Px((end - begin).max(1.0))) height=(Px(TALL)) {}
                }
            }
            @if !outline.is_empty() {
                g class=(self.class) { path.bar d=(outline) {} }
            }
            @for (at, words) in &strip.events {
                @if let Some(x) = self.place(*at).filter(|_| *at > self.from && *at < self.to) {
                    g {
                        title { (strip.label) ", " (Unit::Micros.text(at * 1e6)) " after the failure: " (words) }
                        path.axis d=(format!("M{0} {1}v5M{0} {2}v-5", Px(x), Px(top), Px(base))) {}
                    }
                }
            }
            g class=(if strip.alarm.is_some() { "bad" } else { "" }) {
                text.strong.alarm[strip.alarm.is_some()] x=(Px(WIDTH)) y=(Px(base - 7.0)) text-anchor="end" { (strip.value()) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strips(outages: &[f64], count: u64) -> Strips {
        let strip = |&outage: &f64| Strip {
            label: "kill <1>".into(),
            outage,
            alarm: Some("3 lost & gone".into()),
            buckets: (-20_i32..60)
                .map(|step| f64::from(step) * 0.01)
                .filter(|at| *at < 0.0 || *at >= outage)
                .map(|at| Bucket { at, length: 0.01, count })
                .collect(),
            events: vec![(outage / 2.0, "node 2 leads".into())],
        };
        Strips {
            slug: "kills".into(),
            title: "Kills".into(),
            note: String::new(),
            hue: Hue(0),
            strips: outages.iter().map(strip).collect(),
        }
    }

    #[test]
    fn the_outage_is_marked_from_the_failure_to_the_first_write() {
        let text = strips(&[0.2], 100).draw().expect("a drawing").standalone();
        let tree = roxmltree::Document::parse(&text).expect("well-formed");
        let of_class = |class: &'static str| {
            tree.descendants()
                .filter(move |node| node.attribute("class") == Some(class) && node.attribute("rx").is_none())
        };
        let number = |node: roxmltree::Node<'_, '_>, name| -> f64 {
            node.attribute(name).and_then(|text| text.parse().ok()).expect("a number")
        };
        let outage = of_class("bar faint").next().expect("an outage");
        let (begin, end) = (number(outage, "x"), number(outage, "x") + number(outage, "width"));
        let outline = of_class("bar").filter_map(|node| node.attribute("d")).next().expect("an outline");
        let starts: Vec<f64> =
            outline.split('M').filter_map(|piece| piece.split(' ').next()?.parse().ok()).collect();
        assert!(starts.len() > 30, "{starts:?}");
        let inside = starts.iter().filter(|start| **start > begin + 0.2 && **start < end - 0.2);
        assert_eq!(inside.count(), 0, "nothing was acknowledged in the outage");
        assert!(text.contains("3 lost &amp; gone"));
    }

    #[test]
    fn extreme_values_are_drawn_and_nothing_is_not() {
        assert!(strips(&[], 1).draw().is_none());
        assert!(
            Strips {
                strips: vec![Strip { buckets: Vec::new(), ..strips(&[0.1], 1).strips.remove(0) }],
                ..strips(&[], 1)
            }
            .draw()
            .is_none()
        );
        for outage in [0.0, 1e-6, 0.3, 1e9, f64::NAN, f64::INFINITY] {
            for count in [0, 1, 1_000_000_000] {
                let drawing = strips(&[outage, 0.1], count).draw().expect("a drawing");
                roxmltree::Document::parse(&drawing.standalone()).expect("well-formed");
            }
        }
    }
}
