//! What the transport reports: events, refusals, errors of `send`, counters.
//!
//! Every way in which a stranger, a misconfigured peer or a broken network can be turned away has a name in [`Refusal`],
//! a counter in [`Stats`] and an [`Event::Refused`]. Nothing is turned away in silence.

use std::fmt;
use std::net::SocketAddr;

use bytes::Bytes;

use crate::PeerId;

/// One of the two ordered, long-lived streams between two peers.
///
/// Order holds within a lane, not between lanes. Snapshots will get one stream each, beside these two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// Votes and heartbeats. Sent before anything that waits on the log lane.
    Control,
    /// Frames of the log and their acknowledgements.
    Log,
}

impl Lane {
    /// Both lanes.
    pub const ALL: [Self; 2] = [Self::Control, Self::Log];

    pub(crate) const fn slot(self) -> usize {
        match self {
            Self::Control => 0,
            Self::Log => 1,
        }
    }
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Control => "control",
            Self::Log => "log",
        })
    }
}

/// What happened. Taken from `Transport::poll_event`, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The peer proved who it is and both lanes are open. Queues are empty: what was sent before is gone. Nothing is sent
    /// on this connection before this has been taken out.
    Connected {
        /// Who.
        peer: PeerId,
        /// Which start of that peer's process; differs after a restart.
        incarnation: u64,
    },
    /// A whole message arrived. Only between `Connected` and `Disconnected` of that peer.
    Received {
        /// From whom.
        peer: PeerId,
        /// On which lane.
        lane: Lane,
        /// The message, contiguous.
        message: Bytes,
    },
    /// The connection is gone; messages on the way in either direction may be lost.
    Disconnected {
        /// From whom.
        peer: PeerId,
        /// Why.
        reason: DisconnectReason,
    },
    /// A connection attempt was turned away: by this node or, for [`Refusal::ByPeer`], by the other side.
    Refused {
        /// Where it came from, or where it went when this node dialed.
        from: SocketAddr,
        /// The peer that was dialed, or that the other side claimed to be; `None` where nobody knows.
        peer: Option<PeerId>,
        /// Why.
        reason: Refusal,
    },
}

/// Why a connection that was up ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DisconnectReason {
    /// Nothing was heard for the idle timeout: the peer or the path is dead.
    TimedOut,
    /// The peer's process was replaced by a newer one (a stateless reset or a new incarnation says so).
    Restarted,
    /// Both sides had dialed; the connection dialed by the lower id stays. `Connected` follows.
    Superseded,
    /// The peer said goodbye.
    ClosedByPeer,
    /// The peer closed with this code; see [`CloseCode`].
    RefusedByPeer(CloseCode),
    /// The peer broke the rules of a lane; the code tells it which.
    Violation(CloseCode),
    /// A QUIC or TLS error after the handshake.
    Failed,
    /// This node closed: `close`, or the peer was removed or given another address.
    Closed,
}

macro_rules! refusals {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// Why a connection attempt was turned away. Each has its counter in [`Stats::refused`].
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Refusal { $($(#[$doc])* $name,)* }

        impl Refusal {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// A short name for metrics and logs.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

refusals! {
    /// No certificate was presented.
    NoCertificate = "no_certificate",
    /// The certificate is signed by another authority, or the signature is wrong.
    UntrustedCertificate = "untrusted_certificate",
    /// The certificate is expired or not yet valid.
    ExpiredCertificate = "expired_certificate",
    /// The certificate is sound and names a node of this cluster, but none of the configured peers.
    NotAPeer = "not_a_peer",
    /// The certificate does not carry the expected name: another cluster's or another node's.
    WrongName = "wrong_name",
    /// The certificate is malformed or not meant for this use.
    BadCertificate = "bad_certificate",
    /// The other side speaks QUIC but not this protocol.
    WrongProtocol = "wrong_protocol",
    /// The other side speaks another version of this protocol.
    WrongVersion = "wrong_version",
    /// The greeting names another cluster than the certificate.
    WrongCluster = "wrong_cluster",
    /// The greeting names a node that the certificate does not.
    WrongNode = "wrong_node",
    /// The greeting is malformed, or something else came in its place.
    BadGreeting = "bad_greeting",
    /// The handshake or the greeting did not finish in time.
    Timeout = "timeout",
    /// Too many unfinished handshakes, and this one had not proved its address.
    TooMany = "too_many",
    /// Any other failure of the QUIC or TLS handshake.
    Handshake = "handshake",
    /// The other side turned this node away; its code or alert is in the log.
    ByPeer = "by_peer",
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $code:literal,)*) => {
        /// The application code in the CLOSE frame: part of the wire format, numbers never change.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum CloseCode { $($(#[$doc])* $name,)* /** A code this version does not know. */ Unknown, }

        impl CloseCode {
            pub(crate) const fn wire(self) -> u32 {
                match self { $(Self::$name => $code,)* Self::Unknown => u32::MAX >> 2 }
            }

            pub(crate) const fn from_wire(code: u64) -> Self {
                match code { $($code => Self::$name,)* _ => Self::Unknown }
            }
        }
    };
}

codes! {
    /// The node stops.
    Goodbye = 0,
    /// A newer connection of the same two peers replaces this one.
    Superseded = 1,
    /// The greeting names another protocol version.
    WrongVersion = 2,
    /// The greeting names another cluster.
    WrongCluster = 3,
    /// The greeting names a node that the certificate does not, or not the one dialed.
    WrongNode = 4,
    /// The greeting cannot be read.
    BadGreeting = 5,
    /// No greeting came.
    NoGreeting = 6,
    /// The node is not, or no longer, a peer.
    NotAPeer = 7,
    /// A message is longer than `max_message`.
    TooLong = 8,
    /// A stream begins with a lane number that does not exist.
    UnknownLane = 9,
    /// A lane was opened twice.
    LaneTwice = 10,
    /// A lane ended while the connection lives.
    LaneEnded = 11,
}

/// Why a message was not queued. Nothing of it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The queue of this peer and lane is at its limit; it drains as the peer acknowledges.
    #[error("the {lane} lane to the peer already holds {queued} of {limit} bytes; retry when it has drained")]
    Full {
        /// Which lane.
        lane: Lane,
        /// Bytes waiting.
        queued: usize,
        /// Its limit, `Config::queue_bytes`.
        limit: usize,
    },
    /// There is no connection now; `Event::Connected` will tell.
    #[error("no connection to the peer at the moment")]
    NotConnected,
    /// No such peer is configured.
    #[error("no such peer is configured")]
    Unknown,
    /// The message is longer than `Config::max_message`.
    #[error("a message of {length} bytes exceeds the limit of {limit}")]
    TooLong {
        /// The message's length.
        length: usize,
        /// `Config::max_message`.
        limit: usize,
    },
}

/// Counters since the start. Copied by `Transport::stats`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Connections that are up now.
    pub connected: usize,
    /// Connections that have not finished handshake and greeting.
    pub half_open: usize,
    /// Connections that came up.
    pub connections: u64,
    /// Connections that were up and ended.
    pub disconnections: u64,
    /// Dials begun.
    pub dials: u64,
    /// Retry packets sent to strangers that had to prove their address.
    pub retries: u64,
    /// UDP datagrams and bytes handed in.
    pub datagrams_received: u64,
    /// Bytes of them.
    pub bytes_received: u64,
    /// UDP datagrams handed out.
    pub datagrams_sent: u64,
    /// Bytes of them.
    pub bytes_sent: u64,
    /// Datagrams that belong to no connection and begin none: noise, probes, leftovers.
    pub datagrams_ignored: u64,
    /// Whole messages received.
    pub messages_received: u64,
    /// Messages accepted by `send`.
    pub messages_sent: u64,
    /// `send` refused because a queue was full.
    pub queue_full: u64,
    /// Received messages dropped because a newer incarnation replaced their sender.
    pub stale_dropped: u64,
    /// Connections closed because the peer broke the rules of a lane.
    pub violations: u64,
    pub(crate) refused: [u64; Refusal::ALL.len()],
}

impl Stats {
    /// How many connection attempts were turned away for `reason`.
    #[must_use]
    pub fn refused(&self, reason: Refusal) -> u64 {
        self.refused[reason as usize]
    }

    /// How many connection attempts were turned away.
    #[must_use]
    pub fn refused_total(&self) -> u64 {
        self.refused.iter().sum()
    }
}
