//! Turning someone away: which reason, one event, one counter, and not more than a line a second in the log.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use quinn_proto::ConnectionError;
use tracing::warn;

use crate::{CloseCode, Event, PeerId, Refusal, Transport};

/// Refusals waiting in `poll_event`; beyond, they are only counted. A driver that polls never gets here.
const MAX_WAITING: usize = 256;
const LOG_INTERVAL: Duration = Duration::from_secs(1);

/// One line per reason and interval, with the number of those left out.
#[derive(Debug, Default)]
pub(crate) struct LogLimit {
    last: [Option<Instant>; Refusal::ALL.len()],
    left_out: [u64; Refusal::ALL.len()],
    pub(crate) waiting: usize,
}

impl LogLimit {
    /// `Some(left out so far)` if a line may be written now.
    fn admit(&mut self, reason: Refusal, now: Instant) -> Option<u64> {
        let slot = reason as usize;
        if self.last[slot].is_some_and(|last| now < last + LOG_INTERVAL) {
            self.left_out[slot] += 1;
            return None;
        }
        self.last[slot] = Some(now);
        Some(std::mem::take(&mut self.left_out[slot]))
    }
}

impl Transport {
    pub(crate) fn refuse(&mut self, from: SocketAddr, peer: Option<PeerId>, reason: Refusal, detail: &str) {
        self.stats.refused[reason as usize] += 1;
        if let Some(left_out) = self.log.admit(reason, self.now) {
            let peer = peer.map(|peer| peer.0);
            warn!(%from, peer, %reason, detail, left_out, "peer connection refused");
        }
        if self.log.waiting < MAX_WAITING {
            self.log.waiting += 1;
            self.events.push_back(Event::Refused { from, peer, reason });
        }
    }
}

/// What the loss of a connection that never came up means; `None` where nobody was turned away.
pub(crate) fn refusal_of(error: &ConnectionError, dialed: bool) -> Option<Refusal> {
    match error {
        ConnectionError::TransportError(error) => Some(refusal_of_code(u64::from(error.code))),
        ConnectionError::VersionMismatch => Some(Refusal::WrongProtocol),
        ConnectionError::ConnectionClosed(_) => Some(Refusal::ByPeer),
        ConnectionError::ApplicationClosed(close) => {
            match CloseCode::from_wire(close.error_code.into_inner()) {
                CloseCode::Goodbye | CloseCode::Superseded => None,
                _ => Some(Refusal::ByPeer),
            }
        }
        // Who does not answer a dial does not refuse it; who begins a handshake and falls silent is a stranger.
        ConnectionError::TimedOut => (!dialed).then_some(Refusal::Timeout),
        ConnectionError::Reset | ConnectionError::LocallyClosed | ConnectionError::CidsExhausted => None,
    }
}

/// TLS alerts travel as QUIC error codes 0x100 + alert (RFC 9001, 4.8).
fn refusal_of_code(code: u64) -> Refusal {
    let Some(alert) = code.checked_sub(0x100) else { return Refusal::Handshake };
    match alert {
        // bad_certificate is rustls's alert for "not valid for this name", and for DER it cannot read.
        42 => Refusal::WrongName,
        43 | 46 => Refusal::BadCertificate,
        44 | 45 => Refusal::ExpiredCertificate,
        48 | 51 => Refusal::UntrustedCertificate,
        49 => Refusal::NotAPeer,
        116 => Refusal::NoCertificate,
        120 => Refusal::WrongProtocol,
        _ => Refusal::Handshake,
    }
}

/// The refusal that a close for a bad greeting stands for.
pub(crate) fn refusal_of_greeting(code: CloseCode) -> Refusal {
    match code {
        CloseCode::WrongVersion => Refusal::WrongVersion,
        CloseCode::WrongCluster => Refusal::WrongCluster,
        CloseCode::WrongNode => Refusal::WrongNode,
        CloseCode::NotAPeer => Refusal::NotAPeer,
        CloseCode::NoGreeting => Refusal::Timeout,
        _ => Refusal::BadGreeting,
    }
}
