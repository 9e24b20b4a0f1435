//! What a test asks the kit for, and what it asserts. A failed assertion tells the whole story.

use estafette_core::{DeadLetter, DeadQuery, Message, Outcome, Outgoing, QueueName, Result, Transport};

use super::{Fate, Handled, TestKit};

impl TestKit {
    /// Every message of type `M` that was published or sent, in order, by the test and by handlers.
    ///
    /// # Errors
    ///
    /// Those of the message's codec.
    pub fn published<M: Message>(&self) -> Result<Vec<M>> {
        let published = self.outgoing();
        let of_type = published.iter().filter(|outgoing| outgoing.envelope.topic == M::TOPIC);
        of_type.map(|outgoing| M::decode(&outgoing.envelope.body)).collect()
    }

    /// Everything that was published or sent, in order, with delay, headers and destination.
    #[must_use]
    pub fn outgoing(&self) -> Vec<Outgoing> {
        self.record.log().published.clone()
    }

    /// Every delivery of the queue that was handled, in order.
    #[must_use]
    pub fn handled(&self, queue: &str) -> Vec<Handled> {
        let log = self.record.log();
        log.handled.iter().filter(|handled| handled.queue.as_str() == queue).cloned().collect()
    }

    /// The dead letters of the queue, oldest first; also those that expired.
    ///
    /// # Errors
    ///
    /// [`NotFound`](estafette_core::ErrorKind::NotFound) when there is no such queue.
    pub async fn dead(&self, queue: &str) -> Result<Vec<DeadLetter>> {
        self.memory.admin().dead(&QueueName::try_from(queue)?, &DeadQuery::all()).await
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

    /// Asserts that so many deliveries of the queue were acknowledged.
    #[track_caller]
    pub fn assert_acked(&self, queue: &str, count: usize) {
        self.assert_settled("acked", queue, count, |outcome| *outcome == Outcome::Ack);
    }

    /// Asserts that so many deliveries of the queue were put back for a retry.
    #[track_caller]
    pub fn assert_retried(&self, queue: &str, count: usize) {
        self.assert_settled("retried", queue, count, |outcome| matches!(outcome, Outcome::Retry { .. }));
    }

    /// Asserts that so many deliveries of the queue became dead letters, expired ones apart, which nobody handled: see
    /// [`dead`](Self::dead).
    #[track_caller]
    pub fn assert_dead(&self, queue: &str, count: usize) {
        self.assert_settled("dead", queue, count, |outcome| matches!(outcome, Outcome::Reject(_)));
    }

    /// Asserts that so many deliveries of the queue were handled, whatever became of them.
    #[track_caller]
    pub fn assert_handled(&self, queue: &str, count: usize) {
        self.assert_count(&format!("deliveries of {queue} handled"), self.handled(queue).len(), count);
    }

    #[track_caller]
    fn assert_settled(&self, word: &str, queue: &str, count: usize, is_meant: fn(&Outcome) -> bool) {
        let handled = self.handled(queue);
        let is_meant =
            |handled: &&Handled| matches!(&handled.fate, Fate::Settled(outcome) if is_meant(outcome));
        let found = handled.iter().filter(is_meant).count();
        self.assert_count(&format!("deliveries of {queue} {word}"), found, count);
    }

    #[track_caller]
    fn assert_count(&self, what: &str, found: usize, expected: usize) {
        assert!(found == expected, "{what}: {found}, not {expected}\n{}", self.record.log());
    }
}
