//! O8, the nine guarantees of a watch, each by name:
//!
//! | guarantee | a violation is |
//! |---|---|
//! | ordered | a batch below one that was told before, or keys out of order in a batch |
//! | unique | a revision told twice |
//! | atomic | a part of what a revision changed |
//! | reliable | a revision left out, or told to nobody until the end |
//! | resumable | a watch that goes on with a gap, or an end that names the wrong place to go on from |
//! | bookmarkable | a progress mark before something that was not told, or a revision that is not decided |
//! | previous value | another one than was there before the revision |
//! | is-create | a put that says wrongly whether the key was there |
//! | filter | something that was not asked for |
//!
//! What is owed is taken from the replay of the ledger, which keeps every revision. A watcher is followed over all its
//! watches, at whatever nodes they were.

use super::model::{Item, Model, Span};
use super::past::{keeps, span};
use super::{Outcome, violated};
use crate::kv::{Event, Events, Filter, WatchError, WatchItem};
use crate::sim::observation::{Begin, WatcherId, Wish};
use bytes::Bytes;
use std::collections::BTreeMap;

pub(super) const NAME: &str = "watch";

#[derive(Debug)]
struct Watching {
    wish: Wish,
    span: Span,
    /// Everything before this revision was told, or is not owed.
    next: u64,
    /// The last revision with a batch.
    told: u64,
}

/// What a revision changed for somebody.
struct Change {
    key: Bytes,
    after: Option<Item>,
    before: Option<Item>,
}

impl Watching {
    fn owed(&self, model: &Model, revision: u64) -> Vec<Change> {
        let keys = model.changed(revision).into_iter().filter(|key| self.span.has(key));
        let changes = keys.map(|key| Change {
            after: model.at(&key, revision),
            before: model.at(&key, revision - 1),
            key,
        });
        changes.filter(|change| self.admits(change.after.is_some())).collect()
    }

    fn admits(&self, put: bool) -> bool {
        match self.wish.filter {
            None => true,
            Some(Filter::Puts) => put,
            Some(Filter::Deletes) => !put,
        }
    }

    /// The first revision in this range that something is owed of.
    fn missing(&self, model: &Model, range: std::ops::Range<u64>) -> Option<u64> {
        range.into_iter().find(|&revision| !self.owed(model, revision).is_empty())
    }
}

/// What was judged.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Heard {
    pub(super) batches: u64,
    pub(super) events: u64,
    pub(super) several: u64,
    pub(super) marks: u64,
    pub(super) compacted: u64,
    pub(super) resumed: u64,
    pub(super) creations: u64,
    pub(super) deletions: u64,
    pub(super) previous: u64,
}

/// All watchers.
#[derive(Debug, Default)]
pub(super) struct Watches {
    watching: BTreeMap<WatcherId, Watching>,
    pub(super) heard: Heard,
}

impl Watches {
    /// A watch begins.
    pub(super) fn begin(
        &mut self,
        model: &Model,
        (watcher, wish): (WatcherId, Wish),
        from: u64,
        begin: Begin,
    ) -> Outcome {
        if begin == Begin::Resumed
            && let Some(former) = self.watching.get_mut(&watcher)
        {
            self.heard.resumed += 1;
            violated!(from <= former.told, NAME, "resumable: {watcher:?} goes on from {from}: {former:?}");
            let missing = former.missing(model, former.next..from.min(model.revision() + 1));
            violated!(
                missing.is_some(),
                NAME,
                "resumable: {watcher:?} goes on from {from}, without {missing:?}"
            );
            former.next = former.next.max(from);
            return Ok(());
        }
        let span = span(wish.keys);
        self.watching.insert(watcher, Watching { wish, span, next: from, told: from.saturating_sub(1) });
        Ok(())
    }

    /// A watch tells something.
    pub(super) fn hear(&mut self, model: &Model, watcher: WatcherId, item: &WatchItem) -> Outcome {
        let watching = self.watching.get_mut(&watcher).expect("a watch has begun");
        match item {
            WatchItem::Events(events) => {
                batch(model, watcher, watching, events)?;
                let heard = &mut self.heard;
                heard.batches += 1;
                heard.events += events.events.len() as u64;
                heard.several += u64::from(events.events.len() > 1);
                for event in events.events.iter() {
                    heard.creations += u64::from(event.is_create());
                    let (deletion, previous) = match event {
                        Event::Put { previous, .. } => (false, previous),
                        Event::Delete { previous, .. } => (true, previous),
                    };
                    heard.deletions += u64::from(deletion);
                    heard.previous += u64::from(previous.is_some());
                }
            }
            WatchItem::Progress(mark) => {
                let mark = mark.0;
                self.heard.marks += 1;
                violated!(
                    mark > model.revision() && mark >= watching.next,
                    NAME,
                    "bookmarkable: {watcher:?} is told that {mark} is told, decided is {}",
                    model.revision()
                );
                let missing = watching.missing(model, watching.next..mark.saturating_add(1));
                violated!(
                    missing.is_some(),
                    NAME,
                    "bookmarkable: {watcher:?} is told that {mark} is told, and {missing:?} was not"
                );
                watching.next = watching.next.max(mark + 1);
            }
        }
        Ok(())
    }

    /// A watch ends at a node whose store is at `revision`.
    pub(super) fn end(
        &mut self,
        model: &Model,
        changes: Option<usize>,
        (watcher, why, revision): (WatcherId, &WatchError, u64),
    ) -> Outcome {
        let WatchError::Compacted { next, oldest } = *why else { return Ok(()) };
        let watching = &self.watching[&watcher];
        self.heard.compacted += 1;
        violated!(
            next >= oldest,
            NAME,
            "resumable: {watcher:?} ends at {next} by a compaction to {oldest}: nothing was lost"
        );
        violated!(next.0 <= watching.told, NAME, "resumable: {watcher:?} ends at {next}: {watching:?}");
        let missing = watching.missing(model, watching.next..next.0.min(model.revision() + 1));
        violated!(missing.is_some(), NAME, "resumable: {watcher:?} ends at {next}, {missing:?} was not told");
        keeps(model, changes, (oldest.0, revision))
    }

    /// Nothing more comes: what is owed to these has been told.
    pub(super) fn finish(&self, model: &Model, open: &[WatcherId]) -> Outcome {
        for watcher in open {
            let watching = &self.watching[watcher];
            let missing = watching.missing(model, watching.next..model.revision() + 1);
            violated!(
                missing.is_some(),
                NAME,
                "reliable: {watcher:?} was never told of {missing:?}: {watching:?}"
            );
        }
        Ok(())
    }
}

fn batch(model: &Model, watcher: WatcherId, watching: &mut Watching, batch: &Events) -> Outcome {
    let Events { revision, events } = batch;
    let revision = revision.0;
    violated!(
        revision > model.revision(),
        NAME,
        "bookmarkable: {watcher:?} is told of {revision}, decided is {}",
        model.revision()
    );
    violated!(revision == watching.told, NAME, "unique: {watcher:?} is told of {revision} again");
    violated!(
        revision < watching.told,
        NAME,
        "ordered: {watcher:?} is told of {revision} after {}",
        watching.told
    );
    violated!(revision < watching.next, NAME, "unique: {watcher:?} is told of {revision}: {watching:?}");
    let missing = watching.missing(model, watching.next..revision);
    violated!(
        missing.is_some(),
        NAME,
        "reliable: {watcher:?} is told of {revision} and never of {missing:?}"
    );
    violated!(
        !events.is_sorted_by(|a, b| a.key() < b.key()),
        NAME,
        "ordered: {watcher:?} is told of {revision} out of order: {events:?}"
    );
    for event in events.iter() {
        let wanted = watching.span.has(event.key()) && watching.admits(matches!(event, Event::Put { .. }));
        violated!(!wanted, NAME, "filter: {watcher:?} does not want {event:?}");
    }
    let owed = watching.owed(model, revision);
    violated!(
        events.len() < owed.len(),
        NAME,
        "atomic: {watcher:?} is told {} of {} changes of {revision}: {events:?}",
        events.len(),
        owed.len()
    );
    let same = events.iter().map(Event::key).eq(owed.iter().map(|change| &change.key));
    violated!(!same, NAME, "atomic: {watcher:?} is told of {revision} what did not happen: {events:?}");
    for (event, change) in events.iter().zip(&owed) {
        one(watcher, watching.wish, (revision, event), change)?;
    }
    (watching.told, watching.next) = (revision, revision + 1);
    Ok(())
}

fn one(watcher: WatcherId, wish: Wish, (revision, event): (u64, &Event), change: &Change) -> Outcome {
    let (new, previous) = match event {
        Event::Put { new, previous } => (Some(Item::of(new)), previous),
        Event::Delete { previous, .. } => (None, previous),
    };
    violated!(
        new != change.after,
        NAME,
        "atomic: {watcher:?} is told of {new:?} at {revision}, the ledger has {:?}",
        change.after
    );
    violated!(
        event.is_create() != (change.after.is_some() && change.before.is_none()),
        NAME,
        "is-create: {watcher:?} is told {event:?} at {revision}, before was {:?}",
        change.before
    );
    let previous = previous.as_ref().map(Item::of);
    let before = change.before.as_ref().filter(|_| wish.previous);
    violated!(
        previous.as_ref() != before,
        NAME,
        "previous value: {watcher:?} is told {previous:?} at {revision}, before was {:?}",
        change.before
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::model::tests::{frame, put};
    use super::*;
    use crate::kv::{KeyValue, Revision};
    use crate::sim::client::key_bytes;
    use crate::sim::observation::Keys;
    use std::sync::Arc;

    const ME: WatcherId = WatcherId(1);
    const WISH: Wish = Wish { keys: Keys { from: 0, until: None }, filter: None, previous: true };

    fn value(key: u64, value: u64, (created, modified, version): (u64, u64, u64)) -> KeyValue {
        KeyValue {
            key: Bytes::copy_from_slice(&key_bytes(key)),
            value: Bytes::copy_from_slice(&value.to_le_bytes()),
            create_revision: Revision(created),
            modify_revision: Revision(modified),
            version,
            lease: None,
        }
    }

    fn told(revision: u64, events: Vec<Event>) -> WatchItem {
        WatchItem::Events(Events { revision: Revision(revision), events: Arc::from(events) })
    }

    /// Key 1 is put at 2 and 3, key 2 at 4.
    fn story() -> (Model, [WatchItem; 3]) {
        let mut model = Model::default();
        model.apply(&frame(0, &[put(1, 7), put(1, 8), put(2, 9)]), |_| ());
        let first = value(1, 7, (2, 2, 1));
        let items = [
            told(2, vec![Event::Put { new: first.clone(), previous: None }]),
            told(3, vec![Event::Put { new: value(1, 8, (2, 3, 2)), previous: Some(first) }]),
            told(4, vec![Event::Put { new: value(2, 9, (4, 4, 1)), previous: None }]),
        ];
        (model, items)
    }

    fn watches(model: &Model, wish: Wish) -> Watches {
        let mut watches = Watches::default();
        watches.begin(model, (ME, wish), 2, Begin::New).expect("new");
        watches
    }

    /// Which guarantee is broken by telling these.
    fn broken(model: &Model, wish: Wish, items: &[&WatchItem]) -> String {
        let mut watches = watches(model, wish);
        let heard = items.iter().try_for_each(|item| watches.hear(model, ME, item));
        let ended = heard.and_then(|()| watches.finish(model, &[ME]));
        ended
            .err()
            .map_or(String::new(), |violation| violation.what.split(':').next().unwrap_or("").to_owned())
    }

    #[test]
    fn each_guarantee_is_judged_by_name() {
        let (model, [first, second, third]) = story();
        let mark = |at| WatchItem::Progress(Revision(at));
        assert_eq!(broken(&model, WISH, &[&first, &second, &mark(3), &third, &mark(4)]), "");
        assert_eq!(broken(&model, WISH, &[&first, &second, &first]), "ordered");
        assert_eq!(broken(&model, WISH, &[&first, &first]), "unique");
        assert_eq!(broken(&model, WISH, &[&first, &third]), "reliable");
        assert_eq!(broken(&model, WISH, &[&first, &second]), "reliable");
        assert_eq!(broken(&model, WISH, &[&first, &mark(3)]), "bookmarkable");
        assert_eq!(broken(&model, WISH, &[&first, &second, &third, &mark(5)]), "bookmarkable");
        assert_eq!(broken(&model, WISH, &[&told(2, vec![])]), "atomic");
        assert_eq!(broken(&model, Wish { previous: false, ..WISH }, &[&first, &second]), "previous value");
        let only = Wish { filter: Some(Filter::Deletes), ..WISH };
        assert_eq!(broken(&model, only, &[]), "");
        assert_eq!(broken(&model, only, &[&first]), "filter");
        let other = Wish { keys: Keys { from: 2, until: Some(3) }, ..WISH };
        assert_eq!(broken(&model, other, &[&third]), "");
        assert_eq!(broken(&model, other, &[&second]), "filter");
        let forged = told(2, vec![Event::Put { new: value(1, 7, (2, 2, 2)), previous: None }]);
        assert_eq!(broken(&model, WISH, &[&forged]), "atomic");
    }

    #[test]
    fn a_watch_goes_on_where_it_was_and_ends_where_it_says() {
        let (model, [first, second, third]) = story();
        let mut watches = watches(&model, WISH);
        watches.hear(&model, ME, &first).expect("the first");
        watches.begin(&model, (ME, WISH), 3, Begin::Resumed).expect("nothing is missing");
        watches.hear(&model, ME, &second).expect("the second");
        assert!(watches.begin(&model, (ME, WISH), 3, Begin::Resumed).is_err(), "a repeat");
        assert!(watches.begin(&model, (ME, WISH), 5, Begin::Resumed).is_err(), "a gap");
        let ends = |next, oldest| WatchError::Compacted { next: Revision(next), oldest: Revision(oldest) };
        watches.end(&model, None, (ME, &ends(4, 5), 5)).expect("4 comes next");
        assert!(watches.end(&model, None, (ME, &ends(4, 4), 4)).is_err(), "nothing was lost");
        assert!(watches.end(&model, None, (ME, &ends(3, 5), 5)).is_err(), "3 was told");
        assert!(watches.end(&model, None, (ME, &ends(5, 6), 6)).is_err(), "4 was not told");
        assert!(watches.end(&model, Some(9), (ME, &ends(4, 5), 5)).is_err(), "there was room");
        watches.hear(&model, ME, &third).expect("it goes on");
    }
}
