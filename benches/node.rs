//! Three whole nodes without disk and network: what the engine itself costs per put, everything that is not I/O.
//!
//! A turn hands the leader a batch of puts and goes on until all are answered: encoding, hashing, Raft on three nodes,
//! messages through the wire's encoding both ways (frames are checked as a follower checks them), apply on three stores,
//! answers. A flush takes no time and never fails; the clock stands still, so no heartbeat is due.

mod cpu;

use bytes::{Bytes, BytesMut};
use cpu::CpuTime;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use d_engine::kv::{Store, encode_put};
use d_engine::node::{Input, Limits, Message, Node, Output, Ticket, wire};
use d_engine::raft::message::Standing;
use d_engine::raft::{Config, Durability, Membership, Mono, Now, Restored};
use std::collections::VecDeque;
use std::time::Duration;
use wal::{ClusterId, Flushed, GroupId, HardState, LogIndex, NodeId};

const NODES: u64 = 3;
const KEYS: u64 = 10_000;

struct Cluster {
    nodes: Vec<Node<Store>>,
    now: Now,
    /// Messages on their way: from, to, bytes.
    wire: VecDeque<(NodeId, NodeId, Bytes)>,
    parts: Vec<Bytes>,
    answered: u64,
    commands: Vec<Bytes>,
    next: u64,
}

impl Cluster {
    fn new() -> Self {
        let founders = Membership::of_voters((1..=NODES).map(NodeId)).expect("three distinct voters");
        let now = Now { mono: Mono(1), wall_ms: 1_700_000_000_000 };
        let nodes = (1..=NODES)
            .map(|id| {
                let config = Config {
                    id: NodeId(id),
                    cluster: ClusterId(7),
                    group: GroupId::FIRST,
                    seed: id,
                    heartbeat: Duration::from_millis(50),
                    election_timeout: Duration::from_millis(250),
                    drift_bound_ppm: 100_000,
                    append_bytes: 1 << 20,
                    in_flight_bytes: 4 << 20,
                    durability: Durability::DiskFirst,
                    unflushed_entries: 32,
                };
                let empty = Restored {
                    hard_state: HardState::default(),
                    commit: LogIndex(0),
                    standing: Standing::Whole,
                    held: None,
                };
                Node::restoring(config, Limits::default(), id, Store::new(), empty).begin(now, &founders)
            })
            .collect();
        let commands = (0..KEYS)
            .map(|number| {
                let mut command = BytesMut::new();
                let key = number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes();
                encode_put(&[key, key].concat(), &[0x5a; 256], &mut command).expect("within the limits");
                command.freeze()
            })
            .collect();
        let mut cluster =
            Self { nodes, now, wire: VecDeque::new(), parts: Vec::new(), answered: 0, commands, next: 0 };
        while cluster.leader().is_none() {
            cluster.wait();
        }
        cluster
    }

    fn leader(&self) -> Option<usize> {
        self.nodes.iter().position(|node| node.lease().is_some())
    }

    /// Lets time pass until the first timeout.
    fn wait(&mut self) {
        let at = self.nodes.iter().filter_map(Node::poll_timeout).min().expect("a node always has a timeout");
        self.now.mono = at.max(self.now.mono);
        for position in 0..self.nodes.len() {
            self.nodes[position].handle(self.now, Input::Timeout);
            self.drain(position);
        }
        self.deliver();
    }

    fn put(&mut self, leader: usize, count: u64) {
        let until = self.answered + count;
        for _ in 0..count {
            let command = self.commands[usize::try_from(self.next % KEYS).expect("small")].clone();
            self.nodes[leader].handle(self.now, Input::Propose { ticket: Ticket(self.next), command });
            self.next += 1;
        }
        self.drain(leader);
        self.deliver();
        assert_eq!(self.answered, until, "every put is answered within its turn");
    }

    fn deliver(&mut self) {
        while let Some((from, to, bytes)) = self.wire.pop_front() {
            let message: Message = wire::decode(bytes).expect("what a node encoded");
            let position = usize::try_from(to.0 - 1).expect("small");
            self.nodes[position].handle(self.now, Input::Message { from, message });
            self.drain(position);
        }
    }

    fn drain(&mut self, position: usize) {
        let from = NodeId(position as u64 + 1);
        let mut writes = Vec::new();
        loop {
            while let Some(output) = self.nodes[position].poll_output() {
                match output {
                    Output::Write(write) => writes.push(write),
                    Output::Send { to, message } => {
                        wire::encode(&message, &mut self.parts);
                        self.wire.push_back((from, to, join(&self.parts)));
                        self.parts.clear();
                    }
                    Output::Answers(answers) => {
                        assert!(answers.iter().all(|answer| answer.outcome.is_ok()));
                        self.answered += answers.len() as u64;
                    }
                    Output::Fetch(_) | Output::Submit | Output::Leadership(_) => {}
                    Output::Halt(why) => panic!("{why}"),
                }
            }
            if writes.is_empty() {
                break;
            }
            for write in writes.drain(..) {
                let proof = Flushed::simulated(write.id());
                self.nodes[position].handle(self.now, Input::Written(write.flushed(proof)));
            }
        }
    }
}

/// As the receiver gets it: one piece. The copy stands for the one the network makes.
fn join(parts: &[Bytes]) -> Bytes {
    let mut whole = BytesMut::with_capacity(parts.iter().map(Bytes::len).sum());
    parts.iter().for_each(|part| whole.extend_from_slice(part));
    whole.freeze()
}

fn node(criterion: &mut Criterion<CpuTime>) {
    let mut cluster = Cluster::new();
    let leader = cluster.leader().expect("elected in `new`");
    let mut group = criterion.benchmark_group("three nodes");
    for batch in [1_u64, 16, 128, 1024] {
        group.throughput(Throughput::Elements(batch));
        group.bench_function(BenchmarkId::new("put", batch), |bench| {
            bench.iter(|| cluster.put(leader, batch))
        });
    }
    group.finish();
}

criterion_group!(name = benches; config = cpu::criterion(); targets = node);
criterion_main!(benches);
