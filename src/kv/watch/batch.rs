//! The changes of one revision, put together for those who watch.

use crate::kv::event::{Event, Events};
use crate::kv::{KeyValue, Revision};

/// `events` of `revision`, found in the order of keys.
pub(super) fn batch_of(revision: Revision, mut events: Vec<Event>) -> Events {
    if wal::mutant!("watch_tells_half") && events.len() > 1 {
        events.pop();
    }
    assert!(!events.is_empty(), "a batch tells something");
    assert!(events.is_sorted_by(|a, b| a.key() < b.key()), "a revision changes a key once");
    Events { revision, events: events.into() }
}

/// About how many bytes holding a batch takes. What the store holds as well is counted too: it may let go of it first.
pub(super) fn weight(batch: &Events) -> usize {
    let stored = |found: &KeyValue| found.key.len() + found.value.len();
    let event = |event: &Event| match event {
        Event::Put { new, previous } => stored(new) + previous.as_ref().map_or(0, stored),
        Event::Delete { key, previous } => key.len() + previous.as_ref().map_or(0, stored),
    };
    batch.events.iter().map(|one| size_of::<Event>() + event(one)).sum()
}
