//! The judges: one file per property, named after it, each a plain value that is told what happened and says whether
//! that can be.
//!
//! [`Judges`] hears every [`Observation`] of a run in order and passes on what is new in it. The ids are those of the
//! fault catalogue:
//!
//! | file | property |
//! |---|---|
//! | `election_safety` | O1: one leader a term |
//! | `log_matching` | O2: one index and term, one entry |
//! | `state_machine_safety` | O3: decided once, for ever, everywhere; leaders have it |
//! | `wire_tap` | O10: what leaves is on disk |
//! | `monotony` | O11: nothing goes back |
//!
//! Not judged here: determinism (O14, two runs are compared) and panics ([`NO_PANIC`], the runner catches them).

mod election_safety;
mod fast;
mod log_matching;
mod monotony;
mod seat;
mod state_machine_safety;
#[cfg(test)]
mod story;
mod wire_tap;

use super::observation::{Instant, Observation, Truth, Verdict, Violation};
use crate::kv::Store;
use crate::node::{Message, Node};
use crate::raft::message::Body;
use crate::raft::{self, Durability};
use election_safety::ElectionSafety;
use fast::FastMap;
use log_matching::{LogMatching, Sighting};
use seat::{Seat, Summary};
use state_machine_safety::{Decider, Ledger};
use wal::{Frame, NodeId};
use wire_tap::Leaving;

/// O18: no panic, no assertion that fires. The runner catches one and reports it under this name.
pub const NO_PANIC: &str = "no_panic";

type Outcome<T = ()> = Result<T, Violation>;

/// Returns a violation if the condition holds.
macro_rules! violated {
    ($bad:expr, $oracle:expr, $($what:tt)+) => {
        if $bad {
            return Err($crate::sim::oracle::violation($oracle, format!($($what)+)));
        }
    };
}
use violated;

#[cold]
fn violation(oracle: &'static str, what: String) -> Violation {
    Violation { oracle, what }
}

/// What was judged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verdicts {
    /// Observations heard.
    pub observations: u64,
    /// Observations in which a node had changed.
    pub changes: u64,
    /// Messages tapped.
    pub messages: u64,
    /// Terms that had a leader.
    pub leaders: u64,
    /// Different entries seen in logs and messages.
    pub entries: u64,
    /// Entries decided.
    pub decided: u64,
}

/// All judges of one run.
#[derive(Debug)]
pub struct Judges {
    durability: Durability,
    seats: Vec<Seat>,
    election: ElectionSafety,
    matching: LogMatching,
    ledger: Ledger,
    /// What undecided entries hold, by index and term.
    bodies: FastMap<(u64, u64), Frame>,
    counts: Verdicts,
}

impl Default for Judges {
    fn default() -> Self {
        Self::new()
    }
}

impl Judges {
    /// Judges who have heard nothing.
    #[must_use]
    pub fn new() -> Self {
        Self {
            durability: Durability::DiskFirst,
            seats: Vec::new(),
            election: ElectionSafety::default(),
            matching: LogMatching::default(),
            ledger: Ledger::default(),
            bodies: FastMap::default(),
            counts: Verdicts::default(),
        }
    }

    /// Hears what happened.
    ///
    /// # Errors
    /// The first property that does not hold. The run is over then: what follows is not judged.
    pub fn observe(&mut self, at: Instant, observation: &Observation<'_>) -> Result<(), Violation> {
        let _ = at;
        self.counts.observations += 1;
        match *observation {
            Observation::Stepped { node, disk } => {
                self.look(node, disk)?;
            }
            Observation::Sent { node, to, message, disk } => {
                let seat = self.look(node, disk)?;
                self.tap(seat, node, to, message)?;
            }
            Observation::Begun { members, durability } => {
                self.durability = durability;
                members.iter().for_each(|&id| {
                    self.seat_of(id);
                });
            }
            Observation::Recovered { id, verdict, disk } => self.recover(id, verdict, disk)?,
            Observation::Started { node } => self.start(node)?,
            Observation::Ended { id, .. } => {
                let seat = self.seat_of(id);
                self.seats[seat].up = false;
            }
            Observation::Invoked { .. }
            | Observation::Replied { .. }
            | Observation::Answered { .. }
            | Observation::Healed { .. }
            | Observation::Finished { .. } => {}
        }
        Ok(())
    }

    /// Judges what can only be judged at the end, and says how much was judged.
    ///
    /// # Errors
    /// The first property that does not hold.
    pub fn finish(&mut self) -> Result<Verdicts, Violation> {
        Ok(Verdicts {
            leaders: self.election.elected(),
            entries: self.matching.entries(),
            decided: self.ledger.len() as u64,
            ..self.counts
        })
    }

    fn seat_of(&mut self, id: NodeId) -> usize {
        self.seats.iter().position(|seat| seat.id == id).unwrap_or_else(|| {
            self.seats.push(Seat::new(id));
            self.seats.len() - 1
        })
    }

    fn recover(&mut self, id: NodeId, verdict: &Verdict, disk: &Truth) -> Outcome {
        let at = self.seat_of(id);
        let seat = &mut self.seats[at];
        seat.flush(disk);
        if let Verdict::Opened { log, hard_state, .. } = verdict {
            // What the disk gave is what it holds from now on.
            seat.flushed.log.clone_from(log);
            seat.flushed.hard_state = *hard_state;
            seat.flushed.commit = seat.flushed.commit.min(wal::LogIndex(log.len() as u64));
            seat.log.clone_from(log);
        }
        Ok(())
    }

    fn start(&mut self, node: &Node<Store>) -> Outcome {
        let at = self.seat_of(node.raft().config().id);
        let seat = &mut self.seats[at];
        seat.life += 1;
        seat.up = true;
        let now = Summary::of(node);
        monotony::begins(seat.id, seat.flushed.hard_state, seat.flushed.log.last(), &now)?;
        seat.seen = Summary { term: now.term, ..Summary::default() };
        self.change(at, node, now)
    }

    /// Looks at a node and its disk; which seat is its.
    fn look(&mut self, node: &Node<Store>, disk: &Truth) -> Outcome<usize> {
        let at = self.seat_of(node.raft().config().id);
        let seat = &mut self.seats[at];
        if seat.flushed.hard_state != disk.hard_state {
            monotony::votes(seat.id, seat.flushed.hard_state, disk.hard_state)?;
        }
        let (held, commit) = (seat.flushed.log.len(), seat.flushed.commit);
        if let Some(kept) = seat.flush(disk) {
            monotony::drops(seat.id, commit, kept..held)?;
        }
        let now = Summary::of(node);
        if seat.seen != now {
            monotony::lives(seat.id, &seat.seen, &now)?;
            self.change(at, node, now)?;
        }
        Ok(at)
    }

    /// A node has changed.
    fn change(&mut self, at: usize, node: &Node<Store>, now: Summary) -> Outcome {
        self.counts.changes += 1;
        let seat = &mut self.seats[at];
        let before = std::mem::replace(&mut seat.seen, now);
        let id = seat.id;
        if seat.log.last() != Some(&now.last) {
            let kept = seat.follow(node.raft().log());
            monotony::truncates(id, before.commit, kept)?;
            for &entry in &seat.log[kept..] {
                if self.matching.see(entry, id)? == Sighting::First
                    && let Some(frame) = node.raft().log().frame(entry.index)
                {
                    self.bodies.insert((entry.index.0, entry.term.0), frame.clone());
                }
            }
        }
        let decider = Decider { id, term: now.term, log: &seat.log };
        if now.leads() && (!before.leads() || before.term != now.term) {
            self.election.claim(now.term, id)?;
            self.ledger.lead(decider)?;
        }
        if now.commit != before.commit {
            self.ledger.decide(decider, now.commit)?;
        }
        Ok(())
    }

    fn tap(&mut self, at: usize, node: &Node<Store>, to: NodeId, message: &Message) -> Outcome {
        self.counts.messages += 1;
        let Message::Raft(message) = message else { return Ok(()) };
        let seat = &mut self.seats[at];
        wire_tap::tap(Leaving {
            from: seat.id,
            to,
            message,
            disk: seat.flushed.hard_state,
            flushed: &seat.flushed.log,
            log: &seat.log,
            leased: matches!(message.body, Body::TimeoutNow) && node.raft().lease().is_some(),
            durability: self.durability,
        })?;
        let raft::Message { term, body } = message;
        match body {
            Body::Candidacy(candidacy) => seat.candidacy = Some((*term, *candidacy)),
            Body::Append(append) => {
                self.election.claim(*term, seat.id)?;
                self.matching.see(append.previous, seat.id)?;
                for frame in &append.frames {
                    self.matching.see(frame.id(), seat.id)?;
                }
            }
            Body::Heartbeat(_) | Body::TimeoutNow => self.election.claim(*term, seat.id)?,
            Body::Vote(_) | Body::Appended(_) | Body::Alive(_) => {}
        }
        Ok(())
    }
}
