//! A node, to look at.

use crate::kv::Revision;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use wal::NodeId;

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

/// How much a node does at a time, and why it does so.
pub use crate::node::tuner::{Decision, Knob, Measured, Pace, Reason};

/// A tuner at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TunerStatus {
    /// What the 99th percentile of commit latency is to stay under.
    pub target: Duration,
    /// Rate and 99th percentile of the last interval that had enough commands to say.
    pub last: Option<Measured>,
    /// It has found nothing better to try under this load.
    pub at_rest: bool,
    /// The last decisions, the newest last, and how long ago each was made.
    pub decisions: Vec<(Duration, Decision)>,
}

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
    /// Client sessions that are open, or have expired and were not yet cleared away.
    pub sessions: usize,
    /// Leases.
    pub leases: usize,
    /// The oldest revision that can be read or watched from.
    pub oldest: Revision,
    /// Changes kept, one for each key of a revision from the oldest on.
    pub history_changes: usize,
    /// Bytes that are held for them: replaced and deleted values, keys, and what it costs to note a change.
    pub history_bytes: u64,
    /// Watches that are open on this node.
    pub watches: usize,
    /// The members of the group.
    pub members: Vec<Member>,
    /// Peers with a connection that is up.
    pub connected_peers: usize,
    /// It may lack entries that it acknowledged, because its disk was damaged or because it acknowledges from memory and
    /// did not stop in order; its peers have not given all of them back yet.
    pub repairing: bool,
    /// Which driver runs the node: `glommio` or `tokio`.
    pub runtime: &'static str,
    /// How much it does at a time.
    pub pace: Pace,
    /// What the tuner thinks of that, where one is on.
    pub tuner: Option<TunerStatus>,
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
    /// The longest of them: for so long did everything wait at worst.
    pub longest_turn: Duration,
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
