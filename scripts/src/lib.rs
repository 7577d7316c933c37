//! Named jobs of the repository, as a library so that tests run the short form of what the command line runs long.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test stops at the first surprise"))]

pub mod ci;
#[cfg(target_os = "linux")]
pub mod disk;
pub mod process;
pub mod proto;
pub mod proxy;
pub mod random;
pub mod report;
pub mod stamp;
pub mod talk;
pub mod workspace;
