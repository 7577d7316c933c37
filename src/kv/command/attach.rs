//! What a put attaches its key to: 0 nothing | 1 as before | 2 lease (u64) | 3 time to live in milliseconds (u64).

use super::super::codec::Reader;
use super::super::lease::{Attach, LeaseId};
use super::errors::{CommandError, Field};
use super::form::{ATTACH, check_lease, check_ttl, millis};
use bytes::{BufMut, BytesMut};
use std::time::Duration;

const NOTHING: u8 = 0;
const KEEP: u8 = 1;
const LEASE: u8 = 2;
const TTL: u8 = 3;

pub(super) fn check(attach: Attach) -> Result<(), CommandError> {
    match attach {
        Attach::Nothing | Attach::Keep => Ok(()),
        Attach::Lease(lease) => check_lease(lease),
        Attach::Ttl(ttl) => check_ttl(ttl),
    }
}

pub(super) fn read(reader: &mut Reader<'_>) -> Result<Attach, CommandError> {
    Ok(match reader.u8()? {
        NOTHING => Attach::Nothing,
        KEEP => Attach::Keep,
        LEASE => Attach::Lease(LeaseId(reader.u64()?)),
        TTL => Attach::Ttl(Duration::from_millis(reader.u64()?)),
        value => return Err(CommandError::Field { field: Field::Attachment, value }),
    })
}

pub(super) fn encoded_bytes(attach: Attach) -> usize {
    match attach {
        Attach::Nothing | Attach::Keep => 1,
        Attach::Lease(_) | Attach::Ttl(_) => ATTACH,
    }
}

pub(super) fn write(attach: Attach, out: &mut BytesMut) {
    match attach {
        Attach::Nothing => out.put_u8(NOTHING),
        Attach::Keep => out.put_u8(KEEP),
        Attach::Lease(lease) => {
            out.put_u8(LEASE);
            out.put_u64_le(lease.0);
        }
        Attach::Ttl(ttl) => {
            out.put_u8(TTL);
            out.put_u64_le(millis(ttl));
        }
    }
}
