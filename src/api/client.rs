//! [`ClientApi`]: every call there is.

use super::{
    AdminError, Answer, AttachedSwap, Member, Pages, ReadError, ReadLevel, SessionApi, SessionOptions,
    Status, Swap, WriteError,
};
use crate::kv::{
    Attach, Event, Expected, KeyRange, KeyValue, LeaseId, LeaseStatus, Page, RangePage, RangeQuery, Revision,
    Txn, TxnReply, WatchError, WatchItem, WatchQuery,
};
use bytes::Bytes;
use futures_core::Stream;
use std::future::Future;
use std::time::Duration;
use wal::NodeId;

/// The calls, the same for an embedded engine and for a remote one.
///
/// Keys have at least one byte; keys and values are limited by configuration. Calls on a follower are passed on to the
/// leader. A call does nothing before its future is polled. Dropping a future takes back nothing: a write that was under
/// way may still happen.
///
/// Every read is made at the configured level, which is linearizable unless configured otherwise; [`reading`](Self::reading)
/// gives a client for another level. A past revision that the node has not reached yet is waited for by a linearizable read,
/// and refused as [`Future`](crate::kv::RevisionError::Future) by an eventual one.
pub trait ClientApi: Send + Sync {
    /// Writes that happen once.
    type Session: SessionApi;

    /// Changes as they happen.
    type Watch: Stream<Item = Result<WatchItem, WatchError>> + Send + Unpin + 'static;

    // ---- writes

    /// Sets `key` to `value`, whatever it was. What it depended on, it depends on no longer.
    ///
    /// ```
    #[doc = include_str!("example.txt")]
    /// let put = client.put("color", "blue").await?;
    /// assert_eq!((put.revision, put.durability), (Revision(2), Durability::DiskFirst));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`WriteError`] says whether the write may have happened.
    fn put(
        &self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
    ) -> impl Future<Output = Result<Answer<()>, WriteError>> + Send;

    /// Sets `key` to `value` and says what its life depends on from now on. The answer names the lease it has then.
    ///
    /// ```
    #[doc = include_str!("example.txt")]
    /// let lease = client.put_attached("color", "blue", Attach::Ttl(Duration::from_secs(60))).await?.value;
    /// // A new value that leaves the key's remaining time as it is.
    /// let kept = client.put_attached("color", "green", Attach::Keep).await?;
    /// assert_eq!(kept.value, lease);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`WriteError::Lease`] for a lease that is not there or full; [`WriteError::Refused`] for a time to live outside
    /// [`LEASE_TTL`](crate::kv::LEASE_TTL). [`WriteError`] says whether the write may have happened.
    fn put_attached(
        &self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        attach: Attach,
    ) -> impl Future<Output = Result<Answer<Option<LeaseId>>, WriteError>> + Send;

    /// Sets `key` to `value` for `ttl`: unless it is kept alive or put again, it is gone when that has passed by the log's
    /// time. The answer names the lease that was made for it.
    ///
    /// ```
    #[doc = include_str!("example.txt")]
    /// let lease = client.put_with_ttl("session/ada", "online", Duration::from_secs(60)).await?.value;
    /// let status = client.lease_status(lease).await?.value.expect("just made");
    /// assert_eq!((status.ttl, status.keys), (Duration::from_secs(60), 1));
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

    /// Sets `key` to `value` for as long as `lease` lives.
    ///
    /// ```
    #[doc = include_str!("example.txt")]
    /// let lease = client.lease_grant(Duration::from_secs(60)).await?.value;
    /// client.put_with_lease("worker/7", "idle", lease).await?;
    /// client.lease_revoke(lease).await?;
    /// assert_eq!(client.get("worker/7").await?.value, None);
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
    /// client.put("color", "blue").await?;
    /// assert!(client.delete("color").await?.value);
    /// assert!(!client.delete("color").await?.value);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`WriteError`] says whether the removal may have happened.
    fn delete(&self, key: impl AsRef<[u8]>) -> impl Future<Output = Result<Answer<bool>, WriteError>> + Send;

    /// Removes all keys of `range`, at one revision. The answer says how many there were.
    ///
    /// ```
    #[doc = include_str!("example.txt")]
    /// for key in ["cache/a", "cache/b", "config"] {
    ///     client.put(key, "").await?;
    /// }
    /// assert_eq!(client.delete_range(KeyRange::prefix("cache/")).await?.value, 2);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`WriteError::Refused`] for a range of more than [`DELETE_KEYS`](crate::kv::DELETE_KEYS) keys: nothing is deleted then.
    /// [`WriteError`] says whether the removal may have happened.
    fn delete_range(&self, range: KeyRange) -> impl Future<Output = Result<Answer<u64>, WriteError>> + Send;

    /// Sets `key` to `new` if it is as `expected`. If it is not, the answer holds what was there.
    ///
    /// ```
    #[doc = include_str!("example.txt")]
    /// client.put("stock", "3").await?;
    /// let swap = client.compare_and_swap("stock", Expected::Value("3".into()), "2").await?;
    /// assert_eq!(swap.value, Swap::Done);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`WriteError`] says whether the swap may have happened.
    fn compare_and_swap(
        &self,
        key: impl AsRef<[u8]>,
        expected: Expected,
        new: impl AsRef<[u8]>,
    ) -> impl Future<Output = Result<Answer<Swap>, WriteError>> + Send;

    /// A compare-and-swap that also says what the key's life depends on from then on.
    ///
    /// ```
    #[doc = include_str!("example.txt")]
    /// let minute = Attach::Ttl(Duration::from_secs(60));
    /// let swap = client.compare_and_swap_attached("job/1", Expected::Absent, "mine", minute).await?;
    /// let AttachedSwap::Done { lease: Some(lease) } = swap.value else { panic!("nobody has it") };
    /// client.lease_keep_alive(lease).await?;
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

    /// If what is compared holds, does these operations, else those: all of them or none, at one revision. The rules are
    /// those of [`kv::txn`](crate::kv::txn).
    ///
    /// ```
    #[doc = include_str!("example.txt")]
    /// client.put("anna", "10").await?;
    /// let transfer = Txn::new()
    ///     .when(Compare::value("anna", "10"))
    ///     .when(Compare::absent("boris"))
    ///     .then(Op::put("anna", "7"))
    ///     .then(Op::put("boris", "3"))
    ///     .otherwise(Op::get("anna"));
    /// let done = client.txn(transfer).await?;
    /// assert!(done.value.succeeded);
    /// assert_eq!(done.revision, Revision(3), "two changes, one revision");
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`WriteError::Refused`] for one that is too large or deep, or changes a key twice; as
    /// [`put_attached`](Self::put_attached) otherwise.
    fn txn(&self, txn: Txn) -> impl Future<Output = Result<Answer<TxnReply>, WriteError>> + Send;

    /// Opens a session, in which writes are tried again safely.
    ///
    /// ```
    #[doc = include_str!("example.txt")]
    /// let session = client.open_session(SessionOptions::default()).await?;
    /// session.put("color", "blue").await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`WriteError`]; no session is open then, or only one that nobody uses and that expires.
    fn open_session(
        &self,
        options: SessionOptions,
    ) -> impl Future<Output = Result<Self::Session, WriteError>> + Send;

    // ---- leases

    /// Grants a lease: keys attached to it live until it is revoked, or was not kept alive for `ttl`. The answer is its id.
    ///
    /// ```
    #[doc = include_str!("example.txt")]
    /// let lease = client.lease_grant(Duration::from_secs(60)).await?.value;
    /// client.put_with_lease("worker/7", "idle", lease).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`put_attached`](Self::put_attached).
    fn lease_grant(&self, ttl: Duration) -> impl Future<Output = Result<Answer<LeaseId>, WriteError>> + Send;

    /// Grants a lease under an id of the caller's, who then knows it whatever becomes of the answer.
    ///
    /// ```
    #[doc = include_str!("example.txt")]
    /// use d_engine::kv::LeaseError;
    ///
    /// client.lease_grant_as(LeaseId(7), Duration::from_secs(60)).await?;
    /// let again = client.lease_grant_as(LeaseId(7), Duration::from_secs(60)).await;
    /// assert_eq!(again, Err(WriteError::Lease(LeaseError::Exists { lease: LeaseId(7) })));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`WriteError::Lease`] if the id is in use; as [`put_attached`](Self::put_attached) otherwise.
    fn lease_grant_as(
        &self,
        lease: LeaseId,
        ttl: Duration,
    ) -> impl Future<Output = Result<Answer<LeaseId>, WriteError>> + Send;

    /// Sets what is left of a lease to its time to live again, which the answer names.
    ///
    /// ```
    #[doc = include_str!("example.txt")]
    /// let lease = client.lease_grant(Duration::from_secs(60)).await?.value;
    /// assert_eq!(client.lease_keep_alive(lease).await?.value, Duration::from_secs(60));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`WriteError::Lease`] if it is not there any more: what it kept alive is gone.
    fn lease_keep_alive(
        &self,
        lease: LeaseId,
    ) -> impl Future<Output = Result<Answer<Duration>, WriteError>> + Send;

    /// Ends a lease and removes its keys, at one revision. The answer says how many it had.
    ///
    /// ```
    #[doc = include_str!("example.txt")]
    /// let lease = client.put_with_ttl("color", "blue", Duration::from_secs(60)).await?.value;
    /// assert_eq!(client.lease_revoke(lease).await?.value, 1);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`WriteError::Lease`] if it is not there any more.
    fn lease_revoke(&self, lease: LeaseId) -> impl Future<Output = Result<Answer<u64>, WriteError>> + Send;

    /// A lease and what is left of it, as of the last entry applied; `None` if it is not there.
    ///
    /// ```
    #[doc = include_str!("example.txt")]
    /// let lease = client.lease_grant(Duration::from_secs(60)).await?.value;
    /// let status = client.lease_status(lease).await?.value.expect("just granted");
    /// assert!(status.left <= status.ttl);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`ReadError`] says what to do.
    fn lease_status(
        &self,
        lease: LeaseId,
    ) -> impl Future<Output = Result<Answer<Option<LeaseStatus>>, ReadError>> + Send;

    /// The first `limit` keys of a lease, in order, that come after `after`; `None` if there is no such lease. It has at most
    /// [`LeaseLimits`](crate::kv::LeaseLimits)`::MAX.keys`.
    ///
    /// ```
    #[doc = include_str!("example.txt")]
    /// let lease = client.put_with_ttl("color", "blue", Duration::from_secs(60)).await?.value;
    /// let keys = client.lease_keys(lease, None, 10).await?.value.expect("just made");
    /// assert_eq!(keys, ["color"]);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`ReadError`] says what to do.
    fn lease_keys(
        &self,
        lease: LeaseId,
        after: Option<&[u8]>,
        limit: usize,
    ) -> impl Future<Output = Result<Answer<Option<Vec<Bytes>>>, ReadError>> + Send;

    // ---- reads

    /// The same client, reading at `level`.
    ///
    /// ```
    #[doc = include_str!("example.txt")]
    /// client.put("color", "blue").await?;
    /// let local = client.reading(ReadLevel::Eventual);
    /// assert_eq!(local.count(KeyRange::all()).await?.value, 1);
    /// # Ok(()) }
    /// ```
    #[must_use]
    fn reading(&self, level: ReadLevel) -> Self
    where
        Self: Sized;

    /// What is stored under `key`, read at the configured level (linearizable unless configured otherwise).
    ///
    /// ```
    #[doc = include_str!("example.txt")]
    /// client.put("color", "blue").await?;
    /// let found = client.get("color").await?.value.expect("just put");
    /// assert_eq!((found.value, found.version), ("blue".into(), 1));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`ReadError`] says what to do.
    fn get(
        &self,
        key: impl AsRef<[u8]>,
    ) -> impl Future<Output = Result<Answer<Option<KeyValue>>, ReadError>> + Send;

    /// What is stored under `key`, read at [`ReadLevel::Linearizable`]: everything acknowledged before the call is seen.
    ///
    /// ```
    #[doc = include_str!("example.txt")]
    /// assert_eq!(client.get_linearizable("color").await?.value, None);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`ReadError`] says what to do.
    fn get_linearizable(
        &self,
        key: impl AsRef<[u8]>,
    ) -> impl Future<Output = Result<Answer<Option<KeyValue>>, ReadError>> + Send;

    /// What is stored under `key`, read at [`ReadLevel::Lease`]: linearizable, and without a round while the leader's lease
    /// holds.
    ///
    /// ```
    #[doc = include_str!("example.txt")]
    /// assert_eq!(client.get_lease("color").await?.value, None);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`ReadError`] says what to do.
    fn get_lease(
        &self,
        key: impl AsRef<[u8]>,
    ) -> impl Future<Output = Result<Answer<Option<KeyValue>>, ReadError>> + Send;

    /// What is stored under `key`, read at [`ReadLevel::Eventual`]: what this node has applied, which the answer's revision
    /// tells.
    ///
    /// ```
    #[doc = include_str!("example.txt")]
    /// assert_eq!(client.get_eventual("color").await?.value, None);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`ReadError`] says what to do.
    fn get_eventual(
        &self,
        key: impl AsRef<[u8]>,
    ) -> impl Future<Output = Result<Answer<Option<KeyValue>>, ReadError>> + Send;

    /// What was stored under `key` at a past revision.
    ///
    /// ```
    #[doc = include_str!("example.txt")]
    /// let blue = client.put("color", "blue").await?.revision;
    /// client.put("color", "green").await?;
    /// let then = client.get_at_revision("color", blue).await?.value.expect("it was there");
    /// assert_eq!(then.value, "blue");
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`ReadError::Revision`] if that state is no longer kept, or not there yet.
    fn get_at_revision(
        &self,
        key: impl AsRef<[u8]>,
        revision: Revision,
    ) -> impl Future<Output = Result<Answer<Option<KeyValue>>, ReadError>> + Send;

    /// What is stored under each of `keys`, in their order and at one revision.
    ///
    /// ```
    #[doc = include_str!("example.txt")]
    /// client.put("color", "blue").await?;
    /// let found = client.get_multi(&["color", "size"]).await?.value;
    /// assert!(found[0].is_some() && found[1].is_none());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`ReadError`] says what to do.
    fn get_multi(
        &self,
        keys: &[impl AsRef<[u8]> + Sync],
    ) -> impl Future<Output = Result<Answer<Vec<Option<KeyValue>>>, ReadError>> + Send;

    /// The first `limit` keys that start with `prefix`, in order. An empty prefix is every key's. The page says whether there
    /// are more.
    ///
    /// ```
    #[doc = include_str!("example.txt")]
    /// client.put("color/sky", "blue").await?;
    /// let page = client.scan_prefix("color/", 10).await?.value;
    /// assert!(page.items.len() == 1 && !page.more);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`ReadError`] says what to do.
    fn scan_prefix(
        &self,
        prefix: impl AsRef<[u8]>,
        limit: usize,
    ) -> impl Future<Output = Result<Answer<Page>, ReadError>> + Send;

    /// One page of a range, all of it at one revision. A page ends at the query's limit, at
    /// [`PAGE_KEYS`](crate::kv::PAGE_KEYS) keys or about [`PAGE_BYTES`](crate::kv::PAGE_BYTES) bytes; its `next` is the
    /// question for the page behind it.
    ///
    /// ```
    #[doc = include_str!("example.txt")]
    /// for n in 0..5 {
    ///     client.put(format!("queue/{n}"), "").await?;
    /// }
    /// let newest = RangeQuery::new(KeyRange::prefix("queue/")).descending().keys_only().limit(2);
    /// let page = client.range(newest).await?.value;
    /// assert_eq!(page.items[0].key, "queue/4");
    /// let second = client.range(page.next.expect("three are left")).await?.value;
    /// assert_eq!((second.items[0].key.as_ref(), second.revision), (&b"queue/2"[..], page.revision));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`ReadError::Revision`] if the state asked for is no longer kept or not there yet; [`ReadError::Refused`] for a limit
    /// of 0.
    fn range(&self, query: RangeQuery) -> impl Future<Output = Result<Answer<RangePage>, ReadError>> + Send;

    /// A range page by page, all of it at one revision. Nothing is read before the first page is asked for.
    ///
    /// ```
    #[doc = include_str!("example.txt")]
    /// for n in 0..5 {
    ///     client.put(format!("queue/{n}"), "").await?;
    /// }
    /// let mut pages = client.pages(RangeQuery::new(KeyRange::all()).limit(2));
    /// let mut seen = 0;
    /// while let Some(page) = pages.next().await? {
    ///     seen += page.value.items.len();
    /// }
    /// assert_eq!(seen, 5);
    /// # Ok(()) }
    /// ```
    fn pages(&self, query: RangeQuery) -> Pages<'_, Self> {
        Pages::new(self, query)
    }

    /// How many keys are in `range`, at one revision. Takes time in proportion to them, and holds up nobody meanwhile.
    ///
    /// ```
    #[doc = include_str!("example.txt")]
    /// client.put("color/sky", "blue").await?;
    /// assert_eq!(client.count(KeyRange::prefix("color/")).await?.value, 1);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`range`](Self::range).
    fn count(&self, range: KeyRange) -> impl Future<Output = Result<Answer<u64>, ReadError>> + Send {
        async move {
            let mut pages = self.pages(RangeQuery::new(range).count_only().limit(usize::MAX));
            let first = pages.next().await?.expect("there is a first page");
            let mut answer = first.map(|page| page.count);
            while let Some(page) = pages.next().await? {
                answer.value += page.value.count;
            }
            Ok(answer)
        }
    }

    /// What happened to `key` from revision `from` on, in order, with what was there before each change: a page of at most
    /// `limit` changes, bounded as those of [`range`](Self::range) are. The next begins behind its last revision, and an empty
    /// one is the end.
    ///
    /// ```
    #[doc = include_str!("example.txt")]
    /// let first = client.put("color", "blue").await?.revision;
    /// client.delete("color").await?;
    /// let changes = client.history("color", first, 10).await?.value;
    /// assert_eq!(changes.len(), 2);
    /// assert!(changes[0].1.is_create());
    /// assert!(matches!(&changes[1].1, Event::Delete { previous: Some(before), .. } if before.value == "blue"));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`ReadError::Revision`] if changes since `from` are no longer kept, or `from` is not there yet.
    fn history(
        &self,
        key: impl AsRef<[u8]>,
        from: Revision,
        limit: usize,
    ) -> impl Future<Output = Result<Answer<Vec<(Revision, Event)>>, ReadError>> + Send;

    /// Gives up the history before `revision`, on every node: nothing older can be read or watched from. The answer is the
    /// oldest revision that can.
    ///
    /// ```
    #[doc = include_str!("example.txt")]
    /// use d_engine::kv::RevisionError;
    ///
    /// let old = client.put("color", "blue").await?.revision;
    /// let new = client.put("color", "green").await?.revision;
    /// client.compact(new).await?;
    /// let gone = client.get_at_revision("color", old).await;
    /// assert!(matches!(gone, Err(ReadError::Revision(RevisionError::Compacted { .. }))));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`WriteError::Revision`] if `revision` is not there yet, or was given up before.
    fn compact(
        &self,
        revision: Revision,
    ) -> impl Future<Output = Result<Answer<Revision>, WriteError>> + Send;

    // ---- watches

    /// Tells every change of `key` from now on.
    ///
    /// ```
    #[doc = include_str!("example.txt")]
    /// let mut watch = client.watch("color").await?;
    /// client.put("color", "blue").await?;
    /// let item = watch.next().await.expect("it goes on")?;
    /// assert!(item.events()[0].is_create());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`watch_with`](Self::watch_with).
    fn watch(&self, key: impl AsRef<[u8]>) -> impl Future<Output = Result<Self::Watch, WatchError>> + Send {
        self.watch_with(WatchQuery::new(KeyRange::key(key)))
    }

    /// Tells every change of the keys that start with `prefix` from now on.
    ///
    /// ```
    #[doc = include_str!("example.txt")]
    /// let mut watch = client.watch_prefix("color/").await?;
    /// client.put("size", "9").await?;
    /// client.put("color/sky", "blue").await?;
    /// let item = watch.next().await.expect("it goes on")?;
    /// assert_eq!(item.revision(), Revision(3));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`watch_with`](Self::watch_with).
    fn watch_prefix(
        &self,
        prefix: impl AsRef<[u8]>,
    ) -> impl Future<Output = Result<Self::Watch, WatchError>> + Send {
        self.watch_with(WatchQuery::new(KeyRange::prefix(prefix)))
    }

    /// Tells changes as `query` says: of which keys, from which revision on, of which kind, with what was there before. What
    /// is promised stands in [`kv::watch`](crate::kv::watch). It works on any node and needs no leader.
    ///
    /// Read, then watch from the revision after the one that was read: nothing is missed and nothing told twice.
    ///
    /// ```
    #[doc = include_str!("example.txt")]
    /// client.put("color/sky", "blue").await?;
    /// let colors = KeyRange::prefix("color/");
    /// let read = client.range(RangeQuery::new(colors.clone())).await?;
    ///
    /// let query = WatchQuery::new(colors).from(read.revision.next()).with_previous();
    /// let mut watch = client.watch_with(query).await?;
    /// client.delete("color/sky").await?;
    /// let item = watch.next().await.expect("it goes on")?;
    /// let Event::Delete { previous, .. } = &item.events()[0] else { panic!("it was deleted") };
    /// assert_eq!(previous.as_ref(), read.value.items.first());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`WatchError`]: the engine has stopped, the node has as many watches as it may, or what was asked for is no longer
    /// kept, which may also be the first thing that the watch says.
    fn watch_with(&self, query: WatchQuery) -> impl Future<Output = Result<Self::Watch, WatchError>> + Send;

    // ---- the group

    /// Hands leadership to `to`, and returns when it leads. Only the leader can.
    ///
    /// ```
    #[doc = include_str!("example.txt")]
    /// client.transfer_leadership(engine.id()).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`AdminError`] says what to do.
    fn transfer_leadership(&self, to: NodeId) -> impl Future<Output = Result<(), AdminError>> + Send;

    /// The members of the group as this node knows them.
    ///
    /// ```
    #[doc = include_str!("example.txt")]
    /// assert_eq!(client.members().await?.len(), 1);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`AdminError`] says what to do.
    fn members(&self) -> impl Future<Output = Result<Vec<Member>, AdminError>> + Send;

    /// What this node is doing.
    ///
    /// ```
    #[doc = include_str!("example.txt")]
    /// assert_eq!(client.status().await?.keys, 0);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`AdminError`] says what to do.
    fn status(&self) -> impl Future<Output = Result<Status, AdminError>> + Send;
}
