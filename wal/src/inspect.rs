//! Looking at a directory without changing it: what stands in its files, and what an opening would make of them.
//!
//! Nothing is written, made or removed, and the lock is only asked for, so this works beside a running node. Then the log
//! may move while it is read, and a place that looks damaged once proves nothing: [`look`] looks again until it finds the
//! log whole or the same damage twice, and says when it found neither.
//!
//! The judgement is the engine's own ([`Opening::decide`]), carried out as far as a list of [`Change`]s.

use crate::damage::{Damage, Place};
use crate::directory::{self, LOCK_NAME, Listing, MEMORY_MARK};
use crate::envelope::Header;
use crate::error::OpenError;
use crate::id::{EntryId, LogIndex, Term};
use crate::journal::Tail;
use crate::open::DEFAULT_SEGMENT_BYTES;
use crate::opening::{Change, Opening, Rules, read_state};
use crate::recovered::{RecoveryReport, SegmentPath};
use crate::scan::{Refused, SegmentFile, is_zero};
use crate::sector::{BLOCK, BLOCK_U64};
use crate::segment::{FIRST_OFFSET, HeaderProblem, Identity, SegmentHeader, segment_name};
use crate::state::{self, STATE_NAME, StateRecord};
use crate::walk::{Blocks, Found, Window, envelope_at, is_damage};
use bytes::Bytes;
use rustix::fs::{FlockOperation, flock};
use std::cell::Cell;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How often a log that moves is looked at.
const LOOKS: u32 = 6;
const PAUSE: Duration = Duration::from_millis(100);

/// A directory as it was found.
#[derive(Debug)]
pub struct Look {
    /// The directory.
    pub path: PathBuf,
    /// Whether a process has it open.
    pub holder: Holder,
    /// False if a process has it open and no two looks agreed: the outlook is not to be believed.
    pub settled: bool,
    /// Whose it is, as far as a slot of the state says.
    pub identity: Option<Identity>,
    /// The state record that counts.
    pub state: Option<StateRecord>,
    /// Numbers of the segment files, ascending.
    pub segments: Vec<u64>,
    /// The mark of a node that acknowledged from memory is there.
    pub memory_first: bool,
    /// Files that the log leaves alone: kept for people after a repair, or not its own.
    pub others: Vec<String>,
    /// Files that never got their name; the next opening removes them.
    pub temporary: Vec<String>,
    /// What an opening would make of it.
    pub outlook: Outlook,
}

/// Who has a directory open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// Nobody.
    Nobody,
    /// A process, with its id as far as the lock file says.
    Process(Option<u32>),
}

/// What an opening would do.
#[derive(Debug)]
pub enum Outlook {
    /// It opens, after these changes.
    Whole(Box<Opens>),
    /// A node alone refuses it. One with peers makes these changes, and knows what may be missing.
    Repairable(Place, Box<Opens>),
    /// No node opens it.
    Refused(Place),
}

/// A log that opens.
#[derive(Debug)]
pub struct Opens {
    /// What is found.
    pub report: RecoveryReport,
    /// What is changed first, in this order.
    pub changes: Vec<Change>,
    /// Where the log stands then.
    pub tail: Tail,
}

impl Outlook {
    /// Where it is damaged.
    #[must_use]
    pub fn place(&self) -> Option<&Place> {
        match self {
            Self::Whole(_) => None,
            Self::Repairable(place, _) | Self::Refused(place) => Some(place),
        }
    }
}

/// Looks at the log in a directory. `progress` is told of bytes read, and of how many there are.
///
/// # Errors
/// [`OpenError`] if there is no log, it cannot be read, or another program wrote it. Damage is no error here.
pub fn look(path: &Path, progress: impl Fn(u64, u64)) -> Result<Look, OpenError> {
    let mut before: Option<Place> = None;
    let mut looks = 1;
    loop {
        let mut look = look_once(path, &progress)?;
        let place = look.outlook.place();
        if place.is_none() || look.holder == Holder::Nobody || place == before.as_ref() {
            return Ok(look);
        }
        if looks == LOOKS {
            look.settled = false;
            return Ok(look);
        }
        before = place.cloned();
        looks += 1;
        std::thread::sleep(PAUSE);
    }
}

fn look_once(path: &Path, progress: &impl Fn(u64, u64)) -> Result<Look, OpenError> {
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => {}
        Ok(_) => return Err(OpenError::NotADirectory { path: path.into() }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(OpenError::Missing { path: path.into() });
        }
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            return Err(OpenError::NotADirectory { path: path.into() });
        }
        Err(error) => return Err(OpenError::io("looking at", path, error)),
    }
    let listing = directory::list(path)?;
    if !listing.state && listing.segments.is_empty() {
        return Err(OpenError::Missing { path: path.into() });
    }
    let bytes = if listing.state { Some(state_bytes(path)?) } else { None };
    let identity = bytes.as_deref().and_then(state::owner);
    let (state, outlook) = judge(path, &listing, bytes.as_deref(), identity, progress)?;
    let Listing { segments, temporary, foreign, aside, .. } = listing;
    assert!(segments.is_sorted(), "files are judged in the order of their numbers");
    let name = |path: &PathBuf| {
        path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
    };
    Ok(Look {
        path: path.into(),
        // Asked last: who holds it now may have been writing while it was read.
        holder: holder(path)?,
        settled: true,
        identity,
        state,
        segments,
        memory_first: path.join(MEMORY_MARK).exists(),
        others: aside.into_iter().chain(foreign).collect(),
        temporary: temporary.iter().map(name).collect(),
        outlook,
    })
}

fn state_bytes(path: &Path) -> Result<Vec<u8>, OpenError> {
    let path = path.join(STATE_NAME);
    let refused = |error| OpenError::io("reading", &path, error);
    let mut bytes = Vec::new();
    let file = std::fs::File::open(&path).map_err(refused)?;
    file.take(state::STATE_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(refused)?;
    Ok(bytes)
}

/// Asks for the lock without keeping it.
fn holder(path: &Path) -> Result<Holder, OpenError> {
    let path = path.join(LOCK_NAME);
    let mut file = match std::fs::File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Holder::Nobody),
        Err(error) => return Err(OpenError::io("opening", &path, error)),
    };
    match flock(&file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(Holder::Nobody),
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut text = String::new();
            let pid = file.read_to_string(&mut text).ok().and_then(|_| text.trim().parse().ok());
            Ok(Holder::Process(pid))
        }
        Err(error) => Err(OpenError::io("asking for the lock on", &path, error.into())),
    }
}

fn judge(
    path: &Path,
    listing: &Listing,
    state: Option<&[u8]>,
    identity: Option<Identity>,
    progress: &impl Fn(u64, u64),
) -> Result<(Option<StateRecord>, Outlook), OpenError> {
    let state_place = |what: &str| Place::new(STATE_NAME.into(), 0, what);
    let Some(bytes) = state else {
        let what = "it is missing, and with it perhaps a vote";
        return Ok((None, Outlook::Refused(state_place(what))));
    };
    // Without a whole record nobody's identity fits, and the file's own damage is what is reported.
    let expected = identity.unwrap_or_default();
    let state = match read_state(bytes, &expected) {
        Ok(state) => state,
        Err(refused) => return Ok((None, Outlook::Refused(place_of(refused, path)?))),
    };
    let total = Cell::new(0);
    let read = Cell::new(0);
    let mut files = Vec::new();
    for &number in &listing.segments {
        let name = segment_name(number);
        let file = SegmentPath::new(path.join(&name));
        let length = file.length().map_err(|error| OpenError::io("looking at", path.join(&name), error))?;
        total.set(total.get() + length);
        files.push(SegmentFile { number, blocks: Counted { file, read: &read, total: &total, progress } });
    }
    let segment_bytes = DEFAULT_SEGMENT_BYTES;
    let rules = Rules { segment_bytes, damage: Damage::Repairable };
    let opening = match Opening::decide(state, &files, rules) {
        Ok(opening) => opening,
        Err(refused) => return Ok((Some(state), Outlook::Refused(place_of(refused, path)?))),
    };
    let damaged = opening.damaged().map(|damaged| damaged.place.clone());
    let opens = Box::new(carried_out(opening, path));
    let outlook = match damaged {
        None => Outlook::Whole(opens),
        Some(place) => Outlook::Repairable(place, opens),
    };
    Ok((Some(state), outlook))
}

/// The changes an opening asks for, none of them made.
fn carried_out(mut opening: Opening, path: &Path) -> Opens {
    let report = RecoveryReport::new(&opening, path);
    let mut changes = Vec::new();
    while let Some(change) = opening.poll_change() {
        if let Change::Make(next) = change {
            opening.handle_made(next.header(opening.identity(), 0));
        }
        changes.push(change);
    }
    assert!(
        matches!(changes.last(), Some(Change::State(record)) if !record.clean),
        "an opening says so, last"
    );
    Opens { report, changes, tail: opening.finish() }
}

/// Damage as a place; anything else is an error.
fn place_of(refused: Refused, path: &Path) -> Result<Place, OpenError> {
    match refused {
        Refused::Corrupt { file, offset, what } => Ok(Place::new(file, offset, what)),
        Refused::Foreign { .. } | Refused::Version { .. } | Refused::Io { .. } => match refused.at(path) {
            OpenError::Corrupt { file, offset, what } => {
                let name =
                    file.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
                Ok(Place::new(name, offset, what))
            }
            error => Err(error),
        },
    }
}

/// A file whose reads are counted.
struct Counted<'a, F> {
    file: SegmentPath,
    read: &'a Cell<u64>,
    total: &'a Cell<u64>,
    progress: &'a F,
}

impl<F: Fn(u64, u64)> Blocks for Counted<'_, F> {
    fn length(&self) -> io::Result<u64> {
        self.file.length()
    }

    fn read(&self, offset: u64, length: usize) -> io::Result<Bytes> {
        let bytes = self.file.read(offset, length)?;
        // What is read ahead may be read twice.
        let read = (self.read.get() + length as u64).min(self.total.get());
        self.read.set(read);
        (self.progress)(read, self.total.get());
        Ok(bytes)
    }
}

/// What one segment file holds, whether it counts or not.
#[derive(Debug)]
pub struct SegmentLook {
    /// From its name.
    pub number: u64,
    /// The file's length.
    pub bytes: u64,
    /// Its header, or what is wrong with it: then nothing else can be read.
    pub header: Result<SegmentHeader, String>,
    /// Whole writes.
    pub writes: u64,
    /// The first of them.
    pub first: Option<WriteLook>,
    /// The last of them.
    pub last: Option<WriteLook>,
    /// The end of the last block that is not zero.
    pub used: u64,
    /// Runs of blocks that are neither a whole write nor zeros: where each begins, and what stands there.
    pub odd: Vec<(u64, String)>,
}

/// One whole write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteLook {
    /// Its place in the order of writes.
    pub sequence: u64,
    /// Where it stands.
    pub offset: u64,
    /// Its length, padding included.
    pub bytes: u64,
    /// The first entry in it.
    pub first: LogIndex,
    /// That entry's term.
    pub first_term: Term,
    /// The last entry in it.
    pub last: EntryId,
    /// Newest commit index known when it was written.
    pub commit: LogIndex,
    /// Newest write known flushed when it was written.
    pub log_mark: u64,
    /// Newest state record known flushed when it was written.
    pub state_mark: u64,
}

impl WriteLook {
    fn new(header: &Header, offset: u64) -> Self {
        assert!(offset >= FIRST_OFFSET, "no write stands on the header");
        Self {
            sequence: header.sequence,
            offset,
            bytes: header.disk_bytes(),
            first: header.first_index(),
            first_term: header.first_term,
            last: header.last,
            commit: header.commit,
            log_mark: header.log_mark,
            state_mark: header.state_mark,
        }
    }
}

/// Reads one segment from front to end; `each` sees every whole write.
///
/// # Errors
/// [`OpenError`] if the file cannot be read for another reason than damage.
pub fn segment(
    directory: &Path,
    number: u64,
    identity: &Identity,
    mut each: impl FnMut(&WriteLook),
) -> Result<SegmentLook, OpenError> {
    let path = directory.join(segment_name(number));
    let refused = |error| OpenError::io("reading", &path, error);
    let file = SegmentPath::new(path.clone());
    let bytes = file.length().map_err(refused)?;
    let mut look = SegmentLook {
        number,
        bytes,
        header: Err("the file ends within it".into()),
        writes: 0,
        first: None,
        last: None,
        used: 0,
        odd: Vec::new(),
    };
    if bytes < FIRST_OFFSET {
        return Ok(look);
    }
    look.header = match file.read(0, BLOCK) {
        Ok(block) => SegmentHeader::parse(&block, identity).map_err(|problem| words(&problem)),
        Err(error) if is_damage(&error) => Err(error.to_string()),
        Err(error) => return Err(refused(error)),
    };
    let Ok(header) = look.header.clone() else { return Ok(look) };
    look.used = FIRST_OFFSET;
    let end = (bytes / BLOCK_U64 * BLOCK_U64).min(header.bytes);
    let within = SegmentHeader { bytes: end, ..header };
    let mut window = Window::new(&file, end);
    let mut offset = FIRST_OFFSET;
    let mut in_order = true;
    while offset + BLOCK_U64 <= end {
        let blank = window.get(offset, BLOCK).is_ok_and(|block| is_zero(&block));
        if blank {
            offset += BLOCK_U64;
            in_order = true;
            continue;
        }
        match envelope_at(&mut window, &within, offset, None, |_| ()).map_err(refused)? {
            Found::Whole(envelope) => {
                let write = WriteLook::new(&envelope, offset);
                each(&write);
                look.writes += 1;
                look.first.get_or_insert(write);
                look.last = Some(write);
                offset += write.bytes;
                in_order = true;
            }
            Found::Not(defect) => {
                if in_order {
                    look.odd.push((offset, defect.to_string()));
                }
                in_order = false;
                offset += BLOCK_U64;
            }
        }
        look.used = offset;
    }
    assert!(look.used <= end.max(FIRST_OFFSET), "what is used lies within the file");
    Ok(look)
}

fn words(problem: &HeaderProblem) -> String {
    match problem {
        HeaderProblem::Damaged => "no copy of it is whole".into(),
        HeaderProblem::Version(version) => format!("it has format version {version}"),
        HeaderProblem::Foreign(identity) => {
            format!("it belongs to node {} of cluster {}", identity.node, identity.cluster)
        }
        HeaderProblem::Impossible(what) => (*what).into(),
    }
}
