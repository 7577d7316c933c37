//! W12: a node is started with a log to read, alone and as a follower of three.
//!
//! The log is made by writing the same keys over and over, so that it is large and the store is not; then the process is
//! killed, and started again. **Opened** is when it has read its log and knows what it had, **served** when a linearizable
//! read and a write were answered; both count from the start of the process. Files were written a moment ago: what the page
//! cache still has of them is read from there, unless the log bypasses it.

use crate::child::PATIENCE;
use crate::cluster::{Cluster, ClusterError, Plan};
use crate::node::{DurabilityChoice, RuntimeChoice};
use crate::outage::{Task, Told, clock};
use crate::results::{NotRun, Recovery, Results, Rules};
use crate::slice::Probes;
use crate::system::System;
use crate::system::embedded::{Choices, Embedded, NAME};
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use thiserror::Error;

const GIB: f64 = (1_u64 << 30) as f64;
/// What a log takes beyond its commands, and what must stay free for others.
const OVERHEAD: f64 = 1.15;
const SPARE: u64 = 2 << 30;
/// How long a log may take to grow, by the slowest machine that is worth it: 4 MiB a second.
const SLOWEST: f64 = (4_u64 << 20) as f64;

/// What may be chosen.
#[derive(clap::Args, Clone, Debug)]
pub struct Options {
    /// Sizes of the log.
    #[arg(long, value_delimiter = ',', default_values_t = [0.1, 1.0, 5.0])]
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
    /// Nodes in the cluster: 1 restarts a node alone, 3 a follower.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 3])]
    nodes: Vec<u64>,
    /// Where to write the results as JSON.
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
    #[error("a node said {0}")]
    OutOfTurn(String),
    /// There is nothing to show.
    #[error("no node was restarted")]
    Nothing,
}

/// Measures and prints. A size that cannot be had is said and left out.
pub fn run(options: &Options) -> Result<(), Error> {
    let began = Instant::now();
    let io = |what: String| move |source| Error::Io { what, source };
    let parent = &options.directory;
    fs::create_dir_all(parent).map_err(io(format!("making {}", parent.display())))?;
    let choices =
        Choices { runtime: options.runtime, durability: DurabilityChoice::DiskFirst, cores: Vec::new() };
    let mut results = Results::begin("recovery", parent, Rules::plain(1, Duration::ZERO, 0));
    results.systems.push(Embedded::new(choices).subject());
    results.probes = Probes::take(parent).unwrap_or_default();
    let mut out = io::stdout().lock();
    let mut say = |line: String| writeln!(out, "{line}").map_err(io("writing to standard output".into()));
    say(heading())?;
    for &gib in &options.gib {
        for &nodes in &options.nodes {
            match one(options, gib, nodes) {
                Ok(found) => {
                    say(line(&found))?;
                    results.recovery.push(found);
                }
                Err(error) => {
                    let what = format!("{}, {gib} GiB of log", role(nodes));
                    say(format!("not run: {what}: {error}"))?;
                    results.not_run.push(NotRun { id: "W12".into(), what, why: error.to_string() });
                }
            }
            results.took = began.elapsed();
            if let Some(path) = &options.json {
                results.write(path).map_err(io(format!("writing {}", path.display())))?;
            }
        }
    }
    if results.recovery.is_empty() { Err(Error::Nothing) } else { Ok(()) }
}

fn role(nodes: u64) -> &'static str {
    if nodes == 1 { "alone" } else { "a follower of three" }
}

/// The heads of the columns of [`line()`].
pub fn heading() -> String {
    format!(
        "{:<20} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>10} {:>9}",
        "node", "log MB", "opened s", "served s", "wrote s", "MB/s", "CPU s", "peak MB", "keys"
    )
}

/// A restart as a line of a table.
pub fn line(found: &Recovery) -> String {
    let mb = found.log_bytes as f64 / 1e6;
    let [opened, served] = [found.opened, found.served].map(|span| span.as_secs_f64());
    let some = |value: Option<f64>, digits: usize| {
        value.map_or_else(|| "-".into(), |value| format!("{value:.digits$}"))
    };
    format!(
        "{:<20} {mb:>9.0} {opened:>9.3} {served:>9.3} {:>9} {:>9.0} {:>9.2} {:>10} {:>9}",
        found.what,
        some(found.wrote.map(|span| span.as_secs_f64()), 3),
        mb / opened.max(1e-9),
        found.cpu.as_secs_f64(),
        some(found.peak_bytes.map(|bytes| bytes as f64 / 1e6), 0),
        found.keys,
    )
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

fn one(options: &Options, gib: f64, nodes: u64) -> Result<Recovery, Error> {
    let parent = &options.directory;
    check_space(parent, gib, nodes)?;
    let scratch = tempfile::Builder::new().prefix("recovery-").tempdir_in(parent);
    let scratch = scratch.map_err(|source| Error::Io {
        what: format!("making a directory in {}", parent.display()),
        source,
    })?;
    let directory = scratch.path();
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
    // Both writing and reading it again take their time.
    let patience = PATIENCE * 2 + Duration::from_secs_f64(bytes as f64 / SLOWEST);
    let grow = Task::Grow { bytes, value_bytes: options.value_bytes };
    let keys = match cluster.client_within(leader, grow, patience)? {
        Told::Grown { keys } => keys,
        other => return Err(Error::OutOfTurn(format!("{other:?}"))),
    };
    let position = if nodes == 1 { leader } else { (leader + 1) % 3 };
    cluster.kill(position)?;
    let log_bytes = bytes_in(&directory.join(format!("node-{}", position + 1)));
    let began = clock();
    cluster.start_again(position, patience)?;
    let (read, written) = match cluster.client(position, Task::First)? {
        Told::First { read, written } => (read, written),
        other => return Err(Error::OutOfTurn(format!("{other:?}"))),
    };
    assert!(read <= written, "it reads before it writes");
    let stand = match cluster.client(position, Task::Stand)? {
        Told::Stand(stand) => stand,
        other => return Err(Error::OutOfTurn(format!("{other:?}"))),
    };
    cluster.stop()?;
    let since = |at: u64| Duration::from_nanos(at.saturating_sub(began));
    Ok(Recovery {
        system: NAME.into(),
        what: role(nodes).into(),
        log_bytes,
        keys,
        opened: since(stand.opened),
        served: since(read),
        wrote: Some(since(written)),
        cpu: stand.cpu,
        peak_bytes: Some(stand.resident.1),
    })
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
