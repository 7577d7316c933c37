//! What the log makes durable in a second, beside a loop that does nothing but write and flush.
//!
//! Every row says what was flushed: all of it, before the next batch of its contestant counts. Contestants take turns in
//! short slices, in random order within a block; the last column is the median over the blocks of the rate divided by
//! that of the first row in the same block, with a bootstrap interval of 95 %.
//!
//! ```text
//! cargo bench -p wal --bench disk -- [log] [strategies] [sustained] [--dir DIR] [--blocks N] [--slice MS] [--sizes KiB,KiB]
//! ```
#![allow(clippy::print_stdout, reason = "a report")]
#![allow(clippy::cast_precision_loss, reason = "a report")]

#[cfg(target_os = "linux")]
mod bare;
#[cfg(target_os = "linux")]
mod counting;
#[cfg(target_os = "linux")]
mod log;
#[cfg(target_os = "linux")]
mod measure;
#[cfg(target_os = "linux")]
mod process;
#[cfg(target_os = "linux")]
mod ring;

#[cfg(target_os = "linux")]
#[global_allocator]
static ALLOCATOR: counting::Counting = counting::Counting;

#[cfg(not(target_os = "linux"))]
fn main() {
    eprintln!("SKIPPED: the baseline is a direct write, which only Linux has");
}

#[cfg(target_os = "linux")]
fn main() {
    linux::run();
}

#[cfg(target_os = "linux")]
mod linux {
    use super::log::{Contender, Hand, Segments, Which};
    use super::measure::{Contestant, Plan, compare, head};
    use super::{bare, process, ring};
    use std::path::{Path, PathBuf};
    use std::time::Duration;

    struct Arguments {
        parts: Vec<String>,
        directory: PathBuf,
        plan: Plan,
        sizes: Vec<usize>,
    }

    fn arguments() -> Arguments {
        let all: Vec<String> = std::env::args().skip(1).collect();
        // `cargo test --benches` runs this without `--bench`: then it only shows that it works.
        let measuring = all.iter().any(|argument| argument == "--bench");
        let (blocks, slice) = if measuring { (12, 300) } else { (1, 5) };
        let mut arguments = Arguments {
            parts: Vec::new(),
            directory: std::env::temp_dir(),
            plan: Plan { blocks, slice: Duration::from_millis(slice), bytes: 64 << 20 },
            sizes: if measuring { [4, 16, 64, 256, 1024].map(|kib| kib << 10).into() } else { vec![4 << 10] },
        };
        let mut rest = all.into_iter();
        while let Some(argument) = rest.next() {
            let mut value = || rest.next().unwrap_or_else(|| panic!("{argument} wants a value"));
            let number = |text: String| text.parse::<usize>().expect("a number");
            match argument.as_str() {
                "--bench" => {}
                "--dir" => arguments.directory = value().into(),
                "--blocks" => arguments.plan.blocks = number(value()),
                "--slice" => arguments.plan.slice = Duration::from_millis(number(value()) as u64),
                "--sizes" => {
                    arguments.sizes = value().split(',').map(|kib| number(kib.into()) << 10).collect()
                }
                part @ ("log" | "strategies" | "sustained") => arguments.parts.push(part.into()),
                other => panic!("unknown argument {other}"),
            }
        }
        assert!(arguments.plan.blocks > 0, "at least one block");
        arguments
    }

    pub fn run() {
        let Arguments { parts, directory, plan, sizes } = arguments();
        let home = tempfile::tempdir_in(&directory).expect("the directory is there");
        println!(
            "{} blocks, slices of {:?} or {} MiB, in {}",
            plan.blocks,
            plan.slice,
            plan.bytes >> 20,
            directory.display()
        );
        println!("load {}", std::fs::read_to_string("/proc/loadavg").unwrap_or_default().trim());
        match process::watch_device(home.path()) {
            Some(device) => println!("device {device}; its counters are everybody's"),
            None => {
                eprintln!("SKIPPED the device's counters: this file system has no block device of its own")
            }
        }
        bare::make_file(home.path()).expect("there is room for the bare file");
        let wanted = |part: &str| parts.is_empty() || parts.iter().any(|wanted| wanted == part);
        if wanted("strategies") {
            head("Strategies, without a log (fsync before the next counts)");
            for &size in &sizes {
                compare(
                    size,
                    plan,
                    &mut bare::strategies(home.path(), size).expect("direct writes work here"),
                );
            }
        }
        if wanted("log") {
            head("The log (fsync before a batch counts; no segment is made meanwhile)");
            for &size in &sizes {
                compare(size, plan, &mut log(home.path(), size, plan.bytes));
            }
        }
        if wanted("sustained") {
            head(
                "The log with 64 MiB segments, their zeros and names included (fsync before a batch counts)",
            );
            let plan = Plan { bytes: 512 << 20, slice: 4 * plan.slice, blocks: plan.blocks.div_ceil(2) };
            for &size in sizes.iter().filter(|&&size| size >= 64 << 10) {
                sustained(home.path(), size, plan);
            }
        }
    }

    fn has_ring() -> bool {
        let made = wal::linux::Ring::new(8);
        if let Err(error) = &made {
            eprintln!("SKIPPED for the io_uring writer: {error}");
        }
        made.is_ok()
    }

    fn log(directory: &Path, batch: usize, budget: u64) -> Vec<Box<dyn Contestant>> {
        let mut all = vec![bare::baseline(directory, batch).expect("direct writes work here")];
        let mut add = |which, hand| {
            let contender = Contender::new(which, hand, Segments::Ready, directory, batch, budget);
            all.push(Box::new(contender));
        };
        if has_ring() {
            add(Which::Direct, Hand::Ahead);
            add(Which::Direct, Hand::Lockstep);
            add(Which::Linked, Hand::Ahead);
        }
        add(Which::Portable, Hand::Ahead);
        all
    }

    fn sustained(directory: &Path, batch: usize, plan: Plan) {
        let which = if has_ring() { Which::Direct } else { Which::Portable };
        let log = Contender::new(which, Hand::Ahead, Segments::Made, directory, batch, plan.bytes);
        let before = written();
        let mut all: Vec<Box<dyn Contestant>> = vec![Box::new(log)];
        compare(batch, plan, &mut all);
        let durable = all[0].durable() * batch as u64;
        if let (Some(before), Some(after), true) = (before, written(), durable > 0) {
            let ratio = (after - before) as f64 / durable as f64;
            println!(
                "  {} KiB: this process sent {ratio:.2} bytes to the disk per byte of envelopes",
                batch >> 10
            );
        }
        assert!(batch.is_multiple_of(ring::BLOCK), "whole blocks");
    }

    /// Bytes that the kernel charged to this process for the disk.
    fn written() -> Option<u64> {
        let io = std::fs::read_to_string("/proc/self/io").ok()?;
        io.lines().find_map(|line| line.strip_prefix("write_bytes: "))?.parse().ok()
    }
}
