//! Messages on a lane: the form they have in a stream, taken apart and put together.
//!
//! A stream begins with one byte, the lane's number. Then every message is its length (u32, little endian) and its
//! bytes. A length is checked against the limit before memory is reserved for it.

use std::collections::VecDeque;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

use crate::Lane;

/// The number that a lane's stream begins with. Part of the wire format. 3 is kept for snapshots.
pub(crate) const fn lane_number(lane: Lane) -> u8 {
    match lane {
        Lane::Control => 1,
        Lane::Log => 2,
    }
}

/// The lane of a number, if this version knows it.
pub(crate) const fn lane_of(number: u8) -> Option<Lane> {
    match number {
        1 => Some(Lane::Control),
        2 => Some(Lane::Log),
        _ => None,
    }
}

/// The peer announced a message beyond the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooLong;

/// Puts the messages of one stream together from whatever pieces the network delivers.
#[derive(Debug)]
pub(crate) struct Assembler {
    max_message: usize,
    /// The length's bytes so far.
    length: [u8; LENGTH],
    have: usize,
    /// The message so far, if its length is known and it did not lie in one piece.
    body: Option<(usize, BytesMut)>,
}

/// Bytes of the length before each message.
pub(crate) const LENGTH: usize = 4;

impl Assembler {
    pub(crate) fn new(max_message: usize) -> Self {
        Self { max_message, length: [0; LENGTH], have: 0, body: None }
    }

    /// Takes the next piece and hands out every message that it completes. A message that lies within the piece is a
    /// slice of it; only one that spans pieces is copied, once, into memory of exactly its size.
    pub(crate) fn push(&mut self, mut piece: Bytes, mut whole: impl FnMut(Bytes)) -> Result<(), TooLong> {
        loop {
            if let Some((length, body)) = &mut self.body {
                let missing = *length - body.len();
                body.extend_from_slice(&piece[..missing.min(piece.len())]);
                piece.advance(missing.min(piece.len()));
                if body.len() < *length {
                    return Ok(());
                }
                if let Some((_, body)) = self.body.take() {
                    whole(body.freeze());
                }
            }
            if piece.is_empty() {
                return Ok(());
            }
            let take = (LENGTH - self.have).min(piece.len());
            self.length[self.have..self.have + take].copy_from_slice(&piece[..take]);
            self.have += take;
            piece.advance(take);
            if self.have < LENGTH {
                return Ok(());
            }
            self.have = 0;
            let length = usize::try_from(u32::from_le_bytes(self.length)).map_err(|_| TooLong)?;
            if length > self.max_message {
                return Err(TooLong);
            }
            if length <= piece.len() {
                whole(piece.split_to(length));
            } else {
                self.body = Some((length, BytesMut::with_capacity(length)));
            }
        }
    }
}

/// Messages on their way into one stream.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    /// Pieces, lengths included. The first may be the rest of one that was partly written.
    pieces: VecDeque<Bytes>,
    bytes: usize,
    /// The end of the queue: lengths and small parts, gathered until QUIC takes them, so that many small messages are
    /// one piece and seldom an allocation.
    pool: BytesMut,
}

/// Parts up to this size are copied next to their message's length: cheaper than a piece of their own.
const GATHER: usize = 512;
/// Memory is taken from the allocator in these steps.
const POOL: usize = 16 << 10;

impl Outbox {
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Queues bytes as they are.
    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len();
        self.gather(bytes);
    }

    /// Queues one message: the concatenation of `parts`, which together have `length` bytes.
    pub(crate) fn message(&mut self, parts: &[Bytes], length: u32) {
        self.raw(&length.to_le_bytes());
        for part in parts {
            self.bytes += part.len();
            if part.len() <= GATHER {
                self.gather(part);
            } else {
                self.seal();
                self.pieces.push_back(part.clone());
            }
        }
    }

    fn gather(&mut self, bytes: &[u8]) {
        if self.pool.capacity() - self.pool.len() < bytes.len() {
            self.seal();
            self.pool.reserve(POOL.max(bytes.len()));
        }
        self.pool.put_slice(bytes);
    }

    /// Makes a piece of what was gathered.
    fn seal(&mut self) {
        if !self.pool.is_empty() {
            self.pieces.push_back(self.pool.split().freeze());
        }
    }

    /// The pieces that can be written next.
    pub(crate) fn next(&mut self) -> &mut [Bytes] {
        self.seal();
        self.pieces.as_mut_slices().0
    }

    /// Notes that `bytes` were taken, and with them `pieces` whole ones.
    pub(crate) fn written(&mut self, pieces: usize, bytes: usize) {
        self.pieces.drain(..pieces);
        self.bytes -= bytes;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stream(messages: &[Vec<Bytes>]) -> Vec<u8> {
        let mut outbox = Outbox::default();
        for parts in messages {
            let length = parts.iter().map(Bytes::len).sum::<usize>();
            outbox.message(parts, u32::try_from(length).expect("short"));
        }
        let bytes = outbox.bytes();
        outbox.seal();
        let stream: Vec<u8> = outbox.pieces.iter().flat_map(|piece| piece.iter().copied()).collect();
        assert_eq!(stream.len(), bytes, "the count is what is queued");
        stream
    }

    proptest! {
        #[test]
        fn what_goes_in_comes_out_however_it_is_cut(
            messages in prop::collection::vec(prop::collection::vec((any::<u8>(), 0_usize..1500), 0..4), 0..6),
            cuts in prop::collection::vec(1_usize..700, 1..20),
        ) {
            let messages: Vec<Vec<Bytes>> = messages
                .iter()
                .map(|parts| parts.iter().map(|&(byte, len)| Bytes::from(vec![byte; len])).collect())
                .collect();
            let mut rest = Bytes::from(stream(&messages));
            let mut assembler = Assembler::new(8000);
            let mut out = Vec::new();
            for cut in cuts.iter().cycle() {
                if rest.is_empty() { break; }
                let piece = rest.split_to((*cut).min(rest.len()));
                assembler.push(piece, |message| out.push(message)).expect("under the limit");
            }
            let expected: Vec<Vec<u8>> = messages.iter().map(|parts| parts.concat()).collect();
            prop_assert_eq!(out, expected);
        }

        #[test]
        fn noise_never_yields_more_than_the_limit(noise in prop::collection::vec(any::<u8>(), 0..2000)) {
            let mut assembler = Assembler::new(64);
            let mut longest = 0;
            for piece in noise.chunks(7) {
                if assembler.push(Bytes::copy_from_slice(piece), |m| longest = longest.max(m.len())).is_err() { break; }
            }
            prop_assert!(longest <= 64);
        }
    }

    #[test]
    fn an_announced_length_is_refused_before_memory_is_taken() {
        let mut assembler = Assembler::new(1000);
        let at_limit = Bytes::copy_from_slice(&1000_u32.to_le_bytes());
        assert_eq!(assembler.push(at_limit, |_| panic!("incomplete")), Ok(()));
        let mut assembler = Assembler::new(1000);
        let beyond = Bytes::copy_from_slice(&1001_u32.to_le_bytes());
        assert_eq!(assembler.push(beyond, |_| panic!("too long")), Err(TooLong));
        assert!(assembler.body.is_none());
    }

    #[test]
    fn a_message_within_one_piece_is_not_copied() {
        let piece = Bytes::from(stream(&[vec![Bytes::from_static(b"hello")]]));
        let inside = piece.as_ptr() as usize..piece.as_ptr() as usize + piece.len();
        let mut assembler = Assembler::new(1000);
        assembler.push(piece, |m| assert!(inside.contains(&(m.as_ptr() as usize)))).expect("short");
    }
}
