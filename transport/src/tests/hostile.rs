//! Peers that break the rules and strangers that send noise: closed or ignored, counted, and good peers notice nothing.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use quinn_proto::Dir;

use super::net::{FAIR, Net, Weather, address, config, config_with, peer, tls};
use crate::framing::lane_number;
use crate::link::{Link, Stage};
use crate::{CloseCode, Datagram, DisconnectReason, Event, Lane, PeerAddress, PeerId, Refusal};

/// Node 2 is up with 1 and then does something forbidden to its link; node 1 must close with `code`, a third node must
/// not notice, and node 2, better behaved, must be let in again.
fn violation(code: CloseCode, act: impl FnOnce(&mut Link)) {
    let mut net = Net::new(1, FAIR);
    for node in 1..=3 {
        let mut config = config(node, &[1, 2, 3]);
        config.max_message = 1000;
        net.join(node, config);
    }
    net.connect(1, 2);
    net.connect(1, 3);
    let slot = net.transport(2).find_peer(PeerId(1)).expect("a peer");
    let at = net.transport(2).peers[slot].up.expect("up");
    act(net.transport(2).links[at].as_mut().expect("up"));
    net.transport(2).touch(at);
    net.until(Duration::from_secs(1), "closed", |net| !net.node(1).disconnects().is_empty());
    assert_eq!(net.node(1).disconnects(), [DisconnectReason::Violation(code)]);
    assert_eq!(net.transport(1).stats().violations, 1);
    net.until(Duration::from_secs(1), "told", |net| !net.node(2).disconnects().is_empty());
    assert_eq!(net.node(2).disconnects(), [DisconnectReason::RefusedByPeer(code)]);
    net.connect(1, 2);
    assert_eq!(net.node(3).disconnects(), []);
    assert!(net.transport(1).is_connected(PeerId(3)));
}

#[test]
fn a_length_beyond_the_limit_closes() {
    for length in [1001, u32::MAX] {
        for lane in Lane::ALL {
            violation(CloseCode::TooLong, |link| link.raw_for_test(lane, &length.to_le_bytes()));
        }
    }
}

#[test]
fn an_unknown_lane_closes() {
    for number in [0, 3, 255] {
        violation(CloseCode::UnknownLane, |link| {
            let stream = link.connection.streams().open(Dir::Uni).expect("room for snapshots");
            link.connection.send_stream(stream).write(&[number, 1, 2, 3]).expect("room");
        });
    }
}

#[test]
fn a_lane_opened_twice_closes() {
    for lane in Lane::ALL {
        violation(CloseCode::LaneTwice, |link| {
            let stream = link.connection.streams().open(Dir::Uni).expect("room for snapshots");
            link.connection.send_stream(stream).write(&[lane_number(lane)]).expect("room");
        });
    }
}

#[test]
fn a_lane_that_ends_closes() {
    violation(CloseCode::LaneEnded, |link| {
        let stream = link.stream_for_test(Lane::Log);
        link.connection.send_stream(stream).finish().expect("open");
    });
    violation(CloseCode::LaneEnded, |link| {
        let stream = link.stream_for_test(Lane::Control);
        link.connection.send_stream(stream).reset(7_u8.into()).expect("open");
    });
}

/// What a node says on the log lane before it has greeted is not looked at, and is not lost either.
#[test]
fn nothing_is_believed_before_the_greeting() {
    let mut net = Net::new(2, FAIR);
    net.join(1, config(1, &[2]));
    let mut late = config(2, &[1]);
    late.dial_delay = Duration::ZERO;
    net.join(2, late);
    net.transport(2).dial_due();
    let at = net.transport(2).peers[0].dialing.expect("dialed at once");
    let link = |net: &mut Net, act: &mut dyn FnMut(&mut Link)| {
        act(net.transport(2).links[at].as_mut().expect("alive"));
        net.transport(2).touch(at);
    };
    net.cut.insert((address(1), address(99)));
    link(&mut net, &mut |link| link.hold_for_test(Lane::Control, true));
    // Node 1's own dial is out of the way.
    let now = net.now;
    net.transport(1).set_address(now, PeerAddress { id: PeerId(2), address: address(99) }).expect("sound");
    net.run(Duration::from_millis(20));
    link(&mut net, &mut |link| {
        assert!(matches!(link.stage, Stage::Up { .. }), "node 1 has greeted");
        link.queue(Lane::Log, &[Bytes::from_static(b"early")], 5);
    });
    net.run(Duration::from_millis(600));
    let open = net.transport(1).links.iter().flatten().find(|link| link.dialed.is_none()).expect("accepted");
    assert_eq!(open.stage, Stage::Greeting);
    assert_eq!(net.node(1).events, []);
    link(&mut net, &mut |link| link.hold_for_test(Lane::Control, false));
    net.run(Duration::from_millis(100));
    let (peer, message) = (PeerId(2), Bytes::from_static(b"early"));
    let incarnation = 1002;
    assert_eq!(
        net.node(1).events,
        [Event::Connected { peer, incarnation }, Event::Received { peer, lane: Lane::Log, message }]
    );
}

/// Everything random goes to a transport with one good connection, from strangers and in the good peer's name.
fn noise(datagrams: &[Vec<u8>]) {
    let mut net = Net::cluster(3, FAIR, 2);
    net.connect(1, 2);
    let stranger = SocketAddr::from(([192, 0, 2, 1], 4433));
    for datagram in datagrams {
        for from in [stranger, address(2)] {
            let now = net.now;
            let meta = Datagram { from, local_ip: None, ecn: None };
            net.transport(1).handle_datagram(now, meta, BytesMut::from(datagram.as_slice()));
        }
        net.drain();
    }
    net.transport(2).send(PeerId(1), Lane::Control, &[Bytes::from_static(b"alive")]).expect("up");
    net.until(Duration::from_secs(1), "alive", |net| net.node(1).received(Lane::Control) == [b"alive"]);
    assert_eq!(net.node(1).disconnects(), []);
    net.run(Duration::from_secs(2));
    assert_eq!(net.transport(1).stats().half_open, 0, "nothing of it stays");
}

#[test]
fn plaintext_is_ignored_and_counted() {
    let texts = ["GET / HTTP/1.1\r\nHost: raft\r\n\r\n", "", "\u{0}", "\u{16}\u{3}\u{1}\u{2}\u{0}\u{1}"];
    noise(&texts.map(|text| text.as_bytes().to_vec()));
    let mut net = Net::cluster(4, FAIR, 2);
    let meta = Datagram { from: address(77), local_ip: None, ecn: None };
    let now = net.now;
    net.transport(1).handle_datagram(now, meta, BytesMut::from(texts[0]));
    assert_eq!(net.transport(1).stats().datagrams_ignored, 1);
    net.connect(1, 2);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_datagrams_are_survived(
        datagrams in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..1500), 0..30),
    ) {
        noise(&datagrams);
    }

    /// Long headers of the right version with random insides, big enough to be taken for the start of a connection.
    #[test]
    fn near_initials_are_survived(
        insides in prop::collection::vec((any::<u8>(), prop::collection::vec(any::<u8>(), 1200..1300)), 1..20),
    ) {
        let datagrams: Vec<_> = insides.into_iter().map(|(first, mut bytes)| {
            bytes[0] = 0xC0 | first;
            bytes[1..5].copy_from_slice(&[0, 0, 0, 1]);
            bytes[5] = 8 + first % 13;
            bytes
        }).collect();
        noise(&datagrams);
    }

    /// Real datagrams of a real handshake and its traffic, with one bit flipped each.
    #[test]
    fn flipped_bits_are_survived(flips in prop::collection::vec(any::<u16>(), 1..12)) {
        let mut net = Net::cluster(5, FAIR, 2);
        let mut buffer = Vec::new();
        for flip in &flips {
            for (from, to) in [(1, 2), (2, 1)] {
                let now = net.now;
                let mut all = Vec::new();
                while let Some(transmit) = net.transport(from).poll_transmit(now, &mut buffer) {
                    let size = transmit.segment_size.unwrap_or(transmit.size);
                    all.extend(buffer.chunks(size).map(<[u8]>::to_vec));
                }
                for datagram in all {
                    let mut damaged = datagram.clone();
                    let bit = usize::from(*flip) % (damaged.len() * 8);
                    damaged[bit / 8] ^= 1 << (bit % 8);
                    for bytes in [damaged, datagram] {
                        let meta = Datagram { from: address(from), local_ip: None, ecn: None };
                        net.transport(to).handle_datagram(now, meta, BytesMut::from(bytes.as_slice()));
                    }
                }
                net.now += Duration::from_micros(100);
            }
        }
        net.connect(1, 2);
    }
}

/// One stranger begins hundreds of handshakes: it must prove its address first, gets a bounded number of places, and a peer
/// gets in meanwhile.
#[test]
fn half_open_handshakes_are_bounded() {
    let weather = Weather { latency: Duration::from_millis(20), ..FAIR };
    let mut net = Net::new(6, weather);
    let mut own = config(1, &[2]);
    own.max_half_open = 8;
    net.join(1, own);
    let mut flood = config_with(tls(9), 1, &[]);
    flood.peers = (10..400).map(|node| PeerAddress { id: PeerId(node), address: address(1) }).collect();
    flood.dial_delay = Duration::ZERO;
    net.join(9, flood);
    // The flood is there first.
    for _ in 0..4 {
        net.step();
    }
    net.join(2, config(2, &[1]));
    let mut most = 0;
    net.until(Duration::from_secs(5), "a peer gets in", |net| {
        most = most.max(net.transport(1).stats().half_open);
        net.transport(1).is_connected(PeerId(2))
    });
    let stats = net.transport(1).stats();
    assert!(stats.retries > 100, "{stats:?}");
    assert!(stats.refused(Refusal::TooMany) > 0, "{stats:?}");
    assert!(most <= 16, "{most} at once");
    let links = net.transport(1).links.len();
    assert!(links < 100, "{links} places were ever in use, closing ones included");
    assert!(net.node(1).count(|event| matches!(event, Event::Refused { .. })) > 0);
}

/// Strangers that begin a handshake and fall silent lose their place after the idle timeout.
#[test]
fn abandoned_handshakes_are_forgotten() {
    let mut net = Net::new(7, FAIR);
    net.join(1, config(1, &[2]));
    let mut flood = config_with(tls(9), 1, &[]);
    flood.peers = (10..14).map(|node| PeerAddress { id: PeerId(node), address: address(1) }).collect();
    flood.dial_delay = Duration::ZERO;
    net.join(9, flood);
    net.step();
    net.step();
    net.nodes.remove(&address(9));
    net.until(Duration::from_secs(1), "begun", |net| net.transport(1).stats().half_open == 4);
    net.until(Duration::from_secs(3), "forgotten", |net| net.transport(1).stats().half_open == 0);
    assert_eq!(net.transport(1).stats().refused(Refusal::Timeout), 4);
    net.run(Duration::from_secs(3));
    let own = net.transport(1).links.iter().flatten().filter(|link| link.dialed.is_none()).count();
    assert_eq!(own, 0);
    net.join(2, config_with(tls(2), 9, &[1]));
    net.connect(1, 2);
    let now = net.now;
    net.transport(1).set_peers(now, &[peer(2)]).expect("unchanged");
    assert!(net.transport(1).is_connected(PeerId(2)));
}
