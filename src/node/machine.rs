//! What a replicated state machine is to the node, and the one that comes with it.

use crate::kv;
use bytes::{Bytes, BytesMut};
use std::fmt;
use wal::Frame;

/// A state machine that the group replicates.
///
/// `apply` must be a function of the entries applied before and of nothing else: no clock (an entry carries the
/// leader's timestamp), no randomness, no iteration in an order that differs between runs. Replicas that break this
/// diverge without anybody noticing, until the answers differ.
pub trait StateMachine {
    /// What a command answers.
    type Reply: fmt::Debug;
    /// Why a command is not admitted.
    type Refusal: fmt::Display + fmt::Debug;

    /// Applies one entry: pushes exactly one reply per command, in order. The entry's timestamp is the only time there
    /// is; along a log it never falls.
    fn apply(&mut self, entry: &Frame, replies: &mut Vec<Self::Reply>);

    /// Whether a command may be proposed at all: size, form, limits. Asked before anything happens.
    ///
    /// # Errors
    /// Says what is wrong with it.
    fn check(&self, command: &[u8]) -> Result<(), Self::Refusal>;

    /// The number of the last change.
    fn revision(&self) -> u64;

    /// A digest of everything applied: equal on all replicas at the same index.
    fn digest(&self) -> u128;

    /// The log time from which on the machine wants its [`upkeep`](Self::upkeep) applied, if it does: the timestamp of an
    /// entry. Asked several times a turn.
    fn upkeep_at(&self) -> Option<kv::LogTime> {
        None
    }

    /// The command for it. Only a leader proposes it, and nobody is told its reply; it must be harmless at any time, since
    /// more may have been applied before it than its proposer knew.
    fn upkeep(&self, out: &mut BytesMut) {
        let _ = out;
    }

    /// The bytes of a reply, for a caller on another node.
    fn encode_reply(reply: &Self::Reply, out: &mut BytesMut);

    /// Reads them; `None` if they are not a reply.
    fn decode_reply(bytes: &Bytes) -> Option<Self::Reply>;
}

impl StateMachine for kv::Store {
    type Reply = kv::Reply;
    type Refusal = kv::CommandError;

    fn apply(&mut self, entry: &Frame, replies: &mut Vec<Self::Reply>) {
        self.advance_to(kv::LogTime(entry.timestamp_ms()));
        replies.extend(entry.commands().map(|command| Self::apply(self, command)));
    }

    fn check(&self, command: &[u8]) -> Result<(), Self::Refusal> {
        Self::check(self, command)
    }

    fn revision(&self) -> u64 {
        Self::revision(self).0
    }

    fn digest(&self) -> u128 {
        Self::digest(self)
    }

    fn upkeep_at(&self) -> Option<kv::LogTime> {
        Self::upkeep_at(self)
    }

    fn upkeep(&self, out: &mut BytesMut) {
        kv::encode_expire(out);
    }

    fn encode_reply(reply: &Self::Reply, out: &mut BytesMut) {
        reply.encode_into(out);
    }

    fn decode_reply(bytes: &Bytes) -> Option<Self::Reply> {
        kv::Reply::decode(bytes).ok()
    }
}
