//! The writer for every platform: ordinary files on a thread of its own.
//!
//! The loop's side plans ([`Journal`]); the thread carries out one job at a time (write, then flush; or read)
//! and calls `wake` after each answer. The thread knows no order of its own, so nothing can overtake. The
//! standard library flushes with `F_FULLFSYNC` on macOS and `fdatasync` on Linux.

use crate::directory::{Claimed, relock};
use crate::error::LogError;
use crate::id::LogIndex;
use crate::journal::{Extent, Journal, Step};
use crate::open::Directory;
use crate::plan::{Fetch, FetchError, LogEvent, LogStats, WritePlan};
use crate::reading::Read;
use crate::sector::BLOCK;
use crate::segment::{FIRST_OFFSET, SegmentHeader, segment_name};
use crate::segments::Preparer;
use crate::state::STATE_NAME;
use bytes::Bytes;
use crossbeam::channel::{Receiver, Sender, TryRecvError, bounded, select};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::thread::JoinHandle;

/// More jobs than are ever under way: a write or a segment to begin, zeros to write ahead, a read. A channel of this room
/// neither blocks nor allocates.
const JOBS: usize = 4;

/// The portable writer. See [`WritePlan`] for what goes in and [`LogEvent`] for what comes out.
pub struct PortableLog {
    journal: Journal,
    jobs: Option<Sender<Job>>,
    done: Receiver<Done>,
    thread: Option<JoinHandle<()>>,
    /// The buffers of the last write, for the next one.
    images: Images,
    /// Last, so that the lock is released after the thread is gone.
    _held: Claimed,
}

#[derive(Default)]
struct Images {
    envelope: Vec<u8>,
    state: Vec<u8>,
}

enum Job {
    Write { envelope: Option<Extent>, state: Option<u64>, images: Images },
    Prepare(u64),
    Retire(u64),
    Rotate(crate::journal::Next),
    Read(Read),
}

enum Done {
    Written { result: Result<(), LogError>, images: Images },
    Rotated(Result<SegmentHeader, LogError>),
    Read(Result<Bytes, FetchError>),
}

impl PortableLog {
    /// Starts the writer's thread. `wake` is called on it after each event.
    ///
    /// # Errors
    /// [`LogError`] if a thread or file is refused.
    pub fn start(directory: Directory, wake: impl Fn() + Send + 'static) -> Result<Self, LogError> {
        let maker = directory.maker().map_err(|error| LogError::io("opening", "the directory", &error))?;
        let Directory { held, state_file, tail } = directory;
        let number = tail.segments.last().expect("open makes a segment").number;
        let files = Files {
            directory: held.path.clone(),
            segment: open_segment(&held.path, number)?,
            state: state_file,
        };
        Self::start_with(held, Journal::new(tail), files, Preparer::start(maker, || ())?, wake)
    }

    fn start_with(
        held: Claimed,
        journal: Journal,
        files: Files,
        preparer: Preparer,
        wake: impl Fn() + Send + 'static,
    ) -> Result<Self, LogError> {
        let (jobs, inbox) = bounded(JOBS);
        let (answers, done) = bounded(JOBS);
        let thread = std::thread::Builder::new()
            .name("wal-writer".into())
            .spawn(move || files.serve(&inbox, &answers, &preparer, &wake))
            .map_err(|error| LogError::io("starting", "the log's thread", &error))?;
        Ok(Self {
            journal,
            jobs: Some(jobs),
            done,
            thread: Some(thread),
            images: Images::default(),
            _held: held,
        })
    }

    /// Queues a plan. Nothing happens before [`PortableLog::kick`].
    ///
    /// # Panics
    /// If the plan breaks the rules of [`WritePlan`].
    pub fn submit(&mut self, plan: WritePlan) {
        self.journal.submit(plan);
    }

    /// Starts the next write, if none is in flight; all queued plans that can share it do.
    pub fn kick(&mut self) {
        while let Some(segment) = self.journal.poll_dropped() {
            self.send(Job::Retire(segment));
        }
        if let Some(bytes) = self.journal.poll_spare() {
            self.send(Job::Prepare(bytes));
        }
        let step = self.journal.poll_step();
        self.carry_out(step);
        self.read();
    }

    fn carry_out(&mut self, step: Step) {
        match step {
            Step::Nothing => {}
            Step::Rotate(next) => self.send(Job::Rotate(next)),
            Step::Write { envelope, state } => {
                assert!(envelope.is_some() || state.is_some(), "a write writes something");
                let mut images = std::mem::take(&mut self.images);
                if let Some(extent) = envelope {
                    images.envelope.resize(extent.bytes, 0);
                    self.journal.fill_envelope(&mut images.envelope);
                }
                if state.is_some() {
                    images.state.resize(BLOCK, 0);
                    self.journal.fill_state(&mut images.state);
                }
                self.send(Job::Write { envelope, state, images });
            }
        }
    }

    fn read(&mut self) {
        if let Some(read) = self.journal.poll_read() {
            self.send(Job::Read(read));
        }
    }

    fn send(&self, job: Job) {
        // A thread that is gone is noticed in `poll`, where it can be reported.
        let _ = self.jobs.as_ref().expect("present until dropped").send(job);
    }

    /// The next event; never blocks.
    pub fn poll(&mut self) -> Option<LogEvent> {
        loop {
            match self.done.try_recv() {
                Ok(done) => self.take(done),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => {
                    self.journal.handle_failed(LogError::Thread("it ended before the log was closed"));
                    break;
                }
            }
        }
        self.journal.poll_event()
    }

    fn take(&mut self, done: Done) {
        match done {
            Done::Written { result, images } => {
                self.images = images;
                match result {
                    Ok(()) => self.journal.handle_written(),
                    Err(error) => self.journal.handle_failed(error),
                }
            }
            Done::Rotated(Ok(header)) => {
                self.journal.handle_rotated(header);
                // What waited for the segment does not wait for the loop's next turn, which nothing may bring
                // about.
                self.kick();
            }
            Done::Rotated(Err(error)) => self.journal.handle_failed(error),
            Done::Read(result) => match self.journal.handle_read(result) {
                Some(read) => self.send(Job::Read(read)),
                None => self.read(),
            },
        }
    }

    /// Asks for old entries; the answer comes as an event.
    pub fn fetch(&mut self, fetch: Fetch) {
        self.journal.fetch(fetch);
        self.read();
    }

    /// Entries below `index` are not needed any more, because a durable snapshot replaces them: whole segments go, in the
    /// background, once the commit mark on disk covers them. Whoever fetches one then is told that it is missing.
    pub fn drop_below(&mut self, index: LogIndex) {
        self.journal.drop_below(index);
        self.kick();
    }

    /// Whether [`PortableLog::mark`] would write anything.
    #[must_use]
    pub fn mark_owed(&self) -> bool {
        self.journal.mark_owed()
    }

    /// For the loop's timer, when the log has been idle for a second or so: writes how far the log is flushed, so that
    /// later damage to its very end is not taken for a torn write. One small write and flush; nothing if it is not owed.
    pub fn mark(&mut self) {
        self.journal.mark();
        self.kick();
    }

    /// Counters since the start.
    #[must_use]
    pub fn stats(&self) -> LogStats {
        self.journal.stats()
    }

    /// Bytes of frames not yet on disk.
    #[must_use]
    pub fn queued_bytes(&self) -> usize {
        self.journal.queued_bytes()
    }

    /// Finishes what is queued, marks the directory clean, releases it. Events not yet polled are dropped.
    ///
    /// # Errors
    /// The latch, if the log had failed or fails now: the directory is then not clean.
    pub fn close(mut self) -> Result<(), LogError> {
        loop {
            self.kick();
            if let Some(step) = self.journal.poll_close() {
                self.carry_out(step);
            }
            if let Some(error) = self.journal.latch() {
                return Err(error.clone());
            }
            if self.journal.is_idle() {
                return Ok(());
            }
            match self.done.recv() {
                Ok(done) => self.take(done),
                Err(_) => return Err(LogError::Thread("it ended before the log was closed")),
            }
        }
    }
}

impl Drop for PortableLog {
    /// Waits for the job in hand: nothing is written to the directory once its lock is released.
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl std::fmt::Debug for PortableLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PortableLog").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

/// The thread's side.
struct Files {
    directory: PathBuf,
    segment: File,
    state: File,
}

fn open_segment(directory: &std::path::Path, number: u64) -> Result<File, LogError> {
    let name = segment_name(number);
    let file = OpenOptions::new().read(true).write(true).open(directory.join(&name));
    file.and_then(|file| relock(&file).map(|()| file)).map_err(|error| LogError::io("opening", name, &error))
}

/// The flush that acknowledgements wait for.
fn flush(file: &File) -> io::Result<()> {
    if crate::mutant!("no_flush") {
        return Ok(());
    }
    file.sync_data()
}

impl Files {
    fn serve(mut self, jobs: &Receiver<Job>, answers: &Sender<Done>, preparer: &Preparer, wake: &impl Fn()) {
        let answer = |done| {
            let sent = answers.send(done).is_ok();
            if sent {
                wake();
            }
            sent
        };
        loop {
            let done = select! {
                recv(jobs) -> job => match job {
                    Err(_) => return,
                    Ok(Job::Prepare(bytes)) => {
                        preparer.prepare(bytes);
                        continue;
                    }
                    Ok(Job::Retire(segment)) => {
                        preparer.retire(segment);
                        continue;
                    }
                    Ok(Job::Rotate(next)) => {
                        preparer.make(next);
                        continue;
                    }
                    Ok(Job::Write { envelope, state, images }) => {
                        let result = self.write(envelope, state, &images);
                        Done::Written { result, images }
                    }
                    Ok(Job::Read(read)) => Done::Read(self.read(read)),
                },
                recv(preparer.made()) -> made => Done::Rotated(match made {
                    Ok(Ok(header)) => self.begin(header),
                    Ok(Err(error)) => Err(error),
                    Err(_) => Err(LogError::Thread("the one that makes segments is gone")),
                }),
            };
            if !answer(done) {
                return;
            }
        }
    }

    fn begin(&mut self, header: SegmentHeader) -> Result<SegmentHeader, LogError> {
        self.segment = open_segment(&self.directory, header.number)?;
        Ok(header)
    }

    fn write(&self, envelope: Option<Extent>, state: Option<u64>, images: &Images) -> Result<(), LogError> {
        if let Some(extent) = envelope {
            assert_eq!(images.envelope.len(), extent.bytes, "no byte of an earlier envelope is written");
            assert!(extent.at.offset >= FIRST_OFFSET, "a header is never written over");
            let name = || segment_name(extent.at.segment);
            self.segment
                .write_all_at(&images.envelope, extent.at.offset)
                .map_err(|error| LogError::io("writing", name(), &error))?;
            flush(&self.segment).map_err(|error| LogError::io("flushing", name(), &error))?;
        }
        if let Some(offset) = state {
            assert_eq!(images.state.len(), BLOCK, "a slot is one block");
            assert!(offset == 0 || offset == BLOCK as u64, "one of the two slots");
            let failed = |what| move |error: io::Error| LogError::io(what, STATE_NAME, &error);
            self.state.write_all_at(&images.state, offset).map_err(failed("writing"))?;
            flush(&self.state).map_err(failed("flushing"))?;
        }
        Ok(())
    }

    fn read(&self, read: Read) -> Result<Bytes, FetchError> {
        assert!(read.length > 0 && read.length.is_multiple_of(BLOCK), "reads are in blocks");
        let file = segment_name(read.at.segment);
        let mut bytes = vec![0; read.length];
        File::open(self.directory.join(&file))
            .and_then(|segment| segment.read_exact_at(&mut bytes, read.at.offset))
            .map_err(|error| FetchError::Io { file, what: error.to_string() })?;
        Ok(bytes.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::latch_tests::{expect_latched, open_new, plan_of};

    #[test]
    fn after_a_failed_write_nothing_is_acknowledged() {
        let (dir, mut directory) = open_new();
        let mut previous = directory.tail.last;
        let maker = directory.maker().expect("a handle");
        let files = Files {
            directory: dir.path().into(),
            // Writing to it fails, as on a disk that is gone.
            segment: File::open(dir.path().join(segment_name(1))).expect("there"),
            state: directory.state_file.try_clone().expect("a handle"),
        };
        directory.tail.segment_bytes = 8192;
        let (wake, woken) = crossbeam::channel::unbounded();
        let preparer = Preparer::start(maker, || ()).expect("a thread");
        let journal = Journal::new(directory.tail);
        let wake = move || {
            let _ = wake.send(());
        };
        let mut log =
            PortableLog::start_with(directory.held, journal, files, preparer, wake).expect("a thread");
        let mut events = Vec::new();
        for n in 1..4 {
            log.submit(plan_of(n, &mut previous));
            log.kick();
            if n == 1 {
                woken.recv().expect("an answer");
            }
            events.extend(std::iter::from_fn(|| log.poll()));
        }
        log.fetch(Fetch { token: 1, from: LogIndex(1), max_bytes: 1 });
        events.extend(std::iter::from_fn(|| log.poll()));
        expect_latched(events);
        assert!(log.close().is_err());
        drop(directory.state_file);
        assert!(!crate::latch_tests::reopen(dir.path()).was_clean());
    }
}
