//! Noticing that the machine itself stood still.
//!
//! A machine that is paused, or lent to somebody else for a second, makes every outage longer and no promise weaker. A thread
//! that only sleeps sees it: what it overslept, everybody overslept. Times measured across such a gap are set aside and said
//! to be, not judged.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::stamp::Stamp;

/// How often it looks.
const STEP: Duration = Duration::from_millis(5);
/// Oversleeping by less is the scheduler's right.
const GAP: Duration = Duration::from_millis(150);

/// A watch over this machine's attention.
#[derive(Debug)]
pub struct Stalls {
    seen: Arc<Mutex<Vec<(Stamp, Stamp)>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Stalls {
    /// Begin to watch.
    pub fn watch() -> Self {
        let (seen, stop) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let thread = std::thread::spawn({
            let (seen, stop) = (Arc::clone(&seen), Arc::clone(&stop));
            move || {
                let mut last = Stamp::now();
                while !stop.load(Ordering::Relaxed) {
                    std::thread::sleep(STEP);
                    let now = Stamp::now();
                    if now.since(last) > GAP {
                        seen.lock().unwrap_or_else(PoisonError::into_inner).push((last, now));
                    }
                    last = now;
                }
            }
        });
        Self { seen, stop, thread: Some(thread) }
    }

    /// Whether the machine stood still at some time of this span.
    pub fn during(&self, from: Stamp, to: Stamp) -> bool {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.iter().any(|(begin, end)| *begin < to && *end > from)
    }
}

impl Drop for Stalls {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_tainted_by_what_overlaps_it() {
        let stalls = Stalls::watch();
        *stalls.seen.lock().unwrap() = vec![(Stamp(100), Stamp(200))];
        for (from, to, tainted) in
            [(0, 100, false), (0, 101, true), (150, 160, true), (199, 300, true), (200, 300, false)]
        {
            assert_eq!(stalls.during(Stamp(from), Stamp(to)), tainted, "{from}..{to}");
        }
    }
}
