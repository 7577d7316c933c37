//! Every node state, message and step is kept once and known by a number: a world is then a handful of numbers, and the
//! core runs once for each pair of a node's state and what happens to it, however many worlds they meet in.

use super::local::{self, Event, Hang, Local, NAMINGS, NODES, Step, Terms};
use super::marks::Marks;
use crate::raft::RoleName;
use crate::raft::message::{AppendOutcome, Body, Message};
use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasherDefault, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use wal::{EntryId, HardState, NodeId, Term};
use xxhash_rust::xxh3::Xxh3;

/// A hash for each naming of the nodes.
pub(super) type Hashes = [u128; NAMINGS.len()];

/// Number of a node's state.
pub(super) type LocalId = u32;
/// Number of a log's content.
pub(super) type HistoryId = u32;
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
}

/// What is asked of a node's state again and again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Facts {
    pub role: RoleName,
    pub term: Term,
    /// The last term it can have told anybody of.
    pub saved: Term,
    pub on_disk: HardState,
    pub hangs: bool,
    pub unflushed: bool,
    pub log: HistoryId,
    pub decided: HistoryId,
    /// What the disk holds; none if it is empty.
    pub disk: Option<HistoryId>,
}

/// What a step leads to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outcome {
    pub local: LocalId,
    pub marks: Marks,
    sends: (u32, u32),
}

/// A log, from its first entry on.
#[derive(Debug)]
pub(super) struct History {
    pub entries: Vec<EntryId>,
    /// How many of them are commands.
    pub commands: usize,
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
    locals: Vec<Local>,
    facts: Vec<Facts>,
    local_hashes: Vec<Hashes>,
    local_ids: Map<u128, LocalId>,
    parcels: Vec<Parcel>,
    parcel_hashes: Vec<Hashes>,
    parcel_ids: Map<u128, MessageId>,
    steps: Map<u64, u32>,
    outcomes: Vec<Result<Outcome, String>>,
    sends: Vec<MessageId>,
    histories: Vec<History>,
    history_ids: Map<u128, HistoryId>,
}

impl Tables {
    pub fn new(terms: Terms) -> Self {
        Self {
            terms,
            locals: Vec::new(),
            facts: Vec::new(),
            local_hashes: Vec::new(),
            local_ids: Map::default(),
            parcels: Vec::new(),
            parcel_hashes: Vec::new(),
            parcel_ids: Map::default(),
            steps: Map::default(),
            outcomes: Vec::new(),
            sends: Vec::new(),
            histories: Vec::new(),
            history_ids: Map::default(),
        }
    }

    pub fn sizes(&self) -> (usize, usize, usize) {
        (self.locals.len(), self.parcels.len(), self.outcomes.len())
    }

    pub fn local(&self, id: LocalId) -> &Local {
        &self.locals[id as usize]
    }

    pub fn facts(&self, id: LocalId) -> &Facts {
        &self.facts[id as usize]
    }

    pub fn local_hashes(&self, id: LocalId) -> &Hashes {
        &self.local_hashes[id as usize]
    }

    pub fn parcel_hashes(&self, id: MessageId) -> &Hashes {
        &self.parcel_hashes[id as usize]
    }

    pub fn history(&self, id: HistoryId) -> &History {
        &self.histories[id as usize]
    }

    /// How many of the nodes have the entry, and all before it, on disk.
    pub fn disks_with(&self, facts: &[&Facts; NODES], entry: EntryId) -> usize {
        let at = usize::try_from(entry.index.0).expect("short logs") - 1;
        let holds = |disk: HistoryId| self.history(disk).entries.get(at) == Some(&entry);
        facts.iter().filter(|facts| facts.disk.is_some_and(holds)).count()
    }

    /// The messages that a step sends.
    pub fn sends(&self, outcome: Outcome) -> &[MessageId] {
        let (start, end) = outcome.sends;
        &self.sends[start as usize..end as usize]
    }

    pub fn parcel(&self, id: MessageId) -> &Parcel {
        &self.parcels[id as usize]
    }

    pub fn keep_local(&mut self, local: Local) -> LocalId {
        let hashes = local.fingerprints();
        if let Some(&known) = self.local_ids.get(&hashes[0]) {
            return known;
        }
        let commit = usize::try_from(local.raft.commit().0).expect("short logs");
        let disk = local.disk.entries();
        let facts = Facts {
            role: local.raft.role(),
            term: local.raft.term(),
            saved: local.raft.hard_states().1.term,
            on_disk: local.disk.hard,
            hangs: local.hangs,
            unflushed: local.unflushed,
            log: self.keep_history(&local.log),
            decided: self.keep_history(&local.log[..commit]),
            disk: (!disk.is_empty()).then(|| self.keep_history(&disk)),
        };
        let id = number(self.locals.len());
        self.locals.push(local);
        self.facts.push(facts);
        self.local_hashes.push(hashes);
        self.local_ids.insert(hashes[0], id);
        id
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
        self.parcels.push(Parcel { from, to, lane, term: message.term, accepted, message });
        self.parcel_hashes.push(hashes);
        self.parcel_ids.insert(hashes[0], id);
        id
    }

    fn keep_history(&mut self, entries: &[EntryId]) -> HistoryId {
        let last = entries.last().expect("every log has the founding entry");
        if let Some(&known) = self.history_ids.get(&last.hash.0) {
            assert_eq!(self.history(known).entries, entries, "the last hash vouches for all");
            return known;
        }
        let terms: BTreeSet<_> = entries.iter().map(|entry| entry.term).collect();
        let id = number(self.histories.len());
        // Of each term the first entry is its leader's own, and the founding one is of term zero.
        self.histories.push(History { entries: entries.to_vec(), commands: entries.len() - terms.len() });
        self.history_ids.insert(last.hash.0, id);
        id
    }

    /// What happens to a node in this state; from the table, or by running the core.
    pub fn step(&mut self, at: LocalId, input: Input) -> Result<Outcome, String> {
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
        self.outcomes[known as usize].clone()
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
        let mut marks = Marks::default();
        marks.note_step(self.local(at), &step.local, input.what, self);
        let start = number(self.sends.len());
        for (to, message) in step.sends {
            let message = self.keep_message(from, to, message);
            self.sends.push(message);
        }
        let sends = (start, number(self.sends.len()));
        Ok(Outcome { local: self.keep_local(step.local), marks, sends })
    }
}

fn number(length: usize) -> u32 {
    u32::try_from(length).expect("four thousand million are more than fit in memory")
}
