//! The client against running gateways, and against a node that breaks its word.
//!
//! Reading order: `stage` (a gateway with its API, and users), `messages`, `requests`, `processes_examples`.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking, and its helpers are tests too"
)]

mod messages;
mod processes_examples;
mod requests;
mod stage;
