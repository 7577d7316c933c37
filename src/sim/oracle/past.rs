//! O6 for what is read of ranges, of past states and of what happened to a key: it is what a replay of the ledger holds there,
//! page by page, and what cannot be had is refused for the right reason.
//!
//! How much history a node keeps is its own affair, but it is not nothing: it lets go of what clients compacted, or of what
//! is more than its limit.

use super::model::{Item, Model, Query, Span, page, query};
use super::{Outcome, violated};
use crate::kv::{Event, KeyRange, RangeQuery, Revision, RevisionError};
use crate::sim::client::key_bytes;
use crate::sim::observation::{Ask, CallId, Found, Keys, Range, Read};
use bytes::Bytes;

pub(super) const NAME: &str = "past";

/// The keys of a range.
pub(super) fn span(keys: Keys) -> Span {
    let bytes = |key| Bytes::copy_from_slice(&key_bytes(key));
    Span { start: bytes(keys.from), end: keys.until.map(bytes) }
}

/// A node at `current` that says its history begins at `oldest` may be right: it was compacted to there, or what it let go
/// of was more than `changes`.
pub(super) fn keeps(model: &Model, changes: Option<usize>, (oldest, current): (u64, u64)) -> Outcome {
    violated!(oldest > current, NAME, "a node at revision {current} keeps history from {oldest} on");
    let Some(changes) = changes else { return Ok(()) };
    let compacted = oldest <= model.stand().compacted;
    let full = model.changes(oldest.saturating_sub(1), current) > changes as u64;
    violated!(
        !compacted && !full,
        NAME,
        "a node at revision {current} keeps history from {oldest} on: clients compacted to {}, and there are {} changes, {changes} \
         may be kept",
        model.stand().compacted,
        model.changes(oldest.saturating_sub(1), current)
    );
    Ok(())
}

/// Compares a read with the replay; false if the replay has not come that far.
pub(super) fn judge(
    model: &Model,
    changes: Option<usize>,
    (call, ask): (CallId, Ask),
    read: &Read,
) -> Outcome<bool> {
    if model.revision() < read.revision {
        return Ok(false);
    }
    // A compaction takes no revision: it may be ahead of the replay.
    if keeps(model, changes, (read.oldest, read.revision)).is_err() {
        return Ok(false);
    }
    match (ask, &read.found) {
        (Ask::Range { range, .. }, Found::Page(told)) => {
            let at = range.at.map_or(read.revision, |revision| revision.0);
            if let Some(error) = refusal(at, read) {
                violated!(
                    *told != Err(error),
                    NAME,
                    "call {} is told {told:?}, and it should be {error}",
                    call.0
                );
                return Ok(true);
            }
            let expected = model.page(&asked(&range), at);
            let told = told.as_ref().map(page);
            violated!(
                told.as_ref() != Ok(&expected),
                NAME,
                "call {} asks for {range:?} and sees {told:?}, the ledger has {expected:?}",
                call.0
            );
        }
        (Ask::History { key, from, limit }, Found::History(told)) => {
            let key = key_bytes(key);
            if from < read.oldest {
                let compacted =
                    RevisionError::Compacted { requested: Revision(from), oldest: Revision(read.oldest) };
                violated!(*told != Err(compacted), NAME, "call {} sees {told:?} of {from}", call.0);
                return Ok(true);
            }
            if from > read.revision + 1 {
                let future =
                    RevisionError::Future { requested: Revision(from), current: Revision(read.revision) };
                violated!(*told != Err(future), NAME, "call {} sees {told:?} of {from}", call.0);
                return Ok(true);
            }
            let told = told
                .as_ref()
                .map_err(|error| super::violation(NAME, format!("call {} sees {error} of {from}", call.0)))?;
            let expected =
                (from..=read.revision).filter(|&at| model.changed(at).iter().any(|k| *k == key[..]));
            let expected: Vec<_> = expected.take(limit).map(|at| (at, happened(model, &key, at))).collect();
            let told: Vec<_> = told.iter().map(|(at, event)| (at.0, event_of(event))).collect();
            violated!(
                told != expected,
                NAME,
                "call {} sees {told:?} since {from}, the ledger has {expected:?}",
                call.0
            );
        }
        (ask, found) => violated!(true, NAME, "call {} asks {ask:?} and sees {found:?}", call.0),
    }
    Ok(true)
}

fn refusal(at: u64, read: &Read) -> Option<RevisionError> {
    let requested = Revision(at);
    if at > read.revision {
        return Some(RevisionError::Future { requested, current: Revision(read.revision) });
    }
    (at < read.oldest).then_some(RevisionError::Compacted { requested, oldest: Revision(read.oldest) })
}

fn asked(range: &Range) -> Query {
    let Range { keys, limit, order, select, after, .. } = *range;
    let Span { start, end } = span(keys);
    let among = match &end {
        Some(end) => KeyRange::between(&start, end).expect("a range has room for keys"),
        None => KeyRange::starting_at(&start),
    };
    let after = after.map(|key| Bytes::copy_from_slice(&key_bytes(key)));
    query(&RangeQuery { range: among, limit, order, select, revision: None, after })
}

/// A change of a key: what was there after it, and before.
pub(super) type Happened = (Bytes, Option<Item>, Option<Item>);

/// What happened to a key at a revision that changed it.
pub(super) fn happened(model: &Model, key: &[u8], at: u64) -> Happened {
    (Bytes::copy_from_slice(key), model.at(key, at), model.at(key, at - 1))
}

pub(super) fn event_of(event: &Event) -> Happened {
    match event {
        Event::Put { new, previous } => {
            (new.key.clone(), Some(Item::of(new)), previous.as_ref().map(Item::of))
        }
        Event::Delete { key, previous } => (key.clone(), None, previous.as_ref().map(Item::of)),
    }
}
