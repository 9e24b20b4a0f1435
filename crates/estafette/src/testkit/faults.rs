//! What goes wrong in a test, decided beforehand.

use std::{collections::HashSet, time::Duration};

use estafette_core::{Envelope, MessageId, QueueName};

use super::When;

/// Faults that a transport may have and stay within its contract, so that handlers must cope with them.
///
/// Each strikes a message once in each queue. The same faults with the same seed do the same again, as long as handlers run
/// one at a time.
#[derive(Clone, Debug)]
pub struct Faults {
    duplicate: Vec<Plan>,
    lose_ack: Vec<Plan>,
    reorder: Vec<Plan>,
    delay: Vec<(Plan, Duration)>,
    random: fastrand::Rng,
}

/// When one fault happens, and to whom it has.
#[derive(Clone, Debug)]
struct Plan {
    when: When,
    count: u64,
    struck: HashSet<(QueueName, MessageId)>,
}

impl Faults {
    /// Nothing goes wrong.
    #[must_use]
    pub fn none() -> Self {
        Self {
            duplicate: Vec::new(),
            lose_ack: Vec::new(),
            reorder: Vec::new(),
            delay: Vec::new(),
            random: fastrand::Rng::with_seed(1),
        }
    }

    /// A message comes twice, with the same id: its publisher was told of a failure and tried again. The second stands at the
    /// end of the queue, and with several handlers at once both may be handled at the same time.
    #[must_use]
    pub fn duplicate(mut self, when: When) -> Self {
        self.duplicate.push(Plan::new(when));
        self
    }

    /// An acknowledgement is lost after the handler has done its work, and the message comes again at once with one attempt
    /// more: a broken connection. Acknowledgements are counted.
    #[must_use]
    pub fn lose_acks(mut self, when: When) -> Self {
        self.lose_ack.push(Plan::new(when));
        self
    }

    /// Messages are handed over in another order, as after retries or with several consumers: those struck among what is
    /// ready change places. Order by key, where a consumer asks for it, is kept.
    #[must_use]
    pub fn reorder(mut self, when: When) -> Self {
        self.reorder.push(Plan::new(when));
        self
    }

    /// A message is handed over `late`, by the kit's clock: see [`TestKit::advance`](super::TestKit::advance).
    #[must_use]
    pub fn delay(mut self, when: When, late: Duration) -> Self {
        self.delay.push((Plan::new(when), late));
        self
    }

    /// Where chance begins; 1 by default.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.random = fastrand::Rng::with_seed(seed);
        self
    }

    pub(super) fn duplicates(&mut self, queue: &QueueName, envelope: &Envelope) -> bool {
        any(&mut self.duplicate, queue, envelope, &mut self.random)
    }

    pub(super) fn loses_ack(&mut self, queue: &QueueName, envelope: &Envelope) -> bool {
        any(&mut self.lose_ack, queue, envelope, &mut self.random)
    }

    pub(super) fn displaces(&mut self, queue: &QueueName, envelope: &Envelope) -> bool {
        any(&mut self.reorder, queue, envelope, &mut self.random)
    }

    /// How much later a message is handed over, if it is.
    pub(super) fn delay_of(&mut self, queue: &QueueName, envelope: &Envelope) -> Option<Duration> {
        let Self { delay, random, .. } = self;
        let late = delay
            .iter_mut()
            .filter_map(|(plan, late)| plan.strikes(queue, envelope, random).then_some(*late))
            .sum::<Duration>();
        (!late.is_zero()).then_some(late)
    }

    /// Whether any order is to change, so that it pays to look at much of what is ready.
    pub(super) fn reorders(&self) -> bool {
        !self.reorder.is_empty()
    }

    /// Changes the order of these.
    pub(super) fn shuffle<T>(&mut self, items: &mut [T]) {
        self.random.shuffle(items);
    }
}

/// Whether one of the plans strikes. Each counts, whatever the others do.
fn any(plans: &mut [Plan], queue: &QueueName, envelope: &Envelope, random: &mut fastrand::Rng) -> bool {
    let mut is_struck = false;
    for plan in plans {
        is_struck |= plan.strikes(queue, envelope, random);
    }
    is_struck
}

impl Plan {
    fn new(when: When) -> Self {
        Self { when, count: 0, struck: HashSet::new() }
    }

    fn strikes(&mut self, queue: &QueueName, envelope: &Envelope, random: &mut fastrand::Rng) -> bool {
        let message = (queue.clone(), envelope.id.clone());
        if !self.when.qualifies(queue, envelope) || self.struck.contains(&message) {
            return false;
        }
        self.count += 1;
        let strikes = self.when.strikes(self.count, random);
        if strikes {
            self.struck.insert(message);
        }
        strikes
    }
}
