//! Standard output and standard error.

use std::io::{self, ErrorKind, Write};

use anyhow::Context as _;

/// Whoever read standard output has closed it. Not a failure: the command ends quietly.
#[derive(Debug)]
pub(crate) struct OutputClosed;

impl std::fmt::Display for OutputClosed {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.pad("standard output was closed")
    }
}

impl std::error::Error for OutputClosed {}

/// Prints a line, or several, on standard output.
///
/// # Errors
///
/// [`OutputClosed`], and whatever else keeps it from being written.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    let written = writeln!(stdout, "{text}").and_then(|()| stdout.flush());
    outcome(written)
}

/// What a result of writing to standard output means.
///
/// # Errors
///
/// As [`print`].
pub(crate) fn outcome(written: io::Result<()>) -> anyhow::Result<()> {
    match written {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Err(OutputClosed.into()),
        other => other.context("cannot write to standard output"),
    }
}

/// Prints a line on standard error. When that fails there is nobody left to tell.
pub(crate) fn warn(line: &str) {
    if writeln!(io::stderr().lock(), "{line}").is_err() {
        tracing::trace!("standard error is closed");
    }
}
