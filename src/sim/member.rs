//! One machine of the cluster: its disk and clocks, which outlive its nodes, and the node that runs there now.

use super::clock::Clock;
use super::disk::Disk;
use super::observation::Instant;
use crate::kv::{Hub, Store};
use crate::node::{Input, Node};
use crate::raft::{Mono, RoleName, Write};
use std::collections::VecDeque;

/// What the machine's process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Process {
    /// There is none.
    Down,
    /// It takes turns.
    Running,
    /// Its loop is busy applying entries until then; readers on other threads go on.
    Applying,
    /// It stands still, readers and all.
    Paused,
}

pub(super) struct Member {
    pub node: Option<Node<Store>>,
    pub process: Process,
    /// The watches at its node.
    pub hub: Hub,
    pub disk: Disk,
    pub clock: Clock,
    /// Handed to the disk, with the promises that wait for it.
    pub writes: VecDeque<Write>,
    pub inbox: VecDeque<Input>,
    /// Counts the nodes that ran here.
    pub life: u64,
    /// When its next turn is due, if one is.
    pub turn_at: Option<Instant>,
    /// When to look whether its log is idle; moves with every write.
    pub mark_at: Option<Instant>,
    /// The lease as readers on other threads see it.
    pub lease: Option<Mono>,
    /// It dies after so many more effects.
    pub dies_after: Option<u32>,
    /// It dies soon after each of so many starts.
    pub dies_again: u32,
    /// The disk's completion that is awaited; older ones are of former lives.
    pub disk_job: u64,
    /// The disk has a write on its way.
    pub disk_busy: bool,
    /// Until then no flush returns.
    pub hung_until: Instant,
    /// Each flush takes so much longer.
    pub slow_by: u64,
    /// Its log cannot be opened any more; an operator would replace it.
    pub refused: bool,
    /// A start is already on its way.
    pub starting: bool,
}

impl Member {
    pub(super) fn is_up(&self) -> bool {
        self.node.is_some()
    }

    pub(super) fn leads(&self) -> bool {
        self.node.as_ref().is_some_and(|node| node.leadership().role == RoleName::Leader)
    }

    /// Whether it runs and nothing it ever acknowledged is missing.
    pub(super) fn remembers(&self) -> bool {
        self.node.as_ref().is_some_and(Node::may_stop_cleanly)
    }
}
