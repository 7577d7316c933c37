//! What this process has used: processor time and context switches. The kernel's worker threads for the ring
//! belong to the process; its work queues (`kworker`) do not, and are not counted.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

/// The counters of the block device under the benchmark.
static DEVICE: OnceLock<PathBuf> = OnceLock::new();

/// Counts what the device of this directory does from now on; says which it is. Everybody's flushes and writes are counted:
/// exact on a mount of one's own only.
pub fn watch_device(directory: &Path) -> Option<String> {
    let device = std::fs::metadata(directory).ok()?.dev();
    let at = PathBuf::from(format!("/sys/dev/block/{}:{}", libc::major(device), libc::minor(device)));
    let name = std::fs::canonicalize(&at).ok()?.file_name()?.to_string_lossy().into_owned();
    DEVICE.set(at.join("stat")).ok()?;
    Some(name)
}

/// Flushes and bytes written that the device has completed.
fn device() -> (u64, u64) {
    let counters = DEVICE.get().and_then(|stat| std::fs::read_to_string(stat).ok()).unwrap_or_default();
    let field =
        |at: usize| counters.split_whitespace().nth(at).and_then(|field| field.parse().ok()).unwrap_or(0);
    (field(15), field(6) * 512)
}

/// What a process has used.
#[derive(Clone, Copy, Debug, Default)]
pub struct Used {
    pub cpu: Duration,
    pub switches: u64,
    pub device_flushes: u64,
    pub device_bytes: u64,
}

impl Used {
    pub fn now() -> Self {
        let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
        // SAFETY: `usage` is memory for one `rusage`, and zeros are a valid one.
        let usage = unsafe {
            assert_eq!(libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr()), 0, "it knows this process");
            usage.assume_init()
        };
        let time = |time: libc::timeval| {
            let part = |part: i64| u64::try_from(part).expect("time used is not negative");
            Duration::from_secs(part(time.tv_sec)) + Duration::from_micros(part(time.tv_usec))
        };
        let switches = u64::try_from(usage.ru_nvcsw + usage.ru_nivcsw).expect("a count");
        let (device_flushes, device_bytes) = device();
        Self { cpu: time(usage.ru_utime) + time(usage.ru_stime), switches, device_flushes, device_bytes }
    }

    pub fn since(self, earlier: Self) -> Self {
        Self {
            cpu: self.cpu - earlier.cpu,
            switches: self.switches - earlier.switches,
            device_flushes: self.device_flushes - earlier.device_flushes,
            device_bytes: self.device_bytes - earlier.device_bytes,
        }
    }
}
