//! The answer for programs: one object. Numbers that may not fit 53 bits (hashes, identities of clusters) are text.

use super::used_percent;
use super::words::describe;
use ::wal::inspect::{Holder, Look, Opens, Outlook, SegmentLook, WriteLook};
use ::wal::pure::Place;
use ::wal::segment_name;
use serde_json::{Value, json};

/// The whole answer; `verdict` is `whole`, `repairable` or `refused`.
pub(super) fn answer(look: &Look, segments: &[SegmentLook], writes: &[Vec<WriteLook>]) -> Value {
    let (verdict, opens) = match &look.outlook {
        Outlook::Whole(opens) => ("whole", Some(opens)),
        Outlook::Repairable(_, opens) => ("repairable", Some(opens)),
        Outlook::Refused(_) => ("refused", None),
    };
    let holder = match look.holder {
        Holder::Nobody => Value::Null,
        Holder::Process(pid) => json!({ "pid": pid }),
    };
    json!({
        "directory": look.path.display().to_string(),
        "format": ::wal::FORMAT_VERSION,
        "identity": look.identity.map(|identity| json!({
            "cluster": identity.cluster.to_string(),
            "node": identity.node.0,
            "group": identity.group.0,
        })),
        "in_use_by": holder,
        "settled": look.settled,
        "memory_first": look.memory_first,
        "verdict": verdict,
        "damage": look.outlook.place().map(place),
        "state": look.state.map(|state| json!({
            "record": state.sequence,
            "term": state.hard_state.term.0,
            "vote": state.hard_state.vote.map(|node| node.0),
            "promise_ns": u64::try_from(state.hard_state.promise.as_nanos()).unwrap_or(u64::MAX),
            "log_mark": state.log_mark,
            "commit": state.commit.0,
            "first_segment": state.first_segment,
            "newest_segment": state.newest_segment,
            "openings": state.openings,
            "clean": state.clean,
            "held": state.held.map(|held| held.to_string()),
        })),
        "next_start": opens.map(|opens| next_start(opens)),
        "segments": segments.iter().zip(writes).map(|(look, writes)| segment(look, writes)).collect::<Vec<_>>(),
        "others": look.others,
        "temporary": look.temporary,
    })
}

fn place(place: &Place) -> Value {
    json!({ "file": place.file, "offset": place.offset, "what": place.what })
}

fn next_start(opens: &Opens) -> Value {
    json!({
        "report": opens.report.to_string(),
        "changes": opens.changes.iter().map(describe).collect::<Vec<_>>(),
        "last_index": opens.tail.last().index.0,
        "last_term": opens.tail.last().term.0,
        "last_hash": opens.tail.last().hash.to_string(),
        "commit": opens.tail.commit().0,
        "held": opens.tail.state().held.map(|held| held.to_string()),
        "torn": opens.report.cut.map(|cut| json!({
            "file": segment_name(cut.at.segment),
            "from": cut.at.offset,
            "until": cut.until,
            "write": cut.sequence,
        })),
    })
}

fn segment(look: &SegmentLook, writes: &[WriteLook]) -> Value {
    json!({
        "file": segment_name(look.number),
        "bytes": look.bytes,
        "used_percent": used_percent(look),
        "header": look.header.as_ref().err(),
        "after_write": look.header.as_ref().ok().map(|header| header.predecessor.sequence),
        "after_entry": look.header.as_ref().ok().map(|header| header.predecessor.last.index.0),
        "write_count": look.writes,
        "first": look.first.as_ref().map(write),
        "last": look.last.as_ref().map(write),
        "odd": look.odd.iter().map(|(offset, what)| json!({ "offset": offset, "what": what })).collect::<Vec<_>>(),
        "writes": writes.iter().map(write).collect::<Vec<_>>(),
    })
}

fn write(look: &WriteLook) -> Value {
    json!({
        "write": look.sequence,
        "offset": look.offset,
        "bytes": look.bytes,
        "first_index": look.first.0,
        "last_index": look.last.index.0,
        "first_term": look.first_term.0,
        "last_term": look.last.term.0,
        "hash": look.last.hash.to_string(),
        "commit": look.commit.0,
        "log_mark": look.log_mark,
        "state_mark": look.state_mark,
    })
}
