//! A log that gets shorter at its front: what goes, what a crash on the way leaves, and old bytes in a segment used again.

use crate::damage::Damage;
use crate::frame::Frame;
use crate::id::{EntryId, HardState, LogIndex, NodeId, Term};
use crate::memory::{Disk, IDENTITY, Machine, Name};
use crate::plan::{Fetch, FetchError, LogEvent};
use crate::scan::Refused;
use crate::sector::{BLOCK, SECTOR};
use proptest::prelude::*;

/// Entries of one block each, three to a segment, committed as they come.
fn written(entries: u64) -> (Machine, Vec<Frame>) {
    let mut machine = Machine::new(16 << 10);
    let frames = (1..=entries)
        .map(|n| {
            let frame = machine.frame(&[0x61; 100]);
            machine.submit(None, vec![frame.clone()], LogIndex(n));
            machine.run();
            frame
        })
        .collect();
    (machine, frames)
}

/// What the driver does with files: the journal says which, after the record is flushed.
fn remove_files(machine: &mut Machine) -> Vec<u64> {
    let dropped: Vec<u64> = std::iter::from_fn(|| machine.journal.poll_dropped()).collect();
    for number in &dropped {
        machine.disk.segments.remove(number).expect("it was there");
    }
    dropped
}

fn fetch(machine: &mut Machine, from: u64) -> Result<LogIndex, FetchError> {
    machine.journal.fetch(Fetch { token: 1, from: LogIndex(from), max_bytes: 1 });
    let mut read = machine.journal.poll_read();
    while let Some(wanted) = read {
        let file = machine.disk.segments.get(&wanted.at.segment);
        let at = usize::try_from(wanted.at.offset).expect("small");
        let bytes = file.map(|file| file[at..][..wanted.length].to_vec().into());
        let gone = FetchError::Io { file: "gone".into(), what: "gone".into() };
        read = machine.journal.handle_read(bytes.ok_or(gone));
    }
    match machine.journal.poll_event() {
        Some(LogEvent::Fetched { frames, .. }) => Ok(frames[0].index()),
        Some(LogEvent::FetchFailed { error, .. }) => Err(error),
        other => panic!("{other:?}"),
    }
}

#[test]
fn whole_segments_below_an_index_go_after_the_state_says_so() {
    let (mut machine, frames) = written(10);
    assert_eq!(machine.disk.segments.len(), 4);
    // Entry 4 begins the second segment, and is needed.
    for (below, first, dropped) in [(3, 1, vec![]), (4, 2, vec![1]), (5, 2, vec![]), (100, 4, vec![2, 3])] {
        machine.journal.drop_below(LogIndex(below));
        assert_eq!(remove_files(&mut machine), [0; 0], "nothing goes before it is written down");
        assert_eq!(machine.start(), !dropped.is_empty(), "one record, if anything goes");
        assert_eq!(remove_files(&mut machine), [0; 0], "nothing goes before it is flushed");
        if !dropped.is_empty() {
            machine.finish();
        }
        assert_eq!(machine.journal.state().first_segment, first, "below {below}");
        assert_eq!(remove_files(&mut machine), dropped, "below {below}");
    }
    assert_eq!(
        fetch(&mut machine, 9),
        Err(FetchError::Missing { from: LogIndex(9), first: LogIndex(10), last: LogIndex(10) })
    );
    assert_eq!(fetch(&mut machine, 10), Ok(LogIndex(10)));
    // It is written to and opened as ever, and its base is what stood before.
    let more = machine.append(b"more");
    let (again, found) = machine.close().open().expect("whole");
    assert_eq!(found.frames, [frames[9].clone(), more.clone()]);
    assert_eq!(found.scanned.segments[0].predecessor.last, frames[8].id());
    assert_eq!((again.last, again.journal_state().first_segment), (more.id(), 4));
}

#[test]
fn what_is_not_known_committed_or_was_superseded_stays() {
    let mut machine = Machine::new(16 << 10);
    let mut ids = vec![IDENTITY.origin()];
    for _ in 0..7 {
        ids.push(machine.append(&[1; 100]).id());
    }
    machine.journal.drop_below(LogIndex(8));
    assert!(!machine.start(), "nothing is known to be committed");
    // Entries 5 to 7 are replaced by one in the third segment: 6, the last entry of the second, was never committed.
    (machine.last, machine.term) = (ids[4], Term(2));
    let frame = machine.frame(&[2; 100]);
    machine.submit(
        Some(HardState { term: Term(2), vote: Some(NodeId(3)), ..HardState::default() }),
        vec![frame],
        LogIndex(5),
    );
    machine.run();
    assert_eq!(machine.journal.state().first_segment, 2, "entry 3 is committed, and may be the base");
    let commit = |machine: &mut Machine, n| {
        let frame = machine.frame(&[3; 100]);
        machine.submit(None, vec![frame], LogIndex(n));
        machine.run();
    };
    commit(&mut machine, 6);
    assert_eq!(
        machine.journal.state().first_segment,
        2,
        "the old entry 6 is no base, although 6 is committed"
    );
    assert_eq!(machine.disk.inspect().expect("whole").frames[0].id(), ids[4]);
    commit(&mut machine, 7);
    assert_eq!(machine.journal.state().first_segment, 4, "the new one is");
    let found = machine.disk.inspect().expect("whole");
    assert_eq!(found.frames.len(), 1);
    assert_eq!((found.frames[0].index(), found.frames[0].term()), (LogIndex(7), Term(2)));
}

#[test]
fn a_read_under_way_in_a_dropped_segment_is_answered_as_missing() {
    for recycled in [false, true] {
        let (mut machine, _) = written(8);
        machine.journal.fetch(Fetch { token: 1, from: LogIndex(2), max_bytes: 1 });
        let wanted = machine.journal.poll_read().expect("a read");
        machine.journal.drop_below(LogIndex(7));
        machine.run();
        let result = if recycled {
            Ok(vec![0; wanted.length].into())
        } else {
            Err(FetchError::Io { file: "log".into(), what: "no such file".into() })
        };
        assert!(machine.journal.handle_read(result).is_none());
        let event = machine.journal.poll_event();
        assert!(
            matches!(event, Some(LogEvent::FetchFailed { error: FetchError::Missing { .. }, .. })),
            "{event:?}"
        );
    }
}

/// A crash at each step: the record torn in every way, then every subset of the files gone (a crash may undo the removal of
/// any of them).
#[test]
fn a_crash_at_any_step_leaves_the_longer_log_or_the_shorter_one() {
    let (mut machine, frames) = written(11);
    machine.journal.drop_below(LogIndex(10));
    assert!(machine.start());
    let before = machine.disk.clone();
    let [(_, at, image)] = &machine.pending[..] else { panic!("one record") };
    let (at, image) = (*at, image.clone());
    for kept in 0_u32..256 {
        let mut torn = before.clone();
        for sector in (0..8).filter(|sector| kept & (1 << sector) != 0) {
            torn.state[at + sector * SECTOR..][..SECTOR].copy_from_slice(&image[sector * SECTOR..][..SECTOR]);
        }
        let (again, found) = torn.open().expect("a tear is no damage");
        let first = if kept == 0 { 0 } else { 9 };
        assert_eq!(found.frames, frames[first..], "{kept:08b}");
        assert_eq!(again.disk.segments.contains_key(&1), kept == 0, "what was dropped is removed");
    }
    machine.finish();
    let dropped: Vec<u64> = std::iter::from_fn(|| machine.journal.poll_dropped()).collect();
    assert_eq!(dropped, [1, 2, 3]);
    for gone in 0_u32..8 {
        let mut disk = machine.disk.clone();
        disk.segments.retain(|&number, _| number > 3 || gone & (1 << (number - 1)) == 0);
        for damage in [Damage::Refuse, Damage::Repairable] {
            let mut again = disk.clone().open_under(damage).expect("whole");
            assert_eq!(*again.disk.segments.keys().next().expect("one"), 4, "{gone:03b}");
            let more = again.append(b"more");
            let found = again.disk.inspect().expect("whole");
            assert_eq!(found.frames, [&frames[9..], &[more]].concat(), "{gone:03b}");
        }
    }
}

/// The record speaks of a front that is not there: never taken for an empty log.
#[test]
fn a_needed_segment_that_is_gone_is_refused_whatever_was_dropped() {
    let (mut machine, frames) = written(11);
    machine.journal.drop_below(LogIndex(7));
    machine.run();
    assert_eq!(remove_files(&mut machine), [1, 2]);
    let disk = machine.close();
    let mut gone = disk.clone();
    gone.segments.remove(&3);
    for rule in [Damage::Refuse, Damage::Repairable] {
        assert!(matches!(gone.decide(rule), Err(Refused::Corrupt { .. })), "the base is lost with it");
    }
    let mut damaged = disk.clone();
    damaged.file(Name::Segment(3))[BLOCK + 300] ^= 1;
    assert!(damaged.decide(Damage::Refuse).is_err());
    let machine = damaged.open_under(Damage::Repairable).expect("an empty prefix with a base");
    assert_eq!(machine.last, frames[5].id());
    assert!(machine.journal_state().held.is_some_and(|held| held.index >= LogIndex(11)));
    let mut last = disk;
    last.segments.remove(&4);
    let opening = last.decide(Damage::Repairable).expect("a prefix is left");
    assert_eq!(opening.tail().last, frames[8].id());
}

/// Old bytes in a segment that is used again, as if nobody had overwritten them: they never count, and would only blur the
/// difference between an end and a tear. That is why they are overwritten.
#[test]
fn the_bytes_of_an_earlier_life_are_never_taken_for_this_one() {
    let (mut machine, frames) = written(8);
    let old = machine.disk.segments[&1].clone();
    let more = machine.frame(b"more");
    // The same frame again, as an old life of this file would hold it.
    machine.submit(None, vec![more.clone()], LogIndex(8));
    machine.run();
    let next = machine.append(b"next");
    assert_eq!(machine.disk.segments.len(), 4);
    let log = [&frames[..], &[more, next]].concat();
    for ending in ["killed", "closed"] {
        let mut disk = if ending == "killed" { machine.disk.clone() } else { closed(&machine.disk) };
        let file = disk.file(Name::Segment(4));
        let used = 2 * BLOCK;
        assert!(file[used..].iter().all(|&byte| byte == 0), "the rest of the segment is new");
        file[used..].copy_from_slice(&old[used..]);
        let found = disk.inspect().expect("nothing of it counts");
        assert_eq!(found.frames, log, "{ending}");
        assert!(found.scanned.cut.is_some(), "{ending}: it looks like a tear");
    }
}

fn closed(disk: &Disk) -> Disk {
    disk.clone().open().expect("whole").0.close()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// Writes, conflicts, drops and restarts in any order against a model: every entry from the log's base on is there.
    #[test]
    fn a_log_that_is_cut_at_both_ends_is_what_the_model_says(
        steps in prop::collection::vec((0_u8..10, 0_u64..6, 0_usize..3_000), 1..40)
    ) {
        let mut machine = Machine::new(16 << 10);
        let mut log: Vec<Frame> = Vec::new();
        let (mut committed, mut base) = (0_usize, 0_usize);
        for (kind, n, size) in steps {
            let n = usize::try_from(n).expect("small");
            match kind {
                0..=5 => {
                    let back = if kind == 0 { n.min(log.len() - committed) } else { 0 };
                    log.truncate(log.len() - back);
                    let vote = back > 0;
                    if vote {
                        machine.term = machine.term.next();
                    }
                    machine.last = log.last().map_or(IDENTITY.origin(), Frame::id);
                    let frame = machine.frame(&vec![7; size]);
                    log.push(frame.clone());
                    committed = committed.max(log.len().saturating_sub(1 + n));
                    let state = vote.then_some(HardState { term: machine.term, vote: None, ..HardState::default() });
                    machine.submit(state, vec![frame], LogIndex(committed as u64));
                    machine.run();
                }
                6..=8 => {
                    let below = LogIndex((committed.saturating_sub(n) + 1) as u64);
                    machine.journal.drop_below(below);
                    machine.run();
                    let kept = machine.journal.state().first_segment;
                    let left = n % 2 == 0;
                    while let Some(number) = machine.journal.poll_dropped() {
                        prop_assert!(number < kept);
                        if left {
                            machine.disk.segments.remove(&number);
                        }
                    }
                }
                _ => {
                    let term = machine.term;
                    let disk = if n % 2 == 0 { machine.close() } else { machine.disk };
                    machine = disk.open().map_err(|error| TestCaseError::fail(format!("{error:?}")))?.0;
                    machine.term = term;
                }
            }
            let found = machine.disk.inspect().map_err(|error| TestCaseError::fail(format!("{error:?}")))?;
            let first: EntryId = found.scanned.segments.first().map_or(IDENTITY.origin(), |s| s.predecessor.last);
            let now = usize::try_from(first.index.0).expect("small");
            prop_assert!(now >= base && now <= committed, "{now} of {base} to {committed}");
            base = now;
            prop_assert_eq!(&found.frames[..], &log[base..]);
            prop_assert!(base == 0 || log[base - 1].id() == first);
        }
    }
}
