//! Writes that the kernel itself cuts short and then refuses (a limit on the size of files), on both writers.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]
#![cfg(target_os = "linux")]

mod common;

use common::*;
use std::fs;
use std::path::Path;
use std::process::Command;
use wal::*;

/// Not a test by itself: what runs under the limit. Writes 12 KiB at a time and leaves a note of what was
/// acknowledged.
#[test]
fn limited_process() {
    let Ok(dir) = std::env::var("WAL_TEST_LIMITED") else { return };
    let wanted = std::env::var("WAL_TEST_WRITER").unwrap();
    let which = writers().into_iter().find(|which| format!("{which:?}") == wanted).unwrap();
    let (mut log, _) = Log::open(which, options(Path::new(&dir))).unwrap();
    let mut acknowledged = 0;
    let failure = loop {
        let frame = log.next_frame(&[0x33; 10_000]);
        log.submit(None, vec![frame], LogIndex::ZERO);
        match log.event() {
            LogEvent::Flushed(_) => acknowledged += 1,
            LogEvent::Failed(error) => break error,
            other => panic!("{other:?}"),
        }
    };
    // What fits under the limit would be written without trouble, and is not: the latch.
    log.submit(Some(HardState { term: Term(9), vote: None, ..HardState::default() }), vec![], LogIndex::ZERO);
    assert_eq!(log.close().unwrap_err(), failure);
    fs::write(Path::new(&dir).with_extension("note"), format!("{acknowledged} {failure}")).unwrap();
}

#[test]
fn a_write_cut_short_and_then_refused_is_not_acknowledged_and_nothing_after_it_is() {
    for which in writers() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("data");
        let (log, _) = Log::open(which, options(&dir)).unwrap();
        log.close().unwrap();
        // 24 KiB: the header, one write of 12 KiB, and two of the three blocks of the next.
        let status = Command::new("sh")
            .args(["-c", "trap '' XFSZ; ulimit -f 48; exec \"$0\" --exact limited_process --nocapture"])
            .arg(std::env::current_exe().unwrap())
            .env("WAL_TEST_LIMITED", &dir)
            .env("WAL_TEST_WRITER", format!("{which:?}"))
            .output()
            .unwrap();
        assert!(status.status.success(), "{}", String::from_utf8_lossy(&status.stderr));
        let note = fs::read_to_string(dir.with_extension("note")).unwrap();
        assert!(note.starts_with("1 writing ") && note.contains("File too large"), "{which:?}: {note}");
        let segment = fs::read(dir.join(segment_name(1))).unwrap();
        assert!(
            segment[20 << 10..24 << 10].contains(&0x33),
            "{which:?}: it was cut short, not refused whole"
        );

        let recovered = open(options(&dir)).unwrap().recovered;
        assert_eq!(recovered.last().index, LogIndex(1));
        assert_eq!(recovered.report().cut.unwrap().sequence, 2);
        assert_eq!(recovered.hard_state().term, Term(1), "the vote after the failure was not written");
        assert!(!recovered.was_clean());
    }
}
