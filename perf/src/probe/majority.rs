//! What a majority of logs on one disk needs: three writes and flushes that begin at once, until the second is done.
//!
//! No commit of three nodes that share a disk can be acknowledged sooner, whatever lies between them: the disk serves their
//! flushes in turn. The difference to one flush alone is this machine's, not an engine's.

use super::FlushFile;
use std::io;
use std::path::Path;
use std::sync::{Barrier, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// As many logs as a cluster has nodes.
const LOGS: usize = 3;

/// `rounds` times the time from when all begin until two are done.
pub fn flushes(directory: &Path, rounds: usize) -> io::Result<Vec<Duration>> {
    let logs = (0..LOGS).map(|number| FlushFile::make(directory.join(format!("flush-probe-{number}"))));
    let logs = logs.collect::<io::Result<Vec<_>>>()?;
    let line = Barrier::new(LOGS);
    let finishes = (0..rounds).map(|_| Mutex::new(Vec::with_capacity(LOGS))).collect::<Vec<_>>();
    std::thread::scope(|threads| {
        let writers: Vec<_> = logs
            .iter()
            .map(|log| {
                threads.spawn(|| {
                    let mut result = Ok(());
                    for (round, finishes) in finishes.iter().enumerate() {
                        line.wait();
                        let began = Instant::now();
                        // Who has failed still meets the others at the line: nobody waits for ever.
                        if result.is_ok() {
                            result = log.write_and_flush(round);
                        }
                        let finish = (began, Instant::now());
                        finishes.lock().unwrap_or_else(PoisonError::into_inner).push(finish);
                    }
                    result
                })
            })
            .collect();
        writers.into_iter().try_for_each(|writer| writer.join().expect("a probe does not panic"))
    })?;
    Ok(finishes.into_iter().map(|finishes| second(finishes.into_inner().unwrap_or_default())).collect())
}

/// From the first beginning to the second end.
fn second(mut times: Vec<(Instant, Instant)>) -> Duration {
    let began = times.iter().map(|&(began, _)| began).min();
    times.sort_unstable_by_key(|&(_, ended)| ended);
    let ended = times.get(LOGS / 2).map(|&(_, ended)| ended);
    began.zip(ended).map_or(Duration::ZERO, |(began, ended)| ended.duration_since(began))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_end_counts_from_the_first_beginning() {
        let zero = Instant::now();
        let at = |millis| zero + Duration::from_millis(millis);
        assert_eq!(
            second(vec![(at(2), at(30)), (at(1), at(90)), (at(3), at(10))]),
            Duration::from_millis(29)
        );
        assert_eq!(second(Vec::new()), Duration::ZERO);
    }
}
