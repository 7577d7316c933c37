//! Leases and times to live through the client, on both drivers: what lives, what ends, and what is refused.
#![allow(clippy::unwrap_used)]

mod support;

use d_engine::kv::{CommandError, LEASE_TTL, LeaseError};
use d_engine::prelude::*;
use std::time::{Duration, Instant};
use support::{Group, PATIENCE, alone, block_on, leader_of, on_both, put_at_last, started};

const LONG: Duration = Duration::from_secs(60);

#[test]
fn a_lease_and_its_keys_live_and_end_together() {
    on_both(|dir, runtime| async move {
        let engine = started(alone(&dir, runtime)).await;
        let client = engine.client();
        let session = client.open_session(SessionOptions::default()).await.unwrap();
        let lease = client.lease_grant(LONG).await.unwrap();
        client.put_with_lease("a", "1", lease.value).await.unwrap();
        session.put_with_lease("b", "1", lease.value).await.unwrap();
        let swap = client
            .compare_and_swap_attached("c", Expected::Absent, "1", Attach::Lease(lease.value))
            .await
            .unwrap();
        assert_eq!(swap.value, AttachedSwap::Done { lease: Some(lease.value) });
        let refused =
            client.compare_and_swap_attached("c", Expected::Absent, "2", Attach::Ttl(LONG)).await.unwrap();
        assert!(
            matches!(refused.value, AttachedSwap::Refused { current: Some(found) } if found.lease == Some(lease.value))
        );

        let status = client.lease_status(lease.value).await.unwrap().value.unwrap();
        assert_eq!((status.ttl, status.keys), (LONG, 3));
        assert!(status.left <= LONG);
        let keys = client.lease_keys(lease.value, None, 2).await.unwrap().value.unwrap();
        assert_eq!(keys, ["a", "b"]);
        assert_eq!(client.lease_keys(lease.value, Some(b"b"), 9).await.unwrap().value.unwrap(), ["c"]);
        // A put that does not name it detaches.
        client.put("b", "2").await.unwrap();
        assert_eq!(client.put_attached("a", "2", Attach::Keep).await.unwrap().value, Some(lease.value));
        assert_eq!(client.lease_keep_alive(lease.value).await.unwrap().value, LONG);
        assert_eq!(session.lease_keep_alive(lease.value).await.unwrap().value, LONG);
        let revoked = client.lease_revoke(lease.value).await.unwrap();
        assert_eq!(revoked.value, 2);
        let left = client.scan_prefix("", 10).await.unwrap().value.items;
        assert_eq!(left.iter().map(|item| &item.key[..]).collect::<Vec<_>>(), [b"b"]);

        // A lease of one key goes with the key.
        let own = client.put_with_ttl("d", "1", LONG).await.unwrap().value;
        assert_ne!(own, lease.value, "an id is not used again");
        client.delete("d").await.unwrap();
        assert_eq!(client.lease_status(own).await.unwrap().value, None);
        let chosen = LeaseId(1 << 40);
        assert_eq!(session.lease_grant_as(chosen, LONG).await.unwrap().value, chosen);
        let exists = Err(WriteError::Lease(LeaseError::Exists { lease: chosen }));
        assert_eq!(client.lease_grant_as(chosen, LONG).await, exists);
        assert_eq!(session.lease_revoke(chosen).await.unwrap().value, 0);
    });
}

#[test]
fn what_no_lease_can_be_is_refused() {
    on_both(|dir, runtime| async move {
        let engine = started(alone(&dir, runtime)).await;
        let client = engine.client();
        let session = client.open_session(SessionOptions::default()).await.unwrap();
        let ends = [*LEASE_TTL.start(), *LEASE_TTL.end()];
        // Less than nothing is the greatest there is, once it is a duration.
        for found in [
            Duration::ZERO,
            ends[0] - Duration::from_millis(1),
            ends[1] + Duration::from_millis(1),
            Duration::MAX,
        ] {
            let refused = WriteError::Refused(CommandError::LeaseTtl { found });
            assert_eq!(client.put_with_ttl("k", "", found).await.unwrap_err(), refused);
            assert_eq!(client.lease_grant(found).await.unwrap_err(), refused);
            assert_eq!(session.lease_grant(found).await.unwrap_err(), refused);
            let swap = client.compare_and_swap_attached("k", Expected::Absent, "", Attach::Ttl(found)).await;
            assert_eq!(swap.unwrap_err(), refused);
            assert_eq!(client.pipeline().put_attached("k", "", Attach::Ttl(found)).unwrap_err(), refused);
        }
        for ttl in ends {
            client.lease_grant(ttl).await.unwrap();
        }
        let zero = client.lease_grant_as(LeaseId(0), LONG).await.unwrap_err();
        assert_eq!(zero, WriteError::Refused(CommandError::LeaseId));
        for unknown in [LeaseId(77), LeaseId(u64::MAX)] {
            let error = WriteError::Lease(LeaseError::NotFound { lease: unknown });
            assert!(!error.may_have_happened());
            assert_eq!(client.put_with_lease("k", "", unknown).await.unwrap_err(), error);
            assert_eq!(client.lease_keep_alive(unknown).await.unwrap_err(), error);
            assert_eq!(client.lease_revoke(unknown).await.unwrap_err(), error);
            assert_eq!(session.put_with_lease("k", "", unknown).await.unwrap_err(), error);
            assert_eq!(client.lease_status(unknown).await.unwrap().value, None);
            assert_eq!(client.lease_keys(unknown, None, 9).await.unwrap().value, None);
        }
        assert_eq!(engine.status().await.unwrap().keys, 0);
    });
}

/// Waits by watching, and so needs no clock.
async fn watch_end(client: &EmbeddedClient, key: &str, since: Revision) -> Revision {
    let query = WatchQuery::new(KeyRange::key(key)).from(since.next()).only(Filter::Deletes);
    let mut watch = client.watch_with(query).await.unwrap();
    watch.next().await.unwrap().unwrap().revision()
}

#[test]
fn a_key_ends_when_its_time_is_over_and_not_before() {
    on_both(|dir, runtime| async move {
        let engine = started(alone(&dir, runtime)).await;
        let client = engine.client();
        let ttl = Duration::from_millis(400);
        let began = Instant::now();
        let put = client.put_with_ttl("k", "1", ttl).await.unwrap();
        watch_end(&client, "k", put.revision).await;
        let lived = began.elapsed();
        // The store counts whole milliseconds, and from the entry's making.
        assert!(lived + Duration::from_millis(2) >= ttl, "it lived {lived:?}");
        assert!(lived < ttl + Duration::from_secs(1), "it lived {lived:?}");
        let error = WriteError::Lease(LeaseError::NotFound { lease: put.value });
        assert_eq!(client.lease_keep_alive(put.value).await.unwrap_err(), error, "it has expired");
        assert_eq!(client.put_with_lease("k", "", put.value).await.unwrap_err(), error);
    });
}

/// On every replica at one revision, over a leader that is stopped meanwhile.
#[test]
fn a_key_ends_once_everywhere_over_a_lost_leader() {
    for kind in Group::kinds() {
        block_on(async {
            let group = Group::new(kind);
            let mut engines = group.start_all().await;
            let leader = leader_of(&engines).await;
            let client = engines[(leader + 1) % 3].client();
            let put = client.put_with_ttl("k", "1", Duration::from_millis(1_500)).await.unwrap();
            let stopped = engines.remove(leader);
            let id = stopped.id().0;
            drop(stopped);
            engines.push(group.start(id).await);
            let mut ends = Vec::new();
            for engine in &engines {
                engine.wait_ready(PATIENCE).await.unwrap();
                ends.push(watch_end(&engine.client(), "k", put.revision).await);
            }
            assert!(ends.iter().all(|&end| end == ends[0]), "{ends:?}");
            let client = engines[0].client();
            put_at_last(&client, "k", "again").await;
            let changes = client.history("k", put.revision, 100).await.unwrap().value;
            let ended = changes.iter().filter(|(_, event)| matches!(event, Event::Delete { .. })).count();
            assert_eq!(ended, 1, "{changes:?}");
        });
    }
}

#[test]
fn time_left_is_carried_over_a_restart() {
    on_both(|dir, runtime| async move {
        let engine = started(alone(&dir, runtime)).await;
        let client = engine.client();
        let lease = client.put_with_ttl("k", "1", Duration::from_secs(3_600)).await.unwrap().value;
        let before = client.lease_status(lease).await.unwrap().value.unwrap();
        engine.stop().await.unwrap();
        let engine = started(alone(&dir, runtime)).await;
        let client = engine.client();
        client.put("other", "x").await.unwrap();
        let after = client.lease_status(lease).await.unwrap().value.unwrap();
        assert_eq!((after.ttl, after.keys), (before.ttl, before.keys));
        assert!(after.left <= before.left, "time does not go back");
        assert!(after.left + Duration::from_secs(60) > before.left, "and an outage is no time");
    });
}
