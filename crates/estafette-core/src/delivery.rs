//! Deliveries: one hand-over of a message to a consumer, and how it is settled.
//!
//! The life of a message is drawn in `docs/lifecycle.md`; the arrows that leave "leased" are the [`Outcome`]s here.

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;

use crate::{Envelope, Error, ErrorKind, Failure, QueueName, Result};

/// What a transport needs to find a delivery again: which one, and whose turn.
///
/// `fence` differs between two hand-overs of the same message, so that settling after the lease was lost cannot touch
/// the new owner's delivery. What the numbers mean is the transport's affair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ticket {
    /// Which delivery: a row's id, a slot, a delivery tag.
    pub key: u64,
    /// Which hand-over of it: an attempt number, a channel's generation.
    pub fence: u64,
}

/// What a consumer decides about a delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Done: the message is gone from this queue.
    Ack,
    /// Failed: again after a delay, one attempt later.
    Retry {
        /// How long the message stays invisible.
        after: Duration,
        /// What went wrong, to be kept with the message.
        error: Option<String>,
    },
    /// Failed for good: to the dead letters.
    Reject(Failure),
    /// Not handled: again after a delay, and this attempt does not count.
    Release {
        /// How long the message stays invisible; zero puts it back where it was.
        after: Duration,
    },
}

/// A delivery's ticket and what is to become of it.
#[derive(Clone, Debug)]
pub struct Settlement {
    /// Which delivery.
    pub ticket: Ticket,
    /// What becomes of it.
    pub outcome: Outcome,
}

/// The side of a receiver that settles its deliveries; shared by all of them.
#[async_trait]
pub trait Settler: Send + Sync {
    /// Settles a batch: one result for each item, in order. An `Ok` is as durable as the transport's guarantees say.
    ///
    /// A retry's copy or a dead letter is stored before the source is settled. Fails by item with
    /// [`ErrorKind::LeaseLost`] when the delivery belongs to somebody else by now; that one is left alone.
    async fn settle(&self, batch: Vec<Settlement>) -> Vec<Result<()>>;

    /// Makes the leases of `tickets` end `lease` from now: one result for each, in order.
    async fn extend(&self, tickets: &[Ticket], lease: Duration) -> Vec<Result<()>> {
        let _ = lease;
        let error = Error::new(ErrorKind::Unsupported, "this transport's leases cannot be extended");
        vec![Err(error); tickets.len()]
    }

    /// Returns a delivery that was dropped unsettled: it comes again, and the attempt counts.
    ///
    /// Called from `Drop`: it never blocks for long and never fails. Where returning at once is impossible, the lease ends
    /// by itself.
    fn abandon(&self, ticket: Ticket);
}

/// One hand-over of a message to a consumer. Settle it with [`ack`](Self::ack), [`retry`](Self::retry),
/// [`reject`](Self::reject) or [`release`](Self::release), each of which consumes it.
///
/// A delivery that is dropped unsettled is returned to its queue and comes again.
pub struct Delivery {
    envelope: Arc<Envelope>,
    queue: QueueName,
    attempt: u32,
    ticket: Ticket,
    // None once settled: dropping then returns nothing.
    settler: Option<Arc<dyn Settler>>,
}

impl Delivery {
    /// A delivery of `envelope` from `queue`, for transports to make. `attempt` counts hand-overs, from 1.
    #[must_use]
    pub fn new(
        envelope: Arc<Envelope>,
        queue: QueueName,
        attempt: u32,
        ticket: Ticket,
        settler: Arc<dyn Settler>,
    ) -> Self {
        Self { envelope, queue, attempt, ticket, settler: Some(settler) }
    }

    /// The message.
    #[must_use]
    pub fn envelope(&self) -> &Arc<Envelope> {
        &self.envelope
    }

    /// The queue it was taken from.
    #[must_use]
    pub fn queue(&self) -> &QueueName {
        &self.queue
    }

    /// How many times this message was handed over from this queue, this time included: 1 the first time.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// The transport's ticket for this delivery.
    #[must_use]
    pub fn ticket(&self) -> Ticket {
        self.ticket
    }

    /// Settles it as done.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::LeaseLost`] when it was settled too late and belongs to somebody else; [`ErrorKind::Unavailable`] when
    /// the engine cannot be reached, after which the message comes again.
    pub async fn ack(self) -> Result<()> {
        self.settle(Outcome::Ack).await
    }

    /// Puts it back, to come again after a delay with one attempt more.
    ///
    /// # Errors
    ///
    /// As [`ack`](Self::ack).
    pub async fn retry(self, after: Duration) -> Result<()> {
        self.settle(Outcome::Retry { after, error: None }).await
    }

    /// Moves it to the dead letters.
    ///
    /// # Errors
    ///
    /// As [`ack`](Self::ack).
    pub async fn reject(self, failure: Failure) -> Result<()> {
        self.settle(Outcome::Reject(failure)).await
    }

    /// Puts it back untouched: it comes again and this attempt does not count.
    ///
    /// # Errors
    ///
    /// As [`ack`](Self::ack).
    pub async fn release(self) -> Result<()> {
        self.settle(Outcome::Release { after: Duration::ZERO }).await
    }

    /// Settles it with `outcome`.
    ///
    /// # Errors
    ///
    /// As [`ack`](Self::ack).
    pub async fn settle(self, outcome: Outcome) -> Result<()> {
        let mut results = settle_all(vec![(self, outcome)]).await;
        results.pop().unwrap_or_else(|| Err(ErrorKind::Engine.into()))
    }

    /// Makes the lease end `lease` from now.
    ///
    /// # Errors
    ///
    /// As [`ack`](Self::ack), and [`ErrorKind::Unsupported`] where leases cannot be extended.
    pub async fn extend(&self, lease: Duration) -> Result<()> {
        let Some(settler) = &self.settler else { return Err(ErrorKind::LeaseLost.into()) };
        let mut results = settler.extend(&[self.ticket], lease).await;
        results.pop().unwrap_or_else(|| Err(ErrorKind::Engine.into()))
    }

    /// The settler this delivery belongs to, until it is settled.
    #[must_use]
    pub fn settler(&self) -> Option<&Arc<dyn Settler>> {
        self.settler.as_ref()
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        if let Some(settler) = self.settler.take() {
            settler.abandon(self.ticket);
        }
    }
}

impl fmt::Debug for Delivery {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Delivery")
            .field("id", &self.envelope.id)
            .field("topic", &self.envelope.topic)
            .field("queue", &self.queue)
            .field("attempt", &self.attempt)
            .finish_non_exhaustive()
    }
}

/// Settles many deliveries in as few steps as their receivers allow: one result for each, in order.
///
/// Not cancellable: when the future is dropped before it ends, an outcome may or may not have taken effect, and a delivery
/// for which it has not comes again when its lease ends.
pub async fn settle_all(deliveries: Vec<(Delivery, Outcome)>) -> Vec<Result<()>> {
    let mut results = Vec::with_capacity(deliveries.len());
    let mut batch: Vec<Settlement> = Vec::with_capacity(deliveries.len());
    let mut owner: Option<Arc<dyn Settler>> = None;
    for (mut delivery, outcome) in deliveries {
        let Some(settler) = delivery.settler.take() else { continue };
        if let Some(previous) = owner.as_ref().filter(|previous| !Arc::ptr_eq(previous, &settler)) {
            results.extend(previous.settle(std::mem::take(&mut batch)).await);
        }
        batch.push(Settlement { ticket: delivery.ticket, outcome });
        owner = Some(settler);
    }
    if let Some(settler) = owner {
        results.extend(settler.settle(batch).await);
    }
    results
}
