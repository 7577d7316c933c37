//! Combinations that cannot work, each with its reason, and those that can but are probably not meant.
//!
//! A limit holds only if the limits around it fit: a value that is admitted and then fits into no batch would be
//! accepted and never committed.

use super::error::ConfigError;
use super::fields::Configuration;
use super::value::{ByteCount, LatencyTarget, RuntimeKind, TlsMode};
use crate::node::tuner::Knob;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use wal::frame::MAX_BODY_BYTES;

/// What a command costs in a batch beside its own bytes.
const COMMAND_PREFIX: usize = 4;
/// What a message may need beside one batch: a frame's header and padding, and its own.
const MESSAGE_OVERHEAD: u64 = 4 << 10;

// The largest batch that can be configured holds the largest command that can be applied, and is one frame.
const _: () = assert!(crate::kv::Limits::MAX.command_bytes() + COMMAND_PREFIX <= MAX_BODY_BYTES);

/// What works but is probably not meant.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Warning {
    /// One voter more than needed: it must be asked, and its failure helps nobody.
    EvenVoters {
        /// How many there are.
        count: usize,
    },
    /// Requests give up before a new leader can be there.
    ImpatientRequests,
    /// The log may be gone after a restart.
    VolatileLog,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EvenVoters { count } => write!(
                f,
                "node.peers has {count} voters: no more of them may fail than of {}, and a majority is larger",
                count - 1
            ),
            Self::ImpatientRequests => f.write_str(
                "raft.request_timeout is below four times raft.election_timeout: requests give up before a failed \
                 leader is replaced",
            ),
            Self::VolatileLog => {
                f.write_str("log.allow_volatile is set: acknowledged writes may be gone after a restart")
            }
        }
    }
}

/// Judges the whole, and sorts the peers by id.
pub(super) fn check(configuration: &mut Configuration) -> Result<Vec<Warning>, ConfigError> {
    configuration.node.peers.sort_by_key(|peer| peer.id);
    let configuration = &*configuration;
    timing(configuration)?;
    sizes(configuration)?;
    tuner(configuration)?;
    peers(configuration)?;
    tls(configuration)?;
    platform(configuration)?;
    Ok(warnings(configuration))
}

impl Configuration {
    /// A field for a message: its name, value and origin.
    fn named(&self, name: &str) -> String {
        let (field, value, origin) =
            self.show().find(|(field, ..)| field.name == name).expect("rules name fields of the table");
        format!("{} = {value:?} ({origin})", field.name)
    }
}

fn refuse(fields: &'static [&'static str], reason: String) -> Result<(), ConfigError> {
    Err(ConfigError::Combination { fields, reason })
}

fn timing(c: &Configuration) -> Result<(), ConfigError> {
    if c.raft.election_timeout <= c.raft.heartbeat * 3 {
        return refuse(
            &["raft.election_timeout", "raft.heartbeat"],
            format!(
                "{} must be more than three times {}: two heartbeats lost in a row would depose a healthy leader",
                c.named("raft.election_timeout"),
                c.named("raft.heartbeat"),
            ),
        );
    }
    if c.lease() >= c.promise() {
        return refuse(
            &["raft.drift_bound", "raft.heartbeat"],
            format!(
                "{} leaves a lease of {:?}, which must be shorter than three times {}: a new leader could be elected \
                 while the old one still reads",
                c.named("raft.drift_bound"),
                c.lease(),
                c.named("raft.heartbeat"),
            ),
        );
    }
    Ok(())
}

fn sizes(c: &Configuration) -> Result<(), ConfigError> {
    let limits = &c.limits;
    let command = ByteCount((c.kv_limits().command_bytes() + COMMAND_PREFIX) as u64);
    if limits.batch_bytes.0 > c.log.segment_bytes.0 / 4 {
        return refuse(
            &["limits.batch_bytes", "log.segment_bytes"],
            format!(
                "{} must be at most a quarter of {}: a batch lies in one segment, and the rest of it would be wasted",
                c.named("limits.batch_bytes"),
                c.named("log.segment_bytes"),
            ),
        );
    }
    for (name, room) in
        [("limits.batch_bytes", limits.batch_bytes), ("limits.pending_bytes", limits.pending_bytes)]
    {
        if command > room {
            return refuse(
                &["limits.value_bytes", "limits.key_bytes", "limits.batch_bytes", "limits.pending_bytes"],
                format!(
                    "{} with {} makes commands of up to {command} (compare-and-swap carries two values), more than \
                     {}: they would be admitted and never committed",
                    c.named("limits.value_bytes"),
                    c.named("limits.key_bytes"),
                    c.named(name),
                ),
            );
        }
    }
    if limits.message_bytes.0 < limits.batch_bytes.0 + MESSAGE_OVERHEAD {
        return refuse(
            &["limits.message_bytes", "limits.batch_bytes"],
            format!(
                "{} must hold {} and {} more: a full batch could not be sent",
                c.named("limits.message_bytes"),
                c.named("limits.batch_bytes"),
                ByteCount(MESSAGE_OVERHEAD),
            ),
        );
    }
    for (small, large, reason, fields) in [
        (
            ("limits.batch_bytes", limits.batch_bytes),
            ("limits.inflight_bytes", limits.inflight_bytes),
            "a full batch could never be sent to a peer",
            &["limits.inflight_bytes", "limits.batch_bytes"] as &[_],
        ),
        (
            ("limits.inflight_bytes", limits.inflight_bytes),
            ("limits.cache_bytes", limits.cache_bytes),
            "entries would leave the cache before the peers that they were sent to have answered",
            &["limits.cache_bytes", "limits.inflight_bytes"],
        ),
    ] {
        if large.1 < small.1 {
            return refuse(
                fields,
                format!("{} must be at least {}: {reason}", c.named(large.0), c.named(small.0)),
            );
        }
    }
    Ok(())
}

/// What a tuner may choose must be possible, and it must begin somewhere within. One that is off may be told anything that
/// could be meant.
fn tuner(c: &Configuration) -> Result<(), ConfigError> {
    if let Some(soft) = c.limits.batch_soft_bytes
        && soft > c.limits.batch_bytes
    {
        return refuse(
            &["limits.batch_soft_bytes", "limits.batch_bytes"],
            format!(
                "{} must be at most {}: a batch holds no more",
                c.named("limits.batch_soft_bytes"),
                c.named("limits.batch_bytes"),
            ),
        );
    }
    let (bounds, pace) = (c.tuner_bounds(), c.pace());
    let is_on = c.tuner.target_p99 != LatencyTarget::Off;
    // Without a highest value of its own, that of batches is the limit's.
    let most_of_batches =
        if c.tuner.batch_bytes_max.is_some() { "tuner.batch_bytes_max" } else { "limits.batch_bytes" };
    let knobs: [(Knob, &'static [&'static str], &str); 3] = [
        (
            Knob::BatchBytes,
            &[
                "tuner.batch_bytes_min",
                "tuner.batch_bytes_max",
                "limits.batch_soft_bytes",
                "limits.batch_bytes",
            ],
            most_of_batches,
        ),
        (
            Knob::BatchesInFlight,
            &["tuner.batches_in_flight_min", "tuner.batches_in_flight_max", "limits.batches_in_flight"],
            "tuner.batches_in_flight_max",
        ),
        (
            Knob::InFlightBytes,
            &["tuner.inflight_bytes_min", "tuner.inflight_bytes_max", "limits.inflight_bytes"],
            "tuner.inflight_bytes_max",
        ),
    ];
    for (knob, fields, most) in knobs {
        let span = bounds.of(knob);
        let least = fields[0];
        if span.least > span.most && (is_on || most == fields[1]) {
            let reason = format!(
                "{} must be at most {}: there is nothing between them to choose from",
                c.named(least),
                c.named(most)
            );
            return refuse(fields, reason);
        }
        let start = knob.of(&pace);
        // What is left to the engine begins at the nearest bound.
        let is_given = knob != Knob::BatchBytes || c.limits.batch_soft_bytes.is_some();
        if is_on && is_given && !(span.least..=span.most).contains(&start) {
            return refuse(
                fields,
                format!(
                    "{} must lie between {} and {}: the tuner starts from it",
                    c.named(fields[2]),
                    c.named(least),
                    c.named(most),
                ),
            );
        }
    }
    for (large, small, reason, fields) in [
        (
            ("limits.batch_bytes", c.limits.batch_bytes),
            ("tuner.batch_bytes_max", bounds.batch_bytes.most),
            "a batch holds no more",
            &["tuner.batch_bytes_max", "limits.batch_bytes"] as &[_],
        ),
        (
            ("limits.cache_bytes", c.limits.cache_bytes),
            ("tuner.inflight_bytes_max", bounds.in_flight_bytes.most),
            "entries would leave the cache before the peers that they were sent to have answered",
            &["tuner.inflight_bytes_max", "limits.cache_bytes"],
        ),
    ] {
        if is_on && small.1 > large.1.0 {
            return refuse(
                fields,
                format!("{} must be at most {}: {reason}", c.named(small.0), c.named(large.0)),
            );
        }
    }
    Ok(())
}

fn peers(c: &Configuration) -> Result<(), ConfigError> {
    let origin = c.origin("node.peers").expect("a field");
    let mut addresses = BTreeMap::new();
    let mut ids = BTreeSet::new();
    for peer in &c.node.peers {
        if !ids.insert(peer.id) {
            let reason = format!(
                "node.peers ({origin}) has id {} twice: every node has an id of its own, for ever",
                peer.id
            );
            return refuse(&["node.peers"], reason);
        }
        if let Some(other) = addresses.insert(&peer.address, peer.id) {
            let reason = format!(
                "node.peers ({origin}) has address {} twice, for ids {other} and {}: only one of them can be there",
                peer.address, peer.id
            );
            return refuse(&["node.peers"], reason);
        }
    }
    if !ids.is_empty() && !ids.contains(&c.node.id) {
        let listed: Vec<_> = ids.iter().map(ToString::to_string).collect();
        let reason = format!(
            "{} is not among node.peers ({origin}), which lists {}: a node is one of its own peers",
            c.named("node.id"),
            listed.join(", "),
        );
        return refuse(&["node.id", "node.peers"], reason);
    }
    Ok(())
}

fn tls(c: &Configuration) -> Result<(), ConfigError> {
    const FILES: &[&str] = &["tls.mode", "tls.ca", "tls.cert", "tls.key"];
    let given = [("tls.ca", &c.tls.ca), ("tls.cert", &c.tls.cert), ("tls.key", &c.tls.key)];
    match c.tls.mode {
        TlsMode::Files => {
            if let Some((name, _)) = given.iter().find(|(_, path)| path.is_none()) {
                return refuse(FILES, format!("{} needs {name}, which is not set", c.named("tls.mode")));
            }
            if c.tls.dir.is_some() {
                let reason = format!(
                    "{} would be ignored: {} takes no directory",
                    c.named("tls.dir"),
                    c.named("tls.mode")
                );
                return refuse(&["tls.mode", "tls.dir"], reason);
            }
        }
        TlsMode::Development => {
            if let Some((name, _)) = given.iter().find(|(_, path)| path.is_some()) {
                let reason = format!(
                    "{} would be ignored: {} makes its own certificates; set tls.mode = \"files\" to use yours",
                    c.named(name),
                    c.named("tls.mode"),
                );
                return refuse(FILES, reason);
            }
        }
    }
    Ok(())
}

fn platform(c: &Configuration) -> Result<(), ConfigError> {
    if c.runtime.kind == RuntimeKind::Glommio && !cfg!(target_os = "linux") {
        let reason = format!("{} runs on Linux only; use \"auto\" or \"tokio\"", c.named("runtime.kind"));
        return refuse(&["runtime.kind"], reason);
    }
    Ok(())
}

fn warnings(c: &Configuration) -> Vec<Warning> {
    let count = c.node.peers.len();
    let even = count > 0 && count.is_multiple_of(2);
    [
        (even, Warning::EvenVoters { count }),
        (c.raft.request_timeout < c.raft.election_timeout * 4, Warning::ImpatientRequests),
        (c.log.allow_volatile, Warning::VolatileLog),
    ]
    .into_iter()
    .filter_map(|(holds, warning)| holds.then_some(warning))
    .collect()
}
