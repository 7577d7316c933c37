//! Every bit, sector, block and length of a log damaged, one after the other, in memory: what the crate's own test does with
//! 1 MiB, for any size and on all processors.

use std::panic::catch_unwind;
use std::thread;
use std::time::Instant;

use wal::every_bit::{Corpus, Tally};

use crate::report::Report;

/// How much.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Size of the log.
    pub mib: u32,
    /// Whole openings with one random bit flipped.
    pub openings: usize,
    /// Others that each sector and block is replaced with.
    pub partners: usize,
    /// Of the random choices.
    pub seed: u64,
}

/// Damage everything. What is served wrongly, or missing, is a violation and names its place.
pub fn run(plan: &Plan) -> Report {
    let mut report = Report::new(format!("every bit of a log of {} MiB (seed {})", plan.mib, plan.seed));
    let start = Instant::now();
    let parts = thread::available_parallelism().map_or(1, usize::from);
    let part = |part| catch_unwind(|| damaged(plan, part, parts));
    let done: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (0..parts).map(|n| scope.spawn(move || part(n))).collect();
        threads.into_iter().map(|thread| thread.join().and_then(|done| done)).collect()
    });
    let mut tally = Tally::default();
    for part in done {
        match part {
            Ok(counts) => tally.merge(counts),
            Err(panic) => {
                let said = panic.downcast_ref::<String>().cloned();
                report.violation(said.unwrap_or_else(|| "a part of the work panicked".into()));
            }
        }
    }
    let [refused, harmless] = tally.totals();
    report.fact("places damaged", refused + harmless);
    report.fact("verdicts", format!("\n{tally}\n"));
    report.fact("took", format!("{:.1} s on {parts} threads", start.elapsed().as_secs_f64()));
    report.require(refused > harmless, || "most of a log must not be free to change".into());
    report
}

fn damaged(plan: &Plan, part: usize, parts: usize) -> Tally {
    let bytes = usize::try_from(plan.mib).expect("bounded by the command line") << 20;
    let mut corpus = Corpus::new(bytes, 1);
    let mut tally = Tally::default();
    corpus.flip_every_bit(part, parts, &mut tally);
    corpus.replace_every_unit(&Corpus::new(bytes, 2), plan.partners, (part, parts), &mut tally);
    corpus.open_with_flipped_bits(plan.openings / parts, plan.seed + part as u64, &mut tally);
    if part == 0 {
        // Each length costs an opening, so a long log has fewer of them.
        let step = 512 * usize::try_from(plan.mib).expect("bounded by the command line");
        corpus.change_every_length(step, &mut tally);
    }
    tally
}
