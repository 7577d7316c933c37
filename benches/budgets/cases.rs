//! The cases. Each is as large as callgrind bears in a second or two.

use super::cluster::{self, Cluster, KEYS, VALUE_BYTES, key};
use super::mailbox::{Address, Mailboxes, Wakes};
use super::{Case, Figure, Work};
use bytes::{Bytes, BytesMut};
use d_engine::kv::{Hub, KeyRange, Store, WatchId, WatchLimits, WatchQuery, encode_put};
use d_engine::prelude::*;
use std::future::Future;
use std::hint::black_box;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use wal::frame::{FrameHead, origin};
use wal::{ClusterId, Frame, FrameBuilder, GroupId, NodeId, Term, WriteId, WritePlan};

const MEASURED: &[&str] = &["budgets::measured"];
const LEADER: &[&str] = &["Cluster::leader_is_called", "Cluster::leader_is_told"];
const FOLLOWER: &[&str] = &["Cluster::follower_is_told"];

/// Operations of a case of single ones.
const MANY: usize = 2_000;
/// Commands of an entry where it is measured alone.
const BATCH: usize = 100;
const WATCHES: usize = 1_000;
const FOLLOWERS: usize = 2;

pub const FIGURES: &[Figure] = &[
    // The encoded command of a put, as a client makes it: allocated, filled, checked.
    Figure { name: "encode a put", case: "encode", operations: MANY, functions: MEASURED },
    // The hash of an entry, with next to nothing beside it.
    Figure { name: "hash, per KiB", case: "hash", operations: 64 * HASHED_KIB, functions: MEASURED },
    // A command's part in an entry: copied, hashed.
    Figure {
        name: "build an entry, per command",
        case: "build",
        operations: 20 * BATCH,
        functions: MEASURED,
    },
    // A command's part in an entry that has come from a peer: hashed, compared, measured out.
    Figure {
        name: "check an entry, per command",
        case: "check",
        operations: 20 * BATCH,
        functions: MEASURED,
    },
    // A command's part in the log's envelope.
    Figure {
        name: "append to the log, per command",
        case: "append",
        operations: 20 * BATCH,
        functions: &["cases::log"],
    },
    Figure { name: "apply a put", case: "apply", operations: MANY, functions: MEASURED },
    Figure { name: "point read", case: "get", operations: MANY, functions: MEASURED },
    // On the caller's thread, of a running engine: lease, lock, read, lease.
    Figure { name: "lease read", case: "lease", operations: MANY, functions: MEASURED },
    // A pipeline's answer: slot taken, answer delivered, collected.
    Figure { name: "completion, collected", case: "collected", operations: 20 * BATCH, functions: MEASURED },
    // A future's answer: slot taken, polled, answer delivered and woken, polled.
    Figure { name: "completion, awaited", case: "awaited", operations: 20 * BATCH, functions: MEASURED },
    Figure { name: "event told to a watch", case: "watch", operations: WATCHES, functions: MEASURED },
    // Three nodes, the message's copies on their way included.
    Figure { name: "put, batch of 1", case: "put-1", operations: 100, functions: MEASURED },
    Figure { name: "put, batch of 1, leader", case: "put-1", operations: 100, functions: LEADER },
    Figure {
        name: "put, batch of 1, follower",
        case: "put-1",
        operations: FOLLOWERS * 100,
        functions: FOLLOWER,
    },
    Figure { name: "put, batch of 100", case: "put-100", operations: 1000, functions: MEASURED },
    Figure { name: "put, batch of 100, leader", case: "put-100", operations: 1000, functions: LEADER },
    Figure {
        name: "put, batch of 100, follower",
        case: "put-100",
        operations: FOLLOWERS * 1000,
        functions: FOLLOWER,
    },
    Figure { name: "put, batch of 1000", case: "put-1000", operations: 4000, functions: MEASURED },
    Figure { name: "put, batch of 1000, leader", case: "put-1000", operations: 4000, functions: LEADER },
    Figure {
        name: "put, batch of 1000, follower",
        case: "put-1000",
        operations: FOLLOWERS * 4000,
        functions: FOLLOWER,
    },
    // Until the leader's store may be read; the read itself is a point read.
    Figure { name: "linearizable read, batch of 1", case: "read-1", operations: 100, functions: MEASURED },
    Figure {
        name: "linearizable read, batch of 100",
        case: "read-100",
        operations: 1000,
        functions: MEASURED,
    },
    Figure {
        name: "linearizable read, batch of 1000",
        case: "read-1000",
        operations: 4000,
        functions: MEASURED,
    },
];

pub const CASES: &[Case] = &[
    Case { name: "encode", prepare: encode },
    Case { name: "hash", prepare: hash },
    Case { name: "build", prepare: build },
    Case { name: "check", prepare: check },
    Case { name: "append", prepare: append },
    Case { name: "apply", prepare: apply },
    Case { name: "get", prepare: get },
    Case { name: "lease", prepare: lease },
    Case { name: "collected", prepare: collected },
    Case { name: "awaited", prepare: awaited },
    Case { name: "watch", prepare: watch },
    Case { name: "put-1", prepare: || calls(Cluster::put, 1, 100) },
    Case { name: "put-100", prepare: || calls(Cluster::put, 100, 10) },
    Case { name: "put-1000", prepare: || calls(Cluster::put, 1000, 4) },
    Case { name: "read-1", prepare: || calls(Cluster::read, 1, 100) },
    Case { name: "read-100", prepare: || calls(Cluster::read, 100, 10) },
    Case { name: "read-1000", prepare: || calls(Cluster::read, 1000, 4) },
];

fn calls(call: fn(&mut Cluster, usize), at_once: usize, rounds: usize) -> Work {
    let mut cluster = Cluster::new();
    Box::new(move || (0..rounds).for_each(|_| call(&mut cluster, at_once)))
}

fn encode() -> Work {
    let (limits, value) = (d_engine::kv::Limits::DEFAULT, [0x5a; VALUE_BYTES]);
    Box::new(move || {
        for number in 0..MANY {
            let mut command = BytesMut::with_capacity(282);
            encode_put(&key(number), black_box(&value), &mut command).expect("within the limits");
            limits.check(&command).expect("within the limits");
            black_box(command.freeze());
        }
    })
}

fn head() -> FrameHead {
    let previous = origin(ClusterId(7), GroupId::FIRST);
    FrameHead { group: GroupId::FIRST, term: Term(1), previous, timestamp_ms: 1_700_000_000_000 }
}

fn frame(commands: &[Bytes], head: FrameHead) -> Frame {
    let mut builder = FrameBuilder::with_capacity(commands.iter().map(|command| command.len() + 4).sum());
    commands.iter().for_each(|command| builder.push_command(command));
    builder.commands(head)
}

fn batch() -> Vec<Bytes> {
    (0..BATCH).map(cluster::put).collect()
}

const HASHED_KIB: usize = 64;

fn hash() -> Work {
    let frame = frame(&[Bytes::from(vec![0x5a; HASHED_KIB << 10])], head());
    Box::new(move || (0..64).for_each(|_| parse(&frame)))
}

fn parse(frame: &Frame) {
    let mut bytes: Bytes = black_box(frame.bytes()).clone();
    black_box(Frame::parse(&mut bytes).expect("made by the builder"));
}

fn build() -> Work {
    let commands = batch();
    Box::new(move || (0..20).for_each(|_| drop(black_box(frame(black_box(&commands), head())))))
}

fn check() -> Work {
    let frame = frame(&batch(), head());
    Box::new(move || (0..20).for_each(|_| parse(&frame)))
}

fn append() -> Work {
    let mut disk = cluster::Disk::new(NodeId(1));
    let (commands, mut id, mut last) = (batch(), 0, origin(cluster::CLUSTER, GroupId::FIRST));
    Box::new(move || {
        // The entries are there when the log gets them; what they cost is another case's.
        let plans: Vec<WritePlan> = (0..20)
            .map(|_| {
                let frame = frame(&commands, FrameHead { previous: last, ..head() });
                (id, last) = (id + 1, frame.id());
                WritePlan { frames: vec![frame], ..WritePlan::barrier(WriteId(id)) }
            })
            .collect();
        log(&mut disk, plans);
    })
}

#[inline(never)]
fn log(disk: &mut cluster::Disk, plans: Vec<WritePlan>) {
    for plan in plans {
        disk.submit(plan);
        disk.write();
        black_box(disk.poll().expect("it is flushed"));
    }
}

fn filled() -> Store {
    let mut store = cluster::store();
    (0..KEYS).for_each(|number| drop(store.apply(&cluster::put(number))));
    store
}

fn apply() -> Work {
    let mut store = filled();
    let commands: Vec<Bytes> = (0..MANY).map(cluster::put).collect();
    Box::new(move || commands.iter().for_each(|command| drop(black_box(store.apply(black_box(command))))))
}

fn get() -> Work {
    let store = filled();
    Box::new(move || {
        for number in 0..MANY {
            assert!(black_box(store.get(black_box(&key(number)))).is_some());
        }
    })
}

/// Calls that are answered at once, or soon by another thread.
fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let mut cx = Context::from_waker(Waker::noop());
    loop {
        match future.as_mut().poll(&mut cx) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::sleep(Duration::from_millis(1)),
        }
    }
}

fn lease() -> Work {
    // A machine as slow as callgrind's is still up to its lease.
    let engine = d_engine::embedded::Builder::ephemeral()
        .runtime(Runtime::Tokio)
        .election_timeout(Duration::from_secs(1));
    let engine = block_on(engine.start()).expect("nothing is in its way");
    block_on(engine.wait_ready(Duration::from_secs(60))).expect("it leads alone");
    let client = engine.client();
    let (mut pipeline, mut done) = (client.pipeline(), Vec::new());
    for number in 0..MANY {
        pipeline.put(key(number), [0x5a; VALUE_BYTES]).expect("its queue holds so many");
    }
    while pipeline.in_flight() > 0 {
        pipeline.wait(&mut done);
    }
    assert!(done.iter().all(|put| put.result.is_ok()), "it runs");
    Box::new(move || {
        let _runs = &engine;
        for number in 0..MANY {
            assert!(block_on(client.get_lease(key(number))).expect("it runs").value.is_some());
        }
    })
}

fn collected() -> Work {
    let mailboxes = Mailboxes::<u64>::new();
    let handle = mailboxes.open();
    let (mut calls, mut done, mut wakes) = (Vec::new(), Vec::new(), Wakes::default());
    Box::new(move || {
        let mut cx = Context::from_waker(Waker::noop());
        for _ in 0..20 {
            calls.extend((0..BATCH as u64).map(|number| (handle.reserve_collected(number), number)));
            assert!(handle.poll_collected(&mut done, &mut cx).is_pending());
            mailboxes.deliver(calls.drain(..), &mut wakes);
            assert!(handle.poll_collected(&mut done, &mut cx).is_ready());
            assert_eq!(black_box(&mut done).drain(..).len(), BATCH);
        }
    })
}

fn awaited() -> Work {
    let mailboxes = Mailboxes::<u64>::new();
    let handle = mailboxes.open();
    let (mut calls, mut waiting, mut wakes) = (Vec::new(), Vec::<Address>::new(), Wakes::default());
    Box::new(move || {
        let mut cx = Context::from_waker(Waker::noop());
        for _ in 0..20 {
            for number in 0..BATCH as u64 {
                let address = handle.reserve();
                assert!(handle.poll(address, &mut cx).is_pending());
                calls.push((address, number));
                waiting.push(address);
            }
            mailboxes.deliver(calls.drain(..), &mut wakes);
            waiting
                .drain(..)
                .for_each(|address| assert!(black_box(handle.poll(address, &mut cx)).is_ready()));
        }
    })
}

fn watch() -> Work {
    let (mut store, mut hub) = (filled(), Hub::new(WatchLimits::DEFAULT));
    let query = WatchQuery::new(KeyRange::prefix(""));
    let watches: Vec<WatchId> =
        (0..WATCHES).map(|_| hub.open(&query, &store).expect("within the limits")).collect();
    let command = cluster::put(0);
    Box::new(move || {
        store.apply(&command);
        while hub.pass(&store) {}
        for &watch in &watches {
            assert!(matches!(black_box(hub.next(watch, &store)), Some(Ok(_))), "it is told");
            assert!(hub.next(watch, &store).is_none(), "once");
        }
    })
}
