//! What the kernel's answers to a write and its linked flush mean. Pure.
//!
//! A short write breaks the link, so the flush behind it is cancelled and never ran: the rest of the write is
//! submitted again, with a new flush. A flush that ran and failed is final: the page cache may already call
//! the lost bytes clean.

use crate::sector::BLOCK;
use rustix::io::Errno;

/// How often one write is submitted before it counts as refused.
pub(crate) const MAX_TRIES: u32 = 64;

/// The completions of one submission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Answers {
    /// `None`: no completion was posted, which a link with a flush that ran proves to be a success.
    pub write: Option<i32>,
    /// `None`: no flush was asked for.
    pub flush: Option<i32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Judgement {
    Done,
    /// Submit again, this many bytes further.
    Again {
        advance: usize,
    },
    WriteFailed(Errno),
    FlushFailed(Errno),
}

fn errno(result: i32) -> Errno {
    Errno::from_raw_os_error(-result)
}

fn is_transient(error: Errno) -> bool {
    // Cancelled means that it never ran.
    matches!(error, Errno::INTR | Errno::AGAIN | Errno::CANCELED)
}

/// What to do after a write of `remaining` bytes and its flush.
pub(crate) fn judge_store(answers: Answers, remaining: usize) -> Judgement {
    assert!(remaining > 0 && remaining.is_multiple_of(BLOCK), "direct writes are whole blocks");
    let written = match answers.write {
        None => remaining,
        Some(result) => match usize::try_from(result) {
            Ok(written) => written,
            Err(_) if is_transient(errno(result)) => return Judgement::Again { advance: 0 },
            Err(_) => return Judgement::WriteFailed(errno(result)),
        },
    };
    assert!(written <= remaining, "the kernel writes no more than it is given");
    if written < remaining {
        // Direct writes go on at a block; the part of one that was written is written again.
        return Judgement::Again { advance: written / BLOCK * BLOCK };
    }
    match answers.flush {
        None | Some(0) => Judgement::Done,
        Some(result) if errno(result) == Errno::CANCELED => Judgement::Again { advance: 0 },
        Some(result) => Judgement::FlushFailed(errno(result)),
    }
}

/// What to do after a read of `remaining` bytes.
pub(crate) fn judge_load(result: i32, remaining: usize) -> Judgement {
    assert!(remaining > 0 && remaining.is_multiple_of(BLOCK), "direct reads are whole blocks");
    match usize::try_from(result) {
        // The end of a file that is longer than this: someone shortened it.
        Ok(0) => Judgement::WriteFailed(Errno::IO),
        Ok(read) if read < remaining => Judgement::Again { advance: read / BLOCK * BLOCK },
        Ok(_) => Judgement::Done,
        Err(_) if is_transient(errno(result)) => Judgement::Again { advance: 0 },
        Err(_) => Judgement::WriteFailed(errno(result)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTH: usize = 3 * BLOCK;

    fn store(write: Option<i32>, flush: Option<i32>) -> Judgement {
        judge_store(Answers { write, flush }, LENGTH)
    }

    #[test]
    fn done_needs_the_whole_write_and_the_flush() {
        let whole = i32::try_from(LENGTH).expect("small");
        assert_eq!(store(None, Some(0)), Judgement::Done);
        assert_eq!(store(Some(whole), Some(0)), Judgement::Done);
        for short in 0..whole {
            let advance = usize::try_from(short).expect("positive") / BLOCK * BLOCK;
            for flush in [0, -libc::ECANCELED, -libc::EIO] {
                assert_eq!(store(Some(short), Some(flush)), Judgement::Again { advance }, "{short}");
            }
        }
    }

    #[test]
    fn a_flush_that_failed_is_never_tried_again_and_one_that_never_ran_is() {
        let again = Judgement::Again { advance: 0 };
        assert_eq!(store(None, Some(-libc::EIO)), Judgement::FlushFailed(Errno::IO));
        assert_eq!(store(None, Some(-libc::EINTR)), Judgement::FlushFailed(Errno::INTR));
        assert_eq!(store(Some(12_288), Some(-libc::ECANCELED)), again);
        assert_eq!(store(Some(-libc::EINTR), Some(-libc::ECANCELED)), again);
        assert_eq!(store(Some(-libc::EAGAIN), Some(-libc::ECANCELED)), again);
        assert_eq!(store(Some(-libc::ENOSPC), Some(-libc::ECANCELED)), Judgement::WriteFailed(Errno::NOSPC));
    }
}
