//! A way through the search as text: what happened, and what each node was then.

use super::Scope;
use super::local::{Event, Hang, Local};
use super::marks::Marks;
use super::tables::{Tables, What};
use super::world::{Action, Successor, World};
use crate::raft::RoleName;
use crate::raft::message::{AppendOutcome, Body, Message};
use std::fmt::Write as _;

/// Walks the path again and writes down what it meets.
pub(super) fn tell(scope: &Scope, tables: &mut Tables, path: &[u16]) -> String {
    let mut text = String::new();
    let mut world = match World::founded(tables) {
        Ok(world) => world,
        Err(what) => return what,
    };
    let mut actions = Vec::new();
    for (step, &order) in path.iter().enumerate() {
        world.actions(scope, tables, &mut actions);
        let action = actions[usize::from(order)];
        let _ = writeln!(text, "{:3}. {}", step + 1, what(action, tables));
        let mut next = World::default();
        match world.after(action, scope, tables, &mut next, &mut Marks::default()) {
            Successor::World => {
                for (place, (&now, &then)) in next.locals.iter().zip(&world.locals).enumerate() {
                    if now != then && place == action.place {
                        let _ = writeln!(text, "       node {}: {}", place + 1, state(tables.local(now)));
                    }
                }
                for message in next.messages.iter().filter(|message| !world.messages.contains(message)) {
                    let parcel = tables.parcel(*message);
                    let _ = writeln!(
                        text,
                        "       sent to node {}: {}",
                        parcel.to + 1,
                        message_text(&parcel.message)
                    );
                }
                world = next;
            }
            Successor::Same => {}
            Successor::Broken(what) => {
                let _ = writeln!(text, "     => {what}");
            }
        }
    }
    for (place, &local) in world.locals.iter().enumerate() {
        let _ = writeln!(text, "node {} in the end: {}", place + 1, state(tables.local(local)));
    }
    text
}

fn what(action: Action, tables: &Tables) -> String {
    let node = action.place + 1;
    let hang = if action.input.hang == Hang::Now { "; its disk hangs, nothing more is flushed" } else { "" };
    let what = match action.input.what {
        What::Hears(message) => {
            let parcel = tables.parcel(message);
            format!("node {node} hears from node {}: {}", parcel.from + 1, message_text(&parcel.message))
        }
        What::Event(event) => match event {
            Event::Waits => format!("node {node}: the election timer fires, no pre-vote is won"),
            Event::Campaigns => format!("node {node}: the election timer fires, a pre-vote is won"),
            Event::Proposes => format!("a client proposes a command at node {node}"),
            Event::SendsAgain => format!("node {node} takes its appends for lost and sends them again"),
            Event::HearsOf(term) => format!("node {node} is told of term {term} by a refusal"),
            Event::Flushes => format!("node {node}: the oldest write is flushed"),
            Event::Crashes => format!("node {node}: the power is cut, it restarts from its disk"),
            Event::IsSpared => format!("node {node} will not crash"),
        },
    };
    what + hang
}

fn message_text(message: &Message) -> String {
    let term = message.term;
    match &message.body {
        Body::Candidacy(c) => {
            format!("candidacy in term {term}, log ends at {}/{}", c.last_index, c.last_term)
        }
        Body::Vote(vote) => format!("vote in term {term}: {:?}", vote.decision),
        Body::Append(append) => {
            let entries: Vec<_> =
                append.frames.iter().map(|frame| format!("{}/{}", frame.index(), frame.term())).collect();
            format!(
                "append in term {term} after {}/{}: [{}], decided {}",
                append.previous.index,
                append.previous.term,
                entries.join(" "),
                append.commit
            )
        }
        Body::Appended(appended) => match appended.outcome {
            AppendOutcome::Accepted { matched } => format!("accepted in term {term} up to {matched}"),
            AppendOutcome::Rejected { previous, hint, hint_term } => {
                format!("rejected in term {term} after {previous}, try {hint}/{hint_term}")
            }
        },
        Body::Heartbeat(heartbeat) => format!("heartbeat in term {term}, decided {}", heartbeat.commit),
        Body::Alive(_) => format!("alive in term {term}"),
        Body::TimeoutNow => format!("stand for election, says the leader of term {term}"),
    }
}

fn state(local: &Local) -> String {
    let role = match local.raft.role() {
        RoleName::Follower => "follower",
        RoleName::PreCandidate => "pre-candidate",
        RoleName::Candidate => "candidate",
        RoleName::Leader => "leader",
        RoleName::Learner => "learner",
    };
    let (hard, saved) = local.raft.hard_states();
    let vote = hard.vote.map_or_else(|| "nobody".into(), |vote| format!("node {vote}"));
    let log: Vec<_> = local.log.iter().map(|entry| entry.term.to_string()).collect();
    let mut text = format!(
        "{role} in term {}, voted for {vote}, terms of its log [{}], on disk up to {}, decided up to {}",
        hard.term,
        log.join(" "),
        local.raft.log().durable(),
        local.raft.commit()
    );
    if hard != saved {
        text += ", term or vote not on disk";
    }
    text
}
