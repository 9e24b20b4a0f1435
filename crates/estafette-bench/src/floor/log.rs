//! One append-only file.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::Instant;

use super::body;
use crate::case::Rate;

/// Appends `messages`, one per line, with one write and one `fdatasync` per `batch` of them.
///
/// # Errors
///
/// When the file system refuses.
pub fn append(directory: &Path, messages: u32, batch: usize) -> anyhow::Result<Rate> {
    let mut log = File::create_new(directory.join("log"))?;
    let bodies: Vec<Vec<u8>> = (0..messages).map(body).collect();
    let mut block = Vec::new();

    let started = Instant::now();
    for batch in bodies.chunks(batch) {
        block.clear();
        for body in batch {
            block.extend_from_slice(body);
            block.push(b'\n');
        }
        log.write_all(&block)?;
        log.sync_data()?;
    }
    Ok(Rate::of(messages, started.elapsed()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_is_a_line() {
        let directory = tempfile::tempdir().unwrap();
        append(directory.path(), 5, 2).unwrap();
        let text = std::fs::read_to_string(directory.path().join("log")).unwrap();
        assert_eq!(text.lines().count(), 5);
        assert_eq!(text.lines().last().unwrap().as_bytes(), body(4));
    }
}
