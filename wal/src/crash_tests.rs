//! Power cuts at every place, against a model: nothing acknowledged is lost, and nothing appears that was not
//! written.

use crate::frame::Frame;
use crate::id::{HardState, LogIndex, NodeId, Term};
use crate::memory::{Disk, Machine};
use proptest::prelude::*;

/// What a log must be after a power cut: as acknowledged, or with the write in flight as well.
#[derive(Clone, Debug, Default, PartialEq)]
struct Model {
    frames: Vec<Frame>,
    hard_state: HardState,
}

impl Model {
    fn append(&mut self, frames: &[Frame]) {
        if let Some(first) = frames.first() {
            self.frames.truncate(usize::try_from(first.index().0 - 1).expect("small"));
        }
        self.frames.extend_from_slice(frames);
    }
}

#[derive(Clone, Debug)]
enum Action {
    /// Frames of these sizes, after stepping back over so many entries.
    Append {
        back: usize,
        sizes: Vec<usize>,
        vote: bool,
        commit: bool,
    },
    Vote(u64),
}

fn action() -> impl Strategy<Value = Action> {
    let append = (0_usize..4, prop::collection::vec(0_usize..6_000, 1..4), any::<bool>(), any::<bool>())
        .prop_map(|(back, sizes, vote, commit)| Action::Append { back, sizes, vote, commit });
    prop_oneof![4 => append, 1 => (1_u64..4).prop_map(Action::Vote)]
}

/// One life: some writes, each acknowledged but the last, whose sectors are kept by `keep`.
fn live(machine: &mut Machine, model: &mut Model, committed: &mut usize, actions: &[Action]) -> Model {
    let mut written = model.clone();
    for (n, action) in actions.iter().enumerate() {
        match action {
            Action::Append { back, sizes, vote, commit } => {
                let back = (*back).min(model.frames.len() - *committed);
                if back > 0 {
                    machine.term = Term(machine.term.0 + 1);
                    let keep = model.frames.len() - back;
                    machine.last = keep
                        .checked_sub(1)
                        .map_or(crate::memory::IDENTITY.origin(), |at| model.frames[at].id());
                }
                let frames: Vec<_> = sizes.iter().map(|&size| machine.frame(&vec![0xab; size])).collect();
                let hard_state = (*vote || machine.term > model.hard_state.term && back > 0)
                    .then_some(HardState { term: machine.term, vote: None, ..HardState::default() })
                    .filter(|state| state.term > model.hard_state.term);
                let first = usize::try_from(frames[0].index().0).expect("small");
                if *commit {
                    *committed = (first - 1).max(*committed);
                }
                machine.submit(hard_state, frames.clone(), LogIndex(*committed as u64));
                written.append(&frames);
                written.hard_state = hard_state.unwrap_or(written.hard_state);
            }
            Action::Vote(ahead) => {
                let term = Term(machine.term.0.max(model.hard_state.term.0) + ahead);
                machine.term = term;
                let state = HardState { term, vote: Some(NodeId(3)), ..HardState::default() };
                machine.submit(Some(state), vec![], LogIndex::ZERO);
                written.hard_state = state;
            }
        }
        assert!(machine.start(), "there is something to write");
        if n + 1 < actions.len() {
            machine.finish();
            *model = written.clone();
        }
    }
    written
}

/// A term that only the log knows counts, without a vote.
fn expected(model: &Model) -> HardState {
    match model.frames.last().map(Frame::term) {
        Some(term) if term > model.hard_state.term => HardState { term, vote: None, ..model.hard_state },
        _ => model.hard_state,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn acknowledged_survives_any_power_cut_and_only_the_write_in_flight_is_open(
        lives in prop::collection::vec((prop::collection::vec(action(), 1..8), any::<u64>(), 0_u8..4), 1..6)
    ) {
        let mut machine = Machine::new(24 << 10);
        let mut model = Model::default();
        let mut committed = 0;
        for (actions, seed, mode) in lives {
            let written = live(&mut machine, &mut model, &mut committed, &actions);
            let sectors = machine.pending_sectors();
            let mut random = seed | 1;
            let disk = machine.cut_power(|sector| match mode {
                0 => true,
                1 => sector < usize::try_from(seed % (sectors as u64 + 1)).expect("small"),
                _ => {
                    random ^= random << 13;
                    random ^= random >> 7;
                    random ^= random << 17;
                    random % 4 < u64::from(mode)
                }
            });
            let (again, found) = disk.open().map_err(|error| TestCaseError::fail(format!("refused: {error:?}")))?;
            let log = [&model.frames, &written.frames].into_iter().find(|log| **log == found.frames);
            prop_assert!(log.is_some(), "{:?}\nneither {:?}\nnor {:?}", found.frames, model.frames, written.frames);
            let state = found.state.hard_state;
            prop_assert!(state == model.hard_state || state == written.hard_state, "{:?}", state);
            prop_assert!(mode != 0 || (found.frames == written.frames && state == written.hard_state));
            // Nothing is called committed that is not the acknowledged log's: the new write may have replaced
            // it.
            let commit = usize::try_from(found.scanned.commit.0).expect("small");
            prop_assert!(commit <= committed && found.frames[..commit] == written.frames[..commit]);
            model = Model { frames: found.frames, hard_state: state };
            model.hard_state = expected(&model);
            machine = again;
            machine.term = Term(machine.term.0.max(model.hard_state.term.0));
            committed = committed.min(model.frames.len());
        }
    }
}

/// Three blocks on their way: every subset of their sectors that differs in what matters, and every prefix.
#[test]
fn every_prefix_and_every_single_missing_sector_of_a_write_is_cut_or_whole() {
    let machine = |body: &[u8]| {
        let mut machine = Machine::new(64 << 10);
        let acknowledged = vec![machine.append(b"one"), machine.append(b"two")];
        let frame = machine.frame(body);
        machine.submit(None, vec![frame.clone()], LogIndex(1));
        assert!(machine.start());
        (machine, acknowledged, frame)
    };
    let body = vec![0x5a; 10_000];
    let sectors = machine(&body).0.pending_sectors();
    assert_eq!(sectors, 24);
    let mut torn = 0;
    for missing in 0..sectors {
        for prefix in [true, false] {
            let (machine, acknowledged, frame) = machine(&body);
            let disk = machine.cut_power(|sector| if prefix { sector < missing } else { sector != missing });
            let found = disk.clone().inspect().expect("a tear is no corruption");
            // The last sectors of the padding are zeros, there or not.
            let whole = [acknowledged.clone(), vec![frame]].concat();
            assert!(found.frames == acknowledged || found.frames == whole, "{missing} {prefix}");
            torn += usize::from(found.scanned.cut.is_some());
            let (mut again, _) = disk.open().expect("it passed");
            assert!(again.disk.inspect().expect("cut").scanned.cut.is_none(), "a cut is made once");
            again.append(b"after the cut");
            assert_eq!(again.disk.inspect().expect("whole").frames.len(), found.frames.len() + 1);
        }
    }
    assert!(torn > 30, "tears were made: {torn}");
}

/// The cut itself is interrupted, at every block: the verdict stays.
#[test]
fn a_cut_that_was_interrupted_is_made_again() {
    let mut machine = Machine::new(64 << 10);
    let acknowledged = vec![machine.append(b"one")];
    let frame = machine.frame(&vec![1; 20_000]);
    machine.submit(None, vec![frame], LogIndex(1));
    assert!(machine.start());
    let disk = machine.cut_power(|sector| sector != 9);
    let cut = disk.inspect().expect("torn").scanned.cut.expect("torn");
    let range = [cut.at.offset, cut.until].map(|at| usize::try_from(at).expect("small"));
    assert_eq!(range[1] - range[0], 5 * 4096);
    for skip in 0..=5 {
        for from_the_front in [true, false] {
            let mut partly: Disk = disk.clone();
            let file = partly.file(crate::memory::Name::Segment(1));
            if from_the_front {
                file[range[0]..range[0] + skip * 4096].fill(0);
            } else {
                file[range[1] - skip * 4096..range[1]].fill(0);
            }
            let (mut again, found) = partly.open().expect("torn");
            assert_eq!(found.frames, acknowledged);
            let more = again.append(b"more");
            let found = again.disk.inspect().expect("whole");
            assert_eq!(found.frames, [acknowledged[0].clone(), more]);
            assert!(found.scanned.cut.is_none());
        }
    }
}
