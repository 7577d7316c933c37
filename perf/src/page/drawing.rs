//! A finished drawing: what it says in words, what its colours mean, and the picture; inside a page or as a file.
//!
//! The markup is `maud`'s, which escapes everything that is put into it. The geometry is ours. `plotters` with its SVG
//! backend was tried and left: colours are written into every element as numbers, so a drawing is light or dark for
//! ever; there are no classes and no `<title>` elements to say what a point is; positions are whole pixels; and of the
//! drawings here it has but the lines, and everything else would be rectangles placed by hand all the same.

use super::unit::{clipped, width, wrap};
use maud::{Markup, PreEscaped, html};
use std::fmt;

/// Width of every drawing in its own pixels: readable when a phone shows it at three quarters of that.
pub const WIDTH: f64 = 480.0;
/// Size of the letters.
pub const LETTERS: f64 = 12.0;
/// What colours, letters and lines look like.
pub const STYLE: &str = include_str!("chart.css");

/// A position or a length in an attribute: a tenth of a pixel is as exact as anybody sees.
#[derive(Clone, Copy, Debug)]
pub struct Px(pub f64);

impl fmt::Display for Px {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        assert!(self.0.is_finite(), "every position is a number");
        let tenths = (self.0 * 10.0).round() / 10.0;
        // Without the sign of a zero.
        write!(f, "{}", if tenths == 0.0 { 0.0 } else { tenths })
    }
}

/// One of the colours that tell things apart; the seventh is the first again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hue(pub usize);

impl Hue {
    /// The name that the style knows it by.
    pub fn class(self) -> &'static str {
        ["s0", "s1", "s2", "s3", "s4", "s5"][self.0 % 6]
    }
}

/// How a thing looks in the legend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Swatch {
    /// A line with the marker of its colour.
    Line,
    /// A dotted line without markers.
    Dashed,
    /// A thin dashed line that is no measurement.
    Bound,
    /// A filled box.
    Box,
    /// A box of half the colour.
    Light,
    /// A stroke across.
    Stroke,
    /// A frame.
    Frame,
    /// A broken frame.
    Broken,
}

/// One line of a legend.
#[derive(Clone, Debug)]
pub struct Key {
    /// Its colour: a class of the style.
    pub class: &'static str,
    /// Which marker.
    pub hue: Hue,
    /// What it looks like.
    pub swatch: Swatch,
    /// What it means.
    pub text: String,
}

impl Key {
    /// In one of the colours.
    pub fn of(hue: Hue, swatch: Swatch, text: impl Into<String>) -> Self {
        Self { class: hue.class(), hue, swatch, text: text.into() }
    }

    /// In a colour that means something by itself: `good`, `bad`, `plain`.
    pub fn classed(class: &'static str, swatch: Swatch, text: impl Into<String>) -> Self {
        Self { class, hue: Hue(0), swatch, text: text.into() }
    }

    fn picture(&self, x: f64, y: f64) -> Markup {
        let (end, middle) = (x + 22.0, x + 11.0);
        let horizontal = format!("M{} {}H{}", Px(x), Px(y), Px(end));
        html! {
            g class=(self.class) {
                @match self.swatch {
                    Swatch::Line => {
                        path class="line" d=(horizontal) {}
                        (marker(self.hue, middle, y, "mark"))
                    }
                    Swatch::Dashed => { path class="line dashed" d=(horizontal) {} }
                    Swatch::Bound => { path class="bound" d=(horizontal) {} }
                    Swatch::Box => { rect class="bar" x=(Px(x + 5.0)) y=(Px(y - 6.0)) width="12" height="12" rx="2" {} }
                    Swatch::Light => { rect class="bar light" x=(Px(x + 5.0)) y=(Px(y - 6.0)) width="12" height="12" rx="2" {} }
                    Swatch::Stroke => { path class="goal" d=(format!("M{} {}v12", Px(middle), Px(y - 6.0))) {} }
                    Swatch::Frame => { rect class="best" x=(Px(x + 5.0)) y=(Px(y - 6.0)) width="12" height="12" {} }
                    Swatch::Broken => { rect class="chosen" x=(Px(x + 5.0)) y=(Px(y - 6.0)) width="12" height="12" {} }
                }
            }
        }
    }
}

/// A marker, in a shape of its colour's own: a black and white print still tells them apart.
pub fn marker(hue: Hue, x: f64, y: f64, class: &str) -> Markup {
    let at = |dx: f64, dy: f64| format!("{} {}", Px(x + dx), Px(y + dy));
    html! {
        @match hue.0 % 4 {
            0 => { circle class=(class) cx=(Px(x)) cy=(Px(y)) r="4" {} }
            1 => { rect class=(class) x=(Px(x - 3.7)) y=(Px(y - 3.7)) width="7.4" height="7.4" {} }
            2 => { path class=(class) d=(format!("M{}L{}L{}L{}Z", at(0.0, -5.2), at(5.2, 0.0), at(0.0, 5.2), at(-5.2, 0.0))) {} }
            _ => { path class=(class) d=(format!("M{}L{}L{}Z", at(0.0, -5.0), at(5.0, 4.0), at(-5.0, 4.0))) {} }
        }
    }
}

/// A picture with its words.
#[derive(Clone, Debug)]
pub struct Drawing {
    /// Name of its file and its place in the page; of letters, digits and dashes.
    pub slug: String,
    /// What is seen.
    pub title: String,
    /// What is drawn, in which units, how to read it.
    pub note: String,
    /// What the colours mean.
    pub legend: Vec<Key>,
    /// Height of the picture without its legend.
    pub height: f64,
    /// The picture.
    pub body: Markup,
}

/// Letters, digits and dashes of a text, lower case.
pub fn slug(text: &str) -> String {
    let mut out = String::new();
    for letter in text.chars() {
        if letter.is_ascii_alphanumeric() {
            out.push(letter.to_ascii_lowercase());
        } else if !out.is_empty() && !out.ends_with('-') {
            out.push('-');
        }
    }
    out.trim_end_matches('-').to_owned()
}

const LEGEND_LINE: f64 = 19.0;

impl Drawing {
    /// As part of a page, which has the style.
    pub fn inline(&self) -> Markup {
        let (legend, top) = self.legend();
        html! {
            svg.chart xmlns="http://www.w3.org/2000/svg" viewBox=(view_box(top + self.height)) role="img" aria-label=(self.title) {
                (legend)
                g transform=(format!("translate(0 {})", Px(top))) { (self.body) }
            }
        }
    }

    /// As a file of its own, with title, note, style and a background.
    pub fn standalone(&self) -> String {
        const MARGIN: f64 = 14.0;
        let title = wrap(&self.title, 17.0, WIDTH);
        let note = wrap(&self.note, LETTERS, WIDTH);
        let note_top = 20.0 * title.len() as f64 + 2.0;
        let top = note_top + 16.0 * note.len() as f64 + 10.0;
        let (legend, legend_height) = self.legend();
        let (w, h) = (WIDTH + 2.0 * MARGIN, top + legend_height + self.height + 2.0 * MARGIN);
        let picture = html! {
            svg.chart xmlns="http://www.w3.org/2000/svg" viewBox=(format!("0 0 {} {}", Px(w), Px(h))) width=(Px(w)) height=(Px(h)) role="img" aria-label=(self.title) {
                style { (PreEscaped(STYLE)) }
                rect.paper width=(Px(w)) height=(Px(h)) rx="6" {}
                g transform=(format!("translate({0} {0})", Px(MARGIN))) {
                    @for (number, line) in title.iter().enumerate() {
                        text.head x="0" y=(Px(15.0 + 20.0 * number as f64)) { (line) }
                    }
                    @for (number, line) in note.iter().enumerate() {
                        text.soft x="0" y=(Px(note_top + 12.0 + 16.0 * number as f64)) { (line) }
                    }
                    g transform=(format!("translate(0 {})", Px(top))) {
                        (legend)
                        g transform=(format!("translate(0 {})", Px(legend_height))) { (self.body) }
                    }
                }
            }
        };
        picture.into_string()
    }

    /// The legend over the picture, and its height.
    fn legend(&self) -> (Markup, f64) {
        let (mut x, mut y) = (0.0, 10.0);
        let mut keys = Vec::new();
        for key in &self.legend {
            let text = clipped(&key.text, LETTERS, WIDTH - 30.0);
            let long = 28.0 + width(&text, LETTERS) + 14.0;
            if x > 0.0 && x + long > WIDTH + 14.0 {
                (x, y) = (0.0, y + LEGEND_LINE);
            }
            keys.push(html! {
                (key.picture(x, y))
                text x=(Px(x + 28.0)) y=(Px(y + 4.0)) { (text) }
            });
            x += long;
        }
        let height = if keys.is_empty() { 0.0 } else { y + LEGEND_LINE };
        (html! { g { @for key in &keys { (key) } } }, height)
    }
}

fn view_box(height: f64) -> String {
    format!("0 0 {} {}", Px(WIDTH), Px(height))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_in_is_escaped_and_the_file_is_well_formed() {
        let drawing = Drawing {
            slug: slug("W2: <b>&'\" put"),
            title: "</title><script>alert(1)</script> & \"more\"".into(),
            note: "a < b & c > d".into(),
            legend: vec![
                Key::of(Hue(0), Swatch::Line, "<i>etcd</i>"),
                Key::of(
                    Hue(9),
                    Swatch::Box,
                    "a legend of a name so long that it cannot fit into the width of one line of a drawing at all",
                ),
            ],
            height: 20.0,
            body: html! { g { title { "]]> & <x>" } } },
        };
        assert_eq!(drawing.slug, "w2-b-put");
        let text = drawing.standalone();
        let tree = roxmltree::Document::parse(&text).expect("well-formed");
        assert!(!tree.descendants().any(|node| node.has_tag_name("script") || node.has_tag_name("i")));
        assert!(tree.descendants().any(|node| node.text() == Some("<i>etcd</i>")));
        roxmltree::Document::parse(&drawing.inline().into_string()).expect("well-formed");
    }

    #[test]
    fn positions_are_short() {
        assert_eq!([12.34, -0.01, 100.0, 0.05].map(|x| Px(x).to_string()), ["12.3", "0", "100", "0.1"]);
    }
}
