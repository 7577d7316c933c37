//! etcd, for comparison: three servers on the loopback as they come, and a generator that speaks its own API.
//!
//! The harness installs nothing: it looks for a program named `etcd` and says what to do when there is none. Writes go to
//! the leader's own address, which spares etcd the way from a follower; so do reads. Settings are etcd's defaults, flushes
//! before every acknowledgement among them, but for the room its data may take: at the default, a run would end in an
//! alarm.

pub mod client;
mod messages;
mod metrics;
mod timer;

use super::{Accounts, Act, System, SystemError, Timing, io_error};
use crate::child::{Child, PATIENCE, end_of, end_with_this_thread};
use crate::machine;
use crate::outage::{Stand, Task, Told};
use crate::protocol::{Loaded, Order, Report};
use crate::results::{Part, Promise, Spent, Subject};
use crate::usage::ProcessUsage;
use crate::workload::{Call, Pace, Workload};
use metrics::Metrics;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use thiserror::Error;

/// Its name in reports.
pub const NAME: &str = "etcd";
const NODES: usize = 3;
/// The most etcd recommends; its default of 2 GB is less than a long run writes.
const QUOTA_BYTES: u64 = 8 << 30;
/// Numbers of connections that are tried.
const CONNECTIONS: [usize; 4] = [1, 8, 32, 100];
/// In flight, where they are tried.
const DEPTHS: [usize; 4] = [1, 100, 1000, 8000];
/// Length of each try.
const TRY: Duration = Duration::from_millis(700);
/// etcd's own, as `etcd --help` says.
pub const DEFAULT_TIMING: Timing =
    Timing { heartbeat: Duration::from_millis(100), election: Duration::from_secs(1) };
/// Connections of a client that writes through a failure: more than it has writes in flight while all is well.
const FEW: usize = 8;

/// Why there is no etcd.
#[derive(Debug, PartialEq, Eq, Error)]
pub enum Missing {
    /// None on the path.
    #[error(
        "there is no program `etcd` on the PATH; on Debian or Ubuntu install it with `apt-get install etcd-server`, or name \
         one with --etcd-bin"
    )]
    NotFound,
    /// What was named does not run.
    #[error(
        "{program} does not say which etcd it is ({reason}); on Debian or Ubuntu install one with \
         `apt-get install etcd-server`, or name another with --etcd-bin"
    )]
    Unusable {
        /// The program.
        program: String,
        /// Why.
        reason: String,
    },
}

/// A program that is etcd.
#[derive(Clone, Debug)]
pub struct Binary {
    program: PathBuf,
    version: String,
}

impl Binary {
    /// Asks `named`, or the first `etcd` in the directories of `path` (the PATH of the environment), for its version. Runs
    /// nothing else.
    pub fn find(named: Option<&Path>, path: Option<&std::ffi::OsStr>) -> Result<Self, Missing> {
        let program = match named {
            Some(named) => named.to_owned(),
            None => path
                .into_iter()
                .flat_map(std::env::split_paths)
                .map(|directory| directory.join("etcd"))
                .find(|program| program.is_file())
                .ok_or(Missing::NotFound)?,
        };
        let unusable = |reason: String| Missing::Unusable { program: program.display().to_string(), reason };
        let mut command = Command::new(&program);
        without_environment(&mut command);
        let output = command.arg("--version").output().map_err(|error| unusable(error.to_string()))?;
        let text = String::from_utf8_lossy(&output.stdout);
        let version = text
            .lines()
            .find_map(|line| line.strip_prefix("etcd Version:"))
            .ok_or_else(|| unusable(format!("{}: {:?}", output.status, text.lines().next().unwrap_or(""))))?;
        Ok(Self { version: version.trim().to_owned(), program })
    }
}

/// etcd takes settings from variables too; what is measured must not depend on whose shell this is.
fn without_environment(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("ETCD_") {
            command.env_remove(name);
        }
    }
}

/// The cluster, if it runs.
pub struct Etcd {
    binary: Binary,
    timing: Timing,
    servers: Vec<Server>,
    client: Option<Child>,
    /// Which number of connections was best at which depth.
    best: BTreeMap<usize, usize>,
    /// Where the client is aimed at: a server's position, and connections.
    aim: Option<(usize, usize)>,
}

struct Server {
    name: String,
    arguments: Vec<String>,
    log: PathBuf,
    port: u16,
    /// `None` once it was killed.
    process: Option<std::process::Child>,
}

impl Etcd {
    /// Not started, with its own timing.
    pub fn new(binary: Binary) -> Self {
        Self::with_timing(binary, DEFAULT_TIMING)
    }

    /// Not started.
    pub fn with_timing(binary: Binary, timing: Timing) -> Self {
        Self { binary, timing, servers: Vec::new(), client: None, best: BTreeMap::new(), aim: None }
    }

    fn child(&mut self) -> Result<&mut Child, SystemError> {
        self.client.as_mut().ok_or(SystemError::Stopped(NAME))
    }

    /// The position of the one server that leads.
    fn the_leader(&mut self) -> Result<usize, SystemError> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let leaders: Vec<usize> = self
                .servers
                .iter()
                .enumerate()
                .filter(|(_, server)| server.metrics().is_ok_and(|metrics| metrics.leads()))
                .map(|(position, _)| position)
                .collect();
            if let [leader] = leaders[..] {
                return Ok(leader);
            }
            if Instant::now() > deadline {
                let server = self.servers.first_mut().ok_or(SystemError::Stopped(NAME))?;
                return Err(
                    server.failed(format!("and the others did not agree on a leader in {PATIENCE:?}"))
                );
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Points the client at the leader.
    fn aim(&mut self, connections: usize) -> Result<(), SystemError> {
        let leader = self.the_leader()?;
        self.aim_at(leader, connections)
    }

    /// Points the client at one server.
    fn aim_at(&mut self, position: usize, connections: usize) -> Result<(), SystemError> {
        if self.aim != Some((position, connections)) {
            let server = self.servers.get(position).ok_or(SystemError::Stopped(NAME))?;
            let endpoint = format!("http://127.0.0.1:{}", server.port);
            self.child()?.carry_out(&Order::Aim { endpoint, connections })?;
            self.aim = Some((position, connections));
        }
        Ok(())
    }

    /// The best number of connections at the nearest depth that was tried.
    fn connections(&self, depth: usize) -> usize {
        let distance = |tried: usize| (tried.max(1) as f64 / depth.max(1) as f64).ln().abs();
        let nearest = self.best.iter().min_by(|a, b| distance(*a.0).total_cmp(&distance(*b.0)));
        nearest.map_or_else(|| depth.clamp(1, 32), |(_, connections)| *connections)
    }
}

impl System for Etcd {
    fn subject(&self) -> Subject {
        let best: Vec<String> =
            self.best.iter().map(|(depth, count)| format!("{count} at {depth} in flight")).collect();
        let settings = [
            ("durability", "its default: flushed before the acknowledgement".to_owned()),
            (
                "generator",
                "one thread of a process of its own; gRPC (tonic), to the leader's address".to_owned(),
            ),
            ("connections", if best.is_empty() { "not calibrated".to_owned() } else { best.join(", ") }),
            ("--quota-backend-bytes", QUOTA_BYTES.to_string()),
        ];
        // What is changed is said; a default is not.
        let timing = (self.timing != DEFAULT_TIMING).then(|| ("timing", self.timing.to_string()));
        let settings = settings.into_iter().chain(timing);
        Subject {
            name: NAME.into(),
            version: self.binary.version.clone(),
            promise: Promise::FsyncQuorum,
            nodes: NODES,
            ours: false,
            settings: settings.map(|(name, value)| (name.to_owned(), value)).collect(),
        }
    }

    fn can(&self, call: Call) -> bool {
        call != Call::GetLease
    }

    fn start(&mut self, directory: &Path) -> Result<(), SystemError> {
        if machine::has_real_time_policy() {
            return Err(SystemError::RealTime("etcd"));
        }
        self.stop()?;
        fs::create_dir_all(directory).map_err(io_error(format!("making {}", directory.display())))?;
        let ports = free_ports(2 * NODES).map_err(io_error("reserving TCP ports on the loopback"))?;
        let peer = |position: usize| format!("http://127.0.0.1:{}", ports[NODES + position]);
        let name = |position: usize| format!("node{}", position + 1);
        let initial: Vec<String> =
            (0..NODES).map(|position| format!("{}={}", name(position), peer(position))).collect();
        for (position, &port) in ports.iter().enumerate().take(NODES) {
            let client = format!("http://127.0.0.1:{port}");
            let data = directory.join(name(position));
            let arguments = [
                ("--name", name(position)),
                ("--data-dir", data.display().to_string()),
                ("--listen-client-urls", client.clone()),
                ("--advertise-client-urls", client),
                ("--listen-peer-urls", peer(position)),
                ("--initial-advertise-peer-urls", peer(position)),
                ("--initial-cluster", initial.join(",")),
                ("--initial-cluster-state", "new".into()),
                ("--initial-cluster-token", "perf".into()),
                ("--logger", "zap".into()),
                ("--log-level", "error".into()),
                ("--quota-backend-bytes", QUOTA_BYTES.to_string()),
                ("--heartbeat-interval", self.timing.heartbeat.as_millis().to_string()),
                ("--election-timeout", self.timing.election.as_millis().to_string()),
            ];
            let mut server = Server {
                name: name(position),
                arguments: arguments.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]).collect(),
                log: directory.join(format!("{}.log", name(position))),
                port,
                process: None,
            };
            server.spawn(&self.binary.program)?;
            self.servers.push(server);
        }
        for server in &mut self.servers {
            server.wait_until_healthy()?;
        }
        if self.client.is_none() {
            let program = std::env::current_exe().map_err(io_error("finding this program"))?;
            let mut client = Child::spawn(
                "the client of etcd",
                Command::new(program).arg("etcd-client"),
                directory.join("client.log"),
            )?;
            match client.report(PATIENCE)? {
                Report::Ready { .. } => self.client = Some(client),
                other => return Err(client.out_of_turn(&other).into()),
            }
        }
        Ok(())
    }

    fn calibrate(&mut self, workloads: &[Workload]) -> Result<(), SystemError> {
        let deepest = workloads
            .iter()
            .filter_map(|workload| match workload.pace {
                Pace::Closed { in_flight } => Some(in_flight),
                Pace::Open { .. } => None,
            })
            .max()
            .unwrap_or(1);
        for depth in DEPTHS.into_iter().filter(|depth| *depth <= deepest.max(1)) {
            let mut rates = Vec::new();
            let candidates: BTreeSet<usize> =
                CONNECTIONS.into_iter().filter(|count| *count <= depth).collect();
            for connections in candidates {
                self.aim(connections)?;
                let client = self.child()?;
                client.carry_out(&Order::Prepare(Workload::closed(Call::Put, depth)))?;
                let loaded = client.load(TRY)?;
                let rate = loaded.operations as f64 / loaded.elapsed.as_secs_f64().max(1e-9);
                rates.push((rate, connections));
            }
            let best = rates.into_iter().max_by(|a, b| a.0.total_cmp(&b.0));
            self.best.extend(best.map(|(_, connections)| (depth, connections)));
        }
        Ok(())
    }

    fn fill(&mut self, workload: &Workload) -> Result<(), SystemError> {
        self.aim(self.connections(256))?;
        Ok(self.child()?.carry_out(&Order::Fill(*workload))?)
    }

    fn prepare(&mut self, workload: &Workload) -> Result<(), SystemError> {
        let depth = match (workload.call, workload.pace) {
            (Call::Watch { watchers }, _) => watchers as usize,
            (_, Pace::Closed { in_flight }) => in_flight,
            // Of a rate it can serve few are in flight, of one it cannot many: many connections hurt it less than few.
            (_, Pace::Open { .. }) => 1000,
        };
        self.aim(self.connections(depth))?;
        Ok(self.child()?.carry_out(&Order::Prepare(*workload))?)
    }

    fn load(&mut self, slice: Duration) -> Result<Loaded, SystemError> {
        Ok(self.child()?.load(slice)?)
    }

    fn accounts(&mut self) -> Result<Accounts, SystemError> {
        // A difference of accounts holds one reading of the counters, which costs each server a few milliseconds.
        let client = self.child()?;
        client.order(&Order::Snapshot)?;
        let snapshot = client.snapshot()?;
        let generator = Spent {
            part: Part::Generator,
            name: "generator".into(),
            usage: snapshot.usage,
            allocations: Some(snapshot.allocations),
            flushes: None,
            log_bytes: None,
            counters: BTreeMap::new(),
        };
        let (mut processes, mut leader, mut term) = (Vec::new(), None, 0);
        for (position, server) in self.servers.iter_mut().enumerate() {
            let Some(process) = &server.process else { continue };
            let usage = ProcessUsage::of(process.id()).unwrap_or_default();
            let metrics = server
                .metrics()
                .map_err(|error| server.failed(format!("does not tell its metrics: {error}")))?;
            if metrics.leads() {
                leader = Some(position);
            }
            term = term.max(metrics.leader_changes());
            processes.push(Spent {
                part: if metrics.leads() { Part::Leader } else { Part::Follower },
                name: format!("node {}", position + 1),
                usage,
                allocations: None,
                flushes: metrics.flushes(),
                log_bytes: metrics.log_bytes(),
                counters: metrics.counters(),
            });
        }
        processes.push(generator);
        Ok(Accounts { processes, leader, term })
    }

    fn cpu(&mut self) -> Result<Duration, SystemError> {
        let servers = self.servers.iter().filter_map(|server| server.process.as_ref());
        let pids = servers.map(std::process::Child::id).chain(self.client.as_ref().map(Child::pid));
        Ok(pids.filter_map(ProcessUsage::of).map(|usage| usage.cpu).sum())
    }

    fn timing(&self) -> Timing {
        self.timing
    }

    fn leader(&mut self) -> Result<usize, SystemError> {
        self.the_leader()
    }

    fn client(&mut self, position: usize, task: Task) -> Result<Told, SystemError> {
        if matches!(task, Task::Stand) {
            let server = self.servers.get(position).ok_or(SystemError::Stopped(NAME))?;
            let stand = server.metrics().map(|metrics| Stand {
                commit: metrics.decided(),
                applied: metrics.applied(),
                ..Stand::default()
            });
            return stand
                .map(Told::Stand)
                .map_err(|error| server.failed(format!("does not tell its metrics: {error}")));
        }
        // Its writer goes on with what it was aimed at when it began.
        if matches!(task, Task::Write { .. } | Task::ReadBack { .. }) {
            self.aim_at(position, FEW)?;
        }
        let client = self.child()?;
        client.order(&Order::Client(task))?;
        match client.report(PATIENCE)? {
            Report::Client(told) => Ok(*told),
            other => Err(client.out_of_turn(&other).into()),
        }
    }

    fn pid(&self, position: usize) -> Option<u32> {
        self.servers.get(position)?.process.as_ref().map(std::process::Child::id)
    }

    fn take_away(&mut self, position: usize, act: Act) -> Result<(), SystemError> {
        // Connections to it are gone, and those of the same aim would be them.
        self.aim = None;
        let server = self.servers.get_mut(position).ok_or(SystemError::Stopped(NAME))?;
        match act {
            Act::Kill => server.kill(),
            Act::Stop => server.terminate(),
        }
    }

    fn start_again(&mut self, position: usize) -> Result<(), SystemError> {
        let program = self.binary.program.clone();
        let server = self.servers.get_mut(position).ok_or(SystemError::Stopped(NAME))?;
        server.wait()?;
        server.spawn(&program)?;
        server.wait_until_healthy()
    }

    fn stop(&mut self) -> Result<(), SystemError> {
        // The data is of no use to anybody: there is nothing to hand over in order.
        self.aim = None;
        let client = self.client.take().map_or(Ok(()), |mut client| {
            client.order(&Order::Stop)?;
            client.wait_for_exit()
        });
        // All of them, whatever became of the client or of one of them.
        let servers: Vec<_> = self.servers.drain(..).map(|mut server| server.kill()).collect();
        client?;
        servers.into_iter().collect()
    }
}

impl Server {
    fn spawn(&mut self, program: &Path) -> Result<(), SystemError> {
        let log = File::options().create(true).append(true).open(&self.log);
        let log = log.map_err(io_error(format!("making {}", self.log.display())))?;
        let mut command = Command::new(program);
        without_environment(&mut command);
        end_with_this_thread(&mut command);
        let process = command
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .map_err(io_error(format!("starting {}", program.display())))?;
        self.process = Some(process);
        Ok(())
    }

    fn metrics(&self) -> io::Result<Metrics> {
        Metrics::of(self.port)
    }

    fn wait_until_healthy(&mut self) -> Result<(), SystemError> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if metrics::get(self.port, "/health").is_ok_and(|text| text.contains("\"health\":\"true\"")) {
                return Ok(());
            }
            let ended = self.process.as_mut().and_then(|process| process.try_wait().ok().flatten());
            if let Some(status) = ended {
                return Err(self.failed(format!("ended ({status})")));
            }
            if Instant::now() > deadline {
                return Err(self.failed(format!("was not healthy within {PATIENCE:?}")));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn kill(&mut self) -> Result<(), SystemError> {
        if let Some(mut process) = self.process.take() {
            process.kill().map_err(io_error(format!("killing etcd's {}", self.name)))?;
            process.wait().map_err(io_error(format!("waiting for etcd's {}", self.name)))?;
        }
        Ok(())
    }

    /// Tells it to stop in order.
    fn terminate(&mut self) -> Result<(), SystemError> {
        let Some(process) = &self.process else { return Ok(()) };
        let pid = i32::try_from(process.id()).ok().and_then(rustix::process::Pid::from_raw);
        let sent = pid.map(|pid| rustix::process::kill_process(pid, rustix::process::Signal::TERM));
        sent.unwrap_or(Ok(()))
            .map_err(|error| io_error(format!("stopping etcd's {}", self.name))(error.into()))
    }

    /// Waits until it is gone.
    fn wait(&mut self) -> Result<(), SystemError> {
        if let Some(mut process) = self.process.take() {
            process.wait().map_err(io_error(format!("waiting for etcd's {}", self.name)))?;
        }
        Ok(())
    }

    fn failed(&self, what: String) -> SystemError {
        SystemError::Server { server: format!("etcd's {}", self.name), what, log: end_of(&self.log) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Nothing may be left running; that it is gone already is no error.
        let _ = self.kill();
    }
}

/// Ports that were free a moment ago. All are held at once so that they differ.
fn free_ports(count: usize) -> io::Result<Vec<u16>> {
    let listeners: Vec<TcpListener> =
        (0..count).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<io::Result<_>>()?;
    listeners.iter().map(|listener| listener.local_addr().map(|address| address.port())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_etcd_says_what_to_install() {
        let empty = tempfile::tempdir().expect("a temporary directory");
        let missing = Binary::find(None, Some(empty.path().as_os_str())).expect_err("nothing there");
        assert_eq!(missing, Missing::NotFound);
        assert!(missing.to_string().contains("apt-get install etcd-server"), "{missing}");
        assert!(missing.to_string().contains("--etcd-bin"), "{missing}");
    }

    #[test]
    fn a_program_that_is_not_etcd_is_not_taken_for_it() {
        let missing = Binary::find(Some(Path::new("/bin/true")), None).expect_err("not etcd");
        assert!(matches!(&missing, Missing::Unusable { program, .. } if program == "/bin/true"), "{missing}");
        assert!(missing.to_string().contains("apt-get install etcd-server"), "{missing}");
    }

    #[test]
    fn connections_are_those_of_the_nearest_depth() {
        let mut etcd = Etcd::new(Binary { program: "etcd".into(), version: "0".into() });
        assert_eq!(etcd.connections(1), 1);
        etcd.best = [(1, 1), (100, 8), (1000, 32)].into();
        assert_eq!([1, 64, 400, 8000].map(|depth| etcd.connections(depth)), [1, 8, 32, 32]);
    }
}
