//! Watches of a running engine: on both drivers, and over three nodes that are killed and come back.
#![allow(clippy::unwrap_used)]

mod support;

use d_engine::embedded::Watch;
use d_engine::kv::{CommandError, Event, Filter, KeyRange, WatchError, WatchItem, WatchQuery};
use d_engine::prelude::*;
use futures_util::StreamExt;
use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Instant;
use support::{Group, alone, block_on, leader_of, on_both, poll_once, put_at_last, started};

fn prefix(prefix: &str) -> WatchQuery {
    WatchQuery::new(KeyRange::prefix(prefix))
}

/// The next events: the revision, and what became of which key.
async fn told(watch: &mut Watch) -> (Revision, Vec<(String, Option<String>)>) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let item = watch.next().await.unwrap().unwrap();
    let WatchItem::Events(events) = item else { panic!("not asked for: {item:?}") };
    let event = |event: &Event| match event {
        Event::Put { new, .. } => (text(&new.key), Some(text(&new.value))),
        Event::Delete { key, .. } => (text(key), None),
    };
    (events.revision, events.events.iter().map(event).collect())
}

fn put(revision: u64, key: &str, value: &str) -> (Revision, Vec<(String, Option<String>)>) {
    (Revision(revision), vec![(key.into(), Some(value.into()))])
}

#[test]
fn changes_are_told_in_order_as_they_happen() {
    on_both(|dir, runtime| async move {
        let engine = started(alone(&dir, runtime)).await;
        let client = engine.client();
        client.put("k/old", "0").await.unwrap();
        let mut watch = client.watch_with(prefix("k/")).await.unwrap();
        assert_eq!(watch.revision(), Revision(2));
        {
            let mut early = pin!(watch.next());
            assert!(poll_once(early.as_mut()).is_pending(), "what was there before is not told");
        }
        client.put("k/a", "1").await.unwrap();
        client.put("other", "x").await.unwrap();
        client.put("k/a", "2").await.unwrap();
        client.delete("k/a").await.unwrap();
        assert_eq!(told(&mut watch).await, put(3, "k/a", "1"));
        assert_eq!(told(&mut watch).await, put(5, "k/a", "2"));
        assert_eq!(told(&mut watch).await, (Revision(6), vec![("k/a".into(), None)]));
        assert!(poll_once(pin!(watch.next())).is_pending());
        assert_eq!(watch.revision(), Revision(6));
    });
}

#[test]
fn previous_values_creation_and_filters() {
    on_both(|dir, runtime| async move {
        let engine = started(alone(&dir, runtime)).await;
        let client = engine.client();
        let both = KeyRange::key("a");
        let mut whole = client.watch_with(WatchQuery::new(both.clone()).with_previous()).await.unwrap();
        let mut puts = client.watch_with(WatchQuery::new(both.clone()).only(Filter::Puts)).await.unwrap();
        let mut deletes = client.watch_with(WatchQuery::new(both).only(Filter::Deletes)).await.unwrap();
        client.put("a", "1").await.unwrap();
        client.put("a", "2").await.unwrap();
        client.delete("a").await.unwrap();
        let mut previous = Vec::new();
        for creates in [true, false, false] {
            let item = whole.next().await.unwrap().unwrap();
            let (Event::Put { previous: before, .. } | Event::Delete { previous: before, .. }) =
                &item.events()[0];
            assert_eq!(item.events()[0].is_create(), creates);
            previous.push(before.clone().map(|before| (before.value, before.modify_revision)));
        }
        assert_eq!(previous, [None, Some(("1".into(), Revision(2))), Some(("2".into(), Revision(3)))]);
        assert_eq!(told(&mut puts).await, put(2, "a", "1"));
        assert_eq!(told(&mut puts).await, put(3, "a", "2"));
        assert_eq!(told(&mut deletes).await, (Revision(4), vec![("a".into(), None)]));
        for watch in [&mut whole, &mut puts, &mut deletes] {
            assert!(poll_once(pin!(watch.next())).is_pending());
        }
    });
}

#[test]
fn from_the_past_and_from_the_future() {
    on_both(|dir, runtime| async move {
        let engine = started(alone(&dir, runtime)).await;
        let client = engine.client();
        for n in 2..500 {
            client.put("a", n.to_string()).await.unwrap();
        }
        let mut past = client.watch_with(prefix("").from(Revision(100))).await.unwrap();
        let mut future = client.watch_with(prefix("").from(Revision(501))).await.unwrap();
        for n in 100..500 {
            assert_eq!(told(&mut past).await, put(n, "a", &n.to_string()));
        }
        for n in 500..502 {
            assert!(poll_once(pin!(future.next())).is_pending(), "{n}");
            client.put("b", n.to_string()).await.unwrap();
            assert_eq!(told(&mut past).await, put(n, "b", &n.to_string()));
        }
        assert_eq!(told(&mut future).await, put(501, "b", "501"));
    });
}

#[test]
fn what_was_forgotten_is_an_error_with_the_oldest() {
    on_both(|dir, runtime| async move {
        let engine = started(alone(&dir, runtime).configure(|c| c.history.changes = 10)).await;
        let client = engine.client();
        let mut slow = client.watch_with(prefix("a")).await.unwrap();
        let mut elsewhere = client.watch_with(prefix("b")).await.unwrap();
        // More than the rings hold.
        let value = vec![b'x'; 200 << 10];
        for _ in 0..200 {
            client.put("a", &value).await.unwrap();
        }
        let refused = client.watch_with(prefix("").from(Revision(5))).await.unwrap_err();
        let WatchError::Compacted { next: Revision(5), oldest } = refused else { panic!("{refused}") };
        assert!(client.watch_with(prefix("").from(oldest)).await.is_ok());
        let mut seen = 1;
        let ended = loop {
            match slow.next().await.unwrap() {
                Ok(item) => {
                    seen += 1;
                    assert_eq!(item.revision(), Revision(seen), "no gap before the end");
                }
                Err(error) => break error,
            }
        };
        assert_eq!(ended, WatchError::Compacted { next: Revision(seen + 1), oldest });
        assert!(slow.next().await.is_none(), "and that is all");
        // Who is quick is told everything, however short the history.
        client.put("b", "1").await.unwrap();
        assert_eq!(told(&mut elsewhere).await, put(202, "b", "1"));
    });
}

#[test]
fn progress_marks_pass_what_does_not_concern_the_watch() {
    on_both(|dir, runtime| async move {
        let engine = started(alone(&dir, runtime)).await;
        let client = engine.client();
        let mut watch = client.watch_with(prefix("k").with_progress()).await.unwrap();
        let count = Arc::new(Count::default());
        let waker = Waker::from(Arc::clone(&count));
        let mut marked = 1;
        for round in 0..3 {
            assert!(watch.poll_next(&mut Context::from_waker(&waker)).is_pending());
            let newest = client.put("other", "x").await.unwrap().revision;
            // Nothing but the mark wakes it.
            while count.0.load(Ordering::SeqCst) <= round {
                std::thread::yield_now();
            }
            while marked < newest.0 {
                let item = watch.next().await.unwrap().unwrap();
                assert!(item.events().is_empty() && item.revision().0 > marked && item.revision() <= newest);
                marked = item.revision().0;
            }
        }
        let newest = client.put("k", "x").await.unwrap().revision;
        assert_eq!(told(&mut watch).await, put(newest.0, "k", "x"));
    });
}

#[test]
fn a_stop_ends_a_watch_after_everything_was_told() {
    on_both(|dir, runtime| async move {
        let engine = started(alone(&dir, runtime)).await;
        let client = engine.client();
        let mut watch = client.watch_with(prefix("")).await.unwrap();
        let mut idle = client.watch_with(prefix("none")).await.unwrap();
        let waiting = std::thread::spawn(move || (idle.wait(), idle.wait()));
        for n in 2..300 {
            client.put("a", n.to_string()).await.unwrap();
        }
        engine.stop().await.unwrap();
        for n in 2..300 {
            assert_eq!(told(&mut watch).await, put(n, "a", &n.to_string()));
        }
        let stopped = WatchError::Stopped { next: Revision(300), failure: None };
        assert_eq!(watch.next().await, Some(Err(stopped.clone())));
        assert_eq!(watch.next().await, None);
        assert_eq!(waiting.join().unwrap(), (Some(Err(stopped.clone())), None), "who slept is woken");
        assert_eq!(client.watch_with(prefix("")).await.unwrap_err(), stopped);
    });
}

#[test]
fn bad_watches_are_refused() {
    on_both(|dir, runtime| async move {
        let engine = started(alone(&dir, runtime).configure(|c| c.limits.watchers = 2)).await;
        let client = engine.client();
        let refused = client.watch_with(WatchQuery::new(KeyRange::key(""))).await.unwrap_err();
        assert_eq!(refused, WatchError::Refused(CommandError::EmptyKey));
        let long = WatchQuery::new(KeyRange::prefix(vec![b'x'; 5000]));
        let refused = client.watch_with(long).await.unwrap_err();
        assert_eq!(refused, WatchError::Refused(CommandError::KeyTooLong { limit: 4096, found: 5000 }));
        let longest = WatchQuery::new(KeyRange::key(vec![b'x'; 4096]));
        let first = client.watch_with(longest).await.unwrap();
        let _second = client.watch_with(prefix("a").from(Revision(1))).await.unwrap();
        let refused = client.watch_with(prefix("b")).await.unwrap_err();
        assert_eq!(refused, WatchError::TooMany { limit: 2 });
        let zero = client.watch_with(prefix("b").from(Revision(0))).await.unwrap_err();
        assert_eq!(zero, WatchError::Compacted { next: Revision(0), oldest: Revision(1) });
        drop(first);
        assert!(client.watch_with(prefix("b")).await.is_ok(), "its place is free at once");
    });
}

/// Writers, and watches that open at any time, read at their own speed on threads and tasks, and go away: each is told what
/// the log says, from its beginning to its end.
#[test]
fn many_watches_on_many_threads_are_told_the_same() {
    const WRITES: usize = 400;
    on_both(|dir, runtime| async move {
        let builder = alone(&dir, runtime).configure(|c| c.limits.watch_bytes.0 = 64 << 10);
        let engine = Arc::new(started(builder).await);
        let threads: Vec<_> = (0..4)
            .map(|thread| {
                let client = engine.client();
                std::thread::spawn(move || {
                    let mut heard = Vec::new();
                    while heard.last().is_none_or(|(_, last)| *last != "last") {
                        let next = heard
                            .last()
                            .map_or(Revision(2), |(revision, _): &(Revision, String)| revision.next());
                        // A new one each time: on the heels of the old one, and sometimes from the beginning of nothing new.
                        let mut watch = block_on(client.watch_with(prefix("k").from(next))).unwrap();
                        for n in 0..10 * (thread + 1) {
                            let (revision, events) = block_on(told(&mut watch));
                            assert!(revision >= next && events.len() == 1);
                            heard.push((revision, events[0].1.clone().unwrap()));
                            if heard.last().unwrap().1 == "last" {
                                break;
                            }
                            if n % 7 == thread {
                                assert!(watch.revision() >= revision);
                            }
                        }
                    }
                    heard
                })
            })
            .collect();
        let writers: Vec<_> = (0..2)
            .map(|writer| {
                let client = engine.client();
                std::thread::spawn(move || {
                    let mut made = BTreeMap::new();
                    for n in 0..WRITES {
                        let value = format!("{writer}/{n}/{}", "x".repeat(n));
                        let put = block_on(client.put(format!("k{}", n % 3), &value)).unwrap();
                        made.insert(put.revision, value);
                        block_on(client.put("other", "x")).unwrap();
                    }
                    made
                })
            })
            .collect();
        let mut made = BTreeMap::new();
        writers.into_iter().for_each(|writer| made.append(&mut writer.join().unwrap()));
        let last = engine.client().put("k", "last").await.unwrap().revision;
        made.insert(last, "last".to_owned());
        let made: Vec<_> = made.into_iter().collect();
        for thread in threads {
            assert!(thread.join().unwrap() == made, "a watch was told something else");
        }
    });
}

#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// Those that nothing concerns are not woken, and those that are dropped leave nothing behind.
#[test]
fn only_those_that_are_concerned_are_woken() {
    on_both(|dir, runtime| async move {
        let engine = started(alone(&dir, runtime)).await;
        let client = engine.client();
        let (count, mut elsewhere) = (Arc::new(Count::default()), Vec::new());
        let waker = Waker::from(Arc::clone(&count));
        for n in 0..1000 {
            let mut watch = client.watch_with(WatchQuery::new(KeyRange::key(format!("w{n}")))).await.unwrap();
            assert!(watch.poll_next(&mut Context::from_waker(&waker)).is_pending());
            elsewhere.push(watch);
        }
        let mut here = client.watch_with(prefix("k")).await.unwrap();
        for _ in 0..100 {
            let mut gone = client.watch_with(prefix("k")).await.unwrap();
            assert!(gone.poll_next(&mut Context::from_waker(&waker)).is_pending());
        }
        assert_eq!(Arc::strong_count(&count), 1002, "those that are gone wait no more");
        for n in 2..50 {
            client.put("k", n.to_string()).await.unwrap();
            assert_eq!(told(&mut here).await, put(n, "k", &n.to_string()));
        }
        assert_eq!(count.0.load(Ordering::SeqCst), 0);
        client.put("w7", "x").await.unwrap();
        assert_eq!(told(&mut elsewhere[7]).await, put(50, "w7", "x"));
        assert_eq!(engine.status().await.unwrap().watches, 1001);
        drop(elsewhere);
        assert_eq!(engine.status().await.unwrap().watches, 1);
        // A watch's waker holds what it wakes: none is left.
        drop(waker);
        assert_eq!(Arc::strong_count(&count), 1);
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_is_a_stream() {
    let engine = EmbeddedEngine::ephemeral().await.unwrap();
    let client = engine.client();
    let watch = client.watch_with(prefix("k")).await.unwrap();
    let reader = tokio::spawn(watch.map(|item| item.unwrap().revision()).take(3).collect::<Vec<_>>());
    engine.wait_ready(support::PATIENCE).await.unwrap();
    for _ in 0..3 {
        client.put("k", "x").await.unwrap();
    }
    assert_eq!(reader.await.unwrap(), [Revision(2), Revision(3), Revision(4)]);
}

/// A reader that goes from node to node, over kills of the leader and restarts of its own node, sees every revision once.
#[test]
fn a_watch_resumes_anywhere_without_gap_or_repeat() {
    for kind in Group::kinds() {
        block_on(async {
            let group = Group::new(kind);
            let mut engines = group.start_all().await;
            let mut follower = (leader_of(&engines).await + 1) % 3;
            let query = || prefix("k/").with_previous();
            let mut watch = engines[follower].client().watch_with(query()).await.unwrap();
            let (mut heard, mut made) = (Vec::new(), Vec::new());
            let begin = watch.revision();
            for round in 0..3 {
                for n in 0..40 {
                    let at = &engines[n % 3].client();
                    made.push(
                        put_at_last(at, &format!("k/{}", n % 5), &format!("{round}/{n}")).await.revision,
                    );
                    put_at_last(at, "other", "x").await;
                }
                // Half of it, so that the rest is told by another watch.
                for _ in 0..20 {
                    heard.push(watch.next().await.unwrap().unwrap());
                }
                // The leader goes and comes back; then the watch's own node.
                let leader = leader_of(&engines).await;
                for victim in [leader, follower] {
                    engines[victim].stop().await.unwrap();
                    let other = &engines[(victim + 1) % 3].client();
                    made.push(put_at_last(other, "k/away", &format!("{round}")).await.revision);
                    engines[victim] = group.start(victim as u64 + 1).await;
                    if victim == follower {
                        let resume = drain(&mut watch, &mut heard).await;
                        follower = (follower + 1) % 3;
                        // Maybe behind still: then it waits.
                        watch = engines[follower].client().watch_with(query().from(resume)).await.unwrap();
                    }
                }
                leader_of(&engines).await;
            }
            // A put that was not acknowledged may have happened too: the log is what another watch is told from the start.
            let last = put_at_last(&engines[0].client(), "k/last", "x").await.revision;
            until(&mut watch, last, &mut heard).await;
            for engine in &engines {
                let from = query().from(begin.next());
                let mut again = Vec::new();
                until(&mut engine.client().watch_with(from).await.unwrap(), last, &mut again).await;
                assert_eq!(again, heard, "every node tells the same");
            }
            let revisions: Vec<_> = heard.iter().map(WatchItem::revision).collect();
            assert!(revisions.is_sorted_by(|a, b| a < b));
            assert!(
                made.iter().all(|made| revisions.binary_search(made).is_ok()),
                "an acknowledged put was not told"
            );
        });
    }
}

/// What is left of a watch whose engine has stopped; returns where to go on.
async fn drain(watch: &mut Watch, heard: &mut Vec<WatchItem>) -> Revision {
    loop {
        match watch.next().await.unwrap() {
            Ok(item) => heard.push(item),
            Err(WatchError::Stopped { next, failure: None }) => return next,
            Err(error) => panic!("{error}"),
        }
    }
}

async fn until(watch: &mut Watch, last: Revision, heard: &mut Vec<WatchItem>) {
    while heard.last().map(WatchItem::revision) != Some(last) {
        heard.push(watch.next().await.unwrap().unwrap());
    }
}

/// Polling with another waker moves the wake to it.
#[test]
fn the_last_waker_is_woken() {
    on_both(|dir, runtime| async move {
        let engine = started(alone(&dir, runtime)).await;
        let client = engine.client();
        let mut watch = client.watch_with(prefix("k")).await.unwrap();
        let counts = [(); 2].map(|()| Arc::new(Count::default()));
        for count in &counts {
            let waker = Waker::from(Arc::clone(count));
            assert!(watch.poll_next(&mut Context::from_waker(&waker)).is_pending());
        }
        assert_eq!(Arc::strong_count(&counts[0]), 1, "the first waker is not kept");
        client.put("k", "x").await.unwrap();
        while counts[1].0.load(Ordering::SeqCst) == 0 {
            std::thread::yield_now();
        }
        assert!(matches!(watch.poll_next(&mut Context::from_waker(Waker::noop())), Poll::Ready(Some(Ok(_)))));
    });
}

/// How fast one writer's changes reach ten thousand watches of one prefix, on tasks of a runtime.
#[test]
#[ignore = "a measurement"]
fn measured_ten_thousand_watches_of_one_prefix() {
    const WATCHES: usize = 10_000;
    const PUTS: u64 = 50;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    runtime.block_on(async {
        let engine = EmbeddedEngine::ephemeral().await.unwrap();
        engine.wait_ready(support::PATIENCE).await.unwrap();
        let client = engine.client();
        let mut tasks = Vec::new();
        for _ in 0..WATCHES {
            let mut watch = client.watch_with(prefix("k")).await.unwrap();
            tasks.push(tokio::spawn(async move {
                for n in 0..PUTS {
                    assert_eq!(told(&mut watch).await.0, Revision(n + 2));
                }
            }));
        }
        let begin = Instant::now();
        for _ in 0..PUTS {
            client.put("k", "x").await.unwrap();
        }
        let (put, last) = (begin.elapsed(), Instant::now());
        for task in tasks {
            task.await.unwrap();
        }
        let deliveries = WATCHES as f64 * PUTS as f64 / begin.elapsed().as_secs_f64();
        let behind = last.elapsed();
        eprintln!(
            "{deliveries:.0} deliveries a second; {PUTS} puts in {put:?}, the last told {behind:?} after"
        );
    });
}

/// What a writer pays for watches of other keys.
#[test]
#[ignore = "a measurement"]
fn measured_puts_with_watches_elsewhere() {
    const PUTS: usize = 50_000;
    block_on(async {
        for watches in [0, 1, 100, 10_000, 0, 1, 100, 10_000] {
            let engine = EmbeddedEngine::ephemeral().await.unwrap();
            engine.wait_ready(support::PATIENCE).await.unwrap();
            let client = engine.client();
            let mut open = Vec::new();
            for n in 0..watches {
                let mut watch = client.watch_with(prefix(&format!("elsewhere/{n}"))).await.unwrap();
                assert!(watch.poll_next(&mut Context::from_waker(Waker::noop())).is_pending());
                open.push(watch);
            }
            let mut pipeline = client.pipeline();
            let (begin, mut done) = (Instant::now(), Vec::new());
            for n in 0..PUTS {
                pipeline.put(format!("key/{}", n % 1000), "x").unwrap();
                while pipeline.in_flight() >= 256 {
                    pipeline.wait(&mut done);
                }
            }
            while pipeline.in_flight() > 0 {
                pipeline.wait(&mut done);
            }
            assert!(done.iter().all(|done| done.result.is_ok()));
            eprintln!("{watches} watches: {:.0} puts a second", PUTS as f64 / begin.elapsed().as_secs_f64());
        }
    });
}
