//! The TOML file: is it one, and which field is which line.

use super::error::{ConfigError, FileProblem, Origin, ValueProblem, nearest};
use super::fields::{Configuration, FIELDS};
use super::value::Raw;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A configuration has a few hundred bytes; what is longer than this is something else.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// Sets in `configuration` what the file at `path` says.
pub(super) fn read(path: &Path, configuration: &mut Configuration) -> Result<(), ConfigError> {
    let text = text(path).map_err(|problem| ConfigError::File { path: path.to_owned(), problem })?;
    let place = Place { path, text: &text };
    let table = DeTable::parse(&text).map_err(|error| place.syntax(&error))?;
    for (key, value) in table.get_ref() {
        let name: &str = key.get_ref();
        if let Some(position) = field(name) {
            place.set(configuration, position, value)?;
        } else if is_section(name) {
            let Some(section) = value.get_ref().as_table() else {
                return Err(place.section_expected(name, value));
            };
            for (key, value) in section {
                let name = format!("{name}.{}", key.get_ref());
                let Some(position) = field(&name) else { return Err(place.unknown(name, key.span().start)) };
                place.set(configuration, position, value)?;
            }
        } else {
            return Err(place.unknown(name.to_owned(), key.span().start));
        }
    }
    Ok(())
}

fn field(name: &str) -> Option<usize> {
    FIELDS.iter().position(|field| field.name == name)
}

fn sections() -> impl Iterator<Item = &'static str> {
    FIELDS.iter().filter_map(|field| field.name.split_once('.')).map(|(section, _)| section)
}

fn is_section(name: &str) -> bool {
    sections().any(|section| section == name)
}

/// The file as text, judged before it is parsed; never more than the limit is read.
fn text(path: &Path) -> Result<String, FileProblem> {
    let unreadable = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => FileProblem::Missing,
        _ => FileProblem::Unreadable(error),
    };
    // Looked at before it is opened: opening a pipe would wait for its writer.
    let metadata = std::fs::metadata(path).map_err(unreadable)?;
    if metadata.is_dir() {
        return Err(FileProblem::Directory);
    }
    if !metadata.is_file() {
        return Err(FileProblem::NotAFile);
    }
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(unreadable)?;
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.is_empty() {
        return Err(FileProblem::Empty);
    }
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(FileProblem::TooLong { limit: MAX_FILE_BYTES });
    }
    let marks: [&[u8]; 3] = [b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff"];
    if marks.iter().any(|mark| bytes.starts_with(mark)) {
        return Err(FileProblem::ByteOrderMark);
    }
    String::from_utf8(bytes).map_err(|error| {
        let offset = error.utf8_error().valid_up_to();
        FileProblem::NotUtf8 { line: line(&error.as_bytes()[..offset]), offset }
    })
}

/// The line that follows these bytes, from 1.
fn line(before: &[u8]) -> usize {
    1 + before.iter().filter(|&&byte| byte == b'\n').count()
}

/// A file being read, for messages.
struct Place<'a> {
    path: &'a Path,
    text: &'a str,
}

impl Place<'_> {
    fn origin(&self, offset: usize) -> Origin {
        Origin::File { path: self.path.to_owned(), line: line(&self.text.as_bytes()[..offset]) }
    }

    fn set(
        &self,
        configuration: &mut Configuration,
        position: usize,
        value: &Spanned<DeValue<'_>>,
    ) -> Result<(), ConfigError> {
        configuration.set(position, &raw(value.get_ref()), self.origin(value.span().start))
    }

    fn syntax(&self, error: &toml::de::Error) -> ConfigError {
        let offset = error.span().map_or(0, |span| span.start).min(self.text.len());
        let before = &self.text.as_bytes()[..offset];
        let column = before.iter().rev().take_while(|&&byte| byte != b'\n').count() + 1;
        let mut message = error.message().to_owned();
        // The parser says "duplicate key" and leaves the name to the span.
        if let Some(name) =
            error.span().and_then(|span| self.text.get(span)).filter(|_| message == "duplicate key")
        {
            message = format!("duplicate key {name}: keep one of them");
        }
        ConfigError::Syntax { path: self.path.to_owned(), line: line(before), column, message }
    }

    fn unknown(&self, name: String, offset: usize) -> ConfigError {
        let known = FIELDS.iter().map(|field| field.name).chain(sections());
        ConfigError::UnknownKey { nearest: nearest(&name, known), name, origin: self.origin(offset) }
    }

    fn section_expected(&self, name: &str, value: &Spanned<DeValue<'_>>) -> ConfigError {
        let field = sections().find(|section| *section == name).expect("asked for before");
        let raw = raw(value.get_ref());
        let problem = ValueProblem::Type { expected: "a table", found: raw.kind() };
        ConfigError::Value { field, found: raw.to_string(), origin: self.origin(value.span().start), problem }
    }
}

fn raw(value: &DeValue<'_>) -> Raw {
    match value {
        DeValue::String(text) => Raw::Text(text.to_string()),
        DeValue::Integer(integer) => {
            // Too large for 128 bits is as much out of every range as the largest of them.
            let wide = i128::from_str_radix(integer.as_str(), integer.radix());
            Raw::Integer(wide.unwrap_or(if integer.as_str().starts_with('-') {
                i128::MIN
            } else {
                i128::MAX
            }))
        }
        DeValue::Boolean(value) => Raw::Boolean(*value),
        DeValue::Array(items) => Raw::List(items.iter().map(|item| raw(item.get_ref())).collect()),
        DeValue::Table(table) => Raw::Table(
            table.iter().map(|(key, value)| (key.get_ref().to_string(), raw(value.get_ref()))).collect(),
        ),
        DeValue::Float(float) => Raw::Float(float.as_str().to_owned()),
        DeValue::Datetime(date) => Raw::Date(date.to_string()),
    }
}
