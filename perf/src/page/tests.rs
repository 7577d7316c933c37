//! The page as a whole: it is well-formed, says what it must, leaves out what it must, and a browser shows all of it.

use super::fixture::{self, ETCD, OURS};
use super::story::Story;
use super::*;
use crate::results::{Promise, Results, Row};
use crate::workload::{Call, Workload};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

fn page(results: &Results) -> String {
    document::page(&Story::new(results))
}

/// HTML that is also XML, but for two things that a page of this kind has: the elements that never have an end.
fn tree_of(page: &str) -> String {
    let mut out = String::new();
    for piece in page.split_inclusive('>') {
        let open = piece.rfind("<meta").is_some_and(|at| at + 5 < piece.len());
        if open { out.push_str(&piece.replace('>', "/>")) } else { out.push_str(piece) }
    }
    out.replacen("<!DOCTYPE html>", "", 1)
}

#[track_caller]
fn well_formed(page: &str) {
    let text = tree_of(page);
    if let Err(error) = roxmltree::Document::parse(&text) {
        let position = error.pos();
        let line = text.lines().nth(position.row as usize - 1).unwrap_or("");
        let at = line.char_indices().nth(position.col as usize - 1).map_or(0, |(at, _)| at);
        let from = line.floor_char_boundary_or(at.saturating_sub(200));
        panic!("{error}: …{}", &line[from..at]);
    }
}

trait Boundary {
    fn floor_char_boundary_or(&self, at: usize) -> usize;
}

impl Boundary for str {
    fn floor_char_boundary_or(&self, at: usize) -> usize {
        (0..=at).rev().find(|at| self.is_char_boundary(*at)).unwrap_or(0)
    }
}

#[test]
fn a_page_is_well_formed_and_loads_nothing() {
    let page = page(&fixture::results());
    well_formed(&page);
    let text = tree_of(&page);
    let tree = roxmltree::Document::parse(&text).expect("well-formed");
    for node in tree.descendants() {
        for attribute in
            node.attributes().filter(|attribute| ["src", "href", "xlink:href"].contains(&attribute.name()))
        {
            assert!(attribute.value().starts_with('#'), "{} leads away", attribute.value());
        }
        assert!(!["script", "link", "img", "iframe", "object"].contains(&node.tag_name().name()));
    }
    assert!(!page.contains("url(") && !page.contains("@import"));
}

#[test]
fn every_link_and_every_figure_has_one_place() {
    let text = tree_of(&page(&fixture::results()));
    let tree = roxmltree::Document::parse(&text).expect("well-formed");
    let places: Vec<&str> = tree.descendants().filter_map(|node| node.attribute("id")).collect();
    let once: std::collections::BTreeSet<&&str> = places.iter().collect();
    assert_eq!(once.len(), places.len(), "an id names one place");
    for link in tree.descendants().filter_map(|node| node.attribute("href")) {
        assert!(places.contains(&link.trim_start_matches('#')), "{link} leads nowhere");
    }
}

#[test]
fn what_a_page_must_say_it_says() {
    let results = fixture::results();
    let page = page(&results);
    for text in [
        "Example(R) Processor",
        "Linux 6.18.0",
        "ext4 on /dev/vda",
        "0123456789ab+",
        "normally at nice -5",
        "fsync-quorum put, 1000 in flight",
        "etcd 3.5.30",
        "the host took 7.1 % of the machine",
        "perf full --against etcd",
        "full.json",
        "Taken by the host",
        "QUIC round trip",
        "Must reach",
        "not measured",
        "one follower behind 50 ms",
        "too many requests",
    ] {
        assert!(page.contains(text), "the page does not say {text:?}");
    }
}

#[test]
fn what_was_lost_comes_first() {
    let page = page(&fixture::results());
    let place = |text: &str| page.find(text).unwrap_or_else(|| panic!("no {text:?}"));
    assert!(place("1 in flight, as a multiple of") < place("against etcd's gRPC put"));
    assert!(place("Lost and undecided comparisons") < place("How many times better ours is"));
}

#[test]
fn all_that_comes_from_outside_is_escaped() {
    let evil = "</title></svg><script>alert('x')</script>&amp;\"";
    let mut results = fixture::results();
    for system in &mut results.systems {
        system.name.push_str(evil);
        system.version.push_str(evil);
        system.settings.insert(evil.into(), evil.into());
    }
    for row in &mut results.rows {
        row.system.push_str(evil);
        row.condition = Some(evil.into());
    }
    for slice in &mut results.slices {
        slice.errors.push((evil.into(), 1));
        slice.processes[0].usage.threads[0].0 = evil.into();
    }
    results.machine.processor = evil.into();
    results.command.push(evil.into());
    results.notes.push(evil.into());
    results.goals[0].name = evil.into();
    results.goals[0].note = evil.into();
    results.dropped[0].reason = evil.into();
    for failure in &mut results.failures {
        failure.system.push_str(evil);
        failure.what = evil.into();
        failure.events[0].1 = evil.into();
    }
    for sweep in &mut results.sweep {
        sweep.axes[0].name = evil.into();
        sweep.axes[0].unit = evil.into();
    }
    results.recovery[0].system = evil.into();
    results.memory[0].what = evil.into();
    let page = page(&results);
    assert!(!page.contains("<script"), "a script got in");
    well_formed(&page);
    for drawing in sections::all(&Story::new(&results)).iter().flat_map(|section| &section.drawings) {
        roxmltree::Document::parse(&drawing.standalone()).expect("well-formed");
        assert!(
            drawing.slug.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '-'),
            "{}",
            drawing.slug
        );
    }
}

#[test]
fn a_run_that_measured_nothing_has_a_page_without_drawings() {
    let page = page(&fixture::nothing());
    well_formed(&page);
    assert!(!page.contains("<figure") && !page.contains("<svg"), "nothing is drawn of nothing");
}

#[test]
fn a_section_without_data_is_left_out() {
    let mut results = fixture::results();
    assert!(page(&results).contains("id=\"failures\"") && page(&results).contains("id=\"settings\""));
    results.failures.clear();
    results.sweep.clear();
    let page = page(&results);
    assert!(
        !page.contains("id=\"failures\"")
            && !page.contains("id=\"settings\"")
            && page.contains("id=\"latency\"")
    );
}

/// A second system of ours that acknowledges before the disk.
fn with_memory_quorum() -> Results {
    let mut results = fixture::results();
    let mut subject = results.systems[0].clone();
    subject.name = "d-engine embedded, memory first".into();
    subject.promise = Promise::MemoryQuorum;
    let row = Row { system: subject.name.clone(), promise: Promise::MemoryQuorum, ..results.rows[0].clone() };
    results.systems.push(subject);
    let position = results.rows.len();
    results.rows.push(row);
    let slices: Vec<_> =
        results.slices_of(0).cloned().map(|slice| crate::results::Slice { row: position, ..slice }).collect();
    results.slices.extend(slices);
    results
}

#[test]
fn rows_of_different_promises_are_refused_aloud_and_drawn_apart() {
    let results = with_memory_quorum();
    let story = Story::new(&results);
    let sections = sections::all(&story);
    let refused: Vec<String> =
        sections.iter().flat_map(|section| &section.refused).map(ToString::to_string).collect();
    assert!(
        refused
            .iter()
            .any(|text| text.contains("promises fsync-quorum") && text.contains("promises memory-quorum")),
        "{refused:?}"
    );
    for drawing in sections.iter().flat_map(|section| &section.drawings) {
        let names: Vec<&str> = drawing.legend.iter().map(|key| key.text.as_str()).collect();
        let (memory, disk) = (
            names.iter().any(|name| name.contains("memory first")),
            names.contains(&ETCD) || names.contains(&OURS),
        );
        assert!(!(memory && disk), "{} mixes promises: {names:?}", drawing.slug);
    }
    let page = page(&results);
    well_formed(&page);
    assert!(page.contains("Refused: "), "the page says what it does not draw");
}

#[test]
fn a_quotient_of_different_promises_from_a_foreign_file_is_refused() {
    let mut results = with_memory_quorum();
    let mut ratio = results.ratios[0].clone();
    ratio.theirs = results.rows.len() - 1;
    ratio.times_better = fixture::exactly(123.4).expect("a number");
    results.ratios.push(ratio);
    let page = page(&results);
    well_formed(&page);
    assert!(page.contains("Refused: ") && !page.contains("123\u{a0}×"), "the number must not be shown");
}

#[test]
fn extreme_figures_have_a_page() {
    let mut results = fixture::results();
    for (number, slice) in results.slices.iter_mut().enumerate() {
        match number % 5 {
            0 => (slice.operations, slice.latencies) = (0, Vec::new()),
            1 => slice.operations = u64::MAX,
            2 => slice.elapsed = Duration::ZERO,
            3 => slice.latencies = vec![(0, 1), (u64::MAX, 1_000_000_000_000)],
            _ => slice.processes.clear(),
        }
    }
    for (number, failure) in results.failures.iter_mut().enumerate() {
        match number % 3 {
            0 => failure.line.clear(),
            1 => failure.to_first_acknowledgement = Duration::MAX,
            _ => failure.lost = u64::MAX / 64,
        }
    }
    for goal in &mut results.goals {
        (goal.reach, goal.aim) = (0.0, f64::INFINITY);
    }
    results.recovery[0].served = Duration::ZERO;
    results.sweep[0].points.truncate(1);
    results.started = u64::MAX;
    well_formed(&page(&results));
}

#[test]
fn every_drawing_is_a_file_of_its_own() {
    let directory = tempfile::tempdir().expect("a directory");
    let written = write_drawings(&fixture::results(), directory.path()).expect("written");
    assert!(written.len() > 15, "{written:?}");
    for path in &written {
        let text = fs::read_to_string(path).expect("readable");
        let tree = roxmltree::Document::parse(&text).expect("well-formed");
        assert_eq!(tree.root_element().tag_name().name(), "svg");
    }
    let once: std::collections::BTreeSet<_> = written.iter().collect();
    assert_eq!(once.len(), written.len());
}

/// The first program of these names on the PATH.
fn found(names: &[&str]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let all =
        std::env::split_paths(&path).flat_map(|directory| names.iter().map(move |name| directory.join(name)));
    all.into_iter().find(|program| program.is_file())
}

fn browser(program: &Path, home: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-sync",
        ])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage"])
        .args(["--enable-logging=stderr", "--v=0"])
        .arg(format!("--user-data-dir={}", home.display()))
        .stdin(Stdio::null());
    command
}

#[test]
fn a_browser_shows_every_drawing_and_reports_no_error() {
    let Some(program) = found(&["chromium", "chromium-browser", "google-chrome"]) else {
        eprintln!("skipped: no chromium on the PATH");
        return;
    };
    let directory = tempfile::tempdir().expect("a directory");
    let results = fixture::results();
    let file = directory.path().join("page.html");
    write(&results, &file).expect("written");
    let output = browser(&program, &directory.path().join("home"))
        .args(["--dump-dom", "--timeout=20000"])
        .arg(format!("file://{}", file.display()))
        .output()
        .expect("chromium starts");
    let (dom, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "chromium ended with {}: {said}", output.status);
    let story = Story::new(&results);
    let drawings: Vec<String> = sections::all(&story)
        .into_iter()
        .flat_map(|section| section.drawings)
        .map(|drawing| drawing.slug)
        .collect();
    for slug in &drawings {
        assert!(dom.contains(&format!("<figure id=\"{slug}\"")), "{slug} is not on the page");
    }
    assert_eq!(dom.matches("<svg").count(), drawings.len());
    assert!(dom.trim_end().ends_with("</html>"), "the page was read to its end");
    let errors: Vec<&str> = said.lines().filter(|line| line.contains("CONSOLE")).collect();
    assert!(errors.is_empty(), "the browser complains: {errors:?}");
}

#[test]
fn a_row_without_a_counterpart_is_shown_all_the_same() {
    let mut results = fixture::results();
    results.systems.truncate(1);
    results.rows = vec![Row { workload: Workload::closed(Call::Put, 1), ..results.rows[0].clone() }];
    results.slices.retain(|slice| slice.row == 0);
    (results.ratios, results.dropped) = (Vec::new(), Vec::new());
    let page = page(&results);
    well_formed(&page);
    assert!(page.contains("percentiles-put-1-in-flight"));
}

/// `cargo test -p perf page::tests::look -- --ignored`: for looking at the fixture's page.
#[test]
#[ignore = "writes a page for people"]
fn look() {
    let directory = std::env::temp_dir().join("d-engine-page");
    let results = fixture::results();
    write(&results, &directory.join("page.html")).expect("written");
    write_drawings(&results, &directory.join("svg")).expect("written");
    write(&with_memory_quorum(), &directory.join("refused.html")).expect("written");
    let text = serde_json::to_string(&results).expect("plain data");
    fs::write(directory.join("results.json"), text).expect("written");
    eprintln!("{}", directory.join("page.html").display());
}
