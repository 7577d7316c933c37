//! How long keys, values and commands may be.

use super::errors::CommandError;
use super::form::{ATTACH, EXPIRE, HEAD, PREFIX, STAMP};
use super::parse::{CommandRef, put_parts};

/// How long keys and values may be, in bytes. A key has at least one byte; a value may be empty.
///
/// Two limits of this type are in use. The configured one is asked when a command is admitted, on the node that takes
/// it. [`Limits::MAX`] belongs to the format and is asked when a command is applied: were that one configurable, two
/// replicas configured differently would apply the same log to different states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Longest key.
    pub key_bytes: usize,
    /// Longest value.
    pub value_bytes: usize,
}

impl Limits {
    /// What a node admits unless configured otherwise: keys to 4 KiB, values to 256 KiB.
    pub const DEFAULT: Self = Self { key_bytes: 4 << 10, value_bytes: 256 << 10 };

    /// What the format allows and every replica applies: keys to 64 KiB, values to 4 MiB.
    pub const MAX: Self = Self { key_bytes: 64 << 10, value_bytes: 4 << 20 };

    /// Length of the longest command within these limits: a compare-and-swap of one value for another that attaches
    /// the key, in a session, or a transaction as long as that.
    #[must_use]
    pub const fn command_bytes(&self) -> usize {
        HEAD + STAMP + self.change_bytes()
    }

    /// The same without the session.
    pub(super) const fn change_bytes(&self) -> usize {
        HEAD + PREFIX + self.key_bytes + 1 + 2 * (PREFIX + self.value_bytes) + ATTACH
    }

    /// Whether `command` is well formed, within these limits, and one that may be asked for: what only a leader makes
    /// is refused.
    ///
    /// # Errors
    /// [`CommandError`] says what is wrong with it.
    pub fn check(&self, command: &[u8]) -> Result<(), CommandError> {
        if put_parts(command, *self).is_some() {
            return Ok(());
        }
        match CommandRef::parse(command, *self)? {
            CommandRef::Expire => Err(CommandError::LeaderOnly(EXPIRE)),
            _ => Ok(()),
        }
    }

    pub(super) fn check_key(&self, key: &[u8]) -> Result<(), CommandError> {
        match key.len() {
            0 => Err(CommandError::EmptyKey),
            found if found > self.key_bytes => Err(CommandError::KeyTooLong { limit: self.key_bytes, found }),
            _ => Ok(()),
        }
    }

    pub(super) fn check_value(&self, value: &[u8]) -> Result<(), CommandError> {
        let found = value.len();
        if found > self.value_bytes {
            return Err(CommandError::ValueTooLong { limit: self.value_bytes, found });
        }
        Ok(())
    }

    /// An end of a range, or a place in one. The end of a range of one key is longer by a byte than the key.
    pub(super) fn check_bound(&self, bound: &[u8]) -> Result<(), CommandError> {
        match bound.len() {
            found if found > self.key_bytes + 1 => {
                Err(CommandError::KeyTooLong { limit: self.key_bytes, found })
            }
            _ => Ok(()),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self::DEFAULT
    }
}
