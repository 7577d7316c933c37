//! `perf report`: a page and single drawings from the raw JSON of an earlier run.

use super::{Error, write, write_drawings};
use crate::results::{FORMAT, Results};
use serde_json::Value;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// What may be chosen.
#[derive(clap::Args, Debug)]
pub struct Options {
    /// Results of an earlier run, as written with --json.
    results: PathBuf,
    /// Where to write the page.
    #[arg(long)]
    html: Option<PathBuf>,
    /// Where to write every drawing as an SVG file of its own.
    #[arg(long)]
    svg_dir: Option<PathBuf>,
}

/// Draws.
///
/// # Errors
/// See [`enum@Error`].
pub fn run(options: &Options) -> Result<(), Error> {
    if options.html.is_none() && options.svg_dir.is_none() {
        return Err(Error::Nothing);
    }
    let results = read(&options.results)?;
    let mut written = Vec::new();
    if let Some(path) = &options.html {
        write(&results, path)?;
        written.push(path.clone());
    }
    if let Some(directory) = &options.svg_dir {
        written.extend(write_drawings(&results, directory)?);
    }
    let mut out = io::stdout().lock();
    for path in &written {
        // A closed pipe ends the list and not the job, which is done.
        if writeln!(out, "{}", path.display()).is_err() {
            break;
        }
    }
    Ok(())
}

/// The results in a file.
///
/// # Errors
/// [`Error::Read`], [`Error::NotOurs`] or [`Error::Format`].
pub fn read(path: &Path) -> Result<Results, Error> {
    let text = fs::read_to_string(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
    parse(&text, path)
}

fn parse(text: &str, path: &Path) -> Result<Results, Error> {
    let not_ours = |reason: String| Error::NotOurs { path: path.to_owned(), reason };
    let value: Value = serde_json::from_str(text).map_err(|error| not_ours(error.to_string()))?;
    // The format first: what a later one means by its fields is not for this program to guess.
    let found = value
        .get("format")
        .and_then(Value::as_u64)
        .ok_or_else(|| not_ours("it has no number named `format`".into()))?;
    if found != u64::from(FORMAT) {
        return Err(Error::Format { path: path.to_owned(), found, known: FORMAT });
    }
    let results: Results = serde_json::from_value(value).map_err(|error| not_ours(error.to_string()))?;
    checked(results).map_err(not_ours)
}

/// Positions that point at something: past this, they are indexed without a look.
fn checked(results: Results) -> Result<Results, String> {
    let rows = results.rows.len();
    let slices = results.slices.iter().map(|slice| ("a slice", slice.row));
    let dropped = results.dropped.iter().map(|dropped| ("a dropped slice", dropped.row));
    let ratios = results.ratios.iter().flat_map(|ratio| [("a ratio", ratio.ours), ("a ratio", ratio.theirs)]);
    for (what, row) in slices.chain(dropped).chain(ratios) {
        if row >= rows {
            return Err(format!("{what} belongs to row {row} of {rows}"));
        }
    }
    for sweep in &results.sweep {
        let axes = sweep.axes.len();
        let places = sweep.points.iter().map(|point| &point.at).chain(&sweep.chosen);
        if places.chain(sweep.best.as_ref().map(|best| &best.0)).any(|at| at.len() != axes) {
            return Err(format!("a point of a sweep over {axes} settings has another number of them"));
        }
    }
    Ok(results)
}

#[cfg(test)]
mod tests {
    use super::super::fixture;
    use super::*;

    fn parsed(text: &str) -> Result<Results, Error> {
        parse(text, Path::new("run.json"))
    }

    #[test]
    fn a_page_drawn_again_from_the_file_is_the_same_page() {
        let directory = tempfile::tempdir().expect("a directory");
        let [json, first, again] =
            ["run.json", "first.html", "again.html"].map(|name| directory.path().join(name));
        let results = fixture::results();
        fs::write(&json, serde_json::to_string(&results).expect("plain data")).expect("written");
        write(&results, &first).expect("written");
        run(&Options { results: json, html: Some(again.clone()), svg_dir: None }).expect("drawn");
        let [first, again] = [first, again].map(|path| fs::read_to_string(path).expect("readable"));
        assert!(first == again, "the pages differ");
    }

    #[test]
    fn a_file_of_somebody_else_is_refused_with_its_name() {
        for text in ["", "{}", "[1, 2]", "{\"format\": \"one\"}", "{\"format\": 1}", "not json"] {
            let refused = parsed(text).expect_err("not ours");
            assert!(matches!(refused, Error::NotOurs { .. }), "{text}: {refused}");
            assert!(refused.to_string().starts_with("run.json holds no results"), "{refused}");
        }
    }

    #[test]
    fn a_newer_format_is_refused_before_anything_else_is_read() {
        let refused = parsed("{\"format\": 99, \"of\": \"the future\"}").expect_err("newer");
        assert!(matches!(refused, Error::Format { found: 99, known: FORMAT, .. }));
        assert!(refused.to_string().contains("format 99"), "{refused}");
    }

    #[test]
    fn positions_that_point_nowhere_are_refused() {
        let mut results = fixture::results();
        results.slices[0].row = 1_000;
        let refused =
            parsed(&serde_json::to_string(&results).expect("plain data")).expect_err("beyond the end");
        assert!(refused.to_string().contains("row 1000"), "{refused}");
        let mut results = fixture::results();
        results.sweep[0].points[0].at.push(1.0);
        assert!(parsed(&serde_json::to_string(&results).expect("plain data")).is_err());
    }

    #[test]
    fn a_missing_file_is_named() {
        let refused = read(Path::new("no/such/run.json")).expect_err("missing");
        assert!(matches!(refused, Error::Read { .. }) && refused.to_string().contains("no/such/run.json"));
    }
}
