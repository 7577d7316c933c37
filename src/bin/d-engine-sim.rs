//! `d-engine-sim`: one seed's story, or a campaign over many seeds.

use clap::Parser;
use d_engine::sim::campaign::{Sums, replay};
use d_engine::sim::shrink::shrink;
use d_engine::sim::{Fault, Orders, Report, Telling, run};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Runs clusters of real nodes under simulated faults. A seed decides everything: the same seed is the same run.
#[derive(Parser)]
#[command(name = "d-engine-sim", version)]
struct Arguments {
    /// Run this seed and tell its story.
    #[arg(long, conflicts_with = "seeds")]
    seed: Option<u64>,
    /// Run so many seeds and print what they met.
    #[arg(long, default_value_t = 1_000)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Threads; each runs seeds of its own.
    #[arg(long, default_value_t = 1)]
    jobs: usize,
    /// Stop after so many seconds.
    #[arg(long)]
    seconds: Option<u64>,
    /// Make a failing run smaller (with --seed, or the first that fails).
    #[arg(long)]
    shrink: bool,
    /// Print the hash and the result only.
    #[arg(long)]
    quiet: bool,
    /// Leave out kinds of faults.
    #[arg(long, value_delimiter = ',', value_parser = fault)]
    without: Vec<Fault>,
    /// These kinds of faults and no others, in every run.
    #[arg(long, value_delimiter = ',', value_parser = fault)]
    only: Vec<Fault>,
    /// Leave out faults by their number in the story.
    #[arg(long, value_delimiter = ',')]
    skip: Vec<u32>,
    /// No faults after so many nanoseconds of the run.
    #[arg(long, value_name = "NANOSECONDS")]
    until_ns: Option<u64>,
    /// At most so many clients.
    #[arg(long)]
    clients: Option<usize>,
    /// Put this bug in, and succeed only if a judge sees it.
    #[cfg(zoo)]
    #[arg(long)]
    mutant: Option<String>,
}

fn fault(name: &str) -> Result<Fault, String> {
    Fault::named(name).ok_or_else(|| {
        let names: Vec<_> = Fault::ALL.iter().map(|fault| fault.name()).collect();
        format!("there is no fault of this name; there are: {}", names.join(", "))
    })
}

impl Arguments {
    fn orders(&self) -> Orders {
        Orders {
            only: self.only.iter().copied().collect(),
            without: self.without.iter().copied().collect(),
            skip: self.skip.iter().copied().collect(),
            until: self.until_ns.map(Duration::from_nanos),
            clients: self.clients,
        }
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    #[cfg(zoo)]
    if let Some(name) = &arguments.mutant {
        wal::mutant::choose(name);
    }
    // A panic is a judge's finding here, told with the run.
    std::panic::set_hook(Box::new(|panic| {
        PANIC.with(|place| place.replace(panic.location().map(ToString::to_string)));
    }));
    match arguments.seed {
        Some(seed) => one(seed, &arguments),
        None => many(&arguments),
    }
}

thread_local! {
    static PANIC: std::cell::RefCell<Option<String>> = const { std::cell::RefCell::new(None) };
}

#[allow(clippy::print_stdout, reason = "it is what the program is for")]
fn one(seed: u64, arguments: &Arguments) -> ExitCode {
    let orders = arguments.orders();
    let telling = if arguments.quiet { Telling::Hash } else { Telling::Whole };
    let begun = Instant::now();
    let report = run(seed, &orders, telling);
    let took = begun.elapsed();
    for line in &report.story {
        println!("{line}");
    }
    let mut sums = Sums::default();
    sums.add(&report);
    if !arguments.quiet {
        println!("\n{}", sums.table());
    }
    println!("seed {seed}: trace hash {:016x}", report.hash);
    println!("{}", speed(&sums, took));
    match &report.failure {
        None => {
            println!("no promise was broken");
            ExitCode::SUCCESS
        }
        Some(_) => {
            tell_failure(&report, &orders);
            if arguments.shrink {
                tell_shrunk(seed, &orders);
            }
            ExitCode::FAILURE
        }
    }
}

#[allow(clippy::print_stdout, reason = "it is what the program is for")]
fn tell_failure(report: &Report, orders: &Orders) {
    let Some(failure) = &report.failure else { return };
    let place = PANIC.with(|place| place.borrow_mut().take()).map(|place| format!(" ({place})"));
    println!(
        "seed {} breaks {} at {}{}",
        report.seed,
        failure.violation,
        failure.at,
        place.unwrap_or_default()
    );
    println!("replay: {}", replay(report.seed, orders));
}

#[allow(clippy::print_stdout, reason = "it is what the program is for")]
fn tell_shrunk(seed: u64, orders: &Orders) {
    let Some(shrunk) = shrink(seed, orders, 400) else { return };
    println!("\nshrunk in {} runs:", shrunk.runs);
    for line in &shrunk.report.story {
        println!("{line}");
    }
    tell_failure(&shrunk.report, &shrunk.orders);
}

fn speed(sums: &Sums, took: Duration) -> String {
    let seconds = took.as_secs_f64().max(1e-9);
    format!(
        "{} runs, {} events, {:.1} s simulated in {:.2} s: {:.0} events/s, {:.0} simulated hours per hour",
        sums.runs,
        sums.events,
        sums.simulated.as_secs_f64(),
        seconds,
        sums.events as f64 / seconds,
        sums.simulated.as_secs_f64() / seconds,
    )
}

#[allow(clippy::print_stdout, reason = "it is what the program is for")]
fn many(arguments: &Arguments) -> ExitCode {
    let orders = arguments.orders();
    let next = AtomicU64::new(arguments.from);
    let end = arguments.from.saturating_add(arguments.seeds);
    let over = AtomicBool::new(false);
    let total = Mutex::new((Sums::default(), Vec::<u64>::new()));
    let begun = Instant::now();
    let limit = arguments.seconds.map(Duration::from_secs);
    std::thread::scope(|scope| {
        for _ in 0..arguments.jobs.max(1) {
            scope.spawn(|| {
                let mut sums = Sums::default();
                let mut failing = Vec::new();
                while !over.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end || limit.is_some_and(|limit| begun.elapsed() > limit) {
                        break;
                    }
                    let report = run(seed, &orders, Telling::Hash);
                    sums.add(&report);
                    if report.failure.is_some() {
                        tell_failure(&report, &orders);
                        failing.push(seed);
                        if failing.len() >= 5 || is_hunt(arguments) {
                            over.store(true, Ordering::Relaxed);
                        }
                    }
                }
                let mut total = total.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                total.0.merge(&sums);
                total.1.extend(failing);
            });
        }
    });
    let took = begun.elapsed();
    let (sums, mut failing) = total.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    failing.sort_unstable();
    if !is_hunt(arguments) {
        println!("{}", sums.table());
        println!("hash over all runs {:016x}", sums.hash);
    }
    println!("{}", speed(&sums, took));
    if arguments.shrink
        && let Some(&seed) = failing.first()
    {
        tell_shrunk(seed, &orders);
    }
    if is_hunt(arguments) {
        println!("{}", if failing.is_empty() { "not seen" } else { "seen" });
        return if failing.is_empty() { ExitCode::FAILURE } else { ExitCode::SUCCESS };
    }
    println!("{} of {} runs broke a promise", sums.failed, sums.runs);
    if sums.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Whether this looks for a bug that was put in.
fn is_hunt(arguments: &Arguments) -> bool {
    #[cfg(zoo)]
    return arguments.mutant.is_some();
    #[cfg(not(zoo))]
    {
        let _ = arguments;
        false
    }
}
