//! Timers are data: a row each in a small table, no tick.

use super::time::Mono;

/// What can be waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// A follower has heard nothing for too long, or an election came to nothing (thesis 3.4).
    Election,
    /// A leader owes its peers a sign of life.
    Heartbeat,
    /// A leader has not heard from a quorum for an election timeout (thesis 6.2).
    QuorumContact,
    /// A leadership transfer takes too long (thesis 3.10).
    Transfer,
    /// Followers have not been told the newest commit index yet.
    CommitNotice,
    /// A follower has not heard its leader for longer than is usual.
    Silence,
}

impl Timer {
    /// Every timer, in the order in which those due at once fire.
    pub const ALL: [Self; 6] = [
        Self::QuorumContact,
        Self::Transfer,
        Self::Election,
        Self::Heartbeat,
        Self::CommitNotice,
        Self::Silence,
    ];

    const fn row(self) -> usize {
        self as usize
    }
}

/// When each timer fires, if it is set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Timers {
    deadlines: [Option<Mono>; Timer::ALL.len()],
}

impl Timers {
    /// (Re)starts a timer.
    pub fn set(&mut self, timer: Timer, at: Mono) {
        self.deadlines[timer.row()] = Some(at);
    }

    /// Stops a timer.
    pub fn clear(&mut self, timer: Timer) {
        self.deadlines[timer.row()] = None;
    }

    /// Puts off every timer that is set, for ever.
    #[cfg(feature = "sim")]
    pub fn stand_still(&mut self) {
        self.deadlines.iter_mut().flatten().for_each(|at| *at = Mono(u64::MAX));
    }

    /// When a timer fires.
    #[must_use]
    pub fn deadline(&self, timer: Timer) -> Option<Mono> {
        self.deadlines[timer.row()]
    }

    /// The earliest deadline of all.
    #[must_use]
    pub fn next(&self) -> Option<Mono> {
        self.deadlines.iter().flatten().min().copied()
    }

    /// Takes one timer that is due, in the order of [`Timer::ALL`].
    pub fn take_due(&mut self, now: Mono) -> Option<Timer> {
        let due = Timer::ALL.into_iter().find(|t| self.deadlines[t.row()].is_some_and(|at| at <= now))?;
        assert!(self.deadline(due).is_some_and(|at| at <= now), "no timer fires early");
        self.clear(due);
        Some(due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn due_timers_fire_once_and_the_next_deadline_is_the_earliest() {
        let mut timers = Timers::default();
        assert_eq!(timers.next(), None);
        timers.set(Timer::Election, Mono(20));
        timers.set(Timer::Heartbeat, Mono(10));
        assert_eq!(timers.next(), Some(Mono(10)));
        assert_eq!(timers.take_due(Mono(9)), None);
        assert_eq!(timers.take_due(Mono(20)), Some(Timer::Election));
        assert_eq!(timers.take_due(Mono(20)), Some(Timer::Heartbeat));
        assert_eq!(timers.take_due(Mono(20)), None);
    }
}
