//! The judge that believes revisions.
//!
//! Every answered write has a revision of its own; everything else was seen at the revision it names, after the write
//! that has it. That is one order of all answered operations, over all keys. Three things are asked of it: no write
//! shares its place, real time never runs against it, and a replay gives every answer that was given.
//!
//! An unknown write has no place. It gets one when its value is seen: after everything of its key before that, and at a
//! revision that no answered write has.

use crate::{Call, End, Operation, Shown, Violation, Writers, violation, writers};
use std::collections::{BTreeMap, BTreeSet};

/// A place in the order: a write comes before what was seen at its revision.
type Place = (u64, bool);

fn place(operation: &Operation) -> Option<Place> {
    match operation.end {
        End::Answered { revision, .. } => Some((revision, !operation.wrote())),
        End::Refused { .. } | End::Unknown => None,
    }
}

/// Judges all operations; the number of unknown writes that were seen.
pub(crate) fn check(
    operations: &[Operation],
    keys: &BTreeMap<&str, Vec<&Operation>>,
) -> Result<usize, Violation> {
    let used = own_revisions(operations)?;
    let floors = real_time(operations)?;
    let mut took_effect = 0;
    for operations in keys.values() {
        took_effect += Replay::new(&used, &floors, writers(operations)).run(operations)?;
    }
    Ok(took_effect)
}

/// The revisions of answered writes.
fn own_revisions(operations: &[Operation]) -> Result<Vec<u64>, Violation> {
    let mut owners: BTreeMap<u64, &Operation> = BTreeMap::new();
    for operation in operations.iter().filter(|operation| operation.wrote()) {
        let (revision, _) = place(operation).expect("an answered write");
        if let Some(other) = owners.insert(revision, operation) {
            return Err(violation(&[other, operation], format!("two writes were given revision {revision}")));
        }
    }
    Ok(owners.into_keys().collect())
}

/// For every unknown write (by its value and key) the highest revision that was known before it was invoked: it can
/// only have a higher one.
type Floors<'a> = BTreeMap<(&'a str, u64), u64>;

/// What ended before another began must not come after it in the order.
fn real_time(operations: &[Operation]) -> Result<Floors<'_>, Violation> {
    let mut ended: Vec<_> = operations
        .iter()
        .filter_map(|operation| Some((operation.returned()?, place(operation)?, operation)))
        .collect();
    ended.sort_by_key(|(at, ..)| *at);
    let mut ended = ended.into_iter().peekable();
    let mut newest: Option<(Place, &Operation)> = None;
    let mut floors = Floors::new();
    for operation in operations {
        while let Some((_, place, before)) = ended.next_if(|(at, ..)| *at < operation.invoked) {
            if newest.is_none_or(|(newest, _)| place > newest) {
                newest = Some((place, before));
            }
        }
        let Some((before, earlier)) = newest else { continue };
        if let Some(place) = place(operation) {
            if place < before {
                let why = format!(
                    "an operation that began after another had ended comes before it: revision {} after {}",
                    place.0, before.0
                );
                return Err(violation(&[earlier, operation], why));
            }
        } else if let (Some(value), End::Unknown) = (operation.writes(), operation.end) {
            floors.insert((operation.key.as_str(), value), before.0);
        }
    }
    Ok(floors)
}

/// One key, replayed in the order of revisions.
struct Replay<'a> {
    used: &'a [u64],
    floors: &'a Floors<'a>,
    writers: Writers<'a>,
    value: Option<u64>,
    /// The newest revision at which the key is known to have held this value.
    since: u64,
    /// Values that were overwritten. No write brings one back.
    past: BTreeSet<Option<u64>>,
    /// Unknown writes that have taken effect.
    placed: usize,
}

impl<'a> Replay<'a> {
    fn new(used: &'a [u64], floors: &'a Floors<'a>, writers: Writers<'a>) -> Self {
        Self { used, floors, writers, value: None, since: 1, past: BTreeSet::new(), placed: 0 }
    }

    fn run(mut self, operations: &[&'a Operation]) -> Result<usize, Violation> {
        let mut ordered: Vec<_> =
            operations.iter().filter_map(|&operation| Some((place(operation)?, operation))).collect();
        ordered.sort_by_key(|(place, operation)| (*place, operation.invoked));
        for ((revision, _), operation) in ordered {
            if let Some(seen) = operation.observed() {
                // A compare-and-swap saw its key just before its own revision.
                let until = revision - u64::from(operation.wrote());
                self.observe(seen, until, operation)?;
                self.since = self.since.max(until);
            }
            if operation.wrote() {
                self.write(operation.writes(), revision);
            }
        }
        Ok(self.placed)
    }

    fn write(&mut self, value: Option<u64>, revision: u64) {
        self.past.insert(self.value);
        self.value = value;
        self.since = revision;
    }

    /// The key held `seen` at revision `until`, says `witness`.
    fn observe(&mut self, seen: Option<u64>, until: u64, witness: &'a Operation) -> Result<(), Violation> {
        if seen == self.value {
            return Ok(());
        }
        let writer_of = |value: Option<u64>| value.and_then(|value| self.writers.get(&value)).copied();
        if self.past.contains(&seen) {
            let why = format!(
                "{} is seen at revision {until}, where the key holds {}: the read is stale, a write was lost, or one \
                 was applied twice",
                Shown(seen),
                Shown(self.value),
            );
            let others = [writer_of(seen), writer_of(self.value)].into_iter().flatten();
            let mut shown: Vec<_> = others.filter(|&other| other != witness).collect();
            shown.push(witness);
            return Err(violation(&shown, why));
        }
        // Never held until now: its writer comes later in the order, or is unknown and takes effect here.
        let value = seen.expect("a key holds nothing at first, so nothing is held or past");
        let writer = self.writers[&value];
        if let Some((revision, _)) = place(writer) {
            let why = format!("{value} is seen at revision {until}, and was written at {revision}");
            return Err(violation(&[writer, witness], why));
        }
        if let Call::CompareAndSwap { expected, .. } = writer.call {
            self.observe(expected, until.saturating_sub(1), witness)?;
        }
        self.place_unknown(value, until, witness)
    }

    /// Finds the unknown writer of `value` a revision that no answered write has: above those at which the key held
    /// something else and those known before the write was invoked, and up to `until`.
    fn place_unknown(&mut self, value: u64, until: u64, witness: &'a Operation) -> Result<(), Violation> {
        let writer = self.writers[&value];
        let floor = self.floors.get(&(writer.key.as_str(), value)).copied().unwrap_or(1);
        let above = self.since.max(floor);
        let used_to = |revision| self.used.partition_point(|used| *used <= revision) as u64;
        if until <= above || until - above <= used_to(until) - used_to(above) {
            let why = format!(
                "{value} is seen at revision {until}, but its write can only have one above {above}, and there is \
                 none that another write does not have"
            );
            return Err(violation(&[writer, witness], why));
        }
        self.write(Some(value), above + 1);
        self.placed += 1;
        Ok(())
    }
}
