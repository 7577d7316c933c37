//! Locks, elections and registries, on both drivers, over lost leaders.
#![allow(clippy::unwrap_used)]

mod support;

use d_engine::kv::CommandError;
use d_engine::prelude::*;
use d_engine::recipes::{Election, Fence, InstanceChange, Keeper, Lock, Observer, RecipeError, Registry};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use support::{Group, PATIENCE, alone, block_on, leader_of, on_both, poll_once, started};

const SHORT: Duration = Duration::from_millis(500);

#[test]
fn a_lock_has_one_holder_at_a_time_and_tokens_rise() {
    on_both(|dir, runtime| async move {
        let engine = started(alone(&dir, runtime)).await;
        let (inside, taken, fence) = (AtomicBool::new(false), AtomicU64::new(0), Fence::new());
        std::thread::scope(|scope| {
            for contender in 0..4 {
                let (engine, inside, taken, fence) = (&engine, &inside, &taken, &fence);
                scope.spawn(move || {
                    let lock =
                        Lock::new(&Keeper::new(engine.client()), "lock/x").value(contender.to_string());
                    for _ in 0..10 {
                        let guard = block_on(lock.acquire()).unwrap();
                        assert!(!inside.swap(true, Ordering::SeqCst), "two holders at once");
                        assert!(guard.is_held());
                        fence.admit(guard.token()).unwrap();
                        assert!(guard.token().0 > taken.swap(guard.token().0, Ordering::SeqCst));
                        inside.store(false, Ordering::SeqCst);
                        assert!(block_on(guard.release()).unwrap());
                    }
                });
            }
        });
        let client = engine.client();
        assert_eq!(client.count(KeyRange::all()).await.unwrap().value, 0, "nothing is left behind");
    });
}

#[test]
fn those_who_wait_are_served_in_order() {
    on_both(|dir, runtime| async move {
        let engine = started(alone(&dir, runtime)).await;
        let keeper = Keeper::new(engine.client());
        let lock = |owner: &str| Lock::new(&keeper, "lock/x").value(owner);
        let first = lock("first").acquire().await.unwrap();
        let order = std::sync::Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for n in 0..5 {
                let lock = lock(&n.to_string());
                let order = &order;
                scope.spawn(move || {
                    let guard = block_on(lock.acquire()).unwrap();
                    order.lock().unwrap().push((n, guard.token()));
                    block_on(guard.release()).unwrap();
                });
                // The next one comes when this one stands in line.
                while block_on(engine.client().count(KeyRange::prefix("lock/x/"))).unwrap().value < n + 2 {
                    std::thread::yield_now();
                }
            }
            let holder = block_on(lock("").holder()).unwrap().unwrap();
            assert_eq!((holder.token, holder.value), (first.token(), "first".into()));
            assert!(block_on(lock("").try_acquire()).unwrap().is_none());
            assert!(block_on(lock("").acquire_within(Duration::from_millis(20))).unwrap().is_none());
            block_on(first.release()).unwrap();
        });
        let order = order.into_inner().unwrap();
        assert_eq!(order.iter().map(|&(n, _)| n).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
        assert!(order.windows(2).all(|pair| pair[0].1 < pair[1].1));
        let guard = lock("").try_acquire().await.unwrap().unwrap();
        drop(guard);
        // Dropped, it is let go in the background.
        lock("").acquire().await.unwrap();
    });
}

/// Names that begin alike are different locks.
#[test]
fn one_lock_does_not_see_another() {
    on_both(|dir, runtime| async move {
        let engine = started(alone(&dir, runtime)).await;
        let keeper = Keeper::new(engine.client());
        let inner = Lock::new(&keeper, "a/b").acquire().await.unwrap();
        engine.client().put("a/0000000000000001", "not attached to a lease").await.unwrap();
        let outer = Lock::new(&keeper, "a").try_acquire().await.unwrap().unwrap();
        assert!(inner.is_held() && outer.is_held());
        assert_eq!(Lock::new(&keeper, "b").holder().await.unwrap(), None);
    });
}

#[test]
fn a_lock_whose_lease_is_revoked_is_lost_and_the_next_has_a_greater_token() {
    on_both(|dir, runtime| async move {
        let engine = started(alone(&dir, runtime)).await;
        let client = engine.client();
        let lock = Lock::new(&Keeper::new(engine.client()), "lock/x").ttl(SHORT);
        let guard = lock.acquire().await.unwrap();
        let write = Txn::new().when(guard.held()).then(Op::put("protected", "mine"));
        assert!(client.txn(write.clone()).await.unwrap().value.succeeded);
        let holder = lock.holder().await.unwrap().unwrap();
        client.lease_revoke(holder.lease).await.unwrap();
        let next = lock.acquire().await.unwrap();
        assert!(next.token() > guard.token());
        assert!(!client.txn(write).await.unwrap().value.succeeded, "the old holder writes nothing more");
        guard.lost().await;
        assert!(!guard.is_held());
        assert!(!guard.release().await.unwrap(), "it was not held any more");
        assert!(next.is_held());
    });
}

/// A lease that is kept outlives its time to live many times over.
#[test]
fn a_lease_is_kept_as_long_as_somebody_holds_it() {
    on_both(|dir, runtime| async move {
        let engine = started(alone(&dir, runtime)).await;
        let keeper = Keeper::new(engine.client());
        let ttl = Duration::from_millis(200);
        let kept = keeper.grant(ttl).await.unwrap();
        let client = engine.client();
        client.put_with_lease("kept", "", kept.id()).await.unwrap();
        // A lease that nobody keeps tells the time.
        for _ in 0..5 {
            let put = client.put_with_ttl("clock", "", ttl).await.unwrap();
            let query = WatchQuery::new(KeyRange::key("clock")).from(put.revision.next());
            client.watch_with(query).await.unwrap().next().await.unwrap().unwrap();
            assert!(kept.is_kept());
        }
        assert!(client.get("kept").await.unwrap().value.is_some());
        assert!(kept.release().await.unwrap());
        assert_eq!(client.get("kept").await.unwrap().value, None);
        let refused = keeper.grant(Duration::ZERO).await.unwrap_err();
        let ttl = CommandError::LeaseTtl { found: Duration::ZERO };
        assert_eq!(refused, RecipeError::Write(WriteError::Refused(ttl)));
    });
}

#[test]
fn a_keeper_ends_with_its_engine_and_says_so() {
    on_both(|dir, runtime| async move {
        let engine = started(alone(&dir, runtime)).await;
        let lock = Lock::new(&Keeper::new(engine.client()), "lock/x").ttl(SHORT);
        let guard = lock.acquire().await.unwrap();
        let mut second = pin!(lock.acquire());
        assert!(poll_once(second.as_mut()).is_pending());
        engine.stop().await.unwrap();
        guard.lost().await;
        assert!(!guard.is_held());
        let failed = second.await.unwrap_err();
        assert!(!matches!(failed, RecipeError::Lost), "{failed}");
        assert!(matches!(lock.acquire().await, Err(RecipeError::Write(WriteError::Stopped(_)))));
    });
}

#[test]
fn a_holder_that_cannot_keep_its_lease_alive_knows_before_anybody_else() {
    block_on(async {
        let group = Group::new(Group::kinds()[0]);
        let mut engines = Vec::new();
        for id in 1..=3 {
            engines
                .push(group.builder(id).request_timeout(Duration::from_millis(300)).start().await.unwrap());
        }
        for engine in &engines {
            engine.wait_ready(PATIENCE).await.unwrap();
        }
        let holder = engines.remove(0);
        let lock = Lock::new(&Keeper::new(holder.client()), "lock/x").ttl(SHORT);
        let guard = lock.acquire().await.unwrap();
        // Nobody is left to agree: the lease cannot be kept alive, and time does not pass in the log either.
        drop(engines);
        guard.lost().await;
        assert!(!guard.is_held());
        let local = holder.client().reading(ReadLevel::Eventual);
        assert_eq!(
            local.count(KeyRange::prefix("lock/x/")).await.unwrap().value,
            1,
            "the store still shows it"
        );
    });
}

#[test]
fn locks_go_on_over_lost_leaders() {
    for kind in Group::kinds() {
        let group = Group::new(kind);
        let mut engines = block_on(group.start_all());
        let (inside, newest) = (AtomicBool::new(false), AtomicU64::new(0));
        let leader = block_on(leader_of(&engines));
        let stopped = engines.remove(leader);
        std::thread::scope(|scope| {
            for engine in &engines {
                let (inside, newest) = (&inside, &newest);
                scope.spawn(move || {
                    let lock =
                        Lock::new(&Keeper::new(engine.client()), "lock/x").ttl(Duration::from_secs(20));
                    for _ in 0..10 {
                        let guard = loop {
                            match block_on(lock.acquire()) {
                                Ok(guard) => break guard,
                                Err(RecipeError::Write(_) | RecipeError::Read(_)) => {}
                                Err(error) => panic!("{error}"),
                            }
                        };
                        assert!(!inside.swap(true, Ordering::SeqCst), "two holders at once");
                        assert!(newest.swap(guard.token().0, Ordering::SeqCst) < guard.token().0);
                        inside.store(false, Ordering::SeqCst);
                        drop(guard);
                    }
                });
            }
            drop(stopped);
        });
    }
}

#[test]
fn an_election_has_one_winner_whom_everybody_sees() {
    for kind in Group::kinds() {
        block_on(async {
            let engines = Group::new(kind).start_all().await;
            let elections: Vec<_> =
                engines.iter().map(|engine| Election::new(&Keeper::new(engine.client()), "boss")).collect();
            let mut observers: Vec<_> = elections.iter().map(Election::observe).collect();
            for observer in &mut observers {
                assert_eq!(observer.next().await.unwrap(), None);
            }
            for (n, election) in elections.iter().enumerate() {
                let reign = election.campaign(format!("{n}")).await.unwrap();
                assert!(reign.is_leading());
                for observer in &mut observers {
                    assert_eq!(told(observer, reign.token()).await, n.to_string());
                }
                reign.proclaim(format!("{n}, really")).await.unwrap();
                for observer in &mut observers {
                    assert_eq!(told(observer, reign.token()).await, format!("{n}, really"));
                }
                let next = &elections[(n + 1) % 3];
                assert_eq!(next.leader().await.unwrap().unwrap().token, reign.token());
                let mut candidate = pin!(next.campaign("next"));
                assert!(poll_once(candidate.as_mut()).is_pending());
                assert!(reign.resign().await.unwrap());
                let followed = candidate.await.unwrap();
                for observer in &mut observers {
                    assert_eq!(told(observer, followed.token()).await, "next");
                }
                followed.resign().await.unwrap();
            }
        });
    }
}

/// What the leader with `token` says. Nobody may be told before it, but no former leader.
async fn told(observer: &mut Observer<EmbeddedClient>, token: Revision) -> String {
    loop {
        if let Some(leader) = observer.next().await.unwrap() {
            assert_eq!(leader.token, token, "{leader:?}");
            return String::from_utf8(leader.value.to_vec()).unwrap();
        }
    }
}

#[test]
fn a_deposed_leader_proclaims_nothing() {
    on_both(|dir, runtime| async move {
        let engine = started(alone(&dir, runtime)).await;
        let election = Election::new(&Keeper::new(engine.client()), "boss").ttl(SHORT);
        let reign = election.campaign("one").await.unwrap();
        engine.client().delete_range(KeyRange::prefix("boss/")).await.unwrap();
        assert_eq!(reign.proclaim("still me").await, Err(RecipeError::Lost));
        assert_eq!(election.leader().await.unwrap(), None);
    });
}

#[test]
fn a_registry_lists_who_is_there_and_tells_who_comes_and_goes() {
    on_both(|dir, runtime| async move {
        let engine = started(alone(&dir, runtime)).await;
        let registry = Registry::new(&Keeper::new(engine.client()), "services").ttl(SHORT);
        let a = registry.register("mail", "a", "10.0.0.1").await.unwrap();
        registry.register("web", "x", "10.9.9.9").await.unwrap();
        let mut watch = registry.watch("mail").unwrap();
        let told = |change: InstanceChange| match change {
            InstanceChange::Joined(at) => ("joined", at.id, at.value),
            InstanceChange::Updated(at) => ("updated", at.id, at.value),
            InstanceChange::Left(at) => ("left", at.id, at.value),
        };
        let row = |what, id: &'static str, value: &'static str| (what, id.into(), value.into());
        assert_eq!(told(watch.next().await.unwrap()), row("joined", "a", "10.0.0.1"));
        let b = registry.register("mail", "b", "10.0.0.2").await.unwrap();
        assert_eq!(told(watch.next().await.unwrap()), row("joined", "b", "10.0.0.2"));
        b.update("10.0.0.3").await.unwrap();
        assert_eq!(told(watch.next().await.unwrap()), row("updated", "b", "10.0.0.3"));
        let listed: Vec<_> =
            registry.list("mail").await.unwrap().into_iter().map(|at| (at.id, at.value)).collect();
        assert_eq!(listed, [("a".into(), "10.0.0.1".into()), ("b".into(), "10.0.0.3".into())]);

        // Restarted, it takes its own place over; the older registration takes nothing with it.
        let again = registry.register("mail", "a", "10.0.0.7").await.unwrap();
        assert_eq!(told(watch.next().await.unwrap()), row("updated", "a", "10.0.0.7"));
        assert_eq!(a.update("10.0.0.8").await, Err(RecipeError::Lost));
        drop(a);
        b.deregister().await.unwrap();
        assert_eq!(told(watch.next().await.unwrap()), row("left", "b", "10.0.0.3"));
        assert!(again.is_kept());
        assert_eq!(registry.list("mail").await.unwrap().len(), 1);

        for name in ["", "a/b"] {
            let refused = RecipeError::Name { name: name.to_owned() };
            assert_eq!(registry.register(name, "x", "").await.unwrap_err(), refused);
            assert_eq!(registry.register("x", name, "").await.unwrap_err(), refused);
            assert_eq!(registry.list(name).await.unwrap_err(), refused);
            assert_eq!(registry.watch(name).unwrap_err(), refused);
        }
    });
}

/// Compacted away under a watch that was not asked for a while: who came and went is told all the same.
#[test]
fn a_registry_watch_survives_compaction() {
    on_both(|dir, runtime| async move {
        let engine = started(alone(&dir, runtime).configure(|c| c.history.changes = 2)).await;
        let registry = Registry::new(&Keeper::new(engine.client()), "services");
        let a = registry.register("mail", "a", "1").await.unwrap();
        let b = registry.register("mail", "b", "1").await.unwrap();
        let mut watch = registry.watch("mail").unwrap();
        for _ in 0..2 {
            assert!(matches!(watch.next().await.unwrap(), InstanceChange::Joined(_)));
        }
        a.deregister().await.unwrap();
        let c = registry.register("mail", "c", "1").await.unwrap();
        b.update("2").await.unwrap();
        for n in 0..100 {
            engine.client().put("other", n.to_string()).await.unwrap();
        }
        let mut changes = Vec::new();
        for _ in 0..3 {
            changes.push(match watch.next().await.unwrap() {
                InstanceChange::Left(at) => ("left", at.id),
                InstanceChange::Updated(at) => ("updated", at.id),
                InstanceChange::Joined(at) => ("joined", at.id),
            });
        }
        changes.sort_unstable();
        assert_eq!(changes, [("joined", "c".into()), ("left", "a".into()), ("updated", "b".into())]);
        drop((b, c));
    });
}
