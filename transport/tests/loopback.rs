//! Two transports over real UDP sockets on loopback: the whole path works, and how fast, printed and not judged.
//!
//! The sockets are the standard library's, without offload, so this shows a floor: drivers do better.

use std::net::UdpSocket;
use std::time::{Duration, Instant, UNIX_EPOCH};

use bytes::{Bytes, BytesMut};
use transport::{Config, Datagram, EphemeralAuthority, Event, Lane, PeerAddress, PeerId, Transport};

struct End {
    socket: UdpSocket,
    transport: Transport,
    received: (u64, u64),
    buffer: Vec<u8>,
}

impl End {
    fn turn(&mut self) {
        let mut datagram = [0; 8192];
        for _ in 0..64 {
            let Ok((length, from)) = self.socket.recv_from(&mut datagram) else { break };
            let meta = Datagram { from, local_ip: None, ecn: None };
            self.transport.handle_datagram(Instant::now(), meta, BytesMut::from(&datagram[..length]));
        }
        let now = Instant::now();
        if self.transport.poll_timeout().is_some_and(|due| due <= now) {
            self.transport.handle_timeout(now);
        }
        while let Some(event) = self.transport.poll_event() {
            match event {
                Event::Received { message, .. } => {
                    self.received = (self.received.0 + 1, self.received.1 + message.len() as u64);
                }
                Event::Connected { .. } => {}
                other => panic!("{other:?}"),
            }
        }
        while let Some(transmit) = self.transport.poll_transmit(now, &mut self.buffer) {
            for segment in self.buffer.chunks(transmit.segment_size.unwrap_or(transmit.size)) {
                // A full socket buffer is loss, which QUIC repairs.
                let _ = self.socket.send_to(segment, transmit.to);
            }
        }
    }
}

#[test]
#[allow(clippy::print_stdout)]
fn messages_cross_real_sockets() {
    let authority = EphemeralAuthority::new(1).expect("randomness");
    let sockets = [1, 2].map(|_| UdpSocket::bind("127.0.0.1:0").expect("a port"));
    let addresses = sockets.each_ref().map(|socket| socket.local_addr().expect("bound"));
    let mut ends = sockets.into_iter().zip(1..).map(|(socket, node)| {
        socket.set_nonblocking(true).expect("nonblocking");
        let tls = authority.issue(PeerId(node)).expect("randomness");
        let mut config = Config::new(tls, node, UNIX_EPOCH + Duration::from_secs(1 << 30), [9; 32]);
        config.peers =
            (1..).zip(addresses).map(|(id, address)| PeerAddress { id: PeerId(id), address }).collect();
        (config.initial_datagram, config.max_datagram) = (6000, 6000);
        let transport = Transport::new(config, Instant::now()).expect("sound");
        End { socket, transport, received: (0, 0), buffer: Vec::new() }
    });
    let (mut one, mut two) = (ends.next().expect("two"), ends.next().expect("two"));
    let patience = Instant::now() + Duration::from_secs(30);
    while !(one.transport.is_connected(PeerId(2)) && two.transport.is_connected(PeerId(1))) {
        assert!(Instant::now() < patience, "connected");
        one.turn();
        two.turn();
    }
    let bulk = Bytes::from(vec![5; 256 << 10]);
    let small = Bytes::from(vec![6; 300]);
    for (name, message, count) in [("256 KiB", bulk, 400_u64), ("300 B", small, 200_000)] {
        let before = two.received;
        let start = Instant::now();
        let mut sent = 0;
        while two.received.0 - before.0 < count {
            assert!(Instant::now() < patience, "{name}: {sent} sent, {:?} received", two.received);
            while sent < count && one.transport.queued_bytes(PeerId(2), Lane::Log) < 1 << 20 {
                one.transport.send(PeerId(2), Lane::Log, std::slice::from_ref(&message)).expect("room");
                sent += 1;
            }
            one.turn();
            two.turn();
        }
        let bytes = two.received.1 - before.1;
        assert_eq!(bytes, count * message.len() as u64);
        let seconds = start.elapsed().as_secs_f64();
        #[allow(clippy::cast_precision_loss)]
        let rate = bytes as f64 / seconds / 1e6;
        println!("{name}: {count} messages, {rate:.0} MB/s, both ends on one thread");
    }
}
