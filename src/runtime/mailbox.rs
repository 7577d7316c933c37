//! Where answers wait for their callers.
//!
//! Every client handle has a [`Mailbox`]: a slab of slots, one per call in flight. The loop knows a call only by its
//! ticket, which names the mailbox and the slot, so it keeps no table of callers. It delivers the answers of a turn in
//! runs: one lock per run of one mailbox, and every distinct waker is woken once, after the run.
//!
//! A future that is dropped marks its slot abandoned; the answer, when it comes, frees it. A handle that is dropped with
//! calls outstanding takes its mailbox with it as soon as the last of them is answered. So nothing is lost by dropping,
//! and nothing leaks.
//!
//! Not here: what an answer is. Wakers run callers' code, and so does dropping one; neither ever happens under a lock.

use parking_lot::{Mutex, MutexGuard, RwLock};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};

/// Names a call in flight: a mailbox and a slot in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Address {
    mailbox: u32,
    slot: u32,
}

impl Address {
    /// As one number, for the node.
    pub(crate) fn pack(self) -> u64 {
        u64::from(self.mailbox) << 32 | u64::from(self.slot)
    }

    /// From the number [`pack`](Self::pack) made.
    pub(crate) fn unpack(packed: u64) -> Self {
        let half = |bits: u64| u32::try_from(bits & u64::from(u32::MAX)).expect("masked");
        Self { mailbox: half(packed >> 32), slot: half(packed) }
    }
}

/// The calls of one client handle.
pub(crate) struct Mailbox<T> {
    slots: Mutex<Slots<T>>,
}

struct Slots<T> {
    entries: Vec<Slot<T>>,
    free: Option<u32>,
    /// Slots that are not free.
    live: u32,
    /// The handle is gone: the mailbox goes with its last live slot.
    orphaned: bool,
    collected: Vec<(u64, T)>,
    collector: Option<Waker>,
}

enum Slot<T> {
    Free {
        next: Option<u32>,
    },
    /// A future waits here, or has not been polled yet.
    Waiting(Option<Waker>),
    /// The answer goes to the collector, under the caller's number.
    Collected {
        number: u64,
    },
    Done(T),
    /// The future was dropped. The answer frees the slot.
    Abandoned,
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Self {
            entries: Vec::new(),
            free: None,
            live: 0,
            orphaned: false,
            collected: Vec::new(),
            collector: None,
        }
    }
}

impl<T> Slots<T> {
    fn take(&mut self, slot: Slot<T>) -> u32 {
        self.live += 1;
        if let Some(index) = self.free {
            let entry = &mut self.entries[index as usize];
            let Slot::Free { next } = *entry else { unreachable!("the free list holds free slots") };
            self.free = next;
            *entry = slot;
            return index;
        }
        let index = u32::try_from(self.entries.len()).expect("fewer calls in flight than memory holds");
        self.entries.push(slot);
        index
    }

    fn free(&mut self, index: u32) -> Slot<T> {
        self.live -= 1;
        let next = self.free.replace(index);
        std::mem::replace(&mut self.entries[index as usize], Slot::Free { next })
    }

    fn ends(&self) -> bool {
        self.orphaned && self.live == 0
    }

    /// Puts an answer where it belongs. Answers to free slots are dropped: only an engine that has stopped answers
    /// twice, and it says the same both times.
    fn finish(&mut self, index: u32, answer: T, wakes: &mut Wakes) {
        let Some(entry) = self.entries.get_mut(index as usize) else { return };
        match entry {
            Slot::Waiting(waker) => {
                if let Some(waker) = waker.take() {
                    wakes.push(waker);
                }
                *entry = Slot::Done(answer);
            }
            Slot::Collected { number } => {
                let number = *number;
                self.free(index);
                self.collected.push((number, answer));
                if let Some(waker) = self.collector.take() {
                    wakes.push(waker);
                }
            }
            Slot::Abandoned => drop(self.free(index)),
            Slot::Free { .. } | Slot::Done(_) => {}
        }
    }
}

/// All mailboxes of an engine.
pub(crate) struct Mailboxes<T> {
    table: RwLock<Table<T>>,
    wakes: AtomicU64,
}

struct Table<T> {
    boxes: Vec<Option<Arc<Mailbox<T>>>>,
    free: Vec<u32>,
}

impl<T> Mailboxes<T> {
    pub(crate) fn new() -> Arc<Self> {
        let table = Table { boxes: Vec::new(), free: Vec::new() };
        Arc::new(Self { table: RwLock::new(table), wakes: AtomicU64::new(0) })
    }

    /// A mailbox for a new handle.
    pub(crate) fn open(self: &Arc<Self>) -> Handle<T> {
        let mailbox = Arc::new(Mailbox { slots: Mutex::new(Slots::default()) });
        let mut table = self.table.write();
        let id = table.free.pop().unwrap_or_else(|| {
            table.boxes.push(None);
            u32::try_from(table.boxes.len() - 1).expect("fewer handles than memory holds")
        });
        table.boxes[id as usize] = Some(Arc::clone(&mailbox));
        drop(table);
        Handle { id, mailbox, mailboxes: Arc::clone(self) }
    }

    /// Delivers answers and then wakes whom they were for.
    pub(crate) fn deliver(&self, answers: impl Iterator<Item = (Address, T)>, wakes: &mut Wakes) {
        let mut ended = Vec::new();
        let table = self.table.read();
        // The mailbox of the last answer stays locked as long as the answers that follow are for it too.
        let mut open: Option<(u32, MutexGuard<'_, Slots<T>>)> = None;
        for (address, answer) in answers {
            if open.as_ref().is_none_or(|(id, _)| *id != address.mailbox) {
                close(open.take(), &mut ended);
                let Some(Some(mailbox)) = table.boxes.get(address.mailbox as usize) else { continue };
                open = Some((address.mailbox, mailbox.slots.lock()));
            }
            if let Some((_, slots)) = &mut open {
                slots.finish(address.slot, answer, wakes);
            }
        }
        close(open, &mut ended);
        drop(table);
        for id in ended {
            self.remove(id);
        }
        let woken = wakes.wake_all();
        self.wakes.fetch_add(woken, Ordering::Relaxed);
    }

    /// Answers every call that still waits. For a loop that ends.
    pub(crate) fn deliver_all(&self, answer: impl Fn() -> T) {
        let mut rest = Vec::new();
        for (id, mailbox) in self.table.read().boxes.iter().enumerate() {
            let Some(mailbox) = mailbox else { continue };
            let mailbox_id = u32::try_from(id).expect("ids are 32 bits");
            for (slot, entry) in mailbox.slots.lock().entries.iter().enumerate() {
                if matches!(entry, Slot::Waiting(_) | Slot::Collected { .. } | Slot::Abandoned) {
                    let slot = u32::try_from(slot).expect("slots are 32 bits");
                    rest.push(Address { mailbox: mailbox_id, slot });
                }
            }
        }
        self.deliver(rest.into_iter().map(|address| (address, answer())), &mut Wakes::default());
    }

    /// Calls that have not been answered, or whose answers have not been taken.
    pub(crate) fn outstanding(&self) -> usize {
        let table = self.table.read();
        table.boxes.iter().flatten().map(|mailbox| mailbox.slots.lock().live as usize).sum()
    }

    /// How often a waiting thread or task was woken.
    pub(crate) fn wakes(&self) -> u64 {
        self.wakes.load(Ordering::Relaxed)
    }

    fn remove(&self, id: u32) {
        let mut table = self.table.write();
        if table.boxes[id as usize].take().is_some() {
            table.free.push(id);
        }
    }
}

/// Unlocks a mailbox and notes whether that was its last answer.
fn close<T>(open: Option<(u32, MutexGuard<'_, Slots<T>>)>, ended: &mut Vec<u32>) {
    if let Some((id, slots)) = open
        && slots.ends()
    {
        ended.push(id);
    }
}

/// A client handle's side of its mailbox.
pub(crate) struct Handle<T> {
    id: u32,
    mailbox: Arc<Mailbox<T>>,
    mailboxes: Arc<Mailboxes<T>>,
}

impl<T> Handle<T> {
    /// A slot for a call whose future will poll for its answer.
    pub(crate) fn reserve(&self) -> Address {
        let slot = self.mailbox.slots.lock().take(Slot::Waiting(None));
        Address { mailbox: self.id, slot }
    }

    /// A slot for a call whose answer is collected under `number`.
    pub(crate) fn reserve_collected(&self, number: u64) -> Address {
        let slot = self.mailbox.slots.lock().take(Slot::Collected { number });
        Address { mailbox: self.id, slot }
    }

    /// Gives back a slot whose call was never handed over.
    pub(crate) fn release(&self, address: Address) {
        let slot = self.mailbox.slots.lock().free(address.slot);
        drop(slot);
    }

    /// The answer in a slot that [`reserve`](Self::reserve) gave, if it is there; the slot is then free.
    pub(crate) fn poll(&self, address: Address, cx: &mut Context<'_>) -> Poll<T> {
        let mut slots = self.mailbox.slots.lock();
        let mut replaced = None;
        match &mut slots.entries[address.slot as usize] {
            Slot::Done(_) => {
                let Slot::Done(answer) = slots.free(address.slot) else { unreachable!("looked at above") };
                return Poll::Ready(answer);
            }
            Slot::Waiting(Some(waker)) if waker.will_wake(cx.waker()) => {}
            Slot::Waiting(waker) => replaced = waker.replace(cx.waker().clone()),
            Slot::Free { .. } | Slot::Collected { .. } | Slot::Abandoned => {
                unreachable!("a future polls only the slot it owns")
            }
        }
        drop(slots);
        drop(replaced);
        Poll::Pending
    }

    /// Nobody waits for this answer any more.
    pub(crate) fn abandon(&self, address: Address) {
        let mut slots = self.mailbox.slots.lock();
        let old = if matches!(slots.entries[address.slot as usize], Slot::Done(_)) {
            slots.free(address.slot)
        } else {
            std::mem::replace(&mut slots.entries[address.slot as usize], Slot::Abandoned)
        };
        drop(slots);
        drop(old);
    }

    /// Takes everything collected so far into `into`; registers the waker when there is nothing.
    pub(crate) fn poll_collected(&self, into: &mut Vec<(u64, T)>, cx: &mut Context<'_>) -> Poll<()> {
        let mut slots = self.mailbox.slots.lock();
        if !slots.collected.is_empty() {
            into.append(&mut slots.collected);
            return Poll::Ready(());
        }
        let replaced = match &slots.collector {
            Some(waker) if waker.will_wake(cx.waker()) => None,
            _ => slots.collector.replace(cx.waker().clone()),
        };
        drop(slots);
        drop(replaced);
        Poll::Pending
    }
}

impl<T> Drop for Handle<T> {
    fn drop(&mut self) {
        let mut slots = self.mailbox.slots.lock();
        slots.orphaned = true;
        let (collected, collector) = (std::mem::take(&mut slots.collected), slots.collector.take());
        let ends = slots.ends();
        drop(slots);
        drop((collected, collector));
        if ends {
            self.mailboxes.remove(self.id);
        }
    }
}

/// Wakers gathered while a lock is held, each distinct one once.
#[derive(Default)]
pub(crate) struct Wakes {
    wakers: Vec<Waker>,
}

impl Wakes {
    /// How many of the last wakers a new one is compared with: answers of one task come together.
    const LOOK_BACK: usize = 4;

    pub(crate) fn push(&mut self, waker: Waker) {
        if !self.wakers.iter().rev().take(Self::LOOK_BACK).any(|other| other.will_wake(&waker)) {
            self.wakers.push(waker);
        }
    }

    /// Wakes all of them; returns how many.
    pub(crate) fn wake_all(&mut self) -> u64 {
        let woken = self.wakers.len() as u64;
        self.wakers.drain(..).for_each(Waker::wake);
        woken
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn counting() -> (Arc<Count>, Waker) {
        let count = Arc::new(Count::default());
        (Arc::clone(&count), Waker::from(count))
    }

    fn deliver(mailboxes: &Mailboxes<u32>, answers: &[(Address, u32)]) {
        mailboxes.deliver(answers.iter().copied(), &mut Wakes::default());
    }

    #[test]
    fn addresses_survive_packing() {
        for address in [Address { mailbox: 0, slot: 0 }, Address { mailbox: 7, slot: u32::MAX }] {
            assert_eq!(Address::unpack(address.pack()), address);
        }
    }

    #[test]
    fn an_answer_reaches_its_future_and_frees_the_slot() {
        let mailboxes = Mailboxes::new();
        let handle = mailboxes.open();
        let (count, waker) = counting();
        let mut cx = Context::from_waker(&waker);
        let (a, b) = (handle.reserve(), handle.reserve());
        assert!(handle.poll(a, &mut cx).is_pending());
        deliver(&mailboxes, &[(b, 2), (a, 1)]);
        assert_eq!(count.0.load(Ordering::Relaxed), 1, "only the polled one had a waker");
        assert_eq!(handle.poll(a, &mut cx), Poll::Ready(1));
        assert_eq!(handle.poll(b, &mut cx), Poll::Ready(2));
        assert_eq!(mailboxes.outstanding(), 0);
        assert_eq!(handle.reserve(), b, "the slot freed last is used first");
    }

    #[test]
    fn a_waker_is_woken_once_per_batch() {
        let mailboxes = Mailboxes::new();
        let handle = mailboxes.open();
        let (count, waker) = counting();
        let mut cx = Context::from_waker(&waker);
        let calls: Vec<_> = (0..100).map(|n| (handle.reserve(), n)).collect();
        for &(address, _) in &calls {
            assert!(handle.poll(address, &mut cx).is_pending());
        }
        deliver(&mailboxes, &calls);
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        assert_eq!(mailboxes.wakes(), 1);
    }

    #[test]
    fn collected_answers_come_together_with_one_wake() {
        let mailboxes = Mailboxes::new();
        let handle = mailboxes.open();
        let (count, waker) = counting();
        let mut cx = Context::from_waker(&waker);
        let mut batch = Vec::new();
        assert!(handle.poll_collected(&mut batch, &mut cx).is_pending());
        let calls: Vec<_> = (0..10).map(|n| (handle.reserve_collected(u64::from(n) + 100), n)).collect();
        deliver(&mailboxes, &calls);
        assert!(handle.poll_collected(&mut batch, &mut cx).is_ready());
        assert_eq!(batch.len(), 10);
        assert_eq!(batch[3], (103, 3));
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        assert_eq!(mailboxes.outstanding(), 0);
    }

    #[test]
    fn abandoned_calls_free_their_slots_whenever_the_answer_comes() {
        let mailboxes = Mailboxes::new();
        let handle = mailboxes.open();
        let (early, late) = (handle.reserve(), handle.reserve());
        deliver(&mailboxes, &[(early, 1)]);
        handle.abandon(early);
        handle.abandon(late);
        assert_eq!(mailboxes.outstanding(), 1, "the late one's answer is still to come");
        deliver(&mailboxes, &[(late, 2)]);
        assert_eq!(mailboxes.outstanding(), 0);
    }

    #[test]
    fn a_mailbox_goes_with_the_last_answer_of_a_dropped_handle() {
        let mailboxes = Mailboxes::new();
        let handle = mailboxes.open();
        let address = handle.reserve();
        handle.abandon(address);
        drop(handle);
        assert!(mailboxes.table.read().boxes[0].is_some());
        deliver(&mailboxes, &[(address, 1)]);
        assert!(mailboxes.table.read().boxes[0].is_none());
        drop(mailboxes.open());
        drop(mailboxes.open());
        assert_eq!(mailboxes.table.read().boxes.len(), 1, "the place is used again");
    }

    /// A waker whose drop comes back to the mailbox, as a task's does when its last waker held the task alive.
    struct Reentrant(Mutex<Option<(Arc<Handle<u32>>, Address)>>);

    impl Wake for Reentrant {
        fn wake(self: Arc<Self>) {}
    }

    impl Drop for Reentrant {
        fn drop(&mut self) {
            if let Some((handle, address)) = self.0.lock().take() {
                handle.abandon(address);
            }
        }
    }

    #[test]
    fn a_waker_that_drops_its_task_does_not_lock_up() {
        let mailboxes = Mailboxes::new();
        let handle = Arc::new(mailboxes.open());
        let (first, second) = (handle.reserve(), handle.reserve());
        let waker = Waker::from(Arc::new(Reentrant(Mutex::new(Some((Arc::clone(&handle), second))))));
        assert!(handle.poll(first, &mut Context::from_waker(&waker)).is_pending());
        drop(waker);
        assert!(handle.poll(first, &mut Context::from_waker(Waker::noop())).is_pending());
        deliver(&mailboxes, &[(first, 1), (second, 2)]);
        assert_eq!(mailboxes.outstanding(), 1);
    }

    #[test]
    fn an_ending_loop_answers_everything() {
        let mailboxes = Mailboxes::new();
        let handle = mailboxes.open();
        let (waiting, dropped) = (handle.reserve(), handle.reserve());
        handle.reserve_collected(5);
        handle.abandon(dropped);
        mailboxes.deliver_all(|| 9);
        let mut cx = Context::from_waker(Waker::noop());
        assert_eq!(handle.poll(waiting, &mut cx), Poll::Ready(9));
        let mut batch = Vec::new();
        assert!(handle.poll_collected(&mut batch, &mut cx).is_ready());
        assert_eq!(batch, [(5, 9)]);
        assert_eq!(mailboxes.outstanding(), 0);
    }
}
