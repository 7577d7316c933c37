//! Every node state, message and step is kept once and known by a number: a world is then a handful of numbers, and the
//! core runs once for each pair of a node's state and what happens to it, however many worlds they meet in.

use super::local::{self, Event, Hang, Local, NAMINGS, Step, Terms};
use crate::raft::message::{AppendOutcome, Body, Message};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasherDefault, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use wal::{EntryId, NodeId, Term};
use xxhash_rust::xxh3::Xxh3;

/// A hash for each naming of the nodes.
pub(super) type Hashes = [u128; NAMINGS.len()];

/// Number of a node's state.
pub(super) type LocalId = u32;
/// Number of a message.
pub(super) type MessageId = u32;

/// Keys are hashes already, or small numbers: one multiplication spreads them.
#[derive(Default)]
pub(super) struct Spread(u64);

impl Hasher for Spread {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(u64::from(byte));
        }
    }
    fn write_u64(&mut self, n: u64) {
        self.0 = (self.0.rotate_left(29) ^ n).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.0 ^= self.0 >> 32;
    }
    fn write_u128(&mut self, n: u128) {
        #[allow(clippy::cast_possible_truncation, reason = "half of a good hash is a good hash")]
        self.write_u64(n as u64);
    }
}

type Map<K, V> = HashMap<K, V, BuildHasherDefault<Spread>>;

/// What kind of message: of each kind a channel keeps the newest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Lane {
    Candidacy,
    Vote,
    Append,
    Appended,
    Heartbeat,
    TimeoutNow,
}

/// A message on the way.
#[derive(Debug)]
pub(super) struct Parcel {
    pub from: u8,
    pub to: u8,
    pub lane: Lane,
    pub term: Term,
    /// What an acceptance says is held.
    pub accepted: Option<u64>,
    pub message: Message,
    pub hashes: Hashes,
}

/// A node's state, and what is often asked of it.
#[derive(Debug)]
pub(super) struct Kept {
    pub local: Local,
    pub hashes: Hashes,
}

/// What a step leads to.
#[derive(Clone, Debug)]
pub(super) struct Outcome {
    pub local: LocalId,
    pub sends: Box<[MessageId]>,
}

/// Something that happens to one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Input {
    pub what: What,
    pub hang: Hang,
}

/// What that is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    Event(Event),
    Hears(MessageId),
}

impl Input {
    pub fn event(event: Event) -> Self {
        Self { what: What::Event(event), hang: Hang::No }
    }

    pub fn hears(message: MessageId) -> Self {
        Self { what: What::Hears(message), hang: Hang::No }
    }

    fn code(self) -> u64 {
        let what = match self.what {
            What::Event(event) => match event {
                Event::Waits => 0,
                Event::Campaigns => 1,
                Event::Proposes => 2,
                Event::SendsAgain => 3,
                Event::Flushes => 4,
                Event::Crashes => 5,
                Event::IsSpared => 6,
                Event::HearsOf(term) => 7 + term.0.min(8),
            },
            What::Hears(message) => 16 + u64::from(message),
        };
        what << 1 | u64::from(self.hang == Hang::Now)
    }
}

/// The tables.
#[derive(Debug)]
pub(super) struct Tables {
    pub terms: Terms,
    locals: Vec<Kept>,
    local_ids: Map<u128, LocalId>,
    parcels: Vec<Parcel>,
    parcel_ids: Map<u128, MessageId>,
    steps: Map<u64, u32>,
    outcomes: Vec<Result<Outcome, String>>,
    /// Decided histories by their last entry.
    pub decided: Vec<Vec<EntryId>>,
    decided_ids: Map<u128, u32>,
}

impl Tables {
    pub fn new(terms: Terms) -> Self {
        Self {
            terms,
            locals: Vec::new(),
            local_ids: Map::default(),
            parcels: Vec::new(),
            parcel_ids: Map::default(),
            steps: Map::default(),
            outcomes: Vec::new(),
            decided: Vec::new(),
            decided_ids: Map::default(),
        }
    }

    pub fn sizes(&self) -> (usize, usize, usize) {
        (self.locals.len(), self.parcels.len(), self.outcomes.len())
    }

    pub fn kept(&self, id: LocalId) -> &Kept {
        &self.locals[id as usize]
    }

    pub fn local(&self, id: LocalId) -> &Local {
        &self.locals[id as usize].local
    }

    pub fn parcel(&self, id: MessageId) -> &Parcel {
        &self.parcels[id as usize]
    }

    pub fn keep_local(&mut self, local: Local) -> LocalId {
        let hashes = local.fingerprints();
        match self.local_ids.entry(hashes[0]) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(new) => {
                let id = number(self.locals.len());
                self.locals.push(Kept { local, hashes });
                *new.insert(id)
            }
        }
    }

    fn keep_message(&mut self, from: NodeId, to: NodeId, message: Message) -> MessageId {
        let hashes = NAMINGS.map(|naming| {
            let mut hasher = Xxh3::new();
            local::fingerprint(&message, &mut hasher);
            hasher.write_u64(local::renamed(&naming, from).0);
            hasher.write_u64(local::renamed(&naming, to).0);
            hasher.digest128()
        });
        if let Some(&known) = self.parcel_ids.get(&hashes[0]) {
            return known;
        }
        let id = number(self.parcels.len());
        let (lane, accepted) = match &message.body {
            Body::Candidacy(_) => (Lane::Candidacy, None),
            Body::Vote(_) => (Lane::Vote, None),
            Body::Append(_) => (Lane::Append, None),
            Body::Appended(appended) => match appended.outcome {
                AppendOutcome::Accepted { matched } => (Lane::Appended, Some(matched.0)),
                AppendOutcome::Rejected { .. } => (Lane::Appended, None),
            },
            Body::Heartbeat(_) => (Lane::Heartbeat, None),
            Body::TimeoutNow | Body::Alive(_) => (Lane::TimeoutNow, None),
        };
        let place = |id| u8::try_from(local::place_of(id)).expect("three nodes");
        let (from, to) = (place(from), place(to));
        self.parcels.push(Parcel { from, to, lane, term: message.term, accepted, message, hashes });
        self.parcel_ids.insert(hashes[0], id);
        id
    }

    /// The history that ends in `last`, which is decided.
    pub fn keep_decided(&mut self, history: &[EntryId]) -> u32 {
        let last = history.last().expect("the founding entry is decided");
        if let Some(&known) = self.decided_ids.get(&last.hash.0) {
            return known;
        }
        let id = number(self.decided.len());
        self.decided.push(history.to_vec());
        self.decided_ids.insert(last.hash.0, id);
        id
    }

    /// What happens to a node in this state; from the table, or by running the core.
    pub fn step(&mut self, at: LocalId, input: Input) -> &Result<Outcome, String> {
        let key = u64::from(at) << 32 | input.code();
        let known = match self.steps.get(&key) {
            Some(&known) => known,
            None => {
                let outcome = self.run(at, input);
                let id = number(self.outcomes.len());
                self.outcomes.push(outcome);
                self.steps.insert(key, id);
                id
            }
        };
        &self.outcomes[known as usize]
    }

    fn run(&mut self, at: LocalId, input: Input) -> Result<Outcome, String> {
        let local = self.local(at);
        let from = local.raft.config().id;
        let step: Step = match catch_unwind(AssertUnwindSafe(|| match input.what {
            What::Event(event) => local.after(event, input.hang),
            What::Hears(message) => {
                let parcel = self.parcel(message);
                local.hearing(local::id_of(usize::from(parcel.from)), parcel.message.clone(), input.hang)
            }
        })) {
            Ok(step) => step?,
            Err(panic) => {
                let text = panic.downcast_ref::<String>().cloned();
                let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
                return Err(format!("an assertion of the core fails: {}", text.unwrap_or_default()));
            }
        };
        let sends =
            step.sends.into_iter().map(|(to, message)| self.keep_message(from, to, message)).collect();
        Ok(Outcome { local: self.keep_local(step.local), sends })
    }
}

fn number(length: usize) -> u32 {
    u32::try_from(length).expect("four thousand million are more than fit in memory")
}
