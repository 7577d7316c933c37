//! The page of a run: one HTML file that needs nothing but itself, and its drawings as single SVG files.
//!
//! Everything in it is made from [`Results`] alone, so a page can be drawn again from the raw JSON of a run (`perf report`),
//! by somebody who does not trust how it was drawn the first time. What was lost comes first. Systems that promise
//! different things never share a drawing: [`crate::results::Chart`] is the only way to put rows side by side here, and
//! what it refuses is said on the page instead of drawn.

mod bars;
mod command;
mod document;
mod drawing;
mod heat;
mod lines;
mod scale;
mod sections;
mod story;
mod strips;
mod tables;
mod unit;

#[cfg(test)]
mod fixture;
#[cfg(test)]
mod tests;

pub use command::{Options, run};

use crate::results::Results;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use story::Story;
use thiserror::Error;

/// Why there is no page.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be read.
    #[error("reading {}: {source}", .path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
    /// A file or directory could not be written.
    #[error("writing {}: {source}", .path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
    /// The file is no result of this harness.
    #[error("{} holds no results of this harness ({reason}): give it a file that was written with --json", .path.display())]
    NotOurs {
        /// Which.
        path: PathBuf,
        /// What was missing or wrong.
        reason: String,
    },
    /// The file is ours, and of a harness that this one does not know.
    #[error("{} is in format {found}, and this harness reads format {known}: use the harness of the commit that wrote it", .path.display())]
    Format {
        /// Which.
        path: PathBuf,
        /// What it says.
        found: u64,
        /// What is known here.
        known: u32,
    },
    /// Nothing was asked for.
    #[error("nothing to write: say --html, --svg-dir or both")]
    Nothing,
}

/// Writes the page of a run.
///
/// # Errors
/// [`Error::Write`].
pub fn write(results: &Results, path: &Path) -> Result<(), Error> {
    put(path, &document::page(&Story::new(results)))
}

/// Writes every drawing of a run as a file of its own and says which.
///
/// # Errors
/// [`Error::Write`].
pub fn write_drawings(results: &Results, directory: &Path) -> Result<Vec<PathBuf>, Error> {
    fs::create_dir_all(directory).map_err(|source| Error::Write { path: directory.to_owned(), source })?;
    let story = Story::new(results);
    let mut written = Vec::new();
    for drawing in sections::all(&story).iter().flat_map(|section| &section.drawings) {
        let path = directory.join(format!("{}.svg", drawing.slug));
        put(&path, &drawing.standalone())?;
        written.push(path);
    }
    Ok(written)
}

fn put(path: &Path, text: &str) -> Result<(), Error> {
    let in_directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    in_directory
        .map_or(Ok(()), fs::create_dir_all)
        .and_then(|()| fs::write(path, text))
        .map_err(|source| Error::Write { path: path.to_owned(), source })
}
