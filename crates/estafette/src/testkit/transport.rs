//! The memory transport, watched, with faults.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use estafette_core::{
    Admin, Delivery, Destination, Error, ErrorKind, Guarantees, Outcome, Outgoing, QueueName, QueueSpec,
    Receipt, ReceiveOptions, Receiver, Result, Settlement, Settler, Ticket, Transport, async_trait,
};
use estafette_memory::MemoryTransport;

use super::{
    faults::Faults,
    record::{Fate, Handled, Record},
};

/// Whose copy of a published message a delay is for: the fault strikes the message, not a queue's copy.
const EVERY_QUEUE: &str = "every-queue";

/// Out of which so many ready messages another order is made.
const SHUFFLED_MAX: usize = 1000;

pub(super) struct TestTransport {
    memory: MemoryTransport,
    watch: Watch,
}

#[derive(Clone)]
struct Watch {
    record: Arc<Record>,
    faults: Arc<Mutex<Faults>>,
}

impl TestTransport {
    pub(super) fn new(memory: MemoryTransport, record: Arc<Record>, faults: Faults) -> Self {
        Self { memory, watch: Watch { record, faults: Arc::new(Mutex::new(faults)) } }
    }

    /// The message as it will be stored, later perhaps.
    fn delayed(&self, outgoing: &Outgoing) -> Result<Outgoing> {
        let mut outgoing = outgoing.clone();
        let queue = match &outgoing.destination {
            Destination::Queue(queue) => queue.clone(),
            Destination::Topic => EVERY_QUEUE.try_into()?,
        };
        outgoing.delay += self.watch.faults().delay_of(&queue, &outgoing.envelope);
        Ok(outgoing)
    }
}

impl Watch {
    fn faults(&self) -> MutexGuard<'_, Faults> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Transport for TestTransport {
    fn guarantees(&self) -> Guarantees {
        self.memory.guarantees()
    }

    async fn declare(&self, queue: &QueueSpec) -> Result<()> {
        self.memory.declare(queue).await
    }

    async fn publish(&self, batch: &[Outgoing]) -> Vec<Result<Receipt>> {
        let delayed: Result<Vec<Outgoing>> = batch.iter().map(|outgoing| self.delayed(outgoing)).collect();
        let receipts = match delayed {
            Ok(delayed) => self.memory.publish(&delayed).await,
            Err(error) => vec![Err(error); batch.len()],
        };
        for (outgoing, _) in batch.iter().zip(&receipts).filter(|(_, receipt)| receipt.is_ok()) {
            self.watch.record.publish(outgoing);
        }
        receipts
    }

    async fn receiver(&self, queue: &QueueName, options: ReceiveOptions) -> Result<Box<dyn Receiver>> {
        let receiver = self.memory.receiver(queue, options).await?;
        self.watch.record.open(queue);
        let settler = Arc::new(TestSettler {
            memory: self.memory.clone(),
            watch: self.watch.clone(),
            queue: queue.clone(),
            held: Mutex::default(),
        });
        Ok(Box::new(TestReceiver { receiver, waiting: Vec::new(), settler }))
    }

    fn admin(&self) -> &dyn Admin {
        self.memory.admin()
    }

    async fn close(&self) -> Result<()> {
        self.memory.close().await
    }
}

struct TestReceiver {
    receiver: Box<dyn Receiver>,
    /// Taken to be handed over in another order; the next is the last.
    waiting: Vec<Delivery>,
    settler: Arc<TestSettler>,
}

#[async_trait]
impl Receiver for TestReceiver {
    async fn receive(&mut self, max: usize, wait: Duration) -> Result<Vec<Delivery>> {
        let reorders = self.settler.watch.faults().reorders();
        if self.waiting.is_empty() {
            let max = if reorders { max.max(SHUFFLED_MAX) } else { max };
            self.waiting = self.receiver.receive(max, wait).await?;
            self.settler.watch.faults().shuffle(&mut self.waiting);
            if !reorders {
                self.waiting.reverse();
            }
        }
        let rest = self.waiting.len().saturating_sub(max);
        let taken = self.waiting.split_off(rest);
        Ok(taken.into_iter().rev().map(|delivery| TestSettler::hold(&self.settler, delivery)).collect())
    }

    async fn close(&mut self) -> Result<()> {
        for delivery in self.waiting.drain(..) {
            delivery.release().await?;
        }
        self.receiver.close().await
    }
}

/// Settles what one receiver handed over, and writes it down.
struct TestSettler {
    memory: MemoryTransport,
    watch: Watch,
    queue: QueueName,
    held: Mutex<HashMap<Ticket, Delivery>>,
}

impl TestSettler {
    fn held(&self) -> MutexGuard<'_, HashMap<Ticket, Delivery>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The delivery to hand over in place of the transport's.
    fn hold(settler: &Arc<Self>, delivery: Delivery) -> Delivery {
        let owner = Arc::clone(settler) as Arc<dyn Settler>;
        let (envelope, queue) = (Arc::clone(delivery.envelope()), delivery.queue().clone());
        let handed_over = Delivery::new(envelope, queue, delivery.attempt(), delivery.ticket(), owner);
        settler.held().insert(delivery.ticket(), delivery);
        settler.watch.record.step();
        handed_over
    }

    async fn settle_one(&self, Settlement { ticket, outcome }: Settlement) -> Result<()> {
        let Some(delivery) = self.held().remove(&ticket) else { return Err(ErrorKind::LeaseLost.into()) };
        let envelope = Arc::clone(delivery.envelope());
        let attempt = delivery.attempt();
        let handled =
            |fate| Handled { queue: self.queue.clone(), envelope: Arc::clone(&envelope), attempt, fate };
        let is_acked = outcome == Outcome::Ack;
        if is_acked && self.watch.faults().loses_ack(&self.queue, &envelope) {
            drop(delivery);
            self.watch.record.handle(handled(Fate::AckLost));
            return Err(Error::new(ErrorKind::Unavailable, "the test kit lost this acknowledgement"));
        }
        delivery.settle(outcome.clone()).await?;
        if is_acked && self.watch.faults().duplicates(&self.queue, &envelope) {
            let again = Outgoing::send(self.queue.clone(), Arc::clone(&envelope));
            self.memory.publish(&[again]).await.into_iter().collect::<Result<Vec<_>>>()?;
        }
        self.watch.record.handle(handled(Fate::Settled(outcome)));
        Ok(())
    }
}

#[async_trait]
impl Settler for TestSettler {
    async fn settle(&self, batch: Vec<Settlement>) -> Vec<Result<()>> {
        let mut results = Vec::with_capacity(batch.len());
        for settlement in batch {
            results.push(self.settle_one(settlement).await);
        }
        results
    }

    async fn extend(&self, tickets: &[Ticket], lease: Duration) -> Vec<Result<()>> {
        let settler = tickets.iter().find_map(|ticket| self.held().get(ticket)?.settler().cloned());
        match settler {
            Some(settler) => settler.extend(tickets, lease).await,
            None => vec![Err(ErrorKind::LeaseLost.into()); tickets.len()],
        }
    }

    fn abandon(&self, ticket: Ticket) {
        let delivery = self.held().remove(&ticket);
        drop(delivery);
        self.watch.record.step();
    }
}
