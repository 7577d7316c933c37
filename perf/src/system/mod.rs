//! A system under test: what the harness asks of every one of them, in the same words.
//!
//! Another peer joins by one more implementation; nothing else in the harness knows whom it measures.

pub mod embedded;
pub mod etcd;

use crate::allocations::Allocations;
use crate::child::ChildError;
use crate::cluster::ClusterError;
use crate::protocol::Loaded;
use crate::results::{Part, Spent, Subject};
use crate::usage::ProcessUsage;
use crate::workload::{Call, Workload};
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::time::Duration;
use thiserror::Error;

/// Why a system did not do what was asked.
#[derive(Debug, Error)]
pub enum SystemError {
    /// The engine's cluster failed.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// A process of this program failed.
    #[error(transparent)]
    Child(#[from] ChildError),
    /// A server failed.
    #[error("{server} {what}; the end of its log:\n{log}")]
    Server {
        /// Which.
        server: String,
        /// What happened.
        what: String,
        /// Its last lines.
        log: String,
    },
    /// The operating system refused.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// Its reason.
        source: io::Error,
    },
    /// Its threads wait for each other by spinning, and never give way under such a policy.
    #[error(
        "{0} would stop the machine under a real-time policy: its runtime spins while others hold what it waits for; give \
         all systems the same nice value instead, with --nice"
    )]
    RealTime(&'static str),
    /// It was not started, or was stopped.
    #[error("{0} does not run")]
    Stopped(&'static str),
}

fn io_error(what: impl Into<String>) -> impl FnOnce(io::Error) -> SystemError {
    let what = what.into();
    move |source| SystemError::Io { what, source }
}

/// What one process used since it began.
#[derive(Clone, Debug)]
pub struct Account {
    /// Which process: `node 1`.
    pub name: String,
    /// The kernel's accounts.
    pub usage: ProcessUsage,
    /// Allocations, where they are counted.
    pub allocations: Option<Allocations>,
    /// Flushes of its log.
    pub flushes: Option<u64>,
    /// Bytes written to its log by its own counter.
    pub log_bytes: Option<u64>,
    /// Other counters.
    pub counters: BTreeMap<String, u64>,
}

impl Account {
    /// What was spent between `earlier` and `self`.
    pub fn since(&self, earlier: &Self, part: Part) -> Spent {
        let difference =
            |now: Option<u64>, then: Option<u64>| now.zip(then).map(|(now, then)| now.saturating_sub(then));
        Spent {
            part,
            name: self.name.clone(),
            usage: self.usage.since(&earlier.usage),
            allocations: self.allocations.zip(earlier.allocations).map(|(now, then)| Allocations {
                count: now.count.saturating_sub(then.count),
                bytes: now.bytes.saturating_sub(then.bytes),
            }),
            flushes: difference(self.flushes, earlier.flushes),
            log_bytes: difference(self.log_bytes, earlier.log_bytes),
            counters: self
                .counters
                .iter()
                .map(|(name, now)| {
                    (name.clone(), now.saturating_sub(earlier.counters.get(name).copied().unwrap_or(0)))
                })
                .collect(),
        }
    }
}

/// All processes of a system at one moment.
#[derive(Clone, Debug)]
pub struct Accounts {
    /// Nodes by position; those that are down are missing.
    pub nodes: Vec<(usize, Account)>,
    /// The generator, where it is a process of its own.
    pub generator: Option<Account>,
    /// Position of the node that leads.
    pub leader: Option<usize>,
    /// Changes whenever leadership does.
    pub term: u64,
}

impl Accounts {
    /// What every process spent since `earlier`.
    pub fn since(&self, earlier: &Self) -> Vec<Spent> {
        let nodes = self.nodes.iter().filter_map(|(position, now)| {
            let part = if self.leader == Some(*position) { Part::Leader } else { Part::Follower };
            let (_, then) = earlier.nodes.iter().find(|(other, _)| other == position)?;
            Some(now.since(then, part))
        });
        let generator = self.generator.iter().zip(&earlier.generator);
        nodes.chain(generator.map(|(now, then)| now.since(then, Part::Generator))).collect()
    }

    /// Processor time of all processes since they began.
    pub fn cpu(&self) -> Duration {
        let all = self.nodes.iter().map(|(_, account)| account).chain(&self.generator);
        all.map(|account| account.usage.cpu).sum()
    }

    /// Bytes handed to the device since the nodes began.
    pub fn written_bytes(&self) -> u64 {
        self.nodes.iter().filter_map(|(_, account)| account.usage.written_bytes).sum()
    }
}

/// What is measured.
pub trait System {
    /// What it is. Complete once it was started.
    fn subject(&self) -> Subject;

    /// Whether it has such a call.
    fn can(&self, call: Call) -> bool;

    /// Starts a fresh cluster with its data under `directory`, ending the one that ran, and waits until it serves.
    fn start(&mut self, directory: &Path) -> Result<(), SystemError>;

    /// Finds out what its own settings should be for such loads, so that it is shown at its best. Measured before the
    /// first block, stated in the report.
    fn calibrate(&mut self, _: &[Workload]) -> Result<(), SystemError> {
        Ok(())
    }

    /// Writes every key of a workload once.
    fn fill(&mut self, workload: &Workload) -> Result<(), SystemError>;

    /// Makes all that a load needs: what costs time before the clock starts.
    fn prepare(&mut self, workload: &Workload) -> Result<(), SystemError>;

    /// Runs the load that was prepared.
    fn load(&mut self, slice: Duration) -> Result<Loaded, SystemError>;

    /// What every process used so far.
    fn accounts(&mut self) -> Result<Accounts, SystemError>;

    /// Processor time of all processes so far; asked while the system waits for its turn, so it costs as little as it can.
    fn cpu(&mut self) -> Result<Duration, SystemError> {
        Ok(self.accounts()?.cpu())
    }

    /// Stops everything in order.
    fn stop(&mut self) -> Result<(), SystemError>;
}
