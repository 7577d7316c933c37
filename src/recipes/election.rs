//! [`Election`]: one leader at a time, whom others want to know.

use super::line::{Contender, Line, Place};
use super::mirror::{Change, Mirror};
use super::{Keeper, RecipeError};
use crate::api::{ClientApi, WriteError};
use crate::kv::{Attach, Compare, Op, Revision, Txn};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

/// An election among programs. See the [module](super) for what holds; its keys are those of a [`Lock`](super::Lock) of the
/// same name.
///
/// ```
/// use d_engine::recipes::{Election, Keeper};
///
#[doc = include_str!("../api/example.txt")]
/// let election = Election::new(&Keeper::new(client), "scheduler");
/// let mut observer = election.observe();
/// assert_eq!(observer.next().await?, None, "nobody leads yet");
///
/// let reign = election.campaign("host-a:7000").await?;
/// assert_eq!(observer.next().await?.expect("somebody leads").value, "host-a:7000");
/// reign.proclaim("host-a:7001").await?;
/// assert_eq!(observer.next().await?.expect("still").value, "host-a:7001");
/// reign.resign().await?;
/// assert_eq!(observer.next().await?, None);
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Election<C> {
    line: Line<C>,
}

impl<C> Clone for Election<C> {
    fn clone(&self) -> Self {
        Self { line: self.line.clone() }
    }
}

/// Whoever leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leader {
    /// Its fencing token: greater than every former leader's.
    pub token: Revision,
    /// What it proclaimed last.
    pub value: Bytes,
}

impl From<Contender> for Leader {
    fn from(Contender { token, value, .. }: Contender) -> Self {
        Self { token, value }
    }
}

impl<C: ClientApi + 'static> Election<C> {
    /// The election called `name`. Nothing is asked of the store yet.
    #[must_use]
    pub fn new(keeper: &Keeper<C>, name: impl AsRef<[u8]>) -> Self {
        Self { line: Line::new(keeper, name.as_ref()) }
    }

    /// How long a leader that is not heard of any more stays; 10 s unless said. Within
    /// [`LEASE_TTL`](crate::kv::LEASE_TTL), and better longer than the group may be without a leader.
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.line.ttl = ttl;
        self
    }

    /// Stands for election and returns when it is won, after all who stood before. `value` is what observers see then.
    /// Dropping the future withdraws; a candidacy that was lost while waiting is renewed at the end of the line.
    ///
    /// # Errors
    /// [`RecipeError`] when the lease is refused, there is no leader of the group, or the engine has stopped.
    pub async fn campaign(&self, value: impl AsRef<[u8]> + Send + Sync) -> Result<Reign<C>, RecipeError> {
        loop {
            match self.stand(value.as_ref()).await {
                Err(RecipeError::Lost) => {}
                done => return done,
            }
        }
    }

    async fn stand(&self, value: &[u8]) -> Result<Reign<C>, RecipeError> {
        let place = self.line.join(value).await?;
        self.line.advance(&place).await?;
        Ok(Reign { line: self.line.clone(), place })
    }

    /// Who leads, if anybody does.
    ///
    /// # Errors
    /// As [`ClientApi::range`].
    pub async fn leader(&self) -> Result<Option<Leader>, RecipeError> {
        Ok(self.line.head().await?.map(Leader::from))
    }

    /// Tells who leads, as it changes.
    #[must_use]
    pub fn observe(&self) -> Observer<C> {
        let mirror = Mirror::new(self.line.keeper.client(), self.line.range());
        Observer { line: self.line.clone(), mirror, contenders: BTreeMap::new(), told: None }
    }
}

/// The election is won. Dropping it resigns in the background; [`resign`](Self::resign) waits for it.
#[derive(Debug)]
pub struct Reign<C> {
    line: Line<C>,
    place: Place<C>,
}

impl<C> Reign<C> {
    /// The fencing token: greater than every former leader's.
    #[must_use]
    pub fn token(&self) -> Revision {
        self.place.token
    }

    /// Whether this program certainly leads at this moment, as far as clocks can be counted on. Once `false`, always
    /// `false`.
    #[must_use]
    pub fn is_leading(&self) -> bool {
        self.place.lease.is_kept()
    }

    /// Completes when leadership is lost: the lease has ended, or could not be kept alive in time.
    pub fn lost(&self) -> impl Future<Output = ()> + Send + use<'_, C> {
        self.place.lease.lost()
    }

    /// A condition that holds exactly as long as this program leads: a transaction with it does nothing once that is over,
    /// whatever the clocks show.
    #[must_use]
    pub fn held(&self) -> Compare {
        self.place.kept()
    }
}

impl<C: ClientApi + 'static> Reign<C> {
    /// Tells observers something else; the token stays.
    ///
    /// # Errors
    /// [`RecipeError::Lost`] when this program leads no longer; nothing is told then.
    pub async fn proclaim(&self, value: impl AsRef<[u8]> + Send + Sync) -> Result<(), RecipeError> {
        let attach = Attach::Lease(self.place.lease.id());
        let telling =
            Txn::new().when(self.held()).then(Op::put_attached(&self.place.key, value.as_ref(), attach));
        let client = self.line.keeper.client();
        // Said twice it is the same: nobody else says anything under this key.
        let told = self.line.insist(&self.place.lease, || client.txn(telling.clone())).await?;
        if told.value.succeeded { Ok(()) } else { Err(RecipeError::Lost) }
    }

    /// Makes room for the next. `false` when leadership had been lost before.
    ///
    /// # Errors
    /// [`WriteError`]; it then resigns in the background, or by the end of its time to live.
    pub async fn resign(self) -> Result<bool, WriteError> {
        self.place.lease.release().await
    }
}

/// Tells who leads. A leader that followed another is told; what happened between two that were asked for quickly one after
/// the other may be told as one.
#[derive(Debug)]
pub struct Observer<C: ClientApi> {
    line: Line<C>,
    mirror: Mirror<C>,
    /// By token: the first one leads.
    contenders: BTreeMap<Revision, Contender>,
    told: Option<Option<Leader>>,
}

impl<C: ClientApi + 'static> Observer<C> {
    /// Who leads: at once the first time, and then when somebody else does, nobody does, or the leader proclaims something
    /// else. Dropping the future loses nothing.
    ///
    /// # Errors
    /// [`RecipeError`] when the keys could not be read or watched; it may be asked again.
    pub async fn next(&mut self) -> Result<Option<Leader>, RecipeError> {
        loop {
            while let Some(change) = self.mirror.known() {
                self.note(&change);
            }
            let leader = self.contenders.first_key_value().map(|(_, first)| first.clone().into());
            if self.mirror.is_read() && self.told.as_ref() != Some(&leader) {
                self.told = Some(leader.clone());
                return Ok(leader);
            }
            self.mirror.advance().await?;
        }
    }

    fn note(&mut self, change: &Change) {
        match change {
            Change::New(found) | Change::Set(found) => {
                let contender = self.line.contender(found);
                self.contenders.extend(contender.map(|contender| (contender.token, contender)));
            }
            Change::Gone(former) => {
                self.contenders.remove(&former.create_revision);
            }
        }
    }
}
