//! Three engines of one process on loopback, with both drivers and both together.
#![allow(clippy::unwrap_used)]

mod support;

use d_engine::prelude::*;
use std::time::{Duration, Instant};
use support::{Group, PATIENCE, block_on, leader_of, put_at_last};

#[test]
fn every_node_takes_every_call() {
    for kind in Group::kinds() {
        block_on(async {
            let engines = Group::new(kind).start_all().await;
            for engine in &engines {
                let (client, id) = (engine.client(), engine.id());
                let key = format!("k/{id}");
                let put = client.put(&key, "1").await.unwrap();
                // Its own write, on the node that wrote it and on every other.
                for other in &engines {
                    let other = other.client();
                    for level in [ReadLevel::Linearizable, ReadLevel::Lease] {
                        let read = other.get_at(level, &key).await.unwrap();
                        assert!(read.revision >= put.revision);
                        assert_eq!(read.value.unwrap().value, "1");
                    }
                }
                let swap = client.compare_and_swap(&key, Expected::Value("1".into()), "2").await.unwrap();
                assert!(swap.value.is_done());
                let refused = client.compare_and_swap(&key, Expected::Absent, "3").await.unwrap();
                let Swap::Refused { current: Some(current) } = refused.value else { panic!("it is there") };
                assert_eq!(current.value, "2");
            }
            assert!(engines[1].client().delete("k/1").await.unwrap().value);
            let scanned = engines[2].client().scan_prefix("k/", 9).await.unwrap().value;
            assert_eq!(scanned.items.len(), 2);
            let refused = engines[0].client().put("", "").await;
            assert!(matches!(refused, Err(WriteError::Refused(_))));
            agree(&engines).await;
        });
    }
}

/// All nodes have the same state, at the same revision.
async fn agree(engines: &[EmbeddedEngine]) {
    let mut seen = Vec::new();
    for engine in engines {
        // A linearizable read waits until this node has caught up.
        engine.client().get("any").await.unwrap();
        let status = engine.status().await.unwrap();
        assert_eq!(status.members.len(), 3);
        seen.push((status.revision, status.digest));
    }
    assert!(seen.iter().all(|one| *one == seen[0]), "{seen:?}");
}

#[test]
fn a_group_outlives_its_leader_and_takes_it_back() {
    for kind in Group::kinds() {
        block_on(async {
            let group = Group::new(kind);
            let mut engines = group.start_all().await;
            for n in 0..20 {
                engines[n % 3].client().put(format!("before/{n}"), "x").await.unwrap();
            }
            let leader = leader_of(&engines).await;
            let old = engines.remove(leader);
            let stopped = Instant::now();
            old.stop().await.unwrap();
            let first = put_at_last(&engines[0].client(), "after", "x").await;
            assert!(stopped.elapsed() < Duration::from_secs(10), "{:?}", stopped.elapsed());
            for engine in &engines {
                let page = engine.client().scan_prefix("before/", 100).await.unwrap();
                assert_eq!(page.value.items.len(), 20);
                assert!(page.revision >= first.revision);
            }
            drop(old);
            let back = group.start(leader as u64 + 1).await;
            back.wait_ready(PATIENCE).await.unwrap();
            let page = back.client().scan_prefix("", 100).await.unwrap();
            assert_eq!(page.value.items.len(), 21);
            engines.push(back);
            agree(&engines).await;
        });
    }
}

#[test]
fn a_leader_that_stops_hands_over_first() {
    // Long enough that an election by timeout, or by the news that the leader is gone, cannot be what was seen.
    const HEARTBEAT: Duration = Duration::from_millis(700);
    const PROMISE: Duration = Duration::from_millis(2_100);
    for kind in Group::kinds() {
        block_on(async {
            let group = Group::new(kind);
            let mut engines = Vec::new();
            for id in 1..=3 {
                let builder = group.builder(id).heartbeat(HEARTBEAT).election_timeout(PROMISE + HEARTBEAT);
                engines.push(builder.start().await.unwrap());
            }
            for engine in &engines {
                engine.wait_ready(PATIENCE).await.unwrap();
            }
            let leader = leader_of(&engines).await;
            let old = engines.remove(leader);
            // In flight when it stops: it is answered, by this leader or by the next.
            let (client, mut pipeline) = (old.client(), old.client().pipeline());
            client.put("before", "x").await.unwrap();
            for n in 0..100 {
                pipeline.put(format!("{n}"), "x").unwrap();
            }
            let began = Instant::now();
            old.stop().await.unwrap();
            put_at_last(&engines[0].client(), "after", "x").await;
            assert!(began.elapsed() < PROMISE - HEARTBEAT, "{:?}", began.elapsed());
            let mut done = Vec::new();
            while pipeline.in_flight() > 0 {
                pipeline.wait(&mut done);
            }
            // Taken and answered, or never taken: nobody is left without knowing.
            for completion in &done {
                let told = match &completion.result {
                    Ok(_) => true,
                    Err(error) => error.to_string().contains("nothing was written"),
                };
                assert!(told, "{completion:?}");
            }
            assert!(client.put("late", "x").await.is_err());
        });
    }
}

#[test]
fn leadership_is_handed_over_on_demand() {
    for kind in Group::kinds() {
        block_on(async {
            let engines = Group::new(kind).start_all().await;
            let leader = leader_of(&engines).await;
            let next = (leader + 1) % 3;
            let follower = engines[next].client().transfer_leadership(NodeId(1)).await;
            assert!(matches!(follower, Err(AdminError::NotLeader { leader: Some(_) })), "{follower:?}");
            let client = engines[leader].client();
            assert!(matches!(client.transfer_leadership(NodeId(9)).await, Err(AdminError::Refused(_))));
            let mut watch = engines[next].watch_leader();
            client.transfer_leadership(engines[next].id()).await.unwrap();
            while watch.leader().await != Some(engines[next].id()) {
                watch.changed().await.unwrap();
            }
            put_at_last(&client, "a", "1").await;
            assert_eq!(engines[next].client().get("a").await.unwrap().value.unwrap().value, "1");
        });
    }
}

#[test]
fn a_pipeline_on_a_follower_is_forwarded() {
    for kind in Group::kinds() {
        block_on(async {
            let engines = Group::new(kind).start_all().await;
            let follower = (leader_of(&engines).await + 1) % 3;
            let mut pipeline = engines[follower].client().pipeline();
            for n in 0..500 {
                pipeline.put(format!("{n}"), vec![b'x'; 256]).unwrap();
            }
            let mut done = Vec::new();
            while pipeline.in_flight() > 0 {
                pipeline.wait(&mut done);
            }
            let failed: Vec<_> = done.iter().filter(|done| done.result.is_err()).collect();
            assert!(failed.is_empty(), "{failed:?}");
            agree(&engines).await;
        });
    }
}

#[test]
fn from_memory_too() {
    for kind in Group::kinds() {
        block_on(async {
            let group = Group::new(kind);
            let mut engines = Vec::new();
            for id in 1..=3 {
                let builder = group.builder(id).durability(Durability::MemFirst);
                engines.push(builder.start().await.unwrap());
            }
            for engine in &engines {
                engine.wait_ready(PATIENCE).await.unwrap();
                let put = engine.client().put("a", "1").await.unwrap();
                assert_eq!(put.durability, Durability::MemFirst);
            }
        });
    }
}

#[test]
fn a_peer_whose_name_does_not_resolve_is_missing_and_nothing_more() {
    for kind in Group::kinds() {
        block_on(async {
            let group = Group::new(kind);
            let addresses = group.addresses;
            let mut engines = Vec::new();
            for id in 1..=2 {
                let peers = [
                    (1, addresses[0].to_string()),
                    (2, addresses[1].to_string()),
                    (3, "no-such-host.invalid:9081".to_owned()),
                ];
                engines.push(group.builder(id).peers(peers).start().await.unwrap());
            }
            for engine in &engines {
                engine.wait_ready(PATIENCE).await.unwrap();
                engine.client().put("a", "1").await.unwrap();
            }
        });
    }
}

#[test]
fn a_stranger_is_refused_and_counted() {
    for kind in Group::kinds() {
        block_on(async {
            let group = Group::new(kind);
            // Node 3 has its certificate from another authority.
            let stranger = group.builder(3).development_certificates(group.path().join("elsewhere"));
            let stranger = stranger.start().await.unwrap();
            let engines = [group.start(1).await, group.start(2).await];
            for engine in &engines {
                engine.wait_ready(PATIENCE).await.unwrap();
            }
            let client = engines[0].client();
            while engines[0].status().await.unwrap().counters.refused_connections == 0 {
                client.put("a", "1").await.unwrap();
            }
            let waited = Duration::from_millis(100);
            assert_eq!(stranger.wait_ready(waited).await, Err(ReadyError::Timeout { waited }));
            assert_eq!(stranger.client().get_eventual("a").await.unwrap().value, None);
        });
    }
}
