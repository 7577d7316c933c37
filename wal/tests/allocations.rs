//! An append of the steady state allocates nothing in the log: counted, on the thread that appends.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod common;
#[path = "../benches/disk/counting.rs"]
mod counting;

use common::*;
use wal::*;

#[global_allocator]
static ALLOCATOR: counting::Counting = counting::Counting;

const WARM: usize = 400;
const COUNTED: usize = 400;
/// The map from index to place has one mark for every 128 KiB of log, in a vector that doubles: from 13 to 25 marks here.
const MAP: u64 = 1;

#[test]
fn an_append_of_the_steady_state_allocates_nothing() {
    for which in writers() {
        let dir = tempfile::tempdir().unwrap();
        let (mut log, _) =
            Log::open(which, Options { segment_bytes: 64 << 20, ..options(dir.path()) }).unwrap();
        let mut allocated = 0;
        for n in 0..WARM + COUNTED {
            let frames = vec![log.next_frame(&[7; 500])];
            let before = counting::allocations();
            let id = log.submit(None, frames, LogIndex::ZERO);
            log.wait(id);
            if n >= WARM {
                allocated += counting::allocations() - before;
            }
        }
        assert_eq!(log.stats().flushes, (WARM + COUNTED) as u64, "one flush each");
        assert!(allocated <= MAP, "{which:?}: {allocated} allocations in {COUNTED} appends");
        log.close().unwrap();
    }
}
