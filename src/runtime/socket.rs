//! The UDP socket of a loop: batches both ways, with the kernel's segmentation offload where it has it.
//!
//! The socket never blocks. What it cannot send now it reports, and the loop keeps; what arrives is copied once, into a
//! buffer of the datagrams' own size, so that a message kept for long does not hold a receive buffer of 64 KiB.

use bytes::BytesMut;
use quinn_udp::{EcnCodepoint, RecvMeta, Transmit, UdpSockRef, UdpSocketState};
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr, UdpSocket};
#[cfg(unix)]
use std::os::fd::{AsFd, BorrowedFd};

/// Runs of datagrams taken from the kernel at a time.
const BATCH: usize = 8;
/// The longest run the kernel hands over: `UDP_GRO` coalesces up to what an IP packet holds.
const RUN_BYTES: usize = 64 << 10;

/// Where a datagram came from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Origin {
    pub(crate) from: SocketAddr,
    pub(crate) local_ip: Option<IpAddr>,
    pub(crate) ecn: Option<EcnCodepoint>,
}

/// What is left in the socket after a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Left {
    /// Nothing that was there when it was looked at.
    Nothing,
    /// Perhaps more.
    Perhaps,
}

/// What became of a run of datagrams handed to the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    /// The kernel took it, or refused it for good: a lost datagram is QUIC's to repeat.
    Gone,
    /// The socket's buffer is full: try again.
    Later,
}

/// The socket and its receive buffers.
pub(crate) struct Socket {
    inner: UdpSocket,
    state: UdpSocketState,
    buffer: Box<[u8]>,
    /// Runs the kernel refused for another reason than a full buffer.
    refused: u64,
}

impl Socket {
    /// Binds `address` and asks for `buffer_bytes` in each direction; the kernel may grant less.
    ///
    /// # Errors
    /// The kernel's: the port is in use, not allowed, or the address is not of this machine.
    pub(crate) fn bind(address: SocketAddr, buffer_bytes: usize) -> io::Result<Self> {
        let inner = UdpSocket::bind(address)?;
        let state = UdpSocketState::new(UdpSockRef::from(&inner))?;
        // A machine-wide limit may cap these; smaller buffers cost repeats under load, nothing else.
        let _ = state.set_recv_buffer_size(UdpSockRef::from(&inner), buffer_bytes);
        let _ = state.set_send_buffer_size(UdpSockRef::from(&inner), buffer_bytes);
        Ok(Self { inner, state, buffer: vec![0; BATCH * RUN_BYTES].into_boxed_slice(), refused: 0 })
    }

    /// The address it is bound to.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    /// How many datagrams one send may hold: 1 without segmentation offload.
    pub(crate) fn max_segments(&self) -> usize {
        self.state.max_gso_segments()
    }

    /// A second descriptor of the same socket, for a reactor to watch.
    ///
    /// # Errors
    /// The kernel's, when no descriptor is left.
    pub(crate) fn try_clone(&self) -> io::Result<UdpSocket> {
        self.inner.try_clone()
    }

    /// Takes one batch from the kernel and hands over its datagrams. A batch that is not full has emptied the socket.
    ///
    /// # Errors
    /// The kernel's, other than "nothing there".
    pub(crate) fn receive(&mut self, mut each: impl FnMut(Origin, BytesMut)) -> io::Result<Left> {
        let mut metas = [RecvMeta::default(); BATCH];
        let mut slices = self.buffer.chunks_exact_mut(RUN_BYTES).map(IoSliceMut::new);
        let mut slices: [IoSliceMut<'_>; BATCH] =
            std::array::from_fn(|_| slices.next().expect("BATCH chunks"));
        let runs = match self.state.recv(UdpSockRef::from(&self.inner), &mut slices, &mut metas) {
            Ok(runs) => runs,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Left::Nothing),
            // An answer of the network to something sent earlier (a port unreachable). Says nothing about what waits.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                return Ok(Left::Perhaps);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(Left::Perhaps),
            Err(error) => return Err(error),
        };
        for (slice, meta) in slices.iter().zip(&metas[..runs]) {
            let origin = Origin { from: meta.addr, local_ip: meta.dst_ip, ecn: meta.ecn };
            let mut run = BytesMut::from(&slice[..meta.len]);
            while !run.is_empty() {
                each(origin, run.split_to(meta.stride.clamp(1, run.len())));
            }
        }
        Ok(if runs < BATCH.min(quinn_udp::BATCH_SIZE) { Left::Nothing } else { Left::Perhaps })
    }

    /// Hands a run of datagrams to the kernel.
    pub(crate) fn send(&mut self, transmit: &Transmit<'_>) -> Sent {
        loop {
            match self.state.try_send(UdpSockRef::from(&self.inner), transmit) {
                Ok(()) => return Sent::Gone,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Sent::Later,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.refused += 1;
                    // Probes for the largest datagram are refused in the normal course of things.
                    if !quinn_udp::is_msg_size_err(&error) && self.refused.is_power_of_two() {
                        let refused = self.refused;
                        tracing::warn!(to = %transmit.destination, refused, "the kernel refuses datagrams: {error}");
                    }
                    return Sent::Gone;
                }
            }
        }
    }
}

#[cfg(unix)]
impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loopback() -> Socket {
        Socket::bind("127.0.0.1:0".parse().expect("an address"), 1 << 20).expect("a free port")
    }

    #[test]
    fn a_run_arrives_as_the_datagrams_it_was_made_of() {
        let (mut a, mut b) = (loopback(), loopback());
        let contents: Vec<u8> = (0..2_500_u32).map(|n| (n % 251).to_le_bytes()[0]).collect();
        let to = b.local_addr().expect("bound");
        let segment_size = 1_000;
        let runs: Vec<&[u8]> =
            if a.max_segments() > 1 { vec![&contents] } else { contents.chunks(segment_size).collect() };
        for run in runs {
            let transmit = Transmit {
                destination: to,
                ecn: Some(EcnCodepoint::Ect0),
                contents: run,
                segment_size: Some(segment_size),
                src_ip: None,
            };
            assert_eq!(a.send(&transmit), Sent::Gone);
        }
        let from = a.local_addr().expect("bound");
        let mut received = Vec::new();
        while received.len() < 3 {
            b.receive(|origin, datagram| {
                assert_eq!(origin.from, from);
                assert_eq!(origin.local_ip, Some(to.ip()));
                received.push(datagram);
            })
            .expect("received");
        }
        assert_eq!(received.iter().map(|datagram| datagram.len()).collect::<Vec<_>>(), [1_000, 1_000, 500]);
        assert_eq!(received.concat(), contents);
        assert_eq!(b.receive(|_, _| panic!("nothing is left")).expect("empty"), Left::Nothing);
    }

    #[test]
    fn a_port_in_use_is_refused() {
        let taken = loopback().inner.local_addr().expect("bound");
        let holder = Socket::bind(taken, 1 << 16).expect("free again");
        let error = Socket::bind(taken, 1 << 16).map(|_| ()).expect_err("taken");
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        drop(holder);
    }
}
