//! One connection, as its core knows it.

use std::{
    cell::{Cell, OnceCell, RefCell},
    collections::VecDeque,
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use serde_json::{Map, Value};

use super::{Server, outbox::Outbox, stream::Stream};
use crate::{
    mesh::{ConnectionId, Kind, Payload},
    settings::Protocol,
    stats::CloseReason,
    websocket::frame::{self, Opcode},
};

/// Where a connection is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Its handshake is not complete: it is not addressable.
    Opening,
    /// It takes part.
    Open,
    /// What waits is written, then it ends.
    Closing,
    /// It ends now, whatever waits.
    Aborted,
}

/// What a connection that waits for a context value keeps meanwhile.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) key: String,
    /// Seconds of the core's clock.
    pub(crate) deadline: u32,
    pub(crate) messages: VecDeque<(Kind, Vec<u8>)>,
    pub(crate) bytes: usize,
}

#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) id: ConnectionId,
    pub(crate) peer: SocketAddr,
    pub(crate) server: Rc<Server>,
    pub(crate) stream: RefCell<Stream>,
    /// Wakes the connection's own task; set at its first turn.
    pub(crate) waker: RefCell<Option<Waker>>,
    pub(crate) outbox: RefCell<Outbox>,
    pub(crate) phase: Cell<Phase>,
    pub(crate) reason: Cell<CloseReason>,
    /// Whether it is in the list of those to be flushed.
    pub(crate) is_dirty: Cell<bool>,
    /// Whether its application was told that it opened, and must be told that it closed.
    pub(crate) is_announced: Cell<bool>,
    /// Whether a ping is under way.
    pub(crate) is_pinged: Cell<bool>,
    /// When it was accepted; seconds of the core's clock.
    pub(crate) started: u32,
    /// When a byte last came, or its closing began; seconds of the core's clock.
    pub(crate) heard: Cell<u32>,
    /// When the outbox last went from empty to waiting, or progressed; `u32::MAX` if nothing waits.
    pub(crate) stalled: Cell<u32>,
    pub(crate) context: RefCell<Map<String, Value>>,
    pub(crate) channels: RefCell<Vec<Arc<str>>>,
    pub(crate) held: RefCell<Option<Box<Held>>>,
    /// Received and not taken yet; raw sockets only.
    pub(crate) buffer: RefCell<Vec<u8>>,
}

impl Connection {
    pub(crate) fn new(
        id: ConnectionId,
        peer: SocketAddr,
        server: Rc<Server>,
        stream: Stream,
        now: u32,
    ) -> Self {
        Self {
            id,
            peer,
            server,
            stream: RefCell::new(stream),
            waker: RefCell::new(None),
            outbox: RefCell::default(),
            phase: Cell::new(Phase::Opening),
            reason: Cell::new(CloseReason::Lost),
            is_dirty: Cell::new(false),
            is_announced: Cell::new(false),
            is_pinged: Cell::new(false),
            started: now,
            heard: Cell::new(now),
            stalled: Cell::new(u32::MAX),
            context: RefCell::default(),
            channels: RefCell::default(),
            held: RefCell::default(),
            buffer: RefCell::default(),
        }
    }

    pub(crate) fn is_open(&self) -> bool {
        self.phase.get() == Phase::Open
    }

    pub(crate) fn is_websocket(&self) -> bool {
        self.server.settings.protocol == Protocol::WebSocket
    }

    pub(crate) fn is_held(&self) -> bool {
        self.held.borrow().is_some()
    }

    /// Whether it keeps as many messages as it may: nothing more is read then.
    pub(crate) fn holds_enough(&self) -> bool {
        let limits = &self.server.settings.limits;
        self.held.borrow().as_ref().is_some_and(|held| {
            held.messages.len() >= limits.held_messages_max || held.bytes >= limits.held_bytes_max
        })
    }

    pub(crate) fn wake(&self) {
        if let Some(waker) = self.waker.borrow().as_ref() {
            waker.wake_by_ref();
        }
    }

    /// Writes what waits, as far as the socket takes it. Without a waker its own task will do it, at its first turn.
    ///
    /// # Errors
    /// The socket's.
    pub(crate) fn flush(&self, now: u32) -> std::io::Result<usize> {
        let waker = self.waker.borrow();
        let Some(waker) = waker.as_ref() else { return Ok(0) };
        let mut cx = Context::from_waker(waker);
        let mut outbox = self.outbox.borrow_mut();
        let mut stream = self.stream.borrow_mut();
        let flushed = match outbox.flush(|parts| stream.poll_write(&mut cx, parts)) {
            Poll::Pending => 0,
            Poll::Ready(flushed) => flushed?,
        };
        if let Poll::Ready(flushed) = stream.poll_flush(&mut cx) {
            flushed?;
        }
        if outbox.is_empty() {
            self.stalled.set(u32::MAX);
        } else if flushed > 0 || self.stalled.get() == u32::MAX {
            self.stalled.set(now);
        }
        Ok(flushed)
    }
}

/// A payload on its way to many: made into a WebSocket frame once.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) payload: Payload,
    frame: OnceCell<Bytes>,
}

impl Prepared {
    pub(crate) fn new(payload: Payload) -> Self {
        Self { payload, frame: OnceCell::new() }
    }

    pub(crate) fn frame(&self) -> Bytes {
        let opcode = match self.payload.kind {
            Kind::Text => Opcode::Text,
            Kind::Binary => Opcode::Binary,
        };
        self.frame.get_or_init(|| frame::encode(opcode, &self.payload.data)).clone()
    }
}
