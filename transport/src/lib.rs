//! QUIC between the peers of a cluster, as a value: it owns no socket, no thread and no clock.
//!
//! ```text
//!            handle_datagram, handle_timeout, send          poll_event, poll_transmit, poll_timeout
//!  driver ───────────────────────────────────────▶ Transport ───────────────────────────────────────▶ driver
//! ```
//!
//! The driver owns the UDP socket. It hands in every datagram with the time, takes out events and packets until there
//! are none, and sleeps until a datagram comes or `poll_timeout` is due. A simulator does the same with a network of
//! its own and virtual time.
//!
//! What it promises:
//! - A peer is who its certificate says, in both directions, in this cluster ([`Identity`]); everyone else ends in the
//!   handshake, with a counter and an event ([`Refusal`]). TLS 1.3 only, no 0-RTT, no resumption. **Plaintext does not
//!   exist in this version**, not even on loopback: [`DevelopmentAuthority`] makes certificates as easy.
//! - Between each two nodes at most one connection is up. It is dialed by the lower id, by the higher one after a delay;
//!   a restarted peer is noticed by its new incarnation, a dead one by its silence.
//! - On a connection, each [`Lane`] delivers whole messages in order, exactly once; votes overtake the log. When the
//!   connection is lost so is what was on the way: [`Event::Disconnected`] says so, and repetition is the caller's.
//! - Everything is bounded: messages, queues, half-open handshakes, memory for what was received.
//!
//! What it does not: resolve names, read a clock (certificates are judged by [`Config::wall_clock`]), persist anything,
//! interpret a message.
//!
//! Randomness: jitter and QUIC's own choices follow [`Config::seed`]; TLS keys and connection ids are drawn from the
//! operating system.

mod certs;
mod config;
#[doc(hidden)]
pub mod decoders;
mod drive;
mod event;
mod framing;
mod greeting;
mod identity;
mod link;
mod peers;
mod refusals;
#[cfg(test)]
mod tests;
mod tls;
mod transport;

pub use certs::{CertsError, DevelopmentAuthority, EphemeralAuthority};
pub use config::{Config, ConfigError, PeerAddress};
pub use event::{CloseCode, DisconnectReason, Event, Lane, Refusal, SendError, Stats};
pub use identity::{Identity, PeerId};
pub use tls::{Tls, TlsError, TlsFiles, TlsPem};
pub use transport::{Datagram, Ecn, Transmit, Transport};

/// What one `sendmsg` with segmentation offload may carry: the kernel drops more than 65,507 bytes in silence.
pub(crate) const MAX_GSO_BYTES: usize = 65_500;
