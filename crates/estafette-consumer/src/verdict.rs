//! What a handler decides.

use std::time::Duration;

use estafette_core::{BoxError, Failure, Reason};

/// What a handler decides about its message. An error, a panic or a time-out instead is a failed attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// Done.
    Ack,
    /// Not done: again later. Counts as a failed attempt.
    Retry {
        /// How long to wait; the retry policy decides when `None`.
        after: Option<Duration>,
        /// What went wrong.
        error: String,
    },
    /// Never: to the dead letters at once.
    Reject(Failure),
    /// Not now: again after this long, and the attempt does not count.
    Snooze(Duration),
}

impl Verdict {
    /// Again later, after the retry policy's delay.
    #[must_use]
    pub fn retry(error: impl Into<String>) -> Self {
        Self::Retry { after: None, error: error.into() }
    }

    /// Again after `after`.
    #[must_use]
    pub fn retry_after(after: Duration, error: impl Into<String>) -> Self {
        Self::Retry { after: Some(after), error: error.into() }
    }

    /// To the dead letters, for this reason in words.
    #[must_use]
    pub fn reject(error: impl Into<String>) -> Self {
        Self::Reject(Failure::new(Reason::Rejected, error))
    }
}

/// What a handler may return: `()` for done, a [`Verdict`], or a `Result` of either.
pub trait IntoVerdict {
    /// The verdict, or the error of a failed attempt.
    ///
    /// # Errors
    ///
    /// The handler's own.
    fn into_verdict(self) -> Result<Verdict, BoxError>;
}

impl IntoVerdict for () {
    fn into_verdict(self) -> Result<Verdict, BoxError> {
        Ok(Verdict::Ack)
    }
}

impl IntoVerdict for Verdict {
    fn into_verdict(self) -> Result<Verdict, BoxError> {
        Ok(self)
    }
}

impl<T: IntoVerdict, E: Into<BoxError>> IntoVerdict for Result<T, E> {
    fn into_verdict(self) -> Result<Verdict, BoxError> {
        self.map_err(Into::into)?.into_verdict()
    }
}
