//! What a behaviour that does not hold says.

use std::time::Duration;

use estafette_core::{Error, ErrorKind};

/// What a behaviour's check returns.
pub(crate) type Check<T = ()> = Result<T, Violation>;

/// Why a behaviour was not shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Violation {
    /// The transport did something else; the sentence says what.
    Broken(String),
    /// It could not be found out: the engine was not there, or the machine too slow.
    Unknown(String),
}

impl Violation {
    pub(crate) fn timed_out(after: Duration) -> Self {
        Self::Broken(format!("did not end within {after:?}"))
    }

    /// The sentence.
    #[must_use]
    pub fn sentence(&self) -> &str {
        match self {
            Self::Broken(sentence) | Self::Unknown(sentence) => sentence,
        }
    }
}

impl From<Error> for Violation {
    /// An error where none is allowed. That the engine is not there says nothing about the behaviour.
    fn from(error: Error) -> Self {
        let sentence = format!("an operation that must work failed: {}", error.report());
        match error.kind() {
            ErrorKind::Unavailable | ErrorKind::Denied | ErrorKind::Full => Self::Unknown(sentence),
            _ => Self::Broken(sentence),
        }
    }
}

impl From<tokio::task::JoinError> for Violation {
    fn from(error: tokio::task::JoinError) -> Self {
        Self::Broken(format!("a task of the behaviour panicked: {error}"))
    }
}

impl From<std::io::Error> for Violation {
    fn from(error: std::io::Error) -> Self {
        Self::Unknown(format!("talking to another process failed: {error}"))
    }
}

/// Ends a check with a sentence unless a condition holds.
macro_rules! ensure {
    ($condition:expr, $($sentence:tt)+) => {
        if !$condition {
            return Err($crate::violation::Violation::Broken(format!($($sentence)+)));
        }
    };
}

pub(crate) use ensure;
