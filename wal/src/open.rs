//! Opening: from a path to a log that is checked, cut where it was torn, and held.
//!
//! Order: check and lock; flush what will be read (it may be only in the page cache); walk it; zero the torn
//! tail; make the first segment of a new log; write the state record that says "open". When [`open`] returns,
//! everything it reports is durable, and a crash from then on is not taken for a clean shutdown.

use crate::directory::{Absent, Held, STATE_TMP_NAME};
use crate::error::{LogError, OpenError};
use crate::id::HardState;
use crate::journal::{Next, Tail};
use crate::recovered::{Recovered, RecoveryReport, SegmentPath};
use crate::scan::{Cut, Refused, SegmentFile, scan};
use crate::sector::{BLOCK, BLOCK_U64, FORMAT_VERSION};
use crate::segment::{Identity, MIN_SEGMENT_BYTES, Predecessor, segment_name};
use crate::segments::Maker;
use crate::state::{self, STATE_NAME, StateProblem, StateRecord};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;

/// The size of a segment unless told otherwise: 64 MiB.
pub const DEFAULT_SEGMENT_BYTES: u64 = 64 << 20;
/// The largest size of a segment: 1 GiB.
pub const MAX_SEGMENT_BYTES: u64 = 1 << 30;

/// What to open.
#[derive(Clone, Debug)]
pub struct Options {
    /// The directory.
    pub dir: PathBuf,
    /// Whose it is; a directory of another identity is refused.
    pub identity: Identity,
    /// Size of new segments: a multiple of 4096, from 8192 to [`MAX_SEGMENT_BYTES`].
    pub segment_bytes: u64,
    /// Make the directory and an empty log if there is none.
    pub create: bool,
    /// Allow a filesystem that forgets everything at a restart, with a warning.
    pub allow_volatile: bool,
}

impl Options {
    /// The usual options: 64 MiB segments, an existing log, a real filesystem.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>, identity: Identity) -> Self {
        Self {
            dir: dir.into(),
            identity,
            segment_bytes: DEFAULT_SEGMENT_BYTES,
            create: false,
            allow_volatile: false,
        }
    }

    fn check(&self) -> Result<(), OpenError> {
        let refuse = |what, value, rule| Err(OpenError::Option { what, value, rule });
        let bytes = self.segment_bytes;
        if !bytes.is_multiple_of(BLOCK_U64) || !(MIN_SEGMENT_BYTES..=MAX_SEGMENT_BYTES).contains(&bytes) {
            return refuse("segment_bytes", bytes, "it must be a multiple of 4096 from 8192 to 1 GiB");
        }
        if self.identity.node.0 == 0 {
            return refuse("identity.node", 0, "identities count from 1");
        }
        Ok(())
    }
}

/// A log that was opened.
#[derive(Debug)]
pub struct Opened {
    /// What was found.
    pub recovered: Recovered,
    /// The directory; becomes a writer.
    pub directory: Directory,
}

/// A directory that is held, and where its log stands. A writer is made from it.
pub struct Directory {
    pub(crate) held: Held,
    pub(crate) state_file: File,
    pub(crate) tail: Tail,
}

impl std::fmt::Debug for Directory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Directory({}, last {:?})", self.held.path.display(), self.tail.last)
    }
}

impl Directory {
    /// The path as it was opened.
    #[must_use]
    pub fn path(&self) -> &std::path::Path {
        &self.held.path
    }

    pub(crate) fn maker(&self) -> std::io::Result<Maker> {
        Ok(Maker::new(self.held.path.clone(), self.held.handle.try_clone()?, self.tail.state.identity))
    }
}

/// Locks the directory, checks what it holds, and decides what of it counts.
///
/// # Errors
/// [`OpenError`]; except for removed temporary files nothing was then changed.
pub fn open(options: Options) -> Result<Opened, OpenError> {
    options.check()?;
    let absent = if options.create { Absent::Create } else { Absent::Refuse };
    let held = Held::claim(&options.dir, absent, |handle| check_filesystem(handle, &options))?;
    let listing = held.tidy()?;
    if !listing.state {
        if !listing.segments.is_empty() {
            let what = "it is missing, and with it perhaps a vote".to_owned();
            return Err(OpenError::Corrupt { file: held.path.join(STATE_NAME), offset: 0, what });
        }
        if !options.create {
            return Err(OpenError::Missing { path: options.dir });
        }
        make_state(&held, options.identity)?;
    }
    let state_file = held.open_locked(STATE_NAME)?;
    let state = read_state(&held, &state_file, &options.identity)?;
    let files = segment_files(&held, &listing.segments, state.clean)?;
    let scanned = scan(&files, &state).map_err(|refused| name_file(&held, refused))?;
    if let Some(cut) = scanned.cut {
        zero(&held, cut)?;
    }
    let report = RecoveryReport::new(&scanned, state.clean, &held.path);

    let mut tail = Tail {
        segments: scanned.segments,
        offset: scanned.offset,
        sequence: scanned.sequence,
        last: scanned.last,
        commit: scanned.commit,
        state,
        positions: scanned.positions,
        segment_bytes: options.segment_bytes,
    };
    if tail.segments.is_empty() {
        let mut maker = Maker::new(
            held.path.clone(),
            held.handle.try_clone().map_err(|error| OpenError::io("opening", &held.path, error))?,
            options.identity,
        );
        let predecessor = Predecessor { sequence: 0, last: options.identity.origin() };
        let next = Next { number: 1, bytes: options.segment_bytes, predecessor };
        tail.segments.push(maker.make(next).map_err(|error| not_made(&held, error))?);
    }
    // Names made by an earlier process may not be durable yet, and what follows depends on them.
    held.sync()?;
    tail.state = mark_open(&held, &state_file, &tail)?;
    let recovered = Recovered::new(&tail, report, held.path.clone());
    Ok(Opened { recovered, directory: Directory { held, state_file, tail } })
}

fn check_filesystem(directory: &File, options: &Options) -> Result<(), OpenError> {
    #[cfg(target_os = "linux")]
    {
        let path = &options.dir;
        let filesystem = crate::linux::volatile_filesystem(directory)
            .map_err(|error| OpenError::io("looking at the filesystem of", path, error))?;
        match filesystem {
            Some(filesystem) if !options.allow_volatile => {
                return Err(OpenError::VolatileFilesystem { path: path.clone(), filesystem });
            }
            Some(filesystem) => {
                tracing::warn!(directory = %path.display(), filesystem, "data does not survive a restart of the machine");
            }
            None => {}
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (directory, options);
    Ok(())
}

fn make_state(held: &Held, identity: Identity) -> Result<(), OpenError> {
    let tmp = held.path.join(STATE_TMP_NAME);
    let refused = |error| OpenError::io("making", &tmp, error);
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&tmp).map_err(refused)?;
    let (_, bytes) = state::initial_file(identity);
    file.write_all_at(&bytes, 0).map_err(refused)?;
    file.sync_all().map_err(refused)?;
    std::fs::rename(&tmp, held.path.join(STATE_NAME)).map_err(refused)?;
    held.sync()
}

fn read_state(held: &Held, file: &File, identity: &Identity) -> Result<StateRecord, OpenError> {
    let path = held.path.join(STATE_NAME);
    let refused = |error| OpenError::io("reading", &path, error);
    file.sync_all().map_err(refused)?;
    forget_cached(file);
    let length = file.metadata().map_err(refused)?.len();
    let expected = state::STATE_BYTES;
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(usize::MAX).min(expected + 1)];
    file.read_exact_at(&mut bytes, 0).map_err(refused)?;
    state::read(&bytes, identity).map_err(|problem| match problem {
        StateProblem::Version(found) => OpenError::Newer { path, found, supported: FORMAT_VERSION },
        StateProblem::Foreign(found) => OpenError::foreign(path, &found, identity),
        StateProblem::Damaged { offset, what } => {
            OpenError::Corrupt { file: path, offset, what: what.into() }
        }
    })
}

/// All segments, flushed; each was waited for, if a dying process still wrote to it.
fn segment_files(
    held: &Held,
    numbers: &[u64],
    clean: bool,
) -> Result<Vec<SegmentFile<SegmentPath>>, OpenError> {
    numbers
        .iter()
        .map(|&number| {
            let file = held.open_locked(&segment_name(number))?;
            let path = held.path.join(segment_name(number));
            file.sync_all().map_err(|error| OpenError::io("flushing", &path, error))?;
            if !clean && Some(&number) == numbers.last() {
                forget_cached(&file);
            }
            Ok(SegmentFile { number, blocks: SegmentPath::new(path) })
        })
        .collect()
}

/// After a failed flush the page cache may hold bytes that the disk does not, and call them clean: a file
/// that a failed process may have been writing is read from the disk.
fn forget_cached(file: &File) {
    #[cfg(target_os = "linux")]
    crate::linux::forget_cached(file);
    #[cfg(not(target_os = "linux"))]
    let _ = file;
}

fn zero(held: &Held, cut: Cut) -> Result<(), OpenError> {
    let name = segment_name(cut.at.segment);
    let path = held.path.join(&name);
    let refused = |error| OpenError::io("cutting", &path, error);
    let file = held.open_locked(&name)?;
    let block = [0; BLOCK];
    let mut at = cut.at.offset;
    while at < cut.until {
        file.write_all_at(&block, at).map_err(refused)?;
        at += BLOCK_U64;
    }
    file.sync_all().map_err(refused)
}

fn mark_open(held: &Held, file: &File, tail: &Tail) -> Result<StateRecord, OpenError> {
    let refused = |error| OpenError::io("writing", held.path.join(STATE_NAME), error);
    let record = opened_record(tail);
    let mut block = vec![0; BLOCK];
    record.fill(&mut block);
    file.write_all_at(&block, record.offset()).map_err(refused)?;
    file.sync_all().map_err(refused)?;
    Ok(record)
}

/// What the state file says from now on: this log, and open.
pub(crate) fn opened_record(tail: &Tail) -> StateRecord {
    let old = tail.state;
    // The log may know a newer term than the state (its write came first): never lower than either.
    let hard_state = if tail.last.term > old.hard_state.term {
        HardState { term: tail.last.term, vote: None }
    } else {
        old.hard_state
    };
    let record = StateRecord {
        hard_state,
        log_mark: tail.sequence,
        commit: tail.commit,
        openings: old.openings + 1,
        newest_segment: tail.segments.last().map_or(0, |segment| segment.number),
        ..old.successor()
    };
    assert!(
        record.log_mark >= old.log_mark && record.commit >= old.commit,
        "an open loses nothing that was marked"
    );
    assert!(!record.clean, "an open directory is not clean");
    record
}

fn not_made(held: &Held, error: LogError) -> OpenError {
    match error {
        LogError::NoSpace { file, bytes } => OpenError::NoSpace { path: file.into(), bytes },
        other => OpenError::Io {
            what: "making a segment in",
            path: held.path.clone(),
            source: std::io::Error::other(other),
        },
    }
}

fn name_file(held: &Held, refused: Refused) -> OpenError {
    let path = |file: String| held.path.join(file);
    match refused {
        Refused::Corrupt { file, offset, what } => OpenError::Corrupt { file: path(file), offset, what },
        Refused::Version { file, found } => {
            OpenError::Newer { path: path(file), found, supported: FORMAT_VERSION }
        }
        Refused::Foreign { file, found } => OpenError::Corrupt {
            file: path(file),
            offset: 0,
            what: format!("the segment belongs to node {} of cluster {}", found.node, found.cluster),
        },
        Refused::Io { file, source } => OpenError::io("reading", path(file), source),
    }
}
