//! Both writers on a filesystem whose writes, flushes and reads fail: nothing is acknowledged after a failure, reads go on,
//! and a restart finds all that was acknowledged. Needs root and /dev/fuse; says so loudly where they are missing.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]
#![cfg(target_os = "linux")]

#[path = "../common/mod.rs"]
mod common;
mod filesystem;

use common::*;
use filesystem::Mounted;
use std::path::Path;
use wal::*;

fn large(dir: &Path) -> Options {
    Options { segment_bytes: 2 << 20, ..options(dir) }
}

/// Runs a story on a new filesystem for each writer: the log with three entries, and those entries.
fn for_each_writer(story: impl Fn(Which, &Mounted, Log, Vec<Frame>)) {
    for which in writers() {
        let mounted = match Mounted::new() {
            Ok(mounted) => mounted,
            Err(error) => return eprintln!("!!!! SKIPPED, not tested here: {error}"),
        };
        let (mut log, _) = Log::open(which, large(&mounted.path)).unwrap();
        let frames = (0..3_u8).map(|n| log.append(&[n; 5_000])).collect();
        story(which, &mounted, log, frames);
    }
}

/// The log failed at its next write: it says so once, acknowledges nothing, and still reads.
fn expect_failure(which: Which, mounted: &Mounted, log: &mut Log, frames: &[Frame], words: &[&str]) {
    let failure = match log.event() {
        LogEvent::Failed(error) => error.to_string(),
        other => panic!("{which:?}: {other:?}"),
    };
    for word in words {
        assert!(failure.contains(word), "{which:?}: {failure:?} does not say {word:?}");
    }
    // The disk is well again, and is not believed.
    mounted.faults().write = None;
    let frame = log.next_frame(b"after the failure");
    log.submit(
        Some(HardState { term: Term(9), vote: Some(NodeId(1)), ..HardState::default() }),
        vec![frame],
        LogIndex::ZERO,
    );
    let flushes = log.stats().flushes;
    for frame in frames {
        assert_eq!(
            log.fetch(frame.index(), 1).unwrap(),
            std::slice::from_ref(frame),
            "{which:?}: reads go on"
        );
    }
    assert!(log.poll_now().is_none(), "{which:?}: it was said once");
    assert_eq!(log.stats().flushes, flushes, "{which:?}: nothing is acknowledged");
}

/// A restart on the disk as it is: what was acknowledged, and no more than what was written.
fn expect_restart(which: Which, mounted: &Mounted, acknowledged: &[Frame]) -> RecoveryReport {
    let (mut log, mut recovered) = Log::open(which, large(&mounted.path)).unwrap();
    assert_eq!(collect(&mut recovered), acknowledged, "{which:?}");
    assert!(!recovered.was_clean(), "{which:?}");
    assert_eq!(recovered.hard_state().term, Term(1), "{which:?}: the vote after the failure was not written");
    let more = log.append(b"after the restart");
    log.close().unwrap();
    let mut recovered = open(large(&mounted.path)).unwrap().recovered;
    assert_eq!(collect(&mut recovered), [acknowledged, &[more]].concat(), "{which:?}");
    recovered.report().clone()
}

#[test]
fn a_write_that_fails_is_the_last() {
    for_each_writer(|which, mounted, mut log, frames| {
        mounted.faults().write = Some((0, libc::EIO));
        let frame = log.next_frame(b"not written");
        log.submit(None, vec![frame], LogIndex::ZERO);
        expect_failure(
            which,
            mounted,
            &mut log,
            &frames,
            &["failed: Input/output error", "stop this process"],
        );
        assert!(log.close().is_err());
        expect_restart(which, mounted, &frames);
    });
}

#[test]
fn a_disk_that_fills_up_in_the_middle_of_a_write_leaves_a_torn_one() {
    for_each_writer(|which, mounted, mut log, frames| {
        // The first part is written, and the second is not.
        mounted.faults().write = Some((1, libc::ENOSPC));
        let frame = log.next_frame(&vec![0x5a; 1_200_000]);
        log.submit(None, vec![frame], LogIndex::ZERO);
        expect_failure(which, mounted, &mut log, &frames, &["failed: No space left on device"]);
        assert!(log.close().is_err());
        let opened = open(large(&mounted.path)).unwrap();
        let cut = opened.recovered.report().cut.expect("a torn write");
        assert_eq!(cut.sequence, 4, "{which:?}");
        assert!(cut.until - cut.at.offset < 1_200_000, "{which:?}: a part of it was written");
        drop(opened);
        expect_restart(which, mounted, &frames);
    });
}

/// The worst disk: it fails one flush, forgets what it was to flush, and succeeds ever after.
#[test]
fn a_flush_that_failed_is_not_believed_when_it_succeeds_later() {
    for_each_writer(|which, mounted, mut log, frames| {
        mounted.faults().flush = Some(libc::EIO);
        let frame = log.next_frame(&[0x77; 20_000]);
        log.submit(None, vec![frame], LogIndex::ZERO);
        expect_failure(which, mounted, &mut log, &frames, &["Input/output error"]);
        assert!(log.close().is_err());
        assert_eq!(mounted.faults().flushes_after_failure, 0, "{which:?}: not even tried");
        let report = expect_restart(which, mounted, &frames);
        assert!(report.cut.is_none(), "{which:?}");
        assert!(mounted.faults().flushes_after_failure > 0, "{which:?}: it would have succeeded");
    });
}

#[test]
fn an_old_entry_that_cannot_be_read_does_not_stop_the_log() {
    for_each_writer(|which, mounted, mut log, mut frames| {
        // Entry 2 stands at the third block of the file and the fourth.
        let byte = 4096 + 8192 + 300;
        mounted.faults().read = Some((byte, libc::EIO));
        let error = log.fetch(LogIndex(2), 1).unwrap_err();
        assert!(matches!(&error, FetchError::Io { what, .. } if what.contains("Input/output")), "{error}");
        frames.push(log.append(b"the log goes on"));
        mounted.faults().read = None;
        assert_eq!(log.fetch(LogIndex(2), 1).unwrap(), frames[1..2], "{which:?}");
        log.close().unwrap();

        // At a start it is damage: nothing is cut, and nothing served.
        mounted.faults().read = Some((byte, libc::EIO));
        let error = open(large(&mounted.path)).expect_err("it cannot be read");
        let OpenError::Corrupt { offset, what, .. } = &error else { panic!("{which:?}: {error}") };
        assert!(*offset == 4096 + 8192 && what.contains("cannot be read"), "{which:?}: {error}");
        mounted.faults().read = None;
        let mut recovered = open(large(&mounted.path)).unwrap().recovered;
        assert_eq!(collect(&mut recovered), frames, "{which:?}: the disk is well, and nothing was changed");
        assert!(recovered.was_clean());
    });
}

#[test]
fn nothing_is_acknowledged_before_a_slow_flush_has_ended() {
    for_each_writer(|which, mounted, mut log, frames| {
        let (heard, go) = mounted.hold_next_flush();
        let frame = log.next_frame(b"slow");
        let id = log.submit(None, vec![frame.clone()], LogIndex::ZERO);
        assert!(log.poll_now().is_none());
        let start = std::time::Instant::now();
        while heard.try_recv().is_err() {
            assert!(start.elapsed() < PATIENCE, "{which:?}: a flush comes");
            log.get_on();
        }
        assert!(log.poll_now().is_none(), "{which:?}: it is written, and not flushed");
        // What is queued behind it waits with it.
        let next = log.next_frame(b"behind it");
        let last = log.submit(None, vec![next.clone()], LogIndex::ZERO);
        assert!(log.poll_now().is_none(), "{which:?}");
        if which != Which::Portable {
            // The portable writer's thread sits in the flush.
            assert_eq!(log.fetch(LogIndex(1), 1).unwrap(), frames[..1], "{which:?}: reads go on");
        }
        go.send(()).unwrap();
        let first = log.event();
        assert!(matches!(first, LogEvent::Flushed(flushed) if flushed.id() == id), "{which:?}: {first:?}");
        log.wait(last);
        log.close().unwrap();
        let mut recovered = open(large(&mounted.path)).unwrap().recovered;
        assert_eq!(collect(&mut recovered), [&frames[..], &[frame, next]].concat(), "{which:?}");
    });
}
