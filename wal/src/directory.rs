//! The directory: whether it may be used, and that nobody else uses it.
//!
//! Everything is checked before anything is written. The lock is `flock` on `LOCK`, and on every file that is
//! written to: a dying process may still have writes in the kernel, and only the lock on the same open file
//! outlives them.

use crate::error::OpenError;
use crate::segment::{SPARE_NAME, segment_number};
use crate::state::STATE_NAME;
use rustix::fs::{FlockOperation, flock};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The lock file.
pub const LOCK_NAME: &str = "LOCK";
/// Made by a program that acknowledges before a flush; the log does not look at it.
pub const MEMORY_MARK: &str = "MEMORY-FIRST";
/// The state file before it has its name.
pub(crate) const STATE_TMP_NAME: &str = "state.tmp";
/// A copy of a damaged segment before it has its name.
pub(crate) const DAMAGED_TMP_NAME: &str = "damaged.tmp";
/// How long another holder may take to die.
const LOCK_PATIENCE: Duration = Duration::from_millis(500);
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// A directory that this process holds.
#[derive(Debug)]
pub(crate) struct Claimed {
    pub path: PathBuf,
    /// For its fsync.
    pub handle: File,
    /// Keeps the lock.
    _lock: File,
}

/// What a directory holds.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    pub state: bool,
    /// Ascending.
    pub segments: Vec<u64>,
    pub temporary: Vec<PathBuf>,
    pub foreign: Vec<String>,
    /// Kept for people.
    pub aside: Vec<String>,
}

/// What to do about a directory that is not there or empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Absent {
    Create,
    Refuse,
}

impl Claimed {
    /// Checks the directory, last with `check`, and takes its lock.
    pub(crate) fn claim(
        path: &Path,
        absent: Absent,
        check: impl FnOnce(&File) -> Result<(), OpenError>,
    ) -> Result<Self, OpenError> {
        match std::fs::symlink_metadata(path) {
            Ok(metadata) if metadata.is_symlink() => return Err(OpenError::Symlink { path: path.into() }),
            Ok(metadata) if !metadata.is_dir() => return Err(OpenError::NotADirectory { path: path.into() }),
            Ok(metadata) => check_permissions(path, &metadata)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound && absent == Absent::Create => {
                create(path)?
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(OpenError::Missing { path: path.into() });
            }
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                return Err(OpenError::NotADirectory { path: path.into() });
            }
            Err(error) => return Err(OpenError::io("looking at", path, error)),
        }
        let handle = File::open(path).map_err(|error| OpenError::io("opening", path, error))?;
        let listing = list(path)?;
        if absent == Absent::Refuse && !listing.state && listing.segments.is_empty() {
            return Err(OpenError::Missing { path: path.into() });
        }
        check(&handle)?;
        let lock = lock(path)?;
        Ok(Self { path: path.into(), handle, _lock: lock })
    }

    /// Lists the directory under the lock; removes what never got its name.
    pub(crate) fn tidy(&self) -> Result<Listing, OpenError> {
        let listing = list(&self.path)?;
        assert!(listing.segments.is_sorted(), "the walk goes from the first segment on");
        for path in &listing.temporary {
            std::fs::remove_file(path).map_err(|error| OpenError::io("removing", path, error))?;
        }
        if !listing.foreign.is_empty() {
            tracing::warn!(directory = %self.path.display(), files = ?listing.foreign, "left alone: not files of the log");
        }
        Ok(listing)
    }

    /// Makes names durable.
    pub(crate) fn sync(&self) -> Result<(), OpenError> {
        self.handle.sync_all().map_err(|error| OpenError::io("flushing", &self.path, error))
    }

    /// Opens a file to write to, and waits for writes of a dying process to end.
    pub(crate) fn open_locked(&self, name: &str) -> Result<File, OpenError> {
        assert!(!name.contains('/'), "{name} is a file of this directory, and of no other");
        let path = self.path.join(name);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&path)
            .map_err(|error| OpenError::io("opening", &path, error))?;
        let metadata = file.metadata().map_err(|error| OpenError::io("looking at", &path, error))?;
        if !metadata.is_file() {
            return Err(OpenError::Corrupt {
                file: path,
                offset: 0,
                what: "it is not a regular file".into(),
            });
        }
        if !try_lock(&file).map_err(|error| OpenError::io("locking", &path, error))? {
            return Err(OpenError::Locked { path: self.path.clone(), pid: None });
        }
        Ok(file)
    }
}

fn create(path: &Path) -> Result<(), OpenError> {
    let refused = |error| OpenError::io("creating", path, error);
    let missing: Vec<&Path> = path.ancestors().take_while(|above| !above.exists()).collect();
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(refused)?;
    // Every new name becomes durable in the directory that holds it.
    for new in missing {
        let parent = new.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(parent).and_then(|parent| parent.sync_all()).map_err(refused)?;
    }
    Ok(())
}

fn check_permissions(path: &Path, metadata: &std::fs::Metadata) -> Result<(), OpenError> {
    let refuse = |what: String| Err(OpenError::Permissions { path: path.into(), what });
    if metadata.mode() & 0o022 != 0 {
        let mode = metadata.mode() & 0o7777;
        return refuse(format!(
            "its mode {mode:04o} lets others write to it; run: chmod 700 {}",
            path.display()
        ));
    }
    let user = rustix::process::geteuid().as_raw();
    if metadata.uid() != user && user != 0 {
        return refuse(format!("it belongs to user {}, and this process runs as {user}", metadata.uid()));
    }
    Ok(())
}

pub(crate) fn list(path: &Path) -> Result<Listing, OpenError> {
    let refused = |error| OpenError::io("listing", path, error);
    let mut listing = Listing::default();
    for entry in std::fs::read_dir(path).map_err(refused)? {
        let entry = entry.map_err(refused)?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        match name.as_ref() {
            STATE_NAME => listing.state = true,
            LOCK_NAME | MEMORY_MARK => {}
            SPARE_NAME | STATE_TMP_NAME | DAMAGED_TMP_NAME => listing.temporary.push(entry.path()),
            other => match segment_number(other) {
                Some(number) => listing.segments.push(number),
                None if other.strip_suffix(".damaged").and_then(segment_number).is_some() => {
                    listing.aside.push(other.to_owned());
                }
                None => listing.foreign.push(other.to_owned()),
            },
        }
    }
    listing.segments.sort_unstable();
    Ok(listing)
}

/// Takes an exclusive lock, waiting a little for a holder that is dying.
fn try_lock(file: &File) -> io::Result<bool> {
    let deadline = Instant::now() + LOCK_PATIENCE;
    loop {
        match flock(file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(true),
            Err(error) if error == rustix::io::Errno::WOULDBLOCK || error == rustix::io::Errno::INTR => {
                if Instant::now() >= deadline {
                    return Ok(false);
                }
                std::thread::sleep(LOCK_PAUSE);
            }
            Err(error) => return Err(error.into()),
        }
    }
}

fn lock(directory: &Path) -> Result<File, OpenError> {
    let path = directory.join(LOCK_NAME);
    let refused = |error| OpenError::io("locking", &path, error);
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(refused)?;
    if !try_lock(&file).map_err(refused)? {
        let mut text = String::new();
        let pid = file.read_to_string(&mut text).ok().and_then(|_| text.trim().parse().ok());
        return Err(OpenError::Locked { path: directory.into(), pid });
    }
    // The text is a message for people; the lock is the lock. It need not be durable.
    file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).map_err(refused)?;
    Ok(file)
}

/// Locks a file that this process opens beside a lock it already had; nobody else can hold it.
pub(crate) fn relock(file: &File) -> io::Result<()> {
    if try_lock(file)? { Ok(()) } else { Err(io::ErrorKind::ResourceBusy.into()) }
}
