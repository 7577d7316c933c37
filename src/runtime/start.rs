//! From a configuration to a loop that turns, and from there to its end.
//!
//! The order of the steps is the order in which things are refused: certificates, data directory, addresses, port. A
//! start that fails leaves nothing behind but, on a first start, an empty log.

use super::awake::{self, Awake};
use super::bell::Clapper;
use super::disk::Disk;
use super::names::{self, Names, Place};
use super::network::Network;
use super::shared::{Shared, Sizes};
use super::socket::Socket;
use super::store::SharedStore;
use super::tuner::Tuning;
use super::turn::{Loop, Pieces};
use super::{clock, tokio};
use crate::api::{StartError, StopReason};
use crate::config::{Configuration, Durability, TlsMode, WakeLatency};
use crate::node::{self, Node};
use crate::raft::{self, Membership, Past, Restored};
use parking_lot::Mutex;
use std::any::Any;
use std::io;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::thread::JoinHandle;
use std::time::{Instant, SystemTime};
use transport::{DevelopmentAuthority, PeerAddress, PeerId, Tls, TlsFiles, Transport};
use wal::{Damage, Directory, GroupId, NodeId, PortableLog};

/// Bytes asked of the kernel for each direction of the socket.
const SOCKET_BYTES: usize = 8 << 20;
/// Datagrams between nodes of one machine, in bytes. Ten of them are one send, under the 65,507 bytes beyond which the
/// kernel loses everything in silence.
const LOOPBACK_DATAGRAM: u16 = 6_000;
/// Calls that may wait for the loop to take them; it takes thousands in a turn.
const QUEUE: usize = 1 << 16;

/// What to start.
#[derive(Clone, Debug)]
pub(crate) struct Order {
    pub(crate) configuration: Configuration,
    pub(crate) data_dir: PathBuf,
    /// Make an empty log where there is none.
    pub(crate) create: bool,
}

/// Why a driver cannot run here.
#[derive(Debug)]
pub(super) struct Unavailable(pub(super) String);

/// An engine on its way up.
pub(crate) struct Starting {
    pub(crate) shared: Arc<Shared>,
    pub(crate) thread: JoinHandle<()>,
    pub(crate) told: Arc<Told>,
}

/// Where the thread says how its start went, once.
#[derive(Default)]
pub(crate) struct Told(Mutex<Message>);

#[derive(Default)]
struct Message {
    result: Option<Result<Started, StartError>>,
    reader: Option<Waker>,
}

/// What a started engine says of itself.
#[derive(Clone, Debug)]
pub(crate) struct Started {
    /// Where it listens for peers.
    pub(crate) listening: Option<SocketAddr>,
    pub(crate) runtime: &'static str,
}

impl Told {
    fn tell(&self, result: Result<Started, StartError>) {
        let mut told = self.0.lock();
        told.result = Some(result);
        let waker = told.reader.take();
        drop(told);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    pub(crate) fn poll(&self, cx: &mut Context<'_>) -> Poll<Result<Started, StartError>> {
        let mut told = self.0.lock();
        if let Some(result) = told.result.take() {
            return Poll::Ready(result);
        }
        let replaced = told.reader.replace(cx.waker().clone());
        drop(told);
        drop(replaced);
        Poll::Pending
    }
}

/// Starts an engine on a thread of its own.
pub(crate) fn start(order: Order) -> Result<Starting, StartError> {
    let configuration = &order.configuration;
    let shared = Shared::new(&Sizes {
        queue: configuration.limits.pending_requests.min(QUEUE),
        limits: configuration.kv_limits(),
        watches: configuration.watch_limits(),
        retention: configuration.retention(),
        durability: configuration.durability,
    });
    let told = Arc::new(Told::default());
    let name = format!("d-engine-{}", configuration.node.id);
    let thread = std::thread::Builder::new()
        .name(name)
        .spawn({
            let (shared, told) = (Arc::clone(&shared), Arc::clone(&told));
            move || live(&order, &shared, &told)
        })
        .map_err(|error| StartError::System { what: "starting the engine's thread", source: error })?;
    Ok(Starting { shared, thread, told })
}

/// The life of an engine's thread.
fn live(order: &Order, shared: &Arc<Shared>, told: &Told) {
    let ended = catch_unwind(AssertUnwindSafe(|| start_and_turn(order, shared, told)));
    let reason = match ended {
        Ok(Ok(reason)) => reason,
        Ok(Err(error)) => {
            shared.close(&StopReason::Failed(error.to_string().into()));
            shared.publish_end();
            return told.tell(Err(error));
        }
        // Everything the loop owned was dropped on the way here: nothing is acknowledged after a broken invariant.
        Err(panic) => StopReason::Failed(format!("an invariant does not hold: {}", words(&*panic)).into()),
    };
    if let StopReason::Failed(failure) = &reason {
        tracing::error!(node = %order.configuration.node.id, "the engine has stopped itself: {failure}");
    }
    shared.close(&reason);
    shared.publish_end();
    // Heard only if the start itself panicked.
    told.tell(Err(StartError::Stopped(reason)));
}

fn words(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no reason given")
}

fn start_and_turn(order: &Order, shared: &Arc<Shared>, told: &Told) -> Result<StopReason, StartError> {
    let configuration = &order.configuration;
    let _awake = keep_awake(configuration)?;
    let seeds =
        Seeds::draw().map_err(|error| StartError::System { what: "drawing random seeds", source: error })?;
    let tls = if has_peers(configuration) { Some(certificates(order)?) } else { None };
    let (mut node, directory) = recover(order, shared, &seeds)?;
    node.set_pace(configuration.pace());
    let network = tls.map(|tls| open_network(configuration, tls, &seeds, shared)).transpose()?;
    let listening = network.as_ref().and_then(|network| network.local_addr().ok());
    let tuning = Tuning::new(configuration, &mut node);
    let parts = Parts { shared: Arc::clone(shared), node, network, tuning };
    let start = Begin { configuration, told, listening };
    drive(parts, directory, &start)
}

/// Held as long as the engine runs.
fn keep_awake(configuration: &Configuration) -> Result<Option<Awake>, StartError> {
    let WakeLatency::AtMost(latency) = configuration.runtime.wake_latency else { return Ok(None) };
    let asked = awake::ask(latency, Path::new(awake::DEVICE));
    asked.map(Some).map_err(|source| StartError::System {
        what: "asking the kernel for runtime.wake_latency at /dev/cpu_dma_latency (run as root, give the process access to \
               that file, or set it to \"any\")",
        source,
    })
}

/// A loop that lacks only its log.
struct Parts {
    shared: Arc<Shared>,
    node: Node<SharedStore>,
    network: Option<Network>,
    tuning: Option<Box<Tuning>>,
}

impl Parts {
    fn with<D: Disk>(self, disk: D, runtime: &'static str) -> Loop<D> {
        let Self { shared, node, network, tuning } = self;
        Loop::new(Pieces { shared, node, disk, network, tuning, runtime })
    }
}

struct Begin<'a> {
    configuration: &'a Configuration,
    told: &'a Told,
    listening: Option<SocketAddr>,
}

impl Begin<'_> {
    fn tell(&self, runtime: &'static str) {
        let node = self.configuration.node.id;
        tracing::info!(%node, runtime, listening = ?self.listening, "the engine runs");
        self.told.tell(Ok(Started { listening: self.listening, runtime }));
    }
}

/// Runs the driver that is configured, or the best this machine allows.
#[cfg(target_os = "linux")]
fn drive(parts: Parts, directory: Directory, begin: &Begin<'_>) -> Result<StopReason, StartError> {
    use super::disk::UringDisk;
    use super::glommio;
    use crate::config::RuntimeKind;

    let runtime = &begin.configuration.runtime;
    if runtime.kind == RuntimeKind::Tokio {
        return drive_tokio(parts, directory, begin);
    }
    let prepared = glommio::check().and_then(|()| glommio::prepare(runtime.core));
    let (executor, mut ring) = match prepared {
        Ok(prepared) => prepared,
        Err(Unavailable(why)) => {
            tracing::warn!("io_uring cannot be used, the engine runs on tokio instead: {why}");
            return drive_tokio(parts, directory, begin);
        }
    };
    let log = match wal::linux::UringLog::start(directory, &mut ring) {
        Ok(log) => log,
        Err(refused) => {
            let why = refused.refusal().to_string();
            drop((executor, ring));
            let directory = refused.into_directory().ok_or_else(|| StartError::Replay(why.clone()))?;
            tracing::warn!("io_uring cannot be used, the engine runs on tokio instead: {why}");
            return drive_tokio(parts, directory, begin);
        }
    };
    let clapper =
        Clapper::event().map_err(|error| StartError::System { what: "making an eventfd", source: error })?;
    parts.shared.bell.hang(clapper);
    begin.tell("glommio");
    let engine = parts.with(UringDisk { log, ring }, "glommio");
    let (engine, reason) = glommio::run(&executor, engine, runtime.spin);
    finish(engine, reason)
}

/// Runs the driver there is.
#[cfg(not(target_os = "linux"))]
fn drive(parts: Parts, directory: Directory, begin: &Begin<'_>) -> Result<StopReason, StartError> {
    drive_tokio(parts, directory, begin)
}

fn drive_tokio(parts: Parts, directory: Directory, begin: &Begin<'_>) -> Result<StopReason, StartError> {
    let system = |what| move |source| StartError::System { what, source };
    let runtime = tokio::runtime().map_err(system("making a tokio runtime"))?;
    let bell = Arc::clone(&parts.shared.bell);
    let log = PortableLog::start(directory, move || bell.strike()).map_err(StartError::Log)?;
    parts.shared.bell.hang(Clapper::notify());
    begin.tell("tokio");
    let (engine, reason) = tokio::run(&runtime, parts.with(log, "tokio"));
    finish(engine, reason)
}

fn finish<D: Disk>(engine: Loop<D>, reason: StopReason) -> Result<StopReason, StartError> {
    Ok(match engine.close() {
        Ok(()) => reason,
        Err(error) => StopReason::Failed(error.to_string().into()),
    })
}

fn has_peers(configuration: &Configuration) -> bool {
    configuration.node.peers.iter().any(|peer| peer.id != configuration.node.id)
}

/// Locks and reads the data directory, and replays it into a node.
fn recover(
    order: &Order,
    shared: &Arc<Shared>,
    seeds: &Seeds,
) -> Result<(Node<SharedStore>, Directory), StartError> {
    let configuration = &order.configuration;
    let (id, cluster) = (configuration.node.id, configuration.node.cluster.id());
    let mut options =
        wal::Options::new(&order.data_dir, wal::Identity { cluster, node: id, group: GroupId::FIRST });
    options.segment_bytes = configuration.log.segment_bytes.0;
    options.create = order.create;
    // Only peers can give back what a disk lost.
    options.damage = if has_peers(configuration) { Damage::Repairable } else { Damage::Refuse };
    options.allow_volatile = configuration.log.allow_volatile;
    let wal::Opened { mut recovered, directory } = wal::open(options)?;
    tracing::info!(node = %id, "{}", recovered.report());

    if let Some(held) = recovered.held() {
        tracing::warn!(
            node = %id,
            "the log was damaged: what is whole, up to entry {} of term {}, is kept; it may have held up to {held}; the \
             peers give back what is missing, and until then this node votes only for one that has it",
            recovered.last().index,
            recovered.last().term
        );
    }
    let past = Past {
        in_memory: configuration.durability == Durability::MemFirst,
        was_in_memory: memory_mark::is_set(&order.data_dir)?,
        was_clean: recovered.was_clean(),
        term: recovered.hard_state().term,
        last: recovered.last().index,
        held: recovered.held(),
    };
    let standing = past.standing();
    let mark = if past.is_marked() { memory_mark::Mark::Set } else { memory_mark::Mark::Absent };
    memory_mark::set(&order.data_dir, mark)?;
    let restored = Restored {
        hard_state: recovered.hard_state(),
        commit: recovered.commit(),
        standing,
        held: recovered.held(),
    };
    let machine = SharedStore::new(Arc::clone(&shared.store), configuration.kv_limits());
    let mut restoring = Node::restoring(
        consensus(configuration, seeds),
        node_limits(configuration),
        seeds.incarnation,
        machine,
        restored,
    );
    for frame in recovered.frames() {
        restoring.push(frame?).map_err(|halt| StartError::Replay(halt.to_string()))?;
    }
    let mut voters: Vec<NodeId> = configuration.node.peers.iter().map(|peer| peer.id).collect();
    if voters.is_empty() {
        voters.push(id);
    }
    let founders = Membership::of_voters(voters).map_err(|error| StartError::Members(error.to_string()))?;
    Ok((restoring.begin(clock::now(), &founders), directory))
}

/// A file beside the log that says: this node has acknowledged from memory since its last clean end.
mod memory_mark {
    use super::StartError;
    use std::fs::File;
    use std::io;
    use std::path::Path;

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(super) enum Mark {
        Set,
        Absent,
    }

    fn failed(source: io::Error) -> StartError {
        StartError::System { what: "noting in the data directory how the node acknowledges", source }
    }

    pub(super) fn is_set(directory: &Path) -> Result<bool, StartError> {
        directory.join(wal::MEMORY_MARK).try_exists().map_err(failed)
    }

    /// Durable when it returns: the first acknowledgement comes later.
    pub(super) fn set(directory: &Path, mark: Mark) -> Result<(), StartError> {
        let path = directory.join(wal::MEMORY_MARK);
        let changed = match (mark, is_set(directory)?) {
            (Mark::Set, false) => File::create(&path).and_then(|file| file.sync_all()),
            (Mark::Absent, true) => std::fs::remove_file(&path),
            _ => return Ok(()),
        };
        changed.and_then(|()| File::open(directory)?.sync_all()).map_err(failed)
    }
}

/// Entries that may be acknowledged before they are on this node's disk: by its own word (`MemFirst`) or by the disks of
/// others (a `DiskFirst` leader).
const UNFLUSHED_ENTRIES: u64 = 32;

fn consensus(configuration: &Configuration, seeds: &Seeds) -> raft::Config {
    raft::Config {
        id: configuration.node.id,
        cluster: configuration.node.cluster.id(),
        group: GroupId::FIRST,
        seed: seeds.node,
        heartbeat: configuration.raft.heartbeat,
        election_timeout: configuration.raft.election_timeout,
        promise: configuration.promise(),
        drift_bound_ppm: configuration.raft.drift_bound.0,
        append_bytes: configuration.limits.batch_bytes.as_usize(),
        in_flight_bytes: configuration.limits.inflight_bytes.as_usize(),
        durability: match configuration.durability {
            Durability::DiskFirst => raft::Durability::DiskFirst,
            Durability::MemFirst => raft::Durability::MemFirst,
        },
        unflushed_entries: UNFLUSHED_ENTRIES,
    }
}

fn node_limits(configuration: &Configuration) -> node::Limits {
    let limits = &configuration.limits;
    node::Limits {
        batch_bytes: limits.batch_bytes.as_usize(),
        batches_in_flight: limits.batches_in_flight as u64,
        cache_bytes: limits.cache_bytes.as_usize(),
        pending_requests: limits.pending_requests,
        pending_bytes: limits.pending_bytes.as_usize(),
        request_timeout: configuration.raft.request_timeout,
    }
}

/// The node's certificate, its key and their authority.
fn certificates(order: &Order) -> Result<Tls, StartError> {
    let configuration = &order.configuration;
    let tls = &configuration.tls;
    let cluster = configuration.node.cluster.id().0;
    let node = PeerId(configuration.node.id.0);
    match (tls.mode, &tls.ca, &tls.cert, &tls.key) {
        (TlsMode::Files, Some(authority), Some(certificate), Some(key)) => {
            let files =
                TlsFiles { authority: authority.clone(), certificate: certificate.clone(), key: key.clone() };
            let identity = transport::Identity { cluster, node };
            Tls::from_files(&files, identity, SystemTime::now())
                .map_err(|error| StartError::Certificates(error.to_string()))
        }
        _ => {
            let dir = tls.dir.clone().ok_or(StartError::NoCertificates)?;
            DevelopmentAuthority::open_or_create(dir, cluster)
                .and_then(|authority| authority.issue(node))
                .map_err(|error| StartError::Certificates(error.to_string()))
        }
    }
}

/// Binds the socket and starts dialing.
fn open_network(
    configuration: &Configuration,
    tls: Tls,
    seeds: &Seeds,
    shared: &Arc<Shared>,
) -> Result<Network, StartError> {
    let written = configuration.listen_address().to_string();
    let address = names::listen_address(&written)
        .map_err(|reason| StartError::Unresolvable { address: written.clone(), reason })?;
    let socket = Socket::bind(address, SOCKET_BYTES).map_err(|error| bind_error(address, error))?;

    let own = configuration.node.id;
    let places = configuration.node.peers.iter().filter(|peer| peer.id != own);
    let places = places.map(|peer| Place { peer: peer.id, written: peer.address.to_string() }).collect();
    let (names, known) = Names::start(places, names::wake_by(&shared.bell));
    let peers: Vec<_> =
        known.iter().map(|found| PeerAddress { id: PeerId(found.peer.0), address: found.address }).collect();

    let mut config = transport::Config::new(tls, seeds.incarnation, SystemTime::now(), seeds.transport);
    config.peers.clone_from(&peers);
    config.max_message = configuration.limits.message_bytes.as_usize();
    config.queue_bytes = config.queue_bytes.max(config.max_message * 2);
    config.receive_bytes = config.receive_bytes.max(config.max_message * 4);
    config.max_segments = socket.max_segments();
    let nearby = address.ip().is_loopback() && peers.iter().all(|peer| peer.address.ip().is_loopback());
    if nearby {
        config.initial_datagram = LOOPBACK_DATAGRAM;
        config.max_datagram = LOOPBACK_DATAGRAM;
    }
    let transport = Transport::new(config, Instant::now())
        .map_err(|error| StartError::Certificates(error.to_string()))?;
    Ok(Network::new(transport, socket, names, peers))
}

fn bind_error(address: SocketAddr, source: io::Error) -> StartError {
    match source.kind() {
        io::ErrorKind::AddrInUse => StartError::PortInUse { address },
        _ => StartError::Listen { address, source },
    }
}

/// What the operating system's randomness decides, drawn once per start.
struct Seeds {
    node: u64,
    incarnation: u64,
    transport: [u8; 32],
}

impl Seeds {
    fn draw() -> io::Result<Self> {
        let mut bytes = [0; 48];
        io::Read::read_exact(&mut std::fs::File::open(Path::new("/dev/urandom"))?, &mut bytes)?;
        let (node, rest) = bytes.split_first_chunk::<8>().expect("48 bytes");
        let (incarnation, rest) = rest.split_first_chunk::<8>().expect("40 bytes");
        Ok(Self {
            node: u64::from_le_bytes(*node),
            incarnation: u64::from_le_bytes(*incarnation),
            transport: *rest.first_chunk().expect("32 bytes"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mark_is_where_it_was_put() {
        let directory = tempfile::tempdir().expect("a directory");
        for mark in [memory_mark::Mark::Set, memory_mark::Mark::Set, memory_mark::Mark::Absent] {
            memory_mark::set(directory.path(), mark).expect("set");
            let is_set = memory_mark::is_set(directory.path()).expect("looked at");
            assert_eq!(is_set, mark == memory_mark::Mark::Set);
        }
    }
}
