//! A network of transports whose every datagram and every instant is the test's.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::BytesMut;

use crate::*;

pub(super) const CLUSTER: u128 = 0xC0FFEE;

/// One authority for all tests: making one costs a key.
pub(super) fn authority() -> &'static EphemeralAuthority {
    static AUTHORITY: OnceLock<EphemeralAuthority> = OnceLock::new();
    AUTHORITY.get_or_init(|| EphemeralAuthority::new(CLUSTER).expect("randomness"))
}

pub(super) fn tls(node: u64) -> Tls {
    static NODES: OnceLock<std::sync::Mutex<BTreeMap<u64, Tls>>> = OnceLock::new();
    let mut nodes = NODES.get_or_init(Default::default).lock().expect("no panic inside");
    nodes.entry(node).or_insert_with(|| authority().issue(PeerId(node)).expect("randomness")).clone()
}

pub(super) fn wall() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

pub(super) fn address(node: u64) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, u8::try_from(node).expect("small")], 9000))
}

pub(super) fn peer(node: u64) -> PeerAddress {
    PeerAddress { id: PeerId(node), address: address(node) }
}

/// The configuration of `node` with `peers`, in its first life.
pub(super) fn config(node: u64, peers: &[u64]) -> Config {
    config_with(tls(node), 1000 + node, peers)
}

pub(super) fn config_with(tls: Tls, incarnation: u64, peers: &[u64]) -> Config {
    let mut seed = [7; 32];
    seed[..8].copy_from_slice(&incarnation.to_le_bytes());
    let mut config = Config::new(tls, incarnation, wall(), seed);
    config.peers = peers.iter().map(|&node| peer(node)).collect();
    config
}

pub(super) struct Node {
    pub(super) transport: Transport,
    pub(super) events: Vec<Event>,
}

/// How the network treats datagrams. Chances are per thousand.
#[derive(Clone, Copy)]
pub(super) struct Weather {
    pub(super) latency: Duration,
    pub(super) jitter: Duration,
    pub(super) lost: u64,
    pub(super) doubled: u64,
    pub(super) mtu: usize,
}

pub(super) const FAIR: Weather =
    Weather { latency: Duration::from_micros(200), jitter: Duration::ZERO, lost: 0, doubled: 0, mtu: 9000 };

pub(super) struct Net {
    pub(super) start: Instant,
    pub(super) now: Instant,
    pub(super) weather: Weather,
    pub(super) nodes: BTreeMap<SocketAddr, Node>,
    /// Pairs between which nothing passes, in this direction.
    pub(super) cut: BTreeSet<(SocketAddr, SocketAddr)>,
    pub(super) largest: usize,
    pub(super) carried: u64,
    on_the_way: BTreeMap<(Instant, u64), (SocketAddr, SocketAddr, BytesMut)>,
    sequence: u64,
    random: u64,
}

impl Net {
    pub(super) fn new(seed: u64, weather: Weather) -> Self {
        let start = Instant::now();
        Self {
            start,
            now: start,
            weather,
            nodes: BTreeMap::new(),
            cut: BTreeSet::new(),
            largest: 0,
            carried: 0,
            on_the_way: BTreeMap::new(),
            sequence: 0,
            random: seed.wrapping_mul(2) | 1,
        }
    }

    /// A network with nodes 1 to `count`, all peers of each other.
    pub(super) fn cluster(seed: u64, weather: Weather, count: u64) -> Self {
        let mut net = Self::new(seed, weather);
        let all: Vec<u64> = (1..=count).collect();
        for &node in &all {
            net.join(node, config(node, &all));
        }
        net
    }

    /// (Re)starts a node at its address; what was there is gone without a word.
    pub(super) fn join(&mut self, node: u64, config: Config) {
        let transport = Transport::new(config, self.now).expect("a sound configuration");
        self.nodes.insert(address(node), Node { transport, events: Vec::new() });
    }

    pub(super) fn node(&mut self, node: u64) -> &mut Node {
        self.nodes.get_mut(&address(node)).expect("joined")
    }

    pub(super) fn transport(&mut self, node: u64) -> &mut Transport {
        &mut self.node(node).transport
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.now - self.start
    }

    pub(super) fn cut(&mut self, a: u64, b: u64) {
        self.cut.extend([(address(a), address(b)), (address(b), address(a))]);
    }

    pub(super) fn heal(&mut self) {
        self.cut.clear();
    }

    fn chance(&mut self, thousandth: u64) -> bool {
        self.draw() % 1000 < thousandth
    }

    fn draw(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random >> 11
    }

    fn post(&mut self, from: SocketAddr, to: SocketAddr, datagram: &[u8]) {
        self.largest = self.largest.max(datagram.len());
        let copies = if self.chance(self.weather.lost) {
            0
        } else {
            1 + usize::from(self.chance(self.weather.doubled))
        };
        if self.cut.contains(&(from, to)) || datagram.len() > self.weather.mtu {
            return;
        }
        for _ in 0..copies {
            self.carried += 1;
            let jitter = u64::try_from(self.weather.jitter.as_nanos()).expect("short") + 1;
            let delay = self.weather.latency + Duration::from_nanos(self.draw() % jitter);
            self.sequence += 1;
            self.on_the_way.insert((self.now + delay, self.sequence), (from, to, BytesMut::from(datagram)));
        }
    }

    /// Takes out what the nodes have to say.
    pub(super) fn drain(&mut self) {
        let mut buffer = Vec::new();
        let addresses: Vec<_> = self.nodes.keys().copied().collect();
        for from in addresses {
            let mut posts = Vec::new();
            let node = self.nodes.get_mut(&from).expect("listed");
            while let Some(event) = node.transport.poll_event() {
                node.events.push(event);
            }
            while let Some(transmit) = node.transport.poll_transmit(self.now, &mut buffer) {
                assert!(transmit.size < 65_507 && transmit.size == buffer.len());
                for segment in buffer.chunks(transmit.segment_size.unwrap_or(transmit.size)) {
                    posts.push((transmit.to, segment.to_vec()));
                }
            }
            for (to, datagram) in posts {
                self.post(from, to, &datagram);
            }
        }
    }

    /// Lets the next thing happen: a datagram arrives, or a timeout is due. `false` if nothing ever will.
    pub(super) fn step(&mut self) -> bool {
        self.drain();
        let arrival = self.on_the_way.keys().next().map(|&(at, _)| at);
        let timeout = self.nodes.values_mut().filter_map(|node| node.transport.poll_timeout()).min();
        let Some(next) = arrival.into_iter().chain(timeout).min() else { return false };
        self.now = self.now.max(next);
        while let Some(entry) = self.on_the_way.first_entry() {
            if entry.key().0 > self.now {
                break;
            }
            let (from, to, datagram) = entry.remove();
            if let Some(node) = self.nodes.get_mut(&to) {
                let meta = Datagram { from, local_ip: None, ecn: None };
                node.transport.handle_datagram(self.now, meta, datagram);
            }
        }
        for node in self.nodes.values_mut() {
            if node.transport.poll_timeout().is_some_and(|due| due <= self.now) {
                node.transport.handle_timeout(self.now);
            }
        }
        true
    }

    /// Steps until `done`, which must come within `limit` of virtual time.
    #[track_caller]
    pub(super) fn until(&mut self, limit: Duration, what: &str, mut done: impl FnMut(&mut Self) -> bool) {
        let end = self.now + limit;
        for _ in 0..5_000_000 {
            self.drain();
            if done(self) {
                return;
            }
            assert!(self.now <= end, "not within {limit:?}: {what}; {}", self.report());
            assert!(self.step(), "the network is silent: {what}; {}", self.report());
        }
        panic!("five million steps: {what}");
    }

    /// Steps for this long.
    pub(super) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end && self.step() {}
        self.drain();
    }

    #[track_caller]
    pub(super) fn connect(&mut self, a: u64, b: u64) {
        self.until(Duration::from_secs(5), "connected", |net| {
            net.transport(a).is_connected(PeerId(b)) && net.transport(b).is_connected(PeerId(a))
        });
    }

    fn report(&self) -> String {
        let lines = self.nodes.iter().map(|(at, node)| {
            let tail: Vec<_> =
                node.events.iter().rev().take(5).map(|event| format!("{event:.60?}")).collect();
            format!("{at}: {:?} last events {tail:?}", node.transport.stats())
        });
        lines.collect::<Vec<_>>().join("\n")
    }
}

impl Node {
    /// The messages received so far on a lane.
    pub(super) fn received(&self, lane: Lane) -> Vec<&[u8]> {
        let of_lane = |event| match event {
            &Event::Received { lane: on, ref message, .. } if on == lane => Some(message.as_ref()),
            _ => None,
        };
        self.events.iter().filter_map(of_lane).collect()
    }

    pub(super) fn count(&self, wanted: impl Fn(&Event) -> bool) -> usize {
        self.events.iter().filter(|event| wanted(event)).count()
    }

    pub(super) fn disconnects(&self) -> Vec<DisconnectReason> {
        let reason = |event: &Event| match event {
            Event::Disconnected { reason, .. } => Some(*reason),
            _ => None,
        };
        self.events.iter().filter_map(reason).collect()
    }
}
