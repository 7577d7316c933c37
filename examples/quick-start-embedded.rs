//! One node in this process: it writes, reads, stops, starts again and reads again.
//!
//! ```sh
//! cargo run --release --example quick-start-embedded [directory]
//! ```
//!
//! The directory (`target/quick-start-embedded` if none is given) keeps what was written: run it twice, and the count of
//! runs goes on where it stood.

#![allow(clippy::print_stdout)] // An example talks to whoever runs it.

use d_engine::prelude::*;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let directory =
        std::env::args_os().nth(1).map_or_else(|| "target/quick-start-embedded".into(), PathBuf::from);

    let engine = start(&directory).await?;
    let client = engine.client();

    let began = Instant::now();
    let put = client.put("greeting", "hello, majority").await?;
    println!(
        "put      greeting            revision {}, {:?}, {:?}",
        put.revision,
        put.durability,
        began.elapsed()
    );

    let got = client.get("greeting").await?;
    println!("get      greeting            revision {}: {}", got.revision, text(got.value.as_ref()));

    let run = count_this_run(&client).await?;
    println!("swap     runs                this is run {run} on this directory");

    for fruit in ["apples", "pears", "plums"] {
        client.put(format!("stock/{fruit}"), fruit.len().to_string()).await?;
    }
    client.delete("stock/pears").await?;
    let page = client.scan_prefix("stock/", 10).await?;
    for item in &page.value.items {
        println!(
            "scan     {:<19} revision {}: {}",
            String::from_utf8_lossy(&item.key),
            item.modify_revision,
            text(Some(item))
        );
    }

    let before = client.get_lease("greeting").await?.revision;
    engine.stop().await?;
    println!("stopped  at revision {before}");

    let engine = start(&directory).await?;
    let client = engine.client();
    let after = client.get_linearizable("greeting").await?;
    println!("get      greeting            revision {}: {}", after.revision, text(after.value.as_ref()));
    assert_eq!(after.revision, before, "what was acknowledged before the stop is there after the start");
    engine.stop().await?;
    println!("stopped  nothing was lost");
    Ok(())
}

async fn start(directory: &Path) -> Result<EmbeddedEngine> {
    let began = Instant::now();
    let engine = EmbeddedEngine::builder().data_dir(directory).start().await?;
    engine.wait_ready(Duration::from_secs(10)).await?;
    let status = engine.client().status().await?;
    println!(
        "started  {} on {}          revision {}, {} keys, {:?}",
        directory.display(),
        status.runtime,
        status.revision,
        status.keys,
        began.elapsed()
    );
    Ok(engine)
}

/// Adds one to a counter as many programs at once could: swap if nobody was faster, else try again from what they left.
async fn count_this_run(client: &EmbeddedClient) -> Result<u64> {
    let mut seen = client.get("runs").await?.value;
    loop {
        let (expected, runs) = match &seen {
            None => (Expected::Absent, 1),
            Some(found) => {
                let runs: u64 = std::str::from_utf8(&found.value)?.parse()?;
                (Expected::Revision(found.modify_revision), runs + 1)
            }
        };
        match client.compare_and_swap("runs", expected, runs.to_string()).await?.value {
            Swap::Done => return Ok(runs),
            Swap::Refused { current } => seen = current,
        }
    }
}

fn text(found: Option<&KeyValue>) -> String {
    found.map_or_else(|| "nothing".into(), |found| format!("{:?}", String::from_utf8_lossy(&found.value)))
}
