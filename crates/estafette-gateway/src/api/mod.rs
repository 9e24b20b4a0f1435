//! The management API: what backends speak, over HTTP and WebSocket.

pub(crate) mod dialect;
