//! Clients that write down what they did and when.
//!
//! Two kinds. *Register* clients, a few per group, put, read and swap one key that the group shares, one call at a time: their
//! record is judged for linearizability. They wander between the nodes, so that what one has shown is asked of another, and
//! move to a fresh key when the harness disturbs the cluster, since a call whose outcome nobody knows stays open for ever on
//! the old one. Now and then each puts, reads and deletes a key of its own, whose state it knows. *Ledger* clients write each
//! key once, many calls in flight: every acknowledged one must be there at the end. They stay with a node until a call fails.
//!
//! A call that is not answered in time is left open, not forgotten: an answer that comes later is recorded with its time.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::cluster::Cluster;
use crate::process::{Call, NodeProcess, Reply};
use crate::random::Random;
use crate::stamp::Stamp;
use crate::talk::{Ask, Effect, Expect, Found, Level, Told};

/// How long ledger values are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sizes {
    /// All alike.
    Equal(usize),
    /// From a few bytes to below this many: as many of one length as of twice that length.
    Mixed(usize),
}

impl Default for Sizes {
    fn default() -> Self {
        Self::Equal(100)
    }
}

impl Sizes {
    fn of(self, random: &mut Random) -> usize {
        match self {
            Self::Equal(bytes) => bytes,
            Self::Mixed(most) => {
                let doublings = u64::from(most.ilog2());
                let below = 1 << random.within(5.min(doublings)..doublings + 1);
                usize::try_from(random.within(below / 2..below)).expect("below a usize")
            }
        }
    }
}

/// How much load.
#[derive(Debug, Clone)]
pub struct Shape {
    /// Groups of register clients.
    pub groups: usize,
    /// Clients in each; the judge's search wants at most 8.
    pub clients: usize,
    /// Pause after each call of a register client.
    pub think: Duration,
    /// Ledger clients.
    pub ledgers: usize,
    /// The number of the first of them, so that several loads write different keys.
    pub first_ledger: usize,
    /// Calls each has in flight.
    pub in_flight: usize,
    /// Ledger writes a second, all together.
    pub rate: u32,
    /// Bytes of a ledger value.
    pub value_bytes: Sizes,
    /// Patience with one call.
    pub call_limit: Duration,
    /// Choices of the clients.
    pub seed: u64,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            groups: 3,
            clients: 5,
            think: Duration::from_millis(3),
            ledgers: 3,
            first_ledger: 0,
            in_flight: 32,
            rate: 3000,
            value_bytes: Sizes::default(),
            call_limit: Duration::from_secs(2),
            seed: 1,
        }
    }
}

/// What a register client did.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the words of the client API")]
pub enum Did {
    Put {
        value: u64,
    },
    Read {
        level: Level,
        saw: Option<u64>,
    },
    /// The outcome: taken, or what was there instead. Expecting a revision is expecting the value it wrote.
    Swap {
        expected: Option<u64>,
        new: u64,
        outcome: Option<Result<(), Option<u64>>>,
    },
}

/// A call on a register and what came of it. One that certainly changed and showed nothing is not recorded.
#[derive(Debug, Clone)]
pub struct Operation {
    /// Who; at any time one call each, except open ones.
    pub client: u64,
    /// Which register.
    pub key: String,
    /// Before it was sent.
    pub invoked: Stamp,
    /// When the answer was read; `None` if nobody knows the outcome.
    pub responded: Option<Stamp>,
    /// The revision of the answer.
    pub revision: Option<u64>,
    /// What.
    pub did: Did,
}

impl Operation {
    /// Whether it may have changed the store.
    pub fn changes(&self) -> bool {
        match &self.did {
            Did::Read { .. } => false,
            Did::Put { .. } => true,
            Did::Swap { outcome, .. } => !matches!(outcome, Some(Err(_))),
        }
    }
}

/// An acknowledged write of a key that is written once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Which client.
    pub ledger: usize,
    /// Its number.
    pub number: u64,
    /// Before it was sent.
    pub invoked: Stamp,
    /// When the acknowledgement was read.
    pub responded: Stamp,
    /// The revision of the acknowledgement.
    pub revision: u64,
}

/// Keys of a ledger that share a prefix, to be read in one page.
pub const BLOCK: u64 = 200;

impl Entry {
    /// The prefix of all keys of its block.
    pub fn prefix(ledger: usize, block: u64) -> String {
        format!("ledger/{ledger}/{block}/")
    }

    /// The key.
    pub fn key(ledger: usize, number: u64) -> String {
        format!("{}{number}", Self::prefix(ledger, number / BLOCK))
    }

    /// The value written to it.
    pub fn value(ledger: usize, number: u64, sizes: Sizes) -> String {
        let start = format!("{ledger}.{number}.");
        let mut random = Random::new(number ^ ((ledger as u64) << 48));
        let (filler, bytes) = (random.bits(), sizes.of(&mut random));
        start.clone()
            + &format!("{filler:016x}").repeat(bytes / 16 + 1)[..bytes.saturating_sub(start.len()).max(8)]
    }
}

/// Everything the clients saw.
#[derive(Debug, Default)]
pub struct Record {
    /// Of the register clients.
    pub operations: Vec<Operation>,
    /// Acknowledged, of the ledger clients.
    pub entries: Vec<Entry>,
    /// Ledger clients, and how many keys each tried, acknowledged or not.
    pub tried: Vec<(usize, u64)>,
    /// Bytes of a ledger value.
    pub value_bytes: Sizes,
    /// Calls whose outcome nobody knows.
    pub unknown: u64,
    /// Calls refused with the word that nothing happened.
    pub refused: u64,
    /// Eventual reads: which key, what was found.
    pub eventual: Vec<(String, Option<Found>)>,
    /// Answers about a client's own key that contradict what it had done to it.
    pub surprises: Vec<String>,
}

impl Record {
    fn absorb(&mut self, other: Record) {
        self.operations.extend(other.operations);
        self.entries.extend(other.entries);
        self.tried.extend(other.tried);
        self.eventual.extend(other.eventual);
        self.surprises.extend(other.surprises);
        self.unknown += other.unknown;
        self.refused += other.refused;
    }
}

/// The first acknowledgement of a write that was invoked after a certain moment.
#[derive(Debug, Default)]
struct FirstAck {
    armed: Mutex<(Option<Stamp>, Option<Stamp>)>,
    seen: Condvar,
}

impl FirstAck {
    fn note(&self, invoked: Stamp, at: Stamp) {
        let mut armed = self.armed.lock().unwrap_or_else(PoisonError::into_inner);
        if armed.0.is_some_and(|after| invoked > after) && armed.1.is_none_or(|first| at < first) {
            armed.1 = Some(at);
            self.seen.notify_all();
        }
    }
}

#[derive(Debug)]
struct Shared {
    cluster: Arc<Cluster>,
    shape: Shape,
    stop: AtomicBool,
    generation: AtomicU64,
    acknowledged: AtomicU64,
    first: FirstAck,
}

/// Clients at work.
#[derive(Debug)]
pub struct Load {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<Record>>,
}

impl Load {
    /// Start the clients.
    pub fn start(cluster: &Arc<Cluster>, shape: Shape) -> Self {
        let shared = Arc::new(Shared {
            cluster: Arc::clone(cluster),
            shape: shape.clone(),
            stop: AtomicBool::new(false),
            generation: AtomicU64::new(0),
            acknowledged: AtomicU64::new(0),
            first: FirstAck::default(),
        });
        let mut random = Random::new(shape.seed);
        let mut threads = Vec::new();
        for group in 0..shape.groups {
            for client in 0..shape.clients {
                let number = group * shape.clients + client;
                let client = Client::new(Arc::clone(&shared), number, random.fork());
                threads.push(std::thread::spawn(move || client.register(group)));
            }
        }
        for ledger in (shape.first_ledger..).take(shape.ledgers) {
            let client = Client::new(Arc::clone(&shared), ledger, random.fork());
            threads.push(std::thread::spawn(move || client.ledger(ledger)));
        }
        Self { shared, threads }
    }

    /// Let the register clients move to fresh keys.
    pub fn rotate(&self) {
        self.shared.generation.fetch_add(1, Ordering::Relaxed);
    }

    /// Writes acknowledged so far.
    pub fn acknowledged(&self) -> u64 {
        self.shared.acknowledged.load(Ordering::Relaxed)
    }

    /// Wait until `count` more writes were acknowledged; false if that takes longer than `limit`.
    pub fn progress(&self, count: u64, limit: Duration) -> bool {
        let (goal, deadline) = (self.acknowledged() + count, Instant::now() + limit);
        while self.acknowledged() < goal {
            if Instant::now() >= deadline {
                return false;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        true
    }

    /// Whether no write that is invoked from now on is acknowledged for this long.
    pub fn silent(&self, time: Duration) -> bool {
        self.outage(|| (), time).is_none()
    }

    /// The time from `disturb` (called here) to the first acknowledgement of a write that was invoked after it.
    pub fn outage(&self, disturb: impl FnOnce(), limit: Duration) -> Option<Duration> {
        let start = Stamp::now();
        let first = &self.shared.first;
        disturb();
        // A write that was invoked before the disturbance took hold proves nothing.
        let done = Stamp::now();
        *first.armed.lock().unwrap_or_else(PoisonError::into_inner) = (Some(done), None);
        let armed = first.armed.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = first.seen.wait_timeout_while(armed, limit, |armed| armed.1.is_none());
        let (armed, _) = waited.unwrap_or_else(PoisonError::into_inner);
        armed.1.map(|at| at.since(start))
    }

    /// Stop the clients; all they saw.
    pub fn finish(mut self) -> Record {
        let mut record = Record { value_bytes: self.shared.shape.value_bytes, ..Record::default() };
        for seen in self.stop() {
            record.absorb(seen);
        }
        record
    }

    fn stop(&mut self) -> Vec<Record> {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.threads.drain(..).map(|thread| thread.join().expect("clients do not panic")).collect()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // No client outlives the job: it would keep the cluster alive.
        self.stop();
    }
}

struct Client {
    shared: Arc<Shared>,
    number: u64,
    /// Times it left a call open: a client with an open call is two clients.
    lives: u64,
    /// Calls so far; makes values unique.
    counter: u64,
    /// The node it talks to.
    at: usize,
    random: Random,
    record: Record,
}

/// A call on a register that is not answered yet.
struct Pending {
    call: Call,
    operation: Operation,
}

/// A value of a register, which is a number in text.
fn value_of(found: Option<&Found>) -> Option<u64> {
    // Not a number: nobody wrote that, and the judge will say so.
    found.map(|found| found.value.parse().unwrap_or(u64::MAX))
}

impl Client {
    fn new(shared: Arc<Shared>, number: usize, random: Random) -> Self {
        let at = number % shared.cluster.len();
        Self { shared, number: number as u64, lives: 0, counter: 0, at, random, record: Record::default() }
    }

    fn stopped(&self) -> bool {
        self.shared.stop.load(Ordering::Relaxed)
    }

    fn node(&mut self) -> Option<Arc<NodeProcess>> {
        let node = self.shared.cluster.node(self.at);
        if node.is_none() {
            self.move_on();
        }
        node
    }

    /// Try the next node, after a moment.
    fn move_on(&mut self) {
        self.at = (self.at + 1) % self.shared.cluster.len();
        std::thread::sleep(self.random.duration(Duration::from_millis(2)..Duration::from_millis(10)));
    }

    fn name(&self) -> u64 {
        self.number | (self.lives << 32)
    }

    fn fresh_value(&mut self) -> u64 {
        self.counter += 1;
        (self.number << 40) | self.counter
    }

    fn register(mut self, group: usize) -> Record {
        let mut late: Vec<Pending> = Vec::new();
        let (mut last_key, mut last_seen) = (String::new(), None);
        while !self.stopped() {
            match self.random.within(0..10) {
                0 => self.own_key(),
                // What one node has shown, no other may deny.
                1..=4 => self.at = self.random.index(self.shared.cluster.len()),
                _ => {}
            }
            let Some(node) = self.node() else { continue };
            let generation = self.shared.generation.load(Ordering::Relaxed);
            let key = format!("register/{group}/{generation}");
            if key != last_key {
                last_seen = None;
                last_key.clone_from(&key);
            }
            let (ask, did) = self.choose(&key, last_seen.as_ref());
            let call = node.call(ask);
            let invoked = call.invoked;
            let client = self.name();
            let operation = Operation { client, key, invoked, responded: None, revision: None, did };
            match call.wait(self.shared.shape.call_limit) {
                Some(reply) => {
                    if let Some(found) = seen(&operation.did, &reply.told) {
                        last_seen = found;
                    }
                    let failed = matches!(reply.told, Told::Failed { .. });
                    self.answered(operation, reply);
                    if failed {
                        self.lives += 1;
                        self.move_on();
                    }
                }
                None => {
                    late.push(Pending { call, operation });
                    self.lives += 1;
                    self.move_on();
                }
            }
            std::thread::sleep(self.shared.shape.think);
        }
        let deadline = Instant::now() + self.shared.shape.call_limit;
        for Pending { call, operation } in late {
            match call.wait(deadline.saturating_duration_since(Instant::now())) {
                Some(reply) => self.answered(operation, reply),
                None => self.unanswered(operation),
            }
        }
        self.record
    }

    fn choose(&mut self, key: &str, last: Option<&Found>) -> (Ask, Did) {
        let (key, new) = (key.to_owned(), self.fresh_value());
        let read = |level| (Ask::Get { key: key.clone(), level }, Did::Read { level, saw: None });
        match self.random.within(0..100) {
            0..35 => (Ask::Put { key, value: new.to_string() }, Did::Put { value: new }),
            35..55 => read(Level::Linearizable),
            55..75 => read(Level::Lease),
            75..80 => read(Level::Eventual),
            choice => {
                let expect = match last {
                    None => Expect::Absent,
                    Some(found) if choice < 90 => Expect::Value(found.value.clone()),
                    Some(found) => Expect::Revision(found.modified),
                };
                let ask = Ask::Swap { key, expect, new: new.to_string() };
                (ask, Did::Swap { expected: value_of(last), new, outcome: None })
            }
        }
    }

    /// Put, read and delete a key nobody else touches: its state is known until an outcome is not.
    fn own_key(&mut self) {
        let Some(node) = self.node() else { return };
        let (key, value) = (format!("own/{}/{}", self.name(), self.fresh_value()), "mine".to_owned());
        let read = || Ask::Get { key: key.clone(), level: Level::Linearizable };
        let steps = [
            (Ask::Put { key: key.clone(), value: value.clone() }, None),
            (read(), Some(true)),
            (Ask::Delete { key: key.clone() }, Some(true)),
            (read(), Some(false)),
            (Ask::Delete { key: key.clone() }, Some(false)),
        ];
        let limit = self.shared.shape.call_limit;
        for (ask, there) in steps {
            let call = node.call(ask.clone());
            let Some(Reply { at, told }) = call.wait(limit) else { return };
            let was_there = match &told {
                Told::Done { .. } => None,
                Told::Value { found, .. } => Some(found.as_ref().is_some_and(|found| found.value == value)),
                Told::Deleted { existed, .. } => Some(*existed),
                _ => return,
            };
            if was_there != there {
                self.record.surprises.push(format!("{ask} was answered: {told}"));
            }
            if !matches!(told, Told::Value { .. }) {
                self.shared.first.note(call.invoked, at);
            }
        }
    }

    fn answered(&mut self, mut operation: Operation, reply: Reply) {
        let revision = match (&mut operation.did, reply.told) {
            (Did::Read { level: Level::Eventual, .. }, Told::Value { found, .. }) => {
                self.record.eventual.push((operation.key, found));
                return;
            }
            (Did::Put { .. }, Told::Done { revision }) => revision,
            (Did::Read { saw, .. }, Told::Value { revision, found }) => {
                *saw = value_of(found.as_ref());
                revision
            }
            (Did::Swap { outcome, .. }, Told::Swapped { revision }) => {
                *outcome = Some(Ok(()));
                revision
            }
            (Did::Swap { outcome, .. }, Told::Differs { revision, found }) => {
                *outcome = Some(Err(value_of(found.as_ref())));
                revision
            }
            (_, Told::Failed { effect: Effect::None, .. }) => {
                self.record.refused += 1;
                return;
            }
            _ => return self.unanswered(operation),
        };
        if operation.changes() {
            self.shared.acknowledged.fetch_add(1, Ordering::Relaxed);
            self.shared.first.note(operation.invoked, reply.at);
        }
        operation.responded = Some(reply.at);
        operation.revision = Some(revision);
        self.record.operations.push(operation);
    }

    fn unanswered(&mut self, operation: Operation) {
        if !matches!(operation.did, Did::Read { .. }) {
            self.record.unknown += 1;
            self.record.operations.push(operation);
        }
    }

    fn ledger(mut self, ledger: usize) -> Record {
        let shape = self.shared.shape.clone();
        let pace = Duration::from_secs(1).mul_f64(shape.ledgers as f64 / f64::from(shape.rate.max(1)));
        let mut open: VecDeque<(u64, Call)> = VecDeque::new();
        let mut late: Vec<(u64, Call)> = Vec::new();
        let mut next_turn = Instant::now();
        let mut number = 0;
        while !self.stopped() {
            let Some(node) = self.node() else { continue };
            while open.len() < shape.in_flight && next_turn <= Instant::now() {
                let value = Entry::value(ledger, number, shape.value_bytes);
                open.push_back((number, node.call(Ask::Put { key: Entry::key(ledger, number), value })));
                number += 1;
                // After an outage the missed turns are not caught up.
                next_turn = (next_turn + pace).max(Instant::now() - Duration::from_millis(20));
            }
            let Some((oldest, call)) = open.pop_front() else {
                std::thread::sleep(next_turn.saturating_duration_since(Instant::now()));
                continue;
            };
            let due = call.invoked;
            let full = open.len() + 1 >= shape.in_flight;
            let wait =
                if full { shape.call_limit } else { next_turn.saturating_duration_since(Instant::now()) };
            match call.wait(wait) {
                Some(reply) => {
                    if self.noted(ledger, oldest, due, &reply) {
                        continue;
                    }
                    // The others of this node are likely to fail the same way, each in its own time.
                    late.extend(open.drain(..));
                    self.move_on();
                }
                None if Stamp::now().since(due) < shape.call_limit => open.push_front((oldest, call)),
                None => {
                    late.push((oldest, call));
                    late.extend(open.drain(..));
                    self.move_on();
                }
            }
        }
        late.extend(open.drain(..));
        let deadline = Instant::now() + shape.call_limit;
        for (number, call) in late {
            if let Some(reply) = call.wait(deadline.saturating_duration_since(Instant::now())) {
                self.noted(ledger, number, call.invoked, &reply);
            } else {
                self.record.unknown += 1;
            }
        }
        self.record.tried.push((ledger, number));
        self.record
    }

    /// Whether the write was acknowledged.
    fn noted(&mut self, ledger: usize, number: u64, invoked: Stamp, reply: &Reply) -> bool {
        match &reply.told {
            Told::Done { revision } => {
                self.record.entries.push(Entry {
                    ledger,
                    number,
                    invoked,
                    responded: reply.at,
                    revision: *revision,
                });
                self.shared.acknowledged.fetch_add(1, Ordering::Relaxed);
                self.shared.first.note(invoked, reply.at);
                return true;
            }
            Told::Failed { effect: Effect::None, .. } => self.record.refused += 1,
            _ => self.record.unknown += 1,
        }
        false
    }
}

/// What the key holds after an answer, as far as it tells.
fn seen(did: &Did, told: &Told) -> Option<Option<Found>> {
    match (did, told) {
        (_, Told::Value { found, .. } | Told::Differs { found, .. }) => Some(found.clone()),
        (
            Did::Put { value } | Did::Swap { new: value, .. },
            Told::Done { revision } | Told::Swapped { revision },
        ) => Some(Some(Found { value: value.to_string(), modified: *revision })),
        _ => None,
    }
}
