//! The gateway: users' long-lived connections, sent to and published to from backends in any language.
//!
//! Reading order: [`mesh`] (what the rest of a program sees of the connections), [`queues`], [`stats`], [`settings`],
//! [`gateway`] (starting and stopping), [`handlers`] (answering in Rust), `core` (a thread's connections and channels),
//! [`lua`] (answering in scripts), [`websocket`] (the protocol, without I/O).

pub mod api;
pub mod builtin;
pub mod config;
mod core;
pub mod error;
pub mod gateway;
pub mod handlers;
pub mod lua;
pub mod mesh;
pub mod queues;
pub mod settings;
pub mod stats;
pub mod tls;
pub mod websocket;

pub use error::{Error, ErrorKind};
pub use gateway::{Gateway, Service};
pub use handlers::{Handlers, Message, Peer};
pub use mesh::{Call, CallError, ConnectionId, Hub, Kind, Payload, Published};
pub use settings::{Protocol, ServerSettings};
