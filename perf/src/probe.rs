//! What the machine can do by itself, measured in the same run as the engine: a figure without these says nothing.
//!
//! Each probe is the smallest program that does one thing the engine cannot do without, written apart from the
//! engine's own code, so that a mistake there does not hide here.

mod majority;
mod quic;

pub use majority::flushes as majority_flushes;
pub use quic::round_trips as quic_round_trips;

use rustix::fs::{Mode, OFlags, fdatasync, fsync, open};
use std::hint::black_box;
use std::io::{self, Write};
use std::net::UdpSocket;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const BLOCK: usize = 4096;

/// A payload as large as a put's batch of one on the wire, so that probe and engine move the same bytes.
pub const MESSAGE_BYTES: usize = 400;

/// Times `count` writes of 4 KiB, each made durable before the next: what one flush costs on the file system of
/// `directory`.
pub fn flushes(directory: &Path, count: usize) -> io::Result<Vec<Duration>> {
    let log = FlushFile::make(directory.join("flush-probe"))?;
    let rounds = 0..count;
    rounds
        .map(|round| {
            let began = Instant::now();
            log.write_and_flush(round)?;
            Ok(began.elapsed())
        })
        .collect()
}

/// A file that was written with zeros once, so that no write allocates; the page cache is bypassed where the system knows
/// how. Goes when it is let go of.
struct FlushFile {
    path: PathBuf,
    file: OwnedFd,
    bytes: Vec<u8>,
    /// Where in them an aligned block begins.
    start: usize,
}

impl FlushFile {
    const BLOCKS: usize = 1024;

    fn make(path: PathBuf) -> io::Result<Self> {
        let mut file = std::fs::File::create(&path)?;
        file.write_all(&vec![0_u8; Self::BLOCKS * BLOCK])?;
        fsync(&file)?;
        let bytes = vec![0xa5_u8; 2 * BLOCK];
        let start = bytes.as_ptr().align_offset(BLOCK);
        Ok(Self { file: open_direct(&path)?, path, bytes, start })
    }

    fn write_and_flush(&self, round: usize) -> io::Result<()> {
        let offset = ((round % Self::BLOCKS) * BLOCK) as u64;
        let written = rustix::io::pwrite(&self.file, &self.bytes[self.start..self.start + BLOCK], offset)?;
        fdatasync(&self.file)?;
        let whole = written == BLOCK;
        whole.then_some(()).ok_or_else(|| {
            io::Error::other(format!("short write of {written} bytes in {}", self.path.display()))
        })
    }
}

impl Drop for FlushFile {
    fn drop(&mut self) {
        // What stays behind lies in a directory that its maker removes.
        let _ = std::fs::remove_file(&self.path);
    }
}

fn open_direct(path: &Path) -> io::Result<OwnedFd> {
    #[cfg(target_os = "linux")]
    let direct = OFlags::DIRECT;
    #[cfg(not(target_os = "linux"))]
    let direct = OFlags::empty();
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    // tmpfs of older kernels refuses O_DIRECT: then the flush alone is measured.
    open(path, flags | direct, Mode::empty())
        .or_else(|_| open(path, flags, Mode::empty()))
        .map_err(io::Error::from)
}

/// Times `count` round trips of one datagram between two threads over the loopback: the floor under any protocol.
pub fn udp_round_trips(count: usize) -> io::Result<Vec<Duration>> {
    let (here, there) = (UdpSocket::bind("127.0.0.1:0")?, UdpSocket::bind("127.0.0.1:0")?);
    here.connect(there.local_addr()?)?;
    there.connect(here.local_addr()?)?;
    for socket in [&here, &there] {
        socket.set_read_timeout(Some(Duration::from_secs(2)))?;
    }
    across_cores(
        move || {
            let mut buffer = [7_u8; MESSAGE_BYTES];
            let mut times = Vec::with_capacity(count);
            for _ in 0..count {
                let began = Instant::now();
                here.send(&buffer)?;
                here.recv(&mut buffer)?;
                times.push(began.elapsed());
            }
            Ok(times)
        },
        move || {
            let mut buffer = [0_u8; MESSAGE_BYTES];
            for _ in 0..count {
                let length = there.recv(&mut buffer)?;
                there.send(&buffer[..length])?;
            }
            Ok(())
        },
    )
}

/// Runs both ends of an exchange, each held on a core of its own where there are two: nodes sleep on different cores,
/// and waking one costs many times what switching threads on one core does.
fn across_cores<T: Send>(
    this: impl FnOnce() -> io::Result<T> + Send,
    other: impl FnOnce() -> io::Result<()> + Send,
) -> io::Result<T> {
    std::thread::scope(|threads| {
        let other = threads.spawn(|| {
            hold_core(1);
            other()
        });
        let this = threads.spawn(|| {
            hold_core(0);
            this()
        });
        let panicked = |_| io::Error::other("a thread of the probe panicked");
        let found = this.join().map_err(panicked)?;
        other.join().map_err(panicked)??;
        found
    })
}

/// Keeps the calling thread on the `number`th of the cores it may use. Where that is refused the scheduler chooses.
#[cfg(target_os = "linux")]
fn hold_core(number: usize) {
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
    let Ok(allowed) = sched_getaffinity(None) else { return };
    let mut cores = (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core));
    if let Some(core) = cores.nth(number) {
        let mut only = CpuSet::new();
        only.set(core);
        let _ = sched_setaffinity(None, &only);
    }
}

#[cfg(not(target_os = "linux"))]
fn hold_core(_: usize) {}

/// Times a fixed piece of arithmetic (a few ms): what slows it down slows everything down. One of each `count` runs.
pub fn spins(count: usize) -> Vec<Duration> {
    const STEPS: u32 = 2_000_000;
    (0..count)
        .map(|_| {
            let began = Instant::now();
            let mut x = 88_172_645_463_325_252_u64;
            for _ in 0..STEPS {
                x ^= x << 13;
                x ^= x >> 7;
                x ^= x << 17;
            }
            black_box(x);
            began.elapsed()
        })
        .collect()
}

/// The sample below which `share` (0 to 1) of `samples` lie; zero for none.
pub fn quantile(samples: &mut [Duration], share: f64) -> Duration {
    samples.sort_unstable();
    // Precise enough for an index: there are far fewer samples than 2^52.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let index = (samples.len() as f64 * share) as usize;
    samples.get(index.min(samples.len().saturating_sub(1))).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_probe_measures_something() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        for mut times in [
            flushes(directory.path(), 5).expect("flushes"),
            majority_flushes(directory.path(), 5).expect("flushes of three files"),
            udp_round_trips(20).expect("datagrams"),
            quic_round_trips(20).expect("a QUIC connection over the loopback"),
            spins(3),
        ] {
            assert!(quantile(&mut times, 0.5) > Duration::ZERO);
        }
        assert_eq!(std::fs::read_dir(directory.path()).expect("still there").count(), 0);
    }

    #[test]
    fn quantiles_of_known_samples() {
        let mut samples: Vec<_> = (1..=100).rev().map(Duration::from_millis).collect();
        assert_eq!(quantile(&mut samples, 0.5), Duration::from_millis(51));
        assert_eq!(quantile(&mut samples, 0.99), Duration::from_millis(100));
        assert_eq!(quantile(&mut [], 0.5), Duration::ZERO);
    }
}
