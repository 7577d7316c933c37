//! How other threads wake a loop that sleeps, and cost it nothing while it is awake.
//!
//! A thread that handed something over calls [`Bell::ring`], which looks at one flag; only a loop that sleeps is rung
//! through the kernel. The two sides meet in the classic way of a store and a load on each side with a full fence
//! between them: the caller publishes its work and then reads the flag, the loop raises the flag and then looks for
//! work, so at least one of them sees the other.

#[cfg(target_os = "linux")]
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering, fence};

/// Wakes one loop.
pub(crate) struct Bell {
    /// Raised by the loop before it sleeps. Whoever lowers it is the one who rings.
    asleep: AtomicBool,
    /// Set by the driver before the loop sleeps for the first time.
    clapper: OnceLock<Clapper>,
}

/// What a driver's sleep notices.
pub(crate) enum Clapper {
    /// Readable when rung; polled by the driver's ring.
    #[cfg(target_os = "linux")]
    Event(OwnedFd),
    /// Holds a permit when rung before anybody waits.
    Notify(tokio::sync::Notify),
    /// Unparked when rung.
    Thread(std::thread::Thread),
}

impl Clapper {
    /// One that a ring can poll.
    ///
    /// # Errors
    /// The kernel's, when no descriptor is left.
    #[cfg(target_os = "linux")]
    pub(crate) fn event() -> std::io::Result<Self> {
        use rustix::event::{EventfdFlags, eventfd};
        Ok(Self::Event(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?))
    }

    /// One that a task can await.
    pub(crate) fn notify() -> Self {
        Self::Notify(tokio::sync::Notify::new())
    }
}

impl Bell {
    pub(crate) fn new() -> Self {
        Self { asleep: AtomicBool::new(false), clapper: OnceLock::new() }
    }

    /// Hangs up what the driver listens to. Once per bell.
    pub(crate) fn hang(&self, clapper: Clapper) {
        assert!(self.clapper.set(clapper).is_ok(), "a bell belongs to one driver");
    }

    /// Called after work was made visible to the loop: wakes it if it sleeps, or is about to.
    pub(crate) fn ring(&self) {
        // Pairs with the fence in `lie_down`.
        fence(Ordering::SeqCst);
        if self.asleep.load(Ordering::Relaxed) && self.asleep.swap(false, Ordering::AcqRel) {
            self.strike();
        }
    }

    /// Wakes the loop's next sleep whatever it does now. For callers whose work the loop cannot look for before it
    /// sleeps.
    pub(crate) fn strike(&self) {
        match self.clapper.get() {
            #[cfg(target_os = "linux")]
            Some(Clapper::Event(event)) => {
                // Any number but zero will do, in whatever byte order. The only failure is a full counter, and a full
                // counter is readable.
                let _ = rustix::io::write(event, &[0, 0, 0, 1, 0, 0, 0, 0]);
            }
            Some(Clapper::Notify(notify)) => notify.notify_one(),
            Some(Clapper::Thread(thread)) => thread.unpark(),
            // The loop has not slept yet and will look for work before it does.
            None => {}
        }
    }

    /// The loop is about to sleep. `false` when `work` turned up meanwhile: it must go round again.
    #[must_use]
    pub(crate) fn lie_down(&self, work: impl FnOnce() -> bool) -> bool {
        self.asleep.store(true, Ordering::Relaxed);
        // Pairs with the fence in `ring`: either this thread sees the work, or the caller sees the flag.
        fence(Ordering::SeqCst);
        let sleep = !work();
        if !sleep {
            self.rise();
        }
        sleep
    }

    /// The loop is awake: no more rings needed.
    pub(crate) fn rise(&self) {
        self.asleep.store(false, Ordering::Relaxed);
    }

    /// What to poll for readability.
    #[cfg(target_os = "linux")]
    pub(crate) fn event(&self) -> Option<BorrowedFd<'_>> {
        match self.clapper.get() {
            Some(Clapper::Event(event)) => Some(event.as_fd()),
            _ => None,
        }
    }

    /// Takes the rings out of the event, so that it becomes unreadable.
    #[cfg(target_os = "linux")]
    pub(crate) fn hush(&self) {
        if let Some(event) = self.event() {
            let _ = rustix::io::read(event, &mut [0_u8; 8]);
        }
    }

    /// Completes when rung.
    pub(crate) async fn rung(&self) {
        match self.clapper.get() {
            Some(Clapper::Notify(notify)) => notify.notified().await,
            _ => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossbeam::queue::ArrayQueue;
    use std::sync::Arc;

    const ITEMS: u64 = 200_000;

    /// A lost wake-up would leave the consumer asleep for ever, with work in its queue.
    #[cfg(target_os = "linux")]
    #[test]
    fn no_ring_is_lost_between_the_last_look_and_sleep() {
        let bell = Arc::new(Bell::new());
        bell.hang(Clapper::event().expect("a descriptor"));
        let queue = Arc::new(ArrayQueue::new(4));
        let producers: Vec<_> = (0..2)
            .map(|_| {
                let (bell, queue) = (Arc::clone(&bell), Arc::clone(&queue));
                std::thread::spawn(move || {
                    for item in 0..ITEMS {
                        while queue.push(item).is_err() {
                            std::hint::spin_loop();
                        }
                        bell.ring();
                    }
                })
            })
            .collect();
        let mut seen = 0;
        while seen < 2 * ITEMS {
            while queue.pop().is_some() {
                seen += 1;
            }
            if seen < 2 * ITEMS && bell.lie_down(|| !queue.is_empty()) {
                let event = bell.event().expect("hung above");
                let mut poll = [rustix::event::PollFd::new(&event, rustix::event::PollFlags::IN)];
                let patience = rustix::event::Timespec { tv_sec: 20, tv_nsec: 0 };
                assert_eq!(rustix::event::poll(&mut poll, Some(&patience)), Ok(1), "slept through a ring");
                bell.rise();
                bell.hush();
            }
        }
        for producer in producers {
            producer.join().expect("producer");
        }
    }

    #[test]
    fn a_ring_before_the_sleep_is_kept() {
        let bell = Bell::new();
        bell.hang(Clapper::notify());
        assert!(bell.lie_down(|| false));
        bell.ring();
        let mut rung = std::pin::pin!(bell.rung());
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(rung.as_mut().poll(&mut cx).is_ready());
    }

    #[test]
    fn nobody_sleeps_on_work() {
        let bell = Bell::new();
        assert!(!bell.lie_down(|| true));
        assert!(!bell.asleep.load(Ordering::Relaxed));
    }
}
