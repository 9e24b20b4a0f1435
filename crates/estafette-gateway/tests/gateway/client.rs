//! A user: a blocking WebSocket client on our own codec, which can also say what no client should.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use estafette_gateway::{
    Kind,
    websocket::{
        accept::accept_key,
        decoder::{Decoder, Event, Limits, Masking},
        frame::{Opcode, encode_masked},
    },
};

/// No answer within this is a failure.
const ANSWER_MAX: Duration = Duration::from_secs(20);

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// What came.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Received {
    Text(String),
    Binary(Vec<u8>),
    Ping,
    Pong(Vec<u8>),
    /// With its code; 1005 if it had none.
    Close(u16),
    /// The stream ended.
    End,
}

pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    decoder: Decoder,
    bytes: Vec<u8>,
}

/// A socket to `address`.
pub(crate) fn dial(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(ANSWER_MAX)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// The usual request for `target`.
pub(crate) fn request(target: &str) -> String {
    format!(
        "GET {target} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
}

impl Client {
    /// Connects and shakes hands.
    pub(crate) fn connect(address: SocketAddr, target: &str) -> Self {
        let (client, response) = Self::shake(dial(address), request(target));
        assert!(response.starts_with("HTTP/1.1 101 "), "{response}");
        assert!(response.contains(&accept_key(KEY)), "{response}");
        client
    }

    /// Sends a request and reads the response's head.
    pub(crate) fn shake(mut stream: TcpStream, request: impl AsRef<[u8]>) -> (Self, String) {
        stream.write_all(request.as_ref()).unwrap();
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() == 1 {
            head.push(byte[0]);
        }
        let client = Self { stream, decoder: Decoder::default(), bytes: Vec::new() };
        (client, String::from_utf8(head).unwrap())
    }

    pub(crate) fn send(&mut self, opcode: Opcode, payload: &[u8]) {
        self.raw(&encode_masked(opcode, payload, [7, 8, 9, 10]));
    }

    pub(crate) fn text(&mut self, text: &str) {
        self.send(Opcode::Text, text.as_bytes());
    }

    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// The next thing that comes.
    pub(crate) fn receive(&mut self) -> Received {
        let limits = Limits { message_max: 64 << 20, masking: Masking::Forbidden, ..Limits::default() };
        loop {
            let decoded = self.decoder.decode(&mut self.bytes, &limits).unwrap();
            if let Some((taken, event)) = decoded {
                let received = event.map(|event| match event {
                    Event::Message { kind: Kind::Text, data } => {
                        Received::Text(String::from_utf8(data.into_owned()).unwrap())
                    }
                    Event::Message { kind: Kind::Binary, data } => Received::Binary(data.into_owned()),
                    Event::Ping(_) => Received::Ping,
                    Event::Pong(body) => Received::Pong(body.to_vec()),
                    Event::Close(close) => Received::Close(close.map_or(1005, |close| close.code.0)),
                });
                self.bytes.drain(..taken);
                match received {
                    Some(received) => return received,
                    None => continue,
                }
            }
            let mut buffer = [0; 4096];
            match self.stream.read(&mut buffer) {
                Ok(0) | Err(_) => return Received::End,
                Ok(length) => self.bytes.extend_from_slice(&buffer[..length]),
            }
        }
    }

    /// The next message, which must be text.
    pub(crate) fn receive_text(&mut self) -> String {
        match self.receive() {
            Received::Text(text) => text,
            other => panic!("no text but {other:?}"),
        }
    }

    /// Reads to the end; returns the close code, if there was one.
    pub(crate) fn receive_close(&mut self) -> Option<u16> {
        let mut code = None;
        loop {
            match self.receive() {
                Received::End => return code,
                Received::Close(closed) => code = Some(closed),
                _ => {}
            }
        }
    }
}

/// Waits until `condition` holds.
pub(crate) fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = std::time::Instant::now();
    while !condition() {
        assert!(start.elapsed() < ANSWER_MAX, "not within the time: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
