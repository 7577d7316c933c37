//! All judges together, on stories with a real node in them.

use super::*;
use crate::kv::encode_put;
use crate::node::{Input, Limits, Output, Ticket};
use crate::raft::{Config, Membership, Mono, Now, Restored, RoleName, message::Standing};
use crate::sim::client::key_bytes;
use crate::sim::observation::{Answer, Ask, CallId, ClientId, Level, Terms, Truth, Verdict};
use bytes::BytesMut;
use wal::{ClusterId, Flushed, GroupId, HardState, LogIndex};

const ID: NodeId = NodeId(1);

/// A lone node with a disk that is a value.
struct Lone {
    node: Node<Store>,
    disk: Truth,
    judges: Judges,
    now: Now,
    ticket: u64,
}

impl Lone {
    fn start() -> Self {
        let config = Config {
            id: ID,
            cluster: ClusterId(7),
            group: GroupId::FIRST,
            seed: 1,
            heartbeat: Duration::from_millis(50),
            election_timeout: Duration::from_millis(250),
            promise: Duration::from_millis(250),
            drift_bound_ppm: 100_000,
            append_bytes: 512,
            in_flight_bytes: 2_048,
            durability: Durability::DiskFirst,
            unflushed_entries: 32,
        };
        let restored = Restored {
            hard_state: HardState::default(),
            commit: LogIndex(0),
            standing: Standing::Whole,
            held: None,
        };
        let now = Now { mono: Mono(1), wall_ms: 1 };
        let founders = Membership::of_voters([ID]).expect("valid");
        let node =
            Node::restoring(config, Limits::default(), 1, Store::new(), restored).begin(now, &founders);
        let (mut judges, disk) = (Judges::new(), Truth::default());
        let at = Instant(1);
        let verdict =
            Verdict::Opened { log: vec![], hard_state: disk.hard_state, torn: false, repairing: false };
        judges
            .observe(
                at,
                &Observation::Begun {
                    members: &[ID],
                    durability: Durability::DiskFirst,
                    terms: Terms {
                        changes: None,
                        leases: LeaseLimits::MAX,
                        fastest_ppm: None,
                        longest_step: 0,
                    },
                },
            )
            .expect("begun");
        judges
            .observe(at, &Observation::Recovered { id: ID, verdict: &verdict, disk: &disk })
            .expect("empty");
        judges.observe(at, &Observation::Started { node: &node }).expect("started");
        Self { node, disk, judges, now, ticket: 0 }
    }

    /// Runs until nothing is left to do.
    fn run(&mut self) -> Outcome {
        loop {
            let mut writes = Vec::new();
            while let Some(output) = self.node.poll_output() {
                if let Output::Write(write) = output {
                    writes.push(write);
                }
            }
            self.look()?;
            if writes.is_empty() && self.node.raft().role() == RoleName::Leader {
                return Ok(());
            }
            for write in writes {
                let plan = write.plan();
                self.disk.hard_state = plan.hard_state.unwrap_or(self.disk.hard_state);
                self.disk.log.extend(plan.frames.iter().map(Frame::id));
                self.disk.commit = self.disk.commit.max(plan.commit);
                let proof = Flushed::simulated(write.id());
                self.node.handle(self.now, Input::Written(write.flushed(proof)));
            }
            self.now.mono = self.node.poll_timeout().map_or(self.now.mono, |at| at.max(self.now.mono));
            self.node.handle(self.now, Input::Timeout);
        }
    }

    fn look(&mut self) -> Outcome {
        let at = Instant(self.now.mono.0);
        self.judges.observe(at, &Observation::Stepped { node: &self.node, disk: &self.disk })
    }

    fn tell(&mut self, observation: &Observation<'_>) -> Outcome {
        self.judges.observe(Instant(self.now.mono.0), observation)
    }

    /// Puts, and is told so.
    fn put(&mut self, key: u64, value: u64) -> Outcome {
        self.ticket += 1;
        let call = CallId(self.ticket);
        let ask = Ask::Put { key, value };
        self.tell(&Observation::Invoked { client: ClientId(1), call, ask, command: &[], session: None })?;
        let mut command = BytesMut::new();
        encode_put(&key_bytes(key), &value.to_le_bytes(), &mut command).expect("small");
        let command = command.freeze();
        self.node.handle(self.now, Input::Propose { ticket: Ticket(self.ticket), command });
        self.run()?;
        let answer = Answer::Written(crate::kv::Reply::Put { revision: self.node.machine().revision() });
        self.tell(&Observation::Answered { call, answer: &answer })
    }

    /// A read that says it saw this.
    fn read(&mut self, level: Level, value: Option<u64>, revision: u64) -> Outcome {
        self.ticket += 1;
        let call = CallId(self.ticket);
        let ask = Ask::Get { key: 1, level };
        self.tell(&Observation::Invoked { client: ClientId(1), call, ask, command: &[], session: None })?;
        self.tell(&Observation::Answered { call, answer: &Answer::Saw { value, revision, at: ID } })
    }
}

#[test]
fn a_lone_node_does_everything_right() {
    let mut lone = Lone::start();
    lone.run().expect("it leads");
    lone.put(1, 7).expect("a write");
    lone.put(1, 8).expect("another");
    lone.read(Level::Lease, Some(8), 3).expect("fresh");
    lone.read(Level::Eventual, Some(8), 3).expect("fresh");
    lone.judges.observe(Instant(lone.now.mono.0), &Observation::Healed { core: &[ID] }).expect("healed");
    lone.judges
        .observe(Instant(lone.now.mono.0), &Observation::Finished { core: &[&lone.node], watching: &[] })
        .expect("nothing is owed");
    let verdicts = lone.judges.finish().expect("all fine");
    assert_eq!((verdicts.writes, verdicts.lease_reads, verdicts.blind), (2, 1, 0));
    assert_eq!((verdicts.decided, verdicts.leader_after), (4, Some(0)));
    assert!(verdicts.compared >= 3 && verdicts.searched_operations == 3, "{verdicts:?}");
}

#[test]
fn a_stale_read_a_lost_write_and_an_early_decision_are_found() {
    let mut lone = Lone::start();
    lone.run().expect("it leads");
    lone.put(1, 7).expect("a write");
    assert_eq!(lone.read(Level::Lease, None, 1).expect_err("stale").oracle, linearizability::NAME);
    assert_eq!(lone.read(Level::Eventual, Some(9), 2).expect_err("never").oracle, linearizability::NAME);

    let mut lone = Lone::start();
    lone.run().expect("it leads");
    lone.put(1, 7).expect("a write");
    lone.read(Level::Linearizable, Some(8), 3).expect("it may come");
    assert_eq!(lone.judges.finish().expect_err("it did not").oracle, durable_acknowledgements::NAME);

    let mut lone = Lone::start();
    lone.run().expect("it leads");
    lone.put(1, 7).expect("a write");
    lone.disk.log.truncate(1);
    assert_eq!(lone.look().expect_err("decided and gone").oracle, monotony::NAME);
}

/// What an observation costs: `cargo test --release … -- --ignored --nocapture observations_are_cheap`.
#[test]
#[ignore = "a measurement, not a test"]
#[allow(clippy::print_stdout, reason = "it prints what it measures")]
fn observations_are_cheap() {
    let mut lone = Lone::start();
    lone.run().expect("it leads");
    let rounds = 1_000_000_u32;
    let since = std::time::Instant::now();
    for _ in 0..rounds {
        lone.look().expect("nothing changes");
    }
    let quiet = since.elapsed() / rounds;
    let rounds = 20_000;
    let since = std::time::Instant::now();
    for value in 1..=u64::from(rounds) {
        lone.put(value % 16, value).expect("a write");
    }
    let busy = since.elapsed() / rounds;
    let since = std::time::Instant::now();
    let verdicts = lone.judges.finish().expect("all fine");
    println!("unchanged {quiet:?}; a put with the node and six observations {busy:?}");
    println!("the end {:?}; {verdicts:?}", since.elapsed());
}
