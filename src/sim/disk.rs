//! A disk in memory under the log's own journal and its own recovery.
//!
//! Written sectors are pending until the flush. When the power goes, any subset of them is there. What was flushed stays,
//! unless a fault damages it: then the truth about it is noted for the judges, and nobody else is told.
//!
//! What is never damaged: a write of which nothing durable says yet that it was flushed. Lost in silence it cannot be told
//! from a write that never happened (`wal/FORMAT.md`, "Told apart, and not").

use super::dice::Dice;
use super::fault::Fault;
use super::observation::{End, Truth, Verdict};
use super::world::CLUSTER;
use crate::raft::{Durability, Past, Restored};
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use wal::pure::{self, BLOCK, Change, Damage, Journal, Next, Rules, SECTOR, SegmentFile, Step};
use wal::{
    EntryId, Fetch, FetchError, Frame, GroupId, HardState, Identity, LogError, LogEvent, LogIndex, NodeId,
    WriteId, WritePlan,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Name {
    State,
    Segment(u64),
}

/// What of a plan the truth needs once it is flushed.
#[derive(Debug)]
struct Note {
    id: WriteId,
    hard_state: Option<HardState>,
    entries: Vec<EntryId>,
    commit: LogIndex,
}

/// A flushed envelope: a place that damage may hit.
#[derive(Clone, Copy, Debug)]
struct Placed {
    segment: u64,
    offset: usize,
    bytes: usize,
    first: LogIndex,
}

/// What is on its way.
#[derive(Debug)]
enum Flight {
    None,
    Rotation(Next),
    Write { envelope: Option<(u64, usize, usize)> },
}

/// What a node starts from.
pub(super) struct Opening {
    pub verdict: Verdict,
    pub restored: Option<Restored>,
    pub frames: Vec<Frame>,
}

pub(super) struct Disk {
    identity: Identity,
    segment_bytes: u64,
    state: Vec<u8>,
    segments: BTreeMap<u64, Vec<u8>>,
    journal: Option<Journal>,
    nonce: u128,
    flight: Flight,
    pending: Vec<(Name, usize, Vec<u8>)>,
    notes: VecDeque<Note>,
    placed: Vec<Placed>,
    truth: Truth,
    /// An opening has found damage, and none has been through since.
    repair_begun: bool,
    /// A state record says that the last of `placed` was flushed.
    tail_is_marked: bool,
    /// The file that says that acknowledgements were given from memory.
    memory_mark: bool,
    armed: Option<Fault>,
    read_fails: bool,
    fails: bool,
}

impl Disk {
    pub(super) fn new(node: NodeId, segment_bytes: u64) -> Self {
        let identity = Identity { cluster: CLUSTER, node, group: GroupId::FIRST };
        let (_, state) = pure::initial_file(identity);
        Self {
            identity,
            segment_bytes,
            state,
            segments: BTreeMap::new(),
            journal: None,
            nonce: u128::from(node.0) << 64,
            flight: Flight::None,
            pending: Vec::new(),
            notes: VecDeque::new(),
            placed: Vec::new(),
            truth: Truth::default(),
            repair_begun: false,
            tail_is_marked: true,
            memory_mark: false,
            armed: None,
            read_fails: false,
            fails: false,
        }
    }

    pub(super) fn truth(&self) -> &Truth {
        &self.truth
    }

    fn file(&mut self, name: Name) -> &mut Vec<u8> {
        match name {
            Name::State => &mut self.state,
            Name::Segment(number) => self.segments.get_mut(&number).expect("a segment that was made"),
        }
    }

    /// Opens the log, as a node does that starts. `None` if the process dies on the way.
    pub(super) fn open(
        &mut self,
        dice: &mut Dice,
        durability: Durability,
        members: usize,
        interrupted: Interrupted,
    ) -> Option<Opening> {
        let refused = |why: &pure::Refused| {
            let verdict = Verdict::Refused(format!("{why:?}"));
            Some(Opening { verdict, restored: None, frames: Vec::new() })
        };
        let damage = if members > 1 { Damage::Repairable } else { Damage::Refuse };
        let rules = Rules { segment_bytes: self.segment_bytes, damage };
        let decided = pure::read_state(&self.state, &self.identity).and_then(|state| {
            let files: Vec<_> = self
                .segments
                .iter()
                .map(|(&number, bytes)| SegmentFile { number, blocks: bytes.as_slice() })
                .collect();
            pure::Opening::decide(state, &files, rules)
        });
        let mut opening = match decided {
            Ok(opening) => opening,
            Err(why) => return refused(&why),
        };
        self.repair_begun |= opening.damaged().is_some();
        let mut left = match interrupted {
            Interrupted::Never => u64::MAX,
            Interrupted::OnTheWay => dice.below(5),
        };
        let (torn, was_clean) = (opening.cut().is_some(), opening.was_clean());
        while let Some(change) = opening.poll_change() {
            if left == 0 {
                self.change_in_part(change, dice);
                return None;
            }
            left -= 1;
            if let Some(header) = self.change(change) {
                opening.handle_made(header);
            }
        }
        let tail = opening.finish();
        let held = tail.state().held;
        let read: Result<Vec<_>, _> =
            pure::entries(&tail, |number| self.segments[&number].as_slice()).collect();
        let frames = match read {
            Ok(frames) => frames,
            Err(why) => return refused(&why),
        };
        let verdict = Verdict::Opened {
            log: frames.iter().map(Frame::id).collect(),
            hard_state: tail.state().hard_state,
            torn,
            // What an earlier life was told of is no news.
            repairing: self.repair_begun,
        };
        let past = Past {
            in_memory: durability == Durability::MemFirst,
            was_in_memory: self.memory_mark,
            was_clean,
            term: tail.state().hard_state.term,
            last: tail.last().index,
            held,
        };
        self.memory_mark = past.is_marked();
        let restored = Restored {
            hard_state: tail.state().hard_state,
            commit: tail.commit(),
            standing: past.standing(),
            held,
        };
        self.tail_is_marked = true;
        let end = tail.segments().last().expect("a log has a segment").number;
        let offset = usize::try_from(tail.offset()).expect("small");
        self.placed.retain(|placed| (placed.segment, placed.offset) < (end, offset) || placed.bytes == 0);
        self.truth.commit = tail.commit();
        self.journal = Some(Journal::new(tail));
        Some(Opening { verdict, restored: Some(restored), frames })
    }

    /// What was recovered is from now on what is there.
    pub(super) fn accept(&mut self, verdict: &Verdict) {
        if let Verdict::Opened { log, hard_state, .. } = verdict {
            let known = self.truth.log.iter().zip(log).take_while(|(known, found)| known == found).count();
            if known < log.len() {
                // A write that nobody saw flushed is there all the same. It has no place that could be damaged.
                let first = LogIndex(known as u64 + 1);
                self.placed.push(Placed { segment: 0, offset: 0, bytes: 0, first });
            }
            self.truth.log.clone_from(log);
            self.truth.hard_state = *hard_state;
            self.truth.damaged_from = None;
            self.repair_begun = false;
        }
    }

    fn change(&mut self, change: Change) -> Option<pure::SegmentHeader> {
        match change {
            Change::State(record) => {
                let at = usize::try_from(record.offset()).expect("small");
                record.fill(&mut self.state[at..at + BLOCK]);
            }
            Change::SetAside { segment } | Change::Remove { segment } => drop(self.segments.remove(&segment)),
            Change::Copy { .. } => {}
            Change::Zero { segment, from, until, length } => {
                let file = self.segments.get_mut(&segment).expect("a segment that was read");
                let [from, until, length] =
                    [from, until, length].map(|at| usize::try_from(at).expect("small"));
                file.resize(length, 0);
                file[from..until].fill(0);
            }
            Change::Make(next) => return Some(self.make(next)),
        }
        None
    }

    /// The process dies in the middle of a change.
    fn change_in_part(&mut self, change: Change, dice: &mut Dice) {
        match change {
            Change::State(record) => {
                let mut block = vec![0; BLOCK];
                record.fill(&mut block);
                let at = usize::try_from(record.offset()).expect("small");
                self.pending.push((Name::State, at, block));
                self.tear(dice);
            }
            Change::Zero { segment, from, until, .. } => {
                let zeros = vec![0; usize::try_from(until - from).expect("small")];
                self.pending.push((Name::Segment(segment), usize::try_from(from).expect("small"), zeros));
                self.tear(dice);
            }
            Change::SetAside { .. } | Change::Remove { .. } | Change::Copy { .. } | Change::Make(_) => {
                if dice.coin() {
                    self.change(change);
                }
            }
        }
    }

    fn make(&mut self, next: Next) -> pure::SegmentHeader {
        self.nonce += 1;
        let header = next.header(self.identity, self.nonce);
        let mut file = vec![0; usize::try_from(next.bytes).expect("small")];
        header.fill(&mut file[..BLOCK]);
        self.segments.insert(next.number, file);
        header
    }

    pub(super) fn submit(&mut self, plan: WritePlan) {
        self.notes.push_back(Note {
            id: plan.id,
            hard_state: plan.hard_state,
            entries: plan.frames.iter().map(Frame::id).collect(),
            commit: plan.commit,
        });
        self.journal.as_mut().expect("a node runs on an open log").submit(plan);
    }

    /// Puts the next write on its way; false if there is none.
    pub(super) fn start(&mut self) -> bool {
        let Some(journal) = &mut self.journal else { return false };
        assert!(matches!(self.flight, Flight::None), "one write is in flight");
        self.flight = match journal.poll_step() {
            Step::Nothing => return false,
            Step::Rotate(next) => Flight::Rotation(next),
            Step::Write { envelope, state } => {
                if let Some(extent) = envelope {
                    let mut image = vec![0; extent.bytes];
                    journal.fill_envelope(&mut image);
                    let at = usize::try_from(extent.at.offset).expect("small");
                    self.pending.push((Name::Segment(extent.at.segment), at, image));
                }
                if let Some(offset) = state {
                    let mut image = vec![0; BLOCK];
                    journal.fill_state(&mut image);
                    self.pending.push((Name::State, usize::try_from(offset).expect("small"), image));
                }
                let envelope = envelope.map(|extent| {
                    let at = usize::try_from(extent.at.offset).expect("small");
                    (extent.at.segment, at, extent.bytes)
                });
                Flight::Write { envelope }
            }
        };
        true
    }

    /// The log is idle: its next write says how far it is flushed. False if that is said already.
    pub(super) fn mark(&mut self) -> bool {
        let Some(journal) = &mut self.journal else { return false };
        journal.mark();
        journal.mark_owed()
    }

    pub(super) fn fail_next(&mut self) {
        self.fails = true;
        self.armed = None;
    }

    /// What was on its way is done: it is flushed, or it has failed and nobody knows what of it is there.
    pub(super) fn finish(&mut self) -> Finished {
        let Some(journal) = &mut self.journal else { return Finished::Nothing };
        let flight = std::mem::replace(&mut self.flight, Flight::None);
        if std::mem::take(&mut self.fails) {
            let source_text = "input/output error (injected)".to_owned();
            journal.handle_failed(LogError::Io { what: "writing", file: "segment".into(), source_text });
            return Finished::Nothing;
        }
        match flight {
            Flight::None => Finished::Nothing,
            Flight::Rotation(next) => {
                let header = self.make(next);
                self.journal.as_mut().expect("just seen").handle_rotated(header);
                Finished::Rotation
            }
            Flight::Write { envelope } => {
                for (name, at, image) in std::mem::take(&mut self.pending) {
                    self.file(name)[at..at + image.len()].copy_from_slice(&image);
                }
                let journal = self.journal.as_mut().expect("just seen");
                journal.handle_written();
                self.tail_is_marked = !journal.mark_owed();
                if let Some((segment, offset, bytes)) = envelope {
                    let first = self.first_entry_flushed();
                    self.placed.push(Placed { segment, offset, bytes, first });
                }
                Finished::Write
            }
        }
    }

    /// The first entry of the envelope that was just flushed: plans are told of in order, so it is the first entry of
    /// the oldest plan that has any.
    fn first_entry_flushed(&self) -> LogIndex {
        let first = self.notes.iter().find_map(|note| note.entries.first());
        first.map_or(LogIndex(1), |entry| entry.index)
    }

    pub(super) fn poll_event(&mut self) -> Option<LogEvent> {
        let event = self.journal.as_mut()?.poll_event()?;
        if let LogEvent::Flushed(proof) = &event {
            while self.notes.front().is_some_and(|note| note.id <= proof.id()) {
                let note = self.notes.pop_front().expect("just seen");
                self.make_true(note);
            }
        }
        Some(event)
    }

    fn make_true(&mut self, note: Note) {
        let truth = &mut self.truth;
        if let Some(hard_state) = note.hard_state {
            truth.hard_state = hard_state;
        }
        if let Some(first) = note.entries.first() {
            truth.log.truncate(usize::try_from(first.index.0 - 1).expect("small"));
            truth.damaged_from = truth.damaged_from.map(|from| from.min(first.index));
            truth.log.extend(note.entries);
        }
        truth.commit = truth.commit.max(note.commit);
    }

    pub(super) fn fetch(&mut self, fetch: Fetch) {
        self.journal.as_mut().expect("a node runs on an open log").fetch(fetch);
    }

    /// Reads what was asked for, or fails to.
    pub(super) fn serve(&mut self, fails: ReadFails) {
        let Some(journal) = &mut self.journal else { return };
        let mut wanted = journal.poll_read();
        while let Some(read) = wanted {
            let result = match fails {
                ReadFails::Yes => Err(FetchError::Io {
                    file: "segment".into(),
                    what: "input/output error (injected)".into(),
                }),
                ReadFails::No => {
                    let at = usize::try_from(read.at.offset).expect("small");
                    let bytes = &self.segments[&read.at.segment][at..at + read.length];
                    Ok(Bytes::copy_from_slice(bytes))
                }
            };
            wanted = journal.handle_read(result);
        }
    }

    /// The node is gone. What it had written and not flushed is there in part, as `end` allows.
    pub(super) fn stop(&mut self, dice: &mut Dice, end: &End) {
        self.journal = None;
        self.notes.clear();
        self.fails = false;
        self.armed = None;
        self.read_fails = false;
        match std::mem::replace(&mut self.flight, Flight::None) {
            Flight::Rotation(next) if dice.coin() => drop(self.make(next)),
            Flight::None | Flight::Rotation(_) | Flight::Write { .. } => {}
        }
        // A process that dies leaves its writes with the kernel, which mostly does them.
        if matches!(end, End::Killed | End::Closed) && dice.below(4) != 0 {
            for (name, at, image) in std::mem::take(&mut self.pending) {
                self.file(name)[at..at + image.len()].copy_from_slice(&image);
            }
        }
        self.tear(dice);
    }

    /// Of the pending sectors some are written: none, all, the first ones, or any.
    fn tear(&mut self, dice: &mut Dice) {
        for (name, at, image) in std::mem::take(&mut self.pending) {
            let sectors = image.len() / SECTOR;
            let (kind, until) = (dice.below(4), dice.index(sectors + 1));
            for (n, bytes) in image.chunks_exact(SECTOR).enumerate() {
                let kept = match kind {
                    0 => false,
                    1 => true,
                    2 => n < until,
                    _ => dice.coin(),
                };
                if kept {
                    self.file(name)[at + n * SECTOR..][..SECTOR].copy_from_slice(bytes);
                }
            }
        }
    }

    /// An orderly end of the log: everything queued is flushed and, if it may be, marked so.
    pub(super) fn close(&mut self, clean: Clean) {
        if self.fails || self.armed.is_some() {
            return;
        }
        loop {
            self.finish();
            while self.poll_event().is_some() {}
            if !self.start() {
                break;
            }
        }
        while self.poll_event().is_some() {}
        let Some(journal) = &mut self.journal else { return };
        if clean == Clean::Yes
            && let Some(Step::Write { state: Some(offset), .. }) = journal.poll_close()
        {
            let at = usize::try_from(offset).expect("small");
            journal.fill_state(&mut self.state[at..at + BLOCK]);
            journal.handle_written();
            self.tail_is_marked = true;
        }
    }

    pub(super) fn arm(&mut self, fault: Fault) {
        if fault == Fault::ReadError {
            self.read_fails = true;
        } else {
            self.armed = Some(fault);
        }
    }

    pub(super) fn disarm(&mut self) {
        self.armed = None;
        self.fails = false;
        self.read_fails = false;
    }

    /// Whether the write on its way will fail.
    pub(super) fn is_failing(&self) -> bool {
        self.fails
    }

    pub(super) fn is_armed_for_write(&self) -> bool {
        self.armed.is_some()
    }

    pub(super) fn take_read_error(&mut self) -> ReadFails {
        if std::mem::take(&mut self.read_fails) { ReadFails::Yes } else { ReadFails::No }
    }

    /// Damages something durable; says what, or nothing if there is nothing that may be damaged.
    pub(super) fn damage(&mut self, fault: Fault, dice: &mut Dice) -> Option<String> {
        // Mostly one at a time; sometimes another before anybody has looked.
        if self.truth.damaged_from.is_some() && dice.below(4) != 0 {
            return None;
        }
        match dice.below(12) {
            0 => self.damage_copies(fault, dice),
            1 if fault != Fault::Stale => self.damage_header(dice),
            2 if fault != Fault::Stale && dice.below(4) == 0 => Some(self.lose_state(fault, dice)),
            _ => self.damage_envelope(fault, dice),
        }
    }

    /// Some of the copies of a state record: harmless, since one is enough.
    fn damage_copies(&mut self, fault: Fault, dice: &mut Dice) -> Option<String> {
        let slot = dice.index(2);
        let spared = dice.index(BLOCK / SECTOR);
        if !has_all_copies(&self.state[slot * BLOCK..(slot + 1) * BLOCK]) {
            return None;
        }
        for sector in (0..BLOCK / SECTOR).filter(|&sector| sector != spared) {
            let at = slot * BLOCK + sector * SECTOR;
            if fault == Fault::Zero {
                self.state[at..at + SECTOR].fill(0);
            } else {
                let bit = dice.index(SECTOR * 8);
                self.state[at + bit / 8] ^= 1 << (bit % 8);
            }
        }
        Some(format!("all copies but one of state slot {slot} damaged"))
    }

    /// A whole slot: perhaps a vote is lost.
    fn lose_state(&mut self, fault: Fault, dice: &mut Dice) -> String {
        let slot = dice.index(2);
        let range = slot * BLOCK..(slot + 1) * BLOCK;
        let how = match fault {
            Fault::Flip => {
                for at in range.step_by(SECTOR) {
                    let bit = dice.index(400 * 8);
                    self.state[at + bit / 8] ^= 1 << (bit % 8);
                }
                "a bit flipped in every copy"
            }
            Fault::Misdirect => {
                let other = (1 - slot) * BLOCK;
                self.state.copy_within(other..other + BLOCK, range.start);
                "overwritten with the other one"
            }
            _ => {
                self.state[range].fill(0);
                "zeroed"
            }
        };
        self.truth.damaged_from = Some(LogIndex::ZERO);
        format!("state slot {slot} lost: {how}")
    }

    fn damage_header(&mut self, dice: &mut Dice) -> Option<String> {
        let numbers: Vec<_> = self.segments.keys().copied().collect();
        let number = *numbers.get(dice.index(numbers.len().max(1)))?;
        let spared = dice.index(BLOCK / SECTOR);
        let file = self.segments.get_mut(&number).expect("just listed");
        if !has_all_copies(&file[..BLOCK]) {
            return None;
        }
        for sector in (0..BLOCK / SECTOR).filter(|&sector| sector != spared) {
            file[sector * SECTOR..(sector + 1) * SECTOR].fill(0);
        }
        Some(format!("all copies but one of the header of segment {number} zeroed"))
    }

    fn damage_envelope(&mut self, fault: Fault, dice: &mut Dice) -> Option<String> {
        // The last one is spared while nothing durable says that it was flushed.
        let spared = usize::from(!self.tail_is_marked);
        let candidates = self.placed.len().checked_sub(spared).filter(|&n| n > 0)?;
        let at = if dice.below(4) == 0 { candidates - 1 } else { dice.index(candidates) };
        let Placed { segment, offset, bytes, .. } = self.placed[at];
        let elsewhere = self.placed[dice.index(self.placed.len())];
        if !self.segments.contains_key(&segment) || !self.segments.contains_key(&elsewhere.segment) {
            return None;
        }
        // What was written later is gone with it, and may have superseded earlier entries.
        let first = self.placed[at..].iter().map(|placed| placed.first).min().expect("at least this one");
        let block = offset + dice.index(bytes / BLOCK) * BLOCK;
        let before = self.segments[&segment][block..block + BLOCK].to_vec();
        let what = match fault {
            Fault::Flip => {
                let bit = dice.index(BLOCK * 8);
                self.file(Name::Segment(segment))[block + bit / 8] ^= 1 << (bit % 8);
                "one bit flipped"
            }
            Fault::Zero => {
                let sector = block + dice.index(BLOCK / SECTOR) * SECTOR;
                self.file(Name::Segment(segment))[sector..sector + SECTOR].fill(0);
                "a sector zeroed"
            }
            Fault::Stale => {
                self.file(Name::Segment(segment))[block..block + BLOCK].fill(0);
                "a block as it was before it was written"
            }
            _ => {
                let from = self.segments[&elsewhere.segment][elsewhere.offset..][..BLOCK].to_vec();
                self.file(Name::Segment(segment))[block..block + BLOCK].copy_from_slice(&from);
                "a block of another place"
            }
        };
        if self.segments[&segment][block..block + BLOCK] == before[..] {
            return None;
        }
        self.truth.damaged_from = Some(self.truth.damaged_from.map_or(first, |before| before.min(first)));
        Some(format!("{what} in segment {segment} at byte {block}, in the write of entry {first}"))
    }
}

/// Whether a block of copies still has all of them: one that lost some before is not damaged again.
fn has_all_copies(block: &[u8]) -> bool {
    block.chunks_exact(SECTOR).all(|copy| copy == &block[..SECTOR])
}

/// What a disk has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Finished {
    Nothing,
    Rotation,
    Write,
}

/// Whether the process dies while it opens the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Interrupted {
    Never,
    OnTheWay,
}

/// Whether a read fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReadFails {
    Yes,
    No,
}

/// Whether an orderly end may be marked as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Clean {
    Yes,
    No,
}

/// A verdict in a line.
pub(super) fn describe(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Refused(why) => format!("refused: {why}"),
        Verdict::Opened { log, hard_state, torn, repairing } => {
            let last = log.last().map_or_else(
                || "an empty log".to_owned(),
                |last| format!("entries to {} of term {}", last.index, last.term),
            );
            let torn = if *torn { ", a torn write cut" } else { "" };
            let repairing = if *repairing { ", damaged: peers repair it" } else { "" };
            format!("{last}, term {}{torn}{repairing}", hard_state.term)
        }
    }
}
