//! What a job's data is: an envelope with notes about it, or another program's body.
//!
//! The envelope is `CloudEvents` structured JSON. What Estafette notes about a message is written as attributes whose names
//! begin with `estafette`, and is no part of the envelope.

use bytes::Bytes;
use estafette_core::{DeadLetter, Envelope, Failure, QueueName, Reason, Result, Timestamp, Topic, wire};

use crate::config::Body;

const ATTEMPTS: &str = "estafetteattempts";
const FIRST_FAILED: &str = "estafettefirstfail";
const LAST_FAILED: &str = "estafettelastfail";
const ERROR: &str = "estafetteerror";
const REASON: &str = "estafettereason";
/// Every attribute that is a note.
const NOTES: [&str; 5] = [ATTEMPTS, FIRST_FAILED, LAST_FAILED, ERROR, REASON];
/// The header that counts how often a message was redriven.
pub(crate) const REDRIVEN: &str = "redriven";
/// The topic of a foreign message whose function's name is none.
const FOREIGN: Topic = Topic::from_static("foreign");

/// What is noted about a message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Notes {
    /// How many attempts it had had when it was written.
    pub(crate) attempts: u32,
    pub(crate) first_failed_at: Option<Timestamp>,
    pub(crate) last_failed_at: Option<Timestamp>,
    /// The last error's text.
    pub(crate) error: Option<String>,
    /// Why it is a dead letter.
    pub(crate) reason: Option<Reason>,
}

impl Notes {
    /// The notes after an attempt that failed now.
    pub(crate) fn failed(&self, attempts: u32, error: Option<String>, reason: Option<Reason>) -> Self {
        let now = Timestamp::now();
        Self {
            attempts,
            first_failed_at: Some(self.first_failed_at.unwrap_or(now)),
            last_failed_at: Some(now),
            error: error.or_else(|| self.error.clone()),
            reason,
        }
    }
}

/// A job's data as it was read.
#[derive(Debug)]
pub(crate) struct Payload {
    pub(crate) envelope: Envelope,
    pub(crate) notes: Notes,
    /// Why it is not to be handed over.
    pub(crate) failure: Option<Failure>,
}

/// The data of a message that is published.
pub(crate) fn write(envelope: &Envelope, body: Body) -> Bytes {
    match body {
        Body::Plain => envelope.body.clone(),
        Body::Envelope => wire::encode(envelope).into(),
    }
}

/// The data of a message with notes.
pub(crate) fn write_noted(envelope: &Envelope, notes: &Notes) -> Result<Bytes> {
    let mut noted = envelope.clone();
    let time = |at: Timestamp| at.to_string();
    let texts = [
        (ATTEMPTS, (notes.attempts > 0).then(|| notes.attempts.to_string())),
        (FIRST_FAILED, notes.first_failed_at.map(time)),
        (LAST_FAILED, notes.last_failed_at.map(time)),
        (ERROR, notes.error.clone()),
        (REASON, notes.reason.map(|reason| reason.to_string())),
    ];
    for (name, text) in texts {
        noted.headers.remove(name);
        if let Some(text) = text {
            noted.headers.insert(name, &text)?;
        }
    }
    Ok(wire::encode(&noted).into())
}

/// Reads a job's data. `unique` is the id its sender gave it, `handle` the server's.
pub(crate) fn read(data: &Bytes, queue: &QueueName, unique: &[u8], handle: &[u8]) -> Payload {
    if !looks_like_an_envelope(data) {
        return Payload {
            envelope: foreign(data, queue, unique, handle),
            notes: Notes::default(),
            failure: None,
        };
    }
    match wire::decode(data) {
        Ok(mut envelope) => {
            let notes = take_notes(&mut envelope);
            Payload { envelope, notes, failure: None }
        }
        Err(error) => Payload {
            envelope: identified(Envelope::undecodable(data.clone()), unique, handle),
            notes: Notes::default(),
            failure: Some(Failure::new(Reason::Undecodable, error.report())),
        },
    }
}

/// Whether data says that it is an envelope. `CloudEvents` requires the attribute, and ours begin with it.
fn looks_like_an_envelope(data: &[u8]) -> bool {
    const ATTRIBUTE: &[u8] = b"\"specversion\"";
    let start = data.trim_ascii_start();
    start.starts_with(b"{\"specversion\"")
        || (start.starts_with(b"{")
            && start.windows(ATTRIBUTE.len()).any(|window| window == ATTRIBUTE)
            && wire::decode(data).is_ok())
}

fn foreign(data: &Bytes, queue: &QueueName, unique: &[u8], handle: &[u8]) -> Envelope {
    let topic = Topic::try_from(queue.as_str()).unwrap_or(FOREIGN);
    identified(Envelope::new(topic, data.clone()), unique, handle)
}

/// The envelope with an id that is the same whenever the job comes.
fn identified(mut envelope: Envelope, unique: &[u8], handle: &[u8]) -> Envelope {
    let name = if unique.is_empty() { handle } else { unique };
    if let Some(id) = std::str::from_utf8(name).ok().and_then(|text| text.parse().ok()) {
        envelope.id = id;
    }
    envelope
}

fn take_notes(envelope: &mut Envelope) -> Notes {
    let mut take = |name: &str| envelope.headers.remove(name);
    let [attempts, first, last, error, reason] = NOTES.map(&mut take);
    Notes {
        attempts: attempts.and_then(|text| text.parse().ok()).unwrap_or(0),
        first_failed_at: first.and_then(|text| text.parse().ok()),
        last_failed_at: last.and_then(|text| text.parse().ok()),
        error,
        reason: reason.and_then(|text| text.parse().ok()),
    }
}

/// The dead letter a job among the dead letters of `queue` is.
pub(crate) fn dead_letter(payload: Payload, queue: &QueueName) -> DeadLetter {
    let Payload { envelope, notes, .. } = payload;
    let at = notes.last_failed_at.unwrap_or(envelope.time);
    DeadLetter {
        queue: queue.clone(),
        reason: notes.reason.unwrap_or(Reason::Rejected),
        error: notes.error.unwrap_or_else(|| "put there by another program".into()),
        attempts: notes.attempts,
        first_failed_at: notes.first_failed_at.unwrap_or(at),
        last_failed_at: at,
        envelope,
    }
}
