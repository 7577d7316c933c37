//! O9, the clock of it: the log's time never falls, and does not run faster than the fastest clock of the run while some node
//! leads. A leader that stands still, an outage without a leader, a wall clock that jumps: none of that is time.
//!
//! Leading is counted from outside: from one look at a leader to the next, but no more than a leader may count for one step.
//! So what is judged is a bound from above: between any two entries of the ledger.

use super::{Outcome, violated};
use crate::sim::observation::Instant;
use wal::{Frame, NodeId};

pub(super) const NAME: &str = "log_time";

/// How far the sightings of two entries may be off: an entry is seen at the end of the turn it was made in, which may take
/// as long as applying takes, and moments are whole milliseconds.
const SLACK_NS: i128 = 160_000_000;

#[derive(Debug, Default)]
pub(super) struct LogTime {
    /// For how long somebody led.
    led: u64,
    /// Up to when that is counted.
    counted: u64,
    /// When each node was last seen leading, and in which of its lives.
    leaders: Vec<(NodeId, u64, u64)>,
    newest: u64,
    /// The least of what an entry's moment is ahead of leading.
    ahead: Option<i128>,
}

impl LogTime {
    /// A node leads, now.
    pub(super) fn lead(&mut self, (id, life): (NodeId, u64), now: Instant, longest: u64) {
        // Whoever is seen to lead for the first time may have begun at the beginning of the step that was just seen.
        let mut last = 0;
        match self.leaders.iter_mut().find(|(known, ..)| *known == id) {
            Some(known) if known.1 == life => last = std::mem::replace(&mut known.2, now.0),
            Some(known) => *known = (id, life, now.0),
            None => self.leaders.push((id, life, now.0)),
        }
        let from = last.max(now.0.saturating_sub(longest)).max(self.counted);
        self.led += now.0.saturating_sub(from);
        self.counted = self.counted.max(now.0);
    }

    /// It does not, or no more.
    pub(super) fn follow(&mut self, id: NodeId) {
        self.leaders.retain(|(leader, ..)| *leader != id);
    }

    /// For how long somebody led up to now.
    pub(super) fn led(&self) -> u64 {
        self.led
    }

    /// An entry is decided that was first seen when somebody had led for `seen`.
    pub(super) fn decide(&mut self, entry: &Frame, seen: u64, fastest_ppm: Option<u64>) -> Outcome {
        let at = entry.timestamp_ms();
        if at == 0 {
            return Ok(());
        }
        violated!(
            at < self.newest,
            NAME,
            "entry {} is of {at} ms, one before it of {} ms",
            entry.index(),
            self.newest
        );
        self.newest = at;
        let Some(fastest) = fastest_ppm else { return Ok(()) };
        let passed = i128::from(seen) * i128::from(1_000_000 + fastest) / 1_000_000;
        let ahead = i128::from(at) * 1_000_000 - passed;
        let least = *self.ahead.get_or_insert(ahead);
        violated!(
            ahead > least + SLACK_NS,
            NAME,
            "entry {} is of {at} ms: the log's time ran {} ms ahead of the fastest clock that led",
            entry.index(),
            (ahead - least) / 1_000_000
        );
        self.ahead = Some(least.min(ahead));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::model::tests::frame;
    use super::*;

    const MS: u64 = Instant::MILLISECOND;

    #[test]
    fn time_passes_while_somebody_leads() {
        let mut time = LogTime::default();
        let node = |id| (NodeId(id), 1);
        for at in [0, 50, 100, 5_000, 5_010] {
            time.lead(node(1), Instant(at * MS), 100 * MS);
        }
        assert_eq!(time.led(), 210 * MS, "what it stood still for counts as one step");
        time.lead(node(2), Instant(5_010 * MS), 100 * MS);
        time.lead(node(2), Instant(5_020 * MS), 100 * MS);
        assert_eq!(time.led(), 220 * MS, "two who lead at once are one");
        time.follow(NodeId(1));
        time.lead(node(1), Instant(6_000 * MS), 100 * MS);
        assert_eq!(time.led(), 320 * MS, "an outage is the step before the first look, at most");
    }

    #[test]
    fn the_log_is_no_faster_than_a_clock_and_never_goes_back() {
        let mut time = LogTime::default();
        let entry = |at| frame(at, &[]);
        time.decide(&entry(1_000_000), 0, Some(50_000)).expect("the first");
        time.decide(&entry(1_002_000), 2_000 * MS, Some(50_000)).expect("two seconds later");
        time.decide(&entry(1_002_100), 3_000 * MS, Some(50_000)).expect("slower is no harm");
        assert!(time.decide(&entry(1_002_099), 3_000 * MS, None).is_err(), "it falls");
        time.decide(&entry(1_002_200), 3_010 * MS, Some(50_000)).expect("within the slack");
        assert!(time.decide(&entry(1_002_400), 3_011 * MS, Some(50_000)).is_err(), "too fast by now");
    }
}
