//! A copy of the repository's sources to write mutants into.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::rewrite::Rewriter;
use super::{FILES, Mutant};
use crate::workspace;

/// The switch, as it stands in the copy.
const SWITCH: &str = "
/// Whether this number was chosen.
pub fn at(number: u32) -> bool {
    static CHOSEN: std::sync::LazyLock<u32> = std::sync::LazyLock::new(|| {
        std::env::var(\"D_ENGINE_MUTANT_NUMBER\").ok().and_then(|text| text.parse().ok()).unwrap_or(0)
    });
    *CHOSEN == number
}
";

/// Brings the copy up to date, all mutants in it but the refused ones. Files that stay the same are not touched, so that
/// cargo builds only what changed.
pub fn write(copy: &Path, refused: &BTreeSet<String>) -> Result<Vec<Mutant>, String> {
    let files = tracked()?;
    fs::create_dir_all(copy).map_err(|error| format!("{}: {error}", copy.display()))?;
    let mut rewriter = Rewriter::new(refused);
    let mut made = BTreeSet::new();
    for file in &files {
        let from = workspace::root().join(file);
        let to = copy.join(file);
        let mut bytes = fs::read(&from).map_err(|error| format!("{}: {error}", from.display()))?;
        if FILES.contains(&file.as_str()) {
            let text = String::from_utf8(bytes).map_err(|error| format!("{file}: {error}"))?;
            bytes = rewriter.rewrite(file, text)?.into_bytes();
        } else if file == "wal/src/mutant.rs" {
            bytes.extend_from_slice(SWITCH.as_bytes());
        }
        put(&to, &bytes).map_err(|error| format!("{}: {error}", to.display()))?;
        made.insert(to);
    }
    sweep(copy, &made).map_err(|error| format!("{}: {error}", copy.display()))?;
    if let Some(missing) = FILES.iter().find(|file| !files.iter().any(|there| there == *file)) {
        return Err(format!("{missing} is gone: correct the list of files"));
    }
    Ok(rewriter.finish())
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
