//! What an etcd server counts: its `/metrics` in Prometheus's text format, fetched over plain HTTP.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(5);

/// Fetches a path; the answer's head included.
pub fn get(port: u16, path: &str) -> io::Result<String> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    // Version 1.0: the answer ends with the connection and is not cut into chunks.
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

/// The lines of one reading.
pub struct Metrics(String);

impl Metrics {
    /// Of the server with this port.
    pub fn of(port: u16) -> io::Result<Self> {
        let text = get(port, "/metrics")?;
        if text.contains("etcd_server_is_leader") {
            Ok(Self(text))
        } else {
            Err(io::Error::other(format!("no metrics in {:?}", text.lines().next().unwrap_or(""))))
        }
    }

    fn value(&self, name: &str) -> Option<f64> {
        let value = self.0.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value?.trim().parse().ok()
    }

    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counts, written as floats")]
    fn count(&self, name: &str) -> Option<u64> {
        self.value(name).map(|value| value as u64)
    }

    /// Whether this server leads.
    pub fn leads(&self) -> bool {
        self.value("etcd_server_is_leader") == Some(1.0)
    }

    /// How often it saw leadership change.
    pub fn leader_changes(&self) -> u64 {
        self.count("etcd_server_leader_changes_seen_total").unwrap_or(0)
    }

    /// Decided up to here, as far as it knows: by its name a count, by its meaning an index (etcd's `server/raft.go`).
    pub fn decided(&self) -> u64 {
        self.count("etcd_server_proposals_committed_total").unwrap_or(0)
    }

    /// Applied up to here.
    pub fn applied(&self) -> u64 {
        self.count("etcd_server_proposals_applied_total").unwrap_or(0)
    }

    /// Flushes of its log.
    pub fn flushes(&self) -> Option<u64> {
        self.count("etcd_disk_wal_fsync_duration_seconds_count")
    }

    /// Bytes written to its log; told from version 3.5 on.
    pub fn log_bytes(&self) -> Option<u64> {
        self.count("etcd_disk_wal_write_bytes_total")
    }

    /// What else is worth keeping.
    pub fn counters(&self) -> BTreeMap<String, u64> {
        [
            // Each flushes the store's own file, beside the log.
            ("store_commits", "etcd_disk_backend_commit_duration_seconds_count"),
            ("snapshots", "etcd_debugging_snap_save_total_duration_seconds_count"),
        ]
        .into_iter()
        .filter_map(|(name, metric)| Some((name.to_owned(), self.count(metric)?)))
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_found_by_their_whole_name() {
        let metrics = Metrics(
            "HTTP/1.0 200 OK\r\n\r\n# HELP etcd_server_is_leader Whether or not this member is a leader.\n\
             etcd_server_is_leader 1\n\
             etcd_disk_wal_fsync_duration_seconds_bucket{le=\"0.001\"} 7\n\
             etcd_disk_wal_fsync_duration_seconds_count 1.234567e+06\n\
             etcd_server_leader_changes_seen_total 2\n"
                .into(),
        );
        assert!(metrics.leads());
        assert_eq!(metrics.flushes(), Some(1_234_567));
        assert_eq!(metrics.leader_changes(), 2);
        assert_eq!(metrics.log_bytes(), None);
    }
}
