//! Damage to what was durable, in a log whose peers have it too: what is kept, and what may be missing.
//!
//! Kept is the longest prefix of whole envelopes: a state that this log once had. What may be missing is bounded from
//! above ([`Held`]) by what is still readable of the rest. Every envelope and every segment header names the
//! greatest last entry that the log ever had before it (its *peak*), so one whole envelope behind the damage speaks
//! for all that is hidden before it. Whether anything is hidden *behind* the last one seen is the question that
//! decides:
//!
//! | what the end looks like | held |
//! |---|---|
//! | closed cleanly, and nothing newer is seen | the peak of the state record, exactly |
//! | the newest envelope seen is whole, stands last, zeros follow; no mark knows a newer one | its peak |
//! | a later segment with a whole header and nothing but zeros, which no mark contradicts | the header's peak |
//! | anything else: the damage may reach to the end of the log | any entry up to the newest term |
//!
//! The last row rests on a promise of the log's user: no entry is written before a hard state of at least its term
//! (thesis figure 3.1, persistent state), so the state record's term bounds every entry that was acknowledged.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use crate::envelope::Header;
use crate::id::Term;
use crate::scan::{Refused, Scanned, SegmentFile, corrupt, is_zero};
use crate::sector::{BLOCK, BLOCK_U64, SECTOR};
use crate::segment::{FIRST_OFFSET, SegmentHeader, segment_name};
use crate::state::{Held, StateRecord};
use crate::walk::{Blocks, Found, Window, envelope_at, is_damage};
use std::io;
use std::ops::Range;

/// What to do about damage to what was durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Damage {
    /// Change nothing, and say where it is and what to do. The only choice for a node without peers.
    #[default]
    Refuse,
    /// Keep the longest whole prefix and remember what may be missing ([`Held`]): the peers have it.
    Repairable,
}

/// Where damage was met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file's name in its directory.
    pub file: String,
    /// Where in it.
    pub offset: u64,
    /// What is wrong there.
    pub what: String,
}

impl Place {
    pub(crate) fn new(file: String, offset: u64, what: impl Into<String>) -> Self {
        Self { file, offset, what: what.into() }
    }

    pub(crate) fn refused(self) -> Refused {
        corrupt(self.file, self.offset, self.what)
    }
}

/// Damage that a repair leaves behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damaged {
    /// Where the walk met it.
    pub place: Place,
    /// What may be missing because of it.
    pub held: Held,
    /// Segments that get another name, ascending.
    pub aside: Vec<u64>,
    /// Whether the segment in which the kept prefix ends has anything behind it.
    pub remains: bool,
}

/// What the rest of the files says.
#[derive(Debug)]
pub(crate) struct Assessed {
    pub held: Held,
    /// Newest state record that anything seen names.
    pub state_mark: u64,
    pub remains: bool,
}

/// What has been seen behind the kept prefix.
struct Seen {
    peak: Held,
    sequence: u64,
    state_mark: u64,
    /// Whether the newest thing seen is whole and nothing but zeros follow it.
    ends: bool,
    /// Whether anything but zeros stands in the segment that is kept in part.
    remains: bool,
}

/// Reads everything behind `found`, the kept prefix.
pub(crate) fn assess<B: Blocks>(
    files: &[SegmentFile<B>],
    headers: &[Option<SegmentHeader>],
    state: &StateRecord,
    found: &Scanned,
) -> Result<Assessed, Refused> {
    assert_eq!(files.len(), headers.len(), "one header, or none, for each file");
    assert!(found.segments.len() <= files.len(), "the kept segments are files");
    let mut seen =
        Seen { peak: found.peak, sequence: found.sequence, state_mark: 0, ends: false, remains: false };
    let partly = found.segments.len().checked_sub(1);
    let known: Vec<SegmentHeader> = headers.iter().flatten().copied().collect();
    for (at, file) in files.iter().enumerate().skip(partly.unwrap_or(0)) {
        let io = |source| Refused::Io { file: segment_name(file.number), source };
        let length = file.blocks.length().map_err(io)?;
        let own = headers[at].as_ref();
        let (from, until) = match own {
            Some(header) if Some(at) == partly => {
                seen.ends = false;
                (found.offset, header.bytes)
            }
            Some(header) => {
                seen.begun(header);
                (FIRST_OFFSET, header.bytes)
            }
            None => (0, length / BLOCK_U64 * BLOCK_U64),
        };
        let blank = seen.look(&mut Window::new(&file.blocks, until), own, &known, from..until).map_err(io)?;
        let fits = own.is_some_and(|header| header.bytes == length);
        seen.ends &= fits;
        seen.remains |= Some(at) == partly && !(blank && fits);
    }
    assert!(seen.sequence >= found.sequence && seen.peak >= found.peak, "looking further finds no less");
    let newest_file = files.last().map_or(0, |file| file.number);
    let held = if state.clean && seen.sequence <= state.log_mark {
        seen.peak.max(state.peak)
    } else if seen.ends && newest_file >= state.newest_segment && seen.sequence >= state.log_mark {
        seen.peak
    } else {
        let term = state.hard_state.term.max(seen.peak.term).max(state.peak.term).max(Term(1));
        Held { term, index: Held::ANY_INDEX }
    };
    // What an earlier repair left in doubt stays in doubt.
    let held = state.held.map_or(held, |before| before.max(held));
    assert!(held >= found.peak, "what is kept was held too");
    Ok(Assessed { held, state_mark: seen.state_mark, remains: seen.remains })
}

impl Seen {
    /// A segment gets its name after all before it was flushed.
    fn begun(&mut self, header: &SegmentHeader) {
        let before = header.predecessor;
        self.ends = before.sequence >= self.sequence;
        self.sequence = self.sequence.max(before.sequence);
        self.peak = self.peak.max(before.peak).max(before.last.into());
    }

    /// Everything in a range of a file. An envelope of another segment, written here by mistake, also says what it
    /// says. False if there is anything but zeros.
    fn look<B: Blocks>(
        &mut self,
        window: &mut Window<&B>,
        own: Option<&SegmentHeader>,
        known: &[SegmentHeader],
        range: Range<u64>,
    ) -> io::Result<bool> {
        assert!(range.start.is_multiple_of(BLOCK_U64), "envelopes begin at blocks");
        let mut blank = true;
        let mut at = range.start;
        while at + BLOCK_U64 <= range.end {
            let block = match window.get(at, BLOCK) {
                Ok(block) => block,
                Err(error) if is_damage(&error) => {
                    (blank, self.ends) = (false, false);
                    at += BLOCK_U64;
                    continue;
                }
                Err(error) => return Err(error),
            };
            if is_zero(&block) {
                at += BLOCK_U64;
                continue;
            }
            blank = false;
            let whole = match own.map(|own| envelope_at(window, own, at, None, |_| ())).transpose()? {
                Some(Found::Whole(envelope)) => Some(envelope.disk_bytes()),
                Some(Found::Not(_)) | None => None,
            };
            let before = self.sequence;
            // Behind the front of a whole envelope are its frames, which may hold the bytes of another.
            let sectors = if whole.is_some() { 1 } else { BLOCK / SECTOR };
            for sector in block.chunks_exact(SECTOR).take(sectors) {
                for seen in known.iter().filter_map(|header| Header::sight(sector, header)) {
                    self.sequence = self.sequence.max(seen.sequence);
                    self.peak = self.peak.max(seen.peak);
                    self.state_mark = self.state_mark.max(seen.state_mark);
                }
            }
            self.ends = whole.is_some() && self.sequence > before;
            at += whole.unwrap_or(BLOCK_U64);
        }
        Ok(blank)
    }
}
