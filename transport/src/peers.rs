//! Who dials whom and when, and which of two connections stays.
//!
//! The lower id dials at once, the higher one if nothing came for a while, both again and again at growing intervals.
//! When two connections to one peer meet, both sides must keep the same one without talking about it:
//!
//! | the newer one is of | | stays |
//! |---|---|---|
//! | another incarnation | | the newer: the older's process is dead |
//! | the same | same dialer | the newer: a dialer dials only when it has none |
//! | the same | other dialer, the older one is settled | the newer: the dialer has lost the older |
//! | the same | other dialer, both are fresh | the one that the lower id dialed |

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tracing::{debug, info};

use crate::link::{PER_MESSAGE, Stage};
use crate::{CloseCode, DisconnectReason, Event, Identity, PeerAddress, PeerId, Transport};

pub(crate) struct Peer {
    pub(crate) id: PeerId,
    pub(crate) address: SocketAddr,
    /// The link that is up.
    pub(crate) up: Option<usize>,
    /// The link that this node dialed and that is not up yet.
    pub(crate) dialing: Option<usize>,
    /// When to dial. Invariant: set whenever `up` and `dialing` are not, unless the transport closes.
    pub(crate) dial_at: Option<Instant>,
    /// Dials in vain since the last good connection.
    attempts: u32,
}

/// Randomness for intervals (SplitMix64, Steele et al. 2014): spreads redials, decides nothing else.
pub(crate) struct Jitter(u64);

impl Jitter {
    pub(crate) fn new(seed: [u8; 32]) -> Self {
        Self(seed.chunks_exact(8).fold(0, |mix, part| {
            mix.rotate_left(17) ^ u64::from_le_bytes(*part.first_chunk().expect("eight bytes"))
        }))
    }

    /// Between four fifths and twice of `base`, evenly.
    fn spread(&mut self, base: Duration) -> Duration {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        let fraction = u32::try_from((z ^ (z >> 31)) >> 44).unwrap_or(0); // 20 bits
        base * 4 / 5 + base / 10 * 12 * fraction / (1 << 20)
    }
}

impl Transport {
    pub(crate) fn find_peer(&self, id: PeerId) -> Option<usize> {
        self.peers.binary_search_by_key(&id, |peer| peer.id).ok()
    }

    pub(crate) fn insert_peer(&mut self, peer: PeerAddress) {
        let Err(slot) = self.peers.binary_search_by_key(&peer.id, |peer| peer.id) else { return };
        let wait = if self.config.node < peer.id { Duration::ZERO } else { self.config.dial_delay };
        let dial_at = (!self.closing).then(|| self.now + wait);
        let entry =
            Peer { id: peer.id, address: peer.address, up: None, dialing: None, dial_at, attempts: 0 };
        self.peers.insert(slot, entry);
        self.timeouts_changed();
    }

    pub(crate) fn move_peer(&mut self, slot: usize, address: SocketAddr) {
        if self.peers[slot].address == address {
            return;
        }
        self.peers[slot].address = address;
        self.peers[slot].attempts = 0;
        if let Some(at) = self.peers[slot].dialing {
            self.end(at, DisconnectReason::Closed, CloseCode::Goodbye);
        }
        if self.peers[slot].up.is_none() && !self.closing {
            self.peers[slot].dial_at = Some(self.now);
            self.timeouts_changed();
        }
    }

    pub(crate) fn replace_peers(&mut self, peers: &[PeerAddress]) {
        for slot in (0..self.peers.len()).rev() {
            let id = self.peers[slot].id;
            if !peers.iter().any(|peer| peer.id == id) {
                for at in [self.peers[slot].up, self.peers[slot].dialing].into_iter().flatten() {
                    self.end(at, DisconnectReason::Closed, CloseCode::NotAPeer);
                }
                self.peers.remove(slot);
            }
        }
        let own = self.config.node;
        for peer in peers.iter().filter(|peer| peer.id != own) {
            match self.find_peer(peer.id) {
                Some(slot) => self.move_peer(slot, peer.address),
                None => self.insert_peer(*peer),
            }
        }
        self.timeouts_changed();
    }

    /// Dials every peer whose time has come.
    pub(crate) fn dial_due(&mut self) {
        for slot in 0..self.peers.len() {
            if self.peers[slot].dial_at.is_some_and(|due| due <= self.now) {
                self.dial(slot);
            }
        }
    }

    pub(crate) fn dial(&mut self, slot: usize) {
        let (id, address) = (self.peers[slot].id, self.peers[slot].address);
        self.peers[slot].dial_at = None;
        self.timeouts_changed();
        self.stats.dials += 1;
        let name = Identity { cluster: self.config.cluster, node: id }.to_string();
        match self.endpoint.connect(self.now, self.client.clone(), address, &name) {
            Ok((handle, connection)) => {
                self.peers[slot].dialing = Some(handle.0);
                self.insert_link(handle, connection, Some(id));
            }
            Err(error) => {
                debug!(peer = id.0, %address, %error, "cannot dial");
                self.plan_dial(slot, Outcome::InVain);
            }
        }
    }

    /// A link of this peer is gone: sees to it that another one comes.
    pub(crate) fn plan_dial(&mut self, slot: usize, outcome: Outcome) {
        let base = self.config.reconnect_min;
        let peer = &mut self.peers[slot];
        peer.attempts = match outcome {
            Outcome::InVain => peer.attempts.saturating_add(1),
            Outcome::Good => 0,
        };
        if self.closing || peer.up.is_some() || peer.dialing.is_some() {
            return;
        }
        let doublings = peer.attempts.saturating_sub(1).min(16);
        let wait = base.saturating_mul(1 << doublings).min(self.config.reconnect_max);
        let backoff = self.jitter.spread(wait).min(self.config.reconnect_max);
        let turn = if self.config.node > peer.id && peer.attempts == 0 {
            self.config.dial_delay
        } else {
            Duration::ZERO
        };
        let due = self.now + backoff + turn;
        peer.dial_at = Some(peer.dial_at.map_or(due, |at| at.min(due)));
        self.timeouts_changed();
    }

    /// A link has greeted well: `peer` at `slot` in its life `incarnation`. Decides whether the link is taken.
    pub(crate) fn adopt(&mut self, at: usize, slot: usize, incarnation: u64) {
        let id = self.peers[slot].id;
        if let Some(old) = self.peers[slot].up {
            let Some((old_incarnation, old_since)) =
                self.links[old].as_ref().and_then(|link| match link.stage {
                    Stage::Up { incarnation, since, .. } => Some((incarnation, since)),
                    _ => None,
                })
            else {
                unreachable!("a peer's link is up");
            };
            if old_incarnation != incarnation {
                self.drop_received(id);
                self.end(old, DisconnectReason::Restarted, CloseCode::Superseded);
            } else if self.newer_stays(at, old, id, old_since) {
                self.end(old, DisconnectReason::Superseded, CloseCode::Superseded);
            } else {
                self.end(at, DisconnectReason::Superseded, CloseCode::Superseded);
                return;
            }
        }
        let Some(link) = &mut self.links[at] else { return };
        if link.is_half_open() {
            self.half_open -= 1;
        }
        link.stage = Stage::Up { peer: id, incarnation, since: self.now };
        let peer = &mut self.peers[slot];
        peer.up = Some(at);
        peer.dial_at = None;
        if peer.dialing == Some(at) {
            peer.dialing = None;
        }
        self.stats.connections += 1;
        self.timeouts_changed();
        let address = self.links[at].as_ref().map(|link| link.remote);
        info!(peer = id.0, ?address, incarnation, "peer connected");
        self.events.push_back(Event::Connected { peer: id, incarnation });
        self.drop_own_dial(slot);
    }

    /// Our own dial that is still under way is not needed any more, unless the rule above will prefer it: once our
    /// greeting is out, the other side may have adopted it already.
    fn drop_own_dial(&mut self, slot: usize) {
        let peer = &self.peers[slot];
        let Some(dialing) = peer.dialing else { return };
        let greeted = self.links[dialing].as_ref().is_some_and(|link| link.stage == Stage::Greeting);
        if self.config.node > peer.id || !greeted {
            self.end(dialing, DisconnectReason::Superseded, CloseCode::Superseded);
        }
    }

    fn newer_stays(&self, newer: usize, older: usize, peer: PeerId, older_since: Instant) -> bool {
        let dialed_by_us = |at: usize| self.links[at].as_ref().is_some_and(|link| link.dialed.is_some());
        let settled = older_since + self.config.idle_timeout / 2 <= self.now;
        let we_are_lower = self.config.node < peer;
        dialed_by_us(newer) == dialed_by_us(older) || settled || dialed_by_us(newer) == we_are_lower
    }

    /// Messages of a dead process that nobody has looked at yet are not worth looking at.
    fn drop_received(&mut self, id: PeerId) {
        let (stats, waiting) = (&mut self.stats, &mut self.waiting_bytes);
        self.events.retain(|event| match event {
            Event::Received { peer, message, .. } if *peer == id => {
                stats.stale_dropped += 1;
                *waiting -= message.len() + PER_MESSAGE;
                false
            }
            _ => true,
        });
    }
}

/// How a link ended, as far as the next dial is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It had been of use: dial again soon.
    Good,
    /// It never came up, or was thrown out at once: wait longer each time.
    InVain,
}
