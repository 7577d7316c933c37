//! Both writers, through the public interface: what was acknowledged is there after a start, whichever writer
//! comes next.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod common;

use common::*;
use std::os::unix::fs::FileExt;
use wal::*;

/// Every ordered pair of writers.
fn pairs() -> Vec<(Which, Which)> {
    let writers = writers();
    writers.iter().flat_map(|&a| writers.iter().map(move |&b| (a, b))).collect()
}

#[test]
fn what_one_writer_wrote_the_other_reads_and_continues() {
    for (first, second) in pairs() {
        let dir = tempfile::tempdir().unwrap();
        let (mut log, recovered) = Log::open(first, options(dir.path())).unwrap();
        assert_eq!(recovered.last(), IDENTITY.origin());
        assert!(recovered.was_clean(), "a new directory");
        let mut written: Vec<_> = (0..20_u8).map(|n| log.append(&[n; 100])).collect();
        let vote = HardState { term: Term(4), vote: Some(NodeId(3)), ..HardState::default() };
        let id = log.submit(Some(vote), vec![], LogIndex(7));
        log.wait(id);
        log.close().unwrap();

        let (mut log, mut recovered) = Log::open(second, options(dir.path())).unwrap();
        assert_eq!(collect(&mut recovered), written, "{first:?} then {second:?}");
        assert_eq!(recovered.hard_state(), vote);
        assert_eq!(recovered.commit(), LogIndex(7));
        assert_eq!(recovered.first_index(), LogIndex(1));
        assert!(recovered.was_clean());
        written.push(log.append(b"more"));
        drop(log);

        let (_, mut recovered) = Log::open(first, options(dir.path())).unwrap();
        assert_eq!(collect(&mut recovered), written);
        assert!(!recovered.was_clean(), "it was dropped, not closed");
        assert_eq!(recovered.hard_state(), vote);
    }
}

#[test]
fn a_log_over_many_segments_comes_back_whole() {
    for which in writers() {
        let dir = tempfile::tempdir().unwrap();
        let small = || Options { segment_bytes: 16 << 10, ..options(dir.path()) };
        let (mut log, _) = Log::open(which, small()).unwrap();
        let mut written: Vec<_> = (0..40_u16).map(|n| log.append(&vec![1; 100 * usize::from(n)])).collect();
        // One frame that no segment of the usual size holds.
        written.push(log.append(&vec![9; 100 << 10]));
        written.push(log.append(b"after"));
        assert!(log.stats().segments >= 13, "{:?}", log.stats());
        log.close().unwrap();
        let (_, mut recovered) = Log::open(which, small()).unwrap();
        assert_eq!(collect(&mut recovered), written);
    }
}

#[test]
fn plans_that_wait_together_share_one_write() {
    for which in writers() {
        let dir = tempfile::tempdir().unwrap();
        let (mut log, _) = Log::open(which, options(dir.path())).unwrap();
        let mut id = WriteId(0);
        for n in 0..50_u8 {
            let frame = log.next_frame(&[n]);
            id = log.submit(None, vec![frame], LogIndex(u64::from(n)));
        }
        let barrier = log.submit(None, vec![], LogIndex(50));
        assert!(barrier > id);
        log.wait(barrier);
        let stats = log.stats();
        assert_eq!((stats.writes, stats.frames, stats.queued_bytes), (1, 50, 0), "{which:?}");
        assert_eq!(stats.disk_bytes % 4096, 0);
        log.close().unwrap();
        assert_eq!(Log::open(which, options(dir.path())).unwrap().1.commit(), LogIndex(50));
    }
}

#[test]
fn a_superseded_suffix_is_gone_and_what_was_before_it_stays() {
    for which in writers() {
        let dir = tempfile::tempdir().unwrap();
        let (mut log, _) = Log::open(which, options(dir.path())).unwrap();
        let old: Vec<_> = (0..9_u8).map(|n| log.append(&[n])).collect();
        log.term = Term(2);
        log.last = old[4].id();
        let new: Vec<_> = (0..2_u8).map(|n| log.next_frame(&[0xf0 + n])).collect();
        let id = log.submit(
            Some(HardState { term: Term(2), vote: None, ..HardState::default() }),
            new.clone(),
            LogIndex(5),
        );
        log.wait(id);
        let live: Vec<_> = old[..5].iter().chain(&new).cloned().collect();
        assert_eq!(log.fetch(LogIndex(1), usize::MAX).unwrap(), live[..5], "up to the next mark");
        assert_eq!(log.fetch(LogIndex(6), usize::MAX).unwrap(), new);
        assert!(matches!(log.fetch(LogIndex(8), 1), Err(FetchError::Missing { .. })));
        log.close().unwrap();
        let (_, mut recovered) = Log::open(which, options(dir.path())).unwrap();
        assert_eq!(collect(&mut recovered), live);
        assert_eq!(recovered.report().superseded, 4);
    }
}

/// Plans pile up behind a write: more than share one envelope, some too large to share any, some that replace the end of what
/// waits before them.
#[test]
fn what_gathers_behind_a_write_is_written_as_it_was_handed_over() {
    const SIZES: [usize; 10] = [10, 100, 100, 700, 3_000, 3_000, 20_000, 70_000, 1_500_000, 2_300_000];
    for which in writers() {
        let dir = tempfile::tempdir().unwrap();
        let sized = || Options { segment_bytes: 8 << 20, ..options(dir.path()) };
        let (mut log, _) = Log::open(which, sized()).unwrap();
        let (mut live, mut random, mut id) = (Vec::<Frame>::new(), 7_u64, WriteId(0));
        let mut below = |bound: usize| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            usize::try_from(random >> 33).unwrap() % bound
        };
        for burst in 0..15 {
            if burst % 5 == 4 {
                live.truncate(live.len() - below(3));
                log.last = live.last().unwrap().id();
                log.term = Term(log.term.0 + 1);
            }
            for _ in 0..=below(9) {
                let frames: Vec<_> = (0..=below(3))
                    .map(|_| {
                        log.next_frame(&vec![u8::try_from(below(256)).unwrap(); SIZES[below(SIZES.len())]])
                    })
                    .collect();
                live.extend(frames.clone());
                id = log.submit(None, frames, LogIndex::ZERO);
            }
            let LogEvent::Flushed(_) = log.event() else { panic!("the disk works") };
        }
        log.wait(id);
        assert!(log.stats().writes > 10, "{:?}", log.stats());
        log.close().unwrap();
        let (_, mut recovered) = Log::open(which, sized()).unwrap();
        assert!(collect(&mut recovered) == live, "{which:?}: other entries came back");
        assert!(recovered.report().superseded > 0);
    }
}

#[test]
fn old_entries_are_fetched_from_anywhere_in_bounded_pieces() {
    for which in writers() {
        let dir = tempfile::tempdir().unwrap();
        let big = || Options { segment_bytes: 1 << 20, ..options(dir.path()) };
        let (mut log, _) = Log::open(which, big()).unwrap();
        let mut written = Vec::new();
        for n in 0..60_usize {
            let frames: Vec<_> = (0..n % 5 + 1).map(|m| log.next_frame(&vec![7; 997 * (m + n)])).collect();
            written.extend(frames.clone());
            let id = log.submit(None, frames, LogIndex::ZERO);
            log.wait(id);
        }
        // A single envelope larger than what a fetch reads at first.
        let frames: Vec<_> = (0..20).map(|_| log.next_frame(&vec![8; 20_000])).collect();
        written.extend(frames.clone());
        let id = log.submit(None, frames, LogIndex::ZERO);
        log.wait(id);
        for from in 1..=written.len() {
            let got = log.fetch(LogIndex(from as u64), 10_000).unwrap();
            assert!(!got.is_empty() && got[..] == written[from - 1..][..got.len()], "{which:?} from {from}");
            let but_last: usize = got[..got.len() - 1].iter().map(|frame| frame.bytes().len()).sum();
            assert!(but_last < 10_000, "no more than asked for, but for the last");
        }
        let mut all = Vec::new();
        while all.len() < written.len() {
            all.extend(log.fetch(LogIndex(all.len() as u64 + 1), usize::MAX).unwrap());
        }
        assert_eq!(all, written);
    }
}

#[test]
fn a_damaged_old_entry_is_not_served_and_the_log_goes_on() {
    for which in writers() {
        let dir = tempfile::tempdir().unwrap();
        let (mut log, _) = Log::open(which, options(dir.path())).unwrap();
        let first = log.append(b"first");
        log.append(b"second");
        let path = dir.path().join(segment_name(1));
        let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
        file.write_all_at(b"X", 2 * 4096 + 256 + 112 + 5).unwrap();
        file.sync_all().unwrap();
        assert_eq!(log.fetch(LogIndex(1), 1).unwrap(), [first]);
        let error = log.fetch(LogIndex(2), 1).unwrap_err();
        assert!(matches!(&error, FetchError::Damaged { offset: 8192, .. }), "{error}");
        log.append(b"third");
    }
}

#[test]
fn votes_alternate_between_slots_and_the_newest_counts() {
    for which in writers() {
        let dir = tempfile::tempdir().unwrap();
        let (mut log, _) = Log::open(which, options(dir.path())).unwrap();
        let mut before = std::fs::read(dir.path().join("state")).unwrap();
        for term in 1..10 {
            let state =
                HardState { term: Term(term), vote: Some(NodeId(term % 3 + 1)), ..HardState::default() };
            let id = log.submit(Some(state), vec![], LogIndex::ZERO);
            log.wait(id);
            let after = std::fs::read(dir.path().join("state")).unwrap();
            let changed = [0, 1].map(|slot| before[slot * 4096..][..4096] != after[slot * 4096..][..4096]);
            assert!(changed[0] != changed[1], "one slot a write");
            before = after;
        }
        drop(log);
        let recovered = Log::open(which, options(dir.path())).unwrap().1;
        assert_eq!(
            recovered.hard_state(),
            HardState { term: Term(9), vote: Some(NodeId(1)), ..HardState::default() }
        );
    }
}

#[test]
fn a_term_that_only_the_log_knows_is_not_forgotten() {
    for which in writers() {
        let dir = tempfile::tempdir().unwrap();
        let (mut log, _) = Log::open(which, options(dir.path())).unwrap();
        log.term = Term(6);
        log.append(b"of term six");
        drop(log);
        let recovered = Log::open(which, options(dir.path())).unwrap().1;
        assert_eq!(recovered.hard_state(), HardState { term: Term(6), vote: None, ..HardState::default() });
    }
}

#[cfg(target_os = "linux")]
mod ring {
    use super::*;
    use std::io::Write;
    use std::os::fd::AsFd;
    use std::time::{Duration, Instant};

    #[test]
    fn it_sleeps_until_a_descriptor_is_readable_or_the_time_is_over() {
        let Ok(mut ring) = linux::Ring::new(8) else {
            return eprintln!("SKIPPED: io_uring is refused here");
        };
        let (reader, mut writer) = std::io::pipe().unwrap();
        ring.watch(reader.as_fd(), 5);
        let start = Instant::now();
        ring.wait(Some(Duration::from_millis(20))).unwrap();
        assert!(start.elapsed() >= Duration::from_millis(20), "nothing happened");
        assert_eq!(ring.poll_ready(), None);
        writer.write_all(b"x").unwrap();
        ring.wait(Some(PATIENCE)).unwrap();
        assert_eq!(ring.poll_ready(), Some(5));
        assert_eq!(ring.poll_ready(), None, "once");
        // Level: what is there when watching begins fires too.
        ring.watch(reader.as_fd(), 6);
        ring.wait(Some(PATIENCE)).unwrap();
        assert_eq!(ring.poll_ready(), Some(6));
        // A token that is let go does not fire.
        ring.watch(reader.as_fd(), 7);
        ring.unwatch(7);
        ring.submit().unwrap();
        ring.wait(Some(Duration::ZERO)).unwrap();
        assert_eq!(ring.poll_ready(), None);
    }

    #[test]
    fn the_last_of_many_watches_ends_the_sleep() {
        let Ok(mut ring) = linux::Ring::new(4) else {
            return eprintln!("SKIPPED: io_uring is refused here");
        };
        let pipes: Vec<_> = (0..100).map(|_| std::io::pipe().unwrap()).collect();
        for ((reader, _), token) in pipes.iter().zip(0..) {
            ring.watch(reader.as_fd(), token);
        }
        let mut last = &pipes[99].1;
        last.write_all(b"x").unwrap();
        let start = Instant::now();
        ring.wait(Some(PATIENCE)).unwrap();
        assert_eq!(ring.poll_ready(), Some(99));
        assert!(start.elapsed() < PATIENCE);
    }

    #[test]
    fn more_watches_than_the_ring_has_entries_all_fire() {
        let Ok(mut ring) = linux::Ring::new(4) else {
            return eprintln!("SKIPPED: io_uring is refused here");
        };
        let pipes: Vec<_> = (0..100).map(|_| std::io::pipe().unwrap()).collect();
        for ((reader, writer), token) in pipes.iter().zip(0..) {
            let mut writer = writer;
            writer.write_all(b"x").unwrap();
            ring.watch(reader.as_fd(), token);
        }
        let mut fired = std::collections::BTreeSet::new();
        while fired.len() < 100 {
            ring.wait(Some(PATIENCE)).unwrap();
            while let Some(token) = ring.poll_ready() {
                assert!(fired.insert(token), "{token} fired twice");
            }
        }
    }
}
