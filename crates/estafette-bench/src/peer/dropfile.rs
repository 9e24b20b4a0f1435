//! Drop-files in PHP.

use std::{path::Path, process::Command, time::Duration};

use anyhow::{Context as _, ensure};

use crate::case::Rate;

const SCRIPT: &str = include_str!("../../peers/dropfile.php");

/// Whether there is a PHP to run it.
#[must_use]
pub fn is_installed() -> bool {
    super::runs("php", &["--version"])
}

/// Stores `messages`, one file each, nothing flushed.
///
/// # Errors
///
/// When PHP fails.
pub fn publish(directory: &Path, messages: u32) -> anyhow::Result<Rate> {
    run("publish", directory, messages)
}

/// Takes and removes `messages` that wait.
///
/// # Errors
///
/// When PHP fails, or a message did not come.
pub fn consume(directory: &Path, messages: u32) -> anyhow::Result<Rate> {
    run("consume", directory, messages)
}

fn run(job: &str, directory: &Path, messages: u32) -> anyhow::Result<Rate> {
    let script = directory.with_extension("php");
    std::fs::write(&script, SCRIPT)?;
    let output =
        Command::new("php").arg(&script).arg(job).arg(directory).arg(messages.to_string()).output()?;
    ensure!(output.status.success(), "php: {}", String::from_utf8_lossy(&output.stderr));
    // What PHP left to be written back would be paid for by the next loop that flushes.
    let synced = Command::new("sync").arg("--file-system").arg(directory).status()?;
    ensure!(synced.success(), "sync failed");
    let seconds: f64 = str::from_utf8(&output.stdout)?.trim().parse().context("php printed no seconds")?;
    Ok(Rate::of(messages, Duration::try_from_secs_f64(seconds)?))
}
