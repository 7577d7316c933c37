//! The live entries of a log that passed, in order, read one envelope at a time.
//!
//! Nothing is trusted because the walk saw it: every envelope is checked again as it is read.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use crate::frame::Frame;
use crate::id::{EntryId, LogIndex};
use crate::journal::Tail;
use crate::scan::{Refused, corrupt};
use crate::segment::{SegmentHeader, segment_name};
use crate::walk::{Blocks, Defect, Found, Window, envelope_at};
use std::collections::VecDeque;

/// Every live entry in order; superseded ones are skipped. `segment` gives a segment's bytes by its number. After
/// an error it ends.
pub fn entries<'a, B: Blocks + 'a>(
    tail: &'a Tail,
    segment: impl Fn(u64) -> B + 'a,
) -> impl Iterator<Item = Result<Frame, Refused>> + 'a {
    Entries {
        tail,
        source: segment,
        previous: tail.base(),
        reading: None,
        ready: VecDeque::new(),
        ended: false,
    }
}

struct Reading<B> {
    segment: SegmentHeader,
    window: Window<B>,
    offset: u64,
    until: LogIndex,
}

struct Entries<'a, B, S> {
    tail: &'a Tail,
    source: S,
    previous: EntryId,
    reading: Option<Reading<B>>,
    ready: VecDeque<Frame>,
    ended: bool,
}

impl<B: Blocks, S: Fn(u64) -> B> Entries<'_, B, S> {
    /// Where to read for `index`. A segment that was being read keeps its window: what was read ahead is not read again at
    /// every mark.
    fn open(&self, index: LogIndex, before: Option<Reading<B>>) -> Reading<B> {
        let located = self.tail.positions.locate(index).expect("an index up to the last one");
        let at = usize::try_from(located.at.segment - self.tail.segments[0].number)
            .expect("a segment that was read");
        let segment = self.tail.segments[at];
        assert_eq!(segment.number, located.at.segment, "segments are dense");
        let window = match before {
            Some(before) if before.segment.number == segment.number => before.window,
            _ => Window::new((self.source)(segment.number), segment.bytes),
        };
        Reading { segment, window, offset: located.at.offset, until: located.until }
    }

    /// Reads the next envelope.
    fn refill(&mut self) -> Result<(), Refused> {
        let next = self.previous.index.next();
        let mut reading = match self.reading.take() {
            Some(reading) if next < reading.until => reading,
            before => self.open(next, before),
        };
        let Reading { segment, offset, until, .. } = reading;
        let ready = &mut self.ready;
        let take = |frame: Frame| {
            if frame.index() >= next && frame.index() < until {
                ready.push_back(frame);
            }
        };
        let name = segment_name(segment.number);
        if offset >= segment.bytes {
            return Err(corrupt(name, offset, format!("the segment ends before entry {next}")));
        }
        let found = envelope_at(&mut reading.window, &segment, offset, None, take)
            .map_err(|source| Refused::Io { file: name.clone(), source })?;
        let header = match found {
            Found::Whole(header) => header,
            Found::Not(defect) => return Err(corrupt(name, offset, changed(&defect))),
        };
        if let Some(first) = self.ready.front().filter(|first| !first.follows(self.previous)) {
            let what = format!("entry {} does not continue the one before it", first.index());
            return Err(corrupt(name, offset, what));
        }
        reading.offset += header.disk_bytes();
        self.reading = Some(reading);
        Ok(())
    }
}

fn changed(defect: &Defect) -> String {
    format!("it was whole when the log was opened, and is not now: {defect}")
}

impl<B: Blocks, S: Fn(u64) -> B> Iterator for Entries<'_, B, S> {
    type Item = Result<Frame, Refused>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.ended {
            if let Some(frame) = self.ready.pop_front() {
                assert_eq!(frame.index(), self.previous.index.next(), "entries come in order");
                self.previous = frame.id();
                return Some(Ok(frame));
            }
            if self.previous.index >= self.tail.last.index {
                assert_eq!(self.previous, self.tail.last, "the stream ends where the log ends");
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
