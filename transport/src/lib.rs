//! QUIC between peers.
