//! What an open found: the hard state, the ends of the log, and its entries as a stream.

use crate::error::OpenError;
use crate::frame::Frame;
use crate::id::{EntryId, HardState, LogIndex};
use crate::journal::Tail;
use crate::positions::Positions;
use crate::scan::{Cut, Scanned};
use crate::segment::{SegmentHeader, segment_name};
use crate::walk::{Blocks, Defect, Found, Window, envelope_at};
use bytes::Bytes;
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// A segment that is opened for each read, so that a long log does not need a descriptor for each file.
#[derive(Debug)]
pub(crate) struct SegmentPath(PathBuf);

impl SegmentPath {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self(path)
    }
}

impl Blocks for SegmentPath {
    fn length(&self) -> io::Result<u64> {
        Ok(std::fs::metadata(&self.0)?.len())
    }

    fn read(&self, offset: u64, length: usize) -> io::Result<Bytes> {
        let mut bytes = vec![0; length];
        File::open(&self.0)?.read_exact_at(&mut bytes, offset)?;
        Ok(bytes.into())
    }
}

/// What was found, for one line of the log.
#[derive(Clone, Debug)]
pub struct RecoveryReport {
    /// The directory.
    pub path: PathBuf,
    /// Segments read.
    pub segments: usize,
    /// Whole envelopes.
    pub envelopes: u64,
    /// Their bytes, padding included.
    pub bytes: u64,
    /// Entries that a later envelope replaced.
    pub superseded: u64,
    /// The last write, if it was torn.
    pub cut: Option<Cut>,
    /// Whether the directory had been closed cleanly.
    pub clean: bool,
    /// The last entry.
    pub last: EntryId,
}

impl RecoveryReport {
    pub(crate) fn new(scanned: &Scanned, clean: bool, path: &Path) -> Self {
        Self {
            path: path.into(),
            segments: scanned.segments.len(),
            envelopes: scanned.envelopes,
            bytes: scanned.bytes,
            superseded: scanned.superseded,
            cut: scanned.cut,
            clean,
            last: scanned.last,
        }
    }
}

impl std::fmt::Display for RecoveryReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { path, segments, envelopes, bytes, superseded, cut, clean, last } = self;
        let ended = if *clean { "closed cleanly" } else { "not closed" };
        write!(f, "{}: {ended}; last entry {} of term {}", path.display(), last.index, last.term)?;
        write!(f, "; {bytes} bytes in {envelopes} writes and {segments} segments")?;
        if *superseded > 0 {
            write!(f, "; {superseded} entries superseded")?;
        }
        if let Some(Cut { at, until, sequence }) = cut {
            let name = segment_name(at.segment);
            write!(
                f,
                "; write {sequence} was torn: {} bytes cut at byte {} of {name}",
                until - at.offset,
                at.offset
            )?;
        }
        Ok(())
    }
}

/// What was found.
#[derive(Debug)]
pub struct Recovered {
    path: PathBuf,
    hard_state: HardState,
    commit: LogIndex,
    last: EntryId,
    segments: Vec<SegmentHeader>,
    positions: Positions,
    report: RecoveryReport,
}

impl Recovered {
    pub(crate) fn new(tail: &Tail, report: RecoveryReport, path: PathBuf) -> Self {
        Self {
            path,
            hard_state: tail.state.hard_state,
            commit: tail.commit,
            last: tail.last,
            segments: tail.segments.clone(),
            positions: tail.positions.clone(),
            report,
        }
    }

    /// Term and vote; the term is at least the last entry's.
    #[must_use]
    pub fn hard_state(&self) -> HardState {
        self.hard_state
    }

    /// The newest commit index found. The true one may be higher.
    #[must_use]
    pub fn commit(&self) -> LogIndex {
        self.commit
    }

    /// The last entry.
    #[must_use]
    pub fn last(&self) -> EntryId {
        self.last
    }

    /// The entry before the first one on disk: where the log begins.
    #[must_use]
    pub fn base(&self) -> EntryId {
        self.segments[0].predecessor.last
    }

    /// The first index on disk; above [`Recovered::last`] when the log is empty.
    #[must_use]
    pub fn first_index(&self) -> LogIndex {
        self.positions.first()
    }

    /// Whether the directory had been closed cleanly, so that everything ever queued is there.
    #[must_use]
    pub fn was_clean(&self) -> bool {
        self.report.clean
    }

    /// For one line of the program's log.
    #[must_use]
    pub fn report(&self) -> &RecoveryReport {
        &self.report
    }

    /// Every live entry in order; superseded ones are skipped. Reads one envelope at a time. After an error
    /// it ends.
    pub fn frames(&mut self) -> impl Iterator<Item = Result<Frame, OpenError>> + '_ {
        Frames { log: self, previous: self.base(), reading: None, ready: VecDeque::new(), ended: false }
    }
}

struct Reading {
    segment: SegmentHeader,
    window: Window<SegmentPath>,
    offset: u64,
    until: LogIndex,
}

struct Frames<'a> {
    log: &'a Recovered,
    previous: EntryId,
    reading: Option<Reading>,
    ready: VecDeque<Frame>,
    ended: bool,
}

impl Frames<'_> {
    fn open(&self, index: LogIndex) -> Reading {
        let located = self.log.positions.locate(index).expect("an index up to the last one");
        let at = usize::try_from(located.at.segment - self.log.segments[0].number)
            .expect("a segment that was read");
        let segment = self.log.segments[at];
        let path = SegmentPath::new(self.log.path.join(segment_name(segment.number)));
        let window = Window::new(path, segment.bytes);
        Reading { segment, window, offset: located.at.offset, until: located.until }
    }

    /// Reads the next envelope.
    fn refill(&mut self) -> Result<(), OpenError> {
        let next = self.previous.index.next();
        let mut reading = match self.reading.take() {
            Some(reading) if next < reading.until => reading,
            _ => self.open(next),
        };
        let Reading { segment, offset, until, .. } = reading;
        let ready = &mut self.ready;
        let take = |frame: Frame| {
            if frame.index() >= next && frame.index() < until {
                ready.push_back(frame);
            }
        };
        let path = self.log.path.join(segment_name(segment.number));
        let corrupt = |what: String| OpenError::Corrupt { file: path.clone(), offset, what };
        if offset >= segment.bytes {
            return Err(corrupt(format!("the segment ends before entry {next}")));
        }
        let found = envelope_at(&mut reading.window, &segment, offset, None, take)
            .map_err(|error| OpenError::io("reading", &path, error))?;
        let header = match found {
            Found::Whole(header) => header,
            Found::Not(defect) => return Err(corrupt(changed(&defect))),
        };
        if let Some(first) = self.ready.front().filter(|first| !first.follows(self.previous)) {
            return Err(corrupt(format!("entry {} does not continue the one before it", first.index())));
        }
        reading.offset += header.disk_bytes();
        self.reading = Some(reading);
        Ok(())
    }
}

fn changed(defect: &Defect) -> String {
    format!("it was whole when the log was opened, and is not now: {defect}")
}

impl Iterator for Frames<'_> {
    type Item = Result<Frame, OpenError>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.ended {
            if let Some(frame) = self.ready.pop_front() {
                assert_eq!(frame.index(), self.previous.index.next(), "entries come in order");
                self.previous = frame.id();
                return Some(Ok(frame));
            }
            if self.previous.index >= self.log.last.index {
                assert_eq!(self.previous, self.log.last, "the stream ends where the log ends");
                break;
            }
            if let Err(error) = self.refill() {
                self.ended = true;
                return Some(Err(error));
            }
        }
        None
    }
}
