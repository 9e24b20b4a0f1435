//! Retry policies: how often and how long after a failure a message comes again. Data only; consumers apply it.

use std::{num::NonZeroU32, time::Duration};

/// How the delay grows from one failed attempt to the next.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Backoff {
    /// Always the same delay.
    Fixed(Duration),
    /// The delay is multiplied after each failure, up to a limit.
    Exponential {
        /// After the first failure.
        first: Duration,
        /// By how much each delay is longer than the one before; at least 1.
        factor: f64,
        /// The longest delay.
        max: Duration,
    },
}

/// How often a message is tried and how long it waits in between.
///
/// ```
/// use std::time::Duration;
/// use estafette_core::Retry;
/// let retry = Retry::exponential(Duration::from_secs(1)).jitter(0.0).attempts_max(5);
/// assert_eq!(retry.delay(3, 0.5), Duration::from_secs(4));
/// assert!(retry.is_last(5));
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Retry {
    /// How the delay grows.
    pub backoff: Backoff,
    /// By which part of itself a delay may be shorter or longer, from 0 to 1.
    pub jitter: f64,
    /// How many times a message is handed over at most.
    pub attempts_max: NonZeroU32,
}

impl Retry {
    /// The same delay after each failure; 5 attempts, no jitter.
    #[must_use]
    pub fn fixed(delay: Duration) -> Self {
        Self { backoff: Backoff::Fixed(delay), jitter: 0.0, attempts_max: FIVE }
    }

    /// A delay that doubles after each failure, one hour at most; 5 attempts, a tenth of jitter.
    #[must_use]
    pub fn exponential(first: Duration) -> Self {
        let backoff = Backoff::Exponential { first, factor: 2.0, max: Duration::from_secs(3600) };
        Self { backoff, jitter: 0.1, attempts_max: FIVE }
    }

    /// No retries: the first failure is the last.
    #[must_use]
    pub fn never() -> Self {
        Self::fixed(Duration::ZERO).attempts_max(1)
    }

    /// The same policy with another limit of attempts; 0 counts as 1.
    #[must_use]
    pub fn attempts_max(mut self, attempts: u32) -> Self {
        self.attempts_max = NonZeroU32::new(attempts).unwrap_or(NonZeroU32::MIN);
        self
    }

    /// The same policy with another jitter: the part of a delay, 0 to 1, by which it may be shorter or longer.
    #[must_use]
    pub fn jitter(mut self, part: f64) -> Self {
        self.jitter = if part.is_finite() { part.clamp(0.0, 1.0) } else { 0.0 };
        self
    }

    /// The same policy with another growth. No effect on a fixed delay.
    #[must_use]
    pub fn factor(mut self, by: f64) -> Self {
        if let Backoff::Exponential { factor, .. } = &mut self.backoff {
            *factor = if by.is_finite() { by.max(1.0) } else { 1.0 };
        }
        self
    }

    /// The same policy with another longest delay. No effect on a fixed delay.
    #[must_use]
    pub fn delay_max(mut self, longest: Duration) -> Self {
        if let Backoff::Exponential { max, .. } = &mut self.backoff {
            *max = longest;
        }
        self
    }

    /// Whether a failure of attempt `attempt` (from 1) is final.
    #[must_use]
    pub fn is_last(&self, attempt: u32) -> bool {
        attempt >= self.attempts_max.get()
    }

    /// The delay after attempt `attempt` (from 1) failed. `random` in 0..1 decides the jitter.
    #[must_use]
    pub fn delay(&self, attempt: u32, random: f64) -> Duration {
        let (base, longest) = match self.backoff {
            Backoff::Fixed(delay) => (delay.as_secs_f64(), delay),
            Backoff::Exponential { first, factor, max } => {
                let exponent = i32::try_from(attempt.saturating_sub(1)).unwrap_or(i32::MAX);
                // Infinity for huge exponents, which the limit then cuts.
                (first.as_secs_f64() * factor.max(1.0).powi(exponent), max)
            }
        };
        let jittered = base.min(longest.as_secs_f64()) * (1.0 + self.jitter * (random * 2.0 - 1.0));
        Duration::try_from_secs_f64(jittered.max(0.0)).unwrap_or(longest)
    }
}

const FIVE: NonZeroU32 = NonZeroU32::new(5).unwrap();

impl Default for Retry {
    /// Exponential from one second, 5 attempts.
    fn default() -> Self {
        Self::exponential(Duration::from_secs(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_limit_without_overflow() {
        let retry = Retry::exponential(Duration::from_secs(1)).jitter(0.0).delay_max(Duration::from_secs(60));
        let seconds: Vec<u64> = (1..=8).map(|attempt| retry.delay(attempt, 0.0).as_secs()).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(retry.delay(u32::MAX, 0.0), Duration::from_secs(60));
        let zero = Retry::exponential(Duration::ZERO).jitter(0.0);
        assert!(zero.delay(u32::MAX, 0.0) <= Duration::from_secs(3600));
    }

    proptest::proptest! {
        #[test]
        fn jitter_stays_within_its_part(attempt in 1u32..100, random in 0.0..1.0f64, part in 0.0..1.0f64) {
            let retry = Retry::fixed(Duration::from_secs(10)).jitter(part);
            let delay = retry.delay(attempt, random).as_secs_f64();
            proptest::prop_assert!(delay >= 10.0 * (1.0 - part) - 1e-6 && delay <= 10.0 * (1.0 + part) + 1e-6);
        }
    }
}
