//! What waits to be written to one connection.

use std::{collections::VecDeque, io, io::IoSlice, task::Poll};

use bytes::{Buf as _, Bytes};

/// Parts of one vectored write.
const PARTS_MAX: usize = 64;

/// Frames in order. The first has a place of its own, so that a single one allocates nothing.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    first: Option<Bytes>,
    rest: VecDeque<Bytes>,
    bytes: usize,
}

impl Outbox {
    pub(crate) fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    /// Bytes that wait.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn push(&mut self, frame: Bytes) {
        if frame.is_empty() {
            return;
        }
        self.bytes += frame.len();
        if self.first.is_none() {
            self.first = Some(frame);
        } else {
            self.rest.push_back(frame);
        }
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Writes until nothing waits or `write` takes no more; returns how many bytes it took.
    ///
    /// # Errors
    /// What `write` returns; a write of nothing is an error too.
    pub(crate) fn flush(
        &mut self,
        mut write: impl FnMut(&[IoSlice<'_>]) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        let mut total = 0;
        while let Some(first) = &self.first {
            let written = if self.rest.is_empty() {
                write(&[IoSlice::new(first)])
            } else {
                let mut parts = [IoSlice::new(&[]); PARTS_MAX];
                let frames = std::iter::once(first).chain(&self.rest);
                let count =
                    parts.iter_mut().zip(frames).map(|(part, frame)| *part = IoSlice::new(frame)).count();
                write(parts.get(..count).unwrap_or_default())
            };
            match written {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(written)) => {
                    total += written;
                    self.advance(written);
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending if total == 0 => return Poll::Pending,
                Poll::Pending => return Poll::Ready(Ok(total)),
            }
        }
        // What a burst needed is given back: an idle connection holds no buffers.
        self.rest = VecDeque::new();
        Poll::Ready(Ok(total))
    }

    fn advance(&mut self, mut written: usize) {
        self.bytes = self.bytes.saturating_sub(written);
        while let Some(first) = &mut self.first {
            if written < first.len() {
                first.advance(written);
                return;
            }
            written -= first.len();
            self.first = self.rest.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_out_in_order_however_little_is_taken() {
        for take in 1..20 {
            let mut outbox = Outbox::default();
            for frame in ["one", "", "two", "three"] {
                outbox.push(Bytes::from_static(frame.as_bytes()));
            }
            let mut out = Vec::new();
            let flushed = outbox.flush(|parts| {
                let bytes: Vec<u8> = parts.iter().flat_map(|part| part.to_vec()).take(take).collect();
                out.extend_from_slice(&bytes);
                Poll::Ready(Ok(bytes.len()))
            });
            assert!(matches!(flushed, Poll::Ready(Ok(11))));
            assert_eq!(
                (out.as_slice(), outbox.bytes(), outbox.is_empty()),
                (b"onetwothree".as_slice(), 0, true)
            );
        }
    }

    #[test]
    fn what_is_not_taken_waits() {
        let mut outbox = Outbox::default();
        outbox.push(Bytes::from_static(b"abc"));
        let mut room = 2;
        let mut write = |_: &[IoSlice<'_>]| match std::mem::take(&mut room) {
            0 => Poll::Pending,
            room => Poll::Ready(Ok(room)),
        };
        assert!(matches!(outbox.flush(&mut write), Poll::Ready(Ok(2))));
        assert!(outbox.flush(&mut write).is_pending());
        assert_eq!(outbox.bytes(), 1);
    }
}
