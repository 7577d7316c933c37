//! Memory that the disk reads from and writes to directly: whole blocks, aligned to blocks.

use crate::sector::BLOCK;

#[derive(Clone)]
#[repr(C, align(4096))]
struct Block([u8; BLOCK]);

const _: () = assert!(size_of::<Block>() == BLOCK && align_of::<Block>() == BLOCK);

/// A run of aligned blocks. It keeps its memory, so a buffer that is used again is neither allocated nor zeroed again.
#[derive(Default)]
pub(crate) struct Buffer {
    blocks: Vec<Block>,
    /// How many of them count.
    used: usize,
}

impl Buffer {
    /// Makes it `bytes` long; a multiple of the block. Bytes that it had before stay; others are whatever was there last, or
    /// zeros.
    pub(crate) fn resize(&mut self, bytes: usize) {
        assert!(bytes.is_multiple_of(BLOCK) && bytes > 0, "direct I/O is in blocks");
        self.used = bytes / BLOCK;
        if self.used > self.blocks.len() {
            self.blocks.resize(self.used, Block([0; BLOCK]));
        }
    }

    pub(crate) fn as_mut(&mut self) -> &mut [u8] {
        let length = self.len();
        // SAFETY: the blocks are contiguous, initialised, and each is exactly `BLOCK` bytes without padding,
        // as asserted above; no more of them are used than there are. The slice borrows `self` mutably, so nothing else
        // sees the bytes while it lives.
        unsafe { std::slice::from_raw_parts_mut(self.blocks.as_mut_ptr().cast(), length) }
    }

    pub(crate) fn len(&self) -> usize {
        assert!(self.used <= self.blocks.len(), "what is used is there");
        self.used * BLOCK
    }

    /// For the kernel: byte `at`, which is in bounds or the end. Stays valid when the buffer is moved, until
    /// it is resized or dropped.
    pub(crate) fn pointer_at(&mut self, at: usize) -> *mut u8 {
        self.as_mut()[at..].as_mut_ptr()
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: as in `as_mut`, with a shared borrow.
        unsafe { std::slice::from_raw_parts(self.blocks.as_ptr().cast(), self.len()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_aligned_zeroed_and_keeps_what_is_written() {
        let mut buffer = Buffer::default();
        buffer.resize(2 * BLOCK);
        assert_eq!(buffer.pointer_at(0).align_offset(BLOCK), 0);
        assert!(buffer.as_ref().iter().all(|&byte| byte == 0));
        buffer.as_mut()[BLOCK] = 7;
        let before = buffer.pointer_at(0);
        buffer.resize(BLOCK);
        buffer.resize(2 * BLOCK);
        assert_eq!(buffer.pointer_at(0), before, "its memory is kept");
        assert_eq!((buffer.as_ref()[BLOCK], buffer.len()), (7, 2 * BLOCK));
    }
}
