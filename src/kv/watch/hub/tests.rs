//! The hub against a slow obvious version: the list of everything that ever changed, filtered anew for each question.

use super::*;
use crate::kv::event::{Event, Events};
use crate::kv::history::Retention;
use crate::kv::range::KeyRange;
use crate::kv::watch::batch::weight;
use crate::kv::{Attach, Filter, KeyValue, LogTime};
use proptest::prelude::*;

/// One key's change: what it was, what it is.
type Changed = (Vec<u8>, Option<KeyValue>, Option<KeyValue>);

/// A store, its hub, and what the hub should say.
struct World {
    store: Store,
    hub: Hub,
    log: Vec<(Revision, Vec<Changed>)>,
    watches: Vec<Plain>,
    whole: bool,
    limit: usize,
    ended: usize,
}

/// A watch as its reader sees it.
struct Plain {
    id: WatchId,
    query: WatchQuery,
    /// The first revision that was not told.
    next: Revision,
}

#[derive(Clone, Debug)]
enum Step {
    /// All at one revision; `None` deletes.
    Change(BTreeMap<Vec<u8>, Option<u8>>),
    DeleteRange(KeyRange),
    /// To so many revisions before the newest.
    Compact(u64),
    /// From so many revisions after (or before) the next one; from now.
    Open(KeyRange, Option<Filter>, [bool; 2], Option<i64>),
    Close(usize),
    Pass,
    Read(usize, usize),
}

fn keys() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(b'a'..b'd', 1..3)
}

fn ranges() -> impl Strategy<Value = KeyRange> {
    prop_oneof![
        keys().prop_map(KeyRange::key),
        keys().prop_map(KeyRange::prefix),
        keys().prop_map(KeyRange::starting_at),
        Just(KeyRange::all()),
    ]
}

fn steps() -> impl Strategy<Value = Step> {
    let filter = prop_oneof![Just(None), Just(Some(Filter::Puts)), Just(Some(Filter::Deletes))];
    let from = prop::option::of(-20_i64..4);
    prop_oneof![
        8 => (keys(), any::<u8>()).prop_map(|(key, value)| Step::Change([(key, Some(value))].into())),
        3 => keys().prop_map(|key| Step::Change([(key, None)].into())),
        3 => prop::collection::btree_map(keys(), any::<Option<u8>>(), 0..4).prop_map(Step::Change),
        1 => ranges().prop_map(Step::DeleteRange),
        1 => (0_u64..10).prop_map(Step::Compact),
        3 => (ranges(), filter, any::<[bool; 2]>(), from).prop_map(|(a, b, c, d)| Step::Open(a, b, c, d)),
        1 => (0_usize..8).prop_map(Step::Close),
        6 => Just(Step::Pass),
        6 => (0_usize..8, 1_usize..4).prop_map(|(watch, items)| Step::Read(watch, items)),
    ]
}

fn world(watchers: usize, recent_bytes: usize, changes: usize) -> World {
    let retention = Retention { changes, ..Retention::DEFAULT };
    World {
        store: Store::new().with_retention(retention),
        hub: Hub::new(WatchLimits { watchers, recent_bytes }),
        log: Vec::new(),
        watches: Vec::new(),
        whole: true,
        limit: watchers,
        ended: 0,
    }
}

impl World {
    fn step(&mut self, step: Step) {
        match step {
            Step::Change(changes) => self.change(&changes),
            Step::DeleteRange(range) => {
                let keys = self.store.scan_prefix(b"", 100).items.into_iter().map(|found| found.key);
                let keys = keys.filter(|key| range.contains(key)).map(|key| (key.to_vec(), None));
                self.change(&keys.collect());
            }
            Step::Compact(back) => {
                let current = self.store.revision();
                let _ = self.store.history.compact(Revision(current.0.saturating_sub(back)), current);
                self.store.advance_to(LogTime(0));
            }
            Step::Open(range, filter, [previous, progress], from) => {
                let mut query = WatchQuery::new(range);
                query.form = super::super::query::Form { filter, previous };
                query.progress = progress;
                query.from =
                    from.map(|from| Revision(self.store.revision().next().0.saturating_add_signed(from)));
                self.open(query);
            }
            Step::Close(at) if at < self.watches.len() => {
                let watch = self.watches.swap_remove(at);
                self.hub.close(watch.id);
                assert_eq!(self.hub.revision(watch.id), None);
            }
            Step::Pass => self.whole = !self.hub.pass(&self.store),
            Step::Read(at, items) if at < self.watches.len() => _ = (0..items).all(|_| self.read(at)),
            Step::Close(_) | Step::Read(..) => {}
        }
        assert_eq!(self.hub.len(), self.watches.len());
        for watch in &self.watches {
            let revision = self.hub.revision(watch.id).expect("it is open");
            assert_eq!(
                self.missed(watch, revision),
                None,
                "a revision to resume from is behind everything untold"
            );
            assert!(revision.next() >= watch.next, "and not before what was told");
        }
    }

    fn change(&mut self, changes: &BTreeMap<Vec<u8>, Option<u8>>) {
        self.store.advance_to(LogTime(0));
        let before: Vec<_> = changes.keys().map(|key| self.store.get(key)).collect();
        let mut edit = self.store.edit();
        for (key, value) in changes {
            match value {
                Some(value) => _ = edit.put(key, &[*value], Attach::Nothing),
                None => _ = edit.delete(key),
            }
        }
        let revision = edit.finish();
        let changed =
            changes.keys().zip(before).map(|(key, before)| (key.clone(), before, self.store.get(key)));
        let changed: Vec<_> =
            changed.filter(|(_, before, after)| before.is_some() || after.is_some()).collect();
        if !changed.is_empty() {
            self.log.push((revision, changed));
            self.whole = false;
        }
    }

    fn open(&mut self, query: WatchQuery) {
        let next = query.from.unwrap_or(self.store.revision().next());
        let oldest = self.store.oldest();
        match self.hub.open(&query, &self.store) {
            Ok(id) => {
                assert!(next >= oldest && self.watches.len() < self.limit);
                self.watches.push(Plain { id, query, next });
            }
            Err(WatchError::TooMany { limit }) => {
                assert_eq!((limit, self.watches.len()), (self.limit, limit))
            }
            Err(error) => {
                assert!(next < oldest);
                assert_eq!(error, WatchError::Compacted { next, oldest });
            }
        }
    }

    /// What a watch should be told next of everything up to `until`.
    fn missed(&self, watch: &Plain, until: Revision) -> Option<Events> {
        let WatchQuery { range, form, .. } = &watch.query;
        let event = |(key, before, after): &Changed| {
            let previous = before.clone().filter(|_| form.previous);
            let told = match (form.filter, after) {
                (Some(Filter::Puts), None) | (Some(Filter::Deletes), Some(_)) => return None,
                (_, Some(new)) => Event::Put { new: new.clone(), previous },
                (_, None) => Event::Delete { key: key.clone().into(), previous },
            };
            range.contains(key).then_some(told)
        };
        let log = self.log.iter().filter(|(revision, _)| *revision >= watch.next && *revision <= until);
        log.map(|(revision, changed)| (*revision, changed.iter().filter_map(event).collect::<Vec<_>>()))
            .find(|(_, events)| !events.is_empty())
            .map(|(revision, events)| Events { revision, events: events.into() })
    }

    /// Reads one item of a watch and judges it. `false` if there was none.
    fn read(&mut self, at: usize) -> bool {
        let newest = self.store.revision();
        let item = self.hub.next(self.watches[at].id, &self.store);
        let watch = &self.watches[at];
        match item {
            Some(Ok(WatchItem::Events(events))) => {
                for (event, changed) in events.events.iter().zip(self.changed(&events, watch)) {
                    assert_eq!(event.is_create(), changed.1.is_none() && changed.2.is_some());
                }
                assert_eq!(Some(&events), self.missed(watch, newest).as_ref());
                self.watches[at].next = events.revision.next();
                true
            }
            Some(Ok(WatchItem::Progress(revision))) => {
                assert!(watch.query.progress && revision >= watch.next && revision <= newest);
                assert_eq!(self.missed(watch, revision), None, "a mark passes nothing");
                self.watches[at].next = revision.next();
                true
            }
            Some(Err(WatchError::Compacted { next, oldest })) => {
                assert_eq!(oldest, self.store.oldest());
                assert!(watch.next <= next && next < oldest, "it could have gone on");
                assert_eq!(self.missed(watch, Revision(next.0 - 1)), None);
                self.watches.swap_remove(at);
                self.ended += 1;
                false
            }
            Some(Err(error)) => panic!("{error}"),
            None => {
                if self.whole {
                    assert_eq!(self.missed(watch, newest), None, "and the watch knows nothing of it");
                    assert!(!watch.query.progress || watch.next > newest, "a mark is due");
                }
                false
            }
        }
    }

    fn changed(&self, events: &Events, watch: &Plain) -> Vec<&Changed> {
        let log = self.log.iter().find(|(revision, _)| *revision == events.revision);
        let changed = log.expect("a revision that changed something").1.iter();
        let wanted = |key: &[u8]| events.events.iter().any(|event| event.key() == key);
        changed.filter(|(key, ..)| watch.query.range.contains(key) && wanted(key)).collect()
    }

    fn read_all(&mut self) {
        while self.hub.pass(&self.store) {}
        self.whole = true;
        for at in (0..self.watches.len()).rev() {
            while self.read(at) {}
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn every_watch_is_told_what_the_log_says(
        script in prop::collection::vec(steps(), 1..150),
        recent_bytes in prop_oneof![Just(0_usize), Just(1_000), Just(1 << 20)],
        changes in prop_oneof![Just(10_usize), Just(100_000)],
    ) {
        let mut world = world(6, recent_bytes, changes);
        for step in script {
            world.step(step);
        }
        world.read_all();
    }
}

fn put(world: &mut World, key: &str, value: u8) {
    world.step(Step::Change([(key.as_bytes().to_vec(), Some(value))].into()));
}

/// Ten thousand revisions that nobody reads cost the ring's bytes, and the watch that reads them late gets them all.
#[test]
fn a_slow_watch_costs_bounded_memory_and_loses_nothing() {
    const RECENT: usize = 4 << 10;
    let mut world = world(2, RECENT, 100_000);
    world.open(WatchQuery::new(KeyRange::prefix("a")));
    world.open(WatchQuery::new(KeyRange::key("a")).with_previous());
    for n in 0..10_000_u32 {
        world.change(&[(b"a".to_vec(), Some(n.to_le_bytes()[0]))].into());
        while world.hub.pass(&world.store) {}
        let held = |ring: &Ring| ring.after(Revision(0)).map(weight).sum::<usize>();
        let held: usize = world.hub.rings.values().map(held).sum();
        assert!(held <= RECENT, "{held} bytes");
    }
    let id = world.watches[0].id;
    for n in 0..10_000 {
        let Some(Ok(WatchItem::Events(events))) = world.hub.next(id, &world.store) else {
            panic!("ended at {n}")
        };
        assert_eq!(events.revision, Revision(n + 2));
    }
    assert_eq!(world.hub.next(id, &world.store), None);
}

/// And if the history does not last that long, it ends with where to go on, having told everything before.
#[test]
fn a_watch_behind_the_compaction_ends_with_where_to_go_on() {
    let mut world = world(1, 0, 10);
    world.open(WatchQuery::new(KeyRange::all()));
    for n in 0..5 {
        put(&mut world, "a", n);
    }
    world.hub.pass(&world.store);
    assert!(world.read(0));
    for n in 0..200 {
        put(&mut world, "a", n);
        world.hub.pass(&world.store);
    }
    while world.read(0) {}
    assert_eq!((world.ended, world.hub.len(), world.hub.rings.len()), (1, 0, 0));
}

/// A pass that comes too late itself does not leave a hole: it is as if every ring began there.
#[test]
fn changes_that_were_compacted_before_the_pass_are_not_skipped_in_silence() {
    let mut world = world(2, 1 << 20, 10);
    world.open(WatchQuery::new(KeyRange::all()));
    world.open(WatchQuery::new(KeyRange::prefix("x")));
    for n in 0..200 {
        put(&mut world, "a", n);
    }
    world.read_all();
    assert_eq!(world.ended, 2, "neither can know what it missed");
}

#[test]
fn a_future_revision_is_waited_for() {
    let mut world = world(1, 1 << 20, 100);
    world.open(WatchQuery::new(KeyRange::all()).from(Revision(4)).with_progress());
    for revision in 2..5 {
        assert!(!world.read(0), "nothing before revision 4, no mark either");
        put(&mut world, "a", 0);
        assert_eq!(world.store.revision(), Revision(revision));
        while world.hub.pass(&world.store) {}
    }
    assert!(world.read(0));
    assert_eq!(world.watches[0].next, Revision(5));
}

#[test]
fn groups_end_with_their_last_watch_and_their_places_are_used_again() {
    let mut world = world(1_000, 1 << 20, 100);
    for round in 0..3 {
        for n in 0..100_u8 {
            world.open(WatchQuery::new(KeyRange::key([n])));
            world.open(WatchQuery::new(KeyRange::key([n])));
        }
        put(&mut world, "a", round);
        world.read_all();
        assert_eq!(world.hub.rings.len(), 100);
        for watch in std::mem::take(&mut world.watches) {
            world.hub.close(watch.id);
        }
        assert!(world.hub.is_empty() && world.hub.rings.is_empty() && world.hub.matcher.is_empty());
    }
    assert!(world.hub.matcher.told() > Revision(1));
}
