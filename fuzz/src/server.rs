//! Targets for the decoders around the core: configuration, and what the transport reads before it knows anybody.

use crate::allocation::bounded;
use crate::decoders::Verdict;
use bytes::Bytes;
use d_engine::config::{ConfigError, Draft, FIELDS, Field};
use std::cell::RefCell;
use std::ffi::OsString;
use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;

fn refused(error: &ConfigError) -> Verdict {
    let words = error.to_string();
    assert!(words.len() > 10, "an error says what is wrong: {words:?}");
    Err(words)
}

/// What was read is judged, and reads the same from what it shows.
fn judge(draft: Draft) -> Verdict {
    let shown = |draft: &Draft| -> Vec<(String, String)> {
        let rows = draft.configuration().show().map(|(field, value, _)| (field.variable(), value));
        rows.filter(|(_, value)| !value.is_empty()).collect()
    };
    let variables = shown(&draft);
    let environment = variables.iter().map(|(name, value)| (name.into(), value.into()));
    let again = Draft::read(None, environment).map(|again| shown(&again));
    assert_eq!(again.as_ref().ok(), Some(&variables), "what is shown is read back: {again:?}");
    draft.finish().map(drop).or_else(|error| refused(&error))
}

/// A configuration file. It is a real one: reading it is part of the decoder.
pub fn configuration(input: &[u8]) -> Verdict {
    thread_local! {
        static PLACE: RefCell<Option<PathBuf>> = const { RefCell::new(None) };
    }
    let path = PLACE.with(|place| {
        let thread = format!("{:?}", std::thread::current().id());
        let name = format!("d-engine-fuzz-{}-{thread}.toml", std::process::id());
        place.borrow_mut().get_or_insert_with(|| std::env::temp_dir().join(name)).clone()
    });
    File::create(&path).and_then(|mut file| file.write_all(input)).expect("a temporary file");
    let draft = Draft::read(Some(&path), []);
    std::fs::remove_file(&path).expect("just written");
    match draft {
        Ok(draft) => judge(draft),
        Err(error) => refused(&error),
    }
}

/// Environment variables: a line each, `SECTION__KEY=value`.
pub fn environment(input: &[u8]) -> Verdict {
    let variables = input.split(|&byte| byte == b'\n').filter_map(|line| {
        let at = line.iter().position(|&byte| byte == b'=')?;
        Some((os_string(&[b"D_ENGINE__", &line[..at]].concat()), os_string(&line[at + 1..])))
    });
    match Draft::read(None, variables) {
        Ok(draft) => judge(draft),
        Err(error) => refused(&error),
    }
}

#[cfg(unix)]
fn os_string(bytes: &[u8]) -> OsString {
    std::os::unix::ffi::OsStringExt::from_vec(bytes.to_vec())
}

#[cfg(not(unix))]
fn os_string(bytes: &[u8]) -> OsString {
    String::from_utf8_lossy(bytes).into_owned().into()
}

/// The longest message in the stream under test.
pub const MAX_MESSAGE: usize = 2048;

/// A stream of messages: the first byte says how it is cut into pieces. An announced length takes memory up to the
/// limit before its bytes are there; that is what the limit is for.
pub fn assembler(input: &[u8]) -> Verdict {
    let (cut, stream) = input.split_first().map_or((1, input), |(&cut, rest)| (usize::from(cut) + 1, rest));
    let pieces: Vec<_> = stream.chunks(cut).map(Bytes::copy_from_slice).collect();
    let mut messages = Vec::with_capacity(input.len() + 1);
    let verdict = bounded(input, 2, || {
        transport::decoders::assemble(pieces, MAX_MESSAGE, |message| messages.push(message))
    });
    // The slow, obvious version sees the stream in one piece.
    let mut rest = stream;
    let mut expected = Vec::new();
    while let Some((length, tail)) = rest.split_first_chunk::<4>() {
        let length = u32::from_le_bytes(*length) as usize;
        if length > MAX_MESSAGE {
            assert_eq!((messages, verdict.is_err()), (expected, true), "refused where it is announced");
            return verdict.map_err(str::to_owned);
        }
        let Some((message, tail)) = tail.split_at_checked(length) else { break };
        expected.push(Bytes::copy_from_slice(message));
        rest = tail;
    }
    assert_eq!((messages, verdict), (expected, Ok(())));
    Ok(())
}

/// A peer's greeting.
pub fn greeting(input: &[u8]) -> Verdict {
    match bounded(input, 1, || transport::decoders::greeting(input)) {
        Ok(again) => {
            assert_eq!(again, input, "a greeting has one form");
            Ok(())
        }
        Err(code) => Err(format!("{code:?}")),
    }
}

/// A certificate's name.
pub fn identity(input: &[u8]) -> Verdict {
    let Ok(name) = std::str::from_utf8(input) else { return Err("not UTF-8".to_owned()) };
    match transport::decoders::identity(name) {
        Some(identity) => {
            assert_eq!(identity.to_string(), name, "an identity has one name");
            Ok(())
        }
        None => Err("not a name of this form".to_owned()),
    }
}

/// A line for every field that has a default.
#[allow(dead_code)] // For seeds.
pub fn variables() -> Vec<Vec<u8>> {
    let fields = FIELDS.iter().filter(|field| !field.default.is_empty());
    let line =
        |field: &Field| format!("{}={}", field.variable().trim_start_matches("D_ENGINE__"), field.default);
    fields.map(line).map(String::into_bytes).collect()
}
