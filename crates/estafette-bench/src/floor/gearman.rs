//! Gearman: a bare socket that says exactly what the job needs, encoded beforehand.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Instant;

use anyhow::{Context as _, ensure};

use crate::case::Rate;

/// The bytes of a message's body.
pub const BODY: [u8; 256] = [b'x'; 256];

const CAN_DO: u32 = 1;
const JOB_CREATED: u32 = 8;
const NO_JOB: u32 = 10;
const WORK_COMPLETE: u32 = 13;
const SUBMIT_JOB_BG: u32 = 18;
const GRAB_JOB_UNIQ: u32 = 30;
const JOB_ASSIGN_UNIQ: u32 = 31;

struct Wire {
    socket: TcpStream,
    buffer: Vec<u8>,
    start: usize,
}

impl Wire {
    fn connect(address: &str) -> anyhow::Result<Self> {
        let socket = TcpStream::connect(address).with_context(|| format!("no gearmand at {address}"))?;
        socket.set_nodelay(true)?;
        Ok(Self { socket, buffer: Vec::new(), start: 0 })
    }

    /// The next packet: its kind and its data.
    fn packet(&mut self) -> anyhow::Result<(u32, &[u8])> {
        let (kind, from, to) = loop {
            let unread = self.buffer.get(self.start..).unwrap_or_default();
            if let Some(&[_, _, _, _, a, b, c, d, e, f, g, h]) = unread.first_chunk::<12>() {
                let size = u32::from_be_bytes([e, f, g, h]) as usize;
                if unread.len() >= 12 + size {
                    let from = self.start + 12;
                    break (u32::from_be_bytes([a, b, c, d]), from, from + size);
                }
            }
            self.fill()?;
        };
        self.start = to;
        Ok((kind, self.buffer.get(from..to).unwrap_or_default()))
    }

    fn fill(&mut self) -> anyhow::Result<()> {
        self.buffer.drain(..self.start);
        self.start = 0;
        let filled = self.buffer.len();
        self.buffer.resize(filled + (64 << 10), 0);
        let count = self.socket.read(self.buffer.get_mut(filled..).unwrap_or_default())?;
        self.buffer.truncate(filled + count);
        ensure!(count > 0, "gearmand hung up");
        Ok(())
    }
}

fn put(out: &mut Vec<u8>, kind: u32, data: &[u8]) {
    out.extend(b"\0REQ");
    out.extend(kind.to_be_bytes());
    out.extend(u32::try_from(data.len()).unwrap_or(u32::MAX).to_be_bytes());
    out.extend(data);
}

/// Submits background jobs with `data`, `window` at a time, each with an id of its own.
///
/// # Errors
///
/// Those of the connection.
pub fn submit(
    address: &str,
    function: &str,
    data: &[u8],
    messages: u32,
    window: u32,
) -> anyhow::Result<Rate> {
    let mut wire = Wire::connect(address)?;
    let started = Instant::now();
    let mut sent = 0;
    let mut out = Vec::new();
    while sent < messages {
        let count = window.min(messages - sent);
        out.clear();
        for number in sent..sent + count {
            let id = format!("01a1fc72-14c4-70a8-824e-{number:012}");
            let job = [function.as_bytes(), b"\0", id.as_bytes(), b"\0", data].concat();
            put(&mut out, SUBMIT_JOB_BG, &job);
        }
        wire.socket.write_all(&out)?;
        for _ in 0..count {
            let (kind, _) = wire.packet()?;
            ensure!(kind == JOB_CREATED, "a packet of kind {kind} instead of a confirmation");
        }
        sent += count;
    }
    Ok(Rate::of(messages, started.elapsed()))
}

/// Grabs and completes jobs until so many are done, `window` at a time.
///
/// # Errors
///
/// Those of the connection, and jobs that are missing.
pub fn work(address: &str, function: &str, messages: u32, window: u32) -> anyhow::Result<Rate> {
    let mut wire = Wire::connect(address)?;
    let mut out = Vec::new();
    put(&mut out, CAN_DO, function.as_bytes());
    wire.socket.write_all(&out)?;
    let mut grabs = Vec::new();
    for _ in 0..window {
        put(&mut grabs, GRAB_JOB_UNIQ, b"");
    }
    let started = Instant::now();
    let mut done = 0;
    while done < messages {
        wire.socket.write_all(&grabs)?;
        out.clear();
        for _ in 0..window {
            let (kind, data) = wire.packet()?;
            if kind == NO_JOB {
                continue;
            }
            ensure!(kind == JOB_ASSIGN_UNIQ, "a packet of kind {kind} instead of a job");
            let end = data.iter().position(|&byte| byte == 0).context("no handle")?;
            // The handle with its zero byte: an empty result follows.
            put(&mut out, WORK_COMPLETE, data.get(..=end).unwrap_or_default());
            done += 1;
        }
        ensure!(!out.is_empty(), "only {done} of {messages} jobs came");
        wire.socket.write_all(&out)?;
    }
    Ok(Rate::of(messages, started.elapsed()))
}
