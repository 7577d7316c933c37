//! The numbers of the binary form.

use super::super::lease::{LEASE_TTL, LeaseId};
use super::super::session::{SESSION_TIMEOUT, Stamp};
use super::errors::CommandError;
use std::time::Duration;

pub(super) const FORMAT: u8 = 1;
pub(super) const PUT: u8 = 1;
pub(super) const DELETE: u8 = 2;
pub(super) const COMPARE_AND_SWAP: u8 = 3;
pub(super) const OPEN_SESSION: u8 = 4;
pub(super) const CLOSE_SESSION: u8 = 5;
pub(super) const IN_SESSION: u8 = 6;
pub(super) const PUT_ATTACHED: u8 = 7;
pub(super) const SWAP_ATTACHED: u8 = 8;
pub(super) const DELETE_RANGE: u8 = 9;
pub(super) const TXN: u8 = 10;
pub(super) const GRANT: u8 = 11;
pub(super) const KEEP_ALIVE: u8 = 12;
pub(super) const REVOKE: u8 = 13;
pub(super) const COMPACT: u8 = 14;
pub(super) const EXPIRE: u8 = 15;

pub(super) const EXPECT_ABSENT: u8 = 0;
pub(super) const EXPECT_VALUE: u8 = 1;
pub(super) const EXPECT_REVISION: u8 = 2;

/// Length before a key or value.
pub(super) const PREFIX: usize = 4;
/// Format and tag.
pub(super) const HEAD: usize = 2;
/// What a session adds before the command.
pub(super) const STAMP: usize = 3 * size_of::<u64>();
/// The longest attachment.
pub(super) const ATTACH: usize = 1 + size_of::<u64>();

pub(super) fn check_timeout(timeout: Duration) -> Result<(), CommandError> {
    if SESSION_TIMEOUT.contains(&timeout) {
        return Ok(());
    }
    Err(CommandError::SessionTimeout { found: timeout })
}

pub(super) fn check_ttl(ttl: Duration) -> Result<(), CommandError> {
    if LEASE_TTL.contains(&ttl) {
        return Ok(());
    }
    Err(CommandError::LeaseTtl { found: ttl })
}

pub(super) fn check_lease(lease: LeaseId) -> Result<(), CommandError> {
    if lease.0 == 0 { Err(CommandError::LeaseId) } else { Ok(()) }
}

pub(super) fn check_stamp(Stamp { sequence, first_unanswered, .. }: Stamp) -> Result<(), CommandError> {
    if (1..=sequence).contains(&first_unanswered) {
        return Ok(());
    }
    Err(CommandError::SessionNumbers { sequence, first_unanswered })
}

/// Whole milliseconds of a duration that was checked.
pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).expect("a duration within its limits")
}
