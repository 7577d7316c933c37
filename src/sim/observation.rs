//! What happens in a run, as the judges are told. The world tells, in the order of its one clock; nobody answers.
//!
//! Judges see more than any node could: every node's state, what every disk would still hold if the power went now, and
//! what every client was told.

use crate::kv::{self, Store};
use crate::node::{Message, Node};
use crate::raft::Durability;
use std::fmt;
use wal::{EntryId, HardState, LogIndex, NodeId};

/// A point on the world's own clock, in nanoseconds since the run began. Nodes see it through clocks that drift.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(pub u64);

impl Instant {
    /// Nanoseconds in a millisecond.
    pub const MILLISECOND: u64 = 1_000_000;
}

impl fmt::Display for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let microseconds = self.0 / 1_000;
        write!(f, "{}.{:06}", microseconds / 1_000_000, microseconds % 1_000_000)
    }
}

/// A client of the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(pub u64);

/// One operation of a client: it may be tried several times, at several nodes, and ends once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(pub u64);

/// What a power cut now would certainly leave on a node's disk: everything flushed, nothing else. Kept by the disk
/// model from completed flushes, beside the bytes and without looking at them.
#[derive(Clone, Debug, Default)]
pub struct Truth {
    /// Term and vote.
    pub hard_state: HardState,
    /// Entries 1, 2, … as flushed, superseded ones replaced.
    pub log: Vec<EntryId>,
    /// The newest commit index that a flushed write carried.
    pub commit: LogIndex,
    /// Flushed entries from this index on may be damaged: a fault was put there.
    pub damaged_from: Option<LogIndex>,
}

impl Truth {
    /// The flushed entry at `index`.
    #[must_use]
    pub fn entry(&self, index: LogIndex) -> Option<EntryId> {
        let at = usize::try_from(index.0.checked_sub(1)?).ok()?;
        self.log.get(at).copied()
    }
}

/// What a start found on the disk.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// The log opened.
    Opened {
        /// Entries recovered, 1 to last.
        log: Vec<EntryId>,
        /// Term and vote recovered.
        hard_state: HardState,
        /// Whether the last write was taken for torn, and cut.
        torn: bool,
        /// Whether damage was found, and the node waits for its peers to repair it.
        repairing: bool,
    },
    /// The log refused to open.
    Refused(String),
}

/// How a life of a node ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The process died; what the kernel had is written.
    Killed,
    /// The power went: any part of what was not flushed is gone.
    PowerCut,
    /// The node stopped itself.
    Halted(String),
    /// It was asked to stop and did so in order.
    Closed,
}

/// How a client reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// Sees every write acknowledged before the read was asked for.
    Linearizable,
    /// The same, by the leader's lease.
    Lease,
    /// Some state this node has been in.
    Eventual,
}

/// What a client asks for. Keys and values are numbers; every value is written by one call only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Set.
    Put {
        /// Which key.
        key: u64,
        /// To what.
        value: u64,
    },
    /// Set if the value is the expected one (`None`: if the key is absent).
    Swap {
        /// Which key.
        key: u64,
        /// What must be there.
        expected: Option<u64>,
        /// To what.
        value: u64,
    },
    /// Remove.
    Delete {
        /// Which key.
        key: u64,
    },
    /// Read.
    Get {
        /// Which key.
        key: u64,
        /// How.
        level: Level,
    },
    /// Hand the leadership to another node.
    Transfer {
        /// To whom.
        to: NodeId,
    },
}

/// How a call ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A write was acknowledged; the store's reply to it.
    Written(kv::Reply),
    /// A read.
    Saw {
        /// What was there.
        value: Option<u64>,
        /// The store's revision as it was read.
        revision: u64,
        /// Which node was read.
        at: NodeId,
    },
    /// Leadership is elsewhere.
    Transferred,
    /// Nothing happened, and nothing will.
    Refused,
    /// It may have happened, or happen later.
    Unknown,
}

/// Something that happened.
#[allow(missing_debug_implementations, reason = "it borrows whole nodes")]
pub enum Observation<'a> {
    /// The run begins.
    Begun {
        /// The founding members.
        members: &'a [NodeId],
        /// What acknowledgements promise in this run.
        durability: Durability,
    },
    /// A node reads its disk to begin a life. `disk` is what should be there.
    Recovered {
        /// Which node.
        id: NodeId,
        /// What it found.
        verdict: &'a Verdict,
        /// What should be there.
        disk: &'a Truth,
    },
    /// A node's life begins, with what it recovered.
    Started {
        /// The node.
        node: &'a Node<Store>,
    },
    /// A node has taken input and its outputs have been carried out.
    Stepped {
        /// The node.
        node: &'a Node<Store>,
        /// Its disk.
        disk: &'a Truth,
    },
    /// A message leaves a node.
    Sent {
        /// Its sender, as it is now.
        node: &'a Node<Store>,
        /// Its receiver.
        to: NodeId,
        /// What it says.
        message: &'a Message,
        /// The sender's disk.
        disk: &'a Truth,
    },
    /// A life ended.
    Ended {
        /// Whose.
        id: NodeId,
        /// How.
        end: &'a End,
    },
    /// A client begins a call.
    Invoked {
        /// Which client: it asks one thing at a time.
        client: ClientId,
        /// Names the call.
        call: CallId,
        /// What is asked.
        ask: Ask,
        /// Whether it is asked in a session, so that trying again is safe: the session and the number in it.
        session: Option<(u64, u64)>,
    },
    /// A reply of the store reached a client for one try of a call, whether or not the client still waits. All tries of
    /// a call in a session must be told the same.
    Replied {
        /// The call.
        call: CallId,
        /// What it was told.
        reply: &'a kv::Reply,
    },
    /// A call ended.
    Answered {
        /// Which one.
        call: CallId,
        /// How.
        answer: &'a Answer,
    },
    /// Faults have ended; from here on the core (`members`) must do its work.
    Healed {
        /// The nodes that are up and whole enough to matter.
        core: &'a [NodeId],
    },
    /// The run is over; after [`Observation::Healed`] with time enough for everything owed.
    Finished {
        /// Nodes of the core, as they are now.
        core: &'a [&'a Node<Store>],
    },
}

/// A property that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which judge says so: the name of its file.
    pub oracle: &'static str,
    /// What it saw.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.oracle, self.what)
    }
}
