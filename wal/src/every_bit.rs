//! The proof that no bit of a log is free: every one flipped, every sector and block zeroed, stale or replaced by another,
//! every length, on a log in memory with the truth known.
//!
//! The rule, for a log that was closed cleanly: damage is *refused*, or it is *harmless* and every entry is served as it was
//! written. A wrong entry served, or one missing, is a panic.
//!
//! 16 MiB have 134 million bits and an opening reads all of them, so most places are judged *locally*: by the code that the
//! opening would run at that place, on the bytes that it would see. That is enough, because the walk is a run of independent
//! checks in order: an envelope counts if its header parses, each frame parses and follows the one before, and the padding
//! is zero; one that does not count, in a log whose marks cover it, is refused by the table of `verdict.rs` whatever else
//! there is. The sampled whole openings say that the local judgement is the engine's own. A test of the crate and
//! `cargo run --release -p scripts -- every-bit` run it.

use crate::damage::Damage;
use crate::entries::entries;
use crate::envelope::{HEADER_BYTES, Header, padding_defect};
use crate::frame::{Frame, FrameBuilder, FrameHead};
use crate::id::{ClusterId, GroupId, HardState, LogIndex, NodeId, Term};
use crate::journal::{Journal, Next, Step};
use crate::opening::{Change, Opening, Rules, read_state};
use crate::plan::{WriteId, WritePlan};
use crate::scan::{Refused, SegmentFile, is_zero};
use crate::sector::{BLOCK, SECTOR};
use crate::segment::{Identity, SegmentHeader};
use crate::state::{self, StateRecord};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

const IDENTITY: Identity = Identity { cluster: ClusterId(5), node: NodeId(2), group: GroupId::FIRST };
const SEGMENT_BYTES: u64 = 256 << 10;

/// A log, closed cleanly, and what is in it.
pub struct Corpus {
    state: Vec<u8>,
    record: StateRecord,
    segments: BTreeMap<u64, Vec<u8>>,
    headers: BTreeMap<u64, SegmentHeader>,
    envelopes: BTreeMap<u64, Vec<Placed>>,
    frames: Vec<Frame>,
}

struct Placed {
    bytes: Range<usize>,
    sequence: u64,
    /// Where each frame begins, and where the last one ends.
    frames: Vec<usize>,
}

/// What became of damage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Refused,
    Harmless,
}

/// How often what became of damage, by what was damaged.
#[derive(Clone, Debug, Default)]
pub struct Tally(BTreeMap<&'static str, [u64; 2]>);

impl Tally {
    fn add(&mut self, what: &'static str, outcome: Outcome) {
        self.0.entry(what).or_default()[usize::from(outcome == Outcome::Harmless)] += 1;
    }

    /// How many were refused, and how many harmless.
    #[must_use]
    pub fn totals(&self) -> [u64; 2] {
        self.0.values().fold([0, 0], |[a, b], [c, d]| [a + c, b + d])
    }

    /// Adds another's counts.
    pub fn merge(&mut self, other: Self) {
        for (what, [refused, harmless]) in other.0 {
            let counts = self.0.entry(what).or_default();
            *counts = [counts[0] + refused, counts[1] + harmless];
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:34} {:>12} {:>12}", "damaged", "refused", "harmless")?;
        for (what, [refused, harmless]) in &self.0 {
            writeln!(f, "{what:34} {refused:>12} {harmless:>12}")?;
        }
        let [refused, harmless] = self.totals();
        write!(f, "{:34} {refused:>12} {harmless:>12}", "all")
    }
}

/// Numbers from a seed.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % bound as u64).expect("below an address")
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum File {
    State,
    Segment(u64),
}

impl Corpus {
    /// A log of about `bytes`: batches of entries of different sizes, votes between. Another `life` has the same shape and
    /// other nonces and contents, so that its bytes are what a lost write leaves behind.
    #[must_use]
    pub fn new(bytes: usize, life: u64) -> Self {
        let (_, state) = state::initial_file(IDENTITY);
        let record = read_state(&state, &IDENTITY).expect("as it was made");
        let mut corpus = Self {
            state,
            record,
            segments: BTreeMap::new(),
            headers: BTreeMap::new(),
            envelopes: BTreeMap::new(),
            frames: Vec::new(),
        };
        let tail = corpus.open(life);
        let mut journal = Journal::new(tail);
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        let mut id = 0;
        while corpus.written() < bytes {
            id += 1;
            let batch = (0..1 + random.below(60))
                .map(|_| corpus.frame(life, [40, 100, 300, 1_500][random.below(4)]))
                .collect();
            let hard_state = (id % 7 == 1).then_some(HardState {
                term: Term(1 + id / 7),
                vote: Some(NodeId(3)),
                ..HardState::default()
            });
            let commit = LogIndex(corpus.frames.len() as u64 / 2);
            journal.submit(WritePlan { id: WriteId(id), hard_state, frames: batch, commit, whole: false });
            corpus.write(&mut journal, life);
        }
        let step = journal.poll_close().expect("it is idle");
        corpus.carry_out(step, &mut journal, life);
        corpus.record = read_state(&corpus.state, &IDENTITY).expect("closed cleanly");
        assert!(corpus.record.clean && corpus.segments.len() > 1, "a log of several segments, closed");
        assert_eq!(corpus.served(), Ok(Outcome::Harmless), "the truth is whole");
        corpus
    }

    /// Bytes of writes so far.
    fn written(&self) -> usize {
        self.envelopes.values().flatten().map(|envelope| envelope.bytes.len()).sum()
    }

    fn open(&mut self, life: u64) -> crate::journal::Tail {
        let rules = Rules { segment_bytes: SEGMENT_BYTES, damage: Damage::Refuse };
        let mut opening = Opening::decide::<Bytes>(self.record, &[], rules).expect("a new log");
        while let Some(change) = opening.poll_change() {
            match change {
                Change::State(record) => self.write_state(&record),
                Change::Make(next) => opening.handle_made(self.make(next, life)),
                other => panic!("a new log needs no {other:?}"),
            }
        }
        opening.finish()
    }

    fn write_state(&mut self, record: &StateRecord) {
        let at = usize::try_from(record.offset()).expect("small");
        record.fill(&mut self.state[at..at + BLOCK]);
    }

    fn make(&mut self, next: Next, life: u64) -> SegmentHeader {
        let header = next.header(IDENTITY, (u128::from(next.number) << 64) | u128::from(life));
        let mut file = vec![0; usize::try_from(next.bytes).expect("small")];
        header.fill(&mut file[..BLOCK]);
        self.segments.insert(next.number, file);
        self.headers.insert(next.number, header);
        self.envelopes.insert(next.number, Vec::new());
        header
    }

    fn frame(&mut self, life: u64, size: usize) -> Frame {
        let previous = self.frames.last().map_or(IDENTITY.origin(), Frame::id);
        let term = Term(1).max(previous.term);
        let head = FrameHead { group: IDENTITY.group, term, previous, timestamp_ms: life };
        let mut builder = FrameBuilder::with_capacity(size + 4);
        builder.push_command(&vec![0x61; size]);
        let frame = builder.commands(head);
        self.frames.push(frame.clone());
        frame
    }

    fn write(&mut self, journal: &mut Journal, life: u64) {
        loop {
            let step = journal.poll_step();
            if step == Step::Nothing {
                while journal.poll_event().is_some() {}
                return;
            }
            self.carry_out(step, journal, life);
        }
    }

    fn carry_out(&mut self, step: Step, journal: &mut Journal, life: u64) {
        let (envelope, state) = match step {
            Step::Nothing => return,
            Step::Rotate(next) => return journal.handle_rotated(self.make(next, life)),
            Step::Write { envelope, state } => (envelope, state),
        };
        if let Some(extent) = envelope {
            let number = extent.at.segment;
            let at = usize::try_from(extent.at.offset).expect("small");
            let image = &mut self.segments.get_mut(&number).expect("made")[at..at + extent.bytes];
            journal.fill_envelope(image);
            let header =
                Header::parse(image, &self.headers[&number], extent.at.offset).expect("just written");
            let mut frames = vec![at + HEADER_BYTES];
            for _ in 0..header.frames {
                let begin = frames.last().expect("never empty") - at;
                frames.push(at + begin + Frame::peek(&image[begin..]).expect("just written").bytes);
            }
            let bytes = at..at + extent.bytes;
            let placed = Placed { bytes, sequence: header.sequence, frames };
            self.envelopes.get_mut(&number).expect("made").push(placed);
        }
        if let Some(at) = state {
            let at = usize::try_from(at).expect("small");
            journal.fill_state(&mut self.state[at..at + BLOCK]);
        }
        journal.handle_written();
    }

    fn files(&self) -> Vec<(File, usize)> {
        let segments = self.segments.iter().map(|(&number, bytes)| (File::Segment(number), bytes.len()));
        segments.chain([(File::State, self.state.len())]).collect()
    }

    fn file(&self, file: File) -> &[u8] {
        match file {
            File::State => &self.state,
            File::Segment(number) => &self.segments[&number],
        }
    }

    fn file_mut(&mut self, file: File) -> &mut Vec<u8> {
        match file {
            File::State => &mut self.state,
            File::Segment(number) => self.segments.get_mut(&number).expect("a segment of this log"),
        }
    }

    /// A whole opening: every entry as it was written, or a refusal.
    fn served(&self) -> Result<Outcome, String> {
        let state = match read_state(&self.state, &IDENTITY) {
            Ok(state) => state,
            Err(Refused::Corrupt { .. }) => return Ok(Outcome::Refused),
            Err(other) => return Err(format!("{other:?}")),
        };
        let files: Vec<_> = self
            .segments
            .iter()
            .map(|(&number, bytes)| SegmentFile { number, blocks: bytes.as_slice() })
            .collect();
        let rules = Rules { segment_bytes: SEGMENT_BYTES, damage: Damage::Refuse };
        let mut opening = match Opening::decide(state, &files, rules) {
            Ok(opening) => opening,
            Err(Refused::Corrupt { .. }) => return Ok(Outcome::Refused),
            Err(other) => return Err(format!("{other:?}")),
        };
        if state.hard_state != self.record.hard_state {
            return Err(format!("another vote: {:?}", state.hard_state));
        }
        while opening.poll_change().is_some() {}
        let tail = opening.finish();
        let mut truth = self.frames.iter();
        for entry in entries(&tail, |number| self.segments[&number].as_slice()) {
            let entry = entry.map_err(|error| format!("{error:?}"))?;
            if truth.next() != Some(&entry) {
                return Err(format!("{entry:?} was never written there"));
            }
        }
        truth.next().map_or(Ok(Outcome::Harmless), |lost| Err(format!("{lost:?} is silently gone")))
    }

    /// A whole opening with `change` made, which is then undone.
    fn opened(&mut self, file: File, at: usize, bytes: &[u8]) -> Outcome {
        let before = self.file(file)[at..at + bytes.len()].to_vec();
        self.file_mut(file)[at..at + bytes.len()].copy_from_slice(bytes);
        let outcome = self.served().unwrap_or_else(|wrong| panic!("{file:?} at {at}: {wrong}"));
        self.file_mut(file)[at..at + bytes.len()].copy_from_slice(&before);
        outcome
    }

    /// The local judgement of `bytes` at `at` of a file; the whole file has them already. `None`: only an opening can say.
    fn judged(&self, file: File, at: usize, length: usize) -> (&'static str, Option<Outcome>) {
        let File::Segment(number) = file else {
            let outcome = match read_state(&self.state, &IDENTITY) {
                Ok(record) => (record == self.record).then_some(Outcome::Harmless),
                Err(_) => Some(Outcome::Refused),
            };
            return ("state", outcome);
        };
        let (bytes, header) = (&self.segments[&number], &self.headers[&number]);
        if at < BLOCK {
            let outcome = match SegmentHeader::parse(&bytes[..BLOCK], &IDENTITY) {
                Ok(found) => (found == *header).then_some(Outcome::Harmless),
                Err(_) => Some(Outcome::Refused),
            };
            return ("segment header", outcome);
        }
        let envelopes = &self.envelopes[&number];
        let behind = envelopes.partition_point(|envelope| envelope.bytes.end <= at);
        match envelopes.get(behind) {
            Some(envelope) => self.in_envelope(bytes, header, envelope, at..at + length),
            None => {
                // A whole header here that speaks of a later write of this segment would be evidence of damage. It would lie
                // in one of the sectors touched: the others are zeros.
                let last = envelopes.last().map_or(0, |envelope| envelope.sequence);
                let from = at / SECTOR * SECTOR;
                let silent = bytes[from..(at + length).next_multiple_of(SECTOR)]
                    .chunks_exact(SECTOR)
                    .filter(|sector| !is_zero(sector))
                    .all(|sector| Header::sight(sector, header).is_none_or(|seen| seen.sequence <= last));
                ("zeros behind the last write", silent.then_some(Outcome::Harmless))
            }
        }
    }

    fn in_envelope(
        &self,
        bytes: &[u8],
        header: &SegmentHeader,
        envelope: &Placed,
        touched: Range<usize>,
    ) -> (&'static str, Option<Outcome>) {
        let Range { start, end } = envelope.bytes.clone();
        if touched.start < start + HEADER_BYTES {
            let block = &bytes[start..start + BLOCK];
            let parsed = Header::parse(block, header, start as u64);
            if parsed.is_err() {
                return ("write's header", Some(Outcome::Refused));
            }
        }
        let first = envelope.frames.partition_point(|&frame| frame <= touched.start).saturating_sub(1);
        for frame in envelope.frames[first..].windows(2).take_while(|frame| frame[0] < touched.end) {
            let mut rest = Bytes::copy_from_slice(&bytes[frame[0]..frame[1]]);
            if Frame::parse(&mut rest).is_err() {
                return ("frame", Some(Outcome::Refused));
            }
        }
        let payload = envelope.frames.last().expect("never empty") - start;
        if touched.end > start + payload && padding_defect(&bytes[start..end], payload).is_some() {
            return ("padding", Some(Outcome::Refused));
        }
        // Whole with other bytes: the end of the chain would have to fit. Only an opening can say.
        ("write", None)
    }

    fn local(&mut self, file: File, at: usize, bytes: &[u8]) -> (&'static str, Outcome) {
        let before = self.file(file)[at..at + bytes.len()].to_vec();
        if before == bytes {
            return ("nothing: the same bytes", Outcome::Harmless);
        }
        self.file_mut(file)[at..at + bytes.len()].copy_from_slice(bytes);
        let (what, outcome) = self.judged(file, at, bytes.len());
        self.file_mut(file)[at..at + bytes.len()].copy_from_slice(&before);
        (what, outcome.unwrap_or_else(|| self.opened(file, at, bytes)))
    }

    /// Every bit of one part of `parts`, flipped by itself.
    pub fn flip_every_bit(&mut self, part: usize, parts: usize, tally: &mut Tally) {
        for (file, length) in self.files() {
            for at in (part..length).step_by(parts) {
                let byte = self.file(file)[at];
                for bit in 0..8 {
                    self.file_mut(file)[at] = byte ^ (1 << bit);
                    let (what, outcome) = self.judged(file, at, 1);
                    let outcome = outcome.unwrap_or_else(|| self.opened(file, at, &[byte ^ (1 << bit)]));
                    tally.add(what, outcome);
                }
                self.file_mut(file)[at] = byte;
            }
        }
    }

    /// Random bits, each with a whole opening, which must say what the local judgement says.
    pub fn open_with_flipped_bits(&mut self, openings: usize, seed: u64, tally: &mut Tally) {
        let mut random = Random(seed | 1);
        let files = self.files();
        for n in 0..openings {
            // Every other one in the small places.
            let (file, length) = files[if n % 8 == 0 { files.len() - 1 } else { random.below(files.len()) }];
            let at = random.below(if n % 4 == 1 { 2 * BLOCK } else { length });
            let flipped = [self.file(file)[at] ^ (1 << random.below(8))];
            let (what, local) = self.local(file, at, &flipped);
            let opened = self.opened(file, at, &flipped);
            assert_eq!(local, opened, "{what}: {file:?} at {at}: the local judgement is the opening's");
            tally.add("openings with one bit flipped", opened);
        }
    }

    /// Every sector and block, in one part of `parts`, zeroed, as it was in an earlier life, and with the bytes of
    /// `partners` others of this log (all of them, if there are not more).
    pub fn replace_every_unit(
        &mut self,
        stale: &Self,
        partners: usize,
        (part, parts): (usize, usize),
        tally: &mut Tally,
    ) {
        for (unit, names) in [
            (SECTOR, ["sector zeroed", "sector of an earlier life", "sector of another place"]),
            (BLOCK, ["block zeroed", "block of an earlier life", "block of another place"]),
        ] {
            let places: Vec<(File, usize)> = self
                .files()
                .iter()
                .flat_map(|&(file, length)| (0..length / unit).map(move |n| (file, n * unit)))
                .collect();
            let mut random = Random(0x5eed + part as u64);
            for &(file, at) in places.iter().skip(part).step_by(parts) {
                let (_, zeroed) = self.local(file, at, &vec![0; unit]);
                tally.add(names[0], zeroed);
                let old = stale.file(file)[at..at + unit].to_vec();
                let (_, old) = self.local(file, at, &old);
                tally.add(names[1], old);
                let all = partners >= places.len();
                for n in 0..partners.min(places.len()) {
                    let (from, there) = places[if all { n } else { random.below(places.len()) }];
                    let other = self.file(from)[there..there + unit].to_vec();
                    let (_, other) = self.local(file, at, &other);
                    tally.add(names[2], other);
                }
            }
        }
    }

    /// Every file shortened to every multiple of `step` bytes and to lengths around the borders of frames and writes, and
    /// made longer. All are refused: a crash never changes a length.
    pub fn change_every_length(&mut self, step: usize, tally: &mut Tally) {
        for (file, whole) in self.files() {
            let mut lengths: Vec<usize> = (0..whole).step_by(step).collect();
            if let File::Segment(number) = file {
                let borders = self.envelopes[&number].iter().flat_map(|envelope| {
                    let middle = envelope.frames[envelope.frames.len() / 2];
                    let end = *envelope.frames.last().expect("never empty");
                    [envelope.bytes.start, envelope.frames[0], middle, end]
                });
                let around = borders.flat_map(|at| [at - 1, at, at + 1]);
                lengths.extend(around.step_by(1 + step / SECTOR / 2));
            }
            lengths.extend([whole - 1, whole + 1, whole + SECTOR, whole + BLOCK]);
            let bytes = self.file(file).to_vec();
            for length in lengths.into_iter().filter(|&length| length != whole) {
                self.file_mut(file).resize(length, 0);
                let outcome = self.served().unwrap_or_else(|wrong| panic!("{file:?} of {length}: {wrong}"));
                assert_eq!(outcome, Outcome::Refused, "{file:?} of {length} bytes");
                tally.add("other length", outcome);
                self.file_mut(file).clone_from(&bytes);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BYTES: usize = 1 << 20;

    #[test]
    fn every_bit_of_a_mebibyte() {
        let (mut corpus, mut tally) = (Corpus::new(BYTES, 1), Tally::default());
        corpus.flip_every_bit(0, 1, &mut tally);
        let [refused, harmless] = tally.totals();
        assert!(refused + harmless >= 8 * BYTES as u64, "{tally}");
        for (what, [refused, harmless]) in &tally.0 {
            let free = matches!(*what, "state" | "segment header" | "zeros behind the last write");
            assert!(if free { *refused == 0 } else { *harmless == 0 }, "{what}\n{tally}");
        }
        assert!(harmless < refused / 2, "little of a log is spare copies and zeros: {tally}");
        corpus.open_with_flipped_bits(400, 7, &mut tally);
        eprintln!("{tally}");
    }

    #[test]
    fn every_sector_block_and_length_of_a_mebibyte() {
        let (mut corpus, mut tally) = (Corpus::new(BYTES, 1), Tally::default());
        corpus.replace_every_unit(&Corpus::new(BYTES, 2), 60, (0, 1), &mut tally);
        corpus.change_every_length(SECTOR, &mut tally);
        let counts = |what| tally.0.get(what).copied().unwrap_or_default();
        for what in ["sector zeroed", "block zeroed", "sector of an earlier life", "sector of another place"]
        {
            assert!(counts(what)[0] > 100, "{what}\n{tally}");
        }
        eprintln!("{tally}");
    }
}
