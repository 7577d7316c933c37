//! A network of its own for each node: network namespaces, joined by a bridge in one more, with links that can be taken down.
//!
//! What a proxy on loopback cannot show: a node whose interface is down, to whom the kernel says so at every send. Needs root
//! and iproute2; everything made here is removed on drop.

use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// What could not be done, in the tool's words.
#[derive(Debug, thiserror::Error)]
#[error("ip {doing}: {why}")]
pub struct NamespaceError {
    doing: String,
    why: String,
}

fn ip(arguments: &[&str]) -> Result<(), NamespaceError> {
    let failed = |why: String| NamespaceError { doing: arguments.join(" "), why };
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    let output = Command::new("ip").env("PATH", path).args(arguments).output();
    let output = output.map_err(|error| failed(error.to_string()))?;
    if output.status.success() {
        return Ok(());
    }
    Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}

/// Which end of a node's link goes down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The node's own interface: its sends fail.
    Node,
    /// The port of the bridge: its sends vanish.
    Port,
}

/// The bridge's interface, in its own namespace.
const SWITCH: &str = "switch0";

/// One namespace per node.
#[derive(Debug)]
pub struct Namespaces {
    prefix: String,
    nodes: usize,
}

impl Namespaces {
    /// Make and join them.
    pub fn make(nodes: usize) -> Result<Self, NamespaceError> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let prefix = format!("de{}x{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let made = Self { prefix, nodes };
        let bridge = made.bridge();
        ip(&["netns", "add", &bridge])?;
        ip(&["-n", &bridge, "link", "add", "name", SWITCH, "type", "bridge"])?;
        ip(&["-n", &bridge, "link", "set", SWITCH, "up"])?;
        for index in 0..nodes {
            let (node, port) = (made.name(index), port(index));
            let address = format!("{}/24", made.address(index));
            ip(&["netns", "add", &node])?;
            ip(&[
                "-n", &bridge, "link", "add", "name", &port, "type", "veth", "peer", "name", "eth0", "netns",
                &node,
            ])?;
            ip(&["-n", &bridge, "link", "set", &port, "master", SWITCH, "up"])?;
            ip(&["-n", &node, "addr", "add", &address, "dev", "eth0"])?;
            ip(&["-n", &node, "link", "set", "lo", "up"])?;
            ip(&["-n", &node, "link", "set", "eth0", "up"])?;
        }
        Ok(made)
    }

    fn bridge(&self) -> String {
        format!("{}b", self.prefix)
    }

    fn name(&self, index: usize) -> String {
        format!("{}n{index}", self.prefix)
    }

    /// The address of a node. Only its own namespaces know it.
    pub fn address(&self, index: usize) -> IpAddr {
        let last = u8::try_from(index + 1).expect("a handful of nodes");
        IpAddr::V4(Ipv4Addr::new(10, 77, 0, last))
    }

    /// The beginning of a command that runs something in a node's namespace, under the same process id.
    pub fn enter(&self, index: usize) -> Command {
        // Not `ip netns exec`, which copies all mounts: a filesystem unmounted elsewhere would live on in the copy.
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.name(index)));
        command
    }

    /// Take one end of a node's link down.
    pub fn down(&self, index: usize, end: End) -> Result<(), NamespaceError> {
        match end {
            End::Node => ip(&["-n", &self.name(index), "link", "set", "eth0", "down"]),
            End::Port => ip(&["-n", &self.bridge(), "link", "set", &port(index), "down"]),
        }
    }

    /// Put both ends of a node's link up.
    pub fn up(&self, index: usize) -> Result<(), NamespaceError> {
        ip(&["-n", &self.bridge(), "link", "set", &port(index), "up"])?;
        ip(&["-n", &self.name(index), "link", "set", "eth0", "up"])
    }
}

fn port(index: usize) -> String {
    format!("port{index}")
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        // Those of a half-made network may not exist.
        for name in (0..self.nodes).map(|index| self.name(index)).chain([self.bridge()]) {
            let _ = ip(&["netns", "del", &name]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_go_down_at_either_end_and_come_back() {
        let namespaces = match Namespaces::make(2) {
            Ok(namespaces) => namespaces,
            Err(why) => {
                eprintln!("!!!! SKIPPED, no network namespaces here: {why}");
                return;
            }
        };
        // A TCP connection to a port nobody listens on is refused at once by a neighbour that is there.
        let reaches = || {
            let to = format!("exec 3<>/dev/tcp/{}/9", namespaces.address(1));
            let mut command = namespaces.enter(0);
            let output = command.args(["timeout", "0.5", "bash", "-c", &to]).output().unwrap();
            String::from_utf8_lossy(&output.stderr).contains("refused")
        };
        let settled = |wanted: bool| (0..50).any(|_| reaches() == wanted);
        assert!(settled(true));
        for end in [End::Node, End::Port] {
            namespaces.down(0, end).unwrap();
            assert!(settled(false), "{end:?}");
            namespaces.up(0).unwrap();
            assert!(settled(true), "{end:?}");
        }
    }
}
