//! The outbox: an event is written in the application's own transaction, and published if, and only if, that commits.
//!
//! ```no_run
//! # use estafette_core::{Envelope, Result};
//! # async fn save(pool: sqlx::SqlitePool, created: Envelope) -> Result<(), Box<dyn std::error::Error>> {
//! let outbox = estafette_outbox::Outbox::new("orders");
//! let mut transaction = pool.begin().await?;
//! sqlx::query("INSERT INTO orders (id) VALUES (42)").execute(&mut *transaction).await?;
//! outbox.envelope(created).subject("order", 42).publish(&mut transaction).await?;
//! transaction.commit().await?;
//! outbox.committed();
//! # Ok(()) }
//! ```
//!
//! [`Outbox`] writes rows through whatever library holds the transaction ([`Executor`]). A [`Relay`], in the same program or
//! another, moves them to a transport: at least once, in the order of each subject. [`Inbox`] makes what a consumer
//! does with a message happen once. [`Store`] has the tables, and what is done to them from outside.
//!
//! A row goes through these states:
//!
//! ```text
//!             publish                    relay: confirmed
//!   (nothing) ───────► waiting ──────────────────────────► sent ──► (cleaned)
//!                      │  ▲  ▲                              │
//!       relay: refused │  │  └───────────── retry ──────────┤
//!                      ▼  │ later                           │
//!                     attempts left? ──no──► failed ──retry─┘
//! ```
//!
//! This crate knows no transport and no consumer, and neither knows it.
//!
//! Reading order: `outbox` and `row` (writing), `executor` (into what), `relay` and `batch` (publishing), `claim` (how several
//! relays share), `store` (looking after it), `inbox`, `dead`; `database` supports them.

mod batch;
mod claim;
mod database;
mod dead;
mod error;
mod executor;
mod inbox;
mod outbox;
mod relay;
mod row;
mod store;
mod wake;

pub use dead::{StoredDeadLetter, export};
pub use executor::{BlockingExecutor, Dialect, Executor, Value};
pub use inbox::Inbox;
pub use outbox::{Entry, Outbox, SUBJECT_BYTES_MAX};
pub use relay::{Relay, RelaySummary};
pub use row::EXCHANGE_HEADER;
pub use store::{OutboxStatus, RetryQuery, Store};
pub use wake::Wake;
