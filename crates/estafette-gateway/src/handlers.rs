//! Handlers in Rust: for programs that embed the gateway and need no script.

use std::{net::SocketAddr, rc::Rc, sync::Arc};

use bytes::Bytes;
use serde_json::{Map, Value, value::RawValue};

use crate::{
    core::{
        Core,
        application::{Application, Flow, Wake},
        connection::{Connection, Prepared},
    },
    mesh::{CallError, ConnectionId, Kind, Payload, Published},
    queues::{QueueFull, QueueMessage},
    stats::CloseReason,
    websocket::{close::CloseCode, handshake::Handshake},
};

/// The connection of the running handler. Everything it does happens at once and on the connection's own thread.
pub struct Peer<'a> {
    core: &'a Core,
    connection: &'a Rc<Connection>,
}

impl std::fmt::Debug for Peer<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Peer").field("id", &self.connection.id).finish_non_exhaustive()
    }
}

/// A message as it was received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message<'a> {
    /// Text is UTF-8.
    pub kind: Kind,
    /// All of it; of a raw socket, what has come so far.
    pub data: &'a [u8],
}

impl Peer<'_> {
    /// Its number.
    #[must_use]
    pub fn id(&self) -> ConnectionId {
        self.connection.id
    }

    /// Where it comes from.
    #[must_use]
    pub fn remote_addr(&self) -> SocketAddr {
        self.connection.peer
    }

    /// A copy of its context.
    #[must_use]
    pub fn context(&self) -> Map<String, Value> {
        self.connection.context.borrow().clone()
    }

    /// A copy of one value of its context.
    #[must_use]
    pub fn context_value(&self, key: &str) -> Option<Value> {
        self.connection.context.borrow().get(key).cloned()
    }

    /// Sets one value of its context.
    ///
    /// # Errors
    /// [`CallError::Refused`] when the context would be too large.
    pub fn set_context_value(&self, key: &str, value: Value) -> Result<(), CallError> {
        self.core.set_context_value(self.connection, key, value)
    }

    /// Joins channels: all or none.
    ///
    /// # Errors
    /// [`CallError::Refused`] when a name or their number is not allowed.
    pub fn subscribe(&self, channels: &[String]) -> Result<(), CallError> {
        self.core.subscribe(self.connection, channels)
    }

    /// Leaves channels.
    pub fn unsubscribe(&self, channels: &[String]) {
        self.core.unsubscribe(self.connection, channels);
    }

    /// Sends to it.
    ///
    /// # Errors
    /// [`CallError`] when it takes no more.
    pub fn send(&self, payload: Payload) -> Result<(), CallError> {
        self.core.send(self.connection, &Prepared::new(payload))
    }

    /// Sends to another connection of this node.
    ///
    /// # Errors
    /// [`CallError`]; what goes wrong on another core is not known here.
    pub fn send_to(&self, id: ConnectionId, payload: Payload) -> Result<(), CallError> {
        self.core.send_anywhere(id, payload)
    }

    /// Publishes to a channel of this node; subscribers on other cores are counted as they stand now.
    pub fn publish(&self, channel: &str, payload: &Payload) -> Published {
        self.core.publish_everywhere(channel, payload)
    }

    /// Pushes an object or a list to a queue, for backends to consume; returns how many wait there.
    ///
    /// # Errors
    /// [`QueueFull`] when a limit is reached.
    pub fn push(&self, queue: &str, data: Box<RawValue>) -> Result<usize, QueueFull> {
        let node = self.core.hub.node().to_owned();
        let client_id = Some(self.connection.id);
        self.core.hub.queues().push(QueueMessage { node, client_id, queue: queue.to_owned(), data })
    }

    /// Closes it, after what was sent.
    pub fn close(&self) {
        self.core.close(self.connection, CloseReason::Closed, CloseCode::NORMAL, "");
    }
}

type OnOpen = dyn Fn(&Peer<'_>, Option<&Handshake>) -> bool + Send + Sync;
type OnMessage = dyn Fn(&Peer<'_>, Message<'_>) + Send + Sync;
type OnClose = dyn Fn(&Peer<'_>, CloseReason) + Send + Sync;

/// What a server does, in Rust. Handlers run on the core's thread and must not block.
#[derive(Clone, Default)]
pub struct Handlers {
    open: Option<Arc<OnOpen>>,
    message: Option<Arc<OnMessage>>,
    close: Option<Arc<OnClose>>,
}

impl std::fmt::Debug for Handlers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handlers").finish_non_exhaustive()
    }
}

impl Handlers {
    /// Called when a connection asks to take part, with its handshake if it is a WebSocket; false refuses it.
    #[must_use]
    pub fn on_open(
        mut self,
        open: impl Fn(&Peer<'_>, Option<&Handshake>) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.open = Some(Arc::new(open));
        self
    }

    /// Called with every message.
    #[must_use]
    pub fn on_message(mut self, message: impl Fn(&Peer<'_>, Message<'_>) + Send + Sync + 'static) -> Self {
        self.message = Some(Arc::new(message));
        self
    }

    /// Called when a connection that took part has ended.
    #[must_use]
    pub fn on_close(mut self, close: impl Fn(&Peer<'_>, CloseReason) + Send + Sync + 'static) -> Self {
        self.close = Some(Arc::new(close));
        self
    }
}

impl Application for Handlers {
    fn on_open(
        &self,
        core: &Core,
        connection: &Rc<Connection>,
        handshake: Option<&Handshake>,
    ) -> Result<(), ()> {
        let peer = Peer { core, connection };
        let is_wanted = self.open.as_ref().is_none_or(|open| open(&peer, handshake));
        is_wanted.then_some(()).ok_or(())
    }

    fn on_message(&self, core: &Core, connection: &Rc<Connection>, kind: Kind, data: &[u8]) -> Flow {
        if let Some(message) = &self.message {
            message(&Peer { core, connection }, Message { kind, data });
        }
        Flow::Done
    }

    fn on_bytes(&self, core: &Core, connection: &Rc<Connection>) {
        let bytes = std::mem::take(&mut *connection.buffer.borrow_mut());
        self.on_message(core, connection, Kind::Binary, &bytes);
    }

    fn resume(&self, _: &Core, _: &Rc<Connection>, _: &str, _: Wake) -> Flow {
        Flow::Done
    }

    fn on_close(&self, core: &Core, connection: &Rc<Connection>, reason: CloseReason) {
        if let Some(close) = &self.close {
            close(&Peer { core, connection }, reason);
        }
    }

    fn encode(&self, _: &Core, _: &Rc<Connection>, payload: &Payload) -> Result<Bytes, String> {
        Ok(payload.data.clone())
    }

    fn on_tick(&self, _: &Core) {}
}
