//! The writer for Linux: direct writes and their flushes, and a loop that sleeps in one ring.
//!
//! The same [`Journal`] as the portable writer plans; here its steps become stores. One write is in flight, the next gathers
//! meanwhile. The image is copied once, from the frames into one of two aligned buffers that are used again and again, while
//! the write before is on its way if there is one.
//!
//! A thread stores ([`Strategy::Thread`]); the ring can, too, and does so only when told: see [`Flusher`] for the reason and
//! `benches/README.md` for the figures. Registered files and buffers are not used: measured, they are worth nothing.

use super::buffer::Buffer;
use super::flusher::{Flusher, ThreadGone};
use super::gathering::Gathering;
use super::ring::{Failure, Finished, JobId, Ring};
use super::{Caching, Refusal, StartError, make_direct, set_caching};
use crate::directory::{Claimed, relock};
use crate::error::LogError;
use crate::id::LogIndex;
use crate::journal::{Journal, Step};
use crate::open::Directory;
use crate::plan::{Fetch, FetchError, LogEvent, LogStats, WritePlan};
use crate::reading::Read;
use crate::sector::BLOCK;
use crate::segment::{FIRST_OFFSET, SegmentHeader, segment_name};
use crate::segments::Preparer;
use crate::state::STATE_NAME;
use bytes::Bytes;
use crossbeam::channel::TryRecvError;
use rustix::event::{EventfdFlags, eventfd};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

/// The Linux writer. See [`WritePlan`] for what goes in and [`LogEvent`] for what comes out. Give every call
/// the ring that it was started with.
pub struct UringLog {
    journal: Journal,
    segment: Arc<File>,
    state: Arc<File>,
    /// What of the write in flight is not finished.
    writing: Writing,
    reading: Option<(JobId, Read)>,
    gathering: Gathering,
    /// Buffers that are not in flight.
    envelope_buffer: Option<Buffer>,
    state_buffer: Option<Buffer>,
    /// The thread that stores, unless the ring does.
    flusher: Option<Flusher>,
    preparer: Preparer,
    /// Rung by both threads.
    bell: Arc<OwnedFd>,
    rotating: bool,
    /// Last, so that the lock is released after the preparer is gone. Files in flight carry locks of their
    /// own.
    held: Claimed,
}

/// Who writes and flushes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// The ring: a direct write, linked to its flush.
    Linked,
    /// A thread of its own, blocking.
    Thread,
}

#[derive(Default)]
struct Writing {
    envelope: Option<JobId>,
    state: Option<JobId>,
}

impl std::fmt::Debug for UringLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UringLog").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

fn open_segment(directory: &Path, number: u64) -> Result<File, Refusal> {
    let name = segment_name(number);
    let file = OpenOptions::new().read(true).write(true).open(directory.join(&name));
    let file = file
        .and_then(|file| relock(&file).map(|()| file))
        .map_err(|error| Refusal::Log(LogError::io("opening", name.clone(), &error)))?;
    make_direct(&file, &name)?;
    Ok(file)
}

fn log_error(what: &'static str, file: &str) -> impl Fn(io::Error) -> Refusal {
    move |error| Refusal::Log(LogError::io(what, file, &error))
}

/// Everything that can be refused, before anything is taken from the directory.
fn probe(directory: &Directory, ring: &mut Ring) -> Result<(File, Preparer, Arc<OwnedFd>), Refusal> {
    let expected = directory.tail.segments.last().expect("open makes a segment");
    let segment = open_segment(&directory.held.path, expected.number)?;
    make_direct(&directory.state_file, STATE_NAME)?;
    let name = segment_name(expected.number);
    let direct = |what: String| Refusal::Direct { file: name.clone(), what };
    let mut buffer = Buffer::default();
    buffer.resize(BLOCK);
    let clone = segment.try_clone().map_err(log_error("opening", &name))?;
    let id = ring.load(Arc::new(clone), buffer, 0);
    let finished = loop {
        match ring.poll_finished() {
            Some(finished) if finished.id == id => break finished,
            Some(_) => {}
            None => ring.wait(None).map_err(Refusal::ring)?,
        }
    };
    finished.result.map_err(|Failure { errno, .. }| direct(io::Error::from(errno).to_string()))?;
    match SegmentHeader::parse(finished.buffer.as_ref(), &expected.identity) {
        Ok(header) if header == *expected => {}
        Ok(_) | Err(_) => return Err(direct("a direct read brings other bytes than were written".into())),
    }
    let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(io::Error::from);
    let bell = Arc::new(bell.map_err(log_error("making", "an eventfd"))?);
    let rung = Arc::clone(&bell);
    let ring_bell = move || {
        // It fails only when 2^64 - 2 rings were not answered.
        let _ = rustix::io::write(&*rung, &1_u64.to_le_bytes());
    };
    let maker = directory.maker().map_err(log_error("opening", "the directory"))?;
    let preparer = Preparer::start(maker, ring_bell).map_err(Refusal::Log)?;
    Ok((segment, preparer, bell))
}

impl UringLog {
    /// Starts the writer on a ring.
    ///
    /// # Errors
    /// [`StartError`] says what was refused and gives the directory back.
    pub fn start(directory: Directory, ring: &mut Ring) -> Result<Self, StartError> {
        Self::start_with(directory, ring, Strategy::Thread)
    }

    /// For the benchmark: with this strategy, whatever is best.
    ///
    /// # Errors
    /// As [`UringLog::start`].
    #[doc(hidden)]
    pub fn start_with(directory: Directory, ring: &mut Ring, strategy: Strategy) -> Result<Self, StartError> {
        let started = probe(&directory, ring).and_then(|(segment, preparer, bell)| {
            let flusher =
                (strategy == Strategy::Thread).then(|| Flusher::start(Arc::clone(&bell))).transpose();
            Ok((segment, preparer, bell, flusher.map_err(log_error("starting", "the log's thread"))?))
        });
        let (segment, preparer, bell, flusher) = match started {
            Ok(parts) => parts,
            Err(refusal) => {
                // The portable writer goes on with this handle and writes from anywhere in memory.
                let _ = set_caching(&directory.state_file, Caching::Used);
                return Err(StartError { refusal, directory: Some(Box::new(directory)) });
            }
        };
        // A log that was dropped in the middle of something may still be watching its bell.
        ring.unwatch_log();
        ring.watch_log(bell.as_fd());
        let Directory { held, state_file, tail } = directory;
        Ok(Self {
            journal: Journal::new(tail),
            segment: Arc::new(segment),
            state: Arc::new(state_file),
            writing: Writing::default(),
            reading: None,
            gathering: Gathering::default(),
            envelope_buffer: Some(Buffer::default()),
            state_buffer: Some(Buffer::default()),
            flusher,
            preparer,
            bell,
            rotating: false,
            held,
        })
    }

    /// Queues a plan. Nothing happens before [`UringLog::kick`].
    ///
    /// # Panics
    /// If the plan breaks the rules of [`WritePlan`].
    pub fn submit(&mut self, plan: WritePlan) {
        if self.journal.latch().is_none() {
            self.gathering.stage(&plan);
        }
        self.journal.submit(plan);
    }

    /// Queues the next write on the ring, if none is in flight; all queued plans that can share it do. The
    /// kernel sees it with the ring's next [`Ring::submit`] or [`Ring::wait`].
    pub fn kick(&mut self, ring: &mut Ring) {
        while let Some(segment) = self.journal.poll_dropped() {
            self.preparer.retire(segment);
        }
        if let Some(bytes) = self.journal.poll_spare() {
            self.preparer.prepare(bytes);
        }
        let step = self.journal.poll_step();
        self.carry_out(step, ring);
        self.read(ring);
    }

    fn carry_out(&mut self, step: Step, ring: &mut Ring) {
        match step {
            Step::Nothing => {}
            Step::Rotate(next) => {
                assert!(!self.rotating, "one segment is asked for at a time");
                self.rotating = true;
                self.preparer.make(next);
            }
            Step::Write { envelope, state } => {
                assert!(self.writing.is_done(), "one write is in flight");
                assert!(envelope.is_some() || state.is_some(), "a write writes something");
                if let Some(extent) = envelope {
                    assert!(extent.at.offset >= FIRST_OFFSET, "a header is never written over");
                    let other = self.envelope_buffer.take().expect("free when nothing is in flight");
                    let (mut buffer, staged) = self.gathering.take(extent.bytes, other);
                    self.journal.fill_around(buffer.as_mut(), staged);
                    let segment = Arc::clone(&self.segment);
                    self.writing.envelope = Some(self.store(ring, segment, buffer, extent.at.offset));
                    self.journal.queued().for_each(|plan| self.gathering.stage(plan));
                }
                if let Some(offset) = state {
                    assert!(offset == 0 || offset == BLOCK as u64, "one of the two slots");
                    let mut buffer = self.state_buffer.take().expect("free when nothing is in flight");
                    buffer.resize(BLOCK);
                    self.journal.fill_state(buffer.as_mut());
                    let file = Arc::clone(&self.state);
                    self.writing.state = Some(self.store(ring, file, buffer, offset));
                }
            }
        }
    }

    fn store(&mut self, ring: &mut Ring, file: Arc<File>, buffer: Buffer, offset: u64) -> JobId {
        match &mut self.flusher {
            None => ring.store(file, buffer, offset),
            Some(flusher) => {
                let id = ring.name_job();
                flusher.store(id, file, buffer, offset);
                id
            }
        }
    }

    fn read(&mut self, ring: &mut Ring) {
        if self.reading.is_some() {
            return;
        }
        if let Some(read) = self.journal.poll_read() {
            self.start_read(read, ring);
        }
    }

    fn start_read(&mut self, read: Read, ring: &mut Ring) {
        assert!(self.reading.is_none(), "one read is outstanding");
        let mut next = Some(read);
        while let Some(read) = next.take() {
            let name = segment_name(read.at.segment);
            let opened = File::open(self.held.path.join(&name));
            match opened.and_then(|file| set_caching(&file, Caching::Bypassed).map(|()| file)) {
                Ok(file) => {
                    let mut buffer = Buffer::default();
                    buffer.resize(read.length);
                    self.reading = Some((ring.load(Arc::new(file), buffer, read.at.offset), read));
                }
                Err(error) => {
                    let error = FetchError::Io { file: name, what: error.to_string() };
                    next = self.journal.handle_read(Err(error));
                }
            }
        }
    }

    /// The next event; never blocks.
    pub fn poll(&mut self, ring: &mut Ring) -> Option<LogEvent> {
        if ring.poll_log_ready() {
            // Before what it was rung for is looked at, so that no later ring is missed.
            self.hush(ring);
        }
        while let Some(finished) = ring.poll_finished() {
            self.take(finished, ring);
        }
        self.take_stored(ring);
        if self.rotating {
            self.take_segment(ring);
        }
        self.journal.poll_event()
    }

    /// Answers the bell, and watches on.
    fn hush(&self, ring: &mut Ring) {
        // Empty only if it was read before, which is as good.
        let _ = rustix::io::read(&*self.bell, &mut [0; 8]);
        ring.watch_log(self.bell.as_fd());
    }

    fn take_stored(&mut self, ring: &mut Ring) {
        while let Some(flusher) = &mut self.flusher {
            match flusher.poll() {
                Ok(None) => return,
                Ok(Some(finished)) => self.take(finished, ring),
                Err(ThreadGone) => {
                    let error = LogError::Thread("it ended before the log was closed");
                    return self.journal.handle_failed(error);
                }
            }
        }
    }

    fn take(&mut self, finished: Finished, ring: &mut Ring) {
        let Finished { id, buffer, result } = finished;
        if let Some((_, read)) = self.reading.take_if(|(reading, _)| *reading == id) {
            let file = segment_name(read.at.segment);
            let result = match result {
                Ok(()) => Ok(Bytes::from_owner(buffer)),
                Err(Failure { errno, .. }) => {
                    Err(FetchError::Io { file, what: io::Error::from(errno).to_string() })
                }
            };
            match self.journal.handle_read(result) {
                Some(read) => self.start_read(read, ring),
                None => self.read(ring),
            }
            return;
        }
        let file = if self.writing.envelope.take_if(|writing| *writing == id).is_some() {
            self.envelope_buffer = Some(buffer);
            "the log"
        } else if self.writing.state.take_if(|writing| *writing == id).is_some() {
            self.state_buffer = Some(buffer);
            STATE_NAME
        } else {
            // A read of an earlier log on this ring.
            return;
        };
        if let Err(Failure { what, errno }) = result {
            self.journal.handle_failed(LogError::io(what, file, &errno.into()));
        }
        if self.writing.is_done() && self.journal.latch().is_none() {
            self.journal.handle_written();
        }
    }

    fn take_segment(&mut self, ring: &mut Ring) {
        assert!(self.writing.is_done(), "nothing is written while a segment is made");
        let header = match self.preparer.made().try_recv() {
            Ok(made) => made,
            Err(TryRecvError::Empty) => return,
            Err(TryRecvError::Disconnected) => Err(LogError::Thread("the one that makes segments is gone")),
        };
        self.rotating = false;
        let begun = header.and_then(|header| match open_segment(&self.held.path, header.number) {
            Ok(file) => Ok((header, file)),
            Err(Refusal::Log(error)) => Err(error),
            Err(refusal) => {
                Err(LogError::io("opening", segment_name(header.number), &io::Error::other(refusal)))
            }
        });
        match begun {
            Ok((header, file)) => {
                self.segment = Arc::new(file);
                self.journal.handle_rotated(header);
                // What waited for the segment does not wait for the loop's next turn, which nothing may bring
                // about.
                self.kick(ring);
            }
            Err(error) => self.journal.handle_failed(error),
        }
    }

    /// Asks for old entries; the answer comes as an event.
    pub fn fetch(&mut self, ring: &mut Ring, fetch: Fetch) {
        self.journal.fetch(fetch);
        self.read(ring);
    }

    /// Entries below `index` are not needed any more, because a durable snapshot replaces them: whole segments go, in the
    /// background, once the commit mark on disk covers them. Whoever fetches one then is told that it is missing.
    pub fn drop_below(&mut self, ring: &mut Ring, index: LogIndex) {
        self.journal.drop_below(index);
        self.kick(ring);
    }

    /// Whether [`UringLog::mark`] would write anything.
    #[must_use]
    pub fn mark_owed(&self) -> bool {
        self.journal.mark_owed()
    }

    /// For the loop's timer, when the log has been idle for a second or so: writes how far the log is flushed, so that
    /// later damage to its very end is not taken for a torn write. One small write and flush; nothing if it is not owed.
    pub fn mark(&mut self, ring: &mut Ring) {
        self.journal.mark();
        self.kick(ring);
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
    pub fn close(mut self, ring: &mut Ring) -> Result<(), LogError> {
        let result = self.drain(ring);
        ring.unwatch_log();
        // Without this the kernel would keep the bell until the ring's next turn.
        let _ = ring.submit();
        result
    }

    fn drain(&mut self, ring: &mut Ring) -> Result<(), LogError> {
        loop {
            self.kick(ring);
            while self.poll(ring).is_some() {}
            if let Some(error) = self.journal.latch() {
                return Err(error.clone());
            }
            match self.journal.poll_close() {
                Some(step) => self.carry_out(step, ring),
                None if self.journal.is_idle() => return Ok(()),
                None => {}
            }
            // With nothing in the kernel's hands (its last answer was just taken), there is a next step and no end
            // to a sleep.
            if !self.writing.is_done() || self.reading.is_some() || self.rotating {
                ring.wait(None).map_err(|error| LogError::io("waiting for", "the ring", &error))?;
            }
        }
    }
}

impl Writing {
    fn is_done(&self) -> bool {
        self.envelope.is_none() && self.state.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::latch_tests::{expect_latched, open_new, plan_of, reopen};

    fn ring() -> Option<Ring> {
        Ring::new(16).inspect_err(|error| eprintln!("SKIPPED: {error}")).ok()
    }

    #[test]
    fn after_a_failed_write_nothing_is_acknowledged() {
        let Some(mut ring) = ring() else { return };
        let (dir, directory) = open_new();
        let mut previous = directory.tail.last;
        let mut log = UringLog::start(directory, &mut ring).expect("a ring");
        // Writing to it fails, as on a disk that is gone.
        let broken = File::open(dir.path().join(segment_name(1))).expect("there");
        set_caching(&broken, Caching::Bypassed).expect("it was possible");
        let whole = std::mem::replace(&mut log.segment, Arc::new(broken));
        let mut events = Vec::new();
        for n in 1..4 {
            log.submit(plan_of(n, &mut previous));
            log.kick(&mut ring);
            while n == 1 && events.is_empty() {
                ring.wait(None).expect("a completion");
                events.extend(log.poll(&mut ring));
            }
            events.extend(std::iter::from_fn(|| log.poll(&mut ring)));
            // The latch is the process's, not the file's.
            log.segment = Arc::clone(&whole);
        }
        expect_latched(events);
        assert!(log.close(&mut ring).is_err());
        drop(whole);
        assert!(!reopen(dir.path()).was_clean());
    }

    #[test]
    fn a_close_writes_what_waits_behind_a_write_in_flight() {
        let Some(mut ring) = ring() else { return };
        let (dir, directory) = open_new();
        let mut previous = directory.tail.last;
        let mut log = UringLog::start(directory, &mut ring).expect("a ring");
        log.submit(plan_of(1, &mut previous));
        log.kick(&mut ring);
        log.submit(plan_of(2, &mut previous));
        log.close(&mut ring).expect("closed in order");
        let opened = reopen(dir.path());
        assert!(opened.was_clean());
        assert_eq!(opened.last(), previous);
    }

    #[test]
    fn a_refused_start_gives_the_directory_back_for_the_portable_writer() {
        let Some(mut ring) = ring() else { return };
        let (dir, mut directory) = open_new();
        let header = *directory.tail.segments.last().expect("one");
        // As if the direct read brought other bytes than the page cache.
        directory.tail.segments[0].nonce ^= 1;
        let refused = UringLog::start(directory, &mut ring).expect_err("another header is there");
        assert!(matches!(refused.refusal(), Refusal::Direct { .. }), "{refused}");
        let mut directory = refused.into_directory().expect("it comes back");
        directory.tail.segments[0] = header;
        let mut previous = directory.tail.last;
        let mut log = crate::PortableLog::start(directory, || ()).expect("it starts");
        log.submit(plan_of(1, &mut previous));
        log.close().expect("it writes");
        let recovered = reopen(dir.path());
        assert_eq!((recovered.last(), recovered.was_clean()), (previous, true));
    }

    #[test]
    fn the_ring_sleeps_again_after_a_new_segment_and_serves_a_second_log() {
        let Some(mut ring) = ring() else { return };
        let (dir, directory) = open_new();
        let mut previous = directory.tail.last;
        let mut log = UringLog::start(directory, &mut ring).expect("a ring");
        // The first segment holds 15 blocks; the log is dropped while it waits for the third.
        for n in 1..=31 {
            log.submit(plan_of(n, &mut previous));
            log.kick(&mut ring);
            while n < 31 && log.poll(&mut ring).is_none() {
                ring.wait(None).expect("a completion");
            }
        }
        assert!(log.rotating);
        drop(log);
        let directory = crate::open(crate::latch_tests::options(dir.path())).expect("whole").directory;
        let mut previous = directory.tail.last;
        let mut log = UringLog::start(directory, &mut ring).expect("a ring");
        for n in 1..=20 {
            log.submit(plan_of(n, &mut previous));
            log.kick(&mut ring);
            while log.poll(&mut ring).is_none() {
                ring.wait(None).expect("a completion");
            }
        }
        assert!(log.stats().segments >= 1, "the second log got its segment");
        ring.submit().expect("taken");
        let (time, start) = (std::time::Duration::from_millis(50), std::time::Instant::now());
        let mut returns = 0;
        while start.elapsed() < time {
            ring.wait(Some(time - start.elapsed())).expect("it sleeps");
            assert!(log.poll(&mut ring).is_none(), "nothing was asked for");
            returns += 1;
        }
        assert!(returns < 5, "woken {returns} times for nothing");
        log.close(&mut ring).expect("clean");
    }

    #[test]
    fn dropping_a_log_and_its_ring_in_the_middle_of_a_write_is_safe() {
        let Some(mut ring) = ring() else { return };
        let (dir, directory) = open_new();
        let mut previous = directory.tail.last;
        let before = previous;
        let mut log = UringLog::start(directory, &mut ring).expect("a ring");
        log.submit(plan_of(1, &mut previous));
        log.kick(&mut ring);
        ring.submit().expect("it is taken");
        drop(log);
        drop(ring);
        // Not acknowledged, so both are right; the lock on the file makes the next opening wait for the
        // write.
        let last = reopen(dir.path()).last();
        assert!(last == before || last == previous);
    }
}
