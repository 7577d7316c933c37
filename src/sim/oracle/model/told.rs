//! What the store says to a command, as the model says it, and the store's replies in these words.

use super::read::{Query, Span};
use crate::kv::{self, LeaseError, OpReply, Order, Presence, RangePage, Reply, RevisionError, Select};
use bytes::Bytes;

/// A key with what is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Item {
    pub(in super::super) key: Bytes,
    pub(in super::super) value: Bytes,
    pub(in super::super) created: u64,
    pub(in super::super) modified: u64,
    pub(in super::super) count: u64,
    /// 0 is none.
    pub(in super::super) lease: u64,
}

impl Item {
    pub(in super::super) fn of(found: &kv::KeyValue) -> Self {
        Self {
            key: found.key.clone(),
            value: found.value.clone(),
            created: found.create_revision.0,
            modified: found.modify_revision.0,
            count: found.version,
            lease: found.lease.map_or(0, |lease| lease.0),
        }
    }
}

/// A part of a range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Page {
    pub(in super::super) items: Vec<Item>,
    pub(in super::super) count: u64,
    /// Where the next one begins, and which state it reads.
    pub(in super::super) next: Option<(Query, Option<u64>)>,
    pub(in super::super) revision: u64,
}

pub(in super::super) fn query(query: &kv::RangeQuery) -> Query {
    let (start, end) = (query.range.start(), query.range.end());
    Query {
        span: Span { start: Bytes::copy_from_slice(start), end: end.map(Bytes::copy_from_slice) },
        limit: query.limit as u64,
        descending: query.order == Order::Descending,
        select: select(query.select),
        after: query.after.clone(),
    }
}

fn select(select: Select) -> u8 {
    match select {
        Select::Whole => 0,
        Select::KeysOnly => 1,
        Select::CountOnly => 2,
    }
}

pub(in super::super) fn page(page: &RangePage) -> Page {
    Page {
        items: page.items.iter().map(Item::of).collect(),
        count: page.count,
        next: page.next.as_ref().map(|next| (query(next), next.revision.map(|revision| revision.0))),
        revision: page.revision.0,
    }
}

/// The answer to an operation of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) enum Did {
    Put { previous: Option<Item>, lease: u64 },
    Deleted(u64),
    Read(Page),
    Txn(Came),
}

/// What a transaction came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Came {
    pub(in super::super) held: bool,
    pub(in super::super) did: Vec<Did>,
}

impl Came {
    fn of(reply: &kv::TxnReply) -> Self {
        let did = reply.results.iter().map(|result| match result {
            OpReply::Put { previous, lease, .. } => Did::Put {
                previous: previous.as_ref().map(Item::of),
                lease: lease.map_or(0, |lease| lease.0),
            },
            OpReply::Deleted(keys) => Did::Deleted(*keys),
            OpReply::Range(read) => Did::Read(page(read)),
            OpReply::Txn(inner) => Did::Txn(Self::of(inner)),
        });
        Self { held: reply.succeeded, did: did.collect() }
    }

    /// Whether it changed anything.
    pub(in super::super) fn changed(&self) -> bool {
        self.did.iter().any(|did| match did {
            Did::Put { .. } => true,
            Did::Deleted(keys) => *keys > 0,
            Did::Read(_) => false,
            Did::Txn(inner) => inner.changed(),
        })
    }

    /// How deep transactions are nested in what was done.
    pub(in super::super) fn depth(&self) -> usize {
        let inner = self.did.iter().filter_map(|did| match did {
            Did::Txn(inner) => Some(inner.depth()),
            _ => None,
        });
        1 + inner.max().unwrap_or(0)
    }
}

/// What the store says to a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) enum Told {
    Put {
        revision: u64,
    },
    Deleted {
        revision: u64,
        present: bool,
    },
    Swapped {
        revision: u64,
    },
    NotSwapped {
        revision: u64,
        current: Option<Item>,
    },
    PutAttached {
        revision: u64,
        lease: u64,
    },
    SwappedAttached {
        revision: u64,
        lease: u64,
    },
    RangeDeleted {
        revision: u64,
        deleted: u64,
    },
    Txn {
        revision: u64,
        came: Box<Came>,
    },
    Granted {
        revision: u64,
        lease: u64,
        ttl: u64,
    },
    Kept {
        revision: u64,
        lease: u64,
        ttl: u64,
    },
    Revoked {
        revision: u64,
        keys: u64,
    },
    LeaseRefused(LeaseError),
    Compacted {
        revision: u64,
        oldest: u64,
    },
    RevisionRefused(RevisionError),
    Expired {
        revision: u64,
        leases: u64,
        keys: u64,
    },
    /// About sessions, or refused.
    Other,
}

impl Told {
    /// The revision and whether the command took it for itself.
    pub(in super::super) fn place(&self) -> Option<(u64, bool)> {
        match *self {
            Self::Put { revision }
            | Self::Swapped { revision }
            | Self::PutAttached { revision, .. }
            | Self::SwappedAttached { revision, .. } => Some((revision, true)),
            Self::Deleted { revision, present } => Some((revision, present)),
            Self::RangeDeleted { revision, deleted: keys }
            | Self::Revoked { revision, keys }
            | Self::Expired { revision, keys, .. } => Some((revision, keys > 0)),
            Self::Txn { revision, ref came } => Some((revision, came.changed())),
            Self::NotSwapped { revision, .. }
            | Self::Granted { revision, .. }
            | Self::Kept { revision, .. }
            | Self::Compacted { revision, .. } => Some((revision, false)),
            Self::LeaseRefused(_) | Self::RevisionRefused(_) | Self::Other => None,
        }
    }

    /// A store's reply as the model would have said it.
    pub(in super::super) fn of(reply: &Reply) -> Self {
        let millis = |ttl: std::time::Duration| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        match reply {
            Reply::Put { revision } => Self::Put { revision: revision.0 },
            Reply::Deleted { revision, before } => {
                Self::Deleted { revision: revision.0, present: *before == Presence::Present }
            }
            Reply::Swapped { revision } => Self::Swapped { revision: revision.0 },
            Reply::NotSwapped { revision, current } => {
                Self::NotSwapped { revision: revision.0, current: current.as_deref().map(Item::of) }
            }
            Reply::PutAttached { revision, lease } => {
                Self::PutAttached { revision: revision.0, lease: lease.map_or(0, |lease| lease.0) }
            }
            Reply::SwappedAttached { revision, lease } => {
                Self::SwappedAttached { revision: revision.0, lease: lease.map_or(0, |lease| lease.0) }
            }
            Reply::RangeDeleted { revision, deleted } => {
                Self::RangeDeleted { revision: revision.0, deleted: *deleted }
            }
            Reply::Txn { revision, reply } => {
                Self::Txn { revision: revision.0, came: Box::new(Came::of(reply)) }
            }
            Reply::LeaseGranted { revision, lease, ttl } => {
                Self::Granted { revision: revision.0, lease: lease.0, ttl: millis(*ttl) }
            }
            Reply::LeaseKept { revision, lease, ttl } => {
                Self::Kept { revision: revision.0, lease: lease.0, ttl: millis(*ttl) }
            }
            Reply::LeaseRevoked { revision, keys } => Self::Revoked { revision: revision.0, keys: *keys },
            Reply::LeaseRefused(error) => Self::LeaseRefused(*error),
            Reply::Compacted { revision, oldest } => {
                Self::Compacted { revision: revision.0, oldest: oldest.0 }
            }
            Reply::RevisionRefused(error) => Self::RevisionRefused(*error),
            Reply::Expired { revision, leases, keys } => {
                Self::Expired { revision: revision.0, leases: *leases, keys: *keys }
            }
            Reply::Refused(_)
            | Reply::SessionOpened { .. }
            | Reply::SessionClosed { .. }
            | Reply::SessionRefused(_) => Self::Other,
        }
    }
}
