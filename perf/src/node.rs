//! One engine in a process of its own, taking orders: `perf node`, started by the coordinator and by nobody else.

use crate::allocations;
use crate::generator::embedded::{self, Audience, Embedded};
use crate::generator::{self, Material};
use crate::outage;
use crate::protocol::{Counters, Loaded, Order, Report, Snapshot};
use crate::results::Promise;
use crate::usage::ProcessUsage;
use crate::wait::wait_for;
use crate::workload::{Call, Workload};
use d_engine::prelude::*;
use std::fmt;
use std::io::{self, BufRead, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

const CLUSTER: u128 = 0x0066_6972_7374_206c_6967_6874;
const READY_LIMIT: Duration = Duration::from_secs(20);

/// Which runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum RuntimeChoice {
    /// What the engine finds best here.
    Auto,
    /// Pinned, on io_uring.
    Glommio,
    /// Ordinary files and the reactor.
    Tokio,
}

impl RuntimeChoice {
    /// The engine's word for it.
    pub fn kind(self) -> Runtime {
        match self {
            Self::Auto => Runtime::Auto,
            Self::Glommio => Runtime::Glommio,
            Self::Tokio => Runtime::Tokio,
        }
    }
}

impl fmt::Display for RuntimeChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Glommio => "glommio",
            Self::Tokio => "tokio",
        })
    }
}

/// Which promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum DurabilityChoice {
    /// A majority flushed.
    DiskFirst,
    /// A majority has it in memory.
    MemFirst,
}

impl DurabilityChoice {
    /// What it is called in a report.
    pub fn promise(self) -> Promise {
        match self {
            Self::DiskFirst => Promise::FsyncQuorum,
            Self::MemFirst => Promise::MemoryQuorum,
        }
    }
}

impl fmt::Display for DurabilityChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::DiskFirst => "disk-first",
            Self::MemFirst => "mem-first",
        })
    }
}

/// `1=127.0.0.1:4000`
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    id: u64,
    address: SocketAddr,
}

impl FromStr for Peer {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (id, address) = text.split_once('=').ok_or("a peer is written id=address")?;
        Ok(Self {
            id: id.parse().map_err(|error| format!("id {id:?}: {error}"))?,
            address: address.parse().map_err(|error| format!("address {address:?}: {error}"))?,
        })
    }
}

/// The command line the coordinator writes.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    #[arg(long)]
    id: u64,
    #[arg(long, value_delimiter = ',')]
    peers: Vec<Peer>,
    #[arg(long)]
    data: PathBuf,
    #[arg(long)]
    certificates: PathBuf,
    #[arg(long, value_enum)]
    runtime: RuntimeChoice,
    #[arg(long, value_enum)]
    durability: DurabilityChoice,
    #[arg(long)]
    core: Option<usize>,
}

/// Starts the engine and obeys until told to stop, or until the orders end.
pub fn run(arguments: &Arguments) -> Result<(), String> {
    let mut out = io::stdout().lock();
    let mut say = |report: &Report| -> Result<(), String> {
        let line = serde_json::to_string(report).map_err(|error| error.to_string())?;
        writeln!(out, "{line}").and_then(|()| out.flush()).map_err(|error| error.to_string())
    };
    let engine = start(arguments)?;
    let client = engine.client();
    let status = wait_for(client.status()).map_err(|error| error.to_string())?;
    say(&Report::Ready { runtime: status.runtime.to_owned() })?;

    let mut calls = Calls { embedded: Embedded::new(client.clone()), client: client.clone(), prepared: None };
    let mut writer = outage::node::Client::new(&engine);
    for line in io::stdin().lock().lines() {
        let line = line.map_err(|error| error.to_string())?;
        let order: Order = serde_json::from_str(&line).map_err(|error| format!("order {line:?}: {error}"))?;
        let done = match order {
            Order::Snapshot => {
                snapshot(&engine, &client).map(|snapshot| Report::Snapshot(Box::new(snapshot)))
            }
            Order::Fill(workload) => {
                generator::fill(&mut calls.embedded, &Material::of(&workload)).map(|()| Report::Done)
            }
            Order::Prepare(workload) => calls.prepare(workload).map(|()| Report::Done),
            Order::Load { slice } => calls.load(slice).map(|loaded| Report::Loaded(Box::new(loaded))),
            Order::Aim { .. } => Err("a node calls itself and nobody else".into()),
            Order::Transfer { to } => wait_for(client.transfer_leadership(NodeId(to)))
                .map(|()| Report::Done)
                .map_err(|error| error.to_string()),
            Order::Client(task) => writer.carry_out(task).map(|told| Report::Client(Box::new(told))),
            Order::Stop => break,
        };
        say(&done.unwrap_or_else(|reason| Report::Failed { reason }))?;
    }
    wait_for(engine.stop()).map_err(|error| error.to_string())
}

/// The client side of the process.
struct Calls {
    client: EmbeddedClient,
    embedded: Embedded,
    prepared: Option<Prepared>,
}

struct Prepared {
    workload: Workload,
    material: Material,
    audience: Option<Audience>,
}

impl Calls {
    fn prepare(&mut self, workload: Workload) -> Result<(), String> {
        // Watches of an earlier load end first.
        self.prepared = None;
        let audience = match workload.call {
            Call::Watch { watchers } => Some(embedded::open(&self.client, watchers)?),
            _ => None,
        };
        self.prepared = Some(Prepared { workload, material: Material::of(&workload), audience });
        Ok(())
    }

    fn load(&mut self, slice: Duration) -> Result<Loaded, String> {
        let Prepared { workload, material, audience } =
            self.prepared.as_mut().ok_or("a load that was not prepared")?;
        match (workload.call, audience) {
            (Call::Watch { watchers }, Some(audience)) => {
                Ok(embedded::show(&self.client, audience, workload, watchers, slice))
            }
            _ => Ok(generator::run(&mut self.embedded, workload, slice, material)),
        }
    }
}

fn start(arguments: &Arguments) -> Result<EmbeddedEngine, String> {
    let me = arguments
        .peers
        .iter()
        .find(|peer| peer.id == arguments.id)
        .ok_or("the node is not among its peers")?;
    let mut builder = EmbeddedEngine::builder()
        .node_id(arguments.id)
        .cluster_id(CLUSTER)
        .data_dir(&arguments.data)
        .listen(me.address)
        .peers(arguments.peers.iter().map(|peer| (peer.id, peer.address)))
        .development_certificates(&arguments.certificates)
        .runtime(arguments.runtime.kind())
        .durability(match arguments.durability {
            DurabilityChoice::DiskFirst => Durability::DiskFirst,
            DurabilityChoice::MemFirst => Durability::MemFirst,
        });
    if let Some(core) = arguments.core {
        builder = builder.core(core);
    }
    let engine = wait_for(builder.start()).map_err(|error| error.to_string())?;
    outage::node::OPENED.store(outage::clock(), std::sync::atomic::Ordering::Relaxed);
    wait_for(engine.wait_ready(READY_LIMIT)).map_err(|error| error.to_string())?;
    Ok(engine)
}

fn snapshot(engine: &EmbeddedEngine, client: &EmbeddedClient) -> Result<Snapshot, String> {
    let counters = wait_for(client.status()).map_err(|error| error.to_string())?.counters;
    Ok(Snapshot {
        leads: engine.is_leader(),
        term: engine.leadership().term,
        usage: ProcessUsage::of_self(),
        allocations: allocations::so_far(),
        counters: Counters {
            flushes: counters.flushes,
            disk_bytes: counters.disk_bytes,
            batches: counters.batches,
            turns: counters.turns,
            sleeps: counters.sleeps,
            wakes: counters.wakes,
        },
    })
}
