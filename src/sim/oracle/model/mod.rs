//! The store as anybody would write it who has memory to waste: every version of every key, every answer of every
//! session, for ever. It reads commands by their documented format and shares no code with `kv`.
//!
//! | file | what it is |
//! |---|---|
//! | `read` | commands |
//! | `keys`, `leases` | the state |
//! | `told` | what is said to a command, and a store's replies in these words |

mod keys;
mod leases;
mod read;
mod told;

use crate::kv::{LeaseError, LeaseLimits, Revision, RevisionError};
use bytes::Bytes;
use keys::Keys;
use leases::Leases;
use read::{Attach, Change, Command, Compare, Expected, Op, Target, Txn};
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use wal::Frame;

pub(super) use leases::Lease;
pub(super) use read::{Query, Span};
pub(super) use told::{Came, Did, Item, Page, Told, page, query};

/// What a command of the ledger came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Done {
    /// Session and number, for a command in one.
    pub(super) session: Option<(u64, u64)>,
    /// The value it would write, or names: no other command has it.
    pub(super) value: Option<u64>,
    /// The command, outside a session and without such a value.
    pub(super) nameless: Option<Box<[u8]>>,
    pub(super) told: Told,
    pub(super) how: How,
    /// The leases that it ended because their time was over, each with how much the log's time was beyond its end.
    pub(super) expired: Vec<(u64, u64)>,
    /// It kept a lease alive whose time was over.
    pub(super) overdue: bool,
    /// It would have kept a lease alive that had expired.
    pub(super) too_late: bool,
    /// It left leases to the next entry whose time is over.
    pub(super) more_due: bool,
}

/// Why a command came to that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    Applied,
    Repeated,
    SessionGone,
    Refused,
}

#[derive(Debug, Default)]
struct Session {
    timeout: u64,
    expires: u64,
    acknowledged_below: u64,
    /// Number, the command's bytes, what it was told.
    answers: Vec<(u64, Box<[u8]>, Told)>,
}

/// Where the store stands after an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stand {
    pub(super) revision: u64,
    pub(super) keys: u64,
    pub(super) leases: u64,
    /// The revision that clients last compacted to; 1 if never.
    pub(super) compacted: u64,
    pub(super) time: u64,
}

/// The model.
#[derive(Debug)]
pub(super) struct Model {
    revision: u64,
    now: u64,
    compacted: u64,
    keys: Keys,
    leases: Leases,
    /// Leases that have expired.
    expired: BTreeSet<u64>,
    sessions: Vec<Option<Session>>,
}

impl Default for Model {
    fn default() -> Self {
        Self {
            revision: 1,
            now: 0,
            compacted: 1,
            keys: Keys::default(),
            leases: Leases::default(),
            expired: BTreeSet::new(),
            sessions: Vec::new(),
        }
    }
}

/// A value as a number: its first eight bytes.
pub(super) fn number(bytes: &[u8]) -> u64 {
    let mut word = [0; 8];
    let length = bytes.len().min(8);
    word[..length].copy_from_slice(&bytes[..length]);
    u64::from_le_bytes(word)
}

/// The ways a transaction takes, looked at before anything is changed: its own, and those of the transactions on it.
struct Ways {
    holds: bool,
    inner: Vec<Ways>,
}

impl Model {
    /// What there may be of leases.
    pub(super) fn limit(&mut self, limits: LeaseLimits) {
        self.leases.limits = limits;
    }

    pub(super) fn revision(&self) -> u64 {
        self.revision
    }

    /// Where it stands.
    pub(super) fn stand(&self) -> Stand {
        Stand {
            revision: self.revision,
            keys: self.keys.present(),
            leases: self.leases.all.len() as u64,
            compacted: self.compacted,
            time: self.now,
        }
    }

    /// What `key` held at `revision`.
    pub(super) fn at(&self, key: &[u8], revision: u64) -> Option<Item> {
        self.keys.at(key, revision)
    }

    /// The keys that `revision` changed, in their order.
    pub(super) fn changed(&self, revision: u64) -> Vec<Bytes> {
        self.keys.changed(revision)
    }

    /// How many changes the revisions `from` to `until` made, both included.
    pub(super) fn changes(&self, from: u64, until: u64) -> u64 {
        self.keys.changes(from, until)
    }

    /// A page of the state at a revision.
    pub(super) fn page(&self, query: &Query, revision: u64) -> Page {
        self.keys.page(query, Some(revision), (revision, Some(revision)))
    }

    /// All leases.
    pub(super) fn leases(&self) -> impl Iterator<Item = (u64, &Lease)> {
        self.leases.all.iter().map(|(&id, lease)| (id, lease))
    }

    /// Applies an entry's commands.
    pub(super) fn apply(&mut self, entry: &Frame, mut done: impl FnMut(Done)) {
        if entry.kind() == wal::Kind::Commands {
            self.now = self.now.max(entry.timestamp_ms());
            for command in entry.commands() {
                done(self.command(command));
                assert_eq!(self.keys.newest(), self.revision, "revisions are dense");
            }
        }
    }

    fn command(&mut self, bytes: &[u8]) -> Done {
        let plain = |told| Done {
            session: None,
            value: None,
            nameless: None,
            told,
            how: How::Applied,
            expired: Vec::new(),
            overdue: false,
            too_late: false,
            more_due: false,
        };
        let Some(command) = read::command(bytes) else {
            return Done { how: How::Refused, ..plain(Told::Other) };
        };
        match command {
            Command::Open { timeout } => {
                let expires = self.now + timeout;
                self.sessions.push(Some(Session { timeout, expires, ..Session::default() }));
                plain(Told::Other)
            }
            Command::Close { session } => {
                if let Some(session) = self.session(session) {
                    self.sessions[session] = None;
                }
                plain(Told::Other)
            }
            Command::Once { stamp, bytes } => self.once(stamp, bytes),
            Command::Change(change) => {
                let value = change.name();
                let nameless = value.is_none().then(|| bytes.into());
                let (overdue, too_late) = self.timeliness(&change);
                Done { value, nameless, overdue, too_late, ..plain(self.change(change)) }
            }
            Command::Compact { revision } => {
                Done { nameless: Some(bytes.into()), ..plain(self.compact(revision)) }
            }
            Command::Expire => {
                let (told, expired) = self.expire();
                let more_due = self.leases.due(self.now).is_some();
                Done { expired, more_due, ..plain(told) }
            }
        }
    }

    /// Where an open session is.
    fn session(&self, id: u64) -> Option<usize> {
        let at = usize::try_from(id.checked_sub(1)?).ok()?;
        let open = self.sessions.get(at)?.as_ref().is_some_and(|session| self.now < session.expires);
        open.then_some(at)
    }

    fn once(&mut self, [id, sequence, first_unanswered]: [u64; 3], bytes: &[u8]) -> Done {
        let change = read::change(bytes);
        let refused = Done {
            session: Some((id, sequence)),
            value: change.as_ref().and_then(Change::name),
            nameless: None,
            told: Told::Other,
            how: How::SessionGone,
            expired: Vec::new(),
            overdue: false,
            too_late: false,
            more_due: false,
        };
        let Some(change) = change else { return Done { how: How::Refused, ..refused } };
        let Some(at) = self.session(id) else { return refused };
        let now = self.now;
        let session = self.sessions[at].as_mut().expect("it is open");
        session.expires = now + session.timeout;
        session.acknowledged_below = session.acknowledged_below.max(first_unanswered);
        let below = session.acknowledged_below;
        if sequence < below {
            return Done { how: How::Refused, ..refused };
        }
        if let Some((_, former, told)) = session.answers.iter().find(|(number, ..)| *number == sequence) {
            let (told, how) =
                if **former == *bytes { (told.clone(), How::Repeated) } else { (Told::Other, How::Refused) };
            return Done { told, how, ..refused };
        }
        session.answers.retain(|(number, ..)| *number >= below);
        let (overdue, too_late) = self.timeliness(&change);
        let told = self.change(change);
        let session = self.sessions[at].as_mut().expect("it is open");
        session.answers.push((sequence, bytes.into(), told.clone()));
        Done { told, how: How::Applied, overdue, too_late, ..refused }
    }

    /// Whether this keeps a lease alive that is over, or one that an entry has ended.
    fn timeliness(&self, change: &Change) -> (bool, bool) {
        let Change::KeepAlive { lease } = change else { return (false, false) };
        let over = self.leases.all.get(lease).is_some_and(|state| state.ends <= self.now);
        (over, self.expired.contains(lease))
    }

    fn change(&mut self, change: Change) -> Told {
        let before = self.revision;
        let told = match change {
            Change::Put { key, value, attach } => self.put(&key, value, attach),
            Change::Swap { key, expected, value, attach } => self.swap(&key, &expected, value, attach),
            Change::Delete { key } => {
                let present = self.remove(&key);
                Told::Deleted { revision: self.next_if(present), present }
            }
            Change::DeleteRange { span } => {
                let deleted = self.remove_all(&span);
                Told::RangeDeleted { revision: self.next_if(deleted > 0), deleted }
            }
            Change::Txn(txn) => self.txn(&txn),
            Change::Grant { lease, ttl } => match self.leases.grant(lease, (ttl, self.now)) {
                Ok(lease) => Told::Granted { revision: before, lease, ttl },
                Err(error) => Told::LeaseRefused(error),
            },
            Change::KeepAlive { lease } => match self.leases.keep(lease, self.now) {
                Ok(ttl) => Told::Kept { revision: before, lease, ttl },
                Err(error) => Told::LeaseRefused(error),
            },
            Change::Revoke { lease } => match self.end(lease) {
                Ok(keys) => Told::Revoked { revision: self.next_if(keys > 0), keys },
                Err(error) => Told::LeaseRefused(error),
            },
        };
        if let Some((revision, own)) = told.place() {
            assert_eq!(revision, before + u64::from(own));
            self.revision = revision;
        }
        told
    }

    fn next_if(&self, changed: bool) -> u64 {
        self.revision + u64::from(changed)
    }

    fn put(&mut self, key: &Bytes, value: Bytes, attach: Option<Attach>) -> Told {
        let attach_to = attach.unwrap_or(Attach::Nothing);
        if let Err(error) = self.admits(&[(key, attach_to)]) {
            return Told::LeaseRefused(error);
        }
        let lease = self.set(key, value, attach_to);
        let revision = self.revision + 1;
        if attach.is_some() { Told::PutAttached { revision, lease } } else { Told::Put { revision } }
    }

    fn swap(&mut self, key: &Bytes, expected: &Expected, value: Bytes, attach: Option<Attach>) -> Told {
        let current = self.keys.now(key);
        let holds = match (expected, &current) {
            (Expected::Absent, None) => true,
            (Expected::Value(expected), Some(item)) => item.value == *expected,
            (Expected::Revision(expected), Some(item)) => item.modified == *expected,
            _ => false,
        };
        if !holds {
            return Told::NotSwapped { revision: self.revision, current };
        }
        match self.put(key, value, attach) {
            Told::Put { revision } => Told::Swapped { revision },
            Told::PutAttached { revision, lease } => Told::SwappedAttached { revision, lease },
            refused => refused,
        }
    }

    /// Whether these keys may be put so, all of them.
    fn admits(&self, puts: &[(&Bytes, Attach)]) -> Result<(), LeaseError> {
        let mut made = 0;
        let mut attached = BTreeMap::<u64, usize>::new();
        for &(key, attach) in puts {
            match attach {
                Attach::Nothing | Attach::Keep => {}
                Attach::Ttl(_) => {
                    made += 1;
                    self.leases.admits_more(made)?;
                }
                Attach::Lease(lease) => {
                    let more = attached.entry(lease).or_default();
                    *more += usize::from(self.keys.now(key).is_none_or(|item| item.lease != lease));
                    self.leases.admits_keys(lease, *more)?;
                }
            }
        }
        Ok(())
    }

    /// Sets a key at the next revision; the lease it has then.
    fn set(&mut self, key: &Bytes, value: Bytes, attach: Attach) -> u64 {
        let former = self.keys.now(key).map_or(0, |item| item.lease);
        let lease = match attach {
            Attach::Nothing => 0,
            Attach::Keep => former,
            Attach::Lease(lease) => lease,
            Attach::Ttl(ttl) => self.leases.own(ttl, self.now),
        };
        if former != lease {
            if former != 0 {
                self.leases.detach(former, key);
            }
            if lease != 0 {
                self.leases.attach(lease, key);
            }
        }
        self.keys.set(key, value, (self.revision + 1, lease));
        lease
    }

    /// Removes a key at the next revision; whether it was there.
    fn remove(&mut self, key: &Bytes) -> bool {
        let Some(item) = self.keys.now(key) else { return false };
        if item.lease != 0 {
            self.leases.detach(item.lease, key);
        }
        self.keys.remove(key, self.revision + 1);
        true
    }

    fn remove_all(&mut self, span: &Span) -> u64 {
        let items = self.items(span);
        items.iter().filter(|item| self.remove(&item.key)).count() as u64
    }

    fn items(&self, span: &Span) -> Vec<Item> {
        let query = Query { span: span.clone(), limit: u64::MAX, descending: false, select: 0, after: None };
        self.keys.items(&query, None)
    }

    /// Ends a lease; how many keys went with it.
    fn end(&mut self, lease: u64) -> Result<u64, LeaseError> {
        let ended = self.leases.all.remove(&lease);
        let ended = ended.ok_or(LeaseError::NotFound { lease: crate::kv::LeaseId(lease) })?;
        for key in &ended.keys {
            self.keys.remove(key, self.revision + 1);
        }
        Ok(ended.keys.len() as u64)
    }

    fn expire(&mut self) -> (Told, Vec<(u64, u64)>) {
        let (mut leases, mut keys, mut weight) = (0, 0, 0);
        let mut expired = Vec::new();
        while weight < self.leases.limits.expired_keys_per_entry as u64
            && let Some(lease) = self.leases.due(self.now)
        {
            expired.push((lease, self.now - self.leases.all[&lease].ends));
            let ended = self.end(lease).expect("it is there");
            self.expired.insert(lease);
            self.revision = self.next_if(ended > 0);
            (leases, keys, weight) = (leases + 1, keys + ended, weight + ended.max(1));
        }
        (Told::Expired { revision: self.revision, leases, keys }, expired)
    }

    fn compact(&mut self, requested: u64) -> Told {
        let (revision, oldest) = (Revision(requested), Revision(self.compacted));
        if requested > self.revision {
            let current = Revision(self.revision);
            return Told::RevisionRefused(RevisionError::Future { requested: revision, current });
        }
        if requested <= self.compacted {
            return Told::RevisionRefused(RevisionError::Compacted { requested: revision, oldest });
        }
        self.compacted = requested;
        Told::Compacted { revision: self.revision, oldest: requested }
    }

    fn txn(&mut self, txn: &Txn) -> Told {
        let ways = self.ways(txn);
        let mut puts = Vec::new();
        collect(txn, &ways, &mut puts);
        if let Err(error) = self.admits(&puts) {
            return Told::LeaseRefused(error);
        }
        let came = Box::new(self.go(txn, &ways));
        Told::Txn { revision: self.next_if(came.changed()), came }
    }

    fn ways(&self, txn: &Txn) -> Ways {
        let holds = txn.compares.iter().all(|compare| self.holds(compare));
        let ops = if holds { &txn.then } else { &txn.otherwise };
        let inner = ops.iter().filter_map(|op| match op {
            Op::Txn(inner) => Some(self.ways(inner)),
            _ => None,
        });
        Ways { holds, inner: inner.collect() }
    }

    fn holds(&self, compare: &Compare) -> bool {
        let items = self.items(&compare.span);
        if items.is_empty() {
            meets(compare, None)
        } else {
            items.iter().all(|item| meets(compare, Some(item)))
        }
    }

    fn go(&mut self, txn: &Txn, ways: &Ways) -> Came {
        let mut inner = ways.inner.iter();
        let ops = if ways.holds { &txn.then } else { &txn.otherwise };
        let mut did = Vec::with_capacity(ops.len());
        for op in ops {
            did.push(match op {
                Op::Put { key, value, attach } => {
                    let previous = self.keys.now(key);
                    Did::Put { previous, lease: self.set(key, value.clone(), *attach) }
                }
                Op::Delete(span) => Did::Deleted(self.remove_all(span)),
                Op::Read(query) => {
                    // That of the transaction once it has changed something.
                    let revision = self.keys.newest();
                    Did::Read(self.keys.page(query, None, (revision, Some(revision))))
                }
                Op::Txn(txn) => Did::Txn(self.go(txn, inner.next().expect("one for each"))),
            });
        }
        Came { held: ways.holds, did }
    }
}

/// The puts on the way taken.
fn collect<'t>(txn: &'t Txn, ways: &Ways, puts: &mut Vec<(&'t Bytes, Attach)>) {
    let mut inner = ways.inner.iter();
    for op in if ways.holds { &txn.then } else { &txn.otherwise } {
        match op {
            Op::Put { key, attach, .. } => puts.push((key, *attach)),
            Op::Txn(txn) => collect(txn, inner.next().expect("one for each"), puts),
            Op::Delete(_) | Op::Read(_) => {}
        }
    }
}

/// Whether a key, or nothing, is as a compare wants it.
fn meets(compare: &Compare, item: Option<&Item>) -> bool {
    let of = |part: fn(&Item) -> u64| item.map_or(0, part);
    let order = match &compare.target {
        Target::Value(value) => match item {
            Some(item) => item.value.cmp(value),
            None => return compare.relation == 1,
        },
        Target::Version(version) => of(|item| item.count).cmp(version),
        Target::Created(revision) => of(|item| item.created).cmp(revision),
        Target::Modified(revision) => of(|item| item.modified).cmp(revision),
        Target::Lease(lease) => of(|item| item.lease).cmp(lease),
    };
    match compare.relation {
        0 => order == Ordering::Equal,
        1 => order != Ordering::Equal,
        2 => order == Ordering::Greater,
        _ => order == Ordering::Less,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::kv::{self, ExpectedRef};
    use crate::sim::client::key_bytes;
    use bytes::BytesMut;
    use wal::{FrameBuilder, FrameHead, GroupId, Term};

    pub(in super::super) fn put(key: u64, value: u64) -> Vec<u8> {
        let mut out = BytesMut::new();
        kv::encode_put(&key_bytes(key), &value.to_le_bytes(), &mut out).expect("small");
        out.to_vec()
    }

    fn swap(key: u64, expected: Option<u64>, value: u64) -> Vec<u8> {
        let mut out = BytesMut::new();
        let bytes = expected.map(u64::to_le_bytes);
        let expected = bytes.as_ref().map_or(ExpectedRef::Absent, |bytes| ExpectedRef::Value(bytes));
        kv::encode_compare_and_swap(&key_bytes(key), expected, &value.to_le_bytes(), &mut out)
            .expect("small");
        out.to_vec()
    }

    fn delete(key: u64) -> Vec<u8> {
        let mut out = BytesMut::new();
        kv::encode_delete(&key_bytes(key), &mut out).expect("small");
        out.to_vec()
    }

    pub(in super::super) fn open(timeout: u64) -> Vec<u8> {
        [&[1, 4][..], &timeout.to_le_bytes()].concat()
    }

    pub(in super::super) fn once(session: u64, sequence: u64, command: &[u8]) -> Vec<u8> {
        let numbers = [session, sequence, sequence].map(u64::to_le_bytes).concat();
        [&[1, 6][..], &numbers, command].concat()
    }

    pub(in super::super) fn frame(timestamp_ms: u64, commands: &[Vec<u8>]) -> Frame {
        let previous = wal::frame::origin(wal::ClusterId(1), GroupId::FIRST);
        let head = FrameHead { group: GroupId::FIRST, term: Term(1), previous, timestamp_ms };
        let mut batch = FrameBuilder::with_capacity(64);
        commands.iter().for_each(|command| batch.push_command(command));
        batch.commands(head)
    }

    #[test]
    fn the_model_answers_as_the_store_does() {
        let (mut model, mut store) = (Model::default(), kv::Store::new());
        let commands =
            [put(1, 7), swap(1, Some(7), 8), swap(1, None, 9), delete(2), delete(1), swap(1, None, 10)];
        let mut told = Vec::new();
        model.apply(&frame(0, &commands), |done| told.push(done.told));
        let replies: Vec<_> = commands.iter().map(|command| store.apply(command)).collect();
        let theirs: Vec<_> = replies.iter().map(Told::of).collect();
        assert_eq!(told, theirs);
        assert_eq!(model.revision(), store.revision().0);
        let key = key_bytes(1);
        let held = |at| model.at(&key, at).map(|item| number(&item.value));
        assert_eq!([1, 2, 3, 4, 5].map(held), [None, Some(7), Some(8), None, Some(10)]);
        assert_eq!((model.changed(4), model.changed(9)), (vec![Bytes::copy_from_slice(&key)], vec![]));
    }

    #[test]
    fn a_session_answers_once_until_it_expires() {
        let mut model = Model::default();
        let mut how = Vec::new();
        let first = once(1, 1, &put(1, 7));
        model.apply(&frame(5, &[open(100), first.clone(), first.clone()]), |done| how.push(done.how));
        model.apply(&frame(104, std::slice::from_ref(&first)), |done| how.push(done.how));
        model.apply(&frame(204, &[first, once(9, 1, &put(1, 8))]), |done| how.push(done.how));
        use How::{Applied, Repeated, SessionGone};
        assert_eq!(how, [Applied, Applied, Repeated, Repeated, SessionGone, SessionGone]);
        assert_eq!(model.revision(), 2);
    }
}
