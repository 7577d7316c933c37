//! Switches for bugs put in on purpose, so that the tests can be tested: a mutant that nothing notices is a hole in what
//! judges the engine.
//!
//! In an ordinary build every switch is the constant `false`. Two builds have them: `--cfg 'mutant="NAME"'` makes one bug
//! permanent, and `--cfg zoo` makes all of them selectable while running, so that one build serves the whole zoo.

/// Whether the named bug is in.
///
/// ```
/// assert!(!wal::mutant!("ack_before_durable"), "not in a build that people use");
/// ```
#[macro_export]
macro_rules! mutant {
    ($name:literal) => {{
        #[cfg(zoo)]
        {
            const NAME: u64 = $crate::mutant::hash($name);
            cfg!(mutant = $name) || $crate::mutant::is_chosen(NAME)
        }
        #[cfg(not(zoo))]
        {
            cfg!(mutant = $name)
        }
    }};
}

/// A name as a number that is never zero.
#[cfg(zoo)]
#[must_use]
pub const fn hash(name: &str) -> u64 {
    let bytes = name.as_bytes();
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut at = 0;
    while at < bytes.len() {
        hash = (hash ^ bytes[at] as u64).wrapping_mul(0x0100_0000_01b3);
        at += 1;
    }
    hash | 1
}

/// Nothing was chosen yet.
#[cfg(zoo)]
const UNSET: u64 = u64::MAX;

#[cfg(zoo)]
static CHOSEN: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(UNSET);

/// Puts the named bug in, in place of the one before; an empty name takes it out.
#[cfg(zoo)]
pub fn choose(name: &str) {
    let chosen = if name.is_empty() { 0 } else { hash(name) };
    CHOSEN.store(chosen, std::sync::atomic::Ordering::Relaxed);
}

/// Whether the name with this hash was chosen: by [`choose`] or, for tests that know nothing of mutants, by the
/// environment variable `D_ENGINE_MUTANT`.
#[cfg(zoo)]
#[must_use]
pub fn is_chosen(hash: u64) -> bool {
    let chosen = CHOSEN.load(std::sync::atomic::Ordering::Relaxed);
    if chosen == UNSET {
        choose(&std::env::var("D_ENGINE_MUTANT").unwrap_or_default());
        return CHOSEN.load(std::sync::atomic::Ordering::Relaxed) == hash;
    }
    chosen == hash
}
