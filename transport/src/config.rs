//! What a node must say before it can talk to its peers, and how QUIC is tuned for that.
//!
//! All limits are checked together in [`Config::check`]: a configuration whose limits contradict each other is refused
//! before the first datagram.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use quinn_proto as quic;

use crate::tls::Tls;
use crate::{MAX_GSO_BYTES, PeerId};

/// A peer and where it listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerAddress {
    /// Who.
    pub id: PeerId,
    /// Where, resolved by the caller; `Transport::set_address` changes it.
    pub address: SocketAddr,
}

/// Everything a [`crate::Transport`] is told at its start.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// The cluster both sides must belong to.
    pub cluster: u128,
    /// This node.
    pub node: PeerId,
    /// A number drawn at random at every start, so that peers notice a restart at once.
    pub incarnation: u64,
    /// The peers; this node's own entry, if present, is ignored.
    pub peers: Vec<PeerAddress>,
    /// Certificate, key and authority of this node.
    pub tls: Tls,
    /// The longest message, in bytes. Checked before memory is reserved for it. Default 8 MiB.
    pub max_message: usize,
    /// Bytes that may wait per peer and lane. Default 16 MiB. At least `max_message`.
    pub queue_bytes: usize,
    /// Received bytes that may wait in `poll_event`; beyond, peers are held back by flow control. Default 32 MiB.
    pub receive_bytes: usize,
    /// A peer that is silent this long is gone. Default 1 s. Also the time a handshake may take.
    pub idle_timeout: Duration,
    /// A quiet connection sends a sign of life this often. Default a quarter of a second.
    pub keep_alive: Duration,
    /// How long the node with the higher id waits for the lower one to dial. Default 100 ms.
    pub dial_delay: Duration,
    /// The first redial comes after about this long. Default 25 ms.
    pub reconnect_min: Duration,
    /// Redials are never further apart than this. Default 1 s.
    pub reconnect_max: Duration,
    /// The datagram size every connection begins with, in bytes of UDP payload, 1200 to `max_datagram`. Default 1200,
    /// which every path carries. On loopback set it to `max_datagram`: the search for it costs round trips.
    pub initial_datagram: u16,
    /// The largest datagram that is tried, in bytes of UDP payload. Default 1452 (an Ethernet frame over IPv6); 6000 and
    /// more on loopback. The receive buffers of both sides must hold it.
    pub max_datagram: u16,
    /// Datagrams in one [`crate::Transmit`] at most: what the socket's segmentation offload takes, 1 without it. Kept
    /// under 65,507 bytes in total whatever this says. Default 64.
    pub max_segments: usize,
    /// Handshakes of others that may be unfinished at a time. Default 64. From a quarter of it on, strangers must prove
    /// their address.
    pub max_half_open: usize,
    /// The wall clock at the `now` of `Transport::new`, for the validity of certificates; it advances with the
    /// `Instant`s handed in, `Transport::set_wall_clock` corrects it.
    pub wall_clock: SystemTime,
    /// Seed of all choices made here: jitter, packet number gaps, tokens. Draw it from the operating system: others
    /// must not guess it. (TLS keys and connection ids come from the operating system in any case.)
    pub seed: [u8; 32],
}

impl Config {
    /// A configuration with the defaults, no peers yet. The node and cluster are those of the certificate.
    #[must_use]
    pub fn new(tls: Tls, incarnation: u64, wall_clock: SystemTime, seed: [u8; 32]) -> Self {
        let identity = tls.identity();
        Self {
            cluster: identity.cluster,
            node: identity.node,
            incarnation,
            peers: Vec::new(),
            tls,
            max_message: 8 << 20,
            queue_bytes: 16 << 20,
            receive_bytes: 32 << 20,
            idle_timeout: Duration::from_secs(1),
            keep_alive: Duration::from_millis(250),
            dial_delay: Duration::from_millis(100),
            reconnect_min: Duration::from_millis(25),
            reconnect_max: Duration::from_secs(1),
            initial_datagram: 1200,
            max_datagram: 1452,
            max_segments: 64,
            max_half_open: 64,
            wall_clock,
            seed,
        }
    }

    /// Refuses limits that do not fit each other.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        use ConfigError as E;
        let identity = self.tls.identity();
        if identity.cluster != self.cluster || identity.node != self.node {
            return Err(E::Certificate {
                certificate: identity.to_string(),
                node: self.node,
                cluster: self.cluster,
            });
        }
        if self.node.0 == 0 {
            return Err(E::ZeroNode);
        }
        let mut ids: Vec<_> = self.peers.iter().map(|peer| peer.id).collect();
        ids.sort_unstable();
        if let Some(pair) = ids.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(E::DuplicatePeer(pair[0]));
        }
        for peer in &self.peers {
            check_address(*peer)?;
        }
        let rule = |ok: bool, what: &'static str| if ok { Ok(()) } else { Err(E::Limits(what)) };
        rule(self.max_message > 0, "max_message must not be zero")?;
        rule(u32::try_from(self.max_message).is_ok(), "max_message must fit 32 bits")?;
        rule(self.queue_bytes >= self.max_message, "queue_bytes must hold one message of max_message")?;
        rule(self.receive_bytes >= self.max_message, "receive_bytes must hold one message of max_message")?;
        rule(self.idle_timeout >= Duration::from_millis(10), "idle_timeout must be at least 10 ms")?;
        rule(self.idle_timeout <= Duration::from_secs(600), "idle_timeout must be at most 10 minutes")?;
        rule(!self.keep_alive.is_zero(), "keep_alive must not be zero")?;
        rule(self.keep_alive <= self.idle_timeout / 2, "keep_alive must be at most half of idle_timeout")?;
        rule(!self.reconnect_min.is_zero(), "reconnect_min must not be zero")?;
        rule(
            self.reconnect_max <= HOUR && self.dial_delay <= HOUR,
            "a wait before a dial must not exceed an hour",
        )?;
        rule(self.reconnect_min <= self.reconnect_max, "reconnect_min must not exceed reconnect_max")?;
        rule(self.initial_datagram >= 1200, "initial_datagram must be at least 1200, as QUIC demands")?;
        rule(self.initial_datagram <= self.max_datagram, "initial_datagram must not exceed max_datagram")?;
        rule(usize::from(self.max_datagram) <= MAX_GSO_BYTES, "max_datagram must stay under 65,507")?;
        rule(self.max_segments > 0, "max_segments must not be zero")?;
        rule(self.max_half_open > 0, "max_half_open must not be zero")
    }

    /// QUIC's parameters, the same for both roles.
    pub(crate) fn quic(&self) -> Result<Arc<quic::TransportConfig>, ConfigError> {
        let idle = quic::IdleTimeout::try_from(self.idle_timeout)
            .map_err(|_| ConfigError::Limits("idle_timeout is out of QUIC's range"))?;
        // A window holds the longest message and more, so that a lane never waits for credit in the middle of one
        // while the other side has long read the beginning.
        let stream =
            u32::try_from((self.max_message * 2).max(8 << 20)).unwrap_or(u32::MAX >> 2).min(u32::MAX >> 2);
        let connection = stream.saturating_mul(2);
        let mut mtu = quic::MtuDiscoveryConfig::default();
        mtu.upper_bound(self.max_datagram);
        // Loss of a path's size is noticed by black hole detection; look again soon, not after a minute.
        mtu.black_hole_cooldown(Duration::from_secs(10));
        let mut cubic = quic::congestion::CubicConfig::default();
        // Peers sit in one data centre: the default of ten packets would cost every new connection several round trips
        // before the first large batch is through. Loss still halves it.
        cubic.initial_window(256 << 10);
        let mut acks = quic::AckFrequencyConfig::default();
        // A request is usually answered on the same connection, and the answer carries the acknowledgement. Ask for a
        // bare one only every ten packets, but within a few milliseconds (25 is QUIC's default): the delay is part of
        // the probe timeout, and a lost vote must be repeated well within an election timeout.
        acks.ack_eliciting_threshold(quic::VarInt::from_u32(10));
        acks.max_ack_delay(Some(Duration::from_millis(5)));
        let mut config = quic::TransportConfig::default();
        config
            .max_idle_timeout(Some(idle))
            .keep_alive_interval(Some(self.keep_alive))
            // The two lanes, and room for snapshots.
            .max_concurrent_uni_streams(quic::VarInt::from_u32(MAX_STREAMS))
            .max_concurrent_bidi_streams(quic::VarInt::from_u32(0))
            .datagram_receive_buffer_size(None)
            .stream_receive_window(quic::VarInt::from_u32(stream))
            .receive_window(quic::VarInt::from_u32(connection))
            .send_window(u64::from(connection))
            // Without fairness, quinn finishes a stream that it began whatever priority another one has: a vote would
            // wait behind megabytes of log.
            .send_fairness(true)
            // Until the first sample. A handshake packet that is lost is repeated after three times this; on a longer
            // path the first flight is sent once or twice in vain.
            .initial_rtt(Duration::from_millis(10))
            .initial_mtu(self.initial_datagram)
            .mtu_discovery_config(Some(mtu))
            .ack_frequency_config(Some(acks))
            .congestion_controller_factory(Arc::new(cubic))
            .allow_spin(false);
        Ok(Arc::new(config))
    }
}

const HOUR: Duration = Duration::from_secs(3600);

/// Streams the other side may hold open: the lanes, and room for snapshots.
pub(crate) const MAX_STREAMS: u32 = 6;

pub(crate) fn check_address(peer: PeerAddress) -> Result<(), ConfigError> {
    if peer.id.0 == 0 {
        return Err(ConfigError::ZeroNode);
    }
    if peer.address.port() == 0 || peer.address.ip().is_unspecified() {
        return Err(ConfigError::Address { peer: peer.id, address: peer.address });
    }
    Ok(())
}

/// Why a configuration was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The certificate belongs to another node or cluster.
    #[error(
        "the certificate is {certificate}'s, but this is node {node} of cluster {cluster:032x}: use its own certificate"
    )]
    Certificate {
        /// The name in the certificate.
        certificate: String,
        /// The configured node.
        node: PeerId,
        /// The configured cluster.
        cluster: u128,
    },
    /// Node 0 does not exist.
    #[error("node id 0 is reserved: number nodes from 1")]
    ZeroNode,
    /// A peer is listed twice.
    #[error("peer {0} is listed twice")]
    DuplicatePeer(PeerId),
    /// An address that cannot be dialed.
    #[error("peer {peer} has the address {address}, which cannot be dialed: give a concrete host and port")]
    Address {
        /// The peer.
        peer: PeerId,
        /// Its address.
        address: SocketAddr,
    },
    /// Two limits contradict each other.
    #[error("{0}")]
    Limits(&'static str),
    /// TLS refused the certificate or key.
    #[error("TLS cannot use the certificate: {0}")]
    Tls(String),
}
