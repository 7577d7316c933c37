//! A log whose disk is memory: the journal that runs on files, each write done and flushed as soon as it is asked for.

use std::collections::BTreeMap;
use wal::pure::{self, BLOCK, Change, Damage, Journal, Opening, Rules, SegmentFile, Step};
use wal::{GroupId, Identity, LogEvent, NodeId, WritePlan};

/// So large that a measurement does not meet the end of one.
const SEGMENT_BYTES: u64 = 64 << 20;

pub struct Disk {
    identity: Identity,
    journal: Journal,
    state: Vec<u8>,
    /// Those that are written to; what is full is forgotten.
    segments: BTreeMap<u64, Vec<u8>>,
    made: u128,
}

impl Disk {
    /// Of a node that has never run.
    pub fn new(node: NodeId) -> Self {
        let identity = Identity { cluster: super::CLUSTER, node, group: GroupId::FIRST };
        let (_, mut state) = pure::initial_file(identity);
        let record = pure::read_state(&state, &identity).expect("it was made a moment ago");
        let rules = Rules { segment_bytes: SEGMENT_BYTES, damage: Damage::Refuse };
        let no_files: [SegmentFile<&[u8]>; 0] = [];
        let mut opening =
            Opening::decide(record, &no_files, rules).expect("nothing is wrong with an empty log");
        let (mut segments, mut made) = (BTreeMap::new(), 0);
        while let Some(change) = opening.poll_change() {
            match change {
                Change::State(record) => {
                    let at = usize::try_from(record.offset()).expect("two blocks");
                    record.fill(&mut state[at..at + BLOCK]);
                }
                Change::Make(next) => opening.handle_made(make(&mut segments, &mut made, identity, next)),
                other => unreachable!("an empty log is not changed: {other:?}"),
            }
        }
        Self { identity, journal: Journal::new(opening.finish()), state, segments, made }
    }

    pub fn submit(&mut self, plan: WritePlan) {
        self.journal.submit(plan);
    }

    /// Writes everything that is queued.
    pub fn write(&mut self) {
        loop {
            match self.journal.poll_step() {
                Step::Nothing => return,
                Step::Rotate(next) => {
                    self.segments.clear();
                    let header = make(&mut self.segments, &mut self.made, self.identity, next);
                    self.journal.handle_rotated(header);
                }
                Step::Write { envelope, state } => {
                    if let Some(extent) = envelope {
                        let file = self.segments.get_mut(&extent.at.segment).expect("the one in use");
                        let at = usize::try_from(extent.at.offset).expect("within a segment");
                        self.journal.fill_envelope(&mut file[at..at + extent.bytes]);
                    }
                    if let Some(at) = state {
                        let at = usize::try_from(at).expect("two blocks");
                        self.journal.fill_state(&mut self.state[at..at + BLOCK]);
                    }
                    self.journal.handle_written();
                }
            }
        }
    }

    pub fn poll(&mut self) -> Option<LogEvent> {
        self.journal.poll_event()
    }
}

fn make(
    segments: &mut BTreeMap<u64, Vec<u8>>,
    made: &mut u128,
    identity: Identity,
    next: pure::Next,
) -> pure::SegmentHeader {
    *made += 1;
    let header = next.header(identity, u128::from(identity.node.0) << 64 | *made);
    let mut file = vec![0; usize::try_from(next.bytes).expect("it fits into memory")];
    header.fill(&mut file[..BLOCK]);
    segments.insert(next.number, file);
    header
}
