//! Repair on real files, with both writers: what the tests of the pure half show in memory.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod common;

use common::*;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use wal::*;

fn repairable(dir: &Path) -> Options {
    Options { damage: Damage::Repairable, ..options(dir) }
}

/// Entries over three segments of 64 KiB, and the hard state that came first.
fn written(which: Which, dir: &Path) -> (Log, Vec<Frame>) {
    let (mut log, _) = Log::open(which, repairable(dir)).unwrap();
    let id = log.submit(
        Some(HardState { term: Term(1), vote: Some(NodeId(2)), ..HardState::default() }),
        vec![],
        LogIndex::ZERO,
    );
    log.wait(id);
    let frames = (0..40_u8).map(|n| log.append(&[n; 300])).collect();
    (log, frames)
}

fn damage(dir: &Path, segment: u64, at: u64) {
    let file = fs::OpenOptions::new().write(true).open(dir.join(segment_name(segment))).unwrap();
    file.write_all_at(b"damage", at).unwrap();
}

#[test]
fn a_damaged_middle_keeps_its_prefix_and_says_what_is_missing_until_the_node_is_whole() {
    for which in writers() {
        let dir = tempfile::tempdir().unwrap();
        let (log, frames) = written(which, dir.path());
        log.close().unwrap();
        damage(dir.path(), 2, 4096 + 300);
        let before = fs::read(dir.path().join(segment_name(2))).unwrap();
        let third = fs::read(dir.path().join(segment_name(3))).unwrap();
        assert!(
            matches!(open(options(dir.path())), Err(OpenError::Corrupt { offset: 4096, .. })),
            "{which:?}"
        );

        let (mut log, mut recovered) = Log::open(which, repairable(dir.path())).unwrap();
        assert_eq!(collect(&mut recovered), frames[..15], "{which:?}");
        let last = frames[39].id();
        assert_eq!(recovered.held(), Some(Held { term: last.term, index: last.index }));
        assert_eq!(
            recovered.hard_state(),
            HardState { term: Term(1), vote: Some(NodeId(2)), ..HardState::default() }
        );
        let damaged = recovered.report().damaged.clone().expect("it was repaired");
        assert_eq!((damaged.place.file, damaged.place.offset), (segment_name(2), 4096));
        let text = recovered.report().to_string();
        for part in ["at byte 4096", "kept for people", "entry 40 of term 1", "catches up from its peers"] {
            assert!(text.contains(part), "{text}");
        }
        let aside = |number| fs::read(dir.path().join(format!("{}.damaged", segment_name(number)))).unwrap();
        assert_eq!((aside(2), aside(3)), (before, third), "nothing is destroyed");

        // Caught up from a peer: the same entries again.
        let id = log.submit(None, frames[15..].to_vec(), LogIndex(30));
        log.wait(id);
        log.close().unwrap();
        let (mut log, mut recovered) = Log::open(which, options(dir.path())).unwrap();
        assert_eq!(collect(&mut recovered), frames);
        assert!(
            recovered.held().is_some() && recovered.report().damaged.is_none(),
            "in doubt until it says otherwise"
        );
        log.submit_whole();
        log.close().unwrap();
        let recovered = open(options(dir.path())).unwrap().recovered;
        assert_eq!((recovered.held(), recovered.last()), (None, last));
    }
}

#[test]
fn a_lost_end_a_shortened_segment_and_no_segments_at_all_are_repaired() {
    for which in writers() {
        for loss in ["segment 3", "all segments", "length", "header"] {
            let dir = tempfile::tempdir().unwrap();
            let (log, frames) = written(which, dir.path());
            drop(log);
            let path = |number| dir.path().join(segment_name(number));
            let kept = match loss {
                "segment 3" => fs::remove_file(path(3)).map(|()| 30).unwrap(),
                "all segments" => (1..=3).map(|n| fs::remove_file(path(n)).unwrap()).map(|()| 0).sum(),
                "length" => {
                    let file = fs::OpenOptions::new().write(true).open(path(2)).unwrap();
                    file.set_len(4096 * 4 + 100).map(|()| 18).unwrap()
                }
                _ => {
                    let file = fs::OpenOptions::new().write(true).open(path(2)).unwrap();
                    file.write_all_at(&[7; 4096], 0).map(|()| 15).unwrap()
                }
            };
            assert!(open(options(dir.path())).is_err(), "{which:?} {loss}");
            let (mut log, mut recovered) = Log::open(which, repairable(dir.path())).unwrap();
            assert_eq!(collect(&mut recovered), frames[..kept], "{which:?} {loss}");
            let held = recovered.held().expect("something is missing");
            assert!(held >= Held { term: Term(1), index: LogIndex(40) }, "{loss}: {held}");
            let rest: Vec<_> = frames[kept..].to_vec();
            let id = log.submit(None, rest, LogIndex(30));
            log.wait(id);
            log.close().unwrap();
            let mut recovered = open(options(dir.path())).unwrap().recovered;
            assert_eq!(collect(&mut recovered), frames, "{which:?} {loss}");
            assert_eq!(recovered.held(), Some(held));
        }
    }
}

#[test]
fn after_an_idle_mark_a_damaged_end_is_no_torn_write() {
    for which in writers() {
        let dir = tempfile::tempdir().unwrap();
        let (mut log, frames) = written(which, dir.path());
        assert!(log.mark_owed());
        let before = log.stats();
        log.mark();
        while log.mark_owed() {
            log.turn();
        }
        assert_eq!(log.stats().flushes, before.flushes + 1, "one flush");
        drop(log);
        damage(dir.path(), 3, 4096 * 10 + 300);
        let mut recovered = open(repairable(dir.path())).unwrap().recovered;
        assert_eq!(collect(&mut recovered), frames[..39], "{which:?}");
        assert!(recovered.report().cut.is_none() && recovered.held().is_some());
    }
}

#[test]
fn a_lost_slot_of_the_hard_state_is_refused_under_every_rule() {
    let dir = tempfile::tempdir().unwrap();
    written(Which::Portable, dir.path()).0.close().unwrap();
    let file = fs::OpenOptions::new().write(true).open(dir.path().join("state")).unwrap();
    file.write_all_at(&[0; 4096], 0).unwrap();
    assert!(matches!(open(repairable(dir.path())), Err(OpenError::Corrupt { offset: 0, .. })));
}
