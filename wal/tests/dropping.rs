//! A log that gets shorter at its front, on real files and with both writers; the files are used again.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod common;

use common::*;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use wal::*;

fn segments(dir: &Path) -> Vec<String> {
    let names = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.filter(|name| name.ends_with(".seg")).collect();
    names.sort();
    names
}

/// Entries of 4 KiB until segment `number` is begun, fifteen to a segment, each known committed.
fn write_until(log: &mut Log, frames: &mut Vec<Frame>, dir: &Path, number: u64) {
    while !dir.join(segment_name(number)).exists() {
        let frame = log.next_frame(&[0x61; 300]);
        let id = log.submit(None, vec![frame.clone()], frame.index());
        log.wait(id);
        frames.push(frame);
    }
}

#[test]
fn dropped_segments_go_and_one_of_them_is_the_next_with_none_of_its_old_bytes() {
    for which in writers() {
        let dir = tempfile::tempdir().unwrap();
        let (mut log, _) = Log::open(which, options(dir.path())).unwrap();
        let mut frames = Vec::new();
        write_until(&mut log, &mut frames, dir.path(), 4);
        let inode = |number| fs::metadata(dir.path().join(segment_name(number))).unwrap().ino();
        let before = [1, 3].map(inode);
        log.drop_below(LogIndex(31));
        // The answer to this write comes after the record that drops, and the next segment after the files are gone.
        write_until(&mut log, &mut frames, dir.path(), 5);
        assert_eq!(segments(dir.path()), [3, 4, 5].map(segment_name), "{which:?}");
        let newest = fs::read(dir.path().join(segment_name(5))).unwrap();
        assert!(
            newest[2 * 4096..].iter().all(|&byte| byte == 0),
            "{which:?}: nothing of its earlier life is left"
        );
        let missing = log.fetch(LogIndex(30), 1).unwrap_err();
        assert!(matches!(missing, FetchError::Missing { first: LogIndex(31), .. }), "{which:?}: {missing}");
        assert_eq!(log.fetch(LogIndex(31), 1).unwrap(), frames[30..31], "{which:?}");

        log.drop_below(LogIndex(61));
        write_until(&mut log, &mut frames, dir.path(), 7);
        assert_eq!([5, 6].map(inode), before, "{which:?}: the oldest of those dropped is used again");
        log.close().unwrap();

        let Opened { mut recovered, .. } = open(options(dir.path())).unwrap();
        let base = usize::try_from(recovered.base().index.0).unwrap();
        assert_eq!(base, 60, "{which:?}");
        assert_eq!(collect(&mut recovered), frames[base..], "{which:?}");
        assert_eq!(recovered.base(), frames[base - 1].id(), "{which:?}");
        assert!(recovered.was_clean() && recovered.report().cut.is_none(), "{which:?}");
    }
}

#[test]
fn files_that_a_crash_left_behind_are_removed_by_the_next_start() {
    for which in writers() {
        let dir = tempfile::tempdir().unwrap();
        let (mut log, _) = Log::open(which, options(dir.path())).unwrap();
        let mut frames = Vec::new();
        write_until(&mut log, &mut frames, dir.path(), 3);
        let kept = [1, 2].map(|number| fs::read(dir.path().join(segment_name(number))).unwrap());
        log.drop_below(LogIndex(31));
        write_until(&mut log, &mut frames, dir.path(), 4);
        log.close().unwrap();
        for (number, bytes) in [(1, &kept[0]), (2, &kept[1])] {
            fs::write(dir.path().join(segment_name(number)), bytes).unwrap();
        }
        let look = inspect::look(dir.path(), |_, _| ()).unwrap();
        let inspect::Outlook::Whole(opens) = look.outlook else { panic!("{which:?}: {:?}", look.outlook) };
        assert_eq!(opens.tail.base().index, LogIndex(30));
        assert_eq!(segments(dir.path()).len(), 4, "looking removes nothing");

        let (log, mut recovered) = Log::open(which, options(dir.path())).unwrap();
        assert_eq!(segments(dir.path()), [3, 4].map(segment_name), "{which:?}");
        assert_eq!(collect(&mut recovered), frames[30..], "{which:?}");
        log.close().unwrap();
    }
}
