//! Dead letters: messages that will not be handled any more unless somebody decides so.

use std::{fmt, str::FromStr};

use crate::{Envelope, Error, ErrorKind, MessageId, Pattern, QueueName, Result, Timestamp};

/// Why a message became a dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// The handler refused it.
    Rejected,
    /// It was handed over as often as allowed and never acknowledged.
    AttemptsExhausted,
    /// Its expiry passed before it was handled.
    Expired,
    /// Its body or envelope does not decode.
    Undecodable,
    /// No handler takes messages of its topic.
    Unhandled,
}

impl Reason {
    /// Every reason there is.
    pub const ALL: [Self; 5] =
        [Self::Rejected, Self::AttemptsExhausted, Self::Expired, Self::Undecodable, Self::Unhandled];

    /// The word for it, as stored and shown.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rejected => "rejected",
            Self::AttemptsExhausted => "attempts_exhausted",
            Self::Expired => "expired",
            Self::Undecodable => "undecodable",
            Self::Unhandled => "unhandled",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.as_str())
    }
}

impl FromStr for Reason {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == text).ok_or_else(|| {
            let known = Self::ALL.map(Self::as_str).join(", ");
            Error::new(ErrorKind::InvalidInput, format!("{text:?} is no reason; the reasons are {known}"))
        })
    }
}

/// Why a delivery is rejected, and the error's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Why it will not be handled.
    pub reason: Reason,
    /// What went wrong, for people.
    pub error: String,
}

impl Failure {
    /// The longest error text kept, in bytes; of a longer one the end is cut off.
    pub const ERROR_BYTES_MAX: usize = 4096;

    /// A failure for `reason`, explained by `error`.
    #[must_use]
    pub fn new(reason: Reason, error: impl Into<String>) -> Self {
        let mut error = error.into();
        error.truncate(error.floor_char_boundary(Self::ERROR_BYTES_MAX));
        Self { reason, error }
    }

    /// The failure of a message that expired at its `expires_at`.
    #[must_use]
    pub fn expired(envelope: &Envelope) -> Self {
        match envelope.expires_at {
            Some(expires_at) => Self::new(Reason::Expired, format!("expired at {expires_at}")),
            None => Self::new(Reason::Expired, "expired"),
        }
    }
}

/// A message among the dead letters of a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// The message as it was.
    pub envelope: Envelope,
    /// The queue it died in.
    pub queue: QueueName,
    /// Why.
    pub reason: Reason,
    /// What went wrong, for people.
    pub error: String,
    /// How many times it was handed over.
    pub attempts: u32,
    /// When it failed for the first time.
    pub first_failed_at: Timestamp,
    /// When it failed for the last time.
    pub last_failed_at: Timestamp,
}

/// Which dead letters of a queue are meant. Everything by default; each field narrows it.
#[derive(Clone, Debug, Default)]
pub struct DeadQuery {
    /// Only messages with one of these ids; all when empty.
    pub ids: Vec<MessageId>,
    /// Only those that died for this reason.
    pub reason: Option<Reason>,
    /// Only those whose topic matches.
    pub topic: Option<Pattern>,
    /// How many to pass over, oldest first.
    pub skip: usize,
    /// At most so many.
    pub limit: Option<usize>,
}

impl DeadQuery {
    /// Every dead letter.
    #[must_use]
    pub fn all() -> Self {
        Self::default()
    }

    /// The dead letter with this id.
    #[must_use]
    pub fn id(id: MessageId) -> Self {
        Self { ids: vec![id], ..Self::default() }
    }

    /// Whether `letter` is meant, `skip` and `limit` apart.
    #[must_use]
    pub fn matches(&self, letter: &DeadLetter) -> bool {
        (self.ids.is_empty() || self.ids.contains(&letter.envelope.id))
            && self.reason.is_none_or(|reason| reason == letter.reason)
            && self.topic.as_ref().is_none_or(|pattern| pattern.matches(&letter.envelope.topic))
    }

    /// Narrows an iterator over dead letters, oldest first, to those meant.
    pub fn select<'a, T>(&'a self, letters: impl Iterator<Item = T> + 'a) -> impl Iterator<Item = T> + 'a
    where
        T: std::borrow::Borrow<DeadLetter> + 'a,
    {
        letters
            .filter(|letter| self.matches(letter.borrow()))
            .skip(self.skip)
            .take(self.limit.unwrap_or(usize::MAX))
    }
}
