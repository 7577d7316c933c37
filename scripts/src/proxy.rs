//! A UDP proxy between nodes: the network of a job, with its faults.
//!
//! Each pair of nodes has two sockets here: one is B as A sees it, the other A as B sees it. What A sends to its B leaves
//! from B's A, so both see one stable address of the other and nothing else passes between them. Each direction has its own
//! [`Weather`]. One thread moves everything; nothing is kept beyond [`QUEUE`] delayed datagrams, as in any router.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::random::Random;

/// Datagrams waiting for their delay; what comes on top is dropped and counted.
pub const QUEUE: usize = 65_536;

/// What happens to datagrams of one direction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Weather {
    /// Nothing passes.
    pub cut: bool,
    /// Lost, of a million.
    pub loss: u32,
    /// Sent twice, of a million.
    pub duplicate: u32,
    /// One bit flipped, of a million.
    pub corrupt: u32,
    /// Each datagram waits for a time of this range, so a wide range also reorders.
    pub delay: Range<Duration>,
}

impl Weather {
    /// Everything passes at once.
    pub const FAIR: Self =
        Self { cut: false, loss: 0, duplicate: 0, corrupt: 0, delay: Duration::ZERO..Duration::ZERO };
    /// Nothing passes.
    pub const CUT: Self = Self { cut: true, ..Self::FAIR };
}

/// What became of the datagrams of one direction.
#[derive(Debug, Default)]
struct Tally {
    passed: AtomicU64,
    dropped: AtomicU64,
    duplicated: AtomicU64,
    corrupted: AtomicU64,
}

/// The same, read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Count {
    /// Sent on.
    pub passed: u64,
    /// Lost on purpose, or for want of room, or because the receiver was not there.
    pub dropped: u64,
    /// Sent twice.
    pub duplicated: u64,
    /// Sent with a flipped bit.
    pub corrupted: u64,
}

/// The ends of a pair: real address, and the socket that stands for it towards the other.
#[derive(Debug)]
struct End {
    node: usize,
    address: SocketAddr,
    face: UdpSocket,
}

#[derive(Debug, Default)]
struct Direction {
    from: usize,
    to: usize,
    weather: Mutex<Option<Weather>>,
    tally: Tally,
}

/// The proxies between all pairs of a cluster.
#[derive(Debug)]
pub struct Proxy {
    directions: Arc<Vec<Direction>>,
    faces: Vec<(usize, usize, SocketAddr)>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Proxy {
    /// Sockets on `host` between all pairs of `nodes` (their real addresses), in fair weather.
    pub fn start(host: IpAddr, nodes: &[SocketAddr], seed: u64) -> io::Result<Self> {
        let (mut pairs, mut directions, mut faces) = (Vec::new(), Vec::new(), Vec::new());
        for (a, &address_a) in nodes.iter().enumerate() {
            for (b, &address_b) in nodes.iter().enumerate().skip(a + 1) {
                let mut ends = Vec::new();
                for (node, address, seen_by) in [(a, address_a, b), (b, address_b, a)] {
                    let face = UdpSocket::bind((host, 0))?;
                    face.set_nonblocking(true)?;
                    faces.push((seen_by, node, face.local_addr()?));
                    directions.push(Direction { from: node, to: seen_by, ..Direction::default() });
                    ends.push(End { node, address, face });
                }
                let [first, second]: [End; 2] = ends.try_into().expect("two ends");
                pairs.push((first, second));
            }
        }
        let directions = Arc::new(directions);
        let stop = Arc::new(AtomicBool::new(false));
        let mut mover = Mover {
            pairs,
            directions: Arc::clone(&directions),
            delayed: BinaryHeap::new(),
            sequence: 0,
            random: Random::new(seed),
        };
        let thread = std::thread::Builder::new().name("udp-proxy".into()).spawn({
            let stop = Arc::clone(&stop);
            move || {
                while !stop.load(Ordering::Relaxed) {
                    mover.turn();
                }
            }
        })?;
        Ok(Self { directions, faces, stop, thread: Some(thread) })
    }

    /// The address under which `viewer` reaches `node`.
    pub fn address(&self, viewer: usize, node: usize) -> SocketAddr {
        let found = self.faces.iter().find(|(v, n, _)| (*v, *n) == (viewer, node));
        found.expect("two different nodes of the cluster").2
    }

    /// Set the weather of one direction.
    pub fn set(&self, from: usize, to: usize, weather: &Weather) {
        for direction in self.directions.iter().filter(|d| (d.from, d.to) == (from, to)) {
            *direction.weather.lock().unwrap_or_else(PoisonError::into_inner) = Some(weather.clone());
        }
    }

    /// Set the weather of all directions.
    pub fn set_all(&self, weather: &Weather) {
        for direction in self.directions.iter() {
            self.set(direction.from, direction.to, weather);
        }
    }

    /// Cut every direction between `group` and the rest; everything else becomes fair.
    pub fn isolate(&self, group: &[usize]) {
        for direction in self.directions.iter() {
            let crosses = group.contains(&direction.from) != group.contains(&direction.to);
            self.set(direction.from, direction.to, if crosses { &Weather::CUT } else { &Weather::FAIR });
        }
    }

    /// What became of all datagrams so far.
    pub fn count(&self) -> Count {
        let mut sum = Count::default();
        for Direction { tally, .. } in self.directions.iter() {
            sum.passed += tally.passed.load(Ordering::Relaxed);
            sum.dropped += tally.dropped.load(Ordering::Relaxed);
            sum.duplicated += tally.duplicated.load(Ordering::Relaxed);
            sum.corrupted += tally.corrupted.load(Ordering::Relaxed);
        }
        sum
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A datagram on its way: ordered by the time it is due, then by arrival.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Delayed {
    due: Instant,
    sequence: u64,
    pair: usize,
    to_second: bool,
    bytes: Vec<u8>,
}

#[derive(Debug)]
struct Mover {
    pairs: Vec<(End, End)>,
    directions: Arc<Vec<Direction>>,
    delayed: BinaryHeap<Reverse<Delayed>>,
    sequence: u64,
    random: Random,
}

/// Longest sleep, so that a stop is noticed.
const TURN: Duration = Duration::from_millis(20);
/// Datagrams taken from one socket before the next has its turn.
const BURST: usize = 64;

impl Mover {
    fn turn(&mut self) {
        let now = Instant::now();
        let wait = self
            .delayed
            .peek()
            .map_or(TURN, |Reverse(next)| next.due.saturating_duration_since(now).min(TURN));
        {
            let mut waited: Vec<PollFd<'_>> = self
                .pairs
                .iter()
                .flat_map(|(first, second)| [&first.face, &second.face])
                .map(|face| PollFd::new(face, PollFlags::IN))
                .collect();
            let timeout = Timespec::try_from(wait).expect("below a second");
            // An interrupted poll is a short one.
            let _ = poll(&mut waited, Some(&timeout));
        }
        let mut buffer = [0_u8; 65_536];
        for pair in 0..self.pairs.len() {
            for to_second in [true, false] {
                for _ in 0..BURST {
                    if !self.take(pair, to_second, &mut buffer) {
                        break;
                    }
                }
            }
        }
        while self.delayed.peek().is_some_and(|Reverse(next)| next.due <= Instant::now()) {
            if let Some(Reverse(next)) = self.delayed.pop() {
                self.pass(next.pair, next.to_second, &next.bytes);
            }
        }
    }

    /// The directions are stored pair by pair, first to second, then second to first.
    fn direction(&self, pair: usize, to_second: bool) -> &Direction {
        let direction = &self.directions[2 * pair + usize::from(!to_second)];
        let (first, second) = &self.pairs[pair];
        let from = if to_second { first.node } else { second.node };
        assert_eq!(direction.from, from, "directions are in the order of the pairs");
        direction
    }

    /// Take one datagram in; false if there is none.
    fn take(&mut self, pair: usize, to_second: bool, buffer: &mut [u8]) -> bool {
        let (first, second) = &self.pairs[pair];
        // The first end sends to the face of the second.
        let (sender, face) = if to_second { (first, &second.face) } else { (second, &first.face) };
        let (length, from) = match face.recv_from(buffer) {
            Ok(received) => received,
            // The echo of a datagram to a node that is not there: one was lost, more may follow.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => return true,
            Err(_) => return false,
        };
        let weather = {
            let weather =
                self.direction(pair, to_second).weather.lock().unwrap_or_else(PoisonError::into_inner);
            weather.clone().unwrap_or(Weather::FAIR)
        };
        let lost = weather.cut || from != sender.address || self.random.per_million(weather.loss);
        if lost || self.delayed.len() >= QUEUE {
            self.direction(pair, to_second).tally.dropped.fetch_add(1, Ordering::Relaxed);
            return true;
        }
        let bytes = &mut buffer[..length];
        if length > 0 && self.random.per_million(weather.corrupt) {
            bytes[self.random.index(length)] ^= 1 << self.random.index(8);
            self.direction(pair, to_second).tally.corrupted.fetch_add(1, Ordering::Relaxed);
        }
        let copies = if self.random.per_million(weather.duplicate) { 2 } else { 1 };
        for copy in 0..copies {
            if copy > 0 {
                self.direction(pair, to_second).tally.duplicated.fetch_add(1, Ordering::Relaxed);
            }
            if weather.delay.end.is_zero() {
                self.pass(pair, to_second, bytes);
                continue;
            }
            let due = Instant::now() + self.random.duration(weather.delay.clone());
            self.sequence += 1;
            self.delayed.push(Reverse(Delayed {
                due,
                sequence: self.sequence,
                pair,
                to_second,
                bytes: bytes.to_vec(),
            }));
        }
        true
    }

    /// Send on. A datagram that was already on its way still arrives after a cut, as on a real network.
    fn pass(&self, pair: usize, to_second: bool, bytes: &[u8]) {
        let (first, second) = &self.pairs[pair];
        let (face, receiver) = if to_second { (&first.face, second) } else { (&second.face, first) };
        let tally = &self.direction(pair, to_second).tally;
        match face.send_to(bytes, receiver.address) {
            Ok(_) => tally.passed.fetch_add(1, Ordering::Relaxed),
            Err(_) => tally.dropped.fetch_add(1, Ordering::Relaxed),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    const HOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    struct Net {
        nodes: Vec<UdpSocket>,
        proxy: Proxy,
    }

    fn net(count: usize) -> Net {
        let nodes: Vec<UdpSocket> = (0..count).map(|_| UdpSocket::bind((HOST, 0)).unwrap()).collect();
        for node in &nodes {
            node.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        }
        let addresses: Vec<SocketAddr> = nodes.iter().map(|node| node.local_addr().unwrap()).collect();
        let proxy = Proxy::start(HOST, &addresses, 1).unwrap();
        Net { nodes, proxy }
    }

    impl Net {
        fn send(&self, from: usize, to: usize, bytes: &[u8]) {
            self.nodes[from].send_to(bytes, self.proxy.address(from, to)).unwrap();
        }

        fn receive(&self, node: usize) -> (Vec<u8>, SocketAddr) {
            let mut buffer = [0; 2048];
            let (length, from) = self.nodes[node].recv_from(&mut buffer).unwrap();
            (buffer[..length].to_vec(), from)
        }

        fn settled(&self, wanted: impl Fn(Count) -> bool) {
            let deadline = Instant::now() + Duration::from_secs(10);
            while !wanted(self.proxy.count()) {
                assert!(Instant::now() < deadline, "{:?}", self.proxy.count());
                std::thread::yield_now();
            }
        }
    }

    #[test]
    fn each_sees_the_other_under_one_stable_address() {
        let net = net(3);
        for (from, to) in [(0, 1), (1, 0), (0, 2), (2, 1)] {
            net.send(from, to, &[u8::try_from(from).unwrap(), 7]);
            let (bytes, sender) = net.receive(to);
            assert_eq!((bytes, sender), (vec![u8::try_from(from).unwrap(), 7], net.proxy.address(to, from)));
        }
    }

    #[test]
    fn a_cut_is_of_one_direction_and_heals() {
        let net = net(2);
        net.proxy.set(0, 1, &Weather::CUT);
        net.send(0, 1, b"lost");
        net.settled(|count| count.dropped == 1);
        net.send(1, 0, b"back");
        assert_eq!(net.receive(0).0, b"back");
        net.proxy.set_all(&Weather::FAIR);
        net.send(0, 1, b"healed");
        assert_eq!(net.receive(1).0, b"healed");
    }

    #[test]
    fn isolation_leaves_the_rest_together() {
        let net = net(3);
        net.proxy.isolate(&[0]);
        net.send(0, 1, b"lost");
        net.send(2, 0, b"lost");
        net.settled(|count| count.dropped == 2);
        net.send(1, 2, b"kept");
        assert_eq!(net.receive(2).0, b"kept");
    }

    #[test]
    fn strangers_are_dropped() {
        let net = net(2);
        UdpSocket::bind((HOST, 0)).unwrap().send_to(b"hello", net.proxy.address(0, 1)).unwrap();
        net.settled(|count| count.dropped == 1);
        assert_eq!(net.proxy.count().passed, 0);
    }

    #[test]
    fn storms_delay_reorder_duplicate_and_corrupt() {
        let net = net(2);
        let delay = Duration::from_millis(1)..Duration::from_millis(30);
        let storm = Weather { duplicate: 1_000_000, corrupt: 1_000_000, delay, ..Weather::FAIR };
        net.proxy.set(0, 1, &storm);
        let numbers: Vec<u8> = (0..50).collect();
        for number in &numbers {
            net.send(0, 1, &[*number; 9]);
        }
        let arrived: Vec<Vec<u8>> = (0..100).map(|_| net.receive(1).0).collect();
        assert!(
            arrived.iter().all(|bytes| bytes.iter().any(|byte| *byte != bytes[0])),
            "one bit flipped in each"
        );
        let order: Vec<u8> = arrived.iter().map(|bytes| bytes[1].min(bytes[2])).collect();
        assert!(!order.is_sorted(), "a delay of 1 to 30 ms reorders 100 datagrams");
        net.settled(|count| count == Count { passed: 100, dropped: 0, duplicated: 50, corrupted: 50 });
    }
}
