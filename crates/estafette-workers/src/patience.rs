//! Looking again for a moment before going to sleep.
//!
//! Between two processes, falling asleep and being woken costs several times what a short listener takes. So whoever expects
//! something at once, a reply, or the next request of a run, looks for it a few times before it sleeps. That is given up for
//! a while whenever it was in vain, so slow listeners and rare messages cost next to nothing.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::{Duration, Instant},
};

/// How many occasions are let pass at most after looking in vain.
const PASSED_MAX: u32 = 128;

/// Whether it is worth to look, learned from how it went.
#[derive(Debug)]
pub(crate) struct Patience {
    looking_max: Duration,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Somebody looks already: one at a time is enough, what comes is for all.
    is_looking: bool,
    /// How many occasions are let pass after the next time in vain.
    penalty: u32,
    passing: u32,
}

impl Patience {
    /// Looks for at most `looking_max` each time; never, when that is zero.
    pub(crate) fn new(looking_max: Duration) -> Self {
        Self { looking_max, state: Mutex::new(State { is_looking: false, penalty: 1, passing: 0 }) }
    }

    /// Looks for something that is expected now; `None` when it is not worth it or has not come.
    pub(crate) async fn look<T>(&self, mut look: impl FnMut(&mut Context<'_>) -> Poll<T>) -> Option<T> {
        let _looking = self.begin()?;
        let start = Instant::now();
        loop {
            let looked = std::future::poll_fn(|context| Poll::Ready(look(context))).await;
            if let Poll::Ready(found) = looked {
                self.lock().penalty = 1;
                return Some(found);
            }
            if start.elapsed() >= self.looking_max {
                self.in_vain();
                return None;
            }
            // To the peer, when it waits for this very processor; then to the other tasks, and to what the system has to tell.
            std::thread::yield_now();
            tokio::task::yield_now().await;
        }
    }

    fn begin(&self) -> Option<Looking<'_>> {
        let mut state = self.lock();
        if self.looking_max.is_zero() || state.is_looking {
            return None;
        }
        if state.passing > 0 {
            state.passing -= 1;
            return None;
        }
        state.is_looking = true;
        Some(Looking(self))
    }

    fn in_vain(&self) {
        let mut state = self.lock();
        state.passing = state.penalty;
        state.penalty = (state.penalty * 2).min(PASSED_MAX);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Held while looking, so that giving up in the middle does not keep others from it.
struct Looking<'a>(&'a Patience);

impl Drop for Looking<'_> {
    fn drop(&mut self) {
        self.0.lock().is_looking = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn looking_in_vain_makes_it_rarer_and_success_makes_it_usual_again() {
        let patience = Patience::new(Duration::from_nanos(1));
        let looks = async |found: Poll<()>| {
            let mut looked = false;
            patience
                .look(|_context| {
                    looked = true;
                    found
                })
                .await;
            looked
        };
        let mut pattern = Vec::new();
        for _ in 0..10 {
            pattern.push(looks(Poll::Pending).await);
        }
        assert_eq!(pattern, [true, false, true, false, false, true, false, false, false, false]);
        for _ in 0..200 {
            looks(Poll::Ready(())).await;
        }
        assert!(looks(Poll::Pending).await);
        assert!(!looks(Poll::Pending).await);
        assert!(looks(Poll::Pending).await);
    }

    #[tokio::test]
    async fn without_time_nothing_is_looked_for() {
        assert_eq!(Patience::new(Duration::ZERO).look(|_context| Poll::Ready(())).await, None);
    }
}
