//! The store as anybody would write it who has memory to waste: every version of every key, every answer of every
//! session, for ever. It reads commands by their documented format and shares no code with `kv`.

use super::fast::FastMap;
use wal::Frame;

/// A key's content since a revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Version {
    pub(super) revision: u64,
    pub(super) value: Option<u64>,
    pub(super) created: u64,
    pub(super) count: u64,
}

/// What the store says to a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    Put {
        revision: u64,
    },
    Deleted {
        revision: u64,
        present: bool,
    },
    Swapped {
        revision: u64,
    },
    NotSwapped {
        revision: u64,
        current: Option<Version>,
    },
    /// About sessions, or refused.
    Other,
}

impl Told {
    /// The revision and whether the command took it for itself.
    pub(super) fn place(&self) -> Option<(u64, bool)> {
        match *self {
            Self::Put { revision } | Self::Swapped { revision } => Some((revision, true)),
            Self::Deleted { revision, present } => Some((revision, present)),
            Self::NotSwapped { revision, .. } => Some((revision, false)),
            Self::Other => None,
        }
    }
}

/// What a command of the ledger came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Done {
    /// Session and number, for a command in one.
    pub(super) session: Option<(u64, u64)>,
    /// The value it would write.
    pub(super) value: Option<u64>,
    pub(super) told: Told,
    pub(super) how: How,
}

/// Why a command came to that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    Applied,
    Repeated,
    SessionGone,
    Refused,
}

#[derive(Clone, Copy, Debug)]
enum Expected {
    Absent,
    Value(u64),
    Revision(u64),
}

#[derive(Clone, Copy, Debug)]
enum Change {
    Put { key: u64, value: u64 },
    Delete { key: u64 },
    Swap { key: u64, expected: Expected, value: u64 },
}

impl Change {
    fn value(self) -> Option<u64> {
        match self {
            Self::Put { value, .. } | Self::Swap { value, .. } => Some(value),
            Self::Delete { .. } => None,
        }
    }
}

#[derive(Debug, Default)]
struct Session {
    timeout: u64,
    expires: u64,
    acknowledged_below: u64,
    /// Number, the command's bytes, what it was told.
    answers: Vec<(u64, Box<[u8]>, Told)>,
}

/// The model.
#[derive(Debug)]
pub(super) struct Model {
    revision: u64,
    now: u64,
    keys: FastMap<u64, Vec<Version>>,
    /// At r - 2 the key that revision r changed.
    changed: Vec<u64>,
    sessions: Vec<Option<Session>>,
}

impl Default for Model {
    fn default() -> Self {
        Self { revision: 1, now: 0, keys: FastMap::default(), changed: Vec::new(), sessions: Vec::new() }
    }
}

/// A key or value as a number: its first eight bytes.
pub(super) fn number(bytes: &[u8]) -> u64 {
    let mut word = [0; 8];
    let length = bytes.len().min(8);
    word[..length].copy_from_slice(&bytes[..length]);
    u64::from_le_bytes(word)
}

/// What is left of a command.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn u8(&mut self) -> Option<u8> {
        let (&first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(first)
    }

    fn u64(&mut self) -> Option<u64> {
        let (first, rest) = self.0.split_first_chunk::<8>()?;
        self.0 = rest;
        Some(u64::from_le_bytes(*first))
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let (length, rest) = self.0.split_first_chunk::<4>()?;
        let (bytes, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        self.0 = rest;
        Some(bytes)
    }

    fn change(&mut self, tag: u8) -> Option<Change> {
        let change = match tag {
            1 => Change::Put { key: number(self.bytes()?), value: number(self.bytes()?) },
            2 => Change::Delete { key: number(self.bytes()?) },
            3 => {
                let key = number(self.bytes()?);
                let expected = match self.u8()? {
                    0 => Expected::Absent,
                    1 => Expected::Value(number(self.bytes()?)),
                    2 => Expected::Revision(self.u64()?),
                    _ => return None,
                };
                Change::Swap { key, expected, value: number(self.bytes()?) }
            }
            _ => return None,
        };
        self.0.is_empty().then_some(change)
    }

    fn tag(&mut self) -> Option<u8> {
        (self.u8()? == 1).then(|| self.u8())?
    }
}

impl Model {
    pub(super) fn revision(&self) -> u64 {
        self.revision
    }

    /// What `key` held at `revision`.
    pub(super) fn at(&self, key: u64, revision: u64) -> Option<u64> {
        let versions = self.keys.get(&key)?;
        let after = versions.partition_point(|version| version.revision <= revision);
        versions[after.checked_sub(1)?].value
    }

    /// The key that `revision` changed.
    pub(super) fn changed(&self, revision: u64) -> Option<u64> {
        self.changed.get(usize::try_from(revision.checked_sub(2)?).ok()?).copied()
    }

    /// Applies an entry's commands.
    pub(super) fn apply(&mut self, entry: &Frame, mut done: impl FnMut(Done)) {
        if entry.kind() == wal::Kind::Commands {
            self.now = self.now.max(entry.timestamp_ms());
            for command in entry.commands() {
                done(self.command(command).unwrap_or(Done {
                    session: None,
                    value: None,
                    told: Told::Other,
                    how: How::Refused,
                }));
            }
        }
    }

    fn command(&mut self, command: &[u8]) -> Option<Done> {
        let mut rest = Rest(command);
        let plain = |told| Done { session: None, value: None, told, how: How::Applied };
        match rest.tag()? {
            4 => {
                let timeout = rest.u64()?;
                let expires = self.now + timeout;
                self.sessions.push(Some(Session { timeout, expires, ..Session::default() }));
                Some(plain(Told::Other))
            }
            5 => {
                let session = self.session(rest.u64()?);
                if let Some(session) = session {
                    self.sessions[session] = None;
                }
                Some(plain(Told::Other))
            }
            6 => {
                let stamp = [rest.u64()?, rest.u64()?, rest.u64()?];
                Some(self.once(stamp, rest.0))
            }
            tag => {
                let change = rest.change(tag)?;
                Some(Done { value: change.value(), ..plain(self.change(change)) })
            }
        }
    }

    /// Where an open session is.
    fn session(&self, id: u64) -> Option<usize> {
        let at = usize::try_from(id.checked_sub(1)?).ok()?;
        let open = self.sessions.get(at)?.as_ref().is_some_and(|session| self.now < session.expires);
        open.then_some(at)
    }

    fn once(&mut self, [id, sequence, first_unanswered]: [u64; 3], bytes: &[u8]) -> Done {
        let mut rest = Rest(bytes);
        let change = rest.tag().and_then(|tag| rest.change(tag));
        let refused = Done {
            session: Some((id, sequence)),
            value: change.and_then(Change::value),
            told: Told::Other,
            how: How::SessionGone,
        };
        let Some(change) = change else { return Done { how: How::Refused, ..refused } };
        let Some(at) = self.session(id) else { return refused };
        let now = self.now;
        let session = self.sessions[at].as_mut().expect("it is open");
        session.expires = now + session.timeout;
        session.acknowledged_below = session.acknowledged_below.max(first_unanswered);
        let below = session.acknowledged_below;
        if sequence < below {
            return Done { how: How::Refused, ..refused };
        }
        if let Some((_, former, told)) = session.answers.iter().find(|(number, ..)| *number == sequence) {
            let (told, how) =
                if **former == *bytes { (*told, How::Repeated) } else { (Told::Other, How::Refused) };
            return Done { told, how, ..refused };
        }
        session.answers.retain(|(number, ..)| *number >= below);
        let told = self.change(change);
        let session = self.sessions[at].as_mut().expect("it is open");
        session.answers.push((sequence, bytes.into(), told));
        Done { told, how: How::Applied, ..refused }
    }

    fn change(&mut self, change: Change) -> Told {
        let key = match change {
            Change::Put { key, .. } | Change::Delete { key } | Change::Swap { key, .. } => key,
        };
        let revision = self.revision;
        let versions = self.keys.entry(key).or_default();
        let current = versions.last().copied().filter(|version| version.value.is_some());
        let (value, told) = match change {
            Change::Put { value, .. } => (Some(value), Told::Put { revision: revision + 1 }),
            Change::Delete { .. } if current.is_none() => return Told::Deleted { revision, present: false },
            Change::Delete { .. } => (None, Told::Deleted { revision: revision + 1, present: true }),
            Change::Swap { expected, value, .. } => {
                let holds = match (expected, current) {
                    (Expected::Absent, None) => true,
                    (Expected::Value(expected), Some(version)) => version.value == Some(expected),
                    (Expected::Revision(expected), Some(version)) => version.revision == expected,
                    _ => false,
                };
                if !holds {
                    return Told::NotSwapped { revision, current };
                }
                (Some(value), Told::Swapped { revision: revision + 1 })
            }
        };
        self.revision += 1;
        self.changed.push(key);
        let (created, count) =
            current.map_or((self.revision, 1), |version| (version.created, version.count + 1));
        versions.push(Version { revision: self.revision, value, created, count });
        told
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::kv::{self, ExpectedRef};
    use bytes::BytesMut;
    use wal::{FrameBuilder, FrameHead, GroupId, Term};

    pub(in super::super) fn put(key: u64, value: u64) -> Vec<u8> {
        let mut out = BytesMut::new();
        kv::encode_put(&key.to_le_bytes(), &value.to_le_bytes(), &mut out).expect("small");
        out.to_vec()
    }

    fn swap(key: u64, expected: Option<u64>, value: u64) -> Vec<u8> {
        let mut out = BytesMut::new();
        let bytes = expected.map(u64::to_le_bytes);
        let expected = bytes.as_ref().map_or(ExpectedRef::Absent, |bytes| ExpectedRef::Value(bytes));
        kv::encode_compare_and_swap(&key.to_le_bytes(), expected, &value.to_le_bytes(), &mut out)
            .expect("small");
        out.to_vec()
    }

    fn delete(key: u64) -> Vec<u8> {
        let mut out = BytesMut::new();
        kv::encode_delete(&key.to_le_bytes(), &mut out).expect("small");
        out.to_vec()
    }

    pub(in super::super) fn open(timeout: u64) -> Vec<u8> {
        [&[1, 4][..], &timeout.to_le_bytes()].concat()
    }

    pub(in super::super) fn once(session: u64, sequence: u64, command: &[u8]) -> Vec<u8> {
        let numbers = [session, sequence, sequence].map(u64::to_le_bytes).concat();
        [&[1, 6][..], &numbers, command].concat()
    }

    pub(in super::super) fn frame(timestamp_ms: u64, commands: &[Vec<u8>]) -> Frame {
        let previous = wal::frame::origin(wal::ClusterId(1), GroupId::FIRST);
        let head = FrameHead { group: GroupId::FIRST, term: Term(1), previous, timestamp_ms };
        let mut batch = FrameBuilder::with_capacity(64);
        commands.iter().for_each(|command| batch.push_command(command));
        batch.commands(head)
    }

    #[test]
    fn the_model_answers_as_the_store_does() {
        let (mut model, mut store) = (Model::default(), kv::Store::new());
        let commands =
            [put(1, 7), swap(1, Some(7), 8), swap(1, None, 9), delete(2), delete(1), swap(1, None, 10)];
        let mut told = Vec::new();
        model.apply(&frame(0, &commands), |done| told.push(done.told));
        let replies: Vec<_> = commands.iter().map(|command| store.apply(command)).collect();
        let theirs: Vec<_> = replies.iter().map(super::super::exactly_once::told).collect();
        assert_eq!(told, theirs);
        assert_eq!(model.revision(), store.revision().0);
        assert_eq!([1, 2, 3, 4, 5].map(|at| model.at(1, at)), [None, Some(7), Some(8), None, Some(10)]);
        assert_eq!((model.changed(4), model.changed(9)), (Some(1), None));
    }

    #[test]
    fn a_session_answers_once_until_it_expires() {
        let mut model = Model::default();
        let mut how = Vec::new();
        let first = once(1, 1, &put(1, 7));
        model.apply(&frame(5, &[open(100), first.clone(), first.clone()]), |done| how.push(done.how));
        model.apply(&frame(104, std::slice::from_ref(&first)), |done| how.push(done.how));
        model.apply(&frame(204, &[first, once(9, 1, &put(1, 8))]), |done| how.push(done.how));
        use How::{Applied, Repeated, SessionGone};
        assert_eq!(how, [Applied, Applied, Repeated, Repeated, SessionGone, SessionGone]);
        assert_eq!(model.revision(), 2);
    }
}
