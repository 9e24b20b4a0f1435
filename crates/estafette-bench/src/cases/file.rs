//! Drop-files, every message flushed.

use std::{path::Path, time::Duration};

use super::Size;
use crate::case::{Case, Loop, Target};
use crate::{floor, ours, peer};

const BATCH: usize = 100;

/// How many names the consuming floor takes from one listing: 100, 1,000 and the whole directory differed by less than the
/// rounds of one.
const LISTED_MAX: usize = 1_000;

fn url(directory: &Path) -> String {
    format!("file:{}", directory.display())
}

/// The jobs of the drop-file transport.
#[must_use]
pub fn cases(size: Size) -> Vec<Case> {
    let (single, batched) = (size.of(2_000), size.of(100_000));
    let publish = |count, batch, publishers| {
        Loop::asynchronous(move |directory| ours::publish(url(&directory), count, batch, publishers))
    };
    let drain = |count| Loop::asynchronous(move |directory| ours::drain(url(&directory), count, BATCH));
    let mut cases = vec![
        Case::new(
            "file: publish one by one",
            Loop::blocking(move |directory| floor::file::publish(directory, single)),
        )
        .ours(publish(single, 1, 1), Target::RatioMin(0.8)),
        Case::new("file: 16 publishers (floor: one of ours)", publish(single, 1, 1))
            .ours(publish(single * 8, 1, 16), Target::RatioMin(5.0)),
        Case::new(
            "file: publish in 100s (floor: append, flush per 100)",
            Loop::blocking(move |directory| floor::log::append(directory, batched, BATCH)),
        )
        .ours(publish(batched, BATCH, 1), Target::RatioMin(0.3)),
        Case::new("file: publish in 100s (floor: ours one by one)", publish(single, 1, 1))
            .ours(publish(batched, BATCH, 1), Target::RatioMin(50.0)),
    ];
    for waiting in [1_000, 10_000, 100_000].map(|waiting| size.of(waiting)) {
        cases.push(
            Case::new(
                format!("file: consume and ack, {waiting} waiting"),
                Loop::blocking(move |directory| floor::file::consume(directory, waiting, LISTED_MAX)),
            )
            .ours(drain(waiting), Target::RatioMin(1.0)),
        );
    }
    let (few, many) = (size.of(10_000), size.of(100_000));
    cases.push(
        Case::new(format!("file: consume and ack, {many} waiting (floor: ours, {few})"), drain(few))
            .ours(drain(many), Target::RatioMin(0.8)),
    );
    if peer::dropfile::is_installed() {
        let plain = |job: fn(&Path, u32) -> _, count| Loop::blocking(move |directory| job(directory, count));
        cases.extend([
            Case::new(
                "file: publish one by one (peer: PHP, not flushed)",
                plain(peer::dropfile::publish, single),
            )
            .ours(publish(single, 1, 1), Target::Shown),
            Case::new(
                format!("file: consume and ack, {few} waiting (peer: PHP)"),
                plain(peer::dropfile::consume, few),
            )
            .ours(drain(few), Target::Shown),
        ]);
    }
    let pings = size.of(300);
    cases.push(
        Case::new(
            "file: publish to idle handler of another process (floor: publish)",
            Loop::blocking(move |directory| floor::file::publish(directory, pings)),
        )
        .ours(
            Loop::asynchronous(move |directory| ours::latency(url(&directory), pings)),
            Target::OverheadMax(Duration::from_millis(2)),
        ),
    );
    cases
}
