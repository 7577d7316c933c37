//! `d-engine wal`: the real program on directories that the real writers made, whole and with each kind of damage.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use wal::{
    ClusterId, Damage, Directory, EntryId, FrameBuilder, FrameHead, GroupId, HardState, Identity, LogEvent,
    LogIndex, NodeId, Options, PortableLog, Term, WriteId, WritePlan, segment_name,
};

const IDENTITY: Identity = Identity { cluster: ClusterId(0xc1), node: NodeId(7), group: GroupId::FIRST };
const BLOCK: u64 = 4096;

/// What the program said.
struct Said {
    code: i32,
    out: String,
    err: String,
}

fn d_engine(arguments: &[&str], directory: &Path) -> Said {
    let output =
        Command::new(env!("CARGO_BIN_EXE_d-engine")).args(arguments).arg(directory).output().unwrap();
    Said {
        code: output.status.code().expect("it was not killed"),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

impl Said {
    #[track_caller]
    fn says(&self, code: i32, words: &[&str]) {
        let Self { out, err, .. } = self;
        assert_eq!(self.code, code, "{out}\n{err}");
        for word in words {
            assert!(out.contains(word) || err.contains(word), "not said: {word:?} in\n{out}\n{err}");
        }
    }
}

fn options(directory: &Path) -> Options {
    Options {
        segment_bytes: 64 << 10,
        create: true,
        allow_volatile: true,
        ..Options::new(directory, IDENTITY)
    }
}

/// Forty entries, one in a write of 4 KiB each, the last of them known committed up to 30; fifteen to a segment.
fn plans(mut previous: EntryId) -> Vec<WritePlan> {
    (1..=40)
        .map(|n| {
            let head = FrameHead { group: GroupId::FIRST, term: Term(1 + n / 20), previous, timestamp_ms: 1 };
            let mut builder = FrameBuilder::with_capacity(304);
            builder.push_command(&[0x61; 300]);
            let frame = builder.commands(head);
            previous = frame.id();
            let hard_state =
                HardState { term: Term(1 + n / 20), vote: Some(NodeId(2)), ..HardState::default() };
            WritePlan {
                id: WriteId(n),
                hard_state: (n == 1 || n % 20 == 0).then_some(hard_state),
                frames: vec![frame],
                commit: LogIndex(n.saturating_sub(1).min(30)),
                whole: false,
            }
        })
        .collect()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Ending {
    Closed,
    Killed,
}

fn by_portable(directory: Directory, plans: Vec<WritePlan>, ending: Ending) {
    let (wake, woken) = std::sync::mpsc::channel();
    let mut log = PortableLog::start(directory, move || {
        let _ = wake.send(());
    })
    .unwrap();
    for plan in plans {
        let id = plan.id;
        log.submit(plan);
        log.kick();
        while !matches!(log.poll(), Some(LogEvent::Flushed(flushed)) if flushed.id() == id) {
            woken.recv().unwrap();
        }
    }
    if ending == Ending::Closed {
        log.close().unwrap();
    }
}

#[cfg(target_os = "linux")]
fn by_ring(directory: Directory, plans: Vec<WritePlan>, ending: Ending) {
    let mut ring = match wal::linux::Ring::new(8) {
        Ok(ring) => ring,
        Err(error) => {
            eprintln!("SKIPPED for the io_uring writer: {error}");
            return by_portable(directory, plans, ending);
        }
    };
    let mut log = wal::linux::UringLog::start(directory, &mut ring).unwrap();
    for plan in plans {
        let id = plan.id;
        log.submit(plan);
        log.kick(&mut ring);
        while !matches!(log.poll(&mut ring), Some(LogEvent::Flushed(flushed)) if flushed.id() == id) {
            ring.wait(None).unwrap();
        }
    }
    if ending == Ending::Closed {
        log.close(&mut ring).unwrap();
    }
}

fn written(ending: Ending, writer: fn(Directory, Vec<WritePlan>, Ending)) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let opened = wal::open(options(dir.path())).unwrap();
    writer(opened.directory, plans(opened.recovered.last()), ending);
    dir
}

fn overwrite(directory: &Path, name: &str, offset: u64, bytes: &[u8]) {
    let file = fs::OpenOptions::new().write(true).open(directory.join(name)).unwrap();
    file.write_all_at(bytes, offset).unwrap();
}

/// Every file with its bytes and its time of change: what an inspection leaves alone.
fn everything(directory: &Path) -> BTreeMap<PathBuf, (Vec<u8>, std::time::SystemTime)> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries
        .map(|path| {
            (path.clone(), (fs::read(&path).unwrap(), fs::metadata(&path).unwrap().modified().unwrap()))
        })
        .collect()
}

/// Both commands, in both languages: the same code, and not a byte is changed. What `inspect --writes` says.
#[track_caller]
fn judged(directory: &Path, code: i32, words: &[&str]) -> Said {
    let before = everything(directory);
    let said = d_engine(&["wal", "inspect", "--writes"], directory);
    for arguments in [&["wal", "verify"][..], &["wal", "verify", "--json"], &["wal", "inspect", "--json"]] {
        let other = d_engine(arguments, directory);
        assert_eq!(other.code, code, "{arguments:?}: {}{}", other.out, other.err);
        if arguments.contains(&"--json") {
            let verdict = if code == 0 { "\"verdict\":\"whole\"" } else { "\"verdict\":\"re" };
            assert!(other.out.starts_with('{') && other.out.contains(verdict), "{}", other.out);
        }
    }
    assert_eq!(everything(directory), before, "nothing is changed");
    said.says(code, words);
    said
}

#[test]
fn a_whole_log_is_shown_with_its_segments_entries_and_marks() {
    let mut writers: Vec<fn(Directory, Vec<WritePlan>, Ending)> = vec![by_portable];
    #[cfg(target_os = "linux")]
    writers.push(by_ring);
    for writer in writers {
        let dir = written(Ending::Closed, writer);
        let said = judged(
            dir.path(),
            0,
            &[
                "log of node 7 in cluster 000000000000000000000000000000c1, group 0, format 2",
                "term 3, vote for node 2; flushed up to write 40, committed up to entry 30",
                "segments 1 to 3; opened 1 times, closed cleanly",
                "writes 1 to 15, entries 1 to 15, terms 1 to 1",
                "writes 31 to 40, entries 31 to 40, terms 2 to 3",
                "byte     40960: write 10, 4096 bytes, entries 10 to 10",
                "whole:",
                "last entry 40 of term 3",
            ],
        );
        assert_eq!(said.out.matches(": write ").count(), 40, "{}", said.out);
        assert!(!said.out.contains("overwrite") && !said.out.contains("rename"), "{}", said.out);
    }
}

#[test]
fn a_torn_last_write_is_whole_and_what_the_start_cuts_is_what_was_foretold() {
    let dir = written(Ending::Killed, by_portable);
    overwrite(dir.path(), &segment_name(3), 10 * BLOCK + 300, b"damage");
    judged(
        dir.path(),
        0,
        &[
            "write 40 was torn: 4096 bytes cut at byte 40960",
            "overwrite bytes 40960 to 45056 of log-0000000000000003.seg with zeros",
            "byte     40960: the envelope of entries 40 to 40 is not whole",
            "not closed",
        ],
    );
    let opened = wal::open(options(dir.path())).unwrap().recovered;
    assert_eq!(opened.report().cut.unwrap().at.offset, 40960);
}

#[test]
fn each_kind_of_damage_has_its_place_and_what_to_do() {
    type Harm = fn(&Path);
    let shorten: Harm = |dir| {
        fs::OpenOptions::new().write(true).open(dir.join(segment_name(3))).unwrap().set_len(20_000).unwrap();
    };
    let cases: [(&str, Harm, &[&str]); 7] = [
        (
            "a body",
            |dir| overwrite(dir, &segment_name(2), 3 * BLOCK + 400, b"damage"),
            &[
                "log-0000000000000002.seg at byte 12288",
                "entries 18 to 18",
                "keeps entries up to 17",
                "entry 40 of term 3",
            ],
        ),
        (
            "an envelope",
            |dir| overwrite(dir, &segment_name(1), BLOCK + 20, &[0xff; 100]),
            &["log-0000000000000001.seg at byte 4096", "rename log-0000000000000003.seg to"],
        ),
        (
            "a header",
            |dir| overwrite(dir, &segment_name(2), 0, &[9; 4096]),
            &["no copy of the segment's header is whole"],
        ),
        (
            "an end",
            |dir| overwrite(dir, &segment_name(3), 10 * BLOCK, &[0; 4096]),
            &["zeros; it was flushed, as the state file knows"],
        ),
        ("a length", shorten, &["made with 65536 bytes and has 20000"]),
        ("a segment", |dir| fs::remove_file(dir.join(segment_name(2))).unwrap(), &["missing before"]),
        (
            "two segments",
            |dir| (1..=2).for_each(|n| fs::remove_file(dir.join(segment_name(n))).unwrap()),
            &["log-0000000000000001.seg at byte 0: the segment is missing"],
        ),
    ];
    for (name, harm, words) in cases {
        eprintln!("{name}");
        let dir = written(Ending::Closed, by_portable);
        harm(dir.path());
        let said =
            judged(dir.path(), 1, &["DAMAGED: ", "what to do: a node alone", "a start with peers would"]);
        said.says(1, words);
        // The engine says the same.
        let error = wal::open(options(dir.path())).expect_err("damaged").to_string();
        let place = said.out.lines().find_map(|line| line.strip_prefix("DAMAGED: ")).unwrap();
        let what = place.split_once(": ").unwrap().1;
        assert!(error.contains(what), "{error}\n{place}");
        let repaired = wal::open(Options { damage: Damage::Repairable, ..options(dir.path()) }).unwrap();
        assert!(repaired.recovered.held().is_some());
        drop(repaired);
        d_engine(&["wal", "inspect"], dir.path()).says(0, &["SUSPECT since a repair", "whole:"]);
    }
}

#[test]
fn a_lost_vote_is_refused_under_every_rule() {
    type Damage = fn(&Path);
    let cases: [(Damage, &str); 3] = [
        (|dir| overwrite(dir, "state", 0, &[0; 4096]), "state at byte 0"),
        (|dir| overwrite(dir, "state", 0, &[0; 8192]), "state at byte 0"),
        (
            |dir| fs::remove_file(dir.join("state")).unwrap(),
            "state at byte 0: it is missing, and with it perhaps a vote",
        ),
    ];
    for (harm, place) in cases {
        let dir = written(Ending::Closed, by_portable);
        harm(dir.path());
        judged(dir.path(), 1, &[place, "no start repairs this", "backup"]);
    }
}

#[test]
fn a_directory_in_use_is_looked_at_and_left_alone() {
    let dir = written(Ending::Closed, by_portable);
    let held = wal::open(options(dir.path())).unwrap();
    let process = format!("in use by process {}", std::process::id());
    judged(dir.path(), 0, &[&process, "may have moved", "whole:"]);
    overwrite(dir.path(), &segment_name(2), BLOCK + 300, b"damage");
    // The same place twice is no movement.
    let said = judged(dir.path(), 1, &[&process, "log-0000000000000002.seg at byte 4096"]);
    assert!(!said.out.contains("NOT SETTLED"), "{}", said.out);
    drop(held);
}

#[test]
fn what_is_no_log_is_refused_in_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, b"x").unwrap();
    let empty = dir.path().join("empty");
    fs::create_dir(&empty).unwrap();
    let newer = written(Ending::Closed, by_portable);
    let mut state = fs::read(newer.path().join("state")).unwrap();
    for sector in state.chunks_exact_mut(512) {
        sector[8..12].copy_from_slice(&9_u32.to_le_bytes());
        let hash = xxhash_rust::xxh3::xxh3_128(&sector[..496]);
        sector[496..].copy_from_slice(&hash.to_le_bytes());
    }
    fs::write(newer.path().join("state"), state).unwrap();
    for (path, words) in [
        (dir.path().join("nowhere"), "there is no data directory at"),
        (file.clone(), "is not a directory"),
        (file.join("below"), "is not a directory"),
        (empty, "there is no data directory at"),
        (newer.path().into(), "format version 9, this program supports 2"),
        (PathBuf::from("/proc/self/mem"), "is not a directory"),
    ] {
        for command in ["inspect", "verify"] {
            let said = d_engine(&["wal", command], &path);
            said.says(2, &["error: ", words]);
            assert!(said.out.is_empty() && said.err.lines().count() == 1, "{}{}", said.out, said.err);
        }
    }
    d_engine(&["wal", "inspct"], dir.path()).says(2, &["inspect"]);
    d_engine(&["wal", "verify", "--jsn"], dir.path()).says(2, &["--json"]);
}
