//! The other end: a WebSocket and an HTTP client that do exactly what a test says.

use std::{net::SocketAddr, time::Duration};

use estafette_gateway::websocket::{
    decoder::{Decoder, Event, Limits, Masking},
    frame::{Opcode, encode_masked},
};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};

/// For anything a test waits for.
pub(crate) const WAIT_MAX: Duration = Duration::from_secs(20);

pub(crate) async fn within<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(WAIT_MAX, what).await.expect("it takes too long")
}

/// A client's WebSocket.
pub(crate) struct Peer {
    pub(crate) stream: TcpStream,
    buffer: Vec<u8>,
    decoder: Decoder,
}

impl Peer {
    pub(crate) async fn connect(address: SocketAddr, path: &str) -> Self {
        Self::connect_with(address, path, "").await.expect("the upgrade is refused")
    }

    /// Connects with more headers; an error is the status line.
    pub(crate) async fn connect_with(address: SocketAddr, path: &str, headers: &str) -> Result<Self, String> {
        let socket = TcpSocket::new_v4().unwrap();
        // Small, so that a test that does not read soon fills it.
        socket.set_recv_buffer_size(8 << 10).unwrap();
        let mut stream = socket.connect(address).await.unwrap();
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut buffer = Vec::new();
        let end = loop {
            if let Some(end) = buffer.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break end + 4;
            }
            assert_ne!(within(stream.read_buf(&mut buffer)).await.unwrap(), 0);
        };
        let head = String::from_utf8(buffer.drain(..end).collect()).unwrap();
        if head.starts_with("HTTP/1.1 101 ") && head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=") {
            return Ok(Self { stream, buffer, decoder: Decoder::default() });
        }
        Err(head.lines().next().unwrap_or_default().to_owned())
    }

    pub(crate) async fn send(&mut self, text: &str) {
        self.send_bytes(&encode_masked(Opcode::Text, text.as_bytes(), [1, 2, 3, 4])).await;
    }

    pub(crate) async fn send_bytes(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// The next text; `Err` holds the close code, 0 without one.
    pub(crate) async fn next(&mut self) -> Result<String, u16> {
        within(self.receive()).await
    }

    async fn receive(&mut self) -> Result<String, u16> {
        let limits = Limits { masking: Masking::Forbidden, message_max: 1 << 24, ..Limits::default() };
        loop {
            if let Some((taken, event)) = self.decoder.decode(&mut self.buffer, &limits).unwrap() {
                let text = match event {
                    Some(Event::Message { data, .. }) => Some(String::from_utf8(data.into_owned()).unwrap()),
                    Some(Event::Close(close)) => return Err(close.map_or(0, |close| close.code.0)),
                    _ => None,
                };
                self.buffer.drain(..taken);
                if let Some(text) = text {
                    return Ok(text);
                }
                continue;
            }
            match self.stream.read_buf(&mut self.buffer).await {
                Ok(0) | Err(_) => return Err(0),
                Ok(_) => {}
            }
        }
    }

    /// Sends a request and returns the next text.
    pub(crate) async fn ask(&mut self, request: &str) -> String {
        self.send(request).await;
        self.next().await.unwrap()
    }

    pub(crate) async fn next_json(&mut self) -> Value {
        serde_json::from_str(&self.next().await.unwrap()).unwrap()
    }
}

/// One HTTP request; returns status, head and body.
pub(crate) async fn http(
    address: SocketAddr,
    first: &str,
    headers: &str,
    body: &str,
) -> (u16, String, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let length = body.len();
    let request = format!(
        "{first} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // A refused body may end the connection before it was read: what came before that counts.
    drop(within(stream.read_to_end(&mut answer)).await);
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head[9..12].parse().unwrap(), head.to_owned(), body.to_owned())
}
