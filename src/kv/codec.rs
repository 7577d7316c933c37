//! Reading and writing the store's bytes. Every length is compared with what is there before anything is taken.

use bytes::{BufMut, BytesMut};

/// The bytes end before what they announce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Short {
    pub need: usize,
    pub have: usize,
}

/// A cursor over bytes that nobody has checked.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    fn take(&mut self, need: usize) -> Result<&'a [u8], Short> {
        let (taken, rest) = self.rest.split_at_checked(need).ok_or(Short { need, have: self.rest.len() })?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Short> {
        Ok(self.take(N)?.try_into().expect("take gives what was asked for"))
    }

    pub fn u8(&mut self) -> Result<u8, Short> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    pub fn u16(&mut self) -> Result<u16, Short> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    pub fn u32(&mut self) -> Result<u32, Short> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub fn u64(&mut self) -> Result<u64, Short> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// A length (u32) and as many bytes, borrowed: an announced length never allocates.
    pub fn bytes(&mut self) -> Result<&'a [u8], Short> {
        let length = self.u32()? as usize;
        self.take(length)
    }

    /// All that was not read yet.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    /// Bytes not read yet.
    pub fn left(&self) -> usize {
        self.rest.len()
    }
}

/// Appends a length (u32) and the bytes.
pub(super) fn put_bytes(out: &mut BytesMut, bytes: &[u8]) {
    out.put_u32_le(u32::try_from(bytes.len()).expect("the store's limits are below 4 GiB"));
    out.put_slice(bytes);
}
