//! The walk over all segments at start: from files to a log that can be trusted, or to the reason why it
//! cannot.
//!
//! Pure: the files come as [`Blocks`], and nothing is written; a cut is returned for the caller to carry out.
//! The walk checks every byte that was ever flushed: headers, chains, hashes, padding, and that nothing
//! superseded a committed entry.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use crate::damage::{Damage, Damaged, Place, assess};
use crate::envelope::{Header, NotAnEnvelope};
use crate::id::{EntryId, LogIndex};
use crate::positions::{Placed, Position, Positions};
use crate::sector::{BLOCK, BLOCK_U64, SECTOR};
use crate::segment::{FIRST_OFFSET, HeaderProblem, Identity, Predecessor, SegmentHeader, segment_name};
use crate::state::{Held, StateRecord};
use crate::verdict::{Facts, Later, Mark, Remainder, Successor, Verdict, decide};
use crate::walk::{Blocks, Defect, Found, Window, envelope_at, is_damage};
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
    /// The greatest last entry it ever had.
    pub peak: Held,
    pub commit: LogIndex,
    pub cut: Option<Cut>,
    /// What was damaged, if that may be repaired: everything above is then the longest whole prefix.
    pub damaged: Option<Damaged>,
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

/// Why the walk ended early.
enum Stop {
    /// Nothing may be changed, whatever the rule for damage is.
    Refused(Refused),
    /// What was durable is damaged here.
    Damage(Place),
}

impl From<Refused> for Stop {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

struct Walk<'a, B> {
    files: &'a [SegmentFile<B>],
    state: &'a StateRecord,
    found: Scanned,
    state_mark: u64,
    /// Segments that the walk has come to.
    entered: usize,
}

/// The segments' headers, as far as they are what they should be.
pub(crate) struct Headers {
    /// One for each file; `None` if it is damaged or another segment's.
    pub all: Vec<Option<SegmentHeader>>,
    /// Files whose length is not what their header says.
    misfits: Vec<Option<Place>>,
    /// How many are whole and dense from the first on.
    run: usize,
    /// What is wrong behind them.
    broken: Option<Place>,
}

/// Walks `files` (ascending by number) under the newest state record.
pub(crate) fn scan<B: Blocks>(
    files: &[SegmentFile<B>],
    state: &StateRecord,
    damage: Damage,
) -> Result<Scanned, Refused> {
    let headers = read_headers(files, state)?;
    let run: Vec<SegmentHeader> =
        headers.all.iter().copied().map_while(|header| header).take(headers.run).collect();
    assert_eq!(run.len(), headers.run, "the run of whole headers has no gap");
    let predecessor =
        run.first().map_or(Predecessor::of_new_log(&state.identity), |header| header.predecessor);
    let base = predecessor.last;
    let found = Scanned {
        positions: Positions::new(base.index, Positions::SPACING),
        offset: FIRST_OFFSET,
        sequence: predecessor.sequence,
        last: base,
        peak: predecessor.peak.max(base.into()),
        commit: base.index,
        segments: run,
        cut: None,
        damaged: None,
        envelopes: 0,
        superseded: 0,
        bytes: 0,
    };
    let mut walk = Walk { files, state, found, state_mark: 0, entered: 0 };
    match (walk.segments(&headers), damage) {
        (Ok(()), _) => walk.finish(),
        (Err(Stop::Refused(refused)), _) => Err(refused),
        (Err(Stop::Damage(place)), Damage::Refuse) => Err(place.refused()),
        (Err(Stop::Damage(place)), Damage::Repairable) => walk.keep_prefix(&headers, place),
    }
}

pub(crate) fn corrupt(file: impl Into<String>, offset: u64, what: impl Into<String>) -> Refused {
    Refused::Corrupt { file: file.into(), offset, what: what.into() }
}

fn read_headers<B: Blocks>(files: &[SegmentFile<B>], state: &StateRecord) -> Result<Headers, Refused> {
    let mut headers = Headers { all: Vec::new(), misfits: Vec::new(), run: 0, broken: None };
    let mut expected = state.first_segment;
    for file in files {
        let name = segment_name(file.number);
        assert!(file.number >= state.first_segment, "dropped segments are not read");
        if file.number != expected && headers.broken.is_none() {
            let what = format!("the segment is missing before {name}");
            headers.broken = Some(Place::new(segment_name(expected), 0, what));
        }
        expected = file.number + 1;
        let (header, misfit) = match read_header(file, state)? {
            Ok((header, misfit)) => (Some(header), misfit),
            Err(place) => {
                headers.broken.get_or_insert(place);
                (None, None)
            }
        };
        headers.all.push(header);
        headers.misfits.push(misfit);
        headers.run += usize::from(headers.broken.is_none());
    }
    if expected <= state.newest_segment && headers.broken.is_none() {
        let what = format!("the segment is missing; the log reached segment {}", state.newest_segment);
        headers.broken = Some(Place::new(segment_name(expected), 0, what));
    }
    Ok(headers)
}

type HeaderRead = Result<(SegmentHeader, Option<Place>), Place>;

fn read_header<B: Blocks>(file: &SegmentFile<B>, state: &StateRecord) -> Result<HeaderRead, Refused> {
    let name = segment_name(file.number);
    let io = |source| Refused::Io { file: name.clone(), source };
    let place = |offset, what: String| Place::new(name.clone(), offset, what);
    let length = file.blocks.length().map_err(io)?;
    if length < FIRST_OFFSET {
        return Ok(Err(place(length, "the segment ends within its header".into())));
    }
    let block = match file.blocks.read(0, BLOCK) {
        Ok(block) => block,
        Err(error) if is_damage(&error) => {
            return Ok(Err(place(0, format!("the segment's header cannot be read: {error}"))));
        }
        Err(error) => return Err(io(error)),
    };
    let header = match SegmentHeader::parse(&block, &state.identity) {
        Ok(header) => header,
        Err(HeaderProblem::Damaged) => {
            return Ok(Err(place(0, "no copy of the segment's header is whole".into())));
        }
        Err(HeaderProblem::Impossible(what)) => {
            return Ok(Err(place(0, format!("in the segment's header, {what}"))));
        }
        Err(HeaderProblem::Version(found)) => return Err(Refused::Version { file: name, found }),
        Err(HeaderProblem::Foreign(found)) => return Err(Refused::Foreign { file: name, found }),
    };
    if header.number != file.number {
        return Ok(Err(place(0, format!("the file holds segment {}", header.number))));
    }
    if header.number == 1 && header.predecessor != Predecessor::of_new_log(&state.identity) {
        return Err(corrupt(name, 0, "the first segment does not begin the log"));
    }
    let misfit = (header.bytes != length).then(|| {
        let what = format!("the segment was made with {} bytes and has {length}", header.bytes);
        place(length.min(header.bytes), what)
    });
    Ok(Ok((header, misfit)))
}

/// What stands behind the last whole envelope of a segment.
struct Rest {
    remainder: Remainder,
    /// The end of the last block that is not zero.
    until: u64,
    later: Later,
    unreadable: bool,
}

impl<B: Blocks> Walk<'_, B> {
    fn segments(&mut self, headers: &Headers) -> Result<(), Stop> {
        for at in 0..headers.run {
            self.segment(at, headers)?;
        }
        match &headers.broken {
            Some(place) => Err(Stop::Damage(place.clone())),
            None => Ok(()),
        }
    }

    fn segment(&mut self, at: usize, headers: &Headers) -> Result<(), Stop> {
        let header = self.found.segments[at];
        let name = segment_name(header.number);
        let io = |source| Refused::Io { file: name.clone(), source };
        let mut window = Window::new(&self.files[at].blocks, header.bytes);
        let mut offset = FIRST_OFFSET;
        let mut defect = None;
        self.found.offset = offset;
        self.entered = at + 1;
        while offset + BLOCK_U64 <= header.bytes {
            let expected = self.found.sequence + 1;
            match envelope_at(&mut window, &header, offset, Some(expected), |_| ()).map_err(io)? {
                Found::Whole(envelope) => {
                    self.envelope(&envelope, Position { segment: header.number, offset })?;
                    offset += envelope.disk_bytes();
                    self.found.offset = offset;
                }
                Found::Not(Defect::Header(NotAnEnvelope::Version(found))) => {
                    return Err(Refused::Version { file: name, found: u32::from(found) }.into());
                }
                Found::Not(found) => {
                    defect = Some(found);
                    break;
                }
            }
        }
        if crate::mutant!("zero_is_end") && defect == Some(Defect::Header(NotAnEnvelope::Blank)) {
            return Ok(());
        }
        let rest = self.rest(&mut window, &header, offset).map_err(io)?;
        let why = |why: &str| {
            let what = defect.as_ref().map_or_else(|| why.to_owned(), |defect| format!("{defect}; {why}"));
            Stop::Damage(Place::new(name.clone(), offset, what))
        };
        if let Some(misfit) = &headers.misfits[at] {
            return Err(Stop::Damage(misfit.clone()));
        }
        if rest.unreadable {
            return Err(why("blocks behind the last whole write cannot be read"));
        }
        if at + 1 == headers.run && headers.broken.is_some() {
            // The following segment was begun, so everything here was flushed; it cannot say where this one ended.
            let ended = rest.remainder != Remainder::Remains;
            return if ended { Ok(()) } else { Err(why("a later segment was begun")) };
        }
        let facts = Facts {
            remainder: rest.remainder,
            later: rest.later,
            successor: match self.found.segments.get(at + 1).map(|next| next.predecessor) {
                None => Successor::None,
                Some(Predecessor { sequence, last, .. }) => {
                    if (sequence, last) == (self.found.sequence, self.found.last) {
                        Successor::ContinuesHere
                    } else {
                        Successor::Disagrees
                    }
                }
            },
            mark: if self.state.log_mark > self.found.sequence { Mark::Flushed } else { Mark::Silent },
        };
        match decide(facts) {
            Verdict::End | Verdict::Sealed => Ok(()),
            Verdict::Torn => {
                self.cut(header, offset, rest.until);
                Ok(())
            }
            Verdict::DamagedInside | Verdict::LostTail
                if crate::mutant!("torn_means_any_damage") && facts.successor == Successor::None =>
            {
                self.cut(header, offset, rest.until);
                Ok(())
            }
            verdict @ (Verdict::DamagedInside
            | Verdict::LostTail
            | Verdict::MissingBeforeSuccessor
            | Verdict::Contradiction) => Err(why(verdict.describe())),
        }
    }

    fn cut(&mut self, header: SegmentHeader, offset: u64, until: u64) {
        assert!(self.found.cut.is_none(), "only the last write of the last segment can be torn");
        assert!(offset >= FIRST_OFFSET && until <= header.bytes, "a cut stays within its segment");
        let at = Position { segment: header.number, offset };
        self.found.cut = Some(Cut { at, until, sequence: self.found.sequence + 1 });
    }

    /// Takes a whole envelope into the log, if the log allows it.
    fn envelope(&mut self, envelope: &Header, at: Position) -> Result<(), Stop> {
        let place = |what: String| Place::new(segment_name(at.segment), at.offset, what);
        let found = &self.found;
        let first = envelope.first_index();
        if first > found.last.index.next() {
            return Err(Stop::Damage(place(format!("entry {first} follows entry {}", found.last.index))));
        }
        if first <= found.commit {
            // No damage makes that: a writer broke its promise, and no repair can know which entries are right.
            let what = format!("entry {first} replaces a committed one (up to {})", found.commit);
            return Err(place(what).refused().into());
        }
        let previous = self.entry(envelope.previous.index)?;
        if previous != envelope.previous {
            let what = format!("entry {first} does not continue entry {}", previous.index);
            return Err(Stop::Damage(place(what)));
        }
        let found = &mut self.found;
        assert_eq!(envelope.sequence, found.sequence + 1, "the walk goes in sequence order");
        found.superseded += (found.last.index.0 + 1).saturating_sub(first.0);
        let (last, sequence) = (envelope.last.index, envelope.sequence);
        found.positions.push(Placed { first, last, at, bytes: envelope.disk_bytes(), sequence });
        found.sequence = envelope.sequence;
        found.last = envelope.last;
        found.peak = found.peak.max(envelope.peak).max(envelope.last.into());
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

    /// Looks at what follows the last whole envelope. A header in any sector counts for what it says; one that stands
    /// at a block counts also for where it stands.
    fn rest(&self, window: &mut Window<&B>, header: &SegmentHeader, offset: u64) -> io::Result<Rest> {
        let missing = self.found.sequence + 1;
        let mut rest =
            Rest { remainder: Remainder::Blank, until: offset, later: Later::Nothing, unreadable: false };
        let mut at = offset;
        while at + BLOCK_U64 <= header.bytes {
            let block = match window.get(at, BLOCK) {
                Ok(block) => block,
                Err(error) if is_damage(&error) => {
                    rest.unreadable = true;
                    rest.until = at + BLOCK_U64;
                    at += BLOCK_U64;
                    continue;
                }
                Err(error) => return Err(error),
            };
            if !is_zero(&block) {
                rest.until = at + BLOCK_U64;
                for sector in (0..BLOCK).step_by(SECTOR) {
                    let Some(seen) = Header::sight(&block[sector..], header) else { continue };
                    let displaced = seen.sequence == missing && sector == 0 && at > offset;
                    if displaced || (seen.sequence > missing && seen.log_mark >= missing) {
                        rest.later = Later::Flushed;
                    } else if seen.sequence > missing {
                        rest.later = rest.later.max(Later::InFlightTogether);
                    }
                }
            }
            at += BLOCK_U64;
        }
        assert!(rest.until >= offset && rest.until <= header.bytes, "remains lie behind the log's end");
        if offset >= header.bytes {
            rest.remainder = Remainder::Full;
        } else if rest.until > offset {
            rest.remainder = Remainder::Remains;
        }
        Ok(rest)
    }

    /// What only the whole log can tell.
    fn finish(mut self) -> Result<Scanned, Refused> {
        let state = self.state;
        let name = crate::state::STATE_NAME;
        if self.state_mark > state.sequence {
            return Err(state_lost(state, self.state_mark));
        }
        if state.commit > self.found.last.index {
            let what = format!("entry {} was committed and flushed, and is not in the log", state.commit);
            return Err(corrupt(name, state.offset(), what));
        }
        assert!(self.found.last.index >= self.found.commit, "a commit mark never lies beyond its envelope");
        assert!(self.found.sequence >= state.log_mark, "the table refuses a lost tail");
        assert!(self.found.peak >= state.peak, "the walk saw all that the marks cover");
        assert_eq!(self.found.last.index, self.found.positions.last(), "the map follows the walk");
        self.found.commit = self.found.commit.max(state.commit);
        Ok(self.found)
    }

    /// The longest whole prefix, and what may be missing beyond it. The walk stands at the end of that prefix.
    ///
    /// The commit mark of the state is not taken over: it may speak of entries that replaced some of the prefix later.
    fn keep_prefix(mut self, headers: &Headers, place: Place) -> Result<Scanned, Refused> {
        let state = self.state;
        let kept = self.entered;
        if kept == 0 && state.first_segment != 1 {
            return Err(place.refused());
        }
        self.found.segments.truncate(kept);
        let assessed = assess(self.files, &headers.all, state, &self.found)?;
        let seen_state = self.state_mark.max(assessed.state_mark);
        if seen_state > state.sequence {
            return Err(state_lost(state, seen_state));
        }
        assert!(self.found.last.index >= self.found.commit, "a commit mark never lies beyond its envelope");
        assert_eq!(self.found.last.index, self.found.positions.last(), "the map follows the walk");
        assert!(kept <= headers.run, "only segments that were walked are kept");
        self.found.cut = None;
        let aside = self.files[kept..].iter().map(|file| file.number).collect();
        self.found.damaged = Some(Damaged { place, held: assessed.held, aside, remains: assessed.remains });
        Ok(self.found)
    }
}

fn state_lost(state: &StateRecord, mark: u64) -> Refused {
    let what = format!("state record {mark} was flushed, as the log knows, and is gone");
    corrupt(crate::state::STATE_NAME, state.offset(), what)
}

pub(crate) fn is_zero(block: &[u8]) -> bool {
    block.iter().all(|&byte| byte == 0)
}
