//! The next envelope's frames, put in their place while the one before is on its way.
//!
//! A write larger than a few blocks takes nearly as long to copy as to store: what is copied while the disk works costs no
//! time. Only place and order are decided here; what the envelope holds is the journal's decision, and it checks that what
//! it decided is what stands there.

use super::buffer::Buffer;
use crate::envelope::{HEADER_BYTES, disk_bytes};
use crate::journal::ENVELOPE_BYTES;
use crate::plan::WritePlan;

/// Invariant: behind the room for the header stand the frames of the first plans queued, in order, without gaps.
#[derive(Default)]
pub(crate) struct Gathering {
    buffer: Buffer,
    staged: usize,
    /// A plan was left out, and with it all that follow.
    ended: bool,
}

impl Gathering {
    /// Takes in the frames of the plan queued last, unless they are more than plans share an envelope for.
    pub(crate) fn stage(&mut self, plan: &WritePlan) {
        let bytes = plan.frame_bytes();
        self.ended |= self.staged + bytes > ENVELOPE_BYTES;
        if self.ended || bytes == 0 {
            return;
        }
        let needed = disk_bytes(self.staged + bytes);
        if self.buffer.len() < needed {
            self.buffer.resize(needed);
        }
        let mut at = HEADER_BYTES + self.staged;
        for frame in &plan.frames {
            self.buffer.as_mut()[at..][..frame.bytes().len()].copy_from_slice(frame.bytes());
            at += frame.bytes().len();
        }
        self.staged += bytes;
        assert_eq!(at, HEADER_BYTES + self.staged, "no gaps");
    }

    /// The buffer of the next envelope, of this length, and how many bytes of frames stand in it; another one for the plans
    /// that stay queued.
    pub(crate) fn take(&mut self, bytes: usize, other: Buffer) -> (Buffer, usize) {
        let mut buffer = std::mem::replace(&mut self.buffer, other);
        buffer.resize(bytes);
        self.ended = false;
        (buffer, std::mem::take(&mut self.staged).min(bytes - HEADER_BYTES))
    }
}
