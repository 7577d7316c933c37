//! Three whole nodes in one thread, without disk, network and clock: the engine itself, everything that is not the OS's.
//!
//! A driver like the simulator's, of the same node and the same journal, that only carries out what the node says: nobody
//! judges, draws or records, so that what is counted here is the engine's. A turn of the leader takes a batch of calls
//! and the cluster goes on until all of them are answered: encoding, hashing, Raft on three nodes, the wire's encoding both
//! ways (frames are checked as a follower checks them), the log's envelopes, apply on three stores, answers. A flush takes
//! no time and never fails; the clock stands still, so that no heartbeat is due.
//!
//! Its own allocations in the steady state: one buffer for each message, as a receiver has it from the network.
#![allow(dead_code)] // Every user uses a part of it.

mod disk;

use bytes::{Bytes, BytesMut};
use d_engine::kv::{Retention, Store, encode_put};
use d_engine::node::{Input, Limits, Message, Node, Output, Reply, Ticket, wire};
use d_engine::raft::message::Standing;
use d_engine::raft::{Config, Durability, Membership, Mono, Now, Restored, Write};
pub use disk::Disk;
use std::collections::VecDeque;
use std::time::Duration;
use wal::{ClusterId, GroupId, HardState, LogEvent, LogIndex, NodeId};

pub const KEY_BYTES: usize = 16;
pub const VALUE_BYTES: usize = 256;
/// Keys in use.
pub const KEYS: usize = 10_000;

pub const CLUSTER: ClusterId = ClusterId(7);
const NODES: u64 = 3;

/// A short history, so that it is soon full: from then on a put lets go of the value that an older one replaced.
pub const HISTORY: Retention = Retention { changes: KEYS / 10, ..Retention::DEFAULT };

/// A store with nothing in it.
pub fn store() -> Store {
    Store::new().with_retention(HISTORY)
}

/// A 16-byte key; neighbouring numbers are far apart in the key order, as keys of real programs are.
pub fn key(number: usize) -> [u8; KEY_BYTES] {
    let scattered = (number as u128).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
    scattered.to_le_bytes()
}

/// The command that puts it.
pub fn put(number: usize) -> Bytes {
    let mut command = BytesMut::with_capacity(2 + 4 + KEY_BYTES + 4 + VALUE_BYTES);
    encode_put(&key(number), &[0x5a; VALUE_BYTES], &mut command).expect("within the limits");
    command.freeze()
}

struct Member {
    node: Node<Store>,
    disk: Disk,
    /// Handed to the disk, in order, and not yet told of.
    writes: VecDeque<Write>,
}

/// A message on its way.
struct Parcel {
    from: NodeId,
    to: usize,
    bytes: Bytes,
}

pub struct Cluster {
    members: Vec<Member>,
    leader: usize,
    now: Now,
    wire: VecDeque<Parcel>,
    parts: Vec<Bytes>,
    answered: u64,
    commands: Vec<Bytes>,
    next: u64,
    turns: [u64; 2],
}

impl Cluster {
    /// A cluster whose leader has been elected, with `KEYS` keys in its stores, and in the steady state.
    pub fn new() -> Self {
        let founders = Membership::of_voters((1..=NODES).map(NodeId)).expect("three distinct voters");
        let now = Now { mono: Mono(1), wall_ms: 1_700_000_000_000 };
        let mut cluster = Self {
            members: (1..=NODES).map(|id| member(NodeId(id), now, &founders)).collect(),
            leader: 0,
            now,
            wire: VecDeque::new(),
            parts: Vec::new(),
            answered: 0,
            commands: (0..KEYS).map(put).collect(),
            next: 0,
            turns: [0; 2],
        };
        cluster.elect();
        let calls = 1000;
        (0..(KEYS + 2 * HISTORY.changes) / calls).for_each(|_| cluster.put(calls));
        cluster
    }

    fn elect(&mut self) {
        let leading =
            |cluster: &Self| cluster.members.iter().position(|member| member.node.lease().is_some());
        while leading(self).is_none() {
            let timeouts = self.members.iter().filter_map(|member| member.node.poll_timeout());
            self.now.mono = timeouts.min().expect("a node always has a timeout").max(self.now.mono);
            for position in 0..self.members.len() {
                self.members[position].node.handle(self.now, Input::Timeout);
                self.drain(position);
            }
            self.deliver();
        }
        self.leader = leading(self).expect("just seen");
    }

    pub fn leader(&self) -> &Node<Store> {
        &self.members[self.leader].node
    }

    /// Hands the leader that many puts of existing keys in one turn, and waits for the answers.
    pub fn put(&mut self, calls: usize) {
        self.call(calls, |number, command| Input::Propose {
            ticket: Ticket(number),
            command: command.clone(),
        });
    }

    /// The same with linearizable reads: until the node says that its store may be read.
    pub fn read(&mut self, calls: usize) {
        self.call(calls, |number, _| Input::Read { ticket: Ticket(number) });
    }

    fn call(&mut self, calls: usize, input: fn(u64, &Bytes) -> Input) {
        let until = self.answered + calls as u64;
        self.leader_is_called(calls, input);
        self.deliver();
        assert_eq!(self.answered, until, "every call is answered within its turn");
    }

    fn deliver(&mut self) {
        while let Some(parcel) = self.wire.pop_front() {
            if parcel.to == self.leader {
                self.leader_is_told(parcel);
            } else {
                self.follower_is_told(parcel);
            }
        }
    }

    // What a node does, under names by which a profiler tells the leader's part from the followers'. They differ in what
    // they count, or the linker would make them one.

    #[inline(never)]
    fn leader_is_called(&mut self, calls: usize, input: fn(u64, &Bytes) -> Input) {
        for _ in 0..calls {
            let command = &self.commands[usize::try_from(self.next).expect("few") % KEYS];
            self.members[self.leader].node.handle(self.now, input(self.next, command));
            self.next += 1;
        }
        self.drain(self.leader);
    }

    #[inline(never)]
    fn leader_is_told(&mut self, parcel: Parcel) {
        self.turns[0] += 1;
        self.take(parcel);
    }

    #[inline(never)]
    fn follower_is_told(&mut self, parcel: Parcel) {
        self.turns[1] += 1;
        self.take(parcel);
    }

    fn take(&mut self, Parcel { from, to, bytes }: Parcel) {
        let message: Message = wire::decode(bytes).expect("what a node encoded");
        self.members[to].node.handle(self.now, Input::Message { from, message });
        self.drain(to);
    }

    /// A node's outputs carried out, and what its disk has to say, until there is nothing more to do.
    fn drain(&mut self, position: usize) {
        let from = NodeId(position as u64 + 1);
        loop {
            let Member { node, disk, writes } = &mut self.members[position];
            while let Some(output) = node.poll_output() {
                match output {
                    Output::Write(write) => {
                        disk.submit(write.plan());
                        writes.push_back(write);
                    }
                    Output::Send { to, message } => {
                        wire::encode(&message, &mut self.parts);
                        let to = usize::try_from(to.0 - 1).expect("three nodes");
                        self.wire.push_back(Parcel { from, to, bytes: join(&self.parts) });
                        self.parts.clear();
                    }
                    Output::Answers(answers) => {
                        assert!(answers.iter().all(|answer| match &answer.outcome {
                            Ok(Reply::Applied(_) | Reply::Readable) => true,
                            Ok(Reply::Transferred) | Err(_) => false,
                        }));
                        self.answered += answers.len() as u64;
                    }
                    Output::Knock(_) | Output::Fetch(_) | Output::Submit | Output::Leadership(_) => {}
                    Output::Halt(why) => panic!("{why}"),
                }
            }
            disk.write();
            let mut told = false;
            while let Some(event) = disk.poll() {
                let LogEvent::Flushed(proof) = event else { panic!("memory does not fail: {event:?}") };
                while writes.front().is_some_and(|write| write.id() <= proof.id()) {
                    let write = writes.pop_front().expect("just seen");
                    node.handle(self.now, Input::Written(write.flushed(proof)));
                    told = true;
                }
            }
            if !told {
                return;
            }
        }
    }
}

fn member(id: NodeId, now: Now, founders: &Membership) -> Member {
    let config = Config {
        id,
        cluster: CLUSTER,
        group: GroupId::FIRST,
        seed: id.0,
        heartbeat: Duration::from_millis(50),
        election_timeout: Duration::from_millis(250),
        promise: Duration::from_millis(250),
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
    let node = Node::restoring(config, Limits::default(), id.0, store(), empty).begin(now, founders);
    Member { node, disk: Disk::new(id), writes: VecDeque::new() }
}

/// As the receiver gets it: one piece. The copy stands for the one the network makes.
fn join(parts: &[Bytes]) -> Bytes {
    let mut whole = BytesMut::with_capacity(parts.iter().map(Bytes::len).sum());
    parts.iter().for_each(|part| whole.extend_from_slice(part));
    whole.freeze()
}
