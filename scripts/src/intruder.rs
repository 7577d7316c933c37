//! Someone who speaks the peers' protocol on a socket of his own, with whatever certificate he has.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant, SystemTime};

use bytes::{Bytes, BytesMut};
use transport::{Config, Datagram, Event, Lane, PeerAddress, PeerId, Refusal, Tls, Transport};

use crate::random::Random;

/// Longest sleep on the socket.
const TURN: Duration = Duration::from_millis(5);

/// The intruder: a transport, a socket and the time.
#[derive(Debug)]
pub struct Intruder {
    transport: Transport,
    socket: UdpSocket,
    target: PeerId,
}

impl Intruder {
    /// Listen on `address` and dial `target`, with room for messages of `max_message` bytes.
    pub fn new(
        tls: Tls,
        address: SocketAddr,
        target: (u64, SocketAddr),
        max_message: usize,
        seed: u64,
    ) -> io::Result<Self> {
        let socket = bind(address)?;
        let mut random = Random::new(seed);
        let key = random.bytes(32).try_into().expect("32 bytes");
        let mut config = Config::new(tls, random.bits(), SystemTime::now(), key);
        let target_id = PeerId(target.0);
        config.peers = vec![PeerAddress { id: target_id, address: target.1 }];
        config.max_message = max_message;
        config.queue_bytes = config.queue_bytes.max(max_message);
        config.receive_bytes = config.receive_bytes.max(max_message);
        // The honest ones send these too; he need not be slower.
        config.dial_delay = Duration::ZERO;
        config.max_segments = 1;
        let transport = Transport::new(config, Instant::now()).map_err(io::Error::other)?;
        Ok(Self { transport, socket, target: target_id })
    }

    /// Move datagrams until `done` says so of an event, or time is up: then nothing.
    pub fn until<T>(
        &mut self,
        limit: Duration,
        mut done: impl FnMut(&Event) -> Option<T>,
    ) -> io::Result<Option<T>> {
        let deadline = Instant::now() + limit;
        let (mut buffer, mut out) = (vec![0_u8; 65_536], Vec::new());
        loop {
            let now = Instant::now();
            while let Some(event) = self.transport.poll_event() {
                if let Some(result) = done(&event) {
                    self.flush(&mut out)?;
                    return Ok(Some(result));
                }
            }
            self.flush(&mut out)?;
            if now >= deadline {
                return Ok(None);
            }
            let due = self.transport.poll_timeout().unwrap_or(deadline).min(deadline);
            let wait = due.saturating_duration_since(now).clamp(Duration::from_micros(100), TURN);
            self.socket.set_read_timeout(Some(wait))?;
            if let Ok((length, from)) = self.socket.recv_from(&mut buffer) {
                let meta = Datagram { from, local_ip: None, ecn: None };
                self.transport.handle_datagram(Instant::now(), meta, BytesMut::from(&buffer[..length]));
            }
            let now = Instant::now();
            if self.transport.poll_timeout().is_some_and(|due| due <= now) {
                self.transport.handle_timeout(now);
            }
        }
    }

    fn flush(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        while let Some(transmit) = self.transport.poll_transmit(Instant::now(), out) {
            match self.socket.send_to(&out[..transmit.size], transmit.to) {
                // Nobody there: a datagram is lost, as on any network.
                Err(error) if error.kind() != io::ErrorKind::ConnectionRefused => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Whether the target let him in.
    pub fn admitted(&mut self, limit: Duration) -> io::Result<Result<(), Option<Refusal>>> {
        let outcome = self.until(limit, |event| match event {
            Event::Connected { .. } => Some(Ok(())),
            Event::Refused { reason, .. } => Some(Err(Some(*reason))),
            _ => None,
        })?;
        Ok(outcome.unwrap_or(Err(None)))
    }

    /// Send one message; needs to be admitted.
    pub fn send(&mut self, lane: Lane, message: Vec<u8>) -> Result<(), transport::SendError> {
        self.transport.send(self.target, lane, &[Bytes::from(message)])
    }
}

/// Bind, with patience: the kernel lets go of a killed process's io_uring, and of the sockets it polls, only after the process
/// is gone.
fn bind(address: SocketAddr) -> io::Result<UdpSocket> {
    let deadline = Instant::now() + Duration::from_secs(2);
    loop {
        match UdpSocket::bind(address) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < deadline => {
                std::thread::sleep(TURN);
            }
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use transport::EphemeralAuthority;

    fn pair(victim: Tls, intruder: Tls, max_message: usize) -> (Intruder, Intruder) {
        let local = "127.0.0.1:0".parse().unwrap();
        let (victim_id, intruder_id) = (victim.identity().node.0, intruder.identity().node.0);
        let mut victim =
            Intruder::new(victim, local, (intruder_id, "127.0.0.1:9".parse().unwrap()), 1000, 1).unwrap();
        let address = victim.socket.local_addr().unwrap();
        let intruder = Intruder::new(intruder, local, (victim_id, address), max_message, 2).unwrap();
        victim.transport.poll_event();
        (victim, intruder)
    }

    /// Both ends at once, each on a thread, until the intruder's outcome is known.
    fn outcome(
        mut victim: Intruder,
        mut intruder: Intruder,
    ) -> (Result<(), Option<Refusal>>, transport::Stats) {
        let attempt = std::thread::spawn(move || intruder.admitted(Duration::from_secs(10)).unwrap());
        while !attempt.is_finished() {
            victim.until(Duration::from_millis(10), |_| None::<()>).unwrap();
        }
        (attempt.join().unwrap(), victim.transport.stats())
    }

    #[test]
    fn members_are_admitted_and_strangers_are_not() {
        let (ours, theirs) = (EphemeralAuthority::new(7).unwrap(), EphemeralAuthority::new(7).unwrap());
        let issue = |authority: &EphemeralAuthority, node| authority.issue(PeerId(node)).unwrap();

        let (victim, member) = pair(issue(&ours, 2), issue(&ours, 1), 1000);
        assert_eq!(outcome(victim, member).0, Ok(()));

        let (victim, stranger) = pair(issue(&ours, 2), issue(&theirs, 1), 1000);
        let (outcome, stats) = outcome(victim, stranger);
        assert!(outcome.is_err());
        // Here it is the stranger that refuses first: the victim's certificate is another authority's to him.
        assert_eq!(stats.connections, 0);
    }
}
