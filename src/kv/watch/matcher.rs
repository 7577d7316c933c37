//! One pass over the changes for all watches.
//!
//! Watches of one range in one form are a *group*. Each change is looked at once, the groups that it concerns are found,
//! and each of them is told once, however many watches it has. What a pass finds comes out as [`Step`]s for the groups'
//! rings, so that the caller decides what to hold while it reads and what while it tells.

use super::batch::{batch_of, weight};
use super::index::Index;
use super::query::{Form, WatchQuery};
use super::ring::Ring;
use crate::kv::event::{Event, Events, RevisionError};
use crate::kv::range::KeyRange;
use crate::kv::{Revision, Store};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// Changes looked at in one pass, about: the store is held meanwhile, and its writer waits.
const CHANGES: usize = if cfg!(test) { 4 } else { 256 };
/// Steps of one pass, about.
const STEPS: usize = 4096;
/// Bytes that a batch costs in a ring when its events are another's.
const SLOT: usize = 64;

/// Names a group, as long as it has watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct GroupId(u32);

impl GroupId {
    pub fn new(index: usize) -> Self {
        Self(u32::try_from(index).expect("fewer groups than memory holds"))
    }

    /// Small: numbers of groups that have ended are used again.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// What is to be done to a group's ring.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// Push.
    Tell(GroupId, Events),
    /// Forget what is that old: others need the memory. The group may have ended.
    Forget(GroupId, Revision),
    /// Begin anew at a revision: what came before was compacted before it could be looked at.
    Restart(GroupId, Revision),
}

/// Whether a pass came to the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pass {
    /// There are more changes to look at.
    Part,
    /// Everything has been looked at.
    Whole,
}

/// All groups, and how far they have been told.
#[derive(Debug)]
pub(crate) struct Matcher {
    names: BTreeMap<(KeyRange, Form), GroupId>,
    groups: Vec<Option<Group>>,
    free: Vec<GroupId>,
    index: Index,
    /// Every change up to this revision has been looked at for every group.
    told: Revision,
    /// What lies in the rings, in the order it was told.
    recent: VecDeque<(GroupId, Revision, usize)>,
    recent_bytes: usize,
    most_bytes: usize,
    /// Of the revision that is looked at: what was found, and for how many keys.
    found: Vec<(GroupId, Event)>,
    found_keys: usize,
    concerned: Vec<GroupId>,
}

#[derive(Debug)]
struct Group {
    name: (KeyRange, Form),
    watches: usize,
}

impl Matcher {
    /// Rings may hold `most_bytes` in all, about.
    pub fn new(most_bytes: usize) -> Self {
        Self {
            names: BTreeMap::new(),
            groups: Vec::new(),
            free: Vec::new(),
            index: Index::default(),
            told: Revision::EMPTY,
            recent: VecDeque::new(),
            recent_bytes: 0,
            most_bytes,
            found: Vec::new(),
            found_keys: 0,
            concerned: Vec::new(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Every change up to here has been looked at.
    pub fn told(&self) -> Revision {
        self.told
    }

    /// Adds a watch to its group, and makes the group with the ring that is returned if it is the first. `now` is a revision
    /// that the store has reached.
    pub fn join(&mut self, query: &WatchQuery, now: Revision) -> (GroupId, Option<Ring>) {
        if self.is_empty() {
            // Nobody was there to be told what came before.
            self.told = self.told.max(now);
        }
        let name = (query.range.clone(), query.form);
        if let Some(&id) = self.names.get(&name) {
            self.group(id).watches += 1;
            return (id, None);
        }
        let id = self.free.pop().unwrap_or_else(|| {
            self.groups.push(None);
            GroupId::new(self.groups.len() - 1)
        });
        self.index.insert(&name.0, id);
        self.names.insert(name.clone(), id);
        self.groups[id.index()] = Some(Group { name, watches: 1 });
        let from = if wal::mutant!("watch_new_ring_has_past") { Revision(1) } else { self.told.next() };
        (id, Some(Ring::new(from)))
    }

    /// Takes a watch out of its group. `true` if it was the last, and the group has ended.
    pub fn leave(&mut self, id: GroupId) -> bool {
        let group = self.group(id);
        group.watches -= 1;
        if group.watches > 0 {
            return false;
        }
        let group = self.groups[id.index()].take().expect("looked at above");
        self.index.remove(&group.name.0, id);
        self.names.remove(&group.name);
        self.free.push(id);
        true
    }

    /// Looks at changes that are new, in whole revisions, and appends what is to be done.
    pub fn pass(&mut self, store: &Store, steps: &mut Vec<Step>) -> Pass {
        let newest = store.revision();
        if self.is_empty() {
            self.told = newest;
            self.recent.clear();
            self.recent_bytes = 0;
        }
        if self.told >= newest {
            return Pass::Whole;
        }
        self.index.settle();
        let changes = match store.changes_from(self.told.next()) {
            Ok(changes) => changes,
            Err(RevisionError::Compacted { oldest, .. }) => {
                self.restart(oldest, steps);
                return Pass::Part;
            }
            Err(RevisionError::Future { .. }) => unreachable!("looked at above"),
        };
        let (mut seen, mut revision) = (0, self.told);
        for change in changes {
            if change.revision() > revision {
                self.tell(revision, steps);
                self.told = revision;
                if seen >= CHANGES || steps.len() >= STEPS {
                    self.make_room(steps);
                    return Pass::Part;
                }
                revision = change.revision();
            }
            seen += 1;
            self.concerned.clear();
            self.index.find(change.key(), &mut self.concerned);
            if self.concerned.is_empty() {
                continue;
            }
            self.found_keys += 1;
            let (mut whole, mut short) = (None, None);
            for &id in &self.concerned {
                let form = self.groups[id.index()].as_ref().expect("the index names groups").name.1;
                if form.admits(&change) {
                    let event = if form.previous { &mut whole } else { &mut short };
                    let event = event.get_or_insert_with(|| change.event(form.previous));
                    self.found.push((id, event.clone()));
                }
            }
        }
        self.tell(revision, steps);
        self.told = newest;
        self.make_room(steps);
        Pass::Whole
    }

    /// What was found at `revision` becomes one batch for each group.
    fn tell(&mut self, revision: Revision, steps: &mut Vec<Step>) {
        if std::mem::take(&mut self.found_keys) == 1 {
            // All groups that were found are told the same, in one of two forms.
            let mut shared: [Option<Arc<[Event]>>; 2] = [None, None];
            for (id, event) in self.found.drain(..) {
                let form = self.groups[id.index()].as_ref().expect("found above").name.1;
                let known = &mut shared[usize::from(form.previous)];
                let first = known.is_none();
                let events = Arc::clone(known.get_or_insert_with(|| Arc::new([event])));
                let batch = Events { revision, events };
                let bytes = SLOT + if first { weight(&batch) } else { 0 };
                self.recent.push_back((id, revision, bytes));
                self.recent_bytes += bytes;
                steps.push(Step::Tell(id, batch));
            }
            return;
        }
        let mut found = std::mem::take(&mut self.found);
        // Stable, so that nothing depends on how the events of a group were found.
        found.sort_by_key(|(id, _)| *id);
        for group in found.chunk_by(|(a, _), (b, _)| a == b) {
            let id = group[0].0;
            let batch = batch_of(revision, group.iter().map(|(_, event)| event.clone()).collect());
            let bytes = SLOT + weight(&batch);
            self.recent.push_back((id, revision, bytes));
            self.recent_bytes += bytes;
            steps.push(Step::Tell(id, batch));
        }
        found.clear();
        self.found = found;
    }

    fn make_room(&mut self, steps: &mut Vec<Step>) {
        while self.recent_bytes > self.most_bytes {
            let Some((id, revision, bytes)) = self.recent.pop_front() else { break };
            self.recent_bytes -= bytes;
            steps.push(Step::Forget(id, revision));
        }
    }

    /// The history has gone on without this pass: every watch that has not read up to `oldest` by itself will find out there.
    fn restart(&mut self, oldest: Revision, steps: &mut Vec<Step>) {
        assert!(oldest > self.told, "what was told was looked at");
        self.told = Revision(oldest.0 - 1);
        if wal::mutant!("watch_ring_outlives_history") {
            return;
        }
        steps.extend(self.names.values().map(|&id| Step::Restart(id, oldest)));
    }

    fn group(&mut self, id: GroupId) -> &mut Group {
        self.groups[id.index()].as_mut().expect("a watch's group exists as long as the watch")
    }
}
