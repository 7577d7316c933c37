//! [`Lock`]: one holder at a time.

use super::line::{Line, Place};
use super::race::{First, race};
use super::{Keeper, RecipeError};
use crate::api::{ClientApi, WriteError};
use crate::kv::{Compare, LeaseId, Revision};
use bytes::Bytes;
use std::future::Future;
use std::time::Duration;

/// A lock that programs on different machines share. See the [module](super) for what holds.
///
/// ```
/// use d_engine::recipes::{Fence, Keeper, Lock};
///
#[doc = include_str!("../api/example.txt")]
/// let keeper = Keeper::new(client);
/// let lock = Lock::new(&keeper, "lock/printer");
/// let printer = Fence::new(); // the printer's own
///
/// let guard = lock.acquire().await?;
/// printer.admit(guard.token())?;
/// assert!(lock.try_acquire().await?.is_none(), "it is held");
/// guard.release().await?;
///
/// let next = lock.acquire().await?;
/// assert!(printer.admit(next.token()).is_ok());
/// # Ok(()) }
/// ```
///
/// Its keys are `name/` and sixteen digits. They belong to it: who deletes one throws its contender out of the line, whatever
/// that believes. A lock is taken away from its holder by [revoking](ClientApi::lease_revoke) the holder's lease; the holder
/// learns of it within a third of the time to live, which is what tokens are for.
#[derive(Debug)]
pub struct Lock<C> {
    line: Line<C>,
    value: Bytes,
}

impl<C> Clone for Lock<C> {
    fn clone(&self) -> Self {
        Self { line: self.line.clone(), value: self.value.clone() }
    }
}

/// Whoever holds a lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its fencing token.
    pub token: Revision,
    /// What it said of itself.
    pub value: Bytes,
    /// The lease it holds the lock by.
    pub lease: LeaseId,
}

impl<C: ClientApi + 'static> Lock<C> {
    /// The lock called `name`. Nothing is asked of the store yet.
    #[must_use]
    pub fn new(keeper: &Keeper<C>, name: impl AsRef<[u8]>) -> Self {
        Self { line: Line::new(keeper, name.as_ref()), value: Bytes::new() }
    }

    /// How long the lock stays taken by a holder that is not heard of any more; 10 s unless said. Within
    /// [`LEASE_TTL`](crate::kv::LEASE_TTL), and better longer than the group may be without a leader.
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.line.ttl = ttl;
        self
    }

    /// What others see of who waits or holds: a host's name, say.
    #[must_use]
    pub fn value(self, value: impl AsRef<[u8]>) -> Self {
        Self { value: Bytes::copy_from_slice(value.as_ref()), ..self }
    }

    /// Takes the lock, after all who asked before. Dropping the future gives the place in the line up; a place that was
    /// lost while waiting is taken again at the end.
    ///
    /// # Errors
    /// [`RecipeError`] when the lease is refused, there is no leader, or the engine has stopped.
    pub async fn acquire(&self) -> Result<Guard<C>, RecipeError> {
        loop {
            match self.wait().await {
                Err(RecipeError::Lost) => {}
                done => return done,
            }
        }
    }

    async fn wait(&self) -> Result<Guard<C>, RecipeError> {
        let place = self.line.join(&self.value).await?;
        self.line.advance(&place).await?;
        Ok(Guard { place })
    }

    /// Takes the lock unless that takes longer than `patience`.
    ///
    /// # Errors
    /// As [`acquire`](Self::acquire).
    pub async fn acquire_within(&self, patience: Duration) -> Result<Option<Guard<C>>, RecipeError> {
        match race(self.acquire(), self.line.keeper.sleep(patience)).await {
            First::One(guard) => guard.map(Some),
            First::Other(()) => Ok(None),
        }
    }

    /// Takes the lock if nobody has it or waits for it.
    ///
    /// # Errors
    /// As [`acquire`](Self::acquire).
    pub async fn try_acquire(&self) -> Result<Option<Guard<C>>, RecipeError> {
        if self.line.head().await?.is_some() {
            return Ok(None);
        }
        let place = self.line.join(&self.value).await?;
        let first = self.line.is_first(&place).await?;
        Ok(first.then_some(Guard { place }))
    }

    /// Who holds the lock, if anybody does.
    ///
    /// # Errors
    /// As [`ClientApi::range`].
    pub async fn holder(&self) -> Result<Option<Holder>, RecipeError> {
        let head = self.line.head().await?;
        Ok(head.map(|head| Holder { token: head.token, value: head.value, lease: head.lease }))
    }
}

/// The lock is held. Dropping it lets the lock go in the background; [`release`](Self::release) waits for it.
#[derive(Debug)]
pub struct Guard<C> {
    place: Place<C>,
}

impl<C> Guard<C> {
    /// The fencing token: greater than every former holder's.
    #[must_use]
    pub fn token(&self) -> Revision {
        self.place.token
    }

    /// Whether the lock is certainly held at this moment, as far as clocks can be counted on. Once `false`, always `false`.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.place.lease.is_kept()
    }

    /// Completes when the lock is lost: its lease has ended, or could not be kept alive in time.
    pub fn lost(&self) -> impl Future<Output = ()> + Send + use<'_, C> {
        self.place.lease.lost()
    }

    /// A condition that holds exactly as long as the lock is held: a transaction with it does nothing once it is lost,
    /// whatever the clocks show.
    ///
    /// ```
    /// use d_engine::recipes::{Keeper, Lock};
    ///
    #[doc = include_str!("../api/example.txt")]
    /// let guard = Lock::new(&Keeper::new(client.clone()), "lock/stock").acquire().await?;
    /// let write = Txn::new().when(guard.held()).then(Op::put("stock", "7"));
    /// assert!(client.txn(write.clone()).await?.value.succeeded);
    ///
    /// guard.release().await?;
    /// assert!(!client.txn(write).await?.value.succeeded);
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn held(&self) -> Compare {
        self.place.kept()
    }
}

impl<C: ClientApi + 'static> Guard<C> {
    /// Lets the lock go. `false` when it had been lost before.
    ///
    /// # Errors
    /// [`WriteError`]; it is then let go in the background, or by the end of its time to live.
    pub async fn release(self) -> Result<bool, WriteError> {
        self.place.lease.release().await
    }
}
