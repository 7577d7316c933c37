//! The first message on each control lane: which protocol, which cluster, which node, which start of it.
//!
//! TLS has proved a name by then; the greeting adds what a certificate cannot know, the protocol's version and the
//! incarnation. Its form, little endian, 36 bytes: version u32, cluster u128, node u64, incarnation u64. A version's
//! number comes first for ever, so that any two versions can at least tell that they differ.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

use crate::{CloseCode, PeerId};

/// The version of everything that peers say to each other.
pub(crate) const VERSION: u32 = 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Greeting {
    pub(crate) cluster: u128,
    pub(crate) node: PeerId,
    pub(crate) incarnation: u64,
}

const BYTES: usize = 36;

impl Greeting {
    pub(crate) fn encode(self) -> Bytes {
        let mut bytes = BytesMut::with_capacity(BYTES);
        bytes.put_u32_le(VERSION);
        bytes.put_u128_le(self.cluster);
        bytes.put_u64_le(self.node.0);
        bytes.put_u64_le(self.incarnation);
        bytes.freeze()
    }

    pub(crate) fn decode(mut bytes: &[u8]) -> Result<Self, CloseCode> {
        if bytes.len() < 4 {
            return Err(CloseCode::BadGreeting);
        }
        if bytes.get_u32_le() != VERSION {
            return Err(CloseCode::WrongVersion);
        }
        if bytes.len() != BYTES - 4 {
            return Err(CloseCode::BadGreeting);
        }
        let cluster = bytes.get_u128_le();
        let node = PeerId(bytes.get_u64_le());
        Ok(Self { cluster, node, incarnation: bytes.get_u64_le() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_greeting_is_read_back_and_nothing_else_is() {
        let greeting = Greeting { cluster: 7 << 100, node: PeerId(3), incarnation: u64::MAX };
        let bytes = greeting.encode();
        assert_eq!(Greeting::decode(&bytes), Ok(greeting));
        for length in 0..bytes.len() {
            assert_eq!(Greeting::decode(&bytes[..length]), Err(CloseCode::BadGreeting), "{length}");
        }
        let mut newer = bytes.to_vec();
        newer[0] = 2;
        newer.push(0);
        assert_eq!(Greeting::decode(&newer), Err(CloseCode::WrongVersion));
        newer[0] = 1;
        assert_eq!(Greeting::decode(&newer), Err(CloseCode::BadGreeting), "trailing bytes");
    }
}
