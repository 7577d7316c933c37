//! What only Linux has: the ring, direct writes, and questions to its filesystems.
//!
//! `unsafe` is in `buffer.rs`, `ring.rs` and `turn.rs` of this folder and nowhere else in the crate.

mod buffer;
mod flusher;
mod gathering;
mod log;
mod ring;
mod store;
mod turn;

pub use log::{Strategy, UringLog};
pub use ring::Ring;

use crate::error::LogError;
use crate::open::Directory;
use crate::sector::BLOCK;
use rustix::fs::{Advice, AtFlags, OFlags, StatxFlags};
use std::fs::File;
use std::io;
use thiserror::Error;

/// What was refused, so that the portable writer has to do.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Refusal {
    /// `io_uring_setup` failed: an old kernel, `kernel.io_uring_disabled`, or a container's seccomp profile.
    #[error("io_uring is refused: {0} (a seccomp profile, kernel.io_uring_disabled, or an old kernel)")]
    Ring(io::Error),
    /// Too little lockable memory.
    #[error("io_uring is refused for want of lockable memory (ulimit -l): {0}")]
    Memory(io::Error),
    /// The kernel's io_uring lacks something.
    #[error("this kernel's io_uring lacks {0}")]
    Missing(&'static str),
    /// The filesystem does not take direct writes of whole blocks.
    #[error("direct writes to {file} are refused: {what}")]
    Direct {
        /// The file.
        file: String,
        /// Why.
        what: String,
    },
    /// Something that would stop the portable writer too.
    #[error(transparent)]
    Log(LogError),
}

impl Refusal {
    fn ring(error: io::Error) -> Self {
        if error.raw_os_error() == Some(libc::ENOMEM) { Self::Memory(error) } else { Self::Ring(error) }
    }
}

/// Why the Linux writer did not start. The directory comes back, for the portable one.
#[derive(Debug, Error)]
#[error("{refusal}")]
pub struct StartError {
    refusal: Refusal,
    directory: Option<Box<Directory>>,
}

impl StartError {
    /// What was refused.
    #[must_use]
    pub fn refusal(&self) -> &Refusal {
        &self.refusal
    }

    /// The directory that [`UringLog::start`] was given; `None` from [`Ring::new`].
    #[must_use]
    pub fn into_directory(self) -> Option<Directory> {
        self.directory.map(|directory| *directory)
    }
}

impl From<Refusal> for StartError {
    fn from(refusal: Refusal) -> Self {
        Self { refusal, directory: None }
    }
}

/// Drops a flushed file's pages, so that direct writes need not invalidate them one by one and reads come
/// from the disk.
pub(crate) fn forget_cached(file: &File) {
    // Only a hint; the file is as good either way.
    let _ = rustix::fs::fadvise(file, 0, None, Advice::DontNeed);
}

/// Lets this thread run wherever the process's first thread may: a pinned loop's threads would be pinned with it.
pub(crate) fn run_anywhere() {
    // Where it is refused, the thread stays where it is.
    let first = Some(rustix::process::getpid());
    let _ = rustix::thread::sched_getaffinity(first)
        .and_then(|cores| rustix::thread::sched_setaffinity(None, &cores));
}

/// The name of a filesystem that lives in memory only.
pub(crate) fn volatile_filesystem(directory: &File) -> io::Result<Option<&'static str>> {
    const TMPFS: u64 = 0x0102_1994;
    const RAMFS: u64 = 0x8584_58f6;
    // The type of `f_type` differs between architectures; the numbers all fit 32 bits.
    #[allow(clippy::cast_sign_loss, clippy::unnecessary_cast)]
    let kind = rustix::fs::fstatfs(directory)?.f_type as u64 & 0xffff_ffff;
    Ok(match kind {
        TMPFS => Some("tmpfs"),
        RAMFS => Some("ramfs"),
        _ => None,
    })
}

/// Whether reads and writes of a file bypass the page cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Caching {
    Bypassed,
    Used,
}

/// Switches an open file, so that the lock it carries stays.
fn set_caching(file: &File, caching: Caching) -> io::Result<()> {
    let flags = rustix::fs::fcntl_getfl(file)?;
    let flags = match caching {
        Caching::Bypassed => flags | OFlags::DIRECT,
        Caching::Used => flags - OFlags::DIRECT,
    };
    Ok(rustix::fs::fcntl_setfl(file, flags)?)
}

/// Writes to this file from aligned memory go past the page cache from here on; `false` where that cannot be had.
pub(crate) fn bypass_cache(file: &File) -> bool {
    make_direct(file, "").is_ok()
}

/// They go through it again.
pub(crate) fn use_cache(file: &File) -> io::Result<()> {
    set_caching(file, Caching::Used)
}

/// Asks the kernel whether whole aligned blocks are enough for direct I/O on this file, and turns it on.
fn make_direct(file: &File, name: &str) -> Result<(), Refusal> {
    let refuse = |what: String| Err(Refusal::Direct { file: name.to_owned(), what });
    let asked = rustix::fs::statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN);
    match asked {
        Ok(status) if status.stx_mask & StatxFlags::DIOALIGN.bits() != 0 => {
            let needed = status.stx_dio_offset_align.max(status.stx_dio_mem_align) as usize;
            if needed == 0 {
                return refuse("the filesystem has no direct I/O".into());
            }
            if !BLOCK.is_multiple_of(needed) {
                return refuse(format!("it needs an alignment of {needed} bytes, and blocks have {BLOCK}"));
            }
        }
        // Before Linux 6.1 nobody knows: the probe read at the start finds out.
        Ok(_) | Err(_) => {}
    }
    set_caching(file, Caching::Bypassed).or_else(|error| refuse(error.to_string()))
}
