//! Bare loops: the same bytes written and flushed in different ways, with nothing around them.

use crate::measure::Contestant;
use crate::ring::{BLOCK, Buffer, Kind, Ring, Setup};
use rustix::io::{Errno, ReadWriteFlags, pwritev2};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{JoinHandle, Thread};

/// Real zeros everywhere, as in a segment: the bare loop goes round in it.
pub const FILE_BYTES: u64 = 128 << 20;

pub fn make_file(directory: &Path) -> io::Result<()> {
    let file = File::create(directory.join("bare"))?;
    let zeros = vec![0; 1 << 20];
    for at in (0..FILE_BYTES).step_by(zeros.len()) {
        file.write_all_at(&zeros, at)?;
    }
    file.sync_all()?;
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
    Ok(())
}

fn open(directory: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).custom_flags(libc::O_DIRECT).open(directory.join("bare"))
}

/// The next place in the file.
struct Places {
    batch: usize,
    at: u64,
}

impl Places {
    fn next(&mut self) -> u64 {
        let at = self.at;
        self.at = (at + self.batch as u64) % FILE_BYTES;
        at
    }
}

/// On the measuring thread, blocking.
struct Inline {
    name: &'static str,
    file: File,
    buffer: Buffer,
    places: Places,
    dsync: bool,
    durable: u64,
}

impl Contestant for Inline {
    fn name(&self) -> &str {
        self.name
    }

    fn step(&mut self) -> bool {
        let at = self.places.next();
        let bytes = self.buffer.bytes(self.places.batch);
        if self.dsync {
            let slices = [io::IoSlice::new(bytes)];
            let written = retry(|| pwritev2(&self.file, &slices, at, ReadWriteFlags::DSYNC));
            assert_eq!(written, bytes.len(), "the disk took all of it");
        } else {
            self.file.write_all_at(bytes, at).expect("the disk works");
            self.file.sync_data().expect("the disk works");
        }
        self.durable += 1;
        true
    }

    fn durable(&self) -> u64 {
        self.durable
    }
}

fn retry(mut call: impl FnMut() -> rustix::io::Result<usize>) -> usize {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            result => return result.expect("the disk works"),
        }
    }
}

/// On a thread of its own, both sides asleep on a futex between batches.
struct OnThread {
    asked: Arc<AtomicU64>,
    done: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
    worker: Thread,
    durable: u64,
}

const STOP: u64 = u64::MAX;

impl OnThread {
    fn start(file: File, buffer: Buffer, mut places: Places) -> Self {
        let (asked, done) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let caller = std::thread::current();
        let thread = std::thread::spawn({
            let (asked, done) = (Arc::clone(&asked), Arc::clone(&done));
            move || {
                let mut finished = 0;
                loop {
                    match asked.load(Ordering::Acquire) {
                        STOP => return,
                        asked if asked > finished => {
                            let bytes = buffer.bytes(places.batch);
                            file.write_all_at(bytes, places.next()).expect("the disk works");
                            file.sync_data().expect("the disk works");
                            finished += 1;
                            done.store(finished, Ordering::Release);
                            caller.unpark();
                        }
                        _ => std::thread::park(),
                    }
                }
            }
        });
        let worker = thread.thread().clone();
        Self { asked, done, thread: Some(thread), worker, durable: 0 }
    }
}

impl Contestant for OnThread {
    fn name(&self) -> &str {
        "thread: pwrite, fdatasync (futex)"
    }

    fn step(&mut self) -> bool {
        self.asked.store(self.durable + 1, Ordering::Release);
        self.worker.unpark();
        while self.done.load(Ordering::Acquire) == self.durable {
            std::thread::park();
        }
        self.durable += 1;
        true
    }

    fn durable(&self) -> u64 {
        self.durable
    }
}

impl Drop for OnThread {
    fn drop(&mut self) {
        self.asked.store(STOP, Ordering::Release);
        self.worker.unpark();
        if let Some(thread) = self.thread.take() {
            thread.join().expect("it did not panic");
        }
    }
}

/// What is given to the ring for one batch.
#[derive(Clone, Copy)]
enum Order {
    Once(Kind),
    /// The flush is submitted when the write's completion has been seen.
    Afterwards,
}

struct OnRing {
    name: &'static str,
    ring: Ring,
    places: Places,
    order: Order,
    depth: usize,
    submitted: u64,
    durable: u64,
}

impl OnRing {
    fn submit(&mut self) {
        let at = self.places.next();
        let buffer = usize::try_from(self.submitted % self.depth as u64).expect("below the depth");
        self.submitted += 1;
        match self.order {
            Order::Once(kind) => self.ring.write(buffer, self.places.batch, at, kind),
            Order::Afterwards => {
                self.ring.write(buffer, self.places.batch, at, Kind::default());
                self.ring.wait();
                self.ring.flush_alone();
            }
        }
    }
}

impl Contestant for OnRing {
    fn name(&self) -> &str {
        self.name
    }

    fn step(&mut self) -> bool {
        while self.ring.in_flight() < self.depth {
            self.submit();
        }
        self.ring.submit();
        self.ring.wait();
        self.durable += 1;
        true
    }

    fn finish(&mut self) {
        while self.ring.in_flight() > 0 {
            self.ring.wait();
            self.durable += 1;
        }
    }

    fn durable(&self) -> u64 {
        self.durable
    }
}

/// The baseline: one write and one flush after the other.
pub fn baseline(directory: &Path, batch: usize) -> io::Result<Box<dyn Contestant>> {
    inline("bare pwrite, fdatasync", directory, batch, false)
}

fn inline(
    name: &'static str,
    directory: &Path,
    batch: usize,
    dsync: bool,
) -> io::Result<Box<dyn Contestant>> {
    let places = Places { batch, at: 0 };
    let buffer = Buffer::filled(batch, 0x5a);
    Ok(Box::new(Inline { name, file: open(directory)?, buffer, places, dsync, durable: 0 }))
}

/// Every way that was thought of. What the kernel refuses is left out, loudly.
pub fn strategies(directory: &Path, batch: usize) -> io::Result<Vec<Box<dyn Contestant>>> {
    assert!(batch.is_multiple_of(BLOCK), "whole blocks");
    let linked = Kind { linked: true, ..Kind::default() };
    let rings = [
        ("ring: write linked to fdatasync", Setup::Deferred, Order::Once(linked), 1),
        ("  … fixed file and buffer", Setup::Deferred, Order::Once(Kind { fixed: true, ..linked }), 1),
        ("  … COOP_TASKRUN for DEFER_TASKRUN", Setup::Cooperative, Order::Once(linked), 1),
        ("  … IOSQE_ASYNC", Setup::Deferred, Order::Once(Kind { asynchronous: true, ..linked }), 1),
        ("  … SQPOLL, idle after 1 ms", Setup::Polled, Order::Once(linked), 1),
        ("  … two batches overlapped", Setup::Deferred, Order::Once(linked), 2),
        ("ring: write, then fdatasync", Setup::Deferred, Order::Afterwards, 1),
        (
            "ring: write with RWF_DSYNC",
            Setup::Deferred,
            Order::Once(Kind { dsync: true, ..Kind::default() }),
            1,
        ),
    ];
    let mut all = vec![
        baseline(directory, batch)?,
        inline("bare pwritev2 with RWF_DSYNC", directory, batch, true)?,
        Box::new(OnThread::start(
            open(directory)?,
            Buffer::filled(batch, 0x5a),
            Places { batch, at: FILE_BYTES / 2 },
        )),
    ];
    for (name, setup, order, depth) in rings {
        let buffers = (0..depth).map(|_| Buffer::filled(batch, 0x5a)).collect();
        match Ring::new(setup, open(directory)?, buffers) {
            Ok(ring) => {
                let places = Places { batch, at: 0 };
                all.push(Box::new(OnRing { name, ring, places, order, depth, submitted: 0, durable: 0 }));
            }
            Err(error) => eprintln!("SKIPPED {name}: {error}"),
        }
    }
    Ok(all)
}
