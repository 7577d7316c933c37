//! For tests: a disk in memory under the real journal and the real recovery.
//!
//! What is written is pending until the flush; a power cut keeps any subset of the pending sectors.

use crate::damage::Damage;
use crate::entries::entries;
use crate::frame::{Frame, FrameBuilder, FrameHead};
use crate::id::{ClusterId, EntryId, GroupId, HardState, LogIndex, NodeId, Term};
use crate::journal::{Journal, Next, Step, Tail};
use crate::opening::{Change, Opening, Rules, read_state};
use crate::plan::{Fetch, FetchError, LogEvent, WriteId, WritePlan};
use crate::scan::{Refused, Scanned, SegmentFile};
use crate::sector::{BLOCK, SECTOR};
use crate::segment::{Identity, SegmentHeader};
use crate::state::{self, StateRecord};
use bytes::Bytes;
use std::collections::BTreeMap;

pub(crate) const IDENTITY: Identity =
    Identity { cluster: ClusterId(5), node: NodeId(2), group: GroupId::FIRST };

pub(crate) fn hard_state(term: Term, vote: Option<NodeId>) -> HardState {
    HardState { term, vote, ..HardState::default() }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Name {
    State,
    Segment(u64),
}

/// The bytes that a power cut leaves.
#[derive(Clone, Debug)]
pub(crate) struct Disk {
    pub state: Vec<u8>,
    pub segments: BTreeMap<u64, Vec<u8>>,
    pub segment_bytes: u64,
    nonce: u128,
}

/// A log that passed, with everything it serves.
pub(crate) struct Found {
    pub scanned: Scanned,
    pub state: StateRecord,
    pub frames: Vec<Frame>,
}

impl Disk {
    pub(crate) fn new(segment_bytes: u64) -> Self {
        let (_, state) = state::initial_file(IDENTITY);
        Self { state, segments: BTreeMap::new(), segment_bytes, nonce: 1 << 64 }
    }

    /// Equal for equal bytes.
    pub(crate) fn digest(&self) -> u128 {
        let mut hash = xxhash_rust::xxh3::Xxh3::new();
        hash.update(&self.state);
        for (number, bytes) in &self.segments {
            hash.update(&number.to_le_bytes());
            hash.update(&(bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        }
        hash.digest128()
    }

    pub(crate) fn file(&mut self, name: Name) -> &mut Vec<u8> {
        match name {
            Name::State => &mut self.state,
            Name::Segment(number) => self.segments.get_mut(&number).expect("a segment that was made"),
        }
    }

    pub(crate) fn make(&mut self, next: Next) -> SegmentHeader {
        self.nonce += 1;
        let header = next.header(IDENTITY, self.nonce);
        let mut file = vec![0; usize::try_from(next.bytes).expect("small")];
        header.fill(&mut file[..BLOCK]);
        self.segments.insert(next.number, file);
        header
    }

    pub(crate) fn decide(&self, damage: Damage) -> Result<Opening, Refused> {
        let state = read_state(&self.state, &IDENTITY)?;
        let file = |(&number, bytes): (&u64, &Vec<u8>)| SegmentFile {
            number,
            blocks: Bytes::copy_from_slice(bytes),
        };
        let files: Vec<_> = self.segments.iter().map(file).collect();
        Opening::decide(state, &files, Rules { segment_bytes: self.segment_bytes, damage })
    }

    /// Reads without changing anything.
    pub(crate) fn inspect(&self) -> Result<Found, Refused> {
        let opening = self.decide(Damage::Refuse)?;
        let state = read_state(&self.state, &IDENTITY)?;
        let scanned = opening.scanned().clone();
        let frames = if scanned.segments.is_empty() { Vec::new() } else { self.frames(opening.tail()) };
        Ok(Found { scanned, state, frames })
    }

    /// Everything the journal serves, by way of fetches.
    fn read_all(&self, tail: &Tail) -> Vec<Frame> {
        let (journal, base) = (&mut Journal::new(tail.clone()), tail.base().index.0);
        let mut frames: Vec<Frame> = Vec::new();
        loop {
            let from = LogIndex(base + frames.len() as u64 + 1);
            journal.fetch(Fetch { token: 1, from, max_bytes: usize::MAX });
            let mut read = journal.poll_read();
            while let Some(wanted) = read {
                let at = usize::try_from(wanted.at.offset).expect("small");
                let bytes = self.segments[&wanted.at.segment][at..][..wanted.length].to_vec();
                read = journal.handle_read(Ok(bytes.into()));
            }
            match journal.poll_event() {
                Some(LogEvent::Fetched { frames: more, .. }) => frames.extend(more),
                Some(LogEvent::FetchFailed { error: FetchError::Missing { .. }, .. }) => return frames,
                other => panic!("a log that passed is served: {other:?}"),
            }
        }
    }

    /// What `open` does, on this disk.
    pub(crate) fn open(self) -> Result<(Machine, Found), Refused> {
        let found = self.inspect()?;
        let machine = self.open_under(Damage::Refuse)?;
        Ok((machine, found))
    }

    /// The same under a rule for damage.
    pub(crate) fn open_under(mut self, damage: Damage) -> Result<Machine, Refused> {
        let mut opening = self.decide(damage)?;
        while let Some(change) = opening.poll_change() {
            self.carry_out(change, &mut opening);
        }
        Ok(Machine::on(self, opening.finish()))
    }

    /// Everything in a log that was opened.
    pub(crate) fn frames(&self, tail: &Tail) -> Vec<Frame> {
        let served = self.read_all(tail);
        let streamed: Result<Vec<_>, _> = entries(tail, |number| self.segments[&number].as_slice()).collect();
        assert_eq!(served, streamed.expect("a log that passed is streamed"));
        served
    }

    pub(crate) fn carry_out(&mut self, change: Change, opening: &mut Opening) {
        match change {
            Change::State(record) => {
                let at = usize::try_from(record.offset()).expect("small");
                record.fill(&mut self.state[at..][..BLOCK]);
            }
            Change::Zero { segment, from, until, length } => {
                let [from, until, length] =
                    [from, until, length].map(|at| usize::try_from(at).expect("small"));
                let file = self.file(Name::Segment(segment));
                file.resize(length, 0);
                file[from..until].fill(0);
            }
            Change::SetAside { segment } | Change::Remove { segment } => drop(self.segments.remove(&segment)),
            Change::Copy { .. } => {}
            Change::Make(next) => opening.handle_made(self.make(next)),
        }
    }
}

/// A journal on a disk.
pub(crate) struct Machine {
    pub disk: Disk,
    pub journal: Journal,
    /// Written, not flushed.
    pub pending: Vec<(Name, usize, Vec<u8>)>,
    pub last: EntryId,
    pub term: Term,
    plans: u64,
}

impl Machine {
    pub(crate) fn on(disk: Disk, tail: Tail) -> Self {
        let (last, term) = (tail.last, tail.state.hard_state.term.0.max(1));
        Self { disk, journal: Journal::new(tail), pending: Vec::new(), last, term: Term(term), plans: 0 }
    }

    pub(crate) fn new(segment_bytes: u64) -> Self {
        Disk::new(segment_bytes).open().expect("a new disk").0
    }

    /// A frame after `self.last`, which it then is.
    pub(crate) fn frame(&mut self, body: &[u8]) -> Frame {
        let head = FrameHead { group: GroupId::FIRST, term: self.term, previous: self.last, timestamp_ms: 1 };
        let mut builder = FrameBuilder::with_capacity(body.len() + 4);
        builder.push_command(body);
        let frame = builder.commands(head);
        self.last = frame.id();
        frame
    }

    pub(crate) fn submit(&mut self, hard_state: Option<HardState>, frames: Vec<Frame>, commit: LogIndex) {
        self.plans += 1;
        self.journal.submit(WritePlan { id: WriteId(self.plans), hard_state, frames, commit, whole: false });
    }

    /// The node says that it is whole again.
    pub(crate) fn submit_whole(&mut self) {
        self.plans += 1;
        self.journal.submit(WritePlan { whole: true, ..WritePlan::barrier(WriteId(self.plans)) });
    }

    pub(crate) fn journal_state(&self) -> StateRecord {
        *self.journal.state()
    }

    /// Puts the next write on its way; segments are made as asked. False if there is none.
    pub(crate) fn start(&mut self) -> bool {
        assert!(self.pending.is_empty(), "one write is in flight");
        let mut step = self.journal.poll_step();
        while let Step::Rotate(next) = step {
            let header = self.disk.make(next);
            self.journal.handle_rotated(header);
            step = self.journal.poll_step();
        }
        self.begin(step)
    }

    pub(crate) fn begin(&mut self, step: Step) -> bool {
        let Step::Write { envelope, state } = step else { return false };
        if let Some(extent) = envelope {
            let mut image = vec![0xee; extent.bytes];
            self.journal.fill_envelope(&mut image);
            let at = usize::try_from(extent.at.offset).expect("small");
            let file = self.disk.file(Name::Segment(extent.at.segment));
            assert!(file[at..][..image.len()].iter().all(|&byte| byte == 0), "only zeros are written over");
            self.pending.push((Name::Segment(extent.at.segment), at, image));
        }
        if let Some(offset) = state {
            let mut image = vec![0; BLOCK];
            self.journal.fill_state(&mut image);
            self.pending.push((Name::State, usize::try_from(offset).expect("small"), image));
        }
        true
    }

    /// The flush: what is pending stays.
    pub(crate) fn finish(&mut self) {
        for (name, at, image) in self.pending.drain(..) {
            self.disk.file(name)[at..][..image.len()].copy_from_slice(&image);
        }
        self.journal.handle_written();
        while self.journal.poll_event().is_some() {}
    }

    /// Everything submitted becomes durable.
    pub(crate) fn run(&mut self) {
        while self.start() {
            self.finish();
        }
    }

    pub(crate) fn append(&mut self, body: &[u8]) -> Frame {
        let frame = self.frame(body);
        self.submit(None, vec![frame.clone()], LogIndex::ZERO);
        self.run();
        frame
    }

    pub(crate) fn close(mut self) -> Disk {
        self.run();
        let step = self.journal.poll_close().expect("it is idle");
        assert!(self.begin(step));
        self.finish();
        self.disk
    }

    /// How many sectors are on their way.
    pub(crate) fn pending_sectors(&self) -> usize {
        self.pending.iter().map(|(_, _, image)| image.len() / SECTOR).sum()
    }

    /// The power goes: of the pending sectors those that `keep` names are there.
    pub(crate) fn cut_power(mut self, mut keep: impl FnMut(usize) -> bool) -> Disk {
        let mut sector = 0;
        for (name, at, image) in std::mem::take(&mut self.pending) {
            for (n, bytes) in image.chunks_exact(SECTOR).enumerate() {
                if keep(sector) {
                    self.disk.file(name)[at + n * SECTOR..][..SECTOR].copy_from_slice(bytes);
                }
                sector += 1;
            }
        }
        self.disk
    }
}
