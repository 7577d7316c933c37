//! Three (or any number of) node processes on loopback, each with a directory of its own, and perhaps a [`Proxy`] between.
//!
//! Each cluster has its own addresses in 127.0.0.0/8, so that jobs running at the same time cannot meet.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use clap::ValueEnum;
use tempfile::TempDir;

#[cfg(target_os = "linux")]
use crate::namespaces::{NamespaceError, Namespaces};
use crate::process::{NodeProcess, StartFailure};
use crate::proxy::Proxy;
use crate::report::Report;
use crate::talk::{Ask, Status, Told};

/// How long a node may take to start, and a quiet cluster to agree on a leader, on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The identity of every cluster of a job.
pub const CLUSTER: u128 = 0xC1;

/// Which driver runs a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Runtime {
    Glommio,
    Tokio,
}

/// Which drivers run the nodes of a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Runtimes {
    Glommio,
    Tokio,
    /// Both in one cluster.
    Mixed,
}

impl Runtimes {
    /// The driver of the node at `index`.
    pub fn of(self, index: usize) -> Runtime {
        match self {
            Self::Glommio => Runtime::Glommio,
            Self::Tokio => Runtime::Tokio,
            Self::Mixed if index.is_multiple_of(2) => Runtime::Glommio,
            Self::Mixed => Runtime::Tokio,
        }
    }

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Glommio => "glommio",
            Self::Tokio => "tokio",
            Self::Mixed => "mixed",
        }
    }
}

/// What a cluster is made of.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The program that has the `node` job: this one, or the one under test.
    pub program: PathBuf,
    /// How many nodes.
    pub nodes: usize,
    /// Their drivers.
    pub runtimes: Runtimes,
    /// Where its directory is made. Not on a tmpfs: the log refuses it.
    pub below: PathBuf,
    /// What is between them.
    pub network: Network,
}

/// How nodes reach each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// By loopback.
    Plain,
    /// By a [`Proxy`] with this seed.
    Proxy(u64),
    /// By interfaces of their own.
    #[cfg(target_os = "linux")]
    Namespaces,
}

impl Settings {
    /// Three nodes of `program` below the directory for temporary files of builds.
    pub fn three(program: impl Into<PathBuf>, runtimes: Runtimes, below: impl Into<PathBuf>) -> Self {
        Self { program: program.into(), nodes: 3, runtimes, below: below.into(), network: Network::Plain }
    }
}

/// Why there is no cluster.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClusterError {
    /// Directory or socket.
    #[error("preparing a cluster: {0}")]
    Io(#[from] io::Error),
    /// The network could not be made or changed.
    #[cfg(target_os = "linux")]
    #[error(transparent)]
    Network(#[from] NamespaceError),
    /// A node did not start.
    #[error("node {id}: {source}")]
    Start {
        /// Which.
        id: u64,
        /// Why.
        source: StartFailure,
    },
    /// Nobody leads.
    #[error("no leader within {0:?}; seen: {1}")]
    NoLeader(Duration, String),
    /// The replicas did not become equal.
    #[error("replicas still differ after {0:?}; seen: {1}")]
    Unequal(Duration, String),
}

#[derive(Debug)]
struct Slot {
    listen: SocketAddr,
    process: Mutex<Option<Arc<NodeProcess>>>,
}

/// A running cluster. Dropped, it kills its nodes and removes its directory, unless [`keep`](Self::keep) was called.
#[derive(Debug)]
pub struct Cluster {
    settings: Settings,
    slots: Vec<Slot>,
    proxy: Option<Proxy>,
    #[cfg(target_os = "linux")]
    namespaces: Option<Namespaces>,
    directory: TempDir,
    variables: Mutex<BTreeMap<String, String>>,
    places: Mutex<HashMap<usize, PathBuf>>,
}

/// Addresses nobody else of this machine uses: 127.64.0.0/10, chosen by process and count.
fn own_host() -> IpAddr {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let mixed = std::process::id().wrapping_mul(0x9e37_79b1)
        ^ COUNT.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x51ed);
    let [a, b, c, _] = mixed.to_le_bytes();
    IpAddr::V4(Ipv4Addr::new(127, 64 | (a & 0x3f), b, c.clamp(1, 254)))
}

impl Cluster {
    /// Make directories and addresses; start nothing.
    pub fn prepare(settings: Settings) -> Result<Self, ClusterError> {
        std::fs::create_dir_all(&settings.below)?;
        let directory = tempfile::Builder::new().prefix("cluster-").tempdir_in(&settings.below)?;
        let host = own_host();
        // All are held open together so that they differ.
        let sockets =
            (0..settings.nodes).map(|_| UdpSocket::bind((host, 0))).collect::<io::Result<Vec<_>>>()?;
        let mut addresses = sockets.iter().map(UdpSocket::local_addr).collect::<io::Result<Vec<_>>>()?;
        let proxy = match settings.network {
            Network::Proxy(seed) => Some(Proxy::start(host, &addresses, seed)?),
            _ => None,
        };
        #[cfg(target_os = "linux")]
        let namespaces = match settings.network {
            Network::Namespaces => Some(Namespaces::make(settings.nodes)?),
            _ => None,
        };
        #[cfg(target_os = "linux")]
        if let Some(namespaces) = &namespaces {
            for (index, address) in addresses.iter_mut().enumerate() {
                address.set_ip(namespaces.address(index));
            }
        }
        let slots = addresses.into_iter().map(|listen| Slot { listen, process: Mutex::new(None) }).collect();
        let cluster = Self {
            settings,
            slots,
            proxy,
            #[cfg(target_os = "linux")]
            namespaces,
            directory,
            variables: Mutex::default(),
            places: Mutex::default(),
        };
        // Small, so that a short job sees many segments begin.
        cluster.configure("log.segment_bytes", "4MiB");
        Ok(cluster)
    }

    /// Make and start all nodes.
    pub fn start(settings: Settings) -> Result<Self, ClusterError> {
        let cluster = Self::prepare(settings)?;
        for index in 0..cluster.len() {
            cluster.start_node(index)?;
        }
        Ok(cluster)
    }

    /// How many nodes it has, running or not.
    #[expect(clippy::len_without_is_empty, reason = "a cluster has nodes")]
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Set a field of the configuration of every node started from here on, by its name in the configuration file.
    pub fn configure(&self, field: &str, value: &str) {
        let variable = format!("D_ENGINE__{}", field.replace('.', "__").to_uppercase());
        self.variables.lock().unwrap_or_else(PoisonError::into_inner).insert(variable, value.to_owned());
    }

    /// Put the data directory of node `index` somewhere else.
    pub fn place(&self, index: usize, path: PathBuf) {
        self.places.lock().unwrap_or_else(PoisonError::into_inner).insert(index, path);
    }

    /// The data directory of node `index`.
    pub fn data(&self, index: usize) -> PathBuf {
        let places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let usual = || self.directory().join(format!("node-{}", Self::id(index)));
        places.get(&index).cloned().unwrap_or_else(usual)
    }

    /// The proxy between the nodes.
    ///
    /// # Panics
    /// If the settings did not ask for one.
    pub fn proxy(&self) -> &Proxy {
        self.proxy.as_ref().expect("a cluster with a proxy")
    }

    /// The namespaces of the nodes.
    ///
    /// # Panics
    /// If the settings did not ask for them.
    #[cfg(target_os = "linux")]
    pub fn namespaces(&self) -> &Namespaces {
        self.namespaces.as_ref().expect("a cluster with namespaces")
    }

    /// Where all its files are.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Where node `index` listens.
    pub fn address(&self, index: usize) -> SocketAddr {
        self.slots[index].listen
    }

    /// The identity of the node at `index`.
    pub fn id(index: usize) -> u64 {
        index as u64 + 1
    }

    /// The log of the node at `index`.
    pub fn log(&self, index: usize) -> PathBuf {
        self.directory().join(format!("node-{}.log", Self::id(index)))
    }

    #[cfg(target_os = "linux")]
    fn program(&self, index: usize) -> Command {
        let Some(namespaces) = &self.namespaces else { return Command::new(&self.settings.program) };
        let mut command = namespaces.enter(index);
        command.arg(&self.settings.program);
        command
    }

    #[cfg(not(target_os = "linux"))]
    fn program(&self, _index: usize) -> Command {
        Command::new(&self.settings.program)
    }

    /// The command that runs node `index`.
    pub fn command(&self, index: usize) -> Command {
        let slot = &self.slots[index];
        let runtime = match self.settings.runtimes.of(index) {
            Runtime::Glommio => "glommio",
            Runtime::Tokio => "tokio",
        };
        let mut command = self.program(index);
        command.arg("node").args(["--runtime", runtime]);
        command.arg("--id").arg(Self::id(index).to_string());
        command.arg("--listen").arg(slot.listen.to_string());
        command.arg("--dir").arg(self.data(index));
        command.arg("--certificates").arg(self.directory().join("certificates"));
        command.arg("--parent").arg(std::process::id().to_string());
        for peer in (0..self.len()).filter(|peer| *peer != index) {
            let address =
                self.proxy.as_ref().map_or(self.slots[peer].listen, |proxy| proxy.address(index, peer));
            command.arg("--peer").arg(format!("{}={address}", Self::id(peer)));
        }
        command.envs(&*self.variables.lock().unwrap_or_else(PoisonError::into_inner));
        command
    }

    /// Start node `index`, which must not run. Call it from a thread that lives as long as the node shall.
    pub fn start_node(&self, index: usize) -> Result<Arc<NodeProcess>, ClusterError> {
        assert!(self.node(index).is_none(), "node {} runs already", Self::id(index));
        let started = NodeProcess::start(self.command(index), &self.log(index), PATIENCE);
        let process =
            Arc::new(started.map_err(|source| ClusterError::Start { id: Self::id(index), source })?);
        *self.slot(index) = Some(Arc::clone(&process));
        Ok(process)
    }

    fn slot(&self, index: usize) -> std::sync::MutexGuard<'_, Option<Arc<NodeProcess>>> {
        self.slots[index].process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The process of node `index`, if it was started and not killed.
    pub fn node(&self, index: usize) -> Option<Arc<NodeProcess>> {
        self.slot(index).clone()
    }

    /// SIGKILL node `index` and wait until it is gone.
    pub fn kill(&self, index: usize) {
        let process = self.slot(index).take();
        if let Some(process) = process {
            process.kill();
        }
    }

    /// SIGKILL all nodes, the last before the first has finished dying.
    pub fn kill_all(&self) {
        let processes: Vec<_> = (0..self.len()).filter_map(|index| self.slot(index).take()).collect();
        processes.iter().for_each(|process| process.send_kill());
        processes.iter().for_each(|process| process.kill());
    }

    /// Stop node `index` in order.
    pub fn stop(&self, index: usize) -> Result<(), String> {
        let process = self.slot(index).take();
        process.map_or(Ok(()), |process| process.stop(PATIENCE))
    }

    /// What node `index` says about itself, if it answers within `limit`.
    pub fn status(&self, index: usize, limit: Duration) -> Option<Status> {
        match self.node(index)?.ask(Ask::Status, limit).told {
            Told::Status(status) => Some(status),
            _ => None,
        }
    }

    fn seen(&self) -> Vec<(usize, Option<Status>)> {
        (0..self.len()).map(|index| (index, self.status(index, Duration::from_millis(500)))).collect()
    }

    /// Wait for a leader that answers; its index. Of several that think they lead, the one of the newest term.
    pub fn leader(&self, limit: Duration) -> Result<usize, ClusterError> {
        let deadline = Instant::now() + limit;
        loop {
            let seen = self.seen();
            let leaders = seen.iter().filter_map(|(index, status)| Some((*index, status.as_ref()?)));
            let newest = leaders.filter(|(_, status)| status.leads).max_by_key(|(_, status)| status.term);
            // A leader cut off from the rest may still think it leads; a newer term elsewhere tells.
            let term = seen.iter().filter_map(|(_, status)| status.as_ref()).map(|status| status.term).max();
            if let Some((index, status)) = newest
                && Some(status.term) == term
            {
                return Ok(index);
            }
            if Instant::now() >= deadline {
                return Err(ClusterError::NoLeader(limit, format!("{seen:?}")));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Wait until all running nodes follow one leader.
    pub fn agree(&self, limit: Duration) -> Result<(), ClusterError> {
        let deadline = Instant::now() + limit;
        loop {
            let seen = self.seen();
            let views = seen.iter().filter(|(index, _)| self.node(*index).is_some());
            let views: Option<Vec<_>> = views.map(|(_, s)| s.as_ref().map(|s| (s.term, s.leader))).collect();
            if views.is_some_and(|views| views.iter().all(|view| *view == views[0] && view.1 != 0)) {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(ClusterError::NoLeader(limit, format!("{seen:?}")));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Wait until all running nodes have applied the same: equal revisions and digests, twice the same. Only for a
    /// cluster that nobody writes to.
    pub fn settle(&self, limit: Duration) -> Result<Status, ClusterError> {
        let deadline = Instant::now() + limit;
        let mut before = None;
        loop {
            let seen: Vec<(usize, Option<Status>)> =
                self.seen().into_iter().filter(|(index, _)| self.node(*index).is_some()).collect();
            let states: Option<Vec<&Status>> = seen.iter().map(|(_, status)| status.as_ref()).collect();
            if let Some(states) = states
                && let Some(first) = states.first()
                && states.iter().all(|s| {
                    (s.revision, s.digest, s.applied) == (first.revision, first.digest, first.applied)
                })
            {
                let now = (first.revision, first.applied);
                if before.replace(now) == Some(now) {
                    return Ok((*first).clone());
                }
            }
            if Instant::now() >= deadline {
                return Err(ClusterError::Unequal(limit, format!("{seen:?}")));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Leave the directory behind, for a look at what went wrong; its path.
    pub fn keep(&mut self) -> PathBuf {
        self.directory.disable_cleanup(true);
        self.directory().to_path_buf()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // Before their directory goes.
        for index in 0..self.len() {
            self.kill(index);
        }
    }
}

/// Start a cluster, disturb it, report; what it wrote is kept if a promise was broken.
pub fn with_cluster(
    settings: Settings,
    mut report: Report,
    disturb: impl FnOnce(&Arc<Cluster>, &mut Report) -> Result<(), ClusterError>,
) -> Report {
    let mut cluster = match Cluster::start(settings) {
        Ok(cluster) => Arc::new(cluster),
        Err(error) => {
            report.violation(error.to_string());
            return report;
        }
    };
    if let Err(error) = disturb(&cluster, &mut report) {
        report.violation(error.to_string());
    }
    if !report.violations().is_empty()
        && let Some(cluster) = Arc::get_mut(&mut cluster)
    {
        report.fact("data and logs kept in", cluster.keep().display());
    }
    report
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clusters_have_addresses_of_their_own() {
        let below = tempfile::tempdir().unwrap();
        let make = || Cluster::prepare(Settings::three("true", Runtimes::Mixed, below.path())).unwrap();
        let (a, b) = (make(), make());
        let addresses: Vec<SocketAddr> = [&a, &b].iter().flat_map(|c| (0..3).map(|i| c.address(i))).collect();
        for (index, address) in addresses.iter().enumerate() {
            assert!(address.ip().is_loopback() && !addresses[index + 1..].contains(address));
        }
        assert_ne!(addresses[0].ip(), addresses[3].ip());
    }

    #[test]
    fn peers_are_reached_through_the_proxy() {
        let below = tempfile::tempdir().unwrap();
        let settings =
            Settings { network: Network::Proxy(1), ..Settings::three("x", Runtimes::Tokio, below.path()) };
        let cluster = Cluster::prepare(settings).unwrap();
        let arguments: Vec<String> =
            cluster.command(0).get_args().map(|a| a.to_string_lossy().into_owned()).collect();
        assert!(arguments.contains(&format!("2={}", cluster.proxy().address(0, 1))), "{arguments:?}");
        assert!(arguments.contains(&format!("3={}", cluster.proxy().address(0, 2))), "{arguments:?}");
        assert!(!arguments.iter().any(|argument| argument.starts_with("1=")), "{arguments:?}");
    }
}
