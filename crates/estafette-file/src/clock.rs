//! The time, as the store sees it.
//!
//! Due times and leases are compared by every process that shares the directory, perhaps on hosts whose clocks differ by
//! minutes. So all of them use one clock: that of the file system, read as the modification time of a file just touched. On a
//! local disk that is this machine's own clock, with a coarser grain.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use estafette_core::Timestamp;
use rustix::{
    fd::{AsFd, BorrowedFd},
    fs::{Timespec, Timestamps, UTIME_NOW},
};

/// A smaller difference is the grain of file times or the network's delay, not another clock.
const DIFFERENCE_MIN: i64 = 100_000;

/// How often the difference is measured anew: clocks drift, and are set.
const MEASURE_EVERY: Duration = Duration::from_secs(20);

#[derive(Debug)]
pub(crate) struct Clock {
    /// For tests: how wrong this process's clock is.
    skew: i64,
    /// Store's time less this process's.
    difference: AtomicI64,
    measured_at: Mutex<Option<Instant>>,
    last_tick: AtomicI64,
}

impl Clock {
    pub(crate) fn new(skew: i64) -> Self {
        let (difference, last_tick) = (AtomicI64::new(0), AtomicI64::new(0));
        Self { skew, difference, measured_at: Mutex::new(None), last_tick }
    }

    /// The time now.
    pub(crate) fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.local() + self.difference.load(Ordering::Relaxed))
    }

    fn local(&self) -> i64 {
        Timestamp::now().as_micros() + self.skew
    }

    /// A time that is now, or just after the one given before: no two are the same.
    pub(crate) fn tick(&self) -> Timestamp {
        let now = self.now().as_micros();
        let next = |last: i64| Some(now.max(last + 1));
        let last = self.last_tick.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        Timestamp::from_micros(last.map_or(now, |last| now.max(last + 1)))
    }

    /// Measures the difference to the store's clock with `probe`, a file of our own, unless that was done lately.
    pub(crate) fn keep_right(&self, probe: BorrowedFd<'_>) {
        let mut measured_at = self.measured_at.lock().unwrap_or_else(PoisonError::into_inner);
        if measured_at.is_some_and(|at| at.elapsed() < MEASURE_EVERY) {
            return;
        }
        *measured_at = Some(Instant::now());
        // When the store does not answer, the last difference is the best there is.
        if let Ok(store) = store_time(probe.as_fd()) {
            let difference = store - self.local();
            let is_real = difference.abs() >= DIFFERENCE_MIN;
            self.difference.store(if is_real { difference } else { 0 }, Ordering::Relaxed);
        }
    }
}

fn store_time(probe: BorrowedFd<'_>) -> rustix::io::Result<i64> {
    let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
    rustix::fs::futimens(probe, &Timestamps { last_access: now, last_modification: now })?;
    let stat = rustix::fs::fstat(probe)?;
    Ok(stat.st_mtime * 1_000_000 + i64::try_from(stat.st_mtime_nsec).unwrap_or(0) / 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_clock_is_put_right_by_the_store() {
        let probe = tempfile::tempfile().unwrap();
        for skew in [3_600_000_000, -3_600_000_000, 0] {
            let clock = Clock::new(skew);
            clock.keep_right(probe.as_fd());
            let off = clock.now().as_micros() - Timestamp::now().as_micros();
            assert!(off.abs() < 500_000, "{skew}: {off}");
        }
    }

    #[test]
    fn no_two_ticks_are_the_same() {
        let clock = Clock::new(0);
        let ticks: Vec<_> = (0..10_000).map(|_| clock.tick()).collect();
        assert!(ticks.is_sorted_by(|a, b| a < b));
    }
}
