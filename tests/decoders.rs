//! Every decoder of the core against its corpus, prefixes, flipped bits and seeded splices (`fuzz/` has the same targets
//! for a real fuzzer). `REWRITE_CORPUS=1` writes the generated corpus anew; files beside it are inputs that once found
//! a bug.

#[path = "../fuzz/src/allocation.rs"]
mod allocation;
#[path = "../fuzz/src/decoders.rs"]
mod decoders;
#[path = "../fuzz/src/run.rs"]
mod run;
#[path = "../fuzz/src/seeds.rs"]
mod seeds;

use decoders::{mend_frames, mend_message, mend_nothing, mend_sectors, mend_segment};
use run::Decoder;

fn fuzz(
    name: &'static str,
    target: fn(&[u8]) -> decoders::Verdict,
    mend: fn(&mut [u8]),
    seeds: seeds::Seeds,
    executions: u32,
) {
    let tally = Decoder { name, target, mend, seeds, executions }.run();
    eprintln!("{name}: {tally:#?}");
}

#[test]
fn frames() {
    fuzz("frame", decoders::frame, mend_frames, seeds::frame(), 100_000);
}

#[test]
fn commands() {
    fuzz("command", decoders::command, mend_nothing, seeds::command(), 100_000);
}

#[test]
fn replies() {
    fuzz("reply", decoders::reply, mend_nothing, seeds::reply(), 100_000);
}

#[test]
fn messages() {
    fuzz("message", decoders::message, mend_message, seeds::message(), 100_000);
}

#[test]
fn memberships() {
    fuzz("membership", decoders::membership, mend_nothing, seeds::membership(), 100_000);
}

#[test]
fn segment_headers() {
    fuzz("header", decoders::header, mend_sectors, seeds::header(), 10_000);
}

#[test]
fn hard_states() {
    fuzz("state", decoders::state, mend_sectors, seeds::state(), 10_000);
}

#[test]
fn segments() {
    fuzz("segment", decoders::segment, mend_segment, seeds::segment(), 10_000);
}
