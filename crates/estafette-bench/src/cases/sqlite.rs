//! SQLite, every transaction flushed.

use super::Size;
use crate::case::{Case, Loop};
use crate::floor;

/// The jobs of the SQLite transport.
#[must_use]
pub fn cases(size: Size) -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, messages, batch) in [("one by one", size.of(5_000), 1), ("in 100s", size.of(100_000), 100)] {
        cases.push(Case::new(
            format!("sqlite: publish {name}"),
            Loop::blocking(move |directory| floor::sqlite::publish(directory, messages, batch)),
        ));
        cases.push(Case::new(
            format!("sqlite: consume and ack {name}"),
            Loop::blocking(move |directory| floor::sqlite::consume(directory, messages, batch)),
        ));
    }
    cases
}
