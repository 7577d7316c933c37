//! A copy of the repository's sources to write mutants into.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::ledger::fingerprint;
use super::rewrite::Rewriter;
use super::{FILES, Mutant};
use crate::workspace;

/// The switch, as it stands in the copy: which number was chosen is read once. A run that records instead writes each
/// number that asks into a file, once, so that a process that is killed has told what it reached.
const SWITCH: &str = "
const NOT_READ: u32 = u32::MAX;
const RECORDS: u32 = u32::MAX - 1;

static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(NOT_READ);

/// Whether this number was chosen.
pub fn at(number: u32) -> bool {
    let chosen = NUMBER.load(std::sync::atomic::Ordering::Relaxed);
    if chosen < RECORDS { chosen == number } else { reached(number) }
}

#[cold]
fn reached(number: u32) -> bool {
    use std::sync::atomic::{AtomicBool, Ordering};
    static SEEN: [AtomicBool; 1 << 16] = [const { AtomicBool::new(false) }; 1 << 16];
    static RECORD: std::sync::LazyLock<Option<std::fs::File>> = std::sync::LazyLock::new(|| {
        let path = std::env::var_os(\"D_ENGINE_MUTANTS_REACHED\")?;
        Some(std::fs::OpenOptions::new().append(true).create(true).open(path).expect(\"a file for the record\"))
    });
    let Some(mut record) = RECORD.as_ref() else {
        let chosen = std::env::var(\"D_ENGINE_MUTANT_NUMBER\").ok().and_then(|text| text.parse().ok()).unwrap_or(0);
        NUMBER.store(chosen, Ordering::Relaxed);
        return chosen == number;
    };
    NUMBER.store(RECORDS, Ordering::Relaxed);
    let seen = &SEEN[number as usize];
    if !seen.load(Ordering::Relaxed) && !seen.swap(true, Ordering::Relaxed) {
        std::io::Write::write_all(&mut record, format!(\"{number}\\n\").as_bytes()).expect(\"a record\");
    }
    false
}
";

/// What was written.
#[derive(Debug, Default)]
pub struct Source {
    /// What can be chosen.
    pub mutants: Vec<Mutant>,
    /// Those that the compiler refuses, by name.
    pub refused: BTreeSet<String>,
    /// The fingerprint of each file with mutants in it, before they were.
    pub files: BTreeMap<String, u64>,
    /// One of everything that a judge is built from.
    pub whole: u64,
}

/// Brings the copy up to date, all mutants in it but the refused ones. Files that stay the same are not touched, so that
/// cargo builds only what changed.
pub fn write(copy: &Path, refused: &BTreeSet<String>) -> Result<Source, String> {
    let listed = tracked()?;
    fs::create_dir_all(copy).map_err(|error| format!("{}: {error}", copy.display()))?;
    let mut rewriter = Rewriter::new(refused);
    let mut made = BTreeSet::new();
    let mut files = BTreeMap::new();
    let mut whole = Vec::new();
    for file in &listed {
        let from = workspace::root().join(file);
        let to = copy.join(file);
        let mut bytes = fs::read(&from).map_err(|error| format!("{}: {error}", from.display()))?;
        let print = fingerprint(&bytes);
        if ["src/", "wal/", "tests/", "history/", "Cargo"].iter().any(|start| file.starts_with(start)) {
            whole.extend_from_slice(&print.to_le_bytes());
        }
        if FILES.contains(&file.as_str()) {
            let text = String::from_utf8(bytes).map_err(|error| format!("{file}: {error}"))?;
            bytes = rewriter.rewrite(file, text)?.into_bytes();
            files.insert(file.clone(), print);
        } else if file == "wal/src/mutant.rs" {
            bytes.extend_from_slice(SWITCH.as_bytes());
        }
        put(&to, &bytes).map_err(|error| format!("{}: {error}", to.display()))?;
        made.insert(to);
    }
    sweep(copy, &made).map_err(|error| format!("{}: {error}", copy.display()))?;
    if let Some(missing) = FILES.iter().find(|file| !files.contains_key(**file)) {
        return Err(format!("{missing} is gone: correct the list of files"));
    }
    let mutants = rewriter.finish();
    Ok(Source { mutants, refused: refused.clone(), files, whole: fingerprint(&whole) })
}

/// The repository's files, those not yet committed too, in one order everywhere.
fn tracked() -> Result<Vec<String>, String> {
    let output = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard", "-z"])
        .current_dir(workspace::root())
        .output()
        .map_err(|error| format!("git could not be started: {error}"))?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let all = text.split('\0').filter(|name| !name.is_empty() && workspace::root().join(name).is_file());
    Ok(all.map(str::to_owned).collect::<BTreeSet<_>>().into_iter().collect())
}

fn put(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    if fs::read(path).is_ok_and(|there| there == bytes) {
        return Ok(());
    }
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    fs::write(path, bytes)
}

/// Removes what the sources no longer have.
fn sweep(directory: &Path, keep: &BTreeSet<PathBuf>) -> std::io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            sweep(&path, keep)?;
        } else if !keep.contains(&path) {
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}
