//! Three programs elect one of themselves; it dies, and another follows.
//!
//! ```sh
//! cargo run --release --example leader-election
//! ```
//!
//! Each program here has a node of its own, all three in this process. This is not the election by which the nodes of a group
//! agree who writes their log (`EmbeddedEngine::watch_leader` tells that): it is one of the *program's*, for a job that only
//! one of them should do, and its winner may be on any node.

#![allow(clippy::print_stdout)] // An example talks to whoever runs it.

use d_engine::prelude::*;
use d_engine::recipes::{Election, Keeper, Observer};
use std::net::UdpSocket;
use std::time::{Duration, Instant};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// How long a program that is not heard of keeps its office.
const TTL: Duration = Duration::from_secs(1);

#[tokio::main]
async fn main() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let mut programs = start_three(directory.path()).await?;
    let elections =
        programs.iter().map(|engine| Election::new(&Keeper::new(engine.client()), "nightly-job").ttl(TTL));
    let mut elections: Vec<_> = elections.collect();
    let mut observer = elections[2].observe();

    let first = elections[0].campaign("program 1").await?;
    println!("program 1 won, with token {}", first.token());
    told(&mut observer).await?;

    // The others stand in line.
    let second = tokio::spawn({
        let election = elections[1].clone();
        async move { election.campaign("program 2").await }
    });
    first.proclaim("program 1, at step 7").await?;
    told(&mut observer).await?;

    // Its machine dies: nobody resigns, and nobody keeps its lease alive.
    let began = Instant::now();
    drop(elections.remove(0));
    programs.remove(0).stop().await?;
    first.lost().await;
    println!("program 1 knows after {:?} that it leads no longer", began.elapsed());
    let second = second.await??;
    println!("program 2 followed after {:?}, with token {}", began.elapsed(), second.token());
    assert!(second.token() > first.token());
    while !told(&mut observer).await?.starts_with("program 2") {}

    second.resign().await?;
    while told(&mut observer).await? != "nobody" {}
    for engine in programs {
        engine.stop().await?;
    }
    Ok(())
}

async fn told(observer: &mut Observer<EmbeddedClient>) -> Result<String> {
    let leader = observer.next().await?;
    let name = leader.map_or("nobody".into(), |leader| String::from_utf8_lossy(&leader.value).into_owned());
    println!("          program 3 sees: {name}");
    Ok(name)
}

/// Three nodes on loopback, with certificates made for the occasion.
async fn start_three(directory: &std::path::Path) -> Result<Vec<EmbeddedEngine>> {
    let sockets = (0..3).map(|_| UdpSocket::bind("127.0.0.1:0")).collect::<std::io::Result<Vec<_>>>()?;
    let addresses = sockets.iter().map(UdpSocket::local_addr).collect::<std::io::Result<Vec<_>>>()?;
    drop(sockets);
    let mut engines = Vec::new();
    for id in 1..=3 {
        let builder = EmbeddedEngine::builder()
            .without_environment()
            .node_id(id)
            .cluster_name("leader-election")
            .peers((1..).zip(&addresses))
            .data_dir(directory.join(format!("node-{id}")))
            .development_certificates(directory.join("certificates"))
            .configure(|c| c.log.allow_volatile = true);
        engines.push(builder.start().await?);
    }
    for engine in &engines {
        engine.wait_ready(Duration::from_secs(30)).await?;
    }
    Ok(engines)
}
