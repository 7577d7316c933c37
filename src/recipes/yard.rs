//! The keeper's thread: a few futures, a few deadlines, and sleep.
//!
//! Promises: a future is polled when its waker was woken and not otherwise; the thread sleeps when there is nothing to do,
//! until the next deadline at most. It ends when it was [closed](Yard::close) and its last future is done.
//!
//! Assumes: that the futures do not block.

use crate::raft::Mono;
use crate::runtime::clock;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::Duration;

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Shared by the thread and those who give it work.
pub(super) struct Yard {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    thread: Option<Thread>,
    closed: bool,
    next: u64,
    /// Not seen by the thread yet.
    fresh: Vec<(u64, Task)>,
    /// Woken since they were last polled.
    woken: Vec<u64>,
    deadlines: BTreeMap<(Mono, u64), Waker>,
}

impl State {
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }
}

impl Yard {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { state: Mutex::new(State::default()) })
    }

    /// Starts the thread, unless it runs.
    pub(super) fn start(self: &Arc<Self>) -> std::io::Result<()> {
        let mut state = self.state.lock();
        if state.thread.is_none() {
            let yard = Arc::clone(self);
            let thread = std::thread::Builder::new().name("d-engine-keeper".into());
            // It asks for the lock first, and so finds itself entered.
            let running = thread.spawn(move || yard.run())?;
            state.thread = Some(running.thread().clone());
        }
        Ok(())
    }

    /// Has `task` polled by the thread, from now until it is done.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut state = self.state.lock();
        let number = state.number();
        state.fresh.push((number, Box::pin(task)));
        state.unpark();
    }

    /// The thread ends when it has nothing left to do.
    pub(super) fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        state.unpark();
    }

    /// Completes at `at`, while the thread runs.
    pub(super) fn sleep_until(self: &Arc<Self>, at: Mono) -> Sleep {
        Sleep { yard: Arc::clone(self), at, number: None }
    }

    fn run(self: Arc<Self>) {
        let mut tasks: BTreeMap<u64, (Task, Arc<Flag>)> = BTreeMap::new();
        loop {
            let now = clock::mono();
            let mut state = self.state.lock();
            let later = state.deadlines.split_off(&(now, u64::MAX));
            let due = std::mem::replace(&mut state.deadlines, later);
            let next = state.deadlines.first_key_value().map(|(&(at, _), _)| at);
            let (fresh, mut woken) = (std::mem::take(&mut state.fresh), std::mem::take(&mut state.woken));
            let closed = state.closed;
            drop(state);

            for (number, task) in fresh {
                let flag = Arc::new(Flag { number, yard: Arc::clone(&self), woken: AtomicBool::new(true) });
                tasks.insert(number, (task, flag));
                woken.push(number);
            }
            if due.is_empty() && woken.is_empty() {
                if closed && tasks.is_empty() {
                    return;
                }
                match next {
                    Some(at) => std::thread::park_timeout(Duration::from_nanos(at.0.saturating_sub(now.0))),
                    None => std::thread::park(),
                }
            }
            due.into_values().for_each(Waker::wake);
            for number in woken {
                let Some((task, flag)) = tasks.get_mut(&number) else { continue };
                // Whoever wakes it from here on has it polled again.
                flag.woken.store(false, Ordering::SeqCst);
                let waker = Waker::from(Arc::clone(flag));
                if task.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() {
                    tasks.remove(&number);
                }
            }
        }
    }
}

impl State {
    fn unpark(&self) {
        if let Some(thread) = &self.thread {
            thread.unpark();
        }
    }
}

/// Wakes one future.
struct Flag {
    number: u64,
    yard: Arc<Yard>,
    woken: AtomicBool,
}

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.woken.swap(true, Ordering::SeqCst) {
            let mut state = self.yard.state.lock();
            state.woken.push(self.number);
            state.unpark();
        }
    }
}

/// Completes when it is that late, by the clock that counts a machine's sleep. A deadline that passes while the machine is
/// suspended is noticed late.
pub(super) struct Sleep {
    yard: Arc<Yard>,
    at: Mono,
    number: Option<u64>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if clock::mono() >= self.at {
            return Poll::Ready(());
        }
        let this = &mut *self;
        let mut state = this.yard.state.lock();
        let number = *this.number.get_or_insert_with(|| state.number());
        let replaced = state.deadlines.insert((this.at, number), cx.waker().clone());
        if state.deadlines.first_key_value().is_some_and(|(&(_, first), _)| first == number) {
            state.unpark();
        }
        drop(state);
        drop(replaced);
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            let waker = self.yard.state.lock().deadlines.remove(&(self.at, number));
            drop(waker);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    fn after(by: Duration) -> Mono {
        clock::mono().after(by)
    }

    #[test]
    fn deadlines_come_in_order_and_the_thread_ends() {
        let yard = Yard::new();
        let (say, said) = channel();
        for millis in [30, 10, 20] {
            let (sleep, say) = (yard.sleep_until(after(Duration::from_millis(millis))), say.clone());
            yard.spawn(async move {
                sleep.await;
                say.send(millis).expect("somebody listens");
            });
        }
        drop(say);
        yard.start().expect("a thread");
        yard.start().expect("the same");
        yard.close();
        assert_eq!(said.iter().collect::<Vec<_>>(), [10, 20, 30]);
        // The thread holds the yard until it ends.
        while Arc::strong_count(&yard) > 1 {
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_dropped_deadline_is_forgotten() {
        let yard = Yard::new();
        let mut sleep = Box::pin(yard.sleep_until(after(Duration::from_secs(3600))));
        assert!(sleep.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        assert_eq!(yard.state.lock().deadlines.len(), 1);
        drop(sleep);
        assert_eq!(yard.state.lock().deadlines.len(), 0);
    }

    /// A future that yields is polled again at once, and one that waits is not.
    #[test]
    fn a_task_is_polled_when_it_was_woken_and_not_otherwise() {
        let yard = Yard::new();
        yard.start().expect("a thread");
        let (say, said) = channel();
        let mut polls = 0;
        yard.spawn(std::future::poll_fn(move |cx| {
            polls += 1;
            say.send((polls, cx.waker().clone())).expect("somebody listens");
            if polls == 1 {
                cx.waker().wake_by_ref();
            }
            if polls == 3 { Poll::Ready(()) } else { Poll::Pending }
        }));
        let (_, _) = said.recv().expect("polled");
        let (polls, waker) = said.recv().expect("it woke itself");
        assert_eq!(polls, 2);
        assert!(said.try_recv().is_err());
        waker.wake();
        assert_eq!(said.recv().expect("woken").0, 3);
        assert!(said.recv().is_err(), "done and dropped");
        yard.close();
    }
}
