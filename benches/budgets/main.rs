//! What is counted in instructions: `cargo run --release -p scripts -- budgets` runs this program under callgrind, one case
//! at a time, and compares what it finds with `benches/budgets.toml`.
//!
//! Counted is what happens inside of [`measured`] and nothing else; the same work is done once before, so that memory is
//! there and nothing is met for the first time. One thread, no random source, no time of day: two runs give the same
//! number but for a handful of instructions of the allocator's. Without callgrind the program only shows that it works.
//!
//! ```text
//! budgets --list    the figures: name, case, operations, functions whose instructions are summed, separated by tabs
//! budgets <case>    one of the cases
//! budgets           all of them, each once
//! ```
#![allow(clippy::print_stdout, reason = "its output is its interface")]

mod cases;
#[path = "../cluster/mod.rs"]
mod cluster;
#[path = "../../src/runtime/mailbox.rs"]
#[allow(dead_code, reason = "the engine's file as it is: what it holds is not public")]
mod mailbox;

use std::hint::black_box;

/// One line of the budget file.
struct Figure {
    name: &'static str,
    case: &'static str,
    /// What the instructions are divided by.
    operations: usize,
    /// Whose instructions count, callees included. Parts of names; none of them calls another.
    functions: &'static [&'static str],
}

/// The work of a case, ready to be done any number of times.
type Work = Box<dyn FnMut()>;

struct Case {
    name: &'static str,
    prepare: fn() -> Work,
}

/// The only place where instructions are counted.
#[inline(never)]
fn measured(work: &mut dyn FnMut()) -> u32 {
    work();
    // Something to do after the call, so that it is one and not a jump.
    black_box(1)
}

fn run(case: &Case) {
    let mut work = (case.prepare)();
    work();
    measured(&mut *work);
}

fn main() {
    let argument = std::env::args().nth(1);
    match argument.as_deref() {
        Some("--list") => {
            for Figure { name, case, operations, functions } in cases::FIGURES {
                println!("{name}\t{case}\t{operations}\t{}", functions.join("\t"));
            }
        }
        Some(name) if !name.starts_with('-') => match cases::CASES.iter().find(|case| case.name == name) {
            Some(case) => run(case),
            None => {
                println!("no case of that name: {name}");
                std::process::exit(2);
            }
        },
        _ => {
            for case in cases::CASES {
                run(case);
                println!("{}: works", case.name);
            }
        }
    }
}
