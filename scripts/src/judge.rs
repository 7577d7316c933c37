//! Whether the answers fit one order of the calls: both judges of the `history` crate on the registers, and the order of all
//! revisions, ledger writes included.

use std::time::Instant;

use history::{Answer, Call, End, History};

use crate::load::{Did, Entry, Operation, Record};
use crate::report::Report;
use crate::stamp::Stamp;

/// Every acknowledged call, reduced to its place in the order: when, which revision, whether it made it.
struct Place {
    invoked: Stamp,
    responded: Stamp,
    revision: u64,
    made: bool,
}

/// Judge the record.
pub fn linearizable(record: &Record, report: &mut Report) {
    order(record, report);
    let history: History = record.operations.iter().map(translated).collect();
    for (name, judge) in [
        ("registers, judged by revision", History::check_by_revision as fn(&History) -> _),
        ("registers, judged by key without revisions", History::check_by_key),
    ] {
        let start = Instant::now();
        match judge(&history) {
            Ok(judged) => report.fact(
                name,
                format!(
                    "linearizable: {} calls on {} keys, {} unknown of which {} took effect ({:.2?})",
                    judged.operations,
                    judged.keys,
                    judged.unknown,
                    judged.took_effect,
                    start.elapsed()
                ),
            ),
            Err(violation) => report.violation(format!("{name}: {violation}")),
        }
    }
    for surprise in record.surprises.iter().take(5) {
        report.violation(format!("a key of one client's own: {surprise}"));
    }
}

fn translated(operation: &Operation) -> history::Operation {
    let (call, answer) = match operation.did {
        Did::Put { value } => (Call::Put { value }, Some(Answer::Done)),
        Did::Read { saw, .. } => (Call::Get, Some(Answer::Saw(saw))),
        Did::Swap { expected, new: value, outcome } => {
            let answer = outcome.map(|outcome| outcome.map_or_else(Answer::NotSwapped, |()| Answer::Done));
            (Call::CompareAndSwap { expected, value }, answer)
        }
    };
    let end = match (operation.responded, operation.revision, answer) {
        (Some(at), Some(revision), Some(answer)) => End::Answered { at: at.0, answer, revision },
        _ => End::Unknown,
    };
    history::Operation {
        client: operation.client,
        key: operation.key.clone(),
        invoked: operation.invoked.0,
        call,
        end,
    }
}

/// Revisions are one order of all changes: none is given twice, and no call that began after an acknowledgement has an
/// older one.
fn order(record: &Record, report: &mut Report) {
    let of_entry = |entry: &Entry| Place {
        invoked: entry.invoked,
        responded: entry.responded,
        revision: entry.revision,
        made: true,
    };
    let of_operation = |operation: &Operation| {
        let made = match &operation.did {
            Did::Put { .. } => true,
            Did::Swap { outcome, .. } => matches!(outcome, Some(Ok(()))),
            Did::Read { .. } => false,
        };
        let (responded, revision) = (operation.responded?, operation.revision?);
        Some(Place { invoked: operation.invoked, responded, revision, made })
    };
    let mut places: Vec<Place> = record.entries.iter().map(of_entry).collect();
    places.extend(record.operations.iter().filter_map(of_operation));

    let mut made: Vec<u64> = places.iter().filter(|place| place.made).map(|place| place.revision).collect();
    made.sort_unstable();
    let twice = made.windows(2).filter(|pair| pair[0] == pair[1]).count();
    report.require(twice == 0, || format!("{twice} revisions were given to two changes"));

    // Sweep in time: the newest revision acknowledged so far is a lower bound for every call that begins now.
    let mut begins: Vec<&Place> = places.iter().collect();
    let mut ends: Vec<&Place> = places.iter().collect();
    begins.sort_unstable_by_key(|place| place.invoked);
    ends.sort_unstable_by_key(|place| place.responded);
    let (mut newest, mut ended, mut stale) = (0, 0, 0);
    for place in begins {
        while ended < ends.len() && ends[ended].responded < place.invoked {
            newest = newest.max(ends[ended].revision);
            ended += 1;
        }
        stale += usize::from(place.revision < newest || (place.made && place.revision == newest));
    }
    report.require(stale == 0, || {
        format!("{stale} answers are older than what was acknowledged before the call")
    });
    report.fact("calls in revision and real-time order", places.len());
}
