//! Messages arrive whole, once, in order per lane, whatever the network does.

use std::time::Duration;

use bytes::Bytes;

use super::net::{FAIR, Net, Weather, config};
use crate::{Event, Lane, PeerId, SendError};

fn message(number: u32, length: usize) -> Vec<u8> {
    let mut bytes = number.to_le_bytes().to_vec();
    bytes.resize(length.max(4), u8::try_from(number % 251).expect("small"));
    bytes
}

/// Sends `lengths` on both lanes from node 1 to 2, as three parts each, as fast as the queue takes them.
fn carry(net: &mut Net, lengths: &[usize], limit: Duration) {
    net.connect(1, 2);
    for lane in Lane::ALL {
        let mut next = 0_usize;
        while next < lengths.len() {
            net.until(limit, "room in the queue", |net| {
                net.transport(1).queued_bytes(PeerId(2), lane) < 1 << 20
            });
            let bytes = message(u32::try_from(next).expect("few"), lengths[next]);
            let (head, tail) = bytes.split_at(2);
            let (middle, tail) = tail.split_at(tail.len() / 2);
            let parts = [head, middle, tail].map(Bytes::copy_from_slice);
            net.transport(1).send(PeerId(2), lane, &parts).expect("room");
            next += 1;
        }
    }
    net.until(limit, "everything arrived", |net| {
        Lane::ALL.iter().all(|&lane| net.node(2).received(lane).len() == lengths.len())
    });
    for lane in Lane::ALL {
        for (at, (got, length)) in net.node(2).received(lane).iter().zip(lengths).enumerate() {
            assert_eq!(**got, message(u32::try_from(at).expect("few"), *length), "message {at} on {lane}");
        }
    }
}

#[test]
fn both_lanes_deliver_in_order() {
    let mut net = Net::cluster(1, FAIR, 2);
    let lengths: Vec<usize> = (0..500).map(|n| n * 7 % 3000).collect();
    carry(&mut net, &lengths, Duration::from_secs(5));
    assert_eq!(net.node(2).count(|event| matches!(event, Event::Disconnected { .. })), 0);
}

#[test]
fn large_messages_arrive_whole() {
    let mut net = Net::cluster(2, FAIR, 2);
    carry(&mut net, &[1 << 20, 0, 3 << 20, 5, 8 << 20], Duration::from_secs(20));
}

#[test]
fn loss_duplication_and_reordering_are_invisible() {
    for (seed, lost) in [(3, 50), (4, 100), (5, 200)] {
        let weather = Weather { lost, doubled: 50, jitter: Duration::from_millis(2), ..FAIR };
        let mut net = Net::cluster(seed, weather, 2);
        let lengths: Vec<usize> = (0..200).map(|n| n * 37 % 5000).collect();
        carry(&mut net, &lengths, Duration::from_secs(120));
    }
}

#[test]
fn datagrams_grow_to_what_the_path_carries() {
    let mut net = Net::new(6, Weather { mtu: 6000, ..FAIR });
    for node in [1, 2] {
        let mut config = config(node, &[1, 2]);
        config.max_datagram = 8000;
        net.join(node, config);
    }
    carry(&mut net, &[4 << 20], Duration::from_secs(20));
    net.run(Duration::from_secs(2));
    let at = net.transport(1).peers[0].up.expect("up");
    let mtu = net.transport(1).links[at].as_ref().expect("up").connection.current_mtu();
    assert!((5900..=6000).contains(&mtu), "{mtu}");
    assert!(net.largest > 6000, "larger ones were tried");
}

#[test]
fn votes_overtake_the_log() {
    let mut net = Net::cluster(7, FAIR, 2);
    net.connect(1, 2);
    for _ in 0..8 {
        let parts = [Bytes::from(vec![0; 1 << 20])];
        net.transport(1).send(PeerId(2), Lane::Log, &parts).expect("room");
    }
    // QUIC has taken the log before the vote is cast.
    net.drain();
    assert!(net.transport(1).queued_bytes(PeerId(2), Lane::Log) < 8 << 20);
    net.transport(1).send(PeerId(2), Lane::Control, &[Bytes::from_static(b"vote")]).expect("room");
    net.until(Duration::from_secs(5), "the vote", |net| !net.node(2).received(Lane::Control).is_empty());
    assert!(net.node(2).received(Lane::Log).len() <= 1, "the log came first");
}

#[test]
fn a_full_queue_refuses_and_drains() {
    let mut net = Net::new(8, FAIR);
    for node in [1, 2] {
        let mut config = config(node, &[1, 2]);
        config.max_message = 100_000;
        config.queue_bytes = 250_000;
        net.join(node, config);
    }
    let part = [Bytes::from(vec![1; 100_000])];
    assert_eq!(net.transport(1).send(PeerId(2), Lane::Log, &part), Err(SendError::NotConnected));
    net.connect(1, 2);
    assert_eq!(net.transport(1).send(PeerId(3), Lane::Log, &part), Err(SendError::Unknown));
    let too_long = [Bytes::from(vec![1; 100_001])];
    let refused = net.transport(1).send(PeerId(2), Lane::Log, &too_long);
    assert_eq!(refused, Err(SendError::TooLong { length: 100_001, limit: 100_000 }));
    let mut sent = 0;
    let full = loop {
        match net.transport(1).send(PeerId(2), Lane::Log, &part) {
            Ok(()) => sent += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(sent, 2);
    assert_eq!(full, SendError::Full { lane: Lane::Log, queued: 200_008, limit: 250_000 });
    assert_eq!(net.transport(1).stats().queue_full, 1);
    net.transport(1).send(PeerId(2), Lane::Control, &part).expect("each lane has its own queue");
    net.until(Duration::from_secs(5), "drained", |net| net.node(2).received(Lane::Log).len() == 2);
    net.transport(1).send(PeerId(2), Lane::Log, &part).expect("room again");
}

/// A caller that does not look holds its peers back instead of filling its memory, and loses nothing by it.
#[test]
fn a_slow_caller_stalls_its_peers() {
    let mut net = Net::new(9, FAIR);
    for node in [1, 2] {
        let mut config = config(node, &[1, 2]);
        config.max_message = 1 << 20;
        config.receive_bytes = 1 << 20;
        config.queue_bytes = 256 << 20;
        net.join(node, config);
    }
    net.connect(1, 2);
    for number in 0..100 {
        let parts = [Bytes::from(message(number, 1 << 20))];
        net.transport(1).send(PeerId(2), Lane::Log, &parts).expect("room");
    }
    // Node 2 takes its datagrams and sends its acknowledgements, but polls no event.
    let mut buffer = Vec::new();
    let mut most = 0;
    for _ in 0..3000 {
        let meta = |from| crate::Datagram { from, local_ip: None, ecn: None };
        for (from, to) in [(1, 2), (2, 1)] {
            let now = net.now;
            let mut datagrams = Vec::new();
            while let Some(transmit) = net.transport(from).poll_transmit(now, &mut buffer) {
                let size = transmit.segment_size.unwrap_or(transmit.size);
                datagrams.extend(buffer.chunks(size).map(bytes::BytesMut::from));
            }
            for datagram in datagrams {
                net.transport(to).handle_datagram(now, meta(super::net::address(from)), datagram);
            }
        }
        most = most.max(net.transport(2).waiting_bytes);
        net.now += Duration::from_micros(500);
        let now = net.now;
        for node in [1, 2] {
            net.transport(node).handle_timeout(now);
        }
    }
    // The limit, and one message that reached it.
    assert!((1 << 19..=2 << 20).contains(&most), "{most}");
    net.until(Duration::from_secs(20), "all of it", |net| net.node(2).received(Lane::Log).len() == 100);
}

/// Empty messages cost memory too.
#[test]
fn empty_messages_are_held_back_too() {
    let mut net = Net::new(10, FAIR);
    for node in [1, 2] {
        let mut config = config(node, &[1, 2]);
        config.max_message = 1000;
        config.receive_bytes = 64_000;
        net.join(node, config);
    }
    net.connect(1, 2);
    for _ in 0..100_000 {
        net.transport(1).send(PeerId(2), Lane::Log, &[]).expect("room");
    }
    let mut most = 0;
    net.until(Duration::from_secs(20), "all of them", |net| {
        most = most.max(net.transport(2).waiting_bytes);
        net.node(2).received(Lane::Log).len() == 100_000
    });
    assert!(most < 64_000 + 1500 * 16, "{most}");
}

/// What was held back comes out as the caller takes events, without another datagram.
#[test]
fn reading_goes_on_when_there_is_room() {
    let mut net = Net::new(12, FAIR);
    for node in [1, 2] {
        let mut config = config(node, &[1, 2]);
        config.max_message = 10_000;
        config.receive_bytes = 64_000;
        net.join(node, config);
    }
    net.connect(1, 2);
    for _ in 0..50 {
        net.transport(1).send(PeerId(2), Lane::Log, &[Bytes::from(vec![1; 10_000])]).expect("room");
    }
    let mut buffer = Vec::new();
    let now = net.now;
    while let Some(transmit) = net.transport(1).poll_transmit(now, &mut buffer) {
        for datagram in buffer.chunks(transmit.segment_size.unwrap_or(transmit.size)) {
            let meta = crate::Datagram { from: super::net::address(1), local_ip: None, ecn: None };
            net.transport(2).handle_datagram(now, meta, datagram.into());
        }
    }
    let arrived = net.transport(2).stats().bytes_received;
    net.transport(2).settle();
    assert!(net.transport(2).waiting_bytes < 100_000);
    let mut taken = 0_u64;
    while let Some(event) = net.transport(2).poll_event() {
        taken += u64::from(matches!(event, Event::Received { .. }));
    }
    assert!(arrived > 200_000 && taken * 10_000 > arrived - 30_000, "{taken} of {arrived} bytes");
}

/// A vote whose datagram is lost is repeated well within an election timeout, though nothing follows it.
#[test]
fn a_lost_vote_is_repeated_soon() {
    let mut net = Net::cluster(11, FAIR, 2);
    net.connect(1, 2);
    net.run(Duration::from_millis(600));
    for number in 0..20 {
        net.transport(1).send(PeerId(2), Lane::Control, &[Bytes::from(vec![number])]).expect("up");
        let before = net.now;
        net.weather.lost = 1000;
        net.drain();
        net.weather.lost = 0;
        net.until(Duration::from_secs(1), "repeated", |net| {
            net.node(2).received(Lane::Control).last() == Some(&[number].as_slice())
        });
        let took = net.now - before;
        assert!(took < Duration::from_millis(20), "vote {number} took {took:?}");
        net.run(Duration::from_millis(37));
    }
}
