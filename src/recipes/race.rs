//! Two futures, and which was first.

use std::future::Future;
use std::pin::pin;
use std::task::Poll;

/// The one that was ready first.
pub(super) enum First<A, B> {
    One(A),
    Other(B),
}

/// Polls both until one is ready, and drops the other. When both are, the first wins.
pub(super) async fn race<A, B>(one: impl Future<Output = A>, other: impl Future<Output = B>) -> First<A, B> {
    let (mut one, mut other) = (pin!(one), pin!(other));
    std::future::poll_fn(|cx| {
        if let Poll::Ready(output) = one.as_mut().poll(cx) {
            return Poll::Ready(First::One(output));
        }
        other.as_mut().poll(cx).map(First::Other)
    })
    .await
}
