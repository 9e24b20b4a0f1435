//! Close codes and reasons (RFC 6455, 7.4).

use bytes::{BufMut as _, Bytes, BytesMut};

use super::frame::{self, CONTROL_MAX, Opcode};

/// A close code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CloseCode(pub u16);

impl CloseCode {
    /// Done.
    pub const NORMAL: Self = Self(1000);
    /// The peer breaks the protocol.
    pub const PROTOCOL: Self = Self(1002);
    /// A text is not UTF-8.
    pub const INVALID_TEXT: Self = Self(1007);
    /// Not permitted.
    pub const POLICY: Self = Self(1008);
    /// A message is too large.
    pub const TOO_LARGE: Self = Self(1009);
    /// The server failed.
    pub const INTERNAL: Self = Self(1011);
    /// The server restarts: connect again.
    pub const RESTART: Self = Self(1012);
    /// Nothing was heard from the peer: connect again. Ours.
    pub const SILENT: Self = Self(4408);
    /// The token has expired: connect again with a new one. Ours.
    pub const EXPIRED: Self = Self(4401);
    /// The server has too much to do: connect again later.
    pub const TRY_LATER: Self = Self(1013);

    /// Whether the code may stand in a close frame.
    #[must_use]
    pub fn is_sendable(self) -> bool {
        matches!(self.0, 1000..=1003 | 1007..=1014 | 3000..=4999)
    }
}

/// What a close frame says; nothing if it was empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Close {
    /// Its code.
    pub code: CloseCode,
    /// Its reason; may be empty.
    pub reason: String,
}

/// Reads the body of a close frame.
///
/// # Errors
/// The code to answer with, when the body is one byte, the code may not be sent, or the reason is not UTF-8.
pub fn parse(body: &[u8]) -> Result<Option<Close>, CloseCode> {
    if body.is_empty() {
        return Ok(None);
    }
    let (code, reason) = body.split_first_chunk::<2>().ok_or(CloseCode::PROTOCOL)?;
    let code = CloseCode(u16::from_be_bytes(*code));
    if !code.is_sendable() {
        return Err(CloseCode::PROTOCOL);
    }
    let reason = std::str::from_utf8(reason).map_err(|_invalid| CloseCode::INVALID_TEXT)?;
    Ok(Some(Close { code, reason: reason.to_owned() }))
}

/// A close frame as a server writes it; a reason too long for a control frame is cut at a character.
#[must_use]
pub fn encode(code: CloseCode, reason: &str) -> Bytes {
    let mut end = reason.len().min(CONTROL_MAX - 2);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    let mut body = BytesMut::with_capacity(CONTROL_MAX);
    body.put_u16(code.0);
    body.extend_from_slice(reason.get(..end).unwrap_or_default().as_bytes());
    frame::encode(Opcode::Close, &body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_that_say_nothing_legal_are_refused() {
        assert_eq!(parse(&[]), Ok(None));
        assert_eq!(parse(&[3]), Err(CloseCode::PROTOCOL));
        for code in [0_u16, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65_535] {
            assert_eq!(parse(&code.to_be_bytes()), Err(CloseCode::PROTOCOL), "{code}");
        }
        assert_eq!(parse(&[3, 0xE8, 0xFF]), Err(CloseCode::INVALID_TEXT));
        let parsed = parse(&[3, 0xE8, b'b', b'y', b'e']);
        assert_eq!(parsed, Ok(Some(Close { code: CloseCode::NORMAL, reason: "bye".into() })));
    }

    #[test]
    fn a_long_reason_is_cut_at_a_character() {
        let frame = encode(CloseCode::POLICY, &"é".repeat(100));
        assert_eq!(frame.len(), 2 + 2 + 122);
        assert!(parse(&frame[2..]).is_ok());
    }
}
