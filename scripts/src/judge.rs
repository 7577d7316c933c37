//! Whether the answers fit one order of the calls.

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

/// Judge the record: revisions and real time agree.
pub fn linearizable(record: &Record, report: &mut Report) {
    order(record, report);
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
            Did::Delete { existed } => *existed == Some(true),
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
