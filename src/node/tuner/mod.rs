//! Which pace to go at: the 99th percentile of commit latency under a target, and within that as many commands as possible.
//!
//! A hill climber over three [`Knob`]s. It measures a few intervals, changes one knob by a factor of two, measures again,
//! and keeps the change only if it was clearly better; otherwise the old value comes back. When nothing that it may try
//! is better, it rests until the load or the latency has clearly changed. It is a value: intervals and their measurements
//! come in, a [`Decision`] comes out, and whoever drives it carries the decision out.
//!
//! *Better* means, above the target: the percentile is met now, or has fallen by more than throughput has. At or below it:
//! more throughput, with the percentile still under the target. Both by a margin ([`MARGIN`]), which with medians over a
//! window ([`WINDOW`]) is what keeps noise from being followed.
//!
//! Promises: a knob never leaves its bounds by a decision; an interval with hardly any commands changes nothing; a change
//! that was not judged because the load ended, or that is plainly harmful before its time is over, is taken back; under a
//! steady load the decisions end.
//!
//! Deliberately absent: a model of the machine. What a flush or a round trip costs differs by a factor of a thousand
//! between machines and changes while they run; what is measured needs no such number. And steps in two knobs at once: a
//! pair that is better only together is not found.

mod histogram;
#[cfg(test)]
mod tests;

pub use super::pace::{Load, Pace};
pub use histogram::Histogram;

use std::fmt;
use std::time::Duration;

/// Intervals whose medians are compared. A stall of the machine falls into one or two of them.
pub const WINDOW: usize = 5;
/// By how much a change must be better to be kept, in percent.
pub const MARGIN: u64 = 5;
/// Fewer commands in an interval say nothing about its 99th percentile.
pub const ENOUGH: u64 = 50;
/// A change that has seen so many quiet intervals is taken back.
const QUIET: u32 = 8;
/// From this share of batches on, in percent, a knob is believed to hold something back.
const HOLDS_BACK: u64 = 5;
/// Windows of rest after a search that found nothing, at first and at most.
const REST: (u32, u32) = (4, 64);

/// Something that a tuner changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Knob {
    /// [`Pace::batch_bytes`].
    BatchBytes,
    /// [`Pace::batches_in_flight`].
    BatchesInFlight,
    /// [`Pace::in_flight_bytes`].
    InFlightBytes,
}

impl Knob {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::BatchBytes, Self::BatchesInFlight, Self::InFlightBytes];

    /// Its value.
    #[must_use]
    pub fn of(self, pace: &Pace) -> u64 {
        match self {
            Self::BatchBytes => pace.batch_bytes as u64,
            Self::BatchesInFlight => pace.batches_in_flight,
            Self::InFlightBytes => pace.in_flight_bytes as u64,
        }
    }

    /// Gives it a value.
    pub fn set(self, pace: &mut Pace, value: u64) {
        let bytes = usize::try_from(value).unwrap_or(usize::MAX);
        match self {
            Self::BatchBytes => pace.batch_bytes = bytes,
            Self::BatchesInFlight => pace.batches_in_flight = value,
            Self::InFlightBytes => pace.in_flight_bytes = bytes,
        }
    }

    /// Its name in the configuration, where its first value is.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::BatchBytes => "batch_soft_bytes",
            Self::BatchesInFlight => "batches_in_flight",
            Self::InFlightBytes => "inflight_bytes",
        }
    }

    /// How often it held something back, in percent of the batches, and at most all of them: several turns may wait for one.
    fn share(self, load: &Load) -> u64 {
        let times = match self {
            Self::BatchBytes => load.full,
            Self::BatchesInFlight => load.held_by_disk,
            Self::InFlightBytes => load.held_by_peers,
        };
        (times * 100 / load.batches.max(1)).min(100)
    }
}

impl fmt::Display for Knob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// From where to where a knob may go. One value is a knob that stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Its lowest value.
    pub least: u64,
    /// Its highest value.
    pub most: u64,
}

/// The spans of all knobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Of [`Knob::BatchBytes`].
    pub batch_bytes: Span,
    /// Of [`Knob::BatchesInFlight`].
    pub batches_in_flight: Span,
    /// Of [`Knob::InFlightBytes`].
    pub in_flight_bytes: Span,
}

impl Bounds {
    /// The span of a knob.
    #[must_use]
    pub fn of(&self, knob: Knob) -> Span {
        match knob {
            Knob::BatchBytes => self.batch_bytes,
            Knob::BatchesInFlight => self.batches_in_flight,
            Knob::InFlightBytes => self.in_flight_bytes,
        }
    }

    /// The nearest pace that is within them.
    #[must_use]
    pub fn nearest(&self, mut pace: Pace) -> Pace {
        for knob in Knob::ALL {
            let Span { least, most } = self.of(knob);
            let value = knob.of(&pace).clamp(least, most);
            knob.set(&mut pace, value);
        }
        pace
    }
}

/// What an interval was like.
#[derive(Clone, Copy, Debug)]
pub struct Interval<'a> {
    /// How long the commands took that were applied in it.
    pub latencies: &'a Histogram,
    /// What was held back.
    pub load: Load,
    /// How long it was.
    pub lasted: Duration,
}

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measured {
    /// Commands in a second.
    pub rate: u64,
    /// The 99th percentile of their latency.
    pub p99: Duration,
}

impl Measured {
    fn of(interval: &Interval<'_>) -> Option<Self> {
        let count = interval.latencies.count();
        let p99 = interval.latencies.quantile(990).filter(|_| count >= ENOUGH)?;
        let nanos = interval.lasted.as_nanos().max(1);
        let rate = u64::try_from(u128::from(count) * 1_000_000_000 / nanos).unwrap_or(u64::MAX);
        Some(Self { rate, p99 })
    }
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/s at p99 {}", self.rate, Ms(self.p99))
    }
}

/// A duration in milliseconds, for people.
struct Ms(Duration);

impl fmt::Display for Ms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3} ms", self.0.as_secs_f64() * 1e3)
    }
}

/// Why a tuner decided as it did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// The percentile is above the target: this is tried.
    AboveTarget {
        /// What was measured.
        now: Measured,
        /// What is wanted.
        target: Duration,
    },
    /// The target is met: perhaps there is more throughput in it.
    Throughput {
        /// What was measured.
        now: Measured,
        /// In how many of a hundred batches the knob held something back.
        held_back: u64,
    },
    /// The new value was better, and stays.
    Better {
        /// With the old value.
        before: Measured,
        /// With the new one.
        after: Measured,
    },
    /// The new value was not better, and the old one is back.
    NotBetter {
        /// With the old value.
        before: Measured,
        /// With the new one.
        after: Measured,
    },
    /// The load ended before the new value was judged, and the old one is back.
    LoadEnded,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AboveTarget { now, target } => {
                write!(f, "tried: p99 {} is above the target of {}", Ms(now.p99), Ms(*target))
            }
            Self::Throughput { now, held_back } => {
                write!(
                    f,
                    "tried for throughput: {now}, within the target; it held back {held_back} % of batches"
                )
            }
            Self::Better { before, after } => write!(f, "kept: {after}, before it {before}"),
            Self::NotBetter { before, after } => write!(f, "taken back: {after}, before it {before}"),
            Self::LoadEnded => f.write_str("taken back: the load ended before it was judged"),
        }
    }
}

/// One knob, and what to do with it. A kept change is a decision, too; it repeats what is in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// What to change.
    pub knob: Knob,
    /// Its value before.
    pub from: u64,
    /// Its value from now on.
    pub to: u64,
    /// Why.
    pub reason: Reason,
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} -> {}: {}", self.knob, self.from, self.to, self.reason)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Up,
    Down,
}

/// One knob, one way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Move {
    knob: Knob,
    way: Way,
}

impl Move {
    /// In the order in which they are tried: what is held back by a full knob waits, and waiting is latency as well as lost
    /// throughput.
    const ALL: [Self; 6] = [
        Self { knob: Knob::BatchBytes, way: Way::Up },
        Self { knob: Knob::BatchesInFlight, way: Way::Up },
        Self { knob: Knob::InFlightBytes, way: Way::Up },
        Self { knob: Knob::BatchBytes, way: Way::Down },
        Self { knob: Knob::BatchesInFlight, way: Way::Down },
        Self { knob: Knob::InFlightBytes, way: Way::Down },
    ];

    fn back(self) -> Self {
        Self { way: if self.way == Way::Up { Way::Down } else { Way::Up }, ..self }
    }
}

/// Medians in the making.
#[derive(Clone, Debug, Default)]
struct Window {
    rates: [u64; WINDOW],
    p99s: [Duration; WINDOW],
    length: usize,
    load: Load,
}

impl Window {
    /// The medians, once it is full; it is empty then.
    fn push(&mut self, measured: Measured, load: Load) -> Option<(Measured, Load)> {
        assert!(self.length < WINDOW, "a full window is emptied");
        self.rates[self.length] = measured.rate;
        self.p99s[self.length] = measured.p99;
        self.load = self.load.and(load);
        self.length += 1;
        (self.length == WINDOW).then(|| {
            let Self { mut rates, mut p99s, load, .. } = std::mem::take(self);
            rates.sort_unstable();
            p99s.sort_unstable();
            (Measured { rate: rates[WINDOW / 2], p99: p99s[WINDOW / 2] }, load)
        })
    }
}

#[derive(Clone, Debug)]
enum State {
    /// Measures what there is, to compare with it.
    Before,
    /// What there is was just measured.
    Known(Measured, Load),
    /// A change is in force and not judged yet.
    Trial { before: Measured, tried: Move, from: u64, harmful: u32 },
    /// Nothing to try.
    Rest { at: Measured, windows: u32, different: u32 },
}

/// Decides on the pace of one node.
#[derive(Clone, Debug)]
pub struct Tuner {
    target: Duration,
    bounds: Bounds,
    pace: Pace,
    state: State,
    window: Window,
    /// The next interval saw two paces.
    unsettled: bool,
    tried: [bool; Move::ALL.len()],
    /// Whether this search has kept something.
    found: bool,
    /// Windows of rest after a search that finds nothing.
    patience: u32,
    quiet: u32,
    last: Option<Measured>,
}

impl Tuner {
    /// Begins with the pace that is in force.
    ///
    /// # Panics
    /// If bounds are empty or begin at zero, or the target is zero.
    #[must_use]
    pub fn new(target: Duration, bounds: Bounds, pace: Pace) -> Self {
        assert!(target > Duration::ZERO, "nothing takes no time");
        for knob in Knob::ALL {
            let Span { least, most } = bounds.of(knob);
            assert!(0 < least && least <= most, "{knob} has a value");
        }
        Self {
            target,
            bounds,
            pace: bounds.nearest(pace),
            state: State::Before,
            window: Window::default(),
            unsettled: true,
            tried: [false; Move::ALL.len()],
            found: false,
            patience: REST.0,
            quiet: 0,
            last: None,
        }
    }

    /// Takes what an interval was like; what is to be changed is in force for [`pace`](Self::pace) at once.
    pub fn handle_interval(&mut self, interval: &Interval<'_>) -> Option<Decision> {
        let Some(measured) = Measured::of(interval) else { return self.handle_quiet() };
        self.last = Some(measured);
        self.quiet = 0;
        if std::mem::take(&mut self.unsettled) {
            return None;
        }
        if let State::Known(known, load) = self.state {
            return self.try_next(known, &load);
        }
        if let Some(decision) = self.take_back_if_harmful(measured) {
            return Some(decision);
        }
        let (measured, load) = self.window.push(measured, interval.load)?;
        match self.state.clone() {
            State::Before | State::Known(..) => self.try_next(measured, &load),
            State::Trial { before, tried, from, .. } => Some(self.judge(before, measured, load, tried, from)),
            State::Rest { at, windows, different } => {
                self.look_up(at, measured, windows, different);
                None
            }
        }
    }

    /// The pace to go at.
    #[must_use]
    pub fn pace(&self) -> Pace {
        self.pace
    }

    /// Goes on from a pace that somebody else has set; returns the nearest within the bounds.
    pub fn begin_from(&mut self, pace: Pace) -> Pace {
        *self = Self { last: self.last, ..Self::new(self.target, self.bounds, pace) };
        self.pace
    }

    /// What is to be kept.
    #[must_use]
    pub fn target(&self) -> Duration {
        self.target
    }

    /// The last interval that had enough commands.
    #[must_use]
    pub fn last(&self) -> Option<Measured> {
        self.last
    }

    /// Whether it has nothing left to try.
    #[must_use]
    pub fn is_at_rest(&self) -> bool {
        matches!(self.state, State::Rest { .. })
    }

    /// Whether a change is in force that was not judged yet.
    #[must_use]
    pub fn is_trying(&self) -> bool {
        matches!(self.state, State::Trial { .. })
    }

    /// Too few commands to say anything. A change that stays unjudged is taken back.
    fn handle_quiet(&mut self) -> Option<Decision> {
        self.window = Window::default();
        self.quiet = self.quiet.saturating_add(1);
        match self.state {
            State::Known(..) => self.state = State::Before,
            State::Trial { tried, from, .. } if self.quiet >= QUIET => {
                return Some(self.take_back(tried, from, Reason::LoadEnded));
            }
            _ => {}
        }
        None
    }

    fn try_next(&mut self, now: Measured, load: &Load) -> Option<Decision> {
        let next = Move::ALL.into_iter().zip(&self.tried).filter(|(_, tried)| !**tried);
        let next = next.map(|(next, _)| next).find_map(|next| Some((next, self.value_after(next, load)?)));
        let Some((next, to)) = next else {
            self.patience = if self.found { REST.0 } else { (self.patience * 2).min(REST.1) };
            let windows = if self.found { 0 } else { self.patience };
            self.found = false;
            self.tried = Default::default();
            self.state = State::Rest { at: now, windows, different: 0 };
            return None;
        };
        let from = next.knob.of(&self.pace);
        self.mark(next);
        self.state = State::Trial { before: now, tried: next, from, harmful: 0 };
        let reason = if now.p99 > self.target {
            Reason::AboveTarget { now, target: self.target }
        } else {
            Reason::Throughput { now, held_back: next.knob.share(load) }
        };
        Some(self.turn(next.knob, to, reason))
    }

    /// Where a move leads, if it may change anything under this load.
    fn value_after(&self, Move { knob, way }: Move, load: &Load) -> Option<u64> {
        let (from, Span { least, most }) = (knob.of(&self.pace), self.bounds.of(knob));
        let holds_back = knob.share(load) >= HOLDS_BACK;
        let to = match (way, knob) {
            // Commands may be larger than batches are to be.
            (Way::Up, Knob::BatchBytes) if holds_back => {
                from.max(load.largest).saturating_mul(2).checked_next_power_of_two()?
            }
            (Way::Up, _) if holds_back => from.saturating_mul(2),
            // What batches do not reach changes nothing: down to where it does, if there is anything to divide.
            (Way::Down, Knob::BatchBytes) if load.commands > 2 * load.batches => {
                let used = from.min(load.largest).max(2);
                1 << (used - 1).ilog2()
            }
            // Flushes may be in each other's way long before there are too few of them.
            (Way::Down, Knob::BatchesInFlight) => from / 2,
            (Way::Down, Knob::InFlightBytes) if holds_back => from / 2,
            _ => return None,
        };
        let to = to.clamp(least, most);
        (if way == Way::Up { to > from } else { to < from }).then_some(to)
    }

    fn judge(&mut self, before: Measured, after: Measured, load: Load, tried: Move, from: u64) -> Decision {
        if !self.is_better(before, after) {
            return self.take_back(tried, from, Reason::NotBetter { before, after });
        }
        // The same way once more, and everything else again: but not back.
        self.tried = Default::default();
        self.mark(tried.back());
        self.found = true;
        self.state = State::Known(after, load);
        Decision {
            knob: tried.knob,
            from,
            to: tried.knob.of(&self.pace),
            reason: Reason::Better { before, after },
        }
    }

    fn is_better(&self, before: Measured, after: Measured) -> bool {
        let gains = |more: u128, less: u128| more * 100 > less * u128::from(100 + MARGIN);
        let (p99, rate) = (|m: Measured| m.p99.as_nanos(), |m: Measured| u128::from(m.rate.max(1)));
        if before.p99 <= self.target {
            return after.p99 <= self.target && gains(rate(after), rate(before));
        }
        let met = after.p99 <= self.target && gains(p99(before), p99(after));
        met || gains(p99(before) * rate(after), p99(after) * rate(before))
    }

    /// A change that breaks a target that was met, or doubles a latency that was too high, is not left in force until its
    /// window is full.
    fn take_back_if_harmful(&mut self, measured: Measured) -> Option<Decision> {
        let State::Trial { before, tried, from, harmful } = &mut self.state else { return None };
        let bearable = if before.p99 <= self.target { self.target + self.target / 4 } else { before.p99 * 2 };
        *harmful = if measured.p99 > bearable { *harmful + 1 } else { 0 };
        let (before, tried, from, harmful) = (*before, *tried, *from, *harmful);
        (harmful >= 2).then(|| self.take_back(tried, from, Reason::NotBetter { before, after: measured }))
    }

    fn take_back(&mut self, tried: Move, from: u64, reason: Reason) -> Decision {
        self.state = State::Before;
        self.window = Window::default();
        self.turn(tried.knob, from, reason)
    }

    fn turn(&mut self, knob: Knob, to: u64, reason: Reason) -> Decision {
        let (from, Span { least, most }) = (knob.of(&self.pace), self.bounds.of(knob));
        assert!((least..=most).contains(&to), "a knob stays in its bounds");
        knob.set(&mut self.pace, to);
        self.unsettled = true;
        Decision { knob, from, to, reason }
    }

    /// Rest ends when two windows in a row are clearly different from what it began with. After a search in vain it
    /// lasts a while all the same, longer each time: a load that comes and goes is not followed for ever.
    fn look_up(&mut self, at: Measured, measured: Measured, windows: u32, different: u32) {
        let was_met = at.p99 <= self.target;
        let broken = was_met && measured.p99 > self.target + self.target / 10;
        let shifted = measured.rate > at.rate * 3 / 2 || measured.rate < at.rate * 2 / 3;
        let different = if broken || shifted { different + 1 } else { 0 };
        let windows = windows.saturating_sub(1);
        if different >= 2 && windows == 0 {
            self.state = State::Before;
            return;
        }
        // A target that is met by now is one that can be broken.
        let at = if !was_met && measured.p99 <= self.target { measured } else { at };
        self.state = State::Rest { at, windows, different };
    }

    fn mark(&mut self, tried: Move) {
        let position = Move::ALL.iter().position(|other| *other == tried).expect("all of them");
        self.tried[position] = true;
    }
}
