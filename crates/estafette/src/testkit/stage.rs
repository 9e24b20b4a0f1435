//! The transport under test: memory, under a clock that stands still, watched, with faults.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use estafette_core::{
    Admin, DeadLetter, DeadQuery, Guarantees, MessageId, Outgoing, Pattern, QueueName, QueueSpec,
    QueueStatus, Receipt, ReceiveOptions, Receiver, Result, Timestamp, Transport, async_trait,
};
use estafette_memory::MemoryTransport;

use super::{Faults, receiver::TestReceiver, record::Record, traffic::Traffic};

/// Where the kit's clock begins: 2100-01-01T00:00:00Z. Consumers compare expiries with the machine's clock too, which must not
/// get there first.
const BEGINNING: Timestamp = Timestamp::from_micros(4_102_444_800_000_000);

/// Everything the consumers of a test share.
pub(super) struct Stage {
    pub(super) memory: MemoryTransport,
    pub(super) traffic: Arc<Traffic>,
    pub(super) record: Record,
    faults: Mutex<Faults>,
}

impl Stage {
    pub(super) fn new(faults: Faults) -> Self {
        Self {
            memory: MemoryTransport::with_clock_stopped_at(BEGINNING),
            traffic: Arc::new(Traffic::new()),
            record: Record::default(),
            faults: Mutex::new(faults),
        }
    }

    pub(super) fn faults(&self) -> MutexGuard<'_, Faults> {
        // A panic while it was held leaves nothing half done.
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How far the clock was moved.
    pub(super) fn elapsed(&self) -> std::time::Duration {
        self.memory.now().since(BEGINNING)
    }

    /// The message with its expiry by the kit's clock. The application reckons with the machine's.
    fn by_our_clock(&self, outgoing: &Outgoing) -> Outgoing {
        let mut outgoing = outgoing.clone();
        let known = self.record.has_seen(&outgoing.envelope.id);
        if let Some(expires_at) = outgoing.envelope.expires_at.filter(|_| !known) {
            let (now, by_machine) = (self.memory.now(), Timestamp::now());
            let left = expires_at.since(by_machine);
            let late = by_machine.since(expires_at);
            outgoing.envelope_mut().expires_at = Some(now + left - late);
        }
        outgoing
    }
}

/// The stage as a transport.
pub(super) struct TestTransport(pub(super) Arc<Stage>);

#[async_trait]
impl Transport for TestTransport {
    fn guarantees(&self) -> Guarantees {
        self.0.memory.guarantees()
    }

    async fn declare(&self, queue: &QueueSpec) -> Result<()> {
        self.0.memory.declare(queue).await
    }

    async fn publish(&self, batch: &[Outgoing]) -> Vec<Result<Receipt>> {
        let stage = &self.0;
        let batch: Vec<Outgoing> = batch.iter().map(|outgoing| stage.by_our_clock(outgoing)).collect();
        let receipts = stage.memory.publish(&batch).await;
        for (outgoing, receipt) in batch.into_iter().zip(&receipts) {
            stage.record.publish(stage.elapsed(), outgoing, receipt);
        }
        stage.traffic.change();
        receipts
    }

    async fn receiver(&self, queue: &QueueName, options: ReceiveOptions) -> Result<Box<dyn Receiver>> {
        let receiver = self.0.memory.receiver(queue, options).await?;
        Ok(Box::new(TestReceiver::new(Arc::clone(&self.0), receiver, queue)))
    }

    fn admin(&self) -> &dyn Admin {
        &*self.0
    }

    async fn close(&self) -> Result<()> {
        let closed = self.0.memory.close().await;
        self.0.traffic.change();
        closed
    }
}

/// The memory transport's, and receivers learn of what it changes.
#[async_trait]
impl Admin for Stage {
    async fn queues(&self) -> Result<Vec<QueueStatus>> {
        self.memory.admin().queues().await
    }

    async fn queue(&self, queue: &QueueName) -> Result<QueueStatus> {
        self.memory.admin().queue(queue).await
    }

    async fn unsubscribe(&self, queue: &QueueName, pattern: &Pattern) -> Result<()> {
        self.memory.admin().unsubscribe(queue, pattern).await
    }

    async fn delete(&self, queue: &QueueName) -> Result<()> {
        let deleted = self.memory.admin().delete(queue).await;
        self.traffic.change();
        deleted
    }

    async fn purge(&self, queue: &QueueName) -> Result<u64> {
        let purged = self.memory.admin().purge(queue).await;
        self.traffic.change();
        purged
    }

    async fn dead(&self, queue: &QueueName, query: &DeadQuery) -> Result<Vec<DeadLetter>> {
        self.memory.admin().dead(queue, query).await
    }

    async fn redrive(&self, queue: &QueueName, query: &DeadQuery) -> Result<u64> {
        let redriven = self.memory.admin().redrive(queue, query).await;
        self.traffic.change();
        redriven
    }

    async fn purge_dead(&self, queue: &QueueName, query: &DeadQuery) -> Result<u64> {
        self.memory.admin().purge_dead(queue, query).await
    }

    async fn cancel(&self, queue: &QueueName, id: &MessageId) -> Result<bool> {
        let cancelled = self.memory.admin().cancel(queue, id).await;
        self.traffic.change();
        cancelled
    }
}
