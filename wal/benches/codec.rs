//! What a byte of log costs a core: encoding with its hashes, checking at the gateway, and the scan of an opening.
//!
//! Processor time of the measuring thread, so that other programs cost caches but no turns; the clock on the wall beside it.
//! No disk is waited for: the scanned files are in the page cache, and are read once before to make sure.
//!
//! ```text
//! cargo bench -p wal --bench codec -- [--dir DIR] [--rounds N]
//! ```
#![allow(clippy::print_stdout, reason = "a report")]
#![allow(clippy::cast_precision_loss, reason = "a report")]

use rustix::time::{ClockId, clock_gettime};
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use wal::frame::FrameHead;
use wal::{
    ClusterId, EntryId, Frame, FrameBuilder, GroupId, Identity, LogEvent, LogIndex, NodeId, Opened, Options,
    PortableLog, Term, WriteId, WritePlan,
};

const IDENTITY: Identity = Identity { cluster: ClusterId(1), node: NodeId(1), group: GroupId::FIRST };
const LOG_BYTES: usize = 256 << 20;

fn cpu() -> Duration {
    let used = clock_gettime(ClockId::ThreadCPUTime);
    let part = |part: i64| u64::try_from(part).expect("time used is not negative");
    Duration::from_secs(part(used.tv_sec)) + Duration::from_nanos(part(used.tv_nsec))
}

/// The best and the median round: bytes per nanosecond of processor time, and of the wall's for the median.
fn report(what: &str, bytes: usize, rounds: usize, mut round: impl FnMut()) {
    round();
    let mut times: Vec<(Duration, Duration)> = (0..rounds)
        .map(|_| {
            let (before, start) = (cpu(), Instant::now());
            round();
            (cpu() - before, start.elapsed())
        })
        .collect();
    times.sort_unstable();
    let rate = |time: Duration| bytes as f64 / time.as_secs_f64() / 1e9;
    let (median, best) = (times[times.len() / 2], times[0]);
    println!("| {what:<52} | {:>6.2} | {:>6.2} | {:>6.2} |", rate(median.0), rate(best.0), rate(median.1));
}

fn encode(batch: usize, command: &[u8], previous: EntryId) -> Frame {
    let count = (batch / (command.len() + 4)).max(1);
    let mut builder = FrameBuilder::with_capacity(count * (command.len() + 4));
    for _ in 0..count {
        builder.push_command(black_box(command));
    }
    builder.commands(FrameHead { group: GroupId::FIRST, term: Term(1), previous, timestamp_ms: 1 })
}

fn origin() -> EntryId {
    wal::frame::origin(IDENTITY.cluster, IDENTITY.group)
}

fn codec(rounds: usize) {
    println!(
        "\n| encode and hash; check | GB/s per core, median | best | GB/s by the wall's clock |\n|---|---|---|---|"
    );
    for batch in [4 << 10, 64 << 10, 1 << 20] {
        for command in [300, 4000] {
            let (command, repeats) = (vec![0x5a; command], (64 << 20) / batch);
            let frame = encode(batch, &command, origin());
            let name = format!("{} KiB of {} B commands", batch >> 10, command.len());
            let bytes = frame.bytes().len() * repeats;
            report(&format!("encode {name}"), bytes, rounds, || {
                for _ in 0..repeats {
                    black_box(encode(batch, &command, origin()));
                }
            });
            report(&format!("check {name}"), bytes, rounds, || {
                for _ in 0..repeats {
                    black_box(
                        Frame::parse(&mut black_box(frame.bytes()).clone()).expect("made by the builder"),
                    );
                }
            });
        }
    }
}

fn options(path: &Path) -> Options {
    Options { create: true, allow_volatile: true, ..Options::new(path, IDENTITY) }
}

/// A log of envelopes of this size, closed, in the page cache.
fn write(path: &Path, batch: usize) {
    let Opened { directory, .. } = wal::open(options(path)).expect("a new log opens");
    let caller = std::thread::current();
    let mut log = PortableLog::start(directory, move || caller.unpark()).expect("a thread is there");
    let (mut last, command) = (origin(), [0x5a; 300]);
    let total = LOG_BYTES / batch;
    for number in 1..=total as u64 {
        let frame = encode(batch - 512, &command, last);
        last = frame.id();
        let frames = vec![frame];
        log.submit(WritePlan {
            id: WriteId(number),
            hard_state: None,
            frames,
            commit: LogIndex(0),
            whole: false,
        });
        // Envelopes of one plan each, so that they have the size they are named for.
        log.kick();
        loop {
            match log.poll() {
                Some(LogEvent::Flushed(_)) => break,
                Some(other) => panic!("the disk works: {other:?}"),
                None => std::thread::park(),
            }
        }
    }
    log.close().expect("the disk works");
}

fn scan(directory: &Path, rounds: usize) {
    println!(
        "\n| opening a clean log, its files in the page cache | GB/s per core, median | best | GB/s by the wall's clock |\n|---|---|---|---|"
    );
    for batch in [16 << 10, 64 << 10, 1 << 20] {
        let home = tempfile::tempdir_in(directory).expect("the directory is there");
        let path = home.path().join("log");
        write(&path, batch);
        let bytes: usize = files(&path).iter().map(|file| std::fs::read(file).expect("readable").len()).sum();
        let reopen = || wal::open(options(&path)).expect("it opens again");
        // A log that is opened and not closed is not clean: its last segment would be read from the disk.
        let close = |opened: Opened| {
            PortableLog::start(opened.directory, || ()).and_then(PortableLog::close).expect("the disk works");
            files(&path).iter().for_each(|file| drop(std::fs::read(file)));
        };
        let mut times = Vec::new();
        for _ in 0..=rounds {
            let (before, start) = (cpu(), Instant::now());
            let opened = reopen();
            times.push((cpu() - before, start.elapsed()));
            close(opened);
        }
        times.sort_unstable();
        let rate = |time: Duration| LOG_BYTES.min(bytes) as f64 / time.as_secs_f64() / 1e9;
        let (median, best) = (times[times.len() / 2], times[0]);
        let what = format!("open, {} MiB in envelopes of {} KiB", LOG_BYTES >> 20, batch >> 10);
        println!(
            "| {what:<52} | {:>6.2} | {:>6.2} | {:>6.2} |",
            rate(median.0),
            rate(best.0),
            rate(median.1)
        );
        let mut opened = reopen();
        report("  read again as entries", LOG_BYTES, rounds, || {
            let mut count = 0;
            for frame in opened.recovered.frames() {
                black_box(frame.expect("whole"));
                count += 1;
            }
            assert_eq!(count, LOG_BYTES / batch, "every entry");
        });
    }
}

fn files(path: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(path).expect("readable").map(|entry| entry.expect("readable").path()).collect()
}

fn main() {
    let all: Vec<String> = std::env::args().skip(1).collect();
    let value = |name: &str| all.iter().position(|argument| argument == name).and_then(|at| all.get(at + 1));
    // `cargo test --benches` runs this without `--bench`: then it only shows that it works.
    let measuring = all.iter().any(|argument| argument == "--bench");
    let rounds =
        value("--rounds").map_or(if measuring { 9 } else { 1 }, |rounds| rounds.parse().expect("a number"));
    let directory = value("--dir").map_or_else(std::env::temp_dir, PathBuf::from);
    codec(rounds);
    if measuring {
        scan(&directory, rounds);
    }
}
