//! The real binary, as a user runs it: each command on `file:` and `sqlite:`, and everything that can go wrong.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    unreachable_pub,
    reason = "a test fails by panicking, in its helpers too"
)]

mod vocabulary;

mod bridge;
mod completions;
mod config;
mod consume;
mod daemon;
mod dead;
mod exec;
mod gearman;
mod help;
mod look;
mod mistakes;
mod outbox;
mod processes;
mod processes_bridge;
#[cfg(feature = "gateway")]
mod processes_gateway;
mod processes_workers;
mod publish;
mod queues;
mod rabbitmq;
