//! What a page shows, from results to drawings: each section is left out when the run has nothing for it.

mod failures;
mod latency;
mod processor;
mod quotients;
mod settings;

pub use quotients::{goal_words, standing, times};

use super::drawing::Drawing;
use super::story::Story;
use crate::results::{Chart, Unfair};

/// Drawings that belong together.
#[derive(Debug, Default)]
pub struct Section {
    /// Its place in the page.
    pub id: &'static str,
    /// Its heading.
    pub heading: &'static str,
    /// What was found.
    pub drawings: Vec<Drawing>,
    /// What was not drawn since it would not be fair.
    pub refused: Vec<Unfair>,
}

impl Section {
    fn new(id: &'static str, heading: &'static str) -> Self {
        Self { id, heading, ..Self::default() }
    }

    fn is_empty(&self) -> bool {
        self.drawings.is_empty() && self.refused.is_empty()
    }

    /// Draws rows in one chart if they may share one; else says why not, and draws each promise by itself.
    fn draw_fairly(
        &mut self,
        story: &Story<'_>,
        rows: &[usize],
        mut draw: impl FnMut(&Chart, &[usize]) -> Option<Drawing>,
    ) {
        match Chart::of(rows.iter().map(|row| story.row(*row))) {
            Ok(chart) => self.drawings.extend(draw(&chart, rows)),
            Err(Unfair::Empty) => {}
            Err(unfair) => {
                self.refuse(unfair);
                for rows in story.by_promise(rows) {
                    if let Ok(chart) = Chart::of(rows.iter().map(|row| story.row(*row))) {
                        self.drawings.extend(draw(&chart, &rows));
                    }
                }
            }
        }
    }

    /// Said once, however often it happened.
    fn refuse(&mut self, unfair: Unfair) {
        if !self.refused.contains(&unfair) {
            self.refused.push(unfair);
        }
    }
}

/// Every section that has something, in the order of the page.
pub fn all(story: &Story<'_>) -> Vec<Section> {
    let mut sections = vec![
        quotients::section(story),
        latency::section(story),
        processor::section(story),
        failures::section(story),
        failures::recovery(story),
        settings::section(story),
    ];
    sections.retain(|section| !section.is_empty());
    // Two drawings of one name would be one file.
    let mut seen = std::collections::BTreeSet::new();
    for drawing in sections.iter_mut().flat_map(|section| &mut section.drawings) {
        let first = drawing.slug.clone();
        let mut number = 2;
        while !seen.insert(drawing.slug.clone()) {
            drawing.slug = format!("{first}-{number}");
            number += 1;
        }
    }
    sections
}
