//! Memory that a decoder takes, counted, so that "bounded by the input" can be asserted.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

thread_local! {
    // Const-initialised and without a destructor: usable from inside the allocator at any time of a thread's life.
    static TAKEN: Cell<usize> = const { Cell::new(0) };
}

fn count(bytes: usize) {
    TAKEN.with(|taken| taken.set(taken.get().saturating_add(bytes)));
}

// SAFETY: every call is passed on unchanged to the system's allocator, which upholds the contract; counting touches only a
// thread-local without a destructor, and allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

/// Runs a decoder.
///
/// # Panics
/// If it asks for more memory, all requests added up, than `factor` times its input and 4 KiB.
pub fn bounded<T>(input: &[u8], factor: usize, decode: impl FnOnce() -> T) -> T {
    let before = TAKEN.with(Cell::get);
    let decoded = decode();
    let taken = TAKEN.with(Cell::get) - before;
    let limit = factor * input.len() + 4096;
    assert!(taken <= limit, "{taken} bytes of memory for {} bytes of input, limit {limit}", input.len());
    decoded
}
