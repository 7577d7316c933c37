//! What a report must say about where it was made.

use serde::Serialize;
use std::fs;
use std::path::Path;
use std::process::Command;

/// The place and the program.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// Name of the processor.
    pub processor: String,
    /// Processors that this process may use.
    pub cores: usize,
    /// Kernel name and release.
    pub kernel: String,
    /// File system of the data directories.
    pub file_system: String,
    /// Commit of the working tree the harness ran in; `+` follows if it had changes.
    pub commit: String,
}

impl Machine {
    /// This machine, with data under `directory`.
    pub fn here(directory: &Path) -> Self {
        Self {
            processor: processor(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            kernel: {
                let name = rustix::system::uname();
                format!("{} {}", name.sysname().to_string_lossy(), name.release().to_string_lossy())
            },
            file_system: file_system(directory),
            commit: commit().unwrap_or_else(|| "unknown".into()),
        }
    }
}

fn processor() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = text.lines().find_map(|line| line.strip_prefix("model name"));
    model.map_or_else(
        || std::env::consts::ARCH.to_owned(),
        |model| model.trim_start_matches([' ', '\t', ':']).to_owned(),
    )
}

fn commit() -> Option<String> {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(arguments).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let hash = git(&["rev-parse", "--short=12", "HEAD"])?;
    let changed =
        git(&["status", "--porcelain", "--untracked-files=no"]).is_some_and(|text| !text.is_empty());
    Some(if changed { hash + "+" } else { hash })
}

#[cfg(target_os = "linux")]
fn file_system(directory: &Path) -> String {
    // statfs(2), "File system magic numbers".
    match rustix::fs::statfs(directory).map(|found| found.f_type) {
        Ok(0xef53) => "ext4".into(),
        Ok(0x5846_5342) => "xfs".into(),
        Ok(0x9123_683e) => "btrfs".into(),
        Ok(0x0102_1994) => "tmpfs (nothing is durable here)".into(),
        Ok(0x794c_7630) => "overlay".into(),
        Ok(other) => format!("type {other:#x}"),
        Err(error) => format!("unknown ({error})"),
    }
}

#[cfg(not(target_os = "linux"))]
fn file_system(_: &Path) -> String {
    "unknown".into()
}
