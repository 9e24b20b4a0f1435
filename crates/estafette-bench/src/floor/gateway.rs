//! A gateway: what one connection sends reaches all others, and that is all it can do.
//!
//! One writes each message to each connection at once; the other writes all that waits in one call. Nothing is checked: not the
//! handshake's headers, not a frame's mask beyond undoing it, and a connection that does not read stops everybody.

use std::cell::RefCell;
use std::rc::Rc;

use anyhow::{Context as _, bail};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::LocalSet;

/// The name under which this program is started as such a server: `AGENT PORT each|coalesced`.
pub const AGENT: &str = "__gateway-floor";

/// The answer to the one key that the load uses (RFC 6455, section 1.3).
const ANSWER: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

type Subscribers = Rc<RefCell<Vec<Rc<TcpStream>>>>;

/// Serves until it is killed.
///
/// # Errors
///
/// When it cannot listen.
pub fn serve(arguments: &[String]) -> anyhow::Result<()> {
    let [port, mode] = arguments else { bail!("a port and a mode are needed") };
    let port: u16 = port.parse()?;
    let coalesces = mode == "coalesced";
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, async {
        let listener = TcpListener::bind(("127.0.0.1", port)).await?;
        let subscribers = Subscribers::default();
        loop {
            let (stream, _) = listener.accept().await?;
            tokio::task::spawn_local(connection(stream, Rc::clone(&subscribers), coalesces));
        }
    })
}

async fn connection(mut stream: TcpStream, subscribers: Subscribers, coalesces: bool) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read_buf(&mut head).await? == 0 {
            return Ok(());
        }
    }
    stream.write_all(ANSWER).await?;
    if head.starts_with(b"GET /publish") {
        return publisher(stream, &subscribers, coalesces).await;
    }
    if head.starts_with(b"GET /echo") {
        return echo(stream).await;
    }
    subscribers.borrow_mut().push(Rc::new(stream));
    Ok(())
}

async fn echo(mut stream: TcpStream) -> anyhow::Result<()> {
    let mut buffer = Vec::new();
    let mut out = Vec::new();
    while stream.read_buf(&mut buffer).await? > 0 {
        take_frames(&mut buffer, |frame| out.extend_from_slice(frame));
        stream.write_all(&out).await?;
        out.clear();
    }
    Ok(())
}

async fn publisher(mut stream: TcpStream, subscribers: &Subscribers, coalesces: bool) -> anyhow::Result<()> {
    let mut buffer = Vec::with_capacity(64 << 10);
    while stream.read_buf(&mut buffer).await? > 0 {
        let mut frames = Vec::new();
        take_frames(&mut buffer, |frame| frames.push(frame.to_vec()));
        if coalesces {
            frames = vec![frames.concat()];
        }
        let everybody = subscribers.borrow().clone();
        for frame in frames.iter().filter(|frame| !frame.is_empty()) {
            for subscriber in &everybody {
                write_all(subscriber, frame).await?;
            }
        }
    }
    Ok(())
}

async fn write_all(stream: &TcpStream, mut bytes: &[u8]) -> anyhow::Result<()> {
    while !bytes.is_empty() {
        match stream.try_write(bytes) {
            Ok(count) => bytes = bytes.get(count..).context("more was written than there was")?,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => stream.writable().await?,
            // Gone: the others go on.
            Err(_) => return Ok(()),
        }
    }
    Ok(())
}

/// Takes the whole frames off the front, each as the server's frame of the same payload.
fn take_frames(buffer: &mut Vec<u8>, mut each: impl FnMut(&[u8])) {
    let mut taken = 0;
    while let Some(&[_, second]) = buffer.get(taken..).and_then(<[u8]>::first_chunk::<2>) {
        let (from, length) = match second & 0x7f {
            126 => match buffer.get(taken + 2..taken + 4) {
                Some(&[a, b]) => (4, usize::from(u16::from_be_bytes([a, b]))),
                _ => break,
            },
            length => (2, usize::from(length)),
        };
        let start = taken + from;
        let Some(masked) = buffer.get(start..start + 4 + length) else { break };
        let (mask, payload) = masked.split_at(4);
        let mut frame = vec![0x81];
        match u8::try_from(length) {
            Ok(length @ 0..126) => frame.push(length),
            _ => {
                frame.extend([&[126][..], &u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes()].concat())
            }
        }
        frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        each(&frame);
        taken = start + 4 + length;
    }
    buffer.drain(..taken);
}
