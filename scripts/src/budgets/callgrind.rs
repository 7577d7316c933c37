//! One run of callgrind, and what its file says of a function.

use std::collections::HashMap;
use std::path::Path;
use std::process::Command;

/// Runs a case; the text of callgrind's file.
pub(super) fn run(program: &Path, case: &str) -> Result<String, String> {
    let directory = tempfile::tempdir().map_err(|error| format!("a directory for callgrind: {error}"))?;
    let file = directory.path().join("callgrind.out");
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--collect-atstart=no", "--toggle-collect=*budgets*measured*"])
        .arg(format!("--callgrind-out-file={}", file.display()))
        .arg(program)
        .arg(case)
        // The environment lies on the stack, and its length moves what comes after it.
        .env_clear()
        .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
        // The C library chooses its memcpy by the processor: here the same on every x86-64.
        .env("GLIBC_TUNABLES", "glibc.cpu.hwcaps=-AVX,-AVX2,-AVX512F,-AVX512VL,-ERMS,-FSRM,-RTM")
        .current_dir(directory.path())
        .output()
        .map_err(|error| {
            format!("valgrind could not be started (Debian: apt-get install valgrind): {error}")
        })?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("case {case} failed under valgrind ({}):\n{said}", output.status));
    }
    std::fs::read_to_string(&file).map_err(|error| format!("callgrind left no file: {error}"))
}

/// The instructions of all calls of functions whose names contain `part`, callees included.
///
/// In the file a call is three lines, of which the last is a place and the inclusive cost; a name stands once beside its
/// number, and later the number alone.
pub(super) fn inclusive(profile: &str, part: &str) -> Option<u64> {
    let mut wanted: HashMap<&str, bool> = HashMap::new();
    let (mut callee, mut after_calls, mut sum) = (false, false, None);
    for line in profile.lines() {
        if after_calls {
            after_calls = false;
            let cost: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
            if callee {
                *sum.get_or_insert(0) += cost;
            }
        } else if let Some(name) = line.strip_prefix("fn=") {
            is_wanted(&mut wanted, name, part);
        } else if let Some(name) = line.strip_prefix("cfn=") {
            callee = is_wanted(&mut wanted, name, part);
        } else if line.starts_with("calls=") {
            after_calls = true;
        }
    }
    sum
}

fn is_wanted<'a>(wanted: &mut HashMap<&'a str, bool>, name: &'a str, part: &str) -> bool {
    let (number, name) = name.split_once(' ').unwrap_or((name, ""));
    if name.is_empty() {
        wanted.get(number).copied().unwrap_or(false)
    } else {
        *wanted.entry(number).or_insert(name.contains(part))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROFILE: &str = "\
fn=(1) budgets::measured
10 3
cfn=(2) budgets::Cluster::leader_is_called'2
calls=2 20
11 100
cfn=(3) memcpy
calls=1 30
12 7

fn=(2)
20 40
cfn=(3)
calls=4 30
21 60

fn=(4) budgets::Cluster::deliver
40 1
cfn=(2)
calls=1 20
41 50
";

    #[test]
    fn the_cost_of_a_function_is_that_of_its_calls() {
        assert_eq!(inclusive(PROFILE, "Cluster::leader_is_called"), Some(150));
        assert_eq!(inclusive(PROFILE, "memcpy"), Some(67));
        assert_eq!(inclusive(PROFILE, "follower"), None);
    }
}
