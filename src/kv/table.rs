//! The keys that are there, each with its entry: in order for whoever walks, by a guess for whoever knows the key.
//!
//! Entries lie in rooms, numbered without gaps; a tree knows each key's room. To find one key a search through the tree
//! passes a node, and a mistaken branch or a miss of a cache, for every few bits of it; so a small table of *guesses*, by a
//! hash of the key, is asked first. A room names its key: a guess that is missing, old or another key's costs the search
//! and nothing else. Nothing has to keep the guesses right, and keys that are chosen to collide find what they would have found
//! without them.
//!
//! Promises: what is found does not depend on the guesses. An entry stays where it is until a key is removed; then the last
//! one may move.

use super::entry::Entry;
use super::key::Key;
use std::collections::{BTreeMap, btree_map};
use std::ops::RangeBounds;
use xxhash_rust::xxh3::xxh3_64 as hash;

/// Where an entry lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RoomNumber(u32);

/// A key and what is stored under it.
#[derive(Clone, Debug)]
pub(super) struct Room {
    key: Key,
    pub entry: Entry,
}

impl Room {
    pub fn key(&self) -> &Key {
        &self.key
    }

    pub fn into_parts(self) -> (Key, Entry) {
        (self.key, self.entry)
    }
}

/// All keys with their entries.
#[derive(Clone, Debug)]
pub(super) struct Table {
    /// Invariant: one for each room, under the key that the room names.
    tree: BTreeMap<Key, RoomNumber>,
    rooms: Rooms,
    guesses: Guesses,
}

impl Table {
    pub fn new() -> Self {
        Self { tree: BTreeMap::new(), rooms: Rooms(Vec::new()), guesses: Guesses::new() }
    }

    pub fn len(&self) -> usize {
        self.tree.len()
    }

    pub fn is_empty(&self) -> bool {
        self.tree.is_empty()
    }

    /// What is stored under `key`.
    pub fn find(&self, key: &[u8]) -> Option<(&Key, &Entry)> {
        let room = self.rooms.at(self.guess(key, hash(key)).or_else(|| self.search(key))?);
        Some((&room.key, &room.entry))
    }

    /// The same, to be changed.
    pub fn get_mut(&mut self, key: &[u8]) -> Option<&mut Entry> {
        let number = self.guess(key, hash(key)).or_else(|| self.search(key))?;
        Some(&mut self.rooms.at_mut(number).entry)
    }

    /// The room of a key by its hash, if that is remembered.
    #[inline]
    fn guess(&self, key: &[u8], hash: u64) -> Option<RoomNumber> {
        let number = self.guesses.guess(hash)?;
        // Of two slices: nothing is written that would be read again, and wait for the writes before it.
        self.rooms.get(number).filter(|room| room.key.as_slice() == key).map(|_| number)
    }

    fn search(&self, key: &[u8]) -> Option<RoomNumber> {
        match Key::short(key) {
            Some(key) => self.tree.get(&key).copied(),
            None => self.tree.get(key).copied(),
        }
    }

    /// Where an entry under `key` belongs.
    #[inline]
    pub fn place(&mut self, key: &[u8]) -> Place<'_> {
        let hash = hash(key);
        let number = match self.guess(key, hash) {
            Some(number) => number,
            None => match self.search(key) {
                Some(number) => {
                    self.guesses.note(hash, number, &self.rooms);
                    number
                }
                None => return Place::Vacant(Vacant { table: self, hash }),
            },
        };
        Place::Taken(self.rooms.at_mut(number))
    }

    fn add(&mut self, key: Key, hash: u64, entry: Entry) {
        let number = self.rooms.push(Room { key: key.clone(), entry });
        let former = self.tree.insert(key, number);
        assert_eq!(former, None, "it was searched for");
        self.guesses.fit(self.tree.len());
        self.guesses.note(hash, number, &self.rooms);
    }

    /// Removes what is stored under `key`.
    pub fn take(&mut self, key: &[u8]) -> Option<Room> {
        let number = match Key::short(key) {
            Some(key) => self.tree.remove(&key)?,
            None => self.tree.remove(key)?,
        };
        let room = self.rooms.take(number);
        assert_eq!(room.key.as_slice(), key, "a room is known by its key");
        if let Some(moved) = self.rooms.get(number) {
            *self.tree.get_mut(&moved.key).expect("every room's key is in the tree") = number;
            self.guesses.note(hash(moved.key.as_slice()), number, &self.rooms);
        }
        self.guesses.fit(self.tree.len());
        Some(room)
    }

    /// The keys in a range, in order, each with its room.
    pub fn range<R: RangeBounds<[u8]>>(&self, range: R) -> btree_map::Range<'_, Key, RoomNumber> {
        self.tree.range::<[u8], _>(range)
    }

    /// The entry in a room.
    pub fn entry(&self, number: RoomNumber) -> &Entry {
        &self.rooms.at(number).entry
    }

    /// All of them, in order.
    #[cfg(test)]
    pub fn iter(&self) -> impl Iterator<Item = (&Key, &Entry)> {
        self.tree.iter().map(|(key, &number)| (key, self.entry(number)))
    }

    /// Rooms and lines that there is memory for, without the blocks that are begun.
    #[cfg(test)]
    pub fn memory(&self) -> usize {
        self.rooms.0.len() * Rooms::BLOCK + self.guesses.lines.capacity()
    }

    /// Checks what is true between two changes.
    #[cfg(test)]
    pub fn check(&self) {
        assert_eq!(self.tree.len(), self.rooms.len());
        for (key, &number) in &self.tree {
            assert_eq!(&self.rooms.at(number).key, key);
            assert_eq!(self.guess(key.as_slice(), hash(key.as_slice())).unwrap_or(number), number);
            assert!(std::ptr::eq(self.find(key.as_slice()).expect("it is there").1, self.entry(number)));
        }
    }
}

/// Where an entry belongs.
pub(super) enum Place<'a> {
    /// The key is there.
    Taken(&'a mut Room),
    /// It is not.
    Vacant(Vacant<'a>),
}

/// The place of a key that is not there.
pub(super) struct Vacant<'a> {
    table: &'a mut Table,
    hash: u64,
}

impl Vacant<'_> {
    /// Stores an entry under the key that was looked for.
    pub fn fill(self, key: Key, entry: Entry) {
        self.table.add(key, self.hash, entry);
    }
}

/// The rooms, in blocks: none moves when there are more, and what is let go of is given back.
#[derive(Clone, Debug)]
struct Rooms(Vec<Vec<Room>>);

impl Rooms {
    const BLOCK: usize = 1 << 8;

    /// Block and place in it.
    fn split(RoomNumber(number): RoomNumber) -> (usize, usize) {
        (number as usize / Self::BLOCK, number as usize % Self::BLOCK)
    }

    fn len(&self) -> usize {
        self.0.last().map_or(0, |last| (self.0.len() - 1) * Self::BLOCK + last.len())
    }

    #[inline]
    fn get(&self, number: RoomNumber) -> Option<&Room> {
        let (block, place) = Self::split(number);
        self.0.get(block)?.get(place)
    }

    fn at(&self, number: RoomNumber) -> &Room {
        let (block, place) = Self::split(number);
        &self.0[block][place]
    }

    fn at_mut(&mut self, number: RoomNumber) -> &mut Room {
        let (block, place) = Self::split(number);
        &mut self.0[block][place]
    }

    fn push(&mut self, room: Room) -> RoomNumber {
        let number = RoomNumber(u32::try_from(self.len()).expect("so many keys are in no memory"));
        let (block, _) = Self::split(number);
        if block == self.0.len() {
            // The first grows by need: many a store has a handful of keys.
            self.0.push(Vec::with_capacity(if block == 0 { 0 } else { Self::BLOCK }));
        }
        self.0[block].push(room);
        number
    }

    /// Takes a room out. The last one moves to its place.
    fn take(&mut self, number: RoomNumber) -> Room {
        let last = self.0.last_mut().expect("there is a room to take");
        let moved = last.pop().expect("no block is empty");
        if last.is_empty() {
            self.0.pop();
        }
        match self.0.get_mut(Self::split(number).0).and_then(|block| block.get_mut(Self::split(number).1)) {
            Some(room) => std::mem::replace(room, moved),
            None => moved,
        }
    }
}

/// Rooms by a hash of their keys, as far as is remembered.
#[derive(Clone, Debug)]
struct Guesses {
    /// A power of two of them, found by the hash's low bits.
    lines: Vec<Line>,
}

/// The guesses for keys whose hashes have the same low bits.
#[derive(Clone, Copy, Debug)]
struct Line {
    /// Sixteen high bits of each way's hash.
    tags: u128,
    rooms: [RoomNumber; WAYS],
}

const WAYS: usize = 8;
/// Keys for which there is a line, at most: one in two hundred then finds it full.
const KEYS_PER_LINE: usize = 3;
const FEWEST: usize = 1 << 4;
/// 12 MiB. To copy them holds up the loop for a millisecond or two; of more keys than they have ways, the others are searched for.
const MOST: usize = 1 << 18;

impl Line {
    /// No room has this number.
    const EMPTY: Self = Self { tags: 0, rooms: [RoomNumber(u32::MAX); WAYS] };
    /// A one in each tag.
    const ONES: u128 = u128::MAX / 0xffff;

    /// The way with this tag. All are compared at once: which it is cannot be foretold.
    #[inline]
    fn way(&self, tag: u16) -> Option<usize> {
        // Of the tags that differ from it by nothing, the lowest borrows, and none below it does.
        let differ = self.tags ^ (Self::ONES * u128::from(tag));
        let equal = differ.wrapping_sub(Self::ONES) & !differ & (Self::ONES << 15);
        (equal != 0).then(|| equal.trailing_zeros() as usize / 16 % WAYS)
    }

    fn tag(&self, way: usize) -> u16 {
        let bytes = self.tags.to_le_bytes();
        u16::from_le_bytes([bytes[2 * way], bytes[2 * way + 1]])
    }

    fn set(&mut self, way: usize, tag: u16, room: RoomNumber) {
        let mut bytes = self.tags.to_le_bytes();
        bytes[2 * way..][..2].copy_from_slice(&tag.to_le_bytes());
        self.tags = u128::from_le_bytes(bytes);
        self.rooms[way] = room;
    }
}

impl Guesses {
    fn new() -> Self {
        Self { lines: vec![Line::EMPTY; FEWEST] }
    }

    fn split(&self, hash: u64) -> (usize, u16) {
        let [.., low, high] = hash.to_le_bytes();
        let mask = self.lines.len() as u64 - 1;
        (usize::try_from(hash & mask).expect("a place in memory"), u16::from_le_bytes([low, high]))
    }

    #[inline]
    fn guess(&self, hash: u64) -> Option<RoomNumber> {
        let (line, tag) = self.split(hash);
        let line = &self.lines[line];
        line.way(tag).map(|way| line.rooms[way])
    }

    /// A key with this hash is in that room.
    fn note(&mut self, hash: u64, room: RoomNumber, rooms: &Rooms) {
        let (at, tag) = self.split(hash);
        let line = &self.lines[at];
        let useless = |&way: &usize| {
            let key = rooms.get(line.rooms[way]).map(|room| room.key.as_slice());
            key.is_none_or(|key| self.split(self::hash(key)) != (at, line.tag(way)))
        };
        // Where all are right, none is given up: of keys that take turns, some are then found.
        if let Some(way) = line.way(tag).or_else(|| (0..WAYS).find(useless)) {
            self.lines[at].set(way, tag, room);
        }
    }

    /// As many lines as fit so many keys.
    fn fit(&mut self, keys: usize) {
        let lines = self.lines.len();
        if keys > lines * KEYS_PER_LINE && lines < MOST {
            // Either half of them has what was known; what does not belong there is useless.
            self.lines.extend_from_within(..);
        } else if keys < lines && lines > FEWEST {
            self.lines.truncate(lines / 2);
            self.lines.shrink_to_fit();
        }
    }
}
