//! The process side of a job: one embedded engine that does what the lines of its stdin say.
//!
//! Every line is a call of its own, all are in flight together, answers leave in the order they come. Whatever the command
//! line leaves open is configured as in any program: by `D_ENGINE__...` in the environment.

use std::io::{self, BufRead, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};

use clap::{Args, ValueEnum};
use d_engine::kv::{Expected, KeyValue, Revision};
use d_engine::prelude::*;
use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};

use crate::cluster::{CLUSTER, Runtime as Driver};
use crate::process::STARTED;
use crate::talk::{self, Ask, Effect, Expect, Found, Level, Line, Told};

/// What a write promises before it is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Promise {
    DiskFirst,
    MemFirst,
}

/// Another node: `<id>=<address>`.
#[derive(Debug, Clone, Copy)]
pub struct Peer {
    id: u64,
    address: SocketAddr,
}

impl FromStr for Peer {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (id, address) = text.split_once('=').ok_or("expected <id>=<address>")?;
        Ok(Self {
            id: id.parse().map_err(|error| format!("id {id:?}: {error}"))?,
            address: address.parse().map_err(|error| format!("address {address:?}: {error}"))?,
        })
    }
}

/// The command line of a node.
#[derive(Debug, Clone, Args)]
pub struct NodeArguments {
    /// Its identity in the cluster.
    #[arg(long)]
    id: u64,
    /// The cluster's identity.
    #[arg(long, default_value_t = CLUSTER)]
    cluster: u128,
    /// Where it takes datagrams of its peers.
    #[arg(long)]
    listen: SocketAddr,
    /// Every other member.
    #[arg(long)]
    peer: Vec<Peer>,
    /// Its data directory.
    #[arg(long)]
    dir: PathBuf,
    /// The development authority's directory, shared by the nodes.
    #[arg(long)]
    certificates: PathBuf,
    /// Its driver.
    #[arg(long, value_enum)]
    runtime: Driver,
    /// What its acknowledgements promise.
    #[arg(long, value_enum, default_value = "disk-first")]
    durability: Promise,
    /// The process that drives it; without it, it leaves.
    #[arg(long)]
    parent: Option<i32>,
}

/// Run a node until it is told to stop, or left alone.
pub fn serve(arguments: &NodeArguments) -> Result<(), String> {
    let parent = arguments.parent.and_then(Pid::from_raw);
    set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|error| format!("parent death signal: {error}"))?;
    if parent.is_some() && getppid() != parent {
        return Err("the process that should drive this node is gone".into());
    }
    tracing_subscriber::fmt().with_writer(io::stderr).with_ansi(false).init();
    let calls = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(|error| format!("threads for the calls: {error}"))?;
    let engine = calls.block_on(start(arguments))?;
    let client = Arc::new(engine.client());
    let (answers, to_print) = channel();
    let printer = std::thread::spawn(move || print(&to_print));
    print_line(STARTED).map_err(|error| format!("stdout: {error}"))?;

    for line in io::stdin().lock().lines() {
        let line = line.map_err(|error| format!("stdin: {error}"))?;
        let Line { number, message: ask } = line.parse::<Line<Ask>>().map_err(|error| error.to_string())?;
        if ask == Ask::Stop {
            calls.block_on(engine.stop()).map_err(|error| error.to_string())?;
            drop(calls);
            drop(answers);
            printer.join().map_err(|_| "the printing thread panicked".to_owned())?;
            return Ok(());
        }
        let (client, answers) = (Arc::clone(&client), answers.clone());
        calls.spawn(async move {
            let line = Line { number, message: answer(&*client, ask).await };
            // The printer is gone only when the process is about to be.
            let _ = answers.send(line.to_string());
        });
    }
    // Whoever drove us is gone; nobody is left to tell.
    std::process::exit(0);
}

fn print_line(line: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(line.as_bytes())?;
    out.write_all(b"\n")?;
    out.flush()
}

/// Write what there is, then flush once.
fn print(lines: &Receiver<String>) {
    while let Ok(first) = lines.recv() {
        let mut text = first + "\n";
        for line in lines.try_iter() {
            text += &line;
            text.push('\n');
        }
        let mut out = io::stdout().lock();
        if out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_err() {
            // The reader is gone.
            std::process::exit(0);
        }
    }
}

async fn start(arguments: &NodeArguments) -> Result<EmbeddedEngine, String> {
    let runtime = match arguments.runtime {
        Driver::Glommio => d_engine::prelude::Runtime::Glommio,
        Driver::Tokio => d_engine::prelude::Runtime::Tokio,
    };
    let durability = match arguments.durability {
        Promise::DiskFirst => Durability::DiskFirst,
        Promise::MemFirst => Durability::MemFirst,
    };
    let itself = Peer { id: arguments.id, address: arguments.listen };
    let peers = arguments.peer.iter().chain([&itself]).map(|peer| (peer.id, peer.address));
    EmbeddedEngine::builder()
        .node_id(arguments.id)
        .cluster_id(arguments.cluster)
        .data_dir(&arguments.dir)
        .listen(arguments.listen)
        .peers(peers)
        .development_certificates(&arguments.certificates)
        .runtime(runtime)
        .durability(durability)
        .start()
        .await
        .map_err(|error| error.to_string())
}

fn found(value: Option<KeyValue>) -> Option<Found> {
    value.map(|value| Found {
        value: String::from_utf8_lossy(&value.value).into_owned(),
        modified: value.modify_revision.0,
    })
}

fn no_write(error: &WriteError) -> Told {
    let effect = if error.may_have_happened() { Effect::Maybe } else { Effect::None };
    Told::Failed { effect, why: error.to_string() }
}

fn no_read(error: &impl ToString) -> Told {
    Told::Failed { effect: Effect::None, why: error.to_string() }
}

async fn answer(client: &impl ClientApi, ask: Ask) -> Told {
    match ask {
        Ask::Put { key, value } => match client.put(key, value).await {
            Ok(done) => Told::Done { revision: done.revision.0 },
            Err(error) => no_write(&error),
        },
        Ask::Delete { key } => match client.delete(key).await {
            Ok(done) => Told::Deleted { revision: done.revision.0, existed: done.value },
            Err(error) => no_write(&error),
        },
        Ask::Swap { key, expect, new } => {
            let expected = match expect {
                Expect::Absent => Expected::Absent,
                Expect::Value(value) => Expected::Value(value.into()),
                Expect::Revision(revision) => Expected::Revision(Revision(revision)),
            };
            match client.compare_and_swap(key, expected, new).await {
                Ok(Answer { value: Swap::Done, revision, .. }) => Told::Swapped { revision: revision.0 },
                Ok(Answer { value: Swap::Refused { current }, revision, .. }) => {
                    Told::Differs { revision: revision.0, found: found(current) }
                }
                Err(error) => no_write(&error),
            }
        }
        Ask::Get { key, level } => {
            let value = match level {
                Level::Linearizable => client.get_linearizable(key).await,
                Level::Lease => client.get_lease(key).await,
                Level::Eventual => client.get_eventual(key).await,
            };
            match value {
                Ok(value) => Told::Value { revision: value.revision.0, found: found(value.value) },
                Err(error) => no_read(&error),
            }
        }
        Ask::Scan { prefix, limit } => match client.scan_prefix(prefix, limit).await {
            Ok(page) => {
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                let pairs =
                    page.value.items.iter().map(|item| (text(&item.key), text(&item.value))).collect();
                Told::Pairs { revision: page.revision.0, more: page.value.more, pairs }
            }
            Err(error) => no_read(&error),
        },
        Ask::Transfer { to } => match client.transfer_leadership(NodeId(to)).await {
            Ok(()) => Told::Done { revision: 0 },
            Err(error) => no_read(&error),
        },
        Ask::Status | Ask::Stop => match client.status().await {
            Ok(status) => Told::Status(talk::Status {
                term: status.leadership.term,
                leader: status.leadership.leader.map_or(0, |id| id.0),
                leads: status.role == d_engine::api::Role::Leader,
                revision: status.revision.0,
                applied: status.applied_index,
                digest: status.digest,
                refused: status.counters.refused_connections,
                malformed: status.counters.malformed,
                violations: status.counters.violations,
                ignored: status.counters.ignored_datagrams,
                connected: status.connected_peers as u64,
                flushes: status.counters.flushes,
                lease_reads: status.counters.lease_reads,
            }),
            Err(error) => no_read(&error),
        },
    }
}
