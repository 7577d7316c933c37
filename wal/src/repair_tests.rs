//! Damage under the rule that peers can repair it, with the truth known: what is kept was written, nothing that was
//! acknowledged is forgotten, and no crash on the way changes that.

use crate::damage::Damage;
use crate::entries::entries;
use crate::frame::Frame;
use crate::id::{EntryId, HardState, LogIndex, NodeId, Term};
use crate::journal::Tail;
use crate::memory::{Disk, IDENTITY, Machine, Name};
use crate::opening::{Change, Opening, Rules, read_state};
use crate::scan::{Refused, SegmentFile};
use crate::sector::{BLOCK, SECTOR};
use crate::segment::segment_name;
use crate::state::Held;
use crate::walk::Blocks;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::io;

/// A disk and everything that was ever acknowledged on it.
#[derive(Clone)]
struct Truth {
    disk: Disk,
    /// The log after each flushed write; the last one is the log.
    logs: Vec<Vec<Frame>>,
    /// The commit index that each of those writes named.
    commits: Vec<LogIndex>,
    hard_state: HardState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Clean,
    Killed,
    /// Killed when the log had been idle for a while.
    Idle,
    /// Opened again after a clean end, and killed.
    Reopened,
}

const ENDINGS: [Ending; 4] = [Ending::Clean, Ending::Killed, Ending::Idle, Ending::Reopened];

struct Writer {
    machine: Machine,
    logs: Vec<Vec<Frame>>,
    commits: Vec<LogIndex>,
    hard_state: HardState,
}

impl Writer {
    fn write(&mut self, back: usize, sizes: &[usize], vote: bool, commit: u64) {
        let mut log = self.logs.last().expect("never empty").clone();
        log.truncate(log.len() - back);
        if back > 0 || vote {
            self.machine.term = self.machine.term.next();
            self.hard_state =
                HardState { term: self.machine.term, vote: Some(NodeId(4)), ..HardState::default() };
        }
        self.machine.last = log.last().map_or(IDENTITY.origin(), Frame::id);
        let tag = u8::try_from(self.logs.len()).expect("few");
        log.extend(sizes.iter().map(|&size| self.machine.frame(&vec![tag; size])));
        let frames = log[log.len() - sizes.len()..].to_vec();
        let hard_state = (back > 0 || vote).then_some(self.hard_state);
        self.machine.submit(hard_state, frames, LogIndex(commit));
        self.machine.run();
        self.logs.push(log);
        self.commits.push(LogIndex(commit));
    }
}

/// Three segments; entries superseded once by fewer of a later term, and by a late commit mark in the state.
fn truth(ending: Ending) -> (Truth, Vec<Disk>) {
    let mut machine = Machine::new(24 << 10);
    machine.submit(
        Some(HardState { term: Term(1), vote: None, ..HardState::default() }),
        vec![],
        LogIndex::ZERO,
    );
    machine.run();
    let hard_state = HardState { term: Term(1), vote: None, ..HardState::default() };
    let mut writer = Writer { machine, logs: vec![vec![]], commits: vec![LogIndex::ZERO], hard_state };
    let mut past = Vec::new();
    let writes: [(usize, &[usize], bool, u64); 9] = [
        (0, &[40], false, 0),
        (0, &[40, 900, 40, 40], true, 1),
        (0, &[5_000], false, 1),
        (3, &[60], false, 2),
        (0, &[70, 70], false, 3),
        (0, &[6_000], true, 5),
        (0, &[80], false, 6),
        (0, &[90, 400], true, 7),
        (0, &[100], false, 8),
    ];
    for (back, sizes, vote, commit) in writes {
        past.push(writer.machine.disk.clone());
        writer.write(back, sizes, vote, commit);
    }
    past.push(writer.machine.disk.clone());
    let Writer { mut machine, logs, commits, hard_state } = writer;
    assert_eq!(machine.disk.segments.len(), 3);
    let disk = match ending {
        Ending::Clean => machine.close(),
        Ending::Killed => machine.disk,
        Ending::Idle => {
            assert!(machine.journal.mark_owed());
            machine.journal.mark();
            machine.run();
            assert!(!machine.journal.mark_owed(), "one mark for an idle period");
            machine.journal.mark();
            assert!(!machine.start(), "and no second one");
            machine.disk
        }
        Ending::Reopened => machine.close().open().expect("whole").0.disk,
    };
    (Truth { disk, logs, commits, hard_state }, past)
}

fn names(disk: &Disk) -> Vec<Name> {
    disk.segments.keys().map(|&number| Name::Segment(number)).chain([Name::State]).collect()
}

#[derive(Debug, Default)]
struct Tally {
    whole: usize,
    repaired: usize,
    cut: usize,
    refused: usize,
    unbounded: usize,
    /// Many damages leave the same disk behind, which is looked at once; whether anything was lost on it.
    judged: BTreeMap<u128, bool>,
}

impl Truth {
    fn log(&self) -> &Vec<Frame> {
        self.logs.last().expect("never empty")
    }

    /// Judges an opened log against the truth; `held` is what is said to be missing at most.
    fn judge(&self, disk: &Disk, tail: &Tail, ending: Ending, what: &str) -> bool {
        assert_eq!(tail.state.hard_state, self.hard_state, "{what}: a vote is never lost");
        let frames = disk.frames(tail);
        let at = self.logs.iter().rposition(|log| *log == frames);
        let at = at.unwrap_or_else(|| panic!("{what}: {frames:?} was never the log"));
        assert!(
            tail.commit <= self.commits[..=at].iter().copied().max().expect("one"),
            "{what}: {}",
            tail.commit
        );
        let missing =
            self.logs[at + 1..].iter().map(|log| Held::from(log.last().map_or(IDENTITY.origin(), Frame::id)));
        let missing = missing.max();
        match (missing, tail.state.held) {
            (None, _) => {}
            (Some(missing), Some(held)) => {
                assert!(missing <= held, "{what}: {missing} was acknowledged, held {held}")
            }
            (Some(_), None) => {
                assert_eq!(at + 2, self.logs.len(), "{what}: only the last write may look torn");
                assert_eq!(ending, Ending::Killed, "{what}: only without a mark");
            }
        }
        missing.is_some()
    }

    fn open(&self, disk: Disk, ending: Ending, tally: &mut Tally, what: &dyn Fn() -> String) {
        let refused = disk.decide(Damage::Refuse).is_err();
        let mut disk = disk;
        let mut opening = match disk.decide(Damage::Repairable) {
            Ok(opening) => opening,
            Err(Refused::Corrupt { file, .. }) if file == "state" => {
                assert!(refused, "{}: what may be repaired passes or is refused", what());
                tally.refused += 1;
                return;
            }
            Err(other) => panic!("{}: {other:?}", what()),
        };
        assert_eq!(opening.damaged().is_some(), refused, "{}: repaired is what would be refused", what());
        let held = opening.held();
        while let Some(change) = opening.poll_change() {
            disk.carry_out(change, &mut opening);
        }
        let tail = opening.finish();
        assert_eq!(tail.state.held, held, "{}: what is missing is on disk", what());
        let digest = disk.digest();
        let judged = tally.judged.get(&digest).copied();
        let lost = judged.unwrap_or_else(|| self.judge(&disk, &tail, ending, &what()));
        match (held, lost) {
            (Some(held), _) => {
                tally.repaired += 1;
                tally.unbounded += usize::from(held.index == Held::ANY_INDEX);
            }
            (None, true) => tally.cut += 1,
            (None, false) => tally.whole += 1,
        }
        if tally.judged.insert(digest, lost).is_some() {
            return;
        }
        // The next opening finds nothing to repair, and the doubt still there.
        let again = disk.clone().open_under(Damage::Refuse);
        let again = again.unwrap_or_else(|error| panic!("{}: {error:?}", what()));
        assert_eq!(again.disk.decide(Damage::Refuse).expect("whole").held(), held, "{}", what());
        // It is written to, and whole again when the node says so.
        let mut again = again;
        let frames = disk.frames(&tail).len();
        again.append(b"after the repair");
        again.submit_whole();
        again.run();
        let opening =
            again.disk.decide(Damage::Refuse).unwrap_or_else(|error| panic!("{}: {error:?}", what()));
        assert_eq!(opening.held(), None, "{}", what());
        assert_eq!(again.disk.frames(opening.tail()).len(), frames + 1, "{}", what());
    }
}

#[test]
fn every_sector_and_block_flipped_zeroed_or_stale_is_repaired_or_refused_for_the_state() {
    for ending in ENDINGS {
        let (truth, past) = truth(ending);
        let mut tally = Tally::default();
        truth.open(truth.disk.clone(), ending, &mut tally, &|| "nothing".into());
        assert_eq!(tally.whole, 1);
        for unit in [SECTOR, BLOCK, 3 * BLOCK] {
            for name in names(&truth.disk) {
                let bytes = truth.disk.clone().file(name).len();
                for at in (0..(bytes + 1).saturating_sub(unit)).step_by(unit.min(BLOCK)) {
                    for damage in ["flipped", "zeroed", "garbage"] {
                        let mut disk = truth.disk.clone();
                        let place = &mut disk.file(name)[at..at + unit];
                        match damage {
                            "flipped" => place[17] ^= 4,
                            "zeroed" => place.fill(0),
                            _ => place
                                .iter_mut()
                                .zip((0_u8..=250).cycle())
                                .for_each(|(byte, n)| *byte = n ^ 0x5a),
                        }
                        truth.open(disk, ending, &mut tally, &|| {
                            format!("{ending:?} {damage} {name:?} {at}+{unit}")
                        });
                    }
                    // Every age meets some ending.
                    let ages = past.iter().enumerate().skip(ending as usize % 4).step_by(4);
                    for (age, old) in ages {
                        let mut old = old.clone();
                        if matches!(name, Name::Segment(number) if !old.segments.contains_key(&number)) {
                            continue;
                        }
                        let mut disk = truth.disk.clone();
                        disk.file(name)[at..at + unit].copy_from_slice(&old.file(name)[at..at + unit]);
                        truth.open(disk, ending, &mut tally, &|| {
                            format!("{ending:?} stale {name:?} {at}+{unit} of {age}")
                        });
                    }
                }
            }
        }
        assert!(
            tally.repaired > 100 && tally.refused > 0 && tally.unbounded < tally.repaired,
            "{ending:?} {tally:?}"
        );
        assert_eq!(tally.cut > 0, ending == Ending::Killed, "{ending:?} {tally:?}");
    }
}

#[test]
fn misdirected_blocks_are_repaired() {
    for ending in ENDINGS {
        let (truth, _) = truth(ending);
        let mut tally = Tally::default();
        let places: Vec<_> = names(&truth.disk)
            .into_iter()
            .filter(|&name| name != Name::State)
            .flat_map(|name| {
                (0..truth.disk.clone().file(name).len()).step_by(BLOCK).map(move |at| (name, at))
            })
            .collect();
        for &(from, at) in &places {
            let block = truth.disk.clone().file(from)[at..at + BLOCK].to_vec();
            for &(to, there) in &places {
                // The write landed elsewhere, or the read did; the right place has zeros, or is as it was.
                for lost in
                    [true, false].into_iter().filter(|&lost| lost == (ending as usize).is_multiple_of(2))
                {
                    let mut disk = truth.disk.clone();
                    if lost {
                        disk.file(from)[at..at + BLOCK].fill(0);
                    }
                    disk.file(to)[there..there + BLOCK].copy_from_slice(&block);
                    truth.open(disk, ending, &mut tally, &|| {
                        format!("{ending:?} {from:?} {at} at {to:?} {there}")
                    });
                }
            }
        }
        assert!(tally.repaired > 100, "{tally:?}");
    }
}

/// One damage is certain; the other one copies any block to any place, or empties or fills one. A file without a header, an
/// old write behind the last one, garbage at the end: nothing of it makes less of what may be missing. (Where the last write of
/// a killed process was, zeros look like one that never came.)
#[test]
fn a_second_damage_anywhere_hides_nothing_that_the_first_may_have_taken() {
    for ending in ENDINGS {
        let (truth, _) = truth(ending);
        let mut tally = Tally::default();
        let last = (3, BLOCK);
        let never_came =
            |disk: &Disk| ending == Ending::Killed && disk.segments[&last.0][BLOCK..2 * BLOCK] == [0; BLOCK];
        let numbers = truth.disk.segments.keys().copied();
        let places: Vec<_> =
            numbers.flat_map(|number| (0..6).map(move |block| (number, block * BLOCK))).collect();
        for (number, at, what) in
            [(1, 0, "header"), (1, BLOCK, "write"), (2, 0, "header"), (2, BLOCK, "write")]
        {
            let mut damaged = truth.disk.clone();
            let first = &mut damaged.file(Name::Segment(number))[at..at + BLOCK];
            if at == 0 {
                first.fill(9)
            } else {
                first[300] ^= 1
            }
            for &(to, there) in &places {
                for lost in [false, true] {
                    for &(from, at) in &places {
                        let mut disk = damaged.clone();
                        let block = truth.disk.segments[&from][at..at + BLOCK].to_vec();
                        if lost {
                            disk.file(Name::Segment(from))[at..at + BLOCK].fill(0);
                        }
                        disk.file(Name::Segment(to))[there..there + BLOCK].copy_from_slice(&block);
                        if never_came(&disk) && (from, at) != last {
                            continue;
                        }
                        truth.open(disk, ending, &mut tally, &|| {
                            format!(
                                "{ending:?} {what} of {number}, {from} {at} at {to} {there}, lost: {lost}"
                            )
                        });
                    }
                }
                for byte in [0, 3] {
                    let mut disk = damaged.clone();
                    disk.file(Name::Segment(to))[there..there + BLOCK].fill(byte);
                    if never_came(&disk) {
                        continue;
                    }
                    truth.open(disk, ending, &mut tally, &|| {
                        format!("{ending:?} {what} of {number}, {to} {there} filled with {byte}")
                    });
                }
            }
        }
        assert!(tally.repaired > 1_000, "{tally:?}");
    }
}

/// Every way to lose a file or a part of one.
fn losses(truth: &Truth) -> Vec<(String, Disk)> {
    let mut losses = Vec::new();
    let mut lose = |what: String, change: &dyn Fn(&mut Disk)| {
        let mut disk = truth.disk.clone();
        change(&mut disk);
        losses.push((what, disk));
    };
    for number in 1..=3 {
        lose(format!("{number} missing"), &|disk| drop(disk.segments.remove(&number)));
        lose(format!("{number} without a header"), &|disk| disk.file(Name::Segment(number))[..BLOCK].fill(9));
        for length in (0..24 << 10).step_by(1000).chain([30_000, 32 << 10]) {
            lose(format!("{number} of {length} bytes"), &|disk| {
                disk.file(Name::Segment(number)).resize(length, 0)
            });
        }
        for from in (0..24 << 10).step_by(BLOCK) {
            lose(format!("{number} zero from {from}"), &|disk| {
                disk.file(Name::Segment(number))[from..].fill(0)
            });
        }
    }
    lose("all missing".into(), &|disk| disk.segments.clear());
    lose("1 and 2 missing".into(), &|disk| disk.segments.retain(|&number, _| number == 3));
    lose("2 and 3 missing".into(), &|disk| disk.segments.retain(|&number, _| number == 1));
    losses
}

#[test]
fn lost_segments_and_lengths_are_repaired() {
    for ending in ENDINGS {
        let (truth, _) = truth(ending);
        let mut tally = Tally::default();
        for (what, disk) in losses(&truth) {
            truth.open(disk, ending, &mut tally, &|| format!("{ending:?} {what}"));
        }
        assert!(tally.repaired > 50 && tally.refused == 0, "{tally:?}");
    }
}

/// A crash after each change, in the middle of each, and again in the repair after it.
#[test]
fn a_crash_at_every_step_of_a_repair_leaves_the_same_log_and_no_less_doubt() {
    let mut crashes = 0;
    for ending in ENDINGS {
        let (truth, _) = truth(ending);
        let mut judged = BTreeSet::new();
        let mut damaged: Vec<(String, Disk)> = losses(&truth);
        for at in (BLOCK..24 << 10).step_by(BLOCK) {
            for number in 1..=3 {
                for body in [0, 3 * SECTOR, 300] {
                    let mut disk = truth.disk.clone();
                    disk.file(Name::Segment(number))[at + body] ^= 1;
                    damaged.push((format!("{number} at {at}+{body}"), disk));
                }
            }
        }
        for (what, disk) in damaged {
            let opening = disk.decide(Damage::Repairable).expect("the state is whole");
            let Some(held) = opening.damaged().map(|damaged| damaged.held) else { continue };
            let kept = opening.tail().sequence;
            for (n, partial) in interrupted(&disk).into_iter().enumerate() {
                let what = format!("{ending:?} {what}");
                for again in std::iter::once(partial.clone())
                    .chain(interrupted(&partial).into_iter().skip(n % 3).step_by(3))
                {
                    crashes += 1;
                    finish(again, kept, held, (&truth, ending, &mut judged), &what);
                }
            }
        }
    }
    assert!(crashes > 3_000, "{crashes}");
}

/// The disk after each number of changes, and with the next one half done in several ways.
fn interrupted(disk: &Disk) -> Vec<Disk> {
    let mut disks = Vec::new();
    let mut disk = disk.clone();
    let Ok(mut opening) = disk.decide(Damage::Repairable) else { panic!("a repair goes on") };
    while let Some(change) = opening.poll_change() {
        match change {
            Change::State(record) => {
                let mut block = vec![0; BLOCK];
                record.fill(&mut block);
                let at = usize::try_from(record.offset()).expect("small");
                for keep in [0b0000_0001_u8, 0b1010_1010, 0b0111_1111] {
                    let mut torn = disk.clone();
                    for sector in (0..8).filter(|sector| keep & (1 << sector) != 0) {
                        let range = sector * SECTOR..(sector + 1) * SECTOR;
                        torn.state[at..][range.clone()].copy_from_slice(&block[range]);
                    }
                    disks.push(torn);
                }
            }
            Change::Zero { segment, from, until, length } => {
                let [from, until, length] =
                    [from, until, length].map(|at| usize::try_from(at).expect("small"));
                for (n, at) in (from..until).step_by(BLOCK).enumerate() {
                    for rest in [false, true] {
                        let mut torn = disk.clone();
                        let file = torn.file(Name::Segment(segment));
                        file.resize(length, 0);
                        let range = if rest { at..until } else { from..at };
                        file[range].fill(0);
                        if n % 2 == 1 {
                            file[at + SECTOR..at + 2 * SECTOR].fill(0);
                        }
                        disks.push(torn);
                    }
                }
            }
            Change::SetAside { .. } | Change::Remove { .. } | Change::Copy { .. } | Change::Make(_) => {}
        }
        disk.carry_out(change, &mut opening);
        disks.push(disk.clone());
    }
    disks
}

fn finish(
    disk: Disk,
    kept: u64,
    held: Held,
    (truth, ending, judged): (&Truth, Ending, &mut BTreeSet<u128>),
    what: &str,
) {
    let mut disk = disk;
    let mut opening = disk.decide(Damage::Repairable).unwrap_or_else(|error| panic!("{what}: {error:?}"));
    while let Some(change) = opening.poll_change() {
        disk.carry_out(change, &mut opening);
    }
    let tail = opening.finish();
    // What a shortened file lost may have been zeros, which the repair puts back.
    assert!(tail.sequence >= kept, "{what}: the same prefix at least");
    assert!(tail.state.held.is_some_and(|now| now >= held), "{what}: {:?} < {held}", tail.state.held);
    if !judged.insert(disk.digest()) {
        return;
    }
    truth.judge(&disk, &tail, ending, what);
    let again = disk.decide(Damage::Refuse).unwrap_or_else(|error| panic!("{what}: {error:?}"));
    assert_eq!(again.held(), tail.state.held, "{what}");
}

/// Repaired, written on, damaged again before it was whole.
#[test]
fn a_second_damage_keeps_the_doubt_of_the_first() {
    let (truth, _) = truth(Ending::Killed);
    let mut disk = truth.disk.clone();
    disk.file(Name::Segment(2))[BLOCK + 300] ^= 1;
    let mut machine = disk.open_under(Damage::Repairable).expect("repaired");
    let first = machine.journal_state().held.expect("something is missing");
    for body in [b"one", b"two"] {
        machine.append(body);
    }
    let mut disk = machine.close();
    disk.file(Name::Segment(1))[BLOCK + 300] ^= 1;
    let machine = disk.open_under(Damage::Repairable).expect("repaired");
    assert!(machine.journal_state().held.expect("still") >= first);
    assert_eq!(machine.last, IDENTITY.origin(), "the first entry is gone");
}

/// What is held is exact when the damage is inside and the end is whole.
#[test]
fn a_whole_end_bounds_what_is_missing_exactly() {
    let (truth, _) = truth(Ending::Killed);
    let last = truth.log().last().expect("one").id();
    for at in [BLOCK, BLOCK + 300] {
        for number in 1..=2 {
            let mut disk = truth.disk.clone();
            disk.file(Name::Segment(number))[at] ^= 1;
            let held = disk.decide(Damage::Repairable).expect("repaired").held();
            assert_eq!(held, Some(Held::from(last)), "segment {number}, byte {at}");
        }
    }
    let mut disk = truth.disk.clone();
    disk.segments.remove(&3);
    let held = disk.decide(Damage::Repairable).expect("repaired").held().expect("the end is gone");
    assert_eq!((held.term, held.index), (truth.hard_state.term, Held::ANY_INDEX));
}

/// Of a segment that was just begun, the header speaks for all before it, and its one write for itself.
#[test]
fn a_segment_just_begun_bounds_what_is_missing_exactly() {
    let mut machine = Machine::new(24 << 10);
    let mut full = (machine.disk.clone(), machine.last);
    while machine.disk.segments.len() < 2 {
        full = (machine.disk.clone(), machine.last);
        machine.append(b"a block");
    }
    let (mut begun, last) = full;
    let mut header = machine.disk.segments[&2].clone();
    header[BLOCK..].fill(0);
    begun.segments.insert(2, header);
    for (what, disk, last) in [("a header", begun, last), ("one write", machine.disk, machine.last)] {
        for at in (BLOCK..24 << 10).step_by(BLOCK) {
            let mut disk = disk.clone();
            disk.file(Name::Segment(1))[at + 300] ^= 1;
            let held = disk.decide(Damage::Repairable).expect("repaired").held();
            assert_eq!(held, Some(Held::from(last)), "{what} in segment 2, damage at {at} of segment 1");
        }
    }
}

/// What follows damage does not continue what came before it.
#[test]
fn a_stream_that_meets_damage_says_so_once_and_ends() {
    let (truth, _) = truth(Ending::Killed);
    let opening = truth.disk.decide(Damage::Refuse).expect("whole");
    let mut disk = truth.disk.clone();
    disk.file(Name::Segment(2))[BLOCK + 300] ^= 1;
    let mut stream = entries(opening.tail(), |number| disk.segments[&number].as_slice());
    let mut before = 0;
    let damage = loop {
        match stream.next() {
            Some(Ok(_)) => before += 1,
            other => break other,
        }
    };
    assert!(matches!(damage, Some(Err(Refused::Corrupt { .. }))), "{damage:?}");
    assert!(before > 0 && before < truth.log().len(), "{before}");
    assert!(stream.next().is_none(), "nothing behind it");
}

/// A segment that the system refuses to read from an offset on.
struct Guarded {
    bytes: Vec<u8>,
    refuses: Option<(u64, io::ErrorKind)>,
}

impl Blocks for Guarded {
    fn length(&self) -> io::Result<u64> {
        self.bytes.as_slice().length()
    }

    fn read(&self, offset: u64, length: usize) -> io::Result<Bytes> {
        match self.refuses {
            Some((from, refuses)) if offset >= from => Err(refuses.into()),
            _ => self.bytes.as_slice().read(offset, length),
        }
    }
}

/// Decides on a disk whose third segment cannot be read from there on.
fn decide_guarded(disk: &Disk, from: u64, refuses: io::ErrorKind) -> Result<Opening, Refused> {
    let files: Vec<_> = disk
        .segments
        .iter()
        .map(|(&number, bytes)| SegmentFile {
            number,
            blocks: Guarded { bytes: bytes.clone(), refuses: (number == 3).then_some((from, refuses)) },
        })
        .collect();
    let state = read_state(&disk.state, &IDENTITY).expect("the state is whole");
    Opening::decide(state, &files, Rules { segment_bytes: disk.segment_bytes, damage: Damage::Repairable })
}

/// What cannot be read today may be whole tomorrow: no repair judges without it.
#[test]
fn only_lost_bytes_are_damage_and_any_other_failure_refuses() {
    let (truth, _) = truth(Ending::Killed);
    for (damaged, from) in [(true, BLOCK as u64), (true, 0), (false, BLOCK as u64), (false, 0)] {
        let mut disk = truth.disk.clone();
        if damaged {
            disk.file(Name::Segment(1))[BLOCK + 300] ^= 1;
        }
        let what = format!("segment 3 from {from}, segment 1 damaged: {damaged}");
        let opening = decide_guarded(&disk, from, io::ErrorKind::InvalidData).expect(&what);
        assert_eq!(opening.held().expect("something is missing").index, Held::ANY_INDEX, "{what}");
        let place = &opening.damaged().expect("lost bytes").place;
        let expected = if damaged { (segment_name(1), BLOCK as u64) } else { (segment_name(3), from) };
        assert_eq!((place.file.clone(), place.offset), expected, "{what}");
        match decide_guarded(&disk, from, io::ErrorKind::PermissionDenied) {
            Err(Refused::Io { file, source }) => {
                assert_eq!((file, source.kind()), (segment_name(3), io::ErrorKind::PermissionDenied));
            }
            other => panic!("{what}: {other:?}"),
        }
    }
}

/// The founders' entry is of term zero, and may be all that there was.
#[test]
fn the_loss_of_the_very_first_entry_is_remembered() {
    let mut machine = Machine::new(24 << 10);
    machine.term = Term::ZERO;
    let first = machine.append(b"founders");
    let mut disk = machine.close();
    disk.file(Name::Segment(1))[BLOCK + 300] ^= 1;
    let machine = disk.open_under(Damage::Repairable).expect("repaired");
    assert_eq!(machine.journal_state().held, Some(Held::from(first.id())));
    let machine = machine.close().open_under(Damage::Repairable).expect("whole");
    assert_eq!(machine.journal_state().held, Some(Held::from(first.id())), "and read again");
}

/// The mark of an idle log does not delay what ends the idleness.
#[test]
fn a_plan_that_comes_before_the_mark_goes_first_and_alone() {
    let mut machine = Machine::new(24 << 10);
    machine.append(b"one");
    machine.journal.mark();
    let frame = machine.frame(b"two");
    machine.submit(None, vec![frame], LogIndex::ZERO);
    machine.start();
    machine.finish();
    assert!(!machine.start(), "nothing follows it but the next plan");
    assert!(machine.journal.mark_owed());
}

#[test]
fn the_next_segment_is_wanted_once_when_half_of_one_is_used() {
    let mut machine = Machine::new(24 << 10);
    let mut wanted = Vec::new();
    for _ in 0..10 {
        machine.append(b"a block");
        wanted.push([(); 2].map(|()| machine.journal.poll_spare().is_some()));
    }
    // A header and five writes fill a segment: with the second one half of it is used.
    let of_one = [false, true, false, false, false].map(|wanted| [wanted, false]);
    assert_eq!(wanted, [of_one, of_one].concat());
}

/// What is said to be missing of a disk with this damage.
fn held_of(disk: &Disk, what: &str) -> Held {
    let opening = disk.decide(Damage::Repairable).unwrap_or_else(|error| panic!("{what}: {error:?}"));
    assert!(opening.damaged().is_some(), "{what}");
    opening.held().expect(what)
}

/// The header of the segment that was begun last speaks for all before it, also for what stood further than its last entry; and
/// a mark that it covers contradicts nothing.
#[test]
fn a_header_alone_speaks_for_the_segments_before_it() {
    for fallen in [false, true] {
        for marked in [false, true] {
            let mut machine = Machine::new(16 << 10);
            let mut ids = Vec::new();
            for _ in 0..4 {
                ids.push(machine.append(b"a block").id());
            }
            machine.term = Term(3);
            ids.push(machine.append(b"of a later term").id());
            if fallen {
                // An earlier leader's entry comes in its place, from a leader that is newer than both.
                (machine.last, machine.term) = (ids[3], Term(2));
            }
            let last = machine.append(b"the last of the second segment").id();
            let peak = if fallen { ids[4] } else { last };
            if marked {
                machine.journal.mark();
                machine.run();
            }
            let mut begun = machine.disk.clone();
            machine.append(b"the first of the third");
            let mut header = machine.disk.segments[&3].clone();
            header[BLOCK..].fill(0);
            begun.segments.insert(3, header);
            for at in [0, BLOCK + 300] {
                let mut disk = begun.clone();
                disk.file(Name::Segment(2))[..BLOCK].fill(9);
                disk.file(Name::Segment(1))[at..at + 20].fill(9);
                let what = format!("fallen: {fallen}, marked: {marked}, segment 1 at {at}");
                assert_eq!(held_of(&disk, &what), Held::from(peak), "{what}");
            }
        }
    }
}

/// A mark that covers the last write, and a last segment that is longer than it was made.
#[test]
fn a_mark_keeps_what_is_missing_exact_and_another_length_does_not() {
    for ending in ENDINGS {
        let (truth, _) = truth(ending);
        let last = Held::from(truth.log().last().expect("one").id());
        let mut disk = truth.disk.clone();
        disk.file(Name::Segment(1))[BLOCK + 300] ^= 1;
        assert_eq!(held_of(&disk, "inside"), last, "{ending:?}");
        disk.file(Name::Segment(3)).push(0);
        let held = held_of(&disk, "longer");
        // A clean record is exact whatever the files look like.
        let expected = if ending == Ending::Clean { last.index } else { Held::ANY_INDEX };
        assert_eq!((held.term, held.index), (last.term, expected), "{ending:?}");
    }
}

/// A vote's term bounds what was written after it, where nothing else is left to speak of it.
#[test]
fn the_term_of_the_hard_state_bounds_what_went_with_a_segment() {
    for term in [1, 2, 9] {
        let mut machine = Machine::new(16 << 10);
        for _ in 0..3 {
            machine.append(b"a block");
        }
        machine.term = Term(term);
        let frame = machine.frame(b"of the new term");
        let vote = crate::memory::hard_state(Term(term), Some(NodeId(4)));
        machine.submit(Some(vote), vec![frame], LogIndex::ZERO);
        machine.run();
        let mut disk = machine.disk;
        assert_eq!(disk.segments.remove(&2).map(|file| file.len()), Some(16 << 10));
        let any = Held { term: Term(term), index: Held::ANY_INDEX };
        assert_eq!(held_of(&disk, "the second segment is gone"), any);
    }
}

/// Whoever writes may write what he likes: an envelope within a command is no envelope, as long as the one around it is whole.
#[test]
fn what_a_command_holds_says_nothing_of_the_log() {
    let mut machine = Machine::new(24 << 10);
    machine.append(b"one");
    let file = &machine.disk.segments[&1];
    let segment = crate::segment::SegmentHeader::parse(&file[..BLOCK], &IDENTITY).expect("whole");
    let first = crate::envelope::Header::parse(&file[BLOCK..], &segment, BLOCK as u64).expect("whole");
    let far = EntryId { index: LogIndex(1_000), term: Term(70), ..first.last };
    let forged = crate::envelope::Header { sequence: 900, last: far, frames: 1_000, ..first };
    let mut image = vec![0; SECTOR];
    forged.fill(&segment, &mut image);
    // The command begins where the header of the envelope, of its frame and of the command itself end.
    let before = crate::envelope::HEADER_BYTES + crate::frame::HEADER_BYTES + 4;
    let mut body = vec![0x61; SECTOR - before];
    body.extend_from_slice(&image);
    machine.append(&body);
    let last = machine.append(b"three").id();
    let second = &machine.disk.segments[&1][2 * BLOCK + SECTOR..];
    assert!(crate::envelope::Header::sight(second, &segment).is_some(), "it is there");
    let mut disk = machine.disk;
    disk.file(Name::Segment(1))[BLOCK + 300] ^= 1;
    assert_eq!(held_of(&disk, "the first write"), Held::from(last));
    // Not so when nothing vouches for where it stands: whatever is whole is counted.
    disk.file(Name::Segment(1))[2 * BLOCK + 300] ^= 1;
    assert_eq!(held_of(&disk, "both"), Held { term: Term(70), index: Held::ANY_INDEX });
}
