//! Drop-files, every message flushed.

use super::Size;
use crate::case::{Case, Loop};
use crate::floor;

const BATCH: usize = 100;

/// How many names the consuming floor takes from one listing: 100, 1,000 and the whole directory differed by less than the
/// rounds of one.
const LISTED_MAX: usize = 1_000;

/// The jobs of the drop-file transport.
#[must_use]
pub fn cases(size: Size) -> Vec<Case> {
    let (single, batched) = (size.of(2_000), size.of(100_000));
    let mut cases = vec![
        Case::new(
            "file: publish one by one",
            Loop::blocking(move |directory| floor::file::publish(directory, single)),
        ),
        Case::new(
            "file: publish in 100s (floor: append, flush per 100)",
            Loop::blocking(move |directory| floor::log::append(directory, batched, BATCH)),
        ),
    ];
    for waiting in [1_000, 10_000, 100_000].map(|waiting| size.of(waiting)) {
        cases.push(Case::new(
            format!("file: consume and ack, {waiting} waiting"),
            Loop::blocking(move |directory| floor::file::consume(directory, waiting, LISTED_MAX)),
        ));
    }
    cases
}
