//! The short seeded run: what a fuzzer does, with a generator that always does the same.

use crate::decoders::Verdict;
use d_engine::raft::Random;
use std::collections::BTreeMap;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

/// Set to write the generated part of the corpus anew.
const REWRITE: &str = "REWRITE_CORPUS";

/// A decoder under test.
pub struct Decoder {
    /// Name of the target and of its corpus.
    pub name: &'static str,
    /// The target.
    pub target: fn(&[u8]) -> Verdict,
    /// Makes hashes match again, so that what lies behind them is reached.
    pub mend: fn(&mut [u8]),
    /// Inputs that must be taken, by name.
    pub seeds: Vec<(&'static str, Vec<u8>)>,
    /// Random inputs to try.
    pub executions: u32,
}

/// What became of the inputs.
#[derive(Debug, Default)]
pub struct Tally {
    pub taken: u64,
    pub refused: u64,
    /// By the first words of the error.
    pub reasons: BTreeMap<String, u64>,
}

impl Decoder {
    fn corpus(&self) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(self.name)
    }

    fn feed(&self, tally: &mut Tally, input: &[u8]) -> bool {
        match catch_unwind(AssertUnwindSafe(|| (self.target)(input))) {
            Ok(Ok(())) => {
                tally.taken += 1;
                true
            }
            Ok(Err(words)) => {
                tally.refused += 1;
                let reason = words.split(|c: char| c.is_ascii_digit()).next().unwrap_or_default();
                *tally.reasons.entry(reason.chars().take(40).collect()).or_default() += 1;
                false
            }
            Err(_) => {
                let kept =
                    std::env::temp_dir().join(format!("{}-{}", self.name, tally.taken + tally.refused));
                fs::write(&kept, input).expect("a temporary file");
                panic!("target {}: keep {} in its corpus", self.name, kept.display());
            }
        }
    }

    /// Corpus, prefixes, flipped bits, random splices.
    ///
    /// # Panics
    /// If the target does, if a seed is refused, or if the corpus is not what the seeds are.
    pub fn run(&self) -> Tally {
        let mut tally = Tally::default();
        let corpus = self.read_corpus();
        for (name, input) in &corpus {
            let taken = self.feed(&mut tally, input);
            let seed = self.seeds.iter().any(|(seed, _)| seed == name);
            assert!(taken || !seed, "{}: {name} is valid and was refused: {:?}", self.name, tally.reasons);
        }
        for input in corpus.values() {
            let step = (input.len() / 2000).max(1);
            for end in (0..input.len()).step_by(step) {
                self.feed(&mut tally, &input[..end]);
            }
            let bits = input.len() * 8;
            for bit in (0..bits).step_by((bits / 4000).max(1)) {
                let mut flipped = input.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                self.feed(&mut tally, &flipped);
                (self.mend)(&mut flipped);
                self.feed(&mut tally, &flipped);
            }
        }
        let inputs: Vec<&Vec<u8>> = corpus.values().collect();
        let mut random = Random::from_seed(0xd_e4e1);
        for _ in 0..self.executions {
            let mut input = splice(&mut random, &inputs);
            if !random.bits().is_multiple_of(4) {
                (self.mend)(&mut input);
            }
            self.feed(&mut tally, &input);
        }
        assert!(tally.taken > 0 && tally.refused > 0, "both happen: {tally:?}");
        tally
    }

    fn read_corpus(&self) -> BTreeMap<String, Vec<u8>> {
        let place = self.corpus();
        if std::env::var_os(REWRITE).is_some() {
            fs::create_dir_all(&place).expect("the corpus can be written");
            for (name, bytes) in &self.seeds {
                fs::write(place.join(name), bytes).expect("the corpus can be written");
            }
        }
        let entries = fs::read_dir(&place).expect("the corpus is committed");
        let corpus: BTreeMap<String, Vec<u8>> = entries
            .map(|entry| {
                let entry = entry.expect("the corpus is readable");
                let name = entry.file_name().to_string_lossy().into_owned();
                (name, fs::read(entry.path()).expect("the corpus is readable"))
            })
            .collect();
        for (name, bytes) in &self.seeds {
            assert!(corpus.get(*name) == Some(bytes), "{}/{name} is out of date: set {REWRITE}", self.name);
        }
        corpus
    }
}

fn below(random: &mut Random, limit: usize) -> usize {
    usize::try_from(random.bits() % (limit.max(1) as u64)).expect("below a usize")
}

/// A child of two inputs, with a few damages.
fn splice(random: &mut Random, inputs: &[&Vec<u8>]) -> Vec<u8> {
    let one = inputs[below(random, inputs.len())];
    let mut child = one.clone();
    if random.bits().is_multiple_of(2) {
        let other = inputs[below(random, inputs.len())];
        child.truncate(below(random, child.len() + 1));
        child.extend_from_slice(&other[below(random, other.len() + 1)..]);
    }
    for _ in 0..=random.bits() % 3 {
        damage(random, &mut child);
    }
    child.truncate(1 << 16);
    child
}

fn damage(random: &mut Random, child: &mut Vec<u8>) {
    let at = below(random, child.len());
    let span = below(random, 17).min(child.len() - at);
    match random.bits() % 8 {
        0 if !child.is_empty() => child[at] ^= 1 << (random.bits() % 8),
        1 if !child.is_empty() => child[at] = random.bits().to_le_bytes()[0],
        2 => drop(child.drain(at..at + span)),
        3 => {
            let again = child[at..at + span].to_vec();
            drop(child.splice(at..at, again));
        }
        4 => child.truncate(at),
        5 => {
            let noise: Vec<u8> = (0..span).map(|_| random.bits().to_le_bytes()[0]).collect();
            child.extend(noise);
        }
        // Numbers at which arithmetic goes wrong, at the places where numbers stand.
        kind => {
            const EDGES: [u64; 10] =
                [0, 1, 0x7f, 0xff, 0xffff, 0x7fff_ffff, 0xffff_ffff, 1 << 63, u64::MAX - 1, u64::MAX];
            let edge = EDGES[below(random, EDGES.len())].to_le_bytes();
            let width = [4, 8, 2, 1][below(random, 4)];
            let at = if kind == 6 { at / 4 * 4 } else { at };
            for (place, byte) in child.iter_mut().skip(at).take(width).zip(edge) {
                *place = byte;
            }
        }
    }
}
