//! What it costs to append to the log, per command of 282 bytes, in entries of 1, 100 and 1000 of them.
//!
//! `pure`: processor time of the journal alone, which plans the write and fills the envelope; the disk is memory. `flushed`:
//! time on the clock until the log on a real file system has said that the entry is durable, one in flight; what a disk
//! can do is the business of `cargo bench -p wal --bench disk`. It lies where temporary files do: `TMPDIR` names another
//! place, and a file system in memory flushes nothing.

mod cluster;
mod cpu;

use bytes::Bytes;
use cluster::Disk;
use cpu::CpuTime;
use criterion::measurement::WallTime;
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use wal::frame::{FrameHead, origin};
use wal::{
    EntryId, Frame, FrameBuilder, GroupId, Identity, LogEvent, NodeId, Opened, Options, PortableLog, Term,
    WriteId, WritePlan,
};

const BATCHES: [usize; 3] = [1, 100, 1000];

/// Entries one after the other, each the plan of a write.
struct Entries {
    commands: Vec<Bytes>,
    last: EntryId,
    written: u64,
}

impl Entries {
    fn of(commands: usize) -> Self {
        let commands = (0..commands).map(cluster::put).collect();
        Self { commands, last: origin(cluster::CLUSTER, GroupId::FIRST), written: 0 }
    }

    fn next(&mut self) -> WritePlan {
        let mut builder = FrameBuilder::with_capacity(self.commands.len() * 300);
        self.commands.iter().for_each(|command| builder.push_command(command));
        let head =
            FrameHead { group: GroupId::FIRST, term: Term(1), previous: self.last, timestamp_ms: 1_700_000 };
        let frame: Frame = builder.commands(head);
        (self.last, self.written) = (frame.id(), self.written + 1);
        WritePlan { frames: vec![frame], ..WritePlan::barrier(WriteId(self.written)) }
    }
}

fn pure(criterion: &mut Criterion<CpuTime>) {
    let mut group = criterion.benchmark_group("append");
    for commands in BATCHES {
        group.throughput(Throughput::Elements(commands as u64));
        group.bench_function(BenchmarkId::new("pure", commands), |bench| {
            let (mut disk, mut entries) = (Disk::new(NodeId(1)), Entries::of(commands));
            bench.iter_batched(
                || entries.next(),
                |plan| {
                    disk.submit(plan);
                    disk.write();
                    disk.poll().expect("it is flushed")
                },
                // Each follows the one before.
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

fn flushed(criterion: &mut Criterion<WallTime>) {
    let mut group = criterion.benchmark_group("append");
    for commands in BATCHES {
        group.throughput(Throughput::Elements(commands as u64));
        group.bench_function(BenchmarkId::new("flushed", commands), |bench| {
            let directory = tempfile::tempdir().expect("temporary files have a place");
            let identity = Identity { cluster: cluster::CLUSTER, node: NodeId(1), group: GroupId::FIRST };
            let options = Options {
                create: true,
                allow_volatile: true,
                ..Options::new(directory.path().join("log"), identity)
            };
            let Opened { directory: opened, .. } = wal::open(options).expect("a new log opens");
            let caller = std::thread::current();
            let mut log = PortableLog::start(opened, move || caller.unpark()).expect("a thread is there");
            let mut entries = Entries::of(commands);
            bench.iter_batched(
                || entries.next(),
                |plan| {
                    log.submit(plan);
                    log.kick();
                    loop {
                        match log.poll() {
                            Some(LogEvent::Flushed(flushed)) => break flushed.id(),
                            Some(other) => panic!("the disk works: {other:?}"),
                            None => std::thread::park(),
                        }
                    }
                },
                BatchSize::PerIteration,
            );
            log.close().expect("the disk works");
        });
    }
    group.finish();
}

criterion_group!(name = alone; config = cpu::criterion(); targets = pure);
criterion_group!(on_disk, flushed);
criterion_main!(alone, on_disk);
