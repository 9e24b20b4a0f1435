//! The one error type: a small kind to match on, and the source that explains it.

use std::{error::Error as StdError, fmt, sync::Arc};

/// Any error, boxed.
pub type BoxError = Box<dyn StdError + Send + Sync>;

/// The result of nearly everything in Estafette.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, by what the caller should do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The engine cannot be reached or refuses work at the moment. Try again later; nothing was stored.
    Unavailable,
    /// The time limit passed first. Whether the operation took effect is unknown; trying again may duplicate it.
    TimedOut,
    /// A name, a setting or an argument is wrong. Correct the call.
    InvalidInput,
    /// The body or batch is larger than a limit. Send less, or raise the limit.
    TooLarge,
    /// A queue was required and none is subscribed to the topic. Declare one.
    Unroutable,
    /// The queue or message named does not exist.
    NotFound,
    /// The object exists with other settings than asked for. Use it as it is, or delete it.
    Conflict,
    /// This transport cannot do that; [`Guarantees`](crate::Guarantees) says what it can.
    Unsupported,
    /// The delivery's lease ended before it was settled: it belongs to another consumer now. Settling had no effect.
    LeaseLost,
    /// A body or envelope does not have the expected form.
    Undecodable,
    /// The credentials are wrong or lack a permission.
    Denied,
    /// The store has no space left. Nothing was stored; free some and try again.
    Full,
    /// Stored data is damaged. The damaged part was set aside; the rest goes on.
    Corrupt,
    /// The transport, consumer or bus was closed. Connect again.
    Closed,
    /// The engine failed in a way that has no kind of its own; the source says how.
    Engine,
}

impl ErrorKind {
    /// Whether the same call may succeed later without a change to it.
    #[must_use]
    pub fn is_retryable(self) -> bool {
        matches!(self, Self::Unavailable | Self::TimedOut | Self::Full | Self::Engine)
    }

    /// The kind in words, lower case, as [`Error`] displays it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unavailable => "engine unavailable",
            Self::TimedOut => "timed out",
            Self::InvalidInput => "invalid input",
            Self::TooLarge => "too large",
            Self::Unroutable => "no queue takes this topic",
            Self::NotFound => "not found",
            Self::Conflict => "exists with other settings",
            Self::Unsupported => "not supported by this transport",
            Self::LeaseLost => "lease lost",
            Self::Undecodable => "does not decode",
            Self::Denied => "permission denied",
            Self::Full => "no space left",
            Self::Corrupt => "stored data is damaged",
            Self::Closed => "closed",
            Self::Engine => "engine error",
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.as_str())
    }
}

/// An error: its [`kind`](Error::kind) says what to do, its [source](std::error::Error::source) says why.
///
/// `Display` prints the kind only; [`Error::report`] prints the whole chain. Cloning is cheap, so that one failure of a
/// batch can be reported for each of its items.
#[derive(Clone, Debug)]
pub struct Error {
    kind: ErrorKind,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error of `kind`, explained by `source`: another error, or a sentence.
    pub fn new(kind: ErrorKind, source: impl Into<BoxError>) -> Self {
        Self { kind, source: Some(Arc::from(source.into())) }
    }

    /// What went wrong, to match on.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Whether the same call may succeed later without a change to it.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.kind.is_retryable()
    }

    /// The kind and every source, joined by colons: for logs and for people.
    #[must_use]
    pub fn report(&self) -> String {
        let mut text = self.kind.to_string();
        let mut source = StdError::source(self);
        while let Some(error) = source {
            text.push_str(": ");
            text.push_str(&error.to_string());
            source = error.source();
        }
        text
    }
}

impl From<ErrorKind> for Error {
    fn from(kind: ErrorKind) -> Self {
        Self { kind, source: None }
    }
}

impl From<std::convert::Infallible> for Error {
    /// Lets functions that take a text to be checked take a checked name, too.
    fn from(never: std::convert::Infallible) -> Self {
        match never {}
    }
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.kind, formatter)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_prints_the_kind_and_report_the_chain() {
        let inner = std::io::Error::other("disk on fire");
        let error = Error::new(ErrorKind::Engine, inner);
        assert_eq!(error.to_string(), "engine error");
        assert_eq!(error.report(), "engine error: disk on fire");
    }
}
