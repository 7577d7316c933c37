//! A stored key. Short ones, which most are, lie in the tree's own nodes: a search then compares neighbours in memory
//! instead of following a pointer for every key it passes (measured with 100,000 keys of 16 bytes: a third less time).

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::sync::Arc;

/// As many as fit where a long key has its pointer, length and padding, with 24 bytes in all.
const INLINE: usize = 22;

/// Ordered by its bytes, as `Borrow` demands. The history names the same keys again and again: a clone shares a long one.
#[derive(Clone, Debug)]
pub(crate) enum Key {
    Short { length: u8, bytes: [u8; INLINE] },
    Long(Arc<[u8]>),
}

impl Key {
    /// The key, if it is a short one.
    #[inline]
    pub(super) fn short(key: &[u8]) -> Option<Self> {
        let length = u8::try_from(key.len()).ok().filter(|&length| usize::from(length) <= INLINE)?;
        let mut bytes = [0; INLINE];
        bytes[..key.len()].copy_from_slice(key);
        Some(Self::Short { length, bytes })
    }

    pub fn as_slice(&self) -> &[u8] {
        match self {
            Self::Short { length, bytes } => &bytes[..usize::from(*length)],
            Self::Long(bytes) => bytes,
        }
    }
}

impl From<&[u8]> for Key {
    fn from(key: &[u8]) -> Self {
        Self::short(key).unwrap_or_else(|| Self::Long(key.into()))
    }
}

impl AsRef<[u8]> for Key {
    fn as_ref(&self) -> &[u8] {
        self.as_slice()
    }
}

impl Borrow<[u8]> for Key {
    fn borrow(&self) -> &[u8] {
        self.as_slice()
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Short { length, bytes }, Self::Short { length: other_length, bytes: other }) => {
                length == other_length && bytes == other
            }
            _ => self.as_slice() == other.as_slice(),
        }
    }
}

impl Eq for Key {}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Key {
    #[inline]
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            // Behind a key come zeros: of two that differ only in those, one begins with the other.
            (Self::Short { length, bytes }, Self::Short { length: other_length, bytes: other }) => {
                for at in [0, 8, INLINE - 8] {
                    let (word, other) = (word(bytes, at), word(other, at));
                    if word != other {
                        return word.cmp(&other);
                    }
                }
                length.cmp(other_length)
            }
            _ => self.as_slice().cmp(other.as_slice()),
        }
    }
}

/// Eight bytes as a number that is ordered as they are.
#[inline]
#[expect(clippy::big_endian_bytes, reason = "they are compared, and kept nowhere")]
fn word(bytes: &[u8; INLINE], at: usize) -> u64 {
    u64::from_be_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn short_and_long_keys_sort_together_as_bytes() {
        assert_eq!(size_of::<Key>(), 24);
        let mut keys = Vec::new();
        for length in 0..=2 * INLINE {
            keys.extend([0, b'a', 0xff].map(|last| {
                let mut key = vec![b'a'; length];
                key.push(last);
                key
            }));
        }
        keys.extend([&b"a\0"[..], b"a\0\0", b"\0\0", b"a\0b", b"ab"].map(<[u8]>::to_vec));
        for a in &keys {
            assert_eq!(Key::from(&a[..]).as_slice(), a);
            for b in &keys {
                assert_eq!(Key::from(&a[..]).cmp(&Key::from(&b[..])), a.cmp(b));
            }
        }
        let map: BTreeMap<Key, usize> =
            keys.iter().enumerate().map(|(n, key)| (Key::from(&key[..]), n)).collect();
        for key in &keys {
            let (found, &number) = map.get_key_value(&key[..]).expect("every key is found");
            assert_eq!((found.as_slice(), &keys[number]), (&key[..], key));
            assert_eq!(map.get(&Key::from(&key[..])), Some(&number));
        }
        assert_eq!(map.get(&b"a\0\0\0"[..]), None);
    }
}
