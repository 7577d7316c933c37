//! Memory that the disk reads from and writes to directly: whole blocks, aligned to blocks.

use crate::sector::BLOCK;

#[derive(Clone)]
#[repr(C, align(4096))]
struct Block([u8; BLOCK]);

const _: () = assert!(size_of::<Block>() == BLOCK && align_of::<Block>() == BLOCK);

/// A run of aligned blocks. It keeps its capacity, so a buffer that is used again is not allocated again.
#[derive(Default)]
pub(crate) struct Buffer {
    blocks: Vec<Block>,
}

impl Buffer {
    /// Makes it `bytes` long; a multiple of the block. New bytes are zeros.
    pub(crate) fn resize(&mut self, bytes: usize) {
        assert!(bytes.is_multiple_of(BLOCK) && bytes > 0, "direct I/O is in blocks");
        self.blocks.resize(bytes / BLOCK, Block([0; BLOCK]));
    }

    pub(crate) fn as_mut(&mut self) -> &mut [u8] {
        // SAFETY: the blocks are contiguous, initialised, and each is exactly `BLOCK` bytes without padding,
        // as asserted above. The slice borrows `self` mutably, so nothing else sees the bytes while it lives.
        unsafe { std::slice::from_raw_parts_mut(self.blocks.as_mut_ptr().cast(), self.blocks.len() * BLOCK) }
    }

    pub(crate) fn len(&self) -> usize {
        self.blocks.len() * BLOCK
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
        assert_eq!(buffer.pointer_at(0), before, "capacity is kept");
        assert_eq!(buffer.as_ref()[BLOCK], 0);
    }
}
