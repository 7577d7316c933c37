//! Watchers: each looks now and then at what its watch has for it, at whatever node it sits, and goes on elsewhere when that
//! node is gone or it has had enough of it.

use super::client;
use super::dice::Dice;
use super::member::Process;
use super::observation::{Begin, Instant, Observation, Violation, WatcherId, Wish};
use super::oracle::Mark;
use super::plan::Plan;
use super::wishes;
use super::world::{Event, Phase, World};
use crate::kv::{Filter, Revision, WatchError, WatchId, WatchItem, WatchQuery};
use wal::NodeId;

/// Items taken at one look, at most.
const ITEMS: u64 = 8;
/// Who is so many revisions behind is slow.
const SLOW: u64 = 64;

pub(super) struct Watcher {
    id: WatcherId,
    wish: Wish,
    progress: bool,
    at: NodeId,
    /// Its watch, and the life of the node it is at.
    open: Option<(WatchId, u64)>,
    /// Where to go on from; none before the first watch.
    next: Option<u64>,
    /// Where it was before it moved.
    before: Option<NodeId>,
}

impl Watcher {
    pub(super) fn new(number: usize, plan: &Plan, dice: &mut Dice) -> Self {
        let filter = match dice.below(4) {
            0 => Some(Filter::Puts),
            1 => Some(Filter::Deletes),
            _ => None,
        };
        let keys = wishes::keys(dice, &plan.load);
        Self {
            id: WatcherId(number as u64 + 1),
            wish: Wish { keys, filter, previous: dice.coin() },
            progress: dice.coin(),
            at: NodeId(dice.between(1, plan.members)),
            open: None,
            next: None,
            before: None,
        }
    }
}

impl World {
    pub(super) fn schedule_watchers(&mut self) {
        for watcher in 0..self.watchers.len() {
            self.wait_watcher(watcher);
        }
    }

    fn wait_watcher(&mut self, watcher: usize) {
        let mean = self.plan.load.watch_pause;
        let at = Instant(self.now.0 + 1_000 + self.watch_dice.wait(mean));
        self.schedule.add(at, Event::Watch(watcher));
    }

    /// Nodes that are gone have no watches.
    fn watch_of(&self, watcher: usize) -> Option<WatchId> {
        let (watch, life) = self.watchers[watcher].open?;
        let member = &self.members[&self.watchers[watcher].at];
        (member.is_up() && member.life == life).then_some(watch)
    }

    /// Watches that are open.
    pub(super) fn watching(&self) -> Vec<WatcherId> {
        let open = (0..self.watchers.len()).filter(|&watcher| self.watch_of(watcher).is_some());
        open.map(|watcher| self.watchers[watcher].id).collect()
    }

    /// Whether everybody has been told of everything.
    pub(super) fn all_are_told(&self) -> bool {
        (0..self.watchers.len()).all(|watcher| {
            let Some(watch) = self.watch_of(watcher) else { return false };
            let member = &self.members[&self.watchers[watcher].at];
            let node = member.node.as_ref().expect("it is up");
            member.hub.revision(watch) >= Some(node.machine().revision())
        })
    }

    /// A watcher looks.
    pub(super) fn watch_due(&mut self, watcher: usize) -> Result<(), Violation> {
        self.wait_watcher(watcher);
        let moves = self.phase == Phase::Safety && self.watch_dice.below(60) == 0;
        let passes = self.phase == Phase::Healing || self.watch_dice.below(4) != 0;
        let Some(watch) = self.watch_of(watcher) else { return self.watch(watcher) };
        let at = self.watchers[watcher].at;
        let member = self.members.get_mut(&at).expect("a member of the run");
        if member.process != Process::Running {
            return Ok(());
        }
        if moves {
            if self.watch_dice.coin() {
                // What was told and what did not concern it is the same to it.
                self.watchers[watcher].next = member.hub.revision(watch).map(|told| told.0 + 1);
            }
            member.hub.close(watch);
            self.watchers[watcher].open = None;
            return self.watch(watcher);
        }
        if passes {
            let store = member.node.as_ref().expect("it is up").machine();
            member.hub.pass(store);
        }
        for _ in 0..self.watch_dice.between(1, ITEMS) {
            let member = self.members.get_mut(&at).expect("a member of the run");
            let store = member.node.as_ref().expect("it is up").machine();
            let revision = store.revision().0;
            match member.hub.next(watch, store) {
                None => break,
                Some(Ok(item)) => self.take(watcher, &item, revision)?,
                Some(Err(error)) => return self.lose(watcher, &error),
            }
        }
        Ok(())
    }

    fn take(&mut self, watcher: usize, item: &WatchItem, revision: u64) -> Result<(), Violation> {
        let told = item.revision().0;
        let id = self.watchers[watcher].id;
        self.story.note(told);
        self.story.note(item.events().len() as u64);
        self.judges.observe(self.now, &Observation::Watched { watcher: id, item })?;
        if revision > told + SLOW {
            self.judges.mark(Mark::WatchSlow);
        }
        self.watchers[watcher].next = Some(told + 1);
        Ok(())
    }

    /// What came next is gone: its watcher reads the newest state, and goes on from there.
    fn lose(&mut self, watcher: usize, why: &WatchError) -> Result<(), Violation> {
        let Watcher { id, at, .. } = self.watchers[watcher];
        let node = self.members[&at].node.as_ref().expect("it has just answered");
        let revision = node.machine().revision().0;
        self.story.tell(self.now, || format!("{id:?} at node {at}: {why}"));
        self.judges.observe(self.now, &Observation::Unwatched { watcher: id, why, revision })?;
        self.watchers[watcher].open = None;
        self.open_watch(watcher, (revision + 1, Begin::New))
    }

    /// Opens a watch at the node its watcher sits at, or sits down elsewhere.
    fn watch(&mut self, watcher: usize) -> Result<(), Violation> {
        let count = self.members.len() as u64;
        let at = NodeId(self.watch_dice.between(1, count));
        let former = self.watchers[watcher].at;
        self.watchers[watcher].open = None;
        if former != at {
            self.watchers[watcher].before = Some(former);
        }
        self.watchers[watcher].at = at;
        let member = &self.members[&at];
        let Some(node) = member.node.as_ref().filter(|_| member.process == Process::Running) else {
            return Ok(());
        };
        let now = node.machine().revision().0;
        let begin = match self.watchers[watcher].next {
            Some(next) => (next, Begin::Resumed),
            None => (self.watch_dice.between(1, now + 3), Begin::New),
        };
        if begin.1 == Begin::Resumed && begin.0 > now + 1 {
            self.judges.mark(Mark::WatchAhead);
        }
        self.open_watch(watcher, begin)
    }

    fn open_watch(&mut self, watcher: usize, (from, begin): (u64, Begin)) -> Result<(), Violation> {
        let Watcher { id, at, wish, progress, .. } = self.watchers[watcher];
        let mut query = WatchQuery::new(client::key_range(wish.keys)).from(Revision(from));
        if let Some(filter) = wish.filter {
            query = query.only(filter);
        }
        if wish.previous {
            query = query.with_previous();
        }
        if progress {
            query = query.with_progress();
        }
        let member = self.members.get_mut(&at).expect("a member of the run");
        let store = member.node.as_ref().expect("it is up").machine();
        let opened = member.hub.open(&query, store);
        let life = member.life;
        let began = Observation::Watches { watcher: id, wish: &wish, from, begin };
        self.judges.observe(self.now, &began)?;
        match opened {
            Ok(watch) => {
                let watcher = &mut self.watchers[watcher];
                watcher.open = Some((watch, life));
                watcher.next = Some(from);
                if watcher.before.take().is_some() && begin == Begin::Resumed {
                    self.judges.mark(Mark::WatchMoved);
                }
                Ok(())
            }
            Err(error) => self.lose(watcher, &error),
        }
    }
}
