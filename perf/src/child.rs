//! A process of this program that takes orders, and what is said when it does not.
//!
//! One that does not answer in time is an error with the end of its log, never a hang. Such processes end with the
//! coordinator: they exit at the end of their standard input.

use crate::protocol::{Loaded, Order, Report, Snapshot};
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;
use thiserror::Error;

/// How long a process may take for anything beyond the length of the load itself.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Why there is no answer from a process.
#[derive(Debug, Error)]
pub enum ChildError {
    /// The operating system refused.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// Its reason.
        source: io::Error,
    },
    /// It exited or said nothing for too long.
    #[error("{name} {what}; the end of its log:\n{log}")]
    Silent {
        /// Which.
        name: String,
        /// What happened.
        what: String,
        /// Its last lines on standard error.
        log: String,
    },
    /// It answered that it could not.
    #[error("{name} could not carry out an order: {reason}")]
    Refused {
        /// Which.
        name: String,
        /// Its words.
        reason: String,
    },
    /// It answered something else than was asked.
    #[error("{name} answered with {report}")]
    OutOfTurn {
        /// Which.
        name: String,
        /// What it said.
        report: String,
    },
}

/// Says what was tried when the operating system refuses.
pub fn io_error(what: impl Into<String>) -> impl FnOnce(io::Error) -> ChildError {
    let what = what.into();
    move |source| ChildError::Io { what, source }
}

/// The last lines of a log.
pub fn end_of(log: &Path) -> String {
    const LINES: usize = 20;
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}

/// Has the kernel end what is started if this thread ends before it: what is left behind would be in the way of whatever is
/// measured next.
pub fn end_with_this_thread(command: &mut Command) {
    #[cfg(target_os = "linux")]
    {
        use std::os::unix::process::CommandExt;
        let ask =
            || Ok(rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?);
        // SAFETY: between fork and exec it makes one system call, and neither allocates nor takes a lock.
        unsafe { command.pre_exec(ask) };
    }
    #[cfg(not(target_os = "linux"))]
    let _ = command;
}

/// A running one.
pub struct Child {
    name: String,
    process: std::process::Child,
    orders: ChildStdin,
    reports: Receiver<String>,
    log: PathBuf,
}

impl Child {
    /// Starts it; its standard error is appended to `log`.
    pub fn spawn(name: impl Into<String>, command: &mut Command, log: PathBuf) -> Result<Self, ChildError> {
        let name = name.into();
        let errors = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .map_err(io_error(format!("making {}", log.display())))?;
        let mut process = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(errors)
            .spawn()
            .map_err(io_error(format!("starting {name}")))?;
        let orders = process.stdin.take().expect("its input was piped");
        let output = process.stdout.take().expect("its output was piped");
        let (send, reports) = sync_channel(16);
        // Ends with the child's output.
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if send.send(line).is_err() {
                    break;
                }
            }
        });
        Ok(Self { name, process, orders, reports, log })
    }

    /// Its number in the process table.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Gives an order; the answer is read by another call.
    pub fn order(&mut self, order: &Order) -> Result<(), ChildError> {
        let mut line = serde_json::to_string(order).expect("orders are plain data");
        line.push('\n');
        let sent = self.orders.write_all(line.as_bytes()).and_then(|()| self.orders.flush());
        sent.map_err(|error| self.silent(format!("takes no orders ({error})")))
    }

    /// For orders whose only answer is that they are done.
    pub fn carry_out(&mut self, order: &Order) -> Result<(), ChildError> {
        self.order(order)?;
        match self.report(PATIENCE)? {
            Report::Done => Ok(()),
            other => Err(self.out_of_turn(&other)),
        }
    }

    /// Waits for what it says to an order.
    pub fn report(&mut self, patience: Duration) -> Result<Report, ChildError> {
        match self.reports.recv_timeout(patience) {
            Ok(line) => serde_json::from_str(&line).map_err(|error| ChildError::OutOfTurn {
                name: self.name.clone(),
                report: format!("{line:?} ({error})"),
            }),
            Err(RecvTimeoutError::Timeout) => Err(self.silent(format!("said nothing for {patience:?}"))),
            Err(RecvTimeoutError::Disconnected) => {
                let status =
                    self.process.wait().map_or_else(|error| error.to_string(), |status| status.to_string());
                Err(self.silent(format!("ended ({status})")))
            }
        }
    }

    /// Waits until it has exited as it was told to.
    pub fn wait_for_exit(&mut self) -> Result<(), ChildError> {
        // The reader of its output ends when the process does.
        match self.reports.recv_timeout(PATIENCE) {
            Ok(line) => return Err(ChildError::OutOfTurn { name: self.name.clone(), report: line }),
            Err(RecvTimeoutError::Timeout) => return Err(self.silent("does not stop".into())),
            Err(RecvTimeoutError::Disconnected) => {}
        }
        let status = self.process.wait().map_err(io_error(format!("waiting for {}", self.name)))?;
        if status.success() { Ok(()) } else { Err(self.silent(format!("ended ({status})"))) }
    }

    /// Ends it with SIGKILL, as a failing machine would; returns when the signal is sent.
    pub fn kill(&mut self) -> Result<(), ChildError> {
        self.process.kill().map_err(io_error(format!("killing {}", self.name)))
    }

    /// Waits until it is gone, however it ended.
    pub fn wait(&mut self) -> Result<(), ChildError> {
        self.process.wait().map(drop).map_err(io_error(format!("waiting for {}", self.name)))
    }

    /// Reads the answer to [`Order::Snapshot`].
    pub fn snapshot(&mut self) -> Result<Snapshot, ChildError> {
        match self.report(PATIENCE)? {
            Report::Snapshot(snapshot) => Ok(*snapshot),
            other => Err(self.out_of_turn(&other)),
        }
    }

    /// Runs the load that was prepared.
    pub fn load(&mut self, slice: Duration) -> Result<Loaded, ChildError> {
        self.order(&Order::Load { slice })?;
        match self.report(PATIENCE + slice)? {
            Report::Loaded(loaded) => Ok(*loaded),
            other => Err(self.out_of_turn(&other)),
        }
    }

    /// The error that an unexpected answer is.
    pub fn out_of_turn(&self, report: &Report) -> ChildError {
        match report {
            Report::Failed { reason } => {
                ChildError::Refused { name: self.name.clone(), reason: reason.clone() }
            }
            other => ChildError::OutOfTurn { name: self.name.clone(), report: format!("{other:?}") },
        }
    }

    fn silent(&self, what: String) -> ChildError {
        ChildError::Silent { name: self.name.clone(), what, log: end_of(&self.log) }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // After a stop in order both find an ended process; otherwise nothing may be left running.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
