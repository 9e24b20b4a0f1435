//! The transport's clock: tokio's, so that tests can pause it, plus what tests have moved it forward.

use std::{
    sync::atomic::{AtomicI64, Ordering},
    time::Duration,
};

use estafette_core::Timestamp;
use tokio::time::Instant;

#[derive(Debug)]
pub(crate) struct Clock {
    started: Instant,
    started_at: Timestamp,
    /// Microseconds.
    ahead: AtomicI64,
}

impl Clock {
    pub(crate) fn new() -> Self {
        Self { started: Instant::now(), started_at: Timestamp::now(), ahead: AtomicI64::new(0) }
    }

    pub(crate) fn now(&self) -> Timestamp {
        let ahead = Duration::from_micros(u64::try_from(self.ahead.load(Ordering::Acquire)).unwrap_or(0));
        self.started_at + self.started.elapsed() + ahead
    }

    pub(crate) fn advance(&self, by: Duration) {
        let micros = i64::try_from(by.as_micros()).unwrap_or(i64::MAX / 4);
        self.ahead.fetch_add(micros, Ordering::AcqRel);
    }
}
