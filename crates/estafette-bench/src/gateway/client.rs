//! A WebSocket client as small as it gets: it masks with zeros, trusts the server, and keeps no buffer while idle.

use std::net::SocketAddr;

use anyhow::{Context as _, bail, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const HEAD_BYTES_MAX: usize = 4096;

/// Opens a connection and returns what came after the server's answer.
///
/// # Errors
///
/// Those of the connection, and an answer other than 101.
pub async fn connect(address: SocketAddr, path: &str) -> anyhow::Result<(TcpStream, Vec<u8>)> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut head = Vec::new();
    loop {
        ensure!(stream.read_buf(&mut head).await? > 0, "the server hung up during the handshake");
        if let Some(end) = head.windows(4).position(|window| window == b"\r\n\r\n") {
            ensure!(head.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head));
            return Ok((stream, head.split_off(end + 4)));
        }
        ensure!(head.len() < HEAD_BYTES_MAX, "the server's answer has no end");
    }
}

/// A text as a client's frame.
#[must_use]
pub fn text(body: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x81];
    match u16::try_from(body.len()) {
        Ok(length @ 0..126) => frame.push(0x80 | length.to_le_bytes()[0]),
        Ok(length) => {
            frame.push(0x80 | 126);
            frame.extend(length.to_be_bytes());
        }
        Err(_) => {
            frame.push(0x80 | 127);
            frame.extend((body.len() as u64).to_be_bytes());
        }
    }
    // A mask of zeros changes nothing.
    frame.extend([0; 4]);
    frame.extend(body);
    frame
}

/// Calls `each` with the payload of every whole data frame in `bytes`, and returns how many bytes those were.
///
/// # Errors
///
/// A close frame, and a masked one.
pub fn frames(bytes: &[u8], mut each: impl FnMut(&[u8])) -> anyhow::Result<usize> {
    let mut taken = 0;
    loop {
        let rest = bytes.get(taken..).unwrap_or_default();
        let Some(&[first, second]) = rest.first_chunk::<2>() else { return Ok(taken) };
        let (from, length) = match second {
            length @ 0..126 => (2_usize, usize::from(length)),
            126 => match rest.get(2..4) {
                Some(&[a, b]) => (4, usize::from(u16::from_be_bytes([a, b]))),
                _ => return Ok(taken),
            },
            127 => match rest.get(2..10).and_then(|bytes| bytes.first_chunk::<8>()) {
                Some(bytes) => (10, usize::try_from(u64::from_be_bytes(*bytes))?),
                None => return Ok(taken),
            },
            _ => bail!("the server masks its frames"),
        };
        let Some(payload) = rest.get(from..from.checked_add(length).context("a frame's length")?) else {
            return Ok(taken);
        };
        match first & 0x0f {
            0..=2 => each(payload),
            8 => bail!("the server closed a connection: {:?}", String::from_utf8_lossy(payload)),
            _ => {}
        }
        taken += from + length;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_frames_are_taken_and_half_ones_wait() {
        let mut bytes = vec![0x81, 2, b'h', b'i', 0x89, 0, 0x82, 126, 0, 200];
        bytes.extend([7; 200]);
        bytes.extend([0x81, 5, b'h']);
        let mut seen = Vec::new();
        let taken = frames(&bytes, |payload| seen.push(payload.len())).unwrap();
        assert_eq!((taken, seen), (bytes.len() - 3, vec![2, 200]));
        assert!(frames(&[0x88, 0], |_| {}).is_err());
    }
}
