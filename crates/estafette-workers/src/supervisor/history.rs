//! The deaths of one process: when to start it again, and when to give up.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

use crate::settings::Restart;

/// A process that lived this long and ended without an error has not died, it has finished: it costs nothing.
const FINISHED_AFTER: Duration = Duration::from_secs(1);

/// What follows a death.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Start it again after this time.
    StartAfter(Duration),
    /// It died too often.
    GiveUp {
        /// How often it died within the window.
        deaths: usize,
    },
}

/// The deaths within the window.
#[derive(Debug)]
pub(super) struct History {
    restart: Restart,
    deaths: VecDeque<Instant>,
}

impl History {
    pub(super) fn new(restart: Restart) -> Self {
        Self { restart, deaths: VecDeque::new() }
    }

    /// Counts an end at `now` after a life of `lived`; what follows.
    pub(super) fn ended(&mut self, now: Instant, lived: Duration, is_success: bool) -> Next {
        if is_success && lived >= FINISHED_AFTER {
            return Next::StartAfter(Duration::ZERO);
        }
        while self.deaths.front().is_some_and(|death| now.duration_since(*death) > self.restart.window) {
            self.deaths.pop_front();
        }
        self.deaths.push_back(now);
        let deaths = self.deaths.len();
        if deaths > self.restart.deaths_max {
            return Next::GiveUp { deaths };
        }
        Next::StartAfter(self.delay(deaths))
    }

    fn delay(&self, deaths: usize) -> Duration {
        let Some(doublings) = deaths.checked_sub(2) else { return Duration::ZERO };
        let factor = 2_u32.saturating_pow(u32::try_from(doublings).unwrap_or(u32::MAX));
        self.restart.delay_first.saturating_mul(factor).min(self.restart.delay_max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(deaths_max: usize) -> History {
        History::new(Restart { deaths_max, ..Restart::default() })
    }

    #[test]
    fn the_first_restart_is_immediate_and_the_delay_then_doubles_up_to_its_limit() {
        let mut history = history(20);
        let now = Instant::now();
        let delays: Vec<_> = (0..10).map(|_| history.ended(now, Duration::ZERO, false)).collect();
        let milliseconds = |ms| Next::StartAfter(Duration::from_millis(ms));
        let expected = [0, 100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000].map(milliseconds);
        assert_eq!(delays, expected);
    }

    #[test]
    fn too_many_deaths_in_the_window_end_it_and_old_ones_are_forgotten() {
        let mut history = history(2);
        let start = Instant::now();
        for seconds in [0, 1] {
            let now = start + Duration::from_secs(seconds);
            assert!(matches!(history.ended(now, Duration::ZERO, false), Next::StartAfter(_)));
        }
        let later = start + Duration::from_secs(61);
        assert!(matches!(history.ended(later, Duration::ZERO, false), Next::StartAfter(_)));
        assert_eq!(history.ended(later, Duration::ZERO, false), Next::GiveUp { deaths: 3 });
    }

    #[test]
    fn a_process_that_finishes_its_work_may_do_so_for_ever() {
        let mut history = history(1);
        for _ in 0..10 {
            let next = history.ended(Instant::now(), Duration::from_secs(2), true);
            assert_eq!(next, Next::StartAfter(Duration::ZERO));
        }
    }
}
