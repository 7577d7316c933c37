//! What the store's features cost: watchers that watch something else, many that watch the same, a key's memory, reads,
//! a thousand keys at once, and leases that all end together.
//!
//! One embedded node with its log on a real disk, the harness in its process. Every write was flushed before it was
//! acknowledged. Rows that are compared take turns in short slices, in an order that is drawn anew for each block.

use crate::generator::embedded::Embedded;
use crate::generator::{self, Material};
use crate::results::{Memory, Results, Rules};
use crate::statistics::{Median, SplitMix, median};
use crate::usage::{ProcessUsage, field};
use crate::wait::wait_for;
use crate::workload::{Call, KEY_BYTES, VALUE_BYTES, Workload};
use bytes::BytesMut;
use d_engine::kv::{
    Attach, Event, Filter, KeyRange, Op, RangeQuery, Revision, Store, Txn, WatchItem, WatchQuery, encode_put,
};
use d_engine::prelude::*;
use futures_util::stream::{SelectAll, StreamExt};
use hdrhistogram::Histogram;
use std::fmt::Display;
use std::io::{self, Write};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

/// What may be chosen.
#[derive(clap::Args, Debug)]
pub struct Options {
    /// Watchers on other keys, one row for each number; the first is what the others are compared with.
    #[arg(long, value_delimiter = ',', default_values_t = [0, 1, 100, 10_000])]
    watchers: Vec<usize>,
    /// Puts in flight.
    #[arg(long, default_value_t = 1000)]
    in_flight: usize,
    /// Each row gets one slice in each block.
    #[arg(long, default_value_t = 8)]
    blocks: usize,
    /// Length of a slice.
    #[arg(long, default_value = "700ms", value_parser = humantime::parse_duration)]
    slice: Duration,
    /// Watchers of one prefix.
    #[arg(long, default_value_t = 10_000)]
    audience: usize,
    /// Puts that they all see.
    #[arg(long, default_value_t = 100)]
    shows: u64,
    /// Keys in memory.
    #[arg(long, default_value_t = 1_000_000)]
    keys: u64,
    /// Leases of one key that end together.
    #[arg(long, default_value_t = 100_000)]
    leases: u64,
    /// Which runtime the node uses.
    #[arg(long, value_enum, default_value_t = crate::node::RuntimeChoice::Auto)]
    runtime: crate::node::RuntimeChoice,
    /// Where data goes; a fresh directory is made in it and removed at the end.
    #[arg(long, default_value = "target/perf")]
    directory: PathBuf,
    /// Seed of the order of rows.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Time to live of the leases that end together: longer than granting them takes.
const TTL: Duration = Duration::from_secs(8);
/// Operations in one transaction.
const OPERATIONS: u64 = 256;

type Failure = String;

fn text(error: impl Display) -> Failure {
    error.to_string()
}

fn say(line: impl Display) {
    // Without a reader there is nobody to tell.
    let _ = writeln!(io::stdout(), "{line}");
}

/// What may be chosen where memory alone is measured.
#[derive(clap::Args, Debug)]
pub struct MemoryOptions {
    /// Keys in the store, each of 16 B with a value of 256 B. One number only: what an earlier store gave back is not the
    /// system's yet, and would be missing from the next one's.
    #[arg(long, default_value_t = 1_000_000)]
    keys: u64,
    /// Where the harness keeps its data; nothing is written for this.
    #[arg(long, default_value = "target/perf")]
    directory: PathBuf,
    /// Where to write the results as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
}

/// A generous guess of what a key takes: nobody is pushed out of memory for a figure.
const ABOUT: u64 = 700;

/// W14: what a key takes in the store of one node, alone in this process.
pub fn memory_alone(options: &MemoryOptions) -> Result<(), Failure> {
    let began = Instant::now();
    let keys = options.keys.max(1);
    let free = field("/proc/meminfo", "MemAvailable:").map_or(u64::MAX, |kib| kib * 1024);
    let needed = keys.saturating_mul(ABOUT);
    if needed > free {
        return Err(format!("{keys} keys may take {needed} B of memory, and {free} B are free"));
    }
    let rules = Rules::plain(1, Duration::ZERO, 0);
    let mut results = Results::begin("memory", &options.directory, rules);
    let bytes_per_key = filled(keys)?.per_key;
    say(format!(
        "{keys} keys: {bytes_per_key:.0} B of resident memory a key, {} B of them its own",
        16 + 256
    ));
    results.memory.push(Memory {
        system: crate::system::embedded::NAME.into(),
        what: "the store of one node, alone in its process".into(),
        keys,
        bytes_per_key,
        payload_bytes: KEY_BYTES + VALUE_BYTES,
    });
    results.took = began.elapsed();
    match &options.json {
        Some(path) => results.write(path).map_err(|error| format!("writing {}: {error}", path.display())),
        None => Ok(()),
    }
}

/// Measures and prints.
pub fn run(options: &Options) -> Result<(), Failure> {
    std::fs::create_dir_all(&options.directory).map_err(text)?;
    say("one embedded node, fsync before every acknowledgement, 16 B keys and 256 B values unless stated\n");
    memory(options)?;
    let directory = tempfile::Builder::new().prefix("store-").tempdir_in(&options.directory).map_err(text)?;
    let engine = wait_for(
        EmbeddedEngine::builder()
            .without_environment()
            .data_dir(directory.path().join("data"))
            .runtime(options.runtime.kind())
            .configure(|configuration| configuration.limits.watchers = 1 << 17)
            .start(),
    )
    .map_err(text)?;
    wait_for(engine.wait_ready(Duration::from_secs(60))).map_err(text)?;
    say(format!("runtime: {}", engine.runtime()));
    watchers_elsewhere(&engine, options)?;
    audience(&engine, options)?;
    endings(&engine, options)?;
    wait_for(engine.stop()).map_err(text)
}

// ---- memory and reads, on the store alone

struct Filled {
    store: Store,
    per_key: f64,
    applied: Duration,
}

fn key(number: u64) -> String {
    format!("key-{number:012}")
}

fn filled(keys: u64) -> Result<Filled, Failure> {
    let value = [7_u8; 256];
    let mut store = Store::new();
    let before = resident();
    let mut command = BytesMut::new();
    let began = Instant::now();
    for number in 0..keys {
        command.clear();
        encode_put(key(number).as_bytes(), &value, &mut command).map_err(text)?;
        store.apply(&command);
    }
    let applied = began.elapsed();
    let per_key = resident().saturating_sub(before) as f64 / keys as f64;
    Ok(Filled { store, per_key, applied })
}

fn memory(options: &Options) -> Result<(), Failure> {
    let Filled { store, per_key, applied } = filled(options.keys)?;
    let own = 16 + 256;
    say(format!(
        "{} keys: {per_key:.0} B of resident memory a key, {:.0} B beside its own {own}; {:.0} ns to apply a put",
        options.keys,
        per_key - f64::from(own),
        applied.as_nanos() as f64 / options.keys as f64
    ));
    say(format!("history: {} changes, {} B held by it alone", store.history_len(), store.history_bytes()));

    let mut numbers = SplitMix(3);
    let keys: Vec<String> = (0..100_000).map(|_| key(numbers.next() % options.keys)).collect();
    let cost = per_call(&keys, |key| store.get(key.as_bytes()).is_some());
    say(format!("point read: {cost:.0} ns, of a random key"));
    let past = Revision(store.revision().0 - 50_000.min(options.keys / 2));
    let cost = per_call(&keys, |key| store.get_at(key.as_bytes(), past).is_ok());
    say(format!("point read of the past: {cost:.0} ns"));
    let starts: Vec<String> = (0..200).map(|_| key(numbers.next() % (options.keys - 1000))).collect();
    for (name, query) in [
        ("", RangeQuery::new(KeyRange::all())),
        (", keys only", RangeQuery::new(KeyRange::all()).keys_only()),
        (", counted", RangeQuery::new(KeyRange::all()).count_only()),
    ] {
        let cost = per_call(&starts, |start| {
            let page = store.range(&query.clone().after(start).limit(1000));
            page.is_ok_and(|page| page.count == 1000)
        });
        say(format!("range of 1,000 keys{name}: {:.1} µs", cost / 1e3));
    }
    say("");
    Ok(())
}

fn resident() -> u64 {
    ProcessUsage::of_self().resident_bytes.unwrap_or_default()
}

/// Nanoseconds a call.
fn per_call<T>(arguments: &[T], mut call: impl FnMut(&T) -> bool) -> f64 {
    let began = Instant::now();
    let found = arguments.iter().filter(|argument| call(argument)).count();
    let took = began.elapsed();
    assert_eq!(found, arguments.len(), "what was put is found");
    took.as_nanos() as f64 / arguments.len() as f64
}

// ---- watchers on other keys

fn watchers_elsewhere(engine: &EmbeddedEngine, options: &Options) -> Result<(), Failure> {
    let client = engine.client();
    let workload = Workload::closed(Call::Put, options.in_flight);
    let mut material = Material::of(&workload);
    let mut calls = Embedded::new(client.clone());
    generator::fill(&mut calls, &material)?;
    let rows = &options.watchers;
    let mut rates = vec![Vec::new(); rows.len()];
    let mut costs = vec![Vec::new(); rows.len()];
    let mut numbers = SplitMix(options.seed);
    for block in 0..=options.blocks {
        let mut order: Vec<usize> = (0..rows.len()).collect();
        numbers.shuffle(&mut order);
        let mut slices = vec![(0.0, 0.0); rows.len()];
        for row in order {
            let watches = open_elsewhere(&client, rows[row])?;
            let before = ProcessUsage::of_self();
            let loaded = generator::run(&mut calls, &workload, options.slice, &mut material);
            let spent = ProcessUsage::of_self().since(&before);
            if loaded.operations == 0 {
                return Err(format!("no put was acknowledged with {} watchers", rows[row]));
            }
            let operations = loaded.operations as f64;
            slices[row] =
                (operations / options.slice.as_secs_f64(), spent.cpu.as_secs_f64() * 1e6 / operations);
            drop(watches);
        }
        // The first block warms up.
        if block > 0 {
            for (row, (rate, cost)) in slices.iter().enumerate() {
                rates[row].push((*rate, rate / slices[0].0));
                costs[row].push((*cost, cost / slices[0].1));
            }
        }
    }
    say(format!(
        "puts, {} in flight, with watchers on other keys (ratios within a block):",
        options.in_flight
    ));
    for (row, watchers) in rows.iter().enumerate() {
        let of = |samples: &[(f64, f64)], pick: fn(&(f64, f64)) -> f64| {
            median(samples.iter().map(pick)).map_or_else(String::new, |median| show(&median))
        };
        say(format!(
            "  {watchers:>7} watchers: {} puts/s, {} of the first row; {} µs CPU a put, {} of the first row",
            of(&rates[row], |sample| sample.0),
            of(&rates[row], |sample| sample.1),
            of(&costs[row], |sample| sample.0),
            of(&costs[row], |sample| sample.1),
        ));
    }
    Ok(())
}

fn show(median: &Median) -> String {
    let digits = if median.median >= 100.0 { 0 } else { 2 };
    format!("{:.digits$} [{:.digits$}-{:.digits$}]", median.median, median.low, median.high)
}

/// Watches of a key each, asked once so that they wait.
fn open_elsewhere(client: &EmbeddedClient, count: usize) -> Result<Vec<Watch>, Failure> {
    (0..count)
        .map(|number| {
            let mut watch = wait_for(client.watch(format!("elsewhere/{number}"))).map_err(text)?;
            let mut context = Context::from_waker(Waker::noop());
            match futures_util::Stream::poll_next(Pin::new(&mut watch), &mut context) {
                std::task::Poll::Pending => Ok(watch),
                std::task::Poll::Ready(other) => Err(format!("a watch of a silent key told {other:?}")),
            }
        })
        .collect()
}

// ---- one writer, a large audience

/// What the audience saw.
struct Seen {
    deliveries: u64,
    lags: Histogram<u64>,
    last: Instant,
}

fn audience(engine: &EmbeddedEngine, options: &Options) -> Result<(), Failure> {
    let ready = Arc::new(Barrier::new(2));
    let epoch = Instant::now();
    let delivered = Arc::new(AtomicU64::new(0));
    let hall = {
        let (client, ready, delivered) = (engine.client(), Arc::clone(&ready), Arc::clone(&delivered));
        let (watchers, shows) = (options.audience, options.shows);
        std::thread::spawn(move || sit(&client, watchers, shows, epoch, &ready, &delivered))
    };
    ready.wait();
    let client = engine.client();
    let began = Instant::now();
    for number in 0..options.shows {
        let due = (number + 1) * options.audience as u64;
        let sent = u64::try_from(epoch.elapsed().as_nanos()).unwrap_or(u64::MAX);
        wait_for(client.put(format!("fan/{}", number % 16), sent.to_le_bytes())).map_err(text)?;
        // The next one is put when everybody has seen this one: the lag is of one show, not of a queue of them.
        while delivered.load(Ordering::SeqCst) < due {
            if began.elapsed() > Duration::from_secs(120) {
                return Err("the audience did not see everything within two minutes".into());
            }
            std::thread::sleep(Duration::from_micros(100));
        }
    }
    let Seen { deliveries, lags, last } = hall.join().map_err(|_| "the audience panicked".to_owned())??;
    let micros = |share: f64| lags.value_at_quantile(share) as f64 / 1e3;
    say(format!(
        "\n1 writer, {} watchers of one prefix: {deliveries} deliveries of {} puts, {:.0} a second; lag from before the put, its \
         flush included: p50 {:.0} µs, p99 {:.0} µs, max {:.0} µs",
        options.audience,
        options.shows,
        deliveries as f64 / (last - began).as_secs_f64(),
        micros(0.5),
        micros(0.99),
        micros(1.0)
    ));
    Ok(())
}

fn sit(
    client: &EmbeddedClient,
    watchers: usize,
    shows: u64,
    epoch: Instant,
    ready: &Barrier,
    delivered: &AtomicU64,
) -> Result<Seen, Failure> {
    let mut all = SelectAll::new();
    for _ in 0..watchers {
        all.push(wait_for(client.watch_prefix("fan/")).map_err(text)?);
    }
    ready.wait();
    let mut seen = Seen { deliveries: 0, lags: Histogram::new(3).map_err(text)?, last: Instant::now() };
    while seen.deliveries < shows * watchers as u64 {
        let item = wait_for(all.next()).ok_or("a watch ended")?.map_err(text)?;
        let now = u64::try_from(epoch.elapsed().as_nanos()).unwrap_or(u64::MAX);
        if let WatchItem::Events(events) = item {
            for event in events.events.iter() {
                let Event::Put { new, .. } = event else { return Err("nothing was deleted".into()) };
                let sent = new.value.first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
                let lag = now.saturating_sub(sent.ok_or("a value without its time")?);
                seen.lags.record(lag.max(1)).map_err(text)?;
                seen.deliveries += 1;
                delivered.fetch_add(1, Ordering::SeqCst);
            }
        }
    }
    seen.last = Instant::now();
    Ok(seen)
}

// ---- leases that end together

fn endings(engine: &EmbeddedEngine, options: &Options) -> Result<(), Failure> {
    let client = engine.client();
    let query = WatchQuery::new(KeyRange::prefix("mortal/")).only(Filter::Deletes);
    let mut watch = wait_for(client.watch_with(query)).map_err(text)?;
    let began = Instant::now();
    let mut number = 0;
    while number < options.leases {
        let most = OPERATIONS.min(options.leases - number);
        let put = |number| Op::put_attached(format!("mortal/{number:09}"), "x", Attach::Ttl(TTL));
        let txn = (number..number + most).map(put).fold(Txn::new(), Txn::then);
        wait_for(client.txn(txn)).map_err(text)?;
        number += most;
    }
    let granting = began.elapsed();
    if granting > TTL / 2 {
        say(format!("   (granting took {granting:?} of a time to live of {TTL:?})"));
    }
    let before = wait_for(client.status()).map_err(text)?;

    let over = Arc::new(AtomicBool::new(false));
    let prober = {
        let (client, over) = (engine.client(), Arc::clone(&over));
        std::thread::spawn(move || probe(&client, &over))
    };
    let mut ended = 0;
    let (mut first, mut last) = (None, Instant::now());
    while ended < options.leases {
        let item = wait_for(watch.next()).ok_or("the watch ended")?.map_err(text)?;
        last = Instant::now();
        let count = item.events().len() as u64;
        if count > 0 {
            first.get_or_insert(last);
        }
        ended += count;
    }
    over.store(true, Ordering::SeqCst);
    let waits = prober.join().map_err(|_| "the prober panicked".to_owned())??;
    let after = wait_for(client.status()).map_err(text)?;
    let took = last - first.unwrap_or(last);
    let ms = |share: f64| waits.value_at_quantile(share) as f64 / 1e6;
    say(format!(
        "\n{} leases of one key, {TTL:?} each, granted within {:.2} s: ended within {:.2} s, {:.0} a second, in {} entries; longest \
         turn of the loop since the start {:.2} ms; linearizable reads meanwhile: p50 {:.2} ms, p99 {:.2} ms, max {:.2} ms",
        options.leases,
        granting.as_secs_f64(),
        took.as_secs_f64(),
        options.leases as f64 / took.as_secs_f64(),
        after.last_index - before.last_index,
        after.counters.longest_turn.as_secs_f64() * 1e3,
        ms(0.5),
        ms(0.99),
        ms(1.0)
    ));
    Ok(())
}

/// Linearizable reads, one a millisecond: how long the loop lets a caller wait.
fn probe(client: &EmbeddedClient, over: &AtomicBool) -> Result<Histogram<u64>, Failure> {
    let mut waits = Histogram::new(3).map_err(text)?;
    while !over.load(Ordering::SeqCst) {
        let asked = Instant::now();
        wait_for(client.get_linearizable("mortal/000000000")).map_err(text)?;
        let waited = u64::try_from(asked.elapsed().as_nanos()).unwrap_or(u64::MAX);
        waits.record(waited.max(1)).map_err(text)?;
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(waits)
}
