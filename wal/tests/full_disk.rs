//! A real filesystem that is full, and one that is read-only. Needs root and loop mounts; says so loudly
//! where they are missing.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]
#![cfg(target_os = "linux")]

mod common;

use common::*;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use wal::*;

struct Mount {
    at: PathBuf,
    _files: tempfile::TempDir,
}

fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    let output =
        Command::new(program).args(arguments).output().map_err(|error| format!("{program}: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    output.status.success().then_some(()).ok_or(format!("{program} {arguments:?}: {said}"))
}

impl Mount {
    fn new(bytes: u64) -> Result<Self, String> {
        let files = tempfile::tempdir().map_err(|error| error.to_string())?;
        let (image, at) = (files.path().join("image"), files.path().join("mount"));
        fs::create_dir(&at).map_err(|error| error.to_string())?;
        let file = fs::File::create(&image).and_then(|file| file.set_len(bytes));
        file.map_err(|error| error.to_string())?;
        let (image, target) = (image.to_str().unwrap(), at.to_str().unwrap());
        run("mkfs.ext4", &["-q", "-m", "0", image])?;
        run("mount", &["-o", "loop", image, target])?;
        Ok(Self { at, _files: files })
    }

    fn data(&self) -> PathBuf {
        self.at.join("data")
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if let Err(error) = run("umount", &[self.at.to_str().unwrap()]) {
            eprintln!("left mounted: {error}");
        }
    }
}

fn small(path: &Path) -> Options {
    Options { segment_bytes: 2 << 20, ..options(path) }
}

#[test]
fn a_disk_that_fills_up_stops_the_log_before_it_loses_anything() {
    for which in writers() {
        let mount = match Mount::new(24 << 20) {
            Ok(mount) => mount,
            Err(error) => return eprintln!("SKIPPED, not tested here: {error}"),
        };
        let (mut log, _) = Log::open(which, small(&mount.data())).unwrap();
        let mut acknowledged = Vec::new();
        let failure = loop {
            let frame = log.next_frame(&[0x77; 100_000]);
            let id = log.submit(None, vec![frame.clone()], LogIndex::ZERO);
            match log.event() {
                LogEvent::Flushed(flushed) => {
                    assert_eq!(flushed.id(), id);
                    acknowledged.push(frame);
                }
                LogEvent::Failed(error) => break error,
                other => panic!("{other:?}"),
            }
        };
        assert!(matches!(failure, LogError::NoSpace { bytes: 0x0020_0000, .. }), "{failure}");
        assert!(acknowledged.len() > 100, "most of the disk was used: {}", acknowledged.len());
        assert_eq!(log.fetch(LogIndex(3), 1).unwrap(), acknowledged[2..3], "reading goes on");
        assert_eq!(log.close().unwrap_err(), failure);

        let Opened { mut recovered, .. } = open(small(&mount.data())).unwrap();
        assert_eq!(collect(&mut recovered), acknowledged, "{which:?}");
        assert!(!recovered.was_clean());

        run("mount", &["-o", "remount,ro", mount.at.to_str().unwrap()]).unwrap();
        let error = open(small(&mount.data())).expect_err("it cannot be locked");
        assert!(matches!(error, OpenError::ReadOnly { .. }), "{error}");
    }
}

#[test]
fn a_disk_with_no_room_for_the_first_segment_is_refused() {
    let mount = match Mount::new(8 << 20) {
        Ok(mount) => mount,
        Err(error) => return eprintln!("SKIPPED, not tested here: {error}"),
    };
    let error = open(options_of(&mount)).expect_err("there is no room");
    assert!(matches!(error, OpenError::NoSpace { bytes: 67_108_864, .. }), "{error}");
    assert!(!mount.data().join("spare.tmp").exists());
    drop(open(small(&mount.data())).unwrap());
}

fn options_of(mount: &Mount) -> Options {
    Options { segment_bytes: DEFAULT_SEGMENT_BYTES, ..options(&mount.data()) }
}
