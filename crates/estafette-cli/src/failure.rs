//! From an error to one line on standard error and an exit status.

use std::process::ExitCode;

use anyhow::Error;
use estafette::ErrorKind;

use crate::output::{OutputClosed, warn};

/// The command line makes no sense, though each part of it does: exit status 2, as for other mistakes in it.
#[derive(Debug)]
pub(crate) struct UsageError(pub(crate) String);

impl std::fmt::Display for UsageError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.pad(&self.0)
    }
}

impl std::error::Error for UsageError {}

/// Prints what went wrong, if anything, and returns the exit status.
pub(crate) fn report(result: anyhow::Result<()>) -> ExitCode {
    let Err(error) = result else { return ExitCode::SUCCESS };
    // Whoever read has seen enough: `estafette queues | head -1`.
    if error.downcast_ref::<OutputClosed>().is_some() {
        return ExitCode::SUCCESS;
    }
    let advice = advice(&error).map(|advice| format!(" ({advice})")).unwrap_or_default();
    warn(&format!("estafette: {}{advice}", chain(&error)));
    if error.downcast_ref::<UsageError>().is_some() { ExitCode::from(2) } else { ExitCode::FAILURE }
}

/// The error and its causes on one line, joined by colons.
pub(crate) fn chain(error: &Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        // Some errors repeat their source in their own text.
        if text.ends_with(&cause) {
            continue;
        }
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&cause);
    }
    text.replace('\n', " ")
}

/// What to do about it, by the kind of the first of our errors in the chain.
pub(crate) fn advice(error: &Error) -> Option<&'static str> {
    let kind = error.chain().find_map(|cause| cause.downcast_ref::<estafette::Error>())?.kind();
    Some(match kind {
        ErrorKind::Unavailable => "is the engine running, and the URL right? try `estafette doctor`",
        ErrorKind::TimedOut => "whether it took effect is unknown; trying again may repeat it",
        ErrorKind::TooLarge => "send less, or raise the limit in the URL",
        ErrorKind::Unroutable => "see `estafette queues`, or `estafette declare QUEUE --subscribe PATTERN`",
        ErrorKind::NotFound => "see `estafette queues`",
        ErrorKind::Conflict => "use it as it is, or delete it first",
        ErrorKind::Unsupported => "`estafette doctor` shows what this URL can do",
        ErrorKind::Denied => "check the permissions of the path, or the user in the URL",
        ErrorKind::Full => "free some space and try again; nothing was stored",
        ErrorKind::Corrupt => "the damaged part was set aside; the rest goes on",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    #[test]
    fn a_chain_is_one_line_without_repetitions() {
        let error = estafette::Error::new(ErrorKind::Full, "disk /mail\nis full");
        let error = Err::<(), _>(error).context("cannot publish").unwrap_err();
        assert_eq!(chain(&error), "cannot publish: no space left: disk /mail is full");
        assert!(advice(&error).unwrap().contains("free some space"));
    }
}
