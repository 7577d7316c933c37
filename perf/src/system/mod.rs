//! A system under test: what the harness asks of every one of them, in the same words.
//!
//! Another peer joins by one more implementation; nothing else in the harness knows whom it measures.

pub mod embedded;
pub mod etcd;

use crate::child::ChildError;
use crate::cluster::ClusterError;
use crate::outage::{Stand, Task, Told};
use crate::protocol::Loaded;
use crate::results::{Part, Spent, Subject};
use crate::workload::{Call, Workload};
use std::fmt;
use std::io;
use std::path::Path;
use std::str::FromStr;
use std::time::{Duration, Instant};
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
    /// A client said something else than was asked.
    #[error("the client at node {} said {told}", position + 1)]
    OutOfTurn {
        /// At which node.
        position: usize,
        /// What it said.
        told: String,
    },
    /// A node did not get everything.
    #[error("node {} did not catch up within {patience:?}", position + 1)]
    Behind {
        /// Which.
        position: usize,
        /// How long was waited.
        patience: Duration,
    },
}

fn io_error(what: impl Into<String>) -> impl FnOnce(io::Error) -> SystemError {
    let what = what.into();
    move |source| SystemError::Io { what, source }
}

/// All processes of a system at one moment.
#[derive(Clone, Debug)]
pub struct Accounts {
    /// What each that runs has spent since it began: nodes, and the generator where it is a process of its own. Their names
    /// are their own.
    pub processes: Vec<Spent>,
    /// Position of the node that leads.
    pub leader: Option<usize>,
    /// Changes whenever leadership does.
    pub term: u64,
}

impl Accounts {
    /// What every process spent since `earlier`; one that was not there then is left out.
    pub fn since(&self, earlier: &Self) -> Vec<Spent> {
        let before = |now: &Spent| earlier.processes.iter().find(|then| then.name == now.name);
        self.processes.iter().filter_map(|now| Some(now.since(before(now)?))).collect()
    }

    /// Processor time of all processes since they began.
    pub fn cpu(&self) -> Duration {
        self.processes.iter().map(|spent| spent.usage.cpu).sum()
    }

    /// Bytes handed to the device since the nodes began.
    pub fn written_bytes(&self) -> u64 {
        let nodes = self.processes.iter().filter(|spent| spent.part != Part::Generator);
        nodes.filter_map(|spent| spent.usage.written_bytes).sum()
    }
}

/// How nodes know that their leader is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Between two signs of life.
    pub heartbeat: Duration,
    /// Without one for this long, and for up to as long again by chance, a node stands for election.
    pub election: Duration,
}

impl fmt::Display for Timing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [heartbeat, election] = [self.heartbeat, self.election].map(humantime::format_duration);
        write!(f, "heartbeat {heartbeat}, election {election}")
    }
}

impl FromStr for Timing {
    type Err = String;

    /// `10ms/100ms`
    fn from_str(text: &str) -> Result<Self, String> {
        let (heartbeat, election) =
            text.split_once('/').ok_or("a timing is written heartbeat/election, as 10ms/100ms")?;
        let parse =
            |text: &str| humantime::parse_duration(text).map_err(|error| format!("{text:?}: {error}"));
        Ok(Self { heartbeat: parse(heartbeat)?, election: parse(election)? })
    }
}

/// How a node goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Act {
    /// SIGKILL.
    Kill,
    /// Told to stop, in order.
    Stop,
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

    /// How its nodes know that their leader is gone.
    fn timing(&self) -> Timing;

    /// The position of the node that leads.
    fn leader(&mut self) -> Result<usize, SystemError>;

    /// Has a client that talks to the node at `position` alone carry out a task.
    fn client(&mut self, position: usize, task: Task) -> Result<Told, SystemError>;

    /// The process of the node at `position`, if it runs.
    fn pid(&self, position: usize) -> Option<u32>;

    /// Takes the node at `position` away; its data stays.
    fn take_away(&mut self, position: usize, act: Act) -> Result<(), SystemError>;

    /// Starts a node again that was taken away, on the data it left, and waits until it serves.
    fn start_again(&mut self, position: usize) -> Result<(), SystemError>;

    /// Stops everything in order.
    fn stop(&mut self) -> Result<(), SystemError>;
}

/// Where the node at `position` is.
pub fn stand(system: &mut (impl System + ?Sized), position: usize) -> Result<Stand, SystemError> {
    match system.client(position, Task::Stand)? {
        Told::Stand(stand) => Ok(stand),
        other => Err(SystemError::OutOfTurn { position, told: format!("{other:?}") }),
    }
}

/// Waits until the node at `position` has applied all that the one at `other` knows to be decided now; says how long that
/// took.
pub fn catch_up(
    system: &mut (impl System + ?Sized),
    position: usize,
    other: usize,
    patience: Duration,
) -> Result<Duration, SystemError> {
    let began = Instant::now();
    let goal = stand(system, other)?.commit;
    while stand(system, position)?.applied < goal {
        if began.elapsed() > patience {
            return Err(SystemError::Behind { position, patience });
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(began.elapsed())
}
