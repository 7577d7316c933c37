//! The store as the loop and its callers share it: the loop writes, once per batch; everybody reads.

use crate::kv::{CommandError, Limits, LogTime, Reply, Revision, Store, encode_expire};
use crate::node::StateMachine;
use bytes::{Bytes, BytesMut};
use parking_lot::RwLock;
use std::sync::Arc;
use wal::Frame;

/// The node's state machine: a [`Store`] that callers read on their own threads.
pub(crate) struct SharedStore {
    store: Arc<RwLock<Store>>,
    admitted: Limits,
    /// The store's, as of the last entry: the node asks every turn, and must not wait for readers then.
    upkeep_at: Option<LogTime>,
    /// The store's, as this thread left it.
    revision: Revision,
}

impl SharedStore {
    pub(crate) fn new(store: Arc<RwLock<Store>>, admitted: Limits) -> Self {
        let (upkeep_at, revision) = {
            let store = store.read();
            (store.upkeep_at(), store.revision())
        };
        Self { store, admitted, upkeep_at, revision }
    }

    /// The number of the last change, without a lock.
    pub(crate) fn changed(&self) -> Revision {
        self.revision
    }

    /// What it holds.
    pub(crate) fn size(&self) -> Size {
        let store = self.store.read();
        Size {
            keys: store.len(),
            bytes: store.bytes(),
            sessions: store.sessions(),
            leases: store.leases(),
            oldest: store.oldest(),
            history_changes: store.history_len(),
            history_bytes: store.history_bytes(),
        }
    }
}

/// What a store holds.
pub(crate) struct Size {
    pub(crate) keys: usize,
    pub(crate) bytes: u64,
    pub(crate) sessions: usize,
    pub(crate) leases: usize,
    pub(crate) oldest: Revision,
    pub(crate) history_changes: usize,
    pub(crate) history_bytes: u64,
}

impl StateMachine for SharedStore {
    type Reply = Reply;
    type Refusal = CommandError;

    /// One lock for the whole entry, so that a reader sees all of a batch or nothing of it.
    fn apply(&mut self, entry: &Frame, replies: &mut Vec<Reply>) {
        let mut store = self.store.write();
        store.advance_to(LogTime(entry.timestamp_ms()));
        replies.extend(entry.commands().map(|command| store.apply(command)));
        self.upkeep_at = store.upkeep_at();
        self.revision = store.revision();
    }

    fn check(&self, command: &[u8]) -> Result<(), CommandError> {
        self.admitted.check(command)
    }

    fn revision(&self) -> u64 {
        self.store.read().revision().0
    }

    fn digest(&self) -> u128 {
        self.store.read().digest()
    }

    fn upkeep_at(&self) -> Option<LogTime> {
        self.upkeep_at
    }

    fn upkeep(&self, out: &mut BytesMut) {
        encode_expire(out);
    }

    fn encode_reply(reply: &Reply, out: &mut BytesMut) {
        reply.encode_into(out);
    }

    fn decode_reply(bytes: &Bytes) -> Option<Reply> {
        Reply::decode(bytes).ok()
    }
}
