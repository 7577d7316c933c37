//! A real filesystem whose power can be cut.
//!
//! Two layers, both real: the *device* is a file of zeros on an outer ext4, the *filesystem* under test lies on a loop
//! device over that file. Shutting the filesystem down without flushing its log loses what only its page cache and journal
//! held ([`Cut::Filesystem`]). Shutting the outer one down as well loses what the device had taken but not been told to
//! flush, since the loop device turns a flush request into an fsync of its file ([`Cut::Device`]): a disk's write cache,
//! without which O_DIRECT writes never flushed would look durable.
//!
//! Neither of the two tears a write: what the device holds unflushed stays or goes as a whole. A real disk empties its cache in
//! any order, so a third cut ([`Cut::HalfEmptied`]) finds some of the unflushed sectors on the medium, and not the others.
//!
//! Needs root and loop devices; [`available`] says so beforehand. Everything made here is unmounted and detached on drop, and
//! by the kernel if there is no drop: the mounts are in a namespace of the thread that makes the disk, which ends with its
//! last process however that ends (a node dies with its job), and a loop device without a mount detaches itself. The
//! directory is all that a killed job leaves; [`Workshop`] removes those of earlier jobs.

use std::fs::{self, File};
use std::io::{self, Write};
use std::marker::PhantomData;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::ioctl::{Opcode, Setter, ioctl, opcode};
use rustix::thread::{UnshareFlags, unshare_unsafe};
use tempfile::TempDir;

use crate::random::Random;

/// The filesystem under test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filesystem {
    /// Linux's default.
    Ext4,
    /// The other one that servers use.
    Xfs,
}

impl Filesystem {
    /// Its name, as `mount -t` takes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
        }
    }
}

/// What loses power.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// The machine: page cache and filesystem journal are gone, the disk keeps what it was given.
    Filesystem,
    /// Machine and disk: what was not flushed to the medium is gone too.
    Device,
    /// The same while the disk empties its cache: some unflushed sectors, chosen by this seed, are on the medium. All are
    /// lost if a flush comes between (nobody who uses the disk should be running), or before Linux 6.5.
    HalfEmptied(u64),
}

impl Cut {
    /// Whether the disk loses power too.
    fn takes_device(self) -> bool {
        self != Self::Filesystem
    }
}

/// What could not be done.
#[derive(Debug, thiserror::Error)]
#[error("{doing}: {why}")]
pub struct DiskError {
    doing: String,
    why: String,
}

fn failed(doing: impl Into<String>) -> impl FnOnce(io::Error) -> DiskError {
    let doing = doing.into();
    move |error| DiskError { doing, why: error.to_string() }
}

/// Run a command of the system; its stdout.
fn run(program: &str, arguments: &[&str]) -> Result<String, DiskError> {
    let doing = || format!("{program} {}", arguments.join(" "));
    // Where Debian keeps these tools, whatever PATH says.
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    let output = Command::new(program).env("PATH", path).args(arguments).output().map_err(failed(doing()))?;
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(DiskError { doing: doing(), why });
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The same, again while somebody is in the way: another job looking for a free loop device, a process between fork and exec
/// that holds our descriptors for a moment.
fn insist(program: &str, arguments: &[&str]) -> Result<String, DiskError> {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        match run(program, arguments) {
            Err(error) if error.why.contains("busy") && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(20));
            }
            result => return result,
        }
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("the paths of a job are its own and plain")
}

/// Nothing, or why no disk can be made here.
pub fn available(filesystem: Filesystem) -> Result<(), String> {
    if !rustix::process::geteuid().is_root() {
        return Err("mounting needs root".into());
    }
    run(&format!("mkfs.{}", filesystem.name()), &["-V"]).map_err(|error| error.to_string())?;
    run("mkfs.ext4", &["-V"]).map_err(|error| error.to_string())?;
    run("losetup", &["--find"]).map(|_| ()).map_err(|error| error.to_string())
}

/// A directory for one job's disk and nodes, gone with its value. One whose job was killed goes when the next is made.
#[derive(Debug)]
pub struct Workshop {
    directory: TempDir,
    /// Locked while the job lives.
    _claim: File,
}

/// In every workshop.
const CLAIM: &str = "claim";
/// How their names begin.
const PREFIX: &str = "power-";

impl Workshop {
    /// Make one below a directory, and remove what killed jobs left there.
    pub fn open(below: &Path) -> io::Result<Self> {
        fs::create_dir_all(below)?;
        for entry in fs::read_dir(below)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(PREFIX) && is_abandoned(&entry.path()) {
                fs::remove_dir_all(entry.path())?;
            }
        }
        let directory = tempfile::Builder::new().prefix(PREFIX).tempdir_in(below)?;
        let claim = File::create(directory.path().join(CLAIM))?;
        flock(&claim, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Self { directory, _claim: claim })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }
}

/// Whether a workshop's job is dead. One without a claim is just being made.
fn is_abandoned(workshop: &Path) -> bool {
    let claim = File::open(workshop.join(CLAIM));
    claim.is_ok_and(|claim| flock(&claim, FlockOperation::NonBlockingLockExclusive).is_ok())
}

/// From here on this thread, and the threads and processes it starts, see mounts that nobody else sees.
fn keep_mounts_private() -> Result<(), DiskError> {
    // SAFETY: only the thread's mounts, working directory and umask become its own; its descriptors stay shared, which is
    // what the call could otherwise take from under safe code.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }
        .map_err(io::Error::from)
        .map_err(failed("a mount namespace"))?;
    run("mount", &["--make-rprivate", "/"]).map(|_| ())
}

/// A mounted filesystem on a loop device.
#[derive(Debug)]
struct Mount {
    filesystem: Filesystem,
    at: PathBuf,
}

/// `FS_IOC_SHUTDOWN` of ext4, which xfs calls `XFS_IOC_GOINGDOWN`.
const SHUTDOWN: Opcode = opcode::read::<u32>(b'X', 125);
/// Stop at once, without writing the journal out.
const NO_LOG_FLUSH: u32 = 2;

impl Mount {
    fn new(filesystem: Filesystem, image: &Path, at: PathBuf) -> Result<Self, DiskError> {
        fs::create_dir_all(&at).map_err(failed("mkdir"))?;
        // A loop device made by mount(8) detaches itself with its last mount.
        insist("mount", &["-t", filesystem.name(), "-o", "loop", text(image), text(&at)])?;
        Ok(Self { filesystem, at })
    }

    fn root(&self) -> Result<File, DiskError> {
        File::open(&self.at).map_err(failed("opening the mount point"))
    }

    fn shut_down(root: &File) -> Result<(), DiskError> {
        // SAFETY: the kernel reads one u32 through the pointer that `Setter` passes, for both filesystems, although the
        // number is declared as a read (include/uapi/linux/fs.h, XFS_IOC_GOINGDOWN).
        let result = unsafe { ioctl(root.as_fd(), Setter::<SHUTDOWN, u32>::new(NO_LOG_FLUSH)) };
        result.map_err(|error| DiskError {
            doing: "shutting the filesystem down".into(),
            why: error.to_string(),
        })
    }

    fn unmount(&self) -> Result<(), DiskError> {
        insist("umount", &[text(&self.at)]).map(|_| ())
    }
}

/// A disk with a filesystem, in a directory of its own. Only the thread that made it, and what that starts afterwards, can
/// see it.
#[derive(Debug)]
pub struct Disk {
    filesystem: Filesystem,
    directory: PathBuf,
    mounts: Option<(Mount, Mount)>,
    cut: Option<Cut>,
    cache: Cache,
    of_this_thread: PhantomData<*const ()>,
}

impl Disk {
    /// Make and mount a disk of `bytes` (at least 320 MiB for xfs) below `directory`, which needs room for twice as much.
    pub fn make(directory: &Path, filesystem: Filesystem, bytes: u64) -> Result<Self, DiskError> {
        keep_mounts_private()?;
        let outer = directory.join("outer.img");
        // Room for the device's file and the outer journal.
        File::create(&outer)
            .and_then(|file| file.set_len(bytes + bytes / 8 + (96 << 20)))
            .map_err(failed("making the image"))?;
        run("mkfs.ext4", &["-q", "-F", "-m", "0", text(&outer)])?;
        let directory = directory.to_path_buf();
        let mut disk = Self {
            filesystem,
            directory,
            mounts: None,
            cut: None,
            cache: Cache::default(),
            of_this_thread: PhantomData,
        };
        let directory = &disk.directory;
        let device = Mount::new(Filesystem::Ext4, &outer, directory.join("device"))?;
        let inner = device.at.join(IMAGE);
        let made =
            fill(&inner, bytes).map_err(failed("filling the device")).and_then(|()| match filesystem {
                // Without a discard, which would punch out again what was just filled: a flush of the loop device does not
                // reliably make the filling of holes durable, and the laboratory itself would lose what was flushed.
                Filesystem::Ext4 => run("mkfs.ext4", &["-q", "-F", "-E", "nodiscard", text(&inner)]),
                Filesystem::Xfs => run("mkfs.xfs", &["-q", "-f", "-K", text(&inner)]),
            });
        device.unmount()?;
        made?;
        disk.mount()?;
        Ok(disk)
    }

    fn mount(&mut self) -> Result<(), DiskError> {
        let device =
            Mount::new(Filesystem::Ext4, &self.directory.join("outer.img"), self.directory.join("device"))?;
        match Mount::new(self.filesystem, &device.at.join(IMAGE), self.directory.join("disk")) {
            Ok(mount) => {
                self.mounts = Some((device, mount));
                Ok(())
            }
            Err(error) => {
                device.unmount()?;
                Err(error)
            }
        }
    }

    /// Bring some of what the device's cache held at the cut to the medium.
    fn empty_some(&mut self, seed: u64) -> Result<(), DiskError> {
        let cache = std::mem::take(&mut self.cache);
        let outer = self.directory.join("outer.img");
        let device = Mount::new(Filesystem::Ext4, &outer, self.directory.join("device"))?;
        let emptied = File::options()
            .write(true)
            .open(device.at.join(IMAGE))
            .and_then(|image| cache.empty_some(&image, seed))
            .map_err(failed("emptying the device's cache"));
        device.unmount()?;
        emptied
    }

    /// Where the filesystem is mounted.
    pub fn path(&self) -> PathBuf {
        self.directory.join("disk")
    }

    /// Bytes that the device holds and has not brought to the medium; `None` where the kernel does not tell (before Linux 6.5).
    pub fn unflushed(&self) -> Option<u64> {
        let (device, _) = self.mounts.as_ref().expect("mounted");
        let image = File::open(device.at.join(IMAGE)).ok()?;
        dirty_pages(&image, 0..image.metadata().ok()?.len()).map(|pages| pages * PAGE)
    }

    /// Cut the power. From here on every write and flush fails until [`restore`](Self::restore).
    pub fn cut(&mut self, cut: Cut) -> Result<(), DiskError> {
        let (device, mount) = self.mounts.as_ref().expect("mounted");
        let image = device.at.join(IMAGE);
        let (device, mount) = (device.root()?, mount.root()?);
        // The device first: a filesystem that is shut down still flushes it once, to note so in its journal.
        match cut {
            Cut::Filesystem => Mount::shut_down(&mount)?,
            Cut::Device => {
                Mount::shut_down(&device)?;
                // It may have noticed by itself, and then refuses this.
                let _ = Mount::shut_down(&mount);
            }
            Cut::HalfEmptied(_) => {
                let unread = failed("reading the device's cache");
                let image = File::open(image).map_err(failed("opening the device"))?;
                let cache = Cache::read(&image).map_err(unread)?;
                Mount::shut_down(&device)?;
                // What was flushed meanwhile may be older than what is on the medium now.
                let is_still_there =
                    cache.is_still_there(&image).map_err(failed("looking at the device's cache"))?;
                self.cache = if is_still_there { cache } else { Cache::default() };
                // It may have noticed by itself, and then refuses this.
                let _ = Mount::shut_down(&mount);
            }
        }
        self.cut = Some(cut);
        Ok(())
    }

    /// Power comes back: mount again, the journal is replayed. Whoever used the filesystem must be gone.
    pub fn restore(&mut self) -> Result<(), DiskError> {
        let (device, mount) = self.mounts.as_ref().expect("mounted");
        mount.unmount()?;
        let cut = self.cut.take();
        if cut.is_some_and(Cut::takes_device) {
            device.unmount()?;
            self.mounts = None;
            if let Some(Cut::HalfEmptied(seed)) = cut {
                self.empty_some(seed)?;
            }
            return self.mount();
        }
        let again = Mount::new(mount.filesystem, &device.at.join(IMAGE), mount.at.clone())?;
        if let Some((_, mount)) = self.mounts.as_mut() {
            *mount = again;
        }
        Ok(())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if let Some((device, mount)) = self.mounts.take() {
            for result in [mount.unmount(), device.unmount()] {
                if let Err(error) = result {
                    eprintln!("left behind: {error}");
                }
            }
        }
    }
}

/// The device, in the outer filesystem.
const IMAGE: &str = "disk.img";
/// What the kernel counts by.
const PAGE: u64 = 4096;
/// What a disk writes whole or not at all.
const SECTOR: usize = 512;

/// How many pages of a part of a file are dirty or being written.
fn dirty_pages(file: &File, part: Range<u64>) -> Option<u64> {
    /// `cachestat`, the same on all architectures but Alpha; libc has no name for it yet.
    const CACHESTAT: libc::c_long = 451;
    // Offset and length; pages cached, dirty, being written, evicted, recently evicted.
    let (part, mut pages) = ([part.start, part.end - part.start], [0_u64; 5]);
    // SAFETY: the kernel reads two u64 (`struct cachestat_range`) and writes five (`struct cachestat`); both outlive the call.
    let result =
        unsafe { libc::syscall(CACHESTAT, file.as_raw_fd(), part.as_ptr(), pages.as_mut_ptr(), 0_u32) };
    (result == 0).then(|| pages[1] + pages[2])
}

/// The parts of a file that are dirty or being written, in order; empty if nobody knows.
fn dirty_parts(file: &File) -> io::Result<Vec<Range<u64>>> {
    let mut parts: Vec<Range<u64>> = Vec::new();
    let pages = file.metadata()?.len().div_ceil(PAGE);
    let mut open: Vec<_> = std::iter::once(0..pages).collect();
    while let Some(part) = open.pop() {
        let middle = part.start + (part.end - part.start) / 2;
        match dirty_pages(file, part.start * PAGE..part.end * PAGE) {
            None | Some(0) => {}
            Some(_) if middle > part.start => open.extend([middle..part.end, part.start..middle]),
            Some(_) => parts.push(part.start * PAGE..part.end * PAGE),
        }
    }
    Ok(parts)
}

/// What the device held unflushed when its power was cut.
#[derive(Debug, Default)]
struct Cache(Vec<(u64, Vec<u8>)>);

impl Cache {
    fn read(image: &File) -> io::Result<Self> {
        let read = |part: Range<u64>| {
            let mut bytes = vec![0; usize::try_from(part.end - part.start).expect("a page")];
            image.read_exact_at(&mut bytes, part.start).map(|()| (part.start, bytes))
        };
        dirty_parts(image)?.into_iter().map(read).collect::<io::Result<_>>().map(Self)
    }

    /// Whether just this is still unflushed.
    fn is_still_there(&self, image: &File) -> io::Result<bool> {
        Ok(dirty_parts(image)?.iter().map(|part| part.start).eq(self.0.iter().map(|(at, _)| *at)))
    }

    /// Bring about half of it to the medium, in runs of one to sixteen sectors.
    fn empty_some(&self, image: &File, seed: u64) -> io::Result<()> {
        let mut random = Random::new(seed);
        let (mut left, mut kept) = (0, false);
        for (at, bytes) in &self.0 {
            for (number, sector) in (0..).zip(bytes.chunks(SECTOR)) {
                if left == 0 {
                    (left, kept) = (random.within(1..17), !kept);
                }
                left -= 1;
                if kept {
                    image.write_all_at(sector, at + number * SECTOR as u64)?;
                }
            }
        }
        image.sync_all()
    }
}

/// Real zeros: a hole would be filled by an allocation, which an fsync of data alone does not make durable.
fn fill(path: &Path, bytes: u64) -> io::Result<()> {
    let mut file = File::create(path)?;
    let zeros = vec![0_u8; 1 << 20];
    for _ in 0..bytes.div_ceil(1 << 20) {
        file.write_all(&zeros)?;
    }
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::OpenOptionsExt;

    /// The laboratory itself: what is flushed survives, what is not is lost, with both kinds of cut.
    #[test]
    fn a_cut_loses_what_was_not_flushed_and_nothing_else() {
        if let Err(why) = available(Filesystem::Ext4) {
            eprintln!("!!!! SKIPPED, no disk could be made: {why}");
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let mut disk = Disk::make(directory.path(), Filesystem::Ext4, 32 << 20).unwrap();
        for cut in [Cut::Filesystem, Cut::Device] {
            // Whoever calls sync(2) on this machine at the wrong moment flushes for us: five such moments are no accident.
            let lost = (0..5).find_map(|_| {
                let (name, block) = lost_by(&mut disk, cut);
                // Only a device's cache can lose a direct write.
                assert!(
                    cut == Cut::Device || !block,
                    "a direct write was lost although the device kept its power"
                );
                (name && block == (cut == Cut::Device)).then_some(())
            });
            assert!(lost.is_some(), "{cut:?}: what was never flushed survives");
        }
    }

    /// What is unflushed when the cache is half emptied is there in part, which is a torn write.
    #[test]
    fn a_cut_in_the_middle_of_emptying_the_cache_tears_a_write() {
        if let Err(why) = available(Filesystem::Ext4) {
            eprintln!("!!!! SKIPPED, no disk could be made: {why}");
            return;
        }
        let workshop = tempfile::tempdir().unwrap();
        let mut disk = Disk::make(workshop.path(), Filesystem::Ext4, 32 << 20).unwrap();
        let path = disk.path().join("overwritten");
        let torn = (0..5).find(|&seed| {
            fs::write(&path, [1_u8; 64 * 4096]).unwrap();
            File::open(&path).and_then(|file| file.sync_all()).unwrap();
            assert_eq!(disk.unflushed().unwrap_or(0), 0, "it was flushed");
            overwrite_directly(&path, 64 * 4096);
            assert_ne!(disk.unflushed(), Some(0), "it was not flushed");
            disk.cut(Cut::HalfEmptied(seed)).unwrap();
            disk.restore().unwrap();
            let bytes = fs::read(&path).unwrap();
            let new = bytes.chunks(SECTOR).filter(|sector| sector.iter().all(|&byte| byte == 2)).count();
            let old = bytes.chunks(SECTOR).filter(|sector| sector.iter().all(|&byte| byte == 1)).count();
            assert_eq!(new + old, bytes.len() / SECTOR, "whole sectors");
            new > 0 && old > 0
        });
        assert!(torn.is_some(), "a write of 64 blocks is all there or not at all");
    }

    /// The mounts are this thread's, and what a killed job left goes when the next one starts.
    #[test]
    fn nothing_is_seen_outside_and_only_the_dead_are_cleared_away() {
        let below = tempfile::tempdir().unwrap();
        let living = Workshop::open(below.path()).unwrap();
        let dead = below.path().join("power-dead");
        let not_ours = below.path().join("other");
        for directory in [&dead, &not_ours] {
            fs::create_dir_all(directory).unwrap();
            fs::write(directory.join(CLAIM), "").unwrap();
        }
        let next = Workshop::open(below.path()).unwrap();
        assert!(!dead.exists() && not_ours.exists() && living.path().exists());
        let kept = next.path().to_path_buf();
        drop(next);
        assert!(!kept.exists() && living.path().exists());
        if let Err(why) = available(Filesystem::Ext4) {
            eprintln!("!!!! SKIPPED, no disk could be made: {why}");
            return;
        }
        let path = living.path().to_path_buf();
        let mounts = || fs::read_to_string("/proc/thread-self/mounts").unwrap();
        std::thread::spawn(move || {
            // Never dropped, as if this thread had been killed.
            let disk = std::mem::ManuallyDrop::new(Disk::make(&path, Filesystem::Ext4, 32 << 20).unwrap());
            assert!(fs::read_to_string("/proc/thread-self/mounts").unwrap().contains(text(&disk.path())));
        })
        .join()
        .unwrap();
        assert!(!mounts().contains(text(living.path())), "a mount is seen outside");
        // The kernel takes a namespace apart a moment after its last thread.
        let attached = || run("losetup", &["--list", "--noheadings", "--output", "BACK-FILE"]).unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        while attached().contains(text(living.path())) {
            assert!(Instant::now() < deadline, "a loop device stays behind");
            std::thread::yield_now();
        }
    }

    /// Write some, cut, and see: whether a name that was not flushed, and a direct write that was not, are gone.
    fn lost_by(disk: &mut Disk, cut: Cut) -> (bool, bool) {
        let root = disk.path();
        let path = |name: &str| root.join(name);
        let sync = |path: &Path| File::open(path).and_then(|file| file.sync_all());
        let _ = fs::remove_file(path("after"));
        for name in ["flushed", "overwritten"] {
            fs::write(path(name), [1_u8; 8192]).unwrap();
            sync(&path(name)).unwrap();
        }
        sync(&root).unwrap();
        fs::write(path("after"), b"never flushed").unwrap();
        overwrite_directly(&path("overwritten"), 4096);
        disk.cut(cut).unwrap();
        assert!(
            fs::write(path("later"), b"x").and_then(|()| sync(&path("later"))).is_err(),
            "there is no power"
        );
        disk.restore().unwrap();
        let flushed = fs::read(path("flushed")).unwrap();
        assert!(
            flushed == [1_u8; 8192],
            "{cut:?} lost what was flushed: {} bytes, the first {:?}",
            flushed.len(),
            flushed.first()
        );
        (!path("after").exists(), fs::read(path("overwritten")).unwrap()[0] == 1)
    }

    /// Past the page cache, without a flush.
    fn overwrite_directly(path: &Path, bytes: usize) {
        let direct = i32::try_from(rustix::fs::OFlags::DIRECT.bits()).unwrap();
        let file = fs::OpenOptions::new().write(true).custom_flags(direct).open(path).unwrap();
        let blocks = vec![2_u8; bytes + 4096];
        let offset = blocks.as_ptr().align_offset(4096);
        assert_eq!(rustix::io::pwrite(&file, &blocks[offset..offset + bytes], 0), Ok(bytes));
    }
}
