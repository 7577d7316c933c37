//! Writing through a failure, and reading back what was acknowledged: the same for every system.

use super::{End, Found, Record, clock, key, value};
use crate::generator::{Ask, Client, Done, Failure};
use crate::workload::KEY_BYTES;
use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Between two writes of the open loop.
const PROBE_EVERY: Duration = Duration::from_millis(1);
/// How long answers are waited for when no more writes are sent. What has none by then is unknown: some systems keep a call
/// that was lost with the old leader for many seconds.
const GRACE: Duration = Duration::from_secs(2);
/// Between two looks at the end of the grace.
const LOOK: Duration = Duration::from_millis(10);
/// Reads in flight while what was acknowledged is read back.
const READING: usize = 64;
/// How often a read is tried: one that fails says nothing about what is there.
const READS: usize = 5;

/// What is said when a writer is asked for and there is none.
pub const IDLE: &str = "nothing is being written";
/// Kept with the errors of a round.
const UNANSWERED: &str = "no answer when the round ended";

/// A thread that writes until it is told to end.
pub struct Writer {
    stop: Arc<AtomicBool>,
    newest: Arc<AtomicU64>,
    thread: JoinHandle<Result<Record, String>>,
}

impl Writer {
    /// Begins; the client is made on the thread that makes the calls.
    pub fn begin<C: Client>(
        client: impl FnOnce() -> Result<C, String> + Send + 'static,
        round: u64,
        in_flight: usize,
    ) -> Self {
        let (stop, newest) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (told, seen) = (Arc::clone(&stop), Arc::clone(&newest));
        let thread = std::thread::spawn(move || {
            let mut client = client()?;
            Ok(Loops::new(&mut client, round, in_flight).run(&told, &seen))
        });
        Self { stop, newest, thread }
    }

    /// Whether a write issued after this moment was acknowledged.
    pub fn recovered(&self, since: u64) -> bool {
        self.newest.load(Ordering::Relaxed) > since
    }

    /// Ends it, and tells what became of every write.
    pub fn end(self) -> Result<Record, String> {
        self.stop.store(true, Ordering::Release);
        self.thread.join().map_err(|_| "the writing thread panicked".to_owned())?
    }
}

/// A write on its way.
struct Sent {
    number: usize,
    of_closed_loop: bool,
}

/// The two loops.
struct Loops<'a, C> {
    client: &'a mut C,
    round: u64,
    in_flight: usize,
    record: Record,
    errors: BTreeMap<String, u64>,
    sent: HashMap<u64, Sent>,
    /// Writes of the closed loop on their way.
    closed: usize,
}

impl<'a, C: Client> Loops<'a, C> {
    fn new(client: &'a mut C, round: u64, in_flight: usize) -> Self {
        Self {
            client,
            round,
            in_flight,
            record: Record::default(),
            errors: BTreeMap::new(),
            sent: HashMap::new(),
            closed: 0,
        }
    }

    /// Until told to stop and everything is answered, or the grace is over; `newest` is when the newest of the acknowledged
    /// writes was issued.
    fn run(mut self, stop: &AtomicBool, newest: &AtomicU64) -> Record {
        let mut done = Vec::new();
        let mut probe_at = Instant::now();
        while !stop.load(Ordering::Acquire) {
            for _ in self.closed..self.in_flight {
                self.put(true);
            }
            let now = Instant::now();
            while probe_at <= now {
                self.put(false);
                probe_at += PROBE_EVERY;
            }
            self.client.wait(Some(probe_at), &mut done);
            self.take(&mut done, newest);
        }
        let end = Instant::now() + GRACE;
        while self.client.in_flight() > 0 && Instant::now() < end {
            self.client.wait(Some(Instant::now() + LOOK), &mut done);
            self.take(&mut done, newest);
        }
        if !self.sent.is_empty() {
            self.errors.insert(UNANSWERED.into(), self.sent.len() as u64);
        }
        self.record.errors = self.errors.into_iter().collect();
        self.record
    }

    fn put(&mut self, of_closed_loop: bool) {
        let number = self.record.issued.len();
        let key = Bytes::copy_from_slice(&key(self.round, number as u64));
        let value = Bytes::copy_from_slice(&value(self.round, number as u64));
        self.record.issued.push(clock());
        match self.client.submit(Ask::Put { key: &key, value: &value }) {
            Ok(call) => {
                self.sent.insert(call, Sent { number, of_closed_loop });
                self.closed += usize::from(of_closed_loop);
                self.record.ended.push(u64::MAX);
                self.record.ends.push(End::Unknown);
            }
            Err(message) => {
                *self.errors.entry(message).or_insert(0) += 1;
                self.record.ended.push(clock());
                self.record.ends.push(End::Failed);
            }
        }
    }

    fn take(&mut self, done: &mut Vec<Done>, newest: &AtomicU64) {
        let now = clock();
        for answer in done.drain(..) {
            let Some(Sent { number, of_closed_loop }) = self.sent.remove(&answer.number) else { continue };
            self.closed -= usize::from(of_closed_loop);
            self.record.ended[number] = now;
            self.record.ends[number] = match answer.result {
                Ok(()) => {
                    newest.fetch_max(self.record.issued[number], Ordering::Relaxed);
                    End::Acknowledged
                }
                Err(failure) => {
                    *self.errors.entry(failure.message().to_owned()).or_insert(0) += 1;
                    match failure {
                        Failure::Unknown(_) => End::Unknown,
                        Failure::Refused(_) => End::Failed,
                    }
                }
            };
        }
    }
}

/// Reads linearizably what was acknowledged in a round. A read that keeps failing is an error, and no write is called lost
/// for it.
pub async fn read_back<F>(
    get: impl Fn([u8; KEY_BYTES]) -> F,
    round: u64,
    runs: &[(u64, u64)],
) -> Result<Found, String>
where
    F: Future<Output = Result<Option<Bytes>, String>>,
{
    let get = &get;
    let wanted = runs.iter().flat_map(|&(first, length)| first..first + length);
    let mut answers = stream::iter(wanted.map(|number| async move {
        for _ in 1..READS {
            if let Ok(found) = get(key(round, number)).await {
                return Ok((number, found));
            }
        }
        get(key(round, number)).await.map(|found| (number, found))
    }))
    .buffer_unordered(READING);
    let mut all = Found::default();
    while let Some(answer) = answers.next().await {
        match answer? {
            (number, Some(found)) if found[..] == value(round, number) => all.right += 1,
            (number, _) => all.lost.push(number),
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wait::wait_for;
    use crate::workload::Call;
    use std::cell::Cell;
    use std::collections::BTreeMap;

    #[test]
    fn what_is_missing_or_has_another_value_is_lost_and_the_rest_is_not() {
        let mut store: BTreeMap<[u8; KEY_BYTES], Bytes> =
            (0..100).map(|number| (key(3, number), Bytes::copy_from_slice(&value(3, number)))).collect();
        store.remove(&key(3, 17));
        store.insert(key(3, 40), Bytes::copy_from_slice(&value(3, 41)));
        store.insert(key(3, 60), Bytes::new());
        // Never acknowledged, so it does not matter that it is not there.
        store.remove(&key(3, 50));
        let get = |key| std::future::ready(Ok(store.get(&key).cloned()));
        let mut found = wait_for(read_back(get, 3, &[(0, 50), (51, 49)])).expect("every read is answered");
        found.lost.sort_unstable();
        assert_eq!(found, Found { right: 96, lost: vec![17, 40, 60] });
    }

    #[test]
    fn a_read_that_fails_is_tried_again_and_never_a_loss() {
        let tries = Cell::new(0);
        let get = |asked| {
            tries.set(tries.get() + 1);
            assert_eq!(asked, key(1, 0));
            let there = Ok(Some(Bytes::copy_from_slice(&value(1, 0))));
            std::future::ready(if tries.get() < 3 { Err("no leader".to_owned()) } else { there })
        };
        assert_eq!(wait_for(read_back(get, 1, &[(0, 1)])), Ok(Found { right: 1, lost: Vec::new() }));
        let never = |_| std::future::ready(Err("no leader".to_owned()));
        assert_eq!(wait_for(read_back(never, 1, &[(0, 1)])), Err("no leader".into()));
    }

    /// Answers from what it was given, in order, at once; then not at all.
    struct Script {
        answers: Vec<Result<(), Failure>>,
        waiting: Vec<u64>,
        next: u64,
        stop: Arc<AtomicBool>,
    }

    impl Client for Script {
        fn answers_at_once(&self, _: Call) -> bool {
            false
        }

        fn call(&mut self, _: Ask<'_>) -> Result<(), String> {
            Err("nothing is answered at once".into())
        }

        fn submit(&mut self, ask: Ask<'_>) -> Result<u64, String> {
            let expected = (key(9, self.next), value(9, self.next));
            assert!(
                matches!(ask, Ask::Put { key, value } if (&key[..], &value[..]) == (&expected.0[..], &expected.1[..]))
            );
            self.waiting.push(self.next);
            self.next += 1;
            Ok(self.next - 1)
        }

        fn in_flight(&self) -> usize {
            self.waiting.len()
        }

        fn wait(&mut self, until: Option<Instant>, done: &mut Vec<Done>) {
            if self.answers.is_empty() {
                self.stop.store(true, Ordering::Release);
                // As if the grace were over; nothing more comes.
                self.waiting.clear();
                return;
            }
            assert!(until.is_some(), "it never sleeps without an end");
            for number in self.waiting.drain(..) {
                if !self.answers.is_empty() {
                    done.push(Done { number, result: self.answers.remove(0) });
                }
            }
        }
    }

    #[test]
    fn an_answer_says_how_a_write_ended_and_none_leaves_it_unknown() {
        use End::{Acknowledged, Failed, Unknown};
        let stop = Arc::new(AtomicBool::new(false));
        let answers = vec![
            Ok(()),
            Err(Failure::Unknown("timed out".into())),
            Err(Failure::Refused("too many".into())),
            Ok(()),
        ];
        let mut client = Script { answers, waiting: Vec::new(), next: 0, stop: Arc::clone(&stop) };
        let newest = AtomicU64::new(0);
        let record = Loops::new(&mut client, 9, 4).run(&stop, &newest);
        assert_eq!(record.ends[..4], [Acknowledged, Unknown, Failed, Acknowledged]);
        assert!(record.ends[4..].iter().all(|end| *end == Unknown) && record.ends.len() > 4);
        assert_eq!(newest.load(Ordering::Relaxed), record.issued[3]);
        let errors: BTreeMap<_, _> = record.errors.iter().cloned().collect();
        assert_eq!((errors["timed out"], errors["too many"]), (1, 1));
        assert_eq!(errors[UNANSWERED], record.ends.len() as u64 - 4);
    }
}
