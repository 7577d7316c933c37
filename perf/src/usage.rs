//! What a process and the machine have used so far, from the kernel's own accounts.
//!
//! Differences of two snapshots are what a slice cost. Off Linux, what `/proc` would tell is absent rather than zero.

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use std::fs;
use std::time::Duration;

/// Ticks of `/proc/*/stat` per second: fixed by the Linux ABI for user space.
const TICKS_PER_SECOND: u64 = 100;

/// What a process used since it began.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ProcessUsage {
    /// User and system time of all threads, ended ones too; nanoseconds exact.
    pub cpu: Duration,
    /// The part spent in user space; in steps of 10 ms.
    pub user: Duration,
    /// Context switches of the threads alive now.
    pub switches: u64,
    /// Bytes handed to block devices.
    pub written_bytes: Option<u64>,
    /// Resident memory in bytes.
    pub resident_bytes: Option<u64>,
    /// CPU of each thread alive now, by name; threads of one name are summed.
    pub threads: Vec<(String, Duration)>,
}

impl ProcessUsage {
    /// Reads the accounts of the calling process.
    pub fn of_self() -> Self {
        let cpu = clock_gettime(ClockId::ProcessCPUTime);
        let cpu =
            Duration::new(u64::try_from(cpu.tv_sec).unwrap_or(0), u32::try_from(cpu.tv_nsec).unwrap_or(0));
        Self::read("/proc/self", cpu)
    }

    /// Reads the accounts of another process; its processor time is in steps of 10 ms. `None` if there is no such
    /// process, or no way to know.
    pub fn of(pid: u32) -> Option<Self> {
        let directory = format!("/proc/{pid}");
        let (user, system) = times(&directory)?;
        Some(Self::read(&directory, user + system))
    }

    fn read(directory: &str, cpu: Duration) -> Self {
        let (threads, switches) = threads(directory);
        Self {
            cpu,
            user: times(directory).unwrap_or_default().0,
            switches,
            written_bytes: field(&format!("{directory}/io"), "write_bytes:"),
            resident_bytes: field(&format!("{directory}/status"), "VmRSS:").map(|kib: u64| kib * 1024),
            threads,
        }
    }

    /// What was used between `earlier` and `self`. Memory is not a difference: it is the later value.
    pub fn since(&self, earlier: &Self) -> Self {
        let threads = self
            .threads
            .iter()
            .map(|(name, cpu)| {
                let before =
                    earlier.threads.iter().find(|(other, _)| other == name).map_or(Duration::ZERO, |t| t.1);
                (name.clone(), cpu.saturating_sub(before))
            })
            .collect();
        Self {
            cpu: self.cpu.saturating_sub(earlier.cpu),
            user: self.user.saturating_sub(earlier.user),
            switches: self.switches.saturating_sub(earlier.switches),
            written_bytes: self
                .written_bytes
                .zip(earlier.written_bytes)
                .map(|(now, then)| now.saturating_sub(then)),
            resident_bytes: self.resident_bytes,
            threads,
        }
    }
}

/// The number after `name` in a file of "name value" lines.
pub fn field(path: &str, name: &str) -> Option<u64> {
    field_in(&fs::read_to_string(path).ok()?, name)
}

fn field_in(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Time in user space and in the kernel.
fn times(directory: &str) -> Option<(Duration, Duration)> {
    times_in(&fs::read_to_string(format!("{directory}/stat")).ok()?)
}

fn times_in(stat: &str) -> Option<(Duration, Duration)> {
    // The name in parentheses may hold spaces; the fields are counted behind it. utime and stime are fields 14 and 15 of
    // proc(5).
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut next = || -> Option<Duration> {
        let ticks: u64 = fields.next()?.parse().ok()?;
        Some(Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND))
    };
    Some((next()?, next()?))
}

fn threads(directory: &str) -> (Vec<(String, Duration)>, u64) {
    let mut by_name: Vec<(String, Duration)> = Vec::new();
    let mut switches = 0;
    for task in fs::read_dir(format!("{directory}/task")).into_iter().flatten().flatten() {
        let path = task.path();
        let read = |file| fs::read_to_string(path.join(file)).unwrap_or_default();
        let cpu = read("schedstat").split_whitespace().next().and_then(|ns| ns.parse().ok()).unwrap_or(0);
        let status = path.join("status");
        let status = status.to_string_lossy();
        switches += field(&status, "voluntary_ctxt_switches:").unwrap_or(0)
            + field(&status, "nonvoluntary_ctxt_switches:").unwrap_or(0);
        let (name, cpu) = (read("comm").trim().to_owned(), Duration::from_nanos(cpu));
        match by_name.iter_mut().find(|(other, _)| *other == name) {
            Some((_, sum)) => *sum += cpu,
            None => by_name.push((name, cpu)),
        }
    }
    by_name.sort_by_key(|(_, cpu)| std::cmp::Reverse(*cpu));
    (by_name, switches)
}

/// What all processors of the machine did, in ticks since it started.
#[derive(Clone, Copy, Debug, Default)]
pub struct MachineUsage {
    total: u64,
    idle: u64,
    steal: u64,
}

/// Shares of the machine's processor time in an interval, each from 0 to 1.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct MachineShares {
    /// Neither idle nor waiting for the disk.
    pub busy: f64,
    /// Taken by the host for somebody else while we wanted to run.
    pub steal: f64,
}

impl MachineUsage {
    /// Now; `None` where the kernel does not tell.
    pub fn now() -> Option<Self> {
        Self::read(&fs::read_to_string("/proc/stat").ok()?)
    }

    fn read(text: &str) -> Option<Self> {
        // user nice system idle iowait irq softirq steal: guest time is inside user (proc(5)).
        let ticks: Vec<u64> =
            text.lines().next()?.split_whitespace().skip(1).take(8).map_while(|t| t.parse().ok()).collect();
        let &[_, _, _, idle, iowait, _, _, steal] = ticks.as_slice() else { return None };
        Some(Self { total: ticks.iter().sum(), idle: idle + iowait, steal })
    }

    /// What happened between `earlier` and `self`.
    pub fn since(self, earlier: Self) -> MachineShares {
        let total = self.total.saturating_sub(earlier.total).max(1) as f64;
        let share = |now: u64, then: u64| now.saturating_sub(then) as f64 / total;
        let idle = share(self.idle, earlier.idle);
        let steal = share(self.steal, earlier.steal);
        MachineShares { busy: (1.0 - idle - steal).max(0.0), steal }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::hint::black_box;

    #[test]
    fn work_shows_in_the_cpu_time_of_the_process() {
        let before = ProcessUsage::of_self();
        let mut sum = 0_u64;
        while ProcessUsage::of_self().since(&before).cpu < Duration::from_millis(5) {
            sum = black_box(sum.wrapping_add(1));
        }
        let used = ProcessUsage::of_self().since(&before);
        assert!(used.cpu >= Duration::from_millis(5));
    }

    #[test]
    fn another_process_is_read_as_this_one_is() {
        let read = ProcessUsage::of(std::process::id()).expect("this process exists");
        let own = ProcessUsage::of_self();
        assert!(read.resident_bytes.is_some_and(|bytes| bytes > 0) && !read.threads.is_empty());
        assert!(read.cpu <= own.cpu + Duration::from_millis(20), "{:?} {:?}", read.cpu, own.cpu);
        // A process's number never reaches its ceiling (proc(5), pid_max).
        assert!(ProcessUsage::of(u32::MAX).is_none());
    }

    #[test]
    fn a_process_is_read_as_proc_5_describes_it() {
        // Fields 1 to 20: of 14 to 17, utime, stime and what waited-for children took, the first two count.
        let stat = "77 (a (b) c) R 1 77 77 0 -1 4194560 161 9 3 1 250 75 4000 5000 20 0 4 0";
        assert_eq!(times_in(stat), Some((Duration::from_millis(2_500), Duration::from_millis(750))));
        assert_eq!(times_in("77 (short) R 1 2"), None);
        let status = "VmHWM:\t  300 kB\nVmRSS:\t  256 kB\nnonvoluntary_ctxt_switches:\t7\nvoluntary_ctxt_switches:\t40\n";
        assert_eq!(field_in(status, "VmRSS:"), Some(256));
        assert_eq!(field_in(status, "voluntary_ctxt_switches:"), Some(40));
        let io = "rchar: 5\nwchar: 6\nread_bytes: 7\nwrite_bytes: 4096\ncancelled_write_bytes: 9\n";
        assert_eq!(field_in(io, "write_bytes:"), Some(4096));
    }

    #[test]
    fn the_machine_is_read_as_proc_5_describes_it() {
        // user nice system idle iowait irq softirq steal guest guest_nice; guests are in user, too.
        let earlier = MachineUsage::read("cpu  100 10 50 800 40 5 5 20 90 9\ncpu0 1 2 3\n").expect("a line");
        let later = MachineUsage::read("cpu  150 10 60 830 50 5 5 30 190 9\n").expect("a line");
        let shares = later.since(earlier);
        // Of 110 ticks 40 were idle or waited for the disk, and 10 were taken.
        assert!((shares.busy - 60.0 / 110.0).abs() < 1e-9, "{shares:?}");
        assert!((shares.steal - 10.0 / 110.0).abs() < 1e-9, "{shares:?}");
        assert!(MachineUsage::read("cpu 1 2 3\n").is_none());
    }

    #[test]
    fn shares_of_the_machine_add_up() {
        let earlier = MachineUsage { total: 1000, idle: 600, steal: 10 };
        let later = MachineUsage { total: 1200, idle: 650, steal: 20 };
        let shares = later.since(earlier);
        assert!((shares.busy - 0.70).abs() < 1e-9 && (shares.steal - 0.05).abs() < 1e-9);
    }
}
