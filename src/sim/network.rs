//! The lines between members: who hears whom, how late, and what is lost, doubled or heard again.
//!
//! A line belongs to a connection, and a connection to one life of each end: nothing of an old connection is heard on a
//! new one, which is what the transport promises (`node::Input::Connected`). Within a connection anything may happen,
//! although a real one keeps order: consensus must not need it.

use super::dice::Dice;
use super::observation::Instant;
use super::plan::Lines;
use crate::node::{Message, wire};
use bytes::{Bytes, BytesMut};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use wal::NodeId;

/// A line in one direction.
pub(super) type Line = (NodeId, NodeId);

/// A message on its way.
#[derive(Clone, Debug)]
pub(super) struct Parcel {
    pub from: NodeId,
    pub to: NodeId,
    /// The connection it travels on.
    pub connection: u64,
    pub message: Message,
}

/// How many old messages of a line are kept to be heard again.
const KEPT: usize = 8;

/// Counted at the lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Messages handed to a line.
    pub sent: u64,
    /// Arrived.
    pub delivered: u64,
    /// Lost by chance, or on a line that was cut.
    pub lost: u64,
    /// Delivered twice.
    pub duplicated: u64,
    /// Heard again, long after.
    pub replayed: u64,
    /// Held back by more than the line's own delay.
    pub reordered: u64,
}

impl Traffic {
    /// Adds another run's.
    pub fn add(&mut self, other: &Self) {
        let Self { sent, delivered, lost, duplicated, replayed, reordered } = *other;
        self.sent += sent;
        self.delivered += delivered;
        self.lost += lost;
        self.duplicated += duplicated;
        self.replayed += replayed;
        self.reordered += reordered;
    }
}

#[derive(Debug)]
pub(super) struct Network {
    pub lines: Lines,
    dice: Dice,
    blocked: BTreeSet<Line>,
    slow: BTreeMap<Line, u64>,
    /// Both directions of a pair share a number; a new one means that whatever was on the way is gone.
    connections: BTreeMap<(NodeId, NodeId), u64>,
    next_connection: u64,
    kept: BTreeMap<Line, VecDeque<Parcel>>,
    pub traffic: Traffic,
}

fn pair(one: NodeId, other: NodeId) -> (NodeId, NodeId) {
    (one.min(other), one.max(other))
}

impl Network {
    pub(super) fn new(lines: Lines, dice: Dice) -> Self {
        Self {
            lines,
            dice,
            blocked: BTreeSet::new(),
            slow: BTreeMap::new(),
            connections: BTreeMap::new(),
            next_connection: 1,
            kept: BTreeMap::new(),
            traffic: Traffic::default(),
        }
    }

    pub(super) fn connect(&mut self, one: NodeId, other: NodeId) {
        self.connections.insert(pair(one, other), self.next_connection);
        self.next_connection += 1;
        self.kept.remove(&(one, other));
        self.kept.remove(&(other, one));
    }

    pub(super) fn disconnect(&mut self, one: NodeId, other: NodeId) {
        self.connections.remove(&pair(one, other));
    }

    pub(super) fn is_connected(&self, one: NodeId, other: NodeId) -> bool {
        self.connections.contains_key(&pair(one, other))
    }

    pub(super) fn block(&mut self, line: Line) {
        self.blocked.insert(line);
    }

    /// Whether anything gets through in this direction.
    pub(super) fn carries(&self, from: NodeId, to: NodeId) -> bool {
        !self.blocked.contains(&(from, to))
    }

    pub(super) fn slow_down(&mut self, line: Line, by: u64) {
        self.slow.insert(line, by);
    }

    pub(super) fn unblock_all(&mut self) {
        self.blocked.clear();
    }

    pub(super) fn quicken_all(&mut self) {
        self.slow.clear();
    }

    /// Whatever was wrong with the lines is over.
    pub(super) fn heal(&mut self) {
        self.unblock_all();
        self.quicken_all();
        let Lines { loss, duplicate, replay, reorder, delay, .. } = &mut self.lines;
        (*loss, *duplicate, *replay, *reorder) = (0, 0, 0, 0);
        *delay = (50_000, 150_000);
    }

    /// Takes a message; when and how often it arrives goes to `arrive`. False if the transport refuses it, because there
    /// is no connection.
    pub(super) fn send(
        &mut self,
        at: Instant,
        (from, to): Line,
        message: Message,
        mut arrive: impl FnMut(Instant, Parcel),
    ) -> Result<(), Message> {
        let Some(&connection) = self.connections.get(&pair(from, to)) else { return Err(message) };
        self.traffic.sent += 1;
        let Self { lines, dice, .. } = self;
        if self.blocked.contains(&(from, to)) || dice.chance(lines.loss) {
            self.traffic.lost += 1;
            return Ok(());
        }
        let message = if lines.encoded { through_the_wire(&message) } else { message };
        let mut delay = dice.between(lines.delay.0, lines.delay.1);
        if let Some(more) = self.slow.get(&(from, to)) {
            delay += more;
        }
        if dice.chance(lines.reorder) {
            delay += dice.between(0, lines.reorder_by);
            self.traffic.reordered += 1;
        }
        let parcel = Parcel { from, to, connection, message };
        if dice.chance(lines.duplicate) {
            self.traffic.duplicated += 1;
            let later = delay + dice.between(0, 4 * lines.delay.1);
            arrive(Instant(at.0 + later), parcel.clone());
        }
        if lines.replay > 0 {
            let kept = self.kept.entry((from, to)).or_default();
            if dice.chance(lines.replay)
                && let Some(old) = kept.pop_front()
            {
                self.traffic.replayed += 1;
                arrive(Instant(at.0 + delay + dice.between(0, 2_000_000_000)), old);
            }
            if kept.len() < KEPT && dice.chance(100_000) {
                kept.push_back(parcel.clone());
            }
        }
        arrive(Instant(at.0 + delay), parcel);
        Ok(())
    }

    /// Whether a parcel may still be heard: its connection is the current one.
    pub(super) fn delivers(&mut self, parcel: &Parcel) -> bool {
        let current = self.connections.get(&pair(parcel.from, parcel.to)) == Some(&parcel.connection);
        if current {
            self.traffic.delivered += 1;
        }
        current
    }
}

/// What the bytes of the wire make of a message: the same, or the wire is wrong.
fn through_the_wire(message: &Message) -> Message {
    let mut parts: Vec<Bytes> = Vec::new();
    wire::encode(message, &mut parts);
    let mut bytes = BytesMut::with_capacity(parts.iter().map(Bytes::len).sum());
    for part in &parts {
        bytes.extend_from_slice(part);
    }
    wire::decode(bytes.freeze()).expect("a node's own messages can be read")
}
