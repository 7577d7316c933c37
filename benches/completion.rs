//! How an answer gets to its caller: processor time per answer, slot taken, answer delivered, answer fetched.
//!
//! `collected` is a pipeline's way, `awaited` a future's, whose waker is told once for all answers of a delivery. In
//! deliveries of 1, 100 and 1000 answers for one handle, and of 1000 for 100 handles in turn: the order that costs most. One
//! thread: what two of them cost each other is `perf`'s business.

mod cpu;
#[path = "../src/runtime/mailbox.rs"]
#[allow(dead_code, reason = "the engine's file as it is: what it holds is not public")]
mod mailbox;

use cpu::CpuTime;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use mailbox::{Address, Handle, Mailboxes, Wakes};
use std::hint::black_box;
use std::task::{Context, Waker};

const DELIVERIES: [usize; 3] = [1, 100, 1000];
const HANDLES: usize = 100;

fn collected(criterion: &mut Criterion<CpuTime>) {
    let mut group = criterion.benchmark_group("completion");
    for answers in DELIVERIES {
        group.throughput(Throughput::Elements(answers as u64));
        group.bench_function(BenchmarkId::new("collected", answers), |bench| {
            let mailboxes = Mailboxes::<u64>::new();
            let handle = mailboxes.open();
            let (mut calls, mut done, mut wakes) = (Vec::new(), Vec::new(), Wakes::default());
            let mut cx = Context::from_waker(Waker::noop());
            bench.iter(|| {
                calls.extend((0..answers as u64).map(|number| (handle.reserve_collected(number), number)));
                assert!(handle.poll_collected(&mut done, &mut cx).is_pending(), "nobody has answered");
                mailboxes.deliver(calls.drain(..), &mut wakes);
                assert!(handle.poll_collected(&mut done, &mut cx).is_ready(), "all are there");
                assert_eq!(black_box(&mut done).drain(..).len(), answers);
            });
        });
    }
    group.finish();
}

fn awaited(criterion: &mut Criterion<CpuTime>) {
    let mut group = criterion.benchmark_group("completion");
    for (answers, handles) in DELIVERIES.map(|answers| (answers, 1)).into_iter().chain([(1000, HANDLES)]) {
        group.throughput(Throughput::Elements(answers as u64));
        let name = BenchmarkId::new("awaited", format!("{answers} of {handles}"));
        group.bench_function(name, |bench| {
            let mailboxes = Mailboxes::<u64>::new();
            let handles: Vec<Handle<u64>> = (0..handles).map(|_| mailboxes.open()).collect();
            let (mut calls, mut wakes) = (Vec::<(Address, u64)>::new(), Wakes::default());
            let mut waiting = Vec::<(usize, Address)>::new();
            let mut cx = Context::from_waker(Waker::noop());
            bench.iter(|| {
                for number in 0..answers {
                    let owner = number % handles.len();
                    let address = handles[owner].reserve();
                    assert!(handles[owner].poll(address, &mut cx).is_pending(), "nobody has answered");
                    calls.push((address, number as u64));
                    waiting.push((owner, address));
                }
                mailboxes.deliver(calls.drain(..), &mut wakes);
                for (owner, address) in waiting.drain(..) {
                    assert!(black_box(handles[owner].poll(address, &mut cx)).is_ready(), "it is there");
                }
            });
        });
    }
    group.finish();
}

criterion_group!(name = benches; config = cpu::criterion(); targets = collected, awaited);
criterion_main!(benches);
