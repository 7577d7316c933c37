//! The transport's outside: what a driver calls, in the order it calls it.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::{Bytes, BytesMut};
use quinn_proto as quic;
use quinn_proto::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use ring::{hkdf, hmac};

use crate::greeting::Greeting;
use crate::link::{Link, PER_MESSAGE, Stage};
use crate::peers::{Jitter, Peer};
use crate::refusals::{LogLimit, refusal_of};
use crate::tls::WallClock;
use crate::{
    CloseCode, Config, ConfigError, DisconnectReason, Event, Identity, Lane, MAX_GSO_BYTES, PeerAddress,
    PeerId, Refusal, SendError, Stats, Tls,
};

/// Congestion marks of an IP packet (RFC 3168).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Ecn {
    /// ECT(1).
    Ect1 = 0b01,
    /// ECT(0).
    Ect0 = 0b10,
    /// Congestion experienced.
    Ce = 0b11,
}

impl Ecn {
    /// From the two bits of the IP header; `None` for "not ECN-capable".
    #[must_use]
    pub const fn from_bits(bits: u8) -> Option<Self> {
        match bits & 0b11 {
            0b01 => Some(Self::Ect1),
            0b10 => Some(Self::Ect0),
            0b11 => Some(Self::Ce),
            _ => None,
        }
    }
}

/// Where a received datagram came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// The sender.
    pub from: SocketAddr,
    /// The local address it was sent to, if the socket tells.
    pub local_ip: Option<IpAddr>,
    /// Its congestion mark.
    pub ecn: Option<Ecn>,
}

/// Where the bytes go that [`Transport::poll_transmit`] wrote into the caller's buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// The receiver.
    pub to: SocketAddr,
    /// The congestion mark to send with.
    pub ecn: Option<Ecn>,
    /// Bytes in the buffer, under 65,507.
    pub size: usize,
    /// If set, the buffer holds several datagrams of this size, the last one possibly shorter.
    pub segment_size: Option<usize>,
    /// The local address to send from, where it matters.
    pub src_ip: Option<IpAddr>,
}

/// All peers of a node. See the crate's documentation.
pub struct Transport {
    pub(crate) config: Config,
    pub(crate) endpoint: quic::Endpoint,
    pub(crate) client: quic::ClientConfig,
    quic: Arc<quic::TransportConfig>,
    token_key: [u8; 32],
    /// What this node says first on every connection.
    pub(crate) greeting: Bytes,
    /// By QUIC's handle, which are small numbers that are used again.
    pub(crate) links: Vec<Option<Box<Link>>>,
    pub(crate) half_open: usize,
    /// Ordered by id.
    pub(crate) peers: Vec<Peer>,
    pub(crate) jitter: Jitter,
    pub(crate) now: Instant,
    clock: Arc<WallClock>,
    /// A moment in both clocks, and when the second next changes.
    wall: (Instant, SystemTime),
    next_second: Instant,
    pub(crate) events: VecDeque<Event>,
    /// What the messages in `events` cost. Reading stops at `receive_bytes` and goes on at half of it.
    pub(crate) waiting_bytes: usize,
    pub(crate) reading_stalled: bool,
    /// Links whose events must be looked at, and links that may have something to send. A link is on each at most once.
    pub(crate) dirty: VecDeque<usize>,
    pub(crate) sending: VecDeque<usize>,
    /// Answers that belong to no connection: Retry, reset, refusals.
    replies: VecDeque<(quic::Transmit, Vec<u8>)>,
    /// The earliest timeout, unless something changed since it was computed.
    timeout: Option<Option<Instant>>,
    scratch: Vec<u8>,
    pub(crate) messages: Vec<(Lane, Bytes)>,
    pub(crate) log: LogLimit,
    pub(crate) stats: Stats,
    pub(crate) closing: bool,
}

/// Answers to strangers that may wait to be sent; beyond, they are not answered.
const MAX_REPLIES: usize = 64;

impl Transport {
    /// Checks the configuration and begins to dial.
    ///
    /// # Errors
    /// [`ConfigError`] says what does not fit.
    pub fn new(config: Config, now: Instant) -> Result<Self, ConfigError> {
        config.check()?;
        let quic = config.quic()?;
        let clock = Arc::new(WallClock::default());
        clock.set(config.wall_clock);

        // A restarted node must recognise its connection ids and know the reset tokens of its former life, so that it
        // can tell peers at once that their connections are gone. Its private key is what both lives share.
        let secret = hkdf::Salt::new(hkdf::HKDF_SHA256, b"d-engine transport").extract(config.tls.secret());
        let reset = hmac::Key::new(hmac::HMAC_SHA256, &derive(&secret, b"stateless reset"));
        let cid_key = derive(&secret, b"connection id");
        let cid_key = u64::from_le_bytes(*cid_key.first_chunk().expect("32 bytes"));
        let mut endpoint = quic::EndpointConfig::new(Arc::new(reset));
        endpoint.cid_generator(move || Box::new(quic::HashedConnectionIdGenerator::from_key(cid_key)));
        endpoint
            .max_udp_payload_size(config.max_datagram)
            .map_err(|_| ConfigError::Limits("max_datagram is out of QUIC's range"))?;
        endpoint.supported_versions(vec![QUIC_V1]);

        let client = client(&config.tls, &clock, &quic)?;
        let own = config.node;
        let mut peers: Vec<_> = config.peers.iter().filter(|peer| peer.id != own).copied().collect();
        peers.sort_unstable_by_key(|peer| peer.id);
        let mut transport = Self {
            endpoint: quic::Endpoint::new(Arc::new(endpoint), None, true, Some(config.seed)),
            client,
            quic,
            token_key: derive(&secret, b"retry token"),
            greeting: Greeting { cluster: config.cluster, node: own, incarnation: config.incarnation }
                .encode(),
            links: Vec::new(),
            half_open: 0,
            peers: Vec::new(),
            jitter: Jitter::new(config.seed),
            now,
            clock,
            wall: (now, config.wall_clock),
            next_second: now + Duration::from_secs(1),
            events: VecDeque::new(),
            waiting_bytes: 0,
            reading_stalled: false,
            dirty: VecDeque::new(),
            sending: VecDeque::new(),
            replies: VecDeque::new(),
            timeout: None,
            scratch: Vec::new(),
            messages: Vec::new(),
            log: LogLimit::default(),
            stats: Stats::default(),
            closing: false,
            config,
        };
        for peer in peers {
            transport.insert_peer(peer);
        }
        transport.listen()?;
        Ok(transport)
    }

    /// Takes one received datagram. With receive offload, split what the kernel joined into datagrams first.
    ///
    /// Hand in all that has been received before `handle_timeout`: after a pause of the process, a peer's sign of life
    /// may lie in the socket. Messages are slices of `data` where possible, so whoever keeps a message keeps the
    /// allocation that `data` belongs to.
    pub fn handle_datagram(&mut self, now: Instant, meta: Datagram, data: BytesMut) {
        self.advance(now);
        self.stats.datagrams_received += 1;
        self.stats.bytes_received += data.len() as u64;
        let ecn = meta.ecn.and_then(|ecn| quic::EcnCodepoint::from_bits(ecn as u8));
        self.scratch.clear();
        let event = self.endpoint.handle(self.now, meta.from, meta.local_ip, ecn, data, &mut self.scratch);
        match event {
            Some(quic::DatagramEvent::ConnectionEvent(handle, event)) => {
                if let Some(link) = &mut self.links[handle.0] {
                    link.connection.handle_event(event);
                }
                self.touch(handle.0);
            }
            Some(quic::DatagramEvent::NewConnection(incoming)) => self.handle_incoming(incoming),
            Some(quic::DatagramEvent::Response(transmit)) => self.reply(transmit),
            None => self.stats.datagrams_ignored += 1,
        }
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.advance(now);
        for at in 0..self.links.len() {
            let Some(link) = &mut self.links[at] else { continue };
            if link.timeout.is_none_or(|due| due > self.now) {
                continue;
            }
            link.connection.handle_timeout(self.now);
            let late = matches!(link.stage, Stage::Handshake | Stage::Greeting) && link.greet_by <= self.now;
            if late {
                self.give_up(at);
            }
            self.touch(at);
        }
        self.dial_due();
    }

    /// When `handle_timeout` is next due.
    pub fn poll_timeout(&mut self) -> Option<Instant> {
        self.settle();
        if let Some(timeout) = self.timeout {
            return timeout;
        }
        let links = self.links.iter().flatten().filter_map(|link| link.timeout);
        let dials = self.peers.iter().filter_map(|peer| peer.dial_at);
        let earliest = links.chain(dials).min();
        self.timeout = Some(earliest);
        earliest
    }

    /// Replaces the content of `buf` by the next datagrams to send. Call until `None`.
    pub fn poll_transmit(&mut self, now: Instant, buf: &mut Vec<u8>) -> Option<Transmit> {
        self.advance(now);
        self.settle();
        buf.clear();
        if let Some((transmit, bytes)) = self.replies.pop_front() {
            buf.extend_from_slice(&bytes);
            return Some(self.sent(&transmit));
        }
        while let Some(at) = self.sending.pop_front() {
            let Some(link) = &mut self.links[at] else { continue };
            let size = usize::from(link.connection.current_mtu());
            let segments = self.config.max_segments.min(MAX_GSO_BYTES / size).max(1);
            if let Some(transmit) = link.connection.poll_transmit(self.now, segments, buf) {
                // To the end of the list: peers take turns.
                self.sending.push_back(at);
                return Some(self.sent(&transmit));
            }
            link.sending = false;
            link.refresh_timeout();
            self.timeout = None;
        }
        None
    }

    /// The next thing that happened.
    pub fn poll_event(&mut self) -> Option<Event> {
        if self.events.is_empty() {
            self.settle();
        }
        let event = self.events.pop_front()?;
        match &event {
            Event::Received { message, .. } => {
                self.waiting_bytes -= message.len() + PER_MESSAGE;
                if self.reading_stalled && self.waiting_bytes <= self.config.receive_bytes / 2 {
                    self.resume_reading();
                }
            }
            Event::Refused { .. } => self.log.waiting -= 1,
            Event::Connected { .. } | Event::Disconnected { .. } => {}
        }
        Some(event)
    }

    /// Queues one message, the concatenation of `parts`. Large parts are not copied.
    ///
    /// # Errors
    /// [`SendError`]; nothing was queued then.
    pub fn send(&mut self, peer: PeerId, lane: Lane, parts: &[Bytes]) -> Result<(), SendError> {
        let slot = self.find_peer(peer).ok_or(SendError::Unknown)?;
        let at = self.peers[slot].up.filter(|_| self.is_told(peer)).ok_or(SendError::NotConnected)?;
        let length = parts.iter().map(Bytes::len).sum::<usize>();
        let limit = self.config.max_message;
        let wire = u32::try_from(length).ok().filter(|_| length <= limit);
        let wire = wire.ok_or(SendError::TooLong { length, limit })?;
        let link = self.links[at].as_mut().ok_or(SendError::NotConnected)?;
        let queued = link.queued(lane);
        if queued > 0 && queued + length > self.config.queue_bytes {
            self.stats.queue_full += 1;
            return Err(SendError::Full { lane, queued, limit: self.config.queue_bytes });
        }
        link.queue(lane, parts, wire);
        self.stats.messages_sent += 1;
        self.touch(at);
        Ok(())
    }

    /// Whether the caller has taken out the newest `Connected` of this peer. Until then it may not know that what the
    /// peer's former life said is over, and must not speak to the new one.
    fn is_told(&self, id: PeerId) -> bool {
        // Mostly there are no events by the time anything is sent.
        !self.events.iter().any(|event| matches!(event, Event::Connected { peer, .. } if *peer == id))
    }

    /// Bytes that wait to be handed to QUIC; up to a window (16 MiB and more) lies beyond, sent but not acknowledged.
    #[must_use]
    pub fn queued_bytes(&self, peer: PeerId, lane: Lane) -> usize {
        let up = self.find_peer(peer).and_then(|slot| self.peers[slot].up);
        up.and_then(|at| self.links[at].as_ref()).map_or(0, |link| link.queued(lane))
    }

    /// Whether the peer's connection is up.
    #[must_use]
    pub fn is_connected(&self, peer: PeerId) -> bool {
        self.find_peer(peer).is_some_and(|slot| self.peers[slot].up.is_some())
    }

    /// The counters.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let mut stats = self.stats.clone();
        stats.connected = self.peers.iter().filter(|peer| peer.up.is_some()).count();
        stats.half_open = self.half_open;
        stats
    }

    /// The peer listens elsewhere now. A connection that is up stays as long as it works; the next dial goes there.
    ///
    /// # Errors
    /// If the address cannot be dialed.
    pub fn set_address(&mut self, now: Instant, peer: PeerAddress) -> Result<(), ConfigError> {
        crate::config::check_address(peer)?;
        self.advance(now);
        if let Some(slot) = self.find_peer(peer.id) {
            self.move_peer(slot, peer.address);
        }
        Ok(())
    }

    /// Replaces the set of peers: connections to those no longer listed are closed, new ones are dialed.
    ///
    /// # Errors
    /// If an address cannot be dialed or a peer is listed twice; nothing changes then.
    pub fn set_peers(&mut self, now: Instant, peers: &[PeerAddress]) -> Result<(), ConfigError> {
        self.advance(now);
        let mut config = self.config.clone();
        config.peers = peers.to_vec();
        config.check()?;
        self.config = config;
        self.replace_peers(peers);
        self.listen()
    }

    /// Uses another certificate of the same node from now on, after a rotation. Connections that are up stay.
    ///
    /// # Errors
    /// If it is another node's, or TLS cannot use it; nothing changes then.
    pub fn set_tls(&mut self, now: Instant, tls: Tls) -> Result<(), ConfigError> {
        self.advance(now);
        let mut config = self.config.clone();
        config.tls = tls;
        config.check()?;
        self.client = client(&config.tls, &self.clock, &self.quic)?;
        self.config = config;
        self.listen()
    }

    /// Tells the wall clock, by which certificates are judged, where it differs from what the `Instant`s add up to.
    pub fn set_wall_clock(&mut self, now: Instant, wall: SystemTime) {
        self.wall = (now, wall);
        self.next_second = now;
        self.advance(now);
    }

    /// Closes every connection politely and dials no more. Drain `poll_transmit` afterwards: that sends the goodbyes.
    pub fn close(&mut self, now: Instant) {
        self.advance(now);
        self.closing = true;
        for at in 0..self.links.len() {
            self.end(at, DisconnectReason::Closed, CloseCode::Goodbye);
        }
        for peer in &mut self.peers {
            peer.dial_at = None;
        }
        self.timeout = None;
    }

    /// (Re)makes what is needed to accept: the verifier knows the peers by name.
    fn listen(&mut self) -> Result<(), ConfigError> {
        let cluster = self.config.cluster;
        let peers = self.peers.iter().map(|peer| Identity { cluster, node: peer.id }).collect();
        let tls = self.config.tls.server(&self.clock, peers).map_err(ConfigError::Tls)?;
        let tls = QuicServerConfig::try_from(tls).map_err(|e| ConfigError::Tls(e.to_string()))?;
        let token_key = hkdf::Prk::new_less_safe(hkdf::HKDF_SHA256, &self.token_key);
        let mut server = quic::ServerConfig::new(Arc::new(tls), Arc::new(token_key));
        server
            .transport_config(Arc::clone(&self.quic))
            .time_source(Arc::<WallClock>::clone(&self.clock))
            .max_incoming(self.config.max_half_open)
            .incoming_buffer_size(64 << 10)
            .incoming_buffer_size_total(4 << 20);
        // No tokens for later connections: peers are few and their handshakes rare.
        server.validation_token.sent(0);
        self.endpoint.set_server_config(Some(Arc::new(server)));
        Ok(())
    }

    /// Someone wants a connection. Strangers have a bounded number of places; before those run out they must prove that
    /// they can be reached at their address, which costs no memory here.
    fn handle_incoming(&mut self, incoming: quic::Incoming) {
        let from = incoming.remote_address();
        // A socket for both families writes an IPv4 sender as an IPv6 address.
        let ip = from.ip().to_canonical();
        let known = self.peers.iter().any(|peer| peer.address.ip().to_canonical() == ip);
        let proven = incoming.remote_address_validated();
        let places = self.config.max_half_open * if known && proven { 2 } else { 1 };
        self.scratch.clear();
        if self.closing {
            self.endpoint.ignore(incoming);
        } else if !proven && self.half_open >= (self.config.max_half_open / 4).max(1) {
            match self.endpoint.retry(incoming, &mut self.scratch) {
                Ok(transmit) => {
                    self.stats.retries += 1;
                    self.reply(transmit);
                }
                Err(error) => self.endpoint.ignore(error.into_incoming()),
            }
        } else if self.half_open >= places {
            self.endpoint.ignore(incoming);
            self.refuse(from, None, Refusal::TooMany, "too many unfinished handshakes");
        } else {
            match self.endpoint.accept(incoming, self.now, &mut self.scratch, None) {
                Ok((handle, connection)) => self.insert_link(handle, connection, None),
                // The leftovers of a handshake with this node's former life, or noise.
                Err(quic::AcceptError { response: None, .. }) => self.stats.datagrams_ignored += 1,
                Err(quic::AcceptError { response: Some(transmit), cause }) => {
                    self.reply(transmit);
                    let reason = refusal_of(&cause, false).unwrap_or(Refusal::Handshake);
                    self.refuse(from, None, reason, &cause.to_string());
                }
            }
        }
    }

    pub(crate) fn advance(&mut self, now: Instant) {
        self.now = self.now.max(now);
        if self.now >= self.next_second {
            let (then, wall) = self.wall;
            self.clock.set(wall + self.now.duration_since(then));
            self.next_second = self.now + Duration::from_secs(1);
        }
    }

    /// Notes that something happened on a link.
    pub(crate) fn touch(&mut self, at: usize) {
        let Some(link) = &mut self.links[at] else { return };
        if !link.dirty {
            link.dirty = true;
            self.dirty.push_back(at);
        }
    }

    pub(crate) fn timeouts_changed(&mut self) {
        self.timeout = None;
    }

    fn reply(&mut self, transmit: quic::Transmit) {
        if self.replies.len() < MAX_REPLIES {
            let bytes = self.scratch[..transmit.size].to_vec();
            self.replies.push_back((transmit, bytes));
        }
    }

    fn sent(&mut self, transmit: &quic::Transmit) -> Transmit {
        self.stats.datagrams_sent +=
            transmit.segment_size.map_or(1, |size| transmit.size.div_ceil(size)) as u64;
        self.stats.bytes_sent += transmit.size as u64;
        Transmit {
            to: transmit.destination,
            ecn: transmit.ecn.and_then(|ecn| Ecn::from_bits(ecn as u8)),
            size: transmit.size,
            segment_size: transmit.segment_size,
            src_ip: transmit.src_ip,
        }
    }
}

const QUIC_V1: u32 = 1;

/// What dialing needs. The name to expect is given at each dial.
fn client(
    tls: &Tls,
    clock: &Arc<WallClock>,
    quic: &Arc<quic::TransportConfig>,
) -> Result<quic::ClientConfig, ConfigError> {
    let tls = tls.client(clock).map_err(ConfigError::Tls)?;
    let tls = QuicClientConfig::try_from(tls).map_err(|e| ConfigError::Tls(e.to_string()))?;
    let mut client = quic::ClientConfig::new(Arc::new(tls));
    client.transport_config(Arc::clone(quic));
    Ok(client)
}

fn derive(secret: &hkdf::Prk, label: &[u8]) -> [u8; 32] {
    let mut key = [0; 32];
    let info = [label];
    let filled = secret.expand(&info, hkdf::HKDF_SHA256).and_then(|okm| okm.fill(&mut key));
    filled.expect("32 bytes are what SHA-256 gives");
    key
}

impl std::fmt::Debug for Transport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transport")
            .field("node", &self.config.node)
            .field("peers", &self.peers.len())
            .finish()
    }
}
