//! For tests: a disk in memory under the real journal and the real recovery.
//!
//! What is written is pending until the flush; a power cut keeps any subset of the pending sectors.

use crate::frame::{Frame, FrameBuilder, FrameHead};
use crate::id::{ClusterId, EntryId, GroupId, HardState, LogIndex, NodeId, Term};
use crate::journal::{Journal, Step, Tail};
use crate::open::opened_record;
use crate::plan::{Fetch, FetchError, LogEvent, WriteId, WritePlan};
use crate::scan::{Refused, Scanned, SegmentFile, scan};
use crate::sector::{BLOCK, SECTOR};
use crate::segment::{Identity, Predecessor, SegmentHeader};
use crate::state::{self, StateProblem, StateRecord};
use bytes::Bytes;
use std::collections::BTreeMap;

pub(crate) const IDENTITY: Identity =
    Identity { cluster: ClusterId(5), node: NodeId(2), group: GroupId::FIRST };

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

#[derive(Debug)]
#[allow(dead_code, reason = "read by the messages of failing tests")]
pub(crate) enum NotOpened {
    State(StateProblem),
    Log(Refused),
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

    pub(crate) fn file(&mut self, name: Name) -> &mut Vec<u8> {
        match name {
            Name::State => &mut self.state,
            Name::Segment(number) => self.segments.get_mut(&number).expect("a segment that was made"),
        }
    }

    fn make(&mut self, number: u64, bytes: u64, predecessor: Predecessor) -> SegmentHeader {
        self.nonce += 1;
        let header = SegmentHeader { identity: IDENTITY, number, bytes, nonce: self.nonce, predecessor };
        let mut file = vec![0; usize::try_from(bytes).expect("small")];
        header.fill(&mut file[..BLOCK]);
        self.segments.insert(number, file);
        header
    }

    /// Reads without changing anything.
    pub(crate) fn inspect(&self) -> Result<Found, NotOpened> {
        let state = state::read(&self.state, &IDENTITY).map_err(NotOpened::State)?;
        let files: Vec<_> = self
            .segments
            .iter()
            .map(|(&number, bytes)| SegmentFile { number, blocks: Bytes::copy_from_slice(bytes) })
            .collect();
        let scanned = scan(&files, &state).map_err(NotOpened::Log)?;
        let frames = if scanned.segments.is_empty() {
            Vec::new()
        } else {
            let mut journal = Journal::new(self.tail(&scanned, state));
            self.read_all(&mut journal)
        };
        Ok(Found { scanned, state, frames })
    }

    fn tail(&self, scanned: &Scanned, state: StateRecord) -> Tail {
        Tail {
            segments: scanned.segments.clone(),
            offset: scanned.offset,
            sequence: scanned.sequence,
            last: scanned.last,
            commit: scanned.commit,
            state,
            positions: scanned.positions.clone(),
            segment_bytes: self.segment_bytes,
        }
    }

    /// Everything the journal serves, by way of fetches.
    fn read_all(&self, journal: &mut Journal) -> Vec<Frame> {
        let mut frames: Vec<Frame> = Vec::new();
        loop {
            let from = LogIndex(frames.len() as u64 + 1);
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
    pub(crate) fn open(mut self) -> Result<(Machine, Found), NotOpened> {
        let found = self.inspect()?;
        if let Some(cut) = found.scanned.cut {
            let range = [cut.at.offset, cut.until].map(|at| usize::try_from(at).expect("small"));
            self.file(Name::Segment(cut.at.segment))[range[0]..range[1]].fill(0);
        }
        let mut tail = self.tail(&found.scanned, found.state);
        if tail.segments.is_empty() {
            let predecessor = Predecessor { sequence: 0, last: IDENTITY.origin() };
            tail.segments.push(self.make(1, self.segment_bytes, predecessor));
        }
        tail.state = opened_record(&tail);
        let at = usize::try_from(tail.state.offset()).expect("small");
        tail.state.fill(&mut self.state[at..][..BLOCK]);
        let (last, term) = (tail.last, tail.state.hard_state.term.0.max(1));
        let journal = Journal::new(tail);
        Ok((Machine { disk: self, journal, pending: Vec::new(), last, term: Term(term), plans: 0 }, found))
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
        self.journal.submit(WritePlan { id: WriteId(self.plans), hard_state, frames, commit });
    }

    /// Puts the next write on its way; segments are made as asked. False if there is none.
    pub(crate) fn start(&mut self) -> bool {
        assert!(self.pending.is_empty(), "one write is in flight");
        let mut step = self.journal.poll_step();
        while let Step::Rotate(next) = step {
            let header = self.disk.make(next.number, next.bytes, next.predecessor);
            self.journal.handle_rotated(header);
            step = self.journal.poll_step();
        }
        self.begin(step)
    }

    fn begin(&mut self, step: Step) -> bool {
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
