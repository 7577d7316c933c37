//! The Rust code of the `proto` crate, made from its `.proto` files without `protoc`.
//!
//! Sources: every `.proto` below `proto/proto`. Output: one `<package>.rs` each in `proto/src/generated`, checked in, so
//! that a build needs neither a generator nor a build script; [`check`] is the test that the two agree.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fs, io};

/// Why code was not generated, or is not what was checked in.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProtoError {
    /// The compiler's words, with file and line.
    #[error("{0}")]
    Invalid(String),
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    Io {
        /// Which one.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The checked-in code differs from what the sources say.
    #[error("out of date: {}; run `cargo run -p scripts -- proto` and commit the result", .0.join(", "))]
    Stale(Vec<String>),
}

fn at<T>(path: &Path, result: io::Result<T>) -> Result<T, ProtoError> {
    result.map_err(|source| ProtoError::Io { path: path.to_path_buf(), source })
}

/// The sources below `directory`, sorted, so that output never depends on the order of a directory listing.
fn sources(directory: &Path) -> Result<Vec<PathBuf>, ProtoError> {
    let mut found = Vec::new();
    let mut open = vec![directory.to_path_buf()];
    while let Some(directory) = open.pop() {
        for entry in at(&directory, fs::read_dir(&directory))? {
            let path = at(&directory, entry)?.path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "proto") {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// What the generated directory should hold: file name and text.
pub fn generate(crate_directory: &Path) -> Result<BTreeMap<String, String>, ProtoError> {
    let include = crate_directory.join("proto");
    let mut compiler =
        protox::Compiler::new([&include]).map_err(|error| ProtoError::Invalid(error.to_string()))?;
    compiler.include_imports(true).include_source_info(true);
    for source in sources(&include)? {
        compiler.open_file(&source).map_err(|error| ProtoError::Invalid(format!("{error:?}")))?;
    }
    let scratch = at(Path::new("temporary directory"), tempfile::tempdir())?;
    prost_build::Config::new()
        .out_dir(scratch.path())
        .bytes(["."])
        .compile_fds(compiler.file_descriptor_set())
        .map_err(|error| ProtoError::Invalid(error.to_string()))?;
    read_all(scratch.path())
}

fn read_all(directory: &Path) -> Result<BTreeMap<String, String>, ProtoError> {
    let mut files = BTreeMap::new();
    for entry in at(directory, fs::read_dir(directory))? {
        let path = at(directory, entry)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.ends_with(".rs") {
            files.insert(name, at(&path, fs::read_to_string(&path))?);
        }
    }
    Ok(files)
}

/// Write the generated code; the names of the files that changed.
pub fn write(crate_directory: &Path) -> Result<Vec<String>, ProtoError> {
    let output = crate_directory.join("src/generated");
    at(&output, fs::create_dir_all(&output))?;
    let (wanted, present) = (generate(crate_directory)?, read_all(&output)?);
    let changed = difference(&wanted, &present);
    for name in &changed {
        let path = output.join(name);
        match wanted.get(name) {
            Some(text) => at(&path, fs::write(&path, text))?,
            None => at(&path, fs::remove_file(&path))?,
        }
    }
    Ok(changed)
}

/// An error that names every checked-in file that differs from what the sources say.
pub fn check(crate_directory: &Path) -> Result<(), ProtoError> {
    let stale = difference(&generate(crate_directory)?, &read_all(&crate_directory.join("src/generated"))?);
    if stale.is_empty() { Ok(()) } else { Err(ProtoError::Stale(stale)) }
}

fn difference(wanted: &BTreeMap<String, String>, present: &BTreeMap<String, String>) -> Vec<String> {
    let mut names: Vec<String> = wanted.keys().chain(present.keys()).cloned().collect();
    names.sort();
    names.dedup();
    names.retain(|name| wanted.get(name) != present.get(name));
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir_all(directory.path().join("proto")).unwrap();
        fs::write(
            directory.path().join("proto/peer.proto"),
            "syntax = \"proto3\";\npackage peer.v1;\n// A vote.\nmessage Vote { uint64 term = 1; bytes hash = 2; }\n",
        )
        .unwrap();
        directory
    }

    #[test]
    fn written_code_passes_the_check_until_the_source_changes() {
        let example = example();
        assert_eq!(write(example.path()).unwrap(), ["peer.v1.rs"]);
        check(example.path()).unwrap();
        assert!(write(example.path()).unwrap().is_empty(), "a second run changes nothing");

        let source = example.path().join("proto/peer.proto");
        let text = fs::read_to_string(&source).unwrap().replace("term = 1", "term = 3");
        fs::write(&source, text).unwrap();
        let error = check(example.path()).unwrap_err().to_string();
        assert!(error.contains("peer.v1.rs") && error.contains("-- proto"), "{error}");
    }

    #[test]
    fn leftover_generated_files_are_removed() {
        let example = example();
        write(example.path()).unwrap();
        fs::write(example.path().join("src/generated/gone.rs"), "").unwrap();
        assert!(check(example.path()).is_err());
        assert_eq!(write(example.path()).unwrap(), ["gone.rs"]);
        check(example.path()).unwrap();
    }

    #[test]
    fn a_mistake_is_reported_with_its_place() {
        let example = example();
        fs::write(
            example.path().join("proto/bad.proto"),
            "syntax = \"proto3\";\nmessage A { Missing b = 1; }\n",
        )
        .unwrap();
        let error = generate(example.path()).unwrap_err().to_string();
        assert!(error.contains("bad.proto") && error.contains("Missing"), "{error}");
    }

    #[test]
    fn the_checked_in_code_is_what_the_sources_say() {
        let directory = crate::workspace::root().join("proto");
        if directory.join("proto").is_dir() {
            check(&directory).unwrap();
        }
    }
}
