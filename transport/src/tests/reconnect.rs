//! One connection per pair, through restarts, partitions and simultaneous dials.

use std::time::Duration;

use bytes::Bytes;

use super::net::{FAIR, Net, Weather, address, config, config_with, peer, tls};
use crate::{CloseCode, DisconnectReason, Event, Lane, PeerAddress, PeerId};

fn connected(event: &Event) -> bool {
    matches!(event, Event::Connected { .. })
}

#[test]
fn the_lower_id_dials_at_once() {
    let mut net = Net::cluster(1, FAIR, 3);
    for (a, b) in [(1, 2), (1, 3), (2, 3)] {
        net.connect(a, b);
    }
    assert!(net.elapsed() < Duration::from_millis(10), "{:?}", net.elapsed());
    net.run(Duration::from_secs(3));
    for node in 1..=3 {
        let stats = net.transport(node).stats();
        assert_eq!((stats.dials, stats.connections, stats.connected), (3 - node, 2, 2), "node {node}");
        assert_eq!(net.node(node).events.len(), 2, "{:?}", net.node(node).events);
    }
}

#[test]
fn the_higher_id_dials_when_the_lower_does_not() {
    let mut net = Net::new(2, FAIR);
    net.join(2, config(2, &[1]));
    net.run(Duration::from_millis(300));
    // Node 1 knows node 2 at an address that leads nowhere.
    let mut config = config(1, &[]);
    config.peers = vec![PeerAddress { id: PeerId(2), address: address(99) }];
    net.join(1, config);
    net.connect(1, 2);
    assert!(net.elapsed() < Duration::from_millis(1500), "{:?}", net.elapsed());
}

/// Both dial at the same moment, at many latencies and losses: exactly one connection stays, the same on both sides.
#[test]
fn simultaneous_dials_leave_one_connection() {
    for seed in 0..40 {
        let lost = if seed % 2 == 0 { 0 } else { 100 };
        let weather = Weather {
            latency: Duration::from_millis(seed),
            jitter: Duration::from_millis(seed % 3 * 5),
            lost,
            ..FAIR
        };
        let mut net = Net::new(seed, weather);
        for node in [1, 2] {
            let mut config = config(node, &[1, 2]);
            config.dial_delay = Duration::from_millis(seed % 7);
            net.join(node, config);
        }
        net.connect(1, 2);
        net.run(Duration::from_secs(3));
        for node in [1, 2] {
            let other = PeerId(3 - node);
            assert!(net.transport(node).is_connected(other), "seed {seed}");
            let open: Vec<_> = net.transport(node).links.iter().flatten().map(|link| link.dialed).collect();
            assert_eq!(open.len(), 1, "seed {seed}: node {node} has one link");
            if seed % 3 == 0 && lost == 0 {
                let stats = net.transport(node).stats();
                assert!(
                    stats.dials <= 1 && stats.disconnections <= 1,
                    "seed {seed}: settled at once, {stats:?}"
                );
            }
            if seed % 7 == 0 && lost == 0 {
                assert_eq!(open[0].is_some(), node == 1, "seed {seed}: the lower id's dial stays");
            }
            net.transport(node)
                .send(other, Lane::Log, &[Bytes::from_static(b"still there")])
                .expect("connected");
        }
        net.until(Duration::from_secs(2), "both ways", |net| {
            [1, 2].iter().all(|&node| net.node(node).received(Lane::Log) == [b"still there"])
        });
    }
}

#[test]
fn a_restarted_node_is_noticed_at_once() {
    for (restarted, other) in [(1, 2), (2, 1)] {
        let mut net = Net::cluster(3, FAIR, 2);
        net.connect(1, 2);
        net.run(Duration::from_secs(1));
        let before = net.now;
        net.join(restarted, config_with(tls(restarted), 77, &[1, 2]));
        net.until(Duration::from_secs(5), "the new life", |net| {
            net.node(other).events.contains(&Event::Connected { peer: PeerId(restarted), incarnation: 77 })
        });
        let took = net.now - before;
        assert!(took < Duration::from_millis(150), "node {restarted} was back after {took:?}");
        assert_eq!(
            net.node(other).disconnects(),
            [DisconnectReason::Restarted],
            "node {restarted} restarted"
        );
        net.run(Duration::from_secs(3));
        assert_eq!(net.node(other).count(connected), 2, "and then nothing more");
        assert_eq!(net.node(restarted).count(connected), 1);
    }
}

/// A dialer that lost its connection gets a new one at once, though the other side still believes in the old one.
#[test]
fn a_dial_after_a_one_sided_loss_replaces_the_old_connection() {
    for (lost, other) in [(1, 2), (2, 1)] {
        let mut net = Net::new(11, FAIR);
        for node in [1, 2] {
            let mut config = config(node, &[1, 2]);
            config.dial_delay = Duration::from_millis(10);
            config.keep_alive = Duration::from_millis(500);
            net.join(node, config);
        }
        net.connect(1, 2);
        net.run(Duration::from_millis(2020));
        let at = net.transport(lost).peers[0].up.expect("up");
        net.cut(1, 2);
        net.transport(lost).end(at, DisconnectReason::Failed, CloseCode::Goodbye);
        // As long as QUIC repeats its goodbye.
        net.run(Duration::from_millis(24));
        net.heal();
        assert!(net.transport(other).is_connected(PeerId(lost)));
        let before = net.now;
        net.until(Duration::from_secs(2), "again", |net| {
            net.transport(lost).is_connected(PeerId(other)) && net.node(other).count(connected) == 2
        });
        let took = net.now - before;
        assert!(took < Duration::from_millis(70), "node {lost}: {took:?}");
        assert_eq!(net.node(other).disconnects(), [DisconnectReason::Superseded]);
    }
}

/// An idle node learns of a peer's restart from the reset that answers its next packet, when the peer itself never dials.
#[test]
fn a_restarted_acceptor_resets_old_connections() {
    let mut net = Net::cluster(4, FAIR, 2);
    net.connect(1, 2);
    net.run(Duration::from_secs(1));
    let mut config = config_with(tls(2), 78, &[1, 2]);
    config.dial_delay = Duration::from_secs(100);
    net.join(2, config);
    let before = net.now;
    net.transport(1).send(PeerId(2), Lane::Control, &[Bytes::from_static(b"heartbeat")]).expect("still up");
    net.until(Duration::from_secs(5), "noticed", |net| !net.node(1).disconnects().is_empty());
    assert!(net.now - before < Duration::from_millis(5), "{:?}", net.now - before);
    assert_eq!(net.node(1).disconnects(), [DisconnectReason::Restarted]);
    net.connect(1, 2);
}

#[test]
fn messages_of_a_dead_process_are_dropped() {
    let mut net = Net::cluster(5, FAIR, 2);
    net.connect(1, 2);
    net.transport(2).send(PeerId(1), Lane::Log, &[Bytes::from_static(b"last words")]).expect("up");
    // They arrive, but node 1 does not look before the new process has greeted.
    let taken = net.node(1).events.len();
    let mut buffer = Vec::new();
    let now = net.now;
    while net.transport(2).poll_transmit(now, &mut buffer).is_some() {
        let meta = crate::Datagram { from: address(2), local_ip: None, ecn: None };
        net.transport(1).handle_datagram(now, meta, buffer.as_slice().into());
    }
    net.transport(1).settle();
    assert_eq!(net.transport(1).waiting_bytes, 10 + crate::link::PER_MESSAGE, "they wait");
    let slot = net.transport(1).find_peer(PeerId(2)).expect("a peer");
    // A second connection of another incarnation, as far as adoption is concerned.
    net.transport(1).dial(slot);
    let at = net.transport(1).peers[slot].dialing.expect("dialed");
    net.transport(1).adopt(at, slot, 4711);
    net.drain();
    let after: Vec<_> = net.node(1).events[taken..].to_vec();
    let peer = PeerId(2);
    assert_eq!(
        after,
        [
            Event::Disconnected { peer, reason: DisconnectReason::Restarted },
            Event::Connected { peer, incarnation: 4711 },
        ]
    );
    assert_eq!(net.transport(1).stats().stale_dropped, 1);
    assert_eq!(net.transport(1).waiting_bytes, 0);
}

#[test]
fn a_silent_peer_is_gone_after_the_idle_timeout_and_comes_back() {
    let mut net = Net::cluster(6, FAIR, 2);
    net.connect(1, 2);
    net.run(Duration::from_secs(5));
    assert_eq!(net.node(1).disconnects(), [], "keep-alive keeps an idle connection");
    net.cut(1, 2);
    let before = net.now;
    net.until(Duration::from_secs(3), "noticed", |net| {
        !net.node(1).disconnects().is_empty() && !net.node(2).disconnects().is_empty()
    });
    let took = net.now - before;
    assert!((Duration::from_millis(700)..Duration::from_millis(1300)).contains(&took), "{took:?}");
    assert_eq!(net.node(1).disconnects(), [DisconnectReason::TimedOut]);
    net.run(Duration::from_secs(30));
    net.heal();
    let before = net.now;
    net.connect(1, 2);
    assert!(net.now - before < Duration::from_millis(1200), "back after {:?}", net.now - before);
}

#[test]
fn dials_in_vain_grow_apart_with_jitter() {
    let mut net = Net::new(7, FAIR);
    let mut config = config(1, &[2]);
    config.idle_timeout = Duration::from_millis(20);
    config.keep_alive = Duration::from_millis(10);
    net.join(1, config);
    let mut dials = Vec::new();
    while dials.len() < 14 {
        assert!(net.step());
        let made = net.transport(1).stats().dials;
        if made > dials.len() as u64 {
            dials.push(net.now);
        }
    }
    let gaps: Vec<_> = dials.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let handshake = Duration::from_millis(20);
    assert!((handshake * 2..handshake + Duration::from_millis(50)).contains(&gaps[0]), "{gaps:?}");
    assert!(gaps[3] > gaps[0] && gaps[4] > gaps[1] * 2, "{gaps:?}");
    let last = *gaps.last().expect("some");
    assert!(last <= Duration::from_millis(1030) && last > Duration::from_millis(700), "{gaps:?}");
    assert!(gaps.windows(2).any(|pair| pair[0] != pair[1]));
}

#[test]
fn a_polite_close_is_told() {
    let mut net = Net::cluster(8, FAIR, 2);
    net.connect(1, 2);
    let now = net.now;
    net.transport(1).close(now);
    net.until(Duration::from_secs(1), "goodbye", |net| !net.node(2).disconnects().is_empty());
    assert_eq!(net.node(2).disconnects(), [DisconnectReason::ClosedByPeer]);
    assert!(net.elapsed() < Duration::from_millis(20));
    net.run(Duration::from_secs(3));
    assert!(!net.transport(1).is_connected(PeerId(2)));
    assert_eq!(net.transport(1).stats().half_open, 0, "nor does it accept any more");
}

#[test]
fn peers_come_go_and_move() {
    let mut net = Net::new(9, FAIR);
    net.join(1, config(1, &[2]));
    net.join(2, config(2, &[1]));
    net.join(3, config(3, &[1]));
    net.connect(1, 2);
    net.run(Duration::from_millis(500));
    assert!(!net.transport(1).is_connected(PeerId(3)), "3 is no peer of 1 yet");
    let now = net.now;
    net.transport(1).set_peers(now, &[peer(1), peer(2), peer(3)]).expect("sound");
    net.connect(1, 3);
    let now = net.now;
    net.transport(1).set_peers(now, &[peer(3)]).expect("sound");
    net.until(Duration::from_secs(1), "2 was let go", |net| !net.node(2).disconnects().is_empty());
    assert_eq!(net.node(1).disconnects(), [DisconnectReason::Closed]);
    assert!(net.transport(1).is_connected(PeerId(3)), "3 noticed nothing");
    // Node 3 moves to another address; what is up stays, the next dial finds it there.
    let moved = address(30);
    let node = net.nodes.remove(&address(3)).expect("joined");
    net.nodes.insert(moved, node);
    let now = net.now;
    net.transport(1).set_address(now, PeerAddress { id: PeerId(3), address: moved }).expect("sound");
    net.until(Duration::from_secs(5), "found again", |net| {
        net.transport(1).is_connected(PeerId(3))
            && net.nodes.get_mut(&moved).expect("moved").transport.is_connected(PeerId(1))
    });
}

/// A path that stops carrying large datagrams must not end the connection.
#[test]
fn a_shrinking_path_is_survived() {
    let mut net = Net::cluster(10, FAIR, 2);
    net.connect(1, 2);
    let burst = |net: &mut Net| {
        for _ in 0..20 {
            let part = [Bytes::from(vec![3; 20_000])];
            net.transport(1).send(PeerId(2), Lane::Log, &part).expect("room");
        }
    };
    burst(&mut net);
    net.until(Duration::from_secs(5), "before", |net| net.node(2).received(Lane::Log).len() == 20);
    net.weather.mtu = 1200;
    burst(&mut net);
    net.until(Duration::from_secs(30), "after", |net| net.node(2).received(Lane::Log).len() >= 40);
}

/// A caller that is behind with its events must not speak to a peer's new life before it has heard that it is one.
#[test]
fn nothing_is_sent_on_a_connection_that_the_caller_has_not_heard_of() {
    let mut net = Net::cluster(5, FAIR, 2);
    net.connect(1, 2);
    let other = PeerId(2);
    let hello = [Bytes::from_static(b"hello")];
    let transport = net.transport(1);
    transport.send(other, Lane::Log, &hello).expect("heard of");
    // As if the peer had come back, with the news behind other events.
    transport.events.push_back(Event::Connected { peer: PeerId(9), incarnation: 1 });
    transport.send(other, Lane::Log, &hello).expect("another peer's news");
    transport.events.push_back(Event::Connected { peer: other, incarnation: 2 });
    assert_eq!(transport.send(other, Lane::Control, &hello), Err(crate::SendError::NotConnected));
    while !matches!(transport.poll_event(), Some(Event::Connected { peer, .. }) if peer == other) {}
    transport.send(other, Lane::Log, &hello).expect("heard of");
}
