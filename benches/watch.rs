//! Watches alone: what they cost a writer elsewhere, and what one change costs that ten thousand of them wait for.

mod cpu;

use bytes::{Bytes, BytesMut};
use cpu::CpuTime;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use d_engine::kv::{Hub, KeyRange, Store, WatchId, WatchLimits, WatchQuery, encode_put};
use std::hint::black_box;

const KEYS: usize = 10_000;
const MANY: usize = 10_000;

fn put(key: &str) -> Bytes {
    let mut command = BytesMut::new();
    encode_put(key.as_bytes(), &[0x5a; 256], &mut command).expect("within the limits");
    command.freeze()
}

/// Watches of as many ranges: every second one of one key, the others of a prefix.
fn elsewhere(watches: usize, store: &Store) -> Hub {
    let mut hub = Hub::new(WatchLimits::DEFAULT);
    for n in 0..watches {
        let name = format!("watched/{n}/");
        let range = if n % 2 == 0 { KeyRange::key(name) } else { KeyRange::prefix(name) };
        hub.open(&WatchQuery::new(range), store).expect("within the limits");
    }
    hub
}

fn watch(criterion: &mut Criterion<CpuTime>) {
    let mut store = Store::new();
    let commands: Vec<Bytes> = (0..KEYS).map(|n| put(&format!("key/{}", n * 7919 % KEYS))).collect();
    commands.iter().for_each(|command| drop(store.apply(command)));

    let mut group = criterion.benchmark_group("watch");
    group.throughput(Throughput::Elements(commands.len() as u64));
    for watches in [0, 1, 100, MANY] {
        // In passes of a batch, as the engine's thread makes them.
        let mut hub = elsewhere(watches, &store);
        group.bench_function(format!("apply put and pass, {watches} watches elsewhere"), |bench| {
            bench.iter(|| {
                for batch in commands.chunks(100) {
                    batch.iter().for_each(|command| drop(store.apply(black_box(command))));
                    while hub.pass(&store) {}
                }
            });
        });
    }

    let mut hub = Hub::new(WatchLimits::DEFAULT);
    let query = WatchQuery::new(KeyRange::prefix("key/"));
    let watches: Vec<WatchId> =
        (0..MANY).map(|_| hub.open(&query, &store).expect("within the limits")).collect();
    group.throughput(Throughput::Elements(MANY as u64));
    group.bench_function(format!("one put told to {MANY} watches of its prefix"), |bench| {
        bench.iter(|| {
            store.apply(&commands[0]);
            while hub.pass(&store) {}
            for &watch in &watches {
                assert!(matches!(hub.next(watch, &store), Some(Ok(_))), "it is told");
                assert!(hub.next(watch, &store).is_none(), "once");
            }
        });
    });
    group.finish();
}

criterion_group!(name = benches; config = cpu::criterion(); targets = watch);
criterion_main!(benches);
