//! Rules of the thesis that need an exact sequence: one node, its peers' words made by hand.

use d_engine::raft::message::{AppendOutcome, Appended, Body, Decision, Election, Standing, Vote};
use d_engine::raft::{
    Config, Durability, Held, Membership, Message, Mono, Now, Output, Raft, Restored, RoleName, Write,
};
use std::time::Duration;
use wal::{
    ClusterId, Flushed, FrameBuilder, FrameHead, GroupId, HardState, LogIndex, NodeId, Term, frame::origin,
};

pub(super) struct Single {
    pub(super) raft: Raft,
    pub(super) now: Now,
    pub(super) writes: Vec<Write>,
    /// What it said and nobody has looked at yet.
    pub(super) said: Vec<(NodeId, Message)>,
}

fn config(durability: Durability) -> Config {
    Config {
        id: NodeId(1),
        cluster: ClusterId(1),
        group: GroupId::FIRST,
        seed: 1,
        heartbeat: Duration::from_millis(50),
        election_timeout: Duration::from_millis(250),
        promise: Duration::from_millis(250),
        drift_bound_ppm: 100_000,
        append_bytes: 1 << 20,
        in_flight_bytes: 1 << 20,
        durability,
        unflushed_entries: 32,
    }
}

impl Single {
    /// Node 1 of three, started for the first time.
    pub(super) fn first_started(durability: Durability) -> Self {
        let empty = Restored {
            hard_state: HardState::default(),
            commit: LogIndex(0),
            standing: Standing::Whole,
            held: None,
        };
        let mut raft = Raft::new(config(durability), empty);
        let now = Now { mono: Mono(1), wall_ms: 0 };
        raft.begin(now, &Membership::of_voters([1, 2, 3].map(NodeId)).expect("valid"));
        Self { raft, now, writes: Vec::new(), said: Vec::new() }
    }

    /// Node 1 of three, whose log holds the founding entry and one entry of term 1.
    fn with_an_entry_of_term_1() -> Self {
        Self::restored(1, Standing::Whole, None, Durability::DiskFirst)
    }

    /// The same, in a later term, with a past.
    pub(super) fn restored(
        term: u64,
        standing: Standing,
        held: Option<Held>,
        durability: Durability,
    ) -> Self {
        let config = config(durability);
        let founders = Membership::of_voters([1, 2, 3].map(NodeId)).expect("valid");
        let start = origin(config.cluster, config.group);
        let head = |previous, term| FrameHead { group: GroupId::FIRST, term, previous, timestamp_ms: 0 };
        let first = FrameBuilder::membership(head(start, Term(0)), &founders.encode());
        let second = FrameBuilder::noop(head(first.id(), Term(1)));
        let hard_state = HardState { term: Term(term), vote: None, ..HardState::default() };
        let mut raft = Raft::new(config, Restored { hard_state, commit: LogIndex(0), standing, held });
        raft.restore(first, LogIndex(0)).expect("valid");
        raft.restore(second, LogIndex(0)).expect("valid");
        let now = Now { mono: Mono(1), wall_ms: 0 };
        raft.begin(now, &founders);
        Self { raft, now, writes: Vec::new(), said: Vec::new() }
    }

    pub(super) fn turn(&mut self) {
        self.raft.finish(self.now);
        while let Some(output) = self.raft.poll_output() {
            match output {
                Output::Write(write) => self.writes.push(write),
                Output::Send { to, message } => self.said.push((to, message)),
                Output::Knock(_) | Output::Fetch(_) | Output::Halt(_) => {}
            }
        }
    }

    pub(super) fn hear(&mut self, from: u64, term: u64, body: Body) {
        self.raft.handle_message(self.now, NodeId(from), Message { term: Term(term), body });
        self.turn();
    }

    fn hear_vote(&mut self, election: Election) {
        let vote = Vote { election, decision: Decision::Granted, standing: Standing::Whole };
        self.hear(2, 2, Body::Vote(vote));
    }

    fn hear_accepted(&mut self, matched: u64) {
        let outcome = AppendOutcome::Accepted { matched: LogIndex(matched) };
        self.hear(2, 2, Body::Appended(Appended { outcome, probe: 0 }));
    }

    pub(super) fn flush(&mut self) {
        for write in std::mem::take(&mut self.writes) {
            let proof = Flushed::simulated(write.id());
            self.raft.handle_written(self.now, write.flushed(proof));
        }
        self.turn();
    }

    /// Elects node 1 in term 2; its no-op, entry 3, is not on its disk yet.
    fn elect(&mut self) {
        self.now.mono = self.raft.poll_timeout().expect("an election timeout");
        self.raft.handle_timeout(self.now);
        self.turn();
        self.hear_vote(Election::PreVote);
        self.hear_vote(Election::Vote);
        assert_ne!(self.raft.role(), RoleName::Leader, "its own vote is not on its disk");
        self.flush();
        assert_eq!(self.raft.role(), RoleName::Leader);
        assert_eq!(self.raft.log().last().index, LogIndex(3));
    }
}

#[test]
fn thesis_3_6_2_an_entry_of_an_older_term_is_not_decided_by_counting() {
    let mut node = Single::with_an_entry_of_term_1();
    node.elect();
    node.flush();
    // Entry 2, of term 1, is on two of three disks: figure 3.7 shows how it may still be replaced.
    node.hear_accepted(2);
    assert_eq!(node.raft.commit(), LogIndex(1));
    node.hear_accepted(3);
    assert_eq!(node.raft.commit(), LogIndex(3), "decided together with an entry of the leader's own term");
}

#[test]
fn thesis_10_2_1_a_leader_counts_itself_once_its_own_disk_has_the_entry() {
    let mut node = Single::with_an_entry_of_term_1();
    node.elect();
    node.hear_accepted(3);
    assert_eq!(node.raft.commit(), LogIndex(1), "on one disk of three");
    node.flush();
    assert_eq!(node.raft.commit(), LogIndex(3));
}

#[test]
fn thesis_6_4_a_read_waits_for_an_entry_of_the_leaders_own_term() {
    let mut node = Single::with_an_entry_of_term_1();
    node.elect();
    let round = node.raft.join_read_round().expect("it leads");
    assert_eq!(round.index, LogIndex(3), "what earlier leaders decided is known only with its own no-op");
    assert!(!node.raft.is_confirmed(round), "nobody has answered yet");
}
