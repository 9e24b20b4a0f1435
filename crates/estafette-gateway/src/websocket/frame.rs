//! One frame: its header, its mask, and how it is written.

use bytes::{Bytes, BytesMut};

/// The most bytes a frame's header takes: two, eight of length, four of mask.
pub const HEADER_MAX: usize = 14;

/// The most bytes a control frame carries (RFC 6455, 5.5).
pub const CONTROL_MAX: usize = 125;

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opcode {
    /// The next part of a message.
    Continuation,
    /// Text, or the first part of it.
    Text,
    /// Bytes, or the first part of them.
    Binary,
    /// The connection ends.
    Close,
    /// Asks for a pong with the same bytes.
    Ping,
    /// Answers a ping.
    Pong,
}

impl Opcode {
    fn from_bits(bits: u8) -> Option<Self> {
        Some(match bits {
            0x0 => Self::Continuation,
            0x1 => Self::Text,
            0x2 => Self::Binary,
            0x8 => Self::Close,
            0x9 => Self::Ping,
            0xA => Self::Pong,
            _ => return None,
        })
    }

    fn bits(self) -> u8 {
        match self {
            Self::Continuation => 0x0,
            Self::Text => 0x1,
            Self::Binary => 0x2,
            Self::Close => 0x8,
            Self::Ping => 0x9,
            Self::Pong => 0xA,
        }
    }

    /// Close, ping and pong: short, never fragmented, allowed between the parts of a message.
    #[must_use]
    pub fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }
}

/// A frame's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Whether the message ends with this frame.
    pub finish: bool,
    /// What it is.
    pub opcode: Opcode,
    /// Present on frames from clients.
    pub mask: Option<[u8; 4]>,
    /// Bytes that follow; below 2^63.
    pub length: u64,
}

/// Why bytes are no frame's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeaderError {
    /// A reserved bit is set, though no extension was negotiated.
    ReservedBits,
    /// The opcode means nothing.
    ReservedOpcode,
    /// A control frame is longer than 125 bytes or not the end of its message.
    Control,
    /// The length is not written in the fewest bytes, or is 2^63 or more.
    Length,
}

impl Header {
    /// Reads the header at the front of `bytes`; `None` until all of it is there. Also returns how long it is.
    ///
    /// # Errors
    /// [`HeaderError`] as soon as the bytes that are there cannot become a header.
    pub fn parse(bytes: &[u8]) -> Result<Option<(Self, usize)>, HeaderError> {
        let [first, second, rest @ ..] = bytes else {
            return match bytes {
                [first] => Self::parse_first(*first).map(|_| None),
                _ => Ok(None),
            };
        };
        let (finish, opcode) = Self::parse_first(*first)?;
        let short = second & 0x7F;
        if opcode.is_control() && (usize::from(short) > CONTROL_MAX || !finish) {
            return Err(HeaderError::Control);
        }
        let (length, rest, extended) = match short {
            126 => match rest.split_first_chunk::<2>() {
                Some((bytes, rest)) => (u64::from(u16::from_be_bytes(*bytes)), rest, 2),
                None => return Ok(None),
            },
            127 => match rest.split_first_chunk::<8>() {
                Some((bytes, rest)) => (u64::from_be_bytes(*bytes), rest, 8),
                None => return Ok(None),
            },
            short => (u64::from(short), rest, 0),
        };
        let in_range = match extended {
            2 => length >= 126,
            8 => (1 << 16..1 << 63).contains(&length),
            _ => true,
        };
        if !in_range {
            return Err(HeaderError::Length);
        }
        if second & 0x80 == 0 {
            return Ok(Some((Self { finish, opcode, mask: None, length }, 2 + extended)));
        }
        let Some(mask) = rest.first_chunk::<4>() else { return Ok(None) };
        Ok(Some((Self { finish, opcode, mask: Some(*mask), length }, 6 + extended)))
    }

    fn parse_first(first: u8) -> Result<(bool, Opcode), HeaderError> {
        if first & 0x70 != 0 {
            return Err(HeaderError::ReservedBits);
        }
        let opcode = Opcode::from_bits(first & 0x0F).ok_or(HeaderError::ReservedOpcode)?;
        Ok((first & 0x80 != 0, opcode))
    }

    /// Appends the header to `out`.
    pub fn write(&self, out: &mut BytesMut) {
        let masked = if self.mask.is_some() { 0x80 } else { 0 };
        let first = if self.finish { 0x80 } else { 0 } | self.opcode.bits();
        match (u8::try_from(self.length), u16::try_from(self.length)) {
            (Ok(length @ 0..=125), _) => out.extend_from_slice(&[first, masked | length]),
            (_, Ok(length)) => {
                out.extend_from_slice(&[first, masked | 126]);
                out.extend_from_slice(&length.to_be_bytes());
            }
            (_, Err(_)) => {
                out.extend_from_slice(&[first, masked | 127]);
                out.extend_from_slice(&self.length.to_be_bytes());
            }
        }
        if let Some(mask) = self.mask {
            out.extend_from_slice(&mask);
        }
    }
}

/// A whole message as a server writes it: one frame, not masked.
#[must_use]
pub fn encode(opcode: Opcode, payload: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(HEADER_MAX + payload.len());
    Header { finish: true, opcode, mask: None, length: payload.len() as u64 }.write(&mut out);
    out.extend_from_slice(payload);
    out.freeze()
}

/// A whole message as a client writes it: one masked frame.
#[must_use]
pub fn encode_masked(opcode: Opcode, payload: &[u8], mask: [u8; 4]) -> Bytes {
    let mut out = BytesMut::with_capacity(HEADER_MAX + payload.len());
    Header { finish: true, opcode, mask: Some(mask), length: payload.len() as u64 }.write(&mut out);
    let start = out.len();
    out.extend_from_slice(payload);
    if let Some(payload) = out.get_mut(start..) {
        apply_mask(payload, mask, 0);
    }
    out.freeze()
}

/// Masks or unmasks `data`, whose first byte is byte number `offset` of its frame. Its own inverse.
pub fn apply_mask(data: &mut [u8], mask: [u8; 4], offset: usize) {
    let mut mask = mask;
    mask.rotate_left(offset % 4);
    let wide = u64::from_ne_bytes([mask[0], mask[1], mask[2], mask[3], mask[0], mask[1], mask[2], mask[3]]);
    let (words, tail) = data.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    for (byte, mask) in tail.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn opcodes() -> impl Strategy<Value = Opcode> {
        prop::sample::select(vec![
            Opcode::Continuation,
            Opcode::Text,
            Opcode::Binary,
            Opcode::Close,
            Opcode::Ping,
            Opcode::Pong,
        ])
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(opcode in opcodes(), mask: Option<[u8; 4]>, length in 0..(1_u64 << 63), finish: bool) {
            let length = if opcode.is_control() { length % 126 } else { length };
            let header = Header { finish: finish || opcode.is_control(), opcode, mask, length };
            let mut bytes = BytesMut::new();
            header.write(&mut bytes);
            prop_assert_eq!(Header::parse(&bytes), Ok(Some((header, bytes.len()))));
            for end in 0..bytes.len() {
                prop_assert_eq!(Header::parse(&bytes[..end]), Ok(None));
            }
        }

        #[test]
        fn any_bytes_are_a_header_an_error_or_too_few(bytes: [u8; 14]) {
            if let Ok(header) = Header::parse(&bytes) {
                prop_assert!(header.is_some());
            }
        }

        #[test]
        fn masking_in_pieces_is_masking_at_once(data: Vec<u8>, mask: [u8; 4], cut: prop::sample::Index) {
            let cut = cut.index(data.len() + 1);
            let mut whole = data.clone();
            apply_mask(&mut whole, mask, 0);
            let mut pieces = data.clone();
            apply_mask(&mut pieces[..cut], mask, 0);
            apply_mask(&mut pieces[cut..], mask, cut);
            prop_assert_eq!(&whole, &pieces);
            apply_mask(&mut whole, mask, 0);
            prop_assert_eq!(whole, data);
        }
    }

    #[test]
    fn what_no_frame_begins_with_is_refused() {
        let error = |bytes: &[u8]| Header::parse(bytes).err();
        assert_eq!(error(&[0xC1]), Some(HeaderError::ReservedBits));
        assert_eq!(error(&[0x83]), Some(HeaderError::ReservedOpcode));
        assert_eq!(error(&[0x89, 0x7E]), Some(HeaderError::Control));
        assert_eq!(error(&[0x09, 0x00]), Some(HeaderError::Control));
        assert_eq!(error(&[0x82, 0x7E, 0, 125]), Some(HeaderError::Length));
        assert_eq!(error(&[0x82, 0xFF, 0x80, 0, 0, 0, 0, 0, 0, 0]), Some(HeaderError::Length));
        assert_eq!(error(&[0x82, 0xFF, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF]), Some(HeaderError::Length));
    }
}
