//! The process side of a job: one embedded engine that does what the lines of its stdin say.
//!
//! Every line is a call of its own, all are in flight together, answers leave in the order they come. Whatever the command
//! line leaves open is configured as in any program: by `D_ENGINE__...` in the environment.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, BufRead, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use clap::{Args, ValueEnum};
use d_engine::kv::{Event, Expected, Filter, KeyRange, KeyValue, Revision, WatchItem, WatchQuery};
use d_engine::prelude::*;
use d_engine::recipes::{Keeper, Lock};
use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};

use crate::cluster::{CLUSTER, Runtime as Driver};
use crate::process::STARTED;
use crate::stamp::Stamp;
use crate::talk::{self, Ask, Death, EVERYTHING, Effect, Expect, Found, Level, Line, Told};

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
    let home = Arc::new(Home {
        client: engine.client(),
        keeper: Keeper::new(engine.client()),
        watches: Mutex::default(),
    });
    let (answers, to_print) = channel();
    let printer = std::thread::spawn(move || print(&to_print));
    print_line(STARTED).map_err(|error| format!("stdout: {error}"))?;

    for line in io::stdin().lock().lines() {
        let line = line.map_err(|error| format!("stdin: {error}"))?;
        let Line { number, message: ask } = line.parse::<Line<Ask>>().map_err(|error| error.to_string())?;
        if ask == Ask::Stop {
            calls.block_on(engine.stop()).map_err(|error| error.to_string())?;
            drop(calls);
            drop(home);
            drop(answers);
            printer.join().map_err(|_| "the printing thread panicked".to_owned())?;
            return Ok(());
        }
        let (home, answers) = (Arc::clone(&home), answers.clone());
        calls.spawn(async move {
            let line = Line { number, message: home.answer(ask).await };
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

/// What the calls of one process share.
struct Home {
    client: EmbeddedClient,
    keeper: Keeper<EmbeddedClient>,
    /// Watches between two questions, by name.
    watches: Mutex<HashMap<String, Watch>>,
}

/// A question about a watch is answered after it has told so much.
struct Until {
    revisions: u64,
    wait: Duration,
}

impl Home {
    async fn answer(&self, ask: Ask) -> Told {
        match ask {
            Ask::Fill { prefix, keys, count } => self.fill(&prefix, keys, count).await,
            Ask::Follow { name, prefix, from, most, wait_ms } => {
                let query = WatchQuery::new(range(&prefix));
                let until = Until { revisions: most, wait: Duration::from_millis(wait_ms) };
                let mut told = (0, 0, 0_u64);
                let next = self.listen(name, query, from, until, |revision, events| {
                    told.0 += 1;
                    told.1 += events.len() as u64;
                    let sum = events.iter().map(|event| fingerprint(revision, event));
                    told.2 = sum.fold(told.2, u64::wrapping_add);
                });
                match next.await {
                    Ok(next) => Told::Followed { next, revisions: told.0, events: told.1, sum: told.2 },
                    Err(error) => no_read(&error),
                }
            }
            Ask::Deaths { name, prefix, from, wait_ms } => {
                let query = WatchQuery::new(range(&prefix)).only(Filter::Deletes).with_progress();
                let until = Until { revisions: 200, wait: Duration::from_millis(wait_ms) };
                let mut deaths = Vec::new();
                let next = self.listen(name, query, from, until, |revision, events| {
                    let seen = Stamp::now();
                    deaths.extend(events.iter().map(|event| Death {
                        key: String::from_utf8_lossy(event.key()).into_owned(),
                        revision,
                        seen,
                    }));
                });
                match next.await {
                    Ok(next) => Told::Gone { next, deaths },
                    Err(error) => no_read(&error),
                }
            }
            Ask::Lock { name, ttl_ms, hold_ms } => {
                self.hold(&name, Duration::from_millis(ttl_ms), Duration::from_millis(hold_ms)).await
            }
            ask => answer(&self.client, ask).await,
        }
    }

    /// Puts, and now and then a delete, as fast as they are answered.
    async fn fill(&self, prefix: &str, keys: u64, count: u64) -> Told {
        const IN_FLIGHT: usize = 512;
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let mut pipeline = self.client.pipeline();
        let (mut acknowledged, mut lost, mut sent) = (0, 0, 0);
        let mut done = Vec::new();
        while sent < count || pipeline.in_flight() > 0 {
            while sent < count && pipeline.in_flight() < IN_FLIGHT {
                let number = NUMBER.fetch_add(1, Ordering::Relaxed);
                let key = format!("{prefix}{}", number.wrapping_mul(0x9e37_79b9) % keys);
                let submitted = if number % 16 == 15 {
                    pipeline.delete(key)
                } else {
                    pipeline.put(key, format!("value-{number}"))
                };
                sent += 1;
                if submitted.is_err() {
                    lost += 1;
                    break;
                }
            }
            pipeline.next_batch(&mut done).await;
            for completion in done.drain(..) {
                match completion.result {
                    Ok(_) => acknowledged += 1,
                    Err(_) => lost += 1,
                }
            }
        }
        Told::Filled { acknowledged, lost }
    }

    /// Lets the watch of this name tell what it has, from a revision on: the first revision that it has not told.
    async fn listen(
        &self,
        name: String,
        query: WatchQuery,
        from: u64,
        until: Until,
        mut hear: impl FnMut(u64, &[Event]),
    ) -> Result<u64, WatchError> {
        let watches = || self.watches.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = watches().remove(&name).filter(|watch| watch.revision().0 + 1 == from);
        let mut watch = match kept {
            Some(watch) => watch,
            None => self.client.watch_with(query.from(Revision(from))).await?,
        };
        let end = tokio::time::Instant::now() + until.wait;
        let mut revisions = 0;
        while revisions < until.revisions {
            match tokio::time::timeout_at(end, watch.next()).await {
                Ok(Some(Ok(WatchItem::Events(events)))) => {
                    revisions += 1;
                    hear(events.revision.0, &events.events);
                }
                Ok(Some(Ok(WatchItem::Progress(_)))) => {}
                Ok(Some(Err(error))) => return Err(error),
                Ok(None) | Err(_) => break,
            }
        }
        let next = watch.revision().0 + 1;
        watches().insert(name, watch);
        Ok(next)
    }

    /// Takes a lock, has it for a while, lets it go.
    async fn hold(&self, name: &str, ttl: Duration, hold: Duration) -> Told {
        const PATIENCE: Duration = Duration::from_secs(5);
        let lock = Lock::new(&self.keeper, name).ttl(ttl);
        let guard = match lock.acquire_within(PATIENCE).await {
            Ok(Some(guard)) => guard,
            Ok(None) => return no_read(&"somebody else had it all the time"),
            Err(error) => return no_read(&error),
        };
        let token = guard.token().0;
        let from = Stamp::now();
        let mut until = from;
        while guard.is_held() {
            let now = Stamp::now();
            // Held at the look after this moment too: so it was held then.
            if guard.is_held() {
                until = now;
            }
            if now.since(from) >= hold {
                break;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        // Whether it could be let go is seen by who waits for it.
        let _ = guard.release().await;
        Told::Held { token, from, until }
    }
}

fn range(prefix: &str) -> KeyRange {
    if prefix == EVERYTHING { KeyRange::all() } else { KeyRange::prefix(prefix) }
}

/// The same for the same event on every node.
fn fingerprint(revision: u64, event: &Event) -> u64 {
    let mut hasher = DefaultHasher::new();
    revision.hash(&mut hasher);
    match event {
        Event::Put { new, .. } => (1, &new.key, &new.value, new.version).hash(&mut hasher),
        Event::Delete { key, .. } => (2, key).hash(&mut hasher),
    }
    hasher.finish()
}

async fn answer(client: &impl ClientApi, ask: Ask) -> Told {
    match ask {
        Ask::PutTtl { key, value, ttl_ms } => {
            match client.put_with_ttl(key, value, Duration::from_millis(ttl_ms)).await {
                Ok(done) => Told::Done { revision: done.revision.0 },
                Err(error) => no_write(&error),
            }
        }
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
        Ask::Fill { .. } | Ask::Follow { .. } | Ask::Deaths { .. } | Ask::Lock { .. } => {
            unreachable!("answered by the home of the calls")
        }
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
