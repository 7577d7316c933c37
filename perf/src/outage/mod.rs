//! A client that never stops writing while the cluster is hurt, and what its record says of the outage.
//!
//! The client is at a node that survives, so its writes are forwarded to whoever leads. Of an embedded engine it lives in
//! that node's process; of a server it is a process of its own that is connected to that node alone. Either way the
//! [`writer`] is the same: it keeps a few writes in flight (a closed loop), and beside them sends one every millisecond
//! whatever happens to the others (an open loop), so that an outage is seen to the millisecond however long single calls
//! hang. Every write has a key of its own, and its value follows from the key: whoever reads them back later knows whether
//! what was acknowledged is there.
//!
//! **The outage** is the time from the act (the signal is sent) to the first acknowledgement of a write that was *issued
//! after the act*. A write issued before it and acknowledged after it does not end the outage: the dead leader may have
//! done all of its work.

pub mod node;
pub mod writer;

use crate::results::Moment;
use crate::statistics::SplitMix;
use crate::workload::{KEY_BYTES, VALUE_BYTES};
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Nanoseconds on a clock that all processes of the machine share.
pub fn clock() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}

/// What a client is told to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Task {
    /// Begin to write. Keys begin with this number, so that no two rounds share one.
    Write {
        /// Which round.
        round: u64,
        /// Writes of the closed loop.
        in_flight: usize,
    },
    /// Say whether a write issued after this moment of the shared clock was acknowledged.
    Recovered {
        /// The moment.
        since: u64,
    },
    /// Stop writing, wait a while for what is in flight, and tell.
    Tell,
    /// Read back what was acknowledged.
    ReadBack {
        /// Of which round.
        round: u64,
        /// Runs of numbers: the first, and how many.
        runs: Vec<(u64, u64)>,
    },
    /// Write over and over the same keys until the log has taken so many bytes.
    Grow {
        /// Keys and values, together.
        bytes: u64,
        /// Bytes of a value.
        value_bytes: usize,
    },
    /// Read linearizably, then write.
    First,
    /// Say where the log stands and who led since when.
    Stand,
}

/// What it answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Told {
    /// It writes.
    Writing,
    /// Whether one was.
    Recovered(bool),
    /// What became of every write.
    Record(Record),
    /// What reading back found.
    ReadBack(Found),
    /// How many keys the store has after growing.
    Grown {
        /// Of them.
        keys: u64,
    },
    /// When both had been answered, on the shared clock.
    First {
        /// The read.
        read: u64,
        /// The write.
        written: u64,
    },
    /// Where the node is.
    Stand(Stand),
}

/// What reading back found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// How many are there, with their values.
    pub right: u64,
    /// Numbers of those that are not there, or with another value.
    pub lost: Vec<u64>,
}

/// Where a node is.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Stand {
    /// Decided up to here, as far as it knows.
    pub commit: u64,
    /// Applied up to here.
    pub applied: u64,
    /// Elections it stood for since its start.
    pub elections: u64,
    /// When the engine had read its log, on the shared clock.
    pub opened: u64,
    /// Processor time of the process.
    pub cpu: Duration,
    /// Resident bytes now, and at most so far.
    pub resident: (u64, u64),
    /// When who began to lead, as seen by this node: clock, term, leader (zero for nobody).
    pub leaders: Vec<(u64, u64, u64)>,
}

/// How a write ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum End {
    /// With the promise of the group.
    #[serde(rename = "a")]
    Acknowledged,
    /// Nobody knows whether it happened.
    #[serde(rename = "u")]
    Unknown,
    /// It did not happen.
    #[serde(rename = "f")]
    Failed,
}

/// What became of every write of a round, by number.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// When each was issued, on the shared clock.
    pub issued: Vec<u64>,
    /// When its end was known.
    pub ended: Vec<u64>,
    /// How.
    pub ends: Vec<End>,
    /// What failures said, and how often.
    pub errors: Vec<(String, u64)>,
}

impl Record {
    fn acknowledged(&self) -> impl Iterator<Item = (u64, u64)> {
        let times = self.issued.iter().copied().zip(self.ended.iter().copied());
        times.zip(&self.ends).filter(|(_, end)| **end == End::Acknowledged).map(|(times, _)| times)
    }

    /// Acknowledgements a second, from the first issue to the last acknowledgement.
    pub fn rate(&self) -> f64 {
        let last = self.acknowledged().map(|(_, ended)| ended).max().unwrap_or(0);
        let first = self.issued.iter().copied().min().unwrap_or(0);
        self.count(End::Acknowledged) as f64 / (last.saturating_sub(first).max(1) as f64 / 1e9)
    }

    /// The latency that this share of the acknowledged writes stayed within.
    pub fn latency(&self, share: f64) -> Option<Duration> {
        let mut all: Vec<u64> = self.acknowledged().map(|(issued, ended)| ended - issued).collect();
        all.sort_unstable();
        let last = all.len().checked_sub(1)?;
        #[expect(clippy::cast_possible_truncation, reason = "a share of a length")]
        let rank = ((all.len() as f64 * share).ceil().max(1.0)) as usize - 1;
        all.get(rank.min(last)).copied().map(Duration::from_nanos)
    }

    /// How many ended like this.
    pub fn count(&self, end: End) -> u64 {
        self.ends.iter().filter(|other| **other == end).count() as u64
    }

    /// From the act to the first acknowledgement of a write issued after it; `None` if there was none.
    pub fn outage(&self, act: u64) -> Option<Duration> {
        let after = self.acknowledged().filter(|&(issued, _)| issued > act).map(|(_, ended)| ended);
        after.min().map(|ended| Duration::from_nanos(ended - act))
    }

    /// The longest time without any acknowledgement that ended after the act.
    pub fn longest_silence(&self, act: u64) -> Option<Duration> {
        let mut ended: Vec<u64> = self.acknowledged().map(|(_, ended)| ended).collect();
        ended.sort_unstable();
        let gaps = ended.windows(2).filter(|pair| pair[1] > act).map(|pair| pair[1] - pair[0]);
        gaps.max().map(Duration::from_nanos)
    }

    /// The numbers of acknowledged writes, as runs.
    pub fn runs(&self) -> Vec<(u64, u64)> {
        let mut runs: Vec<(u64, u64)> = Vec::new();
        for (number, end) in (0..).zip(&self.ends) {
            match runs.last_mut() {
                _ if *end != End::Acknowledged => {}
                Some((first, length)) if *first + *length == number => *length += 1,
                _ => runs.push((number, 1)),
            }
        }
        runs
    }

    /// Acknowledgements in pieces of `length` from `before` the act until `after` it.
    pub fn line(&self, act: u64, length: Duration, before: Duration, after: Duration) -> Vec<Moment> {
        let nanos = |span: Duration| u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
        let piece = nanos(length).max(1);
        let begin = act.saturating_sub(nanos(before) / piece * piece);
        let count = usize::try_from((nanos(before) / piece) + nanos(after).div_ceil(piece)).unwrap_or(0);
        let mut line: Vec<Moment> = (0..count)
            .map(|at| Moment {
                at: (at as f64 * piece as f64 - (act - begin) as f64) / 1e9,
                length: length.as_secs_f64(),
                operations: 0,
                worst_micros: None,
            })
            .collect();
        for (issued, ended) in self.acknowledged() {
            let Some(at) = ended.checked_sub(begin).and_then(|from| usize::try_from(from / piece).ok())
            else {
                continue;
            };
            if let Some(moment) = line.get_mut(at) {
                let micros = (ended - issued) as f64 / 1e3;
                moment.operations += 1;
                moment.worst_micros = Some(moment.worst_micros.map_or(micros, |worst| worst.max(micros)));
            }
        }
        line
    }
}

/// The key of a write. Its round comes first.
pub fn key(round: u64, number: u64) -> [u8; KEY_BYTES] {
    let mut key = [0; KEY_BYTES];
    key[..8].copy_from_slice(&(round | 1 << 63).to_le_bytes());
    key[8..].copy_from_slice(&number.to_le_bytes());
    key
}

/// The value that belongs to it.
pub fn value(round: u64, number: u64) -> [u8; VALUE_BYTES] {
    let mut numbers = SplitMix(round.wrapping_mul(0x9e37_79b9) ^ number);
    let mut value = [0; VALUE_BYTES];
    for chunk in value.chunks_mut(8) {
        chunk.copy_from_slice(&numbers.next().to_le_bytes()[..chunk.len()]);
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn record(writes: &[(u64, u64, End)]) -> Record {
        Record {
            issued: writes.iter().map(|write| write.0 * MS).collect(),
            ended: writes.iter().map(|write| write.1 * MS).collect(),
            ends: writes.iter().map(|write| write.2).collect(),
            errors: Vec::new(),
        }
    }

    #[test]
    fn only_a_write_issued_after_the_act_ends_the_outage() {
        use End::{Acknowledged, Failed, Unknown};
        let writes = [
            (990, 995, Acknowledged),
            // Issued before the act: its acknowledgement says nothing about a new leader.
            (999, 1_003, Acknowledged),
            (1_001, 1_040, Unknown),
            (1_002, 1_050, Failed),
            (1_010, 1_090, Acknowledged),
            (1_060, 1_080, Acknowledged),
        ];
        let record = record(&writes);
        assert_eq!(record.outage(1_000 * MS), Some(Duration::from_millis(80)));
        assert_eq!(record.longest_silence(1_000 * MS), Some(Duration::from_millis(77)));
        assert_eq!((record.count(Acknowledged), record.count(Unknown), record.count(Failed)), (4, 1, 1));
        assert_eq!(record.outage(1_070 * MS), None, "nothing was issued after that");
    }

    #[test]
    fn runs_are_what_was_acknowledged_and_nothing_else() {
        use End::{Acknowledged as A, Failed as F, Unknown as U};
        let ends = [A, A, U, A, F, F, A, A, A];
        let record = Record { ends: ends.to_vec(), ..Record::default() };
        assert_eq!(record.runs(), [(0, 2), (3, 1), (6, 3)]);
        assert_eq!(Record { ends: vec![U, F], ..Record::default() }.runs(), []);
    }

    #[test]
    fn the_line_counts_acknowledgements_where_they_came() {
        use End::{Acknowledged, Unknown};
        let writes = [
            (970, 979, Acknowledged), // Before the line begins.
            (979, 980, Acknowledged),
            (980, 999, Acknowledged),
            (999, 1_000, Acknowledged),
            (1_000, 1_009, Unknown),
            (1_001, 1_029, Acknowledged),
            (1_029, 1_030, Acknowledged), // After its end.
        ];
        let ms = Duration::from_millis;
        let line = record(&writes).line(1_000 * MS, ms(10), ms(20), ms(30));
        let counted: Vec<_> = line.iter().map(|moment| moment.operations).collect();
        assert_eq!(counted, [1, 1, 1, 0, 1]);
        assert_eq!(line[0].at, -0.02);
        assert_eq!(line[4].worst_micros, Some(28_000.0));
    }

    #[test]
    fn rates_and_latencies_are_of_what_was_acknowledged() {
        use End::{Acknowledged, Unknown};
        let writes: Vec<_> = (0..100).map(|n| (n * 10, n * 10 + n + 1, Acknowledged)).collect();
        let with_others = [writes.clone(), vec![(0, 9_000, Unknown)]].concat();
        let record = record(&with_others);
        assert_eq!(record.latency(0.99), Some(Duration::from_millis(99)));
        assert_eq!(record.latency(0.5), Some(Duration::from_millis(50)));
        assert_eq!(record.latency(1.0), Some(Duration::from_millis(100)));
        assert!((record.rate() - 100.0 / 1.090).abs() < 1e-6, "{}", record.rate());
        assert_eq!(Record::default().latency(0.5), None);
    }

    #[test]
    fn keys_and_values_are_their_own() {
        assert_ne!(key(1, 2), key(2, 1));
        assert_ne!(value(1, 2), value(2, 1));
        assert_eq!(value(1, 2), value(1, 2));
    }
}
