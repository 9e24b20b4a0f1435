//! What a test asks the kit for, and what it asserts. A failed assertion tells the whole story.

use std::{
    future::Future,
    pin::pin,
    task::{Context, Poll, Waker},
};

use estafette_core::{DeadLetter, DeadQuery, Message, Outcome, Outgoing, QueueStatus, Transport};

use super::{Fate, Handled, TestKit, story};

impl TestKit {
    /// Every message of type `M` that was published or sent, in order, by the test and by handlers.
    ///
    /// # Panics
    ///
    /// When one on the topic of `M` has another form.
    #[must_use]
    #[track_caller]
    pub fn published<M: Message>(&self) -> Vec<M> {
        let mut messages = Vec::new();
        for outgoing in self.outgoing().iter().filter(|outgoing| outgoing.envelope.topic == M::TOPIC) {
            match outgoing.envelope.decode() {
                Ok(message) => messages.push(message),
                Err(error) => {
                    self.fail(&format!("a message on {} does not decode: {}", M::TOPIC, error.report()));
                }
            }
        }
        messages
    }

    /// Everything that was published or sent, in order, with delay, headers and destination. Expiries are by the kit's clock.
    #[must_use]
    pub fn outgoing(&self) -> Vec<Outgoing> {
        self.stage.record.outgoing()
    }

    /// Every delivery of the queue that was handled, in order.
    ///
    /// # Panics
    ///
    /// When there is no such queue; so do all functions here that name one.
    #[must_use]
    #[track_caller]
    pub fn handled(&self, queue: &str) -> Vec<Handled> {
        self.stage.record.handled(&self.status(queue).name)
    }

    /// The dead letters of the queue now, oldest first; those that expired are among them once somebody looked for them.
    #[must_use]
    #[track_caller]
    pub fn dead(&self, queue: &str) -> Vec<DeadLetter> {
        let name = self.status(queue).name;
        let letters = at_once(self.stage.memory.admin().dead(&name, &DeadQuery::all()));
        letters.and_then(Result::ok).unwrap_or_default()
    }

    /// How full the queue is now.
    #[must_use]
    #[track_caller]
    pub fn status(&self, queue: &str) -> QueueStatus {
        let mut statuses = self.statuses();
        let Some(place) = statuses.iter().position(|status| status.name == queue) else {
            let known: Vec<&str> = statuses.iter().map(|status| status.name.as_str()).collect();
            self.fail(&format!("there is no queue {queue}; there are: {}", known.join(", ")));
        };
        statuses.swap_remove(place)
    }

    /// Asserts that so many messages of type `M` were published or sent.
    ///
    /// # Panics
    ///
    /// When it were others, with everything that happened; so do all assertions here.
    #[track_caller]
    pub fn assert_published<M: Message>(&self, count: usize) {
        let published = self.outgoing();
        let found = published.iter().filter(|outgoing| outgoing.envelope.topic == M::TOPIC).count();
        self.assert_count(&format!("messages on {} published", M::TOPIC), found, count);
    }

    /// Asserts that so many deliveries of the queue were handled, whatever became of them.
    #[track_caller]
    pub fn assert_handled(&self, queue: &str, count: usize) {
        self.assert_fates(queue, "handled", count, |_| true);
    }

    /// Asserts that so many deliveries of the queue were acknowledged; an acknowledgement that a fault lost is none.
    #[track_caller]
    pub fn assert_acked(&self, queue: &str, count: usize) {
        self.assert_fates(queue, "acked", count, |fate| matches!(fate, Fate::Settled(Outcome::Ack)));
    }

    /// Asserts that so many deliveries of the queue were put back for a retry.
    #[track_caller]
    pub fn assert_retried(&self, queue: &str, count: usize) {
        let is_retry = |fate: &Fate| matches!(fate, Fate::Settled(Outcome::Retry { .. }));
        self.assert_fates(queue, "retried", count, is_retry);
    }

    /// Asserts that there are so many dead letters of the queue now, for whatever reason.
    #[track_caller]
    pub fn assert_dead(&self, queue: &str, count: usize) {
        let found = self.dead(queue).len();
        self.assert_count(&format!("dead letters of {queue}"), found, count);
    }

    /// Asserts that the queue holds nothing: nothing is ready, waits for its time, is being handled or is dead.
    #[track_caller]
    pub fn assert_empty(&self, queue: &str) {
        let QueueStatus { ready, delayed, leased, dead, .. } = self.status(queue);
        let found = usize::try_from(ready + delayed + leased + dead).unwrap_or(usize::MAX);
        self.assert_count(&format!("messages in {queue}"), found, 0);
    }

    /// What happened and what is there now, as a failed assertion tells it.
    #[must_use]
    pub fn story(&self) -> String {
        story::tell(&self.stage.record.log(), &self.statuses())
    }

    #[track_caller]
    fn assert_fates(&self, queue: &str, word: &str, count: usize, is_meant: fn(&Fate) -> bool) {
        let found = self.handled(queue).iter().filter(|handled| is_meant(&handled.fate)).count();
        self.assert_count(&format!("deliveries of {queue} {word}"), found, count);
    }

    #[track_caller]
    fn assert_count(&self, what: &str, found: usize, expected: usize) {
        if found != expected {
            self.fail(&format!("{what}: {found}, not {expected}"));
        }
    }

    #[track_caller]
    #[allow(clippy::panic, reason = "this is how a test fails")]
    fn fail(&self, sentence: &str) -> ! {
        panic!("{sentence}\n{}", self.story());
    }

    pub(super) fn statuses(&self) -> Vec<QueueStatus> {
        at_once(self.stage.memory.admin().queues()).and_then(Result::ok).unwrap_or_default()
    }
}

/// The output of a future that never waits, as those of the memory transport's admin; `None` if it did.
pub(super) fn at_once<F: Future>(future: F) -> Option<F::Output> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}
