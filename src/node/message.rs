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

impl Forwarded {
    /// The same in parts whose outcomes have about `bytes` each; one that is longer is a part of its own.
    pub(super) fn split(self, bytes: usize) -> Vec<Self> {
        let Self { incarnation, outcomes } = self;
        let mut parts = Vec::with_capacity(1);
        let (mut part, mut filled) = (Vec::new(), 0);
        for outcome in outcomes {
            let length = outcome.1.bytes();
            if filled + length > bytes && !part.is_empty() {
                parts.push(Self { incarnation, outcomes: std::mem::take(&mut part) });
                filled = 0;
            }
            filled += length;
            part.push(outcome);
        }
        parts.push(Self { incarnation, outcomes: part });
        parts
    }
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

impl ForwardOutcome {
    /// Its length in a message, or a little more.
    fn bytes(&self) -> usize {
        const HEAD: usize = 32;
        HEAD + match self {
            Self::Applied(reply) => reply.len(),
            Self::Refused(reason) => reason.len(),
            Self::NotLeader | Self::Busy | Self::Superseded | Self::Unknown => 0,
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_are_split_by_their_length_and_none_is_lost() {
        let lengths = [0, 60, 900, 10, 10, 10, 400, 30];
        let outcomes: Vec<_> = (0..)
            .zip(lengths)
            .map(|(number, length)| (number, ForwardOutcome::Applied(vec![0; length].into())))
            .collect();
        let parts = Forwarded { incarnation: 7, outcomes: outcomes.clone() }.split(300);
        for part in &parts {
            let bytes: usize = part.outcomes.iter().map(|(_, outcome)| outcome.bytes()).sum();
            assert!(part.incarnation == 7 && !part.outcomes.is_empty());
            assert!(bytes <= 300 || part.outcomes.len() == 1, "{bytes}");
        }
        assert_eq!(parts.len(), 5);
        let joined: Vec<_> = parts.into_iter().flat_map(|part| part.outcomes).collect();
        assert_eq!(joined, outcomes);
    }
}
