//! Watches of a running engine: who looks at what was applied, and who is woken.
//!
//! The loop does nothing for a watch but ring a bell after it has applied something, so a put costs the same with no watch
//! and with ten thousand. A thread of its own, started by the first watch, looks at each change once ([`Matcher`]), lays
//! what it finds into the rings of the groups that it concerns, and wakes those who wait there: all of a pass together,
//! after every lock is released.
//!
//! A watch takes what is its own when it is polled, on its caller's thread. If its group's ring does not reach back far
//! enough it reads the store, a bounded slice at a time. What it gives is right whether the thread is quick or slow: the
//! thread decides when somebody is woken, never what is told.
//!
//! Order of locks: central, store, a group's. Wakers are called, and dropped, under none.

use super::bell::{Bell, Clapper};
use super::mailbox::Wakes;
use crate::api::StopReason;
use crate::kv::watch::{Cursor, GroupId, Look, Matcher, Pass, Ring, Step};
use crate::kv::{Revision, Store, WatchError, WatchItem, WatchLimits, WatchQuery};
use parking_lot::{Mutex, RwLock};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

/// How often, at most, watches are woken only for a progress mark.
const MARKS: Duration = Duration::from_millis(100);
/// Slices of the history that a watch reads in one poll, at most, if they hold nothing for it.
const SLICES: usize = 8;

/// All watches of an engine.
pub(crate) struct Watches {
    limits: WatchLimits,
    store: Arc<RwLock<Store>>,
    central: Mutex<Central>,
    bell: Bell,
    /// Everything up to this revision is in the rings, if it is anywhere. Written after the rings.
    told: AtomicU64,
    /// Who waits for a progress mark.
    marks: Mutex<Waiting>,
    /// The engine applies nothing more: why, if it failed.
    over: OnceLock<Option<Arc<str>>>,
}

struct Central {
    matcher: Matcher,
    groups: Vec<Option<Arc<Group>>>,
    open: usize,
    started: bool,
    steps: Vec<Step>,
}

/// Watches that are told the same.
struct Group(Mutex<Side>);

struct Side {
    ring: Ring,
    waiting: Waiting,
}

/// A watch's membership in its group.
pub(crate) struct Member {
    id: GroupId,
    group: Arc<Group>,
    seat: Option<Seat>,
    marks: Option<Seat>,
}

impl Watches {
    pub(crate) fn new(store: Arc<RwLock<Store>>, limits: WatchLimits) -> Arc<Self> {
        let central = Central {
            matcher: Matcher::new(limits.recent_bytes),
            groups: Vec::new(),
            open: 0,
            started: false,
            steps: Vec::new(),
        };
        Arc::new(Self {
            limits,
            store,
            central: Mutex::new(central),
            bell: Bell::new(),
            told: AtomicU64::new(0),
            marks: Mutex::default(),
            over: OnceLock::new(),
        })
    }

    // ---- the loop's side

    /// Something was applied.
    pub(crate) fn ring(&self) {
        self.bell.ring();
    }

    /// Nothing more is applied. Every watch is told the rest, and then why it ends.
    pub(crate) fn end(&self, reason: &StopReason) {
        self.over.get_or_init(|| match reason {
            StopReason::Requested => None,
            StopReason::Failed(failure) => Some(Arc::clone(failure)),
        });
        self.bell.strike();
    }

    // ---- the watches' side

    /// Opens a watch.
    pub(crate) fn open(self: &Arc<Self>, query: &WatchQuery) -> Result<(Cursor, Member), WatchError> {
        // From here on nothing is missed: what the store applies next is behind the cursor's place.
        let (cursor, now) = {
            let store = self.store.read();
            (Cursor::new(query, &store)?, store.revision())
        };
        let mut central = self.central.lock();
        if let Some(failure) = self.over.get() {
            return Err(WatchError::Stopped { next: cursor.next(), failure: failure.clone() });
        }
        if central.open >= self.limits.watchers {
            return Err(WatchError::TooMany { limit: self.limits.watchers });
        }
        self.start(&mut central)?;
        let first = central.matcher.is_empty();
        let (id, ring) = central.matcher.join(query, now);
        if let Some(ring) = ring {
            if central.groups.len() <= id.index() {
                central.groups.resize_with(id.index() + 1, || None);
            }
            let side = Side { ring, waiting: Waiting::default() };
            central.groups[id.index()] = Some(Arc::new(Group(Mutex::new(side))));
        }
        central.open += 1;
        let group = Arc::clone(central.groups[id.index()].as_ref().expect("it has just been joined"));
        if first {
            self.told.store(central.matcher.told().0, Ordering::SeqCst);
            // The thread sleeps soundly while there is nobody to wake.
            self.bell.strike();
        }
        Ok((cursor, Member { id, group, seat: None, marks: None }))
    }

    /// The next item of a watch. An error is the last one.
    pub(crate) fn poll(
        &self,
        cursor: &mut Cursor,
        member: &mut Member,
        cx: &mut Context<'_>,
    ) -> Poll<Result<WatchItem, WatchError>> {
        for _ in 0..SLICES {
            if let Some(item) = cursor.pop() {
                return Poll::Ready(Ok(item));
            }
            // In this order: what the ring holds is at least what was told by then.
            let told = self.told.load(Ordering::SeqCst);
            let mut side = member.group.0.lock();
            // Under the lock under which everybody is woken at the end: who does not see it now is woken.
            if let Some(failure) = self.over.get() {
                drop(side);
                match self.finish(cursor, failure.as_ref()) {
                    Some(last) => return Poll::Ready(last),
                    None => continue,
                }
            }
            match cursor.look(&side.ring, Revision(told)) {
                Look::Ready => {}
                Look::Behind => {
                    drop(side);
                    if let Err(error) = cursor.read(&self.store.read()) {
                        return Poll::Ready(Err(error));
                    }
                }
                Look::Current => {
                    if let Some(mark) = cursor.mark() {
                        return Poll::Ready(Ok(mark));
                    }
                    let replaced = side.waiting.sit(&mut member.seat, cx.waker());
                    drop(side);
                    drop(replaced);
                    if !cursor.wants_marks() {
                        return Poll::Pending;
                    }
                    let replaced = self.marks.lock().sit(&mut member.marks, cx.waker());
                    drop(replaced);
                    // The thread writes this and then looks who waits; here it is the other way round.
                    if self.told.load(Ordering::SeqCst) == told {
                        return Poll::Pending;
                    }
                }
            }
        }
        // There is more to read: others first.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// The rest of the store, which changes no more, and then the end. `None` while there is more.
    fn finish(
        &self,
        cursor: &mut Cursor,
        failure: Option<&Arc<str>>,
    ) -> Option<Result<WatchItem, WatchError>> {
        let store = self.store.read();
        match cursor.read(&store) {
            Err(error) => Some(Err(error)),
            Ok(Look::Current) if cursor.revision() >= store.revision() => {
                let stopped = WatchError::Stopped { next: cursor.next(), failure: failure.cloned() };
                Some(cursor.mark().ok_or(stopped))
            }
            Ok(_) => None,
        }
    }

    /// A watch has ended, or was dropped.
    pub(crate) fn close(&self, member: Member) {
        let Member { id, group, seat, marks } = member;
        let waker = group.0.lock().waiting.stand(seat);
        let mark_waker = marks.and_then(|seat| self.marks.lock().stand(Some(seat)));
        let mut central = self.central.lock();
        central.open -= 1;
        let ended = if central.matcher.leave(id) { central.groups[id.index()].take() } else { None };
        drop(central);
        drop((waker, mark_waker, ended, group));
    }

    /// Watches that are open.
    pub(crate) fn open_count(&self) -> usize {
        self.central.lock().open
    }

    // ---- the thread's side

    fn start(self: &Arc<Self>, central: &mut Central) -> Result<(), WatchError> {
        if central.started {
            return Ok(());
        }
        let watches = Arc::clone(self);
        std::thread::Builder::new()
            .name("d-engine-watch".into())
            .spawn(move || watches.live())
            .map_err(|error| WatchError::NoThread(error.to_string().into()))?;
        central.started = true;
        Ok(())
    }

    fn live(&self) {
        self.bell.hang(Clapper::Thread(std::thread::current()));
        if catch_unwind(AssertUnwindSafe(|| self.turn_until_over())).is_err() {
            tracing::error!("an invariant of the watches does not hold: all of them end");
            self.over.get_or_init(|| Some("an invariant of the watches does not hold".into()));
        }
        self.wake_everybody();
    }

    fn turn_until_over(&self) {
        let mut wakes = Wakes::default();
        let mut marks = Marks { told: 0, due: Instant::now() };
        while self.over.get().is_none() {
            let pass = self.pass(&mut wakes);
            wakes.wake_all();
            if pass == Pass::Whole {
                self.rest(&mut marks, &mut wakes);
            }
        }
    }

    /// Looks at what is new, and lays it ready. Who waits for it is gathered.
    fn pass(&self, wakes: &mut Wakes) -> Pass {
        let mut central = self.central.lock();
        let Central { matcher, groups, steps, .. } = &mut *central;
        let pass = matcher.pass(&self.store.read(), steps);
        for step in steps.drain(..) {
            let (Step::Tell(id, _) | Step::Forget(id, _) | Step::Restart(id, _)) = &step;
            let Some(group) = &groups[id.index()] else { continue };
            let mut side = group.0.lock();
            match step {
                Step::Tell(_, events) => {
                    side.ring.push(events);
                    side.waiting.call(wakes);
                }
                Step::Forget(_, revision) => side.ring.forget(revision),
                Step::Restart(_, from) => {
                    side.ring = Ring::new(from);
                    // They find out what they missed.
                    side.waiting.call(wakes);
                }
            }
        }
        self.told.store(matcher.told().0, Ordering::SeqCst);
        pass
    }

    /// Sleeps until there may be something to do.
    fn rest(&self, marks: &mut Marks, wakes: &mut Wakes) {
        if self.central.lock().matcher.is_empty() {
            // Whoever comes strikes the bell; until then the loop need not.
            return std::thread::park();
        }
        let told = self.told.load(Ordering::SeqCst);
        let wait = if told > marks.told && !self.marks.lock().is_empty() {
            let now = Instant::now();
            if now >= marks.due {
                *marks = Marks { told, due: now + MARKS };
                self.marks.lock().call(wakes);
                wakes.wake_all();
                None
            } else {
                Some(marks.due - now)
            }
        } else {
            None
        };
        let work = || self.over.get().is_some() || self.store.read().revision().0 > told;
        if self.bell.lie_down(work) {
            match wait {
                Some(wait) => std::thread::park_timeout(wait),
                None => std::thread::park(),
            }
            self.bell.rise();
        }
    }

    fn wake_everybody(&self) {
        let groups: Vec<_> = self.central.lock().groups.iter().flatten().cloned().collect();
        let mut wakes = Wakes::default();
        for group in groups {
            group.0.lock().waiting.call(&mut wakes);
        }
        self.marks.lock().call(&mut wakes);
        wakes.wake_all();
    }
}

/// Progress marks are due when something was told since the last ones, and not before this time.
struct Marks {
    told: u64,
    due: Instant,
}

/// Wakers of watches that have nothing to do.
#[derive(Default)]
struct Waiting {
    seats: Vec<Option<Waker>>,
    /// Invariant: these are empty.
    free: Vec<u32>,
    /// Moves when everybody is called: seats taken before are nobody's any more.
    round: u64,
}

/// Where a watch's waker is.
#[derive(Clone, Copy, Debug)]
struct Seat {
    round: u64,
    index: u32,
}

impl Waiting {
    /// Leaves a waker in the seat that the watch has, or in a new one. Returns the waker it replaces, to be dropped later.
    fn sit(&mut self, seat: &mut Option<Seat>, waker: &Waker) -> Option<Waker> {
        if let Some(seat) = seat
            && seat.round == self.round
        {
            let place = &mut self.seats[seat.index as usize];
            if place.as_ref().is_some_and(|place| place.will_wake(waker)) {
                return None;
            }
            return place.replace(waker.clone());
        }
        let index = self.free.pop().unwrap_or_else(|| {
            self.seats.push(None);
            u32::try_from(self.seats.len() - 1).expect("fewer watches than memory holds")
        });
        *seat = Some(Seat { round: self.round, index });
        self.seats[index as usize].replace(waker.clone())
    }

    /// Takes a waker away that need not be woken any more.
    fn stand(&mut self, seat: Option<Seat>) -> Option<Waker> {
        let seat = seat.filter(|seat| seat.round == self.round)?;
        self.free.push(seat.index);
        self.seats[seat.index as usize].take()
    }

    /// Everybody is to be woken; nobody waits any more.
    fn call(&mut self, wakes: &mut Wakes) {
        if self.seats.is_empty() {
            return;
        }
        self.round += 1;
        self.free.clear();
        self.seats.drain(..).flatten().for_each(|waker| wakes.push(waker));
    }

    fn is_empty(&self) -> bool {
        self.seats.len() == self.free.len()
    }
}
