//! The floors: each does one job as a bare loop with no features, and nothing of Estafette's.
//!
//! A floor is meant to be hard to beat, so it gives up everything the job does not need: names are counters, nothing is
//! parsed, nothing is retried. What makes the job what it is stays: a message counts as stored when it would survive a
//! power cut, and as consumed when it is gone.
//!
//! [`amqp`]: frames on a socket. [`gateway`]: connections that get the same. [`gearman`]: packets on a socket. [`file`]: one file per message. [`log`]: one append-only file. [`sqlite`]: prepared statements over the C
//! interface. [`memory`]: a bounded channel. [`workers`]: a socket between two processes. All of them carry the same [`body`].

pub mod amqp;
pub mod file;
pub mod gateway;
pub mod gearman;
pub mod log;
pub mod memory;
pub mod mysql;
pub mod outbox;
pub mod postgres;
pub mod sqlite;
pub mod workers;

/// The size of every body, in bytes.
pub const BODY_BYTES: usize = 256;

/// A JSON object of [`BODY_BYTES`] bytes that carries `number`.
#[must_use]
pub fn body(number: u32) -> Vec<u8> {
    let start = format!(r#"{{"number":{number},"padding":""#);
    let padding = "x".repeat(BODY_BYTES - start.len() - 2);
    format!(r#"{start}{padding}"}}"#).into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_json_of_the_size_promised() {
        for number in [0, 42, u32::MAX] {
            let body = body(number);
            assert_eq!(body.len(), BODY_BYTES);
            let value: serde_json::Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(value["number"], number);
        }
    }
}
