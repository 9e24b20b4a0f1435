//! Within one process.

use super::Size;
use crate::case::{Case, Loop};
use crate::floor;

/// The jobs of the memory transport.
#[must_use]
pub fn cases(size: Size) -> Vec<Case> {
    let messages = size.of(200_000);
    [("one by one", 1), ("in 100s", 100)]
        .map(|(name, batch)| {
            let floor = Loop::asynchronous(move |_| floor::memory::hand_over(messages, batch));
            Case::new(format!("memory: from publisher to handler {name}"), floor)
        })
        .into()
}
