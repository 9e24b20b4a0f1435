//! What others do for the same job, in their own language: shown beside ours where it is installed.

pub mod amqp;
pub mod dropfile;
pub mod gateway;
pub mod round_trips;

use std::process::{Command, Stdio};

/// Whether `program`, called like this, ends well.
fn runs(program: &str, arguments: &[&str]) -> bool {
    let status = Command::new(program).args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}
