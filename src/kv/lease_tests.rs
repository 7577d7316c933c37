//! The rules of leases, one test each, on the leases alone.

use super::key::Key;
use super::lease::{LEASE_TTL, LeaseError, LeaseId, LeaseLimits, LeaseStatus, Leases};
use super::time::LogTime;
use std::collections::BTreeMap;
use std::time::Duration;

const FEW: LeaseLimits = LeaseLimits { leases: 4, keys: 3, expired_keys_per_entry: 4 };
const SECOND: Duration = Duration::from_secs(1);
const START: LogTime = LogTime(1_000);

fn key(name: &str) -> Key {
    Key::from(name.as_bytes())
}

fn names(keys: &[Key]) -> Vec<&str> {
    keys.iter().map(|key| std::str::from_utf8(key.as_slice()).expect("text")).collect()
}

/// Leases with their digest, as a store has them.
struct World {
    leases: Leases,
    digest: u128,
    now: LogTime,
}

impl World {
    fn new(limits: LeaseLimits) -> Self {
        Self { leases: Leases::new(limits), digest: 0, now: START }
    }

    fn grant(&mut self, ttl: Duration) -> LeaseId {
        self.try_grant(None, ttl).expect("there is room")
    }

    fn try_grant(&mut self, id: Option<LeaseId>, ttl: Duration) -> Result<LeaseId, LeaseError> {
        self.leases.grant(id, ttl, self.now, &mut self.digest)
    }

    fn own(&mut self, ttl: Duration, name: &str) -> LeaseId {
        let lease = self.leases.own(ttl, self.now, &mut self.digest).expect("there is room");
        self.leases.attach(lease, &key(name));
        lease
    }

    fn attach(&mut self, lease: LeaseId, name: &str) -> Result<(), LeaseError> {
        self.leases.check_room(lease, 1)?;
        self.leases.attach(lease, &key(name));
        Ok(())
    }

    fn detach(&mut self, lease: LeaseId, name: &str) {
        self.leases.detach(lease, &key(name), &mut self.digest);
    }

    fn keep(&mut self, lease: LeaseId) -> Result<Duration, LeaseError> {
        self.leases.keep_alive(lease, self.now, &mut self.digest)
    }

    fn end(&mut self, lease: LeaseId) -> Result<Vec<Key>, LeaseError> {
        self.leases.end(lease, &mut self.digest)
    }

    /// What an entry made for the purpose ends now.
    fn expire(&mut self) -> Vec<(LeaseId, Vec<Key>)> {
        let (mut ended, mut all) = (0, Vec::new());
        while let Some(lease) = self.leases.due(self.now, ended) {
            let keys = self.end(lease).expect("it is due");
            ended += keys.len().max(1);
            all.push((lease, keys));
        }
        self.leases.check();
        all
    }

    fn left(&self, lease: LeaseId) -> Option<Duration> {
        self.leases.status(lease, self.now).map(|status| status.left)
    }
}

#[test]
fn a_lease_lasts_its_time_to_live_to_the_millisecond_and_waits_for_an_entry() {
    let mut world = World::new(FEW);
    let lease = world.grant(SECOND);
    assert_eq!(world.leases.next_end(), Some(LogTime(2_000)));
    world.now = LogTime(1_999);
    assert_eq!(world.left(lease), Some(Duration::from_millis(1)));
    assert_eq!(world.expire(), [], "never early");
    world.now = LogTime(5_000);
    let over = LeaseStatus { lease, ttl: SECOND, left: Duration::ZERO, keys: 0 };
    assert_eq!(world.leases.status(lease, world.now), Some(over), "and not without an entry");
    assert_eq!(world.expire(), [(lease, vec![])]);
    assert_eq!((world.leases.len(), world.leases.next_end()), (0, None));
    assert_eq!(world.keep(lease), Err(LeaseError::NotFound { lease }));
    assert_eq!(world.end(lease).err(), Some(LeaseError::NotFound { lease }));
    assert_eq!(world.attach(lease, "a"), Err(LeaseError::NotFound { lease }));
}

#[test]
fn keeping_alive_gives_the_whole_time_again_even_after_it_is_over() {
    let mut world = World::new(FEW);
    let lease = world.grant(SECOND);
    world.now = LogTime(1_900);
    assert_eq!(world.keep(lease), Ok(SECOND));
    world.now = LogTime(2_100);
    assert_eq!(world.expire(), [], "the earlier word counts");
    assert_eq!(world.left(lease), Some(Duration::from_millis(800)));
    world.now = LogTime(9_000);
    assert_eq!(world.keep(lease), Ok(SECOND), "no entry has ended it");
    assert_eq!(world.expire(), []);
    assert_eq!(world.left(lease), Some(SECOND));
}

#[test]
fn ids_are_chosen_once_and_step_over_those_that_were_named() {
    let mut world = World::new(LeaseLimits { leases: 100, ..FEW });
    assert_eq!(world.try_grant(Some(LeaseId(2)), SECOND), Ok(LeaseId(2)));
    assert_eq!(world.try_grant(Some(LeaseId(u64::MAX)), SECOND), Ok(LeaseId(u64::MAX)));
    assert_eq!([world.grant(SECOND), world.grant(SECOND)], [LeaseId(1), LeaseId(3)]);
    assert_eq!(world.try_grant(Some(LeaseId(3)), SECOND), Err(LeaseError::Exists { lease: LeaseId(3) }));
    world.end(LeaseId(3)).expect("granted");
    assert_eq!(world.grant(SECOND), LeaseId(4), "no id is chosen again");
    assert_eq!(world.try_grant(Some(LeaseId(3)), SECOND), Ok(LeaseId(3)), "though it may be named again");
    for id in 5..=9 {
        world.try_grant(Some(LeaseId(id)), SECOND).expect("free");
    }
    assert_eq!(world.grant(SECOND), LeaseId(10));
    world.leases.check();
}

#[test]
fn the_keys_of_a_lease_go_with_it_in_order() {
    let mut world = World::new(FEW);
    let lease = world.grant(SECOND);
    for name in ["c", "a", "b"] {
        world.attach(lease, name).expect("there is room");
    }
    let pages = |after: Option<&[u8]>, limit| world.leases.keys(lease, after, limit).expect("it is there");
    assert_eq!(pages(None, 2), ["a", "b"]);
    assert_eq!(pages(Some(b"b"), 2), ["c"]);
    assert_eq!(pages(Some(b"bb"), 0), [""; 0]);
    world.detach(lease, "b");
    assert_eq!(world.leases.status(lease, START).expect("it stays").keys, 2);
    assert_eq!(names(&world.end(lease).expect("granted")), ["a", "c"]);
    assert_eq!(world.leases.keys(lease, None, 9), None);
}

#[test]
fn a_lease_of_its_own_has_one_key_and_ends_with_it() {
    let mut world = World::new(FEW);
    let lease = world.own(SECOND, "a");
    assert_eq!(world.attach(lease, "b"), Err(LeaseError::TooManyKeys { lease, limit: 1 }));
    assert_eq!(world.leases.keys(lease, None, 9).expect("it is there"), ["a"]);
    assert_eq!(world.leases.keys(lease, Some(b"a"), 9).expect("it is there"), [""; 0]);
    assert_eq!(world.keep(lease), Ok(SECOND));
    let before = world.digest;
    world.detach(lease, "a");
    assert_eq!(world.leases.status(lease, START), None);
    assert_ne!(world.digest, before, "its end is a change");
    let granted = world.grant(SECOND);
    world.attach(granted, "a").expect("there is room");
    world.detach(granted, "a");
    assert_eq!(world.left(granted), Some(SECOND), "a granted one stays");
    let lease = world.own(SECOND, "a");
    world.now = LogTime(2_000);
    assert_eq!(world.expire(), [(granted, vec![]), (lease, vec![key("a")])]);
}

#[test]
fn limits_refuse_and_change_nothing() {
    let mut world = World::new(FEW);
    let leases = [(); 4].map(|()| world.grant(SECOND));
    for name in ["a", "b", "c"] {
        world.attach(leases[0], name).expect("there is room");
    }
    let before = world.digest;
    assert_eq!(world.try_grant(None, SECOND), Err(LeaseError::TooManyLeases { limit: 4 }));
    assert_eq!(world.try_grant(Some(leases[0]), SECOND), Err(LeaseError::TooManyLeases { limit: 4 }));
    assert!(world.leases.own(SECOND, START, &mut world.digest).is_err());
    let full = LeaseError::TooManyKeys { lease: leases[0], limit: 3 };
    assert_eq!(world.leases.check_room(leases[0], 0), Ok(()));
    assert_eq!(world.attach(leases[0], "d"), Err(full));
    assert!(world.leases.check_room(leases[1], 4).is_err_and(|error| error.to_string().contains("limit")));
    assert_eq!(world.digest, before, "what is refused is no change");
    world.end(leases[3]).expect("granted");
    assert_eq!(world.leases.check_more(1), Ok(()));
    assert_eq!(world.leases.check_more(2), Err(LeaseError::TooManyLeases { limit: 4 }));
    world.leases.check();
}

#[test]
fn one_entry_ends_a_bounded_number_of_keys_and_no_half_of_a_lease() {
    let mut world = World::new(LeaseLimits { leases: 100, keys: 3, expired_keys_per_entry: 4 });
    for lease in 0..4 {
        let id = world.grant(SECOND);
        for name in 0..3 {
            world.attach(id, &format!("{lease}/{name}")).expect("there is room");
        }
    }
    for _ in 0..5 {
        world.grant(SECOND);
    }
    world.now = LogTime(2_000);
    let ended: Vec<Vec<u64>> = std::iter::from_fn(|| Some(world.expire()).filter(|ended| !ended.is_empty()))
        .map(|ended| ended.into_iter().map(|(lease, _)| lease.0).collect())
        .collect();
    assert_eq!(ended, [vec![1, 2], vec![3, 4], vec![5, 6, 7, 8], vec![9]]);
}

#[test]
fn the_store_wants_an_entry_at_the_end_and_ticks_before_it() {
    let mut world = World::new(FEW);
    assert_eq!(world.leases.upkeep_at(START), None, "nothing passes without leases");
    world.grant(Duration::from_secs(16));
    let upkeep_at = |now| world.leases.upkeep_at(LogTime(now)).expect("there is a lease").0;
    assert_eq!(upkeep_at(1_000), 2_000, "a sixteenth of what is left");
    assert_eq!(upkeep_at(9_000), 9_500);
    assert_eq!(upkeep_at(16_000), 16_100, "but not at shorter distance than 100 ms");
    assert_eq!(upkeep_at(16_950), 17_000, "and at the end");
    assert_eq!(upkeep_at(16_990), 17_010, "or a little later, so that others may go with it");
    assert_eq!(upkeep_at(17_000), 17_000);
    assert_eq!(upkeep_at(20_000), 17_000, "long since");
    // From a day to the end in a few hundred entries.
    let mut now = START;
    let mut world = World::new(FEW);
    world.grant(Duration::from_secs(86_400));
    let ticks = std::iter::from_fn(|| {
        let at = world.leases.upkeep_at(now)?;
        (at > now).then(|| now = at)
    });
    assert_eq!(ticks.count(), 185);
}

#[test]
fn every_change_is_in_the_digest() {
    let mut seen = std::collections::BTreeSet::new();
    let mut world = World::new(FEW);
    let mut note = |world: &World| assert!(seen.insert(world.digest), "a change moves the digest");
    note(&world);
    let lease = world.grant(SECOND);
    note(&world);
    world.keep(lease).expect("granted");
    note(&world);
    world.now = LogTime(1_500);
    world.keep(lease).expect("granted");
    note(&world);
    world.end(lease).expect("granted");
    note(&world);
    // What differs in one thing only differs in the digest.
    for (id, ttl, now) in [(7, 100, 0), (8, 100, 0), (7, 101, 0), (7, 100, 1), (7, 99_000, 0)] {
        let mut other = World { now: LogTime(now), ..World::new(FEW) };
        other.try_grant(Some(LeaseId(id)), Duration::from_millis(ttl)).expect("there is room");
        note(&other);
    }
}

#[test]
fn the_longest_time_does_not_pass_the_end_of_time() {
    let mut world = World { now: LogTime(u64::MAX - 5), ..World::new(FEW) };
    let lease = world.grant(*LEASE_TTL.end());
    assert_eq!(world.leases.next_end(), Some(LogTime(u64::MAX)));
    assert_eq!(world.keep(lease), Ok(*LEASE_TTL.end()));
    assert_eq!(world.leases.upkeep_at(world.now), Some(LogTime(u64::MAX)));
}

/// Any course of commands against the plainest model of the rules: a map that is searched from end to end.
#[test]
fn any_course_follows_the_model() {
    struct Model {
        ttl: u64,
        ends: u64,
        own: bool,
        keys: Vec<u64>,
    }
    let limits = LeaseLimits { leases: 6, keys: 3, expired_keys_per_entry: 3 };
    let mut random = 0x9E37_79B9_7F4A_7C15_u64;
    let mut dice = |sides: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % sides
    };
    let mut world = World::new(limits);
    let mut model: BTreeMap<u64, Model> = BTreeMap::new();
    for _ in 0..50_000 {
        world.now.0 += dice(40);
        let now = world.now.0;
        let ttl = 100 + dice(900);
        let some = LeaseId(1 + dice(9));
        let name = dice(12);
        let key = key(&format!("{name:02}"));
        let holder = model.iter().find(|(_, lease)| lease.keys.contains(&name)).map(|(&id, _)| id);
        match dice(7) {
            0 => {
                let named = (dice(2) == 0).then_some(some);
                let full = model.len() >= limits.leases;
                let taken = named.is_some_and(|id| model.contains_key(&id.0));
                let granted = world.try_grant(named, Duration::from_millis(ttl));
                assert_eq!(granted.is_err(), full || taken);
                if let Ok(LeaseId(id)) = granted {
                    let former = model.insert(id, Model { ttl, ends: now + ttl, own: false, keys: vec![] });
                    assert!(former.is_none(), "it was free");
                }
            }
            1 if holder.is_none() => {
                match world.leases.own(Duration::from_millis(ttl), world.now, &mut world.digest) {
                    Ok(lease) => {
                        world.leases.attach(lease, &key);
                        let own = Model { ttl, ends: now + ttl, own: true, keys: vec![name] };
                        assert!(model.insert(lease.0, own).is_none(), "it was free");
                    }
                    Err(error) => assert_eq!(error, LeaseError::TooManyLeases { limit: 6 }),
                }
            }
            2 | 3 => {
                let kept = world.keep(some);
                assert_eq!(kept.is_ok(), model.contains_key(&some.0));
                if let Some(lease) = model.get_mut(&some.0) {
                    lease.ends = now + lease.ttl;
                }
            }
            4 if holder.is_none() => {
                let room = world.leases.check_room(some, 1);
                let expected =
                    model.get(&some.0).is_some_and(|lease| !lease.own && lease.keys.len() < limits.keys);
                assert_eq!(room.is_ok(), expected);
                if expected {
                    world.leases.attach(some, &key);
                    model.get_mut(&some.0).expect("just seen").keys.push(name);
                }
            }
            5 => {
                if let Some(holder) = holder {
                    world.leases.detach(LeaseId(holder), &key, &mut world.digest);
                    let lease = model.get_mut(&holder).expect("just seen");
                    lease.keys.retain(|&key| key != name);
                    if lease.own {
                        model.remove(&holder);
                    }
                }
            }
            _ => {
                let mut ended = 0;
                for (LeaseId(lease), keys) in world.expire() {
                    assert!(ended < limits.expired_keys_per_entry, "an entry is bounded");
                    ended += keys.len().max(1);
                    let gone = model.remove(&lease).expect("it was there");
                    assert!(gone.ends <= now, "never early");
                    assert!(model.values().all(|other| other.ends >= gone.ends), "the first goes first");
                    let mut expected = gone.keys;
                    expected.sort_unstable();
                    assert_eq!(
                        names(&keys),
                        expected.iter().map(|key| format!("{key:02}")).collect::<Vec<_>>()
                    );
                }
                let due = model.values().any(|lease| lease.ends <= now);
                assert!(
                    !due || ended >= limits.expired_keys_per_entry,
                    "what is due goes, as far as one entry may"
                );
            }
        }
        world.leases.check();
        assert_eq!(world.leases.len(), model.len());
        assert_eq!(world.leases.next_end(), model.values().map(|lease| LogTime(lease.ends)).min());
        for (&id, lease) in &model {
            let status = world.leases.status(LeaseId(id), world.now).expect("it is there");
            assert_eq!(status.left, Duration::from_millis(lease.ends.saturating_sub(now)));
            assert_eq!(status.keys, lease.keys.len());
        }
    }
}
