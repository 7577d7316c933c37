//! Three engines as three processes of this program on the loopback, and what may be asked of them.
//!
//! Each node has its own data directory and its own certificate; the load runs inside the leader's process, as it does
//! in a program that embeds the engine. A node that does not answer in time is an error with the end of its log, never
//! a hang. Processes end with the coordinator: they exit at the end of their standard input.

use crate::outage::{Task, Told};
use crate::protocol::{Load, Loaded, Order, Report, Snapshot};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};
use thiserror::Error;

/// How long a node may take for anything beyond the length of the load itself.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why there is no answer from the cluster.
#[derive(Debug, Error)]
pub enum ClusterError {
    /// The operating system refused.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// Its reason.
        source: io::Error,
    },
    /// A node exited or said nothing for too long.
    #[error("node {node} {what}; the end of its log:\n{log}")]
    Silent {
        /// Which.
        node: u64,
        /// What happened.
        what: String,
        /// Its last lines on standard error.
        log: String,
    },
    /// A node answered that it could not.
    #[error("node {node} could not carry out an order: {reason}")]
    Refused {
        /// Which.
        node: u64,
        /// Its words.
        reason: String,
    },
    /// A node answered something else than was asked.
    #[error("node {node} answered with {report}")]
    OutOfTurn {
        /// Which.
        node: u64,
        /// What it said.
        report: String,
    },
    /// No node leads, or several say so, for too long.
    #[error("the nodes did not agree on one leader within {0:?}")]
    NoLeader(Duration),
}

fn io_error(what: impl Into<String>) -> impl FnOnce(io::Error) -> ClusterError {
    let what = what.into();
    move |source| ClusterError::Io { what, source }
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

/// Running nodes.
pub struct Cluster {
    nodes: Vec<Node>,
    /// Which runtime the nodes chose.
    pub runtime: String,
}

impl Cluster {
    /// Starts the nodes and waits until each knows a leader.
    pub fn start(plan: &Plan) -> Result<Self, ClusterError> {
        let program = std::env::current_exe().map_err(io_error("finding this program"))?;
        let addresses =
            free_addresses(plan.nodes).map_err(io_error("reserving UDP ports on the loopback"))?;
        let peers: Vec<String> =
            addresses.iter().zip(1..).map(|(address, id): (_, u64)| format!("{id}={address}")).collect();
        let certificates = plan.directory.join("certificates");
        fs::create_dir_all(&certificates).map_err(io_error(format!("making {}", certificates.display())))?;
        let mut nodes = Vec::new();
        for id in 1..=plan.nodes {
            let mut command = Command::new(&program);
            command
                .args(["node", "--id", &id.to_string(), "--peers", &peers.join(",")])
                .args([Path::new("--data"), &plan.directory.join(format!("node-{id}"))])
                .args([Path::new("--certificates"), &certificates])
                .args(&plan.arguments);
            let core = usize::try_from(id - 1).ok().and_then(|number| plan.cores.get(number));
            if let Some(core) = core {
                command.args(["--core", &core.to_string()]);
            }
            nodes.push(Node::spawn(
                id,
                Program::of(&command),
                plan.directory.join(format!("node-{id}.log")),
            )?);
        }
        let mut runtimes = Vec::new();
        for node in &mut nodes {
            match node.report(PATIENCE)? {
                Report::Ready { runtime } => runtimes.push(runtime),
                other => return Err(node.out_of_turn(&other)),
            }
        }
        runtimes.dedup();
        Ok(Self { nodes, runtime: runtimes.join("+") })
    }

    /// What every node used so far, asked of all before the first answer is read.
    pub fn snapshots(&mut self) -> Result<Vec<Snapshot>, ClusterError> {
        for node in &mut self.nodes {
            node.order(&Order::Snapshot)?;
        }
        let mut snapshots = Vec::new();
        for node in &mut self.nodes {
            match node.report(PATIENCE)? {
                Report::Snapshot(snapshot) => snapshots.push(*snapshot),
                other => return Err(node.out_of_turn(&other)),
            }
        }
        Ok(snapshots)
    }

    /// The position of the one node that leads.
    pub fn leader(&mut self) -> Result<usize, ClusterError> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let snapshots = self.snapshots()?;
            let mut leaders = snapshots.iter().enumerate().filter(|(_, snapshot)| snapshot.leads);
            match (leaders.next(), leaders.next()) {
                (Some((position, _)), None) => return Ok(position),
                _ if Instant::now() > deadline => return Err(ClusterError::NoLeader(PATIENCE)),
                _ => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    /// Makes the first node the leader, so that a pinned plan means the same in every run.
    pub fn lead_from_first(&mut self) -> Result<(), ClusterError> {
        match self.leader()? {
            0 => Ok(()),
            leader => self.nodes[leader].carry_out(&Order::Transfer { to: 1 }),
        }
    }

    /// Writes every key once, from the node at `position`.
    pub fn fill(&mut self, position: usize) -> Result<(), ClusterError> {
        self.nodes[position].carry_out(&Order::Fill)
    }

    /// Runs a load in the process of the node at `position`.
    pub fn load(&mut self, position: usize, load: Load) -> Result<Loaded, ClusterError> {
        let node = &mut self.nodes[position];
        node.order(&Order::Load(load))?;
        match node.report(PATIENCE + load.slice)? {
            Report::Loaded(loaded) => Ok(*loaded),
            other => Err(node.out_of_turn(&other)),
        }
    }

    /// Has the node at `position` carry out a task of a client.
    pub fn client(&mut self, position: usize, task: Task) -> Result<Told, ClusterError> {
        let node = &mut self.nodes[position];
        node.order(&Order::Client(task))?;
        match node.report(PATIENCE)? {
            Report::Client(told) => Ok(*told),
            other => Err(node.out_of_turn(&other)),
        }
    }

    /// Kills the node at `position` with SIGKILL.
    pub fn kill(&mut self, position: usize) -> Result<(), ClusterError> {
        let node = &mut self.nodes[position];
        node.child.kill().map_err(io_error(format!("killing node {}", node.id)))
    }

    /// Tells the node at `position` to stop in order. It has exited when it is started again.
    pub fn order_stop(&mut self, position: usize) -> Result<(), ClusterError> {
        self.nodes[position].order(&Order::Stop)
    }

    /// Starts a node again that was killed or stopped, and waits until it serves; returns how long that took.
    pub fn start_again(&mut self, position: usize) -> Result<Duration, ClusterError> {
        let Node { id, child, program, log, .. } = &mut self.nodes[position];
        child.wait().map_err(io_error(format!("waiting for node {id}")))?;
        let began = Instant::now();
        let node = Node::spawn(*id, program.clone(), log.clone())?;
        self.nodes[position] = node;
        let node = &mut self.nodes[position];
        match node.report(PATIENCE)? {
            Report::Ready { .. } => Ok(began.elapsed()),
            other => Err(node.out_of_turn(&other)),
        }
    }

    /// Stops every node in order.
    pub fn stop(mut self) -> Result<(), ClusterError> {
        for node in &mut self.nodes {
            node.order(&Order::Stop)?;
        }
        for node in &mut self.nodes {
            node.wait_for_exit()?;
        }
        Ok(())
    }
}

/// What is started for a node, as often as needed.
#[derive(Clone)]
struct Program {
    path: OsString,
    arguments: Vec<OsString>,
}

impl Program {
    fn of(command: &Command) -> Self {
        Self {
            path: command.get_program().to_owned(),
            arguments: command.get_args().map(OsStr::to_owned).collect(),
        }
    }
}

struct Node {
    id: u64,
    child: Child,
    program: Program,
    orders: ChildStdin,
    reports: Receiver<String>,
    log: PathBuf,
}

impl Node {
    fn spawn(id: u64, program: Program, log: PathBuf) -> Result<Self, ClusterError> {
        let errors = File::options().create(true).append(true).open(&log);
        let errors = errors.map_err(io_error(format!("making {}", log.display())))?;
        let mut child = Command::new(&program.path)
            .args(&program.arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(errors)
            .spawn()
            .map_err(io_error(format!("starting node {id}")))?;
        let orders = child.stdin.take().expect("its input was piped");
        let output = child.stdout.take().expect("its output was piped");
        let (send, reports) = sync_channel(16);
        // Ends with the child's output.
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if send.send(line).is_err() {
                    break;
                }
            }
        });
        Ok(Self { id, child, program, orders, reports, log })
    }

    fn order(&mut self, order: &Order) -> Result<(), ClusterError> {
        let mut line = serde_json::to_string(order).expect("orders are plain data");
        line.push('\n');
        let sent = self.orders.write_all(line.as_bytes()).and_then(|()| self.orders.flush());
        sent.map_err(|error| self.silent(format!("takes no orders ({error})")))
    }

    /// For orders whose only answer is that they are done.
    fn carry_out(&mut self, order: &Order) -> Result<(), ClusterError> {
        self.order(order)?;
        match self.report(PATIENCE)? {
            Report::Done => Ok(()),
            other => Err(self.out_of_turn(&other)),
        }
    }

    fn report(&mut self, patience: Duration) -> Result<Report, ClusterError> {
        match self.reports.recv_timeout(patience) {
            Ok(line) => serde_json::from_str(&line).map_err(|error| ClusterError::OutOfTurn {
                node: self.id,
                report: format!("{line:?} ({error})"),
            }),
            Err(RecvTimeoutError::Timeout) => Err(self.silent(format!("said nothing for {patience:?}"))),
            Err(RecvTimeoutError::Disconnected) => {
                let status =
                    self.child.wait().map_or_else(|error| error.to_string(), |status| status.to_string());
                Err(self.silent(format!("ended ({status})")))
            }
        }
    }

    fn wait_for_exit(&mut self) -> Result<(), ClusterError> {
        // The reader of its output ends when the process does.
        match self.reports.recv_timeout(PATIENCE) {
            Ok(line) => return Err(ClusterError::OutOfTurn { node: self.id, report: line }),
            Err(RecvTimeoutError::Timeout) => return Err(self.silent("does not stop".into())),
            Err(RecvTimeoutError::Disconnected) => {}
        }
        let status = self.child.wait().map_err(io_error(format!("waiting for node {}", self.id)))?;
        if status.success() { Ok(()) } else { Err(self.silent(format!("ended ({status})"))) }
    }

    fn out_of_turn(&self, report: &Report) -> ClusterError {
        match report {
            Report::Failed { reason } => ClusterError::Refused { node: self.id, reason: reason.clone() },
            other => ClusterError::OutOfTurn { node: self.id, report: format!("{other:?}") },
        }
    }

    fn silent(&self, what: String) -> ClusterError {
        const LINES: usize = 20;
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let log = lines[lines.len().saturating_sub(LINES)..].join("\n");
        ClusterError::Silent { node: self.id, what, log }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // After a stop in order both find an ended process; otherwise nothing may be left running.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Addresses that were free a moment ago. All are held at once so that they differ.
fn free_addresses(count: u64) -> io::Result<Vec<SocketAddr>> {
    let sockets: Vec<UdpSocket> =
        (0..count).map(|_| UdpSocket::bind("127.0.0.1:0")).collect::<io::Result<_>>()?;
    sockets.iter().map(UdpSocket::local_addr).collect()
}
