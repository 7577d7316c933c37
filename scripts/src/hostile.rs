//! Bad input against a running, loaded cluster: strangers at the handshake, and a member that lost its mind.
//!
//! Every attempt must be turned away and counted by the node it was made on; the node's process goes on, and writes are
//! acknowledged all the while.

use std::net::{SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use transport::{DevelopmentAuthority, EphemeralAuthority, Event, Lane, PeerId, Tls};

use crate::audit;
use crate::cluster::{CLUSTER, Cluster, PATIENCE, Runtimes, Settings};
use crate::intruder::Intruder;
use crate::load::{Load, Shape};
use crate::random::Random;
use crate::report::Report;
use crate::talk::Status;

/// What to throw at whom.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The program with the `node` job.
    pub program: PathBuf,
    /// Where directories are made.
    pub below: PathBuf,
    /// The nodes' drivers.
    pub runtimes: Runtimes,
    /// Random datagrams.
    pub datagrams: usize,
    /// Random messages of an admitted member.
    pub messages: usize,
    /// Seed of the bytes.
    pub seed: u64,
    /// The load meanwhile.
    pub load: Shape,
}

type Failure = Box<dyn std::error::Error>;

const ATTEMPT: Duration = Duration::from_secs(5);

/// Members take messages of up to 4 MiB unless configured otherwise.
const OVERSIZED: usize = 5 << 20;

/// Attack, and see the cluster go on.
pub fn run(plan: &Plan) -> Report {
    let mut report = Report::new(format!("bad input on {} (seed {})", plan.runtimes.name(), plan.seed));
    if let Err(error) = attack(plan, &mut report) {
        report.violation(error.to_string());
    }
    report
}

struct Target<'a> {
    cluster: &'a Cluster,
    load: &'a Load,
    index: usize,
    pid: i32,
}

impl Target<'_> {
    fn status(&self) -> Result<Status, Failure> {
        Ok(self.cluster.status(self.index, PATIENCE).ok_or("the attacked node does not answer")?)
    }

    /// Do something; the counter must rise, and the node and its cluster go on.
    fn survives(
        &self,
        name: &str,
        counter: impl Fn(&Status) -> u64,
        report: &mut Report,
        attack: impl FnOnce() -> Result<String, Failure>,
    ) -> Result<(), Failure> {
        self.load.rotate();
        let before = counter(&self.status()?);
        let outcome = attack()?;
        let deadline = Instant::now() + ATTEMPT;
        let mut after = counter(&self.status()?);
        while after <= before && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
            after = counter(&self.status()?);
        }
        report.fact(name, format!("{outcome}; counted {}", after - before));
        report.require(after > before, || format!("{name}: not counted"));
        let same = self.cluster.node(self.index).is_some_and(|node| node.runs() && node.pid() == self.pid);
        report.require(same, || format!("{name}: the node died"));
        report.require(self.load.progress(20, PATIENCE), || {
            format!("{name}: no write is acknowledged any more")
        });
        Ok(())
    }
}

fn attack(plan: &Plan, report: &mut Report) -> Result<(), Failure> {
    let cluster = Arc::new(Cluster::start(Settings::three(&plan.program, plan.runtimes, &plan.below))?);
    // The target is up all the time, the node whose identity is borrowed later is not.
    let leader = cluster.leader(PATIENCE)?;
    let borrowed = (leader + 1) % cluster.len();
    let load = Load::start(&cluster, plan.load.clone());
    let node = cluster.node(leader).ok_or("the leader has gone")?;
    let target = Target { cluster: &cluster, load: &load, index: leader, pid: node.pid() };
    strangers(&target, borrowed, plan, report)?;
    noise(&target, plan, report)?;
    cluster.kill(borrowed);
    impostor(&target, borrowed, plan, report)?;
    lunatics(&target, borrowed, plan, report)?;
    cluster.start_node(borrowed)?;
    let record = load.finish();
    audit::everything(&cluster, &record, report);
    Ok(())
}

/// An address on the cluster's own host, with a free port.
fn elsewhere(cluster: &Cluster) -> SocketAddr {
    SocketAddr::new(cluster.address(0).ip(), 0)
}

/// Certificates that should not open the door.
fn strangers(target: &Target<'_>, borrowed: usize, plan: &Plan, report: &mut Report) -> Result<(), Failure> {
    let cluster = target.cluster;
    let authority = DevelopmentAuthority::open_or_create(cluster.directory().join("certificates"), CLUSTER)?;
    // The same authority's key, signing for another cluster.
    let other = cluster.directory().join("other-cluster");
    std::fs::create_dir_all(&other)?;
    std::fs::copy(cluster.directory().join("certificates/authority.key"), other.join("authority.key"))?;
    let member = PeerId(Cluster::id(borrowed));
    let certificates: [(&str, Tls); 4] = [
        ("another authority", EphemeralAuthority::new(CLUSTER)?.issue(member)?),
        ("another cluster", EphemeralAuthority::new(CLUSTER + 1)?.issue(member)?),
        ("another cluster, the same authority's key", {
            DevelopmentAuthority::open_or_create(&other, CLUSTER + 1)?.issue(member)?
        }),
        ("a node that is no member", authority.issue(PeerId(99))?),
    ];
    for (name, tls) in certificates {
        let id = Cluster::id(target.index);
        let aim = (id, cluster.address(target.index));
        let mut intruder = Intruder::new(tls, elsewhere(cluster), aim, 8 << 20, plan.seed)?;
        let mut admitted = Ok(());
        target.survives(
            name,
            |status| status.refused,
            report,
            || {
                admitted = intruder.admitted(ATTEMPT)?;
                // Let the other side have the last word too.
                intruder.until(Duration::from_millis(300), |_| None::<()>)?;
                Ok(format!("{admitted:?}"))
            },
        )?;
        report.require(admitted.is_err(), || format!("{name}: admitted"));
    }
    Ok(())
}

/// Datagrams that are no QUIC, or only look like it.
fn noise(target: &Target<'_>, plan: &Plan, report: &mut Report) -> Result<(), Failure> {
    let socket = UdpSocket::bind(elsewhere(target.cluster))?;
    let address = target.cluster.address(target.index);
    let mut random = Random::new(plan.seed);
    target.survives(
        "random datagrams",
        |status| status.ignored,
        report,
        || {
            for number in 0..plan.datagrams {
                let length = usize::try_from(random.within(0..1500))?;
                let mut bytes = random.bytes(length);
                // A third each: anything, the start of a QUIC version 1 Initial, a short header.
                match (number % 3, bytes.as_mut_slice()) {
                    (1, [first, a, b, c, d, ..]) => {
                        *first = 0xc0 | (*first & 0x3f);
                        (*a, *b, *c, *d) = (0, 0, 0, 1);
                    }
                    (2, [first, ..]) => *first = 0x40 | (*first & 0x3f),
                    _ => {}
                }
                socket.send_to(&bytes, address)?;
                if number % 64 == 0 {
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
            Ok(format!("{} sent", plan.datagrams))
        },
    )?;
    let words = b"\x08\x01\x12\x10plaintext append\x1a\x04vote";
    target.survives(
        "plaintext",
        |status| status.ignored,
        report,
        || {
            for _ in 0..10 {
                socket.send_to(words, address)?;
            }
            Ok("10 sent".into())
        },
    )
}

/// Someone at the address of a member that is down, where the target itself will dial, with a name but not the authority.
fn impostor(target: &Target<'_>, borrowed: usize, plan: &Plan, report: &mut Report) -> Result<(), Failure> {
    let cluster = target.cluster;
    let tls = EphemeralAuthority::new(CLUSTER)?.issue(PeerId(Cluster::id(borrowed)))?;
    let aim = (Cluster::id(target.index), cluster.address(target.index));
    let mut intruder = Intruder::new(tls, cluster.address(borrowed), aim, 8 << 20, plan.seed)?;
    target.survives(
        "an impostor at a member's address",
        |status| status.refused,
        report,
        || {
            let mut attempts = 0;
            let admitted = intruder.until(Duration::from_secs(2), |event| {
                attempts += usize::from(matches!(event, Event::Refused { .. }));
                matches!(event, Event::Connected { .. }).then_some(())
            })?;
            match admitted {
                Some(()) => Err("admitted".into()),
                None => Ok(format!("{attempts} attempts refused")),
            }
        },
    )
}

/// A member with a good certificate that sends what no member sends, from the address of the node it stands in for.
fn lunatics(target: &Target<'_>, borrowed: usize, plan: &Plan, report: &mut Report) -> Result<(), Failure> {
    let cluster = target.cluster;
    let authority = DevelopmentAuthority::open_or_create(cluster.directory().join("certificates"), CLUSTER)?;
    let tls = authority.issue(PeerId(Cluster::id(borrowed)))?;
    let aim = (Cluster::id(target.index), cluster.address(target.index));
    let mut random = Random::new(plan.seed);

    let mut intruder = Intruder::new(tls.clone(), cluster.address(borrowed), aim, 8 << 20, plan.seed)?;
    intruder.admitted(ATTEMPT)?.map_err(|why| format!("a member was not admitted: {why:?}"))?;
    target.survives(
        "random messages of a member",
        |status| status.malformed,
        report,
        || {
            let mut sent = 0;
            for number in 0..plan.messages {
                let length = usize::try_from(random.within(0..3000))?;
                let lane = if number % 2 == 0 { Lane::Control } else { Lane::Log };
                sent += usize::from(intruder.send(lane, random.bytes(length)).is_ok());
                intruder.until(Duration::from_micros(200), |_| None::<()>)?;
            }
            intruder.until(Duration::from_millis(300), |_| None::<()>)?;
            Ok(format!("{sent} sent"))
        },
    )?;
    drop(intruder);

    let mut intruder = Intruder::new(tls, cluster.address(borrowed), aim, OVERSIZED, plan.seed + 1)?;
    intruder.admitted(ATTEMPT)?.map_err(|why| format!("a member was not admitted: {why:?}"))?;
    target.survives(
        "a message over the limit",
        |status| status.violations,
        report,
        || {
            intruder.send(Lane::Log, vec![7; OVERSIZED])?;
            let closed = intruder.until(ATTEMPT, |event| match event {
                Event::Disconnected { reason, .. } => Some(format!("{reason:?}")),
                _ => None,
            })?;
            Ok(closed.ok_or("the connection was not closed")?)
        },
    )
}
