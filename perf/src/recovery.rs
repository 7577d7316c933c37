//! W12: a node is started with a log to read, alone and as a follower of three.
//!
//! The log is made by writing the same keys over and over, so that it is large and the store is not; then the process is
//! killed, and started again. **Opened** is when it has read its log and knows what it had, **served** when a linearizable
//! read and a write were answered; both count from the start of the process. Files were written a moment ago: what the page
//! cache still has of them is read from there, unless the log bypasses it.

use crate::cluster::{Cluster, ClusterError, Plan};
use crate::failover::{SYSTEM, stand};
use crate::node::{DurabilityChoice, RuntimeChoice};
use crate::outage::{Task, Told, clock};
use crate::results::Recovery;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;
use thiserror::Error;

const GIB: f64 = (1_u64 << 30) as f64;
/// What a log takes beyond its commands, and what must stay free for others.
const OVERHEAD: f64 = 1.3;
const SPARE: u64 = 2 << 30;
/// How long a log may take to grow, by the slowest machine that is worth it: 4 MiB a second.
const SLOWEST: f64 = (4_u64 << 20) as f64;

/// What may be chosen.
#[derive(clap::Args, Clone, Debug)]
pub struct Options {
    /// Sizes of the log.
    #[arg(long, value_delimiter = ',', default_values_t = [0.1, 1.0])]
    gib: Vec<f64>,
    /// Bytes of each value in it.
    #[arg(long, default_value_t = 1024)]
    value_bytes: usize,
    /// Which runtime the nodes use.
    #[arg(long, value_enum, default_value_t = RuntimeChoice::Auto)]
    runtime: RuntimeChoice,
    /// Where data goes. A fresh directory is made in it and removed at the end.
    #[arg(long, default_value = "target/perf")]
    directory: PathBuf,
    /// Where to write what was found as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
}

/// Why there are no figures.
#[derive(Debug, Error)]
pub enum Error {
    /// The disk would be full before the log is large enough.
    #[error(
        "{directory} has {free} bytes free and {needed} are needed for {nodes} logs of {gib} GiB; choose another directory \
         or a smaller --gib"
    )]
    TooLittleSpace {
        /// Where.
        directory: PathBuf,
        /// What is there.
        free: u64,
        /// What it takes, some to spare included.
        needed: u64,
        /// How many logs.
        nodes: u64,
        /// Of which size.
        gib: f64,
    },
    /// The operating system refused.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// Its reason.
        source: io::Error,
    },
    /// A node failed.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// A node said something else than was asked.
    #[error("{0}")]
    Node(String),
}

/// What a restart gave.
struct Restart {
    nodes: u64,
    recovery: Recovery,
    wrote: Duration,
    peak_bytes: u64,
}

/// Measures and prints.
pub fn run(options: &Options) -> Result<(), Error> {
    let io = |what: String| move |source| Error::Io { what, source };
    let parent = &options.directory;
    fs::create_dir_all(parent).map_err(io(format!("making {}", parent.display())))?;
    let mut restarts = Vec::new();
    let mut out = io::stdout().lock();
    let mut say = |line: String| writeln!(out, "{line}").map_err(io("writing to standard output".into()));
    say(format!(
        "{:<20} {:>9} {:>9} {:>9} {:>9} {:>9} {:>10} {:>9}",
        "node", "log MB", "opened s", "served s", "MB/s", "CPU s", "peak MB", "keys"
    ))?;
    for &gib in &options.gib {
        for nodes in [1, 3] {
            check_space(parent, gib, nodes)?;
            let directory = tempfile::Builder::new().prefix("recovery-").tempdir_in(parent);
            let directory = directory.map_err(io(format!("making a directory in {}", parent.display())))?;
            let restart = one(options, directory.path(), gib, nodes)?;
            let Recovery { log_bytes, opened, served, cpu, keys, .. } = &restart.recovery;
            let mb = *log_bytes as f64 / 1e6;
            say(format!(
                "{:<20} {mb:>9.0} {:>9.3} {:>9.3} {:>9.0} {:>9.2} {:>10.0} {keys:>9}",
                if nodes == 1 { "alone" } else { "a follower of three" },
                opened.as_secs_f64(),
                restart.wrote.as_secs_f64(),
                mb / opened.as_secs_f64(),
                cpu.as_secs_f64(),
                restart.peak_bytes as f64 / 1e6,
            ))?;
            assert!(*served <= restart.wrote, "it reads before it writes");
            restarts.push(restart);
        }
    }
    if let Some(path) = &options.json {
        let list: Vec<_> = restarts
            .iter()
            .map(|restart| {
                serde_json::json!({
                    "nodes": restart.nodes, "recovery": restart.recovery, "first_write": restart.wrote,
                    "peak_bytes": restart.peak_bytes,
                })
            })
            .collect();
        let text = serde_json::to_string(&list).expect("plain data");
        fs::write(path, text).map_err(io(format!("writing {}", path.display())))?;
    }
    Ok(())
}

fn check_space(directory: &Path, gib: f64, nodes: u64) -> Result<(), Error> {
    let stat = rustix::fs::statvfs(directory).map_err(|error| Error::Io {
        what: format!("asking what is free in {}", directory.display()),
        source: error.into(),
    })?;
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    let needed = needed(gib, nodes);
    if free < needed {
        return Err(Error::TooLittleSpace { directory: directory.to_owned(), free, needed, nodes, gib });
    }
    Ok(())
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "saturates, and then nothing is enough"
)]
fn needed(gib: f64, nodes: u64) -> u64 {
    ((gib * GIB * OVERHEAD) as u64).saturating_mul(nodes).saturating_add(SPARE)
}

fn one(options: &Options, directory: &Path, gib: f64, nodes: u64) -> Result<Restart, Error> {
    let mut cluster = Cluster::start(&Plan {
        directory: directory.to_owned(),
        nodes,
        arguments: vec![
            format!("--runtime={}", options.runtime),
            format!("--durability={}", DurabilityChoice::DiskFirst),
        ],
        cores: Vec::new(),
    })?;
    let leader = cluster.leader()?;
    #[expect(clippy::cast_possible_truncation, reason = "a size")]
    let bytes = (gib * GIB) as u64;
    let patience = Duration::from_secs_f64(60.0 + bytes as f64 / SLOWEST);
    let grow = Task::Grow { bytes, value_bytes: options.value_bytes };
    let Told::Grown { keys } = cluster.client_within(leader, grow, patience)? else {
        return Err(Error::Node("growing was answered with something else".into()));
    };
    let position = if nodes == 1 { leader } else { (leader + 1) % 3 };
    cluster.kill(position)?;
    let log_bytes = bytes_in(&directory.join(format!("node-{}", position + 1)));
    let began = clock();
    cluster.start_again(position)?;
    let Told::First { read, written } = cluster.client(position, Task::First)? else {
        return Err(Error::Node("the first calls were answered with something else".into()));
    };
    let stand = stand(&mut cluster, position).map_err(Error::Node)?;
    cluster.stop()?;
    let since = |at: u64| Duration::from_nanos(at.saturating_sub(began));
    let recovery = Recovery {
        system: SYSTEM.into(),
        log_bytes,
        keys,
        opened: since(stand.opened),
        served: since(read),
        cpu: stand.cpu,
    };
    Ok(Restart { nodes, recovery, wrote: since(written), peak_bytes: stand.resident.1 })
}

/// Bytes of all files in a directory.
fn bytes_in(directory: &Path) -> u64 {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let meta = entry.metadata().ok()?;
            Some(if meta.is_dir() { bytes_in(&entry.path()) } else { meta.len() })
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_is_too_small_is_refused_before_anything_is_written() {
        let directory = tempfile::tempdir().expect("a directory");
        let error = check_space(directory.path(), 1e9, 3).expect_err("no disk has that");
        assert!(matches!(error, Error::TooLittleSpace { nodes: 3, .. }), "{error}");
        assert!(needed(1.0, 3) > 3 << 30 && needed(1.0, 3) < 8 << 30);
        assert_eq!(bytes_in(directory.path()), 0);
        fs::create_dir(directory.path().join("inner")).expect("made");
        fs::write(directory.path().join("inner/file"), [0; 100]).expect("written");
        assert_eq!(bytes_in(directory.path()), 100);
    }
}
