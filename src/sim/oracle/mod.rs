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
//! | `equal_digests` | O4: equal replicas at equal indices |
//! | `durable_acknowledgements` | O5: acknowledged is decided, decided is on a majority's disks |
//! | `linearizability`, `search`, `past` | O6: by the order of revisions, by search, and for ranges and past states |
//! | `exactly_once`, `model` | O7: no command twice, one answer to all tries, by a replay of the ledger |
//! | `watch` | O8: the nine guarantees of a watch |
//! | `log_time`, `ttl`, `model` | O9: leases end when their time is over, all over, and once |
//! | `wire_tap` | O10: what leaves is on disk |
//! | `monotony` | O11: nothing goes back |
//! | `recovery` | O12: what is recovered is the truth |
//! | `liveness` | O13: when faults have ended, everything owed is done |
//! | `bounds` | O15: limits are kept |
//! | `sometimes` | O19: rare branches that were reached |
//!
//! Beside them: `seat` (what is known of a node), `calls` (of the clients), `nodes` and `clients` (who is told what).
//!
//! `MemFirst` promises nothing once a majority lost its memory together. From then on the run is judged without what
//! depends on decisions (O3 to O7): nobody can say which of them still stand.
//!
//! Not judged here: determinism (O14, two runs are compared) and panics ([`NO_PANIC`], the runner catches them).

mod bounds;
mod calls;
mod clients;
mod durable_acknowledgements;
mod election_safety;
mod equal_digests;
mod exactly_once;
mod fast;
mod linearizability;
mod liveness;
mod log_matching;
mod log_time;
mod model;
mod monotony;
mod nodes;
mod past;
mod recovery;
mod search;
mod seat;
pub mod sometimes;
mod state_machine_safety;
#[cfg(test)]
mod story;
#[cfg(test)]
mod tests;
mod ttl;
mod verdicts;
mod watch;
mod wire_tap;

pub use sometimes::{Mark, Marks};
pub use verdicts::Verdicts;

use super::observation::{End, Instant, Observation, Terms, Violation, WatcherId};
use crate::kv::{LeaseLimits, Store};
use crate::node::Node;
use crate::raft::Durability;
use calls::Calls;
use election_safety::ElectionSafety;
use equal_digests::EqualDigests;
use exactly_once::ExactlyOnce;
use fast::FastMap;
use linearizability::Linearizability;
use liveness::{Final, Liveness};
use log_matching::LogMatching;
use log_time::LogTime;
use seat::Seat;
use state_machine_safety::Ledger;
use std::time::Duration;
use wal::{Frame, NodeId, Term};
use watch::Watches;

/// O6, under which the world reports what a reader with a lease would see.
pub const LINEARIZABILITY: &str = linearizability::NAME;
/// O9, under which the world reports leases that outlive their time.
pub const TTL: &str = ttl::NAME;
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

/// Whether decisions can still be judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sight {
    /// Everything is judged.
    Whole,
    /// An entry was decided that no judge ever saw the content of: answers are not replayed.
    NoReplay,
    /// A majority lost its memory: nothing that depends on decisions is judged.
    NoDecisions,
}

/// All judges of one run.
#[derive(Debug)]
pub struct Judges {
    now: Instant,
    durability: Durability,
    sight: Sight,
    seats: Vec<Seat>,
    calls: Calls,
    election: ElectionSafety,
    matching: LogMatching,
    ledger: Ledger,
    /// What undecided entries hold, by index and term, and for how long somebody had led when they were first seen.
    bodies: FastMap<(u64, u64), (Frame, u64)>,
    time: LogTime,
    watches: Watches,
    terms: Terms,
    digests: EqualDigests,
    once: ExactlyOnce,
    order: Linearizability,
    liveness: Liveness,
    election_timeout: Duration,
    newest_leader: Term,
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
            now: Instant::default(),
            durability: Durability::DiskFirst,
            sight: Sight::Whole,
            seats: Vec::new(),
            calls: Calls::default(),
            election: ElectionSafety::default(),
            matching: LogMatching::default(),
            ledger: Ledger::default(),
            bodies: FastMap::default(),
            time: LogTime::default(),
            watches: Watches::default(),
            terms: Terms { changes: None, leases: LeaseLimits::MAX, fastest_ppm: None, longest_step: 0 },
            digests: EqualDigests::default(),
            once: ExactlyOnce::default(),
            order: Linearizability::default(),
            liveness: Liveness::default(),
            election_timeout: Duration::ZERO,
            newest_leader: Term::ZERO,
            counts: Verdicts::default(),
        }
    }

    /// Hears what happened.
    ///
    /// # Errors
    /// The first property that does not hold. The run is over then: what follows is not judged.
    pub fn observe(&mut self, at: Instant, observation: &Observation<'_>) -> Result<(), Violation> {
        self.now = at;
        self.counts.observations += 1;
        self.liveness.pass(at)?;
        match *observation {
            Observation::Stepped { node, disk } => {
                let seat = self.look(node, disk)?;
                bounds::judge(self.seats[seat].id, bounds::Held::of(node), bounds::Allowed::of(node))
            }
            Observation::Sent { node, to, message, disk } => {
                let seat = self.look(node, disk)?;
                self.tap(seat, node, to, message)
            }
            Observation::Begun { members, durability, terms } => {
                self.durability = durability;
                self.terms = terms;
                self.once.limit(terms.leases);
                members.iter().for_each(|&id| {
                    self.seat_of(id);
                });
                Ok(())
            }
            Observation::Recovered { id, verdict, disk } => self.recover(id, verdict, disk),
            Observation::Started { node } => self.start(node),
            Observation::Ended { id, end } => {
                self.end(id, end);
                Ok(())
            }
            Observation::Invoked { client, call, ask, command, session } => {
                self.invoke(client, call, (ask, command), session)
            }
            Observation::Replied { call, reply } => self.reply(call, reply),
            Observation::Answered { call, answer } => self.answer(call, answer),
            Observation::Healed { core } => {
                self.heal(core);
                Ok(())
            }
            Observation::Finished { core, watching } => self.judge_core(core, watching),
            _ if self.sight != Sight::Whole => Ok(()),
            Observation::Watches { watcher, wish, from, begin } => {
                self.watches.begin(self.once.model(), (watcher, *wish), from, begin)
            }
            Observation::Watched { watcher, item } => self.watches.hear(self.once.model(), watcher, item),
            Observation::Unwatched { watcher, why, revision } => {
                self.watches.end(self.once.model(), self.terms.changes, (watcher, why, revision))
            }
        }
    }

    /// Notes a rare branch that only the world can see.
    pub fn mark(&mut self, mark: Mark) {
        self.counts.marks.add(mark, 1);
    }

    /// Judges what can only be judged at the end, and says how much was judged.
    ///
    /// # Errors
    /// The first property that does not hold.
    pub fn finish(&mut self) -> Result<Verdicts, Violation> {
        self.judge_calls()?;
        Ok(self.verdicts())
    }

    /// How much was judged so far.
    #[must_use]
    pub fn verdicts(&self) -> Verdicts {
        let mut counts = self.counts;
        counts.marks.count_store(&self.once.seen);
        counts.marks.count_watches(&self.watches.heard);
        counts.watched = self.watches.heard.events;
        counts.expired = self.once.seen.expired;
        Verdicts {
            leaders: self.election.elected(),
            entries: self.matching.entries(),
            decided: self.ledger.len() as u64,
            compared: self.digests.compared(),
            leader_after: self.liveness.took(),
            ..counts
        }
    }

    fn seat_of(&mut self, id: NodeId) -> usize {
        self.seats.iter().position(|seat| seat.id == id).unwrap_or_else(|| {
            self.seats.push(Seat::new(id));
            self.seats.len() - 1
        })
    }

    fn end(&mut self, id: NodeId, end: &End) {
        let at = self.seat_of(id);
        let seat = &mut self.seats[at];
        seat.up = false;
        self.time.follow(id);
        let seat = &mut self.seats[at];
        seat.suspect |= self.durability == Durability::MemFirst && *end != End::Closed;
        if let End::Halted(why) = end {
            let diverged = why.contains("diverged");
            self.mark(if diverged { Mark::Diverged } else { Mark::DiskLatched });
        }
        self.count_memories();
    }

    /// A majority without memory is the one case in which `MemFirst` promises nothing.
    fn count_memories(&mut self) {
        let suspects = self.seats.iter().filter(|seat| seat.suspect).count();
        if suspects > self.seats.len() / 2 && self.sight != Sight::NoDecisions {
            self.sight = Sight::NoDecisions;
            self.mark(Mark::MemoryLost);
        }
    }

    fn heal(&mut self, core: &[NodeId]) {
        self.liveness.heal(self.now, core, self.election_timeout);
        for at in 0..self.seats.len() {
            self.note_leader(at);
        }
    }

    /// A leader of the core that no other of the core has outlived.
    fn note_leader(&mut self, at: usize) {
        let seat = &self.seats[at];
        if !seat.up || !seat.seen.leads() || !self.liveness.waits_for(seat.id) {
            return;
        }
        let core = self.seats.iter().filter(|seat| seat.up && self.liveness.waits_for(seat.id));
        if core.map(|seat| seat.seen.term).max() == Some(seat.seen.term) {
            self.liveness.lead(self.now);
        }
    }

    fn judge_core(&mut self, core: &[&Node<Store>], watching: &[WatcherId]) -> Outcome {
        if self.sight == Sight::Whole {
            core.iter().try_for_each(|node| ttl::judge(node, self.once.model()))?;
            self.watches.finish(self.once.model(), watching)?;
        }
        let last: Vec<_> = core
            .iter()
            .map(|node| Final {
                id: node.raft().config().id,
                term: node.raft().term(),
                leader: node.raft().leader(),
                last: node.raft().log().last().index,
                applied: node.applied(),
                digest: node.machine().digest(),
                pending: node.pending(),
            })
            .collect();
        self.liveness.finish(&last, self.calls.open())
    }
}
