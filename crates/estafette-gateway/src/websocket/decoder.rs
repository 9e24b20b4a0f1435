//! Bytes to events: whole messages, pings, pongs and closes, with every limit checked before memory is taken.
//!
//! The decoder keeps nothing but the parts of a fragmented message. Bytes that are not a whole frame yet stay with the
//! caller, who offers them again with what came after; a frame that lies whole in the caller's buffer is unmasked
//! there and lent out, not copied.

use std::borrow::Cow;

use super::{
    close::{self, Close, CloseCode},
    frame::{Header, HeaderError, Opcode, apply_mask},
    utf8::Utf8Checker,
};
use crate::mesh::Kind;

/// Which frames must be masked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Masking {
    /// All: what RFC 6455 asks of a client.
    Required,
    /// Text and binary frames; a published client of the management API does not mask its pongs and closes.
    RequiredOfMessages,
    /// None: what RFC 6455 asks of a server.
    Forbidden,
}

/// What the decoder accepts.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of one message, all fragments together.
    pub message_max: usize,
    /// Fragments of one message, empty ones included.
    pub fragments_max: usize,
    /// Which frames must be masked.
    pub masking: Masking,
}

impl Default for Limits {
    fn default() -> Self {
        Self { message_max: 1 << 20, fragments_max: 1_024, masking: Masking::Required }
    }
}

/// What was received.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A whole message; text is UTF-8.
    Message {
        /// Text or bytes.
        kind: Kind,
        /// All of it.
        data: Cow<'a, [u8]>,
    },
    /// To be answered by a pong with these bytes.
    Ping(&'a [u8]),
    /// An answer, or a sign of life.
    Pong(&'a [u8]),
    /// The peer ends the connection; nothing may follow.
    Close(Option<Close>),
}

/// The peer broke the protocol: close with this code, read nothing more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// The code to close with.
    pub code: CloseCode,
    /// What was wrong.
    pub reason: &'static str,
}

impl Fault {
    const fn protocol(reason: &'static str) -> Self {
        Self { code: CloseCode::PROTOCOL, reason }
    }

    const TEXT: Self = Self { code: CloseCode::INVALID_TEXT, reason: "a text message is not UTF-8" };
    const TOO_LARGE: Self = Self { code: CloseCode::TOO_LARGE, reason: "the message is too large" };
}

impl From<HeaderError> for Fault {
    fn from(error: HeaderError) -> Self {
        Self::protocol(match error {
            HeaderError::ReservedBits => "a reserved bit is set",
            HeaderError::ReservedOpcode => "the opcode is reserved",
            HeaderError::Control => "a control frame is fragmented or too long",
            HeaderError::Length => "the length is not written as it must be",
        })
    }
}

/// The parts of a message that is not complete.
#[derive(Debug)]
struct Fragments {
    kind: Kind,
    data: Vec<u8>,
    count: usize,
    text: Utf8Checker,
}

/// The state between frames: one word while no message is in parts.
#[derive(Debug, Default)]
pub struct Decoder {
    fragments: Option<Box<Fragments>>,
}

impl Decoder {
    /// Takes the first frame off `bytes`.
    ///
    /// Returns how many bytes it took, and what they mean; a part of a message means nothing yet. `None`: the frame
    /// is not whole. Call again with the bytes that remain; a close must be the last call.
    ///
    /// # Errors
    /// [`Fault`] as soon as the bytes cannot be right.
    pub fn decode<'a>(
        &mut self,
        bytes: &'a mut [u8],
        limits: &Limits,
    ) -> Result<Option<(usize, Option<Event<'a>>)>, Fault> {
        let Some((header, start)) = Header::parse(bytes)? else { return Ok(None) };
        let length = self.check(&header, limits)?;
        let end = start + length;
        let Some(payload) = bytes.get_mut(start..end) else { return Ok(None) };
        if let Some(mask) = header.mask {
            apply_mask(payload, mask, 0);
        }
        let payload = &*payload;
        let event = match header.opcode {
            Opcode::Ping => Some(Event::Ping(payload)),
            Opcode::Pong => Some(Event::Pong(payload)),
            Opcode::Close => {
                let close = close::parse(payload)
                    .map_err(|code| Fault { code, reason: "the close frame says nothing legal" })?;
                Some(Event::Close(close))
            }
            Opcode::Text | Opcode::Binary | Opcode::Continuation => self.take_part(&header, payload)?,
        };
        Ok(Some((end, event)))
    }

    /// The bytes that are needed for the frame at the front of `bytes`; `None` while its header is not whole.
    #[must_use]
    pub fn frame_length(bytes: &[u8]) -> Option<usize> {
        let (header, start) = Header::parse(bytes).ok()??;
        usize::try_from(header.length).ok()?.checked_add(start)
    }

    /// Checks a header against the rules and limits, before its payload is waited for.
    fn check(&self, header: &Header, limits: &Limits) -> Result<usize, Fault> {
        let mask_is_right = match limits.masking {
            Masking::Required => header.mask.is_some(),
            Masking::RequiredOfMessages => header.mask.is_some() || header.opcode.is_control(),
            Masking::Forbidden => header.mask.is_none(),
        };
        if !mask_is_right {
            return Err(Fault::protocol("a frame is not masked as it must be"));
        }
        let length = usize::try_from(header.length).map_err(|_overflow| Fault::TOO_LARGE)?;
        if header.opcode.is_control() {
            return Ok(length);
        }
        let (before, count) = match (&self.fragments, header.opcode) {
            (None, Opcode::Continuation) => return Err(Fault::protocol("a continuation of nothing")),
            (Some(_), Opcode::Text | Opcode::Binary) => {
                return Err(Fault::protocol("a message began within another"));
            }
            (Some(fragments), _) => (fragments.data.len(), fragments.count),
            (None, _) => (0, 0),
        };
        if length > limits.message_max.saturating_sub(before) || count >= limits.fragments_max {
            return Err(Fault::TOO_LARGE);
        }
        Ok(length)
    }

    fn take_part<'a>(&mut self, header: &Header, payload: &'a [u8]) -> Result<Option<Event<'a>>, Fault> {
        let Some(fragments) = &mut self.fragments else {
            let kind = if header.opcode == Opcode::Text { Kind::Text } else { Kind::Binary };
            if !header.finish {
                let mut text = Utf8Checker::default();
                if kind == Kind::Text {
                    text.push(payload).map_err(|_bad| Fault::TEXT)?;
                }
                self.fragments = Some(Box::new(Fragments { kind, data: payload.to_vec(), count: 1, text }));
                return Ok(None);
            }
            if kind == Kind::Text && std::str::from_utf8(payload).is_err() {
                return Err(Fault::TEXT);
            }
            return Ok(Some(Event::Message { kind, data: Cow::Borrowed(payload) }));
        };
        if fragments.kind == Kind::Text {
            fragments.text.push(payload).map_err(|_bad| Fault::TEXT)?;
        }
        fragments.data.extend_from_slice(payload);
        fragments.count += 1;
        if !header.finish {
            return Ok(None);
        }
        if fragments.kind == Kind::Text {
            fragments.text.finish().map_err(|_bad| Fault::TEXT)?;
        }
        let whole = self
            .fragments
            .take()
            .map(|fragments| Event::Message { kind: fragments.kind, data: Cow::Owned(fragments.data) });
        Ok(whole)
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use proptest::prelude::*;

    use super::*;
    use crate::websocket::frame::encode_masked;

    /// A client's frame, whatever it is.
    fn frame(finish: bool, opcode: Opcode, payload: &[u8]) -> Vec<u8> {
        let mut out = BytesMut::new();
        let mask = [1, 2, 3, 4];
        Header { finish, opcode, mask: Some(mask), length: payload.len() as u64 }.write(&mut out);
        let mut payload = payload.to_vec();
        apply_mask(&mut payload, mask, 0);
        out.extend_from_slice(&payload);
        out.to_vec()
    }

    /// Everything `bytes` mean when they come in pieces of `step` bytes: messages and control bodies as text.
    fn events(bytes: &[u8], step: usize, limits: &Limits) -> Result<Vec<String>, Fault> {
        let (mut decoder, mut buffer, mut seen) = (Decoder::default(), Vec::new(), Vec::new());
        for piece in bytes.chunks(step.max(1)) {
            buffer.extend_from_slice(piece);
            while let Some((taken, event)) = decoder.decode(&mut buffer, limits)? {
                match event {
                    Some(Event::Message { data, .. }) => {
                        seen.push(String::from_utf8_lossy(&data).into_owned())
                    }
                    Some(Event::Ping(body)) => seen.push(format!("ping {}", String::from_utf8_lossy(body))),
                    Some(Event::Pong(_)) => seen.push("pong".into()),
                    Some(Event::Close(_)) => seen.push("close".into()),
                    None => {}
                }
                buffer.drain(..taken);
            }
        }
        Ok(seen)
    }

    #[test]
    fn control_frames_come_between_the_parts_of_a_message() {
        let bytes = [
            frame(false, Opcode::Text, "h\u{e9}".as_bytes().split_at(2).0),
            frame(true, Opcode::Ping, b"1"),
            frame(false, Opcode::Continuation, b""),
            frame(true, Opcode::Continuation, "\u{e9}".as_bytes().split_at(1).1),
            frame(true, Opcode::Close, b""),
        ]
        .concat();
        for step in 1..bytes.len() {
            assert_eq!(
                events(&bytes, step, &Limits::default()),
                Ok(vec!["ping 1".into(), "hé".into(), "close".into()])
            );
        }
    }

    #[test]
    fn a_length_beyond_the_limit_is_refused_before_its_bytes() {
        let limits = Limits { message_max: 100, ..Limits::default() };
        let mut header = BytesMut::new();
        for length in [101, 1 << 20, (1 << 63) - 1] {
            header.clear();
            Header { finish: true, opcode: Opcode::Binary, mask: Some([0; 4]), length }.write(&mut header);
            assert_eq!(Decoder::default().decode(&mut header, &limits), Err(Fault::TOO_LARGE));
        }
        let parts = [frame(false, Opcode::Text, &[b'x'; 60]), frame(true, Opcode::Continuation, &[b'x'; 60])]
            .concat();
        assert_eq!(events(&parts, 7, &limits), Err(Fault::TOO_LARGE));
    }

    #[test]
    fn endless_empty_fragments_are_refused() {
        let mut bytes = frame(false, Opcode::Binary, b"");
        for _ in 0..2_000 {
            bytes.extend(frame(false, Opcode::Continuation, b""));
        }
        assert_eq!(events(&bytes, 64, &Limits::default()), Err(Fault::TOO_LARGE));
    }

    #[test]
    fn broken_order_masks_and_texts_are_refused() {
        let code = |bytes: &[u8]| events(bytes, 1, &Limits::default()).err().map(|fault| fault.code);
        assert_eq!(code(&frame(true, Opcode::Continuation, b"x")), Some(CloseCode::PROTOCOL));
        let twice = [frame(false, Opcode::Text, b"x"), frame(true, Opcode::Text, b"y")].concat();
        assert_eq!(code(&twice), Some(CloseCode::PROTOCOL));
        assert_eq!(code(&frame(true, Opcode::Close, &[3])), Some(CloseCode::PROTOCOL));
        assert_eq!(code(&frame(true, Opcode::Text, &[0xFF])), Some(CloseCode::INVALID_TEXT));
        let cut =
            [frame(false, Opcode::Text, &[0xED]), frame(true, Opcode::Continuation, &[0xA0, 0x80])].concat();
        assert_eq!(code(&cut), Some(CloseCode::INVALID_TEXT));
        assert_eq!(code(&crate::websocket::frame::encode(Opcode::Text, b"x")), Some(CloseCode::PROTOCOL));
        assert_eq!(code(&crate::websocket::frame::encode(Opcode::Pong, b"")), Some(CloseCode::PROTOCOL));
    }

    #[test]
    fn unmasked_control_frames_pass_where_a_client_needs_it() {
        let limits = Limits { masking: Masking::RequiredOfMessages, ..Limits::default() };
        let pong = crate::websocket::frame::encode(Opcode::Pong, b"");
        assert_eq!(events(&pong, 1, &limits), Ok(vec!["pong".into()]));
        assert!(events(&crate::websocket::frame::encode(Opcode::Text, b"x"), 1, &limits).is_err());
    }

    proptest! {
        #[test]
        fn messages_come_out_as_they_went_in(messages: Vec<String>, mask: [u8; 4], step in 1_usize..40) {
            let frames: Vec<_> = messages.iter().map(|text| encode_masked(Opcode::Text, text.as_bytes(), mask)).collect();
            prop_assert_eq!(events(&frames.concat(), step, &Limits::default()), Ok(messages));
        }

        #[test]
        fn any_bytes_are_answered(bytes: Vec<u8>, step in 1_usize..40) {
            let whole = events(&bytes, bytes.len(), &Limits::default());
            prop_assert_eq!(events(&bytes, step, &Limits::default()), whole);
        }
    }
}
