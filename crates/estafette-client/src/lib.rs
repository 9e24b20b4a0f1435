//! A client of the gateway: what a backend needs to consume its users' messages and to answer them.
//!
//! ```no_run
//! use estafette_client::{Client, StreamExt as _};
//!
//! # async fn run() -> estafette_client::Result<()> {
//! let client = Client::builder().host("127.0.0.1:6787").build().await?;
//! let mut messages = client.consume(["foo"]);
//! while let Some(message) = messages.next().await {
//!     let message = message?;
//!     client.send(message.connection()?, "received").await?;
//! }
//! # Ok(())
//! # }
//! ```
//!
//! The client asks the discovery address which nodes there are, again every minute, and consumes from every one of them.
//! Sends, publishes and calls go through any one node, which knows where the connection is. Connections that break are
//! made again. It speaks plain TCP: for TLS, put a proxy before the gateway's management API.
//!
//! Reading order: `builder` (settings), `discovery` (which nodes), `wire` (requests and answers as text), `socket` (one
//! WebSocket), `caller` (requests, through any node), `consumer` (messages, from every node), `client`.

mod builder;
mod caller;
mod client;
mod consumer;
mod discovery;
mod id;
mod socket;
mod wire;

pub use builder::Builder;
pub use client::{Client, Payload, Published};
pub use consumer::{Consumer, Message};
pub use discovery::Node;
pub use id::ConnectionId;

pub use estafette_core::{Error, ErrorKind, Result};
// A consumer is a stream: its `next` is here, so that a program needs no crate for it.
pub use futures_util::{Stream, StreamExt};
