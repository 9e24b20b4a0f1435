//! The gateway from outside: its codec beside another one's, its queues, and its servers over real sockets.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, in its helpers too"
)]

mod builtin;
mod client;
mod differential;
mod queues;
mod scripts;
mod server;
mod sockets;
mod tls;
