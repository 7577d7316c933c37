//! Three engines as three processes of this program on the loopback, and what may be asked of them.
//!
//! Each node has its own data directory and its own certificate; the load runs inside the leader's process, as it does
//! in a program that embeds the engine. A node may be killed and started again on the data it left.

use crate::child::{Child, ChildError, PATIENCE, io_error};
use crate::outage::{Task, Told};
use crate::protocol::{Loaded, Order, Report, Snapshot};
use crate::workload::Workload;
use std::fs;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use thiserror::Error;

/// Why there is no answer from the cluster.
#[derive(Debug, Error)]
pub enum ClusterError {
    /// A node failed.
    #[error(transparent)]
    Node(#[from] ChildError),
    /// No node leads, or several say so, for too long.
    #[error("the nodes did not agree on one leader within {0:?}")]
    NoLeader(Duration),
}

/// How to start the nodes.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where data directories, certificates and logs go; made if missing.
    pub directory: PathBuf,
    /// How many nodes.
    pub nodes: u64,
    /// Arguments for every node: runtime, durability.
    pub arguments: Vec<String>,
    /// The core of each node's loop; empty leaves the choice to the engine.
    pub cores: Vec<usize>,
}

/// Running nodes; positions count from zero, the node at a position has the number one above it.
pub struct Cluster {
    plan: Plan,
    peers: String,
    nodes: Vec<Node>,
    /// Which runtime the nodes chose.
    pub runtime: String,
}

struct Node {
    child: Child,
    /// It was killed or told to stop.
    down: bool,
}

impl Cluster {
    /// Starts the nodes and waits until each knows a leader.
    pub fn start(plan: &Plan) -> Result<Self, ClusterError> {
        let addresses =
            free_addresses(plan.nodes).map_err(io_error("reserving UDP ports on the loopback"))?;
        let peers: Vec<String> =
            addresses.iter().zip(1..).map(|(address, id): (_, u64)| format!("{id}={address}")).collect();
        let certificates = plan.directory.join("certificates");
        fs::create_dir_all(&certificates).map_err(io_error(format!("making {}", certificates.display())))?;
        let mut cluster =
            Self { plan: plan.clone(), peers: peers.join(","), nodes: Vec::new(), runtime: String::new() };
        for id in 1..=plan.nodes {
            let child = cluster.spawn(id)?;
            cluster.nodes.push(Node { child, down: false });
        }
        let mut runtimes = Vec::new();
        for node in &mut cluster.nodes {
            runtimes.push(ready(&mut node.child, PATIENCE)?);
        }
        runtimes.dedup();
        cluster.runtime = runtimes.join("+");
        Ok(cluster)
    }

    fn spawn(&self, id: u64) -> Result<Child, ChildError> {
        let Plan { directory, arguments, cores, .. } = &self.plan;
        let mut command = Command::new(std::env::current_exe().map_err(io_error("finding this program"))?);
        command
            .args(["node", "--id", &id.to_string(), "--peers", &self.peers])
            .args([Path::new("--data"), &self.data(id)])
            .args([Path::new("--certificates"), &directory.join("certificates")])
            .args(arguments);
        let core = usize::try_from(id - 1).ok().and_then(|position| cores.get(position));
        if let Some(core) = core {
            command.args(["--core", &core.to_string()]);
        }
        Child::spawn(format!("node {id}"), &mut command, directory.join(format!("node-{id}.log")))
    }

    fn data(&self, id: u64) -> PathBuf {
        self.plan.directory.join(format!("node-{id}"))
    }

    /// Those that were not taken down.
    fn up(&mut self) -> impl Iterator<Item = (usize, &mut Child)> {
        let up = self.nodes.iter_mut().enumerate().filter(|(_, node)| !node.down);
        up.map(|(position, node)| (position, &mut node.child))
    }

    /// What every running node used so far, by position; asked of all before the first answer is read.
    pub fn snapshots(&mut self) -> Result<Vec<(usize, Snapshot)>, ClusterError> {
        for (_, node) in self.up() {
            node.order(&Order::Snapshot)?;
        }
        let snapshots = self.up().map(|(position, node)| Ok((position, node.snapshot()?)));
        snapshots.collect()
    }

    /// The position of the one node that leads.
    pub fn leader(&mut self) -> Result<usize, ClusterError> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let snapshots = self.snapshots()?;
            let mut leaders = snapshots.iter().filter(|(_, snapshot)| snapshot.leads);
            match (leaders.next(), leaders.next()) {
                (Some((position, _)), None) => return Ok(*position),
                _ if Instant::now() > deadline => return Err(ClusterError::NoLeader(PATIENCE)),
                _ => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    /// Makes the first node the leader, so that a pinned plan means the same in every run.
    pub fn lead_from_first(&mut self) -> Result<(), ClusterError> {
        match self.leader()? {
            0 => Ok(()),
            leader => Ok(self.nodes[leader].child.carry_out(&Order::Transfer { to: 1 })?),
        }
    }

    /// Writes every key of a workload once, from the node at `position`.
    pub fn fill(&mut self, position: usize, workload: &Workload) -> Result<(), ClusterError> {
        Ok(self.nodes[position].child.carry_out(&Order::Fill(*workload))?)
    }

    /// Makes what a load needs in the process of the node at `position`.
    pub fn prepare(&mut self, position: usize, workload: &Workload) -> Result<(), ClusterError> {
        Ok(self.nodes[position].child.carry_out(&Order::Prepare(*workload))?)
    }

    /// Runs what was prepared in the process of the node at `position`.
    pub fn load(&mut self, position: usize, slice: Duration) -> Result<Loaded, ClusterError> {
        Ok(self.nodes[position].child.load(slice)?)
    }

    /// Has the node at `position` carry out a task of a client.
    pub fn client(&mut self, position: usize, task: Task) -> Result<Told, ClusterError> {
        self.client_within(position, task, PATIENCE)
    }

    /// The same, of a task that takes longer than usual.
    pub fn client_within(
        &mut self,
        position: usize,
        task: Task,
        patience: Duration,
    ) -> Result<Told, ClusterError> {
        let node = &mut self.nodes[position].child;
        node.order(&Order::Client(task))?;
        match node.report(patience)? {
            Report::Client(told) => Ok(*told),
            other => Err(node.out_of_turn(&other).into()),
        }
    }

    /// The process of the node at `position`, unless it was taken down.
    pub fn pid(&self, position: usize) -> Option<u32> {
        self.nodes.get(position).filter(|node| !node.down).map(|node| node.child.pid())
    }

    /// Kills the node at `position` with SIGKILL. Its data stays.
    pub fn kill(&mut self, position: usize) -> Result<(), ClusterError> {
        let node = &mut self.nodes[position];
        node.down = true;
        Ok(node.child.kill()?)
    }

    /// Tells the node at `position` to stop in order. It has exited when it is started again.
    pub fn order_stop(&mut self, position: usize) -> Result<(), ClusterError> {
        let node = &mut self.nodes[position];
        node.down = true;
        Ok(node.child.order(&Order::Stop)?)
    }

    /// Starts a node again that was killed or stopped, on the data it left, and waits until it serves.
    pub fn start_again(&mut self, position: usize, patience: Duration) -> Result<(), ClusterError> {
        self.nodes[position].child.wait()?;
        let mut child = self.spawn(position as u64 + 1)?;
        ready(&mut child, patience)?;
        self.nodes[position] = Node { child, down: false };
        Ok(())
    }

    /// Stops every node in order.
    pub fn stop(mut self) -> Result<(), ClusterError> {
        for (_, node) in self.up() {
            node.order(&Order::Stop)?;
        }
        for (_, node) in self.up() {
            node.wait_for_exit()?;
        }
        Ok(())
    }
}

/// Waits until a node knows a leader; says which runtime it chose.
fn ready(node: &mut Child, patience: Duration) -> Result<String, ChildError> {
    match node.report(patience)? {
        Report::Ready { runtime } => Ok(runtime),
        other => Err(node.out_of_turn(&other)),
    }
}

/// Addresses that were free a moment ago. All are held at once so that they differ. None is of those that the kernel gives to
/// whoever asks for any port: a node that is killed finds its own free when it is started again.
fn free_addresses(count: u64) -> io::Result<Vec<SocketAddr>> {
    const PORTS: std::ops::Range<u16> = 20_000..32_000;
    // Clusters of two processes begin to look at different places.
    let begin = u16::try_from((std::process::id() % 4096) * 16 % u32::from(PORTS.end - PORTS.start))
        .expect("a part of the range");
    let ports = (PORTS.start + begin..PORTS.end).chain(PORTS.start..PORTS.start + begin);
    let mut sockets: Vec<UdpSocket> = Vec::new();
    for port in ports {
        match UdpSocket::bind(("127.0.0.1", port)) {
            Ok(socket) => sockets.push(socket),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => continue,
            Err(error) => return Err(error),
        }
        if sockets.len() as u64 == count {
            return sockets.iter().map(UdpSocket::local_addr).collect();
        }
    }
    Err(io::Error::new(io::ErrorKind::AddrInUse, format!("no {count} UDP ports of {PORTS:?} are free")))
}
