//! The round trip of one short message on a long-lived QUIC stream, by `quinn-proto` on plain blocking sockets: what the
//! network part of one put costs at best. Threads of one process, as the loopback's cost does not depend on more.

use super::{MESSAGE_BYTES, across_cores};
use bytes::BytesMut;
use quinn_proto::crypto::rustls::QuicServerConfig;
use quinn_proto::{
    ClientConfig, Connection, ConnectionHandle, DatagramEvent, Dir, Endpoint, EndpointConfig, Event,
    ServerConfig, StreamEvent, StreamId,
};
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The longest a side sleeps in `recv`: how late it may notice that the other one is done.
const PATIENCE: Duration = Duration::from_millis(50);
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(5);

/// Times `count` exchanges after a handshake and a short warm-up.
pub fn round_trips(count: usize) -> io::Result<Vec<Duration>> {
    const WARM_UP: usize = 20;
    let key = rcgen::generate_simple_self_signed(["localhost".to_owned()]).map_err(io::Error::other)?;
    let certificate = key.cert.der().clone();
    let private = rustls::pki_types::PrivateKeyDer::Pkcs8(key.signing_key.serialize_der().into());

    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(io::Error::other)?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], private)
        .map_err(io::Error::other)?;
    let server_config =
        ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls).map_err(io::Error::other)?));
    let mut server = Side::new(Some(Arc::new(server_config)))?;

    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate).map_err(io::Error::other)?;
    let client_config = ClientConfig::with_root_certificates(Arc::new(roots)).map_err(io::Error::other)?;
    let mut client = Side::new(None)?;
    client.connect(client_config, server.socket.local_addr()?)?;

    let done = AtomicBool::new(false);
    let this = || {
        let times: io::Result<Vec<Duration>> =
            client.open().and_then(|()| (0..WARM_UP + count).map(|_| client.exchange()).collect());
        done.store(true, Ordering::Release);
        times.map(|mut times| times.split_off(WARM_UP))
    };
    let echo = || {
        while !done.load(Ordering::Acquire) {
            server.turn()?;
            let bytes = server.read();
            if !bytes.is_empty() {
                server.write(&bytes)?;
            }
        }
        Ok(())
    };
    across_cores(this, echo)
}

/// One end: an endpoint with at most one connection and one stream.
struct Side {
    socket: UdpSocket,
    endpoint: Endpoint,
    connection: Option<(ConnectionHandle, Connection)>,
    stream: Option<StreamId>,
    out: Vec<u8>,
    datagram: Box<[u8]>,
}

impl Side {
    fn new(server: Option<Arc<ServerConfig>>) -> io::Result<Self> {
        Ok(Self {
            socket: UdpSocket::bind("127.0.0.1:0")?,
            endpoint: Endpoint::new(Arc::new(EndpointConfig::default()), server, false, None),
            connection: None,
            stream: None,
            out: Vec::with_capacity(2048),
            datagram: vec![0; 65_536].into_boxed_slice(),
        })
    }

    fn connect(&mut self, config: ClientConfig, to: SocketAddr) -> io::Result<()> {
        let connected =
            self.endpoint.connect(Instant::now(), config, to, "localhost").map_err(io::Error::other)?;
        self.connection = Some(connected);
        Ok(())
    }

    /// Waits for the handshake and opens the stream.
    fn open(&mut self) -> io::Result<()> {
        let deadline = Instant::now() + HANDSHAKE_LIMIT;
        while Instant::now() < deadline {
            self.turn()?;
            if let Some((_, connection)) = &mut self.connection
                && !connection.is_handshaking()
                && let Some(stream) = connection.streams().open(Dir::Bi)
            {
                self.stream = Some(stream);
                return Ok(());
            }
        }
        Err(io::Error::new(io::ErrorKind::TimedOut, "the QUIC probe's handshake did not finish"))
    }

    fn exchange(&mut self) -> io::Result<Duration> {
        let began = Instant::now();
        self.write(&[7_u8; MESSAGE_BYTES])?;
        let mut back = 0;
        while back < MESSAGE_BYTES {
            self.turn()?;
            back += self.read().len();
            if began.elapsed() > HANDSHAKE_LIMIT {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "a message of the QUIC probe was lost"));
            }
        }
        Ok(began.elapsed())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let (Some((_, connection)), Some(stream)) = (&mut self.connection, self.stream) {
            connection.send_stream(stream).write(bytes).map_err(io::Error::other)?;
        }
        self.transmit()
    }

    fn read(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        if let (Some((_, connection)), Some(stream)) = (&mut self.connection, self.stream)
            && let Ok(mut chunks) = connection.recv_stream(stream).read(true)
        {
            while let Ok(Some(chunk)) = chunks.next(usize::MAX) {
                bytes.extend_from_slice(&chunk.bytes);
            }
            let _ = chunks.finalize();
        }
        bytes
    }

    fn transmit(&mut self) -> io::Result<()> {
        let now = Instant::now();
        if let Some((_, connection)) = &mut self.connection {
            self.out.clear();
            while let Some(transmit) = connection.poll_transmit(now, 1, &mut self.out) {
                self.socket.send_to(&self.out[..transmit.size], transmit.destination)?;
                self.out.clear();
            }
        }
        Ok(())
    }

    /// Sends what there is to send, sleeps until a datagram or a deadline, and lets the protocol see it.
    fn turn(&mut self) -> io::Result<()> {
        self.transmit()?;
        let now = Instant::now();
        let deadline = self.connection.as_mut().and_then(|(_, connection)| connection.poll_timeout());
        let sleep = deadline.map_or(PATIENCE, |at| at.saturating_duration_since(now).min(PATIENCE));
        // A read timeout of zero would mean to wait for ever.
        self.socket.set_read_timeout(Some(sleep.max(Duration::from_micros(50))))?;
        match self.socket.recv_from(&mut self.datagram) {
            Ok((length, from)) => self.receive(length, from),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                if let Some((_, connection)) = &mut self.connection {
                    connection.handle_timeout(Instant::now());
                }
            }
            Err(error) => return Err(error),
        }
        self.follow_up();
        self.transmit()
    }

    fn receive(&mut self, length: usize, from: SocketAddr) {
        let now = Instant::now();
        let data = BytesMut::from(&self.datagram[..length]);
        self.out.clear();
        match self.endpoint.handle(now, from, None, None, data, &mut self.out) {
            Some(DatagramEvent::ConnectionEvent(_, event)) => {
                if let Some((_, connection)) = &mut self.connection {
                    connection.handle_event(event);
                }
            }
            Some(DatagramEvent::NewConnection(incoming)) => {
                self.connection = self.endpoint.accept(incoming, now, &mut self.out, None).ok();
            }
            Some(DatagramEvent::Response(_)) | None => {}
        }
    }

    fn follow_up(&mut self) {
        let Some((handle, connection)) = &mut self.connection else { return };
        while let Some(event) = connection.poll_endpoint_events() {
            if let Some(event) = self.endpoint.handle_event(*handle, event) {
                connection.handle_event(event);
            }
        }
        while let Some(event) = connection.poll() {
            if let Event::Stream(StreamEvent::Opened { dir: Dir::Bi }) = event {
                self.stream = connection.streams().accept(Dir::Bi);
            }
        }
    }
}
