//! SQLite, every transaction flushed.

use std::{path::Path, time::Duration};

use super::Size;
use crate::case::{Case, Loop, Target};
use crate::{floor, ours};

fn url(directory: &Path) -> String {
    format!("sqlite:{}/mail.db", directory.display())
}

/// The jobs of the SQLite transport.
#[must_use]
pub fn cases(size: Size) -> Vec<Case> {
    let mut cases = Vec::new();
    // What is aimed for is said of batches; one by one is shown beside.
    let jobs = [
        ("one by one", size.of(5_000), 1, Target::Shown),
        ("in 100s", size.of(100_000), 100, Target::RatioMin(0.7)),
    ];
    for (name, messages, batch, target) in jobs {
        cases.push(
            Case::new(
                format!("sqlite: publish {name}"),
                Loop::blocking(move |directory| floor::sqlite::publish(directory, messages, batch)),
            )
            .ours(
                Loop::asynchronous(move |directory| ours::publish(url(&directory), messages, batch, 1)),
                target,
            ),
        );
        cases.push(
            Case::new(
                format!("sqlite: consume and ack {name}"),
                Loop::blocking(move |directory| floor::sqlite::consume(directory, messages, batch)),
            )
            .ours(Loop::asynchronous(move |directory| ours::drain(url(&directory), messages, batch)), target),
        );
    }
    let pings = size.of(300);
    cases.push(
        Case::new(
            "sqlite: publish to idle handler of another process (floor: publish)",
            Loop::blocking(move |directory| floor::sqlite::publish(directory, pings, 1)),
        )
        .ours(
            Loop::asynchronous(move |directory| ours::latency(url(&directory), pings)),
            Target::OverheadMax(Duration::from_millis(5)),
        ),
    );
    cases
}
