//! A data directory that is gone when its engine is.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::{Path, PathBuf};

/// A path that nobody else has, and its removal.
#[derive(Debug)]
pub(super) struct EphemeralDir {
    path: PathBuf,
}

impl EphemeralDir {
    /// In memory where the system has a place for that, among the temporary files elsewhere. Nothing is created.
    pub(super) fn new() -> Self {
        let unique = RandomState::new().build_hasher().finish();
        let memory = Path::new("/dev/shm");
        let parent = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        Self { path: parent.join(format!("d-engine-{}-{unique:016x}", std::process::id())) }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for EphemeralDir {
    fn drop(&mut self) {
        // It may never have been made, and there is nobody to tell.
        let _ = std::fs::remove_dir_all(&self.path);
    }
}
