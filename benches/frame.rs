//! What bytes cost before they are anybody's state: the command a client makes, and the entry a batch of them becomes.
//!
//! Processor time per command: `encode` on the client's thread (a put of 16 B and 256 B, checked against the limits); `build`
//! once on the leader, and `parse` once on each follower, hashes included, for batches of 1, 100 and 1000 of 300 bytes.
//! `hash` is processor time per KiB of an entry that holds one large command.

mod cpu;

use bytes::{Bytes, BytesMut};
use cpu::CpuTime;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use d_engine::kv::{Limits, encode_put};
use std::hint::black_box;
use wal::frame::{FrameHead, origin};
use wal::{ClusterId, Frame, FrameBuilder, GroupId, Term};

const COMMAND_BYTES: usize = 300;
const HASHED_KIB: [usize; 2] = [4, 1024];

fn head() -> FrameHead {
    FrameHead {
        group: GroupId::FIRST,
        term: Term(1),
        previous: origin(ClusterId(7), GroupId::FIRST),
        timestamp_ms: 1_700_000_000_000,
    }
}

fn build(commands: usize, command: &[u8]) -> Frame {
    let mut builder = FrameBuilder::with_capacity(commands * (command.len() + 4));
    for _ in 0..commands {
        builder.push_command(black_box(command));
    }
    builder.commands(head())
}

fn parse(bytes: &Bytes) -> Frame {
    let mut bytes: Bytes = black_box(bytes).clone();
    Frame::parse(&mut bytes).expect("made by the builder")
}

fn commands(criterion: &mut Criterion<CpuTime>) {
    let (limits, key, value) = (Limits::DEFAULT, [0xa5; 16], [0x5a; 256]);
    let mut group = criterion.benchmark_group("command");
    group.throughput(Throughput::Elements(1));
    group.bench_function("encode", |bench| {
        bench.iter(|| {
            let mut command = BytesMut::with_capacity(282);
            encode_put(black_box(&key), black_box(&value), &mut command).expect("within the limits");
            limits.check(&command).expect("within the limits");
            command.freeze()
        });
    });
    group.finish();
}

fn frames(criterion: &mut Criterion<CpuTime>) {
    let mut group = criterion.benchmark_group("frame");
    for commands in [1_usize, 100, 1000] {
        group.throughput(Throughput::Elements(commands as u64));
        let command = [0x5a_u8; COMMAND_BYTES];
        group.bench_function(BenchmarkId::new("build", commands), |bench| {
            bench.iter(|| build(commands, &command))
        });
        let bytes = build(commands, &command).bytes().clone();
        group.bench_function(BenchmarkId::new("parse", commands), |bench| bench.iter(|| parse(&bytes)));
    }
    for kib in HASHED_KIB {
        group.throughput(Throughput::Elements(kib as u64));
        let bytes = build(1, &vec![0x5a; kib << 10]).bytes().clone();
        group.bench_function(BenchmarkId::new("hash, per KiB", kib), |bench| bench.iter(|| parse(&bytes)));
    }
    group.finish();
}

criterion_group!(name = benches; config = cpu::criterion(); targets = commands, frames);
criterion_main!(benches);
