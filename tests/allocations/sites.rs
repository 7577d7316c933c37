//! Where allocations come from: samples grouped by the code of this repository that asked for them.

use super::counting::Sample;
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// How many functions of ours are named, from the allocation outwards.
const DEPTH: usize = 4;

/// A table, the most frequent site first. `every` is how many allocations each sample stands for.
pub fn table(samples: &[Sample], every: u64, operations: usize) -> String {
    let mut sites: BTreeMap<(String, String), (u64, u64)> = BTreeMap::new();
    for sample in samples {
        let site = sites.entry((sample.thread.clone(), place(&sample.backtrace.to_string()))).or_default();
        site.0 += 1;
        site.1 += sample.bytes as u64;
    }
    let mut rows: Vec<_> = sites.into_iter().collect();
    rows.sort_by_key(|row| std::cmp::Reverse(row.1.0));
    let mut text =
        format!("{} samples, one in {every} allocations, {operations} operations\n", samples.len());
    let _ = writeln!(text, "per operation | mean bytes | thread | from the allocation outwards");
    for ((thread, place), (count, bytes)) in rows {
        let rate = (count * every) as f64 / operations as f64;
        let _ = writeln!(text, "{rate:>9.4} | {:>7} | {thread} | {place}", bytes / count);
    }
    text
}

/// `std`'s text of a backtrace has two lines for each frame: a number and a function, then `at` and a place.
fn place(backtrace: &str) -> String {
    let mut ours: Vec<String> = Vec::new();
    let mut foreign = None;
    let mut function = "";
    for line in backtrace.lines().map(str::trim) {
        if let Some(at) = line.strip_prefix("at ") {
            // Relative paths are this repository's; the counting itself is not of interest.
            let counting = at.contains("tests/allocations/counting.rs") || function.starts_with("__rust");
            if let Some(path) = at.strip_prefix("./")
                && !counting
            {
                let path = path.rsplit_once(':').map_or(path, |(path, _column)| path);
                ours.push(format!("{} ({path})", short(function)));
            } else if ours.is_empty() && !counting && is_dependency(at) {
                foreign = Some(short(function));
            }
        } else if let Some((_, name)) = line.split_once(": ") {
            function = name;
        }
        if ours.len() == DEPTH {
            break;
        }
    }
    let outermost = foreign.map_or_else(String::new, |name| format!("{name} < "));
    if ours.is_empty() { format!("{outermost}(nothing of ours)") } else { outermost + &ours.join(" < ") }
}

fn is_dependency(path: &str) -> bool {
    path.contains("/registry/src/")
}

/// The last two parts of a function's path.
fn short(function: &str) -> String {
    let parts: Vec<_> =
        function.split("::").filter(|part| !part.starts_with('h') || part.len() != 17).collect();
    parts[parts.len().saturating_sub(2)..].join("::")
}
