//! Every command there is, at its limits and beyond, and as bytes that nobody meant.

use super::*;
use crate::kv::tests::{a_change, a_key, a_value, encoded};
use crate::kv::{Compare, Op, Order, RangeQuery, Relation, Reply, Select, Store, Target};
use proptest::prelude::*;

pub(in crate::kv) fn a_lease() -> impl Strategy<Value = LeaseId> {
    (1..=u64::MAX).prop_map(LeaseId)
}

fn a_ttl() -> impl Strategy<Value = Duration> {
    (100_u64..=366 * 24 * 60 * 60 * 1000).prop_map(Duration::from_millis)
}

fn an_attachment() -> impl Strategy<Value = Attach> {
    prop_oneof![
        Just(Attach::Nothing),
        Just(Attach::Keep),
        a_lease().prop_map(Attach::Lease),
        a_ttl().prop_map(Attach::Ttl),
    ]
}

pub(in crate::kv) fn a_range() -> impl Strategy<Value = KeyRange> {
    prop_oneof![
        3 => a_key().prop_map(KeyRange::key),
        1 => Just(KeyRange::all()),
        1 => a_key().prop_map(KeyRange::starting_at),
        2 => a_key().prop_map(KeyRange::prefix),
        2 => (a_key(), a_key()).prop_filter_map("not empty", |(a, b)| KeyRange::between(a, b).ok()),
    ]
}

fn a_relation() -> impl Strategy<Value = Relation> {
    prop::sample::select(vec![Relation::Equal, Relation::NotEqual, Relation::Greater, Relation::Less])
}

/// Numbers around those that a small store has.
fn a_compare() -> impl Strategy<Value = Compare> {
    let target = (0..5, 0_u64..12, a_value()).prop_map(|(which, number, value)| match which {
        0 => Target::Value(value),
        1 => Target::Version(number / 3),
        2 => Target::Created(Revision(number)),
        3 => Target::Modified(Revision(number)),
        _ => Target::Lease(number / 4),
    });
    (a_range(), a_relation(), target).prop_map(|(range, relation, target)| Compare {
        range,
        relation,
        target,
    })
}

pub(in crate::kv) fn a_query() -> impl Strategy<Value = RangeQuery> {
    let order = prop::sample::select(vec![Order::Ascending, Order::Descending]);
    let select = prop::sample::select(vec![Select::Whole, Select::KeysOnly, Select::CountOnly]);
    let limit = prop_oneof![3 => 1_usize..5, 1 => Just(usize::MAX)];
    (a_range(), limit, order, select, prop::option::of(a_key())).prop_map(
        |(range, limit, order, select, after)| RangeQuery {
            range,
            limit,
            order,
            select,
            revision: None,
            after,
        },
    )
}

/// Operations that are alone with themselves: nothing nested. Keys of puts are many, so that few are named twice.
fn an_op(attach: BoxedStrategy<Attach>) -> impl Strategy<Value = Op> {
    let put =
        (prop_oneof![a_key(), prop::collection::vec(any::<u8>(), 1..3).prop_map(Bytes::from)], a_value());
    prop_oneof![
        4 => (put, attach).prop_map(|((key, value), attach)| Op::Put { key, value, attach }),
        1 => a_range().prop_map(|range| Op::Delete { range }),
        3 => a_query().prop_map(Op::Range),
    ]
}

/// Transactions that can be encoded.
pub(in crate::kv) fn a_txn(attach: BoxedStrategy<Attach>) -> impl Strategy<Value = Txn> {
    let list = |op: BoxedStrategy<Op>| prop::collection::vec(op, 0..4);
    let txn = move |op: BoxedStrategy<Op>| {
        let compares = prop::collection::vec(a_compare(), 0..3);
        (compares, list(op.clone()), list(op)).prop_map(|(compares, then, otherwise)| Txn {
            compares,
            then,
            otherwise,
        })
    };
    let flat = an_op(attach.clone()).boxed();
    let nested = |inner: BoxedStrategy<Txn>, attach: BoxedStrategy<Attach>| {
        prop_oneof![4 => an_op(attach), 1 => inner.prop_map(Op::Txn)].boxed()
    };
    let second = nested(txn(flat).boxed(), attach.clone());
    let third = nested(txn(second).boxed(), attach.clone());
    let fourth = nested(txn(third).boxed(), attach);
    txn(fourth).prop_filter("no key twice", |txn| encode_txn(txn, &mut BytesMut::new()).is_ok())
}

fn a_new_change() -> impl Strategy<Value = Command> {
    let expected = prop_oneof![
        Just(Expected::Absent),
        a_value().prop_map(Expected::Value),
        any::<u64>().prop_map(|revision| Expected::Revision(Revision(revision))),
    ];
    prop_oneof![
        (a_key(), a_value(), an_attachment()).prop_map(|(key, value, attach)| Command::PutAttached {
            key,
            value,
            attach
        }),
        (a_key(), expected, a_value(), an_attachment()).prop_map(|(key, expected, value, attach)| {
            Command::SwapAttached { key, expected, value, attach }
        }),
        a_range().prop_map(|range| Command::DeleteRange { range }),
        a_txn(an_attachment().boxed()).prop_map(Command::Txn),
        (prop::option::of(a_lease()), a_ttl()).prop_map(|(lease, ttl)| Command::Grant { lease, ttl }),
        a_lease().prop_map(|lease| Command::KeepAlive { lease }),
        a_lease().prop_map(|lease| Command::Revoke { lease }),
    ]
}

pub(in crate::kv) fn a_command() -> impl Strategy<Value = Command> {
    let stamp = (any::<u64>(), any::<[u64; 2]>()).prop_map(|(session, [one, other])| {
        let (sequence, first_unanswered) = (one.max(other).max(1), one.min(other).max(1));
        Stamp { session: SessionId(session), sequence, first_unanswered }
    });
    prop_oneof![
        3 => a_change(),
        1 => (10_u64..=86_400_000)
            .prop_map(|timeout| Command::OpenSession { timeout: Duration::from_millis(timeout) }),
        1 => any::<u64>().prop_map(|session| Command::CloseSession { session: SessionId(session) }),
        3 => a_new_change(),
        3 => (stamp, prop_oneof![a_change(), a_new_change()])
            .prop_map(|(stamp, command)| Command::InSession { stamp, command: Box::new(command) }),
        1 => any::<u64>().prop_map(|revision| Command::Compact { revision: Revision(revision) }),
        1 => Just(Command::Expire),
    ]
}

#[test]
fn what_cannot_be_asked_is_refused_by_encoder_and_decoder() {
    let ms = Duration::from_millis;
    let max = *crate::kv::LEASE_TTL.end();
    let key_bytes = Limits::MAX.key_bytes;
    let long = |length: usize| Bytes::from(vec![b'x'; length]);
    let grant = |ttl| Command::Grant { lease: None, ttl };
    let attached = |attach| Command::PutAttached { key: "a".into(), value: "b".into(), attach };
    let swap = |attach| {
        let (key, value) = ("a".into(), "b".into());
        Command::SwapAttached { key, expected: Expected::Absent, value, attach }
    };
    let range = |range| Command::DeleteRange { range };
    let stamp = Stamp { session: SessionId(1), sequence: 1, first_unanswered: 1 };
    let inside = |command| Command::InSession { stamp, command: Box::new(command) };
    let ttl = |found| Err(CommandError::LeaseTtl { found });
    let too_long = |found| Err(CommandError::KeyTooLong { limit: key_bytes, found });
    for (command, expected) in [
        (grant(ms(99)), ttl(ms(99))),
        (grant(ms(100)), Ok(())),
        (grant(max), Ok(())),
        (grant(max + ms(1)), ttl(max + ms(1))),
        (grant(Duration::ZERO), ttl(Duration::ZERO)),
        (grant(Duration::MAX), ttl(Duration::MAX)),
        (Command::Grant { lease: Some(LeaseId(0)), ttl: ms(100) }, Err(CommandError::LeaseId)),
        (Command::KeepAlive { lease: LeaseId(0) }, Err(CommandError::LeaseId)),
        (Command::Revoke { lease: LeaseId(0) }, Err(CommandError::LeaseId)),
        (attached(Attach::Lease(LeaseId(0))), Err(CommandError::LeaseId)),
        (attached(Attach::Ttl(ms(0))), ttl(ms(0))),
        (swap(Attach::Lease(LeaseId(0))), Err(CommandError::LeaseId)),
        (swap(Attach::Ttl(max + ms(1))), ttl(max + ms(1))),
        (range(KeyRange::key("")), Err(CommandError::EmptyKey)),
        (range(KeyRange::key(long(key_bytes))), Ok(())),
        (range(KeyRange::key(long(key_bytes + 1))), too_long(key_bytes + 1)),
        (range(KeyRange::starting_at(long(key_bytes + 1))), Ok(())),
        (range(KeyRange::starting_at(long(key_bytes + 2))), too_long(key_bytes + 2)),
        (range(KeyRange::between("a", long(key_bytes + 2)).expect("in order")), too_long(key_bytes + 2)),
        (inside(range(KeyRange::all())), Ok(())),
        (inside(grant(ms(99))), ttl(ms(99))),
        (inside(Command::Expire), Err(CommandError::NotInSession(15))),
        (inside(Command::Compact { revision: Revision(1) }), Err(CommandError::NotInSession(14))),
    ] {
        let mut out = BytesMut::from(&b"before"[..]);
        assert_eq!(command.encode_into(&mut out), expected, "{command:?}");
        assert!(expected.is_ok() || out == b"before"[..], "a refused command leaves nothing behind");
    }
    let number = |tag: u8, numbers: &[u64]| {
        let numbers: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        [&[1, tag][..], &numbers].concat()
    };
    let txn = |bytes: &[u8]| [&[1, 10][..], bytes].concat();
    let field = |field, value| CommandError::Field { field, value };
    for (bytes, expected) in [
        (number(11, &[0, 99]), CommandError::LeaseTtl { found: ms(99) }),
        (number(11, &[0, u64::MAX]), CommandError::LeaseTtl { found: ms(u64::MAX) }),
        (number(12, &[0]), CommandError::LeaseId),
        (number(13, &[0]), CommandError::LeaseId),
        (b"\x01\x07\x01\0\0\0a\0\0\0\0\x04".to_vec(), field(Field::Attachment, 4)),
        (b"\x01\x09\x01\0\0\0b\x01\x01\0\0\0a".to_vec(), CommandError::Range),
        (b"\x01\x09\x01\0\0\0b\x01\x01\0\0\0b".to_vec(), CommandError::Range),
        (b"\x01\x09\x01\0\0\0b\x02".to_vec(), field(Field::End, 2)),
        (b"\x01\x09\0\0\0\0\x01\x01\0\0\0\0".to_vec(), CommandError::EmptyKey),
        (txn(b"\x01\0"), CommandError::Short { need: 11, have: 0 }),
        (txn(b"\x01\0\0\0\0\0\0\x04\0\0\0\0\0\0"), field(Field::Relation, 4)),
        (txn(b"\x01\0\0\0\0\0\0\0\x05\0\0\0\0\0"), field(Field::Target, 5)),
        (txn(b"\0\0\x01\0\x05\0\0\0\0\0"), field(Field::Operation, 5)),
        (txn(b"\0\0\x01\0\x00\0\0\0\0\0"), field(Field::Operation, 0)),
        (txn(&[&b"\0\0\x01\0\x03\0\0\0\0\0"[..], &[1; 8], b"\x02"].concat()), field(Field::Order, 2)),
        (txn(&[&b"\0\0\x01\0\x03\0\0\0\0\0"[..], &[1; 8], b"\0\x03"].concat()), field(Field::Select, 3)),
        (txn(&[&b"\0\0\x01\0\x03\0\0\0\0\0"[..], &[1; 8], b"\0\0\x02"].concat()), field(Field::After, 2)),
        (txn(&[&b"\0\0\x01\0\x03\0\0\0\0\0"[..], &[0; 8], b"\0\0\0\0\0"].concat()), CommandError::RangeLimit),
        (txn(b"\xff\xff"), CommandError::TxnTooLarge { found: 65_535 }),
        (txn(b"\0\0\x01\x02"), CommandError::TxnTooLarge { found: 513 }),
        (txn(b"\0\0\x00\x02"), CommandError::Short { need: 512 * 6, have: 0 }),
        (txn(b"\0\0\0\0\0\0\0"), CommandError::Trailing(1)),
        (txn(b"\0\0\x02\0\x02\x01\0\0\0a\0\x01\x01\0\0\0b\0\0\0\0\0\0\0"), CommandError::DuplicateKey),
    ] {
        let mut store = Store::new();
        assert_eq!(store.check(&bytes), Err(expected), "{bytes:?}");
        assert_eq!(store.apply(&bytes), Reply::Refused(expected));
        assert_eq!(Command::decode(&bytes.clone().into()), Err(expected));
        assert_eq!(store.digest(), Store::new().digest());
    }
}

#[test]
fn an_expiry_is_not_for_callers_and_is_applied() {
    let mut store = Store::new();
    let expire = encoded(&Command::Expire);
    assert_eq!(store.check(&expire), Err(CommandError::LeaderOnly(15)));
    let nothing = Reply::Expired { revision: Revision(1), leases: 0, keys: 0 };
    assert_eq!(store.apply(&expire), nothing);
    assert_eq!(store.check(&encoded(&Command::Compact { revision: Revision(1) })), Ok(()));
}

#[test]
fn a_transaction_is_as_long_as_the_longest_other_command_that_is_admitted() {
    let admitted = Limits { key_bytes: 10, value_bytes: 100 };
    let store = Store::with_limits(admitted);
    let length = admitted.command_bytes() - 26;
    let puts = |last: usize| {
        Command::Txn(
            Txn::new().then(Op::put([b'a'; 10], [b'x'; 100])).then(Op::put([b'b'; 10], vec![b'x'; last])),
        )
    };
    let fits = puts(86);
    assert_eq!(encoded(&fits).len(), length);
    assert_eq!(store.check(&encoded(&fits)), Ok(()));
    let stamp = Stamp { session: SessionId(1), sequence: 1, first_unanswered: 1 };
    let inside = Command::InSession { stamp, command: Box::new(fits) };
    assert_eq!(encoded(&inside).len(), admitted.command_bytes());
    assert_eq!(store.check(&encoded(&inside)), Ok(()));
    let longer = puts(87);
    let (limit, found) = (length - 2, length - 1);
    assert_eq!(store.check(&encoded(&longer)), Err(CommandError::TxnTooLong { limit, found }));
}

#[test]
fn the_binary_form_is_the_documented_one() {
    let form = |command: Command| encoded(&command).to_vec();
    let lease = LeaseId(258);
    let attached = |attach| Command::PutAttached { key: "a".into(), value: "b".into(), attach };
    assert_eq!(form(attached(Attach::Nothing)), b"\x01\x07\x01\0\0\0a\x01\0\0\0b\0");
    assert_eq!(form(attached(Attach::Keep)), b"\x01\x07\x01\0\0\0a\x01\0\0\0b\x01");
    assert_eq!(
        form(attached(Attach::Lease(lease))),
        b"\x01\x07\x01\0\0\0a\x01\0\0\0b\x02\x02\x01\0\0\0\0\0\0"
    );
    assert_eq!(
        form(attached(Attach::Ttl(Duration::from_micros(258_900)))),
        b"\x01\x07\x01\0\0\0a\x01\0\0\0b\x03\x02\x01\0\0\0\0\0\0",
        "a part of a millisecond is dropped"
    );
    assert_eq!(form(Command::DeleteRange { range: KeyRange::all() }), b"\x01\x09\0\0\0\0\0");
    assert_eq!(
        form(Command::DeleteRange { range: KeyRange::key("a") }),
        b"\x01\x09\x01\0\0\0a\x01\x02\0\0\0a\0"
    );
    assert_eq!(form(Command::Txn(Txn::new())), b"\x01\x0a\0\0\0\0\0\0");
    assert_eq!(
        form(Command::Txn(Txn::new().when(Compare::exists("a")).then(Op::delete("a")))),
        b"\x01\x0a\x01\0\x01\0\0\0a\x01\x02\0\0\0a\0\x02\x01\0\0\0\0\0\0\0\0\
          \x01\0\x02\x01\0\0\0a\x01\x02\0\0\0a\0\0\0"
    );
    assert_eq!(
        form(Command::Grant { lease: None, ttl: Duration::from_millis(258) }),
        b"\x01\x0b\0\0\0\0\0\0\0\0\x02\x01\0\0\0\0\0\0"
    );
    assert_eq!(form(Command::KeepAlive { lease }), b"\x01\x0c\x02\x01\0\0\0\0\0\0");
    assert_eq!(form(Command::Revoke { lease }), b"\x01\x0d\x02\x01\0\0\0\0\0\0");
    assert_eq!(form(Command::Compact { revision: Revision(258) }), b"\x01\x0e\x02\x01\0\0\0\0\0\0");
    assert_eq!(form(Command::Expire), b"\x01\x0f");
}

proptest! {
    #[test]
    fn commands_come_back_as_they_were_and_no_part_of_one_is_one(command in a_command()) {
        let bytes = encoded(&command);
        prop_assert_eq!(Command::decode(&bytes), Ok(command));
        for length in 0..bytes.len() {
            prop_assert!(Command::decode(&bytes.slice(..length)).is_err(), "cut at {}", length);
        }
        let longer = [&bytes[..], b"x"].concat();
        prop_assert_eq!(Command::decode(&longer.into()), Err(CommandError::Trailing(1)));
        for bit in 0..8 * bytes.len() {
            let mut flipped = bytes.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let flipped = Bytes::from(flipped);
            if let Ok(other) = Command::decode(&flipped) {
                prop_assert_eq!(encoded(&other), flipped, "bit {}", bit);
            }
        }
    }

    /// The short way through a put comes where the long one does, of bytes that are one, nearly one, or something else.
    #[test]
    fn a_put_is_taken_apart_both_ways_alike(
        command in a_command(),
        (key, value) in (a_key(), a_value()),
        (bit, length, cut) in any::<(prop::sample::Index, prop::sample::Index, u8)>(),
        (key_bytes, value_bytes) in (1_usize..8, 0_usize..8),
    ) {
        let put = encoded(&Command::Put { key, value }).to_vec();
        let mut damaged = put.clone();
        match cut % 3 {
            0 => damaged[bit.index(put.len())] ^= 1 << (cut >> 5),
            1 => damaged.truncate(length.index(put.len())),
            _ => damaged.push(cut),
        }
        let limits = Limits { key_bytes, value_bytes };
        for bytes in [&encoded(&command)[..], &put, &damaged] {
            for limits in [Limits::MAX, limits] {
                let parts = match CommandRef::parse(bytes, limits) {
                    Ok(CommandRef::Change(ChangeRef::Put { key, value })) => Some((key, value)),
                    _ => None,
                };
                prop_assert_eq!(put_parts(bytes, limits), parts);
            }
        }
    }

    /// Random bytes hardly pass the first two; so those are made right, half the time.
    #[test]
    fn any_bytes_are_decoded_without_a_panic(
        head in prop_oneof![Just(vec![]), (0_u8..17).prop_map(|tag| vec![1, tag])],
        tail in prop::collection::vec(prop_oneof![Just(0_u8), Just(1), any::<u8>()], 0..80),
    ) {
        let bytes = Bytes::from([head, tail].concat());
        let refused = matches!(Store::new().apply(&bytes), Reply::Refused(_));
        if let Ok(command) = Command::decode(&bytes) {
            prop_assert_eq!(encoded(&command), &bytes);
        } else {
            prop_assert!(refused);
        }
    }
}
