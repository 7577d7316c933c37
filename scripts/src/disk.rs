//! A real filesystem whose power can be cut.
//!
//! Two layers, both real: the *device* is a file of zeros on an outer ext4, the *filesystem* under test lies on a loop
//! device over that file. Shutting the filesystem down without flushing its log loses what only its page cache and journal
//! held ([`Cut::Filesystem`]). Shutting the outer one down as well loses what the device had taken but not been told to
//! flush, since the loop device turns a flush request into an fsync of its file ([`Cut::Device`]): a disk's write cache,
//! without which O_DIRECT writes never flushed would look durable.
//!
//! Needs root and loop devices; [`available`] says so beforehand. Everything made here is unmounted and detached on drop.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::ioctl::{Opcode, Setter, ioctl, opcode};

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

/// A mounted filesystem on a loop device.
#[derive(Debug)]
struct Mount {
    filesystem: Filesystem,
    device: String,
    at: PathBuf,
}

/// `FS_IOC_SHUTDOWN` of ext4, which xfs calls `XFS_IOC_GOINGDOWN`.
const SHUTDOWN: Opcode = opcode::read::<u32>(b'X', 125);
/// Stop at once, without writing the journal out.
const NO_LOG_FLUSH: u32 = 2;

impl Mount {
    fn new(filesystem: Filesystem, image: &Path, at: PathBuf) -> Result<Self, DiskError> {
        let device = insist("losetup", &["--find", "--show", text(image)])?;
        let arguments = ["-t", filesystem.name(), &device, text(&at)];
        match fs::create_dir_all(&at).map_err(failed("mkdir")).and_then(|()| run("mount", &arguments)) {
            Ok(_) => Ok(Self { filesystem, device, at }),
            Err(error) => {
                run("losetup", &["--detach", &device])?;
                Err(error)
            }
        }
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
        insist("umount", &[text(&self.at)])?;
        insist("losetup", &["--detach", &self.device]).map(|_| ())
    }
}

/// A disk with a filesystem, in a directory of its own.
#[derive(Debug)]
pub struct Disk {
    filesystem: Filesystem,
    directory: PathBuf,
    mounts: Option<(Mount, Mount)>,
    cut: Option<Cut>,
}

impl Disk {
    /// Make and mount a disk of `bytes` (at least 320 MiB for xfs) below `directory`, which needs room for twice as much.
    pub fn make(directory: &Path, filesystem: Filesystem, bytes: u64) -> Result<Self, DiskError> {
        let outer = directory.join("outer.img");
        // Room for the device's file and the outer journal.
        File::create(&outer)
            .and_then(|file| file.set_len(bytes + bytes / 8 + (96 << 20)))
            .map_err(failed("making the image"))?;
        run("mkfs.ext4", &["-q", "-F", "-m", "0", text(&outer)])?;
        let mut disk = Self { filesystem, directory: directory.to_path_buf(), mounts: None, cut: None };
        let device = Mount::new(Filesystem::Ext4, &outer, directory.join("device"))?;
        let inner = device.at.join("disk.img");
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
        match Mount::new(self.filesystem, &device.at.join("disk.img"), self.directory.join("disk")) {
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

    /// Where the filesystem is mounted.
    pub fn path(&self) -> PathBuf {
        self.directory.join("disk")
    }

    /// Cut the power. From here on every write and flush fails until [`restore`](Self::restore).
    pub fn cut(&mut self, cut: Cut) -> Result<(), DiskError> {
        let (device, mount) = self.mounts.as_ref().expect("mounted");
        let (device, mount) = (device.root()?, mount.root()?);
        // The device first: a filesystem that is shut down still flushes it once, to note so in its journal.
        match cut {
            Cut::Filesystem => Mount::shut_down(&mount)?,
            Cut::Device => {
                Mount::shut_down(&device)?;
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
        if self.cut.take() == Some(Cut::Device) {
            device.unmount()?;
            self.mounts = None;
            return self.mount();
        }
        let again = Mount::new(mount.filesystem, &device.at.join("disk.img"), mount.at.clone())?;
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
        overwrite_directly(&path("overwritten"));
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
    fn overwrite_directly(path: &Path) {
        let direct = i32::try_from(rustix::fs::OFlags::DIRECT.bits()).unwrap();
        let file = fs::OpenOptions::new().write(true).custom_flags(direct).open(path).unwrap();
        let block = vec![2_u8; 3 * 4096];
        let offset = block.as_ptr().align_offset(4096);
        rustix::io::pwrite(&file, &block[offset..offset + 4096], 0).unwrap();
    }
}
