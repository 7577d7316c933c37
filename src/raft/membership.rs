//! Who takes part, as a value that lives in the log.
//!
//! A membership entry holds the whole membership and is in force from the moment it is appended (thesis 4.1). The
//! first entry of every log is one, the same bytes on every founding member. Joint configurations (thesis 4.3) are
//! part of the type and of the arithmetic (`quorum`); changing a membership at run time is not here yet.

use std::collections::BTreeSet;
use thiserror::Error;
use wal::NodeId;

/// The most voters either half of a configuration may have. Past seven or so, more voters only cost.
pub const MAX_VOTERS: usize = 31;
/// The most learners.
pub const MAX_LEARNERS: usize = 255;

/// A configuration, possibly joint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Membership {
    voters: BTreeSet<NodeId>,
    /// The voters of C_old while a change is under way; empty otherwise.
    outgoing: BTreeSet<NodeId>,
    learners: BTreeSet<NodeId>,
}

/// Why a membership is not one.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum MembershipError {
    /// Without voters nothing can ever be decided.
    #[error("a membership needs at least one voter")]
    NoVoters,
    /// Node id 0 is reserved.
    #[error("node id 0 is not valid; ids start at 1")]
    ZeroId,
    /// More than the limit.
    #[error("{count} {role} are too many; the limit is {limit}")]
    TooMany {
        /// Which list.
        role: &'static str,
        /// How many there are.
        count: usize,
        /// How many there may be.
        limit: usize,
    },
    /// A node in two roles.
    #[error("node {0} is both voter and learner")]
    TwoRoles(NodeId),
    /// Bytes that no encoder made.
    #[error("membership entry is malformed: {0}")]
    Malformed(&'static str),
}

const ENCODING: u8 = 1;

impl Membership {
    /// A plain configuration of voters.
    ///
    /// # Errors
    /// [`MembershipError`] if there are none, too many, or one has id 0.
    pub fn of_voters(voters: impl IntoIterator<Item = NodeId>) -> Result<Self, MembershipError> {
        Self::new(voters.into_iter().collect(), BTreeSet::new(), BTreeSet::new())
    }

    /// Any configuration: `outgoing` is C_old of a joint one, empty for a plain one.
    ///
    /// # Errors
    /// [`MembershipError`] says which rule is broken.
    pub fn new(
        voters: BTreeSet<NodeId>,
        outgoing: BTreeSet<NodeId>,
        learners: BTreeSet<NodeId>,
    ) -> Result<Self, MembershipError> {
        if voters.is_empty() {
            return Err(MembershipError::NoVoters);
        }
        for (role, set, limit) in [
            ("voters", &voters, MAX_VOTERS),
            ("outgoing voters", &outgoing, MAX_VOTERS),
            ("learners", &learners, MAX_LEARNERS),
        ] {
            if set.len() > limit {
                return Err(MembershipError::TooMany { role, count: set.len(), limit });
            }
            if set.contains(&NodeId::ZERO) {
                return Err(MembershipError::ZeroId);
            }
        }
        if let Some(&both) = learners.iter().find(|id| voters.contains(id) || outgoing.contains(id)) {
            return Err(MembershipError::TwoRoles(both));
        }
        Ok(Self { voters, outgoing, learners })
    }

    /// The voters (C_new of a joint configuration).
    #[must_use]
    pub fn voters(&self) -> &BTreeSet<NodeId> {
        &self.voters
    }

    /// The voters of C_old while the configuration is joint.
    #[must_use]
    pub fn outgoing(&self) -> &BTreeSet<NodeId> {
        &self.outgoing
    }

    /// Those that receive the log and have no vote.
    #[must_use]
    pub fn learners(&self) -> &BTreeSet<NodeId> {
        &self.learners
    }

    /// Whether `node` has a vote in either half.
    #[must_use]
    pub fn is_voter(&self, node: NodeId) -> bool {
        self.voters.contains(&node) || self.outgoing.contains(&node)
    }

    /// Whether `node` is the only voter: nobody else needs to be asked.
    #[must_use]
    pub fn is_sole_voter(&self, node: NodeId) -> bool {
        self.outgoing.is_empty() && self.voters.len() == 1 && self.voters.contains(&node)
    }

    /// Everyone who receives the log, each once, in order of id.
    #[must_use]
    pub fn members(&self) -> BTreeSet<NodeId> {
        self.voters.iter().chain(&self.outgoing).chain(&self.learners).copied().collect()
    }

    /// The bytes of a membership entry. Equal memberships have equal bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![ENCODING];
        for set in [&self.voters, &self.outgoing, &self.learners] {
            let count = u16::try_from(set.len()).expect("bounded by the constructor");
            out.extend_from_slice(&count.to_le_bytes());
            for id in set {
                out.extend_from_slice(&id.0.to_le_bytes());
            }
        }
        out
    }

    /// Reads what [`encode`](Self::encode) wrote.
    ///
    /// # Errors
    /// [`MembershipError`] for anything else.
    pub fn decode(bytes: &[u8]) -> Result<Self, MembershipError> {
        let malformed = MembershipError::Malformed;
        let (&version, mut rest) = bytes.split_first().ok_or(malformed("it is empty"))?;
        if version != ENCODING {
            return Err(malformed("unknown encoding"));
        }
        let mut sets: [BTreeSet<NodeId>; 3] = Default::default();
        for set in &mut sets {
            let (count, tail) = rest.split_first_chunk::<2>().ok_or(malformed("it ends early"))?;
            rest = tail;
            for _ in 0..u16::from_le_bytes(*count) {
                let (id, tail) = rest.split_first_chunk::<8>().ok_or(malformed("it ends early"))?;
                rest = tail;
                let id = NodeId(u64::from_le_bytes(*id));
                if set.last().is_some_and(|&last| last >= id) {
                    return Err(malformed("ids are not in ascending order"));
                }
                set.insert(id);
            }
        }
        if !rest.is_empty() {
            return Err(malformed("bytes follow its end"));
        }
        let [voters, outgoing, learners] = sets;
        Self::new(voters, outgoing, learners)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(ids: &[u64]) -> BTreeSet<NodeId> {
        ids.iter().copied().map(NodeId).collect()
    }

    #[test]
    fn a_membership_survives_its_encoding_and_no_truncation_does() {
        let membership = Membership::new(ids(&[1, 2, 3]), ids(&[1, 4]), ids(&[9])).expect("valid");
        let bytes = membership.encode();
        assert_eq!(Membership::decode(&bytes), Ok(membership));
        for length in 0..bytes.len() {
            assert!(Membership::decode(&bytes[..length]).is_err(), "length {length}");
        }
        let longer = [bytes.as_slice(), &[0]].concat();
        assert!(Membership::decode(&longer).is_err());
    }

    #[test]
    fn impossible_memberships_are_refused() {
        assert_eq!(Membership::of_voters([]), Err(MembershipError::NoVoters));
        assert_eq!(Membership::of_voters([NodeId(0)]), Err(MembershipError::ZeroId));
        assert!(Membership::of_voters((1..=32).map(NodeId)).is_err());
        assert_eq!(
            Membership::new(ids(&[1]), ids(&[]), ids(&[1])),
            Err(MembershipError::TwoRoles(NodeId(1)))
        );
    }

    #[test]
    fn as_many_as_the_limits_allow_and_no_more() {
        let many = |count: usize| (1_000..).take(count).map(NodeId).collect::<BTreeSet<_>>();
        for (voters, outgoing, learners, valid) in [
            (MAX_VOTERS, 0, 0, true),
            (MAX_VOTERS + 1, 0, 0, false),
            (1, MAX_VOTERS, 0, true),
            (1, MAX_VOTERS + 1, 0, false),
            (0, 0, MAX_LEARNERS, true),
            (0, 0, MAX_LEARNERS + 1, false),
        ] {
            let others = if voters == 0 { ids(&[1]) } else { many(voters) };
            let membership = Membership::new(others, many(outgoing), many(learners));
            assert_eq!(
                membership.is_ok(),
                valid,
                "{voters} voters, {outgoing} outgoing, {learners} learners"
            );
        }
    }

    #[test]
    fn ids_that_do_not_ascend_are_no_membership() {
        let bytes = Membership::of_voters([1, 2].map(NodeId)).expect("valid").encode();
        let (first, second) = (3, 11);
        for (one, other) in [(2_u64, 2_u64), (3, 2)] {
            let mut bytes = bytes.clone();
            bytes[first..][..8].copy_from_slice(&one.to_le_bytes());
            bytes[second..][..8].copy_from_slice(&other.to_le_bytes());
            let refused = Err(MembershipError::Malformed("ids are not in ascending order"));
            assert_eq!(Membership::decode(&bytes), refused, "{one} before {other}");
        }
    }
}
