//! What answers a server's messages: a script, handlers in Rust, or the built-in protocol.

use std::rc::Rc;

use bytes::Bytes;

use super::{Core, connection::Connection};
use crate::{
    mesh::{Kind, Payload},
    stats::CloseReason,
    websocket::handshake::Handshake,
};

/// How a callback ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Flow {
    /// It is done.
    Done,
    /// It waits for this key of the context: hold the connection's messages.
    Wait(String),
}

/// Why a waiting callback goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wake {
    /// The value is there.
    Set,
    /// It took too long.
    TimedOut,
    /// The connection ended.
    Closed,
}

/// The callbacks of one server on one core. They run on the core's thread and must not block.
///
/// None is called within another for the same connection, but for [`Application::encode`].
pub(crate) trait Application {
    /// A connection asks to take part; `handshake` is there for WebSockets. An error refuses it.
    fn on_open(
        &self,
        core: &Core,
        connection: &Rc<Connection>,
        handshake: Option<&Handshake>,
    ) -> Result<(), ()>;

    /// A message came.
    fn on_message(&self, core: &Core, connection: &Rc<Connection>, kind: Kind, data: &[u8]) -> Flow;

    /// Bytes came, and stand in the connection's buffer: raw sockets only.
    fn on_bytes(&self, core: &Core, connection: &Rc<Connection>);

    /// A callback that returned [`Flow::Wait`] goes on.
    fn resume(&self, core: &Core, connection: &Rc<Connection>, key: &str, wake: Wake) -> Flow;

    /// The connection ended.
    fn on_close(&self, core: &Core, connection: &Rc<Connection>, reason: CloseReason);

    /// A payload as it goes over a raw socket; an error says why it cannot.
    fn encode(&self, core: &Core, connection: &Rc<Connection>, payload: &Payload) -> Result<Bytes, String>;

    /// Once a second: reload, collect, end what is over.
    fn on_tick(&self, core: &Core);
}
