//! O6 once more, by search (Wing and Gong 1993, Lowe 2017): is there, key by key and without a look at revisions, an
//! order of the calls that explains all answers and respects real time? The search is the crate `history`'s.
//!
//! At the end of a run, for keys that were never deleted, in runs in which nothing reaches several keys (a search needs every value to have one writer) with at most so
//! many calls and clients that it stays quick. Eventual reads promise less and are left out.

use super::calls::Call;
use super::fast::FastMap;
use super::model::{Told, number};
use super::{Outcome, violated};
use crate::sim::observation::{Ask, Level};
use history::{Answer, End, History, Operation};

pub(super) const NAME: &str = "search";

/// The most calls of one key that are searched.
const CALLS: usize = 10_000;
/// The most clients.
const CLIENTS: usize = 8;

/// How much was searched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Searched {
    pub(super) keys: u64,
    pub(super) operations: u64,
    pub(super) skipped: u64,
}

#[derive(Default)]
struct Key {
    operations: Vec<Operation>,
    clients: Vec<u64>,
    deleted: bool,
}

pub(super) fn judge<'a>(calls: impl Iterator<Item = &'a Call>) -> Outcome<Searched> {
    let mut keys: FastMap<u64, Key> = FastMap::default();
    let mut whole = false;
    for call in calls {
        let (key, operation) = match call.ask {
            Ask::Delete { key } | Ask::PutAttached { key, .. } | Ask::SwapAttached { key, .. } => {
                keys.entry(key).or_default().deleted = true;
                continue;
            }
            Ask::Put { key, .. } | Ask::Swap { key, .. } | Ask::Get { key, .. } => (key, operation(call)),
            Ask::Txn { .. } | Ask::DeleteRange { .. } => {
                whole = true;
                continue;
            }
            _ => continue,
        };
        let Some(operation) = operation else { continue };
        let known = keys.entry(key).or_default();
        if !known.clients.contains(&call.client.0) {
            known.clients.push(call.client.0);
        }
        known.operations.push(Operation { key: key.to_string(), ..operation });
    }
    let mut searched = Searched::default();
    for key in keys.into_values() {
        if whole || key.deleted || key.operations.len() > CALLS || key.clients.len() > CLIENTS {
            searched.skipped += 1;
            continue;
        }
        searched.keys += 1;
        searched.operations += key.operations.len() as u64;
        let verdict = key.operations.into_iter().collect::<History>().check_by_key();
        if let Err(violation) = verdict {
            violated!(true, NAME, "{violation}");
        }
    }
    Ok(searched)
}

/// A call as the search knows it; none if it says nothing.
fn operation(call: &Call) -> Option<Operation> {
    let asked = match call.ask {
        Ask::Put { value, .. } => history::Call::Put { value },
        Ask::Swap { expected, value, .. } => history::Call::CompareAndSwap { expected, value },
        Ask::Get { level: Level::Linearizable | Level::Lease, .. } => history::Call::Get,
        _ => return None,
    };
    let at = call.ended.map(|at| at.0);
    let answered = |answer, revision| End::Answered { at: at.unwrap_or(u64::MAX), answer, revision };
    let end = match (&call.told, call.saw) {
        (Some(Told::Put { revision } | Told::Swapped { revision }), _) => answered(Answer::Done, *revision),
        (Some(Told::NotSwapped { revision, current }), _) => {
            let current = current.as_ref().map(|current| number(&current.value));
            answered(Answer::NotSwapped(current), *revision)
        }
        (_, Some((value, revision))) => answered(Answer::Saw(value), revision),
        _ if call.refused => End::Refused { at: at.unwrap_or(u64::MAX) },
        _ => End::Unknown,
    };
    Some(Operation { client: call.client.0, key: String::new(), invoked: call.invoked.0, call: asked, end })
}

#[cfg(test)]
mod tests {
    use super::super::calls::tests::call;
    use super::*;
    use crate::sim::observation::Instant;

    fn write(value: u64, invoked: u64, ended: u64) -> Call {
        Call {
            ended: Some(Instant(ended)),
            told: Some(Told::Put { revision: value }),
            ..call(1, Ask::Put { key: 1, value }, invoked)
        }
    }

    fn read(value: Option<u64>, invoked: u64, ended: u64) -> Call {
        let ask = Ask::Get { key: 1, level: Level::Lease };
        Call { ended: Some(Instant(ended)), saw: Some((value, 0)), ..call(2, ask, invoked) }
    }

    #[test]
    fn an_order_is_found_or_there_is_none() {
        let open = call(3, Ask::Put { key: 1, value: 9 }, 5);
        let calls = [write(7, 10, 20), read(Some(7), 30, 40), open, read(Some(9), 50, 60)];
        let searched = judge(calls.iter()).expect("9 took effect late");
        assert_eq!(searched, Searched { keys: 1, operations: 4, skipped: 0 });
        assert_eq!(judge([write(7, 10, 20), read(None, 30, 40)].iter()).expect_err("stale").oracle, NAME);
    }

    #[test]
    fn keys_with_deletes_are_left_out_and_said_so() {
        let delete = call(3, Ask::Delete { key: 1 }, 15);
        let calls = [write(7, 10, 20), delete, read(None, 30, 40)];
        assert_eq!(judge(calls.iter()).expect("not searched").skipped, 1);
    }
}
