//! O5, acknowledged means decided, and decided means on the disks of a majority (`DiskFirst`).
//!
//! Disks are counted at the first decision of an entry, not when a client hears of it: a disk that acknowledged the entry
//! keeps it (only a leader who lacks it could make it drop the entry, and `state_machine_safety` forbids that leader), so
//! later counts could only be higher, but for damage. A copy that damage took counts: it was there when it was promised.
//! That every acknowledged command is in the ledger is asked of each answer, at the latest when the run ends.
//!
//! `MemFirst` promises memories, which are not counted here.

use super::{Outcome, violated};
use wal::{EntryId, NodeId};

pub(super) const NAME: &str = "durable_acknowledgements";

/// What a disk has, or had before damage.
#[derive(Clone, Copy, Debug)]
pub(super) struct Copies<'a> {
    pub(super) flushed: &'a [EntryId],
    pub(super) lost: &'a [EntryId],
}

/// `entry`, at `position`, is decided for the first time, by `id`.
pub(super) fn decided<'a>(
    id: NodeId,
    entry: EntryId,
    position: usize,
    disks: impl ExactSizeIterator<Item = Copies<'a>>,
) -> Outcome {
    let members = disks.len();
    let holds = |disk: &Copies<'_>| {
        disk.flushed.get(position) == Some(&entry) || disk.lost.get(position) == Some(&entry)
    };
    let copies = disks.filter(holds).count();
    violated!(
        copies <= members / 2,
        NAME,
        "node {id} decides entry {} of term {}, which {copies} of {members} disks hold",
        entry.index,
        entry.term
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::story::{entry, log};
    use super::*;

    #[test]
    fn a_decision_needs_a_majority_of_disks() {
        let (old, new) = (log(&[1, 1]), log(&[1, 2]));
        let judge = |disks: &[(&[EntryId], &[EntryId])]| {
            let disks = disks.iter().map(|&(flushed, lost)| Copies { flushed, lost });
            decided(NodeId(1), entry(2, 2), 1, disks)
        };
        judge(&[(&new, &[]), (&new, &[]), (&old, &[])]).expect("two of three");
        judge(&[(&new, &[]), (&old[..1], &new), (&old, &[])]).expect("one was lost since");
        assert!(judge(&[(&new, &[]), (&old, &[]), (&old[..1], &[])]).is_err());
        assert!(judge(&[(&new, &[]), (&old, &[])]).is_err(), "half is no majority");
    }
}
