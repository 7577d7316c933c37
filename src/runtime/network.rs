//! The transport with its socket and its peers' names: everything of the loop that concerns other nodes.

use super::door::{Answer, Door};
use super::names::{Found, Names};
use super::socket::{Left, Origin, Sent, Socket};
use std::net::SocketAddr;
use std::time::Instant;
use transport::{Datagram, Ecn, Event, PeerAddress, PeerId, Transmit, Transport};
use wal::NodeId;

/// Batches taken from the socket in one turn.
const RECEIVES: usize = 32;
/// Runs handed to the socket in one turn.
const SENDS: usize = 256;
/// How soon a socket whose buffer was full is tried again. It drains at the speed of the link.
const RETRY: std::time::Duration = std::time::Duration::from_micros(500);

/// Whether a step did all there was to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Done {
    All,
    /// It stopped at its limit.
    Part,
}

/// The loop's side of the network.
pub(crate) struct Network {
    pub(crate) transport: Transport,
    socket: Socket,
    names: Names,
    peers: Vec<PeerAddress>,
    buffer: Vec<u8>,
    /// What the socket had no room for; its bytes are in `buffer`.
    held: Option<Transmit>,
    /// Of the peer that was knocked at last.
    door: Option<Door>,
}

impl Network {
    pub(crate) fn new(transport: Transport, socket: Socket, names: Names, peers: Vec<PeerAddress>) -> Self {
        Self { transport, socket, names, peers, buffer: Vec::new(), held: None, door: None }
    }

    pub(crate) fn socket(&self) -> &Socket {
        &self.socket
    }

    /// Feeds the transport with what has arrived, and with the time.
    pub(crate) fn receive(&mut self, now: Instant) -> Done {
        while let Some(found) = self.names.poll() {
            self.found(now, &found);
        }
        let received = self.empty_socket(now);
        // Only then: after a pause of this process a sign of life may still lie in the socket.
        if received == Done::All && self.transport.poll_timeout().is_some_and(|due| due <= now) {
            self.transport.handle_timeout(now);
        }
        received
    }

    fn empty_socket(&mut self, now: Instant) -> Done {
        let transport = &mut self.transport;
        for _ in 0..RECEIVES {
            match self.socket.receive(|origin, data| transport.handle_datagram(now, datagram(origin), data)) {
                Ok(Left::Nothing) => return Done::All,
                Ok(Left::Perhaps) => {}
                Err(error) => {
                    // Whatever it is, QUIC treats it as loss; saying so every time would fill the log.
                    tracing::debug!("receiving failed: {error}");
                    return Done::All;
                }
            }
        }
        Done::Part
    }

    /// The next thing that the transport has to say.
    pub(crate) fn poll_event(&mut self) -> Option<Event> {
        self.transport.poll_event()
    }

    /// Sends what the transport has to send.
    pub(crate) fn transmit(&mut self, now: Instant) -> Done {
        for _ in 0..SENDS {
            if self.held.is_none() {
                self.held = self.transport.poll_transmit(now, &mut self.buffer);
            }
            let Some(transmit) = self.held else { return Done::All };
            let run = quinn_udp::Transmit {
                destination: transmit.to,
                ecn: transmit.ecn.and_then(|ecn| quinn_udp::EcnCodepoint::from_bits(ecn as u8)),
                contents: &self.buffer[..transmit.size],
                segment_size: transmit.segment_size,
                src_ip: transmit.src_ip,
            };
            match self.socket.send(&run) {
                Sent::Gone => self.held = None,
                Sent::Later => return Done::All,
            }
        }
        Done::Part
    }

    /// When there is next something to do without a datagram arriving.
    pub(crate) fn poll_timeout(&mut self, now: Instant) -> Option<Instant> {
        let retry = self.held.map(|_| now + RETRY);
        [self.transport.poll_timeout(), retry].into_iter().flatten().min()
    }

    /// Says goodbye to all peers, as far as the socket takes it at once.
    pub(crate) fn close(&mut self, now: Instant) {
        self.transport.close(now);
        while self.transmit(now) == Done::Part {}
    }

    /// Knocks at a peer's door: whether the kernel says that nobody listens there.
    pub(crate) fn knock(&mut self, peer: NodeId) -> Answer {
        let Some(address) = self.peers.iter().find(|known| known.id.0 == peer.0).map(|known| known.address)
        else {
            return Answer::None;
        };
        let door = match self.door.take() {
            Some(door) if door.leads_to() == address => Ok(door),
            _ => self.socket.local_addr().and_then(|local| Door::find(local.ip(), address)),
        };
        match door {
            Ok(door) => self.door.insert(door).knock(),
            Err(error) => {
                tracing::debug!(%peer, "cannot knock: {error}");
                Answer::None
            }
        }
    }

    fn found(&mut self, now: Instant, found: &Found) {
        let peer = PeerAddress { id: PeerId(found.peer.0), address: found.address };
        let result = if let Some(known) = self.peers.iter_mut().find(|known| known.id == peer.id) {
            *known = peer;
            self.transport.set_address(now, peer)
        } else {
            self.peers.push(peer);
            self.transport.set_peers(now, &self.peers)
        };
        if let Err(error) = result {
            tracing::warn!("peer's address is not used: {error}");
        }
    }

    /// Where this node listens.
    pub(crate) fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.socket.local_addr()
    }
}

fn datagram(origin: Origin) -> Datagram {
    let ecn = origin.ecn.and_then(|ecn| Ecn::from_bits(ecn as u8));
    Datagram { from: origin.from, local_ip: origin.local_ip, ecn }
}
