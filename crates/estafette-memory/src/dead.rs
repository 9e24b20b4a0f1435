//! The dead letters of a queue.

use std::{sync::Arc, time::Duration};

use estafette_core::{DeadLetter, DeadQuery, Result, Timestamp};

use crate::queue::Queue;

/// The header that counts how often a message was redriven.
const REDRIVEN: &str = "redriven";

impl Queue {
    pub(crate) fn dead_letters(&self, query: &DeadQuery) -> Vec<DeadLetter> {
        query.select(self.lock().dead.iter()).cloned().collect()
    }

    /// Takes the dead letters that `query` means out and returns them.
    pub(crate) fn take_dead(&self, query: &DeadQuery) -> Vec<DeadLetter> {
        let mut state = self.lock();
        let mut left_to_skip = query.skip;
        let mut left_to_take = query.limit.unwrap_or(usize::MAX);
        let (taken, kept): (Vec<_>, Vec<_>) = state.dead.drain(..).partition(|letter| {
            if left_to_take == 0 || !query.matches(letter) {
                return false;
            }
            if left_to_skip > 0 {
                left_to_skip -= 1;
                return false;
            }
            left_to_take -= 1;
            true
        });
        state.dead.extend(kept);
        taken
    }

    /// Puts dead letters back as new messages and returns how many.
    pub(crate) fn redrive(&self, query: &DeadQuery, now: Timestamp) -> Result<u64> {
        let mut count = 0;
        let mut letters = self.take_dead(query).into_iter();
        for letter in letters.by_ref() {
            let mut envelope = letter.envelope.clone();
            let times =
                envelope.headers.get(REDRIVEN).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0) + 1;
            envelope.headers.insert(REDRIVEN, &times.to_string())?;
            if let Err(full) = self.push(Arc::new(envelope), Duration::ZERO, now) {
                self.lock().dead.extend(std::iter::once(letter).chain(letters));
                return Err(full);
            }
            count += 1;
        }
        Ok(count)
    }
}
