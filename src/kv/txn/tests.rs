//! The rules of transactions, one test a rule; then the same against a model that does them the slow way.

use super::*;
use crate::kv::command::tests::a_txn;
use crate::kv::tests::{a_key, a_value, encoded};
use crate::kv::{
    COUNT_KEYS, Command, CommandError, DELETE_KEYS, Event, LeaseError, LeaseLimits, Limits, Order, Reply,
    SessionId, Stamp, Store, encode_txn,
};
use bytes::BytesMut;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

const TTL: Duration = Duration::from_secs(1);

fn run(store: &mut Store, command: Command) -> Reply {
    store.apply(&encoded(&command))
}

fn put(store: &mut Store, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) {
    let copy = Bytes::copy_from_slice;
    run(store, Command::Put { key: copy(key.as_ref()), value: copy(value.as_ref()) });
}

/// What a transaction came to, and at which revision.
fn done(store: &mut Store, txn: Txn) -> (u64, TxnReply) {
    match run(store, Command::Txn(txn)) {
        Reply::Txn { revision, reply } => (revision.0, reply),
        other => panic!("{other:?}"),
    }
}

fn refused(txn: &Txn) -> CommandError {
    let mut out = BytesMut::from(&b"before"[..]);
    let error = encode_txn(txn, &mut out).expect_err("it cannot be asked");
    assert_eq!(out, b"before"[..], "a refused command leaves nothing behind");
    error
}

fn asked(txn: &Txn) {
    encode_txn(txn, &mut BytesMut::new()).expect("it can be asked");
}

fn values(page: &OpReply) -> Vec<&[u8]> {
    let OpReply::Range(page) = page else { panic!("{page:?}") };
    page.items.iter().map(|kv| &kv.value[..]).collect()
}

fn holds(store: &Store, compare: Compare) -> bool {
    let (_, reply) = done(&mut store.clone(), Txn::new().when(compare));
    reply.succeeded
}

#[test]
fn every_compare_sees_the_state_before_the_transaction() {
    let mut store = Store::new();
    put(&mut store, "a", "old");
    let inner = Txn::new()
        .when(Compare::value("a", "old"))
        .then(Op::put("saw", "old"))
        .otherwise(Op::put("saw", "new"));
    let (revision, reply) = done(&mut store, Txn::new().then(Op::put("a", "new")).then(Op::Txn(inner)));
    assert_eq!(revision, 3);
    assert!(matches!(&reply.results[1], OpReply::Txn(TxnReply { succeeded: true, .. })), "{reply:?}");
    assert_eq!(&store.get(b"saw").expect("put").value[..], b"old");
}

#[test]
fn a_read_sees_what_stands_before_it_and_nothing_of_what_follows() {
    let mut store = Store::new();
    put(&mut store, "a", "1");
    let txn = Txn::new()
        .then(Op::get("a"))
        .then(Op::put("a", "2"))
        .then(Op::get("a"))
        .then(Op::delete("b"))
        .then(Op::Range(RangeQuery::new(KeyRange::all())))
        .then(Op::put("c", "3"));
    let (revision, reply) = done(&mut store, txn);
    assert_eq!(values(&reply.results[0]), [b"1"]);
    assert_eq!(values(&reply.results[2]), [b"2"]);
    assert_eq!(reply.results[3], OpReply::Deleted(0));
    assert_eq!(values(&reply.results[4]), [b"2"]);
    let OpReply::Range(before) = &reply.results[0] else { panic!() };
    assert_eq!(
        (before.revision, revision),
        (Revision(2), 3),
        "a read before the first change reads the former revision"
    );
    let OpReply::Put { previous: Some(previous), lease: None, told: Select::Whole } = &reply.results[1]
    else {
        panic!()
    };
    assert_eq!((&previous.value[..], previous.version), (&b"1"[..], 1));
}

#[test]
fn all_changes_share_one_revision_and_none_take_none() {
    let mut store = Store::new();
    put(&mut store, "b", "");
    let inner = Txn::new().then(Op::put("c", "")).then(Op::Delete { range: KeyRange::prefix("x") });
    let txn =
        Txn::new().then(Op::put("d", "")).then(Op::delete("b")).then(Op::Txn(inner)).then(Op::put("a", ""));
    assert_eq!(done(&mut store, txn).0, 3);
    assert_eq!(store.revision(), Revision(3));
    let changes: Vec<_> = store
        .changes_from(Revision(3))
        .expect("kept")
        .map(|change| (change.revision().0, change.key()))
        .collect();
    assert_eq!(changes, [(3, &b"a"[..]), (3, b"b"), (3, b"c"), (3, b"d")], "in the order of keys");

    let digest = store.digest();
    let nothing = Txn::new().when(Compare::exists("z")).then(Op::put("z", "")).otherwise(Op::delete("z"));
    assert_eq!(
        done(&mut store, nothing),
        (3, TxnReply { succeeded: false, results: vec![OpReply::Deleted(0)] })
    );
    assert_eq!(done(&mut store, Txn::new()), (3, TxnReply { succeeded: true, results: Vec::new() }));
    assert_eq!((store.revision(), store.digest()), (Revision(3), digest));
}

#[test]
fn compares_hold_for_every_key_and_an_absent_one_is_all_zeros() {
    let mut store = Store::new();
    put(&mut store, "k1", "a");
    put(&mut store, "k2", "b");
    put(&mut store, "k2", "b");
    let key = |key: &str, relation, target| Compare::key(key, relation, target);
    let keys = |relation, target| Compare { range: KeyRange::prefix("k"), relation, target };
    let nowhere = |relation, target| Compare { range: KeyRange::prefix("z"), relation, target };
    let value = |value: &'static str| Target::Value(Bytes::from_static(value.as_bytes()));
    use Relation::{Equal, Greater, Less, NotEqual};
    for (compare, expected) in [
        (Compare::exists("k1"), true),
        (Compare::exists("z"), false),
        (Compare::absent("z"), true),
        (Compare::absent("k1"), false),
        (Compare::value("k1", "a"), true),
        (Compare::value("z", ""), false),
        (key("z", NotEqual, value("a")), true),
        (key("z", Less, value("a")), false),
        (key("z", Greater, value("")), false),
        (key("k1", Less, value("aa")), true),
        (key("k1", Greater, value("")), true),
        (key("k2", Equal, Target::Version(2)), true),
        (key("k2", Less, Target::Version(2)), false),
        (key("k2", Equal, Target::Created(Revision(3))), true),
        (key("k2", Equal, Target::Modified(Revision(4))), true),
        (Compare::unchanged_since("k2", Revision(3)), false),
        (Compare::unchanged_since("z", Revision(0)), true),
        (key("k1", Equal, Target::Lease(0)), true),
        (key("z", Equal, Target::Lease(0)), true),
        (key("k1", Less, Target::Modified(Revision(u64::MAX))), true),
        (keys(Greater, Target::Version(0)), true),
        (keys(Equal, Target::Version(1)), false),
        (keys(Equal, Target::Version(2)), false),
        (keys(Less, value("c")), true),
        (keys(NotEqual, value("b")), false),
        (nowhere(Equal, Target::Version(0)), true),
        (nowhere(Greater, Target::Version(0)), false),
        (nowhere(NotEqual, value("")), true),
        (nowhere(Equal, value("")), false),
    ] {
        assert_eq!(holds(&store, compare.clone()), expected, "{compare:?}");
    }
    let both = |second| Txn::new().when(Compare::exists("k1")).when(second);
    assert!(done(&mut store, both(Compare::exists("k2"))).1.succeeded);
    assert!(!done(&mut store, both(Compare::exists("z"))).1.succeeded);
}

#[test]
fn without_one_of_its_leases_nothing_happens() {
    let mut store = Store::new();
    put(&mut store, "a", "1");
    run(&mut store, Command::Grant { lease: Some(LeaseId(7)), ttl: TTL });
    let before = (store.revision(), store.digest(), store.leases());
    let attached = |key, lease| Op::put_attached(key, "2", Attach::Lease(LeaseId(lease)));
    let inner = Txn::new().then(attached("c", 8));
    let txn = Txn::new()
        .then(Op::put("a", "2"))
        .then(Op::put_attached("t", "", Attach::Ttl(TTL)))
        .then(attached("b", 7))
        .then(Op::Txn(inner));
    let missing = LeaseError::NotFound { lease: LeaseId(8) };
    assert_eq!(run(&mut store, Command::Txn(txn.clone())), Reply::LeaseRefused(missing));
    assert_eq!((store.revision(), store.digest(), store.leases()), before);
    assert_eq!(store.get(b"a").expect("put").version, 1);

    // On the way that is not taken it is not missed.
    let other = Txn { compares: vec![Compare::absent("a")], ..txn.clone() }.otherwise(attached("b", 7));
    assert_eq!(done(&mut store, other).0, 3);
    run(&mut store, Command::Grant { lease: Some(LeaseId(8)), ttl: TTL });
    let (revision, reply) = done(&mut store, txn);
    assert_eq!(revision, 4);
    assert!(matches!(reply.results[1], OpReply::Put { lease: Some(LeaseId(1)), .. }), "{reply:?}");
    assert_eq!(store.lease_keys(LeaseId(7), None, 9).expect("granted"), ["b"]);
    assert_eq!(store.lease_keys(LeaseId(8), None, 9).expect("granted"), ["c"]);
}

#[test]
fn a_lease_that_one_transaction_would_overfill_is_refused() {
    let limits = LeaseLimits { leases: 2, keys: 2, ..LeaseLimits::MAX };
    let mut store = Store::with_lease_limits(limits);
    let lease = LeaseId(7);
    run(&mut store, Command::Grant { lease: Some(lease), ttl: TTL });
    let attached = |keys: &[&str], attach| {
        keys.iter().fold(Txn::new(), |txn, key| txn.then(Op::put_attached(key, "", attach)))
    };
    let full = Reply::LeaseRefused(LeaseError::TooManyKeys { lease, limit: 2 });
    assert_eq!(run(&mut store, Command::Txn(attached(&["a", "b", "c"], Attach::Lease(lease)))), full);
    assert!(store.is_empty());
    done(&mut store, attached(&["a", "b"], Attach::Lease(lease)));
    done(&mut store, attached(&["a", "b"], Attach::Lease(lease)));
    let many = Reply::LeaseRefused(LeaseError::TooManyLeases { limit: 2 });
    assert_eq!(run(&mut store, Command::Txn(attached(&["c", "d"], Attach::Ttl(TTL)))), many);
    done(&mut store, attached(&["c"], Attach::Ttl(TTL)));
    assert_eq!((store.len(), store.leases()), (3, 2));
}

#[test]
fn in_a_session_it_happens_once_and_is_answered_again() {
    let mut store = Store::new();
    run(&mut store, Command::OpenSession { timeout: Duration::from_secs(60) });
    let changes = [
        Command::Txn(Txn::new().then(Op::put("a", "1")).then(Op::get("a"))),
        Command::DeleteRange { range: KeyRange::all() },
        Command::Grant { lease: Some(LeaseId(9)), ttl: TTL },
        Command::PutAttached { key: "b".into(), value: "1".into(), attach: Attach::Lease(LeaseId(9)) },
        Command::KeepAlive { lease: LeaseId(9) },
        Command::Revoke { lease: LeaseId(9) },
        Command::KeepAlive { lease: LeaseId(9) },
    ];
    for (sequence, change) in (1..).zip(changes) {
        let stamp = Stamp { session: SessionId(1), sequence, first_unanswered: 1 };
        let once = Command::InSession { stamp, command: Box::new(change) };
        let bytes = store.session_bytes();
        let reply = run(&mut store, once.clone());
        assert!(!matches!(reply, Reply::Refused(_) | Reply::SessionRefused(_)), "{reply:?}");
        assert!(store.session_bytes() > bytes, "the answer is kept");
        let revision = store.revision();
        put(&mut store, "between", "");
        assert_eq!(run(&mut store, once), reply);
        assert_eq!(store.revision(), revision.next(), "nothing was done again");
        run(&mut store, Command::Delete { key: "between".into() });
    }
}

#[test]
fn the_bytes_of_a_kept_answer_are_counted() {
    let mut store = Store::new();
    run(&mut store, Command::OpenSession { timeout: Duration::from_secs(60) });
    put(&mut store, "a", vec![b'x'; 10_000]);
    let command = Box::new(Command::Txn(Txn::new().then(Op::get("a")).then(Op::put("a", ""))));
    let stamp = Stamp { session: SessionId(1), sequence: 1, first_unanswered: 1 };
    run(&mut store, Command::InSession { stamp, command });
    assert!(store.session_bytes() > 20_000, "{}", store.session_bytes());
}

#[test]
fn the_answers_of_one_transaction_are_bounded_and_lose_nothing() {
    let mut store = Store::new();
    let value = vec![b'x'; TXN_REPLY_BYTES / 4];
    let keys = ["a", "b", "c", "d", "e", "f"];
    keys.iter().for_each(|key| put(&mut store, key, &value));

    let all = RangeQuery::new(KeyRange::all());
    let (_, reply) = done(&mut store, Txn::new().then(Op::Range(all.clone())).then(Op::Range(all.clone())));
    let [OpReply::Range(first), OpReply::Range(second)] = &reply.results[..] else { panic!("{reply:?}") };
    assert_eq!((first.items.len(), second.items.len()), (4, 0));
    let rest = store.range(first.next.as_ref().expect("there is more")).expect("kept");
    assert_eq!(rest.items.iter().map(|kv| &kv.key[..]).collect::<Vec<_>>(), [b"e", b"f"]);
    let again = store.range(second.next.as_ref().expect("there is more")).expect("kept");
    assert_eq!(again.items.len(), 6);

    let writes = keys.iter().fold(Txn::new(), |txn, key| txn.then(Op::put(key, "new")));
    let (_, reply) = done(&mut store, writes.then(Op::Range(all.count_only())));
    let told: Vec<_> = reply.results[..6]
        .iter()
        .map(|result| match result {
            OpReply::Put { previous: Some(previous), told, .. } => {
                (*told, previous.value.len(), previous.version)
            }
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(told[..4], [(Select::Whole, value.len(), 1); 4]);
    assert_eq!(told[4..], [(Select::KeysOnly, 0, 1); 2], "without the value, and it says so");
}

#[test]
fn what_one_command_deletes_is_bounded() {
    let mut store = Store::new();
    for number in 0..=DELETE_KEYS {
        put(&mut store, format!("k{number:05}"), "");
    }
    put(&mut store, "other", "");
    let (all, before) = (KeyRange::prefix("k"), (store.digest(), store.len()));
    let too_wide = Reply::Refused(CommandError::DeleteTooWide);
    assert_eq!(run(&mut store, Command::DeleteRange { range: all.clone() }), too_wide);
    let halves = ["k00000", "k05000", "k99999"].map(str::to_owned);
    let half =
        |at: usize| Op::Delete { range: KeyRange::between(&halves[at], &halves[at + 1]).expect("in order") };
    let txn = Txn::new().then(half(0)).then(Op::Txn(Txn::new().then(half(1)))).then(Op::put("new", ""));
    assert_eq!(run(&mut store, Command::Txn(txn)), too_wide);
    assert_eq!((store.digest(), store.len()), before, "nothing of it was done");

    run(&mut store, Command::Delete { key: "k00000".into() });
    let deleted = run(&mut store, Command::DeleteRange { range: all });
    assert!(matches!(deleted, Reply::RangeDeleted { deleted: 10_000, .. }), "{deleted:?}");
    assert_eq!(store.len(), 1);
}

#[test]
fn what_a_transaction_looks_at_is_bounded() {
    let mut store = Store::new();
    for number in 0..=TXN_COMPARED_KEYS {
        put(&mut store, format!("k{number:06}"), "");
    }
    let below = |end: usize| KeyRange::between("k", format!("k{end:06}")).expect("in order");
    let exist = |range| Compare { range, relation: Relation::Greater, target: Target::Version(0) };
    let most = Txn::new().when(exist(below(TXN_COMPARED_KEYS)));
    assert!(done(&mut store, most.clone()).1.succeeded);
    let before = store.digest();
    let more = most.when(Compare::absent("z")).then(Op::put("a", ""));
    assert_eq!(run(&mut store, Command::Txn(more)), Reply::Refused(CommandError::TxnTooWide));
    assert_eq!(store.digest(), before);
    let fails = Compare { relation: Relation::Equal, ..exist(KeyRange::all()) };
    assert!(!done(&mut store, Txn::new().when(fails)).1.succeeded, "the first that fails ends the looking");

    let count = || Op::Range(RangeQuery::new(KeyRange::all()).count_only());
    let (_, reply) = done(&mut store, Txn::new().then(count()).then(count()));
    let [OpReply::Range(first), OpReply::Range(second)] = &reply.results[..] else { panic!("{reply:?}") };
    assert_eq!((first.count, second.count), (TXN_READ_KEYS as u64, 0));
    assert_eq!(store.range(first.next.as_ref().expect("more")).expect("kept").count, 1);
    let rest = store.range(second.next.as_ref().expect("more")).expect("kept");
    assert_eq!((rest.count, rest.next.is_some()), (COUNT_KEYS as u64, true));
}

#[test]
fn a_key_is_named_once_on_any_way() {
    let put = |key| Op::put(key, "");
    let nested = |then: Op, otherwise: Op| Op::Txn(Txn::new().then(then).otherwise(otherwise));
    let prefix = Op::Delete { range: KeyRange::prefix("a") };
    let all = Op::Delete { range: KeyRange::all() };
    for (ops, expected) in [
        (vec![put("a"), put("b")], true),
        (vec![put("a"), put("a")], false),
        (vec![put("a"), Op::delete("a")], false),
        (vec![Op::delete("a"), put("a")], false),
        (vec![put("ab"), prefix.clone()], false),
        (vec![put("b"), prefix.clone()], true),
        (vec![put("b"), all.clone()], false),
        (vec![prefix.clone(), Op::delete("a"), all.clone()], true),
        (vec![put("a"), Op::get("a"), Op::get("a")], true),
        (vec![nested(put("a"), put("a"))], true),
        (vec![nested(put("a"), Op::delete("a"))], true),
        (vec![nested(put("a"), all.clone()), put("a")], false),
        (vec![put("a"), nested(Op::get("a"), put("a"))], false),
        (vec![nested(put("a"), put("b")), nested(put("c"), put("a"))], false),
        (vec![nested(put("a"), put("b")), nested(put("c"), put("d"))], true),
        (vec![nested(nested(put("a"), put("b")), nested(put("a"), prefix.clone()))], true),
        (vec![nested(nested(put("a"), put("b")), put("c")), put("b")], false),
        (vec![nested(nested(put("a"), put("c")), nested(put("b"), put("a"))), put("b")], false),
    ] {
        let txn = Txn { then: ops, ..Txn::new() };
        let found = encode_txn(&txn, &mut BytesMut::new());
        assert_eq!(found, if expected { Ok(()) } else { Err(CommandError::DuplicateKey) }, "{txn:?}");
        let apart = Txn { otherwise: vec![Op::put("a", ""), Op::put("b", "")], ..txn };
        assert_eq!(encode_txn(&apart, &mut BytesMut::new()), found, "the other branch is another way");
    }
}

#[test]
fn the_limit_is_allowed_and_one_more_is_not() {
    let many = |operations: usize| {
        let inner = Txn { then: vec![Op::get("a"); operations - 3], ..Txn::new() };
        Txn::new().when(Compare::exists("a")).then(Op::Txn(inner)).otherwise(Op::get("a"))
    };
    asked(&many(TXN_OPERATIONS));
    assert_eq!(refused(&many(TXN_OPERATIONS + 1)), CommandError::TxnTooLarge { found: TXN_OPERATIONS + 1 });
    let million = Txn { then: vec![Op::get("a"); 1_000_000], ..Txn::new() };
    assert_eq!(refused(&million), CommandError::TxnTooLarge { found: 1_000_000 });

    let deep = |levels: usize| (1..levels).fold(Txn::new(), |inner, _| Txn::new().otherwise(Op::Txn(inner)));
    asked(&deep(TXN_DEPTH));
    assert_eq!(refused(&deep(TXN_DEPTH + 1)), CommandError::TxnTooDeep);
    assert_eq!(refused(&deep(1_000)), CommandError::TxnTooDeep);

    // Two puts that fill what the longest other command has.
    let limit = Limits::MAX.command_bytes() - 28;
    let puts = |bytes: usize| {
        let frame = 3 * 2 + 3 * (1 + 4 + 1 + 4 + 1);
        let (half, rest) = ((bytes - frame) / 3, bytes - frame - 2 * ((bytes - frame) / 3));
        let value = |length: usize| vec![b'x'; length];
        Txn::new()
            .then(Op::put("a", value(half)))
            .then(Op::put("b", value(half)))
            .then(Op::put("c", value(rest)))
    };
    asked(&puts(limit));
    assert_eq!(refused(&puts(limit + 1)), CommandError::TxnTooLong { limit, found: limit + 1 });
}

#[test]
fn what_no_command_may_hold_no_transaction_may_hold() {
    let Limits { key_bytes, value_bytes } = Limits::MAX;
    let long = |length: usize| vec![b'x'; length];
    let one = |op: Op| Txn::new().otherwise(op);
    let key_too_long = CommandError::KeyTooLong { limit: key_bytes, found: key_bytes + 1 };
    asked(&one(Op::put(long(key_bytes), long(value_bytes))));
    asked(&one(Op::delete(long(key_bytes))));
    asked(&one(Op::Delete { range: KeyRange::all() }));
    let query = RangeQuery::new(KeyRange::all());
    asked(&one(Op::Range(query.clone().limit(1).after("x"))));
    let ttl = |ttl| one(Op::put_attached("a", "", Attach::Ttl(ttl)));
    asked(&ttl(Duration::from_millis(100)));
    for (txn, expected) in [
        (one(Op::put("", "")), CommandError::EmptyKey),
        (one(Op::delete("")), CommandError::EmptyKey),
        (one(Op::get("")), CommandError::EmptyKey),
        (Txn::new().when(Compare::exists("")), CommandError::EmptyKey),
        (one(Op::put(long(key_bytes + 1), "")), key_too_long),
        (one(Op::delete(long(key_bytes + 1))), key_too_long),
        (Txn::new().when(Compare::exists(long(key_bytes + 1))), key_too_long),
        (
            one(Op::Delete { range: KeyRange::starting_at(long(key_bytes + 2)) }),
            CommandError::KeyTooLong { limit: key_bytes, found: key_bytes + 2 },
        ),
        (
            one(Op::put("a", long(value_bytes + 1))),
            CommandError::ValueTooLong { limit: value_bytes, found: value_bytes + 1 },
        ),
        (
            Txn::new().when(Compare::value("a", long(value_bytes + 1))),
            CommandError::ValueTooLong { limit: value_bytes, found: value_bytes + 1 },
        ),
        (one(Op::Range(query.clone().limit(0))), CommandError::RangeLimit),
        (one(Op::Range(query.at(Revision(3)))), CommandError::PastInTxn(3)),
        (one(Op::put_attached("a", "", Attach::Lease(LeaseId(0)))), CommandError::LeaseId),
        (ttl(Duration::ZERO), CommandError::LeaseTtl { found: Duration::ZERO }),
        (ttl(Duration::MAX), CommandError::LeaseTtl { found: Duration::MAX }),
    ] {
        assert_eq!(refused(&txn), expected);
        assert_eq!(refused(&one(Op::Txn(txn))), expected, "nested, too");
    }
}

#[test]
fn depth_in_bytes_does_not_reach_the_stack() {
    let level = [0, 0, 1, 0, 4];
    let bytes = [&[1, 10][..], &level.repeat(10_000)].concat();
    let mut store = Store::new();
    assert_eq!(store.check(&bytes), Err(CommandError::TxnTooDeep));
    assert_eq!(store.apply(&bytes), Reply::Refused(CommandError::TxnTooDeep));
}

/// The store the slow way: everything in one map, leases as sets of names.
#[derive(Clone, Default)]
struct Model {
    keys: BTreeMap<Bytes, KeyValue>,
    /// Those that were granted.
    granted: BTreeSet<LeaseId>,
    own: u64,
    revision: u64,
}

impl Model {
    fn met(&self, compare: &Compare) -> bool {
        let found: Vec<_> =
            self.keys.values().filter(|kv| compare.range.contains(&kv.key)).map(Some).collect();
        let found = if found.is_empty() { vec![None] } else { found };
        found.into_iter().all(|kv| {
            let (here, named) = match &compare.target {
                Target::Value(value) => match kv {
                    Some(kv) => return compare.relation.holds(kv.value.cmp(value)),
                    None => return compare.relation == Relation::NotEqual,
                },
                Target::Version(named) => (kv.map_or(0, |kv| kv.version), *named),
                Target::Created(named) => (kv.map_or(0, |kv| kv.create_revision.0), named.0),
                Target::Modified(named) => (kv.map_or(0, |kv| kv.modify_revision.0), named.0),
                Target::Lease(named) => (kv.and_then(|kv| kv.lease).map_or(0, |lease| lease.0), *named),
            };
            compare.relation.holds(here.cmp(&named))
        })
    }

    fn page(&self, query: &RangeQuery, revision: u64) -> RangePage {
        let mut found: Vec<_> =
            self.keys.values().filter(|kv| query.range.contains(&kv.key)).cloned().collect();
        if query.order == Order::Descending {
            found.reverse();
        }
        if let Some(after) = &query.after {
            found.retain(|kv| if query.order == Order::Ascending { kv.key > after } else { kv.key < after });
        }
        let more = found.len() > query.limit;
        found.truncate(query.limit);
        let revision = Revision(revision);
        let after = found.last().map(|kv| kv.key.clone());
        let next = more.then(|| RangeQuery { revision: Some(revision), after, ..query.clone() });
        let count = found.len() as u64;
        match query.select {
            Select::Whole => {}
            Select::KeysOnly => found.iter_mut().for_each(|kv| kv.value.clear()),
            Select::CountOnly => found.clear(),
        }
        RangePage { items: found, count, next, revision }
    }

    /// Does it on a copy, which is kept if it was done to the end.
    fn txn(&mut self, txn: &Txn) -> Reply {
        let mut copy = self.clone();
        match copy.go(txn, self) {
            Ok(reply) => {
                *self = copy;
                Reply::Txn { revision: Revision(self.revision), reply }
            }
            Err(error) => Reply::LeaseRefused(error),
        }
    }

    fn go(&mut self, txn: &Txn, before: &Self) -> Result<TxnReply, LeaseError> {
        let succeeded = txn.compares.iter().all(|compare| before.met(compare));
        let mut results = Vec::new();
        for op in if succeeded { &txn.then } else { &txn.otherwise } {
            results.push(match op {
                Op::Txn(inner) => OpReply::Txn(self.go(inner, before)?),
                Op::Range(query) => OpReply::Range(self.page(query, self.revision)),
                Op::Delete { range } => {
                    let kept = self.keys.len();
                    self.keys.retain(|key, _| !range.contains(key));
                    let deleted = (kept - self.keys.len()) as u64;
                    if deleted > 0 {
                        self.revision = before.revision + 1;
                    }
                    OpReply::Deleted(deleted)
                }
                Op::Put { key, value, attach } => {
                    self.revision = before.revision + 1;
                    let previous = self.keys.get(key).cloned();
                    let lease = match attach {
                        Attach::Nothing => None,
                        Attach::Keep => previous.as_ref().and_then(|kv| kv.lease),
                        Attach::Lease(lease) if self.granted.contains(lease) => Some(*lease),
                        Attach::Lease(lease) => return Err(LeaseError::NotFound { lease: *lease }),
                        Attach::Ttl(_) => {
                            self.own += 1;
                            Some(LeaseId(self.own))
                        }
                    };
                    let new = KeyValue {
                        key: key.clone(),
                        value: value.clone(),
                        create_revision: previous
                            .as_ref()
                            .map_or(Revision(self.revision), |kv| kv.create_revision),
                        modify_revision: Revision(self.revision),
                        version: previous.as_ref().map_or(0, |kv| kv.version) + 1,
                        lease,
                    };
                    self.keys.insert(key.clone(), new);
                    OpReply::Put { previous, told: Select::Whole, lease }
                }
            });
        }
        Ok(TxnReply { succeeded, results })
    }
}

#[derive(Clone, Debug)]
enum Step {
    Txn(Txn),
    Grant(LeaseId),
    Revoke(LeaseId),
    Put(Bytes, Bytes),
}

/// Three leases with names that the store does not choose.
fn a_named_lease() -> impl Strategy<Value = LeaseId> {
    (1001_u64..1004).prop_map(LeaseId)
}

fn a_step() -> impl Strategy<Value = Step> {
    let attach = prop_oneof![
        4 => Just(Attach::Nothing),
        1 => Just(Attach::Keep),
        2 => a_named_lease().prop_map(Attach::Lease),
        1 => Just(Attach::Ttl(TTL)),
    ];
    prop_oneof![
        6 => a_txn(attach.boxed()).prop_map(Step::Txn),
        3 => a_named_lease().prop_map(Step::Grant),
        1 => a_named_lease().prop_map(Step::Revoke),
        2 => (a_key(), a_value()).prop_map(|(key, value)| Step::Put(key, value)),
    ]
}

proptest! {
    #[test]
    fn transactions_come_to_what_the_model_comes_to(steps in prop::collection::vec(a_step(), 1..24)) {
        let (mut store, mut twin) = (Store::new(), Store::new());
        let mut model = Model { revision: 1, ..Model::default() };
        for step in steps {
            let before = (store.revision(), store.digest(), store.leases());
            match step {
                Step::Txn(txn) => {
                    let bytes = encoded(&Command::Txn(txn.clone()));
                    let reply = store.apply(&bytes);
                    prop_assert_eq!(&reply, &model.txn(&txn));
                    prop_assert_eq!(&reply, &twin.apply(&bytes));
                    if matches!(reply, Reply::LeaseRefused(_)) {
                        prop_assert_eq!(before, (store.revision(), store.digest(), store.leases()));
                    }
                }
                Step::Grant(lease) => {
                    let grant = Command::Grant { lease: Some(lease), ttl: TTL };
                    let granted = matches!(run(&mut store, grant.clone()), Reply::LeaseGranted { .. });
                    run(&mut twin, grant);
                    prop_assert_eq!(granted, model.granted.insert(lease));
                }
                Step::Revoke(lease) => {
                    let was = model.granted.remove(&lease);
                    let kept = model.keys.len();
                    model.keys.retain(|_, kv| kv.lease != Some(lease));
                    let keys = (kept - model.keys.len()) as u64;
                    model.revision += u64::from(keys > 0);
                    let revision = Revision(model.revision);
                    let expected = if was {
                        Reply::LeaseRevoked { revision, keys }
                    } else {
                        Reply::LeaseRefused(LeaseError::NotFound { lease })
                    };
                    prop_assert_eq!(run(&mut store, Command::Revoke { lease }), expected.clone());
                    prop_assert_eq!(run(&mut twin, Command::Revoke { lease }), expected);
                }
                Step::Put(key, value) => {
                    let txn = Txn::new().then(Op::put(&key, &value));
                    model.txn(&txn);
                    put(&mut store, &key, &value);
                    put(&mut twin, &key, &value);
                }
            }
            prop_assert_eq!(store.revision().0, model.revision);
            prop_assert_eq!(store.digest(), twin.digest());
            prop_assert_eq!(before.0 != store.revision(), before.0.next() == store.revision());
            let all = store.range(&RangeQuery::new(KeyRange::all())).expect("now").items;
            prop_assert_eq!(&all, &model.keys.values().cloned().collect::<Vec<_>>());
            let attached: BTreeSet<_> = model.keys.values().filter_map(|kv| kv.lease).collect();
            prop_assert_eq!(store.leases(), attached.union(&model.granted).count());
            let told: Vec<_> = store.changes_from(before.0.next()).expect("kept").collect();
            prop_assert!(told.windows(2).all(|pair| pair[0].key() < pair[1].key()), "each key once, in order");
            for change in &told {
                let Event::Put { new, .. } = change.event(false) else { continue };
                prop_assert_eq!(Some(new), store.get(change.key()));
            }
        }
    }
}
