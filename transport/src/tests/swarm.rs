//! Three nodes in a network that misbehaves at random, by seed: whatever happened, what was promised holds.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;

use super::net::{FAIR, Net, Weather, config_with, tls};
use crate::{Event, Lane, PeerId, Refusal, SendError};

/// What a receiver knows of one sender.
#[derive(Default)]
struct Known {
    up: bool,
    /// The lives it had, the present one last.
    lives: Vec<u64>,
    /// Of this connection and lane, the last number.
    last: [Option<u64>; 2],
    /// Of this life and lane, the highest number.
    highest: [u64; 2],
}

struct Swarm {
    seed: u64,
    net: Net,
    random: u64,
    incarnations: [u64; 4],
    numbers: BTreeMap<(u64, u64, usize), u64>,
    known: BTreeMap<(u64, u64), Known>,
    received: u64,
}

impl Swarm {
    fn draw(&mut self, below: u64) -> u64 {
        self.random =
            self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) % below
    }

    fn say(&mut self, from: u64, to: u64, lane: Lane) {
        let incarnation = self.incarnations[usize::try_from(from).expect("small")];
        let number = self.numbers.entry((incarnation, to, lane.slot())).or_default();
        let mut bytes = incarnation.to_le_bytes().to_vec();
        bytes.extend_from_slice(&(*number + 1).to_le_bytes());
        let length = 16 + usize::try_from((incarnation ^ (*number * 7919)) % 6000).expect("small");
        bytes.resize(length, 1);
        match self.net.transport(from).send(PeerId(to), lane, &[Bytes::from(bytes)]) {
            Ok(()) => *number += 1,
            Err(SendError::NotConnected | SendError::Full { .. }) => {}
            Err(other) => panic!("{other}"),
        }
    }

    fn disturb(&mut self) {
        let (a, b) = [(1, 2), (1, 3), (2, 3)][usize::try_from(self.draw(3)).expect("small")];
        match self.draw(40) {
            0 => self.net.cut(a, b),
            1 => {
                self.net.cut.insert((super::net::address(a), super::net::address(b)));
            }
            2..=4 => self.net.heal(),
            5 | 6 => {
                let lost = [0, 0, 50, 200][usize::try_from(self.draw(4)).expect("small")];
                let latency = Duration::from_micros(50 << self.draw(9));
                self.net.weather =
                    Weather { latency, jitter: latency / 2, lost, doubled: lost / 2, mtu: 9000 };
            }
            7 => {
                let node = 1 + self.draw(3);
                let incarnation = 1000 + self.draw(1 << 20);
                self.incarnations[usize::try_from(node).expect("small")] = incarnation;
                self.check();
                self.net.join(node, config_with(tls(node), incarnation, &[1, 2, 3]));
                self.known.retain(|(receiver, _), _| *receiver != node);
            }
            _ => {
                let lane = Lane::ALL[usize::try_from(self.draw(2)).expect("small")];
                for _ in 0..=self.draw(20) {
                    self.say(a, b, lane);
                    self.say(b, a, lane);
                }
            }
        }
    }

    /// Holds what every node has seen against what was promised.
    fn check(&mut self) {
        for node in 1..=3 {
            for event in std::mem::take(&mut self.net.node(node).events) {
                let seed = self.seed;
                match event {
                    Event::Connected { peer, incarnation } => {
                        let known = self.known.entry((node, peer.0)).or_default();
                        assert!(!known.up, "seed {seed}: two connections at a time");
                        if known.lives.last() != Some(&incarnation) {
                            assert!(
                                !known.lives.contains(&incarnation),
                                "seed {seed}: a dead process came back"
                            );
                            known.lives.push(incarnation);
                            known.highest = [0; 2];
                        }
                        known.up = true;
                        known.last = [None; 2];
                    }
                    Event::Disconnected { peer, .. } => {
                        let known = self.known.entry((node, peer.0)).or_default();
                        assert!(known.up, "seed {seed}: disconnected twice");
                        known.up = false;
                    }
                    Event::Received { peer, lane, message } => {
                        let known = self.known.entry((node, peer.0)).or_default();
                        let word =
                            |at: usize| u64::from_le_bytes(*message[at..].first_chunk().expect("16 bytes"));
                        assert!(known.up, "seed {seed}: only while connected");
                        assert_eq!(
                            known.lives.last(),
                            Some(&word(0)),
                            "seed {seed}: from whom it says it is"
                        );
                        let (number, slot) = (word(8), lane.slot());
                        if let Some(last) = known.last[slot] {
                            assert_eq!(number, last + 1, "seed {seed}: in order, none lost, none twice");
                        }
                        assert!(number > known.highest[slot], "seed {seed}: nor twice on two connections");
                        known.last[slot] = Some(number);
                        known.highest[slot] = number;
                        self.received += 1;
                    }
                    // Handshakes die of the weather; nothing else may be refused.
                    Event::Refused { reason: Refusal::Timeout | Refusal::ByPeer, .. } => {}
                    Event::Refused { reason, .. } => panic!("seed {seed}: {reason}"),
                }
            }
        }
    }
}

#[test]
fn promises_hold_whatever_happens() {
    let mut received = 0;
    for seed in 0..30 {
        let mut net = Net::new(seed, FAIR);
        let incarnations = [0, 101, 102, 103];
        for node in 1..=3 {
            net.join(node, config_with(tls(node), 100 + node, &[1, 2, 3]));
        }
        let (numbers, known) = (BTreeMap::new(), BTreeMap::new());
        let mut swarm = Swarm { seed, net, random: seed, incarnations, numbers, known, received: 0 };
        for _ in 0..400 {
            swarm.disturb();
            let pause = Duration::from_micros(100 << swarm.draw(10));
            swarm.net.run(pause);
            swarm.check();
        }
        swarm.net.heal();
        swarm.net.weather = FAIR;
        for (a, b) in [(1, 2), (1, 3), (2, 3)] {
            swarm.net.connect(a, b);
        }
        swarm.net.run(Duration::from_secs(4));
        for node in 1..=3 {
            let stats = swarm.net.transport(node).stats();
            assert_eq!(stats.connected, 2, "seed {seed}: healed");
            assert_eq!(
                swarm.net.transport(node).links.iter().flatten().count(),
                2,
                "seed {seed}: nothing else stays"
            );
            assert_eq!(stats.violations, 0);
        }
        swarm.check();
        received += swarm.received;
    }
    assert!(received > 20_000, "{received} messages were judged");
}
