//! Which events a fault strikes.

use estafette_core::{Envelope, Error, Pattern, QueueName};

/// Which messages a fault strikes. Those that qualify are counted from 1.
///
/// ```
/// # use estafette::testkit::{Faults, When};
/// Faults::none()
///     .duplicate(When::always())
///     .lose_acks(When::nth(3).queue("billing"))
///     .reorder(When::share(0.5).topic("order.*"));
/// ```
#[derive(Clone, Debug)]
pub struct When {
    turn: Turn,
    queue: Option<QueueName>,
    topic: Option<Pattern>,
}

#[derive(Clone, Copy, Debug)]
enum Turn {
    Always,
    Nth(u64),
    Every(u64),
    Share(f64),
}

impl When {
    /// Every one.
    #[must_use]
    pub fn always() -> Self {
        Self::of(Turn::Always)
    }

    /// The one with this number, from 1.
    #[must_use]
    pub fn nth(number: u64) -> Self {
        Self::of(Turn::Nth(number))
    }

    /// Each whose number is a multiple of `number`.
    #[must_use]
    pub fn every(number: u64) -> Self {
        Self::of(Turn::Every(number))
    }

    /// Each with this probability, from 0 to 1; it repeats with the [seed](super::Faults::seed).
    #[must_use]
    pub fn share(probability: f64) -> Self {
        Self::of(Turn::Share(probability))
    }

    fn of(turn: Turn) -> Self {
        Self { turn, queue: None, topic: None }
    }

    /// Only messages of this queue qualify.
    ///
    /// # Panics
    ///
    /// When the text is no queue's name.
    #[must_use]
    #[track_caller]
    pub fn queue<N>(mut self, queue: N) -> Self
    where
        N: TryInto<QueueName>,
        Error: From<N::Error>,
    {
        self.queue = Some(valid(queue.try_into().map_err(Error::from)));
        self
    }

    /// Only messages whose topic matches this pattern qualify.
    ///
    /// # Panics
    ///
    /// When the text is no pattern.
    #[must_use]
    #[track_caller]
    pub fn topic<P>(mut self, pattern: P) -> Self
    where
        P: TryInto<Pattern>,
        Error: From<P::Error>,
    {
        self.topic = Some(valid(pattern.try_into().map_err(Error::from)));
        self
    }

    pub(super) fn qualifies(&self, queue: &QueueName, envelope: &Envelope) -> bool {
        self.queue.as_ref().is_none_or(|only| only == queue)
            && self.topic.as_ref().is_none_or(|only| only.matches(&envelope.topic))
    }

    /// Whether the message that qualified as the one with this number is struck.
    pub(super) fn strikes(&self, number: u64, random: &mut fastrand::Rng) -> bool {
        match self.turn {
            Turn::Always => true,
            Turn::Nth(nth) => number == nth,
            Turn::Every(every) => number.is_multiple_of(every),
            Turn::Share(share) => random.f64() < share,
        }
    }
}

#[track_caller]
#[allow(clippy::panic, reason = "a mistake in a test is that test's failure")]
fn valid<T>(checked: Result<T, Error>) -> T {
    checked.unwrap_or_else(|error| panic!("{}", error.report()))
}
