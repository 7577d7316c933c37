//! [`Keeper`]: keeps leases alive, for all recipes of a program.
//!
//! Promises: a lease is asked to live on three times within its time to live; where that is not answered it is asked again
//! until too much time has passed. From then on the lease counts as lost, whether or not the store has ended it yet: the
//! time that counts runs from before the last call that was answered was made, and is an eighth shorter than the time to
//! live. Log time, by which the store ends leases, never runs faster than its leader's clock; so while no two clocks differ
//! by an eighth in speed, a lease that counts as kept is there.
//!
//! Assumes: nothing about the store behind the calls.
//!
//! Deliberately not here: a thread per lease, or an async runtime: one thread serves all leases of a keeper, and sleeps
//! between two calls.

use super::RecipeError;
use super::error::Transient;
use super::race::{First, race};
use super::yard::{Sleep, Yard};
use crate::api::{ClientApi, WriteError};
use crate::kv::{LeaseError, LeaseId};
use crate::raft::Mono;
use crate::runtime::clock;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// A lease is asked to live on this often within its time to live.
const ASKS: u32 = 3;

/// This part of a time to live is not counted on: by so much may clocks differ in speed. More than the widest
/// `raft.drift_bound` that is on by default (10 %).
const MARGIN: u32 = 8;

/// Keeps leases alive. Make one for a program, and give it to all its recipes; cloning shares it.
///
/// Its thread starts with the first lease and ends when the keeper, and all that was made with it, are dropped and what
/// they let go is revoked.
///
/// ```
/// use d_engine::recipes::Keeper;
///
#[doc = include_str!("../api/example.txt")]
/// let keeper = Keeper::new(client);
/// let lease = keeper.grant(Duration::from_secs(5)).await?;
/// keeper.client().put_with_lease("worker/7", "idle", lease.id()).await?;
/// // Some minutes later it is still there.
/// assert!(lease.is_kept());
/// lease.release().await?;
/// # Ok(()) }
/// ```
pub struct Keeper<C> {
    house: Arc<House<C>>,
}

/// What the keeper, its clones and its leases hold together. With the last of them the thread ends.
struct House<C> {
    client: Arc<C>,
    yard: Arc<Yard>,
}

impl<C> Drop for House<C> {
    fn drop(&mut self) {
        self.yard.close();
    }
}

impl<C> Clone for Keeper<C> {
    fn clone(&self) -> Self {
        Self { house: Arc::clone(&self.house) }
    }
}

impl<C> std::fmt::Debug for Keeper<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keeper").finish_non_exhaustive()
    }
}

impl<C: ClientApi + 'static> Keeper<C> {
    /// A keeper that makes its calls with `client`.
    #[must_use]
    pub fn new(client: C) -> Self {
        Self { house: Arc::new(House { client: Arc::new(client), yard: Yard::new() }) }
    }

    /// The client it makes its calls with.
    #[must_use]
    pub fn client(&self) -> &C {
        &self.house.client
    }

    /// Grants a lease and keeps it alive until it is dropped, released or lost.
    ///
    /// # Errors
    /// As [`ClientApi::lease_grant`]: a lease of which nothing was heard expires. [`RecipeError::NoThread`] if there is
    /// none to be had.
    pub async fn grant(&self, ttl: Duration) -> Result<KeptLease<C>, RecipeError> {
        let House { client, yard } = &*self.house;
        yard.start().map_err(|error| RecipeError::NoThread(error.to_string()))?;
        let asked = clock::mono();
        let lease = client.lease_grant(ttl).await?.value;
        let kept = Arc::new(Kept::new(asked.after(counted(ttl))));
        let care =
            Care { client: Arc::clone(client), yard: Arc::clone(yard), kept: Arc::clone(&kept), lease, ttl };
        yard.spawn(care.run());
        Ok(KeptLease { keeper: self.clone(), kept, lease, ttl })
    }

    /// Completes after `time`.
    pub(super) fn sleep(&self, time: Duration) -> Sleep {
        self.house.yard.sleep_until(clock::mono().after(time))
    }
}

/// How much of a time to live is counted on.
fn counted(ttl: Duration) -> Duration {
    ttl - ttl / MARGIN
}

/// A lease that its keeper keeps alive. Dropping it revokes it in the background.
pub struct KeptLease<C> {
    keeper: Keeper<C>,
    kept: Arc<Kept>,
    lease: LeaseId,
    ttl: Duration,
}

impl<C> std::fmt::Debug for KeptLease<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeptLease").field("id", &self.lease).field("kept", &self.is_kept()).finish()
    }
}

impl<C> KeptLease<C> {
    /// Its id, to attach keys to.
    #[must_use]
    pub fn id(&self) -> LeaseId {
        self.lease
    }

    /// What it was granted for.
    #[must_use]
    pub fn ttl(&self) -> Duration {
        self.ttl
    }

    /// Whether it is certainly there still, as far as clocks can be counted on. Once `false`, always `false`.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        self.kept.holds()
    }

    /// Completes when it is lost: it has ended, or could not be kept alive in time.
    pub fn lost(&self) -> impl Future<Output = ()> + Send + use<'_, C> {
        Lost { kept: &self.kept, number: None }
    }
}

impl<C: ClientApi + 'static> KeptLease<C> {
    /// Ends it, and with it its keys. `false` when it had ended already.
    ///
    /// # Errors
    /// [`WriteError`]; it is then revoked in the background, or expires.
    pub async fn release(self) -> Result<bool, WriteError> {
        match self.keeper.client().lease_revoke(self.lease).await {
            Ok(_) => {
                self.kept.end(End::Gone);
                Ok(true)
            }
            Err(WriteError::Lease(LeaseError::NotFound { .. })) => {
                self.kept.end(End::Gone);
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    pub(super) fn keeper(&self) -> &Keeper<C> {
        &self.keeper
    }
}

impl<C> Drop for KeptLease<C> {
    fn drop(&mut self) {
        self.kept.end(End::Released);
    }
}

/// How caring for a lease ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Its owner let it go: it is to be revoked.
    Released,
    /// It could not be kept alive in time. It may be there still, and is to be revoked.
    Late,
    /// It is not there any more.
    Gone,
}

/// What is known of a lease.
struct Kept {
    /// It is there while the clock shows less.
    until: AtomicU64,
    board: Mutex<Board>,
}

#[derive(Default)]
struct Board {
    end: Option<End>,
    waiting: BTreeMap<u64, Waker>,
    next: u64,
}

impl Kept {
    fn new(until: Mono) -> Self {
        Self { until: AtomicU64::new(until.0), board: Mutex::new(Board::default()) }
    }

    fn until(&self) -> Mono {
        Mono(self.until.load(Ordering::SeqCst))
    }

    fn holds(&self) -> bool {
        // The time first: an end that is not seen yet has not been told to anybody else either.
        clock::mono() < self.until() && self.board.lock().end.is_none()
    }

    /// The first end counts.
    fn end(&self, end: End) {
        let mut board = self.board.lock();
        board.end.get_or_insert(end);
        let waiting = std::mem::take(&mut board.waiting);
        drop(board);
        waiting.into_values().for_each(Waker::wake);
    }

    async fn ended(&self) {
        Lost { kept: self, number: None }.await;
    }
}

/// Completes when a lease has ended.
struct Lost<'a> {
    kept: &'a Kept,
    number: Option<u64>,
}

impl Future for Lost<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let mut board = this.kept.board.lock();
        if board.end.is_some() {
            return Poll::Ready(());
        }
        let number = *this.number.get_or_insert_with(|| {
            board.next += 1;
            board.next
        });
        let replaced = board.waiting.insert(number, cx.waker().clone());
        drop(board);
        drop(replaced);
        Poll::Pending
    }
}

impl Drop for Lost<'_> {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            let waker = self.kept.board.lock().waiting.remove(&number);
            drop(waker);
        }
    }
}

/// The care for one lease, on the keeper's thread.
struct Care<C> {
    client: Arc<C>,
    yard: Arc<Yard>,
    kept: Arc<Kept>,
    lease: LeaseId,
    ttl: Duration,
}

impl<C: ClientApi> Care<C> {
    async fn run(self) {
        if let First::Other(()) = race(self.kept.ended(), self.keep_alive()).await {
            // It was not kept alive in time, or is gone; the first end that was noted counts.
            self.kept.end(End::Late);
        }
        let end = self.kept.board.lock().end;
        if end != Some(End::Gone) {
            // No longer than the lease can be there: after that the store has done it.
            let over = self.yard.sleep_until(clock::mono().after(self.ttl));
            race(self.revoke(), over).await;
        }
    }

    /// Returns when the lease counts as lost.
    async fn keep_alive(&self) {
        let mut ask_at = clock::mono().after(self.ttl / ASKS);
        loop {
            self.yard.sleep_until(ask_at.min(self.kept.until())).await;
            let asked = clock::mono();
            if asked >= self.kept.until() {
                return;
            }
            let late = self.yard.sleep_until(self.kept.until());
            match race(self.client.lease_keep_alive(self.lease), late).await {
                First::One(Ok(answer)) => {
                    self.kept.until.store(asked.after(counted(answer.value)).0, Ordering::SeqCst);
                    ask_at = asked.after(self.ttl / ASKS);
                }
                // Answered or not: also a later answer finds nobody who counts on it.
                First::Other(()) => return,
                First::One(Err(error)) if error.is_transient() => ask_at = self.again_at(),
                First::One(Err(_)) => return self.kept.end(End::Gone),
            }
        }
    }

    async fn revoke(&self) {
        while let Err(error) = self.client.lease_revoke(self.lease).await
            && error.is_transient()
        {
            self.yard.sleep_until(self.again_at()).await;
        }
    }

    /// A call that failed is made again soon, and not at once.
    fn again_at(&self) -> Mono {
        clock::mono().after((self.ttl / 50).clamp(Duration::from_millis(5), Duration::from_millis(250)))
    }
}
