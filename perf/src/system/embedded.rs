//! d-engine as it is embedded: three node processes, the generator inside the leader's.

use super::{Accounts, Act, System, SystemError, Timing};
use crate::child::PATIENCE;
use crate::cluster::{Cluster, Plan};
use crate::node::{DurabilityChoice, RuntimeChoice};
use crate::outage::{Task, Told};
use crate::protocol::{Loaded, Snapshot};
use crate::results::{Part, Spent, Subject};
use crate::workload::{Call, Workload};
use d_engine::config::Configuration;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

/// Its name in reports.
pub const NAME: &str = "d-engine embedded";
const NODES: u64 = 3;

/// What may be chosen.
#[derive(Clone, Debug)]
pub struct Choices {
    /// Which runtime.
    pub runtime: RuntimeChoice,
    /// Which promise.
    pub durability: DurabilityChoice,
    /// The core of each node's loop; empty leaves it to the engine. If given, the first node leads.
    pub cores: Vec<usize>,
}

/// The cluster, if it runs.
pub struct Embedded {
    choices: Choices,
    cluster: Option<Cluster>,
    runtime: String,
    /// Where the load was prepared.
    leader: usize,
}

impl Embedded {
    /// Not started.
    pub fn new(choices: Choices) -> Self {
        let runtime = choices.runtime.to_string();
        Self { choices, cluster: None, runtime, leader: 0 }
    }

    fn cluster(&mut self) -> Result<&mut Cluster, SystemError> {
        self.cluster.as_mut().ok_or(SystemError::Stopped(NAME))
    }
}

impl System for Embedded {
    fn subject(&self) -> Subject {
        let mut settings: BTreeMap<String, String> = [
            ("runtime", self.runtime.clone()),
            ("durability", self.choices.durability.to_string()),
            (
                "generator",
                "one thread inside the leader's process, as a program that embeds the engine".into(),
            ),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
        if !self.choices.cores.is_empty() {
            settings.insert("cores".into(), format!("{:?}", self.choices.cores));
        }
        Subject {
            name: NAME.into(),
            version: env!("CARGO_PKG_VERSION").into(),
            promise: self.choices.durability.promise(),
            nodes: 3,
            ours: true,
            settings,
        }
    }

    fn can(&self, _: Call) -> bool {
        true
    }

    fn start(&mut self, directory: &Path) -> Result<(), SystemError> {
        self.stop()?;
        let mut cluster = Cluster::start(&Plan {
            directory: directory.to_owned(),
            nodes: NODES,
            arguments: vec![
                format!("--runtime={}", self.choices.runtime),
                format!("--durability={}", self.choices.durability),
            ],
            cores: self.choices.cores.clone(),
        })?;
        if !self.choices.cores.is_empty() {
            cluster.lead_from_first()?;
        }
        self.runtime.clone_from(&cluster.runtime);
        self.cluster = Some(cluster);
        Ok(())
    }

    fn fill(&mut self, workload: &Workload) -> Result<(), SystemError> {
        let cluster = self.cluster()?;
        let leader = cluster.leader()?;
        Ok(cluster.fill(leader, workload)?)
    }

    fn prepare(&mut self, workload: &Workload) -> Result<(), SystemError> {
        let cluster = self.cluster()?;
        let leader = cluster.leader()?;
        cluster.prepare(leader, workload)?;
        self.leader = leader;
        Ok(())
    }

    fn load(&mut self, slice: Duration) -> Result<Loaded, SystemError> {
        let leader = self.leader;
        Ok(self.cluster()?.load(leader, slice)?)
    }

    fn accounts(&mut self) -> Result<Accounts, SystemError> {
        let snapshots = self.cluster()?.snapshots()?;
        let leader = snapshots.iter().find(|(_, snapshot)| snapshot.leads).map(|(position, _)| *position);
        let term = snapshots.iter().map(|(_, snapshot)| snapshot.term).max().unwrap_or(0);
        let processes = snapshots.into_iter().map(|(position, snapshot)| spent(position, snapshot)).collect();
        Ok(Accounts { processes, leader, term })
    }

    fn timing(&self) -> Timing {
        let raft = Configuration::default().raft;
        Timing { heartbeat: raft.heartbeat, election: raft.election_timeout }
    }

    fn leader(&mut self) -> Result<usize, SystemError> {
        Ok(self.cluster()?.leader()?)
    }

    fn client(&mut self, position: usize, task: Task) -> Result<Told, SystemError> {
        Ok(self.cluster()?.client(position, task)?)
    }

    fn pid(&self, position: usize) -> Option<u32> {
        self.cluster.as_ref()?.pid(position)
    }

    fn take_away(&mut self, position: usize, act: Act) -> Result<(), SystemError> {
        let cluster = self.cluster()?;
        Ok(match act {
            Act::Kill => cluster.kill(position),
            Act::Stop => cluster.order_stop(position),
        }?)
    }

    fn start_again(&mut self, position: usize) -> Result<(), SystemError> {
        Ok(self.cluster()?.start_again(position, PATIENCE)?)
    }

    fn stop(&mut self) -> Result<(), SystemError> {
        match self.cluster.take() {
            Some(cluster) => Ok(cluster.stop()?),
            None => Ok(()),
        }
    }
}

fn spent(position: usize, snapshot: Snapshot) -> Spent {
    let counters = snapshot.counters;
    Spent {
        part: if snapshot.leads { Part::Leader } else { Part::Follower },
        name: format!("node {}", position + 1),
        usage: snapshot.usage,
        allocations: Some(snapshot.allocations),
        flushes: Some(counters.flushes),
        log_bytes: Some(counters.disk_bytes),
        counters: [
            ("batches", counters.batches),
            ("turns", counters.turns),
            ("sleeps", counters.sleeps),
            ("wakes", counters.wakes),
        ]
        .map(|(name, count)| (name.to_owned(), count))
        .into(),
    }
}
