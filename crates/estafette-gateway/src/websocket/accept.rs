//! The answer to a handshake.

use std::fmt::Write as _;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use sha1::{Digest as _, Sha1};

use super::handshake::Refusal;

/// What every key is joined with (RFC 6455, 1.3).
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The value of `Sec-WebSocket-Accept` for a client's key.
#[must_use]
pub fn accept_key(key: &str) -> String {
    STANDARD.encode(Sha1::new().chain_update(key).chain_update(GUID).finalize())
}

/// The response that opens the WebSocket.
#[must_use]
pub fn accept(key: &str, protocol: Option<&str>) -> String {
    let mut response = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {}\r\n",
        accept_key(key)
    );
    if let Some(protocol) = protocol {
        // Writing to a string cannot fail.
        let _infallible = write!(response, "Sec-WebSocket-Protocol: {protocol}\r\n");
    }
    response.push_str("\r\n");
    response
}

/// The response that does not; the connection ends after it.
#[must_use]
pub fn refuse(refusal: Refusal) -> String {
    let status = refusal.status();
    let more = match refusal {
        Refusal::NotUpgrade => "Upgrade: websocket\r\n",
        Refusal::Version => "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n",
        Refusal::Method => "Allow: GET\r\n",
        _ => "",
    };
    let body = status.get(4..).unwrap_or_default();
    format!(
        "HTTP/1.1 {status}\r\n{more}Content-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}\n",
        body.len() + 1
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_of_the_standard_s_example_is_answered() {
        assert_eq!(accept_key("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert!(
            accept("dGhlIHNhbXBsZSBub25jZQ==", Some("chat"))
                .ends_with("Sec-WebSocket-Protocol: chat\r\n\r\n")
        );
        assert!(refuse(Refusal::Version).starts_with("HTTP/1.1 426 Upgrade Required\r\nUpgrade"));
    }
}
