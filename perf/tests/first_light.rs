//! The harness from outside: a run too short to quote, judged by its report.

use serde_json::Value;
use std::process::Command;

fn run(runtime: &str, durability: &str) -> (Value, String) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let json = directory.path().join("report.json");
    let output = Command::new(env!("CARGO_BIN_EXE_perf"))
        .args(["first-light", "--blocks", "1", "--slice", "100ms", "--in-flight", "1,16"])
        .args(["--runtime", runtime, "--durability", durability])
        .arg("--directory")
        .arg(directory.path())
        .arg("--json")
        .arg(&json)
        .output()
        .expect("perf runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    let report = std::fs::read_to_string(json).expect("the report");
    let left: Vec<_> = std::fs::read_dir(directory.path()).expect("still there").flatten().collect();
    assert_eq!(left.len(), 1, "only the report stays: {left:?}");
    (serde_json::from_str(&report).expect("JSON"), String::from_utf8_lossy(&output.stdout).into_owned())
}

fn figure(row: &Value, key: &str) -> f64 {
    row["figures"][key]["median"].as_f64().unwrap_or_else(|| panic!("{key} is missing in {row}"))
}

#[test]
fn a_short_run_reports_every_row_with_its_promise() {
    let (report, table) = run("auto", "disk-first");
    let rows = report["rows"].as_array().expect("rows");
    let names: Vec<_> = rows.iter().filter_map(|row| row["name"].as_str()).collect();
    assert_eq!(
        names,
        [
            "fsync-quorum put, 1 in flight",
            "fsync-quorum put, 16 in flight",
            "fsync-quorum linearizable get, 100 in flight",
            "fsync-quorum lease get, 1 in flight",
            "fsync-quorum eventual get, 1 in flight",
        ]
    );
    for row in rows {
        assert!(figure(row, "rate") > 0.0 && figure(row, "cpu_us_per_op") > 0.0, "{row}");
        assert_eq!(row["errors"].as_object().map(serde_json::Map::len), Some(0), "{row}");
        assert!(table.contains(row["name"].as_str().expect("a name")), "{table}");
    }
    // One in flight cannot share a flush: what is acknowledged was flushed on its own, on a majority at least.
    assert!(figure(&rows[0], "flushes_per_op_per_node") >= 0.6, "{}", rows[0]);
    assert!(figure(&rows[0], "disk_bytes_per_payload_byte") >= 1.0, "{}", rows[0]);
    assert!(figure(&rows[1], "ops_per_batch") >= 1.0, "{}", rows[1]);
}

#[test]
fn the_other_runtime_and_the_other_promise_are_named() {
    let (report, table) = run("tokio", "mem-first");
    assert_eq!(report["runtime"], "tokio");
    assert_eq!(report["promise"], "memory-quorum");
    assert!(table.contains("memory-quorum put, 1 in flight") && !table.contains("fsync"), "{table}");
}
