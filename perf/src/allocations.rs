//! Counts what the process allocates, on top of jemalloc.
//!
//! Each thread adds to a counter on a cache line of its own, so that counting costs one uncontended addition and does
//! not couple the threads that are being measured. A `realloc` counts as one allocation: it may move.

use std::alloc::{GlobalAlloc, Layout};
use std::cell::Cell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use tikv_jemallocator::Jemalloc;

/// Jemalloc that counts.
pub struct Counting;

const SLOTS: usize = 64;

#[repr(align(128))]
struct Slot {
    allocations: AtomicU64,
    bytes: AtomicU64,
}

static SLOTS_OF_THREADS: [Slot; SLOTS] =
    [const { Slot { allocations: AtomicU64::new(0), bytes: AtomicU64::new(0) } }; SLOTS];
static NEXT_SLOT: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    // Const-initialised and without a destructor: usable from inside the allocator at any time of a thread's life.
    static SLOT: Cell<usize> = const { Cell::new(usize::MAX) };
}

fn count(bytes: usize) {
    let slot = SLOT.with(|slot| {
        if slot.get() == usize::MAX {
            slot.set(NEXT_SLOT.fetch_add(1, Ordering::Relaxed) % SLOTS);
        }
        &SLOTS_OF_THREADS[slot.get()]
    });
    slot.allocations.fetch_add(1, Ordering::Relaxed);
    slot.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
}

/// Allocations and bytes asked for since the process began.
#[derive(Clone, Copy, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Allocations {
    /// How many.
    pub count: u64,
    /// How many bytes in all.
    pub bytes: u64,
}

impl Allocations {
    /// Those between `earlier` and `self`.
    pub fn since(self, earlier: Self) -> Self {
        Self {
            count: self.count.saturating_sub(earlier.count),
            bytes: self.bytes.saturating_sub(earlier.bytes),
        }
    }
}

/// The sums over all threads, alive or ended.
pub fn so_far() -> Allocations {
    SLOTS_OF_THREADS.iter().fold(Allocations::default(), |sum, slot| Allocations {
        count: sum.count + slot.allocations.load(Ordering::Relaxed),
        bytes: sum.bytes + slot.bytes.load(Ordering::Relaxed),
    })
}

// SAFETY: every call is passed on unchanged to jemalloc, which upholds the contract; counting touches only atomics and
// a thread-local without a destructor, and allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller's promises about `layout` are passed on.
        unsafe { Jemalloc.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: as above.
        unsafe { Jemalloc.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: `pointer` came from this allocator, which is jemalloc, with this `layout`.
        unsafe { Jemalloc.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        count(new_size);
        // SAFETY: as for `dealloc`; the caller's promises about `new_size` are passed on.
        unsafe { Jemalloc.realloc(pointer, layout, new_size) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_allocation_is_counted_once_with_its_size() {
        let before = so_far();
        let boxed = std::hint::black_box(vec![0_u8; 4096]);
        let after = so_far();
        assert!(after.count > before.count);
        assert!(after.bytes - before.bytes >= boxed.len() as u64);
    }
}
