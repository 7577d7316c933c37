//! What an open found: the hard state, the ends of the log, and its entries as a stream.

use crate::damage::{Damaged, Place};
use crate::entries::entries;
use crate::error::OpenError;
use crate::frame::Frame;
use crate::id::{EntryId, HardState, LogIndex};
use crate::journal::Tail;
use crate::opening::Opening;
use crate::scan::Cut;
use crate::segment::segment_name;
use crate::state::Held;
use crate::walk::Blocks;
use bytes::Bytes;
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
    /// Damage to what was durable, if there was any: it is repaired as far as this log alone can do that.
    pub damaged: Option<Damaged>,
    /// What may be missing of this log, from this repair or an earlier one.
    pub held: Option<Held>,
    /// Whether the directory had been closed cleanly.
    pub clean: bool,
    /// The last entry.
    pub last: EntryId,
}

impl RecoveryReport {
    pub(crate) fn new(opening: &Opening, path: &Path) -> Self {
        let scanned = opening.scanned();
        Self {
            path: path.into(),
            segments: scanned.segments.len(),
            envelopes: scanned.envelopes,
            bytes: scanned.bytes,
            superseded: scanned.superseded,
            cut: scanned.cut,
            damaged: scanned.damaged.clone(),
            held: opening.held(),
            clean: opening.was_clean(),
            last: scanned.last,
        }
    }
}

impl std::fmt::Display for RecoveryReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { path, segments, envelopes, bytes, superseded, cut, damaged, held, clean, last } = self;
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
        if let Some(Damaged { place: Place { file, offset, what }, aside, .. }) = damaged {
            write!(f, "; DAMAGED: {file} at byte {offset}: {what}; the log is kept up to there")?;
            let kept = aside.iter().map(|&number| segment_name(number)).chain([file.clone()]);
            let kept: std::collections::BTreeSet<_> = kept.filter(|name| name.ends_with(".seg")).collect();
            write!(f, ", the rest is kept for people as {}", Vec::from_iter(kept).join(".damaged, "))?;
            write!(f, ".damaged as far as it can be read")?;
        }
        if let Some(held) = held {
            write!(f, "; this node may have held {held}: it votes only for candidates that have it, ")?;
            write!(f, "and catches up from its peers")?;
        }
        Ok(())
    }
}

/// What was found.
#[derive(Debug)]
pub struct Recovered {
    path: PathBuf,
    tail: Tail,
    report: RecoveryReport,
}

impl Recovered {
    pub(crate) fn new(tail: Tail, report: RecoveryReport, path: PathBuf) -> Self {
        assert!(!tail.segments.is_empty(), "an opened log has a segment");
        assert!(tail.commit <= tail.last.index, "what is committed is in the log");
        assert!(tail.state.hard_state.term >= tail.last.term, "the term is at least the last entry's");
        Self { path, tail, report }
    }

    /// Term and vote; the term is at least the last entry's.
    #[must_use]
    pub fn hard_state(&self) -> HardState {
        self.tail.state.hard_state
    }

    /// The newest commit index found. The true one may be higher.
    #[must_use]
    pub fn commit(&self) -> LogIndex {
        self.tail.commit
    }

    /// The last entry.
    #[must_use]
    pub fn last(&self) -> EntryId {
        self.tail.last
    }

    /// The entry before the first one on disk: where the log begins.
    #[must_use]
    pub fn base(&self) -> EntryId {
        self.tail.base()
    }

    /// The first index on disk; above [`Recovered::last`] when the log is empty.
    #[must_use]
    pub fn first_index(&self) -> LogIndex {
        self.tail.positions.first()
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

    /// What this log may have held beyond what is left of it: see [`Held`]. `None` if nothing is missing.
    /// Kept over restarts until a plan says [`WritePlan::whole`](crate::WritePlan::whole).
    #[must_use]
    pub fn held(&self) -> Option<Held> {
        self.tail.state.held
    }

    /// Every live entry in order; superseded ones are skipped. Reads one envelope at a time. After an error
    /// it ends.
    pub fn frames(&mut self) -> impl Iterator<Item = Result<Frame, OpenError>> + '_ {
        let path = &self.path;
        entries(&self.tail, |number| SegmentPath::new(path.join(segment_name(number))))
            .map(|entry| entry.map_err(|refused| refused.at(path)))
    }
}
