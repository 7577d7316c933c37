//! The way of a linearizable read: it joins the turn's round, the round is confirmed, the state catches up, it is granted.
//!
//! On a leader a round is a probe that a quorum answers; on a follower it is a question to the leader, which puts it into
//! a round of its own. A read whose leader is lost starts over, within its deadline: reads can be repeated.

use super::message::{AskIndex, Index, Message};
use super::{Mono, Node, Output, Reply, RequestError, StateMachine, Ticket};
use crate::raft::ReadRound;
use std::collections::{BTreeMap, VecDeque};
use wal::{LogIndex, NodeId, Term};

/// Who wants to read.
#[derive(Clone, Copy, Debug)]
enum Reader {
    Local { ticket: Ticket, deadline: Mono },
    Peer { node: NodeId, incarnation: u64, number: u64, deadline: Mono },
}

impl Reader {
    fn deadline(&self) -> Mono {
        match *self {
            Self::Local { deadline, .. } | Self::Peer { deadline, .. } => deadline,
        }
    }
}

/// A question to the leader, for all reads of a turn.
#[derive(Debug)]
struct Asked {
    at: Mono,
    readers: Vec<Reader>,
}

/// Reads and where they stand.
#[derive(Debug, Default)]
pub(super) struct Reads {
    /// In no round yet.
    new: Vec<Reader>,
    /// In a round of this leader.
    rounds: VecDeque<(ReadRound, Vec<Reader>)>,
    /// Asked of the leader, by number.
    asked: BTreeMap<u64, Asked>,
    next_number: u64,
    /// Confirmed, waiting for the state to include an index.
    confirmed: Vec<(LogIndex, Vec<Reader>)>,
    count: usize,
}

impl Reads {
    pub(super) fn pending(&self) -> usize {
        self.count
    }

    /// Checks what is true between two inputs.
    pub(super) fn check(&self, applied: LogIndex) {
        let rounds: usize = self.rounds.iter().map(|(_, readers)| readers.len()).sum();
        let asked: usize = self.asked.values().map(|asked| asked.readers.len()).sum();
        let confirmed: usize = self.confirmed.iter().map(|(_, readers)| readers.len()).sum();
        assert_eq!(self.count, self.new.len() + rounds + asked + confirmed, "a read is in one place");
        assert!(
            self.asked.keys().all(|&number| number < self.next_number),
            "only numbers given out are asked"
        );
        let ascending = |one: &ReadRound, next: &ReadRound| one.term == next.term && one.probe <= next.probe;
        let mut pairs = self.rounds.iter().zip(self.rounds.iter().skip(1));
        assert!(pairs.all(|((one, _), (next, _))| ascending(one, next)), "rounds are of one term, in order");
        assert!(
            self.confirmed.iter().all(|&(index, _)| index > applied),
            "a confirmed read waits only for its state"
        );
    }

    pub(super) fn has_asked(&self) -> bool {
        !self.asked.is_empty()
    }

    pub(super) fn has_rounds(&self) -> bool {
        !self.rounds.is_empty()
    }

    fn add(&mut self, reader: Reader) {
        self.count += 1;
        self.new.push(reader);
    }
}

impl<M: StateMachine> Node<M> {
    pub(super) fn handle_read(&mut self, ticket: Ticket) {
        if let Err(error) = self.check_room() {
            return self.answer(ticket, Err(error));
        }
        let deadline = self.now.mono.after(self.limits.request_timeout);
        self.reads.add(Reader::Local { ticket, deadline });
        self.start_sweeping();
    }

    /// A follower asks for its readers. It is answered once, also with "cannot say".
    pub(super) fn handle_ask_index(&mut self, from: NodeId, ask: AskIndex) {
        let AskIndex { term, incarnation, number } = ask;
        let deadline = self.now.mono.after(self.limits.request_timeout);
        let reader = Reader::Peer { node: from, incarnation, number, deadline };
        if !self.leads_in(term) || self.check_room().is_err() {
            self.reads.count += 1;
            return self.finish_read(reader, None);
        }
        if wal::mutant!("index_without_round") {
            self.reads.count += 1;
            return self.finish_read(reader, Some(self.raft.commit()));
        }
        self.reads.add(reader);
        self.start_sweeping();
    }

    fn leads_in(&self, term: Term) -> bool {
        term == self.raft.term() && self.raft.leader() == Some(self.raft.config().id)
    }

    /// Puts the reads of this turn into one round, here or at the leader.
    pub(super) fn place_reads(&mut self) {
        if self.reads.new.is_empty() {
            return;
        }
        if let Some(round) = self.raft.join_read_round() {
            let readers = std::mem::take(&mut self.reads.new);
            return self.reads.rounds.push_back((round, readers));
        }
        // Questions of followers are for a leader only.
        let (peers, local) = std::mem::take(&mut self.reads.new)
            .into_iter()
            .partition(|reader| matches!(reader, Reader::Peer { .. }));
        self.reads.new = local;
        let peers: Vec<Reader> = peers;
        for reader in peers {
            self.finish_read(reader, None);
        }
        let Some(leader) = self.raft.leader() else { return };
        let held = self.now.mono < self.writes.hold_until || self.raft.is_leader_gone();
        if self.reads.new.is_empty() || held {
            return;
        }
        let number = self.reads.next_number;
        self.reads.next_number += 1;
        let readers = std::mem::take(&mut self.reads.new);
        assert_ne!(leader, self.raft.config().id, "a leader has a round of its own");
        self.reads.asked.insert(number, Asked { at: self.now.mono, readers });
        let ask = AskIndex { term: self.raft.term(), incarnation: self.incarnation, number };
        self.outputs.push_back(Output::Send { to: leader, message: Message::AskIndex(ask) });
    }

    /// The leader answers: reads may be served from a state that includes the index.
    pub(super) fn handle_index(&mut self, _from: NodeId, index: Index) {
        if index.incarnation != self.incarnation && !wal::mutant!("index_for_former_life") {
            return;
        }
        let Some(Asked { readers, .. }) = self.reads.asked.remove(&index.number) else { return };
        match index.index {
            Some(index) => self.reads.confirmed.push((index, readers)),
            None => {
                self.reads.new.extend(readers);
                self.hold_forwarding();
            }
        }
    }

    /// Grants what is confirmed and included in the state.
    pub(super) fn grant_reads(&mut self) {
        while let Some(&(round, _)) = self.reads.rounds.front()
            && self.raft.is_confirmed(round)
        {
            let (round, readers) = self.reads.rounds.pop_front().expect("just seen");
            self.reads.confirmed.push((round.index, readers));
        }
        let applied = if wal::mutant!("read_before_applied") { LogIndex(u64::MAX) } else { self.applied };
        let ready: Vec<_> = self.reads.confirmed.extract_if(.., |(index, _)| *index <= applied).collect();
        for (index, readers) in ready {
            for reader in readers {
                self.finish_read(reader, Some(index));
            }
        }
    }

    /// Grants (an index) or gives up (none) one read.
    fn finish_read(&mut self, reader: Reader, granted: Option<LogIndex>) {
        assert!(self.reads.count > 0, "it was counted when it came");
        self.reads.count -= 1;
        match reader {
            Reader::Local { ticket, .. } => {
                let outcome = granted.map(|_| Reply::Readable).ok_or(RequestError::ReadTimeout);
                self.answer(ticket, outcome);
            }
            Reader::Peer { node, incarnation, number, .. } => {
                let message = Message::Index(Index { incarnation, number, index: granted });
                self.outputs.push_back(Output::Send { to: node, message });
            }
        }
    }

    /// The leader has changed: rounds of the old one confirm nothing any more, and its answers may never come.
    pub(super) fn retry_reads(&mut self) {
        if wal::mutant!("read_survives_leader_change") {
            return;
        }
        for (_, readers) in std::mem::take(&mut self.reads.rounds) {
            self.reads.new.extend(readers);
        }
        for Asked { readers, .. } in std::mem::take(&mut self.reads.asked).into_values() {
            self.reads.new.extend(readers);
        }
    }

    /// Gives up reads that have waited too long, and asks again where an answer is overdue.
    pub(super) fn expire_reads(&mut self) {
        let now = self.now.mono;
        let patience = self.raft.config().election_timeout;
        let overdue: Vec<u64> = self
            .reads
            .asked
            .iter()
            .filter(|(_, asked)| now.since(asked.at) >= patience)
            .map(|(&number, _)| number)
            .collect();
        for number in overdue {
            let asked = self.reads.asked.remove(&number).expect("just listed");
            self.reads.new.extend(asked.readers);
        }
        let mut expired = Vec::new();
        let mut expire = |readers: &mut Vec<Reader>| {
            expired.extend(readers.extract_if(.., |reader| reader.deadline() <= now));
        };
        expire(&mut self.reads.new);
        self.reads.rounds.iter_mut().for_each(|(_, readers)| expire(readers));
        self.reads.asked.values_mut().for_each(|asked| expire(&mut asked.readers));
        self.reads.confirmed.iter_mut().for_each(|(_, readers)| expire(readers));
        for reader in expired {
            self.finish_read(reader, None);
        }
    }

    pub(super) fn fail_all_reads(&mut self) {
        self.retry_reads();
        let confirmed = std::mem::take(&mut self.reads.confirmed);
        let waiting = confirmed.into_iter().flat_map(|(_, readers)| readers);
        let all: Vec<_> = waiting.chain(std::mem::take(&mut self.reads.new)).collect();
        for reader in all {
            match reader {
                Reader::Local { ticket, .. } => {
                    self.reads.count -= 1;
                    self.answer(ticket, Err(RequestError::Stopped));
                }
                Reader::Peer { .. } => self.finish_read(reader, None),
            }
        }
        assert_eq!(self.reads.count, 0, "every read is somewhere");
    }
}
