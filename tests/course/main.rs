//! A course in Raft as text: each script under `scripts` gives commands to the engine's own nodes and says what they
//! lead to, exactly. `README.md` beside this file has the table of contents, the commands, and how to rewrite what is
//! expected after a change: `D_ENGINE_REWRITE=1 cargo test --no-default-features --test course`.

mod cluster;
mod disk;
mod look;
mod member;
mod play;
mod script;
mod words;

use cluster::Cluster;
use script::{Line, Script, difference};
use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Who rewrites scripts must not be read by who lists them.
static FILES: Mutex<()> = Mutex::new(());

/// Whether what is expected is compared, or written anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Compare,
    Rewrite,
}

fn mode() -> Mode {
    let asked = std::env::var("D_ENGINE_REWRITE").is_ok_and(|value| !value.is_empty() && value != "0");
    if asked { Mode::Rewrite } else { Mode::Compare }
}

fn home() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/course")
}

fn files() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(home().join("scripts")).expect("the scripts are beside the interpreter");
    let mut files: Vec<_> = entries.map(|entry| entry.expect("readable").path()).collect();
    files.sort();
    files
}

/// Plays a script; returns it with what really came, and what is wrong.
fn run(name: &str, text: &str) -> (Option<Script>, Vec<String>) {
    let mut script = match Script::parse(text) {
        Ok(script) => script,
        Err(error) => return (None, vec![format!("{name}:{error}")]),
    };
    let mut wrong = Vec::new();
    let mut cluster = Cluster::new();
    for line in &mut script.lines {
        let Line::Command { number, text, expected } = line else { continue };
        let at = format!("{name}:{number}");
        let played = catch_unwind(AssertUnwindSafe(|| play::play(&mut cluster, text)));
        match played {
            Ok(Ok(actual)) if actual == *expected => {}
            Ok(Ok(actual)) => {
                wrong.push(format!("{at}: {text}\n{}", difference(expected, &actual)));
                *expected = actual;
            }
            Ok(Err(error)) => {
                wrong.push(format!("{at}: {error}"));
                return (None, wrong);
            }
            Err(panic) => {
                let plain = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
                let why = plain.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
                wrong.push(format!("{at}: {text}: an assertion of the engine fired: {why}"));
                return (None, wrong);
            }
        }
    }
    (Some(script), wrong)
}

#[test]
fn every_script_says_what_happens() {
    let _turn = FILES.lock().unwrap_or_else(PoisonError::into_inner);
    let mut failures = String::new();
    for file in files() {
        let name = format!("tests/course/scripts/{}", file.file_name().expect("a file").to_string_lossy());
        let text = std::fs::read_to_string(&file).expect("readable");
        match (run(&name, &text), mode()) {
            ((Some(script), _), Mode::Rewrite) => std::fs::write(&file, script.render()).expect("writable"),
            ((_, wrong), _) => wrong.iter().for_each(|one| writeln!(failures, "{one}").expect("a string")),
        }
    }
    assert!(failures.is_empty(), "what is expected (-) and what came (+):\n{failures}");
}

/// The table of contents, made from the titles.
fn contents() -> String {
    let mut table = String::new();
    for (number, file) in (1..).zip(files()) {
        let name = file.file_name().expect("a file").to_string_lossy().into_owned();
        assert!(name.starts_with(&format!("{number:02}-")), "lesson {number} is missing, here is {name}");
        let script = Script::parse(&std::fs::read_to_string(&file).expect("readable")).expect("a script");
        let title = script.title().unwrap_or_else(|error| panic!("{name}:{error}")).to_owned();
        writeln!(table, "{number}. [{title}](scripts/{name})").expect("a string");
    }
    table
}

#[test]
fn the_table_of_contents_has_every_lesson() {
    const BEGIN: &str = "<!-- lessons: written by the rewrite switch -->\n";
    const END: &str = "<!-- end of lessons -->";
    let _turn = FILES.lock().unwrap_or_else(PoisonError::into_inner);
    let file = home().join("README.md");
    let text = std::fs::read_to_string(&file).expect("readable");
    let (head, rest) = text.split_once(BEGIN).expect("the table begins");
    let (table, tail) = rest.split_once(END).expect("the table ends");
    match mode() {
        Mode::Rewrite => {
            std::fs::write(&file, format!("{head}{BEGIN}{}{END}{tail}", contents())).expect("writable");
        }
        Mode::Compare => assert_eq!(table, contents(), "rewrite tests/course/README.md"),
    }
}

#[test]
fn a_wrong_expectation_is_shown_with_its_line_and_difference() {
    let (script, wrong) = run("lesson.txt", "# title\nnodes 1\nstatus\n    1 is happy\n");
    assert!(script.is_some());
    let [only] = wrong.as_slice() else { panic!("one is wrong: {wrong:?}") };
    assert!(
        only.starts_with("lesson.txt:3: status\n  - 1 is happy\n  + 1 has no leader in term 0"),
        "{only}"
    );
}

#[test]
fn a_command_that_nobody_knows_is_an_error_in_either_mode() {
    for text in ["# title\ndance 1\n", "# title\nnodes 3\ndeliver 1->2\n", "# title\nnodes 3\ncrash 9\n"] {
        let (script, wrong) = run("lesson.txt", text);
        assert!(script.is_none() && wrong.len() == 1, "{text}: {wrong:?}");
        assert!(wrong[0].starts_with("lesson.txt:"), "{wrong:?}");
    }
}
