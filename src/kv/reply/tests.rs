//! Every reply there is, as bytes and back.

use super::*;
use crate::kv::command::tests::{a_lease, a_query};
use crate::kv::tests::{a_key, a_value};
use crate::kv::{Field, OpReply, RangePage, RangeQuery, Select};
use proptest::prelude::*;

fn a_session_error() -> impl Strategy<Value = SessionError> {
    (0..7, any::<[u64; 2]>()).prop_map(|(which, [first, second])| match which {
        0 => SessionError::Unknown { session: SessionId(first) },
        1 => SessionError::Gone { session: SessionId(first) },
        2 => SessionError::Acknowledged { sequence: first, first_unanswered: second },
        3 => SessionError::Reused { sequence: first },
        4 => SessionError::TooManyAnswers { answers: first, bytes: second },
        5 => SessionError::AnswersFull { bytes: first },
        _ => SessionError::TooManySessions { limit: first },
    })
}

fn a_key_value() -> impl Strategy<Value = KeyValue> {
    (a_key(), a_value(), any::<[u64; 3]>(), prop::option::of(a_lease())).prop_map(
        |(key, value, [create, modify, version], lease)| {
            let (create_revision, modify_revision) = (Revision(create), Revision(modify));
            KeyValue { key, value, create_revision, modify_revision, version, lease }
        },
    )
}

fn a_page() -> impl Strategy<Value = RangePage> {
    let next = (a_query(), prop::option::of(any::<u64>()))
        .prop_map(|(query, revision)| RangeQuery { revision: revision.map(Revision), ..query });
    (prop::collection::vec(a_key_value(), 0..4), any::<[u64; 2]>(), prop::option::of(next)).prop_map(
        |(items, [count, revision], next)| RangePage { items, count, next, revision: Revision(revision) },
    )
}

fn a_txn_reply() -> impl Strategy<Value = TxnReply> {
    let told = prop::sample::select(vec![Select::Whole, Select::KeysOnly]);
    let put = (prop::option::of(a_key_value()), told, prop::option::of(a_lease()));
    let flat = prop_oneof![
        put.prop_map(|(previous, told, lease)| OpReply::Put { previous, told, lease }),
        any::<u64>().prop_map(OpReply::Deleted),
        a_page().prop_map(OpReply::Range),
    ];
    let txn = |op: BoxedStrategy<OpReply>| {
        (any::<bool>(), prop::collection::vec(op, 0..3))
            .prop_map(|(succeeded, results)| TxnReply { succeeded, results })
            .boxed()
    };
    let flat = flat.boxed();
    let deeper = |inner| prop_oneof![2 => flat.clone(), 1 => txn(inner).prop_map(OpReply::Txn)].boxed();
    txn(deeper(deeper(deeper(flat.clone()))))
}

fn a_lease_reply() -> impl Strategy<Value = Reply> {
    let ttl = any::<u64>().prop_map(Duration::from_millis);
    (0..12, any::<u64>().prop_map(Revision), a_lease(), any::<[u64; 2]>(), ttl).prop_map(
        |(which, revision, lease, [first, second], ttl)| match which {
            0 => Reply::PutAttached { revision, lease: Some(lease) },
            1 => Reply::SwappedAttached { revision, lease: None },
            2 => Reply::RangeDeleted { revision, deleted: first },
            3 => Reply::LeaseGranted { revision, lease, ttl },
            4 => Reply::LeaseKept { revision, lease, ttl },
            5 => Reply::LeaseRevoked { revision, keys: first },
            6 => Reply::Compacted { revision, oldest: Revision(first) },
            7 => Reply::Expired { revision, leases: first, keys: second },
            8 => Reply::LeaseRefused(LeaseError::NotFound { lease }),
            9 => Reply::LeaseRefused(LeaseError::TooManyKeys { lease, limit: first }),
            10 => Reply::RevisionRefused(RevisionError::Compacted {
                requested: revision,
                oldest: Revision(first),
            }),
            _ => Reply::RevisionRefused(RevisionError::Future {
                requested: revision,
                current: Revision(first),
            }),
        },
    )
}

pub(in crate::kv) fn a_reply() -> impl Strategy<Value = Reply> {
    let revision = any::<u64>().prop_map(Revision);
    let error = (0..24, any::<u32>(), any::<u8>()).prop_map(|(which, number, byte)| {
        let (limit, found) = (number as usize, byte.into());
        match which {
            0 => CommandError::EmptyKey,
            1 => CommandError::KeyTooLong { limit, found },
            2 => CommandError::ValueTooLong { limit, found },
            3 => CommandError::Short { need: limit, have: found },
            4 => CommandError::Trailing(limit),
            5 => CommandError::Format(byte),
            6 => CommandError::Tag(byte),
            7 => CommandError::Expectation(byte),
            8 => CommandError::SessionTimeout { found: Duration::new(found as u64, number / 5) },
            9 => CommandError::SessionNumbers { sequence: number.into(), first_unanswered: byte.into() },
            10 => CommandError::NotInSession(byte),
            11 => CommandError::Range,
            12 => CommandError::TxnTooLarge { found },
            13 => CommandError::TxnTooLong { limit, found },
            14 => CommandError::TxnTooDeep,
            15 => CommandError::DuplicateKey,
            16 => CommandError::TxnTooWide,
            17 => CommandError::PastInTxn(number.into()),
            18 => CommandError::RangeLimit,
            19 => CommandError::LeaseTtl { found: Duration::new(found as u64, number / 5) },
            20 => CommandError::LeaseId,
            21 => CommandError::DeleteTooWide,
            22 => CommandError::Field { field: Field::ALL[limit % Field::ALL.len()], value: byte },
            _ => CommandError::LeaderOnly(byte),
        }
    });
    prop_oneof![
        revision.clone().prop_map(|revision| Reply::Put { revision }),
        revision.clone().prop_map(|revision| Reply::Swapped { revision }),
        (revision.clone(), prop::sample::select(vec![Presence::Present, Presence::Absent]))
            .prop_map(|(revision, before)| Reply::Deleted { revision, before }),
        (revision.clone(), any::<u64>())
            .prop_map(|(revision, session)| Reply::SessionOpened { revision, session: SessionId(session) }),
        revision.clone().prop_map(|revision| Reply::SessionClosed { revision }),
        a_session_error().prop_map(Reply::SessionRefused),
        (revision, prop::option::of(a_key_value()))
            .prop_map(|(revision, current)| Reply::NotSwapped { revision, current: current.map(Box::new) }),
        error.prop_map(Reply::Refused),
        a_lease_reply(),
        (any::<u64>(), a_txn_reply())
            .prop_map(|(revision, reply)| Reply::Txn { revision: Revision(revision), reply }),
    ]
}

proptest! {
    #[test]
    fn replies_come_back_as_they_were_and_no_part_of_one_is_one(reply in a_reply()) {
        let mut out = BytesMut::new();
        reply.encode_into(&mut out);
        let bytes = out.freeze();
        prop_assert_eq!(Reply::decode(&bytes), Ok(reply));
        for length in 0..bytes.len() {
            prop_assert!(Reply::decode(&bytes.slice(..length)).is_err(), "cut at {}", length);
        }
        let longer = [&bytes[..], b"x"].concat();
        prop_assert_eq!(Reply::decode(&longer.into()), Err(ReplyError::Trailing(1)));
    }

    #[test]
    fn any_bytes_are_decoded_without_a_panic(
        head in prop_oneof![Just(vec![]), (0_u8..21).prop_map(|tag| vec![1, tag])],
        tail in prop::collection::vec(prop_oneof![Just(0_u8), Just(1), any::<u8>()], 0..80),
    ) {
        let bytes = Bytes::from([head, tail].concat());
        if let Ok(reply) = Reply::decode(&bytes) {
            let mut out = BytesMut::new();
            reply.encode_into(&mut out);
            prop_assert_eq!(out.len(), bytes.len());
            prop_assert_eq!(Reply::decode(&out.freeze()), Ok(reply));
        }
    }
}
