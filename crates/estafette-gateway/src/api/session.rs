//! One backend's WebSocket: its requests in order, an answer each, and the messages it consumes.
//!
//! One task does everything, so that the order is what it seems. It stops taking requests and messages while a backend
//! does not read what it is sent; messages then stay in their queues. The registration ends with the task, at once
//! when the connection does.

use std::{io, time::Duration};

use bytes::BytesMut;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::watch,
    time::{Instant, Interval, MissedTickBehavior, interval_at},
};

use super::{
    access::Roles,
    dialect::{self, Dialect, Fault, Operation, Outcome},
    execute::{check, check_cancel, consume, execute},
    outbox::Outbox,
    server::{Counted, stopped},
};
use crate::{
    mesh::Hub,
    queues::{Consumed, Consumption},
    websocket::{
        close::{self, CloseCode},
        decoder::{Decoder, Event, Limits, Masking},
        frame::{self, Opcode},
    },
};

/// How often a backend is pinged. Published clients never ping, and proxies in between close what is silent; a missing
/// pong means nothing, because a blocking client reads only when it asks.
const PING_EVERY: Duration = Duration::from_secs(30);

/// How long the last frames may take.
const FAREWELL_MAX: Duration = Duration::from_secs(1);

/// Room that is made for each read.
const READ_BYTES: usize = 16 << 10;

/// Messages taken at a time before anything else has its turn.
const MESSAGES_AT_ONCE: usize = 64;

/// What a session works with.
pub(crate) struct Session {
    pub(crate) hub: Hub,
    pub(crate) roles: Roles,
    pub(crate) counted: Counted,
    limits: Limits,
    decoder: Decoder,
    input: BytesMut,
    outbox: Outbox,
    /// Of the newest request that could be read.
    dialect: Dialect,
    consuming: Option<Consuming>,
}

struct Consuming {
    consumption: Consumption,
    acknowledging: bool,
    dialect: Dialect,
}

/// What a frame asks for.
enum Incoming {
    Text(String),
    Binary,
    Ping(Vec<u8>),
    Pong,
    Close,
}

/// What there is to do.
enum Wake {
    Read(usize),
    Written(usize),
    Message(Consumed),
    Ping,
    Stop,
}

/// How a session goes on.
#[derive(PartialEq, Eq)]
enum Next {
    Goes,
    Ends,
}

impl Session {
    /// A session for a connection on which `input` came already.
    pub(crate) fn new(hub: Hub, roles: Roles, counted: Counted, input: BytesMut, request_max: usize) -> Self {
        let limits =
            Limits { message_max: request_max, masking: Masking::RequiredOfMessages, ..Limits::default() };
        Self {
            hub,
            roles,
            counted,
            limits,
            decoder: Decoder::default(),
            input,
            outbox: Outbox::default(),
            dialect: Dialect::Short,
            consuming: None,
        }
    }

    /// Runs until the connection ends or `stop` says so.
    pub(crate) async fn run(
        mut self,
        mut stream: TcpStream,
        mut stop: watch::Receiver<bool>,
    ) -> io::Result<()> {
        let (mut reader, mut writer) = stream.split();
        let mut pings = interval_at(Instant::now() + PING_EVERY, PING_EVERY);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            if self.take_requests().await == Next::Ends {
                break;
            }
            match self.wait(&mut reader, &mut writer, &mut pings, &mut stop).await? {
                Wake::Read(0) => return Ok(()),
                Wake::Read(_) => {}
                Wake::Written(count) => self.written(count),
                Wake::Message(consumed) => self.take_messages(consumed).await,
                Wake::Ping if self.outbox.is_empty() => {
                    self.outbox.push(frame::encode(Opcode::Ping, b""), None)
                }
                Wake::Ping => {}
                Wake::Stop => {
                    self.outbox.push(close::encode(CloseCode::RESTART, "the gateway stops"), None);
                    break;
                }
            }
        }
        // What was not begun goes back to its queue now, not after the farewell.
        self.cancel();
        drop(tokio::time::timeout(FAREWELL_MAX, self.farewell(&mut writer)).await);
        Ok(())
    }

    async fn wait(
        &mut self,
        reader: &mut ReadHalf<'_>,
        writer: &mut WriteHalf<'_>,
        pings: &mut Interval,
        stop: &mut watch::Receiver<bool>,
    ) -> io::Result<Wake> {
        let has_room = self.outbox.has_room();
        self.input.reserve(READ_BYTES);
        let consuming = self.consuming.as_mut().filter(|_| has_room);
        let wants_message = consuming.is_some();
        tokio::select! {
            count = reader.read_buf(&mut self.input), if has_room => count.map(Wake::Read),
            count = self.outbox.write_to(writer), if !self.outbox.is_empty() => count.map(Wake::Written),
            message = next(consuming), if wants_message => Ok(Wake::Message(message)),
            _ = pings.tick() => Ok(Wake::Ping),
            () = stopped(stop) => Ok(Wake::Stop),
        }
    }

    /// Answers every request that is there, as long as the answers have room.
    async fn take_requests(&mut self) -> Next {
        while self.outbox.has_room() {
            let incoming = match self.decode() {
                Ok(Some(incoming)) => incoming,
                Ok(None) => break,
                Err(close) => {
                    self.outbox.push(close, None);
                    return Next::Ends;
                }
            };
            match incoming {
                Incoming::Text(text) if text == "ping" => {
                    self.outbox.push(frame::encode(Opcode::Text, b"pong"), None);
                }
                Incoming::Text(text) => self.request(&text).await,
                Incoming::Binary => self.answer(self.dialect, "null", &Err(not_text())),
                Incoming::Ping(body) => self.outbox.push(frame::encode(Opcode::Pong, &body), None),
                Incoming::Pong => {}
                Incoming::Close => {
                    self.outbox.push(close::encode(CloseCode::NORMAL, ""), None);
                    return Next::Ends;
                }
            }
        }
        Next::Goes
    }

    /// The next whole message or control frame; an error is the close frame to end with.
    fn decode(&mut self) -> Result<Option<Incoming>, bytes::Bytes> {
        loop {
            let (taken, incoming) = match self.decoder.decode(&mut self.input, &self.limits) {
                Ok(None) => return Ok(None),
                Ok(Some((taken, event))) => (taken, event.map(incoming)),
                Err(fault) => return Err(close::encode(fault.code, fault.reason)),
            };
            drop(self.input.split_to(taken));
            if self.input.is_empty() && self.input.capacity() > READ_BYTES {
                // What a large request took is not kept.
                self.input = BytesMut::new();
            }
            if incoming.is_some() {
                return Ok(incoming);
            }
        }
    }

    async fn request(&mut self, text: &str) {
        let request = dialect::parse(text, self.dialect);
        self.dialect = request.dialect;
        self.counted.request();
        let outcome = match request.operation {
            Ok(operation) => self.operate(operation, request.dialect).await,
            Err(fault) => Err(fault),
        };
        self.answer(request.dialect, &request.id, &outcome);
    }

    async fn operate(&mut self, operation: Operation, dialect: Dialect) -> Result<Outcome, Fault> {
        check(&operation, self.roles)?;
        let current = self.consuming.as_ref().map(|consuming| &consuming.consumption);
        match operation {
            Operation::Consume { queues, acknowledging } => {
                let consumption = consume(&self.hub, &queues, current)?;
                self.consuming = Some(Consuming { consumption, acknowledging, dialect });
                Ok(Outcome::Done)
            }
            Operation::Cancel { queues } => {
                check_cancel(current, &queues)?;
                self.cancel();
                Ok(Outcome::Done)
            }
            Operation::Acknowledge { tags } => {
                let consuming = self.consuming.as_mut().filter(|consuming| consuming.acknowledging);
                let consuming = consuming.ok_or_else(|| Fault::parameter("nothing is to be acknowledged"))?;
                let known = tags.iter().filter(|tag| consuming.consumption.acknowledge(**tag)).count();
                if known == tags.len() { Ok(Outcome::Done) } else { Err(Fault::parameter("unknown tag")) }
            }
            operation => execute(&self.hub, operation, self.roles).await,
        }
    }

    fn answer(&mut self, dialect: Dialect, id: &str, outcome: &Result<Outcome, Fault>) {
        let text = dialect::answer(dialect, id, outcome);
        self.outbox.push(frame::encode(Opcode::Text, text.as_bytes()), None);
    }

    /// Queues a message, and others that are there without waiting.
    async fn take_messages(&mut self, first: Consumed) {
        let Some(consuming) = &mut self.consuming else { return };
        let mut consumed = first;
        for _ in 0..MESSAGES_AT_ONCE {
            let tag = consuming.acknowledging.then_some(consumed.tag);
            let text = dialect::event(consuming.dialect, &consumed.message, tag);
            self.outbox.push(frame::encode(Opcode::Text, text.as_bytes()), Some(consumed.tag));
            if !self.outbox.has_room() {
                break;
            }
            consumed = tokio::select! {
                biased;
                consumed = consuming.consumption.next() => consumed,
                () = std::future::ready(()) => break,
            };
        }
    }

    fn written(&mut self, count: usize) {
        let tags = self.outbox.advance(count);
        if let Some(consuming) = self.consuming.as_mut().filter(|consuming| !consuming.acknowledging) {
            for tag in tags {
                consuming.consumption.acknowledge(tag);
            }
        }
    }

    /// Ends the registration; messages that were not sent go back to their queues.
    fn cancel(&mut self) {
        let begun = self.outbox.retract();
        if let Some(mut consuming) = self.consuming.take()
            && let Some(tag) = begun
            && !consuming.acknowledging
        {
            consuming.consumption.acknowledge(tag);
        }
    }

    async fn farewell(&mut self, writer: &mut WriteHalf<'_>) -> io::Result<()> {
        while !self.outbox.is_empty() {
            let count = self.outbox.write_to(writer).await?;
            self.outbox.advance(count);
        }
        writer.shutdown().await
    }
}

async fn next(consuming: Option<&mut Consuming>) -> Consumed {
    match consuming {
        Some(consuming) => consuming.consumption.next().await,
        None => std::future::pending().await,
    }
}

fn incoming(event: Event<'_>) -> Incoming {
    match event {
        Event::Message { data, .. } => {
            String::from_utf8(data.into_owned()).map_or(Incoming::Binary, Incoming::Text)
        }
        Event::Ping(body) => Incoming::Ping(body.to_vec()),
        Event::Pong(_) => Incoming::Pong,
        Event::Close(_) => Incoming::Close,
    }
}

fn not_text() -> Fault {
    Fault::parameter("not a request: not UTF-8")
}
