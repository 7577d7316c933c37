//! Making segment files: zeros ahead of time, a header and a name when one is needed.
//!
//! Order, which the crash argument rests on: zeros written and flushed as `spare.tmp`; header written and
//! flushed; rename; directory flushed; only then is the segment used. The zeros are real: allocated but
//! unwritten blocks cost a second flush on every append. A thread of its own does this, because it takes as
//! long as many flushes.
//!
//! A segment that the log dropped becomes the next spare ([`Maker::retire`]): renamed to `spare.tmp`, then overwritten with
//! zeros like a new one. Its old bytes could never count (the nonce is in every hash), but only zeros say "nothing was
//! written here", and recovery tells the end of the log from a torn write by them. What is saved is not the writing of zeros
//! but the allocation: its blocks are there, so neither a full disk nor the filesystem's journal stands in the way.

use crate::error::LogError;
use crate::journal::Next;
use crate::sector::{BLOCK, BLOCK_U64};
use crate::segment::{Identity, MIN_SEGMENT_BYTES, SPARE_NAME, SegmentHeader, segment_name};
use crossbeam::channel::{Receiver, Sender, unbounded};
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

const ZEROS: usize = 1 << 20;

/// Makes segments in one directory.
#[derive(Debug)]
pub(crate) struct Maker {
    directory: PathBuf,
    handle: File,
    identity: Identity,
    /// Bytes of the spare, if there is one.
    spare: Option<u64>,
    /// Bytes of a file under the spare's name that held a segment before, and still holds its bytes.
    retired: Option<u64>,
    stop: Arc<AtomicBool>,
}

impl Maker {
    pub(crate) fn new(directory: PathBuf, handle: File, identity: Identity) -> Self {
        Self { directory, handle, identity, spare: None, retired: None, stop: Arc::default() }
    }

    /// Writes the zeros of a segment to come.
    pub(crate) fn prepare(&mut self, bytes: u64) -> Result<(), LogError> {
        assert!(
            bytes >= MIN_SEGMENT_BYTES && bytes.is_multiple_of(BLOCK_U64),
            "{bytes} bytes are no segment"
        );
        if self.spare == Some(bytes) {
            return Ok(());
        }
        self.spare = None;
        let kept = self.retired.take() == Some(bytes);
        match self.write_zeros(bytes, if kept { Blocks::Kept } else { Blocks::New }) {
            Ok(()) => {
                self.spare = Some(bytes);
                Ok(())
            }
            Err(error) => {
                // Room for others again; the name is tried anew when the segment is needed.
                let _ = std::fs::remove_file(self.directory.join(SPARE_NAME));
                Err(match error.kind() {
                    io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => LogError::NoSpace {
                        file: self.directory.join(SPARE_NAME).display().to_string(),
                        bytes,
                    },
                    _ => LogError::io("writing", SPARE_NAME, &error),
                })
            }
        }
    }

    /// Takes a segment that the log no longer counts, durably: it is the next spare, unless there is one.
    ///
    /// Nothing depends on it: if it fails, or its rename is lost in a crash, the next opening removes what is left.
    pub(crate) fn retire(&mut self, number: u64) {
        let path = self.directory.join(segment_name(number));
        let done = if self.spare.is_some() || self.retired.is_some() {
            std::fs::remove_file(&path)
        } else {
            self.take_over(&path)
        };
        if let Err(error) = done {
            tracing::warn!(%error, file = %path.display(), "a dropped segment stays until the next start");
        }
    }

    fn take_over(&mut self, path: &Path) -> io::Result<()> {
        let bytes = path.metadata()?.len();
        std::fs::rename(path, self.directory.join(SPARE_NAME))?;
        self.retired = Some(bytes);
        Ok(())
    }

    fn write_zeros(&self, bytes: u64, blocks: Blocks) -> io::Result<()> {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(blocks == Blocks::New)
            .mode(0o600)
            .open(self.directory.join(SPARE_NAME))?;
        // Past the cache where that can be had: no pages to fill and to write back, all at once, beside the log's own writes.
        #[cfg(target_os = "linux")]
        let mut direct = crate::linux::bypass_cache(&file);
        let memory = vec![0; ZEROS.min(usize::try_from(bytes).unwrap_or(ZEROS)) + BLOCK];
        let zeros = &memory[memory.as_ptr().align_offset(BLOCK)..];
        let zeros = &zeros[..memory.len() - BLOCK];
        let mut at = 0;
        while at < bytes {
            if self.stop.load(Ordering::Relaxed) {
                return Err(io::ErrorKind::Interrupted.into());
            }
            let chunk = zeros.len().min(usize::try_from(bytes - at).unwrap_or(zeros.len()));
            match file.write_all_at(&zeros[..chunk], at) {
                Ok(()) => at += chunk as u64,
                // Some file systems take the flag, and then no write with it.
                #[cfg(target_os = "linux")]
                Err(error) if error.kind() == io::ErrorKind::InvalidInput && direct => {
                    direct = false;
                    crate::linux::use_cache(&file)?;
                }
                Err(error) => return Err(error),
            }
        }
        assert_eq!(at, bytes, "zeros up to the last block: an unwritten one would cost a second flush");
        file.sync_all()?;
        #[cfg(target_os = "linux")]
        crate::linux::forget_cached(&file);
        Ok(())
    }

    /// Makes the next segment, from the spare if it fits, and gives it its name.
    pub(crate) fn make(&mut self, next: Next) -> Result<SegmentHeader, LogError> {
        self.prepare(next.bytes)?;
        self.spare = None;
        let header = SegmentHeader {
            identity: self.identity,
            number: next.number,
            bytes: next.bytes,
            nonce: nonce().map_err(|error| LogError::io("reading", "/dev/urandom", &error))?,
            predecessor: next.predecessor,
        };
        let name = segment_name(next.number);
        self.give_name(&header, &name).map_err(|error| LogError::io("making", name, &error))?;
        Ok(header)
    }

    fn give_name(&self, header: &SegmentHeader, name: &str) -> io::Result<()> {
        let spare = self.directory.join(SPARE_NAME);
        let mut block = vec![0; BLOCK];
        header.fill(&mut block);
        let file = OpenOptions::new().write(true).open(&spare)?;
        assert_eq!(file.metadata()?.len(), header.bytes, "a segment is never made longer or shorter");
        file.write_all_at(&block, 0)?;
        file.sync_all()?;
        let path = self.directory.join(name);
        if path.try_exists()? {
            // A name taken by someone else; renaming would destroy it.
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        std::fs::rename(spare, path)?;
        self.handle.sync_all()
    }
}

/// Whether the spare is written over blocks that are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Blocks {
    New,
    Kept,
}

fn nonce() -> io::Result<u128> {
    let mut bytes = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(u128::from_le_bytes(bytes))
}

enum Order {
    Prepare(u64),
    Retire(u64),
    Make(Next),
}

/// The thread that makes segments.
#[derive(Debug)]
pub(crate) struct Preparer {
    orders: Option<Sender<Order>>,
    made: Receiver<Result<SegmentHeader, LogError>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Preparer {
    /// `notify` is called after each answer in [`Preparer::made`].
    pub(crate) fn start(mut maker: Maker, notify: impl Fn() + Send + 'static) -> Result<Self, LogError> {
        let (orders, inbox) = unbounded();
        let (answers, made) = unbounded();
        let stop = Arc::clone(&maker.stop);
        let run = move || {
            #[cfg(target_os = "linux")]
            crate::linux::run_anywhere();
            for order in inbox {
                match order {
                    Order::Prepare(bytes) => {
                        if let Err(error) = maker.prepare(bytes) {
                            tracing::warn!(%error, "the next segment could not be prepared; it is tried again when it is needed");
                        }
                    }
                    Order::Retire(segment) => maker.retire(segment),
                    Order::Make(next) => {
                        if answers.send(maker.make(next)).is_err() {
                            return;
                        }
                        notify();
                    }
                }
            }
            // A spare that nobody needs would only be removed by the next open.
            let _ = std::fs::remove_file(maker.directory.join(SPARE_NAME));
        };
        let thread = std::thread::Builder::new()
            .name("wal-segments".into())
            .spawn(run)
            .map_err(|error| LogError::io("starting", "the thread that makes segments", &error))?;
        Ok(Self { orders: Some(orders), made, stop, thread: Some(thread) })
    }

    pub(crate) fn prepare(&self, bytes: u64) {
        self.order(Order::Prepare(bytes));
    }

    pub(crate) fn retire(&self, segment: u64) {
        self.order(Order::Retire(segment));
    }

    pub(crate) fn make(&self, next: Next) {
        self.order(Order::Make(next));
    }

    fn order(&self, order: Order) {
        // If the thread is gone, `made` is disconnected, and that is where it is noticed.
        let _ = self.orders.as_ref().expect("present until dropped").send(order);
    }

    /// Answers to [`Preparer::make`].
    pub(crate) fn made(&self) -> &Receiver<Result<SegmentHeader, LogError>> {
        &self.made
    }
}

impl Drop for Preparer {
    /// Waits for the thread: nothing is written to the directory once its lock is released.
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
