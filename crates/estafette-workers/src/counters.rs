//! What a participant has counted since it started.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

/// The counters of a participant, counting.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) messages_in: Counter,
    pub(crate) messages_out: Counter,
    pub(crate) replies_late: Counter,
    pub(crate) messages_unheard: Counter,
    pub(crate) peers_dropped: Counter,
}

impl Counters {
    /// Their values now.
    pub(crate) fn read(&self) -> Counts {
        Counts {
            messages_in: self.messages_in.value(),
            messages_out: self.messages_out.value(),
            replies_late: self.replies_late.value(),
            messages_unheard: self.messages_unheard.value(),
            peers_dropped: self.peers_dropped.value(),
        }
    }
}

/// A number that only grows.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn count(&self) {
        self.add(1);
    }

    pub(crate) fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What a participant has counted since it started. One in another language may leave out what it does not count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Counts {
    /// Messages and requests received.
    pub messages_in: u64,
    /// Messages and requests handed to connections.
    pub messages_out: u64,
    /// Replies that came after the time limit of their request; they are dropped.
    pub replies_late: u64,
    /// Messages nobody listened for; they are dropped.
    pub messages_unheard: u64,
    /// Peers that were disconnected because they broke the protocol.
    pub peers_dropped: u64,
}
