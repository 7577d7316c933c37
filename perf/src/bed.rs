//! What `sweep` and `tune` measure on: three embedded nodes in this process, whose pace is set between slices, and one
//! thread that keeps puts in flight at the leader.
//!
//! One process, so that a change of pace costs nothing and a slice can be short. The nodes talk over QUIC on the loopback
//! and write to files of their own, as processes would; what differs is that they share an allocator and an address space.
//! What a slice cost is this process's: all nodes and the generator.

use crate::generator::embedded::Embedded;
use crate::generator::{self, Material};
use crate::node::{DurabilityChoice, RuntimeChoice};
use crate::protocol::Loaded;
use crate::usage::ProcessUsage;
use crate::wait::wait_for;
use crate::workload::{Call, VALUE_BYTES, Workload};
use d_engine::api::{Pace, Status};
use d_engine::prelude::*;
use hdrhistogram::Histogram;
use std::fmt::Display;
use std::io::Write;
use std::net::UdpSocket;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const NODES: u64 = 3;
const PATIENCE: Duration = Duration::from_secs(20);
/// Bytes of log after which the nodes are replaced by fresh ones: neither the disk's end nor a long log is what is measured.
const WORN_OUT: u64 = 6 << 30;

/// What may be chosen.
#[derive(clap::Args, Clone, Debug)]
pub struct Choices {
    /// Which runtime the nodes use.
    #[arg(long, value_enum, default_value_t = RuntimeChoice::Auto)]
    runtime: RuntimeChoice,
    /// What an acknowledgement promises.
    #[arg(long, value_enum, default_value_t = DurabilityChoice::DiskFirst)]
    pub durability: DurabilityChoice,
    /// Bytes of every value.
    #[arg(long, default_value_t = VALUE_BYTES)]
    pub value_bytes: usize,
    /// Where data goes, on the file system to be measured. Fresh directories are made in it and removed at the end.
    #[arg(long, default_value = "target/perf")]
    pub directory: PathBuf,
    /// Seed of the order of points.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

/// What went wrong, in words.
pub type Failure = String;

/// Any error in its own words.
pub fn text(error: impl Display) -> Failure {
    error.to_string()
}

/// A line of the report.
pub fn say(line: impl Display) {
    // Without a reader there is nobody to tell.
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// What a slice gave.
pub struct Taken {
    /// Puts that were acknowledged.
    pub operations: u64,
    /// From the first put to the last answer.
    pub elapsed: Duration,
    /// Nanoseconds.
    pub latencies: Histogram<u64>,
    /// Of all nodes and the generator.
    pub cpu: Duration,
    /// Of all nodes.
    pub flushes: u64,
    /// Batches of the leader.
    pub batches: u64,
}

impl Taken {
    /// Puts in a second.
    pub fn rate(&self) -> f64 {
        self.operations as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }

    /// A quantile of the latency, µs.
    pub fn micros(&self, quantile: f64) -> f64 {
        self.latencies.value_at_quantile(quantile) as f64 / 1e3
    }

    /// Processor time for a put, µs.
    pub fn cpu_micros(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.operations.max(1) as f64
    }

    /// Flushes of a node for a put.
    pub fn flushes_per_put(&self) -> f64 {
        self.flushes as f64 / NODES as f64 / self.operations.max(1) as f64
    }
}

/// Three nodes that run.
pub struct Bed {
    choices: Choices,
    target: Option<Duration>,
    engines: Vec<EmbeddedEngine>,
    directory: TempDir,
    material: Material,
    /// Times that fresh nodes took the place of worn out ones.
    pub renewals: usize,
}

impl Bed {
    /// Starts the nodes, with a tuner each if there is a target.
    pub fn start(choices: &Choices, target: Option<Duration>) -> Result<Self, Failure> {
        let (engines, directory) = start_nodes(choices, target)?;
        let choices = choices.clone();
        let material = Material::of(&Workload::closed(Call::Put, 1).with_values_of(choices.value_bytes));
        Ok(Self { choices, target, engines, directory, material, renewals: 0 })
    }

    /// The node that leads.
    fn leader(&self) -> Result<&EmbeddedEngine, Failure> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(leader) = self.engines.iter().find(|engine| engine.is_leader()) {
                return Ok(leader);
            }
            if Instant::now() > deadline {
                return Err(format!("no node leads after {PATIENCE:?}"));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The leader's status.
    pub fn status(&self) -> Result<Status, Failure> {
        wait_for(self.leader()?.status()).map_err(text)
    }

    /// Sets the pace of all nodes: whoever leads goes by it.
    pub fn set_pace(&self, pace: Pace) -> Result<(), Failure> {
        self.engines.iter().try_for_each(|engine| wait_for(engine.set_pace(pace)).map(drop).map_err(text))
    }

    /// Puts for a while, so many in flight. A slice in which a put failed, or leadership moved, is an error.
    pub fn slice(&mut self, in_flight: usize, length: Duration) -> Result<Taken, Failure> {
        let before = self.flushes()?;
        let (term, id) = (self.leader()?.leadership().term, self.leader()?.id());
        let batches = self.status()?.counters.batches;
        let client = self.leader()?.client();
        let cpu = ProcessUsage::of_self().cpu;
        let workload = Workload::closed(Call::Put, in_flight).with_values_of(self.choices.value_bytes);
        let loaded = generator::run(&mut Embedded::new(client), &workload, length, &mut self.material);
        let cpu = ProcessUsage::of_self().cpu.saturating_sub(cpu);
        if let Some((message, count)) = loaded.errors.first() {
            return Err(format!("{count} puts failed: {message}"));
        }
        let leadership = self.leader()?.leadership();
        if (leadership.term, leadership.leader) != (term, Some(id)) {
            return Err("leadership moved during a slice".into());
        }
        let flushes = self.flushes()? - before;
        let batches = self.status()?.counters.batches - batches;
        let Loaded { operations, elapsed, .. } = loaded;
        Ok(Taken { operations, elapsed, latencies: loaded.histogram(), cpu, flushes, batches })
    }

    fn flushes(&self) -> Result<u64, Failure> {
        let of = |engine: &EmbeddedEngine| wait_for(engine.status()).map(|status| status.counters.flushes);
        self.engines.iter().map(of).sum::<Result<u64, _>>().map_err(text)
    }

    /// Whether these nodes have written so much that fresh ones should go on.
    pub fn is_worn_out(&self) -> Result<bool, Failure> {
        let of = |engine: &EmbeddedEngine| wait_for(engine.status()).map(|status| status.counters.disk_bytes);
        Ok(self.engines.iter().map(of).sum::<Result<u64, _>>().map_err(text)? > WORN_OUT)
    }

    /// Fresh nodes in the place of worn out ones.
    pub fn renew(&mut self) -> Result<(), Failure> {
        self.stop()?;
        (self.engines, self.directory) = start_nodes(&self.choices, self.target)?;
        self.renewals += 1;
        Ok(())
    }

    /// Stops the nodes in order.
    pub fn stop(&mut self) -> Result<(), Failure> {
        self.engines.drain(..).try_for_each(|engine| wait_for(engine.stop()).map_err(text))
    }
}

fn start_nodes(
    choices: &Choices,
    target: Option<Duration>,
) -> Result<(Vec<EmbeddedEngine>, TempDir), Failure> {
    std::fs::create_dir_all(&choices.directory).map_err(text)?;
    let directory = tempfile::Builder::new().prefix("pace-").tempdir_in(&choices.directory).map_err(text)?;
    // All are held at once so that they differ.
    let sockets: Vec<UdpSocket> =
        (0..NODES).map(|_| UdpSocket::bind("127.0.0.1:0")).collect::<Result<_, _>>().map_err(text)?;
    let addresses: Vec<_> =
        sockets.iter().map(UdpSocket::local_addr).collect::<Result<_, _>>().map_err(text)?;
    drop(sockets);
    let mut engines = Vec::new();
    for id in 1..=NODES {
        let mut builder = EmbeddedEngine::builder()
            .without_environment()
            .node_id(id)
            .cluster_name("pace")
            .data_dir(directory.path().join(format!("node-{id}")))
            .peers((1..).zip(&addresses))
            .development_certificates(directory.path().join("certificates"))
            .runtime(choices.runtime.kind())
            .durability(match choices.durability {
                DurabilityChoice::DiskFirst => Durability::DiskFirst,
                DurabilityChoice::MemFirst => Durability::MemFirst,
            });
        if let Some(target) = target {
            builder = builder.target_p99(target);
        }
        engines.push(wait_for(builder.start()).map_err(text)?);
    }
    engines.iter().try_for_each(|engine| wait_for(engine.wait_ready(PATIENCE)).map_err(text))?;
    Ok((engines, directory))
}
