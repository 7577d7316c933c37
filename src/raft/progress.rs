//! What a leader knows of one peer's log, and how much it has on the way to it.
//!
//! A peer starts in [`Mode::Probe`]: one append at a time until one is accepted. Then appends are pipelined
//! ([`Mode::Stream`], thesis 10.2.1), bounded by bytes in flight. A peer so far behind that its next entry has left
//! the leader's memory is fed from the disk ([`Mode::Fetch`]), one read at a time.

use super::time::Mono;
use std::collections::VecDeque;
use wal::LogIndex;

/// How the next append to a peer is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Where the logs meet is not known; at most one append is out, since the given time.
    Probe(Option<(Mono, LogIndex)>),
    /// Appends follow each other without waiting.
    Stream,
    /// Waiting for entries from this node's own disk.
    Fetch,
}

/// One peer.
#[derive(Clone, Debug)]
pub struct Progress {
    /// The peer holds the leader's log up to here, as durably as the group promises.
    pub matched: LogIndex,
    /// The next entry to send.
    pub next: LogIndex,
    /// How to send it.
    pub mode: Mode,
    /// Last index, bytes and send time of each append on the way.
    in_flight: VecDeque<(LogIndex, usize, Mono)>,
    in_flight_bytes: usize,
    /// The newest probe this peer has answered, and when that probe was sent.
    pub echoed: u64,
    /// Send time of that probe: the peer recognised this leader at that time or later.
    pub recognised_at: Mono,
    /// The commit index last sent to it.
    pub told_commit: LogIndex,
}

impl Progress {
    /// A peer of which nothing is known but that the log ends before `next`.
    #[must_use]
    pub fn unknown(next: LogIndex) -> Self {
        Self {
            matched: LogIndex::ZERO,
            next,
            mode: Mode::Probe(None),
            in_flight: VecDeque::new(),
            in_flight_bytes: 0,
            echoed: 0,
            recognised_at: Mono(0),
            told_commit: LogIndex::ZERO,
        }
    }

    /// Bytes on the way to the peer.
    #[must_use]
    pub fn in_flight_bytes(&self) -> usize {
        self.in_flight_bytes
    }

    /// When the oldest append on the way left.
    #[must_use]
    pub fn oldest_in_flight(&self) -> Option<Mono> {
        self.in_flight.front().map(|&(_, _, sent_at)| sent_at)
    }

    /// Notes an append that ends at `last`.
    pub fn sent(&mut self, last: LogIndex, bytes: usize, now: Mono) {
        assert!(last >= self.next, "an append with entries moves the peer forward");
        self.next = last.next();
        self.in_flight.push_back((last, bytes, now));
        self.in_flight_bytes += bytes;
        assert!(self.matched < self.next, "what the peer holds is not sent again");
    }

    /// The peer holds everything up to `matched`.
    pub fn accepted(&mut self, matched: LogIndex) {
        self.matched = self.matched.max(matched);
        self.next = self.next.max(self.matched.next());
        while self.in_flight.front().is_some_and(|&(last, ..)| last <= self.matched)
            && !wal::mutant!("inflight_never_freed")
        {
            self.in_flight_bytes -= self.in_flight.pop_front().expect("just seen").1;
        }
        assert!(self.next > self.matched, "what the peer holds is not sent again");
        assert!(!self.in_flight.is_empty() || self.in_flight_bytes == 0, "an empty flight has no bytes");
        // An acceptance from before the probe does not answer it: what was sent since may be lost.
        if matches!(self.mode, Mode::Probe(Some((_, probed))) if probed <= matched) {
            self.mode = Mode::Stream;
        }
    }

    /// Forgets what is on the way (it may be lost) and starts over at `next`.
    pub fn probe_from(&mut self, next: LogIndex) {
        assert!(next > self.matched, "what the peer holds is not sent again");
        self.next = next;
        self.mode = Mode::Probe(None);
        self.in_flight.clear();
        self.in_flight_bytes = 0;
    }

    /// Takes what is on the way for lost: a probe is repeated where it was, a stream goes back to what the peer holds.
    pub fn start_over(&mut self) {
        let probed = match self.mode {
            Mode::Probe(Some((_, previous))) => previous.next(),
            Mode::Probe(None) | Mode::Stream | Mode::Fetch => LogIndex::ZERO,
        };
        self.probe_from(probed.max(self.matched.next()));
    }

    /// Forgets when things happened and how many bytes they had; whether something is on the way stays known.
    #[cfg(feature = "sim")]
    pub(super) fn forget_time(&mut self) {
        if let Mode::Probe(Some((at, _))) = &mut self.mode {
            *at = Mono(0);
        }
        if let Some(&(last, ..)) = self.in_flight.back() {
            self.in_flight.clear();
            self.in_flight.push_back((last, 0, Mono(0)));
        }
        self.in_flight_bytes = 0;
        self.echoed = 0;
        self.recognised_at = Mono(0);
        self.told_commit = LogIndex::ZERO;
    }

    /// A new connection: nothing that was on the way counts, and nothing the peer's former self held is assumed.
    pub fn reconnected(&mut self) {
        if !wal::mutant!("reconnect_keeps_matched") {
            self.matched = LogIndex::ZERO;
        }
        self.probe_from(self.next);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_connection_may_lead_to_a_peer_that_holds_nothing_any_more() {
        let mut progress = Progress::unknown(LogIndex(5));
        progress.sent(LogIndex(9), 100, Mono(1));
        progress.accepted(LogIndex(9));
        progress.reconnected();
        assert_eq!(progress.matched, LogIndex::ZERO, "what its former life held counts for nothing");
        assert_eq!((progress.next, progress.in_flight_bytes()), (LogIndex(10), 0));
    }

    #[test]
    fn an_acceptance_frees_everything_up_to_it_and_starts_the_stream() {
        let mut progress = Progress::unknown(LogIndex(5));
        progress.sent(LogIndex(6), 100, Mono(1));
        progress.sent(LogIndex(9), 200, Mono(2));
        progress.mode = Mode::Probe(Some((Mono(1), LogIndex(4))));
        progress.accepted(LogIndex(3));
        assert!(matches!(progress.mode, Mode::Probe(_)), "that was said before the probe");
        progress.accepted(LogIndex(6));
        assert_eq!(progress.in_flight_bytes(), 200);
        assert_eq!(progress.mode, Mode::Stream);
        assert_eq!((progress.matched, progress.next), (LogIndex(6), LogIndex(10)));
        progress.accepted(LogIndex(4));
        assert_eq!(progress.matched, LogIndex(6));
    }

    #[test]
    fn starting_over_frees_the_flight() {
        let mut progress = Progress::unknown(LogIndex(5));
        progress.sent(LogIndex(9), 200, Mono(2));
        progress.probe_from(LogIndex(3));
        assert_eq!(progress.in_flight_bytes(), 0);
        assert_eq!(progress.oldest_in_flight(), None);
        assert_eq!(progress.next, LogIndex(3));
    }
}
