//! The message model and the delivery contract of Estafette.
//!
//! Everything else in the project speaks the types of this crate: what a message is ([`Message`], [`Envelope`]), where it
//! goes ([`Topic`], [`Pattern`], [`QueueName`], [`Outgoing`]), how it is handed over and settled ([`Delivery`], [`Outcome`]),
//! what becomes of failures ([`DeadLetter`], [`Retry`]) and what a transport must do ([`Transport`], [`Receiver`],
//! [`Settler`], [`Admin`]) and promises ([`Guarantees`]).
//!
//! This crate does no I/O, starts no task and names no broker. It can be used with any async runtime.
//!
//! Reading order: `topic`, `pattern`, `envelope`, `outgoing`, `delivery`, `dead`, `transport`; the rest supports these.

mod codec;
mod dead;
mod delivery;
mod envelope;
mod error;
mod guarantees;
mod headers;
mod id;
mod message;
mod outgoing;
mod pattern;
mod queue;
mod retry;
mod text;
mod time;
mod topic;
mod transport;
mod url;
pub mod wire;

pub use codec::{Codec, Json, Raw, Text};
pub use dead::{DeadLetter, DeadQuery, Failure, Reason};
pub use delivery::{Delivery, Outcome, Settlement, Settler, Ticket, settle_all};
pub use envelope::Envelope;
pub use error::{BoxError, Error, ErrorKind, Result};
pub use guarantees::{Durability, Guarantees, Order, Support};
pub use headers::{HEADER_NAME_BYTES_MAX, Headers};
pub use id::{ID_BYTES_MAX, MessageId};
pub use message::Message;
pub use outgoing::{Destination, Outgoing, Receipt, Routing};
pub use pattern::Pattern;
pub use queue::{Lifetime, QUEUE_NAME_BYTES_MAX, QueueName, QueueSpec, QueueStatus};
pub use retry::{Backoff, Retry};
pub use time::{Timestamp, parse_duration};
pub use topic::{TOPIC_BYTES_MAX, Topic};
pub use transport::{Admin, ReceiveOptions, Receiver, Transport};
pub use url::TransportUrl;

// What the interfaces above are made of, so that a transport needs no version of its own.
pub use async_trait::async_trait;
pub use bytes::Bytes;
