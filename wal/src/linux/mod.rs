//! What only Linux has: the ring, direct writes, and questions to its filesystems.

use rustix::fs::Advice;
use std::fs::File;

/// Drops a flushed file's pages: direct writes would have to invalidate them one by one.
pub(crate) fn forget_cached(file: &File) {
    // Only a hint; the file is as good either way.
    let _ = rustix::fs::fadvise(file, 0, None, Advice::DontNeed);
}

/// The name of a filesystem that lives in memory only.
pub(crate) fn volatile_filesystem(directory: &File) -> std::io::Result<Option<&'static str>> {
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
