//! The walk over all segments at start: from files to a log that can be trusted, or to the reason why it
//! cannot.
//!
//! Pure: the files come as [`Blocks`], and nothing is written; a cut is returned for the caller to carry out.
//! The walk checks every byte that was ever flushed: headers, chains, hashes, padding, and that nothing
//! superseded a committed entry.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use crate::envelope::{Header, NotAnEnvelope};
use crate::id::{EntryId, LogIndex};
use crate::positions::{Placed, Position, Positions};
use crate::sector::{BLOCK, BLOCK_U64, SECTOR};
use crate::segment::{FIRST_OFFSET, HeaderProblem, Identity, Predecessor, SegmentHeader, segment_name};
use crate::state::StateRecord;
use crate::verdict::{Facts, Later, Mark, Remainder, Successor, Verdict, decide};
use crate::walk::{Blocks, Defect, Found, Window, envelope_at};
use std::io;

/// A segment file, under the number in its name.
#[derive(Debug)]
pub struct SegmentFile<B> {
    /// From the name.
    pub number: u64,
    /// The bytes.
    pub blocks: B,
}

/// A torn write to be overwritten with zeros before anything is appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Where the remains begin: where the log goes on.
    pub at: Position,
    /// The end of the last block that is not zero.
    pub until: u64,
    /// The sequence that did not complete.
    pub sequence: u64,
}

/// A log that passed.
#[derive(Clone, Debug)]
pub(crate) struct Scanned {
    /// Headers, ascending.
    pub segments: Vec<SegmentHeader>,
    pub positions: Positions,
    /// Where the next envelope goes, in the last of the segments (or beyond its end).
    pub offset: u64,
    pub sequence: u64,
    pub last: EntryId,
    pub commit: LogIndex,
    pub cut: Option<Cut>,
    pub envelopes: u64,
    pub superseded: u64,
    pub bytes: u64,
}

/// Why a log did not pass.
#[derive(Debug)]
pub enum Refused {
    /// Something that was durable is damaged or gone.
    Corrupt {
        /// The file's name in its directory.
        file: String,
        /// Where in it.
        offset: u64,
        /// What is wrong there.
        what: String,
    },
    /// Another program wrote it.
    Version {
        /// The file's name.
        file: String,
        /// Its format version.
        found: u32,
    },
    /// It belongs to another log.
    Foreign {
        /// The file's name.
        file: String,
        /// Whose it is.
        found: Identity,
    },
    /// The medium failed.
    Io {
        /// The file's name.
        file: String,
        /// How.
        source: io::Error,
    },
}

struct Walk<'a, B> {
    files: &'a [SegmentFile<B>],
    state: &'a StateRecord,
    found: Scanned,
    state_mark: u64,
}

/// Walks `files` (ascending by number) under the newest state record.
pub(crate) fn scan<B: Blocks>(files: &[SegmentFile<B>], state: &StateRecord) -> Result<Scanned, Refused> {
    let identity = state.identity;
    let headers = read_headers(files, state)?;
    let base = headers.first().map_or(identity.origin(), |header| header.predecessor.last);
    let found = Scanned {
        positions: Positions::new(base.index, Positions::SPACING),
        offset: FIRST_OFFSET,
        sequence: headers.first().map_or(0, |header| header.predecessor.sequence),
        last: base,
        commit: base.index,
        segments: headers,
        cut: None,
        envelopes: 0,
        superseded: 0,
        bytes: 0,
    };
    let mut walk = Walk { files, state, found, state_mark: 0 };
    for at in 0..files.len() {
        walk.segment(at)?;
    }
    walk.finish()
}

pub(crate) fn corrupt(file: impl Into<String>, offset: u64, what: impl Into<String>) -> Refused {
    Refused::Corrupt { file: file.into(), offset, what: what.into() }
}

fn read_headers<B: Blocks>(
    files: &[SegmentFile<B>],
    state: &StateRecord,
) -> Result<Vec<SegmentHeader>, Refused> {
    let mut expected = state.first_segment;
    let mut headers = Vec::with_capacity(files.len());
    for file in files {
        let name = segment_name(file.number);
        let io = |source| Refused::Io { file: name.clone(), source };
        if file.number != expected {
            return Err(corrupt(segment_name(expected), 0, format!("the segment is missing before {name}")));
        }
        expected += 1;
        let length = file.blocks.length().map_err(io)?;
        if length < FIRST_OFFSET {
            return Err(corrupt(name, length, "the segment ends within its header"));
        }
        let block = file.blocks.read(0, BLOCK).map_err(io)?;
        let header = SegmentHeader::parse(&block, &state.identity).map_err(|problem| match problem {
            HeaderProblem::Damaged => corrupt(name.clone(), 0, "no copy of the segment's header is whole"),
            HeaderProblem::Version(found) => Refused::Version { file: name.clone(), found },
            HeaderProblem::Foreign(found) => Refused::Foreign { file: name.clone(), found },
            HeaderProblem::Impossible(what) => {
                corrupt(name.clone(), 0, format!("in the segment's header, {what}"))
            }
        })?;
        if header.number != file.number {
            return Err(corrupt(name, 0, format!("the file holds segment {}", header.number)));
        }
        if header.bytes != length {
            let what = format!("the segment was made with {} bytes and has {length}", header.bytes);
            return Err(corrupt(name, length.min(header.bytes), what));
        }
        headers.push(header);
    }
    if let Some(first) = headers.first().filter(|header| header.number == 1) {
        let start = Predecessor { sequence: 0, last: state.identity.origin() };
        if first.predecessor != start {
            return Err(corrupt(segment_name(1), 0, "the first segment does not begin the log"));
        }
    }
    if expected <= state.newest_segment {
        let what = format!("the segment is missing; the log reached segment {}", state.newest_segment);
        return Err(corrupt(segment_name(expected), 0, what));
    }
    Ok(headers)
}

impl<B: Blocks> Walk<'_, B> {
    fn segment(&mut self, at: usize) -> Result<(), Refused> {
        let header = self.found.segments[at];
        let name = segment_name(header.number);
        let io = |source| Refused::Io { file: name.clone(), source };
        let mut window = Window::new(&self.files[at].blocks, header.bytes);
        let mut offset = FIRST_OFFSET;
        let mut defect = None;
        while offset + BLOCK_U64 <= header.bytes {
            let expected = self.found.sequence + 1;
            match envelope_at(&mut window, &header, offset, Some(expected), |_| ()).map_err(io)? {
                Found::Whole(envelope) => {
                    self.envelope(&envelope, Position { segment: header.number, offset })?;
                    offset += envelope.disk_bytes();
                }
                Found::Not(Defect::Header(NotAnEnvelope::Version(found))) => {
                    return Err(Refused::Version { file: name, found: u32::from(found) });
                }
                Found::Not(found) => {
                    defect = Some(found);
                    break;
                }
            }
        }
        let (remainder, until) = remainder(&mut window, &header, offset).map_err(io)?;
        let facts = Facts {
            remainder,
            later: self.later(&mut window, &header, offset).map_err(io)?,
            successor: match self.found.segments.get(at + 1).map(|next| next.predecessor) {
                None => Successor::None,
                Some(Predecessor { sequence, last }) => {
                    if (sequence, last) == (self.found.sequence, self.found.last) {
                        Successor::ContinuesHere
                    } else {
                        Successor::Disagrees
                    }
                }
            },
            mark: if self.state.log_mark > self.found.sequence { Mark::Flushed } else { Mark::Silent },
        };
        self.found.offset = offset;
        match decide(facts) {
            Verdict::End | Verdict::Sealed => Ok(()),
            Verdict::Torn => {
                let at = Position { segment: header.number, offset };
                self.found.cut = Some(Cut { at, until, sequence: self.found.sequence + 1 });
                Ok(())
            }
            verdict @ (Verdict::DamagedInside
            | Verdict::LostTail
            | Verdict::MissingBeforeSuccessor
            | Verdict::Contradiction) => {
                let why = verdict.describe();
                let what = defect.map_or_else(|| why.to_owned(), |defect| format!("{defect}; {why}"));
                Err(corrupt(name, offset, what))
            }
        }
    }

    /// Takes a whole envelope into the log, if the log allows it.
    fn envelope(&mut self, envelope: &Header, at: Position) -> Result<(), Refused> {
        let refuse = |what: String| Err(corrupt(segment_name(at.segment), at.offset, what));
        let found = &self.found;
        let first = envelope.first_index();
        if first > found.last.index.next() {
            return refuse(format!("entry {first} follows entry {}", found.last.index));
        }
        if first <= found.commit {
            return refuse(format!("entry {first} replaces a committed one (up to {})", found.commit));
        }
        let previous = self.entry(envelope.previous.index)?;
        if previous != envelope.previous {
            return refuse(format!("entry {first} does not continue entry {}", previous.index));
        }
        let found = &mut self.found;
        found.superseded += (found.last.index.0 + 1).saturating_sub(first.0);
        found.positions.push(Placed { first, last: envelope.last.index, at, bytes: envelope.disk_bytes() });
        found.sequence = envelope.sequence;
        found.last = envelope.last;
        found.commit = found.commit.max(envelope.commit);
        found.envelopes += 1;
        found.bytes += envelope.disk_bytes();
        self.state_mark = self.state_mark.max(envelope.state_mark);
        Ok(())
    }

    /// The live entry at `index`, which is at most the last one: read again unless it is an end.
    fn entry(&self, index: LogIndex) -> Result<EntryId, Refused> {
        if index == self.found.last.index {
            return Ok(self.found.last);
        }
        let Some(located) = self.found.positions.locate(index) else {
            return Ok(self.found.segments[0].predecessor.last);
        };
        let at = usize::try_from(located.at.segment - self.found.segments[0].number)
            .expect("a segment that was read");
        let header = self.found.segments[at];
        let name = segment_name(header.number);
        let mut window = Window::new(&self.files[at].blocks, header.bytes);
        let mut offset = located.at.offset;
        loop {
            let mut id = None;
            let take = |frame: crate::Frame| {
                if frame.index() == index {
                    id = Some(frame.id());
                }
            };
            let found = envelope_at(&mut window, &header, offset, None, take)
                .map_err(|source| Refused::Io { file: name.clone(), source })?;
            match (found, id) {
                (Found::Whole(_), Some(id)) => return Ok(id),
                (Found::Whole(envelope), None) if offset + envelope.disk_bytes() < header.bytes => {
                    offset += envelope.disk_bytes();
                }
                (Found::Whole(_) | Found::Not(_), _) => {
                    return Err(corrupt(name, offset, "an envelope changed while it was read"));
                }
            }
        }
    }

    /// Looks for envelopes after the one that does not stand at `offset`. A header in any sector counts for
    /// what it says; one that stands at a block counts also for where it stands.
    fn later(&self, window: &mut Window<&B>, header: &SegmentHeader, offset: u64) -> io::Result<Later> {
        let missing = self.found.sequence + 1;
        let mut later = Later::Nothing;
        let mut at = offset;
        while at + BLOCK_U64 <= header.bytes {
            let block = window.get(at, BLOCK)?;
            for sector in (0..BLOCK).step_by(SECTOR) {
                let Some(seen) = Header::sight(&block[sector..], header) else { continue };
                let displaced = seen.sequence == missing && sector == 0 && at > offset;
                if displaced || (seen.sequence > missing && seen.log_mark >= missing) {
                    return Ok(Later::Flushed);
                }
                if seen.sequence > missing {
                    later = Later::InFlightTogether;
                }
            }
            at += BLOCK_U64;
        }
        Ok(later)
    }

    /// What only the whole log can tell.
    fn finish(mut self) -> Result<Scanned, Refused> {
        let state = self.state;
        let name = crate::state::STATE_NAME;
        if self.state_mark > state.sequence {
            let what = format!("state record {} was flushed, as the log knows, and is gone", self.state_mark);
            return Err(corrupt(name, state.offset(), what));
        }
        if self.files.is_empty() && state.log_mark > 0 {
            return Err(corrupt(segment_name(1), 0, "the log is missing"));
        }
        if state.commit > self.found.last.index {
            let what = format!("entry {} was committed and flushed, and is not in the log", state.commit);
            return Err(corrupt(name, state.offset(), what));
        }
        assert!(self.found.last.index >= self.found.commit, "a commit mark never lies beyond its envelope");
        assert!(self.found.sequence >= state.log_mark, "the table refuses a lost tail");
        assert_eq!(self.found.last.index, self.found.positions.last(), "the map follows the walk");
        self.found.commit = self.found.commit.max(state.commit);
        Ok(self.found)
    }
}

/// What follows `offset`, and the end of the last block that is not zero.
fn remainder<B: Blocks>(
    window: &mut Window<B>,
    header: &SegmentHeader,
    offset: u64,
) -> io::Result<(Remainder, u64)> {
    let mut until = offset;
    let mut at = offset;
    while at < header.bytes {
        if window.get(at, BLOCK)?.iter().any(|&byte| byte != 0) {
            until = at + BLOCK_U64;
        }
        at += BLOCK_U64;
    }
    let remainder = match (offset < header.bytes, until > offset) {
        (false, _) => Remainder::Full,
        (true, false) => Remainder::Blank,
        (true, true) => Remainder::Remains,
    };
    Ok((remainder, until))
}
