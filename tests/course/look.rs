//! Commands that look and change nothing.

use crate::cluster::{Cluster, Outcome};
use crate::member::{Member, shown};
use crate::play::node;
use crate::words;
use d_engine::kv;
use d_engine::node::Leadership;
use d_engine::raft::message::Standing;
use std::fmt::Write as _;
use wal::NodeId;

/// Plays a command that looks; false if it is none.
pub fn look(cluster: &mut Cluster, words: &[&str]) -> Result<bool, String> {
    match *words {
        ["status"] => status(cluster)?,
        ["log", id] => log(cluster, node(id)?)?,
        ["disk", id] => {
            let text = cluster.member(node(id)?)?.disk.describe();
            cluster.say(text);
        }
        ["lease", id] => lease(cluster, node(id)?)?,
        ["read", id, "lease", key] => read_under_lease(cluster, node(id)?, key)?,
        ["read", id, "local", key] => read_local(cluster, node(id)?, key)?,
        ["network"] => {
            for letter in cluster.network.clone() {
                cluster.say(format!("{}->{} {}", letter.from, letter.to, words::message(&letter.message)));
            }
        }
        ["counters", id] => counters(cluster, node(id)?)?,
        ["digests"] => digests(cluster)?,
        _ => return Ok(false),
    }
    Ok(true)
}

fn found(value: Option<kv::KeyValue>, key: &str) -> String {
    match value {
        Some(found) => format!("{key} = {}", String::from_utf8_lossy(&found.value)),
        None => format!("{key} is not there"),
    }
}

fn read_local(cluster: &mut Cluster, id: NodeId, key: &str) -> Outcome {
    let value = cluster.node(id)?.machine().get(key.as_bytes());
    let text = found(value, key);
    cluster.say(format!("{id} has {text}"));
    Ok(())
}

fn read_under_lease(cluster: &mut Cluster, id: NodeId, key: &str) -> Outcome {
    let global = cluster.now;
    let now = cluster.member(id)?.clock.read(global).mono;
    let node = cluster.node(id)?;
    let value = node.lease().filter(|&until| now < until).map(|_| node.machine().get(key.as_bytes()));
    let text = match value {
        Some(value) => format!("{id} reads under its lease: {}", found(value, key)),
        None => format!("{id} has no lease, the read must be confirmed"),
    };
    cluster.say(text);
    Ok(())
}

fn lease(cluster: &mut Cluster, id: NodeId) -> Outcome {
    let global = cluster.now;
    let now = cluster.member(id)?.clock.read(global).mono;
    let text = match cluster.node(id)?.lease() {
        Some(until) if until.0 == u64::MAX => "for ever, nobody else could be elected".into(),
        Some(until) if now < until => format!("until {}, it is {}", shown(until), shown(now)),
        Some(until) => format!("ended at {}, it is {}", shown(until), shown(now)),
        None => format!("none, it is {}", shown(now)),
    };
    cluster.say(text);
    Ok(())
}

/// A node in one line.
pub fn describe(member: &Member) -> String {
    let id = member.id;
    let Some(node) = &member.node else { return format!("{id} is down") };
    if member.halted {
        return format!("{id} halted");
    }
    let raft = node.raft();
    let status = node.status();
    let mut text = format!(
        "{id} {}; ",
        words::leadership(Leadership { role: raft.role(), leader: raft.leader(), term: raft.term() })
    );
    let _ = write!(
        text,
        "log ends {}, durable {}, commit {}, applied {}",
        words::entry(raft.log().last()),
        raft.log().durable(),
        raft.commit(),
        status.applied
    );
    if raft.standing() == Standing::Suspect {
        text.push_str(", memory suspect");
    }
    if status.pending > 0 {
        let _ = write!(text, ", calls waiting {}", status.pending);
    }
    text
}

fn status(cluster: &mut Cluster) -> Outcome {
    let lines: Vec<String> = cluster.members.values().map(describe).collect();
    lines.into_iter().for_each(|line| cluster.say(line));
    Ok(())
}

fn log(cluster: &mut Cluster, id: NodeId) -> Outcome {
    let raft = cluster.node(id)?.raft();
    let frames: Vec<_> = raft.log().cached().cloned().collect();
    let text = if frames.is_empty() { "nothing in memory".into() } else { words::entries(&frames) };
    cluster.say(text);
    Ok(())
}

fn counters(cluster: &mut Cluster, id: NodeId) -> Outcome {
    let counters = cluster.node(id)?.raft().counters();
    cluster.say(format!(
        "elections {}, won {}, quarantined {}, malformed {}, rejections {}, regressions {}",
        counters.elections,
        counters.leaderships,
        counters.quarantined_terms,
        counters.malformed,
        counters.rejections,
        counters.regressions
    ));
    Ok(())
}

/// Nodes whose state machines hold the same.
fn digests(cluster: &mut Cluster) -> Outcome {
    let mut groups: Vec<(u128, u64, Vec<String>)> = Vec::new();
    for (id, member) in &cluster.members {
        let Some(node) = &member.node else { continue };
        let status = node.status();
        match groups.iter_mut().find(|(digest, ..)| *digest == status.digest) {
            Some((.., ids)) => ids.push(id.to_string()),
            None => groups.push((status.digest, status.revision, vec![id.to_string()])),
        }
    }
    for (_, revision, ids) in groups {
        cluster.say(format!("{}: one state, revision {revision}", ids.join(" ")));
    }
    Ok(())
}
