//! What a report must say about where it was made.

use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;
use std::process::Command;

/// The place and the program.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Machine {
    /// Name of the processor.
    pub processor: String,
    /// Processors that this process may use.
    pub cores: usize,
    /// Kernel name and release.
    pub kernel: String,
    /// File system of the data directories.
    pub file_system: String,
    /// How the scheduler treats this process and, by inheritance, all that it measures.
    pub scheduling: String,
    /// Commit of the working tree the harness ran in; `+` follows if it had changes.
    pub commit: String,
}

impl Machine {
    /// Processors that this process may use.
    pub fn cores() -> usize {
        std::thread::available_parallelism().map_or(1, usize::from)
    }

    /// This machine, with data under `directory`.
    pub fn here(directory: &Path) -> Self {
        Self {
            processor: processor(),
            cores: Self::cores(),
            kernel: {
                let name = rustix::system::uname();
                format!("{} {}", name.sysname().to_string_lossy(), name.release().to_string_lossy())
            },
            file_system: file_system(directory),
            scheduling: fs::read_to_string("/proc/self/stat")
                .ok()
                .and_then(|stat| scheduling(&stat))
                .unwrap_or_else(|| "unknown".into())
                + &wake_latency().map_or_else(String::new, waking),
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

/// Nice value, real-time priority and policy, from the fields of `/proc/self/stat`, counted behind the name in parentheses:
/// 19, 40 and 41 of proc(5).
fn turns(stat: &str) -> Option<[&str; 3]> {
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    Some([*fields.get(16)?, *fields.get(37)?, *fields.get(38)?])
}

fn scheduling(stat: &str) -> Option<String> {
    let [nice, priority, policy] = turns(stat)?;
    Some(match policy {
        "0" => format!("normally at nice {nice}"),
        "1" => format!("first in, first out at real-time priority {priority}"),
        "2" => format!("round robin at real-time priority {priority}"),
        other => format!("by policy {other}"),
    })
}

/// Whether this process, and so all that it starts, comes before all others until it sleeps.
pub fn has_real_time_policy() -> bool {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    turns(&stat).is_some_and(|[_, _, policy]| matches!(policy, "1" | "2"))
}

/// Where the kernel is asked how long a core may take to wake, for as long as the file is open (PM QoS).
const WAKE_LATENCY: &str = "/dev/cpu_dma_latency";

/// No core sleeps while the file lives.
pub fn keep_awake() -> io::Result<File> {
    let named =
        |error: io::Error| io::Error::new(error.kind(), format!("{WAKE_LATENCY}: {error}; it takes root"));
    let mut file = OpenOptions::new().write(true).open(WAKE_LATENCY).map_err(named)?;
    file.write_all(b"00000000").map_err(named)?;
    Ok(file)
}

/// What the kernel grants to whoever asks for least, in microseconds.
fn wake_latency() -> Option<i32> {
    let mut micros = [0; 4];
    OpenOptions::new().read(true).write(true).open(WAKE_LATENCY).ok()?.read_exact(&mut micros).ok()?;
    #[expect(clippy::host_endian_bytes, reason = "the kernel hands out a number of its own")]
    Some(i32::from_ne_bytes(micros))
}

fn waking(micros: i32) -> String {
    /// Nobody asks for anything (`PM_QOS_CPU_LATENCY_DEFAULT_VALUE`).
    const ANY: i32 = 2_000_000_000;
    match micros {
        ANY.. => String::new(),
        0 => ", cores kept awake".into(),
        micros => format!(", cores wake within {micros} µs"),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_asked_about_waking_is_said_and_nothing_otherwise() {
        assert_eq!(waking(2_000_000_000), "");
        assert_eq!(waking(0), ", cores kept awake");
        assert_eq!(waking(70), ", cores wake within 70 µs");
    }

    #[test]
    fn the_policy_is_read_behind_a_name_with_spaces_and_parentheses() {
        let mut fields = vec!["0"; 50];
        (fields[16], fields[37], fields[38]) = ("-5", "1", "2");
        let stat = |fields: &[&str]| format!("17 (a (strange) name) {}", fields.join(" "));
        assert_eq!(scheduling(&stat(&fields)).as_deref(), Some("round robin at real-time priority 1"));
        fields[38] = "0";
        assert_eq!(scheduling(&stat(&fields)).as_deref(), Some("normally at nice -5"));
    }
}
