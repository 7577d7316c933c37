//! Asking the processor for memory that will be needed soon, so that nobody waits for it then.
//!
//! A store is larger than any cache, and the history makes every put touch what was not touched for a hundred thousand
//! others. Where they lie is known long before. A hint: on other processors there is none.

const LINE: usize = 64;

/// All lines of a buffer.
#[inline]
pub(super) fn slice(bytes: &[u8]) {
    for line in bytes.chunks(LINE) {
        at(line.as_ptr());
    }
}

#[inline]
fn at(place: *const u8) {
    #[cfg(target_arch = "x86_64")]
    {
        use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch reads nothing into the program, changes nothing that it sees, and never faults, whatever the
        // address (Intel's manual, volume 2, PREFETCHh); SSE, which has it, is in every x86-64.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(place.cast()) }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = place;
}
