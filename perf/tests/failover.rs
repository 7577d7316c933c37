//! The leader of three real processes is killed twice, and stopped in order once, under a writing client.

use serde_json::Value;
use std::process::Command;

/// Runs the job and returns what it wrote as JSON.
fn failover(arguments: &[&str]) -> Value {
    let directory = tempfile::tempdir().expect("a directory");
    let json = directory.path().join("failover.json");
    let output = Command::new(env!("CARGO_BIN_EXE_perf"))
        .args(["failover", "--before=150ms", "--directory"])
        .arg(directory.path())
        .arg("--json")
        .arg(&json)
        .args(arguments)
        .output()
        .expect("started");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&std::fs::read(json).expect("written")).expect("JSON")
}

/// What must be true of every round, however slow the machine.
fn judge(results: &Value, rounds: usize) {
    let failures = results["failures"].as_array().expect("a list");
    assert_eq!(failures.len(), rounds);
    for failure in failures {
        assert_eq!(failure["lost"], 0, "acknowledged and not there: {failure}");
        assert!(failure["acknowledged"].as_u64().expect("a count") > 0);
        let line = failure["line"].as_array().expect("a line");
        let counted: u64 = line.iter().filter_map(|moment| moment["operations"].as_u64()).sum();
        assert!(counted > 0 && counted <= failure["acknowledged"].as_u64().expect("a count"));
        let events = failure["events"].as_array().expect("a list");
        assert!(
            events.iter().any(|event| event[1].as_str().is_some_and(|text| text.contains("leads in term")))
        );
    }
    assert!(results["goals"][0]["found"]["median"].as_f64().expect("found") > 0.0);
}

#[test]
fn a_killed_leader_is_replaced_and_nothing_acknowledged_is_lost() {
    judge(&failover(&["--kills=2", "--after=3s"]), 2);
}

#[test]
fn a_leader_that_stops_in_order_is_replaced_on_tokio_too() {
    judge(&failover(&["--kills=1", "--act=stop", "--runtime=tokio", "--after=3s"]), 1);
}
