//! A line of those who want to be the only one: what locks and elections are made of.
//!
//! Every contender has a key under the line's name, attached to a lease of its own, and named after that lease: so joining
//! twice by one lease is joining once, and a lost answer does no harm. The key that was created first is at the head. A key's
//! create revision never changes and no later key can have a smaller one, so who is at the head stays there until its key is
//! gone, and a state that shows nobody before a contender says so for good.

use super::error::Transient;
use super::keeper::{Keeper, KeptLease};
use super::race::{First, race};
use super::{RecipeError, TTL};
use crate::api::{ClientApi, ReadError, ReadLevel};
use crate::kv::{
    Attach, Compare, Filter, KeyRange, KeyValue, LeaseId, Op, OpReply, RangeQuery, Relation, Revision,
    Target, Txn, TxnReply, WatchError, WatchQuery,
};
use bytes::Bytes;
use futures_core::Stream;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

/// Waits between two tries of a call that was turned away.
const PAUSE: Duration = Duration::from_millis(10);

/// Digits of a lease in a contender's key.
const DIGITS: usize = 16;

/// A name and how long a contender that is not heard of stays.
#[derive(Debug)]
pub(super) struct Line<C> {
    pub keeper: Keeper<C>,
    /// What all its keys begin with.
    prefix: Bytes,
    pub ttl: Duration,
}

impl<C> Clone for Line<C> {
    fn clone(&self) -> Self {
        Self { keeper: self.keeper.clone(), prefix: self.prefix.clone(), ttl: self.ttl }
    }
}

/// A place in a line, kept as long as its lease is.
#[derive(Debug)]
pub(super) struct Place<C> {
    pub lease: KeptLease<C>,
    pub key: Bytes,
    /// The revision that created its key. Rises along the line.
    pub token: Revision,
}

/// Whoever is in the line with this key and value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Contender {
    pub token: Revision,
    pub lease: LeaseId,
    pub value: Bytes,
}

impl<C: ClientApi + 'static> Line<C> {
    pub(super) fn new(keeper: &Keeper<C>, name: &[u8]) -> Self {
        Self { keeper: keeper.clone(), prefix: [name, b"/"].concat().into(), ttl: TTL }
    }

    /// The keys of its contenders, and maybe others: see [`contender`](Self::contender).
    pub(super) fn range(&self) -> KeyRange {
        KeyRange::prefix(&self.prefix)
    }

    /// A key of the line as a contender; `None` for a key of another line whose name begins like this one's.
    pub(super) fn contender(&self, found: &KeyValue) -> Option<Contender> {
        let digits = found.key.strip_prefix(&self.prefix[..])?;
        let named =
            digits.len() == DIGITS && digits.iter().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
        let lease = found.lease.filter(|_| named)?;
        Some(Contender { token: found.create_revision, lease, value: found.value.clone() })
    }

    fn reader(&self) -> C {
        self.keeper.client().reading(ReadLevel::Linearizable)
    }

    /// Takes a place at the end.
    pub(super) async fn join(&self, value: &[u8]) -> Result<Place<C>, RecipeError> {
        let lease = self.keeper.grant(self.ttl).await?;
        let (key, token) = self.stand(&lease, value).await?;
        Ok(Place { lease, key, token })
    }

    /// The key that stands in the line for `lease`, and the revision that created it, now or before.
    async fn stand(&self, lease: &KeptLease<C>, value: &[u8]) -> Result<(Bytes, Revision), RecipeError> {
        let key = Bytes::from([&self.prefix[..], format!("{:0DIGITS$x}", lease.id().0).as_bytes()].concat());
        let attach = Attach::Lease(lease.id());
        let joining = Txn::new()
            .when(Compare::absent(&key))
            .then(Op::put_attached(&key, value, attach))
            .otherwise(Op::get(&key));
        let joined = self.insist(lease, || self.keeper.client().txn(joining.clone())).await?;
        let token = match &joined.value {
            TxnReply { succeeded: true, .. } => joined.revision,
            // By a try of which nothing was heard.
            TxnReply { results, .. } => match results.first() {
                Some(OpReply::Range(page)) if !page.items.is_empty() => page.items[0].create_revision,
                _ => return Err(RecipeError::Lost),
            },
        };
        Ok((key, token))
    }

    /// Returns when `place` is at the head.
    pub(super) async fn advance(&self, place: &Place<C>) -> Result<(), RecipeError> {
        let client = self.reader();
        loop {
            let (ahead, seen) = self.insist(&place.lease, || self.look_ahead(&client, place)).await?;
            let Some(ahead) = ahead else { return Ok(()) };
            let gone = WatchQuery::new(KeyRange::key(&ahead)).from(seen.next()).only(Filter::Deletes);
            let gone = async {
                let mut watch = client.watch_with(gone).await?;
                std::future::poll_fn(|cx| Pin::new(&mut watch).poll_next(cx)).await.transpose()
            };
            match race(gone, place.lease.lost()).await {
                // Gone, or the watch cannot say: look again. What stays wrong shows there.
                First::One(Ok(_) | Err(WatchError::Compacted { .. })) => {}
                First::One(Err(error)) => return Err(error.into()),
                First::Other(()) => return Err(RecipeError::Lost),
            }
        }
    }

    /// Whether `place` is at the head at this moment.
    pub(super) async fn is_first(&self, place: &Place<C>) -> Result<bool, RecipeError> {
        let client = self.reader();
        let (ahead, _) = self.insist(&place.lease, || self.look_ahead(&client, place)).await?;
        Ok(ahead.is_none())
    }

    /// The contender right before `place`, and the revision at which that was seen.
    async fn look_ahead(&self, client: &C, place: &Place<C>) -> Result<(Option<Bytes>, Revision), Look> {
        let (mut ahead, mut own, mut seen) = (None, false, place.token);
        let mut pages = client.pages(RangeQuery::new(self.range()).keys_only());
        while let Some(page) = pages.next().await? {
            seen = page.revision;
            for found in &page.value.items {
                own |= found.create_revision == place.token && found.key == place.key;
                let Some(contender) = self.contender(found) else { continue };
                let nearest = ahead.as_ref().is_none_or(|&(token, _)| contender.token > token);
                if contender.token < place.token && nearest {
                    ahead = Some((contender.token, found.key.clone()));
                }
            }
        }
        // Somebody removed it by hand, or revoked its lease.
        if own { Ok((ahead.map(|(_, key)| key), seen)) } else { Err(Look::Absent) }
    }

    /// Who is at the head, and the revision at which that was seen.
    pub(super) async fn head(&self) -> Result<Option<Contender>, RecipeError> {
        let client = self.reader();
        let mut head: Option<Contender> = None;
        let mut pages = client.pages(RangeQuery::new(self.range()));
        while let Some(page) = pages.next().await? {
            let contenders = page.value.items.iter().filter_map(|found| self.contender(found));
            head = head.into_iter().chain(contenders).min_by_key(|contender| contender.token);
        }
        Ok(head)
    }

    /// Makes a call that may be made twice until it is answered or `lease` is lost.
    pub(super) async fn insist<T, E, F>(
        &self,
        lease: &KeptLease<C>,
        call: impl Fn() -> F,
    ) -> Result<T, RecipeError>
    where
        F: Future<Output = Result<T, E>>,
        E: Transient + Into<RecipeError>,
    {
        loop {
            let failure = match race(call(), lease.lost()).await {
                First::One(Ok(answer)) => return Ok(answer),
                First::One(Err(failure)) => failure,
                First::Other(()) => return Err(RecipeError::Lost),
            };
            if !failure.is_transient() {
                return Err(failure.into());
            }
            self.keeper.sleep(PAUSE).await;
        }
    }
}

/// Why a look at the line did not find what must be there.
enum Look {
    Failed(ReadError),
    Absent,
}

impl From<ReadError> for Look {
    fn from(error: ReadError) -> Self {
        Self::Failed(error)
    }
}

impl Transient for Look {
    fn is_transient(&self) -> bool {
        matches!(self, Self::Failed(error) if error.is_transient())
    }
}

impl From<Look> for RecipeError {
    fn from(look: Look) -> Self {
        match look {
            Look::Failed(error) => error.into(),
            Look::Absent => Self::Lost,
        }
    }
}

impl<C> Place<C> {
    /// Holds in a transaction exactly as long as the place is kept.
    pub(super) fn kept(&self) -> Compare {
        Compare::key(&self.key, Relation::Equal, Target::Created(self.token))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embedded::{EmbeddedClient, EmbeddedEngine};

    async fn line() -> (EmbeddedEngine, Line<EmbeddedClient>) {
        let engine = EmbeddedEngine::ephemeral().await.expect("it starts");
        engine.wait_ready(Duration::from_secs(30)).await.expect("it leads");
        let line = Line::new(&Keeper::new(engine.client()), b"line");
        (engine, line)
    }

    /// So that one is woken when one goes, however many wait.
    #[tokio::test]
    async fn a_contender_waits_for_the_one_right_before_it() {
        let (_engine, line) = line().await;
        let mut places = Vec::new();
        for _ in 0..4 {
            places.push(line.join(b"").await.expect("joined"));
        }
        assert!(line.is_first(&places[0]).await.expect("looked"));
        let client = line.reader();
        for pair in places.windows(2) {
            let Ok((ahead, _)) = line.look_ahead(&client, &pair[1]).await else { panic!("it is there") };
            assert_eq!(ahead.as_ref(), Some(&pair[0].key));
            assert!(pair[0].token < pair[1].token);
        }
        let gone = places.remove(1);
        assert!(gone.lease.release().await.expect("released"));
        let Ok((ahead, _)) = line.look_ahead(&client, &places[1]).await else { panic!("it is there") };
        assert_eq!(ahead.as_ref(), Some(&places[0].key));
    }

    /// A first try of which nothing was heard has taken the place.
    #[tokio::test]
    async fn who_joins_twice_stands_where_it_stood() {
        let (_engine, line) = line().await;
        let lease = line.keeper.grant(TTL).await.expect("granted");
        let first = line.stand(&lease, b"me").await.expect("joined");
        let other = line.join(b"").await.expect("joined");
        assert_eq!(line.stand(&lease, b"me").await.expect("joined"), first);
        assert!(first.1 < other.token);
    }
}
