//! What the transport asks of an engine: everything that reads or writes the database.
//!
//! Routing, leases, limits and waking receivers are above this line and the same for every engine.

use std::{sync::Arc, time::Duration};

use estafette_core::{
    DeadLetter, DeadQuery, Delivery, Envelope, Lifetime, MessageId, Outcome, Outgoing, Pattern, QueueName,
    QueueSpec, QueueStatus, Receipt, Result, Ticket, Timestamp, async_trait,
};

use crate::{
    leases::{Lease, Leases},
    routes::QueueId,
};

/// What a receiver wants.
#[derive(Clone, Debug)]
pub(crate) struct Claim {
    pub(crate) queue: QueueId,
    pub(crate) name: QueueName,
    pub(crate) max: usize,
    pub(crate) lease: Duration,
    pub(crate) ordered_by_key: bool,
}

/// A message that was claimed.
pub(crate) struct Claimed {
    pub(crate) envelope: Envelope,
    pub(crate) attempt: u32,
    pub(crate) ticket: Ticket,
}

/// Makes a delivery of a claimed message.
pub(crate) type Deliver = Box<dyn Fn(Claimed) -> Delivery + Send>;

/// Deliveries a claim came to, and when to look again, by this machine's clock.
pub(crate) struct Delivered {
    pub(crate) deliveries: Vec<Delivery>,
    pub(crate) next_due: Option<Timestamp>,
}

/// What storing a batch came to.
pub(crate) struct Stored {
    /// One for each message, in order.
    pub(crate) receipts: Vec<Result<Receipt>>,
    /// The queues that took any of them.
    pub(crate) queues: Vec<QueueId>,
}

/// What becomes of a delivery, dropping it and keeping it longer included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// As the consumer decided.
    Settled(Outcome),
    /// Dropped: back to its place, and the attempt counts.
    Dropped,
    /// Its lease ends later than it did, or earlier. In a server's database, where the server's clock counts, the time is
    /// how long from now on, since 1970.
    LeasedUntil(Timestamp),
}

/// An open database.
#[async_trait]
pub(crate) trait Store: Send + Sync {
    /// Makes sure a queue and its subscriptions exist.
    async fn declare(&self, spec: &QueueSpec) -> Result<()>;

    /// Stores a batch.
    async fn publish(&self, messages: Vec<Outgoing>) -> Result<Stored>;

    /// A queue that is about to be consumed, which makes a temporary one ours.
    async fn consume(&self, name: &QueueName) -> Result<(QueueId, Lifetime)>;

    /// Claims messages and has `deliver` make deliveries of them.
    async fn claim(&self, claim: Claim, deliver: Deliver) -> Result<Delivered>;

    /// Settles leases: one result for each, in order. `wakes` says whether another receiver may find something to do then.
    async fn settle(&self, queue: QueueId, batch: Vec<(Lease, Fate)>, wakes: bool)
    -> Result<Vec<Result<()>>>;

    /// Puts a dropped delivery back some time soon, and then calls `finish`.
    fn put_back(&self, queue: QueueId, lease: Lease, finish: Box<dyn FnOnce() + Send>);

    /// Makes leases end `lease` from now: one result for each, in order.
    async fn extend(
        &self,
        queue: QueueId,
        leases: Arc<Leases>,
        tickets: Vec<Ticket>,
        lease: Duration,
    ) -> Result<Vec<Result<()>>>;

    /// Deletes a temporary queue of ours.
    async fn remove_temporary(&self, name: &QueueName) -> Result<()>;

    /// Deletes a temporary queue of ours some time soon.
    fn remove_temporary_later(&self, name: &QueueName);

    /// Says that this process lives.
    async fn beat(&self) -> Result<()>;

    /// The temporary queues whose process seems to be gone.
    async fn orphans(&self) -> Result<Vec<QueueId>>;

    /// Deletes those of them that still are orphans.
    async fn remove_orphans(&self, suspects: Vec<QueueId>) -> Result<()>;

    /// Every queue, by name.
    async fn queues(&self) -> Result<Vec<QueueStatus>>;

    /// One queue.
    async fn queue(&self, name: &QueueName) -> Result<QueueStatus>;

    /// Ends a subscription.
    async fn unsubscribe(&self, name: &QueueName, pattern: &Pattern) -> Result<()>;

    /// Deletes a queue and everything in it.
    async fn delete(&self, name: &QueueName) -> Result<()>;

    /// Deletes the messages nobody holds, and returns how many.
    async fn purge(&self, name: &QueueName) -> Result<u64>;

    /// The dead letters that `query` means.
    async fn dead(&self, name: &QueueName, query: &DeadQuery) -> Result<Vec<DeadLetter>>;

    /// Puts dead letters back, and returns how many and into which queue.
    async fn redrive(&self, name: &QueueName, query: &DeadQuery) -> Result<(QueueId, u64)>;

    /// Deletes dead letters, and returns how many.
    async fn purge_dead(&self, name: &QueueName, query: &DeadQuery) -> Result<u64>;

    /// Deletes a message that waits for its time.
    async fn cancel(&self, name: &QueueName, id: &MessageId) -> Result<bool>;

    /// Puts everything this process holds back, and closes the connections.
    async fn close(&self, held: Vec<(QueueId, Vec<Lease>)>) -> Result<()>;
}

/// How often an owner of temporary queues says that it lives, and how long that is believed.
///
/// A killed process's temporary queues are thus gone after about ten seconds. Nobody else's are, although a living process may
/// be silent for longer than that: while another process writes for a long time, while the machine sleeps. For then those
/// who would remove its queues are silent too, and they remove only what they find ownerless in two looks, a heartbeat apart,
/// in which the owner, awake again like them, has said that it lives. A process that alone is stopped for so long, as by a
/// debugger, does lose its temporary queues, and its receivers say so.
pub(crate) const HEARTBEAT: Duration = Duration::from_secs(2);
pub(crate) const BELIEVED: Duration = Duration::from_secs(6);
