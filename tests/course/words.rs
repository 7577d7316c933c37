//! How messages, entries and answers read in a script. `5@2` is the entry with index 5 and term 2.

use bytes::Bytes;
use d_engine::kv::{self, Command};
use d_engine::node::message::{ForwardOutcome, Forwarded};
use d_engine::node::{Leadership, Message, Reply, RequestError};
use d_engine::raft::message::{AppendOutcome, Body, Candidacy, Decision, Election, Standing, Vote};
use d_engine::raft::{Halt, RoleName};
use wal::{EntryId, Frame, HardState, Kind};

pub fn entry(id: EntryId) -> String {
    format!("{}@{}", id.index, id.term)
}

fn text(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if text.len() <= 20 => text.into(),
        _ => format!("({} bytes)", bytes.len()),
    }
}

pub fn command(bytes: &[u8]) -> String {
    match Command::decode(&Bytes::copy_from_slice(bytes)) {
        Ok(Command::Put { key, value }) => format!("put {} {}", text(&key), text(&value)),
        Ok(Command::Delete { key }) => format!("delete {}", text(&key)),
        Ok(other) => format!("{other:?}"),
        Err(error) => format!("no command: {error}"),
    }
}

pub fn commands<'a>(all: impl Iterator<Item = &'a [u8]>) -> String {
    all.map(command).collect::<Vec<_>>().join(" + ")
}

fn content(frame: &Frame) -> String {
    match frame.kind() {
        Kind::Noop => "no-op".into(),
        Kind::Membership => "members".into(),
        Kind::Commands => commands(frame.commands()),
    }
}

pub fn entries(frames: &[Frame]) -> String {
    let one = |frame: &Frame| format!("{} {}", entry(frame.id()), content(frame));
    frames.iter().map(one).collect::<Vec<_>>().join(", ")
}

pub fn hard_state(state: HardState) -> String {
    match state.vote {
        Some(vote) => format!("term {}, vote for {vote}", state.term),
        None => format!("term {}, no vote", state.term),
    }
}

pub fn span(span: std::time::Duration) -> String {
    format!("{} ms", span.as_millis())
}

fn election(election: Election) -> &'static str {
    match election {
        Election::PreVote => "pre-vote",
        Election::Vote => "vote",
        Election::Transfer => "vote by transfer",
    }
}

fn standing(standing: Standing) -> &'static str {
    match standing {
        Standing::Whole => "",
        Standing::Suspect => "; memory suspect",
        Standing::Damaged => "; disk damaged",
    }
}

fn probe(probe: u64) -> String {
    if probe == 0 { String::new() } else { format!("; probe {probe}") }
}

fn body(body: &Body) -> String {
    match body {
        Body::Candidacy(Candidacy { election: kind, last_term, last_index, standing: memory }) => {
            format!("{}? log ends {last_index}@{last_term}{}", election(*kind), standing(*memory))
        }
        Body::Vote(Vote { election: kind, decision, standing: memory }) => {
            let word = if *decision == Decision::Granted { "granted" } else { "refused" };
            format!("{} {word}{}", election(*kind), standing(*memory))
        }
        Body::Append(append) => {
            let what = if append.frames.is_empty() { "nothing".into() } else { entries(&append.frames) };
            let after = entry(append.previous);
            format!("append after {after}: {what}; commit {}{}", append.commit, probe(append.probe))
        }
        Body::Appended(appended) => match appended.outcome {
            AppendOutcome::Accepted { matched } => format!("accepted to {matched}{}", probe(appended.probe)),
            AppendOutcome::Rejected { previous, hint, hint_term } => format!(
                "rejected after {previous}: logs may agree up to {hint}@{hint_term}{}",
                probe(appended.probe)
            ),
        },
        Body::Heartbeat(heartbeat) => {
            format!("heartbeat; commit {}{}", heartbeat.commit, probe(heartbeat.probe))
        }
        Body::Alive(alive) => format!("alive{}", probe(alive.probe)),
        Body::TimeoutNow => "timeout-now".into(),
    }
}

fn outcome(outcome: &ForwardOutcome) -> String {
    match outcome {
        ForwardOutcome::Applied(bytes) => match kv::Reply::decode(bytes) {
            Ok(reply) => applied(&reply),
            Err(error) => format!("unreadable: {error}"),
        },
        ForwardOutcome::NotLeader => "not taken, not the leader".into(),
        ForwardOutcome::Busy => "not taken, busy".into(),
        ForwardOutcome::Refused(reason) => format!("refused: {reason}"),
        ForwardOutcome::Superseded => "superseded".into(),
        ForwardOutcome::Unknown => "outcome unknown".into(),
    }
}

/// A message without its route.
pub fn message(message: &Message) -> String {
    match message {
        Message::Raft(message) => format!("term {} {}", message.term, body(&message.body)),
        Message::Forward(forward) => {
            let numbered = forward.commands.iter().zip(forward.first..);
            let list: Vec<_> = numbered.map(|(bytes, n)| format!("#{n} {}", command(bytes))).collect();
            format!("forward to the leader of term {}: {}", forward.term, list.join(", "))
        }
        Message::Forwarded(Forwarded { outcomes, .. }) => {
            let list: Vec<_> = outcomes.iter().map(|(n, what)| format!("#{n} {}", outcome(what))).collect();
            format!("forwarded {}", list.join(", "))
        }
        Message::AskIndex(ask) => {
            format!("ask the leader of term {} for a read index: #{}", ask.term, ask.number)
        }
        Message::Index(index) => match index.index {
            Some(at) => format!("read index #{}: {at}", index.number),
            None => format!("read index #{}: cannot say", index.number),
        },
    }
}

pub fn leadership(leadership: Leadership) -> String {
    let Leadership { term, leader, role } = leadership;
    match (role, leader) {
        (RoleName::Leader, _) => format!("leads term {term}"),
        (RoleName::Candidate, _) => format!("stands for election in term {term}"),
        (RoleName::PreCandidate, _) => format!("asks whether it could win term {}", term.next()),
        (RoleName::Follower | RoleName::Learner, Some(leader)) => format!("follows {leader} in term {term}"),
        (RoleName::Follower | RoleName::Learner, None) => format!("has no leader in term {term}"),
    }
}

fn applied(reply: &kv::Reply) -> String {
    match reply {
        kv::Reply::Put { revision } => format!("done at revision {}", revision.0),
        kv::Reply::Deleted { revision, before } => format!("done at revision {} ({before:?})", revision.0),
        other => format!("{other:?}"),
    }
}

pub fn answer(outcome: &Result<Reply<kv::Reply>, RequestError<kv::CommandError>>) -> String {
    match outcome {
        Ok(Reply::Applied(reply)) => applied(reply),
        Ok(Reply::Readable) => "readable".into(),
        Ok(Reply::Transferred) => "transferred".into(),
        Err(RequestError::OutcomeUnknown) => "outcome unknown".into(),
        Err(RequestError::Superseded) => "superseded, it never happened".into(),
        Err(RequestError::NoLeader) => "no leader, nothing happened".into(),
        Err(RequestError::ReadTimeout) => "read not confirmed in time".into(),
        Err(RequestError::Stopped) => "stopped, nothing happened".into(),
        Err(RequestError::Busy { pending, limit }) => {
            format!("busy, nothing happened ({pending} calls wait, the limit is {limit})")
        }
        Err(RequestError::TransferTimeout(to)) => format!("node {to} did not take over"),
        Err(error) => format!("{error}"),
    }
}

pub fn halt(why: &Halt) -> String {
    match why {
        Halt::Diverged { peer, ours, theirs } => {
            let same = if ours.term == theirs.term { "has other bytes" } else { "has another term" };
            format!("its {} {same} than node {peer}'s {}", entry(*ours), entry(*theirs))
        }
        other => format!("{other}"),
    }
}
