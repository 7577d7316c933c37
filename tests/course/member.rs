//! One node with what is around it: its disk, its clock, the writes it waits for.

use crate::disk::Disk;
use d_engine::kv;
use d_engine::node::{Limits, Node};
use d_engine::raft::message::Standing;
use d_engine::raft::{Config, Durability, Fetch, Membership, Mono, Now, Restored, Write};
use std::collections::VecDeque;
use std::time::Duration;
use wal::{ClusterId, GroupId, LogIndex, NodeId};

/// What a script may set with `nodes`.
#[derive(Clone, Debug)]
pub struct Settings {
    pub durability: Durability,
    pub unflushed: u64,
    pub append_bytes: usize,
    pub in_flight_bytes: usize,
    pub limits: Limits,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            durability: Durability::DiskFirst,
            unflushed: 32,
            append_bytes: 1 << 20,
            in_flight_bytes: 4 << 20,
            limits: Limits { request_timeout: Duration::from_secs(2), ..Limits::default() },
        }
    }
}

impl Settings {
    /// Takes one `word=value` of a `nodes` command.
    pub fn take(&mut self, setting: &str) -> Result<(), String> {
        let wrong = || format!("unknown setting {setting:?}");
        if setting == "mem-first" {
            self.durability = Durability::MemFirst;
            return Ok(());
        }
        let (word, value) = setting.split_once('=').ok_or_else(wrong)?;
        let value: u64 = value.parse().map_err(|_| wrong())?;
        let size = usize::try_from(value).map_err(|_| wrong())?;
        match word {
            "unflushed" => self.unflushed = value,
            "append-bytes" => self.append_bytes = size,
            "in-flight-bytes" => self.in_flight_bytes = size,
            "cache-bytes" => self.limits.cache_bytes = size,
            "batch-bytes" => self.limits.batch_bytes = size,
            "calls" => self.limits.pending_requests = size,
            "batches-in-flight" => self.limits.batches_in_flight = value,
            _ => return Err(wrong()),
        }
        Ok(())
    }
}

/// A clock that may run fast or slow. Every clock starts at one second, so that no point in time is zero.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    global: u64,
    local: u64,
    percent: u64,
}

const START: u64 = 1_000_000_000;

impl Clock {
    fn new() -> Self {
        Self { global: 0, local: START, percent: 100 }
    }

    pub fn read(&self, global: u64) -> Now {
        let local = self.local + (global - self.global) * self.percent / 100;
        Now { mono: Mono(local), wall_ms: 1_700_000_000_000 + local / 1_000_000 }
    }

    /// When, by everybody's time, this clock shows `local`.
    pub fn global_of(&self, local: Mono) -> u64 {
        self.global + (local.0.saturating_sub(self.local) * 100).div_ceil(self.percent)
    }

    pub fn run_at(&mut self, global: u64, percent: u64) {
        *self = Self { global, local: self.read(global).mono.0, percent };
    }
}

/// A point in time as scripts show it.
pub fn shown(local: Mono) -> String {
    let micros = local.0.saturating_sub(START) / 1_000;
    match (micros / 1_000, micros % 1_000) {
        (millis, 0) => format!("{millis}ms"),
        (millis, rest) => format!("{millis}.{rest:03}ms"),
    }
}

/// Whether a process is given the processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    Running,
    Paused,
}

pub struct Member {
    pub id: NodeId,
    pub node: Option<Node<kv::Store>>,
    pub disk: Disk,
    /// Handed to the disk and not flushed.
    pub writing: VecDeque<Write>,
    /// Reads of old entries that the disk owes.
    pub fetching: VecDeque<Fetch>,
    pub clock: Clock,
    pub pace: Pace,
    pub halted: bool,
    /// How often it asked for pre-votes.
    pub candidacies: u64,
    pub seen_commit: LogIndex,
    pub seen_last: LogIndex,
    life: u64,
}

impl Member {
    pub fn new(id: NodeId) -> Self {
        Self {
            id,
            node: None,
            disk: Disk { clean: true, ..Disk::default() },
            writing: VecDeque::new(),
            fetching: VecDeque::new(),
            clock: Clock::new(),
            pace: Pace::Running,
            halted: false,
            candidacies: 0,
            seen_commit: LogIndex::ZERO,
            seen_last: LogIndex::ZERO,
            life: 0,
        }
    }

    /// Whether it can be handed anything.
    pub fn is_awake(&self) -> bool {
        self.node.is_some() && self.pace == Pace::Running && !self.halted
    }

    /// Starts it from its disk.
    pub fn start(&mut self, global: u64, voters: u64, settings: &Settings) -> Result<(), String> {
        self.life += 1;
        let config = Config {
            id: self.id,
            cluster: ClusterId(7),
            group: GroupId::FIRST,
            seed: self.id.0 * 1_000 + self.life,
            heartbeat: Duration::from_millis(50),
            election_timeout: Duration::from_millis(250),
            promise: Duration::from_millis(250),
            drift_bound_ppm: 100_000,
            append_bytes: settings.append_bytes,
            in_flight_bytes: settings.in_flight_bytes,
            durability: settings.durability,
            unflushed_entries: settings.unflushed,
        };
        let whole = settings.durability == Durability::DiskFirst || self.disk.clean;
        self.disk.clean = false;
        let restored = Restored {
            hard_state: self.disk.hard_state,
            commit: self.disk.commit,
            held: None,
            standing: if whole { Standing::Whole } else { Standing::Suspect },
        };
        let store = kv::Store::new();
        let mut restoring = Node::restoring(config, settings.limits.clone(), self.life, store, restored);
        for frame in &self.disk.frames {
            restoring.push(frame.clone()).map_err(|halt| halt.to_string())?;
        }
        let founders = Membership::of_voters((1..=voters).map(NodeId)).map_err(|error| error.to_string())?;
        let node = restoring.begin(self.clock.read(global), &founders);
        self.seen_commit = node.raft().commit();
        self.seen_last = self.disk.last();
        self.node = Some(node);
        self.halted = false;
        self.pace = Pace::Running;
        Ok(())
    }

    /// Its memory is gone, and what it had asked of the disk.
    pub fn forget(&mut self) {
        self.node = None;
        self.writing.clear();
        self.fetching.clear();
        self.pace = Pace::Running;
    }

    /// When its next timer is due, by everybody's time.
    pub fn due(&self) -> Option<u64> {
        self.node.as_ref()?.poll_timeout().map(|at| self.clock.global_of(at))
    }
}
