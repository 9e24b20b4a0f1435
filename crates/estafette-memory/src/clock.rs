//! The transport's clock: tokio's, so that tests can pause it, or one that stands still; plus what tests have moved it forward.

use std::{
    sync::atomic::{AtomicI64, Ordering},
    time::Duration,
};

use estafette_core::Timestamp;
use tokio::time::Instant;

#[derive(Debug)]
pub(crate) struct Clock {
    /// None when it only moves by being told to.
    running_since: Option<Instant>,
    started_at: Timestamp,
    /// Microseconds.
    ahead: AtomicI64,
}

impl Clock {
    /// A clock that runs.
    pub(crate) fn new() -> Self {
        let running_since = Some(Instant::now());
        Self { running_since, started_at: Timestamp::now(), ahead: AtomicI64::new(0) }
    }

    /// A clock that stands still.
    pub(crate) fn stopped_at(time: Timestamp) -> Self {
        Self { running_since: None, started_at: time, ahead: AtomicI64::new(0) }
    }

    pub(crate) fn now(&self) -> Timestamp {
        let ahead = Duration::from_micros(u64::try_from(self.ahead.load(Ordering::Acquire)).unwrap_or(0));
        let run = self.running_since.map_or(Duration::ZERO, |since| since.elapsed());
        self.started_at + run + ahead
    }

    pub(crate) fn advance(&self, by: Duration) {
        let micros = i64::try_from(by.as_micros()).unwrap_or(i64::MAX / 4);
        self.ahead.fetch_add(micros, Ordering::AcqRel);
    }
}
