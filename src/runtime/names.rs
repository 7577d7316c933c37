//! Finding out where peers are, off the loop.
//!
//! A peer is written as an address (`10.0.0.2:9081`) or as a name (`db2.example.net:9081`). Names are resolved on a thread of
//! their own, since the system's resolver blocks. A name that does not resolve is no reason not to start: the node
//! runs with the peers it can reach, warns, and asks again, first soon and then at longer intervals. Names that did
//! resolve are looked up again from time to time, so a peer that moved is found.
//!
//! No thread is started when all peers are written as addresses.

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded, unbounded};
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::{Duration, Instant};
use wal::NodeId;

const RETRY_MIN: Duration = Duration::from_millis(250);
const RETRY_MAX: Duration = Duration::from_secs(30);
/// How often a name that resolved is looked up again.
const REFRESH: Duration = Duration::from_secs(60);

/// A peer's place as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) peer: NodeId,
    /// `host:port`.
    pub(crate) written: String,
}

/// What the thread found.
pub(crate) struct Found {
    pub(crate) peer: NodeId,
    pub(crate) address: SocketAddr,
}

/// The names that are still being looked up, or looked up again. Dropping it ends the thread.
pub(crate) struct Names {
    found: Option<Receiver<Found>>,
    _stop: Option<Sender<()>>,
}

impl Names {
    /// Addresses are found at once; names are looked up on a thread, which calls `wake` when it has found one.
    pub(crate) fn start(places: Vec<Place>, wake: impl Fn() + Send + 'static) -> (Self, Vec<Found>) {
        let mut known = Vec::new();
        let mut names = Vec::new();
        for place in places {
            match place.written.parse() {
                Ok(address) => known.push(Found { peer: place.peer, address }),
                Err(_) => names.push(place),
            }
        }
        if names.is_empty() {
            return (Self { found: None, _stop: None }, known);
        }
        let (sender, found) = unbounded();
        let (stop, stopped) = bounded(0);
        let lookups = names.into_iter().map(Lookup::new).collect();
        let spawned = std::thread::Builder::new().name("d-engine-names".into()).spawn(move || {
            look_up(lookups, resolve, &stopped, |found| {
                if sender.send(found).is_ok() {
                    wake();
                }
            });
        });
        if let Err(error) = spawned {
            tracing::error!("no thread to look up peers' names, only addresses will be reached: {error}");
        }
        (Self { found: Some(found), _stop: Some(stop) }, known)
    }

    /// The next name that was found, or found elsewhere than before.
    pub(crate) fn poll(&self) -> Option<Found> {
        self.found.as_ref()?.try_recv().ok()
    }
}

struct Lookup {
    place: Place,
    last: Option<SocketAddr>,
    due: Instant,
    retry: Duration,
}

impl Lookup {
    fn new(place: Place) -> Self {
        Self { place, last: None, due: Instant::now(), retry: RETRY_MIN }
    }
}

fn resolve(written: &str) -> Result<SocketAddr, String> {
    let mut addresses = written.to_socket_addrs().map_err(|error| error.to_string())?;
    addresses.next().ok_or_else(|| "the name has no address".to_owned())
}

/// Looks up what is due until told to stop.
fn look_up(
    mut lookups: Vec<Lookup>,
    resolve: impl Fn(&str) -> Result<SocketAddr, String>,
    stopped: &Receiver<()>,
    mut found: impl FnMut(Found),
) {
    loop {
        for lookup in &mut lookups {
            if lookup.due > Instant::now() {
                continue;
            }
            let Place { peer, ref written } = lookup.place;
            match resolve(written) {
                Ok(address) => {
                    if lookup.last.replace(address) != Some(address) {
                        tracing::info!(%peer, name = %written, %address, "peer found");
                        found(Found { peer, address });
                    }
                    lookup.retry = RETRY_MIN;
                    lookup.due = Instant::now() + REFRESH;
                }
                Err(reason) => {
                    let again = lookup.retry;
                    if lookup.last.is_none() {
                        tracing::warn!(%peer, name = %written, ?again, "peer's name does not resolve: {reason}");
                    }
                    lookup.retry = (again * 2).min(RETRY_MAX);
                    lookup.due = Instant::now() + again;
                }
            }
        }
        let next = lookups.iter().map(|lookup| lookup.due).min().expect("at least one name");
        match stopped.recv_timeout(next.saturating_duration_since(Instant::now())) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(()) | Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// The address to listen on. A name is allowed (a container's own host name), but must resolve now.
///
/// # Errors
/// Why it is not an address.
pub(crate) fn listen_address(written: &str) -> Result<SocketAddr, String> {
    written.parse().or_else(|_| resolve(written))
}

/// Wakes through a shared bell.
pub(crate) fn wake_by(bell: &Arc<super::bell::Bell>) -> impl Fn() + Send + 'static {
    let bell = Arc::clone(bell);
    move || bell.strike()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    fn place(written: &str) -> Place {
        Place { peer: NodeId(2), written: written.into() }
    }

    #[test]
    fn addresses_need_no_thread() {
        let (names, known) = Names::start(vec![place("127.0.0.1:9081"), place("[::1]:9081")], || {});
        assert!(names.found.is_none());
        assert_eq!(known.len(), 2);
    }

    #[test]
    fn a_name_is_asked_for_again_until_it_resolves_and_told_once() {
        let (stop, stopped) = bounded(1);
        let asked = Cell::new(0);
        let address: SocketAddr = "10.0.0.7:1".parse().expect("an address");
        let mut told = Vec::new();
        let started = Instant::now();
        look_up(
            vec![Lookup::new(place("later:1"))],
            |_| {
                asked.set(asked.get() + 1);
                if asked.get() < 3 { Err("not yet".into()) } else { Ok(address) }
            },
            &stopped,
            |found| {
                told.push(found.address);
                stop.send(()).expect("room for one");
            },
        );
        assert_eq!(told, [address]);
        assert_eq!(asked.get(), 3);
        assert!(started.elapsed() >= RETRY_MIN * 3, "the second wait is twice the first");
    }

    #[test]
    fn dropping_ends_the_thread() {
        let (ended, end) = bounded::<()>(0);
        // The sender lives in the thread's wake; its drop is seen here.
        let (names, _) = Names::start(vec![place("name.invalid:1")], move || {
            let _ = &ended;
        });
        drop(names);
        assert_eq!(end.recv_timeout(Duration::from_secs(20)), Err(RecvTimeoutError::Disconnected));
    }

    #[test]
    fn what_cannot_be_listened_on_is_refused() {
        assert!(listen_address("127.0.0.1:0").is_ok());
        assert!(listen_address("localhost:0").is_ok());
        assert!(listen_address("127.0.0.1").is_err());
        assert!(listen_address("no-such-host.invalid:1").is_err());
    }
}
