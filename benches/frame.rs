//! What one batch costs in the encoder and at the gateway: the work that every put shares with its batch.
//!
//! 300-byte commands (a put of 16 B and 256 B with its envelope), batches of 1, 100 and 1000. `build` is paid once on the
//! leader; `parse` once on each follower, hashes included.

mod cpu;

use bytes::Bytes;
use cpu::CpuTime;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use wal::frame::{FrameHead, origin};
use wal::{ClusterId, Frame, FrameBuilder, GroupId, Term};

const COMMAND_BYTES: usize = 300;

fn head() -> FrameHead {
    FrameHead {
        group: GroupId::FIRST,
        term: Term(1),
        previous: origin(ClusterId(7), GroupId::FIRST),
        timestamp_ms: 1_700_000_000_000,
    }
}

fn build(commands: usize) -> Frame {
    let command = [0x5a_u8; COMMAND_BYTES];
    let mut builder = FrameBuilder::with_capacity(commands * (COMMAND_BYTES + 4));
    for _ in 0..commands {
        builder.push_command(black_box(&command));
    }
    builder.commands(head())
}

fn frames(criterion: &mut Criterion<CpuTime>) {
    let mut group = criterion.benchmark_group("frame");
    for commands in [1_usize, 100, 1000] {
        group.throughput(Throughput::Elements(commands as u64));
        group.bench_function(BenchmarkId::new("build", commands), |bench| bench.iter(|| build(commands)));
        let bytes = build(commands).bytes().clone();
        group.bench_function(BenchmarkId::new("parse", commands), |bench| {
            bench.iter(|| {
                let mut bytes: Bytes = black_box(&bytes).clone();
                Frame::parse(&mut bytes).expect("made by the builder")
            });
        });
    }
    group.finish();
}

criterion_group!(name = benches; config = cpu::criterion(); targets = frames);
criterion_main!(benches);
