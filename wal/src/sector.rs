//! Records that survive a torn block: 512 bytes, hashed, written eight times into one block.
//!
//! A power cut keeps or loses whole sectors, so a block torn in any way still holds whole copies of the old
//! record or of the new one, and the newest counts. A block without a whole copy was damaged some other way.
//! Promise: what [`newest`] returns was written by [`fill`], bit for bit.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use crate::frame::{u32_at, u64_at, u128_at};
use xxhash_rust::xxh3::xxh3_128;

/// The unit of the log: everything starts at a multiple of this.
pub const BLOCK: usize = 4096;
/// [`BLOCK`] as a file offset.
pub(crate) const BLOCK_U64: u64 = BLOCK as u64;
/// What a disk writes whole or not at all.
pub const SECTOR: usize = 512;
/// The version of every structure on disk that this program reads and writes.
pub const FORMAT_VERSION: u32 = 2;

const HASH_AT: usize = SECTOR - 16;
const VERSION_AT: usize = 8;

const _: () = assert!(BLOCK.is_multiple_of(SECTOR), "a block is whole sectors");

/// One record, before or after its hash.
pub(crate) type Record = [u8; SECTOR];

/// Why a block holds no record that this program can read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unreadable {
    /// No sector is whole.
    Damaged,
    /// Whole, and of another version.
    Version(u32),
}

/// Starts a record: magic and version. The rest is the caller's, up to the hash.
pub(crate) fn blank(magic: [u8; 8]) -> Record {
    let mut record = [0_u8; SECTOR];
    record[..8].copy_from_slice(&magic);
    record[VERSION_AT..VERSION_AT + 4].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
    record
}

/// Closes a record with its hash, which is also its identity for a parent link.
pub(crate) fn seal(record: &mut Record) -> u128 {
    assert!(record[HASH_AT..].iter().all(|&byte| byte == 0), "the hash's place is free");
    let hash = xxh3_128(&record[..HASH_AT]);
    record[HASH_AT..].copy_from_slice(&hash.to_le_bytes());
    hash
}

/// The hash a sealed record carries.
pub(crate) fn hash_of(record: &Record) -> u128 {
    u128_at(record, HASH_AT)
}

/// Writes the copies of a sealed record into a block.
pub(crate) fn fill(record: &Record, block: &mut [u8]) {
    assert_eq!(block.len(), BLOCK, "a record has a block to itself");
    assert_eq!(xxh3_128(&record[..HASH_AT]), hash_of(record), "only a sealed record is written");
    for sector in block.chunks_exact_mut(SECTOR) {
        sector.copy_from_slice(record);
    }
}

/// The whole copy with the greatest number at `rank` (an offset inside the record).
pub(crate) fn newest(block: &[u8], magic: [u8; 8], rank: usize) -> Result<Record, Unreadable> {
    assert!(rank + 8 <= HASH_AT, "the number lies under the hash");
    let mut found: Option<Record> = None;
    let mut other_version = None;
    for sector in block.chunks_exact(SECTOR) {
        let record: Record = sector.try_into().expect("chunks are one sector long");
        if record[..8] != magic || xxh3_128(&record[..HASH_AT]) != hash_of(&record) {
            continue;
        }
        let version = u32_at(&record, VERSION_AT);
        if version != FORMAT_VERSION {
            other_version = Some(version);
        } else if found.is_none_or(|best| u64_at(&record, rank) > u64_at(&best, rank)) {
            found = Some(record);
        }
    }
    // A newer program's copy anywhere means that a newer program wrote last.
    match (other_version, found) {
        (Some(version), _) => Err(Unreadable::Version(version)),
        (None, Some(record)) => Ok(record),
        (None, None) => Err(Unreadable::Damaged),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAGIC: [u8; 8] = *b"test-rec";

    fn sealed(rank: u64) -> Record {
        let mut record = blank(MAGIC);
        record[40..48].copy_from_slice(&rank.to_le_bytes());
        seal(&mut record);
        record
    }

    fn block(record: &Record) -> Vec<u8> {
        let mut block = vec![0; BLOCK];
        fill(record, &mut block);
        block
    }

    #[test]
    fn any_torn_mix_yields_the_newer_if_one_copy_landed_and_else_the_older() {
        let (old, new) = (sealed(4), sealed(6));
        for landed in 0_u32..256 {
            let mut torn = block(&old);
            for sector in (0..8).filter(|sector| landed & (1 << sector) != 0) {
                torn[sector * SECTOR..][..SECTOR].copy_from_slice(&new);
            }
            let expected = if landed == 0 { old } else { new };
            assert_eq!(newest(&torn, MAGIC, 40), Ok(expected), "sectors {landed:08b}");
        }
    }

    #[test]
    fn one_flipped_bit_never_matters_and_all_copies_damaged_always_do() {
        let record = sealed(4);
        for bit in 0..SECTOR * 8 {
            let mut damaged = block(&record);
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(newest(&damaged, MAGIC, 40), Ok(record), "bit {bit}");
            let mut all = [0; BLOCK];
            for sector in all.chunks_exact_mut(SECTOR) {
                sector.copy_from_slice(&damaged[..SECTOR]);
            }
            assert_eq!(newest(&all, MAGIC, 40), Err(Unreadable::Damaged), "bit {bit}");
        }
    }

    #[test]
    fn a_newer_version_is_named() {
        let mut record = blank(MAGIC);
        record[8..12].copy_from_slice(&9_u32.to_le_bytes());
        seal(&mut record);
        assert_eq!(newest(&block(&record), MAGIC, 40), Err(Unreadable::Version(9)));
    }
}
