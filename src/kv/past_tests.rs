//! The store's past compared with one that forgets nothing, and is too slow to be wrong: it has the whole state at every
//! revision. Then what is kept, for how long, and how much of it is told at once.

use super::edit::Edit;
use super::past::PageLimits;
use super::tests::{a_key, a_value};
use super::*;
use bytes::Bytes;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

type State = BTreeMap<Bytes, KeyValue>;

const LIMITS: LeaseLimits = LeaseLimits { leases: 4, keys: 2, expired_keys_per_entry: 3 };

#[derive(Clone, Debug)]
enum Act {
    Put(Bytes, Bytes, Attach),
    Delete(KeyRange),
}

#[derive(Clone, Debug)]
enum Step {
    Edit(Vec<Act>),
    Compact(u64),
    Grant(Option<u64>, Duration),
    KeepAlive(u64),
    Revoke(u64),
    Expire,
    /// An entry comes, so much later.
    Entry(Duration),
}

#[derive(Clone, Debug)]
struct SlowLease {
    ttl: Duration,
    ends: LogTime,
    own: bool,
}

/// Every state there ever was.
#[derive(Clone, Debug)]
struct Slow {
    /// At revision 1, 2, ...
    states: Vec<State>,
    compacted: Revision,
    now: LogTime,
    leases: BTreeMap<LeaseId, SlowLease>,
    next_lease: u64,
}

impl Slow {
    fn new() -> Self {
        let (states, leases) = (vec![State::new()], BTreeMap::new());
        Self { states, compacted: Revision(1), now: LogTime(0), leases, next_lease: 1 }
    }

    fn revision(&self) -> Revision {
        Revision(self.states.len() as u64)
    }

    fn newest(&self) -> &State {
        self.states.last().expect("there always is one")
    }

    fn at(&self, revision: Revision) -> &State {
        &self.states[usize::try_from(revision.0).expect("few") - 1]
    }

    fn keys_of(&self, lease: LeaseId) -> Vec<Bytes> {
        self.newest().values().filter(|kv| kv.lease == Some(lease)).map(|kv| kv.key.clone()).collect()
    }

    fn room(&self, lease: LeaseId) -> (usize, u64) {
        let most = if self.leases[&lease].own { 1 } else { LIMITS.keys };
        (most - self.keys_of(lease).len(), most as u64)
    }

    fn check_attach(&self, puts: &[(Bytes, Attach)]) -> Result<(), LeaseError> {
        let mut made = self.leases.len();
        let mut attached = BTreeMap::<LeaseId, usize>::new();
        for (key, attach) in puts {
            match *attach {
                Attach::Nothing | Attach::Keep => {}
                Attach::Ttl(_) if made == LIMITS.leases => {
                    return Err(LeaseError::TooManyLeases { limit: made as u64 });
                }
                Attach::Ttl(_) => made += 1,
                Attach::Lease(lease) if !self.leases.contains_key(&lease) => {
                    return Err(LeaseError::NotFound { lease });
                }
                Attach::Lease(lease) => {
                    let (room, limit) = self.room(lease);
                    if self.newest().get(key).and_then(|kv| kv.lease) != Some(lease) {
                        *attached.entry(lease).or_default() += 1;
                    }
                    if attached.get(&lease).is_some_and(|&more| more > room) {
                        return Err(LeaseError::TooManyKeys { lease, limit });
                    }
                }
            }
        }
        Ok(())
    }

    fn grant(&mut self, id: Option<LeaseId>, ttl: Duration, own: bool) -> Result<LeaseId, LeaseError> {
        if self.leases.len() == LIMITS.leases {
            return Err(LeaseError::TooManyLeases { limit: LIMITS.leases as u64 });
        }
        let lease = match id {
            Some(lease) if self.leases.contains_key(&lease) => return Err(LeaseError::Exists { lease }),
            Some(lease) => lease,
            None => {
                while self.leases.contains_key(&LeaseId(self.next_lease)) {
                    self.next_lease += 1;
                }
                self.next_lease += 1;
                LeaseId(self.next_lease - 1)
            }
        };
        self.leases.insert(lease, SlowLease { ttl, ends: self.now.after(ttl), own });
        Ok(lease)
    }

    /// The lease no longer has a key of the newest state that it had before.
    fn left(&mut self, lease: Option<LeaseId>) {
        if let Some(lease) = lease
            && self.leases.get(&lease).is_some_and(|state| state.own)
        {
            self.leases.remove(&lease);
        }
    }

    fn put(&mut self, state: &mut State, key: &Bytes, value: &Bytes, attach: Attach) -> Option<LeaseId> {
        let revision = self.revision().next();
        let former = state.get(key).cloned();
        let old = former.as_ref().and_then(|kv| kv.lease);
        let lease = match attach {
            Attach::Nothing => None,
            Attach::Keep => old,
            Attach::Lease(lease) => Some(lease),
            Attach::Ttl(ttl) => Some(self.grant(None, ttl, true).expect("asked before")),
        };
        if lease != old {
            self.left(old);
        }
        let kv = KeyValue {
            key: key.clone(),
            value: value.clone(),
            create_revision: former.as_ref().map_or(revision, |kv| kv.create_revision),
            modify_revision: revision,
            version: former.map_or(0, |kv| kv.version) + 1,
            lease,
        };
        state.insert(key.clone(), kv);
        lease
    }

    fn end(&mut self, lease: LeaseId) -> Result<u64, LeaseError> {
        if !self.leases.contains_key(&lease) {
            return Err(LeaseError::NotFound { lease });
        }
        let keys = self.keys_of(lease);
        self.leases.remove(&lease);
        if !keys.is_empty() {
            let mut state = self.newest().clone();
            state.retain(|key, _| !keys.contains(key));
            self.states.push(state);
        }
        Ok(keys.len() as u64)
    }

    fn expire(&mut self) -> (u64, u64) {
        let (mut leases, mut keys, mut ended) = (0, 0, 0);
        let mut due: Vec<_> = self.leases.iter().map(|(&lease, state)| (state.ends, lease)).collect();
        due.sort_unstable();
        for (ends, lease) in due {
            if ends > self.now || ended >= LIMITS.expired_keys_per_entry as u64 {
                break;
            }
            let gone = self.end(lease).expect("it is there");
            (leases, keys, ended) = (leases + 1, keys + gone, ended + gone.max(1));
        }
        (leases, keys)
    }

    /// What happened at `revision`, in the order of keys.
    fn events(&self, revision: Revision) -> Vec<Event> {
        if revision == Revision(1) {
            return Vec::new();
        }
        let (before, after) = (self.at(Revision(revision.0 - 1)), self.at(revision));
        let keys: BTreeSet<_> = before.keys().chain(after.keys()).collect();
        keys.into_iter()
            .filter(|key| before.get(*key) != after.get(*key))
            .map(|key| {
                let previous = before.get(key).cloned();
                match after.get(key).cloned() {
                    Some(new) => Event::Put { new, previous },
                    None => Event::Delete { key: key.clone(), previous },
                }
            })
            .collect()
    }

    fn page(&self, query: &RangeQuery, at: Revision, limits: PageLimits) -> RangePage {
        let mut keys: Vec<_> = self.at(at).values().filter(|kv| query.range.contains(&kv.key)).collect();
        if query.order == Order::Descending {
            keys.reverse();
        }
        keys.retain(|kv| {
            query.after.as_ref().is_none_or(|after| match query.order {
                Order::Ascending => kv.key > *after,
                Order::Descending => kv.key < *after,
            })
        });
        let counts = query.select == Select::CountOnly;
        let limit = query.limit.min(if counts { limits.counted } else { limits.keys }).max(1);
        let (mut items, mut bytes, mut count) = (Vec::new(), 0, 0);
        let mut last = query.after.clone();
        let shown = |kv: &KeyValue| match query.select {
            Select::KeysOnly => KeyValue { value: Bytes::new(), ..kv.clone() },
            _ => kv.clone(),
        };
        let number = keys.len();
        for kv in keys.into_iter().map(shown) {
            if count == limit || bytes >= limits.bytes {
                break;
            }
            count += 1;
            last = Some(kv.key.clone());
            if !counts {
                bytes += kv.key.len() + kv.value.len();
                items.push(kv);
            }
        }
        let next = RangeQuery { revision: Some(at), after: last, ..query.clone() };
        RangePage { items, count: count as u64, next: (count < number).then_some(next), revision: at }
    }
}

/// Takes a step in the store and in the slow one, and compares the answers.
fn take(step: &Step, store: &mut Store, slow: &mut Slow) {
    match step {
        Step::Edit(acts) => edit(acts, store, slow),
        Step::Compact(revision) => {
            let requested = Revision(*revision);
            let (current, oldest) = (slow.revision(), slow.compacted);
            let expected = if requested > current {
                Err(RevisionError::Future { requested, current })
            } else if requested <= oldest {
                Err(RevisionError::Compacted { requested, oldest })
            } else {
                slow.compacted = requested;
                Ok(requested)
            };
            assert_eq!(store.compact(requested), expected);
        }
        Step::Grant(id, ttl) => {
            let id = id.map(LeaseId);
            assert_eq!(store.grant(id, *ttl), slow.grant(id, *ttl, false));
        }
        Step::KeepAlive(lease) => {
            let lease = LeaseId(*lease);
            let now = slow.now;
            let expected = match slow.leases.get_mut(&lease) {
                Some(state) => {
                    state.ends = now.after(state.ttl);
                    Ok(state.ttl)
                }
                None => Err(LeaseError::NotFound { lease }),
            };
            assert_eq!(store.keep_alive(lease), expected);
        }
        Step::Revoke(lease) => assert_eq!(store.end_lease(LeaseId(*lease)), slow.end(LeaseId(*lease))),
        Step::Expire => {
            let expiry = store.expire();
            assert_eq!((expiry.leases, expiry.keys), slow.expire());
        }
        Step::Entry(later) => {
            slow.now = slow.now.after(*later);
            store.advance_to(slow.now);
        }
    }
}

fn edit(acts: &[Act], store: &mut Store, slow: &mut Slow) {
    // Rule 3 of transactions is kept before an edit: acts that would change a key again are left out.
    let mut changed = BTreeSet::new();
    let mut kept = Vec::new();
    for act in acts {
        let keys: Vec<Bytes> = match act {
            Act::Put(key, ..) => vec![key.clone()],
            Act::Delete(range) => {
                let there = slow.newest().keys().chain(&changed).filter(|key| range.contains(key));
                there.cloned().collect()
            }
        };
        if keys.iter().all(|key| !changed.contains(key)) {
            changed.extend(keys);
            kept.push(act);
        }
    }
    let puts: Vec<_> = kept
        .iter()
        .filter_map(|act| match act {
            Act::Put(key, _, attach) => Some((key.clone(), *attach)),
            Act::Delete(_) => None,
        })
        .collect();
    let allowed = slow.check_attach(&puts);
    assert_eq!(store.check_attach(puts.iter().map(|(key, attach)| (&key[..], *attach))), allowed);
    if allowed.is_err() {
        return;
    }
    let mut state = slow.newest().clone();
    let before = state.clone();
    let mut edit: Edit<'_> = store.edit();
    for act in kept {
        match act {
            Act::Put(key, value, attach) => {
                let lease = edit.put(key, value, *attach);
                assert_eq!(edit.replaced().as_ref(), before.get(key));
                assert_eq!(lease, slow.put(&mut state, key, value, *attach));
                assert_eq!(edit.get(key).as_ref(), state.get(key), "seen by the next one");
            }
            Act::Delete(range) => {
                let gone: Vec<_> = state.keys().filter(|key| range.contains(key)).cloned().collect();
                assert_eq!(edit.delete_range(range), gone.len() as u64);
                for key in gone {
                    let removed = state.remove(&key).expect("just seen");
                    slow.left(removed.lease);
                }
            }
        }
    }
    if state != *slow.newest() {
        slow.states.push(state);
    }
    assert_eq!(edit.finish(), slow.revision());
}

/// Everything that can be read, at every revision.
fn compare(store: &Store, slow: &Slow, queries: &[(RangeQuery, PageLimits)]) {
    let current = slow.revision();
    assert_eq!(store.revision(), current);
    assert_eq!(store.len(), slow.newest().len());
    let bytes: usize = slow.newest().values().map(|kv| kv.key.len() + kv.value.len()).sum();
    assert_eq!(store.bytes(), bytes as u64);
    assert_eq!(store.leases(), slow.leases.len());
    for (&lease, state) in &slow.leases {
        let keys = slow.keys_of(lease);
        let left = Duration::from_millis(state.ends.0.saturating_sub(slow.now.0));
        let status = LeaseStatus { lease, ttl: state.ttl, left, keys: keys.len() };
        assert_eq!(store.lease(lease), Some(status));
        assert_eq!(store.lease_keys(lease, None, usize::MAX), Some(keys));
    }
    let oldest = store.oldest();
    assert!((slow.compacted..=current).contains(&oldest));
    let keys: BTreeSet<_> = slow.states.iter().flat_map(State::keys).cloned().collect();
    for at in 0..current.0 + 3 {
        let requested = Revision(at);
        let refused = if requested < oldest {
            Some(RevisionError::Compacted { requested, oldest })
        } else {
            (requested > current).then_some(RevisionError::Future { requested, current })
        };
        for key in &keys {
            let expected = refused.map_or_else(|| Ok(slow.at(requested).get(key).cloned()), Err);
            assert_eq!(store.get_at(key, requested), expected, "{key:?}");
        }
        for (query, limits) in queries {
            let mut query = query.clone().at(requested);
            if let Some(error) = refused {
                assert_eq!(store.range(&query), Err(error));
                continue;
            }
            assert_eq!(store.range(&query), Ok(slow.page(&query, requested, PageLimits::READ)));
            let mut pages = 0;
            loop {
                let page = store.page(&query, requested, *limits);
                assert_eq!(page, slow.page(&query, requested, *limits));
                let Some(next) = page.next else { break };
                pages += 1;
                assert!(pages <= keys.len(), "every page goes on");
                query = next;
            }
        }
        let refused = refused.filter(|_| requested != current.next());
        let told = store
            .changes_from(requested)
            .map(|changes| changes.map(|change| (change.revision(), change.event(true))).collect::<Vec<_>>());
        let happened = || {
            let revisions = (at..=current.0).map(Revision);
            revisions
                .flat_map(|revision| slow.events(revision).into_iter().map(move |event| (revision, event)))
        };
        assert_eq!(told, refused.map_or_else(|| Ok(happened().collect()), Err));
        for key in &keys {
            for limit in [1, 2, usize::MAX] {
                let expected = || happened().filter(|(_, event)| event.key() == key).take(limit).collect();
                let expected = refused.map_or_else(|| Ok(expected()), Err);
                assert_eq!(store.history(key, requested, limit), expected, "{key:?}");
            }
        }
    }
}

fn a_range() -> impl Strategy<Value = KeyRange> {
    prop_oneof![
        1 => Just(KeyRange::all()),
        3 => a_key().prop_map(KeyRange::key),
        2 => a_key().prop_map(KeyRange::prefix),
        1 => a_key().prop_map(KeyRange::starting_at),
        2 => (a_key(), a_key()).prop_filter_map("a range is not empty", |(a, b)| {
            KeyRange::between(a.clone().min(b.clone()), a.max(b)).ok()
        }),
    ]
}

fn a_ttl() -> impl Strategy<Value = Duration> {
    (100_u64..400).prop_map(Duration::from_millis)
}

fn an_act() -> impl Strategy<Value = Act> {
    let attach = prop_oneof![
        3 => Just(Attach::Nothing),
        1 => Just(Attach::Keep),
        2 => (1_u64..6).prop_map(|lease| Attach::Lease(LeaseId(lease))),
        1 => a_ttl().prop_map(Attach::Ttl),
    ];
    prop_oneof![
        3 => (a_key(), a_value(), attach).prop_map(|(key, value, attach)| Act::Put(key, value, attach)),
        1 => a_range().prop_map(Act::Delete),
    ]
}

fn a_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => prop::collection::vec(an_act(), 1..2).prop_map(Step::Edit),
        4 => prop::collection::vec(an_act(), 1..6).prop_map(Step::Edit),
        1 => (0_u64..40).prop_map(Step::Compact),
        1 => (prop::option::of(1_u64..6), a_ttl()).prop_map(|(lease, ttl)| Step::Grant(lease, ttl)),
        1 => (1_u64..6).prop_map(Step::KeepAlive),
        1 => (1_u64..6).prop_map(Step::Revoke),
        1 => Just(Step::Expire),
        2 => (0_u64..200).prop_map(|ms| Step::Entry(Duration::from_millis(ms))),
    ]
}

fn a_query() -> impl Strategy<Value = (RangeQuery, PageLimits)> {
    let limit = prop_oneof![Just(0), Just(usize::MAX), 1_usize..4];
    let order = prop::sample::select(vec![Order::Ascending, Order::Descending]);
    let select = prop::sample::select(vec![Select::Whole, Select::KeysOnly, Select::CountOnly]);
    let limits =
        [1_usize..4, 1..4, 1..8].prop_map(|[keys, counted, bytes]| PageLimits { keys, counted, bytes });
    (a_range(), limit, order, select, prop::option::of(a_key()), limits).prop_map(
        |(range, limit, order, select, after, limits)| {
            (RangeQuery { range, limit, order, select, revision: None, after }, limits)
        },
    )
}

fn a_retention() -> impl Strategy<Value = Retention> {
    let bounded = (0_usize..8, 0_u64..2_000, prop::option::of(a_ttl()));
    bounded.prop_map(|(changes, bytes, age)| Retention { changes, bytes, age })
}

const ALL: Retention = Retention { changes: usize::MAX, bytes: u64::MAX, age: None };

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]

    #[test]
    fn the_past_is_as_it_was(
        steps in prop::collection::vec(a_step(), 1..40),
        queries in prop::collection::vec(a_query(), 1..4),
    ) {
        let mut store = Store::with_lease_limits(LIMITS).with_retention(ALL);
        let mut slow = Slow::new();
        for step in &steps {
            take(step, &mut store, &mut slow);
            store.leases.check();
            store.history.check(&store);
            prop_assert_eq!(store.oldest(), slow.compacted, "nothing else makes it forget");
        }
        compare(&store, &slow, &queries);
    }

    /// What a node keeps is its own business: the answers of commands and the digest do not depend on it.
    #[test]
    fn what_is_kept_can_be_read_and_does_not_matter_to_commands(
        steps in prop::collection::vec(a_step(), 1..40),
        queries in prop::collection::vec(a_query(), 1..3),
        retention in a_retention(),
    ) {
        let mut keeps_all = Store::with_lease_limits(LIMITS).with_retention(ALL);
        let mut store = Store::with_lease_limits(LIMITS).with_retention(retention);
        let (mut slow, mut other) = (Slow::new(), Slow::new());
        for step in &steps {
            take(step, &mut store, &mut slow);
            take(step, &mut keeps_all, &mut other);
            prop_assert_eq!(store.digest(), keeps_all.digest());
            store.history.check(&store);
            let entry = Step::Entry(Duration::ZERO);
            take(&entry, &mut store, &mut slow);
            let newest = slow.events(slow.revision()).len();
            prop_assert!(store.history_len() <= retention.changes.max(newest));
        }
        compare(&store, &slow, &queries);
    }
}

fn put(store: &mut Store, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Revision {
    let mut edit = store.edit();
    edit.put(key.as_ref(), value.as_ref(), Attach::Nothing);
    edit.finish()
}

fn numbered(count: u32) -> Store {
    let mut store = Store::new();
    for number in 0..count {
        put(&mut store, format!("{number:06}"), b"value");
    }
    store
}

#[test]
fn pages_are_bounded_whatever_is_asked() {
    let mut store = numbered(10_001);
    let all = RangeQuery::new(KeyRange::all());
    let first = store.range(&all).expect("the newest can be read");
    assert_eq!((first.items.len(), first.count), (PAGE_KEYS, PAGE_KEYS as u64));
    assert_eq!(store.scan_prefix(b"", usize::MAX).items.len(), PAGE_KEYS);
    assert!(store.scan_prefix(b"", usize::MAX).more);
    assert_eq!(store.range(&all.clone().count_only()).expect("now").count, 10_001);

    put(&mut store, "000000", vec![0; PAGE_BYTES - 6]);
    put(&mut store, "000001", vec![0; PAGE_BYTES - 7]);
    assert_eq!(store.range(&all).expect("now").items.len(), 1);
    assert_eq!(store.scan_prefix(b"", usize::MAX).items.len(), 1);
    assert_eq!(store.range(&all.clone().after("000000")).expect("now").items.len(), 2);
    assert_eq!(
        store.range(&all.keys_only()).expect("now").items.len(),
        PAGE_KEYS,
        "what is not told costs nothing"
    );

    let next = store.range(&first.next.expect("there is more")).expect("kept");
    assert_eq!((next.count, next.revision), (1, first.revision), "pages of one answer are of one state");
    assert_eq!(next.next, None);
    for _ in 0..3 {
        put(&mut store, "000001", vec![0; PAGE_BYTES / 2]);
    }
    assert_eq!(
        store.history(b"000001", Revision(2), usize::MAX).expect("kept").len(),
        2,
        "ended by its bytes"
    );
}

#[test]
fn a_large_deletion_is_one_revision_and_is_let_go_of_by_and_by() {
    let retention = Retention { changes: 100, ..Retention::DEFAULT };
    let mut store = numbered(20_000).with_retention(retention);
    let mut edit = store.edit();
    assert_eq!(edit.delete_range(&KeyRange::all()), 20_000);
    let deleted = edit.finish();
    assert_eq!(deleted, Revision(20_002));
    assert!(store.is_empty() && store.bytes() == 0);
    assert_eq!(store.changes_from(deleted).expect("the newest is kept").count(), 20_000);
    let held = store.history_bytes();
    assert!(held > 20_000 * 11);

    put(&mut store, "a", "b");
    for entry in 0..20 {
        let before = store.history_len();
        store.advance_to(LogTime(entry));
        assert!(before - store.history_len() <= 1 << 10, "an entry is not held up by it");
    }
    assert!(store.history_len() <= 100 && store.history_bytes() < held / 100);
    assert_eq!(store.get_at(b"000000", deleted.next()), Ok(None));
}

#[test]
fn events_of_one_revision_are_told_in_the_order_of_keys() {
    let mut store = Store::new();
    put(&mut store, "b", "old");
    let mut edit = store.edit();
    for key in ["d", "a", "c"] {
        edit.put(key.as_bytes(), b"new", Attach::Nothing);
    }
    edit.delete(b"b");
    let revision = edit.finish();
    store.history.check(&store);
    let told: Vec<_> =
        store.changes_from(revision).expect("kept").map(|change| change.key().to_vec()).collect();
    assert_eq!(told, [b"a", b"b", b"c", b"d"]);
    put(&mut store, "a", "newer");
    assert_eq!(&store.get_at(b"a", revision).expect("kept").expect("put").value[..], b"new");
    assert_eq!(store.get_at(b"b", revision), Ok(None));
}

#[test]
fn what_is_older_than_the_age_is_forgotten_and_what_is_not_is_kept() {
    let age = Duration::from_secs(64);
    let mut store = Store::new().with_retention(Retention { age: Some(age), ..Retention::DEFAULT });
    for second in 0..200_u64 {
        store.advance_to(LogTime(1_000 * second));
        put(&mut store, "key", "value");
        // The change of a second has revision `second + 2`.
        let oldest = store.oldest().0;
        let exact = (second + 2).saturating_sub(64).max(1);
        assert!(oldest <= exact + 1 && oldest + 2 >= exact, "{oldest} {exact}");
    }
    store.advance_to(LogTime(10_000_000));
    store.advance_to(LogTime(20_000_000));
    assert_eq!(store.oldest(), store.revision(), "the newest state is never forgotten");
    assert_eq!(store.history_len(), 1);
}

#[test]
fn keys_that_were_compacted_away_leave_nothing_behind() {
    let mut store = numbered(1_000);
    let mut edit = store.edit();
    edit.delete_range(&KeyRange::all());
    edit.finish();
    let current = put(&mut store, "last", "");
    let before = store.digest();
    assert_eq!(store.compact(current), Ok(current));
    assert_ne!(store.digest(), before, "the next compaction's answer depends on it");
    assert_eq!(
        store.range(&RangeQuery::new(KeyRange::all()).at(Revision(500))),
        Err(RevisionError::Compacted { requested: Revision(500), oldest: current })
    );
    for entry in 0..4 {
        store.advance_to(LogTime(entry));
    }
    assert_eq!(store.history_len(), 1);
    store.history.check(&store);
}
