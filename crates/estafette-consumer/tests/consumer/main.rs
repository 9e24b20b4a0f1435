//! The consumer as a user sees it, on the memory transport.
//!
//! Time is paused wherever a test waits for a delay, so that hours pass at once and exactly.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    reason = "tests fail by panicking, and talk by printing"
)]

mod bridge;
mod concurrency;
mod failures;
mod faults;
mod faulty;
mod handlers;
mod leases;
mod limits;
mod middleware;
mod observing;
mod properties;
mod requests;
mod stage;
mod stopping;
