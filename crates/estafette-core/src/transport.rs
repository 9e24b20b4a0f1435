//! What a transport is: four traits, and a suite (`estafette-conformance`) that says whether they are kept.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;

use crate::{
    DeadLetter, DeadQuery, Delivery, Error, ErrorKind, Guarantees, MessageId, Outgoing, Pattern, QueueName,
    QueueSpec, QueueStatus, Receipt, Result,
};

/// A place where messages live. Cheap to share: everything takes `&self`.
#[async_trait]
pub trait Transport: Send + Sync {
    /// What this transport promises.
    fn guarantees(&self) -> Guarantees;

    /// Makes sure a queue exists and is subscribed to the patterns. Declaring again adds patterns and changes nothing else.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unsupported`] for what the transport has no means for, [`ErrorKind::Conflict`] when the queue exists
    /// with another lifetime.
    async fn declare(&self, queue: &QueueSpec) -> Result<()>;

    /// Stores a batch: one result for each message, in order. A failure of one hides nothing about the others.
    ///
    /// `Ok` means stored as durably as [`Guarantees::durability`] says, in every queue that takes it. Sending to a queue that
    /// does not exist creates it, unless [`Outgoing::require_queue`] is set. Fails by item with [`ErrorKind::TooLarge`], [`ErrorKind::Unroutable`] (a queue was
    /// required), [`ErrorKind::Unsupported`], [`ErrorKind::Unavailable`], [`ErrorKind::Full`] or [`ErrorKind::Closed`]; then
    /// nothing of that message is delivered, except after [`ErrorKind::TimedOut`], when that is unknown.
    async fn publish(&self, batch: &[Outgoing]) -> Vec<Result<Receipt>>;

    /// Starts taking deliveries from a queue, which must have been declared.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`] when there is no such queue; [`ErrorKind::Unsupported`] for options the transport has no
    /// means for.
    async fn receiver(&self, queue: &QueueName, options: ReceiveOptions) -> Result<Box<dyn Receiver>>;

    /// Looking after queues and dead letters.
    fn admin(&self) -> &dyn Admin;

    /// Stores what is not stored yet and lets go of files and connections. Calling it again does nothing; publishing and
    /// receiving afterwards fail with [`ErrorKind::Closed`].
    ///
    /// # Errors
    ///
    /// Those of storing.
    async fn close(&self) -> Result<()>;
}

/// How deliveries are taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceiveOptions {
    /// How long a delivery may stay unsettled before it comes again; at least 1 ms. 30 seconds by default.
    pub lease: Duration,
    /// At most so many unsettled deliveries at once; `receive` returns no more while so many are out. 1,000 by default.
    pub unsettled_max: usize,
    /// Whether messages of one partition key are handed over strictly one after the other
    /// ([`Order::Key`](crate::Order::Key)).
    pub ordered_by_key: bool,
}

impl Default for ReceiveOptions {
    fn default() -> Self {
        Self { lease: Duration::from_secs(30), unsettled_max: 1000, ordered_by_key: false }
    }
}

/// One consumer's hold on a queue.
#[async_trait]
pub trait Receiver: Send {
    /// Takes up to `max` deliveries. Returns as soon as there is at least one; empty when there is none within `wait`.
    /// A `wait` of zero only looks.
    ///
    /// The attempt is counted here. Expired messages are moved to the dead letters instead of being returned. Cancelling is
    /// safe: what was taken and not returned comes again.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unavailable`] when the engine cannot be reached (calling again tries again), [`ErrorKind::NotFound`] when
    /// the queue was deleted, [`ErrorKind::Closed`] after closing.
    async fn receive(&mut self, max: usize, wait: Duration) -> Result<Vec<Delivery>>;

    /// Ends taking deliveries: what this receiver holds back locally returns to the queue at once, and a temporary queue
    /// goes away. Deliveries that are still out can be settled. Calling it again does nothing.
    ///
    /// # Errors
    ///
    /// Those of returning; the leases end by themselves then.
    async fn close(&mut self) -> Result<()>;
}

/// Looking after queues and dead letters.
#[async_trait]
pub trait Admin: Send + Sync {
    /// Every queue, by name.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unavailable`] when the engine cannot be reached; so for all functions here.
    async fn queues(&self) -> Result<Vec<QueueStatus>>;

    /// One queue.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`] when there is no such queue; so for all functions here that name one.
    async fn queue(&self, queue: &QueueName) -> Result<QueueStatus> {
        let found = self.queues().await?.into_iter().find(|status| status.name == *queue);
        found.ok_or_else(|| no_queue(queue))
    }

    /// Ends a subscription; messages already in the queue stay.
    ///
    /// # Errors
    ///
    /// As [`queue`](Self::queue).
    async fn unsubscribe(&self, queue: &QueueName, pattern: &Pattern) -> Result<()>;

    /// Deletes a queue with its messages and its dead letters.
    ///
    /// # Errors
    ///
    /// As [`queue`](Self::queue).
    async fn delete(&self, queue: &QueueName) -> Result<()>;

    /// Deletes the messages of a queue that nobody holds, dead letters apart, and returns how many.
    ///
    /// # Errors
    ///
    /// As [`queue`](Self::queue).
    async fn purge(&self, queue: &QueueName) -> Result<u64>;

    /// The dead letters of a queue that `query` means, oldest first.
    ///
    /// # Errors
    ///
    /// As [`queue`](Self::queue).
    async fn dead(&self, queue: &QueueName, query: &DeadQuery) -> Result<Vec<DeadLetter>>;

    /// Puts dead letters back into their queue, ready and with the attempt at 1 again, and returns how many. The header
    /// `redriven` counts how often that was done.
    ///
    /// # Errors
    ///
    /// As [`queue`](Self::queue). Interrupted half way, each message is in one of the two places, in the worst case in both.
    async fn redrive(&self, queue: &QueueName, query: &DeadQuery) -> Result<u64>;

    /// Deletes dead letters and returns how many.
    ///
    /// # Errors
    ///
    /// As [`queue`](Self::queue).
    async fn purge_dead(&self, queue: &QueueName, query: &DeadQuery) -> Result<u64>;

    /// Deletes a message that waits for its time; false when it does not (any more).
    ///
    /// # Errors
    ///
    /// As [`queue`](Self::queue); [`ErrorKind::Unsupported`] where [`Guarantees::cancel`] says so.
    async fn cancel(&self, queue: &QueueName, id: &MessageId) -> Result<bool> {
        let _ = (queue, id);
        Err(Error::new(ErrorKind::Unsupported, "a delayed message cannot be cancelled on this transport"))
    }
}

/// The error for a queue that does not exist.
fn no_queue(queue: &QueueName) -> Error {
    Error::new(ErrorKind::NotFound, format!("there is no queue {queue}; declare it, or consume from it once"))
}

impl Error {
    /// The error for a queue that does not exist.
    #[must_use]
    pub fn no_queue(queue: &QueueName) -> Self {
        no_queue(queue)
    }
}

#[async_trait]
impl<T: Transport + ?Sized> Transport for Arc<T> {
    fn guarantees(&self) -> Guarantees {
        (**self).guarantees()
    }

    async fn declare(&self, queue: &QueueSpec) -> Result<()> {
        (**self).declare(queue).await
    }

    async fn publish(&self, batch: &[Outgoing]) -> Vec<Result<Receipt>> {
        (**self).publish(batch).await
    }

    async fn receiver(&self, queue: &QueueName, options: ReceiveOptions) -> Result<Box<dyn Receiver>> {
        (**self).receiver(queue, options).await
    }

    fn admin(&self) -> &dyn Admin {
        (**self).admin()
    }

    async fn close(&self) -> Result<()> {
        (**self).close().await
    }
}
