//! Standard input, a body a line, in batches.

use std::io::{self, BufRead, BufReader, Read as _};

use estafette::Bytes;
use tokio::sync::mpsc;

/// Published together at most.
const BATCH_LINES_MAX: usize = 500;

/// A batch is complete when it has so many bytes.
const BATCH_BYTES: usize = 1 << 20;

/// Batches read ahead of the one that is being published.
const BATCHES_AHEAD: usize = 2;

/// Lines to publish together.
#[derive(Default)]
pub(super) struct Batch {
    /// Bodies, each with the number of its line.
    pub(super) lines: Vec<(Bytes, u64)>,
    /// How much of the input has been read so far.
    pub(super) bytes_read: u64,
    /// What is wrong with the line after these. Nothing comes after it.
    pub(super) problem: Option<String>,
}

/// Batches of lines, read in a thread of its own.
pub(super) struct Lines(mpsc::Receiver<Batch>);

impl Lines {
    /// Begins to read standard input. A line of more than `line_bytes_max` is a problem.
    pub(super) fn of_standard_input(line_bytes_max: usize) -> Self {
        let (sender, receiver) = mpsc::channel(BATCHES_AHEAD);
        tokio::task::spawn_blocking(move || {
            let mut reader = Reader::new(BufReader::with_capacity(1 << 16, io::stdin()), line_bytes_max);
            while let Some(batch) = reader.next_batch() {
                if sender.blocking_send(batch).is_err() {
                    return;
                }
            }
        });
        Self(receiver)
    }

    /// The next batch; none at the end.
    pub(super) async fn next(&mut self) -> Option<Batch> {
        self.0.recv().await
    }
}

struct Reader<R> {
    input: BufReader<R>,
    line_bytes_max: usize,
    number: u64,
    bytes_read: u64,
    ended: bool,
}

impl<R: io::Read> Reader<R> {
    fn new(input: BufReader<R>, line_bytes_max: usize) -> Self {
        Self { input, line_bytes_max, number: 0, bytes_read: 0, ended: false }
    }

    /// The lines that are there, at least one: a batch does not wait for more when no more have come yet.
    fn next_batch(&mut self) -> Option<Batch> {
        let mut batch = Batch::default();
        let mut bytes = 0;
        while !self.ended && batch.lines.len() < BATCH_LINES_MAX && bytes < BATCH_BYTES {
            match self.next_line() {
                Ok(Some(line)) => {
                    bytes += line.len();
                    batch.lines.push((line, self.number));
                }
                Ok(None) => self.ended = true,
                Err(problem) => {
                    self.ended = true;
                    batch.problem = Some(problem);
                }
            }
            if !batch.lines.is_empty() && !self.input.buffer().contains(&b'\n') {
                break;
            }
        }
        batch.bytes_read = self.bytes_read;
        (!batch.lines.is_empty() || batch.problem.is_some()).then_some(batch)
    }

    /// The next line that is not blank.
    fn next_line(&mut self) -> Result<Option<Bytes>, String> {
        loop {
            let mut line = Vec::new();
            let limit = u64::try_from(self.line_bytes_max).unwrap_or(u64::MAX).saturating_add(2);
            let read = (&mut self.input).take(limit).read_until(b'\n', &mut line);
            let read = read.map_err(|error| format!("cannot read standard input: {error}"))?;
            if read == 0 {
                return Ok(None);
            }
            self.number += 1;
            self.bytes_read += read as u64;
            let body = line.trim_ascii();
            if body.is_empty() && line.ends_with(b"\n") {
                continue;
            }
            return self.check(body).map(|()| Some(Bytes::copy_from_slice(body)));
        }
    }

    fn check(&self, body: &[u8]) -> Result<(), String> {
        let Self { number, line_bytes_max, .. } = self;
        if body.len() > *line_bytes_max {
            return Err(format!("line {number} is longer than the limit of {line_bytes_max} bytes"));
        }
        match serde_json::from_slice::<&serde_json::value::RawValue>(body) {
            Ok(_) => Ok(()),
            Err(error) => Err(format!("line {number} is not JSON: {error}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batches(input: &[u8], line_bytes_max: usize) -> Vec<Batch> {
        let mut reader = Reader::new(BufReader::new(input), line_bytes_max);
        std::iter::from_fn(|| reader.next_batch()).collect()
    }

    #[test]
    fn lines_are_numbered_and_blank_ones_passed_over() {
        let batches = batches(b"1\n\n  {\"a\":2} \r\n3", 100);
        let lines: Vec<_> = batches.into_iter().flat_map(|batch| batch.lines).collect();
        let expected: [(&[u8], u64); 3] = [(b"1", 1), (b"{\"a\":2}", 3), (b"3", 4)];
        assert_eq!(lines, expected.map(|(body, number)| (Bytes::from_static(body), number)));
    }

    #[test]
    fn what_is_not_json_ends_the_input_with_its_number() {
        let mut batches = batches(b"1\n2\ngarbage\n4\n", 100);
        let last = batches.pop().unwrap();
        assert!(last.problem.unwrap().starts_with("line 3 is not JSON"));
        let lines: usize = batches.iter().map(|batch| batch.lines.len()).sum();
        assert_eq!(lines + last.lines.len(), 2);
    }

    #[test]
    fn an_endless_line_is_refused_instead_of_read() {
        let endless = vec![b'1'; 1000];
        assert!(batches(&endless, 10).pop().unwrap().problem.unwrap().contains("longer than the limit"));
        assert!(batches(b"1234567890\n", 10).pop().unwrap().problem.is_none());
    }
}
