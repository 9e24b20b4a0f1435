//! Blocks: the envelopes of messages that were published together, one after the other.

use std::ops::Range;

use estafette_core::{Envelope, Error, ErrorKind, Result};

use super::session::{Session, integer};
use crate::frame::{self, Kind};

/// The most messages, and about the most bytes but for its first message, in a block: small, so that a consumer that takes a
/// few messages at a time does not read much more than them.
const MESSAGES_MAX: usize = 128;
const BYTES_MAX: usize = 64 << 10;

const INSERT: &str = "INSERT INTO estafette_block (messages, envelopes) VALUES (?1, ?2)";
const SELECT: &str = "SELECT envelopes FROM estafette_block WHERE id = ?1";
const DELETE: &str = "DELETE FROM estafette_block WHERE id = ?1";
const LEFT: &str = "SELECT coalesce((SELECT messages FROM estafette_left WHERE block = ?1),
    (SELECT messages FROM estafette_block WHERE id = ?1))";
const PUT_LEFT: &str = "INSERT OR REPLACE INTO estafette_left (block, messages) VALUES (?1, ?2)";
const DELETE_LEFT: &str = "DELETE FROM estafette_left WHERE block = ?1";

/// Stores `envelopes`, of which queues hold so many messages in all, and returns the block's row id.
pub(crate) fn insert(session: &mut Session<'_>, envelopes: &[u8], messages: i64) -> Result<i64> {
    session.statement(INSERT)?.execute(&[messages.into(), envelopes.into()])?;
    Ok(session.last_insert_rowid())
}

/// Notes that so many messages of a block are in no queue any more; the block goes with the last one.
pub(crate) fn let_go(session: &mut Session<'_>, block: i64, messages: i64) -> Result<()> {
    let left = session.statement(LEFT)?.integer(&[block.into()])?.unwrap_or(0) - messages;
    if left > 0 {
        session.statement(PUT_LEFT)?.execute(&[block.into(), left.into()])?;
    } else {
        session.statement(DELETE_LEFT)?.execute(&[block.into()])?;
        session.statement(DELETE)?.execute(&[block.into()])?;
    }
    Ok(())
}

/// A block that was read, for as long as the next lines are in it too.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    block: Option<i64>,
    envelopes: Vec<u8>,
    /// Of the first line, unless that is damaged.
    kind: Option<Kind>,
}

impl Lines {
    /// The envelopes in the lines from `first` to `last` of a block; for those that are none, their bytes and why.
    pub(crate) fn read(
        &mut self,
        session: &mut Session<'_>,
        block: i64,
        (first, last): (i64, i64),
    ) -> Result<Vec<Result<Envelope, Box<Damage>>>> {
        if self.block != Some(block) {
            self.envelopes.clear();
            session.statement(SELECT)?.query(&[block.into()], |row| {
                self.envelopes.extend_from_slice(row.bytes(0));
                Ok(())
            })?;
            self.block = Some(block);
            self.kind = frame::kind(frame::split_first(&self.envelopes).0).ok();
        }
        let mut rest = self.envelopes.as_slice();
        for _ in 0..first {
            rest = frame::split_first(rest).1;
        }
        let mut next = || {
            let (frame, after) = frame::split_first(rest);
            rest = after;
            decode(frame, self.kind.as_ref())
        };
        Ok((first..=last).map(|_line| next()).collect())
    }

    /// How many bytes are held.
    pub(crate) fn bytes(&self) -> usize {
        self.envelopes.len()
    }
}

/// A line that is no envelope.
#[derive(Debug)]
pub(crate) struct Damage {
    /// The bytes as an envelope, to be kept among the dead letters.
    pub(crate) envelope: Envelope,
    /// Why they are none.
    pub(crate) error: Error,
}

fn decode(frame: &[u8], first: Option<&Kind>) -> Result<Envelope, Box<Damage>> {
    frame::decode(frame, first).map_err(|error| {
        let envelope = Envelope::undecodable(frame.to_vec().into());
        Box::new(Damage { envelope, error })
    })
}

/// Envelopes as the lines of blocks, in order.
#[derive(Debug, Default)]
pub(crate) struct Encoded {
    bytes: Vec<u8>,
    ends: Vec<usize>,
    /// The first line of each block.
    starts: Vec<usize>,
    /// Where the last block starts among the bytes, and what its first line is.
    start: usize,
    kind: Option<Kind>,
}

impl Encoded {
    pub(crate) fn push(&mut self, envelope: &Envelope) -> Result<()> {
        let line = self.ends.len();
        let bytes = self.bytes.len() - self.start + envelope.body.len();
        let is_full = |start: &usize| line - start >= MESSAGES_MAX || bytes > BYTES_MAX;
        if self.starts.last().is_none_or(is_full) {
            self.starts.push(line);
            self.start = self.bytes.len();
            self.kind = None;
        }
        frame::encode_into(envelope, self.kind.as_ref(), &mut self.bytes)?;
        self.ends.push(self.bytes.len());
        self.kind.get_or_insert_with(|| Kind::of(envelope));
        Ok(())
    }

    /// Which lines belong together in a block.
    pub(crate) fn blocks(&self) -> impl Iterator<Item = Range<usize>> + '_ {
        let ends = self.starts.iter().copied().skip(1).chain([self.ends.len()]);
        self.starts.iter().zip(ends).map(|(&start, end)| start..end)
    }

    /// Makes room for `more` bytes at once.
    pub(crate) fn reserve(&mut self, more: usize) {
        self.bytes.reserve(more);
    }

    /// The bytes of the lines in `range`.
    pub(crate) fn lines(&self, range: Range<usize>) -> Result<&[u8]> {
        let end = |line: usize| if line == 0 { Some(0) } else { self.ends.get(line - 1).copied() };
        let found = end(range.start).zip(end(range.end)).and_then(|(from, to)| self.bytes.get(from..to));
        found.ok_or_else(|| Error::new(ErrorKind::Engine, format!("no lines {range:?}")))
    }
}

/// A line's number in its block as part of a ticket: both in one number.
pub(crate) mod key {
    /// How many bits the line has; a block has far fewer lines.
    const LINE_BITS: u32 = 16;

    pub(crate) fn join(block: i64, line: i64) -> u64 {
        u64::try_from((block << LINE_BITS) | line).unwrap_or(0)
    }

    /// The block and the line.
    pub(crate) fn split(key: u64) -> (i64, i64) {
        (super::integer(key >> LINE_BITS), super::integer(key & ((1 << LINE_BITS) - 1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_names_block_and_line() {
        assert_eq!(key::split(key::join(7, 99)), (7, 99));
        assert_eq!(key::split(key::join(1 << 40, 0)), (1 << 40, 0));
    }

    fn encoded(bodies: impl IntoIterator<Item = String>) -> Encoded {
        let mut encoded = Encoded::default();
        for body in bodies {
            let topic = estafette_core::Topic::from_static("t");
            encoded.push(&Envelope::new(topic, body.into())).unwrap();
        }
        encoded
    }

    #[test]
    fn lines_are_found_by_their_number() {
        let encoded = encoded(["1", "22", "333"].map(Into::into));
        let all = encoded.lines(0..3).unwrap();
        let kind = frame::kind(frame::split_first(all).0).unwrap();
        let two = encoded.lines(1..3).unwrap();
        let (second, rest) = frame::split_first(two);
        assert_eq!(decode(second, Some(&kind)).unwrap().body, "22");
        assert_eq!(decode(frame::split_first(rest).0, Some(&kind)).unwrap().body, "333");
        assert!(decode(second, None).is_err());
        assert_eq!(encoded.lines(0..0).unwrap(), b"");
        assert!(encoded.lines(2..9).is_err());
    }

    #[test]
    fn blocks_hold_so_many_lines_and_bytes() {
        let blocks = |sizes: &[usize]| -> Vec<_> {
            encoded(sizes.iter().map(|&size| "x".repeat(size))).blocks().collect()
        };
        assert_eq!(blocks(&[]), []);
        assert_eq!(blocks(&[1; MESSAGES_MAX + 1]), [0..MESSAGES_MAX, MESSAGES_MAX..MESSAGES_MAX + 1]);
        assert_eq!(blocks(&[BYTES_MAX * 2, 1, 1, BYTES_MAX, 1]), [0..1, 1..3, 3..4, 4..5]);
    }
}
