//! [`Watch`]: what changes, as this node applies it.

use super::park::Parking;
use crate::kv::watch::Cursor;
use crate::kv::{CommandError, KeyRange, Revision, WatchError, WatchItem, WatchQuery};
use crate::runtime::shared::Shared;
use crate::runtime::watch::Member;
use futures_core::Stream;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// The changes of some keys, as this node applies them: in order, each once, all of a revision together. The rules are those
/// of [`kv::watch`](crate::kv::watch).
///
/// A [`Stream`] for every async runtime; [`next`](Self::next) does without the trait, and [`wait`](Self::wait) without a
/// runtime. It ends after its first error, which says where to go on. A watch that is not read holds no more than a few
/// batches: it is told the rest from the store's history when it is read again, unless that has been compacted. Dropping it
/// ends it.
pub struct Watch {
    shared: Arc<Shared>,
    cursor: Cursor,
    /// `None` after the end.
    member: Option<Member>,
    parking: Parking,
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").field("revision", &self.revision()).finish_non_exhaustive()
    }
}

impl Watch {
    pub(super) fn open(shared: &Arc<Shared>, query: &WatchQuery) -> Result<Self, WatchError> {
        check(query.range(), shared.limits.key_bytes)?;
        let (cursor, member) = shared.watches.open(query)?;
        Ok(Self { shared: Arc::clone(shared), cursor, member: Some(member), parking: Parking::default() })
    }

    /// The next item; `None` after the end. Dropping the future loses nothing.
    ///
    /// # Errors
    /// [`WatchError`], once, as the last item: it says from where to watch again.
    pub async fn next(&mut self) -> Option<Result<WatchItem, WatchError>> {
        std::future::poll_fn(|cx| self.poll_next(cx)).await
    }

    /// [`next`](Self::next) as a poll.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<WatchItem, WatchError>>> {
        let Some(member) = &mut self.member else { return Poll::Ready(None) };
        let item = self.shared.watches.poll(&mut self.cursor, member, cx);
        if matches!(item, Poll::Ready(Err(_))) {
            self.end();
        }
        item.map(Some)
    }

    /// [`next`](Self::next) for a thread without a runtime: sleeps until there is an item.
    pub fn wait(&mut self) -> Option<Result<WatchItem, WatchError>> {
        let mut parking = std::mem::take(&mut self.parking);
        let item = parking.wait(|cx| self.poll_next(cx));
        self.parking = parking;
        item
    }

    /// Everything up to here has been told, or does not concern this watch. Another watch from the revision after it goes on
    /// where this one is, on this node or on another.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.cursor.revision()
    }

    fn end(&mut self) {
        if let Some(member) = self.member.take() {
            self.shared.watches.close(member);
        }
    }
}

impl Stream for Watch {
    type Item = Result<WatchItem, WatchError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Self::poll_next(self.get_mut(), cx)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.end();
    }
}

/// Refuses ranges that hold memory for keys that cannot exist.
fn check(range: &KeyRange, limit: usize) -> Result<(), CommandError> {
    if range.single().is_some_and(<[u8]>::is_empty) {
        return Err(CommandError::EmptyKey);
    }
    // The end of one key's range is one byte longer than the key.
    let end = range.end().map_or(0, |end| end.len().saturating_sub(1));
    match range.start().len().max(end) {
        found if found > limit => Err(CommandError::KeyTooLong { limit, found }),
        _ => Ok(()),
    }
}
