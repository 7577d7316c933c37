//! Three whole nodes without disk and network: what the engine itself costs per call, everything that is not I/O.
//!
//! Processor time per put, and per linearizable read up to the leave to read, over all three nodes, by the number of calls
//! that the leader is handed in one turn. `cluster` says what such a turn is made of.

mod cluster;
mod cpu;

use cluster::Cluster;
use cpu::CpuTime;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

const BATCHES: [usize; 4] = [1, 16, 128, 1024];

fn node(criterion: &mut Criterion<CpuTime>) {
    let mut cluster = Cluster::new();
    let mut group = criterion.benchmark_group("three nodes");
    for calls in BATCHES {
        group.throughput(Throughput::Elements(calls as u64));
        group.bench_function(BenchmarkId::new("put", calls), |bench| bench.iter(|| cluster.put(calls)));
    }
    for calls in BATCHES {
        group.throughput(Throughput::Elements(calls as u64));
        group.bench_function(BenchmarkId::new("linearizable read", calls), |bench| {
            bench.iter(|| cluster.read(calls));
        });
    }
    group.finish();
}

criterion_group!(name = benches; config = cpu::criterion(); targets = node);
criterion_main!(benches);
