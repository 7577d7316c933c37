//! Ranges, the past, compaction and watches through the client, on both drivers, on leaders and followers.
#![allow(clippy::unwrap_used)]

mod support;

use d_engine::config::ByteCount;
use d_engine::kv::{CommandError, PAGE_KEYS, RevisionError};
use d_engine::prelude::*;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use support::{Group, PATIENCE, alone, block_on, leader_of, on_both, poll_once, started};

/// Puts `n` keys `name/00000`, in the order of their names.
fn fill(client: &EmbeddedClient, name: &str, n: usize) {
    let mut pipeline = client.pipeline();
    let mut done = Vec::new();
    for number in 0..n {
        pipeline.put(format!("{name}/{number:05}"), number.to_string()).unwrap();
        if pipeline.in_flight() == 500 {
            pipeline.wait(&mut done);
        }
    }
    while pipeline.in_flight() > 0 {
        pipeline.wait(&mut done);
    }
    assert!(done.iter().all(|done| done.result.is_ok()));
}

fn keys(page: &RangePage) -> Vec<String> {
    page.items.iter().map(|item| String::from_utf8(item.key.to_vec()).unwrap()).collect()
}

#[test]
fn a_range_is_read_page_by_page_at_one_revision() {
    on_both(|dir, runtime| async move {
        let engine = started(alone(&dir, runtime)).await;
        let client = engine.client();
        fill(&client, "k", 2_500);
        client.put("other", "x").await.unwrap();
        let names: Vec<_> = (0..2_500).map(|n| format!("k/{n:05}")).collect();
        let range = || RangeQuery::new(KeyRange::prefix("k/"));

        // Longer than one look at the store, and shorter than a page.
        let whole = client.range(range()).await.unwrap();
        assert_eq!((keys(&whole.value), whole.value.count, whole.value.next), (names.clone(), 2_500, None));

        let mut pages = client.pages(range().limit(700));
        let mut seen = Vec::new();
        while let Some(page) = pages.next().await.unwrap() {
            assert_eq!(page.revision, whole.revision, "what is written meanwhile is not seen");
            assert!(page.value.items.len() <= 700);
            seen.extend(keys(&page.value));
            client.put(format!("k/{:05}x", seen.len()), "later").await.unwrap();
            client.delete(names.last().unwrap()).await.unwrap();
        }
        assert_eq!(seen, names);
        assert!(pages.next().await.unwrap().is_none());

        let query = range().at(whole.revision).descending().keys_only().limit(1_500);
        let page = client.range(query).await.unwrap();
        assert_eq!(keys(&page.value), names.iter().rev().take(1_500).cloned().collect::<Vec<_>>());
        assert!(page.value.items.iter().all(|item| item.value.is_empty()));
        let rest = client.range(page.value.next.unwrap()).await.unwrap();
        assert_eq!(keys(&rest.value), names.iter().rev().skip(1_500).cloned().collect::<Vec<_>>());

        assert_eq!(client.count(KeyRange::all()).await.unwrap().value, 2_500 + 4 - 1 + 1);
        assert_eq!(client.count(KeyRange::prefix("none")).await.unwrap().value, 0);
    });
}

/// Both keys of a pair are always written together, and lie far apart: a page that mixed two states would show it.
#[test]
fn a_long_page_shows_one_state() {
    on_both(|dir, runtime| async move {
        let engine = started(alone(&dir, runtime)).await;
        let client = engine.client();
        fill(&client, "k", 3_000);
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let client = engine.client();
                let mut n = 0;
                while !over.load(Ordering::Relaxed) {
                    n += 1;
                    let both = Txn::new()
                        .then(Op::put("a", n.to_string()))
                        .then(Op::put("z", n.to_string()))
                        .then(Op::delete(format!("k/{:05}", 1 + n % 2_998)));
                    block_on(client.txn(both)).unwrap();
                }
            });
            // Also when a look fails, so that the failure is seen.
            let _over = SetAtEnd(&over);
            for _ in 0..50 {
                let page = block_on(client.range(RangeQuery::new(KeyRange::all()))).unwrap().value;
                let (first, last) = (page.items.first().unwrap(), page.items.last().unwrap());
                if first.key == "a" {
                    assert_eq!((&last.key[..], &last.value), (&b"z"[..], &first.value));
                }
                assert_eq!(page.next, None);
            }
        });
    });
}

struct SetAtEnd<'a>(&'a AtomicBool);

impl Drop for SetAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn limits_of_pages_hold_whatever_is_asked() {
    on_both(|dir, runtime| async move {
        let engine = started(alone(&dir, runtime)).await;
        let client = engine.client();
        fill(&client, "k", PAGE_KEYS + 1);
        let all = || RangeQuery::new(KeyRange::all());
        let page = client.range(all().limit(usize::MAX)).await.unwrap().value;
        assert_eq!((page.items.len(), page.count), (PAGE_KEYS, PAGE_KEYS as u64));
        let rest = client.range(page.next.unwrap()).await.unwrap().value;
        assert_eq!((rest.items.len(), rest.next), (1, None));
        let counted = client.range(all().count_only().limit(usize::MAX)).await.unwrap().value;
        assert_eq!((counted.items.len(), counted.count), (0, PAGE_KEYS as u64 + 1));
        assert_eq!(client.scan_prefix("", usize::MAX).await.unwrap().value.items.len(), PAGE_KEYS);
        let none = client.range(all().limit(0)).await;
        assert_eq!(none, Err(ReadError::Refused(CommandError::RangeLimit)));
        // Values of 256 KiB: sixteen reach the bytes of a page.
        for n in 0..40 {
            client.put(format!("big/{n:02}"), vec![0; 256 << 10]).await.unwrap();
        }
        let big = client.range(RangeQuery::new(KeyRange::prefix("big/"))).await.unwrap().value;
        assert!(big.next.is_some() && (10..=17).contains(&big.items.len()), "{} items", big.items.len());
    });
}

#[test]
fn the_past_is_read_until_it_is_compacted() {
    on_both(|dir, runtime| async move {
        let engine = started(alone(&dir, runtime)).await;
        let client = engine.client();
        for n in 0..5 {
            client.put("k", n.to_string()).await.unwrap();
        }
        client.delete("k").await.unwrap(); // Revision 7; the puts are 2 to 6.
        for (n, revision) in (2..=6).enumerate() {
            let then = client.get_at_revision("k", Revision(revision)).await.unwrap();
            assert_eq!(
                (then.value.unwrap().value, then.revision),
                (n.to_string().into(), Revision(revision))
            );
        }
        assert_eq!(client.get_at_revision("k", Revision(7)).await.unwrap().value, None);
        let history = client.history("k", Revision(1), 100).await.unwrap().value;
        let revisions: Vec<_> = history.iter().map(|(revision, _)| revision.0).collect();
        assert_eq!(revisions, [2, 3, 4, 5, 6, 7]);
        assert_eq!(client.history("k", Revision(4), 2).await.unwrap().value, history[2..4]);

        let compacted = client.compact(Revision(5)).await.unwrap();
        assert_eq!((compacted.value, compacted.revision), (Revision(5), Revision(7)), "it takes no revision");
        assert_eq!(engine.status().await.unwrap().oldest, Revision(5));

        let gone =
            |requested| RevisionError::Compacted { requested: Revision(requested), oldest: Revision(5) };
        let future = RevisionError::Future { requested: Revision(8), current: Revision(7) };
        for level in [ReadLevel::Linearizable, ReadLevel::Lease, ReadLevel::Eventual] {
            let client = client.reading(level);
            for (revision, error) in [(4, gone(4)), (0, gone(0)), (8, future)] {
                let error = ReadError::Revision(error);
                let revision = Revision(revision);
                assert_eq!(client.get_at_revision("k", revision).await, Err(error.clone()));
                let query = RangeQuery::new(KeyRange::all()).at(revision);
                assert_eq!(client.range(query).await, Err(error));
            }
            assert_eq!(client.history("k", Revision(4), 9).await, Err(ReadError::Revision(gone(4))));
            assert!(client.get_at_revision("k", Revision(5)).await.is_ok());
        }
        assert_eq!(
            client.compact(Revision(9)).await.unwrap_err(),
            WriteError::Revision(RevisionError::Future { requested: Revision(9), current: Revision(7) })
        );
        for again in [5, 4, 0] {
            let refused = client.compact(Revision(again)).await.unwrap_err();
            assert!(matches!(refused, WriteError::Revision(RevisionError::Compacted { .. })), "{refused}");
            assert!(!refused.may_have_happened());
        }
        let refused = client.get_at_revision("", Revision(7)).await;
        assert_eq!(refused, Err(ReadError::Refused(CommandError::EmptyKey)));
    });
}

#[test]
fn history_is_kept_as_configured() {
    on_both(|dir, runtime| async move {
        let builder = alone(&dir, runtime).configure(|c| {
            c.history.changes = 10;
            c.history.bytes = ByteCount(1 << 20);
        });
        let engine = started(builder).await;
        let client = engine.client();
        for n in 0..100 {
            client.put("k", n.to_string()).await.unwrap();
        }
        let status = engine.status().await.unwrap();
        assert!((1..=10).contains(&status.history_changes), "{} changes", status.history_changes);
        let oldest = client.get_at_revision("k", status.oldest).await.unwrap();
        assert!(oldest.value.is_some());
        let older = client.get_at_revision("k", Revision(status.oldest.0 - 1)).await;
        assert!(matches!(older, Err(ReadError::Revision(RevisionError::Compacted { .. }))));
    });
}

#[test]
fn ranges_are_removed_at_one_revision() {
    on_both(|dir, runtime| async move {
        let engine = started(alone(&dir, runtime)).await;
        let client = engine.client();
        fill(&client, "k", 100);
        let before = engine.status().await.unwrap().revision;
        let range = KeyRange::between("k/00010", "k/00020").unwrap();
        let removed = client.delete_range(range.clone()).await.unwrap();
        assert_eq!((removed.value, removed.revision), (10, before.next()));
        let again = client.delete_range(range).await.unwrap();
        assert_eq!((again.value, again.revision), (0, before.next()), "nothing changed, no revision");
        assert_eq!(client.count(KeyRange::all()).await.unwrap().value, 90);
        for (start, end) in [("b", "a"), ("a", "a"), ("a", "")] {
            assert_eq!(KeyRange::between(start, end), Err(CommandError::Range));
        }
        let session = client.open_session(SessionOptions::default()).await.unwrap();
        assert_eq!(session.delete_range(KeyRange::all()).await.unwrap().value, 90);
    });
}

/// The same calls on the leader and on a follower, which passes writes on and catches up for reads.
#[test]
fn leader_and_follower_answer_alike() {
    for kind in Group::kinds() {
        block_on(async {
            let group = Group::new(kind);
            let engines = group.start_all().await;
            let leader = leader_of(&engines).await;
            for at in [leader, (leader + 1) % 3] {
                let (writer, reader) = (engines[at].client(), engines[(at + 1) % 3].client());
                let name = format!("{at}");
                let first = writer.put(&name, "1").await.unwrap().revision;
                let kept = writer.put_attached(&name, "2", Attach::Keep).await.unwrap();
                assert_eq!(kept.value, None);
                // Acknowledged, so a linearizable read on any node waits until it is there.
                let then = reader.get_at_revision(&name, kept.revision).await.unwrap();
                assert_eq!(then.value.unwrap().value, "2");
                let then = reader.get_at_revision(&name, first).await.unwrap();
                assert_eq!(then.value.unwrap().value, "1");
                assert_eq!(reader.history(&name, first, 9).await.unwrap().value.len(), 2);
                assert_eq!(reader.count(KeyRange::key(&name)).await.unwrap().value, 1);
                let far = Revision(kept.revision.0 + 1_000);
                for level in [ReadLevel::Eventual, ReadLevel::Linearizable] {
                    let early = reader.reading(level).get_at_revision(&name, far).await;
                    assert!(matches!(early, Err(ReadError::Revision(RevisionError::Future { .. }))));
                }
                let txn = Txn::new().when(Compare::value(&name, "2")).then(Op::delete(&name));
                let done = writer.txn(txn).await.unwrap();
                assert_eq!((done.value.succeeded, done.value.results), (true, vec![OpReply::Deleted(1)]));
                assert_eq!(reader.get(&name).await.unwrap().value, None);
            }
        });
    }
}

#[test]
fn a_watch_tells_what_a_read_did_not_show() {
    on_both(|dir, runtime| async move {
        let engine = started(alone(&dir, runtime)).await;
        let client = engine.client();
        fill(&client, "k", 3);
        let read = client.range(RangeQuery::new(KeyRange::prefix("k/"))).await.unwrap();
        let query = WatchQuery::new(KeyRange::prefix("k/")).from(read.revision.next());
        let mut watch = client.watch_with(query).await.unwrap();
        let mut key = client.watch("k/00001").await.unwrap();
        let mut deletes = client
            .watch_with(WatchQuery::new(KeyRange::all()).only(Filter::Deletes).with_previous())
            .await
            .unwrap();
        client.put("other", "x").await.unwrap();
        client.put("k/00001", "new").await.unwrap();
        client.delete_range(KeyRange::prefix("k/")).await.unwrap();

        let put = watch.next().await.unwrap().unwrap();
        assert!(matches!(put.events(), [Event::Put { new, .. }] if new.value == "new"));
        let gone = watch.next().await.unwrap().unwrap();
        assert_eq!((gone.events().len(), gone.revision()), (3, put.revision().next()));
        let both = [key.next().await.unwrap().unwrap(), key.next().await.unwrap().unwrap()];
        assert!(both.iter().all(|item| item.events().len() == 1));
        let deleted = deletes.next().await.unwrap().unwrap();
        assert!(
            matches!(&deleted.events()[1], Event::Delete { previous: Some(was), .. } if was.value == "new")
        );

        // From the past.
        let mut past =
            client.watch_with(WatchQuery::new(KeyRange::prefix("k/")).from(Revision(2))).await.unwrap();
        for revision in [2, 3, 4] {
            assert_eq!(past.next().await.unwrap().unwrap().revision(), Revision(revision));
        }
        let mut next = pin!(watch.next());
        assert_eq!(poll_once(next.as_mut()), Poll::Pending);
    });
}

#[test]
fn a_watch_ends_with_its_engine_and_none_begins_after_it() {
    on_both(|dir, runtime| async move {
        let engine = started(alone(&dir, runtime)).await;
        let client = engine.client();
        let put = client.put("k", "1").await.unwrap();
        let query = || WatchQuery::new(KeyRange::key("k")).from(put.revision);
        let mut watch = client.watch_with(query()).await.unwrap();
        engine.stop().await.unwrap();
        let mut last = watch.next().await;
        if let Some(Ok(item)) = &last {
            assert_eq!(item.revision(), put.revision);
            last = watch.next().await;
        }
        let stopped = |ended: &WatchError| matches!(ended, WatchError::Stopped { .. });
        assert!(matches!(last, Some(Err(ended)) if stopped(&ended)));
        match client.watch_with(query()).await {
            Err(error) => assert!(stopped(&error)),
            // What it had applied may still be told.
            Ok(mut late) => loop {
                match late.next().await {
                    Some(Ok(_)) => {}
                    Some(Err(error)) => break assert!(stopped(&error)),
                    None => panic!("it says why it ends"),
                }
            },
        }
    });
}

#[test]
fn a_watch_from_what_was_compacted_is_refused() {
    on_both(|dir, runtime| async move {
        let engine = started(alone(&dir, runtime)).await;
        let client = engine.client();
        for n in 0..5 {
            client.put("k", n.to_string()).await.unwrap();
        }
        client.compact(Revision(5)).await.unwrap();
        let from = |revision| WatchQuery::new(KeyRange::key("k")).from(Revision(revision));
        let refused = match client.watch_with(from(3)).await {
            Ok(mut watch) => watch.next().await.expect("it says why it ends").unwrap_err(),
            Err(error) => error,
        };
        assert_eq!(refused, WatchError::Compacted { next: Revision(3), oldest: Revision(5) });
        let mut watch = client.watch_with(from(5)).await.unwrap();
        assert_eq!(watch.next().await.unwrap().unwrap().revision(), Revision(5));
        // The future is waited for.
        let mut ahead = client.watch_with(from(8)).await.unwrap();
        client.put("k", "at 7").await.unwrap();
        client.put("k", "at 8").await.unwrap();
        assert_eq!(ahead.next().await.unwrap().unwrap().revision(), Revision(8));
    });
}

#[test]
fn members_are_told_once_and_then_the_end() {
    on_both(|dir, runtime| async move {
        let engine = started(alone(&dir, runtime)).await;
        let mut watch = engine.watch_membership();
        let members = watch.changed().await.unwrap();
        assert_eq!(
            members.iter().map(|member| (member.id, member.votes)).collect::<Vec<_>>(),
            [(NodeId(1), true)]
        );
        {
            let mut next = pin!(watch.changed());
            assert_eq!(poll_once(next.as_mut()), Poll::Pending);
        }
        engine.stop().await.unwrap();
        assert_eq!(watch.changed().await, None);
        let mut late = engine.watch_membership();
        assert_eq!(late.changed().await, None);
    });
    block_on(async {
        let engines = Group::new(Group::kinds()[0]).start_all().await;
        engines[1].wait_ready(PATIENCE).await.unwrap();
        assert_eq!(engines[1].watch_membership().changed().await.unwrap().len(), 3);
    });
}
