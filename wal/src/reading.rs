//! Fetching old entries: which bytes to read, and which frames are in them.
//!
//! Pure. One read is outstanding at a time and each is bounded: the distance between two marks of the map, or
//! one envelope. Every frame handed out passed [`Frame::parse`] again. A fetch may race with a superseding
//! write: blocks are never overwritten, so it then yields the entries as they were; Raft compares terms
//! anyway.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use crate::envelope::{HEADER_BYTES, Header};
use crate::frame::{Frame, FrameError};
use crate::id::LogIndex;
use crate::plan::{Fetch, FetchError, LogEvent};
use crate::positions::{Position, Positions};
use crate::sector::{BLOCK, BLOCK_U64};
use crate::segment::{SegmentHeader, segment_name};
use bytes::Bytes;
use std::collections::VecDeque;

/// How much the first read of a fetch takes.
const CHUNK: u64 = 2 * Positions::SPACING;

/// A read for the driver to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Read {
    /// Where.
    pub at: Position,
    /// Whole blocks.
    pub length: usize,
}

struct Active {
    fetch: Fetch,
    until: LogIndex,
    segment: SegmentHeader,
    read: Read,
    /// The envelope that stands where the read begins. A whole envelope of this segment that is another one was written
    /// to the wrong place.
    sequence: u64,
}

/// Fetches waiting, and the one being read for.
#[derive(Default)]
pub(crate) struct Reader {
    waiting: VecDeque<Fetch>,
    active: Option<Active>,
}

enum Served {
    Frames(Vec<Frame>),
    /// Another read, beginning at this envelope.
    ReadOn(Read, u64),
    Damaged {
        offset: u64,
        what: String,
    },
}

impl Reader {
    pub(crate) fn push(&mut self, fetch: Fetch) {
        self.waiting.push_back(fetch);
    }

    /// The next read, or an answer that needs none.
    pub(crate) fn poll_read(
        &mut self,
        map: &Positions,
        segments: &[SegmentHeader],
    ) -> Option<Result<Read, LogEvent>> {
        if self.active.is_some() {
            return None;
        }
        let fetch = self.waiting.pop_front()?;
        let Some(located) = map.locate(fetch.from) else {
            let error = FetchError::Missing { from: fetch.from, first: map.first(), last: map.last() };
            return Some(Err(LogEvent::FetchFailed { token: fetch.token, error }));
        };
        let oldest = segments.first().expect("an entry was located").number;
        let at = usize::try_from(located.at.segment - oldest).expect("fewer segments than addresses");
        let segment = segments[at];
        assert!(fetch.from < located.until, "the mark covers what is asked for");
        assert_eq!(segment.number, located.at.segment, "segments are dense");
        let read = bounded(&segment, located.at.offset, CHUNK);
        let sequence = located.sequence;
        self.active = Some(Active { fetch, until: located.until, segment, read, sequence });
        Some(Ok(read))
    }

    /// A read of a segment that was dropped meanwhile finds no file, or another segment's bytes: that is no damage.
    pub(crate) fn outdated(&self, map: &Positions) -> Option<FetchError> {
        let from = self.active.as_ref().expect("a read was outstanding").fetch.from;
        (from < map.first()).then(|| FetchError::Missing { from, first: map.first(), last: map.last() })
    }

    /// What a read brought: another read, or the answer.
    pub(crate) fn handle_read(&mut self, result: Result<Bytes, FetchError>) -> Result<Read, LogEvent> {
        let active = self.active.as_mut().expect("a read was outstanding");
        let token = active.fetch.token;
        let answer = match result {
            Err(error) => LogEvent::FetchFailed { token, error },
            Ok(bytes) => match serve(active, &bytes) {
                Served::ReadOn(read, sequence) => {
                    (active.read, active.sequence) = (read, sequence);
                    return Ok(read);
                }
                Served::Frames(frames) => {
                    assert_eq!(
                        frames[0].index(),
                        active.fetch.from,
                        "an answer begins with what was asked for"
                    );
                    assert!(frames.is_sorted_by(|a, b| b.follows(a.id())), "an answer is one run of the log");
                    LogEvent::Fetched { token, frames }
                }
                Served::Damaged { offset, what } => {
                    let file = segment_name(active.segment.number);
                    LogEvent::FetchFailed { token, error: FetchError::Damaged { file, offset, what } }
                }
            },
        };
        self.active = None;
        Err(answer)
    }
}

fn bounded(segment: &SegmentHeader, offset: u64, bytes: u64) -> Read {
    assert!(offset < segment.bytes && bytes.is_multiple_of(BLOCK_U64), "within the segment, in blocks");
    let length = usize::try_from(bytes.min(segment.bytes - offset)).expect("bounded by an envelope");
    Read { at: Position { segment: segment.number, offset }, length }
}

fn serve(active: &Active, bytes: &Bytes) -> Served {
    let Active { fetch, until, segment, read, mut sequence } = *active;
    let (fetch, segment) = (&fetch, &segment);
    assert_eq!(bytes.len(), read.length, "a read is whole or an error");
    let mut frames: Vec<Frame> = Vec::new();
    let mut taken = 0;
    let mut at = 0;
    // What lies behind the last entry of this mark may supersede it, or be on its way to disk: it is not
    // looked at.
    while at + BLOCK <= bytes.len() && frames.last().is_none_or(|last| last.index().next() < until) {
        let offset = read.at.offset + at as u64;
        let header = match Header::parse(&bytes[at..], segment, offset) {
            Ok(header) => header,
            // Zeros after what was found: the segment's end.
            Err(_) if !frames.is_empty() => return Served::Frames(frames),
            Err(defect) => return Served::Damaged { offset, what: format!("no envelope: {defect:?}") },
        };
        if header.sequence != sequence && !crate::mutant!("misplaced_is_served") {
            let what = format!("write {} stands where write {sequence} should", header.sequence);
            return Served::Damaged { offset, what };
        }
        let disk = usize::try_from(header.disk_bytes()).expect("bounded by the segment");
        if header.last.index >= fetch.from {
            let end = at + HEADER_BYTES + usize::try_from(header.payload).expect("bounded by the segment");
            let mut rest = bytes.slice(at + HEADER_BYTES..end.min(bytes.len()));
            let mut index = header.first_index();
            while index <= header.last.index {
                if index >= until || (taken >= fetch.max_bytes && !frames.is_empty()) {
                    return Served::Frames(frames);
                }
                match next_frame(&mut rest, index, index >= fetch.from) {
                    Ok(Some(frame)) => {
                        taken += frame.bytes().len();
                        frames.push(frame);
                    }
                    Ok(None) => {}
                    // The envelope goes on beyond what was read.
                    Err(FrameError::Short { .. }) if end > bytes.len() => {
                        return if frames.is_empty() {
                            Served::ReadOn(bounded(segment, offset, header.disk_bytes()), sequence)
                        } else {
                            Served::Frames(frames)
                        };
                    }
                    Err(error) => return Served::Damaged { offset, what: error.to_string() },
                }
                index = index.next();
            }
        }
        at += disk;
        sequence += 1;
    }
    if !frames.is_empty() {
        return Served::Frames(frames);
    }
    let offset = read.at.offset + at as u64;
    if offset >= segment.bytes {
        return Served::Damaged { offset, what: format!("the segment ends before entry {}", fetch.from) };
    }
    Served::ReadOn(bounded(segment, offset, CHUNK), sequence)
}

/// Takes the frame at `index`, or steps over it without looking at its body.
fn next_frame(rest: &mut Bytes, index: LogIndex, wanted: bool) -> Result<Option<Frame>, FrameError> {
    let peek = Frame::peek(rest)?;
    if peek.id.index != index {
        return Err(FrameError::Field { field: "index", value: peek.id.index.0 });
    }
    if wanted {
        return Frame::parse(rest).map(Some);
    }
    if peek.bytes > rest.len() {
        return Err(FrameError::Short { need: peek.bytes, have: rest.len() });
    }
    *rest = rest.slice(peek.bytes..);
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{Machine, Name};

    fn fetched(machine: &mut Machine, from: u64) -> LogEvent {
        machine.journal.fetch(Fetch { token: 7, from: LogIndex(from), max_bytes: usize::MAX });
        let mut wanted = machine.journal.poll_read();
        while let Some(read) = wanted {
            let at = usize::try_from(read.at.offset).expect("small");
            let bytes = machine.disk.segments[&read.at.segment][at..at + read.length].to_vec();
            wanted = machine.journal.handle_read(Ok(bytes.into()));
        }
        machine.journal.poll_event().expect("a fetch is answered")
    }

    /// A misdirected write: whole, of this very segment, and in another's place.
    #[test]
    fn a_whole_write_in_anothers_place_is_damage_and_never_an_answer() {
        for (place, stray) in [(1, 3), (3, 1), (2, 3), (3, 2), (1, 2)] {
            let mut machine = Machine::new(32 << 10);
            for n in 1..=4 {
                machine.append(&[n; 10]);
            }
            // Every write is one block, after the segment's header.
            let file = machine.disk.file(Name::Segment(1));
            file.copy_within(stray * BLOCK..(stray + 1) * BLOCK, place * BLOCK);
            for from in 1..=4 {
                match fetched(&mut machine, from) {
                    LogEvent::Fetched { frames, .. } => {
                        assert_eq!(frames[0].index(), LogIndex(from), "what was asked for");
                        let last = frames.last().expect("at least one").index().0;
                        let spared = last < place as u64 || from > place as u64;
                        assert!(spared, "{stray} in the place of {place}, from {from}: {frames:?}");
                    }
                    LogEvent::FetchFailed { error: FetchError::Damaged { .. }, .. } => {}
                    other => panic!("{other:?}"),
                }
            }
            let LogEvent::FetchFailed { error, .. } = fetched(&mut machine, place as u64) else {
                panic!("{stray} was taken for {place}");
            };
            let words = format!("write {stray} stands where write {place} should");
            assert!(error.to_string().contains(&words), "{error}");
        }
    }

    /// Writes larger than what is read at once, among small ones.
    #[test]
    fn entries_of_writes_larger_than_a_read_are_fetched_from_any_one_of_them_on() {
        let mut machine = Machine::new(4 << 20);
        let mut log = Vec::new();
        for sizes in [&[40][..], &[200_000, 150_000, 90_000], &[40, 40], &[300_000], &[90_000; 7], &[40]] {
            let frames: Vec<_> = sizes.iter().map(|&size| machine.frame(&vec![7; size])).collect();
            machine.submit(None, frames.clone(), LogIndex::ZERO);
            machine.run();
            log.extend(frames);
        }
        for from in 1..=log.len() {
            for max_bytes in [1, 250_000, usize::MAX] {
                machine.journal.fetch(Fetch { token: 7, from: LogIndex(from as u64), max_bytes });
                let mut wanted = machine.journal.poll_read();
                let mut reads = 0;
                while let Some(read) = wanted {
                    reads += 1;
                    let at = usize::try_from(read.at.offset).expect("small");
                    let bytes = machine.disk.segments[&read.at.segment][at..at + read.length].to_vec();
                    wanted = machine.journal.handle_read(Ok(bytes.into()));
                }
                let event = machine.journal.poll_event().expect("a fetch is answered");
                let LogEvent::Fetched { token: 7, frames } = event else { panic!("{from}: {event:?}") };
                assert_eq!(frames, log[from - 1..][..frames.len()], "from {from}");
                assert!(reads <= 2, "{reads} reads for {from}: where to look, and one envelope");
                let before: usize = frames.iter().rev().skip(1).map(|frame| frame.bytes().len()).sum();
                assert!(before < max_bytes, "from {from}: enough was there without the last one");
            }
        }
    }
}
