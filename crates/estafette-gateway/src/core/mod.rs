//! One core: a thread with its own listeners, connections, channels and scripts. Nothing here is shared or locked;
//! other threads reach it over its inbox.
//!
//! Reading order: this file (the tables and what can be done to a connection), [`connection`], [`outbox`], [`stream`],
//! [`channels`], [`context`] (values, and who waits for them), [`application`] (what answers messages), [`drive`] (a connection's task), [`run`] (accepting, inbox,
//! clock).

pub(crate) mod application;
pub(crate) mod channels;
pub(crate) mod connection;
mod context;
pub(crate) mod drive;
mod outbox;
pub(crate) mod run;
pub(crate) mod stream;

use std::{
    cell::{Cell, RefCell},
    fmt,
    rc::Rc,
    sync::Arc,
    time::Instant,
};

use crate::{
    mesh::{Call, CallError, ConnectionId, Hub, Payload, Published},
    settings::ServerSettings,
    stats::{CloseReason, Counters},
    websocket::close::{self, CloseCode},
};
use application::{Application, Wake};
use channels::{Channels, Interest};
use connection::{Connection, Phase, Prepared};
use rustc_hash::FxHashMap;

/// One server, as a core has it: what was set, and what answers its messages.
pub(crate) struct Server {
    pub(crate) settings: Arc<ServerSettings>,
    pub(crate) application: Rc<dyn Application>,
    /// Connections of this server on this core.
    pub(crate) connections: Cell<usize>,
    /// Its share of the connections allowed.
    pub(crate) connections_max: usize,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// The tables of one core.
pub(crate) struct Core {
    pub(crate) number: u8,
    node: u16,
    sequence: Cell<u64>,
    started: Instant,
    pub(crate) hub: Hub,
    pub(crate) counters: Arc<Counters>,
    connections: RefCell<FxHashMap<u64, Rc<Connection>>>,
    channels: Channels,
    dirty: RefCell<Vec<Rc<Connection>>>,
    /// Where every connection's bytes are read to, so that none needs a buffer of its own.
    scratch: RefCell<Vec<u8>>,
}

thread_local! {
    /// The core of this thread: what a script's functions act on.
    static CURRENT: RefCell<Option<Rc<Core>>> = const { RefCell::new(None) };
}

/// Makes `core` the one of this thread, or takes it away at the end.
pub(crate) fn set_current(core: Option<Rc<Core>>) {
    CURRENT.set(core);
}

/// Works with this thread's core, if it has one.
pub(crate) fn current<T>(work: impl FnOnce(&Core) -> T) -> Option<T> {
    let core = CURRENT.with_borrow(Clone::clone)?;
    Some(work(&core))
}

/// Bytes of one read.
const READ_MAX: usize = 64 << 10;

impl Core {
    /// The core of this number on this node; `first` is its first connection's sequence.
    pub(crate) fn new((node, number): (u16, u8), first: u64, hub: Hub, interest: Arc<Interest>) -> Self {
        let counters = hub.counters(usize::from(number));
        Self {
            number,
            node,
            sequence: Cell::new(first),
            started: Instant::now(),
            hub,
            channels: Channels::new(number, interest, Arc::clone(&counters)),
            counters,
            connections: RefCell::default(),
            dirty: RefCell::default(),
            scratch: RefCell::new(vec![0; READ_MAX]),
        }
    }

    /// Seconds since the core started: the clock of all its limits.
    pub(crate) fn now(&self) -> u32 {
        u32::try_from(self.started.elapsed().as_secs()).unwrap_or(u32::MAX - 1)
    }

    pub(crate) fn next_id(&self) -> ConnectionId {
        let sequence = self.sequence.get();
        self.sequence.set(sequence + 1);
        ConnectionId::new(self.node, self.number, sequence)
    }

    pub(crate) fn insert(&self, connection: Rc<Connection>) {
        connection.server.connections.set(connection.server.connections.get() + 1);
        Counters::add(&self.counters.connections, 1);
        Counters::add(&self.counters.accepted, 1);
        self.connections.borrow_mut().insert(connection.id.sequence(), connection);
    }

    /// A connection that takes part.
    pub(crate) fn find(&self, id: ConnectionId) -> Option<Rc<Connection>> {
        self.find_sequence(id.sequence()).filter(|connection| connection.id == id)
    }

    pub(crate) fn find_sequence(&self, sequence: u64) -> Option<Rc<Connection>> {
        self.connections.borrow().get(&sequence).filter(|connection| connection.is_open()).cloned()
    }

    /// Every connection, whatever its phase.
    pub(crate) fn all(&self) -> Vec<Rc<Connection>> {
        self.connections.borrow().values().cloned().collect()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.connections.borrow().is_empty()
    }

    /// Queues `payload` for a connection; it is written by the next [`Core::flush`].
    ///
    /// # Errors
    /// [`CallError`] when the connection does not take it.
    pub(crate) fn send(&self, connection: &Rc<Connection>, prepared: &Prepared) -> Result<(), CallError> {
        let bytes = if connection.is_websocket() {
            prepared.frame()
        } else {
            connection
                .server
                .application
                .encode(self, connection, &prepared.payload)
                .map_err(CallError::Refused)?
        };
        self.send_raw(connection, bytes)
    }

    /// Queues bytes as they are.
    ///
    /// # Errors
    /// [`CallError::SlowReader`] when too much waits: the connection is closed then.
    pub(crate) fn send_raw(&self, connection: &Rc<Connection>, bytes: bytes::Bytes) -> Result<(), CallError> {
        if !connection.is_open() {
            return Err(CallError::NoConnection);
        }
        if connection.outbox.borrow().bytes() + bytes.len() > connection.server.settings.limits.queued_max {
            // What waits may be in the core only because this turn has not ended.
            self.flush_one(connection);
            let waits = connection.outbox.borrow().bytes();
            if waits > 0 && waits + bytes.len() > connection.server.settings.limits.queued_max {
                self.abort(connection, CloseReason::SlowReader);
                return Err(CallError::SlowReader);
            }
        }
        Counters::add(&self.counters.messages_out, 1);
        connection.outbox.borrow_mut().push(bytes);
        self.touch(connection);
        Ok(())
    }

    /// Queues bytes that are no message: handshakes, control frames.
    pub(crate) fn push_control(&self, connection: &Rc<Connection>, bytes: bytes::Bytes) {
        connection.outbox.borrow_mut().push(bytes);
        self.touch(connection);
    }

    fn touch(&self, connection: &Rc<Connection>) {
        if !connection.is_dirty.replace(true) {
            self.dirty.borrow_mut().push(Rc::clone(connection));
        }
    }

    /// Writes what this turn queued. Every entry into the core ends with it.
    pub(crate) fn flush(&self) {
        let mut dirty = std::mem::take(&mut *self.dirty.borrow_mut());
        for connection in dirty.drain(..) {
            connection.is_dirty.set(false);
            self.flush_one(&connection);
        }
        let mut kept = self.dirty.borrow_mut();
        if kept.is_empty() && dirty.capacity() <= 1 << 16 {
            *kept = dirty;
        }
    }

    pub(crate) fn flush_one(&self, connection: &Rc<Connection>) {
        match connection.flush(self.now()) {
            Ok(written) => Counters::add(&self.counters.bytes_out, written as u64),
            Err(_) => self.abort(connection, CloseReason::Lost),
        }
    }

    /// Begins to close: what waits and, on a WebSocket, the close frame are written, then the peer's end is awaited.
    pub(crate) fn close(
        &self,
        connection: &Rc<Connection>,
        reason: CloseReason,
        code: CloseCode,
        text: &str,
    ) {
        if matches!(connection.phase.get(), Phase::Closing | Phase::Aborted) {
            return;
        }
        let was_open = connection.phase.replace(Phase::Closing) == Phase::Open;
        connection.reason.set(reason);
        connection.heard.set(self.now());
        if was_open && connection.is_websocket() {
            self.push_control(connection, close::encode(code, text));
        }
        connection.wake();
    }

    /// Ends a connection at once.
    pub(crate) fn abort(&self, connection: &Rc<Connection>, reason: CloseReason) {
        if connection.phase.get() == Phase::Aborted {
            return;
        }
        if connection.phase.replace(Phase::Aborted) != Phase::Closing {
            connection.reason.set(reason);
        }
        connection.outbox.borrow_mut().clear();
        connection.wake();
    }

    /// The connection's last turn: takes it out of every table and tells its application.
    pub(crate) fn remove(&self, connection: &Rc<Connection>) {
        connection.phase.set(Phase::Aborted);
        if self.connections.borrow_mut().remove(&connection.id.sequence()).is_none() {
            return;
        }
        connection.server.connections.set(connection.server.connections.get().saturating_sub(1));
        Counters::subtract(&self.counters.connections, 1);
        self.counters.closed(connection.reason.get());
        self.channels.leave_all(connection);
        let held = connection.held.borrow_mut().take();
        let application = Rc::clone(&connection.server.application);
        if let Some(held) = held {
            let _ended = application.resume(self, connection, &held.key, Wake::Closed);
        }
        if connection.is_announced.replace(false) {
            application.on_close(self, connection, connection.reason.get());
        }
        self.flush();
    }

    /// Writes to every local subscriber of a channel.
    pub(crate) fn publish(&self, channel: &str, payload: Payload) -> Published {
        let prepared = Prepared::new(payload);
        let mut published = Published::default();
        Counters::add(&self.counters.publishes, 1);
        self.channels.for_each(channel, |connection| match self.send(connection, &prepared) {
            Ok(()) => published.success += 1,
            Err(_) => published.fail += 1,
        });
        published
    }

    /// Writes to every subscriber on this node, without waiting for other cores: theirs are counted as they stand now.
    pub(crate) fn publish_everywhere(&self, channel: &str, payload: &Payload) -> Published {
        let mut published = self.publish(channel, payload.clone());
        let interest = self.channels.elsewhere(channel);
        if interest.is_empty() {
            return published;
        }
        let channel: Arc<str> = channel.into();
        for (core, count) in interest {
            if self.hub.forward_publish(core, Arc::clone(&channel), payload.clone()) {
                published.success += count;
            } else {
                published.fail += count;
            }
        }
        published
    }

    /// Sends to a connection of this node, without waiting for another core.
    ///
    /// # Errors
    /// [`CallError`]; what goes wrong on another core is not known here.
    pub(crate) fn send_anywhere(&self, id: ConnectionId, payload: Payload) -> Result<(), CallError> {
        if id.node() == self.node && id.core() == usize::from(self.number) {
            let connection = self.find(id).ok_or(CallError::NoConnection)?;
            return self.send(&connection, &Prepared::new(payload));
        }
        self.hub.forward(id, payload)
    }

    /// Does a backend's call.
    ///
    /// # Errors
    /// [`CallError`]; it had no effect then.
    pub(crate) fn call(&self, id: ConnectionId, call: Call) -> Result<(), CallError> {
        let connection = self.find(id).ok_or(CallError::NoConnection)?;
        match call {
            Call::SetContextValue(key, value) => self.set_context_value(&connection, &key, value),
            Call::SetContext(values) => self.set_context(&connection, values),
            Call::Subscribe(channels) => self.subscribe(&connection, &channels),
            Call::Unsubscribe(channels) => {
                self.channels.unsubscribe(&connection, &channels);
                Ok(())
            }
            Call::Close => {
                self.close(&connection, CloseReason::Closed, CloseCode::NORMAL, "");
                Ok(())
            }
        }
    }

    /// Joins all of `channels` or none.
    ///
    /// # Errors
    /// [`CallError::Refused`] when a name or their number is not allowed.
    pub(crate) fn subscribe(
        &self,
        connection: &Rc<Connection>,
        channels: &[String],
    ) -> Result<(), CallError> {
        self.channels.subscribe(connection, channels).map_err(|reason| CallError::Refused(reason.into()))
    }

    pub(crate) fn unsubscribe(&self, connection: &Rc<Connection>, channels: &[String]) {
        self.channels.unsubscribe(connection, channels);
    }
}
