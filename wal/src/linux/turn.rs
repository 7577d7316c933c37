//! When a thread gets its turn: what the kernel's interface for that wants to be told.

use std::ptr::{from_mut, from_ref};

/// `struct sched_attr` in its first version (`include/uapi/linux/sched/types.h`), for which libc has no name.
#[repr(C)]
#[derive(Default)]
struct Attributes {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

const BYTES: u32 = 48;
const _: () = assert!(size_of::<Attributes>() == BYTES as usize);

const ORDINARY: u32 = libc::SCHED_OTHER.cast_unsigned();
const FIFO: u32 = libc::SCHED_FIFO.cast_unsigned();
const ROUND_ROBIN: u32 = libc::SCHED_RR.cast_unsigned();
const HIGHEST: u32 = 99;

/// The shortest slice that may be asked for (`kernel/sched/syscalls.c`), in nanoseconds.
const SHORTEST_SLICE: u64 = 100_000;

/// For a thread that works in short turns and sleeps between them: when it wakes on the core of a thread that just goes on,
/// it comes first. Under a real-time policy by one step of priority, otherwise by a short slice, which from Linux 6.12 on a
/// thread with a longer one gives way to; it gets no more of the processor by that. Where it is refused, all stays as it is.
pub(crate) fn come_first() {
    let Some(mut attributes) = Attributes::of_this_thread() else { return };
    match attributes.policy {
        FIFO | ROUND_ROBIN if attributes.priority < HIGHEST => attributes.priority += 1,
        ORDINARY => attributes.runtime = SHORTEST_SLICE,
        _ => return,
    }
    // SAFETY: the kernel reads as many bytes as `size` says, which is the size of the structure; 0 is this thread.
    unsafe { libc::syscall(libc::SYS_sched_setattr, 0, from_ref(&attributes), 0) };
}

impl Attributes {
    fn of_this_thread() -> Option<Self> {
        let mut attributes = Self::default();
        // SAFETY: the kernel writes at most the stated number of bytes, which is the size of the structure; 0 is this thread.
        let told = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, from_mut(&mut attributes), BYTES, 0) };
        attributes.size = BYTES;
        (told == 0).then_some(attributes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attributes() -> Attributes {
        Attributes::of_this_thread().expect("a thread may ask about itself")
    }

    #[test]
    fn a_thread_that_comes_first_has_a_short_slice_and_no_more_weight() {
        let (before, after) = std::thread::spawn(|| {
            let before = attributes();
            come_first();
            (before, attributes())
        })
        .join()
        .expect("it only asks");
        assert_eq!((after.policy, after.nice), (before.policy, before.nice));
        match before.policy {
            // Kernels without slices of a thread's own say 0 before and after.
            ORDINARY if before.runtime > 0 => assert_eq!(after.runtime, SHORTEST_SLICE),
            ORDINARY => assert_eq!(after.runtime, 0),
            _ => assert!(after.priority >= before.priority),
        }
    }
}
