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
