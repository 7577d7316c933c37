//! The store alone: what one command costs to apply, and what one read costs, at a size that does not fit the caches.

mod cpu;

use bytes::{Bytes, BytesMut};
use cpu::CpuTime;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use d_engine::kv::{Store, encode_put};
use std::hint::black_box;

const KEYS: usize = 100_000;
const VALUE_BYTES: usize = 256;

/// A 16-byte key; neighbouring numbers are far apart in the key order, as keys of real programs are.
fn key(number: usize) -> [u8; 16] {
    let scattered = (number as u128).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
    scattered.to_le_bytes()
}

fn put(number: usize) -> Bytes {
    let mut command = BytesMut::new();
    encode_put(&key(number), &[0x5a; VALUE_BYTES], &mut command).expect("within the limits");
    command.freeze()
}

fn filled() -> Store {
    let mut store = Store::new();
    for number in 0..KEYS {
        store.apply(&put(number));
    }
    store
}

fn kv(criterion: &mut Criterion<CpuTime>) {
    let mut store = filled();
    let mut group = criterion.benchmark_group("kv");
    group.throughput(Throughput::Elements(1));

    let commands: Vec<Bytes> = (0..KEYS).map(put).collect();
    let mut next = (0..KEYS).cycle();
    group.bench_function("apply put, key exists", |bench| {
        bench.iter_batched(
            || &commands[next.next().expect("a cycle does not end")],
            |command| store.apply(black_box(command)),
            BatchSize::SmallInput,
        );
    });

    let mut next = (0..KEYS).cycle();
    group.bench_function("get", |bench| {
        bench.iter_batched(
            || key(next.next().expect("a cycle does not end")),
            |key| store.get(black_box(&key)),
            BatchSize::SmallInput,
        );
    });

    group.bench_function("scan of 100", |bench| {
        bench.iter(|| store.scan_prefix(black_box(b""), 100));
    });
    group.finish();
}

criterion_group!(name = benches; config = cpu::criterion(); targets = kv);
criterion_main!(benches);
