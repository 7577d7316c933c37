//! Carrying a transaction out: first the way is chosen and what can fail is looked at, then it is gone.

use super::{OpReply, Relation, TXN_COMPARED_KEYS, TXN_READ_KEYS, TXN_REPLY_BYTES, TxnReply};
use crate::kv::command::{CommandError, CompareRef, OpRef, RangeRef, TargetRef, TxnRef};
use crate::kv::edit::Edit;
use crate::kv::entry::{Entry, KeyValue};
use crate::kv::lease::Attach;
use crate::kv::past::PageLimits;
use crate::kv::range::{COUNT_KEYS, DELETE_KEYS, PAGE_KEYS, RangePage, RangeQuery, Select};
use crate::kv::reply::Reply;
use crate::kv::store::Store;

impl Store {
    /// Carries out a transaction that was checked when it was read.
    pub(in crate::kv) fn txn(&mut self, txn: &TxnRef<'_>) -> Reply {
        let way = match Way::choose(self, txn, &mut TXN_COMPARED_KEYS.into()) {
            Ok(way) => way,
            Err(error) => return Reply::Refused(error),
        };
        if way.deletes(self) > DELETE_KEYS {
            return Reply::Refused(CommandError::DeleteTooWide);
        }
        let mut puts = Vec::new();
        way.collect_puts(&mut puts);
        if let Err(error) = self.check_attach(puts) {
            return Reply::LeaseRefused(error);
        }
        // From here on nothing fails.
        let mut edit = self.edit();
        let mut room = Room { bytes: TXN_REPLY_BYTES, keys: TXN_READ_KEYS };
        let mut reply = way.go(&mut edit, &mut room);
        if wal::mutant!("txn_compares_after_its_changes") {
            let after = Way::choose(edit.store(), txn, &mut TXN_COMPARED_KEYS.into());
            reply.succeeded = after.is_ok_and(|way| way.succeeded);
        }
        Reply::Txn { revision: edit.finish(), reply }
    }
}

/// Keys that compares may still look at.
struct Sight(usize);

impl From<usize> for Sight {
    fn from(keys: usize) -> Self {
        Self(keys)
    }
}

impl Sight {
    fn see(&mut self) -> Result<(), CommandError> {
        self.0 = self.0.checked_sub(1).ok_or(CommandError::TxnTooWide)?;
        Ok(())
    }
}

/// The operations that a transaction comes to, by the state before it.
struct Way<'t, 'a> {
    txn: &'t TxnRef<'a>,
    succeeded: bool,
    steps: Vec<Step<'t, 'a>>,
}

enum Step<'t, 'a> {
    Op(&'t OpRef<'a>),
    Txn(Way<'t, 'a>),
}

impl<'t, 'a> Way<'t, 'a> {
    fn choose(store: &Store, txn: &'t TxnRef<'a>, sight: &mut Sight) -> Result<Self, CommandError> {
        let mut succeeded = true;
        for compare in &txn.compares {
            if !compare.holds(store, sight)? {
                succeeded = false;
                break;
            }
        }
        let ops = if succeeded { &txn.then } else { &txn.otherwise };
        let steps = ops.iter().map(|op| match op {
            OpRef::Txn(inner) => Self::choose(store, inner, sight).map(Step::Txn),
            op => Ok(Step::Op(op)),
        });
        Ok(Self { txn, succeeded, steps: steps.collect::<Result<_, _>>()? })
    }

    fn collect_puts(&self, puts: &mut Vec<(&'a [u8], Attach)>) {
        for step in &self.steps {
            match step {
                Step::Op(OpRef::Put { key, attach, .. }) => puts.push((key, *attach)),
                Step::Op(_) => {}
                Step::Txn(inner) => inner.collect_puts(puts),
            }
        }
    }

    /// How many keys it deletes, or a number above [`DELETE_KEYS`]. No key is put and deleted on one way, so what is there
    /// before it is what will be deleted, or more.
    fn deletes(&self, store: &Store) -> usize {
        let mut sum = 0;
        for step in &self.steps {
            sum += match step {
                Step::Op(OpRef::Delete { range }) => store.count_up_to(*range, DELETE_KEYS + 1),
                Step::Op(_) => 0,
                Step::Txn(inner) => inner.deletes(store),
            };
            if sum > DELETE_KEYS {
                break;
            }
        }
        sum
    }

    fn go(&self, edit: &mut Edit<'_>, room: &mut Room) -> TxnReply {
        let results = self.steps.iter().map(|step| match step {
            Step::Txn(inner) if wal::mutant!("nested_way_decided_late") => {
                let late = Self::choose(edit.store(), inner.txn, &mut TXN_COMPARED_KEYS.into());
                OpReply::Txn(late.as_ref().unwrap_or(inner).go(edit, room))
            }
            Step::Txn(inner) => OpReply::Txn(inner.go(edit, room)),
            Step::Op(OpRef::Put { key, value, attach }) => {
                let lease = edit.put(key, value, *attach);
                let (previous, told) = room.tell(edit.replaced());
                OpReply::Put { previous, told, lease }
            }
            Step::Op(OpRef::Delete { range }) => OpReply::Deleted(edit.delete_all(*range)),
            Step::Op(OpRef::Range(query)) => OpReply::Range(room.read(edit, &query.to_query())),
            Step::Op(OpRef::Txn(_)) => unreachable!("it was chosen a way of its own"),
        });
        TxnReply { succeeded: self.succeeded, results: results.collect() }
    }
}

impl Edit<'_> {
    /// Removes the keys of a range; how many there were.
    pub(in crate::kv) fn delete_all(&mut self, range: RangeRef<'_>) -> u64 {
        match range.single() {
            Some(key) => self.delete(key).into(),
            None => self.delete_range(&range.to_range()),
        }
    }
}

impl CompareRef<'_> {
    /// Whether every key of the range meets it.
    fn holds(&self, store: &Store, sight: &mut Sight) -> Result<bool, CommandError> {
        if let Some(key) = self.range.single() {
            sight.see()?;
            return Ok(self.met_by(store.entries.find(key).map(|(_, entry)| entry)));
        }
        let rooms = store.entries.range(self.range.bounds());
        let mut entries = rooms.map(|(_, &room)| store.entries.entry(room)).peekable();
        if entries.peek().is_none() {
            return Ok(self.met_by(None));
        }
        for entry in entries {
            sight.see()?;
            if !self.met_by(Some(entry)) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn met_by(&self, entry: Option<&Entry>) -> bool {
        let number = |of: fn(&Entry) -> u64, named: u64| entry.map_or(0, of).cmp(&named);
        let order = match self.target {
            TargetRef::Value(value) => match entry {
                Some(entry) => entry.value().cmp(value),
                // It equals nothing, and is neither greater nor less.
                None => return self.relation == Relation::NotEqual,
            },
            TargetRef::Version(version) => number(|entry| entry.version, version),
            TargetRef::Created(revision) => number(|entry| entry.create_revision.0, revision.0),
            TargetRef::Modified(revision) => number(|entry| entry.modify_revision.0, revision.0),
            TargetRef::Lease(lease) => number(|entry| entry.lease, lease),
        };
        self.relation.holds(order)
    }
}

/// What there is room for in the answers still to come.
struct Room {
    bytes: usize,
    /// Keys that reads may still look at.
    keys: usize,
}

impl Room {
    /// Bytes of a key in an answer beside key and value.
    const ITEM: usize = 48;

    fn take(&mut self, kv: &KeyValue) {
        self.bytes = self.bytes.saturating_sub(Self::ITEM + kv.key.len() + kv.value.len());
    }

    /// What was there before a put, without the value when there is no room.
    fn tell(&mut self, previous: Option<KeyValue>) -> (Option<KeyValue>, Select) {
        let Some(mut previous) = previous else { return (None, Select::Whole) };
        let told = if self.bytes == 0 { Select::KeysOnly } else { Select::Whole };
        if told == Select::KeysOnly {
            previous.value.clear();
        }
        self.take(&previous);
        (Some(previous), told)
    }

    fn read(&mut self, edit: &Edit<'_>, query: &RangeQuery) -> RangePage {
        let limits = PageLimits {
            keys: self.bytes.div_ceil(Self::ITEM).min(PAGE_KEYS).min(self.keys),
            counted: self.keys.min(COUNT_KEYS),
            bytes: if self.keys == 0 { 0 } else { self.bytes },
        };
        let page = edit.read(query, limits);
        page.items.iter().for_each(|kv| self.take(kv));
        let after = page.next.as_ref().and_then(|next| next.after.as_ref()).map_or(0, |after| after.len());
        self.bytes = self.bytes.saturating_sub(after);
        self.keys = self.keys.saturating_sub(usize::try_from(page.count).unwrap_or(usize::MAX));
        page
    }
}
