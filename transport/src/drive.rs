//! The transport's inside: what QUIC reports about a link becomes messages, events, and the end of links.
//!
//! Only links on the dirty list are looked at, once per round, however many datagrams they received in it.

use bytes::Bytes;
use quinn_proto as quic;
use quinn_proto::ConnectionError;
use rustls::pki_types::CertificateDer;
use tracing::{debug, info};

use crate::greeting::Greeting;
use crate::link::{Left, Link, PER_MESSAGE, Stage};
use crate::peers::Outcome;
use crate::refusals::{refusal_of, refusal_of_greeting};
use crate::{CloseCode, DisconnectReason, Event, Identity, Lane, PeerId, Refusal, Transport};

impl Transport {
    pub(crate) fn insert_link(
        &mut self,
        handle: quic::ConnectionHandle,
        connection: quic::Connection,
        dialed: Option<PeerId>,
    ) {
        let at = handle.0;
        if self.links.len() <= at {
            self.links.resize_with(at + 1, || None);
        }
        let greet_by = self.now + self.config.idle_timeout;
        let link = Link::new(connection, handle, dialed, greet_by, self.config.max_message);
        self.half_open += usize::from(link.is_half_open());
        assert!(self.links[at].is_none(), "QUIC gives a handle out again only after its link drained");
        self.links[at] = Some(Box::new(link));
        self.touch(at);
    }

    /// Looks at every link on which something happened.
    pub(crate) fn settle(&mut self) {
        while let Some(at) = self.dirty.pop_front() {
            if let Some(link) = &mut self.links[at] {
                link.dirty = false;
                self.settle_link(at);
            }
        }
    }

    fn settle_link(&mut self, at: usize) {
        loop {
            let Some(link) = &mut self.links[at] else { return };
            match link.connection.poll() {
                None => break,
                Some(quic::Event::Connected) => self.handle_connected(at),
                Some(quic::Event::ConnectionLost { reason }) => self.handle_lost(at, &reason),
                Some(quic::Event::Stream(event)) => {
                    if link.stage != Stage::Closed
                        && let Err(code) = link.handle_stream_event(&event)
                    {
                        self.violation(at, code);
                    }
                }
                Some(_) => {}
            }
        }
        // After the events: a link's loss is told before its end.
        if self.forward_endpoint_events(at) == Drained::Yes {
            return;
        }
        self.read(at);
        let Some(link) = &mut self.links[at] else { return };
        if link.stage != Stage::Closed
            && let Err(code) = link.flush()
        {
            self.violation(at, code);
        }
        if let Some(link) = &mut self.links[at] {
            link.refresh_timeout();
            if !link.sending {
                link.sending = true;
                self.sending.push_back(at);
            }
        }
        self.timeouts_changed();
    }

    fn forward_endpoint_events(&mut self, at: usize) -> Drained {
        while let Some(link) = &mut self.links[at] {
            let Some(event) = link.connection.poll_endpoint_events() else { return Drained::No };
            let drained = event.is_drained();
            if let Some(answer) = self.endpoint.handle_event(link.handle, event) {
                link.connection.handle_event(answer);
            }
            if drained {
                debug_assert_eq!(link.stage, Stage::Closed, "a link is lost before it drains");
                self.links[at] = None;
                self.timeouts_changed();
                return Drained::Yes;
            }
        }
        Drained::Yes
    }

    /// TLS is done: both certificates are good. Greets.
    fn handle_connected(&mut self, at: usize) {
        let Some(link) = &mut self.links[at] else { return };
        if link.stage == Stage::Handshake
            && let Err(code) = link.open_lanes(&self.greeting)
        {
            self.violation(at, code);
        }
    }

    fn read(&mut self, at: usize) {
        let mut budget = self.config.receive_bytes.saturating_sub(self.waiting_bytes);
        let mut messages = std::mem::take(&mut self.messages);
        // Twice at most: the greeting opens the log lane, and what waits there is read at once.
        let verdict = loop {
            let Some(link) = &mut self.links[at] else { break Ok(Left::Nothing) };
            let stage = link.stage;
            if !matches!(stage, Stage::Greeting | Stage::Up { .. }) {
                break Ok(Left::Nothing);
            }
            let verdict = link.read(&mut messages, &mut budget);
            self.deliver(at, &mut messages);
            let opened = stage == Stage::Greeting
                && self.links[at].as_ref().is_some_and(|link| matches!(link.stage, Stage::Up { .. }));
            if verdict.is_err() || !opened {
                break verdict;
            }
        };
        self.messages = messages;
        match verdict {
            Ok(Left::Nothing) => {}
            Ok(Left::More) => {
                if let Some(link) = &mut self.links[at] {
                    link.stalled = true;
                    self.reading_stalled = true;
                }
            }
            Err(code) => self.violation(at, code),
        }
    }

    fn deliver(&mut self, at: usize, messages: &mut Vec<(Lane, Bytes)>) {
        for (lane, message) in messages.drain(..) {
            let Some(link) = &self.links[at] else { return };
            match link.stage {
                Stage::Up { peer, .. } => {
                    self.stats.messages_received += 1;
                    self.waiting_bytes += message.len() + PER_MESSAGE;
                    self.events.push_back(Event::Received { peer, lane, message });
                }
                Stage::Greeting => {
                    if let Err(code) = self.handle_greeting(at, &message) {
                        self.violation(at, code);
                    }
                }
                Stage::Handshake | Stage::Closed => {}
            }
        }
    }

    /// Holds the greeting against the certificate and the configuration.
    fn handle_greeting(&mut self, at: usize, message: &[u8]) -> Result<(), CloseCode> {
        let greeting = Greeting::decode(message)?;
        if greeting.cluster != self.config.cluster {
            return Err(CloseCode::WrongCluster);
        }
        let Some(link) = &self.links[at] else { return Ok(()) };
        if link.dialed.is_some_and(|dialed| dialed != greeting.node) {
            return Err(CloseCode::WrongNode);
        }
        let identity = Identity { cluster: greeting.cluster, node: greeting.node };
        let certificates = link.connection.crypto_session().peer_identity();
        let certificates = certificates.and_then(|any| any.downcast::<Vec<CertificateDer<'static>>>().ok());
        let named =
            certificates.is_some_and(|chain| chain.first().is_some_and(|end| identity.is_named_by(end)));
        if !named {
            return Err(CloseCode::WrongNode);
        }
        let slot = self.find_peer(greeting.node).ok_or(CloseCode::NotAPeer)?;
        self.adopt(at, slot, greeting.incarnation);
        Ok(())
    }

    /// Handshake or greeting took too long.
    pub(crate) fn give_up(&mut self, at: usize) {
        let Some(link) = &self.links[at] else { return };
        let (from, dialed) = (link.remote, link.dialed);
        if dialed.is_none() {
            self.refuse(from, None, Refusal::Timeout, "handshake or greeting did not finish in time");
        }
        self.end(at, DisconnectReason::TimedOut, CloseCode::NoGreeting);
    }

    /// The other side broke a rule: it is told which, and counted.
    fn violation(&mut self, at: usize, code: CloseCode) {
        let Some(link) = &self.links[at] else { return };
        let (from, dialed) = (link.remote, link.dialed);
        match link.stage {
            Stage::Closed => return,
            Stage::Up { peer, .. } => {
                self.stats.violations += 1;
                info!(peer = peer.0, %from, ?code, "peer broke the rules of a lane, connection closed");
            }
            Stage::Handshake | Stage::Greeting => {
                self.refuse(from, dialed, refusal_of_greeting(code), &format!("{code:?}"));
            }
        }
        self.end(at, DisconnectReason::Violation(code), code);
    }

    fn handle_lost(&mut self, at: usize, error: &ConnectionError) {
        let Some(link) = &self.links[at] else { return };
        let (from, dialed) = (link.remote, link.dialed);
        let reason = match link.stage {
            Stage::Closed => return,
            Stage::Up { .. } => disconnect_reason(error),
            Stage::Handshake | Stage::Greeting => {
                if let Some(refusal) = refusal_of(error, dialed.is_some()) {
                    self.refuse(from, dialed, refusal, &error.to_string());
                }
                disconnect_reason(error)
            }
        };
        self.unlink(at, reason);
    }

    /// Closes a link, if it still lives.
    pub(crate) fn end(&mut self, at: usize, reason: DisconnectReason, code: CloseCode) {
        let live = self.links[at].as_ref().is_some_and(|link| link.stage != Stage::Closed);
        if live {
            self.unlink(at, reason);
            if let Some(link) = &mut self.links[at] {
                link.close(self.now, code);
            }
            self.touch(at);
        }
    }

    /// Takes a link away from its peer, tells the caller if it had been up, and plans the next dial.
    fn unlink(&mut self, at: usize, reason: DisconnectReason) {
        let Some(link) = &mut self.links[at] else { return };
        self.half_open -= usize::from(link.is_half_open());
        let stage = std::mem::replace(&mut link.stage, Stage::Closed);
        let owner = match stage {
            Stage::Up { peer, .. } => Some(peer),
            _ => link.dialed,
        };
        let Some(slot) = owner.and_then(|peer| self.find_peer(peer)) else { return };
        let peer = &mut self.peers[slot];
        if peer.dialing == Some(at) {
            peer.dialing = None;
        }
        let mut outcome = Outcome::InVain;
        if let Stage::Up { since, peer: id, .. } = stage {
            peer.up = None;
            self.stats.disconnections += 1;
            debug!(peer = id.0, ?reason, "peer disconnected");
            self.events.push_back(Event::Disconnected { peer: id, reason });
            let thrown_out = matches!(
                reason,
                DisconnectReason::Violation(_)
                    | DisconnectReason::RefusedByPeer(_)
                    | DisconnectReason::Failed
            );
            if !thrown_out || since + self.config.reconnect_max <= self.now {
                outcome = Outcome::Good;
            }
        } else if reason == DisconnectReason::Superseded {
            outcome = Outcome::Good;
        }
        self.plan_dial(slot, outcome);
    }

    pub(crate) fn resume_reading(&mut self) {
        self.reading_stalled = false;
        for at in 0..self.links.len() {
            if self.links[at].as_mut().is_some_and(|link| std::mem::take(&mut link.stalled)) {
                self.touch(at);
            }
        }
    }
}

#[derive(PartialEq, Eq)]
enum Drained {
    Yes,
    No,
}

fn disconnect_reason(error: &ConnectionError) -> DisconnectReason {
    match error {
        ConnectionError::TimedOut => DisconnectReason::TimedOut,
        ConnectionError::Reset => DisconnectReason::Restarted,
        ConnectionError::ApplicationClosed(close) => {
            match CloseCode::from_wire(close.error_code.into_inner()) {
                CloseCode::Goodbye => DisconnectReason::ClosedByPeer,
                CloseCode::Superseded => DisconnectReason::Superseded,
                code => DisconnectReason::RefusedByPeer(code),
            }
        }
        _ => DisconnectReason::Failed,
    }
}
