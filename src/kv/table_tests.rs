//! The table against a map, whatever is guessed.

use super::entry::{Entry, Revision};
use super::history::Position;
use super::key::Key;
use super::table::{Place, Table};
use bytes::Bytes;
use proptest::prelude::*;
use std::collections::BTreeMap;

fn entry(number: u64) -> Entry {
    Entry::new((Bytes::new(), 0), (Revision(number), 1), Revision(number), 0, Position::NONE)
}

fn put(table: &mut Table, key: &[u8], number: u64) -> Option<u64> {
    match table.place(key) {
        Place::Taken(room) => {
            assert_eq!(room.key().as_slice(), key);
            Some(std::mem::replace(&mut room.entry, entry(number)).modify_revision.0)
        }
        Place::Vacant(place) => {
            place.fill(Key::from(key), entry(number));
            None
        }
    }
}

fn found(table: &Table, key: &[u8]) -> Option<u64> {
    table.find(key).map(|(found, entry)| {
        assert_eq!(found.as_slice(), key);
        entry.modify_revision.0
    })
}

/// Short keys and long ones, few enough to meet again.
fn key(number: u16) -> Vec<u8> {
    let mut key = number.to_le_bytes().to_vec();
    key.resize(if number.is_multiple_of(7) { 40 } else { 2 + usize::from(number % 5) * 5 }, 0);
    key
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]
    /// Grows over several sizes of the guesses and shrinks again.
    #[test]
    fn a_table_is_a_map(
        steps in prop::collection::vec((any::<u16>(), 0..3_u8), 1..3000),
        span in prop::sample::select(vec![8_u16, 300, 4000]),
    ) {
        let (mut table, mut map) = (Table::new(), BTreeMap::new());
        let mut numbers = 0..;
        for phase in 0..3 {
            for &(number, way) in &steps {
                let (key, now) = (key(number % span), numbers.next().expect("endless"));
                // The last phase is mostly removals.
                if way == 0 || phase == 2 && way == 1 {
                    let removed = table.take(&key).map(|room| room.into_parts().1.modify_revision.0);
                    prop_assert_eq!(removed, map.remove(&key));
                } else {
                    prop_assert_eq!(put(&mut table, &key, now), map.insert(key, now));
                }
            }
            table.check();
            prop_assert_eq!(table.len(), map.len());
            prop_assert!((0..span).all(|number| found(&table, &key(number)) == map.get(&key(number)).copied()));
            let listed = table.iter().map(|(key, entry)| (key.as_slice().to_vec(), entry.modify_revision.0));
            prop_assert!(listed.eq(map.iter().map(|(key, &number)| (key.clone(), number))));
        }
        for key in map.keys() {
            prop_assert!(table.take(key).is_some());
        }
        table.check();
        prop_assert!(table.is_empty());
    }
}

#[test]
fn what_was_removed_gives_its_memory_back() {
    let mut table = Table::new();
    let empty = table.memory();
    let mut full = 0;
    for round in 0..3 {
        for number in 0..10_000 {
            assert_eq!(put(&mut table, &key(number), 1), None, "round {round}");
        }
        if round == 0 {
            full = table.memory();
        }
        assert_eq!(table.memory(), full, "and takes no more the next time");
        for number in 0..10_000 {
            assert!(table.take(&key(number)).is_some());
        }
        assert!(table.memory() <= empty + 100, "{} of {full} rooms and lines are left", table.memory());
    }
}
