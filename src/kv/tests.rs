//! The store told as scripts (what is asked, what is answered), then compared with a model that is too slow to be
//! wrong, then fed with bytes that nobody meant.

use super::*;
use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use std::fmt::Write;
use std::time::Duration;

pub(super) fn encoded(command: &Command) -> Bytes {
    let mut out = BytesMut::new();
    command.encode_into(&mut out).expect("within the limits");
    out.freeze()
}

fn shown(bytes: &[u8]) -> String {
    if bytes.is_empty() { "''".to_owned() } else { bytes.escape_ascii().to_string() }
}

fn shown_kv(kv: &KeyValue) -> String {
    let KeyValue { key, value, create_revision, modify_revision, version, .. } = kv;
    format!(
        "{}={} created {create_revision} changed {modify_revision} version {version}",
        shown(key),
        shown(value)
    )
}

fn shown_page(page: &Page) -> String {
    let keys: Vec<_> = page.items.iter().map(|kv| shown(&kv.key)).collect();
    format!("[{}]{}", keys.join(" "), if page.more { " and more" } else { "" })
}

pub(super) fn shown_reply(reply: &Reply) -> String {
    match reply {
        Reply::Put { revision } => format!("put @{revision}"),
        Reply::Deleted { revision, before: Presence::Present } => format!("deleted @{revision}"),
        Reply::Deleted { revision, before: Presence::Absent } => format!("nothing there @{revision}"),
        Reply::Swapped { revision } => format!("swapped @{revision}"),
        Reply::NotSwapped { revision, current: None } => format!("not swapped @{revision}: absent"),
        Reply::NotSwapped { revision, current: Some(kv) } => {
            format!("not swapped @{revision}: {}", shown_kv(kv))
        }
        Reply::Refused(error) => format!("refused: {error}"),
        Reply::SessionOpened { revision, session } => format!("session {session} @{revision}"),
        Reply::SessionClosed { revision } => format!("closed @{revision}"),
        Reply::SessionRefused(error) => match error {
            SessionError::Unknown { session } => format!("no: unknown session {session}"),
            SessionError::Gone { session } => format!("no: session {session} is gone"),
            SessionError::Acknowledged { sequence, first_unanswered } => {
                format!("no: {sequence} is below {first_unanswered}")
            }
            SessionError::Reused { sequence } => format!("no: {sequence} was another command"),
            SessionError::TooManyAnswers { answers, .. } => format!("no: {answers} answers are kept"),
            SessionError::AnswersFull { .. } => "no: all sessions are full".to_owned(),
            SessionError::TooManySessions { limit } => format!("no: {limit} sessions are open"),
        },
        other => format!("{other:?}"),
    }
}

/// A word of a script as bytes: `''` is empty, `\0` and `\xff` are what they look like.
pub(super) fn word(text: &str) -> Bytes {
    let mut out = Vec::new();
    let mut rest = if text == "''" { "" } else { text };
    while let Some(first) = rest.as_bytes().first() {
        let (byte, length) = match rest {
            _ if rest.starts_with(r"\0") => (0, 2),
            _ if rest.starts_with(r"\xff") => (0xff, 4),
            _ => (*first, 1),
        };
        out.push(byte);
        rest = &rest[length..];
    }
    Bytes::from(out)
}

/// A line that is a command: `put a 1`, or `1:4/2 put a 1` for command 4 of session 1, which acknowledges 1.
fn read_command(words: &[&str]) -> Option<Command> {
    let number = |text: &str| text.parse().expect("a number");
    Some(match *words {
        ["put", key, value] => Command::Put { key: word(key), value: word(value) },
        ["delete", key] => Command::Delete { key: word(key) },
        ["swap", key, "if", expected, "to", value] => Command::CompareAndSwap {
            key: word(key),
            expected: match expected.strip_prefix('@') {
                Some(revision) => Expected::Revision(Revision(number(revision))),
                None if expected == "absent" => Expected::Absent,
                None => Expected::Value(word(expected)),
            },
            value: word(value),
        },
        ["open", timeout] => Command::OpenSession { timeout: Duration::from_millis(number(timeout)) },
        ["close", session] => Command::CloseSession { session: SessionId(number(session)) },
        [stamp, ref command @ ..] => {
            let (session, numbers) = stamp.split_once(':')?;
            let (sequence, first_unanswered) = numbers.split_once('/').expect("sequence/first unanswered");
            let (sequence, first_unanswered) = (number(sequence), number(first_unanswered));
            let stamp = Stamp { session: SessionId(number(session)), sequence, first_unanswered };
            Command::InSession { stamp, command: Box::new(read_command(command)?) }
        }
        [] => return None,
    })
}

pub(super) fn run_line(store: &mut Store, line: &str) -> String {
    let words: Vec<_> = line.split_whitespace().collect();
    match words[..] {
        ["get", key] => store.get(&word(key)).as_ref().map_or("absent".to_owned(), shown_kv),
        ["scan", prefix, limit] => {
            shown_page(&store.scan_prefix(&word(prefix), limit.parse().expect("a number")))
        }
        ["scan", prefix, "after", after, limit] => {
            let limit = limit.parse().expect("a number");
            shown_page(&store.scan_prefix_after(&word(prefix), &word(after), limit))
        }
        ["size"] => format!("{} keys, {} bytes @{}", store.len(), store.bytes(), store.revision()),
        ["at", time] => {
            store.advance_to(LogTime(time.parse().expect("a number")));
            format!("{} sessions", store.sessions())
        }
        _ => {
            let command = read_command(&words).unwrap_or_else(|| panic!("not a line of the script: {line}"));
            shown_reply(&store.apply(&encoded(&command)))
        }
    }
}

/// Runs the lines before each `->` and compares the answers with what stands behind it.
fn check(script: &str) {
    check_on(&mut Store::new(), script);
}

pub(super) fn check_on(store: &mut Store, script: &str) {
    let (mut expected, mut found) = (String::new(), String::new());
    for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (ask, answer) = line.split_once("->").expect("ask -> answer");
        let _ = writeln!(expected, "{} -> {}", ask.trim(), answer.trim());
        let _ = writeln!(found, "{} -> {}", ask.trim(), run_line(store, ask.trim()));
    }
    assert_eq!(expected, found, "\nexpected:\n{expected}\nfound:\n{found}");
}

#[test]
fn every_change_takes_the_next_revision() {
    check(
        "size        -> 0 keys, 0 bytes @1
         put a one   -> put @2
         put b two   -> put @3
         put a three -> put @4
         get a       -> a=three created 2 changed 4 version 2
         get b       -> b=two created 3 changed 3 version 1
         get c       -> absent
         put b two   -> put @5
         get b       -> b=two created 3 changed 5 version 2
         size        -> 2 keys, 10 bytes @5",
    );
}

#[test]
fn a_key_that_comes_back_is_a_new_key() {
    check(
        "put a one -> put @2
         put a two -> put @3
         delete a  -> deleted @4
         delete a  -> nothing there @4
         get a     -> absent
         size      -> 0 keys, 0 bytes @4
         put a one -> put @5
         get a     -> a=one created 5 changed 5 version 1",
    );
}

#[test]
fn a_failed_compare_changes_nothing_and_says_what_it_saw() {
    check(
        "swap lock if absent to me    -> swapped @2
         swap lock if absent to you   -> not swapped @2: lock=me created 2 changed 2 version 1
         swap lock if you to them     -> not swapped @2: lock=me created 2 changed 2 version 1
         swap lock if me to you       -> swapped @3
         swap lock if @2 to them      -> not swapped @3: lock=you created 2 changed 3 version 2
         swap lock if @99 to them     -> not swapped @3: lock=you created 2 changed 3 version 2
         swap lock if @3 to them      -> swapped @4
         swap lock if them to them    -> swapped @5
         get lock                     -> lock=them created 2 changed 5 version 4
         swap gone if @0 to x         -> not swapped @5: absent
         swap gone if x to y          -> not swapped @5: absent
         size                         -> 1 keys, 8 bytes @5",
    );
}

#[test]
fn an_empty_value_is_a_value() {
    check(
        "put a ''              -> put @2
         get a                 -> a='' created 2 changed 2 version 1
         swap a if absent to b -> not swapped @2: a='' created 2 changed 2 version 1
         swap a if '' to b     -> swapped @3
         swap z if '' to b     -> not swapped @3: absent",
    );
}

#[test]
fn keys_are_bytes_and_sort_as_bytes() {
    check(
        r"put a\0b nul     -> put @2
          put \xff\xff top -> put @3
          put \xff high    -> put @4
          put a plain      -> put @5
          put b plain      -> put @6
          scan '' 10       -> [a a\x00b b \xff \xff\xff]
          scan \xff 10     -> [\xff \xff\xff]
          scan a\0 10      -> [a\x00b]
          get a\0b         -> a\x00b=nul created 2 changed 2 version 1",
    );
}

#[test]
fn a_scan_is_cut_into_pages_that_leave_nothing_out() {
    check(
        "put k1 x           -> put @2
         put k2 x           -> put @3
         put k3 x           -> put @4
         put j x            -> put @5
         put l x            -> put @6
         scan k 2           -> [k1 k2] and more
         scan k 3           -> [k1 k2 k3]
         scan k 0           -> [] and more
         scan m 0           -> []
         scan k after k2 2  -> [k3]
         scan k after k25 2 -> [k3]
         scan k after k3 2  -> []
         scan k after a 1   -> [k1] and more
         scan k after z 1   -> []
         scan '' 4          -> [j k1 k2 k3] and more",
    );
}

#[test]
fn many_keys_are_read_at_one_revision() {
    let mut store = Store::new();
    run_line(&mut store, "put a 1");
    let found = store.get_multi(&["a", "b", "a"]);
    let values: Vec<_> = found.iter().map(|kv| kv.as_ref().map(|kv| &kv.value[..])).collect();
    assert_eq!(values, [Some(&b"1"[..]), None, Some(b"1")]);
}

#[test]
fn the_limit_is_allowed_and_one_more_is_not() {
    let Limits { key_bytes, value_bytes } = Limits::MAX;
    let bytes = |length| Bytes::from(vec![b'x'; length]);
    let too_long = CommandError::ValueTooLong { limit: value_bytes, found: value_bytes + 1 };
    let cases = [
        (Command::Put { key: bytes(key_bytes), value: bytes(value_bytes) }, Ok(())),
        (Command::Delete { key: bytes(0) }, Err(CommandError::EmptyKey)),
        (
            Command::Put { key: bytes(key_bytes + 1), value: bytes(0) },
            Err(CommandError::KeyTooLong { limit: key_bytes, found: key_bytes + 1 }),
        ),
        (Command::Put { key: bytes(1), value: bytes(value_bytes + 1) }, Err(too_long)),
        (
            Command::CompareAndSwap {
                key: bytes(1),
                expected: Expected::Value(bytes(value_bytes + 1)),
                value: bytes(0),
            },
            Err(too_long),
        ),
    ];
    for (command, expected) in cases {
        let mut out = BytesMut::from(&b"before"[..]);
        assert_eq!(command.encode_into(&mut out), expected);
        assert!(expected.is_ok() || out == b"before"[..], "a refused command leaves nothing behind");
    }
    let longest = Command::SwapAttached {
        key: bytes(key_bytes),
        expected: Expected::Value(bytes(value_bytes)),
        value: bytes(value_bytes),
        attach: Attach::Lease(LeaseId(1)),
    };
    let stamp = Stamp { session: SessionId(1), sequence: 1, first_unanswered: 1 };
    let longest = Command::InSession { stamp, command: Box::new(longest) };
    assert_eq!(encoded(&longest).len(), Limits::MAX.command_bytes());
}

#[test]
fn what_is_admitted_is_configured_and_what_is_applied_is_not() {
    let narrow = Limits { key_bytes: 2, value_bytes: 3 };
    let mut store = Store::with_limits(narrow);
    let put = |key, value| encoded(&Command::Put { key: word(key), value: word(value) });
    assert_eq!(store.check(&put("ab", "abc")), Ok(()));
    assert_eq!(
        store.check(&put("abc", "abc")).expect_err("too long").to_string(),
        "the key has 3 bytes, the limit is 2: shorten it or raise limits.key_bytes",
    );
    assert_eq!(
        store.check(&put("ab", "abcd")).expect_err("too long").to_string(),
        "the value has 4 bytes, the limit is 3: split it or raise limits.value_bytes",
    );
    assert_eq!(store.apply(&put("abc", "abcd")), Reply::Put { revision: Revision(2) });
}

#[test]
fn bytes_that_are_no_command_are_refused_and_change_nothing() {
    let mut store = Store::new();
    run_line(&mut store, "put a 1");
    let before = store.clone();
    for (bytes, message) in [
        (&b""[..], "the command ends early: a field needs 1 bytes and 0 are left; it was cut or damaged"),
        (&[2, 1], "the command has format 2, this version reads format 1: upgrade this node"),
        (&[1, 16], "the command has the unknown tag 16: upgrade this node"),
        (&[1, 2, 0, 0, 0, 0], "the key is empty: give it at least one byte"),
        (
            &[1, 2, 255, 255, 255, 255, 7],
            "the command ends early: a field needs 4294967295 bytes and 1 are left; it was cut or damaged",
        ),
        (&[1, 2, 1, 0, 0, 0, b'a', 0], "1 bytes follow the end of the command; encode one command at a time"),
        (
            &[1, 3, 1, 0, 0, 0, b'a', 7],
            "the compare-and-swap has the unknown expectation 7: upgrade this node",
        ),
    ] {
        let reply = store.apply(bytes);
        assert_eq!(shown_reply(&reply), format!("refused: {message}"));
        assert_eq!(reply.revision(), None);
        assert_eq!(store.check(bytes).map_err(|error| error.to_string()), Err(message.to_owned()));
    }
    assert_eq!((store.revision(), store.digest()), (before.revision(), before.digest()));
    assert_eq!(store.scan_prefix(b"", 9), before.scan_prefix(b"", 9));
}

#[test]
fn the_digest_tells_histories_apart() {
    let digest = |script: &[&str]| {
        let mut store = Store::new();
        for line in script {
            run_line(&mut store, line);
        }
        store.digest()
    };
    let base = digest(&["put a 1", "put b 2"]);
    assert_eq!(base, digest(&["put a 1", "put b 2"]), "equal histories");
    assert_eq!(base, digest(&["put a 1", "delete x", "swap a if z to y", "put b 2"]), "no effect, no change");
    assert_eq!(
        base,
        digest(&["put a 1", "swap b if absent to 2"]),
        "the effect counts, not the way it was asked"
    );
    assert_ne!(base, digest(&["put b 2", "put a 1"]), "the order");
    assert_ne!(base, digest(&["put a 1", "put b 3"]), "a value");
    assert_ne!(base, digest(&["put a 2", "put b 2"]), "a value long ago");
    assert_ne!(base, digest(&["put a 1", "put c 2"]), "a key");
    assert_ne!(base, digest(&["put a 1", "put b2 ''"]), "a byte that moved from value to key");
    assert_ne!(digest(&[]), digest(&["put a 1", "delete a"]), "a store that is empty again");
    assert_ne!(digest(&["put a 1", "delete a"]), digest(&["put b 1", "delete b"]), "what was removed");
}

#[test]
fn the_binary_form_is_the_documented_one() {
    let put = Command::Put { key: Bytes::from_static(b"ab"), value: Bytes::from_static(b"c") };
    assert_eq!(&encoded(&put)[..], b"\x01\x01\x02\0\0\0ab\x01\0\0\0c");
    let swap = Command::CompareAndSwap {
        key: Bytes::from_static(b"a"),
        expected: Expected::Revision(Revision(258)),
        value: Bytes::new(),
    };
    assert_eq!(&encoded(&swap)[..], b"\x01\x03\x01\0\0\0a\x02\x02\x01\0\0\0\0\0\0\0\0\0\0");
}

#[test]
fn decoding_shares_the_bytes() {
    let bytes = encoded(&Command::Put { key: word("key"), value: word("value") });
    let Ok(Command::Put { key, value }) = Command::decode(&bytes) else { panic!("a put") };
    assert!(bytes.as_ptr_range().contains(&key.as_ptr()) && bytes.as_ptr_range().contains(&value.as_ptr()));
}

/// The store as anybody would write it who has no time to lose: a list, searched from the front.
#[derive(Default)]
pub(super) struct Model {
    keys: Vec<KeyValue>,
    changes: u64,
}

impl Model {
    pub(super) fn now(&self) -> Revision {
        Revision(1 + self.changes)
    }

    fn find(&self, key: &[u8]) -> Option<KeyValue> {
        self.keys.iter().find(|kv| kv.key == key).cloned()
    }

    fn set(&mut self, key: &Bytes, value: &Bytes) -> Revision {
        self.changes += 1;
        let now = self.now();
        let old = self.find(key);
        self.keys.retain(|kv| kv.key != *key);
        self.keys.push(KeyValue {
            key: key.clone(),
            value: value.clone(),
            create_revision: old.as_ref().map_or(now, |old| old.create_revision),
            modify_revision: now,
            version: old.map_or(0, |old| old.version) + 1,
            lease: None,
        });
        now
    }

    pub(super) fn apply(&mut self, command: &Command) -> Reply {
        match command {
            Command::Put { key, value } => Reply::Put { revision: self.set(key, value) },
            Command::Delete { key } if self.find(key).is_some() => {
                self.keys.retain(|kv| kv.key != *key);
                self.changes += 1;
                Reply::Deleted { revision: self.now(), before: Presence::Present }
            }
            Command::Delete { .. } => Reply::Deleted { revision: self.now(), before: Presence::Absent },
            Command::CompareAndSwap { key, expected, value } => {
                let current = self.find(key);
                let equal = match expected {
                    Expected::Absent => current.is_none(),
                    Expected::Value(value) => current.as_ref().is_some_and(|kv| kv.value == *value),
                    Expected::Revision(at) => current.as_ref().is_some_and(|kv| kv.modify_revision == *at),
                };
                if equal {
                    Reply::Swapped { revision: self.set(key, value) }
                } else {
                    Reply::NotSwapped { revision: self.now(), current: current.map(Box::new) }
                }
            }
            other => panic!("{other:?} is not for this model"),
        }
    }

    fn scan(&self, prefix: &[u8], limit: usize) -> Page {
        let mut items: Vec<_> = self.keys.iter().filter(|kv| kv.key.starts_with(prefix)).cloned().collect();
        items.sort_by(|a, b| a.key.cmp(&b.key));
        let more = items.len() > limit;
        items.truncate(limit);
        Page { items, more }
    }
}

/// Few short keys, so that commands meet; bytes 0, 1 and 255, where orders and prefixes go wrong.
pub(super) fn a_key() -> impl Strategy<Value = Bytes> {
    prop::collection::vec(prop::sample::select(vec![0_u8, 1, 255]), 1..4).prop_map(Bytes::from)
}

pub(super) fn a_value() -> impl Strategy<Value = Bytes> {
    prop::collection::vec(0_u8..3, 0..2).prop_map(Bytes::from)
}

pub(super) fn a_change() -> impl Strategy<Value = Command> {
    let expected = prop_oneof![
        Just(Expected::Absent),
        a_value().prop_map(Expected::Value),
        (0_u64..40).prop_map(|revision| Expected::Revision(Revision(revision))),
    ];
    prop_oneof![
        3 => (a_key(), a_value()).prop_map(|(key, value)| Command::Put { key, value }),
        2 => a_key().prop_map(|key| Command::Delete { key }),
        3 => (a_key(), expected, a_value())
            .prop_map(|(key, expected, value)| Command::CompareAndSwap { key, expected, value }),
    ]
}

proptest! {
    #[test]
    fn the_store_answers_like_the_model(
        commands in prop::collection::vec(a_change(), 0..60),
        prefix in prop::collection::vec(prop::sample::select(vec![0_u8, 1, 255]), 0..3),
        limit in 0_usize..8,
    ) {
        let (mut store, mut twin, mut model) = (Store::new(), Store::new(), Model::default());
        for command in &commands {
            let bytes = encoded(command);
            let before = (store.revision(), store.digest());
            let reply = store.apply(&bytes);
            prop_assert_eq!(&reply, &model.apply(command));
            prop_assert_eq!(&reply, &twin.apply(&bytes));
            prop_assert_eq!(store.digest(), twin.digest());
            prop_assert_eq!(before.0 == store.revision(), before.1 == store.digest());
            prop_assert_eq!(store.revision(), model.now());
        }
        let all = model.scan(b"", usize::MAX).items;
        prop_assert_eq!(store.len(), all.len());
        prop_assert_eq!(store.bytes(), all.iter().map(|kv| (kv.key.len() + kv.value.len()) as u64).sum::<u64>());
        prop_assert_eq!(&store.scan_prefix(&prefix, limit), &model.scan(&prefix, limit));

        let mut paged = Vec::new();
        let mut page = store.scan_prefix(&prefix, limit + 1);
        loop {
            let Some(last) = page.items.last().map(|kv| kv.key.clone()) else { break };
            paged.append(&mut page.items);
            page = store.scan_prefix_after(&prefix, &last, limit + 1);
        }
        prop_assert_eq!(paged, model.scan(&prefix, usize::MAX).items);
    }
}
