//! The commands of a script.

use crate::cluster::{Cluster, Outcome, Telling, whole_millis};
use crate::look::{describe, look};
use crate::member::Pace;
use crate::words;
use bytes::{Bytes, BytesMut};
use d_engine::kv;
use d_engine::node::{Input, Message};
use d_engine::raft::RoleName;
use d_engine::raft::message::{
    Alive, AppendOutcome, Appended, Body, Decision, Election, Heartbeat, Standing, Vote,
};
use std::time::Duration;
use wal::{LogIndex, NodeId, Term};

/// Plays one command line and returns what it led to.
pub fn play(cluster: &mut Cluster, line: &str) -> Result<Vec<String>, String> {
    let mut text = line.trim();
    cluster.telling = Telling::Everything;
    if let Some(rest) = text.strip_suffix(" quietly") {
        text = rest;
        cluster.telling = Telling::Quietly;
    }
    let parts: Vec<&str> = text.split(" & ").collect();
    cluster.gathering = parts.len() > 1;
    for part in parts {
        let words: Vec<&str> = part.split_whitespace().collect();
        perform(cluster, &words).map_err(|error| format!("{part:?}: {error}"))?;
    }
    cluster.end_turn()?;
    Ok(cluster.take_said())
}

fn perform(cluster: &mut Cluster, words: &[&str]) -> Outcome {
    let known = pass_time(cluster, words)?
        || move_messages(cluster, words)?
        || touch_processes(cluster, words)?
        || make_calls(cluster, words)?
        || look(cluster, words)?;
    if known { Ok(()) } else { Err("unknown command; tests/course/README.md lists them".into()) }
}

/// Groups, elections and time. Like the other families of commands it says whether it knows the words.
fn pass_time(cluster: &mut Cluster, words: &[&str]) -> Result<bool, String> {
    match *words {
        ["nodes", count, ref settings @ ..] => {
            settings.iter().try_for_each(|setting| cluster.settings.take(setting))?;
            cluster.found(number(count)?)?;
        }
        ["campaign", id] => campaign(cluster, node(id)?)?,
        ["elect", id] => elect(cluster, node(id)?)?,
        ["wake", id] => cluster.feed(node(id)?, Input::Timeout)?,
        ["settle"] => cluster.settle()?,
        ["advance", span] => cluster.pass(duration(span)?, |_| Ok(()))?,
        ["run", span] => cluster.pass(duration(span)?, Cluster::settle)?,
        ["clock", id, "at", percent] => {
            let now = cluster.now;
            let percent = number(percent.trim_end_matches('%'))?;
            cluster.member(node(id)?)?.clock.run_at(now, percent);
        }
        ["void", "promises"] => cluster.void_promises()?,
        _ => return Ok(false),
    }
    Ok(true)
}

/// The network.
fn move_messages(cluster: &mut Cluster, words: &[&str]) -> Result<bool, String> {
    match *words {
        ["deliver", route, ref which @ ..] => deliver(cluster, route, which)?,
        ["drop", route, ref which @ ..] => {
            for position in chosen(cluster, route, which)?.into_iter().rev() {
                cluster.network.remove(position);
            }
        }
        ["duplicate", route, ref which @ ..] => {
            for position in chosen(cluster, route, which)? {
                let copy = cluster.network[position].clone();
                cluster.network.push(copy);
            }
        }
        ["delay", route, ref which @ ..] => {
            for (moved, position) in chosen(cluster, route, which)?.into_iter().enumerate() {
                let letter = cluster.network.remove(position - moved);
                cluster.network.push(letter);
            }
        }
        ["give-back", route, ref which @ ..] => give_back(cluster, route, which)?,
        ["hold", word] => {
            cluster.held.insert(route(word)?);
        }
        ["release", word] => {
            cluster.held.remove(&route(word)?);
        }
        ["cut", ref groups @ ..] => cut(cluster, groups)?,
        ["heal"] => cluster.cut.clear(),
        ["reconnect", one, other] => cluster.reconnect(node(one)?, node(other)?)?,
        ["invent", route, "term", term, ref what @ ..] => invent(cluster, route, term, what)?,
        _ => return Ok(false),
    }
    Ok(true)
}

/// Processes and their disks.
fn touch_processes(cluster: &mut Cluster, words: &[&str]) -> Result<bool, String> {
    match *words {
        ["flush", id] => cluster.flush(node(id)?, usize::MAX)?,
        ["flush", id, count] => cluster.flush(node(id)?, index(count)?)?,
        ["fetched", id] => cluster.fetched(node(id)?)?,
        ["fail-disk", id] => cluster.feed(node(id)?, Input::LogFailed("write: no space left".into()))?,
        ["forge", id, "entry", at, ref command @ ..] => {
            let command = encode(command)?;
            cluster.member(node(id)?)?.disk.forge(LogIndex(number(at)?), &command)?;
        }
        ["crash", id] => cluster.crash(node(id)?, usize::MAX)?,
        ["crash", id, "losing", "unflushed"] => cluster.crash(node(id)?, 0)?,
        ["crash", id, "keeping", count] => cluster.crash(node(id)?, index(count)?)?,
        ["stop", id] => stop(cluster, node(id)?)?,
        ["restart", id] => {
            cluster.start(node(id)?)?;
            let text = describe(cluster.member(node(id)?)?);
            cluster.detail(text);
        }
        ["pause", id] => cluster.member(node(id)?)?.pace = Pace::Paused,
        ["resume", id] => cluster.member(node(id)?)?.pace = Pace::Running,
        _ => return Ok(false),
    }
    Ok(true)
}

/// Callers.
fn make_calls(cluster: &mut Cluster, words: &[&str]) -> Result<bool, String> {
    match *words {
        ["propose", id, ref command @ ..] => {
            let (id, command) = (node(id)?, encode(command)?);
            let ticket = cluster.call(id, &words::command(&command));
            cluster.feed(id, Input::Propose { ticket, command })?;
        }
        ["read", id, "linearizable"] => {
            let id = node(id)?;
            let ticket = cluster.call(id, "a linearizable read");
            cluster.feed(id, Input::Read { ticket })?;
        }
        ["transfer", id, "to", to] => {
            let (id, to) = (node(id)?, node(to)?);
            let ticket = cluster.call(id, &format!("hand leadership to {to}"));
            cluster.feed(id, Input::TransferLeadership { ticket, to })?;
        }
        _ => return Ok(false),
    }
    Ok(true)
}

fn number(word: &str) -> Result<u64, String> {
    word.parse().map_err(|_| format!("{word:?} is not a number"))
}

fn index(word: &str) -> Result<usize, String> {
    word.parse().map_err(|_| format!("{word:?} is not a number"))
}

pub fn node(word: &str) -> Result<NodeId, String> {
    number(word).map(NodeId)
}

fn duration(word: &str) -> Result<u64, String> {
    let (digits, scale) = match (word.strip_suffix("ms"), word.strip_suffix('s')) {
        (Some(digits), _) => (digits, 1_000_000),
        (None, Some(digits)) => (digits, 1_000_000_000),
        _ => return Err(format!("{word:?} is not a time such as 50ms or 2s")),
    };
    Ok(number(digits)? * scale)
}

fn route(word: &str) -> Result<(NodeId, NodeId), String> {
    let (from, to) = word.split_once("->").ok_or_else(|| format!("{word:?} is not a route such as 1->2"))?;
    Ok((node(from)?, node(to)?))
}

/// The messages of a route that are meant: the oldest, the newest, one by its place from 1, or all.
fn chosen(cluster: &Cluster, word: &str, which: &[&str]) -> Result<Vec<usize>, String> {
    let route = route(word)?;
    let all: Vec<usize> = (0..cluster.network.len())
        .filter(|&at| (cluster.network[at].from, cluster.network[at].to) == route)
        .collect();
    let one = match which {
        ["all"] => return Ok(all),
        [] => all.first(),
        ["newest"] => all.last(),
        [place] => all.get(index(place)?.wrapping_sub(1)),
        _ => return Err("which message? (a number, newest or all)".into()),
    };
    one.map(|&at| vec![at]).ok_or_else(|| format!("no such message is on its way {word}"))
}

fn deliver(cluster: &mut Cluster, word: &str, which: &[&str]) -> Outcome {
    for (gone, position) in chosen(cluster, word, which)?.into_iter().enumerate() {
        let letter = &cluster.network[position - gone];
        let hears = format!("{} hears {}: {}", letter.to, letter.from, words::message(&letter.message));
        cluster.detail(hears);
        cluster.deliver(position - gone)?;
    }
    Ok(())
}

fn give_back(cluster: &mut Cluster, word: &str, which: &[&str]) -> Outcome {
    for (gone, position) in chosen(cluster, word, which)?.into_iter().enumerate() {
        let letter = cluster.network.remove(position - gone);
        cluster.feed(letter.from, Input::NotSent { to: letter.to, message: letter.message })?;
    }
    Ok(())
}

/// Time passes until the node's election timer fires; nobody else is given the processor meanwhile.
fn campaign(cluster: &mut Cluster, id: NodeId) -> Outcome {
    for _ in 0..50 {
        let asked = cluster.member(id)?.candidacies;
        let role = cluster.node(id)?.raft().role();
        let due = whole_millis(cluster.member(id)?.due().ok_or("it has no timer")?);
        cluster.now = cluster.now.max(due);
        cluster.feed(id, Input::Timeout)?;
        if cluster.member(id)?.candidacies > asked || cluster.node(id)?.raft().role() != role {
            return Ok(());
        }
    }
    Err(format!("node {id} does not stand for election"))
}

/// An election without its details, and everybody knows what it decided.
fn elect(cluster: &mut Cluster, id: NodeId) -> Outcome {
    cluster.telling = Telling::Quietly;
    campaign(cluster, id)?;
    cluster.settle()?;
    if cluster.node(id)?.raft().role() != RoleName::Leader {
        return Err(format!("node {id} was not elected"));
    }
    cluster.pass(2_000_000, Cluster::settle)?;
    // Of the way there only the end is told.
    let said = cluster.take_said();
    said.into_iter()
        .filter(|line| line.contains(" leads ") || line.contains(" call "))
        .for_each(|line| cluster.say(line));
    Ok(())
}

pub fn encode(words: &[&str]) -> Result<Bytes, String> {
    let mut out = BytesMut::new();
    let encoded = match *words {
        ["put", key, value] => kv::encode_put(key.as_bytes(), value.as_bytes(), &mut out),
        ["put", key, size, "bytes"] => kv::encode_put(key.as_bytes(), &vec![b'x'; index(size)?], &mut out),
        ["delete", key] => kv::encode_delete(key.as_bytes(), &mut out),
        _ => return Err("a command is put KEY VALUE, put KEY N bytes, or delete KEY".into()),
    };
    encoded.map_err(|error| error.to_string())?;
    Ok(out.freeze())
}

fn stop(cluster: &mut Cluster, id: NodeId) -> Outcome {
    cluster.flush(id, usize::MAX)?;
    let whole = cluster.node(id)?.may_stop_cleanly();
    cluster.crash(id, usize::MAX)?;
    cluster.member(id)?.disk.clean = whole;
    Ok(())
}

/// `1 2 | 3 4` cuts both directions between groups, `1->2` only one.
fn cut(cluster: &mut Cluster, words: &[&str]) -> Outcome {
    if let [one_way] = words {
        cluster.cut.insert(route(one_way)?);
        return Ok(());
    }
    let mut groups: Vec<Vec<NodeId>> = vec![Vec::new()];
    for &word in words {
        match word {
            "|" => groups.push(Vec::new()),
            word => groups.last_mut().expect("starts with one").push(node(word)?),
        }
    }
    for (place, group) in groups.iter().enumerate() {
        for other in groups.iter().enumerate().filter(|&(other, _)| other != place).map(|(_, group)| group) {
            cluster.cut.extend(group.iter().flat_map(|&a| other.iter().map(move |&b| (a, b))));
        }
    }
    Ok(())
}

/// A message that no node sent.
fn invent(cluster: &mut Cluster, word: &str, term: &str, what: &[&str]) -> Outcome {
    let (from, to) = route(word)?;
    let vote = |decision| Body::Vote(Vote { election: Election::Vote, decision, standing: Standing::Whole });
    let body = match *what {
        ["heartbeat", "commit", commit] => Body::Heartbeat(Heartbeat {
            probe: 1,
            commit: LogIndex(number(commit)?),
            promise: Duration::ZERO,
        }),
        ["alive", "probe", probe] => Body::Alive(Alive { probe: number(probe)? }),
        ["vote", "granted"] => vote(Decision::Granted),
        ["vote", "refused"] => vote(Decision::Refused),
        ["accepted", "to", at] => {
            let outcome = AppendOutcome::Accepted { matched: LogIndex(number(at)?) };
            Body::Appended(Appended { outcome, probe: 0 })
        }
        ["timeout-now"] => Body::TimeoutNow,
        _ => return Err("that cannot be invented".into()),
    };
    let message = Message::Raft(d_engine::raft::Message { term: Term(number(term)?), body });
    let hears = format!("{to} hears {from}: {}", words::message(&message));
    cluster.detail(hears);
    cluster.feed(to, Input::Message { from, message })
}
