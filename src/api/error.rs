//! Why a call did not do what was asked: one type per kind of call, one variant per thing that a program can do about it.

use super::StopReason;
use crate::config::ConfigError;
use crate::kv::{CommandError, LeaseError, RevisionError, SessionError};
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;
use wal::NodeId;

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
    /// The rules or limits of leases: the lease is not there, its id is in use, a limit is reached. Nothing was written.
    #[error("{0}; nothing was written")]
    Lease(#[from] LeaseError),
    /// A compaction up to a revision that is not there yet, or that is no longer kept. Nothing was changed.
    #[error("{0}; nothing was changed")]
    Revision(#[from] RevisionError),
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
    /// No key can be that, or no page can be so small.
    #[error("{0}")]
    Refused(#[from] CommandError),
    /// The state that was asked for is no longer kept, or not there yet.
    #[error("{0}")]
    Revision(#[from] RevisionError),
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
