//! Sessions: a command that is asked for twice happens once (thesis 6.3).
//!
//! A client that got no answer does not know whether its command happened. Asked again as it was, a put could bring back
//! a value that somebody has replaced since, and a compare-and-swap could report a failure that is its own success. So a
//! client opens a session and numbers its commands in it; the store keeps the answer to each number and gives it again.
//!
//! # Rules
//!
//! 1. A session is opened by a command; its id is the next of a counter, so that it is the same on all replicas and never
//!    used again. Neither opening nor closing takes a revision: only changes of keys do.
//! 2. A command in a session carries a [`Stamp`]: the session, its number, and the lowest number whose answer the client
//!    has not seen. Numbers begin at 1 and may arrive in any order, since several may be in flight.
//! 3. A number that the session has not answered is applied, and its answer kept.
//! 4. A number that it has answered is answered with the first answer, byte for byte, and changes no key.
//! 5. A number below what the client has acknowledged is refused: its answer is not kept any more.
//! 6. A known number with another command in it is refused: the client numbers wrongly, and the first answer would be a
//!    lie.
//! 7. A command in a session that is not there (never opened, closed, expired) is refused and never applied: whether it
//!    was applied before is not known here any more.
//! 8. A session expires once log time has moved on by its timeout since the last command that named it, retries and
//!    refused ones included. Log time is the timestamp of the entry that is being applied, never a replica's own clock.
//! 9. At a limit of [`SessionLimits`] new sessions or new numbers are refused. Kept answers are never thrown away to make
//!    room: that would turn a retry into a second application.
//!
//! Whatever changes here (opened, answered, prolonged, ended) is chained into the store's digest.
//!
//! Deliberately not here: a bound on how long a client waits, retries, who owns a session. An id is no secret.

use super::reply::Reply;
use super::time::LogTime;
use bytes::BufMut;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;
use thiserror::Error;
use xxhash_rust::xxh3::xxh3_128;

/// Names a session in its store. Ids begin at 1 and are never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How long a session may be left unused: whole milliseconds from 10 ms to 24 h. A fraction of one is dropped.
pub const SESSION_TIMEOUT: RangeInclusive<Duration> =
    Duration::from_millis(10)..=Duration::from_secs(24 * 60 * 60);

/// What makes a command one of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The session.
    pub session: SessionId,
    /// The command's number in it, from 1. A retry has the number of the first try.
    pub sequence: u64,
    /// The lowest number whose answer the client has not seen; the answers below it are not kept any longer. At least 1
    /// and at most `sequence`: who has seen an answer does not ask for it.
    pub first_unanswered: u64,
}

/// How much is kept for sessions. They belong to the format, as [`Limits::MAX`](super::Limits::MAX) does: replicas that
/// disagreed about them would apply one log to different states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionLimits {
    /// Sessions open at the same time.
    pub sessions: usize,
    /// Unacknowledged answers of one session.
    pub answers: usize,
    /// Their bytes: a session that holds this much or more takes no new number.
    pub answer_bytes: u64,
    /// Bytes of the unacknowledged answers of all sessions: at this much or more none takes a new number.
    pub all_answer_bytes: u64,
    /// Expired sessions whose memory one entry of the log gives back. They count as gone before that; this bounds how
    /// long the loop is held up when many expire at once.
    pub ended_per_entry: usize,
}

impl SessionLimits {
    /// What every replica applies: 65,536 sessions; 128 answers and 1 MiB of them in each; 256 MiB in all.
    pub const MAX: Self = Self {
        sessions: 1 << 16,
        answers: 128,
        answer_bytes: 1 << 20,
        all_answer_bytes: 256 << 20,
        ended_per_entry: 1 << 10,
    };
}

// An idle session must not be able to use up what all of them have, and one that gives all back at once must be small
// enough to be let go of within one entry.
const _: () = {
    assert!(SessionLimits::MAX.answer_bytes * 64 <= SessionLimits::MAX.all_answer_bytes);
    assert!(SessionLimits::MAX.answers as u64 * size_of::<Kept>() as u64 <= SessionLimits::MAX.answer_bytes);
    assert!(SessionLimits::MAX.ended_per_entry > 0 && SessionLimits::MAX.answers > 0);
};

/// Why a session's command, or a new session, was refused. No key was changed by *this* command; whether an earlier try
/// of the same number was applied is said by each variant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SessionError {
    /// This store has never opened that session.
    #[error(
        "session {session} was never opened here; the command was not applied: open a session and use the id it gets"
    )]
    Unknown {
        /// The id that was named.
        session: SessionId,
    },
    /// The session expired or was closed.
    #[error(
        "session {session} has expired or was closed; this try was not applied, and whether an earlier one was is not \
         known any more: read what it would have changed, then go on in a new session"
    )]
    Gone {
        /// The session.
        session: SessionId,
    },
    /// The client has acknowledged that number's answer (or given it up), so that it is not kept.
    #[error(
        "command {sequence} was acknowledged: the client has said that it needs no answer below {first_unanswered}; \
         nothing was applied now: a new command takes a new number"
    )]
    Acknowledged {
        /// The number.
        sequence: u64,
        /// The lowest number that is not acknowledged.
        first_unanswered: u64,
    },
    /// That number was used for another command.
    #[error(
        "command {sequence} was asked for before with other contents; nothing was applied now: every command takes its \
         own number, and a retry is sent byte for byte"
    )]
    Reused {
        /// The number.
        sequence: u64,
    },
    /// The session holds as many unacknowledged answers, or bytes of them, as it may.
    #[error(
        "the session holds {answers} answers ({bytes} bytes) that the client has not acknowledged, which is its limit; \
         nothing was applied: send it again with a higher first_unanswered"
    )]
    TooManyAnswers {
        /// Answers held.
        answers: u64,
        /// Their bytes.
        bytes: u64,
    },
    /// All sessions together hold as many bytes of unacknowledged answers as they may.
    #[error(
        "the sessions of this store hold {bytes} bytes of unacknowledged answers, which is their limit; nothing was \
         applied: try again when others have acknowledged theirs or have expired"
    )]
    AnswersFull {
        /// Bytes held.
        bytes: u64,
    },
    /// As many sessions are open as may be.
    #[error(
        "{limit} sessions are open, which is the limit; none was opened: close those that are done with, or wait for \
         some to expire"
    )]
    TooManySessions {
        /// The limit.
        limit: u64,
    },
}

/// What the store says to a command in a session.
#[derive(Debug)]
pub(super) enum Verdict {
    /// It is new: apply it, then [`keep`](Sessions::keep) the answer.
    New,
    /// It was answered before.
    Again(Reply),
    /// It may not be applied.
    Refused(SessionError),
}

/// An answer that may be asked for again.
#[derive(Clone, Debug)]
struct Kept {
    sequence: u64,
    /// A hash of the command that was answered.
    command: u64,
    reply: Reply,
}

impl Kept {
    fn bytes(&self) -> u64 {
        (size_of::<Self>() + self.reply.held_bytes()) as u64
    }
}

#[derive(Clone, Debug)]
struct Session {
    timeout: Duration,
    /// Log time from which on it is gone.
    expires: LogTime,
    /// Never falls.
    first_unanswered: u64,
    /// Sorted by number. Invariant: none below `first_unanswered`.
    answers: Vec<Kept>,
    /// Invariant: the sum over `answers`.
    bytes: u64,
}

impl Session {
    /// Lets go of the answers below `first_unanswered`; returns their bytes.
    fn acknowledge(&mut self, first_unanswered: u64) -> u64 {
        if first_unanswered <= self.first_unanswered {
            return 0;
        }
        self.first_unanswered = first_unanswered;
        let done = self.answers.partition_point(|kept| kept.sequence < first_unanswered);
        let bytes = self.answers.drain(..done).map(|kept| kept.bytes()).sum();
        self.bytes -= bytes;
        bytes
    }

    fn find(&self, sequence: u64) -> Option<&Kept> {
        let at = self.answers.binary_search_by_key(&sequence, |kept| kept.sequence).ok()?;
        Some(&self.answers[at])
    }
}

/// The open sessions of a store.
#[derive(Clone, Debug)]
pub(super) struct Sessions {
    open: BTreeMap<SessionId, Session>,
    /// Invariant: one for each of `open`, with its moment of expiry.
    by_expiry: BTreeSet<(LogTime, SessionId)>,
    next: SessionId,
    /// The greatest timestamp applied.
    now: LogTime,
    /// Invariant: the sum over all sessions.
    bytes: u64,
    limits: SessionLimits,
}

impl Sessions {
    pub fn new(limits: SessionLimits) -> Self {
        Self {
            open: BTreeMap::new(),
            by_expiry: BTreeSet::new(),
            next: SessionId(1),
            now: LogTime(0),
            bytes: 0,
            limits,
        }
    }

    pub fn now(&self) -> LogTime {
        self.now
    }

    pub fn len(&self) -> usize {
        self.open.len()
    }

    pub fn held_bytes(&self) -> u64 {
        self.bytes
    }

    /// Log time has come to `to`, or is where it was if that is earlier.
    pub fn advance(&mut self, to: LogTime, digest: &mut u128) {
        self.now = self.now.max(to);
        if self.open.is_empty() {
            return;
        }
        for _ in 0..self.limits.ended_per_entry {
            match self.by_expiry.first() {
                Some(&(expires, session)) if expires <= self.now => self.end(session, digest),
                _ => break,
            }
        }
    }

    pub fn open(&mut self, timeout: Duration, digest: &mut u128) -> Result<SessionId, SessionError> {
        if self.open.len() >= self.limits.sessions {
            return Err(SessionError::TooManySessions { limit: self.limits.sessions as u64 });
        }
        let session = self.next;
        self.next.0 += 1;
        let expires = self.now.after(timeout);
        let opened = Session { timeout, expires, first_unanswered: 1, answers: Vec::new(), bytes: 0 };
        chain(digest, &Event::new(OPENED, session, &opened));
        let former = self.open.insert(session, opened);
        assert!(former.is_none(), "an id is used once");
        self.by_expiry.insert((expires, session));
        Ok(session)
    }

    pub fn close(&mut self, session: SessionId, digest: &mut u128) -> Result<(), SessionError> {
        self.check_open(session)?;
        self.end(session, digest);
        Ok(())
    }

    /// What to do about the command with this stamp, of which `command` is a hash.
    pub fn judge(&mut self, stamp: Stamp, command: u64, digest: &mut u128) -> Verdict {
        if let Err(error) = self.check_open(stamp.session) {
            if wal::mutant!("session_expiry_reapplies") {
                return Verdict::New;
            }
            return Verdict::Refused(error);
        }
        self.prolong(stamp.session);
        let open = self.open.get_mut(&stamp.session).expect("just seen");
        self.bytes -= open.acknowledge(stamp.first_unanswered);
        let verdict = judge_number(open, stamp.sequence, command, &self.limits, self.bytes);
        if !matches!(verdict, Verdict::New) {
            chain(digest, &Event::new(PROLONGED, stamp.session, open));
        }
        verdict
    }

    /// Keeps the answer to a command that was found to be new.
    pub fn keep(&mut self, stamp: Stamp, command: u64, reply: &Reply, digest: &mut u128) {
        let Stamp { session, sequence, .. } = stamp;
        if wal::mutant!("session_expiry_reapplies") && !self.open.contains_key(&session) {
            return;
        }
        let open = self.open.get_mut(&session).expect("only an open session's command is new");
        let at = open.answers.partition_point(|kept| kept.sequence < sequence);
        let again = open.answers.get(at).is_some_and(|kept| kept.sequence == sequence);
        assert!(!again || wal::mutant!("session_answer_forgotten"), "a number is answered once");
        let reply_hash = reply.fingerprint();
        let answered = Event { sequence, command, reply: reply_hash, ..Event::new(ANSWERED, session, open) };
        chain(digest, &answered);
        let kept = Kept { sequence, command, reply: reply.clone() };
        open.bytes += kept.bytes();
        self.bytes += kept.bytes();
        open.answers.insert(at, kept);
    }

    fn check_open(&self, session: SessionId) -> Result<(), SessionError> {
        match self.open.get(&session) {
            Some(open) if self.now < open.expires => Ok(()),
            None if session >= self.next || session.0 == 0 => Err(SessionError::Unknown { session }),
            _ => Err(SessionError::Gone { session }),
        }
    }

    /// The session is in use now.
    fn prolong(&mut self, session: SessionId) {
        let open = self.open.get_mut(&session).expect("asked for an open session");
        let expires = self.now.after(open.timeout);
        if expires != open.expires {
            assert!(expires > open.expires, "log time does not fall");
            let former = self.by_expiry.remove(&(open.expires, session));
            assert!(former, "every open session expires once");
            open.expires = expires;
            self.by_expiry.insert((expires, session));
        }
    }

    fn end(&mut self, session: SessionId, digest: &mut u128) {
        let ended = self.open.remove(&session).expect("it is open");
        let former = self.by_expiry.remove(&(ended.expires, session));
        assert!(former, "every open session expires once");
        self.bytes -= ended.bytes;
        chain(digest, &Event::new(ENDED, session, &ended));
    }
}

/// Rules 3 to 6, and 9, for an open session.
fn judge_number(open: &Session, sequence: u64, command: u64, limits: &SessionLimits, all: u64) -> Verdict {
    if sequence < open.first_unanswered && !wal::mutant!("session_late_retry_reapplied") {
        let first_unanswered = open.first_unanswered;
        return Verdict::Refused(SessionError::Acknowledged { sequence, first_unanswered });
    }
    if let Some(kept) = open.find(sequence)
        && !wal::mutant!("session_answer_forgotten")
    {
        if kept.command != command && !wal::mutant!("session_reuse_unseen") {
            return Verdict::Refused(SessionError::Reused { sequence });
        }
        return Verdict::Again(kept.reply.clone());
    }
    if open.answers.len() >= limits.answers || open.bytes >= limits.answer_bytes {
        let (answers, bytes) = (open.answers.len() as u64, open.bytes);
        return Verdict::Refused(SessionError::TooManyAnswers { answers, bytes });
    }
    if all >= limits.all_answer_bytes {
        return Verdict::Refused(SessionError::AnswersFull { bytes: all });
    }
    Verdict::New
}

const OPENED: u64 = 1;
const PROLONGED: u64 = 2;
const ANSWERED: u64 = 3;
const ENDED: u64 = 4;

/// Something that changed a session, as the digest sees it: the session after the change, and what it answered.
#[derive(Clone, Copy)]
struct Event {
    kind: u64,
    session: SessionId,
    timeout: Duration,
    expires: LogTime,
    first_unanswered: u64,
    sequence: u64,
    command: u64,
    reply: u128,
}

impl Event {
    fn new(kind: u64, session: SessionId, state: &Session) -> Self {
        let Session { timeout, expires, first_unanswered, .. } = *state;
        Self { kind, session, timeout, expires, first_unanswered, sequence: 0, command: 0, reply: 0 }
    }
}

fn chain(digest: &mut u128, event: &Event) {
    if wal::mutant!("digest_without_sessions") {
        return;
    }
    // Longer than a link of a key's change, so that neither can be taken for the other.
    let mut link = [0_u8; 96];
    let mut out = &mut link[..];
    out.put_u128_le(*digest);
    out.put_u128_le(event.timeout.as_millis());
    out.put_u128_le(event.reply);
    for number in
        [event.kind, event.session.0, event.expires.0, event.first_unanswered, event.sequence, event.command]
    {
        out.put_u64_le(number);
    }
    assert!(out.is_empty(), "the link is as long as what is in it");
    *digest = xxh3_128(&link);
}

/// The client's side of a session's numbers: gives each command its own, and knows what has been answered. No I/O: whoever
/// sends the commands asks it.
///
/// ```
/// use d_engine::kv::{Numbering, SessionId};
///
/// let mut numbers = Numbering::new(SessionId(7));
/// let (first, second) = (numbers.take(), numbers.take());
/// assert_eq!((first.sequence, second.sequence, second.first_unanswered), (1, 2, 1));
/// numbers.settle(first.sequence);
/// let retry = numbers.again(second.sequence).expect("it has no answer yet");
/// assert_eq!((retry.sequence, retry.first_unanswered), (2, 2));
/// assert_eq!(numbers.again(first.sequence), None, "it has its answer");
/// ```
#[derive(Clone, Debug)]
pub struct Numbering {
    session: SessionId,
    next: u64,
    unanswered: BTreeSet<u64>,
}

impl Numbering {
    /// The numbers of a session that was just opened.
    #[must_use]
    pub fn new(session: SessionId) -> Self {
        Self { session, next: 1, unanswered: BTreeSet::new() }
    }

    /// The session.
    #[must_use]
    pub fn session(&self) -> SessionId {
        self.session
    }

    /// Numbers that were taken and not settled.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.unanswered.len()
    }

    /// The stamp of a new command.
    pub fn take(&mut self) -> Stamp {
        let sequence = self.next;
        if !wal::mutant!("sequence_reused") {
            self.next += 1;
        }
        self.unanswered.insert(sequence);
        self.stamp(sequence)
    }

    /// The stamp of another try of a command; `None` if it has been settled.
    #[must_use]
    pub fn again(&self, sequence: u64) -> Option<Stamp> {
        self.unanswered.contains(&sequence).then(|| self.stamp(sequence))
    }

    /// The command with this number was answered, or is given up: the next stamp says so once no lower number is open. A
    /// command that was given up and is still on its way is refused if it comes after that.
    pub fn settle(&mut self, sequence: u64) {
        self.unanswered.remove(&sequence);
    }

    fn stamp(&self, sequence: u64) -> Stamp {
        let first_unanswered = self.unanswered.first().copied().unwrap_or(sequence);
        Stamp { session: self.session, sequence, first_unanswered }
    }
}
