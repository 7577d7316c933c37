//! Three nodes in three processes on this machine: the leader is killed, nothing is lost.
//!
//! ```sh
//! cargo run --release --example three-nodes-embedded
//! ```
//!
//! The program starts itself three times. Each child embeds one engine, with a data directory of its own, and does what the
//! lines of its standard input say. The parent writes, kills the leader the hard way (SIGKILL), goes on writing through the
//! other two, reads everything back, and starts the dead node again. Data and certificates lie next to the program and are
//! removed at the end.

use std::error::Error;
use std::io::{BufRead, BufReader, Write};
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use d_engine::prelude::*;

type Outcome<T> = Result<T, Box<dyn Error>>;

const WRITES: usize = 1000;

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.as_slice() {
        [] => story(),
        [id, addresses @ ..] => node(id.parse()?, addresses),
    }
}

// --- one node: all that a program has to do ----------------------------------------------------------------------------

/// Where this example keeps its data: next to the program, since a temporary directory may be memory, which the log refuses.
fn directory() -> Outcome<PathBuf> {
    let program = std::env::current_exe()?;
    Ok(program.parent().ok_or("a program lies in a directory")?.join("three-nodes-data"))
}

/// Run node `id` of a cluster whose members listen at `addresses`, until standard input closes.
#[tokio::main(flavor = "current_thread")]
async fn node(id: u64, addresses: &[String]) -> Outcome<()> {
    let engine = EmbeddedEngine::builder()
        .node_id(id)
        .cluster_name("three-nodes")
        .peers((1..).zip(addresses))
        .data_dir(directory()?.join(format!("node-{id}")))
        // For development: certificates are made on the spot. In production, `.certificates(..)` takes yours.
        .development_certificates(directory()?.join("certificates"))
        .start()
        .await?;
    engine.wait_ready(Duration::from_secs(30)).await?;
    answer("ready")?;

    let client = engine.client();
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        match line.split(' ').collect::<Vec<_>>().as_slice() {
            // Acknowledged means: on the disks of a majority. Whichever node is asked, the leader does it.
            ["put", key, value] => match client.put(key, value).await {
                Ok(done) => answer(&format!("done {}", done.revision))?,
                Err(error) => answer(&format!("failed {error}"))?,
            },
            // A linearizable read sees every acknowledged write, whichever node is asked.
            ["get", key] => answer(&text(client.get(key).await?.value))?,
            // An eventual one sees what this node has applied: here it shows what a node knows by itself.
            ["local", key] => answer(&text(client.get_eventual(key).await?.value))?,
            ["leader"] => answer(&engine.leader().map_or(0, |leader| leader.0).to_string())?,
            _ => return Err(format!("no such command: {line}").into()),
        }
    }
    engine.stop().await?;
    Ok(())
}

fn text(found: Option<KeyValue>) -> String {
    found.map_or_else(|| "-".to_owned(), |found| String::from_utf8_lossy(&found.value).into_owned())
}

/// One line up to the parent, which may have gone.
fn answer(line: &str) -> Outcome<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}

// --- the story ---------------------------------------------------------------------------------------------------------

fn story() -> Outcome<()> {
    let directory = directory()?;
    let _ = std::fs::remove_dir_all(&directory);
    let addresses = free_addresses()?;
    say(&format!("three nodes at {}, data in {}", addresses.join(", "), directory.display()));
    let mut nodes = Vec::new();
    for id in 1..=3 {
        nodes.push(Node::start(id, &addresses)?);
    }
    for node in &mut nodes {
        node.expect("ready")?;
    }

    let leader = nodes[0].ask("leader")?.parse::<usize>()?;
    let started = Instant::now();
    for number in 0..WRITES {
        // In turn through all three: followers forward to the leader.
        nodes[number % 3].put(number)?;
    }
    say(&format!(
        "node {leader} leads; {WRITES} writes acknowledged, one after the other, in {:.1?}",
        started.elapsed()
    ));

    let killed = Instant::now();
    nodes[leader - 1].kill();
    let survivor = leader % 3;
    // Between two leaders a write may fail, or its outcome be unknown. This one may simply be sent again.
    while nodes[survivor].put(WRITES).is_err() {}
    let new_leader = nodes[survivor].ask("leader")?;
    say(&format!(
        "node {leader} killed with SIGKILL; node {new_leader} took over, first new write acknowledged after {:.0?}",
        killed.elapsed()
    ));

    let missing = count_missing(&mut nodes[survivor], "get")?;
    say(&format!(
        "read back through node {}: {missing} of {} acknowledged writes missing",
        survivor + 1,
        WRITES + 1
    ));

    nodes[leader - 1] = Node::start(leader, &addresses)?;
    nodes[leader - 1].expect("ready")?;
    let mut behind = count_missing(&mut nodes[leader - 1], "local")?;
    while behind > 0 && killed.elapsed() < Duration::from_secs(60) {
        behind = count_missing(&mut nodes[leader - 1], "local")?;
    }
    say(&format!("node {leader} is back; in its own store {behind} of {} are missing", WRITES + 1));

    drop(nodes);
    std::fs::remove_dir_all(&directory)?;
    if missing + behind > 0 {
        return Err("acknowledged writes are missing".into());
    }
    say("nothing was lost");
    Ok(())
}

/// Ask one node for everything that was acknowledged, with `get` or `local`.
fn count_missing(node: &mut Node, how: &str) -> Outcome<usize> {
    let mut missing = 0;
    for number in 0..=WRITES {
        missing += usize::from(node.ask(&format!("{how} key-{number}"))? != format!("value-{number}"));
    }
    Ok(missing)
}

#[expect(clippy::print_stdout, reason = "this is the example's voice")]
fn say(what: &str) {
    println!("{what}");
}

/// Three UDP ports nobody uses.
fn free_addresses() -> Outcome<Vec<String>> {
    let sockets = (0..3).map(|_| UdpSocket::bind("127.0.0.1:0")).collect::<Result<Vec<_>, _>>()?;
    Ok(sockets
        .iter()
        .map(|socket| Ok(socket.local_addr()?.to_string()))
        .collect::<Result<_, std::io::Error>>()?)
}

/// A child process. Dropped, it is killed: a node needs no goodbye.
struct Node {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Node {
    fn start(id: usize, addresses: &[String]) -> Outcome<Self> {
        let program: &Path = &std::env::current_exe()?;
        let mut child = Command::new(program)
            .arg(id.to_string())
            .args(addresses)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let input = child.stdin.take().ok_or("stdin is piped")?;
        let output = BufReader::new(child.stdout.take().ok_or("stdout is piped")?);
        Ok(Self { child, input, output })
    }

    fn ask(&mut self, line: &str) -> Outcome<String> {
        writeln!(self.input, "{line}")?;
        self.line()
    }

    /// Succeeds when the write is acknowledged.
    fn put(&mut self, number: usize) -> Outcome<()> {
        let answer = self.ask(&format!("put key-{number} value-{number}"))?;
        if answer.starts_with("done ") { Ok(()) } else { Err(answer.into()) }
    }

    fn expect(&mut self, wanted: &str) -> Outcome<()> {
        let line = self.line()?;
        if line == wanted { Ok(()) } else { Err(format!("expected {wanted:?}, got {line:?}").into()) }
    }

    fn line(&mut self) -> Outcome<String> {
        let mut line = String::new();
        if self.output.read_line(&mut line)? == 0 {
            return Err("a node ended; its last words are above".into());
        }
        Ok(line.trim_end().to_owned())
    }

    fn kill(&mut self) {
        // An error means that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}
