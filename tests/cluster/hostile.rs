//! A node that is lied to. Whatever decodable nonsense a member sends, in whatever order, the node does not panic: it drops
//! and counts it, or stops with a reason. (What a lying member can do to the *data* is a different question: members
//! are authenticated, not checked for honesty.)

use bytes::{Bytes, BytesMut};
use d_engine::kv::{Store, encode_put};
use d_engine::node::message::{AskIndex, Forward, ForwardOutcome, Forwarded, Index, Message};
use d_engine::node::{Input, Limits, Node, Output, Ticket, wire};
use d_engine::raft::message::{
    Alive, Append, AppendOutcome, Appended, Body, Candidacy, Decision, Election, Heartbeat, Standing, Vote,
};
use d_engine::raft::{self, Config, Durability, Membership, Mono, Now, Random, Restored};
use std::collections::BTreeMap;
use std::time::Duration;
use wal::{
    ChainHash, ClusterId, EntryId, Flushed, Frame, FrameBuilder, FrameHead, GroupId, HardState, LogIndex,
    NodeId, Term,
};

struct Liar {
    random: Random,
}

impl Liar {
    fn below(&mut self, limit: u64) -> u64 {
        self.random.bits() % limit
    }

    /// Mostly small numbers, so that lies come close to the truth, and now and then the largest.
    fn number(&mut self, near: u64) -> u64 {
        match self.below(12) {
            0 => 0,
            1 => u64::MAX - self.below(3),
            2 => self.random.bits(),
            _ => near.saturating_add(self.below(5)).saturating_sub(2),
        }
    }

    fn entry(&mut self, node: &Node<Store>) -> EntryId {
        let last = node.raft().log().last();
        if self.below(20) != 0 {
            // Somewhere in the log, named rightly.
            let index = LogIndex(last.index.0 - self.below(4).min(last.index.0));
            return node.raft().log().id_at(index).unwrap_or(last);
        }
        EntryId {
            index: LogIndex(self.number(last.index.0)),
            term: Term(self.number(last.term.0)),
            hash: ChainHash(u128::from(self.below(3))),
        }
    }

    fn frames(&mut self, mut previous: EntryId) -> Vec<Frame> {
        let mut frames = Vec::new();
        for _ in 0..self.below(4) {
            if previous.index.0 > u64::MAX - 8 {
                break;
            }
            let term = Term(self.number(previous.term.0).max(previous.term.0));
            let head = FrameHead { group: GroupId::FIRST, term, previous, timestamp_ms: 5 };
            let frame = match self.below(if term.0.is_multiple_of(2) { 80 } else { 21 }) {
                0..=20 if term.0 % 2 == 1 => FrameBuilder::noop(head),
                21 => FrameBuilder::membership(head, &[1, 2, 3]),
                _ => {
                    let mut builder = FrameBuilder::with_capacity(16);
                    builder.push_command(b"not a command");
                    builder.commands(head)
                }
            };
            previous = frame.id();
            frames.push(frame);
        }
        if self.below(8) == 0 {
            frames.reverse();
        }
        frames
    }

    fn promise(&mut self) -> Duration {
        Duration::from_millis([0, 75, 400, 60_000][usize::try_from(self.below(4)).expect("small")])
    }

    fn message(&mut self, node: &Node<Store>) -> Message {
        let term = Term(self.number(node.raft().term().0));
        let index = |liar: &mut Self| LogIndex(liar.number(node.raft().log().last().index.0));
        let election = [Election::PreVote, Election::Vote, Election::Transfer]
            [usize::try_from(self.below(3)).expect("small")];
        let standing = if self.below(4) == 0 { Standing::Suspect } else { Standing::Whole };
        let body = match self.below(12) {
            0 => Body::Candidacy(Candidacy {
                election,
                last_term: Term(self.number(term.0)),
                last_index: index(self),
                standing,
            }),
            1 => Body::Vote(Vote {
                election,
                decision: if self.below(2) == 0 { Decision::Granted } else { Decision::Refused },
                standing,
            }),
            2 | 3 => {
                let previous = self.entry(node);
                let frames = self.frames(previous);
                Body::Append(Append {
                    previous,
                    frames,
                    commit: index(self),
                    probe: self.number(5),
                    promise: self.promise(),
                })
            }
            4 => Body::Appended(Appended {
                outcome: AppendOutcome::Accepted { matched: index(self) },
                probe: self.number(5),
            }),
            5 => Body::Appended(Appended {
                outcome: AppendOutcome::Rejected {
                    previous: index(self),
                    hint: index(self),
                    hint_term: Term(self.number(term.0)),
                },
                probe: self.number(5),
            }),
            6 => Body::Heartbeat(Heartbeat {
                probe: self.number(5),
                commit: index(self),
                promise: self.promise(),
            }),
            7 => Body::Alive(Alive { probe: self.number(5) }),
            8 => Body::TimeoutNow,
            9 => {
                let commands = vec![Bytes::from_static(b"\x01junk"), Bytes::new()];
                return Message::Forward(Forward {
                    term,
                    incarnation: 1,
                    first: self.number(9) / 2,
                    commands,
                });
            }
            10 => {
                let outcomes = vec![
                    (self.number(3), ForwardOutcome::Applied(Bytes::from_static(b"junk"))),
                    (self.number(3), ForwardOutcome::NotLeader),
                ];
                return Message::Forwarded(Forwarded { incarnation: self.below(3), outcomes });
            }
            _ => {
                let number = self.number(3);
                return if self.below(2) == 0 {
                    Message::AskIndex(AskIndex { term, incarnation: 1, number })
                } else {
                    Message::Index(Index { incarnation: self.below(3), number, index: Some(index(self)) })
                };
            }
        };
        Message::Raft(raft::Message { term, body })
    }
}

/// One node among liars; how many of its calls were answered, and whether it stopped with a reason.
fn lie(seed: u64) -> (usize, bool) {
    let mut liar = Liar { random: Random::from_seed(seed) };
    let config = Config {
        id: NodeId(1),
        cluster: ClusterId(1),
        group: GroupId::FIRST,
        seed,
        heartbeat: Duration::from_millis(50),
        election_timeout: Duration::from_millis(250),
        promise: Duration::from_millis(250),
        drift_bound_ppm: 100_000,
        append_bytes: 512,
        in_flight_bytes: 2_048,
        durability: if seed.is_multiple_of(3) { Durability::MemFirst } else { Durability::DiskFirst },
        unflushed_entries: 32,
    };
    let limits =
        Limits { cache_bytes: 512, request_timeout: Duration::from_millis(400), ..Limits::default() };
    let disk = Restored {
        hard_state: HardState::default(),
        commit: LogIndex(0),
        standing: Standing::Whole,
        held: None,
    };
    let founders = Membership::of_voters([1, 2, 3].map(NodeId)).expect("valid");
    let mut now = Now { mono: Mono(1), wall_ms: 0 };
    let mut node = Node::restoring(config, limits, 1, Store::new(), disk).begin(now, &founders);
    let (mut asked, mut answered, mut halted) = (BTreeMap::new(), 0, false);
    let mut writes = Vec::new();
    for step in 0..400_u64 {
        now.mono = Mono(now.mono.0 + liar.below(30_000_000));
        let input = match liar.below(10) {
            0 => {
                let mut command = BytesMut::new();
                encode_put(b"k", b"v", &mut command).expect("small");
                asked.insert(Ticket(step), ());
                Input::Propose { ticket: Ticket(step), command: command.freeze() }
            }
            1 => {
                asked.insert(Ticket(step), ());
                Input::Read { ticket: Ticket(step) }
            }
            2 => Input::Timeout,
            3 => {
                let previous = liar.entry(&node);
                Input::Fetched { peer: NodeId(2), frames: liar.frames(previous) }
            }
            4 => Input::Connected(NodeId(2 + liar.below(2))),
            _ => {
                let message = liar.message(&node);
                // Over the wire and back: what arrives is what a peer can really say.
                let mut parts = Vec::new();
                wire::encode(&message, &mut parts);
                match wire::decode(parts.concat().into()) {
                    Ok(message) => Input::Message { from: NodeId(2 + liar.below(2)), message },
                    Err(_) => continue,
                }
            }
        };
        node.handle(now, input);
        while let Some(output) = node.poll_output() {
            match output {
                Output::Write(write) => writes.push(write),
                Output::Answers(answers) => {
                    for answer in answers {
                        assert!(asked.remove(&answer.ticket).is_some(), "seed {seed}: {answer:?} twice");
                        answered += 1;
                    }
                }
                Output::Halt(_) => halted = true,
                _ => {}
            }
        }
        if liar.below(3) == 0 && !halted {
            for write in writes.drain(..) {
                let proof = Flushed::simulated(write.id());
                node.handle(now, Input::Written(write.flushed(proof)));
            }
        }
    }
    (answered, halted)
}

#[test]
fn lies_do_not_make_a_node_panic() {
    let (mut answered, mut halted) = (0, 0);
    for seed in 0..3_000 {
        let (calls, stopped) = lie(seed);
        answered += calls;
        halted += usize::from(stopped);
    }
    println!("{answered} calls answered, {halted} of 3000 nodes stopped with a reason");
    assert!(answered > 3_000 && halted > 0 && halted < 3_000);
}

#[test]
fn bytes_that_are_no_message_are_refused() {
    let mut random = Random::from_seed(1);
    let mut parts = Vec::new();
    let body = Body::Heartbeat(Heartbeat { probe: 3, commit: LogIndex(4), promise: Duration::ZERO });
    wire::encode(&Message::Raft(raft::Message { term: Term(2), body }), &mut parts);
    let whole = parts.concat();
    assert!(wire::decode(Bytes::copy_from_slice(&whole)).is_ok());
    for length in 0..whole.len() {
        assert!(wire::decode(Bytes::copy_from_slice(&whole[..length])).is_err(), "length {length}");
    }
    for _ in 0..20_000 {
        let mut bytes = whole.clone();
        for _ in 0..1 + random.bits() % 4 {
            let at = usize::try_from(random.bits()).unwrap_or(0) % bytes.len();
            bytes[at] = random.bits().to_le_bytes()[0];
        }
        let _ = wire::decode(Bytes::from(bytes));
    }
}
