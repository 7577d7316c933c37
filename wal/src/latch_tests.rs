//! What the tests of both writers' latches share: a new log, a plan, and what a failed log may say.

use crate::id::{EntryId, LogIndex, Term};
use crate::memory::IDENTITY;
use crate::{
    Directory, FrameBuilder, FrameHead, LogEvent, Opened, Options, Recovered, WriteId, WritePlan, open,
};
use std::path::Path;

pub(crate) fn options(path: &Path) -> Options {
    Options { segment_bytes: 64 << 10, create: true, allow_volatile: true, ..Options::new(path, IDENTITY) }
}

pub(crate) fn open_new() -> (tempfile::TempDir, Directory) {
    let dir = tempfile::tempdir().expect("a directory");
    let Opened { directory, .. } = open(options(dir.path())).expect("a new log");
    (dir, directory)
}

pub(crate) fn reopen(path: &Path) -> Recovered {
    open(options(path)).expect("a failed write is a torn write at most").recovered
}

/// An entry after `previous`, which it then is.
pub(crate) fn plan_of(id: u64, previous: &mut EntryId) -> WritePlan {
    let head = FrameHead { group: IDENTITY.group, term: Term(1), previous: *previous, timestamp_ms: 1 };
    let frame = FrameBuilder::noop(head);
    *previous = frame.id();
    WritePlan { id: WriteId(id), hard_state: None, frames: vec![frame], commit: LogIndex::ZERO, whole: false }
}

/// One failure, and no proof of anything.
pub(crate) fn expect_latched(events: Vec<LogEvent>) {
    let failures = events.iter().filter(|event| matches!(event, LogEvent::Failed(_))).count();
    assert_eq!(failures, 1, "reported once: {events:?}");
    assert!(!events.iter().any(|event| matches!(event, LogEvent::Flushed(_))), "{events:?}");
}
