//! One watch: a position among the changes, and what lies ready behind it.
//!
//! A cursor that is up to date takes what its group was told out of the group's ring. One that is further behind than the
//! ring reaches reads the store's history, a bounded slice at a time, until it reaches the ring. So being slow costs no
//! memory: it costs the slow watch time, and in the end its life, when what it should read next has been compacted.

use super::batch::{batch_of, weight};
use super::query::{Form, WatchError, WatchItem, WatchQuery};
use super::ring::Ring;
use crate::kv::event::{Event, Events, RevisionError};
use crate::kv::range::KeyRange;
use crate::kv::{Revision, Store};
use std::collections::VecDeque;

/// Batches taken at once, at most: what a watch holds that is not read.
const READY: usize = if cfg!(test) { 3 } else { 32 };
/// Bytes of them, about; the last batch may exceed it.
const READY_BYTES: usize = 64 << 10;
/// Changes of the history looked at while the store is held.
const SLICE: usize = if cfg!(test) { 5 } else { 512 };

/// A watch's place.
#[derive(Debug)]
pub(crate) struct Cursor {
    range: KeyRange,
    form: Form,
    progress: bool,
    /// Everything before this revision has been looked at.
    next: Revision,
    /// Found and not handed out. Invariant: in order, before `next`, and not before what was handed out.
    ready: VecDeque<Events>,
    /// The revision of the last item handed out; at first, the one before the beginning.
    told: Revision,
}

/// What a cursor found in its group's ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// Something lies ready.
    Ready,
    /// The ring begins after what comes next: the history has it.
    Behind,
    /// There is nothing new.
    Current,
}

impl Cursor {
    /// Where `query` begins in the store as it is.
    ///
    /// # Errors
    /// [`WatchError::Compacted`] if that is no longer kept.
    pub fn new(query: &WatchQuery, store: &Store) -> Result<Self, WatchError> {
        let (range, form, progress) = (query.range.clone(), query.form, query.progress);
        let next = query.from.unwrap_or_else(|| store.revision().next());
        let oldest = store.oldest();
        if next < oldest {
            return Err(WatchError::Compacted { next, oldest });
        }
        let mut told = before(next);
        let mut next = next;
        if wal::mutant!("watch_repeats_after_resume") && before(next) >= oldest {
            (next, told) = (told, before(told));
        }
        Ok(Self { range, form, progress, next, ready: VecDeque::new(), told })
    }

    /// Everything up to here was handed out, or did not concern this watch.
    pub fn revision(&self) -> Revision {
        before(self.ready.front().map_or(self.next, |batch| batch.revision))
    }

    /// The first revision that was not told.
    pub fn next(&self) -> Revision {
        self.revision().next()
    }

    /// Takes the next item, if one lies ready.
    pub fn pop(&mut self) -> Option<WatchItem> {
        let events = self.ready.pop_front()?;
        assert!(self.told < events.revision, "revisions rise along a watch, each is told once");
        self.told = events.revision;
        Some(WatchItem::Events(events))
    }

    /// A progress mark, for a watch that wants them and was told nothing since it last got on.
    pub fn mark(&mut self) -> Option<WatchItem> {
        let mut revision = self.revision();
        if !self.progress || !self.ready.is_empty() || revision <= self.told {
            return None;
        }
        if wal::mutant!("watch_mark_ahead") {
            revision = revision.next();
        }
        self.told = revision;
        Some(WatchItem::Progress(revision))
    }

    /// Whether it has to be woken when only others were told something.
    #[cfg(feature = "server")]
    pub fn wants_marks(&self) -> bool {
        self.progress
    }

    /// Takes what its group was told. Everything up to `told` is in the ring if it is anywhere: it was read before the ring
    /// was looked at.
    pub fn look(&mut self, ring: &Ring, told: Revision) -> Look {
        let from = ring.from();
        if self.next < from && !(wal::mutant!("watch_skips_at_ring_edge") && self.next.next() == from) {
            return Look::Behind;
        }
        let mut bytes = 0;
        for batch in ring.after(self.next) {
            if self.ready.len() == READY || bytes >= READY_BYTES {
                return Look::Ready;
            }
            bytes += weight(batch);
            self.next = batch.revision.next();
            self.ready.push_back(batch.clone());
        }
        self.next = self.next.max(told.next());
        self.state()
    }

    /// Reads on in the store's history: a slice of it, in whole revisions.
    ///
    /// # Errors
    /// [`WatchError::Compacted`] if what comes next is no longer kept.
    pub fn read(&mut self, store: &Store) -> Result<Look, WatchError> {
        if self.next > store.revision() {
            return Ok(self.state());
        }
        let changes = match store.changes_from(self.next) {
            Ok(changes) => changes,
            Err(RevisionError::Compacted { oldest, .. }) => {
                let next = if wal::mutant!("watch_ends_elsewhere") { oldest } else { self.next() };
                return Err(WatchError::Compacted { next, oldest });
            }
            Err(RevisionError::Future { .. }) => unreachable!("looked at above"),
        };
        let (mut seen, mut bytes, mut batch) = (0, 0, Vec::new());
        for change in changes {
            if change.revision() >= self.next {
                // The first change of a revision: what came before it is whole.
                bytes += self.keep(&mut batch);
                if seen >= SLICE || self.ready.len() >= READY || bytes >= READY_BYTES {
                    return Ok(self.state());
                }
                self.next = change.revision().next();
            }
            seen += 1;
            let admitted = self.form.admits(&change) || wal::mutant!("watch_history_unfiltered");
            if self.range.contains(change.key()) && admitted {
                batch.push(change.event(self.form.previous));
            }
        }
        self.keep(&mut batch);
        self.next = store.revision().next();
        Ok(self.state())
    }

    /// Lays the batch of the revision before `next` ready, if there is one. Returns its size.
    fn keep(&mut self, batch: &mut Vec<Event>) -> usize {
        if batch.is_empty() {
            return 0;
        }
        let events = batch_of(before(self.next), std::mem::take(batch));
        let bytes = weight(&events);
        self.ready.push_back(events);
        bytes
    }

    fn state(&self) -> Look {
        if self.ready.is_empty() { Look::Current } else { Look::Ready }
    }
}

/// The revision before. There is none before the first, and nothing to tell in it.
fn before(revision: Revision) -> Revision {
    Revision(revision.0.saturating_sub(1))
}
