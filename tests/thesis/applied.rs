//! Figure 3.1, "Rules for Servers", what concerns the state machine: the whole `Node`, alone and as one of three.

use bytes::{Bytes, BytesMut};
use d_engine::kv::{self, encode_put};
use d_engine::node::{Answer, Input, Limits, Message, Node, Output, Reply, Ticket};
use d_engine::raft::message::{Append, Body, Election, Standing};
use d_engine::raft::{self, Mono, Now, Restored, Write};
use std::time::Duration;
use wal::{Flushed, HardState, LogIndex, NodeId, Term};

use crate::server::{accepted, alive, granted, heartbeat, log, start, voters, with_command};

struct Whole {
    node: Node<kv::Store>,
    now: Now,
    writes: Vec<Write>,
    sent: Vec<(NodeId, Message)>,
    answers: Vec<Answer<kv::Store>>,
}

fn put(key: &[u8]) -> Bytes {
    let mut command = BytesMut::new();
    encode_put(key, b"value", &mut command).expect("short");
    command.freeze()
}

impl Whole {
    fn of(count: u64) -> Self {
        let restored = Restored {
            hard_state: HardState::default(),
            commit: LogIndex(0),
            standing: Standing::Whole,
            held: None,
        };
        let now = Now { mono: Mono(1), wall_ms: 0 };
        let node = Node::restoring(start(&[]).config, Limits::default(), 1, kv::Store::new(), restored)
            .begin(now, &voters(count));
        let mut whole = Self { node, now, writes: Vec::new(), sent: Vec::new(), answers: Vec::new() };
        whole.drain();
        whole
    }

    fn drain(&mut self) {
        while let Some(output) = self.node.poll_output() {
            match output {
                Output::Write(write) => self.writes.push(write),
                Output::Send { to, message } => self.sent.push((to, message)),
                Output::Answers(answers) => self.answers.extend(answers),
                Output::Halt(why) => panic!("{why}"),
                Output::Knock(_) | Output::Fetch(_) | Output::Submit | Output::Leadership(_) => {}
            }
        }
    }

    fn handle(&mut self, input: Input) {
        self.node.handle(self.now, input);
        self.drain();
    }

    fn hear(&mut self, from: u64, term: u64, body: Body) {
        let message = Message::Raft(raft::Message { term: Term(term), body });
        self.handle(Input::Message { from: NodeId(from), message });
    }

    fn time_out(&mut self) {
        self.now.mono = self.node.poll_timeout().expect("a timer is set").max(self.now.mono);
        self.handle(Input::Timeout);
    }

    fn flush(&mut self) {
        while !self.writes.is_empty() {
            for write in std::mem::take(&mut self.writes) {
                let proof = Flushed::simulated(write.id());
                self.handle(Input::Written(write.flushed(proof)));
            }
        }
    }

    /// Makes it the leader of term 1 among three.
    fn lead() -> Self {
        let mut whole = Self::of(3);
        whole.time_out();
        whole.hear(2, 1, granted(Election::PreVote));
        whole.flush();
        whole.hear(2, 1, granted(Election::Vote));
        whole.flush();
        whole.hear(2, 1, accepted(2));
        whole
    }

    fn applied(&self) -> u64 {
        self.node.status().applied.0
    }

    fn newest_probe(&mut self) -> u64 {
        let probes = self.sent.drain(..).filter_map(|(_, message)| match message {
            Message::Raft(raft::Message { body: Body::Heartbeat(beat), .. }) => Some(beat.probe),
            _ => None,
        });
        probes.max().expect("a probe was sent")
    }
}

#[test]
fn figure_3_1_all_servers_apply_what_is_committed_in_order_and_nothing_else() {
    let mut server = Whole::of(3);
    let history = with_command(with_command(log(&[0, 1]), 1, &put(b"a")), 1, &put(b"b"));
    for (commit, revision) in [(1, 1), (2, 1), (3, 2), (3, 2), (4, 3)] {
        let (previous, frames) = (history[0].id(), history[1..].to_vec());
        let append = Append { previous, frames, commit: LogIndex(commit), probe: 0, promise: Duration::ZERO };
        server.hear(2, 1, Body::Append(append));
        assert_eq!((server.applied(), server.node.status().revision), (commit, revision));
    }
}

#[test]
fn figure_3_1_leaders_respond_after_the_entry_is_applied() {
    let mut server = Whole::lead();
    server.handle(Input::Propose { ticket: Ticket(1), command: put(b"a") });
    assert!(server.answers.is_empty());
    server.flush();
    assert!(server.answers.is_empty(), "on one disk of three");
    server.hear(3, 1, accepted(3));
    assert_eq!(server.applied(), 3);
    let answer = server.answers.pop().expect("answered");
    assert!(matches!(answer.outcome, Ok(Reply::Applied(kv::Reply::Put { .. }))), "{answer:?}");
}

#[test]
fn section_6_4_steps_4_and_5_a_read_waits_until_the_state_machine_is_as_new_as_its_index() {
    let mut server = Whole::lead();
    server.handle(Input::Propose { ticket: Ticket(1), command: put(b"a") });
    server.hear(2, 1, accepted(3));
    server.flush();
    assert_eq!(server.applied(), 3);
    server.handle(Input::Read { ticket: Ticket(2) });
    server.answers.clear();
    let probe = server.newest_probe();
    assert!(server.answers.is_empty(), "step 3: nobody has confirmed that it leads");
    server.hear(2, 1, alive(probe));
    let answer = server.answers.pop().expect("answered");
    assert!(matches!((answer.ticket, answer.outcome), (Ticket(2), Ok(Reply::Readable))));
}

#[test]
fn section_6_4_a_follower_asks_its_leader_for_the_index_and_applies_up_to_it() {
    let mut server = Whole::of(3);
    server.hear(2, 1, heartbeat(1, 0));
    server.flush();
    server.sent.clear();
    server.handle(Input::Read { ticket: Ticket(7) });
    let Some((NodeId(2), Message::AskIndex(ask))) = server.sent.pop() else { panic!("{:?}", server.sent) };
    let index = d_engine::node::message::Index {
        incarnation: ask.incarnation,
        number: ask.number,
        index: Some(LogIndex(2)),
    };
    server.handle(Input::Message { from: NodeId(2), message: Message::Index(index) });
    assert!(server.answers.is_empty(), "its state machine is at entry 1");
    let history = log(&[0, 1]);
    let (previous, frames) = (history[0].id(), history[1..].to_vec());
    server.hear(
        2,
        1,
        Body::Append(Append { previous, frames, commit: LogIndex(2), probe: 0, promise: Duration::ZERO }),
    );
    let answer = server.answers.pop().expect("answered");
    assert!(matches!((answer.ticket, answer.outcome), (Ticket(7), Ok(Reply::Readable))));
}

/// Not the thesis's: those who are answered ask again while the others are on their way.
#[test]
fn section_10_2_many_calls_go_in_two_halves_and_few_together() {
    for (calls, sizes) in [(200, [200, 0]), (256, [256, 0]), (600, [300, 300]), (1_001, [501, 500])] {
        let mut server = Whole::lead();
        let now = server.now;
        for call in 0..calls {
            server.node.handle(now, Input::Propose { ticket: Ticket(call), command: put(b"key") });
        }
        server.drain();
        for (round, size) in sizes.into_iter().enumerate() {
            let sent: Vec<usize> = server.sent.drain(..).filter_map(commands_for(2)).collect();
            assert_eq!(sent.iter().sum::<usize>(), size, "{calls} calls, batch {round}");
            server.flush();
            let last = server.node.raft().log().last().index.0;
            server.hear(2, 1, accepted(last));
        }
        assert_eq!(server.answers.len() as u64, calls, "everybody is answered");
    }
}

/// How many commands an append to this peer has.
fn commands_for(peer: u64) -> impl Fn((NodeId, Message)) -> Option<usize> {
    move |(to, message)| match message {
        Message::Raft(raft::Message { body: Body::Append(append), .. }) if to == NodeId(peer) => {
            Some(append.frames.iter().map(|frame| frame.command_count() as usize).sum())
        }
        _ => None,
    }
}
