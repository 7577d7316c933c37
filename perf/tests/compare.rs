//! The comparison from outside: what it says without etcd, and, where etcd is on the PATH, a run too short to quote.

use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output};

fn perf(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_perf"));
    command.args(arguments).arg("--directory").arg(directory);
    command
}

fn said(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

#[test]
fn without_etcd_a_comparison_says_what_to_install_and_does_nothing() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let output = perf(directory.path(), &["compare", "etcd"])
        .env("PATH", directory.path())
        .output()
        .expect("perf runs");
    let (_, errors) = said(&output);
    assert!(!output.status.success());
    assert!(errors.contains("apt-get install etcd-server") && errors.contains("--etcd-bin"), "{errors}");
    assert_eq!(std::fs::read_dir(directory.path()).expect("still there").count(), 0);
}

#[test]
fn what_promises_less_is_not_compared() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let output = perf(directory.path(), &["compare", "etcd", "--durability", "mem-first"]).output();
    let output = output.expect("perf runs");
    let (_, errors) = said(&output);
    assert!(!output.status.success());
    assert!(errors.contains("memory-quorum") && errors.contains("fsync-quorum"), "{errors}");
}

#[test]
fn a_short_comparison_shows_both_sides_of_every_row_with_what_they_cost() {
    let path = std::env::var_os("PATH").unwrap_or_default();
    if !std::env::split_paths(&path).any(|directory| directory.join("etcd").is_file()) {
        eprintln!("skipped: there is no program `etcd` on the PATH (Debian: apt-get install etcd-server)");
        return;
    }
    let directory = tempfile::tempdir().expect("a temporary directory");
    let output = perf(directory.path(), &["compare", "etcd", "--blocks", "1", "--slice", "300ms"])
        .args(["--rows", "W1,eventual,lease"])
        .output()
        .expect("perf runs");
    let (summary, errors) = said(&output);
    assert!(output.status.success(), "{errors}");
    let json = std::fs::read_to_string(directory.path().join("compare.json")).expect("the results");
    let results: Value = serde_json::from_str(&json).expect("JSON");

    let array = |of: &Value, key: &str| of[key].as_array().unwrap_or_else(|| panic!("{key} in {of}")).clone();
    let rows = array(&results, "rows");
    let asked: Vec<_> = rows.iter().map(|row| (row["id"].as_str(), row["system"].as_str())).collect();
    let (ours, etcd) = (Some("d-engine embedded"), Some("etcd"));
    // etcd has no reads by lease.
    let (w1, w6) = (Some("W1"), Some("W6"));
    assert_eq!(asked, [(w1, ours), (w1, etcd), (w6, ours), (w6, ours), (w6, etcd)], "{summary}");
    assert!(rows.iter().all(|row| row["promise"] == "fsync-quorum"), "{rows:?}");

    for slice in array(&results, "slices") {
        assert!(slice["operations"].as_u64() > Some(0), "{slice}");
        assert_eq!(slice["errors"], Value::Array(Vec::new()), "{slice}");
        let of_etcd = rows[usize::try_from(slice["row"].as_u64().expect("a position")).expect("small")]["system"]
            == "etcd";
        let processes = array(&slice, "processes");
        let parts: Vec<_> = processes.iter().filter_map(|spent| spent["part"].as_str()).collect();
        assert_eq!(parts.iter().filter(|part| **part == "leader").count(), 1, "{parts:?}");
        assert_eq!(parts.iter().filter(|part| **part == "follower").count(), 2, "{parts:?}");
        assert_eq!(parts.contains(&"generator"), of_etcd, "{parts:?}");
        if slice["row"].as_u64() < Some(2) {
            // One in flight: every put was flushed by a majority at least.
            let flushes: u64 = processes.iter().filter_map(|spent| spent["flushes"].as_u64()).sum();
            assert!(flushes >= 2 * slice["operations"].as_u64().unwrap_or(0), "{slice}");
        }
    }
    let measures: Vec<_> = array(&results, "ratios").iter().map(|ratio| ratio["measure"].clone()).collect();
    assert!(measures.contains(&"rate".into()) && measures.contains(&"cpu".into()), "{measures:?}");
    let first = |words: &str| summary.find(words).unwrap_or_else(|| panic!("{words:?} is not in\n{summary}"));
    assert!(first("lost (") < first("must show:"));
    let left: Vec<_> = std::fs::read_dir(directory.path()).expect("still there").flatten().collect();
    assert!(left.iter().all(|entry| entry.path().is_file()), "data and servers are gone: {left:?}");
}

#[test]
fn a_part_of_the_whole_matrix_names_all_that_it_did_not_run() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let output = perf(directory.path(), &["full", "--alone", "--blocks", "1", "--slice", "400ms"])
        .args(["--rows", "W1,W10,W11,W14,W15", "--skip", "w15"])
        .output()
        .expect("perf runs");
    let (summary, errors) = said(&output);
    assert!(output.status.success(), "{errors}");
    assert!(errors.contains("full takes about"), "the plan comes first: {errors}");
    let json = std::fs::read_to_string(directory.path().join("full.json")).expect("the results");
    let results: Value = serde_json::from_str(&json).expect("JSON");
    let array = |key: &str| results[key].as_array().cloned().unwrap_or_default();
    let ids = |of: Vec<Value>| -> std::collections::BTreeSet<String> {
        of.iter().filter_map(|one| one["id"].as_str().map(String::from)).collect()
    };
    assert_eq!(ids(array("rows")).into_iter().collect::<Vec<_>>(), ["W1", "W10"]);
    let slow = array("rows").into_iter().find(|row| row["id"] == "W10").expect("the slow follower");
    assert!(slow["condition"].as_str().is_some_and(|text| text.contains("stands still")), "{slow}");
    let caught_up =
        |note: &Value| note.as_str().is_some_and(|text| text.contains("the slow follower had everything"));
    assert!(array("notes").iter().any(caught_up), "{:?}", array("notes"));
    assert_eq!((array("failures").len(), array("memory").len(), array("sweep").len()), (2, 1, 0));
    // Everything else is named, with its reason.
    let not_run = ids(array("not_run"));
    let missing: Vec<String> = (1..=15)
        .map(|number| format!("W{number}"))
        .filter(|id| !["W1", "W10", "W11", "W14"].contains(&id.as_str()))
        .collect();
    assert_eq!(not_run, missing.into_iter().collect());
    for words in ["not run:", "W15 batch limits swept: left out, as asked", "W11, ms from the act"] {
        assert!(summary.contains(words), "{words:?} is not in\n{summary}");
    }
    let page = std::fs::read_to_string(directory.path().join("full.html")).expect("the page");
    assert!(page.contains("What was not run") && page.contains("id=\"failures\""));
}

#[test]
fn a_name_that_nothing_has_is_an_error_before_anything_runs() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let output = perf(directory.path(), &["full", "--alone", "--skip", "W16"]).output().expect("perf runs");
    let (_, errors) = said(&output);
    assert!(!output.status.success() && errors.contains("nothing is called W16"), "{errors}");
    assert_eq!(std::fs::read_dir(directory.path()).expect("still there").count(), 0);
}
