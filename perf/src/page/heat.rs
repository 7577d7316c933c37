//! Two settings against each other: a cell for each pair, the better the darker.

use super::drawing::{Drawing, Hue, Key, LETTERS, Px, Swatch, WIDTH};
use super::unit::{Unit, width};
use maud::html;

/// A pair of settings and what it gave.
#[derive(Clone, Debug)]
pub struct Cell {
    /// Position across.
    pub column: usize,
    /// Position down.
    pub row: usize,
    /// What it gave.
    pub value: f64,
    /// What it is, in words.
    pub words: String,
    /// The best one.
    pub best: bool,
    /// The one that the engine chose.
    pub chosen: bool,
}

/// A field of cells and what to say of it.
#[derive(Clone, Debug)]
pub struct Heat {
    /// Name of the drawing's file.
    pub slug: String,
    /// What is seen.
    pub title: String,
    /// How to read it.
    pub note: String,
    /// What varies across, and its values.
    pub across: (String, Vec<String>),
    /// What varies down, and its values.
    pub down: (String, Vec<String>),
    /// In what the cells are.
    pub unit: Unit,
    /// Whether more of it is better: the better, the darker.
    pub more_is_better: bool,
    /// The cells.
    pub cells: Vec<Cell>,
}

const TALL: f64 = 34.0;
const TOP: f64 = 24.0;

impl Heat {
    /// Draws; `None` without a cell.
    pub fn draw(&self) -> Option<Drawing> {
        let inside = |cell: &&Cell| {
            cell.value.is_finite() && cell.column < self.across.1.len() && cell.row < self.down.1.len()
        };
        let cells: Vec<&Cell> = self.cells.iter().filter(inside).collect();
        let most = cells.iter().map(|cell| cell.value).fold(f64::NEG_INFINITY, f64::max);
        let least = cells.iter().map(|cell| cell.value).fold(f64::INFINITY, f64::min);
        if cells.is_empty() {
            return None;
        }
        let left = self.down.1.iter().map(|name| width(name, LETTERS)).fold(0.0, f64::max).min(120.0) + 8.0;
        let wide = (WIDTH - left) / self.across.1.len() as f64;
        let bottom = TOP + TALL * self.down.1.len() as f64;
        let share = |value: f64| match (most > least, self.more_is_better) {
            (false, _) => 1.0,
            (true, true) => (value - least) / (most - least),
            (true, false) => (most - value) / (most - least),
        };
        let shade = |value: f64| 0.06 + 0.54 * share(value);
        let (best, chosen) = (cells.iter().any(|cell| cell.best), cells.iter().any(|cell| cell.chosen));
        let fits = |text: &str| width(text, LETTERS) < wide - 2.0;
        let body = html! {
            text.soft x="0" y="11" { (self.down.0) }
            @for (number, name) in self.down.1.iter().enumerate() {
                text.soft x=(Px(left - 7.0)) y=(Px(TOP + TALL * (number as f64 + 0.5) + 4.0)) text-anchor="end" { (name) }
            }
            @for (number, name) in self.across.1.iter().enumerate() {
                text.soft x=(Px(left + wide * (number as f64 + 0.5))) y=(Px(bottom + 17.0)) text-anchor="middle" { (name) }
            }
            @for cell in &cells {
                @let (x, y) = (left + wide * cell.column as f64, TOP + TALL * cell.row as f64);
                @let text = self.unit.text(cell.value);
                g {
                    title { (cell.words) }
                    rect.cell x=(Px(x)) y=(Px(y)) width=(Px(wide)) height=(Px(TALL)) style=(format!("fill-opacity:{:.2}", shade(cell.value))) {}
                    @if fits(&text) {
                        text x=(Px(x + wide / 2.0)) y=(Px(y + TALL / 2.0 + 4.0)) text-anchor="middle" { (text) }
                    }
                }
            }
            // Frames lie above every cell.
            @for cell in &cells {
                @let (x, y) = (left + wide * cell.column as f64, TOP + TALL * cell.row as f64);
                @if cell.best {
                    rect.best x=(Px(x + 1.5)) y=(Px(y + 1.5)) width=(Px(wide - 3.0)) height=(Px(TALL - 3.0)) {}
                }
                @if cell.chosen {
                    rect.chosen x=(Px(x + 4.5)) y=(Px(y + 4.5)) width=(Px((wide - 9.0).max(1.0))) height=(Px(TALL - 9.0)) {}
                }
            }
            text.soft x=(Px(WIDTH)) y=(Px(bottom + 36.0)) text-anchor="end" { (self.across.0) }
        };
        let mut legend = Vec::new();
        if best {
            legend.push(Key::of(Hue(0), Swatch::Frame, "best"));
        }
        if chosen {
            legend.push(Key::of(Hue(0), Swatch::Broken, "chosen by the engine"));
        }
        Some(Drawing {
            slug: self.slug.clone(),
            title: self.title.clone(),
            note: self.note.clone(),
            legend,
            height: bottom + 44.0,
            body,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heat(values: &[f64]) -> Heat {
        let cell = |(number, &value): (usize, &f64)| Cell {
            column: number % 3,
            row: number / 3,
            value,
            words: "64 KiB & 2".into(),
            best: number == 0,
            chosen: number == 1,
        };
        Heat {
            slug: "sweep".into(),
            title: "A sweep".into(),
            note: String::new(),
            across: ("bytes".into(), ["16", "<32>", "64"].map(String::from).to_vec()),
            down: ("batches".into(), ["1", "2"].map(String::from).to_vec()),
            unit: Unit::PerSecond,
            more_is_better: values.len() != 1,
            cells: values.iter().enumerate().map(cell).collect(),
        }
    }

    #[test]
    fn the_best_and_the_chosen_cell_are_framed() {
        let text = heat(&[9.0, 5.0, 3.0]).draw().expect("a drawing").standalone();
        let tree = roxmltree::Document::parse(&text).expect("well-formed");
        let frames = |class| tree.descendants().filter(|node| node.attribute("class") == Some(class)).count();
        // One in the legend, one in the picture.
        assert_eq!((frames("best"), frames("chosen"), frames("cell")), (2, 2, 3));
    }

    #[test]
    fn extreme_values_are_drawn_and_nothing_is_not() {
        assert!(heat(&[]).draw().is_none());
        assert!(heat(&[f64::NAN]).draw().is_none());
        for values in [&[0.0][..], &[5.0, 5.0], &[0.0, 1e9], &[1.0; 30]] {
            roxmltree::Document::parse(&heat(values).draw().expect("a drawing").standalone())
                .expect("well-formed");
        }
    }
}
