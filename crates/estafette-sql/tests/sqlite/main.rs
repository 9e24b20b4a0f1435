//! What only SQLite can go through: killed processes, many writers, full disks, foreign files, very many messages and queues.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod common;
mod faults;
mod processes;
mod sizes;
