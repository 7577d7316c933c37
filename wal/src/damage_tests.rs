//! Damage of flushed bytes, with the truth known: every bit, every sector and block zeroed, stale or swapped,
//! every length.
//!
//! The rule: a log that is served is the whole log. The one exception is the last write when nothing later
//! speaks of it, which looks like a tear; after a clean close not even that.

use crate::frame::Frame;
use crate::id::{HardState, LogIndex, NodeId, Term};
use crate::memory::{Disk, Machine, Name};
use crate::scan::Refused;
use crate::sector::{BLOCK, SECTOR};

struct Truth {
    disk: Disk,
    frames: Vec<Frame>,
    hard_state: HardState,
    /// The last write, which without a later word may be taken for torn.
    last_write: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Clean,
    Killed,
}

/// Two segments, votes between, and earlier disks for stale blocks.
fn truth(ending: Ending) -> (Truth, Vec<Disk>) {
    let mut machine = Machine::new(32 << 10);
    let mut frames = Vec::new();
    let mut past = Vec::new();
    for n in 0..7_u8 {
        past.push(machine.disk.clone());
        let size = if n == 3 { 5_000 } else { 40 };
        let batch: Vec<_> = (0..1 + n % 2).map(|_| machine.frame(&vec![n; size])).collect();
        let hard_state = (n % 3 == 1).then_some(HardState {
            term: Term(1 + u64::from(n)),
            vote: Some(NodeId(4)),
            ..HardState::default()
        });
        machine.submit(hard_state, batch.clone(), LogIndex(u64::from(n)));
        machine.run();
        frames.extend(batch);
    }
    assert_eq!(machine.disk.segments.len(), 2);
    let hard_state = HardState { term: Term(5), vote: Some(NodeId(4)), ..HardState::default() };
    let disk = match ending {
        Ending::Clean => machine.close(),
        Ending::Killed => machine.disk,
    };
    (Truth { disk, last_write: frames.len() - 1, frames, hard_state }, past)
}

fn names(disk: &Disk) -> Vec<Name> {
    disk.segments.keys().map(|&number| Name::Segment(number)).chain([Name::State]).collect()
}

#[derive(Debug, Default)]
struct Tally {
    refused: usize,
    harmless: usize,
    last_write_cut: usize,
}

impl Truth {
    /// Judges what became of a damaged disk.
    fn judge(&self, disk: &Disk, ending: Ending, tally: &mut Tally, what: impl Fn() -> String) {
        match disk.inspect() {
            Err(Refused::Corrupt { .. }) => tally.refused += 1,
            Err(other) => panic!("{}: {other:?}", what()),
            Ok(found) => {
                assert_eq!(found.state.hard_state, self.hard_state, "{}: a lost vote", what());
                if found.frames == self.frames {
                    tally.harmless += 1;
                } else {
                    assert_eq!(found.frames, self.frames[..self.last_write], "{}", what());
                    assert_eq!(ending, Ending::Killed, "{}: a clean log is whole or refused", what());
                    tally.last_write_cut += 1;
                }
            }
        }
    }
}

#[test]
fn every_flipped_bit_is_refused_or_harmless_or_in_the_last_write_of_a_killed_process() {
    for ending in [Ending::Clean, Ending::Killed] {
        let (truth, _) = truth(ending);
        let mut tally = Tally::default();
        for name in names(&truth.disk) {
            let mut disk = truth.disk.clone();
            for byte in 0..disk.file(name).len() {
                // All bits of headers and frames; where one byte is like the other, one bit in every 16th.
                let original = disk.file(name)[byte];
                let dull = byte % BLOCK >= 450 || (name != Name::State && byte < BLOCK);
                for bit in if !dull {
                    0..8
                } else if byte % 16 == 0 {
                    byte / 16 % 8..byte / 16 % 8 + 1
                } else {
                    0..0
                } {
                    disk.file(name)[byte] ^= 1 << bit;
                    truth.judge(&disk, ending, &mut tally, || format!("{name:?} byte {byte} bit {bit}"));
                    disk.file(name)[byte] = original;
                }
            }
        }
        assert!(tally.refused > 10_000 && tally.harmless > 1_000, "{tally:?}");
        assert_eq!(tally.last_write_cut > 0, ending == Ending::Killed, "{tally:?}");
    }
}

#[test]
fn every_zeroed_stale_or_swapped_sector_and_block_is_seen() {
    for ending in [Ending::Clean, Ending::Killed] {
        let (truth, past) = truth(ending);
        for unit in [SECTOR, BLOCK] {
            let mut tally = Tally::default();
            let places: Vec<_> = names(&truth.disk)
                .into_iter()
                .flat_map(|name| {
                    let units = truth.disk.clone().file(name).len() / unit;
                    (0..units).map(move |n| (name, n * unit))
                })
                .collect();
            for &(name, at) in &places {
                let mut zeroed = truth.disk.clone();
                zeroed.file(name)[at..at + unit].fill(0);
                truth.judge(&zeroed, ending, &mut tally, || format!("zeroed {name:?} {at}"));
                for (age, old) in past.iter().enumerate() {
                    let mut old = old.clone();
                    if matches!(name, Name::Segment(number) if !old.segments.contains_key(&number)) {
                        continue;
                    }
                    // A whole slot that is one record behind its place is the one lie that only the log can
                    // tell: the log's state mark must name the newer record, and here the last write does.
                    let mut stale = truth.disk.clone();
                    stale.file(name)[at..at + unit].copy_from_slice(&old.file(name)[at..at + unit]);
                    truth.judge(&stale, ending, &mut tally, || format!("stale {name:?} {at} of {age}"));
                }
            }
            for (n, &(a, at)) in places.iter().enumerate() {
                for &(b, to) in &places[n + 1..] {
                    let mut swapped = truth.disk.clone();
                    let first = swapped.file(a)[at..at + unit].to_vec();
                    let second = swapped.file(b)[to..to + unit].to_vec();
                    if first == second {
                        continue;
                    }
                    swapped.file(a)[at..at + unit].copy_from_slice(&second);
                    swapped.file(b)[to..to + unit].copy_from_slice(&first);
                    truth.judge(&swapped, ending, &mut tally, || {
                        format!("swapped {a:?} {at} with {b:?} {to}")
                    });
                }
            }
            assert!(tally.refused > 50, "{ending:?} {unit}: {tally:?}");
        }
    }
}

#[test]
fn every_other_length_of_every_file_is_refused() {
    let (truth, _) = truth(Ending::Killed);
    for name in names(&truth.disk) {
        let whole = truth.disk.clone().file(name).len();
        for length in (0..whole).chain([whole + 1, whole + SECTOR, whole + BLOCK]) {
            let mut cut = truth.disk.clone();
            cut.file(name).resize(length, 0);
            assert!(cut.inspect().is_err(), "{name:?} of {length} bytes");
        }
    }
}

#[test]
fn a_missing_renamed_or_doubled_segment_is_refused() {
    let (truth, _) = truth(Ending::Killed);
    let mut missing = truth.disk.clone();
    missing.segments.remove(&1);
    assert!(missing.inspect().is_err());
    let mut last_missing = truth.disk.clone();
    last_missing.segments.remove(&2);
    assert!(last_missing.inspect().is_err(), "the state knows of segment 2 from its first write");
    let mut all_missing = truth.disk.clone();
    all_missing.segments.clear();
    assert!(all_missing.inspect().is_err());
    let mut renamed = truth.disk.clone();
    let second = renamed.segments[&2].clone();
    renamed.segments.insert(3, second);
    assert!(renamed.inspect().is_err());
    let mut swapped = truth.disk.clone();
    let (first, second) = (swapped.segments[&1].clone(), swapped.segments[&2].clone());
    swapped.segments.insert(1, second);
    swapped.segments.insert(2, first);
    assert!(swapped.inspect().is_err());
}
