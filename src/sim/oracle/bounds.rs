//! O15, bounds: after every step a node holds no more than its limits say: calls that wait, frames in memory, bytes that
//! are not decided.
//!
//! A transfer waits beside the other calls. What is not decided cannot leave memory: a leader proposes no more once it
//! has too much of it, but what it took over from earlier leaders comes on top. It cannot see the process's memory.

use super::{Outcome, violated};
use crate::kv::Store;
use crate::node::Node;
use wal::NodeId;

pub(super) const NAME: &str = "bounds";

/// What a node holds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    pub(super) pending: usize,
    pub(super) cached_bytes: usize,
    pub(super) undecided_bytes: usize,
    /// The oldest frame in memory is applied and on disk: it could have gone.
    pub(super) could_evict: bool,
}

/// What it may hold.
#[derive(Clone, Copy, Debug)]
pub(super) struct Allowed {
    pub(super) pending: usize,
    pub(super) cached_bytes: usize,
    pub(super) undecided_bytes: usize,
}

impl Held {
    pub(super) fn of(node: &Node<Store>) -> Self {
        let log = node.raft().log();
        Self {
            pending: node.pending(),
            cached_bytes: log.cached_bytes(),
            undecided_bytes: log.undecided_bytes(),
            could_evict: log.first_cached() <= node.applied().min(log.durable()),
        }
    }
}

impl Allowed {
    pub(super) fn of(node: &Node<Store>) -> Self {
        let limits = node.limits();
        Self {
            pending: limits.pending_requests + 1,
            cached_bytes: limits.cache_bytes,
            // Twice: what a leader takes over may be as much as what it may add.
            undecided_bytes: 2 * (limits.pending_bytes + limits.batch_bytes) + (64 << 10),
        }
    }
}

pub(super) fn judge(id: NodeId, held: Held, allowed: Allowed) -> Outcome {
    violated!(
        held.pending > allowed.pending,
        NAME,
        "node {id} has {} calls waiting: {allowed:?}",
        held.pending
    );
    violated!(
        held.cached_bytes > allowed.cached_bytes && held.could_evict,
        NAME,
        "node {id} keeps {} bytes of frames in memory: {allowed:?}",
        held.cached_bytes
    );
    violated!(
        held.undecided_bytes > allowed.undecided_bytes,
        NAME,
        "node {id} has {} bytes undecided: {allowed:?}",
        held.undecided_bytes
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_kept() {
        let allowed = Allowed { pending: 3, cached_bytes: 10, undecided_bytes: 20 };
        let held = Held { pending: 3, cached_bytes: 12, undecided_bytes: 20, could_evict: false };
        judge(NodeId(1), held, allowed).expect("undecided frames stay");
        assert!(judge(NodeId(1), Held { pending: 4, ..held }, allowed).is_err());
        assert!(judge(NodeId(1), Held { could_evict: true, ..held }, allowed).is_err());
        assert!(judge(NodeId(1), Held { undecided_bytes: 21, ..held }, allowed).is_err());
    }
}
