//! A transport that fails as often as told, around one that works.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use estafette_core::{
    Admin, Delivery, Error, ErrorKind, Guarantees, Order, Outgoing, QueueName, QueueSpec, Receipt,
    ReceiveOptions, Receiver, Result, Settlement, Settler, Ticket, Transport, async_trait,
};

/// How many more calls of each function fail.
#[derive(Default)]
pub(crate) struct Failures {
    pub(crate) declare: AtomicU32,
    pub(crate) receiver: AtomicU32,
    pub(crate) receive: AtomicU32,
    pub(crate) settle: AtomicU32,
    pub(crate) publish: AtomicU32,
}

fn fails(left: &AtomicU32) -> Result<()> {
    let one_less = |left: u32| left.checked_sub(1);
    match left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less) {
        Ok(_) => Err(Error::new(ErrorKind::Unavailable, "the engine is away")),
        Err(_) => Ok(()),
    }
}

pub(crate) struct Faulty {
    inner: Arc<dyn Transport>,
    pub(crate) failures: Arc<Failures>,
    order: Order,
}

impl Faulty {
    pub(crate) fn around(inner: Arc<dyn Transport>) -> Self {
        Self { inner, failures: Arc::default(), order: Order::Key }
    }

    /// The same, but without a promise of order.
    pub(crate) fn unordered(mut self) -> Self {
        self.order = Order::None;
        self
    }
}

#[async_trait]
impl Transport for Faulty {
    fn guarantees(&self) -> Guarantees {
        Guarantees { order: self.order, ..self.inner.guarantees() }
    }

    async fn declare(&self, queue: &QueueSpec) -> Result<()> {
        fails(&self.failures.declare)?;
        self.inner.declare(queue).await
    }

    async fn publish(&self, batch: &[Outgoing]) -> Vec<Result<Receipt>> {
        match fails(&self.failures.publish) {
            Ok(()) => self.inner.publish(batch).await,
            Err(error) => batch.iter().map(|_| Err(error.clone())).collect(),
        }
    }

    async fn receiver(&self, queue: &QueueName, options: ReceiveOptions) -> Result<Box<dyn Receiver>> {
        fails(&self.failures.receiver)?;
        let inner = self.inner.receiver(queue, options).await?;
        Ok(Box::new(FaultyReceiver { inner, failures: Arc::clone(&self.failures) }))
    }

    fn admin(&self) -> &dyn Admin {
        self.inner.admin()
    }

    async fn close(&self) -> Result<()> {
        self.inner.close().await
    }
}

struct FaultyReceiver {
    inner: Box<dyn Receiver>,
    failures: Arc<Failures>,
}

#[async_trait]
impl Receiver for FaultyReceiver {
    async fn receive(&mut self, max: usize, wait: Duration) -> Result<Vec<Delivery>> {
        fails(&self.failures.receive)?;
        let deliveries = self.inner.receive(max, wait).await?;
        Ok(deliveries.into_iter().map(|delivery| wrap(delivery, &self.failures)).collect())
    }

    async fn close(&mut self) -> Result<()> {
        self.inner.close().await
    }
}

/// The same delivery, settled through a settler that fails.
fn wrap(delivery: Delivery, failures: &Arc<Failures>) -> Delivery {
    let inner = Arc::clone(delivery.settler().unwrap());
    let settler = Arc::new(FaultySettler { inner, failures: Arc::clone(failures) });
    let (envelope, queue) = (Arc::clone(delivery.envelope()), delivery.queue().clone());
    let wrapped = Delivery::new(envelope, queue, delivery.attempt(), delivery.ticket(), settler);
    // The wrapper returns it when dropped; twice would be once too often.
    std::mem::forget(delivery);
    wrapped
}

struct FaultySettler {
    inner: Arc<dyn Settler>,
    failures: Arc<Failures>,
}

#[async_trait]
impl Settler for FaultySettler {
    async fn settle(&self, batch: Vec<Settlement>) -> Vec<Result<()>> {
        match fails(&self.failures.settle) {
            Ok(()) => self.inner.settle(batch).await,
            Err(error) => batch.iter().map(|_| Err(error.clone())).collect(),
        }
    }

    async fn extend(&self, tickets: &[Ticket], lease: Duration) -> Vec<Result<()>> {
        self.inner.extend(tickets, lease).await
    }

    fn abandon(&self, ticket: Ticket) {
        self.inner.abandon(ticket);
    }
}
