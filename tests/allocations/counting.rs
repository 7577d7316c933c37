//! An allocator that counts, and on demand notes where allocations come from.
//!
//! Each thread counts on a cache line of its own. A `realloc` counts as one allocation: it may move.

use std::alloc::{GlobalAlloc, Layout, System};
use std::backtrace::Backtrace;
use std::cell::Cell;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// The system's allocator, counted.
pub struct Counting;

const SLOTS: usize = 64;

#[repr(align(128))]
struct Slot(AtomicU64);

static OF_THREADS: [Slot; SLOTS] = [const { Slot(AtomicU64::new(0)) }; SLOTS];
static NEXT: AtomicUsize = AtomicUsize::new(0);
/// Every how many allocations one is noted; 0 is none of them.
static SAMPLED: AtomicU64 = AtomicU64::new(0);
static SAMPLES: Mutex<Vec<Sample>> = Mutex::new(Vec::new());

thread_local! {
    // Const-initialised and without a destructor: usable from inside the allocator at any time of a thread's life.
    static SLOT: Cell<usize> = const { Cell::new(usize::MAX) };
    static OWN: Cell<u64> = const { Cell::new(0) };
    static NOTING: Cell<bool> = const { Cell::new(false) };
}

/// An allocation that was noted.
pub struct Sample {
    pub thread: String,
    pub bytes: usize,
    pub backtrace: Backtrace,
}

fn count(bytes: usize) {
    if NOTING.get() {
        return;
    }
    if SLOT.get() == usize::MAX {
        SLOT.set(NEXT.fetch_add(1, Ordering::Relaxed) % SLOTS);
    }
    let own = OWN.get() + 1;
    OWN.set(own);
    OF_THREADS[SLOT.get()].0.fetch_add(1, Ordering::Relaxed);
    let every = SAMPLED.load(Ordering::Relaxed);
    if every != 0 && own.is_multiple_of(every) {
        note(bytes);
    }
}

#[cold]
fn note(bytes: usize) {
    NOTING.set(true);
    let thread = std::thread::current().name().unwrap_or("unnamed").to_owned();
    let sample = Sample { thread, bytes, backtrace: Backtrace::force_capture() };
    if let Ok(mut samples) = SAMPLES.lock() {
        samples.push(sample);
    }
    NOTING.set(false);
}

/// How many this thread has made.
pub fn of_this_thread() -> u64 {
    OWN.get()
}

/// How many all threads have made, alive or ended.
pub fn of_all_threads() -> u64 {
    OF_THREADS.iter().map(|slot| slot.0.load(Ordering::Relaxed)).sum()
}

/// Notes one in `every` allocations of each thread while `work` runs; the count of all threads right after it, too.
pub fn sampled(every: u64, work: impl FnOnce()) -> (Vec<Sample>, u64) {
    SAMPLED.store(every, Ordering::Relaxed);
    work();
    SAMPLED.store(0, Ordering::Relaxed);
    let after = of_all_threads();
    NOTING.set(true);
    let samples = SAMPLES.lock().map(|mut samples| std::mem::take(&mut *samples)).unwrap_or_default();
    NOTING.set(false);
    (samples, after)
}

// SAFETY: every call is passed on unchanged to the system's allocator, which upholds the contract. Counting touches only
// atomics and thread-locals without a destructor; what noting allocates comes back here and is passed on uncounted.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller's promises about `layout` are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: `pointer` came from this allocator, which is the system's, with this `layout`.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        count(new_size);
        // SAFETY: as for `dealloc`; the caller's promises about `new_size` are passed on.
        unsafe { System.realloc(pointer, layout, new_size) }
    }
}
