//! Reading the lines an entry stands for.

use std::{io::BufRead as _, ops::Range, os::fd::AsFd};

use estafette_core::Result;
use rustix::io::Errno;

use crate::{disk, name::Span};

/// What is read first, by the number of lines, and the most that is read at once when they are longer than that.
const FIRST_READ_BYTES: Range<usize> = 4 << 10..256 << 10;
const READ_BYTES_MAX: usize = 16 << 20;

/// Lines that were read.
#[derive(Debug, Default)]
pub(crate) struct ReadLines {
    bytes: Vec<u8>,
    /// Where in the file they begin.
    offset: u64,
    /// Where in `bytes` each ends, line feed included.
    ends: Vec<usize>,
}

impl ReadLines {
    /// Reads up to `count` lines from the start of `span`: fewer when the file ends before.
    pub(crate) fn read(file: impl AsFd, span: Span, count: u32) -> Result<Self, Errno> {
        let count = count as usize;
        let mut lines = Self { offset: span.offset, ..Self::default() };
        let mut max = count.saturating_mul(512).clamp(FIRST_READ_BYTES.start, FIRST_READ_BYTES.end);
        loop {
            let scanned = lines.bytes.len();
            let read = disk::read_at(&file, span.offset + scanned as u64, max, &mut lines.bytes)?;
            lines.find_ends(scanned, count);
            if lines.ends.len() == count {
                break;
            }
            if read < max {
                // The last line of the file may lack its line feed.
                let rest = lines.ends.last().copied().unwrap_or(0);
                if rest < lines.bytes.len() {
                    lines.ends.push(lines.bytes.len());
                }
                break;
            }
            max = (max * 2).min(READ_BYTES_MAX);
        }
        Ok(lines)
    }

    fn find_ends(&mut self, from: usize, count: usize) {
        let mut at = from;
        while self.ends.len() < count {
            let mut rest = self.bytes.get(at..).unwrap_or_default();
            // Reading from memory cannot fail.
            let skipped = rest.skip_until(b'\n').unwrap_or(0);
            at += skipped;
            if skipped == 0 || self.bytes.get(at - 1) != Some(&b'\n') {
                break;
            }
            self.ends.push(at);
        }
    }

    /// The same without the first `skip` lines.
    pub(crate) fn after(mut self, skip: usize) -> Self {
        if skip > 0 {
            let start = self.start(skip.min(self.ends.len()));
            self.offset += start as u64;
            self.bytes.drain(..start);
            self.ends.drain(..skip.min(self.ends.len()));
            self.ends.iter_mut().for_each(|end| *end -= start);
        }
        self
    }

    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    /// A line without its line feed.
    pub(crate) fn get(&self, index: usize) -> &[u8] {
        let line = self.ends.get(index).and_then(|&end| self.bytes.get(self.start(index)..end));
        let line = line.unwrap_or_default();
        line.strip_suffix(b"\n").unwrap_or(line)
    }

    fn start(&self, index: usize) -> usize {
        index.checked_sub(1).and_then(|before| self.ends.get(before)).copied().unwrap_or(0)
    }

    /// Where in the file a line begins; for the number of lines, where the last one ends.
    pub(crate) fn offset(&self, index: usize) -> u64 {
        self.offset + self.start(index) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[test]
    fn lines_are_found_wherever_they_begin_and_however_long() {
        let long = "x".repeat(100_000);
        let text = format!("a\n\n{long}\nlast");
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        let span = |offset| Span { first: 0, count: 1, offset };
        let all = ReadLines::read(&file, span(0), 10).unwrap();
        assert_eq!(all.len(), 4);
        assert_eq!((all.get(0), all.get(1), all.get(3)), (&b"a"[..], &b""[..], &b"last"[..]));
        assert_eq!(all.get(2), long.as_bytes());
        assert_eq!((all.offset(1), all.offset(2), all.offset(4)), (2, 3, text.len() as u64));
        let some = ReadLines::read(&file, span(2), 2).unwrap();
        assert_eq!((some.len(), some.get(1).len(), some.offset(2)), (2, 100_000, 100_004));
        assert_eq!(ReadLines::read(&file, span(1_000_000), 2).unwrap().len(), 0);
    }
}
