//! The search itself.

use super::local::Terms;
use super::marks::Marks;
use super::tables::Tables;
use super::visited::{Insertion, Visited};
use super::world::{Action, MAX_TERMS, Successor, World};
use super::{Mark, Scope, story};
use std::fmt;
use std::time::{Duration, Instant};

/// How a search ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Every world of the scope was seen, and all is well.
    Complete,
    /// The memory is used up. All worlds up to the depth were seen, and all is well with those.
    OutOfMemory,
    /// A property does not hold.
    Violation {
        /// Which one.
        what: String,
        /// How it comes to that, as text.
        story: String,
    },
}

/// What a search found.
#[derive(Clone, Debug)]
pub struct Report {
    /// How it ended.
    pub ending: Ending,
    /// Worlds seen; those that differ by the names of nodes are one.
    pub states: usize,
    /// Steps tried from them, those that change nothing included.
    pub transitions: u64,
    /// Steps from the founding to the farthest world.
    pub depth: usize,
    /// How long it took.
    pub took: Duration,
    /// States of one node, messages, and runs of the core.
    pub tables: (usize, usize, usize),
    /// Situations met.
    pub marks: Marks,
    /// Situations that should have been.
    pub missing: Vec<Mark>,
}

impl Report {
    /// Whether everything was seen, was well, and was not nothing.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.ending == Ending::Complete && self.missing.is_empty()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.took.as_secs_f64();
        #[allow(clippy::cast_precision_loss, reason = "for people")]
        let speed = self.states as f64 / seconds.max(1e-9);
        let (locals, messages, runs) = self.tables;
        writeln!(
            f,
            "{} states, {} transitions, depth {}, {seconds:.1} s, {speed:.0} states/s",
            self.states, self.transitions, self.depth
        )?;
        writeln!(f, "{locals} states of one node, {messages} messages, {runs} runs of the core")?;
        write!(f, "{}", self.marks)?;
        for mark in &self.missing {
            writeln!(f, "MISSING: {}", mark.text())?;
        }
        match &self.ending {
            Ending::Complete => write!(f, "complete: every state of the scope was visited"),
            Ending::OutOfMemory => {
                write!(f, "INCOMPLETE: out of memory; complete up to depth {}", self.depth - 1)
            }
            Ending::Violation { what, story } => write!(f, "VIOLATION: {what}\n{story}"),
        }
    }
}

/// How a world was first reached.
#[derive(Clone, Copy, Debug)]
struct Origin {
    parent: u32,
    action: u16,
}

struct Search<'a> {
    scope: &'a Scope,
    tables: Tables,
    visited: Visited,
    marks: Marks,
    origins: Vec<Origin>,
    transitions: u64,
    /// Room for the world that is tried.
    after: World,
}

/// Worlds of one depth.
#[derive(Default)]
struct Level {
    bytes: Vec<u8>,
    first: usize,
    count: usize,
}

/// Searches a scope. `progress` is called every few seconds with a line to show.
///
/// # Panics
/// If the scope has more terms than are kept book of.
#[must_use]
pub fn search(scope: &Scope, mut progress: impl FnMut(&str)) -> Report {
    assert!((1..=MAX_TERMS as u64).contains(&scope.terms), "1 to {MAX_TERMS} terms");
    let started = Instant::now();
    let terms = Terms {
        flush: scope.flush,
        one_entry_per_append: scope.one_entry_per_append,
        crashes: scope.crashes > 0,
        heartbeats: scope.heartbeats,
    };
    let mut search = Search {
        scope,
        tables: Tables::new(terms),
        visited: Visited::within(scope.memory),
        marks: Marks::default(),
        origins: Vec::new(),
        transitions: 0,
        after: World::default(),
    };
    let mut depth = 0;
    let ending = search.run(&mut depth, started, &mut progress);
    let marks = search.marks;
    let missing = scope.required.iter().copied().filter(|&mark| !marks.has(mark)).collect();
    Report {
        ending,
        states: search.visited.len(),
        transitions: search.transitions,
        depth,
        took: started.elapsed(),
        tables: search.tables.sizes(),
        marks,
        missing,
    }
}

impl Search<'_> {
    fn run(&mut self, depth: &mut usize, started: Instant, progress: &mut dyn FnMut(&str)) -> Ending {
        let mut world = match World::founded(&mut self.tables) {
            Ok(world) => world,
            Err(what) => return Ending::Violation { what, story: "at the founding".into() },
        };
        self.visited.insert(world.canonical(&self.tables));
        self.origins.push(Origin { parent: 0, action: 0 });
        let mut level = Level { count: 1, ..Level::default() };
        world.pack(&mut level.bytes);
        let mut next = Level::default();
        let mut actions = Vec::new();
        let mut told = started;
        while level.count > 0 {
            *depth += 1;
            next.bytes.clear();
            (next.first, next.count) = (level.first + level.count, 0);
            let mut at = 0;
            for number in level.first..level.first + level.count {
                at += world.unpack(&level.bytes[at..]);
                if number % 1024 == 0 && told.elapsed() > Duration::from_secs(5) {
                    told = Instant::now();
                    progress(&self.line(*depth, &level, number, started));
                }
                world.actions(self.scope, &self.tables, &mut actions);
                for (order, &action) in actions.iter().enumerate() {
                    let origin = Origin {
                        parent: u32::try_from(number).expect("memory ends before"),
                        action: u16::try_from(order).expect("few actions"),
                    };
                    match self.visit(&world, action, origin, &mut next) {
                        Ok(()) => {}
                        Err(Stop::Full) => return Ending::OutOfMemory,
                        Err(Stop::Broken(what)) => {
                            let path = self.path(origin);
                            let story = story::tell(self.scope, &mut self.tables, &path);
                            return Ending::Violation { what, story };
                        }
                    }
                }
            }
            std::mem::swap(&mut level, &mut next);
        }
        *depth -= 1;
        Ending::Complete
    }

    fn visit(&mut self, world: &World, action: Action, origin: Origin, next: &mut Level) -> Result<(), Stop> {
        self.transitions += 1;
        let after = &mut self.after;
        match world.after(action, self.scope, &mut self.tables, after, &mut self.marks) {
            Successor::Same => return Ok(()),
            Successor::Broken(what) => return Err(Stop::Broken(what)),
            Successor::World => {}
        }
        match self.visited.insert(after.canonical(&self.tables)) {
            Insertion::Known => return Ok(()),
            Insertion::Full => return Err(Stop::Full),
            Insertion::New => {}
        }
        self.origins.push(origin);
        after.pack(&mut next.bytes);
        next.count += 1;
        after.check(&self.tables, &mut self.marks).map_err(Stop::Broken)
    }

    /// The actions, as places in the lists of what was possible, from the founding up to and including this one.
    fn path(&self, last: Origin) -> Vec<u16> {
        let mut path = vec![last.action];
        let mut at = last.parent;
        while at != 0 {
            let Origin { parent, action } = self.origins[at as usize];
            path.push(action);
            at = parent;
        }
        path.reverse();
        path
    }

    fn line(&self, depth: usize, level: &Level, number: usize, started: Instant) -> String {
        let (locals, messages, runs) = self.tables.sizes();
        format!(
            "{:6.0} s: depth {depth}, {} of {} tried, {} states, {} transitions; {locals} nodes, {messages} messages, {runs} runs",
            started.elapsed().as_secs_f64(),
            number - level.first,
            level.count,
            self.visited.len(),
            self.transitions
        )
    }
}

enum Stop {
    Full,
    Broken(String),
}
