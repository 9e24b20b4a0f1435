//! Frames that wait to be written to a backend, and what writing them settles.

use std::{collections::VecDeque, io, io::IoSlice};

use bytes::{Buf as _, Bytes};
use tokio::io::{AsyncWrite, AsyncWriteExt as _};

/// With this many bytes waiting, nothing more is taken in: neither requests nor messages.
const BYTES_ENOUGH: usize = 256 << 10;

/// Frames in one write.
const SLICES_MAX: usize = 64;

#[derive(Debug)]
struct Frame {
    rest: Bytes,
    begun: bool,
    /// Of the message it carries.
    tag: Option<u64>,
}

/// The frames, the first to be written first. Bounded by who fills it: see [`Outbox::has_room`].
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    frames: VecDeque<Frame>,
    bytes: usize,
}

impl Outbox {
    pub(crate) fn has_room(&self) -> bool {
        self.bytes < BYTES_ENOUGH
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    pub(crate) fn push(&mut self, frame: Bytes, tag: Option<u64>) {
        self.bytes += frame.len();
        self.frames.push_back(Frame { rest: frame, begun: false, tag });
    }

    /// Writes some of what waits. Dropping the future loses nothing.
    pub(crate) async fn write_to(&self, writer: &mut (impl AsyncWrite + Unpin)) -> io::Result<usize> {
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let mut count = 0;
        for (slice, frame) in slices.iter_mut().zip(&self.frames) {
            *slice = IoSlice::new(&frame.rest);
            count += 1;
        }
        let written = writer.write_vectored(slices.get(..count).unwrap_or_default()).await?;
        if written == 0 { Err(io::ErrorKind::WriteZero.into()) } else { Ok(written) }
    }

    /// Forgets what was written; returns the tags of the messages that are out entirely.
    pub(crate) fn advance(&mut self, mut written: usize) -> Vec<u64> {
        let mut tags = Vec::new();
        self.bytes = self.bytes.saturating_sub(written);
        while let Some(frame) = self.frames.front_mut() {
            if written < frame.rest.len() {
                frame.begun |= written > 0;
                frame.rest.advance(written);
                break;
            }
            written -= frame.rest.len();
            tags.extend(frame.tag);
            self.frames.pop_front();
        }
        tags
    }

    /// Takes back messages whose writing has not begun; they belong to their queues again. Returns the tag of the one that
    /// has begun and cannot be taken back.
    pub(crate) fn retract(&mut self) -> Option<u64> {
        let mut begun = None;
        self.frames.retain_mut(|frame| {
            if frame.begun {
                begun = frame.tag.take();
            }
            frame.tag.is_none()
        });
        self.bytes = self.frames.iter().map(|frame| frame.rest.len()).sum();
        begun
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_message_counts_as_written_with_its_last_byte() {
        let mut outbox = Outbox::default();
        outbox.push(Bytes::from_static(b"abc"), Some(1));
        outbox.push(Bytes::from_static(b"d"), None);
        outbox.push(Bytes::from_static(b"ef"), Some(2));
        let mut written = Vec::new();
        assert_eq!(outbox.write_to(&mut written).await.unwrap(), 6);
        assert_eq!(written, b"abcdef");
        assert!(outbox.advance(2).is_empty());
        assert_eq!(outbox.advance(2), vec![1]);
        assert_eq!(outbox.advance(2), vec![2]);
        assert!(outbox.is_empty() && outbox.bytes == 0);
    }

    #[test]
    fn messages_not_begun_are_taken_back() {
        let mut outbox = Outbox::default();
        outbox.push(Bytes::from_static(b"abc"), Some(1));
        outbox.push(Bytes::from_static(b"answer"), None);
        outbox.push(Bytes::from_static(b"def"), Some(2));
        outbox.advance(1);
        assert_eq!(outbox.retract(), Some(1));
        assert_eq!((outbox.frames.len(), outbox.bytes), (2, 8));
        assert_eq!(outbox.retract(), None);
    }
}
