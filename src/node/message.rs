//! What nodes say to each other: Raft's messages, and the calls a follower passes to its leader.

use crate::raft;
use bytes::Bytes;
use wal::LogIndex;

/// A message between nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Consensus.
    Raft(raft::Message),
    /// Commands for the leader.
    Forward(Forward),
    /// What became of them.
    Forwarded(Forwarded),
    /// Which index must a linearizable read include?
    AskIndex(AskIndex),
    /// That index.
    Index(Index),
}

/// Commands a node passes to the leader of `term`. A receiver takes each number of an incarnation once and only while it
/// leads in that very term, so a repeated message never repeats a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forward {
    /// The term whose leader is meant.
    pub term: wal::Term,
    /// Which life of the sender numbers the commands.
    pub incarnation: u64,
    /// Number of the first command; the others follow.
    pub first: u64,
    /// The commands.
    pub commands: Vec<Bytes>,
}

/// What became of forwarded commands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forwarded {
    /// The life of the node that asked.
    pub incarnation: u64,
    /// Number of the command and what became of it.
    pub outcomes: Vec<(u64, ForwardOutcome)>,
}

/// What became of one forwarded command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ForwardOutcome {
    /// Applied; the state machine's reply.
    Applied(Bytes),
    /// Not taken: the receiver does not lead in that term.
    NotLeader,
    /// Not taken: too much is pending there.
    Busy,
    /// Not taken: the leader's limits do not admit it.
    Refused(String),
    /// Did not happen: another entry took its place.
    Superseded,
    /// Nobody knows whether it happened.
    Unknown,
}

/// A follower's question for a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AskIndex {
    /// The term whose leader is meant.
    pub term: wal::Term,
    /// Which life of the sender asks.
    pub incarnation: u64,
    /// Number of the question.
    pub number: u64,
}

/// The answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Index {
    /// The life of the node that asked.
    pub incarnation: u64,
    /// Number of the question.
    pub number: u64,
    /// The index, if the receiver could confirm that it led.
    pub index: Option<LogIndex>,
}
