//! The writer as a value: which write comes next, and what its completion proves.
//!
//! Both writers and a simulator's disk drive the same [`Journal`]: [`Journal::poll_step`] says what to do,
//! `handle_*` says what came of it, [`Journal::poll_event`] gives what the log's user may know. No I/O, clock
//! or thread here.
//!
//! Invariants: one write is in flight, and everything before it is flushed. `last`, `sequence`, `offset` and
//! `state` describe what is flushed, so what an envelope or a state record says about the past is always
//! true. After [`Journal::handle_failed`] no [`Flushed`] is ever made.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use crate::envelope::{self, Header};
use crate::error::LogError;
use crate::frame;
use crate::id::{EntryId, HardState, LogIndex};
use crate::plan::{Fetch, FetchError, Flushed, LogEvent, LogStats, WriteId, WritePlan};
use crate::positions::{Placed, Position, Positions};
use crate::reading::{Read, Reader};
use crate::sector::BLOCK_U64;
use crate::segment::{FIRST_OFFSET, Identity, Predecessor, SegmentHeader};
use crate::state::{Held, StateRecord};
use bytes::Bytes;
use std::collections::VecDeque;

/// Plans that share an envelope stay under this many bytes of frames, unless one plan alone is larger.
pub const ENVELOPE_BYTES: usize = 4 << 20;

/// Where a log stands when its writer starts.
#[derive(Clone, Debug)]
pub struct Tail {
    /// Headers of all segments, ascending; the last one is written to.
    pub(crate) segments: Vec<SegmentHeader>,
    pub(crate) offset: u64,
    pub(crate) sequence: u64,
    pub(crate) last: EntryId,
    /// The greatest last entry so far.
    pub(crate) peak: Held,
    pub(crate) commit: LogIndex,
    pub(crate) state: StateRecord,
    pub(crate) positions: Positions,
    /// Size of new segments.
    pub(crate) segment_bytes: u64,
}

impl Tail {
    /// Headers of all segments, ascending; the last one is written to.
    #[must_use]
    pub fn segments(&self) -> &[SegmentHeader] {
        &self.segments
    }

    /// Where the next envelope goes, in the last segment (or its end).
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Sequence of the last envelope.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// The last entry.
    #[must_use]
    pub fn last(&self) -> EntryId {
        self.last
    }

    /// The newest commit index found; the true one may be higher.
    #[must_use]
    pub fn commit(&self) -> LogIndex {
        self.commit
    }

    /// The newest state record.
    #[must_use]
    pub fn state(&self) -> &StateRecord {
        &self.state
    }

    /// The entry before the first one on disk: where the log begins.
    #[must_use]
    pub fn base(&self) -> EntryId {
        self.segments[0].predecessor.last
    }
}

/// An envelope to write: `bytes` at `offset` of a segment, from [`Journal::fill_envelope`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Where.
    pub at: Position,
    /// Whole blocks.
    pub bytes: usize,
}

/// The segment to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Next {
    /// Its number.
    pub number: u64,
    /// Its size, header included.
    pub bytes: u64,
    /// Where the log stands.
    pub predecessor: Predecessor,
}

impl Next {
    /// The header of the file to be made. `nonce` is random: no two files of a directory ever share one.
    #[must_use]
    pub fn header(&self, identity: Identity, nonce: u128) -> SegmentHeader {
        let Self { number, bytes, predecessor } = *self;
        SegmentHeader { identity, number, bytes, nonce, predecessor }
    }
}

/// What the driver does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing to do, or something is in flight.
    Nothing,
    /// Begin a segment, then [`Journal::handle_rotated`].
    Rotate(Next),
    /// Write and flush both parts, then [`Journal::handle_written`].
    Write {
        /// Filled by [`Journal::fill_envelope`].
        envelope: Option<Extent>,
        /// Filled by [`Journal::fill_state`]; the slot's offset in the state file.
        state: Option<u64>,
    },
}

#[derive(Clone, Copy, Debug)]
#[allow(
    clippy::large_enum_variant,
    reason = "there is one, and a box would be an allocation for every write"
)]
enum Flight {
    None,
    Rotation,
    Write { envelope: Option<Header>, state: Option<StateRecord> },
}

/// The log as its writer sees it. One loop drives it: see [`crate::pure`].
pub struct Journal {
    tail: Tail,
    /// Newest commit index of the plans taken so far; may lie beyond what is flushed.
    commit: LogIndex,
    queued: VecDeque<WritePlan>,
    queued_bytes: usize,
    queued_last: EntryId,
    queued_commit: LogIndex,
    newest_plan: Option<WriteId>,
    gathered: Vec<WritePlan>,
    flight: Flight,
    spare_wanted: bool,
    reader: Reader,
    events: VecDeque<LogEvent>,
    latch: Option<LogError>,
    stats: LogStats,
    /// The log is idle and wants its mark.
    marking: bool,
    /// Entries below this one are not needed any more.
    unneeded: LogIndex,
    /// Segments that the state record no longer counts, whose files are still there.
    dropped: VecDeque<u64>,
}

impl Journal {
    /// A writer that continues at `tail`.
    #[must_use]
    pub fn new(tail: Tail) -> Self {
        assert!(tail.commit <= tail.last.index, "a recovered commit index lies in the log");
        assert!(!tail.segments.is_empty(), "a log has a segment before it has a writer");
        Self {
            commit: tail.commit,
            queued: VecDeque::new(),
            queued_bytes: 0,
            queued_last: tail.last,
            queued_commit: tail.commit,
            newest_plan: None,
            gathered: Vec::new(),
            flight: Flight::None,
            spare_wanted: true,
            reader: Reader::default(),
            events: VecDeque::new(),
            latch: None,
            stats: LogStats::default(),
            marking: false,
            unneeded: LogIndex::ZERO,
            dropped: VecDeque::new(),
            tail,
        }
    }

    /// Queues a plan. After a failure it is dropped: nothing more is acknowledged.
    ///
    /// # Panics
    /// If the plan breaks the rules of [`WritePlan`]: the node that made it is wrong, and stopping is safe.
    pub fn submit(&mut self, plan: WritePlan) {
        assert!(self.newest_plan.is_none_or(|newest| newest < plan.id), "plans have ascending names");
        self.newest_plan = Some(plan.id);
        if self.latch.is_some() {
            return;
        }
        // The log is idle no more: the mark would only make the next write wait.
        self.marking = false;
        if let Some(first) = plan.frames.first() {
            let mut previous = first.previous();
            assert!(
                previous.index <= self.queued_last.index,
                "{first:?} leaves a gap after {:?}",
                self.queued_last
            );
            assert!(previous.index >= self.queued_commit, "{first:?} replaces a committed entry");
            if previous.index == self.queued_last.index {
                assert_eq!(previous, self.queued_last, "a frame continues the log it is appended to");
            }
            for frame in &plan.frames {
                assert!(frame.follows(previous), "{frame:?} does not follow {previous:?}");
                previous = frame.id();
            }
            self.queued_last = previous;
        }
        assert!(plan.commit <= self.queued_last.index, "a commit index lies in the log");
        self.queued_commit = self.queued_commit.max(plan.commit);
        self.queued_bytes += plan.frame_bytes();
        self.queued.push_back(plan);
    }

    /// The next thing to do, if nothing is in flight.
    pub fn poll_step(&mut self) -> Step {
        if self.latch.is_some() || !matches!(self.flight, Flight::None) {
            return Step::Nothing;
        }
        assert!(self.gathered.is_empty(), "a finished write leaves no plans behind");
        let payload = self.gather();
        if self.gathered.is_empty() {
            return match self.queued.front().map(WritePlan::frame_bytes) {
                Some(bytes) => self.rotate(bytes),
                None => self.poll_mark(),
            };
        }
        let hard_state = self.gathered.iter().rev().find_map(|plan| plan.hard_state);
        // The first write in a segment also tells the state file of it: a segment that holds acknowledged
        // entries is missed.
        let begun = self.segment().number > self.tail.state.newest_segment;
        let healed = self.tail.state.held.is_some() && self.gathered.iter().any(|plan| plan.whole);
        let shorter = self.first_needed() > self.tail.state.first_segment;
        let hard_state = hard_state.or((begun || healed || shorter).then_some(self.tail.state.hard_state));
        let state = hard_state.map(|hard_state| {
            let state = self.next_state(hard_state);
            StateRecord { held: state.held.filter(|_| !healed), ..state }
        });
        let envelope = (payload > 0).then(|| self.header(payload));
        let state = state.filter(|_| envelope.is_none() || !crate::mutant!("hard_state_lags"));
        if envelope.is_none() && state.is_none() {
            // Only barriers and commit indices: everything before them is on disk.
            self.acknowledge();
            return Step::Nothing;
        }
        self.flight = Flight::Write { envelope, state };
        let at = Position { segment: self.segment().number, offset: self.tail.offset };
        Step::Write {
            envelope: envelope.map(|_| Extent { at, bytes: envelope::disk_bytes(payload) }),
            state: state.map(|state| state.offset()),
        }
    }

    /// Whether envelopes were flushed that no state record speaks of yet. Damage to the very last of them would look like
    /// a write that was torn.
    #[must_use]
    pub fn mark_owed(&self) -> bool {
        self.latch.is_none() && self.tail.sequence > self.tail.state.log_mark
    }

    /// The log has been idle for a while: its next write, unless a plan comes first, is the mark it owes, if any. One
    /// flush for each idle period, none under load.
    pub fn mark(&mut self) {
        self.marking = self.mark_owed();
    }

    fn poll_mark(&mut self) -> Step {
        let marking = std::mem::take(&mut self.marking) && self.mark_owed();
        if !marking && self.first_needed() == self.tail.state.first_segment {
            return Step::Nothing;
        }
        let state = self.next_state(self.tail.state.hard_state);
        assert_eq!(state.log_mark, self.tail.sequence, "a mark covers all that is flushed");
        self.flight = Flight::Write { envelope: None, state: Some(state) };
        Step::Write { envelope: None, state: Some(state.offset()) }
    }

    /// Entries below `index` are not needed any more: whoever asks for one is answered from elsewhere, a snapshot that is
    /// durable. Whole segments that hold nothing else go, oldest first, as soon as the commit mark on disk covers them.
    /// The state record says so before the first of their files goes ([`Journal::poll_dropped`]).
    pub fn drop_below(&mut self, index: LogIndex) {
        self.unneeded = self.unneeded.max(index);
    }

    /// The segment that the log may begin with.
    ///
    /// The entry before it becomes the log's base, so that entry must be one of the log: committed, and not superseded
    /// since by a later segment, which could otherwise not be read without the dropped one.
    fn first_needed(&self) -> u64 {
        let Tail { segments, positions, .. } = &self.tail;
        let mut first = segments[0].number;
        for segment in &segments[1..] {
            let before = segment.predecessor.last.index;
            if before >= self.unneeded || before > self.tail.commit {
                break;
            }
            let lives = before == positions.base()
                || positions.locate(before).is_some_and(|found| found.at.segment < segment.number);
            if lives {
                first = segment.number;
            }
        }
        assert!(first >= self.tail.state.first_segment, "the log never gets longer at its front");
        first
    }

    /// A segment whose file may go: the log does not begin with it any more, durably.
    pub fn poll_dropped(&mut self) -> Option<u64> {
        self.dropped.pop_front()
    }

    /// What the flushed state record no longer counts.
    fn forget_before(&mut self, first: u64) {
        let Tail { segments, positions, commit, .. } = &mut self.tail;
        let gone = segments.partition_point(|segment| segment.number < first);
        assert!(gone < segments.len(), "the segment that is written to is needed");
        self.dropped.extend(segments.drain(..gone).map(|segment| segment.number));
        let base = segments[0].predecessor.last.index;
        assert!(base <= *commit && base < self.unneeded, "only what is committed and not needed goes");
        positions.begin_after(base, first);
    }

    /// Moves the plans that can share a write, in order; returns their bytes of frames.
    fn gather(&mut self) -> usize {
        let room = self.segment().bytes.saturating_sub(self.tail.offset);
        let mut payload = 0;
        let mut last = self.tail.last;
        while let Some(plan) = self.queued.front() {
            if let (Some(first), Some(end)) = (plan.frames.first(), plan.frames.last()) {
                let bytes = plan.frame_bytes();
                let joins = payload == 0 || (first.previous() == last && payload + bytes <= ENVELOPE_BYTES);
                if !joins || envelope::disk_bytes(payload + bytes) as u64 > room {
                    break;
                }
                payload += bytes;
                last = end.id();
            }
            self.commit = self.commit.max(plan.commit);
            self.gathered.extend(self.queued.pop_front());
        }
        payload
    }

    fn rotate(&mut self, payload: usize) -> Step {
        assert!(self.gathered.is_empty(), "nothing waits in a segment that is full");
        self.flight = Flight::Rotation;
        let needed = FIRST_OFFSET + envelope::disk_bytes(payload) as u64;
        Step::Rotate(Next {
            number: self.segment().number + 1,
            bytes: self.tail.segment_bytes.max(needed),
            predecessor: Predecessor {
                sequence: self.tail.sequence,
                last: self.tail.last,
                peak: self.tail.peak,
            },
        })
    }

    fn header(&self, payload: usize) -> Header {
        let mut frames = self.gathered.iter().flat_map(|plan| &plan.frames);
        let first = frames.clone().next().expect("the payload is not empty");
        let last = frames.clone().last().expect("the payload is not empty");
        let count = u32::try_from(frames.by_ref().count()).expect("bounded by the envelope's bytes");
        Header {
            frames: count,
            sequence: self.tail.sequence + 1,
            payload: payload as u64,
            previous: first.previous(),
            first_term: first.term(),
            last: last.id(),
            commit: self.commit.min(last.index()),
            log_mark: self.tail.sequence,
            state_mark: self.tail.state.sequence,
            peak: self.tail.peak,
        }
    }

    /// The commit mark of a state record is the flushed one: it must not speak of entries that are only now
    /// being written, which may replace others at the same indices.
    fn next_state(&self, hard_state: HardState) -> StateRecord {
        let old = self.tail.state.hard_state;
        assert!(hard_state.term >= old.term, "terms never fall (thesis 3.3)");
        assert!(
            hard_state.term > old.term || old.vote.is_none() || hard_state.vote == old.vote,
            "one vote in a term (thesis 3.4)"
        );
        StateRecord {
            hard_state,
            log_mark: self.tail.sequence,
            commit: self.tail.commit,
            newest_segment: self.segment().number,
            first_segment: self.first_needed(),
            peak: self.tail.peak,
            ..self.tail.state.successor()
        }
    }

    fn segment(&self) -> &SegmentHeader {
        self.tail.segments.last().expect("a log has a segment")
    }

    /// Writes the image of the envelope in flight.
    pub fn fill_envelope(&self, out: &mut [u8]) {
        self.fill_around(out, 0);
    }

    /// The same, where the first `staged` bytes of the queue's frames were put in their place beforehand.
    pub(crate) fn fill_around(&self, out: &mut [u8], staged: usize) {
        let Flight::Write { envelope: Some(header), .. } = &self.flight else {
            unreachable!("the driver fills what it was told to write");
        };
        assert_eq!(out.len() as u64, header.disk_bytes(), "the buffer is the extent");
        header.fill(self.segment(), out);
        let staged = envelope::HEADER_BYTES + staged;
        let mut at = envelope::HEADER_BYTES;
        for frame in self.gathered.iter().flat_map(|plan| &plan.frames) {
            let bytes = frame.bytes();
            let place = &mut out[at..at + bytes.len()];
            if at + bytes.len() <= staged {
                // The header holds the hash of the body: another frame than this one is not taken for it.
                assert_eq!(
                    place[..frame::HEADER_BYTES],
                    bytes[..frame::HEADER_BYTES],
                    "what was staged is what is written"
                );
            } else {
                place.copy_from_slice(bytes);
            }
            at += bytes.len();
        }
        assert_eq!(
            at as u64,
            envelope::HEADER_BYTES as u64 + header.payload,
            "the frames are what was planned"
        );
        out[at..].fill(0);
    }

    /// Plans that wait for the next write, in order.
    pub(crate) fn queued(&self) -> impl Iterator<Item = &WritePlan> {
        self.queued.iter()
    }

    /// Writes the image of the state's slot in flight.
    pub fn fill_state(&self, out: &mut [u8]) {
        let Flight::Write { state: Some(state), .. } = &self.flight else {
            unreachable!("the driver fills what it was told to write");
        };
        assert_ne!(state.offset(), self.tail.state.offset(), "the newest slot is never written over");
        state.fill(out);
    }

    /// Both parts of the write are written and flushed.
    pub fn handle_written(&mut self) {
        let Flight::Write { envelope, state } = std::mem::replace(&mut self.flight, Flight::None) else {
            unreachable!("a write was in flight");
        };
        assert!(self.latch.is_none(), "nothing completes after a failure");
        if let Some(header) = envelope {
            let at = Position { segment: self.segment().number, offset: self.tail.offset };
            let bytes = header.disk_bytes();
            self.tail.positions.push(Placed {
                first: header.first_index(),
                last: header.last.index,
                at,
                bytes,
                sequence: header.sequence,
            });
            self.tail.offset += bytes;
            if crate::mutant!("tail_block_rewritten") && bytes > BLOCK_U64 {
                self.tail.offset -= BLOCK_U64;
            }
            assert!(self.tail.offset <= self.segment().bytes, "an envelope ends within its segment");
            self.tail.sequence = header.sequence;
            self.tail.last = header.last;
            self.tail.peak = self.tail.peak.max(header.last.into());
            self.stats.frames += u64::from(header.frames);
            self.stats.frame_bytes += header.payload;
            self.count_write(bytes);
        }
        if let Some(state) = state {
            assert_eq!(state.sequence, self.tail.state.sequence + 1, "state records are dense");
            assert!(state.log_mark <= self.tail.sequence, "a mark speaks of what is flushed");
            self.tail.state = state;
            if state.first_segment > self.tail.segments[0].number {
                self.forget_before(state.first_segment);
            }
            self.count_write(BLOCK_U64);
        }
        self.acknowledge();
    }

    fn count_write(&mut self, bytes: u64) {
        self.stats.writes += 1;
        self.stats.flushes += 1;
        self.stats.disk_bytes += bytes;
    }

    fn acknowledge(&mut self) {
        let commit = self.commit.min(self.tail.last.index);
        assert!(commit >= self.tail.commit, "the commit index never falls");
        self.tail.commit = commit;
        for plan in &self.gathered {
            self.queued_bytes -= plan.frame_bytes();
        }
        if let Some(newest) = self.gathered.last() {
            self.events.push_back(LogEvent::Flushed(Flushed::new(newest.id)));
        }
        self.gathered.clear();
    }

    /// The segment asked for is on disk under its name.
    pub fn handle_rotated(&mut self, header: SegmentHeader) {
        assert!(matches!(self.flight, Flight::Rotation), "a segment was asked for");
        assert_eq!(header.number, self.segment().number + 1, "segments are dense");
        assert_eq!(header.predecessor.sequence, self.tail.sequence, "nothing was written meanwhile");
        self.flight = Flight::None;
        self.tail.segments.push(header);
        self.tail.offset = FIRST_OFFSET;
        self.spare_wanted = true;
        self.stats.segments += 1;
    }

    /// The latch. Whatever was in flight is lost for this process; the first reason is reported, once.
    pub fn handle_failed(&mut self, error: LogError) {
        if self.latch.is_none() {
            self.events.push_back(LogEvent::Failed(error.clone()));
            if crate::mutant!("continue_after_failed_write") {
                return self.handle_written();
            }
            self.latch = Some(error);
        }
    }

    /// True once per segment, when half of it is used: time to write the zeros of the next one.
    pub fn poll_spare(&mut self) -> Option<u64> {
        let due = self.spare_wanted && self.latch.is_none() && self.tail.offset >= self.segment().bytes / 2;
        due.then(|| {
            self.spare_wanted = false;
            self.tail.segment_bytes
        })
    }

    /// When nothing is left to write: the record that says so. `None` if something is left, or nothing may be
    /// written.
    pub fn poll_close(&mut self) -> Option<Step> {
        if !self.is_idle() || self.latch.is_some() || self.tail.state.clean {
            return None;
        }
        let state = StateRecord { clean: true, ..self.next_state(self.tail.state.hard_state) };
        assert_eq!(state.log_mark, self.tail.sequence, "a clean record is exact");
        assert_eq!(state.held, self.tail.state.held, "an orderly end heals nothing");
        self.flight = Flight::Write { envelope: None, state: Some(state) };
        Some(Step::Write { envelope: None, state: Some(state.offset()) })
    }

    /// The newest state record that is flushed.
    #[must_use]
    pub fn state(&self) -> &StateRecord {
        &self.tail.state
    }

    /// Nothing queued and nothing in flight.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.queued.is_empty() && matches!(self.flight, Flight::None)
    }

    /// Why nothing is acknowledged any more.
    #[must_use]
    pub fn latch(&self) -> Option<&LogError> {
        self.latch.as_ref()
    }

    /// Asks for old entries; the answer is an event.
    pub fn fetch(&mut self, fetch: Fetch) {
        self.reader.push(fetch);
    }

    /// The next read for a fetch, if none is outstanding.
    pub fn poll_read(&mut self) -> Option<Read> {
        loop {
            match self.reader.poll_read(&self.tail.positions, &self.tail.segments)? {
                Ok(read) => return Some(read),
                Err(event) => self.events.push_back(event),
            }
        }
    }

    /// What a read brought; another one may follow from it.
    pub fn handle_read(&mut self, result: Result<Bytes, FetchError>) -> Option<Read> {
        let result = self.reader.outdated(&self.tail.positions).map_or(result, Err);
        match self.reader.handle_read(result) {
            Ok(read) => Some(read),
            Err(event) => {
                self.events.push_back(event);
                None
            }
        }
    }

    /// What the log's user may know, in order.
    pub fn poll_event(&mut self) -> Option<LogEvent> {
        self.events.pop_front()
    }

    /// Bytes of frames not yet on disk.
    #[must_use]
    pub fn queued_bytes(&self) -> usize {
        self.queued_bytes
    }

    /// Counters since the start.
    #[must_use]
    pub fn stats(&self) -> LogStats {
        LogStats { queued_bytes: self.queued_bytes, ..self.stats }
    }
}
