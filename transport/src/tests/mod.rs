//! The transport on a virtual network: latency, loss, duplication and reordering by seed, time that only the test moves.

mod hostile;
mod identities;
mod lanes;
mod net;
mod reconnect;
mod swarm;
