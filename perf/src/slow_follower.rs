//! W10: puts while one follower stands still most of the time.
//!
//! The follower's process gets SIGSTOP and SIGCONT in turn: it is there, and it is slow. A majority does not need it, so the
//! puts should not notice, the leader's memory must stay within its bounds, and once the pulses end the follower has to catch
//! up. Blocks with and without the pulses take turns.

use crate::bench;
use crate::node::{DurabilityChoice, RuntimeChoice};
use crate::outage::{End, Record, Task, Told};
use crate::statistics::median;
use crate::system::embedded::{Choices, Embedded};
use crate::system::{System, SystemError, catch_up, stand};
use rustix::process::{Pid, Signal, kill_process};
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

const NODES: usize = 3;
const CATCHING_UP: Duration = Duration::from_secs(60);

/// What may be chosen.
#[derive(clap::Args, Clone, Debug)]
pub struct Options {
    /// Slices with the pulses, and as many without.
    #[arg(long, default_value_t = 5)]
    blocks: usize,
    /// Length of a slice.
    #[arg(long, default_value = "3s", value_parser = humantime::parse_duration)]
    slice: Duration,
    /// Puts in flight, at the leader; one a millisecond comes on top.
    #[arg(long, default_value_t = 64)]
    in_flight: usize,
    /// How long the follower stands still.
    #[arg(long, default_value = "90ms", value_parser = humantime::parse_duration)]
    stands: Duration,
    /// How long it runs then.
    #[arg(long, default_value = "10ms", value_parser = humantime::parse_duration)]
    runs: Duration,
    /// Which runtime the nodes use.
    #[arg(long, value_enum, default_value_t = RuntimeChoice::Auto)]
    runtime: RuntimeChoice,
    /// Where data goes. A fresh directory is made in it and removed at the end.
    #[arg(long, default_value = "target/perf")]
    directory: PathBuf,
}

/// How long the follower stands still in every pulse, where nothing else is said.
pub const STANDS: Duration = Duration::from_millis(90);
/// How long it runs then.
pub const RUNS: Duration = Duration::from_millis(10);

/// Stops and continues a process until it is dropped. It runs when this is gone.
pub struct Pulses {
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Pulses {
    /// Of the process with this number, if it is one.
    pub fn begin(pid: u32, stands: Duration, runs: Duration) -> Option<Self> {
        let pid = Pid::from_raw(i32::try_from(pid).ok()?)?;
        let end = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&end);
        let thread = std::thread::spawn(move || {
            while !told.load(Ordering::Relaxed) {
                for (signal, span) in [(Signal::STOP, stands), (Signal::CONT, runs)] {
                    let _ = kill_process(pid, signal);
                    std::thread::sleep(span);
                }
            }
        });
        Some(Self { end, thread: Some(thread) })
    }
}

impl Drop for Pulses {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What a slice gave.
struct Slice {
    slow: bool,
    record: Record,
    leader_bytes: u64,
    behind: u64,
    caught_up: Duration,
}

/// Measures and prints.
pub fn run(options: &Options) -> Result<(), String> {
    let directory =
        bench::scratch(&options.directory, "slow-follower-").map_err(|error| error.to_string())?;
    let mut system = Embedded::new(Choices {
        runtime: options.runtime,
        durability: DurabilityChoice::DiskFirst,
        cores: Vec::new(),
    });
    let words = |error: SystemError| error.to_string();
    system.start(directory.path()).map_err(words)?;
    let leader = system.leader().map_err(words)?;
    let began_in = stand(&mut system, leader).map_err(words)?.leaders.len();
    let mut slices = Vec::new();
    for number in 0..options.blocks * 2 {
        let slice = one(options, &mut system, leader, number)?;
        print_slice(&slice).map_err(|error| error.to_string())?;
        slices.push(slice);
    }
    let changes = stand(&mut system, leader).map_err(words)?.leaders.len() - began_in;
    system.stop().map_err(words)?;
    summary(options, &slices, changes).map_err(|error| error.to_string())
}

fn one(options: &Options, system: &mut Embedded, leader: usize, number: usize) -> Result<Slice, String> {
    let words = |error: SystemError| error.to_string();
    let follower = (leader + 1) % NODES;
    // The order inside a block changes from one to the next.
    let slow = (number / 2 + number) % 2 == 1;
    let pid = system.pid(follower).ok_or("a process without a number")?;
    let pulses = if slow { Pulses::begin(pid, options.stands, options.runs) } else { None };
    let task = Task::Write { round: number as u64, in_flight: options.in_flight };
    system.client(leader, task).map_err(words)?;
    std::thread::sleep(options.slice);
    let Told::Record(record) = system.client(leader, Task::Tell).map_err(words)? else {
        return Err("the client told something else than its record".into());
    };
    drop(pulses);
    let goal = stand(system, leader).map_err(words)?;
    let behind = goal.commit.saturating_sub(stand(system, follower).map_err(words)?.applied);
    let caught_up = catch_up(system, follower, leader, CATCHING_UP).map_err(words)?;
    Ok(Slice { slow, record, leader_bytes: goal.resident.0, behind, caught_up })
}

fn ms(span: Option<Duration>) -> String {
    span.map_or_else(|| "-".into(), |span| format!("{:.2}", span.as_secs_f64() * 1e3))
}

fn print_slice(slice: &Slice) -> io::Result<()> {
    writeln!(
        io::stdout(),
        "{:<5} {:>9.0} puts/s  p50 {:>7} ms  p99 {:>7} ms  not acknowledged {:>4}  leader {:>6.1} MB  behind {:>6} \
         entries, caught up in {:>7} ms",
        if slice.slow { "slow" } else { "none" },
        slice.record.rate(),
        ms(slice.record.latency(0.5)),
        ms(slice.record.latency(0.99)),
        slice.record.count(End::Unknown) + slice.record.count(End::Failed),
        slice.leader_bytes as f64 / 1e6,
        slice.behind,
        ms(Some(slice.caught_up)),
    )
}

fn summary(options: &Options, slices: &[Slice], changes: usize) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let of = |slow: bool, figure: fn(&Slice) -> f64| {
        median(slices.iter().filter(|slice| slice.slow == slow).map(figure)).map_or(f64::NAN, |m| m.median)
    };
    let rate = |slice: &Slice| slice.record.rate();
    let p99 = |slice: &Slice| slice.record.latency(0.99).map_or(f64::NAN, |span| span.as_secs_f64() * 1e3);
    writeln!(
        out,
        "\none follower of three stands still {:?} of every {:?}, {} puts in flight",
        options.stands,
        options.stands + options.runs,
        options.in_flight
    )?;
    writeln!(
        out,
        "puts/s, medians: {:.0} with none slow, {:.0} with one: {:.2} x",
        of(false, rate),
        of(true, rate),
        of(true, rate) / of(false, rate)
    )?;
    writeln!(out, "p99, medians: {:.2} ms with none slow, {:.2} ms with one", of(false, p99), of(true, p99))?;
    let most = slices.iter().map(|slice| slice.leader_bytes).max().unwrap_or(0);
    let caught_up = of(true, |slice| slice.caught_up.as_secs_f64() * 1e3);
    writeln!(
        out,
        "leader's memory at most {:.1} MB; caught up in {caught_up:.1} ms (median); leader changes: {changes}",
        most as f64 / 1e6
    )
}
