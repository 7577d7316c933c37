//! Every reason why a directory is refused, each by its type, and that refusing changes nothing.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod common;

use common::*;
use std::fs;
use std::io::{BufRead, Write};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Stdio};
use wal::*;

/// A directory with a log of ten entries; closed or killed.
fn with_log(close: bool) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = Log::open(Which::Portable, options(dir.path())).unwrap();
    (0..10_u8).for_each(|n| drop(log.append(&[n])));
    if close {
        log.close().unwrap();
    }
    dir
}

fn refused(options: Options) -> OpenError {
    let error = open(options).expect_err("it is refused");
    assert!(!error.to_string().is_empty());
    error
}

fn overwrite(dir: &Path, name: &str, at: u64, bytes: &[u8]) {
    let file = fs::OpenOptions::new().write(true).open(dir.join(name)).unwrap();
    file.write_all_at(bytes, at).unwrap();
}

#[test]
fn a_missing_directory_is_made_only_when_asked() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a/b");
    let plain = || Options { create: false, ..options(&path) };
    assert!(matches!(refused(plain()), OpenError::Missing { .. }));
    assert!(!path.exists());
    fs::create_dir_all(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
    assert!(matches!(refused(plain()), OpenError::Missing { .. }), "an empty one is no log");
    assert_eq!(fs::read_dir(&path).unwrap().count(), 0, "and stays empty");
    let made = dir.path().join("c/d");
    drop(open(options(&made)).unwrap());
    assert_eq!(fs::metadata(&made).unwrap().permissions().mode() & 0o777, 0o700);
    drop(open(Options { create: false, ..options(&made) }).unwrap());
}

#[test]
fn a_file_a_link_and_a_directory_open_to_others_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, b"mine").unwrap();
    assert!(matches!(refused(options(&file)), OpenError::NotADirectory { .. }));
    assert!(matches!(refused(options(&file.join("below"))), OpenError::NotADirectory { .. }));
    assert_eq!(fs::read(&file).unwrap(), b"mine");

    let link = dir.path().join("link");
    std::os::unix::fs::symlink(dir.path(), &link).unwrap();
    assert!(matches!(refused(options(&link)), OpenError::Symlink { .. }));

    let shared = dir.path().join("shared");
    fs::create_dir(&shared).unwrap();
    fs::set_permissions(&shared, fs::Permissions::from_mode(0o777)).unwrap();
    let error = refused(options(&shared));
    assert!(
        matches!(error, OpenError::Permissions { .. }) && error.to_string().contains("chmod 700"),
        "{error}"
    );
}

#[test]
fn a_second_opening_is_refused_and_names_the_holder() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = Log::open(Which::Portable, options(dir.path())).unwrap();
    let error = refused(options(dir.path()));
    assert!(
        matches!(error, OpenError::Locked { pid: Some(pid), .. } if pid == std::process::id()),
        "{error}"
    );
    log.append(b"the first goes on");
    log.close().unwrap();
    drop(open(options(dir.path())).unwrap());
}

/// Not a test by itself: the second process of the next one.
#[test]
fn second_process() {
    let Ok(dir) = std::env::var("WAL_TEST_HOLD") else { return };
    let _opened = open(options(Path::new(&dir))).unwrap();
    std::io::stdout().write_all(b"\nholding\n").unwrap();
    std::io::stdin().lines().next();
}

#[test]
fn a_directory_held_by_another_process_is_refused_until_that_dies() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "second_process", "--nocapture"])
        .env("WAL_TEST_HOLD", dir.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = std::io::BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap() == "holding"));
    let error = refused(options(dir.path()));
    assert!(matches!(error, OpenError::Locked { pid: Some(pid), .. } if pid == child.id()), "{error}");
    child.kill().unwrap();
    child.wait().unwrap();
    drop(open(options(dir.path())).unwrap());
}

#[test]
fn another_owner_is_named() {
    let dir = with_log(true);
    let other = |identity| refused(Options { identity, ..options(dir.path()) });
    let what = |error| match error {
        OpenError::Foreign { what, found, expected, .. } => (what, found, expected),
        other => panic!("{other}"),
    };
    assert_eq!(what(other(Identity { node: NodeId(9), ..IDENTITY })), ("node", "1".into(), "9".into()));
    assert_eq!(what(other(Identity { cluster: ClusterId(9), ..IDENTITY })).0, "cluster");
    assert_eq!(what(other(Identity { group: GroupId(9), ..IDENTITY })).0, "group");
    let recovered = open(options(dir.path())).unwrap().recovered;
    assert!(recovered.was_clean(), "being refused changed nothing");
}

#[test]
fn a_newer_format_is_named_with_both_versions() {
    for (name, slots) in [("state".to_owned(), vec![0, 4096]), (segment_name(1), vec![0])] {
        let dir = with_log(true);
        let mut bytes = fs::read(dir.path().join(&name)).unwrap();
        for sector in slots.into_iter().flat_map(|slot| (slot..slot + 4096).step_by(512)) {
            let record = &mut bytes[sector..sector + 512];
            record[8..12].copy_from_slice(&9_u32.to_le_bytes());
            let hash = xxhash_rust::xxh3::xxh3_128(&record[..496]);
            record[496..].copy_from_slice(&hash.to_le_bytes());
        }
        fs::write(dir.path().join(&name), &bytes).unwrap();
        let error = refused(options(dir.path()));
        assert!(matches!(error, OpenError::Newer { found: 9, supported: FORMAT_VERSION, .. }), "{error}");
    }
}

#[test]
fn options_out_of_range_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    for segment_bytes in [0, 4096, 8193, MAX_SEGMENT_BYTES + 4096] {
        let error = refused(Options { segment_bytes, ..options(dir.path()) });
        assert!(matches!(error, OpenError::Option { what: "segment_bytes", .. }), "{error}");
    }
    let nobody = Identity { node: NodeId::ZERO, ..IDENTITY };
    assert!(matches!(refused(Options { identity: nobody, ..options(dir.path()) }), OpenError::Option { .. }));
}

#[test]
fn a_damaged_log_is_refused_with_file_and_offset_and_is_not_touched() {
    let dir = with_log(false);
    overwrite(dir.path(), &segment_name(1), 3 * 4096 + 300, b"damage");
    let before = fs::read(dir.path().join(segment_name(1))).unwrap();
    let error = refused(options(dir.path()));
    let OpenError::Corrupt { file, offset, what } = &error else { panic!("{error}") };
    assert_eq!((file.file_name().unwrap().to_str(), *offset), (Some(&*segment_name(1)), 3 * 4096));
    assert!(what.contains("entries 3 to 3"), "{what}");
    assert!(error.to_string().contains("backup"), "it says what to do: {error}");
    assert_eq!(fs::read(dir.path().join(segment_name(1))).unwrap(), before);
}

#[test]
fn a_torn_last_write_is_cut_once_and_reported() {
    let dir = with_log(false);
    overwrite(dir.path(), &segment_name(1), 10 * 4096 + 300, b"damage");
    let Opened { mut recovered, directory } = open(options(dir.path())).unwrap();
    assert_eq!(recovered.last().index, LogIndex(9));
    let cut = recovered.report().cut.expect("a tear");
    assert_eq!((cut.at.offset, cut.until, cut.sequence), (10 * 4096, 11 * 4096, 10));
    assert!(
        recovered.report().to_string().contains("write 10 was torn: 4096 bytes cut"),
        "{}",
        recovered.report()
    );
    let mut log = Log::start(Which::Portable, directory, &recovered);
    let written = [collect(&mut recovered), vec![log.append(b"ten again")]].concat();
    log.close().unwrap();
    let mut recovered = open(options(dir.path())).unwrap().recovered;
    assert_eq!(collect(&mut recovered), written);
    assert!(recovered.report().cut.is_none());
}

#[test]
fn the_same_damage_after_a_clean_close_is_corruption() {
    let dir = with_log(true);
    overwrite(dir.path(), &segment_name(1), 10 * 4096 + 300, b"damage");
    assert!(matches!(refused(options(dir.path())), OpenError::Corrupt { offset: 40_960, .. }));
}

#[test]
fn a_missing_state_a_lost_slot_and_a_shortened_segment_are_refused() {
    let dir = with_log(true);
    let state = fs::read(dir.path().join("state")).unwrap();
    fs::remove_file(dir.path().join("state")).unwrap();
    assert!(matches!(refused(options(dir.path())), OpenError::Corrupt { .. }));
    for slot in [0, 4096] {
        fs::write(dir.path().join("state"), &state).unwrap();
        overwrite(dir.path(), "state", slot, &[0; 4096]);
        assert!(matches!(refused(options(dir.path())), OpenError::Corrupt { offset, .. } if offset == slot));
    }
    fs::write(dir.path().join("state"), &state).unwrap();
    let segment = fs::OpenOptions::new().write(true).open(dir.path().join(segment_name(1))).unwrap();
    for length in [0, 100, 4096, 60 << 10] {
        segment.set_len(length).unwrap();
        assert!(matches!(refused(options(dir.path())), OpenError::Corrupt { .. }), "{length}");
    }
}

#[test]
fn leftovers_are_removed_and_strangers_left_alone() {
    let dir = with_log(true);
    for name in ["spare.tmp", "state.tmp", "notes.txt", "other.tmp"] {
        fs::write(dir.path().join(name), b"?").unwrap();
    }
    drop(open(options(dir.path())).unwrap());
    let there = |name| dir.path().join(name).exists();
    assert!(!there("spare.tmp") && !there("state.tmp") && there("notes.txt") && there("other.tmp"));
}

#[test]
#[cfg(target_os = "linux")]
fn a_filesystem_in_memory_is_refused_unless_allowed() {
    let Ok(dir) = tempfile::tempdir_in("/dev/shm") else {
        return eprintln!("SKIPPED: no /dev/shm");
    };
    let path = dir.path().join("data");
    let error = refused(Options { allow_volatile: false, ..options(&path) });
    assert!(matches!(error, OpenError::VolatileFilesystem { filesystem: "tmpfs", .. }), "{error}");
    drop(open(options(&path)).unwrap());
}

#[test]
fn entries_damaged_after_the_open_are_not_streamed() {
    let dir = with_log(true);
    let Opened { mut recovered, directory } = open(options(dir.path())).unwrap();
    overwrite(dir.path(), &segment_name(1), 5 * 4096 + 300, b"damage");
    let frames: Vec<_> = recovered.frames().collect();
    assert_eq!(frames.len(), 5, "four, and the reason why there are no more");
    assert!(matches!(frames[4], Err(OpenError::Corrupt { offset: 20_480, .. })), "{:?}", frames[4]);
    drop(directory);
}
