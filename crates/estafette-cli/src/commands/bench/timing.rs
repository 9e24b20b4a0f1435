//! Times, and what they come to.

use std::time::{Duration, Instant};

/// What a stage came to.
pub(super) struct Timing {
    /// What was done.
    pub(super) stage: &'static str,
    /// What each time is of.
    pub(super) unit: &'static str,
    /// How many messages it was done with.
    pub(super) messages: usize,
    total: Duration,
    /// Sorted.
    times: Vec<Duration>,
}

impl Timing {
    /// How long all of it took.
    pub(super) fn seconds(&self) -> f64 {
        self.total.as_secs_f64()
    }

    /// Messages per second.
    pub(super) fn per_second(&self) -> f64 {
        self.messages as f64 / self.seconds().max(1e-9)
    }

    /// The time that the part `quantile`, from 0 to 1, of the times does not exceed.
    pub(super) fn quantile(&self, quantile: f64) -> Option<Duration> {
        let last = self.times.len().checked_sub(1)?;
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and last")]
        let index = (last as f64 * quantile).round() as usize;
        self.times.get(index).copied()
    }
}

/// Measures a stage.
pub(super) struct Clock {
    started: Instant,
    paused: Duration,
    times: Vec<Duration>,
    messages: usize,
}

impl Clock {
    pub(super) fn start() -> Self {
        Self { started: Instant::now(), paused: Duration::ZERO, times: Vec::new(), messages: 0 }
    }

    /// One time more, which so many messages took.
    pub(super) fn add(&mut self, time: Duration, messages: usize) {
        self.times.push(time);
        self.messages += messages;
    }

    /// What was going on since `since` is not to be counted.
    pub(super) fn leave_out(&mut self, since: Instant) {
        self.paused += since.elapsed();
    }

    /// Whether there is room for more within these limits.
    pub(super) fn goes_on(&self, messages_max: usize, time_max: Duration) -> bool {
        self.messages < messages_max && self.started.elapsed() < time_max
    }

    pub(super) fn stop(mut self, stage: &'static str, unit: &'static str) -> Timing {
        let total = self.started.elapsed().saturating_sub(self.paused);
        self.times.sort_unstable();
        Timing { stage, unit, messages: self.messages, total, times: self.times }
    }
}

/// A time with three digits that matter.
pub(super) fn readable(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    match seconds {
        seconds if seconds < 1e-3 => format!("{:.0} µs", seconds * 1e6),
        seconds if seconds < 1.0 => format!("{:.2} ms", seconds * 1e3),
        seconds => format!("{seconds:.2} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_of_the_sorted_times() {
        let mut clock = Clock::start();
        for milliseconds in [3, 1, 2] {
            clock.add(Duration::from_millis(milliseconds), 1);
        }
        let timing = clock.stop("stage", "unit");
        assert_eq!(timing.quantile(0.5), Some(Duration::from_millis(2)));
        assert_eq!(timing.quantile(0.99), Some(Duration::from_millis(3)));
        assert_eq!(timing.messages, 3);
    }
}
