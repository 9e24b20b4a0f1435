//! Groups of real processes: what they say to each other, and how they are kept running.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::print_stdout,
    unreachable_pub,
    reason = "a test fails by panicking, in its helpers too"
)]

mod chaos;
mod hostile;
mod languages;
mod messages;
mod programs;
mod stage;
mod supervision;
