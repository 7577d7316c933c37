//! Openings of logs that were made by hand: what no writer makes, what a crash leaves at the very edge, and where each refusal
//! says that it is.

use crate::damage::Damage;
use crate::entries::entries;
use crate::envelope::{HEADER_BYTES, Header, disk_bytes};
use crate::frame::Frame;
use crate::id::{HardState, LogIndex, NodeId, Term};
use crate::memory::{Disk, IDENTITY, Machine, Name, hard_state};
use crate::opening::{Change, Opening, Rules, read_state};
use crate::plan::{Fetch, FetchError, LogEvent, WriteId, WritePlan};
use crate::positions::Position;
use crate::scan::{Cut, Refused, SegmentFile};
use crate::sector::{BLOCK, SECTOR};
use crate::segment::{FIRST_OFFSET, Predecessor, SegmentHeader, segment_name};
use crate::state::{self, Held, StateProblem, StateRecord};
use crate::walk::{Blocks, Window};
use bytes::Bytes;
use std::cell::RefCell;
use std::io;
use xxhash_rust::xxh3::xxh3_128;

/// One block for each, in one segment.
fn blocks(machine: &mut Machine, many: u8) -> Vec<Frame> {
    (0..many).map(|n| machine.append(&[n; 40])).collect()
}

fn header_of(disk: &Disk, segment: u64) -> SegmentHeader {
    SegmentHeader::parse(&disk.segments[&segment][..BLOCK], &IDENTITY).expect("whole")
}

fn envelope_at(disk: &Disk, at: usize) -> Header {
    Header::parse(&disk.segments[&1][at..], &header_of(disk, 1), at as u64).expect("whole")
}

/// An envelope that says this, with these frames.
fn image(disk: &Disk, header: &Header, frames: &[Frame]) -> Vec<u8> {
    let mut image = vec![0; disk_bytes(usize::try_from(header.payload).expect("small"))];
    header.fill(&header_of(disk, 1), &mut image);
    let mut at = HEADER_BYTES;
    for frame in frames {
        image[at..at + frame.bytes().len()].copy_from_slice(frame.bytes());
        at += frame.bytes().len();
    }
    image
}

fn refused(disk: &Disk) -> (String, u64, String) {
    match disk.decide(Damage::Refuse) {
        Err(Refused::Corrupt { file, offset, what }) => (file, offset, what),
        other => panic!("{other:?}"),
    }
}

/// Envelopes 1 to 3; the third is torn, and this stands in the fourth's place or elsewhere behind it.
fn torn_before(put: impl Fn(&Disk, Header) -> Vec<(usize, Vec<u8>)>) -> Disk {
    let mut machine = Machine::new(64 << 10);
    blocks(&mut machine, 3);
    let mut disk = machine.disk;
    let third = envelope_at(&disk, 3 * BLOCK);
    let more = put(&disk, third);
    disk.file(Name::Segment(1))[3 * BLOCK + 300] ^= 1;
    for (at, bytes) in more {
        disk.file(Name::Segment(1))[at..at + bytes.len()].copy_from_slice(&bytes);
    }
    disk
}

/// What stands behind a place where an envelope is missing decides whether it was torn or damaged.
#[test]
fn only_what_says_that_a_write_was_flushed_makes_its_loss_damage() {
    let cut = |until: usize| {
        let at = Position { segment: 1, offset: 3 * BLOCK as u64 };
        Some(Cut { at, until: until as u64, sequence: 3 })
    };
    let headers = |disk: &Disk, third: Header, sequence: u64, log_mark: u64| {
        image(disk, &Header { sequence, log_mark, ..third }, &[])[..SECTOR].to_vec()
    };
    let there = 6 * BLOCK;
    for (what, put, expected) in [
        ("nothing", None, cut(4 * BLOCK)),
        ("an older one", Some((there, 2, 1)), cut(7 * BLOCK)),
        ("itself in another place", Some((there, 3, 2)), None),
        ("itself within a block", Some((there + SECTOR, 3, 2)), cut(7 * BLOCK)),
        ("the next, in flight with it", Some((there, 4, 2)), cut(7 * BLOCK)),
        ("the next, after its flush", Some((there, 4, 3)), None),
        ("the next, within a block", Some((there + 7 * SECTOR, 4, 3)), None),
        ("a later one, in flight with it", Some((there, 9, 2)), cut(7 * BLOCK)),
        ("a later one, after its flush", Some((there, 9, 8)), None),
        ("a later one in the segment's last block", Some((15 * BLOCK, 9, 8)), None),
        ("an older one in the last block", Some((15 * BLOCK, 1, 0)), cut(16 * BLOCK)),
    ] {
        let disk = torn_before(|disk, third| {
            let put = put.map(|(at, sequence, mark)| (at, headers(disk, third, sequence, mark)));
            put.into_iter().collect()
        });
        match (disk.decide(Damage::Refuse), expected) {
            (Ok(opening), Some(_)) => assert_eq!(opening.cut(), expected, "{what}"),
            (Err(Refused::Corrupt { file, offset, .. }), None) => {
                assert_eq!((file, offset), (segment_name(1), 3 * BLOCK as u64), "{what}");
            }
            (other, _) => panic!("{what}: {other:?}"),
        }
    }
    // The table has a row for two that were in flight together, and what was flushed counts for more.
    let disk = torn_before(|disk, third| {
        let of = |sequence, mark| headers(disk, third, sequence, mark);
        vec![(there, of(9, 8)), (there + BLOCK, of(4, 2))]
    });
    assert_eq!(refused(&disk).1, 3 * BLOCK as u64);
}

/// A tear in the last blocks of a segment is cut to its end, and a write that fills it to the last byte is served.
#[test]
fn a_segment_is_used_to_its_last_byte() {
    let mut machine = Machine::new(16 << 10);
    blocks(&mut machine, 1);
    let body = 2 * BLOCK - HEADER_BYTES - crate::frame::HEADER_BYTES - 4;
    let frame = machine.frame(&vec![7; body]);
    machine.submit(None, vec![frame.clone()], LogIndex::ZERO);
    assert!(machine.start());
    assert_eq!(machine.pending_sectors(), 16, "to the last byte");
    let mut torn = machine.disk.clone();
    let whole = {
        machine.finish();
        machine.disk
    };
    let found = whole.inspect().expect("whole");
    assert_eq!((found.frames.last(), found.scanned.offset), (Some(&frame), 16 << 10));
    let last = whole.segments[&1][(16 << 10) - SECTOR..].to_vec();
    torn.file(Name::Segment(1))[(16 << 10) - SECTOR..].copy_from_slice(&last);
    let cut = torn.inspect().expect("torn").scanned.cut.expect("torn");
    assert_eq!((cut.at.offset, cut.until), (2 * BLOCK as u64, 16 << 10));
}

/// No writer makes these; no rule lets them pass, and no repair cuts them.
#[test]
fn a_write_that_breaks_a_promise_is_refused_under_every_rule() {
    let mut machine = Machine::new(64 << 10);
    let frames = blocks(&mut machine, 4);
    let header = |commit: u64, of: &Frame, disk: &Disk| Header {
        sequence: 5,
        log_mark: 4,
        previous: of.previous(),
        first_term: of.term(),
        last: of.id(),
        commit: LogIndex(commit),
        peak: Held::from(frames[3].id()),
        ..envelope_at(disk, 4 * BLOCK)
    };
    // The fifth write replaces an entry; the fourth said how far all was committed.
    for (committed, first, passes) in [(2, 3, true), (2, 2, false), (4, 1, false), (0, 1, true)] {
        let mut disk = machine.disk.clone();
        let fourth = Header { commit: LogIndex(committed), ..envelope_at(&disk, 4 * BLOCK) };
        let fourth = image(&disk, &fourth, &frames[3..]);
        disk.file(Name::Segment(1))[4 * BLOCK..5 * BLOCK].copy_from_slice(&fourth);
        let again = &frames[first - 1];
        let fifth = image(&disk, &header(0, again, &disk), std::slice::from_ref(again));
        disk.file(Name::Segment(1))[5 * BLOCK..6 * BLOCK].copy_from_slice(&fifth);
        for rule in [Damage::Refuse, Damage::Repairable] {
            match disk.decide(rule) {
                Ok(_) if passes => {}
                Err(Refused::Corrupt { offset, what, .. }) if !passes => {
                    assert_eq!(offset, 5 * BLOCK as u64);
                    assert!(what.contains("replaces a committed one"), "{what}");
                }
                other => panic!("{committed} {first}: {other:?}"),
            }
        }
    }
    let mut disk = machine.disk.clone();
    let (header, last) = (header_of(&disk, 1), frames[0].id());
    let predecessor = Predecessor { sequence: 1, last, peak: Held::from(last) };
    SegmentHeader { predecessor, ..header }.fill(&mut disk.file(Name::Segment(1))[..BLOCK]);
    for rule in [Damage::Refuse, Damage::Repairable] {
        match disk.decide(rule) {
            Err(Refused::Corrupt { file, offset: 0, what }) => {
                assert_eq!(file, segment_name(1));
                assert!(what.contains("does not begin the log"), "{what}");
            }
            other => panic!("{other:?}"),
        }
    }
}

/// Three segments of five blocks, all full but the last.
fn three() -> Disk {
    let mut machine = Machine::new(24 << 10);
    blocks(&mut machine, 12);
    assert_eq!(machine.disk.segments.len(), 3);
    machine.disk
}

/// What is wrong, and where: an operator looks there.
#[test]
fn a_refusal_says_where_and_what() {
    /// What happened to which segment, where the refusal says it is, in which words, and how it is done.
    type Case<'a> = (&'a str, u64, usize, &'a str, &'a dyn Fn(&mut Disk));
    let file = |disk: &mut Disk, number, change: &dyn Fn(&mut Vec<u8>)| {
        change(disk.file(Name::Segment(number)));
    };
    let end = 24 << 10;
    let cases: [Case<'_>; 14] = [
        ("missing", 2, 0, "missing before log-0000000000000003", &|disk| drop(disk.segments.remove(&2))),
        ("the last missing", 3, 0, "the log reached segment 3", &|disk| drop(disk.segments.remove(&3))),
        ("no header", 2, 0, "no copy", &|disk| file(disk, 2, &|bytes| bytes[..BLOCK].fill(1))),
        ("another's", 2, 0, "holds segment 3", &|disk| {
            let third = disk.segments[&3].clone();
            disk.segments.insert(2, third);
        }),
        ("no size", 2, 0, "its size is no whole number of blocks", &|disk| {
            file(disk, 2, &|bytes| {
                for copy in bytes[..BLOCK].chunks_exact_mut(SECTOR) {
                    copy[48..56].fill(0);
                    let hash = xxh3_128(&copy[..SECTOR - 16]);
                    copy[SECTOR - 16..].copy_from_slice(&hash.to_le_bytes());
                }
            });
        }),
        ("within its header", 2, 4095, "ends within its header", &|disk| {
            file(disk, 2, &|bytes| bytes.truncate(4095));
        }),
        ("behind its header", 2, BLOCK, "made with 24576 bytes and has 4096", &|disk| {
            file(disk, 2, &|bytes| bytes.truncate(BLOCK));
        }),
        ("short", 3, end - 1, "made with 24576 bytes and has 24575", &|disk| {
            file(disk, 3, &|bytes| bytes.truncate(end - 1));
        }),
        ("long", 3, end, "made with 24576 bytes and has 24577", &|disk| {
            file(disk, 3, &|bytes| bytes.push(0));
        }),
        ("inside", 1, 2 * BLOCK, "not whole: frame header is damaged", &|disk| {
            file(disk, 1, &|bytes| bytes[2 * BLOCK + 300] ^= 1);
        }),
        ("zeros inside", 1, 2 * BLOCK, "there are zeros; it was flushed", &|disk| {
            file(disk, 1, &|bytes| bytes[2 * BLOCK..3 * BLOCK].fill(0));
        }),
        ("garbage inside", 1, 2 * BLOCK, "no envelope of this segment", &|disk| {
            file(disk, 1, &|bytes| bytes[2 * BLOCK..3 * BLOCK].fill(3));
        }),
        ("stale inside", 1, 3 * BLOCK, "envelope 3 should stand here, and envelope 1 does", &|disk| {
            file(disk, 1, &|bytes| bytes.copy_within(BLOCK..2 * BLOCK, 3 * BLOCK));
        }),
        ("its end, and the next header", 2, 5 * BLOCK, "a later segment was begun", &|disk| {
            file(disk, 2, &|bytes| bytes[5 * BLOCK + 300] ^= 1);
            file(disk, 3, &|bytes| bytes[..BLOCK].fill(1));
        }),
    ];
    for (what, number, at, words, damage) in cases {
        let mut disk = three();
        damage(&mut disk);
        let (file, offset, says) = refused(&disk);
        assert_eq!((file, offset), (segment_name(number), at as u64), "{what}: {says}");
        assert!(says.contains(words), "{what}: {says}");
    }
}

/// The log knows of state records that a state file from an earlier day does not have: a vote may be lost.
#[test]
fn a_state_file_that_was_put_back_is_refused() {
    let mut machine = Machine::new(24 << 10);
    let mut past = vec![(machine.disk.state.clone(), machine.journal.state().sequence)];
    for n in 0..9_u8 {
        let frame = machine.frame(&[n; 40]);
        let vote = (n % 3 == 1).then(|| hard_state(Term(2 + u64::from(n)), Some(NodeId(3))));
        machine.submit(vote, vec![frame], LogIndex::ZERO);
        machine.run();
        past.push((machine.disk.state.clone(), machine.journal.state().sequence));
    }
    // The last write names the newest record that was flushed before it.
    let named = envelope_state_mark(&machine.disk);
    for damaged in [None, Some(1), Some(2)] {
        for (state, sequence) in &past {
            let mut disk = machine.disk.clone();
            disk.state.clone_from(state);
            if let Some(segment) = damaged {
                disk.file(Name::Segment(segment))[BLOCK + 300] ^= 1;
            }
            let rule = if damaged.is_some() { Damage::Repairable } else { Damage::Refuse };
            let lost = *sequence < named;
            match disk.decide(rule) {
                Ok(_) => assert!(!lost, "record {sequence} of {named}, damaged {damaged:?}"),
                Err(Refused::Corrupt { file, what, .. }) => {
                    assert!(lost, "record {sequence} of {named}, damaged {damaged:?}: {what}");
                    assert!(file == "state" && what.contains("is gone"), "{file}: {what}");
                }
                Err(other) => panic!("{other:?}"),
            }
        }
    }
}

fn envelope_state_mark(disk: &Disk) -> u64 {
    let (number, file) = disk.segments.last_key_value().expect("a segment");
    let segment = header_of(disk, *number);
    let whole = (BLOCK..file.len()).step_by(BLOCK).filter_map(|at| Header::sight(&file[at..], &segment));
    whole.map(|seen| seen.state_mark).max().expect("a write")
}

/// A medium that notes what is read, and refuses what it is told to.
struct Noted<'a> {
    bytes: &'a [u8],
    reads: RefCell<Vec<(u64, usize)>>,
    /// Whatever touches this block fails.
    fails: Option<(u64, io::ErrorKind)>,
}

impl<'a> Noted<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, reads: RefCell::default(), fails: None }
    }
}

impl Blocks for Noted<'_> {
    fn length(&self) -> io::Result<u64> {
        self.bytes.length()
    }

    fn read(&self, offset: u64, length: usize) -> io::Result<Bytes> {
        self.reads.borrow_mut().push((offset, length));
        match self.fails {
            Some((at, kind)) if offset <= at && at < offset + length as u64 => Err(kind.into()),
            _ => self.bytes.read(offset, length),
        }
    }
}

const AHEAD: usize = 1 << 20;

#[test]
fn a_window_reads_each_byte_once_and_no_further_than_it_may() {
    let bytes: Vec<u8> = (0..=250).cycle().take(5 * AHEAD / 2).collect();
    let noted = Noted::new(&bytes);
    let end = bytes.len() - BLOCK;
    let mut window = Window::new(&noted, end as u64);
    for at in (0..end).step_by(BLOCK) {
        assert_eq!(window.get(at as u64, BLOCK).expect("there"), bytes[at..at + BLOCK]);
    }
    let half = AHEAD / 2 - BLOCK;
    assert_eq!(
        noted.reads.take(),
        [(0, AHEAD), (AHEAD as u64, AHEAD), (2 * AHEAD as u64, half)],
        "ahead, and up to the end"
    );
    // More than is read ahead; then what lies before.
    let long = AHEAD + BLOCK;
    assert_eq!(window.get(0, long).expect("there"), bytes[..long]);
    assert_eq!(window.get(AHEAD as u64, 2 * BLOCK).expect("there"), bytes[AHEAD..AHEAD + 2 * BLOCK]);
    assert_eq!(window.get(AHEAD as u64, BLOCK).expect("there"), bytes[AHEAD..AHEAD + BLOCK]);
    assert_eq!(window.get(BLOCK as u64, BLOCK).expect("there"), bytes[BLOCK..2 * BLOCK]);
    assert_eq!(noted.reads.take(), [(0, long), (AHEAD as u64, AHEAD), (BLOCK as u64, AHEAD)]);
}

#[test]
fn what_is_lost_ahead_takes_nothing_else_with_it() {
    let bytes: Vec<u8> = (0..=250).cycle().take(8 * BLOCK).collect();
    for bad in 0..8 {
        let mut noted = Noted::new(&bytes);
        noted.fails = Some((bad * BLOCK as u64 + 9, io::ErrorKind::InvalidData));
        let mut window = Window::new(&noted, bytes.len() as u64);
        for at in 0..8 {
            let got = window.get(at * BLOCK as u64, BLOCK);
            assert_eq!(got.is_ok(), at != bad, "{at}, with {bad} lost");
        }
        // The block itself is asked for once with what follows it and once alone; the last one has nothing behind it.
        let asked = noted.reads.take().iter().filter(|(offset, _)| *offset == bad * BLOCK as u64).count();
        assert_eq!(asked, if bad == 7 { 1 } else { 2 });
        // What the system refuses is no loss, and is not tried in another way.
        noted.fails = Some((bad * BLOCK as u64 + 9, io::ErrorKind::PermissionDenied));
        let error = Window::new(&noted, bytes.len() as u64).get(0, BLOCK).expect_err("refused");
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        assert_eq!(noted.reads.take(), [(0, 8 * BLOCK)], "asked once");
    }
}

/// Wherever the system refuses to read, for a reason that is no loss, the opening says so and judges nothing.
#[test]
fn a_failure_of_the_system_is_not_judged_as_damage_anywhere() {
    let mut machine = Machine::new(3 << 20);
    blocks(&mut machine, 2);
    let disk = machine.disk;
    for at in [0, FIRST_OFFSET, 5 * BLOCK as u64, (1 << 20) + FIRST_OFFSET + 5, (3 << 20) - 1] {
        for (kind, lost) in [(io::ErrorKind::PermissionDenied, false), (io::ErrorKind::InvalidData, true)] {
            let mut blocks = Noted::new(&disk.segments[&1]);
            blocks.fails = Some((at, kind));
            let files = [SegmentFile { number: 1, blocks }];
            let state = read_state(&disk.state, &IDENTITY).expect("whole");
            let rules = Rules { segment_bytes: disk.segment_bytes, damage: Damage::Refuse };
            match Opening::decide(state, &files, rules) {
                Err(Refused::Io { file, source }) if !lost => {
                    assert_eq!((file, source.kind()), (segment_name(1), kind), "{at}");
                }
                Err(Refused::Corrupt { what, .. }) if lost => {
                    assert!(what.contains("cannot be read"), "{at}: {what}");
                }
                other => panic!("{at} {kind:?}: {other:?}"),
            }
        }
    }
}

/// A medium that shows something else when it is read for the second time.
struct Changing<'a> {
    first: &'a [u8],
    second: &'a [u8],
    reads: RefCell<usize>,
}

impl Blocks for Changing<'_> {
    fn length(&self) -> io::Result<u64> {
        self.first.length()
    }

    fn read(&self, offset: u64, length: usize) -> io::Result<Bytes> {
        *self.reads.borrow_mut() += 1;
        // The header, and the walk's own read.
        let bytes = if *self.reads.borrow() <= 2 { self.first } else { self.second };
        bytes.read(offset, length)
    }
}

/// The entry that a replacing write continues is read again, and is not there any more.
#[test]
fn a_file_that_changes_under_the_opening_is_refused() {
    let mut machine = Machine::new(24 << 10);
    let frames = blocks(&mut machine, 4);
    (machine.last, machine.term) = (frames[1].id(), Term(2));
    machine.append(&[9; 40]);
    let first = machine.disk.segments[&1].clone();
    for (what, places, offset) in [("to the end", 1..6, 5 * BLOCK), ("then zeros", 1..4, 4 * BLOCK)] {
        let mut second = vec![0; first.len()];
        for place in places {
            second[place * BLOCK..(place + 1) * BLOCK].copy_from_slice(&first[BLOCK..2 * BLOCK]);
        }
        let blocks = Changing { first: &first, second: &second, reads: RefCell::default() };
        let state = read_state(&machine.disk.state, &IDENTITY).expect("whole");
        let rules = Rules { segment_bytes: 24 << 10, damage: Damage::Refuse };
        match Opening::decide(state, &[SegmentFile { number: 1, blocks }], rules) {
            Err(Refused::Corrupt { offset: at, what: says, .. }) => {
                assert_eq!(at, offset as u64, "{what}");
                assert!(says.contains("changed while it was read"), "{what}: {says}");
            }
            other => panic!("{what}: {other:?}"),
        }
    }
}

/// What the stream of entries meets that was not there when the log was opened.
#[test]
fn a_stream_refuses_a_whole_write_that_is_not_the_next_one() {
    let mut machine = Machine::new(24 << 10);
    let frames = blocks(&mut machine, 3);
    (machine.last, machine.term) = (frames[1].id(), Term(2));
    machine.append(&[9; 40]);
    machine.append(&[8; 40]);
    let opening = machine.disk.decide(Damage::Refuse).expect("whole");
    // The old third entry in the place of the new one; a copy of the second in the place of the last, where the segment ends.
    for (from, to, words) in
        [(3, 4, "entry 4 does not continue the one before it"), (2, 5, "the segment ends before entry 4")]
    {
        let mut disk = machine.disk.clone();
        disk.file(Name::Segment(1)).copy_within(from * BLOCK..(from + 1) * BLOCK, to * BLOCK);
        let stream = entries(opening.tail(), |number| disk.segments[&number].as_slice());
        match stream.last() {
            Some(Err(Refused::Corrupt { what, .. })) => assert!(what.contains(words), "{what}"),
            other => panic!("{from} at {to}: {other:?}"),
        }
    }
}

/// The marks of the map are closer together than what is read ahead, which is kept from one to the next.
#[test]
fn a_stream_reads_each_byte_once() {
    let mut machine = Machine::new(4 << 20);
    for n in 0..30 {
        machine.append(&vec![n; 100_000]);
    }
    let opening = machine.disk.decide(Damage::Refuse).expect("whole");
    let noted = Noted::new(&machine.disk.segments[&1]);
    assert_eq!(entries(opening.tail(), |_| &noted).filter(Result::is_ok).count(), 30);
    let reads = noted.reads.take();
    // A write that the end of one read cuts is read again from its front.
    assert_eq!(reads.len(), 3, "{reads:?}");
}

fn fetched(machine: &mut Machine, from: u64) -> LogEvent {
    machine.journal.fetch(Fetch { token: 7, from: LogIndex(from), max_bytes: usize::MAX });
    let mut wanted = machine.journal.poll_read();
    for _ in 0..4 {
        let Some(read) = wanted else { break };
        let at = usize::try_from(read.at.offset).expect("small");
        let bytes = machine.disk.segments[&read.at.segment][at..at + read.length].to_vec();
        wanted = machine.journal.handle_read(Ok(bytes.into()));
    }
    machine.journal.poll_event().expect("a fetch is answered after a few reads")
}

/// What was found before the damage is an answer; damage at the front is none.
#[test]
fn a_fetch_answers_with_what_lies_before_damage() {
    let mut machine = Machine::new(24 << 10);
    let frames = blocks(&mut machine, 5);
    for fill in [0, 3] {
        machine.disk.file(Name::Segment(1))[3 * BLOCK..4 * BLOCK].fill(fill);
        match fetched(&mut machine, 1) {
            LogEvent::Fetched { frames: found, .. } => assert_eq!(found, frames[..2]),
            other => panic!("{other:?}"),
        }
        match fetched(&mut machine, 3) {
            LogEvent::FetchFailed { error: FetchError::Damaged { offset, what, .. }, .. } => {
                assert_eq!(offset, 3 * BLOCK as u64);
                assert!(what.contains("no envelope"), "{what}");
            }
            other => panic!("{other:?}"),
        }
    }
}

/// A frame that goes on behind the end of its write is damage, however the write ends: no second read finds more.
#[test]
fn a_frame_that_ends_behind_its_write_is_damage() {
    for blocks in 1..=2 {
        let mut machine = Machine::new((1 + blocks as u64) * BLOCK as u64);
        let payload = blocks * BLOCK - HEADER_BYTES;
        let frame = machine.frame(&vec![5; payload - crate::frame::HEADER_BYTES - 4]);
        machine.submit(None, vec![frame.clone()], LogIndex::ZERO);
        machine.run();
        assert!(matches!(fetched(&mut machine, 1), LogEvent::Fetched { .. }));
        // Another frame of this index, which would be longer.
        machine.last = frame.previous();
        let longer = machine.frame(&vec![5; payload]);
        let header = envelope_at(&machine.disk, BLOCK);
        let mut bytes = vec![0; blocks * BLOCK];
        Header { last: longer.id(), ..header }.fill(&header_of(&machine.disk, 1), &mut bytes);
        bytes[HEADER_BYTES..].copy_from_slice(&longer.bytes()[..payload]);
        machine.disk.file(Name::Segment(1))[BLOCK..].copy_from_slice(&bytes);
        match fetched(&mut machine, 1) {
            LogEvent::FetchFailed { error: FetchError::Damaged { what, .. }, .. } => {
                assert!(what.contains("ends early"), "{what}");
            }
            other => panic!("{other:?}"),
        }
    }
}

/// A state file of one record twice over, with this changed in the newer one.
fn state_with(at: usize, bytes: &[u8]) -> Result<StateRecord, StateProblem> {
    let (_, mut file) = state::initial_file(IDENTITY);
    for copy in file[BLOCK..].chunks_exact_mut(SECTOR) {
        copy[at..at + bytes.len()].copy_from_slice(bytes);
        let hash = xxh3_128(&copy[..SECTOR - 16]);
        copy[SECTOR - 16..].copy_from_slice(&hash.to_le_bytes());
    }
    state::read(&file, &IDENTITY)
}

#[test]
fn a_record_that_no_writer_makes_is_a_lost_slot() {
    let (record, _) = state::initial_file(IDENTITY);
    let slot = StateProblem::Damaged {
        offset: BLOCK as u64,
        what: "a slot of the hard state is lost, and with it perhaps a vote",
    };
    let number = |at: usize, value: u64| state_with(at, &value.to_le_bytes());
    // Openings, the first segment and the newest one, marks of the log and of the commit index.
    assert_eq!(number(96, u64::MAX), Err(slot.clone()));
    assert_eq!(number(96, u64::MAX - 1), Ok(StateRecord { openings: u64::MAX - 1, ..record }));
    assert_eq!(number(112, 0), Err(slot.clone()), "segments count from 1");
    assert_eq!(number(112, 9), Ok(StateRecord { first_segment: 9, ..record }));
    for (newest, first, possible) in [(0_u64, 9_u64, true), (8, 9, false), (9, 9, true), (10, 9, true)] {
        let both = [newest.to_le_bytes(), first.to_le_bytes()].concat();
        assert_eq!(state_with(104, &both).is_ok(), possible, "{newest} {first}");
    }
    for (mark, commit, possible) in [(0_u64, 0_u64, true), (0, 1, false), (1, 1, true), (1, 0, true)] {
        let both = [mark.to_le_bytes(), commit.to_le_bytes()].concat();
        assert_eq!(state_with(80, &both).is_ok(), possible, "{mark} {commit}");
    }
    // What may be missing: a flag of four bytes, a term, and an index.
    for (term, index, possible) in
        [(0, 0, true), (0, 7, true), (0, u64::MAX, false), (1, u64::MAX, true), (1 << 63, 7, true)]
    {
        for flag in [1_u32, 1 << 24] {
            let held = Held { term: Term(term), index: LogIndex(index) };
            let field = [&flag.to_le_bytes()[..], &term.to_le_bytes(), &index.to_le_bytes()].concat();
            let expected =
                if possible { Ok(StateRecord { held: Some(held), ..record }) } else { Err(slot.clone()) };
            assert_eq!(state_with(124, &field), expected, "{held:?} {flag:x}");
        }
    }
    // The sequence: one more than the other slot's, and never the last there is.
    let fork =
        StateProblem::Damaged { offset: 0, what: "the slots of the hard state do not follow each other" };
    assert_eq!(number(40, u64::MAX), Err(slot));
    assert_eq!(number(40, u64::MAX - 2), Err(fork.clone()));
    assert_eq!(number(40, 3), Err(fork.clone()));
    assert_eq!(state_with(48, &[1; 16]), Err(fork), "the parent is the record before");
}

#[test]
fn a_new_state_file_says_whose_it_is_and_nothing_more() {
    let (record, file) = state::initial_file(IDENTITY);
    let first = StateRecord {
        identity: IDENTITY,
        sequence: 0,
        parent: 0,
        hard_state: HardState::default(),
        log_mark: 0,
        commit: LogIndex::ZERO,
        openings: 0,
        newest_segment: 0,
        first_segment: 1,
        clean: true,
        held: None,
        peak: Held::default(),
    };
    assert_eq!(record, StateRecord { sequence: 1, parent: first.hash(), ..first });
    assert_eq!(state::read(&file, &IDENTITY), Ok(record));
    assert_eq!(state::owner(&file), Some(IDENTITY));
    assert_eq!(state::owner(&[0; 2 * BLOCK]), None);
    assert!(file[128..144].iter().all(|&byte| byte == 0), "nothing is missing, so there is nothing to say");
    let another = crate::Identity { node: NodeId(9), ..IDENTITY };
    assert_eq!(state::read(&file, &another), Err(StateProblem::Foreign(IDENTITY)));
    // Which slot is lost.
    for (slot, offset) in [(0, 0), (1, BLOCK as u64)] {
        let mut lost = file.clone();
        lost[slot * BLOCK..(slot + 1) * BLOCK].fill(0);
        let what = "a slot of the hard state is lost, and with it perhaps a vote";
        assert_eq!(state::read(&lost, &IDENTITY), Err(StateProblem::Damaged { offset, what }));
    }
    let what = "both slots of the hard state are lost";
    assert_eq!(state::read(&[0; 2 * BLOCK], &IDENTITY), Err(StateProblem::Damaged { offset: 0, what }));
}

/// A repair that keeps nothing begins a new log, and says so before it has made its first segment.
#[test]
fn a_repair_that_keeps_nothing_leaves_no_segment_behind() {
    let mut machine = Machine::new(24 << 10);
    blocks(&mut machine, 2);
    let mut disk = machine.disk;
    disk.file(Name::Segment(1))[..BLOCK].fill(9);
    let mut opening = disk.decide(Damage::Repairable).expect("repaired");
    let Some(Change::State(record)) = opening.poll_change() else { panic!("the record comes first") };
    assert_eq!((record.newest_segment, record.log_mark), (0, 0));
    disk.carry_out(Change::State(record), &mut opening);
    assert_eq!(opening.poll_change(), Some(Change::SetAside { segment: 1 }));
    disk.carry_out(Change::SetAside { segment: 1 }, &mut opening);
    let again = disk.decide(Damage::Refuse).expect("nothing is missing that the record does not know of");
    assert_eq!((again.held(), again.damaged()), (record.held, None));
}

/// The zeros are of the segment in which the kept part ends, and a copy is kept of what they cover, if anything.
#[test]
fn a_repair_copies_what_it_covers_and_covers_only_what_is_there() {
    for (what, damage, covers) in [
        ("inside", (2 * BLOCK + 300, 1), true),
        ("nothing behind", (0, 0), false),
        ("another length", (0, 1), true),
    ] {
        let mut disk = three();
        match damage {
            (0, longer) => {
                // The last segment is gone; the one before it is whole, and as long as it was made, or not.
                disk.segments.remove(&3);
                disk.file(Name::Segment(2)).resize((24 << 10) + longer * BLOCK, 0);
            }
            (at, _) => disk.file(Name::Segment(2))[at] ^= 1,
        }
        let mut opening = disk.decide(Damage::Repairable).expect("repaired");
        assert_eq!(opening.damaged().map(|damaged| damaged.remains), Some(covers), "{what}");
        let changes: Vec<_> = std::iter::from_fn(|| opening.poll_change()).collect();
        let from = opening.tail().offset;
        let covering = [
            Change::Copy { segment: 2 },
            Change::Zero { segment: 2, from, until: 24 << 10, length: 24 << 10 },
        ];
        assert_eq!(changes.windows(2).any(|pair| pair == covering), covers, "{what}: {changes:?}");
        let touches = |change: &Change| matches!(change, Change::Copy { .. } | Change::Zero { .. });
        assert_eq!(changes.iter().filter(|change| touches(change)).count(), if covers { 2 } else { 0 });
    }
}

fn plan(id: u64, frames: Vec<Frame>, commit: u64) -> WritePlan {
    WritePlan { frames, commit: LogIndex(commit), ..WritePlan::barrier(WriteId(id)) }
}

#[test]
#[should_panic(expected = "plans have ascending names")]
fn a_name_is_used_once() {
    let mut machine = Machine::new(24 << 10);
    machine.journal.submit(plan(7, vec![], 0));
    machine.journal.submit(plan(7, vec![], 0));
}

#[test]
#[should_panic(expected = "replaces a committed entry")]
fn what_an_earlier_plan_called_committed_is_not_replaced() {
    let mut machine = Machine::new(24 << 10);
    let frames: Vec<_> = (0..3).map(|n| machine.frame(&[n])).collect();
    machine.journal.submit(plan(1, frames.clone(), 2));
    machine.last = frames[0].id();
    let other = machine.frame(b"another second entry");
    machine.journal.submit(plan(2, vec![other], 0));
}

/// After a failure nothing is queued, so that nothing waits for what will not come.
#[test]
fn a_plan_after_a_failure_is_dropped() {
    let mut machine = Machine::new(24 << 10);
    let frame = machine.frame(b"one");
    let error = crate::LogError::Thread("a test ended it");
    machine.journal.handle_failed(error);
    machine.journal.submit(plan(1, vec![frame], 0));
    assert_eq!((machine.journal.queued_bytes(), machine.journal.is_idle()), (0, true));
    assert!(!machine.start());
}

/// Frames that were put in their place beforehand stay as they are; the rest is filled in.
#[test]
fn what_was_staged_is_written_as_it_stands() {
    let mut machine = Machine::new(64 << 10);
    let frames: Vec<_> = [10, 300, 40].map(|size| machine.frame(&vec![1; size])).into();
    machine.journal.submit(plan(1, frames.clone(), 0));
    let mut step = machine.journal.poll_step();
    if let crate::journal::Step::Rotate(next) = step {
        let header = machine.disk.make(next);
        machine.journal.handle_rotated(header);
        step = machine.journal.poll_step();
    }
    let crate::journal::Step::Write { envelope: Some(extent), .. } = step else { panic!("{step:?}") };
    let mut whole = vec![0xee; extent.bytes];
    machine.journal.fill_envelope(&mut whole);
    let lengths: Vec<_> = frames.iter().map(|frame| frame.bytes().len()).collect();
    for staged in 0..=3 {
        let bytes: usize = lengths[..staged].iter().sum();
        // A frame counts as staged when all of it is.
        for more in [0, 1] {
            let mut out = vec![0xee; extent.bytes];
            out[HEADER_BYTES..][..bytes].copy_from_slice(&whole[HEADER_BYTES..][..bytes]);
            let mut expected = whole.clone();
            // The last byte of the last one, to tell it from a copy.
            if let Some(last) = (HEADER_BYTES + bytes).checked_sub(1).filter(|_| staged > 0) {
                (out[last], expected[last]) = (0x77, 0x77);
            }
            machine.journal.fill_around(&mut out, bytes + more);
            assert!(out == expected, "{staged} frames and {more} bytes were staged");
        }
    }
}
