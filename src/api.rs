//! What a program sees of the engine whichever way it reaches it: calls, answers, errors.
//!
//! Every answer names the revision it reflects and the promise it carries. Every error of a write says whether the write
//! may have happened, by its variant and by [`WriteError::may_have_happened`].
//!
//! No type of an async runtime, of QUIC or of protobuf appears here. The futures are `Send`, are woken by plain wakers,
//! and work on any executor.

use crate::config::ConfigError;
use crate::kv::{CommandError, Expected, KeyValue, Page, Revision, SessionError};
use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;
use wal::NodeId;

pub use crate::config::{Durability, ReadLevel};

/// An answer and what it stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer<T> {
    /// What was asked for.
    pub value: T,
    /// The revision that the answer reflects: of the write itself, or of the store that was read. A write that changed
    /// nothing carries the store's.
    pub revision: Revision,
    /// What the acknowledgement promises. For a read: what its group promises for the writes that the read shows.
    pub durability: Durability,
}

impl<T> Answer<T> {
    /// The same answer with another value.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Answer<U> {
        Answer { value: change(self.value), revision: self.revision, durability: self.durability }
    }
}

/// What a compare-and-swap came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Swap {
    /// The key was as expected and has the new value.
    Done,
    /// The key was not as expected; nothing changed.
    Refused {
        /// What was there, `None` when the key is absent.
        current: Option<KeyValue>,
    },
}

impl Swap {
    /// Whether the new value is in place.
    #[must_use]
    pub fn is_done(&self) -> bool {
        matches!(self, Self::Done)
    }
}

/// Who leads, as far as a node knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Leadership {
    /// The newest term the node has seen.
    pub term: u64,
    /// Its leader, once known.
    pub leader: Option<NodeId>,
}

/// A member of the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Member {
    /// Its identity.
    pub id: NodeId,
    /// Whether it votes. A member that does not is a learner.
    pub votes: bool,
}

/// What a node is in its group.
pub use crate::raft::RoleName as Role;

/// A node at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Status {
    /// The node.
    pub id: NodeId,
    /// What it is in its group.
    pub role: Role,
    /// Who leads, as far as it knows.
    pub leadership: Leadership,
    /// Index of its last entry.
    pub last_index: u64,
    /// Everything up to here is decided.
    pub commit_index: u64,
    /// Everything up to here is in the store.
    pub applied_index: u64,
    /// The store's revision.
    pub revision: Revision,
    /// A hash over every change the store has seen, of sessions too: equal on all nodes at equal `applied_index`.
    pub digest: u128,
    /// Keys in the store.
    pub keys: usize,
    /// Bytes of all keys and values.
    pub bytes: u64,
    /// The members of the group.
    pub members: Vec<Member>,
    /// Peers with a connection that is up.
    pub connected_peers: usize,
    /// It may lack entries that it acknowledged, because its disk was damaged or because it acknowledges from memory and
    /// did not stop in order; its peers have not given all of them back yet.
    pub repairing: bool,
    /// Which driver runs the node: `glommio` or `tokio`.
    pub runtime: &'static str,
    /// Things counted since the start.
    pub counters: Counters,
}

/// Things counted since a node started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counters {
    /// Flushes of the log.
    pub flushes: u64,
    /// Bytes written to the log's files, padding included.
    pub disk_bytes: u64,
    /// Entries written to the log: batches.
    pub batches: u64,
    /// Turns of the loop.
    pub turns: u64,
    /// Times the loop slept.
    pub sleeps: u64,
    /// Times a caller's thread or task was woken.
    pub wakes: u64,
    /// Elections this node stood for.
    pub elections: u64,
    /// Lease reads served on the caller's thread.
    pub lease_reads: u64,
    /// Lease reads that became linearizable ones.
    pub lease_misses: u64,
    /// Calls refused because a queue was full.
    pub busy: u64,
    /// Messages of peers that could not be read, and were dropped.
    pub malformed: u64,
    /// Connection attempts turned away: wrong certificate, cluster, node or protocol.
    pub refused_connections: u64,
    /// Connections closed because a peer broke the protocol's rules, as with a message over the limit.
    pub violations: u64,
    /// Datagrams that belong to no connection and begin none: noise, plaintext, leftovers.
    pub ignored_datagrams: u64,
}

/// Why an engine does not run any more.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StopReason {
    /// It was asked to.
    Requested,
    /// It stopped itself, since going on would have been wrong: the disk failed, or an invariant did not hold.
    Failed(Arc<str>),
}

impl fmt::Display for StopReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Requested => f.write_str("it was stopped"),
            Self::Failed(reason) => f.write_str(reason),
        }
    }
}

/// Why the outcome of a write is not known.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Uncertainty {
    /// It was taken, and no answer came: the leader changed, its connection was lost, or the request timeout passed.
    NoAnswer,
    /// The engine stopped while the write was under way.
    Stopped(StopReason),
    /// It was sent in a session, no answer came, and the session had expired when it was sent again.
    SessionLost,
}

impl fmt::Display for Uncertainty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoAnswer => f.write_str("it was sent to the leader and no answer came back"),
            Self::Stopped(reason) => write!(f, "the engine stopped meanwhile ({reason})"),
            Self::SessionLost => {
                f.write_str("no answer came, and its session expired before it could be sent again")
            }
        }
    }
}

/// Why a write was not acknowledged.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum WriteError {
    /// A limit or a malformed argument. Nothing was written.
    #[error("{0}; nothing was written")]
    Refused(#[from] CommandError),
    /// The leader's limits do not admit it, or it does not fit into a batch. Nothing was written.
    #[error("{0}; nothing was written")]
    NotAllowed(String),
    /// The rules or limits of sessions. Nothing was written.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// Too many calls wait already. Nothing was written.
    #[error(
        "too many calls are waiting; nothing was written: try again when earlier calls have been answered"
    )]
    Busy,
    /// No leader took the write in time. Nothing was written.
    #[error(
        "no leader took the write within the request timeout; nothing was written: try again, and see that a majority \
         of the members run and reach each other"
    )]
    NoLeader,
    /// The engine has stopped. Nothing was written.
    #[error("the engine has stopped ({0}); nothing was written: start it again")]
    Stopped(StopReason),
    /// The write may have happened, or may still happen. Read before writing again, or use a compare-and-swap.
    #[error("whether the write happened is not known: {0}; read before you write again")]
    OutcomeUnknown(Uncertainty),
}

impl WriteError {
    /// Whether the write may be visible now or later. When not, it may simply be sent again.
    #[must_use]
    pub fn may_have_happened(&self) -> bool {
        matches!(self, Self::OutcomeUnknown(_))
    }
}

/// Why a read was not answered.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ReadError {
    /// No key can be that.
    #[error("{0}")]
    Refused(#[from] CommandError),
    /// Too many calls wait already.
    #[error("too many calls are waiting: try again when earlier calls have been answered")]
    Busy,
    /// No leader confirmed the read in time. An eventual read needs none.
    #[error(
        "no leader confirmed the read within the request timeout: try again, see that a majority of the members run and \
         reach each other, or read eventually consistent"
    )]
    NoLeader,
    /// The engine has stopped. Eventual reads of what was applied are still answered.
    #[error("the engine has stopped ({0}): start it again; eventual reads of what it had applied still work")]
    Stopped(StopReason),
}

/// Why an administrative call was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum AdminError {
    /// Too many calls wait already.
    #[error("too many calls are waiting: try again when earlier calls have been answered")]
    Busy,
    /// This node does not lead.
    #[error("only the leader can do that, and this node is not it{}", leader.map_or_else(String::new, |id| format!(": ask node {id}")))]
    NotLeader {
        /// Who leads, if known.
        leader: Option<NodeId>,
    },
    /// The group as it is does not allow it.
    #[error("{0}")]
    Refused(String),
    /// It did not happen in time. It may still.
    #[error(
        "it did not happen within the request timeout; it still may: look at the leader before trying again"
    )]
    Timeout,
    /// The engine has stopped.
    #[error("the engine has stopped ({0}): start it again")]
    Stopped(StopReason),
}

/// Why an engine did not start. Nothing runs then, and nothing is held.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StartError {
    /// The configuration was refused.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// There is no place for the data.
    #[error(
        "no data directory is configured: name one with node.data_dir, D_ENGINE__NODE__DATA_DIR or Builder::data_dir"
    )]
    NoDataDirectory,
    /// The data directory cannot be used.
    #[error(transparent)]
    Directory(#[from] wal::OpenError),
    /// The log could not be started.
    #[error(transparent)]
    Log(wal::LogError),
    /// An entry of the log cannot be used by this version.
    #[error("the log cannot be replayed: {0}")]
    Replay(String),
    /// The configured members do not make a group.
    #[error("node.peers does not make a group: {0}")]
    Members(String),
    /// There are peers and nothing to prove an identity to them with.
    #[error(
        "there are peers but no certificates: set tls.ca, tls.cert and tls.key with tls.mode = \"files\", or tls.dir \
         for development (Builder::certificates, Builder::development_certificates)"
    )]
    NoCertificates,
    /// The certificates cannot be used.
    #[error("the certificates cannot be used: {0}")]
    Certificates(String),
    /// The address to listen on is no address.
    #[error("cannot listen on {address}: {reason}; correct node.listen")]
    Unresolvable {
        /// The address as configured.
        address: String,
        /// The system's words.
        reason: String,
    },
    /// Somebody else listens there.
    #[error("UDP port {} of {} is in use: stop the other process or change node.listen", address.port(), address.ip())]
    PortInUse {
        /// The address.
        address: SocketAddr,
    },
    /// The system does not let this process listen there.
    #[error("cannot listen on {address}: {source}; correct node.listen")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The system's words.
        source: std::io::Error,
    },
    /// The system refused something an engine cannot do without.
    #[error("{what} failed: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// The system's words.
        source: std::io::Error,
    },
    /// It stopped before it ran.
    #[error("the engine stopped while it was starting: {0}")]
    Stopped(StopReason),
}

/// Why a node did not become ready.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ReadyError {
    /// Time was up.
    #[error(
        "no leader was found within {waited:?}: see that a majority of the members run and reach each other at the \
         configured addresses with certificates of one authority"
    )]
    Timeout {
        /// How long it waited.
        waited: Duration,
    },
    /// The engine stopped meanwhile.
    #[error("the engine has stopped ({0})")]
    Stopped(StopReason),
}

/// Why an engine did not stop in order.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum StopError {
    /// It had already stopped itself.
    #[error("the engine had stopped by itself: {0}")]
    Failed(Arc<str>),
}

/// How a session lives and how long its calls try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionOptions {
    /// How long it may be left unused before the store forgets it, from 10 ms to 24 h
    /// ([`SESSION_TIMEOUT`](crate::kv::SESSION_TIMEOUT)). Measured by the entries of the log: a time without any entry does
    /// not end it. Should be longer than the group may be without a leader.
    pub timeout: Duration,
    /// For how long a call is tried again. The last try may go on for the request timeout after it.
    pub patience: Duration,
}

impl Default for SessionOptions {
    /// Five minutes unused; calls are tried for 30 s.
    fn default() -> Self {
        Self { timeout: Duration::from_secs(300), patience: Duration::from_secs(30) }
    }
}

/// The writes of [`ClientApi`], each of which happens once: a call that got no answer is sent again by itself, over changes
/// of the leader, and is told what its first try was told (thesis 6.3).
///
/// A call does nothing before its future is polled. Dropping the future gives the call up: it may have happened, or may
/// happen until the next call of the session is answered, and not after that.
pub trait SessionApi: Send + Sync {
    /// Sets `key` to `value`, whatever it was.
    ///
    /// # Errors
    /// [`WriteError`]. [`OutcomeUnknown`](WriteError::OutcomeUnknown) only when patience or the engine ended, or the
    /// session expired while the call was tried again.
    fn put(
        &self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
    ) -> impl Future<Output = Result<Answer<()>, WriteError>> + Send;

    /// Removes `key`. The answer says whether it was there.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    fn delete(&self, key: impl AsRef<[u8]>) -> impl Future<Output = Result<Answer<bool>, WriteError>> + Send;

    /// Sets `key` to `new` if it is as `expected`. If it is not, the answer holds what was there. A swap is never refused
    /// by its own success.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    fn compare_and_swap(
        &self,
        key: impl AsRef<[u8]>,
        expected: Expected,
        new: impl AsRef<[u8]>,
    ) -> impl Future<Output = Result<Answer<Swap>, WriteError>> + Send;

    /// Ends the session now, instead of when it expires.
    ///
    /// # Errors
    /// [`WriteError`]; the session then expires by itself.
    fn close(self) -> impl Future<Output = Result<(), WriteError>> + Send;
}

/// The calls, the same for an embedded engine and for a remote one.
///
/// Keys have at least one byte; keys and values are limited by configuration. A call does nothing before its future is
/// polled. Dropping a future takes back nothing: a write that was under way may still happen.
pub trait ClientApi: Send + Sync {
    /// Writes that happen once.
    type Session: SessionApi;

    /// Sets `key` to `value`, whatever it was.
    ///
    /// # Errors
    /// [`WriteError`] says whether the write may have happened.
    fn put(
        &self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
    ) -> impl Future<Output = Result<Answer<()>, WriteError>> + Send;

    /// Removes `key`. The answer says whether it was there.
    ///
    /// # Errors
    /// [`WriteError`] says whether the removal may have happened.
    fn delete(&self, key: impl AsRef<[u8]>) -> impl Future<Output = Result<Answer<bool>, WriteError>> + Send;

    /// Sets `key` to `new` if it is as `expected`. If it is not, the answer holds what was there.
    ///
    /// # Errors
    /// [`WriteError`] says whether the swap may have happened.
    fn compare_and_swap(
        &self,
        key: impl AsRef<[u8]>,
        expected: Expected,
        new: impl AsRef<[u8]>,
    ) -> impl Future<Output = Result<Answer<Swap>, WriteError>> + Send;

    /// Opens a session, in which writes are tried again safely.
    ///
    /// # Errors
    /// [`WriteError`]; no session is open then, or only one that nobody uses and that expires.
    fn open_session(
        &self,
        options: SessionOptions,
    ) -> impl Future<Output = Result<Self::Session, WriteError>> + Send;

    /// What is stored under `key`, read at the configured level (linearizable unless configured otherwise).
    ///
    /// # Errors
    /// [`ReadError`] says what to do.
    fn get(
        &self,
        key: impl AsRef<[u8]>,
    ) -> impl Future<Output = Result<Answer<Option<KeyValue>>, ReadError>> + Send;

    /// What is stored under `key`, read at [`ReadLevel::Linearizable`].
    ///
    /// # Errors
    /// [`ReadError`] says what to do.
    fn get_linearizable(
        &self,
        key: impl AsRef<[u8]>,
    ) -> impl Future<Output = Result<Answer<Option<KeyValue>>, ReadError>> + Send;

    /// What is stored under `key`, read at [`ReadLevel::Lease`].
    ///
    /// # Errors
    /// [`ReadError`] says what to do.
    fn get_lease(
        &self,
        key: impl AsRef<[u8]>,
    ) -> impl Future<Output = Result<Answer<Option<KeyValue>>, ReadError>> + Send;

    /// What is stored under `key`, read at [`ReadLevel::Eventual`].
    ///
    /// # Errors
    /// [`ReadError`] says what to do.
    fn get_eventual(
        &self,
        key: impl AsRef<[u8]>,
    ) -> impl Future<Output = Result<Answer<Option<KeyValue>>, ReadError>> + Send;

    /// What is stored under each of `keys`, in their order and at one revision, read at the configured level.
    ///
    /// # Errors
    /// [`ReadError`] says what to do.
    fn get_multi(
        &self,
        keys: &[impl AsRef<[u8]> + Sync],
    ) -> impl Future<Output = Result<Answer<Vec<Option<KeyValue>>>, ReadError>> + Send;

    /// The first `limit` keys that start with `prefix`, in order, read at the configured level. An empty prefix is every
    /// key's. The page says whether there are more.
    ///
    /// # Errors
    /// [`ReadError`] says what to do.
    fn scan_prefix(
        &self,
        prefix: impl AsRef<[u8]>,
        limit: usize,
    ) -> impl Future<Output = Result<Answer<Page>, ReadError>> + Send;

    /// Hands leadership to `to`, and returns when it leads. Only the leader can.
    ///
    /// # Errors
    /// [`AdminError`] says what to do.
    fn transfer_leadership(&self, to: NodeId) -> impl Future<Output = Result<(), AdminError>> + Send;

    /// The members of the group as this node knows them.
    ///
    /// # Errors
    /// [`AdminError`] says what to do.
    fn members(&self) -> impl Future<Output = Result<Vec<Member>, AdminError>> + Send;

    /// What this node is doing.
    ///
    /// # Errors
    /// [`AdminError`] says what to do.
    fn status(&self) -> impl Future<Output = Result<Status, AdminError>> + Send;
}
