//! Writes that happen once while leaders come and go, on both drivers and both together.
#![allow(clippy::unwrap_used)]

mod support;

use d_engine::kv::{CommandError, SESSION_TIMEOUT};
use d_engine::prelude::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use support::{Group, PATIENCE, alone, block_on, leader_of, on_both, started};

#[test]
fn a_session_answers_like_a_client() {
    on_both(|dir, runtime| async move {
        let engine = started(alone(&dir, runtime)).await;
        let session = engine.client().open_session(SessionOptions::default()).await.unwrap();
        let before = engine.status().await.unwrap().revision;
        assert_eq!(before, Revision(1), "opening a session takes no revision");
        let put = session.put("a", "1").await.unwrap();
        assert_eq!((put.revision, put.durability), (Revision(2), Durability::DiskFirst));
        let refused = session.compare_and_swap("a", Expected::Absent, "2").await.unwrap();
        let Swap::Refused { current: Some(current) } = refused.value else { panic!("it is there") };
        assert_eq!(current.value, "1");
        let swap = session.compare_and_swap("a", Expected::Value("1".into()), "2").await.unwrap();
        assert!(swap.value.is_done());
        assert!(session.delete("a").await.unwrap().value);
        assert!(!session.delete("a").await.unwrap().value);
        let refused = session.put("", "x").await;
        assert_eq!(refused, Err(WriteError::Refused(CommandError::EmptyKey)));
        session.close().await.unwrap();
        for timeout in [*SESSION_TIMEOUT.start(), *SESSION_TIMEOUT.end()] {
            let options = SessionOptions { timeout, ..SessionOptions::default() };
            engine.client().open_session(options).await.unwrap();
        }
    });
}

#[test]
fn many_calls_of_a_session_are_in_flight_at_once() {
    on_both(|dir, runtime| async move {
        let engine = started(alone(&dir, runtime)).await;
        let session = engine.client().open_session(SessionOptions::default()).await.unwrap();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let session = &session;
                scope.spawn(move || {
                    for n in 0..50 {
                        let key = format!("{thread}/{n}");
                        let swap = block_on(session.compare_and_swap(&key, Expected::Absent, "x"));
                        assert_eq!(swap.unwrap().value, Swap::Done);
                    }
                });
            }
        });
        let status = engine.status().await.unwrap();
        assert_eq!((status.keys, status.revision), (200, Revision(201)));
    });
}

#[test]
fn a_stopped_engine_says_whether_a_write_of_a_session_may_have_happened() {
    on_both(|dir, runtime| async move {
        let engine = started(alone(&dir, runtime)).await;
        let client = engine.client();
        let session = client.open_session(SessionOptions::default()).await.unwrap();
        engine.stop().await.unwrap();
        assert!(matches!(session.put("a", "1").await, Err(WriteError::Stopped(_))));
        let opened = client.open_session(SessionOptions::default()).await;
        assert!(matches!(opened, Err(WriteError::Stopped(_))));
    });
}

#[test]
fn patience_ends_without_a_leader_and_says_that_nothing_was_written() {
    block_on(async {
        let engine = Group::new(Group::kinds()[0])
            .builder(1)
            .configure(|c| c.raft.request_timeout = Duration::from_millis(20))
            .start()
            .await
            .unwrap();
        let options = SessionOptions { patience: Duration::from_millis(50), ..SessionOptions::default() };
        let opened = engine.client().open_session(options).await;
        assert_eq!(opened.map(drop), Err(WriteError::NoLeader));
    });
}

/// A single writer counts up by compare-and-swap while leaders are stopped under it. A swap that was applied twice, or
/// refused by its own success, would show at once.
#[test]
fn a_counter_counts_every_step_once_over_lost_leaders() {
    const ROUNDS: usize = 3;
    for kind in Group::kinds() {
        block_on(async {
            let group = Group::new(kind);
            let mut engines = group.start_all().await;
            // The writer's own node stays; the others take turns at leading and being stopped.
            let writer = engines.remove(0);
            let session = writer.client().open_session(SessionOptions::default()).await.unwrap();
            let (count, over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
            let counter = std::thread::spawn({
                let (count, over) = (Arc::clone(&count), Arc::clone(&over));
                move || {
                    let mut expected = Expected::Absent;
                    while !over.load(Ordering::Relaxed) {
                        let next = (count.load(Ordering::Relaxed) + 1).to_string();
                        let swap = block_on(session.compare_and_swap("count", expected, &next)).unwrap();
                        assert_eq!(swap.value, Swap::Done, "nobody else writes");
                        expected = Expected::Value(next.into());
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
            let advance = |by: u64| {
                let goal = count.load(Ordering::Relaxed) + by;
                while count.load(Ordering::Relaxed) < goal {
                    assert!(!counter.is_finished(), "the counter gave up");
                    std::thread::yield_now();
                }
            };
            for round in 0..ROUNDS {
                advance(20);
                let next = engines[round % 2].id();
                if writer.is_leader() {
                    // It may lead again meanwhile, or be on its way to somebody else.
                    let _ = writer.client().transfer_leadership(next).await;
                }
                let at = engines.iter().position(|engine| Some(engine.id()) == writer.leader());
                let stopped = engines.remove(at.unwrap_or(round % 2));
                let id = stopped.id().0;
                drop(stopped);
                advance(20);
                let back = group.start(id).await;
                back.wait_ready(PATIENCE).await.unwrap();
                engines.push(back);
            }
            over.store(true, Ordering::Relaxed);
            counter.join().unwrap();
            let counted = count.load(Ordering::Relaxed);
            engines.push(writer);
            leader_of(&engines).await;
            for engine in &engines {
                let found = engine.client().get("count").await.unwrap().value.unwrap();
                assert_eq!((found.value, found.version), (counted.to_string().into(), counted));
            }
        });
    }
}
