//! Refusals as a code and two numbers.

use super::ReplyError;
use crate::kv::codec::Reader;
use crate::kv::{CommandError, Field, LeaseError, LeaseId, Revision, RevisionError, SessionError, SessionId};
use std::time::Duration;

/// An error as a code and two numbers.
pub(super) fn command(error: CommandError) -> (u8, u64, u64) {
    match error {
        CommandError::EmptyKey => (1, 0, 0),
        CommandError::KeyTooLong { limit, found } => (2, limit as u64, found as u64),
        CommandError::ValueTooLong { limit, found } => (3, limit as u64, found as u64),
        CommandError::Short { need, have } => (4, need as u64, have as u64),
        CommandError::Trailing(bytes) => (5, bytes as u64, 0),
        CommandError::Format(value) => (6, value.into(), 0),
        CommandError::Tag(value) => (7, value.into(), 0),
        CommandError::Expectation(value) => (8, value.into(), 0),
        CommandError::SessionTimeout { found } => split(9, found),
        CommandError::SessionNumbers { sequence, first_unanswered } => (10, sequence, first_unanswered),
        CommandError::NotInSession(tag) => (11, tag.into(), 0),
        CommandError::Range => (12, 0, 0),
        CommandError::TxnTooLarge { found } => (13, found as u64, 0),
        CommandError::TxnTooLong { limit, found } => (14, limit as u64, found as u64),
        CommandError::TxnTooDeep => (15, 0, 0),
        CommandError::DuplicateKey => (16, 0, 0),
        CommandError::TxnTooWide => (17, 0, 0),
        CommandError::PastInTxn(revision) => (18, revision, 0),
        CommandError::RangeLimit => (19, 0, 0),
        CommandError::LeaseTtl { found } => split(20, found),
        CommandError::LeaseId => (21, 0, 0),
        CommandError::Field { field, value } => {
            let at = Field::ALL.iter().position(|known| *known == field);
            (22, at.expect("every field is listed") as u64, value.into())
        }
        CommandError::LeaderOnly(tag) => (23, tag.into(), 0),
        CommandError::DeleteTooWide => (24, 0, 0),
    }
}

pub(super) fn read_command(reader: &mut Reader<'_>) -> Result<CommandError, ReplyError> {
    let (code, one, two) = (reader.u8()?, reader.u64()?, reader.u64()?);
    let length = |wide: u64| usize::try_from(wide).unwrap_or(usize::MAX);
    let (first, second) = (length(one), length(two));
    let byte = u8::try_from(one).unwrap_or(u8::MAX);
    Ok(match code {
        1 => CommandError::EmptyKey,
        2 => CommandError::KeyTooLong { limit: first, found: second },
        3 => CommandError::ValueTooLong { limit: first, found: second },
        4 => CommandError::Short { need: first, have: second },
        5 => CommandError::Trailing(first),
        6 => CommandError::Format(byte),
        7 => CommandError::Tag(byte),
        8 => CommandError::Expectation(byte),
        9 => CommandError::SessionTimeout { found: joined(one, two) },
        10 => CommandError::SessionNumbers { sequence: one, first_unanswered: two },
        11 => CommandError::NotInSession(byte),
        12 => CommandError::Range,
        13 => CommandError::TxnTooLarge { found: first },
        14 => CommandError::TxnTooLong { limit: first, found: second },
        15 => CommandError::TxnTooDeep,
        16 => CommandError::DuplicateKey,
        17 => CommandError::TxnTooWide,
        18 => CommandError::PastInTxn(one),
        19 => CommandError::RangeLimit,
        20 => CommandError::LeaseTtl { found: joined(one, two) },
        21 => CommandError::LeaseId,
        22 => match Field::ALL.get(first) {
            Some(&field) => CommandError::Field { field, value: u8::try_from(two).unwrap_or(u8::MAX) },
            None => return Err(ReplyError::Field { field: "field of a refusal", value: byte }),
        },
        23 => CommandError::LeaderOnly(byte),
        24 => CommandError::DeleteTooWide,
        value => return Err(ReplyError::Field { field: "refusal", value }),
    })
}

pub(super) fn session(error: SessionError) -> (u8, u64, u64) {
    match error {
        SessionError::Unknown { session } => (1, session.0, 0),
        SessionError::Gone { session } => (2, session.0, 0),
        SessionError::Acknowledged { sequence, first_unanswered } => (3, sequence, first_unanswered),
        SessionError::Reused { sequence } => (4, sequence, 0),
        SessionError::TooManyAnswers { answers, bytes } => (5, answers, bytes),
        SessionError::AnswersFull { bytes } => (6, bytes, 0),
        SessionError::TooManySessions { limit } => (7, limit, 0),
    }
}

pub(super) fn read_session(reader: &mut Reader<'_>) -> Result<SessionError, ReplyError> {
    let (code, first, second) = (reader.u8()?, reader.u64()?, reader.u64()?);
    Ok(match code {
        1 => SessionError::Unknown { session: SessionId(first) },
        2 => SessionError::Gone { session: SessionId(first) },
        3 => SessionError::Acknowledged { sequence: first, first_unanswered: second },
        4 => SessionError::Reused { sequence: first },
        5 => SessionError::TooManyAnswers { answers: first, bytes: second },
        6 => SessionError::AnswersFull { bytes: first },
        7 => SessionError::TooManySessions { limit: first },
        value => return Err(ReplyError::Field { field: "session refusal", value }),
    })
}

pub(super) fn lease(error: LeaseError) -> (u8, u64, u64) {
    match error {
        LeaseError::NotFound { lease } => (1, lease.0, 0),
        LeaseError::Exists { lease } => (2, lease.0, 0),
        LeaseError::TooManyLeases { limit } => (3, limit, 0),
        LeaseError::TooManyKeys { lease, limit } => (4, lease.0, limit),
    }
}

pub(super) fn read_lease(reader: &mut Reader<'_>) -> Result<LeaseError, ReplyError> {
    let (code, first, second) = (reader.u8()?, reader.u64()?, reader.u64()?);
    let lease = LeaseId(first);
    Ok(match code {
        1 => LeaseError::NotFound { lease },
        2 => LeaseError::Exists { lease },
        3 => LeaseError::TooManyLeases { limit: first },
        4 => LeaseError::TooManyKeys { lease, limit: second },
        value => return Err(ReplyError::Field { field: "lease refusal", value }),
    })
}

pub(super) fn revision(error: RevisionError) -> (u8, u64, u64) {
    match error {
        RevisionError::Compacted { requested, oldest } => (1, requested.0, oldest.0),
        RevisionError::Future { requested, current } => (2, requested.0, current.0),
    }
}

pub(super) fn read_revision(reader: &mut Reader<'_>) -> Result<RevisionError, ReplyError> {
    let (code, first, second) = (reader.u8()?, reader.u64()?, reader.u64()?);
    let requested = Revision(first);
    Ok(match code {
        1 => RevisionError::Compacted { requested, oldest: Revision(second) },
        2 => RevisionError::Future { requested, current: Revision(second) },
        value => return Err(ReplyError::Field { field: "revision refusal", value }),
    })
}

fn split(code: u8, found: Duration) -> (u8, u64, u64) {
    (code, found.as_secs(), found.subsec_nanos().into())
}

/// A part of a second never carries over: `Duration::new` would panic where it overflows.
fn joined(secs: u64, nanos: u64) -> Duration {
    Duration::new(secs, u32::try_from(nanos).unwrap_or(u32::MAX).min(999_999_999))
}
