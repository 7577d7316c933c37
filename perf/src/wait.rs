//! Waiting for a future on a plain thread: what a program without an async runtime does.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::Instant;

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.unpark();
    }
}

/// Sleeps until `future` is done. A future that is ready at once costs no waker.
pub fn wait_for<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        return output;
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
        std::thread::park();
    }
}

/// A thread's own way to sleep until an answer comes or a time is reached.
pub struct Sleeper {
    waker: Waker,
}

impl Sleeper {
    /// For the calling thread.
    pub fn new() -> Self {
        Self { waker: Waker::from(Arc::new(Unpark(std::thread::current()))) }
    }

    /// Polls until it is ready or `until` has come; says whether it was ready.
    pub fn poll_until(&self, until: Instant, mut poll: impl FnMut(&mut Context<'_>) -> Poll<()>) -> bool {
        let mut context = Context::from_waker(&self.waker);
        loop {
            if poll(&mut context).is_ready() {
                return true;
            }
            let now = Instant::now();
            if now >= until {
                return false;
            }
            std::thread::park_timeout(until - now);
        }
    }

    /// Sleeps until then, whatever wakes the thread before.
    pub fn sleep_until(&self, until: Instant) {
        self.poll_until(until, |_| Poll::Pending);
    }
}
