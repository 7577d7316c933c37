//! How much a node does at a time: what may be changed while it runs, and what is counted to judge a change by.
//!
//! A [`Pace`] is no limit. What a node admits is decided by [`Limits`], which never change; a pace says how
//! much of what was admitted goes together. So a change of pace refuses nothing, loses nothing, and is right at any moment:
//! what is on its way stays there, and what comes next goes by the new one.
//!
//! The [`Meter`] says how long commands took from being handed over until they were decided and applied here. It is told
//! once per run of commands that were handed over together, and is kept only where somebody asked for it.

use super::{Limits, Mono, Node, Phase, StateMachine};
use std::collections::VecDeque;
use wal::LogIndex;

/// How much a node does at a time. None of it is zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Bytes of commands from which a batch takes no more. A single command that is larger makes a batch of its own, up to
    /// [`Limits::batch_bytes`], which is also the most that counts here.
    pub batch_bytes: usize,
    /// Entries of a `DiskFirst` leader that may wait for being decided, or for its own disk where that comes first.
    pub batches_in_flight: u64,
    /// Bytes of entries on the way to one peer from which no more are sent to it.
    pub in_flight_bytes: usize,
}

impl Pace {
    /// Whether a node can go on at this pace.
    #[must_use]
    pub fn is_possible(self) -> bool {
        self.batch_bytes > 0 && self.batches_in_flight > 0 && self.in_flight_bytes > 0
    }
}

/// What was held back since the meter was last emptied, and by what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Commands that were decided and applied.
    pub commands: u64,
    /// Batches that were cut.
    pub batches: u64,
    /// Those that left commands for the next one because they were full.
    pub full: u64,
    /// The largest of them, in bytes of commands.
    pub largest: u64,
    /// Turns in which commands stayed in the queue because enough batches were on the way to the disk.
    pub held_by_disk: u64,
    /// Times that a peer lacked entries and had enough of them on the way.
    pub held_by_peers: u64,
}

impl Load {
    /// Both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            commands: self.commands + other.commands,
            batches: self.batches + other.batches,
            full: self.full + other.full,
            largest: self.largest.max(other.largest),
            held_by_disk: self.held_by_disk + other.held_by_disk,
            held_by_peers: self.held_by_peers + other.held_by_peers,
        }
    }
}

/// Commands of one batch that were handed over together.
#[derive(Clone, Copy, Debug)]
struct Run {
    index: LogIndex,
    handed_over: Mono,
    commands: u32,
}

/// What a node counts for whoever sets its pace.
#[derive(Debug, Default)]
pub struct Meter {
    handed_over: Mono,
    /// Cut and not yet applied, in the order of the log.
    waiting: VecDeque<Run>,
    applied: Vec<(Mono, u32)>,
    load: Load,
    /// The count of the core when the meter was last emptied.
    windows_full: u64,
}

impl Meter {
    /// What is proposed from now on was handed over at `since`, or later.
    pub fn note_hand_over(&mut self, since: Mono) {
        self.handed_over = since;
    }

    /// Since when commands that are applied had waited, and how many; each is told once.
    pub fn drain_applied(&mut self) -> impl Iterator<Item = (Mono, u32)> {
        self.applied.drain(..)
    }

    pub(super) fn handed_over(&self) -> Mono {
        self.handed_over
    }

    pub(super) fn note_command(&mut self, index: LogIndex, handed_over: Mono) {
        match self.waiting.back_mut() {
            Some(run) if run.index == index && run.handed_over == handed_over => run.commands += 1,
            _ => self.waiting.push_back(Run { index, handed_over, commands: 1 }),
        }
    }

    pub(super) fn note_batch(&mut self, bytes: usize, is_full: bool) {
        self.load.batches += 1;
        self.load.full += u64::from(is_full);
        self.load.largest = self.load.largest.max(bytes as u64);
    }

    pub(super) fn note_held_by_disk(&mut self) {
        self.load.held_by_disk += 1;
    }

    /// The entry at `index` is applied. What a former term of this node had at it, or below, took as long.
    pub(super) fn note_applied(&mut self, index: LogIndex) {
        while let Some(run) = self.waiting.front()
            && run.index <= index
        {
            self.load.commands += u64::from(run.commands);
            self.applied.push((run.handed_over, run.commands));
            self.waiting.pop_front();
        }
    }
}

impl<M: StateMachine> Node<M> {
    /// How much is done at a time.
    #[must_use]
    pub fn pace(&self) -> Pace {
        self.pace
    }

    /// Changes how much is done at a time, from the next output on.
    ///
    /// # Panics
    /// If it is not [possible](Pace::is_possible).
    pub fn set_pace(&mut self, pace: Pace) {
        assert!(pace.is_possible(), "a leader must be able to write and to send");
        self.pace = Pace { batch_bytes: pace.batch_bytes.min(self.limits.batch_bytes), ..pace };
        self.raft.set_in_flight_bytes(pace.in_flight_bytes);
        if !self.stopped {
            // What was held back may go now.
            self.phase = Phase::Gather;
        }
    }

    /// Counts from now on what [`meter`](Self::meter) tells.
    pub fn begin_to_measure(&mut self) {
        self.meter.get_or_insert_default();
    }

    /// The counts, if they are kept.
    pub fn meter(&mut self) -> Option<&mut Meter> {
        self.meter.as_deref_mut()
    }

    /// What was held back, and by what, since this was last asked; nothing where nothing is counted.
    pub fn take_load(&mut self) -> Load {
        let windows_full = self.raft.counters().windows_full;
        let Some(meter) = &mut self.meter else { return Load::default() };
        let held_by_peers = windows_full - std::mem::replace(&mut meter.windows_full, windows_full);
        Load { held_by_peers, ..std::mem::take(&mut meter.load) }
    }
}

impl Limits {
    /// The pace that goes as far as the limits.
    pub(super) fn pace(&self, in_flight_bytes: usize) -> Pace {
        Pace { batch_bytes: self.batch_bytes, batches_in_flight: self.batches_in_flight, in_flight_bytes }
    }
}
