//! One node on its own: what its calls answer, what it keeps, how it stops. On both drivers.
#![allow(clippy::unwrap_used)]

mod support;

use d_engine::config::ByteCount;
use d_engine::embedded::{Completed, PipelineError};
use d_engine::kv::CommandError;
use d_engine::prelude::*;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use support::{PATIENCE, alone, block_on, on_both, poll_once, started};

#[test]
fn what_was_put_is_read_at_every_level() {
    on_both(|dir, runtime| async move {
        let engine = started(alone(&dir, runtime)).await;
        assert_eq!(engine.runtime(), runtime.to_string());
        let client = engine.client();
        let put = client.put("a", "1").await.unwrap();
        assert_eq!((put.revision, put.durability), (Revision(2), Durability::DiskFirst));
        for read in [
            client.get("a").await,
            client.get_linearizable("a").await,
            client.get_lease("a").await,
            client.get_eventual("a").await,
        ] {
            let read = read.unwrap();
            assert_eq!(read.revision, Revision(2));
            assert_eq!(read.value.unwrap().value, "1");
        }
        assert_eq!(client.get("b").await.unwrap().value, None);
        let status = engine.status().await.unwrap();
        assert_eq!(status.counters.lease_reads + status.counters.lease_misses, 1);
        assert_eq!((status.keys, status.revision), (1, Revision(2)));
    });
}

#[test]
fn every_call_answers_what_the_store_did() {
    on_both(|dir, runtime| async move {
        let engine = started(alone(&dir, runtime)).await;
        let client = engine.client();
        assert!(!client.delete("k/1").await.unwrap().value);
        assert_eq!(client.compare_and_swap("k/1", Expected::Absent, "x").await.unwrap().value, Swap::Done);
        let refused = client.compare_and_swap("k/1", Expected::Absent, "y").await.unwrap();
        let Swap::Refused { current: Some(current) } = refused.value else { panic!("the key is there") };
        assert_eq!((current.value.as_ref(), refused.revision), (&b"x"[..], Revision(2)));
        let by_value = client.compare_and_swap("k/1", Expected::Value("x".into()), "z").await.unwrap();
        assert!(by_value.value.is_done());
        let by_revision = client.compare_and_swap("k/1", Expected::Revision(Revision(2)), "w").await.unwrap();
        assert!(!by_revision.value.is_done(), "it was changed at 3");

        client.put("k/2", "").await.unwrap();
        client.put("l", "other").await.unwrap();
        let many = client.get_multi(&["l", "none", "k/2"]).await.unwrap();
        let many: Vec<_> = many.value.into_iter().map(|found| found.map(|found| found.value)).collect();
        assert_eq!(many, [Some("other".into()), None, Some("".into())]);

        let page = client.scan_prefix("k/", 1).await.unwrap().value;
        assert_eq!((&page.items[0].key[..], page.more), (&b"k/1"[..], true));
        let page = client.scan_prefix_after("k/", "k/1", 9).await.unwrap().value;
        assert_eq!((&page.items[0].key[..], page.more), (&b"k/2"[..], false));
        let deleted = client.delete("k/1").await.unwrap();
        assert_eq!((deleted.value, deleted.revision), (true, Revision(6)));
    });
}

#[test]
fn a_restart_keeps_everything() {
    on_both(|dir, runtime| async move {
        let mut expected = None;
        for round in 0..3 {
            let engine = started(alone(&dir, runtime)).await;
            let client = engine.client();
            assert_eq!(client.get("round").await.unwrap().value.map(|found| found.value), expected);
            client.put("round", round.to_string()).await.unwrap();
            expected = Some(round.to_string().into());
            // In order the first time, by dropping it the second.
            if round == 0 {
                engine.stop().await.unwrap();
            }
        }
        let engine = started(alone(&dir, runtime)).await;
        let read = engine.client().get("round").await.unwrap();
        assert_eq!((read.value.unwrap().value, read.revision), ("2".into(), Revision(4)));
    });
}

#[test]
fn either_driver_reads_what_the_other_wrote() {
    let dir = tempfile::tempdir().unwrap();
    block_on(async {
        for (n, runtime) in support::RUNTIMES.into_iter().cycle().take(4).enumerate() {
            let engine = started(alone(dir.path(), runtime)).await;
            let put = engine.client().put(n.to_string(), runtime.to_string()).await.unwrap();
            assert_eq!(put.revision, Revision(n as u64 + 2));
            engine.stop().await.unwrap();
        }
    });
}

#[test]
fn limits_cut_exactly_and_nothing_beyond_them_is_written() {
    on_both(|dir, runtime| async move {
        let builder = alone(&dir, runtime).configure(|c| {
            c.limits.key_bytes = ByteCount(10);
            c.limits.value_bytes = ByteCount(100);
        });
        let engine = started(builder).await;
        let client = engine.client();
        let (key, value) = ([b'k'; 11], [b'v'; 101]);
        client.put(&key[..10], &value[..100]).await.unwrap();
        let refused = |error| Err(WriteError::Refused(error));
        let long_key = CommandError::KeyTooLong { limit: 10, found: 11 };
        let long_value = CommandError::ValueTooLong { limit: 100, found: 101 };
        assert_eq!(client.put("", "x").await, refused(CommandError::EmptyKey));
        assert_eq!(client.put(key, "x").await, refused(long_key));
        assert_eq!(client.put("k", value).await, refused(long_value));
        let expected = Expected::Value(value.to_vec().into());
        let swap = client.compare_and_swap("k", expected, "x").await;
        assert_eq!(swap, Err(WriteError::Refused(long_value)));
        assert_eq!(client.delete("").await.unwrap_err(), WriteError::Refused(CommandError::EmptyKey));
        for level in [ReadLevel::Linearizable, ReadLevel::Lease, ReadLevel::Eventual] {
            assert_eq!(client.get_at(level, "").await, Err(ReadError::Refused(CommandError::EmptyKey)));
            assert_eq!(client.get_at(level, key).await, Err(ReadError::Refused(long_key)));
        }
        assert_eq!(client.get_multi(&["a", ""]).await, Err(ReadError::Refused(CommandError::EmptyKey)));
        assert_eq!(client.get("x").await.unwrap().revision, Revision(2), "one write happened");
        // 1 GiB declared, nothing of it copied into a command.
        let huge = vec![0; 1 << 30];
        assert!(matches!(client.put("k", huge).await, Err(WriteError::Refused(_))));
    });
}

#[test]
fn a_full_queue_is_an_error_without_effect() {
    on_both(|dir, runtime| async move {
        let engine = started(alone(&dir, runtime).configure(|c| c.limits.pending_requests = 4)).await;
        let mut pipeline = engine.client().pipeline();
        let (mut refused, mut done) = (0, Vec::new());
        let mut n = 0;
        while refused == 0 || n < 100 {
            match pipeline.put(format!("{n}"), "x") {
                Ok(_) => n += 1,
                Err(error) => {
                    assert_eq!(error, WriteError::Busy);
                    refused += 1;
                    pipeline.next_batch(&mut done).await;
                }
            }
        }
        while pipeline.in_flight() > 0 {
            pipeline.next_batch(&mut done).await;
        }
        // The queue refuses at the door, the node behind it by an answer.
        let busy = |result: &Result<_, _>| *result == Err(PipelineError::Write(WriteError::Busy));
        let written = done.iter().filter(|done| done.result.is_ok()).count();
        assert!(done.iter().all(|done| done.result.is_ok() || busy(&done.result)));
        let status = engine.status().await.unwrap();
        assert_eq!(status.keys, written, "what was refused did not happen");
        assert!(status.counters.busy >= refused);
        // And afterwards there is room again.
        engine.client().put("last", "x").await.unwrap();
    });
}

#[test]
fn dropped_futures_leave_nothing_behind() {
    on_both(|dir, runtime| async move {
        let engine = started(alone(&dir, runtime)).await;
        let client = engine.client();
        for n in 0..100 {
            let key = n.to_string();
            // Never polled: nothing happens at all.
            drop(client.put("never", "x"));
            let mut put = pin!(client.put(&key, "x"));
            let _ = poll_once(put.as_mut());
            let other = client.clone();
            let mut read = pin!(other.get("a"));
            let _ = poll_once(read.as_mut());
        }
        drop(client);
        // The loop takes calls in order: when this one is answered, so are all before it.
        let client = engine.client();
        client.put("last", "x").await.unwrap();
        client.get("last").await.unwrap();
        assert_eq!(engine.calls_in_flight(), 0);
        assert_eq!(client.get("never").await.unwrap().value, None);
        assert_eq!(engine.status().await.unwrap().keys, 101, "what was under way happened");
    });
}

#[test]
fn a_pipeline_answers_everything_once_with_fewer_wakes_than_answers() {
    on_both(|dir, runtime| async move {
        let engine = started(alone(&dir, runtime)).await;
        let before = engine.status().await.unwrap().counters;
        let mut pipeline = engine.client().pipeline();
        let mut numbers = Vec::new();
        for n in 0..2_000 {
            numbers.push(pipeline.put(format!("{}", n % 100), n.to_string()).unwrap());
        }
        numbers.push(pipeline.delete("0").unwrap());
        numbers.push(pipeline.compare_and_swap("new", &Expected::Absent, "x").unwrap());
        let mut done = Vec::new();
        while pipeline.in_flight() > 0 {
            pipeline.wait(&mut done);
        }
        numbers.push(pipeline.get("new").unwrap());
        pipeline.next_batch(&mut done).await;
        assert!(matches!(&done.last().unwrap().result, Ok(Completed::Get(found)) if found.value.is_some()));
        let mut answered: Vec<_> = done.iter().map(|done| done.number).collect();
        answered.sort_unstable();
        assert_eq!(answered, numbers);
        assert!(done.iter().all(|done| done.result.is_ok()));
        let after = engine.status().await.unwrap().counters;
        assert!(after.wakes - before.wakes < 1_000, "{} wakes", after.wakes - before.wakes);
        assert!(after.flushes - before.flushes < 1_000, "{} flushes", after.flushes - before.flushes);
        assert!(matches!(pipeline.put("", ""), Err(WriteError::Refused(_))));
    });
}

#[test]
fn many_threads_share_an_engine() {
    on_both(|dir, runtime| async move {
        let engine = Arc::new(started(alone(&dir, runtime)).await);
        let threads: Vec<_> = (0..4)
            .map(|thread| {
                let client = engine.client();
                std::thread::spawn(move || {
                    for n in 0..50 {
                        let key = format!("{thread}/{n}");
                        block_on(client.put(&key, &key)).unwrap();
                        let read = block_on(client.get_lease(&key)).unwrap();
                        assert_eq!(read.value.unwrap().value, key);
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        let status = engine.status().await.unwrap();
        assert_eq!((status.keys, status.revision), (200, Revision(201)));
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_are_made_from_tokio_tasks() {
    let engine = EmbeddedEngine::ephemeral().await.unwrap();
    engine.wait_ready(PATIENCE).await.unwrap();
    let tasks: Vec<_> = (0..20)
        .map(|n| {
            let client = engine.client();
            tokio::spawn(async move { client.put(n.to_string(), "x").await })
        })
        .collect();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    assert_eq!(engine.status().await.unwrap().keys, 20);
    engine.stop().await.unwrap();
}

#[test]
fn answers_from_memory_say_so() {
    on_both(|dir, runtime| async move {
        let engine = started(alone(&dir, runtime).durability(Durability::MemFirst)).await;
        let client = engine.client();
        assert_eq!(client.put("a", "1").await.unwrap().durability, Durability::MemFirst);
        assert_eq!(client.get("a").await.unwrap().durability, Durability::MemFirst);
        engine.stop().await.unwrap();
        // An orderly stop flushes what was only in memory.
        let engine = started(alone(&dir, runtime).durability(Durability::MemFirst)).await;
        assert_eq!(engine.client().get("a").await.unwrap().value.unwrap().value, "1");
    });
}

#[test]
fn a_stopped_engine_refuses_everything_but_reads_of_what_it_had() {
    on_both(|dir, runtime| async move {
        let engine = started(alone(&dir, runtime)).await;
        let client = engine.client();
        client.put("a", "1").await.unwrap();
        let mut watch = engine.watch_leader();
        assert!(engine.is_leader());
        engine.stop().await.unwrap();
        engine.stop().await.unwrap();
        let mut last = Some(Leadership::default());
        while last.is_some() {
            last = watch.changed().await;
        }
        assert!(matches!(client.put("a", "2").await, Err(WriteError::Stopped(_))));
        assert!(matches!(client.get("a").await, Err(ReadError::Stopped(_))));
        assert!(matches!(client.get_lease("a").await, Err(ReadError::Stopped(_))));
        assert!(matches!(client.status().await, Err(AdminError::Stopped(_))));
        assert!(matches!(engine.wait_ready(PATIENCE).await, Err(ReadyError::Stopped(_))));
        assert!(matches!(client.pipeline().put("a", "2"), Err(WriteError::Stopped(_))));
        assert_eq!(client.get_eventual("a").await.unwrap().value.unwrap().value, "1");
        assert_eq!((engine.leader(), engine.calls_in_flight()), (None, 0));
    });
}

/// A node whose peers are not there has no leader, so its calls wait.
#[test]
fn calls_that_wait_are_answered_by_a_stop() {
    for kind in support::Group::kinds() {
        block_on(async {
            let engine = support::Group::new(kind).start(2).await;
            let client = engine.client();
            let mut put = pin!(client.put("a", "1"));
            let mut read = pin!(client.get("a"));
            assert!(poll_once(put.as_mut()).is_pending() && poll_once(read.as_mut()).is_pending());
            let mut pipeline = client.pipeline();
            pipeline.put("b", "2").unwrap();
            engine.stop().await.unwrap();
            assert!(matches!(put.await, Err(WriteError::Stopped(_))), "it was never proposed");
            assert!(matches!(read.await, Err(ReadError::Stopped(_))));
            let mut done = Vec::new();
            pipeline.wait(&mut done);
            let Err(PipelineError::Write(error)) = &done[0].result else { panic!("{done:?}") };
            assert!(!error.may_have_happened());
            assert_eq!(engine.calls_in_flight(), 0);
        });
    }
}

#[test]
fn without_a_leader_calls_end_with_the_request_timeout() {
    for kind in support::Group::kinds() {
        block_on(async {
            let builder = support::Group::new(kind).builder(2).request_timeout(Duration::from_millis(100));
            let engine = builder.start().await.unwrap();
            let client = engine.client();
            assert_eq!(client.put("a", "1").await, Err(WriteError::NoLeader));
            assert_eq!(client.get("a").await, Err(ReadError::NoLeader));
            assert_eq!(client.get_lease("a").await, Err(ReadError::NoLeader));
            assert_eq!(client.get_eventual("a").await.unwrap().value, None);
            let transfer = client.transfer_leadership(NodeId(1)).await;
            assert_eq!(transfer, Err(AdminError::NotLeader { leader: None }));
            let waited = Duration::from_millis(50);
            assert_eq!(engine.wait_ready(waited).await, Err(ReadyError::Timeout { waited }));
            assert_eq!(engine.leader(), None);
        });
    }
}

#[test]
fn dropping_an_engine_frees_its_directory_at_once() {
    on_both(|dir, runtime| async move {
        for _ in 0..3 {
            let engine = alone(&dir, runtime).start().await.unwrap();
            drop(engine);
        }
        // Also while it starts.
        let mut starting = pin!(alone(&dir, runtime).start());
        let _ = poll_once(starting.as_mut());
    });
}

#[test]
fn a_dropped_start_lets_go() {
    on_both(|dir, runtime| async move {
        {
            let mut starting = pin!(alone(&dir, runtime).start());
            assert!(poll_once(starting.as_mut()).is_pending());
        }
        started(alone(&dir, runtime)).await;
    });
}

#[test]
fn an_ephemeral_engine_leaves_no_files() {
    block_on(async {
        let before = ephemeral_directories();
        let engine = EmbeddedEngine::ephemeral().await.unwrap();
        engine.wait_ready(PATIENCE).await.unwrap();
        engine.client().put("a", "1").await.unwrap();
        assert_eq!(ephemeral_directories().len(), before.len() + 1);
        drop(engine);
        assert_eq!(ephemeral_directories(), before);
    });
}

/// Of this process.
fn ephemeral_directories() -> Vec<String> {
    let prefix = format!("d-engine-{}-", std::process::id());
    let shm = std::path::Path::new("/dev/shm");
    let parent = if shm.is_dir() { shm.to_owned() } else { std::env::temp_dir() };
    let names = std::fs::read_dir(parent).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<_> = names.filter_map(|name| name.into_string().ok()).collect();
    names.retain(|name| name.starts_with(&prefix));
    names.sort();
    names
}

#[test]
fn a_leader_is_seen_coming() {
    on_both(|dir, runtime| async move {
        let engine = alone(&dir, runtime).start().await.unwrap();
        let mut watch = engine.watch_leader();
        assert_eq!(watch.leader().await, Some(NodeId(1)));
        assert!(watch.current().term > 0);
        let mut next = pin!(watch.changed());
        assert_eq!(poll_once(next.as_mut()), Poll::Pending);
    });
}
