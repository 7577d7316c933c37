//! Whether somebody listens where a peer lives.
//!
//! When a process ends, however it ends, the kernel closes its sockets, and from then on answers for it: an ICMP "port
//! unreachable" for each datagram that comes. A socket that is *connected* to the peer's address is told of that. So an empty
//! datagram, which no process sees as anything, finds out what a closed TCP connection would tell.
//!
//! The answer says nothing where the whole machine is gone, where a firewall swallows the datagram or its answer, or while the
//! answer is on its way; the next knock tells. A firewall that *rejects* a stranger's datagrams gives the same answer as a
//! closed port: what is made of it must bear being wrong.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};

/// What the kernel says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Nobody listens there, now or at an earlier knock.
    Nobody,
    /// Nothing is known.
    None,
}

/// A socket connected to one peer.
pub(crate) struct Door {
    socket: UdpSocket,
    leads_to: SocketAddr,
}

impl Door {
    /// # Errors
    /// The kernel's: no socket, or no way there.
    pub(crate) fn find(local: IpAddr, peer: SocketAddr) -> io::Result<Self> {
        let socket = UdpSocket::bind((local, 0))?;
        socket.set_nonblocking(true)?;
        socket.connect(peer)?;
        Ok(Self { socket, leads_to: peer })
    }

    /// Whose it is.
    pub(crate) fn leads_to(&self) -> SocketAddr {
        self.leads_to
    }

    /// Knocks. Never blocks; on the loopback the answer is there at once.
    pub(crate) fn knock(&self) -> Answer {
        let told = |error: &io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
        let earlier = self.socket.send(&[]).is_err_and(|error| told(&error));
        let at_once = || self.socket.take_error().is_ok_and(|error| error.as_ref().is_some_and(told));
        if earlier || at_once() { Answer::Nobody } else { Answer::None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    #[test]
    fn a_closed_port_is_told_and_an_open_one_is_not() {
        let listening = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        let address = listening.local_addr().expect("bound");
        let door = Door::find(address.ip(), address).expect("found");
        for _ in 0..3 {
            assert_eq!(door.knock(), Answer::None, "somebody listens");
        }
        // What arrives is empty: nobody takes it for a message.
        assert_eq!(listening.recv(&mut [0; 8]).expect("received"), 0);
        drop(listening);
        let limit = Instant::now() + Duration::from_secs(10);
        while door.knock() == Answer::None {
            assert!(Instant::now() < limit, "the kernel answers for a closed port");
            std::thread::yield_now();
        }
        let taken = UdpSocket::bind(address).expect("free again");
        // What was answered before is not said again of the one who listens now.
        door.knock();
        assert_eq!(door.knock(), Answer::None);
        drop(taken);
    }
}
