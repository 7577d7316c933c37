//! The log as a contestant, with either writer.

use crate::counting::allocations;
use crate::measure::Contestant;
use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::thread::Thread;
use wal::linux::{Ring, Strategy, UringLog};
use wal::{
    ClusterId, EntryId, Frame, FrameBuilder, GroupId, Identity, LogEvent, LogIndex, LogStats, NodeId, Opened,
    Options, PortableLog, Term, WriteId, WritePlan, frame::FrameHead,
};

const IDENTITY: Identity = Identity { cluster: ClusterId(1), node: NodeId(1), group: GroupId::FIRST };
/// A put of 16 B and 256 B, with what surrounds it.
const COMMAND_BYTES: usize = 300;
/// Header of an envelope and of its one frame.
const HEADERS: usize = 256 + 112;
const LENGTH_PREFIX: usize = 4;
/// Batches until a log has the memory it needs.
const WARM: u64 = 32;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// Direct writes, by the log's own choice of strategy.
    Direct,
    /// Direct writes linked to their flush on the ring.
    Linked,
    Portable,
}

/// When the next batch is handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hand {
    /// After the one before is durable; encoded beforehand.
    Lockstep,
    /// While the one before is on its way; encoded and hashed meanwhile, as the engine does under load.
    Ahead,
}

/// How segments are had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Segments {
    /// One is there and lasts for the slice: no zeros are written meanwhile.
    Ready,
    /// The usual ones, made as the log goes on.
    Made,
}

enum Writer {
    Uring(Box<UringLog>, Box<Ring>),
    Portable(Box<PortableLog>),
}

impl Writer {
    fn open(which: Which, path: &Path, segment_bytes: u64, caller: Thread) -> Self {
        let options =
            Options { segment_bytes, create: true, allow_volatile: true, ..Options::new(path, IDENTITY) };
        let Opened { directory, .. } = wal::open(options).expect("a new log opens");
        match which {
            Which::Direct | Which::Linked => {
                let mut ring = Box::new(Ring::new(64).expect("io_uring is there"));
                let log = match which {
                    Which::Linked => UringLog::start_with(directory, &mut ring, Strategy::Linked),
                    _ => UringLog::start(directory, &mut ring),
                };
                Self::Uring(Box::new(log.expect("direct writes are there")), ring)
            }
            Which::Portable => {
                let log = PortableLog::start(directory, move || caller.unpark());
                Self::Portable(Box::new(log.expect("a thread is there")))
            }
        }
    }

    fn submit(&mut self, plan: WritePlan) {
        match self {
            Self::Uring(log, _) => log.submit(plan),
            Self::Portable(log) => log.submit(plan),
        }
    }

    fn kick(&mut self) {
        match self {
            Self::Uring(log, ring) => {
                log.kick(ring);
                ring.submit().expect("the ring works");
            }
            Self::Portable(log) => log.kick(),
        }
    }

    fn poll(&mut self) -> Option<LogEvent> {
        match self {
            Self::Uring(log, ring) => log.poll(ring),
            Self::Portable(log) => log.poll(),
        }
    }

    fn sleep(&mut self) {
        match self {
            Self::Uring(_, ring) => ring.wait(None).expect("the ring works"),
            Self::Portable(_) => std::thread::park(),
        }
    }

    fn stats(&self) -> LogStats {
        match self {
            Self::Uring(log, _) => log.stats(),
            Self::Portable(log) => log.stats(),
        }
    }
}

pub struct Contender {
    name: String,
    which: Which,
    hand: Hand,
    segments: Segments,
    batch: usize,
    /// What one slice may write.
    budget: u64,
    directory: PathBuf,
    open: Option<(Writer, tempfile::TempDir)>,
    ready: VecDeque<WritePlan>,
    last: EntryId,
    plans: u64,
    left: u64,
    /// Handed over and not yet durable.
    under_way: u64,
    durable: u64,
    allocations: u64,
    /// Batches that those belong to.
    counted: u64,
    /// Durable in the log that is open: its first batches grow its buffers, and their allocations are not counted.
    proven: u64,
    /// Of logs that are closed.
    before: LogStats,
}

const COMMAND: [u8; COMMAND_BYTES] = [0x5a; COMMAND_BYTES];

/// One frame of commands that takes `bytes` with its header.
pub fn frame_of(bytes: usize, previous: EntryId) -> Frame {
    let mut left = bytes - (HEADERS - 256);
    let mut builder = FrameBuilder::with_capacity(left);
    while left > 0 {
        // No rest too small for a command of its own.
        let whole = left >= 2 * (COMMAND_BYTES + LENGTH_PREFIX);
        let command = if whole { COMMAND_BYTES } else { (left - LENGTH_PREFIX).min(COMMAND_BYTES) };
        let command =
            if !whole && left > command + LENGTH_PREFIX { left / 2 - LENGTH_PREFIX } else { command };
        builder.push_command(&COMMAND[..command]);
        left -= command + LENGTH_PREFIX;
    }
    builder.commands(FrameHead { group: GroupId::FIRST, term: Term(1), previous, timestamp_ms: 1 })
}

/// A log that begins.
pub fn origin() -> EntryId {
    wal::frame::origin(IDENTITY.cluster, IDENTITY.group)
}

impl Contender {
    pub fn new(
        which: Which,
        hand: Hand,
        segments: Segments,
        directory: &Path,
        batch: usize,
        budget: u64,
    ) -> Self {
        let hands = match hand {
            Hand::Lockstep => "one after the other",
            Hand::Ahead => "next gathered meanwhile",
        };
        let made = if segments == Segments::Made { ", making segments" } else { "" };
        Self {
            name: format!("log {which:?}, {hands}{made}"),
            which,
            hand,
            segments,
            batch,
            budget,
            directory: directory.into(),
            open: None,
            ready: VecDeque::new(),
            last: origin(),
            plans: 0,
            left: 0,
            under_way: 0,
            durable: 0,
            allocations: 0,
            counted: 0,
            proven: 0,
            before: LogStats::default(),
        }
    }

    fn segment_bytes(&self) -> u64 {
        match self.segments {
            Segments::Made => wal::DEFAULT_SEGMENT_BYTES,
            Segments::Ready => 512 << 20,
        }
    }

    fn reopen(&mut self) -> io::Result<()> {
        self.before = self.stats();
        self.open = None;
        let home = tempfile::tempdir_in(&self.directory)?;
        let writer =
            Writer::open(self.which, &home.path().join("log"), self.segment_bytes(), std::thread::current());
        self.open = Some((writer, home));
        (self.last, self.plans) = (origin(), 0);
        self.ready.clear();
        self.proven = 0;
        Ok(())
    }

    fn stats(&self) -> LogStats {
        let now = self.open.as_ref().map(|(writer, _)| writer.stats()).unwrap_or_default();
        LogStats {
            flushes: self.before.flushes + now.flushes,
            writes: self.before.writes + now.writes,
            disk_bytes: self.before.disk_bytes + now.disk_bytes,
            frame_bytes: self.before.frame_bytes + now.frame_bytes,
            frames: self.before.frames + now.frames,
            segments: self.before.segments + now.segments,
            queued_bytes: 0,
        }
    }

    fn written(&self) -> u64 {
        self.open.as_ref().map_or(u64::MAX / 2, |(writer, _)| writer.stats().disk_bytes)
    }

    fn next_plan(&mut self) -> WritePlan {
        let frame = frame_of(self.batch - 256, self.last);
        self.last = frame.id();
        self.plans += 1;
        WritePlan {
            id: WriteId(self.plans),
            hard_state: None,
            frames: vec![frame],
            commit: LogIndex::ZERO,
            whole: false,
        }
    }

    fn hand_over(&mut self) -> bool {
        if self.left == 0 {
            return false;
        }
        self.left -= 1;
        let plan = self.ready.pop_front().unwrap_or_else(|| self.next_plan());
        let before = allocations();
        self.writer().submit(plan);
        self.count(allocations() - before);
        self.under_way += 1;
        true
    }

    fn count(&mut self, allocated: u64) {
        if self.proven >= WARM {
            self.allocations += allocated;
        }
    }

    fn kick(&mut self) {
        let before = allocations();
        self.writer().kick();
        self.count(allocations() - before);
    }

    fn writer(&mut self) -> &mut Writer {
        &mut self.open.as_mut().expect("prepared").0
    }

    /// Until one more plan is durable; two, if they shared a write because a segment had to be begun first.
    fn wait(&mut self) {
        self.kick();
        let before = allocations();
        let writer = self.writer();
        let proof = loop {
            match writer.poll() {
                Some(LogEvent::Flushed(proof)) => break proof,
                Some(other) => panic!("the disk works: {other:?}"),
                None => writer.sleep(),
            }
        };
        self.count(allocations() - before);
        assert!(proof.id() <= WriteId(self.plans), "it proves what was handed over");
        let more = proof.id().0 - self.proven;
        self.under_way -= more;
        self.durable += more;
        self.proven += more;
        if self.proven > WARM {
            self.counted += more;
        }
    }
}

impl Contestant for Contender {
    fn name(&self) -> &str {
        &self.name
    }

    fn prepare(&mut self) {
        let room = match self.segments {
            Segments::Made => 0,
            // The zeros of the next segment are written from the half of this one on.
            Segments::Ready => self.segment_bytes() / 2 - self.batch as u64,
        };
        // Rounds up what one slice hands over beyond its time.
        if self.written().saturating_add(self.budget + 2 * self.batch as u64) > room {
            self.reopen().expect("the directory is there");
        }
        self.left = self.budget / self.batch as u64;
        if self.hand == Hand::Lockstep {
            // What the last slice left over still fits: nothing was handed over since.
            while (self.ready.len() as u64) < self.left {
                let plan = self.next_plan();
                self.ready.push_back(plan);
            }
        }
    }

    fn step(&mut self) -> bool {
        match self.hand {
            Hand::Lockstep => {
                if !self.hand_over() {
                    return false;
                }
                self.kick();
                self.wait();
            }
            Hand::Ahead => {
                if self.under_way == 0 {
                    self.hand_over();
                    self.kick();
                    self.hand_over();
                }
                self.wait();
                self.kick();
                self.hand_over();
            }
        }
        self.left > 0
    }

    fn finish(&mut self) {
        while self.under_way > 0 {
            self.wait();
            self.kick();
        }
    }

    fn durable(&self) -> u64 {
        self.durable
    }

    fn remark(&self) -> Option<String> {
        let stats = self.stats();
        let (durable, frames) = (self.durable as f64, stats.frame_bytes as f64);
        Some(format!(
            "{:.3} flushes a batch; {:.3} disk bytes per frame byte (headers and padding included); {} segments begun; \
             {} allocations in the log's calls for {} batches after the first {WARM} of each log",
            stats.flushes as f64 / durable,
            stats.disk_bytes as f64 / frames,
            stats.segments,
            self.allocations,
            self.counted,
        ))
    }
}
