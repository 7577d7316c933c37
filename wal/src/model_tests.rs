//! The writer and the opening against a model that keeps nothing but lists: after every write, the record, the header and the
//! counters are what the model says, and an opening finds exactly what the writer knew.
//!
//! A power cut in the middle of a write leaves the log with it or without it, and what the cut says is exact.

use crate::envelope::{HEADER_BYTES, Header};
use crate::frame::Frame;
use crate::id::{EntryId, HardState, LogIndex, NodeId, Term};
use crate::journal::{ENVELOPE_BYTES, Step};
use crate::memory::{Disk, IDENTITY, Machine, Name, hard_state};
use crate::plan::{Fetch, LogEvent, LogStats, WriteId, WritePlan};
use crate::positions::Position;
use crate::scan::Cut;
use crate::sector::{BLOCK, SECTOR};
use crate::segment::Predecessor;
use crate::state::{Held, StateRecord};

const SEGMENT_BYTES: u64 = 24 << 10;

/// Xorshift; a seed says everything.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }

    fn one_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }
}

/// An envelope that was flushed.
#[derive(Clone, Debug)]
struct Written {
    segment: u64,
    first: u64,
    last: u64,
    bytes: u64,
}

/// A segment that was begun.
#[derive(Clone, Copy, Debug)]
struct Begun {
    number: u64,
    bytes: u64,
    predecessor: Predecessor,
}

/// What is flushed, and what may be forgotten.
#[derive(Clone, Debug)]
struct Model {
    base: EntryId,
    log: Vec<Frame>,
    writes: Vec<Written>,
    segments: Vec<Begun>,
    offset: u64,
    sequence: u64,
    peak: Held,
    commit: LogIndex,
    /// The commit index that the files hold: the next start knows no newer one.
    on_disk: LogIndex,
    state: StateRecord,
    unneeded: u64,
}

impl Model {
    fn last(&self) -> EntryId {
        self.log.last().map_or(self.base, Frame::id)
    }

    fn id(&self, index: LogIndex) -> EntryId {
        let at = index.0 - self.base.index.0;
        if at == 0 { self.base } else { self.log[usize::try_from(at - 1).expect("few")].id() }
    }

    fn segment(&self) -> Begun {
        *self.segments.last().expect("never empty")
    }

    /// The newest segment with which a log can begin that has everything that is needed or not known to be committed.
    fn first_needed(&self) -> u64 {
        let may_be_base = |begun: &&Begun| {
            let before = begun.predecessor.last.index;
            before.0 < self.unneeded && before <= self.commit
        };
        let rest = self.segments[1..].iter().take_while(may_be_base);
        let lives = |begun: &&Begun| self.id(begun.predecessor.last.index) == begun.predecessor.last;
        rest.filter(lives).last().unwrap_or(&self.segments[0]).number
    }

    fn append(&mut self, frames: &[Frame]) {
        let Some(first) = frames.first() else { return };
        self.log.truncate(usize::try_from(first.previous().index.0 - self.base.index.0).expect("few"));
        assert_eq!(first.previous(), self.last());
        self.log.extend_from_slice(frames);
    }

    fn wrote(&mut self, frames: &[Frame], commit: LogIndex, bytes: u64) {
        let (first, last) = (frames[0].index().0, frames[frames.len() - 1].index().0);
        self.writes.push(Written { segment: self.segment().number, first, last, bytes });
        self.append(frames);
        self.offset += bytes;
        self.sequence += 1;
        self.peak = self.peak.max(self.last().into());
        self.commit = self.commit.max(commit).min(self.last().index);
        self.on_disk = self.commit;
    }

    /// A record is flushed: the log may begin later from then on.
    fn recorded(&mut self, record: StateRecord) {
        self.state = record;
        self.on_disk = self.on_disk.max(record.commit);
        self.begin_with(record.first_segment);
    }

    fn begin_with(&mut self, segment: u64) {
        self.segments.retain(|begun| begun.number >= segment);
        self.writes.retain(|write| write.segment >= segment);
        let base = self.segments[0].predecessor.last;
        self.log.drain(..usize::try_from(base.index.0 - self.base.index.0).expect("few"));
        self.base = base;
    }

    /// The next record, if nothing but these changes.
    fn record(&self, hard_state: HardState, clean: bool) -> StateRecord {
        StateRecord {
            sequence: self.state.sequence + 1,
            parent: self.state.hash(),
            hard_state,
            log_mark: self.sequence,
            commit: self.commit,
            newest_segment: self.segment().number,
            first_segment: self.first_needed(),
            clean,
            peak: self.peak,
            ..self.state
        }
    }

    /// First indices that are found from a mark of their own: a segment's, and those of what replaced something.
    fn marks(&self) -> Vec<u64> {
        let mut marks = Vec::new();
        let (mut last, mut segment) = (self.base.index.0, 0);
        for write in &self.writes {
            let replaces = write.first <= last;
            marks.retain(|&mark| mark < write.first);
            if replaces || marks.is_empty() || segment != write.segment {
                marks.push(write.first);
            }
            (last, segment) = (write.last, write.segment);
        }
        marks
    }

    fn superseded(&self) -> u64 {
        let mut last = self.base.index.0;
        let each = self.writes.iter().map(|write| {
            let replaced = last + 1 - write.first;
            last = write.last;
            replaced
        });
        each.sum()
    }

    /// An opening of the disk, with nothing in flight, finds this.
    fn check(&self, disk: &Disk) {
        let found = disk.inspect().expect("whole");
        let scanned = &found.scanned;
        assert_eq!(found.state, self.state);
        assert_eq!(found.frames, self.log);
        assert_eq!((scanned.offset, scanned.sequence), (self.offset, self.sequence));
        assert_eq!((scanned.last, scanned.peak), (self.last(), self.peak));
        assert_eq!(scanned.commit, self.on_disk);
        assert_eq!(scanned.cut, None);
        assert!(scanned.damaged.is_none());
        assert_eq!(scanned.envelopes, self.writes.len() as u64);
        assert_eq!(scanned.superseded, self.superseded());
        assert_eq!(scanned.bytes, self.writes.iter().map(|write| write.bytes).sum::<u64>());
        let begun = |of: &Begun| (of.number, of.bytes, of.predecessor);
        let segments: Vec<_> =
            scanned.segments.iter().map(|of| (of.number, of.bytes, of.predecessor)).collect();
        assert_eq!(segments, self.segments.iter().map(begun).collect::<Vec<_>>());
    }
}

/// A writer, its model, and what was submitted and is not flushed.
struct Run {
    random: Random,
    machine: Machine,
    model: Model,
    queued: Vec<WritePlan>,
    stats: LogStats,
    plans: u64,
    tag: u64,
    term: Term,
    owes_mark: bool,
    seen: Seen,
}

/// How often what is rare happened.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    cuts: usize,
    whole: usize,
    dropped: usize,
    /// The last entry was not the furthest that there had been.
    fallen: usize,
    large: usize,
    fetched: usize,
}

/// What the next write has to be.
struct Expected {
    plans: usize,
    frames: Vec<Frame>,
    commit: LogIndex,
    state: Option<StateRecord>,
}

impl Run {
    fn new(seed: u64, seen: Seen) -> Self {
        let machine = Machine::new(SEGMENT_BYTES);
        let state = machine.journal_state();
        let origin = IDENTITY.origin();
        let predecessor = Predecessor { sequence: 0, last: origin, peak: Held::default() };
        let model = Model {
            base: origin,
            log: Vec::new(),
            writes: Vec::new(),
            segments: vec![Begun { number: 1, bytes: SEGMENT_BYTES, predecessor }],
            offset: BLOCK as u64,
            sequence: 0,
            peak: Held::default(),
            commit: LogIndex::ZERO,
            on_disk: LogIndex::ZERO,
            state,
            unneeded: 0,
        };
        let random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        Self {
            random,
            machine,
            model,
            queued: Vec::new(),
            stats: LogStats::default(),
            plans: 0,
            tag: 0,
            term: Term(1),
            owes_mark: false,
            seen,
        }
    }

    /// The log as it will be when everything submitted is flushed, and the commit index then.
    fn ahead(&self) -> (Model, LogIndex) {
        let mut ahead = self.model.clone();
        let mut commit = ahead.commit;
        for plan in &self.queued {
            ahead.append(&plan.frames);
            commit = commit.max(plan.commit);
        }
        (ahead, commit)
    }

    fn submit(&mut self) {
        let (ahead, committed) = self.ahead();
        let hard_state = self.random.one_in(4).then(|| {
            self.term = self.term.next();
            hard_state(self.term, self.random.one_in(2).then_some(NodeId(3)))
        });
        let mut frames = Vec::new();
        if !self.random.one_in(5) {
            let room = ahead.last().index.0 - committed.0;
            let back = if self.random.one_in(3) { self.random.below(room + 1) } else { 0 };
            self.machine.last = ahead.id(LogIndex(ahead.last().index.0 - back));
            for _ in 0..=self.random.below(3) {
                // A leader may send what an earlier one made: the term need not be the newest.
                let least = self.machine.last.term.0.max(1);
                self.machine.term = Term(least + self.random.below(self.term.0.max(least) - least + 1));
                let size = [3, 40, 40, 900, 3_700, 6_000, 26_000]
                    [usize::try_from(self.random.below(7)).expect("few")];
                self.tag += 1;
                let mut body = vec![0x61; size];
                body.extend_from_slice(&self.tag.to_le_bytes());
                frames.push(self.machine.frame(&body));
            }
        }
        let last = frames.last().map_or(ahead.last().index, Frame::index);
        let commit = LogIndex(committed.0 + self.random.below(last.0 - committed.0 + 1));
        let commit = if self.random.one_in(3) { commit } else { LogIndex::ZERO };
        self.plans += 1;
        let plan = WritePlan { id: WriteId(self.plans), hard_state, frames, commit, whole: false };
        self.machine.journal.submit(plan.clone());
        self.queued.push(plan);
        self.owes_mark = false;
    }

    /// The plans that go together: those that continue each other, as many as the segment has room for.
    fn expected(&self) -> Expected {
        let room = self.model.segment().bytes - self.model.offset;
        let (mut plans, mut frames, mut commit) = (0, Vec::<Frame>::new(), LogIndex::ZERO);
        for plan in &self.queued {
            if let Some(first) = plan.frames.first() {
                let continues = frames.last().is_none_or(|last| first.follows(last.id()));
                let bytes: usize = frames.iter().chain(&plan.frames).map(|frame| frame.bytes().len()).sum();
                let fits = (HEADER_BYTES + bytes).next_multiple_of(BLOCK) as u64 <= room;
                if !continues || !fits {
                    break;
                }
                frames.extend_from_slice(&plan.frames);
            }
            plans += 1;
            commit = commit.max(plan.commit);
        }
        let given = self.queued[..plans].iter().rev().find_map(|plan| plan.hard_state);
        let known = self.model.state;
        let owed = self.model.segment().number > known.newest_segment
            || self.model.first_needed() > known.first_segment;
        let hard_state = given.or((owed && plans > 0).then_some(known.hard_state));
        let state = hard_state.map(|hard_state| self.model.record(hard_state, false));
        Expected { plans, frames, commit, state }
    }

    /// Asks for the next write, and checks it. False if there is nothing to do.
    fn start(&mut self) -> Option<Expected> {
        let mut expected = self.expected();
        let mut step = self.machine.journal.poll_step();
        if let Step::Rotate(next) = step {
            assert_eq!(expected.plans, 0, "a segment ends when the next plan has no room");
            let needs = self.queued[0].frame_bytes();
            let needs = (BLOCK + (HEADER_BYTES + needs).next_multiple_of(BLOCK)) as u64;
            let begun = Begun {
                number: self.model.segment().number + 1,
                bytes: SEGMENT_BYTES.max(needs),
                predecessor: Predecessor {
                    sequence: self.model.sequence,
                    last: self.model.last(),
                    peak: self.model.peak,
                },
            };
            assert_eq!(
                (next.number, next.bytes, next.predecessor),
                (begun.number, begun.bytes, begun.predecessor)
            );
            let header = self.machine.disk.make(next);
            self.machine.journal.handle_rotated(header);
            self.model.segments.push(begun);
            self.model.offset = BLOCK as u64;
            self.stats.segments += 1;
            self.seen.large += usize::from(begun.bytes > SEGMENT_BYTES);
            expected = self.expected();
            step = self.machine.journal.poll_step();
        }
        if expected.plans == 0 {
            // An idle log's mark, or what a log that may be shorter has to say first.
            let marks =
                std::mem::take(&mut self.owes_mark) && self.model.sequence > self.model.state.log_mark;
            if !marks && self.model.first_needed() == self.model.state.first_segment {
                assert_eq!(step, Step::Nothing);
                return None;
            }
            expected.state = Some(self.model.record(self.model.state.hard_state, false));
        }
        let Step::Write { envelope, state } = step else {
            assert_eq!(step, Step::Nothing);
            assert!(expected.frames.is_empty() && expected.state.is_none(), "only barriers need no write");
            self.acknowledged(&expected);
            return None;
        };
        let bytes: usize = expected.frames.iter().map(|frame| frame.bytes().len()).sum();
        let bytes = (bytes > 0).then(|| (HEADER_BYTES + bytes).next_multiple_of(BLOCK));
        let at = Position { segment: self.model.segment().number, offset: self.model.offset };
        assert_eq!(envelope.map(|extent| (extent.at, extent.bytes)), bytes.map(|bytes| (at, bytes)));
        assert_eq!(state, expected.state.map(|record| record.offset()));
        assert!(!self.machine.journal.is_idle(), "a write is in flight");
        assert_eq!(self.machine.journal.poll_step(), Step::Nothing, "and no other one");
        assert!(self.machine.journal.poll_close().is_none(), "nothing ends while it is");
        assert!(self.machine.begin(step));
        for (name, _, image) in &self.machine.pending {
            match name {
                Name::State => {
                    let mut block = vec![0; BLOCK];
                    expected.state.expect("it was asked for").fill(&mut block);
                    assert!(*image == block, "the record is the model's");
                }
                Name::Segment(_) => self.check_image(image, &expected),
            }
        }
        Some(expected)
    }

    fn check_image(&self, image: &[u8], expected: &Expected) {
        let file = &self.machine.disk.segments[&self.model.segment().number];
        let segment = crate::segment::SegmentHeader::parse(&file[..BLOCK], &IDENTITY).expect("a header");
        let header = Header::parse(image, &segment, self.model.offset).expect("whole");
        let (first, last) = (&expected.frames[0], &expected.frames[expected.frames.len() - 1]);
        let payload: usize = expected.frames.iter().map(|frame| frame.bytes().len()).sum();
        assert_eq!(
            header,
            Header {
                frames: u32::try_from(expected.frames.len()).expect("few"),
                sequence: self.model.sequence + 1,
                payload: payload as u64,
                previous: first.previous(),
                first_term: first.term(),
                last: last.id(),
                commit: self.model.commit.max(expected.commit).min(last.index()),
                log_mark: self.model.sequence,
                state_mark: self.model.state.sequence,
                peak: self.model.peak,
            }
        );
        let frames: Vec<u8> = expected.frames.iter().flat_map(|frame| frame.bytes().to_vec()).collect();
        assert!(image[HEADER_BYTES..][..payload] == frames, "the frames as they are");
        assert!(image[HEADER_BYTES + payload..].iter().all(|&byte| byte == 0), "then zeros");
    }

    /// The model has the write too.
    fn flushed(&mut self, expected: &Expected) {
        self.seen.fallen += usize::from(self.model.peak > self.model.last().into());
        if !expected.frames.is_empty() {
            let bytes: usize = expected.frames.iter().map(|frame| frame.bytes().len()).sum();
            let disk = (HEADER_BYTES + bytes).next_multiple_of(BLOCK) as u64;
            self.model.wrote(&expected.frames, expected.commit, disk);
            self.stats.frames += expected.frames.len() as u64;
            self.stats.frame_bytes += bytes as u64;
            self.count(disk);
        }
        if let Some(record) = expected.state {
            self.count(BLOCK as u64);
            self.model.recorded(record);
        }
        self.model.commit = self.model.commit.max(expected.commit).min(self.model.last().index);
    }

    fn count(&mut self, bytes: u64) {
        self.stats.writes += 1;
        self.stats.flushes += 1;
        self.stats.disk_bytes += bytes;
    }

    /// One event for all plans that went together: the newest one's.
    fn acknowledged(&mut self, expected: &Expected) {
        self.model.commit = self.model.commit.max(expected.commit).min(self.model.last().index);
        let newest = self.queued.drain(..expected.plans).next_back().map(|plan| plan.id);
        let event = match self.machine.journal.poll_event() {
            Some(LogEvent::Flushed(flushed)) => Some(flushed.id()),
            None => None,
            other => panic!("{other:?}"),
        };
        assert_eq!(event, newest);
        assert!(self.machine.journal.poll_event().is_none(), "and no other one");
    }

    /// Everything submitted becomes durable, step by step.
    fn settle(&mut self) {
        loop {
            let before = self.queued.len();
            if let Some(expected) = self.start() {
                for (name, at, image) in std::mem::take(&mut self.machine.pending) {
                    self.machine.disk.file(name)[at..][..image.len()].copy_from_slice(&image);
                }
                self.machine.journal.handle_written();
                self.flushed(&expected);
                self.acknowledged(&expected);
                self.remove_dropped();
            } else if self.queued.len() == before {
                break;
            }
            self.check();
        }
        assert!(self.queued.is_empty() && self.machine.journal.is_idle());
        assert_eq!(self.machine.journal.poll_step(), Step::Nothing);
    }

    fn remove_dropped(&mut self) {
        let first = self.model.segments[0].number;
        while let Some(number) = self.machine.journal.poll_dropped() {
            assert!(number < first, "{number} is needed");
            self.machine.disk.segments.remove(&number).expect("it was there");
            self.seen.dropped += 1;
        }
        assert_eq!(self.machine.disk.segments.keys().next(), Some(&first), "all that may go went");
    }

    fn check(&mut self) {
        let journal = &self.machine.journal;
        assert_eq!(*journal.state(), self.model.state);
        assert_eq!(journal.is_idle(), self.queued.is_empty());
        assert_eq!(journal.mark_owed(), self.model.sequence > self.model.state.log_mark);
        let queued: usize = self.queued.iter().map(WritePlan::frame_bytes).sum();
        assert_eq!(journal.queued_bytes(), queued);
        assert_eq!(journal.stats(), LogStats { queued_bytes: queued, ..self.stats });
    }

    /// Some entries, with some limit on bytes.
    fn fetch(&mut self) {
        let last = self.model.last().index.0;
        let from = self.model.base.index.0 + self.random.below(last - self.model.base.index.0 + 2);
        // Around the bytes of the first so many.
        let many = usize::try_from(self.random.below(4)).expect("few");
        let at = usize::try_from(from - self.model.base.index.0).expect("few");
        let first = self.model.log.iter().skip(at.saturating_sub(1)).take(many);
        let bytes: usize = first.map(|frame| frame.bytes().len()).sum();
        let max_bytes = [bytes, bytes.saturating_sub(1), bytes + 1, 1 << 20]
            [usize::try_from(self.random.below(4)).expect("few")];
        let token = self.random.below(1 << 30);
        self.machine.journal.fetch(Fetch { token, from: LogIndex(from), max_bytes });
        let mut read = self.machine.journal.poll_read();
        while let Some(wanted) = read {
            assert!(self.machine.journal.poll_read().is_none(), "one read at a time");
            let at = usize::try_from(wanted.at.offset).expect("small");
            let bytes = self.machine.disk.segments[&wanted.at.segment][at..][..wanted.length].to_vec();
            read = self.machine.journal.handle_read(Ok(bytes.into()));
        }
        let event = self.machine.journal.poll_event();
        if from <= self.model.base.index.0 || from > last {
            assert!(
                matches!(event, Some(LogEvent::FetchFailed { token: of, .. }) if of == token),
                "{event:?}"
            );
            return;
        }
        let until = self.model.marks().into_iter().find(|&mark| mark > from).unwrap_or(last + 1);
        let mut wanted = Vec::new();
        let mut taken = 0;
        for index in from..until {
            if taken >= max_bytes && !wanted.is_empty() {
                break;
            }
            let frame = &self.model.log[usize::try_from(index - self.model.base.index.0 - 1).expect("few")];
            taken += frame.bytes().len();
            wanted.push(frame.clone());
        }
        match event {
            Some(LogEvent::Fetched { token: of, frames }) => {
                self.seen.fetched += usize::from(frames.len() > 1);
                assert_eq!((of, frames), (token, wanted));
            }
            other => panic!("entries {from} to {until}: {other:?}"),
        }
    }

    /// The directory is opened; nothing was in flight, or what was is decided.
    fn reopened(&mut self, disk: Disk) {
        let clean = self.model.state.clean;
        let opening = disk.decide(crate::damage::Damage::Refuse).expect("whole");
        assert_eq!((opening.was_clean(), opening.identity()), (clean, IDENTITY));
        assert_eq!((opening.held(), opening.damaged()), (None, None));
        let machine = disk.open_under(crate::damage::Damage::Refuse).expect("whole");
        let (last, old) = (self.model.last(), self.model.state);
        let hard_state =
            if last.term > old.hard_state.term { hard_state(last.term, None) } else { old.hard_state };
        // An opening only says what is there; what may go is not known to it.
        self.model.unneeded = 0;
        let record = StateRecord {
            openings: old.openings + 1,
            first_segment: old.first_segment,
            ..self.model.record(hard_state, false)
        };
        self.model.state = record;
        self.machine = machine;
        self.term = Term(self.term.0.max(record.hard_state.term.0));
        self.stats = LogStats::default();
        self.plans = 0;
        self.queued.clear();
        self.owes_mark = false;
        assert_eq!(self.machine.journal_state(), record);
        assert_eq!(self.machine.last, last);
        self.check();
        self.model.check(&self.machine.disk);
    }

    fn close(&mut self) {
        self.settle();
        let step = self.machine.journal.poll_close().expect("it is idle");
        let record = self.model.record(self.model.state.hard_state, true);
        assert_eq!(step, Step::Write { envelope: None, state: Some(record.offset()) });
        assert!(self.machine.begin(step));
        for (name, at, image) in std::mem::take(&mut self.machine.pending) {
            self.machine.disk.file(name)[at..][..image.len()].copy_from_slice(&image);
        }
        self.machine.journal.handle_written();
        self.model.recorded(record);
        self.remove_dropped();
        assert!(self.machine.journal.poll_close().is_none(), "it ends once");
        self.model.check(&self.machine.disk);
        let disk = self.machine.disk.clone();
        self.reopened(disk);
    }

    /// The power goes in the middle of a write: some of its sectors are there.
    fn crash(&mut self) {
        while let Some(expected) = self.start() {
            if self.random.one_in(2) {
                self.cut_power(&expected);
                return;
            }
            for (name, at, image) in std::mem::take(&mut self.machine.pending) {
                self.machine.disk.file(name)[at..][..image.len()].copy_from_slice(&image);
            }
            self.machine.journal.handle_written();
            self.flushed(&expected);
            self.acknowledged(&expected);
            self.remove_dropped();
        }
    }

    fn cut_power(&mut self, expected: &Expected) {
        let many = self.random.below(5);
        let mut whole = !expected.frames.is_empty();
        let mut record_is_there = false;
        let mut until = None;
        let mut disk = self.machine.disk.clone();
        for (name, at, image) in std::mem::take(&mut self.machine.pending) {
            for sector in (0..image.len()).step_by(SECTOR) {
                let bytes = &image[sector..][..SECTOR];
                let kept = match many {
                    0 => false,
                    4 => true,
                    _ => self.random.below(4) < many,
                };
                if kept {
                    disk.file(name)[at + sector..][..SECTOR].copy_from_slice(bytes);
                }
                let blank = bytes.iter().all(|&byte| byte == 0);
                match name {
                    Name::State => record_is_there |= kept,
                    Name::Segment(_) if kept && !blank => {
                        until = Some((at + sector / BLOCK * BLOCK + BLOCK) as u64);
                    }
                    Name::Segment(_) => whole &= kept || blank,
                }
            }
        }
        let cut = until.filter(|_| !whole).map(|until| Cut {
            at: Position { segment: self.model.segment().number, offset: self.model.offset },
            until,
            sequence: self.model.sequence + 1,
        });
        let opening = disk.decide(crate::damage::Damage::Refuse).expect("a tear is no damage");
        assert_eq!(opening.cut(), cut);
        let mut after = self.model.clone();
        if whole {
            let bytes: usize = expected.frames.iter().map(|frame| frame.bytes().len()).sum();
            after.wrote(
                &expected.frames,
                expected.commit,
                (HEADER_BYTES + bytes).next_multiple_of(BLOCK) as u64,
            );
        }
        if record_is_there && let Some(record) = expected.state {
            after.recorded(record);
        }
        self.seen.cuts += usize::from(cut.is_some());
        self.seen.whole += usize::from(whole && cut.is_none());
        after.commit = after.on_disk;
        self.model = after;
        self.reopened(disk);
    }
}

#[test]
fn the_writer_and_the_opening_do_what_a_model_of_lists_does() {
    let mut seen = Seen::default();
    for seed in 1..=60 {
        let mut run = Run::new(seed, seen);
        for _ in 0..60 {
            match run.random.below(12) {
                0..6 => {
                    for _ in 0..=run.random.below(3) {
                        run.submit();
                    }
                    run.check();
                    run.settle();
                }
                6 | 7 => (0..4).for_each(|_| run.fetch()),
                8 => {
                    run.model.unneeded =
                        run.model.unneeded.max(run.random.below(run.model.last().index.0 + 2));
                    run.machine.journal.drop_below(LogIndex(run.model.unneeded));
                    run.settle();
                }
                9 => {
                    run.machine.journal.mark();
                    run.owes_mark = run.model.sequence > run.model.state.log_mark;
                    run.settle();
                }
                10 => {
                    run.submit();
                    run.submit();
                    run.crash();
                }
                _ => run.close(),
            }
        }
        seen = run.seen;
    }
    let Seen { cuts, whole, dropped, fallen, large, fetched } = seen;
    assert!([cuts, whole, dropped, fallen, large, fetched].iter().all(|&times| times > 30), "{seen:?}");
}

/// Plans share an envelope up to the limit exactly; one that is larger goes alone.
#[test]
fn plans_share_an_envelope_up_to_the_limit() {
    let overhead = crate::frame::HEADER_BYTES + 4;
    for (more, together) in [(0, 2), (8, 1)] {
        let mut machine = Machine::new(16 << 20);
        for size in [ENVELOPE_BYTES / 2 - overhead, ENVELOPE_BYTES / 2 - overhead + more] {
            let frame = machine.frame(&vec![7; size]);
            machine.submit(None, vec![frame], LogIndex::ZERO);
        }
        machine.run();
        assert_eq!(machine.journal.stats().writes, 3 - together);
        let found = machine.disk.inspect().expect("whole");
        assert_eq!((found.scanned.envelopes, found.frames.len()), (3 - together, 2));
    }
}
