//! Visits every state of a small cluster: `d-engine-exhaustive --scope full`.
#![allow(clippy::print_stdout, reason = "that is its purpose")]

use d_engine::sim::exhaustive::{Ending, Flush, Scope, search};
use std::process::ExitCode;

const USAGE: &str = "\
d-engine-exhaustive [--scope NAME] [--memory-gb N] [--SWITCH VALUE]...
  --scope NAME      ci (default), full, or one of those --list shows
  --list            the scopes
  --memory-gb N     memory for the set of visited states, a power of two (2)
  --mutant NAME     put a bug in first (builds with --cfg zoo only)
changes to the scope:
  --terms N --commands N --crashes N
  --flush hang|any  --newest on|off  --repeats on|off  --one-entry on|off  --again on|off  --waiting on|off
  --heartbeats on|off  --refusals on|off
";

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(message) => {
            eprintln!("error: {message}\n{USAGE}");
            ExitCode::from(2)
        }
    }
}

fn run() -> Result<bool, String> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == "--help") {
        print!("{USAGE}");
        return Ok(true);
    }
    if arguments.iter().any(|argument| argument == "--list") {
        for (name, scope) in Scope::all() {
            println!("{name:10} {scope}");
        }
        return Ok(true);
    }
    let mut name = "ci".to_owned();
    let mut changes = Vec::new();
    let mut rest = arguments.into_iter();
    while let Some(option) = rest.next() {
        let value = rest.next().ok_or(format!("{option} needs a value"))?;
        if option == "--scope" {
            name = value;
        } else {
            changes.push((option, value));
        }
    }
    let mut scope = Scope::named(&name).ok_or(format!("no scope is called {name}"))?;
    for (option, value) in &changes {
        change(&mut scope, option, value)?;
    }
    if changes.iter().any(|(option, _)| option != "--memory-gb") {
        scope.required.clear();
    }
    println!("scope {name}: {scope}");
    let report = search(&scope, |line| eprintln!("{line}"));
    println!("{report}");
    Ok(report.is_clean() || (report.ending == Ending::Complete && !changes.is_empty()))
}

fn change(scope: &mut Scope, option: &str, value: &str) -> Result<(), String> {
    let number = || value.parse::<u8>().map_err(|error| format!("{option} {value}: {error}"));
    let switch = || match value {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err(format!("{option} is on or off, not {value}")),
    };
    match option {
        "--terms" => scope.terms = u64::from(number()?),
        "--commands" => scope.commands = number()?,
        "--crashes" => scope.crashes = number()?,
        "--memory-gb" => scope.memory = usize::from(number()?) << 30,
        "--flush" => {
            scope.flush = match value {
                "hang" => Flush::UntilItHangs,
                "any" => Flush::AnyTime,
                _ => return Err(format!("--flush is hang or any, not {value}")),
            }
        }
        "--newest" => scope.only_newest = switch()?,
        "--repeats" => scope.repeats = switch()?,
        "--one-entry" => scope.one_entry_per_append = switch()?,
        "--again" => scope.sending_again = switch()?,
        "--heartbeats" => scope.heartbeats = switch()?,
        "--refusals" => scope.refusals = switch()?,
        #[cfg(zoo)]
        "--mutant" => wal::mutant::choose(value),
        "--waiting" => scope.waiting = switch()?,
        _ => return Err(format!("no option is called {option}")),
    }
    Ok(())
}
