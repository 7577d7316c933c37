//! Opening: from a path to a log that is checked, cut where it was torn, and held.
//!
//! Order: check and lock; flush what will be read (it may be only in the page cache); walk it; zero the torn
//! tail; make the first segment of a new log; write the state record that says "open". When [`open`] returns,
//! everything it reports is durable, and a crash from then on is not taken for a clean shutdown.

use crate::damage::Damage;
use crate::directory::{Absent, Claimed, DAMAGED_TMP_NAME, STATE_TMP_NAME};
use crate::error::{LogError, OpenError};
use crate::journal::Tail;
use crate::opening::{Change, Opening, Rules};
use crate::recovered::{Recovered, RecoveryReport, SegmentPath};
use crate::scan::{Refused, SegmentFile};
use crate::sector::{BLOCK, BLOCK_U64, FORMAT_VERSION};
use crate::segment::{FIRST_OFFSET, Identity, MIN_SEGMENT_BYTES, damaged_name, segment_name};
use crate::segments::Maker;
use crate::state::{self, STATE_NAME, StateRecord};
use std::fs::{File, OpenOptions};
use std::ops::Range;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

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
    /// What to do about damage to what was durable: [`Damage::Refuse`] unless the node has peers.
    pub damage: Damage,
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
            damage: Damage::Refuse,
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
    pub(crate) held: Claimed,
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
    let held = Claimed::claim(&options.dir, absent, |handle| check_filesystem(handle, &options))?;
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
    let rules = Rules { segment_bytes: options.segment_bytes, damage: options.damage };
    let mut opening = Opening::decide(state, &files, rules).map_err(|refused| refused.at(&held.path))?;
    let report = RecoveryReport::new(&opening, &held.path);
    if report.damaged.is_some() {
        tracing::error!("{report}");
    }
    // Names made by an earlier process may not be durable yet, and what follows depends on them.
    held.sync()?;
    while let Some(change) = opening.poll_change() {
        carry_out(&held, &state_file, change, &mut opening)?;
    }
    let tail = opening.finish();
    let recovered = Recovered::new(tail.clone(), report, held.path.clone());
    Ok(Opened { recovered, directory: Directory { held, state_file, tail } })
}

/// Makes one change durable.
fn carry_out(
    held: &Claimed,
    state_file: &File,
    change: Change,
    opening: &mut Opening,
) -> Result<(), OpenError> {
    match change {
        Change::State(record) => write_state(held, state_file, &record),
        Change::Zero { segment, from, until, length } => zero(held, segment, from..until, length),
        Change::Make(next) => {
            let handle = held.handle.try_clone();
            let handle = handle.map_err(|error| OpenError::io("opening", &held.path, error))?;
            let mut maker = Maker::new(held.path.clone(), handle, opening.identity());
            opening.handle_made(maker.make(next).map_err(|error| not_made(held, error))?);
            Ok(())
        }
        Change::Remove { segment } => {
            let path = held.path.join(segment_name(segment));
            std::fs::remove_file(&path).map_err(|error| OpenError::io("removing", path, error))
        }
        Change::SetAside { segment } => set_aside(held, segment),
        Change::Copy { segment } => {
            // Only for people: a full disk or an unreadable block must not keep the node from its peers.
            if let Err(error) = keep_copy(held, segment) {
                tracing::warn!(%error, segment, "no copy of the damaged segment is kept");
            }
            Ok(())
        }
    }
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

fn make_state(held: &Claimed, identity: Identity) -> Result<(), OpenError> {
    let tmp = held.path.join(STATE_TMP_NAME);
    let refused = |error| OpenError::io("making", &tmp, error);
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&tmp).map_err(refused)?;
    let (_, bytes) = state::initial_file(identity);
    assert_eq!(bytes.len(), state::STATE_BYTES, "two slots");
    file.write_all_at(&bytes, 0).map_err(refused)?;
    file.sync_all().map_err(refused)?;
    std::fs::rename(&tmp, held.path.join(STATE_NAME)).map_err(refused)?;
    held.sync()
}

fn read_state(held: &Claimed, file: &File, identity: &Identity) -> Result<StateRecord, OpenError> {
    let path = held.path.join(STATE_NAME);
    let refused = |error| OpenError::io("reading", &path, error);
    file.sync_all().map_err(refused)?;
    forget_cached(file);
    let length = file.metadata().map_err(refused)?.len();
    let expected = state::STATE_BYTES;
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(usize::MAX).min(expected + 1)];
    file.read_exact_at(&mut bytes, 0).map_err(refused)?;
    crate::opening::read_state(&bytes, identity).map_err(|refused| match refused {
        Refused::Foreign { found, .. } => OpenError::foreign(path, &found, identity),
        other => other.at(&held.path),
    })
}

/// All segments, flushed; each was waited for, if a dying process still wrote to it.
fn segment_files(
    held: &Claimed,
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

fn zero(held: &Claimed, segment: u64, range: Range<u64>, length: u64) -> Result<(), OpenError> {
    assert!(range.start >= FIRST_OFFSET && range.start.is_multiple_of(BLOCK_U64), "a header is never cut");
    assert!(range.end <= length && length.is_multiple_of(BLOCK_U64), "within the segment, in blocks");
    let name = segment_name(segment);
    let path = held.path.join(&name);
    let refused = |error| OpenError::io("cutting", &path, error);
    let file = held.open_locked(&name)?;
    if file.metadata().map_err(refused)?.len() != length {
        file.set_len(length).map_err(refused)?;
    }
    let block = [0; BLOCK];
    let mut at = range.start;
    while at < range.end {
        file.write_all_at(&block, at).map_err(refused)?;
        at += BLOCK_U64;
    }
    file.sync_all().map_err(refused)
}

fn set_aside(held: &Claimed, segment: u64) -> Result<(), OpenError> {
    let path = held.path.join(segment_name(segment));
    let refused = |error| OpenError::io("renaming", &path, error);
    std::fs::rename(&path, held.path.join(damaged_name(segment))).map_err(refused)?;
    held.sync()
}

/// The first copy of a segment stays: a repair that was interrupted finds less of it.
fn keep_copy(held: &Claimed, segment: u64) -> std::io::Result<()> {
    let copy = held.path.join(damaged_name(segment));
    if copy.try_exists()? {
        return Ok(());
    }
    let tmp = held.path.join(DAMAGED_TMP_NAME);
    let copied = std::fs::copy(held.path.join(segment_name(segment)), &tmp)
        .and_then(|_| File::open(&tmp)?.sync_all())
        .and_then(|()| std::fs::rename(&tmp, &copy));
    if copied.is_err() {
        let _ = std::fs::remove_file(&tmp);
    }
    copied
}

fn write_state(held: &Claimed, file: &File, record: &StateRecord) -> Result<(), OpenError> {
    let refused = |error| OpenError::io("writing", held.path.join(STATE_NAME), error);
    let mut block = vec![0; BLOCK];
    record.fill(&mut block);
    file.write_all_at(&block, record.offset()).map_err(refused)?;
    file.sync_all().map_err(refused)
}

fn not_made(held: &Claimed, error: LogError) -> OpenError {
    match error {
        LogError::NoSpace { file, bytes } => OpenError::NoSpace { path: file.into(), bytes },
        other => OpenError::Io {
            what: "making a segment in",
            path: held.path.clone(),
            source: std::io::Error::other(other),
        },
    }
}

impl Refused {
    /// The same for people: with the directory in the name.
    pub(crate) fn at(self, directory: &Path) -> OpenError {
        let path = |file: String| directory.join(file);
        match self {
            Self::Corrupt { file, offset, what } => OpenError::Corrupt { file: path(file), offset, what },
            Self::Version { file, found } => {
                OpenError::Newer { path: path(file), found, supported: FORMAT_VERSION }
            }
            Self::Foreign { file, found } => OpenError::Corrupt {
                file: path(file),
                offset: 0,
                what: format!("the segment belongs to node {} of cluster {}", found.node, found.cluster),
            },
            Self::Io { file, source } => OpenError::io("reading", path(file), source),
        }
    }
}
