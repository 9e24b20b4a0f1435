//! The store on a server: PostgreSQL, MySQL or MariaDB.
//!
//! What is frequent (storing, claiming, acknowledging, moving) is written for each engine in `postgres` and `mysql`; everything
//! else once, in the SQL both understand. The server's clock decides what is due and when leases end.
//!
//! Reading order: `schema`, `publish`, `claim`, `settle`, `queues`, `dead`, `owners`; what joins them is in `store` and `inner`, and below are `sharing`, `work`, `pool`,
//! `connector` and `connection`; `watch` notices what other processes stored.

mod claim;
mod config;
mod connection;
mod connector;
mod dead;
mod error;
mod inner;
#[cfg(feature = "mysql")]
mod mysql;
mod owners;
mod pool;
#[cfg(feature = "postgres")]
mod postgres;
mod publish;
mod queues;
mod schema;
mod settle;
mod sharing;
mod store;
mod watch;
mod work;

use std::time::Duration;

pub use self::{
    config::{Engine, ServerConfig},
    schema::{migrate, migrations},
};
pub(crate) use self::{store::ServerStore, watch::watch};

/// How many messages or dead letters a transaction removes or redrives at most, so that others get their turn.
const CHUNK_MAX: usize = 2000;

/// A number as databases keep it.
fn integer(number: impl TryInto<i64>) -> i64 {
    number.try_into().unwrap_or(i64::MAX)
}

/// A length of time in microseconds; one that is longer than can be added to the time is made shorter, by aeons.
fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX).min(i64::MAX / 4)
}
