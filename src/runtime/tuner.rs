//! The loop's part of tuning: it measures intervals, hands them to the tuner, and carries out what that decides.
//!
//! A latency begins with the hand-over of a command and ends when its answer is in its caller's mailbox. Neither end is
//! read from a clock for each command. Its beginning is known to within the turn before: what is taken in a turn was
//! handed over after the last look into the queue, and after the loop's last sleep, whichever was later. The later end
//! is the end of the turn's delivery. So a latency is too high by a turn at most, and never too low by more than it
//! takes to wake the loop.
//!
//! Where no target is set, none of this exists and the loop pays for a branch or two a turn.

use crate::api::TunerStatus;
use crate::config::{Configuration, Durability, LatencyTarget};
use crate::node::pace::{Load, Meter};
use crate::node::tuner::{Decision, Histogram, Interval, Knob, Span, Tuner};
use crate::node::{Node, Pace, StateMachine};
use crate::raft::Mono;
use crate::raft::time::nanos;
use std::collections::VecDeque;
use std::time::Duration;

/// Decisions that are remembered for the status.
const REMEMBERED: usize = 16;
/// A loop that turns again after less than this has not slept.
const NO_SLEEP: Duration = Duration::from_micros(50);

/// A tuner at work.
pub(super) struct Tuning {
    tuner: Tuner,
    every: Duration,
    histogram: Histogram,
    load: Load,
    /// When the interval began, if one runs: an idle loop is not woken to find out that it is idle.
    began: Option<Mono>,
    /// The last look that found the queue empty in the end.
    emptied: Mono,
    rested: Mono,
    decisions: VecDeque<(Mono, Decision)>,
}

impl Tuning {
    /// As configured: `None` where nothing is to be tuned.
    pub(super) fn new<M: StateMachine>(
        configuration: &Configuration,
        node: &mut Node<M>,
    ) -> Option<Box<Self>> {
        let LatencyTarget::Under(target) = configuration.tuner.target_p99 else { return None };
        let mut bounds = configuration.tuner_bounds();
        let pace = configuration.pace();
        let stay = |knob: Knob| Span { least: knob.of(&pace), most: knob.of(&pace) };
        // How much may be acknowledged and not on the disk is a promise of `MemFirst`, not a matter of speed.
        if configuration.durability == Durability::MemFirst {
            bounds.batches_in_flight = stay(Knob::BatchesInFlight);
        }
        if configuration.node.peers.len() <= 1 {
            bounds.in_flight_bytes = stay(Knob::InFlightBytes);
        }
        let tuner = Tuner::new(target, bounds, pace);
        node.begin_to_measure();
        node.set_pace(tuner.pace());
        Some(Box::new(Self {
            tuner,
            every: configuration.tuner.interval,
            histogram: Histogram::default(),
            load: Load::default(),
            began: None,
            emptied: Mono(0),
            rested: Mono(0),
            decisions: VecDeque::with_capacity(REMEMBERED),
        }))
    }

    /// A turn takes submissions; it is `now`, and the turn began `before`.
    pub(super) fn note_turn(&mut self, now: Mono, before: Duration, meter: &mut Meter) {
        let since_rest = now.since(self.rested).saturating_sub(before);
        let began = Mono(now.0.saturating_sub(nanos(before)));
        meter.note_hand_over(if since_rest > NO_SLEEP { began } else { self.emptied });
    }

    /// There was nothing more to take, in a turn that began at `now`.
    pub(super) fn note_emptied(&mut self, now: Mono) {
        self.emptied = now;
    }

    /// The answers of a turn are delivered.
    pub(super) fn note_delivery(&mut self, now: Mono, meter: &mut Meter) {
        self.rested = now;
        for (since, commands) in meter.drain_applied() {
            self.began.get_or_insert(now);
            self.histogram.record(now.since(since), u64::from(commands));
        }
    }

    /// When the interval ends.
    pub(super) fn poll_timeout(&self) -> Option<Mono> {
        Some(self.began?.after(self.every))
    }

    /// Ends the interval if it is time, and does what follows from it.
    pub(super) fn tune<M: StateMachine>(&mut self, now: Mono, node: &mut Node<M>) {
        let Some(began) = self.began.filter(|began| began.after(self.every) <= now) else { return };
        self.load = node.take_load();
        let interval = Interval { latencies: &self.histogram, load: self.load, lasted: now.since(began) };
        let was_at_rest = self.tuner.is_at_rest();
        if let Some(decision) = self.tuner.handle_interval(&interval) {
            node.set_pace(self.tuner.pace());
            self.remember(now, decision);
        } else if self.tuner.is_at_rest() && !was_at_rest {
            let met = self.tuner.last().is_some_and(|last| last.p99 <= self.tuner.target());
            tracing::info!(
                pace = ?self.tuner.pace(),
                last = self.tuner.last().map(tracing::field::display),
                target_p99 = ?self.tuner.target(),
                "the tuner rests: {}",
                if met { "nothing it may try is better" } else { "the target is out of reach within its bounds" }
            );
        }
        // Without load the interval that follows begins with the next command; a change that awaits its judgement is
        // taken back in time all the same.
        let goes_on = self.histogram.count() > 0 || self.tuner.is_trying();
        self.began = goes_on.then_some(now);
        self.histogram.clear();
    }

    /// Somebody else has set the pace: within the bounds, it is where the tuner goes on from.
    pub(super) fn begin_from(&mut self, pace: Pace) -> Pace {
        self.tuner.begin_from(pace)
    }

    fn remember(&mut self, now: Mono, decision: Decision) {
        let Decision { knob, from, to, reason } = &decision;
        tracing::info!(%knob, from, to, "tuner: {reason}");
        if self.decisions.len() == REMEMBERED {
            self.decisions.pop_front();
        }
        self.decisions.push_back((now, decision));
    }

    pub(super) fn status(&self, now: Mono) -> TunerStatus {
        TunerStatus {
            target: self.tuner.target(),
            last: self.tuner.last(),
            at_rest: self.tuner.is_at_rest(),
            decisions: self.decisions.iter().map(|&(at, decision)| (now.since(at), decision)).collect(),
        }
    }
}
