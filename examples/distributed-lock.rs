//! A lock that several programs share, and what a fencing token is for.
//!
//! ```sh
//! cargo run --release --example distributed-lock
//! ```
//!
//! The lock is [`d_engine::recipes::Lock`]: contenders stand in line, each with a key attached to a lease that is kept alive.
//! Whoever is at the head holds the lock, and the revision that created its key is its **fencing token**: it only ever grows,
//! so whatever the lock protects can refuse a holder that was paused, lost the lock meanwhile and does not know. Without the
//! token no lock is safe, this one or any other.

#![allow(clippy::print_stdout)] // An example talks to whoever runs it.

use d_engine::prelude::*;
use d_engine::recipes::{Fence, Keeper, Lock};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

const ROUNDS: u64 = 100;

#[tokio::main]
async fn main() -> Result<()> {
    let engine = EmbeddedEngine::ephemeral().await?;
    engine.wait_ready(Duration::from_secs(10)).await?;

    contenders_exclude_each_other(&engine).await?;
    a_holder_that_dies_is_followed(&engine).await?;
    a_stale_holder_is_refused(&engine).await?;

    engine.stop().await?;
    Ok(())
}

/// What the lock protects. It asks for a token, and remembers the newest.
#[derive(Default)]
struct Printer {
    fence: Fence,
    busy: AtomicBool,
    pages: AtomicU64,
}

impl Printer {
    fn print(&self, token: Revision) -> Result<()> {
        self.fence.admit(token)?;
        assert!(!self.busy.swap(true, Ordering::SeqCst), "two holders at once");
        self.pages.fetch_add(1, Ordering::SeqCst);
        std::thread::yield_now();
        self.busy.store(false, Ordering::SeqCst);
        Ok(())
    }
}

async fn contenders_exclude_each_other(engine: &EmbeddedEngine) -> Result<()> {
    let printer = Arc::new(Printer::default());
    let contenders = ["anna", "boris", "clara"].map(|owner| {
        let lock = Lock::new(&Keeper::new(engine.client()), "lock/printer").value(owner);
        let printer = Arc::clone(&printer);
        tokio::spawn(async move {
            for _ in 0..ROUNDS {
                let guard = lock.acquire().await?;
                printer.print(guard.token())?;
                assert!(guard.release().await?, "nobody took it away");
            }
            Result::Ok(())
        })
    });
    for contender in contenders {
        contender.await??;
    }
    let pages = printer.pages.load(Ordering::SeqCst);
    assert_eq!(pages, 3 * ROUNDS);
    println!("three contenders took the lock {ROUNDS} times each: {pages} pages, never two holders at once");
    Ok(())
}

async fn a_holder_that_dies_is_followed(engine: &EmbeddedEngine) -> Result<()> {
    let ttl = Duration::from_secs(1);
    let client = engine.client();
    // Somebody who took the lock and is not heard of any more: its lease is kept alive by nobody.
    let dead = client.lease_grant(ttl).await?.value;
    client.put_with_lease(format!("lock/scanner/{:016x}", dead.0), "the late dora", dead).await?;
    let began = Instant::now();

    let lock = Lock::new(&Keeper::new(client), "lock/scanner").value("emil").ttl(ttl);
    let holder = lock.holder().await?.ok_or("dora holds it")?;
    println!("{} holds the scanner with token {}", String::from_utf8_lossy(&holder.value), holder.token);
    let guard = lock.acquire().await?;
    println!("emil holds it {:?} later, with token {}", began.elapsed(), guard.token());
    assert!(guard.token() > holder.token);
    Ok(()) // Dropping the guard lets the lock go.
}

async fn a_stale_holder_is_refused(engine: &EmbeddedEngine) -> Result<()> {
    let printer = Printer::default();
    let lock = |owner| Lock::new(&Keeper::new(engine.client()), "lock/plotter").value(owner);
    let (anna, boris) = (lock("anna"), lock("boris"));

    let old = anna.acquire().await?;
    printer.print(old.token())?;
    println!("anna  holds the plotter with token {}", old.token());
    assert!(boris.try_acquire().await?.is_none(), "it is taken");

    // Boris has reason to think that Anna's machine is gone, and does not wait for her time to live.
    let holder = boris.holder().await?.ok_or("anna holds it")?;
    engine.client().lease_revoke(holder.lease).await?;
    let new = boris.acquire().await?;
    printer.print(new.token())?;
    println!("boris took it over with token {}", new.token());

    // Anna wakes up and does not know. The plotter does, and so does the store.
    let refusal = printer.print(old.token()).expect_err("a stale token is refused");
    println!("anna  is refused: {refusal}");
    let write = Txn::new().when(old.held()).then(Op::put("plot", "anna's"));
    assert!(!engine.client().txn(write).await?.value.succeeded, "what is written under the lock is not");
    assert!(!old.release().await?, "it is not hers to release");
    printer.print(new.token())?;
    assert!(new.release().await?);
    println!("boris released it");
    Ok(())
}
