//! The driver for everywhere: a current-thread tokio runtime on the loop's thread, the portable writer of the log.
//!
//! The default off Linux; on Linux chosen by configuration, or where io_uring is refused. The loop turns; when there is
//! nothing to do it awaits a datagram, a ring of the bell (which the log's thread rings too) or the next timeout.

use super::clock;
use super::turn::{Loop, Rest};
use crate::api::StopReason;
use crate::raft::Mono;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::runtime::{Builder, Runtime};
use wal::PortableLog;

/// A runtime for this thread.
pub(super) fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_io().enable_time().build()
}

/// Turns the loop until it is over.
pub(super) fn run(runtime: &Runtime, mut engine: Loop<PortableLog>) -> (Loop<PortableLog>, StopReason) {
    runtime.block_on(async move {
        let reason = match readiness(&engine) {
            Ok(socket) => turn(&mut engine, socket.as_ref()).await,
            Err(error) => {
                engine.end(StopReason::Failed(format!("the socket cannot be watched: {error}").into()))
            }
        };
        (engine, reason)
    })
}

async fn turn(engine: &mut Loop<PortableLog>, socket: Option<&UdpSocket>) -> StopReason {
    loop {
        match engine.turn() {
            // Lets the reactor look at the socket and the timers.
            Rest::Again => tokio::task::yield_now().await,
            Rest::Until(deadline) => sleep(engine, socket, deadline).await,
            Rest::Over(reason) => return reason,
        }
    }
}

async fn sleep(engine: &Loop<PortableLog>, socket: Option<&UdpSocket>, deadline: Option<Mono>) {
    let shared = Arc::clone(engine.shared());
    if !shared.bell.lie_down(|| shared.has_work()) {
        return;
    }
    let mut timer = pin!(deadline.map(|deadline| tokio::time::sleep(deadline.since(clock::mono()))));
    let mut rung = pin!(shared.bell.rung());
    std::future::poll_fn(|cx| {
        let readable = socket.is_some_and(|socket| socket.poll_recv_ready(cx).is_ready());
        let due = timer.as_mut().as_pin_mut().is_some_and(|timer| timer.poll(cx).is_ready());
        if rung.as_mut().poll(cx).is_ready() || readable || due { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    shared.bell.rise();
    if let Some(socket) = socket {
        // The turn that follows empties the socket by itself; the reactor must forget the old readiness first, so that
        // what comes later is news.
        let _ = socket.try_io(Interest::READABLE, || Err::<(), _>(io::ErrorKind::WouldBlock.into()));
    }
}

/// A second descriptor of the loop's socket, for the reactor.
fn readiness(engine: &Loop<PortableLog>) -> io::Result<Option<UdpSocket>> {
    engine.network().map(|network| UdpSocket::from_std(network.socket().try_clone()?)).transpose()
}
