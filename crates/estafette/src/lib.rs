//! One message model that carries an application's messages all the way, over the engines people already run.
//!
//! ```
//! use std::time::Duration;
//! use estafette::{Bus, Context, Message, Retry};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Message, Serialize, Deserialize)]
//! #[message(topic = "email.welcome")]
//! struct WelcomeEmail { to: String, name: String }
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> estafette::Result<()> {
//! let bus = Bus::connect("memory:").await?;
//! # let consumer =
//! bus.consumer("mailer")                              // the receiver key: a durable queue
//!     .subscribe::<WelcomeEmail>()                    // binds its topic
//!     .handle(|mail: WelcomeEmail, _: Context| async move { println!("welcome, {}", mail.name) })
//!     .concurrency(16)
//!     .retry(Retry::exponential(Duration::from_secs(1)).attempts_max(5))
//! #   ;
//! # bus.declare(&estafette::QueueSpec::durable("mailer".try_into()?).subscribe("email.*".try_into()?)).await?;
//! # bus.publish(&WelcomeEmail { to: "bob@example.com".into(), name: "Bob".into() }).await?;
//! # let summary = consumer.run_until_empty().await?;
//! # assert_eq!(summary.acked, 1);
//! # /*
//!     .run()                                          // until SIGTERM
//!     .await?;
//!
//! // anywhere else:
//! bus.publish(&WelcomeEmail { to: "bob@example.com".into(), name: "Bob".into() }).await?;
//! # */
//! # Ok(()) }
//! ```
//!
//! A [`Bus`] is a connection to one transport, chosen by URL: `memory:`, `file:PATH`, `sqlite:PATH` (cargo features `file`
//! and `sqlite`). What each promises is in [`Bus::guarantees`] and, as a table, in `docs/guarantees.md`. The life of a
//! message is drawn in `docs/lifecycle.md`.
//!
//! This crate re-exports what an application needs of [`estafette_core`] (the model and the contract) and
//! [`estafette_consumer`] (the loop), and adds the bus and the list of drivers. It knows no more than that.

mod bus;
#[cfg(feature = "gateway-client")]
mod channels;
#[cfg(feature = "config")]
mod config;
mod drivers;
mod observe;
mod publish;
#[cfg(feature = "testkit")]
pub mod testkit;

pub use bus::Bus;
#[cfg(feature = "config")]
pub use config::Config;
pub use drivers::{Connect, Connecting, DRIVERS, Driver, connect};
#[doc(inline)]
pub use estafette_consumer::{
    BoxHandler, Bridge, Consumer, Context, Deduplicate, Handler, IntoVerdict, Requester, StopReason, Summary,
    Verdict,
};
#[doc(inline)]
pub use estafette_core::{
    Admin, Backoff, BoxError, Bytes, Codec, DeadLetter, DeadQuery, Delivery, Destination, Durability,
    Envelope, Error, ErrorKind, Failure, Guarantees, Headers, Json, Lifetime, Message, MessageId, Order,
    Outcome, Outgoing, Pattern, QueueName, QueueSpec, QueueStatus, Raw, Reason, Receipt, ReceiveOptions,
    Receiver, Result, Retry, Routing, Settlement, Settler, Support, Text, Ticket, Timestamp, Topic,
    Transport, TransportUrl, async_trait, parse_duration, settle_all, wire,
};
#[cfg(feature = "derive")]
pub use estafette_macros::Message;
pub use publish::Publish;

/// The RabbitMQ transport's settings, for those that have no place in a URL.
#[cfg(feature = "amqp")]
pub mod amqp {
    #[doc(inline)]
    pub use estafette_amqp::{AmqpConfig, AmqpTransport};
}

/// The in-process transport, for tests and as an example to copy.
pub mod memory {
    #[doc(inline)]
    pub use estafette_memory::{MemoryConfig, MemoryTransport};
}

/// The drop-file transport.
#[cfg(feature = "file")]
pub mod file {
    #[doc(inline)]
    pub use estafette_file::{FileConfig, FileTransport};
}

/// The client of the gateway, and messages addressed to the channels of its connections.
#[cfg(feature = "gateway-client")]
pub mod gateway_client {
    pub use crate::channels::{CHANNEL_HEADER, CHANNELS};
    #[doc(inline)]
    pub use estafette_client::*;
}

/// The Gearman transport.
#[cfg(feature = "gearman")]
pub mod gearman {
    #[doc(inline)]
    pub use estafette_gearman::{GearmanConfig, GearmanTransport};
}

/// Events in the application's own transaction, and the relay that publishes them.
#[cfg(feature = "outbox")]
pub mod outbox {
    #[doc(inline)]
    pub use estafette_outbox::*;
}

/// The SQL transport.
#[cfg(any(feature = "sqlite", feature = "postgres", feature = "mysql"))]
pub mod sql {
    #[cfg(feature = "sqlite")]
    #[doc(inline)]
    pub use estafette_sql::SqlConfig;
    #[doc(inline)]
    pub use estafette_sql::SqlTransport;
    #[cfg(any(feature = "postgres", feature = "mysql"))]
    #[doc(inline)]
    pub use estafette_sql::{Engine, ServerConfig, migrate, migrations};
}

/// Users' WebSocket and TCP connections, driven by scripts or by handlers in Rust.
#[cfg(feature = "gateway")]
pub mod gateway {
    #[doc(inline)]
    pub use estafette_gateway::*;
}

/// Worker processes of one application: supervised, and talking to each other.
#[cfg(feature = "workers")]
pub mod workers {
    #[doc(inline)]
    pub use estafette_workers::*;
}
