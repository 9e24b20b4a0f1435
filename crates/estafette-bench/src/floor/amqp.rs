//! RabbitMQ: a bare socket that says exactly what the job needs, encoded beforehand.
//!
//! A message has the properties an envelope needs, or none but its persistence: RabbitMQ spends half as much again to store a
//! message with those of an envelope.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Instant;

use anyhow::{Context as _, bail, ensure};

use crate::case::Rate;

/// The bytes of a message's body.
pub const BODY: [u8; 256] = [b'x'; 256];

const METHOD: u8 = 1;
const HEADER: u8 = 2;
const CONTENT: u8 = 3;
const END: u8 = 0xce;

/// What a message has besides its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Properties {
    /// Byte for byte what an envelope has: an id, a topic, a source, a time.
    Envelope,
    /// Its persistence alone.
    Bare,
}

impl Properties {
    /// Which are there, and their values.
    fn encoded(self) -> Vec<u8> {
        if self == Self::Bare {
            return vec![0x10, 0, 2];
        }
        let mut headers = Vec::new();
        for (name, value) in
            [("cloudEvents:specversion", "1.0"), ("cloudEvents:time", "2026-11-21T05:00:00.123456Z")]
        {
            short(&mut headers, name);
            headers.push(b'S');
            long(&mut headers, value.as_bytes());
        }
        let mut properties = vec![0x30, 0xe8];
        long(&mut properties, &headers);
        properties.push(2);
        short(&mut properties, "01a1fc72-14c4-70a8-824e-f41e4c46a933");
        properties.extend(1_763_704_800_u64.to_be_bytes());
        short(&mut properties, "bench.message");
        short(&mut properties, "estafette");
        properties
    }
}

/// How much is done, and with what.
#[derive(Debug, Clone, Copy)]
pub struct Job {
    /// How many messages.
    pub messages: u32,
    /// What each has besides its body.
    pub properties: Properties,
}

/// A connection with one channel.
struct Wire {
    socket: TcpStream,
    buffer: Vec<u8>,
    start: usize,
}

impl Wire {
    fn connect(address: &str) -> anyhow::Result<Self> {
        let socket = TcpStream::connect(address).with_context(|| format!("no broker at {address}"))?;
        socket.set_nodelay(true)?;
        let mut wire = Self { socket, buffer: Vec::new(), start: 0 };
        wire.write(b"AMQP\0\0\x09\x01")?;
        wire.expect((10, 10))?;
        let mut start_ok = Vec::new();
        long(&mut start_ok, &[]);
        short(&mut start_ok, "PLAIN");
        long(&mut start_ok, b"\0guest\0guest");
        short(&mut start_ok, "en_US");
        wire.write(&method(0, (10, 11), &start_ok))?;
        let tune = wire.expect((10, 30))?;
        wire.write(&method(0, (10, 31), &[tune.get(..6).context("tune")?, &[0, 0]].concat()))?;
        wire.write(&method(0, (10, 40), &[1, b'/', 0, 0]))?;
        wire.expect((10, 41))?;
        wire.write(&method(1, (20, 10), &[0]))?;
        wire.expect((20, 11))?;
        Ok(wire)
    }

    fn write(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        Ok(self.socket.write_all(bytes)?)
    }

    /// The next frame: its kind and its payload.
    fn frame(&mut self) -> anyhow::Result<(u8, &[u8])> {
        let (kind, from, to) = loop {
            let unread = self.buffer.get(self.start..).unwrap_or_default();
            if let Some(&[kind, _, _, a, b, c, d]) = unread.first_chunk::<7>() {
                let size = u32::from_be_bytes([a, b, c, d]) as usize;
                if unread.len() > 7 + size {
                    let from = self.start + 7;
                    break (kind, from, from + size);
                }
            }
            self.fill()?;
        };
        self.start = to + 1;
        Ok((kind, self.buffer.get(from..to).unwrap_or_default()))
    }

    fn fill(&mut self) -> anyhow::Result<()> {
        self.buffer.drain(..self.start);
        self.start = 0;
        let filled = self.buffer.len();
        self.buffer.resize(filled + (64 << 10), 0);
        let count = self.socket.read(self.buffer.get_mut(filled..).unwrap_or_default())?;
        self.buffer.truncate(filled + count);
        ensure!(count > 0, "the broker hung up");
        Ok(())
    }

    /// Whether no complete frame is left of what was read.
    fn is_drained(&self) -> bool {
        let unread = self.buffer.get(self.start..).unwrap_or_default();
        match unread.first_chunk::<7>() {
            Some(&[_, _, _, a, b, c, d]) => unread.len() <= 7 + u32::from_be_bytes([a, b, c, d]) as usize,
            None => true,
        }
    }

    /// Waits for a method and returns its arguments.
    fn expect(&mut self, expected: (u16, u16)) -> anyhow::Result<Vec<u8>> {
        loop {
            let (kind, payload) = self.frame()?;
            if kind != METHOD {
                continue;
            }
            let (id, arguments) = payload.split_at_checked(4).context("a short frame")?;
            if id == [expected.0.to_be_bytes(), expected.1.to_be_bytes()].concat() {
                return Ok(arguments.to_vec());
            }
            bail!("expected {expected:?}, got {payload:?}");
        }
    }

    fn declare(&mut self, queue: &str) -> anyhow::Result<()> {
        let mut arguments = vec![0, 0];
        short(&mut arguments, queue);
        arguments.extend([2, 0, 0, 0, 0]);
        self.write(&method(1, (50, 10), &arguments))?;
        self.expect((50, 11)).map(drop)
    }

    fn delete(&mut self, queue: &str) -> anyhow::Result<()> {
        let mut arguments = vec![0, 0];
        short(&mut arguments, queue);
        arguments.push(0);
        self.write(&method(1, (50, 40), &arguments))?;
        self.expect((50, 41)).map(drop)
    }
}

fn short(out: &mut Vec<u8>, text: &str) {
    out.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
    out.extend(text.bytes());
}

fn long(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend(u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
    out.extend(bytes);
}

fn frame(kind: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![kind];
    out.extend(channel.to_be_bytes());
    long(&mut out, payload);
    out.push(END);
    out
}

fn method(channel: u16, id: (u16, u16), arguments: &[u8]) -> Vec<u8> {
    frame(METHOD, channel, &[&id.0.to_be_bytes()[..], &id.1.to_be_bytes()[..], arguments].concat())
}

/// The three frames of a persistent message to `queue`.
fn publication(queue: &str, properties: Properties) -> Vec<u8> {
    let mut arguments = vec![0, 0, 0];
    short(&mut arguments, queue);
    arguments.push(1);
    let mut header = vec![0, 60, 0, 0];
    header.extend((BODY.len() as u64).to_be_bytes());
    header.extend(properties.encoded());
    [method(1, (60, 40), &arguments), frame(HEADER, 1, &header), frame(CONTENT, 1, &BODY)].concat()
}

/// Publishes with confirms, `window` of them in flight.
///
/// # Errors
///
/// When there is no broker or it says something else.
pub fn publish(address: &str, job: Job, window: u32) -> anyhow::Result<Rate> {
    let queue = format!("bench-floor-{}", fastrand::u64(..));
    let mut wire = Wire::connect(address)?;
    wire.declare(&queue)?;
    wire.write(&method(1, (85, 10), &[0]))?;
    wire.expect((85, 11))?;
    let started = Instant::now();
    publish_all(&mut wire, &queue, job, window)?;
    let rate = Rate::of(job.messages, started.elapsed());
    wire.delete(&queue)?;
    Ok(rate)
}

fn publish_all(wire: &mut Wire, queue: &str, job: Job, window: u32) -> anyhow::Result<()> {
    let Job { messages, properties } = job;
    let one = publication(queue, properties);
    let (mut sent, mut confirmed) = (0, 0);
    // Those confirmed out of turn, one by one.
    let mut out = Vec::new();
    let mut singles = std::collections::HashSet::new();
    while confirmed < messages {
        let room = (messages - sent).min(window - (sent - confirmed));
        out.clear();
        for _ in 0..room {
            out.extend_from_slice(&one);
        }
        sent += room;
        wire.write(&out)?;
        loop {
            let ack = wire.expect((60, 80))?;
            let tag: [u8; 8] = ack.get(..8).context("a short ack")?.try_into()?;
            let tag = u32::try_from(u64::from_be_bytes(tag))?;
            if ack.get(8) == Some(&1) {
                confirmed = confirmed.max(tag);
            } else {
                singles.insert(tag);
            }
            while singles.remove(&(confirmed + 1)) {
                confirmed += 1;
            }
            if wire.is_drained() && confirmed > 0 {
                break;
            }
        }
    }
    Ok(())
}

/// Consumes a backlog with a prefetch of `prefetch`, acknowledging every `block` messages.
///
/// # Errors
///
/// When there is no broker or it says something else.
pub fn consume(address: &str, job: Job, prefetch: u16, block: u32) -> anyhow::Result<Rate> {
    let queue = format!("bench-floor-{}", fastrand::u64(..));
    let mut wire = Wire::connect(address)?;
    wire.declare(&queue)?;
    wire.write(&method(1, (85, 10), &[0]))?;
    wire.expect((85, 11))?;
    publish_all(&mut wire, &queue, job, 1000)?;
    let mut wire = Wire::connect(address)?;
    let mut qos = vec![0, 0, 0, 0];
    qos.extend(prefetch.to_be_bytes());
    qos.push(0);
    wire.write(&method(1, (60, 10), &qos))?;
    wire.expect((60, 11))?;
    let started = Instant::now();
    let mut arguments = vec![0, 0];
    short(&mut arguments, &queue);
    short(&mut arguments, "floor");
    arguments.extend([0, 0, 0, 0, 0]);
    wire.write(&method(1, (60, 20), &arguments))?;
    let mut acks = Vec::new();
    let mut received = 0;
    while received < job.messages {
        let (kind, _) = wire.frame()?;
        if kind == CONTENT {
            received += 1;
            if received % block == 0 || received == job.messages {
                let mut ack = u64::from(received).to_be_bytes().to_vec();
                ack.push(u8::from(block > 1));
                acks.extend(method(1, (60, 80), &ack));
            }
        }
        if wire.is_drained() && !acks.is_empty() {
            wire.write(&acks)?;
            acks.clear();
        }
    }
    let rate = Rate::of(job.messages, started.elapsed());
    wire.write(&acks)?;
    wire.delete(&queue)?;
    Ok(rate)
}
