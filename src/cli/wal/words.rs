//! The answer for people.

use super::used_percent;
use ::wal::inspect::{Holder, Look, Opens, Outlook, SegmentLook, WriteLook};
use ::wal::pure::{Change, Place};
use ::wal::segment_name;
use std::fmt::Write as _;
use std::io::{self, Write};

/// What the files hold.
pub(super) fn contents(
    out: &mut impl Write,
    look: &Look,
    segments: &[SegmentLook],
    writes: &[Vec<WriteLook>],
) -> io::Result<()> {
    match &look.identity {
        Some(identity) => writeln!(
            out,
            "log of node {} in cluster {}, group {}, format {}",
            identity.node,
            identity.cluster,
            identity.group.0,
            ::wal::FORMAT_VERSION
        )?,
        None => writeln!(out, "log of an unknown node: no copy of its state is whole")?,
    }
    state(out, look)?;
    for (segment, writes) in segments.iter().zip(writes) {
        one_segment(out, segment, writes)?;
    }
    for (names, what) in
        [(&look.temporary, "half made, removed by the next start"), (&look.others, "not read by the log")]
    {
        for name in names {
            writeln!(out, "{name}: {what}")?;
        }
    }
    if look.memory_first {
        let mark = ::wal::MEMORY_MARK;
        writeln!(out, "{mark}: the node acknowledged from memory and did not end cleanly")?;
    }
    Ok(())
}

fn state(out: &mut impl Write, look: &Look) -> io::Result<()> {
    let Some(state) = &look.state else { return Ok(()) };
    let vote = state.hard_state.vote.map_or("no vote".to_owned(), |node| format!("vote for node {node}"));
    let ended = if state.clean { "closed cleanly" } else { "not closed" };
    writeln!(
        out,
        "state: record {}, term {}, {vote}; flushed up to write {}, committed up to entry {} at least; \
         segments {} to {}; opened {} times, {ended}",
        state.sequence,
        state.hard_state.term,
        state.log_mark,
        state.commit,
        state.first_segment,
        state.newest_segment,
        state.openings
    )?;
    if let Some(held) = state.held {
        writeln!(
            out,
            "SUSPECT since a repair: this node may have held {held}; until it is whole again it votes only for \
             candidates that have that"
        )?;
    }
    Ok(())
}

fn one_segment(out: &mut impl Write, segment: &SegmentLook, writes: &[WriteLook]) -> io::Result<()> {
    let name = segment_name(segment.number);
    let header = match &segment.header {
        Ok(header) => header,
        Err(what) => return writeln!(out, "{name}: {} bytes; header: {what}", segment.bytes),
    };
    let before = header.predecessor;
    write!(
        out,
        "{name}: {} bytes, {}% used; after write {}",
        segment.bytes,
        used_percent(segment),
        before.sequence
    )?;
    write!(out, " and entry {}; ", before.last.index)?;
    match (&segment.first, &segment.last) {
        (Some(first), Some(last)) => writeln!(
            out,
            "writes {} to {}, entries {} to {}, terms {} to {}, last hash {}, commit {}, state record {}",
            first.sequence,
            last.sequence,
            first.first,
            last.last.index,
            first.first_term,
            last.last.term,
            last.last.hash,
            last.commit,
            last.state_mark
        )?,
        (None, _) | (_, None) => writeln!(out, "no write")?,
    }
    for write in writes {
        writeln!(
            out,
            "  byte {:>9}: write {}, {} bytes, entries {} to {}, terms {} to {}, hash {}, commit {}, flushed {}, \
             state record {}",
            write.offset,
            write.sequence,
            write.bytes,
            write.first,
            write.last.index,
            write.first_term,
            write.last.term,
            write.last.hash,
            write.commit,
            write.log_mark,
            write.state_mark
        )?;
    }
    for (offset, what) in &segment.odd {
        writeln!(out, "  byte {offset:>9}: {what}")?;
    }
    Ok(())
}

/// What the next start would do.
pub(super) fn outlook(out: &mut impl Write, look: &Look) -> io::Result<()> {
    if let Holder::Process(pid) = look.holder {
        let who = pid.map_or("a process".to_owned(), |pid| format!("process {pid}"));
        writeln!(out, "in use by {who}: the log may have moved while it was read")?;
    }
    if !look.settled {
        writeln!(out, "NOT SETTLED: each look found the log elsewhere; stop the node, or look at a copy")?;
    }
    match &look.outlook {
        Outlook::Whole(opens) => {
            writeln!(out, "whole: {}", opens.report)?;
            changes(out, "the next start would", opens)
        }
        Outlook::Repairable(place, opens) => {
            writeln!(out, "DAMAGED: {}", at(look, place))?;
            writeln!(
                out,
                "what to do: a node alone refuses this directory: restore it from a backup. A node with peers repairs it \
                 by itself when it starts: it keeps entries up to {} and gets the rest from them. Keep a copy first",
                opens.tail.last().index
            )?;
            changes(out, "a start with peers would", opens)
        }
        Outlook::Refused(place) => {
            writeln!(out, "DAMAGED: {}", at(look, place))?;
            writeln!(
                out,
                "what to do: no start repairs this, because a vote or a promise may be lost: give the node a new \
                 identity and an empty directory if it has peers, or restore this one from a backup. Keep a copy first"
            )
        }
    }
}

fn at(look: &Look, place: &Place) -> String {
    format!("{} at byte {}: {}", look.path.join(&place.file).display(), place.offset, place.what)
}

fn changes(out: &mut impl Write, who: &str, opens: &Opens) -> io::Result<()> {
    for change in &opens.changes {
        writeln!(out, "  {who} {}", describe(change))?;
    }
    if let Some(held) = opens.tail.state().held {
        writeln!(out, "  this node may have held {held}: peers must confirm it")?;
    }
    Ok(())
}

/// A change in the words of its name, for both languages.
pub(super) fn describe(change: &Change) -> String {
    let mut text = String::new();
    let written = match change {
        Change::State(record) => write!(
            text,
            "write state record {}: term {}, log up to write {}{}",
            record.sequence,
            record.hard_state.term,
            record.log_mark,
            record.held.map_or_else(String::new, |held| format!(", may have held {held}"))
        ),
        Change::SetAside { segment } => {
            let name = segment_name(*segment);
            write!(text, "rename {name} to {name}.damaged")
        }
        Change::Remove { segment } => {
            write!(text, "remove {}, which a snapshot replaced", segment_name(*segment))
        }
        Change::Copy { segment } => {
            let name = segment_name(*segment);
            write!(text, "keep a copy of {name} as {name}.damaged")
        }
        Change::Zero { segment, from, until, length } => write!(
            text,
            "overwrite bytes {from} to {until} of {} with zeros ({length} bytes in all)",
            segment_name(*segment)
        ),
        Change::Make(next) => write!(text, "make {} of {} bytes", segment_name(next.number), next.bytes),
    };
    written.expect("a string takes everything");
    text
}
