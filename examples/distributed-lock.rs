//! A lock by compare-and-swap, with fencing tokens.
//!
//! ```sh
//! cargo run --release --example distributed-lock
//! ```
//!
//! Whoever swaps the key from *free* to its own name holds the lock. The revision of that swap is the **fencing token**: it
//! only ever grows, so whatever the lock protects can refuse a holder that was paused, lost the lock meanwhile and does
//! not know. Without the token no lock is safe, this one or any other (thesis 6.4 has the same trouble with leases).
//!
//! There is no expiry here: a lock whose holder died is taken from it by somebody who has reason to think so.

#![allow(clippy::print_stdout)] // An example talks to whoever runs it.

use d_engine::prelude::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

const FREE: &str = "";
const ROUNDS: u64 = 100;

#[tokio::main]
async fn main() -> Result<()> {
    let engine = EmbeddedEngine::ephemeral().await?;
    engine.wait_ready(Duration::from_secs(10)).await?;

    two_contenders_exclude_each_other(&engine).await?;
    a_stale_holder_is_refused(&engine).await?;

    engine.stop().await?;
    Ok(())
}

/// A lock: a key that holds its owner's name.
struct Lock {
    client: EmbeddedClient,
    key: &'static str,
    owner: &'static str,
}

/// Proof that the lock was held when it was made, and newer than every earlier proof.
#[derive(Clone, Copy, Debug)]
struct Token(Revision);

impl Lock {
    /// Takes the lock if it is free.
    async fn try_acquire(&self) -> Result<Option<Token>> {
        let mut expected = Expected::Absent;
        loop {
            let answer = self.client.compare_and_swap(self.key, expected, self.owner).await?;
            match answer.value {
                Swap::Done => return Ok(Some(Token(answer.revision))),
                // Released before: expect exactly that state, not just any free one.
                Swap::Refused { current: Some(found) } if found.value == FREE => {
                    expected = Expected::Revision(found.modify_revision);
                }
                Swap::Refused { .. } => return Ok(None),
            }
        }
    }

    async fn acquire(&self) -> Result<Token> {
        loop {
            if let Some(token) = self.try_acquire().await? {
                return Ok(token);
            }
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
    }

    /// Takes the lock away from whoever got `token`, for somebody who has reason to think them dead.
    async fn take_over(&self, token: Token) -> Result<Option<Token>> {
        let answer = self.client.compare_and_swap(self.key, Expected::Revision(token.0), self.owner).await?;
        Ok(answer.value.is_done().then_some(Token(answer.revision)))
    }

    /// Gives the lock back. `false` if it is somebody else's by now.
    async fn release(&self, token: Token) -> Result<bool> {
        let answer = self.client.compare_and_swap(self.key, Expected::Revision(token.0), FREE).await?;
        Ok(answer.value.is_done())
    }
}

/// What the lock protects. It remembers the newest token it has seen.
#[derive(Default)]
struct Printer {
    newest: AtomicU64,
    busy: AtomicBool,
    pages: AtomicU64,
}

impl Printer {
    /// Prints, unless `token` is older than one seen before.
    fn print(&self, token: Token) -> std::result::Result<(), String> {
        let newest = self.newest.fetch_max(token.0.0, Ordering::SeqCst);
        if token.0.0 < newest {
            return Err(format!("token {} is stale, {newest} has been here", token.0));
        }
        assert!(!self.busy.swap(true, Ordering::SeqCst), "two holders at once");
        self.pages.fetch_add(1, Ordering::SeqCst);
        std::thread::yield_now();
        self.busy.store(false, Ordering::SeqCst);
        Ok(())
    }
}

async fn two_contenders_exclude_each_other(engine: &EmbeddedEngine) -> Result<()> {
    let printer = Arc::new(Printer::default());
    let contenders = ["anna", "boris"].map(|owner| {
        let (lock, printer) =
            (Lock { client: engine.client(), key: "lock/printer", owner }, Arc::clone(&printer));
        tokio::spawn(async move {
            for _ in 0..ROUNDS {
                let token = lock.acquire().await?;
                printer.print(token)?;
                assert!(lock.release(token).await?, "nobody took it over");
            }
            Result::Ok(())
        })
    });
    for contender in contenders {
        contender.await??;
    }
    let pages = printer.pages.load(Ordering::SeqCst);
    assert_eq!(pages, 2 * ROUNDS);
    println!("two contenders took the lock {ROUNDS} times each: {pages} pages, never two holders at once");
    Ok(())
}

async fn a_stale_holder_is_refused(engine: &EmbeddedEngine) -> Result<()> {
    let printer = Printer::default();
    let lock = |owner| Lock { client: engine.client(), key: "lock/plotter", owner };
    let (anna, boris) = (lock("anna"), lock("boris"));

    let old = anna.acquire().await?;
    printer.print(old)?;
    println!("anna  holds the lock with token {}", old.0);
    assert!(boris.try_acquire().await?.is_none(), "it is taken");

    // Anna's machine stops for a while; Boris has waited long enough.
    let new = boris.take_over(old).await?.ok_or("nobody else has taken it")?;
    printer.print(new)?;
    println!("boris took it over with token {}", new.0);

    // Anna wakes up and does not know. The printer does, and so does the lock.
    let refusal = printer.print(old).expect_err("a stale token is refused");
    println!("anna  is refused: {refusal}");
    assert!(!anna.release(old).await?, "it is not hers to release");
    printer.print(new)?;
    assert!(boris.release(new).await?);
    println!("boris released it");
    Ok(())
}
