//! Messages as bytes: a protobuf header, and after it the frames as they lie in the log.
//!
//! Decoding is the gateway for everything a peer says: what comes out is well formed, its frames have matched their
//! hashes, and its lengths were compared with what is there before anything was allocated for them. What it does not
//! do: believe it. That is consensus' part.

use super::message::{AskIndex, Forward, ForwardOutcome, Forwarded, Index, Message};
use crate::raft::message::{
    Alive, Append, AppendOutcome, Appended, Body, Candidacy, Decision, Election, Heartbeat, MAX_PROMISE,
    Standing, Vote,
};
use crate::raft::{self, time::nanos};
use bytes::{BufMut, Bytes, BytesMut};
use prost::Message as _;
use proto::peer::{self, appended::Outcome, failure, outcome, peer::Body as Wire};
use std::time::Duration;
use thiserror::Error;
use wal::{ChainHash, EntryId, Frame, FrameError, GroupId, LogIndex, Term};

/// The most bytes a header may have, beside forwarded commands: it holds a few numbers.
const PREFIX: usize = 4;

/// Why bytes are not a message.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum WireError {
    /// Fewer bytes than stated.
    #[error("message ends early: {need} bytes needed, {have} there")]
    Short {
        /// Bytes needed.
        need: usize,
        /// Bytes there.
        have: usize,
    },
    /// The header is not protobuf of this kind.
    #[error("message header cannot be read: {0}")]
    Header(String),
    /// A part that every version 1 sender writes is missing, or has a value it never has.
    #[error("message has no valid {0}")]
    Field(&'static str),
    /// A leader relies on a promise that nobody gives.
    #[error(
        "message asks for a promise of {0:?}, and none above {MAX_PROMISE:?} is given; lower raft.heartbeat of its sender"
    )]
    Promise(Duration),
    /// For a group that this node does not have.
    #[error("message is for group {}, this node has only group 0", .0.0)]
    Group(GroupId),
    /// A frame in it is damaged.
    #[error("frame {position} of the message: {error}")]
    Frame {
        /// Which one.
        position: usize,
        /// What is wrong.
        error: FrameError,
    },
    /// Frames other than stated.
    #[error("message states {stated} frames and holds {found}")]
    Count {
        /// How many it states.
        stated: u32,
        /// How many there are.
        found: usize,
    },
}

/// Which of a peer's lanes a message travels on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// Votes, heartbeats, questions: never behind bulk.
    Control,
    /// The log, its acknowledgements, forwarded calls.
    Log,
}

impl Message {
    /// The lane it travels on.
    #[must_use]
    pub fn lane(&self) -> Lane {
        match self {
            Self::Raft(raft::Message { body: Body::Append(_) | Body::Appended(_), .. })
            | Self::Forward(_)
            | Self::Forwarded(_) => Lane::Log,
            Self::Raft(_) | Self::AskIndex(_) | Self::Index(_) => Lane::Control,
        }
    }
}

/// Encodes a message: the parts are to be sent one after the other. Frames are shared, not copied.
pub fn encode(message: &Message, parts: &mut Vec<Bytes>) {
    let (term, wire, frames): (Term, Wire, &[Frame]) = match message {
        Message::Raft(raft::Message { term, body }) => {
            let (wire, frames) = encode_body(body);
            (*term, wire, frames)
        }
        Message::Forward(forward) => (forward.term, encode_forward(forward), &[]),
        Message::Forwarded(forwarded) => (Term::ZERO, encode_forwarded(forwarded), &[]),
        Message::AskIndex(ask) => (
            ask.term,
            Wire::AskIndex(peer::AskIndex { incarnation: ask.incarnation, number: ask.number }),
            &[],
        ),
        Message::Index(answer) => {
            let Index { incarnation, number, index } = *answer;
            (Term::ZERO, Wire::Index(peer::Index { incarnation, number, index: index.map(|i| i.0) }), &[])
        }
    };
    let count = u32::try_from(frames.len()).expect("an append is bounded by bytes");
    let header = peer::Peer { term: term.0, group: GroupId::FIRST.0, frames: count, body: Some(wire) };
    let length = header.encoded_len();
    let mut out = BytesMut::with_capacity(PREFIX + length);
    out.put_u32_le(u32::try_from(length).expect("a message is bounded"));
    header.encode(&mut out).expect("the buffer grows");
    parts.push(out.freeze());
    parts.extend(frames.iter().map(|frame| frame.bytes().clone()));
}

/// Reads a message.
///
/// # Errors
/// [`WireError`] for anything that no sender of this version makes.
pub fn decode(mut bytes: Bytes) -> Result<Message, WireError> {
    let short = |need, have| WireError::Short { need, have };
    let prefix = bytes.first_chunk::<PREFIX>().ok_or(short(PREFIX, bytes.len()))?;
    let length = u32::from_le_bytes(*prefix) as usize;
    let need = PREFIX.saturating_add(length);
    if bytes.len() < need {
        return Err(short(need, bytes.len()));
    }
    let header =
        peer::Peer::decode(bytes.slice(PREFIX..need)).map_err(|e| WireError::Header(e.to_string()))?;
    if header.group != GroupId::FIRST.0 {
        return Err(WireError::Group(GroupId(header.group)));
    }
    let mut rest = bytes.split_off(need);
    let mut frames = Vec::new();
    while !rest.is_empty() {
        let position = frames.len();
        frames.push(Frame::parse(&mut rest).map_err(|error| WireError::Frame { position, error })?);
    }
    if frames.len() != header.frames as usize {
        return Err(WireError::Count { stated: header.frames, found: frames.len() });
    }
    decode_body(Term(header.term), header.body.ok_or(WireError::Field("body"))?, frames)
}

fn encode_body(body: &Body) -> (Wire, &[Frame]) {
    match body {
        Body::Candidacy(Candidacy { election, last_term, last_index, standing }) => (
            Wire::Candidacy(peer::Candidacy {
                election: encode_election(*election),
                last_term: last_term.0,
                last_index: last_index.0,
                standing: encode_standing(*standing),
            }),
            &[],
        ),
        Body::Vote(Vote { election, decision, standing }) => (
            Wire::Vote(peer::Vote {
                election: encode_election(*election),
                granted: *decision == Decision::Granted,
                standing: encode_standing(*standing),
            }),
            &[],
        ),
        Body::Append(Append { previous, frames, commit, probe, promise }) => (
            Wire::Append(peer::Append {
                previous: Some(encode_id(*previous)),
                commit: commit.0,
                probe: *probe,
                promise_ns: nanos(*promise),
            }),
            frames,
        ),
        Body::Appended(Appended { outcome, probe }) => {
            let outcome = match *outcome {
                AppendOutcome::Accepted { matched } => {
                    Outcome::Accepted(peer::Accepted { matched: matched.0 })
                }
                AppendOutcome::Rejected { previous, hint, hint_term } => Outcome::Rejected(peer::Rejected {
                    previous: previous.0,
                    hint: hint.0,
                    hint_term: hint_term.0,
                }),
            };
            (Wire::Appended(peer::Appended { probe: *probe, outcome: Some(outcome) }), &[])
        }
        Body::Heartbeat(Heartbeat { probe, commit, promise }) => {
            let (probe, commit, promise_ns) = (*probe, commit.0, nanos(*promise));
            (Wire::Heartbeat(peer::Heartbeat { probe, commit, promise_ns }), &[])
        }
        Body::Alive(Alive { probe }) => (Wire::Alive(peer::Alive { probe: *probe }), &[]),
        Body::TimeoutNow => (Wire::TimeoutNow(peer::TimeoutNow {}), &[]),
    }
}

fn decode_body(term: Term, wire: Wire, frames: Vec<Frame>) -> Result<Message, WireError> {
    if !frames.is_empty() && !matches!(wire, Wire::Append(_)) {
        return Err(WireError::Count { stated: 0, found: frames.len() });
    }
    let body = match wire {
        Wire::Candidacy(candidacy) => Body::Candidacy(Candidacy {
            election: decode_election(candidacy.election)?,
            last_term: Term(candidacy.last_term),
            last_index: LogIndex(candidacy.last_index),
            standing: decode_standing(candidacy.standing)?,
        }),
        Wire::Vote(vote) => Body::Vote(Vote {
            election: decode_election(vote.election)?,
            decision: if vote.granted { Decision::Granted } else { Decision::Refused },
            standing: decode_standing(vote.standing)?,
        }),
        Wire::Append(append) => Body::Append(Append {
            previous: decode_id(append.previous.ok_or(WireError::Field("previous entry"))?),
            frames,
            commit: LogIndex(append.commit),
            probe: append.probe,
            promise: decode_promise(append.promise_ns)?,
        }),
        Wire::Appended(appended) => Body::Appended(Appended {
            outcome: match appended.outcome.ok_or(WireError::Field("outcome"))? {
                Outcome::Accepted(accepted) => {
                    AppendOutcome::Accepted { matched: LogIndex(accepted.matched) }
                }
                Outcome::Rejected(rejected) => AppendOutcome::Rejected {
                    previous: LogIndex(rejected.previous),
                    hint: LogIndex(rejected.hint),
                    hint_term: Term(rejected.hint_term),
                },
            },
            probe: appended.probe,
        }),
        Wire::Heartbeat(heartbeat) => Body::Heartbeat(Heartbeat {
            probe: heartbeat.probe,
            commit: LogIndex(heartbeat.commit),
            promise: decode_promise(heartbeat.promise_ns)?,
        }),
        Wire::Alive(alive) => Body::Alive(Alive { probe: alive.probe }),
        Wire::TimeoutNow(_) => Body::TimeoutNow,
        Wire::Forward(peer::Forward { incarnation, first, commands }) => {
            if first.checked_add(commands.len() as u64).is_none() {
                return Err(WireError::Field("numbering"));
            }
            return Ok(Message::Forward(Forward { term, incarnation, first, commands }));
        }
        Wire::Forwarded(forwarded) => return decode_forwarded(forwarded).map(Message::Forwarded),
        Wire::AskIndex(peer::AskIndex { incarnation, number }) => {
            return Ok(Message::AskIndex(AskIndex { term, incarnation, number }));
        }
        Wire::Index(peer::Index { incarnation, number, index }) => {
            return Ok(Message::Index(Index { incarnation, number, index: index.map(LogIndex) }));
        }
    };
    Ok(Message::Raft(raft::Message { term, body }))
}

fn encode_forward(forward: &Forward) -> Wire {
    let Forward { incarnation, first, ref commands, .. } = *forward;
    Wire::Forward(peer::Forward { incarnation, first, commands: commands.clone() })
}

fn encode_forwarded(forwarded: &Forwarded) -> Wire {
    use failure::Kind;
    let failed = |kind: Kind, reason: &str| {
        outcome::Result::Failure(peer::Failure { kind: kind as i32, reason: reason.to_owned() })
    };
    let outcomes = forwarded.outcomes.iter().map(|(number, outcome)| {
        let result = match outcome {
            ForwardOutcome::Applied(reply) => outcome::Result::Reply(reply.clone()),
            ForwardOutcome::NotLeader => failed(Kind::NotLeader, ""),
            ForwardOutcome::Busy => failed(Kind::Busy, ""),
            ForwardOutcome::Refused(reason) => failed(Kind::Refused, reason),
            ForwardOutcome::Superseded => failed(Kind::Superseded, ""),
            ForwardOutcome::Unknown => failed(Kind::Unknown, ""),
        };
        peer::Outcome { number: *number, result: Some(result) }
    });
    Wire::Forwarded(peer::Forwarded { incarnation: forwarded.incarnation, outcomes: outcomes.collect() })
}

fn decode_forwarded(forwarded: peer::Forwarded) -> Result<Forwarded, WireError> {
    use failure::Kind;
    let outcomes = forwarded.outcomes.into_iter().map(|peer::Outcome { number, result }| {
        let outcome = match result.ok_or(WireError::Field("result"))? {
            outcome::Result::Reply(reply) => ForwardOutcome::Applied(reply),
            outcome::Result::Failure(failure) => match failure.kind() {
                Kind::NotLeader => ForwardOutcome::NotLeader,
                Kind::Busy => ForwardOutcome::Busy,
                Kind::Refused => ForwardOutcome::Refused(failure.reason),
                Kind::Superseded => ForwardOutcome::Superseded,
                Kind::Unknown | Kind::Unspecified => ForwardOutcome::Unknown,
            },
        };
        Ok((number, outcome))
    });
    Ok(Forwarded {
        incarnation: forwarded.incarnation,
        outcomes: outcomes.collect::<Result<_, WireError>>()?,
    })
}

fn encode_election(election: Election) -> i32 {
    let wire = match election {
        Election::PreVote => peer::Election::PreVote,
        Election::Vote => peer::Election::Vote,
        Election::Transfer => peer::Election::Transfer,
    };
    wire as i32
}

fn decode_election(election: i32) -> Result<Election, WireError> {
    match peer::Election::try_from(election) {
        Ok(peer::Election::PreVote) => Ok(Election::PreVote),
        Ok(peer::Election::Vote) => Ok(Election::Vote),
        Ok(peer::Election::Transfer) => Ok(Election::Transfer),
        Ok(peer::Election::Unspecified) | Err(_) => Err(WireError::Field("election")),
    }
}

fn encode_standing(standing: Standing) -> i32 {
    let wire = match standing {
        Standing::Whole => peer::Standing::Whole,
        Standing::Suspect => peer::Standing::Suspect,
        Standing::Damaged => peer::Standing::Damaged,
    };
    wire as i32
}

fn decode_standing(standing: i32) -> Result<Standing, WireError> {
    match peer::Standing::try_from(standing) {
        Ok(peer::Standing::Whole) => Ok(Standing::Whole),
        Ok(peer::Standing::Suspect) => Ok(Standing::Suspect),
        Ok(peer::Standing::Damaged) => Ok(Standing::Damaged),
        Ok(peer::Standing::Unspecified) | Err(_) => Err(WireError::Field("standing")),
    }
}

/// Refused, not cut to size: its sender would rely on all of it.
fn decode_promise(nanoseconds: u64) -> Result<Duration, WireError> {
    let promise = Duration::from_nanos(nanoseconds);
    if promise <= MAX_PROMISE { Ok(promise) } else { Err(WireError::Promise(promise)) }
}

#[allow(clippy::cast_possible_truncation)] // Two halves of a hash are meant.
fn encode_id(id: EntryId) -> peer::EntryId {
    peer::EntryId {
        index: id.index.0,
        term: id.term.0,
        hash_low: id.hash.0 as u64,
        hash_high: (id.hash.0 >> 64) as u64,
    }
}

fn decode_id(id: peer::EntryId) -> EntryId {
    let hash = u128::from(id.hash_low) | (u128::from(id.hash_high) << 64);
    EntryId { index: LogIndex(id.index), term: Term(id.term), hash: ChainHash(hash) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A leader's sign of life as somebody wrote it.
    fn heartbeat(promise_ns: u64) -> Bytes {
        let body = Wire::Heartbeat(peer::Heartbeat { probe: 1, commit: 2, promise_ns });
        let header = peer::Peer { term: 3, group: GroupId::FIRST.0, frames: 0, body: Some(body) };
        let mut bytes = BytesMut::new();
        bytes.put_u32_le(u32::try_from(header.encoded_len()).expect("short"));
        header.encode(&mut bytes).expect("there is room");
        bytes.freeze()
    }

    #[test]
    fn a_promise_that_is_absent_is_none_and_one_that_nobody_gives_is_refused() {
        let promise = |nanoseconds| match decode(heartbeat(nanoseconds))? {
            Message::Raft(raft::Message { body: Body::Heartbeat(heartbeat), .. }) => Ok(heartbeat.promise),
            other => panic!("{other:?}"),
        };
        // Zero is what protobuf does not write: so were the bytes before there was a promise in them.
        assert_eq!(heartbeat(0)[..], [8, 0, 0, 0, 8, 3, 114, 4, 8, 1, 16, 2]);
        assert_eq!(promise(0), Ok(Duration::ZERO));
        assert_eq!(promise(75_000_001), Ok(Duration::from_nanos(75_000_001)));
        assert_eq!(promise(nanos(MAX_PROMISE)), Ok(MAX_PROMISE));
        let beyond = MAX_PROMISE + Duration::from_nanos(1);
        assert_eq!(promise(nanos(beyond)), Err(WireError::Promise(beyond)));
        assert_eq!(
            WireError::Promise(Duration::from_secs(33)).to_string(),
            "message asks for a promise of 33s, and none above 30s is given; lower raft.heartbeat of its sender"
        );
    }
}
