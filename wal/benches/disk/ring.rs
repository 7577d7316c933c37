//! A bare io_uring over one file, for the strategies that are compared. `unsafe` is here, in
//! `process.rs` and in `counting.rs`, and nowhere else in the benchmark.

use io_uring::squeue::Flags;
use io_uring::{IoUring, opcode, types};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

pub const BLOCK: usize = 4096;

#[derive(Clone)]
#[repr(C, align(4096))]
struct Block([u8; BLOCK]);

/// Aligned memory that stays where it is.
pub struct Buffer(Vec<Block>);

impl Buffer {
    pub fn filled(bytes: usize, with: u8) -> Self {
        assert!(bytes.is_multiple_of(BLOCK), "direct writes are whole blocks");
        Self(vec![Block([with; BLOCK]); bytes / BLOCK])
    }

    pub fn bytes(&self, length: usize) -> &[u8] {
        assert!(length <= self.0.len() * BLOCK, "within the buffer");
        // SAFETY: the blocks are contiguous and initialised, each exactly `BLOCK` bytes, and the length was checked; the
        // slice borrows `self`.
        unsafe { std::slice::from_raw_parts(self.0.as_ptr().cast(), length) }
    }
}

/// How the ring is set up.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Setup {
    /// `SINGLE_ISSUER | DEFER_TASKRUN`, as the log's.
    Deferred,
    /// `COOP_TASKRUN`.
    Cooperative,
    /// A thread of the kernel polls for submissions, and sleeps after a millisecond without one.
    Polled,
}

/// What one submission is, beside its place.
#[derive(Clone, Copy, Default)]
pub struct Kind {
    /// Registered file and buffer.
    pub fixed: bool,
    /// `RWF_DSYNC`.
    pub dsync: bool,
    /// `IOSQE_ASYNC`: straight to a worker thread.
    pub asynchronous: bool,
    /// The flush follows, linked.
    pub linked: bool,
}

pub struct Ring {
    uring: IoUring,
    file: File,
    buffers: Vec<Buffer>,
    in_flight: usize,
}

impl Ring {
    pub fn new(setup: Setup, file: File, buffers: Vec<Buffer>) -> io::Result<Self> {
        let mut builder = IoUring::builder();
        match setup {
            Setup::Deferred => _ = builder.setup_single_issuer().setup_defer_taskrun().setup_taskrun_flag(),
            Setup::Cooperative => _ = builder.setup_coop_taskrun(),
            Setup::Polled => _ = builder.setup_sqpoll(1),
        }
        let uring = builder.build(16)?;
        uring.submitter().register_files(&[file.as_raw_fd()])?;
        let vectors: Vec<_> = buffers
            .iter()
            .map(|buffer| libc::iovec {
                iov_base: buffer.0.as_ptr().cast_mut().cast(),
                iov_len: buffer.0.len() * BLOCK,
            })
            .collect();
        // SAFETY: the vectors name the memory of `buffers`, which the ring owns, never resizes, and drops after the ring.
        unsafe { uring.submitter().register_buffers(&vectors) }?;
        Ok(Self { uring, file, buffers, in_flight: 0 })
    }

    /// Queues a write of a buffer's first `bytes`, and its flush if it is linked.
    pub fn write(&mut self, buffer: usize, bytes: usize, offset: u64, kind: Kind) {
        let length = u32::try_from(bytes).expect("a batch is small");
        let pointer = self.buffers[buffer].bytes(bytes).as_ptr();
        let rw = if kind.dsync { libc::RWF_DSYNC } else { 0 };
        let fd = types::Fd(self.file.as_raw_fd());
        let write = if kind.fixed {
            let index = u16::try_from(buffer).expect("few buffers");
            opcode::WriteFixed::new(types::Fixed(0), pointer, length, index)
                .offset(offset)
                .rw_flags(rw)
                .build()
        } else {
            opcode::Write::new(fd, pointer, length).offset(offset).rw_flags(rw).build()
        };
        let mut flags = Flags::empty();
        flags.set(Flags::ASYNC, kind.asynchronous);
        flags.set(Flags::IO_LINK | Flags::SKIP_SUCCESS, kind.linked);
        self.push(&write.flags(flags).user_data(bytes as u64));
        if kind.linked {
            self.flush(kind.fixed);
        }
        self.in_flight += 1;
    }

    /// Queues a flush on its own.
    pub fn flush_alone(&mut self) {
        self.flush(false);
        self.in_flight += 1;
    }

    fn flush(&mut self, fixed: bool) {
        let flush = if fixed {
            opcode::Fsync::new(types::Fixed(0)).flags(types::FsyncFlags::DATASYNC).build()
        } else {
            opcode::Fsync::new(types::Fd(self.file.as_raw_fd())).flags(types::FsyncFlags::DATASYNC).build()
        };
        self.push(&flush.user_data(0));
    }

    fn push(&mut self, entry: &io_uring::squeue::Entry) {
        // SAFETY: the entry names this ring's file and the memory of one of its buffers, which nobody writes to, and which
        // are dropped after the last completion (`Drop` waits for it).
        unsafe { self.uring.submission().push(entry) }.expect("few are in flight");
    }

    /// Submits, and waits for one completion if none is there.
    pub fn wait(&mut self) {
        loop {
            if let Some(entry) = self.uring.completion().next() {
                self.in_flight -= 1;
                let expected = i32::try_from(entry.user_data()).expect("a batch is small");
                assert_eq!(entry.result(), expected, "the disk took all of it");
                return;
            }
            self.uring.submit_and_wait(1).expect("the ring works");
        }
    }

    /// Gives the kernel what is queued.
    pub fn submit(&mut self) {
        self.uring.submit().expect("the ring works");
    }

    pub fn in_flight(&self) -> usize {
        self.in_flight
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        while self.in_flight > 0 {
            self.wait();
        }
    }
}
