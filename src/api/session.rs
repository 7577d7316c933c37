//! [`SessionApi`]: the writes that may be sent again.

#[cfg(doc)]
use super::ClientApi;
use super::{Answer, AttachedSwap, Swap, WriteError};
use crate::kv::{Attach, Expected, KeyRange, LeaseId, Txn, TxnReply};
use std::future::Future;
use std::time::Duration;

/// How a session lives and how long its calls try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionOptions {
    /// How long it may be left unused before the store forgets it, from 10 ms to 24 h
    /// ([`SESSION_TIMEOUT`](crate::kv::SESSION_TIMEOUT)). Measured by the entries of the log: a time without any entry does
    /// not end it. Should be longer than the group may be without a leader.
    pub timeout: Duration,
    /// For how long a call is tried again. The last try may go on for the request timeout after it.
    pub patience: Duration,
}

impl Default for SessionOptions {
    /// Five minutes unused; calls are tried for 30 s.
    fn default() -> Self {
        Self { timeout: Duration::from_secs(300), patience: Duration::from_secs(30) }
    }
}

/// The writes of [`ClientApi`], each of which happens once: a call that got no answer is sent again by itself, over changes
/// of the leader, and is told what its first try was told (thesis 6.3).
///
/// A call does nothing before its future is polled. Dropping the future gives the call up: it may have happened, or may
/// happen until the next call of the session is answered, and not after that.
pub trait SessionApi: Send + Sync {
    /// Sets `key` to `value`, whatever it was.
    ///
    /// ```
    #[doc = include_str!("example.txt")]
    /// # let session = client.open_session(SessionOptions::default()).await?;
    /// session.put("color", "blue").await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`WriteError`]. [`OutcomeUnknown`](WriteError::OutcomeUnknown) only when patience or the engine ended, or the
    /// session expired while the call was tried again.
    fn put(
        &self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
    ) -> impl Future<Output = Result<Answer<()>, WriteError>> + Send;

    /// Sets `key` to `value` and says what its life depends on, as [`ClientApi::put_attached`] does. A time to live that is
    /// sent again makes no second lease.
    ///
    /// ```
    #[doc = include_str!("example.txt")]
    /// # let session = client.open_session(SessionOptions::default()).await?;
    /// let put = session.put_attached("color", "blue", Attach::Ttl(Duration::from_secs(9))).await?;
    /// let again = session.put_attached("color", "red", Attach::Keep).await?;
    /// assert_eq!(put.value, again.value, "the same lease");
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`put`](Self::put), and [`WriteError::Lease`].
    fn put_attached(
        &self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        attach: Attach,
    ) -> impl Future<Output = Result<Answer<Option<LeaseId>>, WriteError>> + Send;

    /// Sets `key` to `value` for `ttl`, as [`ClientApi::put_with_ttl`] does.
    ///
    /// ```
    #[doc = include_str!("example.txt")]
    /// # let session = client.open_session(SessionOptions::default()).await?;
    /// let lease = session.put_with_ttl("color", "blue", Duration::from_secs(9)).await?.value;
    /// session.lease_revoke(lease).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`put_attached`](Self::put_attached).
    fn put_with_ttl(
        &self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        ttl: Duration,
    ) -> impl Future<Output = Result<Answer<LeaseId>, WriteError>> + Send {
        let put = self.put_attached(key, value, Attach::Ttl(ttl));
        async move { Ok(put.await?.map(|lease| lease.expect("a time to live is a lease"))) }
    }

    /// Sets `key` to `value` for as long as `lease` lives, as [`ClientApi::put_with_lease`] does.
    ///
    /// ```
    #[doc = include_str!("example.txt")]
    /// # let session = client.open_session(SessionOptions::default()).await?;
    /// let lease = session.lease_grant(Duration::from_secs(9)).await?.value;
    /// session.put_with_lease("color", "blue", lease).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`put_attached`](Self::put_attached).
    fn put_with_lease(
        &self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        lease: LeaseId,
    ) -> impl Future<Output = Result<Answer<()>, WriteError>> + Send {
        let put = self.put_attached(key, value, Attach::Lease(lease));
        async move { Ok(put.await?.map(drop)) }
    }

    /// Removes `key`. The answer says whether it was there.
    ///
    /// ```
    #[doc = include_str!("example.txt")]
    /// # let session = client.open_session(SessionOptions::default()).await?;
    /// session.put("color", "blue").await?;
    /// assert!(session.delete("color").await?.value);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`put`](Self::put).
    fn delete(&self, key: impl AsRef<[u8]>) -> impl Future<Output = Result<Answer<bool>, WriteError>> + Send;

    /// Removes all keys of `range`, as [`ClientApi::delete_range`] does. The answer says how many: those of the first try.
    ///
    /// ```
    #[doc = include_str!("example.txt")]
    /// # let session = client.open_session(SessionOptions::default()).await?;
    /// session.put("color/sky", "blue").await?;
    /// let removed = session.delete_range(KeyRange::prefix("color/")).await?;
    /// assert_eq!(removed.value, 1);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`put`](Self::put).
    fn delete_range(&self, range: KeyRange) -> impl Future<Output = Result<Answer<u64>, WriteError>> + Send;

    /// Sets `key` to `new` if it is as `expected`. If it is not, the answer holds what was there. A swap is never refused
    /// by its own success.
    ///
    /// ```
    #[doc = include_str!("example.txt")]
    /// # let session = client.open_session(SessionOptions::default()).await?;
    /// let swap = session.compare_and_swap("ticket", Expected::Absent, "1").await?;
    /// assert_eq!(swap.value, Swap::Done);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`put`](Self::put).
    fn compare_and_swap(
        &self,
        key: impl AsRef<[u8]>,
        expected: Expected,
        new: impl AsRef<[u8]>,
    ) -> impl Future<Output = Result<Answer<Swap>, WriteError>> + Send;

    /// A compare-and-swap that says what its key depends on, as [`ClientApi::compare_and_swap_attached`].
    ///
    /// ```
    #[doc = include_str!("example.txt")]
    /// # let session = client.open_session(SessionOptions::default()).await?;
    /// let attach = Attach::Ttl(Duration::from_secs(9));
    /// let swap = session.compare_and_swap_attached("ticket", Expected::Absent, "1", attach).await?;
    /// assert!(swap.value.is_done());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`put_attached`](Self::put_attached).
    fn compare_and_swap_attached(
        &self,
        key: impl AsRef<[u8]>,
        expected: Expected,
        new: impl AsRef<[u8]>,
        attach: Attach,
    ) -> impl Future<Output = Result<Answer<AttachedSwap>, WriteError>> + Send;

    /// Carries out a transaction, as [`ClientApi::txn`] does. Sent again, it is answered as the first time.
    ///
    /// ```
    #[doc = include_str!("example.txt")]
    /// # let session = client.open_session(SessionOptions::default()).await?;
    /// let txn = Txn::new().when(Compare::absent("ticket")).then(Op::put("ticket", "1"));
    /// assert!(session.txn(txn).await?.value.succeeded);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`put_attached`](Self::put_attached).
    fn txn(&self, txn: Txn) -> impl Future<Output = Result<Answer<TxnReply>, WriteError>> + Send;

    /// Grants a lease, as [`ClientApi::lease_grant`] does. Sent again, it grants no second one.
    ///
    /// ```
    #[doc = include_str!("example.txt")]
    /// # let session = client.open_session(SessionOptions::default()).await?;
    /// let lease = session.lease_grant(Duration::from_secs(9)).await?.value;
    /// session.lease_keep_alive(lease).await?;
    /// session.lease_revoke(lease).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`put_attached`](Self::put_attached).
    fn lease_grant(&self, ttl: Duration) -> impl Future<Output = Result<Answer<LeaseId>, WriteError>> + Send;

    /// Grants a lease under an id of the caller's, as [`ClientApi::lease_grant_as`] does.
    ///
    /// ```
    #[doc = include_str!("example.txt")]
    /// # let session = client.open_session(SessionOptions::default()).await?;
    /// session.lease_grant_as(LeaseId(7), Duration::from_secs(9)).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`put_attached`](Self::put_attached).
    fn lease_grant_as(
        &self,
        lease: LeaseId,
        ttl: Duration,
    ) -> impl Future<Output = Result<Answer<LeaseId>, WriteError>> + Send;

    /// Sets what is left of a lease to its time to live again, which the answer names. Sent again, it counts from when it
    /// was first applied.
    ///
    /// ```
    #[doc = include_str!("example.txt")]
    /// # let session = client.open_session(SessionOptions::default()).await?;
    /// let ttl = Duration::from_secs(9);
    /// let lease = session.lease_grant(ttl).await?.value;
    /// assert_eq!(session.lease_keep_alive(lease).await?.value, ttl);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`put_attached`](Self::put_attached).
    fn lease_keep_alive(
        &self,
        lease: LeaseId,
    ) -> impl Future<Output = Result<Answer<Duration>, WriteError>> + Send;

    /// Ends a lease and removes its keys, as [`ClientApi::lease_revoke`] does.
    ///
    /// ```
    #[doc = include_str!("example.txt")]
    /// # let session = client.open_session(SessionOptions::default()).await?;
    /// let lease = session.put_with_ttl("color", "blue", Duration::from_secs(9)).await?.value;
    /// assert_eq!(session.lease_revoke(lease).await?.value, 1);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`put_attached`](Self::put_attached).
    fn lease_revoke(&self, lease: LeaseId) -> impl Future<Output = Result<Answer<u64>, WriteError>> + Send;

    /// Ends the session now, instead of when it expires.
    ///
    /// ```
    #[doc = include_str!("example.txt")]
    /// # let session = client.open_session(SessionOptions::default()).await?;
    /// session.close().await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`WriteError`]; the session then expires by itself.
    fn close(self) -> impl Future<Output = Result<(), WriteError>> + Send;
}
