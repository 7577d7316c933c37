//! [`Registry`]: who is there, under which address.

use super::keeper::{Keeper, KeptLease};
use super::mirror::{Change, Mirror};
use super::{RecipeError, TTL};
use crate::api::{ClientApi, ReadLevel, WriteError};
use crate::kv::{Attach, Compare, KeyRange, KeyValue, Op, RangeQuery, Relation, Revision, Target, Txn};
use bytes::Bytes;
use std::future::Future;
use std::time::Duration;

/// Services and their instances: each instance is a key `root/service/instance` that is there as long as the instance is.
///
/// 1. An instance is listed from when [`register`](Self::register) returns until it deregisters, or is not heard of for its
///    time to live.
/// 2. Registering an instance again, as after a restart, takes it over: the newer registration stays when the older one
///    goes.
/// 3. A registration that was lost is not renewed by itself: [`Registration::lost`] says so, and whether the program still
///    serves only the program knows.
/// 4. A watch begins with who is there and then tells every change, in order; each instance that came is told, and each that
///    went, also over compactions.
///
/// ```
/// use d_engine::recipes::{InstanceChange, Keeper, Registry};
///
#[doc = include_str!("../api/example.txt")]
/// let registry = Registry::new(&Keeper::new(client), "services");
/// let registration = registry.register("mail", "host-a", "10.0.0.1:25").await?;
///
/// let mut watch = registry.watch("mail")?;
/// let InstanceChange::Joined(instance) = watch.next().await? else { panic!("it is there") };
/// assert_eq!((instance.id.as_ref(), instance.value.as_ref()), (&b"host-a"[..], &b"10.0.0.1:25"[..]));
///
/// registration.deregister().await?;
/// assert!(matches!(watch.next().await?, InstanceChange::Left(gone) if gone.id == "host-a"));
/// assert!(registry.list("mail").await?.is_empty());
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Registry<C> {
    keeper: Keeper<C>,
    root: Bytes,
    ttl: Duration,
}

impl<C> Clone for Registry<C> {
    fn clone(&self) -> Self {
        Self { keeper: self.keeper.clone(), root: self.root.clone(), ttl: self.ttl }
    }
}

/// One instance of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// Its name in the service.
    pub id: Bytes,
    /// What it registered: its address, mostly.
    pub value: Bytes,
    /// The revision that last changed it.
    pub revision: Revision,
}

/// What changed among the instances of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InstanceChange {
    /// One is there that was not.
    Joined(Instance),
    /// One has another value.
    Updated(Instance),
    /// One is gone; this is what it was.
    Left(Instance),
}

impl<C: ClientApi + 'static> Registry<C> {
    /// The registry whose keys begin with `root` and a slash. Nothing is asked of the store yet.
    #[must_use]
    pub fn new(keeper: &Keeper<C>, root: impl AsRef<[u8]>) -> Self {
        Self { keeper: keeper.clone(), root: Bytes::copy_from_slice(root.as_ref()), ttl: TTL }
    }

    /// How long an instance that is not heard of any more stays listed; 10 s unless said. Within
    /// [`LEASE_TTL`](crate::kv::LEASE_TTL), and better longer than the group may be without a leader.
    #[must_use]
    pub fn ttl(self, ttl: Duration) -> Self {
        Self { ttl, ..self }
    }

    /// Lists `instance` under `service` with `value`, and keeps it listed until the registration is dropped.
    ///
    /// # Errors
    /// [`RecipeError::Name`] for a name with a slash; [`RecipeError`] when the store refuses or does not answer.
    pub async fn register(
        &self,
        service: impl AsRef<[u8]> + Send + Sync,
        instance: impl AsRef<[u8]> + Send + Sync,
        value: impl AsRef<[u8]> + Send + Sync,
    ) -> Result<Registration<C>, RecipeError> {
        let key = [&self.prefix(service.as_ref())?[..], part(instance.as_ref())?].concat().into();
        let lease = self.keeper.grant(self.ttl).await?;
        self.keeper.client().put_with_lease(&key, value.as_ref(), lease.id()).await?;
        Ok(Registration { key, lease })
    }

    /// All instances of `service`, at one revision, in the order of their names.
    ///
    /// # Errors
    /// [`RecipeError::Name`] for a name with a slash; as [`ClientApi::range`] otherwise.
    pub async fn list(&self, service: impl AsRef<[u8]> + Send + Sync) -> Result<Vec<Instance>, RecipeError> {
        let prefix = self.prefix(service.as_ref())?;
        let client = self.keeper.client().reading(ReadLevel::Linearizable);
        let (mut pages, mut found) = (client.pages(RangeQuery::new(KeyRange::prefix(&prefix))), Vec::new());
        while let Some(page) = pages.next().await? {
            found.extend(page.value.items.iter().filter_map(|item| instance(&prefix, item)));
        }
        Ok(found)
    }

    /// Tells who is there, and then who comes and goes.
    ///
    /// # Errors
    /// [`RecipeError::Name`] for a name with a slash.
    pub fn watch(&self, service: impl AsRef<[u8]>) -> Result<Instances<C>, RecipeError> {
        let prefix = self.prefix(service.as_ref())?;
        let mirror = Mirror::new(self.keeper.client(), KeyRange::prefix(&prefix));
        Ok(Instances { prefix, mirror })
    }

    fn prefix(&self, service: &[u8]) -> Result<Bytes, RecipeError> {
        Ok([&self.root[..], b"/", part(service)?, b"/"].concat().into())
    }
}

/// A part of a key between slashes.
fn part(name: &[u8]) -> Result<&[u8], RecipeError> {
    if name.is_empty() || name.contains(&b'/') {
        return Err(RecipeError::Name { name: String::from_utf8_lossy(name).into_owned() });
    }
    Ok(name)
}

fn instance(prefix: &[u8], found: &KeyValue) -> Option<Instance> {
    let id = part(found.key.strip_prefix(prefix)?).ok()?;
    Some(Instance {
        id: found.key.slice_ref(id),
        value: found.value.clone(),
        revision: found.modify_revision,
    })
}

/// An instance is listed. Dropping it takes it off the list in the background; [`deregister`](Self::deregister) waits for
/// it.
#[derive(Debug)]
pub struct Registration<C> {
    key: Bytes,
    lease: KeptLease<C>,
}

impl<C> Registration<C> {
    /// Whether it is kept alive.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        self.lease.is_kept()
    }

    /// Completes when it is lost: its lease has ended, or could not be kept alive in time.
    pub fn lost(&self) -> impl Future<Output = ()> + Send + use<'_, C> {
        self.lease.lost()
    }
}

impl<C: ClientApi + 'static> Registration<C> {
    /// Lists another value.
    ///
    /// # Errors
    /// [`RecipeError::Lost`] when the instance is no longer this registration's: it was lost, or taken over.
    pub async fn update(&self, value: impl AsRef<[u8]> + Send + Sync) -> Result<(), RecipeError> {
        let mine = Compare::key(&self.key, Relation::Equal, Target::Lease(self.lease.id().0));
        let put = Op::put_attached(&self.key, value.as_ref(), Attach::Lease(self.lease.id()));
        let updated = self.lease.keeper().client().txn(Txn::new().when(mine).then(put)).await?;
        if updated.value.succeeded { Ok(()) } else { Err(RecipeError::Lost) }
    }

    /// Takes it off the list. `false` when it had been lost before.
    ///
    /// # Errors
    /// [`WriteError`]; it is then taken off in the background, or by the end of its time to live.
    pub async fn deregister(self) -> Result<bool, WriteError> {
        self.lease.release().await
    }
}

/// Tells who is there, and then who comes and goes.
#[derive(Debug)]
pub struct Instances<C: ClientApi> {
    prefix: Bytes,
    mirror: Mirror<C>,
}

impl<C: ClientApi + 'static> Instances<C> {
    /// The next change: those who are there have [joined](InstanceChange::Joined), to begin with. Dropping the future loses
    /// nothing.
    ///
    /// # Errors
    /// [`RecipeError`] when the keys could not be read or watched; it may be asked again.
    pub async fn next(&mut self) -> Result<InstanceChange, RecipeError> {
        loop {
            let (change, found): (fn(Instance) -> InstanceChange, _) = match self.mirror.next().await? {
                Change::New(found) => (InstanceChange::Joined, found),
                Change::Set(found) => (InstanceChange::Updated, found),
                Change::Gone(found) => (InstanceChange::Left, found),
            };
            if let Some(instance) = instance(&self.prefix, &found) {
                return Ok(change(instance));
            }
        }
    }
}
