//! What the tests of both writers share: a log's user that waits for its events.
#![allow(dead_code, reason = "each test binary uses a part")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;
use wal::*;

pub const IDENTITY: Identity = Identity { cluster: ClusterId(0xc1), node: NodeId(1), group: GroupId::FIRST };
/// No test waits longer for one event.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub fn options(dir: &Path) -> Options {
    // Some machines have their temporary directory in memory.
    Options { segment_bytes: 64 << 10, create: true, allow_volatile: true, ..Options::new(dir, IDENTITY) }
}

/// Which writer a test drives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    Portable,
    #[cfg(target_os = "linux")]
    Uring,
    /// The same with the strategy that is not its own choice.
    #[cfg(target_os = "linux")]
    UringLinked,
}

enum Writer {
    Portable(PortableLog, Receiver<()>),
    #[cfg(target_os = "linux")]
    Uring(linux::UringLog, Box<linux::Ring>),
}

/// A writer with a loop around it.
pub struct Log {
    writer: Writer,
    pub last: EntryId,
    pub term: Term,
    plans: u64,
}

/// Both writers, or one where the other is refused (loudly).
pub fn writers() -> Vec<Which> {
    let mut which = vec![Which::Portable];
    #[cfg(target_os = "linux")]
    match linux::Ring::new(8) {
        Ok(_) => which.extend([Which::Uring, Which::UringLinked]),
        Err(error) => eprintln!("SKIPPED for the io_uring writer: {error}"),
    }
    which
}

impl Log {
    pub fn open(which: Which, options: Options) -> Result<(Self, Recovered), OpenError> {
        let Opened { recovered, directory } = open(options)?;
        Ok((Self::start(which, directory, &recovered), recovered))
    }

    pub fn start(which: Which, directory: Directory, recovered: &Recovered) -> Self {
        let writer = match which {
            Which::Portable => {
                let (wake, woken) = channel();
                Writer::Portable(
                    PortableLog::start(directory, move || {
                        let _ = wake.send(());
                    })
                    .unwrap(),
                    woken,
                )
            }
            #[cfg(target_os = "linux")]
            Which::Uring => {
                let mut ring = Box::new(linux::Ring::new(64).unwrap());
                Writer::Uring(linux::UringLog::start(directory, &mut ring).unwrap(), ring)
            }
            #[cfg(target_os = "linux")]
            Which::UringLinked => {
                let mut ring = Box::new(linux::Ring::new(64).unwrap());
                let log = linux::UringLog::start_with(directory, &mut ring, linux::Strategy::Linked);
                Writer::Uring(log.unwrap(), ring)
            }
        };
        let term = Term(recovered.hard_state().term.0.max(1));
        Self { writer, last: recovered.last(), term, plans: 0 }
    }

    pub fn frame(&self, previous: EntryId, body: &[u8]) -> Frame {
        let head = FrameHead { group: GroupId::FIRST, term: self.term, previous, timestamp_ms: 1 };
        let mut builder = FrameBuilder::with_capacity(body.len() + 4);
        builder.push_command(body);
        builder.commands(head)
    }

    /// A frame at the end of the log, which then is the end.
    pub fn next_frame(&mut self, body: &[u8]) -> Frame {
        let frame = self.frame(self.last, body);
        self.last = frame.id();
        frame
    }

    pub fn submit(&mut self, hard_state: Option<HardState>, frames: Vec<Frame>, commit: LogIndex) -> WriteId {
        self.plans += 1;
        let plan = WritePlan { id: WriteId(self.plans), hard_state, frames, commit, whole: false };
        match &mut self.writer {
            Writer::Portable(log, _) => log.submit(plan),
            #[cfg(target_os = "linux")]
            Writer::Uring(log, _) => log.submit(plan),
        }
        WriteId(self.plans)
    }

    /// The next event, however long it takes.
    pub fn event(&mut self) -> LogEvent {
        loop {
            match &mut self.writer {
                Writer::Portable(log, woken) => {
                    log.kick();
                    if let Some(event) = log.poll() {
                        return event;
                    }
                    // What ended may have been a write without an event, and others wait for it.
                    log.kick();
                    woken.recv_timeout(PATIENCE).expect("the writer answers");
                }
                #[cfg(target_os = "linux")]
                Writer::Uring(log, ring) => {
                    log.kick(ring);
                    if let Some(event) = log.poll(ring) {
                        return event;
                    }
                    log.kick(ring);
                    ring.wait(Some(PATIENCE)).unwrap();
                }
            }
        }
    }

    /// An event, if there is one already.
    pub fn poll_now(&mut self) -> Option<LogEvent> {
        match &mut self.writer {
            Writer::Portable(log, _) => {
                log.kick();
                log.poll()
            }
            #[cfg(target_os = "linux")]
            Writer::Uring(log, ring) => {
                log.kick(ring);
                ring.submit().unwrap();
                log.poll(ring)
            }
        }
    }

    /// Lets the writer get on: the ring does its linked operations when its owner looks at it.
    pub fn get_on(&mut self) {
        match &mut self.writer {
            Writer::Portable(..) => std::thread::yield_now(),
            #[cfg(target_os = "linux")]
            Writer::Uring(_, ring) => ring.wait(Some(Duration::from_millis(1))).unwrap(),
        }
    }

    pub fn wait(&mut self, id: WriteId) {
        loop {
            match self.event() {
                LogEvent::Flushed(flushed) if flushed.id() >= id => return,
                LogEvent::Flushed(_) => {}
                other => panic!("waiting for {id:?}: {other:?}"),
            }
        }
    }

    pub fn append(&mut self, body: &[u8]) -> Frame {
        let frame = self.next_frame(body);
        let id = self.submit(None, vec![frame.clone()], LogIndex::ZERO);
        self.wait(id);
        frame
    }

    pub fn fetch(&mut self, from: LogIndex, max_bytes: usize) -> Result<Vec<Frame>, FetchError> {
        let fetch = Fetch { token: 7, from, max_bytes };
        match &mut self.writer {
            Writer::Portable(log, _) => log.fetch(fetch),
            #[cfg(target_os = "linux")]
            Writer::Uring(log, ring) => log.fetch(ring, fetch),
        }
        loop {
            match self.event() {
                LogEvent::Fetched { token: 7, frames } => return Ok(frames),
                LogEvent::FetchFailed { token: 7, error } => return Err(error),
                LogEvent::Flushed(_) => {}
                other => panic!("waiting for a fetch: {other:?}"),
            }
        }
    }

    /// The node says that it is whole again.
    pub fn submit_whole(&mut self) {
        self.plans += 1;
        let plan = WritePlan { whole: true, ..WritePlan::barrier(WriteId(self.plans)) };
        match &mut self.writer {
            Writer::Portable(log, _) => log.submit(plan),
            #[cfg(target_os = "linux")]
            Writer::Uring(log, _) => log.submit(plan),
        }
    }

    pub fn drop_below(&mut self, index: LogIndex) {
        match &mut self.writer {
            Writer::Portable(log, _) => log.drop_below(index),
            #[cfg(target_os = "linux")]
            Writer::Uring(log, ring) => log.drop_below(ring, index),
        }
    }

    pub fn mark_owed(&self) -> bool {
        match &self.writer {
            Writer::Portable(log, _) => log.mark_owed(),
            #[cfg(target_os = "linux")]
            Writer::Uring(log, _) => log.mark_owed(),
        }
    }

    pub fn mark(&mut self) {
        match &mut self.writer {
            Writer::Portable(log, _) => log.mark(),
            #[cfg(target_os = "linux")]
            Writer::Uring(log, ring) => log.mark(ring),
        }
    }

    /// One turn of a loop that waits for anything at all; no event may come of it.
    pub fn turn(&mut self) {
        let event = match &mut self.writer {
            Writer::Portable(log, woken) => {
                woken.recv_timeout(PATIENCE).expect("the writer answers");
                log.poll()
            }
            #[cfg(target_os = "linux")]
            Writer::Uring(log, ring) => {
                ring.wait(Some(PATIENCE)).unwrap();
                log.poll(ring)
            }
        };
        assert!(event.is_none(), "{event:?}");
    }

    pub fn stats(&self) -> LogStats {
        match &self.writer {
            Writer::Portable(log, _) => log.stats(),
            #[cfg(target_os = "linux")]
            Writer::Uring(log, _) => log.stats(),
        }
    }

    pub fn close(self) -> Result<(), LogError> {
        match self.writer {
            Writer::Portable(log, _) => log.close(),
            #[cfg(target_os = "linux")]
            Writer::Uring(log, mut ring) => log.close(&mut ring),
        }
    }
}

pub fn collect(recovered: &mut Recovered) -> Vec<Frame> {
    recovered.frames().collect::<Result<_, _>>().unwrap()
}
