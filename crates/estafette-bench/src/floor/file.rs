//! One file per message, as a maildir has it.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::time::Instant;

use anyhow::ensure;

use super::body;
use crate::case::Rate;

/// Stores `messages` one by one from one publisher: create and write a file aside, flush it, link it into the directory
/// consumers look at, flush that directory, unlink the first name.
///
/// # Errors
///
/// When the file system refuses.
pub fn publish(directory: &Path, messages: u32) -> anyhow::Result<Rate> {
    let aside = directory.join("tmp");
    let ready = directory.join("new");
    fs::create_dir(&aside)?;
    fs::create_dir(&ready)?;
    // Opened once: the flush is the job, opening is not.
    let ready_entries = File::open(&ready)?;
    let bodies: Vec<Vec<u8>> = (0..messages).map(body).collect();

    let started = Instant::now();
    for (number, body) in bodies.iter().enumerate() {
        let name = format!("{number:010}");
        let hidden = aside.join(&name);
        let mut file = File::create_new(&hidden)?;
        file.write_all(body)?;
        file.sync_all()?;
        fs::hard_link(&hidden, ready.join(&name))?;
        ready_entries.sync_all()?;
        fs::remove_file(&hidden)?;
    }
    Ok(Rate::of(messages, started.elapsed()))
}

/// Consumes `messages` waiting files: list the directory, then claim each by rename, read it, unlink it. The directory is
/// listed once per `batch` messages, in whatever order it gives them.
///
/// # Errors
///
/// When the file system refuses, or a message is not whole.
pub fn consume(directory: &Path, messages: u32, batch: usize) -> anyhow::Result<Rate> {
    let ready = directory.join("new");
    let claimed = directory.join("cur");
    fs::create_dir(&ready)?;
    fs::create_dir(&claimed)?;
    for number in 0..messages {
        fs::write(ready.join(format!("{number:010}")), body(number))?;
    }
    // What the preparation left to be written back would be paid for by the loop.
    File::open(&ready)?.sync_all()?;

    let started = Instant::now();
    let mut left = messages;
    while left > 0 {
        let listed: Vec<_> = fs::read_dir(&ready)?.take(batch).collect::<Result<_, _>>()?;
        ensure!(!listed.is_empty(), "{left} messages are missing");
        for entry in listed {
            let claim = claimed.join(entry.file_name());
            fs::rename(entry.path(), &claim)?;
            let body = fs::read(&claim)?;
            ensure!(body.len() == super::BODY_BYTES, "a message is not whole");
            fs::remove_file(&claim)?;
            left -= 1;
        }
    }
    Ok(Rate::of(messages, started.elapsed()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn publishing_leaves_every_message_ready_and_nothing_aside() {
        let directory = tempfile::tempdir().unwrap();
        publish(directory.path(), 3).unwrap();
        assert_eq!(fs::read(directory.path().join("new/0000000002")).unwrap(), body(2));
        assert_eq!(fs::read_dir(directory.path().join("new")).unwrap().count(), 3);
        assert_eq!(fs::read_dir(directory.path().join("tmp")).unwrap().count(), 0);
    }

    #[test]
    fn consuming_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        consume(directory.path(), 7, 3).unwrap();
        assert_eq!(fs::read_dir(directory.path().join("new")).unwrap().count(), 0);
        assert_eq!(fs::read_dir(directory.path().join("cur")).unwrap().count(), 0);
    }
}
