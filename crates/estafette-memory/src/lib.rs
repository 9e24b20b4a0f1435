//! The in-process transport, `memory:`: the reference for every other, and the template to copy.
//!
//! Messages live in this process and end with it. Everything else is kept as the contract says: attempts, leases with
//! fencing, delays, expiry, dead letters, order by key.
//!
//! | our word | here |
//! |---|---|
//! | queue | a `Queue` under its own lock: a sorted deque of what is ready, a tree of what waits, a map of what is leased |
//! | subscription | an entry in the routes, resolved once per topic and remembered |
//! | ticket | the message's place in the queue, and the number of the hand-over |
//! | wake-up | a `Notify` per queue |
//!
//! Reading order: `config`, `publisher`, `receiver`, then `queue`, which holds the life of a message.

mod admin;
mod clock;
mod config;
mod dead;
mod error;
mod publisher;
mod queue;
mod receiver;

use std::{
    sync::{Arc, atomic::AtomicBool, atomic::Ordering},
    time::Duration,
};

use estafette_core::{
    Admin, Durability, Guarantees, Order, Outgoing, QueueName, QueueSpec, Receipt, ReceiveOptions, Receiver,
    Result, Support, Timestamp, Transport, TransportUrl, async_trait,
};

pub use config::MemoryConfig;

use crate::{clock::Clock, publisher::Routes, receiver::MemoryReceiver};

/// Queues in this process. Clones share them.
#[derive(Clone, Debug)]
pub struct MemoryTransport {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    config: MemoryConfig,
    clock: Clock,
    routes: Routes,
    closed: AtomicBool,
}

impl MemoryTransport {
    /// A transport with the default settings.
    #[must_use]
    pub fn new() -> Self {
        Self::with_config(MemoryConfig::default())
    }

    /// A transport with these settings.
    #[must_use]
    pub fn with_config(config: MemoryConfig) -> Self {
        Self::with_clock(config, Clock::new())
    }

    /// A transport whose clock stands at `time` and moves only by [`advance`](Self::advance). For tests.
    #[must_use]
    pub fn with_clock_stopped_at(time: Timestamp) -> Self {
        Self::with_clock(MemoryConfig::default(), Clock::stopped_at(time))
    }

    fn with_clock(config: MemoryConfig, clock: Clock) -> Self {
        let routes = Routes::new(config.messages_max);
        let shared = Shared { config, clock, routes, closed: AtomicBool::new(false) };
        Self { shared: Arc::new(shared) }
    }

    /// The time by this transport's clock.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.shared.clock.now()
    }

    /// Moves this transport's clock forward: what was to happen within `by` happens now. For tests.
    pub fn advance(&self, by: Duration) {
        self.shared.clock.advance(by);
        self.shared.routes.wake_all();
    }

    /// When the next delayed message becomes visible or the next lease ends, from now; `None` when nothing waits. For tests.
    #[must_use]
    pub fn next_event(&self) -> Option<Duration> {
        let now = self.shared.clock.now();
        let next = self.shared.routes.queues().iter().filter_map(|queue| queue.lock().next_event()).min();
        next.map(|at| at.since(now))
    }
}

impl Default for MemoryTransport {
    fn default() -> Self {
        Self::new()
    }
}

/// Connects to `memory:`; each call makes a transport of its own.
///
/// # Errors
///
/// [`InvalidInput`](estafette_core::ErrorKind::InvalidInput) for an address or an unknown setting.
pub async fn connect(url: TransportUrl) -> Result<Arc<dyn Transport>> {
    Ok(Arc::new(MemoryTransport::with_config(MemoryConfig::from_url(url)?)))
}

#[async_trait]
impl Transport for MemoryTransport {
    fn guarantees(&self) -> Guarantees {
        Guarantees {
            durability: Durability::Process,
            order: Order::Key,
            shared: false,
            topics: Support::Native,
            delay: Support::Native,
            expiry: Support::Native,
            attempts: Support::Native,
            dead_letters: Support::Native,
            temporary_queues: Support::Native,
            lease_extend: Support::Native,
            fencing: Support::Native,
            cancel: Support::Native,
            body_bytes_max: self.shared.config.body_bytes_max,
        }
    }

    async fn declare(&self, queue: &QueueSpec) -> Result<()> {
        self.shared.check_open()?;
        self.shared.routes.declare(queue)
    }

    async fn publish(&self, batch: &[Outgoing]) -> Vec<Result<Receipt>> {
        let now = self.shared.clock.now();
        batch.iter().map(|outgoing| self.shared.publish(outgoing, now)).collect()
    }

    async fn receiver(&self, queue: &QueueName, options: ReceiveOptions) -> Result<Box<dyn Receiver>> {
        self.shared.check_open()?;
        Ok(Box::new(MemoryReceiver::open(Arc::clone(&self.shared), queue, options)?))
    }

    fn admin(&self) -> &dyn Admin {
        &*self.shared
    }

    async fn close(&self) -> Result<()> {
        self.shared.closed.store(true, Ordering::Release);
        self.shared.routes.wake_all();
        Ok(())
    }
}

impl Shared {
    fn check_open(&self) -> Result<()> {
        if self.closed.load(Ordering::Acquire) { Err(error::closed()) } else { Ok(()) }
    }
}
