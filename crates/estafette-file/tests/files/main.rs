//! What only drop-files can go through: killed processes, foreign files, full disks, wrong clocks, very many queues.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod backlog;
mod common;
mod faults;
mod processes;
