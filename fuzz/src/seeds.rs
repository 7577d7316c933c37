//! The generated part of the corpus: one input of every kind that the core's encoders make.

use crate::decoders::{IDENTITY, SEGMENT_BYTES};
use bytes::{Bytes, BytesMut};
use d_engine::kv::{
    Attach, Command, CommandError, Compare, Expected, Field, KeyRange, KeyValue, LeaseError, LeaseId, Op,
    OpReply, Presence, RangePage, RangeQuery, Relation, Reply, Revision, RevisionError, Select, SessionError,
    SessionId, Stamp, Target, Txn, TxnReply,
};
use d_engine::node::message::{AskIndex, Forward, ForwardOutcome, Forwarded, Index};
use d_engine::node::{Message, wire};
use d_engine::raft::message::{
    Alive, Append, AppendOutcome, Appended, Body, Candidacy, Decision, Election, Heartbeat, Standing, Vote,
};
use d_engine::raft::{self, Membership};
use std::time::Duration;
use wal::pure::{self, BLOCK, Change, Damage, Journal, Opening, Rules, SegmentFile, Step};
use wal::{
    ChainHash, EntryId, Frame, FrameBuilder, FrameHead, GroupId, LogIndex, NodeId, Term, WriteId, WritePlan,
};

pub type Seeds = Vec<(&'static str, Vec<u8>)>;

const PROMISE: Duration = Duration::from_millis(75);
const PREVIOUS: EntryId = EntryId { index: LogIndex(6), term: Term(2), hash: ChainHash(9) };

fn head(previous: EntryId) -> FrameHead {
    FrameHead { group: GroupId::FIRST, term: Term(3), previous, timestamp_ms: 1_700_000_000_000 }
}

fn commands(previous: EntryId, commands: &[&[u8]]) -> Frame {
    let mut builder = FrameBuilder::with_capacity(64);
    commands.iter().for_each(|command| builder.push_command(command));
    builder.commands(head(previous))
}

fn joint() -> Membership {
    let set = |ids: &[u64]| ids.iter().copied().map(NodeId).collect();
    Membership::new(set(&[1, 4, 5]), set(&[1, 2, 3]), set(&[9])).expect("valid")
}

pub fn frame() -> Seeds {
    let noop = FrameBuilder::noop(head(PREVIOUS));
    let run = [noop.bytes(), &commands(noop.id(), &[b"x"]).bytes()[..]].concat();
    vec![
        ("no-op", noop.bytes().to_vec()),
        ("commands", commands(PREVIOUS, &[b"first", b"", b"third command"]).bytes().to_vec()),
        ("no-commands", commands(PREVIOUS, &[]).bytes().to_vec()),
        ("membership", FrameBuilder::membership(head(PREVIOUS), &joint().encode()).bytes().to_vec()),
        ("two-frames", run),
    ]
}

/// Everything that can be in one, four deep.
fn transaction(attach: Attach) -> Txn {
    let deepest = Txn::new().then(Op::get("deep")).otherwise(Op::delete("deep"));
    let third = Txn::new().then(Op::Txn(deepest)).then(Op::put("third", "3"));
    let second = Txn::new().when(Compare::absent("k")).otherwise(Op::Txn(third)).then(Op::put("third", ""));
    let range = KeyRange::prefix("lock/");
    let query = RangeQuery::new(range.clone()).descending().keys_only().limit(3).after("lock/b");
    Txn::new()
        .when(Compare::value("key", "a value"))
        .when(Compare::unchanged_since("key", Revision(5)))
        .when(Compare { range: range.clone(), relation: Relation::NotEqual, target: Target::Lease(9) })
        .when(Compare::key("key", Relation::Less, Target::Created(Revision(8))))
        .then(Op::put_attached("key", "new", attach))
        .then(Op::Delete { range })
        .then(Op::Range(query))
        .then(Op::Txn(second))
        .otherwise(Op::Range(RangeQuery::new(KeyRange::all()).count_only()))
}

pub fn command() -> Seeds {
    let (key, value) = (Bytes::from_static(b"key"), Bytes::from_static(b"a value"));
    let stamp = Stamp { session: SessionId(3), sequence: 8, first_unanswered: 5 };
    let swap = |expected| Command::CompareAndSwap { key: key.clone(), expected, value: value.clone() };
    let (lease, ttl) = (LeaseId(9), Duration::from_secs(30));
    let (expected, attach) = (Expected::Value(value.clone()), Attach::Lease(lease));
    let attached = Command::PutAttached { key: key.clone(), value: value.clone(), attach: Attach::Ttl(ttl) };
    let swap_attached =
        Command::SwapAttached { key: key.clone(), expected, value: value.clone(), attach: Attach::Keep };
    let range = KeyRange::between("a", "b").expect("in order");
    [
        ("put", Command::Put { key: key.clone(), value: value.clone() }),
        ("put-attached", attached.clone()),
        ("put-leased", Command::PutAttached { key: key.clone(), value: value.clone(), attach }),
        ("swap-attached", swap_attached),
        ("delete-range", Command::DeleteRange { range: range.clone() }),
        ("delete-all", Command::DeleteRange { range: KeyRange::all() }),
        ("transaction", Command::Txn(transaction(attach))),
        ("transaction-empty", Command::Txn(Txn::new())),
        ("grant", Command::Grant { lease: Some(lease), ttl }),
        ("keep-alive", Command::KeepAlive { lease }),
        ("revoke", Command::Revoke { lease }),
        ("compact", Command::Compact { revision: Revision(8) }),
        ("expire", Command::Expire),
        ("attached-in-session", Command::InSession { stamp, command: Box::new(attached) }),
        (
            "transaction-in-session",
            Command::InSession { stamp, command: Box::new(Command::Txn(transaction(Attach::Nothing))) },
        ),
        ("put-empty", Command::Put { key: key.clone(), value: Bytes::new() }),
        ("delete", Command::Delete { key: key.clone() }),
        ("swap-absent", swap(Expected::Absent)),
        ("swap-value", swap(Expected::Value(Bytes::from_static(b"old")))),
        ("swap-revision", swap(Expected::Revision(Revision(u64::MAX)))),
        ("open-session", Command::OpenSession { timeout: Duration::from_secs(60) }),
        ("close-session", Command::CloseSession { session: SessionId(3) }),
        ("in-session", Command::InSession { stamp, command: Box::new(swap(Expected::Absent)) }),
    ]
    .map(|(name, command)| {
        let mut out = BytesMut::new();
        command.encode_into(&mut out).expect("short");
        (name, out.to_vec())
    })
    .into()
}

pub fn reply() -> Seeds {
    let revision = Revision(7);
    let current = KeyValue {
        key: Bytes::from_static(b"key"),
        value: Bytes::from_static(b"a value"),
        create_revision: Revision(2),
        modify_revision: Revision(5),
        version: 3,
        lease: None,
    };
    let (lease, ttl) = (LeaseId(9), Duration::from_secs(30));
    let next = RangeQuery::new(KeyRange::prefix("lock/")).at(revision).after("lock/b").limit(1);
    let page = RangePage { items: vec![current.clone()], count: 1, next: Some(next), revision };
    let inner = TxnReply { succeeded: false, results: vec![OpReply::Deleted(4)] };
    let results = vec![
        OpReply::Put { previous: Some(current.clone()), told: Select::Whole, lease: Some(lease) },
        OpReply::Put { previous: None, told: Select::KeysOnly, lease: None },
        OpReply::Range(page),
        OpReply::Txn(inner),
    ];
    let compacted = RevisionError::Compacted { requested: Revision(2), oldest: Revision(5) };
    [
        ("put", Reply::Put { revision }),
        ("put-attached", Reply::PutAttached { revision, lease: Some(lease) }),
        ("swapped-attached", Reply::SwappedAttached { revision, lease: None }),
        ("range-deleted", Reply::RangeDeleted { revision, deleted: 4 }),
        ("transaction", Reply::Txn { revision, reply: TxnReply { succeeded: true, results } }),
        ("lease-granted", Reply::LeaseGranted { revision, lease, ttl }),
        ("lease-kept", Reply::LeaseKept { revision, lease, ttl }),
        ("lease-revoked", Reply::LeaseRevoked { revision, keys: 4 }),
        ("lease-refused", Reply::LeaseRefused(LeaseError::TooManyKeys { lease, limit: 4096 })),
        ("compacted", Reply::Compacted { revision, oldest: Revision(5) }),
        ("revision-refused", Reply::RevisionRefused(compacted)),
        ("expired", Reply::Expired { revision, leases: 2, keys: 4 }),
        ("refused-field", Reply::Refused(CommandError::Field { field: Field::Order, value: 9 })),
        ("deleted", Reply::Deleted { revision, before: Presence::Present }),
        ("not-there", Reply::Deleted { revision, before: Presence::Absent }),
        ("swapped", Reply::Swapped { revision }),
        ("not-swapped", Reply::NotSwapped { revision, current: Some(Box::new(current)) }),
        ("not-swapped-absent", Reply::NotSwapped { revision, current: None }),
        ("refused", Reply::Refused(CommandError::KeyTooLong { limit: 10, found: 11 })),
        ("session-opened", Reply::SessionOpened { revision, session: SessionId(3) }),
        ("session-closed", Reply::SessionClosed { revision }),
        ("session-gone", Reply::SessionRefused(SessionError::Gone { session: SessionId(3) })),
        ("session-reused", Reply::SessionRefused(SessionError::Reused { sequence: 8 })),
        ("refused-tag", Reply::Refused(CommandError::Tag(9))),
    ]
    .map(|(name, reply)| {
        let mut out = BytesMut::new();
        reply.encode_into(&mut out);
        (name, out.to_vec())
    })
    .into()
}

pub fn message() -> Seeds {
    let raft = |body| Message::Raft(raft::Message { term: Term(3), body });
    let standing = Standing::Whole;
    let candidacy = |election| {
        Body::Candidacy(Candidacy { election, last_term: Term(2), last_index: LogIndex(6), standing })
    };
    let vote = Vote { election: Election::Vote, decision: Decision::Granted, standing: Standing::Suspect };
    let noop = FrameBuilder::noop(head(PREVIOUS));
    let frames = vec![noop.clone(), commands(noop.id(), &[b"x", b"y"])];
    let append =
        |frames| Append { previous: PREVIOUS, frames, commit: LogIndex(5), probe: 8, promise: PROMISE };
    let accepted = AppendOutcome::Accepted { matched: LogIndex(8) };
    let rejected = AppendOutcome::Rejected { previous: LogIndex(6), hint: LogIndex(4), hint_term: Term(1) };
    let outcomes = vec![
        (1, ForwardOutcome::Applied(Bytes::from_static(b"reply"))),
        (2, ForwardOutcome::NotLeader),
        (3, ForwardOutcome::Busy),
        (4, ForwardOutcome::Refused("too long".to_owned())),
        (5, ForwardOutcome::Superseded),
        (6, ForwardOutcome::Unknown),
    ];
    let forward = Forward {
        term: Term(3),
        incarnation: 5,
        first: 1,
        commands: vec![Bytes::from_static(b"one"), Bytes::new()],
    };
    [
        ("pre-vote", raft(candidacy(Election::PreVote))),
        ("candidacy", raft(candidacy(Election::Vote))),
        ("transfer", raft(candidacy(Election::Transfer))),
        ("vote", raft(Body::Vote(vote))),
        ("append", raft(Body::Append(append(frames)))),
        ("append-empty", raft(Body::Append(append(Vec::new())))),
        ("accepted", raft(Body::Appended(Appended { outcome: accepted, probe: 8 }))),
        ("rejected", raft(Body::Appended(Appended { outcome: rejected, probe: 8 }))),
        ("heartbeat", raft(Body::Heartbeat(Heartbeat { probe: 8, commit: LogIndex(5), promise: PROMISE }))),
        (
            "heartbeat-unstated",
            raft(Body::Heartbeat(Heartbeat { probe: 8, commit: LogIndex(5), promise: Duration::ZERO })),
        ),
        ("alive", raft(Body::Alive(Alive { probe: 8 }))),
        ("timeout-now", raft(Body::TimeoutNow)),
        ("forward", Message::Forward(forward)),
        ("forwarded", Message::Forwarded(Forwarded { incarnation: 5, outcomes })),
        ("ask-index", Message::AskIndex(AskIndex { term: Term(3), incarnation: 5, number: 1 })),
        ("index", Message::Index(Index { incarnation: 5, number: 1, index: Some(LogIndex(6)) })),
        ("index-none", Message::Index(Index { incarnation: 5, number: 1, index: None })),
    ]
    .map(|(name, message)| {
        let mut parts = Vec::new();
        wire::encode(&message, &mut parts);
        (name, parts.concat())
    })
    .into()
}

pub fn membership() -> Seeds {
    let plain = |count| Membership::of_voters((1..=count).map(NodeId)).expect("valid").encode();
    vec![("one", plain(1)), ("three", plain(3)), ("most", plain(31)), ("joint", joint().encode())]
}

pub fn header() -> Seeds {
    segment().into_iter().map(|(name, bytes)| (name, bytes[..BLOCK].to_vec())).take(1).collect()
}

pub fn state() -> Seeds {
    let vote = Some(wal::HardState { term: Term(4), vote: Some(NodeId(2)), promise: PROMISE });
    let plan = WritePlan { hard_state: vote, ..WritePlan::barrier(WriteId(1)) };
    vec![("new", pure::initial_file(IDENTITY).1), ("voted", written(vec![plan]).1)]
}

/// A segment and the state file as the journal writes them.
fn written(plans: Vec<WritePlan>) -> (Vec<u8>, Vec<u8>) {
    let (record, mut state_file) = pure::initial_file(IDENTITY);
    let rules = Rules { segment_bytes: SEGMENT_BYTES as u64, damage: Damage::Refuse };
    let none: [SegmentFile<&[u8]>; 0] = [];
    let mut opening = Opening::decide(record, &none, rules).expect("a new directory");
    let mut file = vec![0; SEGMENT_BYTES];
    while let Some(change) = opening.poll_change() {
        match change {
            Change::Make(next) => {
                let header = next.header(IDENTITY, 77);
                header.fill(&mut file[..BLOCK]);
                opening.handle_made(header);
            }
            Change::State(record) => {
                let at = usize::try_from(record.offset()).expect("two blocks");
                record.fill(&mut state_file[at..at + BLOCK]);
            }
            _ => {}
        }
    }
    let mut journal = Journal::new(opening.finish());
    for plan in plans {
        journal.submit(plan);
        while let Step::Write { envelope, state } = journal.poll_step() {
            if let Some(extent) = envelope {
                let at = usize::try_from(extent.at.offset).expect("within the segment");
                journal.fill_envelope(&mut file[at..][..extent.bytes]);
            }
            if let Some(at) = state {
                let at = usize::try_from(at).expect("two blocks");
                journal.fill_state(&mut state_file[at..at + BLOCK]);
            }
            journal.handle_written();
        }
    }
    (file, state_file)
}

pub fn segment() -> Seeds {
    let plan = |id, frames| WritePlan { frames, ..WritePlan::barrier(WriteId(id)) };
    let first = FrameBuilder::noop(head(IDENTITY.origin()));
    let second = commands(first.id(), &[b"x", b"y"]);
    let third = FrameBuilder::membership(head(second.id()), &joint().encode());
    let instead = FrameBuilder::noop(FrameHead { term: Term(4), ..head(first.id()) });
    vec![
        ("empty", written(Vec::new()).0),
        ("one-write", written(vec![plan(1, vec![first.clone(), second.clone()])]).0),
        (
            "three-writes",
            written(vec![plan(1, vec![first.clone()]), plan(2, vec![second.clone()]), plan(3, vec![third])])
                .0,
        ),
        ("superseded", written(vec![plan(1, vec![first, second]), plan(2, vec![instead])]).0),
    ]
}
