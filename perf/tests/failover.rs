//! The leader of three real processes is killed twice, and stopped in order once, under a writing client; and, where there is
//! an etcd, the leader of three etcd servers.

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
        let tells = |event: &Value| event[1].as_str().is_some_and(|text| text.contains("leads in term"));
        assert!(failure["system"] == "etcd" || events.iter().any(tells), "{events:?}");
    }
    assert!(results["goals"][0]["found"]["median"].as_f64().expect("found") > 0.0);
    assert!(results["not_run"].is_null(), "{}", results["not_run"]);
}

#[test]
fn a_killed_leader_is_replaced_and_nothing_acknowledged_is_lost() {
    judge(&failover(&["--kills=2", "--after=3s", "--alone"]), 2);
}

#[test]
fn a_leader_that_stops_in_order_is_replaced_on_tokio_too() {
    judge(&failover(&["--kills=1", "--act=stop", "--runtime=tokio", "--after=3s", "--alone"]), 1);
}

#[test]
fn etcd_is_hurt_in_the_same_way_and_its_timing_is_in_the_row() {
    let path = std::env::var_os("PATH").unwrap_or_default();
    if !std::env::split_paths(&path).any(|directory| directory.join("etcd").is_file()) {
        eprintln!("skipped: there is no program `etcd` on the PATH (Debian: apt-get install etcd-server)");
        return;
    }
    let results = failover(&["--kills=1", "--etcd-timing=20ms/200ms,100ms/1s"]);
    judge(&results, 3);
    let rows: Vec<_> = results["failures"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|failure| {
            (failure["system"].as_str().expect("a name"), failure["what"].as_str().expect("a text"))
        })
        .collect();
    assert_eq!(
        rows,
        [
            ("d-engine embedded", "leader killed, heartbeat 25ms, election 250ms (defaults)"),
            ("etcd", "leader killed, heartbeat 20ms, election 200ms"),
            ("etcd", "leader killed, heartbeat 100ms, election 1s (defaults)"),
        ]
    );
    // The goal is ours alone: etcd, which waits for a second at least, is not in its median.
    let outage = |number: usize| {
        let span = &results["failures"][number]["to_first_acknowledgement"];
        span["secs"].as_f64().expect("seconds") * 1e3 + span["nanos"].as_f64().expect("nanoseconds") / 1e6
    };
    let found = results["goals"][0]["found"]["median"].as_f64().expect("found");
    assert!((found - outage(0)).abs() < 1e-3, "{found} is not {}", outage(0));
    assert!(outage(2) >= 900.0, "{} ms", outage(2));
}
