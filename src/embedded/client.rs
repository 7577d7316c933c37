//! [`EmbeddedClient`]: calls into the engine of this process.

use super::call::{Call, admin_error, read_error, write_error};
use super::change::{self, Change, Maker, written};
use super::{Pipeline, Session, Watch};
use crate::api::{
    AdminError, Answer, AttachedSwap, ClientApi, Durability, Member, Pace, ReadError, ReadLevel,
    SessionOptions, Status, StopReason, Swap, WriteError,
};
use crate::kv::{
    Attach, COUNT_KEYS, CommandError, Event, Expected, Key, KeyRange, KeyValue, LeaseId, LeaseStatus,
    PAGE_BYTES, PAGE_KEYS, Page, RangePage, RangeQuery, Reply, Revision, RevisionError, Select, Store, Txn,
    TxnReply, WatchError, WatchQuery,
};
use crate::raft::Mono;
use crate::runtime::mailbox::{Address, Handle};
use crate::runtime::shared::{Failure, Outcome, Shared, Submission};
use bytes::Bytes;
use std::future::Future;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use wal::NodeId;

/// A handle for calls into the engine of this process. Cheap to clone; give every thread or task its own clone, since
/// clones do not share the lock under which their answers arrive.
///
/// The calls are those of [`ClientApi`]. For many operations in flight from one thread see
/// [`pipeline`](Self::pipeline).
pub struct EmbeddedClient {
    shared: Arc<Shared>,
    /// Opened by the first call that enters the loop: lease and eventual reads do without.
    mailbox: OnceLock<Handle<Outcome>>,
    default_level: ReadLevel,
}

impl Clone for EmbeddedClient {
    fn clone(&self) -> Self {
        Self::new(Arc::clone(&self.shared), self.default_level)
    }
}

impl std::fmt::Debug for EmbeddedClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EmbeddedClient").field("default_level", &self.default_level).finish_non_exhaustive()
    }
}

impl EmbeddedClient {
    pub(crate) fn new(shared: Arc<Shared>, default_level: ReadLevel) -> Self {
        Self { shared, mailbox: OnceLock::new(), default_level }
    }

    /// A way to keep many operations in flight from one thread or task.
    #[must_use]
    pub fn pipeline(&self) -> Pipeline {
        Pipeline::new(Arc::clone(&self.shared))
    }

    /// What is stored under `key`, read at `level`.
    ///
    /// # Errors
    /// [`ReadError`] says what to do.
    pub async fn get_at(
        &self,
        level: ReadLevel,
        key: impl AsRef<[u8]> + Send,
    ) -> Result<Answer<Option<KeyValue>>, ReadError> {
        check_key(&self.shared, key.as_ref())?;
        self.read(level, |store| store.get(key.as_ref())).await
    }

    /// The first `limit` keys that start with `prefix` and come after `after`: the page that follows one that ended
    /// there. Read at the configured level.
    ///
    /// # Errors
    /// [`ReadError`] says what to do.
    pub async fn scan_prefix_after(
        &self,
        prefix: impl AsRef<[u8]> + Send,
        after: impl AsRef<[u8]> + Send,
        limit: usize,
    ) -> Result<Answer<Page>, ReadError> {
        let look = |store: &Store| store.scan_prefix_after(prefix.as_ref(), after.as_ref(), limit);
        self.read(self.default_level, look).await
    }

    fn mailbox(&self) -> &Handle<Outcome> {
        self.mailbox.get_or_init(|| self.shared.mailboxes.open())
    }

    fn call<A: FnOnce(Address) -> Submission + Unpin>(&self, ask: A) -> Call<'_, A> {
        Call::new(&self.shared, self.mailbox(), ask)
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.shared
    }

    pub(super) fn maker(&self) -> Maker<'_> {
        Maker::once(&self.shared)
    }

    async fn write<T>(&self, change: Change<T>) -> Result<Answer<T>, WriteError> {
        let (command, read) = change.ready()?;
        let (reply, durability) = self.propose(command).await?;
        written(reply, durability, read)
    }

    /// Makes the node go at this pace; returns its status then.
    pub(super) async fn set_pace(&self, pace: Pace) -> Result<Status, AdminError> {
        if !pace.is_possible() {
            let reason = format!("{pace:?} would stop the node: every part of a pace must be above zero");
            return Err(AdminError::Refused(reason));
        }
        self.ask_status(move |address| Submission::Pace { address, pace }).await
    }

    async fn ask_status(
        &self,
        ask: impl FnOnce(Address) -> Submission + Unpin,
    ) -> Result<Status, AdminError> {
        match self.call(ask).await {
            Outcome::Status(status) => Ok(*status),
            Outcome::Failed(failure) => Err(admin_error(failure, self.shared.leadership())),
            other => unreachable!("a question for the status is not answered with {other:?}"),
        }
    }

    /// Sends a command once.
    pub(super) async fn propose(&self, command: Bytes) -> Result<(Reply, Durability), WriteError> {
        match self.call(move |address| Submission::Propose { address, command }).await {
            Outcome::Applied { reply, durability } => Ok((reply, durability)),
            Outcome::Failed(failure) => Err(write_error(failure)),
            other => unreachable!("a command is answered with its reply, not {other:?}"),
        }
    }

    /// Reads the store at `level`. `look` may be called twice.
    async fn read<T>(&self, level: ReadLevel, look: impl Fn(&Store) -> T) -> Result<Answer<T>, ReadError> {
        let at_once = match level {
            ReadLevel::Linearizable => None,
            ReadLevel::Lease => self.look_by_lease(&look),
            ReadLevel::Eventual => Some(look_now(&self.shared, &look)),
        };
        if let Some(answer) = at_once {
            return Ok(answer);
        }
        self.leave_to_read().await?;
        Ok(look_now(&self.shared, &look))
    }

    /// Reads a state that may not be kept, or not be there.
    async fn read_kept<T>(
        &self,
        look: impl Fn(&Store) -> Result<T, RevisionError>,
    ) -> Result<Answer<T>, ReadError> {
        let Answer { value, revision, durability } = self.read(self.default_level, look).await?;
        Ok(Answer { value: value?, revision, durability })
    }

    /// A page in slices, each under a lock of its own: a long page never keeps the loop waiting for long.
    async fn read_page(&self, query: RangeQuery) -> Result<Answer<RangePage>, ReadError> {
        if query.limit == 0 {
            return Err(CommandError::RangeLimit.into());
        }
        let slice = Slice::of(&query);
        let begin = query.clone().limit(slice.keys.min(slice.page_keys));
        let mut answer = self.read_kept(|store| store.range(&begin)).await?;
        let page = &mut answer.value;
        let mut bytes = page.items.iter().map(item_bytes).sum::<usize>();
        while let Some(next) = &mut page.next {
            next.limit = query.limit;
            let found = usize::try_from(page.count).expect("it was in memory");
            if found >= slice.page_keys || bytes >= PAGE_BYTES {
                break;
            }
            let go_on = next.clone().limit(slice.keys.min(slice.page_keys - found));
            // Nothing but a compaction up to now can be in the way. Then the page ends here, and the next one says so.
            let Ok(more) = self.shared.store.read().range(&go_on) else { break };
            assert_eq!(more.revision, page.revision, "a page is of one revision");
            page.next = more.next;
            page.count += more.count;
            for item in more.items {
                if bytes >= PAGE_BYTES {
                    // A slice may hold a page's bytes by itself: what is too much is the next page's.
                    let last = page.items.last().map(|item| item.key.clone());
                    page.next = Some(RangeQuery { limit: query.limit, after: last, ..go_on });
                    page.count = page.items.len() as u64;
                    break;
                }
                bytes += item_bytes(&item);
                page.items.push(item);
            }
        }
        answer.revision = answer.value.revision;
        Ok(answer)
    }

    /// Returns when the store shows everything that was acknowledged before the call.
    pub(super) async fn leave_to_read(&self) -> Result<(), ReadError> {
        match self.call(|address| Submission::Read { address }).await {
            Outcome::Readable => Ok(()),
            Outcome::Failed(failure) => Err(read_error(failure)),
            other => unreachable!("a read is answered with leave to read, not {other:?}"),
        }
    }

    /// Reads between two looks at the lease. What is seen then holds every write that was acknowledged before this
    /// call, even if leadership came and went between the looks: the state never goes back.
    fn look_by_lease<T>(&self, look: impl Fn(&Store) -> T) -> Option<Answer<T>> {
        let reads = &self.shared.reads;
        let answer = self.shared.read_by_lease(|| look_now(&self.shared, look));
        let count = if answer.is_some() { &reads.lease } else { &reads.lease_missed };
        count.fetch_add(1, Ordering::Relaxed);
        answer
    }

    /// Returns at `at`.
    pub(super) async fn alarm(&self, at: Mono) -> Result<(), StopReason> {
        loop {
            let call = self.call(move |address| Submission::Alarm { address, at });
            match call.due(at).await {
                Outcome::Alarm => return Ok(()),
                Outcome::Failed(Failure::Interrupted(reason) | Failure::Stopped(reason)) => {
                    return Err(reason);
                }
                // The queue is full of calls that the loop is taking at this moment.
                Outcome::Failed(_) => std::thread::yield_now(),
                other => unreachable!("an alarm is not answered with {other:?}"),
            }
        }
    }
}

/// Reads the store as it is, on this thread.
pub(super) fn look_now<T>(shared: &Shared, look: impl Fn(&Store) -> T) -> Answer<T> {
    let store = shared.store.read();
    Answer { value: look(&store), revision: store.revision(), durability: shared.durability }
}

/// How a page is cut so that each look at the store takes well below a millisecond.
struct Slice {
    /// Keys in one look.
    keys: usize,
    /// Keys in the whole page.
    page_keys: usize,
}

impl Slice {
    fn of(query: &RangeQuery) -> Self {
        let (keys, most) = match query.select {
            Select::CountOnly => (50_000, COUNT_KEYS),
            Select::Whole | Select::KeysOnly => (1_000, PAGE_KEYS),
        };
        Self { keys, page_keys: query.limit.min(most) }
    }
}

fn item_bytes(item: &KeyValue) -> usize {
    item.key.len() + item.value.len()
}

/// Refuses keys that cannot be in the store.
pub(super) fn check_key(shared: &Shared, key: &[u8]) -> Result<(), CommandError> {
    let limit = shared.limits.key_bytes;
    match key.len() {
        0 => Err(CommandError::EmptyKey),
        found if found > limit => Err(CommandError::KeyTooLong { limit, found }),
        _ => Ok(()),
    }
}

impl ClientApi for EmbeddedClient {
    type Session = Session;
    type Watch = Watch;

    fn put(
        &self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
    ) -> impl Future<Output = Result<Answer<()>, WriteError>> + Send {
        self.write(change::put(self.maker(), key.as_ref(), value.as_ref()))
    }

    fn put_attached(
        &self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        attach: Attach,
    ) -> impl Future<Output = Result<Answer<Option<LeaseId>>, WriteError>> + Send {
        self.write(change::put_attached(self.maker(), key.as_ref(), value.as_ref(), attach))
    }

    fn delete(&self, key: impl AsRef<[u8]>) -> impl Future<Output = Result<Answer<bool>, WriteError>> + Send {
        self.write(change::delete(self.maker(), key.as_ref()))
    }

    fn delete_range(&self, range: KeyRange) -> impl Future<Output = Result<Answer<u64>, WriteError>> + Send {
        self.write(change::delete_range(self.maker(), &range))
    }

    fn compare_and_swap(
        &self,
        key: impl AsRef<[u8]>,
        expected: Expected,
        new: impl AsRef<[u8]>,
    ) -> impl Future<Output = Result<Answer<Swap>, WriteError>> + Send {
        self.write(change::swap(self.maker(), key.as_ref(), &expected, new.as_ref()))
    }

    fn compare_and_swap_attached(
        &self,
        key: impl AsRef<[u8]>,
        expected: Expected,
        new: impl AsRef<[u8]>,
        attach: Attach,
    ) -> impl Future<Output = Result<Answer<AttachedSwap>, WriteError>> + Send {
        self.write(change::swap_attached(self.maker(), key.as_ref(), &expected, new.as_ref(), attach))
    }

    fn txn(&self, txn: Txn) -> impl Future<Output = Result<Answer<TxnReply>, WriteError>> + Send {
        self.write(change::txn(self.maker(), &txn))
    }

    fn lease_grant(&self, ttl: Duration) -> impl Future<Output = Result<Answer<LeaseId>, WriteError>> + Send {
        self.write(change::grant(self.maker(), None, ttl))
    }

    fn lease_grant_as(
        &self,
        lease: LeaseId,
        ttl: Duration,
    ) -> impl Future<Output = Result<Answer<LeaseId>, WriteError>> + Send {
        self.write(change::grant(self.maker(), Some(lease), ttl))
    }

    fn lease_keep_alive(
        &self,
        lease: LeaseId,
    ) -> impl Future<Output = Result<Answer<Duration>, WriteError>> + Send {
        self.write(change::keep_alive(self.maker(), lease))
    }

    fn lease_revoke(&self, lease: LeaseId) -> impl Future<Output = Result<Answer<u64>, WriteError>> + Send {
        self.write(change::revoke(self.maker(), lease))
    }

    fn compact(
        &self,
        revision: Revision,
    ) -> impl Future<Output = Result<Answer<Revision>, WriteError>> + Send {
        self.write(change::compact(self.maker(), revision))
    }

    async fn open_session(&self, options: SessionOptions) -> Result<Session, WriteError> {
        Session::open(self.clone(), options).await
    }

    async fn lease_status(&self, lease: LeaseId) -> Result<Answer<Option<LeaseStatus>>, ReadError> {
        self.read(self.default_level, |store| store.lease(lease)).await
    }

    async fn lease_keys(
        &self,
        lease: LeaseId,
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Answer<Option<Vec<Bytes>>>, ReadError> {
        self.read(self.default_level, |store| store.lease_keys(lease, after, limit)).await
    }

    fn reading(&self, level: ReadLevel) -> Self {
        Self::new(Arc::clone(&self.shared), level)
    }

    fn get(
        &self,
        key: impl AsRef<[u8]>,
    ) -> impl Future<Output = Result<Answer<Option<KeyValue>>, ReadError>> + Send {
        self.get_at(self.default_level, Key::from(key.as_ref()))
    }

    fn get_linearizable(
        &self,
        key: impl AsRef<[u8]>,
    ) -> impl Future<Output = Result<Answer<Option<KeyValue>>, ReadError>> + Send {
        self.get_at(ReadLevel::Linearizable, Key::from(key.as_ref()))
    }

    fn get_lease(
        &self,
        key: impl AsRef<[u8]>,
    ) -> impl Future<Output = Result<Answer<Option<KeyValue>>, ReadError>> + Send {
        self.get_at(ReadLevel::Lease, Key::from(key.as_ref()))
    }

    fn get_eventual(
        &self,
        key: impl AsRef<[u8]>,
    ) -> impl Future<Output = Result<Answer<Option<KeyValue>>, ReadError>> + Send {
        self.get_at(ReadLevel::Eventual, Key::from(key.as_ref()))
    }

    async fn get_multi(
        &self,
        keys: &[impl AsRef<[u8]> + Sync],
    ) -> Result<Answer<Vec<Option<KeyValue>>>, ReadError> {
        for key in keys {
            check_key(&self.shared, key.as_ref())?;
        }
        self.read(self.default_level, |store| store.get_multi(keys)).await
    }

    fn scan_prefix(
        &self,
        prefix: impl AsRef<[u8]>,
        limit: usize,
    ) -> impl Future<Output = Result<Answer<Page>, ReadError>> + Send {
        let prefix = Bytes::copy_from_slice(prefix.as_ref());
        async move { self.read(self.default_level, |store| store.scan_prefix(&prefix, limit)).await }
    }

    fn get_at_revision(
        &self,
        key: impl AsRef<[u8]>,
        revision: Revision,
    ) -> impl Future<Output = Result<Answer<Option<KeyValue>>, ReadError>> + Send {
        let key = Key::from(key.as_ref());
        async move {
            check_key(&self.shared, key.as_slice())?;
            let answer = self.read_kept(|store| store.get_at(key.as_slice(), revision)).await?;
            Ok(Answer { revision, ..answer })
        }
    }

    fn range(&self, query: RangeQuery) -> impl Future<Output = Result<Answer<RangePage>, ReadError>> + Send {
        self.read_page(query)
    }

    fn history(
        &self,
        key: impl AsRef<[u8]>,
        from: Revision,
        limit: usize,
    ) -> impl Future<Output = Result<Answer<Vec<(Revision, Event)>>, ReadError>> + Send {
        let key = Key::from(key.as_ref());
        async move {
            check_key(&self.shared, key.as_slice())?;
            self.read_kept(|store| store.history(key.as_slice(), from, limit)).await
        }
    }

    async fn watch_with(&self, query: WatchQuery) -> Result<Watch, WatchError> {
        Watch::open(&self.shared, &query)
    }

    async fn transfer_leadership(&self, to: NodeId) -> Result<(), AdminError> {
        match self.call(move |address| Submission::Transfer { address, to }).await {
            Outcome::Transferred => Ok(()),
            Outcome::Failed(failure) => Err(admin_error(failure, self.shared.leadership())),
            other => unreachable!("a transfer is not answered with {other:?}"),
        }
    }

    async fn members(&self) -> Result<Vec<Member>, AdminError> {
        Ok(self.status().await?.members)
    }

    async fn status(&self) -> Result<Status, AdminError> {
        self.ask_status(|address| Submission::Status { address }).await
    }
}
