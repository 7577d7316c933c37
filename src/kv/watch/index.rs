//! Finds the groups that a key concerns, out of very many, in the time of a few comparisons.
//!
//! Ranges of one key, which most are, lie in a map. The others lie in a sorted list that is read as a balanced binary tree:
//! the root of any part of it is its middle element, which knows the range of its part that reaches furthest, so parts that
//! end before a key are not entered. Such a tree has no pointers and is not changed in place: new ranges go to a short
//! unsorted tail, which is looked through as it is, and are merged in when it has grown.

use super::matcher::GroupId;
use crate::kv::range::KeyRange;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::ops::Range;

/// Ranges that wait unsorted, at least; more if there are many sorted ones, so that merging stays cheap on average.
const TAIL: usize = 32;

/// Which groups watch which keys.
#[derive(Debug, Default)]
pub(super) struct Index {
    keys: BTreeMap<Bytes, Vec<GroupId>>,
    /// Invariant: in the order of ranges, each once; `furthest` is right for every part.
    sorted: Vec<Node>,
    tail: Vec<Node>,
    /// Sorted ranges that nobody watches any more.
    dead: usize,
}

#[derive(Debug)]
struct Node {
    range: KeyRange,
    groups: Vec<GroupId>,
    /// Where in the list the range is that ends last, of the part whose root this is.
    furthest: usize,
}

impl Index {
    pub fn insert(&mut self, range: &KeyRange, group: GroupId) {
        if let Some(key) = range.single() {
            if let Some(groups) = self.keys.get_mut(key) {
                groups.push(group);
            } else {
                self.keys.insert(Bytes::copy_from_slice(key), vec![group]);
            }
        } else if let Ok(at) = self.position(range) {
            let groups = &mut self.sorted[at].groups;
            self.dead -= usize::from(groups.is_empty());
            groups.push(group);
        } else if let Some(node) = self.tail.iter_mut().find(|node| node.range == *range) {
            node.groups.push(group);
        } else {
            self.tail.push(Node { range: range.clone(), groups: vec![group], furthest: 0 });
        }
    }

    pub fn remove(&mut self, range: &KeyRange, group: GroupId) {
        let rest = |groups: &mut Vec<GroupId>| {
            groups.retain(|other| *other != group);
            groups.is_empty()
        };
        if let Some(key) = range.single() {
            if self.keys.get_mut(key).is_some_and(rest) {
                self.keys.remove(key);
            }
        } else if let Ok(at) = self.position(range) {
            // Its place stays until the next merge: its neighbours' places depend on it.
            self.dead += usize::from(rest(&mut self.sorted[at].groups));
        } else if let Some(at) = self.tail.iter().position(|node| node.range == *range)
            && rest(&mut self.tail[at].groups)
        {
            self.tail.swap_remove(at);
        }
    }

    /// Merges what was changed since, if that is worth it. Asked before many keys are looked up.
    pub fn settle(&mut self) {
        let few = TAIL.max(self.sorted.len().isqrt());
        if self.tail.len() <= few && self.dead <= few.max(self.sorted.len() / 2) {
            return;
        }
        self.sorted.retain(|node| !node.groups.is_empty());
        self.dead = 0;
        self.tail.sort_unstable_by(|a, b| a.range.cmp(&b.range));
        self.sorted.append(&mut self.tail);
        // Two sorted runs: a merge.
        self.sorted.sort_by(|a, b| a.range.cmp(&b.range));
        let whole = 0..self.sorted.len();
        self.measure(whole);
    }

    /// Appends the groups that watch `key`, in no order.
    pub fn find(&self, key: &[u8], found: &mut Vec<GroupId>) {
        found.extend(self.keys.get(key).into_iter().flatten());
        self.stab(0..self.sorted.len(), key, found);
        let unsorted = self.tail.iter().filter(|node| node.range.contains(key));
        found.extend(unsorted.flat_map(|node| &node.groups));
    }

    fn position(&self, range: &KeyRange) -> Result<usize, usize> {
        self.sorted.binary_search_by(|node| node.range.cmp(range))
    }

    /// Writes down for each part which range ends last, and returns it for `part`.
    fn measure(&mut self, part: Range<usize>) -> Option<usize> {
        let root = root(&part)?;
        let halves = [self.measure(part.start..root), self.measure(root + 1..part.end)];
        let furthest = halves
            .into_iter()
            .flatten()
            .fold(root, |a, b| if ends_after(&self.sorted[b].range, &self.sorted[a].range) { b } else { a });
        self.sorted[root].furthest = furthest;
        Some(furthest)
    }

    fn stab(&self, part: Range<usize>, key: &[u8], found: &mut Vec<GroupId>) {
        let Some(root) = root(&part) else { return };
        let node = &self.sorted[root];
        if !reaches(&self.sorted[node.furthest].range, key) {
            return;
        }
        self.stab(part.start..root, key, found);
        if node.range.start() <= key {
            if reaches(&node.range, key) {
                found.extend(&node.groups);
            }
            self.stab(root + 1..part.end, key, found);
        }
    }
}

fn root(part: &Range<usize>) -> Option<usize> {
    (!part.is_empty()).then(|| part.start + part.len() / 2)
}

/// Whether `key` is before the range's end.
fn reaches(range: &KeyRange, key: &[u8]) -> bool {
    range.end().is_none_or(|end| key < end)
}

fn ends_after(one: &KeyRange, other: &KeyRange) -> bool {
    other.end().is_some_and(|other| one.end().is_none_or(|one| one > other))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ranges() -> impl Strategy<Value = KeyRange> {
        let key = || prop::collection::vec(0_u8..4, 1..4);
        prop_oneof![
            key().prop_map(KeyRange::key),
            key().prop_map(KeyRange::prefix),
            key().prop_map(KeyRange::starting_at),
            (key(), key()).prop_filter_map("empty", |(a, b)| KeyRange::between(a, b).ok()),
            Just(KeyRange::all()),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

        /// Against looking at every range.
        #[test]
        fn a_key_finds_the_groups_that_watch_it(
            steps in prop::collection::vec((ranges(), 0_usize..3, any::<bool>()), 1..400),
            keys in prop::collection::vec(prop::collection::vec(0_u8..5, 0..4), 1..20),
        ) {
            let (mut index, mut plain) = (Index::default(), Vec::<(KeyRange, GroupId)>::new());
            for (n, (range, action, settle)) in steps.into_iter().enumerate() {
                if action == 0 && !plain.is_empty() {
                    let (range, group) = plain.swap_remove(n % plain.len());
                    index.remove(&range, group);
                } else {
                    let group = GroupId::new(n);
                    index.insert(&range, group);
                    plain.push((range, group));
                }
                if settle {
                    index.settle();
                }
                let key = &keys[n % keys.len()];
                let mut found = Vec::new();
                index.find(key, &mut found);
                let mut expected: Vec<_> =
                    plain.iter().filter(|(range, _)| range.contains(key)).map(|(_, group)| *group).collect();
                found.sort_unstable();
                expected.sort_unstable();
                prop_assert_eq!(found, expected);
            }
        }
    }

    /// Ranges that come and go for ever do not fill it.
    #[test]
    fn what_was_removed_leaves_nothing() {
        let mut index = Index::default();
        for n in 0..10_000_u32 {
            let range = KeyRange::prefix(n.to_le_bytes());
            index.insert(&range, GroupId::new(0));
            index.settle();
            index.remove(&range, GroupId::new(0));
        }
        assert!(index.sorted.len() + index.tail.len() <= 2 * TAIL, "{}", index.sorted.len());
    }
}
