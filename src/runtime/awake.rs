//! Asking the kernel not to let cores sleep deeply while an engine runs.
//!
//! Whoever holds the kernel's PM QoS file open with a latency written into it has it honoured for every core, until the file
//! is closed, also by the end of the process (Linux, `Documentation/power/pm_qos_interface.rst`). At zero an idle core polls:
//! it is woken by a store to its memory instead of an interrupt. On a virtual machine that interrupt and the sleep are visits
//! to the host, which cost more than everything the engine does for a put that is alone.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

/// What is asked holds while this lives.
#[derive(Debug)]
pub(super) struct Awake(#[expect(dead_code, reason = "it is held, and closed by being dropped")] File);

/// Where the kernel is asked. Other systems have nothing like it there, and refuse as a kernel without PM QoS does.
pub(super) const DEVICE: &str = "/dev/cpu_dma_latency";

/// Asks that no core takes longer than this to wake.
pub(super) fn ask(latency: Duration, device: &Path) -> io::Result<Awake> {
    let micros = i32::try_from(latency.as_micros()).unwrap_or(i32::MAX);
    let mut file = OpenOptions::new().write(true).open(device)?;
    // Hexadecimal text; but four bytes would be taken for a binary number.
    file.write_all(format!("{micros:08x}").as_bytes())?;
    Ok(Awake(file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn microseconds_are_written_as_the_kernel_reads_them() {
        let home = tempfile::tempdir().expect("a directory");
        let device = home.path().join("device");
        for (latency, written) in [(0, "00000000"), (10, "0000000a"), (1_000_000, "000f4240")] {
            std::fs::write(&device, b"").expect("a file");
            let _awake = ask(Duration::from_micros(latency), &device).expect("it can be written");
            assert_eq!(std::fs::read_to_string(&device).expect("still there"), written);
        }
    }

    #[test]
    fn a_machine_without_the_device_refuses() {
        let home = tempfile::tempdir().expect("a directory");
        let error = ask(Duration::ZERO, &home.path().join("none")).expect_err("nothing is there");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
