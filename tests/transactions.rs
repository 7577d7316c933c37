//! Transactions through the client and in sessions, on both drivers: what they do, and what is refused.
#![allow(clippy::unwrap_used)]

mod support;

use d_engine::embedded::Completed;
use d_engine::kv::{CommandError, LeaseError, Relation, TXN_DEPTH, TXN_OPERATIONS, Target};
use d_engine::prelude::*;
use std::time::Duration;
use support::{Group, PATIENCE, alone, block_on, leader_of, on_both, started};

fn value(found: Option<KeyValue>) -> Option<String> {
    found.map(|found| String::from_utf8(found.value.to_vec()).unwrap())
}

#[test]
fn one_way_is_taken_whole_at_one_revision() {
    on_both(|dir, runtime| async move {
        let engine = started(alone(&dir, runtime)).await;
        let client = engine.client();
        client.put("a", "1").await.unwrap();
        let lease = client.lease_grant(Duration::from_secs(60)).await.unwrap().value;
        let txn = Txn::new()
            .when(Compare::value("a", "1"))
            .when(Compare::absent("b"))
            .when(Compare::key("a", Relation::Less, Target::Modified(Revision(9))))
            .then(Op::put("a", "2"))
            .then(Op::get("a"))
            .then(Op::put_attached("b", "new", Attach::Lease(lease)))
            .then(Op::Txn(
                Txn::new().when(Compare::exists("b")).then(Op::put("c", "x")).otherwise(Op::put("d", "x")),
            ))
            .otherwise(Op::put("e", "x"));
        let before = engine.status().await.unwrap().revision;
        let done = client.txn(txn.clone()).await.unwrap();
        assert_eq!(done.revision, before.next());
        let [
            OpReply::Put { previous: Some(was), lease: None, .. },
            OpReply::Range(read),
            OpReply::Put { lease: held, .. },
            OpReply::Txn(inner),
        ] = &done.value.results[..]
        else {
            panic!("{done:?}")
        };
        assert_eq!((&was.value[..], &read.items[0].value[..], *held), (&b"1"[..], &b"2"[..], Some(lease)));
        assert!(!inner.succeeded, "every compare looks at the state before");
        for key in ["a", "b", "d"] {
            let found = client.get(key).await.unwrap().value.unwrap();
            assert_eq!(found.modify_revision, done.revision);
        }
        assert_eq!(client.get("c").await.unwrap().value, None);

        let other = client.txn(txn).await.unwrap();
        assert!(!other.value.succeeded);
        assert_eq!(value(client.get("e").await.unwrap().value).as_deref(), Some("x"));
        // Nothing to do is nothing done.
        let looked = client.txn(Txn::new().then(Op::get("a"))).await.unwrap();
        assert_eq!(looked.revision, other.revision);
    });
}

#[test]
fn what_cannot_be_carried_out_is_refused_and_nothing_happens() {
    on_both(|dir, runtime| async move {
        let engine = started(alone(&dir, runtime)).await;
        let client = engine.client();
        let session = client.open_session(SessionOptions::default()).await.unwrap();
        let mut deep = Txn::new().then(Op::put("deep", ""));
        for _ in 0..TXN_DEPTH {
            deep = Txn::new().then(Op::Txn(deep));
        }
        let mut bottomless = Txn::new();
        for _ in 0..500 {
            bottomless = Txn::new().then(Op::Txn(bottomless));
        }
        let many = (0..=TXN_OPERATIONS).fold(Txn::new(), |txn, n| txn.then(Op::get(format!("{n}"))));
        let twice = |ops: [Op; 2]| ops.into_iter().fold(Txn::new(), Txn::then);
        let all = KeyRange::all();
        let limits = RangeQuery::new(KeyRange::all());
        let cases: Vec<(&str, Txn)> = vec![
            ("deep", deep),
            ("bottomless", bottomless),
            ("many", many),
            ("twice", twice([Op::put("k", "1"), Op::put("k", "2")])),
            ("twice", twice([Op::put("k", "1"), Op::Delete { range: all }])),
            ("empty key", Txn::new().then(Op::put("", "1"))),
            ("past", Txn::new().then(Op::Range(limits.clone().at(Revision(1))))),
            ("limit", Txn::new().then(Op::Range(limits.limit(0)))),
            ("ttl", Txn::new().then(Op::put_attached("k", "", Attach::Ttl(Duration::ZERO)))),
        ];
        for (what, txn) in cases {
            let refused = client.txn(txn.clone()).await.unwrap_err();
            let WriteError::Refused(error) = &refused else { panic!("{what}: {refused:?}") };
            let as_expected = match what {
                "deep" | "bottomless" => matches!(error, CommandError::TxnTooDeep),
                "many" => matches!(error, CommandError::TxnTooLarge { .. }),
                "twice" => matches!(error, CommandError::DuplicateKey),
                "empty key" => matches!(error, CommandError::EmptyKey),
                "past" => matches!(error, CommandError::PastInTxn(_)),
                "limit" => matches!(error, CommandError::RangeLimit),
                _ => matches!(error, CommandError::LeaseTtl { .. }),
            };
            assert!(as_expected, "{what}: {error:?}");
            assert_eq!(session.txn(txn).await.unwrap_err(), refused, "in a session, too");
        }
        // Known when it is applied only: the first put is not done either.
        let unknown =
            Txn::new().then(Op::put("k", "1")).then(Op::put_attached("l", "1", Attach::Lease(LeaseId(99))));
        let not_found = Err(WriteError::Lease(LeaseError::NotFound { lease: LeaseId(99) }));
        assert_eq!(client.txn(unknown.clone()).await, not_found);
        assert_eq!(session.txn(unknown).await, not_found);
        let status = engine.status().await.unwrap();
        assert_eq!((status.keys, status.revision), (0, Revision(1)));
    });
}

#[test]
fn a_pipeline_carries_them_too() {
    on_both(|dir, runtime| async move {
        let engine = started(alone(&dir, runtime)).await;
        let mut pipeline = engine.client().pipeline();
        let put = pipeline.put_attached("a", "1", Attach::Ttl(Duration::from_secs(60))).unwrap();
        let (mut done, mut found) = (Vec::new(), Vec::new());
        pipeline.wait(&mut done);
        let txn = pipeline.txn(&Txn::new().when(Compare::exists("a")).then(Op::put("b", "1"))).unwrap();
        while pipeline.in_flight() > 0 {
            pipeline.wait(&mut done);
        }
        let range = pipeline.delete_range(&KeyRange::all()).unwrap();
        pipeline.wait(&mut done);
        for done in done {
            found.push(match done.result.unwrap() {
                Completed::PutAttached(answer) => (done.number, u64::from(answer.value.is_some())),
                Completed::Txn(answer) => (done.number, u64::from(answer.value.succeeded)),
                Completed::DeleteRange(answer) => (done.number, answer.value),
                other => panic!("{other:?}"),
            });
        }
        assert_eq!(found, [(put, 1), (txn, 1), (range, 2)]);
        let twice = Txn::new().then(Op::put("k", "")).then(Op::delete("k"));
        assert_eq!(pipeline.txn(&twice), Err(WriteError::Refused(CommandError::DuplicateKey)));
    });
}

/// Money moves between accounts by transactions of several writers, each through its own node, while a leader is stopped.
/// Sessions send again what was not answered: nothing is lost, and nothing happens twice.
#[test]
fn transfers_conserve_the_sum_over_a_lost_leader() {
    const ACCOUNTS: usize = 4;
    const START: i64 = 100;
    for kind in Group::kinds() {
        let group = Group::new(kind);
        let mut engines = block_on(group.start_all());
        let client = engines[0].client();
        for account in 0..ACCOUNTS {
            block_on(client.put(format!("account/{account}"), START.to_string())).unwrap();
        }
        let leader = block_on(leader_of(&engines));
        let stopped = engines.remove(leader);
        let moved: u64 = std::thread::scope(|scope| {
            let writers: Vec<_> = engines
                .iter()
                .enumerate()
                .map(|(writer, engine)| scope.spawn(move || block_on(transfer(engine, writer, ACCOUNTS))))
                .collect();
            drop(stopped);
            writers.into_iter().map(|writer| writer.join().unwrap()).sum()
        });
        block_on(async {
            engines[0].wait_ready(PATIENCE).await.unwrap();
            let client = engines[0].client();
            let page = client.range(RangeQuery::new(KeyRange::prefix("account/"))).await.unwrap().value;
            let sum: i64 = page
                .items
                .iter()
                .map(|item| str::from_utf8(&item.value).unwrap().parse::<i64>().unwrap())
                .sum();
            assert_eq!(sum, START * i64::try_from(ACCOUNTS).unwrap());
            let count = client.get("moved").await.unwrap().value.unwrap();
            assert_eq!(value(Some(count)).unwrap(), moved.to_string(), "each that was told of happened once");
        });
    }
}

/// Moves 1 between two accounts thirty times, counting in the store; returns how often it was told that it did.
async fn transfer(engine: &EmbeddedEngine, writer: usize, accounts: usize) -> u64 {
    let client = engine.client();
    let session = client.open_session(SessionOptions::default()).await.unwrap();
    let mut moved = 0;
    let mut n = writer;
    while moved < 30 {
        n += 1;
        let names = [
            format!("account/{}", n % accounts),
            format!("account/{}", (n + 1) % accounts),
            "moved".to_owned(),
        ];
        // Stale is fine: the transaction compares.
        let found = client.reading(ReadLevel::Eventual).get_multi(&names).await.unwrap().value;
        let number = |at: usize| value(found[at].clone()).map_or(0, |text| text.parse::<i64>().unwrap());
        let mut txn = Txn::new();
        for (name, found) in names.iter().zip(&found) {
            txn = txn.when(match found {
                Some(found) => Compare::unchanged_since(name, found.modify_revision),
                None => Compare::absent(name),
            });
        }
        let txn = txn
            .then(Op::put(&names[0], (number(0) - 1).to_string()))
            .then(Op::put(&names[1], (number(1) + 1).to_string()))
            .then(Op::put(&names[2], (number(2) + 1).to_string()));
        moved += u64::from(session.txn(txn).await.unwrap().value.succeeded);
    }
    moved
}
