//! For callers without an executor: a thread that sleeps until it is woken.

use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{Thread, ThreadId};

/// Keeps the waker of the thread that slept last: it is mostly the same one.
#[derive(Default)]
pub(super) struct Parking(Option<(ThreadId, Waker)>);

impl Parking {
    /// Polls until it is ready.
    pub(super) fn wait<T>(&mut self, mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>) -> T {
        let thread = std::thread::current();
        let waker = match self.0.take() {
            Some((id, waker)) if id == thread.id() => waker,
            _ => Waker::from(Arc::new(Unpark(thread.clone()))),
        };
        let mut cx = Context::from_waker(&waker);
        let ready = loop {
            if let Poll::Ready(ready) = poll(&mut cx) {
                break ready;
            }
            std::thread::park();
        };
        self.0 = Some((thread.id(), waker));
        ready
    }
}

/// Wakes a parked thread.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.unpark();
    }
}
