//! One QUIC connection and the lanes on it.
//!
//! A link moves bytes between the connection's streams and whole messages. Who the other side is, and which of two
//! links stays, is decided above it.

use std::net::SocketAddr;

use bytes::Bytes;
use quinn_proto as quic;
use quinn_proto::{Dir, StreamId, VarInt};
use std::time::Instant;

use crate::framing::{Assembler, Outbox, lane_number, lane_of};
use crate::{CloseCode, Lane, PeerId};

/// How far a link has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// TLS is at work.
    Handshake,
    /// Both certificates are good; the other side's greeting is awaited.
    Greeting,
    /// The other side is `peer`, and this is its link.
    Up { peer: PeerId, incarnation: u64, since: Instant },
    /// Closed or lost; what is left is QUIC's farewell.
    Closed,
}

/// Whether a stream holds more than was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Left {
    Nothing,
    More,
}

/// What a waiting message costs beside its bytes, so that empty messages have a limit too.
pub(crate) const PER_MESSAGE: usize = 64;
const _: () = assert!(size_of::<crate::Event>() <= PER_MESSAGE, "an event is counted in full");

pub(crate) struct Link {
    pub(crate) connection: quic::Connection,
    pub(crate) handle: quic::ConnectionHandle,
    pub(crate) stage: Stage,
    /// The peer that this node dialed; `None` on an accepted link.
    pub(crate) dialed: Option<PeerId>,
    /// Where it came from or went to at first.
    pub(crate) remote: SocketAddr,
    /// Handshake and greeting end by then.
    pub(crate) greet_by: Instant,
    /// When the connection wants `handle_timeout`. Valid when the link is on no list.
    pub(crate) timeout: Option<Instant>,
    /// On the list of links whose events must be looked at.
    pub(crate) dirty: bool,
    /// On the list of links that may have something to send.
    pub(crate) sending: bool,
    /// Reading stopped because too much waits in `poll_event`.
    pub(crate) stalled: bool,
    outbound: [Outbound; 2],
    inbound: Vec<Inbound>,
    max_message: usize,
}

#[derive(Default)]
struct Outbound {
    stream: Option<StreamId>,
    outbox: Outbox,
    /// QUIC took no more and will say when it does.
    blocked: bool,
}

struct Inbound {
    stream: StreamId,
    lane: Option<Lane>,
    readable: bool,
    assembler: Assembler,
}

impl Link {
    pub(crate) fn new(
        connection: quic::Connection,
        handle: quic::ConnectionHandle,
        dialed: Option<PeerId>,
        greet_by: Instant,
        max_message: usize,
    ) -> Self {
        let remote = connection.remote_address();
        Self {
            connection,
            handle,
            stage: Stage::Handshake,
            dialed,
            remote,
            greet_by,
            timeout: None,
            dirty: false,
            sending: false,
            stalled: false,
            outbound: Default::default(),
            inbound: Vec::new(),
            max_message,
        }
    }

    pub(crate) fn is_half_open(&self) -> bool {
        self.dialed.is_none() && matches!(self.stage, Stage::Handshake | Stage::Greeting)
    }

    /// Opens both lanes and greets.
    pub(crate) fn open_lanes(&mut self, greeting: &Bytes) -> Result<(), CloseCode> {
        for lane in Lane::ALL {
            let stream = self.connection.streams().open(Dir::Uni).ok_or(CloseCode::LaneEnded)?;
            if lane == Lane::Control {
                let _ = self.connection.send_stream(stream).set_priority(1);
            }
            let outbound = &mut self.outbound[lane.slot()];
            outbound.stream = Some(stream);
            outbound.outbox.raw(&[lane_number(lane)]);
        }
        let length = u32::try_from(greeting.len()).expect("36 bytes");
        self.queue(Lane::Control, std::slice::from_ref(greeting), length);
        self.stage = Stage::Greeting;
        Ok(())
    }

    pub(crate) fn queued(&self, lane: Lane) -> usize {
        self.outbound[lane.slot()].outbox.bytes()
    }

    /// Queues one message of `length` bytes.
    pub(crate) fn queue(&mut self, lane: Lane, parts: &[Bytes], length: u32) {
        self.outbound[lane.slot()].outbox.message(parts, length);
    }

    /// Gives QUIC what it takes, the control lane first.
    pub(crate) fn flush(&mut self) -> Result<(), CloseCode> {
        for outbound in &mut self.outbound {
            let Some(stream) = outbound.stream else { continue };
            while !outbound.blocked && !outbound.outbox.is_empty() {
                match self.connection.send_stream(stream).write_chunks(outbound.outbox.next()) {
                    Ok(written) => outbound.outbox.written(written.chunks, written.bytes),
                    Err(quic::WriteError::Blocked) => outbound.blocked = true,
                    Err(_) => return Err(CloseCode::LaneEnded),
                }
            }
        }
        Ok(())
    }

    /// Notes what QUIC says about streams.
    pub(crate) fn handle_stream_event(&mut self, event: &quic::StreamEvent) -> Result<(), CloseCode> {
        match *event {
            quic::StreamEvent::Opened { dir: Dir::Uni } => {
                while let Some(stream) = self.connection.streams().accept(Dir::Uni) {
                    let assembler = Assembler::new(self.max_message);
                    self.inbound.push(Inbound { stream, lane: None, readable: true, assembler });
                }
            }
            quic::StreamEvent::Readable { id } => {
                if let Some(inbound) = self.inbound.iter_mut().find(|inbound| inbound.stream == id) {
                    inbound.readable = true;
                }
            }
            quic::StreamEvent::Writable { id } => {
                if let Some(outbound) = self.outbound.iter_mut().find(|outbound| outbound.stream == Some(id))
                {
                    outbound.blocked = false;
                }
            }
            quic::StreamEvent::Stopped { .. } => return Err(CloseCode::LaneEnded),
            // No lane is ever finished from this side, and nobody waits for more streams.
            quic::StreamEvent::Finished { .. }
            | quic::StreamEvent::Opened { dir: Dir::Bi }
            | quic::StreamEvent::Available { .. } => {}
        }
        Ok(())
    }

    /// Reads what has arrived into `messages`, up to `budget` bytes; `More` if something is left. Before the greeting
    /// only the control lane, so that nothing of the log lane is believed early: it waits under flow control.
    pub(crate) fn read(
        &mut self,
        messages: &mut Vec<(Lane, Bytes)>,
        budget: &mut usize,
    ) -> Result<Left, CloseCode> {
        let up = matches!(self.stage, Stage::Up { .. });
        let mut left = Left::Nothing;
        for at in 0..self.inbound.len() {
            if !self.inbound[at].readable {
                continue;
            }
            if self.inbound[at].lane.is_none() {
                self.identify(at)?;
            }
            if self.inbound[at].lane == Some(Lane::Control) || up {
                self.read_stream(at, messages, budget)?;
                if self.inbound[at].readable {
                    left = Left::More;
                }
            }
        }
        Ok(left)
    }

    /// Reads the lane number at a stream's beginning.
    fn identify(&mut self, at: usize) -> Result<(), CloseCode> {
        let mut stream = self.connection.recv_stream(self.inbound[at].stream);
        let mut chunks = stream.read(true).map_err(|_| CloseCode::LaneEnded)?;
        let first = match chunks.next(1) {
            Ok(Some(chunk)) => chunk.bytes.first().copied(),
            Ok(None) | Err(quic::ReadError::Reset(_)) => return Err(CloseCode::LaneEnded),
            Err(quic::ReadError::Blocked) => None,
        };
        let _ = chunks.finalize();
        match first {
            None => self.inbound[at].readable = false,
            Some(number) => {
                let lane = lane_of(number).ok_or(CloseCode::UnknownLane)?;
                if self.inbound.iter().any(|inbound| inbound.lane == Some(lane)) {
                    return Err(CloseCode::LaneTwice);
                }
                self.inbound[at].lane = Some(lane);
            }
        }
        Ok(())
    }

    fn read_stream(
        &mut self,
        at: usize,
        messages: &mut Vec<(Lane, Bytes)>,
        budget: &mut usize,
    ) -> Result<(), CloseCode> {
        let inbound = &mut self.inbound[at];
        let Some(lane) = inbound.lane else { return Ok(()) };
        let mut stream = self.connection.recv_stream(inbound.stream);
        let mut chunks = stream.read(true).map_err(|_| CloseCode::LaneEnded)?;
        let verdict = loop {
            if *budget == 0 {
                break Ok(());
            }
            match chunks.next(usize::MAX) {
                Ok(Some(chunk)) => {
                    let (length, before) = (chunk.bytes.len(), messages.len());
                    let whole = |message| messages.push((lane, message));
                    if inbound.assembler.push(chunk.bytes, whole).is_err() {
                        break Err(CloseCode::TooLong);
                    }
                    *budget = budget.saturating_sub(length + (messages.len() - before) * PER_MESSAGE);
                }
                Ok(None) | Err(quic::ReadError::Reset(_)) => break Err(CloseCode::LaneEnded),
                Err(quic::ReadError::Blocked) => {
                    inbound.readable = false;
                    break Ok(());
                }
            }
        };
        // New credit is sent with the next packets: whoever reads also looks for something to send.
        let _ = chunks.finalize();
        verdict
    }

    pub(crate) fn close(&mut self, now: Instant, code: CloseCode) {
        self.stage = Stage::Closed;
        self.connection.close(now, VarInt::from_u32(code.wire()), Bytes::new());
    }

    /// When this link next wants attention, as far as time alone is concerned.
    pub(crate) fn refresh_timeout(&mut self) {
        let timeout = self.connection.poll_timeout();
        self.timeout = match self.stage {
            Stage::Handshake | Stage::Greeting => {
                Some(timeout.map_or(self.greet_by, |at| at.min(self.greet_by)))
            }
            Stage::Up { .. } | Stage::Closed => timeout,
        };
    }
}

#[cfg(test)]
impl Link {
    /// Says something on a lane that no honest peer would.
    pub(crate) fn raw_for_test(&mut self, lane: Lane, bytes: &[u8]) {
        self.outbound[lane.slot()].outbox.raw(bytes);
    }

    /// Holds a lane back, or lets it go.
    pub(crate) fn hold_for_test(&mut self, lane: Lane, held: bool) {
        self.outbound[lane.slot()].blocked = held;
    }

    /// The stream of an outgoing lane.
    pub(crate) fn stream_for_test(&self, lane: Lane) -> StreamId {
        self.outbound[lane.slot()].stream.expect("open")
    }
}
