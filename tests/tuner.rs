//! How much a node does at a time: changed by hand, changed by the tuner, and refused where it cannot be meant.
#![allow(clippy::unwrap_used)]
mod support;

use d_engine::api::{AdminError, Knob, Pace, Reason};
use d_engine::config::{ByteCount, ConfigError};
use d_engine::prelude::*;
use std::time::{Duration, Instant};
use support::{Group, PATIENCE, alone, block_on, leader_of, on_both, started};

/// Puts so many, as many as that in flight, each until it is acknowledged; returns how many had to be sent again.
fn put_all(client: &EmbeddedClient, count: usize, in_flight: usize) -> usize {
    let mut pipeline = client.pipeline();
    let mut done = Vec::new();
    let (mut sent, mut acknowledged) = (0, 0);
    while acknowledged < count {
        while pipeline.in_flight() < (count - acknowledged).min(in_flight) {
            pipeline.put(format!("key-{}", sent % 100), [7; 100]).unwrap();
            sent += 1;
        }
        pipeline.wait(&mut done);
        let all = done.len();
        acknowledged += done.drain(..).filter(|completion| completion.result.is_ok()).count();
        assert!(all > 0 && sent < count + 100_000, "nothing is acknowledged");
    }
    sent - count
}

#[test]
fn nothing_is_tuned_unless_a_target_is_set() {
    on_both(|dir, runtime| async move {
        let engine = started(alone(&dir, runtime).batch_soft_bytes(64 << 10).batches_in_flight(3)).await;
        put_all(&engine.client(), 1_000, 100);
        let status = engine.status().await.unwrap();
        assert_eq!(status.tuner, None);
        let expected = Pace { batch_bytes: 64 << 10, batches_in_flight: 3, in_flight_bytes: 4 << 20 };
        assert_eq!(status.pace, expected, "as configured");
        engine.stop().await.unwrap();
    });
}

#[test]
fn a_target_out_of_reach_leads_to_decisions_that_the_status_shows_with_their_reasons() {
    on_both(|dir, runtime| async move {
        let builder = alone(&dir, runtime)
            .target_p99(Duration::from_micros(10))
            .configure(|c| c.tuner.interval = Duration::from_millis(10));
        let engine = started(builder).await;
        let client = engine.client();
        let begun = Instant::now();
        let tuner = loop {
            put_all(&client, 5_000, 64);
            let tuner = engine.status().await.unwrap().tuner.expect("a target is set");
            if tuner.decisions.len() >= 2 {
                break tuner;
            }
            assert!(begun.elapsed() < PATIENCE, "{tuner:?}");
        };
        assert_eq!(tuner.target, Duration::from_micros(10));
        assert!(tuner.last.expect("intervals with load").p99 > tuner.target, "{tuner:?}");
        let (_, first) = tuner.decisions[0];
        assert!(matches!(first.reason, Reason::AboveTarget { .. }), "{first}");
        assert_ne!(first.from, first.to, "{first}");
        let (_, second) = tuner.decisions[1];
        assert_eq!((second.knob, second.to == first.from || second.to == first.to), (first.knob, true));
        assert!(tuner.decisions.iter().all(|(_, d)| d.knob != Knob::InFlightBytes), "there are no peers");
        engine.stop().await.unwrap();
    });
}

#[test]
fn a_pace_of_one_byte_gives_every_command_an_entry_and_refuses_none() {
    on_both(|dir, runtime| async move {
        let engine = started(alone(&dir, runtime)).await;
        let client = engine.client();
        let slow = Pace { batch_bytes: 1, batches_in_flight: 1, in_flight_bytes: 1 };
        let before = engine.set_pace(slow).await.unwrap();
        assert_eq!(before.pace, slow);
        assert_eq!(put_all(&client, 50, 50), 0);
        let after = engine.status().await.unwrap();
        assert_eq!(after.last_index - before.last_index, 50, "each command alone");
        client.put("large", vec![1; 200 << 10]).await.unwrap();

        let fast = Pace { batch_bytes: usize::MAX, batches_in_flight: 64, in_flight_bytes: usize::MAX };
        let in_force = engine.set_pace(fast).await.unwrap().pace;
        assert_eq!(in_force.batch_bytes, 1 << 20, "no batch exceeds its limit");
        assert_eq!(put_all(&client, 5_000, 1_000), 0);
        let stuck = engine.set_pace(Pace { batches_in_flight: 0, ..slow }).await;
        assert!(matches!(stuck, Err(AdminError::Refused(_))), "{stuck:?}");
        engine.stop().await.unwrap();
    });
}

#[test]
fn a_group_goes_on_whatever_its_leaders_pace_becomes() {
    for runtimes in Group::kinds() {
        block_on(async {
            let group = Group::new(runtimes);
            let engines = group.start_all().await;
            for round in 0..24_u32 {
                let pace = Pace {
                    batch_bytes: 1 << (round % 20),
                    batches_in_flight: u64::from(round % 5) + 1,
                    in_flight_bytes: 1 << ((round * 7) % 23),
                };
                // Whoever leads goes by it; on a busy machine that may change.
                for engine in &engines {
                    engine.set_pace(pace).await.unwrap();
                }
                put_all(&engines[leader_of(&engines).await].client(), 300, 100);
            }
            for engine in &engines {
                engine.stop().await.unwrap();
            }
        });
    }
}

#[test]
fn a_tuner_that_cannot_be_meant_is_refused_with_what_would_be_right() {
    let dir = tempfile::tempdir().unwrap();
    let refused = |change: fn(&mut d_engine::config::Configuration)| {
        let builder = alone(dir.path(), Runtime::Auto).target_p99(Duration::from_millis(5));
        builder.configure(change).build().expect_err("refused")
    };
    let error = refused(|c| c.tuner.batch_bytes_min = ByteCount(2 << 20));
    assert!(matches!(error, ConfigError::Combination { .. }), "{error}");
    let error = alone(dir.path(), Runtime::Auto).target_p99(Duration::ZERO).build().expect_err("refused");
    assert!(matches!(error, ConfigError::Value { field: "tuner.target_p99", .. }), "{error}");
}
