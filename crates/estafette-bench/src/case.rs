//! A job, the loops that do it, and what is aimed for.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt as _};

/// Messages per second.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Rate(f64);

impl Rate {
    /// The rate of `messages` handled in `elapsed`.
    #[must_use]
    pub fn of(messages: u32, elapsed: Duration) -> Self {
        Self(f64::from(messages) / elapsed.as_secs_f64().max(f64::MIN_POSITIVE))
    }

    /// Messages per second.
    #[must_use]
    pub fn per_second(self) -> f64 {
        self.0
    }

    /// Halfway between two rates.
    #[must_use]
    pub fn midpoint(self, other: Self) -> Self {
        Self(self.0.midpoint(other.0))
    }

    /// The time one message takes on average.
    #[must_use]
    pub fn time_per_message(self) -> Duration {
        Duration::try_from_secs_f64(1.0 / self.0).unwrap_or(Duration::MAX)
    }
}

type Blocking = dyn FnMut(&Path) -> anyhow::Result<Rate>;
type Async = dyn FnMut(PathBuf) -> BoxFuture<'static, anyhow::Result<Rate>>;

/// One way to do a job: given an empty directory of its own, it prepares what it needs, does the job, and returns the rate
/// of the job alone, without the preparation.
pub enum Loop {
    /// Blocks its thread.
    Blocking(Box<Blocking>),
    /// Runs on the harness's multi-threaded tokio runtime.
    Async(Box<Async>),
}

impl Loop {
    /// A loop that blocks its thread.
    pub fn blocking(work: impl FnMut(&Path) -> anyhow::Result<Rate> + 'static) -> Self {
        Self::Blocking(Box::new(work))
    }

    /// A loop that runs on tokio.
    pub fn asynchronous<Work, Running>(mut work: Work) -> Self
    where
        Work: FnMut(PathBuf) -> Running + 'static,
        Running: Future<Output = anyhow::Result<Rate>> + Send + 'static,
    {
        Self::Async(Box::new(move |directory| work(directory).boxed()))
    }
}

/// What is aimed for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Target {
    /// Ours divided by the floor is at least this.
    RatioMin(f64),
    /// Ours is at least this, whatever the floor does.
    RateMin(Rate),
    /// Ours takes at most this much longer per message than the floor.
    OverheadMax(Duration),
    /// Nothing: shown to compare.
    Shown,
}

impl Target {
    /// At least this many messages a second.
    #[must_use]
    pub fn per_second_min(messages: u32) -> Self {
        Self::RateMin(Rate::of(messages, Duration::from_secs(1)))
    }

    /// Whether `ours` beside `floor` is what is aimed for.
    #[must_use]
    pub fn is_met(self, floor: Rate, ours: Rate) -> bool {
        match self {
            Self::RatioMin(ratio) => ours.0 >= ratio * floor.0,
            Self::RateMin(rate) => ours >= rate,
            Self::OverheadMax(overhead) => {
                ours.time_per_message() <= floor.time_per_message().saturating_add(overhead)
            }
            Self::Shown => true,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RatioMin(ratio) => write!(formatter, "≥ {ratio:.2}"),
            Self::RateMin(rate) => write!(formatter, "≥ {:.0}/s", rate.0),
            Self::OverheadMax(overhead) => write!(formatter, "≤ +{overhead:?}"),
            Self::Shown => Ok(()),
        }
    }
}

/// A job, the bare loop that does it, and Estafette doing the same.
pub struct Case {
    /// What is done, as the table shows it.
    pub name: String,
    /// The bare loop; or, where two of our own are compared, the one compared with.
    pub floor: Loop,
    /// Estafette's; without one, the floor is shown alone.
    pub ours: Option<Loop>,
    /// What is aimed for.
    pub target: Target,
}

impl Case {
    /// A job with its floor alone, for now.
    pub fn new(name: impl Into<String>, floor: Loop) -> Self {
        Self { name: name.into(), floor, ours: None, target: Target::Shown }
    }

    /// Adds Estafette's loop and what is aimed for.
    #[must_use]
    pub fn ours(self, ours: Loop, target: Target) -> Self {
        Self { ours: Some(ours), target, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(messages: u32) -> Rate {
        Rate::of(messages, Duration::from_secs(1))
    }

    #[test]
    fn a_target_is_met_at_its_border() {
        assert!(Target::RatioMin(0.5).is_met(rate(100), rate(50)));
        assert!(!Target::RatioMin(0.5).is_met(rate(100), rate(49)));
        assert!(Target::per_second_min(50).is_met(rate(1), rate(50)));
        assert!(!Target::per_second_min(51).is_met(rate(1), rate(50)));
    }

    #[test]
    fn overhead_is_time_per_message() {
        let target = Target::OverheadMax(Duration::from_millis(10));
        assert!(target.is_met(rate(100), rate(50)));
        assert!(!target.is_met(rate(100), rate(49)));
        assert!(target.is_met(rate(100), rate(200)));
    }

    #[test]
    fn a_rate_of_nothing_is_no_division_by_zero() {
        assert_eq!(Rate::of(0, Duration::ZERO).time_per_message(), Duration::MAX);
    }
}
