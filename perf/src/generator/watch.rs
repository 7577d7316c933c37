//! One writer and many watchers, for any system: the next write is sent when everybody has seen the last one, so that a
//! lag is one write's and not a queue's.

use super::Tally;
use crate::protocol::Loaded;
use futures_util::future::Either;
use futures_util::stream::{Stream, StreamExt};
use std::future::Future;
use std::pin::pin;
use std::time::{Duration, Instant};

/// Keys that are written in turn, below the prefix that is watched.
const KEYS: u64 = 16;

/// The prefix that is watched.
pub const PREFIX: &str = "fan/";

/// The key of a write.
pub fn key(number: u64) -> String {
    format!("{PREFIX}{}", number % KEYS)
}

/// Writes until the slice ends, each value beginning with its number as eight bytes; `deliveries` yields the numbers as
/// the watchers see them.
pub async fn run<F>(
    mut put: impl FnMut(u64) -> F,
    deliveries: &mut (impl Stream<Item = Result<u64, String>> + Unpin),
    watchers: u32,
    slice: Duration,
) -> Loaded
where
    F: Future<Output = Result<(), String>>,
{
    let mut tally = Tally::new();
    let began = Instant::now();
    let mut number = 0;
    let mut now = began;
    while now < began + slice {
        number += 1;
        let sent = now;
        let mut acknowledged = pin!(put(number));
        let (mut answered, mut seen) = (false, 0);
        while seen < watchers || !answered {
            let delivery = if answered {
                deliveries.next().await
            } else {
                match futures_util::future::select(&mut acknowledged, deliveries.next()).await {
                    Either::Left((result, _)) => {
                        answered = true;
                        if let Err(message) = result {
                            tally.fail(message);
                            return tally.loaded(began.elapsed(), 0);
                        }
                        continue;
                    }
                    Either::Right((delivery, _)) => delivery,
                }
            };
            match delivery {
                // Of a slice that ended early; its writers are gone.
                Some(Ok(of)) if of != number => {}
                Some(Ok(_)) => {
                    seen += 1;
                    tally.succeed(sent.elapsed());
                }
                Some(Err(message)) => tally.fail(message),
                None => {
                    tally.fail("a watch ended".into());
                    return tally.loaded(began.elapsed(), 0);
                }
            }
        }
        now = Instant::now();
    }
    tally.loaded(now - began, 0)
}

/// The number at the beginning of a value.
pub fn number(value: &[u8]) -> Result<u64, String> {
    value
        .first_chunk()
        .map(|bytes| u64::from_le_bytes(*bytes))
        .ok_or_else(|| "a value without its number".into())
}

/// A value of some length that begins with a number.
pub fn value(number: u64, length: usize) -> Vec<u8> {
    let mut value = vec![7; length.max(8)];
    value[..8].copy_from_slice(&number.to_le_bytes());
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wait::wait_for;
    use std::cell::RefCell;
    use std::collections::VecDeque;
    use std::rc::Rc;

    #[test]
    fn every_watcher_counts_and_none_twice() {
        let queue = Rc::new(RefCell::new(VecDeque::new()));
        let put = |number| {
            let queue = Rc::clone(&queue);
            async move {
                // One of an earlier slice, and three of this one.
                queue.borrow_mut().extend([number + 1000, number, number, number]);
                Ok(())
            }
        };
        let source = Rc::clone(&queue);
        let mut deliveries = futures_util::stream::poll_fn(move |_| match source.borrow_mut().pop_front() {
            Some(number) => std::task::Poll::Ready(Some(Ok(number))),
            None => std::task::Poll::Pending,
        });
        let loaded = wait_for(run(put, &mut deliveries, 3, Duration::from_millis(1)));
        assert!(loaded.operations >= 3 && loaded.operations % 3 == 0, "{}", loaded.operations);
        assert_eq!(loaded.errors, []);
    }
}
