//! What only the database servers can go through: being killed, telling other processes, queues with a long past.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test that cannot go on fails"
)]

mod common;
mod crash;
mod past;
mod tables;
mod waiting;
