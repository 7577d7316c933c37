//! A thread that writes directly and flushes, one store after the other, blocking.
//!
//! Why a thread beside a ring (figures: `benches/README.md`): a flush has no other way through io_uring than a worker
//! thread of the kernel, so a thread is woken in any case; and an asynchronous direct write may be completed by a work
//! queue (it is by Linux 6.18 on ext4, for every write), whose worker waits for its turn like any other. A blocking write wakes
//! the thread that waits for it, which flushes at once. The thread has the priority of the loop that started it and shares its
//! core if it is pinned: two threads on one core hand over to each other at a fifth of the price of waking another core. It comes
//! first there, since all it has to do is to hand the disk its work, during which the loop encodes the next.
//!
//! It knows no order of its own and nothing of what it writes. A store is answered when it is written and flushed or has
//! failed; then the bell is rung.

use super::buffer::Buffer;
use super::ring::{Failure, Finished, JobId};
use super::store::{Answers, Judgement, MAX_TRIES, judge_store};
use crossbeam::queue::ArrayQueue;
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

/// An envelope and a state record are the most that is under way.
const DEPTH: usize = 2;

/// The thread's owner.
pub(crate) struct Flusher {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    unanswered: usize,
}

struct Shared {
    stores: ArrayQueue<Store>,
    finished: ArrayQueue<Finished>,
    stop: AtomicBool,
    /// The thread is gone: nothing more is answered.
    gone: AtomicBool,
    bell: Arc<OwnedFd>,
}

struct Store {
    id: JobId,
    file: Arc<File>,
    buffer: Buffer,
    offset: u64,
}

impl Flusher {
    /// `bell` is an eventfd.
    pub(crate) fn start(bell: Arc<OwnedFd>) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            stores: ArrayQueue::new(DEPTH),
            finished: ArrayQueue::new(DEPTH),
            stop: AtomicBool::new(false),
            gone: AtomicBool::new(false),
            bell,
        });
        let serving = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("wal-writer".into()).spawn(move || serving.serve())?;
        Ok(Self { shared, thread: Some(thread), unanswered: 0 })
    }

    /// Writes the whole buffer and flushes the file. Acknowledged by [`Finished`], not before.
    pub(crate) fn store(&mut self, id: JobId, file: Arc<File>, buffer: Buffer, offset: u64) {
        self.unanswered += 1;
        assert!(self.unanswered <= DEPTH, "an envelope and a state record at most are under way");
        let taken = self.shared.stores.push(Store { id, file, buffer, offset });
        assert!(taken.is_ok(), "there is room for what may be under way");
        self.thread.as_ref().expect("present until dropped").thread().unpark();
    }

    /// A store that has ended; `Err` when the thread is gone and some never will.
    pub(crate) fn poll(&mut self) -> Result<Option<Finished>, ThreadGone> {
        // Asked for first: what the thread finished before it went is taken.
        let gone = self.shared.gone.load(Ordering::Acquire);
        match self.shared.finished.pop() {
            Some(finished) => {
                self.unanswered -= 1;
                Ok(Some(finished))
            }
            None if gone && self.unanswered > 0 => Err(ThreadGone),
            None => Ok(None),
        }
    }
}

/// The thread has ended before its time.
#[derive(Debug)]
pub(crate) struct ThreadGone;

impl Drop for Flusher {
    /// Waits for what is under way: nothing is written to the directory once its lock is released.
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn serve(&self) {
        let _gone = Gone(self);
        super::turn::come_first();
        loop {
            match self.stores.pop() {
                Some(store) => {
                    let finished = store.carry_out();
                    assert!(self.finished.push(finished).is_ok(), "there is room for what may be under way");
                    // With another store to do, the loop could do nothing yet with the answer to this one.
                    if self.stores.is_empty() {
                        self.ring();
                    }
                }
                None if self.stop.load(Ordering::Acquire) => return,
                None => std::thread::park(),
            }
        }
    }

    fn ring(&self) {
        // It fails only when 2^64 - 2 rings were not answered.
        let _ = rustix::io::write(&*self.bell, &1_u64.to_le_bytes());
    }
}

struct Gone<'a>(&'a Shared);

impl Drop for Gone<'_> {
    fn drop(&mut self) {
        self.0.gone.store(true, Ordering::Release);
        self.0.ring();
    }
}

impl Store {
    fn carry_out(self) -> Finished {
        let Self { id, file, buffer, offset } = self;
        let result = write_and_flush(&file, buffer.as_ref(), offset);
        Finished { id, buffer, result }
    }
}

fn write_and_flush(file: &File, bytes: &[u8], offset: u64) -> Result<(), Failure> {
    let mut done = 0;
    for _ in 0..MAX_TRIES {
        let left = &bytes[done..];
        let written = rustix::io::pwrite(file, left, offset + done as u64);
        let whole = written == Ok(left.len());
        let flush =
            (whole && !crate::mutant!("no_flush")).then(|| code(rustix::fs::fdatasync(file).map(|()| 0)));
        match judge_store(Answers { write: Some(code(written)), flush }, left.len()) {
            Judgement::Done => return Ok(()),
            Judgement::Again { advance } => done += advance,
            Judgement::WriteFailed(errno) => return Err(Failure { what: "writing", errno }),
            Judgement::FlushFailed(errno) => return Err(Failure { what: "flushing", errno }),
        }
    }
    Err(Failure { what: "writing", errno: Errno::AGAIN })
}

/// As the ring says it: a count, or an error below zero.
fn code(result: rustix::io::Result<usize>) -> i32 {
    match result {
        Ok(count) => i32::try_from(count).expect("the kernel writes less than 2 GiB at once"),
        Err(errno) => -errno.raw_os_error(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sector::BLOCK;
    use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};

    fn block(with: u8) -> Buffer {
        let mut buffer = Buffer::default();
        buffer.resize(BLOCK);
        buffer.as_mut().fill(with);
        buffer
    }

    fn bell() -> Arc<OwnedFd> {
        Arc::new(eventfd(0, EventfdFlags::CLOEXEC).expect("an eventfd"))
    }

    fn next(flusher: &mut Flusher, bell: &OwnedFd) -> Finished {
        loop {
            if let Some(finished) = flusher.poll().expect("the thread is there") {
                return finished;
            }
            poll(&mut [PollFd::new(bell, PollFlags::IN)], None).expect("a bell can be waited for");
            let _ = rustix::io::read(bell, &mut [0; 8]);
        }
    }

    #[test]
    fn stores_are_answered_in_order_after_they_are_in_the_file() {
        let bell = bell();
        let mut flusher = Flusher::start(Arc::clone(&bell)).expect("a thread");
        let file = tempfile::tempfile().expect("a file");
        let reader = file.try_clone().expect("a handle");
        let file = Arc::new(file);
        for round in 0..100_u8 {
            for half in 0..2_u8 {
                let offset = u64::from(half) * BLOCK as u64;
                flusher.store(
                    JobId::named(u64::from(round * 2 + half)),
                    Arc::clone(&file),
                    block(round),
                    offset,
                );
            }
            for half in 0..2_u8 {
                let finished = next(&mut flusher, &bell);
                assert_eq!(
                    (finished.id, finished.result),
                    (JobId::named(u64::from(round * 2 + half)), Ok(()))
                );
                let mut byte = [0];
                std::os::unix::fs::FileExt::read_exact_at(&reader, &mut byte, u64::from(half) * BLOCK as u64)
                    .expect("it was written");
                assert_eq!(byte, [round]);
            }
        }
    }

    #[test]
    fn a_write_that_fails_says_so_and_is_not_flushed() {
        let bell = bell();
        let mut flusher = Flusher::start(Arc::clone(&bell)).expect("a thread");
        let home = tempfile::tempdir().expect("a directory");
        let path = home.path().join("read-only");
        std::fs::write(&path, [0; BLOCK]).expect("a file");
        let file = Arc::new(File::open(&path).expect("to read only"));
        flusher.store(JobId::named(1), file, block(1), 0);
        let finished = next(&mut flusher, &bell);
        assert_eq!(finished.result, Err(Failure { what: "writing", errno: Errno::BADF }));
        assert_eq!(std::fs::read(path).expect("still there"), [0; BLOCK]);
    }

    #[test]
    fn what_is_under_way_is_finished_before_the_thread_is_let_go() {
        let mut flusher = Flusher::start(bell()).expect("a thread");
        let file = tempfile::tempfile().expect("a file");
        let reader = file.try_clone().expect("a handle");
        flusher.store(JobId::named(1), Arc::new(file), block(7), 0);
        drop(flusher);
        let mut byte = [0];
        std::os::unix::fs::FileExt::read_exact_at(&reader, &mut byte, 0).expect("it was written");
        assert_eq!(byte, [7]);
    }
}
