//! What the tests of engines share: an executor, ways to start nodes, and a group of three on loopback.
#![allow(dead_code, clippy::unwrap_used)] // Every test file uses a part of it.

use d_engine::config::ByteCount;
use d_engine::embedded::Builder;
use d_engine::prelude::*;
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;
use tempfile::TempDir;

/// How long a test waits for what must happen.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Every behaviour is tested on each of these.
pub const RUNTIMES: [Runtime; 2] = [Runtime::Tokio, Runtime::Glommio];

struct Unpark(std::thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// All the executor that an engine needs.
pub fn block_on<F: Future>(future: F) -> F::Output {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut cx = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut cx) {
            return output;
        }
        std::thread::park();
    }
}

/// Polls once.
pub fn poll_once<F: Future>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// A node on its own in `dir`, whose files are small and may lie in memory.
pub fn alone(dir: &Path, runtime: Runtime) -> Builder {
    EmbeddedEngine::builder().without_environment().data_dir(dir).runtime(runtime).configure(|c| {
        c.log.allow_volatile = true;
        c.log.segment_bytes = ByteCount(4 << 20);
    })
}

/// Starts it and waits for it.
pub async fn started(builder: Builder) -> EmbeddedEngine {
    let engine = builder.start().await.unwrap();
    engine.wait_ready(PATIENCE).await.unwrap();
    engine
}

/// Runs the test on both drivers, each with a directory of its own that does not exist yet.
pub fn on_both<F: Future<Output = ()>>(test: impl Fn(std::path::PathBuf, Runtime) -> F) {
    for runtime in RUNTIMES {
        let dir = tempfile::tempdir().unwrap();
        block_on(test(dir.path().join("data"), runtime));
    }
}

/// An address of the loopback for whoever asks alone: nobody else takes a port there while its node is down.
fn own_host() -> IpAddr {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    if cfg!(not(target_os = "linux")) {
        return Ipv4Addr::LOCALHOST.into(); // The only one there is.
    }
    let [a, b, c, _] = (std::process::id() << 10 | COUNT.fetch_add(1, Ordering::Relaxed)).to_le_bytes();
    // 127.128.0.0/9, without the first and last address of a block.
    Ipv4Addr::new(127, 128 | a, b, c.clamp(1, 254)).into()
}

/// A loopback address that was free a moment ago.
pub fn free_address() -> SocketAddr {
    UdpSocket::bind((own_host(), 0)).unwrap().local_addr().unwrap()
}

/// Three places for nodes, with addresses, directories and an authority.
pub struct Group {
    dir: TempDir,
    pub addresses: [SocketAddr; 3],
    pub runtimes: [Runtime; 3],
}

impl Group {
    pub fn new(runtimes: [Runtime; 3]) -> Self {
        let host = own_host();
        let holders: Vec<_> = (0..3).map(|_| UdpSocket::bind((host, 0)).unwrap()).collect();
        let addresses = std::array::from_fn(|n| holders[n].local_addr().unwrap());
        Self { dir: tempfile::tempdir().unwrap(), addresses, runtimes }
    }

    /// All the groups that behaviour is tested on.
    pub fn kinds() -> [[Runtime; 3]; 3] {
        use Runtime::{Glommio, Tokio};
        [[Tokio; 3], [Glommio; 3], [Tokio, Glommio, Tokio]]
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Node `id`, from 1.
    pub fn builder(&self, id: u64) -> Builder {
        let index = usize::try_from(id).unwrap() - 1;
        alone(&self.dir.path().join(format!("node-{id}")), self.runtimes[index])
            .node_id(id)
            .cluster_name("test")
            .peers((1..).zip(self.addresses))
            .development_certificates(self.dir.path().join("certificates"))
    }

    pub async fn start(&self, id: u64) -> EmbeddedEngine {
        self.builder(id).start().await.unwrap()
    }

    /// All three, once they know a leader.
    pub async fn start_all(&self) -> Vec<EmbeddedEngine> {
        let mut engines = Vec::new();
        for id in 1..=3 {
            engines.push(self.start(id).await);
        }
        for engine in &engines {
            engine.wait_ready(PATIENCE).await.unwrap();
        }
        engines
    }
}

/// The position of the engine that leads, once one of them does.
pub async fn leader_of(engines: &[EmbeddedEngine]) -> usize {
    loop {
        let mut watch = engines[0].watch_leader();
        let leader = watch.leader().await.expect("it runs");
        if let Some(at) = engines.iter().position(|engine| engine.id() == leader)
            && engines[at].is_leader()
        {
            return at;
        }
        // It has heard of the old one still; the next change brings the new one.
        engines[0].wait_ready(PATIENCE).await.unwrap();
        std::thread::yield_now();
    }
}

/// Writes until a write is acknowledged: between two leaders it may take more than one attempt.
pub async fn put_at_last(client: &EmbeddedClient, key: &str, value: &str) -> Answer<()> {
    let mut attempts = 0;
    loop {
        match client.put(key, value).await {
            Ok(answer) => return answer,
            Err(error) => {
                attempts += 1;
                assert!(attempts < 1_000_000, "no write goes through: {error}");
            }
        }
    }
}
