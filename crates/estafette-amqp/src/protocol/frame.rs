//! Frames: a kind, a channel, a payload, an end mark.

use bytes::Bytes;

use super::{Malformed, writing::put_u32};

/// Kind, channel and length before the payload, the end mark after it.
pub(crate) const OVERHEAD: usize = 8;

const HEAD: usize = 7;
const END: u8 = 0xce;

/// What a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Method,
    Header,
    Body,
    Heartbeat,
}

/// A frame in a chunk of what was read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frame {
    pub(crate) kind: Kind,
    pub(crate) channel: u16,
    /// Where the payload begins and ends in the chunk.
    pub(crate) payload: (usize, usize),
}

impl Frame {
    /// The payload, sharing the chunk's memory.
    pub(crate) fn payload(&self, chunk: &Bytes) -> Bytes {
        chunk.slice(self.payload.0..self.payload.1)
    }

    /// Where the next frame begins.
    pub(crate) fn end(&self) -> usize {
        self.payload.1 + 1
    }

    /// The frame that begins at `at`; none while it is not complete.
    pub(crate) fn at(bytes: &[u8], at: usize, frame_max: usize) -> Result<Option<Self>, Malformed> {
        let rest = bytes.get(at..).unwrap_or_default();
        let Some(head) = rest.first_chunk::<HEAD>() else { return Ok(None) };
        let [kind, channel_high, channel_low, size @ ..] = *head;
        let kind = match kind {
            1 => Kind::Method,
            2 => Kind::Header,
            3 => Kind::Body,
            8 => Kind::Heartbeat,
            // A broker that speaks another version answers with `AMQP` and its own.
            b'A' => return Err(Malformed("the broker speaks another version of the protocol")),
            _ => return Err(Malformed("a frame of an unknown kind")),
        };
        let size = usize::try_from(u32::from_be_bytes(size)).unwrap_or(usize::MAX);
        if size > frame_max.saturating_sub(OVERHEAD) {
            return Err(Malformed("a frame larger than agreed"));
        }
        let payload = (at + HEAD, at + HEAD + size);
        match bytes.get(payload.1) {
            None => Ok(None),
            Some(&END) => {
                Ok(Some(Self { kind, channel: u16::from_be_bytes([channel_high, channel_low]), payload }))
            }
            Some(_) => Err(Malformed("a frame without its end mark")),
        }
    }
}

/// Appends a frame whose payload `write` appends.
pub(crate) fn put_frame(out: &mut Vec<u8>, kind: Kind, channel: u16, write: impl FnOnce(&mut Vec<u8>)) {
    out.push(match kind {
        Kind::Method => 1,
        Kind::Header => 2,
        Kind::Body => 3,
        Kind::Heartbeat => 8,
    });
    out.extend_from_slice(&channel.to_be_bytes());
    let size_at = out.len();
    put_u32(out, 0);
    write(out);
    let size = u32::try_from(out.len() - size_at - 4).unwrap_or(u32::MAX);
    if let Some(place) = out.get_mut(size_at..size_at + 4) {
        place.copy_from_slice(&size.to_be_bytes());
    }
    out.push(END);
}

/// Appends a body as frames of at most `frame_max` bytes each.
pub(crate) fn put_body(out: &mut Vec<u8>, channel: u16, body: &[u8], frame_max: usize) {
    for part in body.chunks(frame_max.saturating_sub(OVERHEAD).max(1)) {
        put_frame(out, Kind::Body, channel, |out| out.extend_from_slice(part));
    }
}
