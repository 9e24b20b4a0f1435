//! The stand-in as a transport: publishing, declaring, closing.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use estafette_core::{
    Admin, Destination, Envelope, Error, ErrorKind, Guarantees, Headers, Lifetime, Order, Outgoing, Pattern,
    QueueName, QueueSpec, Receipt, ReceiveOptions, Receiver, Result, Routing, Support, Ticket, Transport,
    async_trait,
};
use estafette_memory::{MemoryConfig, MemoryTransport};

use crate::{
    admin::BrokenAdmin,
    faults::Fault,
    receiver::{BrokenReceiver, Held},
};

/// What the parts of a stand-in share.
pub(crate) struct Shared {
    pub(crate) inner: MemoryTransport,
    pub(crate) fault: Fault,
    /// By message id: retries so far, or attempts before it was redriven.
    pub(crate) counts: Mutex<HashMap<String, u32>>,
    /// By the key of a ticket: who was handed the message last.
    pub(crate) owners: Mutex<HashMap<u64, (Held, Ticket)>>,
    published: AtomicUsize,
    closed: AtomicBool,
    longest_delay: Mutex<Duration>,
}

/// A transport that keeps the whole contract but for one fault.
pub(crate) struct Broken {
    shared: Arc<Shared>,
    admin: BrokenAdmin,
}

impl Broken {
    pub(crate) fn new(fault: Fault) -> Self {
        let config = MemoryConfig { body_bytes_max: 1 << 20, ..MemoryConfig::default() };
        let shared = Arc::new(Shared {
            inner: MemoryTransport::with_config(config),
            fault,
            counts: Mutex::default(),
            owners: Mutex::default(),
            published: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
            longest_delay: Mutex::default(),
        });
        Self { admin: BrokenAdmin { shared: Arc::clone(&shared) }, shared }
    }

    fn has(&self, fault: Fault) -> bool {
        self.shared.fault == fault
    }

    /// Stores one message as a correct transport would, or as this one does.
    async fn store(&self, outgoing: &Outgoing) -> Result<Receipt> {
        let shared = &self.shared;
        let mut outgoing = outgoing.clone();
        let stored = Receipt { id: outgoing.envelope.id.clone(), routing: Routing::Queues(1) };
        match shared.fault {
            Fault::LosesEverySeventh if shared.published.fetch_add(1, Ordering::Relaxed) % 7 == 6 => {
                return Ok(stored);
            }
            Fault::AcceptsTooLarge if outgoing.envelope.body.len() > 1 << 20 => return Ok(stored),
            Fault::RefusesUndeclaredQueues => {
                if let Destination::Queue(queue) = &outgoing.destination {
                    shared.inner.admin().queue(queue).await?;
                }
            }
            Fault::StoresTwice => drop(self.pass_on(&outgoing).await?),
            Fault::IgnoresTopics | Fault::SkipsTheSecondQueue
                if outgoing.destination == Destination::Topic =>
            {
                return self.store_in_queues(&outgoing).await;
            }
            Fault::IgnoresDelays => outgoing.delay = Duration::ZERO,
            Fault::QueuesUpDelays if !outgoing.delay.is_zero() => {
                let mut longest = shared.longest_delay.lock().unwrap();
                *longest = outgoing.delay.max(*longest);
                outgoing.delay = *longest;
            }
            _ => spoil(shared.fault, outgoing.envelope_mut()),
        }
        let receipt = self.pass_on(&outgoing).await?;
        let routing = if self.has(Fault::SaysRouted) { Routing::Routed } else { receipt.routing };
        Ok(Receipt { routing, ..receipt })
    }

    async fn pass_on(&self, outgoing: &Outgoing) -> Result<Receipt> {
        let outgoing = if self.has(Fault::SaysRouted) {
            Outgoing { require_queue: false, ..outgoing.clone() }
        } else {
            outgoing.clone()
        };
        self.shared.inner.publish(&[outgoing]).await.pop().unwrap()
    }

    /// Sends to all queues whatever their patterns, or to the first that matches.
    async fn store_in_queues(&self, outgoing: &Outgoing) -> Result<Receipt> {
        let topic = &outgoing.envelope.topic;
        let matches = |patterns: &[Pattern]| patterns.iter().any(|pattern| pattern.matches(topic));
        let mut queues = self.shared.inner.admin().queues().await?;
        if self.has(Fault::SkipsTheSecondQueue) {
            queues.retain(|queue| matches(&queue.patterns));
            queues.truncate(1);
        }
        for queue in &queues {
            let destination = Destination::Queue(queue.name.clone());
            self.pass_on(&Outgoing { destination, ..outgoing.clone() }).await?;
        }
        Ok(Receipt { id: outgoing.envelope.id.clone(), routing: Routing::to_queues(queues.len()) })
    }
}

/// Changes a message on its way.
fn spoil(fault: Fault, envelope: &mut Envelope) {
    match fault {
        Fault::LosesEmptyHeaders => {
            let mut headers = Headers::new();
            for (name, value) in envelope.headers.iter().filter(|(_, value)| !value.is_empty()) {
                headers.insert(name, value).unwrap();
            }
            envelope.headers = headers;
        }
        Fault::TrimsBodies => envelope.body = envelope.body.trim_ascii().to_vec().into(),
        Fault::CutsLargeBodies => envelope.body.truncate(65_536),
        Fault::IgnoresExpiry => envelope.expires_at = None,
        _ => {}
    }
}

#[async_trait]
impl Transport for Broken {
    fn guarantees(&self) -> Guarantees {
        let inner = self.shared.inner.guarantees();
        if self.has(Fault::PromisesNothing) {
            let none = Support::None;
            return Guarantees { order: Order::None, delay: none, cancel: none, lease_extend: none, ..inner };
        }
        inner
    }

    async fn declare(&self, queue: &QueueSpec) -> Result<()> {
        let mut queue = queue.clone();
        if self.has(Fault::KeepsTemporaryQueues) {
            queue.lifetime = Lifetime::Durable;
        }
        if self.has(Fault::ReplacesPatterns) {
            let known = self.shared.inner.admin().queue(&queue.name).await;
            for pattern in known.map(|known| known.patterns).unwrap_or_default() {
                self.shared.inner.admin().unsubscribe(&queue.name, &pattern).await?;
            }
        }
        self.shared.inner.declare(&queue).await
    }

    async fn publish(&self, batch: &[Outgoing]) -> Vec<Result<Receipt>> {
        let mut results = Vec::new();
        let mut failed: Option<Error> = None;
        let reversed = self.has(Fault::ReversesBatches);
        for place in 0..batch.len() {
            let outgoing = if reversed { &batch[batch.len() - 1 - place] } else { &batch[place] };
            let result = match &failed {
                Some(error) if self.has(Fault::GivesUpAtTheFirstFailure) => Err(error.clone()),
                _ => self.store(outgoing).await,
            };
            failed = failed.or(result.as_ref().err().cloned());
            results.push(result);
        }
        if reversed {
            results.reverse();
        }
        results
    }

    async fn receiver(&self, queue: &QueueName, options: ReceiveOptions) -> Result<Box<dyn Receiver>> {
        let asked = options.clone();
        let options = ReceiveOptions {
            lease: match self.shared.fault {
                Fault::LeasesForever => Duration::from_secs(3600),
                Fault::LeasesTooShort => options.lease / 3,
                _ => options.lease,
            },
            unsettled_max: match self.shared.fault {
                Fault::IgnoresTheUnsettledMaximum => usize::MAX,
                _ => options.unsettled_max,
            },
            ordered_by_key: match self.shared.fault {
                Fault::IgnoresKeys => false,
                Fault::AlwaysOrdersByKey => true,
                _ => options.ordered_by_key,
            },
        };
        let inner = self.shared.inner.receiver(queue, options).await?;
        Ok(Box::new(BrokenReceiver::new(Arc::clone(&self.shared), inner, asked)))
    }

    fn admin(&self) -> &dyn Admin {
        &self.admin
    }

    async fn close(&self) -> Result<()> {
        match self.shared.fault {
            Fault::StaysOpen => Ok(()),
            Fault::ClosesOnce if self.shared.closed.swap(true, Ordering::AcqRel) => {
                Err(Error::new(ErrorKind::Closed, "closed already"))
            }
            _ => self.shared.inner.close().await,
        }
    }
}
