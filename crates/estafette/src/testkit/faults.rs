//! What goes wrong in a test, decided beforehand.

use std::{collections::HashSet, time::Duration};

use estafette_core::{Envelope, MessageId, Pattern, QueueName};

/// Faults that a transport may have and stay within its contract, so that handlers must cope with them.
///
/// Each strikes a message once in each queue. Chance repeats with the [`seed`](Self::seed).
#[derive(Clone, Debug)]
pub struct Faults {
    duplicate: Plan,
    lose_ack: Plan,
    delay: Plan,
    delay_max: Duration,
    reorders: bool,
    random: fastrand::Rng,
}

/// Which messages a fault strikes. Those that qualify are counted from 1, over all queues.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum When {
    /// Every one.
    Always,
    /// The one with this number.
    Nth(u64),
    /// Each whose number is a multiple of this.
    Every(u64),
    /// Each with this probability, from 0 to 1.
    Share(f64),
    /// Those whose topic matches.
    Topic(Pattern),
}

/// When one fault happens, and to whom it has.
#[derive(Clone, Debug, Default)]
struct Plan {
    when: Option<When>,
    count: u64,
    struck: HashSet<(QueueName, MessageId)>,
}

impl Faults {
    /// Nothing goes wrong.
    #[must_use]
    pub fn none() -> Self {
        Self {
            duplicate: Plan::default(),
            lose_ack: Plan::default(),
            delay: Plan::default(),
            delay_max: Duration::ZERO,
            reorders: false,
            random: fastrand::Rng::with_seed(1),
        }
    }

    /// A message comes once more after it was acknowledged, as a message of its own with the same id: a publisher that tried
    /// again.
    #[must_use]
    pub fn duplicate(mut self, when: When) -> Self {
        self.duplicate.when = Some(when);
        self
    }

    /// An acknowledgement fails after the handler has done its work, and the message comes again with one attempt more: a lost
    /// connection.
    #[must_use]
    pub fn lose_acks(mut self, when: When) -> Self {
        self.lose_ack.when = Some(when);
        self
    }

    /// A published message becomes visible late, by up to `delay_max`: see [`TestKit::advance`](super::TestKit::advance).
    #[must_use]
    pub fn delay(mut self, when: When, delay_max: Duration) -> Self {
        self.delay.when = Some(when);
        self.delay_max = delay_max;
        self
    }

    /// What is ready is handed over in any order, as with several consumers.
    #[must_use]
    pub fn reorder(mut self) -> Self {
        self.reorders = true;
        self
    }

    /// Where chance begins; 1 by default.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.random = fastrand::Rng::with_seed(seed);
        self
    }

    pub(super) fn duplicates(&mut self, queue: &QueueName, envelope: &Envelope) -> bool {
        self.duplicate.strikes(queue, envelope, &mut self.random)
    }

    pub(super) fn loses_ack(&mut self, queue: &QueueName, envelope: &Envelope) -> bool {
        self.lose_ack.strikes(queue, envelope, &mut self.random)
    }

    /// How much later a message becomes visible.
    pub(super) fn delay_of(&mut self, queue: &QueueName, envelope: &Envelope) -> Duration {
        if self.delay.strikes(queue, envelope, &mut self.random) {
            self.delay_max.mul_f64(self.random.f64())
        } else {
            Duration::ZERO
        }
    }

    /// Changes the order of what is handed over, if that is to happen.
    pub(super) fn shuffle<T>(&mut self, items: &mut [T]) {
        if self.reorders {
            self.random.shuffle(items);
        }
    }

    /// Whether the order of what is ready is to change.
    pub(super) fn reorders(&self) -> bool {
        self.reorders
    }
}

impl Plan {
    fn strikes(&mut self, queue: &QueueName, envelope: &Envelope, random: &mut fastrand::Rng) -> bool {
        let Some(when) = &self.when else { return false };
        let message = (queue.clone(), envelope.id.clone());
        if self.struck.contains(&message) {
            return false;
        }
        self.count += 1;
        let strikes = match when {
            When::Always => true,
            When::Nth(number) => self.count == *number,
            When::Every(number) => self.count.is_multiple_of(*number),
            When::Share(share) => random.f64() < *share,
            When::Topic(pattern) => pattern.matches(&envelope.topic),
        };
        if strikes {
            self.struck.insert(message);
        }
        strikes
    }
}
