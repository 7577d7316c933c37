//! The driver for Linux: one glommio executor, on a core of its own where one is configured, and one task.
//!
//! The task turns the loop and, when there is nothing to do, sleeps in the log's ring: completions of the log,
//! datagrams, the bell and the next timeout all end that sleep. glommio places the thread and hosts the task; the log,
//! the socket and the wake-ups are not glommio's, for reasons that were measured (see the architecture). No waker leaves
//! the executor: the task never awaits.

use super::clock;
use super::disk::UringDisk;
use super::spin::Spin;
use super::start::Unavailable;
use super::turn::{Loop, Rest};
use crate::api::StopReason;
use crate::config;
use crate::raft::Mono;
use glommio::{LocalExecutor, LocalExecutorBuilder, Placement};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use wal::linux::Ring;

/// glommio refuses to start with less lockable memory.
const LOCKABLE_BYTES: u64 = 512 << 10;
/// Memory that glommio takes for its own file I/O, which is not used: the least it accepts.
const GLOMMIO_IO_BYTES: usize = 64 << 10;
/// Entries of glommio's own rings, which only carry its timers.
const GLOMMIO_RING: usize = 16;
/// Entries of the log's ring.
const RING: u32 = 64;

/// The longest an idle loop looks for work before it sleeps, unless configured: what waking it would cost.
const SPIN: Duration = Duration::from_micros(30);

/// What the ring's readiness events are about.
const BELL: u32 = 1;
const SOCKET: u32 = 2;

/// Whether this machine can run the driver, as far as can be told without trying: glommio panics without the first of
/// these, and refuses without the second.
pub(super) fn check() -> Result<(), Unavailable> {
    if !Path::new("/sys/devices/system/cpu").exists() {
        return Err(Unavailable("/sys/devices/system/cpu is not there".into()));
    }
    match rustix::process::getrlimit(rustix::process::Resource::Memlock).current {
        Some(limit) if limit < LOCKABLE_BYTES => Err(Unavailable(format!(
            "{limit} bytes of memory may be locked and {LOCKABLE_BYTES} are needed: raise `ulimit -l`"
        ))),
        _ => Ok(()),
    }
}

/// A ring to sleep in, and an executor on this thread: on `core` if that can be had.
pub(super) fn prepare(core: Option<usize>) -> Result<(LocalExecutor, Ring), Unavailable> {
    // The ring first: it says what is refused where glommio would panic.
    let ring = Ring::new(RING).map_err(|error| Unavailable(error.to_string()))?;
    let build = |placement| {
        let builder = LocalExecutorBuilder::new(placement).name("d-engine");
        builder.io_memory(GLOMMIO_IO_BYTES).ring_depth(GLOMMIO_RING).make()
    };
    if let Some(core) = core {
        match build(Placement::Fixed(core)) {
            Ok(executor) => return Ok((executor, ring)),
            Err(error) => {
                tracing::warn!(core, "the loop runs unpinned, since pinning it was refused: {error}")
            }
        }
    }
    let executor = build(Placement::Unbound).map_err(|error| Unavailable(format!("glommio: {error}")))?;
    Ok((executor, ring))
}

fn spin_limit(configured: config::Spin) -> Duration {
    match configured {
        config::Spin::Off => Duration::ZERO,
        config::Spin::For(limit) => limit,
        // A machine of two cores has none to spare: what the loop waits for runs there.
        config::Spin::Auto => {
            let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
            if cores > 2 { SPIN } else { Duration::ZERO }
        }
    }
}

/// Turns the loop until it is over.
pub(super) fn run(
    executor: &LocalExecutor,
    mut engine: Loop<UringDisk>,
    spin: config::Spin,
) -> (Loop<UringDisk>, StopReason) {
    executor.run(async move {
        let mut spin = Spin::new(spin_limit(spin));
        watch(&mut engine, BELL);
        watch(&mut engine, SOCKET);
        let reason = loop {
            match engine.turn() {
                // What has happened meanwhile is fetched from the kernel, for the turn that follows.
                Rest::Again => _ = engine.disk_and_network().0.ring.has_news(),
                Rest::Until(deadline) => sleep(&mut engine, &mut spin, deadline),
                Rest::Over(reason) => break reason,
            }
        };
        (engine, reason)
    })
}

fn sleep(engine: &mut Loop<UringDisk>, spin: &mut Spin, deadline: Option<Mono>) {
    // Readiness reported during the turn is spent: the turn emptied the socket. Armed again, it reports what came since.
    hear(engine);
    let shared = Arc::clone(engine.shared());
    let ring = &mut engine.disk_and_network().0.ring;
    if spin.look(clock::mono, || shared.has_work() || ring.has_news()) {
        return;
    }
    if !shared.bell.lie_down(|| shared.has_work()) {
        return;
    }
    let slept = ring.wait(deadline.map(|deadline| deadline.since(clock::mono())));
    shared.bell.rise();
    hear(engine);
    if let Err(error) = slept {
        engine.fail(format!("sleeping in the ring failed: {error}"));
    }
}

/// Takes readiness out of the ring and arms what fired.
fn hear(engine: &mut Loop<UringDisk>) {
    while let Some(token) = engine.disk_and_network().0.ring.poll_ready() {
        if token == BELL {
            engine.shared().bell.hush();
        }
        watch(engine, token);
    }
}

fn watch(engine: &mut Loop<UringDisk>, token: u32) {
    let shared = Arc::clone(engine.shared());
    let (disk, network) = engine.disk_and_network();
    let descriptor = match token {
        BELL => shared.bell.event(),
        _ => network.map(|network| network.socket().as_fd()),
    };
    if let Some(descriptor) = descriptor {
        disk.ring.watch(descriptor, token);
    }
}
