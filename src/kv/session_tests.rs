//! The rules of sessions as scripts, one test a rule; then the same against a model that forgets nothing.
//!
//! `1:4/2 put a x` is command 4 of session 1, whose client has the answers below 2. `at 50` moves log time to 50 ms.

use super::tests::{Model, a_change, check_on, encoded, run_line};
use super::*;
use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use std::time::Duration;

/// Small enough to be reached by hand.
const SMALL: SessionLimits = SessionLimits {
    sessions: 3,
    answers: 3,
    answer_bytes: 1 << 20,
    all_answer_bytes: 4 << 20,
    ended_per_entry: 2,
};

fn check(script: &str) {
    check_on(&mut Store::with_session_limits(SMALL), script);
}

fn stamp(session: u64, sequence: u64, first_unanswered: u64) -> Stamp {
    Stamp { session: SessionId(session), sequence, first_unanswered }
}

fn in_session(stamp: Stamp, command: Command) -> Bytes {
    encoded(&Command::InSession { stamp, command: Box::new(command) })
}

fn put(value: usize) -> Command {
    Command::Put { key: Bytes::from_static(b"k"), value: Bytes::from(vec![b'v'; value]) }
}

#[test]
fn a_repeated_command_is_answered_as_at_first_and_changes_nothing() {
    check(
        "open 100                         -> session 1 @1
         1:1/1 put a x                    -> put @2
         1:1/1 put a x                    -> put @2
         put a y                          -> put @3
         1:1/1 put a x                    -> put @2
         get a                            -> a=y created 2 changed 3 version 2
         1:2/1 swap a if y to z           -> swapped @4
         1:2/1 swap a if y to z           -> swapped @4
         1:3/2 delete a                   -> deleted @5
         1:3/2 delete a                   -> deleted @5
         1:4/4 delete a                   -> nothing there @5
         put a new                        -> put @6
         1:4/4 delete a                   -> nothing there @5
         1:5/4 swap a if old to x         -> not swapped @6: a=new created 6 changed 6 version 1
         put a newer                      -> put @7
         1:5/4 swap a if old to x         -> not swapped @6: a=new created 6 changed 6 version 1
         size                             -> 1 keys, 6 bytes @7",
    );
}

#[test]
fn numbers_arrive_in_any_order() {
    check(
        "open 100      -> session 1 @1
         1:3/1 put c x -> put @2
         1:1/1 put a x -> put @3
         1:2/1 put b x -> put @4
         1:3/1 put c x -> put @2
         1:2/1 put b x -> put @4
         1:9/1 put d x -> no: 3 answers are kept
         1:9/3 put d x -> put @5",
    );
}

#[test]
fn what_was_acknowledged_is_neither_answered_nor_applied_again() {
    check(
        "open 100      -> session 1 @1
         1:1/1 put a x -> put @2
         1:3/2 put b x -> put @3
         1:1/1 put a x -> no: 1 is below 2
         1:2/1 put a x -> put @4
         1:3/3 put b x -> put @3
         1:2/1 put a x -> no: 2 is below 3
         1:2/2 put c x -> no: 2 is below 3
         size          -> 2 keys, 4 bytes @4",
    );
}

#[test]
fn a_number_given_up_before_it_came_is_never_applied() {
    check(
        "open 100      -> session 1 @1
         1:2/2 put b x -> put @2
         1:1/1 put a x -> no: 1 is below 2
         get a         -> absent",
    );
}

#[test]
fn another_command_under_a_known_number_is_refused() {
    check(
        "open 100                   -> session 1 @1
         1:1/1 put a x              -> put @2
         1:1/1 put a y              -> no: 1 was another command
         1:1/1 delete a             -> no: 1 was another command
         1:1/1 put a x              -> put @2
         get a                      -> a=x created 2 changed 2 version 1",
    );
}

#[test]
fn a_session_that_is_not_there_applies_nothing() {
    check(
        "1:1/1 put a x -> no: unknown session 1
         0:1/1 put a x -> no: unknown session 0
         close 1       -> no: unknown session 1
         open 100      -> session 1 @1
         2:1/1 put a x -> no: unknown session 2
         1:1/1 put a x -> put @2
         close 1       -> closed @2
         1:1/1 put a x -> no: session 1 is gone
         1:2/1 put a x -> no: session 1 is gone
         close 1       -> no: session 1 is gone
         open 100      -> session 2 @2
         1:1/1 put a x -> no: session 1 is gone
         size          -> 1 keys, 2 bytes @2",
    );
}

#[test]
fn a_session_expires_by_log_time_alone_and_not_a_moment_early() {
    check(
        "at 1000       -> 0 sessions
         open 100      -> session 1 @1
         open 50       -> session 2 @1
         at 1049       -> 2 sessions
         2:1/1 put a x -> put @2
         at 1098       -> 2 sessions
         2:1/1 put a x -> put @2
         at 1099       -> 2 sessions
         1:1/1 put b x -> put @3
         at 1148       -> 1 sessions
         2:1/1 put a x -> no: session 2 is gone
         at 1198       -> 1 sessions
         at 1199       -> 0 sessions
         1:1/1 put b x -> no: session 1 is gone
         1:2/1 put b x -> no: session 1 is gone
         size          -> 2 keys, 4 bytes @3",
    );
}

#[test]
fn every_command_that_names_a_session_prolongs_it_refused_or_not() {
    check(
        "open 100      -> session 1 @1
         1:2/2 put a x -> put @2
         at 99         -> 1 sessions
         1:1/1 put a x -> no: 1 is below 2
         at 198        -> 1 sessions
         1:2/2 put a y -> no: 2 was another command
         at 297        -> 1 sessions
         1:2/2 put a x -> put @2
         at 396        -> 1 sessions
         put b x       -> put @3
         at 397        -> 0 sessions",
    );
}

#[test]
fn log_time_never_falls() {
    check(
        "at 1000       -> 0 sessions
         open 100      -> session 1 @1
         at 0          -> 1 sessions
         1:1/1 put a x -> put @2
         at 1099       -> 1 sessions
         at 1100       -> 0 sessions",
    );
}

#[test]
fn many_that_expire_together_are_gone_at_once_and_cleared_away_by_and_by() {
    check(
        "open 10       -> session 1 @1
         open 10       -> session 2 @1
         open 10       -> session 3 @1
         open 10       -> no: 3 sessions are open
         at 10         -> 1 sessions
         3:1/1 put a x -> no: session 3 is gone
         close 3       -> no: session 3 is gone
         open 10       -> session 4 @1
         at 10         -> 1 sessions
         4:1/1 put a x -> put @2",
    );
}

#[test]
fn at_the_limit_new_numbers_are_refused_and_old_ones_answered() {
    check(
        "open 100      -> session 1 @1
         open 100      -> session 2 @1
         open 100      -> session 3 @1
         open 100      -> no: 3 sessions are open
         close 2       -> closed @1
         open 100      -> session 4 @1
         1:1/1 put a 1 -> put @2
         1:2/1 put a 2 -> put @3
         1:3/1 put a 3 -> put @4
         1:4/1 put a 4 -> no: 3 answers are kept
         1:2/1 put a 2 -> put @3
         4:1/1 put b x -> put @5
         1:4/2 put a 4 -> put @6
         1:5/2 put a 5 -> no: 3 answers are kept
         get a         -> a=4 created 2 changed 6 version 4",
    );
}

/// A failed compare-and-swap keeps the value it saw.
#[test]
fn kept_bytes_are_bounded_per_session_and_over_all() {
    let mut store = Store::with_session_limits(SMALL);
    for _ in 0..3 {
        run_line(&mut store, "open 100");
    }
    let empty = kept_for_an_empty_value();
    let value = |kept: u64| usize::try_from(kept - empty).expect("small");
    let swap = || Command::CompareAndSwap {
        key: Bytes::from_static(b"k"),
        expected: Expected::Absent,
        value: Bytes::new(),
    };
    // One byte below the limit, another command is taken; at the limit it is not.
    store.apply(&encoded(&put(value(SMALL.answer_bytes - 1))));
    store.apply(&in_session(stamp(1, 1, 1), swap()));
    assert_eq!(store.session_bytes(), SMALL.answer_bytes - 1);
    assert!(matches!(store.apply(&in_session(stamp(1, 2, 1), put(0))), Reply::Put { .. }));
    store.apply(&encoded(&put(value(SMALL.answer_bytes))));
    store.apply(&in_session(stamp(2, 1, 1), swap()));
    let refused = store.apply(&in_session(stamp(2, 2, 1), put(0)));
    let expected = SessionError::TooManyAnswers { answers: 1, bytes: SMALL.answer_bytes };
    assert_eq!(refused, Reply::SessionRefused(expected));
    assert!(matches!(store.apply(&in_session(stamp(2, 2, 2), put(0))), Reply::Put { .. }), "acknowledged");

    // All sessions together: an answer may go beyond the limit, the next one is not taken.
    let large = Limits::MAX.value_bytes;
    store.apply(&encoded(&put(large)));
    assert!(matches!(store.apply(&in_session(stamp(3, 1, 1), swap())), Reply::NotSwapped { .. }));
    let held = store.session_bytes();
    assert!(held >= SMALL.all_answer_bytes);
    let expected = Reply::SessionRefused(SessionError::AnswersFull { bytes: held });
    assert_eq!(store.apply(&in_session(stamp(2, 3, 2), put(0))), expected);
    run_line(&mut store, "close 3");
    assert!(matches!(store.apply(&in_session(stamp(2, 3, 3), put(0))), Reply::Put { .. }));
    run_line(&mut store, "close 1");
    run_line(&mut store, "close 2");
    assert_eq!((store.session_bytes(), store.sessions()), (0, 0));
}

/// Bytes of a kept answer that saw an empty value under the key `k`.
fn kept_for_an_empty_value() -> u64 {
    let mut store = Store::new();
    for line in ["open 100", "put k ''", "1:1/1 swap k if absent to x"] {
        run_line(&mut store, line);
    }
    store.session_bytes()
}

#[test]
fn the_limits_of_every_replica_cut_exactly() {
    let mut store = Store::new();
    let mut open = BytesMut::new();
    encode_open_session(Duration::from_secs(60), &mut open).expect("within the limits");
    for number in 1..=SessionLimits::MAX.sessions as u64 {
        let opened = Reply::SessionOpened { revision: Revision(1), session: SessionId(number) };
        assert_eq!(store.apply(&open), opened);
    }
    let limit = SessionLimits::MAX.sessions as u64;
    assert_eq!(store.apply(&open), Reply::SessionRefused(SessionError::TooManySessions { limit }));
    for number in 1..=SessionLimits::MAX.answers as u64 {
        assert!(matches!(store.apply(&in_session(stamp(7, number, 1), put(1))), Reply::Put { .. }));
    }
    let next = SessionLimits::MAX.answers as u64 + 1;
    let refused = store.apply(&in_session(stamp(7, next, 1), put(1)));
    assert!(matches!(refused, Reply::SessionRefused(SessionError::TooManyAnswers { .. })), "{refused:?}");
    assert!(matches!(store.apply(&in_session(stamp(8, next, 1), put(1))), Reply::Put { .. }));

    // All of them expire at one moment; an entry clears away so many.
    store.advance_to(LogTime(60_000));
    assert_eq!(store.sessions(), SessionLimits::MAX.sessions - SessionLimits::MAX.ended_per_entry);
    let gone = SessionError::Gone { session: SessionId(limit) };
    assert_eq!(store.apply(&in_session(stamp(limit, 1, 1), put(1))), Reply::SessionRefused(gone));
    for _ in 0..SessionLimits::MAX.sessions / SessionLimits::MAX.ended_per_entry - 1 {
        store.advance_to(LogTime(60_000));
    }
    assert_eq!((store.sessions(), store.session_bytes()), (0, 0));
}

#[test]
fn what_cannot_be_asked_is_refused_by_encoder_and_decoder() {
    let ms = Duration::from_millis;
    let nested = Command::InSession { stamp: stamp(1, 1, 1), command: Box::new(put(1)) };
    let cases = [
        (Command::OpenSession { timeout: ms(10) }, Ok(())),
        (Command::OpenSession { timeout: ms(86_400_000) }, Ok(())),
        (Command::OpenSession { timeout: ms(9) }, Err(CommandError::SessionTimeout { found: ms(9) })),
        (
            Command::OpenSession { timeout: ms(86_400_001) },
            Err(CommandError::SessionTimeout { found: ms(86_400_001) }),
        ),
        (Command::InSession { stamp: stamp(1, u64::MAX, u64::MAX), command: Box::new(put(1)) }, Ok(())),
        (
            Command::InSession { stamp: stamp(1, 0, 0), command: Box::new(put(1)) },
            Err(CommandError::SessionNumbers { sequence: 0, first_unanswered: 0 }),
        ),
        (
            Command::InSession { stamp: stamp(1, 1, 2), command: Box::new(put(1)) },
            Err(CommandError::SessionNumbers { sequence: 1, first_unanswered: 2 }),
        ),
        (
            Command::InSession { stamp: stamp(1, 1, 1), command: Box::new(nested) },
            Err(CommandError::NotInSession(6)),
        ),
        (
            Command::InSession {
                stamp: stamp(1, 1, 1),
                command: Box::new(Command::CloseSession { session: SessionId(1) }),
            },
            Err(CommandError::NotInSession(5)),
        ),
        (
            Command::InSession {
                stamp: stamp(1, 1, 1),
                command: Box::new(Command::Delete { key: Bytes::new() }),
            },
            Err(CommandError::EmptyKey),
        ),
    ];
    for (command, expected) in cases {
        let mut out = BytesMut::from(&b"before"[..]);
        assert_eq!(command.encode_into(&mut out), expected, "{command:?}");
        assert!(expected.is_ok() || out == b"before"[..], "a refused command leaves nothing behind");
    }
    for (bytes, expected) in [
        (b"\x01\x04\x09\0\0\0\0\0\0\0".to_vec(), CommandError::SessionTimeout { found: ms(9) }),
        ([&b"\x01\x04"[..], &[0xff; 8]].concat(), CommandError::SessionTimeout { found: ms(u64::MAX) }),
        (
            [&b"\x01\x06"[..], &[0; 24]].concat(),
            CommandError::SessionNumbers { sequence: 0, first_unanswered: 0 },
        ),
        ([&b"\x01\x06"[..], &[1; 24], b"\x01\x06"].concat(), CommandError::NotInSession(6)),
        ([&b"\x01\x06"[..], &[1; 24], b"\x01\x10"].concat(), CommandError::Tag(16)),
        ([&b"\x01\x06"[..], &[1; 24], b"\x01\x0e"].concat(), CommandError::NotInSession(14)),
        ([&b"\x01\x06"[..], &[1; 24], b"\x01\x0f"].concat(), CommandError::NotInSession(15)),
        ([&b"\x01\x06"[..], &[1; 24]].concat(), CommandError::Short { need: 1, have: 0 }),
        ([&b"\x01\x06"[..], &[1; 24], b"\x01\x02\x01\0\0\0ab"].concat(), CommandError::Trailing(1)),
    ] {
        let mut store = Store::new();
        assert_eq!(store.apply(&bytes), Reply::Refused(expected));
        assert_eq!(store.digest(), Store::new().digest());
    }
}

#[test]
fn the_binary_form_is_the_documented_one() {
    let form = |command| encoded(&command).to_vec();
    assert_eq!(
        form(Command::OpenSession { timeout: Duration::from_millis(258) }),
        b"\x01\x04\x02\x01\0\0\0\0\0\0"
    );
    assert_eq!(form(Command::CloseSession { session: SessionId(3) }), b"\x01\x05\x03\0\0\0\0\0\0\0");
    let delete = Command::Delete { key: Bytes::from_static(b"a") };
    assert_eq!(
        &in_session(stamp(1, 3, 2), delete)[..],
        b"\x01\x06\x01\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0\x01\x02\x01\0\0\0a"
    );
    let shown = |reply: Reply| {
        let mut out = BytesMut::new();
        reply.encode_into(&mut out);
        out.to_vec()
    };
    let opened = Reply::SessionOpened { revision: Revision(2), session: SessionId(3) };
    assert_eq!(shown(opened), b"\x01\x06\x02\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0");
    let gone = Reply::SessionRefused(SessionError::Gone { session: SessionId(3) });
    assert_eq!(shown(gone), b"\x01\x08\x02\x03\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
}

#[test]
fn replies_of_a_newer_version_are_refused_by_name() {
    for (bytes, field, value) in [
        (&b"\x01\x14"[..], "tag", 20),
        (b"\x01\x10\x63\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", "lease refusal", 99),
        (b"\x01\x12\x63\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", "revision refusal", 99),
        (b"\x01\x08\x63\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", "session refusal", 99),
        (b"\x01\x05\x63\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", "refusal", 99),
    ] {
        let error = Reply::decode(&Bytes::copy_from_slice(bytes));
        assert_eq!(error, Err(ReplyError::Field { field, value }));
    }
}

#[test]
fn refusals_say_what_to_do() {
    let gone = SessionError::Gone { session: SessionId(3) };
    assert_eq!(
        gone.to_string(),
        "session 3 has expired or was closed; this try was not applied, and whether an earlier one was is not known any \
         more: read what it would have changed, then go on in a new session"
    );
    let timeout = CommandError::SessionTimeout { found: Duration::from_millis(9) };
    assert_eq!(timeout.to_string(), "a session's timeout of 9ms is outside 10ms to 24h: choose one within");
}

#[test]
fn sessions_are_part_of_the_digest() {
    let digest = |script: &[&str]| {
        let mut store = Store::new();
        for line in script {
            run_line(&mut store, line);
        }
        (store.revision(), store.digest())
    };
    let base = digest(&["open 100", "1:1/1 put a x"]);
    assert_eq!(base, digest(&["open 100", "1:1/1 put a x"]), "equal histories");
    for (other, what) in [
        (&["put a x"][..], "no session"),
        (&["open 100", "put a x"], "a change that was made outside of it"),
        (&["open 101", "1:1/1 put a x"], "another timeout"),
        (&["at 5", "open 100", "1:1/1 put a x"], "opened at another moment"),
        (&["open 100", "at 5", "1:1/1 put a x"], "prolonged"),
        (&["open 100", "open 100", "1:1/1 put a x"], "one more"),
        (&["open 100", "1:2/1 put a x"], "another number"),
        (&["open 100", "1:2/2 put a x"], "what is acknowledged"),
        (&["open 100", "1:1/1 put a x", "close 1"], "closed"),
        (&["open 100", "1:1/1 put a x", "at 100"], "expired"),
        (&["open 100", "1:1/1 put a x", "1:1/1 put a x"], "a retry"),
        (&["open 100", "1:1/1 swap a if absent to x"], "another command with the same effect"),
    ] {
        let other = digest(other);
        assert_eq!(base.0, other.0, "{what}: the keys are the same");
        assert_ne!(base.1, other.1, "{what}");
    }
    // What a failed compare-and-swap saw is kept, and so is compared, though it changed nothing.
    let saw = |value| digest(&["open 100", value, "1:1/1 swap a if no to x", "put a y"]).1;
    assert_ne!(saw("put a 1"), saw("put a 2"));
}

#[test]
fn a_client_numbers_its_commands_and_acknowledges_what_it_has() {
    let mut numbers = Numbering::new(SessionId(9));
    let taken: Vec<_> = (0..3).map(|_| numbers.take()).collect();
    assert_eq!(taken, [stamp(9, 1, 1), stamp(9, 2, 1), stamp(9, 3, 1)]);
    numbers.settle(2);
    assert_eq!(numbers.again(3), Some(stamp(9, 3, 1)), "1 is open");
    numbers.settle(1);
    assert_eq!(numbers.again(3), Some(stamp(9, 3, 3)));
    assert_eq!((numbers.again(1), numbers.again(4), numbers.in_flight()), (None, None, 1));
    numbers.settle(3);
    numbers.settle(3);
    assert_eq!(numbers.take(), stamp(9, 4, 4));
}

/// Sessions as anybody would write them who has memory to waste: whatever was said is in a list, for ever.
#[derive(Default)]
struct SessionModel {
    store: Model,
    now: u64,
    sessions: Vec<Told>,
}

#[derive(Default)]
struct Told {
    timeout: u64,
    used: u64,
    closed: bool,
    cleared: bool,
    acknowledged_below: u64,
    answers: Vec<(u64, Command, Reply)>,
}

impl Told {
    fn expires(&self) -> u64 {
        self.used + self.timeout
    }
}

impl SessionModel {
    fn advance(&mut self, by: u64) {
        self.now += by;
        let now = self.now;
        let mut due: Vec<_> =
            self.sessions.iter_mut().filter(|s| !s.closed && !s.cleared && s.expires() <= now).collect();
        due.sort_by_key(|session| session.expires());
        due.into_iter().take(SMALL.ended_per_entry).for_each(|session| session.cleared = true);
    }

    fn find(&self, id: SessionId) -> Result<usize, SessionError> {
        let Some(at) = (0..self.sessions.len()).find(|at| *at as u64 + 1 == id.0) else {
            return Err(SessionError::Unknown { session: id });
        };
        let gone = self.sessions[at].closed || self.sessions[at].expires() <= self.now;
        if gone { Err(SessionError::Gone { session: id }) } else { Ok(at) }
    }

    fn once(&mut self, stamp: Stamp, command: &Command) -> Result<Reply, SessionError> {
        let Stamp { session, sequence, first_unanswered } = stamp;
        let at = self.find(session)?;
        let told = &mut self.sessions[at];
        told.used = self.now;
        told.acknowledged_below = told.acknowledged_below.max(first_unanswered);
        let first_unanswered = told.acknowledged_below;
        if sequence < first_unanswered {
            return Err(SessionError::Acknowledged { sequence, first_unanswered });
        }
        if let Some((_, before, reply)) = told.answers.iter().find(|(number, ..)| *number == sequence) {
            return if before == command {
                Ok(reply.clone())
            } else {
                Err(SessionError::Reused { sequence })
            };
        }
        let answers = told.answers.iter().filter(|(number, ..)| *number >= first_unanswered).count();
        if answers >= SMALL.answers {
            return Err(SessionError::TooManyAnswers { answers: answers as u64, bytes: 0 });
        }
        let reply = self.store.apply(command);
        told.answers.push((sequence, command.clone(), reply.clone()));
        Ok(reply)
    }

    fn open(&mut self, timeout: Duration) -> Result<Reply, SessionError> {
        if self.sessions.iter().filter(|s| !s.closed && !s.cleared).count() >= SMALL.sessions {
            return Err(SessionError::TooManySessions { limit: SMALL.sessions as u64 });
        }
        let timeout = u64::try_from(timeout.as_millis()).expect("short");
        self.sessions.push(Told { timeout, used: self.now, acknowledged_below: 1, ..Told::default() });
        let session = SessionId(self.sessions.len() as u64);
        Ok(Reply::SessionOpened { revision: self.store.now(), session })
    }

    fn apply(&mut self, command: &Command) -> Reply {
        let result = match command {
            Command::OpenSession { timeout } => self.open(*timeout),
            Command::CloseSession { session } => self.find(*session).map(|at| {
                self.sessions[at].closed = true;
                Reply::SessionClosed { revision: self.store.now() }
            }),
            Command::InSession { stamp, command } => self.once(*stamp, command),
            change => Ok(self.store.apply(change)),
        };
        result.unwrap_or_else(Reply::SessionRefused)
    }
}

#[derive(Clone, Debug)]
enum Step {
    Pass(u64),
    Ask(Command),
    /// The n-th command before this one, once more.
    Again(usize),
}

fn a_step() -> impl Strategy<Value = Step> {
    let session = || (0_u64..7).prop_map(SessionId);
    let stamp = (session(), 1_u64..7, 0_u64..6).prop_map(|(session, sequence, open)| {
        let first_unanswered = sequence.saturating_sub(open).max(1);
        Stamp { session, sequence, first_unanswered }
    });
    prop_oneof![
        3 => (0_u64..12).prop_map(Step::Pass),
        1 => (10_u64..40).prop_map(|ms| Step::Ask(Command::OpenSession { timeout: Duration::from_millis(ms) })),
        1 => session().prop_map(|session| Step::Ask(Command::CloseSession { session })),
        1 => a_change().prop_map(Step::Ask),
        6 => (stamp, a_change())
            .prop_map(|(stamp, command)| Step::Ask(Command::InSession { stamp, command: Box::new(command) })),
        4 => (0_usize..12).prop_map(Step::Again),
    ]
}

/// The model does not know how many bytes an answer needs.
fn without_bytes(reply: Reply) -> Reply {
    match reply {
        Reply::SessionRefused(SessionError::TooManyAnswers { answers, .. }) => {
            Reply::SessionRefused(SessionError::TooManyAnswers { answers, bytes: 0 })
        }
        other => other,
    }
}

proptest! {
    /// Opens, retries, late retries, acknowledgements and expiries, mixed at random.
    #[test]
    fn sessions_answer_like_the_model(steps in prop::collection::vec(a_step(), 0..120)) {
        let mut store = Store::with_session_limits(SMALL);
        let mut twin = Store::with_session_limits(SMALL);
        let (mut model, mut asked) = (SessionModel::default(), Vec::<Command>::new());
        for step in steps {
            let command = match step {
                Step::Pass(by) => {
                    model.advance(by);
                    store.advance_to(LogTime(model.now));
                    twin.advance_to(LogTime(model.now));
                    continue;
                }
                Step::Ask(command) => command,
                Step::Again(back) if back < asked.len() => asked[asked.len() - 1 - back].clone(),
                Step::Again(_) => continue,
            };
            let bytes = encoded(&command);
            let reply = store.apply(&bytes);
            prop_assert_eq!(without_bytes(reply.clone()), model.apply(&command), "{:?}", command);
            prop_assert_eq!(reply, twin.apply(&bytes));
            prop_assert_eq!(store.digest(), twin.digest());
            prop_assert_eq!(store.revision(), model.store.now());
            let open = model.sessions.iter().filter(|s| !s.closed && !s.cleared).count();
            prop_assert_eq!(store.sessions(), open);
            asked.push(command);
        }
        // When all is over nothing is left.
        for _ in 0..SMALL.sessions {
            store.advance_to(LogTime(u64::MAX));
        }
        prop_assert_eq!((store.sessions(), store.session_bytes()), (0, 0));
    }
}
