//! The outbox on every database there is.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod crash;
mod letters;
mod processes_examples;
mod support;
mod writing;
