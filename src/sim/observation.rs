//! What happens in a run, as the judges are told. The world tells, in the order of its one clock; nobody answers.
//!
//! Judges see more than any node could: every node's state, what every disk would still hold if the power went now, and
//! what every client was told.

use crate::kv::{self, Event, Filter, RangePage, Revision, RevisionError, Store, WatchError, WatchItem};
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

/// What the judges have to know of a run's measures.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// Changes that a node's history keeps, if nothing else bounds it.
    pub changes: Option<usize>,
    /// The fastest clock's gain on the world's, in millionths; none if clocks may do anything.
    pub fastest_ppm: Option<u64>,
    /// What there may be of leases.
    pub leases: kv::LeaseLimits,
    /// What one step of a leader counts at most, in nanoseconds of the world.
    pub longest_step: u64,
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

/// Neighbouring keys, by number: the first, and the first behind them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keys {
    /// The first.
    pub from: u64,
    /// The first behind them; `None` when they go on to the last.
    pub until: Option<u64>,
}

/// A question for a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// Which keys.
    pub keys: Keys,
    /// How many in a page.
    pub limit: usize,
    /// From which end.
    pub order: kv::Order,
    /// What of each.
    pub select: kv::Select,
    /// Which state, if not the newest.
    pub at: Option<Revision>,
    /// Behind which key the page begins.
    pub after: Option<u64>,
}

/// What a client asks for. Keys and values are numbers; every value is written by one call only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Set, and attach.
    PutAttached {
        /// Which key.
        key: u64,
        /// To what.
        value: u64,
        /// What its life depends on.
        attach: kv::Attach,
    },
    /// Set if the value is the expected one, and attach.
    SwapAttached {
        /// Which key.
        key: u64,
        /// What must be there.
        expected: Option<u64>,
        /// To what.
        value: u64,
        /// What its life depends on.
        attach: kv::Attach,
    },
    /// Remove a range.
    DeleteRange {
        /// Which keys.
        keys: Keys,
    },
    /// A transaction. What it does is in its bytes.
    Txn {
        /// The value that it writes, on every way.
        value: u64,
    },
    /// Grant a lease.
    Grant {
        /// Its id; 0 lets the store choose.
        lease: u64,
        /// Milliseconds to live.
        ttl: u64,
    },
    /// Keep a lease alive.
    KeepAlive {
        /// Which.
        lease: u64,
    },
    /// Revoke a lease.
    Revoke {
        /// Which.
        lease: u64,
    },
    /// Let go of history.
    Compact {
        /// The oldest revision to keep.
        revision: u64,
    },
    /// Read a range.
    Range {
        /// What.
        range: Range,
        /// How.
        level: Level,
    },
    /// Read what happened to a key, on the node as it is.
    History {
        /// Which key.
        key: u64,
        /// From this revision on.
        from: u64,
        /// So many changes at most.
        limit: usize,
    },
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

impl Ask {
    /// The value that only this call writes.
    #[must_use]
    pub fn value(&self) -> Option<u64> {
        match *self {
            Self::Put { value, .. }
            | Self::Swap { value, .. }
            | Self::PutAttached { value, .. }
            | Self::SwapAttached { value, .. }
            | Self::Txn { value } => Some(value),
            _ => None,
        }
    }

    /// Whether it is a command for the log.
    #[must_use]
    pub fn writes(&self) -> bool {
        !matches!(self, Self::Get { .. } | Self::Range { .. } | Self::History { .. } | Self::Transfer { .. })
    }

    /// Whether it may be asked in a session.
    #[must_use]
    pub fn repeatable(&self) -> bool {
        self.writes() && !matches!(self, Self::Compact { .. })
    }

    /// How it reads, if it does.
    #[must_use]
    pub fn level(&self) -> Option<Level> {
        match *self {
            Self::Get { level, .. } | Self::Range { level, .. } => Some(level),
            Self::History { .. } => Some(Level::Eventual),
            _ => None,
        }
    }
}

/// What was read of more than one key or state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    /// Which node was read.
    pub at: NodeId,
    /// Its store's revision then.
    pub revision: u64,
    /// The oldest revision it could have been asked for.
    pub oldest: u64,
    /// What it said.
    pub found: Found,
}

/// What a node said to a read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// A page.
    Page(Result<RangePage, RevisionError>),
    /// Changes of a key.
    History(Result<Vec<(Revision, Event)>, RevisionError>),
}

/// Somebody who watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WatcherId(pub u64);

/// What a watcher wants to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wish {
    /// Changes of these keys.
    pub keys: Keys,
    /// Of this kind.
    pub filter: Option<Filter>,
    /// With what was there before.
    pub previous: bool,
}

/// Why a watch begins where it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// It is new: nothing before is owed.
    New,
    /// It continues: nothing may be missing.
    Resumed,
}

/// How a call ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A read of more than one key or state.
    Read(Read),
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
        /// What is known of how much and how fast.
        terms: Terms,
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
        /// The bytes of its command, before they are put into a session; none for a read.
        command: &'a [u8],
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
    /// A watch begins at a node.
    Watches {
        /// Whose.
        watcher: WatcherId,
        /// What it wants.
        wish: &'a Wish,
        /// From this revision on.
        from: u64,
        /// Whether it continues another.
        begin: Begin,
    },
    /// A watch told something.
    Watched {
        /// Whom.
        watcher: WatcherId,
        /// What.
        item: &'a WatchItem,
    },
    /// A watch ended, or did not begin.
    Unwatched {
        /// Whose.
        watcher: WatcherId,
        /// Why.
        why: &'a WatchError,
        /// The revision of the node's store.
        revision: u64,
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
        /// Watches that are open at them.
        watching: &'a [WatcherId],
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
