//! Services that register themselves, and a client that always knows who is there.
//!
//! ```sh
//! cargo run --release --example service-discovery-embedded
//! ```
//!
//! An instance is listed as long as it keeps its lease alive. One that dies is taken off the list when its time to live is
//! over, at one revision on every node; one that stops in order is gone at once.

#![allow(clippy::print_stdout)] // An example talks to whoever runs it.

use d_engine::prelude::*;
use d_engine::recipes::{InstanceChange, Instances, Keeper, Registry};
use std::time::{Duration, Instant};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const TTL: Duration = Duration::from_secs(1);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let engine = EmbeddedEngine::ephemeral().await?;
    engine.wait_ready(Duration::from_secs(10)).await?;
    let registry = Registry::new(&Keeper::new(engine.client()), "services").ttl(TTL);

    let first = registry.register("mail", "host-a", "10.0.0.1:25").await?;
    let mut watch = registry.watch("mail")?;
    told(&mut watch).await?;

    let second = registry.register("mail", "host-b", "10.0.0.2:25").await?;
    told(&mut watch).await?;
    second.update("10.0.0.2:2525").await?;
    told(&mut watch).await?;

    // One that dies right after it came: nobody keeps its lease alive.
    let began = Instant::now();
    engine.client().put_with_ttl("services/mail/host-c", "10.0.0.3:25", TTL).await?;
    told(&mut watch).await?;
    println!("listed   {}", names(&registry).await?);
    told(&mut watch).await?;
    println!("         {:?} after it was last heard of", began.elapsed());
    assert!(first.is_kept() && second.is_kept(), "who is heard of stays");

    // A time of living is over for who stops in order, too, but at once.
    second.deregister().await?;
    told(&mut watch).await?;
    println!("listed   {}", names(&registry).await?);
    assert_eq!(names(&registry).await?, "host-a");

    drop(first);
    told(&mut watch).await?;
    engine.stop().await?;
    Ok(())
}

async fn told(watch: &mut Instances<EmbeddedClient>) -> Result<()> {
    let (what, instance) = match watch.next().await? {
        InstanceChange::Joined(instance) => ("joined", instance),
        InstanceChange::Updated(instance) => ("updated", instance),
        InstanceChange::Left(instance) => ("left", instance),
    };
    let (id, value) = (String::from_utf8_lossy(&instance.id), String::from_utf8_lossy(&instance.value));
    println!("{what:<8} {id} at {value}");
    Ok(())
}

async fn names(registry: &Registry<EmbeddedClient>) -> Result<String> {
    let listed = registry.list("mail").await?;
    Ok(listed.iter().map(|instance| String::from_utf8_lossy(&instance.id)).collect::<Vec<_>>().join(", "))
}
