//! Within one process.

use std::time::Duration;

use super::Size;
use crate::case::{Case, Loop, Target};
use crate::{floor, ours};

/// The jobs of the memory transport.
#[must_use]
pub fn cases(size: Size) -> Vec<Case> {
    let messages = size.of(200_000);
    let jobs = [
        ("one by one", 1, Target::OverheadMax(Duration::from_micros(2))),
        ("in 100s", 100, Target::per_second_min(1_000_000)),
    ];
    jobs.map(|(name, batch, target)| {
        let floor = Loop::asynchronous(move |_| floor::memory::hand_over(messages, batch));
        let ours = Loop::asynchronous(move |_| ours::handle("memory:".into(), messages, batch));
        Case::new(format!("memory: from publisher to handler {name}"), floor).ours(ours, target)
    })
    .into()
}
