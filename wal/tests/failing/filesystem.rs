//! A filesystem of one flat directory in memory, behind the kernel's FUSE, whose writes, reads and flushes fail on demand.
//!
//! It loses what a real disk loses: a flush that fails throws away what was written since the last good one, and the next
//! flush succeeds.

use fuser::*;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, UNIX_EPOCH};

const ROOT: u64 = 1;
/// The kernel keeps nothing: every read and write comes here.
const DIRECT: u32 = 1;
/// How much a write takes that is cut short.
const SHORT: usize = 64 << 10;
const NEVER: Duration = Duration::ZERO;

/// What fails. Segments only, unless it says otherwise.
#[derive(Default)]
pub struct Faults {
    /// The write after so many more, which are cut short, fails with this error, and all that follow.
    pub write: Option<(usize, i32)>,
    /// The next flush fails with this error.
    pub flush: Option<i32>,
    /// Every read that touches this byte of a segment's file fails.
    pub read: Option<(u64, i32)>,
    /// The next flush says that it has come, and is answered when told to.
    pub hold: Option<(Sender<()>, Receiver<()>)>,
    /// Flushes that succeeded after one that failed.
    pub flushes_after_failure: usize,
    failed: bool,
}

#[derive(Default)]
struct Node {
    name: Option<OsString>,
    data: Vec<u8>,
    flushed: Vec<u8>,
}

struct Memory {
    nodes: BTreeMap<u64, Node>,
    faults: Arc<Mutex<Faults>>,
}

/// A mounted one.
pub struct Mounted {
    pub path: PathBuf,
    faults: Arc<Mutex<Faults>>,
    // In this order: unmounted before the mount point is removed.
    _session: BackgroundSession,
    _parent: tempfile::TempDir,
}

impl Mounted {
    /// A new one, or why there is none.
    pub fn new() -> Result<Self, String> {
        if !Path::new("/dev/fuse").exists() || !rustix::process::geteuid().is_root() {
            return Err("a FUSE filesystem needs /dev/fuse and root".into());
        }
        let parent = tempfile::tempdir().map_err(|error| error.to_string())?;
        let path = parent.path().join("mount");
        std::fs::create_dir(&path).map_err(|error| error.to_string())?;
        let faults = Arc::new(Mutex::new(Faults::default()));
        let memory = Memory { nodes: BTreeMap::new(), faults: Arc::clone(&faults) };
        let options = [MountOption::FSName("wal-test".into()), MountOption::DefaultPermissions];
        let session = spawn_mount2(memory, &path, &options).map_err(|error| error.to_string())?;
        Ok(Self { path, faults, _session: session, _parent: parent })
    }

    pub fn faults(&self) -> MutexGuard<'_, Faults> {
        self.faults.lock().unwrap()
    }

    /// The next flush is held: the first end hears that it has come, the second lets it go.
    pub fn hold_next_flush(&self) -> (Receiver<()>, Sender<()>) {
        let ((come, heard), (go, told)) = (channel(), channel());
        self.faults().hold = Some((come, told));
        (heard, go)
    }
}

impl Memory {
    fn find(&self, name: &OsStr) -> Option<u64> {
        self.nodes.iter().find(|(_, node)| node.name.as_deref() == Some(name)).map(|(&ino, _)| ino)
    }

    fn attributes(&self, ino: u64) -> Option<FileAttr> {
        let size = if ino == ROOT { 0 } else { self.nodes.get(&ino)?.data.len() as u64 };
        let (kind, perm) =
            if ino == ROOT { (FileType::Directory, 0o700) } else { (FileType::RegularFile, 0o600) };
        let time = UNIX_EPOCH;
        Some(FileAttr {
            ino,
            size,
            blocks: size.div_ceil(512),
            atime: time,
            mtime: time,
            ctime: time,
            crtime: time,
            kind,
            perm,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        })
    }

    fn is_segment(&self, ino: u64) -> bool {
        let name = self.nodes.get(&ino).and_then(|node| node.name.as_ref());
        name.is_some_and(|name| name.to_string_lossy().ends_with(".seg"))
    }
}

fn at(offset: i64) -> usize {
    usize::try_from(offset).unwrap()
}

impl Filesystem for Memory {
    fn lookup(&mut self, _: &Request<'_>, _parent: u64, name: &OsStr, reply: ReplyEntry) {
        match self.find(name).and_then(|ino| self.attributes(ino)) {
            Some(attributes) => reply.entry(&NEVER, &attributes, 0),
            None => reply.error(libc::ENOENT),
        }
    }

    fn getattr(&mut self, _: &Request<'_>, ino: u64, _fh: Option<u64>, reply: ReplyAttr) {
        match self.attributes(ino) {
            Some(attributes) => reply.attr(&NEVER, &attributes),
            None => reply.error(libc::ENOENT),
        }
    }

    fn setattr(
        &mut self,
        request: &Request<'_>,
        ino: u64,
        _mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<std::time::SystemTime>,
        fh: Option<u64>,
        _crtime: Option<std::time::SystemTime>,
        _chgtime: Option<std::time::SystemTime>,
        _bkuptime: Option<std::time::SystemTime>,
        _flags: Option<u32>,
        reply: ReplyAttr,
    ) {
        if let (Some(size), Some(node)) = (size, self.nodes.get_mut(&ino)) {
            node.data.resize(usize::try_from(size).unwrap(), 0);
        }
        self.getattr(request, ino, fh, reply);
    }

    fn create(
        &mut self,
        _: &Request<'_>,
        _parent: u64,
        name: &OsStr,
        _mode: u32,
        _umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        let ino = self.nodes.keys().next_back().map_or(ROOT, |&last| last) + 1;
        self.nodes.insert(ino, Node { name: Some(name.into()), ..Node::default() });
        reply.created(&NEVER, &self.attributes(ino).unwrap(), 0, 0, DIRECT);
    }

    fn open(&mut self, _: &Request<'_>, _ino: u64, _flags: i32, reply: ReplyOpen) {
        reply.opened(0, DIRECT);
    }

    fn unlink(&mut self, _: &Request<'_>, _parent: u64, name: &OsStr, reply: ReplyEmpty) {
        match self.find(name).and_then(|ino| self.nodes.get_mut(&ino)) {
            Some(node) => {
                node.name = None;
                reply.ok();
            }
            None => reply.error(libc::ENOENT),
        }
    }

    fn rename(
        &mut self,
        _: &Request<'_>,
        _parent: u64,
        name: &OsStr,
        _newparent: u64,
        newname: &OsStr,
        _flags: u32,
        reply: ReplyEmpty,
    ) {
        let Some(ino) = self.find(name) else { return reply.error(libc::ENOENT) };
        if let Some(replaced) = self.find(newname) {
            self.nodes.get_mut(&replaced).unwrap().name = None;
        }
        self.nodes.get_mut(&ino).unwrap().name = Some(newname.into());
        reply.ok();
    }

    fn read(
        &mut self,
        _: &Request<'_>,
        ino: u64,
        _fh: u64,
        offset: i64,
        size: u32,
        _flags: i32,
        _lock: Option<u64>,
        reply: ReplyData,
    ) {
        let (from, until) = (at(offset) as u64, at(offset) as u64 + u64::from(size));
        let fault = self.faults.lock().unwrap().read;
        if let Some((_, errno)) =
            fault.filter(|(byte, _)| self.is_segment(ino) && (from..until).contains(byte))
        {
            return reply.error(errno);
        }
        let data = &self.nodes[&ino].data;
        let range = [from, until].map(|at| usize::try_from(at).unwrap().min(data.len()));
        reply.data(&data[range[0]..range[1]]);
    }

    fn write(
        &mut self,
        _: &Request<'_>,
        ino: u64,
        _fh: u64,
        offset: i64,
        data: &[u8],
        _write_flags: u32,
        _flags: i32,
        _lock: Option<u64>,
        reply: ReplyWrite,
    ) {
        let mut data = data;
        if self.is_segment(ino) {
            let mut faults = self.faults.lock().unwrap();
            match &mut faults.write {
                Some((0, errno)) => return reply.error(*errno),
                Some((left, _)) => {
                    *left -= 1;
                    data = &data[..data.len().min(SHORT)];
                }
                None => {}
            }
        }
        let file = &mut self.nodes.get_mut(&ino).unwrap().data;
        let end = at(offset) + data.len();
        if file.len() < end {
            file.resize(end, 0);
        }
        file[at(offset)..end].copy_from_slice(data);
        reply.written(u32::try_from(data.len()).unwrap());
    }

    fn flush(&mut self, _: &Request<'_>, _ino: u64, _fh: u64, _lock: u64, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&mut self, _: &Request<'_>, ino: u64, _fh: u64, _datasync: bool, reply: ReplyEmpty) {
        let segment = self.is_segment(ino);
        let node = self.nodes.get_mut(&ino).unwrap();
        let mut faults = self.faults.lock().unwrap();
        if let Some(errno) = faults.flush.take_if(|_| segment) {
            faults.failed = true;
            node.data.clone_from(&node.flushed);
            return reply.error(errno);
        }
        faults.flushes_after_failure += usize::from(faults.failed);
        node.flushed.clone_from(&node.data);
        match faults.hold.take_if(|_| segment) {
            None => reply.ok(),
            Some((come, told)) => {
                std::thread::spawn(move || {
                    let _ = come.send(());
                    // Whoever let it go, or is gone.
                    let _ = told.recv();
                    reply.ok();
                });
            }
        }
    }

    fn fsyncdir(&mut self, _: &Request<'_>, _ino: u64, _fh: u64, _datasync: bool, reply: ReplyEmpty) {
        reply.ok();
    }

    fn readdir(&mut self, _: &Request<'_>, _ino: u64, _fh: u64, offset: i64, mut reply: ReplyDirectory) {
        let named = self.nodes.iter().filter_map(|(&ino, node)| Some((ino, node.name.clone()?)));
        for (n, (ino, name)) in named.enumerate().skip(at(offset)) {
            if reply.add(ino, i64::try_from(n + 1).unwrap(), FileType::RegularFile, name) {
                break;
            }
        }
        reply.ok();
    }
}
